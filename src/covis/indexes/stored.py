"""What all indexes share: adding, deleting, the search's frame, and their place on the disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.indexes import storage
from covis.indexes.engine import Found
from covis.indexes.shards import Shards, check_alike, squared_norms
from covis.lookup import suggest
from covis.rankings import Rankings


@dataclass(frozen=True)
class Option:
    """An option of a kind of index.

    Attributes:
        default: its value where none is given.
        meaning: one line.
        allowed: the texts that it takes; empty: it is a whole number.
        least: of a number.
        searches: whether it may change without building anew.
    """

    default: int | str
    meaning: str
    allowed: tuple[str, ...] = ()
    least: int = 1
    searches: bool = False


class StoredIndex(ABC):
    """Vectors in shards, of which some may be deleted, searched in a way that a subclass says.

    Attributes:
        options: all options with their values.
        report: None, or how the search compares with the exact one (`covis.indexes.measures`).
        chosen: why this kind, where covis chose it; else empty.
        trials: what the tuner tried, best first; else empty.
        shards: the vectors.
        saved: where it was opened from, and what is there.
    """

    kind: ClassVar[str]
    OPTIONS: ClassVar[Mapping[str, Option]] = {}

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = checked_options(self.kind, self.OPTIONS, options)
        self.shards = Shards()
        self.report: dict[str, Any] | None = None
        self.chosen = ""
        self.trials: tuple[dict[str, Any], ...] = ()
        self.saved: storage.Saved | None = None

    def __len__(self) -> int:
        return len(self.shards)

    def __repr__(self) -> str:
        options = "".join(f", {name} {value}" for name, value in self.options.items())
        return f"{type(self).__name__}({len(self)} vectors{options})"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images in it, in the order in which they were added; what `Rankings.rows` index."""
        return self.shards.names

    def add(self, descriptors: Descriptors) -> None:
        """Take in more vectors of the same model and whitening; nothing is copied.

        Raises:
            InvalidInputError: another model, whitening or dimension, a name that is there already, or a vector that is not finite.
        """
        self.shards.add(descriptors)

    def delete(self, names: Sequence[str]) -> None:
        """Take images out. `names` and the rows of later rankings are those of the others; a name may be added again.

        Raises:
            InvalidInputError: a name is not in the index; then none is taken out.
        """
        self.shards.delete(names)

    def search(self, queries: Descriptors, *, k: int, among: Sequence[str] | NDArray[np.bool_] | None = None) -> Rankings:
        """The k nearest database images of each query, best first; all of them where there are fewer than k.

        Args:
            queries: of the same model and whitening.
            k: how many.
            among: only these may be found: a mask over `names`, or names. Never fewer than min(k, how many these are) are found.

        Returns:
            Rankings with Euclidean distances, exact of each image that is found; equal ones in the order of the rows. The history
            holds the index's kind and, of an approximate one, its options and its recall.

        Raises:
            InvalidInputError: k is no whole number >= 1, an empty index, queries of another model, whitening or dimension, or `among`
                keeps none.
            MissingExtraError: faiss is not installed.
        """
        if not whole(k) or k < 1 or not len(self):
            raise InvalidInputError(
                f"A search needs a whole number k >= 1 and an index that is not empty; got k = {k!r}, {len(self)} vectors."
            )
        k = int(k)
        check_alike(self.shards.sets[0], queries)
        squared_norms(queries)
        self.ready()
        allowed = self.shards.allowed(among)
        squared, rows = self.nearest(queries.vectors, k, allowed)
        history = {"model": queries.model, "database": dict(self.shards.sets[0].history), "index": self.kind, "distance": "euclidean"}
        history |= self.described() | ({} if among is None or allowed is None else {"among": int(allowed.sum())})
        return Rankings(self.shards.living(rows), np.sqrt(squared), queries.names, self.names, history)

    @abstractmethod
    def nearest(self, queries: NDArray[np.floating[Any]], k: int, allowed: NDArray[np.bool_] | None) -> Found:
        """(q, min(k, allowed)) squared distances and rows of `shards`, best first."""

    def described(self) -> dict[str, Any]:
        """What a ranking's history says of the search beyond the kind; nothing of an exact one."""
        return {}

    def ready(self) -> None:  # noqa: B027 - not every index has any
        """Build what is missing of its own structures."""

    def restore(self, report: dict[str, Any] | None) -> None:
        """Take the report that was saved."""
        self.report = report

    def own_bytes(self) -> int:
        """Bytes of its structures, beside the vectors."""
        return 0

    def save_parts(self, folder: Path, saved: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
        """Write the structures that are not in the folder, under that number; returns what the manifest says of them."""
        return {}

    def load_parts(self, folder: Path, manifest: Mapping[str, Any]) -> None:  # noqa: B027 - not every index has any
        """The inverse of `save_parts`."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder: the vectors, block by block, the structures and `index.json`; returns the path.

        Raises:
            OutputExistsError: the folder is there and `overwrite` is false.
            OutputFailedError: the disk is full, or the folder read-only; what was there is as it was.
        """
        return storage.save(self, Path(path), overwrite=overwrite)

    def update(self) -> Path:
        """Write what was added and deleted since it was opened into its folder; a kill leaves that as it was before, or as it is after.

        Raises:
            InvalidInputError: it was not opened from a folder.
            SettingsDifferError: the folder was changed since it was opened, or is being changed.
            OutputFailedError: the disk is full, or the folder read-only; the index there is as it was.
        """
        return storage.update(self)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a saved index of this kind; vectors stay memory-mapped and are not read.

        Raises:
            MissingFileError: a file is not there.
            DamagedFileError: a file is truncated or foreign.
        """
        return storage.load(Path(path), {cls.kind: cls})


def whole(value: object) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def checked_options(kind: str, known: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a kind, those given in place of the defaults.

    Raises:
        InvalidInputError: an option is unknown or its value out of range.
    """
    for name, value in given.items():
        if name not in known:
            raise InvalidInputError(f"An index of kind {kind!r} has no option {name!r}. {suggest(name, known)}")
        option = known[name]
        if option.allowed and value not in option.allowed:
            raise InvalidInputError(f"The option {name} of {kind!r} must be one of {', '.join(option.allowed)}; got {value!r}.")
        if not option.allowed and (not whole(value) or value < option.least):
            raise InvalidInputError(f"The option {name} of {kind!r} must be a whole number of at least {option.least}; got {value!r}.")
    return {name: given.get(name, option.default) for name, option in known.items()}
