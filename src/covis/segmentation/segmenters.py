"""The contract of all that segments, and the numbering of what it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.files import digest
from covis.segmentation.frames import LARGEST

Classes = str | tuple[str, ...]
"""What the numbers of a map mean: the name of a numbering of `covis.semantics.numberings`, or the classes' names by number."""

_SAME = 0.9  # of a model's class names, from which they are those of a numbering


@runtime_checkable
class Segmenter(Protocol):
    """Anything that gives a class number for each pixel of a photograph.

    Attributes:
        classes: the name of a numbering, or the classes' names by number. 255 may always stand for no class.
        digest: a hash of all that the numbers depend on (weights, and how photographs get to the network's size).
        engine: what computes, a word.
    """

    @property
    def classes(self) -> Classes:
        """The name of a numbering, or the classes' names by number."""

    @property
    def digest(self) -> str:
        """A hash of all that the numbers depend on."""

    @property
    def engine(self) -> str:
        """What computes."""

    def segment(self, photographs: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Photographs (h, w, 3) uint8 RGB, upright, each of its own size, to maps (h, w) uint8 of the same sizes."""


def settings_of(segmenter: Segmenter) -> dict[str, Any]:
    """How a segmenter's network gets its pixels, as plain values: its attribute `settings`, where it has one.

    Raises:
        InvalidInputError: they are no plain values.
    """
    found = getattr(segmenter, "settings", {})
    try:
        plain = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"The settings of a segmenter must be plain values, as JSON has them; of {_name(segmenter)}: {error}."
        ) from error
    return dict(plain) if isinstance(plain, dict) else {}


def check_maps(maps: Sequence[Any], photographs: Sequence[NDArray[np.uint8]], segmenter: Segmenter) -> None:
    """Hold what a segmenter gave against its contract.

    Raises:
        InvalidInputError: another number of maps, another size or type, or a number that no class has.
    """
    if len(maps) != len(photographs):
        raise InvalidInputError(f"A segmenter must give a map a photograph; {_name(segmenter)} gave {len(maps)} for {len(photographs)}.")
    known = _meant(segmenter.classes)
    for numbers, photograph in zip(maps, photographs, strict=True):
        if not isinstance(numbers, np.ndarray) or numbers.dtype != np.uint8 or numbers.shape != photograph.shape[:2]:
            said = f"{numbers.dtype} {numbers.shape}" if isinstance(numbers, np.ndarray) else type(numbers).__name__
            raise InvalidInputError(
                f"A segmenter must give (height, width) uint8 of the photograph's size {photograph.shape[:2]}; "
                f"{_name(segmenter)} gave {said}."
            )
        unknown = np.flatnonzero((np.bincount(numbers.ravel(), minlength=LARGEST + 1) > 0) & ~known)
        if unknown.size:
            raise InvalidInputError(
                f"Every number must be a class of {_called(segmenter.classes)}; {_name(segmenter)} gave {unknown[0]}. "
                "Name the numbering that the network was trained with (--classes)."
            )


def numbering(names: Sequence[str], *, asked: str | None, count: int | None = None, where: str) -> Classes:
    """The numbering of a network's classes: the one that was asked for, or the one whose names they are.

    Names count as the same without regard to case, spaces and synonyms behind a comma or semicolon; nine of ten must be.

    Args:
        names: the network's class names by number; empty where it says none.
        asked: the name of a numbering; absent: found by the names.
        count: how many classes the network tells apart, where that is known.
        where: the network, for messages.

    Returns:
        The numbering's name; the class names, where no numbering has them.

    Raises:
        UnknownNameError: there is no such numbering.
        InvalidInputError: the network says no names and nothing was asked for, or what was asked for contradicts its names or
            their number.
    """
    from covis.semantics.numberings import NUMBERINGS
    from covis.semantics.numberings import numbering as numbering_called

    fitting = [name for name in NUMBERINGS if names and _same(names, NUMBERINGS[name].classes)]
    if asked is None:
        if not names:
            raise InvalidInputError(
                f"{where} does not say what its numbers mean. Name the numbering: --classes, one of {', '.join(NUMBERINGS)}."
            )
        return fitting[0] if fitting else tuple(names)
    table = numbering_called(asked)
    if fitting and asked not in fitting and Path(asked).suffix != ".toml":
        raise InvalidInputError(f"{where} has the class names of {fitting[0]}; got --classes {asked}. Leave --classes out, or name that.")
    if count is not None and not table.known[:count].all():
        raise InvalidInputError(
            f"{where} tells {count} classes apart, and {asked} has no number {int(table.known.argmin())}. "
            "Name the numbering that it was trained with."
        )
    return asked


def class_names(classes: Classes) -> dict[int, str]:
    """Number -> name.

    Raises:
        UnknownNameError: there is no such numbering.
    """
    if not isinstance(classes, str):
        return dict(enumerate(classes))
    from covis.semantics.numberings import numbering as numbering_called

    return dict(numbering_called(classes).classes)


def class_total(classes: Classes) -> int:
    """How many classes mean something."""
    if not isinstance(classes, str):
        return len(classes)
    from covis.semantics.numberings import numbering as numbering_called

    return len(numbering_called(classes).meaningful)


def described(classes: Classes) -> str | list[str] | dict[str, str]:
    """What a record says of the numbers: a numbering's name, the class names, or of a user's file its name and a hash of its content.

    Raises:
        MissingFileError: there is no such file.
        UnknownNameError: there is no such numbering.
    """
    if not isinstance(classes, str):
        return list(classes)
    if Path(classes).suffix != ".toml":
        return classes
    from covis.semantics.numberings import numbering as numbering_called

    table = numbering_called(classes)
    content = {"classes": {str(number): name for number, name in table.classes.items()}, "void": sorted(table.void)}
    return {"file": Path(classes).name, "digest": digest(content)}


def palette_of(classes: Classes) -> NDArray[np.uint8]:
    """(256, 3) uint8: the numbering's colours; without one, a colour of ours for each class."""
    from covis.semantics.numberings import numbering as numbering_called
    from covis.semantics.numberings import own_colour

    if isinstance(classes, str):
        return numbering_called(classes).palette
    found = np.zeros((LARGEST + 1, 3), dtype=np.uint8)
    for number in range(len(classes)):
        found[number] = own_colour(number)
    return found


def _same(names: Sequence[str], classes: Mapping[int, str]) -> bool:
    """Whether these are the names of a numbering's classes from 0 on; a class of 255 is none."""
    there = {number: name for number, name in classes.items() if number != LARGEST}
    if set(there) != set(range(len(names))):
        return False
    return sum(_plain(name) == _plain(there[number]) for number, name in enumerate(names)) >= _SAME * len(names)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.split(r"[,;]", name.lower())[0])


def _meant(classes: Classes) -> NDArray[np.bool_]:
    """(256,) bool: the numbers that may stand in a map."""
    from covis.semantics.numberings import numbering as numbering_called

    known = numbering_called(classes).known.copy() if isinstance(classes, str) else np.arange(LARGEST + 1) < len(classes)
    known[LARGEST] = True
    return known


def _called(classes: Classes) -> str:
    return f"the numbering {classes}" if isinstance(classes, str) else f"the network's {len(classes)}"


def _name(segmenter: Segmenter) -> str:
    return str(getattr(segmenter, "name", type(segmenter).__name__))
