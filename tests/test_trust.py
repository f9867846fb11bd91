"""Untrusted input: archives, captions, images, parameters, and the files that the code reads."""

import ast
import io
import random
import stat
import struct
import warnings
import zipfile
import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from corpora import pictures, tokens, write_official
from download_site import archive
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.shared.checking import ParameterError
from lib.datasets import CorpusError, DownloadError, Flickr8k, read_captions
from lib.datasets.archives import Limits, extract
from lib.datasets.images import MAX_PIXELS, inspect_image
from lib.study.catalogue import StudyError, parse_pairs
from lib.training.distribute import Payload, read_payload, write_payload

# Calls that the code may not make.

FORBIDDEN = {
    "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open", "joblib.load",
    "dill.load", "dill.loads", "pd.read_pickle", "pandas.read_pickle", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "compile", "os.system", "os.popen",
    "torch.hub.load", "cloudpickle.load", "cloudpickle.loads",
}  # fmt: skip


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}, node


def test_nothing_is_unpickled_and_no_text_is_run(root):
    seen = 0
    for path in (root / "lib").rglob("*.py"):
        for name, keywords, node in calls(path):
            where = f"{path}:{node.lineno}"
            assert name not in FORBIDDEN, where
            assert keywords.get("shell", "False") == "False", where
            assert "trust_remote_code" not in keywords, where
            if name == "torch.load":
                seen += 1
                assert keywords.get("weights_only") == "True", where
            if name in ("np.load", "numpy.load"):
                seen += 1
                assert keywords.get("allow_pickle") == "False", where
            if name.endswith("Model.from_pretrained"):
                seen += 1
                assert keywords.get("use_safetensors") == "True", where
    assert seen >= 4


# Archives.


def outside(folder):
    """The names beside the archive and the folder into which it is unpacked."""
    return sorted(p.name for p in folder.iterdir() if p.name not in ("a.zip", "in"))


def unpack(folder, made, limits=None):
    """Unpack into ``folder/in/out``; a refused archive may leave nothing."""
    try:
        extract(made, folder / "in" / "out", limits)
    except DownloadError:
        assert list((folder / "in").iterdir()) == []
        raise
    finally:
        assert outside(folder) == []


def special(name, kind=0, flags=0):
    info = zipfile.ZipInfo("x")
    info.filename, info.external_attr = name, (kind | 0o644) << 16
    info.flag_bits |= flags
    return info


