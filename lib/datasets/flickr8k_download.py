"""The download of Flickr8k, and its verification."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lib.datasets.archives import extract
from lib.datasets.captions import read_lines
from lib.datasets.download import Fetched, fetch, read_lock, write_lock
from lib.datasets.report import DownloadError
from lib.utils.files import atomic_folder

MIRROR = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"


@dataclass(frozen=True)
class Distribution:
    """The archives of the official distribution and the least and greatest counts of their content.

    The archives' SHA-256 were never published. The first download records them, and later downloads
    must have the same; the CRCs of each archive and the counts are verified every time.
    """

    archives: tuple[str, ...] = ("Flickr8k_text.zip", "Flickr8k_Dataset.zip")
    images: tuple[int, int] = (8091, 8092)
    caption_lines: tuple[int, int] = (40455, 40460)


def download_flickr8k(
    folder: Path, mirror: str = MIRROR, distribution: Distribution | None = None
) -> Path:
    """Download, verify and unpack the corpus into ``folder``, which appears when it is complete.

    ``flickr8k.lock.json`` beside it records the archives. If two processes download, one
    waits for the other.

    Args:
        folder: The corpus's new folder.
        mirror: Address of the folder of the archives.
        distribution: The expected content.

    Raises:
        DownloadError: The download failed, or it is not Flickr8k.
    """
    expected = distribution or Distribution()
    downloads = folder.parent / f"{folder.name}.downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f"{folder.name}.lock.json"
    with FileLock(downloads / "in-use"):
        if folder.is_dir():
            # An earlier process may have been killed before it discarded the archives.
            _discard(downloads, expected.archives)
            return folder
        with atomic_folder(folder) as staging:
            arrived = []
            for name in expected.archives:
                arrived.append(_obtain(f"{mirror.rstrip('/')}/{name}", downloads / name, lock))
                _unpack(downloads / name, staging)
            _check_counts(staging, expected)
            write_lock(lock, arrived)
        _discard(downloads, expected.archives)
    return folder


def _discard(downloads: Path, names: Iterable[str]) -> None:
    for name in names:
        (downloads / name).unlink(missing_ok=True)
        _arrival(downloads / name).unlink(missing_ok=True)


def _arrival(archive: Path) -> Path:
    """Return the path of the record that is written once an archive is complete."""
    return archive.with_suffix(".arrived.json")


def _obtain(url: str, archive: Path, lock: Path) -> Fetched:
    """Download an archive; its SHA-256 must be the one that ``lock`` records, if any."""
    known = read_lock(lock).get(url)
    # The archive may be complete from an earlier process that was interrupted later.
    kept = _arrival(archive)
    if archive.exists() and (digest := read_lock(kept).get(url)):
        return Fetched(url, archive.stat().st_size, digest, "")
    # The record, if there is one, is of another download.
    kept.unlink(missing_ok=True)
    try:
        fetched = fetch(url, archive, sha256=known)
    except DownloadError as error:
        if known is None or "SHA-256" not in str(error):
            raise
        raise DownloadError(
            f"{error} It differs from what this mirror sent before, as {lock} records; remove that "
            "file to accept the new one."
        ) from error
    write_lock(kept, [fetched])
    return fetched


def _unpack(archive: Path, staging: Path) -> None:
    unpacked = staging / f".{archive.stem}"
    try:
        extract(archive, unpacked)
    except DownloadError as error:
        _discard(archive.parent, [archive.name])
        message = f"{error}. It was removed; start again, or name another mirror."
        raise DownloadError(message) from error
    for entry in sorted(unpacked.iterdir()):
        entry.rename(staging / entry.name)
    unpacked.rmdir()


def _check_counts(staging: Path, expected: Distribution) -> None:
    images = len(list(staging.glob("Flick*8k_Dataset/*.jpg")))
    token = next(staging.glob("**/Flickr8k.token.txt"), None)
    lines = len(read_lines(token)[0]) if token else 0
    counts = (("images", images, expected.images), ("caption lines", lines, expected.caption_lines))
    for what, count, (low, high) in counts:
        if not low <= count <= high:
            raise DownloadError(
                f"the download holds {count} {what}, Flickr8k has {low} to {high}; it is not used. "
                "Name another mirror."
            )
