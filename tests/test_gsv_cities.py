"""GSV-Cities: tables and folders as the authors describe them, odd names, every fault, and the inverse."""

import contextlib
import warnings
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from covis.coordinates import to_degrees, to_metres
from covis.datasets.gsv_cities import STEP, draft_gsv_cities, read_gsv_cities, write_gsv_cities
from covis.errors import (
    CovisError,
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingFileError,
    OutputExistsError,
    UnknownNameError,
)
from covis.evaluation import evaluate
from covis.images import Images, Scene
from covis.rankings import Rankings

HEADER = "place_id,year,month,northdeg,city_id,lat,lon,panoid"
# The rows that the authors' README shows, and one more of the first place.
LONDON = [
    "130,2018,4,15,London,51.4861,-0.0895151,6jFjb3wGyCkcBfq4k559ag",
    "6793,2016,7,2,London,51.5187,-0.160767,Ff3OtsS4ihGSPdPjtlpEUA",
    "130,2018,1,289,London,51.531,-0.12702,0t-xcCsazIGAjdNC96IF0w",
]
FILES = [
    "London_0000130_2018_04_015_51.4861_-0.0895151_6jFjb3wGyCkcBfq4k559ag.JPG",
    "London_0006793_2016_07_002_51.5187_-0.160767_Ff3OtsS4ihGSPdPjtlpEUA.jpg",
    "London_0000130_2018_01_289_51.531_-0.12702_0t-xcCsazIGAjdNC96IF0w.jpg",
]


@pytest.fixture
def tree(tmp_path):
    """A function that writes a city's table and empty image files; returns the root."""

    def make(city="London", rows=LONDON, files=FILES, header=HEADER):
        (tmp_path / "Dataframes").mkdir(exist_ok=True)
        (tmp_path / "Images" / city).mkdir(parents=True, exist_ok=True)
        (tmp_path / "Dataframes" / f"{city}.csv").write_bytes("\n".join([header, *rows, ""]).encode())
        for file in files:
            (tmp_path / "Images" / city / file).touch()
        return tmp_path

    return make


def only(root, **options):
    (scene,) = read_gsv_cities(root, **options)
    return scene


def test_the_published_rows(tree):
    scene = only(tree())
    assert (scene.name, scene.split, scene.training) == ("London", "train", True)
    images = scene.database
    assert images.names == tuple(f"Images/London/{file}" for file in FILES)
    assert images.place.tolist() == [130, 6793, 130]
    assert images.heading.tolist() == [15, 2, 289]
    assert images.time.tolist() == [datetime(y, m, 1, tzinfo=UTC).timestamp() for y, m in ((2018, 4), (2016, 7), (2018, 1))]
    assert images.crs == "EPSG:32630"
    np.testing.assert_array_equal(images.xy, to_metres([51.4861, 51.5187, 51.531], [-0.0895151, -0.160767, -0.12702], crs="EPSG:32630"))


