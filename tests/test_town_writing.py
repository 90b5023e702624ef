"""Surveys in files: every layout reads back, runs resume, and the bytes do not depend on how they came about."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from PIL import Image

from covis.datasets import read
from covis.errors import CovisWarning, InvalidInputError, SettingsDifferError, UnknownNameError
from covis.rasters import image_size, read_depth, read_image
from covis.surfaces import View, reprojection_overlap
from covis.town import SURVEYS, Outing, Sight, Survey, TownSettings, Visit, fingerprint, surface_overlap, write_town
from covis.town import frames as frames_module
from covis.town.frames import FARTHEST, city_shots, city_town, tasks
from covis.town.meshes import Label
from covis.town.surveys import CITIES
from covis.town.tables import describe, measured

LAYOUTS = ("msls", "utm", "7scenes", "table")
FEW = Survey(
    TownSettings(blocks=(1, 1), block=(60.0, 66.0)),
    database=(Outing("day", 5, spacing=5.0), Outing("night", 2, year=1, spacing=10.0)),
    queries=(Outing("snow", 3, spacing=8.0, lateral=0.4, fov=66.0),),
    size=(36, 48),
    train=1,
    val=1,
    gps=1.0,
    compass=2.0,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same survey in every layout."""
    out = {}
    for layout in LAYOUTS:
        out[layout] = tmp_path_factory.mktemp(layout) / "town"
        lines = []
        paths = write_town(out[layout], layout=layout, preset=FEW, seed=3, progress=lines.append)
        assert [path.name for path in paths] == ["trondheim", "cph"]
        assert all(path.is_dir() for path in paths)
        assert lines
    return out


def scenes(out, layout, split):
    name = "trondheim" if split == "train" else "cph"
    if layout == "msls":
        return read("msls", out, split=split, cities=name)
    return read(layout, out / name, split={"val": "test"}.get(split, split) if layout == "7scenes" else split)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_layout_reads_back(written, layout, split):
    (scene,) = scenes(written[layout], layout, split)
    if layout == "msls" or split != "train":
        assert (len(scene.database), len(scene.queries)) == (7, 3)
    else:
        assert scene.training
        assert len(scene.database) == 10
    for images in (scene.database, scene.queries):
        assert image_size(images.path(0)) == (36, 48)
        for row in range(len(images)):
            assert read_image(images.path(row)).std() > 5


def truth(out, city="cph"):
    (scene,) = read("table", out / "truth" / city, split="val")
    return scene


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_truth_beside_each_layout_is_exact_and_whole(written, layout):
    out, town = written[layout], city_town(FEW, CITIES["val"][0], 3)
    scene = truth(out)
    for images, side in ((scene.database, "database"), (scene.queries, "queries")):
        taken = city_shots(FEW if layout != "7scenes" else frames_of_one_lens(), CITIES["val"][0], 3, side)
        assert images.crs == "EPSG:32633"
        assert np.array_equal(images.pose[:, :3, :3], [shot.camera.pose[:3, :3] for shot in taken])
        assert images.pose[:, :3, 3] - np.array([347000, 6173000, 0]) == pytest.approx(np.array([s.camera.at for s in taken]), abs=1e-6)
        assert images.heading == pytest.approx([shot.camera.heading for shot in taken])
        assert images.fov == pytest.approx([shot.camera.fov for shot in taken])
        for row, shot in enumerate(taken):
            picture = frames_module.photograph(town, shot.camera, visit=shot.ride.visit)
            known = picture.depth <= FARTHEST
            assert read_depth(images.root / images.depth[row]) == pytest.approx(np.where(known, picture.depth, 0), abs=6e-4)
            classes = np.asarray(Image.open(images.root / images.segmentation[row]))
            assert np.array_equal(classes, picture.classes)
            things = images.root / f"truth/cph/{side}" / f"ride{shot.ride.number:02d}-{row_in_ride(taken, row):05d}.things.png"
            assert np.array_equal(np.asarray(Image.open(things)), picture.instances)


def frames_of_one_lens():
    return dataclasses.replace(FEW, queries=tuple(dataclasses.replace(outing, fov=75.0) for outing in FEW.queries))


def row_in_ride(taken, row):
    return sum(shot.ride.number == taken[row].ride.number for shot in taken[:row])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_picture_lies_twice(written, layout):
    pictures = [path.read_bytes() for path in written[layout].rglob("*.jpg")]
    assert len(pictures) == 20
    assert len(set(pictures)) == 20
    assert not list(written[layout].rglob("*.partial"))


def test_positions_in_a_layout_are_noisy_and_those_beside_it_exact(written):
    exact, noisy = truth(written["msls"]), scenes(written["msls"], "msls", "val")[0]
    away = np.linalg.norm(exact.database.xy - noisy.database.xy, axis=1)
    assert 0.05 < away.mean() < 5
    turned = np.abs((exact.database.heading - noisy.database.heading + 180) % 360 - 180)
    assert 0.1 < turned.mean() < 8
    sharp = dataclasses.replace(FEW, gps=0.0, compass=0.0)
    assert measured(exact.database, sharp, seed=1) is exact.database


def test_subtasks_say_what_the_visits_were(written):
    (scene,) = scenes(written["msls"], "msls", "val")
    queries, database = scene.queries.flags, scene.database.flags
    assert queries["w2s"].all()  # asked in snow ...
    assert not queries["s2w"].any()
    assert database["w2s"].all()  # ... and found in summer
    assert database["night"].tolist() == [False] * 5 + [True] * 2
    assert database["d2n"].tolist() == database["night"].tolist()
    assert database["n2d"].tolist() == (~database["night"]).tolist()
    assert database["o2n"].tolist() == database["night"].tolist()  # the ride by night was the one in the new year
    assert queries["d2n"].all()
    assert queries["o2n"].all()
    assert not database["panorama"].any()
    assert database["forward"].all()


