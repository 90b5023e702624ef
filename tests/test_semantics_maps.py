"""Label maps of a set: attached, surveyed, and given to other places."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import CovisWarning, InvalidInputError, MissingFileError
from covis.images import Images, Scene
from covis.rasters import read_label_map, write_image, write_label_map
from covis.semantics import attach_maps, corrupted, survey_maps
from covis.semantics.maps import places_of
from covis.semantics.numberings import NUMBERINGS
from covis.semantics.surveys import void_warning
from covis.settings import EncodingSettings

TRAIN = EncodingSettings("cityscapes-train")


@pytest.fixture
def walk(tmp_path):
    """Four photographs in a folder and their maps in another."""
    names = ("day/a.jpg", "day/b.jpg", "c.png", "d.jpg")
    for row, name in enumerate(names):
        write_image(tmp_path / "photos" / name, np.full((12, 16, 3), row, dtype=np.uint8))
        write_label_map((tmp_path / "maps" / name).with_suffix(".png"), np.full((6, 8), row, dtype=np.uint8))
    return Images(tmp_path / "photos", names)


def test_maps_are_found_by_the_images_names(walk, tmp_path):
    found = attach_maps(walk, tmp_path / "maps")
    assert found.segmentation == ("../maps/day/a.png", "../maps/day/b.png", "../maps/c.png", "../maps/d.png")
    assert [int(read_label_map(found.root / one)[0, 0]) for one in found.segmentation] == [0, 1, 2, 3]
    assert found.names == walk.names
    assert walk.segmentation is None


def test_the_longer_name_tells_two_images_apart(tmp_path):
    images = Images(tmp_path, ("a.jpg", "a.png"))
    maps = tmp_path / "maps"
    write_label_map(maps / "a.png", np.zeros((1, 1), dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"a\.jpg and a\.png would share a\.png. Call the maps a\.jpg\.png and a\.png\.png"):
        attach_maps(images, maps)
    for name in images.names:
        write_label_map(maps / f"{name}.png", np.zeros((1, 1), dtype=np.uint8))
    assert attach_maps(images, maps).segmentation == ("maps/a.jpg.png", "maps/a.png.png")


def test_a_photograph_is_not_its_own_map(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), dtype=np.uint8))
    with pytest.raises(MissingFileError, match=r"1 of 1 have none: a\.png\. Looked there for a\.png\.png and a\.png\."):
        attach_maps(Images(tmp_path, ("a.png",)), tmp_path)
    write_label_map(tmp_path / "a.png.png", np.zeros((2, 2), dtype=np.uint8))
    assert attach_maps(Images(tmp_path, ("a.png",)), tmp_path).segmentation == ("a.png.png",)


def test_a_root_that_is_a_link(walk, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "link").symlink_to(tmp_path / "photos", target_is_directory=True)
    found = attach_maps(replace(walk, root=tmp_path / "deep" / "er" / "link"), tmp_path / "maps")
    assert int(read_label_map(found.root / found.segmentation[1])[0, 0]) == 1


def test_missing_maps_are_counted_and_named(walk, tmp_path):
    names = [f"x{number}.jpg" for number in range(5)]
    with pytest.raises(
        MissingFileError,
        match=r"of .*photos must have .* 5 of 9 have none: x0\.jpg, x1\.jpg, x2\.jpg, …\. Looked there for x0\.jpg\.png and x0\.png\b",
    ):
        attach_maps(Images(walk.root, (*walk.names, *names)), tmp_path / "maps")
    with pytest.raises(MissingFileError, match=r"for photos/x0\.jpg\.png and photos/x0\.png and x0\.jpg\.png and x0\.png\.") as no:
        attach_maps(Images(walk.root / "day" / "..", names), tmp_path / "photos" / ".." / "maps", base=tmp_path)
    assert ".." not in str(no.value)
    with pytest.raises(MissingFileError, match=r"nowhere must exist"):
        attach_maps(walk, tmp_path / "nowhere")


def test_a_survey_by_hand(walk, tmp_path):
    ids = np.array([[2, 2, 10, 255], [2, 2, 10, 8], [0, 0, 0, 11]], dtype=np.uint8)  # of 12 pixels
    write_label_map(tmp_path / "maps" / "day" / "a.png", ids)
    write_label_map(tmp_path / "maps" / "day" / "b.png", np.full((48, 64), 255, dtype=np.uint8))
    images = attach_maps(walk.select([0, 1]), tmp_path / "maps")
    told = []
    survey = survey_maps(images, TRAIN, told=told.append)
    assert told == [1, 2]
    assert survey.maps == 2
    shares = {name: share for name, share in survey.classes.items() if share}
    assert shares == pytest.approx({"building": 4 / 24, "road": 3 / 24, "sky": 2 / 24, "vegetation": 1 / 24, "person": 1 / 24})
    assert next(iter(survey.classes)) == "building"
    assert len(survey.classes) == 19
    assert survey.channels == pytest.approx(
        {"structure": 4 / 24, "vegetation": 1 / 24, "ground": 3 / 24, "sky": 2 / 24, "other": 13 / 24, "dynamic": 1 / 24}
    )
    assert survey.void == pytest.approx(13 / 24)
    assert survey.empty == 1
    words = survey.summary()
    assert "2 label maps in cityscapes-train: 5 of 19 classes, void 54.2 %" in words
    assert "building 16.7 %, road 12.5 %" in words
    assert "1 of 2 maps are void throughout" in words
    fine = survey_maps(images, EncodingSettings("cityscapes-train", clusters="none"))
    assert sum(fine.channels.values()) == pytest.approx(11 / 24)
    assert fine.channels["building"] == fine.classes["building"]


def test_the_towns_maps(town):
    survey = survey_maps(town, TRAIN)
    assert survey.maps == 2 * (24 + 16)
    assert sum(survey.classes.values()) + survey.void == pytest.approx(1)
    assert sum(survey.channels.values()) == pytest.approx(1)
    assert survey.channels["structure"] > 0.1
    assert survey.channels["sky"] > 0.01
    assert survey.empty == 0
    ids = [
        read_label_map(images.root / file) for scene in town for images in (scene.database, scene.queries) for file in images.segmentation
    ]
    assert survey.classes["building"] == pytest.approx(np.mean([(one == 2).mean() for one in ids]))
    assert survey_maps(town[0].database, TRAIN).maps == 24
    assert survey_maps(Scene("both", "train", town[0].database, town[0].database), TRAIN).maps == 24
    assert survey_maps([town[0], town[0]], TRAIN).maps == 40


def test_the_wrong_numbering_is_named_and_another_suggested(walk, tmp_path):
    images = attach_maps(walk, tmp_path / "maps")
    write_label_map(tmp_path / "maps" / "c.png", np.array([[33, 26, 7]] * 2, dtype=np.uint8))
    with pytest.raises(
        InvalidInputError, match=r"c\.png must hold numbers of cityscapes-train; it holds 26 \(and 1 more\), which is none"
    ) as no:
        survey_maps(images, TRAIN, photographs=False)
    assert "The numbers fit cityscapes or ade20k or ade20k-annotations or vistas-1.2 or vistas-2.0." in str(no.value)
    write_label_map(tmp_path / "maps" / "c.png", np.array([[200]], dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"holds 200, which is none. They fit no numbering of covis: describe yours in a TOML file"):
        survey_maps(images, TRAIN, photographs=False)
    write_label_map(tmp_path / "maps" / "c.png", np.array([[150]], dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"holds 150, which is none. The numbers fit ade20k-annotations\."):
        survey_maps(images, TRAIN, photographs=False)


def test_much_void_is_doubted_where_another_numbering_fits(walk, tmp_path):
    images = attach_maps(walk, tmp_path / "maps")  # 0 to 3, which are void in Cityscapes' own ids
    with pytest.warns(CovisWarning, match=r"100 % of the pixels mean nothing in 'cityscapes'; are they 'cityscapes-train'\?"):
        assert survey_maps(images, EncodingSettings("cityscapes")).void == 1
    shares = np.zeros(256)
    shares[[0, 7]] = 0.3, 0.7
    assert void_warning(shares, NUMBERINGS["cityscapes"]) is None, "just the limit"
    shares[[0, 7]] = 0.31, 0.69
    assert void_warning(shares, NUMBERINGS["cityscapes"]) == "31 % of the pixels mean nothing in 'cityscapes'; are they 'cityscapes-train'?"
    shares[:] = 0
    shares[[255, 7]] = 0.6, 0.4
    assert void_warning(shares, NUMBERINGS["cityscapes"]) is None, "void in all"


def test_a_map_of_another_shape_is_refused(walk, tmp_path):
    images = attach_maps(walk, tmp_path / "maps")
    write_label_map(tmp_path / "maps" / "d.png", np.zeros((120, 163), dtype=np.uint8))  # 1.9 %: rounding
    assert survey_maps(images, TRAIN).maps == 4
    write_label_map(tmp_path / "maps" / "d.png", np.zeros((120, 164), dtype=np.uint8))
    with pytest.raises(
        InvalidInputError, match=r"d\.png must have the aspect ratio .* to 2 %; it has 164 x 120 pixels, and .*d\.jpg 16 x 12"
    ):
        survey_maps(images, TRAIN)
    assert survey_maps(images, TRAIN, photographs=False).maps == 4
    write_label_map(tmp_path / "maps" / "d.png", np.zeros((16, 12), dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"Is it turned by a quarter"):
        survey_maps(images, TRAIN)
    write_image(tmp_path / "photos" / "d.jpg", np.zeros((16, 12, 3), dtype=np.uint8))
    told = []
    assert survey_maps(images, TRAIN, told=told.append).maps == len(told) == 4
    lent = replace(images, segmentation=images.segmentation[:3] + images.segmentation[:1])  # a map that fits one photograph of two
    with pytest.raises(InvalidInputError, match=r"a\.png must have the aspect ratio.*d\.jpg 12 x 16"):
        survey_maps(lent, TRAIN)
    assert survey_maps(lent, TRAIN, photographs=False).maps == 3


def test_what_cannot_be_surveyed(walk, tmp_path):
    with pytest.raises(InvalidInputError, match=r"segmentation"):
        survey_maps(walk, TRAIN)
    with pytest.raises(InvalidInputError, match=r"at least one label map"):
        survey_maps([], TRAIN)
    images = replace(walk, segmentation=("gone.png",) * 4)
    with pytest.raises(MissingFileError, match=r"gone\.png"):
        survey_maps(images, TRAIN)


def street(count, *, step=10.0, root="photos", first=0, **columns):
    names = tuple(f"{first + number:03d}.jpg" for number in range(count))
    xy = np.column_stack([step * np.arange(count), np.zeros(count)])
    return Images(root, names, **{"xy": xy, "segmentation": tuple(f"m/{one[:-4]}.png" for one in names)} | columns)


def place_of_map(scene, cell=25.0):
    """File -> place, as a plain loop over both sides has it."""
    sides = (scene.database, scene.queries)
    return {f"{s.root}/{f}": tuple(np.floor(p / cell).astype(int)) for s in sides for f, p in zip(s.segmentation, s.xy, strict=True)}


@given(share=st.floats(0, 1), seed=st.integers(0, 99), count=st.integers(6, 30))
def test_exactly_so_many_places_get_maps_of_other_places(share, seed, count):
    scene = Scene("s", "test", street(count), street(count, step=11.0, first=500))
    changed = corrupted(scene, share, seed=seed)
    place = place_of_map(scene)
    spoiled, whole = set(), set()
    for before, after in ((scene.database, changed.database), (scene.queries, changed.queries)):
        assert before.names == after.names
        np.testing.assert_array_equal(before.xy, after.xy)
        for row in range(len(before)):
            mine = tuple(np.floor(before.xy[row] / 25).astype(int))
            if after.segmentation[row] == before.segmentation[row]:
                whole.add(mine)
            else:
                assert place[f"{after.root}/{after.segmentation[row]}"] != mine
                spoiled.add(mine)
    assert not spoiled & whole
    assert len(spoiled) == round(share * len(set(place.values())))
    again = corrupted(scene, share, seed=seed)
    assert again.database == changed.database
    assert again.queries == changed.queries


def test_the_ends_and_the_growth(town):
    scene = town[0]
    assert corrupted(scene, 0, seed=1) is scene
    all_of_them = corrupted(scene, 1, seed=1, cell=10.0)
    for before, after in ((scene.database, all_of_them.database), (scene.queries, all_of_them.queries)):
        assert all(a != b for a, b in zip(before.segmentation, after.segmentation, strict=True))
        assert all((after.root / file).is_file() for file in after.segmentation)
    half = corrupted(scene, 0.5, seed=1, cell=10.0)
    kept = [(a, b, c) for a, b, c in zip(*(s.database.segmentation for s in (scene, half, all_of_them)), strict=True)]
    assert all(b in (a, c) for a, b, c in kept)  # what is spoiled at a half is spoiled in the same way at the whole
    assert 0 < sum(a != b for a, b, _ in kept) < len(kept)
    assert corrupted(scene, 1, seed=2, cell=10.0).database != all_of_them.database


def test_a_training_scene_keeps_one_object_on_both_sides():
    images = street(12)
    for scene in (Scene("s", "train", images, images), Scene("s", "train", images, street(12))):
        changed = corrupted(scene, 0.5, seed=0)
        assert changed.database is changed.queries
        assert changed.database != images


def test_donors_are_drawn_evenly():
    scene = Scene("s", "train", *[street(6, step=25.0)] * 2)
    drawn = Counter(corrupted(scene, 1, seed=seed).database.segmentation[0] for seed in range(1000))
    assert set(drawn) == {f"m/{number:03d}.png" for number in range(1, 6)}
    assert all(140 < count < 260 for count in drawn.values())  # 200 expected, 12.6 its deviation


def test_places_without_positions():
    plain = {"xy": None}
    frames, rows = np.arange(25), street(25, **plain)
    aligned = street(25, **plain, frame=frames)
    places, count = places_of((aligned, aligned), cell=25, frames=10)
    assert count == 3
    np.testing.assert_array_equal(places[:25], frames // 10)
    np.testing.assert_array_equal(places[:25], places[25:])  # frames of both sides correspond
    two = street(25, **plain, frame=frames, sequence=("a",) * 12 + ("b",) * 13)
    assert places_of((two,), cell=25, frames=10)[1] == 2 + 2  # a: 0-9, 10-11; b: 12-19, 20-24
    assert places_of((rows, rows), cell=25, frames=10)[1] == 6  # rows of two sides do not
    changed = corrupted(Scene("s", "train", rows, rows), 1, seed=0)
    assert all(int(a[2:5]) // 10 != int(b[2:5]) // 10 for a, b in zip(rows.segmentation, changed.database.segmentation, strict=True))


def test_sides_of_two_roots(tmp_path):
    for root in ("one", "two"):
        for number in range(4):
            write_label_map(tmp_path / root / "m" / f"{number:03d}.png", np.full((1, 1), number, dtype=np.uint8))
    scene = Scene("s", "test", street(4, step=30.0, root=tmp_path / "one"), street(4, step=30.0, root=tmp_path / "two"))
    seen = set()
    for seed in range(9):
        changed = corrupted(scene, 1, seed=seed)
        for images in (changed.database, changed.queries):
            for row, file in enumerate(images.segmentation):
                assert int(read_label_map(images.root / file)[0, 0]) != row
                seen.add(file.startswith("../"))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("share", "options", "words"),
    [
        (1.5, {}, r"must lie in \[0, 1\]; got 1.5"),
        (-0.1, {}, r"must lie in \[0, 1\]"),
        (float("nan"), {}, r"must lie in \[0, 1\]; got nan"),
        (0.5, {"cell": 0.0}, r"more than 0 metres"),
        (0.5, {"cell": float("inf")}, r"more than 0 metres"),
        (0.5, {"frames": 0}, r"at least 1 image"),
        (0.5, {"cell": 1e6}, r"at least two places.*it has 1\. Choose a smaller cell"),
    ],
)
def test_what_cannot_be_corrupted(share, options, words):
    with pytest.raises(InvalidInputError, match=words):
        corrupted(Scene("s", "test", street(6), street(6)), share, seed=0, **options)


def test_without_maps_nothing_can_be_corrupted():
    with pytest.raises(InvalidInputError, match=r"must have segmentation"):
        corrupted(Scene("s", "test", street(6), street(6, segmentation=None)), 0.5, seed=0)
