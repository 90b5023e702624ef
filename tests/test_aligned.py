"""Two folders whose images correspond: by number, by name, by order; known sets; protocols by hand, round trips, damages."""

import numpy as np
import pytest
from PIL import Image

import covis
from covis.datasets import guess_layout, read, write
from covis.datasets.aligned import SETS, draft_aligned, is_aligned, read_aligned, write_aligned
from covis.datasets.picture_folders import in_order
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.images import Images, Scene
from covis.protocols import PROTOCOLS
from covis.rankings import Rankings
from covis.truths import truth


@pytest.fixture
def tree(tmp_path):
    """A function that makes empty files in a folder; returns the folder."""

    def make(*files, folder="set"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).touch()
        return tmp_path / folder

    return make


def bench(n, *, queries=None):
    """VPR-Bench's names."""
    return [*(f"ref/{i:07d}.jpg" for i in range(n)), *(f"query/{i:07d}.jpg" for i in range(n if queries is None else queries))]


def test_vpr_bench_by_number(tree):
    (scene,) = read_aligned(tree(*bench(12), "ref/notes.txt", "ref/.hidden.jpg", "ref/more/0000099.jpg"))
    assert (scene.name, scene.split) == ("set", "test")
    assert scene.database.names[:2] == ("ref/0000000.jpg", "ref/0000001.jpg")
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == list(range(12))


def test_identity_by_hand(tree):
    """Four queries: right at the first, wrong by one, right at the second, right at the first: recall@1 2/4, @2 3/4."""
    (scene,) = read_aligned(tree(*bench(4)))
    rows = [[0, 1, 2, 3], [2, 0, 3, 1], [1, 2, 0, 3], [3, 2, 1, 0]]
    found = Rankings(rows, np.tile(np.arange(4), (4, 1)), scene.queries.names, scene.database.names)
    for name in ("sped/vpr-bench", "essex3in1/vpr-bench", "amstertime/vpr-bench", "frames/0"):
        scores = covis.evaluate(found, scene, protocol=name)
        assert [scores.metrics[f"recall@{k}"].value for k in (1, 2, 3, 4)] == [0.5, 0.75, 0.75, 1]
    assert covis.evaluate(found, scene, protocol="frames/1").metrics["recall@1"].value == 1  # all are one off at most


def test_two_frames_off_by_hand(tree):
    (scene,) = read_aligned(tree(*bench(6)))
    lists = [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5]]
    for name in ("gardenspoint/vpr-bench", "17places/vpr-bench", "frames/2"):
        positives = truth(scene, name).positives
        assert [positives[[query]].indices.tolist() for query in range(6)] == lists


def test_every_set_with_frames_has_its_protocol():
    known = {name.partition("/")[0] for name in PROTOCOLS}
    assert {name for name, (_, _, match) in SETS.items() if match != "none"} - {"corridor", "livingroom"} <= known


def test_amstertime_by_name(tree):
    folder = tree("new/7.png", "new/12.png", "new/100.png", "old/7.jpg", "old/12.jpg", "old/100.jpg")
    (scene,) = read_aligned(folder, dataset="amstertime", sizes="ignore")
    assert scene.database.names == ("new/7.png", "new/12.png", "new/100.png")  # numbers as numbers: the n-th of both are a pair
    assert scene.queries.names == ("old/7.jpg", "old/12.jpg", "old/100.jpg")
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == [0, 1, 2]
    with pytest.raises(InvalidInputError, match=r"amstertime must have 1,231 queries and 1,231 database images; found 3 queries and 3"):
        read_aligned(folder, dataset="amstertime")
    (folder / "new" / "12.png").unlink()
    with pytest.raises(InvalidInputError, match=r"every query must have an image of its name in .*new; 1 of 3 have none: 12\."):
        read_aligned(folder, dataset="amstertime", sizes="ignore")
    (folder / "old" / "12.jpg").unlink()
    assert read_aligned(folder, dataset="amstertime", sizes="ignore")[0].queries.frame.tolist() == [0, 1]


