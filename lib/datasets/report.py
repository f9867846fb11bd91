"""What an integrity check found, as a value and as text."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lib.utils.text import printable

Kind = Literal[
    "missing image",
    "unreadable image",
    "duplicate image",
    "image without caption",
    "malformed line",
    "repaired line",
    "split conflict",
]
"""What can be wrong. ``repaired line`` tells of a caption that was understood all the same."""

NAMES_SHOWN = 10
"""How many problems an error names one by one; the report holds all of them."""


class CorpusError(ValueError):
    """A corpus, an option of one, or a sample cannot be used; the text says what to do.

    It is a :class:`ValueError`. What it quotes from files, such as their names, can do nothing in a
    terminal.

    >>> from lib.datasets import CorpusError, load_corpus
    >>> try:
    ...     load_corpus("scenery")
    ... except CorpusError as error:
    ...     print(str(error).split(";")[0])
    corpus 'scenery' is unknown (did you mean 'scenes'?)
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class DownloadError(CorpusError):
    """A download or an archive cannot be used; the text says what to do.

    >>> issubclass(DownloadError, CorpusError)
    True
    """


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong with a corpus.

    Args:
        kind: What it is.
        where: An image's name, or a file's name and line such as ``"captions.txt:12"``.
        detail: What exactly is wrong.
        fatal: Whether strict loading stops at it. What is wrong with an image that is in no split
            can change no result: it is reported and left out, without stopping.
        captions: How many captions it concerns.

    >>> print(Problem("missing image", "p2.jpg", "there is no such file", captions=5))
    missing image: p2.jpg: there is no such file (5 captions)
    """

    kind: Kind
    where: str
    detail: str
    fatal: bool = True
    captions: int = 0

    def __str__(self) -> str:
        told = f" ({self.captions} captions)" if self.captions > 1 else ""
        line = f"{self.kind}: {self.where}: {self.detail}{told}"
        return printable(line).replace("\n", "\\n")


@dataclass(frozen=True)
class IntegrityReport:
    """The verdict on a corpus, made before any work on it.

    Args:
        images_kept: Images that are samples.
        captions_kept: Their captions.
        images_dropped: Images that are named by a caption, a split file or the folder and are no
            samples.
        captions_dropped: All other caption lines.
        problems: All that is wrong, fatal ones first.
        notes: Remarks on what was found or decided, such as where the splits come from.

    >>> print(IntegrityReport(images_kept=8091, captions_kept=40455))
    8091 images and 40455 captions kept, 0 images and 0 captions dropped
    """

    images_kept: int
    captions_kept: int
    images_dropped: int = 0
    captions_dropped: int = 0
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Problem, ...]:
        """The problems at which strict loading stops."""
        return tuple(problem for problem in self.problems if problem.fatal)

    def named(self, kind: Kind) -> tuple[str, ...]:
        """Return where the problems of a kind are.

        Args:
            kind: What is wrong, such as ``"missing image"``.

        Returns:
            Image names, or files with line numbers.
        """
        return tuple(problem.where for problem in self.problems if problem.kind == kind)

    def __str__(self) -> str:
        lines = [
            f"{self.images_kept} images and {self.captions_kept} captions kept, "
            f"{self.images_dropped} images and {self.captions_dropped} captions dropped"
        ]
        lines += [f"note: {note}" for note in self.notes]
        lines += [str(problem) for problem in self.problems]
        return "\n".join(lines)


class IntegrityError(CorpusError):
    """Strict loading stopped; its report says what ``on_bad_sample="skip"`` would keep and drop.

    Args:
        message: The problems, the first of them one by one.
        report: All of them.

    >>> report = IntegrityReport(images_kept=1, captions_kept=5)
    >>> IntegrityError("1 missing image", report).report.images_kept
    1
    """

    def __init__(self, message: str, report: IntegrityReport) -> None:
        super().__init__(message)
        self.report = report


def list_problems(problems: Iterable[Problem]) -> str:
    """Return counts by kind and the first few problems, for an error's text.

    >>> print(list_problems([Problem("missing image", "p2.jpg", "there is no such file")]))
    1 missing image
      missing image: p2.jpg: there is no such file
    """
    found = sorted(problems)
    counts = Counter(problem.kind for problem in found)
    lines = [", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items())]
    lines += [f"  {problem}" for problem in found[:NAMES_SHOWN]]
    if len(found) > NAMES_SHOWN:
        lines.append(f"  and {len(found) - NAMES_SHOWN} more")
    return "\n".join(lines)


def _plural(kind: Kind, count: int) -> str:
    if count == 1:
        return kind
    return "images without caption" if kind == "image without caption" else f"{kind}s"
