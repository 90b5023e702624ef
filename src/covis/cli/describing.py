"""The command that describes images: extract."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from covis.cli.shell import Data, Layout, Out, Overwrite, Read, Split, app, print_paths, read_scenes


@app.command()
def extract(
    data: Data,
    model: Annotated[Path, typer.Option(help="A model's folder.", show_default=False)],
    out: Out,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 32,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored vectors.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Describe every image: OUT/<scene>/database and OUT/<scene>/queries; resumes where it was killed."""
    from covis.extraction import extract as describe
    from covis.models.checkpoints import load

    network = load(model)
    for scene in read_scenes(data, layout, split, read):
        for side in ("database",) if scene.training else ("database", "queries"):
            describe(
                network, getattr(scene, side), out=out / scene.name / side, batch=batch, dtype=dtype, progress=True, overwrite=overwrite
            )
            print_paths(out / scene.name / side)
