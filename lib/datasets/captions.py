"""Readers of caption files in three formats, recognised by the first line:

======================================== ==================================================
``name.jpg#0<TAB>A dog .``               Flickr8k.token.txt, results_20130124.token
``image,caption`` as header              captions.txt of the Kaggle edition, comma-separated
``image_name| comment_number| comment``  results.csv of Flickr30k, with that header
======================================== ==================================================
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.datasets.report import CorpusError, Problem

CONTINUED_LINES = 20
"""The most lines after the first of a quoted caption; beyond them, the closing quote is missing."""

Line = tuple[int, str]
"""A line's number, from 1, and its text."""


@dataclass(frozen=True)
class Caption:
    """A caption, its image, and its line in the file.

    Args:
        image: The image's name.
        text: The caption as written, without surrounding white space.
        line: Number of its line, from 1.

    >>> Caption("p1.jpg", "A dog .", 1).text
    'A dog .'
    """

    image: str
    text: str
    line: int


@dataclass(frozen=True)
class CaptionFile:
    """The content of a caption file.

    Args:
        captions: The captions, in the order of the file.
        problems: The malformed lines, and the lines that were repaired.

    >>> CaptionFile((Caption("p1.jpg", "A dog .", 1),), ()).captions[0].image
    'p1.jpg'
    """

    captions: tuple[Caption, ...]
    problems: tuple[Problem, ...]


class _Malformed(ValueError):
    """A line does not have the file's format; the text says why."""


@dataclass(frozen=True)
class _Entry:
    """The fields of a line; ``number`` counts an image's captions, if the format has one."""

    image: str
    text: str
    number: int | None = None
    repaired: str = ""


def read_captions(path: Path) -> CaptionFile:
    """Read a caption file in any of the three formats.

    Lines end in LF, CRLF or CR; a byte order mark and blank lines are skipped. Captions are kept as
    written, without surrounding white space; an empty caption is malformed.

    Args:
        path: ``Flickr8k.token.txt``, ``captions.txt`` of the Kaggle edition or ``results.csv`` of
            Flickr30k, recognised by the first line.

    Returns:
        The captions and the malformed lines.

    Raises:
        CorpusError: The file cannot be read, or has none of the formats.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "captions.txt"
    ...     _ = path.write_text("image,caption\\np1.jpg,A dog .\\np2.jpg,\\n")
    ...     read = read_captions(path)
    >>> read.captions[0].text, read.problems[0].detail
    ('A dog .', 'the caption of p2.jpg is empty')
    """
    lines, problems = read_lines(path)
    if not lines:
        raise CorpusError(f"{path} holds no line of text; a caption file is expected there")
    parse, header = _recognise(path, lines[0][1])
    captions: list[Caption] = []
    seen: dict[tuple[str, int | None], int] = {}
    for number, entry in parse(lines[1:] if header else lines):
        where = f"{path.name}:{number}"
        if isinstance(entry, _Malformed):
            problems.append(Problem("malformed line", where, str(entry), captions=1))
            continue
        key = (entry.image, entry.number)
        if entry.number is not None and (first := seen.setdefault(key, number)) != number:
            detail = f"caption {entry.number} of {entry.image} is already on line {first}"
            problems.append(Problem("malformed line", where, detail, captions=1))
            continue
        if entry.repaired:
            problems.append(Problem("repaired line", where, entry.repaired, False, captions=1))
        captions.append(Caption(entry.image, entry.text, number))
    return CaptionFile(tuple(captions), tuple(problems))


