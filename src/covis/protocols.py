"""Protocol: who is asked, who is searched, what counts as correct, who is counted; and the table of named ones."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from covis.config import from_table, to_toml
from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import check_absent, check_header, read_text, write_text
from covis.lookup import suggest

FORMAT, VERSION = "covis-protocol", 1


@dataclass(frozen=True)
class Protocol:
    """How a ranking is judged. Printed as a card beside every score.

    Attributes:
        name: what the number is called.
        threshold: a database image is a positive from this graded similarity on, in (0, 1].
        strict: positive means more than the threshold, not at least.
        denominator: "all" queries count (one without a positive is a miss), or only those "with-positive".
        scope: "scene": each scene's database is searched alone, then queries are pooled.
        ks: the k of recall@k.
        distances: the type that distances are rounded to before average precision: "float16" as the reference does, or "float32".
        source: where the definition comes from.

    Raises:
        InvalidInputError: a field is out of its range.

    >>> print(protocol("graded/0.5").card())
    graded/0.5
      asked      every query of each scene
      searched   that scene's database alone; excluded pairs are skipped
      correct    graded similarity >= 0.5
      counted    queries with a positive
      precision  over all query x database pairs, by distance (float32)
      source     covis
    """

    name: str
    threshold: float
    strict: bool = False
    denominator: Literal["all", "with-positive"] = "with-positive"
    scope: Literal["scene"] = "scene"
    ks: tuple[int, ...] = (1, 2, 3, 4, 5, 10, 15, 20, 25)
    distances: Literal["float16", "float32"] = "float32"
    source: str = "covis"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise InvalidInputError(f"The threshold of protocol {self.name!r} must be a similarity in (0, 1]; got {self.threshold}.")
        for field, known in {"denominator": ("all", "with-positive"), "scope": ("scene",), "distances": ("float16", "float32")}.items():
            if getattr(self, field) not in known:
                raise InvalidInputError(
                    f"The {field} of protocol {self.name!r} must be one of {', '.join(map(repr, known))}; got {getattr(self, field)!r}."
                )
        object.__setattr__(self, "ks", tuple(self.ks))
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) != len(self.ks):
            raise InvalidInputError(f"The ks of protocol {self.name!r} must be different whole numbers >= 1; got {self.ks}.")

    def card(self) -> str:
        """The definition in words."""
        correct = f"graded similarity {'>' if self.strict else '>='} {self.threshold:g}"
        counted = "all queries; one without a positive is a miss" if self.denominator == "all" else "queries with a positive"
        lines = {
            "asked": "every query of each scene",
            "searched": "that scene's database alone; excluded pairs are skipped",
            "correct": correct,
            "counted": counted,
            "precision": f"over all query x database pairs, by distance ({self.distances})",
            "source": self.source,
        }
        return "\n".join([self.name, *(f"  {key:<10} {value}" for key, value in lines.items())])

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the protocol as TOML; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        # The header comes last: a truncated file then lacks it and is refused, instead of reading as other defaults.
        header = f'format = "{FORMAT}"\nversion = {VERSION}\n'
        return write_text(check_absent(path, overwrite=overwrite), to_toml(self) + header)

    @classmethod
    def read(cls, path: str | Path) -> Protocol:
        """The inverse of `write`; also a user's own protocol.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is no TOML, or of another kind or version.
            InvalidInputError: a field is unknown or out of its range.
        """
        try:
            table = tomllib.loads(read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise DamagedFileError(f"The protocol {path} must be TOML; {error}.") from error
        check_header(table, path, kind=FORMAT, version=VERSION)
        return from_table(cls, {k: v for k, v in table.items() if k not in ("format", "version")}, where=str(path))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a file of scores."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _graded(text: str) -> Protocol:
    """Correct from graded similarity T on; queries with a positive are counted."""
    return Protocol(f"graded/{text}", float(text))


def _seven_scenes(_: str) -> Protocol:
    """GCL's evaluation of 7-Scenes: correct above 0.5, all queries are counted, distances in float16."""
    source = "GCL's evaluation of 7-Scenes and TB-Places (eval_recallatk.py, eval_AP.py of its 2021 revision), one scene a model"
    return Protocol("7scenes/gcl", 0.5, strict=True, denominator="all", distances="float16", source=source)


PROTOCOLS: dict[str, Callable[[str], Protocol]] = {"7scenes/gcl": _seven_scenes, "graded/T": _graded}
"""Name -> maker; a capital after the slash stands for a number: `graded/0.5`."""


def protocol(name: str | Path) -> Protocol:
    """A protocol by its name, or from a TOML file by its path.

    Raises:
        UnknownNameError: no protocol has that name; the nearest is suggested.

    >>> protocol("7scenes/gcl").strict
    True
    """
    text = str(name)
    if text.endswith(".toml"):
        return Protocol.read(name)
    if text in PROTOCOLS and not text.endswith("/T"):
        return PROTOCOLS[text]("")
    family, _, number = text.rpartition("/")
    if f"{family}/T" in PROTOCOLS:
        try:
            return PROTOCOLS[f"{family}/T"](number)
        except ValueError as error:
            raise UnknownNameError(
                f"The protocol {family}/T takes a similarity in (0, 1] for T, as in {family}/0.5; got {text!r}."
            ) from error
    raise UnknownNameError(f"There is no protocol called {text!r}. {suggest(text, PROTOCOLS)}")
