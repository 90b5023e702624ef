"""Commands for those who come from GCL's reference: its results as files of covis, and those of covis as its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, TypeAlias

import typer

from covis.cli.data import convert
from covis.cli.shell import AsJson, Layout, Out, Overwrite, Read, Split, print_json, print_paths, read_scenes, say
from covis.errors import CovisError, InvalidInputError, OutputFailedError

What = Literal["auto", "scores", "labels", "predictions", "distances", "features"]
Job: TypeAlias = tuple[list[str], Callable[[Path], Any]]
"""How the names of some files end, and what writes them, given what they begin with."""
ENDS = {
    "scores": ("_scores.txt", "_recall.txt", "_result.txt", "_results.txt", "_results_best.txt"),
    "labels": (".h5",),
    "predictions": ("_predictions.npy",),
    "distances": ("_distances.npy",),
}
"""How the names of each kind end; features are told by what they begin with."""


@convert.command("from-gcl")
def convert_from_gcl(
    file: Annotated[Path, typer.Argument(help="A file of its results, or what the names of several begin with.", show_default=False)],
    out: Out,
    data: Annotated[
        Path | None, typer.Option(help="The data set that it was made of, for all but scores: its JSON indexes.", show_default=False)
    ] = None,
    what: Annotated[
        What, typer.Option(help="What the file is; auto: by the end of its name, features where that tells nothing else.")
    ] = "auto",
    whitened: Annotated[
        int | None, typer.Option(help="Of features: those of apply_pca with so many dimensions.", show_default=False)
    ] = None,
    key: Annotated[str, typer.Option(help="Of an .h5: fov, sim, or another; auto: fov where there is one, else sim.")] = "auto",
    k: Annotated[int, typer.Option(help="Of distances: how many of each query's nearest are kept.")] = 100,
    layout: Layout = "gcl",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a file of covis of a file of GCL's reference: rankings, descriptors, labels; scores are printed and written as JSON."""
    from covis.datasets.gcl import results as gcl_results

    kind = _kind(file) if what == "auto" else what
    idle = {"--whitened": (whitened is not None, "features"), "--key": (key != "auto", "labels"), "--k": (k != 100, "distances")}
    if unfit := [f"{name} is of {of}" for name, (used, of) in idle.items() if used and of != kind]:
        raise InvalidInputError(f"{file} is taken to be {kind}; {' and '.join(unfit)}. Leave that out, or say --what.")
    if kind == "scores":
        _scores(file, out, as_json=as_json, overwrite=overwrite)
        return
    if data is None:
        raise InvalidInputError(
            f"--data must be the data set that {file} was made of: its {kind} have no names, and are taken in its order."
        )
    scenes = read_scenes(data, layout, split, read)
    if kind == "labels":
        written = _labels(file, out, scenes, key=key, overwrite=overwrite)
    elif kind == "features":
        made = gcl_results.read_features(file, scenes, whitened=whitened)
        sides = [
            (scene.name, one) for scene, pair in zip(scenes, made, strict=True) for one in zip(("queries", "database"), pair, strict=True)
        ]
        written = _saved([(out / scene / side, one) for scene, (side, one) in sides], overwrite=overwrite)
    else:
        found = gcl_results.read_rankings(file, scenes, k=k)
        written = _saved(zip(_places(out, scenes), found, strict=True), overwrite=overwrite)
    if as_json:
        print_json({"what": kind, "written": [str(path) for path in written]})
    else:
        print_paths(*written)


