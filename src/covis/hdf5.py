"""h5py, imported here alone and when it is needed."""

from __future__ import annotations

from types import ModuleType

from covis.errors import MissingExtraError


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
