"""Configurations and records of runs, and the store of finished runs."""

from lib.runs.bundle import Bundle, export_records, read_bundle
from lib.runs.config import (
    RESULTS_VERSION,
    CanonicalConfig,
    NoiseConfig,
    RunConfig,
    TowersConfig,
)
from lib.runs.record import EPOCH_COLUMNS, STEP_COLUMNS, TEST_COLUMNS, RunRecord, read_record
from lib.runs.schedules import ConstantConfig, ReplayConfig, ScheduleConfig
from lib.runs.store import Store

__all__ = [
    "EPOCH_COLUMNS",
    "RESULTS_VERSION",
    "STEP_COLUMNS",
    "TEST_COLUMNS",
    "Bundle",
    "CanonicalConfig",
    "ConstantConfig",
    "NoiseConfig",
    "ReplayConfig",
    "RunConfig",
    "RunRecord",
    "ScheduleConfig",
    "Store",
    "TowersConfig",
    "export_records",
    "read_bundle",
    "read_record",
]
