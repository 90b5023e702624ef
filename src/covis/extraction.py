"""Extraction: a model and images become Descriptors; and the tiny grey image, the descriptor that learns nothing."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, SettingsDifferError
from covis.images import Images, LabelMaps, files_of
from covis.models.describers import Describer
from covis.pixels import decode_each
from covis.progress import showing
from covis.rasters import read_image
from covis.unfinished import DescriptorWriter, clear_traces

Store = Literal["float32", "float16"]
Damaged = Literal["stop", "skip"]
Files: TypeAlias = "Images | LabelMaps"

_LARGEST_HALF = 65504.0
_LEAST_HALF = 2.0**-25  # half of the smallest number above 0: from here on it is not rounded to 0


def extract(
    model: Describer,
    images: Images,
    *,
    out: str | Path | None = None,
    batch: int = 32,
    dtype: Store = "float32",
    damaged: Damaged = "stop",
    overwrite: bool = False,
    progress: bool = False,
) -> Descriptors:
    """Describe every image of a table.

    With `out`, the vectors are written as they come and opened as a memory map at the end; a killed extraction goes
    on where it was, and ends with the same bytes. A finished folder of the same model, images and type is returned as it is.

    Args:
        model: anything that describes; it runs where its weights are, a network in eval mode.
        images: the table; every file is looked for before the first is described. Of a network that reads label maps
            (`settings.encoding`), the files of the column segmentation.
        out: the folder to write; absent, the vectors stay in memory.
        batch: images that the network sees at once; the vectors do not depend on it (to 1e-6).
        dtype: "float32" or "float16".
        damaged: what becomes of an image that is missing or does not decode. "stop": it is an error; what was described before
            is kept. "skip": it has no row, `names` lack it, `history["extracted"]["skipped"]` has its name and the reason, and a
            CovisWarning says how many there are.
        overwrite: replace a finished folder, and begin anew where an unfinished one is of another model, other images or another type.
        progress: show on stderr how many are done, how fast, and how long it still takes.

    Returns:
        (n, d) vectors with the images' names and the model's hash. `history["extracted"]` holds the size and the way to it,
        the type, a hash of the files' sizes, and what computed: `engine`, a list with more than one name where an extraction was
        stopped and went on with another. An engine differs from another by rounding alone, and is not compared.

    Raises:
        MissingFileError: an image is not there.
        DamagedFileError: an image does not decode, or none of them does, or `out` holds something else.
        SettingsDifferError: `out` was made, or begun, with another model, images or type, or lacks images and "stop" is asked for.
        InvalidInputError: a descriptor is not finite, or too large for float16; the message names the image.
        OutputExistsError: `out` is a file, or a folder of something else.
        OutputFailedError: the disk is full, or does not let itself be written.
    """
    _check(batch, dtype, damaged)
    files = files_of(images, model.resize)
    sizes, times = _stamps(files)
    if damaged == "stop":
        _check_all_there(files, sizes)
    made_by, height, width = model.digest, model.height, model.width
    settings = {"height": height, "width": width, "resize": model.resize, "dtype": dtype, "files": _digest(sizes)}
    if out is not None and _is_there(Path(out)) and not overwrite:
        found = _finished(Path(out), images.names, {"model": made_by, **settings}, damaged=damaged)
        _warn_of_changes(Path(out), files, times)
        return found
    sink: _Sink
    if out is None:
        sink = _Memory(images.names, model, dtype=dtype, settings=settings, digest=made_by)
    else:
        sink = DescriptorWriter(
            out,
            images.names,
            dim=model.dim,
            model=made_by,
            dtype=dtype,
            settings=settings,
            sizes=sizes,
            engine=model.engine,
            overwrite=overwrite,
        )
    with sink:
        if damaged == "stop" and sink.skipped:
            raise SettingsDifferError(
                f"{out} was begun with damaged = 'skip', and {len(sink.skipped)} images were left out, the first "
                f"{sink.skipped[0]['name']}; "
                "now it is 'stop'. Skip them again, or pass --overwrite to begin anew."
            )
        kept = sizes if damaged == "skip" else None
        _describe_into(sink, model, files, batch=batch, dtype=dtype, sizes=kept, progress=progress)
        if images.names and not sink.rows:
            sink.discard()
            raise DamagedFileError(
                f"At least one image must decode; none of the {len(images)} in {images.root} does. The first: {sink.skipped[0]['reason']}"
            )
        described = sink.finish()
    _warn_of(described, len(images))
    return described


def tiny_images(images: Images, *, height: int = 12, width: int = 16) -> Descriptors:
    """The tiny grey image as a descriptor: the baseline that learns nothing.

    Grey (ITU-R 601), resized with Pillow's antialiased bilinear filter, less its mean, divided by its L2 norm. An
    image of one grey value gives the zero vector, as far from every other.

    Args:
        images: the table.
        height: pixels.
        width: pixels.

    Returns:
        (n, height * width) float32, row by row; the model is named "tiny/HEIGHTxWIDTH".

    Raises:
        InvalidInputError: a size is less than 1 pixel.
        MissingFileError: an image is not there.
        DamagedFileError: an image does not decode.
    """
    if height < 1 or width < 1:
        raise InvalidInputError(f"A tiny image must have at least 1 x 1 pixels; got {height} x {width}.")
    vectors = np.zeros((len(images), height * width), dtype=np.float32)
    for row in range(len(images)):
        grey = Image.fromarray(read_image(images.path(row))).convert("L").resize((width, height), Image.Resampling.BILINEAR)
        centred = np.asarray(grey, dtype=np.float64).ravel()
        centred = centred - centred.mean()
        vectors[row] = centred / max(float(np.linalg.norm(centred)), 1e-12)
    return Descriptors(vectors, images.names, f"tiny/{height}x{width}")


class _Sink(Protocol):
    """Where rows go: memory, or a folder that remembers how many it has."""

    done: int
    rows: int
    skipped: list[dict[str, str]]

    def append(self, block: NDArray[np.floating[Any]], *, skipped: Sequence[Mapping[str, str]] = ()) -> None: ...

    def finish(self) -> Descriptors: ...

    def discard(self) -> None: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...


class _Memory:
    def __init__(self, names: tuple[str, ...], model: Describer, *, dtype: Store, settings: Mapping[str, Any], digest: str) -> None:
        self.vectors = np.empty((len(names), model.dim), dtype=dtype)  # the system hands out the pages as they are written
        self.names, self.settings, self.digest, self.engine = names, settings, digest, model.engine
        self.done = self.rows = 0
        self.skipped: list[dict[str, str]] = []

    def append(self, block: NDArray[np.floating[Any]], *, skipped: Sequence[Mapping[str, str]] = ()) -> None:
        self.vectors[self.rows : self.rows + len(block)] = block
        self.rows += len(block)
        self.done += len(block) + len(skipped)
        self.skipped += [dict(one) for one in skipped]

    def finish(self) -> Descriptors:
        history = {"extracted": {**self.settings, "engine": [self.engine] if self.rows else []}}
        if not self.skipped:
            return Descriptors(self.vectors, self.names, self.digest, history)
        history["extracted"]["skipped"] = self.skipped
        return Descriptors(self.vectors[: self.rows], _without(self.names, self.skipped), self.digest, history)

    def discard(self) -> None: ...

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *_: object) -> None: ...


class _Paths(Sequence[Path]):
    """The files of a table from one row on, made when they are asked for: a list of a million paths would be 200 MB."""

    def __init__(self, images: Files, first: int) -> None:
        self._images, self._first = images, first

    def __len__(self) -> int:
        return len(self._images) - self._first

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> list[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | list[Path]:
        if isinstance(row, slice):
            return [self._images.path(self._first + one) for one in range(*row.indices(len(self)))]
        return self._images.path(self._first + row)


def _describe_into(
    sink: _Sink, model: Describer, images: Files, *, batch: int, dtype: Store, sizes: NDArray[np.int64] | None, progress: bool
) -> None:
    """Describe the images that the sink has not got, in whole batches, so that a resumed extraction has the same ones.

    With `sizes`, those of the files at the start, what is damaged is skipped.
    """
    row, what = sink.done, f"images ({model.engine}{_device(model)})"
    batches = decode_each(_Paths(images, row), height=model.height, width=model.width, resize=model.resize, batch=batch)
    with showing(len(images), done=row, what=what, shown=progress) as tell, closing(batches), _full_precision(model):
        for pixels, failed in batches:
            if failed and sizes is None:
                raise failed[min(failed)]
            for position, error in sorted(failed.items()):
                _check_lasting(error, there=sizes is not None and bool(sizes[row + position] >= 0))
            count = len(pixels) + len(failed)
            names = [images.names[row + position] for position in range(count) if position not in failed]
            block = model.describe_pixels(pixels) if len(pixels) else np.zeros((0, model.dim), dtype=np.float32)
            _check_block(block, names, model, dtype)
            sink.append(block, skipped=[_skipped(images, row + position, error) for position, error in sorted(failed.items())])
            row += count
            tell(row)


def _check(batch: int, dtype: str, damaged: str) -> None:
    if dtype not in get_args(Store):
        raise InvalidInputError(f"The type of descriptors must be 'float32' or 'float16'; got {dtype!r}.")
    if damaged not in get_args(Damaged):
        raise InvalidInputError(f"What becomes of damaged images must be 'stop' or 'skip'; got {damaged!r}.")
    if batch < 1:
        raise InvalidInputError(f"A batch must hold at least 1 image; got {batch}.")


def _check_block(block: NDArray[np.floating[Any]], names: Sequence[str], model: Describer, dtype: Store) -> None:
    """One finite row an image, of values that the type can hold."""
    if block.shape != (len(names), model.dim):
        raise InvalidInputError(f"A describer must give ({len(names)}, {model.dim}) for {len(names)} images; it gave {block.shape}.")
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise InvalidInputError(
            f"Every descriptor must be finite; that of {names[bad[0]]} is not. "
            f"The model {model.digest} has diverged, or its weights are wrong."
        )
    if dtype == "float16" and block.size and (lost := np.flatnonzero(block.any(axis=1) & (np.abs(block).max(axis=1) < _LEAST_HALF))).size:
        raise InvalidInputError(
            f"A descriptor must keep a value above 0 to be stored as float16; that of {names[lost[0]]} has at most "
            f"{np.abs(block[lost[0]]).max():.3g}. Store float32, or let the model normalize."
        )
    if dtype == "float16" and block.size and (largest := np.abs(block).max(axis=1)).max() > _LARGEST_HALF:
        row = int(largest.argmax())
        raise InvalidInputError(
            f"A value must be at most {_LARGEST_HALF:.0f} to be stored as float16; the descriptor of {names[row]} has {largest[row]:.6g}. "
            "Store float32, or let the model normalize."
        )


def _check_lasting(error: Exception, *, there: bool) -> None:
    """Raise where an image that was there cannot be read any more: a disk that went away damages no image."""
    cause = error.__cause__
    if there and (isinstance(error, MissingFileError) or (isinstance(cause, OSError) and cause.errno is not None)):
        raise error


def _skipped(images: Files, row: int, error: Exception) -> dict[str, str]:
    """Name and reason; without the folder, so that the record does not depend on where the images lie."""
    reason = str(error).replace(str(images.path(row)), images.names[row])
    return {"name": images.names[row], "reason": reason.encode("utf-8", "replace").decode("utf-8")}


def _without(names: tuple[str, ...], skipped: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    lacking = {one["name"] for one in skipped}
    return tuple(name for name in names if name not in lacking)


def _warn_of(described: Descriptors, count: int) -> None:
    skipped = described.history["extracted"].get("skipped", ())
    if skipped:
        warnings.warn(f"{len(skipped)} of {count} images have no descriptor. The first: {skipped[0]['reason']}", CovisWarning, stacklevel=3)


def _is_there(path: Path) -> bool:
    """Whether something is in the way; an empty folder is not."""
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"Descriptors are a folder; {path} is a file. Choose another --out, or remove it.")
    return path.exists() and any(path.iterdir())


def _finished(path: Path, names: tuple[str, ...], wanted: Mapping[str, Any], *, damaged: Damaged) -> Descriptors:
    """The folder's descriptors, if they are what would be extracted now."""
    found = Descriptors.load(path)
    stored = {"model": found.model, **dict(found.history.get("extracted", {}))}
    different = [f"{key}: {stored.get(key)!r} there, {wanted[key]!r} now" for key in wanted if stored.get(key) != wanted[key]]
    skipped = stored.get("skipped", ())
    expected = _without(names, skipped) if skipped else names
    if found.names != expected:
        different.append(f"names: {len(found)} images there, {len(names)} now" if len(found) != len(expected) else "names")
    if skipped and damaged == "stop":
        different.append(f"damaged: 'skip' there, without {len(skipped)} images, the first {skipped[0]['name']}; 'stop' now")
    if different:
        raise SettingsDifferError(
            f"{path} was extracted with other settings ({'; '.join(different)}). Choose another --out, or pass --overwrite."
        )
    clear_traces(path)
    _warn_of(found, len(names))
    return found


