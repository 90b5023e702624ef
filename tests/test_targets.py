"""Targets: unit vectors that stay as they are, from a memory map too, and the control that gives every image another's."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

from covis.descriptors import Descriptors
from covis.errors import InvalidInputError, SettingsDifferError
from covis.images import Images, Scene
from covis.structure.targets import Rows, check_images, shuffled


def _units(count, dim=4, *, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _described(count, *, seed=0, prefix="a"):
    return Descriptors(
        _units(count, seed=seed), tuple(f"{prefix}{row}.png" for row in range(count)), "teacher", {"extracted": {"height": 4}}
    )


def test_rows_give_a_copy_in_float32_of_any_float() -> None:
    vectors = _units(5)
    for kind in (np.float16, np.float32, np.float64):
        rows = Rows(vectors.astype(kind), where="here")
        found = rows[np.array([3, 0, 3])]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, vectors[[3, 0, 3]], atol=1e-3)
        found[:] = 0
        assert np.linalg.norm(rows[[3]]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("length", [0.0, 0.99, 1.002, float("nan"), float("inf")])
def test_a_target_that_is_no_unit_vector_is_refused_with_its_row(length: float) -> None:
    vectors = _units(5000)
    vectors[4321] *= length
    with pytest.raises(InvalidInputError, match=r"row 4321 of the moon has the norm"):
        Rows(vectors, where="the moon")


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((3, 1), dtype=np.int64), np.zeros((3, 0)), np.array([["a"]])])
def test_what_is_no_table_of_numbers_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match=r"must be \(n, d\) numbers"):
        Rows(wrong, where="here")


def test_descriptors_that_lack_images_are_refused() -> None:
    found = _described(3)
    skipped = replace(found, history={"extracted": {"skipped": [{"name": "lost.png", "reason": "it does not decode"}]}})
    with pytest.raises(InvalidInputError, match=r"1 were left out as damaged, the first lost\.png"):
        Rows(skipped, where="here")


def test_the_digest_is_of_the_values() -> None:
    vectors = _units(9)
    other = vectors.copy()
    other[8] = -other[8]
    assert Rows(vectors, where="a").digest == Rows(vectors.copy(), where="b").digest
    assert Rows(vectors, where="a").digest != Rows(other, where="a").digest
    assert Rows(vectors, where="a").digest != Rows(vectors[::-1], where="a").digest


def test_a_memory_map_is_pickled_as_its_path_and_an_array_as_its_values(tmp_path) -> None:
    vectors = _units(2000, 8)
    mapped = Descriptors.load(Descriptors(vectors, tuple(map(str, range(2000))), "t").save(tmp_path / "found"))
    by_path, by_value, part = Rows(mapped, where="a"), Rows(vectors, where="a"), Rows(mapped.vectors[7:1900], where="a")
    assert len(pickle.dumps(by_path)) < 1000 < len(pickle.dumps(by_value))
    for rows, expected in ((by_path, vectors), (by_value, vectors), (part, vectors[7:1900])):
        again = pickle.loads(pickle.dumps(rows))
        assert again.digest == rows.digest
        np.testing.assert_array_equal(again.vectors, expected)
        np.testing.assert_array_equal(copy.deepcopy(rows).vectors, expected)


def test_a_memory_map_that_was_exchanged_meanwhile_is_refused(tmp_path) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, _units(6))
    sent = pickle.dumps(Rows(np.load(path, mmap_mode="r"), where="here"))
    path.unlink()
    np.save(path, _units(5))
    with pytest.raises(SettingsDifferError, match=r"must hold the targets that training began with"):
        pickle.loads(sent)


def test_shuffled_gives_every_image_the_descriptor_of_another_one_and_uses_each_once() -> None:
    vectors = _units(50)
    (found, same), (other, _) = shuffled([(vectors, vectors), (vectors, vectors)], seed=3)
    donors = [int(np.flatnonzero((vectors == row).all(axis=1))[0]) for row in found]
    assert sorted(donors) == list(range(50))
    assert all(donor != row for row, donor in enumerate(donors))
    np.testing.assert_array_equal(found, same)  # an image has one target whichever side it stands on
    assert (other != found).any()  # each scene goes its own way
    row, steps = donors[0], 1
    while row != 0:
        row, steps = donors[row], steps + 1
    assert steps == 50  # one cycle


def test_shuffled_depends_on_the_seed_alone() -> None:
    targets = [(_units(20), _units(30, seed=1))]
    again, same, other = (shuffled(targets, seed=seed)[0] for seed in (1, 1, 2))
    for side in (0, 1):
        np.testing.assert_array_equal(again[side], same[side])
        assert (again[side] != other[side]).any()


def test_shuffled_descriptors_keep_their_names_and_say_what_was_done() -> None:
    before = _described(6)
    vectors = before.vectors.copy()
    ((found, _),) = shuffled([(before, before)], seed=5)
    assert isinstance(found, Descriptors)
    assert (found.names, found.model) == (before.names, before.model)
    assert found.history == {"extracted": {"height": 4}, "shuffled": 5}
    np.testing.assert_array_equal(before.vectors, vectors)


def test_shuffled_refuses_what_cannot_be_shuffled() -> None:
    with pytest.raises(InvalidInputError, match=r"two images or more; the queries of scene 0 has one"):
        shuffled([(_units(1), _units(5))], seed=0)
    with pytest.raises(InvalidInputError, match=r"The seed must be >= 0; got -1"):
        shuffled([], seed=-1)


def test_targets_must_be_of_the_images_of_the_scenes() -> None:
    sides = [Images("photos", tuple(f"{side}{row}.png" for row in range(24))) for side in "abcd"]
    scenes = [Scene("miami", "train", sides[0], sides[1]), Scene("athens", "train", sides[2], sides[3])]

    def of(images, *, drop=0, swap=False):
        names = list(images.names)[drop:]
        if swap:
            names[2], names[3] = names[3], names[2]
        return Descriptors(_units(len(names)), tuple(names), "t")

    whole = [(of(scene.queries), of(scene.database)) for scene in scenes]
    check_images(whole, scenes)
    check_images([tuple(side.vectors for side in sides) for sides in whole], scenes)  # arrays have no names: their number is held
    with pytest.raises(InvalidInputError, match=r"got those of 1 for 2 scenes"):
        check_images(whole[:1], scenes)
    with pytest.raises(InvalidInputError, match=r"the database of scene .* got 23 for 24"):
        check_images([whole[0], (whole[1][0], of(scenes[1].database, drop=1))], scenes)
    with pytest.raises(InvalidInputError, match=r"in their order; row 2 is of"):
        check_images([(of(scenes[0].queries, swap=True), whole[0][1]), whole[1]], scenes)
