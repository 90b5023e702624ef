"""What stands in a folder of label maps: which run made it, which maps are done, and what may be replaced."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, SettingsDifferError
from covis.files import digest, read_json, write_json
from covis.segmentation.maps import RECORD, map_names
from covis.segmentation.segmenters import Segmenter, class_names, described, settings_of
from covis.semantics.notes import read_note
from covis.semantics.numberings import NUMBERS, numbering
from covis.semantics.surveys import void_warning

FORMAT, VERSION = "covis-segmentation", 1


@dataclass(frozen=True)
class Task:
    """A photograph and its map.

    Attributes:
        name: the photograph's, relative to the base.
        photograph: where it lies.
        target: where its map shall lie.
        size: bytes of the photograph, -1 where there is none.
        made: a hash of all that the map depends on but the photograph.
    """

    name: str
    photograph: Path
    target: Path
    size: int
    made: str

    def note(self, pixels: Mapping[int, int]) -> dict[str, object]:
        """What is written into the map: of which photograph, by what, and how many pixels each number has."""
        counts = {str(number): count for number, count in pixels.items()}
        return {"photograph": self.name, "bytes": self.size, "made": self.made, "pixels": counts}


def tasks_of(photographs: Sequence[Path], *, base: Path, out: Path, made: str) -> list[Task]:
    """A task a photograph, whose map is named by the way from the base to the photograph.

    Raises:
        InvalidInputError: a photograph lies outside the base, or a map would take a photograph's place.
    """
    names = [Path(os.path.relpath(photograph, base)).as_posix() for photograph in photographs]
    if outside := [photograph for name, photograph in zip(names, photographs, strict=True) if name.startswith("../")]:
        raise InvalidInputError(
            f"Every photograph must lie in {base}, which maps are named by; {outside[0]} does not. Give a folder above it."
        )
    targets = map_names(names)
    taken = {base.resolve() / name for name in names}
    if meant := [target for target in targets.values() if out.resolve() / target in taken]:
        raise InvalidInputError(f"A label map must take no photograph's place; {out / meant[0]} would. Choose another --out.")
    return [
        Task(name, photograph, out / targets[name], _bytes(photograph), made) for name, photograph in zip(names, photographs, strict=True)
    ]


def settings_digest(segmenter: Segmenter) -> str:
    """A hash of all that a map depends on but its photograph."""
    return digest([segmenter.digest, described(segmenter.classes), settings_of(segmenter)])


def begin(out: Path, segmenter: Segmenter, *, model: str, overwrite: bool) -> None:
    """Look at the folder, and write its record where it has none, or another that may be replaced.

    Raises:
        OutputExistsError: it is a file, or holds something else.
        SettingsDifferError: it holds maps of another model or other settings.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"Label maps are a folder; {out} is a file. Choose another --out.")
    wanted = {"digest": segmenter.digest, "classes": described(segmenter.classes), "settings": settings_of(segmenter)}
    whole = {"format": FORMAT, "version": VERSION, "model": model, "engine": segmenter.engine, **wanted}
    try:
        stored = read_json(out / RECORD, kind=FORMAT, version=VERSION)
    except MissingFileError:
        if out.exists() and any(out.iterdir()) and not overwrite:
            raise OutputExistsError(
                f"{out} holds something, and no maps of covis segment. Choose another --out, or pass --overwrite."
            ) from None
        stored = {}
    different = {key: (stored.get(key), value) for key, value in wanted.items() if stored.get(key) != value}
    if stored and different and not overwrite:
        if len(different) > 1:
            different.pop("digest", None)  # the settings are in it: they say more
        said = "; ".join(line for key, (there, now) in different.items() for line in _differences(key, there, now))
        raise SettingsDifferError(f"{out} was segmented with other settings ({said}). Choose another --out, or pass --overwrite.")
    if not stored or different:
        write_json(out / RECORD, whole)


