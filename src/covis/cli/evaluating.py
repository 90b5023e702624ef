"""What covis evaluate does before it scores: finds, describes, whitens and searches, and notes each choice."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from covis.cli.shell import say
from covis.errors import InvalidInputError

SOURCES = ("rankings", "predictions", "descriptors", "model")


@dataclass(frozen=True, eq=False)
class Choices:
    """What the command line asks for; of the sources exactly one is given.

    Attributes:
        rankings: a file, or a folder with <scene>.npz.
        predictions: a text.
        descriptors: a folder or a file, of covis or anyone's.
        model: what `open_model` takes.
        engine: what computes.
        device: where torch computes.
        options: of the model.
        batch: images at once.
        damaged: what is done about images that cannot be described.
        work: where they are described to.
        whiten: dimensions to whiten to; None: not.
        whitening: a file that holds one.
        index: the kind of the index.
        index_options: of it.
        k: how many to search for.

    Raises:
        InvalidInputError: no source or several are given, or an option that the given one has no use for.
    """

    rankings: Path | None
    predictions: Path | None
    descriptors: Path | None
    model: str | None
    engine: Literal["auto", "torch", "onnx"]
    device: Literal["auto", "cpu", "cuda"]
    options: Mapping[str, Any]
    batch: int
    damaged: Literal["stop", "skip"]
    work: Path
    whiten: int | None
    whitening: Path | None
    index: str
    index_options: Mapping[str, Any]
    k: int

    def __post_init__(self) -> None:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidInputError(
                f"Exactly one of --rankings, --predictions, --descriptors and --model must be given; got {', '.join(given) or 'none'}."
            )
        describing = {
            "--engine": self.engine != "auto",
            "--device": self.device != "auto",
            "--model-option": bool(self.options),
            "--damaged": self.damaged != "stop",
        }
        searching = {"--whiten": self.whiten is not None, "--whitening": self.whitening is not None}
        searching |= {"--index": self.index != "exact", "--index-option": bool(self.index_options)}
        idle = {**({} if given == ["model"] else describing), **({} if given[0] in ("model", "descriptors") else searching)}
        if without := [name for name, used in idle.items() if used]:
            raise InvalidInputError(f"{' and '.join(without)} must come with what uses it; --{given[0]} does not.")

    @property
    def source(self) -> str:
        """The one that is given."""
        return next(name for name in SOURCES if getattr(self, name) is not None)


def ranked(
    scenes: Sequence[Any], labels: Sequence[Any] | None, rule: Any, choices: Choices
) -> tuple[Any, list[Any] | None, dict[str, Any]]:
    """What the given source holds or leads to: rankings or predictions; descriptors where there are any; and how they were made."""
    from covis.predictions import Predictions
    from covis.rankings import Rankings

    source = choices.source
    path = Path(getattr(choices, source))
    made: dict[str, Any] = {"source": source, "given": str(getattr(choices, source))}
    if source == "predictions" or (source == "rankings" and path.suffix == ".txt"):
        return Predictions.read(path), None, {**made, "versions": _versions()}
    if source == "rankings" and path.suffix != ".npz" and (path.suffix == ".npy" or not path.exists()):
        rankings, more = _of_gcl(path, scenes, labels, rule=rule, choices=choices)
        return rankings, None, {**made, **more, "versions": _versions()}
    if source == "rankings":
        files = [path] if path.is_file() else [path / f"{scene.name}.npz" for scene in scenes]
        return [Rankings.load(file) for file in files], None, {**made, "versions": _versions()}
    described, more = _described(scenes, labels, rule, choices)
    found, searched = _searched(scenes, labels, rule=rule, choices=choices, described=described)
    return found, described, {**made, **more, **searched, "versions": _versions("faiss", *(("torch",) if source == "model" else ()))}


def _of_gcl(
    path: Path, scenes: Sequence[Any], labels: Sequence[Any] | None, *, rule: Any, choices: Choices
) -> tuple[list[Any], dict[str, Any]]:
    """Rankings of GCL's reference, `_predictions.npy` or `_distances.npy`, as deep as the protocol asks; and of distances their AP."""
    from covis.datasets.gcl.distances import read_distances, stored_precision
    from covis.datasets.gcl.results import read_rankings, result_files
    from covis.searching import search_depths
    from covis.truths import truth

    if rule.scope == "joint":
        raise InvalidInputError(f"{path} ranks a scene's own database; the protocol {rule.name} searches one joint index. Choose another.")
    found = read_rankings(path, scenes, k=search_depths(scenes, rule, labels, k=max(choices.k, *rule.ks)))
    if path.name.endswith("predictions.npy") or rule.windows != (1, 1):
        return found, {}
    given: Sequence[Any] = [None] * len(scenes) if labels is None else labels
    stored = [read_distances(file, scene) for file, scene in zip(result_files(path, scenes, "distances"), scenes, strict=True)]
    precision = stored_precision(stored, [truth(scene, rule, one) for scene, one in zip(scenes, given, strict=True)])
    say(f"AP over all pairs, of the distances as they are stored ({stored[0].array.dtype}): {precision:.6f}")
    return found, {"AP of the stored distances": None if precision != precision else precision}


