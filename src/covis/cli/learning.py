"""Commands that need a network: demo, run, train, extract; and those on what it describes: whiten, index, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from covis.cli.shell import (
    Again,
    AsJson,
    Data,
    Layout,
    Out,
    Overwrite,
    Read,
    Split,
    Weights,
    app,
    plain_scores,
    print_json,
    print_paths,
    read_scenes,
    say,
)
from covis.errors import InvalidInputError


@app.command()
def demo(out: Out = Path("demo"), seed: Annotated[int, typer.Option(help="Of the towns.")] = 7, overwrite: Again = False) -> None:
    """Towns are built, photographed, labelled, learned, whitened and scored, in minutes: a table and a picture (extra world)."""
    from covis.neighbours import cores
    from covis.town import write_town

    say(f"photographing towns into {out / 'town'}")
    write_town(out / "town", layout="7scenes", preset="demo", seed=seed, workers=cores(), progress=say)
    from covis.chain import run as run_chain  # after the towns: where their extra is missing, that is said at once

    result = run_chain("town", out / "town", out=out / "run", overwrite=overwrite, say=say)
    say(f"\n{result}\n")
    print_paths(result.out / "table.txt", result.picture)


@app.command("run")
def run_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (covis ls recipes) or a TOML file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="The data set's folder.", show_default=False)],
    out: Out,
    weights: Weights = None,
    layout: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    overwrite: Again = False,
    as_json: AsJson = False,
) -> None:
    """The whole chain on your own data, resumable: one table and one picture at the end."""
    from covis.chain import run as run_chain

    result = run_chain(recipe, data, out=out, weights=weights, layout=layout, overwrite=overwrite, say=say)
    say(f"\n{result}\n")
    if as_json:
        print_json(
            {
                "table": str(result.out / "table.txt"),
                "picture": str(result.picture) if result.picture else None,
                "scores": {arm: plain_scores(scores) for arm, scores in result.scores.items()},
            }
        )
    else:
        print_paths(result.out / "table.txt", result.picture)


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (covis ls recipes) or a TOML file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="The data set's folder.", show_default=False)],
    out: Out,
    labels: Annotated[Path | None, typer.Option(help="Labels of the training scenes, in place of the recipe's rule.")] = None,
    weights: Weights = None,
    layout: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    overwrite: Again = False,
) -> None:
    """Train a network on the training split; resumes where it was killed."""
    from covis.chain import train as train_chain

    train_chain(recipe, data, out=out, labels=labels, weights=weights, layout=layout, overwrite=overwrite, say=say)
    print_paths(out / "train" / "model")


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


@app.command()
def whiten(
    descriptors: Annotated[Path, typer.Argument(help="A folder of extract: <scene>/database and <scene>/queries.", show_default=False)],
    out: Out,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            help="Dimensions to keep, as often as needed: several go to OUT/<dim>/; default: all that carry variance.", show_default=False
        ),
    ] = None,
    power: Annotated[float, typer.Option(help="1: unit variance, 0.5: its square root, 0: a rotation alone.")] = 1.0,
    kind: Annotated[Literal["pca", "zca"], typer.Option(help="zca turns back and keeps all dimensions.")] = "pca",
    shrinkage: Annotated[str, typer.Option(help="A share in [0, 1] towards equal variances, or ledoit-wolf, for few descriptors.")] = "0",
    fit: Annotated[
        Path | None,
        typer.Option(
            help="Fit on the databases of these descriptors (training images), in place of those that are whitened.", show_default=False
        ),
    ] = None,
    emulate_float16: Annotated[bool, typer.Option("--emulate-float16", help="Round vectors as the reference's script does.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Whiten descriptors, fitted on the databases of all scenes: the same folders, and whitening.npz."""
    from covis.config import parse_options
    from covis.descriptors import Descriptors
    from covis.files import check_absent
    from covis.whitening import fit_whitening

    sides = [side for scene in _described(descriptors) for side in sorted(scene.iterdir()) if (side / "header.json").is_file()]
    dims = list(dict.fromkeys(dim or [0]))
    if len(dims) > 1 and min(dims) < 1:
        raise InvalidInputError(f"Several --dim must each be at least 1 (0 means all, and stands alone); got {', '.join(map(str, dims))}.")
    folders = [out] if len(dims) == 1 else [out / str(one) for one in dims]
    for made in (out / "whitening.npz", *(folder / side.relative_to(descriptors) for folder in folders for side in sides)):
        check_absent(made, overwrite=overwrite)
    if out.resolve() == descriptors.resolve():
        raise InvalidInputError(f"Whitened descriptors must go to another folder than those they are made of; got {out} for both.")
    databases = [Descriptors.load(scene / "database") for scene in _described(fit or descriptors)]
    fitted = fit_whitening(
        databases,
        dim=0 if 0 in dims else max(dims),
        power=power,
        kind=kind,
        shrinkage=parse_options([f"shrinkage={shrinkage}"])["shrinkage"],
        emulate_float16=emulate_float16,
        fitted_on=f"database of {fit}" if fit else "database",
    )
    if len(dims) > 1 and max(dims) > fitted.dim:
        raise InvalidInputError(f"These descriptors carry {fitted.dim} dimensions; asked for {max(dims)}. Leave out those beyond.")
    for side in sides:
        whole = Descriptors.load(side)
        cut = [fitted(whole)] if len(dims) == 1 else fitted.each(whole, [one or fitted.dim for one in dims])
        for folder, found in zip(folders, cut, strict=True):
            print_paths(found.save(folder / side.relative_to(descriptors), overwrite=overwrite))
    fitted.save(out / "whitening.npz", overwrite=overwrite)
    say(f"fitted on the {fitted.history['fitted_on']}: {fitted.history['count']} descriptors, {fitted.dim} dimensions, power {power:g}")
    print_paths(out / "whitening.npz")


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


def _described(folder: Path) -> list[Path]:
    scenes = sorted(path.parent.parent for path in folder.glob("*/database/header.json"))
    if not scenes:
        raise InvalidInputError(f"{folder} must hold <scene>/database, as covis extract writes it; it does not.")
    return scenes
