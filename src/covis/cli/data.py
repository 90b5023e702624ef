"""Commands on data sets: what there is, whether it is sound, other layouts, synthetic towns, graded labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.shell import AsJson, Data, Layout, Out, Overwrite, Read, Split, app, named_layout, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError

convert = typer.Typer(no_args_is_help=True, help="Write what one tool has in the form of another.")
app.add_typer(convert, name="convert")


def _of(rule: str) -> Callable[[str], Any]:
    return lambda text: typer.Option(help=text, rich_help_panel=f"Rule {rule}", show_default=False)


_view, _distance, _surface = _of("view"), _of("distance"), _of("surface")


def _worse(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel="Labels made worse on purpose", show_default=False)


@app.command()
def world(
    out: Annotated[Path, typer.Argument(help="The folder to write to; with --sheet the PNG.", show_default=False)],
    layout: Annotated[str, typer.Option(help="msls, utm, 7scenes (with depth) or table.")] = "msls",
    preset: Annotated[str, typer.Option(help="How large (covis ls worlds).")] = "small",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 7,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Draw one place under all conditions instead, with depth, classes and overlap.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Build a synthetic town with exact truth and photograph it, in the layout of a benchmark; goes on where it was killed."""
    from covis.files import check_absent

    if sheet:
        from covis.town import build_town, write_sheet

        print_paths(write_sheet(check_absent(out, overwrite=overwrite), build_town(seed=seed)))
    else:
        from covis.town import write_town

        print_paths(*write_town(out, layout=layout, preset=preset, seed=seed, workers=workers, progress=say))


