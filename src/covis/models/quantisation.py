"""Exported networks in 8-bit integers, and what that costs: how far descriptors move, and how fast they come."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from covis.errors import InvalidInputError
from covis.files import check_absent, digest
from covis.models.export import BACKBONE, onnx
from covis.models.onnx_models import PRODUCER, OnnxModel, load_onnx, quantization, read_body, read_header, write_model
from covis.pixels import ImageLike, decode_ahead

OPERATIONS = ("Conv", "MatMul", "Add", "MaxPool", "Clip", "Relu")
"""What is computed in integers; a fully connected layer over descriptors (a projection, the whitening) is not."""

CALIBRATED_AT_ONCE = 4  # images; what is remembered of each is every activation


def quantise(source: OnnxModel, out: str | Path, images: Sequence[ImageLike], *, overwrite: bool = False) -> OnnxModel:
    """Write a file of `covis export` in 8-bit integers, by static quantisation.

    Weights are signed, with a scale a channel; activations are unsigned, with a scale a tensor, from the least to the largest
    value that the calibration images give. All after the backbone's last convolution (or matrix product of a transformer) stays
    in float32: the aggregator, the projection, the norm, the whitening. Of a network of others, which does not say where its
    backbone ends, it is the last one of all. The digest is another one: int8 descriptors are not mixed with others.

    Args:
        source: in float32.
        out: the file.
        images: for calibration, of the kind that the network will see; database or training images, no queries.
        overwrite: replace a file that is there.

    Returns:
        The file, opened.

    Raises:
        InvalidInputError: there is no image, the source is int8 already or not of `covis export`, or the library refuses it.
        MissingExtraError: onnxruntime or onnx is not installed.
        OutputExistsError: the file is there and `overwrite` is false.
    """
    out = check_absent(out, overwrite=overwrite)
    if not len(images) or source.header.get("precision") != "float32":
        raise InvalidInputError(
            f"int8 needs at least one image and a float32 file of covis export; got {len(images)} images and a file that is "
            f"{source.header.get('precision', 'of others')}."
        )
    library, reader = quantization(), onnx()
    with tempfile.TemporaryDirectory(prefix="covis-") as folder:
        plain, made = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        _prepared(source.path, plain, reader)
        try:
            library.quantize_static(
                str(plain),
                str(made),
                _Calibration(source, images),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
                activation_type=library.QuantType.QUInt8,
                weight_type=library.QuantType.QInt8,
                op_types_to_quantize=list(OPERATIONS),
                nodes_to_exclude=_tail(reader.load(str(plain)).graph),
                extra_options={"MatMulConstBOnly": True},
            )
        except Exception as error:  # the library's errors have no root of their own
            reason = " ".join(str(error).split())[:300]
            raise InvalidInputError(f"{source.path} must be a network that onnxruntime quantises; it is not ({reason}).") from error
        proto = reader.load(str(made))
        del proto.metadata_props[:]
        proto.producer_name = PRODUCER
        body = proto.SerializeToString()
    header = _own(read_header(source.path))
    measured = {**header["measured"], "calibration images": len(images)}
    write_model(
        out,
        body,
        {
            **header,
            "digest": digest({"of": header["digest"], "int8": hashlib.sha256(body).hexdigest()}),
            "precision": "int8",
            "measured": measured,
        },
    )
    return load_onnx(out)


def add_measured(path: str | Path, measured: dict[str, Any]) -> OnnxModel:
    """Store in a file's header what was measured of it; returns the file, opened."""
    header = read_header(path)
    write_model(path, read_body(path), {**_own(header), "measured": {**header["measured"], **measured}})
    return load_onnx(path)