@pytest.mark.tries("bad input")
@pytest.mark.parametrize(
    "name",
    [
        "../evil", "a/../../evil", "/etc/evil", "//host/evil", "C:evil", "C:\\evil", "..\\evil",
        "\\\\host\\evil", "a/..", "..", ".", "/", "a:stream", "a/\\../evil", "C:/evil",
        "a\\..\\..\\evil",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(tmp_path, name):
    made = archive(tmp_path / "a.zip", [("good", b"1"), (special(name), b"2")])
    with pytest.raises(DownloadError, match="leads outside the folder"):
        unpack(tmp_path, made)


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("kind", ["LNK", "BLK", "CHR", "IFO", "SOCK"])
def test_entries_that_are_no_files(tmp_path, kind):
    made = archive(tmp_path / "a.zip", [(special("x", getattr(stat, f"S_IF{kind}")), b"/etc")])
    with pytest.raises(DownloadError, match="is a link or a device"):
        unpack(tmp_path, made)


@pytest.mark.tries("bad input")
def test_an_encrypted_entry(tmp_path):
    made = archive(tmp_path / "a.zip", [("secret", b"x" * 50)])
    data = bytearray(made.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    made.write_bytes(data)
    with pytest.raises(DownloadError, match="is encrypted"):
        unpack(tmp_path, made)


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("told", [0, 1, 1000])
def test_a_bomb_whose_headers_lie(tmp_path, told):
    made = archive(tmp_path / "a.zip", [("zeros", bytes(3 << 20))])
    data = bytearray(made.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rfind(signature) + offset, told)
    made.write_bytes(data)
    with pytest.raises(DownloadError):
        unpack(tmp_path, made, Limits(total_bytes=10_000))


parts = st.sampled_from(["..", ".", "a", "b", "C:", "\\", "", "é", "\u202e", " ", "con", "x" * 300])
names = st.builds(
    lambda first, rest, slash: slash + "/".join([first, *rest]),
    parts,
    st.lists(parts, max_size=3),
    st.sampled_from(["", "/"]),
)


@settings(max_examples=60)
@given(st.lists(names.filter(bool), min_size=1, max_size=4))
def test_no_name_writes_outside_its_folder(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("zip")
    made = folder / "a.zip"
    with zipfile.ZipFile(made, "w") as opened:
        for name in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that comes twice
                opened.writestr(special(name), b"1")
    try:
        unpack(folder, made)
    except DownloadError:
        assert not (folder / "in" / "out").exists()
        return
    for path in (folder / "in" / "out").rglob("*"):
        assert path.resolve().is_relative_to((folder / "in" / "out").resolve())


def test_a_damaged_archive_gives_its_files_or_an_error(tmp_path, tried):
    made = archive(tmp_path / "a.zip", [(f"p{k}.txt", bytes([k]) * 400) for k in range(3)])
    whole, draw, unnamed = made.read_bytes(), random.Random(0), 0
    for number in range(120):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        made.write_bytes(data if number % 3 else whole[: draw.randrange(len(whole))])
        try:
            extract(made, tmp_path / "out" / str(number))
        except DownloadError as error:
            unnamed += not ("a.zip" in str(error) or "entry" in str(error))
        else:
            for path in (tmp_path / "out" / str(number)).rglob("*.txt"):
                assert zlib.crc32(path.read_bytes()) in {
                    zlib.crc32(bytes([k]) * 400) for k in range(3)
                }
    assert unnamed == 0
    tried("corruption", 120)


# Caption files.

LAYOUTS = {
    "token": ("", lambda image, number, text: f"{image}#{number}\t{text}"),
    "kaggle": (
        "image,caption\n",
        lambda image, _, text: f'{image},"{text.replace(chr(34), chr(34) * 2)}"',
    ),
    "results": (
        "image_name| comment_number| comment\n",
        lambda image, number, text: f"{image}| {number}| {text}",
    ),
}


@settings(max_examples=80)
@given(st.sampled_from(sorted(LAYOUTS)), st.binary(max_size=120), st.randoms(use_true_random=False))
def test_any_bytes_are_captions_or_named_problems(tmp_path_factory, layout, noise, draw):
    header, line = LAYOUTS[layout]
    good = (header + "\n".join(line(f"p{k}.jpg", 0, f"Dog {k} .") for k in range(3))).encode()
    place = draw.randrange(len(good))
    path = tmp_path_factory.mktemp("captions") / "file.txt"
    path.write_bytes(good[:place] + noise + good[place:])
    try:
        read = read_captions(path)
    except CorpusError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    for caption in read.captions:
        assert caption.image
        assert caption.text == caption.text.strip() != ""
        assert 1 <= caption.line <= path.read_bytes().count(b"\n") + noise.count(b"\r") + 1
    for problem in read.problems:
        assert problem.where.startswith("file.txt:")


# Images.


@pytest.mark.tries("bad input")
@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_an_image_of_too_many_pixels_is_refused_undecoded(tmp_path, format, monkeypatch):
    path = tmp_path / "large"
    Image.new("1", (10_000, 1)).save(path, format)
    monkeypatch.setattr("lib.datasets.images.MAX_PIXELS", 10_000)
    assert inspect_image(path).fault == ""
    monkeypatch.setattr("lib.datasets.images.MAX_PIXELS", 9_999)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("it was decoded"))
    assert "10000 x 1 pixels are more than 9,999" in inspect_image(path).fault
    assert MAX_PIXELS <= 50_000_000


@pytest.mark.tries("bad input")
def test_a_small_file_that_claims_many_pixels(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    struct.pack_into(">II", data, 16, 2**31 - 1, 2**31 - 1)
    struct.pack_into(">I", data, 29, zlib.crc32(bytes(data[12:29])))
    path = tmp_path / "claims.png"
    path.write_bytes(data)
    assert "pixels" in inspect_image(path).fault


@pytest.mark.tries("corruption")
def test_an_image_that_changed_after_the_check_is_named(tmp_path):
    images = pictures("p1.jpg", "p2.jpg")
    corpus = Flickr8k(write_official(tmp_path, images, tokens(p1="One .", p2="Two .")))
    (tmp_path / "Flicker8k_Dataset" / "p1.jpg").write_bytes(images["p2.jpg"])
    sample = next(sample for sample in corpus.samples if sample.id == "p1.jpg")
    with pytest.raises(CorpusError, match=r"p1\.jpg .*its content has changed"):
        corpus.load_image(sample)


# Parameters.


@pytest.mark.tries("bad input")
@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('touch trap')", "!!python/object/apply:os.system ['touch trap']",
        "[!!python/object/apply:os.system ['touch trap']]", "{{7*7}}", "${IFS}", "$(touch trap)",
        "`touch trap`", "'; touch trap; '", "scenes\nimport os", "\x00", "../../etc/passwd",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["corpus", "seeds", "train_sizes"])
def test_a_parameter_is_data(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=name):
        validate("sensitivity", {name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tries("bad input")
@pytest.mark.parametrize(
    "document",
    ["!!python/object/apply:os.system ['touch trap']", "{corpus: !!python/name:os.system }"],
)
def test_a_yaml_tag_is_refused(tmp_path, monkeypatch, document):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="is not YAML"):
        parse_pairs([], [document])
    assert list(tmp_path.iterdir()) == []


# What a sweep sends to its workers.


def test_what_workers_read_is_arrays_and_words(tmp_path):
    clean = synthetic_features()
    noisy = replace(clean, image=clean.image + 1, fingerprint="noisy")
    for payload in (Payload(clean, None, "cpu"), Payload(clean, noisy, "auto")):
        path = tmp_path / "features.npz"
        write_payload(payload, path)
        read = read_payload(path)
        assert read.device == payload.device
        for one, other in ((read.clean, payload.clean), (read.noisy, payload.noisy)):
            assert (one is None) == (other is None)
            for field in fields(other) if other is not None else ():
                mine, theirs = getattr(one, field.name), getattr(other, field.name)
                np.testing.assert_array_equal(mine, theirs, strict=True)
