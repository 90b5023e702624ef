"""Labels made worse on purpose: what is permuted, rounded, moved and turned, what stays, and where a recipe may say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from covis import sweeps
from covis.chain import train
from covis.cli.shell import app
from covis.config import load_recipe
from covis.datasets import read
from covis.errors import CovisError, CovisWarning, InvalidInputError, SettingsDifferError
from covis.geometry import ground_heading
from covis.images import Images, Scene
from covis.labelling import label_by_distance, label_by_surface, label_by_view
from covis.labels import TIE, Labels
from covis.materials import label_card
from covis.pairs import GradedSampler
from covis.placebos import PLACEBOS, check_changes, disturbed, disturbed_labels, disturbed_scene, shuffled_in_class
from covis.settings import LabelSettings, Recipe
from covis.studies import Study
from covis.verification import check_learning, training_label


@pytest.fixture(scope="module")
def graded() -> Labels:
    """30 queries, 40 database images, a third of them above 0, on the diagonal excluded."""
    random = np.random.default_rng(3)
    dense = np.where(random.random((30, 40)) < 0.3, random.random((30, 40)), 0.0)
    excluded = sparse.csr_array(np.eye(30, 40, dtype=bool))
    names = [tuple(f"{side}{row}" for row in range(count)) for side, count in (("q", 30), ("d", 40))]
    return Labels(sparse.csr_array(dense), *names, rule="view", parameters={"fov": 90.0}, excluded=excluded)


@pytest.fixture
def line() -> Images:
    """4,000 images a metre apart, all looking north-west."""
    return Images(
        "r", [f"{row}.jpg" for row in range(4000)], xy=np.stack([np.arange(4000.0), np.zeros(4000)], axis=1), heading=[300.0] * 4000
    )


# --- placebos ---


@pytest.mark.parametrize("name", ["shuffled", "shuffled-in-class"])
def test_similarities_are_dealt_out_within_each_query(graded: Labels, name: str) -> None:
    made = PLACEBOS[name](graded, seed=1)
    before, after = graded.matrix.toarray(), made.matrix.toarray()
    np.testing.assert_array_equal(before > 0, after > 0)
    np.testing.assert_array_equal(np.sort(before, axis=1), np.sort(after, axis=1))
    assert (before != after).sum() > 100
    np.testing.assert_array_equal(PLACEBOS[name](graded, seed=1).matrix.toarray(), after)
    assert (PLACEBOS[name](graded, seed=2).matrix.toarray() != after).any()
    assert made.excluded is not None
    np.testing.assert_array_equal(made.excluded.toarray(), np.eye(30, 40, dtype=bool))
    kept = (before[before > 0] >= 0.5) == (after[before > 0] >= 0.5)
    assert kept.all() == (name == "shuffled-in-class")


def test_each_image_is_as_likely_to_be_dealt_each_similarity() -> None:
    labels = Labels(sparse.csr_array([[0.9, 0.6, 0.3]]), ("q",), ("a", "b", "c"), rule="by hand")
    dealt = np.array([PLACEBOS["shuffled"](labels, seed=seed).matrix.toarray()[0] for seed in range(600)])
    for column in range(3):
        counts = np.array([(dealt[:, column] == value).sum() for value in (0.9, 0.6, 0.3)])
        np.testing.assert_allclose(counts, 200, atol=60)


def test_labels_of_other_images_are_shuffled_in_another_way(graded: Labels) -> None:
    other = replace(graded, query_names=tuple(f"other{row}" for row in range(30)))
    assert (PLACEBOS["shuffled"](graded, seed=1).matrix != PLACEBOS["shuffled"](other, seed=1).matrix).nnz > 0


def test_what_the_sampler_draws_stays_where_classes_stay(graded: Labels) -> None:
    """Similarities within a hair of the threshold are positive to both."""
    data = graded.matrix.data.copy()
    data[::7] = 0.5 - TIE / 2
    edged = replace(graded, matrix=sparse.csr_array((data, graded.matrix.indices, graded.matrix.indptr), shape=(30, 40)))
    made = shuffled_in_class(edged, seed=1)
    drawn = [next(GradedSampler([one], batch=64, seed=0)) for one in (edged, made)]
    for part in ("query", "database"):
        np.testing.assert_array_equal(getattr(drawn[0], part), getattr(drawn[1], part))
    assert (drawn[0].similarity != drawn[1].similarity).any()


def test_rounding_at_its_edges() -> None:
    values, given = [1.0, 0.75, 0.75 - 1e-12, 0.7499, 0.5, 0.25, 0.25 - 1e-12, 0.2499, 0.1], tuple("abcdefghi")
    made = PLACEBOS["rounded"](Labels(sparse.csr_array([values]), ("q",), given, rule="by hand"), seed=5)
    assert made.matrix.toarray().tolist() == [[1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0, 0]]
    assert made.matrix.nnz == 7
    assert made.parameters == {"placebo": "rounded"}


def test_labels_say_what_was_done_and_keep_it_on_disk(graded: Labels, tmp_path: Path) -> None:
    made = PLACEBOS["shuffled-in-class"](graded, seed=4)
    assert (made.rule, made.parameters["fov"]) == ("view", 90.0)
    assert made.parameters == {"fov": 90.0, "placebo": "shuffled-in-class", "placebo_seed": 4, "placebo_threshold": 0.5}
    again = Labels.load(made.save(tmp_path / "l.npz"))
    assert again.parameters == made.parameters
    np.testing.assert_array_equal(again.matrix.toarray(), made.matrix.toarray())


@pytest.mark.parametrize("name", sorted(PLACEBOS))
def test_placebos_take_labels_without_pairs(name: str) -> None:
    empty = Labels(sparse.csr_array((2, 3)), ("p", "q"), ("a", "b", "c"), rule="by hand")
    assert PLACEBOS[name](empty, seed=0).matrix.nnz == 0


# --- noise ---


def test_errors_have_the_size_that_was_asked_for_and_are_independent(line: Images) -> None:
    made = disturbed(line, position_noise=5.0, heading_noise=10.0, seed=2)
    assert made.xy is not None
    assert made.heading is not None
    assert line.xy is not None
    shift, turn = made.xy - line.xy, (made.heading - 300.0 + 180) % 360 - 180
    errors = np.column_stack([shift / 5.0, turn / 10.0])
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=0.08)
    np.testing.assert_allclose(np.cov(errors.T), np.eye(3), atol=0.12)
    assert abs(np.corrcoef(errors[:-1, 0], errors[1:, 0])[0, 1]) < 0.08, "from image to image"


def test_errors_depend_on_seed_and_name_and_grow_in_proportion(line: Images) -> None:
    def moved(**given: Any) -> Any:
        made = disturbed(line, **{"position_noise": 2.0, "seed": 1, **given})
        assert made.xy is not None
        return made.xy - np.asarray(line.xy)

    np.testing.assert_array_equal(moved(), moved())
    np.testing.assert_allclose(moved(position_noise=6.0), 3 * moved(), atol=1e-9)
    np.testing.assert_array_equal(moved(), moved(heading_noise=20.0))
    for other in ({"seed": 2}, {"name": "cph/queries"}):
        assert abs(np.corrcoef(moved()[:, 0], moved(**other)[:, 0])[0, 1]) < 0.08


def test_headings_wrap_and_unknown_ones_stay_so() -> None:
    images = Images("r", [f"{row}" for row in range(200)], heading=np.where(np.arange(200) % 2, 359.9, np.nan))
    heading = disturbed(images, heading_noise=30.0).heading
    assert heading is not None
    np.testing.assert_array_equal(np.isnan(heading), np.arange(200) % 2 == 0)
    known = heading[1::2]
    assert ((known >= 0) & (known < 360)).all()
    assert (known < 180).any()
    assert (known > 180).any()


def test_position_heading_and_pose_still_agree(town: list[Scene]) -> None:
    """Columns and poses err alike: what is labelled by the one is what is labelled by the other."""
    for images in (town[0].database, town[0].queries):
        xy, heading, pose = images.need("xy", "heading", "pose")
        np.testing.assert_allclose(pose[:, :2, 3], xy, atol=1e-6)
        made = disturbed(images, position_noise=4.0, heading_noise=25.0, seed=7)
        xy, heading, after = made.need("xy", "heading", "pose")
        assert np.abs(after[:, :2, 3] - pose[:, :2, 3]).mean() > 1
        np.testing.assert_allclose(after[:, :2, 3], xy, atol=1e-6)
        np.testing.assert_allclose((ground_heading(after) - heading + 180) % 360 - 180, 0, atol=1e-6)
        np.testing.assert_array_equal(after[:, 2, 3], pose[:, 2, 3])
        np.testing.assert_allclose(after[:, 2, :3], pose[:, 2, :3], atol=1e-12, err_msg="the tilt stays")
    sides = [replace(disturbed(side, position_noise=4.0, heading_noise=25.0), fov=None) for side in (town[0].queries, town[0].database)]
    bare = [replace(side, xy=None, heading=None) for side in sides]
    np.testing.assert_allclose(label_by_view(*bare).matrix.toarray(), label_by_view(*sides).matrix.toarray(), atol=1e-6)


def test_a_pose_turns_clockwise_about_its_camera() -> None:
    """Worked by hand: a camera at (3, 4, 2) that looks north errs by d degrees; its axis is then (sin d, cos d)."""
    north = np.array([[1.0, 0, 0, 3], [0, 0, 1, 4], [0, -1, 0, 2], [0, 0, 0, 1]])
    made = disturbed(Images("r", ["a"], heading=[0.0], pose=[north]), heading_noise=20.0, seed=1)
    assert made.pose is not None
    assert made.heading is not None
    angle = np.deg2rad(made.heading[0])
    np.testing.assert_allclose(made.pose[0, :3, 2], [np.sin(angle), np.cos(angle), 0], atol=1e-12)
    assert made.pose[0, :3, 3].tolist() == [3, 4, 2]
    assert abs(np.sin(angle)) > 0.05


def test_a_training_scene_is_disturbed_once_and_other_sides_apart(line: Images) -> None:
    one = disturbed_scene(Scene("s", "train", line, line.select(range(4000))), position_noise=5.0)
    assert one.queries is one.database
    labels = disturbed_labels(Scene("s", "train", line, line), label_by_distance, position_noise=5.0)
    assert labels.excluded is not None
    assert labels.excluded.nnz == 4000
    assert abs(labels.matrix - labels.matrix.T).max() < 1e-12, "an image errs alike on both sides"
    other = replace(line, root=Path("other"))
    two = disturbed_scene(Scene("s", "train", line, other), position_noise=5.0)
    assert np.abs(np.asarray(two.queries.xy) - np.asarray(two.database.xy)).mean() > 1
    three = disturbed_scene(Scene("t", "train", line, other), position_noise=5.0)
    assert np.abs(np.asarray(three.database.xy) - np.asarray(two.database.xy)).mean() > 1


def test_no_noise_is_the_same_object(town: list[Scene]) -> None:
    assert disturbed(town[0].queries) is town[0].queries
    assert disturbed_scene(town[0], seed=3) is town[0]
    plain, same = label_by_view(town[0].queries, town[0].database), disturbed_labels(town[0], label_by_view, seed=3)
    assert same.parameters == plain.parameters
    np.testing.assert_array_equal(same.matrix.toarray(), plain.matrix.toarray())


@pytest.mark.parametrize(
    ("columns", "noise", "match"),
    [
        ({"heading": [0.0]}, {"position_noise": 1.0}, r"must have positions or poses for position_noise = 1; they have none"),
        ({"xy": [[0.0, 0.0]]}, {"heading_noise": 1.0}, r"must have headings or poses for heading_noise = 1; they have none"),
        ({"xy": [[0.0, 0.0]], "heading": [np.nan]}, {"heading_noise": 1.0}, r"must have headings"),
        ({"xy": [[0.0, 0.0]]}, {"position_noise": -1.0}, r"position_noise must be a finite number of metres, >= 0; got -1"),
        ({"heading": [0.0]}, {"heading_noise": float("inf")}, r"heading_noise must be a finite number of degrees"),
        ({"heading": [0.0]}, {"heading_noise": 1.0, "seed": -1}, r"seed .* must be >= 0; got -1"),
    ],
)
def test_what_cannot_be_disturbed_is_refused(columns: dict[str, Any], noise: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        disturbed(Images("r", ["a"], **columns), **noise)


def test_poses_of_a_world_that_does_not_stand_upright_are_warned_of() -> None:
    with pytest.warns(CovisWarning, match=r"z up"):
        disturbed(Images("r", ["a"], pose=[np.eye(4)]), position_noise=1.0)


# --- in a recipe ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"label": LabelSettings("view", position_noise=5.0)}, r"\[label\] judges, so it must have no position_noise.*\[train_label\]"),
        ({"label": LabelSettings("view", placebo="rounded")}, r"\[label\] judges, so it must have no placebo"),
        ({"train_label": LabelSettings("", heading_noise=float("nan"))}, r"heading_noise must be a finite number of degrees"),
        ({"train_label": LabelSettings("view", position_noise=-0.5)}, r"position_noise must be .*got -0.5"),
        ({"train_label": LabelSettings("", placebo="shufled")}, r"no placebo called 'shufled'. Did you mean 'shuffled'"),
        ({"train_label": LabelSettings("", {"fov": 60.0})}, r"\[train_label\] must name the rule"),
    ],
)
def test_what_a_recipe_may_not_say(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(CovisError, match=match):
        check_learning(replace(load_recipe("town"), **changes))


def test_classes_that_are_not_the_samplers_are_refused() -> None:
    recipe = replace(load_recipe("town"), train_label=LabelSettings("", placebo="shuffled-in-class"))
    check_learning(recipe)
    with pytest.raises(InvalidInputError, match=r"cuts at 0.5.*threshold 0.7"):
        check_learning(replace(recipe, train=replace(recipe.train, sampler_options={"threshold": 0.7})))


def test_noise_without_a_rule_is_laid_over_the_rule_of_the_label() -> None:
    recipe = Recipe("r", label=LabelSettings("view", {"fov": 60.0}), train_label=LabelSettings("", heading_noise=9.0))
    assert training_label(recipe) == LabelSettings("view", {"fov": 60.0}, heading_noise=9.0)
    assert training_label(replace(recipe, train_label=LabelSettings(""))) == recipe.label


def test_labels_without_noise_have_the_card_of_before(tiny_run: Path, tiny_recipe: Recipe) -> None:
    """What was labelled before there was noise still counts as done."""
    for split in ("train", "test"):
        card = json.loads((tiny_run / "steps" / f"label-{split}.json").read_text())["settings"]["label"]
        assert card == {"rule": "surface", "options": {"reach": 60.0, "relative_tolerance": 0.05, "step": 2}}
    assert label_card(LabelSettings(""), 3) == {"rule": "", "options": {}}
    made = LabelSettings("view", placebo="rounded", heading_noise=2.0)
    assert label_card(made, 3) == {"rule": "view", "options": {}, "heading_noise": 2.0, "placebo": "rounded", "seed": 3}


def test_cells_without_noise_have_the_settings_of_before(tmp_path: Path) -> None:
    arms = {"plain": {}, "noisy": {"train_label": {"position_noise": 5.0}}}
    given = sweeps._Given(None, None, None)
    sweeping = sweeps._Sweep(Study("s", "town", arms=arms), tmp_path, tmp_path / "out", given=given, overwrite=False, say=print)
    plain, noisy = (sweeping.settings(arm, 3)["recipe"] for arm in arms)
    assert plain["label"].keys() == plain["train_label"].keys() == {"rule", "options"}
    assert noisy["label"] == plain["label"]
    assert noisy["train_label"] == {"rule": "", "options": {}, "position_noise": 5.0, "seed": 3}


def test_training_labels_are_made_worse_and_those_that_judge_are_not(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(
        tiny_recipe,
        train=replace(tiny_recipe.train, steps=1, seed=5),
        train_label=LabelSettings("view", {"reach": 30.0}, position_noise=2.0, heading_noise=5.0, placebo="shuffled"),
    )
    train(recipe, tiny_world, out=tmp_path / "run")
    told = {"position_noise": 2.0, "heading_noise": 5.0, "noise_seed": 5, "placebo": "shuffled", "placebo_seed": 5}
    scenes = {scene.name: scene for scene in read("7scenes", tiny_world, split="train")}
    files = sorted((tmp_path / "run" / "labels" / "train").iterdir())
    assert len(files) == 2
    for file in files:
        scene, made = scenes[file.stem], Labels.load(file)
        assert told.items() <= made.parameters.items()
        moved = disturbed_scene(scene, position_noise=2.0, heading_noise=5.0, seed=5)
        by_hand = PLACEBOS["shuffled"](label_by_view(moved.queries, moved.database, reach=30.0), seed=5)
        np.testing.assert_array_equal(made.matrix.toarray(), by_hand.matrix.toarray())
    other = replace(recipe, train=replace(recipe.train, seed=6))
    with pytest.raises(SettingsDifferError, match=r"label\.seed: 5 stored, 6 asked for"):
        train(other, tiny_world, out=tmp_path / "run")
    with pytest.raises(InvalidInputError, match=r"taken as they are, so \[train_label\] must have no position_noise"):
        train(recipe, tiny_world, out=tmp_path / "other", labels=tmp_path / "run" / "labels" / "train")


def test_the_command_makes_the_same_labels(tiny_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.npz"
    scene = read("7scenes", tiny_world)[0]
    given = ["label", str(tiny_world), "--split", "test", "--rule", "view", "--out", str(out), "--noise-seed", "4"]
    worse = ["--position-noise", "3", "--heading-noise", "8", "--placebo", "rounded"]
    done = CliRunner().invoke(app, [*given, *worse])
    assert done.exit_code == 0, done.output
    by_hand = disturbed_labels(scene, label_by_view, position_noise=3.0, heading_noise=8.0, placebo="rounded", seed=4)
    made = Labels.load(out)
    np.testing.assert_array_equal(made.matrix.toarray(), by_hand.matrix.toarray())
    assert made.parameters == by_hand.parameters
    refused = CliRunner().invoke(app, ["label", str(tiny_world), "--rule", "view", "--out", str(tmp_path / "m"), "--placebo", "round"])
    assert isinstance(refused.exception, CovisError)
    assert not (tmp_path / "m").exists()


def test_noise_lowers_what_depth_finds_in_common(town: list[Scene]) -> None:
    """By surface the poses err too: less surface agrees."""
    scene = replace(town[0], queries=town[0].queries.select(range(4)), database=town[0].database.select(range(8)))
    options = {"reach": 40.0, "relative_tolerance": 0.05, "step": 2}
    plain = label_by_surface(scene.queries, scene.database, **options)  # type: ignore[arg-type]
    noisy = disturbed_labels(scene, lambda a, b: label_by_surface(a, b, **options), position_noise=3.0)  # type: ignore[arg-type]
    assert noisy.matrix.sum() < plain.matrix.sum()


def test_checks_pass_what_is_right() -> None:
    check_changes(position_noise=5.0, heading_noise=0.0, placebo="shuffled", seed=0)
