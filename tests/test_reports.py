"""Reports: the sheet shows what was found, the table what was measured."""

import numpy as np
import pytest
from scipy import sparse

from covis.datasets import read_7scenes
from covis.errors import InvalidInputError, MissingFileError
from covis.labels import Labels
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.rasters import read_image
from covis.reports.sheets import RIGHT, WRONG, retrieval_sheet
from covis.reports.tables import score_table
from covis.scores import Metric, Scores

AMBER = (191, 135, 0)


@pytest.fixture
def parts(room):
    (scene,) = read_7scenes(room())
    matrix = sparse.csr_array(np.array([[0.9, 0.3, 0], [0, 0, 0], [0.5, 0, 0]]))
    labels = Labels(matrix, scene.queries.names, scene.database.names, rule="x")
    found = Rankings(np.tile([0, 1, 2], (3, 1)), np.full((3, 3), np.nan), scene.queries.names, scene.database.names)
    return scene, found, labels


def drawn(path, parts, **options):
    scene, found, labels = parts
    out = retrieval_sheet([scene], [found], [labels], **({"protocol": protocol("graded/0.5"), "out": path, "width": 40} | options))
    return read_image(out)


def frames(sheet, colour):
    """How many of the tiles' upper left corners have the colour: they are 5 pixels thick, text is not."""
    same = (sheet == np.array(colour, dtype=np.uint8)).all(axis=2)
    block = np.lib.stride_tricks.sliding_window_view(same, (5, 5)).all(axis=(2, 3))
    corner = block.copy()
    corner[1:] &= ~block[:-1]
    corner[:, 1:] &= ~block[:, :-1]
    return int(corner.sum())


def test_right_partly_and_wrong_have_their_colours(tmp_path, parts):
    """Two queries have a positive: right, amber, wrong; and right, wrong, wrong."""
    sheet = drawn(tmp_path / "sheet.png", parts)
    assert [frames(sheet, colour) for colour in (RIGHT, AMBER, WRONG)] == [2, 1, 3]
    gcl = drawn(tmp_path / "gcl.png", parts, protocol=protocol("7scenes/gcl"))  # all queries; 0.5 is no positive
    assert [frames(gcl, colour) for colour in (RIGHT, AMBER, WRONG)] == [1, 2, 6]


def test_only_so_many_are_shown(tmp_path, parts):
    sheet = drawn(tmp_path / "sheet.png", parts, rows=1, shown=1)
    assert [frames(sheet, colour) for colour in (RIGHT, AMBER, WRONG)] == [1, 0, 0]


def test_excluded_pairs_take_no_place(tmp_path, parts):
    scene, found, labels = parts
    excluded = sparse.csr_array(np.array([[False, False, True]] * 3))
    masked = Labels(labels.matrix, labels.query_names, labels.database_names, rule="x", excluded=excluded)
    sheet = drawn(tmp_path / "sheet.png", (scene, found, masked))
    assert [frames(sheet, colour) for colour in (RIGHT, AMBER, WRONG)] == [2, 1, 1]


def test_a_sheet_needs_queries_and_files(tmp_path, parts):
    scene, found, labels = parts
    empty = Labels(sparse.csr_array((3, 3)), labels.query_names, labels.database_names, rule="x")
    sheet = drawn(tmp_path / "all.png", (scene, found, empty))
    assert frames(sheet, RIGHT) == 0, "where no query is counted, all are drawn, and nothing is right"
    with pytest.raises(InvalidInputError, match="needs a query"):
        retrieval_sheet([], [], [], protocol=protocol("graded/0.5"), out=tmp_path / "none.png")
    scene.database.path(0).unlink()
    with pytest.raises(MissingFileError, match="frame-000000"):
        drawn(tmp_path / "sheet.png", parts)
    assert not (tmp_path / "sheet.png").exists()


INTERVAL = {"method": "percentile bootstrap", "unit": "sequences", "count": 12, "samples": 10, "level": 0.95, "seed": 0}


def scores(value, *, name="graded/0.5", queries=("a", "b"), interval=INTERVAL, metrics=("recall@1", "recall@5", "AP")):
    return Scores(protocol(name), {m: Metric(value, value / 2, 1.0, 2) for m in metrics}, queries, {}, interval)


def test_the_table_has_numbers_intervals_and_the_protocol():
    text = score_table({"untrained": scores(0.25), "trained": scores(0.5)}, dims={"untrained": 512, "trained": 64})
    lines = text.splitlines()
    assert lines[0].split() == ["descriptor", "dim", "recall@1", "recall@5", "AP"]
    assert lines[2].split()[:5] == ["untrained", "512", "0.250", "[0.125,", "1.000]"]
    assert lines[3].startswith("trained")
    assert "2 of 2 queries counted; 95% intervals by percentile bootstrap over 12 sequences." in text
    assert protocol("graded/0.5").card() in text


def test_columns_that_not_all_have_are_left_out():
    text = score_table({"a": scores(0.1), "b": scores(0.2, metrics=("recall@1",))}, dims={"a": 1, "b": 2})
    assert text.splitlines()[0].split() == ["descriptor", "dim", "recall@1"]
    assert "queries counted." in score_table({"a": scores(0.1, interval={})}, dims={"a": 1})


def test_what_cannot_be_compared_is_refused():
    for other in (scores(0.2, name="7scenes/gcl"), scores(0.2, queries=("a", "c"))):
        with pytest.raises(InvalidInputError, match="'b' is under"):
            score_table({"a": scores(0.1), "b": other}, dims={"a": 1, "b": 2})
    with pytest.raises(InvalidInputError, match="row"):
        score_table({}, dims={})
    with pytest.raises(InvalidInputError, match="column"):
        score_table({"a": scores(0.1)}, dims={"a": 1}, columns=("recall@7",))
