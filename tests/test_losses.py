"""The losses: the seven facts that follow from the formula of the generalized contrastive one, plain loops, finite differences."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import InvalidInputError
from covis.losses import FLOORS, LOSSES, contrastive, generalized_contrastive, loss_floor, triplet

MARGIN = 0.5


def _at(distance: float, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Two float64 points that the loss finds at this distance (it adds 1e-6 to each component of the difference)."""
    a = torch.zeros(1, dim, dtype=torch.float64, requires_grad=True)
    b = torch.full((1, dim), 1e-6, dtype=torch.float64)
    b[0, 0] -= distance
    return a, b


def _loss(psi: float, distance: float, margin: float = MARGIN) -> float:
    return generalized_contrastive(*_at(distance), torch.tensor([psi], dtype=torch.float64), margin=margin).item()


def _slope(psi: float, distance: float, margin: float = MARGIN) -> float:
    """dL/dd by autograd: the gradient in `a` along the unit vector from b to a."""
    a, b = _at(distance)
    generalized_contrastive(a, b, torch.tensor([psi], dtype=torch.float64), margin=margin).backward()
    assert a.grad is not None
    return float(a.grad[0, 0])


def _oracle(a: np.ndarray, b: np.ndarray, similarity: np.ndarray, margin: float) -> list[float]:
    values = []
    for p in range(len(a)):
        square = 0.0
        for i in range(a.shape[1]):
            square += (a[p, i] - b[p, i] + 1e-6) ** 2
        d = math.sqrt(square)
        values.append(0.5 * similarity[p] * d**2 + 0.5 * (1 - similarity[p]) * max(margin - d, 0) ** 2)
    return values


def test_plain_loops_give_the_same() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 40, 7)) * 0.2
    similarity = np.concatenate([[0, 1], rng.random(38)])
    for margin in (0.3, 0.5, 1.4):
        found = generalized_contrastive(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(similarity), margin=margin)
        np.testing.assert_allclose(found.numpy(), _oracle(a, b, similarity, margin), rtol=1e-10)


@pytest.mark.parametrize(
    ("psi", "distance", "loss", "slope"),
    [
        (1, 0.4, 0.08, 0.4),
        (0, 0.4, 0.005, -0.1),
        (0.5, 0.25, 0.03125, 0),
        (0.5, 0.4, 0.0425, 0.15),
        (0.25, 0.6, 0.045, 0.15),
        (0, 0.6, 0, 0),
    ],
)
def test_fact_5_values_and_gradients(psi: float, distance: float, loss: float, slope: float) -> None:
    assert _loss(psi, distance) == pytest.approx(loss, abs=1e-9)
    assert _slope(psi, distance) == pytest.approx(slope, abs=1e-9)


@given(psi=st.floats(0, 1), distance=st.floats(1e-3, 2))
def test_fact_1_it_is_the_expected_contrastive_loss_of_a_bernoulli_label(psi: float, distance: float) -> None:
    contrastive = {1: 0.5 * distance**2, 0: 0.5 * max(MARGIN - distance, 0) ** 2}
    assert _loss(1, distance) == pytest.approx(contrastive[1], abs=1e-12)
    assert _loss(0, distance) == pytest.approx(contrastive[0], abs=1e-12)
    assert _loss(psi, distance) == pytest.approx(psi * contrastive[1] + (1 - psi) * contrastive[0], abs=1e-12)


@given(psi=st.floats(0, 1), distance=st.floats(1e-3, MARGIN))
def test_fact_2_below_the_margin_it_regresses_the_distance(psi: float, distance: float) -> None:
    target = MARGIN * (1 - psi)
    assert _loss(psi, distance) == pytest.approx(0.5 * (distance - target) ** 2 + 0.5 * MARGIN**2 * psi * (1 - psi), abs=1e-12)


@given(psi=st.floats(0.01, 0.99), step=st.floats(0.001, 1))
def test_fact_3_one_stationary_point_and_convex(psi: float, step: float) -> None:
    target = MARGIN * (1 - psi)
    assert _slope(psi, target) == pytest.approx(0, abs=1e-12)
    assert _slope(psi, target + step) > 0
    assert _loss(psi, target) < _loss(psi, target + step)
    near = target / 2
    assert _slope(psi, near) < 0
    low, high = near, target + step
    assert _loss(psi, (low + high) / 2) <= (_loss(psi, low) + _loss(psi, high)) / 2


