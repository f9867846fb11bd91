"""A server that cuts connections and sends wrong bytes, and the archives that it sends."""

import io
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from corpora import noisy_picture, tokens

from lib.datasets.flickr8k_download import Distribution

BODY = bytes(range(256)) * 1600


class Site:
    """What the server sends, and the requests that it received.

    Attributes:
        files: Bodies by path.
        break_after: Bytes after which the next connections are cut, one entry per connection.
        ranges, etag: Whether it supports Range; the validator that it sends, if any.
        shift: Offset, in bytes, of the start of the next part from the requested one.
        lengths: Whether it sends Content-Length.
        asked: The (path, Range, If-Range) of each request.
    """

    def __init__(self):
        self.files = {"/file": BODY}
        self.break_after = []
        self.ranges, self.shift = True, 0
        self.etag = '"one"'
        self.lengths = True
        self.asked = []

    def answer(self, request):
        asked_range, validator = request.headers.get("Range"), request.headers.get("If-Range")
        self.asked.append((request.path, asked_range, validator))
        body = self.files.get(request.path)
        if body is None:
            request.send_error(404)
            return
        start = 0
        if self.ranges and asked_range and validator == self.etag:
            start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                request.send_error(416)
                return
            start, self.shift = start + self.shift, 0
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        if self.etag is not None:
            request.send_header("ETag", self.etag)
        if self.lengths:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        stop = self.break_after.pop(0) if self.break_after else len(body)
        request.wfile.write(body[start : start + stop])


def server_of(site):
    """Return a server of ``site`` on a free port, not yet started, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            site.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    return server, f"http://127.0.0.1:{server.server_port}"


def archive(path, entries):
    """Write a zip archive of (name or ZipInfo, bytes) entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in entries:
            opened.writestr(name, data)
    return path


SMALL = Distribution(images=(3, 3), caption_lines=(3, 4))


def flickr8k_files():
    """Return the two archives of the official corpus by path, with three images."""
    images = [(f"Flicker8k_Dataset/p{k}.jpg", noisy_picture(k, (200, 200))) for k in (1, 2, 3)]
    text = tokens(p1="One .", p2="Two .", p3="Three .")
    lists = enumerate(("train", "dev", "test"), 1)
    splits = [(f"Flickr_8k.{part}Images.txt", f"p{k}.jpg\n") for k, part in lists]
    return {
        "/Flickr8k_Dataset.zip": zipped(images),
        "/Flickr8k_text.zip": zipped([("Flickr8k.token.txt", text), *splits]),
    }


def zipped(entries) -> bytes:
    buffer = io.BytesIO()
    archive(buffer, entries)
    return buffer.getvalue()
