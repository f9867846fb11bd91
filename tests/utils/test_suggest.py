"""Hints at the name that was meant."""

import pytest

from lib.utils.text import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "found"),
    [("epohcs", "epochs"), ("seed", "seeds"), ("epochs", "epochs"), ("xyz", None), ("", None)],
)
def test_the_nearest_name_and_its_hint(name, found):
    known = {"seeds": 1, "epochs": 2}
    assert nearest(name, known) == found
    assert did_you_mean(name, known) == (f" (did you mean '{found}'?)" if found else "")


def test_no_names_give_no_hint():
    assert nearest("epochs", []) is None
    assert did_you_mean("epochs", []) == ""
