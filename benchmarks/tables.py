"""Big tables: seconds, rows a second and peak memory of covis' readers, beside Python's csv.DictReader into lists.

    python benchmarks/tables.py

A table of 1.6 million images (name, lat, lon, heading, sequence, frame) as CSV and as Parquet, and a city of 100,000 images
in the MSLS layout, generated into a temporary folder. No image is looked up (missing="ignore"). The reference turns every
cell into text or a number and appends it to a list, a list a column; covis does that and more: metres from latitude and
longitude, names that stand once, values in their ranges, frozen arrays. Every reading has a process of its own: its seconds
are of the processor, over all threads, and the least of --runs processes; memory is the process' peak (`ru_maxrss`), and
what it was before reading.
"""

from __future__ import annotations

import argparse
import base64
import csv
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, CITY_ROWS, CITY = 1_600_000, 100_000, "cph"
IN_SEQUENCE = 100
NUMBERS = {"lat", "lon", "heading", "frame", "ca", "easting", "northing", "unique_cluster", "frame_number"}
MEBI = 2**20


def make_table(folder: Path, rows: int) -> int:
    """table.csv and table.parquet: drives of 100 images through a city; how many rows."""
    import numpy as np
    import polars as pl

    random = np.random.default_rng(0)
    drive, frame = np.divmod(np.arange(rows), IN_SEQUENCE)
    begin = random.uniform([48.80, 2.25], [48.90, 2.45], (drive[-1] + 1, 2))
    course = random.uniform(0, 360, drive[-1] + 1)
    step = np.column_stack([np.cos(np.radians(course)) / 111_000, np.sin(np.radians(course)) / 73_000])
    place = begin[drive] + step[drive] * 5 * frame[:, None]
    keys = base64.urlsafe_b64encode(random.bytes(18 * rows)).decode()
    names = [f"images/{keys[24 * row : 24 * row + 22]}.jpg" for row in range(rows)]
    table = pl.DataFrame({
        "name": names,
        "lat": place[:, 0].round(7),
        "lon": place[:, 1].round(7),
        "heading": ((course[drive] + random.normal(0, 3, rows)) % 360).round(2) % 360,
        "sequence": [f"drive{number:06d}" for number in drive],
        "frame": frame,
    })  # fmt: skip
    table.write_csv(folder / "table.csv")
    table.write_parquet(folder / "table.parquet")
    return rows