def test_who_is_of_the_same_place(tree):
    """Worked by hand: rows 0 and 2 are one place, row 1 is alone; an image is no answer to itself."""
    scene = only(tree(), split="test")
    names = scene.queries.names
    found = Rankings([[0, 2, 1], [1, 0, 2], [2, 1, 0]], [[0.0, 0.1, 0.2]] * 3, names, names)
    scores = evaluate(found, scene, protocol="same-place", samples=10)
    assert [scores.metrics[name].value for name in ("recall@1", "recall@2")] == [0.5, 1.0]
    assert evaluate(found, scene, protocol="same-place/all", samples=10).metrics["recall@2"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(("row", "file"), [
    ("130,2018,4,15,London,51.48610,-0.08951510,abc", "London_0000130_2018_04_015_51.4861_-0.0895151_abc.jpg"),  # as the authors rebuild it
    ("130,2018,4,15,London,51.48610,-0.08951510,abc", "London_0000130_2018_04_015_51.48610_-0.08951510_abc.png"),  # as the text says
    ("130,2018,4,15,London,51.5,0.1,a_b-_c", "London_0000130_2018_04_015_51.49999999_0.100001_a_b-_c.JPG"),  # all but the position
    ("130.0,2018,4.0,15.0,London,51.5,0.1,abc", "London_0000130_2018_04_015_51.5_0.1_abc.jpeg"),  # pandas, where a column had a gap
])  # fmt: skip
def test_names_rebuilt_from_numbers(tree, row, file):
    assert only(tree(rows=[row], files=[file])).database.names == (f"Images/London/{file}",)


def test_two_files_that_fit_equally_are_no_answer(tree):
    files = [f"London_0000130_2018_04_015_51.5_{lon}_abc.jpg" for lon in ("0.11", "0.12")]
    with pytest.raises(InvalidInputError, match=r"London\.csv, line 2\): there is no file .*_51\.5_0\.1_abc\.jpg"):
        only(tree(rows=["130,2018,4,15,London,51.5,0.1,abc"], files=files))


def test_places_are_numbered_through_the_list_of_cities(tree):
    tree("Zurich", ["7,2018,4,15,Zurich,47.4,8.5,abc"], [])
    tree("Boston", ["7,2018,4,15,Boston,42.4,-71.1,abc"], [])
    root = tree()
    of = {scene.name: scene.database.place[0] for scene in read_gsv_cities(root, missing="ignore")}
    assert of == {"Boston": 7, "London": STEP + 130, "Zurich": 2 * STEP + 7}
    assert list(of) == ["Boston", "London", "Zurich"]  # the training cities in their order, then the others
    turned = read_gsv_cities(root, missing="ignore", cities="Zurich, Boston")
    assert [(scene.name, scene.database.place.tolist()) for scene in turned] == [("Zurich", [7]), ("Boston", [STEP + 7])]
    assert [s.database.place[0] for s in read_gsv_cities(root, missing="ignore", numbering="own")] == [7, 130, 7]


def test_small_places_are_left_out(tree):
    root = tree()
    assert only(root, minimum=2).database.place.tolist() == [130, 130]
    assert len(only(root, minimum=4).database) == 0
    assert draft_gsv_cities(root, minimum=2)[0].database.where(1).endswith("London.csv, line 4")


def test_what_is_unknown_and_what_turns(tree):
    rows = ["1,,,,London,51.5,0.1,a", "1,2018,,406,London,51.5,0.1,b", "1,2018,5,584,London,51.5,0.1,c"]
    with pytest.warns(CovisWarning, match="northdeg of 2 of 3 rows is 360 or more"):
        images = only(tree(rows=rows), missing="ignore").database
    np.testing.assert_array_equal(images.heading, [np.nan, 46, 224])
    assert np.isnan(images.time).tolist() == [True, False, False]
    assert images.names[0] == "Images/London/London_0000001_0000_00_000_51.5_0.1_a.jpg"
    none = only(tree(rows=["1,,,,London,51.5,0.1,a"]), missing="ignore").database
    assert none.heading is none.time is None


def test_other_programs_tables(tree):
    root = tree()
    plain = only(root)
    path = root / "Dataframes" / "London.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert only(root) == plain
    names = ["note", *reversed(HEADER.split(","))]
    path.write_text("\n".join([",".join(names), *(",".join(["x", *reversed(row.split(","))]) for row in LONDON), ""]))
    assert only(root) == plain


def test_the_folder_may_be_called_as_the_table(tree):
    """The README's tree has a folder Paris with files PRS_…"""
    file = "PRS_0000003_2015_05_084_48.79_2.23_7P0FnGV3k4Fmtw66b8_-Gg.JPG"
    root = tree("Paris", ["3,2015,5,84,PRS,48.79,2.23,7P0FnGV3k4Fmtw66b8_-Gg"], [file])
    assert only(root).database.names == (f"Images/Paris/{file}",)


@pytest.mark.parametrize(("rows", "said"), [
    ([LONDON[0].rsplit(",", 1)[0]], r"London\.csv, line 2"),  # truncated
    ([LONDON[0] + ",x"], r"London\.csv, line 2"),
    (["x" + LONDON[0]], r"line 2: 'place_id' must be a number"),
    (["-1" + LONDON[0][3:]], r"line 2: 'place_id' must be a whole number from 0 to 99999; found '-1'"),
    (["100000" + LONDON[0][3:]], r"'place_id' must be a whole number from 0 to 99999"),
    ([LONDON[0].replace("2018", "MMXVIII")], r"line 2: 'year' must be a number"),
    ([LONDON[0].replace("2018", "18")], r"line 2: 'year' must be a whole number from 1900 to 9999"),
    ([LONDON[0].replace(",4,", ",13,")], r"'month' must be a whole number from 1 to 12, or empty; found '13'"),
    ([LONDON[0].replace(",15,", ",15.5,")], r"'northdeg' must be whole degrees"),
    ([LONDON[0].replace("51.4861", "51,4861")], r"London\.csv, line 2"),
    ([LONDON[0].replace("51.4861", "north")], r"'lat' must be a number"),
    ([LONDON[0].replace("London", "../../etc")], r"'city_id' must be a part of a file's name; found '\.\./\.\./etc'"),
    ([LONDON[0].replace("London", "..")], r"'city_id' must be a part of a file's name"),
    ([LONDON[0].replace("6jFjb3", "a/b")], r"'panoid' must be a part of a file's name"),
])  # fmt: skip
def test_damaged_tables_are_refused(tree, rows, said):
    with pytest.raises(DamagedFileError, match=said):
        only(tree(rows=rows), missing="ignore")


@pytest.mark.parametrize("header", ["place_id,year,month", "a,b,c,d,e,f,g,h", HEADER.replace("panoid", "lat"), ""])
def test_foreign_tables_are_refused(tree, header):
    with pytest.raises(DamagedFileError, match=r"London\.csv"):
        only(tree(header=header, rows=[] if header.count(",") < 7 else LONDON), missing="ignore")


def test_bad_values_and_missing_images_go_by_the_policies(tree):
    rows = [*LONDON, "5,2018,4,-3,London,51.5,0.1,a", "5,2018,4,3,London,,0.1,b", "5,2018,4,3,London,91,0.1,c", LONDON[0]]
    root = tree(rows=rows)
    with pytest.raises(InvalidInputError, match=r"3 of 7 images of .*have no file"):
        only(root)
    with pytest.raises(InvalidInputError, match=r"position is \[nan, 0\.1\].*position is \[91.*heading is -3"):
        only(tree(rows=rows[:6]), missing="ignore")
    with pytest.warns(CovisWarning) as said:
        scene = only(tree(rows=rows), missing="skip", invalid="skip")
    assert len(scene.database) == 3
    assert "the name stands at" in str(said[-1].message)


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"split": "all"}, InvalidInputError, "'train', 'val' or 'test'"),
    ({"cities": "Londn"}, UnknownNameError, r"no table of 'Londn' .*Did you mean 'London'"),
    ({"cities": "London,London"}, InvalidInputError, "named once"),
    ({"cities": ""}, InvalidInputError, "one at least"),
    ({"cities": 3}, InvalidInputError, "list of names"),
    ({"minimum": 0}, InvalidInputError, "minimum must be a whole number of images from 1"),
    ({"minimum": True}, InvalidInputError, "minimum must be"),
    ({"numbering": "none"}, InvalidInputError, "'joint' or 'own'"),
])  # fmt: skip
def test_options_are_checked(tree, options, error, said):
    with pytest.raises(error, match=said):
        read_gsv_cities(tree(), **options)


