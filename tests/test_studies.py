"""Studies: what a file may say, what is refused before a run, cells that resume, fail and are kept, and honest tables."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_cells import cell, drawn, scores
from scipy import sparse
from typer.testing import CliRunner

from covis import chain, cli, sweeps
from covis.cells import Cell, Training, read_log
from covis.comparison import compare
from covis.config import to_table, to_toml
from covis.descriptors import Descriptors
from covis.errors import (
    CovisError,
    CovisWarning,
    DamagedFileError,
    InvalidInputError,
    MissingFileError,
    OutputExistsError,
    SettingsDifferError,
    TrainingDivergedError,
    UnknownNameError,
)
from covis.files import write_json, write_text
from covis.images import Images, Scene
from covis.labels import Labels
from covis.reports import studies
from covis.reports.studies import Row, summarise
from covis.reports.study_tables import study_text
from covis.scores import Scores
from covis.settings import Recipe, TrainSettings
from covis.studies import Study, check_study, chosen, folder_name, load_study, study_names
from covis.sweeps import sweep
from covis.verification import check_loss_and_sampler

ARMS = {"gcl": {}, "contrastive": {"train": {"loss": "contrastive", "sampler": "binary"}}}


def study(**changes: Any) -> Study:
    return Study("tried", "town", **{"arms": ARMS, "seeds": (0, 1), "scores": ("trained",), "baseline": "contrastive", **changes})


# --- what a file may say ---


@pytest.mark.parametrize("name", study_names())
def test_shipped_studies_are_sound(name: str) -> None:
    one = load_study(name)
    recipes = check_study(one)
    assert list(recipes) == list(one.variants())
    assert len(recipes) >= 3
    assert one.description
    assert one.compared_with() in recipes
    changed = [to_table(replace(recipe, name="", description="")) for recipe in recipes.values()]
    assert len({json.dumps(table, sort_keys=True) for table in changed}) == len(recipes), "no two arms are the same"
    assert study_names() == sorted(
        [
            "aggregator",
            "backbone",
            "composition",
            "dimension",
            "labels",
            "latent",
            "loss",
            "margin",
            "quick",
            "structure",
            "structure-campus",
        ]
    )


def test_arms_are_laid_over_the_recipe() -> None:
    one = study(
        common={"train": {"steps": 7}}, arms={"as it is": {}, "other": {"train": {"loss": "triplet", "sampler": "triplets"}}}, baseline=""
    )
    recipes = one.recipes(layout="msls")
    assert [recipe.train.steps for recipe in recipes.values()] == [7, 7]
    assert recipes["as it is"].train.loss_options == {"margin": 0.5}
    assert recipes["other"].train.loss_options == {}, "the options of a renamed loss are gone"
    assert recipes["other"].data.layout == "msls"
    assert one.compared_with() == "as it is"


def test_a_grid_makes_an_arm_for_each_combination() -> None:
    one = study(arms={}, baseline="margin 0.5, batch 16", grid={"train.loss_options.margin": [0.3, 0.5], "train.batch": [8, 16]})
    assert list(one.variants()) == ["margin 0.3, batch 8", "margin 0.3, batch 16", "margin 0.5, batch 8", "margin 0.5, batch 16"]
    recipe = one.recipes()["margin 0.3, batch 16"]
    assert (recipe.train.loss_options["margin"], recipe.train.batch) == (0.3, 16)
    assert one.axis() is None
    names = study(arms={}, baseline="", grid={"model.aggregator": ["gem", "max"]})
    assert list(names.variants()) == ["aggregator gem", "aggregator max"]
    assert names.axis() is None
    assert load_study("margin").axis() == ("margin", {"margin 0.3": 0.3, "margin 0.5": 0.5, "margin 0.7": 0.7, "margin 1": 1.0})


def test_values_of_a_grid_that_look_alike_are_arms_of_their_own() -> None:
    one = study(arms={}, baseline="", grid={"train.learning_rate": [0.12345671, 0.12345672, 1e-5]})
    assert one.axis() == (
        "learning_rate",
        {"learning_rate 0.12345671": 0.12345671, "learning_rate 0.12345672": 0.12345672, "learning_rate 1e-05": 1e-5},
    )
    assert [recipe.train.learning_rate for recipe in one.recipes().values()] == [0.12345671, 0.12345672, 1e-5]


def test_a_file_and_its_recipe_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "town"\n[train]\nsteps = 3\n')
    path = tmp_path / "my study.toml"
    path.write_text('recipe = "mine.toml"\n[arms.one]\n[arms.two.train]\nsteps = 4\n')
    one = load_study(path)
    assert one.name == "my study"
    assert [recipe.train.steps for recipe in one.recipes().values()] == [3, 4]
    stored = tmp_path / "again.toml"
    stored.write_text(to_toml(one))
    assert load_study(stored).variants() == one.variants()


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ('recipe = "town"', InvalidInputError, r"must have arms, or a grid.*neither"),
        ('recipe = "town"\n[arms.a]\n[grid]\nx = [1]', InvalidInputError, r"must have arms, or a grid.*both"),
        ("[arms.a]", InvalidInputError, r"missing .*'recipe'"),
        ('recipe = "town"\nseed = [1]\n[arms.a]', InvalidInputError, r"no setting 'seed'. Did you mean 'seeds'"),
        ('recipe = "town"\nseeds = [1, 1]\n[arms.a]', InvalidInputError, r"seeds >= 0, each once"),
        ('recipe = "town"\nseeds = []\n[arms.a]', InvalidInputError, r"seeds >= 0, each once"),
        ('recipe = "town"\nseeds = [0.5]\n[arms.a]', InvalidInputError, r"seeds must be int"),
        ('recipe = "town"\nbaseline = "b"\n[arms.a]', InvalidInputError, r"there is no 'b'.*Known: a"),
        ('recipe = "town"\n[grid]\n"train.batch" = 4', InvalidInputError, r"must list values for train.batch; got 4"),
        (
            'recipe = "town"\n[grid]\n"train.batch" = [0.001, 1e-3]',
            InvalidInputError,
            r"values of train.batch in the grid must differ.*0.001",
        ),
        ('recipe = "town"\n[grid]\n"train.batch" = [1, 1.0]', InvalidInputError, r"1 and 1.0 are the same"),
        ('recipe = "town"\n[grid]\n"train.batch" = [3, "3"]', InvalidInputError, r"3 and '3' are the same"),
        ('recipe = "town"\n[arms."a/b"]\n[arms."a b"]', InvalidInputError, r"differ in their folders' names; 'a/b' and 'a b'"),
        ('recipe = "town"\n[arms', DamagedFileError, r"must be TOML"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, error: type[Exception], match: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(error, match=match):
        load_study(path)


def test_studies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'margin'"):
        load_study("margins")
    with pytest.raises(MissingFileError, match=r"must exist"):
        load_study(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train": {"loss": "gclx"}}, r"no loss called 'gclx'"),
        ({"train": {"loss_options": {"edge": 1}}}, r"does not take the options.*edge"),
        ({"train": {"sampler": "none"}}, r"no sampler called"),
        ({"train": {"sampler_options": {"shares": 1}}}, r"shares is none of"),
        ({"train": {"steps": 0}}, r"steps must be finite and at least 1"),
        ({"train": {"sampler": "triplets"}}, r"'gcl' and the sampler 'triplets' do not go together.*the sampler draws lists"),
        ({"train": {"loss": "triplet"}}, r"'triplet' and the sampler 'graded' do not go together"),
        ({"train": {"stepz": 1}}, r"no setting 'stepz'"),
        ({"train": {"seed": 3}}, r"train.seed must not be set; the study's seeds are run"),
        ({"model": {"backbone": "resnet1"}}, r"no model called 'resnet1'"),
        ({"model": {"aggregator": "gemm"}}, r"no aggregator called 'gemm'"),
        ({"train_label": {"rule": "views"}}, r"no label rule called 'views'"),
        ({"train_label": {"rule": "view", "options": {"far": 1}}}, r"far is none of"),
        (
            {"label": {"options": {"reach": 9.0}}},
            r"\[label\] differs from that of 'gcl'. Labels for training alone are set in \[train_label\]",
        ),
        ({"evaluate": {"k": 30}}, r"\[evaluate\] differs"),
        ({"data": {"test": "cph"}}, r"data.test differs"),
        ({"whiten": {"dim": -1}}, r"dim must be >= 0"),
        (3, r"must be a table"),
    ],
)
def test_an_arm_that_cannot_be_run_is_named_before_anything_starts(changes: Any, match: str, tmp_path: Path) -> None:
    wrong = study(arms={"gcl": {}, "the wrong one": changes}, baseline="")
    with pytest.raises(CovisError, match=match) as refused:
        sweep(wrong, tmp_path / "no data", out=tmp_path / "out")
    assert "'the wrong one'" in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"metric": "AP"}, r"a value a query under graded/0.5; 'AP' is none"),
        ({"metric": "recall@7"}, r"'recall@7' is none"),
        ({"metric": "rank-correlation@5"}, r"'rank-correlation@5' depends on what was found.*name it in `also`"),
        ({"common": {"train": {"seed": 3}}}, r"\[common\]: train.seed must not be set"),
        ({"also": ("recal@5",)}, r"Did you mean 'recall@5'"),
        ({"scores": ("trainted",)}, r"must score some of tiny"),
        ({"protocol": "graded/2"}, r"."),
        ({"recipe": "towns"}, r"Did you mean 'town'"),
    ],
)
def test_what_cannot_be_judged_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(CovisError, match=match):
        check_study(replace(study(), **changes))


@pytest.mark.parametrize("metric", ["recall@5", "mAP@5", "graded-recall@1", "nDCG@5"])
def test_what_labels_define_can_be_compared_and_the_rest_shown(metric: str) -> None:
    assert check_study(replace(study(), metric=metric, also=("rank-correlation@5",)))


def test_loss_and_sampler_of_every_kind_are_tried_without_data() -> None:
    check_loss_and_sampler(TrainSettings(loss="triplet", sampler="triplets", sampler_options={"negatives": 200}, batch=100))
    for sampler in ("graded", "binary", "soft-negative-free"):
        check_loss_and_sampler(TrainSettings(sampler=sampler, loss="contrastive", loss_options={}, batch=64))


def test_arms_can_be_chosen() -> None:
    assert chosen(study(), ["contrastive"]) == ["contrastive"]
    assert chosen(study(), None) == ["gcl", "contrastive"]
    with pytest.raises(UnknownNameError, match=r"Did you mean 'gcl'"):
        chosen(study(), ["gcll"])
    assert folder_name("../up") == "up"
    assert folder_name("ψ") == "arm"


# --- cells ---


def test_a_cell_survives_the_disk(tmp_path: Path, refuses_every_cut: Callable[..., None]) -> None:
    hits = drawn(0.5, 0)
    hits[3] = np.nan
    one = cell("gcl", 1, {"trained": hits, "whitened": drawn(0.6, 0)})
    again = Cell.load(one.save(tmp_path / "cell"))
    assert (again.arm, again.seed, again.settings, again.state, again.training, again.data) == (
        one.arm, one.seed, one.settings, one.state, one.training, one.data,
    )  # fmt: skip
    np.testing.assert_array_equal(again.scores["trained"].per_query["recall@1"], hits)
    np.testing.assert_equal(again.latent["whitened"].as_dict(), one.latent["whitened"].as_dict())
    refuses_every_cut(tmp_path / "cell" / "cell.json", lambda: Cell.load(tmp_path / "cell"), harmless=1)
    (tmp_path / "cell" / "whitened.json").unlink()
    with pytest.raises(MissingFileError, match=r"whitened\.json"):
        Cell.load(tmp_path / "cell")
    failed = Cell("gcl", 1, {}, "failed", "why")
    assert Cell.load(failed.save(tmp_path / "failed")).message == "why"


def test_what_a_log_says(tmp_path: Path) -> None:
    rows = [f"{step},0.1,{0.5 if step < 190 else 0.25},0.001,{step / 10}" for step in range(10, 201, 10)]
    write_text(tmp_path / "log.csv", "\n".join(["step,loss,null,learning_rate,seconds", *rows]) + "\n")
    assert read_log(tmp_path / "log.csv", steps=200, batch=8) == Training(200, 1600, 20.0, 0.25)
    write_text(tmp_path / "log.csv", "step,loss\n10,0.1\n")
    assert np.isnan(read_log(tmp_path / "log.csv", steps=10, batch=8).null)


# --- numbers ---


def made(shares: dict[str, float], seeds: tuple[int, ...] = (0, 1, 2)) -> list[Cell]:
    return [cell(arm, seed, {"trained": drawn(share, seed)}) for arm, share in shares.items() for seed in seeds]


def of(cells: list[Cell], baseline: str = "a", **changes: Any) -> dict[str, Row]:
    arms = list(dict.fromkeys(one.arm for one in cells))
    return {row.arm: row for row in summarise(cells, arms=arms, baseline=baseline, metric="recall@1", **changes).rows}


def test_rows_are_those_of_plain_numpy() -> None:
    cells = made({"a": 0.4, "b": 0.6})
    rows = of(cells, also=["AP"])
    values = {arm: [one.scores["trained"].metrics["recall@1"].value for one in cells if one.arm == arm] for arm in "ab"}
    for arm, row in rows.items():
        assert list(row.values.values()) == values[arm]
        assert row.metric.value == pytest.approx(np.mean(values[arm]))
        assert row.spread == pytest.approx(np.std(values[arm], ddof=1))
        assert row.metric.low < row.metric.value < row.metric.high
        assert row.also["AP"] == pytest.approx(np.mean(values[arm]) / 2)
    difference = rows["b"].difference
    assert difference is not None
    assert difference.difference == pytest.approx(np.mean(values["b"]) - np.mean(values["a"]))
    assert list(rows["b"].by_seed.values()) == pytest.approx(np.array(values["b"]) - np.array(values["a"]))
    pooled = [scores(np.mean([one.scores["trained"].per_query["recall@1"] for one in cells if one.arm == arm], axis=0)) for arm in "ab"]
    again = compare(*pooled, metrics=["recall@1"]).differences["recall@1"]
    assert (difference.low, difference.high, difference.p) == (again.low, again.high, again.p)
    assert rows["a"].difference is None
    assert rows["a"].verdict == ""


def test_the_interval_of_one_seed_is_that_of_its_queries() -> None:
    one, three = (of(made({"a": 0.5}, seeds)) for seeds in ((0,), (0, 1, 2)))
    assert np.isnan(one["a"].spread)
    assert three["a"].metric.high - three["a"].metric.low < one["a"].metric.high - one["a"].metric.low


@pytest.mark.parametrize(
    ("shares", "seeds", "verdict"),
    [
        ({"a": 0.3, "b": 0.7}, (0, 1, 2), "higher"),
        ({"a": 0.7, "b": 0.3}, (0, 1, 2), "lower"),
        ({"a": 0.5, "b": 0.51}, (0, 1, 2), "cannot be told apart"),
        ({"a": 0.3, "b": 0.7}, (0,), "higher, one seed"),
    ],
)
def test_verdicts(shares: dict[str, float], seeds: tuple[int, ...], verdict: str) -> None:
    assert of(made(shares, seeds))["b"].verdict == verdict


def test_seeds_that_disagree_leave_two_arms_not_told_apart() -> None:
    """Over the queries the difference is plain, with one seed it is the other way round."""
    cells = [cell("a", seed, {"trained": drawn(0.4, seed)}) for seed in (0, 1, 2)]
    cells += [cell("b", seed, {"trained": drawn(0.9 if seed else 0.3, seed)}) for seed in (0, 1, 2)]
    row = of(cells)["b"]
    assert row.difference is not None
    assert row.difference.low > 0
    assert row.verdict == "cannot be told apart: seeds disagree"


def test_arms_of_the_same_cells_are_never_told_apart() -> None:
    cells = made({"a": 0.5, "b": 0.5})
    row = of(cells)["b"]
    assert row.difference is not None
    assert (row.difference.difference, row.difference.p, row.verdict) == (0.0, 1.0, "cannot be told apart")


def test_seeds_pair_and_those_without_a_partner_are_left_out() -> None:
    cells = [*made({"a": 0.4}, (0, 1)), *made({"b": 0.6}, (1, 2))]
    row = of(cells)["b"]
    assert list(row.values) == [1, 2]
    assert list(row.by_seed) == [1]
    assert of(made({"b": 0.6}, (1,)))["b"].difference is None, "no baseline, no difference"


def test_the_table_says_what_was_not_tested() -> None:
    def text(seeds: tuple[int, ...]) -> str:
        cells = made({"a": 0.3, "b": 0.7}, seeds)
        return study_text(summarise(cells, arms=["a", "b"], baseline="a", metric="recall@1", title="tried: it", recipe="town"))

    one, three = text((0,)), text((0, 1, 2))
    assert "One seed: whether another seed of the training would show the same was not tested." in one
    assert "higher, one seed" in one
    assert "3 seeds agree by chance alone in 25% of cases" in three
    assert "120 of 120 queries counted" in three
    assert "24 blocks of 5 consecutive frames" in three
    assert "graded/0.5\n  asked" in three
    assert "Spearman(d, psi) trained" in three
    assert "nan" not in three


def test_cells_on_other_data_are_said_and_other_queries_refused() -> None:
    cells = made({"a": 0.3, "b": 0.7})
    moved = [*cells[:-1], replace(cells[-1], data={"test": "other"})]
    assert "Cells were run on data whose images" in study_text(summarise(moved, arms=["a", "b"], baseline="a", metric="recall@1"))
    other = [*cells[:-1], replace(cells[-1], scores={"trained": scores(drawn(0.5, 0, 60))})]
    with pytest.raises(InvalidInputError, match=r"must be asked the same queries.*'b' are not"):
        summarise(other, arms=["a", "b"], baseline="a", metric="recall@1")
    with pytest.raises(InvalidInputError, match=r"needs a cell that is done"):
        summarise([], arms=["a"], baseline="a", metric="recall@1")
    with pytest.raises(InvalidInputError, match=r"must have mAP@1 a query"):
        summarise(cells, arms=["a"], baseline="a", metric="mAP@1")


def test_a_metric_of_other_queries_with_another_seed_is_refused() -> None:
    """The mean over the seeds would be of other queries in each."""
    hits = drawn(0.5, 0)
    hits[3] = np.nan
    cells = [*made({"a": 0.3}), cell("b", 0, {"trained": hits})]
    with pytest.raises(InvalidInputError, match=r"recall@1 of the same queries.*'b' lack other ones"):
        of(cells)
    same = [cell(arm, seed, {"trained": np.where(np.isnan(hits), np.nan, drawn(0.5, seed))}) for arm in "ab" for seed in (0, 1)]
    assert of(same)["a"].metric.n == len(hits) - 1


def test_without_a_baseline_the_table_says_so() -> None:
    summary = summarise(made({"b": 0.6}), arms=["a", "b"], baseline="a", metric="recall@1")
    assert "no differences: the baseline 'a' has no finished cell" in study_text(summary)
    both = summarise(made({"a": 0.5, "b": 0.6}), arms=["a", "b"], baseline="a", metric="recall@1")
    assert "no differences" not in study_text(both)


# --- sweeps, with a chain that only leaves files ---


class Chain:
    """Stands for `covis.chain.run`: counts its calls, leaves what a run leaves, fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.overwrites: list[bool] = []
        self.failing: dict[tuple[str, int], BaseException] = {}

    def __call__(self, recipe: Recipe, data: Any, *, out: Path, arms: tuple[str, ...], overwrite: bool, **_: Any) -> None:
        key = recipe.train.loss, recipe.train.seed
        self.overwrites.append(overwrite)
        self.calls.append(key)
        if key in self.failing:
            raise self.failing[key]
        for arm in arms:
            share = 0.7 if recipe.train.loss == "gcl" else 0.3
            scores(drawn(share, recipe.train.seed)).save(out / "scores" / arm / "graded-0.5.json", overwrite=True)
        random = np.random.default_rng(recipe.train.seed)
        sides = [
            Descriptors(random.random((5, 3), dtype=np.float32), tuple(f"{side}{row}" for row in range(5)), model="m") for side in "qd"
        ]
        for arm in arms:
            for side, one in zip(("queries", "database"), sides, strict=True):
                one.save(out / "descriptors" / arm / "here" / side, overwrite=True)
        labels = Labels(sparse.csr_array(random.random((5, 5))), sides[0].names, sides[1].names, rule="r")
        labels.save(out / "labels" / "test" / "here.npz", overwrite=True)
        for side in ("train", "test"):
            write_json(out / "steps" / f"read-{side}.json", {"settings": {"contents": {"here": ["x"]}}})
        write_text(out / "train" / "log.csv", "step,loss,null,learning_rate,seconds\n10,0.1,0.5,0.1,3\n")