@convert.command("to-gcl")
def convert_to_gcl(
    data: Annotated[Path, typer.Argument(help="The data set, in the order of the JSON indexes.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="What the names begin with, as results/pitts30k/test/MSLS_resnet50_GeM_480_GCL.", show_default=False)
    ],
    descriptors: Annotated[
        Path | None, typer.Option(help="Descriptors: OUT_queryfeats.npy and OUT_mapfeats.npy, float64.", show_default=False)
    ] = None,
    distances: Annotated[bool, typer.Option("--distances", help="With them OUT_distances.npy too, float16, as in 2021.")] = False,
    search: Annotated[
        bool, typer.Option("--search", help="And search them exactly, each scene alone, for what --rankings writes.")
    ] = False,
    rankings: Annotated[
        Path | None, typer.Option(help="Rankings: OUT_predictions.npy; of several scenes OUT_predictions.txt.", show_default=False)
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="OUT_predictions.txt of a single scene too, as for MSLS.")] = False,
    k: Annotated[int, typer.Option(help="How many the predictions name.")] = 30,
    labels: Annotated[Path | None, typer.Option(help="Labels: OUT_gt.h5; of several scenes a folder OUT.", show_default=False)] = None,
    key: Annotated[str, typer.Option(help="What they are called in it: fov, or sim for Pittsburgh and Tokyo.")] = "fov",
    also_binary: Annotated[
        float | None,
        typer.Option(help="And sim: 1 from this similarity on. Its binary training asks for both keys.", show_default=False),
    ] = None,
    condensed: Annotated[bool, typer.Option("--condensed", help="Of one set against itself, the pairs i < j as one row.")] = False,
    scores: Annotated[
        Path | None, typer.Option(help="Scores: OUT_scores.txt, OUT_recall.txt and OUT_result.txt.", show_default=False)
    ] = None,
    by_scene: Annotated[
        bool, typer.Option("--by-scene", help="The scene's name in the files' names though it is one, as for MSLS.")
    ] = False,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
) -> None:
    """Write what covis made as the files that GCL's reference writes and reads: features, distances, predictions, labels, scores."""
    if not any((descriptors, rankings, labels, scores)):
        raise InvalidInputError("At least one of --descriptors, --rankings, --labels and --scores must be given; they are what is written.")
    needs = {
        "--distances": (distances, descriptors),
        "--search": (search, descriptors),
        "--text": (text, rankings or (search or None)),
        "--condensed": (condensed, labels),
    }
    needs |= {
        "--also-binary": (also_binary is not None, labels),
        "--key": (key != "fov", labels),
        "--k": (k != 30, rankings or (search or None)),
    }
    if alone := [name for name, (used, source) in needs.items() if used and source is None]:
        raise InvalidInputError(f"{' and '.join(alone)} must come with what is to be written: --descriptors, --rankings or --labels.")
    if search and rankings is not None:
        raise InvalidInputError("The predictions must come from --rankings or from --search; got both.")
    scenes = read_scenes(data, layout, split, read)
    named = by_scene or len(scenes) > 1
    jobs: list[Job] = []
    if descriptors is not None:
        jobs += _feature_jobs(scenes, descriptors, named=named, distances=distances)
    if rankings is not None or search:
        loaded = None if rankings is None else _loaded(scenes, rankings)
        found = cache(lambda: _searched(scenes, descriptors, k=k) if loaded is None else loaded)
        jobs += _ranking_jobs(found, len(scenes), text=text or named, k=k)
    if labels is not None:
        jobs += _label_jobs(scenes, labels, {"key": key, "also_binary": also_binary, "condensed": condensed}, named=named)
    if scores is not None:
        jobs += _score_jobs(scores)
    print_paths(*_all_or_none(jobs, out, overwrite=overwrite))


