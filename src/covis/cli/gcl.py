"""Commands for those who come from GCL's reference: its results as files of covis, and those of covis as its results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from covis.cli.data import convert
from covis.cli.shell import AsJson, Layout, Out, Overwrite, Read, Split, print_json, print_paths, read_scenes, say
from covis.errors import InvalidInputError

What = Literal["auto", "scores", "labels", "predictions", "distances", "features"]
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
    from covis.datasets import gcl_results

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
        written = [one.save(out / scene / side, overwrite=overwrite) for scene, (side, one) in sides]
    else:
        found = gcl_results.read_rankings(file, scenes, k=k)
        places = [out] if out.suffix == ".npz" and len(scenes) == 1 else [out / f"{scene.name}.npz" for scene in scenes]
        written = [one.save(place, overwrite=overwrite) for one, place in zip(found, places, strict=True)]
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
    from covis.files import check_absent

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
    scenes = read_scenes(data, layout, split, read)
    named = by_scene or len(scenes) > 1
    written = []
    if search and rankings is not None:
        raise InvalidInputError("The predictions must come from --rankings or from --search; got both.")
    if descriptors is not None:
        written += _write_features(scenes, descriptors, out, named=named, distances=distances, overwrite=overwrite)
    if rankings is not None or search:
        found = _searched(scenes, descriptors, k=k) if rankings is None else _loaded(scenes, rankings)
        written += _write_rankings(found, out, text=text or named, k=k, overwrite=overwrite)
    if labels is not None:
        options = {"key": key, "also_binary": also_binary, "condensed": condensed}
        written += _write_labels(scenes, labels, out, options, named=named, overwrite=overwrite)
    if scores is not None:
        from covis.datasets.gcl_scores import write_scores
        from covis.scores import Scores

        values = Scores.load(scores).per_query
        ends = [out.with_name(out.name + end) for end in ("_scores.txt", "_recall.txt", "_result.txt")]
        for place in ends:
            check_absent(place, overwrite=overwrite)
        written += [write_scores(values, place, overwrite=overwrite) for place in ends]
    print_paths(*written)


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
    from covis.datasets.gcl_scores import read_scores
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
    places = [out] if out.suffix == ".npz" and len(scenes) == 1 else [out / f"{scene.name}.npz" for scene in scenes]
    for one in found:
        say(str(one.summary()))
    return [one.save(place, overwrite=overwrite) for one, place in zip(found, places, strict=True)]


def _write_features(scenes: list[Any], source: Path, out: Path, *, named: bool, distances: bool, overwrite: bool) -> list[Path]:
    from covis.datasets.gcl_distances import write_distances
    from covis.datasets.gcl_results import write_features
    from covis.files import check_absent
    from covis.vector_files import read_vectors

    described = read_vectors(source, scenes)
    ends = []
    for scene, (queries, _) in zip(scenes, described, strict=True):
        whitened = f"_whiten_{queries.dim}" if "whitened" in queries.history else ""
        ends.append(out.with_name(f"{out.name}{f'_{scene.name}' if named else ''}_distances{whitened}.npy"))
    for place in ends if distances else ():
        check_absent(place, overwrite=overwrite)
    written = write_features(described, scenes, out, by_scene=named, overwrite=overwrite)
    if distances:
        written += [write_distances(pair, place, overwrite=overwrite) for pair, place in zip(described, ends, strict=True)]
    return written


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


def _write_rankings(found: list[Any], out: Path, *, text: bool, k: int, overwrite: bool) -> list[Path]:
    from covis.datasets.gcl_results import write_predictions, write_retrieved

    written = []
    if len(found) == 1:
        written.append(write_predictions(found[0], out.with_name(f"{out.name}_predictions.npy"), k=k, overwrite=overwrite))
    if text:
        written.append(write_retrieved(found, out.with_name(f"{out.name}_predictions.txt"), k=k, overwrite=overwrite))
    return written


def _write_labels(scenes: list[Any], source: Path, out: Path, options: dict[str, Any], *, named: bool, overwrite: bool) -> list[Path]:
    from covis.datasets.gcl_h5 import write_labels
    from covis.datasets.label_files import load_labels

    places = [out / f"{scene.name}_gt.h5" for scene in scenes] if named else [out.with_name(f"{out.name}_gt.h5")]
    found = load_labels(source, scenes)
    return [write_labels(one, place, **options, overwrite=overwrite) for one, place in zip(found, places, strict=True)]
