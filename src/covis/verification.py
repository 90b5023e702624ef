"""Verification: a recipe held against the code, before an hour of labelling or training shows that it cannot be done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from covis.datasets import READERS
from covis.errors import InvalidInputError
from covis.labelling import LABEL_RULES
from covis.lookup import resolve, with_options
from covis.models.aggregators import AGGREGATORS
from covis.models.place import PlaceModel
from covis.protocols import protocol
from covis.settings import Recipe
from covis.training.preflight import check_device, check_settings, make_loss, make_sampler
from covis.training.validation import check_judging


def check_learning(recipe: Recipe, *, weights: str | Path | None = None) -> None:
    """Look at all of a recipe up to the trained network that can be judged without the data.

    Args:
        recipe: what is to be run.
        weights: a local file with the backbone's weights, which must be there.

    Raises:
        UnknownNameError: a layout, label rule, loss, sampler, aggregator, protocol or metric has no such name.
        InvalidInputError: options that it does not take, a setting out of its range, or two that do not go together.
        MissingFileError: the weights are not there.
    """
    if recipe.data.layout != "auto":
        reader = resolve(recipe.data.layout, READERS, what="layout")
        with_options(reader, recipe.data.options, what="layout", given=("root", "split"))
    for label in (recipe.label, recipe.train_label):
        if label.rule:
            rule = resolve(label.rule, LABEL_RULES, what="label rule")
            with_options(rule, label.options, what="label rule", given=("queries", "database"))
    aggregator = resolve(recipe.model.aggregator, AGGREGATORS, what="aggregator")
    with_options(aggregator, recipe.model.aggregator_options, what="aggregator", given=("channels",))
    make_loss(recipe.train)
    make_sampler([], recipe.train)
    check_settings(recipe.train)
    check_device(recipe.train)
    check_judging(recipe.train.validate)
    if weights is not None:
        check_network(recipe, weights=weights)


def check_network(recipe: Recipe, *, weights: str | Path | None = None) -> None:
    """Build the network once: its name, its options, its size, and that the weights fit.

    Raises:
        CovisError: as of `PlaceModel`.
    """
    PlaceModel(replace(recipe.model, pretrained=False), seed=0, weights=weights)


def check_evaluation(recipe: Recipe) -> None:
    """Look at what a recipe says of whitening and evaluation, before an hour of training shows that it cannot be done.

    Raises:
        UnknownNameError: a protocol has no such name.
        InvalidInputError: a value is out of its range, or nothing is asked.
    """
    settings, whiten = recipe.evaluate, recipe.whiten
    rules = [protocol(name) for name in settings.protocols]
    if not rules or not recipe.data.test:
        raise InvalidInputError(
            f"The recipe {recipe.name!r} must name a protocol in [evaluate] and the scenes that are asked in [data] test."
        )
    for rule in rules:
        if rule.windows != (1, 1):
            raise InvalidInputError(
                f"A recipe's protocols must compare image to image; {rule.name} compares windows of frames. Score a prediction file of "
                "windows under it (covis evaluate --predictions)."
            )
    if whiten.dim < 0 or not 0 <= whiten.power <= 1:
        raise InvalidInputError(f"[whiten] dim must be >= 0 (0: all) and power in [0, 1]; got {whiten.dim} and {whiten.power}.")
    if (whiten.kind == "zca" and whiten.dim) or not (0 <= whiten.shrinkage <= 1 or whiten.shrinkage == -1):
        raise InvalidInputError(
            '[whiten] kind = "zca" keeps all dimensions (dim = 0), and shrinkage must be in [0, 1], or -1 (Ledoit and Wolf\'s); '
            f"got {whiten.kind!r} with dim {whiten.dim}, and {whiten.shrinkage}."
        )
    if settings.samples < 1 or settings.seed < 0 or settings.k < max(k for rule in rules for k in rule.ks):
        needed = max(k for rule in rules for k in rule.ks)
        raise InvalidInputError(
            f"[evaluate] samples must be >= 1, the seed >= 0 and k >= {needed}, the protocols' largest; "
            f"got {settings.samples}, {settings.seed} and {settings.k}."
        )