def _all_or_none(jobs: Sequence[Job], out: Path, *, overwrite: bool) -> list[Path]:
    """Write all files, whose names begin with `out`, or none: into a folder beside them first, whence they move together."""
    from covis.files import check_absent

    if out.name in ("", ".."):
        raise InvalidInputError(f"--out must be what the files' names begin with, as results/net; got {str(out)!r}.")
    ends = [end for some, _ in jobs for end in some]
    for end in ends:
        check_absent(f"{out}{end}", overwrite=overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as folder:
            for _, write in jobs:
                write(Path(folder, out.name))
            for end in ends:
                target = check_absent(f"{out}{end}", overwrite=overwrite)
                target.parent.mkdir(exist_ok=True)
                Path(folder, f"{out.name}{end}").replace(target)
    except OSError as error:
        if isinstance(error, CovisError):
            raise
        raise OutputFailedError(f"{out} could not be written: {error.strerror or error}. Free the disk or choose another --out.") from error
    return [Path(f"{out}{end}") for end in ends]


def _kind(file: Path) -> str:
    """What a file is, by the end of its name; of whitened results the number of dimensions stands there."""
    name = file.name.partition(".h5:")[0] + ".h5" if ".h5:" in file.name else file.name
    if "_result_whiten_" in name and name.endswith(".txt"):
        return "scores"
    if name.endswith((".txt", ".csv")) and not name.endswith(ENDS["scores"]):
        raise InvalidInputError(
            f"{file} must be a file of rows, or a text of scores ({', '.join(ENDS['scores'])}). A text of predictions has names, and is "
            "read as it is: covis evaluate --predictions."
        )
    return next((kind for kind, ends in ENDS.items() if name.endswith(ends)), "features")


def _scores(file: Path, out: Path, *, as_json: bool, overwrite: bool) -> None:
    from covis.datasets.gcl.scores import read_scores
    from covis.files import check_absent, write_json

    check_absent(out, overwrite=overwrite)
    found = read_scores(file)
    write_json(out, {"file": file.name, "metrics": found})
    say("\n".join(f"  {name:<12} {value:.4f}" for name, value in found.items()))
    if as_json:
        print_json({"file": str(file), "metrics": found})
    else:
        print_paths(out)


def _labels(file: Path, out: Path, scenes: list[Any], *, key: str, overwrite: bool) -> list[Path]:
    from covis.datasets.label_files import load_labels

    found = load_labels(file if key == "auto" else file.with_name(f"{file.name}:{key}"), scenes)
    for one in found:
        say(str(one.summary()))
    return _saved(zip(_places(out, scenes), found, strict=True), overwrite=overwrite)


def _places(out: Path, scenes: list[Any]) -> list[Path]:
    return [out] if out.suffix == ".npz" and len(scenes) == 1 else [out / f"{scene.name}.npz" for scene in scenes]


def _saved(made: Iterable[tuple[Path, Any]], *, overwrite: bool) -> list[Path]:
    """Each saved at its place, after a look that none is there."""
    from covis.files import check_absent

    jobs = [(check_absent(place, overwrite=overwrite), one) for place, one in made]
    return [one.save(place, overwrite=overwrite) for place, one in jobs]


def _feature_jobs(scenes: list[Any], source: Path, *, named: bool, distances: bool) -> list[Job]:
    from covis.datasets.gcl.distances import write_distances
    from covis.datasets.gcl.results import write_features
    from covis.vector_files import read_vectors

    described = read_vectors(source, scenes)
    middles = [f"_{scene.name}" if named else "" for scene in scenes]
    whitened = [tuple(f"_whiten_{one.dim}" if "whitened" in one.history else "" for one in pair) for pair in described]
    sides = [
        f"{middle}_{side}{end}.npy"
        for middle, ends in zip(middles, whitened, strict=True)
        for side, end in zip(("queryfeats", "mapfeats"), ends, strict=True)
    ]
    jobs: list[Job] = [(sides, lambda begin: write_features(described, scenes, begin, by_scene=named))]
    for pair, middle, ends in zip(described, middles, whitened, strict=True):
        end = f"{middle}_distances{ends[0]}.npy"
        jobs += [([end], partial(_at_end, write_distances, pair, end))] if distances else []
    return jobs


def _at_end(write: Callable[[Any, Path], Any], what: Any, end: str, begin: Path) -> None:
    write(what, Path(f"{begin}{end}"))


def _searched(scenes: list[Any], descriptors: Path | None, *, k: int) -> list[Any]:
    from covis.indexes import index
    from covis.vector_files import read_vectors

    return [index(database).search(queries, k=k) for queries, database in read_vectors(descriptors or "", scenes)]


def _loaded(scenes: list[Any], source: Path) -> list[Any]:
    from covis.rankings import Rankings

    files = [source] if source.is_file() and len(scenes) == 1 else [source / f"{scene.name}.npz" for scene in scenes]
    found = [Rankings.load(file) for file in files]
    for file, one, scene in zip(files, found, scenes, strict=True):
        if (one.query_names, one.database_names) != (scene.queries.names, scene.database.names):
            raise InvalidInputError(
                f"{file} must rank the images of scene {scene.name!r}, all of them and in their order: a _predictions.npy has no names. "
                "Search again with the data as it is read now."
            )
    return found


def _ranking_jobs(found: Callable[[], list[Any]], scenes: int, *, text: bool, k: int) -> list[Job]:
    """Of rankings that are asked for when the first file is written: a search comes after the look at what is there."""
    from covis.datasets.gcl.results import write_predictions, write_retrieved

    one: list[Job] = [(["_predictions.npy"], lambda begin: write_predictions(found()[0], f"{begin}_predictions.npy", k=k))]
    every: list[Job] = [(["_predictions.txt"], lambda begin: write_retrieved(found(), f"{begin}_predictions.txt", k=k))]
    return (one if scenes == 1 else []) + (every if text else [])


def _label_jobs(scenes: list[Any], source: Path, options: dict[str, Any], *, named: bool) -> list[Job]:
    from covis.datasets.gcl.h5 import write_labels
    from covis.datasets.label_files import load_labels

    ends = [f"/{scene.name}_gt.h5" if named else "_gt.h5" for scene in scenes]
    found = load_labels(source, scenes)
    return [([end], partial(_at_end, partial(write_labels, **options), one, end)) for one, end in zip(found, ends, strict=True)]


def _score_jobs(source: Path) -> list[Job]:
    from covis.datasets.gcl.scores import write_scores
    from covis.scores import Scores

    values = Scores.load(source).per_query
    return [([end], partial(_at_end, write_scores, values, end)) for end in ("_scores.txt", "_recall.txt", "_result.txt")]
