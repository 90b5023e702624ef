"""What a model's name opens: our folder, an .onnx file, a function, a torch.hub folder; and which engine runs it."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from covis.errors import CovisWarning, InvalidInputError, MissingExtraError, MissingFileError, UnknownNameError
from covis.extraction import extract
from covis.images import Images
from covis.models import checkpoints, onnx_models, opening
from covis.models.foreign import ForeignModel
from covis.models.opening import cache_folder, open_model
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = {"height": 16, "width": 24}
CODE = """
    import torch
    from torch import nn

    def small(*, dim=5):
        return nn.Sequential(nn.Conv2d(3, dim, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def broken(**options):
        raise KeyError("no such weights")

    def number():
        return 3

    def by_value():
        class Cut(nn.Module):
            def forward(self, x):
                return x.mean((2, 3)) if float(x.mean()) > 0.123 else x.amax((2, 3))
        return Cut()
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's; its name."""
    (tmp_path / "code_of_mine.py").write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "code_of_mine"
    sys.modules.pop("code_of_mine", None)


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "hubconf.py").write_text('dependencies = ["torch"]\n' + textwrap.dedent(CODE))
    return folder


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


def _pixels(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 16, 24), dtype=np.uint8))


def test_a_folder_of_ours(tmp_path: Path) -> None:
    model = PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=32), seed=1)
    folder = checkpoints.save(model, tmp_path / "model")
    opened = open_model(folder)
    assert isinstance(opened, PlaceModel)
    assert opened.digest == open_model(str(folder), engine="torch").digest == model.digest
    with pytest.raises(InvalidInputError, match=r"says itself .* height"):
        open_model(folder, options={"height": 64})


@pytest.mark.parametrize("which", ["function", "hub"])
def test_code_of_others_by_name(which: str, code: str, hub: Path) -> None:
    spec = f"{code}:small" if which == "function" else f"hub:{hub}:small"
    model = open_model(spec, options={"dim": 7, "mean": [0.5, 0.5, 0.5], **SIZE})
    assert isinstance(model, ForeignModel)
    assert (model.dim, model.height, model.width, model.settings.mean, model.engine) == (7, 16, 24, (0.5, 0.5, 0.5), "torch")
    assert not model.training
    again = open_model(spec, options={"dim": 7, "mean": [0.5, 0.5, 0.5], **SIZE})
    assert model.digest == again.digest  # weights that are drawn are drawn alike
    np.testing.assert_array_equal(model.describe_pixels(_pixels()), again.describe_pixels(_pixels()))
    np.testing.assert_allclose(np.linalg.norm(model.describe_pixels(_pixels()), axis=1), 1, atol=1e-5)
    assert open_model(spec, options={"dim": 6, **SIZE}).digest != model.digest


def test_opening_leaves_the_random_state_as_it_was(code: str) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    open_model(f"{code}:small", options=SIZE)
    assert (torch.rand(3) == expected).all()


def test_other_code_is_another_model(hub: Path) -> None:
    before = open_model(f"hub:{hub}:small", options=SIZE).digest
    moved = hub.parent / "elsewhere" / hub.name
    moved.parent.mkdir()
    hub.rename(moved)
    assert open_model(f"hub:{moved}:small", options=SIZE).digest == before
    with (moved / "hubconf.py").open("a") as stream:
        stream.write("# changed\n")
    assert open_model(f"hub:{moved}:small", options=SIZE).digest != before


NETWORKS = """
    import torch

    class Net(torch.nn.Module):
        def forward(self, x):
            from parts.scales import scale
            return torch.cat([x.mean((2, 3)), scale(x)], 1)
"""


def _folder(path: Path, power: int) -> Path:
    """A torch.hub folder whose entry imports modules that lie beside hubconf.py, one only when it describes."""
    (path / "parts").mkdir(parents=True)
    (path / "hubconf.py").write_text("def net():\n    import parts\n    from networks import Net\n    return Net()\n")
    (path / "networks.py").write_text(textwrap.dedent(NETWORKS))
    (path / "parts" / "__init__.py").write_text("")
    (path / "parts" / "scales.py").write_text(f"def scale(x):\n    return x.mean((2, 3)) ** {power}\n")
    return path


