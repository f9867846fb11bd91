"""``python -m lib.study`` is the ``study`` command."""

from lib.study import main

main()
