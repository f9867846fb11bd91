"""Publication of the records that the notebooks can be executed from, and of a picture."""

import json
from pathlib import Path

from lib.utils.files import home, write_atomic


def publish_records(log: Path, folder: Path) -> None:
    """Write the run records and computed tables that ``log`` lists to ``folder``.

    Args:
        log: The file that ``$STUDY_RECORDS_LOG`` named while the notebooks ran.
        folder: The published records; tables in it that are no longer used are removed.
    """
    # pandas takes a second to import, and only the published edition needs it.
    from lib.runs import Store, export_records

    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    used = {tuple(line.split(" ", 1)) for line in lines}
    runs = [record for record in Store().records() if ("run", record.config.run_id) in used]
    if runs:
        export_records(runs, folder)
    tables = {name for kind, *names in used if kind == "table" for name in names}
    for name in sorted(tables):
        computed = home() / "tables" / name
        if computed.exists():
            write_atomic(folder / "tables" / name, computed.read_bytes())
    for path in (folder / "tables").glob("*.parquet"):
        if path.name not in tables:
            path.unlink()


def publish_picture(notebook: Path, target: Path) -> None:
    """Write the first chart of an executed notebook to ``target`` as SVG, for the README.

    A notebook that shows no chart leaves ``target`` as it is.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"] if notebook.exists() else []
    for cell in cells:
        for output in cell.get("outputs", []):
            svg = output.get("data", {}).get("image/svg+xml")
            if svg:
                write_atomic(target, "".join(svg))
                return
