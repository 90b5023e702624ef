"""Nordland in its three arrangements: frames, sizes, protocols by hand, round trips, damages."""

import re

import numpy as np
import pytest

import covis
from covis.datasets import guess_layout, read, write
from covis.datasets.nordland import SPACING, draft_nordland, is_nordland, read_nordland, write_nordland
from covis.datasets.utm_names import read_utm
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene
from covis.rankings import Rankings
from covis.truths import truth


@pytest.fixture
def tree(tmp_path):
    """A function that makes empty files in a folder; returns the folder."""

    def make(*files, folder="nordland"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).touch()
        return tmp_path / folder

    return make


def line(n):
    """The name of frame n, as VPR-datasets-downloader makes it: five digits, one decimal."""
    return f"@0@{n * 25 / 10.5:07.1f}@@@@@{n}@@@@@@@@.jpg"


def recall(scene, order, protocol):
    """Recall@1 of each query, where query i finds the database images in this order of frames."""
    row = {int(frame): place for place, frame in enumerate(scene.database.frame)}
    rows = [[row[frame] for frame in frames] for frames in order]
    found = Rankings(rows, np.tile(np.arange(len(rows[0])), (len(rows), 1)), scene.queries.names, scene.database.names)
    return covis.evaluate(found, scene, protocol=protocol).per_query["recall@1"].tolist()


def first(scene, frames):
    """Rankings that begin with these frames and go on with all others."""
    everything = scene.database.frame.tolist()
    return [[frame, *(other for other in everything if other != frame)] for frame in frames]


def test_pnv_counts_places_and_not_numbers(tree):
    kept = [202, 203, 204, 210, 211, 300]  # the filtered list has gaps
    folder = tree(*(f"{season}/images-{n:05d}.png" for season in ("summer", "winter") for n in kept), "summer/notes.txt")
    (scene,) = read_nordland(folder, sizes="ignore")
    assert (scene.name, scene.split, scene.database.root) == ("nordland", "test", folder)
    assert scene.database.names[0] == "summer/images-00202.png"
    assert scene.queries.names[-1] == "winter/images-00300.png"
    assert scene.database.frame.tolist() == scene.queries.frame.tolist() == [0, 1, 2, 3, 4, 5]


def test_pnv_within_7_places(tree):
    folder = tree(*(f"{season}/images-{3 * n:05d}.png" for season in ("summer", "winter") for n in range(20)))
    (scene,) = read_nordland(folder, sizes="ignore")
    # query i is answered with frame i + 7 (right), then with frame i + 8 (wrong)
    assert recall(scene, first(scene, [min(i + 7, 19) for i in range(20)]), "nordland/pnv") == [1] * 20
    wrong = [i + 8 if i + 8 < 20 else i - 8 for i in range(20)]
    assert recall(scene, first(scene, wrong), "nordland/pnv") == [0] * 20
    assert truth(scene, "nordland/pnv").positives.sum(axis=1).tolist() == [
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        *[15] * 6,
        14,
        13,
        12,
        11,
        10,
        9,
        8,
    ]


def test_a_lost_image_does_not_move_the_others(tree):
    folder = tree(*(f"{season}/images-{n:05d}.png" for season in ("summer", "winter") for n in range(5)))
    (folder / "winter" / "images-00001.png").unlink()
    (scene,) = read_nordland(folder, sizes="ignore")
    assert scene.queries.frame.tolist() == [0, 2, 3, 4]
    with pytest.raises(InvalidInputError, match=r"must have 27,592 queries and 27,592 database images; found 4 queries and 5"):
        read_nordland(folder)
    with pytest.warns(CovisWarning, match=r"nordland \(pnv\) must have 27,592"):
        read_nordland(folder, sizes="warn")


def test_pnv_by_the_list_of_clean_frames(tree):
    folder = tree(*(f"{season}/images-{n:05d}.png" for season in ("summer", "winter", "spring") for n in range(6)))
    (folder / "cleanImageNames.txt").write_bytes(b"\xef\xbb\xbfimages-00001.png\r\nimages-00004.png\r\n\r\n")
    (scene,) = read_nordland(folder, sizes="ignore")
    assert scene.database.names == ("summer/images-00001.png", "summer/images-00004.png")
    assert scene.queries.frame.tolist() == [0, 1]
    (folder / "mine.txt").write_text("./nordland/summer/images-00003.png\n")
    (scene,) = read_nordland(folder, sizes="ignore", names="mine.txt", database="spring", queries="summer")
    assert (scene.database.names, scene.queries.names) == (("spring/images-00003.png",), ("summer/images-00003.png",))
    (folder / "mine.txt").write_text("images-00003.png\nimages-00009.png\n")
    with pytest.raises(InvalidInputError, match=r"1 of 2 images of .*summer have no file: summer/images-00009\.png"):
        read_nordland(folder, sizes="ignore", names="mine.txt")
    with pytest.warns(CovisWarning, match="left out"):
        assert len(read_nordland(folder, sizes="ignore", names="mine.txt", missing="skip")[0].database) == 1


