"""A scene as a value: its objects, with looks and positions, its background and its light."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from lib.datasets.scenes.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    LIGHTS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    Background,
    Colour,
    Term,
    draw,
    pick,
)

COUNTS = (2, 3, 4, 1)
"""Objects per scene, from the most to the least frequent."""
RADII = {"small": 0.07, "medium": 0.11, "large": 0.17}
"""Mean radius of an object by its size, as a share of the picture's side."""
LEAST_CONTRAST = 90.0
"""Least distance in 8-bit RGB between the colours of an object and the background."""
VISIBLE: Mapping[str, tuple[Colour, ...]] = {
    ground.name: tuple(c for c in COLOURS if math.dist(c.rgb, ground.rgb) >= LEAST_CONTRAST)
    for ground in BACKGROUNDS
}
"""The colours that stand out from each background."""


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene; positions and lengths are shares of the picture's side.

    Attributes:
        shape, colour, texture, size: Its attributes.
        x, y: Its centre, from the left and from the top.
        radius: Radius of the circle around it.
        turn: Its rotation as (cos, sin).
    """

    shape: Term
    colour: Colour
    texture: Term
    size: Term
    x: float
    y: float
    radius: float
    turn: tuple[float, float]

    @property
    def place(self) -> Term:
        """The ninth of the picture with the centre."""
        return PLACES[min(int(self.y * 3), 2)][min(int(self.x * 3), 2)]


@dataclass(frozen=True)
class Scene:
    """The content of a picture; the main object comes first and is in front of the others."""

    objects: tuple[SceneObject, ...]
    background: Background
    light: Term

    @property
    def labels(self) -> dict[str, str | int]:
        """The ground truth: the main object's attributes, the background, the light, the count."""
        main = self.objects[0]
        return {
            "shape": main.shape.name,
            "colour": main.colour.name,
            "texture": main.texture.name,
            "size": main.size.name,
            "place": main.place.name,
            "background": self.background.name,
            "light": self.light.name,
            "count": len(self.objects),
        }


def scene_generator(seed: int, split: str, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose (layout, captions, pixels) of one scene.

    Its numbers do not depend on the length of the split, or on other splits and purposes.
    """
    return np.random.default_rng([crc32(f"scenes {split} {purpose}".encode()), seed, index])


def compose(rng: np.random.Generator) -> Scene:
    """Draw a scene."""
    background = draw(rng, BACKGROUNDS)
    light = draw(rng, LIGHTS)
    objects: list[SceneObject] = []
    for _ in range(draw(rng, COUNTS)):
        objects.append(_place(rng, background, objects))
    return Scene(tuple(objects), background, light)


def _place(
    rng: np.random.Generator, background: Background, others: list[SceneObject]
) -> SceneObject:
    shape, texture = draw(rng, SHAPES), draw(rng, TEXTURES)
    colour = draw(rng, VISIBLE[background.name])
    # The main object must stand out, so it is not small.
    size = draw(rng, SIZES if others else [s for s in SIZES if s.name != "small"])
    radius = RADII[size.name] * (0.9 + 0.2 * rng.random())
    best: tuple[float, float, float] = (-2.0, 0.5, 0.5)
    for _ in range(12):
        x, y = (radius + rng.random() * (1 - 2 * radius) for _ in "xy")
        gap = min((_distance(x, y, o) - radius - o.radius for o in others), default=0.0)
        best = max(best, (min(gap, 0.0), x, y))
        if gap >= 0:
            break
    turn = pick(rng, _TURNS)
    return SceneObject(shape, colour, texture, size, best[1], best[2], radius, turn)


def _distance(x: float, y: float, other: SceneObject) -> float:
    return math.sqrt((x - other.x) ** 2 + (y - other.y) ** 2)


# Small turns: a box on its corner would be a diamond. The numbers are written out, not computed,
# since the last bit of a sine differs between machines.
_TURNS = (
    (1.0, 0.0),
    (0.9962, 0.0872),
    (0.9962, -0.0872),
    (0.9848, 0.1736),
    (0.9848, -0.1736),
    (0.9659, 0.2588),
    (0.9659, -0.2588),
)
