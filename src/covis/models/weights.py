"""Weights from a local file: a state dict as .pth, .pt or .safetensors, loaded strictly and without running any code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.models.backbones import Backbone


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict to the CPU; half-precision values become float32.

    A dict with the one entry of interest under "state_dict" or "model_state_dict" is unpacked.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, or no state dict. A file that holds code instead of tensors is never run.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"The weights {path} must exist; there is no such file.")
    stored = _safetensors(path) if path.suffix == ".safetensors" else load_safely(path)
    for key in ("model_state_dict", "state_dict"):
        if isinstance(stored, Mapping) and isinstance(stored.get(key), Mapping):
            stored = stored[key]
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise DamagedFileError(
            f"{path} must hold a state dict (names and tensors); found a {type(stored).__name__} of others. Save `model.state_dict()`."
        )
    half = (torch.float16, torch.bfloat16)
    return {str(name): value.float() if value.dtype in half else value for name, value in stored.items()}


def load_backbone(backbone: Backbone, path: str | Path) -> None:
    """Fill a backbone from a file of timm's names; entries of parts that it has not (the classifier), and only those, are left out.

    A backbone that does not read photographs (`channels_in` is not 3) keeps the first convolution that it was made with where the
    file's is the same but for the input channels; nothing else may differ.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, or no state dict.
        InvalidInputError: an entry is missing, left over, or of another shape; the message names it.
    """
    stored = read_weights(path)
    heads = tuple(f"{name}." for name in backbone.left_out)
    state = backbone.network.state_dict()
    anew = {name for name in backbone.begun_anew if name in stored and _other_inputs(stored[name], state[name])}
    own = {name: value for name, value in state.items() if name not in anew}
    given = {name: value for name, value in stored.items() if name in own or not (name in anew or name.startswith(heads))}
    if complaints := misfits(given, own):
        raise InvalidInputError(
            f"The weights {path} must fit the network entry by entry; {complaints}. "
            "Choose the backbone and the options that they were made with."
        )
    backbone.network.load_state_dict({**state, **given})


def _other_inputs(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether two weights of a convolution differ in the number of input channels alone."""
    alike = given.ndim == own.ndim and (given.shape[0], given.shape[2:]) == (own.shape[0], own.shape[2:])
    return alike and given.shape[1] != own.shape[1]


def misfits(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """What keeps a state dict from fitting a network's own, in words; empty where it fits."""
    missing, unexpected = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if given[name].shape != own[name].shape
    ]
    found = {"missing": missing, "not in the network": unexpected, "of another shape": sorted(shapes)}
    return "; ".join(f"{what}: {_listed(names)}" for what, names in found.items() if names)


def load_safely(path: str | Path) -> object:
    """What a file of torch's holds, on the CPU; code in it is refused, never run.

    Raises:
        DamagedFileError: it is truncated, foreign, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can fail anywhere in the restricted unpickler, with any exception
        # The restricted unpickler's own words advise to load without restriction, and colour them.
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).partition(". ")[0].partition("\n")[0]
        reason = said or type(error).__name__
        raise DamagedFileError(
            f"{path} must be a file of tensors that loads with weights_only=True; it is truncated, foreign, or holds code ({reason})."
        ) from error


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path} must be a safetensors file; it is truncated or foreign ({error}). Fetch it again.") from error


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
