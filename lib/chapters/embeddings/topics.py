"""What an image is of: the corpus's ground truth, or a topic that its captions agree on.

Flickr8k has no labels. Its topics come from captions by a small open lexicon, when they are needed:
a caption never leaves this module. The lexicon was written with the training captions in view and
before any embedding was measured.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from lib.datasets import Sample

TOPICS: Mapping[str, tuple[str, ...]] = {
    "dogs": (
        "dog", "dogs", "puppy", "puppies", "doggy", "greyhound", "greyhounds", "poodle", "collie",
        "retriever", "labrador", "dalmatian",
    ),
    "water": (
        "water", "pool", "swim", "swims", "swimming", "swimmer", "swimmers", "ocean", "sea", "lake",
        "river", "waterfall", "beach", "surf", "surfs", "surfing", "surfer", "surfers", "surfboard",
        "wave", "waves", "boat", "boats", "canoe", "kayak", "kayaker", "kayaking", "raft",
        "rafting",
    ),
    "ball games": (
        "soccer", "football", "basketball", "baseball", "tennis", "volleyball", "rugby", "hockey",
        "lacrosse", "softball",
    ),
    "wheels": (
        "bike", "bikes", "biker", "bikers", "biking", "bicycle", "bicycles", "bicyclist",
        "bicyclists", "cyclist", "cyclists", "cycling", "bmx", "motorcycle", "motorcycles",
        "motorcyclist", "motorcyclists", "motorbike", "skateboard", "skateboards", "skateboarder",
        "skateboarders", "skateboarding", "skater", "skaters", "skating", "rollerblader",
        "rollerblading",
    ),
    "snow": (
        "snow", "snowy", "snowboard", "snowboarder", "snowboarders", "snowboarding", "ski", "skis",
        "skier", "skiers", "skiing", "sled", "sledding", "snowball", "snowman",
    ),
    "streets": (
        "street", "streets", "sidewalk", "city", "crowd", "crowded", "bus", "subway", "traffic",
        "crosswalk", "downtown",
    ),
    "mountains": (
        "mountain", "mountains", "mountainside", "cliff", "cliffs", "climb", "climbs", "climbing",
        "climber", "climbers", "hike", "hiker", "hikers", "hiking",
    ),
    "playgrounds": ("playground", "swing", "swings", "slide", "slides", "trampoline"),
}  # fmt: skip
"""Topics and the words that name them, in lower case; no word names two topics."""


def topic_of(captions: Sequence[str]) -> str | None:
    """Return the topic that more than half of an image's captions name, more than any other topic.

    A caption may name several topics. None is returned if there is no such topic or two tie.

    >>> topic_of(["A dog runs .", "Two dogs", "A puppy in the snow", "An animal", "It runs ."])
    'dogs'
    >>> topic_of(["A dog in the snow"]) is None
    True
    """
    words = [set(re.findall(r"[a-z]+", caption.lower())) for caption in captions]
    votes = {t: sum(not w.isdisjoint(named) for w in words) for t, named in TOPICS.items()}
    most = max(votes.values())
    leading = [topic for topic, count in votes.items() if count == most]
    return leading[0] if 2 * most > len(captions) and len(leading) == 1 else None


def image_labels(samples: Sequence[Sample], field: str = "background") -> list[str | None]:
    """Return what each image is of, None if that is not clear.

    Args:
        samples: Of one corpus.
        field: The ground truth to take if the corpus has any. The background of ``Scenes`` is the
            one attribute that fills the picture and has enough images of each kind.

    Raises:
        ValueError: The corpus has ground truth, but no such field.

    >>> image_labels([Sample("a.jpg", ("A dog .",), "test"), Sample("b.jpg", (), "test")])
    ['dogs', None]
    """
    labels: list[str | None] = []
    for sample in samples:
        if sample.labels and field not in sample.labels:
            raise ValueError(
                f"{sample.id} has no label {field!r}; it has {', '.join(sample.labels)}"
            )
        labels.append(str(sample.labels[field]) if sample.labels else topic_of(sample.captions))
    return labels


def lexicon_digest() -> str:
    """Return a short hash of :data:`TOPICS`: it names what was measured with these topics."""
    return hashlib.sha256(json.dumps(dict(TOPICS)).encode()).hexdigest()[:12]
