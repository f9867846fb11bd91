"""The adapters in the loops of their own libraries; a missing library skips its tests."""

import ast
import inspect
import json
import math
import subprocess
import sys
import tomllib

import pytest
import torch
from packaging.requirements import Requirement
from torch.nn import functional as F

from lib.adapters.open_clip import ScheduledClipLoss
from lib.losses import ScheduledContrastiveLoss
from lib.schedulers import Fixed, Scheduler

TRAINING = {
    "per_device_train_batch_size": 8, "logging_steps": 1, "save_strategy": "no", "report_to": [],
    "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip
"""Arguments of the trainers of transformers and of sentence-transformers."""


def losses_of(trainer) -> list[float]:
    """Train; return the loss of each step, which has fallen."""
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    return losses


def features(seed: int = 0, size: int = 8, width: int = 4):
    draws = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2, size, width, generator=draws), dim=-1)


def test_open_clip_losses_agree_where_nothing_is_scheduled():
    open_clip = pytest.importorskip("open_clip")
    image, text = features()
    scale = torch.tensor(9.0, requires_grad=True)
    theirs = open_clip.ClipLoss()(image, text, scale, output_dict=True)
    ours = ScheduledClipLoss(scheduler=Fixed())(image, text, scale, output_dict=True)
    assert theirs.keys() == ours.keys()
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(x["contrastive_loss"], scale)[0] for x in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_open_clip_is_called_alike():
    open_clip = pytest.importorskip("open_clip")
    for method in ("__init__", "forward"):
        theirs = list(inspect.signature(getattr(open_clip.ClipLoss, method)).parameters)
        ours = list(inspect.signature(getattr(ScheduledClipLoss, method)).parameters)
        assert ours[: len(theirs)] == theirs


