"""Cells of a study made by hand: known hits, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from covis.cells import Cell, Training
from covis.descriptors import Descriptors
from covis.labels import Labels
from covis.latent import Relation, relate
from covis.protocols import protocol
from covis.scores import Metric, Scores

QUERIES = 120


def scores(hits: Sequence[float] | np.ndarray, *, units: int = 24) -> Scores:
    """Scores with these values of recall@1, in blocks of consecutive queries."""
    column = np.array(hits, dtype=float)
    value = float(np.nanmean(column))
    metrics = {"recall@1": Metric(value, value - 0.1, value + 0.1, len(column)), "AP": Metric(value / 2, 0, 1, len(column))}
    queries = tuple(f"q{row:03d}" for row in range(len(column)))
    how = {"method": "percentile bootstrap", "unit": "blocks of 5 consecutive frames", "count": units, "samples": 100, "level": 0.95}
    return Scores(protocol("graded/0.5"), metrics, queries, {"recall@1": column}, how, units=np.arange(len(column)) * units // len(column))


def drawn(share: float, seed: int, queries: int = QUERIES) -> np.ndarray:
    """Hits of a share of the queries; the same seed misses the same ones first."""
    return (np.random.default_rng(seed).random(queries) < share).astype(float)


def relation(seed: int) -> Relation:
    """Distances that fall as similarity rises, with noise."""
    random = np.random.default_rng(seed)
    values = np.where(random.random((10, 40)) < 0.3, 0, random.random((10, 40)))
    names = tuple(f"d{row}" for row in range(40))
    database = random.normal(scale=0.2, size=(40, 2)).astype(np.float32)
    database[:, 0] += 0.5 * (1 - values.mean(axis=0))
    sides = (
        Descriptors(np.zeros((10, 2), dtype=np.float32), tuple(f"q{row}" for row in range(10)), model="m"),
        Descriptors(database, names, model="m"),
    )
    return relate([sides], [Labels(sparse.csr_array(values), sides[0].names, names, rule="r")])


def cell(arm: str, seed: int, hits: Mapping[str, np.ndarray]) -> Cell:
    """A cell that is done."""
    training = Training(100, 1600, 12.5 + seed, 0.1)
    found = {name: scores(values) for name, values in hits.items()}
    return Cell(arm, seed, {"recipe": {"arm": arm}}, "done", "", found, {name: relation(seed) for name in hits}, training, {"test": "t"})
