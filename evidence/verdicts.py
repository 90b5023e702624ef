"""Verdicts: paired differences over seeds and queries, their intervals, and what they say of a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from evidence.records import KEPT, Asked, Record, Scored, Store

SAMPLES = 10_000
"""Bootstrap samples."""
LEVEL = 0.95
LEAST_SEEDS = 3
"""Of trained arms: with fewer the interval would speak of queries alone."""
OTHER = " of another seed"
"""How a score's name ends that is taken from the next seed of the same arm: are two networks of one kind as good as two kinds?"""

Expect = Literal["higher", "lower", "as good", "much higher"]
Verdict = Literal["holds", "does not hold", "cannot be told apart", "not run"]


@dataclass(frozen=True)
class Test:
    """One comparison: `arm` minus `against`.

    Attributes:
        study: of both arms.
        arm: its name; of pooled test sets see `scored`.
        against: the other arm; empty: the same arm, scored otherwise.
        against_study: the other arm's study; empty: the same.
        scored: how the arm is scored, a name of its record; "rgb|teacher": a query counts as found where either found it;
            "rgb|rgb of another seed": the second of the same arm's next seed, after the last the first.
        against_scored: how the other is scored; empty: as the arm.
        metric: "recall@1", which is kept query by query, or a pooled one ("recall@5", "AP", "Spearman", "null").
        expect: what the claim says of the difference.
        least: the smallest difference that matters, > 0; "as good" allows to be lower by less than that, "much higher" is by more.
        group: only queries of these conditions, separated by commas; empty: all.
        over: two other arms (arm, against) of the study, whose difference is taken off: does noise cost this pair less than that?
        beyond: the mean difference over queries of these conditions is taken off: does `arm` gain more on `group` than here?
        main: whether the claim's verdict rests on it; others are shown beside.
        says: what is compared, in words.
    """

    __test__: ClassVar[bool] = False  # no class of pytest's

    study: str
    arm: str
    against: str = ""
    against_study: str = ""
    scored: str = "trained"
    against_scored: str = ""
    metric: str = "recall@1"
    expect: Expect = "higher"
    least: float = 0.02
    group: str = ""
    over: tuple[str, ...] = ()
    beyond: str = ""
    main: bool = True
    says: str = ""


@dataclass(frozen=True)
class Estimate:
    """A paired difference.

    Attributes:
        a: mean of `against`, over seeds and queries.
        b: mean of `arm`.
        difference: b - a.
        low: of the 95 % interval: bootstrap over seeds and units of queries, both drawn again; of pooled metrics Student's t over seeds.
        high: of it.
        by_seed: seed -> difference.
        queries: how many are counted; 0 of pooled metrics.
        units: how many.
        trained: whether a seed decided anything.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    by_seed: Mapping[int, float]
    queries: int
    units: int
    trained: bool = True


@dataclass(frozen=True)
class Claim:
    """What somebody said, and how it is tested.

    Attributes:
        name: "G1".
        says: the claim, in a sentence.
        paper: what the paper reports.
        tests: the comparisons; the claim's verdict rests on the main ones.
        note: what a reader must know of the test.
        fact: where a unit test decides: which.
    """

    name: str
    says: str
    paper: str
    tests: tuple[Test, ...]
    note: str = ""
    fact: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim with its numbers.

    Attributes:
        claim: what was tested.
        estimates: one a test, None where cells are missing.
        verdicts: one a test.
        verdict: of the claim.
    """

    claim: Claim
    estimates: tuple[Estimate | None, ...]
    verdicts: tuple[Verdict, ...]
    verdict: Verdict


def judge(claims: Sequence[Claim], store: Store) -> list[Finding]:
    """Measure every claim on the records that there are."""
    known: dict[str, dict[str, dict[int, Record]]] = {}
    findings = []
    for claim in claims:
        for test in claim.tests:
            for study in {test.study, test.against_study} - {"", *known}:
                known[study] = store.records(study)
        estimates = tuple(estimate(test, known[test.study], store, known.get(test.against_study)) for test in claim.tests)
        verdicts = tuple(verdict(test, one) for test, one in zip(claim.tests, estimates, strict=True))
        findings.append(Finding(claim, estimates, verdicts, _together(claim, verdicts)))
    return findings


