"""Descriptors of other programs: every form that is read, what is refused, and that no row ever goes to another image."""

import json
import pickle
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from covis.descriptors import Descriptors
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.vector_files import read_vectors

DIM = 5


def scene(name: str, *, queries: int = 3, database: int = 4) -> Scene:
    sides = [Images(f"/data/{name}", [f"{side}/{side[0]}{row}_{name}.jpg" for row in range(count)]) for side, count in
             (("database", database), ("query", queries))]  # fmt: skip
    return Scene(name, "test", *sides)


SCENES = [scene("cph"), scene("sf", queries=2, database=6)]
ALL = [name for one in SCENES for side in (one.queries, one.database) for name in side.names]


def vector(name: str) -> list[float]:
    """What belongs to an image: it can be told from every other."""
    return [float(ALL.index(name)), *(float(ord(letter)) for letter in name[-10:-6])]


def table(names, dtype=np.float32):
    return np.array([vector(name) for name in names], dtype=dtype).reshape(-1, DIM)


def check(described, scenes=SCENES, dtype=np.float32):
    assert len(described) == len(scenes)
    for one, pair in zip(scenes, described, strict=True):
        for images, found in zip((one.queries, one.database), pair, strict=True):
            assert found.names == images.names
            assert found.vectors.dtype == dtype
            np.testing.assert_array_equal(found.vectors, table(images.names, dtype))
    assert len({found.model for pair in described for found in pair}) == 1
    assert described[0][0].model.startswith("foreign:")


def write_sides(folder, one, *, names=True, write=np.save, suffix=".npy"):
    folder.mkdir(parents=True, exist_ok=True)
    for side, images in (("queries", one.queries), ("database", one.database)):
        write(folder / f"{side}{suffix}", table(images.names))
        if names:
            (folder / f"{side}.txt").write_text("\n".join(images.names) + "\n")


def write_table(path, names, dtype="float32", array="descriptors", text=None):
    with h5py.File(path, "w") as file:
        file[array] = table(names, dtype)
        file["names"] = np.array([name.encode() for name in names]) if text is None else np.array(names, dtype=text)


def write_groups(path, names, dtype="float32", shape=(DIM,)):
    with h5py.File(path, "w") as file:
        for name in names:
            group = file.create_group(name)
            group["global_descriptor"] = np.array(vector(name), dtype=dtype).reshape(shape)
            group["image_size"] = [640, 480]


def test_a_folder_of_covis_is_read_as_it_is(tmp_path):
    for one in SCENES:
        for side, images in (("queries", one.queries), ("database", one.database)):
            Descriptors(table(images.names), images.names, "m", {"extracted": {"height": 4}}).save(tmp_path / one.name / side)
    found = read_vectors(tmp_path, SCENES)
    assert [one.names for pair in found for one in pair] == [side.names for one in SCENES for side in (one.queries, one.database)]
    assert (found[0][0].model, found[0][0].history) == ("m", {"extracted": {"height": 4}})


def test_a_file_a_side_of_each_scene(tmp_path):
    for one in SCENES:
        write_sides(tmp_path / one.name, one)
    found = read_vectors(tmp_path, SCENES)
    check(found)
    assert isinstance(found[0][0].vectors, np.memmap), "rows in order are not copied"
    assert found[0][0].history["foreign"] == {"file": "queries.npy", "found": "by name", "dtype": "float32", "others": 0}


def test_rows_without_names_are_a_scenes_images_in_their_order_and_that_is_said(tmp_path):
    write_sides(tmp_path / "cph", SCENES[0], names=False)
    with pytest.warns(CovisWarning, match=r"has no names") as said:
        check(read_vectors(tmp_path, SCENES[:1]), SCENES[:1])
    assert "(queries.txt); its 3 rows are taken to be the queries of scene 'cph' in the order that the data" in str(said[0].message)
    assert len(said) == 2
    np.save(tmp_path / "cph" / "queries.npy", table(ALL[:2]))
    with pytest.raises(InvalidInputError, match=r"holds 2 vectors, and is to describe the queries of scene 'cph' \(3 images\)"):
        read_vectors(tmp_path, SCENES[:1])


def test_one_file_a_side_for_all_scenes(tmp_path):
    for side in ("queries", "database"):
        names = [name for one in SCENES[::-1] for name in getattr(one, side).names[::-1]] + ["elsewhere/x.jpg"]
        np.save(tmp_path / f"{side}.npy", np.vstack([table(names[:-1], np.float64), np.full((1, DIM), 9.0)]))
        (tmp_path / f"{side}.txt").write_text("\n".join(names))
    found = read_vectors(tmp_path, SCENES)
    check(found)
    assert found[1][1].history["foreign"] == {"file": "database.npy", "found": "by name", "dtype": "float64", "others": 1}


