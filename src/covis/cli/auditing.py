"""The command that audits: what training and test share, queries that face away, labels, and models that look at their batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.audit_steps import Audit
from covis.cli.describing import Device, Engine, ModelOption, chosen_scenes
from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, check_outputs, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError

FORMAT, VERSION = "covis-audit", 1
COPIES, OTHER, MODELS = "Copies", "Another set", "Models and descriptors"


@app.command("audit")
def audit_command(
    data: Data,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    scenes: Annotated[
        str, typer.Option("--scenes", help="Shell patterns of DATA's scenes, with commas, ! leaves out; the other set is taken whole.")
    ] = "*",
    only: Annotated[str, typer.Option(help="Audits, with commas: copies, descriptors, places, facing, labels, batches.")] = "all",
    against: Annotated[
        Path | None, typer.Option(help="Another set, such as what a model was trained on.", rich_help_panel=OTHER, show_default=False)
    ] = None,
    against_split: Annotated[
        str | None, typer.Option(help="Its split; without --against another split of DATA.", rich_help_panel=OTHER, show_default=False)
    ] = None,
    against_layout: Annotated[str, typer.Option(help="Its layout.", rich_help_panel=OTHER)] = "auto",
    against_read: Annotated[
        list[str] | None, typer.Option(help="An option of its reader, KEY=VALUE.", rich_help_panel=OTHER, show_default=False)
    ] = None,
    within: Annotated[
        float, typer.Option(help="Metres: images of both sets that are nearer show one place.", rich_help_panel=OTHER)
    ] = 25.0,
    hamming: Annotated[int, typer.Option(help="Of 64 bits: how far the hashes of one picture may differ.", rich_help_panel=COPIES)] = 10,
    fine: Annotated[int, typer.Option(help="Of 256 bits, likewise.", rich_help_panel=COPIES)] = 32,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Look for mirror images too.", rich_help_panel=COPIES)] = False,
    cache: Annotated[
        Path | None, typer.Option(help="An .npz that keeps hashes: a killed audit goes on.", rich_help_panel=COPIES, show_default=False)
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="A PNG of the most suspect pairs.", rich_help_panel=COPIES, show_default=False)] = None,
    protocol: Annotated[str, typer.Option(help="Says what is positive, for queries that face away.")] = "radius/25",
    heading: Annotated[float, typer.Option(help="Degrees: a positive that turns further looks elsewhere.")] = 90.0,
    labels: Annotated[Path | None, typer.Option(help="Graded labels: a file, or a folder with <scene>.npz.", show_default=False)] = None,
    reference: Annotated[str, typer.Option(help="The rule that labels are held against: auto, none, or a rule's name.")] = "auto",
    model: Annotated[
        str | None, typer.Option(help="A model, as covis extract takes it.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    descriptors: Annotated[
        Path | None, typer.Option(help="Descriptors of DATA's scenes.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    against_descriptors: Annotated[
        Path | None, typer.Option(help="Descriptors of the other set's.", rich_help_panel=MODELS, show_default=False)
    ] = None,
    alike: Annotated[
        float | None,
        typer.Option(help="Distance up to which descriptors are nearly the same; say it.", rich_help_panel=MODELS, show_default=False),
    ] = None,
    measure: Annotated[Literal["cosine", "l2"], typer.Option(help="That distance.", rich_help_panel=MODELS)] = "cosine",
    work: Annotated[Path, typer.Option(help="Where images are described to, and found again.", rich_help_panel=MODELS)] = Path(
        "audit.work"
    ),
    sample: Annotated[int, typer.Option(help="Images that are described in several batches.", rich_help_panel=MODELS)] = 32,
    engine: Annotated[Engine, typer.Option(help="What computes.", rich_help_panel=MODELS)] = "auto",
    device: Annotated[Device, typer.Option(help="Where torch computes.", rich_help_panel=MODELS)] = "auto",
    model_option: ModelOption = None,
    out: Annotated[Path | None, typer.Option(help="Everything that was found, JSON.", show_default=False)] = None,
    shown: Annotated[int, typer.Option(help="Examples of each finding that are printed.")] = 5,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where images leak, or descriptors depend on their batch.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Report leaked and doubled images, queries whose positives face away, labels that contradict their places, and batch dependence.

    Without options it does what it has data for, and says what it left out and why.
    """
    from covis.audits.words import Talk, summary
    from covis.config import parse_options

    files = {"cache": cache, "labels": labels, "descriptors": descriptors, "against": against_descriptors, "work": work}
    check_outputs([path for path in (out, sheet) if path is not None], _read_from(data, against, files), overwrite=overwrite)
    wanted = _wanted(only, shown=shown)
    _check_together(against, against_split, against_layout, {"--against-read": against_read, "--against-descriptors": against_descriptors})
    if model is not None and descriptors is not None:
        raise InvalidInputError("Either --model or --descriptors must be given, not both: the first describes, the second was described.")
    found = chosen_scenes(read_scenes(data, layout, split, read), scenes)
    other = None
    if against is not None or against_split is not None:
        beside, form = (data, layout) if against is None else (against, against_layout)
        options = (read if against is None else None) if against_read is None else against_read
        other = read_scenes(beside, form, against_split or split, options)
    talk = Talk(shown=shown)
    audit = Audit(
        found,
        other,
        settings={
            "within": within,
            "hamming": hamming,
            "fine": fine,
            "mirrored": mirrored,
            "protocol": protocol,
            "heading": heading,
            "reference": reference,
            "alike": alike,
            "measure": measure,
            "sample": sample,
        },
        files=files,
        model=model,
        opening={"engine": engine, "device": device, "options": parse_options(model_option or ())},
        tell=lambda sections: None if as_json else typer.echo("\n".join(talk.lines(sections))),
    )
    audit.prepare(wanted)
    report = {
        "format": FORMAT,
        "version": VERSION,
        "data": str(data),
        "split": split,
        "against": None if other is None else {"data": str(against or data), "split": against_split or split},
        "settings": audit.settings,
        "stopped": None,
        "sections": audit.sections,
    }
    _run(audit, wanted, report, out=out)
    if as_json:
        print_json({**report, "sections": _shortened(audit.sections, shown)})
    else:
        typer.echo(summary(audit.sections, audit.leaks))
    drawn = audit.draw(sheet)
    if not as_json:
        print_paths(out, drawn)
    if strict and audit.leaks:
        raise typer.Exit(1)


