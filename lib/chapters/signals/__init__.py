"""The chapter on what the scheduler sees."""
