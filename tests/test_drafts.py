"""Drafts: what a layout says before anyone vouches for it, the policies that settle it, and how a writer places files."""

import contextlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.datasets.drafts import EXAMPLES, Draft, SceneDraft, files_present
from covis.datasets.filing import place_file
from covis.errors import CovisError, CovisWarning, InvalidInputError, MissingFileError
from covis.images import Images


@pytest.fixture
def folder(tmp_path):
    """Files a.jpg to f.jpg."""
    for name in "abcdef":
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    return tmp_path


def draft(root, names="abc", **given):
    names = [f"{name}.jpg" for name in names]
    xy = given.pop("xy", np.column_stack([np.arange(len(names)), np.zeros(len(names))]).astype(float))
    columns = {} if xy is None else {"xy": np.asarray(xy, dtype=float)}
    return Draft(root, names, root / "list.csv", columns | given.pop("columns", {}), **({"first_line": 2} | given))


def scene(database, queries=None, **policies):
    return SceneDraft("town", "test", database, queries).scene(**policies)


# -------------------------------------------------------------------------------------------------------------------- good drafts


def test_a_draft_becomes_a_scene(folder):
    night, heading = np.array([True, False, False]), np.array([0.0, np.nan, 359.9])
    made = scene(
        draft(folder, columns={"heading": heading, "sequence": ["s", "s", "t"]}, flags={"night": night}, crs="EPSG:32633"),
        draft(folder, "de", crs="EPSG:32633"),
    )
    assert (made.name, made.split, made.training) == ("town", "test", False)
    expected = Images(
        folder,
        ["a.jpg", "b.jpg", "c.jpg"],
        xy=[[0, 0], [1, 0], [2, 0]],
        heading=heading,
        sequence=["s", "s", "t"],
        crs="EPSG:32633",
        flags={"night": night},
    )
    assert made.database == expected
    assert made.queries.names == ("d.jpg", "e.jpg")


def test_one_side_stands_on_both(folder):
    made = scene(draft(folder))
    assert made.training
    assert made.queries is made.database
    drafted = SceneDraft("town", "train", draft(folder))
    assert [side.names for side in drafted.sides] == [["a.jpg", "b.jpg", "c.jpg"]]