def done_already(tasks: Sequence[Task], *, overwrite: bool) -> dict[int, dict[int, int]]:
    """The tasks whose maps are there, by position, with the pixels that each number has.

    A map of the same photograph that something else made is left over from before the record was replaced, and is made anew.

    Raises:
        OutputExistsError: what is there is no map of this photograph.
        SettingsDifferError: the photograph is not the one that was segmented.
    """
    found: dict[int, dict[int, int]] = {}
    newer: list[str] = []
    for position, task in enumerate(tasks):
        if overwrite or not task.target.exists():
            continue
        note = read_note(task.target)
        _check_whole(task.target)
        if note is None or note.get("photograph") != task.name:
            held = "is no map of covis segment" if note is None else f"is the map of {note.get('photograph')}"
            raise OutputExistsError(
                f"{task.target} must be the map of {task.name} to be kept; it {held}. Choose another --out, or pass --overwrite."
            )
        if note.get("made") != task.made:
            continue
        if note.get("bytes") != task.size and task.size >= 0:
            raise SettingsDifferError(
                f"{task.target} was made when {task.name} had {note.get('bytes')} bytes; now it has {task.size}. "
                "It is another photograph: choose another --out, or pass --overwrite."
            )
        pixels = note.get("pixels")
        found[position] = {int(number): int(count) for number, count in pixels.items()} if isinstance(pixels, dict) else {}
        if task.size >= 0 and os.stat(task.photograph).st_mtime_ns > os.stat(task.target).st_mtime_ns:
            newer.append(task.name)
    if newer:
        warnings.warn(
            f"{len(newer)} of {len(tasks)} photographs have the size that was segmented, but were written since. The first: {newer[0]}. "
            "If they are other photographs, and no copies, segment them anew (--overwrite).",
            CovisWarning,
            stacklevel=4,
        )
    return found


def finish(
    out: Path, segmenter: Segmenter, *, pixels: Mapping[int, int], images: int, skipped: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """Add to the record how many maps there are, what was skipped, and the share of each class; returns the record."""
    stored = read_json(out / RECORD, kind=FORMAT, version=VERSION)
    names, whole = class_names(segmenter.classes), max(sum(pixels.values()), 1)
    shares = {names.get(number, str(number)): round(count / whole, 6) for number, count in sorted(pixels.items())}
    record = {**stored, "images": images, "skipped": [dict(one) for one in skipped], "shares": shares}
    write_json(out / RECORD, record)
    if isinstance(segmenter.classes, str):
        seen = np.zeros(NUMBERS)
        seen[list(pixels)] = list(pixels.values())
        if said := void_warning(seen / whole, numbering(segmenter.classes)):
            warnings.warn(said, CovisWarning, stacklevel=3)
    return record


def _differences(key: str, there: Any, now: Any) -> list[str]:
    """What differs, by the innermost keys alone; of lists the first entry."""
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*there, *now])
        return [
            line for one in keys if there.get(one) != now.get(one) for line in _differences(f"{key}.{one}", there.get(one), now.get(one))
        ]
    if isinstance(there, list) and isinstance(now, list):
        if len(there) != len(now):
            return [f"{key}: {len(there)} there, {len(now)} now"]
        first = next(position for position, pair in enumerate(zip(there, now, strict=True)) if pair[0] != pair[1])
        return _differences(f"{key}[{first}]", there[first], now[first])
    texts = ["none" if one is None else f"{len(one)} names" if isinstance(one, list) else repr(one) for one in (there, now)]
    return [f"{key}: {texts[0]} there, {texts[1]} now"]


def _check_whole(path: Path) -> None:
    """Hold that a PNG has its end: its note alone, which stands at the beginning, does not tell a file that was cut."""
    with path.open("rb") as stream:
        stream.seek(-min(12, path.stat().st_size), os.SEEK_END)
        end = stream.read()
    if end[4:8] != b"IEND":
        raise DamagedFileError(f"{path} must be a whole label map to be kept; its end is missing. Remove it, or pass --overwrite.")


def _bytes(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
