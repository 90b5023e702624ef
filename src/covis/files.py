"""Files that are whole or not there: atomic writes, headers with a version, hashes, and loads that trust no pickle."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, OutputFailedError

Arrays = Mapping[str, NDArray[Any]]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes its place in one step, on any failure it is removed.

    Works for a file and for a folder (an existing folder at `path` is replaced). A kill leaves `path` as it was.

    Raises:
        InvalidInputError: the path has no name of its own (".", "..").
        OutputFailedError: the system refused the write (full disk, read-only folder).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "numbers.txt"
    ...     with atomic_path(target) as temporary:
    ...         _ = temporary.write_text("1 2 3")
    ...     target.read_text()
    '1 2 3'
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise InvalidInputError(f"What is written must have a name of its own; got {str(path)!r}. Name a file or folder in it.")
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # what a killed process may have left
        yield temporary
        _sync(temporary)
        if temporary.is_dir() and path.exists():
            _swap(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        if isinstance(error, (MissingFileError, OutputExistsError, OutputFailedError)):
            raise
        raise OutputFailedError(
            f"{path} could not be written: {error.strerror or error}. Nothing half-written is left; free the disk or choose another place."
        ) from error
    finally:
        _remove(temporary)


@contextmanager
def locked(path: str | Path, *, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a lock file, so that processes that would make the same thing make it one after the other.

    The system lets go of it when the process that holds it ends, however it ends. A child that it forked meanwhile has inherited it: where
    the holder is killed, its children keep the lock until they end too. The file stays. Where the system (Windows) or the file
    system has no such locks, nothing is held.

    Args:
        path: the lock file; its folder is made.
        waiting: called once where another process holds it, before waiting for that one.

    Raises:
        OutputFailedError: the file cannot be made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder) / ".towns.lock"):
    ...     print("made by one alone")
    made by one alone
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        raise OutputFailedError(f"The lock {path} could not be made: {error.strerror or error}. Choose another place.") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_UN)  # else children that were forked meanwhile would keep it


def check_absent(path: str | Path, *, overwrite: bool = False) -> Path:
    """Refuse an output that is already there, unless `overwrite`; returns the path.

    Raises:
        OutputExistsError: the path exists and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} is already there and is not overwritten unasked. Choose another --out, or pass --overwrite.")
    return path


def write_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Write a mapping as JSON, atomically; NaN and infinity are refused, since JSON has neither."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"What is written to {path} must be JSON without NaN; {error}.") from error
    return write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text, atomically; returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def read_text(path: str | Path) -> str:
    """Read a UTF-8 text file (CRLF becomes LF).

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no UTF-8 text, or cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} must be a readable UTF-8 text file; {error}.") from error


def read_json(path: str | Path, *, kind: str | None = None, version: int | None = None) -> dict[str, Any]:
    """Read a JSON object; with `kind` and `version`, one whose header says so.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, no JSON object, or of another kind or version.
    """
    try:
        value = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DamagedFileError(f"{path} must be a JSON object; it is truncated or of another kind ({error}). Write it again.") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} must be a JSON object; found a {type(value).__name__}.")
    if kind is not None and version is not None:
        check_header(value, path, kind=kind, version=version)
    return value


def check_header(header: Mapping[str, Any], path: str | Path, *, kind: str, version: int) -> None:
    """Hold a header against the kind and version that this code reads.

    Raises:
        DamagedFileError: the file is of another kind, or newer than this code.
    """
    says = header.get("format") if isinstance(header, Mapping) else header
    if not isinstance(header, Mapping) or says != kind:
        raise DamagedFileError(f"{path} must be a file of kind {kind!r}; its header says {says!r}. Point to the right file.")
    found = header.get("version")
    if not isinstance(found, int) or not 1 <= found <= version:
        raise DamagedFileError(
            f"{path} has version {found!r} of {kind!r}; this covis reads 1 to {version}. Write it again with this covis, or upgrade."
        )


def save_arrays(path: str | Path, header: Mapping[str, Any], arrays: Arrays) -> Path:
    """Write a header and arrays as one uncompressed `.npz` without pickle, atomically.

    The same content gives the same bytes.

    Raises:
        InvalidInputError: the name does not end in .npz, or an array would need a pickle.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InvalidInputError(f"The file name must end in .npz; got {path.name!r}.")
    try:
        text = json.dumps(header, allow_nan=False, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"The header of {path} must be JSON without NaN; {error}.") from error
    encoded = {"header": np.frombuffer(text.encode("utf-8"), dtype=np.uint8)} | {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in encoded.items():
        if array.dtype.hasobject:
            raise InvalidInputError(f"The array {name!r} for {path} must be of numbers or text; got objects, which would need a pickle.")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **encoded)
    return path


