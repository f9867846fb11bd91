"""The execution of one notebook by papermill, in a kernel of this Python, to a clean copy."""

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lib
from lib.utils.files import write_atomic
from lib.utils.version import CONTENT, RECORDS_VARIABLE

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

SECONDS_TO_START = 300
SECONDS_FOR_OUTPUT = 120
SOURCE_LINES_SHOWN = 8
MESSAGE_CHARACTERS_SHOWN = 3000
LOG_LINES_SHOWN = 15
CONTENTS = "corpus_contents"
"""The metadata of an executed copy that name the corpora, and the fingerprints of their contents,
that its runs were trained on."""


class NotebookFailure(RuntimeError):
    """A notebook raised, ended early or its kernel died; the text has the error and the path of
    its output."""


def execute(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    replaced: Mapping[str, str] | None = None,
) -> None:
    """Execute the notebook ``source`` and write it to ``target`` if, and only if, it succeeds.

    Args:
        source: The notebook to run; it is only read.
        target: The executed copy, cleaned by :func:`clean`.
        parameters: Checked values to inject; the others keep the notebook's defaults.
        environment: Variables to set in the kernel's environment.
        replaced: As for :func:`clean`.

    Raises:
        NotebookFailure: A cell raised or the kernel died. The cells run so far are kept beside
            ``target`` as ``NAME.failed.ipynb``.
    """
    # Imported here, since these take seconds, for which help and checks need not wait.
    import nbformat
    from papermill import (  # type: ignore[import-untyped]
        PapermillExecutionError,
        execute_notebook,
    )

    failed = target.with_name(f"{target.stem}.failed.ipynb")
    with tempfile.TemporaryDirectory(prefix="study-") as folder:
        scratch = Path(folder)
        partial, used = scratch / target.name, scratch / "used.log"
        variables = {**(environment or {}), RECORDS_VARIABLE: str(used)}
        try:
            execute_notebook(
                _escape(source),
                _escape(partial),
                parameters=dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                start_timeout=SECONDS_TO_START,
                iopub_timeout=SECONDS_FOR_OUTPUT,
                kernel_manager_class=_kernel_manager(scratch, variables),
            )
        except Exception as error:
            where = ""
            with suppress(OSError):
                write_atomic(failed, partial.read_bytes())
                where = f"\nWhat was run so far is in {failed}"
            explained = isinstance(error, PapermillExecutionError)
            text = (
                _explain_cell(error) if explained else _explain_kernel(error, _kernel_log(scratch))
            )
            raise NotebookFailure(f"notebook {source.stem!r} failed {text}{where}") from error
        notebook = nbformat.read(partial, as_version=4)  # type: ignore[no-untyped-call]
        if unfinished := _unfinished(notebook):
            write_atomic(failed, partial.read_bytes())
            raise NotebookFailure(
                f"notebook {source.stem!r} is not done: {unfinished}\n"
                f"What was run so far is in {failed}"
            )
        lines = used.read_text(encoding="utf-8").splitlines() if used.exists() else []
        if log := (environment or {}).get(RECORDS_VARIABLE):
            with Path(log).open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
    clean(notebook, replaced or {})
    named = (line.partition(" ") for line in lines)
    if contents := sorted({content for kind, _, content in named if kind == CONTENT}):
        notebook.metadata[CONTENTS] = contents
    written: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    write_atomic(target, written.rstrip("\n") + "\n")
    failed.unlink(missing_ok=True)


def _unfinished(notebook: "NotebookNode") -> str:
    """Return why a notebook that raised no error is not whole; "" if it is.

    Papermill takes a cell that leaves by ``sys.exit(0)`` for the end of the notebook.
    """
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        ended = [o.ename for o in cell.outputs if o.output_type == "error"]
        if ended or cell.execution_count is None:
            why = f"ended with {ended[0]}" if ended else "was not run"
            first = cell.source.strip().splitlines()[0]
            return f"cell {number} of {len(notebook.cells)} {why}: {first}"
    return ""


