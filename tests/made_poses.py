"""What tests of posed layouts share: rotations by formulas of their own, scenes bared to what a layout keeps, and comparison."""

from dataclasses import fields

import numpy as np

from covis.datasets.seven_scenes import read_7scenes
from covis.images import Images, Scene


def of_quaternion(qw, qx, qy, qz):
    """The rotation matrix of a unit quaternion, entry by entry."""
    return np.array([
        [1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qz * qw), 2 * (qx * qz + qy * qw)],
        [2 * (qx * qy + qz * qw), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qx * qw)],
        [2 * (qx * qz - qy * qw), 2 * (qy * qz + qx * qw), 1 - 2 * (qx * qx + qy * qy)],
    ])  # fmt: skip


def of_rotvec(rotvec):
    """Rodrigues' formula."""
    angle = np.linalg.norm(rotvec)
    x, y, z = np.asarray(rotvec) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def view_of_world_to_camera(rotation, translation):
    """(centre, viewing direction) of x_camera = R x_world + t: the centre has x_camera = 0, the direction is the third row of R."""
    return -rotation.T @ translation, rotation[2]


def bare(scene, *columns):
    """The scene with these columns alone, so that a writer has nothing to leave out."""

    def of(images):
        kept = {f.name: getattr(images, f.name) for f in fields(images) if f.name in columns}
        return Images(images.root, images.names, **kept)

    database = of(scene.database)
    return Scene(scene.name, scene.split, database, database if scene.training else of(scene.queries))


def close(found, expected, *columns):
    """That two scenes have the same in these columns: positions within a micrometre of metres, all else to nine digits."""
    assert (found.name, found.training) == (expected.name, expected.training)
    for mine, theirs in ((found.database, expected.database), (found.queries, expected.queries)):
        assert len(mine) == len(theirs)
        for column in columns:
            one, other = getattr(mine, column), getattr(theirs, column)
            if isinstance(other, tuple) or np.issubdtype(other.dtype, np.integer):
                np.testing.assert_array_equal(one, other)
            elif column == "heading":
                assert np.abs((one - other + 180) % 360 - 180).max() < 1e-5
            else:
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-8)


def contents(images):
    return [images.path(row).read_bytes() for row in range(len(images))]


def kitchen(covis_data):
    """A few real frames of the red kitchen as a scene, and the camera-to-world matrices as their files have them."""
    (scene,) = read_7scenes(covis_data / "7scenes" / "redkitchen")
    database, queries = scene.database.select(range(0, 60, 6)), scene.queries.select(range(0, 60, 10))
    names = [images.path(row) for images in (database, queries) for row in range(len(images))]
    truth = np.array([np.loadtxt(str(name).replace("color.jpg", "pose.txt")) for name in names])
    return Scene("kitchen", "test", database, queries), truth


def same_views(views, truth):
    """That (centre, direction) pairs are those of camera-to-world matrices, which the kitchen's files round at 5e-4."""
    assert len(views) == len(truth)
    np.testing.assert_allclose([centre for centre, _ in views], truth[:, :3, 3], rtol=0, atol=1e-9)
    np.testing.assert_allclose([direction for _, direction in views], truth[:, :3, 2], rtol=0, atol=1e-3)
    assert np.ptp(truth[:, :3, 3], axis=0).min() > 0.1  # the camera moves, so that a wrong convention could not pass
