"""Exported files: what comes out is what torch gives, whitening and all; damage is noticed; int8 says what it costs."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from covis import cli
from covis.datasets import read
from covis.descriptors import Descriptors
from covis.errors import (
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingExtraError,
    MissingFileError,
    OutputExistsError,
    UnknownNameError,
)
from covis.evaluation import evaluate
from covis.extraction import extract
from covis.labelling import label_by_surface
from covis.labels import Labels
from covis.models import export, onnx_models
from covis.models.describers import describe
from covis.models.export import export_model
from covis.models.foreign import ForeignModel
from covis.models.onnx_models import OnnxModel, load_onnx, read_body, read_header, write_model
from covis.models.opening import open_model
from covis.models.place import PlaceModel
from covis.models.quantisation import add_measured, agreement, quantise, speed_ratio
from covis.protocols import protocol
from covis.searching import search_scenes
from covis.settings import ModelSettings
from covis.whitening import Whitening, fit_whitening

pytestmark = pytest.mark.usefixtures("one_thread")

SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
SETTINGS = ModelSettings(backbone="resnet10t", backbone_options=SLIM, height=48, width=64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def _pixels(count: int, height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


def _described(model: PlaceModel, count: int = 80) -> Descriptors:
    return Descriptors(model.describe_pixels(_pixels(count)), tuple(map(str, range(count))), model.digest)


@pytest.fixture(scope="module")
def model() -> PlaceModel:
    model = PlaceModel(SETTINGS, seed=1)
    model.history = {"trained": {"on": "nothing", "at": Path("/somewhere")}}
    return model.train()  # what is exported is the model in eval mode


@pytest.fixture(scope="module")
def plain(model: PlaceModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """One export of free size, shared: it takes some seconds."""
    return export_model(model, tmp_path_factory.mktemp("export") / "plain.onnx")


class Tiny(nn.Module):
    """A network whose export takes a second."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean((2, 3))


@pytest.fixture(scope="module")
def tiny() -> ForeignModel:
    return ForeignModel(Tiny(), name="tiny", settings=ModelSettings(height=16, width=24))


@pytest.fixture(scope="module")
def tiny_whitening(tiny: ForeignModel) -> Whitening:
    vectors = tiny.describe_pixels(_pixels(80, 16, 24))
    return fit_whitening(Descriptors(vectors, tuple(map(str, range(80))), tiny.digest), dim=4)


@pytest.fixture(scope="module")
def tiny_file(tiny: ForeignModel, tiny_whitening: Whitening, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tiny, tmp_path_factory.mktemp("export") / "tiny.onnx", whitening=tiny_whitening).path


# -- what is in the file --


def test_the_file_gives_what_torch_gives_at_every_batch_and_size(model: PlaceModel, plain: OnnxModel) -> None:
    assert (plain.engine, plain.digest, plain.dim, plain.height, plain.width, plain.resize) == (
        "onnx",
        model.digest,
        model.dim,
        48,
        64,
        "pil",
    )
    for count, height, width in ((1, 48, 64), (5, 48, 64), (2, 64, 48), (3, 80, 112)):
        pixels = _pixels(count, height, width, seed=count)
        np.testing.assert_allclose(plain.describe_pixels(pixels), model.describe_pixels(pixels), atol=1e-6)
    assert plain.describe_pixels(_pixels(0)).shape == (0, model.dim)
    assert model.training


def test_rows_do_not_depend_on_the_others_nor_on_how_pixels_lie(plain: OnnxModel) -> None:
    pixels = _pixels(7)
    whole = plain.describe_pixels(pixels)
    np.testing.assert_allclose(np.concatenate([plain.describe_pixels(one[None]) for one in pixels]), whole, atol=1e-6)
    np.testing.assert_array_equal(plain.describe_pixels(pixels.contiguous(memory_format=torch.channels_last)), whole)
    photos = [one.permute(1, 2, 0).numpy() for one in pixels]
    np.testing.assert_allclose(describe(plain, photos, batch=3), whole, atol=1e-6)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(model: PlaceModel, plain: OnnxModel) -> None:
    header = plain.header
    assert header["format"] == "covis-onnx"
    assert header["model"] == header["digest"] == model.digest
    assert (header["mean"], header["std"], header["whitening"], header["fixed"]) == ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], None, False)
    assert header["history"] == {"trained": {"on": "nothing", "at": "/somewhere"}}
    assert 0 <= header["measured"]["difference"] <= 1e-4
    stored = onnx.load(plain.path)  # any reader of ONNX finds the same
    onnx.checker.check_model(stored)
    assert [one.key for one in stored.metadata_props] == ["covis"]
    shape = [side.dim_param or side.dim_value for side in stored.graph.input[0].type.tensor_type.shape.dim]
    assert (stored.graph.input[0].name, shape, stored.graph.output[0].name) == ("pixels", ["batch", 3, "height", "width"], "descriptors")
    assert str(Path(torch.__file__).parent).encode() not in plain.path.read_bytes()
    assert str(Path(__file__).parent).encode() not in plain.path.read_bytes()


