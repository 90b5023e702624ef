"""Descriptors: a folder that comes back, and is refused where it is damaged."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError

NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5)


def made(n=7, dim=3, dtype="float32", model="m"):
    vectors = np.random.default_rng(n).normal(size=(n, dim)).astype(dtype)
    return Descriptors(vectors, tuple(f"{i}.png" for i in range(n)), model, {"extracted": {"height": 480}})


def same(a, b):
    return (
        np.array_equal(a.vectors, b.vectors)
        and a.vectors.dtype == b.vectors.dtype
        and (a.names, a.model, dict(a.history)) == (b.names, b.model, dict(b.history))
    )


@given(names=NAMES, dtype=st.sampled_from(["float32", "float16"]), dim=st.integers(1, 4))
def test_descriptors_come_back(tmp_path_factory, names, dtype, dim):
    vectors = np.arange(len(names) * dim, dtype=dtype).reshape(len(names), dim)
    before = Descriptors(vectors, names, "ü model", {"extracted": {"a": [1, "#"]}})
    path = before.save(tmp_path_factory.mktemp("d") / "x")
    assert same(Descriptors.load(path), before)


def test_a_loaded_folder_is_a_memory_map(tmp_path):
    loaded = Descriptors.load(made().save(tmp_path / "d"))
    assert isinstance(loaded.vectors, np.memmap)
    assert not loaded.vectors.flags.writeable


def test_damaged_folders_are_refused(tmp_path, refuses_every_cut):
    path = made(50).save(tmp_path / "d")
    refuses_every_cut(path / "vectors.npy", lambda: Descriptors.load(path))
    refuses_every_cut(path / "header.json", lambda: Descriptors.load(path), harmless=1)


@pytest.mark.parametrize("change", [
    {"version": 9}, {"format": "covis-labels"}, {"dim": 4}, {"dtype": "float64"}, {"names": ["a"]}, {"names": 5}, {"names": None},
    {"history": None}, {"history": 3}, {"names": ["x"] * 7},
])  # fmt: skip
def test_headers_that_do_not_fit_are_refused(tmp_path, change):
    path = made().save(tmp_path / "d")
    header = json.loads((path / "header.json").read_text())
    assert (header["format"], header["version"]) == ("covis-descriptors", 1)
    (path / "header.json").write_text(json.dumps(header | change))
    with pytest.raises(DamagedFileError, match="d"):
        Descriptors.load(path)
    for key in ("names", "dim", "dtype", "model", "history"):
        (path / "header.json").write_text(json.dumps({k: v for k, v in header.items() if k != key}))
        with pytest.raises(DamagedFileError, match=key):
            Descriptors.load(path)


def test_foreign_vectors_are_refused(tmp_path):
    path = made().save(tmp_path / "d")
    np.save(path / "vectors.npy", np.array([{}], dtype=object))  # numpy pickles objects unasked
    with pytest.raises(DamagedFileError, match=r"vectors\.npy"):
        Descriptors.load(path)
    with (path / "vectors.npy").open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(DamagedFileError, match="d"):
        Descriptors.load(path)
    np.save(path / "vectors.npy", np.zeros((7, 3)))
    with pytest.raises(DamagedFileError, match="float64"):
        Descriptors.load(path)
    (path / "vectors.npy").unlink()
    with pytest.raises(MissingFileError, match=r"vectors\.npy"):
        Descriptors.load(path)
    with pytest.raises(MissingFileError, match=r"header\.json"):
        Descriptors.load(tmp_path / "nowhere")


def test_nothing_is_overwritten_unasked(tmp_path, full_disk):
    path = made().save(tmp_path / "d")
    with pytest.raises(OutputExistsError):
        made(3).save(path)
    with full_disk(4000), pytest.raises(OutputFailedError):
        made(5000).save(path, overwrite=True)
    assert same(Descriptors.load(path), made())
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
    made(3).save(path, overwrite=True)
    assert len(Descriptors.load(path)) == 3


@pytest.mark.parametrize(("vectors", "names", "said"), [
    (np.zeros((2, 2)), ("a", "b"), "float64"),
    (np.zeros(2, dtype=np.float32), ("a", "b"), r"\(2,\)"),
    (np.zeros((2, 2), dtype=np.float32), ("a",), "1 names for 2 rows"),
    (np.zeros((2, 2), dtype=np.float32), ("a", "a"), "'a' stands twice"),
    (np.zeros((40000, 1), dtype=np.float32), (*map(str, range(39999)), "39998"), "'39998' stands twice"),
])  # fmt: skip
def test_shapes_and_names_are_checked(vectors, names, said):
    with pytest.raises(InvalidInputError, match=said):
        Descriptors(vectors, names, "m")


@pytest.mark.parametrize("row", [0, 4095, 4096, 4999])
def test_a_vector_that_is_not_finite_is_named(row):
    vectors = np.zeros((5000, 2), dtype=np.float32)
    vectors[row, 1] = np.nan
    with pytest.raises(InvalidInputError, match=rf" {row}\.png "):
        Descriptors(vectors, tuple(f"{i}.png" for i in range(5000)), "m").check_finite()


def test_blocks_are_all_rows_in_order():
    d = made(10)
    assert [len(block) for block in d.blocks(4)] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(list(d.blocks(4))), d.vectors)
