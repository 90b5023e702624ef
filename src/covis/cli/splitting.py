"""The command that cuts one collection into training and test by place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from covis.cli.shell import AsJson, Data, Layout, Out, Overwrite, Read, app, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError


@app.command()
def split(
    data: Data,
    out: Out,
    cell: Annotated[float | None, typer.Option(help="Whole square cells of this edge, metres, at random.", show_default=False)] = None,
    along: Annotated[
        Literal["east", "north", "west", "south"] | None,
        typer.Option(help="Straight cuts instead: train, val, test follow each other in this direction.", show_default=False),
    ] = None,
    shares: Annotated[str, typer.Option(help="Of train, val and test among the images.")] = "0.6,0.15,0.25",
    buffer: Annotated[float, typer.Option(help="Metres between what teaches and what judges; images in it are left out.")] = 25.0,
    ask: Annotated[
        str, typer.Option(help="Who asks in val and test: sides (as the data has them), every:N, flag:NAME or time:17:00-06:00.")
    ] = "sides",
    teach: Annotated[str, typer.Option(help="Which may teach: all; or by the rule of --ask only the database, or the queries.")] = "all",
    utc_offset: Annotated[float, typer.Option(help="Hours by which local time is ahead of the data's times; 0: they are local.")] = 0.0,
    frames: Annotated[
        Literal["data", "time", "order"],
        typer.Option(
            help="Number the frames by time or by the data's order, so that intervals are over blocks of photographs taken together."
        ),
    ] = "data",
    seed: Annotated[int, typer.Option(help="Of the cells' draw.")] = 0,
    files: Annotated[str, typer.Option(help="copy, link (symbolic links), or none (the table names the images where they are).")] = "copy",
    layout: Layout = "auto",
    from_split: Annotated[str, typer.Option("--split", help="Of the data: which of its own splits is cut.")] = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cut one collection into train, val and test by place, with a buffer between them; a table that covis run reads."""
    from covis.datasets.split_tables import write_split_table
    from covis.files import check_absent
    from covis.splits import NAMES, TEST, split_by_place

    check_absent(out, overwrite=overwrite)
    scenes = read_scenes(data, layout, from_split, read)
    if len(scenes) != 1:
        names = ", ".join(scene.name for scene in scenes)
        raise InvalidInputError(f"One collection is cut at a time; {data} holds {len(scenes)}: {names}. Point to one of them.")
    cut = split_by_place(
        scenes[0],
        cell=cell,
        along=along,
        shares=_numbers(shares),
        buffer=buffer,
        ask=ask,
        teach=teach,  # type: ignore[arg-type]
        utc_offset=utc_offset,
        frames=frames,
        seed=seed,
    )
    rows = [row for row, part in enumerate(cut.part.tolist()) if part <= TEST]
    summary, name = cut.summary(), scenes[0].name
    written = write_split_table(
        cut.images.select(rows),
        out,
        split=[NAMES[cut.part[row]] for row in rows],
        side=["query" if cut.asks is not None and cut.asks[row] and cut.part[row] else "database" for row in rows],
        record={"of": name, "parameters": dict(cut.parameters), "summary": summary},
        files=files,  # type: ignore[arg-type]
        overwrite=overwrite,
    )
    say(_told(name, summary, all_ask=cut.asks is None))
    print_json({"table": str(written), "parameters": dict(cut.parameters), "summary": summary}) if as_json else print_paths(written)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"--shares must be three numbers, as 0.6,0.15,0.25; got {text!r}.") from None


def _told(name: str, summary: dict[str, Any], *, all_ask: bool) -> str:
    """The summary in lines."""
    lines = [f"{name}: {summary['images']:,} images", f"  train  {summary['train']:,} images"]
    for split in ("val", "test"):
        found = summary[split]
        if not found["database"]:
            continue
        who = (
            f"{found['database']:,} images, each asks all others"
            if all_ask
            else f"{found['queries']:,} queries, {found['database']:,} database"
        )
        near = ", ".join(f"{one['mean']:.1f} within {metres} m ({one['none']} none)" for metres, one in found["positives"].items())
        lines.append(f"  {split:<5}  {who}; images for a query: {near}")
    lines.append(f"  left out: {summary['buffer']:,} in the buffer, {summary['untaught']:,} that may not teach")
    gaps = [f"{pair} {metres:.1f} m" for pair, metres in summary["distance"].items() if metres is not None]
    return "\n".join([*lines, f"  nearest: {', '.join(gaps)}"])
