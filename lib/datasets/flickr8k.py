"""Flickr8k, in the layout of its official distribution or of the Kaggle edition."""

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

from PIL import Image

from lib.datasets.captions import read_captions, read_lines
from lib.datasets.corpus import Corpus, Sample, Split, fingerprint_of
from lib.datasets.flickr8k_download import MIRROR, download_flickr8k
from lib.datasets.images import DECODING_VERSION, decode_rgb
from lib.datasets.integrity import check_corpus
from lib.datasets.report import CorpusError, list_problems
from lib.utils.files import home

IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
CAPTION_FILES = ("Flickr8k.token.txt", "captions.txt", "results.csv")
TEXT_FOLDERS = (".", "Flickr8k_text", "Flickr8k_Text")
SPLIT_FILES: dict[Split, str] = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


class Flickr8k(Corpus):
    """A corpus of 8,091 photographs with five captions each.

    For research and education only: neither photographs nor captions may be republished. The
    constructor checks every image and caption line; it caches the result for the images.

    There are two layouts. Official: ``Flicker8k_Dataset/`` (or ``Flickr8k_Dataset/``),
    ``Flickr8k.token.txt`` and ``Flickr_8k.{train,dev,test}Images.txt``, the text files beside the
    images' folder or in ``Flickr8k_text/``. Kaggle: ``Images/`` and ``captions.txt``. Without split
    files the splits come from a hash of each image's name, 6 : 1 : 1, and the report has a note,
    since results on these splits cannot be compared with published ones.

    Args:
        root: The corpus's folder. None tries ``$FLICKR8K_ROOT``, then the folder of downloads.
        on_bad_sample: ``"error"`` stops at samples that would fail or bias a run; ``"skip"`` drops
            them and counts them in the report.
        download: Download the corpus (about 1.1 GB) if no folder is found.
        mirror: Address of the folder of both archives.

    Raises:
        IntegrityError: The check found a fatal problem, and ``on_bad_sample`` is ``"error"``.
        CorpusError: No folder is found, or it has neither layout.
        DownloadError: The download failed; the next one continues it.

    Source:
        Hodosh et al. (2013).

    >>> try:
    ...     Flickr8k("no/such/folder")
    ... except CorpusError as error:
    ...     print(str(error).split(";")[0])
    root = 'no/such/folder' is not there
    """

    root_variable = "FLICKR8K_ROOT"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        on_bad_sample: str = "error",
        download: bool = False,
        mirror: str = MIRROR,
    ) -> None:
        folder = find_flickr8k(root, download=download, mirror=mirror)
        images, captions_path, split_paths = _layout(folder)
        captions = read_captions(captions_path)
        lists = [(split, path.name, _read_names(path)) for split, path in split_paths.items()]
        notes = [f"captions from {captions_path.name}, images from {images.name}"]
        if not lists:
            notes.append(
                "there are no split files: the splits come from a hash of each image's name "
                "(6 : 1 : 1) and are not the official ones"
            )
        checked = check_corpus(
            "flickr8k", images, captions, lists, on_bad_sample=on_bad_sample, notes=notes
        )
        samples = [replace(sample, link=photo_page(sample.id)) for sample in checked.samples]
        self._files = checked.files
        self._digests = checked.digests
        digests = [checked.digests[sample.id] for sample in samples]
        super().__init__(
            name="flickr8k",
            samples=samples,
            report=checked.report,
            fingerprint=fingerprint_of([f"decoding {DECODING_VERSION}", *digests], samples),
        )

    def load_image(self, sample: Sample) -> Image.Image:
        """Return a photograph.

        Args:
            sample: A sample of this corpus.

        Returns:
            A Pillow image, mode RGB, upright, in its original size.

        Raises:
            CorpusError: The corpus has no such sample, or its file has changed or can no longer be
                read.
        """
        path = self._files.get(sample.id)
        if path is None:
            raise CorpusError(f"{sample.id!r} is not an image of {self!r}")
        try:
            data = path.read_bytes()
            # Most decoders accept a flipped bit; the wrong image would be cached under this id.
            if hashlib.sha256(data).hexdigest() != self._digests[sample.id]:
                raise ValueError("its content has changed")
            return decode_rgb(data)
        except Exception as error:  # Decoders raise errors of any kind for damaged bytes.
            raise CorpusError(
                f"{path} passed the integrity check and can no longer be read: {error}. "
                "Restore the file and load the corpus again."
            ) from error


