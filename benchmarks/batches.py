"""A large batch from micro-batches, compared with the whole batch at once: time and memory."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.memory import peak
from benchmarks.results import Row
from benchmarks.timing import Step, ratios
from lib.losses import ScheduledContrastiveLoss, cached_backward

SIZES = (64, 128, 256, 512, 1024)
MICRO_BATCH = 64
TOKENS, WIDTH, LAYERS = 32, 128, 2
WHOLE, CACHED = "whole batch", f"micro-batches of {MICRO_BATCH}"
LIMIT = 240.0
"""Seconds after which a separate process is stopped."""


def measure(quick: bool) -> Iterator[Row]:
    """Yield the time of both ways at each size of batch, in turns, then their memory."""
    sizes = SIZES[:2] if quick else SIZES
    for size in sizes:
        both = ratios(ways(size), WHOLE, seconds=1 if quick else 10)
        for way, ratio in both.items():
            yield {"part": "time", "batch": size, "way": way, **vars(ratio)}
    for size in sizes:
        for way in (WHOLE, CACHED):
            before = f"from benchmarks.batches import ways\nstep = ways({size})[{way!r}]"
            found = peak(before, "step()", "return 0", LIMIT)
            row: Row = {"part": "memory", "batch": size, "way": way}
            if isinstance(found, str):
                yield {**row, "failed": found}
            else:
                yield {**row, "peak_mib": found.peak, "imports_mib": found.imports}


def ways(size: int) -> dict[str, Step]:
    """Return both ways to a batch's gradients, by name, for two small transformers."""
    torch.manual_seed(0)
    inputs = [torch.randn(size, TOKENS, WIDTH) for _ in range(2)]
    towers = [Tower() for _ in inputs]
    loss_of = ScheduledContrastiveLoss()

    def cleared() -> None:
        for tower in towers:
            tower.zero_grad()

    def whole() -> Tensor:
        cleared()
        loss = loss_of(*(tower(rows) for tower, rows in zip(towers, inputs, strict=True)))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def cached() -> Tensor:
        cleared()
        return cached_backward(loss_of, towers, inputs, MICRO_BATCH)

    return {WHOLE: whole, CACHED: cached}


class Tower(nn.Module):
    """A transformer over tokens, without dropout, and the mean of its outputs at unit length."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (B, d) of tokens (B, tokens, d)."""
        return F.normalize(self.layers(tokens).mean(dim=1), dim=-1)
