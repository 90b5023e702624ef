"""Records: what one cell of the evidence left, small enough to be kept with the code.

CELLS/<study>/<arm>/<seed>.json    one arm of a study with one seed
      asked/<key>.json             what was asked: names, units and conditions of the queries, once for all records
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covis.errors import DamagedFileError
from covis.files import digest, read_json, write_json, write_text
from covis.images import Images
from covis.latent import Relation
from covis.scores import Scores

ASKED, RECORD, VERSION = "covis-evidence-asked", "covis-evidence-record", 1
KEPT = ("recall@1",)
"""Metrics whose value a query is kept: 0 or 1, a character each."""
POOLED = ("recall@5", "AP", "mAP@10")
"""Metrics of which the mean is kept."""
_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Asked:
    """The queries of one test set.

    Attributes:
        names: of the queries, those of each scene in order.
        units: (q,) int64, what is drawn again together, numbered from 0.
        what: a unit in words ("sequences", "blocks of 10 consecutive frames").
        groups: condition -> (q,) bool, whether a query is of it.
    """

    names: tuple[str, ...]
    units: NDArray[np.int64]
    what: str
    groups: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: Scores, queries: tuple[Images, ...] = ()) -> Asked:
        """What scores were asked; conditions are the flags of the queries' tables, where those are given."""
        units = np.arange(len(scores.queries)) if scores.units is None else scores.units
        flags = dict.fromkeys(name for images in queries for name in images.flags)
        groups = {name: np.concatenate([_flag(images, name) for images in queries]) for name in flags}
        kept = {name: mask for name, mask in groups.items() if 0 < mask.sum() < len(mask)}
        return cls(scores.queries, units, str(scores.interval.get("unit", "queries")), kept)

    def key(self) -> str:
        """A digest: the name of its file."""
        return digest(self.as_dict())[:12]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in the file."""
        groups = {name: _characters(mask.astype(np.float64)) for name, mask in self.groups.items()}
        return {"what": self.what, "names": list(self.names), "units": self.units.tolist(), "groups": groups}


@dataclass(frozen=True)
class Scored:
    """One way to score a cell: a descriptor, a test set.

    Attributes:
        asked: key of the queries.
        hits: metric -> (q,) float64, NaN where a query is not counted. Recalls only: 0 or 1.
        values: pooled numbers: "AP", "Spearman", "dim", "seconds a query" and so on.
        distances: (bins + 1,) mean distance by similarity, the first of pairs that share nothing; empty where not measured.
    """

    asked: str
    hits: Mapping[str, NDArray[np.float64]]
    values: Mapping[str, float] = field(default_factory=dict)
    distances: tuple[float, ...] = ()

    @classmethod
    def of(cls, scores: Scores, asked: str, *, latent: Relation | None = None, values: Mapping[str, float] | None = None) -> Scored:
        """What is kept of scores: hits at the first rank a query, the means of a few metrics, distance by similarity."""
        hits = {name: np.asarray(scores.per_query[name]) for name in KEPT if name in scores.per_query}
        pooled = {name: scores.metrics[name].value for name in POOLED if name in scores.metrics}
        if latent is not None:
            pooled["Spearman"] = latent.spearman
        distances = () if latent is None else tuple(float(value) for value in latent.mean)
        return cls(asked, hits, {**pooled, **(values or {})}, distances)


@dataclass(frozen=True)
class Record:
    """One arm of a study with one seed.

    Attributes:
        study: its name.
        arm: its name.
        seed: of the training.
        scored: name -> scores: "untrained", "trained", "whitened", "whitened 64", "rgb", "teacher", "on corridor" and so on.
        training: "steps", "pairs", "seconds", "null"; empty where nothing was trained.
        settings: all that the numbers depend on, as plain values.
        machine: what it was run on, in words.
    """

    study: str
    arm: str
    seed: int
    scored: Mapping[str, Scored]
    training: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    machine: str = ""


@dataclass(frozen=True)
class Store:
    """The folder of records.

    Attributes:
        folder: where they lie.
    """

    folder: Path

    def path(self, study: str, arm: str, seed: int) -> Path:
        """The file of a record."""
        return self.folder / study / _NAME.sub("-", arm).strip("-.") / f"{seed}.json"

    def keep(self, asked: Asked) -> str:
        """Write what was asked, once; returns its key."""
        path = self.folder / "asked" / f"{asked.key()}.json"
        if not path.exists():
            write_json(path, {"format": ASKED, "version": VERSION, **asked.as_dict()})
        return asked.key()

    def save(self, record: Record) -> Path:
        """Write a record, in place of one of the same arm and seed; returns its path."""
        scored = {name: _plain(one) for name, one in record.scored.items()}
        training = {key: _null(value) for key, value in record.training.items()}
        head = {"study": record.study, "arm": record.arm, "seed": record.seed, "machine": record.machine}
        value = {"format": RECORD, "version": VERSION, **head, "training": training, "scored": scored, "settings": dict(record.settings)}
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        return write_text(self.path(record.study, record.arm, record.seed), text + "\n")

    def load(self, path: Path) -> Record:
        """A record's file.

        Raises:
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        stored = read_json(path, kind=RECORD, version=VERSION)
        try:
            scored = {name: _scored(one) for name, one in stored["scored"].items()}
            training = {key: _number(value) for key, value in stored["training"].items()}
            said = (str(stored["study"]), str(stored["arm"]), int(stored["seed"]))
            return Record(*said, scored, training, dict(stored["settings"]), str(stored["machine"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{path} must hold a record of the evidence; its parts do not fit ({error}). Remove it.") from error

    def known(self, study: str, arm: str, seed: int) -> Record | None:
        """The record of a cell, where there is one."""
        path = self.path(study, arm, seed)
        return self.load(path) if path.exists() else None

    def records(self, study: str) -> dict[str, dict[int, Record]]:
        """The records of one study: arm -> seed -> record, seeds in order."""
        found: dict[str, dict[int, Record]] = {}
        files = (self.folder / study).glob("*/*.json") if study != "asked" else ()
        for record in sorted(map(self.load, files), key=lambda one: one.seed):
            found.setdefault(record.arm, {})[record.seed] = record
        return found

    def asked(self, key: str) -> Asked:
        """What was asked.

        Raises:
            MissingFileError: there is no such file.
            DamagedFileError: it is truncated, foreign or inconsistent.
        """
        path = self.folder / "asked" / f"{key}.json"
        stored = read_json(path, kind=ASKED, version=VERSION)
        try:
            groups = {name: _values(text) == 1 for name, text in stored["groups"].items()}
            units = np.array(stored["units"], dtype=np.int64)
            return Asked(tuple(map(str, stored["names"])), units, str(stored["what"]), groups)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedFileError(f"{path} must hold the queries of a test set; its parts do not fit ({error}).") from error


def _flag(images: Images, name: str) -> NDArray[np.bool_]:
    return np.asarray(images.flags[name], dtype=bool) if name in images.flags else np.zeros(len(images), dtype=bool)


def _plain(scored: Scored) -> dict[str, Any]:
    hits = {name: _characters(values) for name, values in scored.hits.items()}
    values = {name: _null(value) for name, value in scored.values.items()}
    return {"asked": scored.asked, "hits": hits, "values": values, "distances": [_null(round(value, 6)) for value in scored.distances]}


def _scored(stored: Mapping[str, Any]) -> Scored:
    hits = {name: _values(text) for name, text in stored["hits"].items()}
    values = {name: _number(value) for name, value in stored["values"].items()}
    return Scored(str(stored["asked"]), hits, values, tuple(map(_number, stored["distances"])))


def _characters(values: NDArray[np.float64]) -> str:
    """(q,) of 0, 1 and NaN as text: "01-"."""
    known = np.nan_to_num(values, nan=2).astype(np.int64)
    if ((known != np.nan_to_num(values, nan=2)) | (known < 0) | (known > 2)).any():
        raise ValueError("values a query must be 0, 1 or NaN to be kept as text")
    return "".join("01-"[value] for value in known)


def _values(text: str) -> NDArray[np.float64]:
    return np.array([{"0": 0.0, "1": 1.0, "-": np.nan}[character] for character in text])


def _null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
