"""Label maps of photographs: names, notes, resuming, damage, and the contract of a segmenter."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from covis.errors import (
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingFileError,
    OutputExistsError,
    SettingsDifferError,
    UnknownNameError,
)
from covis.files import read_json
from covis.images import Images, Scene
from covis.rasters import read_image, read_label_map, write_image, write_label_map
from covis.segmentation import map_names, open_segmenter, read_note, segment
from covis.segmentation.frames import Frame, best_numbers, nearest_numbers
from covis.segmentation.segmenters import numbering
from covis.semantics import attach_maps
from covis.semantics.numberings import NUMBERINGS

RANDOM = np.random.default_rng(4)


class Bright:
    """Sky where red is above 127, else road; it counts what it is asked."""

    engine = "numpy"

    def __init__(self, *, digest="bright", classes="cityscapes-train", sky=10, settings=None):
        self.digest, self.classes, self.sky, self.settings = digest, classes, sky, settings or {}
        self.seen = 0

    def segment(self, photographs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.seen += len(photographs)
        return [np.where(one[..., 0] > 127, self.sky, 0).astype(np.uint8) for one in photographs]


def made_by_name(sky=10):
    return Bright(sky=sky)


def no_segmenter():
    return object()


def failing():
    raise RuntimeError("no weights")


@pytest.fixture
def photographs(tmp_path):
    """Five of several sizes, in two folders."""
    root = tmp_path / "photos"
    for number, name in enumerate(["a.png", "b.png", "north/a.jpg", "north/c.png", "north/a.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, RANDOM.integers(0, 256, size=(9 + number, 12, 3), dtype=np.uint8))
    return Images(root, ["a.png", "b.png", "north/a.jpg", "north/c.png", "north/a.png"])


def test_each_photograph_gets_a_map_of_its_size(photographs, tmp_path):
    found = segment(photographs, Bright(), out=tmp_path / "maps", batch=2)
    assert found.names == photographs.names
    assert found.segmentation[:2] == ("../maps/a.png", "../maps/b.png")
    assert found.segmentation[2:] == ("../maps/north/a.jpg.png", "../maps/north/c.png", "../maps/north/a.png.png")
    for row in range(5):
        pixels = np.asarray(Image.open(photographs.path(row)))
        path = found.root / found.segmentation[row]
        np.testing.assert_array_equal(read_label_map(path), np.where(pixels[..., 0] > 127, 10, 0))
        with Image.open(path) as image:
            assert image.mode == "P"
            assert image.getpalette()[30:33] == [70, 130, 180], "the colour that Cityscapes gives the sky"
    record = read_json(tmp_path / "maps/segmentation.json", kind="covis-segmentation", version=1)
    assert (record["classes"], record["digest"], record["engine"], record["images"]) == ("cityscapes-train", "bright", "numpy", 5)
    whole = np.concatenate([read_label_map(found.root / one).ravel() for one in found.segmentation])
    assert record["shares"] == pytest.approx({"road": (whole == 0).mean(), "sky": (whole == 10).mean()}, abs=1e-6)


def test_an_upright_map_for_a_turned_photograph(tmp_path):
    pixels = RANDOM.integers(0, 256, size=(6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(tmp_path / "a.png", exif=exif)
    segment(Images(tmp_path, ["a.png"]), Bright(), out=tmp_path / "maps")
    np.testing.assert_array_equal(read_label_map(tmp_path / "maps/a.png"), np.where(pixels[..., 0] > 127, 10, 0))


def test_a_second_run_does_nothing_and_a_third_does_what_is_missing(photographs, tmp_path):
    first = segment(photographs, Bright(), out=tmp_path / "maps")
    record = (tmp_path / "maps/segmentation.json").read_bytes()
    again = Bright()
    assert segment(photographs, again, out=tmp_path / "maps").segmentation == first.segmentation
    assert again.seen == 0
    (tmp_path / "maps/b.png").unlink()
    segment(photographs, again, out=tmp_path / "maps")
    assert again.seen == 1
    assert (tmp_path / "maps/segmentation.json").read_bytes() == record


def test_a_killed_run_keeps_what_it_has(photographs, tmp_path):
    class Stopping(Bright):
        def segment(self, photographs):
            if self.seen >= 4:
                raise KeyboardInterrupt
            return super().segment(photographs)

    with pytest.raises(KeyboardInterrupt):
        segment(photographs, Stopping(), out=tmp_path / "maps", batch=2)
    rest = Bright()
    segment(photographs, rest, out=tmp_path / "maps", batch=2)
    assert rest.seen == 1


@pytest.mark.parametrize(
    "other", [Bright(digest="dark"), Bright(classes=("road",) * 11), Bright(settings={"height": 5})], ids=["digest", "classes", "settings"]
)
def test_another_model_is_refused_and_replaces_when_asked(photographs, tmp_path, other):
    segment(photographs, Bright(), out=tmp_path / "maps")
    other.seen, other.sky = 0, 7
    with pytest.raises(SettingsDifferError, match=r"maps was segmented with other settings .*--overwrite"):
        segment(photographs, other, out=tmp_path / "maps")
    segment(photographs, other, out=tmp_path / "maps", overwrite=True)
    assert other.seen == 5
    assert set(np.unique(read_label_map(tmp_path / "maps/b.png"))) == {0, 7}


def test_a_replacement_that_was_killed_goes_on(photographs, tmp_path):
    """The record is of the new model by then; maps of the old one are not taken for its own."""
    segment(photographs, Bright(), out=tmp_path / "maps")
    segment(photographs.select([0]), Bright(digest="new", sky=8), out=tmp_path / "maps", overwrite=True)
    new = Bright(digest="new", sky=8)
    segment(photographs, new, out=tmp_path / "maps")
    assert new.seen == 4
    assert 10 not in np.unique(read_label_map(tmp_path / "maps/north/c.png"))


def test_a_map_of_another_photograph_is_never_taken(photographs, tmp_path):
    """Alone, a.jpg has the map a.png, which beside a.jpg is nobody's: what is there is looked at, not its name alone."""
    north = Images(photographs.root, ["north/a.jpg"])
    segment(north, Bright(), out=tmp_path / "maps")
    with pytest.raises(OutputExistsError, match=r"north/a\.png must be the map of north/a\.png .* is the map of north/a\.jpg"):
        segment(Images(photographs.root, ["north/a.png"]), Bright(), out=tmp_path / "maps")
    write_image(tmp_path / "maps/b.png", np.zeros((3, 3, 3), dtype=np.uint8))
    with pytest.raises(OutputExistsError, match=r"b\.png .* is no map of covis segment"):
        segment(photographs.select([1]), Bright(), out=tmp_path / "maps")


