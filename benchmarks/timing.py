"""Measure competitors in turns, so that whatever else the machine does meets them alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Step = Callable[[], object]

SECONDS_A_TURN = 0.005
"""A turn repeats a step so long: a loop's step finds its own data in the cache, not a rival's."""
PAUSE = 0.01
"""Seconds between turns, in which the threads of the last turn's library go to sleep."""


@dataclass(frozen=True)
class Ratio:
    """One competitor's time as a multiple of the base's.

    Attributes:
        shortest: Of the shortest turns: what the work itself costs.
        median: Over rounds, of the two turns of a round: what a user sees on a busy machine.
        rounds: How many turns each had.
    """

    shortest: float
    median: float
    rounds: int


def ratios(
    steps: Mapping[str, Step], base: str, *, seconds: float = 20.0, least: int = 5
) -> dict[str, Ratio]:
    """Return each step's time as a multiple of that of ``base``.

    Args:
        steps: What competes, by name. Each has run before it is timed.
        base: The name of the one that the others are compared with.
        seconds: After which no other round begins.
        least: Rounds that are measured at any rate.
    """
    repeats = {name: _repeats(step) for name, step in steps.items()}
    turns: dict[str, list[float]] = {name: [] for name in steps}
    order, shuffle = list(steps), random.Random(0).shuffle
    begun = time.perf_counter()
    while len(turns[base]) < least or time.perf_counter() - begun < seconds:
        # Nobody always comes after the same other one.
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            turns[name].append(timed(steps[name], repeats[name]))
    shortest = {name: min(own) for name, own in turns.items()}
    return {
        name: Ratio(
            shortest=shortest[name] / shortest[base],
            median=statistics.median(a / b for a, b in zip(own, turns[base], strict=True)),
            rounds=len(own),
        )
        for name, own in turns.items()
    }


def _repeats(step: Step) -> int:
    if timed(step) > 1:  # The first time takes longer, but not as much longer as that.
        return 1
    return max(1, round(SECONDS_A_TURN / timed(step)))


def timed(step: Step, repeats: int = 1) -> float:
    """Return the seconds that a step takes, the mean over repeats."""
    begun = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begun) / repeats
