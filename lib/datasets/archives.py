"""Unpacking of untrusted archives.

pooch's ``Unzip`` has no limits, and renames hostile entries instead of refusing them.
"""

import errno
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from lib.datasets.report import DownloadError
from lib.utils.files import atomic_folder

CHUNK = 1 << 20
NAME_BYTES = 255
"""Longest name of a file or folder that all usual file systems accept."""


@dataclass(frozen=True)
class Limits:
    """The limits of an archive's content, so that a small file cannot fill a disk.

    Attributes:
        entries: Number of files and folders.
        total_bytes: Unpacked length of all files together.
        ratio: Unpacked to packed length of a file of more than 1 MiB.
    """

    entries: int = 50_000
    total_bytes: int = 4 << 30
    ratio: float = 100.0


def extract(archive: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack a zip archive into a new folder, whole or not at all.

    Names that lead outside the folder, links and devices, encrypted entries, two entries of one
    name and content beyond ``limits`` are refused before a byte is written. Each entry's CRC is
    verified. Hidden files and ``__MACOSX`` are left out.

    Raises:
        DownloadError: The archive is damaged or refused; ``target`` is not created.
    """
    limits = limits or Limits()
    try:
        with atomic_folder(target) as staging, zipfile.ZipFile(archive) as opened:
            entries = _checked_entries(opened, archive.name, limits)
            for name, entry in entries.items():
                path = staging / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, path.open("xb") as sink:
                    _copy(source, sink, entry)
    except DownloadError:
        raise
    except Exception as error:
        # zipfile, zlib and struct raise errors of many kinds for damaged bytes, among them EINVAL
        # for an offset before the file's start. Other OSErrors are no damage: a full disk, say.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise DownloadError(f"{archive.name} is damaged: {error}") from error


def _checked_entries(
    archive: zipfile.ZipFile, title: str, limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive by path, or refuse the whole archive."""
    infos = archive.infolist()
    if len(infos) > limits.entries:
        raise DownloadError(f"{title} is refused: {len(infos)} entries, {limits.entries} allowed")
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes:
        raise DownloadError(
            f"{title} is refused: {total:,} bytes unpacked, {limits.total_bytes:,} allowed"
        )
    files: dict[str, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in infos:
        if fault := _fault(info, limits):
            raise DownloadError(f"{title} is refused: entry {info.filename[:100]!r} {fault}")
        parts = PurePosixPath(info.filename).parts
        if info.is_dir() or parts[0] == "__MACOSX" or parts[-1].startswith("."):
            continue
        name = "/".join(parts)
        if name.casefold() in folded:
            raise DownloadError(f"{title} is refused: entry {name[:100]!r} occurs twice")
        folded.add(name.casefold())
        files[name] = info
    return files


def _fault(info: zipfile.ZipInfo, limits: Limits) -> str:
    name = info.filename
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0"):
        return "leads outside the folder"
    if any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES for part in path.parts):
        return f"has a name of more than {NAME_BYTES} bytes"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.file_size > (1 << 20) and info.file_size > limits.ratio * max(info.compress_size, 1):
        return f"unpacks to more than {limits.ratio:g} times its length"
    return ""


def _copy(source: IO[bytes], sink: IO[bytes], entry: zipfile.ZipInfo) -> None:
    written = 0
    while chunk := source.read(CHUNK):
        written += len(chunk)
        if written > entry.file_size:
            raise DownloadError(f"entry {entry.filename!r} is longer than its declared length")
        sink.write(chunk)
