"""The commands on models that neither train nor describe: checkpoints of other code made into ours, networks as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from covis.cli.data import convert
from covis.cli.shell import Layout, Out, Overwrite, Read, Split, app, print_paths, read_scenes, say
from covis.errors import InvalidInputError, MissingFileError


@convert.command("gcl-checkpoint")
def convert_gcl_checkpoint(
    file: Annotated[Path, typer.Argument(help="The .pth file of GCL's reference implementation.", show_default=False)],
    backbone: Annotated[str, typer.Option(help="Which network it is of (covis ls backbones).", show_default=False)],
    aggregator: Annotated[str, typer.Option(help="gem, average or max; in the reference GeM, avg, max.", show_default=False)],
    out: Out,
    normalize: Annotated[bool, typer.Option(help="Divide descriptors by their L2 norm, as the reference does by default.")] = True,
    height: Annotated[int, typer.Option(help="Pixels of the network's input.")] = 480,
    width: Annotated[int, typer.Option(help="Pixels of the network's input.")] = 640,
    resize: Annotated[str, typer.Option(help="pil: both sides; pil-crop: the shorter side, then the centre (squares).")] = "pil",
    overwrite: Overwrite = False,
) -> None:
    """Make a model of a checkpoint of GCL's reference implementation; its descriptors are the reference's."""
    from covis.files import check_absent
    from covis.models import checkpoints, gcl_checkpoints

    check_absent(out, overwrite=overwrite)
    model = gcl_checkpoints.convert_gcl_checkpoint(
        file,
        backbone=backbone,
        aggregator=aggregator,
        normalize=normalize,
        height=height,
        width=width,
        resize=resize,  # type: ignore[arg-type] # the function says in words which it takes
    )
    print_paths(checkpoints.save(model, out, overwrite=overwrite))


@convert.command("to-gcl-checkpoint")
def convert_to_gcl_checkpoint(
    model: Annotated[Path, typer.Argument(help="A model's folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .pth file; the reference names its results after it.", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Write a model as a checkpoint that GCL's reference implementation loads."""
    from covis.models import checkpoints, gcl_checkpoints

    loaded = checkpoints.load(model)
    print_paths(gcl_checkpoints.write_gcl_checkpoint(loaded, out, overwrite=overwrite))
    one, pool = loaded.settings, {"gem": "GeM", "average": "avg", "max": "max"}[loaded.settings.aggregator]
    backbone = "resnext" if one.backbone.startswith("resnext") else one.backbone
    norm = "L2" if one.normalize else "none"
    say(
        f"for the reference: --backbone {backbone} --pool {pool} --f_length {loaded.dim} "
        f"--image_size {one.height},{one.width} --norm {norm}"
    )


_int8 = "With --int8"