def test_the_opened_file_is_the_file(plain: OnnxModel) -> None:
    opened = open_model(plain.path)
    np.testing.assert_array_equal(opened.describe_pixels(_pixels(2)), plain.describe_pixels(_pixels(2)))
    assert opened.digest == plain.digest
    with pytest.raises(InvalidInputError, match=r"not by torch"):
        open_model(plain.path, engine="torch")
    with pytest.raises(InvalidInputError, match=r"says itself which pixels it takes; options \(height\)"):
        open_model(plain.path, options={"height": 3})


def test_whitening_is_folded_in_and_the_digest_is_of_both(tiny: ForeignModel, tiny_whitening: Whitening, tiny_file: Path) -> None:
    opened = load_onnx(tiny_file)
    pixels = _pixels(9, 16, 24, seed=5)
    vectors = tiny.describe_pixels(pixels)
    expected = tiny_whitening(Descriptors(vectors, tuple("abcdefghi"), tiny.digest)).vectors
    np.testing.assert_allclose(opened.describe_pixels(pixels), expected, atol=1e-4)
    assert opened.dim == 4
    assert opened.header["model"] == tiny.digest != opened.digest
    assert opened.header["whitening"] == tiny_whitening.history
    with pytest.raises(InvalidInputError, match=r"was fitted on model"):  # what comes out is not whitened again by it
        tiny_whitening(Descriptors(vectors, tuple("abcdefghi"), opened.digest))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda history: {**history, "model": "0123456789abcdef"}, r"must be of the model that is exported"),
        (lambda history: {**history, "emulate_float16": True}, r"emulate_float16"),
    ],
)
def test_a_whitening_that_does_not_fit_is_refused(change, said: str, tiny: ForeignModel, tiny_whitening: Whitening, tmp_path: Path) -> None:
    wrong = dataclasses.replace(tiny_whitening, history=change(dict(tiny_whitening.history)))
    with pytest.raises(InvalidInputError, match=said):
        export_model(tiny, tmp_path / "a.onnx", whitening=wrong)
    assert not any(tmp_path.iterdir())


