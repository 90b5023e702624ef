"""Predictions: a text file that says what was found for each query, and what its names are in a data set.

The format of MSLS: a line a query, its name, then the names found, best first, separated by white space; `#` begins a
comment; every line names as many. A name is an image's name or its key, a sequence is its frames' names or keys joined
by commas. The *key* of a name is its stem: what stands after the last slash, up to the last dot.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from covis.errors import CovisWarning, DamagedFileError, InvalidInputError
from covis.files import read_text
from covis.rankings import Rankings

Unknown: TypeAlias = Literal["stop", "strict_file", "strip_unknown"]
POLICIES: tuple[Unknown, ...] = ("stop", "strict_file", "strip_unknown")
"""What is done about names that the data does not have."""

_ABSENT, _AMBIGUOUS = -2, -3


@dataclass(frozen=True, eq=False)
class Side:
    """What a scene expects of a file.

    Attributes:
        query_names: q names of images, or of windows (comma-joined).
        database_names: d names.
        needed: (q,) bool, the queries that must have a line; None: all.
    """

    query_names: tuple[str, ...]
    database_names: tuple[str, ...]
    needed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """A prediction file as it stands; `rankings` says what its names mean in a data set.

    Attributes:
        path: where it was read.
        queries: n names or keys, each once.
        found: n tuples of names or keys, best first, all of one length.
        lines: (n,) int64 the line that each stands in, from 1.
    """

    path: Path
    queries: tuple[str, ...]
    found: tuple[tuple[str, ...], ...]
    lines: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.found or not len(self.queries) == len(set(self.queries)) == len(self.found) == len(self.lines):
            raise InvalidInputError(
                f"Predictions must be of one query or more, each once, with a line; {self.path} has {len(self.queries)}."
            )
        if len({len(names) for names in self.found}) != 1:
            raise InvalidInputError(f"Predictions must name as many database images for every query; those of {self.path} do not.")

    def __len__(self) -> int:
        return len(self.queries)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} queries, first {self.k}, of {self.path.name!r})"

    @property
    def k(self) -> int:
        """How many each line names."""
        return len(self.found[0])

    @classmethod
    def read(cls, path: str | Path) -> Predictions:
        """Read a prediction text; nothing is asked about the names yet.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: a line names more or fewer images than the first, or none, or a query stands twice; the
                message names the line.
        """
        path = Path(path)
        first: dict[str, int] = {}
        found: list[tuple[str, ...]] = []
        for number, line in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), start=1):
            query, *names = line.partition("#")[0].split() or [""]
            if not query:
                continue
            if not names or (found and len(names) != len(found[0])):
                before = f"the first names {len(found[0])}" if found else "and at least one"
                raise DamagedFileError(
                    f"{path}, line {number}: every line must name a query, then as many database images as the others; this one names "
                    f"{len(names)}, {before}. Mend the line."
                )
            if query in first:
                raise DamagedFileError(
                    f"{path}, line {number}: a query must have one line; {query!r} has another at line {first[query]}. Remove one."
                )
            first[query] = number
            found.append(tuple(names))
        if not found:
            raise DamagedFileError(f"{path} must hold a line a query (its name, then the names found); it holds none.")
        return cls(path, tuple(first), tuple(found), np.array(list(first.values()), dtype=np.int64))

    def rankings(
        self,
        query_names: Sequence[str],
        database_names: Sequence[str],
        *,
        unknown: Unknown = "stop",
        needed: NDArray[np.bool_] | None = None,
    ) -> Rankings:
        """What the file says of a data set: names match exactly, or by their key.

        Policies for what the data does not have:

        * "stop": a query or a name found that is unknown, and an image that a line names twice, are errors.
        * "strict_file": as the official MSLS script does. A name that is no database image keeps its rank and is never
          correct (-1). An image that stands twice is an error in the file's first lines, as many as there are needed
          queries, which is where the script looks; in later lines it is -1 from the second time on. Lines of unknown
          queries are dropped.
        * "strip_unknown": what the script's authors meant. A name that is no database image is removed and the rest
          moves up (-1 fills the end). An image that stands twice is an error. Lines of unknown queries are dropped.

        What was dropped is counted in the history ("dropped"), and said in a CovisWarning.

        Args:
            query_names: the names of queries that may be in the file, each once.
            database_names: the names of what was searched, each once.
            unknown: the policy.
            needed: (q,) bool, the queries that must have a line; default all.

        Returns:
            The rankings of those queries that have a line, in the order of `query_names`, without distances.

        Raises:
            InvalidInputError: a needed query has no line, or what the policy calls an error; the message names the line.

        >>> file = Predictions(Path("p.txt"), ("q",), (("b", "a"),), np.array([1]))
        >>> file.rankings(["images/q.jpg"], ["a.jpg", "b.jpg"]).rows
        array([[1, 0]])
        """
        return self.by_scene([Side(tuple(query_names), tuple(database_names), needed)], unknown=unknown)[0]

    def by_scene(self, sides: Sequence[Side], *, unknown: Unknown = "stop") -> list[Rankings]:
        """As `rankings`, of a file that holds the queries of several scenes, each searched alone.

        A database image of another scene is unknown under "stop", and takes its rank without being correct under the
        others: the official script, too, looks for a name in the databases of all cities.

        Raises:
            InvalidInputError: as in `rankings`, or a query's name stands in two scenes.
        """
        if unknown not in POLICIES:
            raise InvalidInputError(f"The policy for unknown names must be one of {', '.join(map(repr, POLICIES))}; got {unknown!r}.")
        reading = _Reading(self, sides, unknown)
        found = [(queries, reading.rows(scene, entries)) for scene, (queries, entries) in enumerate(reading.placed())]
        dropped = {what: count for what, count in reading.dropped.items() if count}
        if dropped:
            counted = ", ".join(f"{count} {what}" for what, count in dropped.items())
            warnings.warn(f"{self.path}, read as {unknown}: {counted}. {_MEANING[unknown]}", CovisWarning, stacklevel=2)
        history = {"predictions": self.path.name, "policy": unknown, "dropped": dropped}
        return [
            Rankings(rows, np.full(rows.shape, np.nan), tuple(side.query_names[query] for query in queries), side.database_names, history)
            for (queries, rows), side in zip(found, sides, strict=True)
        ]


_MEANING = {
    "strict_file": "Such names keep their rank and are never correct, as in the official script; lines of unknown queries are not read.",
    "strip_unknown": "Such names are removed, and the rest moves up; lines of unknown queries are not read.",
}


class _Reading:
    """A file held against scenes, by a policy; counts what it drops."""

    def __init__(self, file: Predictions, sides: Sequence[Side], unknown: Unknown) -> None:
        self.file, self.sides, self.unknown = file, sides, unknown
        self.databases = [Lookup(side.database_names) for side in sides]
        self.needed = [np.ones(len(side.query_names), dtype=bool) if side.needed is None else side.needed for side in sides]
        self.dropped: Counter[str] = Counter()

    def placed(self) -> list[tuple[list[int], list[int]]]:
        """For each scene the rows of its queries that have a line, ascending, and the number of each one's entry in the file."""
        file, taken = self.file, np.zeros(len(self.file), dtype=bool)
        places = []
        for side in self.sides:
            rows = Lookup(side.query_names).rows(file.queries)
            for entry in np.flatnonzero((rows == _AMBIGUOUS) | (taken & (rows >= 0)))[:1].tolist():
                self._refuse(
                    entry, f"{file.queries[entry]!r} must mean one query; it means several. Write their names, or score scene by scene."
                )
            taken |= rows >= 0
            entries = np.argsort(rows, kind="stable")[np.count_nonzero(rows < 0) :]
            for place in np.flatnonzero(np.diff(rows[entries]) == 0)[:1]:
                other = f"line {file.lines[entries[place]]} is of the same query, {side.query_names[rows[entries[place]]]!r}"
                self._refuse(entries[place + 1], f"a query must have one line; {other}. Remove one.")
            places.append((rows[entries].tolist(), entries.tolist()))
        if self.unknown == "stop":
            for entry in np.flatnonzero(~taken)[:1].tolist():
                self._refuse(entry, f"every line must be of a query of the data; {file.queries[entry]!r} is none, by name or by key.")
        self.dropped["unknown queries"] += int(np.count_nonzero(~taken))
        self._check_lines([queries for queries, _ in places])
        return places

    def _check_lines(self, places: Sequence[Sequence[int]]) -> None:
        lacking = []
        for side, needed, queries in zip(self.sides, self.needed, places, strict=True):
            without = needed.copy()
            without[queries] = False
            lacking += [side.query_names[query] for query in np.flatnonzero(without)]
        if lacking:
            raise InvalidInputError(
                f"{self.file.path} must hold a line for every query that is asked; {len(lacking)} have none, the first is {lacking[0]!r}. "
                "Predict them too; the order of the lines is free."
            )
        if self.unknown == "strict_file":
            for entry in range(min(len(self.file), sum(map(np.count_nonzero, self.needed)))):
                words = self.file.found[entry]
                if len(set(words)) < len(words):
                    self._refuse_twice(entry, Counter(words).most_common(1)[0][0])

    def rows(self, scene: int, entries: Sequence[int]) -> NDArray[np.int64]:
        """(q, k) database rows of a scene; -1 for what takes its rank without being an image of it."""
        words = [word for entry in entries for word in self.file.found[entry]]
        rows = self.databases[scene].rows(words).reshape(len(entries), self.file.k)
        for query, column in np.argwhere(rows == _AMBIGUOUS)[:1]:
            word = self.file.found[entries[query]][column]
            self._refuse(entries[query], f"{word!r} must mean one database image; it is the key of several. Write their names.")
        self._once(rows, entries, self.sides[scene].database_names)
        absent = rows == _ABSENT
        if self.unknown == "stop":
            for query, column in np.argwhere(absent)[:1]:
                what = f"every name found must be a database image; {self.file.found[entries[query]][column]!r} is none, by name or by key"
                self._refuse(entries[query], f"{what}. Predict on this database, or choose the policy strict_file or strip_unknown.")
        others = [table for number, table in enumerate(self.databases) if number != scene]
        outside = absent.copy()
        outside[absent] = [not any(words[place] in table for table in others) for place in np.flatnonzero(absent)]
        self.dropped["names that are no database image"] += int(np.count_nonzero(outside))
        self.dropped["lines without any database image"] += int(np.count_nonzero(outside.all(axis=1)))
        rows[rows < 0] = -1
        if self.unknown == "strip_unknown":
            rows = np.take_along_axis(rows, np.argsort(outside, axis=1, kind="stable"), axis=1)
        return rows

    def _once(self, rows: NDArray[np.int64], entries: Sequence[int], names: Sequence[str]) -> None:
        """An image that a line names again is refused; under strict_file, where the script does not look, it becomes -1."""
        ordered = np.sort(rows, axis=1)
        for query in np.flatnonzero(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)).tolist():
            seen: set[int] = set()
            for column, row in enumerate(rows[query].tolist()):
                if row in seen:
                    if self.unknown != "strict_file":
                        self._refuse_twice(entries[query], names[row])
                    rows[query, column] = -1
                    self.dropped["names that stand again in their line"] += 1
                elif row >= 0:
                    seen.add(row)

    def _refuse_twice(self, entry: int, name: str) -> NoReturn:
        self._refuse(entry, f"a database image must be named once; {name!r} stands again. Remove the repeats.")

    def _refuse(self, entry: int, what: str) -> NoReturn:
        raise InvalidInputError(f"{self.file.path}, line {self.file.lines[entry]}: {what}")


