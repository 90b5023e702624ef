"""The command line: one subcommand a verb; it parses, calls, prints.

Paths written go to stdout, talk and progress to stderr. Everything heavy is imported inside the commands, so that
`--help` answers at once. Defaults are those of the functions; a test holds the two together.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.errors import CovisError, CovisWarning, InvalidInputError

INTERRUPTED = 130
"""The exit code of a process that was interrupted from the keyboard."""

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Visual place recognition with graded similarity: label, train, describe, search, score.",
)

Data = Annotated[Path, typer.Argument(help="The data set's folder or file.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where to write.", show_default=False)]
Layout = Annotated[str, typer.Option(help="The data's layout (covis ls layouts); auto: guessed where it is plain, and said.")]
Split = Annotated[str, typer.Option(help="The data's split: train or test.")]
Weights = Annotated[Path | None, typer.Option(help="A local file with the backbone's weights.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Again = Annotated[bool, typer.Option("--overwrite", help="Do steps again whose settings differ.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.command()
def demo(out: Out = Path("demo"), seed: Annotated[int, typer.Option(help="Of the streets.")] = 7, overwrite: Again = False) -> None:
    """A street is built, labelled, learned, whitened and scored, in minutes: a table and a picture."""
    from covis.chain import run as run_chain
    from covis.world import write_streets

    say(f"photographing streets into {out / 'streets'}")
    write_streets(out / "streets", preset="demo", seed=seed, workers=_cores(), progress=say)
    result = run_chain("street", out / "streets", out=out / "run", overwrite=overwrite, say=say)
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
                "picture": str(result.picture),
                "scores": {arm: _plain(scores) for arm, scores in result.scores.items()},
            }
        )
    else:
        print_paths(result.out / "table.txt", result.picture)


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="Where to write the streets.", show_default=False)],
    preset: Annotated[str, typer.Option(help="How large (covis ls worlds).")] = "demo",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Photograph synthetic streets, with depth and poses, in the 7-Scenes layout."""
    from covis.world import write_streets

    print_paths(*write_streets(out, preset=preset, seed=seed, workers=workers, progress=say))


