"""Commands on indexes: index and search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covis.cli.shell import Out, Overwrite, app, print_paths


@app.command("index")
def index_command(
    descriptors: Annotated[list[Path], typer.Argument(help="One or more folders of descriptors.", show_default=False)],
    out: Out,
    kind: Annotated[str, typer.Option(help="The index (covis ls indexes).")] = "exact",
    overwrite: Overwrite = False,
) -> None:
    """Make an index of descriptors."""
    from covis.descriptors import Descriptors
    from covis.indexes import index as make

    print_paths(make([Descriptors.load(path) for path in descriptors], kind=kind).save(out, overwrite=overwrite))


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="An index's folder.", show_default=False)],
    queries: Annotated[Path, typer.Argument(help="A folder of descriptors.", show_default=False)],
    out: Annotated[Path, typer.Option(help=".npz, or .txt for the prediction text of MSLS.", show_default=False)],
    k: Annotated[int, typer.Option(help="How many to find for each query.")] = 25,
    overwrite: Overwrite = False,
) -> None:
    """Find the nearest database images of each query."""
    from covis.descriptors import Descriptors
    from covis.files import check_absent
    from covis.indexes import load_index

    check_absent(out, overwrite=overwrite)
    print_paths(load_index(index).search(Descriptors.load(queries), k=k).save(out, overwrite=overwrite))