def test_open_clip_trains_its_own_model():
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16},
        text_cfg={"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
        output_dict=True,
    )
    images, texts = torch.randn(12, 3, 16, 16), torch.randint(1, 63, (12, 8))
    texts[:, -1] = 63
    loss = ScheduledClipLoss(scheduler=Scheduler(gamma=5.0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        # The lines of open_clip_train.train.train_one_epoch.
        optimiser.zero_grad()
        out = model(images, texts)
        total = sum(loss(**out, output_dict=True).values())
        total.backward()
        optimiser.step()
        values.append(total.item())
    assert values[-1] < values[0] / 2
    assert int(loss.loss.scheduler.steps) == 25
    assert model.logit_scale.grad is not None


@pytest.mark.parametrize("option", ["local_loss", "use_horovod"])
def test_open_clip_options_that_cant_be_kept_are_refused(option):
    with pytest.raises(ValueError, match=option):
        ScheduledClipLoss(**{option: True})


def test_sentence_transformers_trains_with_its_trainer(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import BoW, Dense

    from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss

    words = [f"w{i}" for i in range(20)]
    torch.manual_seed(0)
    model = library.SentenceTransformer(modules=[BoW(words), Dense(20, 8)], device="cpu")
    pairs = {"anchor": words[:10] * 4, "positive": words[10:] * 4}
    loss = ScheduledMultipleNegativesLoss(model, Scheduler(gamma=5.0))
    arguments = library.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=4,
        learning_rate=0.05,
        batch_sampler="no_duplicates",
        **TRAINING,
    )
    trainer = library.SentenceTransformerTrainer(
        model, arguments, train_dataset=datasets.Dataset.from_dict(pairs), loss=loss
    )
    assert len(losses_of(trainer)) == int(loss.loss.scheduler.steps)


def test_sentence_transformers_columns_are_counted():
    from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss

    loss = ScheduledMultipleNegativesLoss(torch.nn.Identity())
    image, text = ({"sentence_embedding": 3 * side} for side in features())
    expected = ScheduledContrastiveLoss(temperature=1 / 20)(*features())
    torch.testing.assert_close(loss([image, text]), expected)
    with pytest.raises(ValueError, match="3 columns"):
        loss([image, text, text])


def test_metric_learning_loss_matches_pairs_by_label():
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.losses import NTXentLoss

    from lib.adapters.metric_learning import ScheduledPairLoss

    image, text = features(size=6)
    labels, order = torch.tensor([4, 1, 7, 0, 9, 3]), torch.tensor([2, 0, 5, 1, 4, 3])
    ours = ScheduledPairLoss(Fixed(), temperature=0.1)
    found = ours(image, labels, ref_emb=text[order], ref_labels=labels[order])
    theirs, copied = NTXentLoss(temperature=0.1), labels.clone()
    # The library takes the reference set for the batch itself where the labels are one object.
    both = ((image, text), (text, image))
    halves = [theirs(a, labels, ref_emb=b, ref_labels=copied) for a, b in both]
    torch.testing.assert_close(found, sum(halves) / 2)
    for bad in ({"ref_emb": None}, {"ref_emb": text, "ref_labels": labels + 1}):
        with pytest.raises(ValueError, match=r"ref_emb|labels"):
            ours(image, labels, **bad)


def test_metric_learning_reducer_weights_the_directions():
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning.losses import NTXentLoss
    from pytorch_metric_learning.reducers import DoNothingReducer

    from lib.adapters.metric_learning import DirectionReducer

    image, text = features(1)
    both, labels = torch.cat([image, text]), torch.arange(8).repeat(2)
    scheduler = Scheduler(gamma=20.0)
    found = NTXentLoss(reducer=DirectionReducer(scheduler))(both, labels)
    each = NTXentLoss(reducer=DoNothingReducer())(both, labels)["loss"]
    anchor = each["indices"][0]
    i2t, t2i = (each["losses"][(anchor >= 8) == side].mean() for side in (False, True))
    weights = Scheduler(gamma=20.0).quick(image @ text.T, 1.0).weights
    assert abs(weights[0] - 1) > 0.05
    torch.testing.assert_close(found, (weights[0] * i2t + weights[1] * t2i) / 2)
    fixed = NTXentLoss(reducer=DirectionReducer(Fixed()))(both, labels)
    torch.testing.assert_close(fixed, (i2t + t2i) / 2)


def test_lightning_logs_and_keeps_the_state(tmp_path):
    lightning = pytest.importorskip("lightning")
    from lib.adapters.lightning import SchedulerCallback

    loss = ScheduledContrastiveLoss(Scheduler(gamma=5.0))

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(4, 4)

        def training_step(self, batch, _):
            image, text = batch
            return loss(F.normalize(self.head(image), dim=-1), text)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.1)

    pairs = torch.utils.data.TensorDataset(*features(size=32))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        callbacks=[SchedulerCallback(loss)],
        **quiet,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(pairs, batch_size=8))
    assert float(trainer.callback_metrics["weight/i2t"]) == pytest.approx(float(loss.weights[0]))
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    kept = torch.load(checkpoint, weights_only=False)["callbacks"]["SchedulerCallback"]
    fresh = ScheduledContrastiveLoss(Scheduler(gamma=5.0))
    SchedulerCallback(fresh).load_state_dict(kept)
    assert int(fresh.scheduler.steps) == 4
    torch.testing.assert_close(fresh.scheduler.average, loss.scheduler.average)


def test_hugging_face_trainer_learns_with_a_clip_of_its_own(tmp_path):
    pytest.importorskip("accelerate")
    from transformers import CLIPConfig, CLIPModel, Trainer, TrainingArguments

    from lib.adapters.huggingface import ScheduledTrainerLoss

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    text = small | {"vocab_size": 32, "max_position_embeddings": 6, "eos_token_id": 31}
    vision = small | {"image_size": 8, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    tokens = torch.randint(1, 30, (16, 6))
    tokens[:, -1] = 31
    pairs = [{"input_ids": t, "pixel_values": torch.randn(3, 8, 8)} for t in tokens]
    loss = ScheduledTrainerLoss(model, Scheduler(gamma=5.0))
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(tmp_path), num_train_epochs=8, learning_rate=1e-2, **TRAINING
        ),
        train_dataset=pairs,
        compute_loss_func=loss,
    )
    assert len(losses_of(trainer)) == int(loss.loss.scheduler.steps) == 16
    assert model.logit_scale.item() != pytest.approx(math.log(1 / 0.07), abs=1e-6)
    with pytest.raises(ValueError, match="image_embeds"):
        loss({"logits": tokens})


