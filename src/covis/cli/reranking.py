"""The command that looks at the first results again: rerank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, plain_scores, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError, MissingFileError


@app.command("rerank")
def rerank_command(
    data: Data,
    rankings: Annotated[
        Path, typer.Option(help="Rankings: a file, of several scenes a joint one; or a folder with <scene>.npz.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Where to write: an .npz for a file, a folder for a folder.", show_default=False)],
    matcher: Annotated[str, typer.Option(help="The matcher (covis ls matchers), or module:function.")] = "rootsift",
    top: Annotated[int, typer.Option(help="How many results of each query are looked at.")] = 100,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE, as often as needed: of the matcher, and size, model, threshold, confidence, iterations, minimum, seed.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="A folder that keeps local features and finished queries: a killed run goes on.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads; default: as many as processors.", show_default=False)] = None,
    memory: Annotated[int, typer.Option(help="MiB of local features held at most.")] = 1024,
    labels: Annotated[Path | None, typer.Option(help="Graded labels: a file, or a folder with <scene>.npz; for the table.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="The table's protocol; default: graded/0.5 with labels, radius/25 with positions.", show_default=False),
    ] = None,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Re-order the first results of each query by geometrically verified local features, and print the gain beside the cost."""
    from covis.config import parse_options
    from covis.datasets.label_files import load_labels
    from covis.rankings import Rankings
    from covis.reranking import rerank
    from covis.reranking.gains import gain
    from covis.truths import join

    scenes = read_scenes(data, layout, split, read)
    files = _files(rankings, out, scenes, overwrite=overwrite)
    found = [Rankings.load(file) for file in files]
    if rankings.is_file():
        scenes = _ranked_scenes(found[0], scenes, rankings)
    graded = None if labels is None else load_labels(labels, scenes)
    before, rule = _judged(found, scenes, graded, protocol)  # before anything is matched: a protocol that cannot judge says so now
    chosen: dict[str, Any] = {"matcher": matcher, "top": top, "options": parse_options(option or ()), "cache": cache}
    sides = [join(scenes)] if rankings.is_file() else scenes
    after = [rerank(one, scene, **chosen, workers=workers, memory=memory, progress=True) for one, scene in zip(found, sides, strict=True)]
    _write(after, out, files, folder=rankings.is_dir(), overwrite=overwrite)
    gained = None if before is None or rule is None else gain(before, after, scenes, protocol=rule, labels=graded)
    if gained is not None:
        say(f"\n{gained}\n")
    if as_json:
        sides_of = {} if gained is None else {"before": plain_scores(gained.before), "after": plain_scores(gained.after)}
        print_json({"rankings": str(out), **sides_of, "reranked": [found.history["reranked"] for found in after]})
    else:
        print_paths(out)


def _ranked_scenes(found: Any, scenes: Sequence[Any], file: Path) -> list[Any]:
    """The one scene that a single file ranks; all, where none fits alone: then it must be a joint ranking."""
    from covis.predictions import Lookup

    def fits(scene: Any) -> bool:
        sides = ((scene.queries, found.query_names), (scene.database, found.database_names))
        return all(bool((Lookup(images.names).rows(names) >= 0).all()) for images, names in sides)

    fitting = [scene for scene in scenes if fits(scene)]
    if len(fitting) > 1:
        raise InvalidInputError(
            f"{file} must rank one scene; its names are those of {' and '.join(scene.name for scene in fitting)}. "
            "Give the folder of that scene as DATA, or --rankings a folder with <scene>.npz."
        )
    return fitting or list(scenes)


def _files(rankings: Path, out: Path, scenes: Sequence[Any], *, overwrite: bool) -> list[Path]:
    """The rankings' files, after a look that the output fits them."""
    from covis.files import check_absent

    check_absent(out, overwrite=overwrite)
    if not rankings.exists():
        raise MissingFileError(f"Rankings must be a file, or a folder with <scene>.npz; there is no {rankings}.")
    if rankings.is_dir():
        if out.suffix == ".npz" or out.is_file():
            raise InvalidInputError(f"Rankings from the folder {rankings} are written to a folder; --out is {out}.")
        return [rankings / f"{scene.name}.npz" for scene in scenes]
    if out.suffix != ".npz":
        raise InvalidInputError(f"Rankings from the file {rankings} are written to a file, .npz; --out is {out}.")
    return [rankings]


def _judged(found: Sequence[Any], scenes: Sequence[Any], graded: Sequence[Any] | None, protocol: str | None) -> tuple[Any, Any]:
    """Scores of the rankings as they came, and their protocol; neither where none was asked for and the usual one cannot judge."""
    from covis.evaluation import default_protocol
    from covis.protocols import protocol as named
    from covis.reranking.gains import judge

    try:
        return judge(found, scenes, protocol=named(protocol or default_protocol(graded)), labels=graded)
    except InvalidInputError as error:
        if protocol is not None:
            raise
        say(f"no table: {error} Or give --protocol.")
        return None, None


def _write(after: Sequence[Any], out: Path, files: Sequence[Path], *, folder: bool, overwrite: bool) -> None:
    """A file, or a whole folder in one step."""
    from covis.files import atomic_path

    if not folder:
        after[0].save(out, overwrite=overwrite)
        return
    with atomic_path(out) as temporary:
        temporary.mkdir()
        for found, file in zip(after, files, strict=True):
            found.save(temporary / file.name)
