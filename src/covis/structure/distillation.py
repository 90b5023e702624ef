"""Distillation: what draws a student of photographs to a teacher's descriptors, one value an item; and the guide of training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from covis.errors import InvalidInputError
from covis.files import digest
from covis.losses import EPS
from covis.pairs import Pairs
from covis.structure.label_losses import label_distillation
from covis.structure.named import named
from covis.structure.stages import LABEL_FEATURES
from covis.structure.targets import Rows, Targets

if TYPE_CHECKING:
    from covis.models.place import PlaceModel
    from covis.structure.partition import Partition


def feature(a: torch.Tensor, b: torch.Tensor, ta: torch.Tensor, tb: torch.Tensor, *, negatives: bool = False) -> torch.Tensor:
    """Feature distillation: ||s_q − t_q||² + ||s_p − t_p||², of a student's descriptors s and a teacher's t.

    The poster of StructVPR (CVPR 2023) says that features are distilled and weighted; this form of it, the plain squared distance
    of L2-normalised descriptors, is our reading. Of unit vectors each term is 2 − 2 cos, in [0, 4]. Its gradient in s is
    2 (s − t), finite everywhere and 0 where the student is the teacher. No gradient reaches the teacher.

    Args:
        a: (P, D) the student's descriptors of the queries.
        b: (P, D) of their positives; or (P, 1 + N, D), the positive first, then N negatives.
        ta: (P, D) the teacher's.
        tb: the teacher's, of the shape of b.
        negatives: add the mean of ||s_n − t_n||² over the negatives of a list: the mean, so that N does not change how much
            an image weighs. Pairs have none, and stay as they are.

    Returns:
        (P,) one value an item.

    Raises:
        InvalidInputError: the shapes do not fit; the student and the teacher must be of one dimension.

    >>> q, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
    >>> round(float(feature(q, p, ta=torch.tensor([[0.0, 1.0]]), tb=p)), 4)
    2.0
    """
    _check_shapes(a, b, ta, tb)
    _check_dims(a.shape[1], ta.shape[1])
    return (a - ta.detach()).square().sum(dim=1) + _over_items((b - tb.detach()).square().sum(dim=-1), negatives=negatives)


def relational(a: torch.Tensor, b: torch.Tensor, ta: torch.Tensor, tb: torch.Tensor, *, negatives: bool = False) -> torch.Tensor:
    """Relational distillation: (d_s(q, p) − d_t(q, p))², of the distances under the student and under the teacher.

    This is not StructVPR's: a variant of ours, after the distances of Park et al., "Relational Knowledge Distillation", CVPR 2019.
    The two may have different dimensions. Distances are |q − x + 1e-6| as in `covis.losses`, so that identical descriptors have
    a finite gradient.

    Args:
        a: (P, D) the student's descriptors of the queries.
        b: (P, D) of their positives; or (P, 1 + N, D), the positive first, then N negatives.
        ta: (P, E) the teacher's.
        tb: (P, E) or (P, 1 + N, E), the teacher's.
        negatives: add the mean of (d_s(q, n) − d_t(q, n))² over the negatives of a list. Pairs have none.

    Returns:
        (P,) one value an item.

    Raises:
        InvalidInputError: the shapes do not fit.

    >>> q, p = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.3, 0.4]])
    >>> round(float(relational(q, p, torch.zeros(1, 1), torch.ones(1, 1))), 4)
    0.25
    """
    _check_shapes(a, b, ta, tb)
    return _over_items((_distance(a, b) - _distance(ta.detach(), tb.detach())).square(), negatives=negatives)


_OF_DESCRIPTORS: dict[str, Callable[..., torch.Tensor]] = {"feature": feature, "relational": relational}

DISTILLATIONS: dict[str, Callable[..., torch.Tensor]] = {**_OF_DESCRIPTORS, LABEL_FEATURES: label_distillation}
"""Name -> what is distilled: `(a (P, D), b (P, D) or (P, 1 + N, D), ta, tb, *, negatives) -> (P,)`.

