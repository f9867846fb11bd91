"""The plain baseline's training as anyone would write it; its draws alone are the study's."""

import torch
from torch import nn
from torch.nn import functional as F

from lib.utils.seeds import torch_generator


def linear_heads(config, *widths):
    """A linear head per tower with a run's initial weights."""
    heads = nn.ModuleList(nn.Linear(width, config.embedding_dim) for width in widths)
    with torch.no_grad():
        for head, name in zip(heads, ("image", "text"), strict=True):
            draw = torch.rand(
                head.weight.T.shape, generator=torch_generator(config.seed, "initialisation", name)
            )
            head.weight.copy_(((2 * draw - 1) / head.in_features**0.5).T)
            head.bias.zero_()
    return heads


def adamw(config, *modules):
    """AdamW over modules, which decays matrices and no biases."""
    parameters = [p for module in modules for p in module.parameters()]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def step(optimiser, logits):
    """Take one step on the cross entropy in both directions; return the loss."""
    label = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()
