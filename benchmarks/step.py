"""A step of the loss, forward and backward from embeddings, against other libraries' losses."""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from benchmarks.timing import peer, ratios
from lib.losses import ScheduledContrastiveLoss
from lib.schedulers import Fixed, Scheduler


def measure(size: int, width: int = 256) -> dict[str, object]:
    """Return each loss's time as a multiple of the plain loss's at batches of ``size``."""
    draws = torch.Generator().manual_seed(0)
    image, text = F.normalize(torch.randn(2, size, width, generator=draws), dim=-1)
    image.requires_grad_()
    text.requires_grad_()
    scale = torch.tensor(10.0, requires_grad=True)
    labels = torch.arange(size)

    def plain() -> torch.Tensor:
        logits = scale * image @ text.T
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    def stepped(loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def step() -> None:
            image.grad = text.grad = scale.grad = None
            loss().backward()

        return step

    scheduled = ScheduledContrastiveLoss(Scheduler())
    fixed = ScheduledContrastiveLoss(Fixed())
    similarity = (image @ text.T).detach()
    scheduler = Scheduler()
    steps = {
        "plain": stepped(plain),
        "scheduled": stepped(lambda: scheduled(image, text, scale)),
        "fixed": stepped(lambda: fixed(image, text, scale)),
        "scheduler alone": lambda: scheduled._quick_weights(similarity),
        "scheduler alone, study": lambda: scheduler(similarity, 0.1),
    }
    peers: dict[str, str] = {"plain": f"torch {torch.__version__}"}
    if (name := peer("open_clip_torch")) is not None:
        from open_clip import ClipLoss

        clip = ClipLoss()
        steps["open_clip"] = stepped(lambda: clip(image, text, scale))
        peers["open_clip"] = name
    if (name := peer("pytorch-metric-learning")) is not None:
        from pytorch_metric_learning.losses import NTXentLoss

        # The same object would mean the same set.
        ntxent, copied = NTXentLoss(0.1), labels.clone()
        steps["pytorch-metric-learning"] = stepped(
            lambda: ntxent(image, labels, ref_emb=text, ref_labels=copied)
        )
        peers["pytorch-metric-learning"] = name
    if (name := peer("lightly")) is not None:
        from lightly.loss import NTXentLoss as Lightly

        lightly = Lightly(0.1)
        steps["lightly"] = stepped(lambda: lightly(image, text))
        peers["lightly"] = name
    return {"ratios": ratios(steps, "plain"), "peers": peers}
