"""One scheduler step per optimiser step, and the library's own gradients, in every trainer."""

import copy
import json
import math

import pytest
import torch
from similarities import unit_pairs
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lib.adapters.open_clip import ScheduledClipLoss
from lib.losses import ScheduledContrastiveLoss
from lib.schedulers import Fixed, Scheduler

STEPS, K, B = 5, 4, 4
STEERED = {"beta": 0.9, "gamma": 5.0, "warmup": 1}
QUIET = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 0, "logging_steps": 1}


def quiet(trainer):
    import transformers

    transformers.logging.set_verbosity_error()
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def logged(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# The Trainer of transformers.


@pytest.fixture(scope="module")
def rows():
    draws = torch.Generator().manual_seed(1)
    return [
        {
            "input_ids": torch.tensor([1, 2, i % 28 + 3, i // 28 + 3, 5, 31]),
            "pixel_values": torch.randn(3, 8, 8, generator=draws),
        }
        for i in range(STEPS * K * B)
    ]


def small_clip(library="CLIP"):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2}
    text = {**tower, "vocab_size": 32, "max_position_embeddings": 6, "eos_token_id": 31}
    vision = {**tower, "image_size": 8, "patch_size": 4}
    config = getattr(transformers, f"{library}Config")
    options = {"projection_dim": 8} if library == "CLIP" else {}
    return getattr(transformers, f"{library}Model")(
        config(text_config=text, vision_config=vision, **options)
    )


def with_loss(rows):
    import transformers

    return {**transformers.default_data_collator(rows), "return_loss": True}


def hugging_face(folder, rows, scheduler=None, *, own=False, model=None, loss=None, **options):
    """A trainer of a small CLIP: with the model's own loss, or with ours."""
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    from lib.adapters.huggingface import ScheduledTrainerLoss

    model = small_clip() if model is None else model
    if loss is None and not own:
        loss = ScheduledTrainerLoss(model, scheduler or Scheduler(**STEERED))
    arguments = {"learning_rate": 1e-3, "save_strategy": "no", "max_steps": STEPS}
    arguments |= {"per_device_train_batch_size": B, "gradient_accumulation_steps": K}
    trainer = Trainer(
        model,
        TrainingArguments(str(folder), **QUIET, **arguments | options),
        train_dataset=rows,
        eval_dataset=rows[:8],
        compute_loss_func=loss,
        data_collator=with_loss,
    )
    return quiet(trainer)


def test_a_trainer_takes_one_step_per_optimiser_step_through_evaluation_and_resumption(
    tmp_path, rows
):
    whole = hugging_face(tmp_path / "whole", rows)
    whole.train()
    assert int(whole.compute_loss_func.loss.scheduler.steps) == STEPS
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    broken = hugging_face(tmp_path, rows, save_steps=2, **evaluated)
    broken.train()
    assert logged(broken) == logged(whole)
    assert len(logged(broken, "eval_loss")) == STEPS
    resumed = hugging_face(tmp_path, rows, save_steps=2, **evaluated)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logged(resumed) == logged(whole)
    for name in ("weight/i2t", "signal/t2i", "temperature"):
        assert logged(resumed, name) == logged(whole, name)
        assert len(set(logged(whole, name))) > 1
    torch.testing.assert_close(
        resumed.compute_loss_func.state_dict(), whole.compute_loss_func.state_dict()
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_trainer_has_the_gradients_of_the_models_own_loss(tmp_path, rows, k):
    """Six batches: with k = 4, the last group of the epoch is not full."""
    options = {"max_steps": -1, "num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1}
    options["gradient_accumulation_steps"] = k
    own = hugging_face(tmp_path, rows[: 6 * B], own=True, **options)
    ours = hugging_face(tmp_path, rows[: 6 * B], Fixed(), **options)
    own.train()
    ours.train()
    assert logged(ours) == pytest.approx(logged(own), rel=1e-5)
    torch.testing.assert_close(ours.model.state_dict(), own.model.state_dict())
    assert ours.evaluate()["eval_loss"] == pytest.approx(own.evaluate()["eval_loss"], rel=1e-5)


def in_a_subclass(folder, rows, **options):
    """A trainer with a ``compute_loss`` of its own, which calls our loss."""
    from transformers import Trainer

    from lib.adapters.huggingface import ScheduledTrainerLoss

    model = small_clip()
    loss_of = ScheduledTrainerLoss(model, Fixed())

    class Subclass(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **unused):
            outputs = model(**{name: v for name, v in inputs.items() if name != "return_loss"})
            return (loss_of(outputs), outputs) if return_outputs else loss_of(outputs)

    made = hugging_face(folder, rows, model=model, own=True, **options)
    return quiet(Subclass(model, made.args, train_dataset=rows, data_collator=with_loss))


def with_model_init(folder, rows, loss, **options):
    """A trainer that makes a new model for each training, and not the one that the loss got."""
    from transformers import Trainer

    made = hugging_face(folder, rows, own=True, **options)
    return quiet(
        Trainer(
            model_init=lambda: small_clip(),
            args=made.args,
            train_dataset=rows,
            data_collator=with_loss,
            compute_loss_func=loss,
        )
    )


@pytest.mark.parametrize("k", [1, 4])
def test_a_loss_that_a_trainers_subclass_calls_has_the_models_gradients(tmp_path, rows, k):
    options = {"max_steps": -1, "num_train_epochs": 1, "optim": "sgd", "learning_rate": 0.1}
    options["gradient_accumulation_steps"] = k
    own = hugging_face(tmp_path, rows[: 6 * B], own=True, **options)
    ours = in_a_subclass(tmp_path, rows[: 6 * B], **options)
    own.train()
    ours.train()
    assert logged(ours) == pytest.approx(logged(own), rel=1e-5)
    torch.testing.assert_close(ours.model.state_dict(), own.model.state_dict())


def test_a_new_model_per_training_learns_its_temperature_and_begins_the_schedule_anew(
    tmp_path, rows
):
    from lib.adapters.huggingface import ScheduledTrainerLoss

    loss = ScheduledTrainerLoss(small_clip(), Scheduler(**STEERED))
    trainer = with_model_init(tmp_path, rows, loss, gradient_accumulation_steps=1)
    trainer.train()
    first = logged(trainer)
    assert trainer.model.logit_scale.item() != small_clip().logit_scale.item()
    whole = hugging_face(tmp_path, rows, gradient_accumulation_steps=1)
    whole.train()
    assert first == logged(whole)
    trainer.train()
    assert logged(trainer) == first
    assert int(loss.loss.scheduler.steps) == STEPS


def test_the_best_checkpoint_may_be_of_a_training_without_a_scheduler(tmp_path, rows):
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    hugging_face(tmp_path, rows, own=True, **best | {"max_steps": 2}).train()
    saved = tmp_path / "checkpoint-2" / "trainer_state.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"best_metric": -1.0}))
    trainer = hugging_face(tmp_path, rows, **best)
    trainer.train(resume_from_checkpoint=str(saved.parent))
    assert trainer.state.best_model_checkpoint == str(saved.parent)
    assert int(trainer.compute_loss_func.loss.scheduler.steps) == STEPS - 2


@pytest.mark.parametrize("kept", [Fixed(), Scheduler("variance", "sharpness")])
def test_a_checkpoint_of_another_scheduler_is_refused_by_name(tmp_path, rows, kept):
    options = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 1}
    hugging_face(tmp_path, rows, kept, max_steps=1, **options).train()
    other = hugging_face(tmp_path, rows, max_steps=2, **options)
    with pytest.raises(ValueError, match=r"another scheduler: it lacks .*scheduler\.average"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_models_temperature_may_be_a_parameter_itself():
    """As AlignModel's is, which has no logit_scale."""
    pytest.importorskip("transformers")
    from lib.adapters.huggingface import ScheduledTrainerLoss

    model = nn.Module()
    model.temperature = nn.Parameter(torch.tensor(0.5))
    image, text = unit_pairs()
    found = ScheduledTrainerLoss(model, Fixed())({"image_embeds": image, "text_embeds": text})
    expected = ScheduledContrastiveLoss(Fixed(), temperature=0.5)(image, text)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert model.temperature.grad.item() != 0


def test_a_trainer_takes_the_schedulers_state_of_the_best_model(tmp_path, rows):
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = hugging_face(
        tmp_path, rows, **best, load_best_model_at_end=True, metric_for_best_model="eval_loss",
        learning_rate=3.0,
    )  # fmt: skip
    trainer.train()
    folder = tmp_path / f"checkpoint-{trainer.state.best_global_step}"
    kept = json.loads((folder / "trainer_state.json").read_text())["stateful_callbacks"]
    steps = trainer.state.best_global_step
    assert steps < STEPS
    assert int(trainer.compute_loss_func.loss.scheduler.steps) == steps
    assert kept["variance_schedule"]["scheduler.steps"] == steps


def test_a_sigmoid_loss_in_a_trainer_is_siglips_own(tmp_path, rows):
    from lib.adapters.huggingface import ScheduledTrainerLoss

    own = hugging_face(tmp_path, rows, own=True, model=small_clip("Siglip"), optim="sgd")
    model = small_clip("Siglip")
    loss = ScheduledTrainerLoss(model, Fixed(), loss="sigmoid")
    ours = hugging_face(tmp_path, rows, model=model, loss=loss, optim="sgd")
    own.train()
    ours.train()
    assert logged(ours) == pytest.approx(logged(own), rel=1e-4)
    assert model.logit_bias.item() != small_clip("Siglip").logit_bias.item()
    torch.testing.assert_close(ours.model.state_dict(), own.model.state_dict())


def test_a_trainer_measures_recall_with_exact_ties(tmp_path, rows):
    from lib.adapters.huggingface import NOT_EMBEDDINGS, recall_metrics
    from lib.metrics import recall_at_k

    trainer = hugging_face(tmp_path, rows)
    trainer.compute_metrics = recall_metrics(ks=(1, 5))
    found = trainer.evaluate(ignore_keys=NOT_EMBEDDINGS)
    with torch.no_grad():
        out = trainer.model(**{k: v for k, v in with_loss(rows[:8]).items() if k != "return_loss"})
    expected = recall_at_k(out.image_embeds, out.text_embeds, range(8), ks=(1, 5)).as_dict()
    for name, value in expected.items():
        assert found[f"eval_{name.replace(' ', '_')}"] == pytest.approx(value, abs=1e-4)
    with pytest.raises(ValueError, match="pass NOT_EMBEDDINGS"):
        trainer.evaluate()
    with pytest.raises(ValueError, match="names must be"):
        recall_metrics(names=("a", "b"))


def test_labels_say_which_captions_share_an_image():
    from transformers import EvalPrediction

    from lib.adapters.huggingface import recall_metrics

    image, text = unit_pairs(size=6)
    label = torch.tensor([3, 3, 1, 2, 1, 5])
    first = torch.tensor([0, 0, 2, 3, 2, 5])
    outputs = EvalPrediction(
        predictions=(text.numpy(), image[first].numpy()), label_ids=label.numpy()
    )
    from lib.metrics import recall_at_k

    distinct, owner = label.unique(return_inverse=True)
    images = torch.stack([image[first][(label == one).nonzero()[0, 0]] for one in distinct])
    expected = recall_at_k(images, text, owner, ks=(1,)).as_dict()
    assert recall_metrics(ks=(1,))(outputs)["rSum"] == expected["rSum"]


# sentence-transformers.


def sentences(folder, *, own=False, columns=2, options=None, **arguments):
    datasets = pytest.importorskip("datasets")
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import BoW, Dense

    from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss

    count = STEPS * K * B
    words = [f"w{i}" for i in range(2 * count)]
    torch.manual_seed(0)
    model = library.SentenceTransformer(modules=[BoW(words), Dense(len(words), 8)], device="cpu")
    texts = {"anchor": words[:count], "positive": words[count:], "third": words[::-1][:count]}
    data = datasets.Dataset.from_dict({name: texts[name] for name in list(texts)[:columns]})
    options = {"scheduler": Scheduler(**STEERED)} if options is None else options
    loss = ScheduledMultipleNegativesLoss(model, **options)
    if own:
        both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
        loss = MultipleNegativesRankingLoss(model, **both)
    given = {"per_device_train_batch_size": B, "gradient_accumulation_steps": K}
    given |= {"learning_rate": 0.05, "save_strategy": "no", "max_steps": STEPS}
    settings = library.SentenceTransformerTrainingArguments(
        str(folder), **QUIET, **given | arguments
    )
    return quiet(
        library.SentenceTransformerTrainer(
            model, settings, train_dataset=data, eval_dataset=data.select(range(8)), loss=loss
        )
    )


def test_sentence_transformers_take_one_step_per_optimiser_step(tmp_path):
    whole = sentences(tmp_path / "whole")
    whole.train()
    assert int(whole.loss.loss.scheduler.steps) == STEPS
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    broken = sentences(tmp_path, save_steps=2, **evaluated)
    broken.train()
    resumed = sentences(tmp_path, save_steps=2, **evaluated)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logged(resumed) == logged(broken) == logged(whole)
    for name in ("weight/t2i", "signal/i2t"):
        assert logged(resumed, name) == logged(whole, name)
        assert len(set(logged(whole, name))) > 1
    assert len(logged(broken, "eval_loss")) == STEPS


@pytest.mark.parametrize("k", [1, 4])
def test_sentence_transformers_have_the_gradients_of_their_own_loss(tmp_path, k):
    arguments = {"gradient_accumulation_steps": k, "optim": "sgd"}
    own = sentences(tmp_path, own=True, **arguments)
    ours = sentences(tmp_path, options={"scheduler": Fixed()}, **arguments)
    own.train()
    ours.train()
    torch.testing.assert_close(ours.model.state_dict(), own.model.state_dict())
    assert ours.evaluate()["eval_loss"] == pytest.approx(own.evaluate()["eval_loss"], rel=1e-5)


def test_further_columns_are_captions_only_if_one_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"3 columns; .* \(several_captions=True\)"):
        sentences(tmp_path, columns=3).train()
    several = sentences(tmp_path, columns=3, options={"several_captions": True})
    several.train()
    assert len(logged(several)) == STEPS
    image, one = ({"sentence_embedding": 3 * side} for side in unit_pairs())
    other = {"sentence_embedding": unit_pairs(1)[1]}
    from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss

    loss = ScheduledMultipleNegativesLoss(nn.Identity(), 20.0, several_captions=True)
    expected = ScheduledContrastiveLoss()(
        unit_pairs()[0], torch.stack([unit_pairs()[1], unit_pairs(1)[1]], dim=1), 20.0
    )
    torch.testing.assert_close(loss([image, one, other]), expected)


def test_the_second_argument_is_the_librarys_or_a_scheduler():
    from lib.adapters.metric_learning import ScheduledPairLoss
    from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss

    model = nn.Identity()
    assert ScheduledMultipleNegativesLoss(model, 8.0).loss.temperature == 1 / 8
    assert ScheduledPairLoss(0.2).loss.temperature == 0.2
    for made in (
        ScheduledMultipleNegativesLoss(model, Fixed(), scale=5.0),
        ScheduledPairLoss(Fixed(), temperature=0.2),
    ):
        assert isinstance(made.loss.scheduler, Fixed)
        assert made.loss.temperature == 0.2
    for twice in (
        lambda: ScheduledMultipleNegativesLoss(model, 8.0, scale=5.0),
        lambda: ScheduledMultipleNegativesLoss(model, Fixed(), scheduler=Fixed()),
        lambda: ScheduledPairLoss(0.1, temperature=0.2),
        lambda: ScheduledPairLoss(Fixed(), scheduler=Fixed()),
    ):
        with pytest.raises(ValueError, match="also given by its name"):
            twice()


def test_an_evaluator_measures_recall_with_exact_ties(tmp_path):
    pytest.importorskip("sentence_transformers")
    from lib.adapters.sentence_transformers import RecallEvaluator
    from lib.metrics import recall_at_k

    trainer = sentences(tmp_path)
    images, captions = ["w1", "w2", "w1"], ["w1", "w2", "w3", "w4"]
    evaluator = RecallEvaluator(images, captions, [0, 1, 2, 2], ks=(1,), name="val")
    found = evaluator(trainer.model)
    both = [
        trainer.model.encode(x, normalize_embeddings=True, convert_to_tensor=True)
        for x in (images, captions)
    ]
    expected = recall_at_k(*both, [0, 1, 2, 2], ks=(1,)).as_dict()
    assert found[evaluator.primary_metric] == pytest.approx(expected["rSum"])
    assert found["val_t2i_R@1"] == pytest.approx(expected["t2i R@1"])
    assert expected["t2i R@1"] % 25  # The first caption ties between two images.
    with pytest.raises(ValueError, match="caption_owner is missing: 4 captions of 3 images"):
        RecallEvaluator(images, captions)


# Lightning and accelerate.


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)

    def forward(self, image):
        return F.normalize(self.linear(image), dim=-1)


def batches(count=STEPS * K):
    return [tuple(unit_pairs(seed, B)) for seed in range(count)]


def by_hand(scheduler, k, count=STEPS * K):
    """A plain loop: the loss of each micro-batch, the weights after each step, and the head."""
    head, loss_of = Head(), ScheduledContrastiveLoss(scheduler)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.5)
    losses, weights = [], []
    for i, (image, text) in enumerate(batches(count)):
        loss_of.advances = i % k == 0
        loss = loss_of(head(image), text)
        (loss / k).backward()
        losses.append(loss.item())
        if i % k == k - 1:
            optimiser.step()
            optimiser.zero_grad()
            weights.append(loss_of.weights.tolist())
    return losses, weights, head


def lightning_run(folder, *, inside, epochs=2, checkpoint=None, validate=False):
    lightning = pytest.importorskip("lightning")
    from lib.adapters.lightning import RecallCallback, SchedulerCallback

    loss_of = ScheduledContrastiveLoss(Scheduler(**STEERED))
    losses = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = Head()
            if inside:
                self.loss_of = loss_of

        def training_step(self, batch, _):
            loss = loss_of(self.head(batch[0]), batch[1])
            losses.append(loss.item())
            return loss

        def validation_step(self, batch, _):
            plain = ScheduledContrastiveLoss(Fixed())(self.head(batch[0]), batch[1])
            torch.testing.assert_close(loss_of(self.head(batch[0]), batch[1]), plain)
            return {"image_embeddings": self.head(batch[0]), "text_embeddings": batch[1]}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=folder, logger=False,
        accumulate_grad_batches=K, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[SchedulerCallback(loss_of), RecallCallback(ks=(1,))],
        num_sanity_val_steps=2 if validate else 0,
    )  # fmt: skip
    data = batches(STEPS * K // 2)
    loader, validation = (DataLoader(part, batch_size=None) for part in (data, data[:3]))
    trainer.fit(Module(), loader, validation if validate else None, ckpt_path=checkpoint)
    return losses, loss_of, trainer


@pytest.mark.parametrize("inside", [True, False])
def test_lightning_takes_one_step_per_optimiser_step(tmp_path, inside):
    """Ten batches per epoch and k = 4: the last group of an epoch is not full."""
    whole, loss_of, trainer = lightning_run(tmp_path / "whole", inside=inside)
    assert int(loss_of.scheduler.steps) == trainer.global_step == 6
    again, _, evaluated = lightning_run(tmp_path / "evaluated", inside=inside, validate=True)
    assert again == whole
    assert {"weight/i2t", "signal/t2i", "temperature", "val/rSum"} <= set(
        evaluated.callback_metrics
    )
    lightning_run(tmp_path / "first", inside=inside, epochs=1)
    checkpoint = next((tmp_path / "first").rglob("*.ckpt"))
    rest, resumed, _ = lightning_run(tmp_path / "rest", inside=inside, checkpoint=checkpoint)
    assert rest == whole[10:]
    torch.testing.assert_close(resumed.state_dict(), loss_of.state_dict())


def test_lightning_measures_recall_over_the_whole_set(tmp_path):
    from lib.metrics import recall_at_k

    *_, trainer = lightning_run(tmp_path, inside=False, epochs=1, validate=True)
    head = trainer.model.head
    image = torch.cat([head(image) for image, _ in batches(3)])
    text = torch.cat([text for _, text in batches(3)])
    expected = recall_at_k(image, text, range(3 * B), ks=(1,)).as_dict()
    for name, value in expected.items():
        assert float(trainer.callback_metrics[f"val/{name}"]) == pytest.approx(value)


def accelerated(folder, *, resume=False, stop=STEPS * K, evaluate=False):
    accelerate = pytest.importorskip("accelerate")
    from lib.adapters.accelerate import prepare_loss

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=K)
    head = Head()
    head, optimiser = accelerator.prepare(head, torch.optim.SGD(head.parameters(), lr=0.5))
    loss_of = prepare_loss(accelerator, ScheduledContrastiveLoss(Scheduler(**STEERED)))
    begin, losses = 0, []
    if resume:
        accelerator.load_state(str(folder))
        begin = 2 * K
    for i, (image, text) in list(enumerate(batches()))[begin:stop]:
        with accelerator.accumulate(head):
            loss = loss_of(head(image), text)
            losses.append(loss.item())
            accelerator.backward(loss)
            optimiser.step()
            optimiser.zero_grad()
        if evaluate:
            with torch.no_grad():
                loss_of(head(image), text)
        if i == 2 * K - 1 and not resume:
            accelerator.save_state(str(folder))
    return losses, loss_of, head


