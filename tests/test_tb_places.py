"""TB-Places: its indexes and its ground truth by hand, its two protocols, and its sizes."""

import json
import math

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from covis.cli import app
from covis.datasets.gcl import draft_gcl, read_gcl, write_gcl
from covis.datasets.gcl.h5 import read_labels, write_labels
from covis.datasets.label_files import label_files, load_labels
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.evaluation import evaluate
from covis.images import Images, Scene
from covis.indexes import index
from covis.labelling import label_by_distance
from covis.scores import Scores

HALF = math.sqrt(0.5)


def garden(root, name, count, *, along=0.0):
    """An index as the authors write it: translation, then the quaternion with w last; a quarter turn about z."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{name}/cam0/{row}.jpg" for row in range(count)]
    for one in names:
        (root / one).parent.mkdir(parents=True, exist_ok=True)
        (root / one).write_bytes(one.encode())
    poses = [[along + row, 2.0, 3.0, 0.0, 0.0, HALF, HALF] for row in range(count)]
    (root / f"{name}.json").write_text(json.dumps({"im_prefix": ".", "im_paths": names, "poses": poses}))
    return root / f"{name}.json"


def truth_file(path, **arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


def described(images, values):
    return Descriptors(np.array(values, dtype=np.float32).reshape(len(images), -1), images.names, "m")


@pytest.fixture
def asked(tmp_path):
    """W18 (two images) asks W17 (three); the descriptors lie on a line: 0 and 10 against 1, 3 and 8."""
    garden(tmp_path, "W17", 3)
    garden(tmp_path, "W18", 2, along=0.5)
    (scene,) = read_gcl(tmp_path, dataset="tb-places", database="W17.json", queries="W18.json", sizes="ignore")
    return scene, (described(scene.queries, [0, 10]), described(scene.database, [1, 3, 8]))


def test_poses_are_six_degrees_of_freedom_with_w_last(asked):
    scene, _ = asked
    assert (scene.name, len(scene.queries), len(scene.database)) == ("W18_W17", 2, 3)
    expected = np.array([[0, -1, 0, 1.5], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(scene.queries.pose[1], expected, atol=1e-15)
    assert scene.queries.xy is None


def test_recall_and_precision_by_hand(asked, tmp_path):
    """Above 0.5, not at it; all queries count; recall by `sim`, average precision by `fov`, where the file has both."""
    scene, pair = asked
    fov = np.array([[0.5, 0.8, 0.0], [0.3, 0.2, 0.5]])  # 0.5 is no positive: the second query has none
    sim = np.array([[1, 1, 0], [0, 0, 1]], dtype=np.uint8)
    path = truth_file(tmp_path / "W18_W17_gt.h5", fov=fov, sim=sim)
    found = index(pair[1]).search(pair[0], k=3)
    assert found.rows.tolist() == [[0, 1, 2], [2, 1, 0]]

    def scores(key):
        (labels,) = load_labels(f"{path}:{key}" if key else path, [scene])
        return {
            name: one.value
            for name, one in evaluate(found, scene, labels=labels, protocol="tb-places/gcl", descriptors=[pair], samples=20).metrics.items()
        }

    by_fov = scores("")
    assert by_fov == scores("fov")
    # The first query's positive is its second nearest; the second query misses: 0 of 2, then 1 of 2.
    assert (by_fov["recall@1"], by_fov["recall@2"], by_fov["recall@3"]) == (0, 0.5, 0.5)
    # Pairs by distance: 1, 2, 3 (the positive; at a tie of none), 7, 8, 9. Precision at it: 1 of 3.
    assert by_fov["AP"] == pytest.approx(1 / 3)
    by_sim = scores("sim")
    assert (by_sim["recall@1"], by_sim["recall@2"]) == (1, 1)
    assert by_sim["AP"] == pytest.approx(1)  # 1, 2 and 3 are the three positives


def test_the_pairs_of_one_set_by_hand(tmp_path):
    """TB-Places' own: the condensed pairs 01 02 03 12 13 23 of four images."""
    garden(tmp_path, "W17", 4)
    (scene,) = read_gcl(tmp_path / "W17.json", dataset="tb-places", sizes="ignore")
    assert scene.training
    path = truth_file(tmp_path / "W17_similarity.h5", sim=np.array([[1, 0, 0, 0, 0, 1]], dtype=np.uint8))
    labels = read_labels(path, scene.queries, scene.database)
    assert labels.matrix.toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    one = described(scene.database, [0, 1, 4, 6])  # distances 1, 4, 6, 3, 5, 2: the two positives come first
    scores = evaluate(index(one).search(one, k=4), scene, labels=labels, protocol="tb-places/pairs", descriptors=[(one, one)], samples=20)
    assert scores.metrics["AP"].value == pytest.approx(1)
    one = described(scene.database, [0, 3, 1, 6])  # distances 3, 1, 6, 2, 3, 5: the positives are two of the third and the fifth
    scores = evaluate(index(one).search(one, k=4), scene, labels=labels, protocol="tb-places/pairs", descriptors=[(one, one)], samples=20)
    # 1: wrong; 2: wrong; 3: a positive and a wrong one tie, 1 of 4; 5: 2 of 5.
    assert scores.metrics["AP"].value == pytest.approx(1 / 2 * 1 / 4 + 1 / 2 * 2 / 5)


