"""The findings of audits in words: from their plain values, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from covis.audits.duplicates import KINDS

Found = Mapping[str, Any]


def in_words(section: Found, *, shown: int) -> list[str]:
    """The lines of one section: its title, counts, and up to `shown` examples of each kind.

    >>> in_words({"audit": "facing", "of": "cph", "skipped": "no headings"}, shown=3)
    ['facing, cph: skipped: no headings']
    """
    title = f"{section['audit']}, {section['of']}"
    if "skipped" in section:
        return [f"{title}: skipped: {section['skipped']}"]
    lines = _LINES[section["audit"]](section["found"], shown)
    return [f"{title}: {lines[0]}", *(f"  {line}" for line in lines[1:])]


def _copies(found: Found, shown: int) -> list[str]:
    total = sum(found["pairs"].values())
    a, b = found["images"]
    lines = [f"{a:,} against {b:,} images" if not found["parameters"].get("one set") else f"{a:,} images among each other"]
    lines[0] += f": {total:,} pairs, of {found['in a pair'][0]:,} and {found['in a pair'][1]:,} images" if total else ": none is a copy"
    for kind, count in found["pairs"].items():
        if count:
            lines.append(f"{KINDS[kind]}: {_pairs(count)}")
            listed = [one for one in found["list"] if one["kind"] == kind]
            lines += _some([f"{one['a']} = {one['b']} ({_apart(kind, one['distance'])})" for one in listed], shown, count)
    for side, bad in zip(("first", "second"), found["unreadable"], strict=True):
        if bad and not (side == "second" and found["parameters"].get("one set")):
            lines.append(f"unreadable images of the {side} set: {len(bad):,}")
            lines += _some([f"{name}: {why}" for name, why in bad.items()], shown, len(bad))
    if any(found["flat"]):
        lines.append(f"nearly of one colour, and compared by bytes and pixels alone: {found['flat'][0]:,} and {found['flat'][1]:,}")
    return lines


def _apart(kind: str, distance: float) -> str:
    return f"{distance:g} of 64 bits" if kind in ("near", "mirror") else f"{distance:g}" if kind == "descriptor" else kind


def _places(found: Found, shown: int) -> list[str]:
    lines = [f"{found['near']:,} of {found['images']:,} images lie within {found['within']:g} m of an image of the other set"]
    if found["nearest"] is not None:
        lines[0] += f"; the nearest at {found['nearest']:.2f} m"
    return lines + _some([f"{one['a']} - {one['b']} ({one['metres']:.2f} m)" for one in found["list"]], shown, found["near"])


def _facing(found: Found, shown: int) -> list[str]:
    pairs = found["positives"]
    lines = [
        f"under {found['protocol']} {found['asked']:,} queries are asked and {found['answerable']:,} have a positive; "
        f"{_share(found['away'], found['answerable'])} have only positives that look more than {found['heading']:g} degrees elsewhere",
        f"of the {_pairs(pairs['pairs'])} that count as positive, {_share(pairs['away'], pairs['pairs'])} look elsewhere",
    ]
    if found["unknown"]:
        lines.append(f"{found['unknown']:,} cannot be told: a heading is not known")
    lines += _some([f"{one['query']} (at least {one['smallest turn']:.0f} degrees)" for one in found["list"]], shown, found["away"])
    if "similarity 0" in found:
        nothing = found["similarity 0"]
        lines.append(f"{_share(nothing['queries'], found['answerable'])} have only positives of similarity 0 in the labels")
        lines += _some(nothing["list"], shown, nothing["queries"])
    return lines


def _labels(found: Found, shown: int) -> list[str]:
    summary, values = found["summary"], found["values"]
    lines = [
        f"{summary['queries']:,} x {summary['database']:,}, {_pairs(summary['pairs'])}: {_share(summary['positive'], summary['pairs'])} "
        f"positive, {_share(summary['soft'], summary['pairs'])} soft, {summary['excluded']:,} excluded; "
        f"{summary['without_positive']:,} queries without a positive"
    ]
    if values["only 0 and 1"]:
        lines.append("only 0 and 1: these labels are not graded")
    else:
        lines.append(f"{values['different']:,} different values above 0; {values['exactly 1']:,} are exactly 1")
    lines += [f"similarity by distance ({found['parameters']['queries in bins']:,} queries):", *_table(found["by distance"], "m")]
    if found["by turn"]:
        lines += [f"by difference of heading, up to {found['parameters']['far']:g} m:", *_table(found["by turn"], "deg")]
    for name, one in found["contradictions"].items():
        lines.append(f"{name}: {_pairs(one['pairs'])}" + (f", by up to {one['largest']:.3g}" if one.get("largest") else ""))
        lines += _some([_pair(each) for each in one["list"]], shown, one["pairs"])
    again = found["reference"]
    if "skipped" in again:
        return [*lines, f"not made again: {again['skipped']}"]
    lines.append(
        f"made again by the rule {again['rule']} for {again['queries']:,} queries: {again['different']:,} of "
        f"{_pairs(again['pairs above 0'])} differ by more than 0.01, the largest by {again['largest difference']:.3g}"
    )
    listed = [f"{one['query']} - {one['database']}: {one['similarity']:.3f}, by the rule {one['by the rule']:.3f}" for one in again["list"]]
    return lines + _some(listed, shown, again["different"])


def _pair(one: Found) -> str:
    known = [f"{one[key]:.1f} {unit}" for key, unit in (("metres", "m"), ("turn", "degrees")) if one[key] is not None]
    said = ", ".join([f"similarity {one['similarity']:.3f}", *known])
    return f"{one['query']} - {one['database']}: {said}"


def _table(rows: Iterable[Found], unit: str) -> list[str]:
    lines = []
    for row in rows:
        upto = f"{row['from']:>5g} to {row['to']:>3g} {unit}" if row["to"] is not None else f"over {row['from']:>7g} {unit}"
        told = "" if not row["pairs"] else f"  median {row['q50']:.3f}, 5 to 95 % {row['q05']:.3f} to {row['q95']:.3f}"
        lines.append(f"  {upto}  {row['pairs']:>11,} pairs{told}" + (f", {100 * row['positive']:.2f} % positive" if row["pairs"] else ""))
    return lines


def _batches(found: Found, _: int) -> list[str]:
    lines = [f"{found['images']} images, {found['engine']}: {found['verdict']}"]
    return lines + [
        f"{way['way']}: values differ by up to {way['largest']:.2g}, descriptors by {way['relative']:.2g} of their length, "
        f"{way['neighbours']} nearest neighbours change"
        for way in found["ways"]
    ]


_LINES = {"copies": _copies, "descriptors": _copies, "places": _places, "facing": _facing, "labels": _labels, "batches": _batches}
AUDITS = tuple(_LINES)
"""The names of the audits, in the order in which they are done."""


def _some(examples: Iterable[str], shown: int, count: int) -> list[str]:
    """Some examples, indented, and how many more there are."""
    listed = [f"  {one}" for one in list(examples)[:shown]]
    return [*listed, f"  and {count - len(listed):,} more"] if count > len(listed) else listed


def _share(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.2f} %)" if of else f"{count:,}"


def _pairs(count: int) -> str:
    return f"{count:,} pair{'s' * (count != 1)}"
