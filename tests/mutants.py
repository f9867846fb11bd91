"""The last step of `make mutants`: check that every surviving mutant is explained.

A test must kill every mutant of the study's arithmetic (``[tool.mutmut]`` in pyproject.toml), or
mutants.md must explain why none can. This first runs earlier survivors again, as tests may be new.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

EXPLAINED = Path(__file__).parent / "mutants.md"
ITEM = re.compile(r"^- `(?P<function>[^`]+)`: ``(?P<old>.*?)`` → ``(?P<new>.*)``$")
NOTHING = "nothing"
KILLED = ("killed", "timeout", "segfault", "caught by type check")
NOT_RUN = "not checked"


def explained(text: str) -> Counter[tuple[str, str, str]]:
    """Return the mutants of mutants.md: function, old line, new line."""
    mutants: Counter[tuple[str, str, str]] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("- "):
            item = ITEM.match(line)
            if item is None:
                raise SystemExit(f"{EXPLAINED.name}:{number} is no `function`: ``old`` → ``new``")
            mutants[item["function"], item["old"], item["new"]] += 1
    return mutants


def mutants() -> Iterator[tuple[str, str, tuple[str, str, str]]]:
    """Yield each mutant's name, its status, and its entry for mutants.md."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.stats import status_by_exit_code

    for meta in sorted(Path("mutants/lib").rglob("*.meta")):
        path = str(meta.relative_to("mutants"))[: -len(".meta")]
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            key = ("", "", "")
            if status not in (*KILLED, NOT_RUN):
                key = (function_of(name), *change(get_diff_for_mutant(name, path=path)))
            yield name, status, key


def function_of(name: str) -> str:
    """Return the function that a mutant changes.

    >>> function_of("lib.metrics.checks.x_as_ks__mutmut_3")
    'metrics.checks.as_ks'
    >>> function_of("lib.losses.per_query.xǁLossǁcheck__mutmut_3")
    'losses.per_query.Loss.check'
    """
    module, _, mangled = name.removeprefix("lib.").rpartition("__mutmut_")[0].rpartition(".")
    place = mangled.removeprefix("x").removeprefix("_").strip("ǁ").replace("ǁ", ".")
    return f"{module}.{place if mangled[1] == 'ǁ' else mangled.removeprefix('x_')}"


def change(diff: str) -> tuple[str, str]:
    """Return the lines that a mutation removes and those that it adds, each joined into one."""
    sides: dict[str, list[str]] = defaultdict(list)
    for line in diff.splitlines()[2:]:
        sides[line[:1]].append(" ".join(line[1:].split()))
    return " ".join(sides["-"]) or NOTHING, " ".join(sides["+"]) or NOTHING


def main() -> int:
    """Print the mutants that are not explained; return 0 if there are none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="run the survivors again first")
    parser.add_argument("--list", action="store_true", help="write what is unexplained as items")
    parser.add_argument("only", nargs="*", help="modules, such as lib.schedulers; default: all")
    given = parser.parse_args()
    only = tuple(given.only or ["lib."])
    known = explained(EXPLAINED.read_text(encoding="utf-8"))
    if given.again:
        again = [n for n, s, key in mutants() if s == "survived" and key not in known]
        if again := [name for name in again if name.startswith(only)]:
            subprocess.run([sys.executable, "-m", "mutmut", "run", *again], check=False)
    counts: Counter[str] = Counter()
    met: Counter[tuple[str, str, str]] = Counter()
    unexplained = []
    for name, status, key in mutants():
        if not name.startswith(only):
            continue
        counts["explained" if status == "survived" and key in known else status] += 1
        met[key] += 1
        if status not in (*KILLED, NOT_RUN) and key not in known:
            unexplained.append((name, status, key))
    for name, status, (function, old, new) in unexplained:
        item = f"- `{function}`: ``{old}`` → ``{new}``"
        print(item if given.list else f"{name}: {status}\n  {old}\n  {new}")
    # The reason may be wrong, or the line may have changed.
    whole = not (given.only or counts[NOT_RUN])
    gone = sorted(key for key in known if not met[key]) if whole else []
    for function, old, new in gone:
        print(f"{EXPLAINED.name} explains what has not survived: {function}: {old} → {new}")
    print(", ".join(f"{count:,} {status}" for status, count in counts.most_common()))
    if counts[NOT_RUN] or not counts:
        print("not all mutants have been run: `make mutants` goes on where it stopped")
    return 1 if unexplained or gone or counts[NOT_RUN] or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
