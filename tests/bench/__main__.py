"""`python -m tests.bench [NAME [ARGS...]]`: run one benchmark, or all, and print figures beside anchors and limits.

A benchmark is a module of this folder with `NAME` and `run(args)`, which returns rows of
(figure, measured, anchor, limit). One that cannot run here says why and the others go on.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

HEAD = ("figure", "measured", "anchor", "limit")


def benchmarks() -> dict[str, ModuleType]:
    """Return the benchmarks of this folder by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem.startswith(("_", "test_")) or "\nNAME = " not in path.read_text(encoding="utf-8"):
            continue
        module = import_module(f"tests.bench.{path.stem}")
        found[module.NAME] = module
    return found


def main(args: list[str]) -> int:
    """Run what is named, with its arguments, or everything; return the exit code."""
    known = benchmarks()
    if args and args[0] not in known:
        print(f"no benchmark is called {args[0]}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    rows: list[tuple[str, ...]] = [HEAD]
    failed = 0
    for name in args[:1] or known:
        try:
            rows += known[name].run(args[1:])
        except SystemExit as refusal:
            print(f"{name}: {refusal}", file=sys.stderr)
            failed += 1
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
