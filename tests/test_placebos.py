"""Labels made worse on purpose: what is permuted, rounded, moved and turned, what stays, and where a recipe may say so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from scipy import sparse
from typer.testing import CliRunner

from covis import sweeps
from covis.chain import train
from covis.cli import data as data_commands
from covis.cli.shell import app
from covis.config import load_recipe
from covis.datasets import read
from covis.errors import CovisError, CovisWarning, InvalidInputError, SettingsDifferError
from covis.geometry import ground_heading
from covis.images import Images, Scene
from covis.labelling import LABEL_RULES, label_by_distance, label_by_surface, label_by_view
from covis.labels import TIE, Labels
from covis.materials import Given, Materials, label_card
from covis.pairs import GradedSampler
from covis.placebos import PLACEBOS, averaged_in_class, check_changes, disturbed, disturbed_labels, disturbed_scene, shuffled_in_class
from covis.settings import LabelSettings, Recipe, StructureSettings
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


def test_a_class_has_its_mean_and_no_other_similarity(graded: Labels) -> None:
    made = PLACEBOS["averaged-in-class"](graded, seed=3)
    before, after = graded.matrix.toarray(), made.matrix.toarray()
    positive = before >= 0.5
    assert set(after[positive]) == {before[positive].mean()}
    np.testing.assert_allclose(after[(before > 0) & ~positive], before[(before > 0) & ~positive].mean())
    np.testing.assert_array_equal(before > 0, after > 0)
    assert made.parameters == {"fov": 90.0, "placebo": "averaged-in-class", "placebo_threshold": 0.5}
    drawn = [next(GradedSampler([one], batch=64, seed=0)) for one in (graded, made)]
    np.testing.assert_array_equal(drawn[0].query, drawn[1].query)
    np.testing.assert_array_equal(drawn[0].database, drawn[1].database)


def test_a_class_that_is_empty_has_no_mean() -> None:
    made = PLACEBOS["averaged-in-class"](Labels(sparse.csr_array([[0.5, 0.25, 0.0]] * 2), ("p", "q"), tuple("abc"), rule="by hand"))
    assert made.matrix.toarray().tolist() == [[0.5, 0.25, 0.0]] * 2
    alone = Labels(sparse.csr_array([[0.75, 0.5, 0.0]]), ("q",), tuple("abc"), rule="by hand")
    assert averaged_in_class(alone).matrix.toarray().tolist() == [[0.625, 0.625, 0.0]]
    with pytest.raises(InvalidInputError, match=r"in \(0, 1\]; got 0"):
        averaged_in_class(alone, threshold=0)


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


def halved(labels: Labels, *, seed: int) -> Labels:
    """A user's own placebo, which says nothing of itself."""
    return replace(labels, matrix=labels.matrix * 0.5)


def broken(labels: Labels, *, seed: int) -> Labels:
    return replace(labels, query_names=tuple(f"other{row}" for row in range(labels.matrix.shape[0])))


def seedless(labels: Labels) -> Labels:
    return labels


def no_labels_of_many(labels: Labels, *, seed: int) -> Any:
    """Passes what is made by hand, and fails on more."""
    return replace(labels) if labels.matrix.shape[0] < 3 else labels.matrix


def test_a_placebo_of_ones_own_is_told_in_the_labels(graded: Labels, line: Images) -> None:
    scene = Scene("s", "train", line, line)
    labels = disturbed_labels(scene, lambda *_: graded, placebo=f"{__name__}:halved", seed=3)
    np.testing.assert_array_equal(labels.matrix.toarray(), graded.matrix.toarray() * 0.5)
    assert labels.parameters == {"fov": 90.0, "placebo": f"{__name__}:halved", "placebo_seed": 3}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("math:pi", r"'math:pi' must be a function .*; it is 3\.14"),
        ("builtins:len", r"raised TypeError"),
        ("covis.placebos:disturbed", r"must return other labels; it returned those that it was given"),
        ("builtins:dict", r"raised TypeError"),
        (f"{__name__}:seedless", r"raised TypeError: .*seed"),
        (f"{__name__}:broken", r"must return Labels of the same images; it returned those of others"),
    ],
)
def test_a_placebo_that_is_none_is_refused_before_anything_is_labelled(line: Images, name: str, match: str) -> None:
    def rule(queries: Images, database: Images) -> Labels:
        raise AssertionError

    with pytest.raises(InvalidInputError, match=match):
        check_changes(placebo=name)
    with pytest.raises(InvalidInputError, match=match):
        disturbed_labels(Scene("s", "train", line, line), rule, placebo=name)


