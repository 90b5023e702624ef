"""Figures of the evidence, from its records: what has none is not drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from covis.reports.charts import Column, CostPoint, ForestRow, Panel, Series
from covis.reports.plots import cost_plot, curves_plot, dots_plot, forest_plot
from evidence.formatting import several
from evidence.records import Store
from evidence.summaries import Summary, arms, baseline, summary
from evidence.verdicts import Estimate, Finding, Test, Verdict

HEADINGS = {"G": "GCL", "V": "StructVPR", "M": "Both together", "R": "Two stages", "N": "Label noise", "P": "Photographs"}
"""First letter of a claim's name -> under what it stands."""
METRIC = "recall@1"
COSTS = ("seconds", "pairs", "steps", "seconds a query")
"""Metrics whose differences have a scale of their own: the tables have them, the forest has not."""
BANDS = "bands: 95 % intervals over seeds and queries, small dots: seeds"
SINGLE = "intervals of single arms are wider than those of paired differences"
SECOND = "SIFT"
"""The second stage whose cost is drawn, where it was measured; the table has all."""
OF_GRADED = ("GCL", "CL", "CL, GCL's pairs", "triplet, mined", "GCL, shuffled", "GCL, averaged in class", "GCL, surface")
"""Arms whose distances are drawn: a colour each. The table has all."""
OF_STRUCTURE = ("nothing distilled", "all pairs", "weighted", "D1 alone", "shuffled teacher", "random teacher", "GCL teacher")
"""Arms that are drawn by condition; where there is none of them, all are."""
SHORT = 30
"""Characters of two arms that are named before what a test says of them."""
_AMOUNT = re.compile(r"(?P<name>.+), (?P<amount>\d+(?:\.\d+)?) (?P<unit>m|degrees|steps)")
_LOOKED_AT = re.compile(r"(?P<name>.+), k = (?P<k>\d+)")
_WHITENED = re.compile(r"whitened (\d+)")

Curve = dict[float, Summary]
"""Where on the axis -> what was measured there."""


def draw(findings: Sequence[Finding], store: Store, out: Path) -> list[Path]:
    """Draw every figure whose records there are.

    `claims.png` and `claims-other.png` hold the main tests, `noise.png`, `budget.png`, `dimensions.png`, `latent.png`,
    `conditions.png` and `twostage.png` a study each.

    Args:
        findings: the claims with their numbers.
        store: the records.
        out: the folder; it is made, and figures in it are replaced.

    Returns:
        The paths of those that were drawn.

    Raises:
        InvalidInputError: not all seeds of an arm were asked the same queries.
        MissingExtraError: matplotlib is not installed.
    """
    drawn = [*_claims(findings, out)]
    for one in (_noise, _budget, _dimensions, _latent, _conditions, _twostage):
        drawn += one(store, out)
    return drawn


def forest_rows(findings: Sequence[Finding], *, recall: bool = True) -> list[ForestRow]:
    """The main tests that were run, as rows of a forest.

    Args:
        findings: the claims with their numbers.
        recall: those of recall@1, under their papers; else those of other metrics but costs, under the metric.
    """
    rows = []
    for finding in findings:
        for test, estimate, verdict in zip(finding.claim.tests, finding.estimates, finding.verdicts, strict=True):
            if estimate and test.main and (test.metric == METRIC) == recall and test.metric not in COSTS:
                heading = HEADINGS.get(finding.claim.name[:1], "") if recall else test.metric
                rows.append(_row(f"{finding.claim.name}  {_said(test)}", test, (estimate, verdict), heading=heading))
    return rows


def _row(label: str, test: Test, found: tuple[Estimate, Verdict], *, heading: str) -> ForestRow:
    estimate, verdict = found
    numbers = (estimate.difference, estimate.low, estimate.high, tuple(estimate.by_seed.values()))
    return ForestRow(label, *numbers, verdict, heading, test.least)


def _said(test: Test) -> str:
    """What is compared, in words."""
    if not test.against or test.against == test.arm:
        said = test.says or f"{test.arm}: {test.scored} against {test.against_scored or test.scored}"
    elif not test.says:
        said = f"{test.arm} against {test.against}"
    else:
        # what is said may name both already
        named = len(test.arm + test.against) <= SHORT and ":" not in test.says and " against " not in test.says
        said = f"{test.arm} against {test.against}: {test.says}" if named else test.says
    if test.says or not test.group:
        return said
    return f"{said}, on {test.group}" + (f" beyond {test.beyond}" if test.beyond else "")


