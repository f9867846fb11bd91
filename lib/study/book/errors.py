"""What goes wrong with the book's sources or pages."""


class BookError(ValueError):
    """The book can't be built, or a built page is broken; the text names each culprit."""
