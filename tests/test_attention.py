"""Attention: maps known by hand, splits that add up, and models that are left as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from covis.attention import METHODS, attend, contributions, gradient_maps, occlusion_map
from covis.attention.inputs import as_pixels
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError
from covis.models.aggregators import AGGREGATORS, Features
from covis.models.foreign import ForeignModel
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ModelSettings(backbone="resnet10t", height=64, width=96)
SIZE = (64, 96)


class Pixels(nn.Module):
    """A backbone whose features are the pixels, between 0 and 1; with a second level of half the size if asked for."""

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        self.levels, self.stages, self.network = levels, (), nn.Identity()

    def forward(self, x: torch.Tensor) -> Features:
        return Features((F.avg_pool2d(x, 2), x) if self.levels == 2 else (x,))


class BothLevels(nn.Module):
    """The averages of two levels, one after the other."""

    dim = 6

    def forward(self, features: Features) -> torch.Tensor:
        return torch.cat([level.mean(dim=(-2, -1)) for level in features.maps], dim=1)


class Spread(nn.Module):
    """An aggregator that does not add up over locations."""

    dim = 3

    def forward(self, features: Features) -> torch.Tensor:
        return features.maps[-1].var(dim=(-2, -1))


def pixel_model(aggregator: str = "average", size: tuple[int, int] = (4, 6), **options: Any) -> PlaceModel:
    settings = replace(SMALL, height=size[0], width=size[1], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    model = PlaceModel(replace(SMALL, **options))
    model.settings = replace(settings, **options)
    model.mean, model.std = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    model.backbone = Pixels()  # type: ignore[assignment]
    model.aggregator = AGGREGATORS[aggregator]((3,))
    return model


@pytest.fixture(scope="module")
def photographs() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(4)
    coarse = random.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    a, b = (np.asarray(Image.fromarray(one).resize((120, 90), Image.Resampling.BICUBIC)) for one in coarse)
    return a, b


@pytest.fixture(scope="module")
def network() -> PlaceModel:
    return PlaceModel(SMALL, seed=3)


def squares(method: str) -> dict[str, int]:
    """Few squares, for speed."""
    return {"patch": 32, "stride": 32} if method == "occlusion" else {}


def cosine(model: Any, a: np.ndarray, b: np.ndarray) -> float:
    x, y = (model.describe_pixels(as_pixels(model, one))[0].astype(float) for one in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


# Activation.


def test_the_average_of_pixels_looks_at_each_as_the_mean_colour_sees_it() -> None:
    """v is the mean colour, and a pixel adds x(i) · v / (N ‖v‖²): here one bright red pixel and one dim green one."""
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[1, 2, 0], image[3, 5, 1] = 200, 100
    (found,) = contributions(pixel_model(), image)
    expected = np.zeros((4, 6))
    expected[1, 2], expected[3, 5] = 200 * 200 / (200**2 + 100**2), 100 * 100 / (200**2 + 100**2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    scaled = attend(pixel_model(), image)
    assert scaled[1, 2] == 1
    assert scaled[3, 5] == pytest.approx(0.25)
    assert scaled.dtype == np.float32


def test_gem_shares_each_channel_by_the_powers() -> None:
    """One channel, p = 3: the share of a pixel is x³ / Σ x³, whatever the value of the channel."""
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[0, 0, 2], image[2, 3, 2] = 60, 120
    (found,) = contributions(pixel_model("gem"), image)
    assert found[2, 3] == pytest.approx(8 / 9, abs=1e-5)
    assert found[0, 0] == pytest.approx(1 / 9, abs=1e-5)


def test_the_maximum_looks_where_it_is() -> None:
    image = np.full((4, 6, 3), 10, dtype=np.uint8)
    image[1, 1] = 250
    assert np.argwhere(attend(pixel_model("max"), image) > 0).tolist() == [[1, 1]]


@pytest.mark.parametrize("projection", [0, 5])
@pytest.mark.parametrize("aggregator", ["average", "gem", "max", "netvlad"])
def test_contributions_add_up_to_the_similarity(aggregator: str, projection: int, photographs: Any) -> None:
    options = {"clusters": 4, "alpha": 3.0} if aggregator == "netvlad" else {}
    model = PlaceModel(replace(SMALL, aggregator=aggregator, aggregator_options=options, projection=projection), seed=2)
    if projection:
        nn.init.zeros_(model.projection.bias)  # type: ignore[arg-type] # a bias belongs to no location
    for image, other in (photographs, photographs[::-1]):
        (found,) = contributions(model, image, other=other)
        assert found.shape == (2, 3)
        assert found.sum() == pytest.approx(
            cosine(model, image, other), abs=1e-4 if aggregator == "gem" else 1e-5
        )  # its eps is no location's
    (alone,) = contributions(model, photographs[0])
    assert alone.sum() == pytest.approx(1, abs=1e-5)


def test_netvlad_splits_over_single_locations_as_a_plain_loop_does(photographs: Any) -> None:
    model = PlaceModel(replace(SMALL, aggregator="netvlad", aggregator_options={"clusters": 3, "alpha": 2.0}), seed=2)
    with torch.no_grad():
        model.eval()
        (level,) = model.backbone((as_pixels(model, photographs[0]) / 255 - model.mean) / model.std).maps
    x = F.normalize(level[0].flatten(1), dim=0).numpy().astype(float)
    w, b, c = (one.detach().numpy().astype(float) for one in (model.aggregator.assign.weight[:, :, 0, 0], model.aggregator.assign.bias,
                                                              model.aggregator.centroids))  # fmt: skip
    each = np.zeros((x.shape[1], 3, x.shape[0]))
    for i in range(x.shape[1]):
        scores = np.exp(w @ x[:, i] + b)
        for k in range(3):
            each[i, k] = scores[k] / scores.sum() * (x[:, i] - c[k])
    sums = each.sum(axis=0)
    descriptor = sums / np.linalg.norm(sums, axis=1, keepdims=True) / np.sqrt(3)
    expected = [float((one / np.linalg.norm(sums, axis=1, keepdims=True) / np.sqrt(3) * descriptor).sum()) for one in each]
    np.testing.assert_allclose(contributions(model, photographs[0])[0].ravel(), expected, atol=1e-5)


def test_an_aggregator_that_does_not_add_up_shows_the_norm_of_the_features(photographs: Any) -> None:
    model = pixel_model()
    model.aggregator = Spread()
    image = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(contributions(model, image)[0], np.linalg.norm(image / 255, axis=2), atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"does not add up over locations.*'gradient'"):
        attend(model, image, other=image)


def test_levels_are_resized_and_added() -> None:
    model = pixel_model()
    model.backbone, model.aggregator = Pixels(levels=2), BothLevels()  # type: ignore[assignment]
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[2:4, 0:2] = 100
    small, large = contributions(model, image)
    assert (small.shape, large.shape) == ((2, 3), (4, 6))
    assert small.sum() + large.sum() == pytest.approx(1)
    for method in ("activation", "gradient"):
        found = attend(model, image, method=method)  # type: ignore[arg-type]
        assert found.shape == (4, 6)
        assert np.unravel_index(found.argmax(), found.shape) == (3, 0)


# Gradient.


def test_grad_cam_of_the_average_is_the_contribution() -> None:
    """The gradient of an average is the same at every location, so the two methods agree (up to the scale)."""
    image = np.random.default_rng(2).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_allclose(attend(pixel_model(), image, method="gradient"), attend(pixel_model(), image), atol=1e-5)


def test_the_gradient_of_the_similarity_is_that_of_finite_differences() -> None:
    """s = cos(v, w) of two mean colours: Σ_c x_c(i) ∂s/∂v_c / N², the slope by central differences in float64."""
    random = np.random.default_rng(3)
    image, other = (random.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(2))
    (found,) = gradient_maps(pixel_model(), image, other=other)
    v, w = (one.mean(axis=(0, 1)) / 255 for one in (image, other))

    def similarity(mine: np.ndarray) -> float:
        return float(mine @ w / np.linalg.norm(mine) / np.linalg.norm(w))

    slope = np.array([(similarity(v + step) - similarity(v - step)) / 2e-6 for step in np.eye(3) * 1e-6])
    expected = np.maximum(0, (image / 255) @ slope / 24)  # ∂v/∂x is 1/N at each of N = 24 locations
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("aggregator", ["average", "gem", "max", "netvlad"])
def test_gradients_for_every_aggregator(aggregator: str, photographs: Any) -> None:
    model = PlaceModel(replace(SMALL, aggregator=aggregator, aggregator_options={"clusters": 4} if aggregator == "netvlad" else {}), seed=2)
    for other in (None, photographs[1]):
        found = attend(model, photographs[0], method="gradient", other=other)
        assert found.shape == SIZE
        assert found.max() == 1
        assert found.min() >= 0


@pytest.mark.parametrize("aggregator", ["average", "token"])
def test_a_transformer_has_maps_of_its_patches(aggregator: str, photographs: Any) -> None:
    """The class token depends on the patches through the attention of the last block, so the map is that of the block before."""
    options = {"img_size": (64, 96), "depth": 3, "embed_dim": 32, "num_heads": 2}
    model = PlaceModel(replace(SMALL, backbone="vit_tiny_patch16_224", backbone_options=options, aggregator=aggregator), seed=1)
    (level,) = gradient_maps(model, photographs[0], other=photographs[1])
    assert level.shape == (4, 6)
    assert level.max() > 0
    if aggregator == "token":
        np.testing.assert_array_equal(level, gradient_maps(model, photographs[0], other=photographs[1], layer="blocks.1")[0])
        with pytest.raises(InvalidInputError, match=r"'token' does not add up"):
            attend(model, photographs[0], other=photographs[1])


def test_a_layer_by_name(network: PlaceModel, photographs: Any) -> None:
    (last,) = gradient_maps(network, photographs[0], layer="layer4")
    np.testing.assert_allclose(last, gradient_maps(network, photographs[0])[0], rtol=1e-4, atol=1e-6)
    assert gradient_maps(network, photographs[0], layer="layer2")[0].shape == (8, 12)
    with pytest.raises(InvalidInputError, match=r"no layer called 'layer9'.*layer"):
        attend(network, photographs[0], method="gradient", layer="layer9")
    with pytest.raises(InvalidInputError, match=r"must give a feature map"):
        attend(pixel_headed(), photographs[0], method="gradient", layer="head")


# Occlusion.


class Corner:
    """Describes by one pixel region alone: its colour, and 1 in a dimension of its own."""

    dim, digest, engine, resize = 4, "corner", "other", "pil"

    def __init__(self, height: int = 24, width: int = 36) -> None:
        self.height, self.width = height, width

    def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        seen = pixels[:, :, 16:20, 4:8].double().mean(dim=(-2, -1)).numpy() / 255
        return np.float32(np.concatenate([seen, np.full((len(pixels), 1), 0.1)], axis=1))


@pytest.mark.parametrize("shared", [False, True])
def test_covering_the_only_informative_area_is_the_maximum(shared: bool) -> None:
    image = np.full((24, 36, 3), 20, dtype=np.uint8)
    image[16:20, 4:8] = (250, 30, 0)
    found = attend(Corner(), image, method="occlusion", other=image if shared else None, patch=4, stride=4, batch=7)
    assert found.shape == (24, 36)
    assert (found[16:20, 4:8] == 1).all()
    assert (found > 0).sum() == 16, "nothing elsewhere"


def test_the_drop_of_similarity_is_signed_and_known(photographs: Any) -> None:
    """Squares that do not overlap: each has cos(whole, other) - cos(covered, other)."""
    model = Corner()
    image, other = (np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8) for seed in (6, 7))
    image[16:20, 4:8], other[16:20, 4:8] = (0, 255, 0), (200, 0, 200)
    found = occlusion_map(model, image, other=other, patch=4, stride=4)
    covered = image.copy()
    covered[16:20, 4:8] = np.rint(image.astype(float).mean(axis=(0, 1)))
    assert found[17, 5] == pytest.approx(cosine(model, image, other) - cosine(model, covered, other), abs=1e-5)
    assert found[17, 5] < 0, "the cover is nearer to the other image"
    assert attend(model, image, other=other, method="occlusion", patch=4, stride=4).max() == 0, "nothing is shared"


def test_squares_reach_every_pixel_and_the_batch_does_not_count(network: PlaceModel, photographs: Any) -> None:
    whole = occlusion_map(network, photographs[0], patch=25, stride=20)
    assert whole.shape == SIZE
    np.testing.assert_allclose(whole, occlusion_map(network, photographs[0], patch=25, stride=20, batch=1), atol=2e-6)
    small = Corner()
    np.testing.assert_array_equal(
        attend(small, photographs[0], method="occlusion"), attend(small, photographs[0], method="occlusion", patch=4, stride=2)
    )


@pytest.mark.parametrize("wrong", [{"patch": 0}, {"patch": 65}, {"patch": 4, "stride": 5}, {"stride": 0}, {"batch": 0}])
def test_occlusion_refuses_what_leaves_gaps(wrong: dict[str, int], network: PlaceModel, photographs: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"1 <= stride <= patch <= the shorter side"):
        attend(network, photographs[0], method="occlusion", **wrong)


# All methods.


@pytest.mark.parametrize("method", METHODS)
def test_an_image_without_anything_gives_a_map_of_zeros(method: Any) -> None:
    black = np.zeros((4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(attend(pixel_model(), black, method=method), np.zeros((4, 6), np.float32))


@pytest.mark.parametrize("frozen", ["", "all"])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method: Any, frozen: str, photographs: Any) -> None:
    model = PlaceModel(SMALL, seed=3)
    model.backbone.freeze(frozen)
    model.train()
    model.backbone.network.layer2.eval()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))

    def state() -> list[Any]:
        parameters = [(p.requires_grad, p.grad is None, p.is_leaf) for p in model.parameters()]
        hooks = sum(len(m._forward_hooks) for m in model.modules())
        return [[m.training for m in model.modules()], parameters, hooks, float(next(model.parameters()).grad.sum()), model.digest]

    before = state()
    with torch.no_grad():
        first = attend(model, photographs[0], method=method, other=photographs[1], **squares(method))
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        second = attend(model, photographs[0], method=method, other=photographs[1], **squares(method))
    np.testing.assert_array_equal(first, second)
    assert state() == before
    assert np.isfinite(first).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_file_is_the_same_as_its_pixels(method: Any, network: PlaceModel, photographs: Any, tmp_path: Path) -> None:
    Image.fromarray(photographs[0]).save(tmp_path / "a.png")
    found, expected = (attend(network, one, method=method, **squares(method)) for one in (tmp_path / "a.png", photographs[0]))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(MissingFileError, match=r"nowhere.jpg"):
        attend(network, tmp_path / "nowhere.jpg", method=method)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    with pytest.raises(DamagedFileError, match=r"cut.png"):
        attend(network, photographs[0], other=tmp_path / "cut.png", method=method)


def test_methods_and_their_options_are_checked(network: PlaceModel, photographs: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"activation, gradient, occlusion; got 'rollout'"):
        attend(network, photographs[0], method="rollout")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"patch is of the method 'occlusion' alone"):
        attend(network, photographs[0], method="gradient", patch=3)
    with pytest.raises(InvalidInputError, match=r"layer is of the method 'gradient' alone"):
        attend(network, photographs[0], layer="layer4")


class Headed(nn.Module):
    """A network of someone's: features, their mean, a head and the norm; in one call on uint8 pixels."""

    dim, digest, engine, height, width, resize = 5, "headed", "torch", 64, 96, "pil"

    def __init__(self, *, normalize: bool = True, flat: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(1)
            self.body = (
                nn.Sequential(nn.Flatten(), nn.Linear(64 * 96 * 3, 8))
                if flat
                else nn.Sequential(nn.Conv2d(3, 8, 5, stride=8), nn.ReLU(inplace=True))
            )
            self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)
        self.normalize, self.flat = normalize, flat

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found = self.body(pixels.float() / 255)
        found = self.head(found if self.flat else self.pool(found).flatten(1))
        return F.normalize(found, dim=1) if self.normalize else found

    def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            return self(pixels).numpy()


