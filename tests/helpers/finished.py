"""Made-up records of finished runs, whole and plausible, for tests of the code that reads them."""

import numpy as np

from lib.runs import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunConfig, RunRecord

EPOCHS = 3


def finished(score: float = 50.0, *, made=None, fingerprint: str = "abc", **changes) -> RunRecord:
    """Return a run whose recalls are ``score``, and whose best epoch is the second of three."""
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


def traced(config: RunConfig | None = None, rsum=(1.0,), **columns) -> RunRecord:
    """Return a run with the given columns of steps, all others 1, and the given rSum per epoch.

    The other columns of epochs are 1,000, so that none can be taken for the rSum.
    """
    steps = np.ones((len(next(iter(columns.values()))), len(STEP_COLUMNS)), np.float32)
    for name, values in columns.items():
        steps[:, STEP_COLUMNS.index(name)] = values
    epochs = np.full((len(rsum), len(EPOCH_COLUMNS)), 1000.0)
    epochs[:, EPOCH_COLUMNS.index("rsum")] = rsum
    best, test = int(np.argmax(rsum)) + 1, dict.fromkeys(TEST_COLUMNS, 1.0)
    return RunRecord(config or RunConfig(), "x", best, test, epochs, steps, False, 0.0, {})