def clean(notebook: "NotebookNode", replaced: Mapping[str, str]) -> None:
    """Remove from an executed notebook, in place, what differs between machines and executions.

    That is papermill's and the cells' timings, the interpreter's version and the random name of the
    injected cell. Each path of this machine in ``replaced`` gives way to its value.
    """
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    language = notebook.metadata.get("language_info", {})
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = kernel
    notebook.metadata["language_info"] = {k: v for k, v in language.items() if k != "version"}
    for cell in notebook.cells:
        for timing in ("papermill", "execution"):
            cell.metadata.pop(timing, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            cell["source"] = _replace(cell["source"], replaced)
        if "outputs" in cell:
            cell["outputs"] = [_replace(output, replaced) for output in cell["outputs"]]


def _replace(value: Any, replaced: Mapping[str, str]) -> Any:
    """Make each replacement in every text of a tree, if the replaced text is a whole path there."""
    if isinstance(value, dict):
        for key in value:
            value[key] = _replace(value[key], replaced)
    elif isinstance(value, list):
        return [_replace(item, replaced) for item in value]
    elif isinstance(value, str):
        for text in sorted(replaced, key=len, reverse=True):
            if text in value:
                pattern = rf"(?<![\w/.~-]){re.escape(text)}(?![\w-])"
                value = re.sub(pattern, replaced[text].replace("\\", r"\\"), value)
    return value


def _kernel_manager(scratch: Path, given: Mapping[str, str]) -> "type[AsyncKernelManager]":
    """Return a manager of kernels that run this interpreter, whatever else is registered.

    A kernel specification named python3 in the user's folder may start a Python without the study's
    packages. The user's IPython profile is not used: its start-up files could change results.
    """
    import zmq
    from ipykernel.kernelspec import RESOURCES, get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    spec = KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())
    inherited = os.environ.get("PYTHONWARNINGS", "")
    environment = {
        "IPYTHONDIR": str(scratch / "ipython"),
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": _python_path(),
        # Pages show no progress bars of other libraries, nor their warnings that a bar is missing.
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": ",".join(filter(None, [inherited, "ignore:IProgress not found"])),
        **given,
    }

    class PrivateKernelManager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            options["env"] = {**(options.get("env") or os.environ), **environment}
            # Without encryption any user of this machine could read the traffic.
            self.transport_encryption = "auto" if zmq.has("curve") else "disabled"
            # This is the kernel process's own output; the notebook's goes into the notebook.
            with _kernel_log(scratch).open("ab") as options["stderr"]:
                await super().start_kernel(**options)

    return PrivateKernelManager


def _python_path() -> str:
    """Return a search path on which the kernel finds this ``lib`` from any folder."""
    home = Path(lib.__file__).parents[1]
    inherited = os.environ.get("PYTHONPATH", "")
    if home.name in ("site-packages", "dist-packages"):
        return inherited
    return os.pathsep.join(filter(None, [str(home), inherited]))


def _kernel_log(scratch: Path) -> Path:
    return scratch / "kernel.log"


def _escape(path: Path) -> str:
    # Papermill takes paths for templates, which it fills with the parameters.
    return str(path).replace("{", "{{").replace("}", "}}")


def _explain_cell(error: Any) -> str:
    lines = error.source.strip().splitlines()
    shown = [f"    {line}" for line in lines[:SOURCE_LINES_SHOWN]]
    more = [f"    ... {len(lines) - len(shown)} lines more"] if len(lines) > len(shown) else []
    reason = f"{error.ename}: {error.evalue}"[:MESSAGE_CHARACTERS_SHOWN]
    return "\n".join([f"in cell [{error.exec_count}]:", *shown, *more, reason])


def _explain_kernel(error: Exception, log: Path) -> str:
    last = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if log.exists() else []
    reason = f"with {type(error).__name__}: {error}"
    if type(error).__name__ == "DeadKernelError":
        reason = (
            f"because its kernel ({sys.executable}) died, most often for lack of memory; "
            "finished training runs are kept"
        )
    return "\n    ".join([reason, *last])
