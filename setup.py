"""Install the core under a second name, for projects that have a ``lib`` of their own.

Everything else is in pyproject.toml, which can find packages by a pattern or give a folder a second
name, but not both.
"""

from setuptools import find_packages, setup

CORE = ("adapters", "losses", "metrics", "models", "rivals", "schedulers")

setup(
    packages=[
        *find_packages(include=["lib", "lib.*"]),
        "variance_study",
        *(f"variance_study.{name}" for name in CORE),
    ],
    package_dir={"variance_study": "lib"},
)
