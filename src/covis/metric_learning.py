"""The losses of pytorch-metric-learning, one value an item. The only file that imports it.

Musgrave, Belongie, Lim: "PyTorch Metric Learning", 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeAlias

import torch

from covis.errors import InvalidInputError, MissingExtraError, UnknownNameError
from covis.labels import TIE
from covis.lookup import suggest

OF_PAIRS = (
    "ContrastiveLoss",
    "GeneralizedLiftedStructureLoss",
    "IntraPairVarianceLoss",
    "MultiSimilarityLoss",
    "SignalToNoiseRatioContrastiveLoss",
)
"""Losses that a single pair has a value in; they take lists too."""

OF_LISTS = (
    "CircleLoss",
    "LiftedStructureLoss",
    "MarginLoss",
    "NTXentLoss",
    "SupConLoss",
    "TripletMarginLoss",
    "TupletMarginLoss",
)
"""Losses that compare a query's positives with its negatives: a pair alone has the value 0 in them."""

_REFUSED = {
    "has weights of its own, one set a class, that nothing here would train": (
        "ArcFaceLoss CosFaceLoss LargeMarginSoftmaxLoss ManifoldLoss NormalizedSoftmaxLoss P2SGradLoss ProxyAnchorLoss ProxyNCALoss "
        "SoftTripleLoss SphereFaceLoss SubCenterArcFaceLoss"
    ),
    "asks for the class of every image, and graded labels are of pairs": (
        "AngularLoss FastAPLoss InstanceLoss NCALoss NPairsLoss PNPLoss RankedListLoss SmoothAPLoss"
    ),
    "gives one value a batch, and here each query has its own": "DynamicSoftMarginLoss HistogramLoss ThresholdConsistentMarginLoss",
    "learns without labels": "VICRegLoss",
    "wraps another loss": "BaseLossWrapper CrossBatchMemory MultipleLosses SelfSupervisedLoss",
    "is a part that losses are made of": "BaseMetricLossFunction EmbeddingRegularizerMixin GenericPairLoss WeightRegularizerMixin",
}
"""Why the library's other classes are refused."""

