"""The error of the book's sources and pages."""


class BookError(ValueError):
    """The book can't be built, or a built page is broken; the text names every fault."""
