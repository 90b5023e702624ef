"""What re-ranking gained beside what it cost: recall before and after under one protocol, paired, and seconds a query."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from covis.comparison import Comparison, compare
from covis.errors import InvalidInputError
from covis.evaluation import evaluate
from covis.images import Scene
from covis.labels import Labels
from covis.protocols import Protocol
from covis.rankings import Rankings
from covis.scores import Scores, aligned
from covis.truths import depth

KS = (1, 5, 10)


@dataclass(frozen=True)
class Gain:
    """Recall of the first ranking and of the re-ranked one, their paired difference, and the cost.

    Attributes:
        before: scores of the global descriptor alone.
        after: scores of the same rankings re-ranked.
        difference: `compare` of the two.
        seconds: mean seconds a query, by the clock of the thread that looked at it: of its own "features", of "matching" and of
            "verification" with all its candidates; None where no query was.
        top: how many results of a query were looked at.
    """

    before: Scores
    after: Scores
    difference: Comparison
    seconds: dict[str, float | None]
    top: int

    @property
    def cost(self) -> float | None:
        """Seconds that re-ranking adds to a query, where the database's features are there."""
        known = [value for value in self.seconds.values() if value is not None]
        return sum(known) if len(known) == len(self.seconds) else None

    def __str__(self) -> str:
        names = list(self.difference.differences)
        rows = [["", *names, "s a query"]]
        for label, scores, cost in (("global alone", self.before, "-"), (f"re-ranked, top {self.top}", self.after, _said(self.cost))):
            rows.append([label, *(str(scores.metrics[name]) for name in names), cost])
        found = [self.difference.differences[name] for name in names]
        rows.append(["difference", *(f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in found), ""])
        rows.append(["won, lost, p", *(f"{one.wins}, {one.losses}, {one.p:.3g}" for one in found), ""])
        how = self.before.interval
        note = (
            f"  {self.before.protocol.name}, {max((one.n for one in found), default=0)} of {len(self.before.queries)} queries counted; "
            f"{how['level']:.0%} intervals over {how['count']} {how['unit']}"
        )
        spent = ", ".join(f"{name} {_said(value)}" for name, value in self.seconds.items())
        return "\n".join([aligned(rows, right=[len(rows[0]) - 1]), note, f"  seconds a query: {spent}; the database's features apart"])


def judge(
    before: Sequence[Rankings], scenes: Sequence[Scene], *, protocol: Protocol, labels: Sequence[Labels] | None = None
) -> tuple[Scores, Protocol]:
    """Recall@1, @5 and @10 of rankings, as far as they reach, and the protocol with those k.

    Raises:
        InvalidInputError: the rankings are too short for recall@1, or the protocol cannot judge the scenes.
    """
    given = [None] * len(scenes) if labels is None else list(labels)
    ks = tuple(
        k
        for k in KS
        if _reaches(
            before,
            [depth(scene, protocol, one, k=k) for scene, one in zip(scenes, given, strict=True)],
            k,
            scenes=scenes,
            joint=protocol.scope == "joint",
        )
    )
    if not ks:
        raise InvalidInputError(
            f"The rankings must hold an image more than take no rank under {protocol.name}; they hold {[found.k for found in before]}. "
            "Search with a larger k."
        )
    rule = dataclasses.replace(protocol, ks=ks)
    return evaluate(before, scenes, labels=labels, protocol=rule), rule


def gain(
    before: Scores, after: Sequence[Rankings], scenes: Sequence[Scene], *, protocol: Protocol, labels: Sequence[Labels] | None = None
) -> Gain:
    """What re-ranking gained: `before` and `protocol` as `judge` gave them, and the re-ranked rankings."""
    now = evaluate(after, scenes, labels=labels, protocol=protocol)
    stories: list[dict[str, Any]] = [dict(found.history["reranked"]) for found in after]
    weights = [len(found) for found in after]
    names = list(stories[0]["seconds"])
    seconds = {name: _mean([story["seconds"][name] for story in stories], weights) for name in names}
    compared = compare(before, now, metrics=[f"recall@{k}" for k in protocol.ks])
    return Gain(before, now, compared, seconds, max(story["top"] for story in stories))


def _reaches(before: Sequence[Rankings], depths: Sequence[int], k: int, *, scenes: Sequence[Scene], joint: bool) -> bool:
    """Whether every ranking holds k images, or all there are, besides what takes no rank."""
    sizes = [len(scene.database) for scene in scenes]
    if joint:
        depths, sizes = [k + sum(depth - k for depth in depths)], [sum(sizes)]
    return all(found.k >= min(deep, size) for found, deep, size in zip(before, depths, sizes, strict=False))


def _mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight]
    return float(np.average([value for value, _ in known], weights=[weight for _, weight in known])) if known else None


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
