"""The named protocols: ours, and those that published numbers are under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from covis.errors import UnknownNameError
from covis.lookup import suggest
from covis.protocols.definition import Protocol, number_in_words

OFFICIAL_KS = (1, 5, 10, 20)
TASKS = {"im2im": (False, False), "seq2im": (True, False), "im2seq": (False, True), "seq2seq": (True, True)}
"""MSLS's tasks: whether a query, and whether a database entry, is a sequence."""
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
"""MSLS's subtasks, flags of its images: summer to winter, old to new, day to night, and back."""


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


def _frames(text: str) -> Protocol:
    """Correct within N frame numbers, as frames/1 or, where image i is the place of image i, frames/0; every query is counted."""
    (value,), denominator = _parts(text, most=1)
    if denominator == "all":
        raise ValueError("every query is counted as it is")
    return Protocol(_name("frames", value, every=False), value, positive="frames", denominator="all")


def _same_place(text: str) -> Protocol:
    """Correct is an image of the query's own place, for sets labelled by place; queries with a positive, with /all every query."""
    if text not in ("", "all"):
        raise ValueError(f"{text!r} is not all")
    return Protocol(_name("same-place", every=bool(text)), 0.0, positive="place", denominator="all" if text else "with-positive")


def _within_25_m(name: str, source: str, **changed: Any) -> Callable[[str], Protocol]:
    """A maker of what most benchmarks are: correct within 25 m, every query is counted."""
    return _fixed(Protocol(name, 25.0, positive="distance", source=source, **{"denominator": "all", **changed}))


def _gcl_labels(name: str, file: str, **changed: Any) -> Callable[[str], Protocol]:
    """A maker of GCL's: correct as its label file says, queries with a positive are counted."""
    return _fixed(Protocol(name, 0.5, source=f"GCL, extract_predictions.py: the key `sim` of {file}", **changed))


def _by_index(name: str, frames: float, source: str) -> Callable[[str], Protocol]:
    return _fixed(Protocol(name, frames, positive="frames", denominator="all", source=source))


def _fixed(one: Protocol) -> Callable[[str], Protocol]:
    """A maker that takes no options; its first line, which `covis ls protocols` prints, is what is correct."""

    def make(_: str) -> Protocol:
        return one

    counted = "every query" if one.denominator == "all" else "queries with a positive"
    more = ["a place's images give one rank"] if one.duplicates == "place" else []
    more += ["none of the query's own time"] if one.moments == "other" else []
    words = "; ".join([one.correct_in_words(), *more, f"counts {counted}"])
    make.__doc__ = f"{words[0].upper()}{words[1:]} ({one.source})."
    return make


def _tb_places(_: str) -> Protocol:
    """GCL's evaluation of TB-Places: correct above 0.5 of `sim` or `fov`, all queries are counted, distances in float16."""
    return replace(_seven_scenes(""), name="tb-places/gcl")


def _tb_pairs(_: str) -> Protocol:
    """TB-Places' own: average precision over all pairs of one set, correct above 0.5 of `sim`, distances in float16."""
    source = "TB-Places, evaluate.py: one set against itself, condensed distances in float16; its number is AP"
    return replace(_seven_scenes(""), name="tb-places/pairs", source=source)


_NETVLAD, _VME = (
    "NetVLAD (dbStruct .mat, recallAtN.m), also pytorch-NetVlad",
    "VPR-methods-evaluation: radius 25 m on positions in file names",
)
_BENCH = "VPR-Bench's ground_truth_new.npy"

PROTOCOLS: dict[str, Callable[[str], Protocol]] = {
    "7scenes/gcl": _seven_scenes,
    "graded/T": _graded,
    "frames/N": _frames,
    "msls-test/official": _msls_test,
    "msls-val/gcl": _msls_gcl,
    "msls-val/gmberton": _msls_gmberton,
    "msls-val/gsv": _msls_gsv,
    "msls-val/official": _msls_official,
    "nordland/gmberton": _nordland_gmberton,
    "nordland/pnv": _nordland_pnv,
    "nordland/vpr-bench": _nordland_vpr_bench,
    "radius/R": _radius,
    "same-place": _same_place,
    "tb-places/gcl": _tb_places,
    "tb-places/pairs": _tb_pairs,
    "tokyo247/gcl": _gcl_labels("tokyo247/gcl", "gt.h5"),
    "tokyo247/gmberton": _within_25_m("tokyo247/gmberton", _VME, ks=OFFICIAL_KS),
    "tokyo247/netvlad": _within_25_m("tokyo247/netvlad", f"{_NETVLAD}; dbTokyo247.m: one hit a panorama of 12", duplicates="place"),
    "tokyo-tm/gcl": _gcl_labels("tokyo-tm/gcl", "val_gt.h5", moments="other"),
    "tokyo-tm/netvlad": _within_25_m("tokyo-tm/netvlad", f"{_NETVLAD}; dbTokyoTimeMachine.m", moments="other"),
    **{f"{name}/netvlad": _within_25_m(f"{name}/netvlad", _NETVLAD) for name in ("pitts30k", "pitts250k")},
    **{f"{name}/gcl": _gcl_labels(f"{name}/gcl", f"{name}_test_gt.h5") for name in ("pitts30k", "pitts250k")},
    **{
        f"{name}/gmberton": _within_25_m(f"{name}/gmberton", _VME, ks=OFFICIAL_KS)
        for name in ("eynsham", "pitts30k", "pitts250k", "sf-xl", "st-lucia")
    },
    **{f"{name}/vpr-bench": _by_index(f"{name}/vpr-bench", 0.0, _BENCH) for name in ("amstertime", "essex3in1", "sped")},
    **{f"{name}/vpr-bench": _by_index(f"{name}/vpr-bench", 2.0, _BENCH) for name in ("17places", "gardenspoint")},
}
"""Name -> maker; a capital after the slash stands for a number: `graded/0.5`."""

OPTIONS = {
    "frames/N": "frame numbers for N, as in frames/1, and nothing behind it, since every query is counted",
    "same-place": "/all behind it to count every query",
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
    return "/".join([family, *map(number_in_words, values), *(["all"] if every else [])])
