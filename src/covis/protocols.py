"""Protocol: who is asked, who is searched, what counts as correct, who is counted; and the table of named ones."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from covis.config import from_table
from covis.errors import DamagedFileError, InvalidInputError, UnknownNameError
from covis.files import check_absent, check_header, read_text, write_text
from covis.lookup import suggest

FORMAT, VERSION = "covis-protocol", 2
OFFICIAL_KS = (1, 5, 10, 20)
TASKS = {"im2im": (False, False), "seq2im": (True, False), "im2seq": (False, True), "seq2seq": (True, True)}
"""MSLS's tasks: whether a query, and whether a database entry, is a sequence."""
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
"""MSLS's subtasks, flags of its images: summer to winter, old to new, day to night, and back."""
MOST = 1_000_000
"""The largest k, and the longest window."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "positive": ("similarity", "distance", "frames"),
    "denominator": ("all", "with-positive"),
    "scope": ("scene", "joint"),
    "duplicates": ("keep",),
    "precision": ("msls", "relevant", "found"),
    "short": ("refuse", "use"),
    "distances": ("float16", "float32"),
}
_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "similarity": ("a similarity in (0, 1]", lambda value: 0 < value <= 1),
    "distance": ("metres in (0, 1e8]", lambda value: 0 < value <= 1e8),
    "frames": ("a number of frames in [0, 1e9]", lambda value: 0 <= value <= 1e9),
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
        positive: what the threshold is of: graded "similarity", "distance" of the positions, or difference of "frames".
        strict: the threshold itself is no positive.
        heading: with "distance": headings may also differ by at most this, degrees in [0, 180]; None: they are not looked at.
        asked: flags that a query must have.
        searched: flags that a database image must have to take a rank at all.
        correct: flags that a database image must have to be a positive; without them it keeps its rank, and is wrong.
        denominator: "all" queries count (one without a positive is a miss), or only those "with-positive".
        scope: "scene": each scene's database is searched alone; "joint": one index over all of them. Positives are of the
            query's own scene, and queries are pooled, in both.
        windows: consecutive frames in a query and in a database entry; odd.
        duplicates: "keep": every image found keeps its rank.
        precision: what AP@k divides by: "msls": min(positives, k); "relevant": positives; "found": hits in the first k.
        short: a ranking with fewer than k entries of a database that has more: "refuse" it, or "use" what is there.
        ks: the k of recall@k and its like.
        distances: the type that distances are rounded to before average precision: "float16" as the reference does, or "float32".
        source: where the definition comes from.

    Raises:
        InvalidInputError: a field is out of its range, or two do not go together.

    >>> print(protocol("graded/0.5").card())
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
    positive: Literal["similarity", "distance", "frames"] = "similarity"
    strict: bool = False
    heading: float | None = None
    asked: tuple[str, ...] = ()
    searched: tuple[str, ...] = ()
    correct: tuple[str, ...] = ()
    denominator: Literal["all", "with-positive"] = "with-positive"
    scope: Literal["scene", "joint"] = "scene"
    windows: tuple[int, int] = (1, 1)
    duplicates: Literal["keep"] = "keep"
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
        if self.heading is not None and not (self.positive == "distance" and 0 <= self.heading <= 180):
            self._refuse("heading", "be in [0, 180] degrees, and go with positive = 'distance'", self.heading)
        for field in ("asked", "searched", "correct"):
            object.__setattr__(self, field, self._flags(field))
        for field in ("ks", "windows"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if len(self.windows) != 2 or not all(1 <= length <= MOST and length % 2 for length in self.windows):
            self._refuse("windows", f"be two odd whole numbers from 1 to {MOST:,}", self.windows)
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
            "searched": f"{alone}{_with(self.searched, '; only images')}; an image with itself is no pair",
            "correct": self.correct_in_words(),
            "counted": "all queries; one without a positive is a miss" if self.denominator == "all" else "queries with a positive",
            "duplicates": "every image found keeps its rank",
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
        value = _number(self.threshold)
        words = {
            "similarity": f"graded similarity {'>' if self.strict else '>='} {value}",
            "distance": f"{'nearer than' if self.strict else 'at most'} {value} m from the query",
            "frames": f"frame numbers {'less than' if self.strict else 'at most'} {value} apart",
        }[self.positive]
        if self.heading is not None:
            words += f", headings at most {_number(self.heading)} degrees apart"
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
        """The inverse of `write`; also a user's own protocol, and a file of version 1.

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

        >>> Protocol.from_dict(protocol("radius/25/40").as_dict(), where="here").heading
        40.0
        """
        heading = table.get("heading")
        if heading is not None and (isinstance(heading, bool) or not isinstance(heading, (int, float))):
            raise InvalidInputError(f"{where}: heading must be a number of degrees; got {heading!r}.")
        made = from_table(cls, {key: value for key, value in table.items() if key != "heading"}, where=where)
        return made if heading is None else dataclasses.replace(made, heading=float(heading))


def _graded(text: str) -> Protocol:
    """Correct from graded similarity T on, as graded/0.5; queries with a positive are counted, with /all every query."""
    values, denominator = _parts(text, most=1)
    return Protocol(_name("graded", *values, every=denominator == "all"), values[0], denominator=denominator)


def _radius(text: str) -> Protocol:
    """Correct within R metres, as radius/25; with radius/25/40 headings at most 40 degrees apart; /all as in graded."""
    values, denominator = _parts(text, most=2)
    heading = values[1] if len(values) > 1 else None
    name = _name("radius", *values, every=denominator == "all")
    return Protocol(name, values[0], positive="distance", heading=heading, denominator=denominator)


def _seven_scenes(_: str) -> Protocol:
    """GCL's evaluation of 7-Scenes: correct above 0.5, all queries are counted, distances in float16."""
    source = "GCL's evaluation of 7-Scenes and TB-Places (eval_recallatk.py, eval_AP.py of its 2021 revision), one scene a model"
    return Protocol("7scenes/gcl", 0.5, strict=True, denominator="all", distances="float16", source=source)