def make_city(folder: Path, rows: int) -> int:
    """A city in the MSLS layout, tables alone: four of them a side, four images in five in the database; how many rows."""
    import numpy as np

    from covis.datasets import write
    from covis.images import Images, Scene

    random = np.random.default_rng(1)
    sides = []
    for side, count in (("database", rows - rows // 5), ("query", rows // 5)):
        drive, frame = np.divmod(np.arange(count), IN_SEQUENCE)
        begin, course = random.uniform(0, 20_000, (drive[-1] + 1, 2)), random.uniform(0, 2 * np.pi, drive[-1] + 1)
        xy = begin[drive] + 5 * frame[:, None] * np.column_stack([np.sin(course), np.cos(course)])[drive]
        keys = base64.urlsafe_b64encode(random.bytes(18 * count)).decode()
        flags = {name: random.random(count) < 0.5 for name in ("s2w", "w2s", "o2n", "n2o", "d2n", "n2d", "control_panel", "night")}
        forward = random.random(count) < 0.9
        flags |= {"all": np.ones(count, dtype=bool), "panorama": ~np.ones(count, dtype=bool), "forward": forward, "sideways": ~forward}
        sides.append(Images(
            "nowhere",
            [f"train_val/{CITY}/{side}/images/{keys[24 * row : 24 * row + 22]}.jpg" for row in range(count)],
            xy=xy + np.array([330_000.0, 6_160_000.0]),
            heading=np.degrees(course)[drive] % 360,
            time=random.integers(15_000, 18_000, count) * 86_400.0,
            sequence=[f"{side}{number}" for number in drive],
            frame=frame,
            place=drive,
            crs="EPSG:32633",
            flags=flags,
        ))  # fmt: skip
    write("msls", Scene(CITY, "val", *sides), folder, files="none")
    return rows


def read_covis(layout: str, path: Path, options: dict[str, Any]) -> int:
    import covis

    (scene,) = covis.read(layout, path, missing="ignore", **options)
    return len(scene.database) + (0 if scene.training else len(scene.queries))


def read_plainly(path: Path) -> dict[str, list[Any]]:
    """A list a column."""
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        columns: dict[str, list[Any]] = {name: [] for name in reader.fieldnames or ()}
        for row in reader:
            for name, cell in row.items():
                columns[name].append(float(cell) if name in NUMBERS else cell)
    return columns


def read_plainly_all(paths: list[Path]) -> list[dict[str, list[Any]]]:
    return [read_plainly(path) for path in paths]


def peak() -> float:
    """MiB that the process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MEBI


def measured(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[float, float, float]:
    """Processor seconds, peak MiB, and MiB before; the libraries are loaded before the clock starts."""
    if work is read_covis:
        import covis.datasets  # noqa: F401 - loaded for its time and memory, which are not the reading's
    before, begun = peak(), time.process_time()
    _held = work(*arguments)  # to the end: letting go of it is not timed
    return time.process_time() - begun, peak(), before


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a call gives in a new process, which takes no memory over from this one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def least(runs: int, work: Callable[..., Any], *arguments: Any) -> tuple[float, float, float]:
    return min(alone(measured, work, arguments) for _ in range(runs))


def report(what: str, rows: int, ours: tuple[float, float, float], plain: tuple[float, float, float]) -> None:
    seconds, most, before = ours
    print(
        f"  {what:<36}{seconds:7.2f} s{rows / seconds:12,.0f} rows/s{most:7,.0f} MiB ({before:,.0f} before)"
        f"{plain[0] / seconds:7.1f} times the plain reader"
    )


def report_plain(what: str, rows: int, plain: tuple[float, float, float]) -> None:
    print(f"  {what:<36}{plain[0]:7.2f} s{rows / plain[0]:12,.0f} rows/s{plain[1]:7,.0f} MiB ({plain[2]:,.0f} before)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the table")
    parser.add_argument("--city-rows", type=int, default=CITY_ROWS, help="of the city in the MSLS layout")
    parser.add_argument("--runs", type=int, default=1, help="processes for each reading; the least time counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = alone(make_table, root, arguments.rows)
        plain = least(arguments.runs, read_plainly, root / "table.csv")
        sizes = [f"{name} {(root / f'table.{name}').stat().st_size / MEBI:,.0f} MiB" for name in ("csv", "parquet")]
        print(f"a table of {rows:,} rows x 6 columns ({', '.join(sizes)})")
        report_plain("csv.DictReader into lists", rows, plain)
        for kind in ("csv", "parquet"):
            ours = least(arguments.runs, read_covis, "table", root / f"table.{kind}", {})
            report(f"covis, {'CSV' if kind == 'csv' else 'Parquet'}", rows, ours, plain)
        rows = alone(make_city, root / "msls", arguments.city_rows)
        tables = sorted((root / "msls").glob("*/*/*/*.csv"))
        print(f"a city of {rows:,} rows in the MSLS layout ({len(tables)} tables, {sum(map(file_size, tables)) / MEBI:,.0f} MiB)")
        plain = least(arguments.runs, read_plainly_all, tables)
        report_plain("csv.DictReader into lists", rows, plain)
        ours = least(arguments.runs, read_covis, "msls", root / "msls", {"split": "val", "cities": CITY})
        report("covis, MSLS", rows, ours, plain)


def file_size(path: Path) -> int:
    return path.stat().st_size


if __name__ == "__main__":
    main()
