"""What a recipe says beyond the plain chain: labels to learn from, scenes that choose the model, arms, a start from data."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covis.chain import ARMS, check_no_leak, run, train
from covis.datasets import read
from covis.errors import CovisError, InvalidInputError, LeakError, UnknownNameError
from covis.images import Scene
from covis.labels import Labels
from covis.models.checkpoints import load
from covis.settings import LabelSettings, Recipe, ValidateSettings, WhitenSettings
from covis.whitening import Whitening

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_may_have_labels_of_its_own(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, train_label=LabelSettings("distance", {"half": 5.0, "decay": "step"}))
    run(recipe, tiny_world, out=tmp_path / "run", arms=["trained"])
    teach, asked = (sorted((tmp_path / "run" / "labels" / split).iterdir()) for split in ("train", "test"))
    assert {Labels.load(file).rule for file in teach} == {"distance"}
    assert {Labels.load(file).rule for file in asked} == {"surface"}
    assert {float(value) for file in teach for value in Labels.load(file).matrix.data} == {1.0}


def test_only_the_arms_asked_for_are_scored(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    result = run(tiny_recipe, tiny_world, out=tmp_path / "run", arms=["tiny", "whitened"])
    assert list(result.scores) == ["tiny", "whitened"]
    assert sorted(path.name for path in (tmp_path / "run" / "scores").iterdir()) == ["tiny", "whitened"]
    assert result.picture is None
    assert ARMS["untrained"] not in result.table
    with pytest.raises(UnknownNameError, match=r"no arm called 'trianed'"):
        run(tiny_recipe, tiny_world, out=tmp_path / "other", arms=["trianed"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("protocol", ["graded/0.5", "nordland/gmberton"])
def test_validation_chooses_the_model(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path, protocol: str) -> None:
    """cph validates, and nothing is asked; labels are made where the protocol asks for them."""
    validate = ValidateSettings(protocol=protocol, metric="recall@5", every=4)
    recipe = replace(
        tiny_recipe,
        data=replace(tiny_recipe.data, val="cph", val_split="test", test=""),
        train=replace(tiny_recipe.train, validate=validate),
    )
    model = train(recipe, tiny_world, out=tmp_path / "run")
    with (tmp_path / "run" / "train" / "log.csv").open(newline="") as stream:
        curve = {int(row["step"]): float(row["validation"]) for row in csv.DictReader(stream) if row["validation"] not in ("", "nan")}
    assert sorted(curve) == [4, 8, 12]
    kept = model.history["validation"]
    assert (kept["scenes"], kept["protocol"]) == (["cph"], protocol)
    assert curve[kept["step"]] == max(curve.values())
    assert (tmp_path / "run" / "labels" / "val").exists() == (protocol == "graded/0.5")


def test_what_is_asked_does_not_choose_the_model(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(
        tiny_recipe,
        data=replace(tiny_recipe.data, val="cph", val_split="test"),
        train=replace(tiny_recipe.train, validate=ValidateSettings(protocol="radius/10", every=4)),
    )
    with pytest.raises(LeakError, match=r"may decide which model is kept; .* is asked in scene 'cph' and validates in 'cph'"):
        run(recipe, tiny_world, out=tmp_path / "run")
    assert not (tmp_path / "run" / "train").exists()


def test_a_leak_is_seen_on_either_side(tiny_world: Path) -> None:
    (scene,) = [one for one in read("7scenes", tiny_world, split="test") if one.name == "cph"]
    turned = Scene("turned", "train", scene.queries, scene.database)
    check_no_leak([], [scene], [])
    for training in (turned, Scene("other", "train", scene.queries, scene.queries)):
        with pytest.raises(LeakError, match=r"No evaluated query may enter training"):
            check_no_leak([training], [scene])


def test_netvlad_starts_from_the_training_images(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, model=replace(tiny_recipe.model, aggregator="netvlad", aggregator_options={"clusters": 4}))
    run(recipe, tiny_world, out=tmp_path / "run", arms=["untrained"])
    before = load(tmp_path / "run" / "untrained")
    assert not before.starts_from_data
    assert not load(tmp_path / "run" / "train" / "model").starts_from_data
    described = np.load(tmp_path / "run" / "descriptors" / "untrained" / "cph" / "queries" / "vectors.npy", allow_pickle=False)
    assert described.shape[1] == before.dim == 4 * 128


def test_scenes_are_chosen_by_several_patterns(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, train="*, !cph, !lon*", test=""))
    train(recipe, tiny_world, out=tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "train" / "model" / "model.json").read_text())
    assert settings["history"]["scenes"] == ["trondheim"]
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"whose name fits '!cph'; it holds none"):
        train(replace(recipe, data=replace(recipe.data, train="!cph")), tiny_world, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decay_every": 3}, r"decay_every, the steps between two decays"),
        ({"batch": 7, "micro_batch": 2}, r"micro_batch must divide the batch"),
        ({"loss_options": {"margni": 0.5}}, r"margni is none of margin"),
        ({"sampler_options": {"batch": 3}}, r"batch is none of composition"),
        ({"validate": ValidateSettings(protocol="radius/10", metric="recal@5")}, r"got 'recal@5'. Did you mean 'recall@5'"),
    ],
)
def test_a_wrong_setting_is_found_before_anything_is_read(
    tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    wrong = replace(tiny_recipe, train=replace(tiny_recipe.train, **change))  # type: ignore[arg-type]
    for verb in (run, train):
        with pytest.raises(CovisError, match=said):
            verb(wrong, tiny_world, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_what_stopped_before_it_made_anything_can_be_corrected(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """A threshold that no similarity reaches is found only with the labels; the next call need not overwrite anything."""
    wrong = replace(tiny_recipe, train=replace(tiny_recipe.train, sampler_options={"threshold": "0.5"}))
    with pytest.raises(InvalidInputError, match=r"sampler 'graded' cannot work with the options \{'threshold': '0.5'\}"):
        train(wrong, tiny_world, out=tmp_path / "run")
    train(tiny_recipe, tiny_world, out=tmp_path / "run")


def test_a_recipe_says_how_to_whiten(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, whiten=WhitenSettings(kind="zca", shrinkage=-1))
    run(recipe, tiny_world, out=tmp_path / "run", arms=["whitened"])
    history = Whitening.load(tmp_path / "run" / "whitening.npz").history
    assert (history["kind"], history["dim"]) == ("zca", 128)
    assert 0 < history["shrinkage"] < 1
    for wrong in (WhitenSettings(kind="zca", dim=3), WhitenSettings(shrinkage=2.0)):
        with pytest.raises(InvalidInputError, match=r"kind = \"zca\" keeps all dimensions"):
            run(replace(recipe, whiten=wrong), tiny_world, out=tmp_path / "other")


def test_what_is_asked_is_not_in_a_validation_database(tiny_world: Path) -> None:
    (scene,) = [one for one in read("7scenes", tiny_world, split="test") if one.name == "cph"]
    turned = Scene("turned", "val", database=scene.queries, queries=scene.database)
    with pytest.raises(LeakError, match=r"may decide which model is kept"):
        check_no_leak([], [scene], [turned])
