"""Label features (our own design): the score is an inner product, absent classes drop out, and what teaches them does."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teaching import MODEL, TRIPLETS, changed, make_scene
from torch.nn import functional as F

from covis.errors import DamagedFileError, InvalidInputError
from covis.images import Scene
from covis.models.aggregators import GeM
from covis.models.features import Features
from covis.models.label_features import LabelFeatures, take_apart
from covis.models.place import PlaceModel, evaluating
from covis.pairs import Pairs
from covis.rasters import read_label_map, write_label_map
from covis.semantics.encodings import encoding
from covis.settings import EncodingSettings, ModelSettings
from covis.structure.distillation import Distillation
from covis.structure.label_guides import LabelGuide, MaskRecorder
from covis.structure.label_losses import feature_masks, feature_size, label_distillation, mask_loss
from covis.structure.targets import Rows
from covis.training.fitting import fit

pytestmark = pytest.mark.usefixtures("one_thread")

SLIM = {"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}
STUDENT = ModelSettings(backbone="resnet10t", backbone_options=SLIM, height=64, width=96, aggregator="label-features")
SIX = EncodingSettings("cityscapes-train")
WEIGHTS = (2.0, 0.5, 0.0)


def _maps(count: int, channels: int = 5, height: int = 4, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


def _pixels(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 64, 96), dtype=np.uint8))


def _masks(count: int, classes: int = 3, height: int = 8, width: int = 12) -> torch.Tensor:
    """One-hot, of one class a pixel."""
    classes_of = torch.randint(0, classes, (count, height, width), generator=torch.Generator().manual_seed(1))
    return F.one_hot(classes_of, classes).permute(0, 3, 1, 2).float()


# -- the descriptor --


def _score(q: tuple[torch.Tensor, torch.Tensor], r: tuple[torch.Tensor, torch.Tensor], *, mu: float, weights: tuple[float, ...]) -> float:
    """g·g + mu Σ_c w_c sqrt(a_c a_c) v_c·v_c of two (map (D, h, w), masks (C, h, w)), position by position."""

    def parts(level: torch.Tensor, masks: torch.Tensor) -> tuple[list[float], list[float], list[list[float]]]:
        positions = level.flatten(1).T.double().tolist()
        whole, shares, own = [0.0] * len(level), [], []
        for position in positions:
            whole = [total + max(x, 1e-6) ** 3 / len(positions) for total, x in zip(whole, position, strict=True)]
        for mask in masks.flatten(1).double().tolist():
            total = sum(mask)
            sums = [sum(m * max(position[d], 1e-6) ** 3 for m, position in zip(mask, positions, strict=True)) for d in range(len(level))]
            shares.append(total / len(mask))
            own.append(_by_its_norm([(one / total) ** (1 / 3) for one in sums]))
        return _by_its_norm([one ** (1 / 3) for one in whole]), shares, own

    (g, a, v), (other_g, other_a, other_v) = parts(*q), parts(*r)
    found = sum(x * y for x, y in zip(g, other_g, strict=True))
    for weight, share, other_share, one, other in zip(weights, a, other_a, v, other_v, strict=True):
        found += mu * weight * math.sqrt(share * other_share) * sum(x * y for x, y in zip(one, other, strict=True))
    return found


def _by_its_norm(values: list[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


@pytest.mark.parametrize("true_masks", [False, True])
@torch.no_grad()
def test_the_inner_product_of_stored_descriptors_is_the_score(true_masks: bool) -> None:
    torch.manual_seed(0)
    module, maps = LabelFeatures((3, 5), classes=3, mu=0.7, weights=WEIGHTS), _maps(4)
    given = _masks(4) if true_masks else None
    masks = F.avg_pool2d(given, 2) if given is not None else module.classify(maps).softmax(dim=1)
    found = module(Features((torch.zeros(4, 3, 1, 1), maps), masks=given))
    assert found.shape == (4, module.dim) == (4, 5 * 4)
    for q in range(4):
        for r in range(4):
            expected = _score((maps[q], masks[q]), (maps[r], masks[r]), mu=0.7, weights=WEIGHTS)
            assert float(found[q] @ found[r]) == pytest.approx(expected, abs=1e-5)


@torch.no_grad()
def test_with_equal_weights_normalised_descriptors_rank_as_the_score_and_with_unequal_ones_they_need_not() -> None:
    maps = _maps(40, seed=2)
    torch.manual_seed(0)
    equal, unequal = (LabelFeatures((5,), classes=3, mu=1.5, weights=one)(Features((maps,))) for one in ([2, 2, 2], [9, 0, 0]))
    torch.testing.assert_close(equal.norm(dim=1), torch.full((40,), math.sqrt(1 + 1.5 * 2)))
    unit = F.normalize(equal, dim=1)
    assert torch.equal((unit[:8] @ unit[8:].T).argsort(dim=1), (equal[:8] @ equal[8:].T).argsort(dim=1))
    assert unequal.norm(dim=1).std() > 0.01


@torch.no_grad()
def test_a_class_that_one_of_two_images_does_not_show_drops_out() -> None:
    module, maps = LabelFeatures((5,), classes=3), _maps(2)
    masks = torch.zeros(2, 3, 4, 6)
    masks[0, 0], masks[1, 1] = 1, 1
    found = module(Features((maps,), masks=masks))
    whole, other = GeM((5,))(Features((maps,)))
    assert float(found[0] @ found[1]) == pytest.approx(float(F.cosine_similarity(whole, other, dim=0)), abs=1e-6)
    torch.testing.assert_close(found[0, 5:10], found[0, :5])  # a class that is everywhere is the whole
    assert not found[0, 10:].any()


def test_gradients_are_finite_where_a_class_is_all_but_absent() -> None:
    maps = _maps(2).requires_grad_()
    masks = torch.zeros(2, 3, 8, 12)
    masks[:, 0] = 1
    masks[0, 1, 0, 0] = 1e-10
    module = LabelFeatures((5,), classes=3)
    (module(Features((maps,), masks=masks)) * torch.arange(module.dim)).sum().backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()

    predicted = LabelFeatures((5,), classes=3)
    for shift in (30.0, 60.0, 95.0, 1000.0):  # shares of 1e-13, 1e-26, 1e-41 (denormal) and none
        predicted.zero_grad()
        with torch.no_grad():
            predicted.classify.weight.mul_(0.1)
            predicted.classify.bias.copy_(torch.tensor([shift, 0.0, 0.0]))  # type: ignore[union-attr]
        found = predicted(Features((maps,)))
        (found * torch.arange(predicted.dim)).sum().backward()
        assert all(torch.isfinite(one.grad).all() for one in predicted.parameters() if one.grad is not None)
        assert torch.isfinite(found).all()
        assert predicted.classify.weight.grad is not None


def test_the_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    module = LabelFeatures((3,), classes=2, mu=0.8, weights=(1.0, 2.0))
    maps = (_maps(1, 3, 2, 2) + 3).requires_grad_()
    direction = torch.randn(module.dim, generator=torch.Generator().manual_seed(3))
    (module(Features((maps,))) @ direction).sum().backward()
    assert maps.grad is not None
    step = torch.randn(maps.shape, generator=torch.Generator().manual_seed(4)) * 1e-2
    with torch.no_grad():
        rise = sum(sign * float((module(Features((maps + sign * step,))) @ direction).sum()) for sign in (1, -1)) / 2
    assert rise == pytest.approx(float((maps.grad * step).sum()), rel=2e-2, abs=1e-5)


def test_it_adds_the_parameters_of_the_convolution_alone() -> None:
    plain = PlaceModel(dataclasses.replace(STUDENT, aggregator="gem"))
    labelled = PlaceModel(STUDENT)
    own, other = (sum(one.numel() for one in model.parameters()) for model in (labelled, plain))
    assert own - other == 6 * (plain.dim + 1)
    assert labelled.dim == 7 * plain.dim


def test_averages_learn_no_exponent() -> None:
    module, maps = LabelFeatures((5,), classes=2, pool="average"), _maps(2)
    assert {name for name, _ in module.named_parameters()} == {"classify.weight", "classify.bias"}
    found = take_apart(module(Features((maps,))), classes=2)
    torch.testing.assert_close(found.whole, F.normalize(maps.mean(dim=(2, 3)), dim=1))
    masks = module.classify(maps).softmax(dim=1)
    for c in range(2):
        torch.testing.assert_close(found.labels[:, c], F.normalize((maps * masks[:, c : c + 1]).mean(dim=(2, 3)), dim=1))


@pytest.mark.parametrize(
    "options",
    [{"classes": 0}, {"mu": -1.0}, {"mu": math.inf}, {"p": 0.0}, {"pool": "max"}, {"weights": [1.0]}, {"weights": [1, 1, 1, 1, 1, -1]}],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"(Label features need|weights of label features must)"):
        LabelFeatures((5,), **options)


def test_masks_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"Label features of 6 classes must get as many masks; got 3"):
        LabelFeatures((5,))(Features((_maps(2),), masks=_masks(2)))


def test_a_teacher_that_reads_label_maps_takes_its_masks_from_them(town: list[Scene]) -> None:
    images = town[0].queries
    assert images.segmentation is not None
    teacher = PlaceModel(dataclasses.replace(STUDENT, encoding=SIX), seed=1)
    assert teacher.backbone.channels_in == 6
    paths = [Path(images.root) / one for one in images.segmentation[:2]]
    found = take_apart(torch.from_numpy(teacher.describe(paths)), classes=6)
    maps = [read_label_map(path) for path in paths]
    encoded = encoding(SIX)
    shares = [[float((encoded.lookup[one] == c).mean()) for c in range(6)] for one in maps]
    torch.testing.assert_close(found.shares, torch.tensor(shares), atol=2e-2, rtol=0)  # at 64 x 96 the nearest pixels stand for all
    with torch.no_grad():
        teacher.aggregator.classify.bias.copy_(torch.arange(6) * 9.0)  # what would be predicted has no part in it
    torch.testing.assert_close(take_apart(torch.from_numpy(teacher.describe(paths)), classes=6), found)


# -- taken apart, and distilled --


@pytest.mark.parametrize("normalised", [False, True])
@torch.no_grad()
def test_a_descriptor_is_taken_apart_into_what_it_was_made_of(normalised: bool) -> None:
    module, maps, masks = LabelFeatures((5,), classes=3, mu=0.7, weights=WEIGHTS), _maps(4), _masks(4)
    vectors = module(Features((maps,), masks=masks))
    parts = take_apart(F.normalize(vectors, dim=1) if normalised else vectors, classes=3, mu=0.7, weights=WEIGHTS)
    torch.testing.assert_close(parts.whole, F.normalize(GeM((5,))(Features((maps,))), dim=1))
    torch.testing.assert_close(parts.shares[:, :2], masks.mean(dim=(2, 3))[:, :2])
    assert not parts.shares[:, 2].any()  # of no weight: not stored
    torch.testing.assert_close(parts.labels[:, :2].norm(dim=-1), torch.ones(4, 2))
    with pytest.raises(InvalidInputError, match=r"multiple of 1 \+ classes = 5 dimensions; got 21"):
        take_apart(torch.zeros(2, 21), classes=4)


def test_what_is_distilled_is_the_formula_and_nothing_reaches_the_teacher() -> None:
    options: dict[str, Any] = {"classes": 3, "mu": 0.7, "weights": WEIGHTS}
    module = LabelFeatures((5,), **options)
    student, teacher = (F.normalize(module(Features((_maps(4, seed=seed),), masks=_masks(4))), dim=1).detach() for seed in (1, 2))
    student.requires_grad_()
    teacher.requires_grad_()
    found = label_distillation(student, teacher, **options, whole=2.0, labels=3.0)
    own, target = (take_apart(one.detach(), **options) for one in (student, teacher))
    for row in range(4):
        expected = 2.0 * float((own.whole[row] - target.whole[row]).square().sum())
        for c in range(3):
            expected += 3.0 * float(target.shares[row, c]) * float((own.labels[row, c] - target.labels[row, c]).square().sum())
        assert found[row].item() == pytest.approx(expected, rel=1e-5)
    found.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert teacher.grad is None
    assert label_distillation(teacher, teacher, **options).abs().max() < 1e-10
    with pytest.raises(InvalidInputError, match="must have its teacher's dimensions"):
        label_distillation(student, teacher[:, :12], **options)


def test_a_class_that_the_teacher_does_not_show_teaches_nothing() -> None:
    teacher = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]])  # g alone, of two classes
    for blocks in ([0.0, 0.0, 0.0, 0.0], [0.6, 0.1, 0.3, 0.0]):
        student = torch.tensor([[0.0, 1.0, *blocks]], requires_grad=True)
        found = label_distillation(student, teacher, classes=2)
        found.sum().backward()
        assert student.grad is not None
        assert float(found.detach()) == 2.0
        assert not student.grad[:, 2:].any()


# -- masks --


def test_the_loss_of_masks_is_the_mean_surprise_of_what_is_labelled() -> None:
    logits, masks = _maps(3, 4, 2, 3).requires_grad_(), F.avg_pool2d(_masks(3, 4, 4, 6), 2)
    masks[1, :, 0] = 0  # a row of no class
    masks[2] = 0
    found = mask_loss(logits, masks)
    for row in range(2):
        surprise, count = 0.0, 0.0
        for y in range(2):
            for x in range(3):
                odds = [math.exp(one) for one in logits[row, :, y, x].tolist()]
                for share, one in zip(masks[row, :, y, x].tolist(), odds, strict=True):
                    surprise, count = surprise - share * math.log(one / sum(odds)), count + share
        assert found[row].item() == pytest.approx(surprise / count, rel=1e-5)
    assert float(found[2].detach()) == 0
    found.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[1, :, 0].any()
    with pytest.raises(InvalidInputError, match=r"must both be \(B, C, h, w\)"):
        mask_loss(logits, masks[:, :2])


def test_masks_are_the_area_that_each_channel_has(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).choice(np.array([0, 2, 8, 10, 13, 255], dtype=np.uint8), (12, 20))
    path = write_label_map(tmp_path / "map.png", ids)
    encoded = encoding(SIX)
    found = feature_masks([path, path], encoded, (3, 4))
    assert (found.shape, found.dtype) == ((2, 6, 3, 4), np.float16)
    for c in range(6):
        for y in range(3):
            for x in range(4):
                block = encoded.lookup[ids[4 * y : 4 * y + 4, 5 * x : 5 * x + 5]]
                assert float(found[1, c, y, x]) == pytest.approx(float((block == c).mean()), abs=5e-4)
    write_label_map(tmp_path / "strange.png", np.full((4, 4), 77, dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"strange\.png has \[77\]"):
        feature_masks([tmp_path / "strange.png"], encoded, (2, 2))
    (tmp_path / "no.png").write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"no\.png"):
        feature_masks([tmp_path / "no.png"], encoded, (2, 2))


def test_a_recorder_keeps_the_logits_of_training_alone_and_copies_are_free_of_it() -> None:
    model = PlaceModel(STUDENT, seed=1).train()
    size = feature_size(model)
    assert size == (2, 3)
    recorder = MaskRecorder(model)
    model(_pixels(3))
    model(_pixels(2))
    with evaluating(model):
        model(_pixels(2))
    with torch.no_grad():
        model(_pixels(2))
    copied = copy.deepcopy(model)  # with logits that hang on a graph
    stored = io.BytesIO()
    pickle.dump(model.aggregator, stored)
    pickled = pickle.loads(stored.getvalue())
    for other in (copied.aggregator, pickled):
        other.train()(Features((torch.rand(1, model.aggregator.classify.in_channels, *size),)))
    taken = recorder.take()
    assert [tuple(one.shape) for one in taken] == [(3, 6, *size), (2, 6, *size)]
    assert taken[0].requires_grad
    assert recorder.take() == []
    recorder.remove()
    model(_pixels(2))
    assert recorder.take() == []
    with pytest.raises(InvalidInputError, match="aggregator 'label-features'; the model has GeM"):
        MaskRecorder(PlaceModel(dataclasses.replace(STUDENT, aggregator="gem")))


# -- the guide --


def _pairs(scene: list[int], query: list[int], database: Any) -> Pairs:
    rows = np.array(database)
    return Pairs(np.array(scene), np.array(query), rows, np.ones(rows.shape), np.ones(len(scene)))


def _true(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(6), (count, 2, 3)).transpose(0, 3, 1, 2).astype(np.float16)


def _targets(seed: int, model: PlaceModel, count: int = 5) -> Rows:
    return Rows(model.describe_pixels(_pixels(count, seed)), where="here")


def _distillation(model: PlaceModel, *, negatives: bool = False) -> Distillation:
    """Two scenes of 5 x 5 images; pair (0, 1) of scene 0 weighs 2, pair (3, 4) of scene 1 weighs 0.5, all others nothing."""
    targets = tuple((_targets(2 * scene, model), _targets(2 * scene + 1, model)) for scene in range(2))
    return Distillation((np.array([1]), np.array([19])), (np.array([2.0]), np.array([0.5])), targets, "feature", 3.0, negatives, "d")


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("lists", [False, True])
def test_the_guide_adds_what_its_formula_says(lists: bool, paper: bool) -> None:
    model, teacher = PlaceModel(STUDENT, seed=1).train(), PlaceModel(STUDENT, seed=2)
    distillation = _distillation(teacher, negatives=lists)
    masks = [(_true(0), _true(1)), (_true(2), _true(3))]
    guide = LabelGuide(distillation, masks, eta=0.3, whole=1.5, labels=0.8)
    guide.attach(model)
    database = [[1, 2, 0], [4, 0, 1], [2, 3, 3]] if lists else [1, 4, 2]
    pairs, images = _pairs([0, 1, 1], [0, 3, 2], database), 12 if lists else 6
    pixels = _pixels(images, seed=9)
    a, b = (model(pixels[:3]), model(pixels[3:])) if paper else model(pixels).tensor_split([3])
    b = b.reshape(*pairs.database.shape, -1)
    found = guide.loss(pairs, a, b)

    probe = MaskRecorder(model)
    for part in (pixels[:3], pixels[3:]) if paper else (pixels,):
        model(part)
    logits = torch.cat(probe.take())
    probe.remove()
    others = pairs.database.reshape(3, -1)
    for item, weight in enumerate((2.0, 0.5, 0.0)):
        scene, query = int(pairs.scene[item]), int(pairs.query[item])
        surprise = [mask_loss(logits[item][None], torch.from_numpy(masks[scene][0][query][None]))]
        drawn = [
            label_distillation(a[item], torch.from_numpy(distillation.targets[scene][0][[query]][0]), classes=6, whole=1.5, labels=0.8)
        ]
        for column, row in enumerate(others[item]):
            own = logits[3 + item * others.shape[1] + column][None]
            surprise.append(mask_loss(own, torch.from_numpy(masks[scene][1][row][None])))
            target = torch.from_numpy(distillation.targets[scene][1][[row]][0])
            vector = b.reshape(3, others.shape[1], -1)[item, column]
            drawn.append(label_distillation(vector, target, classes=6, whole=1.5, labels=0.8))
        kd = drawn[0] + drawn[1] + (sum(drawn[2:]) / 2 if lists else 0)
        expected = (3.0 * weight * kd + 0.3 * torch.stack(surprise).mean()).item()
        assert found[item].item() == pytest.approx(expected, rel=1e-4)
    found.sum().backward()
    assert model.aggregator.classify.weight.grad.abs().sum() > 0
    guide.detach()


def test_cross_entropy_alone_teaches_the_masks() -> None:
    model = PlaceModel(STUDENT, seed=1).train()
    true = np.zeros((4, 6, 2, 3), dtype=np.float16)
    true[:, 0, 0], true[:, 3, 1] = 1, 1  # above one class, below another
    guide = LabelGuide(None, [(true, true)])
    guide.attach(model)
    pairs, pixels = _pairs([0, 0], [0, 1], [2, 3]), _pixels(4)
    optimizer, values = torch.optim.Adam(model.parameters(), 1e-2), []
    for _ in range(30):
        a, b = model(pixels).tensor_split([2])
        losses = guide.loss(pairs, a, b)
        assert losses.shape == (2,)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        values.append(float(losses.mean().detach()))
    assert values[-1] < values[0] / 4


@pytest.mark.parametrize(
    "options", [{"bn_mode": "paper", "micro_batch": 4}, {**TRIPLETS, "micro_batch": 4}], ids=["pairs in two calls", "lists that are mined"]
)
def test_training_is_guided(options: dict[str, Any], tmp_path: Path) -> None:
    scene, labels = make_scene(tmp_path)
    model = PlaceModel(dataclasses.replace(MODEL, height=64, width=96, aggregator="label-features"), seed=1)
    masks = np.zeros((len(scene.queries), 6, 2, 3), dtype=np.float16)
    masks[:, 4] = 1
    guide = LabelGuide(None, [(masks, masks)], eta=5.0)
    trained = fit(model, [scene], [labels], changed(steps=10, **options), out=tmp_path / "run", progress=False, guide=guide)

    def surprise(one: PlaceModel) -> float:
        recorder = MaskRecorder(one.train())
        one(_pixels(4))
        return float(mask_loss(recorder.take()[0], torch.from_numpy(masks[:4])).mean().detach())

    assert surprise(trained) < 0.9 * surprise(model)


def test_a_guide_is_attached_to_one_network_that_fits_and_travels_without_it() -> None:
    model = PlaceModel(STUDENT, seed=1).train()
    guide = LabelGuide(_distillation(model), [(_true(0), _true(1))] * 2)
    hooks = model.aggregator.classify._forward_hooks
    pairs = _pairs([0], [0], [1])
    with pytest.raises(InvalidInputError, match="have 2 images, and the network saw 0"):
        guide.loss(pairs, torch.zeros(1, model.dim), torch.zeros(1, model.dim))
    guide.attach(model)
    guide.attach(model)
    assert len(hooks) == 1
    model(_pixels(3))
    with pytest.raises(InvalidInputError, match="have 2 images, and the network saw 3"):
        guide.loss(pairs, torch.zeros(1, model.dim), torch.zeros(1, model.dim))
    for other in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert other.digest == guide.digest
        other.attach(copy.deepcopy(model))
    assert len(hooks) == 1
    for settings, said in (
        (dataclasses.replace(STUDENT, aggregator="gem"), "the model has GeM"),
        (dataclasses.replace(STUDENT, projection=8), "set projection to 0"),
        (dataclasses.replace(STUDENT, height=128), r"\(6, 4, 3\); got \(6, 2, 3\)"),
        (dataclasses.replace(STUDENT, encoding=SIX), "Guide the student"),
        (dataclasses.replace(STUDENT, normalize=False), "unit vectors"),
    ):
        refused = PlaceModel(settings)
        with pytest.raises(InvalidInputError, match=said):
            guide.attach(refused)
        assert not refused.aggregator._forward_hooks
        assert not [one for module in refused.modules() for one in module._forward_hooks]
    assert not hooks


def test_the_digest_of_a_guide_is_of_all_that_decides_a_value() -> None:
    masks = [(_true(0), _true(1))]
    digests = {
        LabelGuide(None, masks).digest,
        LabelGuide(None, masks, eta=2.0).digest,
        LabelGuide(None, masks, whole=2.0).digest,
        LabelGuide(None, masks, labels=2.0).digest,
        LabelGuide(None, [(_true(0), _true(2))]).digest,
        LabelGuide(_distillation(PlaceModel(STUDENT)), masks * 2).digest,
    }
    assert len(digests) == 6
    assert LabelGuide(None, masks).digest in digests
    with pytest.raises(InvalidInputError, match=r"finite numbers >= 0; got {'eta': -1.0}"):
        LabelGuide(None, masks, eta=-1)
    with pytest.raises(InvalidInputError, match="with one C, h and w"):
        LabelGuide(None, [(_true(0), np.zeros((5, 6, 4, 4)))])
    with pytest.raises(InvalidInputError, match="masks of 1 and targets of 2"):
        LabelGuide(_distillation(PlaceModel(STUDENT)), masks)
