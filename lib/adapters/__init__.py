"""The scheduled loss in other libraries' training loops, one module per library.

Each module needs only its library (``pip install '.[adapters]'`` installs all). The rest of ``lib``
imports none of them.
"""
