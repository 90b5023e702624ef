"""The commands that say where queries were taken, and write what a server takes: localise and convert predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.data import convert
from covis.cli.describing import Scenes, chosen_scenes
from covis.cli.shell import AsJson, Data, Layout, Overwrite, Read, Split, app, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError


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
        str, typer.Option(help="nearest: the first image's pose; ewb, bdi, csi: the average of the first k (docs/localisation.md).")
    ] = "nearest",
    k: Annotated[int | None, typer.Option(help="How many images are averaged; default: 20, and 1 for nearest.", show_default=False)] = None,
    alpha: Annotated[float, typer.Option(help="Exponent of csi.")] = 8.0,
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
    from covis.files import check_absent
    from covis.localisation import pose_protocol, score_poses
    from covis.submissions import write_submission

    rule = pose_protocol(protocol)
    given = {"rankings": rankings, "descriptors": descriptors, "poses": poses}
    _check_sources({name: path for name, path in given.items() if path is not None})
    scenes = chosen_scenes(read_scenes(data, layout, split, read), patterns)
    text = None if submission is None else out.with_name(f"{out.stem}.txt")
    _check_outputs(out, text, scores, single=len(scenes) == 1)
    for path in (out, text, scores):
        if path is not None:
            check_absent(path, overwrite=overwrite)
    without = [scene.name for scene in scenes if scene.queries.pose is None]
    if scores is not None and without:
        raise InvalidInputError(f"--scores must have the poses of the queries; those of {', '.join(without)} have none.")
    found = _loaded(poses, scenes, repeated) if poses is not None else _localised(scenes, given, method=method, k=k, alpha=alpha)
    made = None if without else score_poses(found, scenes, protocol=rule, samples=samples, seed=seed)
    if text is not None:
        write_submission(found, text, style=str(submission), repeated=repeated, overwrite=overwrite)
    _write(found, out, scenes, overwrite=overwrite)
    if made is not None and scores is not None:
        made.save(scores, overwrite=overwrite)
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


def _check_sources(given: dict[str, Path]) -> None:
    if not given or (len(given) > 1 and "poses" in given):
        raise InvalidInputError(
            "Exactly one of --rankings, --descriptors and --poses must be given, or the first two together; got "
            f"{', '.join(given) or 'none'}."
        )


def _check_outputs(out: Path, text: Path | None, scores: Path | None, *, single: bool) -> None:
    if (out.suffix == ".npz") != single:
        raise InvalidInputError(
            f"Poses of {'one scene' if single else 'several scenes'} go to {'an .npz' if single else 'a folder'}; got {out}."
        )
    chosen = [path.absolute() for path in (out, text, scores) if path is not None]
    if len(set(chosen)) < len(chosen):
        raise InvalidInputError(f"The poses, the submission and the scores must be different files; got {', '.join(map(str, chosen))}.")


def _localised(scenes: Sequence[Any], given: dict[str, Path | None], *, method: str, k: int | None, alpha: float) -> list[Any]:
    from covis.localisation import METHODS, localise
    from covis.localisation.approximation import K
    from covis.lookup import resolve
    from covis.vector_files import read_vectors

    resolve(method, METHODS, what="method of localisation")  # before an hour of search
    usual = 1 if method == "nearest" else K
    rankings, descriptors = given["rankings"], given["descriptors"]
    described = [None] * len(scenes) if descriptors is None else read_vectors(descriptors, scenes)
    found = _searched(scenes, described, k=k or usual) if rankings is None else _rankings(rankings, scenes)
    options: dict[str, Any] = {"method": method, "k": k, "alpha": alpha}
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
    if path.is_file() and len(scenes) > 1:
        raise InvalidInputError(
            f"A file must rank one scene, since a pose is in its scene's own frame; the data has {len(scenes)}. Give a folder with "
            "<scene>.npz, or choose one with --scenes."
        )
    return [Rankings.load(file) for file in ([path] if path.is_file() else [path / f"{scene.name}.npz" for scene in scenes])]


def _loaded(path: Path, scenes: Sequence[Any], repeated: Literal["stop", "same"]) -> list[Any]:
    from covis.localisation import Poses
    from covis.submissions import match_submission, read_submission

    if path.suffix == ".txt":
        return match_submission(read_submission(path), scenes, repeated=repeated)
    return [Poses.load(file) for file in ([path] if path.is_file() else [path / f"{scene.name}.npz" for scene in scenes])]


def _write(found: Sequence[Any], out: Path, scenes: Sequence[Any], *, overwrite: bool) -> None:
    """A file, or a whole folder in one step."""
    from covis.files import atomic_path

    if out.suffix == ".npz":
        found[0].save(out, overwrite=overwrite)
        return
    with atomic_path(out) as folder:
        folder.mkdir()
        for one, scene in zip(found, scenes, strict=True):
            one.save(folder / f"{scene.name}.npz")
