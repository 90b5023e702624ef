"""What a training run shows and writes down while it goes: a bar on stderr, `log.csv`, and TensorBoard's events."""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from covis.errors import CovisWarning, MissingExtraError
from covis.files import write_text
from covis.training.collapse import ROWS, Watch

EVERY = 10
"""Steps between two rows."""

COLUMNS = (
    "step",
    "loss",
    "floor",
    "null",
    "spread",
    "gradient_norm",
    "learning_rate",
    "items_per_second",
    "waiting",
    "mined",
    "mining",
    "seconds",
    "validation",
    "guided",
)
"""Of `log.csv`; what each means: docs/training.md."""


class Journal:
    """A run's rows; a resumed run goes on after its last checkpoint, and what was written beyond it is struck out.

    To be used in a `with` statement.

    Args:
        out: the run's folder.
        steps: that the run will take in all.
        items: pairs, or lists, a step.
        margin: of the loss, for the watch over the descriptors' spread.
        done: steps that its last checkpoint has taken.
        tensorboard: write events under `out/tensorboard` too.
        shown: show a bar on stderr.

    Raises:
        MissingExtraError: `tensorboard` is asked for and not installed.
    """

    def __init__(
        self, out: Path, *, steps: int, items: int, margin: float, done: int = 0, tensorboard: bool = False, shown: bool = False
    ) -> None:
        self._path, self._steps, self._items, self._done = out / "log.csv", steps, items, done
        self._events = load_tensorboard()(str(out / "tensorboard"), purge_step=done + 1) if tensorboard else None
        self._watch = Watch(margin)
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, loss {task.fields[loss]:.4f}, {task.fields[rate]:.0f} a second,"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2, disable=not shown)
        self._task = self._bar.add_task("training", total=steps, completed=done, loss=math.nan, rate=0.0)

    def __enter__(self) -> Journal:
        rows = self._rows()
        write_text(self._path, "".join(f"{','.join(row)}\n" for row in [list(COLUMNS), *rows]))
        for row in rows:
            self._watch.sees(float(row[COLUMNS.index("spread")] or "nan"))
        self._before = float(rows[-1][COLUMNS.index("seconds")]) if rows else 0.0
        self._stream, self._started = self._path.open("a", encoding="utf-8"), time.perf_counter()
        self._paused, self._last = 0.0, (self._done, 0.0, dict.fromkeys(("waited", "mined", "mining"), 0.0))
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._stream.close()
        if self._events is not None:
            self._events.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count as training: validation."""
        begun = time.perf_counter()
        yield
        self._paused += time.perf_counter() - begun

    def write(self, step: int, values: Mapping[str, float], *, fed: Mapping[str, float]) -> None:
        """Write a row and move the bar.

        Args:
            step: its number, from 1.
            values: of the columns loss to learning_rate and validation; absent or NaN: an empty cell.
            fed: since the run was started: `waited` (seconds for pixels), `mined` (images) and `mining` (seconds).
        """
        row = {**values, **self._rates(step, fed)}
        cells = [str(step), *("" if math.isnan(row.get(name, math.nan)) else f"{row[name]:.6g}" for name in COLUMNS[1:])]
        self._stream.write(",".join(cells) + "\n")
        self._stream.flush()
        self._bar.update(self._task, completed=step, loss=row["loss"], rate=row["items_per_second"])
        if self._events is not None:
            for name, cell in zip(COLUMNS[1:], cells[1:], strict=True):
                if cell:
                    self._events.add_scalar(name, row[name], step)
        if self._watch.sees(row["spread"]):
            warnings.warn(
                f"The descriptors are collapsing: at step {step} unrelated images of a batch are {row['spread']:.2g} apart, and have been "
                f"far nearer than the margin and than before for {ROWS} rows of {self._path}. Lower the learning rate, clip the gradient, "
                'or set bn_mode = "eval".',
                CovisWarning,
                stacklevel=2,
            )

    def _rates(self, step: int, fed: Mapping[str, float]) -> dict[str, float]:
        """What the run did since the row before."""
        now = time.perf_counter() - self._started
        working = now - self._paused
        last_step, last_working, last = self._last
        elapsed = max(working - last_working, 1e-9)
        since = {name: fed[name] - last[name] for name in last}
        self._last = (step, working, {name: fed[name] for name in last})
        rate = (step - last_step) * self._items / elapsed
        share = min(since["waited"] / elapsed, 1.0)
        return {
            "items_per_second": rate,
            "waiting": share,
            "mined": since["mined"],
            "mining": since["mining"],
            "seconds": self._before + now,
        }

    def _rows(self) -> list[list[str]]:
        """The rows up to the last checkpoint; one that a kill cut short is no row."""
        if not self._path.exists():
            return []
        with self._path.open(encoding="utf-8", newline="") as stream:
            width = len(COLUMNS)  # one less where the log was begun before there were guides
            whole = [[*row, ""][:width] for row in csv.reader(stream) if len(row) in (width - 1, width) and row[0].isdigit()]
        return [row for row in whole if int(row[0]) <= self._done]


def row_due(step: int, steps: int) -> bool:
    """Whether a row is written after this step: the first, every tenth, and the last.

    >>> [step for step in range(1, 26) if row_due(step, 25)]
    [1, 10, 20, 25]
    """
    return step == 1 or step % EVERY == 0 or step == steps


def load_tensorboard() -> Any:
    """TensorBoard's writer.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # an extra: imported only where it is asked for
    except ImportError as error:
        raise MissingExtraError(
            f'logger = "tensorboard" needs the extra `logs`: pip install \'covis[logs]\' ({error}). Or choose logger = "csv".'
        ) from error
    return SummaryWriter