def test_gmberton_within_10_frames(tree):
    folder = tree(*(f"images/test/{side}/{line(n)}" for side in ("database", "queries") for n in range(24)))
    assert line(1) == "@0@00002.4@@@@@1@@@@@@@@.jpg"
    (scene,) = read_nordland(folder, sizes="ignore")
    assert scene.database.frame.tolist() == list(range(24))
    np.testing.assert_allclose(scene.database.xy[:, 1], SPACING * np.arange(24), atol=0.051)
    right = [i + 10 if i + 10 < 24 else i - 10 for i in range(24)]
    wrong = [i + 11 if i + 11 < 24 else i - 11 for i in range(24)]
    assert recall(scene, first(scene, right), "nordland/gmberton") == [1] * 24
    assert recall(scene, first(scene, wrong), "nordland/gmberton") == [0] * 24
    utm = truth(read_utm(folder)[0], "radius/25/all").positives
    assert (utm != truth(scene, "nordland/gmberton").positives).nnz == 0


def test_frames_far_down_the_line_survive_the_printed_decimal(tree):
    far = (0, 9, 10, 11, 27590, 27591)
    folder = tree(*(f"test/{side}/{line(n)}" for side in ("database", "queries") for n in far))
    assert read_nordland(folder, sizes="ignore")[0].database.frame.tolist() == list(far)
    other = tree(*(f"{side}/@0@{n * SPACING:.2f}@.jpg" for side in ("database", "queries") for n in far), folder="nordland2")
    assert read_nordland(other, sizes="ignore")[0].queries.frame.tolist() == list(far)


def test_vpr_bench_within_one_frame_of_ten_times_the_number(tree):
    folder = tree(*(f"ref/{n:07d}.jpg" for n in range(30)), *(f"query/{n:07d}.jpg" for n in range(4)))
    (folder / "query" / "0000003.jpg").rename(folder / "query" / "0000003.JPG")
    (scene,) = read_nordland(folder, sizes="ignore")
    assert scene.queries.frame.tolist() == [0, 10, 20, 30]
    found = truth(scene, "nordland/vpr-bench").positives
    lists = [found[[query]].indices.tolist() for query in range(4)]
    assert lists == [[0, 1], [9, 10, 11], [19, 20, 21], [29]]  # [0, 1] first, clipped last, as in the benchmark's own file
    assert recall(scene, first(scene, [1, 9, 22, 29]), "nordland/vpr-bench") == [1, 1, 0, 1]
    with pytest.raises(InvalidInputError, match=r"nordland \(vpr-bench\) must have 2,760 queries and 27,592"):
        read_nordland(folder)


@pytest.mark.filterwarnings("ignore:Nordland holds frames:covis.errors.CovisWarning")
@pytest.mark.parametrize("files", ["copy", "link", "none"])
@pytest.mark.parametrize("arrangement", ["pnv", "gmberton", "vpr-bench"])
def test_round_trip_of_the_town(town, tmp_path, arrangement, files):
    scenes = town
    if arrangement == "vpr-bench":  # its queries are every tenth frame
        scenes = [Scene(s.name, s.split, s.database, tenfold(s.queries)) for s in town]
    written = write("nordland", scenes, tmp_path, arrangement=arrangement, files=files)
    assert written == [tmp_path / "miami", tmp_path / "athens"]
    for folder, scene in zip(written, scenes, strict=True):
        missing = "ignore" if files == "none" else "stop"
        (back,) = read("nordland", folder, sizes="ignore", arrangement=arrangement, missing=missing)
        assert back.name == scene.name
        for there, here in ((back.database, scene.database), (back.queries, scene.queries)):
            assert there.frame.tolist() == here.frame.tolist()
            if files != "none":
                assert [there.path(row).read_bytes() for row in range(3)] == [here.path(row).read_bytes() for row in range(3)]
                assert there.path(0).is_symlink() == (files == "link")
        assert draft_nordland(folder, sizes="ignore", arrangement=arrangement)[0].name == scene.name


def tenfold(images):
    return Images(images.root, images.names, frame=10 * images.frame, crs=images.crs)


def test_what_is_lost_is_said(town, tmp_path):
    with pytest.warns(CovisWarning, match=r"Nordland holds frames; .* it does not keep xy, heading, fov"):
        write_nordland(town[:1], tmp_path)
    with pytest.raises(OutputExistsError):
        write_nordland(town[:1], tmp_path)
    with pytest.warns(CovisWarning):
        write_nordland(town[:1], tmp_path, overwrite=True)


