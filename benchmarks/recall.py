"""Recall over galleries, against exact search, a plain sort and the matrix product alone."""

import torch
from torch.nn import functional as F

from benchmarks.timing import peak_mib, peer, ratios
from lib.metrics import recall_at_k


def measure(images: int, captions: int, width: int = 512) -> dict[str, object]:
    """Return each way's time as a multiple of the similarity matrix's product alone."""
    draws = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(images, width, generator=draws), dim=-1)
    owner = torch.arange(captions) % images
    text = F.normalize(image[owner] + torch.randn(captions, width, generator=draws), dim=-1)

    def product() -> None:
        for rows in image.split(1024):
            rows @ text.T

    def sort() -> None:
        scores = image @ text.T
        scores.argsort(dim=1, descending=True)
        scores.T.argsort(dim=1, descending=True)

    steps = {
        "product": product,
        "recall_at_k": lambda: recall_at_k(image, text, owner),
        "plain sort": sort,
    }
    peers = {"product": f"torch {torch.__version__}"}
    if (name := peer("faiss-cpu")) is not None:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())

        def search() -> None:
            for queries, gallery in ((image, text), (text, image)):
                index = faiss.IndexFlatIP(width)
                index.add(gallery.numpy())
                index.search(queries.numpy(), 10)

        steps["faiss, both directions"] = search
        peers["faiss, both directions"] = name
    return {"ratios": ratios(steps, "product", seconds=10, least=2), "peers": peers}


def memory(images: int, captions: int, width: int = 512) -> dict[str, object]:
    """Return the peak memory of a process that measures recall from a memory map, in MiB."""
    code = f"""
import tempfile, numpy, torch
from lib.metrics import recall_at_k
rng = numpy.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    maps = []
    for name, count in (("image", {images}), ("text", {captions})):
        shape = (count, {width})
        array = numpy.lib.format.open_memmap(folder + "/" + name, "w+", "float32", shape)
        for start in range(0, count, 4096):
            part = array[start : start + 4096]
            part[:] = rng.standard_normal(part.shape, dtype="float32")
        array.flush()
        maps.append(numpy.load(folder + "/" + name, mmap_mode="r"))
    recall_at_k(*maps, torch.arange({captions}) % {images})
"""
    return {
        "peak_mib": round(peak_mib(code)),
        "of_that_mapped_files_mib": round((images + captions) * width * 4 / 2**20),
    }
