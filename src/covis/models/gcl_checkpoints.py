"""Checkpoints of GCL's reference implementation (marialeyvallina/generalized_contrastive_loss), made into place models, and back.

There a network is a torchvision trunk, the children of a ResNet before its pooling or the `.features` of another network,
with a pooling layer: its entries are called `backbone.0.weight`, `backbone.4.0.conv1.weight`, …, and `pool.p`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from covis.errors import InvalidInputError
from covis.files import atomic_path, check_absent, file_digest
from covis.models.backbones import BACKBONES
from covis.models.place import PlaceModel
from covis.models.weights import misfits, read_weights
from covis.pixels import PhotoResize
from covis.settings import ModelSettings

_RESNET = [(r"^0\.", "conv1."), (r"^1\.", "bn1."), *((rf"^{number + 3}\.", f"layer{number}.") for number in (1, 2, 3, 4))]
_FEATURES = [(r"^", "features.")]  # VGG and DenseNet: timm kept torchvision's names
_MOBILENET = [
    (r"^0\.0\.", "conv_stem."),
    (r"^0\.1\.", "bn1."),
    (r"^18\.0\.", "conv_head."),
    (r"^18\.1\.", "bn2."),
    # The first block has no expansion: depthwise, pointwise. The others: expansion, depthwise, projection.
    *(
        (rf"^1\.conv\.{theirs}\.", f"blocks.0.0.{ours}.")
        for theirs, ours in (("0.0", "conv_dw"), ("0.1", "bn1"), ("1", "conv_pw"), ("2", "bn2"))
    ),
    *(
        (rf"^{first + block}\.conv\.{theirs}\.", f"blocks.{stage}.{block}.{ours}.")
        for stage, (first, blocks) in enumerate([(2, 2), (4, 3), (7, 4), (11, 3), (14, 3), (17, 1)], start=1)
        for block in range(blocks)
        for theirs, ours in (("0.0", "conv_pw"), ("0.1", "bn1"), ("1.0", "conv_dw"), ("1.1", "bn2"), ("2", "conv_pwl"), ("3", "bn3"))
    ),
]
_WRITTEN = {
    "res": [("conv1.", "0."), ("bn1.", "1."), *((f"layer{number}.", f"{number + 3}.") for number in (1, 2, 3, 4))],
    "vgg": [("features.", "")],
    "densenet": [("features.", "")],
}
"""How names of ours begin, and what stands there in the reference's: the inverse of the rules for reading, of the networks it has."""
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_RULES = {"res": _RESNET, "vgg": _FEATURES, "densenet": _FEATURES, "mobilenetv2": _MOBILENET}


def convert_gcl_checkpoint(
    path: str | Path,
    *,
    backbone: str,
    aggregator: str,
    normalize: bool = True,
    height: int = 480,
    width: int = 640,
    resize: PhotoResize = "pil",
) -> PlaceModel:
    """Make a place model of a checkpoint that GCL's reference implementation wrote.

    Its descriptors are those of the reference, to 1e-5, for equal pixels and from image files on. The file says
    neither what the network is nor which images it saw: they must be given. ImageNet's mean and standard deviation
    are taken, as in the reference.

    Args:
        path: a .pth file: a state dict, or a dict that holds one as "model_state_dict" or "state_dict". Prefixes
            "module." are taken off. It is read without running any code in it.
        backbone: a name of `BACKBONES` that torchvision has too (all but DINOv2).
        aggregator: "gem", "average" or "max"; in the reference `GeM`, `avg`, `max`.
        normalize: divide each descriptor by its L2 norm (the reference's `--norm L2`, which is its default).
        height: pixels of the network's input; the reference's default is 480 x 640.
        width: pixels of the network's input.
        resize: "pil", or "pil-crop", as the reference trains with square sizes.

    Returns:
        The model, on the CPU, in eval mode; the file's name and hash are in its history.

    Raises:
        UnknownNameError: the aggregator is in no table.
        InvalidInputError: the reference has no such backbone or aggregator, or the entries are not those of it; the message names them.
        MissingFileError: there is no such file.
        DamagedFileError: it is truncated, foreign, or holds code.
    """
    path = Path(path)
    rules = next((rules for start, rules in _RULES.items() if backbone in BACKBONES and backbone.startswith(start)), None)
    if rules is None:
        known = [name for name in BACKBONES if name.startswith(tuple(_RULES))]
        raise InvalidInputError(f"A GCL checkpoint must be of one of the backbones {', '.join(known)}; got {backbone!r}.")
    stored = read_weights(path)
    settings = ModelSettings(backbone=backbone, aggregator=aggregator, normalize=normalize, height=height, width=width, resize=resize)
    model = PlaceModel(settings)
    own = model.state_dict()
    given = _renamed(stored, rules)
    if "aggregator.p" in given and given["aggregator.p"].shape == (1,):
        given["aggregator.p"] = given["aggregator.p"][0]
    # How many batches BatchNorm has seen decides nothing here; older files do not say it.
    given |= {name: value for name, value in own.items() if name.endswith("num_batches_tracked") and name not in given}
    if not any(name.removeprefix("module.").startswith("backbone.") for name in stored):
        raise InvalidInputError(
            f"The checkpoint {path} must have the reference's names, `backbone.…` and `pool.p`; its first is {next(iter(stored))!r}. A "
            "plain backbone's state dict is given with --weights."
        )
    if complaints := misfits(given, own):
        raise InvalidInputError(
            f"The checkpoint {path} must hold {backbone!r} with the aggregator {aggregator!r} entry by entry; {complaints}. "
            "Give the backbone and the aggregator that it was trained with."
        )
    model.load_state_dict(given)
    model.history = {"converted": {"from": "gcl-checkpoint", "file": path.name, "digest": file_digest(path)}}
    return model.eval()