def verdict(test: Test, estimate: Estimate | None) -> Verdict:
    """What a difference says; of trained arms, with three seeds or more.

    "higher" and "lower" hold where the interval leaves out 0 on the claimed side, and do not hold where all of it is less than the
    smallest difference that matters. "as good" holds where the interval's lower end is above minus that, and does not hold
    where all of the interval is below 0. "much higher" holds where all of it is above the smallest difference, and does not hold
    where all of it is below.

    >>> verdict(Test("s", "a", "b"), Estimate(.5, .6, .1, .04, .16, {0: .09, 1: .1, 2: .11}, 90, 12))
    'holds'
    >>> verdict(Test("s", "a", "b"), Estimate(.5, .505, .005, -.005, .015, {0: .0, 1: .01, 2: .005}, 90, 12))
    'does not hold'
    >>> verdict(Test("s", "a", "b"), Estimate(.5, .6, .1, .04, .16, {0: .1}, 90, 12))
    'cannot be told apart'
    """
    if estimate is None:
        return "not run"
    low, high = estimate.low, estimate.high
    if test.expect == "lower":
        low, high = -high, -low
    if np.isnan(low) or np.isnan(high) or (estimate.trained and len(estimate.by_seed) < LEAST_SEEDS):
        return "cannot be told apart"
    if test.expect == "much higher":
        return "holds" if low > test.least else "does not hold" if high < test.least else "cannot be told apart"
    if test.expect == "as good":
        return "holds" if low > -test.least else "does not hold" if high < 0 else "cannot be told apart"
    return "holds" if low > 0 else "does not hold" if high < test.least else "cannot be told apart"


def estimate(
    test: Test, records: Mapping[str, Mapping[int, Record]], store: Store, others: Mapping[str, Mapping[int, Record]] | None = None
) -> Estimate | None:
    """The paired difference of a test, over the seeds that both arms have; None where no record has both.

    Args:
        test: what is compared.
        records: of its study.
        store: where the queries are.
        others: the records of the study that the other arm is of; default: `records`.
    """
    against = (records if others is None else others).get(test.against or test.arm, {})
    pairs = {}
    for seed, record in records.get(test.arm, {}).items():
        if seed in against:
            other = _find(against, seed, test.against_scored or test.scored)
            pair = _Pair(against[seed], record, other, _find(records[test.arm], seed, test.scored))
            if pair.a and pair.b:
                pairs[seed] = pair
    if not pairs:
        return None
    if _pooled(test.metric):
        return _over_seeds(test, pairs)
    keys = {one.asked for pair in pairs.values() for one in (*pair.a, *pair.b)}
    if len(keys) > 1:
        raise InvalidInputError(
            f"Both sides of a test must be asked the same queries with every seed; {test.arm!r} and {test.against or test.arm!r} of "
            f"{test.study!r} were asked {', '.join(sorted(keys))}. Run the cells again that were made on other data."
        )
    asked = store.asked(keys.pop())
    if not set(_conditions(f"{test.group},{test.beyond}")) <= asked.groups.keys():
        return None  # other towns, without these conditions
    a, b = (np.array([_hits(side, test.metric) for side in sides]) for sides in zip(*((p.a, p.b) for p in pairs.values()), strict=True))
    chosen, beyond = _members(asked, test.group), _members(asked, test.beyond) if test.beyond else None
    apart = b - a
    if test.over:
        costs = [_column(records.get(arm, {}), pairs, test) for arm in test.over]
        if any(cost is None for cost in costs):
            return None
        apart = apart - (costs[0] - costs[1])  # type: ignore[operator]  # none is None
    difference, low, high, by_seed = _crossed(apart, asked, chosen, beyond)
    counted = chosen & ~np.isnan(a[0]) & ~np.isnan(b[0])
    lower, upper = (float(side[:, counted].mean()) for side in (a, b))
    seeds = dict(zip(pairs, by_seed, strict=True))
    units, trained = len(np.unique(asked.units[counted])), any(pair.arm.training for pair in pairs.values())
    return Estimate(lower, upper, difference, low, high, seeds, int(counted.sum()), units, trained)


def mean_interval(values: NDArray[np.float64], units: NDArray[np.int64], *, samples: int = SAMPLES) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds and queries: both are drawn again, queries by unit.

    Args:
        values: (seeds, queries), NaN for a query that is not counted.
        units: (queries,) the unit of each query, numbered from 0.
        samples: bootstrap samples.

    Returns:
        (low, high); with one seed it says nothing about seeds; NaN both with fewer than two units.

    >>> mean_interval(np.array([[0.0, 1.0, 1.0, 1.0]]), np.arange(4))
    (0.25, 1.0)
    """
    asked = Asked(("",) * values.shape[1], units, "")
    _, low, high, _ = _crossed(values, asked, np.ones(values.shape[1], dtype=bool), None, samples=samples)
    return low, high


def _together(claim: Claim, verdicts: Sequence[Verdict]) -> Verdict:
    """A claim holds where all of its main tests do; one that does not hold decides against it."""
    if claim.fact:
        return "holds"
    main = [one for test, one in zip(claim.tests, verdicts, strict=True) if test.main]
    if "does not hold" in main:
        return "does not hold"
    return "not run" if "not run" in main else "holds" if set(main) == {"holds"} else "cannot be told apart"


@dataclass(frozen=True)
class _Pair:
    """What both arms left with one seed."""

    against: Record
    arm: Record
    a: list[Scored]
    b: list[Scored]


@lru_cache(maxsize=64)
def _draws(seeds: int, units: int, samples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(samples, seeds) the weight of each seed, (samples, units) how often each unit is drawn: the same for all arms.

    A bootstrap of n values has a variance that is too small by (n - 1) / n; with three or five seeds that matters, so that their
    weights are drawn away from 1 / n by the root of n / (n - 1).
    """
    random = np.random.default_rng(0)
    rows = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    rows = 1 / seeds + (rows - 1 / seeds) * np.sqrt(seeds / max(seeds - 1, 1))
    return rows, random.multinomial(units, np.full(units, 1 / units), size=samples).astype(np.float64)