def test_a_changed_photograph_is_said(photographs, tmp_path):
    segment(photographs, Bright(), out=tmp_path / "maps")
    write_image(photographs.path(1), RANDOM.integers(0, 256, size=(30, 30, 3), dtype=np.uint8))
    with pytest.raises(SettingsDifferError, match=r"another photograph"):
        segment(photographs, Bright(), out=tmp_path / "maps")
    segment(photographs, Bright(), out=tmp_path / "maps", overwrite=True)
    assert read_label_map(tmp_path / "maps/b.png").shape == (30, 30)


def test_photographs_written_since_are_said(photographs, tmp_path):
    segment(photographs, Bright(), out=tmp_path / "maps")
    later = (tmp_path / "maps/a.png").stat().st_mtime + 100
    os.utime(photographs.path(0), (later, later))
    with pytest.warns(CovisWarning, match=r"1 of 5 photographs have the size .* a\.png"):
        segment(photographs, Bright(), out=tmp_path / "maps")


def test_maps_never_replace_photographs(photographs):
    with pytest.raises(InvalidInputError, match=r"no photograph's place.*a\.png"):
        segment(photographs, Bright(), out=photographs.root, overwrite=True)
    with pytest.raises(InvalidInputError, match=r"Every photograph must lie in"):
        segment(photographs, Bright(), out=photographs.root / "maps", base=photographs.root / "north")


