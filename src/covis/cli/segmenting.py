"""The command that makes label maps of photographs: segment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from covis.cli.describing import Scenes, chosen_scenes
from covis.cli.shell import AsJson, Data, Layout, Out, Overwrite, Read, Split, app, check_outputs, print_json, print_paths, read_scenes, say

if TYPE_CHECKING:
    from covis.images import Scene

_MODEL = "A .tflite or .onnx file, a folder of transformers, hf:owner/name, or module:function."
_CLASSES = "What the network's numbers mean: a numbering (cityscapes-train, ade20k, ...); not given: by its class names, where it has them."
_OPTION = "KEY=VALUE: of files height, width, fit (stretch, pad), mean, std; of transformers device; of a function its keywords."


@app.command()
def segment(
    data: Data,
    model: Annotated[str, typer.Option(help=_MODEL, show_default=False)],
    out: Out,
    classes: Annotated[str | None, typer.Option(help=_CLASSES, show_default=False)] = None,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    scenes: Scenes = "*",
    model_option: Annotated[list[str] | None, typer.Option("--model-option", help=_OPTION, show_default=False)] = None,
    batch: Annotated[int, typer.Option(help="Photographs at once.")] = 4,
    damaged: Annotated[
        Literal["stop", "skip"], typer.Option(help="Photographs that are missing or do not decode: an error, or left out and said.")
    ] = "stop",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a label map of every photograph: OUT/<name>.png, class numbers at its own size; resumes where it was killed."""
    from covis.config import parse_options
    from covis.files import read_json
    from covis.segmentation import segment as make
    from covis.segmentation.maps import RECORD

    check_outputs([out / RECORD], [("DATA", data)], overwrite=True, folder=out)
    found = chosen_scenes(read_scenes(data, layout, split, read), scenes)
    options, base = parse_options(model_option or ()), _base(data, found)
    began = time.monotonic()
    make(
        found, model, out=out, classes=classes, options=options, base=base, batch=batch, damaged=damaged, overwrite=overwrite, progress=True
    )
    record = read_json(out / RECORD)
    shares = sorted(record["shares"].items(), key=lambda one: -one[1])
    say("; ".join(f"{name} {share:.1%}" for name, share in shares))
    if as_json:
        print_json({"folder": str(out), **record, "seconds": round(time.monotonic() - began, 3)})
    else:
        print_paths(out)


def _base(data: Path, scenes: list[Scene]) -> Path | None:
    """DATA, where it is a folder with all photographs in it, so that maps are named the same whatever the split."""
    from covis.semantics.maps import outer_folder

    above = Path(os.path.realpath(data))
    tables = [side for scene in scenes for side in (scene.database, scene.queries)]
    inside = data.is_dir() and all(Path(outer_folder(os.path.realpath(one.root), one.names)).is_relative_to(above) for one in tables)
    return data.absolute() if inside else None
