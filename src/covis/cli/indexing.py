"""Commands on indexes: index and search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from covis.cli.shell import Out, Overwrite, app, print_paths, say
from covis.errors import InvalidInputError

if TYPE_CHECKING:
    from covis.indexes import Index


@app.command("index")
def index_command(
    out: Out,
    descriptors: Annotated[list[Path] | None, typer.Argument(help="Folders of descriptors.", show_default=False)] = None,
    kind: Annotated[
        str, typer.Option(help="The index (covis ls indexes); auto: exact, or beyond 200,000 PCA-whitened vectors prefix, and said.")
    ] = "auto",
    option: Annotated[
        list[str] | None, typer.Option("--option", help="An option of the kind, KEY=VALUE, as often as needed.", show_default=False)
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="Try options until the first neighbour and the first k are found in so large a share, as quickly as can be."),
    ] = None,
    k: Annotated[int, typer.Option(help="Of the recall.")] = 20,
    queries: Annotated[
        Path | None, typer.Option(help="A folder of descriptors to measure the recall on; default: a sample of the index's own.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add the descriptors to the index that is there.")] = False,
    delete: Annotated[
        list[str] | None,
        typer.Option(help="An image to delete from the index that is there, as often as needed; before any is added.", show_default=False),
    ] = None,
    delete_from: Annotated[Path | None, typer.Option(help="A text file with images to delete, a name a line.", show_default=False)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make an index of descriptors, add to one, or delete from one; an approximate one is measured against exact search."""
    from covis.config import parse_options
    from covis.descriptors import Descriptors

    sets = [Descriptors.load(path) for path in descriptors or ()]
    asked = None if queries is None else Descriptors.load(queries)
    gone = [*(delete or ()), *([] if delete_from is None else _names(delete_from))]
    if add or gone:
        made = {"--kind": kind != "auto", "--option": option, "--recall": recall is not None, "--overwrite": overwrite}
        if unfit := [name for name, given in made.items() if given]:
            raise InvalidInputError(
                f"{', '.join(unfit)} makes an index; with --add or --delete the one at {out} keeps its kind. Leave it out."
            )
        if add != bool(sets):
            raise InvalidInputError(
                f"Descriptors are added to the index at {out} with --add, and --add needs descriptors; got {len(sets)} sets."
            )
        print_paths(_changed(out, sets, gone, asked=asked, k=k))
        return
    if not sets:
        raise InvalidInputError("An index is made of one or more folders of descriptors; got none.")
    _make(sets, out, overwrite=overwrite, kind=kind, options=parse_options(option or ()), recall=recall, k=k, queries=asked)


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="An index's folder.", show_default=False)],
    queries: Annotated[Path, typer.Argument(help="A folder of descriptors.", show_default=False)],
    out: Annotated[Path, typer.Option(help=".npz, or .txt for the prediction text of MSLS.", show_default=False)],
    k: Annotated[int, typer.Option(help="How many to find for each query.")] = 25,
    among: Annotated[
        Path | None, typer.Option(help="A text file with the only images that may be found, a name a line.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find the nearest database images of each query."""
    import time

    from covis.descriptors import Descriptors
    from covis.files import check_absent
    from covis.indexes import load_index

    check_absent(out, overwrite=overwrite)
    opened, asked = load_index(index), Descriptors.load(queries)
    names = None if among is None else _names(among)
    opened.ready()
    begun = time.perf_counter()
    found = opened.search(asked, k=k, among=names)
    seconds = max(time.perf_counter() - begun, 1e-9)
    print_paths(found.save(out, overwrite=overwrite))
    say(
        f"{len(found):,} queries in {seconds:.2f} s: {len(found) / seconds:,.0f} queries/s, {opened.kind} search of {len(opened):,} vectors"
    )
    _say_report(opened)


def _make(sets: list[Any], out: Path, *, overwrite: bool, **settings: Any) -> None:
    from covis.files import check_absent
    from covis.indexes import index as make

    check_absent(out, overwrite=overwrite)
    made = make(sets, progress=say, **settings)
    _say_report(made)
    if getattr(made, "chosen", ""):
        say(made.chosen)  # type: ignore[attr-defined]
    print_paths(made.save(out, overwrite=overwrite))


def _changed(path: Path, sets: list[Any], gone: list[str], *, asked: Any, k: int) -> Path:
    """Delete, add, measure what is approximate, and write it: one change, or none."""
    from covis.indexes import ApproximateIndex, load_index

    opened = load_index(path)
    before = len(opened)
    if gone:
        opened.delete(gone)
    left = len(opened)
    for one in sets:
        opened.add(one)
    if isinstance(opened, ApproximateIndex) and len(opened):
        opened.build_now()
        opened.measure(asked, k=k)
    opened.update()
    say(f"{before - left:,} deleted, {len(opened) - left:,} added, {len(opened):,} vectors now")
    _say_report(opened)
    return path


def _say_report(index: Index) -> None:
    from covis.indexes.measures import told

    if index.report is not None:
        say(told(index.kind, getattr(index, "options", {}), dict(index.report)))


def _names(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    from covis.files import read_text

    return [line for line in read_text(path).splitlines() if line]
