"""Whitening: unit covariance, the reference's numbers, and descriptors that it must not touch."""

import warnings

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError
from covis.files import load_arrays, save_arrays
from covis.whitening import Whitening, _half_products, fit_whitening


def described(vectors, model="m", **history):
    vectors = np.asarray(vectors, dtype=np.float32)
    return Descriptors(vectors, tuple(map(str, range(len(vectors)))), model, history)


def cloud(n=400, dim=8, seed=0):
    random = np.random.default_rng(seed)
    return described(random.normal(size=(n, dim)) @ random.normal(size=(dim, dim)) + random.normal(size=dim))


def rotated(whitening, descriptors):
    return (descriptors.vectors.astype(np.float64) - whitening.mean) @ whitening.basis.T


def test_the_whitened_have_unit_covariance():
    d = cloud()
    for dim in (8, 3):
        found = rotated(fit_whitening(d, dim=dim), d)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(found.T @ found / len(d), np.eye(dim), atol=1e-9)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_scales_each_direction(power):
    d = cloud()
    whitening = fit_whitening(d, power=power)
    covariance = np.cov(rotated(whitening, d).T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(whitening.eigenvalues ** (1 - power)), atol=1e-9)
    assert (np.diff(whitening.eigenvalues) <= 0).all()
    if power == 0:
        np.testing.assert_allclose(whitening.basis @ whitening.basis.T, np.eye(8), atol=1e-12)


@pytest.mark.parametrize("dim", [8, 5, 1])
def test_it_is_the_reference_up_to_signs(dim):
    d, others = cloud(), described(np.random.default_rng(5).normal(size=(50, 8)))
    for one in (d, others):
        mine, reference = fit_whitening(d, dim=dim)(one).vectors, oracles.apply_pca(d.vectors, one.vectors, dim)
        signs = np.sign((mine * reference).sum(axis=0))
        np.testing.assert_allclose(mine * signs, reference, atol=1e-5)


def test_rows_have_unit_norm_and_float32():
    found = fit_whitening(cloud())(cloud(seed=0))
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    assert found.vectors.dtype == np.float32
    assert found.names == cloud().names


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_distances_ignore_scale_shift_and_rotation(seed, scale, shift):
    d = cloud(seed=seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    moved = described(scale * d.vectors @ turn + shift)
    one, other = fit_whitening(d)(d).vectors[:30], fit_whitening(moved)(moved).vectors[:30]
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=5e-3)


def test_the_order_and_the_packing_do_not_matter():
    d = cloud()
    backwards = Descriptors(d.vectors[::-1].copy(), d.names[::-1], d.model)
    halves = [Descriptors(d.vectors[:150], d.names[:150], "m"), Descriptors(d.vectors[150:], d.names[150:], "m")]
    for other in (fit_whitening(backwards), fit_whitening(halves)):
        np.testing.assert_allclose(other.basis, fit_whitening(d).basis, atol=1e-8)
        assert other.history["count"] == 400


def test_it_says_what_it_was_fitted_on():
    history = fit_whitening(cloud(), dim=4, power=0.5, fitted_on="database of town").history
    assert {"fitted_on": "database of town", "count": 400, "model": "m", "dim": 4, "power": 0.5}.items() <= history.items()
    assert dict(fit_whitening(cloud(), dim=4)(cloud()).history["whitened"])["dim"] == 4


def test_directions_without_variance_are_dropped():
    flat = cloud().vectors.copy()
    flat[:, 3] = 0
    assert fit_whitening(described(flat)).dim == 7
    assert fit_whitening(described(flat), dim=8).dim == 7
    assert fit_whitening(described(flat), dim=2).dim == 2


def test_few_descriptors_are_warned_of():
    with pytest.warns(CovisWarning, match="keeps 8 dimensions fitted on 15"):
        fit_whitening(cloud(15))
    with pytest.warns(CovisWarning, match="keeps 4 dimensions fitted on 5"):
        assert fit_whitening(cloud(5)).dim == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_whitening(cloud(16))
        fit_whitening(cloud(5), dim=2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e5])
