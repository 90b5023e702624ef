"""Latitude and longitude to metres and back: against known places, a series of its own, and the borders of zones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.coordinates import WIDEST, common_zone, to_degrees, to_metres, utm_zones
from covis.errors import InvalidInputError

PLACES = [  # latitude, longitude, zone, east, north: the `utm` package's own tests, pyproj's documentation, Wikipedia (CN Tower)
    (50.77535, 6.08389, 32632, 294409, 5628898),  # Aachen
    (40.71435, -74.00597, 32618, 583960, 4507523),  # New York
    (-41.28646, 174.77624, 32760, 313784, 5427057),  # Wellington
    (-33.92487, 18.42406, 32734, 261878, 6243186),  # Cape Town
    (-32.89018, -68.84405, 32719, 514586, 6360877),  # Mendoza
    (64.83778, -147.71639, 32606, 466013, 7190568),  # Fairbanks
    (56.79680, -5.00601, 32630, 377486, 6296562),  # Ben Nevis
    (51.2, 7.5, 32632, 395201, 5673135),
    (34.36116666, -120.108, 32610, 765976, 3805993),
    (43.642567, -79.387139, 32617, 630084, 4833438),
    (0.0, 3.0, 32631, 500000, 0),
]


def series(latitude, longitude, zone):
    """Krüger's series to the sixth order, term by term: east and north in a zone of WGS84."""
    a, f, scale = 6378137.0, 1 / 298.257223563, 0.9996
    n = f / (2 - f)
    radius = a / (1 + n) * (1 + n**2 / 4 + n**4 / 64 + n**6 / 256)
    alpha = [
        n / 2 - 2 / 3 * n**2 + 5 / 16 * n**3 + 41 / 180 * n**4 - 127 / 288 * n**5 + 7891 / 37800 * n**6,
        13 / 48 * n**2 - 3 / 5 * n**3 + 557 / 1440 * n**4 + 281 / 630 * n**5 - 1983433 / 1935360 * n**6,
        61 / 240 * n**3 - 103 / 140 * n**4 + 15061 / 26880 * n**5 + 167603 / 181440 * n**6,
        49561 / 161280 * n**4 - 179 / 168 * n**5 + 6601661 / 7257600 * n**6,
        34729 / 80640 * n**5 - 3418889 / 1995840 * n**6,
        212378941 / 319334400 * n**6,
    ]
    phi, away = np.deg2rad(latitude), np.deg2rad((longitude - (6 * (zone % 100) - 183) + 180) % 360 - 180)
    e = np.sqrt(f * (2 - f))
    tau = np.sinh(np.arctanh(np.sin(phi)) - e * np.arctanh(e * np.sin(phi)))
    xi, eta = np.arctan2(tau, np.cos(away)), np.arcsinh(np.sin(away) / np.hypot(tau, np.cos(away)))
    north = xi + sum(c * np.sin(2 * k * xi) * np.cosh(2 * k * eta) for k, c in enumerate(alpha, start=1))
    east = eta + sum(c * np.cos(2 * k * xi) * np.sinh(2 * k * eta) for k, c in enumerate(alpha, start=1))
    return 500_000 + scale * radius * east, scale * radius * north + (10_000_000 if zone > 32700 else 0)