def _claims(findings: Sequence[Finding], out: Path) -> Iterator[Path]:
    facts = "paired differences: the same seeds, the same queries"
    recall, other = forest_rows(findings), forest_rows(findings, recall=False)
    if recall:
        yield forest_plot(recall, out / "claims.png", title="The claims, re-run", subtitle=facts)
    if other:
        title, unit = "The claims, re-run: metrics other than recall@1", "the metric above"
        yield forest_plot(
            other, out / "claims-other.png", title=title, subtitle=f"{facts}; metrics without a value a query: over seeds alone", unit=unit
        )


def _noise(store: Store, out: Path) -> Iterator[Path]:
    """Recall against the error of labels."""
    curves = _amounts("noise", store)
    panels = []
    for unit, title, of in (("m", "Errors of position", "metres"), ("degrees", "Errors of heading", "degrees")):
        found = {name: units[unit] for name, units in curves.items() if unit in units}
        # labels without an error are the same in both panels
        found = {name: curve if 0 in curve else _without_error(curves[name]) | curve for name, curve in found.items()}
        if any(max(curve) > 0 for curve in found.values()):
            series = [_series(name, curve) for name, curve in found.items()]
            panels.append(Panel(title, f"standard deviation, {of}", METRIC, series))
    if panels:
        facts = _facts(one for units in curves.values() for curve in units.values() for one in curve.values())
        yield curves_plot(panels, out / "noise.png", title="What errors of the labels cost", subtitle=f"{facts}; {BANDS}")


def _without_error(units: Mapping[str, Curve]) -> Curve:
    return next(({0.0: curve[0]} for curve in units.values() if 0 in curve), {})


def _budget(store: Store, out: Path) -> Iterator[Path]:
    """Recall against steps."""
    curves = {name: units["steps"] for name, units in _amounts("budget", store).items() if "steps" in units}
    if curves:
        panel = Panel("", "training steps, each with its own schedule", METRIC, [_series(*one) for one in curves.items()], log_x=True)
        facts = _facts(one for curve in curves.values() for one in curve.values())
        yield curves_plot([panel], out / "budget.png", title="Recall against training steps", subtitle=f"{facts}; {BANDS}")


def _dimensions(store: Store, out: Path) -> Iterator[Path]:
    """Recall against the dimensions that whitening leaves."""
    series: list[Series] = []
    asked: list[Summary] = []
    known = arms("graded", store)
    for arm in ("GCL", "CL"):
        records = known.get(arm, {})
        names = {name for record in records.values() for name in record.scored}
        found = {float(match[1]): summary(records, name, store) for name in names if (match := _WHITENED.fullmatch(name))}
        curve = {dim: one for dim, one in sorted(found.items()) if one is not None}
        if not curve:
            continue
        series.append(_series(f"{arm}, whitened", curve))
        asked += curve.values()
        if (whole := summary(records, "trained", store)) is not None:
            ends = [min(curve), max(curve)]
            series.append(Series(f"{arm}, as trained", ends, [whole.mean()] * 2, dashed=True, like=f"{arm}, whitened"))
    if series:
        panel = Panel("", "dimensions", METRIC, series, log_x=True)
        title = "Recall against dimensions, after whitening"
        yield curves_plot([panel], out / "dimensions.png", title=title, subtitle=f"{_facts(asked)}; {BANDS}")


def _latent(store: Store, out: Path) -> Iterator[Path]:
    """Mean distance by similarity."""
    series = []
    for arm, records in arms("graded", store).items():
        if arm not in OF_GRADED:
            continue
        rows = [record.scored["trained"].distances for record in records.values() if "trained" in record.scored]
        rows = [row for row in rows if len(row) > 1]
        if rows and len({len(row) for row in rows}) == 1:
            series.append(_distances(arm, np.array(rows)))
    if series:
        ways = {
            "GCL's loss": [one for one in series if _by_gcl(one.name)],
            "other losses": [one for one in series if not _by_gcl(one.name)],
        }
        panels = [Panel(title, "similarity ψ", "mean distance", mine) for title, mine in ways.items() if mine]
        facts = "means over seeds, small dots: seeds; at 0: pairs that share nothing, else the middles of the bins"
        yield curves_plot(panels, out / "latent.png", title="Distance of descriptors against similarity", subtitle=facts)


def _by_gcl(arm: str) -> bool:
    return arm.partition(",")[0] == "GCL"


