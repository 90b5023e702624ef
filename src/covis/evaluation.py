"""Evaluation: rankings or predictions, scenes and a protocol become Scores with intervals."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.curves import ROUNDING, PooledPrecision, match_curve, weighted_quantile
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError
from covis.hits import Hits, hits
from covis.images import Images, Scene
from covis.intervals import Units, bootstrap, bootstrap_means, draws, resampling_units
from covis.labels import Labels
from covis.metrics import METRICS, NEEDS, position_error
from covis.predictions import Lookup, Predictions, Side, Unknown
from covis.protocols import Protocol
from covis.protocols import protocol as protocol_by_name
from covis.rankings import Rankings
from covis.scores import Metric, Scores
from covis.truths import Truth, joint_truth, truth

LEVEL = 0.95
MISSES = ("recall", "mAP")
"""Metrics of a query without a positive: 0 where a protocol counts all queries."""
LEAST = {"rank-correlation": 3}
"""The k from which on a metric can be defined."""
ERROR_LEVELS = (0.5, 0.75, 0.95)

Statistic = Callable[[NDArray[np.float64]], float]


def evaluate(
    rankings: Rankings | Predictions | Sequence[Rankings],
    scenes: Scene | Sequence[Scene],
    *,
    labels: Labels | Sequence[Labels] | None = None,
    protocol: str | Protocol | None = None,
    descriptors: Sequence[tuple[Descriptors, Descriptors]] | None = None,
    unknown: Unknown | None = None,
    samples: int = 1000,
    seed: int = 0,
    made: Mapping[str, Any] | None = None,
) -> Scores:
    """Score rankings or a prediction file under a protocol; several scenes are pooled query by query.

    Names match exactly or by key (`covis.predictions`), in any order. Queries that the protocol does not ask are dropped.

    Args:
        rankings: one a scene; under a protocol of scope "joint" one in all, named as in `covis.truths.join`. Or a
            prediction file, which may hold the queries of all scenes under either scope.
        scenes: whose queries and database the rankings rank.
        labels: one a scene; without them there are no graded metrics, and no protocol by similarity.
        protocol: a name of `PROTOCOLS`, a TOML file, or a `Protocol`; None: `default_protocol`.
        descriptors: (queries, database) a scene, for the average precision over all pairs ("AP"); without them it is
            not computed. It is left out, and said so, under scope "joint", for windows, and where images were skipped.
        unknown: for a prediction file, what is done about names that the data does not have (`Predictions.rankings`);
            None: "strict_file" under MSLS's protocols, as their script does, else "stop". With "strip_unknown" images that
            the protocol never takes as correct are removed too.
        samples: bootstrap samples of each interval.
        seed: of the bootstrap.
        made: what else is stored in the history under this word: how the rankings were made, as far as they do not say it.

    Returns:
        For the protocol's k recall@k and mAP@k; with labels graded-recall@k, nDCG@k and, where distances are known,
        rank-correlation@k; match-AP and recall@100%precision where distances are known; error@50%, @75% and @95% (metres)
        where positions are known; AP where descriptors are given. Each with a 95 % interval. Per-query values are NaN for
        a query that is not counted.

    Raises:
        InvalidInputError: the parts do not belong together (names, counts), the scenes lack what the protocol looks at, or
            a ranking is too short for a k.
    """
    judged, asked, labelled, truths = _judged(scenes, labels, protocol)
    rule = judged.rule
    policy = (unknown or _policy(rule)) if isinstance(rankings, Predictions) else None
    ranked, views = judged.views(rankings, policy)
    units = resampling_units([_chosen(scene.queries, one.query_rows[one.asked]) for scene, one in zip(asked, truths, strict=True)])
    drawn = {"samples": samples, "seed": seed, "level": LEVEL}
    per_query, metrics = judged.metrics(views, units, drawn)
    skipped = sum(len(skipped_images(side)) for side in {id(side): side for pair in descriptors or () for side in pair}.values())
    if skipped:
        judged.left_out.append(f"AP: {skipped} images were skipped when they were described, and have no descriptor")
    elif descriptors is not None and rule.scope == "scene" and rule.windows == (1, 1):
        metrics["AP"] = _precision(descriptors, asked, truths, rule=rule, units=units, drawn=drawn)
    elif descriptors is not None:
        judged.left_out.append("AP: it is over the pairs of single images, each scene alone")
    for what in judged.left_out:
        warnings.warn(f"Not computed under {rule.name}: {what}.", CovisWarning, stacklevel=2)
    interval = {"method": "percentile bootstrap", "unit": units.what, "count": units.count, **drawn}
    stories = [_story(*parts) for parts in zip(asked, truths, labelled, _spread(ranked, len(asked)), strict=True)]
    history = {
        "protocol": rule.name,
        "policy": policy,
        "scenes": stories,
        **judged.story(),
        **({} if made is None else {"made": dict(made)}),
    }
    return Scores(rule, metrics, _query_names(asked, truths), per_query, interval, history, units=units.unit)


def default_protocol(labels: object | None) -> str:
    """The protocol of scores for which none was named: graded/0.5 where there are labels, else radius/25.

    >>> default_protocol(None)
    'radius/25'
    """
    return "radius/25" if labels is None else "graded/0.5"


def skipped_images(descriptors: Descriptors) -> set[str]:
    """The names of the images that `extract(damaged="skip")` left without a descriptor, as its history says.

    >>> story = {"extracted": {"skipped": [{"name": "b.jpg", "reason": "truncated"}]}}
    >>> skipped_images(Descriptors(np.ones((1, 2), dtype=np.float32), ("a.jpg",), "m", story))
    {'b.jpg'}
    """
    return {one["name"] for one in descriptors.history.get("extracted", {}).get("skipped", ())}


def as_scored(
    rankings: Rankings | Predictions | Sequence[Rankings],
    scenes: Scene | Sequence[Scene],
    *,
    labels: Labels | Sequence[Labels] | None = None,
    protocol: str | Protocol | None = None,
    unknown: Unknown | None = None,
) -> list[Rankings]:
    """The rankings as `evaluate` judges them: the asked queries, without what takes no rank, the rest moved up; for a map or a sheet.

    The arguments are those of `evaluate`, and what it warns of is not said again.
    """
    judged, *_ = _judged(scenes, labels, protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        _, views = judged.views(rankings, (unknown or _policy(judged.rule)) if isinstance(rankings, Predictions) else None)
    return [Rankings(view.rows, view.distances, view.query_names, view.database_names) for view in views]


def _judged(
    scenes: Scene | Sequence[Scene], labels: Labels | Sequence[Labels] | None, protocol: str | Protocol | None
) -> tuple[_Judged, list[Scene], list[Labels | None], list[Truth]]:
    """What a protocol says of scenes, as one or many were given: judged, and scenes, labels and truths one a scene."""
    rule = protocol if isinstance(protocol, Protocol) else protocol_by_name(protocol or default_protocol(labels))
    asked: list[Scene] = _listed(scenes)
    labelled: list[Labels | None] = [None] * len(asked) if labels is None else _listed(labels)
    if not asked or len(labelled) != len(asked):
        raise InvalidInputError(f"One Labels a scene must be given; got {len(asked)} scenes, {len(labelled)} labels.")
    truths = [truth(scene, rule, label) for scene, label in zip(asked, labelled, strict=True)]
    names = [scene.name for scene in asked] if rule.scope == "scene" else ["+".join(scene.name for scene in asked)]
    return _Judged(rule, names, truths if rule.scope == "scene" else [joint_truth(asked, truths)]), asked, labelled, truths


class _Judged:
    """A protocol's truths, one for each ranking that it takes; and what was dropped and left out on the way."""

    def __init__(self, rule: Protocol, names: Sequence[str], truths: Sequence[Truth]) -> None:
        self.rule, self.names, self.truths = rule, names, truths
        self.dropped: Counter[str] = Counter()
        self.left_out: list[str] = []
        self.silent = 0

    def story(self) -> dict[str, Any]:
        """What was dropped, counted, and what was left out."""
        return {"dropped": {what: count for what, count in self.dropped.items() if count}, "left out": self.left_out}

    def counted(self, one: Truth) -> NDArray[np.bool_]:
        """(q,) bool: is in the denominator."""
        return one.asked if self.rule.denominator == "all" else one.answerable

    def views(self, rankings: Rankings | Predictions | Sequence[Rankings], policy: Unknown | None) -> tuple[list[Rankings], list[Hits]]:
        """The rankings as they came, and as metrics see those of the queries that are asked."""
        if isinstance(rankings, Predictions):
            sides = [Side(one.query_names, one.database_names, self.counted(one)) for one in self.truths]
            ranked = rankings.by_scene(sides, unknown=policy or "stop")
        else:
            ranked = _listed(rankings)
        if len(ranked) != len(self.truths):
            per = "a scene" if self.rule.scope == "scene" else f"over all scenes (protocol {self.rule.name} searches one joint index)"
            raise InvalidInputError(f"One ranking {per} must be given; got {len(ranked)} for {', '.join(self.names)}.")
        self.silent = sum(int(found.history.get("without a descriptor", {}).get("queries", 0)) for found in ranked)
        return ranked, [self._view(found, one, name, policy) for found, one, name in zip(ranked, self.truths, self.names, strict=True)]

    def _view(self, found: Rankings, one: Truth, name: str, policy: Unknown | None) -> Hits:
        asked = np.flatnonzero(one.asked)
        whole = len(asked) == len(one.asked)
        searched = one.eligible if policy == "strip_unknown" else one.searched
        placed = self._placed(found, one, name)
        self.dropped["ranked images that are not searched"] += int(np.count_nonzero(~np.append(searched, True)[placed.rows]))
        return hits(
            placed,
            one.positives if whole else one.positives[asked],
            excluded=one.excluded if whole else one.excluded[asked],
            searched=searched,
            groups=one.groups,
            similarity=one.similarity if one.similarity is None or whole else one.similarity[asked],
            short=self.rule.short,
        )

    def _placed(self, found: Rankings, one: Truth, name: str) -> Rankings:
        """The rankings of the queries that are asked, in the truth's order and its database's rows."""
        if found.query_names == one.query_names and found.database_names == one.database_names and one.asked.all():
            return found
        database, place = self._database_rows(found, one, name), self._query_rows(found, one, name)[one.asked]
        # A query without a line reads the last row: nobody counts it, and its distances must not look unknown, or all would.
        rows = np.append(database, -1)[np.vstack([found.rows, np.full((1, found.k), -1)])[place]]
        distances = np.vstack([found.distances, np.zeros((1, found.k), dtype=np.float32)])[place]
        names = tuple(one.query_names[row] for row in np.flatnonzero(one.asked))
        return Rankings(rows, distances, names, one.database_names, found.history)

    def _query_rows(self, found: Rankings, one: Truth, name: str) -> NDArray[np.int64]:
        """(q,) where in the rankings each of the truth's queries is; -1 where it is not."""
        rows = Lookup(one.query_names).rows(found.query_names)
        known = rows >= 0
        place = np.full(len(one.query_names), -1, dtype=np.int64)
        place[rows[known]] = np.flatnonzero(known)
        if len(np.unique(rows[known])) < np.count_nonzero(known):
            raise InvalidInputError(f"A ranking of {name} must hold each query once; two of its names mean the same one.")
        lacking = np.flatnonzero(self.counted(one) & (place < 0))
        if lacking.size:
            raise InvalidInputError(
                f"The ranking of {name} must hold every query that is asked; {lacking.size} of {np.count_nonzero(one.asked)} are not in "
                f"it, the first is {one.query_names[lacking[0]]!r}. Was it made from other data?"
            )
        self.dropped["queries that are not asked"] += int(len(found) - np.count_nonzero(place[one.asked] >= 0))
        return place

    def _database_rows(self, found: Rankings, one: Truth, name: str) -> NDArray[np.int64]:
        """(n,) the truth's row of each image of the rankings' database."""
        if found.database_names == one.database_names:
            return np.arange(len(one.database_names))
        rows = Lookup(one.database_names).rows(found.database_names)
        for unknown in np.flatnonzero(rows < 0)[:1]:
            raise InvalidInputError(
                f"The ranking of {name} must name images of its database; {found.database_names[unknown]!r} is none, by name or by key. "
                "Was it made from other data?"
            )
        absent = np.ones(len(one.database_names), dtype=bool)
        absent[rows] = False
        for needed in np.flatnonzero(absent & one.eligible)[:1]:
            raise InvalidInputError(
                f"The ranking of {name} must be of the database that the protocol {self.rule.name} searches; "
                f"{np.count_nonzero(absent & one.eligible)} of its images were not, the first is {one.database_names[needed]!r}. Index "
                "them too."
            )
        count = int(np.count_nonzero(absent & one.searched))
        if count:
            self.dropped["searched images that the ranking's database lacks"] += count
            warnings.warn(
                f"The ranking of {name} is of a database without {count} images that the protocol {self.rule.name} searches; none of them "
                "can be correct, but they could have taken ranks.",
                CovisWarning,
                stacklevel=6,
            )
        return rows

    def metrics(
        self, views: Sequence[Hits], units: Units, drawn: Mapping[str, Any]
    ) -> tuple[dict[str, NDArray[np.float64]], dict[str, Metric]]:
        """Per-query columns, and every metric but AP."""
        counted = np.concatenate([self.counted(one)[one.asked] for one in self.truths])
        columns: dict[str, NDArray[np.float64]] = {}
        for name, metric in METRICS.items():
            if not all(view.has(*NEEDS[name]) for view in views):
                continue
            options = {"convention": self.rule.precision} if name == "mAP" else {}
            for k in (k for k in self.rule.ks if k >= LEAST.get(name, 1)):
                values = np.concatenate([metric(view, k=k, **options) for view in views])
                values = np.nan_to_num(values, nan=0.0) if name in MISSES else values
                columns[f"{name}@{k}"] = np.where(counted, values, np.nan)
        intervals = bootstrap_means(columns, units, **drawn)
        made = {name: Metric(_mean(values), *intervals[name], _count(values)) for name, values in columns.items()}
        if all(view.has("distances") for view in views):
            curve = match_curve(views, counted=counted)
            for name, statistic in (("match-AP", curve.average_precision), ("recall@100%precision", curve.recall_at_full_precision)):
                made[name] = _interval(statistic, units, drawn, int(np.count_nonzero(counted)))
        errors = self._errors(views, counted)
        if errors is not None and self.silent:
            self.left_out.append(
                f"error: {self.silent} queries have no descriptor, and so no error; the quantiles would look better for it"
            )
        elif errors is not None:
            columns["error"] = errors
            made |= _quantiles(errors, units, drawn)
        return columns, made

    def _errors(self, views: Sequence[Hits], counted: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        parts = []
        for view, one in zip(views, self.truths, strict=True):
            if one.queries_xy is None or one.database_xy is None:
                return None
            parts.append(position_error(view, one.queries_xy[one.asked], one.database_xy))
        return np.where(counted, np.concatenate(parts), np.nan)


def _precision(
    descriptors: Sequence[tuple[Descriptors, Descriptors]],
    scenes: Sequence[Scene],
    truths: Sequence[Truth],
    *,
    rule: Protocol,
    units: Units,
    drawn: Mapping[str, Any],
) -> Metric:
    if len(descriptors) != len(scenes):
        raise InvalidInputError(f"One pair of descriptors a scene must be given; got {len(descriptors)} for {len(scenes)} scenes.")
    sides, positives, excluded = [], [], []
    for (queries, database), scene, one in zip(descriptors, scenes, truths, strict=True):
        if queries.names != scene.queries.names or database.names != scene.database.names:
            raise InvalidInputError(
                f"The descriptors must be those of the scene's images, in their order; {queries} and {database} are not those of {scene}."
            )
        if queries.model != database.model:
            raise InvalidInputError(f"The descriptors of queries and database must come from one model; got {queries} and {database}.")
        sides.append((_described(queries, one.asked), _described(database, one.searched)))
        positives.append(one.positives[np.flatnonzero(one.asked)][:, np.flatnonzero(one.searched)])
        excluded.append(one.excluded[np.flatnonzero(one.asked)][:, np.flatnonzero(one.searched)])
    pooled = PooledPrecision(sides, positives, excluded=excluded, distances=rule.distances)
    return Metric(pooled.value(), *bootstrap(pooled.by_unit(units.unit), units, **drawn), len(units.unit))


def _described(descriptors: Descriptors, chosen: NDArray[np.bool_]) -> Descriptors:
    if chosen.all():
        return descriptors
    rows = np.flatnonzero(chosen)
    names = tuple(descriptors.names[row] for row in rows)
    return dataclasses.replace(descriptors, vectors=np.asarray(descriptors.vectors[rows]), names=names)


def _chosen(images: Images, rows: NDArray[np.int64]) -> Images:
    return images if len(rows) == len(images) and (np.diff(rows) == 1).all() else images.select(rows)


def _interval(statistic: Statistic, units: Units, drawn: Mapping[str, Any], count: int) -> Metric:
    return Metric(statistic(np.ones(len(units.unit))), *bootstrap(statistic, units, **drawn), count)


def _quantiles(errors: NDArray[np.float64], units: Units, drawn: Mapping[str, Any]) -> dict[str, Metric]:
    """The quantiles, with the intervals that `bootstrap` gives to each, from one pass through its draws for all of them."""
    known = np.argsort(errors, kind="stable")[: _count(errors)]  # NaN sorts last
    ordered, unit = errors[known], units.unit[known]
    sampled = [np.full((0, len(ERROR_LEVELS)), np.nan)]
    if units.count > 1 and len(known):
        for weights in draws(Units(np.arange(units.count), units.what), samples=drawn["samples"], seed=drawn["seed"]):
            below = np.cumsum(weights[unit])
            if below[-1] > 0:
                sampled.append(ordered[np.searchsorted(below, np.array(ERROR_LEVELS) * below[-1] * (1 - ROUNDING))][None])
    every = np.concatenate(sampled)
    tails = [(1 - drawn["level"]) / 2, (1 + drawn["level"]) / 2]
    low, high = np.quantile(every, tails, axis=0) if len(every) else np.full((2, len(ERROR_LEVELS)), np.nan)
    ones = np.ones(len(errors))
    return {
        f"error@{level:.0%}": Metric(weighted_quantile(errors, level=level)(ones), float(low[place]), float(high[place]), len(known))
        for place, level in enumerate(ERROR_LEVELS)
    }


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if _count(values) else float("nan")


def _count(values: NDArray[np.float64]) -> int:
    return int(np.count_nonzero(~np.isnan(values)))


def _policy(rule: Protocol) -> Unknown:
    return "strict_file" if rule.name.startswith("msls-") else "stop"


def _query_names(scenes: Sequence[Scene], truths: Sequence[Truth]) -> tuple[str, ...]:
    """Those that are asked; of several scenes, each behind its scene's name."""
    parts = [(f"{scene.name}/" if len(scenes) > 1 else "", one) for scene, one in zip(scenes, truths, strict=True)]
    return tuple(prefix + one.query_names[row] for prefix, one in parts for row in np.flatnonzero(one.asked))


def _story(scene: Scene, one: Truth, label: Labels | None, found: Rankings) -> dict[str, Any]:
    return {
        "scene": scene.name,
        "split": scene.split,
        "rankings": dict(found.history),
        "labels": None if label is None else {"rule": label.rule, "parameters": dict(label.parameters)},
        "asked": int(np.count_nonzero(one.asked)),
        "without a positive": int(np.count_nonzero(one.asked & ~one.answerable)),
        "searched": int(np.count_nonzero(one.searched)),
    }


def _spread(ranked: Sequence[Rankings], scenes: int) -> Sequence[Rankings]:
    return [ranked[0]] * scenes if len(ranked) == 1 else ranked


def _listed(one_or_more: Any) -> list[Any]:
    return [one_or_more] if isinstance(one_or_more, (Rankings, Scene, Labels)) else list(one_or_more)
