"""The kinds of approximate index that FAISS builds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import file_digest
from covis.indexes.approximate import RESCORE, ApproximateIndex
from covis.indexes.engine import Structure
from covis.indexes.storage import part
from covis.indexes.stored import Option

CODES = Option(0, "product codes of 4 bits a vector, a divisor of its dimensions; 0: a quarter as many as it has dimensions", least=0)


class StructuredIndex(ApproximateIndex):
    """Those that FAISS builds: one structure over all rows, learned from a sample of the first ones."""

    LEAST: ClassVar[int] = 16
    """Vectors that it can be learned from."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.structure: Structure | None = None

    @abstractmethod
    def described_to_faiss(self, dim: int, count: int) -> str:
        """FAISS's own text for the structure."""

    def building(self) -> dict[str, int]:
        """Settings of the build."""
        return {}

    def searching(self) -> dict[str, int]:
        """Settings of the search."""
        return {}

    def build(self) -> None:
        """Learn it, where there is none, and take in the vectors that are not in it.

        Raises:
            InvalidInputError: there are too few vectors to learn from, or the options do not fit their dimensions.
        """
        rows = self.shards.rows
        if self.structure is None:
            if len(self) < self.LEAST:
                raise InvalidInputError(
                    f"An index of kind {self.kind!r} is learned from at least {self.LEAST} vectors; got {len(self)}. Take kind 'exact'."
                )
            dim = self.shards.sets[0].dim
            made = Structure(self.described_to_faiss(dim, len(self)), dim, building=self.building())
            alive = np.flatnonzero(~self.shards.dead)
            made.train(self.shards.take(alive[:: -(-len(alive) // self.learned_from(len(alive)))]))
            self.structure = made
        if self.structure.count < rows:
            for block in self.shards.blocks(self.structure.count):
                self.structure.add(block)

    def learned_from(self, count: int) -> int:
        """How many vectors it is learned from, of so many."""
        return min(count, 16_384)

    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """What the structure finds."""
        assert self.structure is not None  # `nearest` has built it
        return self.structure.search(queries, count, **self.searching())

    def own_bytes(self) -> int:
        """Bytes of the structure."""
        return 0 if self.structure is None else self.structure.nbytes()

    def save_parts(self, folder: Path, saved: Mapping[str, Any] | None, number: int) -> dict[str, Any]:
        """Write the structure, where it is not there as it is."""
        if self.structure is None or (saved and saved.get("count") == self.structure.count):
            return dict(saved or {})
        file = self.structure.save(folder / part(number, ".faiss"))
        return {"files": [file.name], "digest": file_digest(file), "count": self.structure.count}

    def load_parts(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Read the structure, after a look that its file is as it was written.

        Raises:
            MissingFileError: it is not there.
            DamagedFileError: the file was changed or truncated.
        """
        if not manifest:
            return
        (name,) = manifest["files"]
        if file_digest(folder / name) != manifest["digest"]:
            raise DamagedFileError(f"{folder / name} must be as it was written; its digest is another. Make the index again.")
        self.structure = Structure.load(folder / name)
        if (self.structure.count, self.structure.dim) != (self.shards.rows, self.shards.sets[0].dim):
            raise ValueError(f"{name} holds {self.structure.count} vectors of {self.structure.dim} dimensions")


class ProductIndex(StructuredIndex):
    """Product codes of 4 bits, all compared (PQ fast scan)."""

    kind: ClassVar[str] = "pq"
    OPTIONS: ClassVar[Mapping[str, Option]] = {"codes": CODES, "rescore": Option(200, RESCORE.meaning, searches=True)}
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple({"rescore": count} for count in (50, 100, 200, 500, 1000, 2000))

    @classmethod
    def builds(cls, dim: int) -> list[dict[str, Any]]:
        """A code for four dimensions, and one for two."""
        return [{"codes": codes} for codes in sorted({fitting_codes(dim, 4), fitting_codes(dim, 2)})]

    def described_to_faiss(self, dim: int, count: int) -> str:
        """`PQ128x4fs`."""
        return f"PQ{self._codes(dim)}x4fs"

    def _codes(self, dim: int) -> int:
        codes = int(self.options["codes"]) or fitting_codes(dim, 4)
        if dim % codes:
            raise InvalidInputError(f"The option codes of {self.kind!r} must divide the {dim} dimensions; got {codes}.")
        return codes


class InvertedIndex(ProductIndex):
    """The product codes in lists around centres, of which the nearest are looked at (IVF-PQ fast scan)."""

    kind: ClassVar[str] = "ivf-pq"
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "lists": Option(0, "lists; 0: the square root of the number of vectors", least=0),
        "probes": Option(64, "lists that are looked at", searches=True),
        "codes": CODES,
        "rescore": Option(200, RESCORE.meaning, searches=True),
    }
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple(
        {"probes": probes, "rescore": count} for probes, count in ((8, 100), (16, 100), (32, 200), (64, 200), (128, 500), (256, 1000))
    )

    @classmethod
    def builds(cls, dim: int) -> list[dict[str, Any]]:
        """A code for four dimensions; one graph of lists serves all searches."""
        return [{}]

    def described_to_faiss(self, dim: int, count: int) -> str:
        """`IVF1000,PQ128x4fs`."""
        lists = self._lists(count)
        if lists > count:
            raise InvalidInputError(f"The option lists of {self.kind!r} must be at most the number of vectors, {count}; got {lists}.")
        return f"IVF{lists},PQ{self._codes(dim)}x4fs"

    def learned_from(self, count: int) -> int:
        """64 a list."""
        return min(count, max(64 * self._lists(count), 16_384))

    def searching(self) -> dict[str, int]:
        """How many lists."""
        return {"probes": int(self.options["probes"])}

    def _lists(self, count: int) -> int:
        return int(self.options["lists"]) or max(1, round(count**0.5))


class GraphIndex(StructuredIndex):
    """A graph of near neighbours over 8-bit codes, walked from far to near (HNSW). Measure it on your data: see docs/search.md."""

    kind: ClassVar[str] = "hnsw"
    LEAST: ClassVar[int] = 1
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "links": Option(32, "links of a vector", least=2),
        "build_ef": Option(100, "candidates that are kept while building"),
        "ef": Option(128, "candidates that are kept while searching", searches=True),
        "rescore": Option(50, RESCORE.meaning, searches=True),
    }
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple({"ef": ef} for ef in (32, 64, 128, 256, 512, 1024))

    def described_to_faiss(self, dim: int, count: int) -> str:
        """`HNSW32,SQ8`."""
        return f"HNSW{self.options['links']},SQ8"

    def building(self) -> dict[str, int]:
        """How many candidates."""
        return {"efConstruction": int(self.options["build_ef"])}

    def searching(self) -> dict[str, int]:
        """How many candidates."""
        return {"ef": int(self.options["ef"])}


class ScalarIndex(StructuredIndex):
    """Each dimension in 8 bits, or as float16; all compared. It saves memory where the vectors are not mapped, never time."""

    kind: ClassVar[str] = "sq"
    LEAST: ClassVar[int] = 1
    OPTIONS: ClassVar[Mapping[str, Option]] = {
        "type": Option("8bit", "8bit, or fp16", allowed=("8bit", "fp16")),
        "rescore": Option(50, RESCORE.meaning, searches=True),
    }
    SEARCHES: ClassVar[Sequence[Mapping[str, int]]] = tuple({"rescore": count} for count in (25, 50, 100, 200))

    def described_to_faiss(self, dim: int, count: int) -> str:
        """`SQ8`, `SQfp16`."""
        return {"8bit": "SQ8", "fp16": "SQfp16"}[self.options["type"]]


def fitting_codes(dim: int, share: int) -> int:
    """The largest divisor of the dimensions that is at most so large a share of them.

    >>> fitting_codes(512, 4), fitting_codes(30, 4), fitting_codes(13, 2)
    (128, 6, 1)
    """
    return next(codes for codes in range(max(1, dim // share), 0, -1) if dim % codes == 0)
