"""Levels: several maps of one network, other input channels than a photograph's, and the descriptor of them all."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from covis.errors import InvalidInputError
from covis.models import backbones
from covis.models.aggregators import Features, MultiLevel
from covis.models.backbones import Backbone
from covis.models.export import export_model
from covis.models.place import PlaceModel
from covis.models.weights import load_backbone
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
VIT = {"img_size": (32, 48), "depth": 3, "embed_dim": 24}
THREE = ModelSettings(
    backbone="resnet10t", backbone_options=SLIM, height=48, width=64, levels=(2, 3, 4), aggregator="multi-level", mean=(0.5, 0.5, 0.5)
)


def _shapeless(name: str, size: tuple[int, int] = (224, 224), **options: object) -> Backbone:
    """A backbone without values: large networks cost nothing."""
    with torch.device("meta"):
        return Backbone(name, size=size, **options)  # type: ignore[arg-type]


def _pixels(count: int, height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8))


# -- levels --


@torch.no_grad()
def test_the_levels_of_mobilenetv2_are_torchvisions_maps_at_strides_8_16_and_32() -> None:
    torch.manual_seed(0)
    theirs = mobilenet_v2(weights=None).eval()
    ours = Backbone("mobilenetv2", levels=[2, 3, 4], size=(64, 96)).eval()
    state = ours.network.state_dict()  # the same layers in the same order, under other names
    values = [value for name, value in theirs.state_dict().items() if not name.startswith(("features.18", "classifier"))]
    ours.network.load_state_dict(dict(zip(state, values, strict=True)))
    x = torch.rand(1, 3, 64, 96)
    expected, y = [], x
    for number, layer in enumerate(theirs.features):
        y = layer(y)
        if number in (6, 13, 17):
            expected.append(y)
    found = ours(x)
    assert found.token is found.masks is None
    for level, own, stride, channels in zip(found.maps, expected, (8, 16, 32), (32, 96, 320), strict=True):
        assert level.shape == (1, channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(level, own)
    assert ours.channels == (32, 96, 320)
    assert MultiLevel(ours.channels).dim == 448


@pytest.mark.parametrize(
    ("name", "levels", "channels", "strides", "last", "left_out"),
    [
        ("mobilenetv2", (2, 3, 4), (32, 96, 320), (8, 16, 32), "blocks.6", {"classifier", "conv_head", "bn2"}),
        ("mobilenetv2", (2,), (32,), (8,), "blocks.2", {"conv_head", "blocks.3", "blocks.4", "blocks.5", "blocks.6"}),
        ("resnet18", (1, 3), (64, 256), (4, 16), "layer3", {"fc", "layer4"}),
        ("resnet50", (2, 3, 4), (512, 1024, 2048), (8, 16, 32), "layer4", {"fc"}),
        ("mobilenetv3_small_050", (2, 3), (16, 24), (8, 16), "blocks.3", {"conv_head", "blocks.4", "blocks.5"}),
        ("vgg16", (3,), (512,), (8,), "features.22", {"pre_logits", "features.24", "features.28"}),
        ("densenet121", (2, 3), (512, 1024), (8, 16), "features.denseblock3", {"features.denseblock4", "features.norm5"}),
        ("convnext_atto", (0, 2), (40, 160), (4, 16), "stages.2", {"head.fc", "stages.3"}),
        ("swin_tiny_patch4_window7_224", (1, 2), (192, 384), (8, 16), "layers.2", {"layers.3", "norm"}),
        ("dinov2-small", (3, 7), (384, 384), (14, 14), "norm", {"blocks.8", "blocks.11"}),
    ],
)
def test_levels_come_out_at_their_strides_and_what_follows_is_left_out(
    name: str, levels: tuple[int, ...], channels: tuple[int, ...], strides: tuple[int, ...], last: str, left_out: set[str]
) -> None:
    backbone = _shapeless(name, levels=levels)
    maps = backbone(torch.empty(2, 3, 224, 224, device="meta")).maps
    assert backbone.channels == tuple(one.shape[1] for one in maps) == channels
    assert tuple(224 // one.shape[2] for one in maps) == tuple(224 // one.shape[3] for one in maps) == strides
    assert (backbone.levels, backbone.stages[-1], backbone.has_token) == (levels, last, False)
    assert left_out <= set(backbone.left_out)
    gone = tuple(f"{part}." for part in backbone.left_out)
    assert not [key for key in backbone.network.state_dict() if key.startswith(gone)]


@torch.no_grad()
@pytest.mark.parametrize(("name", "options", "level"), [("resnet10t", SLIM, 4), ("vit_tiny_patch16_224", VIT, 2)])
def test_the_last_level_is_the_map_that_comes_out_without_levels(name: str, options: dict[str, object], level: int) -> None:
    whole, levels = (Backbone(name, options=options, size=(32, 48), levels=one).eval() for one in ((), (0, level)))
    levels.load_state_dict(whole.state_dict())
    x = torch.rand(2, 3, 32, 48)
    torch.testing.assert_close(levels(x).maps[-1], whole(x).maps[-1])
    assert levels.stages == whole.stages


@torch.no_grad()
def test_every_level_of_a_transformer_passes_its_last_normalisation() -> None:
    backbone = Backbone("vit_tiny_patch16_224", options=VIT, size=(32, 48), levels=(0, 2)).eval()
    assert backbone.stages == ("patch_embed", "blocks.0", "blocks.1", "blocks.2", "norm")
    for level in backbone(torch.rand(1, 3, 32, 48)).maps:
        assert level.shape == (1, 24, 2, 3)
        torch.testing.assert_close(level.mean(dim=1), torch.zeros(1, 2, 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(level.var(dim=1, correction=0), torch.ones(1, 2, 3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_without_levels_and_with_three_channels_a_backbone_is_what_timm_makes(name: str) -> None:
    torch.manual_seed(5)
    theirs = backbones.timm.create_model(name, num_classes=0).eval()
    torch.manual_seed(5)
    ours = Backbone(name, channels_in=3, levels=()).eval()
    state = theirs.state_dict()
    own = ours.network.state_dict()
    assert [key for key in state if key in own] == list(own)
    assert all(torch.equal(value, state[key]) for key, value in own.items())
    x = torch.rand(1, 3, 224, 224)
    features = theirs.forward_features(x)
    maps = ours(x).maps
    assert len(maps) == 1
    expected = features[:, 1:].transpose(1, 2).reshape(maps[0].shape) if name.startswith("vit") else features
    assert torch.equal(maps[0], expected)


def test_a_state_dict_of_the_whole_network_fills_a_network_of_levels(tmp_path: Path) -> None:
    whole = backbones.timm.create_model("mobilenetv3_small_050", num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = Backbone("mobilenetv3_small_050", levels=(1, 2))
    load_backbone(backbone, tmp_path / "whole.pth")
    assert sum(one.numel() for one in backbone.parameters()) < sum(one.numel() for one in whole.parameters()) / 50
    assert torch.equal(backbone.network.blocks[1][1].conv_dw.weight, whole.blocks[1][1].conv_dw.weight)
    del (state := whole.state_dict())["blocks.1.0.conv_pw.weight"]
    torch.save(state, tmp_path / "partial.pth")
    with pytest.raises(InvalidInputError, match=r"missing: blocks\.1\.0\.conv_pw\.weight"):
        load_backbone(backbone, tmp_path / "partial.pth")


def test_stages_of_a_network_of_levels_freeze_and_every_weight_learns() -> None:
    backbone = Backbone("mobilenetv3_small_050", levels=(1, 2))
    assert backbone.stages == ("conv_stem", "bn1", "blocks.0", "blocks.1")
    sum(one.square().sum() for one in backbone(torch.rand(2, 3, 64, 64)).maps).backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []
    backbone.freeze("blocks.0")
    assert {key.rpartition("blocks.")[2][:1] for key, one in backbone.named_parameters() if one.requires_grad} == {"1"}
    assert copy.deepcopy(backbone).frozen[-1] is not backbone.frozen[-1]


@pytest.mark.parametrize("levels", [(5,), (-1,), (3, 2), (2, 2), (0, 1, 7), ("2",), (1.0,)])
def test_levels_that_are_not_there_or_not_in_order_are_refused(levels: tuple[int, ...]) -> None:
    said = r"levels of 'resnet10t' must be numbers from 0 to 4, ascending, each once; got .* Its levels are 0 \(16 channels, stride 2\), 1"
    with pytest.raises(InvalidInputError, match=said):
        Backbone("resnet10t", options=SLIM, levels=levels)


def test_a_network_that_has_no_levels_or_does_not_give_them_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"into the maps of the levels \[1\]; it does not"):
        _shapeless("hiera_tiny_224", levels=(1,))
    monkeypatch.setattr(backbones.timm, "create_model", lambda *_args, **_options: nn.Conv2d(3, 4, 3))
    with pytest.raises(InvalidInputError, match=r"Levels need a network of timm's .*; 'resnet18' has none"):
        Backbone("resnet18", levels=(1,))


# -- other channels than red, green and blue --


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("resnet18", {}, "conv1.weight"),
        ("resnet10t", SLIM, "conv1.0.weight"),
        ("resnet10t", {"stem_type": ""}, "conv1.weight"),  # timm goes on saying conv1.0
        ("mobilenetv2", {}, "conv_stem.weight"),
        ("vit_tiny_patch16_224", {}, "patch_embed.proj.weight"),
    ],
)
def test_a_network_reads_as_many_channels_as_it_is_told(name: str, options: dict[str, object], first: str) -> None:
    backbone = _shapeless(name, options=options, channels_in=6)
    assert backbone.begun_anew == (first,)
    assert backbone.network.state_dict()[first].shape[1] == backbone.channels_in == 6
    assert backbone(torch.empty(1, 6, 224, 224, device="meta")).maps[-1].shape[1] == backbone.channels[-1]
    assert _shapeless(name, options=options).begun_anew == ()


def test_channels_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 channel; got 0"):
        Backbone("resnet18", channels_in=0)


def test_pretrained_weights_fill_all_but_the_first_convolution_which_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    create = backbones.timm.create_model

    def created(name: str, *, pretrained: bool, **options: object) -> nn.Module:
        assert not (pretrained and "in_chans" in options)  # timm would sum or repeat the weights of red, green and blue
        network: nn.Module = create(name, **options)
        if pretrained:
            for value in network.state_dict().values():
                value.fill_(7)
        return network

    monkeypatch.setattr(backbones.timm, "create_model", created)

    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        backbone = Backbone("resnet10t", options=SLIM, pretrained=True, channels_in=6)
        found: dict[str, torch.Tensor] = backbone.network.state_dict()
        return found

    one, again, other = made(1), made(1), made(2)
    assert one["conv1.0.weight"].shape == (6, 6, 3, 3)
    assert 0.01 < one["conv1.0.weight"].std() < 1
    assert torch.equal(one["conv1.0.weight"], again["conv1.0.weight"])
    assert not torch.equal(one["conv1.0.weight"], other["conv1.0.weight"])
    assert all((value == 7).all() for key, value in one.items() if key != "conv1.0.weight")


def test_a_file_of_a_network_of_photographs_fills_all_but_the_first_convolution(tmp_path: Path) -> None:
    state = Backbone("resnet10t", options=SLIM).network.state_dict()
    torch.save(state, tmp_path / "rgb.pth")
    six = Backbone("resnet10t", options=SLIM, channels_in=6)
    before = six.network.conv1[0].weight.clone()
    load_backbone(six, tmp_path / "rgb.pth")
    assert torch.equal(six.network.conv1[0].weight, before)
    assert all(torch.equal(value, state[key]) for key, value in six.network.state_dict().items() if key != "conv1.0.weight")

    torch.save(six.network.state_dict(), tmp_path / "six.pth")  # of as many channels: all is loaded
    other = Backbone("resnet10t", options=SLIM, channels_in=6)
    load_backbone(other, tmp_path / "six.pth")
    assert torch.equal(other.network.conv1[0].weight, before)
    with pytest.raises(InvalidInputError, match=r"of another shape: conv1\.0\.weight \(6, 6, 3, 3\) for \(6, 3, 3, 3\)"):
        load_backbone(Backbone("resnet10t", options=SLIM), tmp_path / "six.pth")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv1.0.weight": torch.zeros(4, 3, 3, 3)}, r"of another shape: conv1\.0\.weight"),
        ({"conv1.0.weight": torch.zeros(6, 3, 5, 5)}, r"of another shape: conv1\.0\.weight"),
        ({"conv1.0.weight": None}, r"missing: conv1\.0\.weight"),
        ({"layer1.0.conv1.weight": torch.zeros(8, 4, 3, 3)}, r"of another shape: layer1\.0\.conv1\.weight"),
        ({"conv2.weight": torch.zeros(1)}, r"not in the network: conv2\.weight"),
    ],
)
def test_nothing_but_the_first_convolutions_input_channels_may_differ(
    change: dict[str, torch.Tensor | None], said: str, tmp_path: Path
) -> None:
    state = {**Backbone("resnet10t", options=SLIM).network.state_dict(), **change}
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "changed.pth")
    with pytest.raises(InvalidInputError, match=said):
        load_backbone(Backbone("resnet10t", options=SLIM, channels_in=6), tmp_path / "changed.pth")


@pytest.mark.skipif("COVIS_DATA" not in os.environ, reason="needs COVIS_DATA")
def test_real_weights_fill_both_branches_of_structvpr() -> None:
    path = Path(os.environ["COVIS_DATA"]) / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    options = {"num_classes": 1001, "pad_type": "same"}
    rgb, seg = (Backbone("mobilenetv2", options=options, levels=(2, 3, 4), channels_in=channels) for channels in (3, 6))
    before = seg.network.conv_stem.weight.clone()
    load_backbone(rgb, path)
    load_backbone(seg, path)
    own, other = rgb.network.state_dict(), seg.network.state_dict()
    assert {key for key in own if own[key].shape != other[key].shape or not torch.equal(own[key], other[key])} == {"conv_stem.weight"}
    assert torch.equal(seg.network.conv_stem.weight, before)


# -- the descriptor of several levels --


@pytest.mark.parametrize("pool", ["gem", "average", "max"])
def test_each_level_counts_alike(pool: str) -> None:
    module = MultiLevel((4, 6, 3), pool=pool)  # type: ignore[arg-type]
    maps = tuple(torch.rand(2, channels, size, 2 * size) + 0.1 for channels, size in ((4, 8), (6, 4), (3, 1)))
    parts = module(Features(maps)).split([4, 6, 3], dim=1)
    for part, level in zip(parts, maps, strict=True):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))
        positions = level.flatten(2)
        pooled = {"gem": (positions**3).mean(2) ** (1 / 3), "average": positions.mean(2), "max": positions.amax(2)}[pool]
        torch.testing.assert_close(part, pooled / pooled.norm(dim=1, keepdim=True))
    assert len(list(module.parameters())) == (3 if pool == "gem" else 0)


def test_a_level_that_is_scaled_changes_nothing_and_an_unknown_pooling_is_refused() -> None:
    module, maps = MultiLevel((4, 6)), (torch.rand(1, 4, 5, 5) + 1, torch.rand(1, 6, 3, 3) + 1)
    torch.testing.assert_close(module(Features((100 * maps[0], maps[1]))), module(Features(maps)))
    with pytest.raises(InvalidInputError, match="one of gem, average, max; got 'netvlad'"):
        MultiLevel((4,), pool="netvlad")  # type: ignore[arg-type]


def test_a_model_of_levels_describes_and_one_of_a_single_map_too() -> None:
    model = PlaceModel(THREE, seed=1)
    assert model.dim == sum(model.backbone.channels)
    found = model.describe_pixels(_pixels(3))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(model.describe_pixels(_pixels(3)[1:2])[0], found[1], atol=1e-6)
    for start, stop in ((0, model.backbone.channels[0]), (sum(model.backbone.channels[:2]), model.dim)):
        np.testing.assert_allclose(np.linalg.norm(found[:, start:stop], axis=1), 3**-0.5, atol=1e-6)
    single = PlaceModel(dataclasses.replace(THREE, levels=()), seed=1)
    assert single.describe_pixels(_pixels(2)).shape == (2, single.backbone.channels[-1])


@pytest.mark.slow
@pytest.mark.parametrize("aggregator", ["multi-level", "label-features"])
def test_a_model_of_levels_is_exported(aggregator: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = PlaceModel(dataclasses.replace(THREE, aggregator=aggregator), seed=1)
    exported = export_model(model, tmp_path / "levels.onnx")
    pixels = _pixels(3, 64, 80)
    np.testing.assert_allclose(exported.describe_pixels(pixels), model.describe_pixels(pixels), atol=1e-5)