def slow_zone(latitude, longitude):
    """The rules, one place at a time."""
    zone = min(60, int((longitude + 180) // 6) + 1)
    if 56 <= latitude < 64 and zone == 31 and longitude >= 3:
        zone = 32  # south-western Norway
    if latitude >= 72 and 0 <= longitude < 42:
        zone = 31 if longitude < 9 else 33 if longitude < 21 else 35 if longitude < 33 else 37  # Svalbard
    return (32600 if latitude >= 0 else 32700) + zone


latitudes = st.floats(-80, 84) | st.sampled_from([-80.0, 0.0, -0.0, 56.0, 63.999, 64.0, 71.999, 72.0, 84.0])
longitudes = st.floats(-180, 180) | st.sampled_from([-180.0, -174.0, 0.0, 2.999, 3.0, 6.0, 9.0, 12.0, 21.0, 33.0, 42.0, 180.0])


@pytest.mark.parametrize(("latitude", "longitude", "zone", "east", "north"), PLACES)
def test_known_places(latitude, longitude, zone, east, north):
    assert utm_zones([latitude], [longitude]).tolist() == [zone]
    np.testing.assert_allclose(to_metres([latitude], [longitude], crs=f"EPSG:{zone}"), [[east, north]], atol=1.0)


@given(latitudes, longitudes)
def test_zones_follow_the_rules(latitude, longitude):
    assert utm_zones([latitude], [longitude]).tolist() == [slow_zone(latitude, longitude)]


@pytest.mark.parametrize(
    ("latitude", "longitude", "zone"),
    [
        (60.39, 5.32, 32632),  # Bergen: 31 by its longitude
        (55.99, 5.32, 32631),
        (64.0, 5.32, 32631),
        (59.9, 2.99, 32631),
        (56.0, 3.0, 32632),
        (60.0, 11.99, 32632),
        (60.0, 12.0, 32633),
        (72.0, 0.0, 32631),
        (72.0, 9.0, 32633),
        (72.0, 21.0, 32635),
        (78.22, 15.65, 32633),  # Longyearbyen
        (78.93, 11.93, 32633),  # Ny-Ålesund: 32 by its longitude
        (78.2, 8.99, 32631),
        (80.1, 20.99, 32633),
        (80.1, 32.99, 32635),
        (80.1, 33.0, 32637),
        (80.1, 42.0, 32638),
        (71.99, 11.93, 32632),
        (-78.9, 11.93, 32732),
        (-60.0, 5.32, 32731),
        (12.0, -180.0, 32601),
        (12.0, 180.0, 32660),
        (-17.7, 179.99, 32760),
        (-0.0001, 179.99, 32760),
        (84.0, -0.0001, 32630),
        (-80.0, 0.0, 32731),
    ],
)
def test_zones_at_their_borders(latitude, longitude, zone):
    assert utm_zones([latitude], [longitude]).tolist() == [zone]


def test_zones_of_many_places_at_once():
    random = np.random.default_rng(1)
    latitude, longitude = random.uniform(-80, 84, 3000), random.uniform(-180, 180, 3000)
    found = utm_zones(latitude, longitude)
    assert found.dtype == np.int64
    assert found.tolist() == [slow_zone(*place) for place in zip(latitude, longitude, strict=True)]
    assert utm_zones([], []).shape == (0,)
    assert utm_zones(48.0, 11.0).tolist() == [32632]  # one place without brackets


@given(latitudes, st.integers(1, 60), st.floats(-3 - WIDEST, 3 + WIDEST))
def test_metres_are_the_series_and_come_back(latitude, zone, away):
    """Within 1 mm, as far from the zone's meridian as a set may stretch it."""
    code = (32600 if latitude >= 0 else 32700) + zone
    longitude = (6 * zone - 183 + away + 180) % 360 - 180
    metres = to_metres([latitude], [longitude], crs=f"EPSG:{code}")
    assert metres.shape == (1, 2)
    np.testing.assert_allclose(metres[0], series(latitude, longitude, code), atol=1e-3)
    ((back, along),) = to_degrees(metres, crs=f"EPSG:{code}")
    metre = 1 / 111_000
    assert abs(back - latitude) < 1e-3 * metre
    assert abs((along - longitude + 180) % 360 - 180) * np.cos(np.deg2rad(latitude)) < 1e-3 * metre


def test_north_is_up_and_east_is_right_and_a_metre_is_a_metre():
    for crs, latitude, longitude in (("EPSG:32633", 55.7, 12.6), ("EPSG:32756", -33.9, 151.2), ("EPSG:32719", -32.9, -68.8)):
        here, north, east = to_metres([latitude, latitude + 1e-3, latitude], [longitude, longitude, longitude + 1e-3], crs=crs)
        assert (north - here)[1] == pytest.approx(111.2, rel=0.005)
        assert (east - here)[0] == pytest.approx(111.3 * np.cos(np.deg2rad(latitude)), rel=0.005)


def test_a_zone_stretched_as_far_as_allowed_is_half_a_percent_long():
    """What the constant's remark says, at the equator where it is worst."""
    here, there = to_metres([0.0, 0.0], [3 + 5.999, 3 + 6.0], crs="EPSG:32631")
    assert (there - here)[0] / (6378137 * np.deg2rad(0.001)) - 1 == pytest.approx(0.005, abs=0.001)
    here, there = to_metres([0.0, 0.0], [5.999, 6.0], crs="EPSG:32631")
    assert (there - here)[0] / (6378137 * np.deg2rad(0.001)) - 1 == pytest.approx(0.001, abs=0.0002)


# ------------------------------------------------------------------------------------------------------------- sets that span zones


def test_a_set_in_one_zone_gets_it_without_a_remark():
    assert common_zone([55.6, 55.7], [12.5, 12.6]) == ("EPSG:32633", None)
    assert common_zone([-33.9], [18.4]) == ("EPSG:32734", None)
    assert common_zone([60.4, 58.9], [5.3, 11.9]) == ("EPSG:32632", None)  # all of Norway's wide zone
    assert common_zone([80, 80], [9, 20.9]) == ("EPSG:32633", None)


@pytest.mark.parametrize(
    ("latitude", "longitude", "crs", "others", "moved"),
    [
        ([55.6, 55.6, 55.7], [11.9, 11.8, 12.1], "EPSG:32632", "EPSG:32633", "1 of 3"),
        ([55.6, 55.6, 55.7], [11.9, 12.2, 12.1], "EPSG:32633", "EPSG:32632", "1 of 3"),
        ([0.5, -0.5, 0.4], [3, 3, 3], "EPSG:32631", "EPSG:32731", "1 of 3"),  # a walk across the equator
        ([-16.8, -16.8, -16.7], [179.9, -179.9, 179.8], "EPSG:32760", "EPSG:32701", "1 of 3"),  # Fiji, across the antimeridian
        ([-16.8, -16.8, -16.7], [179.9, -179.9, -179.8], "EPSG:32701", "EPSG:32760", "1 of 3"),
        ([50, 50, 50], [0.1, 5.9, 8.9], "EPSG:32631", "EPSG:32632", "1 of 3"),
        ([50, 50, 50, 50], [3, 4, 8.9, -2.9], "EPSG:32631", "EPSG:32630, EPSG:32632", "2 of 4"),
        ([60.4, 60.4, 55.9], [5.3, 5.31, 5.3], "EPSG:32632", "EPSG:32631", "1 of 3"),
    ],
)
def test_a_set_across_a_border_is_handled_and_said(latitude, longitude, crs, others, moved):
    found, remark = common_zone(latitude, longitude)
    assert found == crs
    assert remark == f"{moved} positions lie in another UTM zone ({others}); metres are those of {crs}, where most lie."
    metres = to_metres(latitude, longitude, crs=found)
    degrees = to_degrees(metres, crs=found)
    np.testing.assert_allclose(degrees[:, 0], latitude, atol=1e-8)
    np.testing.assert_allclose((degrees[:, 1] - longitude + 180) % 360, 180, atol=1e-8)
    # One frame: neighbours across the border are as far apart as on the ground.
    ground = np.hypot((np.diff(longitude) + 180) % 360 - 180, 0) * 111_320 * np.cos(np.deg2rad(np.mean(latitude)))
    assert np.hypot(*np.diff(metres, axis=0).T)[-1] == pytest.approx(np.hypot(ground[-1], np.diff(latitude)[-1] * 110_900), rel=0.02)


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [
        ([50, 50, 50], [3, 4, 9.1]),  # just too far
        ([50, 50, 50], [3, 4, -3.1]),
        ([48.1, 40.7], [11.6, -74.0]),
        ([40, -40, 40], [3, 3, 3]),
        ([1.1, -1.1], [3, 3]),
        ([78.2, 71.9], [8.9, 12.1]),
        ([10, 10], [0, 180]),
    ],
)
def test_a_set_that_no_frame_holds_is_refused_in_words(latitude, longitude):
    with pytest.raises(InvalidInputError, match=r"these span EPSG:32\d+ and EPSG:32\d+.*Read the parts one by one"):
        common_zone(latitude, longitude)


@given(st.lists(st.tuples(st.floats(-80, 84), st.floats(-180, 180)), min_size=1, max_size=6))
def test_whatever_the_set_it_is_held_within_the_limit_or_refused(places):
    latitude, longitude = np.array(places).T
    try:
        crs, remark = common_zone(latitude, longitude)
    except InvalidInputError:
        assert len(set(utm_zones(latitude, longitude).tolist())) > 1
        return
    zones = utm_zones(latitude, longitude)
    counts = {zone: int((zones == zone).sum()) for zone in zones.tolist()}
    assert counts[int(crs.removeprefix("EPSG:"))] == max(counts.values())
    assert (remark is None) == (len(counts) == 1)
    away = (longitude - (6 * (int(crs[-2:])) - 183) + 180) % 360 - 180
    assert np.abs(away).max() <= 6 + 1e-9
    np.testing.assert_allclose(to_degrees(to_metres(latitude, longitude, crs=crs), crs=crs)[:, 0], latitude, atol=1e-8)


# ------------------------------------------------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("latitude", "longitude", "found"),
    [
        ([10, 91], [0, 0], "row 1 has 91.0, 0.0"),
        ([-80.1], [0], "row 0 has -80.1"),
        ([84.1], [0], "row 0 has 84.1"),
        ([0], [180.1], "row 0 has 0.0, 180.1"),
        ([0], [-181], "row 0"),
        ([1, np.nan], [0, 0], "row 1 has nan"),
        ([1, 1, 1], [0, 0, np.inf], "row 2 has 1.0, inf"),
        ([-122.4], [37.8], r"Are the two exchanged"),
        ([557000000], [126000000], "do they need a scale"),
    ],
)
def test_places_off_the_globe_are_named(latitude, longitude, found):
    for ask in (utm_zones, common_zone, lambda *place: to_metres(*place, crs="EPSG:32631")):
        with pytest.raises(InvalidInputError, match=found):
            ask(latitude, longitude)


