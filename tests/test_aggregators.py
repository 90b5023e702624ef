"""Aggregators: each is its formula in plain loops, and keeps the contract that all of them share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from covis.errors import InvalidInputError
from covis.models import checkpoints
from covis.models.aggregators import AGGREGATORS, Average, Features, GeM, LabelFeatures, Max, NetVLAD, Token
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = (4, 6)
OPTIONS: dict[str, dict[str, object]] = {"netvlad": {"clusters": 5, "alpha": 3.0}}
SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
SETTINGS = ModelSettings(backbone="resnet10t", backbone_options=SLIM, height=32, width=48)
VIT = ModelSettings(
    backbone="vit_tiny_patch16_224", backbone_options={"img_size": (32, 48), "depth": 1, "embed_dim": 24}, height=32, width=48
)


def _made(name: str) -> nn.Module:
    torch.manual_seed(3)
    made: nn.Module = AGGREGATORS[name](CHANNELS, **OPTIONS.get(name, {}))
    return made


def _features(count: int = 3, height: int = 3, width: int = 4, seed: int = 0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(torch.randn(count, channels, height, width, generator=generator) for channels in CHANNELS)
    return Features(maps, torch.randn(count, CHANNELS[-1], generator=generator))


# -- what all of them share --


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_the_dimension_is_what_comes_out_for_maps_of_any_size(name: str) -> None:
    module = _made(name)
    for height, width in ((3, 4), (1, 1), (7, 2)):
        found = module(_features(2, height, width))
        assert found.shape == (2, module.dim)
        assert found.dtype == torch.float32
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_a_batch_gives_what_single_images_give(name: str) -> None:
    module, features = _made(name), _features(4)
    assert features.token is not None
    whole = module(features)
    for row in range(4):
        alone = module(Features(tuple(one[row : row + 1] for one in features.maps), features.token[row : row + 1]))
        torch.testing.assert_close(alone[0], whole[row])


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_constant_maps_have_finite_gradients(name: str, value: float) -> None:
    module = _made(name)
    maps = tuple(torch.full((2, channels, 3, 4), value, requires_grad=True) for channels in CHANNELS)
    token = torch.full((2, CHANNELS[-1]), value, requires_grad=True)
    (module(Features(maps, token)) * torch.arange(module.dim)).sum().backward()
    gradients = [maps[-1].grad, token.grad, *(parameter.grad for parameter in module.parameters())]
    assert any(gradient is not None for gradient in gradients)
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_it_is_its_definition_in_plain_loops(name: str) -> None:
    module, features = _made(name), _features()
    assert features.token is not None
    for image in range(3):
        levels = [one[image].flatten(1).double().tolist() for one in features.maps]  # one list of values a channel
        expected = (
            ALL_LEVELS[name](module, levels) if name in ALL_LEVELS else ORACLES[name](module, levels[-1], features.token[image].tolist())
        )
        np.testing.assert_allclose(module(features)[image].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def _vlad(module: nn.Module, columns: list[list[float]], _token: list[float]) -> list[float]:
    """NetVLAD position by position, cluster by cluster, from the centres and the alpha that it starts from."""
    assert isinstance(module, NetVLAD)
    centres = module.centroids.double().tolist()
    sums = [[0.0] * len(columns) for _ in centres]
    for position in zip(*columns, strict=True):
        local = _by_its_norm(list(position))
        weights = [math.exp(-3.0 * sum((x - c) ** 2 for x, c in zip(local, centre, strict=True))) for centre in centres]
        for k, centre in enumerate(centres):
            for channel, (x, c) in enumerate(zip(local, centre, strict=True)):
                sums[k][channel] += weights[k] / sum(weights) * (x - c)
    return _by_its_norm([value for one in sums for value in _by_its_norm(one)])


def _by_its_norm(values: list[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def _generalised_mean(module: nn.Module, columns: list[list[float]], _token: list[float]) -> list[float]:
    return [(sum(max(x, 1e-6) ** 3 for x in column) / len(column)) ** (1 / 3) for column in columns]


def _level_by_level(_module: nn.Module, levels: list[list[list[float]]]) -> list[float]:
    return [value for level in levels for value in _by_its_norm(_generalised_mean(nn.Identity(), level, []))]


def _of_each_class(module: nn.Module, columns: list[list[float]], _token: list[float]) -> list[float]:
    """Position by position: which class it is of, by the 1 x 1 convolution; then a generalised mean under each class."""
    assert isinstance(module, LabelFeatures)
    rows, shifts = module.classify.weight.flatten(1).double().tolist(), module.classify.bias.double().tolist()  # type: ignore[union-attr]
    masks = []
    for position in zip(*columns, strict=True):
        odds = [math.exp(sum(w * x for w, x in zip(row, position, strict=True)) + shift) for row, shift in zip(rows, shifts, strict=True)]
        masks.append([one / sum(odds) for one in odds])
    found = _by_its_norm(_generalised_mean(module, columns, []))
    for of_class in zip(*masks, strict=True):
        share = sum(of_class) / len(of_class)
        own = [(sum(a * max(x, 1e-6) ** 3 for a, x in zip(of_class, column, strict=True)) / sum(of_class)) ** (1 / 3) for column in columns]
        found += [math.sqrt(module.mu * share) * value for value in _by_its_norm(own)]
    return found


ALL_LEVELS = {"multi-level": _level_by_level}
ORACLES: dict[str, Callable[[nn.Module, list[list[float]], list[float]], list[float]]] = {
    "average": lambda _module, columns, _token: [sum(column) / len(column) for column in columns],
    "gem": _generalised_mean,
    "label-features": _of_each_class,
    "max": lambda _module, columns, _token: [max(column) for column in columns],
    "netvlad": _vlad,
    "token": lambda _module, _columns, token: token,
}


# -- averages and maxima --


def test_gem_goes_from_the_average_to_the_maximum() -> None:
    features = Features((torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)) + 0.1,))
    pools = [GeM((3,), p=p)(features) for p in (1.0, 3.0, 10.0, 60.0)]
    assert all((low <= high + 1e-6).all() for low, high in itertools.pairwise(pools))
    torch.testing.assert_close(pools[0], Average((3,))(features))
    torch.testing.assert_close(pools[-1], Max((3,))(features), rtol=0.06, atol=0)


def test_the_exponent_of_gem_learns() -> None:
    pool = GeM((6,))
    pool(_features()).sum().backward()
    assert pool.p.grad is not None
    assert pool.p.grad != 0


@pytest.mark.parametrize("options", [{"p": 0.0}, {"eps": 0.0}, {"p": float("nan")}])
def test_gem_refuses_an_exponent_of_nothing(options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="above 0"):
        GeM((2,), **options)


# -- the class token --


def test_the_token_is_the_transformers() -> None:
    model = PlaceModel(dataclasses.replace(VIT, aggregator="token", normalize=False)).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    features = model.backbone((pixels / 255 - model.mean) / model.std)
    torch.testing.assert_close(model(pixels), features.token)


def test_a_network_without_a_token_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'token' needs a backbone with a class token .* 'resnet10t' has none"):
        PlaceModel(dataclasses.replace(SETTINGS, aggregator="token"))
    with pytest.raises(InvalidInputError, match="feature maps alone"):
        Token((6,))(Features(_features().maps))


# -- NetVLAD --


def _gathered(count: int = 40) -> tuple[list[np.ndarray], Iterator[Features]]:
    """Maps whose local descriptors gather around three directions."""
    rng = np.random.default_rng(0)
    directions = [np.array(one, dtype=np.float32) for one in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.6, 0.8])]
    chosen = rng.integers(0, 3, (count, 4, 5))
    maps = np.stack(directions)[chosen] * rng.uniform(0.5, 2, (count, 4, 5, 1)) + rng.normal(0, 0.01, (count, 4, 5, 4))
    blocks = torch.from_numpy(maps.astype(np.float32)).permute(0, 3, 1, 2).split(16)
    return directions, (Features((block,)) for block in blocks)


def test_the_centres_come_to_lie_where_descriptors_gather() -> None:
    directions, features = _gathered()
    module = NetVLAD((4,), clusters=3)
    assert not module.initialised
    module.initialise(features, seed=0)
    assert module.initialised
    nearest = torch.cdist(torch.from_numpy(np.stack(directions)), module.centroids.detach()).min(dim=1)
    assert nearest.values.max() < 0.02
    assert sorted(nearest.indices.tolist()) == [0, 1, 2]


def test_the_assignment_starts_from_the_centres_with_a_ratio_of_a_hundred() -> None:
    module = NetVLAD((4,), clusters=3)
    module.initialise(_gathered()[1], seed=0)
    centroids = module.centroids.detach()
    alpha = (module.assign.weight[:, :, 0, 0] / (2 * centroids)).detach()
    torch.testing.assert_close(alpha, alpha[0, 0].expand_as(alpha), rtol=1e-3, atol=0)
    torch.testing.assert_close(module.assign.bias.detach(), -alpha[0, 0] * centroids.square().sum(dim=1), rtol=1e-4, atol=1e-5)
    local = torch.nn.functional.normalize(torch.cat([one.maps[-1] for one in _gathered()[1]]), dim=1)
    weights = module.assign(local).softmax(dim=1).topk(2, dim=1).values.detach()
    assert float((weights[:, 0] / weights[:, 1]).log().mean().exp()) == pytest.approx(100, rel=0.01)
    fixed = NetVLAD((4,), clusters=3, alpha=7.0)
    fixed.initialise(_gathered()[1], seed=0)
    torch.testing.assert_close(fixed.assign.weight[:, :, 0, 0].detach(), 14 * fixed.centroids.detach())


def test_the_seed_alone_decides_the_centres() -> None:
    def started(seed: int) -> torch.Tensor:
        module = NetVLAD((4,), clusters=6)
        module.initialise(_gathered()[1], seed=seed)
        return module.centroids.detach()

    assert (started(1) == started(1)).all()
    assert (started(1) != started(2)).any()


def test_netvlad_refuses_what_it_cannot_start_from() -> None:
    with pytest.raises(InvalidInputError, match=r"NetVLAD with 9 clusters .* the images give 1\. Give more images"):
        NetVLAD((4,), clusters=9).initialise(iter([Features((torch.ones(3, 4, 2, 2),))]), seed=0)
    with pytest.raises(InvalidInputError, match="the images give 0"):
        NetVLAD((4,)).initialise(iter([]), seed=0)
    for options in ({"clusters": 0}, {"alpha": 0.0}, {"alpha": math.nan}):
        with pytest.raises(InvalidInputError, match="at least 1 cluster"):
            NetVLAD((4,), **options)  # type: ignore[arg-type]


def test_a_model_starts_its_aggregator_from_images(tmp_path: Path) -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8) for seed in range(9)]
    model = PlaceModel(dataclasses.replace(SETTINGS, aggregator="netvlad", aggregator_options={"clusters": 4}), seed=1).train()
    assert model.starts_from_data
    before = model.digest
    model.initialise(images, seed=0, count=6, batch=4)
    assert model.training
    assert not model.starts_from_data
    assert model.digest != before
    other = PlaceModel(model.settings, seed=1)
    other.initialise(images, seed=0, count=6, batch=1)
    torch.testing.assert_close(other.aggregator.centroids, model.aggregator.centroids, rtol=0, atol=1e-4)
    back = checkpoints.load(checkpoints.save(model, tmp_path / "model"))
    assert (back.digest, back.starts_from_data) == (model.digest, False)
    gem = PlaceModel(SETTINGS)
    before = gem.digest
    gem.initialise(images, seed=0)
    assert gem.digest == before
    assert not gem.starts_from_data


# -- the projection --


def test_a_projection_comes_after_the_aggregator_and_before_the_norm() -> None:
    settings = dataclasses.replace(SETTINGS, projection=5)
    model = PlaceModel(settings, seed=2).eval()
    assert model.dim == 5
    pixels = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        whole = PlaceModel(dataclasses.replace(SETTINGS, normalize=False), seed=2).eval()(pixels)
        plain = whole @ model.projection.weight.T + model.projection.bias
        torch.testing.assert_close(model(pixels), plain / plain.norm(dim=1, keepdim=True))
        found = PlaceModel(dataclasses.replace(settings, normalize=False), seed=2).eval()(pixels)
        torch.testing.assert_close(found, plain)
    assert model.describe([np.zeros((8, 8, 3), dtype=np.uint8)]).shape == (1, 5)
    with pytest.raises(InvalidInputError, match="projection must be above 0"):
        PlaceModel(dataclasses.replace(SETTINGS, projection=-1))
