"""Corpora with missing, damaged and oddly named files, and captions that are hard to parse."""

import csv
import io
import os
import warnings

import numpy as np
import pytest
from corpora import noisy_picture, picture, pictures, tokens, write_kaggle, write_official
from PIL import Image

from lib.datasets import Flickr8k, IntegrityError, read_captions
from lib.utils.text import printable


def captions_by_image(corpus):
    return {sample.id: sample.captions for sample in corpus.samples}


# Captions of missing files.

CAPTIONS = "p1.jpg#0\tA red kite .\np2.jpg.1#0\tA wet dog .\np3.jpg#0\tTwo boats .\n"


def test_missing_images_are_named_and_skipping_them_keeps_pairs_aligned(tmp_path):
    write_official(tmp_path, pictures("p1.jpg", "p2.jpg"), CAPTIONS)
    with pytest.raises(IntegrityError, match="2 missing images") as caught:
        Flickr8k(tmp_path)
    assert caught.value.report.named("missing image") == ("p2.jpg.1", "p3.jpg")
    assert "p2.jpg.1" in str(caught.value)
    assert "p3.jpg" in str(caught.value)
    assert "on_bad_sample='skip'" in str(caught.value)
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert captions_by_image(corpus) == {"p1.jpg": ("A red kite .",)}
    assert (corpus.report.images_dropped, corpus.report.captions_dropped) == (2, 2)
    assert corpus.report == caught.value.report


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_corpus_without_any_image_is_a_clear_error(tmp_path, policy):
    write_official(tmp_path, {}, CAPTIONS)
    with pytest.raises(IntegrityError, match="3 missing images"):
        Flickr8k(tmp_path, on_bad_sample=policy)


# Names with signs that a shell, a page or a format would interpret.

NAMES = [
    "p2.jpg.1", "p2.jpg#0", "a#1#2.jpg", "a b.jpg", "a,b.jpg", "a|b.jpg", 'a"b".jpg', "-rf.jpg",
    "$(touch trap).jpg", "`touch trap`.jpg", "; touch trap;.jpg", "%s%n%2e%2e%2fa.jpg", "*.jpg",
    "[a].jpg", "~.jpg", "nan.jpg", "image,caption", "<img src=x onerror=alert(1)>.jpg",
    "{eval}`1`.jpg", "\u202egpj.exe\u202c.jpg", "\x1b[2J\x1b[31mred.jpg", "a\x07\x9bb.jpg",
    "\ufeffbom.jpg", "a\u2028b.jpg", "\u00e9.jpg", "e\u0301.jpg", "\U0001f415.jpg",
    "x" * 240 + ".jpg",
]  # fmt: skip


