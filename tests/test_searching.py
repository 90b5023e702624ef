"""Scenes searched: deep enough for a protocol, alone or in one index; what was skipped is asked and not found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import nearest

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError
from covis.evaluation import evaluate
from covis.images import Images, Scene
from covis.indexes import index
from covis.labels import Labels
from covis.protocols import protocol
from covis.searching import search_depths, search_scenes
from covis.truths import join

JOINT = replace(protocol("radius/25"), name="joint/25", scope="joint", ks=(1, 5))


def vectors(seed: int, count: int, dim: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def place(name: str, seed: int, *, queries: int = 7, database: int = 12) -> tuple[Scene, tuple[Descriptors, Descriptors]]:
    random = np.random.default_rng(seed)
    sides = [
        Images(f"/data/{name}/{side}", [f"{row}.jpg" for row in range(count)], xy=random.uniform(0, 100, (count, 2)), crs="EPSG:32633")
        for side, count in (("database", database), ("query", queries))
    ]
    made = [Descriptors(vectors(seed + 100 * number, len(one)), one.names, "m") for number, one in enumerate(sides)]
    return Scene(name, "test", *sides), (made[1], made[0])


PLACES = [place("cph", 1), place("sf", 2, queries=4, database=30)]
SCENES, DESCRIBED = [one for one, _ in PLACES], [pair for _, pair in PLACES]


def without(described: Descriptors, *rows: int) -> Descriptors:
    """As extraction with damaged="skip" leaves it."""
    kept = [row for row in range(len(described)) if row not in rows]
    skipped = [{"name": described.names[row], "reason": "truncated"} for row in rows]
    names = tuple(described.names[row] for row in kept)
    return Descriptors(described.vectors[kept], names, described.model, {"extracted": {"skipped": skipped}})


def test_each_scene_alone():
    found = search_scenes(SCENES, DESCRIBED, protocol="radius/25", k=5)
    for one, scene, (queries, database) in zip(found, SCENES, DESCRIBED, strict=True):
        rows, distances = nearest(queries.vectors, database.vectors, 5)
        np.testing.assert_array_equal(one.rows, rows)
        np.testing.assert_allclose(one.distances, distances, rtol=1e-5)
        assert (one.query_names, one.database_names) == (scene.queries.names, scene.database.names)
        assert one.history["index"] == "exact"
        assert "recall against exact" not in one.history
        assert "without a descriptor" not in one.history


def test_all_in_one_index():
    (found,) = search_scenes(SCENES, DESCRIBED, protocol=JOINT, k=5)
    whole = join(SCENES)
    queries, database = (np.concatenate([pair[side].vectors for pair in DESCRIBED]) for side in (0, 1))
    np.testing.assert_array_equal(found.rows, nearest(queries, database, 5)[0])
    assert (found.query_names, found.database_names) == (whole.queries.names, whole.database.names)
    assert found.history["scope"] == "joint"
    assert evaluate(found, SCENES, protocol=JOINT, samples=10).metrics["recall@5"].n


def test_deep_enough_for_what_takes_no_rank():
    images = SCENES[0].database
    n = len(images)
    left_out = np.eye(n, dtype=bool)
    left_out[0, 1:4] = True
    from scipy import sparse

    labels = Labels(
        sparse.csr_array(np.ones((n, n)) * ~left_out), images.names, images.names, rule="x", excluded=sparse.csr_array(left_out)
    )
    scene, described = Scene("s", "train", images, images), (DESCRIBED[0][1],) * 2
    (found,) = search_scenes([scene], [described], protocol=["graded/0.5", "radius/25"], labels=[labels], k=5)
    assert found.k == 5 + 4
    assert search_depths([scene], "radius/25", k=5) == [6]
    assert search_depths([scene], ["graded/0.5", "radius/25"], [labels], k=5) == [9]


@pytest.mark.parametrize("rule", ["radius/25", JOINT])
def test_what_was_skipped_is_asked_and_not_found(rule):
    described = [(without(DESCRIBED[0][0], 2, 6), without(DESCRIBED[0][1], 0, 5)), DESCRIBED[1]]
    found = search_scenes(SCENES, described, protocol=rule, k=25)
    whole = search_scenes(SCENES, DESCRIBED, protocol=rule, k=50)
    skipped = [0, 5]  # rows of the first scene's database, which come first in the joint one too
    for one, all_of_it in zip(found, whole, strict=True):
        assert (one.query_names, one.database_names) == (all_of_it.query_names, all_of_it.database_names)
    for query in range(7):
        expected = [row for row in whole[0].rows[query] if row not in skipped][: np.count_nonzero(found[0].rows[query] >= 0)]
        assert found[0].rows[query, : len(expected)].tolist() == ([] if query in (2, 6) else expected)
    assert (found[0].rows[[2, 6]] == -1).all()
    assert np.isinf(found[0].distances[[2, 6]]).all()
    assert found[0].history["without a descriptor"] == {"queries": 2, "database": 2}

    with pytest.warns(CovisWarning, match=r"error: 2 queries have no descriptor"):
        scores = evaluate(found, SCENES, protocol=rule, samples=10)
    perfect = evaluate(whole, SCENES, protocol=rule, samples=10)
    assert scores.metrics["recall@1"].n == perfect.metrics["recall@1"].n, "a query without a descriptor is counted"
    assert scores.per_query["recall@5"][[2, 6]].tolist() == [0, 0], "as a miss"
    assert "match-AP" in scores.metrics
    assert ("error@50%" in perfect.metrics, "error@50%" in scores.metrics) == (True, False)
    assert "2 queries and 2 database images have no descriptor" in " ".join(str(scores).split())


def test_average_precision_is_left_out_where_images_were_skipped():
    described = [(DESCRIBED[0][0], without(DESCRIBED[0][1], 0)), DESCRIBED[1]]
    found = search_scenes(SCENES, described, protocol="radius/25")
    with pytest.warns(CovisWarning, match=r"AP: 1 images were skipped"):
        scores = evaluate(found, SCENES, protocol="radius/25", descriptors=described, samples=10)
    assert "AP" not in scores.metrics
    assert "AP" in evaluate(found, SCENES, protocol="radius/25", descriptors=DESCRIBED, samples=10).metrics


class Half:
    """An index that sees every second image of the database only."""

    kind = "half"

    def __init__(self, **_: object) -> None:
        self.shards: list[Descriptors] = []

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def add(self, descriptors: Descriptors) -> None:
        self.shards.append(descriptors)

    def search(self, queries, *, k, among=None):
        names = tuple(name for shard in self.shards for name in shard.names)
        every = np.concatenate([shard.vectors for shard in self.shards])
        rows, distances = nearest(queries.vectors, every[::2], min(k, len(every[::2])))
        from covis.rankings import Rankings

        return Rankings(2 * rows, distances, queries.names, names, {"model": queries.model, "database": {}, "index": "half"})


@pytest.mark.parametrize("rule", ["radius/25", JOINT])
def test_an_approximate_index_is_held_against_the_exact_one(monkeypatch, rule):
    monkeypatch.setattr("covis.searching.index", lambda sets, *, kind, **options: index(sets, kind=kind) if kind == "exact" else made(sets))

    def made(sets):
        half = Half()
        for one in sets:
            half.add(one)
        return half

    exact = search_scenes(SCENES, DESCRIBED, protocol=rule, k=4)
    for one, whole in zip(search_scenes(SCENES, DESCRIBED, protocol=rule, k=4, kind="half"), exact, strict=True):
        share = np.mean([len(set(a[:4]) & set(b[:4])) / 4 for a, b in zip(one.rows, whole.rows, strict=True)])
        first = np.mean(one.rows[:, 0] == whole.rows[:, 0])
        assert one.history["recall against exact"] == {"k": 4, "recall": pytest.approx(share), "first": first, "queries": len(one)}
        assert 0.2 < share < 0.8
    few = replace(protocol("radius/25"), name="few", ks=(1, 5))
    scores = evaluate(search_scenes(SCENES, DESCRIBED, protocol=few, kind="half"), SCENES, protocol=few, samples=10)
    assert "index half, which finds" in " ".join(str(scores).split())


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (DESCRIBED[:1], "One pair of descriptors a scene"),
        (DESCRIBED[::-1], "must be those of the images of scene 'cph', in their order"),
        ([(DESCRIBED[0][0], replace(DESCRIBED[0][1], names=DESCRIBED[0][1].names[::-1])), DESCRIBED[1]], "in their order"),
        ([(Descriptors(vectors(0, 2), ("0.jpg", "2.jpg"), "m"), DESCRIBED[0][1]), DESCRIBED[1]], "made from other data, or another split"),
    ],
)
def test_descriptors_of_other_images_are_refused(described, said):
    with pytest.raises(InvalidInputError, match=said):
        search_scenes(SCENES, described, protocol="radius/25")


def test_protocols_of_two_scopes_are_two_searches():
    with pytest.raises(InvalidInputError, match=r"of one scope; got radius/25 \(scene\), joint/25 \(joint\)"):
        search_scenes(SCENES, DESCRIBED, protocol=["radius/25", JOINT])
    with pytest.raises(InvalidInputError, match=r"of one scope; got \."):
        search_scenes(SCENES, DESCRIBED, protocol=[])


def test_searching_alone_imports_no_torch():
    """Descriptors of another program are scored without it."""
    import subprocess
    import sys

    code = "import sys, covis.searching, covis.vector_files; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.strip() == "False"
