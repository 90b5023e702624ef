"""ONNX files as describers, those of `covis export` and simple ones of others. The only file that imports onnxruntime.

A file of ours is an ONNX model followed by one entry of metadata, "covis": a JSON header with the hash of all before it. It
is read and checked here without any library of ONNX.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError, MissingFileError
from covis.files import atomic_path, check_header, digest, file_digest
from covis.models.foreign import PIXELS, pixel_settings
from covis.pixels import Resize, normalize
from covis.settings import ModelSettings

FORMAT, VERSION, KEY, PRODUCER = "covis-onnx", 1, "covis", "covis"
_PRODUCER_FIELD, _GRAPH_FIELD, _METADATA_FIELD = 2, 7, 14  # of the message ModelProto, in onnx.proto
_HOLDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Which fields of a message hold messages with tensors in them, by onnx.proto."""
_EXTERNAL = 13  # of the message TensorProto: where its values lie, in entries of key and value
_FLOAT, _UINT8 = "tensor(float)", "tensor(uint8)"


def onnxruntime() -> ModuleType:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnxruntime as library
    except ImportError as error:
        raise MissingExtraError("ONNX files are run by onnxruntime, which is not installed: pip install covis[onnx]") from error
    module: ModuleType = library
    return module


def quantization() -> ModuleType:
    """The library's part that makes int8 models.

    Raises:
        MissingExtraError: it, or onnx, which it needs, is not installed.
    """
    try:
        from onnxruntime import quantization as library
    except ImportError as error:
        raise MissingExtraError("int8 needs onnxruntime and onnx, one of which is not installed: pip install covis[onnx]") from error
    module: ModuleType = library
    return module