@pytest.mark.parametrize(("arrangement", "frames", "words"), [
    ("pnv", ([0, 2], [0]), r"must run from 0 without a gap"),
    ("pnv", ([0, 1, 2], [2, 3, 4]), r"most frames stand in both seasons; of the 5 of scene 's' fewer than half do"),
    ("vpr-bench", ([0, 1], [3]), r"query i is frame 10 i; scene 's' has a query of frame 3"),
    ("gmberton", ([0, 0], [0]), r"one image a frame, from 0 on"),
    ("gmberton", ([-1, 0], [0]), r"one image a frame, from 0 on"),
    ("odd", ([0], [0]), r"must be one of pnv, gmberton, vpr-bench; got 'odd'"),
])  # fmt: skip
def test_what_cannot_be_written(tmp_path, arrangement, frames, words):
    database, queries = (Images(tmp_path, [f"{n}.jpg" for n in range(len(side))], frame=side) for side in frames)
    with pytest.raises(InvalidInputError, match=words):
        write_nordland([Scene("s", "test", database, queries)], tmp_path / "out", arrangement=arrangement)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_scenes_that_are_none(tmp_path):
    one = Images(tmp_path, ["a.gif"], frame=[0])
    other = Images(tmp_path, ["b.jpg"], frame=[0])
    with pytest.raises(InvalidInputError, match="holds a database and queries of the split 'test'"):
        write_nordland([Scene("s", "train", one, one)], tmp_path)
    with pytest.raises(InvalidInputError, match=r"must have different names"):
        write_nordland([Scene("s", "test", one, other)] * 2, tmp_path)
    with pytest.raises(InvalidInputError, match=r"a\.gif must be a \.jpg, \.jpeg or \.png"):
        write_nordland([Scene("s", "test", one, other)], tmp_path)
    with pytest.raises(MissingFileError, match=r"b\.jpg must be there"):
        write_nordland([Scene("s", "test", other, Images(tmp_path, ["c.jpg"], frame=[0]))], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("files", "options", "words"), [
    (["summer/images-1.png"], {}, r"must hold Nordland: the folders summer and winter \(pnv\).*; found summer"),
    ([], {}, r"found no folder"),
    (["summer/images-1.png", "winter/a.txt"], {}, r"winter must hold images \(\.jpg, \.png\) of Nordland; found none"),
    (["summer/a.png", "summer/a.jpg", "winter/a.png"], {}, r"summer/a\.(jpg|png) and summer/a\.(jpg|png) are both one"),
    (["ref/0.jpg", "query/first.jpg"], {}, r"every name must be a number below 2\^62; found 'first\.jpg'"),
    (["ref/0.jpg", "ref/00.jpg", "query/0.jpg"], {}, r"a frame must have one image"),
    (["ref/0.jpg", "query/999999999999999999.jpg"], {}, r"query i is frame 10 i, which must be below 2\^62; found 999999999999999999"),
    (["ref/9999999999999999999.jpg", "query/0.jpg"], {}, r"every name must be a number below 2\^62; found '9{19}\.jpg'"),
    ([f"summer/{n}.png" for n in range(4)] + [f"winter/{n}.png" for n in range(4, 8)], {}, r"of 8 names 0 stand in summer and in winter"),
    ([f"summer/{n}.png" for n in range(4)] + [f"winter/{n}.png" for n in range(2, 6)], {}, r"of 6 names 2 stand in summer and in winter"),
    (["summer/0.png", "winter/0.png"], {"database": "winter"}, r"folder must be two; .*winter is given as both"),
    (["ref/0.jpg", "query/0.jpg"], {"arrangement": "vpr-bench", "queries": "ref"}, r"folder must be two"),
    (["ref/0.jpg", "query/0.jpg"], {"names": "list.txt"}, r"goes with the arrangement pnv; .* is vpr-bench"),
    (["ref/0.jpg", "query/0.jpg"], {"arrangement": "pnv"}, r"must hold the folder 'summer' \(Nordland\)"),
    (["ref/0.jpg", "query/0.jpg"], {"arrangement": "mine"}, r"must be auto, pnv, gmberton, vpr-bench; got 'mine'"),
    (["ref/0.jpg", "query/0.jpg"], {"split": "train"}, r"has the split 'test' alone; got 'train'"),
    (["ref/0.jpg", "query/0.jpg"], {"sizes": "none"}, r"must be one of stop, warn, ignore; got 'none'"),
    (["ref/0.jpg", "query/0.jpg"], {"missing": "none"}, r"The policy missing must be one of"),
    (["summer/a.png", "winter/a.png"], {"names": "list.txt"}, r"list\.txt must exist"),
    (["database/@0@3.0@.jpg", "queries/@0@0@.jpg"], {}, r"a frame of Nordland must lie at .*'database/@0@3\.0@\.jpg' does not"),
    (["database/@5@0@.jpg", "queries/@0@0@.jpg"], {}, r"'database/@5@0@\.jpg' does not"),
    (["database/@0@00002.4@@@@@2@@@@@@@@.jpg", "queries/@0@0@.jpg"], {}, r"@2@@@@@@@@\.jpg' does not"),
    (["database/@0@-2.4@.jpg", "queries/@0@0@.jpg"], {}, r"'database/@0@-2\.4@\.jpg' does not"),
    (["database/@0@nan@.jpg", "queries/@0@0@.jpg"], {}, r"must begin with its position in metres"),
    (["database/@0@1e400@.jpg", "queries/@0@0@.jpg"], {}, r"'database/@0@1e400@\.jpg' does not"),
])  # fmt: skip
def test_damages(tree, files, options, words):
    folder = tree(*files)
    with pytest.raises(CovisError, match=words) as refused:
        read_nordland(folder, **{"sizes": "ignore"} | options)
    assert not re.search(r"Traceback|KeyError|IndexError", str(refused.value))


