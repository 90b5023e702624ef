"""Verification: a recipe held against the code, before an hour of labelling or training shows that it cannot be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scipy import sparse

from covis.datasets import READERS
from covis.errors import InvalidInputError
from covis.labelling import LABEL_RULES
from covis.labels import Labels
from covis.lookup import resolve, with_options
from covis.models.aggregators import AGGREGATORS
from covis.models.place import PlaceModel
from covis.placebos import PLACEBOS, averaged_in_class, check_changes, check_rule, shuffled_in_class
from covis.protocols import protocol
from covis.semantics.encodings import encoding
from covis.settings import LabelSettings, Recipe, TrainSettings
from covis.structure.stages import check_dims, check_structure, student_training, teacher_model, teacher_training
from covis.training import preflight
from covis.training.preflight import check_device, check_settings, make_loss, make_sampler
from covis.training.validation import check_judging


def check_learning(recipe: Recipe, *, weights: str | Path | None = None) -> None:
    """Look at all of a recipe up to the trained network that can be judged without the data.

    Args:
        recipe: what is to be run.
        weights: a local file with the backbone's weights, which must be there.

    Raises:
        UnknownNameError: a layout, label rule, placebo, loss, sampler, aggregator, protocol or metric has no such name.
        InvalidInputError: options that it does not take, a setting out of its range, or two that do not go together.
        MissingFileError: the weights are not there.
    """
    if recipe.data.layout != "auto":
        reader = resolve(recipe.data.layout, READERS, what="layout")
        with_options(reader, recipe.data.options, what="layout", given=("root", "split"))
    _check_labels(recipe)
    aggregator = resolve(recipe.model.aggregator, AGGREGATORS, what="aggregator")
    with_options(aggregator, recipe.model.aggregator_options, what="aggregator", given=("channels",))
    check_structure(recipe)
    if recipe.structure.classes:
        encoding(recipe.structure.encoding())
    for training in trainings(recipe):
        make_loss(training)
        make_sampler([], training)
        check_settings(training)
        check_device(training)
    for training in trainings(recipe)[1:]:  # what would show only after stage I
        check_loss_and_sampler(training)
    check_judging(recipe.train.validate)
    if weights is not None:
        check_network(recipe, weights=weights)


def trainings(recipe: Recipe) -> list[TrainSettings]:
    """Each training that a recipe asks for: its own, and where it has a structure the teacher's and that of stage II."""
    return [recipe.train, *([teacher_training(recipe), student_training(recipe)] if recipe.structure.classes else [])]


def training_label(recipe: Recipe) -> LabelSettings:
    """What similarity is in training: `[train_label]`; without a rule the rule of `[label]`, with the noise and placebo of `[train_label]`.

    >>> training_label(Recipe("r", label=LabelSettings("view"), train_label=LabelSettings("", placebo="rounded"))).rule
    'view'
    """
    own = recipe.train_label
    return own if own.rule else replace(own, rule=recipe.label.rule, options=recipe.label.options)


def label_changes(settings: LabelSettings) -> dict[str, Any]:
    """What is done to a rule's labels, noise and placebo, where it is not at its default.

    >>> label_changes(LabelSettings("view", {"fov": 60}, heading_noise=10.0))
    {'heading_noise': 10.0}
    """
    plain = LabelSettings()
    values = {name: value for name, value in vars(settings).items() if name not in ("rule", "options")}
    return {name: value for name, value in values.items() if value != getattr(plain, name)}


def check_loss_and_sampler(settings: TrainSettings) -> None:
    """Hold that the loss takes what the sampler draws, without data: one batch of labels made by hand.

    Raises:
        InvalidInputError: they do not go together, or an option is wrong.

    >>> check_loss_and_sampler(TrainSettings(loss="gcl", sampler="graded"))
    >>> check_loss_and_sampler(TrainSettings(loss="gcl", sampler="triplets"))
    Traceback (most recent call last):
    ...
    covis.errors.InvalidInputError: The loss 'gcl' and the sampler 'triplets' do not go together, ...
    """
    negatives = settings.sampler_options.get("negatives", 0)
    preflight.check_loss_and_sampler(8, [_made_by_hand(more=negatives if isinstance(negatives, int) else 0)], settings)


def check_network(recipe: Recipe, *, weights: str | Path | None = None) -> None:
    """Build the network once: its name, its options, its size, and that the weights fit.

    Raises:
        CovisError: as of `PlaceModel`.
    """
    rgb = PlaceModel(replace(recipe.model, pretrained=False), seed=0, weights=weights)
    if recipe.structure.classes:
        settings = replace(teacher_model(recipe), pretrained=False)
        same = settings.backbone == recipe.model.backbone  # a file of weights is of one backbone
        teacher = PlaceModel(settings, seed=0, weights=weights if same else None)
        check_dims(teacher, rgb, loss=recipe.structure.loss)


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


def _check_labels(recipe: Recipe) -> None:
    """Look at both label rules, and that only what teaches is made worse."""
    for label in (recipe.label, recipe.train_label):
        if label.rule:
            rule = resolve(label.rule, LABEL_RULES, what="label rule")
            with_options(rule, label.options, what="label rule", given=("queries", "database"))
    if changes := label_changes(recipe.label):
        raise InvalidInputError(
            f"[label] judges, so it must have no {', '.join(changes)}; the recipe {recipe.name!r} has {_said(changes)}. "
            "Put it into [train_label], which teaches."
        )
    own = recipe.train_label
    if own.options and not own.rule:
        raise InvalidInputError(
            f"[train_label] must name the rule that its options are of; the recipe {recipe.name!r} has {_said(own.options)} and "
            "no rule there."
        )
    check_changes(**label_changes(own))
    teaching = training_label(recipe)
    check_rule(resolve(teaching.rule, LABEL_RULES, what="label rule"), teaching.options, heading_noise=teaching.heading_noise)
    if own.placebo and resolve(own.placebo, PLACEBOS, what="placebo") in (averaged_in_class, shuffled_in_class):
        _check_classes(recipe)


def _check_classes(recipe: Recipe) -> None:
    """Hold that each sampler, which all draw from the same labels, has the classes that placebos "in class" keep."""
    tables = ("train", "structure.teacher.train", "structure.student.train")
    for table, training in zip(tables, trainings(recipe), strict=False):
        for option, kept in _CLASSES.items():
            cut = training.sampler_options.get(option, kept)
            if cut != kept:
                raise InvalidInputError(
                    f"The placebo {recipe.train_label.placebo!r} must have the classes of every sampler: it cuts at 0.5, and zero pairs "
                    f"are a class of their own; the recipe {recipe.name!r} has the {option} {cut!r} in [{table}.sampler_options]. "
                    "Leave that out, or take the placebo 'shuffled'."
                )


_CLASSES = {"threshold": 0.5, "positive_threshold": 0.5, "negative_threshold": 0.0}
"""A sampler's option -> with which value its classes are those that placebos "in class" keep."""


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())


def _made_by_hand(*, more: int) -> Labels:
    """Two dozen queries with positive, soft and zero pairs, whatever the threshold; enough images for any list of negatives."""
    images, kinds = 1024 + more, (1.0, 0.6, 0.3, 0.01)
    rows = [row for row in range(24) for _ in kinds]
    columns = [len(kinds) * row + place for row in range(24) for place in range(len(kinds))]
    matrix = sparse.csr_array((kinds * 24, (rows, columns)), shape=(24, images))
    return Labels(matrix, tuple(f"q{row}" for row in range(24)), tuple(f"d{row}" for row in range(images)), rule="by hand")