def test_nothing_wrong_says_nothing(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for missing in ("stop", "skip", "ignore"):
            for invalid in ("stop", "skip"):
                assert len(scene(draft(folder), missing=missing, invalid=invalid).database) == 3
    side = draft(folder)
    assert side.settled(missing="skip", invalid="skip") is side
    assert (side.duplicates(), side.invalid(), side.missing()) == ([], [], [])


# ------------------------------------------------------------------------------------------------------------------------ policies


def test_missing_files_stop_are_skipped_or_ignored(folder):
    side = draft(folder, "axby")
    with pytest.raises(InvalidInputError) as stopped:
        scene(side)
    for part in (
        f"2 of 4 images of {folder}/list.csv have no file",
        f"x.jpg ({folder}/list.csv, line 3): there is no file {folder}/x.jpg",
        f"y.jpg ({folder}/list.csv, line 5)",
        "missing='skip'",
        "covis check",
    ):
        assert part in str(stopped.value)
    with pytest.warns(CovisWarning, match=r"2 of 4 images of .*list\.csv have no file: x\.jpg \(.*list\.csv, line 3\).*left out") as said:
        skipped = scene(side, missing="skip")
    assert len(said) == 1
    assert skipped.database.names == ("a.jpg", "b.jpg")
    assert skipped.database.xy.tolist() == [[0, 0], [2, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(scene(side, missing="ignore").database) == 4


def test_values_that_cannot_be_used_stop_or_are_skipped(folder):
    xy = [[0, 0], [np.nan, 0], [2, np.inf], [3, 0], [4, 0], [5, 0]]
    heading = np.array([0.0, 1, 2, -1, 360, np.inf])
    side = draft(folder, "abcdef", xy=xy, columns={"heading": heading})
    found = side.invalid()
    assert [(row, problem.kind, problem.name) for row, problem in found] == [
        (1, "position", "b.jpg"),
        (2, "position", "c.jpg"),
        (3, "heading", "d.jpg"),
        (4, "heading", "e.jpg"),
        (5, "heading", "f.jpg"),
    ]
    assert [problem.where for _, problem in found] == [f"{folder}/list.csv, line {line}" for line in (3, 4, 5, 6, 7)]
    assert "[nan, 0.0]" in found[0][1].what
    assert "the heading is -1; it must be in [0, 360) degrees, or empty" in found[2][1].what
    with pytest.raises(
        InvalidInputError, match=r"5 of 6 images .* values that cannot be used: b\.jpg \(.*line 3\).* …\. .*invalid='skip'"
    ) as stopped:
        scene(side)
    assert str(stopped.value).count("line") == EXAMPLES
    with pytest.warns(CovisWarning, match="5 of 6 images"):
        assert scene(side, invalid="skip").database.names == ("a.jpg",)


def test_unknown_headings_are_no_problem(folder):
    side = draft(folder, columns={"heading": np.array([np.nan, 0.0, 359.999])})
    assert side.invalid() == []
    assert np.isnan(scene(side).database.heading[0])


def test_degrees_off_the_globe_are_invalid(folder):
    degrees = np.array([[55.7, 12.5], [91, 0], [np.nan, 3], [0, 181], [-80.5, 0], [55.7, 12.6]])
    side = draft(folder, "abcdef", xy=None, degrees=degrees)
    assert [row for row, _ in side.invalid()] == [1, 2, 3, 4]
    with pytest.warns(CovisWarning, match="4 of 6 images"):
        made = scene(side, invalid="skip")
    assert made.database.names == ("a.jpg", "f.jpg")
    assert made.database.crs == "EPSG:32633"


def test_a_name_that_stands_again_is_left_out_and_the_first_stays(folder):
    side = draft(folder, "abacab")
    assert side.duplicates() == [(0, 2), (0, 4), (1, 5)]
    assert [problem.what for _, problem in side.invalid()] == [
        f"the name stands at {folder}/list.csv, line {line} too; keep one" for line in (2, 2, 3)
    ]
    with pytest.raises(InvalidInputError, match=r"3 of 6 images .*a\.jpg \(.*line 4\): the name stands at .*line 2 too"):
        scene(side)
    with pytest.warns(CovisWarning, match="3 of 6"):
        made = scene(side, invalid="skip")
    assert made.database.names == ("a.jpg", "b.jpg", "c.jpg")
    assert made.database.xy[:, 0].tolist() == [0, 1, 3]


def test_what_is_missing_and_invalid_is_counted_under_both_and_left_out_once(folder):
    side = draft(folder, "axxb", xy=[[0, 0], [np.nan, 0], [1, 1], [2, 2]])
    with pytest.warns(CovisWarning) as said:
        made = scene(side, missing="skip", invalid="skip")
    assert [str(warning.message).split(":")[0] for warning in said] == [
        f"2 of 4 images of {folder}/list.csv have no file",
        f"2 of 4 images of {folder}/list.csv have values that cannot be used",
    ]
    assert made.database.names == ("a.jpg", "b.jpg")


def test_both_sides_are_settled(folder):
    with pytest.warns(CovisWarning) as said:
        made = scene(draft(folder, "ax"), draft(folder, "yb"), missing="skip")
    assert len(said) == 2
    assert (made.database.names, made.queries.names) == (("a.jpg",), ("b.jpg",))
    with pytest.raises(InvalidInputError, match=r"y\.jpg"):
        scene(draft(folder, "a"), draft(folder, "yb"))


@pytest.mark.parametrize(("policy", "value"), [("missing", "drop"), ("invalid", "ignore"), ("missing", ""), ("invalid", None)])
def test_an_unknown_policy_is_refused(folder, policy, value):
    with pytest.raises(InvalidInputError, match=f"The policy {policy} must be one of stop, skip"):
        scene(draft(folder), **{policy: value})


def test_everything_may_be_left_out(folder):
    with pytest.warns(CovisWarning, match="2 of 2"):
        assert len(scene(draft(folder, "xy"), missing="skip").database) == 0
    with pytest.warns(CovisWarning, match="2 of 2"):
        made = scene(draft(folder, "xy", xy=None, degrees=np.array([[50.0, 9], [50, 9]])), missing="skip")
    assert len(made.database) == 0


# --------------------------------------------------------------------------------------------------------------- lines and selection


def test_where_a_row_comes_from(folder):
    assert draft(folder).where(2) == f"{folder}/list.csv, line 4"
    assert draft(folder, first_line=None).where(2) == f"{folder}/list.csv"
    assert draft(folder, lines=np.array([7, 9, 30])).where(2) == f"{folder}/list.csv, line 30"


@pytest.mark.parametrize("given", [{}, {"lines": np.array([7, 9, 30, 31])}, {"first_line": None}])
@pytest.mark.parametrize("rows", [np.array([True, False, True, True]), np.array([0, 2, 3])])
def test_a_selection_keeps_its_lines_and_everything_else(folder, given, rows):
    columns = {"heading": np.arange(4.0), "sequence": ["s", "t", "u", "v"], "frame": np.arange(4)}
    side = draft(
        folder, "abcd", columns=columns, flags={"night": [True, False, False, True]}, degrees=np.arange(8.0).reshape(4, 2), **given
    )
    part = side.select(rows)
    assert part.names == ["a.jpg", "c.jpg", "d.jpg"]
    assert [part.where(row) for row in range(3)] == [side.where(row) for row in (0, 2, 3)]
    assert part.columns["heading"].tolist() == [0, 2, 3]
    assert list(part.columns["sequence"]) == ["s", "u", "v"]
    assert part.columns["frame"].dtype == np.int64
    assert part.flags["night"].tolist() == [True, False, True]
    assert part.degrees.tolist() == [[0, 1], [4, 5], [6, 7]]
    assert (part.root, part.source, part.crs) == (side.root, side.source, side.crs)
    again = part.select(np.array([2]))
    assert again.where(0) == side.where(3)
    assert side.names == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]  # left alone


def test_what_is_skipped_leaves_lines_right(folder):
    """The second look, after a first selection, still names the line of the file."""
    side = draft(folder, "axbyc").select(np.array([0, 1, 3, 4]))
    with pytest.warns(CovisWarning, match=r"x\.jpg \(.*line 3\).*y\.jpg \(.*line 5\)"):
        scene(side, missing="skip")


# -------------------------------------------------------------------------------------------------------------------------- frames


def test_degrees_become_metres_in_the_zone_of_both_sides(folder):
    database, queries = (
        draft(folder, names, xy=None, degrees=np.array(where))
        for names, where in (("ab", [[55.7, 12.5], [55.6, 12.1]]), ("c", [[55.7, 11.9]]))
    )
    with pytest.warns(CovisWarning, match=r"list\.csv: 1 of 3 positions lie in another UTM zone \(EPSG:32632\)"):
        made = scene(database, queries)
    assert made.database.crs == made.queries.crs == "EPSG:32633"
    gap = np.hypot(*(made.database.xy[1] - made.queries.xy[0]))
    assert gap == pytest.approx(np.hypot(0.1 * 111_300, 0.2 * 111_300 * np.cos(np.deg2rad(55.65))), rel=0.01)


def test_a_frame_may_be_asked_for(folder):
    made = scene(draft(folder, "ab", xy=None, degrees=np.array([[55.7, 12.5], [55.6, 11.9]]), crs="EPSG:25832"))
    assert made.database.crs == "EPSG:25832"
    assert made.database.xy[1, 0] == pytest.approx(682_000, abs=1500)


def test_a_set_that_no_frame_holds_is_refused_by_file(folder):
    far = draft(folder, "ab", xy=None, degrees=np.array([[55.7, 12.5], [40.7, -74.0]]))
    with pytest.raises(InvalidInputError, match=r"list\.csv: Positions in one frame must lie in one UTM zone"):
        scene(far)


def test_sides_in_two_frames_are_refused(folder):
    with pytest.raises(InvalidInputError, match=r"Both sides of scene 'town' must be in one frame") as refused:
        scene(draft(folder, "a", crs="EPSG:32632"), draft(folder, "b", crs="EPSG:32633"))
    assert "EPSG:32632" in str(refused.value)
    assert "EPSG:32633" in str(refused.value)
    with pytest.raises(InvalidInputError, match="one frame"):
        scene(draft(folder, "a", crs="EPSG:32632"), draft(folder, "b"))
    assert scene(draft(folder, "a"), draft(folder, "b")).database.crs is None


def test_no_position_at_all_is_allowed(folder):
    made = scene(draft(folder, "ab", xy=None), draft(folder, "c", xy=None))
    assert made.database.xy is None
    assert made.database.crs is None


@pytest.mark.parametrize("xy", [None, [[1.0, 2.0]]])
def test_positions_in_degrees_are_never_dropped_in_silence(folder, xy):
    database, queries = draft(folder, "ab", xy=None, degrees=np.array([[55.7, 12.5], [55.6, 12.6]])), draft(folder, "c", xy=xy)
    with contextlib.suppress(CovisError), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = scene(database, queries)
        assert said or made.database.xy is not None


# --------------------------------------------------------------------------------------------------------------------------- files


def test_files_are_looked_up_where_they_lie(tmp_path):
    for name in ("a.jpg", "one/b.jpg", "one/two/c.jpg", "with space/ü.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing.jpg")
    expected = {
        "a.jpg": True,
        "A.jpg": (tmp_path / "A.jpg").is_file(),
        "one/b.jpg": True,
        "one/two/c.jpg": True,
        "one/a.jpg": False,
        "two/c.jpg": False,
        "nowhere/a.jpg": False,
        "a.jpg/b.jpg": False,
        "with space/ü.jpg": True,
        "folder.jpg": False,
        "link.jpg": True,
        "broken.jpg": False,
        "./a.jpg": True,
        "one/../a.jpg": True,
        "": False,
    }
    assert dict(zip(expected, files_present(tmp_path, list(expected)).tolist(), strict=True)) == expected
    assert files_present(tmp_path, []).shape == (0,)
    assert not files_present(tmp_path / "absent", ["a.jpg"]).any()


@given(st.lists(st.sampled_from(["a.jpg", "b.jpg", "x/a.jpg", "x/c.jpg", "x/y/a.jpg", "z.jpg"]), max_size=12))
def test_the_lookup_is_that_of_each_file(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("files")
    (root / "x").mkdir()
    for name in ("a.jpg", "x/c.jpg"):
        (root / name).write_bytes(b"")
    assert files_present(root, names).tolist() == [(root / name).is_file() for name in names]


def test_a_writer_copies_links_or_leaves(folder, tmp_path):
    source = folder / "a.jpg"
    before = source.read_bytes()
    place_file(source, tmp_path / "out" / "deep" / "copy.jpg")
    assert (tmp_path / "out" / "deep" / "copy.jpg").read_bytes() == before
    assert not (tmp_path / "out" / "deep" / "copy.jpg").is_symlink()
    place_file(source, tmp_path / "out" / "link.jpg", "link")
    assert (tmp_path / "out" / "link.jpg").is_symlink()
    assert (tmp_path / "out" / "link.jpg").resolve() == source.resolve()
    place_file(source, tmp_path / "none" / "a.jpg", "none")
    assert not (tmp_path / "none").exists()
    assert source.read_bytes() == before  # the original stays where it is


def test_a_link_from_a_relative_path_holds_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    target = tmp_path / "deep" / "link.jpg"
    place_file((folder / "a.jpg").relative_to(folder), target, "link")
    monkeypatch.chdir("/")
    assert target.read_bytes() == b"x"


def test_what_cannot_be_placed_is_said(folder, tmp_path):
    for files in ("copy", "link"):
        with pytest.raises(MissingFileError, match=r"z\.jpg must be there to be written"):
            place_file(folder / "z.jpg", tmp_path / "out.jpg", files)
        with pytest.raises(MissingFileError):
            place_file(folder, tmp_path / "out.jpg", files)  # a folder is no file
    place_file(folder / "z.jpg", tmp_path / "out.jpg", "none")  # metadata alone needs none
    with pytest.raises(InvalidInputError, match="files must be 'copy', 'link' or 'none'; got 'move'"):
        place_file(folder / "a.jpg", tmp_path / "out.jpg", "move")
    assert not (tmp_path / "out.jpg").exists()
