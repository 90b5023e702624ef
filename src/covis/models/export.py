"""Networks as ONNX files, with pre-processing and whitening folded in, held against torch before they are written.

The only file that imports onnx and onnxscript.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, InvalidInputError, MissingExtraError
from covis.files import atomic_path, check_absent, digest
from covis.models.describers import check_reads_photographs
from covis.models.foreign import ForeignModel
from covis.models.onnx_models import PRODUCER, OnnxModel, load_onnx, onnxruntime, write_model
from covis.models.place import PlaceModel, evaluating
from covis.whitening import Whitening

PARITY = 1e-4
"""The largest difference from torch that is let through, of a component of a descriptor of norm 1."""

BACKBONE = "backbone/"
"""How the names of the nodes of a `PlaceModel`'s backbone begin in a file."""

_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules that a node comes from

Network = PlaceModel | ForeignModel


def check_exportable(model: Network) -> None:
    """Raise where a network is none that is deployed: it reads label maps, and an exported file takes photographs.

    Raises:
        InvalidInputError: the model is a teacher, which reads label maps.
    """
    instead = "What is deployed is the student, RUN/train/model; a teacher itself is run by torch (--engine torch)."
    check_reads_photographs(model, what="An exported file", instead=instead)


def onnx() -> ModuleType:
    """The library, after a look that onnxscript, without which torch writes no file, is there too.

    Raises:
        MissingExtraError: one of the two is not installed.
    """
    try:
        import onnx as library
        import onnxscript  # noqa: F401 - torch imports it later, and says less
    except ImportError as error:
        raise MissingExtraError(
            f"An ONNX file is written by onnx and onnxscript; {error.name} is not installed: pip install covis[onnx]"
        ) from error
    module: ModuleType = library
    return module


def export_model(
    model: Network, out: str | Path, *, whitening: Whitening | None = None, fixed: bool = False, overwrite: bool = False
) -> OnnxModel:
    """Write a network as one .onnx file, and open it.

    The file takes `pixels`, (B, 3, height, width) uint8, RGB, and gives `descriptors`, (B, D) float32: the division by 255,
    mean and standard deviation, the network, its norm and the whitening are in it. Batch, height and width are free where
    the network lets them be. Before it is put in place it describes random and drawn pictures, one and three at a time,
    and, where the size is free, pictures of three other sizes: turned, half as large, and odd. Where torch or the file fails
    at one of them, or the two differ, the network is exported for its own size.

    Its digest is the model's own, so that its descriptors and torch's may be mixed; with whitening it is a hash of the
    model's and the whitening's.

    Args:
        model: in eval mode it is exported, whatever mode it is in.
        out: the file; its name ends in .onnx.
        whitening: of this model's descriptors; its mean, projection and norm are folded in.
        fixed: take the model's size alone. Networks that take but one are exported so in any case, with a warning.
        overwrite: replace a file that is there.

    Returns:
        The file, opened; `header["measured"]["difference"]` is the largest difference that was seen, of descriptors of norm 1.

    Raises:
        InvalidInputError: the model reads label maps; the whitening is not of this model; torch cannot export the network; or what comes
            out differs from torch by more than 1e-4.
        OutputExistsError: the file is there and `overwrite` is false.
        OutputFailedError: the system refused the write.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.

    Warns:
        CovisWarning: the network takes one size alone.
    """
    check_exportable(model)
    out = Path(out)
    if out.suffix != ".onnx":
        raise InvalidInputError(f"The file name of an exported network must end in .onnx; got {out.name!r}.")
    check_absent(out, overwrite=overwrite)
    onnx()
    onnxruntime()
    if whitening is not None:
        _check_whitening(model, whitening)
    whole = _Whole(model, whitening)
    with atomic_path(out) as temporary:
        body, header, elsewhere = _written(whole, model, temporary, whitening=whitening, fixed=fixed)
        apart = max(parity(load_onnx(temporary), _reference(model, whitening)), elsewhere)
        if not apart <= PARITY:
            raise InvalidInputError(
                f"Exported, {_name(model)} must give what torch gives, to {PARITY:g} of a descriptor's norm; it differs by {apart:.1e}."
                + (" Keep fewer dimensions of the whitening." if whitening else " Run it with torch.")
            )
        write_model(temporary, body, {**header, "measured": {"difference": apart, "torch": str(torch.__version__)}})
    return load_onnx(out)


