"""Any torch module as a describer, with the pixels that it expects said beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from covis.config import from_table
from covis.errors import InvalidInputError
from covis.files import digest
from covis.models.describers import OfTorch
from covis.models.place import evaluating, weights_digest
from covis.pixels import check_size, normalize
from covis.settings import ModelSettings

KEYS = ("descriptor", "global_descriptor")
"""The entries of a mapping that are taken for the descriptor."""


PIXELS = ("height", "width", "resize", "mean", "std", "normalize")
"""The fields of `ModelSettings` that say what a module of others expects, and whether its descriptors are divided by their norm."""


def pixel_settings(options: Mapping[str, Any], *, where: str) -> ModelSettings:
    """Options of `PIXELS`, checked, with the defaults of `ModelSettings` for the others.

    Raises:
        InvalidInputError: one is of another type, or out of range.

    >>> pixel_settings({"height": 224, "width": 224}, where="here").mean
    (0.485, 0.456, 0.406)
    """
    settings = from_table(ModelSettings, {key: options[key] for key in PIXELS if key in options}, where=where)
    check_size(settings.height, settings.width, settings.resize)
    if not all(value > 0 for value in settings.std):
        raise InvalidInputError(f"{where}: the std of each channel must be above 0; got {settings.std}.")
    return settings


class ForeignModel(OfTorch, nn.Module):
    """A torch module that covis did not build, as a describer.

    The module gets (B, 3, height, width) float, (pixels / 255 - mean) / std, RGB, contiguous. It gives (B, D) or
    (B, D, 1, 1); or a tuple or list whose first entry is that; or a mapping whose entry "descriptor" or
    "global_descriptor" is. How many dimensions come out is found by describing one image.

    Args:
        network: the module; it is used in eval mode and without gradients.
        name: what it is, for messages and for the digest.
        options: what it was made with, for the digest.
        code: a hash of the code that makes it, for the digest.
        settings: `height`, `width`, `resize`, `mean`, `std` and `normalize` (divide each descriptor by its L2 norm); the
            other fields are not looked at.
        around: what the module must run within.

    Attributes:
        settings: as given.
        history: where the module comes from.

    Raises:
        InvalidInputError: the module fails on an image of this size, or gives something else; the message says what.

    >>> model = ForeignModel(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), name="means", settings=ModelSettings(height=16, width=8))
    >>> model.dim, model.describe_pixels(torch.zeros((5, 3, 16, 8), dtype=torch.uint8)).shape
    (6, (5, 6))
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        options: Mapping[str, Any] | None = None,
        code: str = "",
        settings: ModelSettings | None = None,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__()
        settings = pixel_settings(vars(settings or ModelSettings()), where=name)
        self.network, self.name, self.settings, self.code = network, name, settings, code
        self.options, self.around = dict(options or {}), around
        self.history: Mapping[str, Any] = {"opened": {"model": name, "options": {key: str(value) for key, value in self.options.items()}}}
        self.mean: torch.Tensor
        self.std: torch.Tensor
        # Before the first image: what a module keeps of the images that it saw (grids of positions) is none of its weights.
        self._held = _held_digest(network)
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).reshape(3, 1, 1), persistent=False)
        self.dim = self._rehearsed()

    @property
    def digest(self) -> str:
        """A hash of the weights, the name, the options, the pixels and the code that was named (16 hex digits).

        Of weights that no state dict holds (tensors and arrays as attributes, buffers that are not persistent) it takes
        those that were there when the model was made.
        """
        pixels = {key: getattr(self.settings, key) for key in PIXELS}
        made = {"name": self.name, "options": self.options, "code": self.code} | ({"held": self._held} if self._held else {})
        return digest({**made, "pixels": pixels, "weights": weights_digest(self.network)})

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, height, width) uint8 to (B, dim)."""
        # Contiguous: a module of others may call `view` on its maps, which channels-last tensors refuse.
        found = self._vectors(self.network(normalize(pixels, self.mean, self.std).contiguous()))
        return F.normalize(found, dim=1) if self.settings.normalize else found

    def describe_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """(B, 3, height, width) uint8 to (B, dim), in eval mode.

        Raises:
            InvalidInputError: another number of rows or dimensions comes out than must.
        """
        with self.around(), evaluating(self), torch.inference_mode():
            found: NDArray[np.float32] = self(pixels).float().cpu().numpy()
        if found.shape != (len(pixels), self.dim):
            raise InvalidInputError(f"{self.name} must give ({len(pixels)}, {self.dim}) for {len(pixels)} images; it gave {found.shape}.")
        return found

    def _vectors(self, given: Any) -> torch.Tensor:
        """The descriptors (B, D) in what the module gave."""
        found = given
        if isinstance(found, Mapping):
            found = next((found[key] for key in KEYS if key in found), None)
        elif isinstance(found, (tuple, list)) and found:
            found = found[0]
        if isinstance(found, torch.Tensor) and found.ndim == 4 and found.shape[2:] == (1, 1):
            found = found[:, :, 0, 0]
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or not found.is_floating_point():
            raise InvalidInputError(
                f"{self.name} must give descriptors, a float tensor (B, D) or (B, D, 1, 1), alone, first in a tuple or list, or as "
                f"{' or '.join(map(repr, KEYS))} of a mapping; it gave {_said(given)}."
            )
        return found

    def _rehearsed(self) -> int:
        """The dimensions that come out for one image; a picture of stripes, since some modules divide by an image's spread."""
        rows = torch.arange(self.height * self.width * 3, dtype=torch.int64) * 37 % 251
        pixels = rows.to(torch.uint8).reshape(1, 3, self.height, self.width)
        try:
            with self.around(), evaluating(self), torch.inference_mode():
                found = self(pixels)
        except InvalidInputError:
            raise
        except Exception as error:  # the module is a third party's: it may fail in any way
            reason = str(error).partition("\n")[0]
            raise InvalidInputError(
                f"{self.name} must describe an image of {self.height} x {self.width} pixels (1, 3, {self.height}, {self.width}); it failed "
                f"({type(error).__name__}: {reason}). Give the size that it takes as options, height=… and width=…, or mend it."
            ) from error
        if len(found) != 1:
            raise InvalidInputError(f"{self.name} must give one row for one image; it gave {len(found)}.")
        if not bool(torch.isfinite(found).all()):
            raise InvalidInputError(f"{self.name} must give finite numbers; for a picture of stripes it gave a NaN or infinity.")
        return int(found.shape[1])