def agreement(
    exact: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]],
    quick: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]],
    *,
    same: NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """How alike two descriptions of the same images are.

    Args:
        exact: (q, d) of queries and (n, d) of a database.
        quick: the same images in the same order, described otherwise.
        same: (q,) the database row that is the query itself, -1 for none; it is not its own neighbour.

    Returns:
        "nearest neighbour kept": the share of queries with the same nearest database image, in [0, 1]; "cosine": the mean cosine
        between the two descriptors of a query.

    >>> a = np.eye(3)
    >>> agreement((a, a), (a, a[::-1]))
    {'nearest neighbour kept': 0.3333333333333333, 'cosine': 1.0}
    """
    kept = []
    for start in range(0, len(exact[0]), 1024):
        rows = slice(start, start + 1024)
        nearest = []
        for queries, database in (exact, quick):
            # |a - b|² less |a|², which is the same for all of a query
            distances = (database.astype(np.float64) ** 2).sum(axis=1) - 2 * queries[rows].astype(np.float64) @ database.astype(
                np.float64
            ).T
            if same is not None:
                own = same[rows]
                distances[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
            nearest.append(distances.argmin(axis=1))
        kept.append(nearest[0] == nearest[1])
    norms = np.linalg.norm(exact[0], axis=1) * np.linalg.norm(quick[0], axis=1)
    cosine = (exact[0] * quick[0]).sum(axis=1) / np.maximum(norms, 1e-12)
    return {"nearest neighbour kept": float(np.concatenate(kept).mean()), "cosine": float(cosine.mean())}


def speed_ratio(exact: OnnxModel, quick: OnnxModel, images: Sequence[ImageLike], *, rounds: int = 5) -> float:
    """How many times faster the second is, without decoding: the median over rounds in which both describe the same images."""
    pixels = torch.cat(list(_decoded(exact, images[:8], batch=8)))
    ratios = []
    for _ in range(rounds + 1):  # the first round warms up
        seconds = []
        for one in (exact, quick):
            begun = time.perf_counter()
            one.describe_pixels(pixels)
            seconds.append(time.perf_counter() - begun)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios[1:]))


class _Calibration:
    """What the library reads calibration images from."""

    def __init__(self, source: OnnxModel, images: Sequence[ImageLike]) -> None:
        self._batches = _decoded(source, images, batch=CALIBRATED_AT_ONCE)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {"pixels": np.ascontiguousarray(pixels.numpy())}

    def __iter__(self) -> _Calibration:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        found = self.get_next()
        if found is None:
            raise StopIteration
        return found


def _prepared(source: Path, out: Path, reader: Any) -> None:
    """Write the model as the library wants it: with the mark of one that is simplified already, as torch's exporter leaves it.

    Without the mark the library warns through Python's root logger, and so sets up logging for the whole process.
    """
    proto = reader.load_from_string(read_body(source))
    mark = proto.metadata_props.add()
    mark.key, mark.value = "onnx.quant.pre_process", "onnxruntime.quant"
    out.write_bytes(proto.SerializeToString())


def _decoded(model: OnnxModel, images: Sequence[ImageLike], *, batch: int) -> Iterator[torch.Tensor]:
    return decode_ahead(images, height=model.height, width=model.width, resize=model.resize, batch=batch)


def _tail(graph: Any) -> list[str]:
    """The nodes after the backbone's last convolution or matrix product: what makes a descriptor of the last map."""
    heavy = [place for place, node in enumerate(graph.node) if node.op_type in ("Conv", "MatMul")]
    heavy = [place for place in heavy if graph.node[place].name.startswith(BACKBONE)] or heavy
    if not heavy:
        raise InvalidInputError("int8 needs a network with convolutions or matrix products; this one has none.")
    start = heavy[-1] + 1
    after = graph.node[start] if start < len(graph.node) else None
    if after is not None and after.op_type in ("Relu", "Clip") and graph.node[start - 1].output[0] in after.input:
        start += 1  # it is computed with the convolution
    return [node.name for node in graph.node[start:]]


def _own(header: dict[str, Any]) -> dict[str, Any]:
    """A header without what `write_model` adds."""
    return {key: value for key, value in header.items() if key not in ("format", "version", "body", "check")}
