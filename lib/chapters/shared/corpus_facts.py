"""The size of a corpus, as numbers that may be published."""

import pandas as pd

from lib.training import Lab

SPLITS = {"train": "train", "val": "validation", "test": "test"}


def corpus_facts(lab: Lab, corpus: str, on_bad_sample: str = "error") -> pd.DataFrame:
    """Return one row per split: images, captions, words per caption, distinct words.

    The table is kept in the store, so that it can be shown without the corpus.
    """

    def compute() -> pd.DataFrame:
        loaded = lab.load_corpus(corpus, on_bad_sample)
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
    return lab.store.table("corpus-facts", key, compute)