def test_accelerate_takes_one_step_per_optimiser_step(tmp_path):
    expected, weights, head = by_hand(Scheduler(**STEERED), K)
    losses, loss_of, trained = accelerated(tmp_path)
    assert losses == expected
    assert loss_of.weights.tolist() == weights[-1]
    torch.testing.assert_close(trained.state_dict(), head.state_dict())
    assert accelerated(tmp_path, evaluate=True)[0] == expected
    assert accelerated(tmp_path, resume=True)[0] == expected[2 * K :]
    assert int(loss_of.scheduler.steps) == STEPS


# open_clip's loop.


def chunks_of_open_clip(loss, whole, k, head, *, in_place=False):
    """The lines of open_clip's loop that accumulate: every chunk's features, one with gradients."""
    image, text = whole
    pieces = image.chunk(k)
    with torch.no_grad():
        kept = [head(piece) for piece in pieces]
    for j, piece in enumerate(pieces):
        if in_place:
            features = torch.cat(kept)
            start = sum(len(each) for each in kept[:j])
            features[start : start + len(piece)] = head(piece)
        else:
            features = torch.cat([*kept[:j], head(piece), *kept[j + 1 :]])
        loss(features, text, torch.tensor(10.0)).backward()


@pytest.mark.parametrize("k", [1, 2, 3, 8])
@pytest.mark.parametrize("way", ["counted", "joined", "written in place", "dropout"])
def test_chunks_of_a_batch_are_one_step_with_the_whole_batchs_gradient(k, way):
    loss = ScheduledClipLoss(
        scheduler=Scheduler(**STEERED), accum_freq=k if way == "counted" else None
    )
    once = ScheduledContrastiveLoss(Scheduler(**STEERED))
    head, plain = Head(), Head()
    if way == "dropout":
        head = nn.Sequential(head, nn.Dropout(0.5))
    optimisers = [torch.optim.SGD(each.parameters(), lr=0.5) for each in (head, plain)]
    for _ in range(3):  # The same batch each time: only the model has moved.
        whole = unit_pairs(0, 24)
        chunks_of_open_clip(loss, whole, k, head, in_place=way == "written in place")
        once(plain(whole[0]), whole[1], 10.0).backward()
        if way != "dropout":
            for ours, theirs in zip(head.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(ours.grad, theirs.grad)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    assert int(loss.loss.scheduler.steps) == 3
    if way != "dropout":
        torch.testing.assert_close(loss.loss.state_dict(), once.state_dict())


def test_chunks_are_counted_in_training_alone():
    loss = ScheduledClipLoss(scheduler=Scheduler(), accum_freq=2)
    for _ in range(2):
        loss(*unit_pairs(), torch.tensor(10.0))
        with torch.no_grad():
            loss(*unit_pairs(1), torch.tensor(10.0))
        loss(*unit_pairs(), torch.tensor(10.0))
    assert int(loss.loss.scheduler.steps) == 2
    with pytest.raises(ValueError, match="accum_freq must be 1 or more; it is 0"):
        ScheduledClipLoss(accum_freq=0)


def test_a_locked_tower_does_not_hide_the_chunks():
    loss = ScheduledClipLoss(scheduler=Scheduler())
    image, text = unit_pairs(0, 12)
    head = Head()
    for j in range(2):
        with torch.no_grad():
            kept = [head(piece) for piece in text.chunk(2)]
        kept[j] = head(text.chunk(2)[j])
        loss(torch.cat(image.chunk(2)), torch.cat(kept), torch.tensor(10.0)).backward()
    assert int(loss.loss.scheduler.steps) == 1


# open_clip's training program.


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Drawn pictures with captions, as open_clip's training program reads them, and a model."""
    open_clip = pytest.importorskip("open_clip")
    pytest.importorskip("open_clip_train.main")
    from lib.datasets import Scenes

    folder = tmp_path_factory.mktemp("scenes")
    tower = {"width": 32, "layers": 1}
    vision = {**tower, "image_size": 32, "patch_size": 8, "head_width": 16}
    text = {**tower, "context_length": 16, "heads": 2, "vocab_size": 49408}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (folder / "tiny-scenes.json").write_text(json.dumps(model))
    open_clip.add_model_config(folder)
    lines = ["image\tcaption"]
    for i, sample in enumerate((corpus := Scenes(train=32, val=0, test=0, image_size=32)).samples):
        corpus.load_image(sample).save(folder / f"{i}.png")
        lines.append(f"{folder / f'{i}.png'}\t{sample.captions[0]}")
    (folder / "pairs.csv").write_text("\n".join(lines))
    return folder


def program(scenes, logs, **options):
    given = {
        "model": "tiny-scenes", "dataset-type": "csv", "train-data": scenes / "pairs.csv",
        "val-data": scenes / "pairs.csv", "csv-img-key": "image", "csv-caption-key": "caption",
        "batch-size": 4, "epochs": 1, "workers": 0, "precision": "fp32", "device": "cpu",
        "logs": logs, "name": "run", "log-every-n-steps": 1, "warmup": 1, **options,
    }  # fmt: skip
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def test_open_clips_training_program_logs_saves_and_resumes_a_scheduler(scenes, tmp_path):
    from open_clip_train import main as library

    from lib.adapters.open_clip import scheduled_training

    originals = library.create_loss, library.create_model_and_transforms
    with scheduled_training(Scheduler(**STEERED)) as scheduler:
        library.main(program(scenes, tmp_path, **{"accum-freq": 4}))
    assert (library.create_loss, library.create_model_and_transforms) == originals
    assert int(scheduler.steps) == 2
    log = (tmp_path / "run" / "out.log").read_text()
    for name in ("Weight/i2t", "Signal/t2i", "Temperature"):
        assert log.count(name) == 2
    assert "image_to_text_R@1" in log
    checkpoint = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]
    torch.testing.assert_close(saved["variance_schedule.average"], scheduler.average)
    with scheduled_training(Scheduler(**STEERED)) as resumed:
        more = {"accum-freq": 4, "epochs": 2, "resume": checkpoint, "name": "more"}
        library.main(program(scenes, tmp_path, **more))
    assert int(resumed.steps) == 4


