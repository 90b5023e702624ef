"""The rules that grade pairs: by view, by distance, and the forms of the rule by surface; on a real room and real street poses."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from covis.datasets.seven_scenes import read_7scenes
from covis.errors import CovisWarning, InvalidInputError
from covis.geometry import ground_heading
from covis.images import Images
from covis.labelling import LABEL_RULES, fitting_rule, label_by_distance, label_by_surface, label_by_view
from covis.labels import Labels
from covis.rasters import read_depth, write_depth

UTM = np.array([500_000.0, 5_000_000.0])
ROOTS = itertools.count()


def images(xy, heading=None, *, root=None, **columns):
    """Images in a folder of their own, so that 0.jpg here is not 0.jpg there."""
    xy = np.asarray(xy, dtype=float).reshape(-1, 2)
    return Images(root or f"set-{next(ROOTS)}", [f"{row}.jpg" for row in range(len(xy))], xy=xy, heading=heading, **columns)


def camera(*, east=0.0, north=0.0, up=1.5, right, down, ahead):
    """A camera-to-world pose from where its axes point in the world (x east, y north, z up)."""
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, down, ahead])
    pose[:3, 3] = east, north, up
    return pose


def looking(heading, *, pitch=0.0, roll=0.0, **where):
    """A camera that looks along a heading, degrees clockwise from north, `pitch` degrees above the horizon."""
    angle, rise = np.deg2rad([heading, pitch])
    ahead = np.array([np.sin(angle) * np.cos(rise), np.cos(angle) * np.cos(rise), np.sin(rise)])
    right = np.array([np.cos(angle), -np.sin(angle), 0.0])
    turn = Rotation.from_rotvec(np.deg2rad(roll) * ahead)
    return camera(right=turn.apply(right), down=turn.apply(np.cross(ahead, right)), ahead=ahead, **where)


def values(labels):
    return labels.matrix.toarray()


# ----------------------------------------------------------------------------------------------------------------------- by view


def test_parameters_are_recorded():
    here, there = images([[0, 0]], [0.0]), images([[0, 10], [0, 60]], [0.0, 180.0])
    labels = label_by_view(here, there)
    assert isinstance(labels, Labels)
    assert (labels.rule, labels.query_names, labels.database_names) == ("view", here.names, there.names)
    assert dict(labels.parameters) == {
        "fov": 90.0,
        "reach": 50.0,
        "overlap": "iou",
        "max_heading_difference": None,
        "panoramas": "exclude",
        "without_heading": "stop",
        "left_out": {"queries": 0, "database": 0},
    }
    np.testing.assert_allclose(values(labels), [[0.499860, 0.676053]], atol=5e-7)
    np.testing.assert_allclose(values(label_by_view(here, there, overlap="fraction")), [[0.666542, 0.806720]], atol=5e-7)
    gated = label_by_view(here, there, max_heading_difference=90)
    assert gated.matrix.nnz == 1
    assert gated.parameters["max_heading_difference"] == 90
    assert LABEL_RULES["view"] is label_by_view


def test_an_argument_fills_only_what_the_table_lacks():
    plain, wide = images([[0, 0]], [0.0]), images([[0, 10]], [0.0], fov=[120.0], reach=[20.0])
    labels = label_by_view(plain, wide, fov=60, reach=30)
    by_hand = label_by_view(images([[0, 0]], [0.0], fov=[60.0], reach=[30.0]), wide, fov=1, reach=1)
    assert values(labels) == values(by_hand) > 0
    assert (labels.parameters["fov"], labels.parameters["reach"]) == (60, 30)
    assert (by_hand.parameters["fov"], by_hand.parameters["reach"]) == ("per image", "per image")
    half = label_by_view(images([[0, 0]], [0.0], fov=[60.0]), wide, fov=1, reach=30)
    assert (half.parameters["fov"], half.parameters["reach"]) == ("per image", 30)
    assert values(half) == values(labels)


def test_the_fraction_is_of_the_querys_sector():
    wide, narrow = images([[0, 0]], [0.0], fov=[90.0]), images([[0, 0]], [0.0], fov=[30.0])
    assert values(label_by_view(wide, narrow, overlap="fraction"))[0, 0] == pytest.approx(1 / 3, abs=1e-12)
    assert values(label_by_view(narrow, wide, overlap="fraction"))[0, 0] == 1.0


def test_the_heading_of_a_pose_is_its_optical_axis_on_the_ground():
    """Cameras by hand: to the north, to the east level, to the south-west steeply down, and one upside down."""
    low = np.sqrt(0.5)
    poses = np.array(
        [
            camera(right=[1, 0, 0], down=[0, 0, -1], ahead=[0, 1, 0]),
            camera(right=[0, -1, 0], down=[0, 0, -1], ahead=[1, 0, 0]),
            camera(right=[-low, low, 0], down=[-0.5, -0.5, -low], ahead=[-0.5, -0.5, -low]) @ np.diag([1, 1, 1, 1]),
            camera(right=[-1, 0, 0], down=[0, 0, 1], ahead=[0, 1, 0]),
        ]
    )
    poses[2, :3, 1] = np.cross(poses[2, :3, 2], poses[2, :3, 0])
    np.testing.assert_allclose(ground_heading(poses), [0, 90, 225, 0], atol=1e-12)


@given(st.floats(0, 359.99), st.floats(-89.9, 89.9), st.floats(-180, 180))
def test_pitch_and_roll_do_not_change_the_heading(heading, pitch, roll):
    found = ground_heading(looking(heading, pitch=pitch, roll=roll)[None])[0]
    assert 0 <= found < 360
    assert abs((found - heading + 180) % 360 - 180) < 1e-9


def test_images_with_poses_alone_are_labelled_like_those_with_position_and_heading():
    random = np.random.default_rng(1)
    xy, heading = random.uniform(-30, 30, (12, 2)), random.uniform(0, 360, 12)
    poses = np.array([looking(h, pitch=p, east=x, north=y) for (x, y), h, p in zip(xy, heading, random.uniform(-40, 40, 12), strict=True)])
    by_pose = Images("r", [f"{row}.jpg" for row in range(12)], pose=poses)
    by_table = images(xy, heading)
    np.testing.assert_allclose(values(label_by_view(by_pose, by_pose)), values(label_by_view(by_table, by_table)), atol=1e-9)
    np.testing.assert_allclose(values(label_by_distance(by_pose, by_pose)), values(label_by_distance(by_table, by_table)), atol=1e-9)
    # What the table says comes before the pose.
    other = images(xy + 5, heading, pose=poses)
    np.testing.assert_allclose(values(label_by_view(other, other)), values(label_by_view(by_table, by_table)), atol=1e-9)


def test_a_camera_that_looks_straight_down_has_no_heading():
    down = Images("r", ["a.jpg", "b.jpg"], pose=np.array([looking(0, pitch=-90), looking(0)]))
    assert np.isnan(ground_heading(down.pose)).tolist() == [True, False]
    with pytest.raises(InvalidInputError, match=r"1 of 2 images in r have no heading \(a.jpg first\)"):
        label_by_view(down, down)
    assert label_by_view(down, down, without_heading="exclude").summary().excluded == 4 - 1 + 1  # row, column, and b with itself


def test_poses_of_another_world_are_pointed_out():
    """A pose in a world whose y axis points down has a level camera's optical axis in the plane that is taken for the ground's."""
    lying = Images("lying", ["a.jpg", "b.jpg"], pose=np.array([np.eye(4), camera(right=[0, 0, 1], down=[0, 1, 0], ahead=[-1, 0, 0])]))
    with pytest.warns(CovisWarning, match="cameras in lying have headings by their poses alone.*downward axis"):
        label_by_view(lying, lying, without_heading="exclude")


def with_unknown(*, flags=None, heading=(0.0, np.nan)):
    return images([[0, 0], [0, 0]], list(heading), root="queries", flags=flags or {})


def test_images_without_heading_stop_are_excluded_or_see_all_round():
    queries, database = with_unknown(), images([[0, 10], [0, 20], [0, -10]], [0.0, 180.0, 180.0])
    with pytest.raises(InvalidInputError, match=r"1 of 2 images in queries have no heading \(1.jpg first\).*without_heading='exclude'"):
        label_by_view(queries, database)
    excluded = label_by_view(queries, database, without_heading="exclude")
    assert excluded.excluded.toarray().tolist() == [[False] * 3, [True] * 3]
    assert excluded.parameters["left_out"] == {"queries": 1, "database": 0}
    assert values(excluded)[1].tolist() == [0, 0, 0]
    round_about = label_by_view(queries, database, without_heading="all-round")
    assert round_about.excluded.nnz == 0
    np.testing.assert_allclose(values(round_about)[1], by_definition(database, fov=360), atol=1e-12)
    np.testing.assert_array_equal(values(round_about)[0], values(excluded)[0])


def by_definition(database, *, fov):
    """What an image at the origin that looks north shares with each: from a table that says so."""
    return values(label_by_view(images([[0, 0]], [0.0], fov=[float(fov)], root="o"), database))[0]


def test_no_heading_at_all():
    bare = images([[0, 0], [0, 30]], root="bare")
    with pytest.raises(InvalidInputError, match=r"bare must have headings or poses .* Label by distance"):
        label_by_view(bare, bare)
    labels = label_by_view(bare, bare, without_heading="all-round")
    share = 2 * np.arccos(0.3) - 0.6 * np.sqrt(1 - 0.09)  # two discs of 50 m, 30 m apart
    assert values(labels)[0, 1] == pytest.approx(share / (2 * np.pi - share), abs=1e-12)
    assert label_by_view(bare, bare, without_heading="exclude").summary().pairs == 0


def test_panoramas_stop_are_excluded_or_see_all_round():
    queries = with_unknown(heading=(0.0, 77.0), flags={"panorama": np.array([False, True])})
    database = images([[0, 10], [0, 20], [0, -10]], [0.0, 180.0, 180.0], flags={"panorama": [False, False, True]})
    with pytest.raises(InvalidInputError, match=r"1 of 2 images in queries are panoramas \(1.jpg first\)"):
        label_by_view(queries, database, panoramas="stop")
    excluded = label_by_view(queries, database)
    assert excluded.excluded.toarray().tolist() == [[False, False, True], [True] * 3]
    assert excluded.parameters["left_out"] == {"queries": 1, "database": 1}
    summary = excluded.summary()
    assert (summary.pairs, summary.excluded) == (2, 4)
    round_about = label_by_view(queries, database, panoramas="all-round")
    assert round_about.excluded.nnz == 0
    np.testing.assert_allclose(values(round_about)[1, :2], by_definition(database, fov=360)[:2], atol=1e-12)
    both = values(round_about)[1, 2]
    assert both == pytest.approx((1 - 0.1272) / (1 + 0.1272), abs=2e-3)  # two discs, 10 m apart
    unknown = replace(queries, heading=[0.0, np.nan])  # a panorama needs no heading
    np.testing.assert_allclose(values(label_by_view(unknown, database, panoramas="all-round")), values(round_about), atol=1e-12)


@pytest.mark.parametrize("policy", ["panoramas", "without_heading"])
def test_all_round_views_overlap_by_position_alone_under_a_heading_gate_too(policy):
    flags = {"panorama": np.array([policy == "panoramas"])}
    around = images([[0, 0]], [np.nan], flags=flags, root="q")
    database = images([[0, 10]] * 3, [0.0, 120.0, 180.0])
    free = label_by_view(around, database, **{policy: "all-round"})
    gated = label_by_view(around, database, **{policy: "all-round"}, max_heading_difference=90)
    assert free.matrix.nnz == 3
    np.testing.assert_array_equal(values(gated), values(free))


def test_an_image_with_itself_is_never_a_pair():
    scene = images([[0, 0], [0, 10], [0, 200]], [0.0, 0.0, 0.0])
    for labels in (label_by_view(scene, scene), label_by_distance(scene, scene)):
        assert np.array_equal(labels.excluded.toarray(), np.eye(3, dtype=bool))
        assert (labels.matrix.diagonal() == 0).all()
        assert np.array_equal(values(labels), values(labels).T)
    again = replace(scene)  # equal files in another object
    assert np.array_equal(label_by_view(scene, again).excluded.toarray(), np.eye(3, dtype=bool))
    elsewhere = replace(scene, root="other")  # the same names are other files
    assert label_by_view(scene, elsewhere).excluded.nnz == 0
    assert label_by_view(scene, elsewhere).matrix.diagonal().tolist() == [1, 1, 1]
    part = scene.select([2, 0])
    assert label_by_view(part, scene).excluded.toarray().tolist() == [[False, False, True], [True, False, False]]


@pytest.mark.parametrize("rule", [label_by_view, label_by_distance])
def test_a_side_may_be_empty_and_no_block_changes_a_number(rule):
    random = np.random.default_rng(3)
    some = images(random.uniform(0, 200, (40, 2)), random.uniform(0, 360, 40))
    none = some.select([])
    for queries, database in ((none, some), (some, none), (none, none)):
        assert rule(queries, database).matrix.shape == (len(queries), len(database))
    whole = rule(some, some)
    assert whole.matrix.nnz > 50
    for block in (1, 10, 10**9):
        assert (rule(some, some, block=block).matrix != whole.matrix).nnz == 0


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        (label_by_view, {"fov": 0}, "Every fov"),
        (label_by_view, {"fov": 361}, "Every fov"),
        (label_by_view, {"reach": -1}, "Every reach"),
        (label_by_view, {"reach": np.nan}, "Every reach"),
        (label_by_view, {"overlap": "database-fraction"}, "'iou' or 'fraction'.*got 'database-fraction'"),
        (label_by_view, {"max_heading_difference": 181}, r"heading gate must be in \[0, 180\]"),
        (label_by_view, {"panoramas": "skip"}, "panoramas must be 'stop', 'all-round' or 'exclude'; got 'skip'"),
        (label_by_view, {"without_heading": "skip"}, "without_heading must be"),
        (label_by_view, {"block": 0}, "block"),
        (label_by_distance, {"half": 0}, "half must be > 0 metres"),
        (label_by_distance, {"half": np.inf}, "half must be > 0 metres"),
        (label_by_distance, {"cut": 0}, "cut in"),
        (label_by_distance, {"cut": 0.6}, "cut in"),
        (label_by_distance, {"block": 0}, "block >= 1"),
        (label_by_distance, {"decay": "gaussian"}, "'linear', 'exponential', 'step'; got 'gaussian'"),
    ],
)
def test_parameters_out_of_range_are_refused(rule, change, message):
    some = images([[0, 0], [0, 1]], [0.0, 1.0])
    for side in (some, some.select([])):
        with pytest.raises(InvalidInputError, match=message):
            rule(some, side, **change)


@pytest.mark.parametrize("rule", [label_by_view, label_by_distance])
def test_positions_are_needed(rule):
    some, bare = images([[0, 0]], [0.0]), Images("bare", ["a.jpg"], heading=[0.0])
    for queries, database in ((some, bare), (bare, some)):
        with pytest.raises(InvalidInputError, match="The images in bare must have xy"):
            rule(queries, database)


def test_the_rule_that_fits():
    """By the data that all sides have."""
    posed, headed, bare = Images("r", ["a.jpg"], pose=[np.eye(4)]), images([[0, 0]], [0.0]), images([[0, 0]])
    assert fitting_rule([headed, posed]) == "view"
    assert fitting_rule([headed, bare]) == "distance"
    assert fitting_rule([posed, bare]) == "distance"
    with pytest.raises(InvalidInputError, match="those in nowhere have none"):
        fitting_rule([headed, Images("nowhere", ["a.jpg"], heading=[0.0])])


def test_the_rule_that_fits_depth_images():
    whole = Images("r", ["a.jpg"], depth=["a.png"], pose=[np.eye(4)], intrinsics=[[5.0, 5, 2, 2]])
    posed, headed, bare = Images("r", ["a.jpg"], pose=[np.eye(4)]), images([[0, 0]], [0.0]), images([[0, 0]])
    assert fitting_rule([whole, whole]) == "surface"
    assert [fitting_rule([whole, other]) for other in (posed, headed, bare)] == ["view", "view", "distance"]


# ------------------------------------------------------------------------------------------------------------------- by distance


def test_distance_decays_as_documented():
    here, there = images([[0, 0]]), images([[0, 0], [15, 20], [0, 49.9], [50, 0], [0, 500 / 3]])
    linear = label_by_distance(here, there)
    np.testing.assert_allclose(values(linear), [[1, 0.5, 0.002, 0, 0]], atol=1e-12)
    assert (linear.rule, dict(linear.parameters)) == ("distance", {"half": 25.0, "decay": "linear"})
    assert linear.matrix.nnz == 3
    exponential = label_by_distance(here, there, decay="exponential", half=25, cut=0.02)
    np.testing.assert_allclose(values(exponential), [[1, 0.5, 2 ** (-49.9 / 25), 0.25, 0]], atol=1e-12)
    assert dict(exponential.parameters) == {"half": 25, "decay": "exponential", "cut": 0.02}
    assert label_by_distance(here, there, decay="exponential", cut=0.005).matrix.nnz == 5
    assert LABEL_RULES["distance"] is label_by_distance


@given(st.integers(0, 10_000), st.sampled_from(["linear", "exponential"]), st.floats(1, 100), st.floats(0.01, 0.5))
def test_distance_labels_are_those_of_all_pairs(seed, decay, half, cut):
    random = np.random.default_rng(seed)
    queries, database = (images(UTM + random.uniform(0, 150, (n, 2))) for n in (9, 14))
    metres = np.hypot(*(queries.xy[:, None] - database.xy[None]).transpose(2, 0, 1))
    expected = np.maximum(0, 1 - metres / (2 * half)) if decay == "linear" else np.exp2(-metres / half)
    if decay == "exponential":
        expected[expected < cut] = 0
    np.testing.assert_allclose(values(label_by_distance(queries, database, half=half, decay=decay, cut=cut)), expected, atol=1e-9)


def test_positives_by_distance_are_the_fields_radius():
    """At most 25 m apart: IoU of one half means just that; 25 m exactly counts."""
    random = np.random.default_rng(2)
    queries, database = (images(UTM + np.round(random.uniform(0, 300, (80, 2)))) for _ in range(2))
    metres = np.hypot(*(queries.xy[:, None] - database.xy[None]).transpose(2, 0, 1))
    assert (metres == 25).any()
    for decay in ("linear", "exponential"):
        positives = label_by_distance(queries, database, decay=decay).positives(0.5)
        np.testing.assert_array_equal(positives.toarray(), metres <= 25)


# -------------------------------------------------------------------------------------------------------------------- by surface


@pytest.mark.parametrize(("method", "step"), [("reprojection", 1), ("voxels", 1)])
def test_both_fractions_go_with_the_iou(room, method, step):
    """fa = s / a and fb = s / b, so that the IoU s / (a + b - s) is 1 / (1/fa + 1/fb - 1)."""
    (scene,) = read_7scenes(room(frames=5))
    by = {
        overlap: label_by_surface(scene.queries, scene.database, method=method, step=step, overlap=overlap)
        for overlap in ("iou", "fraction", "database-fraction")
    }
    assert [labels.parameters["overlap"] for labels in by.values()] == list(by)
    iou, mine, theirs = (values(labels) for labels in by.values())
    shared = iou > 0
    assert shared.sum() > 3
    assert len(np.unique(iou.round(6))) > 3
    np.testing.assert_array_equal((mine > 0) & (theirs > 0), shared)
    np.testing.assert_allclose(iou[shared], 1 / (1 / mine[shared] + 1 / theirs[shared] - 1), rtol=1e-12)
    assert (np.maximum(mine, theirs) <= 1).all()
    assert (iou <= np.minimum(mine, theirs) + 1e-15).all()
    swapped = label_by_surface(scene.database, scene.queries, method=method, step=step, overlap="fraction")
    np.testing.assert_array_equal(theirs, values(swapped).T)
    with pytest.raises(InvalidInputError, match="'iou', 'fraction' or 'database-fraction'; got 'both'"):
        label_by_surface(scene.queries, scene.database, method=method, overlap="both")


def test_a_small_view_within_a_large_one(room, tmp_path):
    """A frame cropped to its middle sees a quarter of what the whole frame sees, and nothing else."""
    (scene,) = read_7scenes(room(frames=1))
    whole = scene.queries
    depth = read_depth(whole.root / whole.depth[0])
    write_depth(tmp_path / "crop.png", depth[3:9, 4:12])
    intrinsics = whole.intrinsics - np.array([0, 0, 4, 3])
    crop = Images(tmp_path, ["crop.jpg"], depth=["crop.png"], pose=whole.pose, intrinsics=intrinsics)
    found = {
        overlap: values(label_by_surface(whole, crop, step=1, overlap=overlap))[0, 0]
        for overlap in ("iou", "fraction", "database-fraction")
    }
    assert found == pytest.approx({"iou": 0.25, "fraction": 0.25, "database-fraction": 1.0}, abs=1e-6)


@pytest.mark.slow
def test_both_forms_rank_the_kitchens_pairs_alike(covis_data, capsys):
    """All 250 x 249 pairs: >= 0.95 with voxels of 5 to 15 cm; over the pairs that overlap alone it is less, and printed."""
    train, test = (read_7scenes(covis_data / "7scenes" / "redkitchen", split=split)[0] for split in ("train", "test"))
    names = [f"{image.names[row]}" for image in (train.database, test.queries) for row in range(len(image))]
    every = Images(
        train.database.root,
        names,
        depth=[*train.database.depth, *test.queries.depth],
        pose=np.concatenate([train.database.pose, test.queries.pose]),
        intrinsics=np.concatenate([train.database.intrinsics, test.queries.intrinsics]),
    )
    off = ~np.eye(len(every), dtype=bool)
    reprojected = values(label_by_surface(every, every))[off]
    for voxel in (0.05, 0.1, 0.15):
        voxels = values(label_by_surface(every, every, method="voxels", voxel=voxel))[off]
        either = (voxels > 0) | (reprojected > 0)
        overall, overlapping = spearmanr(voxels, reprojected).statistic, spearmanr(voxels[either], reprojected[either]).statistic
        said = f"kitchen, {100 * voxel:.0f} cm: {overall:.4f} over all pairs, {overlapping:.4f} over the {either.mean():.0%} that overlap"
        with capsys.disabled():
            print(f"\n  {said}")  # noqa: T201 - both figures are wanted, and only one is bounded closely
        assert overall >= 0.95
        assert overlapping >= 0.94


# ------------------------------------------------------------------------------------------------------------------ real streets


@pytest.fixture(scope="module")
def pittsburgh(covis_data):
    """Queries and database of Pitts30k's test set; the yaw index of a view stands for its heading (good for speed, not for truth)."""
    folder = covis_data / "metadata" / "pitts30k"
    with np.load(folder / "pitts30k_test.npz") as table:
        metres = table["utmQ"], table["utmDb"]
    sides = []
    for xy, file in zip(metres, ("query", "index"), strict=True):
        names = (folder / f"pitts30k_imageNames_{file}.txt").read_text().split()
        yaw = np.array([int(re.search(r"yaw(\d+)", name)[1]) for name in names])
        sides.append(Images(folder, names, xy=xy, heading=(yaw - 1) * 30.0))
    return sides


