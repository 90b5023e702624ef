"""Levels: which of a network's feature maps are asked for, and which of its parts see the input's channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from covis.errors import InvalidInputError


def check_levels(network: Any, name: str, levels: Sequence[int]) -> None:
    """Levels are some of the network's, from input to output, each once.

    Raises:
        InvalidInputError: the network has none, or not these; or they are not in order.
    """
    count = len(getattr(network, "feature_info", None) or ())
    if not count or not hasattr(network, "forward_intermediates"):
        raise InvalidInputError(
            f"Levels need a network of timm's with numbered feature maps (forward_intermediates); {name!r} has none. "
            "Leave the levels out, for the last map alone, or choose another backbone."
        )
    given = list(levels)
    if not all(isinstance(level, int) and 0 <= level < count for level in given) or given != sorted(set(given)):
        raise InvalidInputError(
            f"The levels of {name!r} must be numbers from 0 to {count - 1}, ascending, each once; got {given}. "
            f"Its levels are {described_levels(network)}."
        )


def described_levels(network: Any) -> str:
    """A network's levels in a line: number, channels, stride."""
    infos = [dict(info) for info in network.feature_info]
    return ", ".join(f"{number} ({one.get('num_chs')} channels, stride {one.get('reduction')})" for number, one in enumerate(infos))


def first_convolutions(network: Any, channels: int) -> tuple[str, ...]:
    """The entries of a state dict whose shape depends on the input's channels: timm says which, else it is the first that fits.

    Raises:
        InvalidInputError: there is none with so many input channels.
    """
    said = network.default_cfg.get("first_conv") or ()
    modules = {name: module for name, module in network.named_modules() if isinstance(getattr(module, "weight", None), nn.Parameter)}
    named = [name for name in ((said,) if isinstance(said, str) else said) if name in modules]
    # An option may have replaced the stem (`stem_type`), and timm goes on saying the old one's name.
    found = named or [name for name, module in modules.items() if isinstance(module, nn.Conv2d) and module.in_channels == channels][:1]
    if not found or any(modules[name].weight.shape[1:2] != (channels,) for name in found):
        raise InvalidInputError(
            f"A network that reads {channels} channels must begin with a convolution of {channels} input channels; "
            f"found {', '.join(found) or 'none'}. Choose another backbone."
        )
    return tuple(f"{name}.weight" for name in found)
