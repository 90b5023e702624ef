"""The commands that say where queries were taken, and write what a server takes: localise and convert predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.data import convert
from covis.cli.describing import Scenes, chosen_scenes
from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, check_outputs, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError, MissingFileError


@app.command("localise")
def localise_command(
    data: Data,
    out: Annotated[Path, typer.Option(help="The poses: an .npz for a single scene, a folder for several.", show_default=False)],
    rankings: Annotated[
        Path | None,
        typer.Option(
            help="Rankings: a file for a single scene, a folder with <scene>.npz; or a prediction text (.txt).", show_default=False
        ),
    ] = None,
    descriptors: Annotated[
        Path | None,
        typer.Option(help="Descriptors to search with, or beside --rankings to weigh with: as of covis evaluate.", show_default=False),
    ] = None,
    poses: Annotated[
        Path | None,
        typer.Option(
            help="Poses made before, to be scored: an .npz, a folder with <scene>.npz, or a pose file (.txt).", show_default=False
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="nearest (default): the first image's pose; ewb, bdi, csi: the average of the first k (docs/localisation.md).",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int | None, typer.Option(help="How many images are averaged; default: 20, and 1 for nearest.", show_default=False)] = None,
    alpha: Annotated[float | None, typer.Option(help="Exponent of csi; default: 8.", show_default=False)] = None,
    submission: Annotated[
        Literal["cmu", "robotcar"] | None,
        typer.Option(help="Also write the pose file for visuallocalization.net, beside --out and called .txt.", show_default=False),
    ] = None,
    repeated: Annotated[
        Literal["stop", "same"],
        typer.Option(help="Queries of one name in a pose file: an error, or the same photograph, as at the borders of CMU's slices."),
    ] = "stop",
    protocol: Annotated[
        str, typer.Option(help="poses, poses/M/D, robotcar-v2 or ecmu (covis ls pose-protocols); /strict behind it compares with <.")
    ] = "poses",
    scores: Annotated[Path | None, typer.Option(help="Also write the scores, JSON.", show_default=False)] = None,
    samples: Annotated[int, typer.Option(help="Bootstrap samples.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    patterns: Scenes = "*",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Give queries the poses of what was found for them; scores them where the truth is known, writes submissions where it is not."""
    from covis.localisation import pose_protocol, score_poses
    from covis.submissions import write_submission
    from covis.submissions.poses import name_lines

    rule = pose_protocol(protocol)
    given = {name: path for name, path in (("rankings", rankings), ("descriptors", descriptors), ("poses", poses)) if path is not None}
    options = {name: value for name, value in (("method", method), ("k", k), ("alpha", alpha)) if value is not None}
    _check_sources(given, options)
    scenes = chosen_scenes(read_scenes(data, layout, split, read), patterns)
    text = None if submission is None else _beside(out)
    files = _pose_files(out, scenes)
    outputs = [path for path in (*files, text, scores) if path is not None]
    check_outputs(outputs, _read(data, given, scenes), overwrite=overwrite, folder=out)
    if submission is not None:
        name_lines([scene.queries.names for scene in scenes], style=submission, repeated=repeated)
    without = [scene.name for scene in scenes if scene.queries.pose is None]
    if scores is not None and without:
        raise InvalidInputError(f"--scores must have the poses of the queries; those of {', '.join(without)} have none.")
    found = _loaded(poses, scenes, repeated) if poses is not None else _localised(scenes, given, options)
    made = None if without else score_poses(found, scenes, protocol=rule, samples=samples, seed=seed)
    writers: list[tuple[Path, Callable[[Path], object]]] = []
    if text is not None:
        writers.append((text, partial(write_submission, found, style=str(submission), repeated=repeated, overwrite=overwrite)))
    writers += [(file, partial(one.save, overwrite=overwrite)) for one, file in zip(found, files, strict=True)]
    if made is not None and scores is not None:
        writers.append((scores, partial(made.save, overwrite=overwrite)))
    _write(writers)
    lacking = sum(len(one.missing) for one in found)
    say(f"{sum(map(len, found))} queries, {lacking} without a pose" + (f"; no truth in {', '.join(without)}" if without else ""))
    if made is not None:
        say(f"\n{made}\n")
    if as_json:
        paths = {"poses": str(out), "submission": None if text is None else str(text), "scores": None if scores is None else str(scores)}
        counts = {"queries": sum(map(len, found)), "without_pose": lacking}
        print_json({**paths, **counts, "measured": None if made is None else made.as_dict()})
    else:
        print_paths(out, text, scores)


@convert.command("predictions")
def convert_predictions(
    rankings: Annotated[Path, typer.Argument(help="Rankings of covis, .npz: a file, or a folder with one a city.", show_default=False)],
    out: Annotated[Path, typer.Option(help="A .zip for the MSLS challenge, or the .csv that it holds.", show_default=False)],
    k: Annotated[int, typer.Option(help="How many images a line names at most.")] = 25,
    overwrite: Overwrite = False,
) -> None:
    """Write rankings as the MSLS challenge takes them: a zip that holds one csv, with the queries of all cities."""
    from covis.rankings import Rankings
    from covis.submissions import write_msls_submission

    files = sorted(rankings.glob("*.npz")) if rankings.is_dir() else [rankings]
    if not files:
        raise InvalidInputError(f"{rankings} must hold rankings, .npz; found none.")
    print_paths(write_msls_submission([Rankings.load(file) for file in files], out, k=k, overwrite=overwrite))


