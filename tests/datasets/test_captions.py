"""The readers of caption files."""

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.datasets import CorpusError, read_captions

# Any character of UTF-8 but line ends; '#', quotes and separators are drawn more often.
text = st.text(
    st.one_of(
        st.sampled_from("#,|\t\"' .\u2028\x0b\xa0é😀"),
        st.characters(codec="utf-8", exclude_characters="\n\r"),
    ),
    max_size=30,
)
HOSTILE = [
    "</script><script>alert(1)</script>", "{eval}`1`", "```{include} /etc/passwd",
    "\x1b[31mred\x1b[0m", "\u202eevil\u202c", "nan", "NaN", "null", "a , b ; c | d", '"', "''",
    "=cmd|' /C calc'!A0", "p9.jpg#0", "image,caption", "\ufeffbom", "a\u2028b", "\x85",
]  # fmt: skip
captions = (text | st.sampled_from(HOSTILE)).filter(str.strip)
names = st.text(
    st.one_of(st.sampled_from("#. -_é"), st.characters(codec="utf-8", categories=["L", "N"])),
    min_size=1,
    max_size=12,
).map(lambda stem: f"x{stem}.jpg")
line_ends = st.sampled_from(["\n", "\r\n", "\r"])
marks = st.sampled_from([b"", b"\xef\xbb\xbf"])


def read(data: bytes | str, name="captions.txt"):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return read_captions(path)


def pairs(captions):
    return [(caption.image, caption.text) for caption in captions]


@given(st.lists(st.tuples(names, captions), min_size=1, max_size=6), line_ends, marks)
def test_token_files_give_back_what_was_written(rows, end, mark):
    written = "".join(f"{name}#{k}\t{text}{end}" for k, (name, text) in enumerate(rows))
    result = read(mark + written.encode())
    assert pairs(result.captions) == [(name, text.strip()) for name, text in rows]
    assert [caption.line for caption in result.captions] == list(range(1, len(rows) + 1))
    assert result.problems == ()


@given(
    st.lists(st.tuples(names, captions.filter(lambda t: "\0" not in t)), max_size=6),
    line_ends,
    marks,
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_comma_files_give_back_what_the_csv_module_writes(rows, end, mark, quoting):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator=end, quoting=quoting)
    writer.writerows([("image", "caption"), *rows])
    result = read(mark + buffer.getvalue().encode())
    assert pairs(result.captions) == [(name, text.strip()) for name, text in rows]
    assert result.problems == ()


@given(st.lists(st.tuples(names, captions), max_size=6), line_ends, marks)
def test_pipe_files_give_back_what_was_written(rows, end, mark):
    written = f"image_name| comment_number| comment{end}"
    written += "".join(f"{name}| {k}| {text}{end}" for k, (name, text) in enumerate(rows))
    result = read(mark + written.encode(), "results.csv")
    assert pairs(result.captions) == [(name, text.strip()) for name, text in rows]
    assert result.problems == ()


