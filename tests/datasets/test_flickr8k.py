"""Flickr8k: its layouts, its folder, its fingerprint, and the real corpus."""

from collections import Counter

import numpy as np
import pytest
from corpora import (
    picture,
    pictures,
    tokens,
    write_kaggle,
    write_official,
    write_splits,
    write_text,
)

from lib.datasets import CorpusError, Flickr8k, find_flickr8k, load_corpus
from lib.datasets.integrity import hashed_split

NAMES = ("p1.jpg", "p2.jpg", "p3.jpg")
TEXT = tokens(p1="One .", p2="Two .", p3="Three .")
KAGGLE = "image,caption\np3.jpg,Three .\np2.jpg,Two .\np1.jpg,One .\n"
SPLITS = {"train": ["p1.jpg"], "val": ["p2.jpg"], "test": ["p3.jpg"]}


@pytest.fixture(autouse=True)
def no_corpus_elsewhere(monkeypatch):
    monkeypatch.delenv("FLICKR8K_ROOT", raising=False)


@pytest.mark.parametrize("folder", ["Flicker8k_Dataset", "Flickr8k_Dataset"])
@pytest.mark.parametrize("texts", [".", "Flickr8k_text"])
def test_every_variant_of_the_official_layout_loads(tmp_path, folder, texts):
    write_official(tmp_path, pictures(*NAMES), TEXT, SPLITS, folder=folder, texts=texts)
    corpus = Flickr8k(tmp_path)
    assert [(s.id, s.captions, s.split) for s in corpus.samples] == [
        ("p1.jpg", ("One .",), "train"),
        ("p2.jpg", ("Two .",), "val"),
        ("p3.jpg", ("Three .",), "test"),
    ]
    assert not corpus.redistributable


def test_the_kaggle_layout_is_split_by_hash_with_a_note(tmp_path):
    corpus = Flickr8k(write_kaggle(tmp_path, pictures(*NAMES), KAGGLE))
    assert {s.id: s.split for s in corpus.samples} == {name: hashed_split(name) for name in NAMES}
    assert any("hash" in note and "not the official" in note for note in corpus.report.notes)


def test_official_split_files_beside_the_kaggle_layout_are_used(tmp_path):
    write_kaggle(tmp_path, pictures(*NAMES), KAGGLE)
    write_splits(tmp_path, SPLITS, end="\r\n")
    corpus = Flickr8k(tmp_path)
    assert [sample.split for sample in corpus.samples] == ["train", "val", "test"]
    assert not any("hash" in note for note in corpus.report.notes)


def test_the_same_content_in_both_layouts_has_the_same_fingerprint(tmp_path):
    official = write_official(tmp_path / "o", pictures(*NAMES), TEXT, SPLITS)
    kaggle = write_kaggle(tmp_path / "k", pictures(*NAMES), KAGGLE)
    write_splits(kaggle, SPLITS)
    assert Flickr8k(official).fingerprint == Flickr8k(kaggle).fingerprint


@pytest.mark.parametrize("change", ["caption", "pixels", "split", "captions cut elsewhere"])
def test_whatever_can_change_a_result_changes_the_fingerprint(tmp_path, change):
    images, text, splits = pictures(*NAMES), TEXT, SPLITS
    before = Flickr8k(write_official(tmp_path / "before", images, text, splits)).fingerprint
    if change == "caption":
        text = text.replace("One", "Once")
    elif change == "pixels":
        images = images | {"p1.jpg": picture("yellow")}
    elif change == "split":
        splits = splits | {"val": ["p1.jpg"], "train": ["p2.jpg"]}
    else:
        text = text.replace("p1.jpg#0\tOne .", "p1.jpg#0\tOn\np1.jpg#1\te .")
    assert Flickr8k(write_official(tmp_path / "after", images, text, splits)).fingerprint != before


def test_a_sample_links_to_its_photograph_on_flickr(tmp_path):
    name = "1000268201_693b08cb0e.jpg"
    write_official(tmp_path, {name: picture("red"), "q.jpg": picture("blue")}, f"{name}#0\tA .\n")
    (sample,) = Flickr8k(tmp_path).samples
    assert sample.link == "https://www.flickr.com/photo.gne?id=1000268201"


