"""PCA whitening: fitted on descriptors that are named, applied to any; float64 and `eigh` throughout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError
from covis.files import check_absent, digest, load_arrays, save_arrays

FORMAT, VERSION = "covis-whitening", 1
SMALLEST = 1e-9
"""Eigenvalues below this share of the largest are noise of the arithmetic and are dropped."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted map f -> P (f - mean), divided by its norm.

    Attributes:
        mean: (d,) float64.
        basis: (k, d) float64, P = diag(eigenvalues)^(-power / 2) Uᵀ.
        eigenvalues: (k,) float64 of the covariance, descending.
        history: what it was fitted on, how many descriptors, the model that made them, the power.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    history: Mapping[str, Any]

    @property
    def dim(self) -> int:
        """The number of dimensions that come out."""
        return len(self.basis)

    @property
    def digest(self) -> str:
        """A short hash of all that it does."""
        return digest([dict(self.history), self.mean.tolist(), self.basis.tolist()])

    def __call__(self, descriptors: Descriptors) -> Descriptors:
        """Whiten descriptors of the same model; rows have unit norm (up to the 1e-6 that the reference adds to it).

        Raises:
            InvalidInputError: they are of another model, have another dimension, are whitened already, or one is not finite.
        """
        if descriptors.model != self.history["model"] or descriptors.dim != len(self.mean):
            raise InvalidInputError(
                f"The whitening was fitted on model {self.history['model']} with {len(self.mean)} dimensions; these "
                f"descriptors are of model {descriptors.model} with {descriptors.dim}. Fit one for them."
            )
        if "whitened" in descriptors.history:
            raise InvalidInputError(
                f"Descriptors must be whitened once; {descriptors} are whitened already. Give those that were extracted."
            )
        descriptors.check_finite()
        parts = []
        for block in descriptors.blocks():
            rotated = (block.astype(np.float64) - self.mean) @ self.basis.T
            parts.append((rotated / (np.linalg.norm(rotated, axis=1, keepdims=True) + 1e-6)).astype(np.float32))
        vectors = np.concatenate(parts) if parts else np.zeros((0, self.dim), dtype=np.float32)
        return Descriptors(vectors, descriptors.names, descriptors.model, {**descriptors.history, "whitened": dict(self.history)})

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one `.npz` without pickle; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        arrays = {"mean": self.mean, "basis": self.basis, "eigenvalues": self.eigenvalues}
        return save_arrays(
            check_absent(path, overwrite=overwrite), {"format": FORMAT, "version": VERSION, "history": dict(self.history)}, arrays
        )

    @classmethod
    def load(cls, path: str | Path) -> Whitening:
        """The inverse of `save`.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated or foreign.
        """
        header, arrays = load_arrays(path, kind=FORMAT, version=VERSION, names=("mean", "basis", "eigenvalues"))
        shape = (arrays["eigenvalues"].size, arrays["mean"].size)
        if arrays["basis"].shape != shape or not isinstance(header.get("history"), dict) or "model" not in header["history"]:
            raise DamagedFileError(f"{path} must hold a whitening; its parts do not fit. Fit it again.")
        return cls(arrays["mean"], arrays["basis"], arrays["eigenvalues"], header["history"])


def fit_whitening(
    descriptors: Descriptors | Sequence[Descriptors], *, dim: int = 0, power: float = 1.0, fitted_on: str = "database"
) -> Whitening:
    """Fit PCA whitening: m = mean, C = U diag(l) Uᵀ the covariance (divided by N), P = diag(l)^(-power/2) Uᵀ.

    Args:
        descriptors: of one model; several sets are stacked. The reference fits on the database that is searched, so
            its numbers are transductive: the result says what it was fitted on.
        dim: how many dimensions to keep; 0 keeps all that carry variance (eigenvalue >= 1e-9 of the largest).
        power: 1 gives unit variance in each dimension, 0.5 the square root of that scaling, 0 a rotation alone.
        fitted_on: what the descriptors are, in a word, for the record.

    Returns:
        The whitening, at most `dim` wide: fewer where the descriptors do not carry as many.

    Raises:
        InvalidInputError: fewer than two descriptors, different models, a value that is not finite, or `dim` or
            `power` out of its range.

    Warns:
        CovisWarning: there are fewer descriptors than dimensions kept times two: the last directions are noise, and
            whitening amplifies them.

    Follows GCL's `apply_pca` (after Radenović et al.), with `eigh` in float64 in place of its `eig`.

    >>> random = np.random.default_rng(0)
    >>> d = Descriptors(random.normal(scale=[1, 2, 3], size=(500, 3)).astype(np.float32), tuple(map(str, range(500))), model="none")
    >>> whitening = fit_whitening(d, dim=2)
    >>> whitening.eigenvalues.round(0).tolist(), whitening(d).dim
    ([9.0, 4.0], 2)
    """
    sets = [descriptors] if isinstance(descriptors, Descriptors) else list(descriptors)
    count = sum(len(one) for one in sets)
    _check_fit(sets, count, dim, power)
    mean = sum(block.astype(np.float64).sum(axis=0) for one in sets for block in one.blocks()) / count
    covariance = np.zeros((len(mean), len(mean)))
    for one in sets:
        for block in one.blocks():
            centred = block.astype(np.float64) - mean
            covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / count)
    values, vectors = values[::-1], vectors[:, ::-1]
    differ = values[0] > np.finfo(np.float32).eps ** 2 * (mean @ mean)  # more than the rounding of what they are stored as
    carried = int((values >= SMALLEST * values[0]).sum()) if differ else 0
    kept = min(dim or carried, carried, count - 1)
    if kept == 0:
        raise InvalidInputError(f"The {count} descriptors must differ to be whitened; they are all the same. Has the model collapsed?")
    if count < 2 * kept:
        warnings.warn(
            f"Whitening keeps {kept} dimensions fitted on {count} descriptors: the last ones are noise, and it amplifies "
            "them. Keep fewer, or fit on more.",
            CovisWarning,
            stacklevel=2,
        )
    values, vectors = values[:kept].copy(), vectors[:, :kept] * _signs(vectors[:, :kept])
    history = {"fitted_on": fitted_on, "count": count, "mean": digest(np.asarray(mean).tolist())}  # tells apart fits on other images
    history |= {"model": sets[0].model, "dim": kept, "power": power}
    return Whitening(np.asarray(mean), (vectors * values ** (-power / 2)).T.copy(), values, history)


def _signs(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sign of each column's largest entry: eigenvectors have none of their own, and libraries differ."""
    return np.asarray(np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]))


def _check_fit(sets: Sequence[Descriptors], count: int, dim: int, power: float) -> None:
    if count < 2:
        raise InvalidInputError(f"Whitening must be fitted on two or more descriptors; got {count}.")
    if len({(one.model, one.dim) for one in sets}) > 1:
        raise InvalidInputError(
            f"Whitening must be fitted on descriptors of one model and dimension; got {', '.join(sorted({str(one) for one in sets}))}."
        )
    if dim < 0 or not 0 <= power <= 1:
        raise InvalidInputError(f"dim must be >= 0 (0: all that carry variance) and power in [0, 1]; got {dim} and {power}.")
    for one in sets:
        if "whitened" in one.history:
            raise InvalidInputError(f"Whitening must be fitted on descriptors as they were extracted; {one} are whitened already.")
        one.check_finite()
