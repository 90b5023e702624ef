"""Surface overlap: against slow plain loops, by laws, by cases worked out by hand, and on a real room."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from covis.errors import InvalidInputError
from covis.rasters import read_depth
from covis.surfaces import View, reprojection_overlap, voxel_overlap

FORMS = [voxel_overlap, reprojection_overlap]
CAMERA = (60.0, 60.0, 31.5, 23.5)


def posed(x=0.0, y=0.0, z=0.0, *, turn=0.0):
    """A camera at (x, y, z), turned about the vertical by degrees."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", turn, degrees=True).as_matrix()
    pose[:3, 3] = x, y, z
    return pose


def room(pose, *, size=(48, 64), intrinsics=CAMERA, pillar=True):
    """Depth map of a box room 6 x 4 x 8 m with a pillar in it, by exact ray casting."""
    v, u = np.indices(size).astype(float)
    fx, fy, cx, cy = intrinsics
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(size)], axis=-1) @ pose[:3, :3].T
    start = pose[:3, 3]
    with np.errstate(divide="ignore"):
        walls = np.where(rays > 0, (np.array([3, 2, 4]) - start) / rays, (np.array([-3, -2, -4]) - start) / rays).min(axis=-1)
        low, high = ((np.array([-0.4, -2, 1.0]) - start) / rays, (np.array([0.4, 2, 1.5]) - start) / rays)
    enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
    hit = pillar & (enter < leave) & (enter > 0)
    return View(np.where(hit, enter, walls).astype(np.float32), pose, np.array(intrinsics))


def rooms():
    rng = np.random.default_rng(3)
    views = [room(posed(*rng.uniform(-1.0, 1.0, 3) * (1, 0.3, 0.7), turn=rng.uniform(-90, 90))) for _ in range(9)]
    narrow = room(posed(0.5, 0, -1, turn=10), size=(30, 36), intrinsics=(40.0, 35.0, 17.3, 14.6))
    holes = views[0].depth * (rng.random(views[0].depth.shape) < 0.8)
    return [*views, narrow, View(holes, views[0].pose, views[0].intrinsics)]


