"""What GCL's reference leaves in its results folder: held against its formulas, written out plainly here."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import average_precision_score

from covis.datasets.gcl.distances import read_distances, stored_precision, write_distances
from covis.datasets.gcl.results import (
    read_features,
    read_predictions,
    read_rankings,
    result_files,
    write_features,
    write_predictions,
    write_retrieved,
)
from covis.datasets.gcl.scores import read_scores, write_scores
from covis.descriptors import Descriptors
from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.evaluation import evaluate
from covis.images import Images, Scene
from covis.indexes import index
from covis.labels import Labels
from covis.predictions import Predictions
from covis.rankings import Rankings
from covis.truths import truth
from covis.vector_files import read_vectors

KS = (1, 2, 3, 4, 5, 10, 15, 20, 25)


def scene(name="cph", queries=6, database=40, key=""):
    sides = [
        Images("r", [f"{name}/{side}/{side[0]}{row:03d}{key}.jpg" for row in range(count)])
        for side, count in (("db", database), ("query", queries))
    ]
    return Scene(name, "test", *sides)


def described(one, seed=0, dim=8):
    random = np.random.default_rng(seed)
    sides = []
    for images in (one.queries, one.database):
        vectors = random.normal(size=(len(images), dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sides.append(Descriptors(vectors.astype(np.float32), images.names, "m"))
    return tuple(sides)


def graded(one, seed=1):
    """A similarity of each pair; some exactly 0.5, and the last two queries have nothing above it."""
    values = np.random.default_rng(seed).choice(
        [0, 0.2, 0.5, 0.51, 0.9], size=(len(one.queries), len(one.database)), p=[0.6, 0.2, 0.1, 0.05, 0.05]
    )
    values[-2:] = np.minimum(values[-2:], 0.5)
    return values, Labels(sparse.csr_array(values), one.queries.names, one.database.names, rule="by hand")


def test_predictions_come_back_and_are_those_of_an_exact_search(tmp_path):
    one = scene()
    queries, database = described(one)
    found = index(database).search(queries, k=30)
    path = write_predictions(found, tmp_path / "x_predictions.npy")
    stored = np.load(path)
    assert (stored.shape, stored.dtype) == ((6, 30), np.int64)
    for row, vector in enumerate(queries.vectors):  # the nearest first, by all differences
        distances = [math.dist(vector.tolist(), other.tolist()) for other in database.vectors]
        assert stored[row].tolist() == sorted(range(40), key=distances.__getitem__)[:30]
    back = read_predictions(path, one)
    np.testing.assert_array_equal(back.rows, found.rows)
    assert np.isnan(back.distances).all()
    assert (back.query_names, back.database_names) == (one.queries.names, one.database.names)
    (again,) = read_rankings(path, [one], k=25)
    np.testing.assert_array_equal(again.rows, stored)


def test_the_text_of_cities_is_the_references(tmp_path):
    towns = [scene("cph", key="c"), scene("sf", 3, 35, key="s")]
    found = [index(b).search(a, k=32) for a, b in (described(one) for one in towns)]
    path = write_retrieved(found, tmp_path / "x_predictions.txt")
    expected = ""
    for one, ranked in zip(towns, found, strict=True):
        for row, name in enumerate(one.queries.names):
            expected += name.split("/")[-1].split(".")[0]
            for column in range(30):
                expected += " " + one.database.names[ranked.rows[row, column]].split("/")[-1].split(".")[0]
            expected += "\n"
    assert path.read_text() == expected
    with pytest.raises(CovisError, match=r"already there"):
        write_retrieved(found, path)


def test_keys_that_stand_twice_or_are_no_words_are_refused(tmp_path):
    def text(queries, database):
        return write_retrieved([Rankings([[0]] * len(queries), [[0.0]] * len(queries), queries, database)], tmp_path / "p.txt", k=1)

    with pytest.raises(InvalidInputError, match=r"'x' is not"):  # of two cities: in the text nothing tells them apart
        write_retrieved([Rankings([[0]], [[0.0]], (q,), (f"{q}/x.jpg",)) for q in ("a.jpg", "b.jpg")], tmp_path / "p.txt", k=1)
    for queries, database in ((("a/1.jpg", "b/1.jpg"), ("x.jpg",)), (("1.jpg",), ("x.a.jpg", "x.b.jpg")), (("1 2.jpg",), ("x.jpg",))):
        with pytest.raises(InvalidInputError, match=r"each one word and of one image"):
            text(queries, database)
    assert text(("q.jpg",), ("x.jpg",)).read_text() == "q x\n"
    assert len(Predictions.read(tmp_path / "p.txt")) == 1


def test_rankings_that_a_matrix_cannot_hold_are_refused(tmp_path):
    names = ("q.jpg",), ("a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(InvalidInputError, match=r"name 30 images a query.*--k 30"):
        write_predictions(Rankings([[1, 0]], [[0.1, 0.2]], *names), tmp_path / "p.npy")
    with pytest.raises(InvalidInputError, match=r"ranking of q\.jpg holds what is no image"):
        write_predictions(Rankings([[1, 0, -1]], [[0.1, 0.2, 0.3]], *names), tmp_path / "p.npy")
    assert not (tmp_path / "p.npy").exists()
    assert np.load(write_predictions(Rankings([[1, 0, 2]], [[0.1, 0.2, 0.3]], *names), tmp_path / "p.npy")).tolist() == [[1, 0, 2]]


def test_distances_are_the_references_to_the_bit(tmp_path, monkeypatch):
    from scipy.spatial.distance import cdist

    monkeypatch.setattr("covis.datasets.gcl.distances.ROWS", 4)
    one = scene(queries=9)
    pair = described(one)
    path = write_distances(pair, tmp_path / "x_distances.npy")
    expected = np.zeros((9, 40), dtype="float16")
    for column in range(40):  # a column of the map at a time, from float64 files
        expected[:, column] = cdist(pair[1].vectors[column : column + 1].astype(np.float64), pair[0].vectors.astype(np.float64)).flatten()
    stored = np.load(path)
    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, expected)
    assert write_distances(described(scene(queries=0)), tmp_path / "e.npy").is_file()
    assert np.load(tmp_path / "e.npy").shape == (0, 40)


@pytest.mark.parametrize("seed", range(4))
def test_recall_is_that_of_eval_recallatk(tmp_path, seed):
    """All queries count, also those without a positive; positive is above 0.5, not at it."""
    one = scene()
    values, labels = graded(one, seed)
    path = write_distances(described(one, seed), tmp_path / "x_distances.npy")
    (found,) = read_rankings(path, [one], k=25)
    scores = evaluate(found, one, labels=labels, protocol="7scenes/gcl", samples=20)
    matrix = np.load(path)
    for k in KS:
        hits = 0
        for query in range(6):
            nearest = sorted(range(40), key=lambda column: (matrix[query, column], column))[:k]
            hits += any(values[query, column] > 0.5 for column in nearest)
        assert scores.metrics[f"recall@{k}"].value == hits / 6


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_eval_ap(tmp_path, seed, monkeypatch):
    """One value over all pairs of the flattened float16 matrix, ties and all; covis's own from descriptors is the same number."""
    monkeypatch.setattr("covis.datasets.gcl.distances.ROWS", 4)
    one = scene(queries=11)
    values, labels = graded(one, seed)
    pair = described(one, seed, dim=2)  # two dimensions: many distances are equal in float16
    path = write_distances(pair, tmp_path / "x_distances.npy")
    matrix = np.load(path)
    assert len(np.unique(matrix)) < matrix.size
    expected = average_precision_score((values > 0.5).flatten(), -matrix.flatten().astype(np.float64))
    true = truth(one, "7scenes/gcl", labels)
    assert stored_precision([read_distances(path, one)], [true]) == pytest.approx(expected, abs=1e-12)
    found = index(pair[1]).search(pair[0], k=25)
    scores = evaluate(found, one, labels=labels, protocol="7scenes/gcl", descriptors=[pair], samples=20)
    assert scores.metrics["AP"].value == pytest.approx(expected, abs=1e-12)