@pytest.mark.parametrize("psi", [0.0, 0.3, 1.0])
def test_fact_3_the_gradient_is_continuous_at_the_margin(psi: float) -> None:
    assert _slope(psi, MARGIN - 1e-9) == pytest.approx(_slope(psi, MARGIN + 1e-9), abs=1e-8)


@given(psi=st.floats(0, 1), distance=st.floats(1e-3, 2))
def test_fact_4_the_floor(psi: float, distance: float) -> None:
    floor = float(loss_floor(torch.tensor([psi], dtype=torch.float64), margin=MARGIN))
    assert _loss(psi, distance) >= floor - 1e-12
    if psi < 0.99:
        assert _loss(psi, MARGIN * (1 - psi)) == pytest.approx(floor, abs=1e-12)


def test_fact_4_only_pairs_that_share_nothing_can_teach_nothing() -> None:
    assert _loss(0.0, 0.7) == 0
    assert all(_loss(psi, distance) > 0 for psi in (0.01, 0.5, 1.0) for distance in (0.1, 0.5, 1.0, 2.0))


def test_fact_6_graded_pairs_stay_in_a_small_cap() -> None:
    assert 1 - MARGIN**2 / 2 == 0.875  # the cosine at the largest target distance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fact_7_identical_descriptors_have_a_finite_gradient(dtype: torch.dtype) -> None:
    a = torch.nn.functional.normalize(torch.ones(3, 5, dtype=dtype)).requires_grad_()
    b = a.detach().clone().requires_grad_()
    similarity = torch.tensor([0.0, 0.5, 1.0], dtype=dtype)
    generalized_contrastive(a, b, similarity).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()  # type: ignore[arg-type]
    np.testing.assert_allclose(a.grad.norm(dim=1), MARGIN * (1 - similarity), atol=1e-4)
    np.testing.assert_allclose(a.grad.numpy(), np.broadcast_to(a.grad[:, :1].numpy(), (3, 5)), rtol=1e-6)


@pytest.mark.parametrize(("psi", "nearer"), [(1.0, True), (0.0, False)])
def test_the_sign_one_attracts_and_zero_repels_inside_the_margin(psi: float, *, nearer: bool) -> None:
    a, b = _at(0.3)
    generalized_contrastive(a, b, torch.tensor([psi], dtype=torch.float64)).backward()
    assert a.grad is not None
    after = float((a.detach() - 0.1 * a.grad - b).norm())
    assert (after < 0.3) == nearer
    assert _slope(0.0, 0.6) == 0  # beyond the margin nothing pushes


def test_scaling_space_scales_the_loss() -> None:
    for scale in (0.5, 3.0):
        assert _loss(0.3, 0.2 * scale, margin=0.5 * scale) == pytest.approx(scale**2 * _loss(0.3, 0.2), rel=1e-9)


def test_turning_space_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    a, b, similarity = torch.from_numpy(rng.normal(size=(9, 4))), torch.from_numpy(rng.normal(size=(9, 4))), torch.from_numpy(rng.random(9))
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(4, 4)))[0])
    np.testing.assert_allclose(
        generalized_contrastive(a @ turn, b @ turn, similarity), generalized_contrastive(a, b, similarity), atol=2e-5
    )


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf, "0.5"])
def test_a_margin_must_be_above_zero(margin: float) -> None:
    one = torch.zeros(1, 2)
    with pytest.raises(InvalidInputError, match=r"margin must be a number above 0"):
        generalized_contrastive(one, one, torch.zeros(1), margin=margin)
    with pytest.raises(InvalidInputError, match=r"margin must be a number above 0"):
        loss_floor(torch.zeros(1), margin=margin)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), (2,)), ((2, 3), (2, 3), (3,)), ((2, 3), (2, 3), (2, 1)), ((3,), (3,), (3,))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    for loss in (generalized_contrastive, contrastive):
        with pytest.raises(InvalidInputError, match=r"A loss of pairs takes \(P, D\), \(P, D\) and \(P,\); got"):
            loss(*(torch.zeros(shape) for shape in shapes))


# -- contrastive --