def test_what_a_placebo_returns_is_looked_at(graded: Labels, line: Images) -> None:
    with pytest.raises(InvalidInputError, match=r"must return Labels of the same images; it returned csr_array"):
        disturbed_labels(Scene("s", "train", line, line), lambda *_: graded, placebo=f"{__name__}:no_labels_of_many")


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


@pytest.mark.parametrize("gate", [None, 180.0])
def test_noise_of_headings_that_changes_nothing_is_refused(town: list[Scene], gate: float | None) -> None:
    with pytest.raises(InvalidInputError, match=rf"below 180 degrees.*heading_noise = 9 and max_heading_difference = {gate}"):
        disturbed_labels(town[0], partial(label_by_distance, max_heading_difference=gate), heading_noise=9.0)
    kept = disturbed_labels(town[0], partial(label_by_distance, max_heading_difference=10.0), heading_noise=30.0)
    plain = label_by_distance(town[0].queries, town[0].database, max_heading_difference=10.0)
    assert (kept.matrix != plain.matrix).nnz > 0


# --- in a recipe ---


def _data(town: list[Scene]) -> Path:
    return town[0].database.root.parent


def _read(town: list[Scene]) -> list[Scene]:
    return read("table", _data(town))


def _asked(town: list[Scene], **changes: Any) -> Recipe:
    """A recipe by which the first town both teaches and is asked."""
    recipe = load_recipe("town")
    return replace(recipe, data=replace(recipe.data, layout="table", train="*", train_split="test"), **changes)


def _materials(recipe: Recipe, town: list[Scene], out: Path, *, labels: Path | None = None) -> Materials:
    return Materials(recipe, _data(town), out, given=Given(labels=labels), overwrite=False, say=lambda _: None)