def test_several_matrices_are_pooled_and_nothing_is_nan(tmp_path):
    towns = [scene("a"), scene("b", 3, 7)]
    both = [graded(one) for one in towns]
    stored = [read_distances(write_distances(described(one), tmp_path / f"{one.name}.npy"), one) for one in towns]
    truths = [truth(one, "7scenes/gcl", labels) for one, (_, labels) in zip(towns, both, strict=True)]
    flat = [
        np.concatenate([part.flatten() for part in parts]) for parts in ([v > 0.5 for v, _ in both], [np.asarray(s.array) for s in stored])
    ]
    assert stored_precision(stored, truths) == pytest.approx(average_precision_score(flat[0], -flat[1].astype(float)), abs=1e-12)
    nothing = Labels(sparse.csr_array((6, 40)), towns[0].queries.names, towns[0].database.names, rule="none")
    assert math.isnan(stored_precision(stored[:1], [truth(towns[0], "7scenes/gcl", nothing)]))
    with pytest.raises(InvalidInputError, match=r"a\.npy must be \(queries, database\) = \(3, 7\); its shape is \(6, 40\)"):
        stored_precision(stored[:1], truths[1:])


def test_scores_are_rounded_as_eval_pitts_does(tmp_path):
    """Percent with two decimals, of the queries with any positive; counted over all it is another number."""
    one = scene(queries=7)
    values, labels = graded(one)
    binary = (values > 0.5).astype(float)
    labels = Labels(sparse.csr_array(binary), one.queries.names, one.database.names, rule="sim")
    ranked = index(described(one)[1]).search(described(one)[0], k=30)
    predictions = np.load(write_predictions(ranked, tmp_path / "p_predictions.npy"))
    expected = ""
    for k in KS:
        hits = total = 0
        for query, retrieved in enumerate(predictions):
            if binary[query].any():
                total += 1
                hits += bool(binary[query, sorted(retrieved[:k])].any())
        assert total == 5
        expected += f"{k},{np.round(hits / total * 100, 2)}\n"
    (found,) = read_rankings(tmp_path / "p_predictions.npy", [one], k=30)
    scores = evaluate(found, one, labels=labels, protocol="graded/0.5", samples=20)
    path = write_scores(scores.per_query, tmp_path / "p_scores.txt")
    assert path.read_text() == expected
    every = evaluate(found, one, labels=labels, protocol="graded/0.5/all", samples=20)
    assert every.metrics["recall@25"].value == pytest.approx(scores.metrics["recall@25"].value * 5 / 7)


