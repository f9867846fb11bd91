"""Features of a made-up corpus: a random linear map relates captions to their images."""

import numpy as np
import pandas as pd

from lib.encoders import Features


def synthetic_features(
    train: int = 60, val: int = 20, test: int = 20, noise: float = 1.0, seed: int = 0
) -> Features:
    """Return features of images with 1 to 5 captions: a task that is learnable, but not trivial."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((train + val + test, 6))
    captions = rng.integers(1, 6, size=len(hidden))
    splits = ("train",) * train + ("val",) * val + ("test",) * test
    return features_of(rng, hidden, captions, splits, noise, f"synthetic {{}} {seed}")


def features_of(rng, hidden, captions, splits, noise: float, name: str) -> Features:
    """Return features that a random linear map makes from hidden ones, with noise.

    Args:
        rng: NumPy's generator.
        hidden: The part that an image and its captions share, (N, any).
        captions: Number of captions per image, a count or (N,).
        splits: Split per image.
        noise: Standard deviation of the noise.
        name: Fingerprint, with ``{}`` in place of "features" and "corpus".
    """
    owner = np.repeat(np.arange(len(hidden)), captions)
    image = hidden @ rng.standard_normal((hidden.shape[1], 12))
    image += noise * rng.standard_normal(image.shape)
    text = hidden[owner] @ rng.standard_normal((hidden.shape[1], 10))
    text += noise * rng.standard_normal(text.shape)
    return Features(
        image=image.astype(np.float32),
        text=text.astype(np.float32),
        caption_owner=owner.astype(np.int64),
        image_ids=tuple(f"image{row}" for row in range(len(hidden))),
        splits=splits,
        fingerprint=name.format("features"),
        corpus_fingerprint=name.format("corpus"),
    )


def levelled_runs(gains: dict[str, float], i2t: float, t2i: float) -> pd.DataFrame:
    """Return runs of twenty seeds. Each seed has its own level; a method's i2t recall is its gain
    above that level, with a little noise."""
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
            for seed in range(20)
        ]
    )