def test_a_folder_of_something_else_is_left(photographs, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"holds something"):
        segment(photographs, Bright(), out=tmp_path / "maps")
    segment(photographs, Bright(), out=tmp_path / "maps", overwrite=True)
    assert (tmp_path / "maps/notes.txt").read_text() == "mine"
    with pytest.raises(OutputExistsError, match=r"is a file"):
        segment(photographs, Bright(), out=tmp_path / "maps/notes.txt")


def test_damage_stops_or_is_left_out(photographs, tmp_path):
    photographs.path(1).write_bytes(b"hello")
    photographs.path(3).unlink()
    with pytest.raises(MissingFileError, match=r"1 of 5 do not.*c\.png"):
        segment(photographs, Bright(), out=tmp_path / "maps")
    with pytest.warns(CovisWarning, match=r"2 of 5 photographs have no label map"):
        found = segment(photographs, Bright(), out=tmp_path / "maps", damaged="skip")
    assert found.names == ("a.png", "north/a.jpg", "north/a.png")
    assert len(found.segmentation) == 3
    skipped = read_json(tmp_path / "maps/segmentation.json")["skipped"]
    assert [one["name"] for one in skipped] == ["b.png", "north/c.png"]
    assert str(tmp_path) not in json.dumps(skipped)
    with pytest.raises(DamagedFileError, match=r"b\.png must decode"):
        segment(photographs.select([0, 1]), Bright(), out=tmp_path / "maps")
    with pytest.raises(DamagedFileError, match=r"At least one photograph must decode"):
        segment(photographs.select([1]), Bright(), out=tmp_path / "maps", damaged="skip")


def test_scenes_share_their_photographs(photographs, tmp_path):
    night = tmp_path / "night"
    shutil.copytree(photographs.root, night)
    one = Scene("day", "test", photographs, photographs)
    two = Scene("night", "test", photographs, replace(photographs, root=night))
    model = Bright()
    first, second = segment([one, two], model, out=tmp_path / "maps")
    assert model.seen == 10, "a photograph that stands in two tables is segmented once"
    assert first.training
    assert first.database.segmentation[0] == "../maps/photos/a.png"
    assert second.queries.segmentation[2] == "../maps/night/north/a.jpg.png"
    assert segment(one, Bright(), out=tmp_path / "other").training
    with pytest.raises(MissingFileError, match=r"5 of 5 have none"):
        attach_maps(two.queries, tmp_path / "maps")
    found = attach_maps(two.queries, tmp_path / "maps", base=tmp_path)
    assert found.segmentation == second.queries.segmentation


@pytest.mark.parametrize("linked", [False, True], ids=["plain", "link"])
def test_names_that_lead_out_of_their_root(photographs, tmp_path, linked):
    """Maps are named from the folder above root and photographs on, and found again; the same photograph by two names has one map."""
    (tmp_path / "tables").mkdir()
    root = tmp_path / "tables"
    if linked:
        (tmp_path / "deep/er").mkdir(parents=True)
        root = tmp_path / "deep/er/link"
        root.symlink_to(tmp_path / "tables", target_is_directory=True)
    images = Images(root, ["../photos/a.png", "../photos/north/a.jpg", "../tables/../photos/a.png"])
    model = Bright()
    found = segment(images, model, out=tmp_path / "maps")
    assert model.seen == 2
    assert found.segmentation == ("../maps/photos/a.png", "../maps/photos/north/a.png", "../maps/photos/a.png")
    np.testing.assert_array_equal(read_label_map(found.root / found.segmentation[1]).shape, read_image(photographs.path(2)).shape[:2])
    assert attach_maps(images.select([0, 1]), tmp_path / "maps").segmentation == found.segmentation[:2]


