"""Numberings: what each number of a label map means, in the benchmarks' own words."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.semantics.toml_files import Shipped, found, own_table, shipped_table

NUMBERS = 256
_KEYS = ("source", "void", "classes", "colours")
_TURN = 0.61803398875  # of the colour circle from one number to the next: neighbours differ much


@dataclass(frozen=True, eq=False)
class Numbering:
    """What the numbers of a label map mean.

    Attributes:
        name: of the numbering, or the path of its file.
        classes: number -> the class's name, each name once; those that mean nothing may have a name too.
        void: numbers that mean nothing.
        palette: (256, 3) uint8, colours to look at; black where no class is. A class for which nobody published a colour
            has one of ours.
        source: where the list comes from.

    Raises:
        InvalidInputError: a number is not in 0 to 255, a name is no text or stands twice, or there is no class.

    >>> cityscapes = numbering("cityscapes-train")
    >>> cityscapes.classes[2], sorted(cityscapes.void), cityscapes.palette[2].tolist()
    ('building', [255], [70, 70, 70])
    """

    name: str
    classes: Mapping[int, str]
    void: frozenset[int]
    palette: NDArray[np.uint8]
    source: str

    def __post_init__(self) -> None:
        for number in (*self.classes, *self.void):
            if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < NUMBERS:
                raise InvalidInputError(f"{self.name}: a class's number must be a whole number from 0 to 255; got {number!r}.")
        seen: dict[str, int] = {}
        for number, name in self.classes.items():
            if not isinstance(name, str) or not name.strip() or name != name.strip() or "\n" in name:
                raise InvalidInputError(f"{self.name}: the name of class {number} must be a text of one line; got {name!r}.")
            if name in seen:
                raise InvalidInputError(
                    f"{self.name}: every class must have a name of its own; {seen[name]} and {number} are both {name!r}. "
                    "Tell them apart, and put both into one cluster."
                )
            seen[name] = number
        if not set(self.classes) - set(self.void):
            raise InvalidInputError(f"{self.name} must number at least one class that means something; it has none.")
        palette = np.asarray(self.palette)
        if palette.shape != (NUMBERS, 3) or palette.dtype != np.uint8:
            raise InvalidInputError(f"{self.name}: a palette must be (256, 3) uint8; got {palette.shape} {palette.dtype}.")
        object.__setattr__(self, "classes", dict(sorted(self.classes.items())))
        object.__setattr__(self, "void", frozenset(self.void))

    def __str__(self) -> str:
        """A line for lists."""
        numbers, void = list(self.meaningful), ", ".join(map(str, sorted(self.void)))
        return f"{len(numbers)} classes, {numbers[0]} to {numbers[-1]}; void: {void or 'none'}. {self.source}"

    @property
    def known(self) -> NDArray[np.bool_]:
        """(256,) bool: the numbers that a map in this numbering can hold."""
        known = np.zeros(NUMBERS, dtype=np.bool_)
        known[[*self.classes, *self.void]] = True
        return known

    @property
    def meaningful(self) -> dict[int, str]:
        """Number -> name of the classes that mean something, in the order of their numbers."""
        return {number: name for number, name in self.classes.items() if number not in self.void}


def numbering(name_or_path: str | Path) -> Numbering:
    """A numbering of `NUMBERINGS` by its name, or a user's by the path of its TOML file.

    The file: `[classes]` with `NUMBER = "name"`, `void = [NUMBER, …]`, and optionally `[colours]` with `NUMBER = [r, g, b]` and
    `source = "…"`.

    Raises:
        UnknownNameError: there is no such numbering; the nearest is suggested.
        MissingFileError: there is no such file.
        DamagedFileError: it is no TOML, or a number stands in it twice.
        InvalidInputError: it has an unknown key, or a number, name or colour that is none.
    """
    return found(name_or_path, NUMBERINGS, _own, what="numbering of classes")


def _own(path: Path) -> Numbering:
    return _from_table(str(path), own_table(path, what="numbering", keys=_KEYS))


def _shipped(name: str) -> Numbering:
    if name != "ade20k-annotations":
        return _from_table(name, shipped_table("numberings", name))
    networks = _shipped("ade20k")
    palette = np.vstack([np.zeros((1, 3), dtype=np.uint8), networks.palette[:-1]])
    classes = {number + 1: text for number, text in networks.classes.items()}
    source = "ADE20K scene parsing, 150 classes: objectInfo150.txt of github.com/CSAILVision/sceneparsing, with its color150.mat"
    return Numbering(name, classes, frozenset({0, NUMBERS - 1}), palette, source)


NUMBERINGS: Mapping[str, Numbering] = Shipped(
    ("cityscapes", "cityscapes-train", "ade20k", "ade20k-annotations", "vistas-1.2", "vistas-2.0"), _shipped
)
"""The numberings that covis knows by name. 255 means nothing in each: tools write it where they say nothing."""


def _from_table(name: str, table: Mapping[str, Any]) -> Numbering:
    classes = table.get("classes")
    if not isinstance(classes, Mapping) or not classes:
        raise InvalidInputError(f'{name} must have a table [classes] of lines such as 0 = "road"; it has none.')
    void, source = table.get("void", []), table.get("source", f"the file {name}")
    if not isinstance(void, list) or not isinstance(source, str):
        raise InvalidInputError(f"{name}: void must be a list of numbers and source a text; got {void!r} and {source!r}.")
    numbered = {_number(key, name): text for key, text in classes.items()}
    colours = table.get("colours", {})
    if not isinstance(colours, Mapping):
        raise InvalidInputError(f"{name}: [colours] must be a table of lines such as 0 = [128, 64, 128]; got {colours!r}.")
    palette = np.zeros((NUMBERS, 3), dtype=np.uint8)
    for number in numbered:
        palette[number] = 0 if number in void else own_colour(number)
    for key, colour in colours.items():
        palette[_number(key, name)] = _colour(colour, f"{name}: the colour of {key}")
    return Numbering(name, numbered, frozenset(_hashable(void, name)), palette, source)


def _hashable(void: list[Any], name: str) -> list[Any]:
    bad = [one for one in void if isinstance(one, bool) or not isinstance(one, int)]
    if bad or len(set(void)) < len(void):
        raise InvalidInputError(f"{name}: void must list whole numbers, each once; got {void!r}.")
    return void


def _number(key: str, name: str) -> int:
    if not key.isascii() or not key.isdigit() or str(int(key)) != key or int(key) >= NUMBERS:
        raise InvalidInputError(f"{name}: a class's number must be a whole number from 0 to 255, without leading zeros; got {key!r}.")
    return int(key)


def _colour(value: Any, where: str) -> list[int]:
    fits = isinstance(value, list) and len(value) == 3
    if not fits or not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= 255 for one in value):
        raise InvalidInputError(f"{where} must be three whole numbers from 0 to 255, [red, green, blue]; got {value!r}.")
    return list(value)


def own_colour(number: int) -> tuple[int, int, int]:
    """A colour of ours for a number for which nobody published one: hues by the golden ratio, so that neighbours differ.

    >>> own_colour(0), own_colour(1)
    ((217, 76, 76), (76, 117, 217))
    """
    red, green, blue = colorsys.hsv_to_rgb(number * _TURN % 1, 0.65, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)
