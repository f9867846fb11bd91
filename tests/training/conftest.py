"""What several tests of training share."""

import pytest
from small_runs import fresh
from synthetic import synthetic_features

from lib.training import train


@pytest.fixture(scope="module")
def features():
    return synthetic_features()


@pytest.fixture
def train_small(features, tmp_path):
    """Trains runs on the features, into the test's store of a name."""

    def train_into(configs, name="runs", **options):
        options = {"store": fresh(tmp_path, name), "features": features, "device": "cpu"} | options
        return train(configs, **options)

    return train_into