def _find(records: Mapping[int, Record], seed: int, name: str) -> list[Scored]:
    """The scores that a name stands for, "a|b" for two, of one seed of an arm; empty where one is lacking."""
    seeds = sorted(records)
    following = seeds[(seeds.index(seed) + 1) % len(seeds)]
    found = []
    for part in name.split("|"):
        own = part.removesuffix(OTHER)
        record = records[seed if own == part else following]
        if own in record.scored and (own == part or following != seed):
            found.append(record.scored[own])
    return found if len(found) == name.count("|") + 1 else []


def _hits(scored: Sequence[Scored], metric: str) -> NDArray[np.float64]:
    """(q,) of several, whether any found it."""
    best: NDArray[np.float64] = np.max([one.hits[metric] for one in scored], axis=0)
    return best


def _column(records: Mapping[int, Record], seeds: Iterable[int], test: Test) -> NDArray[np.float64] | None:
    """(seeds, q) hits of an arm; None where it lacks a seed."""
    rows = [_find(records, seed, test.scored) if seed in records else [] for seed in seeds]
    return np.array([_hits(row, test.metric) for row in rows]) if all(rows) else None


def _pooled(metric: str) -> bool:
    return metric not in KEPT


def _value(scored: Sequence[Scored], record: Record, metric: str) -> float:
    return record.training[metric] if metric in ("null", "seconds", "pairs", "steps") else scored[0].values[metric]


def _over_seeds(test: Test, pairs: Mapping[int, _Pair]) -> Estimate:
    """Of a pooled metric: the mean of the seeds' differences, with Student's interval."""
    from scipy.stats import t  # half a second: not at import

    a = np.array([_value(pair.a, pair.against, test.metric) for pair in pairs.values()])
    b = np.array([_value(pair.b, pair.arm, test.metric) for pair in pairs.values()])
    difference, count = b - a, len(a)
    width = t.ppf((1 + LEVEL) / 2, count - 1) * difference.std(ddof=1) / np.sqrt(count) if count > 1 else float("nan")
    mean = float(difference.mean())
    seeds = dict(zip(pairs, difference.tolist(), strict=True))
    return Estimate(float(a.mean()), float(b.mean()), mean, float(mean - width), float(mean + width), seeds, 0, 0)


def _members(asked: Asked, group: str) -> NDArray[np.bool_]:
    """(q,) the queries of some conditions; all where none is named."""
    if not group:
        return np.ones(len(asked.names), dtype=bool)
    members = np.zeros(len(asked.names), dtype=bool)
    for name in _conditions(group):
        members |= asked.groups[name]
    return members


def _conditions(text: str) -> list[str]:
    """The names between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _crossed(
    values: NDArray[np.float64],
    asked: Asked,
    chosen: NDArray[np.bool_],
    beyond: NDArray[np.bool_] | None,
    *,
    samples: int = SAMPLES,
) -> tuple[float, float, float, list[float]]:
    """(mean, low, high, by seed) of (seeds, queries) values over `chosen`, less those over `beyond`; seeds and units are drawn again."""
    count = int(asked.units.max()) + 1
    rows, drawn = _draws(len(values), count, samples)

    def of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counted = mask & ~np.isnan(values).any(axis=0)
        sums = np.array([np.bincount(asked.units[counted], weights=row[counted], minlength=count) for row in values])
        numbers = np.bincount(asked.units[counted], minlength=count)
        with np.errstate(invalid="ignore", divide="ignore"):
            boot = ((rows @ sums) * drawn).sum(axis=1) / (drawn @ numbers)
            return boot, sums.sum(axis=1) / numbers.sum()

    boot, mean = of(chosen)
    if beyond is not None:
        other, taken = of(beyond)
        boot, mean = boot - other, mean - taken
    known = boot[~np.isnan(boot)]
    ends = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) and count > 1 else [np.nan, np.nan]
    return float(mean.mean()), float(ends[0]), float(ends[1]), [float(value) for value in mean]
