"""The command that whitens descriptors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from covis.cli.shell import Out, Overwrite, app, print_paths, say
from covis.errors import InvalidInputError


@app.command()
def whiten(
    descriptors: Annotated[Path, typer.Argument(help="A folder of extract: <scene>/database and <scene>/queries.", show_default=False)],
    out: Out,
    dim: Annotated[
        list[int] | None,
        typer.Option(
            help="Dimensions to keep, as often as needed: several go to OUT/<dim>/; default: all that carry variance.", show_default=False
        ),
    ] = None,
    power: Annotated[float, typer.Option(help="1: unit variance, 0.5: its square root, 0: a rotation alone.")] = 1.0,
    kind: Annotated[Literal["pca", "zca"], typer.Option(help="zca turns back and keeps all dimensions.")] = "pca",
    shrinkage: Annotated[str, typer.Option(help="A share in [0, 1] towards equal variances, or ledoit-wolf, for few descriptors.")] = "0",
    fit: Annotated[
        Path | None,
        typer.Option(
            help="Fit on the databases of these descriptors (training images), in place of those that are whitened.", show_default=False
        ),
    ] = None,
    scenes: Annotated[
        str,
        typer.Option(help="Fit on the databases of these scenes: shell patterns with commas; one that begins with ! leaves out: '*,!sf'."),
    ] = "*",
    binary: Annotated[bool, typer.Option("--binary", help="Keep the signs alone: what one bit a dimension finds.")] = False,
    emulate_float16: Annotated[
        bool, typer.Option("--emulate-float16", help="Round vectors to half precision, as GCL's reference does with MSLS.")
    ] = False,
    emulate_float16_fit: Annotated[
        bool, typer.Option("--emulate-float16-fit", help="And fit on them in half precision, as it does with all other data sets.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Whiten descriptors, fitted on the databases of all scenes, or of those chosen: the same folders, and whitening.npz."""
    from covis.config import parse_options
    from covis.descriptors import Descriptors
    from covis.files import check_absent
    from covis.whitening import fit_whitening

    sides = [side for scene in _described(descriptors) for side in sorted(scene.iterdir()) if (side / "header.json").is_file()]
    dims = list(dict.fromkeys(dim or [0]))
    if len(dims) > 1 and min(dims) < 1:
        raise InvalidInputError(f"Several --dim must each be at least 1 (0 means all, and stands alone); got {', '.join(map(str, dims))}.")
    folders = [out] if len(dims) == 1 else [out / str(one) for one in dims]
    for made in (out / "whitening.npz", *(folder / side.relative_to(descriptors) for folder in folders for side in sides)):
        check_absent(made, overwrite=overwrite)
    if out.resolve() == descriptors.resolve():
        raise InvalidInputError(f"Whitened descriptors must go to another folder than those they are made of; got {out} for both.")
    taught = _chosen(fit or descriptors, scenes)
    databases = [Descriptors.load(scene / "database") for scene in taught]
    fitted = fit_whitening(
        databases,
        dim=0 if 0 in dims else max(dims),
        power=power,
        kind=kind,
        shrinkage=parse_options([f"shrinkage={shrinkage}"])["shrinkage"],
        emulate_float16="fit" if emulate_float16_fit else emulate_float16,
        binary=binary,
        fitted_on=_said(fit, scenes, taught),
    )
    if len(dims) > 1 and max(dims) > fitted.dim:
        raise InvalidInputError(f"These descriptors carry {fitted.dim} dimensions; asked for {max(dims)}. Leave out those beyond.")
    for side in sides:
        whole = Descriptors.load(side)
        cut = [fitted(whole)] if len(dims) == 1 else fitted.each(whole, [one or fitted.dim for one in dims])
        for folder, found in zip(folders, cut, strict=True):
            print_paths(found.save(folder / side.relative_to(descriptors), overwrite=overwrite))
    fitted.save(out / "whitening.npz", overwrite=overwrite)
    say(f"fitted on the {fitted.history['fitted_on']}: {fitted.history['count']} descriptors, {fitted.dim} dimensions, power {power:g}")
    print_paths(out / "whitening.npz")


def _described(folder: Path) -> list[Path]:
    scenes = sorted(path.parent.parent for path in folder.glob("*/database/header.json"))
    if not scenes:
        raise InvalidInputError(f"{folder} must hold <scene>/database, as covis extract writes it; it does not.")
    return scenes


def _chosen(folder: Path, pattern: str) -> list[Path]:
    found = _described(folder)
    if pattern == "*":
        return found
    from covis.lookup import chosen

    taught = [scene for scene in found if chosen(scene.name, pattern)]
    if not taught:
        raise InvalidInputError(f"A scene must fit --scenes {pattern!r}; {folder} holds {', '.join(scene.name for scene in found)}.")
    return taught


def _said(fit: Path | None, pattern: str, taught: list[Path]) -> str:
    """What the whitening is fitted on, as it is stored with every vector."""
    return "database" + ("" if pattern == "*" else f" of {', '.join(scene.name for scene in taught)}") + (f" of {fit}" if fit else "")
