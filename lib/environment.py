"""Environment variables by which the ``study`` command speaks to the notebooks' processes."""

EXECUTOR_VARIABLE = "STUDY_EXECUTOR"
"""Names the executor of sweeps that are given none; :mod:`lib.training.executors` knows them."""
RECORDS_VARIABLE = "STUDY_RECORDS_LOG"
"""Names the file to which an execution adds what it used of the store, to be published with it."""
