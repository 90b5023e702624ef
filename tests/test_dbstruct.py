"""dbStruct: the MATLAB file by its fields' names, the trees that users have, the inverse, and the protocols of its benchmarks."""

import dataclasses
import re
import struct
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

import covis
from covis.datasets import catalogue, guess_layout
from covis.datasets.catalogue import Dataset, Size
from covis.datasets.checks import inspect
from covis.datasets.dbstruct import draft_dbstruct, read_dbstruct
from covis.datasets.dbstruct.files import DbStruct, read_struct, write_struct
from covis.datasets.dbstruct.matlab import read_variable
from covis.datasets.dbstruct.times import seconds
from covis.datasets.dbstruct.writing import write_dbstruct
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene
from covis.labelling import self_pairs
from covis.neighbours import Neighbours
from covis.rankings import Rankings

ORDER_10 = (
    "whichSet", "dbImageFns", "utmDb", "qImageFns", "utmQ",
    "numImages", "numQueries", "posDistThr", "posDistSqThr", "nonTrivPosDistSqThr",
)  # fmt: skip
ORDER_12 = (*ORDER_10[:3], "dbTimeStamp", *ORDER_10[3:5], "qTimeStamp", *ORDER_10[5:])
DB, Q = ("a/1.jpg", "a/2.jpg", "b/3.jpg"), ("q/1.jpg", "q/2.jpg")
DB_XY, Q_XY = np.array([[585000.5, 4477000.0], [585010.0, 4477000.25], [585100.0, 4477100.0]]), np.array([[585001.0, 4477001.0]] * 2)


def cells(names):
    column = np.empty((len(names), 1), dtype=object)
    column[:, 0] = list(names)
    return column


def fields(**changed):
    """The fields of a small file, as MATLAB has them; None leaves one out."""
    usual = {
        "whichSet": "test",
        "dbImageFns": cells(DB),
        "utmDb": DB_XY.T,
        "dbTimeStamp": None,
        "qImageFns": cells(Q),
        "utmQ": Q_XY.T,
        "qTimeStamp": None,
        "numImages": 3.0,
        "numQueries": 2.0,
        "posDistThr": 25.0,
        "posDistSqThr": 625.0,
        "nonTrivPosDistSqThr": 100.0,
    }
    return {name: value for name, value in (usual | changed).items() if value is not None}