def test_folders_that_are_not_the_layout(tmp_path):
    with pytest.raises(MissingFileError, match="must hold the folders Dataframes and Images"):
        read_gsv_cities(tmp_path)
    (tmp_path / "Dataframes").mkdir()
    with pytest.raises(MissingFileError, match="a table for each city"):
        read_gsv_cities(tmp_path)


def placed(town):
    """The town's scenes with a place for each cell of 10 m; the second city's begin at 100,000."""
    scenes = []
    for number, scene in enumerate(town):
        sides = []
        for side in (scene.database, scene.queries):
            cell = np.floor((side.xy - scene.database.xy.min(axis=0)) / 10).astype(np.int64) + 20
            sides.append(replace(side, place=cell[:, 0] * 100 + cell[:, 1] + number * STEP))
        scenes.append(Scene(scene.name, "train", *sides))
    return scenes


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_the_town_comes_back(town, tmp_path, files):
    scenes = placed(town)
    with pytest.warns(CovisWarning, match="it does not keep .*pose.*who asks"):
        (out,) = write_gsv_cities(scenes, tmp_path / "set", files=files)
    found = read_gsv_cities(out, cities=[scene.name for scene in scenes], missing="ignore" if files == "none" else "stop")
    for scene, again in zip(scenes, found, strict=True):
        assert (again.name, again.split, again.training) == (scene.name, "train", True)
        images = again.database
        for column in ("xy", "heading", "time", "place"):
            whole = np.concatenate([getattr(side, column) for side in (scene.database, scene.queries)])
            if column == "xy":
                np.testing.assert_allclose(images.xy, whole, atol=1e-6)
            elif column == "heading":
                np.testing.assert_array_equal(images.heading, np.round(whole) % 360)
            elif column == "time":
                months = np.array(whole, dtype="datetime64[s]").astype("datetime64[M]").astype("datetime64[s]").astype(float)
                np.testing.assert_array_equal(images.time, months)
            else:
                np.testing.assert_array_equal(images.place, whole)
        assert images.crs == scene.database.crs
        if files != "none":
            assert images.path(0).read_bytes() == scene.database.path(0).read_bytes()
            assert images.path(24).is_symlink() == (files == "link")
    if files == "copy":  # written again, all comes back exactly but the last digits of a position
        (second,) = write_gsv_cities(found, tmp_path / "again")
        again = read_gsv_cities(second, cities=[scene.name for scene in scenes])
        assert [one.database.place.tolist() for one in again] == [one.database.place.tolist() for one in found]
        panoids = [[name.rsplit("_", 1)[1] for name in one.database.names] for one in (again[0], found[0])]
        assert panoids[0] == panoids[1]


