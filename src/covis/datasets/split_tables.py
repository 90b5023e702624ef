"""One collection with the split and the side of each image: a plain table, which `read_table` reads split by split.

images.csv    as `Images.write` writes it, and two more columns: `split` (train, val, test) and `side` (database, query)
images/       the files, unless the table names the folder where they are
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from covis.datasets.filing import Files
from covis.datasets.tables import place_images
from covis.errors import InvalidInputError
from covis.files import atomic_path, check_absent, write_json, write_text
from covis.images import Images

SPLIT_FORMAT, SPLIT_VERSION = "covis-split", 1


def write_split_table(
    images: Images,
    out: str | Path,
    *,
    split: Sequence[str],
    side: Sequence[str],
    record: Mapping[str, Any],
    files: Files = "copy",
    overwrite: bool = False,
) -> Path:
    """Write a folder with one table of images that knows its splits, and `split.json`, which says how it was cut; returns the folder.

    `read_table(folder, split="train")` gives the images of that split on both sides; of "val" and "test" the database and
    the queries, or the same images on both sides where none is a query.

    Args:
        images: the rows to write.
        out: the folder.
        split: of each image, "train", "val" or "test".
        side: of each image, "database" or "query".
        record: plain values for `split.json`.
        files: "copy" the images, "link" to them, or "none": the table names the folder where they are now.
        overwrite: replace a folder that is there.

    Raises:
        InvalidInputError: the lengths differ, or a name leads out of the folder.
        MissingFileError: an image is not there.
        OutputExistsError: the folder is there and `overwrite` is false.
    """
    if not len(images) == len(split) == len(side):
        raise InvalidInputError(f"Each of the {len(images)} images must have a split and a side; got {len(split)} and {len(side)}.")
    out = check_absent(out, overwrite=overwrite)
    with atomic_path(out) as folder:
        folder.mkdir()
        root = images.root.absolute() if files == "none" else Path("images")
        if files != "none":
            place_images(images, folder / root, files)
        table = replace(images, root=root).write(folder / "images.csv")
        header, _, rest = table.read_text(encoding="utf-8").partition("\n")
        rows = zip(csv.reader(io.StringIO(rest, newline="")), ["split", *split], ["side", *side], strict=True)
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([*cells, part, asks] for cells, part, asks in rows)
        write_text(table, f"{header}\n{text.getvalue()}")
        write_json(folder / "split.json", {"format": SPLIT_FORMAT, "version": SPLIT_VERSION, **record})
    return Path(out)