@pytest.mark.parametrize("seed", range(3))
def test_tokyo_time_machine_is_scored_as_eval_pitts_does(tmp_path, seed):
    """Results of the query's own month go from the list alone: a query whose positives are all of its month counts, as a miss."""
    random = np.random.default_rng(seed)
    plain = scene(queries=30, database=120)
    months = {"queries": random.integers(0, 3, 30), "database": random.integers(0, 3, 120)}
    sides = [dataclasses.replace(getattr(plain, side), time=months[side] * 2_678_400.0) for side in ("database", "queries")]
    one = Scene(plain.name, plain.split, *sides)
    same = months["queries"][:, None] == months["database"]
    sim = random.random((30, 120)) < np.where(same, 0.03, 0.01)
    sim[:4] &= same[:4]  # nothing to be found from another month
    sim[np.arange(4), [int(np.flatnonzero(row)[0]) for row in same[:4]]] = True
    sim[-2:] = False  # nothing at all: not counted
    pair = described(one, seed)
    vectors = [side.vectors.astype(np.float64) for side in pair]
    order = ((vectors[0][:, None] - vectors[1][None]) ** 2).sum(axis=2).argsort(axis=1)
    kept = np.array([[row for row in line if not same[query, row]][:30] for query, line in enumerate(order)])
    asked = [query for query in range(30) if sim[query].any()]  # by any positive, its own month included
    assert len(asked) > sum(bool((sim[query] & ~same[query]).any()) for query in asked)
    labels = Labels(sparse.csr_array(sim.astype(float)), one.queries.names, one.database.names, rule="sim")
    predictions = saved(tmp_path / "p_predictions.npy", kept)
    searched = index(pair[1]).search(pair[0], k=120)  # those of the own month among them
    for found in (read_rankings(predictions, [one], k=30)[0], searched):
        scores = evaluate(found, one, labels=labels, protocol="tokyo-tm/gcl", samples=20)
        for k in KS:
            hits = sum(bool(sim[query, sorted(kept[query, :k])].any()) for query in asked)
            assert scores.metrics[f"recall@{k}"].value == pytest.approx(hits / len(asked), abs=1e-12)
            assert scores.metrics[f"recall@{k}"].n == len(asked)
        assert write_scores(scores.per_query, tmp_path / "p_scores.txt", overwrite=True).read_text() == "".join(
            f"{k},{np.round(sum(bool(sim[query, kept[query, :k]].any()) for query in asked) / len(asked) * 100, 2)}\n" for k in KS
        )


