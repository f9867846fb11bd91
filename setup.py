"""Offer the core under a second name, for projects with a ``lib`` of their own.

All else about the package is in pyproject.toml, which cannot list packages found by pattern beside
others that are the same files under another name.
"""

from setuptools import find_packages, setup

CORE = ("adapters", "losses", "metrics", "rivals", "schedulers")

setup(
    packages=[
        *find_packages(include=["lib", "lib.*"]),
        "variance_study",
        *(f"variance_study.{name}" for name in CORE),
    ],
    package_dir={"variance_study": "lib"},
)
