"""A study's numbers as text and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

from covis.reports.studies import Effort, Row, Summary
from covis.scores import aligned


def study_text(summary: Summary) -> str:
    """Tables a descriptor, of the metric and of its differences; what training took; what the reader must know; the protocol's card."""
    parts = [f"{summary.title}\n  {summary.facts}"]
    for descriptor in dict.fromkeys(row.descriptor for row in summary.rows):
        rows = [row for row in summary.rows if row.descriptor == descriptor]
        parts.append(f"{descriptor}: {summary.metric}\n{_values(rows)}")
        if any(row.difference is not None for row in rows):
            parts.append(f"{descriptor}: {summary.metric}, difference to {summary.baseline!r}\n{_differences(rows)}")
    if summary.efforts:
        parts.append(f"training, mean over the seeds\n{_efforts(summary.efforts)}")
    return "\n\n".join([*parts, "\n".join(f"  {note}" for note in summary.notes), summary.protocol])


def study_rows(summary: Summary) -> list[dict[str, Any]]:
    """A mapping a row, with all digits and a key for each seed; None where there is no number."""
    seeds = _seeds(summary.rows)
    also = dict.fromkeys(name for row in summary.rows for name in row.also)
    efforts = {one.arm: one for one in summary.efforts}
    lines = []
    for row in summary.rows:
        one, effort = row.difference, efforts[row.arm]
        numbers: dict[str, float | None] = {
            "mean": row.metric.value,
            "low": row.metric.low,
            "high": row.metric.high,
            "spread": row.spread,
        }
        numbers |= {f"seed {seed}": row.values.get(seed) for seed in seeds} | {name: row.also.get(name) for name in also}
        numbers |= {
            f"difference{key and ' '}{key}": None if one is None else getattr(one, key or "difference") for key in ("", "low", "high")
        }
        numbers |= {"p": None if one is None else one.p} | {f"difference seed {seed}": row.by_seed.get(seed) for seed in seeds}
        numbers |= {
            "pairs": effort.pairs,
            "seconds": effort.seconds,
            "null": effort.null,
            "spearman": effort.spearman.get(row.descriptor),
        }
        plain = {key: None if value is None or math.isnan(value) else value for key, value in numbers.items()}
        lines.append({"descriptor": row.descriptor, "arm": row.arm, "metric": summary.metric, "verdict": row.verdict, **plain})
    return lines


def study_csv(summary: Summary) -> str:
    """Those rows as CSV."""
    rows, stream = study_rows(summary), io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.10g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _values(rows: Sequence[Row]) -> str:
    seeds, also = _seeds(rows), list(dict.fromkeys(name for row in rows for name in row.also))
    head = ["arm", "mean", "interval", "spread", *(f"seed {seed}" for seed in seeds), *also]
    lines = [
        [row.arm, _three(row.metric.value), f"[{_three(row.metric.low)}, {_three(row.metric.high)}]", _three(row.spread)]
        + [_three(row.values.get(seed, math.nan)) for seed in seeds]
        + [_three(row.also.get(name, math.nan)) for name in also]
        for row in rows
    ]
    return aligned([head, *lines], right=range(1, len(head)))


def _differences(rows: Sequence[Row]) -> str:
    seeds = _seeds(rows)
    head = ["arm", "difference", "interval", "p", *(f"seed {seed}" for seed in seeds), "verdict"]
    lines = []
    for row in rows:
        if row.difference is None:
            continue
        one = row.difference
        p = "<0.0001" if one.p < 0.00005 else f"{one.p:.4f}"
        numbers = [_signed(one.difference), f"[{_signed(one.low)}, {_signed(one.high)}]", p]
        lines.append([row.arm, *numbers, *(_signed(row.by_seed.get(seed, math.nan)) for seed in seeds), row.verdict])
    return aligned([head, *lines], right=range(1, len(head) - 1))


def _efforts(efforts: Sequence[Effort]) -> str:
    names = list(dict.fromkeys(name for one in efforts for name in one.spearman))
    head = ["arm", "pairs", "seconds", "null pairs at the end", *(f"Spearman(d, psi) {name}" for name in names)]
    lines = [
        [one.arm, _whole(one.pairs), _whole(one.seconds), _three(one.null), *(_signed(one.spearman.get(name, math.nan)) for name in names)]
        for one in efforts
    ]
    return aligned([head, *lines], right=range(1, len(head)))


def _seeds(rows: Sequence[Row]) -> list[int]:
    return sorted({seed for row in rows for seed in row.values})


def _said(value: float, text: Callable[[float], str]) -> str:
    return "-" if math.isnan(value) else text(value)


def _three(value: float) -> str:
    return _said(value, "{:.3f}".format)


def _signed(value: float) -> str:
    return _said(value, "{:+.3f}".format)


def _whole(value: float) -> str:
    return _said(value, "{:,.0f}".format)
