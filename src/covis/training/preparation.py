"""What a process prepares before it trains: its own network, pixels, journal and random state."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from covis.images import Scene, files_of
from covis.models.place import PlaceModel
from covis.pixels import PixelStore, Resize, channels_of
from covis.training import preflight
from covis.training.journals import Journal
from covis.training.state import Checkpoint, Run


def network(run: Run, kept: Checkpoint | None) -> PlaceModel:
    """A network of our own, as it was left; or as it came, started from the training images where its aggregator needs that."""
    model = copy.deepcopy(run.model).train()
    if kept:
        model.load_state_dict(kept.weights)
    else:
        start_from_data(model, run.scenes, seed=run.settings.seed)
    return model


def start_from_data(model: PlaceModel, scenes: Sequence[Scene], *, seed: int) -> None:
    """Start an aggregator that needs it (NetVLAD) from the training images of both sides; for others nothing is done."""
    if model.starts_from_data:
        files = [SceneFiles(scene, resize=model.resize) for scene in scenes]
        model.initialise([one.path(row) for one in files for row in range(len(one))], seed=seed)


def leave_out_unused(model: PlaceModel) -> None:
    """Parameters without a part in the descriptor (a mask token, say) get no gradient; processes would wait for it for ever."""
    size = model.settings
    model.eval()
    model(torch.zeros((2, channels_of(model.resize), size.height, size.width), dtype=torch.uint8)).sum().backward()
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def seed_part(seed: int, step: int, first: int) -> None:
    """What a part draws (dropout) depends on the seed, the step and its place alone, so that a resumed run draws the same."""
    number = int(np.random.SeedSequence([seed, step, first]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


@contextmanager
def own_random_state() -> Iterator[None]:
    """The caller's random state, as it was, afterwards."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield


class SceneFiles:
    """A training scene's image files: its queries and, on from there, its database where that is another table.

    Args:
        scene: the scene.
        resize: how the network takes them: with "labels" they are the label maps.

    Attributes:
        first_of_database: the row of the first database image.
    """

    def __init__(self, scene: Scene, *, resize: Resize = "pil") -> None:
        self._tables = [files_of(side, resize) for side in ([scene.queries] if scene.training else [scene.queries, scene.database])]
        self.first_of_database = 0 if scene.training else len(scene.queries)

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def path(self, row: int) -> Path:
        """Where an image lies."""
        queries = self._tables[0]
        return queries.path(row) if row < len(queries) else self._tables[1].path(row - len(queries))


def pixel_store(run: Run) -> PixelStore:
    """The pixels of the training scenes, at the size of the network; rows are those of `SceneFiles`."""
    model = run.model
    return PixelStore([SceneFiles(scene, resize=model.resize) for scene in run.scenes], model.height, model.width, resize=model.resize)


def journal(run: Run, done: int) -> Journal:
    """The run's log and bar, to go on after `done` steps."""
    return Journal(
        run.folder.path,
        steps=run.settings.steps,
        items=run.settings.batch,
        margin=preflight.margin_of(run.settings),
        done=done,
        tensorboard=run.settings.logger == "tensorboard",
        shown=run.progress,
    )
