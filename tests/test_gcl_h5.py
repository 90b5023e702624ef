"""GCL's ground truth in HDF5: files made by h5py alone, both shapes and all number types, damage, and what is in memory."""

import builtins
import contextlib
import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from scipy.spatial.distance import squareform

from covis.datasets.gcl.h5 import BLOCK, read_labels, write_labels
from covis.errors import (
    CovisError,
    DamagedFileError,
    InvalidInputError,
    MissingExtraError,
    MissingFileError,
    OutputExistsError,
    OutputFailedError,
)
from covis.images import Images
from covis.labels import Labels


def images(count, name="q", root="set"):
    return Images(root, [f"{name}{row}.jpg" for row in range(count)])


def stored(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def labelled(matrix, *, of_one_set=False):
    matrix = np.asarray(matrix, dtype=float)
    queries, database = images(matrix.shape[0]), images(matrix.shape[1], "q" if of_one_set else "d")
    excluded = sparse.csr_array(np.eye(len(matrix), dtype=bool)) if of_one_set else None
    return Labels(sparse.csr_array(matrix), queries.names, database.names, rule="view", excluded=excluded), queries, database


def symmetric(n, seed=0, share=0.4):
    random = np.random.default_rng(seed)
    matrix = np.triu(random.random((n, n)) * (random.random((n, n)) < share), 1)
    return matrix + matrix.T


MATRIX = np.array([[0, 0.25, 1], [0.5, 0, 0]])


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 6), (6, 1)])
def test_dense_files_are_read_in_each_of_their_shapes(tmp_path, shape):
    path = stored(tmp_path / "cph_gt.h5", fov=MATRIX.reshape(shape))
    queries, database = images(2), images(3, "d")
    labels = read_labels(path, queries, database)
    np.testing.assert_array_equal(labels.matrix.toarray(), MATRIX)
    assert (labels.rule, labels.parameters) == ("gcl-h5", {"key": "fov", "file": "cph_gt.h5"})
    assert (labels.query_names, labels.database_names) == (queries.names, database.names)
    assert labels.excluded.nnz == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64, bool])
def test_every_type_of_number_is_read_as_the_number_it_is(tmp_path, dtype):
    matrix = (np.linspace(0, 1, 12).reshape(3, 4) if np.dtype(dtype).kind == "f" else np.eye(3, 4)).astype(dtype)
    labels = read_labels(stored(tmp_path / "a.h5", sim=matrix), images(3), images(4, "d"), key="sim")
    assert labels.matrix.dtype == np.float64
    np.testing.assert_array_equal(labels.matrix.toarray(), matrix.astype(np.float64))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("as_row", [False, True])
def test_condensed_files_are_what_squareform_has(tmp_path, n, as_row):
    matrix = symmetric(n)
    flat = squareform(matrix)
    path = stored(tmp_path / "W17_similarity.h5", sim=flat[None] if as_row else flat)
    both = images(n)
    labels = read_labels(path, both, both, key="sim")
    np.testing.assert_array_equal(labels.matrix.toarray(), matrix)
    np.testing.assert_array_equal(labels.excluded.toarray(), np.eye(n, dtype=bool))


def test_a_dense_file_of_one_set_excludes_an_image_with_itself(tmp_path):
    matrix = symmetric(4) + np.eye(4)
    labels = read_labels(stored(tmp_path / "a.h5", fov=matrix), images(4), images(4))
    np.testing.assert_array_equal(labels.matrix.toarray(), matrix - np.eye(4))
    np.testing.assert_array_equal(labels.excluded.toarray(), np.eye(4, dtype=bool))


def test_empty_sets(tmp_path):
    for shape in ((0, 0), (0, 3), (3, 0)):
        path = stored(tmp_path / "a.h5", fov=np.zeros(shape))
        assert read_labels(path, images(shape[0]), images(shape[1], "d")).matrix.shape == shape
        labels, queries, database = labelled(np.zeros(shape))
        written = write_labels(labels, tmp_path / "b.h5", also_binary=0.5, overwrite=True)
        assert read_labels(written, queries, database, key="sim").matrix.shape == shape


