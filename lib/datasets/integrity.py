"""The integrity check: every image and caption line is looked at before any work starts.

Rules, for any corpus that is a folder of images with a caption file:

- An image is found by its exact name, else by a name that differs in case (or in Unicode form)
  alone, if exactly one unclaimed file fits. Nothing else is guessed: ``p2.jpg.1`` is never
  ``p2.jpg``.
- An image that is missing, unreadable or without a caption is fatal where it belongs to a split. In
  no split it can change no result: it is reported and left out.
- Two copies of one photograph (the same bytes) in one split are reported and kept. Across splits
  they leak what is tested into training: fatal. So is an image that two split files name.
- A malformed caption line is always fatal, since whose caption is lost isn't known.

Skipping drops what is fatal; of copies across splits the one in test stays, else in val.
"""

import hashlib
import json
import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import PIL

from lib.datasets.captions import CaptionFile
from lib.datasets.corpus import Sample, Split
from lib.datasets.images import DECODING_VERSION, Inspection, inspect_image
from lib.datasets.report import CorpusError, IntegrityError, IntegrityReport, Problem, list_problems
from lib.utils.files import home, write_atomic
from lib.utils.progress import track

PRECEDENCE: tuple[Split, ...] = ("test", "val", "train", "none")
"""Which split keeps an image that stands in two: never weaken what is tested."""
IMAGE_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
CACHE_VERSION = 1


@dataclass(frozen=True)
class Checked:
    """What passed the check: the samples, and the file and its SHA-256 for each of their ids."""

    samples: tuple[Sample, ...]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    report: IntegrityReport


def check_corpus(
    name: str,
    folder: Path,
    captions: CaptionFile,
    split_lists: Sequence[tuple[Split, str, Sequence[str]]],
    *,
    on_bad_sample: str,
    notes: Sequence[str] = (),
) -> Checked:
    """Check a folder of images against its captions and splits.

    Args:
        name: The corpus's, for messages.
        folder: Where the images are; its subfolders are not looked into.
        captions: What the caption file says.
        split_lists: Of each split file the split, the file's name, and the images it lists. Where
            there are none, every image is put into a split by :func:`hashed_split`.
        on_bad_sample: ``"error"`` stops at fatal problems, ``"skip"`` drops what has them.
        notes: Remarks for the report.

    Raises:
        IntegrityError: Something fatal was found and ``on_bad_sample`` is ``"error"``.
        CorpusError: Nothing usable is left, or ``on_bad_sample`` is neither.
    """
    if on_bad_sample not in ("error", "skip"):
        raise CorpusError(f"on_bad_sample = {on_bad_sample!r}; use 'error' or 'skip'")
    texts: dict[str, list[str]] = defaultdict(list)
    for caption in captions.captions:
        texts[caption.image].append(caption.text)
    problems = list(captions.problems)
    splits, conflicts = _splits(split_lists)
    problems += conflicts
    wanted = sorted(texts.keys() | splits.keys())
    present = _visible_files(folder)
    files, missing = match_files(present, wanted)
    inspections = inspect_images(folder, sorted(set(files.values())))
    digests = {image: inspections[path].sha256 for image, path in files.items()}
    if not split_lists:
        splits = _hashed_splits(wanted, digests)

    dropped: set[str] = set()
    for image in wanted:
        unreadable = inspections[files[image]].fault if image in files else ""
        fatal = splits.get(image, "none") != "none"
        faults = _faults(image, len(texts[image]), missing.get(image), unreadable, fatal)
        if faults:
            problems += faults
            dropped.add(image)
    kept = [image for image in wanted if image not in dropped]
    problems += _duplicates(kept, digests, splits, dropped)
    problems += _strays(present, set(files.values()))

    samples = tuple(
        Sample(id=image, captions=tuple(texts[image]), split=splits.get(image, "none"))
        for image in kept
        if image not in dropped
    )
    captions_kept = sum(len(sample.captions) for sample in samples)
    malformed = sum(problem.kind == "malformed line" for problem in problems)
    report = IntegrityReport(
        images_kept=len(samples),
        captions_kept=captions_kept,
        images_dropped=len(dropped),
        captions_dropped=len(captions.captions) - captions_kept + malformed,
        problems=tuple(sorted(problems, key=lambda problem: (not problem.fatal, problem))),
        notes=tuple(notes),
    )
    _refuse_unusable(f"{name} in {folder.parent}", report, on_bad_sample)
    return Checked(
        samples,
        {sample.id: files[sample.id] for sample in samples},
        {sample.id: digests[sample.id] for sample in samples},
        report,
    )


def _faults(
    image: str, captions: int, missing: str | None, unreadable: str, fatal: bool
) -> list[Problem]:
    """Return what makes an image unusable: its file, or that it has no caption."""
    faults = []
    if missing is not None:
        faults.append(Problem("missing image", image, missing, fatal, captions))
    elif unreadable:
        faults.append(Problem("unreadable image", image, unreadable, fatal, captions))
    if not captions:
        faults.append(Problem("image without caption", image, "no caption line names it", fatal))
    return faults


def _refuse_unusable(place: str, report: IntegrityReport, on_bad_sample: str) -> None:
    if report.fatal and on_bad_sample == "error":
        raise IntegrityError(
            f"{place} cannot be used as it is: {list_problems(report.fatal)}\n"
            "Repair the files, or go on without what is bad by on_bad_sample='skip' "
            f"(it would keep {report.images_kept} images and {report.captions_kept} captions).",
            report,
        )
    if not report.images_kept:
        raise IntegrityError(
            f"{place}: no image with a caption is left. "
            f"{list_problems(report.problems)}\nCheck that the captions belong to these images.",
            report,
        )


