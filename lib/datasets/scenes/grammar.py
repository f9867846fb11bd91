"""A small English grammar that makes captions of a scene, from vague to precise.

A caption is true of its scene; which details it names, and in which order, is random.
"""

from collections.abc import Callable

import numpy as np

from lib.datasets.scenes.layout import Scene, SceneObject
from lib.datasets.scenes.vocabulary import COUNT_WORDS, THING_WORDS, Term, draw, pick

CAPTIONS_PER_SCENE = 5
NEAR = 0.45
"""Centres within this share of the picture's side are near each other."""

Rng = np.random.Generator


def describe(scene: Scene, rng: Rng) -> tuple[str, ...]:
    """Return five captions of a scene, no two of the same kind or wording.

    One is always precise and one vague; the kinds of the others are random.
    """
    kinds = [_listing, _counting, _notes, _place_first, _behind_first, _with_light]
    if len(scene.objects) > 1:
        kinds += [_relation, _relation_from_the_other, _pair]
    chosen: list[Callable[[Scene, Rng], str]] = [_precise, _vague]
    while len(chosen) < CAPTIONS_PER_SCENE:
        chosen.append(kinds.pop(min(int(rng.random() * len(kinds)), len(kinds) - 1)))
    captions: list[str] = []
    for kind in sorted(chosen, key=lambda _: rng.random()):
        caption = _sentence(kind(scene, rng))
        while caption in captions:
            caption = _sentence(kind(scene, rng))
        captions.append(caption)
    return tuple(captions)


def _precise(scene: Scene, rng: Rng) -> str:
    main = scene.objects[0]
    verb = pick(rng, ("", " lies", " is"))
    place = f" {draw(rng, main.place.words)}" if rng.random() < 0.6 else ""
    return f"{_full(main, rng)}{verb}{place} {_behind(scene, rng)}"


def _vague(scene: Scene, rng: Rng) -> str:
    thing = _any(scene, rng)
    others = [other for other in scene.objects if other is not thing]
    what = pick(
        rng,
        (
            f"something {_word(thing.colour, rng)}",
            _article(f"{_word(thing.texture, rng)} {draw(rng, THING_WORDS)}"),
            _article(f"{_word(thing.size, rng)} {draw(rng, THING_WORDS)}"),
            _article(_word(thing.shape, rng)),
        ),
    )
    if others and rng.random() < 0.6:
        other = pick(rng, others)
        return f"{what} {_relative(thing, other, rng)} {_article(_word(other.shape, rng))}"
    return f"{what} {_behind(scene, rng)}"


def _listing(scene: Scene, rng: Rng) -> str:
    phrases = [_brief(thing, rng) for thing in scene.objects]
    if rng.random() < 0.5:
        phrases.reverse()
    if len(phrases) > 1:
        phrases = [", ".join(phrases[:-1]) + " and " + phrases[-1]]
    return phrases[0] + (f" {_behind(scene, rng)}" if rng.random() < 0.5 else "")


def _counting(scene: Scene, rng: Rng) -> str:
    count = len(scene.objects)
    things = f"{COUNT_WORDS[count]} {draw(rng, THING_WORDS)}{'s' if count > 1 else ''}"
    named = _brief(_any(scene, rng), rng)
    return f"{things} {_behind(scene, rng)}, {'one of them ' if count > 1 else ''}{named}"


def _notes(scene: Scene, rng: Rng) -> str:
    main = scene.objects[0]
    words = [_word(main.shape, rng), _word(main.colour, rng)]
    if main.texture.name != "plain":
        words.append(_word(main.texture, rng))
    if rng.random() < 0.5:
        words.append(_behind(scene, rng))
    return ", ".join(words)


def _place_first(scene: Scene, rng: Rng) -> str:
    thing = _any(scene, rng)
    verb = pick(rng, ("there is", "one sees", "lies"))
    return f"{draw(rng, thing.place.words)} {verb} {_full(thing, rng)}"


def _behind_first(scene: Scene, rng: Rng) -> str:
    things = [_brief(thing, rng) for thing in scene.objects[:2]]
    verb = "are" if len(things) > 1 else "is"
    return f"{_behind(scene, rng)} there {verb} {' and '.join(things)}"


def _with_light(scene: Scene, rng: Rng) -> str:
    picture = pick(rng, ("a picture", "a photo", "a view"))
    return f"{picture} of {_brief(scene.objects[0], rng)} {draw(rng, scene.light.words)}"


def _relation(scene: Scene, rng: Rng) -> str:
    main, other = scene.objects[0], pick(rng, scene.objects[1:])
    verb = pick(rng, ("", " is", " lies"))
    return f"{_brief(main, rng)}{verb} {_relative(main, other, rng)} {_brief(other, rng)}"


def _relation_from_the_other(scene: Scene, rng: Rng) -> str:
    main, other = scene.objects[0], pick(rng, scene.objects[1:])
    return f"{_full(other, rng)} {_relative(other, main, rng)} {_article(_word(main.shape, rng))}"


def _pair(scene: Scene, rng: Rng) -> str:
    other = pick(rng, scene.objects[1:])
    first, second = _full(scene.objects[0], rng), _brief(other, rng)
    return f"{second} and {first}" if rng.random() < 0.5 else f"{first} with {second}"


def _any(scene: Scene, rng: Rng) -> SceneObject:
    return draw(rng, scene.objects)


def _word(term: Term, rng: Rng) -> str:
    return draw(rng, term.words)


def _behind(scene: Scene, rng: Rng) -> str:
    return _word(scene.background, rng)


def _full(thing: SceneObject, rng: Rng) -> str:
    """Name an object by its attributes in one of two orders; usual ones are mostly left out."""
    colour, shape = _word(thing.colour, rng), _word(thing.shape, rng)
    size = "" if thing.size.name == "medium" and rng.random() < 0.8 else _word(thing.size, rng)
    texture = "" if thing.texture.name == "plain" else _word(thing.texture, rng)
    if texture and rng.random() < 0.3:
        return f"{_article(' '.join(filter(None, (size, shape))))}, {colour} and {texture},"
    return _article(" ".join(filter(None, (size, colour, texture, shape))))


def _brief(thing: SceneObject, rng: Rng) -> str:
    """Name an object by its shape and perhaps its colour, size or texture."""
    words = [_word(thing.shape, rng)]
    if thing.texture.name != "plain" and rng.random() < 0.3:
        words.insert(0, _word(thing.texture, rng))
    if rng.random() < 0.7:
        words.insert(0, _word(thing.colour, rng))
    if thing.size.name != "medium" and rng.random() < 0.3:
        words.insert(0, _word(thing.size, rng))
    return _article(" ".join(words))


def _relative(thing: SceneObject, other: SceneObject, rng: Rng) -> str:
    """Return the direction of ``thing`` from ``other``."""
    across, down = thing.x - other.x, thing.y - other.y
    if across**2 + down**2 < NEAR**2 and rng.random() < 0.35:
        return pick(rng, ("near", "next to", "close to"))
    if abs(across) >= abs(down):
        side = "left" if across < 0 else "right"
        return pick(rng, (f"{side} of", f"to the {side} of"))
    return pick(rng, ("above", "over") if down < 0 else ("below", "under"))


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _sentence(text: str) -> str:
    text = text.rstrip(",")
    return f"{text[0].upper()}{text[1:]}."
