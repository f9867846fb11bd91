"""The result of an integrity check, as a value and as text."""

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
"""The kinds of problems. The caption of a ``repaired line`` could still be read."""
NAMES_SHOWN = 10
"""How many problems an error lists; the report has all of them."""


class CorpusError(ValueError):
    """A corpus, an option of a corpus, or a sample cannot be used; the text says what to do.

    It is a :class:`ValueError`. Quotes from files, such as names, are escaped for terminals.

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
    """A problem of a corpus.

    Args:
        kind: The kind of problem.
        where: An image's name, or a file's name and line such as ``"captions.txt:12"``.
        detail: What exactly is wrong.
        fatal: Whether the problem stops strict loading. A bad image in no split cannot change a
            result: it is reported and left out.
        captions: The number of captions concerned.

    >>> print(Problem("missing image", "p2.jpg", "there is no such file", captions=5))
    missing image: p2.jpg: there is no such file (5 captions)
    """

    kind: Kind
    where: str
    detail: str
    fatal: bool = True
    captions: int = 0

    def __str__(self) -> str:
        count = f" ({self.captions} captions)" if self.captions > 1 else ""
        line = f"{self.kind}: {self.where}: {self.detail}{count}"
        return printable(line).replace("\n", "\\n")


@dataclass(frozen=True)
class IntegrityReport:
    """The result of a corpus's integrity check.

    Args:
        images_kept: Number of images that are samples.
        captions_kept: Number of their captions.
        images_dropped: Number of other images in the captions or split files.
        captions_dropped: Number of other caption lines.
        problems: All problems, fatal ones first.
        notes: Remarks, such as where the splits come from.

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
        """The problems that stop strict loading."""
        return tuple(problem for problem in self.problems if problem.fatal)

    def named(self, kind: Kind) -> tuple[str, ...]:
        """Return the places of the problems of one kind.

        Args:
            kind: Such as ``"missing image"``.

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
    """Strict loading stopped; ``report`` has what ``on_bad_sample="skip"`` would keep and drop.

    Args:
        message: The counts of problems and the first of them.
        report: All problems.

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
    ordered = sorted(problems)
    counts = Counter(problem.kind for problem in ordered)
    lines = [", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items())]
    lines += [f"  {problem}" for problem in ordered[:NAMES_SHOWN]]
    if len(ordered) > NAMES_SHOWN:
        lines.append(f"  and {len(ordered) - NAMES_SHOWN} more")
    return "\n".join(lines)


def _plural(kind: Kind, count: int) -> str:
    if count == 1:
        return kind
    return "images without caption" if kind == "image without caption" else f"{kind}s"