def test_each_text_of_scores_comes_back(tmp_path):
    values = {"recall@1": np.array([1, 0, 0, np.nan]), "recall@5": np.array([1, 1, 0, np.nan]), "mAP@5": np.array([1, 0.5, 0, np.nan])}
    for end, text, digits in (
        ("_scores.txt", "1,33.33\n5,66.67\n", 4),
        ("_result_whiten_512.txt", "all_recall@1: 0.333\nall_recall@5: 0.667\nall_map@5: 0.500\n", 3),
    ):
        path = write_scores(values, tmp_path / f"x{end}")
        assert path.read_text() == text
        found = read_scores(path)
        assert found["recall@1"] == pytest.approx(1 / 3, abs=10**-digits)
        assert found.get("mAP@5", 0.5) == 0.5
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        assert read_scores(path) == found
    path = write_scores(values, tmp_path / "x_recall.txt")
    assert np.loadtxt(path, delimiter=",").tolist() == [[1, 1 / 3], [5, 2 / 3]]
    assert read_scores(path) == {"recall@1": 1 / 3, "recall@5": 2 / 3}
    np.savetxt(path, np.vstack(((1, 10, 15, 25), (0.25, 0.5, 0.75, 1.0))).T, delimiter=",", header="k,r")  # as eval_recallatk writes it
    assert read_scores(path) == {"recall@1": 0.25, "recall@10": 0.5, "recall@15": 0.75, "recall@25": 1.0}
    for name, given, said in (("x.csv", values, "must end in _scores"), ("y_scores.txt", {"nDCG@5": np.ones(3)}, r"must have recall@k")):
        with pytest.raises(InvalidInputError, match=said):
            write_scores(given, tmp_path / name)
    with pytest.raises(OutputExistsError):
        write_scores(values, path)


@pytest.mark.parametrize(("text", "line"), [
    ("", ""), ("\n\n", ""), ("# k,r\n", ""), ("k,percent\n", "line 1"), ("1,80\n1,90\n", "line 2"),
    ("1,101\n", "line 1"), ("1,-1\n", "line 1"),
    ("1,nan\n", "line 1"), ("0,80\n", "line 1"), ("1.5,80\n", "line 1"), ("1;80\n", "line 1"), ("1,80,3\n", "line 1"), ("1,\n", "line 1"),
    ("# k,r\n1,80\n", "line 2"), ("all_recall@1: 80\n", "line 1"), ("all_recall@x: 0.8\n", "line 1"), ("all_precision@1: 0.8\n", "line 1"),
])  # fmt: skip
def test_what_is_no_score_is_refused_with_its_line(tmp_path, text, line):
    (tmp_path / "x_scores.txt").write_text(text)
    with pytest.raises(DamagedFileError, match=rf"x_scores\.txt.*{line}"):
        read_scores(tmp_path / "x_scores.txt")


def test_scores_that_are_no_text_or_not_there(tmp_path):
    (tmp_path / "x_scores.txt").write_bytes(b"\xff\xfe1")
    with pytest.raises(DamagedFileError, match="UTF-8"):
        read_scores(tmp_path / "x_scores.txt")
    with pytest.raises(MissingFileError):
        read_scores(tmp_path / "none.txt")


