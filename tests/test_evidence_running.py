"""Running the evidence: what is run again, what is left out and said, what goes on after a failure. Nothing is trained here."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("evidence.running", reason="evidence/ stands beside the source, not in the wheel")

from covis.errors import CovisError, DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import digest, locked
from evidence import __main__ as command
from evidence import photographs, preparing, probes, running
from evidence.plan import Experiment, Plan, Source, load_plan
from evidence.records import Asked, Record, Scored, Store
from evidence.running import Places, differing, lacking, measured, open_cells, run, settings
from tests.made_cells import drawn, scores

ALL = ("trained", "whitened", "whitened 32", "on corridor", "on seasons", "on campus")
TWO_STAGE = Experiment("two-stage", measure="somewhere:measure")


@pytest.fixture(scope="module")
def plan():
    return load_plan()


@pytest.fixture
def places(tmp_path):
    """Where photographs of a corridor and of a campus lie, and no others."""
    (tmp_path / "data" / "corridor").mkdir(parents=True)
    (tmp_path / "data" / "campus").mkdir()
    (tmp_path / "data" / "campus" / "gt.csv").touch()
    return Places(tmp_path / "cells", tmp_path / "work", tmp_path / "data")


@pytest.fixture
def cell(plan):
    return next(plan.cells(["graded"], arms=["GCL"]))


def made(cell, plan, names):
    """A record of a cell, scored in these ways."""
    return Record(cell.study.name, cell.arm, cell.seed, {name: Scored("key", {}) for name in names}, {}, settings(cell, plan), "")


class OneByOne:
    """In place of a pool of processes: here, and at once."""

    environment: str | None = None
    workers = 0

    def __init__(self, *, max_workers, mp_context, initializer):
        OneByOne.environment, OneByOne.workers = os.environ.get("OMP_NUM_THREADS"), max_workers

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return False

    def submit(self, function, *given, **named):
        future = Future()
        try:
            future.set_result(function(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def swept(monkeypatch, plan):
    """The cells that were trained: none is, each leaves a record at once. Nothing is built."""
    ran = []

    def leave(cell, plan, places, store):
        ran.append(cell)
        hits = {"recall@1": drawn(0.5, 0)}
        names = tuple(f"q{row}" for row in range(120))
        key = store.keep(Asked(names, np.arange(120), "queries"))
        return Record(cell.study.name, cell.arm, cell.seed, {"trained": Scored(key, hits)}, {}, settings(cell, plan), "")

    monkeypatch.setattr(running, "_swept", leave)
    monkeypatch.setattr(running, "ProcessPoolExecutor", OneByOne)
    monkeypatch.setattr(preparing, "prepare", lambda source, name, places, **_: places.work / name)
    return ran


def test_no_study_runs_among_the_files_of_its_data(plan, places):
    folders = [folder for cell in plan.cells() for folder in running._folders(cell, places)]
    assert not [folder for folder in folders for name in plan.data if folder.is_relative_to(places.work / name)]


# --- what is run again


def test_records_that_lack_what_can_be_measured_now_are_open(plan, places, cell):
    store, said = Store(places.cells), []
    store.save(made(cell, plan, ALL[:3]))
    assert open_cells(plan, replace(places, data=None), [cell]) == []
    assert open_cells(plan, places, [cell], say=said.append) == [cell]
    assert said == ["graded: 1 cells are run again: their records lack on corridor, on campus"]
    store.save(made(cell, plan, ALL))
    assert open_cells(plan, places, [cell]) == []


@pytest.mark.parametrize(
    ("names", "lacks"),
    [
        (("trained", "whitened", "on corridor", "on campus"), "fewer dimensions"),
        (("trained", "whitened 32, fitted on training images", "on corridor"), "on campus"),
        (("trained", "whitened 8", "on corridor", "on campus"), ""),
    ],
)
def test_what_a_record_lacks_is_named(plan, places, cell, names, lacks):
    assert lacking(made(cell, plan, names), cell, places) == lacks


def test_a_study_without_probes_lacks_nothing(plan, places):
    cell = next(plan.cells(["tuned"]))
    assert lacking(made(cell, plan, ["trained"]), cell, places) == ""


def test_a_preset_that_was_changed_is_other_data(plan, cell, monkeypatch):
    from covis.town import surveys

    before = settings(cell, plan)
    assert not differing(before, settings(cell, plan))
    changed = {**surveys.SURVEYS, "stand": replace(surveys.SURVEYS["stand"], samples=3)}
    monkeypatch.setattr(surveys, "SURVEYS", changed)
    assert "data.survey" in differing(before, settings(cell, plan))
    older = {**before, "data": {key: value for key, value in before["data"].items() if key != "survey"}}
    assert differing(older, settings(cell, plan)) == ""  # what it was is not known


def test_a_cell_leaves_no_run_behind_and_half_a_removal_is_no_run(plan, places, swept, monkeypatch):
    cell = next(plan.cells(["tuned"]))
    run_folder, kept = running._folders(cell, places)
    for folder in (run_folder, kept):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    order = []
    monkeypatch.setattr(running.shutil, "rmtree", lambda path, **_: order.append(path.name))
    running._run_alone(cell, plan, places, again=True)
    assert not run_folder.exists()  # another name, before the first file is removed
    assert not kept.exists()
    assert f".{run_folder.name}.removed" in order


def test_a_run_that_was_killed_goes_on(plan, places, swept):
    """Its folder is there: the sweep, which goes on from the checkpoint, finds it and what it has noted."""
    cell = next(plan.cells(["tuned"]))
    run_folder, kept = running._folders(cell, places)
    seen = []

    def look(*given):
        seen.append((run_folder.exists(), kept.exists()))
        return made(cell, plan, ["trained"])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running, "_swept", look)
        patched.setattr(running, "_mean", lambda one: 0.0)
        kept.mkdir(parents=True)
        running._run_alone(cell, plan, places, again=True)
        run_folder.mkdir(parents=True)
        kept.mkdir(parents=True)
        running._run_alone(cell, plan, places, again=True)
    assert seen == [(False, False), (True, True)]


# --- before the first process


def test_a_cell_that_another_process_runs_comes_last(plan, places, swept, monkeypatch):
    first, second = list(plan.cells(["tuned"]))[:2]
    other = ExitStack()  # in place of another process
    other.enter_context(locked(places.work / f".{digest([first.study.name, first.arm, first.seed])}.lock"))
    leave = running._swept

    def let_go(*given):
        other.close()
        return leave(*given)

    monkeypatch.setattr(running, "_swept", let_go)
    said = []
    assert run(plan, places, cells=[first, second], say=said.append) == {}
    assert swept == [second, first]
    assert [line[:5] for line in said] == ["[1/2]", "[2/2]"]


def test_sets_that_are_not_there_are_left_out_and_said_once(plan, places, swept, monkeypatch):
    asked, said = [], []
    monkeypatch.setattr(probes, "ready", lambda sizes, data, work, *, only: asked.append((set(sizes), work, only)))
    cells = [*plan.cells(["start"], seeds=[0]), *plan.cells(["graded"], arms=["GCL", "CL"], seeds=[0])]
    assert run(plan, places, cells=cells, say=said.append) == {}
    assert len(swept) == len(cells)
    model = cells[0].recipe().model
    assert asked == [({(model.height, model.width, model.resize)}, places.work / "transfer", ["corridor", "campus"])] * 2
    absent = [line for line in said if "on seasons" in line]
    assert absent == [f"left out of start, graded: the scores on seasons: their photographs are not in {places.data}"]


def test_only_the_sets_that_are_there_are_asked(plan, places, cell, monkeypatch):
    asked = []
    monkeypatch.setattr(probes, "transfer", lambda model, data, work, *, only: asked.append((model, only)) or {})
    running._probed("transfer", cell, places.work, places)
    assert asked == [(places.work / "train" / "model", ["corridor", "campus"])]
    running._probed("transfer", next(load_plan().cells(["start"])), places.work, places)
    assert asked[1:] == [(places.work / "untrained", ["corridor", "campus"]), (None, ["corridor", "campus"])]


def test_what_is_damaged_is_found_before_the_first_training(plan, places, swept):
    said = []
    (places.data / "campus" / "gt.csv").write_text("nothing\n")
    assert run(plan, places, cells=[*plan.cells(["graded", "tuned"], arms=["GCL"])], say=said.append) == {}
    assert {one.study.name for one in swept} <= {"tuned"}
    assert any(line.startswith("left out: graded: ") for line in said)


@pytest.mark.parametrize("study", ["kitchen", "campus-structure"])
def test_weights_are_looked_for_before_the_first_training(plan, places, swept, study):
    said = []
    run(plan, places, cells=[*plan.cells([study], seeds=[0])], say=said.append)
    assert swept == []
    assert any(line.startswith(f"left out: {study}: The backbone's weights must be") for line in said)


def test_photographs_are_made_small_once_for_all_processes(town, tmp_path, monkeypatch):
    given = photographs.TestSet("town", (town[0],), None, photographs.protocol("radius/10"))
    monkeypatch.setattr(probes, "test_set", lambda name, data, work: given)
    probes.ready([(24, 32, "pil"), (24, 32, "pil")], tmp_path, tmp_path, only=["campus"])
    folders = [path for path in (tmp_path / "asked").iterdir() if path.is_dir()]
    monkeypatch.setattr(photographs, "atomic_path", None)  # nothing is made again
    (queries, _), *_ = probes.describe(given, running_model(24, 32), tmp_path)
    assert queries.names == town[0].queries.names
    assert all(path.name.startswith("24x32-pil-") for path in folders)


def running_model(height, width):
    from covis.models.place import PlaceModel
    from covis.settings import ModelSettings

    return PlaceModel(ModelSettings(backbone="resnet10t", height=height, width=width), seed=1)


def test_the_environment_is_as_before(plan, places, swept, monkeypatch):
    cells = list(plan.cells(["tuned"], seeds=[0]))[:1]
    for before in (None, "7"):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if before:
            monkeypatch.setenv("OMP_NUM_THREADS", before)
        run(plan, places, cells=cells, say=lambda _: None)
        assert OneByOne.environment == "1"
        assert os.environ.get("OMP_NUM_THREADS") == before


def test_windows_has_no_more_than_61_processes(plan, places, swept, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    run(plan, places, cells=list(plan.cells(["tuned"], seeds=[0]))[:1], workers=99, say=lambda _: None)
    assert OneByOne.workers == 61
    with pytest.raises(InvalidInputError, match=r"At least 1 worker"):
        run(plan, places, cells=[], workers=0)


# --- what is measured by a function of its own


def test_rows_are_kept_as_they_come_and_not_measured_again(places, monkeypatch):
    asked, broken = [], [True]

    def measure(*, data, work, say, known, overwrite):
        asked.append((sorted(known), overwrite))
        for arm in ("a", "b"):
            if arm not in known:
                if arm == "b" and broken:
                    raise InvalidInputError("no b today")
                yield arm, scores(drawn(0.5, 0)), {"k": 0.0}

    monkeypatch.setattr(running, "resolve", lambda *given, **named: measure)
    with pytest.raises(InvalidInputError, match=r"no b today"):
        measured(TWO_STAGE, places)
    assert list(Store(places.cells).records("two-stage")) == ["a"]
    assert not (places.cells / "two-stage" / "whole").exists()
    broken.clear()
    measured(TWO_STAGE, places)
    assert sorted(Store(places.cells).records("two-stage")) == ["a", "b"]
    measured(TWO_STAGE, places)  # whole: nothing is asked
    measured(TWO_STAGE, places, overwrite=True)
    assert asked == [([], False), (["a"], False), ([], True)]


def test_what_needs_photographs_is_left_out_with_words(places):
    said = []
    measured(TWO_STAGE, replace(places, data=None), say=said.append)
    assert len(said) == 1
    assert said[0].startswith("left out: two-stage: it needs real photographs")


def test_two_stage_leaves_out_what_is_known_and_overwrites_what_was_kept(tmp_path, monkeypatch):
    from evidence import twostage

    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "features").touch()
    given = photographs.TestSet("corridor", (), None, photographs.protocol("graded/0.5"))
    monkeypatch.setattr(twostage, "test_set", lambda *_: given)
    monkeypatch.setattr(twostage, "PlaceModel", lambda *_, **__: None)
    monkeypatch.setattr(twostage, "_searched", lambda *_: ([], {"seconds describing": 1.0, "seconds searching": 1.0}))
    monkeypatch.setattr(twostage, "_seconds", lambda _: {})
    monkeypatch.setattr(twostage, "evaluate", lambda *_, **__: scores(drawn(0.5, 0)))
    wanted = {"data": tmp_path, "work": tmp_path, "say": lambda _: None, "sets": ["corridor"], "ks": (5,)}
    every = [arm for arm, *_ in twostage.measure(**wanted)]
    assert every == ["corridor, k = 0", *(f"corridor, {name}, k = 5" for name in twostage.MATCHERS)]
    assert [arm for arm, *_ in twostage.measure(**wanted, known=every[:3])] == every[3:]
    assert (tmp_path / "local" / "features").exists()
    assert [arm for arm, *_ in twostage.measure(**wanted, known=every[:3], overwrite=True)] == every
    assert not (tmp_path / "local").exists()
    monkeypatch.delattr(twostage, "_searched")
    assert list(twostage.measure(**wanted, known=every)) == []  # nothing is described in vain


# --- the command


@pytest.fixture
def page(monkeypatch, tmp_path):
    """Pages that were written: none is."""
    from evidence import page

    written = []
    monkeypatch.setattr(page, "write", lambda *given, **named: written.append(1) or [])
    monkeypatch.setenv("COVIS_DATA", str(tmp_path))
    return written


def test_a_measurement_that_fails_does_not_cost_the_page(page, tmp_path, monkeypatch, capsys):
    def measured(*given, **named):
        raise InvalidInputError("no OpenCV")

    monkeypatch.setattr(command, "measured", measured)
    assert command.main(["--only", "two-stage", "--out", str(tmp_path)]) == 1
    assert page == [1]
    assert "failed: two-stage: InvalidInputError: no OpenCV" in capsys.readouterr().err


@pytest.mark.parametrize("narrowed", [["--arm", "GCL"], ["--seeds", "0"]])
def test_an_arm_or_a_seed_is_of_studies(page, tmp_path, monkeypatch, narrowed):
    ran = []
    monkeypatch.setattr(command, "open_cells", lambda plan, places, cells, **_: ran.append(len(cells)) or [])
    monkeypatch.setattr(command, "measured", lambda *given, **named: ran.append("two-stage"))
    assert command.main([*narrowed, "--out", str(tmp_path)]) == 0
    assert ran[0] > 0
    assert "two-stage" not in ran


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--arm", "CGL"], "There is no arm 'CGL' in tuning"),
        (["--only", "graded", "--arm", "GCLL"], "Did you mean 'GCL'?"),
        (["--only", "graded", "--seeds", "99"], "A seed must be one that a chosen study has: 0"),
        (["--only", "two-stage", "--seeds", "0"], "none; got 0"),
        (["--only", "grated"], "Did you mean 'graded'?"),
        (["--table", "--only", "grated"], "Did you mean 'graded'?"),
    ],
)
def test_what_is_not_there_is_no_success(page, tmp_path, capsys, given, said):
    assert command.main([*given, "--out", str(tmp_path)]) == 1
    assert said in capsys.readouterr().err
    assert page == []


@pytest.mark.parametrize("count", ["0", "-2", "many"])
def test_there_must_be_a_process(page, tmp_path, capsys, count):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--workers", count, "--out", str(tmp_path)])
    assert "--workers" in capsys.readouterr().err


def test_arms_and_seeds_that_no_study_has_together(plan, monkeypatch):
    studies = [replace(plan.study(one), seeds=seeds) for one, seeds in zip(plan.chosen(["graded", "noise"]), ((0,), (1,)), strict=True)]
    monkeypatch.setattr(Plan, "study", lambda self, one: next(study for study in studies if study.name == one.study))
    assert {cell.seed for cell in plan.cells(["graded", "noise"], arms=["GCL*"], seeds=[1])} == {1}
    with pytest.raises(InvalidInputError, match=r"none has both"):
        list(plan.cells(["graded", "noise"], arms=["GCL, shuffled"], seeds=[1]))
    with pytest.raises(UnknownNameError, match=r"GCL, shuffled"):
        list(plan.cells(["graded"], arms=["GCL, shufled"]))


# --- the plan's file

DATA = '[data.town]\npreset = "tiny"\n'


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[data", DamagedFileError, r"must be TOML"),
        ("", InvalidInputError, r"it holds nothing"),
        ("data = 3\nexperiments = []\n", InvalidInputError, r"must hold tables"),
        (DATA + 'experiments = ["graded"]\n', InvalidInputError, r"must hold tables|no setting"),
        ('[data.town]\nseed = 3\n[[experiments]]\nstudy = "a"\ndata = "town"\n', InvalidInputError, r"data\.town must have either .* none"),
        (DATA + '[[experiments]]\nstudy = "a"\n', InvalidInputError, r"'a' must have either data .* none"),
        (DATA + '[[experiments]]\nstudy = "a"\ndata = "town"\nmeasure = "b:c"\n', InvalidInputError, r"it has both"),
        (DATA + '[[experiments]]\ndata = "town"\n', InvalidInputError, r"study"),
        (DATA + '[[experiments]]\nstudy = "a"\ndata = "twon"\n', InvalidInputError, r"no 'twon'\. Did you mean 'town'"),
        (DATA + '[[experiments]]\nstudy = "a"\ndata = "town"\nprobes = ["transfr"]\n', InvalidInputError, r"Did you mean 'transfer'"),
        (
            '[data.k]\nphotographs = "kitchen"\n[[experiments]]\nstudy = "a"\ndata = "k"\nquick = ["b"]\n',
            InvalidInputError,
            r"synthetic world",
        ),
    ],
)
def test_a_damaged_plan_is_named(tmp_path, text, kind, said):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(kind, match=said) as raised:
        load_plan(path=tmp_path / "plan.toml")
    assert "plan.toml" in str(raised.value)
    assert isinstance(raised.value, CovisError)


def test_a_small_plan_is_read(tmp_path):
    (tmp_path / "plan.toml").write_text(DATA + '[[experiments]]\nstudy = "graded"\ndata = "town"\nprobes = ["transfer"]\n')
    assert load_plan(path=tmp_path / "plan.toml") == Plan({"town": Source("tiny")}, (Experiment("graded", "town", probes=("transfer",)),))


# --- killed


def test_a_worker_ends_with_what_started_it(tmp_path):
    """Else it would go on with its cell, unseen, and write its record later."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from evidence.running import _pool\n"
        "if __name__ == '__main__':\n"
        "    with _pool(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 60)\n"
        "        time.sleep(60)\n"
    )
    root = str(Path(__file__).parent.parent)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return  # ended, and nobody has looked yet
        time.sleep(0.1)
    pytest.fail("the worker goes on")
