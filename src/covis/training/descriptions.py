"""Descriptions during training: the network as it is now describes images of a pixel store, in eval mode.

Mining and validation ask for them. Where several processes train, each describes a share, and all get all.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from covis.models.place import PlaceModel, evaluating
from covis.pixels import PixelStore

AT_ONCE = 64
"""Images that the network sees together."""


def describe_rows(model: PlaceModel, store: PixelStore, scene: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Describe images of one of a store's scenes; each image once, however often it is asked for.

    Modes, gradients and random state are afterwards as they were. Where processes train together, all must call it, with
    the same arguments.

    Args:
        model: the network as it is now.
        store: pixels at its size.
        scene: the number of the scene.
        rows: (n,) rows of it.

    Returns:
        (n, D) float32, one row of `rows` each.
    """
    asked, place = np.unique(rows, return_inverse=True)
    if not asked.size:
        return np.zeros((0, model.dim), dtype=np.float32)
    share = np.array_split(asked, _world())[_rank()]
    with evaluating(model), torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        _agree(model)
        blocks = [model(pixels.to(model.device)).float() for pixels in _ahead(store, scene, share)]
        described = torch.cat(blocks) if blocks else torch.zeros((0, model.dim), device=model.device)
        whole = _gathered(described, [len(one) for one in np.array_split(asked, _world())])
    return np.asarray(whole.cpu().numpy()[place])


def _ahead(store: PixelStore, scene: int, rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """Pixels, `AT_ONCE` at a time; the next are decoded while the network works on these."""
    blocks = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(store.take, np.full(len(block), scene), block) for block in blocks[:1]]
        for number in range(len(blocks)):
            pixels = waiting.pop().result()
            waiting = [pool.submit(store.take, np.full(len(block), scene), block) for block in blocks[number + 1 : number + 2]]
            yield pixels


def _agree(model: torch.nn.Module) -> None:
    """Each process's BatchNorm has seen other images: the first one's running statistics hold, as they do on the disk."""
    if _world() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def _gathered(described: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """The shares of all processes, in order."""
    if _world() == 1:
        return described
    padded = torch.zeros((max(counts), described.shape[1]), device=described.device)
    padded[: len(described)] = described
    parts = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if _world() > 1 else 0
