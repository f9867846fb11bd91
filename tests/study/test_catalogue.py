import pytest
from notebook_maker import write_notebook, write_study

from lib.chapters.parameters import defaults
from lib.chapters.shared.checking import ParameterError, cell_type, describe
from lib.study.catalogue import (
    StudyError,
    find_root,
    load_catalogue,
    load_profiles,
    parse_pairs,
    read_notebook,
)


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, baseline="1", corpus="1", main_comparison="1")


def test_notebooks_are_listed_in_the_order_of_the_book(study):
    catalogue = load_catalogue(study)
    assert list(catalogue.notebooks) == ["main-comparison", "corpus", "baseline"]
    assert catalogue.notebooks["corpus"].title == "About corpus"


def test_a_notebook_outside_the_book_is_listed_last(study):
    write_notebook(study / "notebooks" / "appendix.ipynb", "a: int = 1  # one")
    assert list(load_catalogue(study).notebooks)[-1] == "appendix"


def test_a_parameter_has_its_default_comment_and_accepted_values(study):
    notebook = load_catalogue(study).notebooks["main-comparison"]
    found = {name: field.default for name, field in notebook.parameters.items()}
    assert found == defaults("main-comparison")
    beta = notebook.parameters["beta"]
    assert (cell_type(beta), beta.description) == ("float", "smoothing of the signal")
    assert describe(beta) == "a finite number, at least 0, less than 1"


def test_a_notebook_needs_exactly_one_parameters_cell(tmp_path):
    path = write_notebook(tmp_path / "corpus.ipynb", "a = 1")
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    with pytest.raises(StudyError, match="has 0 cells tagged 'parameters'"):
        read_notebook(path)
    path.write_text("{")
    with pytest.raises(StudyError, match=r"corpus\.ipynb is not a readable notebook"):
        read_notebook(path)


def test_the_root_is_found_from_any_folder_inside_it(study, tmp_path_factory):
    assert find_root(study / "notebooks") == study
    with pytest.raises(StudyError, match="--root"):
        find_root(tmp_path_factory.mktemp("elsewhere"))


def test_select_takes_names_and_paths_and_gives_each_notebook_once(study):
    catalogue = load_catalogue(study)
    chosen = catalogue.select(["notebooks/baseline.ipynb", "corpus", "baseline"])
    assert [notebook.name for notebook in chosen] == ["corpus", "baseline"]
    with pytest.raises(StudyError, match=r"unknown notebook 'basline'.*did you mean 'baseline'"):
        catalogue.select(["basline"])


def test_given_values_override_the_profile_in_notebooks_that_have_them(study):
    catalogue = load_catalogue(study)
    everything = catalogue.select(list(catalogue.notebooks))
    settings = catalogue.settings(everything, "full", {"seeds": "7", "gammas": "[2]"})
    assert settings == {
        "main-comparison": {"seeds": 7, "gammas": [2.0]},
        "corpus": {"seeds": 7},
        "baseline": {"train_images": 700, "seeds": 7},
    }
    assert type(settings["corpus"]["seeds"]) is int


def test_a_parameter_of_another_notebook_is_refused(study):
    catalogue = load_catalogue(study)
    with pytest.raises(ParameterError, match="unknown parameter 'gammas'"):
        catalogue.settings(catalogue.select(["corpus"]), "quick", {"gammas": "[1]"})
    with pytest.raises(StudyError, match=r"unknown profile 'ful'.*did you mean 'full'"):
        catalogue.settings([], "ful", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("full:\n  corpus: {epohcs: 3}", "profile 'full', notebook 'corpus'.*\n.*'epochs'"),
        ("full:\n  corpus: {epochs: 2.5}", "epochs = 2.5"),
        ("full:\n  corpis: {epochs: 2}", "did you mean 'corpus'"),
    ],
)
def test_profiles_are_checked_when_they_are_read(tmp_path, text, said):
    path = tmp_path / "profiles.yml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=said) as caught:
        load_profiles(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["- full", "full: [corpus]", "full: {corpus: 3}", "full: {", ""])
def test_profiles_of_a_wrong_structure_are_refused(tmp_path, text):
    path = tmp_path / "profiles.yml"
    with pytest.raises(StudyError, match=r"profiles\.yml can't be read"):
        load_profiles(path)
    path.write_text(text)
    with pytest.raises(StudyError, match=r"profiles\.yml"):
        load_profiles(path)


def test_the_studys_own_profiles_are_valid_and_quick_changes_nothing(root):
    profiles = load_profiles(root / "notebooks" / "profiles.yml")
    assert profiles["quick"] == {}
    for notebook in ("corpus", "baseline", "main-comparison"):
        assert profiles["full"][notebook]["corpus"] == "flickr8k"
        assert profiles["full"][notebook]["seeds"] >= 20
    assert profiles["full"]["main-comparison"]["train_images"] == 1000


def test_pairs_and_yaml_documents_are_parsed_or_refused():
    assert parse_pairs(["a=1", "b=x=y", "c="], ["{a: 2, d: [1]}", ""]) == {
        "a": "1",
        "d": [1],
        "b": "x=y",
        "c": "",
    }
    with pytest.raises(StudyError, match="-p epochs needs a value"):
        parse_pairs(["epochs"], [])
    with pytest.raises(StudyError, match="expected a mapping"):
        parse_pairs([], ["[1, 2]"])
    with pytest.raises(StudyError, match="is not YAML"):
        parse_pairs([], ["{a: "])
    with pytest.raises(StudyError, match="is not YAML"):
        parse_pairs([], ["!!python/object/apply:os.system ['false']"])
