"""Approximate indexes: what they find is truly near, what they miss is measured, and nothing of it is silent."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import oracles
import pytest
from made_descriptors import CHEAP, places

from covis import indexes
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, UnknownNameError
from covis.indexes import INDEXES, ApproximateIndex, ExactIndex, index, load_index, measures, tuning
from covis.indexes.sketches import PrefixIndex
from covis.indexes.stored import StoredIndex
from covis.rankings import Rankings
from covis.whitening import fit_whitening

APPROXIMATE = [kind for kind in INDEXES if kind != "exact"]
DATABASE, QUERIES = places(2000), places(60, seed=1, side="q")


@pytest.fixture(scope="module")
def made() -> dict[str, ApproximateIndex]:
    """One of each kind."""
    return {kind: index(DATABASE, kind=kind, options=CHEAP[kind]) for kind in APPROXIMATE}  # type: ignore[misc]


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_distances_are_exact_of_what_is_found_and_the_recall_is_what_it_says(kind: str, made: dict[str, ApproximateIndex]) -> None:
    found = made[kind].search(QUERIES, k=25)
    assert isinstance(found, Rankings)
    apart = np.linalg.norm(QUERIES.vectors[:, None].astype(np.float64) - DATABASE.vectors[found.rows], axis=2)
    np.testing.assert_allclose(found.distances, apart, rtol=1e-5)
    rows, distances = oracles.nearest(QUERIES.vectors, DATABASE.vectors, 25)
    assert (found.distances >= distances * (1 - 1e-5)).all()
    report = made[kind].measure(QUERIES)
    shared = [len(set(a.tolist()) & set(b.tolist())) / 25 for a, b in zip(found.rows, rows, strict=True)]
    assert report["recall@25"] == pytest.approx(np.mean(shared), abs=1e-9)
    assert report["recall@1"] == pytest.approx((found.rows[:, 0] == rows[:, 0]).mean(), abs=1e-9)
    assert report["recall@25"] > 0.2
    assert (report["queries"], report["of"], report["count"], report["changed"]) == (60, "queries given", 2000, 0)
    assert report["queries_per_second"] > 0 < report["exact_queries_per_second"]


def test_some_of_them_miss_neighbours(made: dict[str, ApproximateIndex]) -> None:
    """Else the tests here show nothing."""
    assert sum(one.measure(QUERIES)["recall@25"] < 0.99 for one in made.values()) >= 4


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_recall_of_its_own_vectors_leaves_each_out_of_its_own_list(kind: str, made: dict[str, ApproximateIndex]) -> None:
    report = made[kind].measure()
    assert report["of"] == "its own vectors"
    sample = indexes.measures.sample(made[kind].shards)
    assert len(set(sample.own.tolist())) == report["queries"] == 500
    rows = oracles.nearest(sample.vectors, DATABASE.vectors, 26)[0]
    found = made[kind].nearest(sample.vectors, 26, None)[1]
    others = [[row for row in one if row != own][:25] for one, own in zip(rows.tolist(), sample.own, strict=True)]
    mine = [[row for row in one if row != own][:25] for one, own in zip(found.tolist(), sample.own, strict=True)]
    assert report["recall@1"] == pytest.approx(np.mean([a[0] == b[0] for a, b in zip(mine, others, strict=True)]), abs=1e-9)
    shared = [len(set(a) & set(b)) / 25 for a, b in zip(mine, others, strict=True)]
    assert report["recall@25"] == pytest.approx(np.mean(shared), abs=1e-9)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_every_ranking_says_that_it_is_approximate(kind: str, made: dict[str, ApproximateIndex]) -> None:
    report = made[kind].measure(QUERIES)
    history = made[kind].search(QUERIES, k=3).history
    assert history["index"] == kind
    assert history["options"] == {**{name: one.default for name, one in INDEXES[kind].OPTIONS.items()}, **CHEAP[kind]}
    assert history["recall"]["recall@1"] == report["recall@1"]
    assert history["recall"]["count"] == 2000
    bare = INDEXES[kind](**CHEAP[kind])
    bare.add(DATABASE)  # not made by `index`, and not measured
    assert set(bare.search(QUERIES, k=3).history["recall"]) >= {"recall@1", "recall@25"}


def test_an_exact_ranking_says_what_it_said_before() -> None:
    assert index(DATABASE).search(QUERIES, k=3).history == {"model": "m", "database": {}, "index": "exact", "distance": "euclidean"}


def test_the_recall_is_measured_anew_when_much_has_changed(made: dict[str, ApproximateIndex]) -> None:
    one = index(DATABASE, kind="pq", options=CHEAP["pq"])
    one.delete(DATABASE.names[:100])
    one.add(places(50, seed=5, side="e"))
    assert one.report is not None
    assert one.report["changed"] == 150
    assert one.search(QUERIES, k=3).history["recall"]["changed"] == 150
    one.delete(DATABASE.names[100:200])
    assert one.report is None
    assert one.search(QUERIES, k=3).history["recall"] == {**one.search(QUERIES, k=3).history["recall"], "changed": 0, "count": 1850}


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_whole_look_is_exact(kind: str) -> None:
    """With as many candidates as there are vectors every kind gives what exact search gives."""
    found = index(DATABASE, kind=kind, options={**CHEAP[kind], "rescore": 2000}).search(QUERIES, k=25)
    exact = index(DATABASE).search(QUERIES, k=25)
    assert found.rows.tolist() == exact.rows.tolist()
    assert found.distances.tolist() == exact.distances.tolist()


def test_auto_is_exact_up_to_a_number_and_for_what_is_not_whitened(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = index(DATABASE)
    assert plain.kind == "exact"
    assert plain.chosen == "auto: exact, for up to 200,000 vectors"  # type: ignore[attr-defined]
    monkeypatch.setattr(indexes, "EXACT_UP_TO", 1999)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "are not PCA-whitened" in index(DATABASE).chosen  # type: ignore[attr-defined]
        turned = fit_whitening(DATABASE, kind="zca")(DATABASE)
        assert "are not PCA-whitened" in index(turned).chosen  # type: ignore[attr-defined]
        whitened = fit_whitening(DATABASE)(DATABASE)
        assert "32 dimensions are few" in index(whitened).chosen  # type: ignore[attr-defined]
    monkeypatch.setitem(PrefixIndex.OPTIONS, "dims", indexes.Option(8, "x"))  # type: ignore[arg-type]
    with pytest.warns(CovisWarning, match=r"prefix, for 2,000 whitened vectors; searches are approximate, recall@1 \d\.\d+, recall@25"):
        found = index(whitened)
    assert (found.kind, len(found)) == ("prefix", 2000)
    assert found.report is not None


def test_options_are_checked() -> None:
    with pytest.raises(InvalidInputError, match=r"no option 'resore'\. Did you mean 'rescore'"):
        index(DATABASE, kind="prefix", options={"resore": 3})
    for bad in (0, -1, 2.5, "many", True):
        with pytest.raises(InvalidInputError, match="rescore of 'pq' must be a whole number of at least 1"):
            index(DATABASE, kind="pq", options={"rescore": bad})
    with pytest.raises(InvalidInputError, match="one of 8bit, fp16; got '4bit'"):
        index(DATABASE, kind="sq", options={"type": "4bit"})
    with pytest.raises(InvalidInputError, match="codes of 'pq' must divide the 32 dimensions; got 5"):
        index(DATABASE, kind="pq", options={"codes": 5})
    with pytest.raises(InvalidInputError, match="at most the number of vectors, 2000; got 3000"):
        index(DATABASE, kind="ivf-pq", options={"lists": 3000})
    with pytest.raises(InvalidInputError, match="from at least 16 vectors; got 15"):
        index(places(15), kind="pq")
    with pytest.raises(InvalidInputError, match="no option 'dims'"):
        index(DATABASE, kind="exact", options={"dims": 3})
    with pytest.raises(InvalidInputError, match="Name the kind"):
        index(DATABASE, options={"dims": 3})
    with pytest.raises(InvalidInputError, match="options are chosen where a recall is asked for"):
        index(DATABASE, kind="pq", options={"rescore": 3}, recall=0.9)
    with pytest.raises(UnknownNameError, match="Did you mean 'hnsw'"):
        index(DATABASE, kind="hnws")
    with pytest.raises(UnknownNameError, match="Did you mean 'hnsw'"):
        index(DATABASE, kind="hnws", recall=0.9)
    with pytest.raises(InvalidInputError, match="holds none"):
        index(DATABASE, kind="pq", queries=places(0))


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("count", [1, 2, 3, 17, 40])
def test_few_vectors_are_all_found(kind: str, count: int) -> None:
    if count < getattr(INDEXES[kind], "LEAST", 1):
        return
    found = index(places(count), kind=kind).search(QUERIES, k=50)
    assert found.k == count
    assert (np.sort(found.rows, axis=1) == np.arange(count)).all()


@pytest.mark.parametrize("dim", [1, 3, 13, 30, 130])
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_any_number_of_dimensions(kind: str, dim: int) -> None:
    database = places(300, dim=dim)
    found = index(database, kind=kind, options={"rescore": 20}).search(places(9, dim=dim, seed=1, side="q"), k=10)
    assert found.rows.shape == (9, 10)
    assert (found.rows >= 0).all()


def test_half_precision_gives_a_float32_prefix() -> None:
    half = Descriptors(DATABASE.vectors.astype(np.float16), DATABASE.names, "m")
    for kind in APPROXIMATE:
        made = index(half, kind=kind, options=CHEAP[kind])
        assert made.search(QUERIES, k=5).rows.shape == (60, 5)


class Mine(ExactIndex):
    """A user's index that is saved by what covis's own share."""

    kind = "mine"


class Own:
    """A user's index: the seam's smallest."""

    kind, report = "own", None

    def __init__(self, *, label: str = "") -> None:
        self.label, self.sets = label, []

    def add(self, descriptors: Descriptors) -> None:
        self.sets.append(descriptors)


def test_an_index_of_your_own() -> None:
    made = index([DATABASE, places(3, side="e")], kind="test_index_kinds:Own", options={"label": "mine"})
    assert isinstance(made, Own)
    assert (made.label, len(made.sets)) == ("mine", 2)
    with pytest.raises(InvalidInputError, match="A recall can be asked of the kinds"):
        index(DATABASE, kind="test_index_kinds:Own", recall=0.9)


def test_an_index_of_your_own_is_opened_where_its_class_is_named(tmp_path: Path) -> None:
    path = index(DATABASE, kind="test_index_kinds:Mine").save(tmp_path / "i")
    with pytest.raises(DamagedFileError, match=r"its header says 'mine'.*load_index\(path, kind=\"module:class\"\)"):
        load_index(path)
    opened = load_index(path, kind="test_index_kinds:Mine")
    assert type(opened).__name__ == "Mine"
    assert opened.search(QUERIES, k=3).rows.tolist() == index(DATABASE).search(QUERIES, k=3).rows.tolist()
    with pytest.raises(InvalidInputError, match=r"class's load\(path\); 'test_index_kinds:Own' has none"):
        load_index(path, kind="test_index_kinds:Own")
    with pytest.raises(DamagedFileError, match="knows here \\(pq\\); its header says 'mine'"):
        load_index(path, kind="pq")


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_beyond_the_k_of_the_recall_candidates_grow_and_a_warning_says_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = index(DATABASE, kind=kind, options=CHEAP[kind], k=10)
    assert isinstance(one, ApproximateIndex)
    asked: list[int] = []
    real = type(one).candidates
    monkeypatch.setattr(type(one), "candidates", lambda self, queries, count: asked.append(count) or real(self, queries, count))  # type: ignore[func-returns-value]
    one.search(QUERIES, k=10)
    with pytest.warns(CovisWarning, match=f"recall of this {kind} index was measured at k = 10, not at k = 40"):
        found = one.search(QUERIES, k=40)
    assert found.history["recall"]["k"] == 10
    assert asked == [CHEAP[kind]["rescore"], 4 * CHEAP[kind]["rescore"]]
    assert one.search(QUERIES, k=2000).k == 2000  # exact: nothing to warn of
    assert one.search(QUERIES, k=40, among=DATABASE.names[:300]).k == 40


def test_the_k_of_the_recall_stays_when_it_is_measured_anew_and_opened(tmp_path: Path) -> None:
    one = load_index(index(DATABASE, kind="sq", k=7).save(tmp_path / "i"))
    one.delete(DATABASE.names[:500])
    assert one.report is None
    one.search(QUERIES, k=3)
    assert one.report is not None
    assert (one.report["k"], one.report["count"]) == (7, 1500)


def test_a_recall_of_its_own_vectors_is_called_optimistic(made: dict[str, ApproximateIndex]) -> None:
    for kind, one in made.items():
        words = measures.told(kind, one.options, one.measure())
        assert "500 of its own vectors, each" in words
        assert "without itself: optimistic where queries look different (--queries measures on yours)" in words
        assert ("each a node of the graph" in words) == (kind == "hnsw")
        assert "optimistic" not in measures.told(kind, one.options, one.measure(QUERIES))


def test_k_is_a_whole_number() -> None:
    for bad in (2.5, "3", True, None, 0):
        with pytest.raises(InvalidInputError, match=r"whole number k >= 1"):
            index(DATABASE).search(QUERIES, k=bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="k must be a whole number"):
            index(DATABASE, k=bad)  # type: ignore[arg-type]
    assert index(DATABASE).search(QUERIES, k=np.int64(3)).k == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["prefix", "binary", "pq"])
def test_many_small_sets_are_as_one(kind: str) -> None:
    one = index([Descriptors(DATABASE.vectors[at : at + 20], DATABASE.names[at : at + 20], "m") for at in range(0, 2000, 20)], kind=kind)
    whole = index(DATABASE, kind=kind)
    for queries in (QUERIES, places(3, seed=1, side="q")):
        assert one.search(queries, k=9).rows.tolist() == whole.search(queries, k=9).rows.tolist()


# The tuner


@pytest.fixture
def few_are_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials on so few vectors as a test has."""
    monkeypatch.setattr(tuning, "FEW", 0)


