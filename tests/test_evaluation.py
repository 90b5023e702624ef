"""Evaluation: who is counted, what is pooled, the official MSLS script, and that parts of different data are refused."""

import dataclasses
import itertools
import warnings

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score

from covis.curves import match_curve, weighted_quantile
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError
from covis.evaluation import evaluate
from covis.hits import hits
from covis.images import Images, Scene
from covis.intervals import Units, bootstrap, resampling_units
from covis.labels import Labels
from covis.metrics import METRICS
from covis.predictions import Predictions, key
from covis.protocols import Protocol, protocol
from covis.rankings import Rankings
from covis.scores import Scores
from covis.truths import join, truth


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


def same(a, b):
    """Equal, where NaN equals NaN (as rank correlations of equal similarities are)."""
    return a.keys() == b.keys() and all(
        np.array_equal(dataclasses.astuple(a[name]), dataclasses.astuple(b[name]), equal_nan=True) for name in a
    )


def test_nothing_to_count_is_nan():
    found = scored(place("x", np.zeros((3, 2))), protocol="graded/0.5")
    assert np.isnan(found.metrics["recall@1"].value)
    assert found.metrics["recall@1"].n == 0
    assert np.isnan(found.metrics["AP"].value)


def test_one_or_a_list():
    scene, labels, sides, found = KITCHEN
    alone, listed = evaluate(found, scene, labels=labels, samples=20), evaluate([found], [scene], labels=[labels], samples=20)
    assert same(alone.metrics, listed.metrics)
    assert alone.queries == scene.queries.names
    assert "AP" not in alone.metrics
    assert (alone.protocol.name, alone.history["policy"]) == ("graded/0.5", None)
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
    assert same(one.metrics, again.metrics)
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
    with pytest.raises(InvalidInputError, match="2 scenes, 1 labels"):
        evaluate([found], [scene, scene], labels=[labels])
    with pytest.raises(InvalidInputError, match="0 scenes"):
        evaluate([], [], labels=[])
    with pytest.raises(InvalidInputError, match="One ranking a scene must be given; got 2 for kitchen"):
        evaluate([found, found], scene, labels=labels)
    with pytest.raises(InvalidInputError, match=r"ranking of office must name images of its database; 'd9\.png' is none"):
        evaluate(found, OFFICE[0], labels=OFFICE[1])
    with pytest.raises(InvalidInputError, match=r"ranking of kitchen must be of the database .* 31 of its images were not, .*'d9\.png'"):
        evaluate(OFFICE[3], scene, labels=labels)
    with pytest.raises(InvalidInputError, match="labels of scene 'kitchen'"):
        evaluate(found, scene, labels=OFFICE[1])
    with pytest.raises(InvalidInputError, match="scene 'kitchen' comes without labels"):
        evaluate(found, scene, protocol="graded/0.5")
    with pytest.raises(InvalidInputError, match="kitchen must have xy"):  # radius/25 is the default without labels
        evaluate(found, scene)
    fewer = Rankings(found.rows[:5], found.distances[:5], found.query_names[:5], found.database_names)
    with pytest.raises(InvalidInputError, match=r"ranking of kitchen must hold every query that is asked; .* not in it"):
        evaluate(fewer, scene, labels=labels)
    twice = dataclasses.replace(found, query_names=("q1", *found.query_names[1:]))
    with pytest.raises(InvalidInputError, match="must hold each query once"):
        evaluate(twice, scene, labels=labels)
    renamed = dataclasses.replace(found, database_names=("x.png", *found.database_names[1:]))
    with pytest.raises(InvalidInputError, match=r"'x\.png' is none, by name or by key"):
        evaluate(renamed, scene, labels=labels)
    with pytest.raises(InvalidInputError, match="descriptors must be those of the scene's images"):
        evaluate(found, scene, labels=labels, descriptors=[OFFICE[2]])
    with pytest.raises(InvalidInputError, match="got 0 for 1 scenes"):
        evaluate(found, scene, labels=labels, descriptors=[])
    with pytest.raises(InvalidInputError, match="from one model"):
        evaluate(found, scene, labels=labels, descriptors=[(sides[0], dataclasses.replace(sides[1], model="n"))])
    short = Rankings(found.rows[:, :5], found.distances[:, :5], found.query_names, found.database_names)
    with pytest.raises(InvalidInputError, match="recall@10 needs"):
        evaluate(short, scene, labels=labels)
    used = evaluate(short, scene, labels=labels, protocol=Protocol("x", 0.5, short="use"), samples=20)
    assert used.metrics["recall@25"].value == used.metrics["recall@5"].value


