"""Graded labels against the places and headings of their images, and against the rule that made them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from covis.audits.bins import Bins
from covis.audits.views import Pairing
from covis.errors import InvalidInputError
from covis.images import Scene
from covis.labelling import LABEL_RULES
from covis.labels import TIE, Labels

DISTANCES = (0.0, 5.0, 10.0, 25.0, 50.0, 100.0, np.inf)
TURNS = (0.0, 20.0, 45.0, 90.0, 135.0, 180.0)
LISTED = 1000
"""Pairs of each contradiction that are listed, the worst first."""
BLOCK = 2_000_000
DIFFERENT = 0.01
"""Labels that are further than this from the rule's own are counted."""


@dataclass(frozen=True, eq=False)
class Sanity:
    """What labels say, against what is known of the images.

    Attributes:
        summary: counts of `Labels.summary`: positive, soft, zero, excluded, queries without a positive.
        values: how the similarities above 0 are spread: different values, the least, quartiles, the greatest, those that are 1.
        by_distance: a row a bin: from, to (metres), pairs, mean, quantiles 0.05, 0.5 and 0.95, the share of positives.
        by_turn: the same over heading differences, of pairs up to `far` metres.
        contradictions: what -> {"pairs": count, "list": [{query, database, similarity, metres, turn}]}.
        reference: labels made again by their rule for some queries, against the given ones; or why not.
        parameters: thresholds and the sample.
    """

    summary: Mapping[str, Any]
    values: Mapping[str, Any]
    by_distance: Sequence[Mapping[str, Any]]
    by_turn: Sequence[Mapping[str, Any]]
    contradictions: Mapping[str, Mapping[str, Any]]
    reference: Mapping[str, Any]
    parameters: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "summary": dict(self.summary),
            "values": dict(self.values),
            "by distance": [dict(row) for row in self.by_distance],
            "by turn": [dict(row) for row in self.by_turn],
            "contradictions": {name: dict(one) for name, one in self.contradictions.items()},
            "reference": dict(self.reference),
            "parameters": dict(self.parameters),
        }


