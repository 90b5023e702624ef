"""View sectors: the published values, a second computation with 50 digits, polygons, every law that holds, and the search for pairs."""

import itertools

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

from covis.errors import InvalidInputError
from covis.labels import Labels
from covis.sectors import Sectors, overlap, shared_area

mp = pytest.importorskip("mpmath", reason="the computation with 50 digits needs mpmath, which comes with torch")


def sectors(rows):
    """Sectors from rows (x, y, heading, fov, reach)."""
    x, y, heading, fov, reach = np.asarray(rows, dtype=np.float64).reshape(-1, 5).T
    return Sectors.of(np.column_stack([x, y]), heading=heading, fov=fov, reach=reach)


def least(*given):
    return min(float(sectors(row).area[0]) for row in given)


def one(measure="iou", *, ahead=0.0, aside=0.0, turn=0.0, fov=90.0, reach=50.0):
    """The similarity of a sector that looks north with one that stands and turns elsewhere."""
    return float(overlap(sectors([0, 0, 0, fov, reach]), sectors([aside, ahead, turn, fov, reach]), measure=measure)[0])


# ------------------------------------------------------------------------------------------------------------ published values

VECTORS = [  # ahead, aside, turn, fraction, IoU: methods A.2.1, to the digits given
    (0, 0, 0, "1.000000", "1.000000"),
    (0, 0, 30, "0.666667", "0.500000"),
    (0, 0, 40, "0.555556", "0.384615"),
    (0, 0, 45, "0.500000", "0.333333"),
    (0, 0, 90, "0.000000", "0.000000"),
    (0, 0, 180, "0.000000", "0.000000"),
    (5, 0, 0, "0.826453", "0.704235"),
    (10, 0, 0, "0.666542", "0.499860"),
    (15.8, 0, 0, "0.499341", "0.332748"),
    (25, 0, 0, "0.277964", "0.161416"),
    (0, 10, 0, "0.758510", "0.610967"),
    (0, 14.1, 0, "0.667453", "0.500885"),
    (0, 25, 0, "0.449653", "0.290034"),
    (25, 0, 20, "0.298320", "0.175309"),
    (25, 0, 40, "0.339492", "0.204451"),
    (50, 0, 0, "0.000000", "0.000000"),
    (60, 0, 180, "0.806720", "0.676053"),
]


@pytest.mark.parametrize(("ahead", "aside", "turn", "fraction", "iou"), VECTORS)
def test_published_values(ahead, aside, turn, fraction, iou):
    where = {"ahead": ahead, "aside": aside, "turn": turn}
    assert f"{one('fraction', **where):.6f}" == fraction
    assert f"{one('iou', **where):.6f}" == iou


def test_published_crossings():
    """Where one step forward or sideways brings IoU, or the fraction, down to one half."""
    for measure, along, metres in (
        ("iou", "ahead", "9.9959"),
        ("iou", "aside", "14.1364"),
        ("fraction", "ahead", "15.7757"),
        ("fraction", "aside", "22.3102"),
    ):
        found = brentq(lambda step, m=measure, along=along: one(m, **{along: step}) - 0.5, 1, 40, xtol=1e-10)
        assert f"{found:.4f}" == metres


def test_polygons_err_as_published():
    """An inscribed polygon with 16, 32, 64, 128 arc points errs by 5.2e-4, 1.4e-4, 3.3e-5, 8.1e-6 over the rows of the table."""
    rows = np.array([(aside, ahead, turn, 90, 50) for ahead, aside, turn, *_ in VECTORS], dtype=float)
    here = np.tile([0.0, 0, 0, 90, 50], (len(rows), 1))
    exact = overlap(sectors(here), sectors(rows))
    for points, published in ((16, 5.2e-4), (32, 1.4e-4), (64, 3.3e-5), (128, 8.1e-6)):
        a, b = polygons(here, points), polygons(rows, points)
        worst = np.abs(shapely.area(shapely.intersection(a, b)) / shapely.area(shapely.union(a, b)) - exact).max()
        assert worst == pytest.approx(published, rel=0.5)


# --------------------------------------------------------------------------------------------- oracle: along rays, with 50 digits


def turned(angle, low):
    """The same direction in [low, low + 360 degrees)."""
    return angle - 2 * mp.pi * mp.floor((angle - low) / (2 * mp.pi))


