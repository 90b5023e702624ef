"""Published results: what others reported, with the protocol and the source beside every number.

The numbers stand in `results/*.toml`, one file a source, and are copied from it digit by digit:

    source = "who, where, which revision"       url, read (the day it was read)
    metrics = ["recall@1", …]                   default: recall at 1, 5 and 10
    [protocols]                                 data set -> the protocol of ours that the number is under; absent: not stated
    [metrics-of]                                data set -> other metrics than the file's
    [[models]]  method, backbone, dimension, whitening, remark
    [models.scores]                             data set -> values in percent, in the order of the metrics

A data set is a name of `DATASETS`, with "-train", "-val" or "-test" behind it where results are of one split.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from covis.datasets.catalogue import DATASETS
from covis.errors import CovisError, DamagedFileError, UnknownNameError
from covis.files import read_text
from covis.lookup import suggest
from covis.protocols import protocol

NOT_STATED = "not stated"
WHITENINGS = ("none", "train", "database", NOT_STATED)
"""On what a descriptor's whitening was fitted."""
RECALLS = ("recall@1", "recall@5", "recall@10")
POSE_BINS = ("0.25m/2deg", "0.5m/5deg", "5m/10deg")

_SPLIT = re.compile(r"-(train|val|test)$")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FILE = {"source", "url", "read", "metrics", "metrics-of", "protocols", "models"}
_MODEL = {"method", "backbone", "dimension", "whitening", "remark", "scores"}


@dataclass(frozen=True)
class Result:
    """One reported row: one model on one data set.

    Attributes:
        dataset: a name of `DATASETS`, perhaps with a split behind it ("msls-val").
        protocol: the protocol of ours that the numbers are under, or "not stated".
        method: as the source calls it.
        values: metric -> percent, in the source's order; recall@k, mAP@k, or the rate of a pose bin such as "0.25m/2deg".
        source: the paper, or the public file with its revision or day.
        url: where it stands.
        read: the day on which it was read there, YYYY-MM-DD.
        backbone: network and pooling, or "not stated".
        dimension: of the descriptor; None where the source does not say.
        whitening: what it was fitted on: "none", "train", "database" (the one that is searched) or "not stated".
        remark: "" for none.
    """

    dataset: str
    protocol: str
    method: str
    values: Mapping[str, float]
    source: str
    url: str
    read: str
    backbone: str = NOT_STATED
    dimension: int | None = None
    whitening: str = NOT_STATED
    remark: str = ""

    @property
    def transductive(self) -> bool:
        """Whether the searched database had a part in making the descriptors."""
        return self.whitening == "database"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `covis ls results --json` prints them."""
        return {**vars(self), "values": dict(self.values), "transductive": self.transductive}


@dataclass(frozen=True)
class _Source:
    """One file, after a look that it holds what it must."""

    where: str
    source: str
    url: str
    read: str
    metrics: tuple[str, ...] = RECALLS
    metrics_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protocols: Mapping[str, str] = field(default_factory=dict)


def published_results(dataset: str | None = None) -> list[Result]:
    """The results that covis ships, by data set, within it by the first value, best first.

    Args:
        dataset: a name of `DATASETS` for all its splits, or with one split ("msls-val"); None for all.

    Raises:
        UnknownNameError: no result is of that name; the nearest is suggested.

    >>> best = published_results("msls-val")[0]
    >>> best.method, best.protocol, best.values["recall@1"]
    ('BoQ', 'not stated', 93.8)
    """
    files = sorted(entry.name for entry in (resources.files("covis") / "results").iterdir() if entry.name.endswith(".toml"))
    found = [
        row
        for name in files
        for row in results_of((resources.files("covis") / "results" / name).read_text(encoding="utf-8"), where=f"results/{name}")
    ]
    known = {name for row in found for name in (row.dataset, _SPLIT.sub("", row.dataset))}
    if dataset is not None and dataset not in known:
        raise UnknownNameError(f"There are no published results on {dataset!r}. {suggest(dataset, known)}")
    rows = [row for row in found if dataset in (None, row.dataset, _SPLIT.sub("", row.dataset))]
    return sorted(rows, key=lambda row: (row.dataset, -next(iter(row.values.values())), row.method, row.source))


def sets_under(protocol: str) -> list[str]:
    """The data sets on which there are results under a protocol, without their splits.

    >>> sets_under("pitts30k/netvlad"), sets_under("radius/25")
    (['pitts30k'], [])
    """
    return sorted({_SPLIT.sub("", row.dataset) for row in published_results() if row.protocol == protocol})


def read_results(path: str | Path) -> list[Result]:
    """Your own results in the form of those shipped.

    Raises:
        MissingFileError: there is no such file.
        DamagedFileError: it is no TOML, or a value is missing, unknown or out of its range; the message says which.
    """
    return results_of(read_text(path).removeprefix("\ufeff"), where=str(path))


def results_of(text: str, *, where: str) -> list[Result]:
    """The results of a file's text.

    Raises:
        DamagedFileError: it is no TOML, or a value is missing, unknown or out of its range; the message says which.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DamagedFileError(f"The results {where} must be TOML; {error}.") from error
    source = _source(table, where)
    models = table.get("models")
    if not isinstance(models, list) or not models:
        raise _fault(where, "hold one at least of [[models]]", models)
    rows = [row for number, model in enumerate(models, start=1) for row in _rows(source, model, f"{where}, model {number}")]
    unused = [name for name in {*source.protocols, *source.metrics_of} if name not in {row.dataset for row in rows}]
    if unused:
        raise _fault(where, "name protocols and metrics only of data sets with scores", ", ".join(sorted(unused)))
    return rows