class Lookup:
    """Rows of names by name, or by key where it is one name's alone.

    >>> Lookup(["a/1.jpg", "a/2.jpg", "b/2.jpg"]).rows(["1", "a/2.jpg", "2", "3"]).tolist()
    [0, 1, -3, -2]
    """

    def __init__(self, names: Sequence[str]) -> None:
        keys = list(map(key, names))
        self._table = dict(zip(keys, range(len(keys)), strict=True))
        if len(self._table) < len(keys):
            self._table.update(dict.fromkeys((one for one, count in Counter(keys).items() if count > 1), _AMBIGUOUS))
        self._table.update(zip(names, range(len(names)), strict=True))

    def __contains__(self, word: str) -> bool:
        return word in self._table

    def rows(self, words: Sequence[str]) -> NDArray[np.int64]:
        """(n,) the row of each word; -2 where there is none, -3 where it is the key of several names."""
        return np.fromiter(map(self._table.get, words, repeat(_ABSENT)), dtype=np.int64, count=len(words))


def key(name: str) -> str:
    """The stem of a name; of a sequence, those of its frames, joined by commas.

    >>> key("train_val/cph/query/images/a-b_c.jpg"), key("x/1.color.png"), key("x/1.jpg,x/2.jpg"), key("plain")
    ('a-b_c', '1.color', '1,2', 'plain')
    """
    if "," in name:
        return ",".join(map(key, name.split(",")))
    stem = name[name.rfind("/") + 1 :]
    return stem[:dot] if (dot := stem.rfind(".")) > 0 else stem
