"""Measurement of competitors in turns, so that other load on the machine affects all alike."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Step = Callable[[], object]

SECONDS_PER_TURN = 0.005
"""A turn repeats a step for so long that it finds its own data in the cache, not a rival's."""
PAUSE = 0.01
"""Seconds between turns, in which the threads of the last library go to sleep."""


@dataclass(frozen=True)
class Ratio:
    """One competitor's time as a multiple of the base's.

    Attributes:
        shortest: Ratio of the shortest turns: the cost of the work itself.
        median: Median over rounds of the ratio of a round's turns: the cost on a busy machine.
        rounds: Number of turns of each.
    """

    shortest: float
    median: float
    rounds: int


def ratios(
    steps: Mapping[str, Step], base: str, *, seconds: float = 20.0, least: int = 5
) -> dict[str, Ratio]:
    """Return each step's time as a multiple of that of ``base``.

    Args:
        steps: The competitors by name. Each has run before it is timed.
        base: The name of the competitor that the others are compared with.
        seconds: Time after which no new round begins.
        least: Least number of rounds, whatever they take.
    """
    repeats = {name: _repeats(step) for name, step in steps.items()}
    turns: dict[str, list[float]] = {name: [] for name in steps}
    order, shuffle = list(steps), random.Random(0).shuffle
    begun = time.perf_counter()
    while len(turns[base]) < least or time.perf_counter() - begun < seconds:
        # A step must not always follow the same other one.
        shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            turns[name].append(timed(steps[name], repeats[name]))
    return {
        name: Ratio(
            shortest=min(times) / min(turns[base]),
            median=statistics.median(a / b for a, b in zip(times, turns[base], strict=True)),
            rounds=len(times),
        )
        for name, times in turns.items()
    }


def _repeats(step: Step) -> int:
    # The second time counts: the first takes longer, though a quick step never takes a second.
    return 1 if timed(step) > 1 else max(1, round(SECONDS_PER_TURN / timed(step)))


def timed(step: Step, repeats: int = 1) -> float:
    """Return the mean seconds of a step over ``repeats``."""
    begun = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begun) / repeats
