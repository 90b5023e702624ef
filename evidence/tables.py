"""Tables of the page that show a study as it was measured, whatever is claimed of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from evidence.formatting import cell, difference, listed, mean, natural, number, seconds, several, table
from evidence.records import Record, Store
from evidence.summaries import Summary, arms, baseline, studies, summary
from evidence.verdicts import LEAST_SEEDS, Test, estimate

NOT_RUN = "*Not run yet.*"
SHARED = ("tiny", "untrained", "rgb", "teacher")
"""Ways to score that one arm stands for: they are before or beside the training that the arms differ in."""
START, BEFORE = "start", "before training"
"""The study, and its arm, of the network that has learnt nothing."""
FEW_SAMPLES = 2_000
"""Bootstrap samples of intervals whose width alone is shown, with two digits."""
PHOTOGRAPHS = ("kitchen", "campus", "headings", "photographs")

_ALONE = ", k = 0"
"""How the name of an arm ends where the first stage answers alone."""
_WHITENED = re.compile(r"whitened (\d+)")
_OTHERWISE = re.compile(r"half-whitened \d+|whitened \d+, ")
_ELSEWHERE = re.compile(r"(?:(?P<way>tiny image) )?on (?P<place>\S+)")
_STEPS = re.compile(r"(?P<loss>.+), (?P<steps>[\d,]+) steps")
_NOISE = re.compile(r"(?P<loss>.+), (?P<size>[\d.]+) (?P<unit>m|degrees)")
ENOUGH = 10_000
"""Pairs of a training whose last tenth is many enough for a share without loss."""
_COLUMNS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("recall@1", lambda one: mean(one.mean(), *one.interval())),
    ("spread over seeds", lambda one: number(one.spread()) if len(one.seeds) > 1 else ""),
    ("each seed", lambda one: " ".join(map(number, one.by_seed())) if len(one.seeds) > 1 else ""),
    ("recall@5", lambda one: _value(one, "recall@5")),
    ("AP", lambda one: _value(one, "AP")),
    ("Spearman(d, ψ)", lambda one: _value(one, "Spearman")),
    ("null pairs at the end", lambda one: _value(one, "null") if one.scored == "trained" and one.values.get("pairs", 0) >= ENOUGH else ""),
)


def arms_table(study: str, store: Store) -> str:
    """Every arm of a study: recalls, the paired difference to its baseline, spread, pooled metrics, what the training cost."""
    known = arms(study, store)
    rows = list(_all(known, store))
    if not rows:
        return NOT_RUN
    against = baseline(study)
    columns = (_COLUMNS[0], (f"less {against}", lambda one: _apart(one, against, study, known, store)), *_COLUMNS[1:])
    heads = ["arm", *(head for head, _ in columns)]
    return _under(table(heads, ([_name(one), *(show(one) for _, show in columns)] for one in rows)), rows)


def _apart(one: Summary, against: str, study: str, known: Mapping[str, Mapping[int, Record]], store: Store) -> str:
    """The paired difference of an arm and a baseline; empty for the baseline itself, and where seeds are too few to say anything."""
    if one.scored != "trained" or one.arm == against or against not in known:
        return ""
    found = estimate(Test(study, one.arm, against), known, store)
    return difference(found.difference, found.low, found.high) if found and len(found.by_seed) >= LEAST_SEEDS else ""


def conditions_table(study: str, store: Store) -> str:
    """recall@1 of every arm by condition of the queries."""
    rows = [one for one in _all(arms(study, store), store) if one.asked.groups]
    if not rows:
        return NOT_RUN
    groups = rows[0].conditions()
    counts = [int(rows[0].counted(group=group).sum()) for group in groups]
    heads = ["arm", *(f"{group} ({count:,})" for group, count in zip(groups, counts, strict=True))]
    body, widths = [], []
    for one in rows:
        body.append([_name(one), *(number(one.mean(group=group)) if group in one.asked.groups else "" for group in groups)])
        ends = [one.interval(group=group, samples=FEW_SAMPLES) for group in groups if group in one.asked.groups]
        widths += [(high - low) / 2 for low, high in ends if np.isfinite(high - low)]
    reach = f" 95 % intervals reach {number(min(widths), 2)} to {number(max(widths), 2)} to either side." if widths else ""
    return f"{table(heads, body)}\n\nIn brackets: queries that count.{reach}"


def dimensions_table(store: Store, study: str = "graded") -> str:
    """recall@1 of every arm by the dimension that whitening leaves, beside the descriptor as it is."""
    known = arms(study, store)
    sizes = {int(found[1]) for _, name in _scored(known) if (found := _WHITENED.fullmatch(name))}
    if not sizes:
        return NOT_RUN
    dims = sorted(sizes, reverse=True)
    others = [name for name in dict.fromkeys(name for _, name in _scored(known)) if _OTHERWISE.match(name)]
    body, shown = [], []
    for arm, records in known.items():
        cells = [summary(records, name, store) for name in ("trained", *(f"whitened {dim}" for dim in dims), *others)]
        if any(cells[1:]):
            body.append([arm, *(_recall(one) for one in cells)])
            shown += [one for one in cells if one]
    return _under(table(["arm", "as it is", *(f"{dim} dimensions" for dim in dims), *others], body), shown)


def budget_table(store: Store, study: str = "budget") -> str:
    """recall@1 of each loss by the steps it was given, and when GCL reaches what CL ends with."""
    found = _parsed(_STEPS, study, store)
    if not found:
        return NOT_RUN
    means = {(str(at["loss"]), int(at["steps"].replace(",", ""))): one for at, one in found}
    losses, steps = list(dict.fromkeys(loss for loss, _ in means)), sorted({count for _, count in means})
    body = [[loss, *(_recall(means.get((loss, count))) for count in steps)] for loss in losses]
    shown = table(["loss", *(f"{count:,} steps" for count in steps)], body)
    return _under(f"{shown}\n\n{_reached(means, steps)}".rstrip(), [one for _, one in found])


def _reached(means: Mapping[tuple[str, int], Summary], steps: Sequence[int]) -> str:
    """After how many steps GCL's mean is what CL's is at the end."""
    last = max((count for count in steps if ("CL", count) in means), default=None)
    if last is None or not any(loss == "GCL" for loss, _ in means):
        return ""
    goal = means["CL", last].mean()
    first = next((count for count in steps if ("GCL", count) in means and means["GCL", count].mean() >= goal), None)
    ends = f"CL ends with {number(goal)} after {last:,} steps"
    return (
        f"{ends}; GCL does not reach it."
        if first is None
        else f"{ends}; of the budgets run, {first:,} is the least with which GCL reaches it."
    )


def noise_table(store: Store, study: str = "noise") -> str:
    """recall@1 of each loss by the error of the poses that its labels were made from, position and heading apart."""
    found = _parsed(_NOISE, study, store)
    if not found:
        return NOT_RUN
    rows = {(str(at["unit"]), float(at["size"]), str(at["loss"])): one for at, one in found}
    losses = list(dict.fromkeys(loss for *_, loss in rows))
    parts = []
    for unit, what in (("m", "position"), ("degrees", "heading")):
        sizes = sorted({(size, of) for of, size, _ in rows if of == unit or size == 0})
        if any(size for size, of in sizes if of == unit):
            known = dict(sorted(sizes, key=lambda one: one[1] == unit))
            body = [_noisy(unit, size, [(rows.get((of, size, loss)), loss) for loss in losses], store) for size, of in known.items()]
            heads = [f"error of {what}", *losses, f"{losses[0]} − {losses[1]}" if len(losses) > 1 else ""]
            parts.append(table(heads, body))
    return _under("\n\n".join(parts), [one for _, one in found])


def _noisy(unit: str, size: float, cells: Sequence[tuple[Summary | None, str]], store: Store, study: str = "noise") -> list[str]:
    """A row: the error, each loss, and the paired difference of the first two."""
    apart = ""
    if len(cells) > 1 and (first := cells[0][0]) and (second := cells[1][0]):
        measured = estimate(Test(study, first.arm, second.arm), store.records(study), store)
        apart = "" if measured is None else difference(measured.difference, measured.low, measured.high)
    return [f"{size:g} {unit}", *(_recall(one) for one, _ in cells), apart]


def transfer_table(store: Store, study: str = "graded") -> str:
    """recall@1 on sets that nothing was learnt on; below all, what has learnt nowhere."""
    rows: dict[str, dict[str, Summary]] = {}
    for known in (arms(START, store), arms(study, store)):
        for arm, name in _scored(known):
            if (match := _ELSEWHERE.fullmatch(name)) and (one := summary(known[arm], name, store)) is not None:
                label = f"*{match['way'] or 'untrained'}*" if arm == BEFORE else f"{arm}, {match['way']}" if match["way"] else arm
                rows.setdefault(label, {}).setdefault(match["place"], one)
    if not rows:
        return NOT_RUN
    places = list(dict.fromkeys(place for cells in rows.values() for place in cells))
    body = [[label, *(_recall(cells.get(place)) for place in places)] for label, cells in rows.items()]
    asked = [f"{place}: {next(cells[place] for cells in rows.values() if place in cells).said()}" for place in places]
    return f"{table(['arm', *places], body)}\n\n{cell('; '.join(asked))}."


def twostage_table(store: Store, study: str = "two-stage") -> str:
    """recall@1 of one stage and of two, the difference to the first alone, and what a query costs."""
    known = arms(study, store)
    rows = [one for arm, records in known.items() if (one := summary(records, "trained", store)) is not None]
    if not rows:
        return NOT_RUN
    firsts = {arm.removesuffix(_ALONE) for arm in known if arm.endswith(_ALONE)}
    body = []
    of = {one.arm: max((name for name in firsts if one.arm.startswith(f"{name},")), key=len, default="") for one in rows}
    for one in sorted(rows, key=lambda one: (of[one.arm], not one.arm.endswith(_ALONE))):  # what stands alone comes first
        first = of[one.arm]
        gain = estimate(Test(study, one.arm, f"{first}{_ALONE}"), known, store) if not one.arm.endswith(_ALONE) else None
        cost = seconds(one.values.get("seconds a query", float("nan")))
        apart = difference(gain.difference, gain.low, gain.high) if gain else ""
        body.append([one.arm, _recall(one), apart, _value(one, "recall@5"), cost, one.said()])
    return table(["arm", "recall@1", "difference to k = 0", "recall@5", "seconds a query", "asked"], body)


def photographs_table(store: Store) -> str:
    """Real photographs: every arm of the studies on them, as trained and whitened, a set after the other."""
    body = []
    for study in [name for name in studies(store) if name.startswith(PHOTOGRAPHS)]:
        known = arms(study, store)
        whitened = [summary(records, "whitened", store) for records in known.values()]
        for one in [*_all(known, store), *(one for one in whitened if one)]:
            numbers = [_recall(one), _value(one, "recall@5"), _value(one, "AP")]
            body.append([study, _name(one), *numbers, several(len(one.seeds), "seeds"), one.said()])
    return table(["set", "arm", "recall@1", "recall@5", "AP", "seeds", "asked"], body) if body else NOT_RUN


def stand_table(store: Store, study: str = "graded") -> str:
    """Whether the stand can tell anything: the baseline beside the untrained network and a tiny grey image."""
    known = {**arms(START, store), **{arm: records for arm, records in arms(study, store).items() if arm in ("CL", "GCL")}}
    rows = list(_all(known, store))
    if not rows:
        return NOT_RUN
    body = [[_name(one), _recall(one), _value(one, "recall@5"), _value(one, "AP")] for one in rows]
    shown = _under(table(["descriptor", "recall@1", "recall@5", "AP"], body), rows)
    gain = estimate(Test(study, "CL", BEFORE, against_scored="untrained"), known, store)
    return f"{shown} CL above the untrained network: {difference(gain.difference, gain.low, gain.high)}." if gain else shown


def _all(known: Mapping[str, Mapping[int, Record]], store: Store) -> Iterable[Summary]:
    """What all arms share, once; then every arm as it was trained."""
    for scored in SHARED:
        one = next((one for records in known.values() if (one := summary(records, scored, store))), None)
        if one is not None:
            yield one
    for records in known.values():
        one = summary(records, "trained", store)
        if one is not None:
            yield one


def _scored(known: Mapping[str, Mapping[int, Record]]) -> list[tuple[str, str]]:
    """(arm, how it was scored) of all records."""
    pairs = [(arm, sorted({name for record in records.values() for name in record.scored}, key=natural)) for arm, records in known.items()]
    return [(arm, name) for arm, names in pairs for name in sorted(names, key=lambda name: name not in SHARED and name != "trained")]


def _parsed(form: re.Pattern[str], study: str, store: Store) -> list[tuple[re.Match[str], Summary]]:
    """The arms of a study whose names have a form, as they were trained."""
    pairs = [(form.fullmatch(arm), summary(records, "trained", store)) for arm, records in arms(study, store).items()]
    return [(match, one) for match, one in pairs if match and one]


def _name(one: Summary) -> str:
    names = {"tiny": "*tiny grey image*", "untrained": "*untrained*"}
    if one.scored == "whitened":
        return f"{one.arm}, whitened"
    return names.get(one.scored, f"*{one.scored}* ({one.arm})" if one.scored in SHARED else one.arm)


def _recall(one: Summary | None) -> str:
    return "" if one is None else mean(one.mean(), *one.interval())


def _value(one: Summary, name: str) -> str:
    return number(one.values[name]) if name in one.values else ""


def _under(shown: str, rows: Sequence[Summary]) -> str:
    """A table, and below it how many seeds and queries its rows have."""
    counts = sorted({len(one.seeds) for one in rows})
    seeds = several(counts[0], "seeds") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f"{shown}\n\n{seeds}; {listed(list(dict.fromkeys(one.said() for one in rows)))}."
