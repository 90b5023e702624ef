"""Progress on stderr: a bar on a terminal, a line now and then elsewhere; how many are done, how fast, how long it still takes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SAY_EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""


@contextmanager
def showing(total: int, *, done: int = 0, what: str, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Give a function that takes how many are done; the rate is that of this run, without what was done before.

    Args:
        total: how many there are.
        done: how many were done before.
        what: a word for them.
        shown: whether anything is shown at all.
    """
    if not shown:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(total, done, what) as told:
            yield told
    else:
        lines = _Lines(total, done, what)
        yield lines.tell
        lines.close()


class _Lines:
    """For a log file, which keeps every character: no colours, nothing written over."""

    def __init__(self, total: int, done: int, what: str) -> None:
        self._total, self._before, self._what = total, done, what
        self._done = done
        self._begun = self._said = time.monotonic()
        self._print("begun" if not done else "going on")

    def tell(self, done: int) -> None:
        self._done = done
        if time.monotonic() - self._said >= SAY_EVERY:
            self._said = time.monotonic()
            rate = self._rate()
            left = f", {duration((self._total - done) / rate)} left" if rate else ""
            self._print(f"{rate:.1f}/s{left}")

    def close(self) -> None:
        self._print(f"{self._rate():.1f}/s, {duration(time.monotonic() - self._begun)} in all")

    def _rate(self) -> float:
        return (self._done - self._before) / max(time.monotonic() - self._begun, 1e-9)

    def _print(self, text: str) -> None:
        sys.stderr.write(f"{self._what}: {self._done}/{self._total}, {text}\n")
        sys.stderr.flush()


@contextmanager
def _bar(total: int, done: int, what: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed
            return Text("" if rate is None else f"{rate:.1f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda now: bar.update(task, completed=now)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725.4), duration(9.6)
    ('1:02:05', '0:10')
    """
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
