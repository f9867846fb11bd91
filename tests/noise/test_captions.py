"""Caption noise: how many words change, what stays unchanged, values worked by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.noise import CAPTION_KINDS, SEVERITIES, corrupt_caption
from lib.noise.captions import NEIGHBOURS, affected, caption_words

VOCABULARY = ("ball", "boat", "cat", "dog", "red")
kinds = st.sampled_from(sorted(CAPTION_KINDS))
severities = st.sampled_from(SEVERITIES)
seeds = st.integers(0, 2**32)
captions = st.lists(
    st.text("abcdogXé'3,.", min_size=1, max_size=7) | st.sampled_from([".", ",", "--"]),
    min_size=1,
    max_size=12,
).map(" ".join)
plain = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=14, unique=True)


def corrupted(caption, kind, severity, seed=0, vocabulary=VOCABULARY):
    return corrupt_caption(caption, kind, severity, np.random.default_rng(seed), vocabulary)


def changed(before, after):
    return sum(a != b for a, b in zip(before.split(), after.split(), strict=True))


@pytest.mark.parametrize(
    ("words", "tenths", "pairs", "fifths"),
    [
        # By hand: words · s / 10, words · s / 20 and words · s / 5, rounded half up, at least 1.
        (10, [1, 2, 3, 4, 5], [1, 1, 2, 2, 3], [2, 4, 6, 8, 10]),
        (7, [1, 1, 2, 3, 4], [1, 1, 1, 1, 2], [1, 3, 4, 6, 7]),
        (1, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_the_number_of_changed_words(words, tenths, pairs, fifths):
    assert [affected(words, severity) for severity in SEVERITIES] == tenths
    assert [affected(words, severity, 20) for severity in SEVERITIES] == pairs
    assert [affected(words, severity, 5) for severity in SEVERITIES] == fifths


@given(captions, kinds, severities, seeds)
def test_noise_depends_only_on_its_draws_and_leaves_a_word(caption, kind, severity, seed):
    once = corrupted(caption, kind, severity, seed)
    assert once == corrupted(caption, kind, severity, seed)
    assert bool(caption_words(once)) == bool(caption_words(caption))
    assert once.strip()


@given(plain, severities, seeds)
def test_each_kind_changes_as_many_words_as_its_severity_gives(words, severity, seed):
    caption, count = " ".join(words), len(words)
    hit = affected(count, severity)
    dropped = corrupted(caption, "word drop", severity, seed).split()
    assert len(dropped) == max(1, count - hit)
    rest = iter(words)
    # A subsequence: the remaining words keep their order.
    assert all(word in rest for word in dropped)

    pairs = min(affected(count, severity, 20), count // 2)
    swapped = corrupted(caption, "word swap", severity, seed)
    assert Counter(swapped.split()) == Counter(words)
    assert changed(caption, swapped) == 2 * pairs
    far = [abs(words.index(word) - place) for place, word in enumerate(swapped.split())]
    assert max(far) <= 1

    for kind in ("substitution", "typing errors"):
        assert changed(caption, corrupted(caption, kind, severity, seed)) == hit

    shuffled = corrupted(caption, "shuffled order", severity, seed)
    assert Counter(shuffled.split()) == Counter(words)
    moved = min(max(2, affected(count, severity, 5)), count) if count > 1 else 0
    assert changed(caption, shuffled) == moved


@given(captions, severities, seeds)
def test_punctuation_between_blanks_is_kept(caption, severity, seed):
    def alone(text):
        return [piece for piece in text.split() if not any(c.isalnum() for c in piece)]

    for kind in CAPTION_KINDS:
        assert alone(corrupted(caption, kind, severity, seed)) == alone(caption)


@given(st.sampled_from(["Dog", "dog,", "horse", "'red'"]), seeds)
def test_a_word_is_replaced_by_another_word_of_the_vocabulary(word, seed):
    replaced = corrupted(word, "substitution", 1, seed)
    core, other = word.strip("',"), replaced.strip("',")
    assert other in VOCABULARY
    assert other != core.lower()
    assert replaced == word.replace(core, other)  # The punctuation around the word stays.


def test_all_other_words_of_the_vocabulary_are_equally_likely():
    drawn = Counter(corrupted("cat", "substitution", 1, seed) for seed in range(4000))
    assert sorted(drawn) == ["ball", "boat", "dog", "red"]
    assert all(abs(count - 1000) < 120 for count in drawn.values())  # 4.4 standard deviations.


def test_without_another_word_the_caption_is_unchanged():
    assert corrupted("dog", "substitution", 5, vocabulary=("dog",)) == "dog"
    assert corrupted("dog", "substitution", 5, vocabulary=()) == "dog"


def test_neighbouring_keys_are_those_that_touch_on_a_keyboard():
    assert set(NEIGHBOURS["s"]) == set("adwezx")
    assert set(NEIGHBOURS["q"]) == set("12wa")
    assert set(NEIGHBOURS["p"]) == set("0ol")
    assert all(key in NEIGHBOURS[other] for key, others in NEIGHBOURS.items() for other in others)


def test_every_possible_typing_error_of_a_word_is_made_and_no_other():
    made = {corrupted("ok", "typing errors", 1, seed) for seed in range(3000)}
    replaced = {key + "k" for key in "90ipkl"} | {"o" + key for key in "jliom"}
    inserted = {key + "ok" for key in "90ipkl"} | {"o" + key + "k" for key in "jliom"}
    assert made == replaced | inserted | {"o", "k"} | {"ko"}


@given(st.text("abc'é7", min_size=1, max_size=5).filter(lambda t: any(map(str.isalnum, t))), seeds)
def test_a_typing_error_changes_a_word_and_its_length_by_at_most_one(word, seed):
    typed = corrupted(word, "typing errors", 5, seed)
    assert typed != word
    assert abs(len(typed) - len(word)) <= 1


def test_a_caption_without_words_is_unchanged():
    assert {corrupted(" . , ", kind, 5) for kind in CAPTION_KINDS} == {" . , "}


def test_each_kind_gives_the_caption_worked_by_hand():
    class Always:
        """A generator that always draws the first items, in their order."""

        def choice(self, count, size, replace):
            return np.arange(size)

        def permutation(self, count):
            return np.arange(count)

        def integers(self, count):
            return 0

    def first(kind, severity):
        return corrupt_caption("a red dog , runs on grass .", kind, severity, Always(), VOCABULARY)

    # Of six words, 3 change at severity 5 (6 in a shuffle) and 2 at severity 3 (4 in a shuffle).
    assert first("word drop", 5) == ", runs on grass ."
    assert first("word swap", 5) == "red a runs , dog on grass ."
    assert first("substitution", 3) == "ball ball dog , runs on grass ."
    assert first("typing errors", 3) == "s eed dog , runs on grass ."
    assert first("shuffled order", 3) == "runs a red , dog on grass ."


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("worddrop", 3, "noise 'worddrop' is unknown; use one of word drop, word swap"),
        ("JPEG", 3, "noise 'JPEG' is unknown"),
        ("word drop", 0, "severity = 0; use a whole number from 1 to 5"),
        ("word drop", 6, "severity = 6"),
        ("word drop", 2.5, "severity = 2.5"),
    ],
)
def test_an_unknown_kind_or_severity_is_refused_even_without_a_word(kind, severity, message):
    for caption in ("a dog runs", "..."):
        with pytest.raises(ValueError, match=message):
            corrupt_caption(caption, kind, severity, np.random.default_rng(0), [])