@pytest.fixture
def runs(drawing_runs: Chain, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Without figures, which take longer than all the rest."""
    monkeypatch.setattr(sweeps._Sweep, "draw", lambda *_: [])
    return drawing_runs


def asked_of(layout: str, root: Path, **_: Any) -> list[Scene]:
    """A scene for the folder's name, as a reader gives it."""
    sides = [Images(names=tuple(f"{root.name} {side}{row}.png" for row in range(3)), root=root) for side in "qd"]
    return [Scene("here", "test", *sides)]


@pytest.fixture
def drawing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    made = Chain()
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    monkeypatch.setattr(sweeps, "read", asked_of)
    monkeypatch.setattr(chain, "run", made)
    monkeypatch.setattr(studies, "SAMPLES", 500)
    return made


def contents(out: Path) -> dict[str, bytes]:
    """The results and the cells."""
    files = [path for path in out.rglob("*") if path.is_file() and (path.parent == out or "cells" in path.parts)]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_a_sweep_leaves_its_cells_tables_and_pictures(drawing_runs: Chain, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = drawing_runs
    said: list[str] = []
    result = sweep(study(), "data", out=tmp_path / "out", say=said.append)
    assert runs.calls == [("gcl", 0), ("contrastive", 0), ("gcl", 1), ("contrastive", 1)], "seed by seed"
    assert "[2/4] contrastive, seed 0" in said
    assert {path.name for path in result.files} == {"table.txt", "table.csv", "plot.png", "latent.png"}
    assert result.summary is not None
    assert [(row.arm, row.verdict) for row in result.summary.rows] == [("gcl", "higher"), ("contrastive", "")]
    assert (tmp_path / "out" / "table.txt").read_text().rstrip() == str(result).rstrip()
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ["gcl", "contrastive"]
    assert float(rows[0]["difference"]) > 0.2
    assert rows[1]["difference"] == ""
    assert load_study(tmp_path / "out" / "study.toml").variants() == study().variants()
    assert (tmp_path / "out" / "gcl" / "1" / "scores").is_dir()
    json.dumps(result.as_dict(), allow_nan=False)


def test_a_finished_sweep_needs_neither_data_nor_run_folders(drawing_runs: Chain, tmp_path: Path) -> None:
    runs = drawing_runs
    out = tmp_path / "out"
    sweep(study(), "data", out=out)
    before = contents(out)
    for folder in ("gcl", "contrastive"):
        shutil.rmtree(out / folder)
    for name in ("table.txt", "table.csv", "plot.png", "latent.png"):
        (out / name).unlink(missing_ok=True)
    runs.calls.clear()
    sweep(study(), tmp_path / "gone", out=out)
    assert not runs.calls
    assert contents(out) == before


def test_a_killed_sweep_goes_on_and_ends_the_same(runs: Chain, tmp_path: Path) -> None:
    sweep(study(), "data", out=tmp_path / "whole")
    runs.failing["gcl", 1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sweep(study(), "data", out=tmp_path / "out")
    assert Cell.load(tmp_path / "out" / "cells" / "gcl" / "1").state == "begun"
    assert "higher, one seed" in (tmp_path / "out" / "table.txt").read_text(), "what was known after the first seed is there"
    runs.failing.clear()
    runs.calls.clear()
    sweep(study(), "data", out=tmp_path / "out")
    assert runs.calls == [("gcl", 1), ("contrastive", 1)]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_cell_that_fails_is_named_and_the_rest_goes_on(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs.failing = {
        ("gcl", 0): TrainingDivergedError("At step 3 the loss is nan."),
        ("contrastive", 1): ZeroDivisionError("odd, of two lines\nsecond line"),
    }
    result = sweep(study(), "data", out=out)
    assert len(runs.calls) == 4
    assert result.failed == {
        ("gcl", 0): "TrainingDivergedError: At step 3 the loss is nan.",
        ("contrastive", 1): "ZeroDivisionError: odd, of two lines\nsecond line",
    }
    assert "failed: gcl, seed 0: TrainingDivergedError" in str(result)
    table = (out / "table.txt").read_text()
    assert "Not in the table, for it failed: gcl, seed 0: TrainingDivergedError: At step 3 the loss is nan.\n" in table
    assert "Not in the table, for it failed: contrastive, seed 1: ZeroDivisionError: odd, of two lines" in table
    assert "second line" not in table
    assert "not done" not in table
    assert "by_seed" not in str(result)
    more = sweep(study(), "data", out=out, seeds=[0, 1, 2], only=["gcl"])
    assert more.summary is not None
    assert more.summary.notes[-1] == "Not in the table, for they are not done: contrastive, seed 2."
    runs.failing.clear()
    runs.calls.clear()
    assert not sweep(study(), "data", out=out).failed
    assert runs.calls == [("gcl", 0), ("contrastive", 1)], "failed cells are tried again"


def test_a_failed_cell_is_run_with_corrected_settings(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs.failing = {("gcl", 0): TrainingDivergedError("nan")}
    sweep(study(), "data", out=out)
    mended = study(arms={**ARMS, "gcl": {"train": {"learning_rate": 1e-4}}})
    with pytest.raises(SettingsDifferError, match=r"'gcl', seed 1"):
        sweep(mended, "data", out=out)
    runs.overwrites.clear()
    runs.failing = {("gcl", 0): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        sweep(mended, "data", out=out, seeds=[0])
    runs.failing.clear()
    assert not sweep(mended, "data", out=out, seeds=[0]).failed
    assert runs.overwrites == [True, True], "what the failed one began does not block, even where its next run was killed"
    assert Cell.load(out / "cells" / "gcl" / "0").message == ""
    with pytest.raises(SettingsDifferError, match=r"'gcl', seed 0"):
        sweep(study(), "data", out=out, seeds=[0])


def test_other_data_stop_before_anything_runs(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(study(), "data", out=out, seeds=[0])
    (tmp_path / "other").mkdir()
    (tmp_path / "copy" / "data").mkdir(parents=True)
    runs.calls.clear()
    for changes in ({"seeds": [0]}, {"seeds": [0, 1]}, {"seeds": [0, 1], "only": ["gcl"]}):
        with pytest.raises(SettingsDifferError, match=r"'gcl', seed 0.*was asked the queries and databases of other data than other"):
            sweep(study(), "other", out=out, **changes)
    assert not runs.calls
    sweep(study(), tmp_path / "copy" / "data", out=out, seeds=[0])
    assert not runs.calls, "a moved copy is the same data"
    sweep(study(), "other", out=out, seeds=[0], overwrite=True)
    assert len(runs.calls) == 2
    said: list[str] = []
    sweep(study(), "gone", out=out, seeds=[0], say=said.append)
    assert any("gone is not there: it was not looked" in line for line in said)


def test_data_that_cannot_be_read_are_refused_where_a_cell_is_open(runs: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match=r"there is no gone"):
        sweep(study(), "gone", out=tmp_path / "out")
    assert not runs.calls
    assert not (tmp_path / "out").exists()
    sweep(study(), "data", out=tmp_path / "out")

    def damaged(*_: Any, **__: Any) -> list[Scene]:
        raise DamagedFileError("poses.csv must be text.")

    monkeypatch.setattr(sweeps, "read", damaged)
    said: list[str] = []
    sweep(study(), "data", out=tmp_path / "out", say=said.append)
    assert any("cannot be read: poses.csv must be text" in line for line in said)
    with pytest.raises(DamagedFileError, match=r"poses.csv"):
        sweep(study(), "data", out=tmp_path / "out", seeds=[7])


def test_where_all_cells_fail_there_is_no_table(runs: Chain, tmp_path: Path) -> None:
    runs.failing = {(loss, seed): InvalidInputError("no") for loss in ("gcl", "contrastive") for seed in (0, 1)}
    result = sweep(study(), "data", out=tmp_path / "out")
    assert result.summary is None
    assert result.files == ()
    assert len(result.failed) == 4


def test_only_some_arms_and_other_seeds(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = sweep(study(), "data", out=out, only=["gcl"], seeds=[5])
    assert runs.calls == [("gcl", 5)]
    assert first.summary is not None
    assert [row.arm for row in first.summary.rows] == ["gcl"]
    second = sweep(study(), "data", out=out, only=["contrastive"], seeds=[5])
    assert second.summary is not None
    assert [row.arm for row in second.summary.rows] == ["gcl", "contrastive"], "the table shows all that are done"
    with pytest.raises(UnknownNameError, match=r"no arm of the study 'tried' called 'x'"):
        sweep(study(), "data", out=out, only=["x"])


def test_other_settings_stop_before_anything_runs(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(study(), "data", out=out)
    runs.calls.clear()
    changed = study(common={"train": {"steps": 5}})
    with pytest.raises(SettingsDifferError, match=r"'gcl', seed 0.*recipe\.train\.steps 2000 there, 5 now"):
        sweep(changed, "data", out=out)
    assert not runs.calls
    sweep(changed, "data", out=out, overwrite=True)
    assert len(runs.calls) == 4
    described = replace(study(common={"train": {"steps": 5}}), name="renamed", description="other words", metric="recall@1", seeds=(0,))
    runs.calls.clear()
    sweep(described, "data", out=out)
    assert not runs.calls, "names and seeds are no settings"


def test_a_run_folder_with_other_settings_is_no_failed_cell(runs: Chain, tmp_path: Path) -> None:
    runs.failing["gcl", 0] = SettingsDifferError("the step 'train' differs")
    with pytest.raises(SettingsDifferError, match=r"The cell 'gcl', seed 0: the step 'train' differs"):
        sweep(study(), "data", out=tmp_path / "out")


@pytest.mark.usefixtures("runs")
def test_a_damaged_cell_says_what_to_remove(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(study(), "data", out=out)
    (out / "cells" / "gcl" / "0" / "trained.json").unlink()
    with pytest.raises(MissingFileError, match=r"Or remove .*gcl/0: the cell 'gcl', seed 0, is then run again"):
        sweep(study(), "data", out=out)
    (out / "cells" / "gcl" / "0" / "cell.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"Or remove .*gcl/0"):
        sweep(study(), "data", out=out)
    shutil.rmtree(out / "cells" / "gcl" / "0")
    assert not sweep(study(), "data", out=out).failed
    with pytest.raises(OutputExistsError, match=r"must be a folder"):
        sweep(study(), "data", out=out / "table.txt")


def test_an_arm_or_a_descriptor_that_is_added_is_run_alone(runs: Chain, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(study(), "data", out=out)
    runs.calls.clear()
    sweep(study(arms={**ARMS, "more": {"train": {"batch": 16}}}), "data", out=out)
    assert runs.calls == [("gcl", 0), ("gcl", 1)]
    runs.calls.clear()
    result = sweep(study(scores=("trained", "untrained")), "data", out=out)
    assert len(runs.calls) == 4, "the runs go on where they were"
    assert result.summary is not None
    assert {row.descriptor for row in result.summary.rows} == {"trained", "untrained"}


@pytest.mark.usefixtures("drawing_runs")
def test_without_the_extra_there_are_tables_and_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(CovisWarning, match=r"covis\[plots\]"):
        result = sweep(study(), "data", out=tmp_path / "out")
    assert {path.name for path in result.files} == {"table.txt", "table.csv"}


def test_the_command(runs: Chain, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'recipe = "town"\nseeds = [0, 1]\nscores = ["trained"]\nbaseline = "b"\n[arms.a]\n[arms.b.train]\nloss = "contrastive"\n'
    )
    call = ["sweep", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, [*call, "--seeds", "0", "--only", "a"])
    assert done.exit_code == 0, done.output
    assert runs.calls == [("gcl", 0)]
    done = CliRunner().invoke(cli.app, [*call, "--json"])
    found = json.loads(done.stdout)
    assert [row["arm"] for row in found["rows"]] == ["a", "b"]
    assert found["failed"] == []
    runs.failing["gcl", 7] = TrainingDivergedError("nan")
    done = CliRunner().invoke(cli.app, [*call, "--seeds", "7"])
    assert done.exit_code == 1
    assert "failed: a, seed 7: TrainingDivergedError: nan" in done.stderr
    done = CliRunner().invoke(cli.app, [*call, "--seeds", "one"])
    assert isinstance(done.exception, InvalidInputError)
    assert "--seeds must be whole numbers" in str(done.exception)


# --- sweeps, for real ---


def tiny_study(tiny_recipe: Recipe, folder: Path) -> Path:
    write_text(folder / "tiny.toml", to_toml(tiny_recipe))
    path = folder / "study.toml"
    path.write_text(
        'recipe = "tiny.toml"\nseeds = [0, 1]\nbaseline = "contrastive"\nalso = ["AP"]\n[arms.gcl]\n'
        '[arms.contrastive.train]\nloss = "contrastive"\nsampler = "binary"\n'
        '[arms.diverges.train]\nlearning_rate = 1e30\noptimizer = "sgd"\nmomentum = 0.0\n'
    )
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_real_sweep_killed_and_gone_on(tiny_recipe: Recipe, tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_study(tiny_recipe, tmp_path)
    whole = sweep(path, tiny_world, out=tmp_path / "whole")
    assert set(whole.failed) == {("diverges", 0), ("diverges", 1)}
    assert all(message.startswith("TrainingDivergedError") for message in whole.failed.values())
    assert whole.summary is not None
    assert {row.arm for row in whole.summary.rows} == {"gcl", "contrastive"}
    assert {row.descriptor for row in whole.summary.rows} == {"trained", "whitened"}
    assert all(-1 <= value <= 1 for effort in whole.summary.efforts for value in effort.spearman.values())

    real, calls = chain.evaluate, iter(range(100))

    def killed(*arguments: Any, **options: Any) -> Scores:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(chain, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(path, tiny_world, out=tmp_path / "out", only=["gcl", "contrastive"])
    monkeypatch.undo()
    sweep(path, tiny_world, out=tmp_path / "out", only=["gcl", "contrastive"])
    for arm in ("gcl", "contrastive"):
        for seed in (0, 1):
            one, other = (Cell.load(tmp_path / out / "cells" / arm / str(seed)) for out in ("whole", "out"))
            for name in ("trained", "whitened"):
                np.testing.assert_array_equal(one.scores[name].per_query["recall@1"], other.scores[name].per_query["recall@1"])
                np.testing.assert_equal(one.latent[name].as_dict(), other.latent[name].as_dict())


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.jpg"])
def test_latent_writes_png_alone(tmp_path: Path, name: str) -> None:
    call = ["latent", str(tmp_path), "--descriptors", str(tmp_path), "--labels", str(tmp_path), "--out", str(tmp_path / name)]
    done = CliRunner().invoke(cli.app, call)
    assert isinstance(done.exception, InvalidInputError)
    assert "must be a picture ending in .png" in str(done.exception)
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_latent_on_the_descriptors_of_a_run(tiny_run: Path, tiny_world: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    call = ["latent", str(tiny_world), "--layout", "7scenes", "--labels", str(tiny_run / "labels" / "test"), "--json", "--margin", "0.5"]
    call += ["--descriptors", str(tiny_run / "descriptors" / "trained"), "--descriptors", str(tiny_run / "descriptors" / "untrained")]
    done = CliRunner().invoke(cli.app, [*call, "--out", str(tmp_path / "latent.png")])
    assert done.exit_code == 0, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert len(found["relations"]) == 2
    assert Path(found["picture"]).stat().st_size > 10_000
    done = CliRunner().invoke(cli.app, [*call, "--out", str(tmp_path / "latent.png")])
    assert "already there" in str(done.exception)
