"""What a corpus counts, as numbers that may be published, and examples where its licence allows."""

import base64
import html
import io

import pandas as pd
from IPython.display import HTML

from lib.datasets import CORPORA, load_corpus
from lib.figures import show_html
from lib.runs import Store
from lib.training import corpus_options

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def corpus_facts(corpus: str, on_bad_sample: str = "error", root: str = "") -> pd.DataFrame:
    """Return a row a split: images, captions, words a caption, distinct words.

    The table is kept in the store, so that it can be shown where the corpus isn't.
    """

    def compute() -> pd.DataFrame:
        loaded = load_corpus(corpus, **corpus_options(corpus, on_bad_sample, root))
        rows = []
        for split, name in SPLITS.items():
            samples = loaded.split(split)
            captions = [caption for sample in samples for caption in sample.captions]
            words = [caption.lower().split() for caption in captions]
            counts = [len(sample.captions) for sample in samples]
            rows.append(
                {
                    "split": name,
                    "images": len(samples),
                    "captions": len(captions),
                    "fewest captions an image": min(counts),
                    "most captions an image": max(counts),
                    "words a caption": sum(map(len, words)) / len(words),
                    "distinct words": len({word for caption in words for word in caption}),
                    "distinct captions": len(set(captions)),
                }
            )
        return pd.DataFrame(rows)

    key = {"corpus": corpus, "on_bad_sample": on_bad_sample}
    return Store().table("corpus-facts", key, compute)


def chance_recall(facts: pd.DataFrame) -> float:
    """Return R@1 of a random ranking of the test images, in percent."""
    return 100 / float(facts.set_index("split").loc["test", "images"])


def examples(corpus: str, count: int = 4) -> HTML:
    """Return the first training images with their captions, or a sentence in their place.

    Args:
        corpus: A name in :data:`lib.datasets.CORPORA`; it is loaded only if its images and captions
            may be shown.
        count: How many images.
    """
    if not CORPORA[corpus].redistributable:
        return show_html(
            "<p>The photographs and captions of this corpus may not be republished, so no example "
            "stands here.</p>"
        )
    loaded = load_corpus(corpus)
    figures = []
    for sample in loaded.split("train")[:count]:
        buffer = io.BytesIO()
        loaded.load_image(sample).save(buffer, format="PNG", optimize=True)
        picture = base64.b64encode(buffer.getvalue()).decode()
        lines = "".join(f"<li>{html.escape(caption)}</li>" for caption in sample.captions)
        figures.append(
            f'<figure><img alt="{html.escape(sample.captions[0])}" '
            f'src="data:image/png;base64,{picture}"><figcaption><ul>{lines}</ul></figcaption>'
            "</figure>"
        )
    return show_html(f'<div class="contact-sheet">{"".join(figures)}</div>')
