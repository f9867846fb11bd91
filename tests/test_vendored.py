"""The core, or a part of it, copied under another package's name."""

import shutil

import pytest
from other_project import STEPS, results, results_elsewhere


@pytest.mark.parametrize(
    "parts",
    [
        ("schedulers",),
        ("metrics",),
        ("losses", "schedulers"),
        ("losses", "metrics", "models", "rivals", "schedulers"),
    ],
    ids=" ".join,
)
def test_a_copy_computes_the_same_to_the_last_bit(root, tmp_path, parts):
    vendor = tmp_path / "other" / "vendor"
    vendor.mkdir(parents=True)
    for part in parts:
        copy = shutil.copytree if (root / "lib" / part).is_dir() else shutil.copy
        copy(root / "lib" / part, vendor / part)
    step = "".join(STEPS[part] for part in parts if part in STEPS)
    alone = results_elsewhere(step, "other.vendor", tmp_path, root / "lib")
    assert alone == str(results(step))