def test_the_column_of_a_root_that_is_a_link(photographs, tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/link").symlink_to(photographs.root, target_is_directory=True)
    found = segment(replace(photographs, root=tmp_path / "deep/er/link"), Bright(), out=tmp_path / "maps")
    assert read_label_map(found.root / found.segmentation[0]).shape == (9, 12)


def test_a_map_of_another_photograph_is_not_attached(photographs, tmp_path):
    """The two were made apart, so that one took the short name; beside each other their names alone would mislead."""
    maps = tmp_path / "maps"
    segment(photographs.select([2]), Bright(), out=maps)  # north/a.jpg has north/a.png
    with pytest.raises(InvalidInputError, match=r"maps/north/a\.png must be the label map of north/a\.png; its note .* of north/a\.jpg"):
        attach_maps(photographs.select([4]), maps)
    (maps / "north/a.png").rename(maps / "north/a.png.png")
    with pytest.raises(InvalidInputError, match=r"a\.png\.png must be the label map of north/a\.png; its note .* of north/a\.jpg"):
        attach_maps(photographs.select([4]), maps)
    write_label_map(maps / "north/a.png", np.zeros((2, 2), dtype=np.uint8))  # without a note: anybody's, by its name
    assert attach_maps(photographs.select([4]), maps).segmentation == ("../maps/north/a.png",)


def test_a_numbering_of_ones_own_is_known_by_its_content(photographs, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('void = [255]\n[classes]\n0 = "floor"\n10 = "lamp"\n')
    segment(photographs, Bright(classes=str(own)), out=tmp_path / "maps")
    record = (tmp_path / "maps/segmentation.json").read_text()
    assert str(tmp_path) not in record
    assert json.loads(record)["classes"]["file"] == "own.toml"
    own.rename(tmp_path / "moved.toml")
    (tmp_path / "elsewhere").mkdir()
    elsewhere = shutil.copy(tmp_path / "moved.toml", tmp_path / "elsewhere/own.toml")
    again = Bright(classes=str(elsewhere))
    segment(photographs, again, out=tmp_path / "maps")
    assert again.seen == 0, "the same file in another folder"
    elsewhere.write_text('void = [255]\n[classes]\n0 = "wall"\n10 = "lamp"\n')
    with pytest.raises(SettingsDifferError, match=r"\(classes\.digest: [^;]*\)"):
        segment(photographs, again, out=tmp_path / "maps")


def test_only_what_differs_is_said(photographs, tmp_path):
    settings = {"height": 5, "width": 6, "mean": [0.1, 0.2, 0.3]}
    segment(photographs, Bright(settings=settings), out=tmp_path / "maps")
    with pytest.raises(
        SettingsDifferError, match=r"other settings \(settings\.height: 5 there, 7 now; settings\.mean\[1\]: 0\.2 there, 0\.5 now\)"
    ):
        segment(photographs, Bright(digest="b", settings=settings | {"height": 7, "mean": [0.1, 0.5, 0.3]}), out=tmp_path / "maps")
    with pytest.raises(SettingsDifferError, match=r"\(classes: 'cityscapes-train' there, 11 names now\)"):
        segment(photographs, Bright(classes=("a",) * 11, settings=settings), out=tmp_path / "maps")


def test_a_map_without_its_end_is_not_kept(photographs, tmp_path):
    segment(photographs, Bright(), out=tmp_path / "maps")
    path = tmp_path / "maps/b.png"
    path.write_bytes(path.read_bytes()[:-15])
    with pytest.raises(DamagedFileError, match=r"b\.png must be a whole label map"):
        segment(photographs, Bright(), out=tmp_path / "maps")
    segment(photographs, Bright(), out=tmp_path / "maps", overwrite=True)
    assert read_label_map(path).shape == (10, 12)


def test_the_wrong_numbering_is_doubted(photographs, tmp_path):
    """Road and building as train ids are void in Cityscapes' own ids."""
    with pytest.warns(CovisWarning, match=r"100 % of the pixels mean nothing in 'cityscapes'; are they 'cityscapes-train'\?"):
        segment(photographs, Bright(sky=2, classes="cityscapes"), out=tmp_path / "maps")


def test_what_can_be_said_before_a_network_is_opened(tmp_path, monkeypatch):
    def opened(*_arguments, **_keywords):
        raise AssertionError("opened")

    for name in ("tflite_models.load_tflite", "onnx_maps.load_onnx_segmenter", "transformers_models.load_transformers"):
        monkeypatch.setattr(f"covis.segmentation.{name}", opened)
    for spec in ("a.tflite", "a.onnx", "hf:owner/name"):
        with pytest.raises(UnknownNameError, match=r"cityscapes-train"):
            open_segmenter(spec, classes="cityscape-train")
        with pytest.raises(InvalidInputError, match=r"size"):
            open_segmenter(spec, classes="ade20k", options={"size": 3})
    for options in ({"fit": "cover"}, {"std": [0.0, 1.0, 1.0]}, {"height": -3}):
        with pytest.raises(InvalidInputError, match=r"fit|above 0"):
            open_segmenter("a.onnx", classes="ade20k", options=options)
    for spec in ("hf:segformer", "hf:/name", "hf:a/b/c", "hf:"):
        with pytest.raises(InvalidInputError, match=r"hf:owner/name; got hf:"):
            open_segmenter(spec)


def test_names_are_never_shared():
    names = ["a.jpg", "a.png", "a.jpg.png", "b/a.jpg", "c.JPG", "c"]
    assert map_names(names) == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "a.jpg.png": "a.jpg.png.png",
        "b/a.jpg": "b/a.png",
        "c.JPG": "c.JPG.png",
        "c": "c.png",
    }


def test_what_is_no_note_is_none(tmp_path):
    assert read_note(tmp_path / "no.png") is None
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), dtype=np.uint8))
    assert read_note(tmp_path / "a.png") is None
    path = write_label_map(tmp_path / "c.png", RANDOM.integers(0, 256, size=(40, 40), dtype=np.uint8), note={"photograph": "ä.jpg"})
    assert read_note(path) == {"photograph": "ä.jpg"}
    path.write_bytes(path.read_bytes()[:-900])  # cut in its pixels, which nobody asked for
    assert read_note(path) == {"photograph": "ä.jpg"}
    with pytest.raises(DamagedFileError):
        read_label_map(path)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:20])
    with pytest.raises(DamagedFileError, match=r"b\.png must be a label map"):
        read_note(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        (lambda photographs: [], r"a map a photograph.* gave 0 for"),
        (lambda photographs: [one[..., 0].astype(int) for one in photographs], r"gave int64"),
        (lambda photographs: [one[1:, :, 0] for one in photographs], r"photograph's size"),
        (lambda photographs: [np.full(one.shape[:2], 19, dtype=np.uint8) for one in photographs], r"numbering cityscapes-train.* gave 19"),
        (lambda photographs: ["a" for _ in photographs], r"gave str"),
    ],
)
def test_a_segmenter_is_held_to_its_contract(photographs, tmp_path, gives, reason):
    model = Bright()
    model.segment = gives
    with pytest.raises(InvalidInputError, match=reason):
        segment(photographs, model, out=tmp_path / "maps")
    assert list((tmp_path / "maps").rglob("*.png")) == []