@pytest.mark.parametrize(("line", "words"), [
    ("../images-00001.png", r"list\.txt, line 2: a line must be the path"),
    ("/etc/images-00001.png", r"line 2: a line must be the path"),
    ("images-00001.txt", r"line 2: a line must be the path"),
    ("a\0b.png", r"line 2: a line must be the path"),
    ("images-00000.png", r"line 2: an image must be listed once; images-00000\.png stands on line 1 too"),
    ("other/images-00000.png", r"must list each frame once; 1 stand again"),
])  # fmt: skip
def test_damaged_lists(tree, line, words):
    folder = tree("summer/images-00000.png", "winter/images-00000.png")
    (folder / "list.txt").write_text(f"images-00000.png\n{line}\n")
    with pytest.raises(InvalidInputError, match=words):
        read_nordland(folder, sizes="ignore", names="list.txt")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r"must be a folder of Nordland's images; there is no such folder"):
        read_nordland(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(MissingFileError, match=r"must be a folder of Nordland's images; it is a file"):
        read_nordland(tmp_path / "file")


@pytest.mark.parametrize(("folder", "files", "taken"), [
    ("rail", ["summer/images-00202.png", "winter/images-00202.png"], True),
    ("rail", ["summer/images-00202.png", "winter/images-00202.png", "cleanImageNames.txt"], True),
    ("rail", ["summer/a.png", "winter/a.png", "cleanImageNames.txt"], True),
    ("rail", ["summer/a.png", "winter/a.png"], False),  # anybody's summer and winter
    ("nordland", ["summer/a.png", "winter/a.png"], False),
    ("rail", ["summer/@500000.00@4180000.00@17@.jpg", "winter/@500000.00@4180000.00@17@.jpg"], False),
    ("nordland", ["ref/0000000.jpg", "query/0000000.jpg"], True),
    ("nordland", ["ref/0.jpg", "query/0.jpg"], False),
    ("SPED", ["ref/0000000.jpg", "query/0000000.jpg"], False),
    ("Nordland-vg", [f"images/test/{side}/{line(0)}" for side in ("database", "queries")], True),
    ("nordland", [f"{side}/{line(0)}" for side in ("database", "queries")], True),
    ("other", [f"images/test/{side}/{line(0)}" for side in ("database", "queries")], False),
    ("my_nordland_trip", [f"{side}/@500000.00@4180000.00@17@.jpg" for side in ("database", "queries")], False),
    ("nordland_hike", ["database/IMG_0.jpg", "queries/IMG_0.jpg"], False),
    ("nordland", ["database/notes.txt", "queries/notes.txt"], False),
    ("nordland", [], False),
])  # fmt: skip
def test_the_layout_is_guessed_where_it_is_plain(tree, folder, files, taken):
    root = tree(*files, folder=folder)
    assert is_nordland(root) == taken
    if taken:
        assert guess_layout(root) == "nordland"


def test_folders_that_are_not_apart_are_not_written(tmp_path):
    scene = Scene("s", "test", Images(tmp_path, ["a.jpg"]), Images(tmp_path, ["b.jpg"]))
    for arrangement, sides in (("gmberton", {"database": "queries"}), ("pnv", {"queries": "summer/x"})):
        with pytest.raises(InvalidInputError, match=r"to two folders, neither inside the other"):
            write_nordland([scene], tmp_path / "out", arrangement=arrangement, **sides)
    assert not (tmp_path / "out").exists()


def test_check_lists_the_same(tree):
    folder = tree("ref/0000000.jpg", "ref/0000001.jpg", "query/0000000.jpg")
    report = covis.check("nordland", folder, decode=False, sizes="ignore")
    assert not report.problems
    assert len(covis.check("nordland", folder, sizes="ignore").problems) == 3  # empty files do not decode
