"""FAISS, imported here alone: nearest vectors of plain arrays, and its own structures behind one small class."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError, InvalidInputError, MissingExtraError, MissingFileError
from covis.files import atomic_path

Found = tuple[NDArray[np.float32], NDArray[np.int64]]

PRODUCTS = {"distance_compute_blas_database_bs": 4096, "distance_compute_blas_threshold": 1}
"""Variables of FAISS's process while we search: database vectors in one matrix product (an eighth more queries a second than by its
default of 1024), and products for any number of queries (FAISS 1.15 else takes none below 128,000 / d, and is up to four times slower)."""


class _Variables:
    """Set while any thread of ours searches, and put back by the last one."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, dict[str, int]()

    @contextmanager
    def __call__(self, values: Mapping[str, int]) -> Iterator[None]:
        variables = _faiss().cvar
        with self.lock:
            if self.users == 0:
                self.before = {name: getattr(variables, name) for name in values}
                for name, value in values.items():
                    setattr(variables, name, value)
            self.users += 1
        try:
            yield
        finally:
            with self.lock:
                self.users -= 1
                if self.users == 0:
                    for name, value in self.before.items():
                        setattr(variables, name, value)


_variables = _Variables()


def knn(queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int) -> Found:
    """Squared Euclidean distances and rows of the k nearest, by matrix products; C-contiguous float32 is not copied, a memory map neither.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    with _variables(PRODUCTS):
        squared, rows = _faiss().knn(queries, vectors, k)
    return squared, rows


def hamming(queries: NDArray[np.uint8], codes: NDArray[np.uint8], k: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers of bits that differ, and rows, of the k nearest codes."""
    differ, rows = _faiss().knn_hamming(queries, codes, k)
    return differ, rows


def threads() -> int:
    """How many threads FAISS uses."""
    return int(_faiss().omp_get_max_threads())


class Structure:
    """A structure that FAISS builds, and searches for candidates.

    Args:
        description: FAISS's own text for it, as `PQ64x4fs`.
        dim: of the vectors.
        building: settings of the build, as `efConstruction`, set where the structure has them.
    """

    def __init__(self, description: str, dim: int, *, building: Mapping[str, int] | None = None) -> None:
        faiss = _faiss()
        try:
            self._inner = faiss.index_factory(dim, description, faiss.METRIC_L2)
        except RuntimeError as error:
            raise InvalidInputError(
                f"FAISS must be able to build {description!r} for {dim} dimensions; it says: {_last(error)}."
            ) from error
        for name, value in (building or {}).items():
            setattr(self._inner.hnsw, name, value)
        for clustered in (self._inner, getattr(self._inner, "pq", None)):
            if clustered is not None and hasattr(clustered, "cp"):  # as many rounds as change anything, and no advice on stderr
                clustered.cp.niter, clustered.cp.min_points_per_centroid = 10, 1

    @property
    def count(self) -> int:
        """How many vectors are in it."""
        return int(self._inner.ntotal)

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return int(self._inner.d)

    def train(self, sample: NDArray[np.float32]) -> None:
        """Learn codebooks and lists, where it has any."""
        self._inner.train(sample)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Take in vectors, after those that are there."""
        self._inner.add(vectors)

    def search(self, queries: NDArray[np.float32], count: int, *, probes: int = 0, ef: int = 0) -> NDArray[np.int64]:
        """(q, count) rows of candidates; -1 where it found fewer."""
        if probes:
            self._inner.nprobe = probes
        if ef:
            self._inner.hnsw.efSearch = ef
        rows: NDArray[np.int64] = self._inner.search(queries, count)[1]
        return rows

    def nbytes(self) -> int:
        """Bytes of it in a file, which are nearly those in memory."""
        sizes: list[int] = []
        self._stream(lambda block: sizes.append(len(block)))
        return sum(sizes)

    def save(self, path: Path) -> Path:
        """Write a file, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            self._stream(stream.write)
        return path

    @classmethod
    def load(cls, path: Path) -> Structure:
        """Read what `save` wrote. FAISS trusts its files, so a file must have been held against its digest before.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: FAISS cannot read it.
        """
        faiss = _faiss()
        made = cls.__new__(cls)
        try:
            with path.open("rb") as stream:
                made._inner = faiss.read_index(faiss.PyCallbackIOReader(stream.read))
        except FileNotFoundError:
            raise MissingFileError(f"{path} must exist; there is no such file. Make the index again.") from None
        except (RuntimeError, OSError) as error:
            raise DamagedFileError(f"{path} must be a structure of FAISS; {_last(error)}. Make the index again.") from error
        return made

    def _stream(self, write: Callable[[bytes], Any]) -> None:
        faiss = _faiss()
        faiss.write_index(self._inner, faiss.PyCallbackIOWriter(write, io.DEFAULT_BUFFER_SIZE * 128))


def _last(error: BaseException) -> str:
    """The last line of FAISS's messages, which begin with a stack."""
    return str(error).strip().splitlines()[-1].rstrip(".")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("Searching needs the library faiss, which is not installed; `pip install faiss-cpu` brings it.") from error
    return faiss