@given(
    st.sampled_from(["p1.jpg#0\tA kite .", "image,caption", "image_name| comment_number| comment"]),
    st.lists(st.one_of(text, st.binary(max_size=20)), max_size=8),
)
def test_every_line_is_read_or_reported_and_none_stops_the_reader(first, rows):
    raw = [row.encode() if isinstance(row, str) else row.translate(None, b"\r\n") for row in rows]
    result = read(b"\n".join([first.encode(), *raw]))
    told = {int(problem.where.rpartition(":")[2]) for problem in result.problems}
    lines = {caption.line for caption in result.captions} | told
    for number, row in enumerate(raw, start=2):
        # A quoted caption may span the lines that follow; its text then has them.
        held = any(row.decode(errors="replace").strip() in c.text for c in result.captions)
        assert number in lines or not row.decode(errors="replace").strip() or held
    assert all(caption.image and caption.text for caption in result.captions)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p1.jpg#1 A kite .", "no tab"),
        ("p1.jpg\tA kite .", "does not end in '#'"),
        ("p1.jpg#x\tA kite .", "does not end in '#'"),
        ("p1.jpg#-1\tA kite .", "does not end in '#'"),
        ("p1.jpg#²\tA kite .", "does not end in '#'"),
        ("#1\tA kite .", "name is empty"),
        ("p1.jpg#1\t", "caption of p1.jpg is empty"),
        ("p1.jpg#1\t \t ", "caption of p1.jpg is empty"),
        ("p1.jpg#0\tA second .", "caption 0 of p1.jpg is already on line 1"),
    ],
)
def test_malformed_token_lines_are_reported_with_file_and_line(line, reason):
    result = read(f"p1.jpg#0\tA first .\n\n{line}\np2.jpg#0\tA last .\n", "Flickr8k.token.txt")
    assert pairs(result.captions) == [("p1.jpg", "A first ."), ("p2.jpg", "A last .")]
    (problem,) = result.problems
    assert (problem.kind, problem.where) == ("malformed line", "Flickr8k.token.txt:3")
    assert reason in problem.detail


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("p1.jpg", "no comma"),
        ('p1.jpg,"never closed', "quotes do not match"),
        ('p1.jpg,"closed" too early', "quotes do not match"),
        ('p1.jpg,"two","fields"', "text after the closing quote"),
        ('"p1.jpg","a","b"', "3 fields"),
        ("p1.jpg,", "caption of p1.jpg is empty"),
        ('p1.jpg,""', "caption of p1.jpg is empty"),
        (",A kite .", "name is empty"),
    ],
)
def test_a_malformed_comma_line_leaves_the_other_lines_whole(line, reason):
    result = read(f'image,caption\n{line}\np2.jpg,"Whole , still ."\np3.jpg,Last .\n')
    assert pairs(result.captions) == [("p2.jpg", "Whole , still ."), ("p3.jpg", "Last .")]
    (problem,) = result.problems
    assert (problem.kind, problem.where) == ("malformed line", "captions.txt:2")
    assert reason in problem.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A name ends at the last number sign of its field; a caption may contain number signs.
        ("a#b.jpg#0\tNumber #1 of a\ttab .\n", [("a#b.jpg", "Number #1 of a\ttab .")]),
        ('image,caption\np.jpg,"A kite ,\nred ."\nq.jpg,6" nails .\nr.jpg,Last .\n',
         [("p.jpg", "A kite ,\nred ."), ("q.jpg", '6" nails .'), ("r.jpg", "Last .")]),
        ("image,caption\np.jpg,nan\n", [("p.jpg", "nan")]),
        ('"Image" , "Caption"\np.jpg,A kite .\n', [("p.jpg", "A kite .")]),
        ("image_name | comment_number |comment\np.jpg|0|A | bar .\n", [("p.jpg", "A | bar .")]),
    ],
)  # fmt: skip
def test_names_and_captions_are_kept_as_written(text, expected):
    result = read(text)
    assert pairs(result.captions) == expected
    assert result.problems == ()


def test_a_line_that_is_not_utf8_is_reported_and_the_others_are_read():
    result = read(b"p1.jpg#0\tA caf\xe9 .\np1.jpg#1\tA kite .\n")
    assert pairs(result.captions) == [("p1.jpg", "A kite .")]
    assert result.problems[0].where == "captions.txt:1"
    assert "byte 15 is not UTF-8" in result.problems[0].detail


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no line of text"),
        (b" \r\n\n", "no line of text"),
        ("p1.jpg#0\tA kite .".encode("utf-16"), "UTF-16"),
        (b"<html>Not Found</html>", "not a known caption file"),
        (b"p1.jpg A kite .", "not a known caption file"),
    ],
)
def test_a_file_without_captions_or_of_another_format_is_refused(data, reason):
    with pytest.raises(CorpusError, match=reason):
        read(data)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere\.txt cannot be read"):
        read_captions(tmp_path / "nowhere.txt")
