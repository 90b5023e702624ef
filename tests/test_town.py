"""The town: laws of its truth, held against slow independent computations where there is one."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covis.errors import InvalidInputError, MissingExtraError, UnknownNameError
from covis.geometry import invert, transform
from covis.sectors import Sectors, overlap
from covis.surfaces import View, reprojection_overlap
from covis.town import (
    ADE20K,
    CONDITIONS,
    Camera,
    Condition,
    Label,
    Ride,
    Sight,
    TownSettings,
    Visit,
    build_town,
    draw_sheet,
    look,
    photograph,
    routes,
    seen_pixels,
    seen_share,
    shots,
    surface_overlap,
    surface_overlaps,
    visit_town,
)
from covis.town.patterns import band, edge, pulse
from covis.town.plans import plan_town
from covis.town.polygons import area, inset, inside, rounded, triangulated
from covis.town.rays import Caster

SMALL = TownSettings(blocks=(2, 1))
SIZE = (96, 128)


@pytest.fixture(scope="module")
def town():
    return build_town(SMALL, seed=5)


@pytest.fixture(scope="module")
def ride(town):
    return shots(town, Ride(0, Visit(), "day", 24, spacing=4.0), size=SIZE)


def nearest_hit(corners, origin, way):
    """Depth along one ray by Möller and Trumbore over every triangle, in float64: infinite where nothing is met."""
    a, b, c = corners.astype(np.float64).transpose(1, 0, 2)
    ab, ac = b - a, c - a
    p = np.cross(way, ac)
    det = (ab * p).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = origin - a
        u = (s * p).sum(1) / det
        q = np.cross(s, ab)
        v = (q @ way) / det
        t = (ac * q).sum(1) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-9) & (np.abs(det) > 1e-14)
    return t[hit].min() if hit.any() else np.inf


def test_depth_is_that_of_a_plain_loop_over_all_triangles(town, ride):
    camera = ride[3].camera
    picture = photograph(town, camera)
    corners = visit_town(town, Visit()).mesh.corners
    rays = camera.rays().reshape(*SIZE, 3)
    rng = np.random.default_rng(1)
    for row, column in zip(rng.integers(0, SIZE[0], 40), rng.integers(0, SIZE[1], 40), strict=True):
        exact = nearest_hit(corners, camera.at, rays[row, column])
        assert abs(float(picture.depth[row, column]) - (exact if np.isfinite(exact) else 0)) < 1e-4


def test_the_same_seed_gives_the_same_town_and_picture(town, ride):
    again = build_town(SMALL, seed=5)
    assert np.array_equal(again.mesh.corners, town.mesh.corners)
    assert again.mesh.patches.tobytes() == town.mesh.patches.tobytes()

    def hashed(place):
        taken = shots(place, Ride(2, Visit(number=1), "rain", 2), size=SIZE)
        pictures = [photograph(place, shot.camera, visit=Visit(number=1), condition="rain", seed=3) for shot in taken]
        return hashlib.sha256(b"".join(part.tobytes() for p in pictures for part in (p.rgb, p.depth, p.classes, p.instances))).hexdigest()

    assert hashed(again) == hashed(town)
    assert not np.array_equal(build_town(SMALL, seed=6).mesh.corners[:1000], town.mesh.corners[:1000])


def test_geometry_does_not_change_with_the_condition(town, ride):
    seen = [photograph(town, ride[5].camera, condition=name, seed=number) for number, name in enumerate(CONDITIONS)]
    for picture in seen[1:]:
        assert np.array_equal(picture.depth, seen[0].depth)
        assert np.array_equal(picture.classes, seen[0].classes)
        assert np.array_equal(picture.instances, seen[0].instances)
        assert np.abs(picture.rgb.astype(int) - seen[0].rgb).mean() > 3


def test_what_always_stands_is_part_of_every_visit(town):
    count = len(town.mesh.corners)
    for visit in (Visit(), Visit(number=4, year=2, leaves=False)):
        mesh = visit_town(town, visit).mesh
        assert np.array_equal(mesh.corners[:count], town.mesh.corners)
        assert mesh.patches[: len(town.mesh.patches)].tobytes() == town.mesh.patches.tobytes()
    bare, leafy = (visit_town(town, Visit(leaves=leaves)).mesh for leaves in (False, True))
    assert len(leafy.corners) > len(bare.corners)
    first, second = (visit_town(town, Visit(number=number, leaves=False, people=0)).mesh for number in (0, 1))
    assert not np.array_equal(first.corners[count:][:500], second.corners[count:][:500])


def test_years_change_shops_and_bring_works(town):
    old, new = (visit_town(town, Visit(year=year)).mesh for year in (0, 1))
    assert (old.tables["facades"]["shop_salt"] != new.tables["facades"]["shop_salt"]).any()
    assert (old.tables["facades"]["bay"] == new.tables["facades"]["bay"]).all()
    fences = [(mesh.patches["label"] == Label.FENCE).sum() for mesh in (old, new)]
    assert fences[1] > fences[0]


def test_depth_reprojects_onto_the_depth_of_the_other_view(town, ride):
    a, b = ride[4].camera, ride[6].camera
    first, second = photograph(town, a), photograph(town, b)
    seen = seen_pixels(town, Sight(a, Visit()), Sight(b, Visit()))
    assert seen.mean() > 0.1
    local = transform(invert(b.pose), transform(a.pose, a.rays().reshape(*SIZE, 3)[seen] @ a.pose[:3, :3] * first.depth[seen][:, None]))
    fx, fy, cx, cy = b.intrinsics
    u, v = local[:, 0] / local[:, 2] * fx + cx, local[:, 1] / local[:, 2] * fy + cy
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    there = np.stack(
        [second.depth[np.clip(row + i, 0, SIZE[0] - 1), np.clip(column + j, 0, SIZE[1] - 1)] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    )
    # What B's pixels around the point see encloses its depth, up to the last hundredth: a pixel is not a point.
    inside_ = (local[:, 2] > there.min(0) * 0.99 - 0.02) & (local[:, 2] < there.max(0) * 1.01 + 0.02)
    assert inside_.mean() > 0.97


def test_overlap_from_depth_agrees_with_the_exact_one(town):
    size = (240, 320)
    queries = shots(town, Ride(1, Visit(), "day", 5, spacing=8.0, lateral=-0.5), size=size)
    database = shots(town, Ride(0, Visit(), "day", 5, spacing=9.0), size=size)
    sights = [[Sight(shot.camera, Visit()) for shot in side] for side in (queries, database)]
    views = [
        [View(photograph(town, shot.camera).depth, shot.camera.pose, shot.camera.intrinsics) for shot in side]
        for side in (queries, database)
    ]
    exact = surface_overlaps(town, *sights, step=6)
    estimated = reprojection_overlap(*views, reach=30, step=6, relative_tolerance=0.03).toarray()
    shared = (exact > 0) | (estimated > 0)
    assert shared.sum() > 10
    assert np.abs(exact - estimated)[shared].mean() < 0.02
    assert np.corrcoef(exact[shared], estimated[shared])[0, 1] > 0.995


def test_view_sectors_and_surfaces_correlate_on_one_street(town):
    queries = shots(town, Ride(1, Visit(cars=0, people=0), "day", 8, spacing=9.0, lateral=-0.6, fov=70), size=SIZE)
    database = shots(town, Ride(0, Visit(cars=0, people=0), "day", 24, spacing=3.0), size=SIZE)
    sights = [[Sight(shot.camera, shot.ride.visit) for shot in side] for side in (queries, database)]
    exact = surface_overlaps(town, *sights, step=8)

    def sectors(side):
        xy = np.array([shot.camera.at[:2] for shot in side])
        return Sectors.of(xy, heading=[s.camera.heading for s in side], fov=[s.camera.fov for s in side], reach=30.0)

    a, b = sectors(queries), sectors(database)
    rows, columns = (grid.ravel() for grid in np.meshgrid(np.arange(8), np.arange(24), indexing="ij"))
    iou = overlap(a.take(rows), b.take(columns)).reshape(8, 24)
    assert np.corrcoef(exact.ravel(), iou.ravel())[0, 1] > 0.93
    assert np.corrcoef(exact[exact > 0], iou[exact > 0])[0, 1] > 0.85


def test_overlap_is_symmetric_one_with_itself_and_none_far_away(town, ride):
    here, ahead = Sight(ride[0].camera, Visit()), Sight(ride[2].camera, Visit())
    assert surface_overlap(town, here, here) == pytest.approx(1.0)
    assert surface_overlap(town, here, ahead) == surface_overlap(town, ahead, here)
    assert 0 < surface_overlap(town, here, ahead) < 1
    turned = look(tuple(ride[0].camera.at), heading=(ride[0].camera.heading + 180) % 360, size=SIZE)
    assert surface_overlap(town, here, Sight(turned, Visit())) == 0.0
    assert surface_overlaps(town, [here], [Sight(ride[-1].camera, Visit())])[0, 0] == 0.0


def test_cars_that_are_gone_are_not_seen(town, ride):
    full, empty = Visit(cars=1.0, people=0), Visit(cars=0.0, people=0)
    camera = next(shot.camera for shot in ride if (photograph(town, shot.camera, visit=full).classes == Label.CAR).mean() > 0.05)
    assert seen_share(town, Sight(camera, full), Sight(camera, full)) == pytest.approx(1.0)
    cars = photograph(town, camera, visit=full).classes == Label.CAR
    seen = seen_pixels(town, Sight(camera, full), Sight(camera, empty), reach=50)
    assert seen[cars].mean() < 0.05  # what is left are touching points, as where a wheel meets the road
    assert seen[photograph(town, camera, visit=full).classes == Label.BUILDING].mean() > 0.5


def test_classes_instances_and_sky_fit_together(town, ride):
    for shot in ride[::6]:
        picture = photograph(town, shot.camera)
        known = {int(label) for label in Label}
        assert set(np.unique(picture.classes).tolist()) <= known
        assert np.array_equal(picture.depth == 0, picture.classes == Label.SKY)
        assert (picture.instances[np.isin(picture.classes, [Label.SKY, Label.ROAD])] == 0).all()
        assert (picture.instances[np.isin(picture.classes, [Label.CAR, Label.PERSON, Label.BUS])] > 0).all()
        cars = picture.classes == Label.CAR
        for number in np.unique(picture.instances[cars]):
            assert (picture.classes[picture.instances == number] == Label.CAR).all()
        assert (picture.classes[-4:] != Label.SKY).all()
        assert picture.depth[picture.depth > 0].min() > 0.4  # no camera stands in anything


def test_a_town_holds_what_a_town_has(town):
    mesh = visit_town(build_town(TownSettings(blocks=(3, 2)), seed=2), Visit(year=1)).mesh
    found = {Label(int(label)) for label in np.unique(mesh.patches["label"])}
    wanted = [
        "ROAD",
        "SIDEWALK",
        "BUILDING",
        "WALL",
        "FENCE",
        "POLE",
        "TRAFFIC_LIGHT",
        "TRAFFIC_SIGN",
        "VEGETATION",
        "TERRAIN",
        "PERSON",
        "CAR",
    ]
    assert {Label[name] for name in wanted} <= found
    assert set(ADE20K) == set(Label) - {Label.TRAIN, Label.VOID}
    styles = town.mesh.tables["facades"]
    assert len(np.unique(styles["bay"])) < len(styles)  # houses repeat


def test_triangles_are_sound(town):
    mesh = visit_town(town, Visit()).mesh
    assert np.isfinite(mesh.corners).all()
    assert np.array_equal(np.round(mesh.corners.astype(np.float64), 4).astype(np.float32), mesh.corners)
    assert mesh.patch.min() == 0
    assert mesh.patch.max() == len(mesh.patches) - 1


@pytest.mark.parametrize("view", ["forward", "backward", "sideways"])
def test_rides_look_where_they_should(town, view):
    taken = shots(town, Ride(3, Visit(), "day", 30, spacing=3.0, view=view, yaw=0, sway=0), size=SIZE)
    assert len(taken) == 30
    for before, after in itertools.pairwise(taken):
        if before.leg != after.leg:
            continue
        step = after.camera.at - before.camera.at
        assert 1.5 < np.linalg.norm(step) < 4.5
        went = np.degrees(np.arctan2(step[0], step[1]))
        turned = (before.camera.heading - went + 180) % 360 - 180
        assert abs((turned - {"forward": 0, "backward": 180, "sideways": 90}[view] + 180) % 360 - 180) < 25
        assert after.frame == before.frame + 1


def test_a_reversed_ride_passes_the_same_places_the_other_way(town):
    rides = [Ride(1, Visit(), "day", 12, reverse=way, sway=0) for way in (False, True)]
    there, back = (np.array([shot.camera.at[:2] for shot in shots(town, one, size=SIZE)]) for one in rides)
    away = np.linalg.norm(there[:, None] - back[None], axis=2)
    assert away.min(0).max() < 14  # the other side of an avenue
    assert (there[-1] - there[0]) @ (back[-1] - back[0]) < 0


def test_poses_repeat_to_the_last_bit_and_are_rigid(town):
    one, two = ([shot.camera.pose for shot in shots(town, Ride(7, Visit(), "day", 9), size=SIZE)] for _ in range(2))
    assert np.array_equal(one, two)
    assert np.array_equal(np.round(one, 9), one)
    assert np.abs(np.linalg.det(np.array(one)[:, :3, :3]) - 1).max() < 1e-8


def test_routes_take_every_street_once():
    plan = plan_town((4, 3), (62, 92), np.random.default_rng(3))
    gone = [pair for way in routes(plan) for pair in itertools.pairwise(way)]
    assert sorted(sorted(pair) for pair in gone) == sorted(sorted((street.start, street.stop)) for street in plan.streets)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), columns=st.integers(1, 5), rows=st.integers(1, 4))
def test_plans_are_sound(seed, columns, rows):
    plan = plan_town((columns, rows), (60.0, 90.0), np.random.default_rng(seed))
    assert plan.degree()[[street.start for street in plan.streets]].min() >= 2
    for block in plan.blocks:
        kerb = rounded(block.kerb, 4.0)
        triangles = triangulated(kerb)
        assert area(block.kerb) >= area(block.front) > 0
        assert sum(area(kerb[triangle]) for triangle in triangles) == pytest.approx(area(kerb))
        assert min(area(kerb[triangle]) for triangle in triangles) > -1e-6
    middles = np.array([(plan.nodes[street.start] + plan.nodes[street.stop]) / 2 for street in plan.streets])
    for block in plan.blocks:
        assert not inside(middles, block.kerb).any()  # no side-walk lies on a road


def test_inset_moves_each_side_by_its_distance():
    shape = np.array([[0.0, 0], [30, -4], [36, 22], [3, 25]])
    moved = inset(shape, [1.0, 2.0, 3.0, 0.5])
    for side, distance in enumerate((1.0, 2.0, 3.0, 0.5)):
        a, b = shape[side], shape[(side + 1) % 4]
        way = (b - a) / np.linalg.norm(b - a)
        for corner in (moved[side], moved[(side + 1) % 4]):
            assert (corner - a) @ np.array([-way[1], way[0]]) == pytest.approx(distance)


@settings(max_examples=60, deadline=None)
@given(x=st.floats(-5, 5), width=st.floats(0.01, 3), duty=st.floats(0.05, 0.95))
def test_patterns_are_the_mean_over_the_pixel(x, width, duty):
    samples = x + (np.arange(4000) + 0.5) / 4000 * width - width / 2
    on = np.abs((samples % 1) - 0.5) < duty / 2
    assert pulse(np.array([x]), np.array([width]), duty)[0] == pytest.approx(on.mean(), abs=2e-3)
    between = (samples > -0.4) & (samples < 0.7)
    assert band(np.array([x]), np.array([width]), low=-0.4, high=0.7)[0] == pytest.approx(between.mean(), abs=2e-3)
    assert edge(np.array([x]), np.array([width]))[0] == pytest.approx((samples > 0).mean(), abs=2e-3)


def test_supersampling_changes_colours_alone(town, ride):
    one, four = (photograph(town, ride[1].camera, samples=samples) for samples in (1, 2))
    assert np.array_equal(one.depth, four.depth)
    assert np.array_equal(one.classes, four.classes)
    assert 0 < np.abs(one.rgb.astype(int) - four.rgb).mean() < 25


def test_night_is_dark_and_snow_is_bright_below(town, ride):
    day, night, snow = (photograph(town, ride[2].camera, condition=name).rgb.astype(float) for name in ("overcast", "night", "snow"))
    assert night.mean() < 0.75 * day.mean()
    assert snow[-20:].mean() > 1.2 * day[-20:].mean()


def test_rays_and_fov_of_a_camera():
    camera = look((1.0, 2.0, 3.0), heading=30.0, pitch=4.0, roll=2.0, fov=66.0, size=(30, 40))
    assert camera.heading == pytest.approx(30.0)
    assert camera.fov == pytest.approx(66.0)
    rays = camera.rays()
    assert rays @ camera.pose[:3, 2] == pytest.approx(np.ones(1200))
    assert camera.rays(3).reshape(30, 3, 40, 3, 3).mean((1, 3)).reshape(-1, 3) == pytest.approx(rays)


def test_the_sheet_has_a_tile_for_every_condition(town):
    sheet = draw_sheet(town, size=(24, 32), samples=1)
    rows = -(-(len(CONDITIONS) + 4) // 4)
    assert sheet.shape == (6 + rows * (24 + 18 + 6), 6 + 4 * (32 + 6), 3)
    assert sheet.std() > 20


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "embreex", None)
    with pytest.raises(MissingExtraError, match=r"covis\[world\]"):
        Caster(np.zeros((1, 3, 3), np.float32))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TownSettings(blocks=(0, 2)), "1 to 12 blocks"),
        (lambda: TownSettings(block=(20.0, 30.0)), "50 to 200 m"),
        (lambda: TownSettings(districts=("gothic",)), "old, brick"),
        (lambda: build_town(seed=-1), "seed"),
        (lambda: Visit(number=-1), "number and year"),
        (lambda: Visit(cars=1.5), "cars"),
        (lambda: Ride(0, Visit(), "day", 3, view="up"), "forward"),
        (lambda: Ride(0, Visit(), "day", 0), "frames"),
        (lambda: Ride(0, Visit(), "day", 3, lateral=2.0), "lateral"),
        (lambda: Condition(clouds=2.0), "clouds"),
        (lambda: Condition(haze=0.0), "haze"),
        (lambda: Condition(falling="frogs"), "falling"),
        (lambda: Camera(np.eye(4) * 2, (1.0, 1.0, 0.0, 0.0), (2, 2)), "pose"),
        (lambda: look((0.0, 0.0, 1.0), heading=0, size=(0, 3)), "size"),
    ],
)
def test_bad_settings_are_refused_in_words(make, words):
    with pytest.raises(InvalidInputError, match=words):
        make()


def test_bad_requests_are_refused_in_words(town, ride):
    camera = ride[0].camera
    with pytest.raises(UnknownNameError, match="night"):
        photograph(town, camera, condition="nigth")
    with pytest.raises(InvalidInputError, match="samples"):
        photograph(town, camera, samples=0)
    with pytest.raises(InvalidInputError, match="nearest < reach"):
        surface_overlap(town, Sight(camera, Visit()), Sight(camera, Visit()), reach=0.05)


def test_conditions_can_be_made_up(town, ride):
    dim = dataclasses.replace(CONDITIONS["day"], sun=(0.0, 0.0, 0.0), quality=50)
    assert photograph(town, ride[0].camera, condition=dim).rgb.shape == (*SIZE, 3)
