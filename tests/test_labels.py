"""Labels: what is stored comes back, thresholds and their ties, and pairs that are no pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from covis.datasets import read_7scenes
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError
from covis.files import load_arrays, save_arrays
from covis.images import Images
from covis.labelling import LABEL_RULES, label_by_distance, label_by_surface, label_by_view
from covis.labels import Labels, self_pairs

NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)


def labelled(matrix, excluded=None, **options):
    matrix = np.asarray(matrix, dtype=float)
    queries, database = (tuple(f"{side}{i}" for i in range(n)) for side, n in zip("qd", matrix.shape, strict=True))
    mask = None if excluded is None else sparse.csr_array(np.asarray(excluded, dtype=bool))
    return Labels(sparse.csr_array(matrix), queries, database, rule="by hand", excluded=mask, **options)


def same(a, b):
    return (
        (a.matrix != b.matrix).nnz == 0
        and a.matrix.dtype == b.matrix.dtype
        and (a.excluded != b.excluded).nnz == 0
        and (a.query_names, a.database_names, a.rule, dict(a.parameters)) == (b.query_names, b.database_names, b.rule, dict(b.parameters))
    )


@st.composite
def any_labels(draw):
    queries, database = draw(st.lists(NAME, max_size=4)), draw(st.lists(NAME, max_size=4))
    shape = (len(queries), len(database))
    matrix = draw(arrays.arrays(float, shape, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 1e-300]) | st.floats(0, 1)))
    excluded = draw(arrays.arrays(bool, shape))
    parameters = draw(st.dictionaries(st.text(), st.integers() | st.text(st.characters(exclude_categories=["Cs"])), max_size=2))
    return Labels(sparse.csr_array(matrix), queries, database, rule=draw(NAME), parameters=parameters, excluded=sparse.csr_array(excluded))


@given(labels=any_labels())
def test_labels_come_back_and_give_the_same_bytes(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("l")
    path = labels.save(folder / "a.npz")
    found = Labels.load(path)
    assert same(found, labels)
    assert found.save(folder / "b.npz").read_bytes() == path.read_bytes()


def test_damaged_labels_are_refused(tmp_path, refuses_every_cut, never_wrong):
    labels = labelled(np.random.default_rng(0).random((9, 8)), np.eye(9, 8))
    path = labels.save(tmp_path / "a.npz")
    refuses_every_cut(path, lambda: Labels.load(path))
    never_wrong(path, lambda: Labels.load(path), lambda found: same(found, labels))


@pytest.mark.parametrize("change", [
    {"similarity_indices": np.array([9, 9])},
    {"similarity_indptr": np.array([0, 5, 2])},
    {"similarity_data": np.array([2.0, 0.5])},
    {"similarity_data": np.array(["x", "y"])},
    {"similarity_data": np.zeros((2, 2))},
    {"excluded_indptr": np.array([0])},
    {"names_queries": np.frombuffer(b"\xff", dtype=np.uint8)},
    {"names_queries": np.frombuffer(b"one", dtype=np.uint8)},
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(tmp_path, change):
    path = labelled([[0.5, 0], [0, 0.7]]).save(tmp_path / "a.npz")
    header, stored = load_arrays(path, kind="covis-labels", version=1, names=())
    save_arrays(path, header, stored | change)
    with pytest.raises(DamagedFileError, match=r"a\.npz.*Label again"):
        Labels.load(path)


def test_headers_are_checked(tmp_path):
    path = labelled([[0.5]]).save(tmp_path / "a.npz")
    header, stored = load_arrays(path, kind="covis-labels", version=1, names=())
    for change in ({"version": 2}, {"format": "covis-rankings"}):
        save_arrays(path, header | change, stored)
        with pytest.raises(DamagedFileError, match=r"a\.npz"):
            Labels.load(path)
    for key in ("rule", "parameters"):
        save_arrays(path, {k: v for k, v in header.items() if k != key}, stored)
        with pytest.raises(DamagedFileError, match=key):
            Labels.load(path)
    with pytest.raises(MissingFileError):
        Labels.load(tmp_path / "none.npz")


def test_nothing_is_overwritten_unasked(tmp_path, full_disk):
    path = labelled([[0.5]]).save(tmp_path / "a.npz")
    with pytest.raises(OutputExistsError):
        labelled([[0.6]]).save(path)
    with full_disk(3000), pytest.raises(OutputFailedError):
        labelled(np.ones((100, 100))).save(path, overwrite=True)
    assert same(Labels.load(path), labelled([[0.5]]))
    assert same(Labels.load(labelled([[0.6]]).save(path, overwrite=True)), labelled([[0.6]]))
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_cannot_be_stored_is_said(tmp_path):
    with pytest.raises(InvalidInputError, match="header"):
        labelled([[0.5]], parameters={"x": float("nan")}).save(tmp_path / "a.npz")
    with pytest.raises(InvalidInputError, match="one line"):
        Labels(sparse.csr_array([[0.5]]), ("a\nb",), ("c",), rule="x").save(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan, np.inf])
def test_a_similarity_out_of_range_is_named(value):
    with pytest.raises(InvalidInputError, match="q1 and d2"):
        labelled([[0, 0.5, 1], [0.5, 0, value]])


def test_shapes_must_fit():
    with pytest.raises(InvalidInputError, match=r"\(1, 1\).*\(1, 2\)"):
        Labels(sparse.csr_array([[0.5, 0.5]]), ("q",), ("d",), rule="x")
    with pytest.raises(InvalidInputError, match="excluded"):
        Labels(sparse.csr_array([[0.5]]), ("q",), ("d",), rule="x", excluded=sparse.csr_array((2, 1), dtype=bool))


def test_stored_zeros_and_repeats_mean_what_they_say():
    matrix = sparse.csr_array((np.array([0.0, 0.25, 0.25]), np.array([0, 1, 1]), np.array([0, 3])), shape=(1, 2))
    excluded = sparse.csr_array((np.array([False]), np.array([1]), np.array([0, 1])), shape=(1, 2))
    labels = Labels(matrix, ("q",), ("a", "b"), rule="x", excluded=excluded)
    assert labels.matrix.nnz == 1
    assert labels.matrix.toarray().tolist() == [[0, 0.5]]
    assert labels.excluded.nnz == 0
    assert (matrix.nnz, excluded.nnz) == (3, 1)
    with pytest.raises(InvalidInputError, match=r"1\.2"):
        Labels(sparse.csr_array((np.array([0.6, 0.6]), np.array([1, 1]), np.array([0, 2])), shape=(1, 2)), ("q",), ("a", "b"), rule="x")


def test_arguments_are_not_written_into():
    matrix = sparse.csr_array((np.array([0.7, 0.2, 0.0]), np.array([2, 0, 1]), np.array([0, 3])), shape=(1, 3))
    excluded = sparse.csr_array((np.array([True, True]), np.array([2, 0]), np.array([0, 2])), shape=(1, 3))
    labels = Labels(matrix, ("q",), ("a", "b", "c"), rule="x", excluded=excluded)
    assert matrix.indices.tolist() == [2, 0, 1]
    assert excluded.indices.tolist() == [2, 0]
    assert labels.matrix.nnz == 0
    labels.positives(0.5)
    assert Labels(matrix, ("q",), ("a", "b", "c"), rule="x").matrix.data.tolist() == [0.2, 0.7]


def test_thresholds_and_their_ties():
    labels = labelled([[0.5, 0.49999999999999994, np.float32(0.3) + np.float32(0.2), 0.5000000001, 0.499, 0.501, 0]])
    assert labels.positives(0.5).toarray().tolist() == [[True, True, True, True, False, True, False]]
    assert labels.positives(0.5, strict=True).toarray().tolist() == [[False, False, False, False, False, True, False]]
    for wrong in (0, -1, 1.1, np.nan):
        with pytest.raises(InvalidInputError, match="threshold"):
            labels.positives(wrong)


@given(matrix=arrays.arrays(float, (4, 5), elements=st.sampled_from([0, 0.1, 0.5, 0.9, 1])), excluded=arrays.arrays(bool, (4, 5)))
def test_the_summary_counts_pairs(matrix, excluded):
    found = labelled(matrix, excluded).summary(0.5)
    kept = matrix[~excluded]
    positive = (matrix >= 0.5) & ~excluded
    assert (found.pairs, found.positive, found.soft, found.zero, found.excluded) == (
        len(kept), positive.sum(), ((kept > 0) & (kept < 0.5)).sum(), (kept == 0).sum(), excluded.sum(),
    )  # fmt: skip
    assert found.without_positive == (~positive.any(axis=1)).sum()
    assert (found.warning is None) == (2 * found.without_positive <= 4)
    assert f"{found.positive:,}" in str(found)


def test_self_pairs_are_the_same_files():
    queries, database = Images("r", ["a", "b", "c"]), Images("r", ["c", "x", "a"])
    assert self_pairs(queries, database).toarray().tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert self_pairs(queries, Images("other", ["a"])).nnz == 0


@pytest.mark.parametrize("method", ["reprojection", "voxels"])
def test_a_room_is_labelled_with_its_parameters(room, method):
    (scene,) = read_7scenes(room(), split="train")
    options = {"step": 1, "method": method}
    labels = label_by_surface(scene.queries, scene.database, **options)
    assert labels.rule == "surface"
    assert labels.parameters["method"] == method
    assert ("voxel" in labels.parameters) == (method == "voxels")
    assert (labels.excluded.toarray() == np.eye(3, dtype=bool)).all()
    assert (labels.matrix.diagonal() == 0).all()
    assert labels.matrix[0, 1] > labels.matrix[0, 2] > 0
    assert labels.query_names == scene.queries.names


def test_labelling_says_what_is_wrong(room):
    folder = room()
    (scene,) = read_7scenes(folder)
    with pytest.raises(InvalidInputError, match="'reprojection' or 'voxels'; got 'surfels'"):
        label_by_surface(scene.queries, scene.database, method="surfels")
    with pytest.raises(InvalidInputError, match="depth and pose and intrinsics"):
        label_by_surface(Images("r", ["a"]), scene.database)
    (folder / "seq-01" / "frame-000001.depth.png").write_bytes(b"x")
    with pytest.raises(DamagedFileError, match=r"frame-000001\.depth\.png"):
        label_by_surface(scene.queries, scene.database)
    (folder / "seq-01" / "frame-000001.depth.png").unlink()
    with pytest.raises(MissingFileError, match=r"frame-000001\.depth\.png"):
        label_by_surface(scene.queries, scene.database)


def test_the_table_of_rules():
    assert {"distance": label_by_distance, "surface": label_by_surface, "view": label_by_view} == LABEL_RULES
