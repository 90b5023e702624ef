"""The benchmarks of the field: where each is had, its licence, its sizes, and the protocols that its numbers are under."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

from covis.errors import CovisWarning, InvalidInputError

Sizes: TypeAlias = Literal["stop", "warn", "ignore"]


@dataclass(frozen=True)
class Size:
    """How many images one split (or one part of a split: a city, a slice) of a benchmark has.

    Attributes:
        split: as the reader calls it: "train", "val" or "test".
        queries: how many ask; None where the benchmark has no such side.
        database: how many are searched.
        part: the scene, where sizes are known by scene; "" for all scenes together.
        sure: counted in a primary source; what is not is only ever warned of.
        source: where the numbers are from.
    """

    split: str
    queries: int | None
    database: int | None
    part: str = ""
    sure: bool = True
    source: str = ""


@dataclass(frozen=True)
class Dataset:
    """A benchmark, as `covis ls datasets` prints it.

    Attributes:
        title: its name in full.
        layout: the reader that reads it, a name of `READERS`.
        read: options of the reader, as they stand behind --read, where it needs some.
        obtain: how to come by it, in words and with its public page.
        licence: as its authors say it; "not stated" where they do not.
        sizes: what the reader holds the files to; those of the layout `utm` only where its option `dataset` names them.
        protocols: names of `PROTOCOLS` (or of `POSE_PROTOCOLS`) that published numbers are under.
        remark: a trap, in a sentence; "" for none.
    """

    title: str
    layout: str
    obtain: str
    licence: str
    sizes: tuple[Size, ...] = ()
    protocols: tuple[str, ...] = ()
    read: str = ""
    remark: str = ""


_VDD = "https://github.com/gmberton/VPR-datasets-downloader"
_BENCH = "https://github.com/MubarizZaffar/VPR-Bench (its datasets folder on SURFdrive)"
_NETVLAD_PAGE = "lists: https://www.di.ens.fr/willow/research/netvlad/"
_LOCALISATION = "https://www.visuallocalization.net/datasets/"
_MAT = "counted in the .mat (a copy in devanshigarg01/pittsburghdata)"
_GSV_LISTS = "lists of gsv-cities @ 77ffffc"
_PNV_LISTS = "lists of Patch-NetVLAD @ 39ab4e4"

DATASETS: dict[str, Dataset] = {
    "17places": Dataset(
        "17 Places (VPR-Bench's part)",
        "aligned",
        f"free: {_BENCH}",
        "not stated",
        (Size("test", 406, 406, sure=False, source="VPR-Bench, by third parties"),),
        ("17places/vpr-bench",),
    ),
    "7scenes": Dataset(
        "7-Scenes",
        "7scenes",
        "free: https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        "see the page",
        (),
        ("7scenes/gcl",),
        remark="colour and depth are not registered; GCL's numbers are one scene a model",
    ),
    "amstertime": Dataset(
        "AmsterTime",
        "aligned",
        f"free: https://doi.org/10.4121/19580806; arranged with positions in names by {_VDD}",
        "see the page",
        (Size("test", 1231, 1231, source="AmsterTime, README.md: 1,231 verified pairs"),),
        ("amstertime/vpr-bench",),
        remark="old photographs ask; image i is the place of image i. With positions in names: layout utm, protocol radius/25/all",
    ),
    "crossseason": Dataset(
        "Cross-Seasons (VPR-Bench's part)",
        "npy",
        f"free: {_BENCH}; {_GSV_LISTS}",
        "not stated",
        (Size("test", 191, 191, source=_GSV_LISTS),),
        ("graded/0.5/all",),
        remark="positives are lists, up to 10 a query",
    ),
    "essex3in1": Dataset(
        "ESSEX3IN1",
        "aligned",
        f"free: {_BENCH}; {_GSV_LISTS}",
        "not stated",
        (Size("test", 210, 210, source=_GSV_LISTS),),
        ("essex3in1/vpr-bench",),
    ),
    "extended-cmu-seasons": Dataset(
        "Extended CMU Seasons",
        "cmu-seasons",
        f"free: {_LOCALISATION}",
        "CC BY-NC-SA 3.0 (its README)",
        (Size("test", 56613, None, sure=False, source="by third parties"),),
        ("ecmu",),
        remark="truth of most queries is withheld: the server scores a submission; files hold camera centres, submissions translations",
    ),
    "eynsham": Dataset(
        "Eynsham",
        "utm",
        f"free: arranged by {_VDD}; raw: https://zenodo.org/record/1243106",
        "see the page",
        (),
        ("eynsham/gmberton",),
        remark="the first 4,787 panoramas are the database, five views each; the others ask",
    ),
    "gardenspoint": Dataset(
        "Gardens Point (day and night)",
        "aligned",
        f"free: https://doi.org/10.5281/zenodo.4590133, or {_BENCH}",
        "see the page",
        (Size("test", 200, 200, sure=False, source="VPR-Bench, by third parties"),),
        ("gardenspoint/vpr-bench",),
    ),
    "gsv-cities": Dataset(
        "GSV-Cities",
        "gsv-cities",
        "login: https://www.kaggle.com/datasets/amaralibey/gsv-cities",
        "see the page",
        (),
        ("same-place",),
        remark="teaches only: about 530,000 images of 62,000 places, labelled by place; nobody asks",
    ),
    "holidays": Dataset(
        "INRIA Holidays (VPR-Bench's part)",
        "npy",
        f"free: https://lear.inrialpes.fr/~jegou/data.php; {_GSV_LISTS}",
        "see the page",
        (Size("test", 300, 512, source=_GSV_LISTS),),
        ("graded/0.5/all",),
        remark="positives are lists; scenes of holidays, not places of a map",
    ),
    "msls": Dataset(
        "Mapillary Street-Level Sequences",
        "msls",
        "login: https://www.mapillary.com/dataset/places (six volumes, the metadata, and the patch on top)",
        "see the page",
        (
            Size("val", 6595, 12601, part="cph", sure=False, source="VPR-datasets-downloader, issue 18"),
            Size("val", 4525, 6315, part="sf", sure=False, source="VPR-datasets-downloader, issue 18"),
            Size("val", 499, 12556, part="cph, as asked", source=f"{_GSV_LISTS}; {_PNV_LISTS}"),
            Size("val", 248, 6315, part="sf, as asked", source=f"{_GSV_LISTS}; {_PNV_LISTS}"),
            Size("val", None, 18871, part="gsv", source=_GSV_LISTS),
            Size("test", 1135, 36565, sure=False, source="lists of salad @ e593005; whether panoramas count was not established"),
        ),
        ("msls-val/official", "msls-val/gcl", "msls-val/gsv", "msls-val/gmberton", "msls-test/official"),
        remark="as asked: queries of the subset `all`, no panoramas; test cities have positions only where you added them",
    ),
    "nordland": Dataset(
        "Nordland",
        "nordland",
        f"free: arranged by {_VDD}; VPR-Bench's part: {_BENCH}",
        "not stated",
        (
            Size("test", 27592, 27592, part="pnv", source=_PNV_LISTS),
            Size("test", 27592, 27592, part="gmberton", source="datasets_vg @ 31df9d2: the frames of Patch-NetVLAD"),
            Size("test", 2760, 27592, part="vpr-bench", source=_GSV_LISTS),
        ),
        ("nordland/pnv", "nordland/gmberton", "nordland/vpr-bench"),
        remark="three benchmarks of one name: positives are 7, 10 or 1 frames apart, and VPR-Bench asks summer of winter",
    ),
    "pitts250k": Dataset(
        "Pittsburgh 250k",
        "dbstruct",
        f"on request: http://www.ok.ctrl.titech.ac.jp/~torii/project/repttile/; {_NETVLAD_PAGE}",
        "not stated",
        (
            Size("test", 8280, 83952, source=_MAT),
            Size("val", 7608, 78648, source=_MAT),
            Size("train", 7824, 91464, source=_MAT),
        ),
        ("pitts250k/netvlad", "pitts250k/gcl", "pitts250k/gmberton"),
    ),
    "pitts30k": Dataset(
        "Pittsburgh 30k",
        "dbstruct",
        f"on request: http://www.ok.ctrl.titech.ac.jp/~torii/project/repttile/; {_NETVLAD_PAGE}",
        "not stated",
        (
            Size("test", 6816, 10000, source=f"{_PNV_LISTS}; {_GSV_LISTS}"),
            Size("val", 7608, 10000, source=_GSV_LISTS),
            Size("train", 7416, 10000, source=_MAT),
        ),
        ("pitts30k/netvlad", "pitts30k/gcl", "pitts30k/gmberton"),
    ),
    "robotcar-seasons-v2": Dataset(
        "RobotCar Seasons v2",
        "robotcar-seasons",
        f"free: {_LOCALISATION}",
        "CC BY-NC-SA 4.0, academic use (its README)",
        (
            Size("test", 1872, 6954, sure=False, source="1,443 by day and 429 by night, by third parties"),
            Size("val", 1906, 6954, sure=False, source="by third parties"),
        ),
        ("robotcar-v2",),
        remark="truth of the test images is withheld: the server scores a submission; only the rear camera counts",
    ),
    "sf-xl": Dataset(
        "San Francisco eXtra Large",
        "utm",
        "on request: https://github.com/gmberton/CosPlace",
        "see the page",
        (),
        ("sf-xl/gmberton",),
        read="queries=queries_v1",
        remark="about 1 TB; queries_v1 and queries_v2 are two test sets on one database",
    ),
    "sped": Dataset(
        "SPED (VPR-Bench's test part)",
        "aligned",
        f"free: {_BENCH}; {_GSV_LISTS}",
        "not stated",
        (Size("test", 607, 607, source=_GSV_LISTS),),
        ("sped/vpr-bench",),
    ),
    "st-lucia": Dataset(
        "St Lucia",
        "utm",
        f"free: arranged by {_VDD}",
        "not stated",
        (Size("test", 1464, 1549, source="lists of VLAD-BuFF"),),
        ("st-lucia/gmberton",),
        read="dataset=st-lucia",
        remark="first drive searched, last asked, a frame each 5 m",
    ),
    "tb-places": Dataset(
        "TB-Places",
        "gcl",
        "W16 to W18: https://doi.org/10.34894/VIL0EV; https://github.com/marialeyvallina/TB_Places",
        "see the page",
        (
            Size("test", None, 40752, part="W16", source="TB_Places @ 6274c58, README.md"),
            Size("test", None, 10948, part="W17", source="TB_Places @ 6274c58, README.md"),
            Size("test", None, 23043, part="W18", source="TB_Places @ 6274c58, README.md"),
            Size("test", None, 7999, part="R17", source="TB_Places @ 6274c58, README.md"),
        ),
        ("tb-places/gcl", "tb-places/pairs"),
        read="dataset=tb-places",
    ),
    "tokyo-tm": Dataset(
        "Tokyo Time Machine",
        "dbstruct",
        f"on request: {_NETVLAD_PAGE}",
        "not stated",
        (
            Size("train", 7277, 49104, source=_MAT),
            Size("val", 7186, 49056, source=_MAT),
        ),
        ("tokyo-tm/netvlad", "tokyo-tm/gcl"),
        remark="results of the query's own time are left out",
    ),
    "tokyo247": Dataset(
        "Tokyo 24/7",
        "dbstruct",
        f"on request: http://www.ok.ctrl.titech.ac.jp/~torii/project/247/; {_NETVLAD_PAGE}",
        "not stated",
        (Size("test", 315, 75984, source=_PNV_LISTS),),
        ("tokyo247/netvlad", "tokyo247/gmberton", "tokyo247/gcl"),
        remark="the list says .jpg where the database is .png; NetVLAD counts one hit a panorama, the others do not",
    ),
}
"""Name -> benchmark."""


def check_sizes(
    name: str, *, split: str, queries: int | None, database: int | None, part: str = "", policy: Sizes = "stop", where: object = ""
) -> None:
    """Hold what was read against the benchmark's sizes; nothing is said of a split or part whose sizes are not known.

    Args:
        name: of `DATASETS`.
        split: that was read.
        queries: images that ask, before any policy leaves some out.
        database: images that are searched.
        part: the scene, for sizes by scene.
        policy: "stop", "warn" or "ignore"; sizes that are not sure are only ever warned of.
        where: the folder or file, for the message.

    Raises:
        InvalidInputError: the sizes differ and the policy is "stop"; or there is no such policy.

    Warns:
        CovisWarning: they differ and the policy is "warn", or the size is not sure.

    >>> check_sizes("sped", split="test", queries=607, database=606)
    Traceback (most recent call last):
    covis.errors.InvalidInputError: ... must have 607 queries and 607 database images; found 607 queries and 606 database images. ...
    """
    if policy not in ("stop", "warn", "ignore"):
        raise InvalidInputError(f"The policy sizes must be one of stop, warn, ignore; got {policy!r}.")
    for size in DATASETS[name].sizes if policy != "ignore" and name in DATASETS else ():
        if (size.split, size.part) != (split, part):
            continue
        expected, found = (size.queries, size.database), (queries, database)
        if all(a is None or b is None or a == b for a, b in zip(expected, found, strict=True)):
            continue
        said = (
            f"{where}: the {split} split of {name}{f' ({part})' if part else ''} must have {_sides(*expected)}; found {_sides(*found)}. "
            "This is not the benchmark: published numbers do not apply. Unpack it again, or read with sizes=ignore."
        )
        if policy == "stop" and size.sure:
            raise InvalidInputError(said)
        warnings.warn(said, CovisWarning, stacklevel=3)


def _sides(queries: int | None, database: int | None) -> str:
    said = [f"{count:,} {what}" for count, what in ((queries, "queries"), (database, "database images")) if count is not None]
    return " and ".join(said) or "no images"
