"""The findings of audits in words: from their plain values, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from covis.audits.duplicates import KINDS

Found = Mapping[str, Any]


class Talk:
    """Sections in words, as they are found: what is odd about a table is said once, and sections without a pair become one line.

    >>> talk = Talk(shown=3)
    >>> talk.lines([{"audit": "facing", "of": "cph", "skipped": "no headings"}])
    ['facing, cph: skipped: no headings']
    >>> talk.lines([{"audit": "places", "of": name, "skipped": "the frames differ"} for name in ("a", "b", "c")])
    ['places, a and 2 more: skipped: the frames differ']
    """

    def __init__(self, *, shown: int) -> None:
        self.shown = shown
        self._said: set[tuple[Any, ...]] = set()

    def lines(self, sections: Sequence[Found]) -> list[str]:
        """Those of sections that belong together: of one audit, and one scene or pair of scenes."""
        empty = [section for section in sections if _pairless(section)]
        if len(empty) < 2:
            empty = []
        alike: dict[tuple[str, str], list[Found]] = {}
        for section in (one for one in sections if "skipped" in one):
            alike.setdefault((section["audit"], section["skipped"]), []).append(section)
        told = []
        for section in (one for one in sections if one not in empty):
            same = alike.get((section["audit"], section.get("skipped", "")), [section])
            if section is same[0]:
                told += self._section(section if len(same) == 1 else {**section, "of": f"{section['of']} and {len(same) - 1} more"})
        if not empty:
            return told
        first, *rest = (section["sides"] for section in empty)
        sides = [first, *([_short(side, whole) for side, whole in zip(two, first, strict=True)] for two in rest)]
        told.append(f"{empty[0]['audit']}, {'; '.join(' against '.join(two) for two in sides)}: none is a copy")
        return told + [f"  {line}" for section in empty for line in self._odd(section)]

    def _section(self, section: Found) -> list[str]:
        title = f"{section['audit']}, {section['of']}"
        if "skipped" in section:
            return [f"{title}: skipped: {section['skipped']}"]
        lines = _LINES[section["audit"]](section["found"], self.shown)
        return [f"{title}: {lines[0]}", *(f"  {line}" for line in [*lines[1:], *self._odd(section)])]

    def _odd(self, section: Found) -> list[str]:
        """Images of either table that could not be compared, unless they were told of before."""
        if section["audit"] != "copies":
            return []
        lines = []
        names = section.get("sides", ("the first set", "the second set"))
        for side, bad, flat in zip(names, section["found"]["unreadable"], section["found"]["flat"], strict=True):
            table = side, *bad.values(), flat  # two data sets may give a scene the same name
            if table in self._said:
                continue
            self._said.add(table)
            if bad:
                lines.append(f"unreadable images of {side}: {len(bad):,}")
                lines += _some([f"{name}: {why}" for name, why in bad.items()], self.shown, len(bad))
            if flat:
                lines.append(f"nearly of one colour, and compared by bytes and pixels alone, of {side}: {flat:,}")
        return lines


def summary(sections: Sequence[Found], leaks: int) -> str:
    """One line about all of them: what leaks, and what was left out.

    >>> summary([{"audit": "facing", "of": "cph", "skipped": "no headings"}, {"audit": "places", "of": "cph", "found": {}}], 2)
    'in all: 2 leaks; skipped: facing'
    """
    skipped = []
    for audit in dict.fromkeys(section["audit"] for section in sections):
        states = ["skipped" in section for section in sections if section["audit"] == audit]
        if any(states):
            skipped.append(audit if all(states) else f"{audit} ({sum(states)} of {len(states)})")
    return f"in all: {leaks:,} leak{'s' * (leaks != 1)}; skipped: {', '.join(skipped) or 'nothing'}"


def _pairless(section: Found) -> bool:
    return "sides" in section and not any(section["found"]["pairs"].values())


def _short(side: str, first: str) -> str:
    """Of a side only what is not said yet: its scene is that of the first."""
    scene, _, name = side.rpartition(" ")
    return side if scene != first.rpartition(" ")[0] else name


def _copies(found: Found, shown: int) -> list[str]:
    total = sum(found["pairs"].values())
    a, b = found["images"]
    if found["parameters"].get("one set"):
        first, told = f"{a:,} images among each other", f"{_pairs(total)} among {found['in a pair'][0]:,} images"
    else:
        first, told = f"{a:,} against {b:,} images", f"{_pairs(total)}, of {found['in a pair'][0]:,} and {found['in a pair'][1]:,} images"
    lines = [f"{first}: {told if total else 'none is a copy'}"]
    for kind, count in found["pairs"].items():
        if count:
            lines.append(f"{KINDS[kind]}: {_pairs(count)}")
            listed = [one for one in found["list"] if one["kind"] == kind]
            lines += _some([f"{one['a']} = {one['b']} ({apart(one)})" for one in listed], shown, count)
    return lines


def apart(pair: Found) -> str:
    """How far the two images of a pair are apart.

    >>> apart({"kind": "near", "distance": 3.0, "fine": 12})
    '3 of 64 and 12 of 256 bits'
    """
    if pair["kind"] in ("near", "mirror"):
        return f"{pair['distance']:g} of 64 and {pair['fine']} of 256 bits"
    return f"{pair['distance']:g}" if pair["kind"] == "descriptor" else str(pair["kind"])


def _places(found: Found, shown: int) -> list[str]:
    lines = [f"{found['near']:,} of {found['images']:,} images lie within {found['within']:g} m of an image of the other set"]
    if found["nearest"] is not None:
        lines[0] += f"; the nearest at {found['nearest']:.2f} m"
    return lines + _some([f"{one['a']} - {one['b']} ({one['metres']:.2f} m)" for one in found["list"]], shown, found["near"])


def _facing(found: Found, shown: int) -> list[str]:
    pairs = found["positives"]
    lines = [
        f"under {found['protocol']} {found['asked']:,} queries are asked and {found['answerable']:,} have a positive; "
        f"{_share(found['away'], found['answerable'])} have only positives that look more than {found['heading']:g} degrees away",
        f"of the {_pairs(pairs['pairs'])} that count as positive, {_share(pairs['away'], pairs['pairs'])} look elsewhere",
    ]
    if found["unknown"]:
        lines.append(f"{found['unknown']:,} cannot be told: a heading is not known")
    lines += _some([f"{one['query']} (at least {one['smallest turn']:.1f} degrees)" for one in found["list"]], shown, found["away"])
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
