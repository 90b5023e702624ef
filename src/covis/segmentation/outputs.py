"""What a file's network takes and gives: pixels of a layout and type, and class numbers or scores in any of the usual shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from covis.config import from_table
from covis.errors import InvalidInputError
from covis.segmentation.frames import Fit, Frame, best_numbers, nearest_numbers

OPTIONS = ("height", "width", "fit", "mean", "std")
"""The options of a .tflite or .onnx file."""


@dataclass(frozen=True)
class Pixels:
    """How photographs become a network's input.

    Attributes:
        frame: the size, and how a photograph fills it.
        type: "float32": (value / 255 - mean) / std; "uint8": the value; "int8": the value less 128.
        channels_last: whether the input is (n, height, width, 3), not (n, 3, height, width).
        mean: of "float32", a channel.
        std: of "float32", a channel.
    """

    frame: Frame
    type: Literal["float32", "uint8", "int8"]
    channels_last: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def fed(self, photographs: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """The input for photographs of any sizes."""
        stack: NDArray[Any] = np.stack([self.frame.filled(one) for one in photographs])
        if self.type == "float32":
            stack = (stack.astype(np.float32) / 255 - np.array(self.mean, dtype=np.float32)) / np.array(self.std, dtype=np.float32)
        elif self.type == "int8":
            stack = (stack.astype(np.int16) - 128).astype(np.int8)
        return np.ascontiguousarray(stack if self.channels_last else stack.transpose(0, 3, 1, 2))

    def settings(self) -> dict[str, Any]:
        """As plain values, for the record."""
        plain = {"height": self.frame.height, "width": self.frame.width, "fit": self.frame.fit, "type": self.type}
        return {**plain, "mean": list(self.mean), "std": list(self.std)} if self.type == "float32" else plain


@dataclass(frozen=True)
class _Given:
    """The options as they may be given, with those of ImageNet where they are not."""

    height: int = 0
    width: int = 0
    fit: Fit = "stretch"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


def check_options(options: Mapping[str, Any], *, where: str) -> _Given:
    """The options of a file, held as far as they can be without it.

    Raises:
        InvalidInputError: there is no such option, or it has another type or range.
    """
    if unknown := [key for key in options if key not in OPTIONS]:
        raise InvalidInputError(f"{where} takes the options {', '.join(OPTIONS)}; got {', '.join(unknown)}.")
    given = from_table(_Given, dict(options), where=where)
    if not all(value > 0 for value in given.std):
        raise InvalidInputError(f"{where}: the std of each channel must be above 0; got {given.std}.")
    if given.height < 0 or given.width < 0:
        raise InvalidInputError(f"{where}: height and width must be above 0; got {given.height} and {given.width}.")
    return given


def pixels_of(shape: Sequence[Any], dtype: str, options: Mapping[str, Any], *, channels_last: bool, where: str) -> Pixels:
    """The pixels that an input of this shape and type takes.

    Args:
        shape: of the input, four entries; one that is no whole number above 0 is free.
        dtype: "float32", "uint8" or "int8".
        options: of `OPTIONS`; the size only where it is free, mean and std only for floats.
        channels_last: the file format's habit, followed where the shape does not say where the three channels are.
        where: the file, for messages.

    Raises:
        InvalidInputError: the input is no photograph, or an option does not fit.
    """
    given = check_options(options, where=where)
    sizes = [int(side) if isinstance(side, (int, np.integer)) and side > 0 else None for side in shape]
    if len(sizes) != 4 or 3 not in (sizes[1], sizes[3]) or dtype not in ("float32", "uint8", "int8"):
        raise InvalidInputError(
            f"{where} must take one photograph, (n, 3, h, w) or (n, h, w, 3) float, uint8 or int8; it takes {dtype} {list(shape)}."
        )
    last = channels_last if sizes[1] == sizes[3] else sizes[3] == 3
    sides = dict(zip(("height", "width"), sizes[1:3] if last else sizes[2:], strict=True))
    if dtype != "float32" and (idle := [key for key in ("mean", "std") if key in options]):
        raise InvalidInputError(f"{where} takes {dtype}, which it normalises itself; {' and '.join(idle)} would have no effect.")
    for key, side in sides.items():
        asked = getattr(given, key)
        if side is not None and asked not in (0, side):
            raise InvalidInputError(f"{where} takes photographs of the {key} {side} alone; asked for {asked}. Leave it out.")
        if side is None and asked < 1:
            raise InvalidInputError(f"{where} takes any {key}; give the one that it was trained with: --model-option {key}=512.")
    frame = Frame(sides["height"] or given.height, sides["width"] or given.width, given.fit)
    return Pixels(frame, dtype, last, given.mean, given.std)  # type: ignore[arg-type] # looked at above


def class_count(shape: Sequence[Any], *, channels_last: bool) -> int | None:
    """How many classes an output of this shape tells apart; None where it gives numbers, or leaves it open."""
    sizes = [int(side) if isinstance(side, (int, np.integer)) else None for side in shape]
    if len(sizes) != 4 or 1 in (sizes[1], sizes[3]):
        return None
    return sizes[3] if channels_last else sizes[1]


def check_channels_first(shape: Sequence[Any], frame: Frame, *, classes: int, where: str) -> None:
    """Hold that scores have their channels before rows and columns, as far as their shape tells: rows and columns have the input's ratio.

    Args:
        shape: of the scores; where an entry is no number, nothing is said.
        frame: the input's.
        classes: how many classes the numbering has; so many channels are first whatever the ratio.
        where: the file, for messages.

    Raises:
        InvalidInputError: (n, h, w, C).
    """
    if len(shape) != 4 or not all(isinstance(side, (int, np.integer)) and side > 1 for side in shape[1:]) or shape[1] == classes:
        return

    def off(rows: int, columns: int) -> float:
        return abs(rows / frame.height - columns / frame.width)

    if off(shape[1], shape[2]) < off(shape[2], shape[3]) and off(shape[1], shape[2]) <= 1 / frame.height + 1 / frame.width:
        raise InvalidInputError(
            f"{where}: scores must be (n, C, h, w); {tuple(shape)} has the ratio of the input, {frame.height} x {frame.width}, before its "
            "last entry, so that it is (n, h, w, C). Move the channels when you export it, or let it give class numbers (argmax)."
        )


def maps_of(
    found: NDArray[Any], photographs: Sequence[NDArray[np.uint8]], frame: Frame, *, channels_last: bool, where: str
) -> list[NDArray[np.uint8]]:
    """The maps of photographs, at their own sizes, from what a network gave.

    (n, h, w), (n, 1, h, w) and (n, h, w, 1) are class numbers, and resized by the nearest; (n, C, h, w), with `channels_last`
    (n, h, w, C), are scores, and resized bilinearly before the largest is taken.

    Raises:
        InvalidInputError: it is nothing of that.
    """
    numbers = found
    if found.ndim == 4 and 1 in (found.shape[1], found.shape[3]):
        numbers = found[:, 0] if found.shape[1] == 1 else found[..., 0]
    if numbers.ndim not in (3, 4) or len(numbers) != len(photographs):
        raise InvalidInputError(
            f"{where} must give class numbers (n, h, w) or scores (n, C, h, w) for {len(photographs)} photographs; it gave {found.shape}."
        )
    sizes = [(*one.shape[:2], frame.extent(*one.shape[:2])) for one in photographs]
    if numbers.ndim == 3:
        whole = _whole(numbers, where)
        return [nearest_numbers(one, height, width, extent=extent) for one, (height, width, extent) in zip(whole, sizes, strict=True)]
    scores = np.require(numbers.transpose(0, 3, 1, 2) if channels_last else numbers, requirements=["C", "W"])  # as torch wants it
    return [
        best_numbers(torch.from_numpy(one), height, width, extent=extent)
        for one, (height, width, extent) in zip(scores, sizes, strict=True)
    ]


def _whole(numbers: NDArray[Any], where: str) -> NDArray[np.integer[Any]]:
    if np.issubdtype(numbers.dtype, np.integer):
        return numbers
    if not np.array_equal(numbers, np.rint(numbers)):
        raise InvalidInputError(
            f"{where} gives one value a pixel, which must be a class number; found {float(numbers[numbers != np.rint(numbers)][0]):.6g}. "
            "A network of one class tells nothing apart."
        )
    return numbers.astype(np.int64)
