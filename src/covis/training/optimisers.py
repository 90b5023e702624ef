"""The optimiser, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from covis.settings import TrainSettings


def make_optimiser(parameters: Iterable[torch.nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that the settings name, of the parameters that learn.

    Args:
        parameters: those that do not ask for a gradient are left out.
        settings: optimizer, learning_rate, momentum, weight_decay.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    # A gradient scaler (precision "16") must see the gradients before the step; fused steps unscale them themselves.
    fused, decay = settings.precision != "16", settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(learning, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=decay, fused=fused)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(learning, lr=settings.learning_rate, weight_decay=decay, fused=fused)


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The learning rate of step number `step` (from 0).

    The peak, times 1 ("constant"), ½ (1 + cos(π step / steps)) ("cosine") or decay^⌊step / decay_every⌋ ("step"), times
    (step + 1) / warmup during the first `warmup` steps.

    >>> settings = TrainSettings(learning_rate=1.0, steps=4, warmup=2)
    >>> [round(learning_rate(settings, step), 4) for step in range(4)]
    [0.5, 0.8536, 0.5, 0.1464]
    """
    share = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        share *= 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    elif settings.schedule == "step":
        share *= settings.decay ** (step // settings.decay_every)
    return settings.learning_rate * share