def _source(table: Mapping[str, Any], where: str) -> _Source:
    _known_keys(table, _FILE, where)
    texts = {}
    for key in ("source", "url", "read"):
        texts[key] = _text(table, key, where)
    if not texts["url"].startswith("https://"):
        raise _fault(where, "have a url that begins with https://", texts["url"])
    if not _is_day(texts["read"]):
        raise _fault(where, "say when it was read, as in 2026-11-21", texts["read"])
    metrics = _metrics(table.get("metrics", list(RECALLS)), where)
    metrics_of = {_dataset(name, where): _metrics(value, where) for name, value in _table(table, "metrics-of", where).items()}
    protocols = {_dataset(name, where): _protocol(value, where) for name, value in _table(table, "protocols", where).items()}
    return _Source(where, metrics=metrics, metrics_of=metrics_of, protocols=protocols, **texts)


def _rows(source: _Source, model: object, where: str) -> list[Result]:
    if not isinstance(model, dict):
        raise _fault(where, "be a table", model)
    _known_keys(model, _MODEL, where)
    dimension, whitening = model.get("dimension"), _text(model, "whitening", where)
    if dimension is not None and (type(dimension) is not int or dimension < 1):
        raise _fault(where, "have a dimension that is a whole number from 1, or none", dimension)
    if whitening not in WHITENINGS:
        raise _fault(where, f"have a whitening of {', '.join(WHITENINGS)}", whitening)
    scores = model.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise _fault(where, "have scores, data set by data set", scores)
    shared = Result(
        dataset="",
        protocol=NOT_STATED,
        method=_text(model, "method", where),
        values={},
        source=source.source,
        url=source.url,
        read=source.read,
        backbone=_text(model, "backbone", where),
        dimension=dimension,
        whitening=whitening,
        remark=_text(model, "remark", where) if "remark" in model else "",
    )
    return [
        replace(
            shared,
            dataset=_dataset(name, where),
            protocol=source.protocols.get(name, NOT_STATED),
            values=_values(values, source.metrics_of.get(name, source.metrics), f"{where}, {name}"),
        )
        for name, values in scores.items()
    ]


def _values(values: object, metrics: Sequence[str], where: str) -> dict[str, float]:
    if not isinstance(values, list) or len(values) != len(metrics):
        raise _fault(where, f"have a value for each of {', '.join(metrics)}", values)
    for value in values:
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 100:
            raise _fault(where, "have values in percent, from 0 to 100", value)
    by_k = sorted((int(name.removeprefix("recall@")), value) for name, value in zip(metrics, values, strict=True) if "recall@" in name)
    recalls = [value for _, value in by_k]
    if recalls != sorted(recalls):
        raise _fault(where, "have a recall that does not fall as k grows", values)
    return {name: float(value) for name, value in zip(metrics, values, strict=True)}


def _metrics(names: object, where: str) -> tuple[str, ...]:
    known = re.compile(r"(recall|mAP)@[1-9]\d*")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and (known.fullmatch(n) or n in POSE_BINS) for n in names):
        raise _fault(where, f"have metrics such as recall@1, mAP@5 or one of {', '.join(POSE_BINS)}", names)
    if len(set(names)) != len(names):
        raise _fault(where, "name each metric once", names)
    return tuple(names)


def _dataset(name: str, where: str) -> str:
    if name not in DATASETS and _SPLIT.sub("", name) not in DATASETS:
        said = f"The results {where} must name data sets of the catalogue (covis ls datasets); found {name!r}."
        raise DamagedFileError(f"{said} {suggest(name, DATASETS)}")
    return name


def _protocol(name: object, where: str) -> str:
    from covis.localisation import POSE_PROTOCOLS

    if isinstance(name, str) and name in POSE_PROTOCOLS:
        return name
    try:
        return protocol(str(name)).name
    except CovisError as error:
        raise DamagedFileError(f"The results {where}: {error}") from error


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _fault(where, f"say its {key}, in a text", value)
    return value


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise _fault(where, f"have its {key} as a table, data set by data set", value)
    return value


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _known_keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise _fault(where, f"have no other keys than {', '.join(sorted(known))}", ", ".join(unknown))


def _fault(where: str, rule: str, found: object) -> DamagedFileError:
    return DamagedFileError(f"The results {where} must {rule}; found {found if isinstance(found, str) else repr(found)}.")
