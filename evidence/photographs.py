"""Real photographs made ready: folders that studies run on, and test sets that any network can be asked.

The public sources lie below one folder (`COVIS_DATA`), each with a PROVENANCE.txt; nothing of them is copied.

WORK/campus/ WORK/headings/    tables cut by place, which name the photographs where they are
     campus-maps/              label maps of the campus
     asked/<size>-<hash>/      photographs as a network of that input size sees them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from covis.config import load_recipe, parse_options
from covis.datasets import read
from covis.datasets.aligned import read_aligned
from covis.datasets.npy_truth import truth_labels
from covis.datasets.split_tables import SPLIT_FORMAT, SPLIT_VERSION, write_split_table
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, SettingsDifferError
from covis.files import atomic_path, digest, locked, read_json, read_text
from covis.images import Images, Scene
from covis.labelling import LABEL_RULES
from covis.labels import Labels
from covis.lookup import chosen, resolve
from covis.pixels import PhotoResize, decode
from covis.protocols import Protocol, protocol
from covis.segmentation import map_names, segment
from covis.settings import Recipe
from covis.splits import NAMES, TEST, collection, split_by_place

CUTS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "campus": (
        "campus/gt.csv",
        ("header=false", "columns.name=1", "columns.lat=2", "columns.lon=3", "columns.time=1", "time_format=%Y%m%d_%H%M%S*"),
        {"along": "west", "shares": (0.5, 0.2, 0.3), "buffer": 25.0, "ask": "time:17:00-06:00", "frames": "time"},
    ),
    "headings": (
        "headings/labels_val.csv",
        (
            "columns.name=filename",
            "columns.lat=latitude",
            "columns.lon=longitude",
            "columns.heading=angle",
            "scale=1e-6",
            "match=stem",
            "missing=skip",
            "within=500",
        ),
        {"cell": 100.0, "shares": (0.5, 0.15, 0.35), "buffer": 25.0, "ask": "every:2", "frames": "order"},
    ),
}
"""Name -> the table, how it is read, how it is cut: as docs/runs.md has it."""
SEGMENTER = "weights/deeplab_mobilenet_edgetpu_slim_cityscapes_quant.tflite"
BACKBONE = "weights/mobilenetv2_100_timm_same_fp16_statedict.pth"
"""ImageNet weights of the studies on photographs."""
SEASONS, PLACES, WIDTH = 12, 5, 1024
"""Of the seasons: how many, of how many places, in images how wide (pixels)."""
OF_RECIPES = {"campus": ("gcl-campus", "radius/10"), "headings": ("gcl-headings", "radius/25"), "kitchen": ("gcl-7scenes", "graded/0.5")}
"""Test sets that are a recipe's: the recipe, and under which of its protocols they are asked: that which counts more queries."""
SETS = ("corridor", "seasons", *OF_RECIPES)
"""What `test_set` knows."""
PUBLIC = {"corridor": "corridor", "seasons": "seasons", "kitchen": "7scenes/redkitchen", **{name: cut[0] for name, cut in CUTS.items()}}
"""Name -> where its source lies below the folder of the public sources."""


@dataclass(frozen=True, eq=False)
class TestSet:
    """Photographs that are asked.

    Attributes:
        name: of the set.
        scenes: database and queries.
        labels: one a scene; None where positions alone decide.
        protocol: what is correct, and who is counted.
    """

    __test__ = False  # pytest: no test

    name: str
    scenes: tuple[Scene, ...]
    labels: tuple[Labels, ...] | None
    protocol: Protocol


def there(names: Iterable[str], data: Path | None) -> list[str]:
    """Those of some test sets whose source lies below `data`: not everybody has all of them.

    >>> there(SETS, None)
    []
    """
    return [] if data is None else [name for name in names if (data / PUBLIC[name]).exists()]


def prepare(name: str, data: Path, work: Path) -> Path:
    """Make a data folder ready for `covis.sweeps.sweep`; what is ready is left as it is.

    Args:
        name: "kitchen" (7-Scenes, as it lies there), "campus" or "headings" (cut by place into WORK/<name>, as docs/runs.md
            has it), or "campus-maps" (label maps of the campus by a Cityscapes network, into WORK/campus-maps; needs LiteRT).
        data: the folder of the public sources.
        work: where what is made is kept.

    Returns:
        The folder: the data of a sweep; of "campus-maps" its `maps`.

    Raises:
        InvalidInputError: there is no such name.
        MissingFileError: the source is not there.
        SettingsDifferError: the folder in `work` was made otherwise, or of photographs elsewhere.
    """
    if name == "kitchen":
        return _found(data / PUBLIC[name])
    if name not in (*CUTS, "campus-maps"):
        known = ", ".join(["kitchen", *CUTS, "campus-maps"])
        raise InvalidInputError(f"Photographs are prepared of one of {known}; got {name!r}.")
    with locked(work / f".{name}.lock"):  # several processes may want them at once
        return _maps(data, work / name) if name == "campus-maps" else _cut(name, data, work / name)


