"""Checkpoints of GCL's reference implementation: our model of one describes as the reference does.

Two oracles: a network built here from torchvision as the reference's README describes it, always; and the reference's own
code, where $COVIS_GCL_REFERENCE names a checkout or a git directory of marialeyvallina/generalized_contrastive_loss.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms
from typer.testing import CliRunner

from covis import cli
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.models import checkpoints
from covis.models.backbones import BACKBONES, Backbone
from covis.models.gcl_checkpoints import convert_gcl_checkpoint, write_gcl_checkpoint
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SLOW = {"vgg16", "resnet34", "resnet50", "resnet152", "resnext101_32x8d_wsl", "densenet121", "densenet161"}
CONVERTED = [name for name in BACKBONES if not name.startswith("dinov2")]
IN_REFERENCE = {name: name for name in CONVERTED if name != "mobilenetv2"} | {"resnext101_32x8d_wsl": "resnext"}
POOLS = {"average": "avg", "max": "max", "gem": "GeM"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _marked(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]


class Oracle(nn.Module):
    """Trunk, pooling and norm, said in plain tensor operations; its entries are named as the reference's."""

    def __init__(self, backbone: nn.Module, pool: str, *, norm: bool = True) -> None:
        super().__init__()
        self.backbone, self.kind, self.norm = backbone, pool, norm
        self.pool = nn.Module()
        if pool == "gem":
            self.pool.p = nn.Parameter(torch.full((1,), 2.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(x).flatten(2)
        if self.kind == "average":
            found = maps.mean(2)
        elif self.kind == "max":
            found = maps.max(2).values
        else:
            found = (maps.clamp(min=1e-6) ** self.pool.p).mean(2) ** (1 / self.pool.p)
        return found / found.norm(dim=1, keepdim=True) if self.norm else found


def _network(name: str) -> nn.Module:
    if name == "resnext101_32x8d_wsl":
        return torchvision.models.resnext101_32x8d(weights=None)
    if name == "mobilenetv2":
        return torchvision.models.mobilenet_v2(weights=None)
    return torchvision.models.get_model(name, weights=None)


def _trunk(name: str) -> nn.Module:
    network = _network(name)
    return nn.Sequential(*list(network.children())[:-2]) if name.startswith("res") else network.features


@torch.no_grad()
def _stirred(network: nn.Module) -> nn.Module:
    """BatchNorm as after training: scales that are not 1, and running statistics that are those of images.

    Small scales and no near-zero variances, as trained networks have them: a deep random network amplifies the last
    bits of its input else.
    """
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 0.1 + 0.05)
        module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
        module.momentum = 1.0  # what the one batch says
    if norms:
        network.train()(_normalised(_pixels()))
    for module in norms:
        module.running_var.clamp_(min=float(module.running_var.mean()))
    return network.eval()


def _pixels(height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    return torch.stack([transforms.Normalize(MEAN, STD)(one.float() / 255) for one in pixels])


def _saved(network: nn.Module, path: Path) -> Path:
    """As the reference's training leaves it."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 25)
    parts = {"model_state_dict": network.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
    torch.save({"step": 51, **parts}, path)
    return path


@torch.inference_mode()
def _compare(network: nn.Module, path: Path, name: str, aggregator: str) -> None:
    model = convert_gcl_checkpoint(path, backbone=name, aggregator=aggregator, height=64, width=96)
    pixels = _pixels()
    expected, found = network(_normalised(pixels)), model(pixels)
    assert found.shape == expected.shape == (3, model.dim)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected[0] - expected[1]).norm() > 1e-3  # the images are told apart, so the comparison says something


# -- against torchvision --


@pytest.mark.parametrize("name", _marked(CONVERTED))
def test_descriptors_are_those_of_the_torchvision_trunk(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = _stirred(_trunk(name))
    for aggregator in POOLS:
        network = Oracle(trunk, aggregator).eval()
        _compare(network, _saved(network, tmp_path / "gcl.pth"), name, aggregator)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return _stirred(_trunk("resnet18"))


@torch.inference_mode()
def test_without_the_norm_they_are_equal_too(resnet: nn.Module, tmp_path: Path) -> None:
    network = Oracle(resnet, "gem", norm=False)
    model = convert_gcl_checkpoint(
        _saved(network, tmp_path / "a.pth"), backbone="resnet18", aggregator="gem", normalize=False, height=64, width=96
    )
    expected = network(_normalised(_pixels()))
    torch.testing.assert_close(model(_pixels()), expected, rtol=0, atol=1e-5 * float(expected.norm(dim=1).max()))
    assert not model.settings.normalize


@pytest.mark.parametrize(("resize", "height", "width"), [("pil", 480, 640), ("pil-crop", 224, 224)])
@torch.inference_mode()
def test_they_are_equal_from_the_image_file_on(resnet: nn.Module, tmp_path: Path, resize: Any, height: int, width: int) -> None:
    network = Oracle(resnet, "gem")
    coarse = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((800, 601), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", quality=90)
    resized = [transforms.Resize((height, width))] if resize == "pil" else [transforms.Resize(height), transforms.CenterCrop(height)]
    steps = transforms.Compose([*resized, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    with Image.open(tmp_path / "photo.jpg") as photo:
        expected = network(steps(photo.convert("RGB"))[None]).numpy()
    model = convert_gcl_checkpoint(
        _saved(network, tmp_path / "a.pth"), backbone="resnet18", aggregator="gem", height=height, width=width, resize=resize
    )
    np.testing.assert_allclose(model.describe([tmp_path / "photo.jpg"]), expected, rtol=0, atol=1e-5)


# -- against the reference itself --


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """The reference's `create_model`, run from its own files, with random weights where it would download some."""
    place = os.environ.get("COVIS_GCL_REFERENCE", "")
    if not place or not Path(place).is_dir():
        pytest.skip("set COVIS_GCL_REFERENCE to a checkout or git directory of marialeyvallina/generalized_contrastive_loss")
    monkeypatch.setitem(sys.modules, "src", types.ModuleType("src"))
    monkeypatch.setitem(sys.modules, "src.datasets", types.ModuleType("src.datasets"))  # what reads files is not asked
    for name in ("networks", "factory"):
        module = types.ModuleType(f"src.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(_source(Path(place), f"src/{name}.py"), f"src/{name}.py", "exec"), module.__dict__)
    factory = sys.modules["src.factory"]
    random = {name: lambda pretrained, name=name: torchvision.models.get_model(name, weights=None) for name in CONVERTED}
    monkeypatch.setattr(factory, "models", types.SimpleNamespace(**random))
    monkeypatch.setattr(torch.hub, "load", lambda *_: torchvision.models.resnext101_32x8d(weights=None))
    return factory.create_model


def _source(place: Path, name: str) -> str:
    if (place / name).is_file():
        return (place / name).read_text()
    return subprocess.run(["git", f"--git-dir={place}", "show", f"HEAD:{name}"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", _marked(list(IN_REFERENCE)))
def test_descriptors_are_those_of_the_reference(name: str, tmp_path: Path, reference: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    whole = _stirred(reference(IN_REFERENCE[name], "GeM", norm="L2", mode="single"))
    for aggregator, pool in POOLS.items():
        network = type(whole)(whole.backbone, pool, norm="L2").eval()
        _compare(network, _saved(network, tmp_path / "gcl.pth"), name, aggregator)


@pytest.mark.parametrize(
    ("name", "stage"),
    [("resnet18", "layer2"), ("resnext101_32x8d_wsl", "layer2"), ("vgg16", "features.16"), ("densenet121", "features.transition2")],
)
def test_freezing_up_to_these_stages_is_what_the_references_last_layer_2_does(
    name: str, stage: str, reference: Callable[..., nn.Module]
) -> None:
    with torch.device("meta"):
        theirs = reference(IN_REFERENCE[name], "avg", last_layer=2, mode="single").backbone
        ours = Backbone(name)
    ours.freeze(stage)
    learning = [[tuple(one.shape) for one in network.parameters() if one.requires_grad] for network in (theirs, ours)]
    assert sorted(learning[0]) == sorted(learning[1]) != []


# -- the file --


def _state(resnet: nn.Module) -> dict[str, torch.Tensor]:
    return dict(Oracle(resnet, "gem").state_dict())


def _converted(path: Path, **options: Any) -> Any:
    return convert_gcl_checkpoint(path, **{"backbone": "resnet18", "aggregator": "gem", "height": 64, "width": 96} | options)


def test_every_way_in_which_such_files_are_written_is_read(resnet: nn.Module, tmp_path: Path) -> None:
    state = _state(resnet)
    ways = {
        "bare": state,
        "wrapped": {"state_dict": state},
        "parallel": {"model_state_dict": {f"module.{name}": value for name, value in state.items()}},
        "old": {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
    }
    expected = None
    for way, content in ways.items():
        torch.save(content, tmp_path / f"{way}.pth")
        model = _converted(tmp_path / f"{way}.pth")
        assert not model.training
        assert model.aggregator.p.item() == pytest.approx(2.7)
        found = model(_pixels()).detach()
        expected = found if expected is None else expected
        assert (found == expected).all()
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in state.items()}, tmp_path / "half.pth")
    half = _converted(tmp_path / "half.pth")
    assert {value.dtype for value in half.parameters()} == {torch.float32}
    torch.testing.assert_close(half(_pixels()).detach(), expected, rtol=0, atol=5e-3)


def test_a_converted_model_is_a_model_like_any_other(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(_state(resnet), tmp_path / "gcl.pth")
    model = _converted(tmp_path / "gcl.pth")
    back = checkpoints.load(checkpoints.save(model, tmp_path / "model"))
    assert back.digest == model.digest
    assert back.history["converted"]["file"] == "gcl.pth"
    assert back.settings.backbone == "resnet18"


def test_entries_that_do_not_fit_are_named(resnet: nn.Module, tmp_path: Path) -> None:
    def refused(state: dict[str, torch.Tensor], match: str, **options: Any) -> None:
        torch.save(state, tmp_path / "bad.pth")
        with pytest.raises(InvalidInputError, match=match):
            _converted(tmp_path / "bad.pth", **options)

    state = _state(resnet)
    refused({name: value for name, value in state.items() if name != "backbone.0.weight"}, r"missing: backbone\.network\.conv1\.weight\.")
    refused(state | {"fc.weight": torch.zeros(1)}, r"not in the network: fc\.weight\.")
    refused(state | {"backbone.9.weight": torch.zeros(1)}, r"not in the network: backbone\.9\.weight\.")
    refused(state | {"backbone.1.bias": torch.zeros(3)}, r"of another shape: backbone\.network\.bn1\.bias \(3,\) for \(64,\)")
    refused(state, r"not in the network: aggregator\.p", aggregator="max")
    refused({name: value for name, value in state.items() if name != "pool.p"}, r"missing: aggregator\.p")
    refused(state, r"with the aggregator 'gem' entry by entry; missing: .* and \d+ more", backbone="resnet34")
    refused(state, r"one of the backbones vgg16, .*mobilenetv2; got 'dinov2-small'", backbone="dinov2-small")
    refused(state, "got 'resnet50d'", backbone="resnet50d")


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"step": 3}, tmp_path / "plain.pth")
    for name in ("text.pth", "plain.pth"):
        with pytest.raises(DamagedFileError, match=name.replace(".", r"\.")):
            _converted(tmp_path / name)
    with pytest.raises(MissingFileError, match=r"absent\.pth"):
        _converted(tmp_path / "absent.pth")


def test_the_command_writes_the_model(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(_state(resnet), tmp_path / "gcl.pth")
    options = ["--backbone", "resnet18", "--aggregator", "gem", "--height", "64", "--width", "64", "--resize", "pil-crop", "--no-normalize"]
    arguments = ["convert", "gcl-checkpoint", str(tmp_path / "gcl.pth"), *options, "--out", str(tmp_path / "model")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "model")]
    settings = checkpoints.load(tmp_path / "model").settings
    assert (settings.height, settings.width, settings.resize, settings.normalize) == (64, 64, "pil-crop", False)
    assert CliRunner().invoke(cli.app, arguments).exit_code == 1  # nothing is overwritten unasked


@pytest.mark.parametrize("name", _marked(list(IN_REFERENCE)))
@torch.inference_mode()
def test_what_is_written_is_loaded_by_a_network_as_the_reference_builds_it(name: str, tmp_path: Path) -> None:
    """Strictly, every entry; and it describes as the model does."""
    aggregator = {"vgg16": "average", "densenet121": "max"}.get(name, "gem")
    model = PlaceModel(ModelSettings(backbone=name, aggregator=aggregator, height=64, width=96, pretrained=False), seed=3).eval()
    path = write_gcl_checkpoint(model, tmp_path / "net.pth")
    network = Oracle(_trunk(name), aggregator)
    network.load_state_dict(torch.load(path, weights_only=True)["model_state_dict"])
    pixels = _pixels()
    torch.testing.assert_close(network.eval()(_normalised(pixels)), model(pixels), rtol=0, atol=1e-5)
    back = convert_gcl_checkpoint(path, backbone=name, aggregator=aggregator, height=64, width=96)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", _marked(list(IN_REFERENCE)))
def test_the_references_own_code_loads_what_is_written(name: str, tmp_path: Path, reference: Callable[..., nn.Module]) -> None:
    model = PlaceModel(ModelSettings(backbone=name, aggregator="gem", height=64, width=96, pretrained=False), seed=3)
    path = write_gcl_checkpoint(model, tmp_path / "net.pth")
    with torch.device("meta"):
        theirs = reference(IN_REFERENCE[name], "GeM", norm="L2", mode="single")
    state = torch.load(path, weights_only=True)["model_state_dict"]
    assert {key: value.shape for key, value in theirs.state_dict().items()} == {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize(("options", "said"), [
    ({"backbone": "mobilenetv2"}, r"one of its backbones \(res, vgg, densenet…\).*is mobilenetv2 with gem"),
    ({"backbone": "mobilenetv3_small_050"}, "is mobilenetv3_small_050"),
    ({"backbone": "resnet18", "aggregator": "netvlad"}, "resnet18 with netvlad"),
    ({"backbone": "resnet18", "mean": (0.5, 0.5, 0.5)}, r"the model's are \(0\.5, 0\.5, 0\.5\)"),
])  # fmt: skip
def test_models_that_the_reference_does_not_have_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"aggregator": "gem", "height": 64, "width": 64, "pretrained": False} | options
    with pytest.raises(InvalidInputError, match=said):
        write_gcl_checkpoint(PlaceModel(ModelSettings(**given), seed=0), tmp_path / "net.pth")
    assert not (tmp_path / "net.pth").exists()


def test_the_command_writes_a_checkpoint_and_says_how_to_load_it(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(_state(resnet), tmp_path / "gcl.pth")
    checkpoints.save(_converted(tmp_path / "gcl.pth"), tmp_path / "model")
    arguments = ["convert", "to-gcl-checkpoint", str(tmp_path / "model"), "--out", str(tmp_path / "again.pth")]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "again.pth")]
    assert "--backbone resnet18 --pool GeM --f_length 512 --image_size " in done.stderr
    stored = torch.load(tmp_path / "again.pth", weights_only=True)["model_state_dict"]
    assert {name: tuple(value.shape) for name, value in stored.items()} == {name: tuple(v.shape) for name, v in _state(resnet).items()}
    assert isinstance(CliRunner().invoke(cli.app, arguments).exception, OutputExistsError)
