"""The feed: batches as the sampler draws them, ahead of time, with the network asked for at the right moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from teaching import MODEL, make_scene

from covis.errors import DamagedFileError
from covis.images import Images
from covis.pairs import Pairs
from covis.pixels import PixelStore
from covis.training.feeds import Feed, Share

pytestmark = pytest.mark.usefixtures("one_thread")


class Counting:
    """Draws batch after batch with rising rows; asks for descriptions before every third one."""

    def __init__(self, *, describe: Any, images: int = 2, batch: int = 4) -> None:
        self.describe, self.number, self.batch, self.images = describe, 0, batch, images
        self.answers: list[float] = []

    def __next__(self) -> Pairs:
        if self.number % 3 == 0:
            self.answers.append(float(self.describe(0, np.arange(2), np.arange(3))[0, 0]))
        self.number += 1
        query = (np.arange(self.batch) + self.number) % 32
        shape = (self.batch,) if self.images == 2 else (self.batch, self.images - 1)
        database = (query.repeat(self.images - 1).reshape(shape) + 7) % 32
        return Pairs(np.zeros(self.batch, np.int64), query, database, np.zeros(shape), np.ones(self.batch))

    def state(self) -> dict[str, int]:
        return {"number": self.number}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.number = state["number"]


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return make_scene(tmp_path)[0].queries


def _store(images: Images) -> PixelStore:
    return PixelStore([images], MODEL.height, MODEL.width)


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_the_network_is_asked_exactly_when_the_batch_is_due(images: Images, pause: float) -> None:
    """However far ahead the thread is: before batch 1 nothing was learnt, before batch 4 three steps, before batch 7 six."""
    steps = 0
    with _store(images) as store, Feed(Counting, store, lambda _, rows: np.full((len(rows), 1), steps, np.float32), share=Share(4)) as feed:
        for _ in range(8):
            batch = feed.next()
            time.sleep(pause)
            steps += 1
        sampler: Any = feed._sampler
    assert sampler.answers[:3] == [0, 3, 6]
    assert batch.state == {"number": 8}
    assert feed.mined == 9  # three images, each asked for on both sides or one, three times


@pytest.mark.parametrize("kind", [2, 4])
def test_pixels_lie_queries_first_part_by_part(images: Images, kind: int) -> None:
    everything = np.stack([np.array(Image.open(images.path(row))).transpose(2, 0, 1) for row in range(32)])
    with (
        _store(images) as store,
        Feed(lambda describe: Counting(describe=describe, images=kind, batch=8), store, _zeros, share=Share(4, first=4, parts=2)) as feed,
    ):
        for number in range(1, 4):
            batch = feed.next()
            assert [part.first for part in batch.parts] == [4, 6]
            for part in batch.parts:
                query = (np.arange(part.first, part.first + 2) + number) % 32
                assert part.pairs.query.tolist() == query.tolist()
                assert part.images == kind
                wanted = np.concatenate([query, ((query + 7) % 32).repeat(kind - 1)])
                assert torch.equal(part.pixels, torch.from_numpy(everything[wanted]))


def _zeros(_scene: int, rows: np.ndarray) -> np.ndarray:
    return np.zeros((len(rows), 1), np.float32)


def test_states_are_kept_where_they_are_wanted_and_restored(images: Images) -> None:
    with _store(images) as store:
        with Feed(Counting, store, _zeros, share=Share(4), keep=lambda step: step == 2) as feed:
            batches = [feed.next() for _ in range(4)]
        assert [batch.state for batch in batches] == [None, {"number": 2}, None, None]
        with Feed(Counting, store, _zeros, share=Share(4), restored={"number": 2}, done=2) as feed:
            again = feed.next()
    assert again.parts[0].pairs.query.tolist() == batches[2].parts[0].pairs.query.tolist()


def test_decoding_goes_on_while_the_network_works(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    take = PixelStore.take

    def slow(self: PixelStore, *args: Any) -> torch.Tensor:
        time.sleep(0.05)
        return take(self, *args)

    monkeypatch.setattr(PixelStore, "take", slow)
    with _store(images) as store, Feed(Counting, store, _zeros, share=Share(4)) as feed:
        feed.next()
        waited = feed.waited
        for _ in range(4):
            time.sleep(0.15)  # the step
            feed.next()
    assert waited >= 0.05
    assert feed.waited - waited < 0.1


def test_what_goes_wrong_in_the_thread_is_raised_where_the_batch_is_asked_for(images: Images) -> None:
    images.path(2).write_bytes(b"no image")
    with (
        _store(images) as store,
        Feed(Counting, store, _zeros, share=Share(4)) as feed,
        pytest.raises(DamagedFileError, match=images.names[2]),
    ):
        feed.next()


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_closed_feed_leaves_no_thread(images: Images, asked: int) -> None:
    """Wherever the thread is: drawing, waiting to hand out, or waiting for descriptions."""
    with _store(images) as store:
        for _ in range(3):
            with Feed(Counting, store, _zeros, share=Share(4)) as feed:
                for _ in range(asked):
                    feed.next()
                time.sleep(0.02)
    assert not [thread for thread in threading.enumerate() if thread.name == "covis-feed"]