@pytest.mark.parametrize("names_file", ["descriptors.txt", "descriptors_names.txt", "names.txt", "descriptors.json", "names.json"])
def test_one_file_for_all(tmp_path, names_file):
    names = ALL[::-1]
    np.save(tmp_path / "descriptors.npy", table(names))
    text = json.dumps({"im_paths": names, "im_prefix": "/data"}) if names_file == "names.json" else json.dumps(names)
    (tmp_path / names_file).write_text(text if names_file.endswith(".json") else "\ufeff" + "\r\n".join(names))
    check(read_vectors(tmp_path, SCENES))
    check(read_vectors(tmp_path / "descriptors.npy", SCENES))


@pytest.mark.parametrize("array", ["descriptors", "features", "vectors"])
def test_an_h5_of_names_and_vectors(tmp_path, array):
    write_table(tmp_path / "any.h5", ALL[::-1], "float64", array)
    check(read_vectors(tmp_path / "any.h5", SCENES))
    write_table(tmp_path / "any.h5", ALL, "float16", array, text=h5py.string_dtype())
    check(read_vectors(tmp_path / "any.h5", SCENES), dtype=np.float16)


@pytest.mark.parametrize("shape", [(DIM,), (1, DIM)])
def test_an_h5_of_hloc(tmp_path, shape):
    """A group an image: the slashes of its name are groups in groups."""
    write_groups(tmp_path / "global-feats-netvlad.h5", ALL[::2] + ALL[1::2], "float16", shape)
    check(read_vectors(tmp_path / "global-feats-netvlad.h5", SCENES), dtype=np.float16)


def test_an_h5_a_side(tmp_path):
    for side in ("queries", "database"):
        write_groups(tmp_path / f"{side}.h5", [name for one in SCENES for name in getattr(one, side).names])
        (tmp_path / "x" / "cph").mkdir(parents=True, exist_ok=True)
        write_table(tmp_path / "x" / "cph" / f"{side}.h5", getattr(SCENES[0], side).names)
    check(read_vectors(tmp_path, SCENES))
    check(read_vectors(tmp_path / "x", SCENES[:1]), SCENES[:1])


def test_features_of_gcls_script(tmp_path):
    """float64, no names, `<model>_<city>_queryfeats.npy` beside `_mapfeats.npy`; several models lie in one folder."""
    for model in ("MSLS_resnet50", "MSLS_vgg16"):
        for one in SCENES:
            np.save(tmp_path / f"{model}_{one.name}_queryfeats.npy", table(one.queries.names, np.float64))
            np.save(tmp_path / f"{model}_{one.name}_mapfeats.npy", table(one.database.names, np.float64))
    with pytest.raises(InvalidInputError, match=r"holds MSLS_resnet50_cph_queryfeats.npy, MSLS_vgg16_cph_queryfeats.npy"):
        read_vectors(tmp_path, SCENES)
    with pytest.warns(CovisWarning, match=r"in the order that the data was read in"):
        check(read_vectors(tmp_path / "MSLS_vgg16", SCENES))
    for one in SCENES:
        for side, end in (("query", "queryfeats"), ("database", "mapfeats")):
            names = (one.queries if side == "query" else one.database).names[::-1]
            np.save(tmp_path / f"MSLS_vgg16_{one.name}_{end}.npy", table(names, np.float64))
            paths = {"im_paths": [f"{one.name}/{name}" for name in names], "im_prefix": "/data/"}
            (tmp_path / f"MSLS_vgg16_{one.name}_{end}.json").write_text(json.dumps(paths))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(read_vectors(tmp_path / "MSLS_vgg16", SCENES))


