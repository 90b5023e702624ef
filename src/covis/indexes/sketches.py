"""Approximate indexes that keep a small row of their own for each vector: leading dimensions, or signs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError
from covis.files import atomic_path, map_array
from covis.indexes import engine
from covis.indexes.approximate import RESCORE, ApproximateIndex
from covis.indexes.nearest import scan
from covis.indexes.pieces import Piece, groups, in_pieces
from covis.indexes.shards import by_block
from covis.indexes.storage import part
from covis.indexes.stored import Option


class SketchIndex(ApproximateIndex):
    """Those that keep a small row of their own for each vector: an array a shard, searched by brute force."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sketches: list[NDArray[Any]] = []

    @abstractmethod
    def sketch(self, vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """The small rows of vectors."""

    def build(self) -> None:
        """Make the arrays of shards that have none."""
        for one in self.shards.sets[len(self.sketches) :]:
            small = self.sketch(one.vectors[:1])
            made = np.empty((len(one), small.shape[1]), dtype=small.dtype)
            for start in range(0, len(one), 4096):
                made[start : start + 4096] = self.sketch(one.vectors[start : start + 4096])
            self.sketches.append(made)

    def own_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(int(sketch.nbytes) for sketch in self.sketches)

    def save_parts(self, folder: Path, saved: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
        """Write the arrays that are not there."""
        files = list(saved["files"]) if saved else []
        for shard in range(len(files), len(self.sketches)):
            files.append(part(shard, ".npy"))
            with atomic_path(folder / files[-1]) as temporary, temporary.open("wb") as stream:
                np.save(stream, self.sketches[shard], allow_pickle=False)
        return {"files": files}

    def load_parts(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Open the arrays as memory maps.

        Raises:
            MissingFileError: one is not there.
            DamagedFileError: one is truncated or foreign.
        """
        if len(manifest["files"]) != len(self.shards.sets):
            raise ValueError(f"{len(manifest['files'])} arrays for {len(self.shards.sets)} shards")
        for name, one in zip(manifest["files"], self.shards.sets, strict=True):
            found = map_array(folder / name)
            small = self.sketch(np.zeros((1, one.dim), dtype=np.float32))
            if (found.shape, found.dtype) != ((len(one), small.shape[1]), small.dtype):
                raise DamagedFileError(
                    f"{folder / name} must be an array of the index; it holds {found.dtype} {found.shape}. Make it again."
                )
            self.sketches.append(found)


class PrefixIndex(SketchIndex):
    """The first dimensions of PCA-whitened descriptors, which carry most of what tells places apart, searched exactly."""

    kind: ClassVar[str] = "prefix"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "dims": Option(128, "leading dimensions that are looked at first"),
        "rescore": Option(500, RESCORE.meaning, searches=True),
    }
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple({"rescore": count} for count in (50, 100, 200, 500, 1000, 2000))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._norms: list[NDArray[np.float32] | None] = []

    @classmethod
    def builds(cls, dim: int) -> list[dict[str, Any]]:
        """An eighth, a quarter and half of the dimensions."""
        return [{"dims": dims} for dims in sorted({max(1, dim // 8), max(1, dim // 4), max(1, dim // 2)})]

    def sketch(self, vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """The leading dimensions."""
        return np.asarray(vectors[:, : self.options["dims"]], dtype=np.float32)

    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """The nearest by the leading dimensions."""
        return scan(self._pieces, self.sketch(queries), count)[1]

    def _pieces(self, few: bool) -> Iterator[Piece]:  # noqa: FBT001 - the signature that scan asks for
        return in_pieces([np.asarray(sketch) for sketch in self.sketches], None, norms=self._norms_of if few else None)

    def _norms_of(self, number: int) -> NDArray[np.float32]:
        self._norms += [None] * (len(self.sketches) - len(self._norms))
        known = self._norms[number]
        if known is None:
            known = self._norms[number] = by_block(self.sketches[number], lambda block: np.einsum("ij,ij->i", block, block))
        return known


class BinaryIndex(SketchIndex):
    """One bit a dimension, its sign; the number of bits that differ names candidates. For whitened or otherwise centred descriptors."""

    kind: ClassVar[str] = "binary"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"rescore": Option(500, RESCORE.meaning, searches=True)}
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple({"rescore": count} for count in (100, 200, 500, 1000, 2000, 5000))

    def sketch(self, vectors: NDArray[np.floating[Any]]) -> NDArray[Any]:
        """The signs, eight a byte."""
        return np.packbits(np.asarray(vectors) > 0, axis=1)

    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Those whose signs differ least."""
        codes, starts = self.sketch(queries), self.shards.starts
        found = []
        for group in groups([sketch.nbytes for sketch in self.sketches]):
            some = [self.sketches[number] for number in group]
            joined = np.ascontiguousarray(some[0] if len(some) == 1 else np.concatenate(some))
            if len(joined):
                found.append((engine.hamming(codes, joined, min(count, len(joined))), int(starts[group[0]])))
        if len(found) == 1:
            return found[0][0][1] + found[0][1]
        differ = np.concatenate([one[0] for one, _ in found], axis=1)
        rows = np.concatenate([one[1] + first for one, first in found], axis=1)
        return np.take_along_axis(rows, np.argsort(differ, axis=1, kind="stable")[:, :count], axis=1)