def test_what_open_clips_program_cannot_schedule_is_refused(scenes, tmp_path):
    from open_clip_train import main as library

    from lib.adapters.open_clip import scheduled_training

    with scheduled_training(), pytest.raises(ValueError, match="local_loss must be False"):
        library.main([*program(scenes, tmp_path), "--local-loss"])


# pytorch-metric-learning.


def metric_losses():
    library = pytest.importorskip("pytorch_metric_learning.losses")
    made = {}
    classes = {"num_classes": 8, "embedding_size": 4}
    for name in dir(library):
        kind = getattr(library, name)
        if not isinstance(kind, type) or not issubclass(kind, nn.Module):
            continue
        for options in ({}, classes, {"num_classes": 8}, {"margin": 0.5, "Tn": 0.1}):
            try:
                kind(**options)(torch.eye(16, 4), torch.arange(8).repeat(2))
            except (TypeError, ValueError, KeyError, NotImplementedError, AssertionError):
                continue
            made[name] = (kind, options)
            break
    return made


def _of_anchors(term):
    """Whether a term has a loss per embedding, pair or triplet."""
    losses, kind = term["losses"], term["reduction_type"]
    return torch.is_tensor(losses) and (
        len(losses) == 16 if kind == "element" else kind != "already_reduced"
    )


