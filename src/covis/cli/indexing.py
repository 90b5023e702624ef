"""Commands on indexes: index and search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from covis.cli.describing import ModelOption
from covis.cli.describing import opened as opened_model
from covis.cli.shell import Out, Overwrite, app, print_paths, say
from covis.errors import InvalidInputError, MissingFileError

if TYPE_CHECKING:
    from covis.descriptors import Descriptors
    from covis.indexes import Index, StoredIndex
    from covis.rankings import Rankings


@app.command("index")
def index_command(
    out: Out,
    descriptors: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of descriptors; of covis extract's, the databases of all scenes.", show_default=False),
    ] = None,
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
    k: Annotated[int, typer.Option(help="Of the recall.")] = 25,
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

    sets = _databases(descriptors or [])
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
    _make(
        sets,
        out,
        sources=descriptors or [],
        overwrite=overwrite,
        kind=kind,
        options=parse_options(option or ()),
        recall=recall,
        k=k,
        queries=asked,
    )


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="An index's folder.", show_default=False)],
    queries: Annotated[
        list[Path], typer.Argument(help="A folder of descriptors; or, with --model, photographs or a folder of them.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help=".npz, or .txt for the prediction text of MSLS; default: the answers are printed.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option(help="How many to find for each query.")] = 25,
    among: Annotated[
        Path | None, typer.Option(help="A text file with the only images that may be found, a name a line.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What the index's descriptors were made with: it describes the photographs.", show_default=False)
    ] = None,
    whitening: Annotated[
        Path | None, typer.Option(help="The whitening.npz that the index's descriptors were whitened with.", show_default=False)
    ] = None,
    model_option: ModelOption = None,
    kind: Annotated[
        str | None, typer.Option(help="Of an index of your own: the module:class that it was made with.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Find the nearest database images of each query: of descriptors, or of photographs."""
    import time

    from covis.files import check_absent
    from covis.indexes import load_index

    if out is not None:
        check_absent(out, overwrite=overwrite)
    opened, names = load_index(index, kind=kind), None if among is None else _names(among)
    asked = _asked(opened, queries, model=model, whitening=whitening, options=model_option)
    opened.ready()
    begun = time.perf_counter()
    found = opened.search(asked, k=k, among=names)
    seconds = max(time.perf_counter() - begun, 1e-9)
    if out is None:
        _print(found)
    else:
        print_paths(found.save(out, overwrite=overwrite))
    say(
        f"{len(found):,} queries in {seconds:.2f} s: {len(found) / seconds:,.0f} queries/s, {opened.kind} search of {len(opened):,} vectors"
    )
    _say_report(opened)


def _asked(index: StoredIndex, queries: list[Path], *, model: str | None, whitening: Path | None, options: list[str] | None) -> Descriptors:
    """The queries' descriptors, as the index's were made; said in words where they cannot be."""
    from covis.descriptors import Descriptors
    from covis.whitening import Whitening

    if model is None:
        if len(queries) > 1 or not (queries[0] / "header.json").is_file():
            raise InvalidInputError(
                f"Queries must be one folder of descriptors, or photographs with --model; {queries[0]} is no folder of descriptors, "
                "and no model was given."
            )
        asked = Descriptors.load(queries[0])
    else:
        asked = _described(queries, model, options)
    theirs = index.shards.sets[0] if index.shards.sets else asked
    if asked.model != theirs.model:
        raise InvalidInputError(
            f"Queries must be described by the model of the index, {theirs.model}; these are described by {asked.model}. "
            "Give the model that the index was made with."
        )
    if whitening is not None:
        return Whitening.load(whitening)(asked)
    if "whitened" in theirs.history and "whitened" not in asked.history:
        raise InvalidInputError("The index holds whitened descriptors, and the queries are not whitened. Give --whitening whitening.npz.")
    return asked


def _described(photographs: list[Path], model: str, options: list[str] | None) -> Descriptors:
    """The photographs that are named, or those of one folder, described; in memory."""
    from covis.config import parse_options
    from covis.datasets.photographs import read_folder
    from covis.extraction import extract
    from covis.images import Images
    from covis.models.describers import check_reads_photographs

    if len(photographs) == 1 and photographs[0].is_dir():
        images = read_folder(photographs[0])[0].queries
    else:
        if absent := [path for path in photographs if not path.is_file()]:
            raise MissingFileError(f"Every photograph must exist; there is no file {absent[0]}.")
        images = Images(Path(), tuple(map(str, photographs)))
    describer = opened_model(model, engine="auto", device="auto", count=len(images), options=parse_options(options or ()))
    check_reads_photographs(
        describer,
        what="Search by photographs (--model)",
        instead="Describe images that have label maps by covis extract, and search by the folder of descriptors.",
    )
    return extract(describer, images, progress=len(images) > 1)


def _print(found: Rankings) -> None:
    """A block a query: its name, then rank, distance and name of each image found."""
    for query, rows, distances in zip(found.query_names, found.rows, found.distances, strict=True):
        typer.echo(query)
        for rank, (row, distance) in enumerate(zip(rows, distances, strict=True), start=1):
            typer.echo(f"{rank:>4}  {distance:.4f}  {found.database_names[row]}")


def _databases(paths: list[Path]) -> list[Descriptors]:
    """The descriptors of folders; of a folder as `covis extract` writes it, those of the databases of its scenes."""
    from covis.descriptors import Descriptors

    found = []
    for path in paths:
        if (path / "header.json").is_file():
            found.append(Descriptors.load(path))
            continue
        if (path / "database" / "header.json").is_file():
            found.append(Descriptors.load(path / "database"))
            continue
        scenes = sorted(file.parent.parent for file in path.glob("*/database/header.json"))
        sets = [Descriptors.load(scene / "database") for scene in scenes or [path]]
        if len({name for one in sets for name in one.names}) < sum(map(len, sets)):  # scenes of one layout name their frames alike
            sets = [
                replace(one, names=tuple(f"{scene.name}/{name}" for name in one.names)) for scene, one in zip(scenes, sets, strict=True)
            ]
            say(f"{path}: the scenes have images of the same names; here they are called <scene>/<name>, as {sets[0].names[0]}")
        found += sets
    return found


def _make(sets: list[Any], out: Path, *, sources: list[Path], overwrite: bool, **settings: Any) -> None:
    from covis.files import check_absent
    from covis.indexes import index as make

    check_absent(out, overwrite=overwrite)
    if inputs := [path for path in sources if path.resolve() == out.resolve() or out.resolve() in path.resolve().parents]:
        raise InvalidInputError(f"An index must go to another place than its descriptors; {out} would replace {inputs[0]}.")
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
