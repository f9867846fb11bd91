"""Finished runs that nobody trained, whole and plausible, for tests of what reads them."""

import numpy as np

from lib.runs import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunConfig, RunRecord

EPOCHS = 3


def finished(score: float = 50.0, *, made=None, fingerprint: str = "abc", **changes) -> RunRecord:
    """A run whose recalls are ``score``, its best epoch the second of three."""
    config = RunConfig(**({"epochs": EPOCHS} | changes))
    epochs = np.ones((config.epochs, len(EPOCH_COLUMNS)))
    epochs[1, -1] = 6 * score
    return RunRecord(
        config=config,
        corpus_fingerprint=fingerprint,
        best_epoch=2,
        test={name: 6 * score if name == "rsum" else score for name in TEST_COLUMNS},
        epochs=epochs,
        steps=np.ones((4, len(STEP_COLUMNS)), np.float32),
        collapsed=False,
        seconds=1.5,
        made={"date": "2026-01-01", "device": "cpu (x)", "code": "1+a"} if made is None else made,
    )
