"""A made-up corpus as features: captions that tell of their image through a random linear map."""

import numpy as np
import pandas as pd

from lib.encoders import Features


def synthetic_features(
    train: int = 60, val: int = 20, test: int = 20, noise: float = 1.0, seed: int = 0
) -> Features:
    """Features of images with 1 to 5 captions; learnable, neither trivial nor hopeless."""
    rng = np.random.default_rng(seed)
    count = train + val + test
    hidden = rng.standard_normal((count, 6))
    captions = rng.integers(1, 6, size=count)
    owner = np.repeat(np.arange(count), captions)
    image = hidden @ rng.standard_normal((6, 12)) + noise * rng.standard_normal((count, 12))
    text = hidden[owner] @ rng.standard_normal((6, 10))
    text += noise * rng.standard_normal(text.shape)
    return Features(
        image=image.astype(np.float32),
        text=text.astype(np.float32),
        caption_owner=owner.astype(np.int64),
        image_ids=tuple(f"image{row}" for row in range(count)),
        splits=("train",) * train + ("val",) * val + ("test",) * test,
        fingerprint=f"synthetic features {seed}",
        corpus_fingerprint=f"synthetic corpus {seed}",
    )


def levelled_runs(gains: dict[str, float], i2t: float, t2i: float) -> pd.DataFrame:
    """Five seeds, each with a level of its own; a method is its gain in i2t above it, with a little
    noise."""
    wobble = [0.0, 0.02, -0.02, 0.01, -0.01]
    return pd.DataFrame(
        [
            {
                "method": method,
                "seed": seed,
                "i2t_r1": i2t + seed + gain + wobble[(seed + place) % 5],
                "t2i_r1": t2i + seed + wobble[(seed + 2 * place) % 5],
            }
            for place, (method, gain) in enumerate(gains.items())
            for seed in range(5)
        ]
    )
