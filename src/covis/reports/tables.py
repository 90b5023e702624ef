"""Scores side by side, as plain text."""

from __future__ import annotations

from collections.abc import Mapping

from covis.errors import InvalidInputError
from covis.scores import Scores

COLUMNS = ("recall@1", "recall@5", "AP")


def score_table(scores: Mapping[str, Scores], *, dims: Mapping[str, int], columns: tuple[str, ...] = COLUMNS) -> str:
    """One row a descriptor: value and interval of each metric; below, the protocol's card and how the intervals were made.

    Args:
        scores: what the row is called -> its scores, all under one protocol and for the same queries.
        dims: the descriptor's dimensions, for the same rows.
        columns: metrics; those that were not computed are left out.

    Raises:
        InvalidInputError: there is nothing to show, or the scores are of different protocols or queries, so not comparable.
    """
    if not scores:
        raise InvalidInputError("A table must have a row; got no scores.")
    first = next(iter(scores.values()))
    for name, one in scores.items():
        if one.protocol != first.protocol or one.queries != first.queries:
            raise InvalidInputError(
                f"Scores in one table must share the protocol and the queries; {name!r} is under {one.protocol.name} "
                f"with {len(one.queries)} queries."
            )
    shown = [column for column in columns if all(column in one.metrics for one in scores.values())]
    if not shown:
        raise InvalidInputError(f"A table must have a column; none of {', '.join(columns)} was computed in every row.")
    rows = [["descriptor", "dim", *shown]] + [
        [name, str(dims[name]), *(str(one.metrics[column]) for column in shown)] for name, one in scores.items()
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if place == 1 else cell.ljust(width) for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    counted = first.metrics[shown[0]].n
    units = first.interval
    said = f"; {units['level']:.0%} intervals by {units['method']} over {units['count']} {units['unit']}" if units else ""
    lines += ["", f"{counted} of {len(first.queries)} queries counted{said}.", first.protocol.card()]
    return "\n".join(lines)
