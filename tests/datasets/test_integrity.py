"""The integrity check: the problems that it finds, which of them stop it, what it keeps."""

import json
import os
import warnings
from pathlib import Path

import pytest
from corpora import noisy_picture, picture, pictures, tokens, write_official
from PIL import Image

from lib.datasets import CorpusError, Flickr8k, IntegrityError, integrity
from lib.datasets.integrity import hashed_split, match_files

SPLITS = {"train": ["p1.jpg", "p2.jpg"], "val": ["p3.jpg"], "test": ["p4.jpg"]}
TEXT = tokens(p1="One .", p2="Two .", p3="Three .", p4="Four .")


def official(root, changes=None, text=TEXT, splits=SPLITS, **options):
    """Write four good images in splits, with ``changes``: bytes by name, None to leave one out."""
    images = pictures("p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg") | (changes or {})
    return write_official(
        root, {name: data for name, data in images.items() if data is not None}, text, splits
    )


def ids(corpus):
    return [sample.id for sample in corpus.samples]


def test_a_sound_corpus_has_no_problems(tmp_path):
    corpus = Flickr8k(official(tmp_path))
    assert corpus.report.problems == ()
    assert [sample.split for sample in corpus.samples] == ["train", "train", "val", "test"]
    assert str(corpus.report).startswith("4 images and 4 captions kept, 0 images and 0 captions")


@pytest.mark.parametrize(
    ("changes", "text", "kind", "where"),
    [
        ({"p2.jpg": None}, TEXT, "missing image", "p2.jpg"),
        ({"p2.jpg": noisy_picture()[:300]}, TEXT, "unreadable image", "p2.jpg"),
        ({"p2.jpg": b"<html>"}, TEXT, "unreadable image", "p2.jpg"),
        ({}, tokens(p1="1 .", p3="3 .", p4="4 ."), "image without caption", "p2.jpg"),
        ({}, TEXT + "p2.jpg\tno number\n", "malformed line", "Flickr8k.token.txt:5"),
    ],
)
def test_a_bad_image_or_line_of_a_split_is_named_and_stops_strict_loading(
    tmp_path, changes, text, kind, where
):
    official(tmp_path, changes, text)
    with pytest.raises(IntegrityError) as caught:
        Flickr8k(tmp_path)
    assert f"1 {kind}\n" in str(caught.value)
    assert where in str(caught.value)
    assert where in caught.value.report.named(kind)
    # The report of strict loading predicts what skipping keeps and drops.
    assert Flickr8k(tmp_path, on_bad_sample="skip").report == caught.value.report


@pytest.mark.parametrize("data", [None, b"", noisy_picture()[:300]])
def test_a_bad_image_in_no_split_is_reported_and_left_out(tmp_path, data):
    splits = {"train": ["p1.jpg"], "val": ["p3.jpg"], "test": ["p4.jpg"]}
    corpus = Flickr8k(official(tmp_path, {"p2.jpg": data}, splits=splits))
    assert ids(corpus) == ["p1.jpg", "p3.jpg", "p4.jpg"]
    (problem,) = corpus.report.problems
    assert (problem.where, problem.fatal, problem.captions) == ("p2.jpg", False, 1)
    assert (corpus.report.images_dropped, corpus.report.captions_dropped) == (1, 1)


def test_copies_within_a_split_are_reported_and_kept(tmp_path):
    same = picture("green")
    corpus = Flickr8k(official(tmp_path, {"p1.jpg": same, "p2.jpg": same}))
    assert len(corpus.samples) == 4
    (problem,) = corpus.report.problems
    assert (problem.kind, problem.where, problem.fatal) == ("duplicate image", "p2.jpg", False)
    assert "p1.jpg (train)" in problem.detail


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("p1.jpg", "p4.jpg", "p4.jpg"),
        ("p1.jpg", "p3.jpg", "p3.jpg"),
        ("p3.jpg", "p4.jpg", "p4.jpg"),
    ],
)
def test_copies_across_splits_are_fatal_and_skipping_keeps_the_test_image(
    tmp_path, first, second, kept
):
    same = picture("green")
    official(tmp_path, {first: same, second: same})
    with pytest.raises(IntegrityError, match="1 duplicate image"):
        Flickr8k(tmp_path)
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert len(corpus.samples) == 3
    assert {first, second} & set(ids(corpus)) == {kept}


def test_a_copy_in_no_split_is_not_fatal(tmp_path):
    same = picture("green")
    splits = {"train": ["p1.jpg"], "val": ["p3.jpg"], "test": ["p4.jpg"]}
    corpus = Flickr8k(official(tmp_path, {"p2.jpg": same, "p4.jpg": same}, splits=splits))
    assert len(corpus.samples) == 4
    assert corpus.report.named("duplicate image") == ("p4.jpg",)


def test_an_image_in_two_split_files_is_fatal_and_skipping_keeps_it_in_the_test_split(tmp_path):
    official(tmp_path, splits=SPLITS | {"train": ["p1.jpg", "p2.jpg", "p4.jpg"]})
    with pytest.raises(IntegrityError, match="is listed in both test and train"):
        Flickr8k(tmp_path)
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert [sample.id for sample in corpus.split("test")] == ["p4.jpg"]
    assert [sample.id for sample in corpus.split("train")] == ["p1.jpg", "p2.jpg"]


