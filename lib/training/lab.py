"""Where runs are kept, and on what and where they train, as one value that is passed down."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from lib.datasets import Corpus, load_corpus
from lib.encoders import Features
from lib.models import DualEncoder
from lib.runs import RunConfig, RunRecord, Store
from lib.training.data import TrainingData
from lib.training.trainer import retrain, train


@dataclass(frozen=True)
class Lab:
    """What all runs of a notebook share besides their configurations.

    Attributes:
        store: Where finished runs and tables are kept.
        corpus_root: Folder of a corpus on disk; empty for the usual places.
        device, executor: As for :func:`lib.training.train`.
        features: Tower outputs to use instead of loading a corpus.
    """

    store: Store
    corpus_root: str = ""
    device: str = "auto"
    executor: Executor | str | None = None
    features: Features | None = None

    def train(self, configs: Sequence[RunConfig]) -> list[RunRecord]:
        """Return the records of runs, as :func:`lib.training.train` does."""
        where = {"corpus_root": self.corpus_root, "device": self.device}
        store, features, executor = self.store, self.features, self.executor
        return train(configs, store=store, features=features, executor=executor, **where)

    def retrain(
        self, configs: Sequence[RunConfig]
    ) -> Iterator[tuple[RunConfig, DualEncoder, TrainingData]]:
        """Yield the heads of runs, as :func:`lib.training.retrain` does."""
        where = {"corpus_root": self.corpus_root, "device": self.device}
        return retrain(configs, store=self.store, features=self.features, **where)

    def load_corpus(self, name: str, on_bad_sample: str = "error") -> Corpus:
        """Load a corpus by name from its folder, and check it."""
        return load_corpus(name, root=self.corpus_root, on_bad_sample=on_bad_sample)