def label_sanity(
    labels: Labels,
    scene: Scene,
    *,
    threshold: float = 0.5,
    far: float = 50.0,
    opposite: float = 90.0,
    near: float = 5.0,
    aligned: float = 20.0,
    sample: int = 1000,
    reference: str = "auto",
    seed: int = 0,
) -> Sanity:
    """Hold labels against positions and headings: bins, pairs that contradict them, asymmetry, and the rule applied again.

    Contradictions are looked for among all pairs: "high and far" (similarity >= threshold, more than `far` metres apart),
    "high and opposite" (more than `opposite` degrees turned), "nothing though near" (similarity 0 within `near` metres and `aligned`
    degrees) and, in a training scene, "asymmetric" (the two directions differ by more than 1e-6, as overlaps that are fractions of one
    side do). They are no errors by themselves: who looks at a tower from two sides shares it.

    Args:
        labels: of the scene.
        scene: with positions or poses, and headings or poses; what is lacking is left out.
        threshold: a positive's similarity.
        far: metres.
        opposite: degrees.
        near: metres.
        aligned: degrees.
        sample: queries, at most, whose pairs make the bins; a tenth of them are labelled again.
        reference: the rule that is applied again: "auto", the labels' own where it is known ("surface" must be named: it decodes depth);
            a name of `LABEL_RULES`, by its defaults where it is not the labels' own; "none".
        seed: of the sample.

    Raises:
        InvalidInputError: labels are not the scene's, or there is no such rule.

    >>> from covis.images import Images
    >>> from covis.labelling import label_by_view
    >>> street = Images("r", ["a", "b", "c"], xy=[[0, 0], [0, 10], [0, 400]], heading=[0, 0, 180])
    >>> found = label_sanity(label_by_view(street, street), Scene("s", "train", street, street))
    >>> [one["pairs"] for one in found.contradictions.values()], found.reference["largest difference"]
    ([0, 0, 0, 0], 0.0)
    """
    if labels.query_names != scene.queries.names or labels.database_names != scene.database.names:
        raise InvalidInputError(f"The labels must be of the images of scene {scene.name!r}, in their order; got {labels}. Label again.")
    check_reference(reference)
    pairing = Pairing.of(scene.queries, scene.database)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(scene.queries))[:sample])
    bins = _binned(labels, pairing, chosen, threshold=threshold, far=far)
    summary = labels.summary(threshold)
    wrong = _contradictions(
        labels, scene, pairing, {"threshold": threshold, "far": far, "opposite": opposite, "near": near, "aligned": aligned}
    )
    return Sanity(
        {**vars(summary), "soft share": summary.soft / summary.pairs if summary.pairs else 0.0},
        _values(labels),
        bins[0],
        bins[1],
        wrong,
        _reference(labels, scene, reference, chosen[:: max(1, len(chosen) // max(1, sample // 10))]),
        {
            "threshold": threshold,
            "far": far,
            "opposite": opposite,
            "near": near,
            "aligned": aligned,
            "queries in bins": len(chosen),
            "seed": seed,
            "rule": labels.rule,
            "rule's parameters": dict(labels.parameters),
        },
    )


def check_reference(reference: str) -> None:
    """Refuse what is no rule.

    Raises:
        InvalidInputError: there is none of that name.
    """
    if reference not in ("auto", "none", *LABEL_RULES):
        raise InvalidInputError(f"reference must be auto, none, or one of {', '.join(LABEL_RULES)}; got {reference!r}.")


def _values(labels: Labels) -> dict[str, Any]:
    """How the stored similarities are spread."""
    data = labels.matrix.data
    if not len(data):
        return {"above 0": 0, "different": 0, "only 0 and 1": True}
    quantiles = [round(float(value), 6) for value in np.quantile(data, [0, 0.25, 0.5, 0.75, 1])]
    return {
        "above 0": len(data),
        "different": len(np.unique(data)),
        "only 0 and 1": bool((data == 1).all()),
        "exactly 1": int((data == 1).sum()),
        "least, quartiles, greatest": quantiles,
    }


def _binned(
    labels: Labels, pairing: Pairing, rows: NDArray[np.int64], *, threshold: float, far: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Similarity by distance, and of pairs up to `far` metres by turn; over all pairs of these queries."""
    columns = np.arange(labels.matrix.shape[1])
    tables = [Bins(DISTANCES, threshold), Bins(TURNS, threshold)]
    step = max(1, BLOCK // max(1, len(columns)))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        similarity = labels.matrix[block].toarray()
        pairs = ~labels.excluded[block].toarray() if labels.excluded is not None else np.ones(similarity.shape, dtype=bool)
        metres = pairing.distances(block[:, None], columns[None])
        if pairing.placed:
            tables[0].add(metres[pairs], similarity[pairs])
        if pairing.turned:
            close = pairs & (metres <= far) if pairing.placed else pairs
            turns = pairing.turns(block[:, None], columns[None])
            close &= np.isfinite(turns)
            tables[1].add(turns[close], similarity[close])
    return tables[0].rows(), tables[1].rows()


def _contradictions(labels: Labels, scene: Scene, pairing: Pairing, rule: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    stored = sparse.coo_array(labels.matrix)
    rows, columns = (one.astype(np.int64) for one in stored.coords)
    high = stored.data >= rule["threshold"] - TIE
    rows, columns, similarity = rows[high], columns[high], stored.data[high]
    told = _Told(labels, pairing)
    found: dict[str, dict[str, Any]] = {}
    if pairing.placed:
        metres = pairing.distances(rows, columns)
        wrong = metres > rule["far"]
        found["high and far"] = told(rows[wrong], columns[wrong], -metres[wrong], similarity[wrong])
    if pairing.turned:
        turns = pairing.turns(rows, columns)
        wrong = turns > rule["opposite"]  # NaN is not
        found["high and opposite"] = told(rows[wrong], columns[wrong], -turns[wrong], similarity[wrong])
    if pairing.placed and pairing.turned:
        rows, columns = _nothing_though_near(labels, pairing, rule)
        found["nothing though near"] = told(rows, columns, pairing.distances(rows, columns), np.zeros(len(rows)))
    if scene.training:
        apart = sparse.coo_array(sparse.triu(abs(labels.matrix - labels.matrix.T)))
        wrong = apart.data > 1e-6
        rows, columns = (one[wrong].astype(np.int64) for one in apart.coords)
        found["asymmetric"] = told(rows, columns, -apart.data[wrong], np.asarray(labels.matrix[rows, columns]).reshape(-1))
        found["asymmetric"]["largest"] = float(apart.data.max(initial=0.0))
    return found


class _Told:
    """Pairs as plain values, the worst first."""

    def __init__(self, labels: Labels, pairing: Pairing) -> None:
        self.labels, self.pairing = labels, pairing

    def __call__(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], order: NDArray[np.float64], similarity: NDArray[np.float64]
    ) -> dict[str, Any]:
        worst = np.lexsort((columns, rows, order))[:LISTED]
        metres, turns = (measure(rows[worst], columns[worst]) for measure in (self.pairing.distances, self.pairing.turns))
        listed = [
            {
                "query": self.labels.query_names[row],
                "database": self.labels.database_names[column],
                "similarity": round(float(value), 6),
                "metres": _plain(apart),
                "turn": _plain(turn),
            }
            for row, column, value, apart, turn in zip(rows[worst], columns[worst], similarity[worst], metres, turns, strict=True)
        ]
        return {"pairs": len(rows), "list": listed}


def _nothing_though_near(labels: Labels, pairing: Pairing, rule: Mapping[str, float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    here, there = pairing.queries.centres, pairing.database.centres
    nothing = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    if here is None or there is None or not len(here) or not len(there):
        return nothing
    origin = there.mean(axis=0)  # a northing of millions of metres would cost the tree its last digits
    tree = cKDTree(there - origin)
    parts = [nothing]
    for start in range(0, len(here), 1024):
        block = np.arange(start, min(start + 1024, len(here)))
        listed = tree.query_ball_point(here[block] - origin, rule["near"] + 1e-6, return_sorted=True)
        rows = np.repeat(block, [len(one) for one in listed])
        columns = np.array([column for one in listed for column in one], dtype=np.int64)
        kept = (pairing.distances(rows, columns) <= rule["near"]) & (pairing.turns(rows, columns) <= rule["aligned"])
        rows, columns = rows[kept], columns[kept]
        if len(rows):
            zero = np.asarray(labels.matrix[rows, columns]).reshape(-1) <= TIE
            if labels.excluded is not None:
                zero &= ~np.asarray(labels.excluded[rows, columns]).reshape(-1).astype(bool)
            parts.append((rows[zero], columns[zero]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _reference(labels: Labels, scene: Scene, asked: str, rows: NDArray[np.int64]) -> dict[str, Any]:
    """The rule applied again to some queries."""
    rule = labels.rule if asked == "auto" else asked
    if rule == "none" or rule not in LABEL_RULES:
        return {"skipped": f"the rule {labels.rule!r} is none of {', '.join(LABEL_RULES)}" if rule != "none" else "not asked for"}
    if asked == "auto" and rule == "surface":
        return {"skipped": "the rule 'surface' decodes every depth map: ask for it by its name"}
    function: Callable[..., Labels] = LABEL_RULES[rule]
    known = inspect.signature(function).parameters
    own = rule == labels.rule
    parameters = {key: value for key, value in labels.parameters.items() if own and key in known and value != "per image"}
    again = function(scene.queries.select(rows), scene.database, **parameters)
    apart = abs(sparse.csr_array(labels.matrix[rows]) - again.matrix)
    for excluded in (labels.excluded, again.excluded):
        if excluded is not None and excluded.nnz:
            out = sparse.csr_array(excluded[rows] if excluded.shape[0] != len(rows) else excluded)
            apart = apart - apart.multiply(out)
    both = sparse.csr_array((labels.matrix[rows] > 0) + (again.matrix > 0))
    different = sparse.coo_array(apart)
    worst = np.argsort(-different.data, kind="stable")[:LISTED]
    worst = worst[different.data[worst] > DIFFERENT]
    return {
        "rule": rule,
        "parameters": parameters,
        "queries": len(rows),
        "pairs above 0": int(both.nnz),
        "largest difference": float(different.data.max(initial=0.0)),
        "mean difference": float(different.data.sum() / both.nnz) if both.nnz else 0.0,
        "different": int((different.data > DIFFERENT).sum()),
        "list": [
            {
                "query": labels.query_names[rows[different.coords[0][p]]],
                "database": labels.database_names[different.coords[1][p]],
                "similarity": round(float(labels.matrix[rows[different.coords[0][p]], different.coords[1][p]]), 6),
                "by the rule": round(float(again.matrix[different.coords[0][p], different.coords[1][p]]), 6),
            }
            for p in worst.tolist()
        ],
    }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)
