"""Lists and ground truth as .npy arrays: every form of truth, the real lists of MSLS, round trips, damages, the command."""

import re
import shutil

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

import covis
from covis.cli import app
from covis.datasets import guess_layout, read, write
from covis.datasets.npy_lists import draft_npy, read_npy, read_npy_labels, write_npy
from covis.datasets.npy_truth import read_indices, read_names, read_truth, truth_labels, write_truth
from covis.datasets.object_arrays import read_array
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene
from covis.labels import Labels
from covis.rankings import Rankings

LISTS = [[0, 2], [], [1]]
DENSE = [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def objects(*entries):
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def pairs(lists):
    array = np.empty((len(lists), 2), dtype=object)
    for place, entries in enumerate(lists):
        array[place] = [place, entries]
    return array


def in_a_column(lists):
    array = np.empty((len(lists), 1), dtype=object)
    for place, entries in enumerate(lists):
        array[place, 0] = entries
    return array


@pytest.fixture
def lists(tmp_path):
    """A function that writes the lists of a set; returns the folder."""

    def make(
        name="SET",
        *,
        folder="set",
        database=("ref/0.jpg", "ref/1.jpg", "ref/2.jpg", "ref/3.jpg"),
        queries=("a.jpg", "b.jpg", "c.jpg"),
        **more,
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        for ending, array in {"dbImages": np.array(database), "qImages": np.array(queries), **more}.items():
            if array is not None:
                np.save(tmp_path / folder / f"{name}_{ending}.npy", array)
        return tmp_path / folder

    return make


@pytest.mark.parametrize("truth", [
    objects(np.array([0, 2]), np.array([], dtype=np.int64), np.array([1])),
    objects([2, 0], [], [1]),
    objects(np.array([0, 2], dtype=np.uint8), [], 1),
    pairs(LISTS), pairs([np.array(one, dtype=int) for one in LISTS])[::-1],
    np.array(DENSE, dtype=bool), np.asfortranarray(np.array(DENSE, dtype=bool)),
    np.array([[0, 2, -1], [-1, -1, -1], [1, -1, -1]]),
    np.array([[0, 2, -1], [-1, -1, -1], [1, -1, -1]], dtype=object),  # rectangular: plain numbers
    in_a_column(LISTS),
])  # fmt: skip
def test_forms_of_truth(tmp_path, truth):
    np.save(tmp_path / "gt.npy", truth)
    assert read_truth(tmp_path / "gt.npy", queries=3, database=4).toarray().astype(int).tolist() == DENSE


def test_one_image_a_query(tmp_path):
    column = np.array([[3], [1], [0]])
    for truth in (column, np.array([3, 1, 0], dtype=np.int32), objects(3, 1, 0), column.astype(object), in_a_column([[3], [1], [0]])):
        np.save(tmp_path / "gt.npy", truth)
        assert read_truth(tmp_path / "gt.npy", queries=3, database=4).tocoo().coords[1].tolist() == [3, 1, 0]


def test_two_columns_may_be_two_things(tmp_path):
    file = tmp_path / "gt.npy"
    np.save(file, np.array([[0, 3], [1, 2], [2, 0]]))
    with pytest.raises(InvalidInputError, match=r"gt\.npy may be two indices a query, or pairs .* form=lists or form=vpr-bench"):
        read_truth(file, queries=3, database=4)
    assert read_truth(file, queries=3, database=4, form="lists").toarray().astype(int).tolist() == [
        [1, 0, 0, 1],
        [0, 1, 1, 0],
        [1, 0, 1, 0],
    ]
    assert read_truth(file, queries=3, database=4, form="vpr-bench").tocoo().coords[1].tolist() == [3, 2, 0]
    for odd in (np.array([[1, 0], [2, 1], [3, 2]]), np.array([[0, 3], [1, 2], [2, 0]], dtype=object), np.array([[2, 0], [0, 3], [1, 1]])):
        np.save(file, odd)  # counted from 1, as objects, in another order
        with pytest.raises(InvalidInputError, match=r"may be two indices a query, or pairs"):
            read_truth(file, queries=3, database=4)
    np.save(file, np.array([[1, 0], [2, 1], [3, 2]]))
    with pytest.raises(InvalidInputError, match=r"speak of each of 3 queries once, from 0 on"):
        read_truth(file, queries=3, database=4, form="vpr-bench")
    np.save(file, np.array([[0, 3], [0, 2], [2, 0]]))  # the first column is no numbering
    assert read_truth(file, queries=3, database=4).nnz == 6


def test_a_matrix_the_other_way_round(tmp_path):
    file = tmp_path / "gt.npy"
    np.save(file, np.array(DENSE, dtype=bool).T)
    with pytest.raises(
        InvalidInputError, match=r"must be 3 queries x 4 database images; its shape is \(4, 3\)\. It would fit .* transposed=true"
    ):
        read_truth(file, queries=3, database=4)
    assert read_truth(file, queries=3, database=4, transposed=True).toarray().astype(int).tolist() == DENSE
    np.save(file, np.array(DENSE, dtype=np.uint8))
    assert read_truth(file, queries=3, database=4, form="matrix").nnz == 3


@pytest.mark.parametrize("form", [np.uint8, np.int64, object])
@pytest.mark.parametrize(("array", "queries", "database"), [
    (DENSE, 3, 4),
    (np.array(DENSE).T, 3, 4),
    ([[0, 1], [1, 0], [0, 0]], 3, 2),
    ([[0, 1], [0, 1]], 2, 3000),  # by its first column it is no numbering; two of 0 and 1 can be lists
    (np.eye(5, dtype=int), 5, 9),  # no matrix of these, and no lists of anything
])  # fmt: skip
def test_0_and_1_may_be_a_matrix(tmp_path, form, array, queries, database):
    file = tmp_path / "gt.npy"
    np.save(file, np.array(array, dtype=form))
    if database == 3000:
        assert read_truth(file, queries=queries, database=database).tocoo().coords[1].tolist() == [0, 1, 0, 1]
        return
    with pytest.raises(InvalidInputError, match=r"holds 0 and 1 alone, in \d rows of \d: .* form=matrix or form=lists"):
        read_truth(file, queries=queries, database=database)
    if database == 4:
        turned = np.shape(array) == (4, 3)
        assert read_truth(file, queries=3, database=4, form="matrix", transposed=turned).toarray().astype(int).tolist() == DENSE


def test_0_and_1_that_are_turned_round(tmp_path):
    """Two columns of another shape than both sides: said to be transposed, it can only be a matrix."""
    np.save(tmp_path / "gt.npy", np.array([[0, 1], [0, 1]]))
    with pytest.raises(InvalidInputError, match=r"form=matrix"):
        read_truth(tmp_path / "gt.npy", queries=2, database=9, transposed=True)


def test_indices_over_the_end(tmp_path):
    np.save(tmp_path / "gt.npy", pairs([[0, 1, 2], [1, 2, 3, 4], [4, 5]]))
    with pytest.raises(
        InvalidInputError, match=r"row 1: an index must be one of the 4 database images, from 0 on; found 4 \(3 such in all\).*beyond=drop"
    ):
        read_truth(tmp_path / "gt.npy", queries=3, database=4)
    with pytest.warns(CovisWarning, match=r"3 indices are of no database image and are left out"):
        found = read_truth(tmp_path / "gt.npy", queries=3, database=4, beyond="drop")
    assert found.toarray().astype(int).tolist() == [[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(("truth", "options", "words"), [
    (objects([0], [1]), {}, r"must say the right images of 3 queries; its shape is \(2,\).*_qIdx\.npy"),
    (np.array(3), {"form": "lists"}, r"must say the right images of 3 queries"),
    (objects([0], [-2], [1]), {"beyond": "drop"}, r"row 1: an index must be .* found -2"),
    (objects([0], ["a"], [1]), {}, r"row 1: the right images must be one list of whole numbers; found a list of 1 that begins with 'a'"),
    (objects([0], [[1, 2]], [1]), {}, r"row 1: the right images must be one list of whole numbers"),
    (objects([0], [2**70], [1]), {}, r"row 1: the right images must be one list of whole numbers"),
    (np.array([[0.0], [1.0], [2.0]]), {}, r"row 0: the right images must be one list of whole numbers; found float64 of the shape \(1,\)"),
    (np.array([0, np.nan, 1]), {}, r"the right images must be one list of whole numbers"),
    (np.array(["a", "b", "c"]), {}, r"the right images must be one list of whole numbers"),
    (np.zeros((3, 5), dtype=bool), {}, r"must be 3 queries x 4 database images; its shape is \(3, 5\)\.$"),
    (np.array(DENSE) * 2, {"form": "matrix"}, r"must be a matrix of truths"),
    (np.zeros((3, 1, 1), dtype=int), {}, r"must be one list of whole numbers; found int64 of the shape \(1, 1\)"),
    (objects([0], [2, 2], [1]), {}, r"row 1: a list of right images has each once; 2 stands again"),
    (np.array([[0, -1, -1], [3, 1, 3], [2, -1, -1]]), {}, r"row 1: a list of right images has each once; 3 stands again"),
    (np.array(DENSE), {"form": "lists"}, r"row 0: a list of right images has each once; 0 stands again\. Is it a matrix"),
    (np.array(DENSE, dtype=bool)[:, :1], {"form": "lists"}, r"found bool of the shape \(1,\)"),
    (np.array([[2**64 - 1]] * 3, dtype=np.uint64), {}, r"row 0: the right images must be one list of whole numbers"),
    (np.array([["a", "b"]] * 3), {}, r"row 0: the right images must be one list of whole numbers; found <U1 of the shape \(2,\)"),
    (objects(*[["x" * 99]] * 3), {}, r"begins with 'x{60}'\."),
    (objects([1], [[[2]]], []), {}, r"row 1: .* found a list of 1 that begins with a list"),
    (objects([0], [1], [2]), {"transposed": True}, r"Only a matrix can be transposed; .*gt\.npy is read as lists"),
    (np.array([[0], [1], [2]]), {"transposed": True, "form": "lists"}, r"Only a matrix can be transposed"),
    (pairs(LISTS), {"transposed": True}, r"Only a matrix can be transposed; .* is read as vpr-bench"),
    (pairs([[0], [1]]), {}, r"must say the right images of 3 queries"),
    (np.array([[0, [1]], [0, [2]], [2, [3]]], dtype=object), {}, r"must speak of each of 3 queries once"),
    (np.arange(3), {"form": "vpr-bench"}, r"must be pairs of a query's index and its list"),
    (np.arange(3), {"form": "list"}, r"The form must be one of auto, lists, matrix, vpr-bench; got 'list'"),
    (np.arange(3), {"beyond": "keep"}, r"The policy beyond must be one of stop, drop; got 'keep'"),
])  # fmt: skip
def test_truth_that_is_none(tmp_path, truth, options, words):
    np.save(tmp_path / "gt.npy", truth)
    with pytest.raises(InvalidInputError, match=words):
        read_truth(tmp_path / "gt.npy", queries=3, database=4, **options)


@pytest.mark.parametrize("lists", [LISTS, [[0], [3], [1]], [[0, 1], [2], [3]], [[], [], []], [[0, 1, 2, 3], [3], []]])
def test_written_truth_is_plain_and_comes_back(tmp_path, lists):
    dense = np.array([[column in row for column in range(4)] for row in lists])
    file = write_truth(tmp_path / "gt.npy", sparse.csr_array(dense))
    stored = np.load(file, allow_pickle=False)
    assert stored.dtype == np.int64
    assert stored.shape[1] != 2
    np.testing.assert_array_equal(read_truth(file, queries=3, database=4).toarray(), dense)


def test_indices_and_names(tmp_path):
    file = tmp_path / "a.npy"
    for array, words in (
        (np.array([[0, 1]]), "must be one list of whole numbers"), (np.array([0.0]), "must be one list of whole numbers"),
        (np.array([0, 5]), "entry 1 is 5"), (np.array([-1]), "entry 0 is -1"), (np.array([1, 1]), "it names 1 again"),
    ):  # fmt: skip
        np.save(file, array)
        with pytest.raises(InvalidInputError, match=words):
            read_indices(file, among=5)
    np.save(file, objects("a.jpg", "b/ü.jpg"))
    assert read_names(file) == ("a.jpg", "b/ü.jpg")
    for array, words in (
        (np.array([["a"]]), r"it is <U1 of the shape \(1, 1\)"), (np.array([1]), "entry 0 is 1"), (objects("a", 3), "entry 1 is 3"),
        (np.array(["a\nb"]), r"entry 0 is 'a\\nb'"), (np.array([b"a"]), "entry 0 is b'a'"),
    ):  # fmt: skip
        np.save(file, array)
        with pytest.raises(DamagedFileError, match=words):
            read_names(file)
    file.write_bytes(
        b"\x93NUMPY\x01\x00\x40\x00" + b"{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }".ljust(64) + b"\xff\xff\xff\x7f"
    )
    with pytest.raises(DamagedFileError, match="a character of its text is none"):
        read_names(file)


def test_a_set_is_read(lists):
    folder = lists(gt=np.array([[1], [0], [3]]))
    (scene,) = read_npy(folder, missing="ignore")
    assert (scene.name, scene.split, scene.database.root) == ("SET", "test", folder)
    assert scene.database.names[-1] == "ref/3.jpg"
    assert scene.database.frame is None
    (labels,) = read_npy_labels(folder)
    assert labels.matrix.toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert (labels.query_names, labels.rule, labels.parameters["file"]) == (("a.jpg", "b.jpg", "c.jpg"), "ground-truth", "SET_gt.npy")
    with pytest.raises(InvalidInputError, match=r"4 of 4 images of .*SET_dbImages\.npy have no file: ref/0\.jpg"):
        read_npy(folder)
    assert guess_layout(folder) == "npy"
    assert draft_npy(folder)[0].name == "SET"


def test_images_elsewhere(lists, tmp_path):
    folder = lists(database=("./x.jpg",), queries=("y.jpg",))
    for name in ("x.jpg", "y.jpg"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).touch()
    for images in ("../photos", tmp_path / "photos"):
        (scene,) = read_npy(folder, images=images)
        assert scene.database.names == ("x.jpg",)
        assert scene.database.path(0).is_file()


def test_asked_queries(lists):
    folder = lists("mine_val", qIdx=np.array([2, 0]), pIdx=objects(np.array([3]), np.array([1, 2])))
    (scene,) = read_npy(folder, split="val", missing="ignore")
    assert scene.queries.names == ("c.jpg", "a.jpg")
    assert read_npy_labels(folder, split="val")[0].matrix.toarray().tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]
    (scene,) = read_npy(folder, split="val", missing="ignore", queries="all")
    assert scene.queries.names == ("a.jpg", "b.jpg", "c.jpg")
    assert read_npy_labels(folder, split="val", queries="all")[0].matrix.toarray().tolist() == [[0, 1, 1, 0], [0] * 4, [0, 0, 0, 1]]


def test_several_sets_in_a_folder(lists):
    for name in ("pitts_test", "pitts_val", "other_test"):
        folder = lists(name, gt=np.arange(3))
    assert read_npy(folder, split="val", missing="ignore")[0].name == "pitts_val"
    assert read_npy(folder, name="other_test", missing="ignore")[0].name == "other_test"
    with pytest.raises(
        InvalidInputError, match=r"one set of the split 'test'; it has other_test \(test\), pitts_test \(test\), pitts_val \(val\)"
    ):
        read_npy(folder)
    with pytest.raises(InvalidInputError, match=r"the set 'pitts_val' of the split 'test'"):
        read_npy(folder, name="pitts_val")


def test_frames_of_sets_whose_truth_is_one_to_one(lists):
    folder = lists("SPED", database=[f"ref/{n:07d}.jpg" for n in range(607)], queries=[f"query/{n:07d}.jpg" for n in range(607)])
    (scene,) = read_npy(folder, missing="ignore")
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == list(range(607))
    all_of_it = [f"ref/{n:07d}.jpg" for n in range(27592)], [f"query/{n:07d}.jpg" for n in range(2760)]
    folder = lists("Nordland", folder="whole", database=all_of_it[0], queries=all_of_it[1])
    (scene,) = read_npy(folder, missing="ignore")
    assert (scene.queries.frame[:3].tolist(), scene.database.frame[-1]) == ([0, 10, 20], 27591)
    folder = lists("nordland", folder="n", database=[f"ref/{n:07d}.jpg" for n in range(25)], queries=["query/0.jpg", "query/1.jpg"])
    (scene,) = read_npy(folder, missing="ignore", sizes="ignore")
    assert (scene.queries.frame, scene.database.frame) == (None, None)  # of another set, a place in a list says nothing
    with pytest.raises(InvalidInputError, match=r"nordland \(vpr-bench\) must have 2,760 queries"):
        read_npy(folder, missing="ignore")


@pytest.mark.parametrize(("more", "options", "words"), [
    ({"qImages": None}, {}, r"SET_qImages\.npy must exist"),
    ({"database": ["../a.jpg"]}, {}, r"SET_dbImages\.npy, entry 0: .* inside the folder of images; found '\.\./a\.jpg'"),
    ({"database": ["a/../../b.jpg"]}, {}, r"inside the folder of images"),
    ({"database": ["/etc/a.jpg"]}, {}, r"inside the folder of images"),
    ({"database": ["a\\..\\..\\b.jpg"]}, {}, r"inside the folder of images"),
    ({"database": [""]}, {}, r"inside the folder of images; found ''"),
    ({"database": ["a.jpg", "a.jpg"]}, {"missing": "ignore"}, r"the name stands at .* too; keep one"),
    ({"database": [1, 2]}, {}, r"must be one list of image names; entry 0 is 1"),
    ({"qIdx": np.array([7])}, {}, r"SET_qIdx\.npy: every index must be one of the 3 images"),
    ({}, {"split": "val"}, r"one set of the split 'val'; it has SET \(test\)"),
    ({}, {"split": "mine"}, r"must be 'train', 'val' or 'test'; got 'mine'"),
    ({}, {"name": "OTHER"}, r"the set 'OTHER' of the split 'test'"),
    ({}, {"queries": "some"}, r"must be 'asked' or 'all'; got 'some'"),
    ({}, {"sizes": "some"}, r"must be one of stop, warn, ignore"),
])  # fmt: skip
def test_damaged_lists(lists, more, options, words):
    with pytest.raises(CovisError, match=words):
        read_npy(lists(**more), **options)


def test_every_cut_of_a_list(lists, refuses_every_cut):
    folder = lists()
    refuses_every_cut(folder / "SET_dbImages.npy", lambda: read_npy(folder, missing="ignore"))


def test_truth_that_is_not_there_or_twice(lists, tmp_path):
    folder = lists()
    with pytest.raises(MissingFileError, match=r"must hold the truth of 'SET' \(SET_gt\.npy, say\)"):
        read_npy_labels(folder)
    lists(gt=np.arange(3), gt_25m=np.arange(3))
    with pytest.raises(InvalidInputError, match=r"one truth of 'SET'; found SET_gt\.npy and SET_gt_25m\.npy"):
        read_npy_labels(folder)
    for place in (tmp_path / "no", tmp_path):
        with pytest.raises(MissingFileError, match=r"_dbImages\.npy"):
            read_npy(place)
    with pytest.raises(MissingFileError, match=r"SET_gt\.npy must be a folder .*; it is a file"):
        read_npy(folder / "SET_gt.npy")


@pytest.mark.filterwarnings("ignore:Lists in numpy arrays hold names:covis.errors.CovisWarning")
@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_round_trip_of_the_town(town, tmp_path, files):
    labels = [covis.label_by_distance(scene.queries, scene.database) for scene in town]
    written = write("npy", town, tmp_path, files=files, labels=labels)
    for folder, scene, label in zip(written, town, labels, strict=True):
        (back,) = read("npy", folder, missing="ignore" if files == "none" else "stop")
        assert (back.name, back.database.names, back.queries.names) == (scene.name, scene.database.names, scene.queries.names)
        (truth,) = read_npy_labels(folder)
        assert (truth.positives(0.5) != label.positives(0.5)).nnz == 0
        assert truth.matrix.nnz > 0
        if files != "none":
            assert back.queries.path(3).read_bytes() == scene.queries.path(3).read_bytes()
            assert back.queries.path(3).is_symlink() == (files == "link")
        again = write("npy", back, tmp_path / "again", files=files, labels=[truth], overwrite=True)
        for name in (f"{scene.name}_dbImages.npy", f"{scene.name}_qImages.npy", f"{scene.name}_gt.npy"):
            assert (again[0] / name).read_bytes() == (folder / name).read_bytes()


def test_what_is_written(town, tmp_path):
    with pytest.warns(CovisWarning, match=r"hold names; .* they do not keep xy, heading"):
        write_npy(town[:1], tmp_path, files="none")
    with pytest.raises(OutputExistsError):
        write_npy(town[:1], tmp_path, files="none")
    a, b = Images(tmp_path, ["a.jpg"]), Images(tmp_path, ["b.jpg"])
    write_npy([Scene("x_val", "val", a, b)], tmp_path, files="none")
    assert read_npy(tmp_path / "x_val", split="val", missing="ignore")[0].queries.names == ("queries/b.jpg",)
    wrong = Labels(sparse.csr_array([[1.0]]), ("c.jpg",), ("a.jpg",), rule="by hand")
    for scene, options, words in (
        (Scene("s", "val", a, b), {}, "of the split test, or of the split that the scene's name ends in; got 's', split 'val'"),
        (Scene("s", "test", a, a), {}, "with one side"),
        (Scene("s", "test", a, b), {"labels": [wrong]}, "must be of its images, in their order"),
        (Scene("s", "test", Images("r", ["a.jpg", "database/a.jpg"]), b), {}, "would share one"),
        (Scene("s", "test", Images("r", ["../a.jpg"]), b), {}, "must be one inside its folder"),
        (Scene("s", "test", Images("r", ["a\t.jpg"]), b), {}, "must be one inside its folder"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            write_npy([scene], tmp_path, files="none", **options)
    assert not (tmp_path / "s").exists()


@pytest.fixture
def msls_val(covis_data, tmp_path):
    """MSLS val as gsv-cities lists it; its database from the lists of Patch-NetVLAD, cph then sf."""
    source, folder = covis_data / "metadata" / "msls_lists", tmp_path / "msls_val"
    folder.mkdir()
    for ending in ("qImages", "qIdx", "pIdx"):
        shutil.copyfile(source / f"msls_val_{ending}.npy", folder / f"msls_val_{ending}.npy")
    database = [
        line.removeprefix("./Mapillary_Street_Level_Sequences/")
        for city in ("cph", "sf")
        for line in (source / f"mapillary{city}_imageNames_index.txt").read_text().split()
    ]
    np.save(folder / "msls_val_dbImages.npy", np.array(database))
    return folder


def cities(names):
    return np.array([re.fullmatch(r"train_val/(cph|sf)/(?:query|database)/images/.*", name)[1] for name in names])


def test_the_740_queries_of_msls_val(msls_val):
    (every,) = read_npy(msls_val, split="val", missing="ignore", queries="all")
    (scene,) = read_npy(msls_val, split="val", missing="ignore")
    assert (len(every.queries), len(scene.queries), len(scene.database)) == (747, 740, 18_871)
    dropped = [row for row, name in enumerate(every.queries.names) if name not in set(scene.queries.names)]
    assert dropped == [487, 551, 626, 629, 630, 704, 737]
    here, there = cities(scene.queries.names), cities(scene.database.names)
    assert [(here == city).sum() for city in ("cph", "sf")] == [498, 242]
    assert [(there == city).sum() for city in ("cph", "sf")] == [12_556, 6_315]
    (labels,) = read_npy_labels(msls_val, split="val")
    counts = np.diff(labels.matrix.indptr)
    assert (counts.min(), counts.max(), round(counts.mean(), 2)) == (1, 88, 10.75)
    found = labels.matrix.tocoo()
    assert (here[found.coords[0]] == there[found.coords[1]]).all()
    (all_labels,) = read_npy_labels(msls_val, split="val", queries="all")
    assert np.flatnonzero(np.diff(all_labels.matrix.indptr) == 0).tolist() == dropped
    assert (all_labels.matrix[np.setdiff1d(np.arange(747), dropped)] != labels.matrix).nnz == 0


def test_a_ranking_of_msls_val_scores_as_counted_directly(msls_val):
    (scene,) = read_npy(msls_val, split="val", missing="ignore")
    (labels,) = read_npy_labels(msls_val, split="val")
    positives = read_array(msls_val / "msls_val_pIdx.npy")  # which test_object_arrays holds against numpy's own reading
    random = np.random.default_rng(3)
    rows = np.array([random.choice(18_871, 25, replace=False) for _ in range(740)])
    for query in range(0, 740, 2):  # half of them find one, at some rank
        place = query % 25
        rows[query] = [row if row != positives[query][0] else 0 for row in rows[query]]
        rows[query, place] = positives[query][0]
    hits = np.array([np.isin(rows[query], positives[query]) for query in range(740)])
    found = Rankings(rows, np.tile(np.arange(25), (740, 1)), scene.queries.names, scene.database.names)
    scores = covis.evaluate(found, scene, labels=labels, protocol="graded/0.5")
    for k in (1, 5, 10, 20, 25):
        assert scores.metrics[f"recall@{k}"].value == pytest.approx(hits[:, :k].any(axis=1).mean(), abs=1e-12)
        assert scores.metrics[f"recall@{k}"].n == 740
    assert scores.metrics["recall@25"].value > 0.5


def run(*words):
    return CliRunner().invoke(app, ["convert", "ground-truth", *map(str, words)])


def test_the_command(lists, tmp_path):
    folder = lists(truth=pairs([[1], [0, 3], [4, 2]]))
    file, out = folder / "SET_truth.npy", tmp_path / "labels.npz"
    refused = run(file, folder, "--read", "missing=ignore", "--out", out)
    assert "row 2: an index must be one of the 4" in str(refused.exception)
    assert not out.exists()
    with pytest.warns(CovisWarning, match="1 indices are of no database image"):
        done = run(file, folder, "--read", "missing=ignore", "--out", out, "--beyond", "drop")
    assert done.exit_code == 0, done.output
    assert Labels.load(out).matrix.toarray().tolist() == [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]
    assert isinstance(run(file, folder, "--read", "missing=ignore", "--out", out, "--beyond", "drop").exception, OutputExistsError)
    np.save(folder / "asked.npy", [2])
    np.save(folder / "some.npy", objects([3, 0]))
    words = (folder / "some.npy", folder, "--read", "missing=ignore", "--asked", folder / "asked.npy", "--out", tmp_path / "many")
    assert run(*words).exit_code == 0
    assert Labels.load(tmp_path / "many" / "SET.npz").matrix.toarray().tolist() == [[0] * 4, [0] * 4, [1, 0, 0, 1]]
    assert isinstance(run(file, folder, "--read", "missing=ignore", "--out", tmp_path / "a.txt").exception, InvalidInputError)


@pytest.mark.parametrize("policy", ["missing=skip", "invalid=skip"])
def test_the_command_needs_every_image(lists, tmp_path, policy):
    folder = lists(gt=objects([1], [2, 3], [0]))
    for name in ("ref/0.jpg", "ref/2.jpg", "ref/3.jpg", "a.jpg", "b.jpg", "c.jpg"):  # ref/1.jpg is not there
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    refused = run(folder / "SET_gt.npy", folder, "--read", policy, "--out", tmp_path / "a.npz").exception
    assert isinstance(refused, InvalidInputError)
    assert re.search(rf"count every image that is listed; with --read {policy} they would mean others\. .* missing=ignore", str(refused))
    assert not (tmp_path / "a.npz").exists()
    assert run(folder / "SET_gt.npy", folder, "--read", "missing=ignore", "--out", tmp_path / "a.npz").exit_code == 0
    assert Labels.load(tmp_path / "a.npz").matrix.toarray().tolist() == [[0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]]


def test_all_scenes_or_none(tmp_path):
    a, b = Images(tmp_path, ["a.jpg"]), Images(tmp_path, ["b.jpg"])
    for name in "ab":
        (tmp_path / f"{name}.jpg").touch()
    (tmp_path / "out" / "two").mkdir(parents=True)
    with pytest.raises(OutputExistsError):
        write_npy([Scene("one", "test", a, b), Scene("two", "test", a, b)], tmp_path / "out")
    with pytest.raises(InvalidInputError, match="would share one"):
        write_npy([Scene("one", "test", a, b), Scene("three", "test", Images("r", ["a.jpg", "database/a.jpg"]), b)], tmp_path / "out")
    assert not (tmp_path / "out" / "one").exists()


def test_truth_of_several_scenes_counts_on(tmp_path):
    scenes = [Scene(name, "test", Images(name, [f"{n}.jpg" for n in range(3)]), Images(name, ["q.jpg", "r.jpg"])) for name in ("cph", "sf")]
    np.save(tmp_path / "gt.npy", objects([0], [2, 1], [3], [5]))
    cph, sf = truth_labels(tmp_path / "gt.npy", scenes)
    assert cph.matrix.toarray().tolist() == [[1, 0, 0], [0, 1, 1]]
    assert sf.matrix.toarray().tolist() == [[1, 0, 0], [0, 0, 1]]
    np.save(tmp_path / "gt.npy", objects([0], [2, 4], [3], [5]))
    with pytest.raises(InvalidInputError, match=r"1 of the images that are right for queries of scene 'cph' are of other scenes"):
        truth_labels(tmp_path / "gt.npy", scenes)
