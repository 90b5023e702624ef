"""The feed: batches drawn and decoded in a thread of its own, while the network learns from the one before.

What is drawn does not depend on how far ahead the thread is. A sampler that mines asks for descriptions in that thread;
its request takes its place in the queue behind the batches drawn before, so that it is answered, by the thread that
trains, exactly when the next batch is due: with the network as it is after the step before, on every run alike.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from covis.pairs import Pairs, Sampler
from covis.pixels import PixelStore

DescribeRows: TypeAlias = Callable[[int, NDArray[np.int64]], NDArray[np.float32]]
"""(scene, rows) -> (n, D): descriptors of the store's images of a scene by the network as it is now."""

_POLL = 0.1  # seconds after which a waiting thread looks whether the feed was closed


@dataclass(frozen=True, eq=False)
class Part:
    """What the network sees at once.

    Attributes:
        pixels: (p + p * M, 3, height, width) uint8: the p queries, then the M database images of each.
        pairs: the p items.
        first: the place of the first in the whole batch.
    """

    pixels: torch.Tensor
    pairs: Pairs
    first: int

    @property
    def images(self) -> int:
        """Images an item, the query included."""
        return len(self.pixels) // len(self.pairs)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step of one process learns from.

    Attributes:
        parts: its micro-batches.
        state: where the sampler was after drawing it; None where nobody wants to know.
    """

    parts: tuple[Part, ...]
    state: Mapping[str, Any] | None


@dataclass(frozen=True)
class Share:
    """Which items of each batch a process takes, and in how many micro-batches.

    Attributes:
        items: of the process.
        first: the place of the first in the batch.
        parts: micro-batches, of equal size.
    """

    items: int
    first: int = 0
    parts: int = 1


@dataclass(frozen=True)
class _Request:
    """Images that a sampler wants described."""

    scene: int
    rows: NDArray[np.int64]


class Feed:
    """Batches, one after the other; to be used in a `with` statement.

    Args:
        make_sampler: makes the sampler; takes `describe`.
        store: the pixels of the training scenes. Nobody else may take from it meanwhile.
        describe: answers a sampler that mines; runs in the thread that calls `next`.
        share: of this process.
        first_of_database: for each scene, which of the store's rows is its first database image; absent: the sides are the same.
        restored: the sampler's state to go on from; None: from the start.
        keep: whether the sampler's state after step so-and-so is wanted (counted from 1).
        done: steps that were taken before.
        pin: put the pixels where a GPU fetches them faster.

    Attributes:
        waited: seconds that `next` waited for a batch, mining not counted.
        mined: images that were described for the sampler.
        mining: seconds that it took.
    """

    def __init__(
        self,
        make_sampler: Callable[..., Sampler],
        store: PixelStore,
        describe: DescribeRows,
        *,
        share: Share,
        first_of_database: Sequence[int] = (),
        restored: Mapping[str, Any] | None = None,
        keep: Callable[[int], bool] = lambda _: True,
        done: int = 0,
        pin: bool = False,
    ) -> None:
        self._store, self._describe, self._share, self._keep, self._done, self._pin = store, describe, share, keep, done, pin
        self._first_of_database = np.asarray(first_of_database, dtype=np.int64)
        self.waited, self.mined, self.mining = 0.0, 0, 0.0
        self._closed = threading.Event()
        self._drawn: queue.Queue[Batch | _Request | BaseException] = queue.Queue(maxsize=1)
        self._answers: queue.Queue[NDArray[np.float32]] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._work, name="covis-feed", daemon=True)
        self._sampler = make_sampler(describe=self._ask)
        if restored is not None:
            self._sampler.restore(restored)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def next(self) -> Batch:
        """The next batch; whatever went wrong while it was drawn or decoded is raised here."""
        begun, mining = time.perf_counter(), self.mining
        while isinstance(found := self._drawn.get(), _Request):
            self._answers.put(self._answered(found.scene, found.rows))
        if isinstance(found, BaseException):
            raise found
        self.waited += time.perf_counter() - begun - (self.mining - mining)
        return found

    def _ask(self, scene: int, queries: NDArray[np.int64], database: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the sampler calls (`covis.pairs.triplets.Describe`); it also may while it is being made, before there is a thread."""
        first = self._first_of_database[scene] if self._first_of_database.size else 0
        rows = np.concatenate([queries, database + first])
        if threading.current_thread() is not self._thread:
            return self._answered(scene, rows)
        self._hand_out(_Request(scene, rows))
        while not self._closed.is_set():
            try:
                return self._answers.get(timeout=_POLL)
            except queue.Empty:
                continue
        raise _ClosedError

    def _answered(self, scene: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        begun = time.perf_counter()
        described = self._describe(scene, rows)
        self.mining += time.perf_counter() - begun
        self.mined += len(np.unique(rows))
        return described

    def _work(self) -> None:
        step = self._done
        try:
            while not self._closed.is_set():
                step += 1
                self._hand_out(self._next(step))
        except _ClosedError:
            return
        except BaseException as error:  # raised again by the thread that trains
            self._hand_out(error, last=True)

    def _next(self, step: int) -> Batch:
        pairs = next(self._sampler)
        state = copy.deepcopy(dict(self._sampler.state())) if self._keep(step) else None
        items = self._share.items // self._share.parts
        starts = [self._share.first + number * items for number in range(self._share.parts)]
        chosen = [pairs[start : start + items] for start in starts]
        columns = [_images(one, self._first_of_database) for one in chosen]
        pixels = self._store.take(*(np.concatenate(both) for both in zip(*columns, strict=True)))
        sizes = [len(row) for _, row in columns]
        pieces = torch.split(pixels.pin_memory() if self._pin else pixels, sizes)
        return Batch(tuple(Part(*one) for one in zip(pieces, chosen, starts, strict=True)), state)

    def _hand_out(self, what: Batch | _Request | BaseException, *, last: bool = False) -> None:
        while not self._closed.is_set():
            try:
                self._drawn.put(what, timeout=_POLL)
            except queue.Full:
                continue
            return
        if not last:
            raise _ClosedError


class _ClosedError(Exception):
    """The feed was closed while its thread waited."""


def _images(pairs: Pairs, first_of_database: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Scene and row of the store of every image: the queries, then the database images of each item."""
    listed = pairs.database.reshape(len(pairs), -1)
    if first_of_database.size:
        listed = listed + first_of_database[pairs.scene][:, None]
    return np.concatenate([pairs.scene, np.repeat(pairs.scene, listed.shape[1])]), np.concatenate([pairs.query, listed.ravel()])
