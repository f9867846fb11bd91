"""The ``study`` command: the catalogue of notebooks and profiles, and their execution."""

from lib.study.commands import main

__all__ = ["main"]