def pixel_headed() -> Headed:
    return Headed()


@pytest.mark.parametrize("normalize", [True, False])
def test_a_network_of_someone_else(normalize: bool, photographs: Any) -> None:
    """The last module with a map of more than one location is found; the pooled (1, 8, 1, 1) is none."""
    model = Headed(normalize=normalize).requires_grad_(requires_grad=False)
    for other in (None, photographs[1]):
        (found,) = gradient_maps(model, photographs[0], other=other)
        np.testing.assert_array_equal(found, gradient_maps(model, photographs[0], other=other, layer="body.1")[0])
        assert found.shape == (8, 12)
        assert found.max() > 0
    assert attend(model, photographs[0], method="occlusion", patch=16, stride=16).max() == 1
    with pytest.raises(InvalidInputError, match=r"'activation' looks inside a model of covis.*Headed.*'gradient'.*'occlusion'"):
        attend(model, photographs[0])


def test_a_module_that_was_opened_has_its_own_names(photographs: Any) -> None:
    settings = ModelSettings(height=64, width=96, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    means = nn.Sequential(nn.AvgPool2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = ForeignModel(means, name="means", settings=settings)
    (found,) = gradient_maps(model, photographs[0], other=photographs[1])
    assert found.shape == (8, 12)
    np.testing.assert_array_equal(found, gradient_maps(model, photographs[0], other=photographs[1], layer="1")[0])
    with pytest.raises(InvalidInputError, match=r"no layer called 'network.1'"):
        gradient_maps(model, photographs[0], layer="network.1")


def test_networks_without_maps_and_engines_without_gradients_say_so(photographs: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"Headed has none. Take the method 'occlusion'"):
        attend(Headed(flat=True), photographs[0], method="gradient")
    with pytest.raises(InvalidInputError, match=r"needs a network of torch; got Corner"):
        attend(Corner(), photographs[0], method="gradient")


def test_real_photographs_of_one_place_share_more_at_the_place(covis_data: Path) -> None:
    """Two frames of one kitchen, a second apart: the split adds up to the similarity, which is that of the descriptors."""
    weights = covis_data / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    folder = covis_data / "7scenes" / "redkitchen" / "seq-01"
    if not weights.exists() or not folder.exists():
        pytest.skip("needs 7scenes/redkitchen and weights/ in $COVIS_DATA")
    half = (0.5, 0.5, 0.5)
    settings = ModelSettings(
        backbone="mobilenetv2_100", backbone_options={"pad_type": "same", "num_classes": 1001}, height=96, width=128, mean=half, std=half
    )
    model = PlaceModel(settings, weights=weights)
    a, b = sorted(folder.glob("*.color.jpg"))[0:2]
    (split,) = contributions(model, a, other=b)
    x, y = model.describe([a, b])
    assert split.sum() == pytest.approx(float(x @ y), abs=1e-4)
    same, different = (float((attend(model, a, other=one) * attend(model, a)).sum()) for one in (b, a))
    assert same == pytest.approx(different, rel=0.2)


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_it_works_where_the_model_is(method: Any, network: PlaceModel, photographs: Any) -> None:
    on_cpu = attend(network, photographs[0], method=method, other=photographs[1])
    on_gpu = attend(network.cuda(), photographs[0], method=method, other=photographs[1])
    network.cpu()
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-2)
