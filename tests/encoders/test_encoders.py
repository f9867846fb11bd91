"""Towers and their feature cache: what determines a feature, damage, interruption, devices."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_towers import CountingTower, colour_tower

from lib import encoders
from lib.datasets import load_corpus
from lib.encoders import TowerError, extract_features, features, load_image_tower, load_text_tower
from lib.encoders.towers import resolve_device

TOWERS = ("efficientnet-lite0@64", "minilm")


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("scenes", train=8, val=4, test=5, image_size=64)


@pytest.fixture
def counted(monkeypatch):
    """Count the forward passes, so that a test can say that none was made."""
    passes = []
    original = features._encode_block

    def encode(*arguments):
        passes.append(arguments[:2])
        return original(*arguments)

    monkeypatch.setattr(features, "_encode_block", encode)
    return passes


@pytest.fixture
def quick(monkeypatch):
    """Towers that take no time, for what is the cache's alone."""
    monkeypatch.setattr(features, "load_image_tower", lambda name: colour_tower())
    monkeypatch.setattr(features, "load_text_tower", lambda name: CountingTower())


def test_rows_follow_the_corpus(corpus):
    extracted = extract_features(corpus, *TOWERS, device="cpu")
    assert extracted.image.shape == (17, 1280)
    assert extracted.text.shape == (17 * 5, 384)
    assert extracted.image_ids == tuple(sample.id for sample in corpus.samples)
    for split in ("train", "val", "test"):
        ids = [extracted.image_ids[row] for row in extracted.rows(split)]
        assert ids == [sample.id for sample in corpus.split(split)]
    np.testing.assert_array_equal(extracted.caption_owner, np.repeat(np.arange(17), 5))
    # Independently of batches, padding and caching.
    captions = [caption for sample in corpus.samples for caption in sample.captions]
    text = load_text_tower("minilm")
    for row in (0, 7, 40):
        alone = text([captions[row]], torch.device("cpu"))[0].numpy()
        np.testing.assert_allclose(extracted.text[row], alone, atol=1e-4)
    image = load_image_tower(TOWERS[0])
    alone = image([corpus.load_image(corpus.samples[3])], torch.device("cpu"))[0].numpy()
    np.testing.assert_allclose(extracted.image[3], alone, atol=1e-3)


def test_equal_captions_have_equal_features(corpus):
    extracted = extract_features(corpus, *TOWERS, device="cpu")
    captions = [caption for sample in corpus.samples for caption in sample.captions]
    first = {}
    for row, caption in enumerate(captions):
        np.testing.assert_array_equal(
            extracted.text[row], extracted.text[first.setdefault(caption, row)]
        )


def test_features_are_computed_once_and_mapped(corpus, counted):
    one = extract_features(corpus, *TOWERS, device="cpu")
    assert counted
    counted.clear()
    two = extract_features(corpus, *TOWERS, device="cpu")
    assert not counted
    assert isinstance(two.image, np.memmap)
    assert not two.image.flags.writeable
    np.testing.assert_array_equal(one.image, two.image)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("change", ["tower", "size", "corpus"])
def test_whatever_determines_a_feature_is_in_its_address(corpus, counted, change, monkeypatch):
    before = extract_features(corpus, *TOWERS, device="cpu").fingerprint
    counted.clear()
    towers, other = TOWERS, corpus
    if change == "size":
        towers = ("efficientnet-lite0@96", "minilm")
    elif change == "corpus":
        other = load_corpus("scenes", seed=1, train=8, val=4, test=5, image_size=64)
    else:
        original = load_image_tower(TOWERS[0])
        with torch.no_grad():
            next(original.model.parameters()).add_(1e-3)
        changed = encoders.towers._fingerprint(original.model, repr(original.transform))
        assert changed != original.fingerprint
        return
    assert extract_features(other, *towers, device="cpu").fingerprint != before
    assert counted


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", ["flip", "cut", "foreign"])
def test_damage_is_found_and_repaired(corpus, study_home, damage):
    good = np.array(extract_features(corpus, *TOWERS, device="cpu").image)
    files = sorted(study_home.glob("features/??/*/features.npy"), key=lambda p: p.stat().st_size)
    path = files[-2] if files[-1].stat().st_size != good.nbytes + 128 else files[-1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(
        {"flip": bytes(content), "cut": bytes(content[:-100]), "foreign": b"hello"}[damage]
    )
    with pytest.warns(UserWarning, match=r"features\.npy is damaged"):
        again = extract_features(corpus, *TOWERS, device="cpu")
    np.testing.assert_array_equal(again.image, good)


@pytest.mark.tries("bad number")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_tower_that_gives_no_number_is_stopped_and_nothing_of_it_kept(study_home, value):
    def encode(start, stop):
        rows = torch.zeros(2 * (stop - start), 3)
        if start <= 5 < stop:
            rows[2 * (5 - start) + 1, 2] = value
        return rows

    with pytest.raises(ValueError, match="non-finite feature for item 5"):
        features.cached_rows("ab" * 32, "noise", [2] * 8, 3, encode)
    assert not list(study_home.rglob("*.npy"))


@pytest.mark.usefixtures("quick")
def test_an_interrupted_extraction_goes_on_where_it_stopped(corpus, monkeypatch, study_home):
    monkeypatch.setattr(features, "BLOCK", 4)
    monkeypatch.setattr(features, "BATCH", 4)
    original, done = features._encode_block, []

    def interrupted(start, *rest):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(start)
        return original(start, *rest)

    monkeypatch.setattr(features, "_encode_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_features(corpus, *TOWERS, device="cpu")
    assert done == [0, 4]
    assert not list(study_home.rglob("*.partial"))
    resumed = []

    def counting(start, *rest):
        resumed.append(start)
        return original(start, *rest)

    monkeypatch.setattr(features, "_encode_block", counting)
    after = extract_features(corpus, *TOWERS, device="cpu")
    assert resumed[:3] == [8, 12, 16]
    monkeypatch.setenv("STUDY_HOME", str(study_home / "undisturbed"))
    undisturbed = extract_features(corpus, *TOWERS, device="cpu")
    np.testing.assert_array_equal(after.image, undisturbed.image)
    np.testing.assert_array_equal(after.text, undisturbed.text)
    assert not list(study_home.rglob("block-*"))


@pytest.mark.usefixtures("quick")
def test_finished_features_are_read_from_a_folder_that_cannot_be_written(
    corpus, monkeypatch, study_home
):
    first = extract_features(corpus, *TOWERS, device="cpu")
    left = next(study_home.rglob("features.npy")).with_name("block-0000000.npy")
    left.touch()

    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    for method in ("mkdir", "unlink", "touch"):
        monkeypatch.setattr(Path, method, refuse)
    monkeypatch.setattr(features, "FileLock", refuse)
    again = extract_features(corpus, *TOWERS, device="cpu")
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.text, first.text)
    assert left.exists()


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1"])
def test_packaged_weights_see_what_is_in_a_picture(name):
    """ImageNet weights under the wrong names or preprocessing would not tell these apart."""
    tower = load_image_tower(name)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8))
    plain = Image.new("RGB", (224, 224), (200, 30, 30))
    shifted = Image.new("RGB", (224, 224), (195, 35, 30))
    one, two, other = tower([plain, shifted, noise], torch.device("cpu"))
    assert torch.cosine_similarity(one, two, dim=0) > 0.9
    assert torch.cosine_similarity(one, other, dim=0) < 0.7


