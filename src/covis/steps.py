"""The steps of a run: each leaves a record of its settings, is skipped where it is done, and refuses to change silently."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from covis import __version__
from covis.errors import DamagedFileError, SettingsDifferError
from covis.files import digest, read_json, write_json

FORMAT, VERSION = "covis-step", 1

Say = Callable[[str], None]


class Steps:
    """The records under `OUT/steps/`.

    Args:
        out: the run's folder.
        overwrite: do steps again whose settings differ, in place of stopping.
        say: takes a line of progress.
    """

    def __init__(self, out: Path, *, overwrite: bool, say: Say) -> None:
        self.out, self.overwrite, self.say = out, overwrite, say
        self._done: dict[str, str] = {}

    def do(
        self,
        name: str,
        settings: Mapping[str, Any],
        make: Callable[[], object],
        *,
        made: Sequence[Path],
        owned: Sequence[Path] | None = None,
    ) -> None:
        """Do a step unless its record shows that it was done with the same settings; leave a record.

        Args:
            name: of the step.
            settings: all that its output depends on, earlier steps included (`after`).
            make: does it; goes on where a killed one was, refuses what was begun with other settings.
            made: what is there once it is done.
            owned: what to remove before it is done anew; by default what it makes.

        Raises:
            SettingsDifferError: it was done, or begun, with other settings, and `overwrite` is false; the message shows the difference.
        """
        settings = _as_json({"step": VERSION, **settings})
        if self._done.get(name) == digest(settings):
            return
        record = self.out / "steps" / f"{name}.json"
        before, done = _stored(record)
        if before is not None and not done and not any(path.exists() for path in _traces(made if owned is None else owned)):
            before = None  # it stopped before it made anything, as one with a wrong setting does
        if before not in (None, settings) and not self.overwrite:
            raise SettingsDifferError(
                f"The step {name!r} in {self.out} was done, or begun, with other settings:\n{_difference(before, settings)}\n"
                "Choose another --out, or pass --overwrite to do it again."
            )
        if before == settings and done and all(path.exists() for path in made):
            self.say(f"{name}: done before")
        else:
            begun = time.perf_counter()
            if before not in (None, settings):
                _remove(made if owned is None else owned)
            # The record comes first: what a killed step leaves is never taken for the output of other settings.
            header = {"format": FORMAT, "version": VERSION, "step": name, "made_by": __version__, "settings": settings}
            write_json(record, {**header, "done": False})
            make()
            write_json(record, {**header, "done": True})
            self.say(f"{name}: {time.perf_counter() - begun:.1f} s")
        self._done[name] = digest(settings)

    def given(self, name: str, files: Sequence[str]) -> None:
        """Note that a step's output was handed in: the digests of its files stand for its settings."""
        self._done[name] = digest(["given", *files])

    def after(self, *names: str) -> dict[str, str]:
        """The digests of earlier steps, so that a change there changes this step's settings."""
        return {name: self._done[name] for name in names}


def _stored(record: Path) -> tuple[Any, bool]:
    """The settings that a step was begun with, and whether it was finished; None where it was not begun."""
    if not record.exists():
        return None, False
    stored = read_json(record, kind=FORMAT, version=VERSION)
    if not isinstance(stored.get("settings"), dict):
        raise DamagedFileError(f"{record} must hold the settings of a step; it holds none. Remove it to do the step again.")
    return stored["settings"], stored.get("done") is True


def _traces(paths: Sequence[Path]) -> list[Path]:
    """The paths, and those of what is still being made."""
    return [part for one in paths for part in (one, one.with_name(f".{one.name}.unfinished"))]


def _remove(paths: Sequence[Path]) -> None:
    for path in _traces(paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(before: Any, now: Any, *, path: str = "") -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "\n".join(_difference(before.get(key), now.get(key), path=f"{path}.{key}" if path else key) for key in keys)
    said = "the data, or an earlier step, is another" if path.startswith(("after.", "contents.")) else f"{before} stored, {now} asked for"
    return f"  {path}: {said}"
