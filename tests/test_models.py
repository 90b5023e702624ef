"""Models: random, from a file, on disk and back; the same image gives the same descriptor however it is asked for."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from covis.config import to_table
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.extraction import extract
from covis.images import Images
from covis.models import checkpoints
from covis.models.aggregators import GeM
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
SETTINGS = ModelSettings(backbone="resnet10t", backbone_options=SLIM, height=32, width=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(SETTINGS, seed=3)


def _photos(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8) for i in range(count)]


# -- the place model --


def test_the_seed_alone_decides_the_weights_and_the_global_state_is_untouched() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = PlaceModel(SETTINGS, seed=5)
    assert (torch.rand(3) == expected).all()
    assert first.digest == PlaceModel(SETTINGS, seed=5).digest
    assert first.digest != PlaceModel(SETTINGS, seed=6).digest


def test_descriptors_are_unit_vectors_of_the_dimension_that_the_model_says(model: PlaceModel) -> None:
    vectors = model.describe(_photos(5))
    assert vectors.shape == (5, model.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    plain = PlaceModel(dataclasses.replace(SETTINGS, normalize=False), seed=3).describe(_photos(5))
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), vectors, atol=1e-5)


def test_descriptors_do_not_depend_on_the_batch_or_the_neighbours(model: PlaceModel) -> None:
    model.train()  # batch statistics would mix neighbours; describe works in eval mode
    photos = _photos(7)
    whole = model.describe(photos, batch=7)
    for batch in (1, 2, 3, 32):
        np.testing.assert_allclose(model.describe(photos, batch=batch), whole, atol=1e-6)
    np.testing.assert_allclose(model.describe(photos[::-1]), whole[::-1], atol=1e-6)


def test_describing_leaves_the_mode_and_the_weights_as_they_were(model: PlaceModel) -> None:
    model.train()
    model.backbone.network.bn1.eval()
    before = model.digest
    model.describe(_photos(3))
    assert model.digest == before
    assert model.training
    assert not model.backbone.network.bn1.training


def test_paths_arrays_and_pillow_images_may_be_mixed(model: PlaceModel, tmp_path: Path) -> None:
    photo = _photos(1)[0]
    Image.fromarray(photo).save(tmp_path / "a.png")
    vectors = model.describe([tmp_path / "a.png", photo, Image.fromarray(photo)])
    np.testing.assert_allclose(vectors, vectors[[0, 0, 0]], atol=1e-6)
    assert model.describe([]).shape == (0, model.dim)
    with pytest.raises(InvalidInputError, match="Put it in a list"):
        model.describe("a.png")  # type: ignore[arg-type]


def test_the_digest_sees_the_settings_and_every_weight(model: PlaceModel) -> None:
    assert model.digest == PlaceModel(dataclasses.replace(SETTINGS), seed=3).digest
    assert model.digest != PlaceModel(dataclasses.replace(SETTINGS, height=64), seed=3).digest
    before = model.digest
    with torch.no_grad():
        model.aggregator.p += 1e-6
    assert model.digest != before


def test_the_aggregator_is_found_by_name_and_its_options_are_checked() -> None:
    assert PlaceModel(dataclasses.replace(SETTINGS, aggregator_options={"p": 2.0})).aggregator.p.item() == 2
    with pytest.raises(UnknownNameError, match="Did you mean 'gem'"):
        PlaceModel(dataclasses.replace(SETTINGS, aggregator="gemm"))
    with pytest.raises(InvalidInputError, match="does not take the options"):
        PlaceModel(dataclasses.replace(SETTINGS, aggregator_options={"q": 2.0}))
    named = PlaceModel(dataclasses.replace(SETTINGS, aggregator="covis.models.aggregators:GeM"), seed=3)
    assert isinstance(named.aggregator, GeM)


@pytest.mark.parametrize("change", [{"height": 0}, {"std": (1.0, 0.0, 1.0)}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="above 0"):
        PlaceModel(dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]


def test_the_way_to_resize_counts(tmp_path: Path) -> None:
    square = dataclasses.replace(SETTINGS, height=32, width=32)
    cut = dataclasses.replace(square, resize="pil-crop")
    photo = [np.random.default_rng(0).integers(0, 256, (32, 90, 3), dtype=np.uint8)]
    model = PlaceModel(cut, seed=3)
    assert model.digest != PlaceModel(square, seed=3).digest
    np.testing.assert_allclose(model.describe(photo), PlaceModel(square, seed=3).describe([photo[0][:, 29:61]]), atol=1e-6)
    Image.fromarray(photo[0]).save(tmp_path / "a.png")
    extracted = extract(model, Images(tmp_path, ["a.png"]))
    assert extracted.history["extracted"]["resize"] == "pil-crop"
    np.testing.assert_allclose(extracted.vectors, model.describe(photo), atol=1e-6)
    with pytest.raises(InvalidInputError, match="defined for squares"):
        PlaceModel(dataclasses.replace(SETTINGS, resize="pil-crop"))


# -- weights from a file --


def _state(model: PlaceModel) -> dict[str, torch.Tensor]:
    """The backbone's entries with a classifier beside them, as a training script leaves them."""
    state = {name: value.clone() for name, value in model.backbone.network.state_dict().items()}
    return state | {"fc.weight": torch.zeros(10, 16), "fc.bias": torch.zeros(10)}


