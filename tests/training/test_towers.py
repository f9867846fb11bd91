"""Trained towers: against plain loops and frozen towers, resumption, vocabulary, refusals."""

import errno
import hashlib
import io
import os
import resource
import signal
import threading
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from plain_loop import adamw, info_nce, linear_heads, update
from small_runs import assert_all_the_same
from torch import nn
from torch.nn import functional as F

from lib.chapters.end_to_end import chance_rsum
from lib.datasets import load_corpus
from lib.encoders import extract_features
from lib.runs import TEST_COLUMNS, RunConfig, ScheduleConfig, Store, TowersConfig
from lib.training import retrain, towers, train, trainer
from lib.training.data import Gallery, TrainingData
from lib.training.history import evaluate
from lib.training.step import TrainingStep
from lib.training.towers import last_blocks, pool, scratch
from lib.training.towers import run as one_run
from lib.training.towers.run import Run
from lib.utils.seeds import generator, torch_generator

CPU = torch.device("cpu")
SCRATCH = TowersConfig(trained="from scratch")
BLOCKS = TowersConfig(trained="last blocks", learning_rate=1e-4)
VARIANCE = ScheduleConfig(signal="variance", actuator="direction", gamma=10.0)


def config(towers=SCRATCH, **changes):
    names = {"image_tower": "resnet18@32", "text_tower": "gru"}
    if towers is None or towers.trained == "last blocks":
        names["image_tower"], names["text_tower"] = "efficientnet-lite0@32", "minilm"
    small = {"train_images": 24, "batch_size": 8, "epochs": 3, "embedding_dim": 16}
    return RunConfig(**(small | names | changes), towers=towers)


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("scenes", train=30, val=12, test=12, image_size=32)


@pytest.fixture(autouse=True)
def small(corpus, monkeypatch):
    """Let every run train on a few small scenes."""
    monkeypatch.setattr(trainer, "load_corpus", lambda *_, **__: corpus)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def material(corpus, home):
    return towers.load_inputs(corpus, "from scratch", "resnet18@32", "gru", CPU)


@pytest.fixture(scope="module")
def blocks(corpus, home):
    names = "efficientnet-lite0@32", "minilm"
    features = extract_features(corpus, *names, "cpu")
    return towers.load_inputs(corpus, "last blocks", *names, CPU), features


@pytest.fixture
def use(monkeypatch, material, blocks):
    """Let runs find their inputs loaded."""
    loaded = {"from scratch": material, "last blocks": blocks[0]}
    monkeypatch.setattr(trainer, "load_inputs", lambda _corpus, trained, *_: loaded[trained])


def records(configs, folder, features=None):
    return train(configs, store=Store(folder=folder), features=features, device="cpu")


CHANGING = [
    config(
        TowersConfig(trained="from scratch", augmentation="crop and flip", least_count=2),
        schedule=VARIANCE,
        dropout=0.2,
        learning_rate_decay="cosine",
    ),
    config(BLOCKS, learn_temperature=True, schedule=VARIANCE),
]
"""Runs whose checkpoints hold every kind of state."""


@pytest.fixture(scope="module")
def undisturbed(material, blocks):
    results = []
    for inputs, one in zip([material, blocks[0]], CHANGING, strict=True):
        towers.train_runs([one], inputs, {}, results.append)
    return [record for result in results for record in result.records]


