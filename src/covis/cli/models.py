"""The commands on models that neither train nor describe: checkpoints of other code made into ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covis.cli.data import convert
from covis.cli.shell import Out, Overwrite, print_paths


@convert.command("gcl-checkpoint")
def convert_gcl_checkpoint(
    file: Annotated[Path, typer.Argument(help="The .pth file of GCL's reference implementation.", show_default=False)],
    backbone: Annotated[str, typer.Option(help="Which network it is of (covis ls backbones).", show_default=False)],
    aggregator: Annotated[str, typer.Option(help="gem, average or max; in the reference GeM, avg, max.", show_default=False)],
    out: Out,
    normalize: Annotated[bool, typer.Option(help="Divide descriptors by their L2 norm, as the reference does by default.")] = True,
    height: Annotated[int, typer.Option(help="Pixels of the network's input.")] = 480,
    width: Annotated[int, typer.Option(help="Pixels of the network's input.")] = 640,
    resize: Annotated[str, typer.Option(help="pil: both sides; pil-crop: the shorter side, then the centre (squares).")] = "pil",
    overwrite: Overwrite = False,
) -> None:
    """Make a model of a checkpoint of GCL's reference implementation; its descriptors are the reference's."""
    from covis.files import check_absent
    from covis.models import checkpoints, gcl_checkpoints

    check_absent(out, overwrite=overwrite)
    model = gcl_checkpoints.convert_gcl_checkpoint(
        file,
        backbone=backbone,
        aggregator=aggregator,
        normalize=normalize,
        height=height,
        width=width,
        resize=resize,  # type: ignore[arg-type] # the function says in words which it takes
    )
    print_paths(checkpoints.save(model, out, overwrite=overwrite))
