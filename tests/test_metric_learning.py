"""The losses of pytorch-metric-learning as losses of covis: every class it has works, or is refused in words."""

import inspect
import sys

import numpy as np
import oracles
import pytest
import torch

from covis.errors import InvalidInputError, MissingExtraError, UnknownNameError
from covis.metric_learning import OF_LISTS, OF_PAIRS, metric_learning

pml = pytest.importorskip("pytorch_metric_learning.losses", reason="needs pytorch-metric-learning (extra metric)")
CLASSES = sorted(name for name, value in vars(pml).items() if inspect.isclass(value))


def lists(seed=0, count=5, width=4, dim=6):
    """Unit descriptors; each list has positives and negatives, not always in the same columns."""
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(count, dim)), random.normal(size=(count, width, dim)) * 0.5
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    similarity = random.choice([0, 0.3, 0.6, 1], size=(count, width))
    similarity[:, 0], similarity[:, 1] = 0.9, 0.1
    return torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(similarity)


def pairs(seed=0, count=8):
    a, b, similarity = lists(seed, count, 2)
    return a, b[:, 0], torch.where(torch.arange(count) % 2 == 0, similarity[:, 0], similarity[:, 1])


def whole(name, a, b, similarity, **options):
    """The library's own value of the batch under its SumReducer."""
    from pytorch_metric_learning.reducers import SumReducer

    images = b.reshape(-1, b.shape[-1])
    width = len(images) // len(a)
    positive = (similarity >= 0.5).reshape(-1)
    query = torch.arange(len(images)) // width
    place = len(a) + torch.arange(len(images))
    indices = query[positive], place[positive], query[~positive], place[~positive]
    return getattr(pml, name)(reducer=SumReducer(), **options)(torch.cat([a, images]), None, indices)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_of_the_library_works_or_is_refused_in_words(name):
    if name not in OF_PAIRS + OF_LISTS:
        with pytest.raises(InvalidInputError, match=rf"^{name} (has|asks|gives|learns|wraps|is a part) .* Those that work: CircleLoss, "):
            metric_learning(*lists(), name=name)
        return
    a, b, similarity = lists()
    a, b = a.requires_grad_(), b.requires_grad_()
    found = metric_learning(a, b, similarity, name=name)
    assert found.shape == (5,)
    assert torch.isfinite(found).all()
    found.sum().backward()
    for grad in (a.grad, b.grad):
        assert torch.isfinite(grad).all()
        assert grad.abs().sum() > 0


def test_none_that_works_is_unknown_to_the_library():
    assert set(OF_PAIRS + OF_LISTS) <= set(CLASSES)


@pytest.mark.parametrize("name", OF_PAIRS + OF_LISTS)
def test_the_sum_over_the_items_is_the_library_s_own(name):
    for seed in range(3):
        batch = lists(seed)
        found, expected = metric_learning(*batch, name=name).sum(), whole(name, *batch)
        assert found == pytest.approx(float(expected), rel=1e-9)
        assert found > 0
    if name in OF_PAIRS:
        assert metric_learning(*pairs(), name=name).sum() == pytest.approx(float(whole(name, *pairs())), rel=1e-9)


@pytest.mark.parametrize("name", OF_PAIRS + OF_LISTS)
def test_an_item_has_the_value_that_it_has_alone(name):
    """Except in the loss about the batch's means; and but for batches of one pair, of which the library makes 0."""
    if name == "IntraPairVarianceLoss":
        return
    for batch in (lists(), lists(3, width=2), *([pairs()] if name in OF_PAIRS else [])):
        found = metric_learning(*batch, name=name)
        alone = torch.cat([metric_learning(*(one[i : i + 1] for one in batch), name=name) for i in range(len(found))])
        np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)
    few = lists(count=1, width=2)
    assert float(whole(name, *few)) == 0 or name in ("MarginLoss", "TripletMarginLoss")


@pytest.mark.parametrize("name", OF_PAIRS + OF_LISTS)
def test_the_order_within_a_list_is_nothing(name):
    a, b, similarity = lists()
    turned = torch.tensor([2, 0, 3, 1])
    np.testing.assert_allclose(
        metric_learning(a, b[:, turned], similarity[:, turned], name=name), metric_learning(a, b, similarity, name=name), rtol=1e-9
    )


@pytest.mark.parametrize("name", OF_LISTS)
def test_pairs_are_refused_where_they_have_no_value(name):
    """Not silently 0 for ever."""
    a, b, similarity = pairs()
    for one in ((a, b, similarity), (a, b[:, None], similarity[:, None])):
        with pytest.raises(InvalidInputError, match=r"compares a query's positives with its negatives.* ContrastiveLoss, "):
            metric_learning(*one, name=name)