def test_a_file_that_would_differ_from_torch_is_not_written(
    tiny: ForeignModel, tiny_whitening: Whitening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(export._Whole):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return super().forward(pixels) + 2e-4

    monkeypatch.setattr(export, "_Whole", Wrong)
    with pytest.raises(InvalidInputError, match=r"must give what torch gives, to 0\.0001 .* differs by 2\.0e-04"):
        export_model(tiny, tmp_path / "a.onnx", fixed=True)
    assert not any(tmp_path.iterdir())


def test_a_size_that_is_only_right_at_home_is_noticed(tmp_path: Path) -> None:
    class Half(nn.Module):
        """Its exported form keeps the first size: a number of Python's, where the size must stand."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum((2, 3)) / (x.shape[2] if torch.compiler.is_compiling() else 16)

    model = ForeignModel(Half(), name="half", settings=ModelSettings(height=16, width=24, normalize=False))
    with pytest.warns(CovisWarning, match=r"half is exported for images of 16 x 24 pixels alone: .* differs from torch by .* at 24 x 16"):
        opened = export_model(model, tmp_path / "a.onnx")
    assert opened.header["fixed"]
    np.testing.assert_allclose(opened.describe_pixels(_pixels(2, 16, 24)), model.describe_pixels(_pixels(2, 16, 24)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"), [("branch", r"differs from torch by .* at 24 x 32"), ("even", r"torch does not describe .* 37 x 49")]
)
def test_sizes_at_which_it_is_another_are_noticed(how: str, said: str, tmp_path: Path) -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if how == "even":
                return nn.functional.pixel_unshuffle(x, 2).mean((2, 3))
            return x.mean((2, 3)) if x.shape[2] > 40 else x.amax((2, 3))

    model = ForeignModel(Picky(), name="picky", settings=ModelSettings(height=48, width=64))
    with pytest.warns(CovisWarning, match=rf"picky is exported for images of 48 x 64 pixels alone: .*({said}|torch does not export)"):
        opened = export_model(model, tmp_path / "a.onnx")
    assert opened.fixed
    np.testing.assert_allclose(opened.describe_pixels(_pixels(2)), model.describe_pixels(_pixels(2)), atol=1e-5)


def test_outputs_are_not_overwritten_and_are_called_onnx(tiny: ForeignModel, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("mine")
    with pytest.raises(OutputExistsError):
        export_model(tiny, tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "mine"
    with pytest.raises(InvalidInputError, match=r"must end in \.onnx"):
        export_model(tiny, tmp_path / "a.pt")


@pytest.mark.slow
def test_a_network_of_one_size_is_exported_for_it_and_said(tmp_path: Path) -> None:
    class Flat(nn.Module):
        """Where things are in the image counts, for every pixel."""

        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.linspace(0, 1, 16 * 24).reshape(16, 24))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.position).mean((2, 3))

    model = ForeignModel(Flat(), name="flat", settings=ModelSettings(height=16, width=24))
    with pytest.warns(CovisWarning, match=r"flat is exported for images of 16 x 24 pixels alone"):
        opened = export_model(model, tmp_path / "a.onnx")
    assert opened.fixed
    assert opened.header["fixed"]
    np.testing.assert_allclose(opened.describe_pixels(_pixels(4, 16, 24)), model.describe_pixels(_pixels(4, 16, 24)), atol=1e-6)
    with pytest.raises(InvalidInputError, match=r"must describe images \(1, 3, 24, 16\)"):
        opened.describe_pixels(_pixels(1, 24, 16))


def test_padding_by_size_is_exported_for_one_size_at_once() -> None:
    model = PlaceModel(ModelSettings(backbone="mobilenetv2_050", backbone_options={"pad_type": "same"}, height=32, width=32))
    assert "padding depends" in export._bound(export._Whole(model, None))
    assert not export._bound(export._Whole(PlaceModel(SETTINGS), None))


def test_without_the_extra_it_is_named(tiny: ForeignModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript is not installed: pip install covis\[onnx\]"):
        export_model(tiny, tmp_path / "a.onnx")


# -- damage, and files of others --


def test_damage_is_noticed(tiny_file: Path, tmp_path: Path, refuses_every_cut) -> None:
    file = tmp_path / "tiny.onnx"
    file.write_bytes(tiny_file.read_bytes())
    refuses_every_cut(file, lambda: load_onnx(file))
    whole = file.read_bytes()
    for place in np.unique(np.linspace(0, len(whole) - 1, 300).astype(int)):
        for change in (1, 0x80):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
            with pytest.raises(DamagedFileError):
                load_onnx(file)


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\x00" * 64, b"PK\x03\x04" + b"a" * 100])
def test_what_is_no_onnx_file_is_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"a\.onnx must be an ONNX model"):
        load_onnx(tmp_path / "a.onnx")
    with pytest.raises(MissingFileError):
        load_onnx(tmp_path / "b.onnx")


def test_a_file_of_a_newer_covis_is_said(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = {key: value for key, value in read_header(tiny_file).items() if key not in ("check", "body", "format", "version")}
    monkeypatch.setattr(onnx_models, "VERSION", 2)
    write_model(tmp_path / "a.onnx", read_body(tiny_file), header)
    monkeypatch.setattr(onnx_models, "VERSION", 1)
    with pytest.raises(DamagedFileError, match=r"version 2"):
        load_onnx(tmp_path / "a.onnx")


def _foreign(path: Path, *, kind: int = onnx.TensorProto.FLOAT, shape=("b", 3, "h", "w"), extra: bool = False, keep: int = 0) -> Path:
    """The mean of each channel, as someone else would write it."""
    make = onnx.helper
    inputs = [make.make_tensor_value_info("image", kind, shape)]
    if extra:
        inputs.append(make.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, ("b", 1)))
    nodes = [
        make.make_node("Cast", ["image"], ["floats"], to=onnx.TensorProto.FLOAT),
        make.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=keep),
    ]
    out = make.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, None)
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    graph = make.make_graph(nodes, "mean", inputs, [out], initializer=[axes])
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_simple_files_of_others_are_taken(tmp_path: Path) -> None:
    pixels = _pixels(3)
    means = pixels.float().mean((2, 3)).numpy()
    size = {"height": 48, "width": 64, "normalize": False}
    floats = open_model(_foreign(tmp_path / "a.onnx"), options={**size, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
    np.testing.assert_allclose(floats.describe_pixels(pixels), (means / 255 - 0.5) / 0.25, atol=1e-5)
    bytes_ = open_model(_foreign(tmp_path / "b.onnx", kind=onnx.TensorProto.UINT8), options=size)
    np.testing.assert_allclose(bytes_.describe_pixels(pixels), means, rtol=1e-5)
    one = open_model(_foreign(tmp_path / "c.onnx", shape=(1, 3, 48, 64)))  # one image at a time, one size
    assert (one.height, one.width, one.dim) == (48, 64, 3)
    np.testing.assert_allclose(np.linalg.norm(one.describe_pixels(pixels), axis=1), 1, atol=1e-6)
    assert len({floats.digest, bytes_.digest, one.digest}) == 3


def _projected(path: Path, seed: int, location: str = "net.onnx.data") -> Path:
    """The mean of each channel times weights that lie in another file, as torch.onnx.export writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _foreign(path)
    model = onnx.load(path)
    weights = np.random.default_rng(seed).normal(size=(3, 400)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["mean", "weights"], ["made"]))
    model.graph.output[0].name = "made"
    onnx.save(model, path, save_as_external_data=True, location=Path(location).name, size_threshold=100)
    if location != Path(location).name:
        changed = onnx.load(path, load_external_data=False)
        next(entry for entry in changed.graph.initializer[-1].external_data if entry.key == "location").value = location
        path.write_bytes(changed.SerializeToString())
    return path


