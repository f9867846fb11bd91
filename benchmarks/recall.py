"""Recall over galleries, compared with other libraries, a plain sort and the matrix product."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.memory import Peak, peak
from benchmarks.peers import installed
from benchmarks.results import Row
from benchmarks.timing import Step, ratios

WIDTH = 512
SIZE = (5000, 25_000)
GROWTH = ((1000, 5000), (2000, 10_000), (5000, 25_000), (10_000, 50_000))
LARGE = (20_000, 100_000)
MILLION = (2000, 1_000_000)
K = 10
ROWS = 1024
LIMIT = 240.0
"""Seconds after which a process that measures memory is stopped."""

# The code of each way. Peers get their cheapest task: R@10 alone, and rankings that are sorted.
WAYS = {
    "recall_at_k": """
from lib.metrics import recall_at_k
recall_at_k(image, text, owner)
""",
    "plain sort": """
for rows in range(0, len(image), rows_at_once):
    (image[rows : rows + rows_at_once] @ text.T).argsort(dim=1, descending=True)
for rows in range(0, len(text), rows_at_once):
    (text[rows : rows + rows_at_once] @ image.T).argsort(dim=1, descending=True)
""",
    "faiss, exact search": """
import faiss
faiss.omp_set_num_threads(torch.get_num_threads())
for queries, gallery in ((image, text), (text, image)):
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery.numpy())
    index.search(queries.numpy(), 10)
""",
    "torchmetrics": """
from torchmetrics.retrieval import RetrievalHitRate
scores = image @ text.T
target = owner[None] == torch.arange(len(image))[:, None]
for found, hit in ((scores, target), (scores.T, target.T)):
    query = torch.arange(len(found))[:, None].expand_as(found)
    RetrievalHitRate(top_k=10)(found.flatten(), hit.flatten(), query.flatten())
""",
    "ranx": """
from ranx import Qrels, Run, evaluate
rows = owner.tolist()
for queries, gallery, of_query in ((image, text, True), (text, image, False)):
    scores, places = [], []
    for start in range(0, len(queries), rows_at_once):
        top = (queries[start : start + rows_at_once] @ gallery.T).topk(10, dim=1)
        scores += top.values.tolist()
        places += top.indices.tolist()
    run = Run({
        str(query): {str(p): s for p, s in zip(places[query], scores[query])}
        for query in range(len(queries))
    })
    relevant = {str(query): {} for query in range(len(queries))}
    for caption, row in enumerate(rows):
        query, item = (row, caption) if of_query else (caption, row)
        relevant[str(query)][str(item)] = 1
    evaluate(Qrels(relevant), run, "hit_rate@10")
""",
}
PACKAGE = {
    "faiss, exact search": "faiss-cpu", "torchmetrics": "torchmetrics", "ranx": "ranx",
}  # fmt: skip
TURNED = ("recall_at_k", "plain sort", "faiss, exact search")
"""Ways that are quick enough to time in turns; others are timed once, in a separate process."""


def measure(quick: bool) -> Iterator[Row]:
    """Yield times against peers, their peaks of memory, and how both grow with the gallery."""
    size = (500, 2500) if quick else SIZE
    yield from _times("against peers", size, TURNED, seconds=1.0 if quick else 45.0)
    with tempfile.TemporaryDirectory() as folder:
        yield from _peaks("against peers", size, Path(folder), tuple(WAYS))
        grown = GROWTH[:2] if quick else GROWTH
        for one in grown:
            yield from _times("growth", one, ("recall_at_k",), seconds=1.0 if quick else 12.0)
        for one in [*grown, *(() if quick else (LARGE, MILLION))]:
            yield from _peaks("growth", one, Path(folder), ("recall_at_k",))


def drawn(images: int, captions: int) -> Iterator[torch.Tensor]:
    """Yield unit embeddings of images, then of captions in parts, caption j near image j mod N.

    They are as near as in a trained model: most captions rank their image among the first few of
    thousands.
    """
    draws = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(images, WIDTH, generator=draws), dim=-1)
    yield image
    for part in torch.arange(captions).split(8192):
        noise = torch.randn(len(part), WIDTH, generator=draws) * (6 / WIDTH**0.5)
        yield F.normalize(image[part % images] + noise, dim=-1)


def _times(part: str, size: tuple[int, int], ways: Sequence[str], seconds: float) -> Iterator[Row]:
    image, *parts = drawn(*size)
    text = torch.cat(parts)
    owner = torch.arange(size[1]) % size[0]
    here = {"image": image, "text": text, "owner": owner, "torch": torch, "rows_at_once": ROWS}

    def product() -> None:
        for rows in image.split(ROWS):
            rows @ text.T

    def step(way: str) -> Step:
        code = compile(WAYS[way], way, "exec")
        return lambda: exec(code, dict(here))

    steps = {"matrix product": product}
    steps |= {way: step(way) for way in ways if _at_hand(way)}
    for way, ratio in ratios(steps, "matrix product", seconds=seconds, least=3).items():
        yield {"part": part, "images": size[0], "captions": size[1], "way": way, **vars(ratio)}


BEFORE = """
import numpy, torch
import lib.metrics
{imports}
image, text = (numpy.load("{folder}/" + name, mmap_mode="r") for name in ("image.npy", "text.npy"))
owner, rows_at_once = torch.arange(len(text)) % len(image), {rows}
if {tensors}:
    image, text = (torch.from_numpy(numpy.array(x)) for x in (image, text))
"""
PRODUCT = """
begun = time.perf_counter()
gallery = torch.as_tensor(numpy.array(text))
for rows in range(0, len(image), rows_at_once):
    torch.as_tensor(numpy.array(image[rows : rows + rows_at_once])) @ gallery.T
return time.perf_counter() - begun
"""


def _peaks(part: str, size: tuple[int, int], folder: Path, ways: Sequence[str]) -> Iterator[Row]:
    """Yield the peak of each way: ours reads memory maps, the others get tensors."""
    _write_maps(folder, *size)
    mapped = (size[0] + size[1]) * WIDTH * 4 / 2**20
    for way in filter(_at_hand, ways):
        ours = way == "recall_at_k"
        imports = WAYS[way].strip().splitlines()[0] if not way.startswith("plain") else ""
        before = BEFORE.format(folder=folder, rows=ROWS, tensors=not ours, imports=imports)
        code = (
            f"begun = time.perf_counter()\n{WAYS[way].strip()}\nreturn time.perf_counter() - begun"
        )
        found = peak(before, code, PRODUCT, LIMIT)
        row: dict[str, str | float | int | None] = {
            "part": f"{part}, memory", "images": size[0], "captions": size[1], "way": way,
            "mapped_mib": mapped,
        }  # fmt: skip
        if isinstance(found, Peak):
            row |= {"peak_mib": found.peak, "own_mib": found.own, "imports_mib": found.imports}
            # A rough time: one cold run, which also reads the embeddings.
            row |= {"once": found.said / found.after}
        else:
            row["failed"] = found
        yield row


def _write_maps(folder: Path, images: int, captions: int) -> None:
    """Write embeddings to files, in parts, so that this process needs little memory for them."""
    parts = drawn(images, captions)
    np.save(folder / "image.npy", next(parts).numpy())
    text = np.lib.format.open_memmap(folder / "text.npy", "w+", np.float32, (captions, WIDTH))
    start = 0
    for part in parts:
        text[start : start + len(part)] = part.numpy()
        start += len(part)
    text.flush()


def _at_hand(way: str) -> bool:
    return way not in PACKAGE or installed(PACKAGE[way]) is not None
