"""The command that describes images: extract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from covis.cli.shell import Data, Layout, Out, Overwrite, Read, Split, app, print_paths, read_scenes
from covis.errors import InvalidInputError

if TYPE_CHECKING:
    from covis.images import Scene
    from covis.models.describers import Describer

Device = Literal["auto", "cpu", "cuda"]
Engine = Literal["auto", "torch", "onnx"]
Scenes = Annotated[str, typer.Option("--scenes", help="Shell patterns of scenes, with commas; one that begins with ! leaves out: '*,!sf'.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model-option", help="For module:function and hub:, KEY=VALUE: its keywords, height, width, mean, std.", show_default=False
    ),
]


@app.command()
def extract(
    data: Data,
    model: Annotated[
        str, typer.Option(help="A model's folder, an .onnx file, module:function, or hub:/path/to/folder:entry.", show_default=False)
    ],
    out: Out,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    scenes: Scenes = "*",
    engine: Annotated[Engine, typer.Option(help="What computes; auto: ONNX Runtime on a processor, where it pays.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where torch computes; auto: on a CUDA device if there is one.")] = "auto",
    model_option: ModelOption = None,
    batch: Annotated[int, typer.Option(help="Images at once.")] = 32,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored vectors.")] = "float32",
    damaged: Annotated[
        Literal["stop", "skip"], typer.Option(help="Images that are missing or do not decode: an error, or left out and said.")
    ] = "stop",
    overwrite: Overwrite = False,
) -> None:
    """Describe every image: OUT/<scene>/database and OUT/<scene>/queries; resumes where it was killed."""
    from covis.config import parse_options
    from covis.extraction import extract as describe

    found = chosen_scenes(read_scenes(data, layout, split, read), scenes)
    sides = [(scene, side) for scene in found for side in (("database",) if scene.training else ("database", "queries"))]
    count = sum(len(getattr(scene, side)) for scene, side in sides)
    describer = opened(model, engine=engine, device=device, count=count, options=parse_options(model_option or ()))
    for scene, side in sides:
        folder = out / scene.name / side
        describe(describer, getattr(scene, side), out=folder, batch=batch, dtype=dtype, damaged=damaged, progress=True, overwrite=overwrite)
        print_paths(folder)


def chosen_scenes(scenes: list[Scene], pattern: str) -> list[Scene]:
    """Those whose names fit; an error where none does."""
    if pattern == "*":
        return scenes
    from covis.lookup import chosen

    fitting = [scene for scene in scenes if chosen(scene.name, pattern)]
    if not fitting:
        raise InvalidInputError(f"A scene must fit --scenes {pattern!r}; found {', '.join(scene.name for scene in scenes)}.")
    return fitting


def opened(spec: str, *, engine: Engine, device: Device, count: int, options: dict[str, Any]) -> Describer:
    """The describer, on the device that was asked for."""
    import torch

    from covis.models.opening import open_model

    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError("--device cuda must find a CUDA device; torch sees none. Use --device cpu.")
    if device == "cuda" and engine == "onnx":
        raise InvalidInputError("--engine onnx computes on the processor; got --device cuda. Use --engine torch.")
    describer = open_model(spec, engine="torch" if device == "cuda" and engine == "auto" else engine, count=count, options=options)
    if isinstance(describer, torch.nn.Module) and device != "cpu" and torch.cuda.is_available():
        describer.to("cuda")
    elif device == "cuda":
        raise InvalidInputError(f"--device cuda is for networks of torch; {spec} is computed by {describer.engine}.")
    return describer