def lines_of(layout, captions):
    """Return the text of a caption file in a layout, correctly quoted."""
    if layout == "official":
        return "".join(f"{name}#0\t{text}\n" for name, text in captions.items())
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([("image", "caption"), *captions.items()])
    return file.getvalue()


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("layout", ["official", "kaggle"])
@pytest.mark.parametrize("name", NAMES)
def test_an_image_may_have_any_name(tmp_path, monkeypatch, layout, name):
    monkeypatch.chdir(tmp_path)
    images, captions = pictures("p1.jpg", name), {"p1.jpg": "A kite .", name: "A dog ."}
    write = write_official if layout == "official" else write_kaggle
    corpus = Flickr8k(write(tmp_path / "corpus", images, lines_of(layout, captions)))
    assert captions_by_image(corpus) == {"p1.jpg": ("A kite .",), name: ("A dog .",)}
    for sample in corpus.samples:
        assert np.array_equal(
            corpus.load_image(sample), Image.open(io.BytesIO(images[sample.id])).convert("RGB")
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("layout", ["official", "kaggle"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_of_any_name_is_reported_without_its_captions(tmp_path, layout, name):
    write = write_official if layout == "official" else write_kaggle
    text = lines_of(layout, {"p1.jpg": "A kite .", "p2.jpg": "A bat .", name: "A dog ."})
    write(tmp_path, pictures("p1.jpg", "p2.jpg"), text)
    with pytest.raises(IntegrityError, match="1 missing image") as caught:
        Flickr8k(tmp_path)
    assert caught.value.report.named("missing image") == (name,)
    # The text goes to a terminal, which must not interpret a name.
    for said in (str(caught.value), str(caught.value.report)):
        assert printable(name) in said
        assert all(c == "\n" or c.isprintable() for c in said)
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert captions_by_image(corpus) == {"p1.jpg": ("A kite .",), "p2.jpg": ("A bat .",)}


@pytest.mark.tries("bad input")
def test_a_name_that_cannot_be_decoded_is_reported(tmp_path):
    write_official(tmp_path, pictures("p1.jpg"), tokens(p1="One ."))
    try:
        (tmp_path / "Flicker8k_Dataset" / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(picture("red"))
    except (OSError, UnicodeError):
        pytest.skip("this system's file names are text")
    report = Flickr8k(tmp_path).report
    (problem,) = report.problems
    assert problem.where == "\udcff\udcfe.jpg"
    assert str(problem).startswith(r"image without caption: \udcff\udcfe.jpg")


# Rows of Flickr30k's results.csv; one of the real file lacks its second bar.


def test_a_row_without_its_second_bar_is_repaired_and_reported(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\np1.jpg| 0| A red kite .\np1.jpg| 1   Two kites .\n"
    )
    read = read_captions(path)
    assert [(c.image, c.text) for c in read.captions] == [
        ("p1.jpg", "A red kite ."),
        ("p1.jpg", "Two kites ."),
    ]
    assert [(p.kind, p.where, p.fatal) for p in read.problems] == [
        ("repaired line", "results.csv:3", False)
    ]


@pytest.mark.parametrize(
    "row", ["p1.jpg| 1|", "p1.jpg| 1", "p1.jpg| one| A kite .", "p1.jpg", "|1|x"]
)
def test_a_row_that_cannot_be_repaired_gives_no_caption(tmp_path, row):
    path = tmp_path / "results.csv"
    path.write_text(f"image_name| comment_number| comment\np1.jpg| 0| A red kite .\n{row}\n")
    read = read_captions(path)
    assert [c.text for c in read.captions] == ["A red kite ."]
    assert [(p.kind, p.where) for p in read.problems] == [("malformed line", "results.csv:3")]


# Commas and quotes in Kaggle's captions.txt.


@pytest.mark.parametrize(
    "rows",
    [
        'p1.jpg,"A dog , wet , runs ."\np2.jpg,"A sign says ""stop"" , in red ."\n',
        'p1.jpg,A dog , wet , runs .\np2.jpg,A sign says "stop" , in red .\n',
    ],
    ids=["quoted", "unquoted"],
)
def test_commas_and_quotes_stay_in_the_captions(tmp_path, rows):
    text = f"image,caption\n{rows}"
    corpus = Flickr8k(write_kaggle(tmp_path, pictures("p1.jpg", "p2.jpg"), text))
    assert captions_by_image(corpus) == {
        "p1.jpg": ("A dog , wet , runs .",),
        "p2.jpg": ('A sign says "stop" , in red .',),
    }


# Images of every mode.


def _half_transparent_palette() -> bytes:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 255, 200, 0, 0])
    image.paste(0, (0, 0, 8, 16))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 255]))
    return buffer.getvalue()


MODES = {
    "l.png": picture(100, mode="L", format="PNG"),
    "la.png": picture((0, 0), mode="LA", format="PNG"),
    "p.png": _half_transparent_palette(),
    "rgba.png": picture((0, 0, 255, 0), mode="RGBA", format="PNG"),
    "cmyk.jpg": picture((0, 255, 255, 0), mode="CMYK"),
    "1.png": picture(1, mode="1", format="PNG"),
}


