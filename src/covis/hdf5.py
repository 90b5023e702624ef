"""h5py, imported here alone and when it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from covis.errors import CovisError, DamagedFileError, MissingExtraError, MissingFileError


def h5py() -> ModuleType:
    """The library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import h5py as library
    except ImportError as error:
        raise MissingExtraError("HDF5 files need the library h5py, which is not installed: pip install covis[h5]") from error
    module: ModuleType = library
    return module


@contextmanager
def opened(path: str | Path, *, what: str) -> Iterator[Any]:
    """A file, opened to be read; whatever HDF5 finds wrong inside becomes an error of ours that names it.

    Args:
        path: the file.
        what: it is, for the message.

    Raises:
        MissingExtraError: h5py is not installed.
        MissingFileError: there is no such file.
        DamagedFileError: it is no HDF5 file, or truncated.
    """
    library = h5py()
    if not Path(path).is_file():
        raise MissingFileError(f"{what} {path} must exist; there is no such file.")
    try:
        with library.File(path, "r") as file:
            yield file
    except CovisError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise DamagedFileError(
            f"{path} must be a whole HDF5 file; it is truncated or foreign ({error}). Fetch or write it again."
        ) from error
