"""Indexes on disk: files that are written once and never changed, and a manifest that names them and is replaced last.

A folder holds `shard-0000/`, `shard-0001/`, … (descriptors), numbered files of structures, the rows that are deleted, and
`index.json`. A change writes new files beside the old, puts them on the disk, then replaces `index.json` in one step: a kill at any
moment leaves the index as it was before or as it is after. Files that `index.json` does not name are what a killed change left; the
next change removes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, SettingsDifferError
from covis.files import atomic_path, check_absent, load_arrays, read_json, save_arrays, write_json
from covis.indexes.measures import REPORTED
from covis.indexes.shards import Shards

if TYPE_CHECKING:
    from covis.indexes.stored import StoredIndex

    Kind = TypeVar("Kind", bound=StoredIndex)

FORMAT, VERSION = "covis-index", 2
DELETED = "covis-index-deleted", 1
_TRIES = 50  # times that a folder is opened anew while others change it
_PART = re.compile(r"part-\d{4,}\.(npy|faiss)")
_OURS = re.compile(r"\.?(shard|part|deleted)-\d{4,}.*")


@dataclass(frozen=True)
class Saved:
    """Where an index was opened from, and the manifest that was there."""

    path: Path
    manifest: Mapping[str, Any]


def save(index: StoredIndex, path: Path, *, overwrite: bool) -> Path:
    """Write an index as a new folder."""
    check_absent(path, overwrite=overwrite)
    index.ready()
    with _alone(path) if (path / "index.json").is_file() else nullcontext(), atomic_path(path) as folder:
        folder.mkdir()
        _write(index, folder, None)
    return path


def update(index: StoredIndex) -> Path:
    """Write what is new of an index into the folder that it was opened from."""
    if index.saved is None:
        raise InvalidInputError("Only an index that was opened from a folder can be updated there; save this one.")
    path, manifest = index.saved.path, index.saved.manifest
    index.ready()
    with _alone(path):
        if _manifest(path).get("id") != manifest["id"]:
            raise SettingsDifferError(f"{path} was changed by another process since it was opened. Open it again, and repeat the change.")
        _sweep(path, manifest)
        try:
            _write(index, path, manifest)
        finally:  # on success the files that are replaced, on failure those that are new
            _sweep(path, _manifest(path))
        index.saved = Saved(path, _manifest(path))
    return path


def load(path: Path, kinds: Mapping[str, type[Kind]]) -> Kind:
    """Open an index of one of some kinds, as it is before or after any change that another process makes meanwhile.

    Raises:
        MissingFileError: a file is not there.
        DamagedFileError: a file is truncated, foreign, or does not fit the others.
    """
    for left in reversed(range(_TRIES)):
        there = _place(path)
        manifest = _manifest(path)
        try:
            opened = _opened(path, manifest, kinds)
        except (MissingFileError, DamagedFileError):  # files that the manifest named may be gone since it was read, or others
            if not left or not _replaced(path, there, manifest):
                raise
        else:
            if not left or _place(path) == there:  # else some files may be of the folder that took its place
                return opened
    raise AssertionError("the last try ends above")  # pragma: no cover


def _place(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _replaced(path: Path, there: tuple[int, int] | None, manifest: Mapping[str, Any]) -> bool:
    """Whether the folder is another, or says another thing, than a moment ago."""
    with suppress(MissingFileError):
        return _place(path) != there or _manifest(path).get("id") != manifest.get("id")
    time.sleep(0.01)  # between two folders, of which one takes the other's place
    return _place(path) is not None


def _opened(path: Path, manifest: dict[str, Any], kinds: Mapping[str, type[Kind]]) -> Kind:
    kind = str(manifest.get("kind"))
    if kind not in kinds:  # a file must not choose what code is imported, so no `module:class` here
        raise DamagedFileError(
            f"{path} must be an index of a kind that covis knows here ({', '.join(kinds)}); its header says {kind!r}. "
            'Where that is a class of your own, name it: load_index(path, kind="module:class").'
        )
    try:
        if not isinstance(manifest["id"], str):
            raise ValueError(f"the id is {manifest['id']!r}")
        index = kinds[kind](**manifest["options"])
        sets = [Descriptors.load(path / _shard(number)) for number in range(len(manifest["shards"]))]
        sizes = [len(one) if rows is None else rows for one, rows in zip(sets, manifest["shards"], strict=True)]
        if sizes != [len(one) for one in sets]:
            raise ValueError(f"shards hold {[len(one) for one in sets]} vectors, not {sizes}")
        dead = np.zeros(0, dtype=np.int64)
        if manifest["deleted"] is not None:
            file = path / _deleted(manifest["deleted"]["number"])
            dead = load_arrays(file, kind=DELETED[0], version=DELETED[1], names=("rows",))[1]["rows"]
            if len(dead) != manifest["deleted"]["count"]:
                raise ValueError(f"{file.name} holds {len(dead)} rows, not {manifest['deleted']['count']}")
        index.shards = Shards.restored(sets, dead)
        index.chosen = str(manifest["chosen"])
        index.restore(manifest["report"])
        if (
            not isinstance(manifest["id"], str)
            or not isinstance(manifest["change"], int)
            or not (index.report is None or index.report.keys() >= REPORTED)
        ):
            raise ValueError(f"the number of changes is {manifest['change']!r}, the report {index.report}")
        index.trials = tuple(dict(trial) for trial in manifest["trials"])
        if not all(_PART.fullmatch(name) for name in manifest["parts"].get("files", ())):
            raise ValueError(f"parts are called {manifest['parts']['files']}")
        index.load_parts(path, manifest["parts"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, DamagedFileError):
            raise
        raise DamagedFileError(f"{path / 'index.json'} must describe the index beside it; its parts do not fit ({error}).") from error
    index.saved = Saved(path, manifest)
    return index


def part(number: int, suffix: str) -> str:
    """The name of a structure's file; suffix: .npy or .faiss."""
    return f"part-{number:04d}{suffix}"


