"""Encodings: a label map's classes become weighted channels (StructVPR's formatting, clustering and weighting)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.files import digest
from covis.semantics.clusters import NO_CHANNEL, checked_weights, clustering
from covis.semantics.numberings import NUMBERS, numbering
from covis.settings import EncodingSettings

NOTHING = 255
"""What `clustered` gives where a pixel is of no channel."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """Which channel each number of a label map belongs to, and each channel's weight.

    Attributes:
        channels: C names.
        lookup: (256,) int16, number -> channel; -1: none (all channels are 0 there).
        weights: (C,) float32, >= 0.
        known: (256,) bool, the numbers that the numbering has.

    Raises:
        InvalidInputError: the parts do not fit, there is no channel or more than 255, or every weight is 0.
    """

    channels: tuple[str, ...]
    lookup: NDArray[np.int16]
    weights: NDArray[np.float32]
    known: NDArray[np.bool_]

    def __post_init__(self) -> None:
        count = len(self.channels)
        if not 0 < count <= NOTHING or len(set(self.channels)) < count:
            raise InvalidInputError(f"An encoding must have 1 to {NOTHING} channels, each name once; got {count}.")
        if self.lookup.shape != (NUMBERS,) or self.known.shape != (NUMBERS,) or self.weights.shape != (count,):
            raise InvalidInputError(
                f"An encoding must have lookup and known of shape (256,) and {count} weights; got {self.lookup.shape}, {self.known.shape} "
                f"and {self.weights.shape}."
            )
        if self.lookup.min() < NO_CHANNEL or self.lookup.max() >= count or (self.lookup[~self.known] != NO_CHANNEL).any():
            raise InvalidInputError(f"An encoding's lookup must give channels 0 to {count - 1}, or -1, and -1 for unknown numbers.")
        if not np.isfinite(self.weights).all() or (self.weights < 0).any() or not self.weights.any():
            raise InvalidInputError(f"An encoding's weights must be finite, >= 0, and not all 0; got {self.weights.tolist()}.")

    def __len__(self) -> int:
        return len(self.channels)

    def digest(self) -> str:
        """A short hash of all that the encoding is: settings that name a file do not hold what the file says."""
        return digest([self.channels, self.lookup.tolist(), self.weights.tolist(), self.known.tolist()])


def encoding(settings: EncodingSettings) -> Encoding:
    """The encoding that the settings name: numbers to classes, classes to channels, channels to weights.

    Without `weighted` every weight is 1, also those in `weights`: plain one-hot of the clusters.

    Raises:
        UnknownNameError: there is no such numbering or clustering; the nearest is suggested.
        MissingFileError: a .toml is not there.
        DamagedFileError: a .toml is none.
        InvalidInputError: `classes` is empty, a class stands in no cluster, or a weight is negative or of no channel.

    >>> six = encoding(EncodingSettings("cityscapes-train"))
    >>> dict(zip(six.channels, six.weights.tolist(), strict=True))
    {'structure': 2.0, 'vegetation': 1.0, 'ground': 1.0, 'sky': 1.0, 'other': 0.5, 'dynamic': 0.5}
    >>> len(encoding(EncodingSettings("ade20k", clusters="none")))
    150
    """
    if not settings.classes:
        raise InvalidInputError("An encoding must say how the label maps number their classes (classes = …); it says nothing.")
    numbers, clusters = numbering(settings.classes), clustering(settings.clusters)
    channels, lookup = clusters.assign(numbers)
    where = f"The encoding of {numbers.name} as {clusters.name}"
    given = checked_weights(clusters.weights, channels, where=where) | checked_weights(settings.weights, channels, where=where)
    weights = [given.get(channel, 1.0) if settings.weighted else 1.0 for channel in channels]
    return Encoding(channels, lookup, np.array(weights, dtype=np.float32), numbers.known)


def encode(ids: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.float32]:
    """A map of class numbers as weighted channels: S[k] = w_k where the pixel is of channel k, else 0.

    Args:
        ids: (height, width) uint8.
        encoding: which channel each number belongs to, and the channels' weights.

    Returns:
        (C, height, width) float32.

    Raises:
        InvalidInputError: the array is no map, or holds a number that the encoding does not know.

    >>> six = encoding(EncodingSettings("cityscapes-train"))
    >>> encode(np.array([[2, 10]], dtype=np.uint8), six)[:, 0].T.tolist()  # a building and the sky
    [[2.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    """
    channel = encoding.lookup[_checked(ids, encoding)]
    shown = channel[None] == np.arange(len(encoding), dtype=np.int16)[:, None, None]
    return np.where(shown, encoding.weights[:, None, None], np.float32(0))


def clustered(ids: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8]:
    """A map of class numbers as a map of channel numbers, 255 where a pixel is of none.

    Args:
        ids: (height, width) uint8.
        encoding: which channel each number belongs to.

    Returns:
        (height, width) uint8.

    Raises:
        InvalidInputError: the array is no map, or holds a number that the encoding does not know.

    >>> clustered(np.array([[2, 255]], dtype=np.uint8), encoding(EncodingSettings("cityscapes-train", "none"))).tolist()
    [[2, 255]]
    """
    channel = encoding.lookup[_checked(ids, encoding)]
    return np.where(channel == NO_CHANNEL, NOTHING, channel).astype(np.uint8)


def _checked(ids: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8]:
    ids = np.asarray(ids)
    if ids.dtype != np.uint8 or ids.ndim != 2:
        raise InvalidInputError(f"A label map must be (height, width) uint8; got {ids.dtype} {ids.shape}.")
    if strange := np.flatnonzero(np.bincount(ids.ravel(), minlength=NUMBERS).astype(bool) & ~encoding.known).tolist():
        raise InvalidInputError(
            f"A label map must hold numbers of its numbering; found {', '.join(map(str, strange[:3]))}, which it does not have. "
            "Name the numbering that the maps are in."
        )
    return ids
