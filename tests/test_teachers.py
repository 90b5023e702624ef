"""Networks that read label maps, wherever a model is asked for: they get maps, or a sentence, and never a photograph."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from covis.attention import attend, contributions, gradient_maps, occlusion_map
from covis.cli import app
from covis.datasets.tables import write_table
from covis.errors import CovisError, DamagedFileError, InvalidInputError
from covis.extraction import extract
from covis.images import Images, Scene
from covis.indexes import index
from covis.models import opening
from covis.models.checkpoints import save
from covis.models.encoders import LabelEncoder
from covis.models.export import export_model
from covis.models.gcl_checkpoints import write_gcl_checkpoint
from covis.models.opening import open_model
from covis.models.place import PlaceModel
from covis.pixels import decode
from covis.rasters import write_label_map
from covis.reports.overlays import attention_sheet
from covis.searching import describe_scenes
from covis.settings import EncodingSettings, ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ModelSettings(backbone="resnet10t", height=32, width=32, encoding=EncodingSettings("cityscapes-train"))


@pytest.fixture(scope="module")
def teacher() -> PlaceModel:
    return PlaceModel(SETTINGS, seed=1).eval()


@pytest.fixture(scope="module")
def stored(teacher: PlaceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(teacher, tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Ten photographs along a street, JPEG, and their label maps."""
    root, random = tmp_path_factory.mktemp("street"), np.random.default_rng(0)
    names, maps = [f"{number}.jpg" for number in range(10)], [f"{number}-map.png" for number in range(10)]
    for name, file in zip(names, maps, strict=True):
        Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / name)
        write_label_map(root / file, random.integers(0, 19, (24, 32), dtype=np.uint8))
    images = Images(root, names, xy=[[10.0 * number, 0.0] for number in range(10)], segmentation=maps)
    return Scene("street", "test", images.select(range(6)), images.select(range(6, 10)))


def without_maps(scene: Scene) -> Scene:
    return replace(scene, database=replace(scene.database, segmentation=None), queries=replace(scene.queries, segmentation=None))