class Rays:
    """Two sectors (x, y, heading, fov, reach) in polar coordinates around the first's apex.

    Along a ray the second sector is cut out by its circle (near and far side) and its edges' lines; a point between two crossings
    tells by the definition alone (`inside`) whether that stretch counts. No case is told apart, so nothing can be forgotten.
    """

    def __init__(self, a, b):
        (ax, ay, heading, fov, self.reach), (bx, by, other, self.fov, self.radius) = [map(mp.mpf, row) for row in (a, b)]
        self.x, self.y, degree = bx - ax, by - ay, mp.pi / 180
        self.low, self.high = (90 - heading - fov / 2) * degree, (90 - heading + fov / 2) * degree
        self.middle, self.half = (90 - other) * degree, self.fov * degree / 2
        self.edges = [] if self.fov == 360 else [self.middle - self.half, self.middle + self.half]
        self.lines = [(-mp.sin(e), mp.cos(e), mp.cos(e) * self.y - mp.sin(e) * self.x) for e in self.edges]
        self.tiny = mp.mpf(10) ** (8 - mp.mp.dps)

    def cuts(self):
        """The directions at which another curve may begin or end to bound the ray: few too many do no harm."""
        distance, toward, arccos = mp.hypot(self.x, self.y), mp.atan2(self.y, self.x), lambda v: mp.acos(min(1, max(-1, v)))
        found = [toward + k * mp.pi / 2 for k in range(4)]
        if distance:
            crossing = arccos((distance / self.reach + (self.reach - self.radius) * (self.reach + self.radius) / distance / self.reach) / 2)
            found += [toward - crossing, toward + crossing]
        if self.radius < distance:
            found += [toward - mp.asin(self.radius / distance), toward + mp.asin(self.radius / distance)]
        for e, (_, _, height) in zip(self.edges, self.lines, strict=True):
            normal, crossing = e + mp.pi / 2, arccos(height / self.reach)
            corner = mp.atan2(self.y + self.radius * mp.sin(e), self.x + self.radius * mp.cos(e))
            found += [e, e + mp.pi, normal, normal + mp.pi, normal - crossing, normal + crossing, corner]
        return sorted({self.low, self.high, *(c for c in (turned(c, self.low) for c in found) if c < self.high)})

    def inside(self, x, y):
        x, y = x - self.x, y - self.y
        return x * x + y * y <= self.radius**2 and (not self.edges or abs(turned(mp.atan2(y, x) - self.middle, -mp.pi)) <= self.half)

    def length(self, curve, angle):
        """How far along the ray a curve lies: its number, or "apex", "own" arc, "near" and "far" side of the other circle."""
        u, v = mp.cos(angle), mp.sin(angle)
        if curve in ("apex", "own"):
            return self.reach * (curve == "own")
        if curve in ("near", "far"):
            height = abs(u * self.y - v * self.x)
            root = mp.sqrt(max(0, (self.radius - height) * (self.radius + height)))
            return self.x * u + self.y * v + (root if curve == "far" else -root)
        nx, ny, height = self.lines[curve]
        slope = nx * u + ny * v
        if abs(slope) < self.tiny:
            return mp.mpf(0) if abs(height) < self.tiny * self.reach else self.reach
        return min(self.reach, max(mp.mpf(0), height / slope))

    def stretches(self, angle):
        """The pairs of curves between which the ray runs through the second sector."""
        crossed = abs(mp.cos(angle) * self.y - mp.sin(angle) * self.x) < self.radius
        curves = ["apex", "own", *range(len(self.lines)), *(("near", "far") if crossed else ())]
        marks = sorted((self.length(curve, angle), order) for order, curve in enumerate(curves))  # an arc before a line cut off there
        marks = [(length, curves[order]) for length, order in marks if 0 <= length <= self.reach]
        for (low, first), (high, last) in itertools.pairwise(marks):
            middle = (low + high) / 2
            if high - low > self.tiny * self.reach and self.inside(middle * mp.cos(angle), middle * mp.sin(angle)):
                yield first, last

    def under(self, curve, start, end):
        """The area between the apex and a curve."""
        if curve in ("apex", "own"):
            return self.length(curve, start) ** 2 * (end - start) / 2
        area = self.length(curve, start) * self.length(curve, end) * mp.sin(end - start) / 2
        if curve in ("near", "far"):  # a triangle, and the circle's segment beyond its chord
            steps = [start, (start + end) / 2, end]
            at = [(self.length(curve, t) * mp.cos(t) - self.x, self.length(curve, t) * mp.sin(t) - self.y) for t in steps]
            turn = sum(turned(mp.atan2(q[1], q[0]) - mp.atan2(p[1], p[0]), -mp.pi) for p, q in itertools.pairwise(at))
            area += self.radius**2 * (turn - mp.sin(turn)) / 2
        return area

    def area(self):
        total = mp.mpf(0)
        for start, end in itertools.pairwise(self.cuts()):
            # Not the middle: there, in a symmetric figure, two curves may cross by chance.
            for first, last in self.stretches(start + (end - start) * mp.mpf("0.382")) if end - start > self.tiny else ():
                total += self.under(last, start, end) - self.under(first, start, end)
        return total

    def summed(self, error):
        """The same by numeric quadrature, which trusts neither the antiderivatives nor the cuts (but for its speed)."""

        def square(angle):
            return sum(self.length(last, angle) ** 2 - self.length(first, angle) ** 2 for first, last in self.stretches(angle)) / 2

        return sum(quad(square, float(s), float(e), epsabs=error, epsrel=1e-6)[0] for s, e in itertools.pairwise(self.cuts()))