def _write(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save({"state_dict": state} if path.stem == "wrapped" else state, path)
    return path


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "wrapped.pth", "a.safetensors"])
def test_weights_come_from_a_file(model: PlaceModel, tmp_path: Path, name: str) -> None:
    path = _write(_state(model), tmp_path / name)
    assert PlaceModel(SETTINGS, seed=99, weights=path).digest == model.digest
    assert PlaceModel(dataclasses.replace(SETTINGS, pretrained=True), weights=path).digest == model.digest  # the hub is not asked


def test_half_precision_weights_become_float32(model: PlaceModel, tmp_path: Path) -> None:
    halves = {name: value.half() if value.is_floating_point() else value for name, value in _state(model).items()}
    loaded = PlaceModel(SETTINGS, weights=_write(halves, tmp_path / "half.pth"))
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    np.testing.assert_allclose(loaded.describe(_photos(2)), model.describe(_photos(2)), atol=5e-3)


def test_missing_left_over_and_misshapen_entries_are_named(model: PlaceModel, tmp_path: Path) -> None:
    state = _state(model)
    del state["layer2.0.conv1.weight"]
    state["head.extra"] = torch.zeros(1)
    state["bn1.bias"] = torch.zeros(3)
    with pytest.raises(
        InvalidInputError, match=r"missing: layer2\.0\.conv1\.weight; not in the network: head\.extra; of another shape: bn1\.bias"
    ):
        PlaceModel(SETTINGS, weights=_write(state, tmp_path / "bad.pth"))


def test_files_that_are_no_weights_are_refused(model: PlaceModel, tmp_path: Path) -> None:
    whole = _write(_state(model), tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(_Harmful(), tmp_path / "code.pth")
    for name in ("cut.pth", "text.pth", "text.safetensors", "empty.pt", "list.pth", "code.pth"):
        with pytest.raises(DamagedFileError, match=name.replace(".", r"\.")):
            PlaceModel(SETTINGS, weights=tmp_path / name)
    with pytest.raises(MissingFileError, match=r"absent\.pth"):
        PlaceModel(SETTINGS, weights=tmp_path / "absent.pth")


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 3",)


def test_real_imagenet_weights_load_strictly() -> None:
    folder = os.environ.get("COVIS_DATA")
    path = Path(folder or ".") / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    if not folder or not path.exists():
        pytest.skip("set COVIS_DATA to a folder with weights/mobilenetv2_100_timm_same_fp16_statedict.pth")
    half = (0.5, 0.5, 0.5)
    settings = ModelSettings(backbone_options={"num_classes": 1001, "pad_type": "same"}, height=64, width=96, mean=half, std=half)
    model = PlaceModel(settings, weights=path)
    assert model.dim == 1280
    assert np.isfinite(model.describe(_photos(2))).all()
    with pytest.raises(InvalidInputError, match="entry by entry"):
        PlaceModel(dataclasses.replace(settings, backbone="mobilenetv2_050"), weights=path)


# -- on disk --


def test_a_saved_model_comes_back_the_same(model: PlaceModel, tmp_path: Path) -> None:
    model.history = {"steps": 3}
    path = checkpoints.save(model, tmp_path / "m")
    back = checkpoints.load(path)
    assert back.digest == model.digest
    assert to_table(back.settings) == json.loads(json.dumps(to_table(model.settings)))
    assert back.history == {"steps": 3}
    assert not back.training
    assert (back.describe(_photos(2)) == model.describe(_photos(2))).all()
    assert sorted(entry.name for entry in path.iterdir()) == ["model.json", "weights.safetensors"]
    assert len({entry.stat().st_mode for entry in path.iterdir()}) == 1  # whoever may read the one may read the other


def test_a_model_is_not_overwritten_unasked(model: PlaceModel, tmp_path: Path) -> None:
    checkpoints.save(model, tmp_path / "m")
    with pytest.raises(OutputExistsError, match="already there"):
        checkpoints.save(model, tmp_path / "m")
    checkpoints.save(PlaceModel(SETTINGS, seed=4), tmp_path / "m", overwrite=True)
    assert checkpoints.load(tmp_path / "m").digest == PlaceModel(SETTINGS, seed=4).digest


def test_damaged_models_are_refused_by_name(model: PlaceModel, tmp_path: Path) -> None:
    path = checkpoints.save(model, tmp_path / "m")
    weights, header = (path / "weights.safetensors").read_bytes(), (path / "model.json").read_text()

    def refused(match: str) -> None:
        with pytest.raises(DamagedFileError, match=match):
            checkpoints.load(path)
        (path / "weights.safetensors").write_bytes(weights)
        (path / "model.json").write_text(header)

    (path / "weights.safetensors").write_bytes(weights[:-100])
    refused("weights.safetensors")
    (path / "model.json").write_text(header[:-30])
    refused("model.json")
    (path / "model.json").write_text(header.replace("covis-model", "covis-labels"))
    refused("kind 'covis-model'")
    (path / "model.json").write_text(header.replace('"version": 1', '"version": 9'))
    refused("version 9")
    (path / "model.json").write_text(header.replace("resnet10t", "resnet10x"))
    refused("no model called")
    (path / "model.json").write_text(header.replace('"height": 32', '"height": 64'))
    refused("One of the two was changed")
    state = load_file(path / "weights.safetensors")
    save_file(state | {"aggregator.p": state["aggregator.p"] + 1}, path / "weights.safetensors")
    refused("One of the two was changed")
    save_file({"a": torch.zeros(1)}, path / "weights.safetensors")
    refused("names or shapes differ")
    assert checkpoints.load(path).digest == model.digest


def test_a_missing_model_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"model\.json"):
        checkpoints.load(tmp_path / "nothing")