def test_features_come_back_whitened_or_not(tmp_path):
    towns = [scene("cph"), scene("sf", 3, 7)]
    pairs = [described(one) for one in towns]
    written = write_features(pairs, towns, tmp_path / "net")
    assert [path.name for path in written] == [
        "net_cph_queryfeats.npy", "net_cph_mapfeats.npy", "net_sf_queryfeats.npy", "net_sf_mapfeats.npy"
    ]  # fmt: skip
    assert np.load(written[0]).dtype == np.float64
    np.testing.assert_array_equal(np.load(written[0]), pairs[0][0].vectors.astype(np.float64))
    for found, pair in zip(read_features(tmp_path / "net", towns), pairs, strict=True):
        for mine, theirs in zip(found, pair, strict=True):
            np.testing.assert_array_equal(mine.vectors, theirs.vectors)
            assert mine.names == theirs.names
    with pytest.warns(UserWarning, match="in the order that the data was read in"):
        np.testing.assert_array_equal(read_vectors(tmp_path / "net", towns)[1][0].vectors, pairs[1][0].vectors)
    white = [tuple(Descriptors(side.vectors[:, :3], side.names, "m", {"whitened": {"dim": 3}}) for side in pair) for pair in pairs]
    assert [path.name for path in write_features(white[:1], towns[:1], tmp_path / "net", by_scene=True)] == [
        "net_cph_queryfeats_whiten_3.npy", "net_cph_mapfeats_whiten_3.npy"
    ]  # fmt: skip
    ((queries, _),) = read_features(tmp_path / "net", towns[:1], whitened=3)
    assert queries.dim == 3
    assert queries.history["whitened"]["dim"] == 3
    assert [path.name for path in write_features(pairs[:1], towns[:1], tmp_path / "one")] == ["one_queryfeats.npy", "one_mapfeats.npy"]
    assert read_features(tmp_path / "one", towns[:1])[0][0].dim == 8
    with pytest.raises(MissingFileError, match=r"must hold net_cph_queryfeats_whiten_9\.npy or net_queryfeats_whiten_9\.npy; it does not"):
        read_features(tmp_path / "net", towns[:1], whitened=9)
    with pytest.raises(OutputExistsError):
        write_features(pairs, towns, tmp_path / "net")
    with pytest.raises(InvalidInputError, match=r"all images of scene 'cph' \(queryfeats\), in their order"):
        write_features(pairs[1:], towns[:1], tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"files of their own"):
        write_features(pairs, towns, tmp_path / "other", by_scene=False)
    assert not list(tmp_path.glob("other*"))


def saved(path, array):
    np.save(path, array)
    return path


BAD_PREDICTIONS = {
    "objects": (np.array([[1, None]] * 6, dtype=object), "pickle"),
    "floats": (np.zeros((6, 30)), r"must hold whole numbers, \(queries, k\); it holds float64"),
    "one line": (np.arange(30), r"of shape \(30,\)"),
    "another number of queries": (np.tile(np.arange(30), (5, 1)), r"a row for each of the 6 queries.*its shape is \(5, 30\)"),
    "a row that there is not": (np.tile(np.arange(11, 41), (6, 1)), r"in \[0, 40\).*Is it of scene 'cph'"),
    "below -1": (np.tile(np.arange(-2, 28), (6, 1)), r"in \[0, 40\)"),
    "twice": (np.full((6, 2), 7), "names one twice"),
}


@pytest.mark.parametrize("fault", BAD_PREDICTIONS)
def test_bad_predictions_are_refused_in_words(tmp_path, fault):
    array, said = BAD_PREDICTIONS[fault]
    path = saved(tmp_path / "x_predictions.npy", array)
    with pytest.raises(CovisError, match=said) as refused:
        read_predictions(path, scene())
    assert "x_predictions.npy" in str(refused.value)


def test_nothing_found_is_minus_one_as_faiss_has_it(tmp_path):
    rows = np.tile(np.arange(3), (6, 1))
    rows[2, 1:] = -1
    found = read_predictions(saved(tmp_path / "p.npy", rows.astype(np.int32)), scene())
    np.testing.assert_array_equal(found.rows, rows)


