"""Splits by place: the buffer holds, every image is counted once, no evaluated image teaches; and the table that is written."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from typer.testing import CliRunner

from covis import cli
from covis.datasets.split_tables import write_split_table
from covis.datasets.tables import read_table
from covis.errors import InvalidInputError, MissingFileError, OutputExistsError
from covis.images import Images, Scene
from covis.leaks import check_no_leak
from covis.splits import (
    BUFFER,
    NAMES,
    TEST,
    TRAIN,
    UNTAUGHT,
    VAL,
    collection,
    cut_along,
    cut_by_cell,
    keep_apart,
    numbered,
    positions,
    split_by_place,
    who_asks,
)

HOUR = 3600.0


def walk(n, *, root="r", seed=0, extent=400.0, offset=(0.0, 0.0), **columns):
    """Images at random places of a square; several shots at some places."""
    random = np.random.default_rng(seed)
    xy = random.uniform(0, extent, (n, 2)).round(1) + offset
    xy[1::3] = xy[0::3][: len(xy[1::3])]
    return Images(root, [f"{i:04d}.jpg" for i in range(n)], xy=xy, crs="EPSG:32633", **columns)


def one(images):
    return Scene("walk", "test", images, images)


cuts = st.one_of(
    st.fixed_dictionaries({"cell": st.floats(5, 200), "seed": st.integers(0, 99)}),
    st.fixed_dictionaries({"along": st.sampled_from(["east", "north", "west", "south"])}),
)
options = st.fixed_dictionaries(
    {
        "shares": st.sampled_from([(0.6, 0.15, 0.25), (0.5, 0.0, 0.5), (0.2, 0.4, 0.4)]),
        "buffer": st.one_of(st.just(0.0), st.floats(0, 60)),
        "ask": st.sampled_from(["sides", "every:2", "every:5", "flag:night", "time:17:00-06:00"]),
        "teach": st.sampled_from(["all", "database", "queries"]),
    }
)


def cut_or_none(scene, **how):
    try:
        return split_by_place(scene, **how)
    except InvalidInputError:
        return None


@given(st.integers(5, 150), st.integers(0, 1000), cuts, options, st.sampled_from([(0.0, 0.0), (5e5, 5e6)]))
def test_the_laws_of_a_split(n, seed, cut, option, offset):
    random = np.random.default_rng(seed)
    images = walk(n, seed=seed, offset=offset, time=random.uniform(0, 9e4, n), flags={"night": random.random(n) < 0.5})
    split = cut_or_none(one(images), **cut, **option)
    if split is None:
        return  # an empty split: refused in words, which is tested below
    parts = {name: set(split.rows(name).tolist()) for name in NAMES}
    assert sum(map(len, parts.values())) == n  # everything is counted once
    assert set().union(*parts.values()) == set(range(n))
    apart = cdist(images.xy, images.xy)
    for yields, to in (("train", "val"), ("train", "test"), ("val", "test")):
        here, there = split.rows(yields), split.rows(to)
        assert not (apart[np.ix_(here, there)] <= option["buffer"]).any()  # the buffer holds
    for row in parts["buffer"]:  # and nothing was left out for nothing
        judged = [*parts["val"], *parts["test"]]
        assert apart[row, judged].min() <= option["buffer"] + 1e-6
    sides = [split.rows(name, side) for name in ("val", "test") for side in ("database", "queries")]
    if split.asks is not None:
        assert sorted(np.concatenate(sides).tolist()) == sorted(parts["val"] | parts["test"])
    if option["teach"] != "all":
        assert (split.asks[split.rows("train")] == (option["teach"] == "queries")).all()
    again = split_by_place(one(images), **cut, **option)
    assert np.array_equal(again.part, split.part)  # the same seed gives the same split
    train, test = images.select(split.rows("train")), images.select(split.rows("test"))
    check_no_leak([Scene("t", "train", train, train)], [one(test)])  # no evaluated image teaches


@given(st.integers(5, 80), st.integers(0, 100), cuts)
def test_the_order_of_the_images_does_not_matter(n, seed, cut):
    images = walk(n, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    shuffled = images.select(order)
    first, second = (cut_or_none(one(x), **cut, buffer=7) for x in (images, shuffled))
    assert (first is None) == (second is None)
    if first is not None:
        assert np.array_equal(first.part[order], second.part)


@given(st.integers(1, 200), st.integers(0, 100), st.floats(1, 300))
def test_a_cell_goes_to_one_split_and_the_shares_are_filled(n, seed, cell):
    xy = walk(n, seed=seed, offset=(-200.0, -200.0)).xy
    part = cut_by_cell(xy, cell=cell, shares=(0.5, 0.2, 0.3), seed=seed)
    cells = np.floor(xy / cell).astype(int)
    for key in {tuple(c) for c in cells.tolist()}:
        assert len(set(part[(cells == key).all(axis=1)].tolist())) == 1
    assert (part == TEST).sum() >= 0.3 * n
    assert ((part == TEST) | (part == VAL)).sum() >= 0.5 * n
    largest = np.unique(cells, axis=0, return_counts=True)[1].max()
    assert (part == TEST).sum() < 0.3 * n + largest  # not one cell too many


def test_other_seeds_give_other_splits():
    xy = walk(200).xy
    parts = [cut_by_cell(xy, cell=50, shares=(0.6, 0.15, 0.25), seed=seed) for seed in (1, 2)]
    assert not np.array_equal(*parts)


@pytest.mark.parametrize(("direction", "axis", "sign"), [("east", 0, 1), ("north", 1, 1), ("west", 0, -1), ("south", 1, -1)])
def test_straight_cuts_follow_each_other(direction, axis, sign):
    xy = walk(100).xy
    part = cut_along(xy, direction=direction, shares=(0.5, 0.2, 0.3))
    value = sign * xy[:, axis]
    assert value[part == TRAIN].max() < value[part == VAL].min()
    assert value[part == VAL].max() < value[part == TEST].min()
    assert all(abs((part == which).sum() - share) <= 3 for which, share in ((TRAIN, 50), (VAL, 20), (TEST, 30)))


def test_images_at_one_coordinate_stay_together():
    part = cut_along([[0.0, 0], [1, 0], [1, 5], [1, 9], [2, 0], [3, 0]], direction="east", shares=(0.5, 0.0, 0.5))
    assert part.tolist() == [TRAIN, TEST, TEST, TEST, TEST, TEST]


def test_val_yields_to_test_and_train_to_both():
    xy = [[0.0, 0], [10, 0], [20, 0], [30, 0], [40, 0]]
    assert keep_apart(xy, [TRAIN, TRAIN, VAL, VAL, TEST], buffer=10).tolist() == [TRAIN, BUFFER, VAL, BUFFER, TEST]
    assert keep_apart(xy, [TRAIN, TRAIN, VAL, VAL, TEST], buffer=9.9).tolist() == [TRAIN, TRAIN, VAL, VAL, TEST]
    assert keep_apart(xy[:1] * 2, [TRAIN, TEST], buffer=0).tolist() == [BUFFER, TEST]  # the same spot on both sides
    assert keep_apart(xy, [UNTAUGHT, TRAIN, TRAIN, TRAIN, TRAIN], buffer=99).tolist() == [UNTAUGHT, *[TRAIN] * 4]


def test_who_asks():
    images = walk(6, time=[HOUR * h for h in (0, 5.99, 6, 16.99, 17, 23)], flags={"night": np.arange(6) > 3})
    assert who_asks(images, "time:17:00-06:00").tolist() == [True, True, False, False, True, True]
    assert who_asks(images, "time:06:00-17:00").tolist() == [False, False, True, True, False, False]
    assert who_asks(images, "time:17:00-24:00").tolist() == [False, False, False, False, True, True]
    assert who_asks(images, "time:17:00-06:00", utc_offset=2).tolist() == [True, False, False, True, True, True]
    assert who_asks(images, "flag:night").tolist() == [False] * 4 + [True] * 2
    assert who_asks(images, "every:4").tolist() == [True, False, False, False, True, False]
    assert who_asks(images, "sides") is None


def test_the_sides_of_the_data_are_kept():
    database, queries = walk(30, root="r/db", seed=1, heading=np.zeros(30)), walk(9, root="r/q", seed=2)
    images, asks = collection(Scene("s", "test", database, queries))
    assert images.heading is None  # a column of one side alone
    assert [images.path(row) for row in (0, 38)] == [
        (r / n).absolute() for r, n in ((database.root, "0000.jpg"), (queries.root, "0008.jpg"))
    ]
    assert asks.tolist() == [False] * 30 + [True] * 9
    assert np.array_equal(images.xy, np.concatenate([database.xy, queries.xy]))
    split = split_by_place(Scene("s", "test", database, queries), along="east", shares=(0.4, 0, 0.6), buffer=5, teach="database")
    assert split.rows("train").max() < 30 <= split.rows("test", "queries").min()


def test_columns_of_both_sides_stay():
    columns = {"depth": ["d"] * 4, "sequence": ["s"] * 4, "frame": range(4), "flags": {"night": [True] * 4}}
    a, b = (walk(4, root=root, **columns) for root in ("x/a", "x/b"))
    both, _ = collection(Scene("s", "test", a, replace(b, flags={**b.flags, "wet": [False] * 4})))
    assert both.depth[0] == "a/d"
    assert both.depth[-1] == "b/d"
    assert both.sequence == ("s",) * 8
    assert both.frame.tolist() == [*range(4)] * 2
    assert list(both.flags) == ["night"]


def test_a_summary_is_what_a_plain_loop_counts():
    images = walk(120, seed=4, extent=150.0)
    split = split_by_place(one(images), along="north", buffer=12, ask="every:3")
    summary = split.summary()
    json.dumps(summary, allow_nan=False)
    assert summary["images"] == 120
    assert summary["train"] + summary["buffer"] + sum(summary[s][k] for s in ("val", "test") for k in ("database", "queries")) == 120
    queries, database = split.rows("test", "queries"), split.rows("test", "database")
    apart = cdist(images.xy[queries], images.xy[database])
    for radius in (10, 25):
        found = (apart <= radius).sum(axis=1)
        assert summary["test"]["positives"][str(radius)] == {"mean": found.mean(), "none": (found == 0).sum()}
    gap = cdist(images.xy[split.rows("train")], images.xy[split.rows("test")]).min()
    assert summary["distance"]["train-test"] == pytest.approx(gap)


def test_where_all_ask_no_image_is_its_own_positive():
    images = walk(60, extent=5.0)
    summary = split_by_place(one(replace(images, xy=images.xy + [[500.0 * (i % 3), 0] for i in range(60)])), along="east").summary()
    assert summary["test"]["positives"]["25"]["mean"] == summary["test"]["database"] - 1


def test_frames_in_the_order_of_time():
    images = walk(4, time=[30.0, 10.0, 20.0, 20.0])
    assert numbered(images, "time").frame.tolist() == [3, 0, 1, 2]
    assert numbered(images, "order").frame.tolist() == [0, 1, 2, 3]
    assert numbered(images, "data") is images


def test_poses_give_positions():
    pose = np.tile(np.eye(4), (3, 1, 1))
    pose[:, :3, 3] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert positions(Images("r", ["a", "b", "c"], pose=pose)).tolist() == [[1, 2], [4, 5], [7, 8]]


TIMED = {"time": [0.0, np.nan, *[0.0] * 28]}
FAULTS = [
    ({"xy": None}, {"along": "east"}, "must have positions"),
    ({}, {}, "either cell .* or along"),
    ({}, {"cell": 10, "along": "east"}, "either cell .* or along"),
    ({}, {"cell": 0}, "more than 0 metres; got 0"),
    ({}, {"cell": np.nan}, "more than 0 metres; got nan"),
    ({}, {"along": "up"}, "one of east, north, west, south; got 'up'"),
    ({}, {"along": "east", "shares": (0.5, 0.5)}, "three numbers .* got .0.5, 0.5."),
    ({}, {"along": "east", "shares": (0.5, 0.4, 0.2)}, "add up to 1"),
    ({}, {"along": "east", "shares": (0.5, 0.5, 0)}, "test above 0"),
    ({}, {"along": "east", "shares": (1.2, -0.4, 0.2)}, "three numbers"),
    ({}, {"along": "east", "buffer": -1}, "0 metres or more; got -1"),
    ({}, {"along": "east", "ask": "every:1"}, "ask must be .* got 'every:1'"),
    ({}, {"along": "east", "ask": "sometimes"}, "ask must be .* got 'sometimes'"),
    ({}, {"along": "east", "ask": "time:17-6"}, "ask must be"),
    ({"time": [0.0] * 30}, {"along": "east", "ask": "time:17:00-25:00"}, "up to 24:00"),
    ({"time": [0.0] * 30}, {"along": "east", "ask": "time:17:61-20:00"}, "up to 24:00"),
    ({"time": [0.0] * 30}, {"along": "east", "ask": "time:17:00-17:00"}, "two different times"),
    ({"time": [0.0] * 30}, {"along": "east", "ask": "time:17:00-18:00", "utc_offset": np.inf}, "hours; got inf"),
    ({}, {"along": "east", "ask": "time:17:00-18:00"}, "must have times .* none has"),
    (TIMED, {"along": "east", "ask": "time:17:00-18:00"}, "0001.jpg has none"),
    (TIMED, {"along": "east", "frames": "time"}, "frames = 'time'.*0001.jpg has none"),
    ({}, {"along": "east", "frames": "name"}, "frames must be 'data', 'time' or 'order'"),
    ({"flags": {"wet": [True] * 30}}, {"along": "east", "ask": "flag:night"}, "flag 'night' .* they have wet"),
    ({}, {"along": "east", "teach": "database"}, "here all ask"),
    ({}, {"along": "east", "teach": "none"}, "teach must be"),
    ({}, {"along": "east", "buffer": 9999}, r"left to teach; none of 30 is \(train 0"),
    ({}, {"cell": 9999}, "left to teach"),
    ({"flags": {"night": [True] * 30}}, {"along": "east", "buffer": 0, "ask": "flag:night"}, "'val' must have database"),
    ({"flags": {"night": [False] * 30}}, {"along": "east", "shares": (0.5, 0, 0.5), "ask": "flag:night"}, "'test' must have queries"),
]


@pytest.mark.parametrize(("columns", "how", "said"), FAULTS)
def test_what_makes_no_sense_is_refused_in_words(columns, how, said):
    images = walk(30)
    with pytest.raises(InvalidInputError, match=rf"(?s){said}"):
        split_by_place(one(replace(images, **columns)), **how)


def test_no_images_and_images_on_both_sides_are_refused():
    with pytest.raises(InvalidInputError, match=r"has none"):
        split_by_place(one(walk(0)), along="east")
    images = walk(5)
    with pytest.raises(InvalidInputError, match=r"2 of 2 queries .* database too \(0001.jpg first\)"):
        split_by_place(Scene("s", "test", images, images.select([1, 2])), along="east")


@pytest.fixture
def collected(tmp_path):
    """A table of 40 photographs with positions, times and headings; its images are empty files."""
    images = walk(40, root=tmp_path / "photos", seed=3)
    (tmp_path / "photos").mkdir()
    for row in range(40):
        images.path(row).touch()
    rows = [
        [f"2025{row:04d}_{row % 24:02d}3000", name, *xy]
        for row, (name, xy) in enumerate(zip(images.names, images.xy.tolist(), strict=True))
    ]
    shots = enumerate(zip(images.names, images.xy.tolist(), strict=True))
    rows = [[f"20250101_{row % 24:02d}3000({row})", name, *xy] for row, (name, xy) in shots]
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["when", "name", "x", "y"], *rows])
    return tmp_path / "photos.csv"


READ = [
    "--read", "images=photos", "--read", "crs=EPSG:32633", "--read", "columns.name=name", "--read", "columns.x=x",
    "--read", "columns.y=y", "--read", "columns.time=when", "--read", "time_format=%Y%m%d_%H%M%S*",
]  # fmt: skip


def run(*arguments, code=0):
    done = CliRunner().invoke(cli.app, ["split", *map(str, arguments)])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_the_command_writes_a_table_that_is_read_split_by_split(collected, tmp_path, files):
    out = tmp_path / "cut"
    how = ["--along", "east", "--buffer", 20, "--ask", "time:17:00-06:00", "--frames", "time", "--files", files]
    done = run(collected, "--out", out, *READ, *how)
    assert done.stdout.splitlines()[-1] == str(out)
    record = json.loads((out / "split.json").read_text())
    summary = record["summary"]
    assert (record["format"], record["version"], record["of"]) == ("covis-split", 1, "photos")
    assert record["parameters"]["ask"] == "time:17:00-06:00"
    scenes = {split: read_table(out, split=split)[0] for split in ("train", "val", "test")}
    assert scenes["train"].training
    assert len(scenes["train"].queries) == summary["train"]
    for split in ("val", "test"):
        scene = scenes[split]
        assert (len(scene.database), len(scene.queries)) == (summary[split]["database"], summary[split]["queries"])
        hours = scene.queries.time / HOUR % 24
        assert ((hours >= 17) | (hours < 6)).all()
    test = scenes["test"].queries
    assert test.crs == "EPSG:32633"
    assert test.path(0).is_file()
    assert test.path(0).is_symlink() == (files == "link")
    original = walk(40, seed=3)
    rows = [original.names.index(name) for name in test.names]
    assert np.array_equal(test.xy, original.xy[rows])  # to the last bit
    assert len(Images.read(out / "images.csv")) == 40 - summary["buffer"]


def test_where_all_ask_the_table_says_so(collected, tmp_path):
    done = run(collected, "--out", tmp_path / "cut", *READ, "--cell", 60, "--seed", 5, "--buffer", 1, "--files", "none", "--json")
    said = json.loads(done.stdout[done.stdout.index("{") :])
    (scene,) = read_table(tmp_path / "cut", split="test")
    assert scene.training
    assert len(scene.queries) == said["summary"]["test"]["database"]
    assert said["parameters"]["cell"] == 60


def test_the_command_refuses_in_words(collected, tmp_path):
    for arguments, said in (
        (["--along", "east", "--shares", "a,b"], "--shares must be three numbers"),
        (["--along", "east", "--buffer", "9999"], "left to teach"),
        ([], "either cell"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            run(collected, "--out", tmp_path / "cut", *READ, *arguments)
        assert not (tmp_path / "cut").exists()
    (tmp_path / "cut").mkdir()
    with pytest.raises(OutputExistsError, match=r"already there"):
        run(collected, "--out", tmp_path / "cut", *READ, "--along", "east")


def test_several_scenes_are_cut_one_by_one(room, tmp_path):
    room("rooms/a")
    room("rooms/b")
    with pytest.raises(InvalidInputError, match=r"holds 2: a, b"):
        run(tmp_path / "rooms", "--out", tmp_path / "cut", "--along", "east")


def test_odd_texts_survive(tmp_path):
    images = Images(
        tmp_path, ['a "b", c.jpg', "plain.jpg"], xy=[[0.1 + 0.2, 1e-17], [5e5, 5e6]], heading=[np.nan, 1.0], sequence=["", "x,y"]
    )
    out = write_split_table(images, tmp_path / "cut", split=["test", "test"], side=["database", "query"], record={}, files="none")
    (scene,) = read_table(out, missing="ignore")
    assert scene.database == images.select([0])
    assert scene.queries == images.select([1])


def test_a_table_without_its_images_is_not_written(tmp_path):
    images = walk(2, root=tmp_path)
    with pytest.raises(MissingFileError, match=r"0000.jpg"):
        write_split_table(images, tmp_path / "cut", split=["train", "test"], side=["database"] * 2, record={})
    assert not (tmp_path / "cut").exists()
    with pytest.raises(InvalidInputError, match=r"2 images must have a split and a side; got 1 and 2"):
        write_split_table(images, tmp_path / "cut", split=["train"], side=["database"] * 2, record={})


CAMPUS = {"header": False, "columns": {"name": "1", "time": "1", "lat": "2", "lon": "3"}, "time_format": "%Y%m%d_%H%M%S*"}


def test_the_real_campus_is_cut_by_day_and_dark(covis_data):
    (scene,) = read_table(covis_data / "campus" / "gt.csv", **CAMPUS)
    split = split_by_place(scene, along="west", shares=(0.5, 0.2, 0.3), ask="time:17:00-06:00")
    summary = split.summary()
    assert (summary["train"], summary["buffer"], summary["test"]["queries"], summary["test"]["database"]) == (281, 98, 125, 88)
    assert summary["distance"]["train-test"] > 90
    assert {name[9:11] for name in split.images.select(split.rows("test", "queries")).names} == {"18"}
