"""Surveys: which towns are photographed, by which rides, and how large the pictures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from covis.errors import InvalidInputError
from covis.town.conditions import CONDITIONS
from covis.town.rides import Ride, View
from covis.town.towns import TownSettings
from covis.town.visits import Visit


@dataclass(frozen=True)
class Outing:
    """A day on which a town is photographed.

    Attributes:
        condition: a name in `CONDITIONS`.
        frames: how many pictures.
        year: 0 when the town was built; later ones have other shops and building works.
        view: where the camera looks.
        reverse: whether the lanes of the other direction are taken.
        lateral: metres to the left of the lane's middle.
        spacing: metres between two pictures.
        fov: degrees.

    Raises:
        InvalidInputError: there is no such condition.
    """

    condition: str
    frames: int
    year: int = 0
    view: View = "forward"
    reverse: bool = False
    lateral: float = 0.0
    spacing: float = 3.0
    fov: float = 75.0

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise InvalidInputError(f"A condition must be one of {', '.join(CONDITIONS)}; got {self.condition!r}.")

    @property
    def leaves(self) -> bool:
        """Whether trees have leaves then: those of autumn have."""
        return CONDITIONS[self.condition].season > 0

    def ride(self, number: int) -> Ride:
        """Its ride; `number` tells it from the others of the town, and its cars and people from theirs."""
        visit = Visit(number=number, year=self.year, leaves=self.leaves)
        return Ride(
            number,
            visit,
            self.condition,
            self.frames,
            spacing=self.spacing,
            view=self.view,
            reverse=self.reverse,
            lateral=self.lateral,
            fov=self.fov,
        )


@dataclass(frozen=True)
class Survey:
    """Towns and the outings through each.

    Attributes:
        train, val, test: how many cities of each split are built, in the order of `CITIES`.
        town: how large each is.
        database, queries: the outings of each side.
        size: (height, width) pixels.
        samples: rays along each side of a pixel.
        gps: metres, deviation of the positions that a layout is given; exact ones are kept beside.
        compass: degrees, the same for headings.

    Raises:
        InvalidInputError: a value is out of its range.
    """

    town: TownSettings
    database: tuple[Outing, ...]
    queries: tuple[Outing, ...]
    train: int = 0
    val: int = 0
    test: int = 0
    size: tuple[int, int] = (240, 320)
    samples: int = 1
    gps: float = 0.0
    compass: float = 0.0

    def __post_init__(self) -> None:
        if any(not 0 <= getattr(self, split) <= len(cities) for split, cities in CITIES.items()):
            most = ", ".join(f"{len(cities)} {split}" for split, cities in CITIES.items())
            raise InvalidInputError(f"A survey has 0 to {most} cities; got {self.train} train, {self.val} val, {self.test} test.")
        if not self.database or not self.queries or min(self.gps, self.compass) < 0:
            raise InvalidInputError("A survey must have outings on both sides, and no deviation below 0.")

    def __str__(self) -> str:
        database, queries = (sum(outing.frames for outing in side) for side in (self.database, self.queries))
        towns = self.train + self.val + self.test
        return (
            f"{towns * (database + queries):,} pictures of {self.size[1]} x {self.size[0]}: {self.train} towns to train, "
            f"{self.val} to validate, {self.test} to test, each with {database:,} database images and {queries:,} queries"
        )

    def chosen(self) -> list[tuple[str, City]]:
        """(split, city) of every city that is built."""
        return [(split, city) for split in ("train", "val", "test") for city in CITIES[split][: getattr(self, split)]]

    def rides(self) -> dict[str, tuple[Ride, ...]]:
        """The rides of both sides, numbered through."""
        first = len(self.database)
        return {
            "database": tuple(outing.ride(number) for number, outing in enumerate(self.database)),
            "queries": tuple(outing.ride(first + number) for number, outing in enumerate(self.queries)),
        }


@dataclass(frozen=True)
class City:
    """A town of a survey, and where on earth it pretends to lie.

    Attributes:
        name: one of the names of MSLS's cities, so that every layout can hold it. It has nothing else of that city.
        crs: of the frame; `corner` is where the town's (0, 0) lies in it, metres east and north.
        number: makes the seed of its town.
    """

    name: str
    crs: str
    corner: tuple[float, float]
    number: int = 0


def _cities(rows: str) -> tuple[City, ...]:
    return tuple(
        City(name, f"EPSG:{zone}", (float(east), float(north)))
        for name, zone, east, north in (row.split() for row in rows.strip().splitlines())
    )


CITIES: Mapping[str, tuple[City, ...]] = {
    split: tuple(replace(city, number=first + k) for k, city in enumerate(cities))
    for split, first, cities in (
        ("val", 0, _cities("cph 32633 347000 6173000\nsf 32610 551000 4180000")),
        (
            "train",
            100,
            _cities(
                """trondheim 32632 570000 7034000
                london 32630 699000 5710000
                boston 32619 330000 4690000
                melbourne 32755 321000 5813000
                amsterdam 32631 629000 5804000
                helsinki 32635 386000 6672000
                tokyo 32654 389000 3949000
                toronto 32617 630000 4834000
                saopaulo 32723 333000 7394000
                moscow 32637 413000 6178000"""
            ),
        ),
        ("test", 200, _cities("miami 32617 581000 2850000\nathens 32634 739000 4207000\nstockholm 32634 334000 6580000")),
    )
}
"""Split -> cities. Numbers make the seeds of the towns, so that no two splits share one."""

_FOUR_DAYS = (
    Outing("day", 240, spacing=3.0),
    Outing("overcast", 120, year=1, reverse=True, spacing=3.0),
    Outing("winter", 80, spacing=6.0, lateral=0.4),
    Outing("night", 80, year=1, spacing=6.0),
)
"""The database of `small` and of `stand`."""

SURVEYS: Mapping[str, Survey] = {
    "tiny": Survey(
        TownSettings(blocks=(1, 1), block=(66.0, 76.0)),
        database=(
            Outing("day", 20, spacing=4.0),
            Outing("winter", 8, spacing=10.0, lateral=0.4),
            Outing("night", 6, year=1, spacing=13.0),
        ),
        queries=(
            Outing("overcast", 8, year=1, spacing=10.0, lateral=-0.4, fov=70.0),
            Outing("snow", 5, spacing=16.0, lateral=0.3),
            Outing("night-rain", 5, year=1, spacing=16.0, view="sideways"),
        ),
        size=(72, 96),
        train=2,
        val=2,
        test=1,
    ),
    "demo": Survey(
        TownSettings(blocks=(2, 2)),
        train=4, val=2,
        database=(Outing("day", 150, spacing=3.0),),
        queries=(Outing("dusk", 100, spacing=4.5, lateral=-0.4),),
        size=(96, 128),
    ),
    "small": Survey(
        TownSettings(blocks=(3, 2)),
        train=4, val=2, test=2,
        database=_FOUR_DAYS,
        queries=(
            Outing("morning", 60, spacing=9.0, lateral=-0.5, fov=68.0),
            Outing("rain", 40, year=1, spacing=12.0, lateral=-0.4),
            Outing("snow", 40, spacing=12.0, lateral=0.5),
            Outing("night-rain", 40, year=1, spacing=12.0, fov=82.0),
            Outing("evening", 30, year=1, view="backward", reverse=True, spacing=12.0),
            Outing("fog", 30, view="sideways", spacing=12.0),
        ),
        gps=1.5,
        compass=3.0,
    ),
    "stand": Survey(
        TownSettings(blocks=(3, 2)),
        train=4, val=2, test=3,
        database=_FOUR_DAYS,
        queries=(
            Outing("morning", 60, spacing=9.0, lateral=-0.5, fov=68.0),
            Outing("dusk", 60, year=1, spacing=9.0, lateral=0.5),
            Outing("rain", 50, year=1, spacing=11.0, lateral=-0.4),
            Outing("snow", 50, spacing=11.0, lateral=0.5),
            Outing("night-rain", 50, year=1, spacing=11.0, fov=82.0),
            Outing("evening", 30, year=1, view="backward", reverse=True, spacing=12.0),
        ),
        size=(96, 128),
    ),
    "city": Survey(
        TownSettings(blocks=(6, 5)),
        train=6, val=2, test=2,
        database=(
            Outing("day", 1100, spacing=3.0),
            Outing("overcast", 500, year=1, reverse=True, spacing=4.0),
            Outing("winter", 300, spacing=7.0, lateral=0.4),
            Outing("night", 300, year=1, spacing=7.0),
            Outing("autumn", 200, year=1, view="sideways", spacing=10.0),
        ),
        queries=(
            Outing("morning", 300, spacing=9.0, lateral=-0.5, fov=68.0),
            Outing("evening", 150, year=1, spacing=12.0, lateral=0.5, fov=82.0),
            Outing("rain", 150, year=1, spacing=12.0, lateral=-0.4),
            Outing("snow", 150, spacing=12.0, lateral=0.5),
            Outing("fog", 100, spacing=15.0),
            Outing("dusk", 100, spacing=15.0, view="backward", reverse=True),
            Outing("night-rain", 150, year=1, spacing=12.0),
        ),
        gps=1.5,
        compass=3.0,
    ),
}  # fmt: skip
"""By name: `tiny` takes seconds, `demo` can be learned from in minutes, `small` has thousands of pictures, `city` tens of thousands."""