PAGES = {
    "borrow-open-clip": "open_clip",
    "borrow-sentence-transformers": "sentence_transformers",
    "borrow-metric-learning": "pytorch_metric_learning",
    "borrow-lightning": "lightning",
    "borrow-trainer": "accelerate",
}
"""Each page on borrowing, and the library that it needs."""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_borrowing_trains_and_says_what_it_did(name, root, tmp_path, monkeypatch):
    """Its cells one after the other, in this process, so that a library is imported once."""
    pytest.importorskip(PAGES[name])
    monkeypatch.chdir(tmp_path)
    page = {"__name__": "__main__"}
    shown = []
    monkeypatch.setattr(sys, "displayhook", lambda value: value is not None and shown.append(value))
    for cell in cells_of(root, name):
        if cell["cell_type"] != "code":
            continue
        *statements, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(statements, []), name, "exec"), page)
        exec(compile(ast.Interactive([last]), name, "single"), page)
    losses = page["losses"] if isinstance(page["losses"], dict) else {"": page["losses"]}
    for own in losses.values():
        assert len(own) == page["epochs"] * page["pairs"] // page["batch_size"]
        assert sum(own[-4:]) < 0.7 * sum(own[:4])
    said = shown[-1]
    assert said.data.startswith("In ")
    assert "nan" not in said.data
    assert list(tmp_path.iterdir()) == []


def test_the_pages_on_borrowing_are_these_and_fit_a_screen(root):
    pages = {path.stem for path in (root / "notebooks").glob("borrow-*.ipynb")}
    assert pages == set(PAGES)
    for name in pages:
        hidden = {"hide-input", "remove-cell"}
        seen = [c for c in cells_of(root, name) if not hidden & {*c["metadata"].get("tags", [])}]
        assert sum("".join(cell["source"]).count("\n") + 1 for cell in seen) <= 60


def cells_of(root, name):
    return json.loads((root / "notebooks" / f"{name}.ipynb").read_text())["cells"]


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {stdlib_free}:
            raise ModuleNotFoundError(name)

import torch
before = set(sys.modules)
sys.meta_path.insert(0, Blocked())
for name in [n for n in sys.modules if n.partition(".")[0] in {stdlib_free}]:
    del sys.modules[name]
import lib.schedulers, lib.losses, lib.metrics, lib.rivals, lib.models
from lib.adapters import open_clip
# In use, too.
similarity = torch.eye(3)
lib.losses.ScheduledContrastiveLoss()(similarity, similarity)
lib.losses.weighted_mean(
    lib.losses.info_nce(similarity, 0.1), lib.schedulers.Scheduler("entropy")(similarity, 0.1)
)
lib.metrics.recall_at_k([similarity], similarity, [0, 1, 2]).as_dict()
lib.metrics.hubness(similarity.tolist(), 1)
lib.models.ProjectionHead(3, 2)(similarity)
new = {{n.partition(".")[0] for n in set(sys.modules) - before}}
print(sorted(new - set(sys.stdlib_module_names) - {{"lib", "torch"}}))
"""


def test_the_wheel_asks_for_torch_alone_at_any_later_version(root):
    """So an environment that has torch and NumPy keeps both."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    (requirement,) = map(Requirement, project["dependencies"])
    assert requirement.name == "torch"
    assert {one.operator for one in requirement.specifier} == {">="}


def test_the_borrowers_part_needs_torch_alone(root):
    others = {"numpy", "pandas", "scipy", "sklearn", "pydantic", "altair", "transformers", "timm"}
    script = BLOCKED.format(stdlib_free=others)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