class OnnxModel:
    """A describer over a session of ONNX Runtime, on the processor. `load_onnx` makes one.

    Attributes:
        header: what the file says of itself (`covis export` writes it); empty for a file of others.
        path: the file.
    """

    engine = "onnx"

    def __init__(self, session: Any, path: Path, *, settings: ModelSettings, digest: str, header: Mapping[str, Any]) -> None:
        self._session, self._settings, self.path, self.header, self.digest = session, settings, path, header, digest
        self._input = session.get_inputs()[0]
        one = torch.zeros((1, 3, settings.height, settings.width), dtype=torch.uint8)
        self.dim = int(header["dim"]) if header else self._vectors(one).shape[1]

    @property
    def height(self) -> int:
        """Pixels of the network's input."""
        return self._settings.height

    @property
    def width(self) -> int:
        """Pixels of the network's input."""
        return self._settings.width

    @property
    def resize(self) -> Resize:
        """How images get to that size."""
        return self._settings.resize

    @property
    def fixed(self) -> bool:
        """Whether the file takes one size alone."""
        return all(isinstance(side, int) for side in self._input.shape[2:])

    def describe_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """(B, 3, height, width) uint8 to (B, dim).

        Raises:
            InvalidInputError: the file does not take such images, or gives something else than descriptors.
        """
        # A file made for one image at a time says so by a number in place of a name.
        each = self._input.shape[0] if isinstance(self._input.shape[0], int) else max(len(pixels), 1)
        parts = [self._vectors(pixels[start : start + each]) for start in range(0, len(pixels), each)]
        found = np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)
        if found.shape != (len(pixels), self.dim):
            raise InvalidInputError(f"{self.path} must give ({len(pixels)}, {self.dim}) for {len(pixels)} images; it gave {found.shape}.")
        return found

    def _vectors(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        fed = np.ascontiguousarray(pixels.numpy() if self._input.type == _UINT8 else self._normalized(pixels))
        try:
            found = self._session.run(None, {self._input.name: fed})[0]
        except Exception as error:  # the library's errors have no root of their own
            raise InvalidInputError(
                f"{self.path} must describe images {fed.shape} of {fed.dtype}; ONNX Runtime says: {_line(error)}"
            ) from error
        vectors = np.asarray(found, dtype=np.float32)
        if not self.header and vectors.ndim == 2 and self._settings.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        if vectors.ndim != 2:
            raise InvalidInputError(f"{self.path} must give descriptors (B, D); its first output is {vectors.shape}.")
        return vectors

    def _normalized(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (self._settings.mean, self._settings.std))
        floats: NDArray[np.float32] = normalize(pixels, mean, std).numpy()
        return floats


def load_onnx(path: str | Path, *, options: Mapping[str, Any] | None = None, threads: int | None = None) -> OnnxModel:
    """Open an .onnx file.

    A file that `covis export` wrote says itself which pixels it takes. Any other must have one input, (B, 3, H, W) float
    (normalised here) or uint8 (as it is), RGB, and descriptors (B, D) as its first output.

    Args:
        path: the file.
        options: of a file of others: `height`, `width`, `resize`, `mean`, `std` and `normalize`; the others as in `ModelSettings`,
            and the size that of the file where it takes one alone. The files beside it that hold its weights (as torch.onnx.export
            writes large networks) are part of its digest.
        threads: of ONNX Runtime; absent, as many as torch takes, and no more than this process has cores.

    Raises:
        MissingFileError: there is no such file, or a file of weights is not beside it.
        DamagedFileError: it is truncated, no ONNX model, or was changed since it was written.
        InvalidInputError: it takes or gives something else, or names weights outside its folder.
        MissingExtraError: onnxruntime is not installed.
    """
    path = Path(path)
    onnxruntime()  # whether it is there, before anything is read
    header = read_header(path)
    beside = {} if header else _data_hashes(path)
    session = _session(path, threads or processor_threads())
    if header:
        if options:
            raise InvalidInputError(
                f"{path} says itself which pixels it takes; options ({', '.join(options)}) are for files that covis export did not write."
            )
        own = ModelSettings(height=header["height"], width=header["width"], resize=header["resize"], normalize=False)
        return OnnxModel(session, path, settings=own, digest=header["digest"], header=header)
    settings = _foreign_settings(path, session, options or {})
    pixels = {key: getattr(settings, key) for key in PIXELS}
    made = digest({"onnx": _file_hash(path), "pixels": pixels, **({"data": beside} if beside else {})})
    return OnnxModel(session, path, settings=settings, digest=made, header={})


def open_session(path: Path, *, threads: int | None = None) -> tuple[Any, str]:
    """A session over a file of others, and a hash of it and of the files beside it that hold its weights."""
    made = digest([_file_hash(path), _data_hashes(path)])
    return _session(path, threads or processor_threads()), made


def processor_threads() -> int:
    """How many threads compute: as many as torch takes (it honours OMP_NUM_THREADS), and no more than this process has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, torch.get_num_threads()))


def write_model(path: str | Path, body: bytes, header: Mapping[str, Any]) -> Path:
    """Write an ONNX model without metadata, and the header behind it, atomically; returns the path."""
    whole = {"format": FORMAT, "version": VERSION, **header, "body": {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}}
    text = json.dumps({**whole, "check": digest(whole)}, allow_nan=False, ensure_ascii=False).encode("utf-8")
    entry = _field(1, KEY.encode()) + _field(2, text)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(body)
        stream.write(_field(_METADATA_FIELD, entry))
    return Path(path)


def read_header(path: str | Path) -> dict[str, Any]:
    """What a file of `covis export` says of itself, after a look that not a byte of it has changed; {} for a file of others.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, no ONNX model, or was changed.
    """
    data = _bytes(path)
    try:
        fields = list(_fields(data))
        entries = [dict(_fields_of(data, start, end)) for number, start, end in fields if number == _METADATA_FIELD]
        ours = any(data[start:end] == PRODUCER.encode() for number, start, end in fields if number == _PRODUCER_FIELD)
        if not any(number == _GRAPH_FIELD for number, *_ in fields):
            raise ValueError("it holds no graph")
        stored = next((entry[2] for entry in entries if entry.get(1) == KEY.encode()), None)
        if stored is None:
            if ours:
                raise ValueError("its metadata are gone")
            return {}
        header: dict[str, Any] = json.loads(stored)
        check_header(header, path, kind=FORMAT, version=VERSION)
        said = {key: value for key, value in header.items() if key != "check"}
        body = memoryview(data)[: header["body"]["bytes"]]
        if header["check"] != digest(said) or hashlib.sha256(body).hexdigest() != header["body"]["sha256"]:
            raise ValueError("it was changed since it was written")
    except DamagedFileError:
        raise
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} must be an ONNX model; it is truncated, foreign or damaged ({error}). Export it again.") from error
    return header


def read_body(path: str | Path) -> bytes:
    """The ONNX model of a file of ours, without its header."""
    return _bytes(path)[: read_header(path)["body"]["bytes"]]


def _foreign_settings(path: Path, session: Any, options: Mapping[str, Any]) -> ModelSettings:
    """The pixels of a file of others; an error where it is more than one image in, one descriptor out."""
    if unknown := [key for key in options if key not in PIXELS]:
        raise InvalidInputError(f"An .onnx file takes the options {', '.join(PIXELS)}; got {', '.join(unknown)}.")
    inputs = session.get_inputs()
    shape = tuple(inputs[0].shape) if len(inputs) == 1 else ()
    if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3) or inputs[0].type not in (_FLOAT, _UINT8):
        said = ", ".join(f"{one.name} {one.type} {tuple(one.shape)}" for one in inputs)
        raise InvalidInputError(f"{path} must take one input, (B, 3, height, width) float or uint8; it takes {said or 'nothing'}.")
    if inputs[0].type == _UINT8 and (given := [key for key in ("mean", "std") if key in options]):
        raise InvalidInputError(f"{path} takes uint8, which it normalises itself; {' and '.join(given)} would have no effect.")
    sides = {key: side for key, side in zip(("height", "width"), shape[2:], strict=True) if isinstance(side, int)}
    settings = pixel_settings({**sides, **options}, where=str(path))
    if any(getattr(settings, key) != side for key, side in sides.items()):
        asked = f"{settings.height} x {settings.width}"
        raise InvalidInputError(f"{path} takes images of {shape[2]} x {shape[3]} pixels alone; asked for {asked}. Leave the size out.")
    return settings


def _session(path: Path, threads: int) -> Any:
    library = onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone, and those are raised
    try:
        return library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's errors have no root of their own
        raise DamagedFileError(f"{path} must be an ONNX model that ONNX Runtime opens; it does not: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise MissingFileError(f"{path} must be an .onnx file that can be read; {error.strerror or error}.") from None


def _file_hash(path: Path) -> str:
    return hashlib.sha256(_bytes(path)).hexdigest()


def _data_hashes(path: Path) -> dict[str, str]:
    """The hashes of the files beside an ONNX file that hold its weights."""
    data = _bytes(path)
    try:
        named = sorted(set(_locations(data, "model", 0, len(data))))
    except (ValueError, IndexError) as error:
        raise DamagedFileError(f"{path} must be an ONNX model; it is truncated, foreign or damaged ({error}).") from error
    for name in named:
        parts = PureWindowsPath(name)  # knows both separators
        if not name or parts.anchor or ".." in parts.parts:
            raise InvalidInputError(f"{path} must have its weights in its own folder; it names {name!r}. Save it with relative names.")
        if not (path.parent / name).is_file():
            raise MissingFileError(f"{path} has weights in {path.parent / name}, which is not there. Copy the two together.")
    return {name: file_digest(path.parent / name) for name in named}


def _locations(data: bytes, kind: str, start: int, end: int) -> Iterator[str]:
    """The files that the tensors of a message of ONNX lie in."""
    for number, first, last in _fields(data, start, end):
        if kind == "tensor" and number == _EXTERNAL:
            entry = dict(_fields_of(data, first, last))
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8")
        elif inner := _HOLDS.get(kind, {}).get(number):
            yield from _locations(data, inner, first, last)


def _fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field of a protobuf message, and an error where the bytes are none."""
    end = len(data) if end is None else end
    while start < end:
        tag, start = _number(data, start, end)
        kind = tag & 7
        if kind == 0:
            stop = _number(data, start, end)[1]
        elif kind == 2:
            length, start = _number(data, start, end)
            stop = start + length
        elif kind in (1, 5):
            stop = start + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"no protobuf field at byte {start}")
        if stop > end:
            raise ValueError(f"the field at byte {start} has {stop - end} bytes less than announced")
        yield tag >> 3, start, stop
        start = stop


def _fields_of(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    return ((number, data[first:last]) for number, first, last in _fields(data, start, end))


def _number(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A protobuf varint, and where it ends."""
    value = shift = 0
    for place in range(start, min(end, start + 10)):
        value |= (data[place] & 127) << shift
        shift += 7
        if data[place] < 128:
            return value, place + 1
    raise ValueError(f"no number at byte {start}")


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
