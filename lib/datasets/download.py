"""Downloads that can be continued, and a record of the downloaded files.

pooch can neither resume a download nor limit its size.
"""

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from lib.datasets.report import DownloadError
from lib.utils.files import write_atomic
from lib.utils.progress import Progress

ATTEMPTS = 5
"""Number of consecutive connections without new bytes after which a download fails."""
PAUSE_SECONDS = 2.0
"""Wait after a broken connection; it doubles with each consecutive one without new bytes."""
TIMEOUT_SECONDS = (15.0, 60.0)
"""Longest wait for a connection, and for the next bytes."""
CHUNK = 1 << 16
MIB = 1 << 20


@dataclass(frozen=True)
class Fetched:
    """A downloaded file: its address, length in bytes, SHA-256 and ETag."""

    url: str
    size: int
    sha256: str
    etag: str


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE_SECONDS,
    max_bytes: int = 4 << 30,
) -> Fetched:
    """Download a file; after an interruption, download only the rest.

    The bytes received so far are kept beside ``target`` with the server's validator. Range and
    If-Range make sure that parts of two different files are never joined; a server without them
    sends the whole file again. ``target`` appears when the file is complete and has the given
    ``size`` and ``sha256``.

    Raises:
        DownloadError: The server refuses, the attempts are used up, or the content is not the
            expected one.
    """
    if not re.match(r"https?://", url):
        raise DownloadError(f"{url!r} is not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    part, state = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.json")
    failures = furthest = 0
    while True:
        try:
            etag = _fetch_rest(url, part, state, max_bytes)
            break
        except requests.RequestException as error:
            arrived = part.stat().st_size if part.exists() else 0
            failures = 0 if arrived > furthest else failures + 1
            furthest = max(furthest, arrived)
            if failures >= attempts:
                reason = " ".join(str(error).split())[:300]
                raise DownloadError(
                    f"{url} could not be downloaded: {attempts} attempts received nothing new "
                    f"({reason}). {arrived:,} bytes are kept and the next start goes on from "
                    "there; or name another mirror."
                ) from error
            time.sleep(pause * 2**failures)
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    fetched = Fetched(url, part.stat().st_size, digest, etag)
    wrong = [
        f"{name} {got}, expected {expected}"
        for name, got, expected in (("size", fetched.size, size), ("SHA-256", digest, sha256))
        if expected is not None and got != expected
    ]
    state.unlink(missing_ok=True)
    if wrong:
        part.unlink()
        raise DownloadError(
            f"{url} is not the expected file: {'; '.join(wrong)}. It was removed; start again, or "
            "name another mirror."
        )
    part.replace(target)
    return fetched


def _fetch_rest(url: str, part: Path, state: Path, max_bytes: int) -> str:
    """Download the missing bytes of a file; return its ETag.

    Raises:
        requests.RequestException: The connection failed; another attempt may succeed.
        DownloadError: No further attempt will help.
    """
    validator = _validator(state, url)
    have = part.stat().st_size if part.exists() and validator else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416:
            # The part is at least as long as the file: download the whole file again.
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server has no such range; starting anew")
        if 400 <= response.status_code < 500 and response.status_code not in (408, 425, 429):
            raise DownloadError(
                f"{url}: the server answers {response.status_code} {response.reason}. Check the "
                "address, or name another mirror."
            )
        response.raise_for_status()
        start, total = _content_range(response)
        if start != have and response.status_code == 206:
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"asked for bytes from {have}, got them from {start}")
        if total is not None and total > max_bytes:
            raise DownloadError(f"{url} has {total:,} bytes, more than the {max_bytes:,} allowed")
        etag = response.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else ""
        new = strong or response.headers.get("Last-Modified", "")
        if response.status_code != 206:
            part.unlink(missing_ok=True)
            write_atomic(state, json.dumps({"url": url, "validator": new}))
        _append(response, part, start, total, max_bytes)
        return etag


def _append(
    response: requests.Response, part: Path, start: int, total: int | None, max_bytes: int
) -> None:
    have = start
    title = f"downloading {response.url.partition('?')[0].rpartition('/')[2]} (MiB)"
    with (
        part.open("ab" if start else "wb") as file,
        Progress(title, total=None if total is None else total // MIB) as progress,
    ):
        progress.advance(have // MIB)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            progress.advance((have + len(chunk)) // MIB - have // MIB)
            have += len(chunk)
            if have > max_bytes:
                raise DownloadError(
                    f"{response.url} sends more than the {max_bytes:,} bytes allowed"
                )
    if total is not None and have != total:
        raise requests.ConnectionError(f"{have:,} of {total:,} bytes arrived")


def _validator(state: Path, url: str) -> str:
    """Return the validator of a partly downloaded file; "" if the part cannot be continued."""
    try:
        known = json.loads(state.read_text("utf-8"))
        return str(known["validator"]) if known["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """Return the offset of the body in the file, and the file's length if the server gives it."""
    if response.status_code == 206:
        named = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if named is None:
            return -1, None
        return int(named[1]), None if named[2] == "*" else int(named[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def write_lock(path: Path, arrived: list[Fetched]) -> None:
    """Record the downloaded files, so that a later download can be compared with them."""
    write_atomic(path, json.dumps([asdict(item) for item in arrived], indent=2) + "\n")


def read_lock(path: Path) -> dict[str, str]:
    """Return the recorded SHA-256 by address; empty if nothing is recorded."""
    try:
        return {str(e["url"]): str(e["sha256"]) for e in json.loads(path.read_text("utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
