"""Equations: the MathML of the pages, and faults that are reported."""

import xml.etree.ElementTree as ElementTree

import pytest

from lib.study.book.equations import EquationError, mathml

NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"


def test_a_fraction_has_two_parts():
    element = ElementTree.fromstring(mathml(r"\frac{a}{b + 1}", display=True))
    assert element.get("display") == "block"
    (fraction,) = element.iter(f"{NAMESPACE}mfrac")
    assert ["".join(part.itertext()) for part in fraction] == ["a", "b+1"]


def test_text_is_escaped():
    element = ElementTree.fromstring(mathml(r"a < b \text{ & <script>}"))
    assert "<script>" in "".join(element.itertext())


@pytest.mark.parametrize("latex", [r"\frac{a}", r"\nosuchcommand{a}", r"\left( a", "{"])
def test_an_equation_that_cannot_be_typeset_is_named(latex):
    with pytest.raises(EquationError, match="cannot typeset") as caught:
        mathml(latex)
    assert repr(latex) in str(caught.value)