def _read_from(data: Path, against: Path | None, files: Mapping[str, Path | None]) -> list[tuple[str, Path]]:
    """(option, path) of all that is read, or kept from one audit to the next."""
    named = {"DATA": data, "--against": against, "--against-descriptors": files["against"]}
    named |= {f"--{name}": path for name, path in files.items() if name != "against"}
    return [(name, path) for name, path in named.items() if path is not None]


def _run(audit: Audit, wanted: Sequence[str], report: dict[str, Any], *, out: Path | None) -> None:
    """Run the audits and write the report, also where one of them fails: what was found until then took long."""
    from covis.files import write_json

    try:
        audit.run(wanted)
    except BaseException as error:
        if out is not None and audit.sections:
            write_json(out, {**report, "leaks": audit.leaks, "stopped": str(error) or type(error).__name__})
            say(f"{out} holds what was found until then")
        raise
    report["leaks"] = audit.leaks
    if out is not None:
        write_json(out, report)


def _wanted(only: str, *, shown: int) -> tuple[str, ...]:
    """The audits that are asked for, each once."""
    from covis.audits.words import AUDITS

    if shown < 0:
        raise InvalidInputError(f"--shown must be a number of examples from 0; got {shown}.")
    wanted = AUDITS if only == "all" else tuple(dict.fromkeys(part.strip() for part in only.split(",")))
    if unknown := [name for name in wanted if name not in AUDITS]:
        raise InvalidInputError(f"--only must name audits of {', '.join(AUDITS)}; got {', '.join(unknown)}.")
    return wanted


def _check_together(against: Path | None, split: str | None, layout: str, more: Mapping[str, Any]) -> None:
    """Refuse options of another set where there is none."""
    if against is None and layout != "auto":
        raise InvalidInputError(f"--against-layout must stand beside --against, whose layout it is; got {layout!r} alone.")
    alone = [name for name, value in more.items() if value is not None]
    if against is None and split is None and alone:
        raise InvalidInputError(f"{alone[0]} must stand beside --against or --against-split: it is of another set, and none is given.")


def _shortened(sections: list[dict[str, Any]], shown: int) -> list[dict[str, Any]]:
    """The sections with so many examples of each list."""

    def short(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: short(one, name) for name, one in value.items()}
        return value[:shown] if key == "list" else value

    return [short(section) for section in sections]