def test_what_cannot_be_written_is_refused(tmp_path):
    def photographs(**changed):
        usual = {"xy": to_metres([51.5], [0.1], crs="EPSG:32631"), "place": [3], "crs": "EPSG:32631"}
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p" / "a.jpg").touch()
        return Images(tmp_path / "p", ["a.jpg"], **usual | changed)

    def refused(said, name="London", error=InvalidInputError, **changed):
        images = photographs(**changed)
        with pytest.raises(error, match=said):
            write_gsv_cities([Scene(name, "train", images, images)], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    refused("must have place", place=None)
    refused("must have xy", xy=None)
    refused("Say crs", crs=None)
    refused("numbers from 0", place=[-1])
    refused("letters, digits", name="New York")
    refused("years 1900 to 9999", time=[-1e11])
    two = Images("p", ["a b.jpg", "a-b.jpg"], xy=np.repeat(photographs().xy, 2, axis=0), place=[1, 1], crs="EPSG:32631")
    with pytest.raises(InvalidInputError, match="must have different names"):
        write_gsv_cities([Scene("London", "train", two, two)], tmp_path / "out")
    apart = replace(two, place=np.array([1, STEP]))
    with pytest.raises(InvalidInputError, match="within one step of 100,000"):
        write_gsv_cities([Scene("London", "train", apart, apart)], tmp_path / "out")
    gif = replace(photographs(), names=("a.gif",))
    with pytest.raises(InvalidInputError, match=r"\.jpg, \.jpeg or \.png"):
        write_gsv_cities([Scene("London", "train", gif, gif)], tmp_path / "out")
    images = photographs()
    scene = Scene("London", "train", images, images)
    with pytest.raises(InvalidInputError, match="different names"):
        write_gsv_cities([scene, scene], tmp_path / "out")
    with pytest.raises(InvalidInputError, match="'copy', 'link' or 'none'"):
        write_gsv_cities([scene], tmp_path / "out", files="move")
    gone = replace(images, names=("gone.jpg",))
    with pytest.raises(MissingFileError, match="gone"):
        write_gsv_cities([Scene("London", "train", gone, gone)], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_gsv_cities([scene], tmp_path / "out")
    with pytest.raises(OutputExistsError):
        write_gsv_cities([scene], tmp_path / "out")
    write_gsv_cities([scene], tmp_path / "out", overwrite=True)
    (again,) = read_gsv_cities(tmp_path / "out")
    np.testing.assert_allclose(to_degrees(again.database.xy, crs=again.database.crs), [[51.5, 0.1]], atol=1e-9)
    assert again.database.heading is again.database.time is None


def test_a_byte_changed_is_never_a_traceback(tree):
    root = tree()
    path = root / "Dataframes" / "London.csv"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CovisWarning)
            with contextlib.suppress(CovisError):  # one of ours, or other values; never anything else
                read_gsv_cities(root, missing="ignore", invalid="skip")


def test_a_folder_that_holds_more_is_not_replaced(town, tmp_path):
    with pytest.warns(CovisWarning, match="does not keep"):
        (out,) = write_gsv_cities(placed(town), tmp_path / "set")
    (out / "thesis.txt").write_text("precious")
    with pytest.warns(CovisWarning), pytest.raises(InvalidInputError, match=r"Images alone; .* also holds thesis\.txt"):
        write_gsv_cities(placed(town), out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "precious"
