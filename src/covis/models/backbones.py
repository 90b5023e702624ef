"""Backbones: timm's networks without their classifier. The only file that imports timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from torch import nn
from torch.func import functional_call

from covis.errors import InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import suggest
from covis.models.features import Features
from covis.models.levels import check_levels, described_levels, first_convolutions

_TRUNKS = ("features", "blocks", "stages", "layers")  # containers whose children are the stages
_IDLE = (nn.Identity, nn.Dropout)

RGB = 3
"""Channels of a photograph."""


@dataclass(frozen=True)
class Origin:
    """Where a backbone of the table comes from.

    Attributes:
        timm: the model's name in timm, with the tag of its pretrained weights.
        options: keyword arguments of `timm.create_model` that go with it; the user's own go first.
        cut: what is taken away after the network is made, said in words by `end`.
        end: where the network ends, if not where timm's does.
    """

    timm: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cut: Callable[[Any], None] | None = None
    end: str = ""

    def __str__(self) -> str:
        options = "".join(f", {name} = {value}" for name, value in self.options.items())
        return f"timm's {self.timm}{options}{self.end and f', {self.end}'}"


class Backbone(nn.Module):
    """A timm network up to its last feature map, or up to the last of several.

    Parts that never run on the way there (a classifier, the fully connected layers of VGG) are not kept. Which those
    are, and how many channels come out, is asked of the network: it runs once on tensors without values.

    With other than 3 input channels the first convolution begins at random, seeded as any initial weights are, and all
    else takes the pretrained weights.

    Args:
        name: a name of `BACKBONES`, or any timm model name ("resnet50d", "vit_small_patch16_224.augreg_in21k").
        options: keyword arguments of `timm.create_model`. The classifier is not built: `num_classes` has no effect.
        pretrained: take the hub's weights.
        size: (height, width) of the images to come, in pixels; absent, the network's own.
        channels_in: of the images: 3, or as many as an encoded label map has.
        levels: which feature maps come out, as timm numbers them, ascending; empty: the last one alone. Of a transformer
            each passes its last normalisation, and no class token comes out.

    Attributes:
        channels: of the maps that `forward` gives.
        channels_in: as given.
        levels: as given.
        begun_anew: the entries of the state dict that pretrained weights do not fill, if channels_in is not 3.
        has_token: whether it gives a class token too.
        stages: names of the network's stages, from input to output.
        left_out: the parts that a state dict of the whole network has and this one has not.

    Raises:
        UnknownNameError: neither the table nor timm has such a model; the nearest names are suggested.
        InvalidInputError: the model does not take these options, or images of this size, or has not these levels.
        MissingFileError: the hub's weights are not to be had.

    >>> backbone = Backbone("resnet10t")
    >>> backbone.channels, backbone.stages[-2:]
    ((512,), ('layer3', 'layer4'))
    >>> Backbone("resnet10t", levels=(2, 3)).channels
    (128, 256)
    """

    def __init__(
        self,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        size: tuple[int, int] | None = None,
        channels_in: int = 3,
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        origin = BACKBONES.get(name, Origin(name))
        self.channels_in, self.levels = channels_in, tuple(levels)
        self.network = _network(origin.timm, {**origin.options, **(options or {})}, pretrained=pretrained, channels_in=channels_in)
        self.begun_anew = first_convolutions(self.network, channels_in) if channels_in != RGB else ()
        if self.levels:
            check_levels(self.network, name, self.levels)
        if origin.cut:
            origin.cut(self.network)
        features, ran = _rehearsed(self, name, size or _own_size(self.network))
        self.channels: tuple[int, ...] = tuple(one.shape[1] for one in features.maps)
        self.has_token = features.token is not None
        # The last normalisation of a transformer runs after each level: its place is where it ran last.
        self.stages = _stages(self.network, list(dict.fromkeys(reversed(ran)))[::-1] if self.levels else ran)
        idle = _never_ran(self.network, ran, stages=bool(self.levels))
        classifier = self.network.default_cfg.get("classifier") or ()
        self.left_out = tuple(dict.fromkeys([*((classifier,) if isinstance(classifier, str) else classifier), *idle]))
        for child in idle:
            if next(iter(self.network.get_submodule(child).state_dict()), None):
                self.network.set_submodule(child, nn.Identity())
        self._frozen = 0

    def forward(self, x: torch.Tensor) -> Features:
        """(B, channels_in, height, width) float to `Features`: the last map, and the class token of a transformer; or the levels."""
        if self.levels:
            maps = self.network.forward_intermediates(
                x, indices=list(self.levels), norm=True, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            return Features(tuple(maps))
        out = self.network.forward_features(x)
        if out.ndim == 3:
            return self._from_tokens(out, x)
        return Features((out.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else out,))

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """The stages that do not learn."""
        return tuple(self.network.get_submodule(stage) for stage in self.stages[: self._frozen])

    def freeze(self, until: str) -> None:
        """Let the stages up to and including one not learn, and those after it learn.

        Parameters of no stage (a class token, a position embedding) belong to the first. What BatchNorm does in a
        frozen stage is `set_batch_norm`'s matter.

        Args:
            until: a name of `stages`; "": all learn; "all": none does.

        Raises:
            UnknownNameError: there is no such stage; the message lists them.
        """
        ends = {"": 0, "all": len(self.stages), **{stage: number for number, stage in enumerate(self.stages, start=1)}}
        if until not in ends:
            raise UnknownNameError(
                f"The backbone has no stage called {until!r} to freeze up to. "
                f'Its stages, from input to output: {", ".join(self.stages)}; or "all", or "" for none.'
            )
        self._frozen = ends[until]
        for name, parameter in self.network.named_parameters():
            stage = _stage_of(name)
            parameter.requires_grad_((self.stages.index(stage) if stage in self.stages else 0) >= self._frozen)

    def _from_tokens(self, tokens: torch.Tensor, x: torch.Tensor) -> Features:
        """(B, prefix + height * width, channels) to a map and the first prefix token."""
        prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        height, width = self.network.patch_embed.dynamic_feat_size(tuple(x.shape[-2:]))
        grid = tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, height, width)
        return Features((grid,), tokens[:, 0] if prefix else None)


def _network(name: str, options: dict[str, Any], *, pretrained: bool, channels_in: int) -> Any:
    """The timm network for images of so many channels; of other than 3 its first convolution is as initialised."""
    if channels_in == RGB:
        return _created(name, options, pretrained=pretrained)
    if channels_in < 1:
        raise InvalidInputError(f"A backbone must read at least 1 channel; got {channels_in}.")
    network = _created(name, {**options, "in_chans": channels_in}, pretrained=False)
    if pretrained:  # timm itself would sum the weights of red, green and blue, or repeat them; other channels mean other things
        learnt = _created(name, options, pretrained=True).state_dict()
        own = network.state_dict()
        network.load_state_dict({**learnt, **{entry: own[entry] for entry in first_convolutions(network, channels_in)}})
    return network


def _never_ran(network: Any, ran: list[str], *, stages: bool) -> list[str]:
    """The network's parts that never run; with `stages` those within its trunk too."""
    parts = {one.partition(".")[0] for one in ran}
    idle = [child for child, _ in network.named_children() if child not in parts]
    if stages:
        began = {_stage_of(one) for one in ran}
        trunks = [trunk for trunk in _TRUNKS if trunk in parts]
        idle += [
            name
            for trunk in trunks
            for part, _ in network.get_submodule(trunk).named_children()
            if (name := f"{trunk}.{part}") not in began
        ]
    return idle


