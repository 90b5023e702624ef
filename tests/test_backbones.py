"""Backbones: those of the table and any other of timm's; what comes out, in which stages, and which of them learn."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from covis.errors import InvalidInputError, MissingFileError, UnknownNameError
from covis.models import backbones
from covis.models.backbones import BACKBONES, Backbone, Origin
from covis.models.batch_norm import set_batch_norm
from covis.models.place import PlaceModel
from covis.models.weights import load_backbone
from covis.settings import ModelSettings

SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
SETTINGS = ModelSettings(backbone="resnet10t", backbone_options=SLIM, height=32, width=48, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PAGE = Path(__file__).parents[1] / "docs" / "models.md"
LARGE = ("resnet152", "resnext101_32x8d_wsl", "densenet161", "dinov2-large")
VIT = {"img_size": (32, 48), "depth": 2, "embed_dim": 24}

pytestmark = pytest.mark.usefixtures("one_thread")


def _shapeless(name: str, size: tuple[int, int] = (224, 224)) -> Backbone:
    """A backbone without values: large networks cost nothing."""
    with torch.device("meta"):
        return Backbone(name, size=size)


# -- the table --


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in BACKBONES])
def test_the_page_says_what_comes_out(name: str) -> None:
    row = re.search(rf"^\| `{re.escape(name)}` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"docs/models.md has no row for {name}"
    timm_name, width, stages = (cell.strip(" `") for cell in row.group(1).split("|")[:3])
    backbone = _shapeless(name)
    features = backbone(torch.empty(2, 3, 224, 224, device="meta"))
    assert timm_name == BACKBONES[name].timm
    assert {int(width)} == {features.maps[-1].shape[1], backbone.channels[-1], backbone.network.num_features}
    assert list(backbone.stages) == _listed(stages)
    assert (features.token is not None) == backbone.has_token == name.startswith("dinov2")


def _listed(cell: str) -> list[str]:
    """`a`, `b.0` … `b.3` as the names that it stands for."""
    names: list[str] = []
    for part in cell.replace("`", "").split(", "):
        first, _, last = (one.strip() for one in part.partition("…"))
        stem, number = re.fullmatch(r"(.*?)(\d*)", first).groups()  # type: ignore[union-attr]
        names += [f"{stem}{i}" for i in range(int(number), int(last.removeprefix(stem)) + 1)] if last else [first]
    return names


def test_every_entry_has_weights_in_timm_and_says_what_it_is() -> None:
    for origin in BACKBONES.values():
        assert backbones.timm.is_model_pretrained(origin.timm)
    assert str(BACKBONES["densenet161"]) == "timm's densenet161.tv_in1k, without the ReLU after the last BatchNorm"
    assert str(BACKBONES["dinov2-base"]) == "timm's vit_base_patch14_dinov2.lvd142m, dynamic_img_size = True"


def test_the_weights_asked_of_the_hub_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def created(name: str, **options: object) -> nn.Module:
        asked.append((name, options["pretrained"]))
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", created)
    for name in ("resnet50", "resnext101_32x8d_wsl", "resnet50.a1_in1k"):
        with pytest.raises(MissingFileError, match="--weights FILE"):
            Backbone(name, pretrained=True)
    assert asked == [("resnet50.tv_in1k", True), ("resnext101_32x8d.fb_wsl_ig1b_ft_in1k", True), ("resnet50.a1_in1k", True)]


def test_the_options_of_the_user_go_before_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Origin("vit_tiny_patch16_224", {"img_size": 224, "depth": 1, "embed_dim": 24})
    monkeypatch.setitem(BACKBONES, "small", small)
    assert len([stage for stage in Backbone("small").stages if stage.startswith("blocks")]) == 1
    assert Backbone("small", options={"img_size": (32, 48)}).network.patch_embed.img_size == (32, 48)


@torch.no_grad()
def test_densenets_of_the_table_end_before_the_relu_and_timms_own_after_it() -> None:
    torch.manual_seed(0)
    ours, timms = Backbone("densenet121", size=(32, 32)).eval(), Backbone("densenet121.tv_in1k", size=(32, 32)).eval()
    timms.load_state_dict(ours.state_dict())
    x = torch.rand(1, 3, 32, 32)
    before, after = ours(x).maps[-1], timms(x).maps[-1]
    assert before.min() < 0
    torch.testing.assert_close(before.relu(), after)


# -- any network of timm's --


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet10t", SLIM),
        ("mobilenetv3_small_050", {}),
        ("vit_tiny_patch16_224", VIT),
        ("swin_tiny_patch4_window7_224", {"img_size": (32, 48), "embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}),
    ],
)
def test_a_backbone_gives_a_map_with_the_channels_it_says(name: str, options: dict[str, object]) -> None:
    backbone = Backbone(name, options=options).eval()
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    features = backbone(x)
    batch, channels, height, width = features.maps[-1].shape
    assert (batch, channels) == (2, backbone.channels[-1])
    assert width > height or (height, width) == (1, 2)
    assert (features.token is not None) == backbone.has_token == name.startswith("vit")


def test_the_tokens_of_a_transformer_lie_where_their_patches_lay() -> None:
    backbone = Backbone("vit_tiny_patch16_224", options=VIT | {"depth": 0}).eval()
    x = torch.zeros(1, 3, 32, 48)
    changed = x.clone()
    changed[..., 16:32, 32:48] = 1.0  # the patch of row 1, column 2
    moved = (backbone(changed).maps[-1] - backbone(x).maps[-1]).abs().sum(dim=1)[0]
    assert [tuple(i) for i in torch.nonzero(moved > 1e-6).tolist()] == [(1, 2)]


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto", "resnet10t"])
def test_every_weight_that_is_kept_learns(name: str) -> None:
    backbone = Backbone(name)
    backbone(torch.rand(2, 3, 64, 64)).maps[-1].square().sum().backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
def test_the_fully_connected_layers_of_vgg_are_not_kept_and_a_whole_state_dict_still_loads(tmp_path: Path) -> None:
    whole = backbones.timm.create_model("vgg16", num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "vgg.pth")
    backbone = Backbone("vgg16")
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 14_714_688
    load_backbone(backbone, tmp_path / "vgg.pth")
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(backbone(x).maps[-1], whole.features(x))


def test_a_state_dict_of_the_whole_network_loads(tmp_path: Path) -> None:
    whole = backbones.timm.create_model("mobilenetv3_small_050", num_classes=10)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = Backbone("mobilenetv3_small_050")
    assert {"conv_head", "classifier"} <= set(backbone.left_out)
    load_backbone(backbone, tmp_path / "whole.pth")
    assert (backbone.network.conv_stem.weight == whole.conv_stem.weight).all()


# -- what cannot be --


def test_an_unknown_backbone_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        Backbone("resnet5O")
    with pytest.raises(UnknownNameError, match="Did you mean 'dinov2-small'"):
        Backbone("dinov2_small")


def test_options_that_the_backbone_does_not_take_are_named() -> None:
    with pytest.raises(InvalidInputError, match="does not take the options"):
        Backbone("resnet10t", options={"colour": "blue"})


def test_a_size_that_patches_do_not_divide_is_refused_at_once() -> None:
    said = r"'dinov2-small' cuts an image into patches of 14 x 14 pixels.* got 480 x 640\. The nearest is 476 x 644"
    with pytest.raises(InvalidInputError, match=said):
        _shapeless("dinov2-small", (480, 640))
    assert _shapeless("dinov2-small", (56, 70))(torch.empty(1, 3, 56, 70, device="meta")).maps[-1].shape == (1, 384, 4, 5)
    with pytest.raises(InvalidInputError, match="multiples of that; got 30 x 48"):
        PlaceModel(dataclasses.replace(SETTINGS, backbone="vit_tiny_patch16_224", backbone_options=VIT, height=30))


@pytest.mark.parametrize(("name", "size"), [("vit_tiny_patch16_224", (480, 640)), ("efficientvim_m1", (224, 224))])
def test_a_network_that_gives_no_maps_for_such_images_is_refused_at_once(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match=f"must turn an image of {size[0]} x {size[1]} pixels into feature maps; it does not"):
        _shapeless(name, size)


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(MissingFileError, match="--weights FILE"):
        PlaceModel(dataclasses.replace(SETTINGS, pretrained=True))


def test_a_model_without_hub_weights_says_so() -> None:
    with pytest.raises(InvalidInputError, match="no pretrained weights"):
        Backbone(
            next(name for name in backbones.timm.list_models("resnet*") if not backbones.timm.is_model_pretrained(name)), pretrained=True
        )


# -- stages, and which of them learn --


def _learning(backbone: Backbone) -> set[str]:
    return {name for name, parameter in backbone.network.named_parameters() if parameter.requires_grad}


def test_a_frozen_stage_does_not_learn_and_later_ones_do() -> None:
    backbone = Backbone("resnet10t", options=SLIM)
    everything = _learning(backbone)
    backbone.freeze("layer2")
    assert {name.partition(".")[0] for name in _learning(backbone)} == {"layer3", "layer4"}
    assert [type(stage).__name__ for stage in backbone.frozen] == [
        "Sequential",
        "BatchNorm2d",
        "ReLU",
        "MaxPool2d",
        "Sequential",
        "Sequential",
    ]
    backbone.freeze("all")
    assert (_learning(backbone), len(backbone.frozen)) == (set(), len(backbone.stages))
    backbone.freeze("")
    assert (_learning(backbone), backbone.frozen) == (everything, ())


def test_parameters_of_no_stage_belong_to_the_first() -> None:
    backbone = Backbone("vit_tiny_patch16_224", options=VIT)
    assert backbone.stages == ("patch_embed", "blocks.0", "blocks.1", "norm")
    backbone.freeze("patch_embed")
    assert not {name for name in _learning(backbone) if not name.startswith(("blocks", "norm"))}
    assert not backbone.network.pos_embed.requires_grad
    backbone.freeze("blocks.0")
    assert {name.rpartition(".")[0].split(".")[1] for name in _learning(backbone) if name.startswith("blocks")} == {"1"}


def test_every_stage_of_the_table_can_be_frozen_up_to() -> None:
    for name in ("vgg16", "resnet18", "mobilenetv2", "dinov2-small"):
        backbone = _shapeless(name)
        left = len(_learning(backbone))
        for stage in backbone.stages:
            backbone.freeze(stage)
            assert len(_learning(backbone)) <= left
            left = len(_learning(backbone))
        assert left == 0


def test_an_unknown_stage_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no stage called 'layer5'.*: conv1, bn1, act1, maxpool, layer1, layer2, layer3, layer4; or"
    ):
        Backbone("resnet10t", options=SLIM | {"stem_type": ""}).freeze("layer5")


def test_a_copy_is_frozen_as_its_original_is() -> None:
    model = PlaceModel(SETTINGS)
    model.backbone.freeze("layer1")
    copied = copy.deepcopy(model)
    assert copied.backbone.frozen[-1] is copied.backbone.network.layer1
    assert _learning(copied.backbone) == _learning(model.backbone)


# -- BatchNorm --


@pytest.mark.parametrize(
    ("mode", "freeze", "moving"),
    [
        ("train", "", {"bn1", "layer1", "layer2", "layer3", "layer4"}),
        ("train", "layer2", {"layer3", "layer4"}),
        ("train", "all", set()),
        ("eval", "", set()),
        ("eval", "layer2", set()),
        ("paper", "", {"bn1", "layer1", "layer2", "layer3", "layer4"}),
        ("paper", "all", {"bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_the_mode_of_batch_norm_decides_whose_statistics_move(mode: str, freeze: str, moving: set[str]) -> None:
    settings = dataclasses.replace(SETTINGS, backbone_options={name: SLIM[name] for name in ("channels", "zero_init_last")})
    model = PlaceModel(settings)
    model.backbone.freeze(freeze)
    before = {name: value.clone() for name, value in model.backbone.network.named_buffers() if name.endswith("running_mean")}
    set_batch_norm(model.train(), mode)  # type: ignore[arg-type]
    model(torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8))
    after = dict(model.backbone.network.named_buffers())
    moved = {name.partition(".")[0] for name in before if (before[name] != after[name]).any()}
    assert moved - {"conv1"} == moving  # the stem of this network has BatchNorm within conv1


def test_all_kinds_of_batch_norm_are_meant() -> None:
    class Kinds(nn.Module):
        def __init__(self, channels: tuple[int, ...]) -> None:
            super().__init__()
            self.dim = channels[-1]
            self.norms = nn.ModuleList([nn.BatchNorm1d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), nn.LayerNorm(2), nn.Dropout()])

    model = PlaceModel(dataclasses.replace(SETTINGS, backbone="mobilenetv3_small_050", backbone_options={}))
    model.aggregator = Kinds((2,))
    set_batch_norm(model.train(), "eval")
    learning = {type(module).__name__ for module in model.modules() if module.training}
    assert not {name for name in learning if "BatchNorm" in name}
    assert {"LayerNorm", "Dropout"} <= learning
    assert not model.backbone.network.bn1.training  # timm's BatchNormAct2d
    set_batch_norm(model, "train")
    assert all(module.training for module in model.modules())
    with pytest.raises(InvalidInputError, match="one of train, eval, paper; got 'folded'"):
        set_batch_norm(model, "folded")  # type: ignore[arg-type]