def test_blocks_do_not_show(tmp_path, monkeypatch):
    matrix = np.random.default_rng(1).random((37, 23)) * (np.random.default_rng(2).random((37, 23)) < 0.3)
    paths = [stored(tmp_path / "a.h5", fov=matrix), stored(tmp_path / "b.h5", fov=matrix.reshape(-1))]
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("fov", data=matrix, chunks=(5, 4), compression="gzip")
    labels, queries, database = labelled(matrix)
    square = symmetric(30)
    flat = stored(tmp_path / "d.h5", fov=squareform(square))
    for block in (1, 7, 23, 100, 160, 10**6):
        monkeypatch.setattr("covis.datasets.gcl.h5.BLOCK", block)
        monkeypatch.setattr("covis.datasets.gcl.h5.CHUNK", block)
        written = write_labels(labels, tmp_path / "e.h5", overwrite=True)
        for path in (*paths, tmp_path / "c.h5", written):
            np.testing.assert_array_equal(read_labels(path, queries, database).matrix.toarray(), matrix)
        np.testing.assert_array_equal(read_labels(flat, images(30), images(30)).matrix.toarray(), square)
        written = write_labels(labelled(square, of_one_set=True)[0], tmp_path / "f.h5", condensed=True, overwrite=True)
        with h5py.File(written) as file:
            np.testing.assert_array_equal(file["fov"][:], squareform(square)[None])


@given(
    matrix=arrays.arrays(
        float, arrays.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0.0, 0.0, 0.5]) | st.floats(0, 1)
    ),
    compression=st.sampled_from(["gzip", "none"]),
)
def test_what_is_written_is_read(tmp_path_factory, matrix, compression):
    labels, queries, database = labelled(matrix)
    path = write_labels(labels, tmp_path_factory.mktemp("h") / "a.h5", compression=compression)
    found = read_labels(path, queries, database)
    assert (found.matrix != labels.matrix).nnz == 0
    assert found.matrix.nnz == labels.matrix.nnz
    assert (found.query_names, found.database_names) == (labels.query_names, labels.database_names)


