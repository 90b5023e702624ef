"""What is looked at before training starts: every setting, and what does not go together."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from teaching import MODEL, SETTINGS, TRIPLETS, changed, make_scene, run

from covis.errors import InvalidInputError, UnknownNameError
from covis.images import Scene
from covis.labels import Labels
from covis.models.place import PlaceModel
from covis.settings import AugmentSettings
from covis.training.fitting import fit

pytestmark = pytest.mark.usefixtures("one_thread")

Street = tuple[Scene, Labels]


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return make_scene(tmp_path)


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(MODEL, seed=0)


def test_labels_must_be_of_the_scenes(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    scene, labels = street
    turned = dataclasses.replace(labels, query_names=labels.query_names[::-1])
    with pytest.raises(InvalidInputError, match=r"in their order"):
        run(model, (scene, turned), tmp_path / "run")
    for scenes, several in (([], []), ([scene], []), ([scene], [labels, labels])):
        with pytest.raises(InvalidInputError, match=r"one Labels a scene"):
            fit(model, scenes, several, SETTINGS, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"steps": 0}, "steps must be finite and at least 1"),
        ({"batch": 0}, "batch"),
        ({"micro_batch": -1}, "micro_batch"),
        ({"micro_batch": 3}, "micro_batch must divide the batch, so that all its parts weigh the same; got 3 for 8"),
        ({"devices": 0}, "devices"),
        ({"devices": 3}, "batch must be divisible by devices"),
        ({"devices": 2, "micro_batch": 8}, "micro_batch must divide the batch of each device"),
        ({"devices": 2, "bn_mode": "paper"}, "reference's way on one device"),
        ({"micro_batch": 1, "bn_mode": "paper"}, "at least 2; got 1"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"momentum": -0.1}, "momentum"),
        ({"momentum": 0.9}, "momentum is of optimizer = \"sgd\"; got 0.9 with 'adamw'"),
        ({"momentum": 1.0, "optimizer": "sgd"}, "momentum must be in [0, 1)"),
        ({"optimizer": "lion"}, "optimizer must be one of 'sgd', 'adam', 'adamw'; got 'lion'"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"schedule": "step"}, "decay_every, the steps between two decays, must be at least 1"),
        ({"decay_every": 5}, "and 0 otherwise; got 5 with 'cosine'"),
        ({"warmup": 13}, "warmup must not be longer than the run; got 13 of 12"),
        ({"bn_mode": "frozen"}, "bn_mode must be one of"),
        ({"precision": "64"}, "precision must be one of"),
        ({"precision": "16", "accelerator": "cpu"}, 'precision = "16" needs a CUDA GPU'),
        ({"accelerator": "tpu"}, "accelerator must be one of"),
        ({"gradient_clip": -1.0}, "gradient_clip"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"seed": -1}, "seed"),
        ({"augment": AugmentSettings(brightness=1.0)}, "[train.augment] brightness must be in [0, 1); got 1.0"),
        ({"augment": AugmentSettings(grey=1.5)}, "[train.augment] grey must be in [0, 1]; got 1.5"),
        ({"augment": AugmentSettings(noise=-0.1)}, "noise"),
        ({"freeze": "layer9"}, "no stage called 'layer9'"),
        ({"loss": "gcll"}, "Did you mean 'gcl'"),
        ({"sampler": "gradd"}, "Did you mean 'graded'"),
        ({"loss_options": {"margn": 1}}, "does not take the options"),
        ({"sampler_options": {"kind": 1}}, "does not take the options"),
        ({"loss": "triplet"}, "The loss 'triplet' and the sampler 'graded' do not go together"),
        (TRIPLETS | {"loss": "gcl"}, "The loss 'gcl' and the sampler 'triplets' do not go together"),
        ({"loss": f"{__name__}:loss_in_all"}, "must give one value an item, (8,); it gives ()"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    model: PlaceModel, street: Street, tmp_path: Path, change: dict[str, object], match: str
) -> None:
    with pytest.raises((InvalidInputError, UnknownNameError), match=re.escape(match)):
        run(model, street, tmp_path / "run", changed(**change))
    assert not (tmp_path / "run").exists()


def loss_in_all(a: torch.Tensor, b: torch.Tensor, _similarity: torch.Tensor) -> torch.Tensor:
    """A loss that reduces."""
    return (a - b).square().sum()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed_in_words(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is none"):
        run(model, street, tmp_path / "run", changed(accelerator="gpu"))


def test_something_must_be_left_to_learn(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    """GeM's exponent is one number that learns; without it nothing does."""
    model.aggregator.p.requires_grad_(False)
    with pytest.raises(InvalidInputError, match=r"Something must be left to learn; freeze = 'all'"):
        run(model, street, tmp_path / "run", changed(freeze="all"))


def test_the_try_leaves_model_and_random_state_as_they_were(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    before, torch_state, numpy_state = model.digest, torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (to see that nobody uses it)
    with pytest.raises(UnknownNameError, match=r"layer9"):
        run(model, street, tmp_path / "run", changed(freeze="layer9"))
    run(model, street, tmp_path / "run", changed(steps=1))
    assert model.digest == before
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002 (as above)
