"""Recipes: TOML and back, every wrong key and type named; names become objects at the edge."""

import dataclasses
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.config import from_table, load_recipe, recipe_names, to_table, to_toml
from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.lookup import resolve, suggest
from covis.settings import DataSettings, EvaluateSettings, LabelSettings, Recipe, TrainSettings, WhitenSettings

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OPTIONS = st.dictionaries(TEXT, st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), TEXT), max_size=3)


@given(
    st.builds(
        Recipe,
        name=TEXT,
        description=TEXT,
        data=st.builds(DataSettings, layout=TEXT, options=OPTIONS),
        label=st.builds(LabelSettings, rule=TEXT, options=OPTIONS),
        train=st.builds(TrainSettings, steps=st.integers(0, 9), learning_rate=st.floats(allow_nan=False)),
        whiten=st.builds(WhitenSettings, power=st.floats(0, 1)),
        evaluate=st.builds(EvaluateSettings, protocols=st.lists(TEXT).map(tuple)),
    )
)
def test_a_recipe_is_what_its_toml_says(recipe):
    assert from_table(Recipe, tomllib.loads(to_toml(recipe)), where="here") == recipe
    assert from_table(Recipe, to_table(recipe), where="here") == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_come_back(tmp_path, name):
    recipe = load_recipe(name)
    assert recipe.name == name
    (tmp_path / "mine.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "mine.toml") == recipe


def test_the_shipped_recipes():
    assert {"gcl-7scenes", "town"} <= set(recipe_names())


@pytest.mark.parametrize(("toml", "said"), [
    ("[trian]\n", "'trian'.*Did you mean 'train'"),
    ("[train]\nsteps_ = 3\n", "train has no setting 'steps_'.*Did you mean 'steps'"),
    ("[train]\nsteps = 3.5\n", "train: steps must be int; got 3.5"),
    ("[train]\nsteps = true\n", "steps must be int; got True"),
    ("[train]\nsteps = '3'\n", "steps must be int"),
    ("[train]\nlearning_rate = 'fast'\n", "learning_rate must be float"),
    ("[train]\nlearning_rate = true\n", "learning_rate must be float"),
    ("[train]\noptimizer = 'sdg'\n", "optimizer must be one of 'sgd'"),
    ("[train]\nloss_options = 5\n", "loss_options must be"),
    ("[data]\noptions = 'x'\n", "data: options must be"),
    ("[model]\nmean = [0.5, 0.5]\n", "mean must be"),
    ("[model]\nmean = [0.5, 0.5, 'x']\n", "mean must be float; got 'x'"),
    ("[model]\nnormalize = 1\n", "normalize must be bool"),
    ("[evaluate]\nprotocols = 'graded/0.5'\n", "protocols must be"),
    ("train = 5\n", "train must be TrainSettings; got 5"),
    ("name = 5\n", "name must be str"),
])  # fmt: skip
def test_wrong_keys_and_types_are_named(tmp_path, toml, said):
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(InvalidInputError, match=said) as refused:
        load_recipe(path)
    assert "mine.toml" in str(refused.value)


def test_whole_numbers_become_floats_and_lists_tuples():
    settings = from_table(TrainSettings, {"learning_rate": 1}, where="here")
    assert isinstance(settings.learning_rate, float)
    assert from_table(EvaluateSettings, {"protocols": ["a"]}, where="here").protocols == ("a",)


def test_a_recipe_needs_a_name_and_a_file_gives_one(tmp_path):
    with pytest.raises(InvalidInputError, match="name"):
        from_table(Recipe, {}, where="here")
    (tmp_path / "kitchen.toml").write_text("")
    assert load_recipe(tmp_path / "kitchen.toml") == Recipe("kitchen")


def test_what_is_no_recipe_is_said(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.toml.*gcl-7scenes"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UnknownNameError, match="Did you mean 'gcl-7scenes'"):
        load_recipe("gcl-7scene")
    (tmp_path / "bad.toml").write_text("[train\n")
    with pytest.raises(DamagedFileError, match=r"bad\.toml"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(DamagedFileError, match=r"bad\.toml"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(DamagedFileError, match=r"folder\.toml"):
        load_recipe(tmp_path / "folder.toml")


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe("x").name = "y"


def test_names_are_resolved_from_the_table_or_a_module():
    assert resolve("b", {"a": 1, "b": 2}, what="thing") == 2
    assert resolve("math:inf", {}, what="thing") == math.inf


@pytest.mark.parametrize("name", ["gclx", "", "nowhere:thing", "math:nothing", ":x", ".math:x", "math:", ":"])
def test_unknown_names_are_errors_of_ours(name):
    with pytest.raises(UnknownNameError, match="thing"):
        resolve(name, {"gcl": 1}, what="thing")


def test_the_nearest_name_is_offered():
    assert "Did you mean" not in suggest("zzz", ["gcl"])
    assert suggest("x", []) == "Known: none."


def test_every_error_is_ours_and_a_builtin():
    from covis import errors

    ours = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CovisError) and value is not CovisError
    ]
    assert len(ours) >= 10
    for error in ours:
        assert len(error.__mro__) > 4, error
        assert any(base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in error.__mro__), error
        assert error.__doc__
