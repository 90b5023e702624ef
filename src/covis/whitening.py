"""Whitening: fitted on descriptors that are named, applied to any; float64 and `eigh` throughout, vectors read in blocks.

Half precision is there to hold numbers against the script of GCL's reference (`emulate_float16`), and for nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError
from covis.files import check_absent, digest, load_arrays, save_arrays

FORMAT, VERSION = "covis-whitening", 1
SMALLEST = 1e-9
"""Eigenvalues below this share of the largest are noise of the arithmetic and are dropped."""
TILE = 256
"""Rows and columns of the covariance in half precision that are summed together: they fit into a processor's cache."""


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted map f -> P (f - mean), divided by its norm.

    Attributes:
        mean: (d,) float64.
        basis: (k, d) float64, P = diag(eigenvalues)^(-power / 2) Uᵀ; of "zca" U times that, and k = d.
        eigenvalues: of the covariance, descending; (k,) float64, of "zca" as many as carry variance.
        history: what it was fitted on, how many descriptors, the model that made them, the power and so on.
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
        self._check(descriptors)
        return self._applied(descriptors, [self])[0]

    def _check(self, descriptors: Descriptors) -> None:
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

    def at(self, dim: int) -> Whitening:
        """The same map cut to its first dimensions: what `fit_whitening(..., dim=dim)` on the same descriptors gives.

        Raises:
            InvalidInputError: it has not as many, or is "zca", whose dimensions have no order.
        """
        if not 1 <= dim <= self.dim or self.history.get("kind", "pca") != "pca":
            raise InvalidInputError(
                f"A PCA whitening of {self.dim} dimensions can be cut to 1 to {self.dim}; asked for {dim} of {self.kind}."
            )
        history = {**self.history, "dim": dim}
        return Whitening(self.mean, self.basis[:dim], self.eigenvalues[:dim], history)

    def each(self, descriptors: Descriptors, dims: Sequence[int]) -> list[Descriptors]:
        """The descriptors whitened to several numbers of dimensions; each vector is rotated once.

        Raises:
            InvalidInputError: as of calling it, and of `at`.
        """
        cut = [self.at(dim) for dim in dims]
        self._check(descriptors)
        return self._applied(descriptors, cut)

    @property
    def kind(self) -> str:
        """The kind that it was fitted as: "pca" or "zca"."""
        return str(self.history.get("kind", "pca"))

    def _applied(self, descriptors: Descriptors, cut: Sequence[Whitening]) -> list[Descriptors]:
        vectors = [np.empty((len(descriptors), one.dim), dtype=np.float32) for one in cut]
        basis = self.basis[: max((one.dim for one in cut), default=0)].T
        row = 0
        for block in descriptors.blocks():
            rotated = self._centred(block) @ basis
            for one, out in zip(cut, vectors, strict=True):
                part = rotated[:, : one.dim]
                if one.history.get("binary"):
                    part = np.where(part >= 0, 1.0, -1.0)
                out[row : row + len(block)] = part / (np.linalg.norm(part, axis=1, keepdims=True) + 1e-6)
            row += len(block)
        return [
            Descriptors(out, descriptors.names, descriptors.model, {**descriptors.history, "whitened": dict(one.history)})
            for one, out in zip(cut, vectors, strict=True)
        ]

    def _centred(self, block: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        half = self.history.get("emulate_float16", False)
        if half == "fit":  # there the mean is of half precision too, and so is the difference
            return (block.astype(np.float16) - self.mean.astype(np.float16)).astype(np.float64)
        return np.asarray((block.astype(np.float16) if half else block).astype(np.float64) - self.mean)

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
        values, dim = arrays["eigenvalues"].size, arrays["mean"].size
        if arrays["basis"].shape not in ((values, dim), (dim, dim)) or "model" not in (header.get("history") or {}):
            raise DamagedFileError(f"{path} must hold a whitening; its parts do not fit. Fit it again.")
        return cls(arrays["mean"], arrays["basis"], arrays["eigenvalues"], header["history"])


def fit_whitening(
    descriptors: Descriptors | Sequence[Descriptors],
    *,
    dim: int = 0,
    power: float = 1.0,
    kind: Literal["pca", "zca"] = "pca",
    shrinkage: float | Literal["ledoit-wolf"] = 0.0,
    emulate_float16: bool | Literal["fit"] = False,
    binary: bool = False,
    fitted_on: str = "database",
) -> Whitening:
    """Fit whitening: m = mean, C = U diag(l) Uᵀ the covariance (divided by N), P = diag(l)^(-power/2) Uᵀ.

    Vectors are read in blocks, twice: the memory is that of the covariance, or, where there are fewer descriptors than
    dimensions, of the descriptors and their inner products.

    Args:
        descriptors: of one model; several sets are stacked. The reference fits on the database that is searched, so
            its numbers are transductive: the result says what it was fitted on.
        dim: how many dimensions to keep; 0 keeps all that carry variance (eigenvalue >= 1e-9 of the largest).
        power: 1 gives unit variance in each dimension, 0.5 the square root of that scaling, 0 a rotation alone.
        kind: "pca", or "zca", which turns back, U P: whitened vectors stay as near as can be to what they were, and
            keep all their dimensions (Kessy, Lewin, Strimmer, 2018). `dim` must be 0.
        shrinkage: the share a in [0, 1] of (1 - a) C + a tr(C)/d I that is put in place of C, for few descriptors in many
            dimensions: small eigenvalues are amplified less. "ledoit-wolf" estimates it (Ledoit, Wolf, 2004).
        emulate_float16: as the reference's script has it. True: vectors are rounded to half precision before they are whitened,
            and the fit is not touched (its way with MSLS). "fit": mean, differences and covariance of the fit are rounded too (its
            way with every other data set, under the numpy 1.21 that it asks for; under numpy 2 it stops there with a TypeError).
            What it makes of the covariance by float32 is made in float64 here.
        binary: of each whitened dimension the sign alone is kept, ± 1 / √dim: what one bit a dimension finds. The Euclidean
            distance of two such vectors is 2 √(h / dim), h the number of bits that differ.
        fitted_on: what the descriptors are, in a word, for the record.

    Returns:
        The whitening, at most `dim` wide: fewer where the descriptors do not carry as many.

    Raises:
        InvalidInputError: fewer than two descriptors, different models, a value that is not finite, or an option out of
            its range.

    Warns:
        CovisWarning: there are fewer descriptors than dimensions kept times two, and no shrinkage: the last directions
            are noise, and whitening amplifies them.

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
    if emulate_float16 not in (True, False, "fit"):
        raise InvalidInputError(f"emulate_float16 must be True, False or 'fit'; got {emulate_float16!r}.")
    if kind not in ("pca", "zca") or (kind == "zca" and dim):
        raise InvalidInputError(f"Whitening must be 'pca', or 'zca' with dim = 0 (it keeps all dimensions); got {kind!r} and dim = {dim}.")
    if emulate_float16 == "fit":
        mean, values, vectors = _half_eigen(sets, count)
    else:
        mean = sum(block.astype(np.float64).sum(axis=0) for one in sets for block in one.blocks()) / count
        values, vectors = _eigen(sets, mean, count)
    differ = values[0] > np.finfo(np.float32).eps ** 2 * (mean @ mean)  # more than the rounding of what they are stored as
    carried = int((values >= SMALLEST * values[0]).sum()) if differ else 0
    kept = min(dim or carried, carried, count - 1)
    if kept == 0:
        raise InvalidInputError(f"The {count} descriptors must differ to be whitened; they are all the same. Has the model collapsed?")
    share = _shrinkage(sets, mean, values, count, shrinkage)
    if count < 2 * kept and not share:
        warnings.warn(
            f"Whitening keeps {kept} dimensions fitted on {count} descriptors: the last ones are noise, and it amplifies "
            "them. Keep fewer, fit on more, or shrink (shrinkage='ledoit-wolf').",
            CovisWarning,
            stacklevel=2,
        )
    spread = values.sum() / len(mean)
    values, vectors = (1 - share) * values[:kept] + share * spread, vectors[:, :kept] * _signs(vectors[:, :kept])
    basis = (vectors * values ** (-power / 2)).T.copy()
    if kind == "zca":  # what carries no variance is scaled by the least that does, or by what shrinkage gives it
        rest = share * spread if share else values[-1]
        basis = vectors @ basis + rest ** (-power / 2) * (np.eye(len(mean)) - vectors @ vectors.T)
    history = {"fitted_on": fitted_on, "count": count, "mean": digest(np.asarray(mean).tolist())}  # tells apart fits on other images
    history |= {"model": sets[0].model, "dim": len(basis), "power": power}
    more = {"kind": kind, "shrinkage": share, "emulate_float16": emulate_float16, "binary": binary}
    history |= {name: value for name, value in more.items() if value not in ("pca", 0.0, False)}
    return Whitening(np.asarray(mean), basis, values, history)


def _eigen(sets: Sequence[Descriptors], mean: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of the covariance, descending, and its eigenvectors as columns; those of the inner products where they are fewer."""
    centred = (block.astype(np.float64) - mean for one in sets for block in one.blocks())
    if count < len(mean):
        rows = np.concatenate(list(centred))
        values, left = np.linalg.eigh(rows @ rows.T / count)
        values, left = np.maximum(values[::-1], 0), left[:, ::-1]
        vectors = rows.T @ left
        return values, vectors / np.maximum(np.linalg.norm(vectors, axis=0), np.finfo(np.float64).tiny)
    covariance = np.zeros((len(mean), len(mean)))
    for block in centred:
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance / count)
    return values[::-1], vectors[:, ::-1]


