"""Image and depth files in and out, through Pillow: the data half's only door to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path

DEPTH_INVALID = (0, 65535)
"""Raw depth values (millimetres) that mean "no measurement" in the 7-Scenes files: both occur."""


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB, upright.

    EXIF orientation is applied; grey, palette and CMYK images become RGB, and alpha is dropped.

    Args:
        path: a JPEG, PNG or any other file that Pillow decodes.

    Returns:
        (height, width, 3) uint8.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode (no image, or truncated).
    """
    with _Opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(upright.convert("RGB"), dtype=np.uint8)


def read_depth(path: str | Path, *, scale: float = 0.001) -> NDArray[np.float32]:
    """Decode a 16-bit depth map to metres; pixels without a measurement are 0.

    Raw 0 and raw 65535 both mean "no measurement" (the 7-Scenes files hold both).

    Args:
        path: a single-channel 16-bit PNG.
        scale: metres per raw unit; 0.001 for the millimetres of 7-Scenes.

    Returns:
        (height, width) float32, metres along the optical axis, 0 where unknown.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode, or is no single-channel map.
    """
    with _Opened(path) as image:
        if image.mode not in ("I;16", "I;16B", "I", "L"):
            raise DamagedFileError(
                f"A depth map must be a single-channel 16-bit PNG; {path} has mode {image.mode!r}. Is it the colour image?"
            )
        raw = np.asarray(image)
    valid = ~np.isin(raw, DEPTH_INVALID)
    return np.where(valid, raw * np.float32(scale), 0).astype(np.float32)


def write_image(path: str | Path, pixels: NDArray[np.uint8]) -> Path:
    """Write (height, width, 3) uint8 as the format that the file name says (PNG is lossless); returns the path.

    Raises:
        InvalidInputError: the array is no RGB uint8 image.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InvalidInputError(f"An image must be (height, width, 3) uint8; got {pixels.dtype} {pixels.shape} for {path}.")
    return _write(path, Image.fromarray(pixels))


def write_depth(path: str | Path, depth: NDArray[np.float32], *, scale: float = 0.001) -> Path:
    """Write metres as a 16-bit PNG, 65535 where the depth is unknown (0) or too far to be stored; returns the path.

    `read_depth(write_depth(d))` equals `d` to half a raw unit (0.5 mm at the default scale).

    Raises:
        InvalidInputError: the array is not two-dimensional or holds a negative or non-finite depth.
    """
    depth = np.asarray(depth)
    if depth.ndim != 2 or not np.isfinite(depth).all() or (depth < 0).any():
        raise InvalidInputError(f"A depth map must be (height, width), finite and >= 0 metres; got shape {depth.shape} for {path}.")
    raw = np.rint(depth / scale)
    raw = np.where((raw < 1) | (raw > 65534), 65535, raw).astype(np.uint16)
    return _write(path, Image.fromarray(raw))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels as `read_image` would give it, from the header alone."""
    with _Opened(path) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def has_gps(path: str | Path) -> bool:
    """Whether an image file's EXIF data holds a GPS block, from its header alone."""
    with _Opened(path) as image:
        return bool(image.getexif().get_ifd(0x8825))


class _Opened:
    """Open an image file for reading; any failure inside, decoding included, is an error of ours that names the file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.image: Image.Image | None = None

    def __enter__(self) -> Image.Image:
        try:
            self.image = Image.open(self.path)
        except FileNotFoundError:
            raise MissingFileError(
                f"The image {self.path} must exist; there is no such file. Check the data folder, or that it was unpacked whole."
            ) from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise self._damaged(error) from error
        return self.image

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if self.image is not None:
            self.image.close()
        if isinstance(error, (OSError, SyntaxError, ValueError)) and not isinstance(error, (DamagedFileError, InvalidInputError)):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> DamagedFileError:
        return DamagedFileError(f"{self.path} must decode as an image; it does not ({error}). Fetch it again, or remove it from the set.")


def _write(path: str | Path, image: Image.Image) -> Path:
    with atomic_path(path) as temporary:
        image.save(temporary, format=Image.registered_extensions().get(Path(path).suffix.lower(), "PNG"))
    return Path(path)
