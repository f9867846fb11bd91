"""Tables as files: they are read as written, and every kind of damage is found and named."""

import random

import numpy as np
import pandas as pd
import pytest

from lib.runs.tables import DamagedTableError, read_table, write_table

TABLE = pd.DataFrame(
    {
        "run_id": ["a", "b", "ü\u2028"],
        "share": [0.1, np.nan, np.inf],
        "n": [1, 2, 3],
        "single": np.array([1.5, 2.5, 3.5], np.float32),
        "flag": [True, False, True],
    }
)


def test_a_table_is_read_as_written_and_equal_tables_give_equal_bytes(tmp_path):
    write_table(tmp_path / "a.parquet", TABLE, "numbers")
    write_table(tmp_path / "b.parquet", TABLE, "numbers")
    read = read_table(tmp_path / "a.parquet", "numbers")
    pd.testing.assert_frame_equal(read, pd.read_parquet(tmp_path / "a.parquet"))
    pd.testing.assert_frame_equal(read, TABLE, check_dtype=False)
    assert read["single"].dtype == np.float32
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_flipped_bit_is_reported_or_changes_no_value(tmp_path, tried):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE, "numbers")
    whole, draw, found = path.read_bytes(), random.Random(0), 0
    expected = read_table(path, "numbers")
    for place in draw.sample(range(len(whole)), 900):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_table(path, "numbers")
        except DamagedTableError as error:
            found += str(path) in str(error)
        else:
            pd.testing.assert_frame_equal(read, expected)
    tried("corruption", 900)
    # The other bits are never read, such as those of statistics.
    assert found > 450


@pytest.mark.tries("corruption")
@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello", b"PAR1" * 400, 0.1, 0.5, 0.99])
def test_a_file_that_is_not_a_whole_table_is_named(tmp_path, content):
    path = tmp_path / "a.parquet"
    write_table(path, TABLE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(content * len(whole))] if isinstance(content, float) else content)
    with pytest.raises(DamagedTableError, match=r"a\.parquet is damaged"):
        read_table(path)


@pytest.mark.tries("corruption")
def test_a_file_that_holds_another_table_is_refused(tmp_path):
    write_table(tmp_path / "a.parquet", TABLE, "accuracy of x")
    with pytest.raises(DamagedTableError, match="written as another table"):
        read_table(tmp_path / "a.parquet", "accuracy of y")


def test_a_table_without_a_checksum_is_read_and_a_missing_one_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "a.parquet")
    TABLE.to_parquet(tmp_path / "a.parquet", index=False)
    assert read_table(tmp_path / "a.parquet", "anything")["n"].tolist() == [1, 2, 3]