def _written(whole: _Whole, model: Network, path: Path, *, whitening: Whitening | None, fixed: bool) -> tuple[bytes, dict[str, Any], float]:
    """Write the file: of free size where that is asked for and gives what torch gives; its body, header, and difference elsewhere."""
    with model.around() if isinstance(model, ForeignModel) else nullcontext(), evaluating(whole):
        why = "" if fixed else _bound(whole)
        if not fixed and not why:
            try:
                proto = _exported(whole, model, fixed=False)
            except Exception as error:  # torch's exporter fails in many ways
                why = f"torch does not export it with free sizes ({_root(error)})"
            else:
                body, header = _stripped(proto, onnx()), _header(model, whitening, fixed=False)
                write_model(path, body, header)
                elsewhere, why = _parity_elsewhere(load_onnx(path), whole)
                if not why:
                    return body, header, elsewhere
        try:
            proto = _exported(whole, model, fixed=True)
        except Exception as error:
            raise InvalidInputError(
                f"torch must be able to export {_name(model)} to ONNX; it is not ({_root(error)}). Run it with torch: engine='torch'."
            ) from error
    if not fixed:
        warnings.warn(
            f"{_name(model)} is exported for images of {model.height} x {model.width} pixels alone: {why}.",
            CovisWarning,
            stacklevel=3,
        )
    body, header = _stripped(proto, onnx()), _header(model, whitening, fixed=True)
    write_model(path, body, header)
    return body, header, 0.0


def parity(exported: OnnxModel, reference: Callable[[torch.Tensor], NDArray[np.float32]], *, batches: tuple[int, ...] = (1, 3)) -> float:
    """The largest difference between an ONNX file and a reference, of a component of a descriptor of norm 1.

    Random and drawn pictures of the file's size are described, one and three at a time.
    """
    worst = 0.0
    for batch in batches:
        for pixels in _pictures(batch, exported.height, exported.width):
            worst = max(worst, _apart(exported.describe_pixels(pixels), reference(pixels)))
    return worst


def _apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all() or not np.isfinite(expected).all():
        return float("inf")
    norms = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    return float(np.abs((found - expected) / norms).max(initial=0.0))


class _Whole(nn.Module):
    """A network and a whitening after it, as `covis.whitening` does it."""

    def __init__(self, model: Network, whitening: Whitening | None) -> None:
        super().__init__()
        self.model = model
        self.whitens = whitening is not None
        self.whitening_mean: torch.Tensor
        self.whitening_basis: torch.Tensor
        if whitening is not None:
            self.register_buffer("whitening_mean", torch.from_numpy(whitening.mean.astype(np.float32)))
            self.register_buffer("whitening_basis", torch.from_numpy(whitening.basis.astype(np.float32)))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(pixels).float()
        if not self.whitens:
            return found
        rotated = F.linear(found - self.whitening_mean, self.whitening_basis)
        whitened: torch.Tensor = rotated / (torch.linalg.vector_norm(rotated, dim=1, keepdim=True) + 1e-6)
        return whitened


def _check_whitening(model: Network, whitening: Whitening) -> None:
    if whitening.history["model"] != model.digest or len(whitening.mean) != model.dim:
        raise InvalidInputError(
            f"The whitening must be of the model that is exported, {model.digest} with {model.dim} dimensions; it was fitted on "
            f"{whitening.history['model']} with {len(whitening.mean)}. Fit one on descriptors of this model."
        )
    if rounds := [name for name in ("emulate_float16", "binary") if whitening.history.get(name)]:
        raise InvalidInputError(
            f"A whitening with {rounds[0]} rounds, and a last bit turns the rounding over: it has no exported form. Fit one without."
        )


def _reference(model: Network, whitening: Whitening | None) -> Callable[[torch.Tensor], NDArray[np.float32]]:
    """What the file must give: torch, and the whitening in float64."""

    def described(pixels: torch.Tensor) -> NDArray[np.float32]:
        vectors = model.describe_pixels(pixels)
        if whitening is None:
            return vectors
        whitened = whitening(Descriptors(vectors, tuple(map(str, range(len(vectors)))), model.digest))
        return np.asarray(whitened.vectors, dtype=np.float32)

    return described


def _bound(whole: _Whole) -> str:
    """Why a network cannot be exported with free sizes, where that is known beforehand."""
    # timm's layers that pad as TensorFlow does; the exporter's arithmetic of such sizes grows layer by layer and takes hours.
    same = [name for name, module in whole.named_modules() if type(module).__name__.endswith("Same")]
    return f"its padding depends on the image's size (pad_type = 'same', in {len(same)} layers)" if same else ""


