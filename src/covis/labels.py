"""Labels: how much of the same place two images see, as a sparse matrix in [0, 1]. The rules that make them: `covis.labelling`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, decode_names, encode_names, load_arrays, save_arrays
from covis.images import Images

FORMAT, VERSION = "covis-labels", 1
TIE = 1e-9
"""Similarities this close to a threshold count as equal to it: geometry leaves residues of 1e-16 and the reference compares in float32."""


@dataclass(frozen=True)
class Summary:
    """What labels contain.

    Attributes:
        queries: number of queries.
        database: number of database images.
        pairs: pairs that are pairs (all, less the excluded ones).
        positive: pairs of similarity >= threshold.
        soft: pairs of similarity above 0 and below the threshold.
        zero: pairs that share nothing.
        excluded: pairs that are no pairs (an image with itself, an image that the rule leaves out).
        without_positive: queries that have no positive.
        threshold: the cut between positive and soft.
    """

    queries: int
    database: int
    pairs: int
    positive: int
    soft: int
    zero: int
    excluded: int
    without_positive: int
    threshold: float

    def __str__(self) -> str:
        def share(count: int, of: int) -> str:
            return f"{count:,} ({100 * count / of:.2f} %)" if of else "0"

        lines = [
            f"{self.queries:,} queries x {self.database:,} database images, {self.pairs:,} pairs"
            + (f" ({self.excluded:,} excluded: an image with itself, or left out by the rule)" if self.excluded else ""),
            f"  positive (>= {self.threshold:g})  {share(self.positive, self.pairs)}",
            f"  soft (> 0)         {share(self.soft, self.pairs)}",
            f"  zero               {share(self.zero, self.pairs)}",
            f"  queries without a positive: {share(self.without_positive, self.queries)}",
        ]
        return "\n".join(lines)

    @property
    def warning(self) -> str | None:
        """A sentence where most queries have no positive, else None."""
        if 2 * self.without_positive <= self.queries:
            return None
        return (
            f"{self.without_positive} of {self.queries} queries have no positive at {self.threshold:g}: recall is "
            f"bounded by {1 - self.without_positive / self.queries:.2f} under a protocol "
            "that counts all queries, and training sees few positives. Look at the rule's parameters (a larger voxel, a "
            "larger tolerance) or at how far apart the images are."
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """Graded similarity of queries × database, sparse: what is absent is 0.

    Attributes:
        matrix: (q, d) CSR float64 in [0, 1], no stored zeros.
        query_names: q names.
        database_names: d names.
        rule: the name of the rule that made them.
        parameters: that rule's parameters, as they were.
        excluded: (q, d) CSR bool: pairs that are no pairs, never sampled and never scored (an image with itself, a panorama).

    Raises:
        InvalidInputError: a shape does not fit, or a similarity is not finite or outside [0, 1]; the message names the pair.

    >>> labels = Labels(sparse.csr_array([[0.0, 0.7, 0.2]]), ("q",), ("a", "b", "c"), rule="by hand")
    >>> labels.positives(0.5).toarray()
    array([[False,  True, False]])
    """

    matrix: sparse.csr_array
    query_names: tuple[str, ...]
    database_names: tuple[str, ...]
    _: KW_ONLY
    rule: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    excluded: sparse.csr_array | None = None

    def __post_init__(self) -> None:
        shape = (len(self.query_names), len(self.database_names))
        matrix = sparse.csr_array(self.matrix, dtype=np.float64, copy=True)
        excluded = sparse.csr_array(shape, dtype=bool) if self.excluded is None else sparse.csr_array(self.excluded, dtype=bool, copy=True)
        for given in (matrix, excluded):
            given.sum_duplicates()
        if matrix.shape != shape or excluded.shape != shape:
            raise InvalidInputError(
                f"Labels must be (queries, database) = {shape} like their names; got {matrix.shape}, excluded {excluded.shape}."
            )
        bad = np.flatnonzero(~((matrix.data >= 0) & (matrix.data <= 1)))
        if bad.size:
            rows, columns = matrix.tocoo().coords
            q, d, value = self.query_names[rows[bad[0]]], self.database_names[columns[bad[0]]], matrix.data[bad[0]]
            raise InvalidInputError(f"A similarity must be a number in [0, 1]; that of {q} and {d} is {value}.")
        excluded.eliminate_zeros()
        matrix = sparse.csr_array(matrix - matrix.multiply(excluded)) if excluded.nnz else matrix
        matrix.eliminate_zeros()
        matrix.sort_indices()
        for name, value in (
            ("matrix", matrix),
            ("excluded", excluded),
            ("query_names", tuple(self.query_names)),
            ("database_names", tuple(self.database_names)),
        ):
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Labels({self.matrix.shape[0]} x {self.matrix.shape[1]}, {self.matrix.nnz} above 0, rule {self.rule!r})"

    def positives(self, threshold: float, *, strict: bool = False) -> sparse.csr_array:
        """(q, d) CSR bool: the pairs of similarity >= threshold, or > threshold where `strict`.

        Values within 1e-9 of the threshold count as equal to it.

        Raises:
            InvalidInputError: the threshold is not in (0, 1].
        """
        if not 0 < threshold <= 1:
            raise InvalidInputError(f"A positive's similarity threshold must be in (0, 1]; got {threshold}.")
        chosen = self.matrix.copy()
        chosen.data = chosen.data > threshold + TIE if strict else chosen.data >= threshold - TIE
        chosen.eliminate_zeros()
        return chosen

    def summary(self, threshold: float = 0.5) -> Summary:
        """Count positive, soft and zero pairs, and the queries without any positive."""
        queries, database = self.matrix.shape
        positives = self.positives(threshold)
        excluded = self.excluded.nnz if self.excluded is not None else 0
        pairs = queries * database - excluded
        empty = int((np.diff(positives.indptr) == 0).sum())
        return Summary(
            queries, database, pairs, positives.nnz, self.matrix.nnz - positives.nnz, pairs - self.matrix.nnz, excluded, empty, threshold
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one `.npz` without pickle; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        assert self.excluded is not None
        arrays = {"names_queries": encode_names(self.query_names), "names_database": encode_names(self.database_names)}
        for name, part in (("similarity", self.matrix), ("excluded", self.excluded)):
            arrays |= {f"{name}_data": part.data, f"{name}_indices": part.indices, f"{name}_indptr": part.indptr}
        return save_arrays(path, {"format": FORMAT, "version": VERSION, "rule": self.rule, "parameters": dict(self.parameters)}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Labels:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        parts = [f"{name}_{part}" for name in ("similarity", "excluded") for part in ("data", "indices", "indptr")]
        header, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=("names_queries", "names_database", *parts))
        try:
            queries, database = decode_names(arrays["names_queries"]), decode_names(arrays["names_database"])
            matrices = []
            for name in ("similarity", "excluded"):
                matrix = sparse.csr_array(
                    tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr")), shape=(len(queries), len(database))
                )
                matrix.check_format(full_check=True)
                matrices.append(matrix)
            return cls(matrices[0], queries, database, rule=header["rule"], parameters=header["parameters"], excluded=matrices[1])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DamagedFileError(f"{path} must hold labels; its parts do not fit ({error}). Label again.") from error


def self_pairs(queries: Images, database: Images) -> sparse.csr_array:
    """(q, d) CSR bool: the pairs of an image with itself (the same file)."""
    rows = queries.same_files(database)
    found = np.flatnonzero(rows >= 0)
    return sparse.csr_array((np.ones(len(found), dtype=bool), (found, rows[found])), shape=(len(queries), len(database)))
