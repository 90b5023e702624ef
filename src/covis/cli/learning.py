"""Commands that need a network to learn or to be shown: demo, run, train, distill."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covis.cli.shell import Again, AsJson, Maps, Out, Weights, app, plain_scores, print_json, print_paths, say


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
    maps: Maps = None,
    overwrite: Again = False,
    as_json: AsJson = False,
) -> None:
    """The whole chain on your own data, resumable: one table and one picture at the end."""
    from covis.chain import run as run_chain

    result = run_chain(recipe, data, out=out, weights=weights, layout=layout, maps=maps, overwrite=overwrite, say=say)
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


@app.command("distill")
def distill_command(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe with a table structure (structvpr-town), or a TOML file.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="The data set's folder.", show_default=False)],
    out: Out,
    labels: Annotated[Path | None, typer.Option(help="Labels of the training scenes, in place of the recipe's rule.")] = None,
    weights: Weights = None,
    layout: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    maps: Maps = None,
    overwrite: Again = False,
) -> None:
    """Let a network learn from label maps what photographs do not show: two branches, ranked pairs, a student; resumes."""
    from covis.chain import distill

    result = distill(recipe, data, out=out, labels=labels, weights=weights, layout=layout, maps=maps, overwrite=overwrite, say=say)
    say(f"\n{result}\n")
    print_paths(out / "train" / "model", *result.files)


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (covis ls recipes) or a TOML file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="The data set's folder.", show_default=False)],
    out: Out,
    labels: Annotated[Path | None, typer.Option(help="Labels of the training scenes, in place of the recipe's rule.")] = None,
    weights: Weights = None,
    layout: Annotated[str | None, typer.Option(help="In place of the recipe's.")] = None,
    maps: Maps = None,
    overwrite: Again = False,
) -> None:
    """Train a network on the training split; resumes where it was killed."""
    from covis.chain import train as train_chain

    train_chain(recipe, data, out=out, labels=labels, weights=weights, layout=layout, maps=maps, overwrite=overwrite, say=say)
    print_paths(out / "train" / "model")