@app.command("export")
def export_command(
    model: Annotated[str, typer.Argument(help="A model's folder, module:function, or hub:/path/to/folder:entry.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .onnx file.", show_default=False)],
    whitening: Annotated[Path | None, typer.Option(help="A whitening.npz of this model, to be folded in.", show_default=False)] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Take images of the model's own size alone.")] = False,
    model_option: Annotated[
        list[str] | None,
        typer.Option(help="For module:function and hub:, KEY=VALUE: its keywords, height, width, mean, std.", show_default=False),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="In 8-bit integers; what that costs is measured on --calibrate.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="A data set: its databases calibrate, its queries measure.", rich_help_panel=_int8, show_default=False),
    ] = None,
    images: Annotated[int, typer.Option(help="Images that calibrate, evenly from the databases.", rich_help_panel=_int8)] = 64,
    labels: Annotated[Path | None, typer.Option(help="Graded labels of the data set.", rich_help_panel=_int8, show_default=False)] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="What is correct (covis ls protocols); default: graded/0.5 with labels, else radius/25.",
            rich_help_panel=_int8,
            show_default=False,
        ),
    ] = None,
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a network as one ONNX file, pre-processing and whitening folded in, and hold it against torch."""
    import tempfile

    from covis.config import parse_options
    from covis.files import check_absent
    from covis.models.export import export_model
    from covis.models.opening import open_network
    from covis.whitening import Whitening

    if int8 != (calibrate is not None):
        raise InvalidInputError("--int8 and --calibrate DATA must be given together: 8-bit integers are scaled by images.")
    if images < 1:
        raise InvalidInputError(f"At least one image must calibrate; got --images {images}.")
    check_absent(out, overwrite=overwrite)
    truth: tuple[Any, Any] = (None, None)
    scenes = [] if calibrate is None else read_scenes(calibrate, layout, split, read)
    if int8:  # all that can be wrong here is, before the export, which takes long
        chosen, truth = _calibrating(scenes, images), _truth(scenes, labels, protocol)
    network = open_network(model, options=parse_options(model_option or ()))
    fitted = None if whitening is None else Whitening.load(whitening)
    with tempfile.TemporaryDirectory(prefix="covis-") as folder:
        plain = Path(folder) / "float32.onnx" if int8 else out
        written = export_model(network, plain, whitening=fitted, fixed=fixed, overwrite=overwrite)
        say(_described(written, network))
        if int8:
            _quantised(written, out, scenes, chosen=chosen, truth=truth, overwrite=overwrite)
    print_paths(out)


def _described(written: Any, network: Any) -> str:
    header, made_for = written.header, f"{written.height} x {written.width}"
    taken = made_for.replace(" x ", ", ") if header["fixed"] else "height, width"
    folded = ", whitened" if header["whitening"] else ""
    return (
        f"takes pixels (B, 3, {taken}) uint8, gives descriptors (B, {header['dim']}){folded}; the network's size is {made_for}\n"
        f"model {network.digest}, file {header['digest']}, {written.path.stat().st_size / 1e6:.1f} MB; "
        f"largest difference from torch, of descriptors of norm 1: {header['measured']['difference']:.1e}"
    )


def _calibrating(scenes: Sequence[Any], images: int) -> list[Path]:
    """The images that calibrate, evenly from the databases."""
    import numpy as np

    there = [scene.database.path(row) for scene in scenes for row in range(len(scene.database))]
    if not there:
        raise InvalidInputError("At least one database image must calibrate; the data set has none.")
    chosen = [there[row] for row in np.unique(np.linspace(0, len(there) - 1, min(images, len(there))).astype(int))]
    for path in chosen:
        if not path.is_file():
            raise MissingFileError(f"{path} must be there: it is one of the images that calibrate.")
    return chosen


def _truth(scenes: Sequence[Any], labels: Path | None, protocol: str | None) -> tuple[Any, Any]:
    """(protocol, labels) that recall is measured by; the protocol is None where the data set has no truth and none is asked for."""
    from covis.datasets.label_files import load_labels
    from covis.evaluation import default_protocol
    from covis.protocols import protocol as named
    from covis.searching import search_depths

    graded = None if labels is None else load_labels(labels, scenes)
    if graded is None and protocol is None and any(side.xy is None for scene in scenes for side in (scene.queries, scene.database)):
        say("the data set has no positions, and no labels were given: recall is not measured, nearest neighbours are compared")
        return None, None
    rule = named(protocol or default_protocol(graded))
    search_depths(scenes, rule, graded, k=max(rule.ks))  # whether the scenes have what the protocol looks at
    return rule, graded


def _quantised(exact: Any, out: Path, scenes: Sequence[Any], *, chosen: Sequence[Path], truth: tuple[Any, Any], overwrite: bool) -> None:
    """Write the int8 file, measure what it costs, and store that in it."""
    import tempfile

    from covis.files import atomic_path, check_absent
    from covis.models.quantisation import add_measured, quantise

    with tempfile.TemporaryDirectory(prefix="covis-") as folder:
        made = quantise(exact, Path(folder) / "int8.onnx", chosen)
        measured = _cost(exact, made, scenes, truth)
        add_measured(made.path, measured)
        with atomic_path(check_absent(out, overwrite=overwrite)) as temporary:
            temporary.write_bytes(made.path.read_bytes())
    for name, value in measured.items():
        say(f"{name}: {value if isinstance(value, str) else f'{value:.4g}'}")


def _cost(exact: Any, quick: Any, scenes: Sequence[Any], truth: tuple[Any, Any]) -> dict[str, Any]:
    """What int8 costs: recall lost under the protocol where there is truth, nearest neighbours kept, the cosine, speed, bytes."""
    import numpy as np

    from covis.extraction import extract
    from covis.models.quantisation import agreement, speed_ratio

    # Photographs without a split stand on both sides: they are described once, and none is its own neighbour.
    once = [(scene.queries.root, scene.queries.names) == (scene.database.root, scene.database.names) for scene in scenes]
    described = {}
    count = sum(len(scene.database) + (0 if both else len(scene.queries)) for scene, both in zip(scenes, once, strict=True))
    for name, one in (("float32", exact), ("int8", quick)):
        say(f"{name} describes {count} images")
        described[name] = [
            (found := extract(one, scene.database), found) if both else (extract(one, scene.queries), extract(one, scene.database))
            for scene, both in zip(scenes, once, strict=True)
        ]
    alike = []
    for scene, both, first, second in zip(scenes, once, described["float32"], described["int8"], strict=True):
        vectors = [(np.asarray(queries.vectors), np.asarray(database.vectors)) for queries, database in (first, second)]
        alike.append(agreement(vectors[0], vectors[1], same=np.arange(len(scene.database)) if both else None))
    weights = [len(scene.queries) for scene in scenes]
    measured = {key: float(np.average([one[key] for one in alike], weights=weights)) for key in alike[0]}
    measured = {**_recalls(scenes, described, *truth), **measured}
    paths = [scenes[0].database.path(row) for row in range(min(8, len(scenes[0].database)))]
    measured["times as fast"] = speed_ratio(exact, quick, paths)
    measured["share of the bytes"] = quick.path.stat().st_size / exact.path.stat().st_size
    return measured


def _recalls(scenes: Sequence[Any], described: dict[str, Any], rule: Any, graded: Any) -> dict[str, Any]:
    """recall@1, 5 and 10 of each precision under the protocol; nothing without one."""
    from covis.evaluation import evaluate
    from covis.searching import search_scenes

    if rule is None:
        return {}
    found: dict[str, Any] = {"protocol": rule.name}
    for name, pairs in described.items():
        ranked = search_scenes(scenes, pairs, protocol=rule, labels=graded, k=max(rule.ks))
        scores = evaluate(ranked, scenes, labels=graded, protocol=rule, descriptors=pairs, samples=100)
        found |= {f"recall@{k}, {name}": scores.metrics[f"recall@{k}"].value for k in (1, 5, 10) if f"recall@{k}" in scores.metrics}
    return found
