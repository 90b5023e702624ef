"""Indexes: vectors in, rankings out. Exact by default; approximate kinds say how much they miss (docs/search.md)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError
from covis.indexes import measures, storage
from covis.indexes.approximate import ApproximateIndex
from covis.indexes.exact import ExactIndex
from covis.indexes.sketches import BinaryIndex, PrefixIndex
from covis.indexes.stored import Option, StoredIndex, whole
from covis.indexes.structures import GraphIndex, InvertedIndex, ProductIndex, ScalarIndex
from covis.indexes.tuning import GRAPH_UP_TO, TUNED, tuned
from covis.lookup import resolve
from covis.rankings import Rankings

__all__ = ["EXACT_UP_TO", "INDEXES", "ApproximateIndex", "ExactIndex", "Index", "Option", "StoredIndex", "index", "load_index"]

EXACT_UP_TO = 200_000
"""Vectors up to which "auto" is exact."""


class Index(Interface):
    """What every index can do, your own ones among them."""

    @property
    def kind(self) -> str:
        """Its name in `INDEXES`."""

    @property
    def report(self) -> Mapping[str, Any] | None:
        """None of an exact one; else recall, queries a second and bytes."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all images in it, in the order of the rows."""

    def add(self, descriptors: Descriptors) -> None:
        """Take in more vectors."""

    def delete(self, names: Sequence[str]) -> None:
        """Take images out."""

    def search(self, queries: Descriptors, *, k: int, among: Sequence[str] | NDArray[np.bool_] | None = None) -> Rankings:
        """The k nearest of each query, best first."""

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it to a folder."""

    def __len__(self) -> int: ...


def index(
    descriptors: Descriptors | Sequence[Descriptors],
    *,
    kind: str = "auto",
    options: Mapping[str, Any] | None = None,
    recall: float | None = None,
    k: int = measures.K,
    queries: Descriptors | None = None,
    progress: Callable[[str], None] | None = None,
) -> Index:
    """Make an index of descriptors.

    Args:
        descriptors: of one model and whitening; several sets become one index.
        kind: a name of `INDEXES`, or `module:class`. "auto": "exact" up to `EXACT_UP_TO` vectors; beyond it "prefix" where they are
            PCA-whitened, with a warning that says its recall, and "exact" where they are not.
        options: of the kind.
        recall: in (0, 1]: the kind's options are chosen so that it finds so large a share of the first neighbours and of the first k,
            as quickly as it can; with "auto" the kind too. The exact index, where nothing quicker does.
        k: of `recall`, and of the measured recall.
        queries: that the recall is measured on; default: samples of the index's own vectors.
        progress: is told what the tuner tries.

    Returns:
        An index; `report` holds the recall of an approximate one, `chosen` why it is of its kind, `trials` what was tried.

    Raises:
        UnknownNameError: no index has that name.
        InvalidInputError: the sets do not belong together, an option or the recall is out of range, or both are given.

    >>> made = index(Descriptors(np.eye(3, dtype=np.float32), ("a", "b", "c"), model="none"))
    >>> made.kind, made.chosen
    ('exact', 'auto: exact, for up to 200,000 vectors')
    """
    sets = [descriptors] if isinstance(descriptors, Descriptors) else list(descriptors)
    if not whole(k) or k < 1 or (recall is not None and options):
        raise InvalidInputError(
            f"k must be a whole number of at least 1, and options are chosen where a recall is asked for; got k = {k!r} and {options}."
        )
    if recall is not None:
        return _tuned(sets, kind, recall=recall, k=k, queries=queries, progress=progress)
    why = ""
    if kind == "auto":
        kind, why = _chosen(sets)
        if options:
            raise InvalidInputError(f"Options belong to a kind of index; got {dict(options)} for kind 'auto'. Name the kind.")
    made: Index = resolve(kind, INDEXES, what="index")(**(options or {}))
    for one in sets:
        made.add(one)
    if isinstance(made, StoredIndex):
        made.chosen = why
    if isinstance(made, ApproximateIndex) and len(made):
        made.build_now()
        report = made.measure(queries, k=k)
        if why:
            found = ", ".join(f"{name} {value:.3f}" for name, value in report.items() if name.startswith("recall@"))
            own = "" if queries is not None else f" for {measures.OWN}, {measures.OPTIMISTIC}"
            warnings.warn(
                f"{why}; searches are approximate, {found} against exact ones{own}. Name a kind or a recall.", CovisWarning, stacklevel=2
            )
    return made


def load_index(path: str | Path, *, kind: str | None = None) -> StoredIndex:
    """Open a saved index of any kind.

    Args:
        path: its folder.
        kind: default: what the folder says, one of `INDEXES`. `module:class` opens an index of your own by its class's `load`; what code is
            imported is said here alone, and never by a file.

    Raises:
        UnknownNameError: there is no such kind.
        InvalidInputError: the class has no `load`.
        MissingFileError: there is no index.
        DamagedFileError: a file is truncated or foreign, or the index is of another kind.
    """
    if kind is None:
        return storage.load(Path(path), INDEXES)
    load = getattr(resolve(kind, INDEXES, what="index"), "load", None)
    if load is None:
        raise InvalidInputError(f"An index is opened by its class's load(path); {kind!r} has none.")
    found: StoredIndex = load(path)
    return found


def _chosen(sets: Sequence[Descriptors]) -> tuple[str, str]:
    """The kind that "auto" takes, and why."""
    count = sum(len(one) for one in sets)
    if count <= EXACT_UP_TO:
        return "exact", f"auto: exact, for up to {EXACT_UP_TO:,} vectors"
    whitened = sets[0].history.get("whitened")
    if not whitened or whitened.get("kind", "pca") != "pca":
        return "exact", f"auto: exact, since the {count:,} vectors are not PCA-whitened (searching them can be quicker: ask for a recall)"
    if sets[0].dim <= PrefixIndex.OPTIONS["dims"].default:  # type: ignore[operator]
        return "exact", f"auto: exact, since {sets[0].dim} dimensions are few"
    return "prefix", f"auto: prefix, for {count:,} whitened vectors"


def _tuned(sets: Sequence[Descriptors], kind: str, *, recall: float, k: int, queries: Descriptors | None, progress: Any) -> StoredIndex:
    exact = ExactIndex()
    for one in sets:
        exact.add(one)
    if kind == "auto":
        kinds = [one for one in TUNED if one is not GraphIndex or len(exact) <= GRAPH_UP_TO]
    else:
        named = resolve(kind, INDEXES, what="index")
        kinds = [named] if isinstance(named, type) and issubclass(named, ApproximateIndex) else []  # none: the exact one
        if not kinds and named is not ExactIndex:
            raise InvalidInputError(f"A recall can be asked of the kinds {', '.join(INDEXES)}; got {kind!r}.")
    return tuned(exact, kinds, recall=recall, k=k, queries=queries, progress=progress)


INDEXES: dict[str, type[StoredIndex]] = {
    one.kind: one for one in (ExactIndex, PrefixIndex, ProductIndex, InvertedIndex, GraphIndex, ScalarIndex, BinaryIndex)
}
"""Name -> index class."""
