"""The evidence: records, the arithmetic of verdicts by hand, the plan, and a quick run of all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from covis.errors import DamagedFileError, InvalidInputError, SettingsDifferError, UnknownNameError
from evidence.__main__ import main
from evidence.plan import HERE, Source, load_plan
from evidence.records import Asked, Record, Scored, Store
from evidence.running import Places, differing, open_cells, prepare, settings
from evidence.verdicts import Claim, Estimate, Test, estimate, judge, mean_interval, verdict
from tests.made_cells import drawn, scores

UNITS = np.arange(120) * 24 // 120


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cells")


def asked(store: Store, units: np.ndarray = UNITS) -> str:
    night = np.arange(len(units)) % 3 == 0
    return store.keep(Asked(tuple(f"q{row}" for row in range(len(units))), units, "sequences", {"night": night, "day": ~night}))


def record(store: Store, arm: str, seed: int, hits: np.ndarray, *, name: str = "trained", **values: float) -> Record:
    one = Record("s", arm, seed, {name: Scored(asked(store, UNITS), {"recall@1": hits}, values)}, {"null": values.get("null", 0.0)})
    before = store.known("s", arm, seed)
    one = one if before is None else replace(one, scored={**before.scored, **one.scored})
    store.save(one)
    return one


# --- records


def test_a_record_is_read_as_it_was_written(store):
    hits = np.array([1, 0, np.nan] * 40)
    scored = Scored(asked(store), {"recall@1": hits}, {"AP": 0.25, "Spearman": float("nan")}, (0.5, 0.25))
    store.save(Record("s", "GCL, 5 m", 3, {"trained": scored}, {"seconds": 2.0}, {"recipe": {"steps": 3}}, "a machine"))
    found = store.records("s")["GCL, 5 m"][3]
    np.testing.assert_array_equal(found.scored["trained"].hits["recall@1"], hits)
    assert found.scored["trained"].values["AP"] == 0.25
    assert np.isnan(found.scored["trained"].values["Spearman"])
    assert found.scored["trained"].distances == (0.5, 0.25)
    assert (found.training, found.settings, found.machine) == ({"seconds": 2.0}, {"recipe": {"steps": 3}}, "a machine")


def test_what_was_asked_is_kept_once_and_read_again(store):
    key = asked(store)
    assert asked(store) == key
    assert [path.stem for path in (store.folder / "asked").iterdir()] == [key]
    found = store.asked(key)
    assert found.groups["night"].sum() == 40
    np.testing.assert_array_equal(found.units, UNITS)
    assert asked(store, np.arange(120)) != key


def test_scores_are_condensed_to_hits_and_means():
    one = Scored.of(scores(drawn(0.5, 1)), "key")
    assert set(one.hits) == {"recall@1"}
    assert one.values == {"AP": pytest.approx(drawn(0.5, 1).mean() / 2)}


def test_values_that_are_no_hits_are_not_kept_as_hits(store):
    with pytest.raises(ValueError, match="0, 1 or NaN"):
        store.save(Record("s", "a", 0, {"trained": Scored(asked(store), {"recall@1": np.full(120, 0.5)})}))


@pytest.mark.parametrize("damage", [lambda text: text[:-30], lambda text: text.replace('"scored"', '"scored_"'), lambda text: "[]"])
def test_a_damaged_record_is_named(store, damage):
    path = store.save(Record("s", "a", 0, {"trained": Scored(asked(store), {"recall@1": drawn(0.5, 1)})}))
    path.write_text(damage(path.read_text()))
    with pytest.raises(DamagedFileError, match=r"0\.json"):
        store.records("s")


# --- verdicts


def test_a_difference_over_seeds_and_queries(store):
    for seed in range(4):
        record(store, "a", seed, drawn(0.4, seed))
        record(store, "b", seed, drawn(0.7, seed))
    found = estimate(Test("s", "b", "a"), store.records("s"), store)
    each = [drawn(0.7, seed).mean() - drawn(0.4, seed).mean() for seed in range(4)]
    assert found.difference == pytest.approx(np.mean(each))
    assert list(found.by_seed.values()) == pytest.approx(each)
    assert found.low < found.difference < found.high
    assert (found.queries, found.units) == (120, 24)
    assert verdict(Test("s", "b", "a"), found) == "holds"
    assert verdict(Test("s", "b", "a", expect="lower"), found) == "does not hold"


def test_seeds_that_disagree_widen_the_interval(store):
    """Queries alone would be sure: every query of one seed is won, every query of another is lost."""
    for seed, (a, b) in enumerate([(0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 1.0)]):
        record(store, "a", seed, np.full(120, a))
        record(store, "b", seed, np.full(120, b))
    found = estimate(Test("s", "b", "a"), store.records("s"), store)
    assert found.difference == 0.5
    assert found.low <= 0 < found.high
    assert verdict(Test("s", "b", "a"), found) == "cannot be told apart"


def test_the_interval_is_that_of_a_bootstrap_written_out():
    values = np.stack([drawn(0.5, seed) for seed in range(3)])
    values[:, ::7] = np.nan
    random, means = np.random.default_rng(5), []
    for _ in range(4000):
        rows = values[random.integers(3, size=3)].mean(axis=0)
        rows = values.mean(axis=0) + (rows - values.mean(axis=0)) * np.sqrt(3 / 2)
        columns = np.concatenate([np.flatnonzero(unit == UNITS) for unit in random.integers(24, size=24)])
        means.append(np.nanmean(rows[columns]))
    assert mean_interval(values, UNITS) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.012)


def test_only_seeds_that_both_have_count(store):
    for seed in (0, 1):
        record(store, "a", seed, drawn(0.4, seed))
    for seed in (1, 2):
        record(store, "b", seed, drawn(0.6, seed))
    assert list(estimate(Test("s", "b", "a"), store.records("s"), store).by_seed) == [1]
    assert estimate(Test("s", "b", "c"), store.records("s"), store) is None
    assert verdict(Test("s", "b", "c"), None) == "not run"


def test_sides_that_were_asked_other_queries_are_not_paired(store):
    record(store, "a", 0, drawn(0.4, 0))
    other = Scored(asked(store, np.arange(120)), {"recall@1": drawn(0.6, 0)})
    store.save(Record("s", "b", 0, {"trained": other}))
    with pytest.raises(InvalidInputError, match="the same queries"):
        estimate(Test("s", "b", "a"), store.records("s"), store)


def test_one_arm_scored_in_two_ways(store):
    record(store, "a", 0, drawn(0.4, 0), name="trained")
    record(store, "a", 0, drawn(0.5, 0), name="whitened 32")
    found = estimate(Test("s", "a", scored="whitened 32", against_scored="trained"), store.records("s"), store)
    assert found.difference == pytest.approx(drawn(0.5, 0).mean() - drawn(0.4, 0).mean())


def test_either_finds_it(store):
    rgb, teacher = drawn(0.5, 1), drawn(0.5, 2)
    record(store, "a", 0, rgb, name="rgb")
    record(store, "a", 0, teacher, name="teacher")
    found = estimate(Test("s", "a", scored="rgb|teacher", against_scored="teacher"), store.records("s"), store)
    assert found.b == np.maximum(rgb, teacher).mean()


def test_two_networks_of_one_kind_are_two_seeds(store):
    rows = [drawn(0.5, seed) for seed in range(3)]
    for seed, row in enumerate(rows):
        record(store, "a", seed, row, name="rgb")
    pair = Test("s", "a", scored="rgb|rgb of another seed", against_scored="rgb")
    found = estimate(pair, store.records("s"), store)
    unions = [np.maximum(rows[seed], rows[(seed + 1) % 3]).mean() for seed in range(3)]
    assert found.b == pytest.approx(np.mean(unions))
    assert list(found.by_seed.values()) == pytest.approx([union - row.mean() for union, row in zip(unions, rows, strict=True)])


def test_one_seed_has_no_other(store):
    record(store, "a", 0, drawn(0.5, 0), name="rgb")
    pair = Test("s", "a", scored="rgb|rgb of another seed", against_scored="rgb")
    assert estimate(pair, store.records("s"), store) is None


def test_a_gain_that_is_larger_by_night(store):
    night = np.arange(120) % 3 == 0
    record(store, "a", 0, np.zeros(120))
    record(store, "b", 0, np.where(night, 1.0, 0.0))
    assert estimate(Test("s", "b", "a", group="night"), store.records("s"), store).difference == 1
    found = estimate(Test("s", "b", "a", group="night", beyond="day"), store.records("s"), store)
    assert (found.difference, found.low, found.high) == (1, 1, 1)
    assert estimate(Test("s", "b", "a", group="night, day"), store.records("s"), store).queries == 120


def test_what_noise_costs_one_pair_beyond_another(store):
    for arm, share in (("a", 0.5), ("b", 0.9), ("a, noisy", 0.4), ("b, noisy", 0.6)):
        record(store, arm, 0, drawn(share, 0))
    found = estimate(Test("s", "b, noisy", "a, noisy", over=("b", "a")), store.records("s"), store)
    cost = {arm: drawn(share, 0).mean() for arm, share in (("a", 0.5), ("b", 0.9), ("an", 0.4), ("bn", 0.6))}
    assert found.difference == pytest.approx(cost["bn"] - cost["an"] - (cost["b"] - cost["a"]))
    assert estimate(Test("s", "b, noisy", "a, noisy", over=("b", "z")), store.records("s"), store) is None


def test_the_other_arm_may_be_of_another_study(store):
    record(store, "b", 0, drawn(0.7, 0))
    store.save(Record("start", "before training", 0, {"untrained": Scored(asked(store), {"recall@1": drawn(0.2, 0)})}))
    test = Test("s", "b", "before training", against_study="start", against_scored="untrained")
    found = judge([Claim("G", "", "", (test,))], store)[0].estimates[0]
    assert found.difference == pytest.approx(drawn(0.7, 0).mean() - drawn(0.2, 0).mean())


def test_pooled_metrics_have_students_interval(store):
    spearman = {"a": [-0.50, -0.52, -0.49], "b": [-0.60, -0.59, -0.63]}
    for arm, values in spearman.items():
        for seed, value in enumerate(values):
            record(store, arm, seed, drawn(0.5, seed), Spearman=value, null=value + 1)
    found = estimate(Test("s", "b", "a", metric="Spearman", expect="lower"), store.records("s"), store)
    ends = ttest_1samp(np.subtract(spearman["b"], spearman["a"]), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert verdict(Test("s", "b", "a", metric="Spearman", expect="lower"), found) == "holds"
    assert estimate(Test("s", "b", "a", metric="null"), store.records("s"), store).a == pytest.approx(np.mean([0.5, 0.48, 0.51]))


def test_one_seed_of_a_pooled_metric_decides_nothing(store):
    for arm, value in (("a", 0.1), ("b", 0.9)):
        record(store, arm, 0, drawn(0.5, 0), AP=value)
    found = estimate(Test("s", "b", "a", metric="AP"), store.records("s"), store)
    assert verdict(Test("s", "b", "a", metric="AP"), found) == "cannot be told apart"


@pytest.mark.parametrize(
    ("expect", "low", "high", "said"),
    [
        ("higher", 0.001, 0.01, "holds"),
        ("higher", -0.01, 0.019, "does not hold"),
        ("higher", -0.01, 0.03, "cannot be told apart"),
        ("higher", -0.05, -0.01, "does not hold"),
        ("lower", -0.05, -0.01, "holds"),
        ("lower", -0.019, 0.3, "does not hold"),
        ("lower", -0.03, 0.01, "cannot be told apart"),
        ("as good", -0.019, 0.3, "holds"),
        ("as good", -0.03, -0.01, "does not hold"),
        ("as good", -0.03, 0.01, "cannot be told apart"),
        ("much higher", 0.021, 0.3, "holds"),
        ("much higher", 0.01, 0.3, "cannot be told apart"),
        ("much higher", 0.001, 0.019, "does not hold"),
        ("as good", float("nan"), float("nan"), "cannot be told apart"),
    ],
)
def test_verdicts(expect, low, high, said):
    assert verdict(Test("s", "b", "a", expect=expect), Estimate(0, 0, 0, low, high, dict.fromkeys(range(3), 0.0), 10, 5)) == said


def test_a_claim_needs_all_of_its_main_tests(store):
    for seed in range(3):
        record(store, "a", seed, drawn(0.3, seed))
        record(store, "b", seed, drawn(0.8, seed))
    good, bad, missing, aside = Test("s", "b", "a"), Test("s", "a", "b"), Test("s", "c", "a"), Test("s", "a", "b", main=False)
    said = {
        name: judge([Claim(name, "", "", tests)], store)[0].verdict
        for name, tests in {
            "all": (good, aside),
            "one against": (good, bad),
            "one missing": (good, missing),
            "none": (missing,),
        }.items()
    }
    assert said == {"all": "holds", "one against": "does not hold", "one missing": "not run", "none": "not run"}
    assert judge([Claim("V9", "", "", (), fact="tests/test_costs.py")], store)[0].verdict == "holds"


def test_trained_arms_need_three_seeds():
    two = Estimate(0.4, 0.6, 0.2, 0.1, 0.3, {0: 0.2, 1: 0.2}, 10, 5)
    assert verdict(Test("s", "b", "a"), two) == "cannot be told apart"
    assert verdict(Test("s", "b", "a"), replace(two, trained=False)) == "holds"


# --- the plan


def test_every_study_of_the_plan_can_be_run():
    plan = load_plan()
    for experiment in plan.experiments:
        if not experiment.measure:
            assert plan.study(experiment).recipes(), experiment.study
    assert load_plan(quick=True).study(load_plan(quick=True).experiments[1]).seeds == (0,)


def test_arms_ask_what_the_base_asks():
    """Settings that are chosen are chosen on other towns than those that are asked."""
    plan = load_plan()
    chosen = {plan.data[one.data].seed for one in plan.experiments if one.study.endswith("tuning")}
    asked_of = {plan.data[one.data].seed for one in plan.experiments if one.data == "town"}
    assert not chosen & asked_of


def test_a_study_that_is_not_in_the_plan_is_said():
    with pytest.raises(UnknownNameError, match="Did you mean 'graded'"):
        load_plan().chosen(["grated"])


def test_an_experiment_must_name_data(tmp_path):
    (tmp_path / "plan.toml").write_text('[data.town]\npreset = "tiny"\n[[experiments]]\nstudy = "graded"\ndata = "twon"\n')
    with pytest.raises(InvalidInputError, match="there is no 'twon'"):
        load_plan(path=tmp_path / "plan.toml")


def test_records_of_other_settings_are_not_taken(tmp_path):
    plan, places = load_plan(quick=True), Places(tmp_path / "cells", tmp_path / "work")
    cells = open_cells(plan, places, plan.cells(["start"]))
    assert [(cell.arm, cell.seed) for cell in cells] == [("before training", 0)]
    store, known = Store(places.cells), settings(cells[0], plan)
    one = Record(cells[0].study.name, "before training", 0, {"tiny": Scored(asked(store), {"recall@1": drawn(0.5, 0)})}, settings=known)
    store.save(one)
    assert not open_cells(plan, places, plan.cells(["start"]))
    store.save(replace(one, settings={**known, "recipe": {**known["recipe"], "train": {**known["recipe"]["train"], "steps": 9}}}))
    with pytest.raises(SettingsDifferError, match=r"recipe\.train\.steps 9 there, 6 now"):
        open_cells(plan, places, plan.cells(["start"]))
    assert len(open_cells(plan, places, plan.cells(["start"]), overwrite=True)) == 1


def test_settings_that_are_new_since_a_record_was_made_do_not_count():
    assert not differing({"a": {"b": 1}}, {"a": {"b": 1, "new": 2}})
    assert differing({"a": {"b": 1}}, {"a": {"new": 2}}) == "a.b 1 there, None now"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"train": {"loss_options": {}}}, {"train": {"loss_options": {"margin": 0.3}}}),
        ({"structure": {"student": {"train": {}}}}, {"structure": {"student": {"train": {"steps": 3}}}}),
        ({"recipe": {}}, {"recipe": {}, "weights": "w.pth"}),
        ({"data": {"preset": "stand"}}, {"data": {"preset": "stand", "seed": 3}}),
    ],
)
def test_options_that_were_not_given_count(before, now):
    assert differing(before, now)


def test_no_two_arms_of_a_study_are_taken_for_each_other():
    """Else the record of one would be copied for the other."""
    plan = load_plan()
    for experiment in plan.experiments:
        if not experiment.measure:
            cells = [cell for cell in plan.cells([experiment.study]) if cell.seed == plan.study(experiment).seeds[0]]
            known = [(cell.arm, settings(cell, plan)) for cell in cells]
            same = [(a, b) for a, one in known for b, other in known if a < b and not differing(one, other)]
            assert all(a.replace("degrees", "m") == b or {a[-3:], b[-3:]} <= {"0 m", "ees"} for a, b in same), same


def test_photographs_without_a_folder_of_them(tmp_path):
    with pytest.raises(Exception, match="COVIS_DATA"):
        prepare(Source(photographs="kitchen"), "kitchen", Places(tmp_path, tmp_path))


# --- all of it


def test_what_is_kept_with_the_code_can_be_read():
    store = Store(HERE / "cells")
    known_asked = {path.stem: len(store.asked(path.stem).names) for path in (store.folder / "asked").iterdir()}
    studies = sorted(path.name for path in store.folder.iterdir() if path.name != "asked")
    for study in studies:
        for records in store.records(study).values():
            for one in records.values():
                for scored in one.scored.values():
                    assert all(len(hits) == known_asked[scored.asked] for hits in scored.hits.values())
    known = {experiment.study for experiment in load_plan().experiments}
    assert set(studies) <= known
    plan = load_plan()
    open_cells(plan, Places(store.folder, HERE / "runs"), plan.cells())  # stops where one was made with other settings


def test_a_quick_run_and_a_second_one_that_has_nothing_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("COVIS_DATA", raising=False)
    assert main(["--quick", "--out", str(tmp_path), "--workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "cells to run" in said
    page = (tmp_path / "evidence.md").read_text()
    assert "cannot be told apart" in page
    assert page.startswith("**A quick run")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.json")}
    assert len(files) > 8
    assert json.loads(next(iter(sorted(files))).read_text())["format"].startswith("covis-evidence")
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    assert "0 cells to run" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").rglob("*.json")} == files
