"""covis audit: what it finds in data sets on disk, what it leaves out and says so, its files and its exit codes."""

import dataclasses
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.main import get_command
from typer.testing import CliRunner

from covis.audits import facing_away, label_sanity, near_descriptors, near_duplicates, shared_places
from covis.cli import app
from covis.cli.audit_steps import Audit
from covis.datasets import read
from covis.datasets.tables import write_table
from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.files import read_json
from covis.images import Images, Scene
from covis.labelling import label_by_view

NAMES = ("copies", "descriptors", "places", "facing", "labels", "batches")


def photograph(path, seed):
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((64, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A street of 8 photographs with 4 queries in tables; a split teaches elsewhere, with a copy of a query. Nothing else is wrong."""
    root = tmp_path / "photographs"
    for number in range(20):
        photograph(root / f"{number:02d}.png", number)
    shutil.copy(root / "09.png", root / "19.png")
    x = np.arange(20) * 10.0
    xy = np.stack([np.where(x >= 120, x + 500, x), np.zeros(20)], axis=1)
    xy[8:12, 0] = [1.0, 11.0, 21.0, 31.0]
    heading = np.where(np.arange(20) == 10, 180.0, 0.0)
    images = Images(root, [f"{n:02d}.png" for n in range(20)], xy=xy, heading=heading, crs="EPSG:32633")
    test = Scene("street", "test", images.select(range(8)), images.select(range(8, 12)))
    taught = images.select(range(12, 20))
    write_table([test], tmp_path / "test")
    write_table([Scene("street", "train", taught, taught)], tmp_path / "train")
    return tmp_path


def audit(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def sections(data: Path, *arguments: object, code: int = 0) -> dict[str, list[dict]]:
    report = json.loads(audit(data / "test" / "street", "--json", *arguments, code=code).stdout)
    return {name: [one for one in report["sections"] if one["audit"] == name] for name in NAMES} | {"leaks": report["leaks"]}


def test_without_options_it_does_what_it_can_and_says_what_it_left_out(data: Path) -> None:
    lines = audit(data / "test" / "street").stdout.splitlines()
    assert "copies, street (test), queries against database: 4 against 8 images: none is a copy" in lines
    assert "copies, training against test: skipped: no other set was given (--against, --against-split)" in lines
    assert "descriptors, all scenes: skipped: neither --model nor --descriptors was given" in lines
    assert "labels, all scenes: skipped: --labels was not given (covis label makes them)" in lines
    assert "batches, all models: skipped: --model was not given" in lines
    assert any(
        line.startswith("facing, street (test): under radius/25 4 queries are asked and 4 have a positive; 1 (25.00 %)") for line in lines
    )
    assert "    10.png (at least 180.0 degrees)" in lines


def test_a_query_that_was_taught_is_found(data: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "audit.json", tmp_path / "sheet.png"
    other = ("--against", data / "train" / "street", "--against-split", "train")
    result = audit(data / "test" / "street", *other, "--out", out, "--sheet", sheet, "--cache", tmp_path / "cache.npz")
    assert "the same bytes in another file: 1 pair" in result.stdout
    assert "09.png = " in result.stdout
    assert result.stdout.splitlines()[-2:] == [str(out), str(sheet)]
    report = read_json(out, kind="covis-audit", version=1)
    assert report["leaks"] == 1
    (leak,) = [one for one in report["sections"] if one["audit"] == "copies" and one["found"]["list"]]
    assert leak["of"] == "street (test) queries against street (train) database"
    assert (leak["sides"], report["stopped"]) == (["street (test) queries", "street (train) database"], None)
    assert result.stdout.splitlines()[-3] == "in all: 1 leak; skipped: descriptors, labels, batches"
    places = [one["found"] for one in report["sections"] if one["audit"] == "places"]
    assert [one["near"] for one in places] == [0, 0]
    assert min(one["nearest"] for one in places) == pytest.approx(620 - 70)
    near = sections(data, *other, "--only", "places", "--within", 560)["places"]
    assert near[1]["found"]["near"] == 2
    with Image.open(sheet) as drawn:
        assert drawn.width > 400


def test_defaults_are_those_of_the_functions() -> None:
    options = {one.name: one.default for one in get_command(app).commands["audit"].params}
    for function in (near_duplicates, near_descriptors, shared_places, facing_away, label_sanity):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in options and name not in ("labels", "sample", "cache") and parameter.default is not inspect.Parameter.empty:
                assert options[name] == parameter.default, name


def test_strict(data: Path) -> None:
    audit(data / "test" / "street", "--strict")
    other = ("--against", data / "train" / "street", "--against-split", "train")
    audit(data / "test" / "street", *other, "--strict", code=1)
    audit(data / "test" / "street", *other, "--strict", "--only", "places,facing")


def test_training_sets_hold_copies_that_leak_nothing(data: Path) -> None:
    shutil.copy(data / "photographs" / "12.png", data / "train" / "street" / "images" / "13.png")
    report = json.loads(audit(data / "train" / "street", "--split", "train", "--json", "--strict", "--only", "copies").stdout)
    assert report["sections"][0]["found"]["pairs"]["bytes"] == 1
    assert report["leaks"] == 0


def test_a_damaged_image_is_counted(data: Path) -> None:
    (data / "test" / "street" / "images" / "03.png").write_bytes(b"no image")
    (found, _) = sections(data, "--only", "copies")["copies"]
    assert list(found["found"]["unreadable"][1]) == ["03.png"]
    assert "unreadable images of street (test) database: 1" in audit(data / "test" / "street").stdout


def test_labels(data: Path, tmp_path: Path) -> None:
    (scene,) = read("table", data / "test" / "street", split="test")
    label_by_view(scene.queries, scene.database).save(tmp_path / "labels.npz")
    found = sections(data, "--labels", tmp_path / "labels.npz")
    (labels,), (facing,) = found["labels"], found["facing"]
    assert labels["found"]["reference"]["largest difference"] == 0
    assert labels["found"]["contradictions"]["nothing though near"]["pairs"] == 0
    assert facing["found"]["similarity 0"] == {"queries": 1, "list": ["10.png"]}
    text = audit(data / "test" / "street", "--labels", tmp_path / "labels.npz").stdout
    assert "made again by the rule view for 4 queries: 0 of" in text


def test_descriptors(data: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 16)).astype(np.float32)
    vectors[9] = vectors[1] + 1e-4
    folder = tmp_path / "described" / "street"
    Descriptors(vectors[:8], tuple(f"{n:02d}.png" for n in range(8)), model="m").save(folder / "database")
    Descriptors(vectors[8:], tuple(f"{n:02d}.png" for n in range(8, 12)), model="m").save(folder / "queries")
    given = ("--descriptors", tmp_path / "described", "--only", "descriptors")
    assert "--alike was not given" in sections(data, *given)["descriptors"][0]["skipped"]
    found = sections(data, *given, "--alike", 0.01, "--strict", code=1)
    (one,) = found["descriptors"][0]["found"]["list"]
    assert (one["a"], one["b"]) == ("09.png", "01.png")
    assert found["leaks"] == 1
    other = ("--against", data / "train" / "street", "--against-split", "train")
    assert "--against-descriptors" in sections(data, *given, "--alike", 0.01, *other)["descriptors"][1]["skipped"]


class Means(nn.Module):
    """The mean colours of quarters, less half of the batch's own mean where it is `centred`."""

    def __init__(self, *, centred: bool) -> None:
        super().__init__()
        self.centred = centred
        self.scale = nn.Parameter(torch.ones(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1) * self.scale
        return found - found.mean(dim=0) / 2 if self.centred else found


def means(centred: bool = False) -> nn.Module:
    return Means(centred=centred)


@pytest.mark.parametrize("centred", [False, True])
def test_models(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, centred: bool, one_thread: None) -> None:
    monkeypatch.setitem(sys.modules, "my_means", sys.modules[__name__])
    model = ("--model", "my_means:means", "--engine", "torch", "--device", "cpu")
    options = ("--model-option", "height=24", "--model-option", "width=32", "--model-option", f"centred={str(centred).lower()}")
    found = sections(data, *model, *options, "--only", "batches", "--strict", code=int(centred))
    assert found["batches"][0]["found"]["depends"] == centred
    if not centred:
        other = ("--against", data / "train" / "street", "--against-split", "train", "--work", tmp_path / "work")
        alike = sections(data, *model, *options, *other, "--only", "descriptors", "--alike", 1e-6)["descriptors"]
        listed = {one["of"]: one["found"]["list"] for one in alike}
        (leak,) = listed["street (test) queries against street (train) database"]
        assert leak["a"] == "09.png"
        assert not listed["street (test), queries against database"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "copies,sight"), "--only must name audits of copies, descriptors, places, facing, labels, batches; got sight"),
        (("--model", "a:b", "--descriptors", "d"), "Either --model or --descriptors must be given"),
        (("--protocol", "radius/x"), "radius/x"),
        (("--protocol", "sideways"), "There is no protocol called 'sideways'"),
        (("--heading", "181"), "heading must be degrees in [0, 180]; got 181"),
        (("--fine", "257"), "fine in [0, 256]"),
        (("--alike", "-1"), "within a number from 0; got 'cosine' and -1.0"),
        (("--within", "nan"), "within must be metres from 0; got nan"),
        (("--sample", "1"), "--sample must be at least 2 images"),
        (("--shown", "-1"), "--shown must be a number of examples from 0; got -1"),
        (("--reference", "guess"), "reference must be auto, none, or one of"),
        (("--model", "nowhere.onnx"), "nowhere.onnx"),
        (("--descriptors", "nowhere", "--alike", "0.1"), "nowhere"),
        (("--against-layout", "table"), "--against-layout must stand beside --against"),
        (("--against-read", "missing=skip"), "--against-read must stand beside --against"),
        (("--against-descriptors", "x"), "--against-descriptors must stand beside --against"),
        (("--hamming", "70"), "hamming must be in [0, 64]"),
        (("--cache", "cache.txt"), "must be called .npz"),
        (("--labels", "nowhere.npz"), "nowhere.npz"),
        (("--scenes", "boulevard"), "A scene must fit --scenes"),
    ],
)
def test_bad_options_are_refused_in_words_before_any_image_is_read(
    data: Path, options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covis.audits.prints.read_picture", lambda path: pytest.fail(f"{path} was read"))
    result = audit(data / "test" / "street", *options, code=1)
    assert said in str(result.exception)


def test_nothing_is_overwritten_unasked(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    out.write_text("mine")
    assert "already there" in str(audit(data / "test" / "street", "--out", out, code=1).exception)
    assert out.read_text() == "mine"
    audit(data / "test" / "street", "--out", out, "--overwrite")
    assert read_json(out, kind="covis-audit", version=1)["data"] == str(data / "test" / "street")


def test_what_has_no_places_is_left_out_in_words(data: Path) -> None:
    lines = audit(data / "photographs", "--layout", "folder", "--split", "train").stdout
    assert "facing, photographs (train): skipped: the images have neither headings nor poses" in lines
    assert "the same bytes in another file: 1 pair" in lines
    other = ("--against", data / "test" / "street", "--only", "places")
    assert "skipped: positions are lacking" in audit(data / "photographs", "--layout", "folder", *other).stdout


def test_copies_are_found_from_either_side(data: Path) -> None:
    """A training set that is DATA is held against the queries of the other set too, by picture and by place."""
    given = ("--split", "train", "--against", data / "test" / "street", "--against-split", "test", "--within", 560, "--json")
    report = json.loads(audit(data / "train" / "street", *given, "--only", "copies,places").stdout)
    near = {one["of"]: one["found"]["near"] for one in report["sections"] if one["audit"] == "places"}
    assert near == {
        "street (train) database against street (test) queries": 0,
        "street (train) database against street (test) database": 2,
    }
    (leak,) = [one for one in report["sections"] if one["audit"] == "copies" and one["found"]["list"]]
    assert leak["of"] == "street (train) database against street (test) queries"
    (scene,) = read("table", data / "train" / "street", split="train")
    (other,) = read("table", data / "test" / "street", split="test")
    moved = dataclasses.replace(other.queries, xy=scene.database.xy[:4] + 1)
    steps = Audit([scene], [Scene("street", "test", other.database, moved)], {"within": 25.0}, {}, None, {})
    steps.run(["places"])
    assert [one["found"]["near"] for one in steps.sections] == [6, 0]  # the fifth and sixth lie within 25 m of the fourth


def test_the_same_files_are_one_set_and_leak_nothing(data: Path) -> None:
    """The database is the training split: each double of it stands once, and queries are not counted a second time."""
    (scene,) = read("table", data / "test" / "street", split="test")
    shutil.copy(scene.database.path(0), scene.database.path(1))
    shutil.copy(scene.database.path(0), scene.queries.path(0))
    steps = Audit(
        [scene],
        [Scene("street", "train", scene.database, scene.database)],
        {"hamming": 10, "fine": 32, "mirrored": False},
        {"cache": None},
        None,
        {},
    )
    steps.run(["copies"])
    own, queries, one = steps.sections
    assert own["found"]["pairs"]["bytes"] == steps.leaks == 2  # the query, with both
    assert queries["skipped"] == "the same files as street (test), queries against database"
    assert one["of"] == "street (test) database against street (train) database"
    assert one["found"]["pairs"] == {"bytes": 1, "pixels": 0, "near": 0}
    assert steps.suspected == 3


def test_what_was_found_is_printed_and_written_when_a_later_audit_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise InvalidInputError("No turn is left.")

    monkeypatch.setattr("covis.audits.facing_away", broken)
    out = tmp_path / "audit.json"
    result = audit(data / "test" / "street", "--out", out, code=1)
    assert "No turn is left" in str(result.exception)
    assert "queries against database: 4 against 8 images: none is a copy" in result.stdout
    report = read_json(out, kind="covis-audit", version=1)
    assert report["stopped"] == "No turn is left."
    assert [one["audit"] for one in report["sections"]] == ["copies", "copies", "descriptors", "places"]


def test_an_audit_that_is_named_twice_is_done_once(data: Path) -> None:
    assert len(sections(data, "--only", "facing, facing")["facing"]) == 1


def test_pairs_of_scenes_without_a_copy_are_one_line_and_oddities_are_said_once(data: Path) -> None:
    photograph(data / "photographs" / "elsewhere.png", 77)
    (data / "test" / "street" / "images" / "03.png").write_bytes(b"no image")
    (data / "test" / "street" / "images" / "09.png").unlink()
    shutil.copy(data / "photographs" / "elsewhere.png", data / "test" / "street" / "images" / "09.png")
    shutil.copytree(data / "photographs", data / "more")
    for number in range(20):
        photograph(data / "more" / f"{number:02d}.png", 100 + number)
    images = Images(data / "more", [f"{n:02d}.png" for n in range(20)])
    write_table([Scene("village", "val", images.select(range(8)), images.select(range(8, 20)))], data / "val")
    other = ("--against", data / "val" / "village", "--against-split", "val", "--only", "copies")
    lines = audit(data / "test" / "street", *other).stdout.splitlines()
    assert lines == [
        "copies, street (test), queries against database: 4 against 8 images: none is a copy",
        "  unreadable images of street (test) database: 1",
        lines[2],
        "copies, street (test) queries against village (val) queries; queries against database; database against queries; "
        "database against database: none is a copy",
        "in all: 0 leaks; skipped: nothing",
    ]
    assert lines[2].startswith("    03.png: ")


def test_captions_tell_both_hashes(data: Path) -> None:
    with Image.open(data / "photographs" / "09.png") as picture:
        picture.convert("RGB").resize((48, 36), Image.Resampling.BICUBIC).save(data / "train" / "street" / "images" / "19.png")
    (scene,) = read("table", data / "test" / "street", split="test")
    (train,) = read("table", data / "train" / "street", split="train")
    steps = Audit([scene], [train], {"hamming": 10, "fine": 32, "mirrored": False}, {"cache": None}, None, {})
    steps.run(["copies"])
    ((_, (_, _, caption)),) = steps.suspects
    assert re.fullmatch(r"near: \d of 64 and \d+ of 256 bits", caption)


def test_what_is_read_is_never_written_over(data: Path, tmp_path: Path) -> None:
    """Neither the data, nor the other set, nor the cache; and two outputs are two files."""
    root, other, cache = data / "test" / "street", data / "train" / "street", tmp_path / "kept.npz"
    audit(root, "--only", "copies", "--cache", cache)
    before = {path: path.read_bytes() for path in (*root.rglob("*"), *other.rglob("*"), cache) if path.is_file()}
    for arguments, said in (
        (("--out", root / "database.csv"), "must not be DATA nor lie in it"),
        (("--sheet", root / "new.png"), "must not be DATA nor lie in it"),
        (("--against", other, "--against-split", "train", "--out", other / "x.json"), "must not be --against nor lie in it"),
        (("--out", cache, "--cache", cache), "must not be --cache"),
        (("--out", tmp_path / "x", "--sheet", tmp_path / "x"), "must be different files"),
    ):
        result = CliRunner().invoke(app, ["audit", str(root), "--only", "copies", "--overwrite", *map(str, arguments)])
        assert isinstance(result.exception, InvalidInputError)
        assert said in str(result.exception)
    assert before == {path: path.read_bytes() for path in before}
