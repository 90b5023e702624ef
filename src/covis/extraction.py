"""Extraction: a model and images become Descriptors; and the tiny grey image, the descriptor that learns nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from covis.descriptors import Descriptors, DescriptorWriter
from covis.errors import InvalidInputError, MissingFileError, SettingsDifferError
from covis.files import digest
from covis.images import Images
from covis.models.describers import Describer, describe_blocks
from covis.rasters import read_image


def extract(
    model: Describer,
    images: Images,
    *,
    out: str | Path | None = None,
    batch: int = 32,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
    progress: bool = False,
) -> Descriptors:
    """Describe every image of a table.

    With `out`, the vectors are written as they come and opened as a memory map at the end; a killed extraction goes
    on where it was. A finished folder of the same model, images and type is returned as it is.

    Args:
        model: runs where its weights are, in eval mode.
        images: the table; every file is looked for before the first is described.
        out: the folder to write; absent, the vectors stay in memory.
        batch: images that the network sees at once; the vectors do not depend on it (to 1e-6).
        dtype: "float32" or "float16".
        overwrite: replace a finished folder of another model, other images or another type.
        progress: show a bar on stderr.

    Returns:
        (n, d) vectors with the images' names, the model's hash, and the settings in `history["extracted"]`.

    Raises:
        MissingFileError: an image is not there.
        DamagedFileError: an image does not decode, or `out` holds something else.
        SettingsDifferError: `out` was made, or begun, with another model, images or type.
        InvalidInputError: a descriptor is not finite; the message names the image.
    """
    if dtype not in ("float32", "float16"):
        raise InvalidInputError(f"The type of descriptors must be 'float32' or 'float16'; got {dtype!r}.")
    made_by, settings = (
        model.digest,
        {
            "height": model.height,
            "width": model.width,
            "resize": model.resize,
            "dtype": dtype,
            "files": _sizes_digest(images),
        },
    )
    if out is None:
        memory = _Memory(np.empty((len(images), model.dim), dtype=dtype))
        _describe_into(memory, model, images, batch=batch, progress=progress)
        return Descriptors(memory.vectors, images.names, made_by, {"extracted": settings})
    if Path(out).exists() and not overwrite:
        return _finished(Path(out), images.names, made_by, settings)
    writer = DescriptorWriter(out, images.names, dim=model.dim, model=made_by, dtype=dtype, settings=settings)
    _describe_into(writer, model, images, batch=batch, progress=progress)
    return writer.finish()


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

    @property
    def done(self) -> int: ...

    def append(self, block: NDArray[np.floating[Any]]) -> None: ...


class _Memory:
    def __init__(self, vectors: NDArray[np.floating[Any]]) -> None:
        self.vectors, self.done = vectors, 0

    def append(self, block: NDArray[np.floating[Any]]) -> None:
        self.vectors[self.done : self.done + len(block)] = block
        self.done += len(block)


def _describe_into(sink: _Sink, model: Describer, images: Images, *, batch: int, progress: bool) -> None:
    """Describe the rows that the sink has not got."""
    row = sink.done
    paths = [images.path(number) for number in range(row, len(images))]
    with _bar(len(images), shown=progress) as bar:
        for block in describe_blocks(model, paths, batch=batch):
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if bad.size:
                raise InvalidInputError(
                    f"Every descriptor must be finite; that of {images.path(row + int(bad[0]))} is not. "
                    f"The model {model.digest} has diverged, or its weights are wrong."
                )
            sink.append(block)
            row += len(block)
            bar.update(bar.task_ids[0], completed=row)


def _finished(path: Path, names: tuple[str, ...], model: str, settings: Mapping[str, Any]) -> Descriptors:
    """The folder's descriptors, if they are what would be extracted now."""
    found = Descriptors.load(path)
    stored, wanted = {"model": found.model, **dict(found.history.get("extracted", {}))}, {"model": model, **settings}
    different = [f"{key}: {stored.get(key)!r} there, {wanted[key]!r} now" for key in wanted if stored.get(key) != wanted[key]]
    if found.names != names:
        different.append(f"names: {len(found)} images there, {len(names)} now" if len(found) != len(names) else "names")
    if different:
        raise SettingsDifferError(
            f"{path} was extracted with other settings ({'; '.join(different)}). Choose another --out, or pass --overwrite."
        )
    return found


def _sizes_digest(images: Images) -> str:
    """A hash of the files' sizes: other photographs under the same names are noticed without reading them."""
    sizes = []
    for row in range(len(images)):
        try:
            sizes.append(images.path(row).stat().st_size)
        except FileNotFoundError:
            raise MissingFileError(
                f"The image {images.path(row)} must exist; there is no such file. Check the data folder, or that it was unpacked whole."
            ) from None
    return digest(sizes)


@contextmanager
def _bar(total: int, *, shown: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        bar.add_task("images", total=total)
        yield bar
