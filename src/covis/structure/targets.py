"""Targets: the descriptors that a student is drawn to, those of a teacher or of a control, as rows that no step changes."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, SettingsDifferError
from covis.files import map_array
from covis.images import Scene

Side: TypeAlias = "Descriptors | NDArray[np.floating[Any]]"
"""Descriptors of one side of a scene, one row an image, in the order of the table."""

Targets: TypeAlias = "Sequence[tuple[Side, Side]]"
"""(queries, database) of each scene; of a training scene both are of the same images."""

UNIT = 1e-3
"""By how much the L2 norm of a target may differ from 1: what float16 makes of a unit vector stays well below."""

_BLOCK = 4096


class Rows:
    """The targets of one side: unit vectors, read row by row, usually from a memory map.

    A memory map of a whole .npy file goes to another process as its path, any other array as its values.

    Args:
        vectors: (n, d) descriptors or an array, each row of L2 norm 1 (to 1e-3).
        where: whose they are, for messages.

    Attributes:
        vectors: (n, d) float32 or float16, which cannot be written to.
        digest: a hash of all values (16 hex digits).

    Raises:
        InvalidInputError: there are no rows of numbers, a row is not finite or not of norm 1, or images were left out.

    >>> rows = Rows(np.array([[0.6, 0.8], [1.0, 0.0]]), where="here")
    >>> len(rows), rows.dim, rows[[1]].tolist()
    (2, 2, [[1.0, 0.0]])
    """

    def __init__(self, vectors: Side, *, where: str) -> None:
        if isinstance(vectors, Descriptors):
            _check_complete(vectors, where)
            vectors = vectors.vectors
        found = np.asanyarray(vectors)  # a memory map stays one
        if found.ndim != 2 or found.dtype.kind != "f" or not found.shape[1]:
            raise InvalidInputError(f"The targets of {where} must be (n, d) numbers; got {found.dtype} {found.shape}.")
        self.vectors = found if found.dtype in (np.float32, np.float16) else found.astype(np.float32)
        self.digest = _looked_through(self.vectors, where)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """The vectors of these rows, a copy."""
        return np.array(self.vectors[rows], dtype=np.float32)

    def __getstate__(self) -> dict[str, Any]:
        path = _file_of(self.vectors)
        return {"digest": self.digest, "path": path, "shape": self.vectors.shape, "vectors": None if path else np.asarray(self.vectors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.digest = state["digest"]
        self.vectors = state["vectors"] if state["path"] is None else map_array(state["path"])
        if self.vectors.shape != state["shape"]:
            raise SettingsDifferError(
                f"{state['path']} must hold the targets that training began with, {state['shape']}; it now holds {self.vectors.shape}. "
                "Leave the teacher's descriptors alone while a student learns."
            )

    @property
    def dim(self) -> int:
        """Their dimensions."""
        return int(self.vectors.shape[1])


def shuffled(targets: Targets, *, seed: int) -> list[tuple[Side, Side]]:
    """A control (ours): every image gets the descriptor of another image of its side, always the same one.

    What is left is a target of the same distribution that says nothing of its own place. In each scene the rows go round in one
    random cycle, so that none keeps its own. Both sides of a training scene are cycled alike: an image has one target whichever
    side it stands on. The vectors are copied into memory, as many bytes as the targets take. (The other control, a teacher that
    learnt nothing, needs no function: its targets are `covis.extract` of an untrained network.)

    Args:
        targets: (queries, database) a scene.
        seed: of the cycles.

    Returns:
        The same with other rows; descriptors keep their names, and `history["shuffled"]` has the seed.

    Raises:
        InvalidInputError: a side has one image, which has no other; or the seed is below 0.

    >>> found = shuffled([(np.eye(4), np.eye(4))], seed=1)
    >>> bool((found[0][0] == found[0][1]).all()), float(np.trace(found[0][0]))
    (True, 0.0)
    """
    if seed < 0:
        raise InvalidInputError(f"The seed must be >= 0; got {seed}.")
    return [
        (
            _cycled(queries, [seed, scene], f"the queries of scene {scene}"),
            _cycled(database, [seed, scene], f"the database of scene {scene}"),
        )
        for scene, (queries, database) in enumerate(targets)
    ]


def check_images(targets: Targets, scenes: Sequence[Scene]) -> None:
    """Hold that the targets are of the images of the scenes, row by row.

    Raises:
        InvalidInputError: there are more or fewer of them, or in another order; the message names the scene and the first image.
    """
    if len(targets) != len(scenes):
        raise InvalidInputError(f"There must be targets of every scene; got those of {len(targets)} for {len(scenes)} scenes.")
    for scene, sides in zip(scenes, targets, strict=True):
        for what, images, side in zip(("queries", "database"), (scene.queries, scene.database), sides, strict=True):
            names = side.names if isinstance(side, Descriptors) else images.names
            if len(side) != len(images):
                raise InvalidInputError(
                    f"The targets of the {what} of scene {scene.name!r} must be one row an image; got {len(side)} for {len(images)}. "
                    "Extract the teacher's descriptors of this scene."
                )
            if names != images.names:
                first = next(row for row, (a, b) in enumerate(zip(names, images.names, strict=True)) if a != b)
                raise InvalidInputError(
                    f"The targets of the {what} of scene {scene.name!r} must be of its images, in their order; row {first} is of "
                    f"{names[first]}, the scene has {images.names[first]} there. Extract the teacher's descriptors of this scene."
                )


def _cycled(side: Side, seed: Sequence[int], where: str) -> Side:
    vectors = side.vectors if isinstance(side, Descriptors) else np.asarray(side)
    if len(vectors) == 1:
        raise InvalidInputError(f"To be shuffled a side must have two images or more; {where} has one.")
    order = np.random.default_rng(seed).permutation(len(vectors))  # of the number of rows alone: the sides of a training scene agree
    donor = np.empty_like(order)
    donor[order] = np.roll(order, -1)
    moved = np.asarray(vectors)[donor]
    if not isinstance(side, Descriptors):
        return moved
    return replace(side, vectors=moved, history={**side.history, "shuffled": seed[0]})


def _check_complete(found: Descriptors, where: str) -> None:
    skipped = found.history.get("extracted", {}).get("skipped", [])
    if skipped:
        raise InvalidInputError(
            f"Every image must have a target; of {where} {len(skipped)} were left out as damaged, the first {skipped[0]['name']}. "
            "Mend the label maps, or take the images out of the data set, and extract again."
        )


def _looked_through(vectors: NDArray[np.floating[Any]], where: str) -> str:
    """A hash of all values, after a look at each row's norm; a block at a time."""
    found = hashlib.sha256(f"{vectors.dtype} {vectors.shape}\n".encode())
    for start in range(0, len(vectors), _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK])
        norms = np.linalg.norm(block.astype(np.float64), axis=1)
        bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT))  # NaN is bad too
        if bad.size:
            raise InvalidInputError(
                f"A target must be a unit vector (L2 norm 1 to {UNIT}); row {start + bad[0]} of {where} has the norm "
                f"{norms[bad[0]]:.6g}. Give the teacher normalize = true, and do not whiten its descriptors without a norm afterwards."
            )
        found.update(block.data)
    return found.hexdigest()[:16]


def _file_of(vectors: NDArray[np.floating[Any]]) -> Path | None:
    """The .npy file that the array maps from its first value to its last; None of a part of one, and of arrays in memory."""
    if not isinstance(vectors, np.memmap) or vectors.mode != "r" or not isinstance(getattr(vectors, "base", None), mmap.mmap):
        return None  # of a view numpy keeps the offset of the whole: it cannot be told where it begins
    path = str(vectors.filename)
    return Path(path).absolute() if path.endswith(".npy") else None
