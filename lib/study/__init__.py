"""The ``study`` command: the catalogue of notebooks and profiles, their execution, the book.

It imports nothing, since :mod:`lib.study.install` runs before the packages are there.
"""