def _stamps(images: Files) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) the files' sizes in bytes, -1 where there is none, and (n,) the times of their last change, nanoseconds.

    A file of another size is another photograph, and need not be read.
    """
    sizes, times = np.full(len(images), -1, dtype=np.int64), np.zeros(len(images), dtype=np.int64)
    for row in range(len(images)):
        try:
            found = os.stat(images.path(row))
        except OSError:
            continue
        sizes[row], times[row] = found.st_size, found.st_mtime_ns
    return sizes, times


def _warn_of_changes(path: Path, images: Files, times: NDArray[np.int64]) -> None:
    """Say where files of the same size are newer than what was described: uncompressed images of one shape all have one size.

    A warning, since a copy may have new times.
    """
    newer = np.flatnonzero(times > (path / "header.json").stat().st_mtime_ns)
    if newer.size:
        warnings.warn(
            f"{newer.size} of {len(images)} images in {images.root} have the size that was described in {path}, but were written since. "
            f"The first: {images.names[newer[0]]}. If they are other photographs, and no copies, describe them anew (--overwrite).",
            CovisWarning,
            stacklevel=3,
        )


def _check_all_there(images: Files, sizes: NDArray[np.int64]) -> None:
    missing = np.flatnonzero(sizes < 0)
    if missing.size:
        raise MissingFileError(
            f"Every image must exist; {missing.size} of {len(images)} do not. The first: {images.path(int(missing[0]))}. "
            "Check the data folder, or that it was unpacked whole; or skip what is damaged (--damaged skip)."
        )


def _digest(sizes: NDArray[np.int64]) -> str:
    """What `files.digest` gives for the list of sizes, null where there is no file, without making the list."""
    found = hashlib.sha256(b"[")
    for start in range(0, len(sizes), 4096):
        part = ", ".join("null" if size < 0 else str(size) for size in sizes[start : start + 4096].tolist())
        found.update((", " if start else "").encode() + part.encode())
    found.update(b"]")
    return found.hexdigest()[:16]


def _device(model: Describer) -> str:
    first = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return "" if first is None else f", {first.device}"


@contextmanager
def _full_precision(model: Describer) -> Iterator[None]:
    """On a GPU convolutions in float32, not in TF32, whose rounding (1e-3) would depend on the batch."""
    if not isinstance(model, torch.nn.Module) or not any(one.is_cuda for one in model.parameters()):
        yield
        return
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