def _msls(name: str, *, source: str, **changed: Any) -> Protocol:
    """What MSLS's protocols share: 25 m, no heading; queries of the subset `all` that are no panoramas."""
    usual: dict[str, Any] = {"asked": ("all", "-panorama"), "ks": OFFICIAL_KS, "short": "use"}
    return Protocol(name, 25.0, positive="distance", source=source, **usual | changed)


def _msls_official(text: str) -> Protocol:
    """The MSLS script on its validation cities, image to image; also /seq2seq-3, /im2seq-5, /d2n, /seq2im-3/n2d and so on."""
    parts = text.split("/") if text else []
    task = parts.pop(0) if parts and parts[0].partition("-")[0] in TASKS else "im2im"
    subtask = parts.pop(0) if parts else "all"
    kind, _, length = task.partition("-")
    frames = 1 if task == "im2im" else int(length)
    if parts or subtask not in SUBTASKS or frames % 2 == 0 or (frames > 1) != (kind != "im2im"):
        raise ValueError(f"{text!r} is no task and subtask")
    query, database = TASKS[kind]
    name = "/".join(["msls-val/official", *([f"{kind}-{frames}"] if frames > 1 else []), *([subtask] if subtask != "all" else [])])
    flags = (subtask, "-panorama")
    windows = (frames if query else 1, frames if database else 1)
    return _msls(name, asked=flags, correct=flags, windows=windows, source="mapillary_sls, evaluate.py")


def _msls_gcl(_: str) -> Protocol:
    """As msls-val/official, of an index of each city that also holds its panoramas: they take ranks and are never correct."""
    return _msls("msls-val/gcl", correct=("all", "-panorama"), source="GCL, extract_predictions.py and validate.py")


def _msls_gsv(_: str) -> Protocol:
    """The same 740 queries in one joint index of both cities without panoramas (gsv-cities, MixVPR, SALAD, OpenVPRLab)."""
    ks, source = (1, 5, 10, 15, 20, 25), "gsv-cities and those after it; k as SALAD's eval.py"
    return _msls("msls-val/gsv", searched=("-panorama",), scope="joint", ks=ks, short="refuse", source=source)


def _msls_gmberton(_: str) -> Protocol:
    """All query images but panoramas (about 11,000, not 740), one joint index without panoramas, all queries are counted."""
    flags, source = ("-panorama",), "VPR-methods-evaluation on VPR-datasets-downloader's MSLS"
    changed = {"asked": flags, "searched": flags, "denominator": "all", "scope": "joint", "short": "refuse"}
    return _msls("msls-val/gmberton", source=source, **changed)


def _msls_test(_: str) -> Protocol:
    """The MSLS challenge, for those who hold its ground truth: 1,135 queries of six cities, correct within 25 m."""
    return _msls("msls-test/official", asked=("all",), correct=("all",), source="MSLS challenge; its server's rule is not published")


