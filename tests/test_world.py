"""The streets: the same bytes for the same seed, exact depth, and nothing that changes but the cars and the light."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covis.datasets import read
from covis.errors import InvalidInputError, SettingsDifferError, UnknownNameError
from covis.geometry import check_rigid, invert, project, transform, unproject
from covis.labelling import label_by_surface
from covis.rasters import read_depth, read_image
from covis.world import PRESETS, StreetSettings, build_street, intrinsics, poses, render, write_streets
from covis.world.streets import DATABASE, QUERIES, Street

SMALL = replace(PRESETS["tiny"], database=6, queries=4)


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def street() -> Street:
    return build_street(PRESETS["tiny"], 0, seed=5)


def test_presets_are_frozen() -> None:
    assert sorted(PRESETS) == ["demo", "tiny"]


def test_the_same_seed_gives_the_same_bytes_however_many_processes(tmp_path: Path) -> None:
    write_streets(tmp_path / "a", preset=SMALL, seed=4)
    write_streets(tmp_path / "b", preset=SMALL, seed=4, workers=2)
    write_streets(tmp_path / "c", preset=SMALL, seed=5)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert len(first) == 3 * (10 * 3 + 3) + 1
    assert first == again
    assert all(first[name] != other[name] for name in first if "color" in name)


def test_an_interrupted_writing_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write_streets(tmp_path / "whole", preset=SMALL, seed=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "train-01" / "TrainSplit.txt").unlink()  # as if killed while the second street was written
    for kind in ("pose.txt", "depth.png"):
        (tmp_path / "cut" / "train-01" / "seq-02" / f"frame-000003.{kind}").unlink()
    shutil.rmtree(tmp_path / "cut" / "test-00")
    said: list[str] = []
    write_streets(tmp_path / "cut", preset=SMALL, seed=4, progress=said.append)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert [line.split(":")[0] for line in said] == ["train-01", "test-00"]


def test_other_streets_in_the_folder_are_refused(tmp_path: Path) -> None:
    write_streets(tmp_path, preset=SMALL, seed=4)
    with pytest.raises(SettingsDifferError, match="seed: 4 there, 5 asked for"):
        write_streets(tmp_path, preset=SMALL, seed=5)


def test_what_is_written_reads_as_the_layout(tiny_world: Path) -> None:
    settings = PRESETS["tiny"]
    teach = [scene for scene in read("7scenes", tiny_world, split="train") if scene.name.startswith("train")]
    ask = read("7scenes", tiny_world, split="test")
    assert [scene.name for scene in teach] == ["train-00", "train-01"]
    assert [scene.name for scene in ask] == ["test-00"]
    assert {len(scene.database) for scene in teach} == {settings.database + settings.queries}
    assert (len(ask[0].database), len(ask[0].queries)) == (settings.database, settings.queries)
    assert ask[0].database.intrinsics is not None
    np.testing.assert_array_equal(ask[0].database.intrinsics[0], intrinsics(settings))


def test_poses_are_rigid_upright_and_on_the_street(street: Street) -> None:
    settings = street.settings
    for visit in (DATABASE, QUERIES):
        seen_from = poses(street, visit)
        check_rigid(seen_from)
        local = np.linalg.inv(street.placement) @ seen_from
        assert (np.abs(local[:, 1, 3]) <= settings.lateral).all()
        assert (local[:, 0, 3] >= -settings.spacing).all()
        assert (local[:, 0, 3] <= settings.length).all()
        assert (np.diff(local[:, 0, 3]) > 0).all()
        yaw = np.degrees(np.arctan2(local[:, 1, 2], local[:, 0, 2]))
        assert (np.abs(yaw) <= settings.yaw + 0.5).all()
        assert (seen_from[:, 2, 1] < -0.9).all(), "the camera's y axis points down"


def test_depth_reprojects_onto_the_other_views_depth() -> None:
    settings = replace(PRESETS["tiny"], height=96, width=128)
    street = build_street(settings, 0, seed=5)
    seen_from, camera = poses(street, DATABASE), intrinsics(settings)
    first, second = (render(street, DATABASE, frame, cars=False).depth for frame in (4, 6))
    points, _ = unproject(first, camera, step=1)
    there = transform(invert(seen_from[6]), transform(seen_from[4], points))
    u, v = project(there, camera)
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = (there[:, 2] > 0.5) & (column >= 0) & (column < 128) & (row >= 0) & (row < 96)
    z, seen = there[inside, 2], second[row[inside], column[inside]]
    assert inside.sum() > 3000
    agree = np.abs(z - seen) < 0.1 + 0.05 * z
    assert agree.mean() > 0.85, "but for what the other view hides"
    assert np.median(np.abs(z - seen)[agree] / z[agree]) < 0.01


def test_geometry_does_not_change_with_the_light_or_the_visit(street: Street) -> None:
    by_day = render(street, DATABASE, 3, condition="day")
    at_dusk = render(street, DATABASE, 3, condition="dusk")
    np.testing.assert_array_equal(by_day.depth, at_dusk.depth)
    assert np.abs(by_day.rgb.astype(int) - at_dusk.rgb).mean() > 20
    bare = street.shapes(DATABASE, cars=False)
    np.testing.assert_array_equal(bare.centre, street.shapes(QUERIES, cars=False).centre)
    assert len(street.shapes(DATABASE).centre) > len(bare.centre)


def test_other_cars_are_parked_at_the_second_visit() -> None:
    street = build_street(PRESETS["demo"], 0, seed=5)
    here, there = (street.shapes(visit).centre[len(street.plan.shapes.centre) :] for visit in (DATABASE, QUERIES))
    shared = {tuple(row) for row in here.round(3)} & {tuple(row) for row in there.round(3)}
    assert len(shared) < 0.2 * min(len(here), len(there))


def test_streets_share_no_house() -> None:
    houses = []
    for index in range(3):
        facades = build_street(SMALL, index, seed=7).plan.facades
        houses.append(
            {
                (*wall, width, height)
                for wall, width, height in zip(facades["wall"].tolist(), facades["width"], facades["height"], strict=True)
            }
        )
    assert all(len(one) > 3 for one in houses)
    assert not houses[0] & houses[1]
    assert not (houses[0] | houses[1]) & houses[2]


def test_pictures_are_no_flat_fields_and_depth_is_metres(tiny_world: Path) -> None:
    scene = read("7scenes", tiny_world)[0]
    for images in (scene.database, scene.queries):
        rgb = read_image(images.path(2))
        assert rgb.std() > 15
        assert images.depth is not None
        depth = read_depth(images.root / images.depth[2])
        assert depth.shape == rgb.shape[:2]
        assert 0 < (depth == 0).mean() < 0.5, "the sky has no depth"
        assert depth.max() <= PRESETS["tiny"].far + 0.01


def test_neighbouring_views_share_surface_and_distant_ones_do_not(tiny_world: Path) -> None:
    scene = read("7scenes", tiny_world)[0]
    labels = label_by_surface(scene.queries, scene.database, reach=30, relative_tolerance=0.05, step=2)
    assert labels.summary().without_positive <= 2
    similarity = labels.matrix.toarray()
    assert similarity[:4, :4].mean() > similarity[:4, -4:].mean() + 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fov": 200}, "fov must be from 10 to 150"),
        ({"database": 0}, "database must be from 1"),
        ({"height": 48.5}, "height must be a whole number"),
        ({"conditions": ("day",)}, "conditions must name the light of two visits"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        StreetSettings(**change)  # type: ignore[arg-type]


def test_bad_arguments_are_refused(tmp_path: Path, street: Street) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'day'"):
        StreetSettings(conditions=("day", "dayy"))
    with pytest.raises(UnknownNameError, match="demo"):
        write_streets(tmp_path, preset="demoo")
    with pytest.raises(InvalidInputError, match="workers"):
        write_streets(tmp_path, preset=SMALL, workers=0)
    with pytest.raises(InvalidInputError, match="frame must be from 0 to 23"):
        render(street, DATABASE, 99)
    assert not list(tmp_path.iterdir())
