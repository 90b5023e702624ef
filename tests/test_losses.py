"""The generalized contrastive loss: the seven facts that follow from its formula, and an oracle in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import InvalidInputError
from covis.losses import LOSSES, generalized_contrastive, loss_floor

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


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan])
def test_a_margin_must_be_above_zero(margin: float) -> None:
    one = torch.zeros(1, 2)
    with pytest.raises(InvalidInputError, match="margin must be above 0"):
        generalized_contrastive(one, one, torch.zeros(1), margin=margin)
    with pytest.raises(InvalidInputError, match="margin must be above 0"):
        loss_floor(torch.zeros(1), margin=margin)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4), (2,)), ((2, 3), (2, 3), (3,)), ((2, 3), (2, 3), (2, 1)), ((3,), (3,), (3,))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InvalidInputError, match="A loss takes"):
        generalized_contrastive(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_of_the_table_gives_one_value_a_pair(name: str) -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    before = a.clone()
    found = LOSSES[name](a, b, torch.linspace(0, 1, 6))
    assert found.shape == (6,)
    assert torch.isfinite(found).all()
    assert (a == before).all()
    alone = torch.cat([LOSSES[name](a[i : i + 1], b[i : i + 1], torch.linspace(0, 1, 6)[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(found, alone, atol=1e-7)
