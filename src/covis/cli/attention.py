"""The command that draws where a descriptor looks: attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covis.cli.describing import Engine, ModelOption, opened
from covis.cli.shell import Overwrite, app, print_paths, say
from covis.errors import InvalidInputError

_METHODS = "activation, gradient or occlusion, as often as wanted: a column each; not given: activation."


@app.command()
def attention(
    images: Annotated[list[Path], typer.Argument(help="Image files, or a folder of them.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="A model's folder, an .onnx file, module:function, or hub:/path/to/folder:entry.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The picture: .png or .jpg.")] = Path("attention.png"),
    method: Annotated[list[str] | None, typer.Option(help=_METHODS, show_default=False)] = None,
    pair: Annotated[
        bool, typer.Option("--pair", help="Two images a row, and what the two share; images 1 and 2 are the first pair.")
    ] = False,
    width: Annotated[int, typer.Option(help="Pixels of each photograph in the picture.")] = 240,
    limit: Annotated[int, typer.Option(help="Images at most that are taken of a folder, in the order of their names.")] = 12,
    title: Annotated[str, typer.Option(help="The first line; not given: what is drawn.", show_default=False)] = "",
    maps: Annotated[
        Path | None, typer.Option(help="A folder for the maps as .npy files, float32 in [0, 1], of the network's size.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Of gradient: the module whose output is taken; not given: the last that counts.")
    ] = None,
    patch: Annotated[int | None, typer.Option(help="Of occlusion: pixels of the square; not given: a sixth of the shorter side.")] = None,
    stride: Annotated[int | None, typer.Option(help="Of occlusion: pixels between two squares; not given: half a square.")] = None,
    batch: Annotated[int, typer.Option(help="Of occlusion: images at once.")] = 32,
    engine: Annotated[Engine, typer.Option(help="What computes; onnx for occlusion alone, the other methods need torch.")] = "auto",
    model_option: ModelOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw where in photographs a model's descriptor looks, or what two photographs share."""
    from covis.config import parse_options
    from covis.files import check_absent
    from covis.reports.overlays import attention_sheet

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InvalidInputError(f"The picture must be called .png or .jpg; got --out {out}.")
    if batch < 1:
        raise InvalidInputError(f"--batch must be at least 1; got {batch}.")
    for path in (out, maps):
        if path is not None:
            check_absent(path, overwrite=overwrite)
    files = _image_files(images, limit)
    methods = tuple(method or ("activation",))
    options = {"layer": layer, "patch": patch, "stride": stride, "batch": batch}
    inside = engine == "auto" and set(methods) != {"occlusion"}  # the other methods look into the network, which is torch's to show
    describer = opened(
        model, engine="torch" if inside else engine, device="auto", count=len(files), options=parse_options(model_option or ())
    )
    sheet = attention_sheet(
        describer,
        files,
        out=out,
        methods=methods,  # type: ignore[arg-type] # the function says in words which it takes
        pair=pair,
        width=width,
        title=title,
        maps=maps,
        **options,
    )
    print_paths(sheet, maps)


def _image_files(given: list[Path], limit: int) -> list[Path]:
    """The files; a folder gives those in it, by name."""
    from covis.datasets.photographs import SUFFIXES

    if limit < 1:
        raise InvalidInputError(f"--limit must be at least 1; got {limit}.")
    found: list[Path] = []
    for path in given:
        inside = (
            sorted(file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES) and file.name[0] != ".")
            if path.is_dir()
            else [path]
        )
        if len(inside) > limit:
            say(f"{path}: the first {limit} of {len(inside)} images (--limit)")
        found += inside[:limit]
    if not found:
        raise InvalidInputError(f"There must be image files in {', '.join(map(str, given))}; there is none.")
    return found
