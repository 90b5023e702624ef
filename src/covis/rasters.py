"""Image and depth files in and out, through Pillow: the data half's door to pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.files import atomic_path

DEPTH_INVALID = (0, 65535)
"""Raw depth values (millimetres) that mean "no measurement" in the 7-Scenes files: both occur."""
NOTE = "covis"
"""The text entry of a label map's PNG that holds its note."""

_ORIENTATION = 0x0112  # EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Grey PNGs of 2 and 4 bits: Pillow spreads their numbers over 0 to 255, by these steps."""
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262  # TIFF


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to RGB, upright; what becomes of 16 bits, alpha and the like, `upright_rgb` says.

    Args:
        path: a JPEG, PNG or any other file that Pillow decodes; of several frames or pages the first.

    Returns:
        (height, width, 3) uint8.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode (no image, truncated, too large, or without a range of values).
    """
    return np.asarray(read_picture(path), dtype=np.uint8)


def read_picture(path: str | Path) -> Image.Image:
    """What `read_image` reads, as a Pillow image: what is resized next need not become an array first.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode.
    """
    with _Opened(path) as image:
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """A Pillow image as 8-bit RGB, turned as its EXIF orientation says; the image itself where it is that already.

    Grey becomes three equal channels. Of 16 bits the upper eight are kept, which is what Pillow does to 16-bit colour. CMYK is
    converted without a colour profile, as Pillow does. Alpha is dropped, not blended, and so is a palette's transparency: the
    colours are those that the file stores, as torchvision's loaders have them.

    Args:
        image: of any mode of Pillow.

    Returns:
        of mode "RGB".

    Raises:
        InvalidInputError: the values have no range that says what is white: floats, or integers beyond 16 bits.

    >>> upright_rgb(Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))).getpixel((2, 0))
    (1, 1, 1)
    """
    image.load()  # a TIFF is turned by Pillow when it is loaded, and says so from then on
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    if image.mode.startswith("I") or image.mode == "F":
        image = _upper_bits(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns; the colours are the same
    return image if image.mode == "RGB" else image.convert("RGB")


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


def read_label_map(path: str | Path) -> NDArray[np.uint8]:
    """Decode a map of class numbers, one a pixel, upright; a palette's colours are only for looking.

    Args:
        path: a PNG of one channel, of 1 to 8 bits, or of 16 with numbers up to 255. Other formats are refused: some store
            with loss, and Pillow turns the numbers of others.

    Returns:
        (height, width) uint8.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: the file does not decode, is no PNG, has several channels, or numbers beyond 255.
    """
    with _Opened(path) as image:
        if image.format != "PNG":
            raise DamagedFileError(
                f"A label map must be a PNG, which keeps numbers as they are; {path} is {image.format}. Write it as PNG."
            )
        if image.mode not in ("L", "P", "1", "I;16", "I;16B", "I"):
            raise DamagedFileError(
                f"A label map must be a single-channel image of class numbers; {path} has mode {image.mode!r}. "
                "Is it a photograph, or a map in colours? Give the map of numbers."
            )
        spread = _GREY_STEPS.get(_raw_mode(image), 1)
        image.load()
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        numbers = np.asarray(image if turn is None else image.transpose(turn)) // spread
    if numbers.size and (numbers.min() < 0 or numbers.max() > 255):
        raise DamagedFileError(f"A label map must hold class numbers from 0 to 255; {path} reaches {int(numbers.max())}.")
    return numbers.astype(np.uint8)


def write_label_map(
    path: str | Path, numbers: NDArray[np.uint8], *, palette: NDArray[np.uint8] | None = None, note: Mapping[str, object] | None = None
) -> Path:
    """Write class numbers as a PNG of one channel, atomically; returns the path.

    Args:
        path: ending in .png.
        numbers: (height, width) uint8, of at least one pixel.
        palette: (256, 3) uint8, colours to look at; the numbers stay what they are.
        note: plain values, which stand in the file's text before the pixels; `semantics.notes.read_note` gives them back.

    Raises:
        InvalidInputError: the array is no map of numbers, the palette is none, or the file is no PNG.
    """
    numbers = np.asarray(numbers)
    if numbers.dtype != np.uint8 or numbers.ndim != 2 or not numbers.size or Path(path).suffix.lower() != ".png":
        raise InvalidInputError(f"A label map must be (height, width) uint8 and a .png; got {numbers.dtype} {numbers.shape} for {path}.")
    image = Image.fromarray(numbers)
    if palette is not None:
        colours = np.asarray(palette)
        if colours.dtype != np.uint8 or colours.shape != (256, 3):
            raise InvalidInputError(f"A palette must be (256, 3) uint8; got {colours.dtype} {colours.shape} for {path}.")
        image.putpalette(colours.ravel().tolist())
    text = PngInfo()
    if note is not None:
        text.add_text(NOTE, json.dumps(note, sort_keys=True))  # ASCII, which is all that such a text holds
    return _write(path, image, pnginfo=text)


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
        tags = getattr(image, "tag_v2", {})  # of a TIFF, whose size Pillow gives turned already, or not, as its version is
        width, height = int(tags.get(_WIDTH, image.width)), int(tags.get(_HEIGHT, image.height))
        turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def has_gps(path: str | Path) -> bool:
    """Whether an image file's EXIF data holds a GPS block, from its header alone."""
    with _Opened(path) as image:
        return bool(image.getexif().get_ifd(0x8825))


