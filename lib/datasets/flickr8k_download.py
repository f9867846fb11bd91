"""Where Flickr8k can be downloaded from, and how a download becomes a corpus on disk."""

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
    """What the official distribution consists of.

    The archives' SHA-256 were never published. They are recorded at the first download, and a
    later one must agree; each archive's own CRCs and the counts are verified every time.
    """

    archives: tuple[str, ...] = ("Flickr8k_text.zip", "Flickr8k_Dataset.zip")
    images: tuple[int, int] = (8091, 8092)
    caption_lines: tuple[int, int] = (40455, 40460)


def download_flickr8k(
    folder: Path, mirror: str = MIRROR, distribution: Distribution | None = None
) -> Path:
    """Fetch, verify and unpack the corpus into a new folder.

    Beside it, ``flickr8k.lock.json`` records what arrived. Of two processes one waits for the
    other.

    Args:
        folder: Where the corpus is to be; it appears when it is complete.
        mirror: Address of the folder that holds the archives.
        distribution: What to expect there.

    Raises:
        DownloadError: The download failed, or what came isn't Flickr8k.
    """
    expected = distribution or Distribution()
    downloads = folder.parent / f"{folder.name}.downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    lock = folder.parent / f"{folder.name}.lock.json"
    with FileLock(downloads / "in-use"):
        if folder.is_dir():
            # A start may have been killed between its last two steps.
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
    """Return where it is noted that an archive is here whole."""
    return archive.with_suffix(".arrived.json")


def _obtain(url: str, archive: Path, lock: Path) -> Fetched:
    """Fetch an archive; it must be what an earlier download from there was."""
    known = read_lock(lock).get(url)
    # An archive that is here from a start that was interrupted later on is fetched no second time.
    kept = _arrival(archive)
    if archive.exists() and read_lock(kept).get(url):
        return Fetched(url, archive.stat().st_size, read_lock(kept)[url], "")
    # What it says of an earlier file must not be believed of this one.
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
    found = (("images", images, expected.images), ("caption lines", lines, expected.caption_lines))
    for what, count, (low, high) in found:
        if not low <= count <= high:
            raise DownloadError(
                f"the download holds {count} {what}, Flickr8k has {low} to {high}; it is kept out. "
                "Name another mirror."
            )
