"""Pixels: one way from a photograph to the network's input, and a store of decoded images for training.

Images travel as uint8 and become floats on the device that the network runs on. Batches are (n, 3, height, width) stored
channels last, which is how Pillow decodes and how convolutions run fastest on a CPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError
from covis.rasters import read_label_map, read_picture, upright_rgb

ImageLike: TypeAlias = "str | os.PathLike[str] | NDArray[np.uint8] | Image.Image"
"""A path, an array (height, width, 3) or (height, width) of uint8, or a Pillow image."""

PhotoResize: TypeAlias = Literal["pil", "pil-crop"]
"""How a photograph gets to the network's size."""

Resize: TypeAlias = Literal["pil", "pil-crop", "labels"]
"""How an image gets to the network's size. "pil" and "pil-crop" by Pillow's antialiased bilinear filter: both sides, the aspect
ratio is not kept (torchvision's `Resize((height, width))`); or the shorter side, then the centre is cut out (`Resize(side)` and
`CenterCrop(side)`), for squares alone. "labels" is for maps of class numbers, of one channel: both sides, each pixel the nearest
one's number."""

STORE_BYTES = 2 * 1024**3
"""How much memory a `PixelStore` takes unless it is told otherwise."""

_AHEAD = 2  # batches that are being decoded while the network works on another


def decode(image: ImageLike, *, height: int, width: int, resize: Resize = "pil") -> NDArray[np.uint8]:
    """Bring an image to the network's size: upright, RGB, resized with Pillow's antialiased bilinear filter.

    An image that has the size already keeps its pixels. The pixels are those of torchvision's transforms of Pillow
    images, bit for bit.

    Args:
        image: a path, an array of uint8 (height, width, 3) or (height, width), or a Pillow image.
        height: pixels of the result.
        width: pixels of the result.
        resize: "pil": to height and width, the aspect ratio is not kept; "pil-crop": the shorter side to the square's
            side, the longer one in proportion (rounded down), then the central square; "labels": the image is a map of
            class numbers (a path, or an array (height, width)), whose pixels take the nearest one's number.

    Returns:
        (3, height, width) uint8; (1, height, width) with "labels".

    Raises:
        InvalidInputError: the array is no uint8 image, the size is no positive number, or "pil-crop" is asked for
            what is no square.
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode.

    >>> decode(np.full((4, 6), 7, dtype=np.uint8), height=2, width=3).shape
    (3, 2, 3)
    >>> decode(np.array([[1, 2, 3, 4]], dtype=np.uint8), height=1, width=1, resize="pil-crop")[0].tolist()
    [[3]]
    """
    check_size(height, width, resize)
    return _rows_of_pixels(image, height, width, resize).transpose(2, 0, 1)


def check_size(height: int, width: int, resize: str) -> None:
    """Raise where no image can be brought to this size in this way.

    Raises:
        InvalidInputError: the size is no positive number, the way is none of `Resize`, or it is "pil-crop" and the size no square.
    """
    if height < 1 or width < 1:
        raise InvalidInputError(f"Height and width must be above 0: the size of an image is at least 1 x 1 pixels; got {height} x {width}.")
    if resize not in get_args(Resize):
        raise InvalidInputError(f"The way to resize must be one of {', '.join(get_args(Resize))}; got {resize!r}.")
    if resize == "pil-crop" and height != width:
        raise InvalidInputError(
            f'resize = "pil-crop" is defined for squares, height = width; got {height} x {width}. Choose a square, or resize = "pil".'
        )


def decode_ahead(
    images: Sequence[ImageLike], *, height: int, width: int, batch: int, resize: Resize = "pil", threads: int | None = None
) -> Iterator[torch.Tensor]:
    """Decode in threads while the caller works on the batch before.

    Args:
        images: n images, as `decode` takes them.
        height: pixels.
        width: pixels.
        batch: images a batch; the last one may be smaller.
        resize: as `decode` takes it.
        threads: decoding threads; absent, one a processor core, at most 8.

    Yields:
        (batch, 3, height, width) uint8, in the order of `images`.

    Raises:
        InvalidInputError: `batch` is less than 1, an image is none, or the size is not to be had.
        MissingFileError: a file is not there.
        DamagedFileError: a file does not decode.
    """
    with closing(decode_each(images, height=height, width=width, batch=batch, resize=resize, threads=threads)) as batches:
        for pixels, failed in batches:
            if failed:
                raise failed[min(failed)]
            yield pixels


