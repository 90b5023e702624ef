"""The evidence's figures: which are drawn, what they show, what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covis.errors import InvalidInputError
from covis.reports.charts import Column, CostPoint, Panel
from evidence import figures
from evidence.figures import draw, forest_rows
from evidence.records import Asked, Record, Scored, Store
from evidence.verdicts import Claim, Estimate, Finding, Test

pytest.importorskip("matplotlib")
QUERIES = 60
BINS = 10


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cells")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """Name of a figure -> what it was given; they are not painted."""
    found: dict[str, list] = {}

    def kept(what, out: Path, **_: str) -> Path:
        found[out.name] = list(what)
        return out

    for name in ("forest_plot", "curves_plot", "dots_plot", "cost_plot"):
        monkeypatch.setattr(figures, name, kept)
    return found


def asked(store: Store, *names: str) -> str:
    random = np.random.default_rng(7)
    groups = {name: random.uniform(size=QUERIES) < 0.5 for name in names}
    return store.keep(Asked(tuple(f"q{number}" for number in range(QUERIES)), np.arange(QUERIES) // 6, "blocks of 6 frames", groups))


def put(store: Store, study: str, arm: str, *, scores: dict[str, float], seeds: int = 2, key: str = "", **more) -> None:
    """Records of an arm: so many of the queries are found, one more with each seed."""
    key = key or asked(store, "night", "forward")
    for seed in range(seeds):
        hits = {name: (np.arange(QUERIES) * 37 % QUERIES < QUERIES * value + seed).astype(float) for name, value in scores.items()}
        found = {name: Scored(key, {"recall@1": values}, **more) for name, values in hits.items()}
        store.save(Record(study, arm, seed, found))


def finding(name: str, *tests: tuple[Test, Estimate | None]) -> Finding:
    verdicts = tuple("holds" if estimate else "not run" for _, estimate in tests)
    claim = Claim(name, "a claim", "a paper", tuple(test for test, _ in tests))
    return Finding(claim, tuple(estimate for _, estimate in tests), verdicts, "holds")


def estimate(value: float) -> Estimate:
    return Estimate(0.5, 0.5 + value, value, value - 0.03, value + 0.03, {0: value - 0.01, 1: value + 0.01}, 60, 10)


def findings() -> list[Finding]:
    beside = Test("graded", "GCL", "triplet, mined", main=False)
    return [
        finding("G1", (Test("graded", "GCL", "CL", least=0.03), estimate(0.06)), (beside, estimate(0.4))),
        finding("G5", (Test("graded", "GCL", "CL", metric="Spearman", expect="lower", says="order of distances"), estimate(-0.2))),
        finding("G6", (Test("graded", "GCL", "CL", metric="seconds", expect="lower"), estimate(-200.0))),
        finding("V1", (Test("structure", "weighted", "nothing distilled"), None)),
        finding("R1", (Test("two-stage", "GCL", scored="10 re-ranked", against_scored="alone"), estimate(0.02))),
    ]


def test_without_records_nothing_is_drawn(store: Store, tmp_path: Path) -> None:
    assert draw([], store, tmp_path / "figures") == []
    assert draw([finding("G1", (Test("graded", "GCL", "CL"), None))], store, tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_rows_of_the_claims() -> None:
    rows = forest_rows(findings())
    assert [(row.label, row.heading) for row in rows] == [
        ("G1  GCL against CL", "GCL"),
        ("R1  GCL: 10 re-ranked against alone", "Two stages"),
    ]
    first = rows[0]
    assert (first.value, first.least, tuple(first.seeds), first.verdict) == (0.06, 0.03, pytest.approx((0.05, 0.07)), "holds")
    (other,) = forest_rows(findings(), recall=False)
    assert (other.label, other.heading, other.value) == ("G5  GCL against CL: order of distances", "Spearman", -0.2)


def test_noise_in_metres_and_degrees(store: Store, tmp_path: Path, shown: dict[str, list[Panel]]) -> None:
    for arm, value in {
        "GCL, 0 m": 0.6,
        "GCL, 2.5 m": 0.5,
        "GCL, 10 m": 0.2,
        "CL, 0 m": 0.5,
        "CL, 10 m": 0.1,
        "GCL, 20 degrees": 0.4,
    }.items():
        put(store, "noise", arm, scores={"trained": value, "whitened": 0.9})
    put(store, "noise", "something else", scores={"trained": 0.9})
    assert [path.name for path in draw([], store, tmp_path)] == ["noise.png"]
    metres, degrees = shown["noise.png"]
    gcl = next(one for one in metres.series if one.name == "GCL")
    assert list(gcl.x) == [0, 2.5, 10]
    assert gcl.y == pytest.approx([0.6 + 0.5 / QUERIES, 0.5 + 0.5 / QUERIES, 0.2 + 0.5 / QUERIES])
    assert all(low < value < high for low, value, high in zip(gcl.low, gcl.y, gcl.high, strict=True))
    assert len(gcl.points) == 6
    assert {one.name for one in metres.series} == {"GCL", "CL"}
    (only,) = degrees.series
    assert list(only.x) == [0, 20], "labels without an error are those of 0 m"
    assert not metres.log_x, "metres are metres"


def test_budget_dimensions_and_distances(store: Store, tmp_path: Path, shown: dict[str, list[Panel]]) -> None:
    for arm, value in {"GCL, 1000 steps": 0.6, "GCL, 125 steps": 0.2, "CL, 125 steps": 0.1}.items():
        put(store, "budget", arm, scores={"trained": value})
    distances = (1.2, *np.linspace(1.1, 0.2, BINS - 1), float("nan"))
    for arm in ("GCL", "CL", "GCL, shuffled"):
        names = {"trained": 0.5, "whitened": 0.4, "whitened 8": 0.3, "whitened 128": 0.6, "whitened 8, fitted on training images": 0.9}
        put(store, "graded", arm, scores=names, distances=distances)
    assert {path.name for path in draw([], store, tmp_path)} == {"budget.png", "dimensions.png", "latent.png"}
    (budget,) = shown["budget.png"]
    assert {one.name: list(one.x) for one in budget.series} == {"GCL": [125, 1000], "CL": [125]}
    (dimensions,) = shown["dimensions.png"]
    assert [one.name for one in dimensions.series] == ["GCL, whitened", "GCL, as trained", "CL, whitened", "CL, as trained"]
    assert list(dimensions.series[0].x) == [8, 128]
    assert dimensions.series[1].dashed
    assert dimensions.series[1].like == "GCL, whitened"
    graded, others = shown["latent.png"]
    assert {one.name for one in graded.series} == {"GCL", "GCL, shuffled"}
    (cl,) = others.series
    assert list(cl.x) == pytest.approx([0, *np.arange(0.05, 1, 0.1)])
    assert cl.y[:2] == pytest.approx([1.2, 1.1])
    assert np.isnan(cl.y[-1]), "a bin without pairs"


def test_conditions_of_the_queries(store: Store, tmp_path: Path, shown: dict[str, list[Column]]) -> None:
    put(store, "structure", "nothing distilled", scores={"trained": 0.4, "teacher": 0.3})
    put(store, "structure", "weighted", scores={"trained": 0.5})
    draw([], store, tmp_path)
    (night,) = shown["conditions.png"]
    assert night.title == "night", "views are no conditions"
    assert set(night.values) == {"nothing distilled", "weighted"}
    known = store.asked(asked(store, "night", "forward"))
    hits = store.records("structure")["weighted"][0].scored["trained"].hits["recall@1"]
    value, low, high = night.values["weighted"]
    assert low < value < high
    assert value == pytest.approx(hits[known.groups["night"]].mean(), abs=0.03)


def test_flags_of_other_data_are_all_shown(store: Store, tmp_path: Path, shown: dict[str, list[Column]]) -> None:
    put(store, "structure", "weighted", scores={"trained": 0.5}, key=asked(store, "indoors", "tunnel"))
    draw([], store, tmp_path)
    assert [column.title for column in shown["conditions.png"]] == ["indoors", "tunnel"]


def test_cost_of_two_stages(store: Store, tmp_path: Path, shown: dict[str, list[CostPoint]]) -> None:
    for arm, value, seconds in (
        ("campus, k = 0", 0.4, 0.002),
        ("campus, SIFT, k = 25", 0.6, 0.4),
        ("campus, SIFT, k = 5", 0.5, 0.1),
        ("town, tiny image, k = 0", 0.3, 0.001),
        ("town, tiny image, ORB, k = 5", 0.35, 0.05),
        ("kitchen, k = 0", 0.7, 0.003),
    ):
        put(store, "two-stage", arm, scores={"trained": value}, values={"seconds a query": seconds}, seeds=1)
    put(store, "two-stage", "corridor, k = 0", scores={"trained": 0.4})
    draw([], store, tmp_path)
    points = shown["twostage.png"]
    lines = {name: [(one.label, one.seconds) for one in points if one.series == name] for name in (one.series for one in points)}
    assert lines == {"campus": [("", 0.002), ("5", 0.1), ("25", 0.4)]}, "one second stage alone: more are too many to be told apart"
    assert max(one.value for one in points) == pytest.approx(0.6)
    put(store, "two-stage", "town, tiny image, SIFT, k = 10", scores={"trained": 0.35}, values={"seconds a query": 0.1}, seeds=1)
    draw([], store, tmp_path)
    assert [(one.label, one.seconds) for one in shown["twostage.png"] if one.series == "town, tiny image"] == [("", 0.001), ("10", 0.1)]


def test_another_second_stage_alone(store: Store, tmp_path: Path, shown: dict[str, list[CostPoint]]) -> None:
    for arm, seconds in (("town, k = 0", 0.001), ("town, ORB, k = 5", 0.05), ("kitchen, k = 0", 0.003)):
        put(store, "two-stage", arm, scores={"trained": 0.5}, values={"seconds a query": seconds}, seeds=1)
    draw([], store, tmp_path)
    found = sorted((one.series, one.label, one.seconds) for one in shown["twostage.png"])
    assert found == [("kitchen", "", 0.003), ("town, ORB", "", 0.001), ("town, ORB", "5", 0.05)]


def test_arms_are_named_before_what_is_said() -> None:
    said = [
        Test("graded", "GCL", "CL", says="one rate for all"),
        Test("noise", "GCL, 5 m", "CL, 5 m", says="5 m: a phone in the open"),
        Test("structure", "weighted", "rgb", says="either branch against photographs"),
        Test("structure", "weighted", "rgb", group="night", beyond="day"),
    ]
    rows = forest_rows([finding("G1", *((test, estimate(0.1)) for test in said))])
    labels = ["G1  GCL against CL: one rate for all", "G1  5 m: a phone in the open", "G1  either branch against photographs"]
    labels.append("G1  weighted against rgb, on night beyond day")
    assert [row.label for row in rows] == labels


def test_other_queries_are_refused(store: Store, tmp_path: Path) -> None:
    put(store, "budget", "GCL, 125 steps", scores={"trained": 0.5}, seeds=1)
    key = store.keep(Asked(("a", "b"), np.arange(2), "queries"))
    store.save(Record("budget", "GCL, 125 steps", 1, {"trained": Scored(key, {"recall@1": np.array([1.0, 0.0])})}))
    with pytest.raises(InvalidInputError, match=r"the same queries"):
        draw([], store, tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_they_are_painted(store: Store, tmp_path: Path) -> None:
    put(store, "noise", "GCL, 5 m", scores={"trained": 0.5})
    put(store, "two-stage", "campus, k = 0", scores={"trained": 0.5}, values={"seconds a query": 0.02}, seeds=1)
    paths = draw(findings(), store, tmp_path / "figures")
    assert [path.name for path in paths] == ["claims.png", "claims-other.png", "noise.png", "twostage.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.width >= 900