def test_weights_beside_a_file_of_others_are_in_its_digest(tmp_path: Path) -> None:
    size = {"height": 48, "width": 64}
    first, again, other = (_projected(tmp_path / name / "net.onnx", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert first.read_bytes() == other.read_bytes()
    digests = [open_model(path, options=size).digest for path in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    other.with_name("net.onnx.data").unlink()
    with pytest.raises(MissingFileError, match=r"has weights in .*net\.onnx\.data"):
        open_model(other, options=size)


@pytest.mark.parametrize("location", ["../net.onnx.data", "/somewhere/net.onnx.data", "a/../../net.onnx.data", "C:\\net.onnx.data"])
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"must have its weights in its own folder; it names"):
        open_model(_projected(tmp_path / "a" / "net.onnx", 0, location), options={"height": 48, "width": 64})


def test_weights_deep_in_a_file_are_found() -> None:
    """In a branch, in a function, in a sparse tensor, in an attribute."""
    make, kinds = onnx.helper, onnx.TensorProto

    def outside(name: str) -> onnx.TensorProto:
        tensor = kinds(name=name, data_type=kinds.FLOAT, dims=[1], data_location=kinds.EXTERNAL)
        tensor.external_data.add(key="location", value=name)
        return tensor

    def constant(name: str) -> onnx.NodeProto:
        return make.make_node("Constant", [], [name], value=outside(name))

    branch = make.make_graph([constant("in a branch")], "branch", [], [], initializer=[outside("of a branch")])
    sparse = onnx.SparseTensorProto(values=outside("sparse values"), indices=outside("sparse indices"), dims=[1])
    nodes = [make.make_node("If", ["x"], ["y"], then_branch=branch), constant("in an attribute")]
    graph = make.make_graph(nodes, "graph", [], [], initializer=[outside("of the graph")], sparse_initializer=[sparse])
    opsets = [make.make_opsetid("", 18)]
    functions = [make.make_function("mine", "f", [], [], [constant("in a function")], opsets)]
    data = make.make_model(graph, functions=functions, opset_imports=opsets).SerializeToString()
    assert sorted(onnx_models._locations(data, "model", 0, len(data))) == sorted(
        ["in a branch", "of a branch", "sparse values", "sparse indices", "in an attribute", "of the graph", "in a function"]
    )


@pytest.mark.parametrize(
    ("made", "options", "said"),
    [
        ({"extra": True}, {}, r"one input, .* it takes image .*, mask"),
        ({"shape": ("b", 4, "h", "w")}, {}, r"one input, \(B, 3, height, width\)"),
        ({"kind": onnx.TensorProto.DOUBLE}, {}, r"tensor\(double\)"),
        ({"keep": 1}, {}, r"\(B, D\); its first output is \(1, 3, 1, 1\)"),
        ({"shape": ("b", 3, 48, 64)}, {"height": 32}, r"48 x 64 pixels alone; asked for 32 x 64"),
        ({"kind": onnx.TensorProto.UINT8}, {"mean": [0.5, 0.5, 0.5]}, r"mean would have no effect"),
        ({}, {"clusters": 3}, r"got clusters"),
    ],
)
def test_files_of_others_that_are_more_than_that_are_said(made, options, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=said):
        open_model(_foreign(tmp_path / "a.onnx", **made), options=options)


# -- int8 --


@pytest.fixture(scope="module")
def int8(plain: OnnxModel) -> OnnxModel:
    photos = [one.permute(1, 2, 0).numpy() for one in _pixels(8)]
    return quantise(plain, plain.path.with_name("int8.onnx"), photos)


def test_int8_is_near_smaller_and_another_model(plain: OnnxModel, int8: OnnxModel) -> None:
    pixels = _pixels(6, seed=9)
    exact, quick = plain.describe_pixels(pixels), int8.describe_pixels(pixels)
    assert (exact * quick).sum(axis=1).min() > 0.9
    assert np.abs(exact - quick).max() > 1e-4  # it is int8
    assert int8.digest != plain.digest
    assert (int8.header["precision"], int8.header["model"], int8.dim) == ("int8", plain.digest, plain.dim)
    assert int8.header["measured"]["calibration images"] == 8
    kinds = [node.op_type for node in onnx.load(int8.path).graph.node]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(kinds)
    heavy = len(kinds) - 1 - kinds[::-1].index("Conv")
    assert "QuantizeLinear" not in kinds[heavy + 4 :]  # the aggregator and the norm are float
    assert int8.describe_pixels(_pixels(2, 64, 48)).shape == (2, plain.dim)


@pytest.mark.slow
def test_int8_leaves_an_aggregator_with_convolutions_in_float32(tmp_path: Path) -> None:
    photos = [one.permute(1, 2, 0).numpy() for one in _pixels(8)]
    settings = dataclasses.replace(SETTINGS, aggregator="netvlad", aggregator_options={"clusters": 4})
    model = PlaceModel(settings, seed=1)
    model.initialise(photos, seed=0)
    quick = quantise(export_model(model, tmp_path / "a.onnx", fixed=True), tmp_path / "b.onnx", photos)
    nodes = list(onnx.load(quick.path).graph.node)
    last = max(place for place, node in enumerate(nodes) if node.op_type == "Conv" and node.name.startswith(export.BACKBONE))
    after = [node.op_type for node in nodes[last + 4 :]]
    assert {"Conv", "MatMul", "Softmax"} <= set(after)
    assert "QuantizeLinear" not in after
    np.testing.assert_allclose(np.linalg.norm(describe(quick, photos), axis=1), 1, atol=1e-5)


def test_int8_is_made_of_float32_and_of_images(plain: OnnxModel, int8: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"at least one image .* got 0 images"):
        quantise(plain, tmp_path / "a.onnx", [])
    with pytest.raises(InvalidInputError, match=r"a file that is int8"):
        quantise(int8, tmp_path / "a.onnx", [np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(OutputExistsError):
        quantise(plain, int8.path, [np.zeros((4, 4, 3), np.uint8)])


def test_what_was_measured_is_stored(plain: OnnxModel, tmp_path: Path) -> None:
    copied = tmp_path / "a.onnx"
    copied.write_bytes(plain.path.read_bytes())
    opened = add_measured(copied, {"speed ratio": 1.5})
    assert opened.header["measured"] == {**plain.header["measured"], "speed ratio": 1.5}
    np.testing.assert_array_equal(opened.describe_pixels(_pixels(1)), plain.describe_pixels(_pixels(1)))


def test_agreement_against_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    exact = tuple(random.normal(size=(count, 6)) for count in (30, 40))
    quick = tuple(one + 0.4 * random.normal(size=one.shape) for one in exact)
    same = np.where(np.arange(30) < 20, np.arange(30), -1)
    kept = 0
    for row in range(30):
        found = []
        for queries, database in (exact, quick):
            order = sorted(range(40), key=lambda column: float(((queries[row] - database[column]) ** 2).sum()))
            found.append(next(column for column in order if column != same[row]))
        kept += found[0] == found[1]
    measured = agreement(exact, quick, same=same)
    assert measured["nearest neighbour kept"] == kept / 30
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(exact[0], quick[0], strict=True)]
    assert measured["cosine"] == pytest.approx(np.mean(cosines))
    assert agreement(exact, exact) == pytest.approx({"nearest neighbour kept": 1.0, "cosine": 1.0})


def test_the_speed_ratio_is_of_the_same_images(plain: OnnxModel, int8: OnnxModel) -> None:
    assert 0.05 < speed_ratio(plain, int8, [np.zeros((48, 64, 3), np.uint8)] * 2, rounds=1) < 20


# -- the command --

NETWORK = """
    import torch
    from torch import nn

    def network(*, dim=8):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, dim, 3, stride=2), nn.ReLU(), nn.Conv2d(dim, dim, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
"""
SIZED = ["--model-option", "height=12", "--model-option", "width=16"]


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "network_of_mine.py").write_text(textwrap.dedent(NETWORK))
    monkeypatch.syspath_prepend(tmp_path)
    yield "network_of_mine:network"
    sys.modules.pop("network_of_mine", None)


def _run(*arguments: object) -> str:
    """stdout and stderr of the command; an error of ours is raised."""
    done = CliRunner().invoke(cli.app, ["export", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.output


def test_the_command_writes_a_whitened_file_and_says_what_it_measured(network: str, tmp_path: Path) -> None:
    model = open_model(network, options={"height": 12, "width": 16, "dim": 6})
    vectors = model.describe_pixels(_pixels(60, 12, 16))
    fitted = fit_whitening(Descriptors(vectors, tuple(map(str, range(60))), model.digest), dim=4)
    fitted.save(tmp_path / "whitening.npz")
    given = [*SIZED, "--model-option", "dim=6", "--whitening", tmp_path / "whitening.npz", "--fixed"]
    said = _run(network, "--out", tmp_path / "a.onnx", *given)
    assert "descriptors (B, 4), whitened; the network's size is 12 x 16" in said
    assert "largest difference from torch" in said
    assert said.splitlines()[-1] == str(tmp_path / "a.onnx")
    opened = open_model(tmp_path / "a.onnx")
    expected = fitted(Descriptors(vectors, tuple(map(str, range(60))), model.digest)).vectors
    np.testing.assert_allclose(opened.describe_pixels(_pixels(60, 12, 16)), expected, atol=1e-4)
    with pytest.raises(OutputExistsError):
        _run(network, "--out", tmp_path / "a.onnx", *given)


def test_the_command_measures_what_int8_costs(network: str, room, tmp_path: Path) -> None:
    data = room(frames=5)
    scenes = read("7scenes", data)
    label_by_surface(scenes[0].queries, scenes[0].database).save(tmp_path / "labels.npz")
    given = ["--calibrate", data, "--images", 3, "--labels", tmp_path / "labels.npz"]
    said = _run(network, "--out", tmp_path / "a.onnx", *SIZED, "--fixed", "--int8", *given)
    opened = open_model(tmp_path / "a.onnx")
    measured = opened.header["measured"]
    assert measured["protocol"] == "graded/0.5"
    assert measured["calibration images"] == 3
    model = open_model(network, options={"height": 12, "width": 16})
    pairs = [(extract(model, scenes[0].queries), extract(model, scenes[0].database))]
    graded = [Labels.load(tmp_path / "labels.npz")]
    expected = evaluate(search_scenes(scenes, pairs, protocol="graded/0.5", labels=graded), scenes, labels=graded, protocol="graded/0.5")
    for k in (1, 5):
        assert measured[f"recall@{k}, float32"] == expected.metrics[f"recall@{k}"].value
        assert 0 <= measured[f"recall@{k}, int8"] <= 1
    assert 0 <= measured["nearest neighbour kept"] <= 1
    assert 0.9 < measured["cosine"] <= 1.0
    assert measured["times as fast"] > 0
    assert measured["share of the bytes"] > 0
    for name in ("recall@1, int8", "nearest neighbour kept", "cosine", "times as fast", "share of the bytes"):
        assert name in said
    assert opened.header["precision"] == "int8"
    assert opened.fixed


def test_photographs_on_both_sides_are_described_once_and_any_k_is_measured(network: str, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for number, one in enumerate(_pixels(6, 12, 16)):
        Image.fromarray(one.permute(1, 2, 0).numpy()).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "places.csv").write_text("name,x,y\n" + "".join(f"{number}.png,{number * 10},0\n" for number in range(6)))
    dataclasses.replace(protocol("radius/25"), name="deep", threshold=15.0, ks=(1, 40)).write(tmp_path / "deep.toml")
    given = ["--calibrate", tmp_path / "photos", "--protocol", tmp_path / "deep.toml", "--fixed", "--int8"]
    said = _run(network, "--out", tmp_path / "a.onnx", *SIZED, *given)
    assert "float32 describes 6 images" in said
    measured = open_model(tmp_path / "a.onnx").header["measured"]
    assert measured["protocol"] == "deep"
    assert 0 <= measured["recall@1, int8"] <= 1


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [(["--protocol", "radius/26x"], UnknownNameError, r"radius/26x"), (["--labels", "/no/such.npz"], MissingFileError, r"such")],
)
def test_what_int8_is_measured_by_is_looked_at_before_the_export(
    given, kind, said: str, network: str, room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "export_model", lambda *_, **__: pytest.fail("exported"))
    with pytest.raises(kind, match=said):
        _run(network, "--out", tmp_path / "a.onnx", *SIZED, "--int8", "--calibrate", room(frames=2), *given)


def test_without_truth_no_recall_is_measured(room, capsys: pytest.CaptureFixture[str]) -> None:
    from covis.cli.models import _recalls, _truth

    scenes = read("7scenes", room(frames=2))
    assert _truth(scenes, None, None) == (None, None)
    assert _recalls(scenes, {}, None, None) == {}
    assert "recall is not measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--int8"], r"--int8 and --calibrate DATA must be given together"),
        (["--calibrate", "{data}"], r"--int8 and --calibrate DATA must be given together"),
        (["--model-option", "dims=3"], r"unexpected keyword argument 'dims'"),
        (["--int8", "--calibrate", "{data}", "--images", "0"], r"--images 0"),
    ],
)
def test_the_command_says_what_does_not_go_together(given, said: str, network: str, room, tmp_path: Path) -> None:
    data = room(frames=2)
    with pytest.raises(InvalidInputError, match=said):
        _run(network, "--out", tmp_path / "a.onnx", *SIZED, *[one.format(data=data) for one in given])
    assert not (tmp_path / "a.onnx").exists()


