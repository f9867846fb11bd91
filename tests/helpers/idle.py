"""A lab in which nothing may be trained or loaded, for tables that are to be read."""

from lib.runs import Store
from lib.training import Lab


class IdleLab(Lab):
    """It has the store of this machine, and refuses all work."""

    def __init__(self, store=None):
        super().__init__(store or Store())

    def _refuse(self, *_arguments):
        raise AssertionError("the table was to be read, not made")

    train = retrain = load_corpus = _refuse