def test_every_mode_becomes_rgb_over_white_without_a_warning(tmp_path):
    text = "".join(f"{name}#0\tCaption of {name} .\n" for name in MODES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = Flickr8k(write_official(tmp_path, MODES, text))
        images = {sample.id: corpus.load_image(sample) for sample in corpus.samples}
    assert {(image.mode, image.size) for image in images.values()} == {("RGB", (16, 16))}
    assert images["l.png"].getpixel((0, 0)) == (100, 100, 100)
    assert images["la.png"].getpixel((0, 0)) == (255, 255, 255)
    assert images["p.png"].getpixel((0, 0)) == (255, 255, 255)
    assert images["p.png"].getpixel((15, 0)) == (200, 0, 0)
    assert images["rgba.png"].getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = images["cmyk.jpg"].getpixel((8, 8))
    assert red > 200
    assert max(green, blue) < 60
    assert images["1.png"].getpixel((0, 0)) == (255, 255, 255)


# Damaged, hidden and upper-case files.


def test_damaged_files_are_named_and_skipping_them_keeps_pairs_aligned(tmp_path):
    images = {
        "p1.jpg": noisy_picture(1),
        "p2.jpg": noisy_picture(2)[:200],
        "p3.jpg": b"",
        "P4.JPG": noisy_picture(4),
        "._p1.jpg": b"junk",
        ".DS_Store": b"junk",
    }
    text = tokens(p1="One .", p2="Two .", p3="Three .") + "P4.JPG#0\tFour .\n"
    write_official(tmp_path, images, text)
    with pytest.raises(IntegrityError, match="2 unreadable images") as caught:
        Flickr8k(tmp_path)
    assert caught.value.report.named("unreadable image") == ("p2.jpg", "p3.jpg")
    details = {problem.where: problem.detail for problem in caught.value.report.problems}
    assert details["p3.jpg"] == "the file is empty"
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert captions_by_image(corpus) == {"P4.JPG": ("Four .",), "p1.jpg": ("One .",)}
    report = corpus.report
    assert (report.images_kept, report.images_dropped) == (2, 2)
    assert (report.captions_kept, report.captions_dropped) == (2, 2)
    # No problem names a hidden file.
    assert len({problem.where for problem in report.problems}) == 2
    for sample in corpus.samples:
        expected = Image.open(tmp_path / "Flicker8k_Dataset" / sample.id)
        assert np.array_equal(corpus.load_image(sample), expected)


def test_a_lower_case_name_finds_a_file_with_an_upper_case_extension(tmp_path):
    images = {"P4.JPG": picture("red")}
    corpus = Flickr8k(write_official(tmp_path, images, tokens(p4="Four .")))
    assert captions_by_image(corpus) == {"p4.jpg": ("Four .",)}
    assert corpus.load_image(corpus.samples[0]).size == (16, 16)


@pytest.mark.skipif(os.path.normcase("A") == "a", reason="this system's file names have no case")
def test_names_that_differ_only_in_case_are_not_guessed(tmp_path):
    images = pictures("P4.JPG", "p4.JPG", "p5.jpg")
    write_official(tmp_path, images, tokens(p4="Four .", p5="Five ."))
    report = Flickr8k(tmp_path, on_bad_sample="skip").report
    assert report.named("missing image") == ("p4.jpg",)
    assert "ambiguous: P4.JPG, p4.JPG" in report.problems[0].detail


def test_a_file_belongs_to_one_name_only(tmp_path):
    text = tokens(p4="Lower .") + "P4.JPG#0\tUpper .\n"
    write_official(tmp_path, {"P4.JPG": picture("red")}, text)
    corpus = Flickr8k(tmp_path, on_bad_sample="skip")
    assert captions_by_image(corpus) == {"P4.JPG": ("Upper .",)}


def test_two_images_may_have_the_same_caption(tmp_path):
    write_official(tmp_path, pictures("p1.jpg", "p2.jpg"), tokens(p1="A dog .", p2="A dog ."))
    corpus = Flickr8k(tmp_path)
    assert captions_by_image(corpus) == {"p1.jpg": ("A dog .",), "p2.jpg": ("A dog .",)}
    assert corpus.report.problems == ()