WRITTEN = {
    "whole path": lambda one, name: f"/data/{one.name}/{name}",
    "from a folder above": lambda one, name: f"data/{one.name}/{name}",
    "file": lambda one, name: name.split("/")[-1],
    "key": lambda one, name: Path(name).stem,
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_names_are_paths_from_any_folder_or_keys(tmp_path, written):
    names = [(one, name) for one in SCENES for side in (one.queries, one.database) for name in side.names]
    np.save(tmp_path / "d.npy", table(ALL))
    (tmp_path / "d.txt").write_text("\n".join(written(*one) for one in names))
    check(read_vectors(tmp_path / "d.npy", SCENES))


def test_a_name_in_another_folder_is_another_image(tmp_path):
    """Frames are called alike in every sequence: the features of the night must not be taken for those of the day."""
    day = Images("/data", ["day/001.jpg", "day/002.jpg"])
    np.save(tmp_path / "d.npy", np.ones((2, DIM), dtype=np.float32))
    (tmp_path / "d.txt").write_text("night/001.jpg\nnight/002.jpg\n")
    with pytest.raises(InvalidInputError, match=r"2 of 2 have no vector.*the one of its key lies in another folder"):
        read_vectors(tmp_path / "d.npy", [Scene("s", "test", day, day)])


def test_a_vector_is_never_that_of_two_images(tmp_path):
    """Frames of one name in two sequences, and a file that tells them not apart."""
    both = [Images(f"/data/{room}", ["seq-01/frame-0.png", "seq-02/frame-1.png"]) for room in ("heads", "stairs")]
    rooms = [Scene(images.root.name, "test", images, images) for images in both]
    np.save(tmp_path / "d.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "d.txt").write_text("seq-01/frame-0.png\nseq-02/frame-1.png\nx\ny\n")
    with pytest.raises(
        InvalidInputError, match=r"'seq-01/frame-0.png' must mean one image; it could be /data/heads/seq-01/frame-0.png and"
    ):
        read_vectors(tmp_path / "d.npy", rooms)
    named = ["stairs/seq-01/frame-0.png", "heads/seq-02/frame-1.png", "heads/seq-01/frame-0.png", "stairs/seq-02/frame-1.png"]
    (tmp_path / "d.txt").write_text("\n".join(named))
    found = read_vectors(tmp_path / "d.npy", rooms)
    assert [database.vectors.argmax(axis=1).tolist() for _, database in found] == [[2, 1], [0, 3]]
    assert found[0][0] is found[0][1], "both sides of a training scene are the same images"


def test_images_without_a_vector_are_counted_and_the_first_is_named(tmp_path):
    names = [name for name in ALL if name not in ("query/q1_cph.jpg", "query/q2_cph.jpg")]
    np.save(tmp_path / "d.npy", table(names))
    (tmp_path / "d.txt").write_text("\n".join(names))
    said = r"every image of the queries of scene 'cph'; 2 of 3 have no vector, the first is 'query/q1_cph.jpg'"
    with pytest.raises(InvalidInputError, match=said):
        read_vectors(tmp_path / "d.npy", SCENES)


def test_a_vector_that_is_not_finite_names_its_image(tmp_path):
    for bad in (np.nan, 1e300):  # the second is beyond float32
        vectors = table(ALL, np.float64)
        vectors[ALL.index("database/d2_sf.jpg"), 3] = bad
        np.save(tmp_path / "d.npy", vectors)
        (tmp_path / "d.txt").write_text("\n".join(ALL))
        with pytest.raises(InvalidInputError, match=r"finite; that of database/d2_sf.jpg is not"):
            read_vectors(tmp_path / "d.npy", SCENES)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.zeros((len(ALL), DIM), dtype=np.int64), "must hold float64, float32 or float16 vectors; it holds int64"),
        (np.zeros((len(ALL), DIM), dtype=np.complex64), "it holds complex64"),
        (np.zeros((len(ALL), DIM, 1)), "one vector a row"),
        (np.zeros(len(ALL)), "one vector a row"),
        (np.zeros((len(ALL), 0)), "one vector a row"),
        (np.zeros((len(ALL) - 1, DIM)), "must name each of the 14 vectors"),
    ],
)
def test_what_is_no_table_of_floats_is_refused(tmp_path, vectors, said):
    np.save(tmp_path / "d.npy", vectors)
    (tmp_path / "d.txt").write_text("\n".join(ALL))
    with pytest.raises((InvalidInputError, DamagedFileError), match=said):
        read_vectors(tmp_path / "d.npy", SCENES)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["features"], file["names"] = vectors, [name.encode() for name in ALL]
    with pytest.raises((InvalidInputError, DamagedFileError), match=said):
        read_vectors(tmp_path / "d.h5", SCENES)