def _label(town: list[Scene], out: Path, rule: str, *more: str) -> Result:
    """`covis label` of the first town."""
    return CliRunner().invoke(app, ["label", str(_data(town)), "--layout", "table", "--rule", rule, "--out", str(out), *more])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"label": LabelSettings("view", position_noise=5.0)}, r"\[label\] judges, so it must have no position_noise.*\[train_label\]"),
        ({"label": LabelSettings("view", placebo="rounded")}, r"\[label\] judges, so it must have no placebo"),
        ({"train_label": LabelSettings("", heading_noise=float("nan"))}, r"heading_noise must be a finite number of degrees"),
        ({"train_label": LabelSettings("view", position_noise=-0.5)}, r"position_noise must be .*got -0.5"),
        ({"train_label": LabelSettings("", placebo="shufled")}, r"no placebo called 'shufled'. Did you mean 'shuffled'"),
        ({"train_label": LabelSettings("", {"fov": 60.0})}, r"\[train_label\] must name the rule"),
        (
            {"train_label": LabelSettings("", placebo="math:pi")},
            r"'math:pi' must be a function \(labels, \*, seed\) -> Labels; it is 3\.14",
        ),
        ({"train_label": LabelSettings("", placebo="covis.placebos:disturbed")}, r"'covis.placebos:disturbed' must return other labels"),
        ({"train_label": LabelSettings("distance", heading_noise=9.0)}, r"'distance' must have max_heading_difference"),
        ({"label": LabelSettings("distance"), "train_label": LabelSettings("", heading_noise=9.0)}, r"must have max_heading_difference"),
    ],
)
def test_what_a_recipe_may_not_say(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(CovisError, match=match):
        check_learning(replace(load_recipe("town"), **changes))


@pytest.mark.parametrize("name", ["shuffled-in-class", "averaged-in-class", "covis.placebos:shuffled_in_class"])
@pytest.mark.parametrize(
    ("train", "tables", "match"),
    [
        ({"sampler_options": {"threshold": 0.7}}, {}, r"threshold 0\.7 in \[train\.sampler_options\]"),
        ({}, {"teacher": {"train": {"sampler_options": {"threshold": 0.6}}}}, r"threshold 0\.6 in \[structure\.teacher\.train\."),
        ({}, {"student": {"train": {"sampler_options": {"threshold": 0.4}}}}, r"threshold 0\.4 in \[structure\.student\.train\."),
        ({"sampler": "triplets", "sampler_options": {"positive_threshold": 0.4}}, {}, r"positive_threshold 0\.4"),
        ({"sampler": "triplets", "sampler_options": {"negative_threshold": 0.1}}, {}, r"negative_threshold 0\.1"),
    ],
)
def test_classes_of_any_sampler_that_the_placebo_does_not_keep_are_refused(
    name: str, train: dict[str, Any], tables: dict[str, Any], match: str
) -> None:
    recipe = replace(load_recipe("town"), train_label=LabelSettings("", placebo=name))
    structure = StructureSettings("cityscapes-train" if tables else "", **tables)
    with pytest.raises(InvalidInputError, match=match):
        check_learning(replace(recipe, train=replace(recipe.train, **train), structure=structure))


def test_classes_that_stay_are_accepted() -> None:
    check_learning(replace(load_recipe("town"), train_label=LabelSettings("", placebo="covis.placebos:shuffled_in_class")))


def test_noise_without_a_rule_is_laid_over_the_rule_of_the_label() -> None:
    recipe = Recipe("r", label=LabelSettings("view", {"fov": 60.0}), train_label=LabelSettings("", heading_noise=9.0))
    assert training_label(recipe) == LabelSettings("view", {"fov": 60.0}, heading_noise=9.0)
    assert training_label(replace(recipe, train_label=LabelSettings(""))) == recipe.label


def test_labels_without_noise_have_the_card_of_before(town: list[Scene], tmp_path: Path) -> None:
    """What was labelled before there was noise still counts as done."""
    options = {"reach": 60.0, "relative_tolerance": 0.05, "step": 24}
    made = _materials(_asked(town, label=LabelSettings("surface", options)), town, tmp_path)
    for split in ("train", "test"):
        made.label(split)
        card = json.loads((tmp_path / "steps" / f"label-{split}.json").read_text())["settings"]["label"]
        assert card == {"rule": "surface", "options": options}
    assert label_card(LabelSettings(""), 3) == {"rule": "", "options": {}}
    worse = LabelSettings("view", placebo="rounded", heading_noise=2.0)
    assert label_card(worse, 3) == {"rule": "view", "options": {}, "heading_noise": 2.0, "placebo": "rounded", "seed": 3}


def test_cells_without_noise_have_the_settings_of_before(tmp_path: Path) -> None:
    arms = {"plain": {}, "noisy": {"train_label": {"position_noise": 5.0}}}
    given = sweeps._Given(None, None, None)
    sweeping = sweeps._Sweep(Study("s", "town", arms=arms), tmp_path, tmp_path / "out", given=given, overwrite=False, say=print)
    plain, noisy = (sweeping.settings(arm, 3)["recipe"] for arm in arms)
    assert plain["label"].keys() == plain["train_label"].keys() == {"rule", "options"}
    assert noisy["label"] == plain["label"]
    assert noisy["train_label"] == {"rule": "", "options": {}, "position_noise": 5.0, "seed": 3}


def test_training_labels_are_made_worse_and_those_that_judge_are_not(town: list[Scene], tmp_path: Path) -> None:
    worse = LabelSettings("view", {"reach": 30.0}, position_noise=2.0, heading_noise=5.0, placebo="shuffled")
    recipe = _asked(town, label=LabelSettings("view", {"reach": 30.0}), train_label=worse)
    recipe = replace(recipe, train=replace(recipe.train, seed=5))
    materials = _materials(recipe, town, tmp_path / "run")
    told = {"position_noise": 2.0, "heading_noise": 5.0, "noise_seed": 5, "placebo": "shuffled", "placebo_seed": 5}
    for scene, made in zip(materials.scenes("train"), materials.label("train"), strict=True):
        assert told.items() <= made.parameters.items()
        moved = disturbed_scene(scene, position_noise=2.0, heading_noise=5.0, seed=5)
        by_hand = PLACEBOS["shuffled"](label_by_view(moved.queries, moved.database, reach=30.0), seed=5)
        np.testing.assert_array_equal(made.matrix.toarray(), by_hand.matrix.toarray())
    for scene, made in zip(materials.scenes("test"), materials.label("test"), strict=True):
        assert not told.keys() & made.parameters.keys()
        np.testing.assert_array_equal(made.matrix.toarray(), label_by_view(scene.queries, scene.database, reach=30.0).matrix.toarray())
    other = replace(recipe, train=replace(recipe.train, seed=6))
    with pytest.raises(SettingsDifferError, match=r"label\.seed: 5 stored, 6 asked for"):
        _materials(other, town, tmp_path / "run").label("train")
    with pytest.raises(InvalidInputError, match=r"taken as they are, so \[train_label\] must have no position_noise"):
        _materials(recipe, town, tmp_path / "other", labels=tmp_path / "run" / "labels" / "train")


@pytest.mark.slow
def test_a_chain_learns_from_labels_made_worse(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """As above, through the door that is used."""
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, steps=1, seed=5), train_label=LabelSettings("", placebo="rounded"))
    train(recipe, tiny_world, out=tmp_path / "run")
    files = sorted((tmp_path / "run" / "labels" / "train").iterdir())
    assert [Labels.load(file).parameters["placebo"] for file in files] == ["rounded"] * 2