# Names, in any order, and what is dropped.


def shuffled(found, seed, *, keys=False, more=()):
    """The same rankings: queries and database in another order, by name or by key; `more` queries that nobody asks."""
    random = np.random.default_rng(seed)
    queries, database = (random.permutation(len(names)) for names in (found.query_names, found.database_names))
    back = np.append(np.argsort(database), -1)
    called = key if keys else str
    return Rankings(
        np.vstack([back[found.rows[queries]], np.full((len(more), found.k), -1)]),
        np.vstack([found.distances[queries], np.full((len(more), found.k), 9.0)]),
        (*(called(found.query_names[row]) for row in queries), *more),
        tuple(called(found.database_names[row]) for row in database),
        found.history,
    )


@settings(max_examples=15)
@given(seed=st.integers(0, 99), keys=st.booleans())
def test_the_order_of_names_changes_nothing(seed, keys):
    scene, labels, _, found = KITCHEN
    one = evaluate(found, scene, labels=labels, samples=10)
    other = evaluate(shuffled(found, seed, keys=keys, more=("nobody.png",)), scene, labels=labels, samples=10)
    assert other.queries == one.queries
    assert same(other.metrics, one.metrics)
    assert other.history["dropped"] == {"queries that are not asked": 1}
    assert one.history["dropped"] == {}


