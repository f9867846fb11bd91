"""A lab that cannot train or load, for tables that must be read from the store."""

from lib.runs import Store
from lib.training import Lab


class IdleLab(Lab):
    """A lab that raises an error instead of working, by default with this machine's store."""

    def __init__(self, store=None):
        super().__init__(store or Store())

    def _refuse(self, *_arguments):
        raise AssertionError("the table must be read from the store, not made")

    train = retrain = load_corpus = _refuse
