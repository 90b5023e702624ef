"""The journal of a run, and the watch over descriptors that become all alike."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from covis.errors import CovisWarning
from covis.training.collapse import Watch
from covis.training.journals import COLUMNS, Journal

FED = {"waited": 0.0, "mined": 0.0, "mining": 0.0}


def _values(**changed: float) -> dict[str, float]:
    values = {"loss": 0.1, "floor": 0.02, "null": 0.25, "spread": 0.4, "gradient_norm": 1.5, "learning_rate": 1e-3}
    return {**values, "validation": float("nan"), **changed}


def _journal(out: Path, *, done: int = 0) -> Journal:
    out.mkdir(exist_ok=True)
    return Journal(out, steps=1000, items=8, margin=0.5, done=done)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_written_as_they_come_and_what_is_undefined_is_empty(tmp_path: Path) -> None:
    with _journal(tmp_path / "run") as journal:
        journal.write(1, _values(spread=float("nan")), fed=FED)
        journal.write(10, _values(validation=0.5), fed={"waited": 0.0, "mined": 12.0, "mining": 0.25})
        first, second = _rows(tmp_path / "run")
    assert tuple(first) == COLUMNS
    assert (first["spread"], first["validation"], first["mined"]) == ("", "", "0")
    assert (second["spread"], second["validation"], second["mined"], second["mining"]) == ("0.4", "0.5", "12", "0.25")


def test_a_resumed_journal_strikes_out_what_was_not_kept_and_goes_on(tmp_path: Path) -> None:
    with _journal(tmp_path / "run") as journal:
        for step in (1, 10, 20, 30):
            journal.write(step, _values(), fed=FED)
    before = float(_rows(tmp_path / "run")[2]["seconds"])
    with (tmp_path / "run" / "log.csv").open("a") as stream:
        stream.write("40,0.1,0.")  # what a kill leaves
    with _journal(tmp_path / "run", done=25) as journal:
        journal.write(30, _values(loss=0.7), fed=FED)
    rows = _rows(tmp_path / "run")
    assert [row["step"] for row in rows] == ["1", "10", "20", "30"]
    assert rows[3]["loss"] == "0.7"
    assert float(rows[3]["seconds"]) >= before


def test_rate_and_waiting_are_of_the_time_since_the_row_before_validation_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("covis.training.journals.time.perf_counter", lambda: clock[0])
    with _journal(tmp_path / "run") as journal:
        clock[0] += 2
        journal.write(10, _values(), fed={"waited": 0.5, "mined": 0, "mining": 0})
        clock[0] += 4
        with journal.paused():
            clock[0] += 50
        journal.write(20, _values(), fed={"waited": 2.5, "mined": 0, "mining": 0})
    first, second = _rows(tmp_path / "run")
    assert (float(first["items_per_second"]), float(first["waiting"])) == (40, 0.25)
    assert (float(second["items_per_second"]), float(second["waiting"])) == (20, 0.5)
    assert float(second["seconds"]) == 56


HEALTHY = {
    "from random weights": [0.02, 0.018, 0.02, 0.03, 0.05, 0.1, 0.2, *[0.22] * 30, *np.linspace(0.22, 0.6, 40)],
    "a dip at the start": [0.08, *[0.02] * 30, *np.linspace(0.02, 0.4, 30)],
    "slow from nothing": [*[1e-4] * 40, *np.linspace(1e-4, 0.3, 60)],
    "a bad batch now and then": [0.7 if row % 4 else 0.01 for row in range(80)],
    "down to the margin": np.linspace(1.3, 0.45, 60),
    "no unrelated images": [0.6, *[float("nan")] * 50, 0.5],
}
COLLAPSED = {
    "at once": [0.3, *[1e-3] * 12],
    "from random weights": [0.05, *[1e-4] * 12],
    "late": [*np.linspace(0.02, 0.6, 40), *[0.02] * 12],
    "slowly": np.geomspace(0.6, 1e-3, 60),
    "rows without unrelated images between": [0.5, *[0.001, float("nan")] * 12],
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_healthy_run_is_not_suspected(kind: str) -> None:
    watch = Watch(0.5)
    assert not any(watch.sees(float(spread)) for spread in HEALTHY[kind])


@pytest.mark.parametrize("kind", COLLAPSED)
def test_a_collapse_is_said_once(kind: str) -> None:
    watch = Watch(0.5)
    assert sum(watch.sees(float(spread)) for spread in COLLAPSED[kind]) == 1
    assert not any(watch.sees(1e-5) for _ in range(30))


def test_the_warning_names_step_and_value_and_is_not_said_again_after_a_stop(tmp_path: Path) -> None:
    with _journal(tmp_path / "run") as journal:
        for step in (1, *range(10, 91, 10)):
            journal.write(step, _values(spread=0.5 if step == 1 else 0.001), fed=FED)
        with pytest.warns(CovisWarning, match=r"at step 100 unrelated images of a batch are 0\.001 apart.*log\.csv"):
            journal.write(100, _values(spread=0.001), fed=FED)
        journal.write(110, _values(spread=0.001), fed=FED)
    with _journal(tmp_path / "run", done=110) as journal:  # warnings are errors in the tests
        for step in range(120, 300, 10):
            journal.write(step, _values(spread=0.001), fed=FED)


def test_a_log_begun_before_there_were_guides_goes_on(tmp_path: Path) -> None:
    with _journal(tmp_path / "run") as journal:
        for step in (1, 10):
            journal.write(step, _values(), fed=FED)
    log = tmp_path / "run" / "log.csv"
    log.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in log.read_text().splitlines()))  # without the last column
    with _journal(tmp_path / "run", done=10) as journal:
        journal.write(20, _values(guided=0.3), fed=FED)
    assert [(row["step"], row["guided"]) for row in _rows(tmp_path / "run")] == [("1", ""), ("10", ""), ("20", "0.3")]