def slow_fraction(a, b, *, nearest=0.1, reach=6.0, tolerance=0.05, relative_tolerance=0.01, step=8):
    """One pair, one pixel at a time."""
    total = agreed = 0.0
    fx, fy, cx, cy = a.intrinsics
    gx, gy, dx, dy = b.intrinsics
    height, width = a.depth.shape
    for v in range(step // 2, height, step):
        for u in range(step // 2, width, step):
            z = float(a.depth[v, u])
            if not nearest <= z <= reach:
                continue
            total += z * z
            world = a.pose @ np.array([(u - cx) * z / fx, (v - cy) * z / fy, z, 1.0])
            x, y, depth, _ = np.linalg.solve(b.pose, world)
            if depth <= 0:
                continue
            column, row = int(np.floor(gx * x / depth + dx + 0.5)), int(np.floor(gy * y / depth + dy + 0.5))
            if 0 <= row < b.depth.shape[0] and 0 <= column < b.depth.shape[1]:
                seen = float(b.depth[row, column])
                if nearest <= seen <= reach and abs(depth - seen) < tolerance + relative_tolerance * seen:
                    agreed += z * z
    return agreed / total


def slow_reprojection(a, b, **settings):
    fa, fb = slow_fraction(a, b, **settings), slow_fraction(b, a, **settings)
    return 1 / (1 / fa + 1 / fb - 1) if fa and fb else 0.0


def slow_voxels(view, *, voxel=0.1, nearest=0.1, reach=6.0, step=2):
    fx, fy, cx, cy = view.intrinsics
    found = set()
    for v in range(step // 2, view.depth.shape[0], step):
        for u in range(step // 2, view.depth.shape[1], step):
            z = float(view.depth[v, u])
            if nearest <= z <= reach:
                world = view.pose @ np.array([(u - cx) * z / fx, (v - cy) * z / fy, z, 1.0])
                found.add(tuple(np.floor(world[:3] / voxel).astype(int)))
    return found


def test_reprojection_is_the_slow_loop():
    views = rooms()
    queries, database = views[:4], views[4:]
    for settings in ({"step": 4}, {"step": 3, "reach": 3.0, "nearest": 1.0, "tolerance": 0.02, "relative_tolerance": 0.0}):
        expected = [[slow_reprojection(a, b, **settings) for b in database] for a in queries]
        # One pixel that float32 rounds to the other side weighs less than 1 in 100 of a view's samples.
        np.testing.assert_allclose(reprojection_overlap(queries, database, **settings).toarray(), expected, atol=0.01)


def test_voxels_are_the_slow_sets():
    views = rooms()
    sets = [slow_voxels(view, voxel=0.25) for view in views]
    expected = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    np.testing.assert_array_equal(voxel_overlap(views, views, voxel=0.25).toarray(), expected)
    np.testing.assert_array_equal(voxel_overlap(views[:3], views[3:], voxel=0.25).toarray(), np.array(expected)[:3, 3:])


@pytest.mark.parametrize("overlap", FORMS)
def test_one_set_is_symmetric_in_range_and_one_with_itself(overlap):
    views = rooms()
    found = overlap(views, views).toarray()
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1.0)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert np.count_nonzero(found) > len(views)


@pytest.mark.parametrize("overlap", FORMS)
def test_the_sides_may_be_swapped_and_split(overlap):
    views = rooms()
    whole = overlap(views, views)
    assert whole.dtype == np.float64
    assert whole.has_canonical_format
    part = overlap(views[:4], views[3:])
    np.testing.assert_array_equal(part.toarray(), whole.toarray()[:4, 3:])
    np.testing.assert_array_equal(overlap(views[3:], views[:4]).toarray(), part.toarray().T)
    assert part.toarray()[3, 0] == 1.0  # the same view on both sides of two different lists


def test_overlap_is_at_most_either_fraction():
    views = rooms()
    found = reprojection_overlap(views, views, step=4).toarray()
    for i, a in enumerate(views[:4]):
        for j, b in enumerate(views):
            assert found[i, j] <= min(slow_fraction(a, b, step=4), slow_fraction(b, a, step=4)) + 0.01


def test_one_rigid_motion_of_the_world_changes_nothing():
    views = rooms()
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", [20, 130, -70], degrees=True).as_matrix()
    motion[:3, 3] = 500_000, 5_000_000, 30  # coordinates as large as UTM's
    moved = [View(view.depth, motion @ view.pose, view.intrinsics) for view in views]
    still = reprojection_overlap(views, views, step=2).toarray()
    np.testing.assert_allclose(reprojection_overlap(moved, moved, step=2).toarray(), still, atol=0.005)


def test_the_voxel_grid_matters_little():
    views = rooms()

    def moved(angles, shift):
        motion = np.eye(4)
        motion[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        motion[:3, 3] = shift
        some = [View(view.depth, motion @ view.pose, view.intrinsics) for view in views]
        return voxel_overlap(some, some, voxel=0.25, step=1).toarray()

    first = moved([20, 130, -70], [0.1, 0.2, 0.3])
    # A shift by whole voxels changes nothing (but for points on an edge); a turn changes what shares a voxel.
    np.testing.assert_allclose(moved([20, 130, -70], [8.1, -15.8, 32.3]), first, atol=0.01)
    assert np.abs(moved([-50, 10, 35], [0, 0, 0]) - first).max() < 0.1


@pytest.mark.parametrize("overlap", FORMS)
def test_views_far_apart_or_back_to_back_share_nothing(overlap):
    here = room(posed())
    away = View(here.depth, posed(500.0), here.intrinsics)
    behind = room(posed(turn=180))
    found = overlap([here], [away, behind])
    assert found.nnz == 0
    assert found.shape == (1, 2)


def test_an_occluder_lowers_the_overlap():
    a, b = room(posed(-0.8), pillar=False), room(posed(0.8), pillar=False)
    pillars = room(posed(-0.8)), room(posed(0.8))
    for overlap in FORMS:
        assert overlap([pillars[0]], [pillars[1]]).sum() < overlap([a], [b]).sum()
    # Two sides of one thin wall: the same pixels, depths apart, nothing shared.
    near = View(np.full((48, 64), 2.0, np.float32), posed(), np.array(CAMERA))
    far = View(np.full((48, 64), 3.0, np.float32), posed(), np.array(CAMERA))
    assert reprojection_overlap([near], [far]).nnz == 0


def plane(x, *, depth=3.0, size=(120, 160)):
    return View(np.full(size, depth, np.float32), posed(x), np.array([100.0, 100.0, 79.5, 59.5]))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 1 / 7), (0.5, 1 / 3), (0.75, 0.6), (1.0, 1.0)])
def test_two_cameras_before_a_plane(share, expected):
    """Footprint 160 * 3 / 100 = 4.8 m; shifted sideways, they share `share` of it: psi = share / (2 - share)."""
    a, b = plane(0.0), plane(4.8 * (1 - share))
    assert reprojection_overlap([a], [b], step=2).toarray()[0, 0] == pytest.approx(expected, abs=0.01)
    assert voxel_overlap([a], [b], voxel=0.1).toarray()[0, 0] == pytest.approx(expected, abs=0.03)


def test_a_closer_camera_sees_a_quarter_of_the_plane():
    """Twice as near: its footprint is a quarter of the other's; fa = 1/4, fb = 1, psi = 1/4."""
    a, b = plane(0.0, depth=4.0), View(np.full((120, 160), 2, np.float32), posed(z=2.0), plane(0).intrinsics)
    assert slow_fraction(a, b, step=2) == pytest.approx(0.25, abs=0.01)
    assert reprojection_overlap([a], [b], step=2).toarray()[0, 0] == pytest.approx(0.25, abs=0.01)


def test_pixels_count_by_the_surface_they_cover():
    """Left half 1 m away, right half 3 m; the other camera agrees on the right: 9/10 of the weight, 1/2 of the pixels."""
    depth = np.full((40, 40), 1.0, np.float32)
    depth[:, 20:] = 3.0
    other = depth.copy()
    other[:, :20] = 0.0
    a, b = (View(one, posed(), np.array([40.0, 40.0, 19.5, 19.5])) for one in (depth, other))
    assert reprojection_overlap([a], [b], step=2).toarray()[0, 0] == pytest.approx(0.9, abs=1e-6)


def test_no_block_size_and_no_lazy_sequence_changes_a_number():
    views = rooms()
    whole = reprojection_overlap(views, views).toarray()

    class Lazy:
        """Makes each view when it is asked for, as a reader of files would."""

        def __len__(self):
            return len(views)

        def __getitem__(self, row):
            return View(views[row].depth.copy(), views[row].pose, views[row].intrinsics)

    lazy = Lazy()
    np.testing.assert_array_equal(reprojection_overlap(lazy, lazy, block=1).toarray(), whole)
    np.testing.assert_array_equal(reprojection_overlap(lazy, views, block=100).toarray(), whole)
    np.testing.assert_array_equal(voxel_overlap(lazy, views).toarray(), voxel_overlap(views, views).toarray())


@pytest.mark.parametrize("overlap", FORMS)
def test_no_views_give_an_empty_matrix_and_arguments_are_left_alone(overlap):
    view = room(posed())
    assert overlap([], [view]).shape == (0, 1)
    assert overlap([view, view], []).shape == (2, 0)
    before = view.depth.copy()
    overlap([view], [view], reach=2.0)
    np.testing.assert_array_equal(view.depth, before)


@pytest.mark.parametrize("overlap", FORMS)
def test_a_view_without_a_depth_in_range_is_named(overlap):
    good, empty = room(posed()), View(np.zeros((4, 4), np.float32), posed(), np.array(CAMERA))
    with pytest.raises(InvalidInputError, match=r"queries\[1\] has none"):
        overlap([good, empty], [good])
    with pytest.raises(InvalidInputError, match=r"database\[0\] has none"):
        overlap([good], [empty])
    one = np.zeros((9, 9), np.float32)
    one[0, 0] = 1
    with pytest.raises(InvalidInputError, match="Lower the step"):
        overlap([View(one, posed(), np.array(CAMERA))], [good], step=8)


@pytest.mark.parametrize(
    ("overlap", "settings", "message"),
    [
        (voxel_overlap, {"voxel": 0}, "voxel must be above 0"),
        (voxel_overlap, {"voxel": np.nan}, "voxel must be above 0"),
        (reprojection_overlap, {"tolerance": 0}, "tolerance must be above 0"),
        (reprojection_overlap, {"relative_tolerance": -0.1}, "relative_tolerance must be at least 0"),
        (reprojection_overlap, {"block": 0}, "block must be above 0"),
        *((overlap, {"step": 0}, "step must be") for overlap in FORMS),
        *((overlap, {"reach": 0.05}, "nearest < reach") for overlap in FORMS),
        *((overlap, {"nearest": -1}, "0 <= nearest") for overlap in FORMS),
    ],
)
def test_settings_out_of_range_are_refused(overlap, settings, message):
    view = room(posed())
    with pytest.raises(InvalidInputError, match=message):
        overlap([view], [view], **settings)


def test_voxels_too_many_for_their_keys_are_refused():
    view = room(posed())
    with pytest.raises(InvalidInputError, match=r"within 1048.58 m .* queries\[0\] does not"):
        voxel_overlap([View(view.depth, posed(2000.0), view.intrinsics)], [view], voxel=0.001)


@pytest.mark.parametrize(
    ("depth", "pose", "intrinsics", "message"),
    [
        (np.ones(4), np.eye(4), CAMERA, "depth must be"),
        (np.ones((0, 4)), np.eye(4), CAMERA, "depth must be"),
        (np.full((2, 2), np.nan), np.eye(4), CAMERA, "depth must be finite"),
        (np.full((2, 2), -1.0), np.eye(4), CAMERA, ">= 0"),
        (np.ones((2, 2)), np.full((4, 4), np.nan), CAMERA, "A pose must be finite"),
        (np.ones((2, 2)), np.diag([2.0, 2, 2, 1]), CAMERA, "R\\^T R = I"),
        (np.ones((2, 2)), np.eye(3), CAMERA, "shape"),
        (np.ones((2, 2)), np.eye(4), (60, 60, 31), "four finite numbers"),
        (np.ones((2, 2)), np.eye(4), (60, 0, 31, 23), "above 0"),
    ],
)
def test_what_is_no_view_is_refused(depth, pose, intrinsics, message):
    with pytest.raises(InvalidInputError, match=message):
        View(depth, pose, intrinsics)


@pytest.fixture(scope="module")
def kitchen():
    """Queries (seq-02) and database (seq-01) of the red kitchen, 125 views each, every second pixel."""
    folder = Path(os.environ.get("COVIS_DATA", "")) / "7scenes" / "redkitchen"
    if "COVIS_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("set COVIS_DATA to the folder that holds 7scenes/redkitchen")

    def views(sequence):
        for file in sorted((folder / sequence).glob("*.pose.txt")):
            depth = read_depth(file.with_name(file.name.replace("pose.txt", "depth.png")))
            yield View(depth[::2, ::2], np.loadtxt(file), np.array([585, 585, 320, 240]) / 2)

    return list(views("seq-02")), list(views("seq-01"))


def with_a_positive(overlap):
    return int((overlap.toarray().max(axis=1) >= 0.5).sum())


def test_the_kitchen_has_the_positives_found_independently(kitchen):
    """An independent computation found 25 to 27 of 125 queries with a positive at 5 cm, 59 at 10 cm, 93 at 20 cm, 56 by reprojection."""
    by_voxel = {edge: voxel_overlap(*kitchen, voxel=edge, step=1) for edge in (0.05, 0.1, 0.2)}
    by_reprojection = reprojection_overlap(*kitchen, step=8)
    assert with_a_positive(by_voxel[0.05]) == pytest.approx(26, abs=3)
    assert with_a_positive(by_voxel[0.1]) == pytest.approx(60, abs=4)
    assert with_a_positive(by_voxel[0.2]) == pytest.approx(93, abs=4)
    assert with_a_positive(by_reprojection) == pytest.approx(56, abs=6)
    for edge in (0.05, 0.1):
        assert spearmanr(by_voxel[edge].toarray().ravel(), by_reprojection.toarray().ravel()).statistic > 0.95
