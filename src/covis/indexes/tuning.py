"""The quickest index that reaches a recall, found by trying, on the user's own vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.indexes import measures
from covis.indexes.approximate import ApproximateIndex
from covis.indexes.exact import ExactIndex
from covis.indexes.sketches import BinaryIndex, PrefixIndex
from covis.indexes.stored import StoredIndex
from covis.indexes.structures import GraphIndex, InvertedIndex, ProductIndex

TUNED: tuple[type[ApproximateIndex], ...] = (PrefixIndex, ProductIndex, InvertedIndex, BinaryIndex, GraphIndex)
"""What is tried where no kind is asked for; "sq" is never quicker than exact search."""
GRAPH_UP_TO = 200_000
"""Vectors beyond which "hnsw" is tried only when it is asked for: building it takes minutes, and its recall falls as they grow."""
FEW = 5_000
"""Vectors below which the exact index is taken at once: exact search of so few takes milliseconds, and rates say nothing."""
MARGIN = 1.2
"""An approximate index must be so many times quicker than exact search; less is the noise of the clock."""

Progress = Callable[[str], None]


def tuned(
    exact: ExactIndex,
    kinds: Sequence[type[ApproximateIndex]],
    *,
    recall: float,
    k: int = measures.K,
    queries: Descriptors | None = None,
    progress: Progress | None = None,
) -> StoredIndex:
    """The quickest index of some kinds whose recall of the first one and of the first k both reach `recall`; else the exact one.

    A structure is built once for each of its kind's settings of building; settings of searching are tried on it from the quickest
    on, until one reaches the recall. The choice is made on one sample of queries, and the report measured on another, that shares none
    with it. The exact one is taken of fewer than `FEW` vectors, and where nothing is `MARGIN` times as quick.

    Args:
        exact: the vectors.
        kinds: what is tried; none: the exact one is asked for.
        recall: in (0, 1].
        k: see above.
        queries: to ask; default: samples of the index's own vectors.
        progress: is told of each trial.

    Raises:
        InvalidInputError: recall is not in (0, 1], k < 1, or there are fewer than three vectors.
    """
    if not 0 < recall <= 1 or k < 1 or len(exact) < 3:
        raise InvalidInputError(
            f"Tuning needs a recall in (0, 1], k >= 1 and three vectors or more; got {recall}, {k} and {len(exact)} vectors."
        )
    asked = f"recall {recall:g} of the first and of the first {k} asked for"
    if not kinds or len(exact) < FEW:
        few = "exact, whose recall is 1" if not kinds else f"exact, whose recall is 1, since it is quick for fewer than {FEW:,} vectors"
        exact.chosen = f"{asked}: {few}"
        return exact
    chooses, judges = _samples(exact, queries)
    truth = measures.truth(exact.shards, chooses, k)
    trials: list[dict[str, Any]] = []
    best: tuple[dict[str, Any], ApproximateIndex] | None = None
    for kind in kinds:
        for settings in kind.builds(exact.shards.sets[0].dim):
            made = kind(**settings)
            made.shards, made.k = exact.shards, k
            try:
                made.build_now()
            except InvalidInputError as error:
                if progress:
                    progress(f"{kind.kind} is not tried: {error}")
                continue
            found = _searched(made, chooses, truth, recall=recall, trials=trials, progress=progress)
            if found and found["queries_per_second"] > (MARGIN * truth.rate if best is None else best[0]["queries_per_second"]):
                best = found, made
    trials.sort(key=lambda trial: (not trial["reached"], -trial["queries_per_second"]))
    told = f"{asked}; {len(trials)} settings tried"
    chosen: StoredIndex = exact
    if best is None:
        rate = f"exact search ({truth.rate:,.0f} queries/s)"
        chosen.chosen = f"{told}, none reaches it and is {MARGIN} times as quick as {rate}: exact, whose recall is 1"
    else:
        trial, index = best
        index.options = dict(trial["options"])
        index.report = measures.report(index, judges, measures.truth(exact.shards, judges, k), build_seconds=index.build_seconds)
        index.chosen = f"{told}, {index.kind} is the quickest that reaches it"
        chosen = index
    chosen.trials = tuple(trials)
    return chosen


def _searched(
    index: ApproximateIndex,
    asked: measures.Sample,
    truth: measures.Truth,
    *,
    recall: float,
    trials: list[dict[str, Any]],
    progress: Progress | None,
) -> dict[str, Any] | None:
    """The quickest settings of searching that reach the recall, or none; each is noted."""
    for settings in index.SEARCHES:
        index.options |= settings
        if index.wanted(truth.k) >= len(index):  # that search is exact, and only seems to be of its kind
            break
        measured = measures.compared(index, asked, truth)
        reached = all(value >= recall for name, value in measured.items() if name.startswith("recall@"))
        trials.append({"kind": index.kind, "options": dict(index.options), **measured, "reached": reached})
        if progress:
            progress(line(trials[-1]))
        if reached:
            return trials[-1]
    return None


def line(trial: dict[str, Any]) -> str:
    """A trial in a line of a table."""
    options = " ".join(f"{name}={value}" for name, value in trial["options"].items())
    recalls = "  ".join(f"{name} {value:.3f}" for name, value in trial.items() if name.startswith("recall@"))
    return f"{trial['kind']:<7} {options:<44} {recalls}  {trial['queries_per_second']:>9,.0f} queries/s{'  *' if trial['reached'] else ''}"


def _samples(exact: ExactIndex, queries: Descriptors | None) -> tuple[measures.Sample, measures.Sample]:
    """One to choose by and one to report, that share no query; of one query that is given, both are that."""
    if queries is None:
        alive = np.random.default_rng(0).permutation(np.flatnonzero(~exact.shards.dead))
        one, other = (measures.of_rows(exact.shards, alive[part::2][: measures.SAMPLE]) for part in (0, 1))
        return one, other
    rows = np.random.default_rng(0).permutation(len(queries))
    halves = [np.sort(rows[part::2]) for part in (0, 1)] if len(rows) > 1 else [rows, rows]
    sets = [replace(queries, vectors=queries.vectors[half], names=tuple(queries.names[row] for row in half)) for half in halves]
    return measures.sample(exact.shards, sets[0]), measures.sample(exact.shards, sets[1])
