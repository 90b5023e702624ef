"""Several processes that train together: each does the same work on its share, and the first error of any is raised here."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import multiprocessing
from torch.multiprocessing.spawn import start_processes

from covis import errors
from covis.errors import CovisError

T = TypeVar("T")


def in_processes(work: Callable[[T], None], what: T, *, count: int) -> None:
    """Do `work(what)` in `count` new processes at once, and wait for them all.

    They are started here, from inside the program, by spawning: whatever the program did before is not done again.
    Each finds its number in the environment (LOCAL_RANK, MASTER_ADDR, MASTER_PORT), where Lightning looks for it. A
    script that gets here must keep what it does under `if __name__ == "__main__":`, as always with spawned processes.

    Args:
        work: a function of a module, which the processes import.
        what: can be pickled.
        count: of processes.

    Raises:
        CovisError: that of the process that failed first; the others are ended.
    """
    reports = multiprocessing.get_context("spawn").SimpleQueue()
    threads = max(1, torch.get_num_threads() // count)
    started = start_processes(  # type: ignore[no-untyped-call]
        _process, args=(work, what, _free_port(), threads, reports), nprocs=count, join=False, start_method="spawn"
    )
    assert started is not None
    try:
        while not started.join():
            pass
    except Exception:
        if not reports.empty():
            name, message = reports.get()
            raise getattr(errors, name, CovisError)(message) from None
        raise
    finally:
        for process in started.processes:
            if process.is_alive():
                process.terminate()


def _process(rank: int, work: Callable[[Any], None], what: Any, port: int, *rest: Any) -> None:
    threads, reports = rest
    os.environ.update({"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    torch.set_num_threads(threads)
    try:
        work(what)
    except CovisError as error:
        _report(reports, error)
        raise


def _report(reports: SimpleQueue[tuple[str, str]], error: CovisError) -> None:
    reports.put((type(error).__name__, str(error)))


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