def test_pittsburgh_has_the_pairs_counted_once(pittsburgh):
    queries, database = (side.select(np.arange(0, len(side), 7)) for side in pittsburgh)
    labels = label_by_view(queries, database)
    summary = labels.summary()
    assert (summary.queries, summary.database) == (974, 1429)
    assert (summary.positive, summary.soft, summary.without_positive) == (3513, 57817, 43)
    again = label_by_view(queries, database, block=1000)
    assert (labels.matrix != again.matrix).nnz == 0


@pytest.mark.slow
def test_all_of_pittsburgh_has_the_pairs_counted_once(pittsburgh):
    summary = label_by_view(*pittsburgh).summary()
    assert (summary.queries, summary.database) == (6816, 10_000)
    assert (summary.positive, summary.soft) == (173_006, 3_023_166 - 173_006)


def test_pittsburghs_labels_are_shapelys(pittsburgh):
    queries, database = (side.select(np.arange(0, len(side), 7)) for side in pittsburgh)
    matrix = label_by_view(queries, database, overlap="fraction").matrix.tocoo()
    chosen = np.random.default_rng(1).choice(matrix.nnz, 300, replace=False)
    pairs = [(queries, matrix.row[chosen]), (database, matrix.col[chosen])]
    a, b = ([sector(side.xy[row], side.heading[row]) for row in rows] for side, rows in pairs)
    shared = shapely.area(shapely.intersection(a, b)) / (np.pi * 50**2 / 4)
    np.testing.assert_allclose(matrix.data[chosen], shared, atol=2e-5)
    # And what is absent shares nothing.
    dense = label_by_view(queries, database).matrix.toarray()
    rows, columns = np.nonzero(dense[:40, :300] == 0)
    a, b = (np.array([sector(side.xy[row], side.heading[row]) for row in range(n)]) for side, n in ((queries, 40), (database, 300)))
    assert shapely.area(shapely.intersection(a[rows], b[columns])).max() < 1e-6


