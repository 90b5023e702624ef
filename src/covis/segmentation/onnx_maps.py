"""ONNX files as segmenters; ONNX Runtime itself is reached through `models.onnx_models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.files import digest as hash_of
from covis.models import onnx_models
from covis.segmentation.outputs import Pixels, check_channels_first, class_count, maps_of, pixels_of
from covis.segmentation.segmenters import Classes, class_total, numbering

_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}


class OnnxSegmenter:
    """A segmenter over a session of ONNX Runtime, on the processor. `load_onnx_segmenter` makes one.

    Attributes:
        name: the file's.
    """

    engine = "onnx"

    def __init__(self, session: Any, *, name: str, digest: str, classes: Classes, pixels: Pixels) -> None:
        self._session, self._pixels = session, pixels
        self.name, self.digest, self.classes, self.settings = name, digest, classes, pixels.settings()

    def segment(self, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Photographs (h, w, 3) uint8 to maps (h, w) uint8.

        Raises:
            InvalidInputError: the network fails, or gives something else than class numbers or scores.
        """
        taken = self._session.get_inputs()[0]
        # A file made for one photograph at a time says so by a number in place of a name.
        each = taken.shape[0] if isinstance(taken.shape[0], int) else max(len(photographs), 1)
        maps: list[NDArray[np.uint8]] = []
        for start in range(0, len(photographs), each):
            some = list(photographs[start : start + each])
            filled = some + [some[-1]] * (each - len(some) if isinstance(taken.shape[0], int) else 0)
            maps += self._maps(taken.name, filled)[: len(some)]
        return maps

    def _maps(self, name: str, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        fed = self._pixels.fed(photographs)
        try:
            found = np.asarray(self._session.run(None, {name: fed})[0])
        except Exception as error:  # the library's errors have no root of their own
            reason = " ".join(str(error).split())[:300]
            raise InvalidInputError(f"{self.name} must take {fed.shape} of {fed.dtype}; ONNX Runtime says: {reason}") from error
        check_channels_first(found.shape, self._pixels.frame, classes=class_total(self.classes), where=self.name)
        return maps_of(found, photographs, self._pixels.frame, channels_last=False, where=self.name)


def load_onnx_segmenter(path: str | Path, *, classes: str | None = None, options: Mapping[str, Any] | None = None) -> OnnxSegmenter:
    """Open an .onnx file with one photograph in, and class numbers or scores as its first output.

    The input is (n, 3, h, w) or (n, h, w, 3), float (normalised here), uint8 (as it is) or int8 (less 128); the output (n, h, w) or
    (n, 1, h, w) of class numbers, or (n, C, h, w) of scores, never (n, h, w, C). Such a file says no class names, so that the numbering
    must be named.

    Args:
        path: the file. The files beside it that hold its weights are part of its digest.
        classes: the name of a numbering.
        options: `height`, `width` where the file leaves them open, `fit`, and of an input of floats `mean` and `std`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        MissingFileError: there is no such file, or a file of weights is not beside it.
        DamagedFileError: it is truncated, or no ONNX model.
        InvalidInputError: it takes or gives something else, describes images, or the numbering is missing.
    """
    path = Path(path)
    onnx_models.onnxruntime()  # whether it is there, before anything is read
    if onnx_models.read_header(path):
        raise InvalidInputError(f"{path} was written by covis export: it describes photographs, and segments none.")
    session, made = onnx_models.open_session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise InvalidInputError(
            f"{path} must take one photograph and give one map; it has {len(inputs)} inputs and {len(outputs)} outputs."
        )
    dtype = _TYPES.get(inputs[0].type, inputs[0].type)
    pixels = pixels_of(inputs[0].shape, dtype, options or {}, channels_last=dtype != "float32", where=str(path))
    total = 0 if classes is None else class_total(classes)
    check_channels_first(outputs[0].shape, pixels.frame, classes=total, where=str(path))
    meant = numbering((), asked=classes, count=class_count(outputs[0].shape, channels_last=False), where=str(path))
    return OnnxSegmenter(session, name=str(path), digest=hash_of({"onnx": made, "pixels": pixels.settings()}), classes=meant, pixels=pixels)