def test_bad_arguments(photographs, tmp_path):
    for arguments in ({"batch": 0}, {"damaged": "maybe"}):
        with pytest.raises(InvalidInputError):
            segment(photographs, Bright(), out=tmp_path / "maps", **arguments)


def test_a_module_of_ones_own(photographs, tmp_path):
    segment(photographs, "test_segmentation:made_by_name", out=tmp_path / "maps", options={"sky": 8})
    record = read_json(tmp_path / "maps/segmentation.json")
    assert set(record["shares"]) == {"road", "vegetation"}
    assert record["model"] == "test_segmentation:made_by_name"


@pytest.mark.parametrize(
    ("spec", "error", "reason"),
    [
        ("test_segmentation:nothing", UnknownNameError, r"A segmentation model is"),
        ("test_segmentation:no_segmenter", InvalidInputError, r"lacks classes, digest, engine, segment"),
        ("test_segmentation:failing", InvalidInputError, r"no weights"),
        ("nowhere", MissingFileError, r"is not there"),
        (__file__, MissingFileError, r"is another file"),
    ],
)
def test_what_is_no_segmenter(spec, error, reason):
    with pytest.raises(error, match=reason):
        open_segmenter(spec)
    with pytest.raises(InvalidInputError, match=r"Leave it out"):
        open_segmenter("test_segmentation:made_by_name", classes="ade20k")