def test_names_that_are_no_numbers(tree):
    (scene,) = read_aligned(tree("ref/b.jpg", "ref/a9.jpg", "ref/a10.jpg", "query/a10.png", "query/a9.png", "query/b.png"))
    assert scene.database.names == ("ref/a9.jpg", "ref/a10.jpg", "ref/b.jpg")
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == [0, 1, 2]
    folder = tree("ref/day1.jpg", "ref/day2.jpg", "query/night7.jpg", "query/night9.jpg", folder="by-order")
    with pytest.warns(CovisWarning, match=r"no name stands in both folders; .* in order, night7\.jpg to day1\.jpg"):
        (scene,) = read_aligned(folder)
    read_aligned(folder, match="order")  # said, and so not warned of
    assert scene.queries.names == ("query/night7.jpg", "query/night9.jpg")
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == [0, 1]
    distracted = tree("ref/a.jpg", "ref/b.jpg", "ref/c.jpg", "query/b.jpg", folder="distracted")
    (scene,) = read_aligned(distracted, match="name")
    assert (scene.database.frame.tolist(), scene.queries.frame.tolist()) == ([0, 1, 2], [1])


@pytest.mark.parametrize(("ref", "query", "words"), [
    ([0, 1, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 6, 7], r"of 7 names in query and 7 in ref 6 stand in both.*match=name .*match=order"),
    ([0, 1, 2], [0, 1], r"of 2 names in query and 3 in ref 2 stand in both"),
    ([0, 1, 2], [7, 8], r"of 2 names in query and 3 in ref 0 stand in both"),
])  # fmt: skip
def test_nothing_is_guessed_of_names_that_partly_differ(tree, ref, query, words):
    folder = tree(*(f"ref/img_{n:03d}.png" for n in ref), *(f"query/img_{n:03d}.png" for n in query))
    with pytest.raises(InvalidInputError, match=words):
        read_aligned(folder)


def test_a_name_twice_and_one_more(tree):
    with pytest.raises(InvalidInputError, match=r"of 2 names in query and 1 in ref 1 stand in both"):
        read_aligned(tree("ref/a.jpg", "ref/a.png", "query/a.jpg", "query/b.jpg"))


def test_numbers_of_19_digits(tree):
    """Nanoseconds since 1970, as EuRoC names its images."""
    first = 1403636579763555584
    folder = tree(*(f"{side}/{first + 50_000_000 * n}.png" for side in ("ref", "query") for n in range(3)))
    (scene,) = read_aligned(folder, match="number")
    assert scene.queries.frame.tolist() == scene.database.frame.tolist() == [first, first + 50_000_000, first + 100_000_000]
    assert truth(scene, "frames/0").positives.toarray().tolist() == np.eye(3, dtype=bool).tolist()
    for name in ("4611686018427387904", "9" * 30, "9" * 200, "\u0661"):  # 2^62; too many digits; digits of another script
        folder = tree(f"ref/{name}.png", "query/1.png", folder=f"of {len(name)} {name[:2]}")
        with pytest.raises(InvalidInputError, match=rf"must be a number below 2\^62; found '{name}\.png'"):
            read_aligned(folder, match="number")
    assert covis.check("aligned", folder, decode=False, match="number").problems


def test_one_folder_as_both_sides(tree):
    folder = tree("ref/0.jpg", "query/0.jpg")
    for database in ("query", "./query", "ref/../query"):
        with pytest.raises(InvalidInputError, match=r"folder must be two; .*query is given as both|must be a folder inside"):
            read_aligned(folder, database=database)
    (folder / "same").symlink_to(folder / "query")
    with pytest.raises(InvalidInputError, match=r"folder must be two"):
        read_aligned(folder, database="same")


