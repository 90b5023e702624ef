"""Leaks: no image that is asked teaches, and none decides which model is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from covis.errors import LeakError
from covis.images import Scene


def check_no_leak(training: Sequence[Scene], asked: Sequence[Scene], choosing: Sequence[Scene] = ()) -> None:
    """Hold that no image that is asked also teaches, or decides which model is kept.

    Args:
        training: scenes that teach.
        asked: scenes whose queries are judged.
        choosing: scenes that choose the model.

    Raises:
        LeakError: one does; the message names it.
    """
    for scene in asked:
        for chooser in choosing:
            if name := _shared(scene, chooser):
                raise LeakError(
                    f"No evaluated query may decide which model is kept; {name} is asked in scene {scene.name!r} and validates in "
                    f"{chooser.name!r}. Ask other scenes, or leave out [train.validate]."
                )
        for teacher in training:
            if name := _shared(scene, teacher):
                raise LeakError(
                    f"No evaluated query may enter training; {name} is asked in scene {scene.name!r} and teaches in "
                    f"{teacher.name!r}. Separate the splits."
                )


def _shared(asked: Scene, other: Scene) -> Path | None:
    """The first query that is an image of another scene, on either of its sides."""
    shared = (asked.queries.same_files(other.database) >= 0) | (asked.queries.same_files(other.queries) >= 0)
    return asked.queries.path(int(shared.argmax())) if shared.any() else None
