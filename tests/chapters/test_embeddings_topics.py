"""Labels of images: majorities, ties, ground truth, and a lexicon that fits the corpus."""

from collections import Counter

import pytest

from lib.chapters.embeddings import topics
from lib.chapters.embeddings.topics import TOPICS, image_labels, lexicon_digest, topic_of
from lib.datasets import Sample, read_captions

DOG, SNOW, NONE = "A dog runs .", "There is snow .", "Somebody stands there ."


@pytest.mark.parametrize(
    ("captions", "topic"),
    [
        ([DOG] * 5, "dogs"),
        ([DOG, DOG, DOG, NONE, NONE], "dogs"),
        ([DOG, DOG, NONE, NONE, NONE], None),  # two of five are no majority
        ([DOG, DOG, NONE, NONE], None),  # nor is a half
        ([DOG, DOG, DOG, SNOW, SNOW], "dogs"),
        (["A dog in the snow ."] * 5, None),  # a tie
        (["A dog in the snow ."] * 3 + [SNOW, NONE], "snow"),
        (["DOG!", "dog, dog", '"Puppies"'], "dogs"),
        (["A hotdog", "dogma", "underdog"], None),  # no whole word
        ([DOG], "dogs"),
        ([], None),
        ([NONE] * 5, None),
    ],
)
def test_a_topic_is_what_most_captions_name(captions, topic):
    assert topic_of(captions) == topic
    assert topic_of(captions[::-1]) == topic


def test_a_word_names_one_topic():
    words = Counter(word for named in TOPICS.values() for word in named)
    assert words.most_common(1)[0][1] == 1
    assert all(word.isalpha() and word.islower() for word in words)


def test_ground_truth_comes_first():
    samples = [
        Sample("a", (DOG,), "test", {"background": "sand", "count": 3}),
        Sample("b", (SNOW,), "test", {"background": "snow", "count": 1}),
    ]
    assert image_labels(samples) == ["sand", "snow"]
    assert image_labels(samples, "count") == ["3", "1"]
    with pytest.raises(ValueError, match="a has no label 'colour'; it has background, count"):
        image_labels(samples, "colour")


def test_a_corpus_without_labels_gets_topics():
    samples = [Sample("a", (DOG, DOG), "test"), Sample("b", (NONE,), "test")]
    assert image_labels(samples) == ["dogs", None]


def test_another_lexicon_has_another_name(monkeypatch):
    name = lexicon_digest()
    assert name == lexicon_digest()
    monkeypatch.setattr(topics, "TOPICS", {**TOPICS, "cats": ("cat",)})
    assert lexicon_digest() != name


def test_the_lexicon_fits_flickr8k(flickr8k_root):
    """More than half of the test images have a topic, and no topic is too rare to be a cluster."""
    test = set((flickr8k_root / "Flickr_8k.testImages.txt").read_text().split())
    captions = {name: [] for name in test}
    for caption in read_captions(flickr8k_root / "Flickr8k.token.txt").captions:
        if caption.image in test:
            captions[caption.image].append(caption.text)
    found = Counter(topic_of(five) for five in captions.values())
    assert 0.5 < 1 - found[None] / len(test) < 0.65
    assert set(found) == {None, *TOPICS}
    assert min(found.values()) >= 20