def test_a_lost_image_moves_nothing(tree):
    folder = tree(*bench(6))
    (folder / "query" / "0000002.jpg").unlink()
    with pytest.raises(InvalidInputError, match=r"must hold the same numbers; 1 stand in one alone, the first is 2"):
        read_aligned(folder)
    with pytest.raises(InvalidInputError, match=r"equally many images; query has 5, ref 6"):
        read_aligned(folder, match="order")
    (folder / "ref" / "0000004.jpg").unlink()
    with pytest.raises(InvalidInputError, match=r"2 stand in one alone, the first is 2"):
        read_aligned(folder)
    (scene,) = read_aligned(folder, match="number")
    assert scene.queries.frame.tolist() == [0, 1, 3, 4, 5]
    assert scene.database.frame.tolist() == [0, 1, 2, 3, 5]


def test_sets_whose_truth_is_a_list_get_no_frames(tree):
    (scene,) = read_aligned(tree(*bench(3)), dataset="crossseason", sizes="ignore")
    assert scene.database.frame is None
    with pytest.raises(InvalidInputError, match=r"must have frame for this"):
        truth(scene, "frames/0")


def test_known_sets_have_their_sizes(tree):
    with pytest.raises(InvalidInputError, match=r"sped must have 607 queries and 607 database images; found 3 queries and 3"):
        read_aligned(tree(*bench(3)), dataset="sped")
    with pytest.raises(InvalidInputError, match=r"sped must have 607"):
        read_aligned(tree(*bench(3), folder="SPEDTEST"))
    with pytest.warns(CovisWarning, match=r"essex3in1 must have 210"):
        read_aligned(tree(*bench(3), folder="ESSEX3IN1_dataset"), sizes="warn")
    (scene,) = read_aligned(tree(*bench(607), folder="sped"))
    assert len(scene.queries) == 607


def test_other_folders(tree):
    folder = tree("day/1.jpg", "day/2.jpg", "night/1.jpg", "night/2.jpg")
    (scene,) = read_aligned(folder, database="day", queries="night")
    assert scene.queries.names == ("night/1.jpg", "night/2.jpg")
    assert scene.queries.frame.tolist() == [1, 2]


@pytest.mark.filterwarnings("ignore:The layout of two folders:covis.errors.CovisWarning")
@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_round_trip_of_the_town(town, tmp_path, files):
    written = write("aligned", town, tmp_path, files=files)
    for folder, scene in zip(written, town, strict=True):
        (back,) = read("aligned", folder, match="number", missing="ignore" if files == "none" else "stop")
        assert back.name == scene.name
        for there, here in ((back.database, scene.database), (back.queries, scene.queries)):
            assert there.frame.tolist() == here.frame.tolist()
            if files != "none":
                assert [there.path(row).read_bytes() for row in range(3)] == [here.path(row).read_bytes() for row in range(3)]
                assert there.path(0).is_symlink() == (files == "link")
    again = write("aligned", back, tmp_path / "again", files=files)
    (second,) = read("aligned", again[0], match="number", missing="ignore")
    assert (second.database.names, second.queries.names) == (back.database.names, back.queries.names)


