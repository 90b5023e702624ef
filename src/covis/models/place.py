"""PlaceModel: a backbone, an aggregator, a projection if asked for, and the L2 norm; an image goes in, a descriptor comes out."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from covis.config import to_table
from covis.errors import InvalidInputError
from covis.files import digest
from covis.lookup import resolve
from covis.models.aggregators import AGGREGATORS, NEEDS_A_TOKEN, Features
from covis.models.backbones import Backbone
from covis.models.describers import OfTorch, describe
from covis.models.encoders import LabelEncoder
from covis.models.weights import load_backbone
from covis.pixels import ImageLike, Resize, channels_of, check_size, decode_ahead, normalize
from covis.semantics.encodings import encoding
from covis.settings import ModelSettings


class PlaceModel(OfTorch, nn.Module):
    """A network that describes a photograph by one vector; near vectors mean the same place.

    With `settings.encoding` it reads label maps in the photographs' place: (B, 1, height, width) class numbers for
    (B, 3, height, width) pixels. All else is the same.

    Args:
        settings: the network and the pixels it expects.
        seed: of the random initial weights. The global random state is neither used nor changed.
        weights: a state dict of the backbone (.pth, .pt, .safetensors); it goes before `settings.pretrained`.

    Attributes:
        settings: as given.
        history: how the weights came to be (where they were trained, on what), plain values.

    Raises:
        UnknownNameError: the backbone or the aggregator is in no table.
        InvalidInputError: the options or the weights do not fit the network.
        MissingFileError: the weights are not there, or not to be had from the hub.
        DamagedFileError: the weights are truncated or foreign.

    >>> model = PlaceModel(ModelSettings(backbone="resnet10t", height=32, width=32), seed=1)
    >>> model.dim, model.describe([np.zeros((40, 50, 3), dtype=np.uint8)]).shape
    (512, (1, 512))
    """

    def __init__(self, settings: ModelSettings, *, seed: int = 0, weights: str | Path | None = None) -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.history: Mapping[str, Any] = {}
        self.encoder = LabelEncoder(encoding(settings.encoding)) if settings.encoding.classes else None
        make = resolve(settings.aggregator, AGGREGATORS, what="aggregator")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
            self.backbone = Backbone(
                settings.backbone,
                options=settings.backbone_options,
                pretrained=settings.pretrained and weights is None,
                size=(settings.height, settings.width),
                channels_in=3 if self.encoder is None else len(self.encoder.weights),
                levels=settings.levels,
            )
            self.aggregator = _aggregator(make, settings, self.backbone)
            self.projection: nn.Module = nn.Linear(self.aggregator.dim, settings.projection) if settings.projection else nn.Identity()
        if weights is not None:
            load_backbone(self.backbone, weights)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(settings.std).reshape(3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # a third faster on CPUs; the values are the same

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor: the projection's, or those that the aggregator says."""
        return self.settings.projection or int(self.aggregator.dim)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def digest(self) -> str:
        """A hash of all that decides a descriptor: the settings and the weights as they are now (16 hex digits)."""
        settings = model_card(dataclasses.replace(self.settings, pretrained=False))  # where weights came from does not count, they do
        read = (
            {} if self.encoder is None else {"encoding": encoding(self.settings.encoding).digest()}
        )  # a file's name says not what it holds
        return digest({"settings": settings, "weights": weights_digest(self), **read})

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, height, width) uint8 to (B, dim) descriptors, in the mode (train or eval) that the module is in."""
        features = self.projection(self.aggregator(self.see(pixels)))
        described: torch.Tensor = F.normalize(features, dim=1) if self.settings.normalize else features
        return described

    def describe_pixels(self, pixels: torch.Tensor) -> NDArray[np.float32]:
        """(B, 3, height, width) uint8 to (B, dim), in eval mode; a row does not depend on the others (to 1e-6)."""
        with evaluating(self), torch.inference_mode():
            found: NDArray[np.float32] = self(pixels).float().cpu().numpy()
        return found

    def describe(self, images: Sequence[ImageLike], *, batch: int = 32) -> NDArray[np.float32]:
        """Describe images, in eval mode: `covis.models.describers.describe`."""
        return describe(self, images, batch=batch)

    @property
    def resize(self) -> Resize:
        """How images, or label maps, get to the network's size."""
        return self.settings.resize if self.encoder is None else "labels"

    @property
    def starts_from_data(self) -> bool:
        """Whether the aggregator has something to take from data (`initialise`), and has not done so yet."""
        return hasattr(self.aggregator, "initialise") and not bool(getattr(self.aggregator, "initialised", False))

    def initialise(self, images: Sequence[ImageLike], *, seed: int, count: int = 500, batch: int = 32) -> None:
        """Let an aggregator that starts from data (NetVLAD) do so; for the others nothing is done.

        It is done anew each time, trained or not; `starts_from_data` says whether it is still to be done.

        Args:
            images: of the kind that the model will see, as `describe` takes them.
            seed: of the choice of images, and of what the aggregator draws.
            count: images at most, drawn without replacement.
            batch: images that the network sees at once.

        Raises:
            InvalidInputError: there are too few images, or one is none.
            MissingFileError: a file is not there.
            DamagedFileError: a file does not decode.
        """
        if not hasattr(self.aggregator, "initialise"):
            return
        rows = np.random.default_rng(seed).permutation(len(images))[:count]
        self.aggregator.initialise(self._features([images[row] for row in rows], batch=batch), seed=seed)

    def _features(self, images: Sequence[ImageLike], *, batch: int) -> Iterator[Features]:
        for pixels in self._decoded(images, batch=batch):
            with evaluating(self), torch.no_grad():
                features = self.see(pixels)
            yield features

    def see(self, pixels: torch.Tensor) -> Features:
        """What the backbone gives for (B, 3, height, width) pixels, or for label maps, (B, 1, height, width).

        Of label maps with the masks that they show, where the aggregator says `needs_masks`.

        Raises:
            InvalidInputError: the channels are those of the other kind.
        """
        wanted = channels_of(self.resize)
        if pixels.ndim != 4 or pixels.shape[1] != wanted:
            kind = "photographs" if self.encoder is None else "label maps"
            raise InvalidInputError(
                f"A network that reads {kind} takes (B, {wanted}, height, width); got {tuple(pixels.shape)}. Decode by its `resize`."
            )
        if self.encoder is None:
            features: Features = self.backbone(normalize(pixels, self.mean, self.std))
            return features
        numbers = pixels.to(self.mean.device)
        masks = self.encoder.masks(numbers)
        features = self.backbone(self.encoder.weighted(masks))
        return features._replace(masks=masks) if getattr(self.aggregator, "needs_masks", False) else features

    def _decoded(self, images: Sequence[ImageLike], *, batch: int) -> Iterator[torch.Tensor]:
        settings = self.settings
        return decode_ahead(images, height=settings.height, width=settings.width, resize=self.resize, batch=batch)


