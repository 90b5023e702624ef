"""Evaluation: who is counted, what is pooled, and that parts of different data are refused."""

import numpy as np
import oracles
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.evaluation import evaluate
from covis.images import Images, Scene
from covis.labels import Labels
from covis.protocols import Protocol
from covis.rankings import Rankings
from covis.scores import Scores


def place(name, matrix, *, seed=0, excluded=None):
    """A scene, its labels, descriptors, and the exact ranking of them."""
    matrix = np.asarray(matrix, dtype=float)
    random = np.random.default_rng(seed)
    names = [tuple(f"{side}{i}.png" for i in range(n)) for side, n in zip("qd", matrix.shape, strict=True)]
    queries, database = (Images(name, one, frame=range(len(one))) for one in names)
    vectors = [random.normal(size=(n, 3)).astype(np.float32) for n in matrix.shape]
    rows, distances = oracles.nearest(*vectors, matrix.shape[1])
    labels = Labels(sparse.csr_array(matrix), *names, rule="by hand", parameters={"reach": 6.0}, excluded=excluded)
    sides = tuple(Descriptors(v, n, "m") for v, n in zip(vectors, names, strict=True))
    return Scene(name, "test", database, queries), labels, sides, Rankings(rows, distances, *names, {"model": "m"})


RANDOM = np.random.default_rng(1)
KITCHEN = place("kitchen", RANDOM.choice([0, 0, 0.5, 0.3, 0.9], size=(30, 40)) * (RANDOM.random((30, 1)) < 0.5), seed=1)
OFFICE = place("office", RANDOM.choice([0, 0, 0.5, 0.3, 0.9], size=(12, 9)) * (RANDOM.random((12, 1)) < 0.5), seed=2)


def scored(*parts, **options):
    scenes, labels, sides, found = zip(*parts, strict=True)
    return evaluate(found, scenes, labels=labels, descriptors=sides, samples=50, **options)


@pytest.mark.parametrize(
    ("name", "strict", "everyone", "dtype"), [("7scenes/gcl", True, True, "float16"), ("graded/0.5", False, False, "float32")]
)
def test_the_numbers_are_the_definition(name, strict, everyone, dtype):
    """recall@k by loops over each scene, pooled; AP by scikit-learn over all pairs of both."""
    found = scored(KITCHEN, OFFICE, protocol=name)
    expected, truth, score = [], [], []
    for _, labels, (q, d), ranked in (KITCHEN, OFFICE):
        dense = labels.matrix.toarray()
        positives = dense > 0.5 if strict else dense >= 0.5
        expected.append({k: oracles.recall(ranked.rows, positives, np.zeros_like(positives), k) for k in found.protocol.ks})
        truth.append(positives.ravel())
        score.append(-oracles.all_distances(q.vectors, d.vectors, dtype).ravel().astype(float))
    for k in found.protocol.ks:
        values = np.concatenate([one[k] for one in expected])
        values = np.nan_to_num(values) if everyone else values
        np.testing.assert_array_equal(found.per_query[f"recall@{k}"], values)
        metric = found.metrics[f"recall@{k}"]
        assert metric.value == pytest.approx(np.nanmean(values))
        assert metric.n == (42 if everyone else np.isfinite(values).sum())
        assert metric.low <= metric.value <= metric.high
    assert found.metrics["AP"].value == pytest.approx(average_precision_score(np.concatenate(truth), np.concatenate(score)), abs=1e-6)
    assert found.queries[0] == "kitchen/q0.png"
    assert found.queries[-1] == "office/q11.png"


def test_one_half_is_a_positive_or_not():
    part = place("x", [[0.5, 0], [0.49999999999999994, 0], [0.6, 0]])
    strict = scored(part, protocol="7scenes/gcl").per_query["recall@2"]
    assert strict.tolist() == [0, 0, 1]
    assert scored(part, protocol="graded/0.5").per_query["recall@2"].tolist() == [1, 1, 1]


def test_who_is_counted():
    """A query without a positive is a miss where all are counted, and left out where those with a positive are."""
    part = place("x", [[0.9, 0.9], [0, 0], [0.9, 0.9], [0.9, 0.9]])
    everyone, some = (scored(part, protocol=name).metrics["recall@1"] for name in ("7scenes/gcl", "graded/0.5"))
    assert (everyone.value, everyone.n) == (0.75, 4)
    assert (some.value, some.n) == (1.0, 3)