def test_what_is_written(town, tmp_path):
    with pytest.warns(CovisWarning, match=r"holds frames; .* it does not keep xy, heading"):
        write_aligned(town[:1], tmp_path, database="day", queries="dusk")
    assert (tmp_path / "miami" / "dusk" / "0000015.jpg").is_file() or (tmp_path / "miami" / "dusk" / "0000015.png").is_file()
    with pytest.raises(OutputExistsError):
        write_aligned(town[:1], tmp_path)
    plain = [Images(side.root, side.names) for side in (town[0].database, town[0].queries)]
    write_aligned([Scene("plain", "test", *plain)], tmp_path, files="link")  # rows as frames, and nothing to warn of
    with pytest.raises(InvalidInputError, match=r"have frames twice or below 0"):
        write_aligned([Scene("s", "test", Images("r", ["a.jpg", "b.jpg"], frame=[1, 1]), plain[1])], tmp_path)
    with pytest.raises(InvalidInputError, match=r"of the split 'test'; got"):
        write_aligned([Scene("s", "test", plain[0], plain[0])], tmp_path)
    with pytest.raises(MissingFileError, match=r"a\.jpg must be there"):
        write_aligned([Scene("s", "test", Images(tmp_path, ["a.jpg"]), plain[1])], tmp_path)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("files", "options", "words"), [
    ([], {}, r"must hold the folder 'query'"),
    (["ref/0.jpg"], {}, r"must hold the folder 'query'"),
    (["ref/0.jpg", "query/a.gif"], {}, r"query must hold images \(\.jpg, \.png\) of a set of corresponding images; found none"),
    (["ref/0.jpg", "ref/0.png", "query/0.jpg"], {}, r"a frame must have one image; ref/0\.(jpg|png) and ref/0\.(jpg|png) are both one"),
    (["ref/0.jpg", "ref/00.jpg", "query/0.jpg"], {}, r"a frame must have one image"),
    (["ref/a.jpg", "ref/a.png", "query/a.jpg"], {}, r"a frame must have one image"),
    (["ref/0.jpg", "query/a.jpg"], {"match": "number"}, r"must be a number below 2\^62; found 'a\.jpg'\. Try\s+match=name"),
    (["ref/0.jpg", "query/0.jpg"], {"match": "size"}, r"must be one of auto, number, name, order, none; got 'size'"),
    (["ref/0.jpg", "query/0.jpg"], {"split": "val"}, r"has the split 'test' alone; got 'val'"),
    (["ref/0.jpg", "query/0.jpg"], {"sizes": "no"}, r"must be one of stop, warn, ignore; got 'no'"),
    (["ref/0.jpg", "query/0.jpg"], {"invalid": "no"}, r"The policy invalid must be one of"),
    (["ref/0.jpg", "query/0.jpg"], {"database": "../set/ref"}, r"must be a folder inside"),
])  # fmt: skip
def test_damages(tree, files, options, words):
    folder = tree(*files)
    with pytest.raises(CovisError, match=words):
        read_aligned(folder, **options)


def test_lists_beside_the_folders(tree):
    folder = tree("ref/0.jpg", "ref/1.jpg", "query/0.jpg", "query/1.jpg", "ref/2.jpg")
    (folder / "ref_images_paths.txt").write_bytes(b"\xef\xbb\xbf1.jpg\r\n0.jpg\r\n")
    (scene,) = read_aligned(folder)
    assert scene.database.names == ("ref/1.jpg", "ref/0.jpg")  # the list fixes the order,
    assert scene.database.frame.tolist() == [1, 0]  # and the numbers stay what they are
    (scene,) = read_aligned(folder, match="order")
    assert (scene.queries.names[0], scene.queries.frame.tolist(), scene.database.frame.tolist()) == ("query/0.jpg", [0, 1], [0, 1])
    for line, words in (
        ("../0.jpg", "line 2: a line must be the path"),
        ("1.jpg", "line 2: an image must be listed once"),
        ("x", "line 2"),
    ):
        (folder / "ref_images_paths.txt").write_text(f"1.jpg\n{line}\n")
        with pytest.raises(InvalidInputError, match=words):
            read_aligned(folder)
    (folder / "ref_images_paths.txt").write_text("0.jpg\n1.jpg\n5.jpg\n")
    with pytest.raises(InvalidInputError, match=r"1 of 3 images of .*ref_images_paths\.txt have no file: ref/5\.jpg \(.*, line 3\)"):
        read_aligned(folder, match="number")
    (folder / "ref_images_paths.txt").write_text("\n")
    with pytest.raises(MissingFileError, match=r"ref_images_paths\.txt must hold images"):
        read_aligned(folder)


def test_a_set_is_written_as_its_authors_lay_it_out(tree, tmp_path):
    source = tree("a/0.jpg", "b/0.jpg")
    sides = (Images(source, ["a/0.jpg"]), Images(source, ["b/0.jpg"]))
    for name, folders in (("amstertime", ("new", "old")), ("AmsterTime-v1.0", ("new", "old")), ("sped", ("ref", "query"))):
        (folder,) = write_aligned([Scene(name, "test", *sides)], tmp_path / "out")
        assert sorted(path.name for path in folder.iterdir()) == sorted(folders)
        (back,) = read_aligned(folder, sizes="ignore")
        assert (back.database.frame.tolist(), back.queries.frame.tolist()) == ([0], [0])