@given(distance=st.floats(0, 2), margin=st.floats(0.1, 2))
def test_contrastive_is_gcl_of_zeros_and_ones(distance: float, margin: float) -> None:
    """Fact 1, to the bit, gradients included; and what is cut does not depend on where in its class it lay."""
    for psi, cut in ((0.0, 0.0), (1.0, 1.0), (0.49, 0.0), (0.5, 1.0), (0.5 - 1e-12, 1.0)):
        a, b = _at(distance)
        mine = contrastive(a, b, torch.tensor([psi], dtype=torch.float64), margin=margin)
        (slope,) = torch.autograd.grad(mine, a)
        theirs = generalized_contrastive(a, b, torch.tensor([cut], dtype=torch.float64), margin=margin)
        assert mine.item() == theirs.item()
        assert torch.equal(slope, torch.autograd.grad(theirs, a)[0])


def test_the_cut_of_contrastive_is_an_option() -> None:
    a, b = torch.zeros(3, 2), torch.full((3, 2), 0.1)
    similarity = torch.tensor([0.2, 0.3, 0.7])
    found = contrastive(a, b, similarity, threshold=0.3)
    np.testing.assert_array_equal(found, generalized_contrastive(a, b, torch.tensor([0.0, 1.0, 1.0])))
    assert similarity.tolist() == pytest.approx([0.2, 0.3, 0.7])
    for threshold in (0.0, 1.1, math.nan):
        with pytest.raises(InvalidInputError, match=r"threshold must be a similarity in \(0, 1\]"):
            contrastive(a, b, similarity, threshold=threshold)


# -- triplet --


def _lists(seed: int = 0, count: int = 7, negatives: int = 3, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, lists that neither all violate a margin nor all keep it, and their similarities."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(count, dim)), rng.normal(size=(count, 1 + negatives, dim))
    similarity = np.zeros((count, 1 + negatives))
    similarity[:, 0] = 1
    return torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(similarity)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.1, 2.0])
def test_the_triplet_loss_is_what_plain_loops_give(squared: bool, margin: float) -> None:
    a, b, similarity = _lists()
    terms = np.array(oracles.triplet(a.numpy(), b.numpy(), margin, squared))
    assert 0 < (terms == 0).mean() < 1
    for reduce, expected in (("sum", terms.sum(axis=1)), ("mean", terms.mean(axis=1))):
        found = triplet(a, b, similarity, margin=margin, squared=squared, reduce=reduce)  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_triplets_placed_by_hand() -> None:
    """d(q, p) = 0.3; negatives at 0.35 and 0.9: only the first is within the margin of 0.1."""
    q = torch.zeros(1, 1, dtype=torch.float64)
    x = torch.tensor([[[0.3], [0.35], [0.9]]], dtype=torch.float64) + 1e-6
    similarity = torch.tensor([[1.0, 0.0, 0.0]])
    assert triplet(q, x, similarity).item() == pytest.approx(0.05, abs=1e-9)
    assert triplet(q, x, similarity, reduce="mean").item() == pytest.approx(0.025, abs=1e-9)
    assert triplet(q, x, similarity, squared=True).item() == pytest.approx(0.09 - 0.1225 + 0.1, abs=1e-5)
    assert triplet(q, x, similarity, margin=0.0).item() == 0