def test_an_image_that_vanished_after_the_check_is_named(tmp_path):
    corpus = Flickr8k(write_official(tmp_path, pictures(*NAMES), TEXT, SPLITS))
    (tmp_path / "Flicker8k_Dataset" / "p1.jpg").unlink()
    with pytest.raises(CorpusError, match=r"p1\.jpg passed the integrity check"):
        corpus.load_image(corpus.samples[0])


def test_a_sample_of_another_corpus_is_refused(tmp_path):
    corpus = Flickr8k(write_official(tmp_path, pictures(*NAMES), TEXT, SPLITS))
    with pytest.raises(CorpusError, match="'train-00000' is not an image of"):
        corpus.load_image(load_corpus("scenes", train=1, val=0, test=0).samples[0])


class TestFindingTheFolder:
    @pytest.fixture
    def there(self, tmp_path):
        return write_official(tmp_path / "there", pictures(*NAMES), TEXT, SPLITS)

    def test_the_environment_variable_names_the_folder(self, there, monkeypatch):
        monkeypatch.setenv("FLICKR8K_ROOT", str(there))
        assert find_flickr8k() == there
        assert len(load_corpus("flickr8k").samples) == 3

    def test_an_argument_overrides_the_environment_variable(self, there, monkeypatch):
        monkeypatch.setenv("FLICKR8K_ROOT", "/nowhere")
        assert find_flickr8k(there) == there

    def test_without_both_the_home_folder_is_used(self, study_home):
        kept = study_home / "corpora" / "flickr8k"
        write_official(kept, pictures(*NAMES), TEXT, SPLITS)
        assert find_flickr8k() == kept

    def test_the_error_lists_every_way_to_supply_the_corpus(self, study_home):
        with pytest.raises(CorpusError) as caught:
            Flickr8k()
        for way in ("FLICKR8K_ROOT", "root=", str(study_home), "download=True"):
            assert way in str(caught.value)

    def test_a_named_folder_that_is_missing_or_a_file_is_an_error(self, tmp_path, monkeypatch):
        with pytest.raises(CorpusError, match=r"root = '.*nowhere' is not there"):
            Flickr8k(tmp_path / "nowhere")
        monkeypatch.setenv("FLICKR8K_ROOT", str(tmp_path / "typo"))
        with pytest.raises(CorpusError, match=r"\$FLICKR8K_ROOT = '.*typo' is not there"):
            Flickr8k()
        with pytest.raises(CorpusError, match="is not a folder"):
            Flickr8k(write_text(tmp_path / "file", ""))

    def test_a_folder_of_neither_layout_is_an_error(self, tmp_path):
        with pytest.raises(CorpusError, match=r"no images' folder: Flicker8k_Dataset"):
            Flickr8k(tmp_path)
        (tmp_path / "Images").mkdir()
        with pytest.raises(CorpusError, match=r"no caption file: Flickr8k\.token\.txt"):
            Flickr8k(tmp_path)

    def test_an_incomplete_set_of_split_files_is_an_error(self, there):
        (there / "Flickr_8k.devImages.txt").unlink()
        with pytest.raises(CorpusError, match=r"but not Flickr_8k\.devImages\.txt"):
            Flickr8k(there)


def test_the_real_corpus_loads_strictly(flickr8k_root):
    corpus = Flickr8k(flickr8k_root)
    assert Counter(sample.split for sample in corpus.samples) == {
        "train": 6000,
        "val": 1000,
        "test": 1000,
        "none": 91,
    }
    assert corpus.report.images_kept == 8091
    assert corpus.report.captions_kept == 40455
    assert {len(sample.captions) for sample in corpus.samples} == {5}
    (copy,) = corpus.report.problems
    assert (copy.kind, copy.fatal) == ("duplicate image", False)
    assert copy.where == "3050606344_af711c726c.jpg"
    assert "2851198725_37b6027625.jpg" in copy.detail
    again = Flickr8k(flickr8k_root)
    assert again.fingerprint == corpus.fingerprint
    image = corpus.load_image(corpus.split("test")[0])
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 1