def decode_each(
    images: Sequence[ImageLike], *, height: int, width: int, batch: int, resize: Resize = "pil", threads: int | None = None
) -> Generator[tuple[torch.Tensor, dict[int, CovisError]]]:
    """As `decode_ahead`, but a file that is missing or damaged leaves the others of its batch as they are.

    Args:
        images: n images, as `decode` takes them; asked for by slices, when they are about to be decoded.
        height: pixels.
        width: pixels.
        batch: images a batch; the last one may be smaller.
        resize: as `decode` takes it.
        threads: decoding threads; absent, one a processor core, at most 8.

    Yields:
        (g, 3, height, width) uint8: those of the batch that decoded, in order; and what is wrong with the others, by
        their position in the batch.

    Raises:
        InvalidInputError: `batch` is less than 1, an image is none, or the size is not to be had.
    """
    if batch < 1:
        raise InvalidInputError(f"A batch must hold at least 1 image; got {batch}.")
    check_size(height, width, resize)
    waiting: deque[list[Future[NDArray[np.uint8] | CovisError]]] = deque()
    pool = ThreadPoolExecutor(_threads(threads))
    try:
        for start in range(0, len(images), batch):
            waiting.append([pool.submit(_rows_or_error, image, height, width, resize) for image in images[start : start + batch]])
            if len(waiting) > _AHEAD:
                yield _sorted_out(waiting.popleft(), height, width, channels_of(resize))
        while waiting:
            yield _sorted_out(waiting.popleft(), height, width, channels_of(resize))
    finally:
        pool.shutdown(cancel_futures=True)


def channels_of(resize: Resize) -> int:
    """Channels of an image that is resized in this way: 3, or 1 of a map of class numbers."""
    return 1 if resize == "labels" else 3


