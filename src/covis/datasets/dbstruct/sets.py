"""The benchmarks that are known by their dbStruct's file name, and the panoramas that names of cutouts say."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covis.datasets.dbstruct.folders import split_name
from covis.errors import CovisWarning


@dataclass(frozen=True)
class Known:
    """A benchmark that is known by its file's name.

    Attributes:
        name: of the benchmark, as covis calls it.
        file: of the .mat, without the split and its suffix.
        crs: the zone of its positions.
        folder: how a folder of its images may begin, in small letters.
        apart: queries never lie in the database's folder, where other images may have their names.
    """

    name: str
    file: str
    crs: str
    folder: str
    apart: bool = True


KNOWN = (
    Known("pitts30k", "pitts30k", "EPSG:32617", "pittsburgh"),
    Known("pitts250k", "pitts250k", "EPSG:32617", "pittsburgh"),
    Known("tokyo247", "tokyo247", "EPSG:32654", "tokyo247"),
    Known("tokyo-tm", "tokyoTM", "EPSG:32654", "tokyotm", apart=False),
)

_CUTOUT = re.compile(r"(.+)_012_\d{3}\.\w+", re.ASCII)
_PITTSBURGH = re.compile(r"(?:.*/)?(\d+)_pitch\d+_yaw\d+\.\w+", re.ASCII)
_CUTOUTS = 12


def known_set(path: Path) -> Known | None:
    """The benchmark whose file this is, by its name.

    >>> known_set(Path("pitts30k_val.mat")).name, known_set(Path("tokyoTM_train.mat")).name, known_set(Path("msls_amman.db"))
    ('pitts30k', 'tokyo-tm', None)
    """
    called = split_name(path)[0].lower()
    return next((known for known in KNOWN if called in (known.name, known.file.lower())), None)


def places_of(path: Path, names: Sequence[str], known: Known | None) -> NDArray[np.int64] | None:
    """The panorama of each database image: by its name where all names say one, else by the order of Tokyo 24/7."""
    views = [_PITTSBURGH.fullmatch(name) for name in names]
    if all(views):
        return np.array([int(found[1]) for found in views if found], dtype=np.int64)
    whole = known is not None and known.name == "tokyo247" and len(names) % _CUTOUTS == 0
    by_order = np.arange(len(names), dtype=np.int64) // _CUTOUTS
    cutouts = [_CUTOUT.fullmatch(name) for name in names]
    if not all(cutouts):
        return by_order if whole else None
    first: dict[str, int] = {}
    by_name = np.array([first.setdefault(found[1], len(first)) for found in cutouts if found], dtype=np.int64)
    if whole and not np.array_equal(by_name, by_order):
        warnings.warn(
            f"{path}: the panoramas that the names say are not twelve rows each, one after the other, as in Tokyo 24/7; the names count. "
            "Numbers under tokyo247/netvlad, which counts rows, may differ.",
            CovisWarning,
            stacklevel=5,
        )
    return by_name
