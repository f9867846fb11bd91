"""What a training step of a method costs, as a multiple of the fixed loss's."""

import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch

from lib.runs import RunConfig
from lib.training.objective import Objective
from lib.training.stack import init_heads, pair_similarities

WIDTHS = (1280, 384)
"""Lengths of an image's and a caption's feature: those of EfficientNet-Lite0 and MiniLM."""


def cost_key(methods: Mapping[str, RunConfig], repeats: int) -> dict[str, object]:
    """Return what determines the table of :func:`step_costs`: its key in a store."""
    names = {"schedule", "loss", "captions_at_once", "learn_temperature", "learn_bias"}
    sizes = {"train_images", "batch_size", "embedding_dim", "hidden_layers", "hidden_features"}
    sizes |= {"text_hidden_layers"}
    return {
        "widths": list(WIDTHS),
        "repeats": repeats,
        "methods": {
            name: config.model_dump(mode="json", include=names | sizes)
            for name, config in methods.items()
        },
    }


def step_costs(methods: Mapping[str, RunConfig], repeats: int) -> pd.DataFrame:
    """Time a step of each method on the CPU: heads and loss, forward and backward.

    Methods take turns, so that other load on the machine affects them alike; the shortest repeat
    counts.

    Args:
        methods: Name to configuration; one is called ``fixed``.
        repeats: Steps measured of each.

    Returns:
        ``method`` and ``ratio``, the shortest step over the fixed loss's shortest.
    """
    steps = {name: _step(config) for name, config in methods.items()}
    shortest = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            shortest[name] = min(shortest[name], time.perf_counter() - begun)
    ratios = [seconds / shortest["fixed"] for seconds in shortest.values()]
    return pd.DataFrame({"method": list(shortest), "ratio": ratios})


def _step(config: RunConfig) -> Callable[[], None]:
    """Return a training step, without the optimiser's part, on random features."""
    draws = torch.Generator().manual_seed(0)
    model = init_heads([config], WIDTHS, batch_shape=(1,))
    objective = Objective([config], {}, torch.device("cpu"))
    shared = [head.weights[-1] for head in (model.image, model.text)]
    images = min(config.batch_size, config.train_images)
    copies = config.captions_at_once
    place = torch.arange(images).repeat_interleave(copies)[None]
    image = torch.randn(1, images, WIDTHS[0], generator=draws)
    text = torch.randn(1, images * copies, WIDTHS[1], generator=draws)

    def step() -> None:
        model.zero_grad()
        embedded = model(image, text)
        loss, _ = objective(pair_similarities(embedded, copies), place, shared)
        torch.autograd.backward(loss.sum())

    return step
