"""`covis index` and `covis search`: make, tune, add, delete, filter; what is approximate is said."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from made_descriptors import places
from typer.main import get_command
from typer.testing import CliRunner, Result

from covis import cli
from covis.descriptors import Descriptors
from covis.errors import CovisError
from covis.indexes import index, load_index
from covis.rankings import Rankings


def covis(*arguments: object) -> Result:
    """Run the command in this process; an error of covis is raised."""
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if isinstance(done.exception, CovisError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Descriptors: a database of 600, 20 more, and 15 queries."""
    places(600).save(tmp_path / "database")
    places(20, seed=2, side="e").save(tmp_path / "more")
    places(15, seed=1, side="q").save(tmp_path / "queries")
    return tmp_path


def test_defaults_are_those_of_the_function() -> None:
    options = {p.name: p.default for p in get_command(cli.app).commands["index"].params}  # type: ignore[attr-defined]
    for name, parameter in inspect.signature(index).parameters.items():
        if name in options and name not in ("descriptors", "options"):
            assert options[name] == parameter.default, name


def test_an_exact_index_says_nothing_of_recall(folder: Path) -> None:
    done = covis("index", folder / "database", folder / "more", "--out", folder / "index")
    assert done.stdout.split() == [str(folder / "index")]
    assert "recall" not in done.stderr
    assert "auto: exact, for up to 200,000 vectors" in done.stderr
    done = covis("search", folder / "index", folder / "queries", "--out", folder / "r.npz", "--k", 7)
    assert done.stdout.split() == [str(folder / "r.npz")]
    assert "15 queries in " in done.stderr
    assert "queries/s, exact search of 620 vectors" in done.stderr
    found = Rankings.load(folder / "r.npz")
    again = index([places(600), places(20, seed=2, side="e")]).search(places(15, seed=1, side="q"), k=7)
    assert found.rows.tolist() == again.rows.tolist()


def test_an_approximate_index_says_its_recall_when_made_changed_and_asked(folder: Path) -> None:
    made = covis(
        "index", folder / "database", "--out", folder / "index", "--kind", "pq", "--option", "rescore=25", "--queries", folder / "queries"
    )
    assert "pq (codes 0, rescore 25) of 600 vectors: approximate, recall@1 " in made.stderr
    assert "for 15 of queries given" in made.stderr
    changed = covis("index", folder / "more", "--out", folder / "index", "--add", "--delete", "d1", "--delete", "d2")
    assert "2 deleted, 20 added, 618 vectors now" in changed.stderr
    assert "of 618 vectors: approximate" in changed.stderr
    asked = covis("search", folder / "index", folder / "queries", "--out", folder / "r.npz")
    assert "of 618 vectors: approximate" in asked.stderr
    assert Rankings.load(folder / "r.npz").history["recall"]["count"] == 618


def test_add_delete_and_among_read_files_of_names(folder: Path) -> None:
    covis("index", folder / "database", "--out", folder / "index")
    (folder / "gone.txt").write_text("d3\nd5\n\nd7")
    covis("index", "--out", folder / "index", "--delete-from", folder / "gone.txt")
    assert load_index(folder / "index").names == tuple(f"d{row}" for row in range(600) if row not in (3, 5, 7))
    (folder / "among.txt").write_text("d4\nd6\nd8\n")
    covis("search", folder / "index", folder / "queries", "--out", folder / "r.npz", "--among", folder / "among.txt", "--k", 2)
    found = Rankings.load(folder / "r.npz")
    assert {found.database_names[row] for row in np.unique(found.rows)} <= {"d4", "d6", "d8"}
    assert found.history["among"] == 3
    covis("index", folder / "more", "--out", folder / "index", "--add")
    assert len(load_index(folder / "index")) == 617


def test_the_tuner_prints_what_it_tried(folder: Path) -> None:
    done = covis("index", folder / "database", "--out", folder / "index", "--recall", 0.9, "--kind", "prefix", "--k", 5)
    trials = json.loads((folder / "index" / "index.json").read_text())["trials"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("prefix ") and "queries/s" in line and "approximate" not in line]
    assert len(lines) == len(trials) >= 3
    assert "recall 0.9 of the first and of the first 5 asked for" in done.stderr


def test_wrong_calls_are_refused_and_write_nothing(folder: Path) -> None:
    database, out = folder / "database", folder / "index"
    covis("index", database, "--out", out)
    before = sorted(file.name for file in out.iterdir())
    wrong: list[tuple[list[object], str]] = [
        (["index", "--out", folder / "new"], "made of one or more"),
        (["index", database, "--out", out], "already there"),
        (["index", "--out", out, "--add"], "needs descriptors"),
        (["index", folder / "more", "--out", out, "--delete", "d1"], "with --add"),
        (["index", folder / "more", "--out", out, "--add", "--kind", "pq"], "--kind makes an index"),
        (["index", "--out", out, "--delete", "d1", "--overwrite"], "--overwrite makes an index"),
        (["index", "--out", out, "--delete", "nobody"], "the first is 'nobody'"),
        (["index", database, "--out", out, "--add"], "'d0' is there already"),
        (["index", "--out", folder / "new", "--delete", "d1"], "must exist"),
        (["index", database, "--out", folder / "new", "--kind", "pq", "--option", "codes=5"], "must divide"),
        (["search", out, folder / "queries", "--out", folder / "r.npz", "--among", folder / "none.txt"], "must exist"),
        (["search", out, folder / "queries", "--out", folder / "r.npz", "--k", 0], "k >= 1"),
    ]
    for arguments, words in wrong:
        with pytest.raises(CovisError, match=words.replace("(", r"\(")):
            covis(*arguments)
    assert sorted(file.name for file in out.iterdir()) == before
    assert not (folder / "new").exists()
    assert not (folder / "r.npz").exists()
    assert len(Descriptors.load(database)) == len(load_index(out))