def save(path, value, *, name="dbStruct", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: value}, appendmat=False, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """A function that makes empty files below a folder; returns the folder."""

    def make(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path

    return make


def metadata(path, **options):
    (scene,) = read_dbstruct(path, missing="ignore", **options)
    return scene


def kept(images):
    """What the layout holds of images."""
    return images.names, images.xy.tolist(), None if images.time is None else images.time.tolist(), images.crs


# --- the file -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_the_fields_count_by_their_names_whatever_their_order(tmp_path, compressed):
    mixed = dict(sorted(fields(dataset="mine").items(), key=lambda item: item[0].swapcase()))
    scene = metadata(save(tmp_path / "mine.mat", mixed, do_compression=compressed))
    assert (scene.name, scene.split, scene.database.crs) == ("mine", "test", None)
    assert (scene.database.names, scene.queries.names) == (DB, Q)
    assert (scene.database.xy.tolist(), scene.queries.xy.tolist()) == (DB_XY.tolist(), Q_XY.tolist())
    assert scene.database.time is None
    assert scene.database.place is None


def test_names_of_python_programs_are_known(tmp_path):
    python = {"dbImageFns": "dbImage", "qImageFns": "qImage", "numImages": "numDb", "numQueries": "numQ"}
    assert metadata(save(tmp_path / "x.mat", {python.get(k, k): v for k, v in fields().items()})).database.names == DB


@pytest.mark.parametrize("order", [ORDER_10, ORDER_12])
@pytest.mark.parametrize("named", [True, False])
def test_without_names_the_place_counts_and_tokyo_tm_is_told_by_its_twelve_fields(tmp_path, order, named):
    value = fields(dbTimeStamp=np.array([[201305.0, 201306.0, 201305.0]]), qTimeStamp=np.array([[201305.0, 201306.0]]))
    listed = [value[name] for name in order]
    if named:
        unnamed = {f"f{place}": one for place, one in enumerate(listed)}
    else:
        unnamed = np.empty((1, len(listed)), dtype=object)
        unnamed[0, :] = listed
    with pytest.warns(CovisWarning, match=r"taken in NetVLAD's order"):
        scene = metadata(save(tmp_path / "x.mat", unnamed))
    assert (scene.database.names, scene.queries.xy.tolist()) == (DB, Q_XY.tolist())
    assert (scene.queries.time is None) == (order is ORDER_10)


def test_eleven_fields_without_names_are_refused(tmp_path):
    eleven = {f"f{place}": value for place, value in enumerate([*fields().values(), 1.0])}
    with pytest.raises(DamagedFileError, match=r"10 or 12 of them in NetVLAD's order; it has 11"):
        read_struct(save(tmp_path / "x.mat", eleven))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_positions_lie_or_stand(tmp_path, count):
    """Two names are the one ambiguous case: MATLAB's 2 x N counts, so that a column is an image."""
    xy = np.arange(2.0 * count).reshape(count, 2)
    for shape, expected in ((xy.T, xy), (xy, xy if count != 2 else xy.T)):
        held = read_struct(
            save(tmp_path / "x.mat", fields(dbImageFns=cells([f"{i}.jpg" for i in range(count)]), utmDb=shape, numImages=None))
        )
        assert held.database_xy.tolist() == expected.tolist()


def test_a_single_coordinate_lies_on_a_line(tmp_path):
    """seqNet's Nordland: the number of the frame."""
    path = save(tmp_path / "x.mat", fields(utmDb=np.array([[5.0, 6.0, 9.0]]), utmQ=np.array([[5], [9]])))
    with pytest.warns(CovisWarning, match=r"one coordinate for each name") as said:
        scene = metadata(path)
    assert len(said) == 2
    assert (scene.database.xy.tolist(), scene.queries.xy.tolist()) == ([[5, 0], [6, 0], [9, 0]], [[5, 0], [9, 0]])


def test_names_as_a_matrix_of_characters_and_with_a_dot_before_them(tmp_path):
    scene = metadata(save(tmp_path / "x.mat", fields(dbImageFns=np.array(["./a/1.jpg", "a/22.jpg ", "./b/3.jpg"]))))
    assert scene.database.names == ("a/1.jpg", "a/22.jpg", "b/3.jpg")


DAMAGES = {
    "no utmQ": (fields(utmQ=None), r"must have the fields utmQ; it has whichSet"),
    "a column too many": (fields(utmDb=np.zeros((3, 3))), r"utmDb must be 2 x 3 numbers, a column for each name; found 3 x 3 numbers"),
    "a position too few": (fields(utmDb=DB_XY[:2].T), r"utmDb must be 2 x 3 numbers"),
    "positions as text": (fields(utmDb="far away"), r"utmDb must be 2 x 3 numbers.*text"),
    "complex positions": (fields(utmDb=DB_XY.T + 1j), r"utmDb must be 2 x 3 numbers.*complex"),
    "positions in cells": (fields(utmDb=cells(["1", "2", "3"])), r"utmDb must be 2 x 3 numbers.*cells"),
    "a name that is a number": (fields(dbImageFns=cells(["a.jpg", 3.0, "b.jpg"])), r"dbImageFns, row 2: a name must be text"),
    "an empty name": (fields(dbImageFns=cells(["a.jpg", "b.jpg", ""])), r"row 3: a name must be text in one line, and not empty"),
    "a name with a line break": (fields(qImageFns=cells(["a\nb.jpg", "c.jpg"])), r"qImageFns, row 1: a name must be text in one line"),
    "no name": (fields(qImageFns=cells([]), utmQ=np.zeros((2, 0)), numQueries=0.0), r"qImageFns must be a column of names"),
    "names as numbers": (fields(qImageFns=np.eye(2)), r"qImageFns must be a column of names; found 2 x 2 numbers"),
    "a table of names": (fields(dbImageFns=np.tile(cells(DB), 2)), r"dbImageFns must be a column of names; found 3 x 2 cells"),
    "another count": (fields(numImages=10.0), r"numImages must be the number of names in dbImageFns, 3; found 10"),
    "a count that is text": (fields(numQueries="two"), r"numQueries must be one number; found .*text"),
    "a count without end": (fields(numQueries=np.inf), r"numQueries must be one number"),
    "a split that is a number": (fields(whichSet=3.0), r"whichSet must be text"),
    "stamps for some": (fields(dbTimeStamp=[1.0, 2.0], qTimeStamp=[1.0, 2.0]), r"dbTimeStamp must be 3 numbers or texts, one for"),
    "no struct": (np.eye(3), r"dbStruct must be one struct; found 3 x 3 numbers"),
    "a path out": (fields(dbImageFns=cells(["a.jpg", "../../etc/passwd", "b.jpg"])), r"row 2: a name must stay in the data set's folder"),
    "an absolute path": (fields(dbImageFns=cells(["/etc/passwd", "a.jpg", "b.jpg"])), r"row 1: a name must stay in the data set's folder"),
    "a drive": (fields(dbImageFns=cells(["c:\\a.jpg", "a.jpg", "b.jpg"])), r"row 1: a name must stay in the data set's folder"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_fields_that_do_not_fit_are_refused_in_words(tmp_path, damage):
    value, words = DAMAGES[damage]
    with pytest.raises((DamagedFileError, InvalidInputError), match=words) as refused:
        read_dbstruct(save(tmp_path / "x.mat", value), missing="ignore")
    assert "x.mat" in str(refused.value)


@pytest.mark.parametrize(("contents", "words"), [
    (b"", r"it is empty"),
    (b"easting,northing\n" * 20, r"it is of another kind"),
    (b"MATLAB 5.0 MAT-file", r"it is truncated"),
    (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 474 + b"\x89HDF\r\n\x1a\n", r"it is of MATLAB 7\.3 \(HDF5\).*save it with -v7"),
    (b"\x89HDF\r\n\x1a\n" + b"\0" * 200, r"it is of MATLAB 7\.3"),
])  # fmt: skip
def test_files_of_other_kinds_are_refused_in_words(tmp_path, contents, words):
    (tmp_path / "x.mat").write_bytes(contents)
    with pytest.raises(DamagedFileError, match=words):
        read_struct(tmp_path / "x.mat")


def test_another_variable_is_named(tmp_path):
    with pytest.raises(DamagedFileError, match=r"must hold the variable dbStruct; it holds features"):
        read_struct(save(tmp_path / "x.mat", np.eye(3), name="features"))


@pytest.mark.parametrize("compressed", [True, False])
def test_every_cut_is_refused(tmp_path, refuses_every_cut, compressed):
    path = save(tmp_path / "x.mat", fields(), do_compression=compressed)
    refuses_every_cut(path, lambda: read_struct(path))


def test_a_flipped_byte_is_never_read_as_another_thing(tmp_path, never_wrong):
    """The file as written is compressed, and so has a checksum."""
    held = DbStruct("test", DB, Q, DB_XY, Q_XY)
    path = write_struct(tmp_path / "x.mat", held)
    before = read_struct(path)

    def same(found):
        arrays = ("database_xy", "queries_xy")
        return dataclasses.replace(found, database_xy=None, queries_xy=None) == dataclasses.replace(
            before, database_xy=None, queries_xy=None
        ) and all(np.array_equal(getattr(found, name), getattr(before, name)) for name in arrays)

    never_wrong(path, lambda: read_struct(path), same)


def test_flipped_bytes_without_a_checksum_give_words_not_tracebacks(tmp_path, never_wrong):
    path = save(tmp_path / "x.mat", fields(dbTimeStamp=np.ones(3), qTimeStamp=np.ones(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        never_wrong(path, lambda: read_struct(path), lambda _: True, flips=600)


def same_contents(ours, theirs):
    """Ours as scipy has it: text a row, structs of one as dicts."""
    if isinstance(ours, dict):
        return list(ours) == list(theirs.dtype.names) and all(same_contents(ours[name], theirs[0, 0][name]) for name in ours)
    if ours.dtype == object:
        pairs = zip(ours.ravel(), theirs.ravel(), strict=True)
        return ours.shape == theirs.shape and all(same_contents(one, other) for one, other in pairs)
    return ours.shape == theirs.shape and ours.dtype.kind == theirs.dtype.kind and np.array_equal(ours, theirs)


@pytest.mark.parametrize("compressed", [True, False])
def test_variables_are_what_scipy_reads(tmp_path, compressed):
    nested = np.empty((2, 2), dtype=object)
    nested[:] = [[np.arange(6.0).reshape(2, 3), "text"], [cells(["a", "längere Namen", "名前"]), np.zeros((0, 0))]]
    value = {
        **{kind: np.array([[0, 1, 100]], dtype=kind) for kind in ("f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")},
        "tiny": np.array([[7]], dtype="u1"),
        "complex": np.array([[1 + 2j, 3 - 4j]]),
        "solid": np.arange(24.0).reshape(2, 3, 4),
        "rows": np.array(["one ", "four", "twoo"]),
        "nested": nested,
        "inner": {"deep": {"deeper": 1.0}},
    }
    savemat(tmp_path / "x.mat", {"first": np.eye(2), "it": value, "last": "end"}, do_compression=compressed)
    assert same_contents(read_variable(tmp_path / "x.mat", "it"), loadmat(tmp_path / "x.mat")["it"])
    for name in ("first", "last"):
        assert same_contents(read_variable(tmp_path / "x.mat", name), loadmat(tmp_path / "x.mat")[name])


def test_the_other_byte_order(tmp_path):
    """One array of doubles, as an old workstation wrote it."""
    array = struct.pack(">IIIIIIiiI4sII2d", 6, 8, 6, 0, 5, 8, 1, 2, 2 << 16 | 1, b"xy", 9, 16, 1.5, -2.0)
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + struct.pack(">II", 14, len(array)) + array)
    assert read_variable(tmp_path / "x.mat", "xy").tolist() == loadmat(tmp_path / "x.mat", mat_dtype=True)["xy"].tolist() == [[1.5, -2]]


# --- the folders --------------------------------------------------------------------------------------------------------------

PITTS_DB, PITTS_Q = ("000/000829_pitch1_yaw1.jpg", "000/000829_pitch1_yaw2.jpg"), ("000/000546_pitch1_yaw1.jpg",)
TREES = {
    "pytorch-NetVlad": ("datasets/pitts30k_test.mat", ".", "", "queries_real"),
    "pytorch-NetVlad, the file": ("datasets/pitts30k_test.mat", "datasets/pitts30k_test.mat", "", "queries_real"),
    "NetVLAD": ("pitts30k_test.mat", ".", "images", "queries"),
    "NetVLAD's Tokyo 24/7": ("mine.mat", ".", "images", "query"),
    "Tokyo Time Machine": ("tokyoTM_test.mat", ".", "images", "images"),
    "OpenIBL": ("raw/pitts30k_test.mat", ".", "raw/Pittsburgh/images", "raw/Pittsburgh/queries"),
    "OpenIBL, raw": ("raw/pitts30k_test.mat", "raw", "raw/Pittsburgh/images", "raw/Pittsburgh/queries"),
    "OpenIBL, Tokyo": ("raw/tokyoTM_test.mat", "raw/tokyoTM_test.mat", "raw/TokyoTM/images", "raw/TokyoTM/images"),
    "as downloaded": ("datasets/tokyo247.mat", ".", "database_gsv_vga", "247query_subset_v2"),
    "one folder for all": ("mine.mat", ".", "", ""),
}


@pytest.mark.parametrize("name", TREES)
def test_images_are_found_where_users_have_them(tree, name):
    file, root, database, queries = TREES[name]
    folder = tree(*(Path(database, image) for image in PITTS_DB), *(Path(queries, image) for image in PITTS_Q))
    value = fields(dbImageFns=cells(PITTS_DB), utmDb=DB_XY[:2].T, numImages=2, qImageFns=cells(PITTS_Q), utmQ=Q_XY[:1].T, numQueries=1)
    save(folder / file, value)
    (scene,) = read_dbstruct(folder / root, sizes="ignore")
    assert (scene.database.root, scene.queries.root) == (folder / database, folder / queries)
    assert all(images.path(row).is_file() for images in (scene.database, scene.queries) for row in range(len(images)))


def test_a_query_of_pittsburgh_is_never_the_database_image_of_its_name(tree):
    """Queries are not unpacked, and one is called as a database image is: it is missing, not found in the database."""
    folder = tree(*(f"images/{name}" for name in PITTS_DB))
    value = fields(dbImageFns=cells(PITTS_DB), utmDb=DB_XY[:2].T, numImages=2, qImageFns=cells(PITTS_DB[:1]), utmQ=Q_XY[:1].T, numQueries=1)
    for name in ("pitts30k_test.mat", "mine.mat"):
        path = save(folder / name, value)
        with pytest.raises(InvalidInputError, match=r"1 of 1 images of .* have no file"):
            read_dbstruct(path, sizes="ignore")


def test_folders_by_options(tree):
    folder = tree(*(f"mine/{name}" for name in DB), *(f"theirs/{name}" for name in Q))
    path = save(folder / "x.mat", fields())
    (scene,) = read_dbstruct(path, database="mine", queries="theirs")
    assert (scene.database.root, scene.queries.root) == (folder / "mine", folder / "theirs")
    with pytest.raises(MissingFileError, match=r"queries='nowhere' must be a folder in"):
        read_dbstruct(path, database="mine", queries="nowhere")


def test_the_suffix_on_the_disk_counts(tree):
    """Tokyo 24/7 lists .jpg, and its database is .png."""
    folder = tree("images/a/1.png", "images/a/2.JPG", "images/b/3.jpg", "images/b/3.png", "query/q/1.jpeg", "query/q/2.JPEG")
    (scene,) = read_dbstruct(save(folder / "x.mat", fields()))
    assert scene.database.names == ("a/1.png", "a/2.JPG", "b/3.jpg")
    assert scene.queries.names == ("q/1.jpeg", "q/2.JPEG")
    assert metadata(folder / "x.mat").database.names == DB


def test_two_files_for_one_name_are_refused(tree):
    folder = tree("images/a/1.png", "images/a/1.JPG", "images/a/2.jpg", "images/b/3.jpg")
    with pytest.raises(
        InvalidInputError, match=r"x\.mat, row 1: 'a/1\.jpg' has no file in .*a/1\.JPG and a/1\.png could both stand for it"
    ):
        read_dbstruct(save(folder / "x.mat", fields()))


def test_policies(tree):
    folder = tree("images/a/1.jpg", "images/a/2.jpg", "query/q/1.jpg", "query/q/2.jpg")
    path = save(folder / "x.mat", fields())
    with pytest.raises(InvalidInputError, match=r"1 of 3 images .* have no file: b/3\.jpg"):
        read_dbstruct(path)
    with pytest.warns(CovisWarning, match=r"1 of 3 images .* They are left out"):
        (scene,) = read_dbstruct(path, missing="skip")
    assert scene.database.names == DB[:2]
    path = save(folder / "x.mat", fields(utmDb=np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]]), dbImageFns=cells([DB[0], DB[1], DB[0]])))
    with pytest.raises(InvalidInputError, match=r"2 of 3 images .* values that cannot be used"):
        read_dbstruct(path)
    with pytest.warns(CovisWarning, match=r"2 of 3 images .* They are left out"):
        (scene,) = read_dbstruct(path, invalid="skip")
    assert scene.database.names == DB[:1]
    report = inspect(lambda: draft_dbstruct(path), path, layout="dbstruct", decode=False)
    assert {problem.kind for problem in report.problems} == {"position", "duplicate name"}


def test_which_file(tmp_path):
    for name in ("pitts30k_test", "pitts30k_val", "pitts250k_test"):
        save(tmp_path / "datasets" / f"{name}.mat", fields(whichSet=name.rpartition("_")[2]))
    with pytest.raises(
        InvalidInputError, match=r"several dbStruct files for the split 'test': .*pitts250k_test.mat.*Say which with name=pitts250k"
    ):
        metadata(tmp_path)
    assert metadata(tmp_path, name="pitts30k", sizes="ignore").name == "pitts30k"
    assert metadata(tmp_path, split="val", sizes="ignore").split == "val"
    copy = tmp_path / "pitts30k_test.mat"  # the same file beside the folder, as in a public mirror
    copy.write_bytes((tmp_path / "datasets" / copy.name).read_bytes())
    assert metadata(tmp_path, name="Pitts30k", sizes="ignore").name == "pitts30k"
    save(copy, fields(posDistSqThr=9.0))
    with pytest.raises(InvalidInputError, match=r"several dbStruct files"):
        metadata(tmp_path, name="pitts30k")
    copy.unlink()
    with pytest.raises(MissingFileError, match=r"must hold a dbStruct of the split 'train'; it holds datasets/pitts250k_test.mat"):
        metadata(tmp_path, split="train")
    with pytest.raises(MissingFileError, match=r"must hold a dbStruct called 'tokyo247' of the split 'test'"):
        metadata(tmp_path, name="tokyo247")
    with pytest.raises(InvalidInputError, match=r"holds the split 'val'; got split='test'"):
        metadata(tmp_path / "datasets" / "pitts30k_val.mat")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"must hold a dbStruct \.mat file, in itself or in datasets, raw"):
        metadata(tmp_path / "empty")
    with pytest.raises(MissingFileError, match=r"there is no such file or folder"):
        metadata(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"must be 'train', 'val' or 'test'"):
        metadata(tmp_path, split="all")


def test_the_layout_is_guessed(tmp_path):
    assert guess_layout(save(tmp_path / "set" / "datasets" / "x.mat", fields())) == "dbstruct"
    assert guess_layout(tmp_path / "set") == "dbstruct"
    assert guess_layout(save(tmp_path / "other" / "x.db", fields())) == "dbstruct"
    assert guess_layout(tmp_path / "other") == "dbstruct"
    for value, name in ((fields(), "features"), (np.eye(2), "x")):
        with pytest.raises(InvalidInputError, match=r"is not plain"):
            guess_layout(save(tmp_path / "foreign" / "x.mat", value, name=name).parent)
    (tmp_path / "foreign" / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(126) + b"IM" + b"?" * 99)
    with pytest.raises(InvalidInputError, match=r"is not plain"):
        guess_layout(tmp_path / "foreign")
    assert covis.read("auto", tmp_path / "set", missing="ignore")[0].database.names == DB


def test_a_renamed_file_is_spoken_of(tmp_path):
    with pytest.warns(CovisWarning, match=r"whichSet says 'val', the file's name 'test'"):
        assert metadata(save(tmp_path / "mine_test.mat", fields(whichSet="val"))).split == "test"


def test_the_zone_is_known_for_the_benchmarks_alone(tmp_path):
    for name, crs in (("pitts250k_test", "EPSG:32617"), ("tokyo247", "EPSG:32654"), ("tokyoTM_test", "EPSG:32654"), ("mine", None)):
        path = save(tmp_path / f"{name}.mat", fields())
        assert metadata(path, sizes="ignore").queries.crs == crs
        assert metadata(path, sizes="ignore", crs="EPSG:32633").queries.crs == "EPSG:32633"


def test_remarks(tmp_path):
    with pytest.warns(CovisWarning, match=r"posDistThr is 10 m, not the 25 m .* theirs is radius/10"):
        metadata(save(tmp_path / "x.mat", fields(posDistThr=10.0)))
    path = save(tmp_path / "y.mat", fields(utmDb=DB_XY[:, ::-1].T, utmQ=Q_XY[:, ::-1].T))
    with pytest.warns(CovisWarning, match=r"north before east; read it with axes='north-east'"):
        assert metadata(path).database.xy.tolist() == DB_XY[:, ::-1].tolist()
    assert metadata(path, axes="north-east").database.xy.tolist() == DB_XY.tolist()
    with pytest.raises(InvalidInputError, match=r"axes must be"):
        metadata(path, axes="up-down")


def test_sizes_are_held_against_the_catalogue(tmp_path, monkeypatch):
    sizes = (Size("test", 2, 4), Size("val", None, 3))
    monkeypatch.setitem(catalogue.DATASETS, "pitts30k", Dataset("Pittsburgh 30k", "dbstruct", "", "", sizes))
    path = save(tmp_path / "pitts30k_test.mat", fields())
    with pytest.raises(
        InvalidInputError, match=r"the test split of pitts30k must have 2 queries and 4 database images; found 2 queries and 3"
    ):
        metadata(path)
    with pytest.warns(CovisWarning, match=r"published numbers do not apply"):
        metadata(path, sizes="warn")
    assert len(metadata(path, sizes="ignore").database) == 3
    assert metadata(save(tmp_path / "pitts30k_val.mat", fields(whichSet="val")), split="val").name == "pitts30k"


# --- times and places ---------------------------------------------------------------------------------------------------------

DAY = datetime(2013, 5, 31, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("stamps", "expected"), [
    ([201305.0, np.nan], [datetime(2013, 5, 1, tzinfo=UTC).timestamp(), np.nan]),
    ([735385.0, 735385.5], [DAY, DAY + 43200]),  # MATLAB: datenum(2013, 5, 31) is 735385
    ([20130531.0, 20130601.0], [DAY, DAY + 86400]),
    ([DAY, DAY + 0.25], [DAY, DAY + 0.25]),
    (("2013-05-31", "20130531", "2013-05-31T12:00:00", "2013-05-31T12:00:00+09:00"), [DAY, DAY, DAY + 43200, DAY + 10800]),
    (("2013", "2013-05", "201305", ""), [datetime(2013, month, 1, tzinfo=UTC).timestamp() for month in (1, 5, 5)] + [np.nan]),
    ([np.nan, np.nan], [np.nan, np.nan]),
])  # fmt: skip
def test_the_values_say_what_kind_of_time_they_are(stamps, expected):
    given = stamps if isinstance(stamps, tuple) else np.array(stamps)
    (found,), remark = seconds([given], kind="auto", where="x.mat")
    np.testing.assert_array_equal(found, expected)
    assert remark is None


def test_numbers_of_no_kind_stay_and_are_spoken_of(tmp_path):
    path = save(tmp_path / "x.mat", fields(dbTimeStamp=np.array([[1.0, 2.0, 1.0]]), qTimeStamp=np.array([[2.0, 3.0]])))
    with pytest.warns(CovisWarning, match=r"the time stamps, 1 and so on, are no date that is known"):
        scene = metadata(path)
    assert (scene.database.time.tolist(), scene.queries.time.tolist()) == ([1, 2, 1], [2, 3])
    assert metadata(path, times="seconds").database.time.tolist() == [1, 2, 1]
    assert metadata(path, times="none").database.time is None
    with pytest.raises(InvalidInputError, match=r"read with times='month', and 1 is none"):
        metadata(path, times="month")
    with pytest.raises(InvalidInputError, match=r"times must be one of auto"):
        metadata(path, times="weeks")


@pytest.mark.parametrize(("stamps", "words"), [
    (([np.inf, 1.0, 2.0], [1.0, 2.0]), r"must be a finite number"),
    ((cells(["soon", "later", "2013"]), cells(["2013", "2014"])), r"in text must be YYYY, YYYY-MM or ISO 8601.*'soon'"),
    ((cells(["2013", "2014", "2013"]), [1.0, 2.0]), r"they must be so on both sides"),
    ((cells([1.0, "2014", 2.0]), [1.0, 2.0]), r"dbTimeStamp must be 3 numbers or texts"),
])  # fmt: skip
def test_stamps_that_do_not_read(tmp_path, stamps, words):
    path = save(tmp_path / "x.mat", fields(dbTimeStamp=stamps[0], qTimeStamp=stamps[1]))
    with pytest.raises((InvalidInputError, DamagedFileError), match=words):
        metadata(path)


def test_stamps_in_cells(tmp_path):
    path = save(tmp_path / "x.mat", fields(dbTimeStamp=cells(["2013", "2014", "2013"]), qTimeStamp=cells(["2013", "2014"])))
    scene = metadata(path)
    assert scene.database.time[0] == scene.queries.time[0] == datetime(2013, 1, 1, tzinfo=UTC).timestamp()
    path = save(tmp_path / "x.mat", fields(dbTimeStamp=cells([201301.0, 201401.0, 201301.0]), qTimeStamp=cells([201301.0, 201401.0])))
    assert metadata(path).database.time.tolist() == scene.database.time.tolist()


def tokyo(tmp_path, names, file="tokyo247.mat"):
    count = len(names)
    value = fields(dbImageFns=cells(names), utmDb=np.zeros((2, count)) + 3e5, numImages=count)
    return save(tmp_path / file, value)


def test_panoramas_of_pittsburgh_are_the_number_in_the_name(tmp_path):
    value = fields(dbImageFns=cells(["000/000829_pitch1_yaw1.jpg", "000/000829_pitch2_yaw12.jpg", "001/001000_pitch1_yaw1.jpg"]))
    scene = metadata(save(tmp_path / "mine.mat", value))
    assert scene.database.place.tolist() == [829, 829, 1000]
    assert scene.queries.place is None
    assert scene.database.heading is None


def test_panoramas_of_tokyo_247(tmp_path):
    cut = [f"03814/381462_{pano}/{pano}abc_012_{30 * angle:03d}.jpg" for pano in "xy" for angle in range(12)]
    assert metadata(tokyo(tmp_path, cut), sizes="ignore").database.place.tolist() == [0] * 12 + [1] * 12
    plain = [f"{row}.jpg" for row in range(24)]  # names that say nothing: the order of the .mat, twelve rows a panorama
    assert metadata(tokyo(tmp_path, plain), sizes="ignore").database.place.tolist() == [0] * 12 + [1] * 12
    assert metadata(tokyo(tmp_path, plain[:-1]), sizes="ignore").database.place is None
    assert metadata(tokyo(tmp_path, plain, "mine.mat")).database.place is None
    assert metadata(tokyo(tmp_path, cut[::-1], "mine.mat")).database.place.tolist() == [0] * 12 + [1] * 12
    turned = cut[1:] + cut[:1]
    with pytest.warns(CovisWarning, match=r"not twelve rows each.*the names count"):
        assert metadata(tokyo(tmp_path, turned), sizes="ignore").database.place.tolist() == [0] * 11 + [1] * 12 + [0]


# --- the inverse --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_the_town_comes_back(town, tmp_path, files):
    with pytest.warns(CovisWarning, match=r"does not keep .*heading.*crs"):
        written = write_dbstruct(town, tmp_path / "out", files=files)
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"{scene.name}/datasets/{scene.name}_test.mat" for scene in town
    ]
    for scene, path in zip(town, written, strict=True):
        for root in (path, path.parent.parent):
            (back,) = read_dbstruct(root, crs=scene.database.crs, missing="ignore" if files == "none" else "stop")
            assert (back.name, back.split) == (scene.name, scene.split)
            for one, other in ((back.database, scene.database), (back.queries, scene.queries)):
                assert kept(one) == kept(other)
                if files != "none":
                    assert all(one.path(row).read_bytes() == other.path(row).read_bytes() for row in range(len(one)))
                    assert one.path(0).is_symlink() == (files == "link")
        assert back.database.time is not None
        assert read_struct(path).fields == ORDER_12