_Indices: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def metric_learning(
    a: torch.Tensor,
    b: torch.Tensor,
    similarity: torch.Tensor,
    *,
    name: str = "MultiSimilarityLoss",
    threshold: float = 0.5,
    options: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """A loss of pytorch-metric-learning by its class name, one value an item.

    Each query is an anchor of its own; its images of similarity >= `threshold` are its positives, its others its
    negatives. Images of other queries of the batch are neither, since nothing is known of them. The loss is computed
    without its reducer, and what it gives (a value for each anchor, pair or triplet) is summed onto the anchor. So
    the sum over the items is the loss under the library's `SumReducer`; its usual reducers average over pairs,
    triplets, or the values above 0 instead, which differs by a factor from batch to batch. One exception: of a batch
    with at most one positive and one negative pair in all the library makes 0; here its value is that in a larger batch.

    Of the losses in `OF_PAIRS` pairs and lists have a value, of those in `OF_LISTS` lists alone. The value of an item
    does not depend on the others in the batch, except in `IntraPairVarianceLoss`, which is about their mean.

    Args:
        a: (P, D) descriptors of the queries.
        b: (P, D) or (P, M, D) of their images.
        similarity: (P,) or (P, M) in [0, 1].
        name: the class.
        threshold: in (0, 1]; similarities within 1e-9 of it count as equal to it.
        options: the class's keyword arguments; a `distance` may be the name of a class of the library.

    Returns:
        (P,) one loss a query; 0 where a query lacks what the loss compares.

    Raises:
        InvalidInputError: the shapes do not fit, a parameter is out of its range, the loss needs what pairs do not have
            (classes, weights of its own), or does not take the options.
        UnknownNameError: there is no such loss; the message suggests the nearest.
        MissingExtraError: the library is not installed (extra `metric`).

    >>> a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.8, 0.6], [0.6, 0.8]]])
    >>> [round(float(value), 4) for value in metric_learning(a, b, torch.tensor([[1.0, 0.0]]), name="TripletMarginLoss")]
    [0.0]
    >>> [round(float(value), 4) for value in metric_learning(a, b, torch.tensor([[0.0, 1.0]]), name="TripletMarginLoss")]
    [0.312]
    """
    _check(a, b, similarity, name=name, threshold=threshold)
    options = dict(options or {})
    loss = _made(name, options)
    positive = (similarity >= threshold - TIE).reshape(len(a), -1)
    # Of at most one positive and one negative pair in all the library makes 0: so small a batch is given to it twice.
    times = 2 if max(int(positive.sum()), int((~positive).sum())) <= 1 else 1
    embeddings = torch.cat([a] * times + [b.reshape(-1, b.shape[-1])] * times)
    try:
        raw = loss(embeddings, None, _indices(positive.repeat(times, 1)))
    except (AssertionError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} with the options {options} has no value for pairs; {_said(error)}.") from error
    return _on_anchors(raw, embeddings, name=name)[: len(a)]


def _check(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor, *, name: str, threshold: float) -> None:
    if a.ndim != 2 or b.ndim not in (2, 3) or len(a) != len(b) or a.shape[1] != b.shape[-1] or similarity.shape != b.shape[:-1]:
        raise InvalidInputError(
            "The loss metric-learning takes (P, D) with (P, D) and (P,), or with (P, M, D) and (P, M); "
            f"got {tuple(a.shape)}, {tuple(b.shape)} and {tuple(similarity.shape)}."
        )
    if not 0 < threshold <= 1:
        raise InvalidInputError(f"The threshold must be a similarity in (0, 1]; got {threshold}.")
    if name in OF_LISTS and (b.ndim == 2 or b.shape[1] == 1):
        raise InvalidInputError(
            f"{name} compares a query's positives with its negatives, so of pairs every value is 0. Give it lists (the sampler triplets), "
            f"or take one of {', '.join(OF_PAIRS)}."
        )


def _made(name: str, options: Mapping[str, Any]) -> torch.nn.Module:
    """The loss object; making one takes 0.3 ms, and those that are let through have no state."""
    losses, distances, nothing = _library()
    if name not in OF_PAIRS + OF_LISTS:
        raise _refusal(name, losses)
    given = dict(options)
    if "reducer" in given:
        raise InvalidInputError(
            "The option reducer of a metric-learning loss has no use: each item keeps its value, and training averages."
        )
    if isinstance(distance := given.get("distance"), str):
        known = [one for one in dir(distances) if one.endswith(("Distance", "Similarity")) and not one.startswith("B")]
        if distance not in known:
            raise UnknownNameError(f"pytorch-metric-learning has no distance called {distance!r}. {suggest(distance, known)}")
        given["distance"] = getattr(distances, distance)()
    try:
        loss: torch.nn.Module = getattr(losses, name)(reducer=nothing, **given)
    except (AssertionError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} does not take the options {dict(options)}; {_said(error)}.") from error
    if any(True for _ in loss.parameters()):
        raise InvalidInputError(f"{name} with the options {dict(options)} has weights of its own, and nothing here would train them.")
    return loss


def _library() -> tuple[ModuleType, ModuleType, torch.nn.Module]:
    try:
        from pytorch_metric_learning import distances, losses  # an extra: imported only where it is asked for
        from pytorch_metric_learning.reducers import DoNothingReducer
    except ImportError as error:
        raise MissingExtraError(
            f"The loss metric-learning needs the extra `metric`: pip install 'covis[metric]' ({error}). Or choose another loss."
        ) from error
    return losses, distances, DoNothingReducer()


def _refusal(name: str, losses: ModuleType) -> Exception:
    works = ", ".join(sorted(OF_PAIRS + OF_LISTS))
    if not isinstance(getattr(losses, name, None), type):
        return UnknownNameError(f"pytorch-metric-learning has no loss called {name!r}. {suggest(name, OF_PAIRS + OF_LISTS)}")
    reasons = [reason for reason, names in _REFUSED.items() if name in names.split()]
    return InvalidInputError(f"{name} {reasons[0] if reasons else 'is not known to work with pairs'}. Those that work: {works}.")


def _indices(positive: torch.Tensor) -> _Indices:
    """The library's pairs (anchor, positive, anchor, negative): queries first, then their images, list after list."""
    queries, width = positive.shape

    def pairs(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        query, column = torch.nonzero(chosen, as_tuple=True)
        return query, queries + query * width + column

    return *pairs(positive), *pairs(~positive)


def _on_anchors(raw: Mapping[str, Mapping[str, Any]], embeddings: torch.Tensor, *, name: str) -> torch.Tensor:
    """Sum what the loss gave (for each element, pair or triplet) onto its first index, the anchor."""
    total = (embeddings * 0).sum(dim=1)  # 0, with a gradient; not finite where a descriptor is not
    for part in raw.values():
        values, indices = part["losses"], part["indices"]
        if not torch.is_tensor(values) and values == 0:
            continue
        if part["reduction_type"] == "already_reduced":
            raise InvalidInputError(f"{name} with these options gives one value a batch, and here each query has its own.")
        anchor = indices if torch.is_tensor(indices) else indices[0]
        total = total.index_add(0, anchor, values.reshape(-1).to(total))
    return total


def _said(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__
