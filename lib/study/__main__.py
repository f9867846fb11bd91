"""``python -m lib.study`` is the ``study`` command."""

from lib.study.commands import main

main()
