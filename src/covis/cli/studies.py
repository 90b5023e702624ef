"""Commands that compare trainings: sweep, and latent for the space that one left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from covis.cli.shell import (
    AsJson,
    Data,
    Layout,
    Maps,
    Out,
    Overwrite,
    Read,
    Split,
    Weights,
    app,
    print_json,
    print_paths,
    read_scenes,
    say,
)
from covis.errors import InvalidInputError


@app.command("sweep")
def sweep_command(
    study: Annotated[str, typer.Argument(help="A shipped study (covis ls studies) or a TOML file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="The data set's folder.", show_default=False)],
    out: Out,
    seeds: Annotated[str | None, typer.Option(help="Seeds of the training, as 0,1,2, in place of the study's.", show_default=False)] = None,
    only: Annotated[list[str] | None, typer.Option(help="An arm to run, as often as needed; default: all.", show_default=False)] = None,
    weights: Weights = None,
    layout: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    maps: Maps = None,
    recipe: Annotated[str | None, typer.Option(help="Below all arms, in place of the study's.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run cells again whose settings differ.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the arms of a study with several seeds and compare them; resumable; exit code 1 where a run failed."""
    from covis.sweeps import sweep

    result = sweep(
        study,
        data,
        out=out,
        weights=weights,
        layout=layout,
        maps=maps,
        recipe=recipe,
        seeds=_seeds(seeds),
        only=only or None,
        overwrite=overwrite,
        say=say,
    )
    say(f"\n{result}\n")
    if as_json:
        print_json(result.as_dict())
    else:
        print_paths(*result.files)
    if result.failed:
        raise typer.Exit(1)


@app.command("latent")
def latent_command(
    data: Data,
    descriptors: Annotated[list[Path], typer.Option(help="A folder of extract or whiten; several: a panel each.", show_default=False)],
    labels: Annotated[Path, typer.Option(help="Graded labels: a file, or a folder with <scene>.npz.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The PNG.", show_default=False)],
    margin: Annotated[
        float | None, typer.Option(help="Of GCL's loss: also draws its target, margin x (1 - similarity).", show_default=False)
    ] = None,
    bins: Annotated[int, typer.Option(help="Of similarity, equally wide.")] = 10,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Draw how far apart descriptors lie against how much their images share, with the rank correlation of the two."""
    from covis.datasets.label_files import load_labels
    from covis.files import check_absent
    from covis.latent import relate
    from covis.reports.plots import latent_plot

    if out.suffix.lower() != ".png":
        raise InvalidInputError(f"--out must be a picture ending in .png; got {out}. No other format is written.")
    check_absent(out, overwrite=overwrite)
    if margin is not None and not margin > 0:
        raise InvalidInputError(f"--margin must be above 0; got {margin}.")
    scenes = read_scenes(data, layout, split, read)
    graded = load_labels(labels, scenes)
    alone = len({folder.name for folder in descriptors}) == len(descriptors)
    names = [folder.name if alone else str(folder) for folder in descriptors]
    found = {}
    for name, folder in zip(names, descriptors, strict=True):
        found[name] = relate([_sides(folder, scene) for scene in scenes], graded, bins=bins)
        say(f"{name}\n{found[name]}\n")
    latent_plot(found, out, margins=dict.fromkeys(found, margin))
    print_json({"picture": str(out), "relations": {name: one.as_dict() for name, one in found.items()}}) if as_json else print_paths(out)


def _sides(folder: Path, scene: Any) -> tuple[Any, Any]:
    """(queries, database) of a scene; of a training scene the same twice."""
    from covis.descriptors import Descriptors

    database = Descriptors.load(folder / scene.name / "database")
    return (database if scene.training else Descriptors.load(folder / scene.name / "queries")), database


def _seeds(text: str | None) -> list[int] | None:
    """Seeds from "0,1,2"."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"--seeds must be whole numbers with commas between, as 0,1,2; got {text!r}.") from None
