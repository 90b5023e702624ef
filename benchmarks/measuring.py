"""What the benchmarks measure with: seconds, and memory that no file holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def status(field: str) -> float:
    """Megabytes of a field of /proc/self/status: RssAnon, what no file holds; VmHWM, the largest resident set since the program began."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measured(function: Callable[[], Any], *, repeat: int = 1) -> tuple[Any, float, float]:
    """What it gives, seconds (the least), and megabytes of anonymous memory at the peak beyond those before."""
    before, most, done = status("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(repeat):
        begun = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - begun)
    done.set()
    watcher.join()
    return result, min(seconds), max(0.0, most[0] - before)
