"""Commands that judge: evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, plain_scores, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError


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
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score rankings, predictions, descriptors or a model under a named protocol, with intervals."""
    from covis.chain import load_labels
    from covis.evaluation import evaluate
    from covis.files import check_absent

    check_absent(out, overwrite=overwrite)
    scenes = read_scenes(data, layout, split, read)
    graded = load_labels(labels, scenes)
    ranked, described = _ranked(scenes, {"rankings": rankings, "predictions": predictions, "descriptors": descriptors, "model": model}, k=k)
    scores = evaluate(ranked, scenes, labels=graded, protocol=protocol, descriptors=described, samples=samples, seed=seed)
    scores.save(out, overwrite=overwrite)
    say(f"{scores}\n")
    print_json({"scores": str(out), **plain_scores(scores)}) if as_json else print_paths(out)


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