def test_surface_overlap_of_files_is_that_of_the_town(written):
    images = truth(written["table"]).database
    town, taken = city_town(FEW, CITIES["val"][0], 3), city_shots(FEW, CITIES["val"][0], 3, "database")
    views = [View(read_depth(images.root / images.depth[row]), images.pose[row], images.intrinsics[row]) for row in (0, 1)]
    estimated = reprojection_overlap(views[:1], views[1:], reach=20, step=1, tolerance=0.2, relative_tolerance=0.1).toarray()[0, 0]
    a, b = (Sight(taken[row].camera, taken[row].ride.visit) for row in (0, 1))
    assert estimated == pytest.approx(surface_overlap(town, a, b, reach=20, step=1), abs=0.06)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(written, tmp_path, monkeypatch):
    out, count = tmp_path / "town", 0
    real = frames_module.photograph

    def dies(*args, **options):
        nonlocal count
        count += 1
        if count == 13:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(frames_module, "photograph", dies)
    with pytest.raises(KeyboardInterrupt):
        write_town(out, layout="msls", preset=FEW, seed=3)
    left = next(iter((out / "truth" / "trondheim" / "database").glob("*.things.png")))
    left.rename(left.with_name(f".{left.name}.partial"))  # killed between a frame's files
    write_town(out, layout="msls", preset=FEW, seed=3)
    assert 20 <= count - 13 + 12 <= 22
    for stray in out.rglob("*.partial"):
        stray.unlink()
    assert fingerprint(out) == fingerprint(written["msls"])
    before = count
    write_town(out, layout="msls", preset=FEW, seed=3)
    assert count == before
    assert fingerprint(out) == fingerprint(written["msls"])


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(written, tmp_path):
    write_town(tmp_path / "town", layout="utm", preset=FEW, seed=3, workers=2)
    assert fingerprint(tmp_path / "town") == fingerprint(written["utm"])


def test_other_settings_in_the_same_folder_are_refused(written):
    with pytest.raises(SettingsDifferError, match="seed: 3 there, 4 asked for"):
        write_town(written["utm"], layout="utm", preset=FEW, seed=4)
    with pytest.raises(SettingsDifferError, match="layout"):
        write_town(written["utm"], layout="msls", preset=FEW, seed=3)


def test_bad_requests_are_refused_in_words(tmp_path):
    with pytest.raises(InvalidInputError, match="layout"):
        write_town(tmp_path / "a", layout="kitti")
    with pytest.raises(InvalidInputError, match="workers"):
        write_town(tmp_path / "a", workers=0)
    with pytest.raises(UnknownNameError, match="tiny"):
        write_town(tmp_path / "a", preset="tinny")
    with pytest.raises(InvalidInputError, match="condition"):
        Outing("hail", 3)
    with pytest.raises(InvalidInputError, match="2 val"):
        dataclasses.replace(FEW, val=3)
    assert not (tmp_path / "a").exists()


def test_presets_keep_their_promises():
    tiny = SURVEYS["tiny"]
    assert [city.name for split, city in tiny.chosen() if split == "val"] == ["cph", "sf"]
    assert [city.name for split, city in tiny.chosen() if split == "train"] == ["trondheim", "london"]
    assert sum(outing.frames for outing in tiny.database) >= 25
    sizes = {
        name: len(survey.chosen()) * sum(outing.frames for outing in (*survey.database, *survey.queries))
        for name, survey in SURVEYS.items()
    }
    assert sizes["tiny"] < 500
    assert 2_000 <= sizes["small"] < 10_000
    assert sizes["stand"] == 7_380
    assert 20_000 <= sizes["city"] < 100_000
    numbers = [city.number for cities in CITIES.values() for city in cities]
    assert len(set(numbers)) == len(numbers)
    for survey in SURVEYS.values():
        for condition in {outing.condition for outing in survey.database} & {"night"}:
            assert survey.database[0].condition != condition


def test_cities_of_different_splits_are_different_towns(written):
    first, second = (city_town(FEW, CITIES[split][0], 3).mesh.corners for split in ("val", "train"))
    assert first.shape != second.shape or not np.array_equal(first, second)
    names = {split: {city.name for city in cities} for split, cities in CITIES.items()}
    assert not names["train"] & names["val"]
    assert not names["test"] & (names["train"] | names["val"])


def test_tasks_cover_every_frame_once(tmp_path):
    found = [(task.side, task.ride, frame) for task in tasks(tmp_path, SURVEYS["small"], CITIES["val"][0], 7) for frame in task.frames]
    assert len(found) == len(set(found)) == sum(o.frames for o in (*SURVEYS["small"].database, *SURVEYS["small"].queries))


def test_tables_name_each_picture_once(tmp_path):
    images = describe(tmp_path, CITIES["val"][1], city_shots(FEW, CITIES["val"][1], 3, "database"), "database")
    assert len(set(images.names)) == len(images) == 7
    assert len(set(zip(images.sequence, images.frame.tolist(), strict=True))) == 7
    assert (np.diff(images.time[:5]) > 0).all()


def test_labels_and_positives_exist(written):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        (scene,) = scenes(written["utm"], "utm", "val")
    near = np.linalg.norm(scene.queries.xy[:, None] - scene.database.xy[None], axis=2).min(1)
    assert (near < 25).all()
    assert Visit(leaves=False) != Visit()
    assert int(Label.SKY) == 10