def test_no_place_has_no_zone():
    with pytest.raises(InvalidInputError, match="got none"):
        common_zone([], [])
    assert to_metres([], [], crs="EPSG:32631").shape == to_degrees(np.zeros((0, 2)), crs="EPSG:32631").shape == (0, 2)


@pytest.mark.parametrize("crs", ["EPSG:999999", "nonsense", "", "32633x"])
def test_an_unknown_frame_is_named(crs):
    for ask in (lambda: to_metres([1.0], [1.0], crs=crs), lambda: to_degrees([[1.0, 1.0]], crs=crs)):
        with pytest.raises(InvalidInputError, match="must be one that pyproj knows") as refused:
            ask()
        assert repr(crs) in str(refused.value)


def test_metres_without_a_frame_have_no_place_on_the_globe():
    with pytest.raises(InvalidInputError, match=r"these images say none \(crs\)"):
        to_degrees([[1.0, 2.0]], crs=None)


@pytest.mark.parametrize("xy", [[[500_000, 0], [1e9, 1e9]], [[500_000, 0], [np.nan, 0]], [[500_000, 0], [np.inf, 0]]])
def test_metres_outside_the_frame_are_named(xy):
    with pytest.raises(InvalidInputError, match="within the frame EPSG:32631; row 1 does not"):
        to_degrees(xy, crs="EPSG:32631")