@pytest.mark.usefixtures("few_are_tuned")
def test_the_tuner_takes_the_quickest_that_reaches_the_recall(tmp_path: Path) -> None:
    said: list[str] = []
    found = index(DATABASE, kind="binary", recall=0.9, progress=said.append)
    assert isinstance(found, StoredIndex)
    assert len(said) == len(found.trials) >= 1
    reached = [trial for trial in found.trials if trial["reached"]]
    for trial in found.trials:
        assert trial["reached"] == (trial["recall@1"] >= 0.9 and trial["recall@25"] >= 0.9)
    if found.kind == "binary":  # else exact search was quicker, on this machine, of so few
        assert found.options == reached[0]["options"]
        assert found.report is not None
    else:
        assert "none reaches it and is 1.2 times as quick as exact search" in found.chosen
    again = load_index(found.save(tmp_path / "i"))
    assert (again.trials, again.chosen, again.options, again.report) == (found.trials, found.chosen, found.options, found.report)


@pytest.mark.usefixtures("few_are_tuned")
def test_the_tuner_counts_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rates and recalls said beforehand, the choice is known."""
    table = {  # codes, rescore -> recall, rate
        (8, 50): (0.5, 900.0), (8, 100): (0.95, 500.0), (16, 50): (0.92, 700.0),
    }  # fmt: skip

    def compared(one: ApproximateIndex, *_: object) -> dict[str, float]:
        recall, rate = table.get((one.options["codes"], one.options["rescore"]), (1.0, 1.0))
        return {"recall@1": 1.0, "recall@25": recall, "queries_per_second": rate}

    monkeypatch.setattr(indexes.measures, "compared", compared)
    real = indexes.measures.truth
    monkeypatch.setattr(indexes.measures, "truth", lambda *given: indexes.measures.Truth(real(*given).squared, 500.0))
    found = index(DATABASE, kind="pq", recall=0.9)
    assert isinstance(found, StoredIndex)
    assert (found.kind, found.options) == ("pq", {"codes": 16, "rescore": 50})
    assert [trial["reached"] for trial in found.trials] == [True, True, False]
    assert len(found.search(QUERIES, k=3)) == 60
    table[(16, 50)] = (0.92, 599.0)  # quicker by less than a fifth
    found = index(DATABASE, kind="pq", recall=0.9)
    assert (found.kind, found.report) == ("exact", None)
    assert "3 settings tried, none reaches it and is 1.2 times as quick as exact search (500 queries/s): exact" in found.chosen  # type: ignore[attr-defined]


@pytest.mark.usefixtures("few_are_tuned")
def test_the_tuner_needs_something_to_try_on() -> None:
    for recall in (0, 1.1, float("nan")):
        with pytest.raises(InvalidInputError, match=r"recall in \(0, 1\]"):
            index(DATABASE, recall=recall)
    with pytest.raises(InvalidInputError, match=r"got 0\.9, 25 and 2 vectors"):
        index(places(2), recall=0.9)


@pytest.mark.usefixtures("few_are_tuned")
def test_queries_that_are_given_choose_and_judge_by_halves() -> None:
    found = index(DATABASE, kind="pq", recall=0.5, queries=QUERIES)
    if found.report is not None:
        assert (found.report["queries"], found.report["of"]) == (30, "queries given")


@pytest.mark.usefixtures("few_are_tuned")
@pytest.mark.parametrize("count", [3, 7, 300, 2000])
@pytest.mark.parametrize("given", [False, True])
def test_the_choice_is_made_on_queries_that_the_report_is_not_measured_on(count: int, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen where they are asked, not where they are drawn."""
    chooses, judges = [], []
    real, report = measures.compared, measures.report

    def compared(one: StoredIndex, asked: measures.Sample, exact: measures.Truth) -> dict[str, object]:
        chooses.append(asked.vectors)
        return {"recall@1": 1.0, f"recall@{exact.k}": 1.0, "queries_per_second": 1e12}

    def reported(one: StoredIndex, asked: measures.Sample, exact: measures.Truth, **more: float) -> dict[str, object]:
        judges.append(asked.vectors)
        with monkeypatch.context() as patch:
            patch.setattr(measures, "compared", real)
            return report(one, asked, exact, **more)

    monkeypatch.setattr(measures, "compared", compared)
    monkeypatch.setattr(measures, "report", reported)
    monkeypatch.setattr(PrefixIndex, "SEARCHES", ({"rescore": 1},))
    database = places(count)
    found = index(database, kind="prefix", recall=0.5, k=1, queries=places(count, seed=1, side="q") if given else None)
    assert found.kind == "prefix"
    (judge,) = judges
    assert len(judge) == (count // 2 if count < 1000 else 500)
    for one in chooses:
        assert len(one) in (len(judge), len(judge) + 1)
        assert not {row.tobytes() for row in one} & {row.tobytes() for row in judge}
    assert found.report is not None
    assert found.report["queries"] == len(judge)


@pytest.mark.usefixtures("few_are_tuned")
def test_a_search_that_looks_at_all_is_not_tried() -> None:
    found = index(places(150), kind="binary", recall=0.95)
    assert isinstance(found, StoredIndex)
    assert [trial["options"]["rescore"] for trial in found.trials] == [100]
    assert index(places(90), kind="binary", recall=0.95).trials == ()  # type: ignore[attr-defined]


def test_few_vectors_and_an_exact_kind_are_exact_at_once() -> None:
    found = index(DATABASE, recall=0.9)
    assert (found.kind, found.trials) == ("exact", ())  # type: ignore[attr-defined]
    assert found.chosen.endswith("asked for: exact, whose recall is 1, since it is quick for fewer than 5,000 vectors")  # type: ignore[attr-defined]
    found = index(DATABASE, kind="exact", recall=0.9)
    assert found.chosen == "recall 0.9 of the first and of the first 25 asked for: exact, whose recall is 1"  # type: ignore[attr-defined]


def test_the_page_has_the_table_of_options() -> None:
    page = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
    for kind, one in INDEXES.items():
        assert re.search(rf"^\| `{kind}` ", page, re.MULTILINE), kind
        for name, option in one.OPTIONS.items():
            assert f"| `{kind}` | `{name}` | {option.default} | {option.meaning} |" in page, (kind, name)