def _raw_mode(image: Image.Image) -> str:
    """How the file stores its pixels; known until they are loaded."""
    tiles = getattr(image, "tile", None) or [(None, None, None, "")]  # of a file that is open
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _upper_bits(image: Image.Image) -> Image.Image:
    """The upper eight bits of a grey image of 16, or 12."""
    if image.mode == "F":
        raise InvalidInputError("floats have no range that says what is white; store it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    bits = 12 if tags.get(_BITS, (16,))[0] == 12 else 16  # Pillow gives the values of both as they are
    raw = np.asarray(image)
    if tags.get(_BITS, (16,))[0] == 32 and raw.size and 0 <= raw.max() < 256:
        raise InvalidInputError(f"its integers of 32 bits reach only {raw.max()}, and nothing says which is white; store it with 8 bits")
    if raw.size and (raw.min() < 0 or raw.max() >= 2**bits):
        raise InvalidInputError(
            f"its values must be in [0, {2**bits - 1}] to be taken for {bits} bits, found {raw.min()} to {raw.max()}; "
            "store it with 8 or 16 bits"
        )
    grey = (raw.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # Pillow turns that round for 8 bits alone
    return Image.fromarray(255 - grey if white_is_zero else grey)


class _Opened:
    """Open an image file for reading; any failure inside, decoding included, is an error of ours that names the file.

    Pillow gets a stream and not the path: it would map some files into memory, where a truncated one stops the process, and where
    it turns uncompressed grey TIFFs wrongly.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Image.Image:
        try:
            self.stream = self.path.open("rb")
        except FileNotFoundError:
            raise MissingFileError(
                f"The image {self.path} must exist; there is no such file. Check the data folder, or that it was unpacked whole."
            ) from None
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        try:
            return Image.open(self.stream)
        except MemoryError:
            self.stream.close()
            raise
        except Exception as error:  # decoders of damaged files raise anything: struct.error, TypeError, IndexError, a warning made an error
            self.stream.close()
            raise self._damaged(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self.stream.close()
        if isinstance(error, Exception) and not isinstance(error, (DamagedFileError, MemoryError)):
            raise self._damaged(error) from error

    def _damaged(self, error: BaseException) -> DamagedFileError:
        advice, reason = "Fetch it again, or remove it from the set.", str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = "it is of no kind that Pillow knows" if self.path.stat().st_size else "it is empty"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        elif isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            advice = "Store it smaller, or remove it from the set."
        elif isinstance(error, InvalidInputError):
            advice = "Or remove it from the set."
        return DamagedFileError(f"{self.path} must decode as an image; it does not ({reason}). {advice}")


def _write(path: str | Path, image: Image.Image, **options: PngInfo) -> Path:
    with atomic_path(path) as temporary:
        image.save(temporary, format=Image.registered_extensions().get(Path(path).suffix.lower(), "PNG"), **options)
    return Path(path)
