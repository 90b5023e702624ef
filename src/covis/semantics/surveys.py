"""A survey of label maps: every map read once, held against its numbering and its photograph, and its classes counted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisWarning, InvalidInputError
from covis.images import Images, LabelMaps, Scene
from covis.rasters import image_size, read_label_map
from covis.semantics.clusters import NO_CHANNEL
from covis.semantics.encodings import encoding
from covis.semantics.numberings import NUMBERINGS, NUMBERS, Numbering, numbering
from covis.settings import EncodingSettings

ASPECT = 0.02
"""How much a map's aspect ratio may differ from its photograph's, relative: rounding to whole pixels, not another picture."""
VOID = 0.3
"""The share of void pixels above which another numbering is suggested, where one fits better."""
_SHOWN = 8


@dataclass(frozen=True)
class MapSurvey:
    """What a set's label maps hold. Shares are means over the maps: each map counts the same, whatever its size.

    Attributes:
        numbering: its name, or the path of its file.
        clusters: the clustering's name, or the path of its file.
        maps: how many were read.
        classes: class -> its share of the pixels, in [0, 1], those that mean something, largest first; 0 where no map shows it.
        channels: channel -> its share, in the encoding's order.
        void: the share that means nothing.
        empty: maps that hold nothing but void.
    """

    numbering: str
    clusters: str
    maps: int
    classes: Mapping[str, float]
    channels: Mapping[str, float]
    void: float
    empty: int

    def summary(self) -> str:
        """What stands in the maps, in lines to be printed."""
        seen = {name: share for name, share in self.classes.items() if share > 0}
        first = ", ".join(f"{name} {100 * share:.1f} %" for name, share in list(seen.items())[:_SHOWN])
        more = f", and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
        top = sorted(self.channels.items(), key=lambda one: -one[1])[:_SHOWN]
        channels = ", ".join(f"{name} {100 * share:.1f} %" for name, share in top)
        others = f", and {len(self.channels) - _SHOWN} more" if len(self.channels) > _SHOWN else ""
        lines = [
            f"{self.maps} label maps in {self.numbering}: {len(seen)} of {len(self.classes)} classes, void {100 * self.void:.1f} %",
            f"  classes   {first or 'none'}{more}",
            f"  channels  {channels}{others} ({self.clusters})",
        ]
        if self.empty:
            lines.append(f"  {self.empty} of {self.maps} maps are void throughout: they say nothing of their photographs.")
        return "\n".join(lines)


def survey_maps(
    images: Images | Scene | Iterable[Images | Scene],
    settings: EncodingSettings,
    *,
    photographs: bool = True,
    told: Callable[[int], None] | None = None,
) -> MapSurvey:
    """Read every label map once, and say what it holds.

    Args:
        images: with the column segmentation; of scenes both sides. A map that stands in several rows is read once.
        settings: the numbering and the clusters.
        photographs: hold each map's aspect ratio against its photograph's, whose header is read. Not for `corrupted` scenes:
            another place's photograph may have another shape.
        told: gets how many maps are done.

    Raises:
        InvalidInputError: an image has no map, a map holds a number that the numbering does not have, or has another aspect
            ratio than its photograph by more than 2 %; the message names the file.
        MissingFileError: a map or a photograph is not there.
        DamagedFileError: one does not decode, or is no map.

    Warns:
        CovisWarning: more than 30 % of the pixels are void, and another numbering has all the numbers and less void.
    """
    numbers, encoded = numbering(settings.classes), encoding(settings)
    total, empty = np.zeros(NUMBERS), 0
    done: dict[str, tuple[int, ...]] = {}  # map -> its size
    held: set[tuple[str, str]] = set()  # map and photograph
    void = np.isin(np.arange(NUMBERS), list(numbers.void))
    for table in _tables(images):
        maps = LabelMaps(table)
        for row in range(len(table)):
            path = str(maps.path(row))
            if path not in done:
                ids = read_label_map(path)
                counts = np.bincount(ids.ravel(), minlength=NUMBERS)
                _check_numbers(path, counts > 0, numbers)
                total += counts / ids.size
                empty += not counts[~void].any()
                done[path] = ids.shape
                if told is not None:
                    told(len(done))
            pair = (path, str(table.path(row)))
            if photographs and pair not in held:
                _check_aspect(*pair, done[path])
                held.add(pair)
    if not done:
        raise InvalidInputError("There must be at least one label map to survey; got no images.")
    shares = total / len(done)
    classes = {name: float(shares[number]) for number, name in numbers.meaningful.items()}
    by_size = dict(sorted(classes.items(), key=lambda one: -one[1]))
    shown = encoded.lookup != NO_CHANNEL
    sums = np.bincount(encoded.lookup[shown], weights=shares[shown], minlength=len(encoded))
    channels = dict(zip(encoded.channels, map(float, sums), strict=True))
    if said := void_warning(shares, numbers):
        warnings.warn(said, CovisWarning, stacklevel=2)
    return MapSurvey(numbers.name, settings.clusters, len(done), by_size, channels, float(shares[void].sum()), empty)


def void_warning(shares: NDArray[np.float64], numbers: Numbering) -> str | None:
    """Words of doubt, where much means nothing in a numbering and another that covis ships has all the numbers and less void.

    Of several the one with the least void, and of those the one with the fewest classes. The limit, `VOID`, is ours.

    Args:
        shares: (256,) of the pixels that have each number.
        numbers: what the maps were read as.

    >>> shares = np.zeros(256)
    >>> shares[[0, 2, 10]] = 0.4, 0.4, 0.2
    >>> void_warning(shares, numbering("cityscapes"))
    "80 % of the pixels mean nothing in 'cityscapes'; are they 'cityscapes-train'?"
    """

    def void(one: Numbering) -> float:
        return float(shares[sorted(one.void)].sum())

    share = void(numbers)
    if share <= VOID:
        return None
    others = [NUMBERINGS[name] for name in fitting(shares > 0) if name != numbers.name]
    better = [one for one in others if void(one) < share]
    if not better:
        return None
    likely = min(better, key=lambda one: (void(one), len(one.meaningful)))
    return f"{100 * share:.0f} % of the pixels mean nothing in {numbers.name!r}; are they {likely.name!r}?"


def fitting(seen: NDArray[np.bool_]) -> list[str]:
    """The numberings that have all these numbers.

    Args:
        seen: (256,) bool, the numbers that maps hold.

    >>> fitting(np.arange(256) == 123)
    ['ade20k', 'ade20k-annotations', 'vistas-2.0']
    """
    return [name for name, numbers in NUMBERINGS.items() if not (seen & ~numbers.known).any()]


def _tables(images: Images | Scene | Iterable[Images | Scene]) -> list[Images]:
    if isinstance(images, Images):
        return [images]
    if isinstance(images, Scene):
        return [images.database] if images.training else [images.database, images.queries]
    return [table for one in images for table in _tables(one)]


def _check_numbers(path: str, seen: NDArray[np.bool_], numbers: Numbering) -> None:
    strange = np.flatnonzero(seen & ~numbers.known).tolist()
    if strange:
        fits = [name for name in fitting(seen) if name != numbers.name]
        advice = f"The numbers fit {' or '.join(fits)}." if fits else "They fit no numbering of covis: describe yours in a TOML file."
        many = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        raise InvalidInputError(f"{path} must hold numbers of {numbers.name}; it holds {strange[0]}{many}, which is none. {advice}")


def _check_aspect(path: str, photograph: str, size: tuple[int, ...]) -> None:
    height, width = image_size(photograph)
    ratio, expected = size[1] / size[0], width / height
    if abs(ratio / expected - 1) > ASPECT:
        turned = " Is it turned by a quarter?" if abs(ratio * expected - 1) <= ASPECT else ""
        raise InvalidInputError(
            f"{path} must have the aspect ratio of its photograph to {100 * ASPECT:g} %; it has {size[1]} x {size[0]} pixels, and "
            f"{photograph} {width} x {height}.{turned} Make the map from the whole photograph."
        )