def test_identical_descriptors_are_refused(value):
    with pytest.raises(InvalidInputError, match="all the same"):
        fit_whitening(described(np.full((7, 3), value)))


def test_what_cannot_be_fitted_is_said():
    bad = cloud().vectors.copy()
    bad[17, 2] = np.inf
    with pytest.raises(InvalidInputError, match="of 17 is not"):
        fit_whitening(described(bad))
    for few in (described(np.zeros((1, 2))), described(np.zeros((0, 2))), []):
        with pytest.raises(InvalidInputError, match="two or more"):
            fit_whitening(few)
    for other in (described(cloud().vectors, model="other"), described(cloud(dim=5).vectors)):
        with pytest.raises(InvalidInputError, match="one model"):
            fit_whitening([cloud(), other])
    for options in ({"dim": -1}, {"power": 1.5}, {"power": -0.1}, {"power": float("nan")}):
        with pytest.raises(InvalidInputError, match="must be >= 0"):
            fit_whitening(cloud(), **options)
    with pytest.raises(InvalidInputError, match="whitened already"):
        fit_whitening(fit_whitening(cloud())(cloud()))


def test_what_cannot_be_whitened_is_said():
    whitening = fit_whitening(cloud())
    bad = cloud().vectors.copy()
    bad[3] = np.nan
    for other, said in (
        (described(cloud().vectors, model="other"), "model other"),
        (cloud(dim=5), "5"),
        (described(bad), "of 3 is not"),
        (whitening(cloud()), "whitened already"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            whitening(other)
    assert len(whitening(described(np.zeros((0, 8))))) == 0


def test_a_whitening_comes_back(tmp_path, refuses_every_cut, never_wrong):
    whitening = fit_whitening(cloud(), dim=3, power=0.5)
    path = whitening.save(tmp_path / "w.npz")
    found = Whitening.load(path)
    assert found.digest == whitening.digest
    assert dict(found.history) == dict(whitening.history)
    np.testing.assert_array_equal(found(cloud()).vectors, whitening(cloud()).vectors)
    np.testing.assert_array_equal(found.eigenvalues, whitening.eigenvalues)
    assert found.save(tmp_path / "again.npz").read_bytes() == path.read_bytes()
    refuses_every_cut(path, lambda: Whitening.load(path))
    never_wrong(path, lambda: Whitening.load(path), lambda one: one.digest == whitening.digest)
    with pytest.raises(OutputExistsError):
        whitening.save(path)
    header, stored = load_arrays(path, kind="covis-whitening", version=1, names=())
    for new_header, new in (
        (header | {"version": 2}, stored), (header | {"format": "x"}, stored), (header | {"history": {}}, stored),
        (header | {"history": None}, stored), (header, stored | {"mean": stored["mean"][:-1]}),
    ):  # fmt: skip
        save_arrays(path, new_header, new)
        with pytest.raises(DamagedFileError, match=r"w\.npz"):
            Whitening.load(path)
    with pytest.raises(MissingFileError):
        Whitening.load(tmp_path / "none.npz")


def test_digests_differ_with_what_it_does():
    digests = {fit_whitening(cloud(seed=seed), dim=dim, power=power).digest for seed in (0, 1) for dim in (3, 4) for power in (0.5, 1.0)}
    assert len(digests) == 8


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_several_numbers_of_dimensions_in_one_pass(power):
    whitening = fit_whitening(cloud(), power=power)
    for dim, found in zip((8, 5, 1), whitening.each(cloud(), (8, 5, 1)), strict=True):
        alone = fit_whitening(cloud(), dim=dim, power=power)
        assert whitening.at(dim).digest == alone.digest
        np.testing.assert_allclose(found.vectors, alone(cloud()).vectors, atol=1e-6)
        assert found.history == alone(cloud()).history
    assert whitening.each(cloud(), ()) == []
    with pytest.raises(InvalidInputError, match=r"cut to 1 to 8; asked for 9"):
        whitening.each(cloud(), (3, 9))
    with pytest.raises(InvalidInputError, match=r"of zca"):
        fit_whitening(cloud(), kind="zca").at(3)


def test_fewer_descriptors_than_dimensions_give_the_same_by_inner_products():
    """The kept directions are those of the covariance, which is never made."""
    wide = cloud(12, 40)
    found = fit_whitening(wide, dim=6)
    values = np.linalg.eigvalsh(np.cov(wide.vectors.astype(np.float64).T, bias=True))[::-1][:6]
    np.testing.assert_allclose(found.eigenvalues, values, rtol=1e-9)
    whitened = rotated(found, wide)
    np.testing.assert_allclose(whitened.T @ whitened / 12, np.eye(6), atol=1e-9)
    np.testing.assert_allclose((found.basis * values[:, None]) @ found.basis.T, np.eye(6), atol=1e-9)


def test_zca_turns_back():
    d = cloud()
    zca, pca = fit_whitening(d, kind="zca"), fit_whitening(d)
    np.testing.assert_allclose(zca.basis, zca.basis.T, atol=1e-9)  # the symmetric root of the inverse covariance
    np.testing.assert_allclose(np.cov(rotated(zca, d).T, bias=True), np.eye(8), atol=1e-9)
    one, other = zca(d).vectors, pca(d).vectors
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-5)  # distances are those of PCA
    assert fit_whitening(d, kind="zca", power=0.0).basis == pytest.approx(np.eye(8), abs=1e-9)
    with pytest.raises(InvalidInputError, match=r"dim = 3"):
        fit_whitening(d, kind="zca", dim=3)


@pytest.mark.parametrize(("n", "dim"), [(400, 8), (30, 20), (15, 40)])
def test_shrinkage_is_that_of_ledoit_and_wolf(n, dim):
    from sklearn.covariance import LedoitWolf

    d = cloud(n, dim)
    found, expected = fit_whitening(d, shrinkage="ledoit-wolf"), LedoitWolf().fit(d.vectors.astype(np.float64))
    assert found.history["shrinkage"] == pytest.approx(expected.shrinkage_, rel=1e-6)
    np.testing.assert_allclose(
        found.eigenvalues, np.linalg.eigvalsh(expected.covariance_)[::-1][: found.dim], rtol=1e-6
    )  # and no warning that there are too few
    zca = fit_whitening(d, kind="zca", shrinkage="ledoit-wolf")
    np.testing.assert_allclose(
        zca.basis @ zca.basis, np.linalg.inv(expected.covariance_), rtol=1e-5, atol=1e-6 * np.abs(zca.basis).max() ** 2
    )


@pytest.mark.parametrize("asked", [-0.1, 1.5, float("nan"), "oas"])
def test_a_shrinkage_out_of_range_is_refused(asked):
    with pytest.raises(InvalidInputError, match=r"share in \[0, 1\], or 'ledoit-wolf'"):
        fit_whitening(cloud(), shrinkage=asked)


def test_the_references_half_precision_is_an_option(tmp_path):
    d = cloud()
    plain, rounded = fit_whitening(d), fit_whitening(d, emulate_float16=True)
    np.testing.assert_array_equal(plain.basis, rounded.basis)
    found = rounded(d).vectors
    np.testing.assert_array_equal(found, plain(described(d.vectors.astype(np.float16))).vectors)
    assert np.abs(found - plain(d).vectors).max() > 1e-5
    assert rounded.digest != plain.digest
    again = Whitening.load(rounded.save(tmp_path / "w.npz"))
    np.testing.assert_array_equal(again(d).vectors, found)


def test_bits_are_the_signs_and_their_distance_counts_those_that_differ(tmp_path):
    d = cloud()
    plain, bits = fit_whitening(d, dim=5), fit_whitening(d, dim=5, binary=True)
    found = bits(d)
    np.testing.assert_array_equal(np.sign(found.vectors), np.where(plain(d).vectors >= 0, 1, -1))
    np.testing.assert_allclose(np.abs(found.vectors), 5**-0.5, rtol=2e-6)
    differ = np.count_nonzero(np.sign(found.vectors[0]) != np.sign(found.vectors[1:]), axis=1)
    np.testing.assert_allclose(np.linalg.norm(found.vectors[0] - found.vectors[1:], axis=1), 2 * np.sqrt(differ / 5), atol=1e-5)
    assert found.history["whitened"]["binary"] is True
    bits.save(tmp_path / "w.npz")
    np.testing.assert_array_equal(Whitening.load(tmp_path / "w.npz")(d).vectors, found.vectors)
    assert bits.at(3)(d).dim == 3


def halved(fit, apply, dim):
    """GCL's apply_pca for all but MSLS, by the promotions of the numpy 1 that it asks for; general `eig` in single precision."""
    samples = np.asarray(fit, dtype=np.float64).astype(np.float16).T
    mean = samples.mean(axis=1, keepdims=True)
    centred = samples - mean
    covariance = np.dot(centred, centred.T)
    covariance = covariance + covariance.T
    assert covariance.dtype == np.float16
    with pytest.raises(TypeError):  # where numpy 2 leaves it
        np.linalg.eig(covariance / (2 * samples.shape[1]))
    wide = np.float32 if 2 * samples.shape[1] <= 65_535 else np.float64
    values, vectors = np.linalg.eig(covariance.astype(wide) / wide(2 * samples.shape[1]))
    order = values.argsort()[::-1]
    values, vectors = values[order], vectors[:, order]
    projection = np.dot(np.linalg.inv(np.sqrt(np.diag(values))), vectors.T)
    asked = np.asarray(apply, dtype=np.float64).astype(np.float16).T
    whitened = np.dot(projection[:dim], asked - mean)
    return (whitened / (np.linalg.norm(whitened, axis=0, keepdims=True) + 1e-6)).T


def unit(n, dim, seed):
    vectors = np.random.default_rng(seed).normal(size=(n, dim)) * np.linspace(1, 0.3, dim) + 0.5
    return described(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("dim", [24, 9])
def test_a_fit_in_half_precision_is_the_references(dim):
    d, asked = unit(400, 24, 0), unit(60, 24, 1)
    found, expected = fit_whitening(d, dim=dim, emulate_float16="fit")(asked).vectors, halved(d.vectors, asked.vectors, dim)
    one, other = found @ found.T, expected @ expected.T  # up to signs
    np.testing.assert_allclose(one, other, atol=2e-5)
    for emulate in (False, True):
        plain = fit_whitening(d, dim=dim, emulate_float16=emulate)(asked).vectors
        assert np.abs(plain @ plain.T - other).max() > 3e-4


def test_msls_is_fitted_in_double_and_applied_in_half():
    d, asked = unit(400, 24, 0), unit(60, 24, 1)
    found = fit_whitening(d, dim=9, emulate_float16=True)(asked).vectors
    expected = oracles.apply_pca(d.vectors, asked.vectors.astype(np.float64).astype(np.float16), 9)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)


def test_sums_in_half_precision_are_numpys_to_the_bit(monkeypatch):
    monkeypatch.setattr("covis.whitening.TILE", 5)
    given = np.random.default_rng(0).normal(size=(700, 13)).astype(np.float16)
    np.testing.assert_array_equal(_half_products(given), np.dot(given.T, given))
    single = (given.astype(np.float32).T.astype(np.float64) @ given).astype(np.float16)
    assert (single != _half_products(given)).any()  # another order of summing gives other bits


def test_a_fit_in_half_precision_is_kept_and_says_when_it_cannot_be(tmp_path):
    d = unit(200, 6, 3)
    fitted = fit_whitening(d, emulate_float16="fit")
    assert fitted.history["emulate_float16"] == "fit"
    assert np.array_equal(fitted.mean, fitted.mean.astype(np.float16))
    again = Whitening.load(fitted.save(tmp_path / "w.npz"))
    np.testing.assert_array_equal(again(d).vectors, fitted(d).vectors)
    assert len({fit_whitening(d, emulate_float16=one).digest for one in (False, True, "fit")}) == 3
    for other, said in (
        (unit(127, 6, 3), r"needs 128 descriptors or more.*got 127"),
        (described(d.vectors * 1000), r"must stay below float16's 65,504"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            fit_whitening(other, emulate_float16="fit")
    with pytest.raises(InvalidInputError, match=r"True, False or 'fit'; got 'half'"):
        fit_whitening(d, emulate_float16="half")