def _exported(whole: _Whole, model: Network, *, fixed: bool) -> Any:
    hint = torch.export.Dim.DYNAMIC
    free = {0: hint} if fixed else {0: hint, 2: hint, 3: hint}
    # Equal sides would be taken for one and the same; nothing is computed, so the size costs nothing.
    width = model.width if fixed or model.height != model.width else 2 * model.width
    example = torch.zeros((2, 3, model.height, width), dtype=torch.uint8, device=model.mean.device)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own talk
        program = torch.onnx.export(
            whole,
            (example,),
            dynamo=True,
            dynamic_shapes={"pixels": free},
            input_names=["pixels"],
            output_names=["descriptors"],
            verbose=False,
        )
    if program is None:
        raise InvalidInputError("torch's exporter gave nothing")
    return program.model_proto


def _stripped(proto: Any, library: ModuleType) -> bytes:
    """The model's bytes, without what the exporter notes of the code (paths on this machine), and with our name on it."""
    copied = library.ModelProto()
    copied.CopyFrom(proto)
    graph = copied.graph
    for node in graph.node:  # which part of the network a node is of: `quantise` asks
        if any(prop.key == _SCOPES and "'model.backbone'" in prop.value for prop in node.metadata_props):
            node.name = f"{BACKBONE}{node.name}"
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, *copied.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    copied.ClearField("metadata_props")
    copied.ClearField("doc_string")
    copied.producer_name = PRODUCER
    for part in (*graph.input, *graph.output):
        for side, name in zip(part.type.tensor_type.shape.dim, ("batch", "channels", "height", "width"), strict=False):
            if side.dim_param:
                side.dim_param = name
    try:
        found: bytes = copied.SerializeToString()
    except ValueError as error:  # protobuf's limit
        raise InvalidInputError("An exported network must be less than 2 GB; this one is more. Run it with torch.") from error
    return found


def _header(model: Network, whitening: Whitening | None, *, fixed: bool) -> dict[str, Any]:
    own = model.digest
    return {
        "digest": own if whitening is None else digest({"model": own, "whitening": whitening.digest}),
        "model": own,
        "dim": model.dim if whitening is None else whitening.dim,
        "height": model.height,
        "width": model.width,
        "resize": model.resize,
        "fixed": fixed,
        "mean": list(model.settings.mean),
        "std": list(model.settings.std),
        "precision": "float32",
        "whitening": None if whitening is None else dict(whitening.history),
        "history": _plain(model.history),
    }


def _parity_elsewhere(exported: OnnxModel, whole: _Whole) -> tuple[float, str]:
    """The largest difference at other sizes (turned, half as large, odd), and why the file is not to be had of free size, if so."""
    height, width = exported.height, exported.width
    turned = (width, height) if width != height else (2 * height, 2 * width)
    worst = 0.0
    for size in dict.fromkeys([turned, (max(height // 2, 1), max(width // 2, 1)), (height * 3 // 4 | 1, width * 3 // 4 | 1)]):
        said = "{} x {} pixels".format(*size)
        pixels = next(_pictures(1, *size))
        try:
            with torch.inference_mode():
                expected = whole(pixels.to(whole.model.mean.device)).cpu().numpy()
        except Exception as error:  # the network may fail in any way at a size that is not its own
            return worst, f"torch does not describe images of {said} by it ({_root(error)})"
        try:
            apart = _apart(exported.describe_pixels(pixels), expected)
        except InvalidInputError as error:
            return worst, f"exported with free sizes, it fails at {said} ({_root(error)})"
        if not apart <= PARITY:
            return worst, f"exported with free sizes, it differs from torch by {apart:.1e} at {said}"
        worst = max(worst, apart)
    return worst, ""


def _pictures(batch: int, height: int, width: int) -> Any:
    """Random pictures, then drawn ones: a gradient with a disk, stripes, squares."""
    random = np.random.default_rng(0)
    yield torch.from_numpy(random.integers(0, 256, (batch, 3, height, width), dtype=np.uint8))
    rows, columns = np.mgrid[0:height, 0:width]
    disk = ((rows - height / 2) ** 2 + (columns - width / 3) ** 2 < (min(height, width) / 4) ** 2) * 120
    drawn = [rows * 255 // max(height - 1, 1), (columns // 4 % 2) * 200 + 20, (rows // 8 + columns // 8) % 2 * 150 + 50]
    drawn[0] = np.maximum(drawn[0], disk)
    colours = [np.stack([one, one[::-1], one[:, ::-1]]).astype(np.uint8) for one in drawn]
    yield torch.from_numpy(np.stack(colours[:batch]))


def _name(model: Network) -> str:
    return model.name if isinstance(model, ForeignModel) else f"the model {model.settings.backbone} ({model.digest})"


def _root(error: BaseException) -> str:
    """What went wrong at the bottom of it, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip(" -") for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:200]}"


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