def _nordland(name: str, frames: float, source: str) -> Protocol:
    return Protocol(f"nordland/{name}", frames, positive="frames", denominator="all", source=source)


def _nordland_pnv(_: str) -> Protocol:
    """Winter asks summer, 27,592 frames each: at most 7 frames apart, which is what its stated 10 come to."""
    return _nordland("pnv", 7.0, "Patch-NetVLAD's ground truth: positions (i, i), radius 10, so sqrt(2) |i - j| <= 10")


def _nordland_gmberton(_: str) -> Protocol:
    """Winter asks summer, 27,592 frames each: at most 10 frames apart."""
    return _nordland("gmberton", 10.0, "datasets_vg: frames on a line, 2.381 m apart, radius 25 m")


def _nordland_vpr_bench(_: str) -> Protocol:
    """2,760 summer frames ask 27,592 winter frames: at most 1 frame apart, where query i has frame number 10 i."""
    return _nordland("vpr-bench", 1.0, "VPR-Bench (gsv-cities, MixVPR, SALAD); roles are flipped, query i is frame 10 i")


PROTOCOLS: dict[str, Callable[[str], Protocol]] = {
    "7scenes/gcl": _seven_scenes,
    "graded/T": _graded,
    "msls-test/official": _msls_test,
    "msls-val/gcl": _msls_gcl,
    "msls-val/gmberton": _msls_gmberton,
    "msls-val/gsv": _msls_gsv,
    "msls-val/official": _msls_official,
    "nordland/gmberton": _nordland_gmberton,
    "nordland/pnv": _nordland_pnv,
    "nordland/vpr-bench": _nordland_vpr_bench,
    "radius/R": _radius,
}
"""Name -> maker; a capital after the slash stands for a number: `graded/0.5`."""

OPTIONS = {
    "graded/T": "a similarity in (0, 1] for T, as in graded/0.5, and /all behind it to count every query",
    "radius/R": "metres for R, as in radius/25, then a limit of heading in degrees, as in radius/25/40, and /all to count every query",
    "msls-val/official": f"a task other than im2im with its odd number of frames, as in /seq2seq-3, then one of {', '.join(SUBTASKS)}",
}
"""What may stand in place of the capital, or behind the name."""


def protocol(name: str | Path) -> Protocol:
    """A protocol by its name, or from a TOML file by its path.

    Raises:
        UnknownNameError: no protocol has that name; the nearest is suggested.

    >>> protocol("7scenes/gcl").strict, protocol("msls-val/official/seq2seq-3/d2n").windows
    (True, (3, 3))
    """
    text = str(name)
    if text.endswith(".toml"):
        return Protocol.read(name)
    if text in PROTOCOLS and not _stands_for_a_number(text):
        return PROTOCOLS[text]("")
    for key, make in PROTOCOLS.items():
        family = key[:-1] if _stands_for_a_number(key) else f"{key}/" if key in OPTIONS else ""
        if family and text.startswith(family):
            try:
                return make(text.removeprefix(family) or "/")  # nothing behind the slash is no option
            except ValueError as error:
                raise UnknownNameError(f"The protocol {key} takes {OPTIONS.get(key, 'a number')}; got {text!r}.") from error
    raise UnknownNameError(f"There is no protocol called {text!r}. {suggest(text, PROTOCOLS)}")


def _stands_for_a_number(key: str) -> bool:
    return key[-2:-1] == "/" and key[-1].isupper()


def _parts(text: str, *, most: int) -> tuple[list[float], Literal["all", "with-positive"]]:
    """The numbers between slashes, at least one, and whether "all" stands behind them."""
    parts = text.split("/")
    every = parts[-1] == "all"
    values = [float(part) for part in parts[: len(parts) - every]]
    if not 1 <= len(values) <= most:
        raise ValueError(f"there must be 1 to {most} numbers; got {len(values)}")
    return values, "all" if every else "with-positive"


def _name(family: str, *values: float, every: bool) -> str:
    return "/".join([family, *map(_number, values), *(["all"] if every else [])])


def _number(value: float) -> str:
    """The shortest text that gives the number back."""
    return repr(float(value)).removesuffix(".0")


def _with(flags: tuple[str, ...], before: str) -> str:
    if not flags:
        return ""
    words = [f"without {flag.removeprefix('-')!r}" if flag.startswith("-") else f"with {flag!r}" for flag in flags]
    return f"{before} {', '.join(words)}"