def town(seed, *, name="town", queries=40, database=60, crs="EPSG:32633", spread=80, share=0.6):
    """Positions, sequences with holes, MSLS's flags."""
    random = np.random.default_rng(seed)

    def side(which, count):
        sequence = np.sort(random.integers(0, max(1, count // 6), count))
        return Images(
            "msls",
            [f"train_val/{name}/{which}/images/{name}-{which[0]}{i:03d}_x.jpg" for i in range(count)],
            xy=random.integers(0, spread, size=(count, 2)) + np.array([500_000.0, 6_200_000.0]),
            sequence=[f"{name}{which}{one}" for one in sequence],
            frame=np.cumsum(1 + (random.random(count) < 0.1)),
            flags={flag: random.random(count) < share for flag in ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")}
            | {"panorama": random.random(count) < 0.15},
            crs=crs,
        )

    return Scene(name, "val", side("database", database), side("query", queries))


def searched(scene, seed, *, k=25):
    """Rankings as by a fair method: near images tend to come first."""
    random = np.random.default_rng(seed)
    gaps = np.linalg.norm(scene.queries.xy[:, None] - scene.database.xy[None], axis=2) + random.gamma(2, 20, (len(scene.queries), 1))
    noisy = gaps + random.normal(0, 25, gaps.shape) + 100
    rows = np.argsort(noisy, axis=1)[:, :k]
    return Rankings(rows, np.take_along_axis(noisy, rows, axis=1), scene.queries.names, scene.database.names, {"model": "m"})


def test_flags_say_who_is_asked_searched_and_correct():
    """Each mask against the loops: what is not searched takes no rank, what cannot be correct keeps it."""
    scene = town(3)
    found = searched(scene, 1, k=60)
    rule = Protocol(
        "x",
        25.0,
        positive="distance",
        asked=("d2n", "-panorama"),
        searched=("-panorama",),
        correct=("d2n",),
        denominator="all",
        ks=(1, 3, 20),
    )
    scores = evaluate(found, scene, protocol=rule, samples=20)
    asked = [q for q in range(40) if scene.queries.flags["d2n"][q] and not scene.queries.flags["panorama"][q]]
    assert scores.queries == tuple(scene.queries.names[q] for q in asked)
    for k in rule.ks:
        expected = []
        for q in asked:
            ranked = [d for d in found.rows[q] if not scene.database.flags["panorama"][d]][:k]
            near = [d for d in ranked if scene.database.flags["d2n"][d] and np.hypot(*(scene.queries.xy[q] - scene.database.xy[d])) <= 25]
            expected.append(float(bool(near)))
        assert scores.per_query[f"recall@{k}"].tolist() == expected
    panoramas = scene.database.flags["panorama"]
    assert scores.history["dropped"] == {
        "ranked images that are not searched": len(asked) * int(panoramas.sum()),
        "queries that are not asked": 40 - len(asked),
    }
    assert scores.history["scenes"][0]["asked"] == len(asked)
    assert scores.history["scenes"][0]["searched"] == int((~panoramas).sum())


def test_a_database_without_images_that_cannot_be_correct_is_said():
    """An index without panoramas under a protocol that lets them take ranks: a number, and a warning beside it."""
    scene = town(4)
    flags = scene.database.flags | {"all": np.ones(60, dtype=bool)}  # as in MSLS
    scene = dataclasses.replace(scene, database=dataclasses.replace(scene.database, flags=flags))
    full = searched(scene, 1, k=60)
    kept = np.flatnonzero(~scene.database.flags["panorama"])
    place = np.full(60, -1)
    place[kept] = np.arange(len(kept))
    rows = np.array([[place[d] for d in row if place[d] >= 0] for row in full.rows])
    without = Rankings(rows, np.full(rows.shape, np.nan), full.query_names, tuple(full.database_names[d] for d in kept))
    with pytest.warns(CovisWarning, match=f"database without {60 - len(kept)} images that the protocol msls-val/gcl searches"):
        scores = evaluate(without, scene, protocol="msls-val/gcl", samples=20)
    assert scores.history["dropped"]["searched images that the ranking's database lacks"] == 60 - len(kept)
    joint = evaluate(without, scene, protocol="msls-val/gsv", samples=20)
    assert joint.metrics["recall@5"].value == scores.metrics["recall@5"].value
    lacking = Rankings(rows[:, :5] * 0 + np.arange(5), np.full((40, 5), np.nan), full.query_names, without.database_names[:5])
    with pytest.raises(InvalidInputError, match=r"of the database that the protocol msls-val/gsv searches.*Index them too"):
        evaluate(lacking, scene, protocol="msls-val/gsv")


# Joint indexes.


def test_a_joint_index_is_scored_over_all_scenes():
    """Positives never cross scenes, although both towns lie at one place; units and names are those of the scenes."""
    scenes = [town(5, name="cph"), town(6, name="sf")]
    found = searched(join(scenes), 2)
    rule = Protocol("x", 25.0, positive="distance", scope="joint", denominator="all", ks=(1, 5))
    scores = evaluate(found, scenes, protocol=rule, samples=20)
    towns = ["cph"] * 60 + ["sf"] * 60
    xy = np.concatenate([scene.database.xy for scene in scenes])
    for k in rule.ks:
        expected = [
            float(any(towns[d] == scene.name and np.hypot(*(scene.queries.xy[q] - xy[d])) <= 25 for d in found.rows[number * 40 + q][:k]))
            for number, scene in enumerate(scenes)
            for q in range(40)
        ]
        assert scores.per_query[f"recall@{k}"].tolist() == expected
    assert scores.queries[0] == f"cph/{scenes[0].queries.names[0]}"
    assert scores.queries[-1] == f"sf/{scenes[1].queries.names[-1]}"
    assert "error@50%" in scores.metrics
    assert [one["scene"] for one in scores.history["scenes"]] == ["cph", "sf"]
    assert same(evaluate(shuffled(found, 1, keys=True), scenes, protocol=rule, samples=20).metrics, scores.metrics)
    with pytest.raises(InvalidInputError, match=r"One ranking over all scenes .*joint index.* got 2 for cph.sf"):
        evaluate([searched(scene, 1) for scene in scenes], scenes, protocol=rule)
    with pytest.raises(InvalidInputError, match="One ranking a scene must be given; got 1 for cph, sf"):
        evaluate(found, scenes, protocol="radius/25")


def test_one_scene_is_its_own_joint_index():
    scene, found = town(5), searched(town(5), 2)
    joint = Protocol("x", 25.0, positive="distance", scope="joint")
    assert same(evaluate(found, scene, protocol=joint, samples=9).metrics, evaluate(found, scene, protocol="radius/25", samples=9).metrics)


# The metrics.


def test_every_metric_is_that_of_its_function():
    scene, labels, _, found = KITCHEN
    placed = dataclasses.replace(
        scene,
        queries=dataclasses.replace(scene.queries, xy=np.random.default_rng(1).random((30, 2)) * 50),
        database=dataclasses.replace(scene.database, xy=np.random.default_rng(2).random((40, 2)) * 50),
    )
    rule = Protocol("x", 0.5, precision="relevant", ks=(1, 3, 7))
    scores = evaluate(found, placed, labels=labels, protocol=rule, samples=30, seed=4)
    view = hits(found, labels.positives(0.5), similarity=labels.matrix)
    counted = np.diff(labels.positives(0.5).indptr) > 0
    expected = {}
    for name, metric in METRICS.items():
        for k in rule.ks:
            if name != "rank-correlation" or k >= 3:
                values = metric(view, k=k, **({"convention": "relevant"} if name == "mAP" else {}))
                expected[f"{name}@{k}"] = np.where(counted, values, np.nan)
    gaps = [np.hypot(*(q - placed.database.xy[row])) for q, row in zip(placed.queries.xy, found.rows[:, 0], strict=True)]
    expected["error"] = np.where(counted, gaps, np.nan)
    assert scores.per_query.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(scores.per_query[name], values, err_msg=name)
    units = resampling_units([scene.queries])
    np.testing.assert_array_equal(scores.units, units.unit)
    curve = match_curve([view], counted=counted)
    whole = {
        "match-AP": curve.average_precision,
        "recall@100%precision": curve.recall_at_full_precision,
        **{f"error@{level:.0%}": weighted_quantile(expected["error"], level=level) for level in (0.5, 0.75, 0.95)},
    }
    for name, statistic in whole.items():
        low, high = bootstrap(statistic, units, samples=30, seed=4)
        assert dataclasses.astuple(scores.metrics[name]) == (statistic(np.ones(30)), low, high, counted.sum()), name
    assert set(scores.metrics) == set(expected) - {"error"} | set(whole)
    assert scores.metrics["mAP@3"].n == counted.sum()


def test_what_is_not_known_is_not_computed():
    """Without labels nothing graded, without distances no match curve, without positions no errors."""
    scene = town(7)
    found = searched(scene, 1)
    blind = dataclasses.replace(found, distances=np.full(found.rows.shape, np.nan))
    names = set(evaluate(found, scene, protocol="radius/25", samples=9).metrics)
    assert {name.partition("@")[0] for name in names} == {"recall", "mAP", "match-AP", "error"}
    assert {name.partition("@")[0] for name in names - set(evaluate(blind, scene, protocol="radius/25", samples=9).metrics)} == {
        "match-AP", "recall",
    }  # fmt: skip
    assert "recall@100%precision" in names
    kitchen = evaluate(dataclasses.replace(KITCHEN[3], distances=np.full((30, 40), np.nan)), KITCHEN[0], labels=KITCHEN[1], samples=9)
    assert {name.partition("@")[0] for name in kitchen.metrics} == {"recall", "mAP", "graded-recall", "nDCG"}


def test_a_query_that_nobody_counts_hides_no_distances():
    """It may be absent from the rankings; the others' distances are still known."""
    scene, labels, _, found = KITCHEN
    has = np.flatnonzero(np.diff(labels.positives(0.5).indptr) > 0)
    fewer = Rankings(found.rows[has], found.distances[has], tuple(found.query_names[q] for q in has), found.database_names, found.history)
    assert 0 < len(fewer) < len(found)
    assert same(evaluate(fewer, scene, labels=labels, samples=9).metrics, evaluate(found, scene, labels=labels, samples=9).metrics)
    with pytest.raises(InvalidInputError, match="every query that is asked"):
        evaluate(fewer, scene, labels=labels, protocol="7scenes/gcl")


@pytest.mark.parametrize("known", [None, [True] * 20 + [False] * 20])
def test_error_quantiles_are_drawn_as_the_bootstrap_draws(known):
    scene = town(8)
    found = searched(scene, 3)
    if known is not None:  # whose best match is no image of the database has no error
        found = dataclasses.replace(found, rows=np.where(np.array(known)[:, None], found.rows, -1))
    scores = evaluate(found, scene, protocol="radius/25/all", samples=40, seed=2)
    errors = scores.per_query["error"]
    for level in (0.5, 0.75, 0.95):
        statistic = weighted_quantile(errors, level=level)
        expected = bootstrap(statistic, Units(scores.units, "x"), samples=40, seed=2)
        metric = scores.metrics[f"error@{level:.0%}"]
        assert (metric.value, metric.low, metric.high, metric.n) == (statistic(np.ones(40)), *expected, np.isfinite(errors).sum())


def test_average_precision_is_of_the_images_that_are_asked_and_searched():
    scene = town(9)
    random = np.random.default_rng(0)
    sides = [
        Descriptors(random.normal(size=(len(images), 4)).astype(np.float32), images.names, "m")
        for images in (scene.queries, scene.database)
    ]
    rule = Protocol("x", 25.0, positive="distance", asked=("d2n",), searched=("-panorama",), correct=("all",))
    found = searched(scene, 1, k=60)
    scores = evaluate(found, scene, protocol=rule, descriptors=[sides], samples=20)
    here, there = truth(scene, rule).asked, truth(scene, rule).searched
    distances = oracles.all_distances(sides[0].vectors[here], sides[1].vectors[there], "float32")
    expected = oracles.average_precision(distances, truth(scene, rule).positives.toarray()[here][:, there])
    assert scores.metrics["AP"].value == pytest.approx(expected, abs=1e-6)
    assert scores.metrics["AP"].n == here.sum()
    for change in ({"scope": "joint"}, {"windows": (1, 3)}):
        other = dataclasses.replace(rule, short="use", **change)
        ranked = found if "scope" in change else windowed(scene, found, other)
        with pytest.warns(CovisWarning, match="Not computed under x: AP: it is over the pairs of single images, each scene alone"):
            scores = evaluate(ranked, scene, protocol=other, descriptors=[sides], samples=20)
        assert "AP" not in scores.metrics
        assert scores.history["left out"] == ["AP: it is over the pairs of single images, each scene alone"]


def windowed(scene, found, rule):
    """Any ranking of the windows."""
    one = truth(scene, rule)
    rows = np.tile(np.arange(len(one.database_names)), (len(one.query_names), 1))
    return Rankings(rows, np.full(rows.shape, np.nan), one.query_names, one.database_names)


@given(seed=st.integers(0, 999), convention=st.sampled_from(["msls", "found"]))
def test_laws_of_recall_and_precision(seed, convention):
    """recall@k never falls with k; at k = 1 mAP is recall under both conventions; all lie in [0, 1]."""
    scene = town(seed)
    rule = Protocol("x", 15.0, positive="distance", precision=convention, correct=("all",))
    scores = evaluate(searched(scene, seed), scene, protocol=rule, samples=5)
    recalls = np.array([scores.per_query[f"recall@{k}"] for k in rule.ks])
    counted = ~np.isnan(recalls[0])
    assert (np.diff(recalls[:, counted], axis=0) >= 0).all()
    np.testing.assert_array_equal(scores.per_query["mAP@1"], recalls[0])
    for name, values in scores.per_query.items():
        if name != "error":
            assert ((values[counted] >= 0) & (values[counted] <= 1)).all()
            assert np.isnan(values[~counted]).all()


# The official MSLS script, restated: `evaluate.py` and `mapillary_sls/utils/eval.py`, with what it gets wrong.


def official(scenes, path, *, task, length, subtask):
    """What the script prints, or the error it stops with."""
    frames = {"im2im": (1, 1), "seq2im": (length, 1), "im2seq": (1, length), "seq2seq": (length, length)}[task]
    query_keys, positive_keys, database_keys = [], [], []
    for scene in scenes:
        entries = []
        for images, count in zip((scene.queries, scene.database), frames, strict=True):
            kept = []
            for i in range(len(images)):
                window = list(range(i - count // 2, i + count // 2 + 1))
                if count > 1 and (
                    window[0] < 0
                    or window[-1] >= len(images)
                    or len({images.sequence[j] for j in window}) > 1
                    or any(images.frame[b] - images.frame[a] != 1 for a, b in itertools.pairwise(window))
                ):
                    continue
                if images.flags[subtask][i] and not images.flags["panorama"][i]:
                    kept.append(window)
            entries.append(kept)
        if not entries[0] or not entries[1]:
            continue
        names = [
            [",".join(images.names[j].split("/")[-1].rsplit(".", 1)[0] for j in window) for window in kept]
            for images, kept in zip((scene.queries, scene.database), entries, strict=True)
        ]
        database_keys += names[1]
        for window, name in zip(entries[0], names[0], strict=True):
            positives = [
                other
                for entry, other in zip(entries[1], names[1], strict=True)
                if any(((scene.queries.xy[a] - scene.database.xy[b]) ** 2).sum() <= 25.0**2 for a in window for b in entry)
            ]
            if positives:
                query_keys.append(name)
                positive_keys.append(positives)

    table = [line.split() for line in path.read_text().splitlines() if line.split("#")[0].strip()]
    asked = [row[0] for row in table]
    if any(name not in asked for name in query_keys):
        return "a query has no line"
    for row in table:
        inside = [name in database_keys for name in row[1:]]
        if not any(inside):  # meant to be `not all(inside)`: names outside would have gone to the end
            row[1:] = [n for n, here in zip(row[1:], inside, strict=True) if here] + [
                n for n, here in zip(row[1:], inside, strict=True) if not here
            ]
    for number in range(len(query_keys)):  # of the file as it is, whichever queries stand there
        if len(set(table[number][1:])) != len(table[number][1:]):
            return "a prediction stands twice"
    if len(set(asked)) != len(asked):
        return "a query stands twice"
    ranked = [next(row[1:] for row in table if row[0] == name) for name in query_keys]

    printed = []
    for k in (1, 5, 10, 20):
        found = 0
        for names, positives in zip(ranked, positive_keys, strict=True):
            found += any(name in positives for name in names[:k])
        printed.append(f"{subtask}_recall@{k}: {found / len(ranked):.3f}")
    for k in (1, 5, 10, 20):
        total = 0.0
        for names, positives in zip(ranked, positive_keys, strict=True):
            score, right, first = 0.0, 0, names[:k]
            for rank, name in enumerate(first):
                if name in positives and name not in first[:rank]:
                    right += 1
                    score += right / (rank + 1.0)
            total += score / min(len(positives), k)
        printed.append(f"{subtask}_map@{k}: {total / len(ranked):.3f}")
    return printed


def ours(scenes, path, *, task, length, subtask, unknown=None):
    """The same lines from our scores; warnings are looked at elsewhere."""
    name = "/".join(["msls-val/official", *([f"{task}-{length}"] if task != "im2im" else []), subtask])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        scores = evaluate(Predictions.read(path), scenes, protocol=name, unknown=unknown, samples=5)
    return scores, [
        f"{subtask}_{printed}@{k}: {scores.metrics[f'{metric}@{k}'].value:.3f}"
        for metric, printed in (("recall", "recall"), ("mAP", "map"))
        for k in (1, 5, 10, 20)
    ]


def predicted(scenes, path, *, task, length, random, columns):
    """A file with all that real ones hold: other towns' images, panoramas, keys of nowhere, lines of strangers, repeats at the end."""
    rule = protocol("msls-val/official" if task == "im2im" else f"msls-val/official/{task}-{length}")
    truths = [truth(scene, rule) for scene in scenes]
    everywhere = [key(name) for one in truths for name in one.database_names]
    lines, repeated = ["# made for a test"], []
    for one in truths:
        for q, query in enumerate(one.query_names):
            near = [key(one.database_names[d]) for d in one.positives.indices[one.positives.indptr[q] : one.positives.indptr[q + 1]]]
            pool = list(
                dict.fromkeys([*random.permutation(near)[:3], *random.permutation(everywhere), *(f"nowhere{i}" for i in range(columns))])
            )
            head = pool[: max(columns // 2, 1)]
            names = [*head, *random.permutation(pool[len(head) :])][:columns]
            names = list(random.permutation(names))
            if one.asked[q] and random.random() < 0.1 and columns > 2:
                repeated.append(" ".join([key(query), *names[:-1], names[0]]))
            else:
                lines.append(" ".join([key(query), *names]))
    strangers = [*everywhere, *(f"nowhere{i}" for i in range(columns))]
    lines += [" ".join([f"stranger{i}", *random.permutation(strangers)[:columns]]) for i in range(3)]
    lines[1:] = random.permutation(lines[1:]).tolist()
    path.write_text("\n".join([*lines, *repeated]) + "\n")


TASKS = [("im2im", 1), ("im2seq", 3), ("seq2im", 3), ("seq2seq", 3), ("seq2seq", 5)]
SUBTASKS = ["all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"]


@pytest.mark.parametrize(("task", "length"), TASKS)
@pytest.mark.parametrize("subtask", SUBTASKS)
def test_the_official_script_to_its_last_digit(tmp_path, task, length, subtask):
    for seed in range(3):
        random = np.random.default_rng([seed, SUBTASKS.index(subtask), length])
        scenes = [town(seed, name="cph", share=0.8), town(seed + 50, name="sf", queries=25, database=30, share=0.8)]
        columns = min(int(random.choice([3, 12, 25])), sum(len(truth(s, "msls-val/official").database_names) for s in scenes))
        predicted(scenes, tmp_path / "p.txt", task=task, length=length, random=random, columns=columns)
        expected = official(scenes, tmp_path / "p.txt", task=task, length=length, subtask=subtask)
        assert isinstance(expected, list), expected
        scores, printed = ours(scenes, tmp_path / "p.txt", task=task, length=length, subtask=subtask)
        assert printed == expected
        assert 0 < scores.metrics["recall@1"].value < 1  # so that the lines say something
        assert scores.history["policy"] == "strict_file"
        _, stripped = ours(scenes, tmp_path / "p.txt", task=task, length=length, subtask=subtask, unknown="strict_file")
        assert stripped == printed


@settings(max_examples=15)
@given(seed=st.integers(0, 999), task=st.sampled_from(TASKS), columns=st.integers(1, 30))
def test_stripping_never_loses_a_hit(tmp_path_factory, seed, task, columns):
    """What was found at rank r is found at r or before once strangers are gone; and the order of lines changes nothing."""
    path = tmp_path_factory.mktemp("p") / "p.txt"
    random = np.random.default_rng(seed)
    scenes = [town(seed, name="cph", share=0.8), town(seed + 1, name="sf", share=0.8)]
    options = {"task": task[0], "length": task[1]}
    predicted(scenes, path, random=random, columns=columns, **options)
    lines = [line for line in path.read_text().splitlines() if len(set(line.split())) == len(line.split())]
    needed = {
        key(n)
        for s in scenes
        for n in truth(s, "msls-val/official" if task[0] == "im2im" else f"msls-val/official/{task[0]}-{task[1]}").query_names
    }
    lines += [f"{query} {' '.join(f'filler{i}' for i in range(columns))}" for query in sorted(needed - {line.split()[0] for line in lines})]
    path.write_text("\n".join(lines))
    strict, _ = ours(scenes, path, subtask="all", unknown="strict_file", **options)
    strip, _ = ours(scenes, path, subtask="all", unknown="strip_unknown", **options)
    for name, values in strict.per_query.items():
        if name.startswith(("recall", "mAP")):
            assert (np.nan_to_num(strip.per_query[name]) >= np.nan_to_num(values)).all(), name
    path.write_text("\n".join(random.permutation(lines)))
    again, _ = ours(scenes, path, subtask="all", unknown="strict_file", **options)
    assert again.queries == strict.queries
    assert same(again.metrics, strict.metrics)


def test_what_the_script_stops_at_we_stop_at(tmp_path):
    scenes = [town(1, name="cph", share=1.0)]
    path = tmp_path / "p.txt"
    predicted(scenes, path, task="im2im", length=1, random=np.random.default_rng(1), columns=5)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rule = truth(scenes[0], "msls-val/official")
    counted = [key(name) for name, has in zip(rule.query_names, rule.answerable, strict=True) if has]
    options = {"task": "im2im", "length": 1, "subtask": "all"}
    first = lines[0].split()
    for text, reason, said in (
        ([line for line in lines if line.split()[0] != counted[0]], "a query has no line", f"must hold a line.*{counted[0]}"),
        ([" ".join([*first[:-1], first[1]]), *lines[1:]], "a prediction stands twice", "line 1: .*stands again"),
    ):
        path.write_text("\n".join(text))
        assert official(scenes, path, **options) == reason
        with pytest.raises(InvalidInputError, match=said):
            ours(scenes, path, **options)


def test_strangers_stop_us_unless_a_policy_is_named(tmp_path):
    scene = town(1)
    predicted([scene], tmp_path / "p.txt", task="im2im", length=1, random=np.random.default_rng(1), columns=5)
    file = Predictions.read(tmp_path / "p.txt")
    rule = dataclasses.replace(protocol("radius/25"), short="use")
    with pytest.raises(InvalidInputError, match=r"'stranger.' is none"):
        evaluate(file, scene, protocol=rule)
    with pytest.warns(CovisWarning, match="3 unknown queries"):
        scores = evaluate(file, scene, protocol=rule, unknown="strict_file", samples=5)
    assert scores.history["policy"] == "strict_file"
    assert scores.history["scenes"][0]["rankings"]["dropped"]["unknown queries"] == 3


def chained(windows):
    """Sequences that contain every window: a frame is followed by the same frame wherever it stands."""
    after = {a: b for window in windows for a, b in itertools.pairwise(window)}
    assert all(after[a] == b for window in windows for a, b in itertools.pairwise(window))
    starts = [a for a in dict.fromkeys(frame for window in windows for frame in window) if a not in after.values()]
    for start in starts:
        chain = [start]
        while chain[-1] in after:
            chain.append(after[chain[-1]])
        yield chain


@pytest.mark.parametrize(("task", "count"), [("im2im", 105), ("im2seq", 104), ("seq2im", 103), ("seq2seq", 102)])
def test_the_example_files_against_a_ground_truth_that_knows_their_keys(covis_data, task, count):
    path = covis_data / "metadata" / "msls_predictions" / f"example_msls_{task}_prediction.csv"
    file = Predictions.read(path)
    random = np.random.default_rng(count)

    def side(which, names):
        windows = [tuple(name.split(",")) for name in names]
        chains = list(chained(windows))
        keys = [one for chain in chains for one in chain]
        middles = {window[len(window) // 2] for window in windows}
        return Images(
            "msls",
            [f"train_val/zurich/{which}/images/{one}.jpg" for one in keys],
            xy=random.random((len(keys), 2)) * 700,
            sequence=[f"{which}{number}" for number, chain in enumerate(chains) for _ in chain],
            frame=[number for chain in chains for number in range(len(chain))],
            flags={"all": [one in middles for one in keys], "panorama": [False] * len(keys)},
        )

    database = side("database", dict.fromkeys(name for names in file.found for name in names))
    queries = side("query", file.queries)
    place = {name.split("/")[-1][:-4]: row for row, name in enumerate(database.names)}
    xy = queries.xy.copy()
    for query, names in zip(file.queries, file.found, strict=True):  # two in three queries are near one of what was found for them
        if random.random() < 0.67:
            there = place[str(random.choice(names)).split(",")[0]]
            xy[[name.split("/")[-1][:-4] for name in queries.names].index(query.split(",")[0])] = database.xy[there] + random.normal(
                0, 8, 2
            )
    scene = Scene("zurich", "val", database, dataclasses.replace(queries, xy=xy))
    options = {"task": task, "length": 3, "subtask": "all"}
    scores, printed = ours([scene], path, **options)
    assert printed == official([scene], path, **options)
    assert len(scores.queries) == count
    assert 0.05 < scores.metrics["recall@1"].value < scores.metrics["recall@5"].value < 1
    assert scores.metrics["recall@20"] == scores.metrics["recall@5"]  # the files have five columns


def test_747_are_asked_and_740_counted(covis_data):
    """With the names of MSLS val, and positions under which the published seven have no positive."""
    lists = covis_data / "metadata" / "msls_lists"
    asked = np.load(lists / "msls_val_qImages.npy", allow_pickle=False).tolist()
    counted = np.load(lists / "msls_val_qIdx.npy", allow_pickle=False)
    assert (len(asked), len(counted)) == (747, 740)
    random = np.random.default_rng(0)
    scenes = []
    for name in ("cph", "sf"):
        text = (lists / f"mapillary{name}_imageNames_index.txt").read_text().split()
        database = [line.partition("Mapillary_Street_Level_Sequences/")[2] for line in text]
        mine = [number for number, query in enumerate(asked) if f"/{name}/" in query]
        others = [f"train_val/{name}/query/images/other{i}.jpg" for i in range(50)]
        there = random.permutation(len(database))[: len(mine)] * 60.0
        xy = [[east, 24.9 if number in counted else 25.1] for east, number in zip(there, mine, strict=True)] + [[0.0, 0.0]] * 50
        queries = Images(
            "msls",
            [*(asked[number] for number in mine), *others],
            xy=xy,
            flags={"all": [True] * len(mine) + [False] * 25 + [True] * 25, "panorama": [False] * (len(mine) + 25) + [True] * 25},
        )
        panoramas = [f"train_val/{name}/database/images/pano{i}.jpg" for i in range(45 if name == "cph" else 0)]
        scenes.append(
            Scene(
                name,
                "val",
                Images(
                    "msls",
                    [*database, *panoramas],
                    xy=[[60.0 * i, 0] for i in range(len(database))] + [[0, 0]] * len(panoramas),
                    flags={"all": [True] * (len(database) + len(panoramas)), "panorama": [False] * len(database) + [True] * len(panoramas)},
                ),
                queries,
            )
        )
    truths = [truth(scene, "msls-val/official") for scene in scenes]
    assert [int(one.asked.sum()) for one in truths] == [499, 248]
    assert [int((one.asked & one.answerable).sum()) for one in truths] == [498, 242]
    assert [int(one.eligible.sum()) for one in truths] == [12556, 6315]
    assert [int(truth(scene, "msls-val/gcl").searched.sum()) for scene in scenes] == [12601, 6315]
    lacking = [
        asked.index(name) for one in truths for name, has in zip(one.query_names, one.answerable | ~one.asked, strict=True) if not has
    ]
    assert lacking == [487, 551, 626, 629, 630, 704, 737]
    nearest = [
        Rankings(
            np.argmin(np.abs(s.queries.xy[:, :1] - s.database.xy[:12556, 0]), axis=1)[:, None],
            np.zeros((len(s.queries), 1)),
            s.queries.names,
            s.database.names,
        )
        for s in scenes
    ]
    scores = evaluate(nearest, scenes, protocol="msls-val/official", samples=5)
    assert (len(scores.queries), scores.metrics["recall@1"].n, scores.metrics["recall@1"].value) == (747, 740, 1.0)
    joint = join(scenes)
    rows = np.concatenate([nearest[0].rows, nearest[1].rows + len(scenes[0].database)])
    pooled = Rankings(rows, np.zeros(rows.shape), joint.queries.names, joint.database.names)
    rule = dataclasses.replace(protocol("msls-val/gsv"), short="use")
    assert evaluate(pooled, scenes, protocol=rule, samples=5).metrics["recall@1"].n == 740
    assert (
        evaluate(pooled, scenes, protocol=dataclasses.replace(protocol("msls-val/gmberton"), short="use"), samples=5).metrics["recall@1"].n
        == 797
    )