def _half_eigen(sets: Sequence[Descriptors], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, eigenvalues and eigenvectors of the covariance as half precision gives them; eigenvalues may be below 0.

    numpy 1 divides a float16 matrix by 2N as float16 up to 255, as float32 up to 65,535, and as float64 above.
    """
    if 2 * count <= 255:
        raise InvalidInputError(
            f"A fit in half precision needs 128 descriptors or more, as the reference's script does, which stops below; got {count}. "
            "Fit in float64."
        )
    rows = np.concatenate([block.astype(np.float16) for one in sets for block in one.blocks()])
    mean = rows.T.mean(axis=1)  # in float32, rounded once
    with np.errstate(over="ignore"):
        summed = _half_products(rows - mean)
        twice = summed + summed.T
    if not np.isfinite(twice).all():
        raise InvalidInputError(
            f"The covariance of {count} descriptors must stay below float16's 65,504 for a fit in half precision; it does not. Divide "
            "the descriptors by their norm, or fit in float64."
        )
    wide = np.dtype(np.float32 if 2 * count <= 65_535 else np.float64)
    covariance = np.divide(twice, 2 * count, dtype=wide)
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    return mean.astype(np.float64), values[::-1], vectors[:, ::-1]


def _half_products(centred: NDArray[np.float16]) -> NDArray[np.float16]:
    """(d, d) float16 Xᵀ X of (n, d) float16, to the bit what numpy's `dot` gives: summed in float32 row after row, rounded once."""
    dim = centred.shape[1]
    out = np.empty((dim, dim), dtype=np.float16)
    single = centred.astype(np.float32)
    for top in range(0, dim, TILE):
        for left in range(top, dim, TILE):
            high, wide = single[:, top : top + TILE], single[:, left : left + TILE]
            total = np.zeros((high.shape[1], wide.shape[1]), dtype=np.float32)
            product = np.empty_like(total)
            for a, b in zip(high, wide, strict=True):
                np.multiply(a[:, None], b, out=product)  # exact: 11 bits by 11 bits
                total += product
            out[top : top + TILE, left : left + TILE] = total
            out[left : left + TILE, top : top + TILE] = total.T
    return out


def _shrinkage(
    sets: Sequence[Descriptors], mean: NDArray[np.float64], values: NDArray[np.float64], count: int, asked: float | str
) -> float:
    """The share in [0, 1]; Ledoit and Wolf's is the mean squared error of the covariance over its distance from a multiple of I."""
    if asked != "ledoit-wolf":
        if not isinstance(asked, (int, float)) or not 0 <= asked <= 1:
            raise InvalidInputError(f"shrinkage must be a share in [0, 1], or 'ledoit-wolf'; got {asked!r}.")
        return float(asked)
    norms = (((block.astype(np.float64) - mean) ** 2).sum(axis=1) for one in sets for block in one.blocks())
    fourth = sum(float(norm @ norm) for norm in norms)
    squares = float(values @ values)
    error = (fourth / count - squares) / count
    distance = squares - float(values.sum()) ** 2 / len(mean)
    return min(max(error / distance, 0.0), 1.0) if distance > 0 else 1.0


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
