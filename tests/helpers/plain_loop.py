"""A run of the study in plain torch: nn.Linear, cross_entropy, AdamW and argsort."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lib.utils.seeds import torch_generator


def linear_heads(config, widths):
    """Return heads with the initial weights of a run."""
    heads = nn.ModuleList(nn.Linear(width, config.embedding_dim) for width in widths)
    with torch.no_grad():
        for head, name in zip(heads, ("image", "text"), strict=True):
            draws = torch_generator(config.seed, "initialisation", name)
            draw = torch.rand(head.weight.T.shape, generator=draws)
            head.weight.copy_(((2 * draw - 1) / head.in_features**0.5).T)
            head.bias.zero_()
    return heads


def adamw(config, *modules):
    """Return AdamW for modules, with decay of matrices but not of biases."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def info_nce(similarity, temperature):
    logits, label = similarity / temperature, torch.arange(len(similarity))
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2


def update(optimiser, loss):
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


class PlainRun:
    """Linear heads over features that are standardised on the training pairs' ``(image, text)``."""

    def __init__(self, config, training):
        self.config = config
        self.scale = [(t.mean(0), t.std(0, unbiased=False)) for t in training]
        self.heads = linear_heads(config, [t.shape[1] for t in training])

    def optimiser(self, groups=()):
        optimiser = adamw(self.config, self.heads)
        for group in groups:
            optimiser.add_param_group(group)
        return optimiser

    def similarity(self, *features):
        image, text = (
            F.normalize(head((x - mean) / deviation), dim=-1)
            for head, x, (mean, deviation) in zip(self.heads, features, self.scale, strict=True)
        )
        return image @ text.T

    @torch.no_grad()
    def recalls(self, image, text, owner):
        """Return R@1, R@5 and R@10 in percent, image to text, then text to image."""
        similarity, owner = self.similarity(image, text).numpy(), np.asarray(owner)
        ranked = [np.argsort(-s, axis=1, kind="stable") for s in (similarity, similarity.T)]
        hits = owner[ranked[0]] == np.arange(len(image))[:, None], ranked[1] == owner[:, None]
        return [100 * hit[:, :k].any(axis=1).mean() for hit in hits for k in (1, 5, 10)]