"label-features" is of another form, `(student, teacher, *, classes, …)`, and `covis.structure.label_guides.LabelGuide` calls it.
"""

LARGEST_STRENGTH = 1e6


def check_strength(strength: float) -> None:
    """Hold that lambda can multiply a loss.

    Raises:
        InvalidInputError: it is not in [0, 1e6]: beyond that float32 loses the loss beside it.
    """
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.number) or not 0 <= strength <= LARGEST_STRENGTH:
        raise InvalidInputError(
            f"The strength of distillation must be a finite number >= 0, at most {LARGEST_STRENGTH:,.0f}; got {strength!r}."
        )


def distilled(name: str, a: torch.Tensor, b: torch.Tensor, ta: torch.Tensor, tb: torch.Tensor, *, negatives: bool) -> torch.Tensor:
    """What a distillation gives of these, held to be one number an item; the arguments are those of `feature`.

    Args:
        name: "feature", "relational" or `module:function`.
        a: (P, D).
        b: (P, D) or (P, 1 + N, D).
        ta: the teacher's.
        tb: the teacher's.
        negatives: distil them too.

    Raises:
        UnknownNameError: there is no such distillation.
        InvalidInputError: it gives something else than (P,) floating-point numbers, or does not take these arguments.
    """
    found = _of_descriptors(name)(a, b, ta, tb, negatives=negatives)
    if not isinstance(found, torch.Tensor) or found.shape != a.shape[:1] or not found.is_floating_point():
        said = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else repr(found)[:80]
        raise InvalidInputError(f"The distillation {name!r} must give one floating-point number an item, ({len(a)},); got {said}.")
    return found


def _of_descriptors(name: str) -> Callable[..., torch.Tensor]:
    if name == LABEL_FEATURES:
        raise InvalidInputError(
            f"The distillation {LABEL_FEATURES!r} needs label maps beside descriptors; make a covis.structure.label_guides.LabelGuide."
        )
    return named(name, DISTILLATIONS, {}, what="distillation", given=("a", "b", "ta", "tb"), keywords=("negatives",))


@dataclass(frozen=True, eq=False)
class Distillation:
    """A guide of training: it adds to the loss of each pair how far the student is from the teacher, times what the pair is worth.

    `distillation` makes one. It holds no state that changes: a resumed training gets the same values, and so does each of several
    processes.

    Attributes:
        keys: of each scene, sorted: query row * database images + database row, of the pairs of a weight above 0.
        weights: of each scene, those weights, float64.
        targets: of each scene, the teacher's descriptors of (queries, database).
        name: what is distilled: a name of `DISTILLATIONS`.
        strength: lambda, which multiplies all of it.
        negatives: whether the negatives of a list are distilled too.
        digest: a hash of all that decides a value (16 hex digits).
        upright: True: the targets are of images as they lie on the disk, so training must not mirror them.
    """

    upright: ClassVar[bool] = True
    keys: tuple[NDArray[np.int64], ...]
    weights: tuple[NDArray[np.float64], ...]
    targets: tuple[tuple[Rows, Rows], ...]
    name: str
    strength: float
    negatives: bool
    digest: str

    def __deepcopy__(self, _memo: Mapping[int, Any]) -> Distillation:
        return self  # nothing of it changes, and the targets may be gigabytes

    def __repr__(self) -> str:
        pairs = sum(map(len, self.keys))
        return f"Distillation({self.name}, {pairs} pairs in {len(self.keys)} scenes, {self.dim}-D, strength {self.strength:g})"

    @property
    def dim(self) -> int:
        """The teacher's dimensions."""
        return self.targets[0][0].dim

    def attach(self, model: PlaceModel) -> None:
        """Look whether the network that is about to learn can be drawn to these targets; it is not changed.

        Raises:
            InvalidInputError: its descriptors have other dimensions (features need the same), or are not L2-normalised.
        """
        if self.name == "feature":
            _check_dims(model.dim, self.dim)
        if not model.settings.normalize:
            raise InvalidInputError(
                "A student that is drawn to unit vectors must give unit vectors; its model has normalize = false. Set it to true."
            )

    def weight(self, pairs: Pairs) -> NDArray[np.float64]:
        """What each item is worth: the weight of (query, positive); 0 where the partition has no such pair.

        Args:
            pairs: P items; of a list the first column is the positive.

        Returns:
            (P,) float64, >= 0, before `strength`.

        Raises:
            InvalidInputError: the pairs are of other scenes.
        """
        positive = pairs.database if pairs.database.ndim == 1 else pairs.database[:, 0]
        found = np.zeros(len(pairs))
        for scene in np.unique(pairs.scene):
            if not 0 <= scene < len(self.keys):
                raise InvalidInputError(f"The pairs must be of the {len(self.keys)} scenes that are distilled; one is of scene {scene}.")
            here = np.flatnonzero(pairs.scene == scene)
            asked = pairs.query[here] * len(self.targets[scene][1]) + positive[here]
            at = np.searchsorted(self.keys[scene], asked)
            there = at < len(self.keys[scene])
            there[there] = self.keys[scene][at[there]] == asked[there]
            found[here[there]] = self.weights[scene][at[there]]
        return found

    def loss(self, pairs: Pairs, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """What is distilled of each item, times `strength` and its weight; an item of weight 0 has the value 0 and no gradient at all.

        Args:
            pairs: P items.
            a: (P, D) the student's descriptors of the queries.
            b: (P, D), or (P, 1 + N, D) of lists, of the database images.

        Returns:
            (P,) of the type and on the device of `a`.

        Raises:
            InvalidInputError: the shapes do not fit, or the pairs are of other scenes.
        """
        weight = self.strength * self.weight(pairs)
        rows, found = np.flatnonzero(weight), a.new_zeros(len(pairs))
        if not rows.size:
            return found
        database = pairs.database[rows]
        if database.ndim == 2 and not self.negatives:  # the teacher's descriptors of negatives are not even read
            database, b = database[:, :1], b[:, :1]
        kept = torch.from_numpy(rows).to(a.device)
        values = distilled(
            self.name,
            a[kept],
            b[kept],
            self._targets(0, pairs.scene[rows], pairs.query[rows]).to(a),
            self._targets(1, pairs.scene[rows], database).to(a),
            negatives=self.negatives,
        )
        return found.index_copy(0, kept, torch.from_numpy(weight[rows]).to(a) * values)

    def _targets(self, side: int, scene: NDArray[np.int64], rows: NDArray[np.int64]) -> torch.Tensor:
        """The teacher's descriptors of these rows, (*rows.shape, D) float32."""
        found = np.empty((*rows.shape, self.dim), dtype=np.float32)
        for one in np.unique(scene):
            here = scene == one
            found[here] = self.targets[one][side][rows[here]]
        return torch.from_numpy(found)


def distillation(
    partition: Partition,
    weights: Sequence[NDArray[np.float64]],
    targets: Targets,
    *,
    loss: str = "feature",
    strength: float = 1.0,
    negatives: bool = False,
) -> Distillation:
    """What draws a student to a teacher where that is worth it: the pairs of a partition, their weights, the teacher's descriptors.

    Weighted knowledge distillation of StructVPR, CVPR 2023 (stage II): the loss of training becomes L + strength * w * L_KD. Pairs
    that the partition has not (GCL's soft and zero pairs) are not distilled. A gradient never reaches the targets; they are read
    from their memory map row by row, and neither the teacher nor label maps are needed any more.

    Args:
        partition: the pairs.
        weights: of each scene, (n,) float64, >= 0, as `covis.structure.weights.weigh` gives them.
        targets: of each scene, (queries, database) of the teacher, rows of L2 norm 1 (to 1e-3).
        loss: what is distilled: "feature", "relational" or `module:function`.
        strength: lambda, in [0, 1e6].
        negatives: distil the negatives of lists too.

    Raises:
        UnknownNameError: there is no such distillation.
        InvalidInputError: the parts are of different scenes, a pair stands twice or is of no row of the targets, a weight is below
            0 or not finite, or a target is no unit vector.
    """
    _of_descriptors(loss)
    check_strength(strength)
    scenes = len(partition.scenes)
    if not scenes or len(weights) != scenes or len(targets) != scenes:
        raise InvalidInputError(
            "Distillation needs weights and targets of each scene of the partition, one scene or more; got "
            f"{scenes} scenes, {len(weights)} weights and {len(targets)} targets."
        )
    rows = tuple(_rows(one, str(scene)) for one, scene in zip(targets, partition.scenes, strict=True))
    dims = {side.dim for sides in rows for side in sides}
    if len(dims) > 1:
        raise InvalidInputError(f"The targets must be of one teacher, and of one dimension; got {sorted(dims)}.")
    worth = [_worth(partition, weights, rows, scene) for scene in range(scenes)]
    identity = {
        "pairs": [hashlib.sha256(keys.data).hexdigest() + hashlib.sha256(values.data).hexdigest() for keys, values in worth],
        "targets": [[side.digest for side in sides] for sides in rows],
        "scenes": list(partition.scenes),
        "settings": [loss, float(strength), bool(negatives)],
    }
    keys, values = tuple(one[0] for one in worth), tuple(one[1] for one in worth)
    return Distillation(keys, values, rows, loss, float(strength), bool(negatives), digest(identity))


def _rows(sides: tuple[Any, Any], scene: str) -> tuple[Rows, Rows]:
    queries, database = sides
    first = Rows(queries, where=f"the queries of scene {scene!r}")
    return first, first if database is queries else Rows(database, where=f"the database of scene {scene!r}")


def _worth(
    partition: Partition, weights: Sequence[NDArray[np.float64]], rows: Sequence[tuple[Rows, Rows]], scene: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The keys of a scene's pairs of a weight above 0, sorted, and their weights."""
    name, (queries, database) = partition.scenes[scene], rows[scene]
    query, other = (np.asarray(side[scene], dtype=np.int64) for side in (partition.query, partition.database))
    weight = np.asarray(weights[scene], dtype=np.float64)
    if weight.shape != query.shape:
        raise InvalidInputError(f"Every pair must have a weight; scene {name!r} has {len(query)} pairs and weights {weight.shape}.")
    if not ((weight >= 0) & (weight < math.inf)).all():
        first = int(np.flatnonzero(~((weight >= 0) & (weight < math.inf)))[0])
        raise InvalidInputError(f"A weight must be finite and >= 0; that of pair {first} of scene {name!r} is {weight[first]}.")
    for what, side, own in (("query", query, queries), ("database image", other, database)):
        if side.size and not 0 <= side.min() <= side.max() < len(own):
            raise InvalidInputError(
                f"Each {what} of a pair must have a target; scene {name!r} has pairs of rows {side.min()} to {side.max()} and {len(own)} "
                "targets. Take the teacher's descriptors of the images that were partitioned."
            )
    keys = query * len(database) + other
    order = np.argsort(keys, kind="stable")
    if (twice := np.flatnonzero(np.diff(keys[order]) == 0)).size:
        first = int(order[twice[0]])
        raise InvalidInputError(
            f"A pair must stand once in a partition; ({query[first]}, {other[first]}) of scene {name!r} stands twice or more."
        )
    order = order[weight[order] > 0]
    return keys[order], weight[order]


def _over_items(values: torch.Tensor, *, negatives: bool) -> torch.Tensor:
    """Of (P,) itself; of (P, 1 + N) the positive's, and with `negatives` the mean of the others added."""
    if values.ndim == 1:
        return values
    first = values[:, 0]
    return first + values[:, 1:].mean(dim=1) if negatives and values.shape[1] > 1 else first


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    query = a if b.ndim == 2 else a[:, None].expand_as(b)
    return F.pairwise_distance(query, b, p=2.0, eps=EPS)


def _check_dims(student: int, teacher: int) -> None:
    if student != teacher:
        raise InvalidInputError(
            f"To be drawn to a teacher's features a student must have its dimensions; the student has {student}, the teacher {teacher}. "
            "Give both the same aggregator and projection, or distil with relational, which compares distances."
        )


def _check_shapes(a: torch.Tensor, b: torch.Tensor, ta: torch.Tensor, tb: torch.Tensor) -> None:
    fits = a.ndim == ta.ndim == 2 and b.ndim in (2, 3) and b.shape[:-1] == tb.shape[:-1] and len(a) == len(b) == len(ta)
    if not fits or a.shape[1] != b.shape[-1] or ta.shape[1] != tb.shape[-1] or (b.ndim == 3 and not b.shape[1]):
        shapes = ", ".join(str(tuple(one.shape)) for one in (a, b, ta, tb))
        raise InvalidInputError(f"Distillation takes (P, D), (P, D) or (P, 1 + negatives, D), and the teacher's alike; got {shapes}.")