def model_card(settings: ModelSettings) -> dict[str, Any]:
    """The settings as plain values, as they were before a network could have levels or read label maps where it does neither.

    >>> "levels" in model_card(ModelSettings()), model_card(ModelSettings(levels=(2, 3, 4)))["levels"]
    (False, [2, 3, 4])
    """
    table = to_table(settings)
    plain = to_table(ModelSettings())
    for name in ("levels", "encoding"):
        if table[name] == plain[name]:
            del table[name]
    return table


def _check(settings: ModelSettings) -> None:
    check_size(settings.height, settings.width, settings.resize)
    if str(settings.resize) == "labels":
        raise InvalidInputError(
            "The way to resize photographs must be pil or pil-crop; got 'labels'. A network reads label maps where its encoding names "
            "classes, and then resizes them so."
        )
    if not all(value > 0 for value in settings.std):
        raise InvalidInputError(f"The std of each channel must be above 0; got {settings.std}.")
    if settings.projection < 0:
        raise InvalidInputError(f"The dimensions of the projection must be above 0, or 0 for none; got {settings.projection}.")


def _aggregator(make: Callable[..., Any], settings: ModelSettings, backbone: Backbone) -> Any:
    try:
        aggregator = make(backbone.channels, **settings.aggregator_options)
    except TypeError as error:
        raise InvalidInputError(
            f"The aggregator {settings.aggregator!r} does not take the options {settings.aggregator_options}; {error}."
        ) from error
    if getattr(aggregator, "needs_token", False) and not backbone.has_token:
        has = "with levels no class token comes out" if settings.levels else f"{settings.backbone!r} has none"
        raise InvalidInputError(f"The aggregator {settings.aggregator!r} needs {NEEDS_A_TOKEN}; {has}.")
    return aggregator


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode; afterwards each in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def weights_digest(model: nn.Module) -> str:
    """A hash of a module's weights and buffers as they are now (64 hex digits)."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, torch.Tensor):  # what a module adds to its state by `get_extra_state`
            found.update(f"{name} {value if isinstance(value, (bool, int, float, str)) else type(value).__name__}\n".encode())
            continue
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