def exact_area(a, b):
    with mp.workdps(50):
        return Rays(a, b).area()


# ------------------------------------------------------------------------------------------------- pairs that are hard to get right


def unit(heading):
    heading = np.deg2rad(heading)
    return np.stack([np.sin(heading), np.cos(heading)], axis=-1)


def nearly(random, n):
    """1, or off by 1e-16 to 1e-9."""
    return 1 + np.where(random.random(n) < 0.5, 0, random.choice([-1, 1], n) * 10 ** random.uniform(-16, -9, n))


class Drawn:
    """n random pairs: radii up to 25 times apart, openings 0.5 to 360 degrees; `shift` is from the first apex to the second."""

    def __init__(self, random, n):
        def opening():
            few = random.choice([0.5, 1.0, 60, 90, 120, 270, 360], n)
            kinds = [random.uniform(0.5, 360, n), 0.5 * 200 ** random.random(n), few, random.uniform(20, 180, n)]
            return np.choose(random.integers(0, 4, n), kinds)

        self.random, self.n = random, n
        self.reach = 10 ** random.uniform(-1, 3, n)
        self.reach_b = np.where(random.random(n) < 0.3, self.reach, self.reach * 25 ** random.uniform(-1, 1, n))
        self.fov, self.fov_b, self.heading = opening(), opening(), random.uniform(0, 360, n)
        self.heading_b = np.where(random.random(n) < 0.2, self.heading, random.uniform(0, 360, n))
        self.move(random.uniform(0, 360, n), random.random(n) * np.maximum(self.reach, self.reach_b))

    def move(self, heading, metres):
        self.shift = unit(heading) * np.asarray(metres)[:, None]

    def side(self):
        return self.random.choice([-0.5, 0.5], self.n)

    def rows(self):
        first = np.column_stack([np.zeros((self.n, 2)), self.heading, self.fov, self.reach])
        return first, np.column_stack([self.shift, self.heading_b, self.fov_b, self.reach_b])


def general(d):
    pass


def same_apex(d):
    d.move(d.heading, np.zeros(d.n))


def near_apex(d):
    d.move(d.random.uniform(0, 360, d.n), 10 ** d.random.uniform(-12, -3, d.n))


def circles_touch_outside(d):
    toward = d.random.uniform(0, 360, d.n)
    d.move(toward, (d.reach + d.reach_b) * nearly(d.random, d.n))
    d.heading, d.heading_b = toward + d.random.uniform(-0.6, 0.6, d.n) * d.fov, toward + 180 + d.random.uniform(-0.6, 0.6, d.n) * d.fov_b


def circles_touch_inside(d):
    toward = d.random.uniform(0, 360, d.n)
    d.move(toward, np.abs(d.reach - d.reach_b) * nearly(d.random, d.n))
    touch = toward + np.where(d.reach > d.reach_b, 0, 180)
    d.heading, d.heading_b = touch + d.random.uniform(-0.6, 0.6, d.n) * d.fov, touch + d.random.uniform(-0.6, 0.6, d.n) * d.fov_b


def edges_on_one_line(d):
    edge = d.heading + d.side() * d.fov
    d.move(edge, d.random.uniform(-1, 1, d.n) * (d.reach + d.reach_b))
    off = np.where(d.random.random(d.n) < 0.5, 0, 10 ** d.random.uniform(-14, -6, d.n))
    d.heading_b = edge + d.random.choice([0, 180], d.n) + d.side() * d.fov_b + off


