"""`covis index` and `covis search`: make, tune, add, delete, filter; what is approximate is said."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from made_descriptors import places
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner, Result

from covis import cli
from covis.descriptors import Descriptors
from covis.errors import CovisError, InvalidInputError, MissingFileError
from covis.indexes import index, load_index, tuning
from covis.models.checkpoints import save
from covis.models.place import PlaceModel
from covis.rankings import Rankings
from covis.settings import ModelSettings


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
        "index",
        folder / "database",
        "--out",
        folder / "index",
        "--kind",
        "pq",
        "--option",
        "rescore=25",
        "--k",
        25,
        "--queries",
        folder / "queries",
    )
    assert "pq (codes 0, rescore 25) of 600 vectors: approximate, recall@1 " in made.stderr
    assert "for 15 of queries given" in made.stderr
    changed = covis("index", folder / "more", "--out", folder / "index", "--add", "--delete", "d1", "--delete", "d2", "--k", 25)
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


def test_scenes_of_extract_are_found_and_told_apart(folder: Path) -> None:
    for name in ("cph", "sf"):
        places(30, seed=len(name)).save(folder / "described" / name / "database")
    done = covis("index", folder / "described", "--out", folder / "two")
    assert "here they are called <scene>/<name>, as cph/" in done.stderr
    names = load_index(folder / "two").names
    assert names == tuple(f"{scene}/{name}" for scene in ("cph", "sf") for name in places(30).names)
    covis("index", folder / "described" / "cph", "--out", folder / "one")
    assert load_index(folder / "one").names == places(30).names
    with pytest.raises(InvalidInputError, match=r"must go to another place than its descriptors"):
        covis("index", folder / "database", "--out", folder / "database", "--overwrite")
    assert len(Descriptors.load(folder / "database")) == 600


def test_photographs_are_asked_with_the_model_and_the_whitening(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for row in range(12):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(folder / "photos" / f"{row}.png")
    model = PlaceModel(
        ModelSettings(backbone="resnet10t", backbone_options={"channels": (8, 8, 8, 8), "stem_width": 8}, height=32, width=32)
    )
    save(model, folder / "model")
    covis("extract", folder / "photos", "--layout", "folder", "--model", folder / "model", "--out", folder / "d")
    covis("whiten", folder / "d", "--dim", 4, "--out", folder / "w")
    for made, more in (("d", ()), ("w", ("--whitening", folder / "w" / "whitening.npz"))):
        covis("index", folder / made, "--out", folder / f"{made}-index")
        asking = ("search", folder / f"{made}-index", "--model", folder / "model", *more, "--k", 2)
        said = covis(*asking, folder / "photos" / "7.png").stdout.splitlines()
        assert said[0] == str(folder / "photos" / "7.png")
        assert said[1].split()[0] == "1"
        assert float(said[1].split()[1]) < 2e-3
        assert said[1].split()[2] == "7.png"
        assert len(said) == 3
        covis(*asking, folder / "photos", "--out", folder / f"{made}.npz")
        assert Rankings.load(folder / f"{made}.npz").rows[:, 0].tolist() == list(range(12))
    with pytest.raises(InvalidInputError, match=r"holds whitened descriptors, and the queries are not whitened\. Give --whitening"):
        covis("search", folder / "w-index", folder / "photos", "--model", folder / "model")
    save(PlaceModel(model.settings, seed=1), folder / "other")
    with pytest.raises(InvalidInputError, match=r"described by the model of the index"):
        covis("search", folder / "d-index", folder / "photos", "--model", folder / "other")
    with pytest.raises(InvalidInputError, match=r"or photographs with --model"):
        covis("search", folder / "d-index", folder / "photos" / "7.png")
    with pytest.raises(MissingFileError, match=r"there is no file .*nowhere"):
        covis("search", folder / "d-index", "nowhere.jpg", "--model", folder / "model")


def test_the_tuner_prints_what_it_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "FEW", 0)
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