@pytest.mark.parametrize("seed", range(5))
def test_the_pairs_of_one_set_are_those_of_the_authors_script(tmp_path, seed):
    """pdist in float64, rounded to float16, negated; the pairs i < j once are the same number as each pair twice."""
    garden(tmp_path, "R17", 30)
    (scene,) = read_gcl(tmp_path / "R17.json", dataset="tb-places", sizes="ignore")
    random = np.random.default_rng(seed)
    sim = (random.random(30 * 29 // 2) < 0.1).astype(np.uint8)
    labels = read_labels(truth_file(tmp_path / "R17_similarity.h5", sim=sim[None]), scene.queries, scene.database)
    features = random.normal(size=(30, 2)).astype(np.float32)
    expected = average_precision_score(sim, -np.float16(pdist(features)).astype(np.float64))
    one = described(scene.database, features)
    scores = evaluate(index(one).search(one, k=26), scene, labels=labels, protocol="tb-places/pairs", descriptors=[(one, one)], samples=20)
    assert scores.metrics["AP"].value == pytest.approx(expected, abs=1e-12)
    with_single = evaluate(index(one).search(one, k=26), scene, labels=labels, protocol="graded/0.5", descriptors=[(one, one)], samples=20)
    assert with_single.metrics["AP"].value != scores.metrics["AP"].value  # float16 has ties


def test_sizes_are_those_of_the_benchmark_or_it_is_said(tmp_path):
    garden(tmp_path, "W17", 3)
    garden(tmp_path, "W18", 2)
    said = r"W17\.json: the test split of tb-places \(W17\) must have 10,948 database images; found 3"
    for options in ({}, {"database": "W17.json", "queries": "W18.json"}):
        with pytest.raises(InvalidInputError, match=said):
            read_gcl(tmp_path, dataset="tb-places", **options)
        with pytest.raises(InvalidInputError, match=said):
            draft_gcl(tmp_path, dataset="tb-places", **options)
    with pytest.warns(CovisWarning, match=r"W18\.json.*must have 23,043"), pytest.warns(CovisWarning, match=said):
        read_gcl(tmp_path, dataset="tb-places", sizes="warn")
    with pytest.raises(InvalidInputError, match=r"sizes must be one of stop, warn, ignore; got 'no'"):
        read_gcl(tmp_path, dataset="tb-places", sizes="no")
    (tmp_path / "W18.json").rename(tmp_path / "mine.json")
    assert read_gcl(tmp_path / "mine.json", dataset="tb-places")[0].name == "mine"


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_the_town_goes_through_its_layout(town, tmp_path, files):
    """Poses come back; positions, headings, depth and the rest are lost, and names begin with their side."""
    written = write_gcl(town, tmp_path, dataset="tb-places", files=files)
    for path, scene in zip(written, town, strict=True):
        (found,) = read_gcl(path, dataset="tb-places", missing="ignore" if files == "none" else "stop")
        assert found.name == scene.name
        for mine, theirs, side in ((found.database, scene.database, "database"), (found.queries, scene.queries, "query")):
            np.testing.assert_allclose(mine.pose, theirs.pose, atol=1e-9)
            begun = [name if name.startswith(f"{side}/") or files == "none" else f"{side}/{name}" for name in theirs.names]
            assert list(mine.names) == begun
            assert mine.xy is None
    both = Scene("lawn", "test", town[0].database, town[0].database)
    (alone,) = write_gcl([both], tmp_path, dataset="tb-places", files=files)
    assert alone == tmp_path / "lawn.json"
    row = json.loads(alone.read_text())["poses"][0]
    np.testing.assert_allclose(row[:3], town[0].database.pose[0, :3, 3])
    assert np.linalg.norm(row[3:]) == pytest.approx(1)


def test_ground_truth_is_written_as_the_authors_have_it(town, tmp_path):
    """Condensed, binary, one row, under `sim`: what TB-Places' code flattens and hands to squareform."""
    both = Scene("lawn", "test", town[0].database, town[0].database)
    labels = label_by_distance(both.queries, both.database, half=8, decay="step")
    path = write_labels(labels, tmp_path / "lawn_similarity.h5", key="sim", condensed=True)
    n = len(both.database)
    with h5py.File(path) as file:
        assert file["sim"].shape == (1, n * (n - 1) // 2)
    back = read_labels(path, both.queries, both.database)
    assert (back.matrix != labels.matrix).nnz == 0
    assert back.parameters["key"] == "sim"


def test_one_command_scores_the_files_as_they_are(asked, tmp_path):
    _, pair = asked
    truth_file(tmp_path / "W18_W17_gt.h5", fov=np.array([[0.5, 0.8, 0.0], [0.3, 0.2, 0.5]]), sim=np.array([[1, 1, 0], [0, 0, 1]]))
    np.save(tmp_path / "net_distances.npy", np.abs(np.subtract.outer(pair[0].vectors[:, 0], pair[1].vectors[:, 0])).astype(np.float16))
    options = [
        "--layout",
        "gcl",
        "--read",
        "dataset=tb-places",
        "--read",
        "database=W17.json",
        "--read",
        "queries=W18.json",
        "--read",
        "sizes=ignore",
    ]
    for key, recall, precision in (("", 0, 1 / 3), (":sim", 1, 1)):
        out = tmp_path / f"scores{key.strip(':')}.json"
        arguments = ["evaluate", tmp_path, *options, "--labels", f"{tmp_path}/W18_W17_gt.h5{key}", "--protocol", "tb-places/gcl"]
        result = CliRunner().invoke(app, [*map(str, arguments), "--rankings", str(tmp_path / "net_distances.npy"), "--out", str(out)])
        assert result.exit_code == 0, result.output + repr(result.exception)
        assert f"AP over all pairs, of the distances as they are stored (float16): {precision:.6f}" in result.stderr
        scores = Scores.load(out)
        assert scores.metrics["recall@1"].value == recall
        assert scores.history["made"]["AP of the stored distances"] == pytest.approx(precision)


def test_one_command_scores_the_authors_features(tmp_path):
    """What their test.py leaves, float32 in the order of the index, against the condensed labels."""
    garden(tmp_path, "W17", 30)
    random = np.random.default_rng(0)
    features, sim = random.normal(size=(30, 4)).astype(np.float32), (random.random(435) < 0.1).astype(np.uint8)
    np.save(tmp_path / "w17.npy", features)
    truth_file(tmp_path / "W17_similarity.h5", sim=sim[None])
    options = ["--layout", "gcl", "--read", "dataset=tb-places", "--read", "sizes=ignore", "--descriptors", f"{tmp_path}/w17.npy"]
    options += [
        "--labels",
        f"{tmp_path}/W17_similarity.h5",
        "--protocol",
        "tb-places/pairs",
        "--samples",
        "20",
        "--out",
        f"{tmp_path}/s.json",
    ]
    with pytest.warns(CovisWarning, match=r"w17\.npy has no names"):
        result = CliRunner().invoke(app, ["evaluate", f"{tmp_path}/W17.json", *options])
    assert result.exit_code == 0, result.output + repr(result.exception)
    expected = average_precision_score(sim, -np.float16(pdist(features)).astype(np.float64))
    assert Scores.load(tmp_path / "s.json").metrics["AP"].value == pytest.approx(expected, abs=1e-12)


def test_where_labels_are(tmp_path):
    pair = [Scene(name, "test", Images("r", ["d.jpg"]), Images("r", ["q.jpg"])) for name in ("cph", "sf")]
    for name in ("cph", "sf"):
        truth_file(tmp_path / f"{name}_gt.h5", sim=np.array([[1]]), fov=np.array([[0.4]]))
    assert label_files(tmp_path, pair) == [tmp_path / "cph_gt.h5", tmp_path / "sf_gt.h5"]
    assert [one.matrix[0, 0] for one in load_labels(tmp_path, pair)] == [0.4, 0.4]
    assert [one.matrix[0, 0] for one in load_labels(f"{tmp_path}:sim", pair)] == [1, 1]
    assert label_files(f"{tmp_path}/cph_gt.h5:sim", pair[:1]) == [tmp_path / "cph_gt.h5"]
    load_labels(tmp_path / "cph_gt.h5", pair[:1])[0].save(tmp_path / "cph.npz")
    assert label_files(tmp_path, pair) == [tmp_path / "cph.npz", tmp_path / "sf_gt.h5"]
    with pytest.raises(InvalidInputError, match=r"A key behind a colon is one of an \.h5.*Leave out :sim"):
        load_labels(f"{tmp_path}/cph.npz:sim", pair[:1])
    with pytest.raises(InvalidInputError, match=r"must hold the key 'psi'; it holds fov, sim"):
        load_labels(f"{tmp_path}/cph_gt.h5:psi", pair[:1])
    with pytest.raises(MissingFileError):
        load_labels(tmp_path / "none", pair)