def _distances(arm: str, rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Series:
    """(seeds, bins + 1) distances, the first of pairs that share nothing."""
    bins = rows.shape[1] - 1
    x = [0.0, *((number + 0.5) / bins for number in range(bins))]
    known = [column[~np.isnan(column)] for column in rows.T]
    points = [(at, float(value)) for at, column in zip(x, known, strict=True) for value in column]
    return Series(arm, x, [float(column.mean()) if len(column) else math.nan for column in known], points=points)


def _conditions(store: Store, out: Path) -> Iterator[Path]:
    """Recall by the condition of the queries."""
    known = {arm: one for arm, records in arms("structure", store).items() if (one := summary(records, "trained", store)) is not None}
    found = {arm: one for arm, one in known.items() if arm in OF_STRUCTURE} or known
    columns = []
    for name in dict.fromkeys(name for one in found.values() for name in one.conditions()):
        has = {arm: one if name in one.asked.groups else None for arm, one in found.items()}
        nothing = (math.nan, math.nan, math.nan)
        columns.append(
            Column(name, {arm: (one.mean(METRIC, name), *one.interval(METRIC, name)) if one else nothing for arm, one in has.items()})
        )
    if columns:
        title = "Recall by the condition of the queries"
        said = f"{_facts(found.values())}; {SINGLE}"
        yield dots_plot(columns, out / "conditions.png", title=title, subtitle=said, unit=METRIC, against=baseline("structure"))


def _twostage(store: Store, out: Path) -> Iterator[Path]:
    """Recall against what a query costs: from the first stage alone to the most results looked at again."""
    found: dict[str, dict[int, Summary]] = {}
    for arm, records in arms("two-stage", store).items():
        match = _LOOKED_AT.fullmatch(arm)
        for name in dict.fromkeys(name for record in records.values() for name in record.scored) if match else ():
            one = summary(records, name, store)
            if match and one is not None and one.values.get("seconds a query", math.nan) > 0:
                found.setdefault(match["name"], {})[int(match["k"])] = one
    firsts = {name: _first(name, found) for name in found}
    shown = [name for name, first in firsts.items() if first and name == f"{first}, {SECOND}"]
    shown = shown or [name for name in found if name not in firsts.values()]
    points = []
    for name in shown:
        for k, one in sorted({**found.get(firsts[name], {}), **found[name]}.items()):
            series = firsts[name] if name == f"{firsts[name]}, {SECOND}" else name
            points.append(CostPoint(str(k or ""), one.values["seconds a query"], one.mean(), *one.interval(), series=series))
    if points:
        by = f"{SECOND} looks at" if shown[0] == f"{firsts[shown[0]]}, {SECOND}" else "are looked at"
        facts = f"left end: the first stage alone, numbers: how many of its results {by} again"
        yield cost_plot(points, out / "twostage.png", title="Recall and cost of re-ranking", subtitle=f"{facts}; {SINGLE}")


def _first(name: str, found: Mapping[str, Mapping[int, Summary]]) -> str:
    """The first stage of "campus, SIFT": "campus", the longest beginning that was asked alone; empty where there is none."""
    begins = [other for other, curve in found.items() if 0 in curve and name.startswith(f"{other}, ")]
    return max(begins, key=len, default="")


def _amounts(study: str, store: Store) -> dict[str, dict[str, Curve]]:
    """Arms like "GCL, 2.5 m": name -> unit -> amount -> what was measured; other arms are left out."""
    found: dict[str, dict[str, Curve]] = {}
    for arm, records in arms(study, store).items():
        match, one = _AMOUNT.fullmatch(arm), summary(records, "trained", store)
        if match and one is not None:
            found.setdefault(match["name"], {}).setdefault(match["unit"], {})[float(match["amount"])] = one
    return found


def _series(name: str, curve: Curve) -> Series:
    """Means with their intervals, seeds as points."""
    x = sorted(curve)
    ends = [curve[at].interval() for at in x]
    points = [(at, value) for at in x for value in curve[at].by_seed()]
    return Series(name, x, [curve[at].mean() for at in x], [low for low, _ in ends], [high for _, high in ends], points=points)


def _facts(summaries: Iterable[Summary]) -> str:
    """How many seeds, and what was asked."""
    found = list(summaries)
    counts = sorted({len(one.seeds) for one in found})
    seeds = several(counts[0], "seeds") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return "; ".join(dict.fromkeys([seeds, *(one.said() for one in found if METRIC in one.hits)]))