def apex_on_the_others_arc(d):
    d.move(d.heading + d.random.uniform(-0.6, 0.6, d.n) * d.fov, d.reach * nearly(d.random, d.n))


def edge_through_the_others_apex(d):
    toward = d.random.uniform(0, 360, d.n)
    d.move(toward, d.random.random(d.n) * d.reach_b)
    d.heading_b = toward + 180 + d.side() * d.fov_b


def edge_touches_the_others_arc(d):
    edge = d.random.uniform(0, 360, d.n)
    d.move(edge + 90, d.random.choice([-1, 1], d.n) * d.reach * nearly(d.random, d.n))
    d.shift -= unit(edge) * (d.random.uniform(-0.2, 1, d.n) * d.reach_b)[:, None]
    d.heading_b = edge + d.side() * d.fov_b


def corner_on_corner(d):
    mine, other = d.heading + d.side() * d.fov, d.heading_b + d.side() * d.fov_b
    d.shift = unit(mine) * d.reach[:, None] - unit(other) * d.reach_b[:, None]


def full_discs(d):
    d.fov, d.fov_b = np.full(d.n, 360.0), np.where(d.random.random(d.n) < 0.5, 360.0, d.fov_b)


def nearly_full_or_half(d):
    d.fov = 360 - 10 ** d.random.uniform(-13, 0, d.n)
    d.fov_b = 180 + d.random.choice([-1, 1], d.n) * 10 ** d.random.uniform(-9, 0, d.n)


def nearly_the_same(d):
    d.reach_b, d.fov_b = d.reach * nearly(d.random, d.n), np.minimum(360, d.fov * nearly(d.random, d.n))
    d.heading_b = d.heading + np.where(d.random.random(d.n) < 0.5, 0, 10 ** d.random.uniform(-14, -6, d.n))
    d.move(d.random.uniform(0, 360, d.n), d.reach * 10 ** d.random.uniform(-15, -6, d.n))


def round_numbers(d):
    """Many things at once: corners on edges, edges through apexes, arcs through corners."""
    d.reach, d.reach_b = d.random.choice([10.0, 20, 50], d.n), d.random.choice([10.0, 20, 50], d.n)
    d.heading, d.heading_b = d.random.choice(np.arange(0, 360, 15.0), d.n), d.random.choice(np.arange(0, 360, 15.0), d.n)
    d.fov, d.fov_b = (d.random.choice([30.0, 60, 90, 120, 240, 270, 300, 330, 360], d.n) for _ in range(2))
    d.shift = d.random.choice(np.arange(-60, 61, 10.0), (d.n, 2))


def half_plane_touches_the_others_arc(d):
    d.fov_b = np.full(d.n, 180.0)
    d.fov = np.where(d.random.random(d.n) < 0.5, 360.0, d.fov)
    edge_touches_the_others_arc(d)


HARD = [
    general,
    same_apex,
    near_apex,
    circles_touch_outside,
    circles_touch_inside,
    edges_on_one_line,
    apex_on_the_others_arc,
    edge_through_the_others_apex,
    edge_touches_the_others_arc,
    corner_on_corner,
    full_discs,
    nearly_full_or_half,
    nearly_the_same,
    round_numbers,
]


