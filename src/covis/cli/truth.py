"""covis convert ground-truth: what others say is right, as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from covis.cli.data import convert
from covis.cli.shell import Data, Layout, Overwrite, Read, Split, print_paths, read_scenes, say
from covis.errors import InvalidInputError


@convert.command("ground-truth")
def convert_ground_truth(
    file: Annotated[Path, typer.Argument(help="The .npy file: lists of indices, VPR-Bench's pairs, or a matrix.", show_default=False)],
    data: Data,
    out: Annotated[Path, typer.Option(help="A .npz or .h5 file for a single scene, a folder for several.", show_default=False)],
    layout: Layout = "auto",
    split: Split = "test",
    read: Read = None,
    form: Annotated[str, typer.Option(help="lists, matrix, vpr-bench, or auto where it is plain.")] = "auto",
    asked: Annotated[
        Path | None, typer.Option(help="A .npy list of the queries that the file speaks of (…_qIdx.npy); default all.", show_default=False)
    ] = None,
    transposed: Annotated[bool, typer.Option("--transposed", help="The matrix is database x queries.")] = False,
    beyond: Annotated[str, typer.Option(help="Indices that no database image has: stop, or drop and say how many.")] = "stop",
    overwrite: Overwrite = False,
) -> None:
    """Write ground truth in a numpy array of indices as labels of a data set; a pickle in it is never run."""
    from covis.config import parse_options
    from covis.datasets.label_files import save_labels
    from covis.datasets.npy_truth import read_indices, truth_labels
    from covis.files import check_absent

    left_out = [f"{name}=skip" for name in ("missing", "invalid") if parse_options(read or ()).get(name) == "skip"]
    if left_out:
        raise InvalidInputError(
            f"Rows and indices of ground truth count every image that is listed; with --read {' and '.join(left_out)} they would mean "
            "others. Complete the data, or read with missing=ignore to convert the truth of all."
        )
    scenes = read_scenes(data, layout, split, read)
    single = len(scenes) == 1 and out.suffix in (".npz", ".h5")
    if out.suffix and not single:
        raise InvalidInputError(f"Labels go to a .npz or .h5 file of a single scene, or to a folder; got --out {out} for {len(scenes)}.")
    files = [out] if single else [out / f"{scene.name}.npz" for scene in scenes]
    for path in files:
        check_absent(path, overwrite=overwrite)
    rows = None if asked is None else read_indices(asked, among=sum(len(scene.queries) for scene in scenes))
    made = truth_labels(file, scenes, asked=rows, form=form, transposed=transposed, beyond=beyond)  # type: ignore[arg-type]
    for scene, labels, path in zip(scenes, made, files, strict=True):
        save_labels(labels, path, overwrite=overwrite)
        say(f"{scene.name}: {labels.summary()}")
    print_paths(*files)
