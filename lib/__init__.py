"""Models, schedulers, metrics and the runs of the study, one module a noun."""