def write_gcl_checkpoint(model: PlaceModel, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a place model as a checkpoint that GCL's reference implementation loads: the inverse of `convert_gcl_checkpoint`.

    The file holds {"step": 0, "model_state_dict": …} under the names of the reference's network, in float32. It does not hold the
    input's size, the resizing, the pixels' mean and standard deviation, or whether descriptors are divided by their norm: give the
    reference `--image_size` and `--norm` as the model has them. It takes ImageNet's mean and standard deviation, no others.

    Args:
        model: of a backbone that the reference has (ResNet, ResNeXt, VGG, DenseNet), with the aggregator gem, average or max.
        path: where to, mostly *.pth. The reference names its results after the file, up to the first dot.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        InvalidInputError: the reference has no such backbone or aggregator, or normalises pixels otherwise; or the model reads label
            maps, has chosen levels or a projection, which such a file cannot hold.
        OutputExistsError: the file is there and `overwrite` is false.
        OutputFailedError: the system refused the write.
    """
    settings = model.settings
    rules = next(
        (rules for start, rules in _WRITTEN.items() if settings.backbone in BACKBONES and settings.backbone.startswith(start)), None
    )
    if rules is None or settings.aggregator not in ("gem", "average", "max"):
        raise InvalidInputError(
            f"A checkpoint for the reference must be of one of its backbones ({', '.join(_WRITTEN)}…) with gem, average or max; the model "
            f"is {settings.backbone} with {settings.aggregator}."
        )
    _check_plain(model)
    if tuple(settings.mean) != _IMAGENET[0] or tuple(settings.std) != _IMAGENET[1]:
        raise InvalidInputError(
            f"The reference normalises pixels by ImageNet's mean {_IMAGENET[0]} and standard deviation {_IMAGENET[1]}; the model's are "
            f"{tuple(settings.mean)} and {tuple(settings.std)}. Its descriptors would be others there."
        )
    path = check_absent(path, overwrite=overwrite)
    state = {_their_name(name, rules): value.detach().cpu().clone() for name, value in model.state_dict().items()}
    if "pool.p" in state:
        state["pool.p"] = state["pool.p"].reshape(1)
    with atomic_path(path) as temporary:
        torch.save({"step": 0, "model_state_dict": state}, temporary)
    return path


def _check_plain(model: PlaceModel) -> None:
    """Raise where a model has what the reference's networks have not."""
    settings = model.settings
    has = {
        "reads label maps (encoding); the student that it taught is RUN/train/model": bool(settings.encoding.classes),
        f"has levels {list(settings.levels)}": bool(settings.levels),
        f"has a projection to {settings.projection} dimensions": bool(settings.projection),
    }
    if found := [said for said, there in has.items() if there]:
        raise InvalidInputError(
            "A checkpoint for the reference must be of a network of photographs and their last feature map, without a projection; "
            f"the model {found[0]}."
        )


def _their_name(name: str, rules: list[tuple[str, str]]) -> str:
    if name.startswith("aggregator."):
        return f"pool.{name.removeprefix('aggregator.')}"
    inner = name.removeprefix("backbone.network.")
    ours, theirs = next(pair for pair in rules if inner.startswith(pair[0]))
    return f"backbone.{theirs}{inner.removeprefix(ours)}"


def _renamed(stored: Mapping[str, torch.Tensor], rules: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """A state dict under our names; a name that no rule knows stays as it is."""
    wrapped = all(name.startswith("module.") for name in stored)
    return {_name(name.removeprefix("module.") if wrapped else name, rules): value for name, value in stored.items()}


def _name(name: str, rules: list[tuple[str, str]]) -> str:
    if name.startswith("pool."):
        return f"aggregator.{name.removeprefix('pool.')}"
    if not name.startswith("backbone."):
        return name
    inner = name.removeprefix("backbone.")
    for theirs, ours in rules:
        if re.match(theirs, inner):
            return f"backbone.network.{re.sub(theirs, ours, inner, count=1)}"
    return name
