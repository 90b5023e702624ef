"""The lines of a prediction file of MSLS, by themselves and against the data that they are of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from covis.images import Scene
from covis.predictions import key
from covis.submissions.contents import ALL_UNKNOWN, Found, Line

LOOKED_AT = 20
"""The largest k of the official script."""
_PICTURES = (".jpg", ".jpeg", ".png")


def check_predictions(lines: Sequence[Line], kind: str, scenes: Sequence[Scene] | None) -> tuple[list[Found], list[str]]:
    """What is wrong with the lines of a prediction file, and what is worth knowing."""
    problems: list[Found] = []
    usual = _usual([len(line.words) - 1 for line in lines])
    frames = [_usual([word.count(",") + 1 for line in lines for word in words(line)]) for words in (_query, _found)]
    first: dict[str, int] = {}
    for line in lines:
        problems += [(of, line.number, what) for of, what in _line_problems(line, usual, frames)]
        query = line.words[0]
        if query in first:
            problems.append(("twice", line.number, f"a query must have one line; {query!r} has another at line {first[query]}."))
        first.setdefault(query, line.number)
    remarks = [f"every line names {usual}; the official script looks at {LOOKED_AT}"] if 0 < usual < LOOKED_AT else []
    if scenes is not None:
        more, said = _against(lines, first, scenes)
        problems, remarks = problems + more, remarks + said
    return problems, remarks


def _query(line: Line) -> tuple[str, ...]:
    return line.words[:1]


def _found(line: Line) -> tuple[str, ...]:
    return line.words[1:]


def _usual(counts: Sequence[int]) -> int:
    """The most common, of several the largest."""
    return max(Counter(counts).items(), key=lambda item: (item[1], item[0]), default=(0, 0))[0]


def _line_problems(line: Line, usual: int, frames: Sequence[int]) -> Iterator[tuple[str, str]]:
    count = len(line.words) - 1
    if count == 0:
        yield "columns", "a line must name a query, then the images found; this one names none."
    elif count != usual:
        yield "columns", f"every line must name as many images; this one names {count}, most name {usual}."
    for what, words, length in (("query", _query(line), frames[0]), ("image found", _found(line), frames[1])):
        odd = [word for word in words if word.count(",") + 1 != length]
        if odd:
            yield (
                "columns",
                f"every {what} must have {length} key{'s'[: length != 1]}, joined by commas without blanks; {odd[0]!r} has other.",
            )
        wrong = [word for word in words if any(not one or "/" in one or one.lower().endswith(_PICTURES) for one in word.split(","))]
        if wrong:
            yield "name", f"a key must be without folder and suffix, and not empty; found {wrong[0]!r}."
    again = [word for word, times in Counter(_found(line)).items() if times > 1]
    if again:
        yield "twice", f"a line must name an image once; {again[0]!r} stands again."


def _against(lines: Sequence[Line], first: dict[str, int], scenes: Sequence[Scene]) -> tuple[list[Found], list[str]]:
    """Keys that the data does not have, and queries of it without a line."""
    queries = {key(name) for scene in scenes for name in scene.queries.names}
    database = {key(name) for scene in scenes for name in scene.database.names}
    problems: list[Found] = []
    for query, number in first.items():
        if any(one not in queries for one in query.split(",")):
            problems.append(("unknown", number, f"a query must be one of the data, by its key; {query!r} is none."))
    for line in lines:
        unknown = [word for word in _found(line) if any(one not in database for one in word.split(","))]
        if unknown:
            problems.append(
                ("unknown", line.number, f"an image found must be one of a database, by its key; {len(unknown)} are not: {unknown[0]!r}.")
            )
    strange = [ALL_UNKNOWN] if first and queries.isdisjoint(one for query in first for one in query.split(",")) else []
    if any("," in query for query in first):
        return problems, ["queries are sequences: which must have a line is not looked at", *strange]
    asked = {key(name): name for scene in scenes for name, one in zip(scene.queries.names, _asked(scene), strict=True) if one}
    problems += [("missing", None, f"the query {name!r} has no line.") for one, name in asked.items() if one not in first]
    idle = sum(query in queries and query not in asked for query in first)
    return problems, ([f"{idle:,} lines are of queries that are not asked; they are not read"] if idle else []) + strange


def _asked(scene: Scene) -> Sequence[bool]:
    """Those of the subset `all` that are no panoramas, where the data has these flags."""
    asked = np.ones(len(scene.queries), dtype=bool)
    if "all" in scene.queries.flags:
        asked &= scene.queries.flags["all"]
    if "panorama" in scene.queries.flags:
        asked &= ~scene.queries.flags["panorama"]
    found: list[bool] = asked.tolist()
    return found
