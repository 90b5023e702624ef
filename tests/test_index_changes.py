"""Adding, deleting and searching among some: always what an index made anew of the living gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_descriptors import CHEAP, places

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError
from covis.indexes import INDEXES, ApproximateIndex, ExactIndex, index
from covis.rankings import Rankings

QUERIES = places(12, seed=1, side="q")
CHANGES = st.lists(st.tuples(st.sampled_from(["add", "delete", "again"]), st.integers(0, 10**6)), max_size=8)


def part(descriptors: Descriptors, rows: np.ndarray) -> Descriptors:
    return Descriptors(descriptors.vectors[rows], tuple(descriptors.names[row] for row in rows), descriptors.model)


def found_names(found: Rankings) -> list[list[str]]:
    return [[found.database_names[row] for row in rows] for rows in found.rows]


@given(changes=CHANGES)
def test_any_changes_leave_what_an_index_of_the_living_gives(changes: list[tuple[str, int]]) -> None:
    made, stock = index(places(60)), places(400, seed=2, side="e")
    living = {name: vector for name, vector in zip(places(60).names, places(60).vectors, strict=True)}  # noqa: C416 - reads as it is
    gone: dict[str, np.ndarray] = {}
    for step, (change, number) in enumerate(changes):
        random = np.random.default_rng(number)
        if change == "add":
            added = part(stock, np.arange(40 * step, 40 * step + 1 + number % 40))
        elif change == "again" and gone:
            names = sorted(gone)[: 1 + number % len(gone)]
            added = Descriptors(np.stack([gone.pop(name) for name in names]), tuple(names), "m")
        else:
            names = random.choice(sorted(living), size=min(len(living) - 1, 1 + number % 30), replace=False).tolist()
            made.delete(names)
            gone |= {name: living.pop(name) for name in names}
            continue
        made.add(added)
        living |= dict(zip(added.names, added.vectors, strict=True))
    assert made.names == tuple(living)
    assert len(made) == len(living)
    anew = index(Descriptors(np.stack(list(living.values())), tuple(living), "m"))
    for k in (1, 9, 500):
        a, b = made.search(QUERIES, k=k), anew.search(QUERIES, k=k)
        assert a.rows.tolist() == b.rows.tolist()
        assert a.distances.tolist() == b.distances.tolist()
        assert a.database_names == b.database_names


@pytest.mark.parametrize("kind", [kind for kind in INDEXES if kind != "exact"])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.4, 0.9])
def test_some_alone_are_found_and_never_too_few(kind: str, share: float) -> None:
    made = index(places(1500), kind=kind, options=CHEAP[kind])
    made.add(places(300, seed=4, side="e"))
    made.delete([f"d{row}" for row in range(0, 900, 3)])
    mask = np.random.default_rng(0).random(len(made)) < share
    mask[5] = True
    found = made.search(QUERIES, k=25, among=mask)
    assert found.rows.shape == (12, min(25, mask.sum()))
    assert mask[found.rows].all()
    assert not {f"d{row}" for row in range(0, 900, 3)} & {name for names in found_names(found) for name in names}
    assert found.history["among"] == mask.sum()
    exact = index([places(1500), places(300, seed=4, side="e")])
    exact.delete([f"d{row}" for row in range(0, 900, 3)])
    true = exact.search(QUERIES, k=25, among=mask)
    if share <= 0.1:
        assert found.rows.tolist() == true.rows.tolist()
        assert found.distances.tolist() == true.distances.tolist()
    else:
        shared = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(found.rows.tolist(), true.rows.tolist(), strict=True)])
        assert shared > 0.15


@pytest.mark.parametrize("kind", [kind for kind in INDEXES if kind != "exact"])
def test_what_was_deleted_and_added_is_found_or_not(kind: str) -> None:
    database = places(1000)
    made = index(database, kind=kind, options=CHEAP[kind])
    itself = part(database, np.arange(40))
    assert found_names(made.search(itself, k=1)) == [[name] for name in itself.names] or kind == "hnsw"
    made.delete(itself.names)
    assert not set(itself.names) & {name for names in found_names(made.search(itself, k=20)) for name in names}
    moved = Descriptors(itself.vectors[::-1], itself.names, "m")
    made.add(moved)
    assert len(made) == 1000
    assert made.names == (*database.names[40:], *itself.names)
    if kind != "hnsw":
        assert found_names(made.search(itself, k=1)) == [[name] for name in reversed(itself.names)]


def test_almost_all_deleted() -> None:
    for kind in INDEXES:
        made = index(places(800), kind=kind, options=CHEAP.get(kind))
        made.delete([f"d{row}" for row in range(800) if row % 100])
        found = made.search(QUERIES, k=25)
        assert found.k == 8
        assert found.database_names == tuple(f"d{row}" for row in range(0, 800, 100))
        assert (np.sort(found.rows, axis=1) == np.arange(8)).all()
        made.delete([f"d{row}" for row in range(0, 800, 100)])
        assert len(made) == 0
        with pytest.raises(InvalidInputError, match="not empty"):
            made.search(QUERIES, k=1)
        made.add(places(20, seed=3))
        assert made.search(QUERIES, k=2).k == 2


def test_names_choose_as_a_mask_does() -> None:
    made = index([places(30), places(30, seed=2, side="e")])
    made.delete(["d3", "e0"])
    mask = np.zeros(58, dtype=bool)
    mask[[0, 5, 40]] = True
    names = [made.names[row] for row in (40, 0, 5, 5)]
    by_mask, by_name = made.search(QUERIES, k=3, among=mask), made.search(QUERIES, k=3, among=names)
    assert by_mask.rows.tolist() == by_name.rows.tolist()
    assert by_mask.distances.tolist() == by_name.distances.tolist()


def test_wrong_names_change_nothing() -> None:
    for kind in ("exact", "prefix"):
        made = index(places(30), kind=kind)
        with pytest.raises(InvalidInputError, match="1 are not, the first is 'x'"):
            made.delete(["d3", "x"])
        with pytest.raises(InvalidInputError, match="got the text 'd3'"):
            made.delete("d3")
        made.delete(["d4"])
        with pytest.raises(InvalidInputError, match="'d4'"):
            made.delete(["d4"])
        with pytest.raises(InvalidInputError, match="the first is 'd4'"):
            made.search(QUERIES, k=2, among=["d5", "d4"])
        with pytest.raises(InvalidInputError, match=r"\(29,\); got \(30,\)"):
            made.search(QUERIES, k=2, among=np.ones(30, dtype=bool))
        for nothing in ([], np.zeros(29, dtype=bool)):
            with pytest.raises(InvalidInputError, match="keeps none"):
                made.search(QUERIES, k=2, among=nothing)
        with pytest.raises(InvalidInputError, match=r"'d0' is there already\. Delete it first"):
            made.add(places(6))
        assert len(made) == 29
        bad = places(2, side="n")
        bad.vectors[1, 3] = np.inf
        with pytest.raises(InvalidInputError, match="of n1 is not"):
            made.add(bad)
        assert len(made) == 29
        assert made.search(QUERIES, k=29).k == 29


def test_a_deleted_neighbour_makes_room_for_the_next_in_a_large_piece() -> None:
    """The rows that are hidden in a piece are found and dropped, so that more must be asked for."""
    database = places(3000)
    made = ExactIndex()
    made.add(database)
    nearest = made.search(QUERIES, k=10)
    made.delete(sorted({database.names[row] for row in nearest.rows.ravel()}))
    left = [row for row, name in enumerate(database.names) if name in set(made.names)]
    anew = index(part(database, np.array(left)))
    for queries in (QUERIES, places(90, seed=1, side="q")):
        assert made.search(queries, k=10).rows.tolist() == anew.search(queries, k=10).rows.tolist()


def test_an_approximate_index_is_asked_for_more_where_some_are_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    made = index(places(1000), kind="sq", options={"rescore": 20})
    asked: list[int] = []
    real = type(made).candidates  # type: ignore[attr-defined]
    monkeypatch.setattr(type(made), "candidates", lambda self, queries, count: asked.append(count) or real(self, queries, count))
    made.delete([f"d{row}" for row in range(500)])
    assert isinstance(made, ApproximateIndex)
    made.report = {"changed": 0, "count": 500, "k": 25}
    made.search(QUERIES, k=5)
    assert asked == [40]
