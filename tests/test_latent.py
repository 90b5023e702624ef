"""Distance against similarity: against a plain loop and scipy, blocked as it may be, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from covis import latent
from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError
from covis.labels import Labels
from covis.latent import Relation, averaged, rank_correlation, relate, target_distance


def described(count: int, prefix: str, random: np.random.Generator, dim: int = 5) -> Descriptors:
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(vectors, tuple(f"{prefix}{row}" for row in range(count)), model="m")


def scene(seed: int, queries: int = 13, database: int = 17) -> tuple[tuple[Descriptors, Descriptors], Labels]:
    random = np.random.default_rng(seed)
    sides = described(queries, "q", random), described(database, "d", random)
    values = random.choice([0.0, 0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0], size=(queries, database))
    excluded = sparse.csr_array(random.random((queries, database)) < 0.1)
    return sides, Labels(sparse.csr_array(values), sides[0].names, sides[1].names, rule="r", excluded=excluded)


def by_hand(scenes: list[tuple[tuple[Descriptors, Descriptors], Labels]], bins: int) -> list[list[tuple[float, float]]]:
    """(distance, similarity) of every pair, zero pairs first, then by bin: two plain loops."""
    found: list[list[tuple[float, float]]] = [[] for _ in range(bins + 1)]
    for (queries, database), labels in scenes:
        values, excluded = labels.matrix.toarray(), labels.excluded.toarray()
        for q in range(len(queries)):
            for d in range(len(database)):
                if excluded[q, d]:
                    continue
                distance = float(np.linalg.norm(queries.vectors[q].astype(float) - database.vectors[d].astype(float)))
                place = 0 if values[q, d] == 0 else next(b for b in range(1, bins + 1) if values[q, d] <= np.linspace(0, 1, bins + 1)[b])
                found[place].append((distance, values[q, d]))
    return found


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_values_are_those_of_a_plain_loop(bins: int) -> None:
    scenes = [scene(1), scene(2, 4, 30)]
    relation = relate([sides for sides, _ in scenes], [labels for _, labels in scenes], bins=bins)
    for place, pairs in enumerate(by_hand(scenes, bins)):
        assert relation.count[place] == len(pairs)
        if not pairs:
            assert np.isnan([getattr(relation, name)[place] for name in latent.COLUMNS]).all()
            continue
        distances, similarities = np.array(pairs).T
        assert relation.mean[place] == pytest.approx(distances.mean())
        assert relation.similarity[place] == pytest.approx(similarities.mean())
        quartiles = [getattr(relation, name)[place] for name in ("lower", "median", "upper")]
        np.testing.assert_allclose(quartiles, np.quantile(distances, [0.25, 0.5, 0.75]))
    above = np.array([pair for part in by_hand(scenes, bins)[1:] for pair in part])
    assert relation.spearman == pytest.approx(stats.spearmanr(above[:, 0], above[:, 1]).statistic)
    assert relation.pairs == len(above)


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sides, labels = scene(3)
    whole = relate([sides], [labels])
    monkeypatch.setattr(latent, "BUFFER_BYTES", 16 * 20)
    np.testing.assert_equal(relate([sides], [labels]).as_dict(), whole.as_dict())


def test_only_some_of_the_pairs_that_share_nothing_are_drawn() -> None:
    random = np.random.default_rng(4)
    sides = described(100, "q", random), described(200, "d", random)
    labels = Labels(sparse.csr_array((100, 200)), sides[0].names, sides[1].names, rule="r")
    every, some, other = (relate([sides], [labels], zero_pairs=count, seed=seed) for count, seed in ((20_000, 0), (2000, 0), (2000, 1)))
    assert every.count[0] == 20_000
    assert 1800 < some.count[0] < 2200
    assert some.mean[0] != other.mean[0]
    assert some.mean[0] == pytest.approx(every.mean[0], abs=0.03)
    assert relate([sides], [labels], zero_pairs=0).count[0] == 0
    assert np.isnan(every.spearman)


def test_what_gcl_aims_at_is_seen_as_perfect() -> None:
    """Descriptors on a line whose distances are τ (1 − ψ)."""
    values = np.array([[0.1, 0.35, 0.65, 0.95]])
    database = Descriptors(target_distance(values, margin=0.5).T.astype(np.float32), tuple("abcd"), model="m")
    queries = Descriptors(np.zeros((1, 1), dtype=np.float32), ("q",), model="m")
    relation = relate([(queries, database)], [Labels(sparse.csr_array(values), ("q",), tuple("abcd"), rule="r")])
    assert relation.spearman == pytest.approx(-1)
    shown = relation.count[1:] > 0
    np.testing.assert_allclose(relation.mean[1:][shown], target_distance(relation.similarity[1:][shown]), atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 6, size=(2, 40)).astype(float)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert rank_correlation(a, b) == pytest.approx(rank_correlation(b, a))
    assert rank_correlation(a, -b) == pytest.approx(-rank_correlation(a, b))


def test_rank_correlation_of_nothing_is_none() -> None:
    assert np.isnan(rank_correlation(np.zeros(0), np.zeros(0)))
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3.0)))


def test_a_relation_survives_json() -> None:
    sides, labels = scene(6)
    one = relate([sides], [labels], bins=20)
    again = Relation.from_dict(one.as_dict(), where="here")
    np.testing.assert_equal(again.as_dict(), one.as_dict())
    assert "Spearman" in str(one)
    assert "0.3 to 0.35" not in str(one), "a bin without pairs is left out"
    with pytest.raises(DamagedFileError, match=r"here must hold distances by similarity"):
        Relation.from_dict({**one.as_dict(), "mean": [1.0]}, where="here")
    with pytest.raises(DamagedFileError, match=r"a value must be a finite number or null"):
        Relation.from_dict({**one.as_dict(), "spearman": "x"}, where="here")


def test_relations_are_averaged() -> None:
    first, second = (relate([scene(seed)[0]], [scene(7)[1]]) for seed in (7, 8))
    both = averaged([first, second])
    np.testing.assert_allclose(both.median, (first.median + second.median) / 2)
    assert both.spearman == pytest.approx((first.spearman + second.spearman) / 2)
    with pytest.raises(InvalidInputError, match=r"must have the same bins"):
        averaged([first, relate([scene(7)[0]], [scene(7)[1]], bins=3)])
    with pytest.raises(InvalidInputError, match=r"must have the same bins"):
        averaged([])


def test_what_does_not_belong_together_is_refused() -> None:
    (queries, database), labels = scene(9)
    with pytest.raises(InvalidInputError, match=r"must be one Labels a scene"):
        relate([(queries, database)], [])
    with pytest.raises(InvalidInputError, match=r"in their order"):
        relate([(database, queries)], [labels])
    other = Descriptors(database.vectors, database.names, model="another")
    with pytest.raises(InvalidInputError, match=r"described by one model"):
        relate([(queries, other)], [labels])
    with pytest.raises(InvalidInputError, match=r"bins must be >= 1"):
        relate([(queries, database)], [labels], bins=0)
