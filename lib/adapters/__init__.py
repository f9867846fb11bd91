"""The scheduled loss in other libraries' training loops, one module a library.

Each module needs its library alone (``pip install '.[adapters]'`` installs them all) and nothing
here is imported by the rest of ``lib``.
"""