def test_a_place_on_the_far_side_of_the_globe_is_outside_the_frame():
    with pytest.raises(InvalidInputError, match="within the frame EPSG:32631; row 1 does not"):
        to_metres([1.0, 1.0], [3.0, 93.0], crs="EPSG:32631")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: to_metres([1.0, 2.0], [3.0], crs="EPSG:32631"),
        lambda: utm_zones([1.0, 2.0], [3.0]),
        lambda: utm_zones(["north"], [3.0]),
        lambda: to_degrees([1.0, 2.0, 3.0], crs="EPSG:32631"),
    ],
)
def test_columns_that_do_not_fit_are_refused(ask):
    with pytest.raises(InvalidInputError):
        ask()


@pytest.mark.parametrize(("crs", "name"), [("EPSG:4326", "WGS 84"), ("EPSG:2263", "New York Long Island")])
def test_a_frame_that_is_not_in_metres_is_refused(crs, name):
    for ask in (lambda: to_metres([40.7], [-74.0], crs=crs), lambda: to_degrees([[1.0, 1.0]], crs=crs)):
        with pytest.raises(InvalidInputError, match=f"must be in metres.*{crs}.*{name}"):
            ask()
    assert to_metres([50.0], [9.0], crs="EPSG:25832")[0, 0] == pytest.approx(500_000, abs=1)  # another frame than WGS84's zones