def test_a_file_is_no_network_to_export(tiny_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"is one that was exported already\. Give the network that it was made of: tiny\."):
        _run(tiny_file, "--out", tmp_path / "a.onnx")
    with pytest.raises(InvalidInputError, match=r"was exported already\. Give the network that it was made of\."):
        _run(_foreign(tmp_path / "b.onnx"), "--out", tmp_path / "a.onnx")


@pytest.mark.slow
def test_a_vision_transformer_is_exported_for_its_size(tmp_path: Path) -> None:
    settings = ModelSettings(
        backbone="vit_tiny_patch16_224", backbone_options={"img_size": (32, 48)}, height=32, width=48, aggregator="token"
    )
    model = PlaceModel(settings, seed=1)
    with pytest.warns(CovisWarning, match=r"32 x 48 pixels alone"):
        opened = export_model(model, tmp_path / "a.onnx")
    np.testing.assert_allclose(opened.describe_pixels(_pixels(5, 32, 48)), model.describe_pixels(_pixels(5, 32, 48)), atol=1e-5)


@pytest.mark.slow
def test_a_trained_network_on_photographs(covis_data: Path, tmp_path: Path) -> None:
    """Pretrained weights and real photographs: the engine gives what torch gives, and int8 stays usable."""
    weights = covis_data / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    photos = sorted((covis_data / "campus" / "images").glob("*.jpg"))[:40:2]
    if not weights.exists() or not photos:
        pytest.skip("needs the campus photographs and MobileNetV2's weights under $COVIS_DATA")
    options = {"backbone": "mobilenetv2_100", "backbone_options": {"pad_type": "same"}, "height": 96, "width": 128}
    model = PlaceModel(ModelSettings(**options, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), weights=weights)
    exact = export_model(model, tmp_path / "a.onnx", fixed=True)
    np.testing.assert_allclose(describe(exact, photos), model.describe(photos), atol=1e-5)
    quick = quantise(exact, tmp_path / "b.onnx", photos[:10])
    assert (describe(exact, photos[10:]) * describe(quick, photos[10:])).sum(axis=1).mean() > 0.8