NAN, NEGATIVE = (np.where(np.arange(240).reshape(6, 40) == 83, value, 1.0).astype(np.float16) for value in (np.nan, -1.0))
BAD_DISTANCES = {
    "objects": (np.array([[1.0, None]] * 6, dtype=object), "pickle"),
    "whole numbers": (np.zeros((6, 40), dtype=int), "must hold floats"),
    "queries": (np.zeros((5, 40), dtype=np.float16), "a row for each of the 6 queries"),
    "columns": (np.zeros((6, 39), dtype=np.float16), "a column for each of the 40 database images.*panoramas"),
    "NaN": (NAN, r"row 2 \(cph/query/q002\.jpg\), column 3 \(cph/db/d003\.jpg\) holds nan"),
    "negative": (NEGATIVE, r"row 2 .* holds -1\.0"),
}


@pytest.mark.parametrize("fault", BAD_DISTANCES)
def test_bad_distances_are_refused_in_words(tmp_path, fault):
    array, said = BAD_DISTANCES[fault]
    path = saved(tmp_path / "x_distances.npy", array)
    with pytest.raises(CovisError, match=said) as refused:
        read_rankings(path, [scene()], k=5)
    assert "x_distances.npy" in str(refused.value)


def test_infinite_distances_are_what_float16_makes_of_large_ones(tmp_path):
    array = np.full((6, 40), np.inf, dtype=np.float16)
    array[:, 7] = 3
    (found,) = read_rankings(saved(tmp_path / "x_distances.npy", array), [scene()], k=2)
    assert found.rows.tolist() == [[7, 0]] * 6


BAD_FEATURES = {
    "objects": (np.array([[None]] * 6, dtype=object), "pickle"),
    "whole numbers": (np.zeros((6, 8), dtype=int), "must hold floats"),
    "rows": (np.ones((7, 8)), "a row for each of the 6 images"),
    "NaN": (np.full((6, 8), np.nan), r"cph/query/q000\.jpg is not"),
    "beyond float32": (np.full((6, 8), 1e300), r"cph/query/q000\.jpg is not"),
}


@pytest.mark.parametrize("fault", BAD_FEATURES)
def test_bad_features_are_refused_in_words(tmp_path, fault):
    array, said = BAD_FEATURES[fault]
    one = scene()
    write_features([described(one)], [one], tmp_path / "net")
    saved(tmp_path / "net_queryfeats.npy", array)
    with pytest.raises(CovisError, match=said):
        read_features(tmp_path / "net", [one])


def test_truncated_files_are_refused(tmp_path, refuses_every_cut):
    one = scene()
    predictions = saved(tmp_path / "x_predictions.npy", np.tile(np.arange(30), (6, 1)))
    refuses_every_cut(predictions, lambda: read_predictions(predictions, one))
    distances = write_distances(described(one), tmp_path / "x_distances.npy")
    refuses_every_cut(distances, lambda: read_distances(distances, one))


def test_where_files_are(tmp_path):
    towns = [scene("cph"), scene("sf")]
    for name in ("net_cph", "net_sf", "other_cph", "other_sf"):
        (tmp_path / f"{name}_distances.npy").write_bytes(b"")
    assert [path.name for path in result_files(tmp_path / "net", towns, "distances")] == ["net_cph_distances.npy", "net_sf_distances.npy"]
    with pytest.raises(InvalidInputError, match=r"one file for scene 'cph'; it leads to net_cph_distances\.npy, other_cph"):
        result_files(tmp_path, towns, "distances")
    with pytest.raises(MissingFileError, match=r"no_cph_distances\.npy, for scene 'cph'"):
        result_files(tmp_path / "no", towns, "distances")
    with pytest.raises(InvalidInputError, match=r"is of one scene; the data has 2: cph, sf"):
        result_files(tmp_path / "net_cph_distances.npy", towns, "distances")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "net_predictions.npy").write_bytes(b"")
    assert result_files(tmp_path / "x", towns[:1], "predictions") == [tmp_path / "x" / "net_predictions.npy"]
