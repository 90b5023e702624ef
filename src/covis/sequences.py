"""Windows of consecutive frames: what a query or a database entry is in the sequence tasks of MSLS.

The rule is that of the benchmark's own loader (`mapillary_sls/datasets/msls.py`, `arange_as_seq`): the order of the rows
in the table counts, and a window is centred on its row.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covis.errors import InvalidInputError
from covis.images import Images


def windows(images: Images, length: int) -> NDArray[np.int64]:
    """The rows of every window of `length` consecutive frames, by the rule of MSLS.

    Row i gives the window of the rows i - length // 2 to i + length // 2. It is kept where all of them are in the table and
    of one sequence, and each frame's number is one more than that of the row before. Frames that follow one another but do
    not stand in neighbouring rows make no window.

    Args:
        images: with `sequence` and `frame`, unless `length` is 1.
        length: frames in a window; odd, at least 1. 1 gives every row.

    Returns:
        (m, length) int64 rows of `images`, in the order of their centres, which are the middle column.

    Raises:
        InvalidInputError: the length is even or below 1, or the images lack `sequence` or `frame`.

    >>> images = Images("photos", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"], sequence=["s"] * 4, frame=[7, 8, 9, 11])
    >>> windows(images, 3).tolist()
    [[0, 1, 2]]
    >>> windows(images, 1).tolist()
    [[0], [1], [2], [3]]
    """
    if isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 1 or length % 2 == 0:
        raise InvalidInputError(f"The length of a window must be an odd number of frames, 1 or more; got {length!r}.")
    if length == 1:
        return np.arange(len(images), dtype=np.int64)[:, None]
    sequence, frame = images.need("sequence", "frame")
    count = max(len(images) - length + 1, 0)
    if not count:
        return np.zeros((0, length), dtype=np.int64)
    same = np.fromiter(map(operator.eq, sequence[:-1], sequence[1:]), dtype=np.bool_, count=len(images) - 1)
    follows = same & (frame[1:] - frame[:-1] == 1) & (frame[1:] > frame[:-1])  # the last: a difference may overflow
    followed = np.concatenate([[0], np.cumsum(follows)])
    first = np.flatnonzero(followed[length - 1 :] - followed[:count] == length - 1)
    return first[:, None].astype(np.int64) + np.arange(length, dtype=np.int64)


def window_names(images: Images, rows: ArrayLike, *, keys: bool = False) -> tuple[str, ...]:
    """What the windows are called in prediction files: their frames' names, or keys, joined by commas.

    Args:
        images: the table that `rows` point into.
        rows: (m, length) rows, as `windows` gives them.
        keys: a frame's key in place of its name: the text after the last "/" up to the last ".".

    Returns:
        m names; of windows of one frame, the frame's own.

    Raises:
        InvalidInputError: `rows` is no such array or points outside the table, or a name that must be joined holds a comma.

    >>> images = Images("photos", ["cph/a.jpg", "cph/b.jpg", "cph/c.jpg"], sequence=["s"] * 3, frame=[1, 2, 3])
    >>> window_names(images, windows(images, 3), keys=True)
    ('a,b,c',)
    """
    chosen = np.asarray(rows)
    if chosen.ndim != 2 or chosen.shape[1] < 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise InvalidInputError(f"Windows must be whole numbers of the shape (m, length); got {chosen.dtype} of the shape {chosen.shape}.")
    if chosen.size and (chosen.min() < 0 or chosen.max() >= len(images)):
        raise InvalidInputError(f"Windows must point to rows 0 to {len(images) - 1}; got {chosen.min()} to {chosen.max()}.")
    names = tuple(map(_key, images.names)) if keys else images.names
    joined = tuple(",".join([names[row] for row in window]) for window in chosen.tolist())
    if chosen.shape[1] > 1:
        unfit = [name for name in joined if name.count(",") != chosen.shape[1] - 1]
        if unfit:
            raise InvalidInputError(f"Names that are joined by commas must hold none; got {unfit[0]!r}. Rename the image.")
    return joined


def _key(name: str) -> str:
    base = name.rpartition("/")[2]
    return base.rpartition(".")[0] or base