def plain(scene):
    """Names, positions and times alone."""
    images = {side: Images(x.root, x.names, xy=x.xy, time=x.time) for side, x in (("database", scene.database), ("queries", scene.queries))}
    return Scene(scene.name, scene.split, images["database"], images["database"] if scene.training else images["queries"])


def test_what_is_written_is_read_back_equal_and_gives_the_same_bytes(town, tmp_path):
    scene = plain(town[0])
    first, second = (write_dbstruct([scene], tmp_path / name)[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[:116].rstrip() == b"MATLAB 5.0 MAT-file, written by covis"
    (back,) = read_dbstruct(first)
    (again,) = write_dbstruct([back], tmp_path / "c")
    assert again.read_bytes() == first.read_bytes()
    with pytest.raises(OutputExistsError):
        write_dbstruct([scene], tmp_path / "a")
    assert write_dbstruct([scene], tmp_path / "a", overwrite=True) == [first]


def test_without_times_there_are_ten_fields(town, tmp_path):
    scene = plain(town[0])
    untimed = dataclasses.replace(scene, database=dataclasses.replace(scene.database, time=None))
    with pytest.warns(CovisWarning, match=r"does not keep time\."):
        (path,) = write_dbstruct([untimed], tmp_path, files="none")
    assert read_struct(path).fields == ORDER_10


def test_images_of_both_sides_stay_the_same_images(town, tmp_path):
    database = plain(town[0]).database
    for name, queries in (("training", database), ("overlap", database.select([3, 1]))):
        (path,) = write_dbstruct([Scene(name, "test", database, queries)], tmp_path)
        (back,) = read_dbstruct(path)
        assert back.training == (name == "training")
        assert kept(back.queries) == kept(queries)
        assert self_pairs(back.queries, back.database).nnz == len(queries)
        assert not (path.parent.parent / "queries").exists()


def test_splits_of_one_set_share_a_folder(town, tmp_path):
    scene = plain(town[0])
    scenes = [dataclasses.replace(scene, split=split) for split in ("train", "val", "test")]
    written = write_dbstruct(scenes, tmp_path)
    assert [path.name for path in written] == [f"{scene.name}_{split}.mat" for split in ("train", "val", "test")]
    for split in ("train", "val", "test"):
        (back,) = read_dbstruct(tmp_path / scene.name, split=split)
        assert (back.split, kept(back.queries)) == (split, kept(scene.queries))


@pytest.mark.parametrize(("name", "split", "file"), [
    ("pitts30k", "val", "pitts30k_val.mat"), ("tokyo247", "test", "tokyo247.mat"), ("tokyo-tm", "val", "tokyoTM_val.mat"),
])  # fmt: skip
def test_benchmarks_keep_their_names(tmp_path, name, split, file):
    crs = "EPSG:32617" if name == "pitts30k" else "EPSG:32654"
    database, queries = Images("r", DB, xy=DB_XY, crs=crs), Images("s", Q, xy=Q_XY, crs=crs)
    (path,) = write_dbstruct([Scene(name, split, database, queries)], tmp_path, files="none")  # and no warning: nothing is lost
    assert path.name == file
    back = metadata(tmp_path / name, split=split, sizes="ignore", name=name)
    assert (back.name, back.split, kept(back.database), kept(back.queries)) == (name, split, kept(database), kept(queries))


@pytest.mark.parametrize(("changed", "words"), [
    ({"split": "all"}, r"must be of the split train, val or test"),
    ({"name": "mine_test"}, r"name must not end as a split does"),
    ({"database": Images("r", DB)}, r"must have xy"),
    ({"database": Images("r", ["../a.jpg"], xy=[[1, 2]])}, r"a plain name inside its folder; got '\.\./a\.jpg'"),
    ({"database": Images("r", ["/a.jpg"], xy=[[1, 2]])}, r"a plain name inside its folder"),
    ({"database": Images("r", ["./a.jpg"], xy=[[1, 2]])}, r"a plain name inside its folder"),
    ({"queries": Images("r", [], xy=np.zeros((0, 2)))}, r"must have database images and queries"),
    ({"database": Images("r", DB, xy=DB_XY, time=[201305, 201306, 201307.0]),
      "queries": Images("s", Q, xy=Q_XY, time=[201305.0, 201306])}, r"would be read as another kind of date"),
    ({"queries": Images("s", DB, xy=DB_XY), "database": Images("r", [*DB, "x"], xy=[*DB_XY, [1, 2]])}, r"must be there to be written"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused(tmp_path, changed, words):
    scene = Scene("mine", "test", Images("r", DB, xy=DB_XY), Images("s", Q, xy=Q_XY))
    with pytest.raises((InvalidInputError, MissingFileError), match=words):
        write_dbstruct([dataclasses.replace(scene, **changed)], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_scenes_that_meet_are_refused(tmp_path):
    scene = Scene("mine", "test", Images("r", DB, xy=DB_XY), Images("s", Q, xy=Q_XY))
    with pytest.raises(InvalidInputError, match=r"must differ in name or split; 'mine' \(test\) is there twice"):
        write_dbstruct([scene, scene], tmp_path, files="none")
    other = dataclasses.replace(scene, split="val", queries=Images("t", Q, xy=Q_XY))
    with pytest.raises(InvalidInputError, match=r"would both be queries/q/1\.jpg"):
        write_dbstruct([scene, other], tmp_path, files="none")


# --- the protocols, by hand ---------------------------------------------------------------------------------------------------


def recalls(scene, rows, protocol, *ks):
    """recall@k of rankings, as rows of the database, under a protocol."""
    rows = np.asarray(rows)
    distances = np.tile(np.arange(rows.shape[1], dtype=float), (len(rows), 1))
    found = Rankings(rows, distances, scene.queries.names, scene.database.names)
    scores = covis.evaluate(found, scene, protocol=protocol, samples=10)
    return [scores.metrics[f"recall@{k}"].value for k in ks]


def through_the_file(tmp_path, name, split, database, queries):
    """A scene as the reader gives it."""
    (path,) = write_dbstruct([Scene(name, split, database, queries)], tmp_path, files="none")
    return metadata(path, split=split, sizes="ignore")


def test_pitts30k_netvlad_by_hand(tmp_path):
    """25 m belong to it, 25.001 m do not; every query is counted, also the one without a positive."""
    east = np.array([0, 25, 25.001, 60]) + 585000
    database = Images("r", [f"{i}.jpg" for i in range(4)], xy=np.stack([east, np.full(4, 4477000.0)], axis=1), crs="EPSG:32617")
    queries = Images("s", ["a.jpg", "b.jpg", "c.jpg"], xy=[[585000, 4477000], [585060, 4477000], [586000, 4477000]], crs="EPSG:32617")
    scene = through_the_file(tmp_path, "pitts30k", "test", database, queries)
    # a: correct are 0 (0 m) and 1 (25 m). 2 comes first, so rank 2. b: 3 is correct (0 m), at rank 1. c: nothing is within 25 m.
    rows = [[2, 1, 0, 3], [3, 2, 1, 0], [3, 0, 1, 2]]
    assert recalls(scene, rows, "pitts30k/netvlad", 1, 2, 5) == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert recalls(scene, rows, "pitts30k/gmberton", 1, 5) == pytest.approx([1 / 3, 2 / 3])
    assert recalls(scene, rows, "radius/25", 1, 2) == pytest.approx([1 / 2, 1])  # there c is not counted


def test_tokyo247_by_hand(tmp_path):
    """Three panoramas of twelve cutouts. All of panorama 0 come first, then one of panorama 2, then those of panorama 1, the right one."""
    names = [f"0381{pano}/{pano}_012_{30 * angle:03d}.jpg" for pano in range(3) for angle in range(12)]
    xy = np.repeat([[381000.0, 3946000.0], [381100.0, 3946000.0], [381200.0, 3946000.0]], 12, axis=0)
    database, queries = Images("r", names, xy=xy, crs="EPSG:32654"), Images("s", ["00001.jpg"], xy=[[381110, 3946000]], crs="EPSG:32654")
    scene = through_the_file(tmp_path, "tokyo247", "test", database, queries)
    rows = [[*range(12), 24, *range(12, 24), *range(25, 36)]]
    # A panorama gives one rank: 0, 2, 1. So the hit is at 3.
    assert recalls(scene, rows, "tokyo247/netvlad", 1, 2, 3, 5) == [0, 0, 1, 1]
    # Without that it is at 12 + 1 + 1 = 14.
    assert recalls(scene, rows, "tokyo247/gmberton", 1, 5, 10, 20) == [0, 0, 0, 1]


def test_tokyo_tm_netvlad_by_hand(tmp_path):
    """Two database images are of the query's own moment: they take no rank, though they are nearest and within 25 m."""
    may, june = (datetime(2013, month, 1, tzinfo=UTC).timestamp() for month in (5, 6))
    xy = np.array([[381000.0, 3946000.0], [381001, 3946000], [381500, 3946000], [381010, 3946000]])
    database = Images("r", [f"{i}.jpg" for i in range(4)], xy=xy, time=[may, may, june, june], crs="EPSG:32654")
    queries = Images("s", ["q.jpg"], xy=xy[:1], time=[may], crs="EPSG:32654")
    scene = through_the_file(tmp_path, "tokyo-tm", "val", database, queries)
    # 0 and 1 fall out; 2 (500 m) is first and wrong, 3 (10 m, another month) is second and right.
    assert recalls(scene, [[0, 1, 2, 3]], "tokyo-tm/netvlad", 1, 2) == [0, 1]
    assert recalls(scene, [[0, 1, 2, 3]], "radius/25/all", 1) == [1]


# --- real metadata ------------------------------------------------------------------------------------------------------------


def test_pitts30k_as_published(covis_data, tmp_path):
    """The image lists and positions of Patch-NetVLAD (pitts30k_test.npz), written as the .mat that they were made from."""
    folder = covis_data / "metadata" / "pitts30k"
    stored = np.load(folder / "pitts30k_test.npz", allow_pickle=False)
    names = {
        side: [re.sub(r"^\./Pittsburgh250k/(queries_real/)?", "", line) for line in (folder / file).read_text().split()]
        for side, file in (("database", "pitts30k_imageNames_index.txt"), ("queries", "pitts30k_imageNames_query.txt"))
    }
    database = Images(tmp_path, names["database"], xy=stored["utmDb"], crs="EPSG:32617")
    queries = Images(tmp_path, names["queries"], xy=stored["utmQ"], crs="EPSG:32617")
    (path,) = write_dbstruct([Scene("pitts30k", "test", database, queries)], tmp_path, files="none")
    scene = metadata(path)  # its sizes are those of the catalogue
    assert np.array_equal(scene.database.xy, stored["utmDb"])
    assert np.array_equal(scene.queries.xy, stored["utmQ"])
    assert (len(scene.queries), len(scene.database)) == (6816, 10000)
    positions, views = np.unique(scene.queries.xy, axis=0, return_counts=True)
    assert (len(positions), set(views.tolist())) == (284, {24})
    assert len(np.unique(scene.database.xy, axis=0)) == 416
    assert len(np.unique(scene.database.place)) == 417
    gaps = np.sqrt(((positions[:, None] - np.unique(scene.database.xy, axis=0)) ** 2).sum(axis=2)).min(axis=1)
    assert (gaps <= 25).all()
    assert gaps.max() == pytest.approx(24.45, abs=0.005)
    near = Neighbours(scene.queries.xy, scene.database.xy, 25.0)
    asked = np.unique(np.concatenate([near.pairs(block)[0] for block in near.blocks(1_000_000)]))
    assert len(asked) == 6816  # every query has a positive within 25 m


REAL = {
    # fields of all three: no time stamps, and `dataset`; order unlike NetVLAD's
    "msls_amman_d-20_d2-5.db": ("test", 953, 835, 10),
    "msls_austin_d-20_d2-5.db": ("val", 4927, 1732, 10),
    "oxford-v1.0_2015-03-17-11-08-44_2014-12-16-18-44-24_test_d-10_d2-5.db": ("test", 1574, 1576, 10),
}


@pytest.mark.parametrize("file", REAL)
def test_files_of_seqnet_as_published(covis_data, file):
    split, database, queries, radius = REAL[file]
    path = covis_data / "metadata" / "dbstruct" / file
    held = read_struct(path)
    assert same_contents(read_variable(path, "dbStruct"), loadmat(path, mat_dtype=True)["dbStruct"])
    assert held.fields == (*ORDER_10[:2], "qImageFns", *ORDER_10[5:9], "dataset", "nonTrivPosDistSqThr", "utmDb", "utmQ")
    assert (held.which, held.radius, held.database_times) == (split, radius, None)
    robotcar = file.startswith("oxford")
    axes = "north-east" if robotcar else "east-north"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scene = metadata(path, split=split, axes=axes)
    assert ["posDistThr is 10 m" in str(one.message) for one in said] == [True]
    assert (len(scene.database), len(scene.queries)) == (database, queries)
    assert len(set(scene.database.names)) == database
    for images in (scene.database, scene.queries):
        assert ((images.xy[:, 0] > 1e5) & (images.xy[:, 0] < 9e5)).all()  # an easting of UTM
        assert ((images.xy[:, 1] > 3e6) & (images.xy[:, 1] < 6e6)).all()  # a northing of these cities
        steps = np.linalg.norm(np.diff(images.xy, axis=0), axis=1)
        assert 1.5 < np.median(steps) < 15  # RobotCar about 2 m, austin 3 m, amman 13 m
        assert not robotcar or steps.max() < 3
    if robotcar:
        with pytest.warns(CovisWarning) as said:
            assert metadata(path).database.xy[0].tolist() == scene.database.xy[0, ::-1].tolist()
        assert any("north before east" in str(one.message) for one in said)