def test_captions_of_like_meaning_are_near():
    tower = load_text_tower("minilm")
    one, two, other = tower(
        ["A dog runs on the beach.", "A puppy is running by the sea.", "Quarterly tax report."],
        torch.device("cpu"),
    )
    near, far = (torch.cosine_similarity(one, x, dim=0) for x in (two, other))
    assert near > 0.6 > 0.3 > far


def test_a_text_tower_can_be_read_after_any_of_its_layers():
    captions = ["A dog bites a man.", "A man bites a dog."]
    device = torch.device("cpu")
    whole, last, words = (load_text_tower(name) for name in ("minilm", "minilm@6", "minilm@0"))
    torch.testing.assert_close(whole(captions, device), last(captions, device))
    assert len({tower.fingerprint for tower in (whole, last, words)}) == 3
    # Without the transformer the order of the words is next to nothing, with it it tells.
    bag, read = words(captions, device), whole(captions, device)
    assert torch.cosine_similarity(bag[0], bag[1], dim=0) > 0.99
    assert torch.cosine_similarity(read[0], read[1], dim=0) < 0.99


def test_images_are_squashed_and_not_cropped():
    transform = load_image_tower("efficientnet-lite0@64").transform
    wide = Image.new("RGB", (400, 100))
    wide.paste((255, 255, 255), (380, 0, 400, 100))
    pixels = transform(wide)
    assert pixels.shape == (3, 64, 64)
    assert (pixels[:, :, -1] > 0.5).all()
    assert (pixels[:, :, 0] < -0.5).all()


@pytest.mark.parametrize(
    ("load", "name", "message"),
    [
        (load_image_tower, "efficientnet-lite", "efficientnet-lite' is not a preset"),
        (load_image_tower, "efficientnet-lite0@12", "32 to 1024"),
        (load_image_tower, "efficientnet-lite0@big", "32 to 1024"),
        (load_text_tower, "no-such-tower/at-all", "is not a preset"),
        (load_text_tower, "minilm@7", "minilm has 6 layers"),
    ],
)
def test_an_unknown_tower_is_named(load, name, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(TowerError, match=message):
        load(name)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    with pytest.raises(ValueError, match="device 'warp' cannot be used"):
        resolve_device("warp")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="use 'auto' or 'cpu'"):
            resolve_device("cuda")


def test_an_image_of_another_mode_is_the_image_in_colour():
    tower = load_image_tower(TOWERS[0])
    colour = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 20).convert("RGB")
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        other = colour.convert(mode)
        both = tower([other, other.convert("RGB")], torch.device("cpu"))
        assert torch.equal(both[0], both[1])


@pytest.mark.tries("bad input")
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "one or more images"),
        (Image.new("RGB", (4, 4)), "a list of one or more images"),
        ([np.zeros((4, 4, 3), dtype=np.uint8)], "images of Pillow"),
        ([Image.new("I;16", (4, 4))], "8 bits per channel; one is of mode I;16"),
        ([Image.new("F", (4, 4))], "8 bits per channel; one is of mode F"),
    ],
)
def test_what_an_image_tower_cannot_encode_is_named(inputs, said):
    with pytest.raises(ValueError, match=f"^images must .*{said}"):
        load_image_tower(TOWERS[0])(inputs, torch.device("cpu"))


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("captions", ["a dog", [], ()])
def test_one_caption_is_no_list_of_its_letters(captions):
    with pytest.raises(ValueError, match=r"^captions must be a list of one or more captions"):
        load_text_tower("minilm")(captions, torch.device("cpu"))