def test_no_pickle_is_loaded(tmp_path):
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DamagedFileError, match=r"pickle, and none is ever loaded"):
        read_vectors(tmp_path / "d.npy", SCENES)
    (tmp_path / "d.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DamagedFileError, match=r"pickle, and none is ever loaded"):
        read_vectors(tmp_path / "d.npy", SCENES)
    np.savez(tmp_path / "d", np.zeros((2, 2)))
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with pytest.raises(DamagedFileError, match=r"archive of several"):
        read_vectors(tmp_path / "d.npy", SCENES)


def test_other_refusals(tmp_path):
    with pytest.raises(MissingFileError, match=r"must hold descriptors: cph/database/header.json"):
        read_vectors(tmp_path, SCENES)
    with pytest.raises(MissingFileError, match=r"none of these is there"):
        read_vectors(tmp_path / "nowhere", SCENES)
    (tmp_path / "d.mat").write_text("")
    with pytest.raises(InvalidInputError, match=r"an .npy or an .h5 file"):
        read_vectors(tmp_path / "d.mat", SCENES)
    write_sides(tmp_path / "cph", SCENES[0])
    with pytest.raises(InvalidInputError, match=r"for the queries of scene 'sf' \(sf/queries.npy or sf/queries.h5"):
        read_vectors(tmp_path, SCENES)
    np.save(tmp_path / "cph" / "queries.npy", np.zeros((3, 2)))
    with pytest.raises(InvalidInputError, match=r"must be as wide; those in .* are not: queries.npy 2, database.npy 5"):
        read_vectors(tmp_path, SCENES[:1])
    (tmp_path / "cph" / "queries.txt").write_text("a\nb\na\n")
    with pytest.raises(DamagedFileError, match=r"every image once; 'a' stands 2 times"):
        read_vectors(tmp_path, SCENES[:1])


def test_an_h5_of_another_kind_is_told_what_is_read(tmp_path):
    path = tmp_path / "d.h5"
    with h5py.File(path, "w") as file:
        file["sim"] = np.zeros((3, 4))
    with pytest.raises(InvalidInputError, match=r"an array names and one of descriptors, features, vectors, or a group an image"):
        read_vectors(path, SCENES)
    with h5py.File(path, "w") as file:
        file["a.jpg/global_descriptor"], file["b.jpg/global_descriptor"] = np.zeros(3), np.zeros(4)
    with pytest.raises(InvalidInputError, match=r"vectors of one width and type; it holds \(3,\) float64, \(4,\) float64"):
        read_vectors(path, SCENES)
    with h5py.File(path, "w") as file:
        file["names"], file["descriptors"], file["features"] = [b"a"], np.zeros((1, 2)), np.zeros((1, 2))
    with pytest.raises(InvalidInputError, match=r"one array of vectors beside its names; it holds descriptors and features"):
        read_vectors(path, SCENES)
    with h5py.File(path, "w") as file:
        file["names"], file["descriptors"] = np.array([b"\xff"]), np.zeros((1, 2))
    with pytest.raises(DamagedFileError, match=r"a name must be UTF-8"):
        read_vectors(path, SCENES)


def test_links_of_an_h5_are_not_followed(tmp_path):
    """Out of the file, or round and round."""
    write_groups(tmp_path / "other.h5", ALL)
    write_groups(tmp_path / "d.h5", ALL)
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["round"] = h5py.SoftLink("/")
        file["out"] = h5py.ExternalLink("other.h5", "/")
    check(read_vectors(tmp_path / "d.h5", SCENES))


@pytest.mark.parametrize("form", ["npy", "table", "groups"])
def test_a_truncated_file_is_refused_and_a_changed_one_is_another_model(tmp_path, refuses_every_cut, never_wrong, form):
    path = tmp_path / ("d.npy" if form == "npy" else "d.h5")
    if form == "npy":
        np.save(path, table(ALL))
        (tmp_path / "d.txt").write_text("\n".join(ALL))
    else:
        (write_table if form == "table" else write_groups)(path, ALL)

    def load():
        return read_vectors(path, SCENES)

    model = load()[0][0].model
    refuses_every_cut(path, load, cuts=24)
    never_wrong(path, load, lambda found: found[0][0].model != model, flips=48)


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_cut_names_are_refused(tmp_path, suffix):
    np.save(tmp_path / "d.npy", table(ALL))
    path = tmp_path / f"d{suffix}"
    text = "\n".join(ALL) if suffix == ".txt" else json.dumps(ALL)
    for place in range(len(text) - (4 if suffix == ".txt" else 0)):  # without its last ".jpg" a name is a key still
        path.write_text(text[:place])
        with pytest.raises(CovisError):
            read_vectors(tmp_path / "d.npy", SCENES)


def test_rows_are_gathered_from_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("covis.vector_files.BLOCK", 4)
    random = np.random.default_rng(0)
    images = Images("/d", [f"{row}.jpg" for row in range(60)])
    order = random.permutation(90)
    np.save(tmp_path / "d.npy", np.asfortranarray(order[:, None] * [1.0, 2.0]))
    (tmp_path / "d.txt").write_text("\n".join(f"{row}.jpg" for row in order))
    (_, found), *_ = read_vectors(tmp_path / "d.npy", [Scene("s", "test", images, images)])
    np.testing.assert_array_equal(found.vectors, np.arange(60)[:, None] * [1.0, 2.0])
    assert found.history["foreign"]["others"] == 30