@pytest.mark.parametrize("sides", [{"database": "query"}, {"database": "query/x"}, {"queries": "ref/y"}, {"queries": "./ref"}])
def test_folders_that_are_not_apart_are_not_written(tree, tmp_path, sides):
    source = tree("a/0.jpg", "b/0.jpg")
    scene = Scene("s", "test", Images(source, ["a/0.jpg"]), Images(source, ["b/0.jpg"]))
    with pytest.raises(InvalidInputError, match=r"to two folders, neither inside the other"):
        write_aligned([scene], tmp_path / "out", **sides)
    assert not (tmp_path / "out").exists()


def test_all_scenes_or_none(tree, tmp_path):
    source = tree("a/0.jpg", "b/0.jpg")
    sides = (Images(source, ["a/0.jpg"]), Images(source, ["b/0.jpg"]))
    (tmp_path / "out" / "two").mkdir(parents=True)
    with pytest.raises(OutputExistsError):
        write_aligned([Scene("one", "test", *sides), Scene("two", "test", *sides)], tmp_path / "out")
    twice = Images(source, ["a/0.jpg", "a/1.jpg"], frame=[1, 1])
    with pytest.raises(InvalidInputError, match="frames twice"):
        write_aligned([Scene("one", "test", *sides), Scene("three", "test", twice, sides[1])], tmp_path / "out")
    assert not (tmp_path / "out" / "one").exists()


def test_unknown_sets_and_folders(tree, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no set of corresponding images called 'spedd'\. Did you mean 'sped'"):
        read_aligned(tree(*bench(2)), dataset="spedd")
    with pytest.raises(MissingFileError, match="there is no such folder"):
        read_aligned(tmp_path / "no")
    with pytest.raises(MissingFileError, match=r"0000000\.jpg must be a folder that holds two, .*; it is a file"):
        read_aligned(tree(*bench(2)) / "ref" / "0000000.jpg")


def photograph(path, *, gps=False):
    """A small picture, with a position if that is asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if gps:
        exif[34853] = {1: "N", 2: (48.0, 10.0, 0.0), 3: "E", 4: (11.0, 5.0, 0.0)}
    Image.new("RGB", (8, 6)).save(path, exif=exif)


@pytest.mark.parametrize(("folder", "sides", "name", "gps", "taken"), [
    ("set", ("ref", "query"), "0.jpg", False, True),
    ("AmsterTime", ("new", "old"), "0.jpg", False, True),
    ("set", ("new", "old"), "0.jpg", False, False),  # anybody's folders
    ("set", ("database", "queries"), "0.jpg", False, False),
    ("AmsterTime", ("new", "old"), "0.jpg", True, False),
    ("set", ("ref", "query"), "0.jpg", True, False),
    ("set", ("ref", "query"), "@500000.00@4180000.00@17@T@.jpg", False, False),
])  # fmt: skip
def test_the_layout_is_guessed_where_it_is_plain(tmp_path, folder, sides, name, gps, taken):
    for side in sides:
        photograph(tmp_path / folder / side / name, gps=gps)
    assert is_aligned(tmp_path / folder) == taken
    assert (guess_layout(tmp_path / folder) == "aligned") == taken


def test_guesses_need_two_folders_and_their_images(tree):
    assert not is_aligned(tree("ref/0.jpg", folder="one side"))
    assert not is_aligned(tree("ref/0.jpg", "query/a.txt", folder="no image"))
    folder = tree("ref/0.jpg", folder="listed")
    (folder / "query_images_paths.txt").write_text("0.jpg\n")
    assert is_aligned(folder)
    (folder / "query_images_paths.txt").write_text("../0.jpg\n")
    assert not is_aligned(folder)
    assert draft_aligned(tree(*bench(2)))[0].name == "set"


def test_order_of_names():
    assert sorted(["b1", "a10", "a9", "10", "9", "a9b", "a09"], key=in_order) == ["9", "10", "a09", "a9", "a9b", "a10", "b1"]
