"""Protocol: who is asked, who is searched, what counts as correct, who is counted."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from covis.config import from_table
from covis.errors import DamagedFileError, InvalidInputError
from covis.files import check_absent, check_header, read_text, write_text

FORMAT, VERSION = "covis-protocol", 3
MOST = 1_000_000
"""The largest k, and the longest window."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "positive": ("similarity", "distance", "frames", "place"),
    "denominator": ("all", "with-positive"),
    "scope": ("scene", "joint"),
    "duplicates": ("keep", "place"),
    "moments": ("any", "other"),
    "precision": ("msls", "relevant", "found"),
    "short": ("refuse", "use"),
    "distances": ("float16", "float32"),
}
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "similarity": ("a similarity in (0, 1]", lambda value: 0 < value <= 1),
    "distance": ("metres in (0, 1e8]", lambda value: 0 < value <= 1e8),
    "frames": ("a number of frames in [0, 1e9]", lambda value: 0 <= value <= 1e9),
    "place": ("0 with positive = 'place'", lambda value: value == 0),
}


@dataclass(frozen=True)
class Protocol:
    """How a ranking is judged. Printed as a card beside every score.

    Flags are those of `Images.flags`; "-panorama" means without it. A flag that images lack: "-panorama" holds of all,
    "panorama" is an error. Of a window the flags of its middle frame count.

    Attributes:
        name: what the number is called.
        threshold: from where on, or up to where, a database image is a positive: a similarity in (0, 1], metres, or
            frames; inclusive.
        positive: what the threshold is of: graded "similarity", "distance" of the positions, or difference of "frames"; "place": an image
            of the query's own place (`Images.place`) is correct, and the threshold is 0.
        strict: the threshold itself is no positive; never with "place".
        heading: with "distance": headings may also differ by at most this, degrees in [0, 180]; None: they are not looked at.
        asked: flags that a query must have.
        searched: flags that a database image must have to take a rank at all.
        correct: flags that a database image must have to be a positive; without them it keeps its rank, and is wrong.
        denominator: "all" queries count (one without a positive is a miss), or only those "with-positive".
        scope: "scene": each scene's database is searched alone; "joint": one index over all of them. Positives are of the
            query's own scene, and queries are pooled, in both.
        windows: consecutive frames in a query and in a database entry; odd.
        duplicates: "keep": every image found keeps its rank; "place": of the database images of one place (the cutouts of a panorama, say)
            the best found keeps its rank, the others take none, and a place with a positive counts as one positive.
        moments: "other": database images of the query's own `Images.time` take no rank; a query whose only positives are of its own time
            counts, as a miss. "any": they take theirs.
        precision: what AP@k divides by: "msls": min(positives, k); "relevant": positives; "found": hits in the first k.
        short: a ranking with fewer than k entries of a database that has more: "refuse" it, or "use" what is there.
        ks: the k of recall@k and its like.
        distances: the type that distances are rounded to before average precision: "float16" as the reference does, or "float32".
        source: where the definition comes from.

    Raises:
        InvalidInputError: a field is out of its range, or two do not go together.

    >>> print(Protocol("graded/0.5", 0.5).card())
    graded/0.5
      asked      every query
      searched   each scene's database alone; an image with itself is no pair
      correct    graded similarity >= 0.5
      counted    queries with a positive
      duplicates every image found keeps its rank
      mAP@k      divides by min(positives, k)
      AP         over all query x database pairs, by distance (float32)
      k          1, 2, 3, 4, 5, 10, 15, 20, 25; a ranking too short for a k is refused
      source     covis
    """

    name: str
    threshold: float
    _: KW_ONLY
    positive: Literal["similarity", "distance", "frames", "place"] = "similarity"
    strict: bool = False
    heading: float | None = None
    asked: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    correct: tuple[str, ...] = ()
    denominator: Literal["all", "with-positive"] = "with-positive"
    scope: Literal["scene", "joint"] = "scene"
    windows: tuple[int, int] = (1, 1)
    duplicates: Literal["keep", "place"] = "keep"
    moments: Literal["any", "other"] = "any"
    precision: Literal["msls", "relevant", "found"] = "msls"
    short: Literal["refuse", "use"] = "refuse"
    ks: tuple[int, ...] = (1, 2, 3, 4, 5, 10, 15, 20, 25)
    distances: Literal["float16", "float32"] = "float32"
    source: str = "covis"

    def __post_init__(self) -> None:
        for field, known in _KNOWN.items():
            if getattr(self, field) not in known:
                self._refuse(field, f"be one of {', '.join(map(repr, known))}", getattr(self, field))
        rule, holds = _RANGES[self.positive]
        if not holds(self.threshold):
            self._refuse("threshold", f"be {rule}", self.threshold)
        if self.positive == "place" and self.strict:
            self._refuse("strict", "be false with positive = 'place': two images are of one place or not", self.strict)
        if self.heading is not None and not (self.positive == "distance" and 0 <= self.heading <= 180):
            self._refuse("heading", "be in [0, 180] degrees, and go with positive = 'distance'", self.heading)
        for field in ("asked", "searched", "correct"):
            object.__setattr__(self, field, self._flags(field))
        for field in ("ks", "windows"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.windows) != 2 or not all(1 <= length <= MOST and length % 2 for length in self.windows):
            self._refuse("windows", f"be two odd whole numbers from 1 to {MOST:,}", self.windows)
        if self.windows != (1, 1) and (self.duplicates != "keep" or self.moments != "any"):
            self._refuse("windows", "be (1, 1) where duplicates of a place or moments take no rank", self.windows)
        if self.positive == "similarity" and self.windows != (1, 1):
            self._refuse("windows", "be (1, 1) with positive = 'similarity': labels are of single images", self.windows)
        if not self.ks or min(self.ks) < 1 or max(self.ks) > MOST or len(set(self.ks)) != len(self.ks):
            self._refuse("ks", f"be different whole numbers from 1 to {MOST:,}", self.ks)

    def _refuse(self, field: str, rule: str, value: object) -> None:
        raise InvalidInputError(f"The {field} of protocol {self.name!r} must {rule}; got {value!r}.")

    def _flags(self, field: str) -> tuple[str, ...]:
        flags = getattr(self, field)
        given = (flags,) if isinstance(flags, str) else tuple(flags)
        if isinstance(flags, str) or not all(isinstance(flag, str) and flag.removeprefix("-") for flag in given):
            self._refuse(field, "be a list of flags, such as ['all', '-panorama']", flags)
        if len({flag.removeprefix("-") for flag in given}) != len(given):
            self._refuse(field, "name each flag once", flags)
        return given

    def card(self) -> str:
        """The definition in words; two protocols that differ have different cards."""
        alone = "each scene's database alone" if self.scope == "scene" else "one index over the databases of all scenes"
        lines = {
            "asked": "every query" + _with(self.asked, ": those"),
            "searched": f"{alone}{_with(self.searched, '; only images')}; an image with itself is no pair"
            + ("" if self.moments == "any" else ", nor with one taken at the query's own time"),
            "correct": self.correct_in_words(),
            "counted": "all queries; one without a positive is a miss"
            if self.denominator == "all"
            else "queries with a positive" + ("" if self.moments == "any" else ", be it of their own time"),
            "duplicates": "every image found keeps its rank"
            if self.duplicates == "keep"
            else "of a place's images the best keeps its rank",
        }
        if self.windows != (1, 1):
            here, there = ("one image" if length == 1 else f"{length} consecutive frames" for length in self.windows)
            lines["windows"] = f"a query is {here}, a database entry {there}; one pair of frames makes two of them correct"
        shortness = "is refused" if self.short == "refuse" else "is used as far as it goes"
        divisor = {"msls": "min(positives, k)", "relevant": "the number of positives", "found": "the hits among the first k"}
        lines |= {
            "mAP@k": f"divides by {divisor[self.precision]}",
            "AP": f"over all query x database pairs, by distance ({self.distances})",
            "k": f"{', '.join(map(str, self.ks))}; a ranking too short for a k {shortness}",
            "source": self.source,
        }
        return "\n".join([self.name, *(f"  {key:<10} {value}" for key, value in lines.items())])

    def correct_in_words(self) -> str:
        """What makes a database image correct, as the card says it."""
        value = number_in_words(self.threshold)
        words = {
            "similarity": f"graded similarity {'>' if self.strict else '>='} {value}",
            "distance": f"{'nearer than' if self.strict else 'at most'} {value} m from the query",
            "frames": f"frame numbers {'less than' if self.strict else 'at most'} {value} apart"
            if self.strict or value != "0"
            else "the same frame number",
            "place": "an image of the query's own place",
        }[self.positive]
        if self.heading is not None:
            words += f", headings at most {number_in_words(self.heading)} degrees apart"
        if self.scope == "joint":
            words += "; in the query's own scene"
        return words + (f"{_with(self.correct, '; only images')} (others keep their rank)" if self.correct else "")

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the protocol as TOML; returns the path.

        Raises:
            OutputExistsError: the file is there and `overwrite` is false.
        """
        # The header comes last: a truncated file then lacks it and is refused, instead of reading as other defaults.
        header = f'format = "{FORMAT}"\nversion = {VERSION}\n'
        return write_text(check_absent(path, overwrite=overwrite), tomli_w.dumps(self.as_dict()) + header)

    @classmethod
    def read(cls, path: str | Path) -> Protocol:
        """The inverse of `write`; also a user's own protocol, and a file of an earlier version.

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
        return cls.from_dict({k: v for k, v in table.items() if k not in ("format", "version")}, where=str(path))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in a file; a heading that is not looked at is left out."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], *, where: str) -> Protocol:
        """The inverse of `as_dict`; what is absent has its default.

        Raises:
            InvalidInputError: a field is unknown, missing or out of its range; the message says where.

        >>> Protocol.from_dict(Protocol("mine", 25.0, positive="distance", heading=40.0).as_dict(), where="here").heading
        40.0
        """
        heading = table.get("heading")
        if heading is not None and (isinstance(heading, bool) or not isinstance(heading, (int, float))):
            raise InvalidInputError(f"{where}: heading must be a number of degrees; got {heading!r}.")
        made = from_table(cls, {key: value for key, value in table.items() if key != "heading"}, where=where)
        return made if heading is None else dataclasses.replace(made, heading=float(heading))


def number_in_words(value: float) -> str:
    """The shortest text that gives a number back; a whole one without its point."""
    return repr(float(value)).removesuffix(".0")


def _with(flags: tuple[str, ...], before: str) -> str:
    if not flags:
        return ""
    words = [f"without {flag.removeprefix('-')!r}" if flag.startswith("-") else f"with {flag!r}" for flag in flags]
    return f"{before} {', '.join(words)}"