@app.command()
def label(
    data: Data,
    out: Annotated[Path, typer.Option(help="A .npz file for a single scene, a folder for several.", show_default=False)],
    rule: Annotated[str, typer.Option(help="The rule (covis ls rules).")] = "surface",
    layout: Layout = "auto",
    split: Split = "test",
    method: Annotated[str, typer.Option(help="surface: reprojection, or voxels.")] = "reprojection",
    nearest: Annotated[float, typer.Option(help="Least depth that counts, metres.")] = 0.1,
    reach: Annotated[float, typer.Option(help="Largest depth that counts, metres: 6 for a room, 30 for a street.")] = 6.0,
    tolerance: Annotated[float, typer.Option(help="How far two depths of one surface may differ, metres.")] = 0.05,
    relative_tolerance: Annotated[float, typer.Option(help="Added to it for each metre of depth.")] = 0.01,
    voxel: Annotated[float, typer.Option(help="Edge of a voxel, metres.")] = 0.1,
    step: Annotated[int | None, typer.Option(help="Pixels between two samples of a depth map; by default 8, with voxels 2.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Grade how much each query and each database image see of the same place, with a summary."""
    from covis.files import check_absent
    from covis.labelling import LABEL_RULES
    from covis.lookup import resolve

    scenes = _read(data, layout, split)
    single = len(scenes) == 1 and out.suffix == ".npz"
    files = [out] if single else [out / f"{scene.name}.npz" for scene in scenes]
    for file in files:
        check_absent(file, overwrite=overwrite)
    function = resolve(rule, LABEL_RULES, what="label rule")
    options = {
        "method": method,
        "nearest": nearest,
        "reach": reach,
        "tolerance": tolerance,
        "relative_tolerance": relative_tolerance,
        "voxel": voxel,
        "step": step,
    }
    summaries = {}
    for scene, file in zip(scenes, files, strict=True):
        labels = function(scene.queries, scene.database, **(options if rule == "surface" else {}))
        labels.save(file, overwrite=overwrite)
        summary = labels.summary()
        summaries[str(file)] = {**vars(summary), "parameters": dict(labels.parameters)}
        say(f"{scene.name}: {summary}\n  {labels.rule}: " + ", ".join(f"{key} {value}" for key, value in labels.parameters.items()))
        if summary.warning:
            say(f"warning: {summary.warning}")
    print_json(summaries) if as_json else print_paths(*files)


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
    batch: Annotated[int, typer.Option(help="Images at once.")] = 32,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored vectors.")] = "float32",
    overwrite: Overwrite = False,
) -> None:
    """Describe every image: OUT/<scene>/database and OUT/<scene>/queries; resumes where it was killed."""
    from covis.extraction import extract as describe
    from covis.models.checkpoints import load

    network = load(model)
    for scene in _read(data, layout, split):
        for side in ("database",) if scene.training else ("database", "queries"):
            describe(
                network, getattr(scene, side), out=out / scene.name / side, batch=batch, dtype=dtype, progress=True, overwrite=overwrite
            )
            print_paths(out / scene.name / side)


@app.command()
def whiten(
    descriptors: Annotated[Path, typer.Argument(help="A folder of extract: <scene>/database and <scene>/queries.", show_default=False)],
    out: Out,
    dim: Annotated[int, typer.Option(help="Dimensions to keep; 0: all that carry variance.")] = 0,
    power: Annotated[float, typer.Option(help="1: unit variance, 0.5: its square root, 0: a rotation alone.")] = 1.0,
    overwrite: Overwrite = False,
) -> None:
    """Whiten descriptors by PCA fitted on the databases of all scenes: the same folders, and whitening.npz."""
    from covis.descriptors import Descriptors
    from covis.files import check_absent
    from covis.whitening import fit_whitening

    scenes = _described(descriptors)
    sides = [side for scene in scenes for side in sorted(path for path in scene.iterdir() if (path / "header.json").is_file())]
    for made in (out / "whitening.npz", *(out / side.relative_to(descriptors) for side in sides)):
        check_absent(made, overwrite=overwrite)
    if out.resolve() == descriptors.resolve():
        raise InvalidInputError(f"Whitened descriptors must go to another folder than those they are made of; got {out} for both.")
    databases = [Descriptors.load(scene / "database") for scene in scenes]
    fitted = fit_whitening(databases, dim=dim, power=power)
    for side in sides:
        print_paths(fitted(Descriptors.load(side)).save(out / side.relative_to(descriptors), overwrite=overwrite))
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


@app.command("evaluate")
def evaluate_command(
    data: Data,
    labels: Annotated[Path, typer.Option(help="Labels: a file, or a folder with <scene>.npz.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The scores, JSON.", show_default=False)],
    rankings: Annotated[Path | None, typer.Option(help="Rankings: a file, or a folder with <scene>.npz.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="A prediction text, for a single scene.")] = None,
    descriptors: Annotated[Path | None, typer.Option(help="A folder of extract or whiten.")] = None,
    model: Annotated[Path | None, typer.Option(help="A model's folder: describes and searches first.")] = None,
    protocol: Annotated[str, typer.Option(help="The protocol (covis ls protocols), or a TOML file.")] = "graded/0.5",
    k: Annotated[int, typer.Option(help="How many to search for, with --descriptors or --model.")] = 25,
    samples: Annotated[int, typer.Option(help="Bootstrap samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    layout: Layout = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score rankings, predictions, descriptors or a model under a named protocol, with intervals."""
    from covis.chain import load_labels
    from covis.evaluation import evaluate
    from covis.files import check_absent

    check_absent(out, overwrite=overwrite)
    scenes = _read(data, layout, "test")
    graded = load_labels(labels, scenes)
    ranked, described = _ranked(scenes, {"rankings": rankings, "predictions": predictions, "descriptors": descriptors, "model": model}, k=k)
    scores = evaluate(ranked, scenes, labels=graded, protocol=protocol, descriptors=described, samples=samples, seed=seed)
    scores.save(out, overwrite=overwrite)
    say(f"{scores}\n")
    print_json({"scores": str(out), **_plain(scores)}) if as_json else print_paths(out)


@app.command()
def ls(
    what: Annotated[
        str,
        typer.Argument(
            help="aggregators, indexes, layouts, losses, metrics, protocols, recipes, rules, samplers or worlds.", show_default=False
        ),
    ],
) -> None:
    """What can be named: recipes, protocols, layouts, rules and so on."""
    from covis.config import expected_numbers, load_recipe, recipe_names
    from covis.lookup import resolve

    tables: dict[str, tuple[str, str]] = {
        "aggregators": ("covis.models.aggregators", "AGGREGATORS"),
        "indexes": ("covis.indexes", "INDEXES"),
        "layouts": ("covis.datasets", "READERS"),
        "losses": ("covis.losses", "LOSSES"),
        "metrics": ("covis.metrics", "METRICS"),
        "protocols": ("covis.protocols", "PROTOCOLS"),
        "recipes": ("covis.config", "recipe_names"),
        "rules": ("covis.labelling", "LABEL_RULES"),
        "samplers": ("covis.pairs", "SAMPLERS"),
        "worlds": ("covis.world", "PRESETS"),
    }
    module, name = resolve(what, tables, what="list")
    if what == "recipes":
        for recipe in recipe_names():
            typer.echo(f"{recipe:<16} {load_recipe(recipe).description}")
            if numbers := expected_numbers(recipe):
                before, after = (numbers[arm]["recall@1"][0] for arm in ("untrained", "trained"))
                typer.echo(f"{'':<16} measured: recall@1 {before} before training, {after} trained ({numbers['protocol']})")
        return
    import importlib

    for entry, value in sorted(getattr(importlib.import_module(module), name).items()):
        typer.echo(f"{entry:<16} {_first_line(value)}".rstrip())


def main() -> None:
    """The entry point: an error of ours is one line on stderr and exit code 1, never a traceback."""
    warnings.simplefilter("always", CovisWarning)
    warnings.showwarning = _show_warning
    try:
        app()
    except CovisError as error:
        print(f"covis: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("covis: interrupted. world, extract, train, run and demo go on from here when they are started again.", file=sys.stderr)
        raise


def say(text: str) -> None:
    """A line of talk, to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_paths(*paths: Path) -> None:
    """The paths written, to stdout, one a line."""
    for path in paths:
        print(path)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, to stdout."""
    print(json.dumps(value, indent=2))


def _read(data: Path, layout: str, split: str) -> list[Any]:
    from covis.datasets import guess_layout, read

    if layout == "auto":
        layout = guess_layout(data)
        say(f"{data}: read as {layout}")
    return read(layout, data, split=split)


def _described(folder: Path) -> list[Path]:
    scenes = sorted(path.parent.parent for path in folder.glob("*/database/header.json"))
    if not scenes:
        raise InvalidInputError(f"{folder} must hold <scene>/database, as covis extract writes it; it does not.")
    return scenes


def _ranked(scenes: Sequence[Any], sources: dict[str, Path | None], *, k: int) -> tuple[list[Any], list[Any] | None]:
    from covis.descriptors import Descriptors
    from covis.indexes import index
    from covis.rankings import Rankings

    given = {name: path for name, path in sources.items() if path is not None}
    if len(given) != 1:
        raise InvalidInputError(
            f"Exactly one of --rankings, --predictions, --descriptors and --model must be given; got {', '.join(given) or 'none'}."
        )
    (source, path), *_ = given.items()
    if source == "rankings":
        files = [path] if path.is_file() and len(scenes) == 1 else [path / f"{scene.name}.npz" for scene in scenes]
        return [Rankings.load(file) for file in files], None
    if source == "predictions":
        if len(scenes) != 1:
            raise InvalidInputError(f"--predictions must be for a single scene; the data holds {len(scenes)}. Point to one scene's folder.")
        return [_in_order(Rankings.load_text(path, database_names=scenes[0].database.names), scenes[0].queries.names, path)], None
    if source == "descriptors":
        described = [
            (Descriptors.load(path / scene.name / "queries"), Descriptors.load(path / scene.name / "database")) for scene in scenes
        ]
    else:
        from covis.extraction import extract as describe
        from covis.models.checkpoints import load

        network = load(path)
        described = [(describe(network, scene.queries), describe(network, scene.database)) for scene in scenes]
    return [index(database).search(queries, k=k) for queries, database in described], described


def _in_order(found: Any, names: tuple[str, ...], path: Path) -> Any:
    """Predictions come in any order of queries; bring them into the scene's."""
    from dataclasses import replace

    place = {name: row for row, name in enumerate(found.query_names)}
    missing, unknown = [name for name in names if name not in place], [name for name in place if name not in set(names)]
    if missing or unknown:
        raise InvalidInputError(
            f"{path} must hold a line for every query and no other; "
            f"{f'{missing[0]!r} has none' if missing else f'{unknown[0]!r} is no query'}."
        )
    order = [place[name] for name in names]
    return replace(found, rows=found.rows[order], distances=found.distances[order], query_names=names)


def _plain(scores: Any) -> dict[str, Any]:
    return {
        "protocol": scores.protocol.name,
        "metrics": {name: vars(metric) for name, metric in scores.metrics.items()},
        "interval": dict(scores.interval),
    }


def _first_line(value: object) -> str:
    text = (value.__doc__ or "").strip().splitlines() if callable(value) else [str(value)]
    return text[0] if text else ""


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, CovisWarning):
        say(f"warning: {message}")


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