def load_arrays(path: str | Path, *, kind: str, version: int, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read what `save_arrays` wrote: the header, and every array in the file; those in `names` must be there.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, of another kind or version, holds a pickle, or lacks an array.
    """
    try:
        with Path(path).open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(arrays.pop("header").tobytes())
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        TokenError,
        TypeError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = "it would need a pickle, and none is ever loaded" if "pickle" in str(error) else error
        raise DamagedFileError(
            f"{path} must be a covis file of kind {kind!r}; it is truncated or foreign ({reason}). Write it again."
        ) from error
    check_header(header, path, kind=kind, version=version)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DamagedFileError(f"{path} must hold the arrays {', '.join(names)}; {', '.join(missing)} is missing. Write it again.")
    return header, arrays


def map_array(path: str | Path) -> np.memmap[Any, Any]:
    """Open one numpy array as a memory map, to be read; nothing of it is read yet.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, longer than its array, no single array, or would need a pickle.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.memmap):
            found.close()
            raise ValueError("it is an archive of several")
        if Path(path).stat().st_size != found.offset + found.nbytes:
            raise ValueError("more stands behind the array")
    except FileNotFoundError:
        raise MissingFileError(f"{path} must exist; there is no such file.") from None
    except (OSError, EOFError, ValueError, OverflowError, MemoryError, SyntaxError, TypeError, TokenError) as error:
        # numpy evaluates the header as a literal: a damaged one fails in the tokenizer, the parser or the shape's arithmetic
        reason = "it would need a pickle, and none is ever loaded" if "ickle" in str(error) or "object" in str(error) else error
        raise DamagedFileError(
            f"{path} must be one numpy array of numbers; it is truncated or foreign ({reason}). Write it again."
        ) from error
    return found


def encode_names(names: tuple[str, ...]) -> NDArray[np.uint8]:
    """Names as one block of UTF-8 bytes, a line each: 30 bytes a name instead of numpy's four per character of the longest.

    Raises:
        InvalidInputError: a name is empty or has a line break, which the block cannot tell apart.
    """
    bad = [name for name in names if not name or "\n" in name]
    if bad:
        raise InvalidInputError(f"A name must be one line, and not empty, to be stored; got {bad[0]!r}.")
    return np.frombuffer("\n".join(names).encode("utf-8"), dtype=np.uint8)


def decode_names(block: NDArray[np.uint8]) -> tuple[str, ...]:
    """The inverse of `encode_names`.

    >>> decode_names(encode_names(("a.jpg", "b/ü.png")))
    ('a.jpg', 'b/ü.png')
    """
    text = block.tobytes().decode("utf-8")
    return tuple(text.split("\n")) if text else ()


def digest(value: Any) -> str:
    """A short hash (16 hex digits of SHA-256) of anything that JSON can hold; the order of keys does not matter.

    >>> digest({"a": 1, "b": [2.5]}) == digest({"b": [2.5], "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """A short hash (16 hex digits of SHA-256) of a file's bytes.

    Raises:
        MissingFileError: there is no such file, or it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        raise MissingFileError(f"{path} must be a file that can be read; {error.strerror or error}.") from None


def _swap(temporary: Path, path: Path) -> None:
    """Replace a folder by another: the old one goes aside until the new one is in place, and comes back if that fails."""
    aside = path.with_name(f".{path.name}.replaced")
    _remove(aside)
    path.replace(aside)
    try:
        temporary.replace(path)
    except OSError:
        aside.replace(path)
        raise
    _remove(aside)


def _sync(path: Path) -> None:
    """Ask the system to put a file, or every file of a folder, on the disk before it is renamed into place."""
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    with suppress(OSError):  # what cannot be removed must not hide the error that led here
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
