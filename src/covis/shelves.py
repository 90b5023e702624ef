"""Shelves: where a chain's networks and labels lie, and how the arms of a sweep share what is the same for several."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covis.files import digest, locked
from covis.steps import Say


@dataclass(frozen=True)
class Shelf:
    """Where a chain's networks lie: in its own folder, or where the arms of a sweep share what is the same for several.

    Attributes:
        out: the run's folder.
        shared: the folder of the sweep; None: nothing is shared.
    """

    out: Path
    shared: Path | None = None

    def place(self, name: str, cards: Mapping[str, Any]) -> Path:
        """The folder of something that these settings decide."""
        return self.out / name if self.shared is None else self.shared / f"{name.replace('/', '-')}-{digest(cards)}"

    def owned(self, *paths: Path) -> list[Path]:
        """What a step may remove before it is done anew: nothing that is shared, which another arm may have made; its name says how."""
        return list(paths) if self.shared is None else []

    def hold(self, folder: Path, *, say: Say) -> AbstractContextManager[None]:
        """While a shared folder is made, no other process makes it too; one that must wait says so."""
        if self.shared is None:
            return nullcontext()
        return locked(self.shared / f".{folder.name}.lock", waiting=lambda: say(f"waiting for another process that makes {folder.name}"))