def _described(scenes: Sequence[Any], labels: Sequence[Any] | None, rule: Any, choices: Choices) -> tuple[list[Any], dict[str, Any]]:
    """Descriptors of the scenes, whitened where that is asked; what is wrong with the questions is said before an hour of answers."""
    from covis.searching import search_depths
    from covis.whitening import Whitening

    search_depths(scenes, rule, labels, k=choices.k)
    _check_k(scenes, rule, choices.k)
    given = None if choices.whitening is None else Whitening.load(choices.whitening)
    made: dict[str, Any] = {}
    if choices.source == "descriptors":
        from covis.vector_files import read_vectors

        described = read_vectors(choices.descriptors or "", scenes)
        _say_foreign(described)
    else:
        described, made["model"] = _by_model(scenes, choices)
    made["described"] = [_side_stories(scene, pair) for scene, pair in zip(scenes, described, strict=True)]
    if choices.whiten is None and given is None:
        return described, {**made, **_transductive(scenes, [database.history.get("whitened") for _, database in described])}
    whiten = _whitening(given, [database for _, database in described], choices)
    history = whiten.history
    made["whitening"] = {"file": None if choices.whitening is None else str(choices.whitening), **history}
    fitted = f"{history['fitted_on']} of {choices.whitening}" if given else "databases that are searched (transductive)"
    say(f"whitened to {whiten.dim} dimensions, fitted on the {fitted}: {history['count']} descriptors")
    made |= _transductive(scenes, [history], known=given is None)
    return [(whiten(queries), whiten(database)) for queries, database in described], made


def _transductive(scenes: Sequence[Any], whitened: Sequence[Any], *, known: bool = True) -> dict[str, Any]:
    """Whether a whitening was fitted on a database that is searched; None of a file's, which may mean another database by that word."""
    from covis.scores import fitted_on_searched

    records = [one for one in whitened if isinstance(one, Mapping)]
    if not records:
        return {}
    found = any(fitted_on_searched(one.get("fitted_on"), [scene.name for scene in scenes]) for one in records)
    return {"transductive": None if found and not known else found}


def _by_model(scenes: Sequence[Any], choices: Choices) -> tuple[list[Any], dict[str, Any]]:
    from covis.cli.describing import opened
    from covis.searching import describe_scenes

    count = sum(len(side) for scene in scenes for side in ((scene.database,) if scene.training else (scene.queries, scene.database)))
    model = opened(choices.model or "", engine=choices.engine, device=choices.device, count=count, options=dict(choices.options))
    say(f"model {choices.model} ({model.digest}): {model.dim} dimensions, {model.height} x {model.width} pixels, {model.engine}")
    described = describe_scenes(model, scenes, work=choices.work, batch=choices.batch, damaged=choices.damaged, say=say, progress=True)
    story = {name: getattr(model, name) for name in ("digest", "engine", "dim", "height", "width", "resize")}
    return described, {"spec": choices.model, **story, "options": dict(choices.options), "damaged": choices.damaged}


def _whitening(given: Any, databases: Sequence[Any], choices: Choices) -> Any:
    from covis.whitening import fit_whitening

    if given is None:
        return fit_whitening(databases, dim=choices.whiten or 0)
    return given.at(choices.whiten) if choices.whiten else given


def _searched(
    scenes: Sequence[Any], labels: Sequence[Any] | None, *, rule: Any, choices: Choices, described: Sequence[Any]
) -> tuple[list[Any], dict[str, Any]]:
    from covis.searching import search_scenes

    options = dict(choices.index_options)
    found = search_scenes(scenes, described, protocol=rule, labels=labels, k=choices.k, kind=choices.index, options=options or None)
    return found, {"k": choices.k, "depths": [one.k for one in found], "index": {"kind": choices.index, "options": options}}


def _check_k(scenes: Sequence[Any], rule: Any, k: int) -> None:
    sizes = [len(scene.database) for scene in scenes]
    largest = sum(sizes) if rule.scope == "joint" else max(sizes, default=0)
    needed = min(max(rule.ks), largest)
    if k < needed and rule.short == "refuse":
        raise InvalidInputError(f"--k must be at least {needed}, the largest k that the protocol {rule.name} asks for; got {k}.")


def _side_stories(scene: Any, pair: Sequence[Any]) -> dict[str, Any]:
    """What is known of a scene's descriptors: how many, and what was done to them."""
    return {"scene": scene.name} | {
        side: {"count": len(one), "dim": one.dim, "dtype": str(one.vectors.dtype), "model": one.model, **one.history}
        for side, one in zip(("queries", "database"), pair, strict=True)
    }


def _say_foreign(described: Sequence[Any]) -> None:
    for story in {id(one): one.history["foreign"] for pair in described for one in pair if "foreign" in one.history}.values():
        said = f", {story['others']} of other images left out" if story["others"] else ""
        say(f"{story['file']}: vectors {story['found']}, stored as {story['dtype']}{said}")


def _versions(*libraries: str) -> dict[str, str]:
    """Of what computed: covis, numpy, and those of the libraries that were imported."""
    from covis import __version__

    also = ("onnxruntime",) if "torch" in libraries else ()
    used = {name: sys.modules[name] for name in ("numpy", *libraries, *also) if name in sys.modules}
    return {"covis": __version__} | {name: str(getattr(module, "__version__", "unknown")) for name, module in used.items()}
