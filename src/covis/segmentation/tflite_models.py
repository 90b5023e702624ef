"""TensorFlow Lite files as segmenters. The only file that imports ai_edge_litert."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError
from covis.files import digest, file_digest
from covis.models.onnx_models import processor_threads
from covis.segmentation.outputs import Pixels, class_count, maps_of, pixels_of
from covis.segmentation.segmenters import Classes, numbering


def interpreter_class() -> Any:
    """The library's interpreter.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError(".tflite files are run by ai-edge-litert, which is not installed: pip install covis[segment]") from error
    return Interpreter


class TfliteSegmenter:
    """A segmenter over an interpreter of TensorFlow Lite, on the processor, one photograph at a time. `load_tflite` makes one.

    Attributes:
        name: the file's.
    """

    engine = "tflite"

    def __init__(self, interpreter: Any, *, name: str, digest: str, classes: Classes, pixels: Pixels) -> None:
        self._interpreter, self._pixels = interpreter, pixels
        self.name, self.digest, self.classes, self.settings = name, digest, classes, pixels.settings()

    def segment(self, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Photographs (h, w, 3) uint8 to maps (h, w) uint8.

        Raises:
            InvalidInputError: the network gives something else than class numbers or scores.
        """
        (taken,), given = self._interpreter.get_input_details(), self._interpreter.get_output_details()[0]
        maps: list[NDArray[np.uint8]] = []
        for photograph in photographs:
            self._interpreter.set_tensor(taken["index"], self._pixels.fed([photograph]))
            self._interpreter.invoke()
            found = self._interpreter.get_tensor(given["index"])
            maps += maps_of(found, [photograph], self._pixels.frame, channels_last=True, where=self.name)
        return maps


def load_tflite(path: str | Path, *, classes: str | None = None, options: Mapping[str, Any] | None = None) -> TfliteSegmenter:
    """Open a .tflite file with one photograph in, and class numbers or scores as its first output.

    Such a file says no class names, so that the numbering must be named.

    Args:
        path: the file.
        classes: the name of a numbering.
        options: `height`, `width` where the file leaves them open, `fit`, and of an input of floats `mean` and `std`.

    Raises:
        MissingExtraError: ai-edge-litert is not installed.
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, or no .tflite file.
        InvalidInputError: it takes or gives something else, or the numbering is missing.
    """
    path = Path(path)
    library, made = interpreter_class(), file_digest(path)
    interpreter = _opened(library, path)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or not outputs:
        raise InvalidInputError(
            f"{path} must take one photograph and give one map; it has {len(inputs)} inputs and {len(outputs)} outputs."
        )
    pixels = pixels_of(inputs[0]["shape_signature"], np.dtype(inputs[0]["dtype"]).name, options or {}, channels_last=True, where=str(path))
    if -1 in inputs[0]["shape_signature"]:
        interpreter.resize_tensor_input(inputs[0]["index"], [1, pixels.frame.height, pixels.frame.width, 3])
        interpreter.allocate_tensors()
    count = class_count(outputs[0]["shape"], channels_last=True)
    meant = numbering((), asked=classes, count=count, where=str(path))
    return TfliteSegmenter(
        interpreter, name=str(path), digest=digest({"tflite": made, "pixels": pixels.settings()}), classes=meant, pixels=pixels
    )


def _opened(library: Any, path: Path) -> Any:
    try:
        with _without_information():
            interpreter = library(model_path=str(path), num_threads=processor_threads())
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:  # what the library raises where a file is none of its own
        reason = " ".join(str(error).split())[:300]
        raise DamagedFileError(f"{path} must be a .tflite file that TensorFlow Lite opens; it does not: {reason}") from error
    return interpreter


@contextmanager
def _without_information() -> Iterator[None]:
    """The library's lines of INFO, which it writes past Python, are kept off stderr; its other lines are written when it is done."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            kept.seek(0)
            for line in kept:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)
