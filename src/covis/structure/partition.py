"""The partition of training pairs by what a teacher and a student make of them: StructVPR's groups D1 to D4."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import check_absent, digest, load_arrays, save_arrays
from covis.labels import TIE, Labels
from covis.lookup import suggest
from covis.structure.ranks import RANKS, Side, ranks

FORMAT, VERSION = "covis-partition", 1

GROUPS = {
    "D1": "teacher right, student wrong",
    "D2": "both right, the teacher at least as good",
    "D3": "both right, the student better",
    "D4": "teacher wrong",
}
"""The groups, and what they hold; right: a rank of at most N_t."""

Sides: TypeAlias = tuple[Side, Side]
"""(queries, database) of a scene."""

_COLUMNS: dict[str, type[np.generic]] = {
    "query": np.int64, "database": np.int64, "similarity": np.float64, "teacher": np.int32, "student": np.int32
}  # fmt: skip
_LARGEST = 2**31 - 1  # of a row or a rank: what int32 holds
LARGEST_THRESHOLD = 10**9
"""Of N_t: twice as much is still a rank, and so int32."""


def grouped(teacher: ArrayLike, student: ArrayLike, threshold: int) -> NDArray[np.uint8]:
    """The group of each pair, 1 to 4, from its ranks x under the teacher and y under the student.

    D1 = {x ≤ N, y > N}, D2 = {x ≤ y ≤ N}, D3 = {y < x ≤ N}, D4 = {x > N}. From the poster of StructVPR (CVPR 2023), where the sign of D2 is
    blurred: ≤ is the one that makes a partition.

    Args:
        teacher: (n,) ranks x, from 1.
        student: (n,) ranks y, from 1.
        threshold: N, at least 1.

    Returns:
        (n,) uint8.

    >>> grouped([1, 1, 3, 11], [11, 1, 2, 1], 10)
    array([1, 2, 3, 4], dtype=uint8)
    """
    x, y = np.asarray(teacher), np.asarray(student)
    return np.select([x > threshold, y > threshold, x <= y], [4, 1, 2], 3).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Partition:
    """Positive pairs of training scenes with their ranks under two branches.

    Attributes:
        query: (n,) int64 a scene, rows of its queries.
        database: (n,) int64 a scene, rows of its database images.
        similarity: (n,) float64 a scene, in [0, 1].
        teacher: (n,) int32 a scene, ranks x under the teacher, from 1.
        student: (n,) int32 a scene, ranks y under the student, from 1.
        scenes: their names.
        threshold: N_t: a rank up to it is right.
        rank: what a rank counts, a name of `RANKS`.
        positive_threshold: the similarity from which pairs are positive.
        images: a hash of the names of each scene's images, which `check_labels` looks at; empty where none was given.

    Raises:
        InvalidInputError: there is no pair, columns differ in length, or a value is out of its range.

    >>> found = Partition([[0, 0, 1]], [[1, 2, 0]], [[0.9, 0.5, 0.9]], [[1, 12, 3]], [[11, 1, 2]], scenes=("street",))
    >>> found.counts()
    {'D1': 1, 'D2': 0, 'D3': 1, 'D4': 1}
    """

    query: tuple[NDArray[np.int64], ...]
    database: tuple[NDArray[np.int64], ...]
    similarity: tuple[NDArray[np.float64], ...]
    teacher: tuple[NDArray[np.int32], ...]
    student: tuple[NDArray[np.int32], ...]
    _: KW_ONLY
    scenes: tuple[str, ...]
    threshold: int = 10
    rank: str = "non-positive"
    positive_threshold: float = 0.5
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("scenes", "images"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not all(isinstance(name, str) for name in self.scenes + self.images):
            raise InvalidInputError(f"The scenes of a partition must be named by text; got {self.scenes!r}.")
        for name in _COLUMNS:
            object.__setattr__(self, name, tuple(_column(part, name) for part in getattr(self, name)))
        parts = {name: [len(part) for part in getattr(self, name)] for name in _COLUMNS}
        if any(one != parts["query"] for one in parts.values()) or len(self.scenes) != len(self.query):
            raise InvalidInputError(
                f"A partition must have one value a pair in each column, and a name a scene; got {parts}, {self.scenes}."
            )
        if len(self.images) not in (0, len(self.scenes)):
            raise InvalidInputError(
                f"A partition must have one hash a scene, or none; got {len(self.images)} for {len(self.scenes)} scenes."
            )
        if not len(self):
            raise InvalidInputError("A partition must hold at least one pair; there is none.")
        check_threshold(self.threshold)
        if not isinstance(self.positive_threshold, int | float) or not 0 < self.positive_threshold <= 1:
            raise InvalidInputError(f"A positive's similarity threshold must be in (0, 1]; got {self.positive_threshold!r}.")
        if self.rank not in RANKS:
            raise UnknownNameError(f"There is no rank called {self.rank!r}. {suggest(self.rank, RANKS)}")

    def __repr__(self) -> str:
        return f"Partition({len(self)} pairs of {len(self.scenes)} scenes, rank {self.rank!r}, N_t = {self.threshold})"

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.query)

    def groups(self) -> list[NDArray[np.uint8]]:
        """The group of each pair, 1 to 4, one array a scene."""
        return [grouped(x, y, self.threshold) for x, y in zip(self.teacher, self.student, strict=True)]

    def counts(self) -> dict[str, int]:
        """How many pairs each group has; together all of them."""
        found = np.bincount(np.concatenate(self.groups()), minlength=5)
        return {name: int(found[number]) for number, name in enumerate(GROUPS, start=1)}

    def shares(self) -> dict[str, float]:
        """Which share of the pairs each group has, in [0, 1]."""
        return {name: count / len(self) for name, count in self.counts().items()}

    def union_recall(self, k: int = 1) -> dict[str, float]:
        """Recall@k on the training scenes under each branch, and of the two together: how far they complement each other.

        A query is right under a branch if one of its positives has a rank of at most k, which is to say that a positive is among the
        first k images, ties in its favour; that holds for each of `RANKS`. "either" is what someone would reach who knew which of the
        two to ask (an oracle's union), "both" what both find. Queries without a positive do not count.

        Args:
            k: at least 1.

        Returns:
            "teacher", "student", "either" and "both", each a share of the queries in [0, 1].

        Raises:
            InvalidInputError: k is less than 1.

        >>> found = Partition([[0, 0, 1]], [[1, 2, 0]], [[0.9, 0.5, 0.9]], [[1, 12, 3]], [[11, 1, 2]], scenes=("street",))
        >>> found.union_recall()
        {'teacher': 0.5, 'student': 0.5, 'either': 0.5, 'both': 0.5}
        """
        if not k >= 1:
            raise InvalidInputError(f"k must be at least 1; got {k}.")
        right: dict[str, list[NDArray[np.bool_]]] = {"teacher": [], "student": []}
        for scene, rows in enumerate(self.query):
            asked, owner = np.unique(rows, return_inverse=True)
            for name, found in right.items():
                found.append(np.bincount(owner, getattr(self, name)[scene] <= k, len(asked)) > 0)
        x, y = (np.concatenate(found) for found in right.values())
        return {"teacher": float(x.mean()), "student": float(y.mean()), "either": float((x | y).mean()), "both": float((x & y).mean())}

    def __str__(self) -> str:
        counts, shares, recall = self.counts(), self.shares(), self.union_recall()
        width = max(len(f"{count:,}") for count in counts.values())
        queries, scenes = sum(len(np.unique(rows)) for rows in self.query), len(self.scenes)
        lines = [
            f"{len(self):,} positive pairs (>= {self.positive_threshold:g}) of {queries:,} queries in {scenes:,} "
            f"scene{'s' * (scenes != 1)}; rank {self.rank}, right up to N_t = {self.threshold}"
        ]
        lines += [f"  {name}  {meaning:<42} {counts[name]:>{width},} ({100 * shares[name]:6.2f} %)" for name, meaning in GROUPS.items()]
        said = ", ".join(f"{name} {100 * share:.2f} %" for name, share in recall.items())
        return "\n".join([*lines, f"  queries whose nearest image is positive: {said}"])

    @cached_property
    def digest(self) -> str:
        """A short hash of all that it holds (16 hex digits of SHA-256)."""
        found = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for array in self._arrays().values():
            found.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return found.hexdigest()[:16]

    def check_labels(self, labels: Sequence[Labels]) -> None:
        """Hold it against the labels of a training: the same scenes, in the same order, with the same images.

        Raises:
            InvalidInputError: the number of scenes differs, or the images of one; the message names it.
        """
        if len(labels) != len(self.scenes):
            raise InvalidInputError(
                f"The partition is of {len(self.scenes)} scenes, and {len(labels)} are given. Partition the scenes that teach."
            )
        for name, one, known in zip(self.scenes, labels, self.images, strict=False):
            if _images(one) != known:
                raise InvalidInputError(
                    f"The partition must be of the images that teach; those of scene {name} are others, or in another order. "
                    "Partition again."
                )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one `.npz` without pickle; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        path = check_absent(path, overwrite=overwrite)
        return save_arrays(path, {"format": FORMAT, "version": VERSION, **self._header()}, self._arrays())

    @classmethod
    def load(cls, path: str | Path) -> Partition:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        header, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=("pairs", *_COLUMNS))
        try:
            ends = np.cumsum(_integers(arrays["pairs"], "pairs"))
            if np.any(np.diff(ends, prepend=0) < 0) or any(arrays[name].shape != (ends[-1:].sum(),) for name in _COLUMNS):
                raise ValueError("the columns are not as long as the scenes together")
            columns: dict[str, Any] = {name: tuple(np.split(arrays[name], ends[:-1])) for name in _COLUMNS}
            return cls(**columns, **{name: header[name] for name in _HEADER})
        except (ValueError, KeyError, TypeError, AttributeError, LookupError) as error:
            raise DamagedFileError(f"{path} must hold a partition; its parts do not fit ({error}). Partition again.") from error

    def _header(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value := getattr(self, name), tuple) else value for name in _HEADER}

    def _arrays(self) -> dict[str, NDArray[Any]]:
        pairs = np.array([len(rows) for rows in self.query], dtype=np.int64)
        return {"pairs": pairs, **{name: np.concatenate(getattr(self, name)) for name in _COLUMNS}}


_HEADER = ("scenes", "threshold", "rank", "positive_threshold", "images")


def partition(
    labels: Sequence[Labels],
    teacher: Sequence[Sides],
    student: Sequence[Sides],
    *,
    threshold: int = 10,
    rank: str = "non-positive",
    positive_threshold: float = 0.5,
    scenes: Sequence[str] = (),
) -> Partition:
    """Rank the positive pairs of training scenes under a teacher and under a student.

    Everything is counted inside a scene, exactly, in bounded memory (`covis.structure.ranks.ranks`); a pair takes 32 bytes.

    Args:
        labels: one a scene.
        teacher: (queries, database) descriptors a scene, of the branch that reads label maps.
        student: the same, of the branch that reads photographs.
        threshold: N_t, at least 1. The paper's is not established; 10 is our default.
        rank: what a rank counts: a name of `RANKS`.
        positive_threshold: pairs of similarity >= it are positive, and are the pairs of the partition.
        scenes: their names; else they are numbered from 0.

    Returns:
        The partition; its pairs stand scene after scene, query after query, by database row.

    Raises:
        UnknownNameError: there is no such rank.
        InvalidInputError: no pair is positive, the lists differ in length, or descriptors are not those of the labels' images.

    >>> from scipy import sparse
    >>> names = ("a", "b", "c")
    >>> graded = sparse.csr_array([[0, 0.8, 0], [0.8, 0, 0], [0, 0, 0]])
    >>> labels = Labels(graded, names, names, rule="by hand", excluded=sparse.eye_array(3, format="csr"))
    >>> maps, photographs = [[0.0], [1.0], [9.0]], [[0.0], [3.0], [2.0]]
    >>> found = partition([labels], [(maps, maps)], [(photographs, photographs)], threshold=1, scenes=("street",))
    >>> found.teacher, found.student
    ((array([1, 1], dtype=int32),), (array([2, 2], dtype=int32),))
    >>> print(found)
    2 positive pairs (>= 0.5) of 2 queries in 1 scene; rank non-positive, right up to N_t = 1
      D1  teacher right, student wrong               2 (100.00 %)
      D2  both right, the teacher at least as good   0 (  0.00 %)
      D3  both right, the student better             0 (  0.00 %)
      D4  teacher wrong                              0 (  0.00 %)
      queries whose nearest image is positive: teacher 100.00 %, student 0.00 %, either 100.00 %, both 0.00 %
    """
    if isinstance(labels, Labels) or not len(labels) == len(teacher) == len(student) or len(scenes) not in (0, len(labels)):
        given = "one scene's, and not a list" if isinstance(labels, Labels) else f"of {len(labels)} scenes"
        raise InvalidInputError(
            f"Labels and descriptors must be lists with one entry a scene; the labels are {given}, the teacher's descriptors of "
            f"{len(teacher)} and the student's of {len(student)}" + (f", and there are {len(scenes)} names." if scenes else ".")
        )
    check_threshold(threshold)
    names = tuple(scenes) or tuple(str(number) for number in range(len(labels)))
    positives = [one.positives(positive_threshold) for one in labels]
    if not sum(one.nnz for one in positives):
        raise InvalidInputError(
            f"There must be a positive pair to partition; no pair of {len(labels)} scenes has a similarity of {positive_threshold:g} "
            "or more. Look at the labels' summary, or lower positive_threshold."
        )
    found: dict[str, list[NDArray[np.int32]]] = {"teacher": [], "student": []}
    for branch, described in (("teacher", teacher), ("student", student)):
        for name, one, sides in zip(names, labels, described, strict=True):
            try:
                queries, database = sides
                found[branch].append(ranks(one, queries, database, rank=rank, positive_threshold=positive_threshold))
            except (InvalidInputError, ValueError, TypeError) as error:
                if isinstance(error, InvalidInputError):
                    raise InvalidInputError(f"Scene {name}, {branch}: {error}") from error
                raise InvalidInputError(f"Scene {name}, {branch}: there must be (queries, database) descriptors; {error}.") from error
    return Partition(
        tuple(np.repeat(np.arange(one.shape[0]), np.diff(one.indptr)) for one in positives),
        tuple(one.indices for one in positives),
        tuple(one.matrix.data[one.matrix.data >= positive_threshold - TIE] for one in labels),
        tuple(found["teacher"]),
        tuple(found["student"]),
        scenes=names,
        threshold=threshold,
        rank=rank,
        positive_threshold=positive_threshold,
        images=tuple(_images(one) for one in labels),
    )


def _images(labels: Labels) -> str:
    """A hash of the names of both sides."""
    return digest([labels.query_names, labels.database_names])


def check_threshold(threshold: int) -> None:
    """Hold that N_t is a rank.

    Raises:
        InvalidInputError: it is no whole number from 1 to 10**9; ranks are int32.
    """
    if not isinstance(threshold, int | np.integer) or isinstance(threshold, bool) or not 1 <= threshold <= LARGEST_THRESHOLD:
        raise InvalidInputError(f"The threshold N_t must be a rank, a whole number from 1 to {LARGEST_THRESHOLD:,}; got {threshold!r}.")


def _integers(values: Any, name: str) -> NDArray[np.int64]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise InvalidInputError(f"{name} of a partition must be (n,) whole numbers; got {found.dtype} of shape {found.shape}.")
    return found.astype(np.int64)


def _column(values: Any, name: str) -> NDArray[Any]:
    """A column as it is held, after a look at its values."""
    if name == "similarity":
        found = np.asarray(values, dtype=np.float64)
        if found.ndim != 1 or not ((found >= 0) & (found <= 1)).all():
            raise InvalidInputError("similarity of a partition must be (n,) numbers in [0, 1].")
        return found
    whole = _integers(values, name)
    least = int(name in ("teacher", "student"))
    if whole.size and (whole.min() < least or whole.max() > _LARGEST):
        raise InvalidInputError(f"{name} of a partition must be at least {least}; got {whole.min()} to {whole.max()}.")
    return whole.astype(_COLUMNS[name])
