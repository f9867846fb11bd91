import math
from pathlib import Path

import nbformat
import papermill
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.chapters.parameters import MODELS, check, defaults, validate
from lib.chapters.shared.checking import ParameterError, parameters_cell
from lib.study.catalogue import read_notebook

SOURCES = sorted((Path(__file__).resolve().parent.parent.parent / "notebooks").glob("*.ipynb"))


def cell(notebook="main-comparison", **changed):
    """The globals of a notebook after its parameters cell, with IPython's own among them."""
    import json

    class Thing:
        pass

    own = {"In": [""], "Out": {}, "exit": object(), "quit": object(), "get_ipython": len}
    code = {"json": json, "Thing": Thing, "helper": lambda: 1, "_i1": "source", "open": open}
    return {**own, **code, **defaults(notebook), **changed}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebooks_cell_is_what_its_model_gives(path):
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    written = parameters_cell(MODELS[path.stem])
    assert cell.source == written, f"the parameters cell of {path} is stale: call `study links`"
    in_cell: dict = {}
    exec(written, in_cell)
    assert {name: in_cell[name] for name in defaults(path.stem)} == defaults(path.stem)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_papermill_sees_the_same_parameters(path):
    seen = papermill.inspect_notebook(str(path))
    read = read_notebook(path).parameters
    about = [(name, field.description) for name, field in read.items()]
    assert [(p["name"], p["help"]) for p in seen.values()] == about


@pytest.mark.parametrize("notebook", MODELS)
def test_defaults_pass_their_own_check(notebook):
    assert check(notebook, cell(notebook)).model_dump() == defaults(notebook)


@pytest.mark.parametrize(
    ("name", "given", "converted"),
    [
        ("margin", "1e-3", 0.001),
        ("margin", 1, 1.0),
        ("epochs", 20.0, 20),
        ("epochs", "20", 20),
        ("epochs", "2e1", 20),
        ("seeds", " 5 ", 5),
        ("gammas", "[1, 5e-1, '10']", [1.0, 0.5, 10.0]),
        ("gammas", [1, "2"], [1.0, 2.0]),
        ("signals", "[variance, entropy]", ["variance", "entropy"]),
        ("signals", ("spread",), ["spread"]),
        ("targets", "{variance: ['2', 3e0]}", {"variance": [2.0, 3.0]}),
        ("beta", "0", 0.0),
        ("device", "cuda:1", "cuda:1"),
    ],
)
def test_safe_cases_are_converted_in_place(name, given, converted):
    values = cell(**{name: given})
    parameters = check("main-comparison", values)
    for value in (values[name], getattr(parameters, name)):
        assert value == converted
        assert type(value) is type(converted)
    if isinstance(converted, list):
        assert [type(item) for item in values[name]] == [type(item) for item in converted]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("margin", "fast", "a finite number, more than 0; write -p margin 0.3"),
        ("margin", math.nan, "a finite number"),
        ("margin", "inf", "a finite number"),
        ("margin", 0, "more than 0"),
        ("margin", None, "a finite number"),
        ("margin", True, "True is no number"),
        ("epochs", 15.5, "a whole number, at least 1; write -p epochs 15"),
        ("epochs", "15.5", "a whole number"),
        ("epochs", math.nan, "a whole number"),
        ("epochs", math.inf, "a whole number"),
        ("epochs", "1e400", "a whole number"),
        ("epochs", False, "False is no number"),
        ("epochs", [15], "a whole number"),
        ("seeds", 1, "at least 2"),
        ("beta", 1.0, "less than 1"),
        ("gammas", "1, 10", "each a finite number, not empty; write -p gammas '[1.0, 10.0]'"),
        ("gammas", "[1, nan]", "a finite number"),
        ("gammas", "[1,", "a list"),
        ("gammas", "[yes]", "True is no number"),
        ("gammas", 10.0, "a list"),
        ("gammas", [], "not empty"),
        ("gammas", [1.0, 1], "no value may stand twice"),
        ("gammas", {"a": 1}, "a list"),
        ("targets", [1.0], "a mapping of one of 'variance', 'entropy', 'spread' to a list, each a"),
        ("targets", {"loudness": [1.0]}, "write -p targets '{variance: [1.0, 1.5, 1.75, 2.5], "),
        ("targets", {"variance": []}, "not empty"),
        ("targets", {"spread": [5.0, 5]}, "no value may stand twice"),
        ("targets", {"entropy": [0.5, 1.0]}, "(target must be in (0, 1); it is 1.0)"),
        ("signals", "variance", "write -p signals '[variance, entropy, spread]'"),
        ("signals", ["varianc"], "one of 'variance', 'entropy', 'spread'"),
        ("corpus", "scene", "one of 'scenes', 'flickr8k'; write -p corpus scenes"),
        ("corpus", False, "YAML reads a bare no, off or false as False, so quote it: -y '{corpus:"),
        ("corpus", True, "YAML reads a bare yes, on or true as True"),
        ("corpus_root", 2024, "quote it: -y '{corpus_root: \"2024\"}'"),
        ("image_tower", "", "text, not empty"),
        ("device", "gpu", "one of auto, cpu, cuda, cuda:N"),
        ("corpus", "__import__('os').system('false')", "one of 'scenes'"),
    ],
)
def test_other_values_are_refused_by_name_value_type_and_flag(name, given, said):
    values = cell(**{name: given})
    with pytest.raises(ParameterError) as caught:
        check("main-comparison", values)
    message = str(caught.value)
    assert "'main-comparison'" in message
    assert f"\n  {name}" in message
    assert said in message
    assert values[name] is given


def test_all_problems_are_told_at_once():
    values = cell(epochs=1.5, corpus=False, epohcs=1, signals=["variance", "loudness"])
    with pytest.raises(ParameterError) as caught:
        check("main-comparison", values)
    message = str(caught.value)
    assert "epochs = 1.5" in message
    assert "corpus = False" in message
    assert "signals[1] = 'loudness'" in message
    assert "unknown parameter 'epohcs' (did you mean 'epochs'?)" in message
    assert "The parameters of 'main-comparison' are: corpus, corpus_root," in message


def test_a_missing_parameter_is_named():
    values = cell()
    del values["beta"]
    with pytest.raises(ParameterError, match="beta not set"):
        check("main-comparison", values)


def test_an_unknown_notebook_is_refused_with_the_nearest_name():
    with pytest.raises(ParameterError, match="did you mean 'corpus'"):
        check("corpsu", {})


def test_parameters_cannot_be_changed_afterwards():
    parameters = validate("corpus", {})
    with pytest.raises(ValueError, match="frozen"):
        parameters.epochs = 3


literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(defaults("main-comparison"))), literals)
def test_whatever_is_given_ends_as_the_declared_type_or_as_an_error(name, value):
    values = cell(**{name: value})
    try:
        check("main-comparison", values)
    except ParameterError:
        assert values[name] is value
        return
    default = defaults("main-comparison")[name]
    assert type(values[name]) is type(default)
    if isinstance(default, list):
        assert {type(item) for item in values[name]} == {type(default[0])}
    found = list(values[name].values()) if isinstance(default, dict) else [values[name]]
    numbers = [n for one in found for n in (one if isinstance(one, list) else [one])]
    assert all(math.isfinite(number) for number in numbers if not isinstance(number, str))
