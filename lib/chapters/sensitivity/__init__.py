"""The chapter on sensitivity: the effect against n, and one factor at a time."""