# --- on the command line ---


def test_the_command_makes_the_same_labels(town: list[Scene], tmp_path: Path) -> None:
    out = tmp_path / "l.npz"
    worse = ["--position-noise", "3", "--heading-noise", "8", "--placebo", "rounded", "--noise-seed", "4"]
    done = _label(town, out, "view", *worse)
    assert done.exit_code == 0, done.output
    by_hand = disturbed_labels(_read(town)[0], label_by_view, position_noise=3.0, heading_noise=8.0, placebo="rounded", seed=4)
    made = Labels.load(out)
    np.testing.assert_array_equal(made.matrix.toarray(), by_hand.matrix.toarray())
    assert made.parameters == by_hand.parameters


@pytest.mark.parametrize(
    ("rule", "given", "match"),
    [
        ("view", ["--placebo", "round"], r"no placebo called 'round'"),
        ("view", ["--placebo", "math:pi"], r"'math:pi' must be a function"),
        ("view", ["--placebo", "covis.placebos:disturbed"], r"must return other labels"),
        ("view", ["--overlap", "iuo"], r"iuo"),  # which shows in the first scene only
        ("distance", ["--heading-noise", "5"], r"must have max_heading_difference"),
        ("view", ["--noise-seed", "4"], r"--noise-seed must come with .* got 4 alone"),
        ("view", ["--noise-seed", "0"], r"--noise-seed must come with .* got 0 alone"),
    ],
)
def test_a_command_that_fails_before_its_first_labels_leaves_nothing(
    town: list[Scene], tmp_path: Path, rule: str, given: list[str], match: str
) -> None:
    refused = _label(town, tmp_path / "m", rule, *given)
    assert isinstance(refused.exception, CovisError), refused.output
    assert re.search(match, str(refused.exception))
    assert not list(tmp_path.iterdir())


def test_a_series_of_noises_may_begin_at_none(town: list[Scene], tmp_path: Path) -> None:
    done = _label(town, tmp_path / "l.npz", "distance", "--position-noise", "0", "--noise-seed", "4")
    assert done.exit_code == 0, done.output
    assert Labels.load(tmp_path / "l.npz").parameters == {"half": 25.0, "decay": "linear"}


def test_overwriting_that_was_killed_does_not_go_on_with_what_was_there(
    town: list[Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two scenes the second still had its old labels when the first was done anew."""
    here = _read(town)[0].database
    scenes = [Scene(name, "test", here, here) for name in ("first", "second")]
    given: dict[str, Any] = {"options": {"half": 10.0}, "worse": {}, "overwrite": True}
    data_commands._label(scenes, tmp_path, rule="distance", **{**given, "options": {"half": 40.0}})
    calls = []

    def stopped(queries: Images, database: Images, *, half: float = 25.0) -> Labels:
        calls.append(queries)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return label_by_distance(queries, database, half=half)

    monkeypatch.setitem(LABEL_RULES, "distance", stopped)
    with pytest.raises(KeyboardInterrupt):
        data_commands._label(scenes, tmp_path, rule="distance", **given)
    data_commands._label(scenes, tmp_path, rule="distance", **given)
    assert [Labels.load(tmp_path / f"{scene.name}.npz").parameters["half"] for scene in scenes] == [10.0, 10.0]
    assert len(calls) == 3, "the first went on"


def test_noise_lowers_what_depth_finds_in_common(town: list[Scene]) -> None:
    """By surface the poses err too: less surface agrees."""
    scene = replace(town[0], queries=town[0].queries.select(range(4)), database=town[0].database.select(range(8)))
    options = {"reach": 40.0, "relative_tolerance": 0.05, "step": 2}
    plain = label_by_surface(scene.queries, scene.database, **options)  # type: ignore[arg-type]
    noisy = disturbed_labels(scene, lambda a, b: label_by_surface(a, b, **options), position_noise=3.0)  # type: ignore[arg-type]
    assert noisy.matrix.sum() < plain.matrix.sum()


def test_checks_pass_what_is_right() -> None:
    check_changes(position_noise=5.0, heading_noise=0.0, placebo="shuffled", seed=0)
    check_changes(placebo=f"{__name__}:halved")
