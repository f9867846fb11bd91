"""Downloads from a server on this machine that cuts connections and sends wrong bytes."""

import hashlib
import json
import threading

import pytest
from download_site import BODY, SMALL, Site, archive, flickr8k_files, server_of, zipped

from lib.datasets import CorpusError, DownloadError, Flickr8k
from lib.datasets.archives import Limits, extract
from lib.datasets.download import fetch
from lib.datasets.flickr8k_download import Distribution, download_flickr8k

KEPT = 65_536
"""Bytes that are kept if a connection is cut after 70,000: a whole block."""


@pytest.fixture
def site():
    """A server on a free port of this machine."""
    state = Site()
    server, state.url = server_of(state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def get(site, target, body=BODY, path="/file", **options):
    """Fetch a file of the site and check that all of it arrived."""
    fetched = fetch(f"{site.url}{path}", target, pause=0.0, **options)
    assert target.read_bytes() == body
    return fetched


def interrupted(site, target):
    """Start a download that is cut off and fails."""
    site.break_after = [70_000, 0]
    with pytest.raises(DownloadError, match="65,536 bytes are kept and the next start goes on"):
        get(site, target, attempts=1)
    assert not target.exists()


class TestFetch:
    def test_a_finished_download_is_described_and_leaves_no_other_file(self, site, tmp_path):
        fetched = get(site, tmp_path / "a")
        assert fetched.size == len(BODY)
        assert fetched.sha256 == hashlib.sha256(BODY).hexdigest()
        assert fetched.etag == '"one"'
        assert [path.name for path in tmp_path.iterdir()] == ["a"]

    def test_after_a_broken_connection_only_the_rest_is_fetched(self, site, tmp_path):
        site.break_after = [70_000, 0, 70_000]
        get(site, tmp_path / "a")
        assert [asked[1:] for asked in site.asked] == [
            (None, None),
            (f"bytes={KEPT}-", '"one"'),
            (f"bytes={KEPT}-", '"one"'),
            (f"bytes={2 * KEPT}-", '"one"'),
        ]

    def test_a_later_start_fetches_only_the_rest(self, site, tmp_path):
        interrupted(site, tmp_path / "a")
        get(site, tmp_path / "a", attempts=1)
        assert site.asked[-1][1] == f"bytes={KEPT}-"

    def test_a_file_that_has_changed_is_fetched_from_the_start(self, site, tmp_path):
        interrupted(site, tmp_path / "a")
        site.files["/file"], site.etag = BODY[::-1], '"two"'
        get(site, tmp_path / "a", BODY[::-1], attempts=1)

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_without_a_strong_validator_the_download_starts_again(self, site, tmp_path, etag):
        site.etag, site.break_after = etag, [70_000]
        get(site, tmp_path / "a")
        assert [asked[1] for asked in site.asked] == [None, None]

    def test_a_part_with_another_offset_is_not_joined(self, site, tmp_path):
        site.break_after, site.shift = [70_000], 1
        get(site, tmp_path / "a")
        assert [asked[1] for asked in site.asked] == [None, f"bytes={KEPT}-", None]

    def test_with_an_unreadable_note_the_download_starts_again(self, site, tmp_path):
        interrupted(site, tmp_path / "a")
        (note,) = (path for path in tmp_path.iterdir() if path.suffix == ".json")
        note.write_text("[]")
        get(site, tmp_path / "a", attempts=1)
        assert site.asked[-1][1] is None

    def test_a_server_without_ranges_sends_the_whole_file_again(self, site, tmp_path):
        site.ranges, site.break_after = False, [70_000, 70_000]
        get(site, tmp_path / "a")

    def test_a_part_of_another_address_is_not_continued(self, site, tmp_path):
        site.files["/other"] = BODY[::-1]
        interrupted(site, tmp_path / "a")
        get(site, tmp_path / "a", BODY[::-1], "/other")

    def test_a_complete_part_is_fetched_again(self, site, tmp_path):
        # The process ended between the last byte and the renaming; no range begins after the end.
        (tmp_path / "a.part").write_bytes(BODY)
        state = {"url": f"{site.url}/file", "validator": '"one"'}
        (tmp_path / "a.json").write_text(json.dumps(state))
        get(site, tmp_path / "a")

    def test_a_body_without_a_length_is_downloaded(self, site, tmp_path):
        site.lengths = False
        get(site, tmp_path / "a")

    @pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 7}])
    def test_unexpected_content_is_removed(self, site, tmp_path, wrong):
        with pytest.raises(DownloadError, match="is not the expected file"):
            get(site, tmp_path / "a", **wrong)
        assert list(tmp_path.iterdir()) == []

    def test_a_wrong_address_is_requested_once(self, site, tmp_path):
        with pytest.raises(DownloadError, match="answers 404"):
            get(site, tmp_path / "a", path="/nowhere")
        assert len(site.asked) == 1

    def test_a_file_above_the_limit_is_refused(self, site, tmp_path):
        with pytest.raises(DownloadError, match="more than the 1,000 allowed"):
            get(site, tmp_path / "a", max_bytes=1000)
        site.lengths = False
        with pytest.raises(DownloadError, match="more than the 1,000"):
            get(site, tmp_path / "a", max_bytes=1000)

    def test_a_missing_server_and_a_wrong_scheme_are_clear_errors(self, tmp_path):
        with pytest.raises(DownloadError, match="2 attempts received nothing new"):
            fetch("http://127.0.0.1:9/file", tmp_path / "a", attempts=2, pause=0.0)
        with pytest.raises(DownloadError, match="not an http or https address"):
            fetch("file:///etc/passwd", tmp_path / "a")


