"""What several tests of training share."""

import pytest
from synthetic import synthetic_features


@pytest.fixture(scope="module")
def features():
    return synthetic_features()
