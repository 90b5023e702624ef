"""What is wrong with a recipe's `[structure]` is said before anything learns, in the recipe's words."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from covis.cli import app
from covis.config import load_recipe
from covis.errors import InvalidInputError, UnknownNameError
from covis.settings import EncodingSettings, Recipe, StructureSettings, TrainSettings
from covis.structure.distillation import DISTILLATIONS, distillation, relational
from covis.structure.label_guides import LabelGuide
from covis.structure.partition import Partition
from covis.structure.stages import check_structure
from covis.structure.trials import try_distillation, try_weighting
from covis.structure.weights import WEIGHTINGS, weigh_function
from covis.studies import load_study

pytestmark = pytest.mark.usefixtures("one_thread")

TRIPLETS = TrainSettings(loss="triplet", loss_options={"margin": 0.1}, sampler="triplets")


def _check(*, aggregator="gem", train=TRIPLETS, **structure) -> None:
    recipe = Recipe("mine", train=train, structure=StructureSettings(**{"classes": "cityscapes-train", **structure}))
    check_structure(replace(recipe, model=replace(recipe.model, aggregator=aggregator)))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("function", {"a": "x"}, r"a must be a finite number, at least 0; got 'x'"),
        ("function", {"a": -1}, r"a must be a finite number"),
        ("function", {"gamma": -1}, r"gamma must be a finite number"),
        ("function", {"b": float("inf")}, r"b must be a finite number"),
        ("function", {"b": 1e4}, r"weights have the mean inf"),
        ("function", {"b": 1e4, "normalise": False}, r"Weights must be finite"),
        ("function", {"normalise": "yes"}, r"normalise must be true or false; got 'yes'"),
        ("group", {"D1": -1}, r"D1 must be a finite number"),
        ("group", {"D1": "a"}, r"D1 must be a finite number"),
        ("group", {"D1": True}, r"D1 must be a finite number"),
        ("group", {"D1": 0, "D2": 0, "D3": 0, "D4": 0}, r"At least one pair must have a weight above 0; 'group' gives 0 to all"),
        ("select", {"by": "techer"}, r"by must be 'teacher' or 'student'; got 'techer'"),
        ("select", {"seed": "x"}, r"seed must be a whole number"),
        ("select", {"by": "student", "matched": "yes"}, r"matched must be true or false"),
        ("select", {"matched": True}, r"set by = 'student' too"),
        ("select", {"wrong": 1}, r"wrong must be true or false"),
        ("none", {"a": 1}, r"The weighting 'none' does not take the options {'a': 1}; a is none of gamma"),
    ],
)
def test_wrong_values_of_a_weighting_are_refused_before_anything_learns(name, options, said) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidInputError, match=rf"\[structure\] weighting_options of '{name}', .*{said}"):
            _check(weighting=name, weighting_options=options)


@pytest.mark.parametrize("threshold", [1, 2, 10, 500, 10**9])
@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_the_made_up_ranks_have_every_group_whatever_the_threshold(name: str, threshold: int) -> None:
    try_weighting(name, {"gamma": 1.0}, threshold=threshold)
    for group in ("D1", "D2", "D3", "D4"):
        if (group, threshold) != ("D3", 1):  # a student cannot be better than first
            try_weighting("group", {"D1": 0, "D2": 0, "D3": 0, "D4": 0} | {group: 1.0}, threshold=threshold)


def test_what_a_study_shipped_asks_for_passes() -> None:
    for name in ("structvpr-town", "structvpr-campus", "structvpr-msls"):
        check_structure(load_recipe(name))
    for recipe in load_study("structure").recipes().values():
        check_structure(recipe)


def own_fails(teacher, student, similarity, *, threshold):
    raise KeyError("rank")


def own_positional(teacher, student):
    return np.ones(len(teacher))


def own_short(teacher, student, similarity, *, threshold):
    return np.ones(1)


def own_weighting(teacher, student, similarity, threshold, power=1.0):
    return similarity**power


def test_a_weighting_of_ones_own_is_tried() -> None:
    _check(weighting=f"{__name__}:own_weighting", weighting_options={"power": 2.0})
    for name, said in (
        ("os:getcwd", r"must be a function of \(teacher, student, similarity, \*, threshold\)"),
        ("time:time", r"says which arguments it takes"),
        ("math:pi", r"says which arguments it takes"),
        (f"{__name__}:own_positional", r"must be a function of"),
        (f"{__name__}:own_fails", r"it fails with KeyError: 'rank'"),
        (f"{__name__}:own_short", r"must give a number a pair"),
    ):
        with pytest.raises(InvalidInputError, match=said) as caught:
            _check(weighting=name)
        assert name in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"does not take the options"):
        _check(weighting=f"{__name__}:own_weighting", weighting_options={"p": 1})


def test_weighting_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = weigh_function(np.array([1, 11]), np.array([30, 30]), np.ones(2), threshold=10, b=1e6, normalise=False)
        with pytest.raises(InvalidInputError, match=r"finite and|not finite"):
            try_weighting("group", {"D1": 1e308, "D2": 1e308, "gamma": 3.0}, threshold=10)
    assert found.tolist() == [np.inf, 0]


# distillations of one's own


def own_distillation(a, b, ta, tb, *, negatives):
    return relational(a, b, ta, tb, negatives=negatives)


def own_of_pairs(a, b, ta, tb, *, negatives):
    return (a * b).sum(dim=1) - (ta * tb).sum(dim=1)


def own_mean(a, b, ta, tb, *, negatives):
    return (a - ta).square().mean()


def own_numpy(a, b, ta, tb, *, negatives):
    return a.detach().numpy()[:, 0]


def own_without_gradient(a, b, ta, tb, *, negatives):
    return (a.detach() - ta).square().sum(dim=1)


def own_nan(a, b, ta, tb, *, negatives):
    return (a - ta).sum(dim=1) * float("nan")


def own_infinite_gradient(a, b, ta, tb, *, negatives):
    return (a - a.detach()).square().sum(dim=1).sqrt()


def own_raises(a, b, ta, tb, *, negatives):
    return a @ b


def test_a_distillation_of_ones_own_is_tried() -> None:
    _check(loss=f"{__name__}:own_distillation")
    _check(loss=f"{__name__}:own_distillation", negatives=True)
    for name, said in (
        ("os:getcwd", r"must be a function of \(a, b, ta, tb, \*, negatives\)"),
        ("time:time", r"says which arguments it takes"),
        ("own_mean", r"one floating-point number an item, \(3,\); got torch\.float32 \(\)"),
        ("own_numpy", r"one floating-point number an item"),
        ("own_without_gradient", r"finite gradients"),
        ("own_nan", r"must give finite numbers"),
        ("own_infinite_gradient", r"finite gradients"),
        ("own_raises", r"it fails with RuntimeError"),
    ):
        with pytest.raises(InvalidInputError, match=rf"\[structure\] loss: .*{said}"):
            _check(loss=name if ":" in name else f"{__name__}:{name}")


def test_a_distillation_is_tried_on_what_the_sampler_gives() -> None:
    name = f"{__name__}:own_of_pairs"
    with pytest.raises(InvalidInputError, match=r"number an item|fails with"):
        _check(loss=name)
    _check(loss=name, train=TrainSettings(loss="gcl", sampler="graded"))
    try_distillation(name, negatives=False, lists=None)
    try_distillation("feature", negatives=True, lists=None)


def test_negatives_count_in_a_relational_distillation() -> None:
    a, b, ta, tb = (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in ((2, 4), (2, 3, 4), (2, 5), (2, 3, 5)))
    assert (relational(a, b, ta, tb, negatives=True) > relational(a, b, ta, tb)).all()


# label features


def test_label_features_stand_in_the_table_and_are_suggested() -> None:
    assert sorted(DISTILLATIONS) == ["feature", "label-features", "relational"]
    listed = CliRunner().invoke(app, ["ls", "distillations"])
    assert "label-features" in listed.output
    with pytest.raises(UnknownNameError, match=r"Did you mean 'label-features'\? Known: feature, label-features, relational"):
        _check(loss="label-feature")
    one = [np.zeros(1, dtype=np.int64)], [np.ones(1, dtype=np.int64)], [np.ones(1)], [np.ones(1)], [np.ones(1)]
    pairs = Partition(*one[:3], *([np.ones(1, dtype=np.int32)] for _ in range(2)), scenes=("a",))
    rows = np.eye(2, dtype=np.float32)
    with pytest.raises(InvalidInputError, match=r"'label-features' needs label maps beside descriptors"):
        distillation(pairs, [np.ones(1)], [(rows, rows)], loss="label-features")


@pytest.mark.parametrize("value", ["x", -1, float("nan"), True, 10**400])
def test_the_numbers_of_label_features_are_looked_at(value) -> None:
    for name in ("eta", "whole", "labels"):
        with pytest.raises(InvalidInputError, match=rf"\[structure\] loss_options: .*finite numbers >= 0; got \{{'{name}'"):
            _check(aggregator="label-features", loss="label-features", loss_options={name: value})
    with pytest.raises(InvalidInputError, match=r"finite numbers >= 0"):
        LabelGuide(None, [], eta=value)


def test_label_features_are_called_as_the_recipe_calls_them() -> None:
    _check(aggregator="label-features", loss="label-features", loss_options={"eta": 0.5})
    with pytest.raises(InvalidInputError, match=r"The distillation 'label-features' does not take .*etaa is none of eta, whole, labels"):
        _check(aggregator="label-features", loss="label-features", loss_options={"etaa": 1})


# the rest


def test_a_student_reads_photographs() -> None:
    recipe = load_recipe("structvpr-town")
    with pytest.raises(InvalidInputError, match=r"The student reads photographs, and \[model\.encoding\] classes = 'cityscapes-train'"):
        check_structure(replace(recipe, model=replace(recipe.model, encoding=EncodingSettings("cityscapes-train"))))


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        ({"threshold": 10**9 + 1}, r"\[structure\] threshold: .*whole number from 1 to 1,000,000,000; got 1000000001"),
        ({"threshold": 2.5}, r"\[structure\] threshold: .*got 2\.5"),
        ({"strength": 2e6}, r"\[structure\] strength: .*at most 1,000,000; got 2000000\.0"),
        ({"train": replace(TRIPLETS, sampler_options={"positive_threshold": "x"})}, r"must be in \(0, 1\]; sampler_options say 'x'"),
    ],
)
def test_numbers_have_bounds(structure, said) -> None:
    with pytest.raises(InvalidInputError, match=said):
        _check(**structure)


@pytest.mark.parametrize("targets", ["shuffled", "random"])
def test_controls_may_be_combined(targets: str) -> None:
    _check(corrupt=0.3, targets=targets)


def test_help_says_what_a_recipe_must_have() -> None:
    shown = " ".join(CliRunner().invoke(app, ["distill", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "with a table structure (structvpr-town)" in shown