def _manifest(path: Path) -> dict[str, Any]:
    """`index.json`, that of the first version in the form of today's."""
    manifest = read_json(path / "index.json", kind=FORMAT, version=VERSION)
    if manifest["version"] == 1:
        if not isinstance(manifest.get("shards"), int):
            raise DamagedFileError(f"{path / 'index.json'} must say how many shards there are; it says {manifest.get('shards')!r}.")
        more: dict[str, Any] = {
            "options": {},
            "deleted": None,
            "parts": {},
            "report": None,
            "chosen": "",
            "trials": [],
            "change": 0,
            "id": "",
        }
        manifest |= {"version": VERSION, "shards": [None] * manifest["shards"], **more}
    return manifest


def _write(index: StoredIndex, folder: Path, before: Mapping[str, Any] | None) -> None:
    """Write what the manifest `before` lacks, then the new manifest."""
    change = 0 if before is None else before["change"] + 1
    old = 0 if before is None else len(before["shards"])
    for number, shard in enumerate(index.shards.sets[old:], old):
        shard.save(folder / _shard(number))
    deleted = None if before is None else before["deleted"]
    dead = np.flatnonzero(index.shards.dead)
    if len(dead) != (0 if deleted is None else deleted["count"]):
        deleted = {"number": change, "count": len(dead)}
        save_arrays(folder / _deleted(change), {"format": DELETED[0], "version": DELETED[1]}, {"rows": dead})
    parts = index.save_parts(folder, None if before is None else before["parts"], change)
    _sync_folder(folder)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": index.kind,
        "options": {name: value if isinstance(value, str) else int(value) for name, value in index.options.items()},
        "change": change,
        "shards": [len(shard) for shard in index.shards.sets],
        "deleted": deleted,
        "parts": parts,
        "report": index.report,
        "chosen": index.chosen,
        "trials": list(index.trials),
    }
    manifest["id"] = _identity(manifest, index.shards, old, "" if before is None else before["id"])
    write_json(folder / "index.json", manifest)
    _sync_folder(folder)


def _identity(manifest: Mapping[str, Any], shards: Shards, old: int, before: str) -> str:
    """What tells this state of this index from any other: a digest of what is in it, so that the same changes give the same files.

    Of the new shards the names and at most 256 rows each; the older ones are in the identity of the state before.
    """
    digest = hashlib.sha256(before.encode())
    told = {name: manifest[name] for name in ("kind", "options", "change", "shards", "deleted", "parts")}
    digest.update(json.dumps(told, sort_keys=True).encode())
    digest.update(np.flatnonzero(shards.dead).tobytes())
    for one in shards.sets[old:]:
        digest.update(json.dumps([one.model, str(one.vectors.dtype), one.names]).encode())
        rows = np.unique(np.linspace(0, max(0, len(one) - 1), 256, dtype=np.int64))
        digest.update(np.ascontiguousarray(one.vectors[rows[: len(one)]]).tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the folder: a lock of the system, which ends with the process."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise MissingFileError(f"{path} must be an index that can be opened; {error.strerror or error}.") from None
    try:
        with suppress(ImportError):  # a system without such locks
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SettingsDifferError(f"{path} is being changed by another process. Try again when it is done.") from None
            held = os.fstat(handle)
            if _place(path) != (held.st_dev, held.st_ino):  # the folder that is held was replaced
                raise SettingsDifferError(
                    f"{path} was changed by another process since it was opened. Open it again, and repeat the change."
                )
        yield
    finally:
        os.close(handle)


def _sweep(path: Path, manifest: Mapping[str, Any]) -> None:
    """Remove the files of ours that a manifest does not name."""
    named = {_shard(number) for number in range(len(manifest["shards"]))} | set(manifest["parts"].get("files", ()))
    if manifest["deleted"] is not None:
        named.add(_deleted(manifest["deleted"]["number"]))
    for file in path.iterdir():
        if file.name not in named and _OURS.fullmatch(file.name):
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file, ignore_errors=True)
            else:
                with suppress(OSError):
                    file.unlink()


def _sync_folder(path: Path) -> None:
    """Put a folder's list of names on the disk."""
    with suppress(OSError):  # not every file system can
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _shard(number: int) -> str:
    return f"shard-{number:04d}"


def _deleted(number: int) -> str:
    return f"deleted-{int(number):04d}.npz"