def normalize(pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(pixels / 255 - mean) / std, per channel, on the device where `mean` lies.

    Args:
        pixels: (n, 3, height, width) uint8.
        mean: (3, 1, 1) of values in [0, 1].
        std: (3, 1, 1), > 0.

    Returns:
        (n, 3, height, width) of the type of `mean`.

    >>> half = torch.full((3, 1, 1), 0.5)
    >>> normalize(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 3, 1, 1), half, half)[:, 0, 0, 0].tolist()
    [-1.0, 1.0]
    """
    return pixels.to(mean.device, mean.dtype).div_(255).sub_(mean).div_(std)


class ImageFiles(Protocol):
    """A table of image files, by row; `Images` is one."""

    def __len__(self) -> int: ...

    def path(self, row: int) -> Path:
        """Where an image lies."""


class PixelStore:
    """The images of some scenes at the network's size, decoded when they are first asked for and kept as uint8.

    Up to `limit` bytes are kept; images beyond that are decoded again whenever they are asked for. The result does
    not depend on the limit.

    Args:
        images: one table a scene.
        height: pixels.
        width: pixels.
        resize: as `decode` takes it.
        limit: bytes of memory at most.
        threads: decoding threads; absent, one a processor core, at most 8.

    Raises:
        InvalidInputError: the size is not to be had in this way.
    """

    def __init__(
        self,
        images: Sequence[ImageFiles],
        height: int,
        width: int,
        *,
        resize: Resize = "pil",
        limit: int = STORE_BYTES,
        threads: int | None = None,
    ) -> None:
        check_size(height, width, resize)
        self._images, self._height, self._width, self._resize = list(images), height, width, resize
        self._start = np.cumsum([0, *map(len, self._images)])
        total = int(self._start[-1])
        room = min(total, limit // (height * width * channels_of(resize)))
        self._kept = np.empty(
            (max(room, 1), height, width, channels_of(resize)), dtype=np.uint8
        )  # the system hands out the pages as they are written
        self._room, self._used = room, 0
        self._slot = np.full(total, -1, dtype=np.int64)
        self._pool = ThreadPoolExecutor(_threads(threads))

    def __len__(self) -> int:
        return len(self._slot)

    @property
    def kept(self) -> int:
        """How many images are in memory."""
        return self._used

    def take(self, scene: NDArray[np.int64], row: NDArray[np.int64]) -> torch.Tensor:
        """The images of these rows of these scenes.

        Args:
            scene: (n,) numbers of scenes.
            row: (n,) rows within them.

        Returns:
            (n, 3, height, width) uint8; one channel with "labels".

        Raises:
            MissingFileError: a file is not there.
            DamagedFileError: a file does not decode.
        """
        index = self._start[scene] + row
        missing = np.unique(index[self._slot[index] < 0])
        decoded = dict(zip(missing.tolist(), self._pool.map(self._decode, missing.tolist()), strict=True)) if missing.size else {}
        for image, pixels in decoded.items():
            if self._used < self._room:
                self._kept[self._used] = pixels
                self._slot[image] = self._used
                self._used += 1
        slot = self._slot[index]
        batch = self._kept[np.maximum(slot, 0)]
        for position in np.flatnonzero(slot < 0):
            batch[position] = decoded[int(index[position])]
        return torch.from_numpy(batch).permute(0, 3, 1, 2)

    def close(self) -> None:
        """Let the decoding threads go."""
        self._pool.shutdown()

    def __enter__(self) -> PixelStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self, index: int) -> NDArray[np.uint8]:
        scene = int(np.searchsorted(self._start, index, side="right")) - 1
        return _rows_of_pixels(self._images[scene].path(index - int(self._start[scene])), self._height, self._width, self._resize)


def _rows_of_pixels(image: ImageLike, height: int, width: int, resize: Resize) -> NDArray[np.uint8]:
    """(height, width, 3) uint8, C-contiguous; (height, width, 1) with "labels"."""
    if resize == "labels":
        return _rows_of_labels(image, height, width)
    picture = _opened(image)
    if resize == "pil-crop":
        picture = _central_square(picture, side=height)
    elif picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8)


def _rows_of_labels(image: ImageLike, height: int, width: int) -> NDArray[np.uint8]:
    """A map of class numbers at the network's size: of each pixel's centre, the number there."""
    if isinstance(image, (str, os.PathLike)):
        numbers = _label_map(os.fspath(image))
    elif isinstance(image, Image.Image) and image.mode in ("L", "P"):
        numbers = np.asarray(image)
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 2 and image.size:
        numbers = image
    else:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidInputError(
            f"A label map must be a path, a Pillow image of one channel, or a uint8 array (height, width); got {found}."
        )
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip((height, width), numbers.shape, strict=True))
    return np.ascontiguousarray(numbers[rows[:, None], columns[None, :], None])


def _label_map(path: str) -> NDArray[np.uint8]:
    try:
        return read_label_map(path)
    except DamagedFileError as error:
        said = str(error)
    if not path.lower().endswith(".png"):  # a photograph, most likely
        said = f"A network that reads label maps takes no photographs. {said.removesuffix(' Write it as PNG.')}"
    raise DamagedFileError(said)  # out here no traceback keeps the file's pixels alive


def _central_square(picture: Image.Image, *, side: int) -> Image.Image:
    """The shorter side brought to `side`, then the centre cut out; rounded where torchvision rounds (down, then half to even)."""
    short = min(picture.size)
    if short != side:
        wide, high = (side if length == short else int(side * length / short) for length in picture.size)
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2.0) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _opened(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    if isinstance(image, (str, os.PathLike)):
        return read_picture(os.fspath(image))
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3))
        or not image.size
    ):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidInputError(
            f"An image must be a path, a Pillow image, or a uint8 array (height, width, 3) or (height, width); got {found}."
        )
    return Image.fromarray(image).convert("RGB")


def _rows_or_error(image: ImageLike, height: int, width: int, resize: Resize) -> NDArray[np.uint8] | CovisError:
    try:
        return _rows_of_pixels(image, height, width, resize)
    except (MissingFileError, DamagedFileError) as error:
        return error.with_traceback(None)  # which would keep the file's pixels alive


def _sorted_out(
    futures: Sequence[Future[NDArray[np.uint8] | CovisError]], height: int, width: int, channels: int
) -> tuple[torch.Tensor, dict[int, CovisError]]:
    found = [future.result() for future in futures]
    rows = [one for one in found if isinstance(one, np.ndarray)]
    stacked = np.stack(rows) if rows else np.empty((0, height, width, channels), dtype=np.uint8)
    failed = {position: one for position, one in enumerate(found) if isinstance(one, CovisError)}
    return torch.from_numpy(stacked).permute(0, 3, 1, 2), failed


def _threads(threads: int | None) -> int:
    return min(8, os.cpu_count() or 1) if threads is None else threads