def error(kind, *, seed, n):
    """The largest error of the shared area, as a share of the smaller sector."""
    drawn = Drawn(np.random.default_rng(seed), n)
    kind(drawn)
    first, second = drawn.rows()
    a, b = sectors(first), sectors(second)
    found = shared_area(a, b)
    exact = [exact_area(*pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    off = [float(abs(mp.mpf(value) - truth)) for value, truth in zip(found.tolist(), exact, strict=True)]
    return (np.array(off) / np.minimum(a.area, b.area)).max()


@pytest.mark.parametrize("kind", HARD)
def test_the_area_is_that_of_fifty_digits(kind):
    assert error(kind, seed=11, n=40) < 1e-11


def test_the_area_is_that_of_fifty_digits_where_a_half_plane_touches():
    disc, half = sectors([0, 0, 30, 360, 10]), sectors([-20, 0, 150, 180, 50])  # the disc lies wholly within
    assert shared_area(disc, half)[0] == pytest.approx(disc.area[0], rel=1e-11)
    assert error(half_plane_touches_the_others_arc, seed=11, n=100) < 1e-11


def test_the_oracle_is_itself_right():
    """By quadrature; and from the other apex, which is another computation."""
    for kind in (general, apex_on_the_others_arc, corner_on_corner, round_numbers):
        drawn = Drawn(np.random.default_rng(6), 2)
        kind(drawn)
        for a, b in zip(*(rows.tolist() for rows in drawn.rows()), strict=True):
            size = least(a, b)
            assert abs(exact_area(a, b) - exact_area(b, a)) < 1e-30 * size
            with mp.workdps(15):
                assert Rays(a, b).summed(1e-6 * size) == pytest.approx(float(exact_area(a, b)), abs=1e-9 * size)


# ---------------------------------------------------------------------------------------------------------------- oracle: polygons


def polygons(rows, points):
    """Inscribed polygons with so many points on the arc."""
    x, y, heading, fov, reach = np.asarray(rows, dtype=float).T[..., None]
    arc = np.stack([x, y], axis=-1) + reach[..., None] * unit(heading + fov * np.linspace(-0.5, 0.5, points))
    apex = np.where(fov == 360, arc[:, 0], np.hstack([x, y]))
    return shapely.polygons(np.concatenate([apex[:, None], arc], axis=1))


def missing(rows, points):
    """How much smaller such a polygon is than its sector."""
    angle = np.deg2rad(rows[:, 3]) / (points - 1)
    return (points - 1) * rows[:, 4] ** 2 / 2 * (angle - np.sin(angle))


@pytest.mark.parametrize(("points", "n"), [(200, 2000), pytest.param(2000, 3000, marks=pytest.mark.slow)])
def test_the_area_lies_within_the_polygons_bounds(points, n):
    """An inscribed polygon lacks a known area: the true intersection is at least theirs, and at most larger by what both lack."""
    random = np.random.default_rng(8)
    uniform = random.uniform
    first, second = (
        np.column_stack([uniform(-40, 40, (n, 2)), uniform(-400, 400, n), uniform(0.5, 360, n), uniform(2, 50, n)]) for _ in range(2)
    )
    first[: n // 10, 3] = 360
    found = shared_area(sectors(first), sectors(second))
    theirs = shapely.area(shapely.intersection(polygons(first, points), polygons(second, points)))
    least, most = found - theirs, missing(first, points) + missing(second, points)
    assert (found > 0).sum() > n / 3
    assert least.min() > -1e-9
    assert (least - most).max() < 1e-9
    assert np.quantile(most / np.minimum(sectors(first).area, sectors(second).area), 0.9) < 300 / points**2  # the bounds are tight


# -------------------------------------------------------------------------------------------------------------- laws that hold

headings = st.floats(0, 360, exclude_max=True) | st.sampled_from([0.0, 45.0, 90.0, 180.0, 270.0])
openings = st.floats(0.5, 360) | st.sampled_from([30.0, 60.0, 90.0, 270.0, 360.0])
lengths = st.floats(1, 50) | st.sampled_from([10.0, 25.0, 50.0])
places = st.floats(-60, 60) | st.sampled_from([0.0, 10.0, 25.0, 50.0])
rows = st.tuples(places, places, headings, openings, lengths)
small_openings = st.floats(1, 180) | st.sampled_from([30.0, 60.0, 90.0, 360.0])


def shared(a, b):
    return float(shared_area(sectors(a), sectors(b))[0])


@given(rows, rows)
def test_exchanged_sectors_share_the_same_bits(a, b):
    assert shared(a, b) == shared(b, a)
    assert overlap(sectors(a), sectors(b)) == overlap(sectors(b), sectors(a))


@given(rows, rows, st.floats(-180, 180), st.floats(0.01, 1000))
def test_rigid_motions_mirrors_and_scales_change_nothing(a, b, turn, scale):
    angle = np.deg2rad(turn)
    before, size = shared(a, b), least(a, b)

    def moved(row, *, mirror=1):
        east, north = np.cos(angle) * row[0] + np.sin(angle) * row[1] + 3, np.cos(angle) * row[1] - np.sin(angle) * row[0] - 70
        return (mirror * east, north, mirror * (row[2] + turn), row[3], row[4])

    assert abs(shared(moved(a), moved(b)) - before) < 1e-9 * size
    assert abs(shared(moved(a, mirror=-1), moved(b, mirror=-1)) - before) < 1e-9 * size
    grown = [(scale * x, scale * y, heading, fov, scale * reach) for x, y, heading, fov, reach in (a, b)]
    assert abs(shared(*grown) / scale**2 - before) < 1e-9 * size


@given(rows, rows, st.integers(-3, 3))
def test_headings_repeat_after_360_degrees(a, b, turns):
    again = (*a[:2], a[2] + 360 * turns, *a[3:])
    assert abs(shared(again, b) - shared(a, b)) < 1e-9 * least(a, b)


@given(rows, rows)
def test_a_sector_has_all_of_itself_and_never_more_than_the_smaller(a, b):
    for measure in ("iou", "fraction"):
        assert overlap(sectors(a), sectors(a), measure=measure)[0] == 1.0
        assert 0 <= overlap(sectors(a), sectors(b), measure=measure)[0] <= 1
    assert 0 <= shared(a, b) <= least(a, b) * (1 + 1e-11)


@given(rows, rows, st.floats(0, 360), st.floats(1, 2) | st.just(1.0))
def test_nothing_is_shared_beyond_both_radii(a, b, toward, times):
    x, y = unit(toward) * (a[4] + b[4]) * times
    far = (a[0] + x, a[1] + y, *b[2:])
    assert overlap(sectors(a), sectors(far))[0] == 0.0  # exactly, where they touch too


@given(rows, rows)
def test_iou_and_fraction_of_equal_areas(a, b):
    b = (*b[:3], *a[3:])
    fraction, iou = (overlap(sectors(a), sectors(b), measure=measure)[0] for measure in ("fraction", "iou"))
    assert iou == pytest.approx(fraction / (2 - fraction), abs=1e-12)


@given(rows, rows, rows)
def test_one_minus_the_similarity_is_a_metric(a, b, c):
    def distance(p, q, measure="iou"):
        return 1 - overlap(sectors(p), sectors(q), measure=measure)[0]

    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-10
    b, c = (*b[:3], *a[3:]), (*c[:3], *a[3:])
    assert distance(a, c, "fraction") <= distance(a, b, "fraction") + distance(b, c, "fraction") + 1e-10


@given(headings, st.floats(0, 180), openings, lengths)
def test_turning_on_the_spot(heading, turn, fov, reach):
    found = overlap(sectors([0, 0, heading, fov, reach]), sectors([0, 0, heading + turn, fov, reach]), measure="fraction")[0]
    expected = 1.0 if fov == 360 else (max(0, fov - turn) + max(0, fov - (360 - turn))) / fov
    assert found == pytest.approx(expected, abs=1e-11)


def stepped(metres, *, toward, fov, reach=50.0, heading=0.0):
    """The fraction that equal sectors of equal heading share, for steps in one direction."""
    metres = np.asarray(metres, dtype=float)
    ahead = np.column_stack([unit(toward) * metres[:, None], np.tile([heading, fov, reach], (len(metres), 1))])
    return overlap(sectors(np.tile([0, 0, heading, fov, reach], (len(metres), 1))), sectors(ahead), measure="fraction")


@given(st.floats(0, 360), headings, small_openings, lengths)
def test_a_step_with_the_heading_kept(toward, heading, fov, reach):
    metres = np.linspace(0, 2.2, 45) * reach
    there, back = (stepped(metres * sign, toward=toward, fov=fov, reach=reach, heading=heading) for sign in (1, -1))
    assert np.diff(there).max() < 1e-10  # never more further away
    np.testing.assert_allclose(there, back, atol=1e-10)  # even
    root = np.sqrt(there)
    assert (np.diff(root, 2) * (root[2:] > 1e-3)).max() < 1e-8  # the root is concave where anything is shared
    wider = stepped(metres, toward=toward, fov=fov, reach=1.3 * reach, heading=heading)
    assert (wider - there).min() > -1e-10  # a longer reach forgives more


@given(rows, rows, st.floats(1, 2), st.floats(0, 1))
def test_the_area_grows_with_either_opening_and_either_radius(a, b, times, part):
    before, size = shared(a, b), least(a, b)
    longer = (*a[:4], a[4] * times)
    wider = (*a[:3], a[3] + part * (360 - a[3]), a[4])
    for grown in (longer, wider):
        assert shared(grown, b) > before - 1e-9 * size
        assert shared(b, grown) > before - 1e-9 * size


def test_forward_against_sideways():
    """A sideways step keeps more than a forward one at 90 degrees, exactly as much at 60, less at 30 and below."""
    metres = np.linspace(0.5, 110, 150)
    for fov, sign in ((90, 1), (60, 0), (30, -1), (10, -1), (2, -1)):
        forward, sideways = (stepped(metres, toward=toward, fov=fov) for toward in (0, 90))
        either = (forward > 0) | (sideways > 0)
        assert either.sum() > 10
        if sign:
            assert (sign * (sideways - forward))[either].min() > 0
        else:
            np.testing.assert_allclose(sideways, forward, atol=1e-12)


# --------------------------------------------------------------------------------------------------------- laws that do not hold


def test_the_overlap_is_not_monotone_in_distance_when_headings_differ():
    """Face to face: nothing on the spot, the most at 63.25 m, nothing at 100 m."""
    best = minimize_scalar(lambda metres: -one("fraction", ahead=metres, turn=180), bounds=(40, 90), method="bounded")
    assert (f"{best.x:.2f}", f"{-best.fun:.5f}") == ("63.25", "0.81933")
    assert one(turn=180) == one(ahead=100, turn=180) == 0


def test_the_overlap_is_not_monotone_in_the_heading_difference():
    found = [one("fraction", ahead=25), one("fraction", ahead=25, turn=45), one("fraction", aside=25), one("fraction", aside=25, turn=-34)]
    assert [f"{value:.3f}" for value in found] == ["0.278", "0.341", "0.450", "0.712"]


def test_the_fraction_is_not_monotone_in_opening_or_reach():
    wider = [one("fraction", ahead=63.25, turn=180, fov=fov) for fov in (60, 90, 120)]
    longer = [one("fraction", ahead=63.25, turn=180, reach=reach) for reach in (40, 50, 100)]
    assert [f"{value:.4f}" for value in wider] == ["0.7225", "0.8193", "0.7565"]
    assert [f"{value:.4f}" for value in longer] == ["0.4453", "0.8193", "0.2547"]


def test_neither_rule_contains_the_other():
    """IoU of one half against the field's 25 m and 40 degrees, with the published shares and extremes."""

    def similar(east, north, turn, measure="iou"):
        east, north, turn = (axis.ravel() for axis in np.broadcast_arrays(east, north, turn))
        there = np.column_stack([east, north, turn, np.full(len(east), 90), np.full(len(east), 50)])
        return overlap(sectors(np.tile([0.0, 0, 0, 90, 50], (len(east), 1))), sectors(there), measure=measure)

    random, n = np.random.default_rng(5), 20_000
    east, north = unit(random.uniform(0, 360, n)).T * 25 * np.sqrt(random.random(n))
    turn = random.uniform(-40, 40, n)
    assert (similar(east, north, turn) >= 0.5).mean() == pytest.approx(0.23, abs=0.01)
    assert (similar(east, north, turn, "fraction") >= 0.5).mean() == pytest.approx(0.50, abs=0.01)
    # The farthest with at most 40 degrees, the most turned within 25 m: random draws, as those of the published page, see 32 m and 68.
    east, north = unit(np.arange(0, 360, 2.0)).T
    assert similar(33.7 * east, 33.7 * north, 40.0).max() > 0.5 > similar(33.8 * east, 33.8 * north, 40.0).max()
    metres = np.arange(0, 25.5, 0.5)[:, None]
    assert similar(metres * east, metres * north, 76.0).max() > 0.5 > similar(metres * east, metres * north, 76.5).max()
    assert one(ahead=72, turn=180) > 0.5 > one(ahead=72.5, turn=180)


# ------------------------------------------------------------------------------------------------- large coordinates, ties, edges


def test_coordinates_as_large_as_utms():
    random, n = np.random.default_rng(4), 5000
    first, second = (
        np.column_stack([random.uniform(-40, 40, (n, 2)), random.uniform(0, 360, n), np.full(n, 90), np.full(n, 50)]) for _ in range(2)
    )
    utm = np.array([584_826.0, 4_476_946.0, 0, 0, 0])
    before, area = shared_area(sectors(first), sectors(second)), sectors(first).area
    assert np.abs((shared_area(sectors(first + utm), sectors(second + utm)) - before) / area).max() < 5e-11
    for rows in (first, second):
        rows[:, :2] = np.round(rows[:, :2] * 1024) / 1024  # so that nothing is lost by adding
    np.testing.assert_array_equal(shared_area(sectors(first + utm), sectors(second + utm)), shared_area(sectors(first), sectors(second)))


def test_touching_is_nothing_and_the_same_is_all():
    random, n = np.random.default_rng(6), 5000
    here = np.column_stack([random.uniform(4e5, 5e6, (n, 2)), random.uniform(0, 360, n), random.choice([30, 90, 200], n), np.full(n, 50)])
    away = here.copy()
    away[:, :2] += 100 * unit(random.uniform(0, 360, n))  # arc on arc
    assert (overlap(sectors(here), sectors(away)) == 0).all()
    narrow = here[here[:, 3] < 180]
    beside = narrow + np.column_stack([np.zeros((len(narrow), 2)), np.full(len(narrow), 90), 180 - 2 * narrow[:, 3], np.zeros(len(narrow))])
    assert (shared_area(sectors(narrow), sectors(beside)) > 0).any()  # edge on edge leaves residues
    assert (overlap(sectors(narrow), sectors(beside)) == 0).all()
    for measure in ("iou", "fraction"):
        assert (overlap(sectors(here), sectors(here), measure=measure) == 1).all()


def test_exactly_thirty_degrees_is_a_positive():
    random, n = np.random.default_rng(7), 5000
    here = np.column_stack([np.zeros((n, 2)), random.uniform(0, 360, n), np.full(n, 90), np.full(n, 50)])
    similarity = overlap(sectors(here), sectors(here + np.array([0, 0, 30, 0, 0])))
    assert (similarity < 0.5).any()  # rounding alone
    names = tuple(str(row) for row in range(n))
    labels = Labels(sparse.diags_array(similarity, format="csr"), names, names, rule="view")
    assert labels.positives(0.5).nnz == n
    assert labels.positives(0.5, strict=True).nnz == 0


def test_no_sectors_share_nothing_and_arguments_are_left_alone():
    none = Sectors.of(np.zeros((0, 2)), heading=0, fov=90, reach=50)
    assert len(none) == 0
    assert shared_area(none, none).shape == overlap(none, none).shape == (0,)
    a, b = sectors([[0, 0, 350, 300, 50]]), sectors([[0, 9, 10, 200, 20]])
    before = [column.copy() for sector in (a, b) for column in (sector.xy, sector.heading, sector.fov, sector.reach)]
    shared_area(a, b)
    after = [column for sector in (a, b) for column in (sector.xy, sector.heading, sector.fov, sector.reach)]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


@given(rows)
def test_the_least_circle_holds_the_sector(row):
    """Its corners, its apex and its arc; and no smaller circle would (three of them, or two across, lie on it)."""
    x, y, heading, fov, reach = row
    (centre,), (radius,) = sectors(row).circles()
    arc = unit(np.linspace(heading - fov / 2, heading + fov / 2, 721)) * reach + [x, y]
    off = np.hypot(*(np.vstack([arc, [x, y]]) - centre).T)
    assert off.max() <= radius * (1 + 1e-9)
    farthest = np.vstack([arc, [x, y]])[off > radius * (1 - 1e-4)] - centre
    angles = np.sort(np.arctan2(farthest[:, 1], farthest[:, 0]))
    assert np.diff(np.append(angles, angles[0] + 2 * np.pi)).max() <= np.pi + 0.03  # they leave no half of it empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xy": [[0, np.nan]]}, "Every xy of a sector must be finite; got nan"),
        ({"heading": np.inf}, "Every heading of a sector must be finite"),
        ({"heading": [1, 2]}, "one number or one for each of the 1 sectors"),
        ({"heading": "north"}, "must be one number"),
        ({"fov": 0}, r"Every fov of a sector must be in \(0, 360\] degrees; got 0"),
        ({"fov": 360.1}, r"\(0, 360\] degrees; got 360.1"),
        ({"fov": np.nan}, "fov"),
        ({"reach": 0}, "Every reach of a sector must be more than 0 metres; got 0"),
        ({"reach": -1}, "more than 0 metres"),
        ({"reach": np.inf}, "Every reach of a sector must be finite"),
    ],
)
def test_what_is_no_sector_is_refused(change, message):
    with pytest.raises(InvalidInputError, match=message):
        Sectors.of(**({"xy": [[0, 0]], "heading": 0, "fov": 90, "reach": 50} | change))


@pytest.mark.parametrize("xy", [np.zeros((2, 3)), np.zeros((4, 1)), [1.0, 2.0, 3.0], [["a", "b"]]])
def test_positions_of_another_shape_are_refused(xy):
    with pytest.raises(InvalidInputError):
        Sectors.of(xy, heading=0, fov=90, reach=50)


def test_wrong_questions_are_refused():
    a, two = sectors([0, 0, 0, 90, 50]), sectors([[0, 0, 0, 90, 50]] * 2)
    with pytest.raises(InvalidInputError, match="row by row; got 1 and 2"):
        shared_area(a, two)
    with pytest.raises(InvalidInputError, match="row by row"):
        overlap(a, two)
    with pytest.raises(InvalidInputError, match="must be 'iou' or 'fraction'; got 'IoU'"):
        overlap(a, a, measure="IoU")