@given(n=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_written_condensed_is_read(tmp_path_factory, n, seed):
    labels, queries, _ = labelled(symmetric(n, seed), of_one_set=True)
    path = write_labels(labels, tmp_path_factory.mktemp("h") / "a.h5", condensed=True, also_binary=0.5)
    found = read_labels(path, queries, queries)
    assert (found.matrix != labels.matrix).nnz == (found.excluded != labels.excluded).nnz == 0
    with h5py.File(path) as file:  # as GCL reads it
        np.testing.assert_array_equal(squareform(file["fov"][:].flatten()), labels.matrix.toarray())
        np.testing.assert_array_equal(squareform(file["sim"][:].flatten()), labels.matrix.toarray() >= 0.5)
        assert file["fov"].shape == (1, n * (n - 1) // 2)


def test_what_is_written_is_what_gcl_reads(tmp_path):
    """Rows of `fov` and `sim`, by plain h5py."""
    labels, _, _ = labelled(MATRIX)
    path = write_labels(labels, tmp_path / "cph_gt.h5", also_binary=0.5)
    with h5py.File(path) as file:
        assert sorted(file) == ["fov", "sim"]
        assert file["fov"].dtype == np.float64
        assert file["sim"].dtype == np.uint8
        np.testing.assert_array_equal(file["fov"][1, :], MATRIX[1])
        np.testing.assert_array_equal(file["sim"][:], [[0, 0, 1], [1, 0, 0]])
        assert file["fov"].compression == "gzip"
        assert not file["fov"].id.get_create_plist().get_obj_track_times()  # or the same labels would not give the same bytes
    again = write_labels(labels, tmp_path / "again.h5", also_binary=0.5)
    assert again.read_bytes() == path.read_bytes()


def test_half_is_half_only_in_float32(tmp_path):
    almost = 0.49999999999999994
    labels, queries, database = labelled([[almost, 1 / 3]])
    exact = read_labels(write_labels(labels, tmp_path / "a.h5"), queries, database)
    assert exact.matrix.data.tolist() == [almost, 1 / 3]
    rounded = read_labels(write_labels(labels, tmp_path / "b.h5", dtype="float32"), queries, database)
    assert rounded.matrix.data.tolist() == [0.5, float(np.float32(1 / 3))]


def test_what_is_zero_takes_no_space(tmp_path):
    """2,000 x 20,000 values, 320 MB as they stand, of which 2,000 are above 0 in 20 rows."""
    matrix = sparse.csr_array((np.ones(2000), (np.arange(2000) % 20, np.arange(2000) * 7)), shape=(2000, 20000))
    queries, database = images(2000), images(20000, "d")
    labels = Labels(matrix, queries.names, database.names, rule="view")
    path = write_labels(labels, tmp_path / "a.h5")
    assert path.stat().st_size < 200_000
    with h5py.File(path) as file:
        assert file["fov"].shape == (2000, 20000)
        assert file["fov"][19, :].sum() == 100


@pytest.mark.parametrize(("shape", "chunks"), [((3000, 3000), (10, 3000)), ((9_000_000,), None)])
def test_memory_is_bounded_whatever_the_file_holds(tmp_path, shape, chunks):
    """72 MB of values, never in memory at once: 4 MB of them and what a look at them takes."""
    rows = np.arange(0, 3000, 10)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = file.create_dataset("fov", shape=shape, dtype=float, chunks=chunks)
        for row in rows.tolist():
            made[(row, row) if len(shape) == 2 else row * 3001] = 0.5
    queries, database = images(3000), images(3000, "d")
    tracemalloc.start()
    labels = read_labels(tmp_path / "a.h5", queries, database)
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    write_labels(labels, tmp_path / "b.h5")
    _, writing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels.matrix.nnz == 300
    assert labels.matrix.diagonal()[rows].tolist() == [0.5] * 300
    assert reading < 3.5 * 8 * BLOCK < 72e6 / 4
    assert writing < 8 * BLOCK


BAD = [np.nan, 1.5, -0.1, np.inf]


@pytest.mark.parametrize("value", BAD)
def test_values_outside_are_named(tmp_path, value, monkeypatch):
    monkeypatch.setattr("covis.datasets.gcl.h5.BLOCK", 3)
    matrix = MATRIX.copy()
    matrix[1, 2] = value
    with pytest.raises(InvalidInputError, match=r"a\.h5: 'fov' must hold numbers in \[0, 1\]; row 1 \(q1\.jpg\), column 2 \(d2\.jpg\)"):
        read_labels(stored(tmp_path / "a.h5", fov=matrix), images(2), images(3, "d"))
    flat = squareform(symmetric(5))
    flat[7] = value  # pairs 01 02 03 04 12 13 14 23
    with pytest.raises(InvalidInputError, match=r"row 2 \(q2\.jpg\), column 3 \(q3\.jpg\)"):
        read_labels(stored(tmp_path / "b.h5", fov=flat), images(5), images(5))
    with pytest.raises(InvalidInputError, match=r"holds 2\."):
        read_labels(stored(tmp_path / "c.h5", sim=np.array([[2]], dtype=np.uint8)), images(1), images(1, "d"), key="sim")


def test_a_key_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    path = stored(tmp_path / "a.h5", sim=MATRIX, fov=MATRIX)
    with pytest.raises(InvalidInputError, match=r"a\.h5 must hold the key 'psi'; it holds fov, sim"):
        read_labels(path, images(2), images(3, "d"), key="psi")
    for key in ("", "/", ".", "a/b", "x\0y"):
        with pytest.raises(InvalidInputError, match="must hold the key"):
            read_labels(path, images(2), images(3, "d"), key=key)
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    with pytest.raises(InvalidInputError, match="it holds none"):
        read_labels(tmp_path / "b.h5", images(2), images(3, "d"))


def test_what_is_no_array_of_numbers_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("group")
        file["text"] = np.array([b"a", b"b"])
        file["words"] = ["a", "b"]
        file["complex"] = np.zeros((2, 3), dtype=complex)
        file["parts"] = np.zeros(2, dtype=[("a", float), ("b", int)])
        file["type"] = np.dtype("f8")
        file["empty"] = h5py.Empty("f8")
        file["link"] = h5py.SoftLink("/nowhere")
    for key in ("group", "text", "words", "complex", "parts", "type", "empty"):
        with pytest.raises(InvalidInputError, match=f"'{key}' must be an array of numbers"):
            read_labels(tmp_path / "a.h5", images(2), images(3, "d"), key=key)
    with pytest.raises(DamagedFileError, match=r"a\.h5"):
        read_labels(tmp_path / "a.h5", images(2), images(3, "d"), key="link")


@pytest.mark.parametrize(("shape", "sides", "said"), [
    ((2, 3), (2, 4), "2 queries x 4 database images; its shape is"),
    ((3, 2), (2, 3), "sides exchanged"),
    ((2, 2, 3), (4, 3), "its shape is"),
    ((), (1, 2), "its shape is"),
    ((4, 3), (2, 6), "its shape is"),
    ((6,), (4, 5), "4 queries x 5"),
    ((5,), (4, 4), "4 queries x 4 database images, or 6 condensed"),
])  # fmt: skip
def test_another_count_is_refused(tmp_path, shape, sides, said):
    path = stored(tmp_path / "a.h5", fov=np.zeros(shape))
    with pytest.raises(InvalidInputError, match=said):
        read_labels(path, images(sides[0]), images(sides[1]))


def test_a_condensed_file_is_of_one_set(tmp_path):
    path = stored(tmp_path / "a.h5", sim=squareform(symmetric(4)))
    for other in (images(4, "d"), images(4, root="elsewhere"), images(4).select([1, 0, 2, 3])):
        with pytest.raises(InvalidInputError, match="both sides must be the same images"):
            read_labels(path, images(4), other, key="sim")


def test_labels_that_a_condensed_file_cannot_hold_are_refused(tmp_path):
    square = symmetric(4)
    turned = square.copy()
    turned[0, 1] = 0.123
    with_self = Labels(sparse.csr_array(square + np.eye(4)), images(4).names, images(4).names, rule="view")
    for labels, said in (
        (labelled(square)[0], "one set against itself"),
        (labelled(turned, of_one_set=True)[0], "must be symmetric; that of q0.jpg and q1.jpg"),
        (with_self, "q0.jpg does"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            write_labels(labels, tmp_path / "a.h5", condensed=True)
    assert not (tmp_path / "a.h5").exists()


def test_options_are_checked_and_nothing_is_overwritten_unasked(tmp_path):
    labels, queries, database = labelled(MATRIX)
    for options, said in (
        ({"key": "a/b"}, "without '/'"), ({"key": ""}, "without '/'"), ({"key": "sim", "also_binary": 0.5}, "'sim' beside"),
        ({"dtype": "float16"}, "float16"), ({"compression": "lzf"}, "lzf"), ({"also_binary": 0}, r"\(0, 1\]"),
    ):  # fmt: skip
        with pytest.raises(InvalidInputError, match=said):
            write_labels(labels, tmp_path / "a.h5", **options)
    assert list(tmp_path.iterdir()) == []
    path = write_labels(labels, tmp_path / "a.h5")
    with pytest.raises(OutputExistsError):
        write_labels(labelled(MATRIX / 2)[0], path)
    np.testing.assert_array_equal(read_labels(path, queries, database).matrix.toarray(), MATRIX)
    write_labels(labelled(MATRIX / 2)[0], path, overwrite=True)
    np.testing.assert_array_equal(read_labels(path, queries, database).matrix.toarray(), MATRIX / 2)


def test_damaged_files_are_refused(tmp_path, refuses_every_cut, never_wrong):
    random = np.random.default_rng(3)
    labels, queries, database = labelled(random.random((20, 15)) * (random.random((20, 15)) < 0.4))
    for compression in ("gzip", "none"):
        path = write_labels(labels, tmp_path / f"{compression}.h5", compression=compression)
        refuses_every_cut(path, lambda path=path: read_labels(path, queries, database))
        never_wrong(path, lambda path=path: read_labels(path, queries, database), lambda found: (found.matrix != labels.matrix).nnz == 0)


@given(place=st.integers(0, 10**4), value=st.integers(1, 255))
def test_damage_in_files_without_checksums_is_never_a_foreign_traceback(tmp_path_factory, place, value):
    path = stored(tmp_path_factory.mktemp("h") / "a.h5", fov=MATRIX, sim=MATRIX > 0)
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= value
    path.write_bytes(data)
    with contextlib.suppress(CovisError):
        read_labels(path, images(2), images(3, "d"))


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 1000])
def test_foreign_files_are_refused(tmp_path, data):
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"a\.h5 must be a whole HDF5 file"):
        read_labels(tmp_path / "a.h5", images(2), images(3, "d"))
    with pytest.raises(MissingFileError, match=r"nowhere\.h5"):
        read_labels(tmp_path / "nowhere.h5", images(2), images(3, "d"))
    with pytest.raises(MissingFileError):
        read_labels(tmp_path, images(2), images(3, "d"))


def test_a_full_disk_leaves_nothing(tmp_path, full_disk):
    random = np.random.default_rng(4)
    labels, _, _ = labelled(random.random((200, 200)))
    for compression in ("gzip", "none"):
        with full_disk(100_000), pytest.raises(OutputFailedError, match=r"a\.h5 could not be written"):
            write_labels(labels, tmp_path / "a.h5", compression=compression)
        assert list(tmp_path.iterdir()) == []


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    path = stored(tmp_path / "a.h5", fov=MATRIX)
    real = builtins.__import__

    def absent(name, *arguments, **options):
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    labels, queries, database = labelled(MATRIX)
    for call in (lambda: read_labels(path, queries, database), lambda: write_labels(labels, tmp_path / "b.h5")):
        with pytest.raises(MissingExtraError, match=r"pip install covis\[h5\]"):
            call()
    assert not (tmp_path / "b.h5").exists()
