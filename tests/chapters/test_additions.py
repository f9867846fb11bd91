"""A signal, a loss, a corpus and a kind of noise from outside: no file of the package is edited."""

import builtins
import json

import pytest
import torch
from quick_towers import CountingTower, colour_tower

from lib.chapters.parameters import defaults, validate
from lib.chapters.shared.checking import ParameterError
from lib.chapters.shared.methods import methods
from lib.datasets import CORPORA, Scenes
from lib.encoders import features
from lib.losses import LOSSES
from lib.losses.per_query import Loss, info_nce
from lib.noise import CAPTION_KINDS, IMAGE_KINDS
from lib.runs import NoiseConfig, RunConfig, Store
from lib.schedulers import SIGNALS
from lib.schedulers.signals import Signal, spread

SMALL = {
    "corpus": "meadow", "seeds": 3, "train_images": 16, "batch_size": 8, "embedding_dim": 8,
    "epochs": 2, "tuning_seeds": 1, "temperatures": [0.1, 0.2], "learning_rates": [0.01],
    "ridges": [3.0], "scheduled_temperatures": [0.2], "gammas": [1.0, 5.0],
    "signals": ["variance", "loudness"],
    "actuators": ["direction", "sharpness"],
    "targets": {"variance": [1.0, 2.0], "loudness": [2.0, 4.0]},
}  # fmt: skip


class Meadow(Scenes):
    """A corpus that lies on a disk: it takes a folder."""

    def __init__(self, root: str | None = None) -> None:
        super().__init__(train=20, val=8, test=8, image_size=32)
        self.name, self.root = "meadow", root


@pytest.fixture(autouse=True)
def additions(monkeypatch):
    """One entry in each registry, and towers that are quick."""
    loudness = Signal(lambda s, tau: spread(s, tau) ** 2, SIGNALS["spread"].scale, 4.0)
    monkeypatch.setitem(SIGNALS, "loudness", loudness)
    monkeypatch.setitem(LOSSES, "shrunk", Loss(lambda s, tau: 0.9 * info_nce(s, tau)))
    monkeypatch.setitem(CORPORA, "meadow", Meadow)
    monkeypatch.setitem(CAPTION_KINDS, "upper case", lambda words, *_: [w.upper() for w in words])
    monkeypatch.setitem(IMAGE_KINDS, "darkness", lambda image, *_: image.point(lambda x: x // 2))
    monkeypatch.setattr(features, "load_text_tower", lambda name: CountingTower())
    monkeypatch.setattr(features, "load_image_tower", lambda name: colour_tower())
    monkeypatch.setattr(builtins, "display", lambda _: None, raising=False)


def run_main_comparison(root, **given):
    """Run the code of the notebook with these parameters; return its variables."""
    path = root / "notebooks" / "main-comparison.ipynb"
    names = {"__name__": "__main__"}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names |= given
    return names


CHANGES = {
    "signal and corpus": {},
    "loss": {"loss": "shrunk"},
    "caption noise": {"noise": NoiseConfig(kind="captions", rate=1.0)},
    "image noise": {"noise": NoiseConfig(kind="images", rate=1.0)},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_main_comparison_takes_what_is_registered_from_outside(root, monkeypatch, changes):
    of = RunConfig.of
    monkeypatch.setattr(RunConfig, "of", lambda parameters, **own: of(parameters, **own, **changes))
    found = run_main_comparison(root, **SMALL)
    expected = ["fixed", "learned τ", "CCA", *(f"{s} × direction" for s in SMALL["signals"])]
    assert found["runs"]["method"].unique().tolist() == [
        *expected, *(f"{s} × sharpness" for s in SMALL["signals"])
    ]  # fmt: skip
    assert set(found["against_fixed"]["method"]) == set(found["runs"]["method"]) - {"fixed"}
    for records in found["replicated"].values():
        for record in records:
            assert record.config.corpus == "meadow"
            if record.config.epochs:  # Heads in closed form have no loss.
                assert {name: getattr(record.config, name) for name in changes} == changes
            assert Store().get(record.config) is not None
            assert torch.tensor(record.steps).isfinite().all()


def test_parameters_and_errors_know_what_is_registered_from_outside():
    assert "loudness × direction" in methods()
    for notebook, name, value, known in (
        ("main-comparison", "signals", ["loudnes"], "'loudness'"),
        ("corpus", "corpus", "meadows", "'meadow'; write -p corpus meadow"),
        ("noise", "caption_noise", ["uper case"], "'upper case'"),
        ("noise", "methods", ["fixed", "spread × size"], "'loudness × sharpness'"),
    ):
        with pytest.raises(ParameterError, match=known):
            validate(notebook, {name: value})
    with pytest.raises(ValueError, match=r"'shrunken' is unknown \(did you mean 'shrunk'\?\)"):
        RunConfig(loss="shrunken")
    assert defaults("main-comparison")["signals"] == ["variance", "entropy", "spread"]
