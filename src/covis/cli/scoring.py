"""Commands that judge: evaluate and compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.describing import Scenes, chosen_scenes
from covis.cli.shell import (
    AsJson,
    Data,
    Layout,
    Overwrite,
    Read,
    Split,
    app,
    named_layout,
    plain_scores,
    print_json,
    print_paths,
    read_scenes,
    say,
)
from covis.errors import InvalidInputError

DESCRIBING, SEARCHING = "With --model", "With --model or --descriptors"


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
    descriptors: Annotated[
        Path | None,
        typer.Option(help="Descriptors: a folder of extract or whiten, or anyone's .npy or .h5 with names (docs/evaluating.md)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model: its folder, an exported .onnx, module:function or hub:/folder:entry; images are described with it first."
        ),
    ] = None,
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
    work: Annotated[
        Path | None,
        typer.Option(
            help="Where images are described to, and found again; default: the folder evaluate.work beside --out.",
            rich_help_panel=DESCRIBING,
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        Literal["auto", "torch", "onnx"], typer.Option(help="What computes the descriptors.", rich_help_panel=DESCRIBING)
    ] = "auto",
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where torch computes; auto: on a CUDA device.", rich_help_panel=DESCRIBING)
    ] = "auto",
    model_option: Annotated[
        list[str] | None,
        typer.Option(
            help="An option of the model, KEY=VALUE, as often as needed: height=480.", rich_help_panel=DESCRIBING, show_default=False
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at once.", rich_help_panel=DESCRIBING)] = 32,
    damaged: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="Images that cannot be read; skip: they have no descriptor, and count as not found.", rich_help_panel=DESCRIBING),
    ] = "stop",
    whiten: Annotated[
        int | None,
        typer.Option(
            help="Whiten to so many dimensions (0: all that carry variance), fitted on the databases that are searched.",
            rich_help_panel=SEARCHING,
            show_default=False,
        ),
    ] = None,
    whitening: Annotated[
        Path | None,
        typer.Option(help="Whiten with this file of covis whiten in place of fitting one.", rich_help_panel=SEARCHING, show_default=False),
    ] = None,
    index: Annotated[str, typer.Option(help="The index (covis ls indexes).", rich_help_panel=SEARCHING)] = "exact",
    index_option: Annotated[
        list[str] | None,
        typer.Option(help="An option of the index, KEY=VALUE, as often as needed.", rich_help_panel=SEARCHING, show_default=False),
    ] = None,
    k: Annotated[int, typer.Option(help="How many to search for.", rich_help_panel=SEARCHING)] = 25,
    samples: Annotated[int, typer.Option(help="Bootstrap samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    geojson: Annotated[Path | None, typer.Option(help="Also write queries, database and best matches as GeoJSON.")] = None,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    patterns: Scenes = "*",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Score a model, descriptors, rankings or predictions under a named protocol, with intervals; does all steps that it needs."""
    from covis.cli.evaluating import Choices, ranked
    from covis.config import parse_options
    from covis.datasets.label_files import load_labels
    from covis.evaluation import as_scored, default_protocol, evaluate
    from covis.files import check_absent
    from covis.protocols import protocol as named
    from covis.published import sets_under
    from covis.reports.geojson import write_geojson

    choices = Choices(
        rankings, predictions, descriptors, model, engine=engine, device=device,
        options=parse_options(model_option or ()), batch=batch, damaged=damaged,
        work=work or out.with_name("evaluate.work"), whiten=whiten, whitening=whitening, index=index,
        index_options=parse_options(index_option or ()), k=k,
    )  # fmt: skip
    for file in [out] if geojson is None else [out, geojson]:
        check_absent(file, overwrite=overwrite)
    if geojson is not None and geojson.absolute() == out.absolute():
        raise InvalidInputError(f"The scores and the map must be two files; --out and --geojson are both {out}.")
    layout = named_layout(data, layout)
    scenes = chosen_scenes(read_scenes(data, layout, split, read), patterns)
    if geojson is not None:
        _check_map(scenes)
    graded = None if labels is None else load_labels(labels, scenes)
    rule = named(protocol or default_protocol(graded))
    found, described, made = ranked(scenes, graded, rule, choices)
    made["data"] = {"path": str(data), "layout": layout, "split": split, "scenes": patterns, "read": parse_options(read or ())}
    judging = {"labels": graded, "protocol": rule, "unknown": unknown}
    scores = evaluate(found, scenes, **judging, descriptors=described, samples=samples, seed=seed, made=made)  # type: ignore[arg-type] # by name
    written = [out]
    if geojson is not None:
        placed = as_scored(found, scenes, **judging)  # type: ignore[arg-type] # by name
        written.append(write_geojson(scenes, geojson, rankings=placed, scores=scores, overwrite=overwrite))
    scores.save(out, overwrite=overwrite)
    say(f"{scores}\n")
    for name in sets_under(rule.name):
        say(f"what others published under {rule.name}: covis ls results --dataset {name}")
    print_json({"scores": str(out), **plain_scores(scores), "made": made}) if as_json else print_paths(*written)


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
    from covis.scores import Scores, what_was_scored

    if out is not None:
        check_absent(out, overwrite=overwrite)
    both = {"a": Scores.load(a), "b": Scores.load(b)}
    compared = compare(both["a"], both["b"], metrics=metric or None, samples=samples, seed=seed)
    if as_json:
        print_json(compared.as_dict())
    else:
        said = [f"  {name}: {text}" for name, one in both.items() if (text := what_was_scored(one.history))]
        typer.echo("\n".join([str(compared), *said]))
    if out is not None:
        compared.save(out, overwrite=overwrite)
        say(f"written to {out}")


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