def covis(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def refused(*arguments: object, match: str) -> None:
    with pytest.raises(CovisError, match=match):
        raise covis(*arguments, code=1).exception


def test_a_teacher_is_not_exported(teacher: PlaceModel, stored: Path, scene: Scene, tmp_path: Path) -> None:
    said = r"An exported file is for networks that read photographs; .* What is deployed is the student, RUN/train/model"
    with pytest.raises(InvalidInputError, match=said):
        export_model(teacher, tmp_path / "a.onnx")
    refused("export", stored, "--out", tmp_path / "a.onnx", match=said)
    write_table([scene], tmp_path / "data")
    refused("export", stored, "--out", tmp_path / "a.onnx", "--int8", "--calibrate", tmp_path / "data", match=said)
    assert not (tmp_path / "a.onnx").exists()


def test_a_teacher_is_run_by_torch(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVIS_CACHE", str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"run by torch \(--engine torch\)"):
        open_model(stored, engine="onnx")
    monkeypatch.setattr(opening, "_kept", lambda model: Path(__file__))  # as if an earlier version had exported it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model(stored, count=10_000).engine == "torch"


def test_attention_is_for_photographs(teacher: PlaceModel, stored: Path, scene: Scene, tmp_path: Path) -> None:
    said, photo = r"Attention is for networks that read photographs; .* RUN/train/model", scene.queries.path(0)
    for ask in (attend, contributions, gradient_maps, occlusion_map):
        with pytest.raises(InvalidInputError, match=said):
            ask(teacher, photo)
    with pytest.raises(InvalidInputError, match=said):
        attention_sheet(teacher, [scene.queries.root / "0-map.png"], out=tmp_path / "a.png")
    refused("attention", photo, "--model", stored, "--out", tmp_path / "a.png", match=said)
    assert not (tmp_path / "a.png").exists()


def test_search_by_photographs_says_what_the_network_reads(teacher: PlaceModel, stored: Path, scene: Scene, tmp_path: Path) -> None:
    index([extract(teacher, scene.database)], kind="exact").save(tmp_path / "index")
    said = r"Search by photographs \(--model\) is for networks that read photographs; .* reads label maps"
    for asked in (scene.queries.path(0), scene.queries.root / "0-map.png"):
        refused("search", tmp_path / "index", asked, "--model", stored, match=said)
    extract(teacher, scene.queries, out=tmp_path / "queries")
    assert "6.jpg" in covis("search", tmp_path / "index", tmp_path / "queries").stdout


def test_a_photograph_is_none_of_its_maps(teacher: PlaceModel, scene: Scene) -> None:
    with pytest.raises(DamagedFileError, match=r"^A network that reads label maps takes no photographs\. .* is JPEG\.$"):
        teacher.describe([scene.queries.path(0)])


def test_the_audit_of_batches_feeds_maps(stored: Path, scene: Scene, tmp_path: Path) -> None:
    write_table([scene], tmp_path / "data")
    found = json.loads(covis("audit", tmp_path / "data", "--model", stored, "--only", "batches", "--json").stdout)
    (batches,) = found["sections"]
    assert (batches["found"]["images"], batches["found"]["depends"]) == (6, False)


def test_audits_without_maps_are_left_out_in_words(stored: Path, scene: Scene, tmp_path: Path) -> None:
    write_table([without_maps(scene)], tmp_path / "bare")
    options = ("--model", stored, "--only", "copies,descriptors,batches", "--alike", 0.01, "--work", tmp_path / "work")
    found = json.loads(covis("audit", tmp_path / "bare", *options, "--json").stdout)["sections"]
    skipped = {one["audit"]: one["skipped"] for one in found if one["audit"] != "copies" and "skipped" in one}
    assert set(skipped) == {"descriptors", "batches"}
    assert all(said.startswith("the model reads label maps, and not every image of ") for said in skipped.values())
    write_table([scene], tmp_path / "data")  # what is held against it has none
    found = json.loads(covis("audit", tmp_path / "data", "--against", tmp_path / "bare", *options, "--json").stdout)["sections"]
    compared = {one["of"]: one for one in found if one["audit"] == "descriptors"}
    assert "found" in compared["street (test), queries against database"]
    assert "not every image of " in compared["training against test"]["skipped"]


def test_what_lacks_maps_is_told_where_they_are_named(stored: Path, scene: Scene, tmp_path: Path) -> None:
    write_table([without_maps(scene)], tmp_path / "bare")
    said = r"Name them in the column segmentation of a table .*; covis train, run, distill and sweep take .* \(--maps\)"
    refused("extract", tmp_path / "bare", "--model", stored, "--out", tmp_path / "out", match=said)
    some = replace(scene.database, segmentation=["", *(scene.database.segmentation or ())[1:]])
    with pytest.raises(InvalidInputError, match=r"1 of 6 have none, the first 0\.jpg\. " + said):
        extract(PlaceModel(SETTINGS), some)
    commands = get_command(app).commands  # type: ignore[attr-defined] # it is a group
    assert all(any("--maps" in one.opts for one in commands[name].params) for name in ("train", "run", "distill", "sweep"))
    write_table([scene], tmp_path / "data")
    covis("extract", tmp_path / "data", "--model", stored, "--out", tmp_path / "out")


def test_other_maps_of_the_same_photographs_are_described_anew(teacher: PlaceModel, scene: Scene, tmp_path: Path) -> None:
    maps = scene.database.segmentation or ()
    both = Scene("both", "test", scene.database, replace(scene.database, segmentation=maps[::-1]))
    ((queries, database),) = describe_scenes(teacher, [both], work=tmp_path)
    assert np.allclose(queries.vectors, database.vectors[::-1], atol=1e-6)
    assert not np.allclose(queries.vectors, database.vectors, atol=1e-3)


def test_masks_are_made_once_and_handed_to_who_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.randint(0, 19, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made: list[torch.Tensor] = []
    masks = LabelEncoder.masks
    monkeypatch.setattr(LabelEncoder, "masks", lambda self, given: made.append(masks(self, given)) or made[-1])
    for aggregator, wants in (("gem", False), ("label-features", True)):
        model = PlaceModel(replace(SETTINGS, aggregator=aggregator), seed=1).eval()
        assert model.encoder is not None
        with torch.no_grad():
            made.clear()
            seen = model.see(numbers)
            assert len(made) == 1
            assert (seen.masks is made[0]) == wants == (seen.masks is not None)
            plain = model.backbone(masks(model.encoder, numbers) * model.encoder.weights)
        assert all(torch.equal(a, b) for a, b in zip(seen.maps, plain.maps, strict=True))


def test_channels_of_the_other_kind_are_refused(teacher: PlaceModel) -> None:
    with pytest.raises(InvalidInputError, match=r"reads label maps takes \(B, 1, height, width\); got \(2, 3, 32, 32\)"):
        teacher.describe_pixels(torch.zeros((2, 3, 32, 32), dtype=torch.uint8))
    plain = PlaceModel(replace(SETTINGS, encoding=EncodingSettings("")))
    with pytest.raises(InvalidInputError, match=r"reads photographs takes \(B, 3, height, width\); got \(2, 1, 32, 32\)"):
        plain.describe_pixels(
            torch.from_numpy(decode(np.zeros((4, 4), np.uint8), height=32, width=32, resize="labels")[None]).repeat(2, 1, 1, 1)
        )
    with pytest.raises(InvalidInputError, match=r"resize photographs must be pil or pil-crop; got 'labels'"):
        PlaceModel(ModelSettings(resize="labels"))  # type: ignore[arg-type] # what is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": EncodingSettings("cityscapes-train")}, r"reads label maps \(encoding\); the student .* RUN/train/model"),
        ({"levels": (3,)}, r"has levels \[3\]"),
        ({"projection": 8}, r"has a projection to 8 dimensions"),
    ],
)
def test_the_reference_has_no_such_networks(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model = PlaceModel(replace(ModelSettings(backbone="resnet18", aggregator="gem", height=32, width=32), **changes))
    with pytest.raises(InvalidInputError, match=reason):
        write_gcl_checkpoint(model, tmp_path / "a.pth")
    assert not (tmp_path / "a.pth").exists()
