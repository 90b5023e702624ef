"""What the commands share: the application, the common options, and the three ways to print.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from covis.errors import InvalidInputError

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Visual place recognition with graded similarity: read, check, label, train, describe, search, score, compare.",
)

Data = Annotated[Path, typer.Argument(help="The data set's folder or file.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Where to write.", show_default=False)]
Layout = Annotated[str, typer.Option(help="The data's layout (covis ls layouts); auto: guessed where it is plain, and said.")]
Split = Annotated[str, typer.Option(help="The data's split: train, val or test, as the layout has them.")]
Read = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        help="An option of the layout's reader, KEY=VALUE, as often as needed: --read missing=skip --read columns.lat=latitude.",
        show_default=False,
    ),
]
Weights = Annotated[Path | None, typer.Option(help="A local file with the backbone's weights.")]
Maps = Annotated[
    Path | None, typer.Option(help="A folder of label maps (covis segment), in place of those that the layout gives.", show_default=False)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Again = Annotated[bool, typer.Option("--overwrite", help="Do steps again whose settings differ.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def say(text: str) -> None:
    """A line of talk, to stderr."""
    print(text, file=sys.stderr, flush=True)


def print_paths(*paths: Path | None) -> None:
    """The paths written, to stdout, one a line; None is what was not written."""
    for path in paths:
        if path is not None:
            print(path)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object, to stdout."""
    print(json.dumps(value, indent=2))


def read_scenes(data: Path, layout: str, split: str, options: Sequence[str] | None) -> list[Any]:
    """Read a data set as the options say; a guessed layout is said."""
    from covis.config import parse_options
    from covis.datasets import read

    return read(named_layout(data, layout), data, split=split, **parse_options(options or ()))


def named_layout(data: Path, layout: str) -> str:
    """The layout's name, guessed and said where it is "auto"."""
    from covis.datasets import guess_layout

    if layout == "auto":
        layout = guess_layout(data)
        say(f"{data}: read as {layout}")
    return layout


def plain_scores(scores: Any) -> dict[str, Any]:
    """Scores as plain values, without those of single queries."""
    return {
        "protocol": scores.protocol.name,
        "metrics": {name: vars(metric) for name, metric in scores.metrics.items()},
        "interval": dict(scores.interval),
    }


def check_outputs(outputs: Sequence[Path], read: Sequence[tuple[str, Path]], *, overwrite: bool, folder: Path | None = None) -> None:
    """All that can be known of the places before anything is computed, by where links lead to.

    Args:
        outputs: files that are to be written.
        read: (name, file or folder) of all that is read; nothing is written over it, and nothing into DATA.
        overwrite: whether what is there may be replaced.
        folder: that the outputs are put into, where there is one.

    Raises:
        InvalidInputError: two outputs are one file, one is what is read or lies in the data, or a place cannot be written to.
        OutputExistsError: one is there and `overwrite` is false.
    """
    from covis.files import check_absent

    places = [path.resolve() for path in outputs]
    inside = [path for path in places if not set(path.parents).isdisjoint(places)]
    if len(set(places)) < len(places) or inside:
        raise InvalidInputError(f"What is written must be different files, none within another; got {', '.join(map(str, places))}.")
    for name, source in read:
        there = source.resolve()
        for place in (*places, *([] if folder is None else [folder.resolve()])):
            data = name in ("DATA", "--against") and source.is_dir()
            if place == there or (data and there in place.parents):
                nor = " nor lie in it" if data else ""
                raise InvalidInputError(f"What is written must not be {name}{nor}; {place} would. Choose another place.")
    for path, place in zip(outputs, places, strict=True):
        check_absent(path, overwrite=overwrite)
        above = next(folder for folder in place.parents if folder.exists())
        if place.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
            said = "is a folder" if place.is_dir() else f"would lie in {above}, which is no folder that can be written to"
            raise InvalidInputError(f"Each output must be a file in a folder that can be written to; {path} {said}.")
