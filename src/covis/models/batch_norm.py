"""BatchNorm: which statistics it uses while the network learns."""

from __future__ import annotations

from typing import Literal, get_args, get_type_hints

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from covis.errors import InvalidInputError
from covis.models.place import PlaceModel
from covis.settings import TrainSettings

MODES: tuple[str, ...] = get_args(get_type_hints(TrainSettings)["bn_mode"])


def set_batch_norm(model: PlaceModel, mode: Literal["train", "eval", "paper"]) -> None:
    """Put the BatchNorm modules of a model in the state in which it learns; call it after each `.train()`.

    All kinds are meant: one, two or three dimensions, synchronised, and timm's with an activation.

    Args:
        model: its backbone knows which stages are frozen.
        mode: "train": statistics of the batch where the network learns, running ones in frozen stages; "eval": running
            statistics throughout, and they stay as they are (scale and shift still learn); "paper": statistics of the
            batch everywhere, and running ones move in frozen stages too.

    Raises:
        InvalidInputError: there is no such mode.
    """
    if mode not in MODES:
        raise InvalidInputError(f"The mode of BatchNorm must be one of {', '.join(MODES)}; got {mode!r}.")
    for module in _batch_norms(model):
        module.train(mode != "eval")
    if mode == "train":
        for stage in model.backbone.frozen:
            for module in _batch_norms(stage):
                module.eval()


def _batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
