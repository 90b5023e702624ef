"""Stages: which network and which training each branch and each stage of a recipe with `[structure]` has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from covis.config import from_table, overlaid, to_table
from covis.errors import InvalidInputError, UnknownNameError
from covis.lookup import suggest
from covis.pairs import SAMPLERS
from covis.settings import AugmentSettings, ModelSettings, Recipe, TrainSettings
from covis.structure.named import check_options

S = TypeVar("S")

LABEL_FEATURES = "label-features"
"""The aggregator that also says which label is where, and the loss of stage II that teaches it."""

_OWN = {
    "encoding": "how label maps are read is said in [structure] itself (classes, clusters, weighted, weights)",
    "mean": "class channels have no pixel statistics",
    "std": "class channels have no pixel statistics",
}


class HasDim(Protocol):
    """A network, as far as it is looked at here."""

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""


def teacher_model(recipe: Recipe) -> ModelSettings:
    """The teacher's network: `[model]`, reading label maps, with what `[structure.teacher.model]` says laid over it.

    Nothing else differs, so that teacher and student end in one dimension. The mean is 0 and the std 1: no pixel is normalised.

    Raises:
        InvalidInputError: the recipe names no `classes`; a key is unknown or a value has the wrong type; or the table says how label
            maps are read, or the statistics of pixels.

    >>> from covis.settings import StructureSettings
    >>> recipe = Recipe("mine", structure=StructureSettings(classes="cityscapes-train", teacher={"model": {"height": 120}}))
    >>> found = teacher_model(recipe)
    >>> found.encoding.classes, found.height, found.width, found.mean
    ('cityscapes-train', 120, 640, (0.0, 0.0, 0.0))
    """
    if not recipe.structure.classes:
        raise InvalidInputError(
            f"The recipe {recipe.name!r} must say how label maps number their classes to have a teacher: [structure] classes is empty."
        )
    above = _tables(recipe, "teacher").get("model", {})
    for key, reason in _OWN.items():
        if key in above:
            raise InvalidInputError(f"{_where(recipe, 'teacher', 'model')} must not set {key}: {reason}. Take it out.")
    own = {"encoding": asdict(recipe.structure.encoding()), "mean": [0.0] * 3, "std": [1.0] * 3}
    return _laid({**to_table(recipe.model), **own}, above, ModelSettings, _where(recipe, "teacher", "model"))


def teacher_training(recipe: Recipe) -> TrainSettings:
    """How the teacher learns: as `[train]` says, less what label maps do not allow, with `[structure.teacher.train]` laid over it.

    Of the augmentation mirroring stays: a label map is no photograph, and darker it would be of other classes. No stage is frozen,
    for the first layer of a network with other channels begins anew. Nothing is validated, for scenes that decide need not have label
    maps: what is kept is the last state (`check_structure` refuses a table `validate` that names a protocol).

    Raises:
        InvalidInputError: a key is unknown or a value has the wrong type, or the table sets the seed or augments label maps.

    >>> from covis.settings import StructureSettings, TrainSettings
    >>> train = TrainSettings(steps=300, freeze="layer2", augment=AugmentSettings(mirror=True, noise=0.1))
    >>> found = teacher_training(Recipe("mine", train=train, structure=StructureSettings(teacher={"train": {"steps": 500}})))
    >>> found.steps, found.freeze, found.augment.mirror, found.augment.noise
    (500, '', True, 0.0)
    """
    base = to_table(recipe.train)
    base["freeze"] = ""
    base["augment"] = to_table(AugmentSettings(mirror=recipe.train.augment.mirror))
    base["validate"] = {**base["validate"], "protocol": ""}
    found = _trained(recipe, "teacher", base)
    if found.augment != AugmentSettings(mirror=found.augment.mirror):
        raise InvalidInputError(
            f"{_where(recipe, 'teacher', 'train')} may only mirror: label maps hold class numbers and no colours; got {found.augment}."
        )
    return found


def student_training(recipe: Recipe) -> TrainSettings:
    """How the student learns in stage II: as `[train]` says, with `[structure.student.train]` laid over it; nothing is mirrored.

    The teacher's descriptors are of images as they are. A mirrored photograph shows another place, for which there is no target.
    What changes light and colours stays: the target is that of the undisturbed label map.

    Raises:
        InvalidInputError: a key is unknown or a value has the wrong type, or the table sets the seed or mirrors.

    >>> from covis.settings import StructureSettings, TrainSettings
    >>> train = TrainSettings(learning_rate=1e-3, augment=AugmentSettings(mirror=True, noise=0.1))
    >>> recipe = Recipe("mine", train=train, structure=StructureSettings(student={"train": {"learning_rate": 1e-4}}))
    >>> found = student_training(recipe)
    >>> found.learning_rate, found.augment.mirror, found.augment.noise
    (0.0001, False, 0.1)
    """
    base = to_table(recipe.train)
    base["augment"] = {**base["augment"], "mirror": False}
    found = _trained(recipe, "student", base)
    if found.augment.mirror:
        raise InvalidInputError(
            f"{_where(recipe, 'student', 'train')} must not mirror: the teacher's descriptors are of images as they are. Take it out."
        )
    return found


def check_structure(recipe: Recipe) -> None:
    """Look at all that `[structure]` says which can be judged without the data; without `classes` nothing is looked at.

    The weighting and the distillation are called once on made-up values (`covis.structure.trials`), so that a wrong one does not show
    after hours of training only. The values of the trainings are the trainings' own matter (`covis.training.preflight`), the dimensions
    `check_dims`'s. Controls may be combined: with `corrupt`, maps of other places are what the teacher learns from and describes, whether
    its descriptors are then the targets, are shuffled, or are those of a teacher that learnt nothing.

    Raises:
        UnknownNameError: the rank, the weighting or the distillation is in no table.
        InvalidInputError: options or values that a weighting or a distillation does not take, a setting out of its range, or two that
            do not go together.
    """
    settings = recipe.structure
    if not settings.classes:
        return
    if recipe.model.encoding.classes:
        raise InvalidInputError(
            f"The student reads photographs, and [model.encoding] classes = {recipe.model.encoding.classes!r} makes it read label maps. "
            "Take it out: how the teacher reads label maps is said in [structure]."
        )
    _check_numbers(recipe)
    _check_trainings(recipe)
    _check_functions(recipe)


def _check_numbers(recipe: Recipe) -> None:
    """Hold the ranks and the numbers in their ranges."""
    from covis.structure.distillation import check_strength
    from covis.structure.partition import check_threshold
    from covis.structure.ranks import RANKS

    settings = recipe.structure
    if settings.rank not in RANKS:
        raise UnknownNameError(f"There is no rank called {settings.rank!r}. {suggest(settings.rank, RANKS)}")
    _said("threshold", lambda: check_threshold(settings.threshold))
    _said("strength", lambda: check_strength(settings.strength))
    if not 0 <= settings.corrupt <= 1:
        raise InvalidInputError(f"[structure] corrupt must be a share of the places, in [0, 1]; got {settings.corrupt}.")


def _check_trainings(recipe: Recipe) -> None:
    """Hold the stages against each other."""
    models, training = {"student": recipe.model, "teacher": teacher_model(recipe)}, student_training(recipe)
    if teacher_training(recipe).validate.protocol:
        raise InvalidInputError(
            "The teacher is not validated: what is kept is its last state. Take validate out of [structure.teacher.train]."
        )
    if positive_threshold(training) < positive_threshold(recipe.train):
        raise InvalidInputError(
            "Stage II must not take pairs as positive that were not ranked: its sampler takes similarities from "
            f"{positive_threshold(training)} on, and that of [train], by which pairs are ranked, from "
            f"{positive_threshold(recipe.train)} on. Set both alike."
        )
    for who, model in models.items():
        if not model.normalize:
            raise InvalidInputError(f"The {who}'s descriptors must be unit vectors to be distilled; its model has normalize = false.")
    if recipe.structure.negatives and _gives_pairs(training.sampler):
        raise InvalidInputError(
            f"[structure] negatives = true distils the negatives of lists; the sampler {training.sampler!r} gives pairs. Take triplets, "
            "or leave it out."
        )


def _check_functions(recipe: Recipe) -> None:
    """Try the weighting and the distillation."""
    from covis.structure.trials import try_distillation, try_weighting

    settings, training = recipe.structure, student_training(recipe)
    if settings.loss == LABEL_FEATURES:
        _check_label_features(recipe)
    elif settings.loss_options:
        raise InvalidInputError(f"[structure] loss_options are of {LABEL_FEATURES!r}; got {settings.loss_options} with {settings.loss!r}.")
    else:
        lists = training.sampler == "triplets" if training.sampler in SAMPLERS else None
        _said("loss", lambda: try_distillation(settings.loss, negatives=settings.negatives, lists=lists))
    least = positive_threshold(recipe.train)
    _said(
        f"weighting_options of {settings.weighting!r}, tried on made-up ranks",
        lambda: try_weighting(settings.weighting, settings.weighting_options, threshold=settings.threshold, positive_threshold=least),
    )


def _said(setting: str, check: Callable[[], object]) -> None:
    """Check, and say in the message which setting is wrong; a name that is unknown says that itself."""
    try:
        check()
    except InvalidInputError as error:
        raise InvalidInputError(f"[structure] {setting}: {error}") from error


def positive_threshold(training: TrainSettings) -> float:
    """From which similarity on a training takes a pair as positive: its sampler's option, 0.5 where it says none.

    Raises:
        InvalidInputError: it is no similarity.

    >>> positive_threshold(TrainSettings()), positive_threshold(TrainSettings(sampler_options={"positive_threshold": 0.6}))
    (0.5, 0.6)
    """
    options = training.sampler_options
    found = options.get("positive_threshold", options.get("threshold", 0.5))
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
        raise InvalidInputError(f"A positive's similarity threshold must be in (0, 1]; sampler_options say {found!r}.")
    return float(found)


def check_dims(teacher: HasDim, student: HasDim, *, loss: str) -> None:
    """Hold that a student can be drawn to what the teacher describes: by their features only in one dimension.

    Raises:
        InvalidInputError: the dimensions differ.
    """
    if loss != "relational" and teacher.dim != student.dim:
        raise InvalidInputError(
            f"Teacher and student must end in one dimension for [structure] loss = {loss!r}; the teacher has {teacher.dim}, the student "
            f"{student.dim}. Give both the same aggregator, levels and projection, or set loss = 'relational', which compares distances."
        )


def _check_label_features(recipe: Recipe) -> None:
    """Hold that the network has label features, and that the loss takes its options."""
    from covis.structure.label_guides import label_strengths

    if recipe.model.aggregator != LABEL_FEATURES:
        raise InvalidInputError(
            f"[structure] loss = {LABEL_FEATURES!r} is for networks with the aggregator of that name; [model] has "
            f"{recipe.model.aggregator!r}."
        )
    options = recipe.structure.loss_options
    check_options(LABEL_FEATURES, label_strengths, options, what="distillation", given=())
    _said("loss_options", lambda: label_strengths(**options))


def _gives_pairs(sampler: str) -> bool:
    return sampler in SAMPLERS and sampler != "triplets"  # what a user's own gives is not known


def _trained(recipe: Recipe, who: str, base: Mapping[str, Any]) -> TrainSettings:
    above = _tables(recipe, who).get("train", {})
    if "seed" in above:
        raise InvalidInputError(f"{_where(recipe, who, 'train')} must not set the seed: all stages have that of [train]. Take it out.")
    return _laid(base, above, TrainSettings, _where(recipe, who, "train"))


def _tables(recipe: Recipe, who: str) -> Mapping[str, Any]:
    """What `[structure.teacher]` or `[structure.student]` lays over the recipe, by table."""
    tables: Mapping[str, Any] = getattr(recipe.structure, who)
    allowed = ("model", "train") if who == "teacher" else ("train",)
    for name, table in tables.items():
        if name not in allowed:
            reason = " The student's network is that of [model]." if name == "model" else ""
            raise InvalidInputError(f"[structure.{who}] of {recipe.name!r} may hold {' and '.join(allowed)} alone; got {name!r}.{reason}")
        if not isinstance(table, Mapping):
            raise InvalidInputError(f"{_where(recipe, who, name)} must be a table; got {table!r}.")
    return tables


def _laid(base: Mapping[str, Any], above: Mapping[str, Any], kind: type[S], where: str) -> S:
    return from_table(kind, overlaid(base, above), where=where)


def _where(recipe: Recipe, who: str, table: str) -> str:
    return f"[structure.{who}.{table}] of {recipe.name!r}"
