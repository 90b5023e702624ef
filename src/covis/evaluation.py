"""Evaluation: rankings, labels and a protocol become Scores with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.images import Scene
from covis.intervals import Units, bootstrap, resampling_units
from covis.labels import Labels
from covis.metrics import METRICS, PooledPrecision
from covis.protocols import Protocol
from covis.protocols import protocol as protocol_by_name
from covis.rankings import Rankings
from covis.scores import Metric, Scores

LEVEL = 0.95


def evaluate(
    rankings: Rankings | Sequence[Rankings],
    scenes: Scene | Sequence[Scene],
    *,
    labels: Labels | Sequence[Labels],
    protocol: str | Protocol = "graded/0.5",
    descriptors: Sequence[tuple[Descriptors, Descriptors]] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score rankings under a protocol; several scenes are pooled query by query.

    Args:
        rankings: one a scene.
        scenes: whose queries and database the rankings rank.
        labels: one a scene.
        protocol: a name of `PROTOCOLS`, a TOML file, or a `Protocol`.
        descriptors: (queries, database) a scene, for the average precision over all pairs ("AP"); without them it is
            not computed.
        samples: bootstrap samples of each interval.
        seed: of the bootstrap.

    Returns:
        recall@k for the protocol's k, and AP where descriptors are given, each with a 95 % interval.

    Raises:
        InvalidInputError: the parts do not belong together (names, counts), or a ranking is too short for a k.
    """
    rule = protocol if isinstance(protocol, Protocol) else protocol_by_name(protocol)
    ranked, asked, labelled = _listed(rankings), _listed(scenes), _listed(labels)
    if not ranked or len(ranked) != len(asked) or len(labelled) != len(asked):
        raise InvalidInputError(
            f"One ranking and one Labels a scene must be given; got {len(asked)} scenes, {len(ranked)} rankings, {len(labelled)} labels."
        )
    for found, scene, label in zip(ranked, asked, labelled, strict=True):
        _check_names(found, scene, label)
    units = resampling_units([scene.queries for scene in asked])
    per_query = _per_query(ranked, labelled, rule)
    metrics = {name: _mean(values, units, samples=samples, seed=seed) for name, values in per_query.items()}
    if descriptors is not None:
        metrics["AP"] = _precision(descriptors, labelled, rule, units, samples=samples, seed=seed)
    names = tuple(f"{scene.name}/{name}" if len(asked) > 1 else name for scene in asked for name in scene.queries.names)
    interval = {
        "method": "percentile bootstrap",
        "unit": units.what,
        "count": units.count,
        "samples": samples,
        "level": LEVEL,
        "seed": seed,
    }
    return Scores(rule, metrics, names, per_query, interval, _history(ranked, asked, labelled))


def _per_query(ranked: Sequence[Rankings], labelled: Sequence[Labels], rule: Protocol) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for metric, function in METRICS.items():
        for k in rule.ks:
            parts = [
                function(found, label.positives(rule.threshold, strict=rule.strict), k=k, excluded=label.excluded)
                for found, label in zip(ranked, labelled, strict=True)
            ]
            values = np.concatenate(parts)
            columns[f"{metric}@{k}"] = np.nan_to_num(values, nan=0.0) if rule.denominator == "all" else values
    return columns


def _mean(values: NDArray[np.float64], units: Units, *, samples: int, seed: int) -> Metric:
    counted = ~np.isnan(values)
    filled = np.where(counted, values, 0)

    def statistic(weights: NDArray[np.float64]) -> float:
        total = weights[counted].sum()
        return float(weights @ filled / total) if total else float("nan")

    low, high = bootstrap(statistic, units, samples=samples, seed=seed, level=LEVEL)
    return Metric(statistic(np.ones(len(values))), low, high, int(counted.sum()))


def _precision(
    descriptors: Sequence[tuple[Descriptors, Descriptors]],
    labelled: Sequence[Labels],
    rule: Protocol,
    units: Units,
    *,
    samples: int,
    seed: int,
) -> Metric:
    positives = [label.positives(rule.threshold, strict=rule.strict) for label in labelled]
    if len(descriptors) != len(labelled):
        raise InvalidInputError(f"One pair of descriptors a scene must be given; got {len(descriptors)} for {len(labelled)} scenes.")
    for (queries, database), label in zip(descriptors, labelled, strict=True):
        if queries.names != label.query_names or database.names != label.database_names:
            raise InvalidInputError(
                f"The descriptors must be those of the labelled images, in their order; {queries} and {database} are not those of {label}."
            )
        if queries.model != database.model:
            raise InvalidInputError(f"The descriptors of queries and database must come from one model; got {queries} and {database}.")
    pooled = PooledPrecision(descriptors, positives, excluded=[label.excluded for label in labelled], distances=rule.distances)
    low, high = bootstrap(pooled.by_unit(units.unit), units, samples=samples, seed=seed, level=LEVEL)
    return Metric(pooled.value(), low, high, len(units.unit))


def _check_names(found: Rankings, scene: Scene, label: Labels) -> None:
    for what, names in (("ranking", (found.query_names, found.database_names)), ("labels", (label.query_names, label.database_names))):
        for side, mine, theirs in zip(("queries", "database"), names, (scene.queries.names, scene.database.names), strict=True):
            if mine != theirs:
                where = next(
                    (f"{a!r} against {b!r}" for a, b in zip(mine, theirs, strict=False) if a != b),
                    f"{len(mine)} against {len(theirs)} images",
                )
                raise InvalidInputError(
                    f"The {what} of scene {scene.name!r} must name its {side} in their order; they differ: {where}. Were "
                    "they made from other data?"
                )


def _history(ranked: Sequence[Rankings], asked: Sequence[Scene], labelled: Sequence[Labels]) -> dict[str, Any]:
    def one(found: Rankings, scene: Scene, label: Labels) -> dict[str, Any]:
        return {
            "scene": scene.name,
            "split": scene.split,
            "rankings": dict(found.history),
            "labels": {"rule": label.rule, "parameters": dict(label.parameters)},
        }

    return {"scenes": [one(*parts) for parts in zip(ranked, asked, labelled, strict=True)]}


def _listed(one_or_more: Any) -> list[Any]:
    return [one_or_more] if isinstance(one_or_more, (Rankings, Scene, Labels)) else list(one_or_more)