@pytest.mark.parametrize("name", OF_PAIRS + OF_LISTS)
def test_a_list_without_a_positive_has_a_value(name):
    a, b, _ = lists()
    found = metric_learning(a.requires_grad_(), b, torch.zeros(5, 4), name=name)
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert torch.isfinite(a.grad).all()
    if name in OF_LISTS:
        assert (found == 0).all()


def test_multi_similarity_is_what_plain_loops_give():
    a, b, similarity = lists()
    found = metric_learning(a, b, similarity, options={"alpha": 3.0, "beta": 20.0, "base": 0.4})
    expected = oracles.multi_similarity(a.numpy(), b.numpy(), similarity.numpy() >= 0.5, 3.0, 20.0, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_library_s_contrastive_loss_is_what_its_formula_says():
    a, b, similarity = pairs()
    apart = (a - b).norm(dim=1)
    expected = torch.where(similarity >= 0.5, apart, (0.7 - apart).clamp(min=0))
    np.testing.assert_allclose(metric_learning(a, b, similarity, name="ContrastiveLoss", options={"neg_margin": 0.7}), expected)


def test_the_library_s_triplet_loss_is_ours():
    """Up to our 1e-6 in the distance."""
    from covis.losses import triplet

    a, b, _ = lists()
    similarity = torch.eye(4)[0].expand(5, 4)
    theirs = metric_learning(a, b, similarity, name="TripletMarginLoss", options={"margin": 0.1})
    np.testing.assert_allclose(theirs, triplet(a, b, similarity), atol=2e-5)


def test_the_threshold_says_what_is_positive():
    a, b, _ = lists()
    graded = torch.tensor([0.9, 0.4, 0.3, 0.0]).expand(5, 4)
    for threshold, binary in ((0.5, [1, 0, 0, 0]), (0.4, [1, 1, 0, 0]), (0.3, [1, 1, 1, 0])):
        found = metric_learning(a, b, graded, threshold=threshold)
        np.testing.assert_array_equal(found, metric_learning(a, b, torch.tensor(binary).expand(5, 4)))
    with pytest.raises(InvalidInputError, match=r"threshold must be a similarity"):
        metric_learning(a, b, graded, threshold=0)


def test_a_distance_is_named():
    a, b, similarity = lists()
    by_name = metric_learning(a, b, similarity, name="TripletMarginLoss", options={"distance": "CosineSimilarity"})
    from pytorch_metric_learning.distances import CosineSimilarity

    assert by_name.sum() == pytest.approx(float(whole("TripletMarginLoss", a, b, similarity, distance=CosineSimilarity())), rel=1e-9)
    with pytest.raises(UnknownNameError, match=r"no distance called 'Cosine'. Did you mean 'CosineSimilarity'"):
        metric_learning(a, b, similarity, options={"distance": "Cosine"})


def test_names_are_suggested():
    with pytest.raises(UnknownNameError, match=r"no loss called 'MultiSimilarity'. Did you mean 'MultiSimilarityLoss'"):
        metric_learning(*lists(), name="MultiSimilarity")
    with pytest.raises(UnknownNameError, match=r"no loss called 'torch'"):
        metric_learning(*lists(), name="torch")


@pytest.mark.parametrize(("name", "options", "said"), [
    ("MultiSimilarityLoss", {"gamma": 1}, r"does not take the options \{'gamma': 1\}"),
    ("MultiSimilarityLoss", {"reducer": "x"}, r"reducer of a metric-learning loss has no use"),
    ("CircleLoss", {"distance": "LpDistance"}, r"does not take the options"),
    ("MarginLoss", {"learn_beta": True}, r"weights of its own"),
    ("MarginLoss", {"num_classes": 10}, r"has no value for pairs"),
])  # fmt: skip
def test_options_that_do_not_fit_are_said(name, options, said):
    with pytest.raises(InvalidInputError, match=said):
        metric_learning(*lists(), name=name, options=options)


def test_a_regulariser_of_the_batch_is_refused():
    from pytorch_metric_learning.regularizers import LpRegularizer

    with pytest.raises(InvalidInputError, match=r"gives one value a batch"):
        metric_learning(*lists(), options={"embedding_regularizer": LpRegularizer()})


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), (2,)), ((2, 3), (2, 3), (3,)), ((2, 3), (3, 4, 3), (3, 4)), ((2, 3), (2, 4, 3), (2,))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(InvalidInputError, match=r"metric-learning takes .* got \(2, 3\)"):
        metric_learning(*(torch.zeros(shape) for shape in shapes))


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    monkeypatch.delitem(sys.modules, "pytorch_metric_learning.losses")
    with pytest.raises(MissingExtraError, match=r"pip install 'covis\[metric\]'"):
        metric_learning(*lists())


def test_a_descriptor_that_is_not_finite_makes_its_item_so():
    a, b, similarity = lists()
    a[2, 0] = float("nan")
    assert not torch.isfinite(metric_learning(a, b, similarity)[2])
