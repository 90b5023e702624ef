"""The claims of the literature, re-run: `python -m evidence` runs what has no record yet and writes the page anew.

python -m evidence --table                the page alone, from the records: seconds
python -m evidence --only graded          the cells of some studies
python -m evidence --quick --out FOLDER   minutes: all of it on a tiny town; its numbers mean nothing
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from covis.errors import CovisError
from evidence.plan import HERE, Cell, Plan, load_plan
from evidence.running import Places, measured, open_cells, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write the page; returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        return _main(given)
    except CovisError as error:
        print(f"evidence: {error}", file=sys.stderr)
        return 1


def _main(given: argparse.Namespace) -> int:
    from evidence.page import write

    if given.quick and given.out is None:
        raise SystemExit("evidence: --quick needs --out, a folder: its records and its page are none to be kept.")
    plan = load_plan(quick=given.quick)
    root = HERE if given.out is None else Path(given.out)
    data = given.data or os.environ.get("COVIS_DATA")
    places = Places(root / "cells", Path(given.work) if given.work else root / "runs", Path(data) if data else None)
    asked = list(plan.cells(given.only, arms=given.arm, seeds=given.seeds))  # whatever is misspelt is said, with --table too
    failed = {} if given.table else _measure(plan, places, asked, given)
    for path in write(plan, places, docs=HERE.parent / "docs" if given.out is None else root):
        print(path)
    for what, message in failed.items():
        print(f"failed: {what}: {message}", file=sys.stderr)
    return 1 if failed else 0


def _measure(plan: Plan, places: Places, asked: Sequence[Cell], given: argparse.Namespace) -> dict[str, str]:
    """Run what has no record yet; returns what failed and why: the rest goes on, and the page is written."""
    cells = open_cells(plan, places, asked, overwrite=given.overwrite, say=print)
    print(f"{len(cells)} cells to run")
    failed = {}
    if cells:
        found = run(plan, places, cells=cells, workers=given.workers)
        failed = {f"{study}: {arm}, seed {seed}": message for (study, arm, seed), message in found.items()}
    for experiment in plan.chosen(given.only):
        if experiment.measure and not (given.arm or given.seeds):  # those are of studies
            try:
                measured(experiment, places, overwrite=given.overwrite)
            except Exception as error:  # as of a cell: hours of others are not to be lost
                failed[experiment.study] = f"{type(error).__name__}: {error}"
    return failed


def _processes(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"at least 1 process must run the cells; got {count}")
    return count


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evidence", description="The claims of the literature, re-run with controls.")
    parser.add_argument("--only", action="append", default=[], metavar="STUDY", help="run the cells of this study alone; may be repeated")
    parser.add_argument("--arm", action="append", default=[], help="run this arm alone, or those that fit this pattern; may be repeated")
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[], help="run these seeds alone: 0,1")
    parser.add_argument(
        "--workers", type=_processes, default=os.cpu_count() or 1, help="processes, of one thread each; default: one a core"
    )
    parser.add_argument("--data", help="real photographs and weights; default: $COVIS_DATA")
    parser.add_argument("--work", help="where towns and runs lie while they are needed; default: evidence/runs")
    parser.add_argument("--out", help="where records and page are written; default: evidence/cells and docs/")
    parser.add_argument("--table", action="store_true", help="run nothing: write the page from the records")
    parser.add_argument("--quick", action="store_true", help="a tiny town and a few steps: shows that all of it works")
    parser.add_argument("--overwrite", action="store_true", help="run cells again that have a record")
    return parser


if __name__ == "__main__":
    sys.exit(main())