def _held_digest(network: nn.Module) -> str:
    """A hash of the tensors and arrays of a network that its state dict lacks; "" for none."""
    found, stored = hashlib.sha256(), set(network.state_dict())
    held = [(name, value) for name, value in network.named_buffers() if name not in stored]
    held += [(f"{path}.{name}", value) for path, module in network.named_modules() for name, value in _attributes(module)]
    for name, value in sorted(held, key=lambda one: one[0]):
        array = _array(value)
        found.update(f"{name} {value.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest() if held else ""


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays that a module has as plain attributes, and those in its lists, tuples and mappings."""
    own = {name: value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")}
    for name, value in own.items():
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        for number, one in enumerate([value, *inner]):
            if (isinstance(one, torch.Tensor) and not one.is_meta) or (isinstance(one, np.ndarray) and not one.dtype.hasobject):
                yield f"{name} {number}", one


def _array(value: Any) -> NDArray[Any]:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    dense = (value.dequantize() if value.is_quantized else value.to_dense() if value.layout != torch.strided else value).detach()
    plain = dense.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8)
    return plain.numpy().reshape(*value.shape, -1) if value.numel() else np.zeros(value.shape, dtype=np.uint8)


def _said(given: Any) -> str:
    """What came out, in words."""
    if isinstance(given, torch.Tensor):
        return f"a {str(given.dtype).removeprefix('torch.')} tensor {tuple(given.shape)}"
    if isinstance(given, Mapping):
        return f"a mapping of {', '.join(f'{key!r}: {_said(value)}' for key, value in given.items()) or 'nothing'}"
    if isinstance(given, (tuple, list)):
        return f"a {type(given).__name__} of {', '.join(map(_said, given)) or 'nothing'}"
    return f"a {type(given).__name__}"