def photo_page(name: str) -> str | None:
    """Return the page of a photograph on Flickr, from the photo's number in the file's name.

    >>> photo_page("1000268201_693b08cb0e.jpg")
    'https://www.flickr.com/photo.gne?id=1000268201'
    """
    number = re.match(r"([0-9]+)_", name)
    return f"https://www.flickr.com/photo.gne?id={number[1]}" if number else None


def find_flickr8k(
    root: str | os.PathLike[str] | None = None, *, download: bool = False, mirror: str = MIRROR
) -> Path:
    """Return the folder of the corpus; download it if none is found and ``download`` is set.

    Args:
        root: The folder. None tries ``$FLICKR8K_ROOT``, then the folder of downloads.
        download: Download the corpus if no folder is found.
        mirror: Address of the folder of both archives.

    Returns:
        The folder.

    Raises:
        CorpusError: No folder is found, or the given path is not a folder.
        DownloadError: The download failed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     find_flickr8k(folder) == Path(folder)
    True
    """
    if root:
        return _folder(Path(root), "root")
    if configured := os.environ.get(Flickr8k.root_variable):
        return _folder(Path(configured), f"${Flickr8k.root_variable}")
    kept = home() / "corpora" / "flickr8k"
    if kept.is_dir():
        return kept
    if download:
        return download_flickr8k(kept, mirror)
    raise CorpusError(
        "Flickr8k was not found on this machine. Supply it in one of these ways:\n"
        "  - set the environment variable FLICKR8K_ROOT to its folder;\n"
        "  - name the folder: Flickr8k(root='/path/to/flickr8k'), or corpus_root in a notebook;\n"
        f"  - put it (or a link to it) at {kept};\n"
        "  - let it be downloaded (about 1.1 GB): Flickr8k(download=True).\n"
        f"The folder holds {IMAGE_FOLDERS[0]}/ and {CAPTION_FILES[0]} with the three "
        f"Flickr_8k.*Images.txt, or Kaggle's Images/ and captions.txt."
    )


def _folder(path: Path, named_by: str) -> Path:
    path = path.expanduser()
    if not path.is_dir():
        raise CorpusError(
            f"{named_by} = {str(path)!r} is {'not a folder' if path.exists() else 'not there'}; "
            "name the folder that holds Flickr8k's images folder and caption file"
        )
    return path


def _layout(root: Path) -> tuple[Path, Path, dict[Split, Path]]:
    """Return the images' folder, the caption file and the split files."""
    images = next((root / name for name in IMAGE_FOLDERS if (root / name).is_dir()), None)
    if images is None:
        raise CorpusError(f"{root} has no images' folder: {', '.join(IMAGE_FOLDERS)}")
    texts = [root / name for name in TEXT_FOLDERS]
    candidates = (text / name for name in CAPTION_FILES for text in texts)
    captions = next((path for path in candidates if path.is_file()), None)
    if captions is None:
        raise CorpusError(
            f"{root} has no caption file: {', '.join(CAPTION_FILES)}, there or in Flickr8k_text"
        )
    splits = {
        split: path
        for split, name in SPLIT_FILES.items()
        if (path := next((t / name for t in texts if (t / name).is_file()), None)) is not None
    }
    if splits and len(splits) < len(SPLIT_FILES):
        absent = ", ".join(name for split, name in SPLIT_FILES.items() if split not in splits)
        raise CorpusError(
            f"{root} has some split files but not {absent}; supply all three, or remove them all "
            "to have the splits made from the images' names"
        )
    return images, captions, splits


def _read_names(path: Path) -> list[str]:
    lines, problems = read_lines(path)
    if problems:
        raise CorpusError(f"{path} is damaged: {list_problems(problems)}")
    return [text.strip() for _, text in lines]
