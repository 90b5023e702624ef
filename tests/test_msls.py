"""The MSLS layout: trees written by hand as the benchmark documents them, every fault, and the inverse."""

import contextlib
import csv
import io
import itertools
import re
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from covis.coordinates import to_degrees, to_metres
from covis.datasets.catalogue import DATASETS, Size
from covis.datasets.msls import CITIES, draft_msls, read_msls, utm_frame, write_msls
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
from covis.sequences import windows

POSTPROCESSED = ["", "key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"]
RAW = ["", "key", "lon", "lat", "ca", "captured_at", "pano"]
SEQUENCE = ["", "key", "sequence_key", "frame_number"]
SUBTASK = ["", "key", "all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"]
HEADERS = {"postprocessed.csv": POSTPROCESSED, "raw.csv": RAW, "seq_info.csv": SEQUENCE, "subtask_index.csv": SUBTASK}
FILES = tuple(HEADERS)
ONE = {"cities": "cph", "split": "val", "missing": "ignore"}


def key(number, salt=""):
    return f"{salt}{number:0{22 - len(salt)}d}"


def rows_of(keys, seed=0):
    """A row for each key, as text by column name, of a car that drives through Copenhagen."""
    random = np.random.default_rng(seed)
    rows = []
    for number, name in enumerate(keys):
        lat, lon = 55.67 + 0.0001 * number, 12.56 + 0.0001 * (number % 7)
        ((east, north),) = to_metres([lat], [lon], crs="EPSG:32633")
        row = {
            "": str(number),
            "key": name,
            "easting": repr(float(east)),
            "northing": repr(float(north)),
            "lon": repr(lon),
            "lat": repr(lat),
        }
        row |= {"unique_cluster": str(number // 3), "sequence_key": f"sequence-{number // 5}", "frame_number": str(number % 5 + 7)}
        row |= {"ca": repr(round(float(random.uniform(0, 360)), 6)), "captured_at": f"2017-0{number % 9 + 1}-1{number % 10}"}
        row |= {name: str(bool(random.random() < 0.5)) for name in [*SUBTASK[2:], "pano", "night", "control_panel"]}
        rows.append(row | {"view_direction": ["Forward", "Backward", "Sideways"][number % 3]})
    return rows


def write_table(path, header, rows, **options):
    text = io.StringIO()
    writer = csv.DictWriter(text, header, extrasaction="ignore", **({"lineterminator": "\n"} | options))
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8"))


def write_side(root, city, side, rows, files=FILES, top="train_val"):
    folder = root / top / city / side
    (folder / "images").mkdir(parents=True)
    for file in files:
        write_table(folder / file, HEADERS[file], rows)
    return folder


def build(root, city="cph", *, queries=4, database=6, files=FILES, top="train_val"):
    """A city of the documented layout; returns its folder."""
    write_side(root, city, "query", rows_of([key(n, "q-") for n in range(queries)], 1), files, top)
    write_side(root, city, "database", rows_of([key(n, "d_") for n in range(database)], 2), files, top)
    return root / top / city


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def only(root, **options):
    (scene,) = read_msls(root, **(ONE | options))
    return scene


def check_images(images, rows, prefix):
    """Against the rows' text, column by column."""
    assert images.names == tuple(f"{prefix}/images/{row['key']}.jpg" for row in rows)
    assert images.xy.tolist() == [[float(row["easting"]), float(row["northing"])] for row in rows]
    assert images.heading.tolist() == [float(row["ca"]) for row in rows]
    epoch = date(1970, 1, 1)
    assert images.time.tolist() == [(date.fromisoformat(row["captured_at"]) - epoch).days * 86400 for row in rows]
    assert images.sequence == tuple(row["sequence_key"] for row in rows)
    assert images.frame.tolist() == [int(row["frame_number"]) for row in rows]
    assert images.place.tolist() == [int(row["unique_cluster"]) for row in rows]
    truths = {name: name for name in [*SUBTASK[2:], "night", "control_panel"]} | {"panorama": "pano"}
    expected = {flag: [row[name] == "True" for row in rows] for flag, name in truths.items()}
    expected |= {view: [row["view_direction"].lower() == view for row in rows] for view in ("forward", "backward", "sideways")}
    assert {name: flag.tolist() for name, flag in images.flags.items()} == expected


def test_a_city_is_read(tmp_path):
    build(tmp_path)
    scene = only(tmp_path)
    assert (scene.name, scene.split, scene.database.root) == ("cph", "val", tmp_path)
    check_images(scene.queries, rows_of([key(n, "q-") for n in range(4)], 1), "train_val/cph/query")
    check_images(scene.database, rows_of([key(n, "d_") for n in range(6)], 2), "train_val/cph/database")
    assert scene.database.crs == scene.queries.crs == "EPSG:32633"


def test_training_cities_keep_two_sides(tmp_path):
    build(tmp_path, "zurich")
    (scene,) = read_msls(tmp_path, split="train", missing="ignore")
    assert not scene.training
    assert (scene.name, scene.split, len(scene.queries), len(scene.database)) == ("zurich", "train", 4, 6)


def test_a_test_city_has_no_positions_and_no_headings(tmp_path):
    folder = build(tmp_path, "athens", top="test", files=("seq_info.csv", "subtask_index.csv"))
    (scene,) = read_msls(tmp_path, cities="athens", missing="ignore")
    assert scene.split == "test"
    assert scene.queries.names[0] == f"test/athens/query/images/{key(0, 'q-')}.jpg"
    assert scene.queries.xy is scene.queries.heading is scene.queries.time is scene.queries.place is scene.queries.crs is None
    assert sorted(scene.queries.flags) == sorted(SUBTASK[2:])
    for side, salt, count in (("query", "q-", 4), ("database", "d_", 6)):
        write_table(folder / side / "postprocessed.csv", POSTPROCESSED, rows_of([key(n, salt) for n in range(count)], 1))
    (scene,) = read_msls(tmp_path, cities="athens", missing="ignore")
    assert scene.queries.xy.shape == (4, 2)
    assert scene.queries.crs is None


@pytest.mark.parametrize("absent", FILES)
def test_any_table_but_the_last_may_be_absent(tmp_path, absent):
    folder = build(tmp_path)
    whole = only(tmp_path)
    for side in ("query", "database"):
        (folder / side / absent).unlink()
    said = pytest.warns(CovisWarning, match="computed from lon and lat") if absent == "postprocessed.csv" else contextlib.nullcontext()
    with said:
        part = only(tmp_path)
    if absent == "postprocessed.csv":  # lon and lat say where, to the last digit but few
        np.testing.assert_allclose(part.queries.xy, whole.queries.xy, atol=1e-6)
        assert part.queries.crs == whole.queries.crs
    gone = {
        "postprocessed.csv": {"place", "night", "control_panel", "forward", "backward", "sideways"},
        "raw.csv": {"heading", "time", "panorama"},
        "seq_info.csv": {"sequence", "frame"},
        "subtask_index.csv": set(SUBTASK[2:]),
    }[absent]
    mine, theirs = ({**scene.queries._columns(), **scene.queries.flags} for scene in (whole, part))
    assert mine.keys() - theirs.keys() == gone
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs if (name, absent) != ("xy", "postprocessed.csv"))
    for file in set(FILES) - {absent}:
        (folder / "query" / file).unlink()
    with pytest.raises(MissingFileError, match=r"query must hold one at least of seq_info\.csv.*found none"):
        only(tmp_path)


def saved_by(program, path, rows):
    """The same table as another program would save it."""
    header = HEADERS[path.name]
    if program == "quotes":
        write_table(path, header, rows, quoting=csv.QUOTE_ALL)
    elif program == "CRLF and a byte order mark":
        write_table(path, header[1:], rows, lineterminator="\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    elif program == "other columns, another order, no index":
        more = [row | {"note": "x", "key ": "no key"} for row in rows]
        write_table(path, ["note", *header[:0:-1]], more)
    elif program == "case and blanks":
        loud = [{name: f" {value.upper()}\t" if value in ("True", "False") else value for name, value in row.items()} for row in rows]
        write_table(path, [f" {name}" for name in header], [{f" {name}": value for name, value in row.items()} for row in loud])
    elif program == "the column as the README calls it":
        named = ["sequence_id" if name == "sequence_key" else name for name in header]
        write_table(path, named, [row | {"sequence_id": row["sequence_key"]} for row in rows])
    else:
        floats = ("frame_number", "unique_cluster")
        write_table(path, header, [{name: f"{value}.0" if name in floats else value for name, value in row.items()} for row in rows])


@pytest.mark.parametrize("program", [
    "quotes",
    "CRLF and a byte order mark",
    "other columns, another order, no index",
    "case and blanks",
    "the column as the README calls it",
    "numbers with a point",
])  # fmt: skip
def test_tables_saved_by_other_programs_are_the_same(tmp_path, program):
    folder = build(tmp_path)
    plain = only(tmp_path)
    rows = rows_of([key(n, "q-") for n in range(4)], 1)
    for file in FILES:
        saved_by(program, folder / "query" / file, rows)
    assert only(tmp_path) == plain


def test_keys_are_text(tmp_path):
    """Numbers with leading zeros, and one that reads as infinity."""
    build(tmp_path)
    keys = ["0012", "1e5", "nan", "True", "1234567890123456789012", "-_-"]
    for file in FILES:
        write_table(tmp_path / "train_val" / "cph" / "query" / file, HEADERS[file], rows_of(keys))
    assert [Path(name).stem for name in only(tmp_path).queries.names] == keys


def test_what_is_unknown(tmp_path):
    """No value in a whole column: absent. In a heading, a date, a view: unknown."""
    folder = build(tmp_path) / "query"
    rows = rows_of([key(n, "q-") for n in range(4)], 1)
    rows[0] |= {"ca": "", "captured_at": "", "view_direction": ""}
    rows[1] |= {"ca": "NaN"}
    rows[2] |= {"ca": "360.0"}
    rows[3] |= {"ca": "359.99"}
    for row in rows:
        row |= {"unique_cluster": "", "night": "", "sequence_key": "", "frame_number": ""}
    for file in FILES:
        write_table(folder / file, HEADERS[file], rows)
    queries = only(tmp_path).queries
    np.testing.assert_array_equal(queries.heading, [np.nan, np.nan, 0, 359.99])
    assert np.isnan(queries.time).tolist() == [True, False, False, False]
    assert [queries.flags[view][0] for view in ("forward", "backward", "sideways")] == [False] * 3
    assert queries.place is queries.sequence is queries.frame is None
    assert "night" not in queries.flags


def test_an_empty_side_is_no_fault(tmp_path):
    build(tmp_path, queries=0)
    scene = only(tmp_path)
    assert (len(scene.queries), scene.queries.xy.shape, scene.queries.crs) == (0, (0, 2), "EPSG:32633")
    assert windows(scene.queries, 3).shape == (0, 3)


def test_cities_are_those_of_the_split(tmp_path):
    build(tmp_path, "sf"), build(tmp_path, "goa"), build(tmp_path, "amman"), build(tmp_path, "cph")
    for city in CITIES["test"]:
        build(tmp_path, city, top="test")
    names = {split: [draft.name for draft in draft_msls(tmp_path, split=split)] for split in CITIES}
    assert names == {"train": ["goa", "amman"], "val": ["cph", "sf"], "test": list(CITIES["test"])}
    assert [draft.name for draft in draft_msls(tmp_path)] == names["test"]
    assert [draft.name for draft in draft_msls(tmp_path, split="val", cities="sf, cph,")] == ["sf", "cph"]
    assert [draft.name for draft in draft_msls(tmp_path, split="train", cities=["amman"])] == ["amman"]
    assert [(draft.name, draft.split) for draft in draft_msls(tmp_path, split="val", cities=["goa", "cph"])] == [
        ("goa", "val"),
        ("cph", "val"),
    ]
    assert [draft.name for draft in draft_msls(tmp_path, split="val", cities="")] == ["cph", "sf"]


@pytest.mark.parametrize(("options", "error", "said"), [
    ({"split": "valid"}, InvalidInputError, "'train', 'val' or 'test'; got 'valid'"),
    ({"split": ["val"]}, InvalidInputError, "'train', 'val' or 'test'"),
    ({"split": "val", "cities": "cpn"}, UnknownNameError, "no city called 'cpn'. Did you mean 'cph'"),
    ({"split": "val", "cities": [3]}, UnknownNameError, "no city called 3"),
    ({"split": "val", "cities": 3}, InvalidInputError, "cities must be a list of names"),
    ({"split": "train", "cities": "cph"}, InvalidInputError, "cph is of the split 'val', not of 'train'"),
    ({"split": "test", "cities": "goa"}, InvalidInputError, "goa is of the split 'train'"),
    ({"split": "val", "cities": "miami"}, InvalidInputError, "miami is of the split 'test'"),
    ({"split": "val", "cities": "cph,cph"}, InvalidInputError, "named once"),
    ({"split": "val", "cities": "cph,sf"}, MissingFileError, "city sf must lie in .*train_val/sf"),
    ({"split": "test"}, MissingFileError, r"test/miami; found those of other splits \(val: cph\)"),
    ({"split": "val", "cities": "cph", "panoramas": True}, InvalidInputError, "'keep' or 'drop'; got True"),
    ({"split": "val", "cities": "cph", "missing": "no"}, InvalidInputError, "policy missing"),
])  # fmt: skip
def test_options_are_checked(tmp_path, options, error, said):
    build(tmp_path)
    with pytest.raises(error, match=said):
        read_msls(tmp_path, **options)


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere must be a folder"):
        read_msls(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match=r"train_val/cph; found none\. Is this the right"):
        read_msls(tmp_path, split="val")
    folder = build(tmp_path)
    (folder / "query").rename(folder / "queries")
    with pytest.raises(MissingFileError, match=r"its query images in .*cph/query"):
        only(tmp_path)


def test_a_part_of_a_benchmark_is_said(tmp_path):
    build(tmp_path), build(tmp_path, "goa")
    with pytest.warns(CovisWarning, match="holds cph of the val split; sf is not there"):
        assert len(draft_msls(tmp_path, split="val")) == 1
    assert len(draft_msls(tmp_path, split="train")) == 1  # to learn from a part needs no excuse


def test_panoramas_are_kept_or_dropped(tmp_path):
    folder = build(tmp_path)
    whole, part = only(tmp_path), only(tmp_path, panoramas="drop")
    for a, b in ((whole.queries, part.queries), (whole.database, part.database)):
        assert 0 < a.flags["panorama"].sum() < len(a)
        assert b == a.select(~a.flags["panorama"])
    (folder / "query" / "raw.csv").unlink()
    with pytest.raises(InvalidInputError, match=r"query/\*\.csv: panoramas can be dropped where raw\.csv says"):
        only(tmp_path, panoramas="drop")


def test_missing_images_and_bad_values_go_by_the_policies(tmp_path):
    folder = build(tmp_path)
    for side, salt, count in (("query", "q-", 4), ("database", "d_", 6)):
        for number in range(count):
            (folder / side / "images" / f"{key(number, salt)}.jpg").touch()
    assert len(read_msls(tmp_path, split="val", cities="cph")[0].queries) == 4
    (folder / "query" / "images" / f"{key(2, 'q-')}.jpg").unlink()
    with pytest.raises(InvalidInputError, match=r"1 of 4 images of .*query/\*\.csv have no file: .*csv, line 4"):
        read_msls(tmp_path, split="val", cities="cph")
    with pytest.warns(CovisWarning, match="left out"):
        assert len(only(tmp_path, missing="skip").queries) == 3
    rows = rows_of([key(n, "d_") for n in range(6)], 2)
    rows[1]["ca"], rows[2]["easting"], rows[3]["northing"], rows[4]["ca"] = "360.5", "", "inf", "-1"
    for file in FILES:
        write_table(folder / "database" / file, HEADERS[file], rows)
    with pytest.raises(InvalidInputError, match=r"4 of 6 .*line 4\).*invalid='skip'"):
        only(tmp_path)
    with pytest.warns(CovisWarning, match="values that cannot be used"):
        assert only(tmp_path, invalid="skip").database.frame.tolist() == [7, 7]


def test_a_key_that_stands_twice_goes_by_the_policy(tmp_path):
    build(tmp_path)
    for file in FILES:
        write_table(tmp_path / "train_val" / "cph" / "query" / file, HEADERS[file], rows_of(["a", "b", "a"]))
    with pytest.raises(InvalidInputError, match=r"line 4\): the name stands at .*line 2 too"):
        only(tmp_path)
    with pytest.warns(CovisWarning, match="stands at"):
        assert len(only(tmp_path, invalid="skip").queries) == 2


P, R, S, T = "postprocessed.csv", "raw.csv", "seq_info.csv", "subtask_index.csv"


@pytest.mark.parametrize(("file", "old", "new", "named"), [
    (P, "0,q-", "0,x-", [P, "line 2", "q-", "x-", S]),
    (R, key(2, "q-"), key(3, "q-"), [R, "line 4", key(2, "q-"), key(3, "q-")]),
    (T, key(3, "q-"), "", [T, "line 5", "''"]),
    (P, "Forward", "Upward", [P, "line 2", "view_direction", "'Upward'"]),
    (P, "Backward", "Backward,x", [P, "line 3", "8 values", "found 9"]),
    (P, "Backward\n", "Backward\n\n", [P, "line 4", "8 values", "found 1"]),
    (P, ",Sideways", "", [P, "line 4", "8 values", "found 7"]),
    (P, "easting", "east", [P, "line 1", "'easting'", "found none", "'east'"]),
    (P, "easting,", "easting,easting,", [P, "line 1", "one column 'easting'", "found 2"]),
    (R, "lon", "northing", [R, "line 1", "'lon'"]),
    (R, "key", "name", [R, "line 1", "'key'"]),
    (R, "12.56", "12,56", [R, "line 2", "7 values", "found 8"]),
    (R, "12.56,", "12.56E,", [R, "line 2", "lon must be a number", "'12.56E'"]),
    (R, "2017-01-10", "2017-02-30", [R, "line 2", "date, YYYY-MM-DD", "2017-02-30"]),
    (R, "2017-01-10", "10.1.2017", [R, "line 2", "captured_at"]),
    (R, "e\n", "es\n", [R, "line", "pano must be True or False"]),
    (R, "True\n", "\n", [R, "line", "pano must be True or False; found ''"]),
    (S, "sequence-0", "", [S, "line 2", "sequence_key must not be empty in some rows"]),
    (S, ",7", ",7.5", [S, "line 2", "frame_number must be a whole number", "7.5"]),
    (S, ",8", ",", [S, "line 3", "frame_number", "''"]),
    (S, ",8", ",99999999999999999999", [S, "line 3", "whole number"]),
    (S, "sequence-0", '"sequence-0', [S, "line"]),
    (S, "sequence-0", '"sequence,0"', [S, "line 2", "comma"]),
    (S, "sequence-0", '"sequence"-0', [S, "line 2"]),
    (T, "all", "ALL", [T, "line 1", "'all'"]),
    (T, "True", "yes", [T, "line", "'yes'"]),
    (T, "False", "0", [T, "line", "must be True or False; found '0'"]),
])  # fmt: skip
def test_each_fault_is_one_error_that_names_file_and_line(tmp_path, file, old, new, named):
    edit(build(tmp_path) / "query" / file, old, new)
    with pytest.raises(DamagedFileError) as refused:
        only(tmp_path)
    for text in ["query", *named]:
        assert text in str(refused.value)
    assert re.search(r"Mend|Unpack|unpack", str(refused.value))


@pytest.mark.parametrize(("damage", "named"), [
    (b"", ["line 1", "empty or truncated"]),
    (b"\n", ["line 1", "column 'key'"]),
    (b"\xff\xfe\n", ["line 1", "UTF-8"]),
    (b",key,sequence_key,frame_number\n0,k\xe9,s,1\n", ["line 2", "UTF-8"]),
    (b",key,sequence_key,frame_number\n0,k,s,1", ["line 2", "last line must have an end"]),
    (b",key,sequence_key,frame_number\r0,k,s,1\r\n", ["line 1"]),
    (b",key,sequence_key,frame_number\n0,../x,s,1\n", ["line 2", "key must be letters"]),
    (b",key,sequence_key,frame_number\n0,a b,s,1\n", ["line 2", "'a b'"]),
    (b",key,sequence_key,frame_number\n0,a\x00b,s,1\n", ["line 2"]),
    (b',key,sequence_key,frame_number\n0,"a\nb",s,1\n', ["line 3", "line break"]),
    (b'PK\x03\x04"\n', ["line 1"]),
])  # fmt: skip
def test_damage_is_named(tmp_path, damage, named):
    folder = build(tmp_path, files=("seq_info.csv",))
    (folder / "query" / "seq_info.csv").write_bytes(damage)
    with pytest.raises(DamagedFileError) as refused:
        only(tmp_path)
    for text in ["query/seq_info.csv", *named]:
        assert text in str(refused.value)


def test_a_folder_in_place_of_a_table_is_named(tmp_path):
    path = build(tmp_path) / "query" / "raw.csv"
    path.unlink()
    path.mkdir()
    with pytest.raises(DamagedFileError, match=r"raw\.csv must be a readable file"):
        only(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_tables_of_different_rows_are_refused(tmp_path, file):
    """A line less, a line more, two lines exchanged."""
    path = build(tmp_path) / "query" / file
    head, *lines = path.read_text().splitlines(keepends=True)
    for changed in (lines[:-1], lines[1:], [*lines, lines[-1].replace("q-", "x-")], [lines[1], lines[0], *lines[2:]], []):
        path.write_text("".join([head, *changed]))
        with pytest.raises(DamagedFileError, match=r"query/\w+\.csv, line \d"):
            only(tmp_path)


@pytest.mark.parametrize(("file", "column"), [(file, name) for file, header in HEADERS.items() for name in header[1:]])
def test_a_table_without_one_of_its_columns_is_refused(tmp_path, file, column):
    folder = build(tmp_path)
    header = [name for name in HEADERS[file] if name != column]
    write_table(folder / "database" / file, header, rows_of([key(n, "d_") for n in range(6)], 2))
    with pytest.raises(DamagedFileError, match=f"database/{file}, line 1: there must be one column '{column}'; found none"):
        only(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_every_cut_is_refused(tmp_path, file, refuses_every_cut):
    path = build(tmp_path, queries=2, database=1) / "query" / file
    refuses_every_cut(path, lambda: draft_msls(tmp_path, split="val", cities="cph"), cuts=16)


def outcome(root):
    """The scene, or what our error says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)  # a longitude that was changed is somewhere else
        try:
            return only(root)
        except CovisError as error:
            return str(error)


def shape_of(scene):
    sides = (scene.queries, scene.database)
    return [(images.names, images._columns().keys(), images.flags.keys()) for images in sides]


@pytest.mark.parametrize("file", FILES)
def test_no_flip_of_a_byte_breaks_out(tmp_path, file):
    """Our error, or the same images in the same order with the same columns; no table can tell that a digit was another."""
    path = build(tmp_path, queries=2, database=1) / "query" / file
    plain, whole = shape_of(only(tmp_path)), path.read_bytes()
    for place, mask in zip(range(0, len(whole), 7), itertools.cycle((0x55, 0x80, 0x20, 0x01, 0x0E))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        found = outcome(tmp_path)
        assert "query" in found if isinstance(found, str) else shape_of(found) == plain


@given(damage=st.binary(max_size=120), file=st.sampled_from(FILES), quoted=st.booleans())
def test_garbage_is_never_a_foreign_traceback(tmp_path_factory, damage, file, quoted):
    root = tmp_path_factory.mktemp("g")
    path = build(root, queries=2, database=1) / "query" / file
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'"' * quoted, damage, *lines[1:]]))
    found = outcome(root)
    assert "query" in found if isinstance(found, str) else len(found.queries) == 2


def place(lat, lon, zone):
    return to_metres(lat, lon, crs=f"EPSG:{zone}")


def test_the_frame_is_the_zone_that_agrees():
    lat, lon = np.full(40, 51.5), np.linspace(-0.02, 0.01, 40)  # London: most of it in zone 30, the rest in 31
    degrees = np.column_stack([lat, lon])
    for zone in (32629, 32630, 32631):
        assert utm_frame(place(lat, lon, zone), degrees)[0] == f"EPSG:{zone}"
    own = np.where((lon < 0)[:, None], place(lat, lon, 32630), place(lat, lon, 32631))
    assert utm_frame(own, degrees)[0] is None
    assert utm_frame(place(lat, lon, 32630) + np.array([50.1, 0]), degrees)[0] is None
    assert utm_frame(place(lat, lon, 32630) + np.array([49.9, 0]), degrees)[0] == "EPSG:32630"
    lat, lon = np.full(3, -36.9), np.full(3, -179.99)  # zones wrap round: the one before the first is the sixtieth
    assert utm_frame(place(lat, lon, 32760), np.column_stack([lat, lon]))[0] == "EPSG:32760"


def test_rows_that_disagree_are_counted_up_to_a_twentieth():
    lat, lon = np.full(40, 51.5), np.linspace(-0.2, -0.1, 40)
    xy, degrees = place(lat, lon, 32630), np.column_stack([lat, lon])
    xy[[7, 20]] += 60
    assert utm_frame(xy, degrees)[0] == "EPSG:32630"
    assert utm_frame(xy, degrees)[1].tolist() == [7, 20]
    xy[30] += 60
    assert utm_frame(xy, degrees)[0] is None
    degrees[:30] = np.nan  # what is unknown says nothing
    assert utm_frame(xy, degrees)[0] is None
    degrees[30, 0] = 91
    assert utm_frame(xy, degrees) == ("EPSG:32630", pytest.approx([]))
    assert utm_frame(xy, np.full((40, 2), np.nan))[0] is None


def test_positions_that_disagree_are_said(tmp_path):
    folder = build(tmp_path, queries=20, database=30)
    edit(folder / "query" / "raw.csv", ",12.56,55.67,", ",12.58,55.67,")
    with pytest.warns(CovisWarning, match=r"query/\*\.csv, line 2: lon and lat must agree.*1 of 50 rows do not.*frame is EPSG:32633"):
        assert only(tmp_path).queries.crs == "EPSG:32633"
    for side in ("query", "database"):
        path = folder / side / "raw.csv"
        path.write_text(path.read_text().replace(",lon,lat,", ",lat,lon,"))
    with pytest.warns(CovisWarning, match=r"database/\*\.csv, line 2: .*50 of 50 rows do not.*stays unknown"):
        scene = only(tmp_path)
    assert scene.queries.crs is scene.database.crs is None
    assert scene.queries.xy.shape == (20, 2)


def test_a_frame_holds_for_both_sides_where_one_can_say_it(tmp_path):
    folder = build(tmp_path)
    (folder / "query" / "raw.csv").unlink()
    assert only(tmp_path).queries.crs == "EPSG:32633"
    (folder / "database" / "raw.csv").unlink()
    assert only(tmp_path).queries.crs is None


# The inverse.

KEYS = st.text("abcXYZ019-_", min_size=22, max_size=22)
SEQUENCES = st.text("ab -_é'#;", min_size=1, max_size=5).filter(lambda text: text == text.strip())


@st.composite
def sides(draw, city, side):
    """Images whose columns are there or not; what is there has a value somewhere."""
    keys = draw(st.lists(KEYS, min_size=1, max_size=5, unique=True))
    count, top = len(keys), "test" if city in CITIES["test"] else "train_val"

    def column(values):
        return st.none() | st.lists(values, min_size=count, max_size=count)

    def known(values):
        return column(values | st.just(float("nan"))).map(lambda v: None if v is None or np.isnan(v).all() else v)

    spread = st.floats(-3000, 3000)
    flags = {name: draw(column(st.booleans())) for name in [*SUBTASK[2:], "night", "control_panel", "panorama"]}
    flags = {name: np.array(flag) for name, flag in flags.items() if flag is not None}
    if views := draw(column(st.sampled_from(["forward", "backward", "sideways", ""])).filter(lambda v: v is None or any(v))):
        flags |= {view: np.array([one == view for one in views]) for view in ("forward", "backward", "sideways")}
    numbers = st.integers(-(2**63), 2**63 - 1)
    return Images(
        "/photos",
        [f"{top}/{city}/{side}/images/{key}.jpg" for key in keys],
        xy=draw(column(st.tuples(spread.map(lambda e: 7e5 + e), spread.map(lambda n: 6.17e6 + n)))),
        heading=draw(known(st.floats(0, 360, exclude_max=True))),
        time=draw(known(st.integers(-719162, 2932896).map(lambda day: day * 86400.0))),
        sequence=draw(column(SEQUENCES)),
        frame=draw(column(numbers)),
        place=draw(column(numbers)),
        flags=flags,
    )


@st.composite
def cities(draw):
    """A scene that the layout can hold whole; its frame may be the zone beside that of its positions."""
    split, name = draw(st.sampled_from([("val", "cph"), ("train", "zurich"), ("test", "athens")]))
    crs = draw(st.sampled_from([None, "EPSG:32632", "EPSG:32733"]))
    both = draw(sides(name, "database")), draw(sides(name, "query"))
    if any(images.xy is not None for images in both):  # a frame of no positions cannot be told from the tables
        both = tuple(replace(images, crs=crs) for images in both)
    return Scene(name, split, *both)


def alike(a, b):
    """Equal in everything but the root."""
    pairs = ((a.database, b.database), (a.queries, b.queries))
    return (a.name, a.split) == (b.name, b.split) and all(replace(x, root="r") == replace(y, root="r") for x, y in pairs)


@given(scene=cities())
@settings(max_examples=20)
def test_what_is_written_is_read(tmp_path_factory, scene):
    out = tmp_path_factory.mktemp("w")
    (folder,) = write_msls([scene], out, files="none")
    (found,) = read_msls(out, split=scene.split, cities=scene.name, missing="ignore")
    assert alike(found, scene)
    assert not list(out.rglob("*.partial"))
    write_msls([found], out / "again", files="none")
    for path in folder.rglob("*.csv"):
        assert path.read_bytes() == (out / "again" / path.relative_to(out)).read_bytes()


def test_written_tables_are_those_of_the_benchmark(tmp_path):
    """Those that the test wrote by hand; numbers may be spelt in another way, and longitudes are computed."""
    build(tmp_path / "in")
    write_msls([only(tmp_path / "in")], tmp_path / "out", files="none")
    for side, file in itertools.product(("query", "database"), FILES):
        paths = [tmp_path / root / "train_val" / "cph" / side / file for root in ("in", "out")]
        mine, theirs = (list(csv.reader(io.StringIO(path.read_text()))) for path in paths)
        assert theirs[0] == HEADERS[file]
        for a, b in zip(mine[1:], theirs[1:], strict=True):
            numeric = {n for n, name in enumerate(HEADERS[file]) if name in ("lon", "lat", "ca", "easting", "northing")}
            assert [cell for n, cell in enumerate(a) if n not in numeric] == [cell for n, cell in enumerate(b) if n not in numeric]
            np.testing.assert_allclose([float(a[n]) for n in numeric], [float(b[n]) for n in numeric], rtol=1e-12)
        assert b"\r" not in paths[1].read_bytes()


def test_only_what_is_there_is_written(tmp_path):
    scene = Scene("miami", "test", Images("r", ["a.jpg"]), Images("r", ["b.jpg"], heading=[3]))
    (folder,) = write_msls([scene], tmp_path, files="none")
    assert folder == tmp_path / "test" / "miami"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert files == {"database", "database/images", "database/seq_info.csv", "query", "query/images", "query/seq_info.csv", "query/raw.csv"}
    (found,) = read_msls(tmp_path, cities="miami", missing="ignore")
    assert (found.queries.heading.tolist(), found.database.heading, found.queries.sequence) == ([3], None, None)


def photos(root, names, **columns):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return Images(root, names, **columns)


def test_names_that_are_no_keys_get_one_that_stays(tmp_path):
    own = "0123456789012345678-_A"
    queries = photos(tmp_path / "p", ["q/1.jpg", "q/2.JPEG", f"q/{own}.jpg", "train_val/cph/query/images/77.jpg", "q/ü, 3.jpg"])
    database = photos(tmp_path / "p", ["d/1.jpg", "d/2.jpg"])
    scene = Scene("cph", "val", database, queries)
    (folder,) = write_msls([scene], tmp_path / "a")
    found = only(tmp_path / "a", missing="stop")
    keys = [Path(name).stem for name in (*found.queries.names, *found.database.names)]
    assert (keys[2], keys[3]) == (own, "77")
    assert len(set(keys)) == 7
    assert keys[0] == "mC3B22AgDupsIiD4QSKbef"  # written once, the same in every run and version
    for name in (keys[0], keys[1], keys[4], keys[5], keys[6]):
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", name)
    for images, sources in ((found.queries, queries), (found.database, database)):
        for row in range(len(images)):
            assert images.path(row).read_bytes() == sources.path(row).read_bytes()
    write_msls([Scene("sf", "val", database, queries)], tmp_path / "a", files="none")
    other = [Path(name).stem for name in read_msls(tmp_path / "a", split="val", cities="sf", missing="ignore")[0].queries.names]
    assert other[0] != keys[0]
    assert folder == tmp_path / "a" / "train_val" / "cph"


def test_files_are_copied_linked_or_left(tmp_path):
    scene = Scene("cph", "val", photos(tmp_path / "p", ["d.jpg"]), photos(tmp_path / "p", ["q.jpg"]))
    for files in ("copy", "link", "none"):
        write_msls([scene], tmp_path / files, files=files)
        found = only(tmp_path / files)
        path = found.queries.path(0)
        assert (path.is_symlink(), path.exists()) == (files == "link", files != "none")
    assert (tmp_path / "p" / "q.jpg").exists()
    with pytest.raises(InvalidInputError, match="'copy', 'link' or 'none'; got 'move'"):
        write_msls([scene], tmp_path / "move", files="move")


def scene_of(name="cph", queries=None, **columns):
    return Scene(
        name, "val", Images("r", ["d.jpg"], **{k: columns[k] for k in columns if k == "crs"}), queries or Images("r", ["q.jpg"], **columns)
    )


@pytest.mark.parametrize(("scene", "error", "said"), [
    (lambda: scene_of("copenhagen"), UnknownNameError, "cities; got 'copenhagen'"),
    (lambda: scene_of("cpg"), UnknownNameError, "Did you mean 'cph'"),
    (lambda: scene_of(queries=Images("r", ["q.png"])), InvalidInputError, r"JPEG files, \.jpg; 'q\.png' of 'cph' is not\. Convert"),
    (lambda: scene_of(queries=Images("r", ["jpg"])), InvalidInputError, "JPEG"),
    (lambda: scene_of(queries=Images("r", ["d.jpg"])), InvalidInputError, r"different files.*1 stand on both sides, as 'd\.jpg'"),
    (lambda: scene_of(queries=Images("r", ["a/d.jpg", "b/../a/" + "k" * 22 + ".jpg", "c/" + "k" * 22 + ".jpg"])), InvalidInputError,
     "would share the key 'kkk"),
    (lambda: scene_of(sequence=["a,b"]), InvalidInputError, "commas.*'q.jpg' is of 'a,b'"),
    (lambda: scene_of(sequence=[""]), InvalidInputError, "sequence"),
    (lambda: scene_of(sequence=["a\nb"]), InvalidInputError, "sequence"),
    (lambda: scene_of(sequence=[" a"]), InvalidInputError, "sequence"),
    (lambda: scene_of(sequence=['"a"']), InvalidInputError, "sequence"),
    (lambda: scene_of(sequence=["\udcff"]), InvalidInputError, "sequence"),
    (lambda: scene_of(time=[1e12]), InvalidInputError, "years 1 to 9999; 'q.jpg' has 1e"),
    (lambda: scene_of(flags={"forward": [True], "sideways": [True]}), InvalidInputError, "'q.jpg' has two of these"),
    (lambda: scene_of(xy=[[7e5, 6.2e6]], crs="EPSG:3857"), InvalidInputError, "do not fit EPSG:3857"),
    (lambda: scene_of(xy=[[7e5, 6.2e6]], crs="Mars"), InvalidInputError, "pyproj"),
    (lambda: scene_of(xy=[[0, 1e9]], crs="EPSG:32633"), InvalidInputError, "EPSG:32633"),
])  # fmt: skip
def test_what_the_layout_cannot_hold_is_refused(tmp_path, scene, error, said):
    good = Scene("sf", "val", Images("r", ["d.jpg"]), Images("r", ["q.jpg"]))
    with pytest.raises(error, match=said):
        write_msls([good, scene()], tmp_path / "out", files="none")
    assert not (tmp_path / "out").exists()


def test_scenes_must_differ(tmp_path):
    with pytest.raises(InvalidInputError, match="different names"):
        write_msls([scene_of(), scene_of()], tmp_path, files="none")
    both = Images("r", ["a.jpg"])
    with pytest.raises(InvalidInputError, match="both sides"):
        write_msls([Scene("goa", "train", both, both)], tmp_path, files="none")


def test_the_layouts_limits_are_those_it_says(tmp_path):
    """The time of day, and what has no column, are left out."""
    flags = {"blurred": [True, False], "night": [True, False]}
    queries = Images("r", ["q.jpg", "p.jpg"], time=[86400 * 3 + 7.5, -7.5], fov=[60, 60], flags=flags)
    write_msls([scene_of(queries=queries)], tmp_path, files="none")
    found = only(tmp_path).queries
    assert (found.time.tolist(), found.fov) == ([86400 * 3, -86400], None)
    assert {name: flag.tolist() for name, flag in found.flags.items()} == {"night": [True, False]}


def test_nothing_is_overwritten_unasked_and_no_half_is_left(tmp_path):
    scene = Scene("cph", "val", photos(tmp_path / "p", ["d.jpg"]), photos(tmp_path / "p", ["q.jpg"]))
    (folder,) = write_msls([scene], tmp_path / "out")
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(OutputExistsError, match="cph is already there"):
        write_msls([scene], tmp_path / "out")
    (tmp_path / "p" / "q.jpg").unlink()
    with pytest.raises(MissingFileError, match=r"q\.jpg must be there"):
        write_msls([scene], tmp_path / "out", overwrite=True)
    assert (folder / "mine.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["cph"]
    write_msls([scene], tmp_path / "out", overwrite=True, files="none")
    assert not (folder / "mine.txt").exists()


@pytest.mark.parametrize("files", ["copy", "link", "none"])
def test_a_city_never_replaces_its_own_images(tmp_path, files):
    scene = Scene("cph", "val", photos(tmp_path / "p", ["d.jpg"]), photos(tmp_path / "p", ["q.jpg"]))
    write_msls([scene], tmp_path / "out")
    found = only(tmp_path / "out")
    with pytest.raises(InvalidInputError, match="own images lie in it"):
        write_msls([found], tmp_path / "out", overwrite=True, files=files)
    assert found.queries.path(0).read_bytes() == b"q.jpg"


# The ground truth of the test cities, and the benchmark's sizes.


def write_test_city(root, files):
    """Athens: q0 and q1 have one database image within 25 m each, q2 none, and q3 is near one but outside the subset."""
    queries, database = [(0.0, 0.0), (500.0, 524.0), (0.0, 540.0), (0.0, 5.0)], [(10.0, 0.0), (500.0, 500.0)]
    for side, salt, places in (("query", "q-", queries), ("database", "d_", database)):
        rows = rows_of([key(n, salt) for n in range(len(places))])
        for n, (row, (east, north)) in enumerate(zip(rows, places, strict=True)):
            xy = np.array([[740000.0 + east, 4200000.0 + north]])
            ((lat, lon),) = to_degrees(xy, crs="EPSG:32634").tolist()
            row |= {"easting": repr(float(xy[0, 0])), "northing": repr(float(xy[0, 1])), "lat": repr(lat), "lon": repr(lon)}
            row |= {"all": str(side == "database" or n < 3), "pano": "False"}
        write_side(root, "athens", side, rows, files, "test")


@pytest.mark.parametrize("truth", ["postprocessed.csv", "raw.csv"])
def test_the_test_cities_are_scored_where_their_truth_is(tmp_path, truth):
    """Worked by hand. q0 finds its image second, q1 first: recall@1 1/2, recall@5 1, mAP@5 (1/2 + 1) / 2."""
    write_test_city(tmp_path, ("seq_info.csv", "subtask_index.csv", truth))
    said = pytest.warns(CovisWarning, match="from lon and lat") if truth == "raw.csv" else contextlib.nullcontext()
    with said:
        (scene,) = read_msls(tmp_path, cities="athens", missing="ignore")
    order = [[1, 0], [1, 0], [0, 1], [0, 1]]
    found = Rankings(order, [[0.1, 0.2]] * 4, scene.queries.names, scene.database.names)
    scores = evaluate(found, scene, protocol="msls-test/official", samples=10)
    assert np.isnan(scores.per_query["recall@1"]).tolist() == [False, False, True]
    assert [scores.metrics[name].value for name in ("recall@1", "recall@5", "mAP@5")] == [0.5, 1.0, 0.75]


def test_a_test_city_without_truth_says_what_lacks(tmp_path):
    write_test_city(tmp_path, ("seq_info.csv", "subtask_index.csv"))
    (scene,) = read_msls(tmp_path, cities="athens", missing="ignore")
    found = Rankings([[1, 0]] * 4, [[0.1, 0.2]] * 4, scene.queries.names, scene.database.names)
    with pytest.raises(InvalidInputError, match=r"must have xy for this"):
        evaluate(found, scene, protocol="msls-test/official", samples=10)


def test_test_cities_never_become_validation(tmp_path):
    write_test_city(tmp_path, FILES)
    build(tmp_path, "cph"), build(tmp_path, "sf")
    assert [scene.name for scene in read_msls(tmp_path, split="val", missing="ignore")] == ["cph", "sf"]
    assert [scene.name for scene in read_msls(tmp_path, cities="athens", missing="ignore")] == ["athens"]


def test_sizes_are_held_against_the_benchmarks(tmp_path, monkeypatch):
    """A benchmark of two small cities: what differs from it is said; what is far smaller is another set."""
    for city in ("cph", "sf"):
        build(tmp_path, city)
    counted = {city: read_msls(tmp_path, split="val", cities=city, missing="ignore")[0] for city in ("cph", "sf")}
    asked = {c: int((s.queries.flags["all"] & ~s.queries.flags["panorama"]).sum()) for c, s in counted.items()}
    searched = {c: int((~s.database.flags["panorama"]).sum()) for c, s in counted.items()}
    sizes = [Size("val", 4, 6, part="cph", sure=False), Size("val", 4, 6, part="sf", sure=False)]
    sizes += [Size("val", asked[city], searched[city], part=f"{city}, as asked") for city in ("cph", "sf")]
    monkeypatch.setitem(DATASETS, "msls", replace(DATASETS["msls"], sizes=tuple(sizes)))
    whole = {"split": "val", "missing": "ignore"}
    read_msls(tmp_path, **whole, sizes="stop")
    monkeypatch.setitem(DATASETS, "msls", replace(DATASETS["msls"], sizes=(*sizes[:3], replace(sizes[3], queries=99))))
    with pytest.raises(InvalidInputError, match=rf"\(sf, as asked\) must have 99 queries and {searched['sf']} database"):
        read_msls(tmp_path, **whole, sizes="stop")
    with pytest.warns(CovisWarning, match="must have 99 queries"):
        read_msls(tmp_path, **whole)
    read_msls(tmp_path, **whole, sizes="ignore")
    read_msls(tmp_path, split="val", cities="sf", missing="ignore")  # a part is no benchmark
    monkeypatch.setitem(DATASETS, "msls", replace(DATASETS["msls"], sizes=(replace(sizes[0], queries=5), *sizes[1:])))
    with pytest.warns(CovisWarning, match=r"\(cph\) must have 5 queries and 6 database images; found 4 queries"):
        read_msls(tmp_path, **whole, sizes="stop")  # not counted in a primary source: only warned of
    with pytest.raises(InvalidInputError, match=r"sizes must be one of stop, warn, ignore; got 'no'"):
        read_msls(tmp_path, **whole, sizes="no")
    for city in CITIES["test"]:
        build(tmp_path, city, top="test")
    read_msls(tmp_path, missing="ignore")  # 36 of 36,565 images: not a damaged copy
    monkeypatch.setitem(DATASETS, "msls", replace(DATASETS["msls"], sizes=(Size("test", 1, 40, sure=False),)))
    with pytest.warns(CovisWarning, match="must have 1 queries and 40 database images; found .* and 36 database"):
        read_msls(tmp_path, missing="ignore")


# The benchmark's own lists.


def listed(folder, name):
    lines = (folder / f"mapillary{name}.txt").read_text().split()
    return [line.removeprefix("./Mapillary_Street_Level_Sequences/") for line in lines]


def test_the_validation_lists_of_the_benchmark(covis_data, tmp_path):
    """A tree of the real keys, with panoramas between them: counts and order are those of the published lists."""
    folder = covis_data / "metadata" / "msls_lists"
    asked = [str(name) for name in np.load(folder / "msls_val_qImages.npy")]
    for city, panoramas in (("cph", 45), ("sf", 0)):
        database = [(Path(name).stem, "False") for name in listed(folder, f"{city}_imageNames_index")]
        for number in range(panoramas):  # 12,601 rows of Copenhagen, of which 12,556 are no panoramas
            database.insert(number * 270, (key(number, "pano-"), "True"))
        queries = [(Path(name).stem, "False") for name in asked if f"/{city}/" in name]
        for side, keyed in (("database", database), ("query", queries)):
            rows = [{"": n, "key": k, "pano": p, "ca": "", "all": "True"} for n, (k, p) in enumerate(keyed)]
            rows = [row | dict.fromkeys(SUBTASK[3:], "False") for row in rows]
            out = tmp_path / "train_val" / city / side
            out.mkdir(parents=True)
            write_table(out / "raw.csv", RAW, rows)
            write_table(out / "subtask_index.csv", SUBTASK, rows)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scenes = read_msls(tmp_path, split="val", missing="ignore", sizes="stop")
    # The lists have only the queries that are asked: of the tables' rows there must be more, of those asked there are as many as known.
    assert [re.search(r"msls \((.*?)\) must have ([\d,]+)", str(one.message))[2] for one in said] == ["6,595", "4,525"]
    assert [(scene.name, len(scene.database)) for scene in scenes] == [("cph", 12601), ("sf", 6315)]
    plain = read_msls(tmp_path, split="val", missing="ignore", panoramas="drop", sizes="ignore")
    assert [len(scene.database) for scene in plain] == [12556, 6315]
    for scene in plain:
        assert list(scene.database.names) == listed(folder, f"{scene.name}_imageNames_index")
    names = [name for scene in scenes for name in scene.queries.names]
    assert names == asked
    positive = [names[row] for row in np.load(folder / "msls_val_qIdx.npy")]
    assert positive == [name for city in ("cph", "sf") for name in listed(folder, f"{city}_imageNames_query")]
    assert len(positive) == 740


@pytest.mark.parametrize(
    ("city", "file", "crs"), [("amman", "msls_amman_d-20_d2-5.db", "EPSG:32636"), ("austin", "msls_austin_d-20_d2-5.db", "EPSG:32614")]
)
def test_the_real_positions_of_two_cities(covis_data, tmp_path, city, file, crs):
    """Published metres of MSLS go out and come back to the last bit, and their longitudes lie where the city is."""
    stored = scipy.io.loadmat(covis_data / "metadata" / "dbstruct" / file, struct_as_record=False, squeeze_me=True)["dbStruct"]
    prefix = "Mapillary_Street_Level_Sequences/"
    sides = [
        Images("r", [str(name).strip().removeprefix(prefix) for name in names], xy=np.asarray(xy, dtype=np.float64).T, crs=crs)
        for names, xy in ((stored.dbImageFns, stored.utmDb), (stored.qImageFns, stored.utmQ))
    ]
    scene = Scene(city, "train", *sides)
    write_msls([scene], tmp_path, files="none")
    (found,) = read_msls(tmp_path, split="train", missing="ignore")
    assert alike(found, scene)
    home = {"amman": (31.95, 35.93), "austin": (30.27, -97.74)}[city]
    assert np.abs(to_degrees(found.database.xy, crs=found.database.crs) - home).max() < 0.3