def test_every_loss_of_metric_learning_is_weighted_by_direction_or_refused():
    from pytorch_metric_learning.reducers import DoNothingReducer, MeanReducer

    from lib.adapters.metric_learning import DirectionReducer

    image, text = unit_pairs(1, 8, 4)
    both, labels = torch.cat([image, text]), torch.arange(8).repeat(2)
    weights = Scheduler(gamma=20.0)(image @ text.T, 1.0).weights
    assert abs(weights[0] - 1) > 0.05
    refused, weighted = set(), set()
    for name, (kind, options) in metric_losses().items():
        torch.manual_seed(0)
        terms = kind(reducer=DoNothingReducer(), **options)(both, labels)
        torch.manual_seed(0)
        loss = kind(reducer=DirectionReducer(Scheduler(gamma=20.0)), **options)
        if not any(_of_anchors(term) for term in terms.values()):
            with pytest.raises(ValueError, match="it needs another reducer"):
                loss(both, labels)
            refused.add(name)
            continue
        found, expected = loss(both, labels), 0.0
        for term in terms.values():
            if torch.is_tensor(term["losses"]):
                at = term["indices"]
                anchor = at[0] if isinstance(at, tuple | list) else at
                each = weights[(anchor >= 8).long()] * term["losses"].flatten()
                expected = expected + each.mean()
        torch.testing.assert_close(found, expected, msg=name)
        weighted.add(name)
        with torch.no_grad():
            torch.manual_seed(0)
            plain = kind(reducer=MeanReducer(), **options)(both, labels)
            torch.testing.assert_close(loss(both, labels), plain, msg=name)
            torch.testing.assert_close(loss.eval()(both, labels), plain, msg=name)
    assert {"NTXentLoss", "MultiSimilarityLoss", "ContrastiveLoss", "TripletMarginLoss"} <= weighted
    assert {"HistogramLoss", "NPairsLoss", "ProxyAnchorLoss"} <= refused
    assert len(weighted) > 20