def test_nothing_to_count_is_nan():
    found = scored(place("x", np.zeros((3, 2))), protocol="graded/0.5")
    assert np.isnan(found.metrics["recall@1"].value)
    assert found.metrics["recall@1"].n == 0
    assert np.isnan(found.metrics["AP"].value)


def test_one_or_a_list():
    scene, labels, sides, found = KITCHEN
    alone, listed = evaluate(found, scene, labels=labels, samples=20), evaluate([found], [scene], labels=[labels], samples=20)
    assert alone.metrics == listed.metrics
    assert alone.queries == scene.queries.names
    assert "AP" not in alone.metrics
    assert isinstance(alone, Scores)
    assert evaluate(found, scene, labels=labels, samples=20, protocol=Protocol("mine", 0.3)).protocol.name == "mine"
    assert sides[0].names == found.query_names


def test_excluded_pairs_are_not_scored():
    """A training scene: every image's nearest is itself, which takes no rank."""
    n = 6
    images = Images("r", [f"{i}.png" for i in range(n)])
    vectors = np.arange(n, dtype=np.float32)[:, None]
    rows, distances = oracles.nearest(vectors, vectors, n)
    matrix = sparse.csr_array(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) == 1, dtype=float)
    labels = Labels(matrix, images.names, images.names, rule="x", excluded=sparse.csr_array(np.eye(n, dtype=bool)))
    sides = (Descriptors(vectors, images.names, "m"),) * 2
    found = evaluate(
        Rankings(rows, distances, images.names, images.names),
        Scene("s", "train", images, images),
        labels=labels,
        descriptors=[sides],
        samples=20,
    )
    assert found.metrics["recall@1"].value == 1
    assert found.metrics["AP"].value == 1


def test_seeds_and_samples_are_in_the_scores():
    one, again, other = (scored(KITCHEN, seed=seed, protocol="graded/0.5") for seed in (1, 1, 2))
    assert one.metrics == again.metrics
    assert any(one.metrics[k] != other.metrics[k] for k in one.metrics)
    assert one.interval == {
        "method": "percentile bootstrap",
        "unit": "blocks of 10 consecutive frames",
        "count": 3,
        "samples": 50,
        "level": 0.95,
        "seed": 1,
    }
    assert one.history["scenes"][0]["labels"] == {"rule": "by hand", "parameters": {"reach": 6.0}}
    assert one.history["scenes"][0]["rankings"] == {"model": "m"}


def test_parts_of_different_data_are_refused():
    scene, labels, sides, found = KITCHEN
    with pytest.raises(InvalidInputError, match="2 scenes, 1 rankings, 1 labels"):
        evaluate([found], [scene, scene], labels=[labels])
    with pytest.raises(InvalidInputError, match="0 scenes"):
        evaluate([], [], labels=[])
    with pytest.raises(InvalidInputError, match=r"ranking of scene 'kitchen' must name its queries .*12 against 30 images"):
        evaluate(OFFICE[3], scene, labels=labels)
    with pytest.raises(InvalidInputError, match="labels of scene 'kitchen'"):
        evaluate(found, scene, labels=OFFICE[1])
    renamed = Rankings(found.rows, found.distances, found.query_names, ("x.png", *found.database_names[1:]))
    with pytest.raises(InvalidInputError, match=r"database in their order; they differ: 'x\.png' against 'd0\.png'"):
        evaluate(renamed, scene, labels=labels)
    with pytest.raises(InvalidInputError, match="descriptors must be those of the labelled images"):
        evaluate(found, scene, labels=labels, descriptors=[OFFICE[2]])
    with pytest.raises(InvalidInputError, match="got 0 for 1 scenes"):
        evaluate(found, scene, labels=labels, descriptors=[])
    short = Rankings(found.rows[:, :5], found.distances[:, :5], found.query_names, found.database_names)
    with pytest.raises(InvalidInputError, match="recall@10 needs"):
        evaluate(short, scene, labels=labels)
    assert len(sides) == 2