def test_a_numbering_is_found_by_its_names():
    trained = NUMBERINGS["cityscapes-train"].classes
    names = [trained[number].upper() for number in range(19)]
    assert numbering(names, asked=None, where="net") == "cityscapes-train"
    ade = [NUMBERINGS["ade20k"].classes[number] + ", synonym" for number in range(150)]
    assert numbering(ade, asked=None, where="net") == "ade20k"
    assert numbering(["cat", "dog"], asked=None, where="net") == ("cat", "dog")
    assert numbering([], asked="ade20k", count=150, where="net") == "ade20k"
    assert numbering(["cat", "dog"], asked="ade20k", where="net") == "ade20k"
    wrong = names[1:] + names[:1]
    assert numbering(wrong, asked=None, where="net") == tuple(wrong), "the same names in another order are another numbering"


@pytest.mark.parametrize(
    ("names", "asked", "count", "error", "reason"),
    [
        ((), None, None, InvalidInputError, r"net does not say .*--classes, one of .*cityscapes-train"),
        ((), "cityscape-train", None, UnknownNameError, r"cityscapes-train"),
        ((), "cityscapes-train", 150, InvalidInputError, r"150 classes apart, and cityscapes-train has no number 19"),
        ([NUMBERINGS["ade20k"].classes[n] for n in range(150)], "cityscapes-train", 150, InvalidInputError, r"class names of ade20k"),
    ],
)
def test_a_numbering_that_does_not_fit(names, asked, count, error, reason):
    with pytest.raises(error, match=reason):
        numbering(names, asked=asked, count=count, where="net")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (16, 16), (37, 50), (8, 11)])
def test_scores_are_resized_as_torch_resizes_them(height, width):
    scores = torch.from_numpy(RANDOM.normal(size=(7, 8, 11)).astype(np.float32))
    resized = torch.nn.functional.interpolate(scores[None], (height, width), mode="bilinear", align_corners=False)[0]
    first, second = resized.topk(2, dim=0).values
    found = best_numbers(scores, height, width)
    clear = (first - second > 1e-5).numpy()
    np.testing.assert_array_equal(found[clear], resized.argmax(dim=0).numpy()[clear])
    assert clear.mean() > 0.9


def test_bands_do_not_show(monkeypatch):
    scores = torch.from_numpy(RANDOM.normal(size=(5, 6, 7)).astype(np.float32))
    whole = best_numbers(scores, 40, 30)
    monkeypatch.setattr("covis.segmentation.frames._BAND", 5 * 30 * 7)
    np.testing.assert_array_equal(best_numbers(scores, 40, 30), whole)


def test_what_was_padded_is_cut_off():
    """A photograph at the upper left of the input gives what the same scores give alone."""
    frame = Frame(8, 8, fit="pad")
    assert frame.extent(10, 20) == (0.5, 1.0)
    numbers = RANDOM.integers(0, 9, size=(8, 8))
    np.testing.assert_array_equal(nearest_numbers(numbers, 10, 20, extent=(0.5, 1.0)), nearest_numbers(numbers[:4], 10, 20))
    assert frame.filled(np.full((10, 20, 3), 200, dtype=np.uint8))[:, :, 0].tolist() == [[200] * 8] * 4 + [[127] * 8] * 4
    with pytest.raises(InvalidInputError, match=r"stretch, pad"):
        Frame(8, 8, fit="cover")


def test_numbers_and_scores_are_checked():
    for numbers in (np.array([[256]]), np.array([[-1]]), np.array([[0.5]]), np.zeros((0, 2), dtype=int), np.zeros(3, dtype=int)):
        with pytest.raises(InvalidInputError):
            nearest_numbers(numbers, 2, 2)
    for scores in (torch.zeros(257, 2, 2), torch.zeros(2, 2), torch.zeros(0, 2, 2), torch.full((2, 2, 2), torch.nan)):
        with pytest.raises(InvalidInputError):
            best_numbers(scores, 2, 2)