def read_lines(path: Path) -> tuple[list[Line], list[Problem]]:
    """Return the non-blank lines of a text file, and one problem per line that is not UTF-8.

    Raises:
        CorpusError: The file cannot be read, or is UTF-16.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CorpusError(f"{path} is UTF-16 text; save it as UTF-8")
    lines: list[Line] = []
    problems: list[Problem] = []
    # Not str.splitlines, which also splits at characters that a caption may contain.
    for number, raw in enumerate(re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf")), 1):
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            detail = f"byte {error.start + 1} is not UTF-8"
            problems.append(Problem("malformed line", f"{path.name}:{number}", detail, captions=1))
            continue
        if text.strip():
            lines.append((number, text))
    return lines, problems


_Parser = Callable[[Sequence[Line]], Iterator[tuple[int, "_Entry | _Malformed"]]]


def _recognise(path: Path, first: str) -> tuple[_Parser, bool]:
    """Return the parser for a file with this first line, and whether the line is a header."""

    def fields(separator: str) -> list[str]:
        return [part.strip().strip('"').strip().lower() for part in first.split(separator)]

    if fields("|") == ["image_name", "comment_number", "comment"]:
        return _each(_pipe_entry), True
    if fields(",") in (["image", "caption"], ["image_name", "caption"]):
        return _comma_entries, True
    key = first.partition("\t")[0]
    if "\t" in first and "#" in key:
        return _each(_token_entry), False
    raise CorpusError(
        f"{path} is not a known caption file: its first line {first[:60]!r} is neither "
        "'name.jpg#0<TAB>caption' nor the header 'image,caption' nor "
        "'image_name| comment_number| comment'"
    )


def _each(parse: Callable[[str], _Entry]) -> _Parser:
    def entries(lines: Sequence[Line]) -> Iterator[tuple[int, _Entry | _Malformed]]:
        for number, text in lines:
            try:
                yield number, parse(text)
            except _Malformed as error:
                yield number, error

    return entries


def _token_entry(text: str) -> _Entry:
    key, tab, caption = text.partition("\t")
    if not tab:
        raise _Malformed("no tab between the image's name and the caption")
    # Split at the last '#', since a name may contain one. 'p2.jpg.1' is not 'p2.jpg'.
    name, mark, number = key.rpartition("#")
    if not mark or not re.fullmatch("[0-9]{1,9}", number.strip()):
        raise _Malformed(f"{key[:60]!r} does not end in '#' and the caption's number")
    return _entry(name, caption, int(number))


def _pipe_entry(text: str) -> _Entry:
    name, bar, rest = text.partition("|")
    if not bar:
        raise _Malformed("no '|' between the image's name and the caption's number")
    number, bar, comment = rest.partition("|")
    if bar and re.fullmatch("[0-9]{1,9}", number.strip()):
        return _entry(name, comment, int(number))
    unseparated = re.match(r"\s*([0-9]{1,9})\s+(?=\S)", rest)
    if not unseparated:
        raise _Malformed("no caption's number between two '|'")
    repaired = "the '|' after the caption's number was missing"
    return _entry(name, rest[unseparated.end() :], int(unseparated[1]), repaired)


def _comma_entries(lines: Sequence[Line]) -> Iterator[tuple[int, _Entry | _Malformed]]:
    position = 0
    while position < len(lines):
        number, text = lines[position]
        taken = 1
        # If a quote is open, the caption continues on the next line, or a quote is missing.
        while _quote_is_open(text) and taken <= CONTINUED_LINES and position + taken < len(lines):
            following = lines[position + taken][1]
            if _BEGINS_RECORD.match(following):
                break
            text += "\n" + following
            taken += 1
        try:
            yield number, _comma_entry(text)
            position += taken
        except _Malformed as error:
            yield number, error
            position += 1


def _quote_is_open(text: str) -> bool:
    quoted = text.startswith('"') or text.partition(",")[2].lstrip().startswith('"')
    return quoted and text.count('"') % 2 == 1


_BEGINS_RECORD = re.compile(r'"?[^",\s]+\.[A-Za-z0-9]{1,5}"?,')


def _comma_entry(text: str) -> _Entry:
    if text.startswith('"'):
        fields = _comma_fields(text)
        if len(fields) != 2:
            raise _Malformed(f"{len(fields)} fields, not an image's name and a caption")
        return _entry(fields[0], fields[1])
    name, comma, caption = text.partition(",")
    if not comma:
        raise _Malformed("no comma between the image's name and the caption")
    if caption.lstrip().startswith('"'):
        fields = _comma_fields(caption.lstrip())
        if len(fields) != 1:
            raise _Malformed("text after the closing quote of the caption")
        caption = fields[0]
    # An unquoted caption may contain commas and quotes.
    return _entry(name, caption)


def _comma_fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise _Malformed(f"quotes do not match ({error})") from error


def _entry(name: str, caption: str, number: int | None = None, repaired: str = "") -> _Entry:
    name, caption = name.strip(), caption.strip()
    if not name:
        raise _Malformed("the image's name is empty")
    if not caption:
        raise _Malformed(f"the caption of {name} is empty")
    return _Entry(name, caption, number, repaired)