def _created(name: str, options: dict[str, Any], *, pretrained: bool) -> Any:
    """The timm network; what goes wrong inside timm becomes a sentence."""
    if not timm.is_model(name):
        raise UnknownNameError(f"timm {timm.__version__} has no model called {name!r}. {_nearest(name)}")
    if pretrained and not timm.is_model_pretrained(name):
        raise InvalidInputError(
            f"timm has no pretrained weights for {name!r}. Give a file with --weights FILE, or train from random weights."
        )
    try:
        return timm.create_model(name, pretrained=pretrained, **options | {"num_classes": 0})
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm's {name!r} does not take the options {options}; {error}.") from error
    except Exception as error:
        if not pretrained:
            raise
        # The hub's client fails in many ways without a network: connection, proxy, missing cache entry, rate limit.
        raise MissingFileError(
            f"The pretrained weights of {name!r} could not be had from the hub ({type(error).__name__}: {error}). "
            "Without a network, download them elsewhere and give them with --weights FILE."
        ) from error


def _nearest(name: str) -> str:
    stem = name.partition(".")[0]
    return suggest(stem, {*timm.list_models(f"{stem[:3]}*"), *BACKBONES})


def _own_size(network: Any) -> tuple[int, int]:
    """The input that the network was made for."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None) or network.default_cfg["input_size"][1:]
    return int(size[0]), int(size[1])


def _rehearsed(backbone: Backbone, name: str, size: tuple[int, int]) -> tuple[Features, list[str]]:
    """What comes out for an image of this size, and the modules that ran, in order; nothing is computed.

    Everything lies on torch's meta device, where tensors have shapes and no values.
    """
    ran: list[str] = []
    state = {key: value.to("meta") for key, value in (*backbone.named_parameters(), *backbone.named_buffers())}
    hooks = [
        module.register_forward_pre_hook(lambda _module, _input, key=key: ran.append(key))
        for key, module in backbone.network.named_modules()
        if key
    ]
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            features: Features = functional_call(backbone, state, (torch.empty(1, backbone.channels_in, *size, device="meta"),))
    except Exception as error:  # the network is a third party's: it may fail in any way where it does not take the size
        raise InvalidInputError(_unfit(backbone, name, size, error)) from error
    finally:
        for hook in hooks:
            hook.remove()
        backbone.train(training)
    return features, ran


def _unfit(backbone: Backbone, name: str, size: tuple[int, int], error: Exception) -> str:
    patch = getattr(getattr(backbone.network, "patch_embed", None), "patch_size", None)
    if patch and any(length % side for length, side in zip(size, patch, strict=True)):
        nearest = (max(1, round(length / side)) * side for length, side in zip(size, patch, strict=True))
        return (
            f"The backbone {name!r} cuts an image into patches of {patch[0]} x {patch[1]} pixels, so height and width must be "
            f"multiples of that; got {size[0]} x {size[1]}. The nearest is {' x '.join(map(str, nearest))}."
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if backbone.levels:
        return (
            f"The backbone {name!r} must turn an image of {size[0]} x {size[1]} pixels into the maps of the levels "
            f"{list(backbone.levels)}; it does not ({reason}). Its levels are {described_levels(backbone.network)}."
        )
    return (
        f"The backbone {name!r} must turn an image of {size[0]} x {size[1]} pixels into feature maps; it does not ({reason}). "
        "Choose the size or the options (img_size, dynamic_img_size) that it takes, or another backbone."
    )


def _stages(network: Any, ran: list[str]) -> tuple[str, ...]:
    """The stages that ran, in the order in which they began."""
    stages = dict.fromkeys(_stage_of(name) for name in ran)
    return tuple(stage for stage in stages if stage not in _TRUNKS and not isinstance(network.get_submodule(stage), _IDLE))


def _stage_of(name: str) -> str:
    """The stage to which a module or a parameter of the network belongs, by its name."""
    first, _, rest = name.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in _TRUNKS and rest else first


def _without_last_relu(network: Any) -> None:
    network.features.norm5.act = nn.Identity()


_DENSENET: dict[str, Any] = {"cut": _without_last_relu, "end": "without the ReLU after the last BatchNorm"}
_DINOV2 = {"dynamic_img_size": True}

BACKBONES: dict[str, Origin] = {
    "vgg16": Origin("vgg16.tv_in1k"),
    "resnet18": Origin("resnet18.tv_in1k"),
    "resnet34": Origin("resnet34.tv_in1k"),
    "resnet50": Origin("resnet50.tv_in1k"),
    "resnet152": Origin("resnet152.tv_in1k"),
    "resnext101_32x8d_wsl": Origin("resnext101_32x8d.fb_wsl_ig1b_ft_in1k"),
    "densenet121": Origin("densenet121.tv_in1k", **_DENSENET),
    "densenet161": Origin("densenet161.tv_in1k", **_DENSENET),
    "mobilenetv2": Origin("mobilenetv2_100.ra_in1k"),
    "dinov2-small": Origin("vit_small_patch14_dinov2.lvd142m", _DINOV2),
    "dinov2-base": Origin("vit_base_patch14_dinov2.lvd142m", _DINOV2),
    "dinov2-large": Origin("vit_large_patch14_dinov2.lvd142m", _DINOV2),
}
"""Name -> origin: the backbones of the papers, each with the weights that they start from. Any other name is timm's own."""
