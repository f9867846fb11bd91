"""A lab that refuses to train or load, for tables that must be read from the store."""

from lib.runs import Store
from lib.training import Lab


class IdleLab(Lab):
    """A lab with this machine's store that refuses all work."""

    def __init__(self, store=None):
        super().__init__(store or Store())

    def _refuse(self, *_arguments):
        raise AssertionError("the table was to be read, not made")

    train = retrain = load_corpus = _refuse