@pytest.mark.usefixtures("use")
def test_an_interrupted_run_goes_on_to_the_same_numbers(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(one_run, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    original, stop = Run.train_epoch, [True]

    def interrupted(run, stopped):
        if stop[0] and len(run.history.epochs) == 2:
            raise KeyboardInterrupt
        assert stop[0] or len(run.history.epochs) == 2, "a finished epoch is trained again"
        original(run, stopped)

    monkeypatch.setattr(Run, "train_epoch", interrupted)
    for one in CHANGING:
        stop[0] = True
        with pytest.raises(KeyboardInterrupt):
            records([one], tmp_path)
        assert pool.checkpoint_path(one).exists()
    stop[0] = False
    assert_all_the_same(records(CHANGING, tmp_path), undisturbed)
    assert not any(pool.checkpoint_path(one).exists() for one in CHANGING)


@pytest.mark.usefixtures("use")
def test_a_checkpoint_that_is_damaged_is_not_used(undisturbed, tmp_path):
    path = pool.checkpoint_path(CHANGING[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK no archive")
    with pytest.warns(UserWarning, match=r"\.pt is damaged"):
        again = records(CHANGING[:1], tmp_path)
    assert_all_the_same(again, undisturbed[:1])


@pytest.mark.usefixtures("use")
def test_a_checkpoint_with_one_other_bit_is_not_used(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(one_run, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    path, written = pool.checkpoint_path(CHANGING[0]), []
    write = one_run.write_atomic

    def kept(target, data):
        written.append(data)
        write(target, data)

    with monkeypatch.context() as patch:
        patch.setattr(one_run, "write_atomic", kept)
        records(CHANGING[:1], tmp_path / "first")
    for place in (0, 31, 32, len(written[0]) // 3, len(written[0]) // 2, len(written[0]) - 1):
        damaged = bytearray(written[0])
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="not those that were written"):
            assert one_run._read(path, CPU) is None
    with pytest.warns(UserWarning, match="the run begins anew"):
        again = records(CHANGING[:1], tmp_path / "again")
    assert_all_the_same(again, undisturbed[:1])


def test_a_checkpoint_comes_back_to_the_devices_that_it_was_on(tmp_path):
    """The device "meta" stands for a GPU."""
    state = {"model": torch.ones(3, device="meta"), "drawn": [torch.ones(2)]}
    content = io.BytesIO()
    torch.save(state, content)
    path = tmp_path / "run.pt"
    path.write_bytes(hashlib.sha256(content.getvalue()).digest() + content.getvalue())
    kept = one_run._read(path, torch.device("meta"))
    assert kept["model"].device.type == "meta"
    assert kept["drawn"][0].device.type == "cpu"


@pytest.mark.usefixtures("use")
def test_a_full_disk_is_named_when_a_checkpoint_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(one_run, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            records(CHANGING[:1], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(pool.checkpoint_path(CHANGING[0]).parent.iterdir()) == []


@pytest.mark.usefixtures("use")
def test_a_checkpoint_that_a_killed_process_left_beside_its_record_is_removed(
    tmp_path, monkeypatch
):
    one, unfinished = CHANGING[0], CHANGING[0].with_seed(7)
    for other in (one, unfinished):
        path = pool.checkpoint_path(other)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    put = Store.put

    def killed(*arguments):
        put(*arguments)
        raise SystemExit

    # A process that is killed as soon as the record is written removes no checkpoint.
    monkeypatch.setattr(Store, "put", killed)
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(SystemExit):
        records([one], tmp_path)
    assert pool.checkpoint_path(one).exists()
    monkeypatch.setattr(pool, "_train_run", None)
    records([one], tmp_path)
    assert not pool.checkpoint_path(one).exists()
    assert pool.checkpoint_path(unfinished).exists()


@pytest.mark.usefixtures("use")
def test_threads_and_neighbours_change_nothing(undisturbed, tmp_path):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        others = [CHANGING[0].with_seed(1), config(BLOCKS, seed=1)]
        together = records([*others, *CHANGING], tmp_path)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert_all_the_same(together[2:], undisturbed)


def test_a_failure_of_another_run_stops_a_run_at_once(material):
    run = Run(CHANGING[0], material, {})
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(KeyboardInterrupt):
        run.train_epoch(stopped)
    assert not run.history.epochs


def test_draws_are_those_of_frozen_towers(material, blocks):
    frozen = TrainingData.of(blocks[1], CPU)
    for seed in range(3):
        one = config(seed=seed)
        pairs, others = material.data.pairs(one), frozen.pairs(one)
        np.testing.assert_array_equal(pairs.image, others.image)
        np.testing.assert_array_equal(pairs.all_captions(), others.all_captions())
        for epoch in (1, 2):
            rows = material.data.epoch(one, pairs, epoch)
            np.testing.assert_array_equal(rows, frozen.epoch(one, others, epoch))


def split_captions(corpus):
    captions = [c for sample in corpus.samples for c in sample.captions]
    return [[w.strip(".,") for w in c.lower().split() if w.strip(".,")] for c in captions]


def test_a_fixed_run_from_scratch_is_a_plain_loop(material, corpus):
    """ResNet-18, a GRU and cross entropy, written out; the draws alone are shared."""
    one = config(epochs=2, learning_rate=1e-4)
    run = Run(one, material, {})
    run.train_epoch()
    run.train_epoch()

    pairs = material.data.pairs(one)
    image = torchvision.models.resnet18()
    image.fc = nn.Identity()
    draws = torch_generator(0, "initialisation", "image tower")
    for part in image.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", generator=draws)
    words = split_captions(corpus)
    known = sorted({w for row in pairs.all_captions() for w in words[row]})
    number = {word: index for index, word in enumerate(known, start=2)}
    embedding = nn.Embedding(len(known) + 2, scratch.WORD_FEATURES)
    draws = torch_generator(0, "initialisation", "words")
    with torch.no_grad():
        embedding.weight.normal_(generator=draws)
    text = nn.GRU(scratch.WORD_FEATURES, scratch.STATE_FEATURES, batch_first=True)
    draws = torch_generator(0, "initialisation", "text tower")
    bound = scratch.STATE_FEATURES**-0.5
    with torch.no_grad():
        for weight in text.parameters():
            weight.uniform_(-bound, bound, generator=draws)
    heads = linear_heads(one, (512, scratch.STATE_FEATURES))
    optimiser = adamw(one, image, embedding, text, heads)
    pixels = {
        row: torch.from_numpy(np.array(corpus.load_image(corpus.samples[row]))).permute(2, 0, 1)
        for row in pairs.image
    }
    losses = []
    for epoch in (1, 2):
        rows, captions = material.data.epoch(one, pairs, epoch)
        for start in range(0, 24, 8):
            batch = slice(start, start + 8)
            seen = torch.stack([pixels[row] for row in rows[batch]]) / 63.75 - 2
            states = []
            for caption in captions[batch]:
                ids = torch.tensor([[number[word] for word in words[caption]]])
                states.append(text(embedding(ids))[0][0, -1])
            v = F.normalize(heads[0](image(seen)), dim=-1)
            t = F.normalize(heads[1](torch.stack(states)), dim=-1)
            losses.append(update(optimiser, info_nce(v @ t.T, one.temperature)))
    # Adam's division magnifies rounding from step to step: hence the small learning rate.
    seen = torch.cat(run.history.steps)[:, 0, 0].numpy()
    np.testing.assert_allclose(seen[:2], losses[:2], rtol=1e-4)
    np.testing.assert_allclose(seen, losses, rtol=0.01)


@pytest.mark.usefixtures("use")
def test_blocks_that_hardly_learn_are_frozen_towers(blocks, tmp_path):
    still = TowersConfig(trained="last blocks", learning_rate=1e-12)
    (trained,) = records([config(still, learning_rate=0.01)], tmp_path / "a")
    (frozen,) = records([config(None, learning_rate=0.01)], tmp_path / "b", features=blocks[1])
    # The states before the last blocks are kept in half precision.
    np.testing.assert_allclose(trained.steps, frozen.steps, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(trained.steps[:1], frozen.steps[:1], rtol=2e-3)


def test_the_last_blocks_continue_the_frozen_part(blocks):
    material, features = blocks
    towers = material.towers(config(BLOCKS), material.data.pairs(config(BLOCKS)))
    rows = torch.arange(6)
    captions = torch.tensor([0, 7, 100, 269])
    with torch.no_grad():
        image, text = towers.image(rows), towers.text(captions)
    np.testing.assert_allclose(image, features.image[:6], atol=0.02)
    np.testing.assert_allclose(text, features.text[captions.numpy()], atol=0.02)
    assert torch.equal(towers.train().text(captions), text)


@pytest.mark.usefixtures("use")
def test_last_blocks_train_and_the_shared_ones_stay(blocks, undisturbed):
    material, features = blocks
    run = Run(config(BLOCKS), material, {})
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    run.train_epoch()
    for name, parameter in run.model.named_parameters():
        # A key's bias shifts all of a query's logits alike: its gradient is zero up to rounding.
        if "key.bias" not in name:
            assert not torch.equal(parameter, before[name]), name
    fresh = material.towers(config(BLOCKS), material.data.pairs(config(BLOCKS)))
    with torch.no_grad():
        np.testing.assert_allclose(fresh.image(torch.arange(2)), features.image[:2], atol=0.02)


def test_words_come_from_a_runs_training_captions_alone(material, corpus):
    one = config(TowersConfig(trained="from scratch", least_count=3), train_images=10)
    pairs = material.data.pairs(one)
    towers = material.towers(one, pairs)
    split = split_captions(corpus)
    counted = Counter(word for row in pairs.all_captions() for word in split[row])
    distinct = sorted({word for words in split for word in words})
    for index, word in enumerate(distinct, start=2):
        assert (int(towers.known[index]) == scratch.UNKNOWN) == (counted[word] < 3), word
    rare = [word for word in distinct if counted[word] < 3]
    assert any(counted[word] == 0 for word in rare), "no word of other splits: nothing is tested"
    numbers = towers.known[towers.known > 1]
    assert sorted(numbers.tolist()) == list(range(2, 2 + len(distinct) - len(rare)))
    assert towers.embedding.num_embeddings == 2 + len(distinct) - len(rare)


def test_a_captions_features_do_not_depend_on_the_others(material):
    one = config()
    towers = material.towers(one, material.data.pairs(one))
    lengths = material.caption_length
    rows = torch.tensor([int(lengths.argmin()), int(lengths.argmax()), 3])
    with torch.no_grad():
        alone = torch.cat([towers.text(row[None]) for row in rows])
        torch.testing.assert_close(towers.text(rows), alone)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_single_pixel_is_convolved_as_any(size, stride):
    draws = torch.Generator().manual_seed(0)
    ours = scratch.SinglePixelConvolution(4, 5, 3, stride, padding=1, bias=False)
    plain = nn.Conv2d(4, 5, 3, stride, padding=1, bias=False)
    plain.load_state_dict(ours.state_dict())
    one = torch.randn(6, 4, size, size, generator=draws, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    a, b = ours(one), plain(other)
    torch.testing.assert_close(a, b)
    a.square().sum().backward()
    b.square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, atol=1e-5, rtol=1e-4)


def test_augmentation_shifts_and_mirrors_whole_images():
    size, count = 16, 200
    ramp = torch.arange(size, dtype=torch.uint8)
    across = ramp.expand(1, size, size)
    images = torch.cat([across, across.mT, across]).expand(count, 3, size, size)
    seen = scratch.augment(images, np.random.default_rng(0))
    assert torch.equal(seen[:, 0], seen[:, 2])
    columns, rows = seen[:, 0, 0].int(), seen[:, 1, :, 0].int()
    mirrored = columns[:, 0] > columns[:, -1]
    upright = torch.where(mirrored[:, None], columns.flip(1), columns)
    for lines in (upright, rows):
        shift = lines[:, size // 2] - size // 2
        assert set(shift.tolist()) == {-2, -1, 0, 1, 2}
        expected = (torch.arange(size) + shift[:, None]).clamp(0, size - 1)
        assert torch.equal(lines, expected.int())
    assert 70 < int(mirrored.sum()) < 130


def test_scenes_that_were_seen_come_back_from_scratch(material):
    """The 24 training scenes are ranked far above chance."""
    one = config(epochs=12, learning_rate=1e-3, embedding_dim=32)
    run = Run(one, material, {})
    for _ in range(one.epochs):
        run.train_epoch()
    images = np.sort(run.pairs.image)
    captions = np.concatenate(
        [run.pairs.first_caption[run.pairs.image == row][0] + np.arange(5) for row in images]
    )
    owner = torch.arange(24).repeat_interleave(5)
    seen = Gallery(torch.from_numpy(images)[:, None], torch.from_numpy(captions)[:, None], owner)
    image, text = run.model.embed(seen, material.caption_length)
    metrics = evaluate(image[None], text[None], owner)[0]
    # 3.3 times chance when this was written.
    assert metrics[TEST_COLUMNS.index("rsum")] > 2 * chance_rsum(24, 120)


def test_towers_learn_from_scratch():
    """Trained on 200 scenes, other scenes are ranked far above chance."""
    scenes = load_corpus("scenes", train=200, val=40, test=40, image_size=32)
    material = towers.load_inputs(scenes, "from scratch", "resnet18@32", "gru", CPU)
    run = Run(config(train_images=200, batch_size=32, epochs=6, embedding_dim=32), material, {})
    while not run.history.finished:
        run.train_epoch()
    metrics = run.test().metrics[0]
    assert metrics[TEST_COLUMNS.index("rsum")] > 1.6 * chance_rsum(40, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_tower": "resnet18"}, "resnet18@PIXELS"),
        ({"image_tower": "resnet18@16"}, "32 to 512 pixels"),
        ({"image_tower": "efficientnet-lite0"}, "cannot be trained from scratch"),
        ({"text_tower": "minilm"}, "use gru or lstm"),
        ({"train_images": 31}, "has 30 images"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        records([config(**changes)], tmp_path)


def test_towers_that_cannot_be_cut_are_refused():
    class Tower:
        name, model = "other", nn.Linear(1, 1)

    with pytest.raises(ValueError, match="'other' cannot be cut before its last block"):
        last_blocks.split_image_tower(Tower())
    with pytest.raises(ValueError, match="'other' cannot be cut before its last layer"):
        last_blocks.split_text_tower(Tower())


def test_configurations_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="augmentation must be 'none'"):
        TowersConfig(trained="last blocks", augmentation="crop and flip")
    with pytest.raises(ValueError, match="use 'mismatched' or none"):
        config(noise={"kind": "images", "rate": 0.5})
    with pytest.raises(ValueError, match="are not kept"):
        next(retrain([config()]))


def test_runs_with_frozen_towers_keep_their_names():
    assert RunConfig().run_id == "dce5d808836077fc3a13"
    assert RunConfig(schedule=VARIANCE, seed=3).run_id == "43b87248cba5a76049c9"
    assert config().run_id != config(None, image_tower="resnet18@32", text_tower="gru").run_id


@pytest.mark.usefixtures("use")
def test_a_run_that_diverges_is_named_and_not_kept(material, tmp_path, monkeypatch):
    one = config(epochs=2)

    class Broken(TrainingStep):
        def __init__(self, objective, optimiser, config, steps):
            super().__init__(objective, optimiser, config, steps)
            self.factor = float("nan") if config.seed else 1.0

        def __call__(self, *arguments):
            return super().__call__(*arguments) * self.factor

    monkeypatch.setattr(one_run, "TrainingStep", Broken)
    with pytest.raises(trainer.TrainingError, match="fixed, seed 1: epoch 1, step 1"):
        records([one, one.with_seed(1)], tmp_path)
    assert [r.config.seed for r in Store(folder=tmp_path).records()] == [0]


def test_dropout_and_augmentation_draw_from_the_seed(material):
    first, again, other = (Run(CHANGING[0].with_seed(s), material, {}) for s in (0, 0, 1))
    for run in (first, again, other):
        run.train_epoch()
    assert torch.equal(first.history.steps[0], again.history.steps[0])
    assert not torch.equal(first.history.steps[0], other.history.steps[0])
    assert generator(0, "augmentation", 1).random() != generator(0, "augmentation", 2).random()