@pytest.fixture
def modules():
    """The modules of Python as they were."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in ("networks", "parts"):
            del sys.modules[name]


@pytest.mark.usefixtures("modules")
def test_two_hub_folders_have_modules_of_one_name(tmp_path: Path) -> None:
    given = {"normalize": False, **SIZE}
    first, second = (open_model(f"hub:{_folder(tmp_path / name, power)}:net", options=given) for name, power in (("a", 2), ("b", 3)))
    for model, power in ((first, 2), (second, 3), (first, 2)):
        found = model.describe_pixels(_pixels())
        np.testing.assert_allclose(found[:, 3:], found[:, :3] ** power, rtol=1e-5)
    assert first.digest != second.digest
    assert not {"networks", "parts", "parts.scales"} & set(sys.modules)
    assert not {str(tmp_path / "a"), str(tmp_path / "b")} & set(sys.path)


@pytest.mark.slow
@pytest.mark.usefixtures("modules")
def test_the_engine_of_a_hub_folder_is_of_its_own_modules(tmp_path: Path) -> None:
    given = {"normalize": False, **SIZE}
    first, second = (open_model(f"hub:{_folder(tmp_path / name, power)}:net", options=given) for name, power in (("a", 2), ("b", 3)))
    for model, power in ((first, 2), (second, 3)):
        found = opening.to_onnx(model).describe_pixels(_pixels())
        np.testing.assert_allclose(found[:, 3:], found[:, :3] ** power, rtol=1e-4)


@pytest.mark.usefixtures("modules")
def test_code_beside_hubconf_is_read_anew_and_is_in_the_digest(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "a", 2)
    given = {"normalize": False, **SIZE}
    before = open_model(f"hub:{folder}:net", options=given)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "other.py").write_text("")
    assert open_model(f"hub:{folder}:net", options=given).digest == before.digest
    (folder / "parts" / "scales.py").write_text("def scale(x):\n    return 10.0 * x.mean((2, 3))\n")
    after = open_model(f"hub:{folder}:net", options=given)
    assert after.digest != before.digest
    found = after.describe_pixels(_pixels())
    np.testing.assert_allclose(found[:, 3:], 10 * found[:, :3], rtol=1e-5)


@pytest.mark.usefixtures("modules")
def test_a_function_is_not_taken_from_a_hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_model(f"hub:{_folder(tmp_path / 'a', 2)}:net", options=SIZE)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "networks.py").write_text("from torch import nn\n\ndef mine():\n    return nn.AdaptiveAvgPool2d(1)\n")
    monkeypatch.syspath_prepend(tmp_path / "own")
    assert open_model("networks:mine", options=SIZE).dim == 3


@pytest.mark.parametrize(
    ("name", "options", "kind", "said"),
    [
        ("absent", {}, UnknownNameError, r"absent"),
        ("broken", {}, InvalidInputError, r"broken was called without options and failed with KeyError: 'no such weights'"),
        ("broken", {"a": 1}, InvalidInputError, r"with the options \{'a': 1\} and failed with KeyError"),
        ("number", {}, InvalidInputError, r"must return a torch module .* returned a int"),
        ("small", {"dims": 3}, InvalidInputError, r"unexpected keyword argument 'dims'"),
        ("small", {"height": "tall"}, InvalidInputError, r"height must be int; got 'tall'"),
        ("small", {"mean": [0.5, 0.5]}, InvalidInputError, r"mean must be a list of 3 numbers; got \[0\.5, 0\.5\]"),
        ("small", {"height": 2, "width": 2}, InvalidInputError, r"must describe an image of 2 x 2 pixels .* Give the size"),
    ],
)
def test_what_goes_wrong_in_code_of_others_is_one_sentence(name: str, options, kind, said: str, code: str, hub: Path) -> None:
    for spec in (f"{code}:{name}", f"hub:{hub}:{name}"):
        with pytest.raises(kind, match=said):
            open_model(spec, options=options)


def test_a_module_that_does_not_import_is_said(tmp_path: Path, code: str) -> None:
    with pytest.raises(UnknownNameError, match=r"no_such_module.* PYTHONPATH"):
        open_model("no_such_module:f")
    (tmp_path / "falls_over.py").write_text("1 / 0\n")
    importlib.invalidate_caches()
    with pytest.raises(InvalidInputError, match=r"'falls_over' must import; it fails with ZeroDivisionError"):
        open_model("falls_over:f")
    with pytest.raises(InvalidInputError, match=r"must be a function"):
        open_model(f"{code}:__name__")


@pytest.mark.parametrize("spec", ["hub:/no/such/folder:entry", "hub:{tmp}:entry", "/no/such/model", "plain", "/no/such/file.onnx"])
def test_missing_things_are_said(spec: str, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"hubconf\.py|no folder or file|No such file"):
        open_model(spec.format(tmp=tmp_path))


@pytest.mark.parametrize("spec", ["hub:", "hub:folder", "hub:folder:"])
def test_a_hub_spec_without_its_parts_is_said(spec: str) -> None:
    with pytest.raises(InvalidInputError, match=r"hub:/path/to/folder:entry"):
        open_model(spec)


def test_an_unknown_engine_is_said(code: str) -> None:
    with pytest.raises(InvalidInputError, match=r"one of auto, torch, onnx; got 'tensorrt'"):
        open_model(f"{code}:small", engine="tensorrt", options=SIZE)  # type: ignore[arg-type]


def test_foreign_models_extract(code: str, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(_pixels(1)[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    model = open_model(f"{code}:small", options=SIZE)
    found = extract(model, Images(tmp_path, ("a.png",)), out=tmp_path / "out")
    assert found.model == model.digest
    np.testing.assert_allclose(found.vectors, model.describe_pixels(_pixels(1)), atol=1e-6)


# -- engines --


def test_the_engine_is_exported_once_kept_by_hash_and_mended(code: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, reference = f"{code}:small", open_model(f"{code}:small", engine="torch", options=SIZE)
    made: list[Path] = []
    export = opening.export_model
    monkeypatch.setattr(opening, "export_model", lambda model, path, **options: (made.append(path), export(model, path, **options))[1])

    assert open_model(spec, options=SIZE, count=opening.EXPORT_PAYS - 1).engine == "torch"
    assert open_model(spec, options=SIZE).engine == "torch"
    first = open_model(spec, options=SIZE, count=opening.EXPORT_PAYS)
    assert (first.engine, first.digest, first.dim, len(made)) == ("onnx", reference.digest, 5, 1)
    np.testing.assert_allclose(first.describe_pixels(_pixels()), reference.describe_pixels(_pixels()), atol=1e-6)
    assert open_model(spec, options=SIZE).engine == "onnx"  # what is kept is taken for few images, too
    assert open_model(spec, engine="torch", options=SIZE).engine == "torch"
    assert len(made) == 1
    (file,) = kept.iterdir()

    whole = file.read_bytes()
    file.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    assert open_model(spec, engine="onnx", options=SIZE).engine == "onnx"
    assert len(made) == 2
    assert [one.name for one in kept.iterdir()] == [file.name]


@pytest.mark.slow
def test_a_kept_engine_that_computes_something_else_is_made_again(code: str, kept: Path) -> None:
    model = open_model(f"{code}:small", engine="torch", options=SIZE)
    file = open_model(f"{code}:small", engine="onnx", options=SIZE).path
    body, header = onnx_models.read_body(file), onnx_models.read_header(file)
    del header["check"], header["body"]
    with torch.no_grad():
        model.network[0].bias.add_(0.5)  # what other code under the same weights would do
    onnx_models.write_model(opening._kept(model), body, {**header, "digest": model.digest})
    np.testing.assert_allclose(opening.to_onnx(model).describe_pixels(_pixels()), model.describe_pixels(_pixels()), atol=1e-6)


def test_a_cache_that_cannot_be_written_is_said(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COVIS_CACHE", str(tmp_path / "file"))
    with pytest.warns(CovisWarning, match=r"COVIS_CACHE"):
        opened = open_model(f"{code}:small", engine="onnx", options=SIZE)
    assert opened.describe_pixels(_pixels()).shape == (3, 5)


def test_a_network_that_does_not_export_is_run_by_torch(code: str, kept: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"must be able to export code_of_mine:by_value"):
        open_model(f"{code}:by_value", engine="onnx", options=SIZE)
    with pytest.warns(CovisWarning, match=r"run by torch, not by ONNX Runtime: .*by_value"):
        assert open_model(f"{code}:by_value", options=SIZE, count=10_000).engine == "torch"
    assert not any(kept.iterdir())


def test_without_the_extra_auto_is_torch_and_onnx_names_the_extra(code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name: None)
    assert open_model(f"{code}:small", options=SIZE, count=10_000).engine == "torch"
    with pytest.raises(MissingExtraError, match=r"pip install covis\[onnx\]"):
        open_model(f"{code}:small", engine="onnx", options=SIZE)
    with pytest.raises(MissingExtraError, match=r"pip install covis\[onnx\]"):
        open_model(tmp_path / "any.onnx")


def test_with_a_cuda_device_auto_is_torch(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert open_model(f"{code}:small", options=SIZE, count=10_000).engine == "torch"


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVIS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path("/somewhere/covis/engines")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/covis/engines"
