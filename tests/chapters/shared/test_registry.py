"""The registry of comparisons: what notebooks publish is collected, and has one verdict each."""

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from lib.chapters.shared.findings import FindingError
from lib.chapters.shared.registry import (
    MIME_TYPE,
    Comparisons,
    collect_comparisons,
    publish_comparisons,
    registered,
    write_comparisons,
)
from lib.chapters.shared.verdicts import against, against_on_all
from lib.runs import TEST_COLUMNS

ON = {"corpus": "scenes", "train_images": 800}


def runs(gain=1.0, methods=("fixed", "a", "b"), **columns):
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, **columns}
            | {name: 20.0 + seed + gain * place + draw.normal(0, 0.1) for name in TEST_COLUMNS}
            for place, method in enumerate(methods)
            for seed in range(20)
        ]
    )


def notebook(folder, name, comparisons):
    content = Comparisons(notebook=name, comparisons=tuple(comparisons)).model_dump(mode="json")
    output = new_output("display_data", data={MIME_TYPE: content})
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[output])]), path)
    return path


def test_rows_become_entries_with_all_that_a_reader_needs_to_judge():
    table = against(runs(), "fixed", 0.3)
    found = registered("controls", {"what helps": table}, **ON)
    assert [(one.method, one.metric) for one in found] == [
        ("a", "i2t R@1"), ("a", "t2i R@1"), ("b", "i2t R@1"), ("b", "t2i R@1"),
    ]  # fmt: skip
    for one, row in zip(found, table.itertuples(), strict=True):
        for name in ("estimate", "low", "high", "p", "p_adjusted", "seeds", "margin", "verdict"):
            assert getattr(one, name) == getattr(row, name), name
        assert one.bayes_factor == min(row.bayes_factor, 1e6)
        assert (one.question, one.notebook, one.setting) == ("what helps", "controls", "")


def test_settings_sizes_and_names_of_metrics_are_told_apart():
    table = pd.concat([runs(condition="default"), runs(condition="hot")])
    found = registered("signals", {"q": against(table, "fixed", 0.3, within="condition")}, **ON)
    assert sorted({one.setting for one in found}) == ["", "hot"]
    sized = against(runs(train_images=300), "fixed", 0.3, within="train_images")
    found = registered("sensitivity", {"q": sized}, setting="tuned anew", **ON)
    assert {(one.train_images, one.setting) for one in found} == {(300, "tuned anew")}
    found = registered("main-comparison", {"q": against_on_all(runs(), "fixed", 0.3)}, **ON)
    assert "rSum" in {one.metric for one in found}
    assert "i2t R@1" in {one.metric for one in found}


def test_a_comparison_that_two_chapters_make_is_kept_once(tmp_path):
    main = registered("main-comparison", {"q": against(runs(), "fixed", 0.3)}, **ON)
    of_two = runs()[lambda table: table["method"] != "b"]
    beside = registered("controls", {"q": against(of_two, "fixed", 0.3)}, **ON)
    paths = [notebook(tmp_path, "main-comparison", main), notebook(tmp_path, "controls", beside)]
    assert collect_comparisons(paths) == main
    write_comparisons(paths, tmp_path / "comparisons.json")
    assert (tmp_path / "comparisons.json").read_text().count('"method"') == len(main)


@pytest.mark.parametrize("change", [{"verdict": "undecided"}, {"estimate": 1.001}, {"seeds": 19}])
def test_a_comparison_with_two_verdicts_is_refused(tmp_path, change):
    main = registered("main-comparison", {"q": against(runs(), "fixed", 0.3)}, **ON)
    other = main[0].model_copy(update={"notebook": "controls", **change})
    paths = [notebook(tmp_path, "main-comparison", main), notebook(tmp_path, "controls", [other])]
    with pytest.raises(FindingError, match=r"a against fixed in i2t R@1, 800 images, has two"):
        collect_comparisons(paths)


def test_a_notebook_publishes_as_itself(tmp_path):
    path = notebook(tmp_path, "controls", [])
    path.rename(tmp_path / "noise.ipynb")
    with pytest.raises(FindingError, match="as the notebook 'controls'"):
        collect_comparisons([tmp_path / "noise.ipynb"])


def test_what_is_displayed_counts_for_the_reader(capsys):
    publish_comparisons("controls", {"weights": against(runs(), "fixed", 0.3)}, **ON)
    assert "Comparisons of this chapter: 4 on weights." in capsys.readouterr().out