def sector(xy, heading, points=400):
    angle = np.deg2rad(heading + np.linspace(-45, 45, points))
    return shapely.Polygon([xy, *(xy + 50 * np.column_stack([np.sin(angle), np.cos(angle)]))])


@pytest.mark.parametrize("seed", range(3))
def test_the_binary_label_of_msls_is_25_m_and_40_degrees(seed):
    rng = np.random.default_rng(seed)
    sides = [
        Images("r", [f"{side}{i}.jpg" for i in range(40)], xy=rng.integers(0, 12, (40, 2)) * 5.0, heading=rng.integers(0, 36, 40) * 10.0)
        for side in "qd"
    ]
    labels = label_by_distance(*sides, half=25.0, decay="step", max_heading_difference=40.0)
    apart = np.linalg.norm(sides[0].xy[:, None] - sides[1].xy[None], axis=2)
    turn = np.abs((sides[0].heading[:, None] - sides[1].heading[None] + 180) % 360 - 180)
    assert np.array_equal(labels.matrix.toarray(), (apart <= 25) & (turn <= 40))
    assert labels.parameters == {"half": 25.0, "decay": "step", "max_heading_difference": 40.0}


def test_headings_are_needed_where_they_are_compared():
    images = Images("r", ["a.jpg", "b.jpg"], xy=np.zeros((2, 2)), heading=[10.0, np.nan])
    with pytest.raises(InvalidInputError, match=r"b\.jpg has none"):
        label_by_distance(images, images, max_heading_difference=40)
    with pytest.raises(InvalidInputError, match=r"\[0, 180\]; got 270"):
        label_by_distance(images, images, max_heading_difference=270)


def test_a_panorama_that_is_left_out_needs_no_heading():
    images = Images("r", ["a.jpg", "b.jpg"], xy=np.zeros((2, 2)), heading=[10.0, np.nan], flags={"panorama": [False, True]})
    assert label_by_distance(images, images, max_heading_difference=40, panoramas="exclude").excluded.nnz == 4
    with pytest.raises(InvalidInputError, match=r"b\.jpg has none"):
        label_by_distance(images, images, max_heading_difference=40)


def test_panoramas_can_be_left_out_of_labels_by_distance():
    images = Images("r", ["a.jpg", "b.jpg", "c.jpg"], xy=np.zeros((3, 2)), flags={"panorama": [False, True, False]})
    kept, left = (label_by_distance(images, images, panoramas=how) for how in ("keep", "exclude"))
    assert kept.excluded.nnz == 3
    assert left.excluded.toarray().tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    assert left.matrix.toarray()[0, 2] == 1