def _found(path: Path) -> Path:
    if not path.exists():
        raise MissingFileError(f"The photographs of a public source must lie in {path}; there is no such thing. Look at COVIS_DATA.")
    return path


def _cut(name: str, data: Path, out: Path) -> Path:
    """A collection cut by place, as `covis split --files none` writes it."""
    source, reading, cutting = CUTS[name]
    table = _found(data / source)
    made = {"source": source, "read": list(reading), "cut": {key: _plain(value) for key, value in cutting.items()}}
    if out.exists():
        _check_same(out, made, table.parent.absolute())
        return out
    (scene,) = read("table", table, split="test", **parse_options(reading))
    cut = split_by_place(scene, **cutting)
    rows = [row for row, part in enumerate(cut.part.tolist()) if part <= TEST]
    asks = np.zeros(len(cut.part), dtype=bool) if cut.asks is None else cut.asks
    return write_split_table(
        cut.images.select(rows),
        out,
        split=[NAMES[cut.part[row]] for row in rows],
        side=["query" if asks[row] else "database" for row in rows],
        record={"of": name, "parameters": dict(cut.parameters), "summary": cut.summary(), "made": made},
        files="none",
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_same(out: Path, made: dict[str, Any], folder: Path) -> None:
    """That a table was cut in this way, of photographs in this folder."""
    there = read_json(out / "split.json", kind=SPLIT_FORMAT, version=SPLIT_VERSION).get("made")
    (scene,) = read("table", out, split="test")
    if there != made or not scene.queries.root.absolute().is_relative_to(folder):
        raise SettingsDifferError(
            f"{out} must be cut as {made}, of photographs in {folder}; it was cut as {there}, of {scene.queries.root}. Choose another "
            "folder to work in, or remove it."
        )


def _maps(data: Path, out: Path) -> Path:
    """Label maps of the campus; a run that was killed goes on."""
    source, reading, _ = CUTS["campus"]
    (scene,) = read("table", _found(data / source), split="test", **parse_options(reading))
    images, _ = collection(scene)
    if all((out / name).is_file() for name in map_names(images.names).values()):
        return out
    segment(images, _found(data / SEGMENTER), classes="cityscapes-train", out=out)
    return out


def test_set(name: str, data: Path, work: Path) -> TestSet:
    """A set of real photographs, to be asked.

    | set | queries, database | correct | drawn again |
    |---|---|---|---|
    | corridor | 111, 111 | what VPR-Bench's file of truth says | blocks of 10 frames |
    | seasons | 660 (60 images, 11 times), 12 times 5 | the same place in another season | the season that is searched |
    | campus | 125 in the dark, 88 by day | within 10 m | blocks of 10 |
    | headings | 63, 67 | within 25 m | blocks of 10 |
    | kitchen | 125, 125 | half of what is seen | blocks of 10 frames |

    Seasons (ours): the five images of each season are searched in turn, by the five of each other season, so that a guess is right
    once in five; of a scene all others are asked, and its name says which season it is. (Asking all 59 others at once is nearly
    solved: any of 11 seasons is then right, and a tiny grey image finds one for 93 of 100.) Similarity is the share of the image's
    width that two seasons have in common, 1 - |shift| / 1024, by the hand-made shifts of the set, and 0 between places. All shifts
    are small, and at least .74 is shared, so that under graded/0.5 the same place is correct. Intervals draw the seasons that are
    searched: they say what other seasons of these five places would give, and nothing of other places.

    Args:
        name: one of `SETS`.
        data: the folder of the public sources.
        work: as in `prepare`.

    Raises:
        InvalidInputError: there is no such set.
        MissingFileError: the source is not there.
    """
    if name == "corridor":
        return _corridor(_found(data / name))
    if name == "seasons":
        return _seasons(_found(data / name))
    if name not in OF_RECIPES:
        raise InvalidInputError(f"The photographs that are asked must be one of {', '.join(SETS)}; got {name!r}.")
    named, rule = OF_RECIPES[name]
    return of_recipe(name, load_recipe(named), prepare(name, data, work), judged=rule)


test_set.__test__ = False  # type: ignore[attr-defined]


def of_recipe(name: str, recipe: Recipe, folder: Path, *, judged: str = "", limit: int = 0) -> TestSet:
    """The test scenes of a data folder, chosen and labelled as a recipe says; of each so many queries, evenly spread (0: all)."""
    settings = recipe.data
    found = [scene for scene in read(settings.layout, folder, split="test", **settings.options) if chosen(scene.name, settings.test)]
    if not found:
        raise InvalidInputError(f"{folder} must hold a test scene whose name fits {settings.test!r}; it holds none.")
    scenes = [_limited(scene, limit) for scene in found]
    rule = protocol(judged or recipe.evaluate.protocols[0])
    labels = None
    if rule.positive == "similarity":
        make = resolve(recipe.label.rule, LABEL_RULES, what="label rule")
        labels = tuple(make(scene.queries, scene.database, **recipe.label.options) for scene in scenes)
    return TestSet(name, tuple(scenes), labels, rule)


def _limited(scene: Scene, limit: int) -> Scene:
    if not 0 < limit < len(scene.queries):
        return scene
    return replace(scene, queries=scene.queries.select(np.linspace(0, len(scene.queries) - 1, limit).round().astype(int)))


def _corridor(folder: Path) -> TestSet:
    scenes = read_aligned(folder)
    labels = truth_labels(folder / "ground_truth_new.npy", scenes, form="vpr-bench")
    return TestSet("corridor", tuple(scenes), tuple(labels), protocol("graded/0.5"))


def _seasons(folder: Path) -> TestSet:
    shifts = read_shifts(folder / "ground_truth" / "angles.txt")
    scenes, labels = [], []
    for searched in range(SEASONS):
        others = [(season, place) for season in range(SEASONS) if season != searched for place in range(PLACES)]
        asked_of = f"asked of season {searched + 1:02d}"  # what is drawn again: see test_set
        queries = _season_images(folder, others, sequence=(asked_of,) * len(others))
        database = _season_images(folder, [(searched, place) for place in range(PLACES)])
        matrix = np.zeros((len(others), PLACES))
        for row, (season, place) in enumerate(others):
            matrix[row, place] = max(0.0, 1 - abs(shifts[place, season] - shifts[place, searched]) / WIDTH)
        scenes.append(Scene(f"season-{searched + 1:02d}", "test", database, queries))
        labels.append(Labels(sparse.csr_array(matrix), queries.names, database.names, rule="share of the width"))
    return TestSet("seasons", tuple(scenes), tuple(labels), replace(protocol("graded/0.5"), ks=(1, 2, 3, PLACES)))


def _season_images(folder: Path, which: list[tuple[int, int]], sequence: tuple[str, ...] | None = None) -> Images:
    names = tuple(f"{season + 1:02d}{place + 1:02d}.jpg" for season, place in which)
    for name in names:
        _found(folder / "images" / name)
    return Images(folder / "images", names, sequence=sequence)


def read_shifts(path: Path) -> NDArray[np.float64]:
    """(5, 12) pixels: how far each season of each place is shifted against the first; values beyond the twelfth are none.

    Raises:
        DamagedFileError: it is no such table.
    """
    try:
        rows = [[float(value) for value in line.split()[:SEASONS]] for line in read_text(path).splitlines() if line.strip()]
        shifts = np.array(rows)
    except ValueError:
        shifts = np.zeros(0)
    if shifts.shape != (PLACES, SEASONS) or not np.isfinite(shifts).all():
        raise DamagedFileError(f"{path} must hold {PLACES} rows of {SEASONS} shifts in pixels; found another table. Fetch it again.")
    return shifts


def shrunk(images: Images, work: Path, *, height: int, width: int, resize: PhotoResize) -> Images:
    """A table's photographs in the size that a network reads, made once: PNGs, which lose nothing, so that descriptors stay the same.

    A photograph whose file has another size or time than when it was made small is made small again. Names are new: rows.
    """
    files = [images.path(row) for row in range(len(images))]
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in map(_found, files)]
    folder = work / "asked" / f"{height}x{width}-{resize}-{digest(stamps)}"
    names = tuple(f"{row}.png" for row in range(len(images)))
    with locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with atomic_path(folder) as made:
                made.mkdir()
                for path, name in zip(files, names, strict=True):
                    pixels = decode(path, height=height, width=width, resize=resize)
                    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(made / name)
    return Images(folder, names)
