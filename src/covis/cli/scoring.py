"""Commands that judge: evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, plain_scores, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError


@app.command("evaluate")
def evaluate_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="The scores, JSON.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(help="Graded labels: a file, or a folder with <scene>.npz; for protocols by similarity and graded metrics."),
    ] = None,
    rankings: Annotated[Path | None, typer.Option(help="Rankings: a file, or a folder with <scene>.npz.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="A prediction text (MSLS), with the queries of all scenes.")] = None,
    descriptors: Annotated[Path | None, typer.Option(help="A folder of extract or whiten.")] = None,
    model: Annotated[Path | None, typer.Option(help="A model's folder: describes and searches first.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="The protocol (covis ls protocols), or a TOML file; default: graded/0.5 with labels, else radius/25.", show_default=False
        ),
    ] = None,
    unknown: Annotated[
        Literal["stop", "strict_file", "strip_unknown"] | None,
        typer.Option(
            help="Predictions that name what the data does not hold; default: strict_file under MSLS's protocols, else stop.",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="How many to search for, with --descriptors or --model.")] = 25,
    samples: Annotated[int, typer.Option(help="Bootstrap samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    geojson: Annotated[Path | None, typer.Option(help="Also write queries, database and best matches as GeoJSON.")] = None,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score predictions, rankings, descriptors or a model under a named protocol, with intervals."""
    from covis.datasets.label_files import load_labels
    from covis.evaluation import as_scored, default_protocol, evaluate
    from covis.files import check_absent
    from covis.protocols import protocol as named
    from covis.reports.geojson import write_geojson

    for file in [out] if geojson is None else [out, geojson]:
        check_absent(file, overwrite=overwrite)
    if geojson is not None and geojson.absolute() == out.absolute():
        raise InvalidInputError(f"The scores and the map must be two files; --out and --geojson are both {out}.")
    scenes = read_scenes(data, layout, split, read)
    if geojson is not None:
        _check_map(scenes)
    graded = None if labels is None else load_labels(labels, scenes)
    rule = named(protocol or default_protocol(graded))
    sources = {"rankings": rankings, "predictions": predictions, "descriptors": descriptors, "model": model}
    ranked, described = _ranked(scenes, sources, graded, rule=rule, k=k)
    scores = evaluate(ranked, scenes, labels=graded, protocol=rule, descriptors=described, unknown=unknown, samples=samples, seed=seed)
    written = [out]
    if geojson is not None:
        found = as_scored(ranked, scenes, labels=graded, protocol=rule, unknown=unknown)
        written.append(write_geojson(scenes, geojson, rankings=found, scores=scores, overwrite=overwrite))
    scores.save(out, overwrite=overwrite)
    say(f"{scores}\n")
    print_json({"scores": str(out), **plain_scores(scores)}) if as_json else print_paths(*written)


@app.command("compare")
def compare_command(
    a: Annotated[Path, typer.Argument(help="Scores of the baseline, as evaluate writes them.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Scores of the other, of the same queries under the same protocol.", show_default=False)],
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric to compare, as often as needed; default: all.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the comparison, JSON, with the queries won and lost.")] = None,
    samples: Annotated[int, typer.Option(help="Bootstrap samples, and random sign flips.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of both.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare two scores query by query: differences with intervals, p-values, wins and losses."""
    from covis.comparison import compare
    from covis.files import check_absent
    from covis.scores import Scores

    if out is not None:
        check_absent(out, overwrite=overwrite)
    compared = compare(Scores.load(a), Scores.load(b), metrics=metric or None, samples=samples, seed=seed)
    if as_json:
        print_json(compared.as_dict())
    else:
        typer.echo(str(compared))
    if out is not None:
        compared.save(out, overwrite=overwrite)
        say(f"written to {out}")


def _ranked(
    scenes: Sequence[Any], sources: dict[str, Path | None], graded: Sequence[Any] | None, *, rule: Any, k: int
) -> tuple[Any, list[Any] | None]:
    """What the one given source holds: rankings or predictions, and descriptors where there are any."""
    from covis.descriptors import Descriptors
    from covis.predictions import Predictions
    from covis.rankings import Rankings

    given = {name: path for name, path in sources.items() if path is not None}
    if len(given) != 1:
        raise InvalidInputError(
            f"Exactly one of --rankings, --predictions, --descriptors and --model must be given; got {', '.join(given) or 'none'}."
        )
    (source, path), *_ = given.items()
    if source == "predictions" or path.suffix == ".txt":
        return Predictions.read(path), None
    if source == "rankings":
        return [Rankings.load(file) for file in ([path] if path.is_file() else [path / f"{scene.name}.npz" for scene in scenes])], None
    if source == "descriptors":
        described = [
            tuple(Descriptors.load(path / scene.name / side) for side in (("database",) * 2 if scene.training else ("queries", "database")))
            for scene in scenes
        ]
    else:
        from covis.extraction import extract as describe
        from covis.models.checkpoints import load

        network = load(path)
        described = [(describe(network, scene.queries), describe(network, scene.database)) for scene in scenes]
    return _searched(scenes, described, graded, rule=rule, k=k), described


def _check_map(scenes: Sequence[Any]) -> None:
    """A map needs latitude and longitude; say so before anything is computed."""
    for scene in scenes:
        for images in (scene.queries, scene.database):
            images.need("xy")
            if images.crs is None:
                raise InvalidInputError(
                    f"A map needs positions in a known frame; those in {images.root} say none. "
                    "Read the data with one (a table: --read crs=EPSG:32633)."
                )


def _searched(scenes: Sequence[Any], described: Sequence[Any], graded: Sequence[Any] | None, *, rule: Any, k: int) -> list[Any]:
    """A ranking a scene, or one of all under a joint protocol; deep enough for k after what takes no rank is left out."""
    import numpy as np

    from covis.indexes import index
    from covis.rankings import Rankings
    from covis.truths import depth, join

    depths = [depth(scene, rule, None if graded is None else graded[row], k=k) for row, scene in enumerate(scenes)]
    if rule.scope == "scene":
        return [index(database).search(queries, k=deep) for (queries, database), deep in zip(described, depths, strict=True)]
    whole, deep = join(scenes), k + sum(one - k for one in depths)
    sides = [
        [replace(one, names=part) for one, part in zip(column, _split(names, column), strict=True)]
        for names, column in zip((whole.queries.names, whole.database.names), zip(*described, strict=True), strict=True)
    ]
    searched = index(sides[1])
    found = [searched.search(queries, k=deep) for queries in sides[0]]
    rows, distances = (np.concatenate([getattr(one, name) for one in found]) for name in ("rows", "distances"))
    return [Rankings(rows, distances, whole.queries.names, whole.database.names, {**found[0].history, "scope": "joint"})]


def _split(names: tuple[str, ...], parts: Sequence[Any]) -> list[tuple[str, ...]]:
    """The names, cut into pieces as long as the parts."""
    pieces, start = [], 0
    for part in parts:
        pieces.append(names[start : start + len(part)])
        start += len(part)
    return pieces
