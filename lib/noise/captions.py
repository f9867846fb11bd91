"""Noise in a caption: words dropped, swapped, replaced, mistyped or shuffled.

Blanks separate a caption's pieces. A word is a piece with a letter or a digit, including attached
punctuation; other pieces are never changed. Severity s, 1 to 5, changes s/10 of
the words (s/5 in a shuffle), rounded half up, and at least one.
"""

import string
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lib.noise.checks import check_noise

Words = list[str]
Draws = np.random.Generator

_ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")


def _neighbours() -> dict[str, str]:
    """Return the keys around each key; each row of the keyboard is half a key further right."""
    keys = {(row, at): key for row, keys in enumerate(_ROWS) for at, key in enumerate(keys)}
    around = ((0, -1), (0, 1), (-1, 0), (-1, 1), (1, -1), (1, 0))
    return {
        key: "".join(keys[row + y, at + x] for y, x in around if (row + y, at + x) in keys)
        for (row, at), key in keys.items()
    }


NEIGHBOURS: Mapping[str, str] = _neighbours()
"""Each letter and digit of a US keyboard, with the keys that touch it."""


def caption_words(caption: str) -> Words:
    """Return the words of a caption, lower case, without their punctuation.

    >>> caption_words("A dog , wet-nosed, runs .")
    ['a', 'dog', 'wet-nosed', 'runs']
    """
    return [_core(piece).lower() for piece in caption.split() if _is_word(piece)]


def corrupt_caption(
    caption: str, kind: str, severity: int, draws: Draws, vocabulary: Sequence[str]
) -> str:
    """Return a caption with noise of one kind; at least one word is left.

    Args:
        caption: Any text. A text without a word is returned unchanged.
        kind: A key of :data:`lib.noise.CAPTION_KINDS`.
        severity: 1 to 5.
        draws: The random generator.
        vocabulary: The words that ``"substitution"`` inserts: lower case, sorted, distinct.

    Returns:
        The caption with noise, its pieces one blank apart.

    Raises:
        ValueError: The kind or the severity is unknown.

    >>> draws = np.random.default_rng(0)
    >>> corrupt_caption("a brown dog runs .", "word drop", 3, draws, [])
    'a brown dog .'
    """
    check_noise(kind, severity, CAPTION_KINDS)
    pieces = caption.split()
    indices = [index for index, piece in enumerate(pieces) if _is_word(piece)]
    if not indices:
        return caption
    words = [pieces[index] for index in indices]
    changed = CAPTION_KINDS[kind](words, severity, draws, vocabulary)
    for index, word in zip(indices, changed, strict=True):
        pieces[index] = word
    return " ".join(piece for piece in pieces if piece)


def affected(words: int, severity: int, full: int = 10) -> int:
    """Return how many of ``words`` words are changed: severity/full, half up, at least one.

    >>> [affected(10, severity) for severity in (1, 3, 5)], affected(3, 5), affected(2, 1)
    ([1, 3, 5], 2, 1)
    """
    return min(words, max(1, (2 * severity * words + full) // (2 * full)))


def _drop(words: Words, severity: int, draws: Draws, _vocabulary: Sequence[str]) -> Words:
    """Leave words out, but keep at least one."""
    count = min(affected(len(words), severity), len(words) - 1)
    gone = set(draws.choice(len(words), count, replace=False).tolist())
    return ["" if index in gone else word for index, word in enumerate(words)]


def _swap(words: Words, severity: int, draws: Draws, _vocabulary: Sequence[str]) -> Words:
    """Exchange neighbours in disjoint pairs; the pairs are half as many as the changed words."""
    count = min(affected(len(words), severity, 20), len(words) // 2)
    # Draw with each pair as one item, so that all sets of disjoint pairs are equally likely.
    chosen = np.sort(draws.choice(len(words) - count, count, replace=False)) + np.arange(count)
    swapped = list(words)
    for first in chosen.tolist():
        swapped[first], swapped[first + 1] = words[first + 1], words[first]
    return swapped


def _substitute(words: Words, severity: int, draws: Draws, vocabulary: Sequence[str]) -> Words:
    """Replace words by others; all words of the vocabulary are equally likely."""
    replaced = list(words)
    for index in draws.choice(len(words), affected(len(words), severity), replace=False).tolist():
        core = _core(words[index])
        rank = bisect_left(vocabulary, core.lower())
        is_in = rank < len(vocabulary) and vocabulary[rank] == core.lower()
        others = len(vocabulary) - is_in
        if others:
            drawn = int(draws.integers(others))
            other = vocabulary[drawn + (is_in and drawn >= rank)]
            replaced[index] = words[index].replace(core, other, 1)
    return replaced


def _mistype(words: Words, severity: int, draws: Draws, _vocabulary: Sequence[str]) -> Words:
    """Make one typing error per changed word."""
    typed = list(words)
    for index in draws.choice(len(words), affected(len(words), severity), replace=False).tolist():
        typed[index] = _typing_error(words[index], draws)
    return typed


def _shuffle(words: Words, severity: int, draws: Draws, _vocabulary: Sequence[str]) -> Words:
    """Permute some words so that each of them moves."""
    count = min(max(2, affected(len(words), severity, 5)), len(words))
    order = draws.permutation(len(words))[:count]
    shuffled = list(words)
    for index, source in zip(order.tolist(), np.roll(order, 1).tolist(), strict=True):
        shuffled[index] = words[source]
    return shuffled


CAPTION_KINDS: Mapping[str, Callable[[Words, int, Draws, Sequence[str]], Words]] = {
    "word drop": _drop,
    "word swap": _swap,
    "substitution": _substitute,
    "typing errors": _mistype,
    "shuffled order": _shuffle,
}
"""The kinds of caption noise. Each maps words, a severity, draws and a vocabulary to as many words;
words that are left out are empty.

>>> list(CAPTION_KINDS)
['word drop', 'word swap', 'substitution', 'typing errors', 'shuffled order']
"""


def _typing_error(word: str, draws: Draws) -> str:
    """Replace a character by a neighbouring key, insert one, delete the character, or swap it with
    the next. The word changes, but does not become empty."""
    letters = [index for index, character in enumerate(word) if character.isalnum()]
    transposable = [index for index in letters[:-1] if word[index] != word[index + 1]]
    errors = ["replace", "insert"]
    if len(letters) > 1:
        errors.append("delete")
    if transposable:
        errors.append("transpose")
    error = errors[int(draws.integers(len(errors)))]
    candidates = transposable if error == "transpose" else letters
    index = candidates[int(draws.integers(len(candidates)))]
    before, typed, after = word[:index], word[index], word[index + 1 :]
    if error == "transpose":
        return before + after[0] + typed + after[1:]
    if error == "delete":
        return before + after
    keys = NEIGHBOURS.get(typed.lower(), "".join(_ROWS[1:]))
    key = keys[int(draws.integers(len(keys)))]
    return before + key + (typed if error == "insert" else "") + after


def _core(word: str) -> str:
    return word.strip(string.punctuation) or word


def _is_word(piece: str) -> bool:
    return any(character.isalnum() for character in piece)