class TestExtract:
    def test_visible_files_are_unpacked_and_hidden_ones_are_not(self, tmp_path):
        made = archive(
            tmp_path / "a.zip",
            [
                ("Images/p1.jpg", b"one"),
                ("__MACOSX/Images/._p1.jpg", b"junk"),
                ("Images/.DS_Store", b"junk"),
                ("text.txt", b"two"),
            ],
        )
        extract(made, tmp_path / "out")
        files = {
            p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
            for p in (tmp_path / "out").rglob("*")
            if p.is_file()
        }
        assert files == {"Images/p1.jpg": b"one", "text.txt": b"two"}

    def test_two_entries_of_one_name_are_refused(self, tmp_path):
        made = archive(tmp_path / "a.zip", [("p1.jpg", b"1"), ("P1.JPG", b"2")])
        with pytest.raises(DownloadError, match="occurs twice"):
            extract(made, tmp_path / "out")

    def test_content_above_a_limit_is_refused_before_a_byte_is_written(self, tmp_path):
        made = archive(tmp_path / "a.zip", [("zeros", bytes(3 << 20))])
        with pytest.raises(DownloadError, match="unpacks to more than 100 times its length"):
            extract(made, tmp_path / "out")
        with pytest.raises(DownloadError, match=r"3,145,728 bytes unpacked, 1,000 allowed"):
            extract(made, tmp_path / "out", Limits(total_bytes=1000))
        many = archive(tmp_path / "b.zip", [(f"{k}", b"") for k in range(11)])
        with pytest.raises(DownloadError, match="11 entries, 10 allowed"):
            extract(many, tmp_path / "out", Limits(entries=10))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip"]

    @pytest.mark.parametrize("damage", ["cut", "flipped", "no archive", "empty"])
    def test_a_damaged_archive_is_reported_and_leaves_no_file(self, tmp_path, damage):
        made = archive(tmp_path / "a.zip", [("p1.jpg", hashlib.sha512(b"").digest() * 99)])
        data = bytearray(made.read_bytes())
        if damage == "cut":
            data = data[:-30]
        elif damage == "flipped":
            data[len(data) // 3] ^= 255
        else:
            data = bytearray(b"<html>" if damage == "no archive" else b"")
        made.write_bytes(bytes(data))
        with pytest.raises(DownloadError, match=r"a\.zip is damaged"):
            extract(made, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


@pytest.fixture
def mirror(site):
    """A mirror of :func:`flickr8k_files`."""
    site.files = flickr8k_files()
    return site


class TestFlickr8k:
    def test_a_download_gives_a_corpus_and_a_record_of_its_archives(self, mirror, tmp_path):
        folder = download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        corpus = Flickr8k(folder)
        assert [sample.split for sample in corpus.samples] == ["train", "val", "test"]
        lock = json.loads((tmp_path / "flickr8k.lock.json").read_text())
        assert {entry["url"]: entry["sha256"] for entry in lock} == {
            mirror.url + path: hashlib.sha256(data).hexdigest()
            for path, data in mirror.files.items()
        }
        asked = len(mirror.asked)
        download_flickr8k(folder, mirror.url, SMALL)
        assert len(mirror.asked) == asked

    def test_an_interrupted_download_fetches_only_the_rest(self, mirror, tmp_path, monkeypatch):
        monkeypatch.setattr("time.sleep", lambda _: None)
        mirror.break_after = [10**9, 70_000, *[0] * 5]
        with pytest.raises(DownloadError, match="65,536 bytes are kept"):
            download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        assert not (tmp_path / "flickr8k").exists()
        mirror.asked.clear()
        download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        assert [(path, span) for path, span, _ in mirror.asked] == [
            ("/Flickr8k_Dataset.zip", f"bytes={KEPT}-")
        ]
        # Only the corpus, its record and the lock of the downloads are left.
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *("flickr8k", "flickr8k.downloads", "flickr8k.lock.json")
        ]

    def test_a_damaged_archive_is_fetched_again_next_time(self, mirror, tmp_path):
        whole = mirror.files["/Flickr8k_Dataset.zip"]
        mirror.files["/Flickr8k_Dataset.zip"] = whole[: len(whole) // 2]
        with pytest.raises(DownloadError, match="damaged"):
            download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        mirror.files["/Flickr8k_Dataset.zip"] = whole
        folder = download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        assert len(Flickr8k(folder).samples) == 3

    def test_an_unexpected_count_of_images_or_captions_is_refused(self, mirror, tmp_path):
        with pytest.raises(DownloadError, match="holds 3 images, Flickr8k has 8091 to 8092"):
            download_flickr8k(tmp_path / "flickr8k", mirror.url)
        few = Distribution(images=(3, 3), caption_lines=(9, 9))
        with pytest.raises(DownloadError, match="holds 3 caption lines, Flickr8k has 9 to 9"):
            download_flickr8k(tmp_path / "flickr8k", mirror.url, few)
        assert not (tmp_path / "flickr8k").exists()

    def test_other_content_than_the_first_download_is_refused(self, mirror, tmp_path):
        folder = download_flickr8k(tmp_path / "flickr8k", mirror.url, SMALL)
        folder.rename(tmp_path / "away")
        mirror.files["/Flickr8k_text.zip"] = zipped([("Flickr8k.token.txt", b"another")])
        with pytest.raises(DownloadError, match=r"differs from what this mirror sent before"):
            download_flickr8k(folder, mirror.url, SMALL)

    def test_the_option_downloads_into_the_home_folder(
        self, mirror, study_home, monkeypatch, tmp_path
    ):
        monkeypatch.delenv("FLICKR8K_ROOT", raising=False)
        with pytest.raises(CorpusError, match="Supply it in one of these"):
            Flickr8k(mirror=mirror.url)
        assert mirror.asked == []
        # The archives are downloaded, but have too few images.
        with pytest.raises(DownloadError, match="8091"):
            Flickr8k(download=True, mirror=mirror.url)
        assert (study_home / "corpora" / "flickr8k.downloads").is_dir()
