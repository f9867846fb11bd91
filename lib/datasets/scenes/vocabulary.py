"""The words of the scenes: what can be in a picture, how often, and how a caption may name it.

Each list goes from the most to the least frequent: a term is drawn with a probability that falls
off as 1/rank (Zipf), so that a small training set has few of the rare ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Rgb = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Term:
    """A value of an attribute.

    Attributes:
        name: The value itself, as it stands in labels.
        words: How captions may name it, from the most to the least frequent.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Colour(Term):
    """A colour of an object: its middle value in 8-bit sRGB."""

    rgb: Rgb


@dataclass(frozen=True)
class Background(Term):
    """What lies behind the objects: its middle colour; ``words`` come with their preposition."""

    rgb: Rgb


SHAPES = (
    Term("ball", ("ball", "disc", "circle")),
    Term("box", ("box", "square", "block")),
    Term("triangle", ("triangle", "wedge")),
    Term("star", ("star",)),
    Term("ring", ("ring", "hoop")),
    Term("cross", ("cross", "plus sign")),
    Term("pill", ("pill", "capsule")),
    Term("heart", ("heart",)),
    Term("crescent", ("crescent", "half moon")),
    Term("arrow", ("arrow",)),
    Term("hexagon", ("hexagon", "six-sided tile")),
    Term("diamond", ("diamond", "rhombus")),
)
COLOURS = (
    Colour("red", ("red", "crimson", "scarlet"), (205, 38, 38)),
    Colour("blue", ("blue", "navy"), (38, 72, 190)),
    Colour("yellow", ("yellow", "golden"), (236, 204, 50)),
    Colour("green", ("green", "emerald"), (34, 139, 62)),
    Colour("white", ("white", "pale"), (240, 240, 236)),
    Colour("black", ("black", "jet-black"), (24, 24, 28)),
    Colour("orange", ("orange", "tangerine"), (238, 128, 30)),
    Colour("purple", ("purple", "violet"), (120, 50, 160)),
    Colour("pink", ("pink", "rosy"), (240, 140, 180)),
    Colour("brown", ("brown", "chocolate"), (112, 66, 30)),
    Colour("turquoise", ("turquoise", "teal"), (40, 180, 180)),
)
TEXTURES = (
    Term("plain", ("plain",)),
    Term("striped", ("striped", "banded")),
    Term("spotted", ("spotted", "dotted")),
    Term("checked", ("checked", "chequered")),
    Term("speckled", ("speckled", "mottled")),
)
SIZES = (
    Term("medium", ("medium-sized",)),
    Term("small", ("small", "little", "tiny")),
    Term("large", ("large", "big", "huge")),
)
BACKGROUNDS = (
    Background("grass", ("on the grass", "on a lawn", "in a meadow"), (96, 138, 62)),
    Background("sand", ("on the sand", "on a beach"), (206, 180, 130)),
    Background("water", ("in the water", "at sea"), (62, 118, 160)),
    Background("planks", ("on a wooden floor", "on the planks"), (150, 108, 70)),
    Background("snow", ("in the snow", "on a snowfield"), (222, 228, 236)),
    Background("bricks", ("on a brick wall", "in front of bricks"), (156, 84, 66)),
    Background("night", ("in the night sky", "among the stars at night"), (22, 24, 52)),
    Background("clouds", ("in the clouds", "in an overcast sky"), (168, 180, 196)),
    Background("tiles", ("on a tiled floor", "on the tiles"), (186, 196, 190)),
)
LIGHTS = (
    Term("even", ("in even light",)),
    Term("dim", ("in dim light", "at dusk")),
    Term("bright", ("in bright light", "in the glare")),
)
PLACES = (
    (
        Term("top left", ("at the top left", "in the upper left corner")),
        Term("top", ("at the top", "near the upper edge")),
        Term("top right", ("at the top right", "in the upper right corner")),
    ),
    (
        Term("left", ("on the left", "at the left edge")),
        Term("middle", ("in the middle", "at the centre")),
        Term("right", ("on the right", "at the right edge")),
    ),
    (
        Term("bottom left", ("at the bottom left", "in the lower left corner")),
        Term("bottom", ("at the bottom", "near the lower edge")),
        Term("bottom right", ("at the bottom right", "in the lower right corner")),
    ),
)
"""Places in the picture, row by row from the top left: where an object's centre lies."""

COUNT_WORDS = ("no", "one", "two", "three", "four")
THING_WORDS = ("thing", "object", "shape")


def draw(rng: np.random.Generator, ranked: Sequence[T]) -> T:
    """Draw an item with a probability that falls off as 1/rank.

    >>> rng = np.random.default_rng(0)
    >>> drawn = [draw(rng, "abc") for _ in range(1100)]
    >>> drawn.count("a") > drawn.count("b") > drawn.count("c")
    True
    """
    # Only uniform numbers are drawn: their stream is the same in all releases of NumPy.
    remaining = rng.random() * sum(1 / rank for rank in range(1, len(ranked) + 1))
    for rank, item in enumerate(ranked, start=1):
        remaining -= 1 / rank
        if remaining < 0:
            return item
    return ranked[-1]


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """Draw an item, each with the same probability."""
    return items[min(int(rng.random() * len(items)), len(items) - 1)]
