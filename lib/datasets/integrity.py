"""The integrity check of every image and caption line, before any work starts.

Rules, for any corpus that is a folder of images with a caption file:

- An image is found by its exact name; else by a name that differs only in case or Unicode form, if
  exactly one unclaimed file fits. There is no other guess: ``p2.jpg.1`` is never ``p2.jpg``.
- A missing or unreadable image, or one without a caption, is fatal if it belongs to a split. If it
  belongs to none, it cannot change a result: it is reported and left out.
- Two copies of one photograph (the same bytes) in one split are reported and kept. Across splits
  they are fatal, since they leak test images into training. So is an image in two split files.
- A malformed caption line is always fatal, since the image of the lost caption is unknown.

Skipping drops fatal samples. If copies are in several splits, the one in test is kept, else the one
in val.
"""

import hashlib
import json
import os
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
"""An image in two splits is kept in the first of them here, so that the test split stays whole."""
IMAGE_SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
CACHE_VERSION = 1


@dataclass(frozen=True)
class Checked:
    """The samples that passed the check, and each sample's file and SHA-256 by id."""

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
        name: The corpus's name, for messages.
        folder: The images; subfolders are ignored.
        captions: The content of the caption file.
        split_lists: Per split file the split, the file's name and the images in it. If empty,
            :func:`hashed_split` puts every image into a split.
        on_bad_sample: ``"error"`` stops at fatal problems, ``"skip"`` drops their samples.
        notes: Remarks for the report.

    Raises:
        IntegrityError: There is a fatal problem and ``on_bad_sample`` is ``"error"``.
        CorpusError: No usable sample is left, or ``on_bad_sample`` is unknown.
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
    """Return what makes an image unusable: a fault of its file, or a missing caption."""
    faults = []
    if missing is not None:
        faults.append(Problem("missing image", image, missing, fatal, captions))
    elif unreadable:
        faults.append(Problem("unreadable image", image, unreadable, fatal, captions))
    if not captions:
        faults.append(Problem("image without caption", image, "no caption line names it", fatal))
    return faults


def _refuse_unusable(corpus: str, report: IntegrityReport, on_bad_sample: str) -> None:
    if report.fatal and on_bad_sample == "error":
        raise IntegrityError(
            f"{corpus} cannot be used as it is: {list_problems(report.fatal)}\n"
            "Repair the files, or drop the bad samples with on_bad_sample='skip' "
            f"(it would keep {report.images_kept} images and {report.captions_kept} captions).",
            report,
        )
    if not report.images_kept:
        raise IntegrityError(
            f"{corpus}: no image with a caption is left. "
            f"{list_problems(report.problems)}\nCheck that the captions belong to these images.",
            report,
        )


def match_files(
    files: Mapping[str, Path], names: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the file of each image by name, and for images without a file the reason by name.

    No file gets two names.

    Args:
        files: The existing files by name.
        names: The images.

    >>> matched, missing = match_files({"P4.JPG": Path("P4.JPG")}, ["p4.jpg", "p4.jpg.1"])
    >>> matched["p4.jpg"].name, missing
    ('P4.JPG', {'p4.jpg.1': 'there is no such file'})
    """
    matched = {name: files[name] for name in names if name in files}
    loose: dict[str, list[str]] = defaultdict(list)
    for file in files.keys() - matched.keys():
        loose[_fold(file)].append(file)
    claims: dict[str, list[str]] = defaultdict(list)
    missing: dict[str, str] = {}
    for name in names:
        if name not in matched:
            claims[_fold(name)].append(name)
    for folded, claimants in claims.items():
        fitting = sorted(loose.get(folded, []))
        if len(fitting) == len(claimants) == 1:
            matched[claimants[0]] = files[fitting[0]]
            continue
        reason = "there is no such file"
        if fitting:
            others = sorted(set(fitting + claimants))
            reason += f", and names that differ in case are ambiguous: {', '.join(others)}"
        missing |= dict.fromkeys(claimants, reason)
    return matched, missing


def inspect_images(folder: Path, paths: Sequence[Path]) -> dict[Path, Inspection]:
    """Decode images on all cores, or return the inspections from the cache.

    The cache's key has the folder and every file's name, size and times, so after a change of one
    file all files are inspected again.
    """
    cache = home() / "integrity" / f"{_cache_key(folder, paths)}.json"
    inspections = _read_cache(cache, len(paths))
    if inspections is None:
        workers = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
        # Pillow gives thousands of warnings of damaged metadata; the inspections have the faults.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results = workers.map(inspect_image, paths)
                inspections = list(track(results, "checking images", total=len(paths)))
            finally:
                workers.shutdown(cancel_futures=True)
        # A folder that cannot be written costs the check again, and nothing else.
        with suppress(OSError):
            write_atomic(cache, json.dumps([asdict(one) for one in inspections]))
    return dict(zip(paths, inspections, strict=True))


def hashed_split(name: str) -> Split:
    """Return the split of an image by a hash of its name: train, val, test as 6 : 1 : 1.

    The split depends only on ``name``: other images do not change it.

    >>> hashed_split("p1.jpg")
    'train'
    """
    eighth = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[0] % 8
    return "test" if eighth == 7 else "val" if eighth == 6 else "train"


def _hashed_splits(names: Iterable[str], digests: Mapping[str, str]) -> dict[str, Split]:
    """Split by hash; copies of a photograph go into the split of the first, so that none leaks."""
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
    """Report copies of a photograph; add those outside the strongest split to ``dropped``."""
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
    """Return the files of a folder by name, without hidden ones such as ``._x.jpg`` from a Mac."""
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
    lines = [f"{CACHE_VERSION} {DECODING_VERSION} {PIL.__version__} {folder.resolve()}"]
    for path in paths:
        facts = path.stat()
        lines.append(f"{path.name}/{facts.st_size}/{facts.st_mtime_ns}/{facts.st_ctime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read_cache(path: Path, count: int) -> list[Inspection] | None:
    try:
        inspections = [Inspection(**entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    return inspections if len(inspections) == count else None
