"""The shipped recipes: each is what its name says, and a recipe may be based on another."""

from __future__ import annotations

from pathlib import Path

import pytest

from covis.config import load_recipe, overlaid, recipe_names
from covis.errors import InvalidInputError, UnknownNameError
from covis.labelling import LABEL_RULES
from covis.lookup import resolve, with_options
from covis.protocols import protocol
from covis.settings import LabelSettings

PAPER = [name for name in recipe_names() if "-msls" in name and not name.startswith("structvpr")]
"""A row each of the tables of the GCL paper and of its version of 2021."""


def test_the_rows_of_the_papers_tables():
    rows = {(recipe.train.loss, recipe.model.backbone, recipe.model.aggregator) for recipe in map(load_recipe, PAPER)}
    assert rows == {
        ("gcl", "vgg16", "netvlad"),
        ("gcl", "vgg16", "gem"),
        ("gcl", "resnext101_32x8d_wsl", "gem"),
        *((loss, f"resnet{depth}", pool) for loss in ("gcl", "contrastive") for depth in (50, 152) for pool in ("average", "gem")),
    }


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_schedule(name):
    recipe = load_recipe(name)
    train = recipe.train
    assert (train.batch, train.micro_batch, train.bn_mode, train.optimizer, train.momentum, train.weight_decay) == (
        32,
        2,
        "paper",
        "sgd",
        0,
        0,
    )
    assert train.steps * train.batch == 520_000
    assert (train.decay_every * train.batch) // 1000 == 250
    assert (train.validate.protocol, train.validate.metric, train.validate.every * train.batch // 1000) == ("msls-val/gcl", "recall@5", 10)
    assert (recipe.model.height, recipe.model.width, recipe.model.pretrained, recipe.model.normalize) == (480, 640, True, True)
    assert train.loss_options == {"margin": 0.5}
    assert (train.sampler, recipe.train_label.rule) == (("graded", "") if train.loss == "gcl" else ("binary", "distance"))
    assert recipe.data.test == ""  # the split that chooses the model is not the one that is asked


@pytest.mark.parametrize("name", recipe_names())
def test_every_name_and_option_of_a_shipped_recipe_is_known(name):
    from covis.losses import LOSSES
    from covis.models.aggregators import AGGREGATORS
    from covis.pairs import SAMPLERS

    recipe = load_recipe(name)
    for label in (recipe.label, recipe.train_label):
        if label.rule:
            with_options(resolve(label.rule, LABEL_RULES, what="rule"), label.options, what="rule")
    for part, table in (("loss", LOSSES), ("sampler", SAMPLERS)):
        with_options(resolve(getattr(recipe.train, part), table, what=part), getattr(recipe.train, f"{part}_options"), what=part)
    with_options(resolve(recipe.model.aggregator, AGGREGATORS, what="aggregator"), recipe.model.aggregator_options, what="aggregator")
    for named in (*recipe.evaluate.protocols, *filter(None, [recipe.train.validate.protocol])):
        protocol(named)


def test_a_recipe_takes_from_its_base_what_it_does_not_say(tmp_path: Path):
    (tmp_path / "below.toml").write_text('base = "gcl-7scenes"\n[train]\nsteps = 7\n', encoding="utf-8")
    (tmp_path / "above.toml").write_text('base = "below.toml"\n[label]\nrule = "distance"\n[train]\nbatch = 3\n', encoding="utf-8")
    recipe, shipped = load_recipe(tmp_path / "above.toml"), load_recipe("gcl-7scenes")
    assert (recipe.name, recipe.train.steps, recipe.train.batch) == ("above", 7, 3)
    assert recipe.train.loss_options == shipped.train.loss_options
    assert recipe.label == LabelSettings("distance", {})  # the options of another rule do not come along


def test_a_recipe_is_not_based_on_itself(tmp_path: Path):
    (tmp_path / "one.toml").write_text('base = "two.toml"\n', encoding="utf-8")
    (tmp_path / "two.toml").write_text('base = "one.toml"\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"must not be based on itself"):
        load_recipe(tmp_path / "one.toml")
    (tmp_path / "two.toml").write_text('base = "gcl-msl"\n', encoding="utf-8")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'gcl-msls'"):
        load_recipe(tmp_path / "one.toml")
    (tmp_path / "two.toml").write_text("base = 3\n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"base must be the name or the path"):
        load_recipe(tmp_path / "one.toml")


def test_options_belong_to_the_name_beside_them():
    below = {"sampler": "graded", "sampler_options": {"on_empty": "skip"}, "steps": 3}
    assert overlaid(below, {"sampler": "graded", "steps": 4}) == {**below, "steps": 4}
    assert overlaid(below, {"sampler": "binary", "sampler_options": {"shares": [1, 0]}})["sampler_options"] == {"shares": [1, 0]}


def test_the_page_of_recipes_names_them_all():
    page = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in recipe_names() if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", ["math:pi", "builtins:dict"])
def test_what_is_no_function_with_a_signature_is_refused_in_words(name: str):
    """Any name can be written into a recipe; a library's traceback is no answer."""
    with pytest.raises(InvalidInputError, match="The loss must be a function that says what it takes"):
        with_options(resolve(name, {}, what="loss"), {"margin": 1}, what="loss")