def match_files(
    files: Mapping[str, Path], names: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the files of images, and say of those without a file why.

    Args:
        files: The files that are there, by name.
        names: The images looked for.

    Returns:
        Name to file, and name to what is wrong. No file has two names.

    >>> found, missing = match_files({"P4.JPG": Path("P4.JPG")}, ["p4.jpg", "p4.jpg.1"])
    >>> found["p4.jpg"].name, missing
    ('P4.JPG', {'p4.jpg.1': 'there is no such file'})
    """
    found = {name: files[name] for name in names if name in files}
    loose: dict[str, list[str]] = defaultdict(list)
    for file in files.keys() - found.keys():
        loose[_fold(file)].append(file)
    claims: dict[str, list[str]] = defaultdict(list)
    missing: dict[str, str] = {}
    for name in names:
        if name not in found:
            claims[_fold(name)].append(name)
    for folded, claimants in claims.items():
        fitting = sorted(loose.get(folded, []))
        if len(fitting) == len(claimants) == 1:
            found[claimants[0]] = files[fitting[0]]
            continue
        reason = "there is no such file"
        if fitting:
            others = sorted(set(fitting + claimants))
            reason += f", and names that differ in case are ambiguous: {', '.join(others)}"
        missing |= dict.fromkeys(claimants, reason)
    return found, missing


def inspect_images(folder: Path, paths: Sequence[Path]) -> dict[Path, Inspection]:
    """Decode images on all cores; a second time, take the inspections from the cache.

    The cache is keyed by the folder and by every file's name, size and times, so any change to a
    file has all of them looked at again.
    """
    cache = home() / "integrity" / f"{_cache_key(folder, paths)}.json"
    inspections = _read_cache(cache, len(paths))
    if inspections is None:
        workers = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        # Damaged metadata make Pillow warn, by the thousand; what matters is in the verdict.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results = workers.map(inspect_image, paths)
                inspections = list(track(results, "checking images", total=len(paths)))
            finally:
                workers.shutdown(cancel_futures=True)
        write_atomic(cache, json.dumps([asdict(one) for one in inspections]))
    return dict(zip(paths, inspections, strict=True))


def hashed_split(name: str) -> Split:
    """Put an image into a split by a hash of its name: train, val, test as 6 : 1 : 1.

    It depends on nothing but the name: an image stays where it is when others come or go.

    >>> hashed_split("p1.jpg")
    'train'
    """
    eighth = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[0] % 8
    return "test" if eighth == 7 else "val" if eighth == 6 else "train"


def _hashed_splits(names: Iterable[str], digests: Mapping[str, str]) -> dict[str, Split]:
    """Split by hash, with copies of one photograph where the first of them is: no leakage."""
    first: dict[str, str] = {}
    return {name: hashed_split(first.setdefault(digests.get(name) or name, name)) for name in names}


def _splits(
    lists: Sequence[tuple[Split, str, Sequence[str]]],
) -> tuple[dict[str, Split], list[Problem]]:
    splits: dict[str, Split] = {}
    problems = []
    for split, _, names in sorted(lists, key=lambda entry: PRECEDENCE.index(entry[0])):
        for name in names:
            other = splits.setdefault(name, split)
            if other != split:
                detail = f"is listed in both {other} and {split}"
                problems.append(Problem("split conflict", name, detail))
    return splits, sorted(set(problems))


def _duplicates(
    names: Sequence[str], digests: Mapping[str, str], splits: Mapping[str, Split], dropped: set[str]
) -> list[Problem]:
    """Report copies of a photograph, and drop those in another split than the strongest."""
    copies: dict[str, list[str]] = defaultdict(list)
    for name in names:
        copies[digests[name]].append(name)
    problems = []
    for group in copies.values():
        by_split = {name: splits.get(name, "none") for name in group}
        strongest = min(by_split.values(), key=PRECEDENCE.index)
        leaking = {n for n, split in by_split.items() if split not in (strongest, "none")}
        for name in group[1:]:
            same = ", ".join(f"{n} ({by_split[n]})" for n in group if n != name)
            detail = f"in {by_split[name]}, has the same bytes as {same}"
            problems.append(Problem("duplicate image", name, detail, bool(leaking)))
        dropped |= leaking
    return problems


def _strays(present: Mapping[str, Path], used: set[Path]) -> list[Problem]:
    return [
        Problem("image without caption", name, "no caption line names it", fatal=False)
        for name, path in sorted(present.items())
        if path not in used and path.suffix.lower() in IMAGE_SUFFIXES
    ]


def _visible_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by name, without hidden ones such as ``._x.jpg`` of a Mac."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".") and entry.is_file()
            }
    except OSError as error:
        raise CorpusError(f"{folder} cannot be read: {error.strerror or error}") from error


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _cache_key(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256(
        f"{CACHE_VERSION} {DECODING_VERSION} {PIL.__version__} {folder.resolve()}".encode(
            "utf-8", "surrogatepass"
        )
    )
    for path in paths:
        facts = path.stat()
        stamp = f"\n{path.name}/{facts.st_size}/{facts.st_mtime_ns}/{facts.st_ctime_ns}"
        digest.update(stamp.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _read_cache(path: Path, count: int) -> list[Inspection] | None:
    try:
        inspections = [Inspection(**entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return inspections if len(inspections) == count else None