def test_an_image_without_a_caption_is_reported_and_left_out(tmp_path):
    corpus = Flickr8k(official(tmp_path, {"p5.JPEG": picture("blue"), "readme.md": b"text"}))
    assert len(corpus.samples) == 4
    assert corpus.report.named("image without caption") == ("p5.JPEG",)
    assert corpus.report.images_dropped == 0  # Neither the captions nor a split file name it.


def test_the_error_counts_all_problems_and_lists_the_first(tmp_path):
    text = "".join(f"q{k:02d}.jpg#0\tGone .\n" for k in range(25))
    write_official(tmp_path, {}, text)
    with pytest.raises(IntegrityError) as caught:
        Flickr8k(tmp_path)
    message = str(caught.value)
    assert "25 missing images" in message
    assert "q00.jpg" in message
    assert "q24.jpg" not in message
    assert "and 15 more" in message
    assert len(caught.value.report.problems) == 25


def test_warnings_of_damaged_metadata_are_not_shown(tmp_path):
    damaged = {
        f"p{k}.jpg": picture((k, 0, 0), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
        for k in range(1, 5)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Flickr8k(official(tmp_path, damaged))


def test_an_unknown_on_bad_sample_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="on_bad_sample = 'ignore'; use 'error' or 'skip'"):
        Flickr8k(official(tmp_path), on_bad_sample="ignore")


def test_file_names_match_across_unicode_forms():
    # A Mac writes a letter and its accent as two characters.
    found, missing = match_files({"cafe\u0301.jpg": Path("1")}, ["caf\u00e9.jpg"])
    assert found == {"caf\u00e9.jpg": Path("1")}
    assert missing == {}


def test_a_name_with_a_path_matches_no_file_outside_the_folder(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(picture("red"))
    write_official(tmp_path, pictures("p1.jpg"), tokens(p1="One .") + "../secret.jpg#0\tTwo .\n")
    assert ids(Flickr8k(tmp_path, on_bad_sample="skip")) == ["p1.jpg"]


class TestCache:
    @pytest.fixture
    def decoded(self, monkeypatch):
        """A list to which the name of each decoded file is added."""
        seen = []
        inspect = integrity.inspect_image

        def spy(path):
            seen.append(path.name)
            return inspect(path)

        monkeypatch.setattr(integrity, "inspect_image", spy)
        return seen

    def test_a_second_start_decodes_nothing_and_gives_the_same_report(self, tmp_path, decoded):
        official(tmp_path, {"p1.jpg": b""})
        first = Flickr8k(tmp_path, on_bad_sample="skip")
        assert sorted(decoded) == ["p1.jpg", "p2.jpg", "p3.jpg", "p4.jpg"]
        second = Flickr8k(tmp_path, on_bad_sample="skip")
        assert len(decoded) == 4
        assert (first.report, first.fingerprint) == (second.report, second.fingerprint)

    def test_a_changed_file_of_the_same_size_and_time_is_inspected_again(self, tmp_path, decoded):
        official(tmp_path)
        before = Flickr8k(tmp_path)
        path = tmp_path / "Flicker8k_Dataset" / "p1.jpg"
        facts = path.stat()
        data = bytearray(path.read_bytes())
        # The byte is in the tables of the header: the picture can still be decoded.
        data[20] ^= 1
        path.write_bytes(bytes(data))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        after = Flickr8k(tmp_path, on_bad_sample="skip")
        assert len(decoded) == 8
        assert after.fingerprint != before.fingerprint

    @pytest.mark.parametrize("content", ["", "{", "[]", '[{"sha": 1}]', "[1, 2, 3, 4]"])
    def test_a_damaged_cache_is_made_again(self, tmp_path, decoded, study_home, content):
        official(tmp_path)
        before = Flickr8k(tmp_path)
        (cache,) = (study_home / "integrity").iterdir()
        assert len(json.loads(cache.read_text())) == 4
        cache.write_text(content)
        assert Flickr8k(tmp_path).fingerprint == before.fingerprint
        assert len(decoded) == 8


class TestHashedSplits:
    def test_proportions_are_six_to_one_to_one(self):
        splits = [hashed_split(f"{k}.jpg") for k in range(8000)]
        # Three standard errors of a binomial count.
        assert abs(splits.count("train") - 6000) < 120
        assert abs(splits.count("val") - 1000) < 90
        assert abs(splits.count("test") - 1000) < 90

    def test_copies_of_a_photograph_share_a_split(self, tmp_path):
        names = [f"p{k}.jpg" for k in range(30)]
        assert {hashed_split(name) for name in names} == {"train", "val", "test"}
        text = "".join(f"{name}#0\tThe same .\n" for name in names)
        corpus = Flickr8k(write_official(tmp_path, dict.fromkeys(names, picture("red")), text))
        assert {sample.split for sample in corpus.samples} == {hashed_split("p0.jpg")}
        assert corpus.report.fatal == ()


def test_images_of_any_size_keep_their_size(tmp_path):
    corpus = Flickr8k(official(tmp_path, {"p1.jpg": picture("red", size=(50, 7))}))
    image = corpus.load_image(corpus.samples[0])
    assert isinstance(image, Image.Image)
    assert image.size == (50, 7)
