"""What a training run shows and writes down while it goes: a bar on stderr, `log.csv`, and TensorBoard's events."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from covis.errors import MissingExtraError
from covis.files import write_text

EVERY = 10
"""Steps between two rows."""

COLUMNS = ("step", "loss", "null", "learning_rate", "seconds")
"""Of `log.csv`: loss is the batch's mean, null the share of its pairs that teach nothing (loss exactly 0)."""


class Journal:
    """A run's rows; a resumed run goes on after its last checkpoint, and what was written beyond it is struck out.

    Args:
        out: the run's folder.
        steps: that the run will take in all.
        done: that its last checkpoint has taken.
        tensorboard: write events under `out/tensorboard` too.
        shown: show a bar on stderr.

    Raises:
        MissingExtraError: `tensorboard` is asked for and not installed.
    """

    def __init__(self, out: Path, *, steps: int, done: int = 0, tensorboard: bool = False, shown: bool = False) -> None:
        self._path, self._steps, self._done = out / "log.csv", steps, done
        self._events = _tensorboard()(str(out / "tensorboard"), purge_step=done + 1) if tensorboard else None
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, loss {task.fields[loss]:.4f},"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2, disable=not shown)
        self._task = self._bar.add_task("training", total=steps, completed=done, loss=math.nan)

    def __enter__(self) -> Journal:
        rows = self._rows()
        write_text(self._path, "".join(f"{','.join(row)}\n" for row in [list(COLUMNS), *rows]))
        self._before = float(rows[-1][-1]) if rows else 0.0
        self._stream, self._started = self._path.open("a", encoding="utf-8"), time.perf_counter()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def due(self, step: int) -> bool:
        """Whether a row is written after this step: every tenth, and the last."""
        return step % EVERY == 0 or step == self._steps

    def write(self, step: int, *, loss: float, null: float, learning_rate: float) -> None:
        """Write a row and move the bar."""
        seconds = self._before + time.perf_counter() - self._started
        values = (loss, null, learning_rate, seconds)
        self._stream.write(",".join([str(step), *(f"{value:.6g}" for value in values)]) + "\n")
        self._stream.flush()
        self._bar.update(self._task, completed=step, loss=loss)
        if self._events is not None:
            for name, value in zip(COLUMNS[1:], values, strict=True):
                self._events.add_scalar(name, value, step)

    def _rows(self) -> list[list[str]]:
        """The rows up to the last checkpoint; one that a kill cut short is no row."""
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as stream:
            whole = [row for row in csv.reader(stream) if len(row) == len(COLUMNS) and row[0].isdigit()]
        return [row for row in whole if int(row[0]) <= self._done]


def _tensorboard() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra: imported only where it is asked for
    except ImportError as error:
        raise MissingExtraError(
            f'logger = "tensorboard" needs the extra `logs`: pip install \'covis[logs]\' ({error}). Or choose logger = "csv".'
        ) from error
    return SummaryWriter