def test_the_triplet_loss_pulls_the_positive_and_pushes_the_negatives() -> None:
    q = torch.zeros(1, 2, dtype=torch.float64)
    x = torch.tensor([[[0.5, 0.0], [0.0, 0.4], [0.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    triplet(q, x, torch.tensor([[1.0, 0.0, 0.0]])).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad[0], [[1, 0], [0, -1], [0, 0]], atol=1e-4)
    after = (x.detach() - 0.1 * x.grad)[0].norm(dim=1)
    assert after[0] < 0.5
    assert after[1] > 0.4
    assert after[2] == 3


def test_scaling_space_scales_the_triplet_loss() -> None:
    a, b, similarity = _lists()
    for squared, power in ((False, 1), (True, 2)):
        scaled = triplet(3 * a, 3 * b, similarity, margin=0.2 * 3**power, squared=squared)
        np.testing.assert_allclose(scaled, 3**power * triplet(a, b, similarity, margin=0.2, squared=squared), rtol=1e-5)


@pytest.mark.parametrize("shapes", [
    ((2, 3), (2, 3), (2,)), ((2, 3), (2, 1, 3), (2, 1)), ((2, 3), (3, 4, 3), (3, 4)),
    ((2, 3), (2, 4, 5), (2, 4)), ((2, 3), (2, 4, 3), (2,)),
])  # fmt: skip
def test_lists_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"The triplet loss takes .*; got \(2, 3\)"):
        triplet(*(torch.zeros(shape) for shape in shapes))


def test_the_options_of_the_triplet_loss_are_checked() -> None:
    for options in ({"margin": -1.0}, {"margin": math.nan}, {"reduce": "max"}):
        with pytest.raises(InvalidInputError, match=r"margin must be >= 0 and reduce 'sum' or 'mean'"):
            triplet(*_lists(), **options)  # type: ignore[arg-type]


# -- all of the table --


def _items(name: str, count: int = 6, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit descriptors and similarities, pairs or lists, as the loss takes them."""
    random = torch.Generator().manual_seed(0)
    a = torch.nn.functional.normalize(torch.randn(count, 8, generator=random, dtype=dtype), dim=-1)
    shape = (count, 4) if name == "triplet" else (count,)
    b = torch.nn.functional.normalize(torch.randn(*shape, 8, generator=random, dtype=dtype), dim=-1)
    similarity = torch.linspace(0, 1, count, dtype=dtype)
    return a, b, similarity if name != "triplet" else torch.eye(4, dtype=dtype)[0].expand(count, 4)


def test_the_table() -> None:
    assert set(LOSSES) == {"contrastive", "gcl", "metric-learning", "triplet"}
    assert set(FLOORS) <= set(LOSSES)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_gives_one_value_an_item_and_writes_into_nothing(name: str) -> None:
    given = _items(name)
    before = [one.clone() for one in given]
    found = LOSSES[name](*given)
    assert found.shape == (6,)
    assert torch.isfinite(found).all()
    assert found.abs().sum() > 0
    assert all(torch.equal(one, was) for one, was in zip(given, before, strict=True))
    alone = torch.cat([LOSSES[name](*(one[i : i + 1] for one in given)) for i in range(6)])
    np.testing.assert_allclose(found, alone, atol=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_gradient_is_that_of_finite_differences(name: str) -> None:
    a, b, similarity = _items(name)
    a, b = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: LOSSES[name](x, y, similarity), (a, b), atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_descriptors_never_give_a_gradient_that_is_not_finite(name: str, dtype: torch.dtype) -> None:
    a, b, similarity = _items(name, dtype=dtype)
    a = torch.ones_like(a).requires_grad_()
    b = torch.ones_like(b).requires_grad_()
    LOSSES[name](a, b, similarity).sum().backward()
    for grad in (a.grad, b.grad):
        assert grad is not None
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("psi", [0.0, 1.0])
def test_a_similarity_of_one_attracts_and_zero_repels(name: str, psi: float) -> None:
    """Along the gradient alone the two come nearer, or part; of a triplet its positive and its negative."""
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[math.cos(0.4), math.sin(0.4)]], dtype=torch.float64)
    similarity = torch.tensor([psi], dtype=torch.float64)
    if name == "triplet":
        other = torch.tensor([[math.cos(0.41), -math.sin(0.41)]], dtype=torch.float64)
        b = torch.stack([b, other] if psi else [other, b], dim=1)
        similarity = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    LOSSES[name](a, b, similarity).sum().backward()
    assert a.grad is not None
    moved = torch.nn.functional.normalize(a.detach() - 0.01 * a.grad, dim=1)
    angle = math.acos(float((moved * torch.tensor([math.cos(0.4), math.sin(0.4)])).sum()))
    assert (angle < 0.4) == bool(psi)


@pytest.mark.parametrize("name", sorted(FLOORS))
def test_a_floor_is_never_undercut_and_is_reached(name: str) -> None:
    similarity = torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    floors = FLOORS[name](similarity, margin=0.7)
    assert floors.shape == similarity.shape
    distances = torch.linspace(0, 2, 401, dtype=torch.float64)
    b = distances[:, None].repeat(1, 1) - 1e-6
    least = torch.stack([LOSSES[name](torch.zeros_like(b), -b, psi.expand(401), margin=0.7).min() for psi in similarity])
    assert (least >= floors - 1e-12).all()
    np.testing.assert_allclose(least, floors, atol=1e-5)
