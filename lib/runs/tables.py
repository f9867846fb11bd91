"""Tables of numbers as Parquet files, with a digest that reveals damage.

Parquet's own page checksums leave out the footer, in which a flipped bit can change names, lengths
and missing values unnoticed.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd

from lib.utils.files import atomic_path

DIGEST, PURPOSE = b"study.sha256", b"study.purpose"
"""Keys of the schema metadata: the SHA-256 of the content, and the table's purpose."""


class DamagedTableError(ValueError):
    """The file is not the table that was written to this path; the message says why."""


def write_table(path: Path, table: pd.DataFrame, purpose: str = "") -> None:
    """Write ``table`` whole or not at all; the same table gives the same bytes.

    Args:
        path: The file.
        table: The table; its index is not kept.
        purpose: Describes the table; :func:`read_table` refuses a file of another purpose.
    """
    import pyarrow as pa
    from pyarrow import parquet

    content = pa.Table.from_pandas(table, preserve_index=False)
    added = {DIGEST: _digest(content).encode(), PURPOSE: purpose.encode()}
    content = content.replace_schema_metadata({**(content.schema.metadata or {}), **added})
    with atomic_path(path) as partial:
        parquet.write_table(content, partial, compression="zstd")


def read_table(path: Path, purpose: str = "") -> pd.DataFrame:
    """Read a file of :func:`write_table`; without a digest, as in older versions, it is unchecked.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedTableError: The file is damaged, or was written for another purpose.
    """
    from pyarrow import parquet

    data = path.read_bytes()
    try:
        content = parquet.read_table(io.BytesIO(data))
        metadata = content.schema.metadata or {}
        # pandas's metadata could rename columns, and the digest leaves metadata out.
        table: pd.DataFrame = content.to_pandas(ignore_metadata=True)
        digest = _digest(content).encode() if DIGEST in metadata else None
    except Exception as error:  # for damaged bytes pyarrow raises errors of any kind
        reason = " ".join(str(error).split())[:200]
        raise DamagedTableError(f"{path} is damaged ({type(error).__name__}: {reason})") from error
    if digest != metadata.get(DIGEST):
        raise DamagedTableError(f"{path} is damaged (its checksum does not fit)")
    if digest is not None and metadata.get(PURPOSE, b"").decode(errors="replace") != purpose:
        raise DamagedTableError(f"{path} is damaged (it was written as another table)")
    return table


def table_purpose(path: Path) -> str:
    """Return the purpose that a file was written for, "" if it has none.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedTableError: The file is not a Parquet file.
    """
    from pyarrow import parquet

    data = path.read_bytes()
    try:
        metadata = parquet.read_schema(io.BytesIO(data)).metadata or {}
        return str(metadata.get(PURPOSE, b"").decode())
    except Exception as error:  # for damaged bytes pyarrow raises errors of any kind
        raise DamagedTableError(f"{path} is damaged ({type(error).__name__})") from error


def _digest(content: Any) -> str:
    """Return the SHA-256 of the names, types and values of an Arrow table."""
    from pyarrow import types

    digest = hashlib.sha256()
    for name, column in zip(content.column_names, content.columns, strict=True):
        digest.update(json.dumps([name, str(column.type), len(column)]).encode())
        numeric = types.is_integer(column.type) or types.is_floating(column.type)
        if numeric and not column.null_count:
            digest.update(column.to_numpy().tobytes())
        else:
            digest.update(json.dumps(column.to_pylist(), default=str).encode())
    return digest.hexdigest()