@app.command()
def check(
    data: Data,
    what: Annotated[
        Literal["data", "submission"], typer.Option("--as", help="What DATA is: a data set, or a file that a benchmark's server takes.")
    ] = "data",
    against: Annotated[
        Path | None,
        typer.Option(
            "--data", help="The data set that it is of: names are held against it.", rich_help_panel="Submission", show_default=False
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="cmu, robotcar or msls; auto: by the file's suffix and names.", rich_help_panel="Submission")
    ] = "auto",
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    decode: Annotated[bool, typer.Option("--decode/--no-decode", help="Decode every image too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Look at every name, number and image, and list all problems at once; exit code 1 where there are any."""
    from covis.config import parse_options
    from covis.datasets import check as look

    if what == "submission":
        from covis.submissions import check_submission

        if against is None and (layout != "auto" or split != "test" or read):
            raise InvalidInputError(
                "--layout, --split and --read say how --data is read; got them without it. Add --data, or leave them out."
            )
        scenes = None if against is None else read_scenes(against, layout, split, read)
        found = check_submission(data, kind=kind, scenes=scenes)
        print_json(found.as_dict()) if as_json else typer.echo(str(found))
        raise typer.Exit(1 if found.problems else 0)
    if against is not None or kind != "auto":
        raise InvalidInputError("--data and --kind must come with --as submission; they say what a submission is of.")
    try:
        name = named_layout(data, layout)
    except InvalidInputError as error:
        if not data.is_file():
            raise
        raise InvalidInputError(f"{error} If it is a file that a benchmark's server takes, add --as submission.") from error
    report = look(name, data, split=split, decode=decode, progress=_progress, **parse_options(read or ()))
    print_json(report.as_dict()) if as_json else typer.echo(str(report))
    if report.problems:
        raise typer.Exit(1)


@convert.command("data")
def convert_data(
    data: Data,
    to: Annotated[str, typer.Option(help="The layout to write (covis ls layouts).", show_default=False)],
    out: Out,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    files: Annotated[str, typer.Option(help="copy, link (symbolic links), or none (metadata alone).")] = "copy",
    write_option: Annotated[
        list[str] | None,
        typer.Option("--write", help="An option of the layout's writer, KEY=VALUE: --write dataset=7scenes.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a data set in another layout; the original is left as it is."""
    from covis.config import parse_options
    from covis.datasets import write

    options = {"files": files, "overwrite": overwrite, **parse_options(write_option or ())}
    print_paths(*write(to, read_scenes(data, layout, split, read), out, **options))


@app.command()
def label(
    data: Data,
    out: Annotated[Path, typer.Option(help="A .npz or .h5 file for a single scene, a folder for several.", show_default=False)],
    rule: Annotated[
        str,
        typer.Option(help="view, surface or distance (covis ls rules); auto: view with headings, else surface with depth, else distance."),
    ] = "auto",
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    fov: Annotated[float | None, _view("Opening angle where the data has none, degrees (default 90).")] = None,
    reach: Annotated[
        float | None,
        _view(
            "How far images see where the data does not say, metres (default 50); "
            "with surface: the largest depth that counts (default 6; 30 for a street)."
        ),
    ] = None,
    overlap: Annotated[str | None, _view("iou or fraction; with surface also database-fraction (default iou).")] = None,
    max_heading_difference: Annotated[float | None, _view("Pairs that turn further apart share nothing, degrees; by distance too.")] = None,
    panoramas: Annotated[
        str | None, _view("exclude, all-round or stop (default exclude); by distance keep or exclude (default keep).")
    ] = None,
    without_heading: Annotated[str | None, _view("exclude, all-round or stop (default stop).")] = None,
    half: Annotated[float | None, _distance("Metres at which the similarity is 1/2 (default 25).")] = None,
    decay: Annotated[str | None, _distance("linear, exponential, or step (default linear).")] = None,
    method: Annotated[str | None, _surface("reprojection or voxels (default reprojection).")] = None,
    nearest: Annotated[float | None, _surface("Least depth that counts, metres (default 0.1).")] = None,
    tolerance: Annotated[float | None, _surface("How far two depths of one surface may differ, metres (default 0.05).")] = None,
    relative_tolerance: Annotated[float | None, _surface("Added to it for each metre of depth (default 0.01).")] = None,
    voxel: Annotated[float | None, _surface("Edge of a voxel, metres (default 0.1).")] = None,
    step: Annotated[int | None, _surface("Pixels between two samples of a depth map (default 8; with voxels 2).")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Any other option of the rule, KEY=VALUE, as often as needed.", show_default=False)
    ] = None,
    position_noise: Annotated[float | None, _worse("Standard deviation of errors of position, east and north, metres (default 0).")] = None,
    heading_noise: Annotated[float | None, _worse("Standard deviation of errors of heading, degrees (default 0).")] = None,
    placebo: Annotated[
        str | None, _worse("Afterwards: averaged-in-class, rounded, shuffled, shuffled-in-class, or module:function (default: nothing).")
    ] = None,
    noise_seed: Annotated[int | None, _worse("Of errors and placebo; not without them (default 0).")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Grade how much each query and each database image see of the same place, with a summary; several scenes resume where killed."""
    from covis.config import parse_options

    named = {
        "fov": fov,
        "reach": reach,
        "overlap": overlap,
        "max_heading_difference": max_heading_difference,
        "panoramas": panoramas,
        "without_heading": without_heading,
        "half": half,
        "decay": decay,
        "method": method,
        "nearest": nearest,
        "tolerance": tolerance,
        "relative_tolerance": relative_tolerance,
        "voxel": voxel,
        "step": step,
    }
    options = {key: value for key, value in named.items() if value is not None} | parse_options(option or ())
    worse = _worsened(noise_seed, position_noise=position_noise, heading_noise=heading_noise, placebo=placebo)
    scenes = read_scenes(data, layout, split, read)
    summaries = _label(scenes, out, rule=rule, options=options, worse=worse, overwrite=overwrite)
    print_json(summaries) if as_json else print_paths(*map(Path, summaries))


def _worsened(seed: int | None, **changes: Any) -> dict[str, Any]:
    """Noise, placebo and their seed; nothing where all are 0, as the first of a series of noises may be."""
    from covis.placebos import check_changes

    if seed is not None and all(value is None for value in changes.values()):
        raise InvalidInputError(
            f"--noise-seed must come with --position-noise, --heading-noise or --placebo, of which it is the seed; got {seed} alone. "
            "Labels by a rule alone have no seed: leave it out."
        )
    plain = {"position_noise": 0.0, "heading_noise": 0.0, "placebo": ""}
    told = {**plain, **{name: value for name, value in changes.items() if value is not None}}
    check_changes(**told, seed=seed or 0)
    return {**told, "seed": seed or 0} if any(told.values()) else {}


_BEGUN = ".labelling.json"
"""Stands in a folder of labels while not all scenes are done: what they are being made of."""


def _label(scenes: list[Any], out: Path, *, rule: str, options: dict[str, Any], worse: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    from covis.datasets.label_files import load_labels, save_labels
    from covis.files import check_absent, digest, read_json, write_json
    from covis.labelling import LABEL_RULES, fitting_rule
    from covis.lookup import resolve, with_options
    from covis.placebos import check_rule, disturbed_labels

    if out.suffix and not out.is_dir() and (out.suffix not in (".npz", ".h5") or len(scenes) > 1):
        raise InvalidInputError(
            f"Labels of {len(scenes)} scene{'s' * (len(scenes) > 1)} go to "
            + ("a folder" if len(scenes) > 1 else "a file called .npz or .h5, or to a folder")
            + f"; got --out {out}."
        )
    single = len(scenes) == 1 and out.suffix in (".npz", ".h5")
    files = [out] if single else [out / f"{scene.name}.npz" for scene in scenes]
    if rule == "auto":
        rule = fitting_rule([side for scene in scenes for side in (scene.queries, scene.database)])
        say(f"labelled by {rule}, which is what these images have the data for")
    function = with_options(resolve(rule, LABEL_RULES, what="label rule"), options, what="label rule")
    check_rule(function, options, heading_noise=worse.get("heading_noise", 0.0))
    begun = out / _BEGUN
    tables = [[scene.name, scene.queries.digest(), scene.database.digest()] for scene in scenes]
    card = {"for": digest([rule, options, *([worse] if worse else []), tables])}
    going_on = not single and begun.is_file() and read_json(begun) == card
    for file in () if going_on else files:
        check_absent(file, overwrite=overwrite)
    summaries: dict[str, Any] = {}
    for scene, file in zip(scenes, files, strict=True):
        if going_on and file.is_file():
            labels = load_labels(file, [scene])[0]
        else:
            labels = disturbed_labels(scene, partial(function, **options), **worse)
            if not (single or going_on or summaries):  # only now: what fails before its first labels leaves nothing behind
                for stale in files if overwrite else ():  # else one that goes on takes them for its own
                    stale.unlink(missing_ok=True)
                write_json(begun, card)
            save_labels(labels, file, overwrite=overwrite)
        summary = labels.summary()
        summaries[str(file)] = {**vars(summary), "rule": labels.rule, "parameters": dict(labels.parameters)}
        say(f"{scene.name}: {summary}\n  {labels.rule}: " + ", ".join(f"{key} {value}" for key, value in labels.parameters.items()))
        if summary.warning:
            say(f"warning: {summary.warning}")
    if not single:
        begun.unlink(missing_ok=True)
    return summaries


def _progress(done: int, of: int) -> None:
    if done % 1000 == 0 or done == of:
        say(f"{done:,} of {of:,} images decoded")
