"""The drawing of a scene.

It uses only single additions, products, quotients, square roots and comparisons of 32-bit numbers.
IEEE 754 fixes every bit of their results, so a picture is the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from lib.datasets.scenes.layout import Scene, SceneObject
from lib.datasets.scenes.vocabulary import Rgb

Plane = NDArray[np.float32]


def paint(scene: Scene, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a scene.

    Args:
        scene: The scene.
        size: Side of the picture in pixels.
        rng: The generator of what no caption mentions: shades, grain, clutter, where light comes
            from.

    Returns:
        (size, size, 3) 8-bit sRGB.
    """
    steps = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = np.broadcast_to(steps, (size, size)), np.broadcast_to(steps[:, None], (size, size))
    canvas = _background(scene.background.name, scene.background.rgb, x, y, rng)
    _clutter(canvas, rng)
    for thing in reversed(scene.objects):
        _draw_object(canvas, thing, steps, rng)
    _light(canvas, scene.light.name, x, y, rng)
    canvas += (_uniform(rng, canvas.shape) - np.float32(0.5)) * np.float32(14 + 42 * rng.random())
    pixels: NDArray[np.uint8] = np.clip(canvas + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Plane:
    return rng.random(shape, dtype=np.float32)


def _smooth_noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> Plane:
    """Return (size, size) noise in [0, 1]: a random grid, interpolated linearly."""
    noise = _uniform(rng, (rows + 1, columns + 1))
    for axis, cells in ((0, rows), (1, columns)):
        at = np.arange(size, dtype=np.float32) * np.float32(cells) / np.float32(size)
        low = at.astype(np.intp)
        share = at - low.astype(np.float32)
        share = share[:, None] if axis == 0 else share
        first, second = np.take(noise, low, axis), np.take(noise, low + 1, axis)
        noise = first + (second - first) * share
    return noise


def _background(name: str, rgb: Rgb, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    size = len(x)
    shade = 24 * (_smooth_noise(rng, size, 3, 3) - np.float32(0.5))
    offset = np.float32(rng.random())
    if name == "grass":
        shade += 70 * (_smooth_noise(rng, size, size // 6, size // 2) - np.float32(0.5))
    elif name == "sand":
        shade += 40 * (_uniform(rng, (size, size)) - np.float32(0.5))
    elif name == "water":
        wave = y * np.float32(14) + np.float32(2.5) * _smooth_noise(rng, size, 4, 5)
        shade += 44 * _triangle_wave(wave)
    elif name == "planks":
        lines = _modulo(y * np.float32(5) + offset)
        grain = _smooth_noise(rng, size, size // 3, 4) - np.float32(0.5)
        shade += 34 * grain - 55 * (lines < np.float32(0.08))
    elif name == "snow":
        shade += 26 * (_smooth_noise(rng, size, 9, 9) - np.float32(0.5))
    elif name == "bricks":
        row = y * np.float32(9) + offset
        shift = _modulo(np.floor(row) * np.float32(0.5))
        mortar = (_modulo(row) < np.float32(0.14)) | (
            _modulo(x * np.float32(4.5) + shift) < np.float32(0.07)
        )
        shade += 60 * mortar + 22 * (_smooth_noise(rng, size, 18, 18) - np.float32(0.5))
    elif name == "night":
        shade += 190 * (_uniform(rng, (size, size)) > np.float32(0.994))
    elif name == "clouds":
        shade += 75 * (_smooth_noise(rng, size, 4, 3) - np.float32(0.5))
    else:
        lines = np.minimum(_modulo(x * np.float32(6) + offset), _modulo(y * np.float32(6) + offset))
        shade -= 60 * (lines < np.float32(0.09))
    tint = np.array(rgb, np.float32) + np.float32(24) * (_uniform(rng, (3,)) - np.float32(0.5))
    canvas: Plane = (shade[:, :, None] + tint).astype(np.float32)
    return canvas


def _clutter(canvas: Plane, rng: np.random.Generator) -> None:
    """Scatter twigs and pebbles that no caption mentions."""
    size = len(canvas)
    for _ in range(int(rng.random() * 14)):
        height, width = (1 + int(rng.random() * size / 14) for _ in "hw")
        top, left = int(rng.random() * (size - height)), int(rng.random() * (size - width))
        change = np.float32(120) * (_uniform(rng, (1,)) - np.float32(0.5))
        canvas[top : top + height, left : left + width] += change


def _draw_object(canvas: Plane, thing: SceneObject, steps: Plane, rng: np.random.Generator) -> None:
    size = len(canvas)
    low_x, low_y = (max(int((c - 1.3 * thing.radius) * size), 0) for c in (thing.x, thing.y))
    high_x, high_y = (int((c + 1.3 * thing.radius) * size) + 2 for c in (thing.x, thing.y))
    dx = (steps[low_x:high_x] - np.float32(thing.x)) / np.float32(thing.radius)
    dy = (steps[low_y:high_y, None] - np.float32(thing.y)) / np.float32(thing.radius)
    cos, sin = (np.float32(part) for part in thing.turn)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    patch = canvas[low_y:high_y, low_x:high_x]
    edge = np.float32(thing.radius * size)

    # A soft shadow to the lower right, then the object itself.
    shift = np.float32(0.16)
    shadow = np.clip(
        np.float32(0.5) - _distance(thing.shape.name, u - shift, v - shift) * np.float32(5), 0, 1
    )
    patch *= np.float32(1) - np.float32(0.35) * shadow[:, :, None]
    inside = np.clip(np.float32(0.5) - _distance(thing.shape.name, u, v) * edge, 0, 1)
    jitter = np.float32(50) * (_uniform(rng, (3,)) - np.float32(0.5))
    colour = np.array(thing.colour.rgb, np.float32) + jitter
    # The second colour of a texture is a lighter shade; that of a light colour is a darker one.
    light_enough = colour.sum() < np.float32(420)
    second = (
        colour * np.float32(0.45) + np.float32(140) if light_enough else colour * np.float32(0.5)
    )
    pattern = _texture(thing.texture.name, u, v, rng)[:, :, None]
    shading = np.float32(1) - np.float32(0.2) * np.clip(u + v, -1, 1)[:, :, None]
    surface = (colour + (second - colour) * pattern) * shading
    patch += (surface - patch) * inside[:, :, None]


def _distance(shape: str, u: Plane, v: Plane) -> Plane:
    """Return how far points lie outside a shape of radius 1, negative inside."""
    f = np.float32
    outside: Plane
    if shape == "ball":
        outside = _length(u, v) - f(0.9)
    elif shape == "box":
        outside = np.maximum(np.abs(u), np.abs(v)) - f(0.75)
    elif shape == "triangle":
        outside = np.maximum(np.abs(u) * f(0.8944) - v * f(0.4472) - f(0.42), v - f(0.7))
    elif shape == "star":
        normals = ((0, -1), (0.9511, -0.309), (0.5878, 0.809), (-0.5878, 0.809), (-0.9511, -0.309))
        sides = np.stack([u * f(a) + v * f(b) - f(0.33) for a, b in normals])
        # A pentagram is what lies within at least four of its five lines.
        outside = np.sort(sides, axis=0)[-2]
    elif shape == "ring":
        outside = np.abs(_length(u, v) - f(0.7)) - f(0.22)
    elif shape == "cross":
        long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
        outside = np.maximum(long - f(0.9), short - f(0.27))
    elif shape == "pill":
        outside = _length(np.maximum(np.abs(u) - f(0.55), 0), v) - f(0.4)
    elif shape == "heart":
        # A square on its corner, and a disc on each of its upper sides.
        square = (np.abs(u) + np.abs(v - f(0.05))) * f(0.7071) - f(0.509)
        lobes = _length(np.abs(u) - f(0.36), v + f(0.31)) - f(0.509)
        outside = np.minimum(square, lobes)
    elif shape == "crescent":
        outside = np.maximum(_length(u, v) - f(0.9), f(0.75) - _length(u - f(0.42), v))
    elif shape == "arrow":
        head = np.maximum(np.abs(v) * f(0.75) + u * f(0.66) - f(0.6), -u)
        shaft = np.maximum(np.abs(u + f(0.4)) - f(0.5), np.abs(v) - f(0.22))
        outside = np.minimum(head, shaft)
    elif shape == "hexagon":
        outside = np.maximum(np.abs(u) * f(0.866) + np.abs(v) * f(0.5), np.abs(v)) - f(0.78)
    else:
        outside = (np.abs(u) + np.abs(v)) * f(0.7071) - f(0.64)
    return outside


def _length(u: Plane, v: Plane) -> Plane:
    length: Plane = np.sqrt(u * u + v * v)
    return length


def _modulo(values: Plane) -> Plane:
    return values - np.floor(values)


def _triangle_wave(values: Plane) -> Plane:
    wave: Plane = np.abs(_modulo(values) - np.float32(0.5)) - np.float32(0.25)
    return wave


def _texture(name: str, u: Plane, v: Plane, rng: np.random.Generator) -> Plane:
    """Return where the second colour shows: 0 or 1 per point."""
    half = np.float32(0.5)
    if name == "striped":
        bands = _modulo((u if rng.random() < 0.5 else v) * np.float32(2.2)) < half
    elif name == "checked":
        bands = (_modulo(u * np.float32(1.3)) < half) != (_modulo(v * np.float32(1.3)) < half)
    elif name == "spotted":
        scale = np.float32(2.4)
        bands = _length(_modulo(u * scale) - half, _modulo(v * scale) - half) < np.float32(0.3)
    elif name == "speckled":
        bands = _uniform(rng, (v.shape[0], u.shape[1])) < np.float32(0.3)
    else:
        bands = np.zeros((v.shape[0], u.shape[1]), np.bool_)
    return bands.astype(np.float32)


def _light(canvas: Plane, light: str, x: Plane, y: Plane, rng: np.random.Generator) -> None:
    """Light the scene from one side, in a tint; dim scenes are dark, bright ones washed out."""
    across, down = (np.float32(0.6 * rng.random() - 0.3) for _ in "xy")
    falloff = np.float32(1) + across * (x - np.float32(0.5)) + down * (y - np.float32(0.5))
    gain = np.float32({"dim": 0.45, "even": 0.9, "bright": 1.0}[light] + 0.15 * rng.random())
    cast = np.float32(0.94) + np.float32(0.12) * _uniform(rng, (3,))
    canvas *= falloff[:, :, None] * (gain * cast)
    if light == "bright":
        canvas *= np.float32(0.78)
        canvas += np.float32(60)