def _check_sources(given: dict[str, Path], options: dict[str, Any]) -> None:
    if not given or (len(given) > 1 and "poses" in given):
        raise InvalidInputError(
            "Exactly one of --rankings, --descriptors and --poses must be given, or the first two together; got "
            f"{', '.join(given) or 'none'}."
        )
    if "poses" in given and options:
        raise InvalidInputError(
            f"--poses gives poses as they are; got {', '.join(f'--{name}' for name in options)} with it, which make poses of rankings or "
            "descriptors. Leave out the one or the other."
        )


def _beside(out: Path) -> Path:
    """The pose file beside the poses, which are an .npz or a folder."""
    named = out.resolve() if out.name in ("", "..") else out
    return named.with_name(f"{named.stem if named.suffix == '.npz' else named.name}.txt")


def _pose_files(out: Path, scenes: Sequence[Any]) -> list[Path]:
    single = len(scenes) == 1
    if out.suffix.lower() == ".txt":
        raise InvalidInputError(f"--out is for the poses, an .npz or a folder; got {out}. The pose file (.txt) is written beside it.")
    if (out.suffix == ".npz") != single:
        raise InvalidInputError(
            f"Poses of {'one scene' if single else 'several scenes'} go to {'an .npz' if single else 'a folder'}; got {out}."
        )
    return [out] if single else [out / f"{scene.name}.npz" for scene in scenes]


def _read(data: Path, given: dict[str, Path], scenes: Sequence[Any]) -> list[tuple[str, Path]]:
    """What is read, by what it is called: DATA, what options give, and the files of scenes in their folders."""
    files = [
        (f"a file of --{name}", path / f"{scene.name}.npz")
        for name, path in given.items()
        if name != "descriptors" and path.is_dir()
        for scene in scenes
    ]
    return [("DATA", data), *((f"--{name}", path) for name, path in given.items()), *files]


def _localised(scenes: Sequence[Any], given: dict[str, Path], options: dict[str, Any]) -> list[Any]:
    from covis.localisation import METHODS, localise
    from covis.localisation.approximation import K
    from covis.lookup import resolve
    from covis.vector_files import read_vectors

    method = options.get("method", "nearest")
    resolve(method, METHODS, what="method of localisation")  # before an hour of search
    usual = 1 if method == "nearest" else K
    rankings, descriptors = given.get("rankings"), given.get("descriptors")
    described = [None] * len(scenes) if descriptors is None else read_vectors(descriptors, scenes)
    found = _searched(scenes, described, k=options.get("k") or usual) if rankings is None else _rankings(rankings, scenes)
    return [localise(one, scene, descriptors=pair, **options) for one, scene, pair in zip(found, scenes, described, strict=True)]


def _searched(scenes: Sequence[Any], described: Sequence[Any], *, k: int) -> list[Any]:
    """The first k images that are not the query itself; nothing is asked of positions, which the queries need not have."""
    from scipy import sparse

    from covis.labels import Labels
    from covis.searching import search_scenes

    nothing = [
        Labels(
            sparse.csr_array((len(scene.queries), len(scene.database))), scene.queries.names, scene.database.names, rule="nothing is known"
        )
        for scene in scenes
    ]
    found: list[Any] = search_scenes(scenes, described, protocol="graded/0.5", labels=nothing, k=k)
    return found


def _rankings(path: Path, scenes: Sequence[Any]) -> list[Any]:
    from covis.predictions import Predictions, Side
    from covis.rankings import Rankings

    if path.suffix == ".txt":
        import numpy as np

        sides = [Side(scene.queries.names, scene.database.names, np.zeros(len(scene.queries), dtype=bool)) for scene in scenes]
        return list(Predictions.read(path).by_scene(sides))
    return [Rankings.load(file) for file in _files_of(path, scenes, "--rankings")]


def _files_of(path: Path, scenes: Sequence[Any], option: str) -> list[Path]:
    """The file of each scene: the one that was given, or those of a folder."""
    if not path.exists():
        raise MissingFileError(f"{option} {path} must exist; there is no such file or folder.")
    if path.is_file() and len(scenes) > 1:
        raise InvalidInputError(
            f"A file must be of one scene, since a pose is in its scene's own frame; the data has {len(scenes)}. Give {option} a folder "
            "with <scene>.npz, or choose one with --scenes."
        )
    return [path] if path.is_file() else [path / f"{scene.name}.npz" for scene in scenes]


def _loaded(path: Path, scenes: Sequence[Any], repeated: Literal["stop", "same"]) -> list[Any]:
    from covis.localisation import Poses
    from covis.submissions import match_submission, read_submission

    if path.suffix == ".txt":
        return match_submission(read_submission(path), scenes, repeated=repeated)
    return [Poses.load(file) for file in _files_of(path, scenes, "--poses")]


def _write(writers: Sequence[tuple[Path, Callable[[Path], object]]]) -> None:
    """Write one after another; where one fails, those that were not there before are taken back."""
    with ExitStack() as undo:
        for path, write in writers:
            if not path.exists():
                undo.callback(path.unlink, missing_ok=True)
            write(path)
        undo.pop_all()