def test_a_reducer_takes_one_step_per_optimiser_step_and_one_scheduler():
    from pytorch_metric_learning.losses import NTXentLoss

    from lib.adapters.metric_learning import DirectionReducer

    both, labels = torch.cat(list(unit_pairs(1))), torch.arange(6).repeat(2)
    loss = NTXentLoss(reducer=DirectionReducer(Scheduler(**STEERED)))
    assert len(loss.state_dict()) == 3
    for i in range(4):
        loss.reducer.advances = i % 2 == 0
        loss(both, labels)
    assert int(loss.reducer.scheduler.steps) == 2
    copied = copy.deepcopy(loss)
    copied.reducer.scheduler = Scheduler("entropy", gamma=9.0)
    copied.reducer.advances = True
    fresh = NTXentLoss(reducer=DirectionReducer(Scheduler("entropy", gamma=9.0)))
    assert copied(both, labels) == fresh(both, labels)
    for wrong in (torch.arange(6).repeat_interleave(2), torch.arange(11) // 2):
        with pytest.raises(ValueError, match="images, twice"):
            fresh(both[: len(wrong)], wrong)


def test_captions_of_one_label_match_each_others_image():
    from lib.adapters.metric_learning import ScheduledPairLoss

    image, _ = unit_pairs(1, 3)
    text = torch.cat(list(unit_pairs(2, 4)))
    labels, owner = torch.tensor([5, 9, 7]), torch.tensor([9, 5, 5, 7, 9, 7, 5, 9])
    place = {5: 0, 9: 1, 7: 2}
    rows = image[[place[int(one)] for one in owner]]
    expected = ScheduledContrastiveLoss(temperature=0.2)(rows, text, group=owner)
    loss = ScheduledPairLoss(0.2)
    found = loss(image, labels, ref_emb=text, ref_labels=owner)
    torch.testing.assert_close(found, expected)
    repeated = ScheduledPairLoss(0.2)(rows, owner, ref_emb=text)
    torch.testing.assert_close(repeated, expected)
    for bad in (owner + 1, owner[:4]):
        with pytest.raises(ValueError, match="labels"):
            loss(image, labels, ref_emb=text, ref_labels=bad)
    with pytest.raises(ValueError, match="labels must name each image once"):
        loss(rows, owner, ref_emb=text[:7], ref_labels=owner[:7])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reducer_names_numbers_that_are_not_finite(bad):
    from pytorch_metric_learning.losses import NTXentLoss

    from lib.adapters.metric_learning import DirectionReducer

    both = torch.cat(list(unit_pairs(1)))
    both[2, 1] = bad
    loss = NTXentLoss(reducer=DirectionReducer())
    with pytest.raises(ValueError, match="image_embeddings holds"):
        loss(both, torch.arange(6).repeat(2))
    assert loss.reducer.scheduler.steps == 0


@pytest.mark.parametrize("actuator", ["sharpness", "sample"])
def test_a_reducer_refuses_a_scheduler_that_weights_no_directions(actuator):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    from lib.adapters.metric_learning import DirectionReducer

    with pytest.raises(ValueError, match=r"^scheduler must weight directions"):
        DirectionReducer(Scheduler("variance", actuator))
    loss = losses.NTXentLoss(reducer=DirectionReducer())
    loss.reducer.scheduler = Scheduler("variance", actuator)
    with pytest.raises(ValueError, match=r"^scheduler must weight directions"):
        loss(torch.cat(list(unit_pairs())), torch.arange(6).repeat(2))


@pytest.mark.parametrize("name", ["embeddings", "labels", "ref_emb", "ref_labels"])
def test_metric_learning_names_what_is_no_tensor(name):
    pytest.importorskip("pytorch_metric_learning")
    from lib.adapters.metric_learning import ScheduledPairLoss

    labels = torch.arange(6)
    given = {
        "embeddings": unit_pairs()[0],
        "ref_emb": unit_pairs()[1],
        "labels": labels,
        "ref_labels": labels,
    }
    ScheduledPairLoss()(**given)
    with pytest.raises(ValueError, match=rf"^{name} must be a tensor; it is of <class 'list'>"):
        ScheduledPairLoss()(**given | {name: given[name].tolist()})


def test_accelerate_and_lightning_refuse_another_module():
    """A wrapper has no step to follow: its own loss has."""
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("lightning")
    from lib.adapters.accelerate import prepare_loss
    from lib.adapters.lightning import SchedulerCallback

    for module in (Scheduler(), ScheduledClipLoss()):
        with pytest.raises(ValueError, match=r"^loss must be a ScheduledContrastiveLoss"):
            SchedulerCallback(module)
        with pytest.raises(ValueError, match=r"^loss must be a ScheduledContrastiveLoss"):
            prepare_loss(accelerate.Accelerator(cpu=True), module)
    SchedulerCallback(ScheduledClipLoss().loss)


def test_a_trainers_outputs_without_names_are_named():
    pytest.importorskip("transformers")
    from lib.adapters.huggingface import ScheduledTrainerLoss

    for outputs in (tuple(unit_pairs()), {"image_embeds": unit_pairs()[0]}):
        with pytest.raises(ValueError, match=r"lack image_embeds or text_embeds .*return_dict"):
            ScheduledTrainerLoss(torch.nn.Linear(2, 2))(outputs)
