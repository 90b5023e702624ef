"""Audits: copies by hand-made images and against brute force, queries that face away, labels that were tampered with, batches."""

import io
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import sparse
from torch import nn

from covis.audits import (
    batch_dependence,
    facing_away,
    fingerprints,
    label_sanity,
    near_descriptors,
    near_duplicates,
    shared_places,
)
from covis.audits.bins import Bins
from covis.audits.blocks import in_blocks
from covis.audits.duplicates import MOST
from covis.audits.hashes import _popcount, near_hashes, popcount
from covis.audits.resemblance import _Vectors
from covis.audits.words import Talk
from covis.descriptors import Descriptors
from covis.errors import CovisError, DamagedFileError, InvalidInputError
from covis.images import Images, Scene
from covis.labelling import label_by_distance, label_by_view
from covis.labels import Labels
from covis.models.foreign import ForeignModel
from covis.reports.suspects import suspect_sheet
from covis.settings import ModelSettings


def picture(seed, *, size=(320, 240)):
    """Something with large and small shapes, unlike any other."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(random.integers(0, 256, (*shape, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC), dtype=float
        )
        for shape in ((5, 7), (20, 26), (60, 80))
    ]
    return Image.fromarray((0.6 * layers[0] + 0.3 * layers[1] + 0.1 * layers[2]).clip(0, 255).astype(np.uint8))


def jpeg(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def table(folder):
    return Images(folder, sorted(path.name for path in folder.iterdir()))


@pytest.fixture
def sets(tmp_path):
    """A folder of originals and one of what became of them; the name says from which, and what was done."""
    originals, made = tmp_path / "train", tmp_path / "test"
    originals.mkdir()
    made.mkdir()
    for seed in range(10):
        picture(seed).save(originals / f"{seed}.png")
    shutil.copy(originals / "0.png", made / "0-bytes.png")
    picture(1).save(made / "1-pixels.png", compress_level=1)
    jpeg(picture(2), 60).save(made / "2-near-encoded.png")
    picture(3).resize((160, 120), Image.Resampling.BILINEAR).save(made / "3-near-half.png")
    ImageEnhance.Brightness(picture(4)).enhance(0.7).save(made / "4-near-dark.png")
    picture(5).crop((3, 2, 317, 238)).save(made / "5-near-cropped.png")
    ImageOps.mirror(picture(6)).save(made / "6-mirror.png")
    street = picture(7, size=(480, 240))
    street.crop((0, 0, 320, 240)).save(originals / "7.png")
    street.crop((48, 0, 368, 240)).save(made / "7-street-15-percent-on.png")
    picture(99).save(made / "99-new.png")
    return table(originals), table(made)


def test_each_kind_of_copy_is_found_and_nothing_else(sets):
    originals, made = sets
    found = near_duplicates(made, originals, mirrored=True)
    names = "0-bytes 1-pixels 2-near-encoded 3-near-half 4-near-dark 5-near-cropped 6-mirror"
    assert {one["a"] for one in found.pairs()} == {f"{name}.png" for name in names.split()}
    assert all(one["a"][0] == one["b"][0] and f"-{one['kind']}" in one["a"] for one in found.pairs())
    assert [one["kind"] for one in found.pairs()] == ["bytes", "pixels", "near", "near", "near", "near", "mirror"]
    assert dict(found.total) == {"file": 0, "bytes": 1, "pixels": 1, "near": 4, "mirror": 1}
    assert len(near_duplicates(made, originals)) == 6  # mirror images are not looked for unasked
    exact = near_duplicates(made, originals, hamming=0, fine=0).total
    assert (exact["bytes"], exact["pixels"]) == (1, 1)
    assert exact["near"] < 4


def test_within_one_set_each_pair_stands_once(sets):
    _, made = sets
    shutil.copy(made.root / "99-new.png", made.root / "98-again.png")
    found = near_duplicates(table(made.root))
    assert [(one["a"], one["b"], one["kind"]) for one in found.pairs()] == [("98-again.png", "99-new.png", "bytes")]


def test_images_in_a_pair_are_counted_once_and_before_the_cut(sets, tmp_path):
    originals, _ = sets
    three = tmp_path / "three"
    three.mkdir()
    for name in "abc":
        shutil.copy(originals.path(0), three / f"{name}.png")
    found = near_duplicates(table(three))
    assert (dict(found.total)["bytes"], found.in_a_pair) == (3, (3, 3))
    (line, *_) = Talk(shown=1).lines([{"audit": "copies", "of": "three", "found": found.as_dict()}])
    assert line == "copies, three: 3 images among each other: 3 pairs among 3 images"
    both = near_duplicates(originals.select([0, 1, 2]), originals)
    assert both.in_a_pair == (3, 3)
    assert both.without("file").in_a_pair == (0, 0)


def test_the_same_file_in_both_sets(sets):
    originals, _ = sets
    found = near_duplicates(originals.select([0, 1]), originals)
    assert dict(found.total) == {"file": 2, "bytes": 0, "pixels": 0, "near": 0}
    assert not len(found.without("file"))


def test_frames_of_one_street_are_no_copies(town):
    for scene in town:
        assert dict(near_duplicates(scene.database).total) == {"bytes": 0, "pixels": 0, "near": 0}
        assert not len(near_duplicates(scene.queries, scene.database, mirrored=True))


def test_real_sets(covis_data):
    seasons = near_duplicates(table(covis_data / "seasons" / "images"), mirrored=True)
    assert [(one["a"], one["b"], one["kind"]) for one in seasons.pairs()] == [
        ("1101.jpg", "1201.jpg", "bytes"),
        ("1103.jpg", "1203.jpg", "bytes"),
    ]
    query, ref = (table(covis_data / "corridor" / side) for side in ("query", "ref"))
    assert not len(near_duplicates(query, ref))
    assert near_duplicates(query).total["near"] + near_duplicates(ref).total["near"] == 77  # neighbouring frames of one walk


def test_unreadable_and_flat_images_are_counted(sets):
    originals, _ = sets
    whole = (originals.root / "8.png").read_bytes()
    (originals.root / "8.png").write_bytes(whole[: len(whole) // 2])
    (originals.root / "text.jpg").write_text("no image")
    (originals.root / "empty.jpg").write_bytes(b"")
    for name in ("black.png", "night.png"):
        Image.new("RGB", (64, 48), (0, 0, 1 + (name == "night.png"))).save(originals.root / name)
    images = Images(originals.root, [*table(originals.root).names, "gone.jpg"])
    found = near_duplicates(images)
    assert len(found) == 0  # two black pictures are not called one
    assert found.flat[0] == 2
    unreadable = found.as_dict()["unreadable"][0]
    assert sorted(unreadable) == ["8.png", "empty.jpg", "gone.jpg", "text.jpg"]
    assert "it is empty" in unreadable["empty.jpg"]
    assert "there is no such file" in unreadable["gone.jpg"]


def test_many_copies_are_all_counted_and_some_listed(tmp_path):
    picture(1, size=(40, 30)).save(tmp_path / "000.png")
    for number in range(1, 70):
        shutil.copy(tmp_path / "000.png", tmp_path / f"{number:03d}.png")
    found = near_duplicates(table(tmp_path))
    assert dict(found.total) == {"bytes": 70 * 69 // 2, "pixels": 0, "near": 0}
    assert np.bincount(found.rows).max() == MOST
    assert found.in_a_pair == (70, 70)  # counted before the cut
    assert (found.rows < found.columns).all()


@pytest.mark.parametrize("how", [{"hamming": 65}, {"hamming": -1}, {"fine": 257}])
def test_bits_out_of_range_are_refused(how):
    with pytest.raises(InvalidInputError, match=r"hamming must be in \[0, 64\]"):
        near_duplicates(Images("r", []), **how)


def test_the_cache_goes_on_after_a_kill_and_sees_changes(sets, tmp_path, monkeypatch):
    originals, _ = sets
    cache, module = tmp_path / "cache.npz", "covis.audits.prints"
    decoded = []

    def read(path, *, stop_at=99):
        from covis.rasters import read_picture

        if len(decoded) == stop_at:
            raise KeyboardInterrupt
        decoded.append(path.name)
        return read_picture(path)

    monkeypatch.setattr(f"{module}.TOGETHER", 2)
    monkeypatch.setattr(f"{module}.read_picture", lambda path: read(path, stop_at=4))
    with pytest.raises(KeyboardInterrupt):
        fingerprints(originals, cache=cache, workers=1)
    assert len(decoded) == 4
    monkeypatch.setattr(f"{module}.read_picture", read)
    whole = fingerprints(originals, cache=cache)
    assert sorted(decoded) == sorted(originals.names)  # none twice
    assert np.array_equal(whole.records, fingerprints(originals).records)
    decoded.clear()
    picture(50).save(originals.root / "3.png")
    changed = fingerprints(originals, cache=cache)
    assert decoded == ["3.png"]
    assert (changed.records != whole.records).nonzero()[0].tolist() == [3]


def test_a_damaged_cache_is_refused(sets, tmp_path, refuses_every_cut):
    originals, _ = sets
    cache = tmp_path / "cache.npz"
    few = originals.select([0, 1])
    fingerprints(few, cache=cache)
    refuses_every_cut(cache, lambda: fingerprints(few, cache=cache), cuts=12)
    with pytest.raises(InvalidInputError, match=r"must be called \.npz"):
        fingerprints(few, cache=tmp_path / "cache.txt")
    np.savez(cache, other=np.zeros(3))
    with pytest.raises(DamagedFileError, match=r"covis-fingerprints"):
        fingerprints(few, cache=cache)


def alike(count, *, different, seed=0):
    """Hashes of few kinds, or of as many as there are images, all near each other."""
    random = np.random.default_rng(seed)
    one = np.uint64(1)
    kinds = [one << random.integers(0, 64, different, dtype=np.uint64) for _ in range(5)]
    kind = random.integers(0, different, count)
    return kinds[0][kind], np.stack(kinds[1:], axis=1)[kind]


@pytest.mark.parametrize("different", [1, 3, 40, 300])
@pytest.mark.parametrize("one_set", [False, True])
def test_alike_hashes_are_counted_and_cut_as_by_a_plain_loop(different, one_set):
    a, fine_a = alike(300, different=different)
    b, fine_b = (a, fine_a) if one_set else alike(250, different=different, seed=1)
    coarse = popcount(a[:, None] ^ b[None]).astype(int)
    near = (coarse <= 1) & (popcount(fine_a[:, None] ^ fine_b[None]).sum(axis=2, dtype=int) <= 6)
    near = np.triu(near, 1) if one_set else near
    found = near_hashes(a, b, within=1, fine=(fine_a, fine_b), fine_within=6, one_set=one_set, most=7)
    expected = [(r, c) for r in range(len(a)) for c in sorted(np.flatnonzero(near[r]), key=lambda c, r=r: (coarse[r, c], c))[:7]]
    assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == expected
    assert found.counts[0].tolist() == near.sum(axis=1).tolist()
    assert found.counts[1].tolist() == near.sum(axis=0).tolist()


@pytest.mark.parametrize("different", [2, 3000])
def test_memory_does_not_grow_with_the_pairs(different):
    """4.5 million pairs; as rows, columns and distances they would be 108 MB, before any sorting."""
    hashes, fine = alike(3000, different=different)
    tracemalloc.start()
    try:
        found = near_hashes(hashes, hashes, within=2, fine=(fine, fine), fine_within=8, one_set=True, most=50)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.total == 3000 * 2999 // 2
    assert peak < 80e6


def test_descriptors_are_prepared_once_a_block_of_columns(monkeypatch):
    """Blocks are about square, and the columns stay while the rows pass."""
    monkeypatch.setattr("covis.audits.resemblance.BLOCK", (20, 40))
    prepared = []
    whole = _Vectors._prepared

    def counted(self, rows):
        prepared.append((id(self), rows.start, rows.stop))
        return whole(self, rows)

    monkeypatch.setattr(_Vectors, "_prepared", counted)
    a, b = made(100, 8, 0, "a"), made(120, 8, 1, "b")
    near_descriptors(a, b, within=0.1)
    columns = [one for one in prepared if one[2] - one[1] == 40]
    assert len(columns) == 3
    assert len(prepared) == 3 + 3 * 5


words = st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=30)


def bits(a, b):
    return np.array([[(x ^ y).bit_count() for y in b] for x in a], dtype=int).reshape(len(a), len(b))


@given(words, words, st.integers(0, 64), st.integers(0, 2**32 - 1), st.booleans())
def test_the_search_is_exact(a, b, within, seed, one_set):
    random = np.random.default_rng(seed)
    near = [x ^ (1 << int(bit)) for x in a for bit in random.integers(0, 64, 2)]  # so that some are near
    b = a if one_set else [*b, *near]
    fine = tuple(random.integers(0, 2**63, (len(side), 4), dtype=np.uint64) for side in (a, b))
    if one_set:
        fine = (fine[0], fine[0])
    there = bits(a, b) <= within
    apart = np.array([[sum((int(x) ^ int(y)).bit_count() for x, y in zip(p, q, strict=True)) for q in fine[1]] for p in fine[0]])
    agree = there & (apart.reshape(there.shape) <= 130)
    if one_set:
        there, agree = np.triu(there, 1), np.triu(agree, 1)
    arrays = [np.array(side, dtype=np.uint64) for side in (a, b)]
    for expected, options in ((there, {}), (agree, {"fine": fine, "fine_within": 130})):
        found = near_hashes(*arrays, within=within, one_set=one_set, **options)
        assert sorted(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == list(
            zip(*map(np.ndarray.tolist, expected.nonzero()), strict=True)
        )
        assert found.distances.tolist() == bits(a, b)[found.rows, found.columns].tolist()
        few = near_hashes(*arrays, within=within, one_set=one_set, most=1, **options)
        assert few.total == found.total == expected.sum()
        least = {row: min(d for r, d in zip(found.rows, found.distances, strict=True) if r == row) for row in found.rows.tolist()}
        assert dict(zip(few.rows.tolist(), few.distances.tolist(), strict=True)) == least


@given(st.integers(0, 40), st.integers(0, 90), st.integers(1, 400), st.booleans(), st.sampled_from([None, 1, 3]))
def test_blocks_see_each_pair_once(n, m, size, one_set, most):
    m = n if one_set else m
    values = np.random.default_rng(n + m).integers(0, 9, (n, m)).astype(float)

    def block(rows, columns):
        row, column = np.nonzero(values[rows, columns] <= 3)
        return row + rows.start, column + columns.start, values[rows, columns][row, column]

    near = in_blocks(n, m, block, after=np.arange(n) if one_set else None, most=most, shape=(size % 20 + 1, size % 7 + 1))
    expected = np.triu(values <= 3, 1) if one_set else values <= 3
    assert near.total == expected.sum()
    listed = sorted(pair for row in range(n) for pair in sorted((values[row, c], row, c) for c in np.flatnonzero(expected[row]))[:most])
    assert sorted(zip(near.distances.tolist(), near.rows.tolist(), near.columns.tolist(), strict=True)) == listed


@given(words)
def test_both_ways_to_count_bits(values):
    array = np.array(values, dtype=np.uint64)
    assert _popcount(array).tolist() == popcount(array).tolist() == [value.bit_count() for value in values]


def made(count, dim, seed, prefix):
    random = np.random.default_rng(seed)
    return Descriptors(random.normal(size=(count, dim)).astype(np.float32), tuple(f"{prefix}{i}" for i in range(count)), model="m")


@pytest.mark.parametrize("measure", ["cosine", "l2"])
@pytest.mark.parametrize("one_set", [False, True])
def test_near_descriptors_are_all_found(measure, one_set):
    a = made(150, 3, 1, "a")
    b = a if one_set else made(201, 3, 2, "b")
    x, y = (one.vectors.astype(np.float64) for one in (a, b))
    if measure == "cosine":
        apart = 1 - (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T
    else:
        apart = np.linalg.norm(x[:, None] - y[None], axis=2)
    within = 0.02 if measure == "cosine" else 0.4
    expected = np.triu(apart <= within, 1) if one_set else apart <= within
    found = near_descriptors(a, None if one_set else b, within=within, measure=measure)
    assert sorted(map(list, zip(found.rows.tolist(), found.columns.tolist(), strict=True))) == np.argwhere(expected).tolist()
    assert expected.sum() > 20
    np.testing.assert_allclose(found.distances, apart[found.rows, found.columns], atol=1e-6)


def test_descriptors_that_cannot_be_compared_are_refused():
    with pytest.raises(InvalidInputError, match=r"same dimensions; got 3 and 4"):
        near_descriptors(made(2, 3, 0, "a"), made(2, 4, 0, "b"), within=0.1)
    with pytest.raises(InvalidInputError, match=r"within a number from 0"):
        near_descriptors(made(2, 3, 0, "a"), within=-1.0)
    nothing = Descriptors(np.array([[1, 1], [0, 0]], dtype=np.float32), ("a.jpg", "dark.jpg"), model="m")
    with pytest.raises(InvalidInputError, match=r"that of dark\.jpg is"):
        near_descriptors(nothing, within=0.1)
    with pytest.raises(InvalidInputError, match=r"finite; that of dark\.jpg"):
        near_descriptors(Descriptors(np.full((1, 2), np.nan, dtype=np.float32), ("dark.jpg",), model="m"), within=0.1)


def test_shared_places_are_the_nearest():
    random = np.random.default_rng(0)
    here, there = (random.uniform(0, 300, (n, 2)) + 5e6 for n in (40, 60))
    images = [Images("r", [f"{i}" for i in range(len(xy))], xy=xy, crs="EPSG:32633") for xy in (here, there)]
    apart = np.linalg.norm(here[:, None] - there[None], axis=2)
    found = shared_places(*images, within=20)
    np.testing.assert_allclose(found.nearest, apart.min(axis=1))
    plain = found.as_dict()
    assert plain["near"] == (apart.min(axis=1) <= 20).sum() == len(plain["list"])
    with pytest.raises(InvalidInputError, match=r"within one frame"):
        shared_places(images[0], Images("r", ["a"], xy=[[0, 0]], crs="EPSG:32632"))
    with pytest.raises(InvalidInputError, match=r"must have images"):
        shared_places(images[0], images[1].select([]))
    with pytest.raises(InvalidInputError, match=r"both have poses.*have xy, those of r neither"):
        shared_places(images[0], Images("r", ["a"], crs="EPSG:32633"))


def test_shared_places_of_poses_lie_in_space():
    """Which axis is the vertical is not known: a frame 2 m above is 2 m away, even where the other set has a plan too."""
    pose = np.tile(np.eye(4), (2, 1, 1))
    pose[:, 2, 3] = [0.0, 2.0]
    posed, low = Images("r", ["a", "b"], pose=pose), Images("r", ["c"], pose=pose[:1], xy=[[0, 0]])
    assert shared_places(posed, posed.select([0])).nearest.tolist() == [0, 2]
    assert shared_places(posed, low).nearest.tolist() == [0, 2]
    assert shared_places(Images("r", ["a", "b"], pose=pose, xy=[[0, 0], [0, 0]]), low).nearest.tolist() == [0, 0]


def street(**queries):
    database = Images(
        "r",
        ["north", "south", "round", "who"],
        xy=[[0, 0], [0, 100], [0, 200], [0, 300]],
        heading=[0, 180, 90, np.nan],
        flags={"panorama": [False, False, True, False]},
    )
    names = ["with", "against", "panorama", "nobody knows", "alone", "lost"]
    asked = Images("r", names, xy=[[1, 0], [1, 100], [1, 200], [1, 300], [999, 0], [1, 0]], heading=[10, 10, 300, 10, 0, np.nan], **queries)
    return Scene("street", "test", database, asked)


def test_queries_that_face_away():
    found = facing_away(street(), "radius/25")
    assert found.answerable.tolist() == [True, True, True, True, False, True]
    assert found.away.tolist() == [False, True, False, False, False, False]
    assert found.unknown.tolist() == [False, False, False, True, False, True]
    assert found.turn[:3].tolist() == [10, 170, 0]
    assert (found.positives, found.asked, found.share) == ((5, 1), 6, 0.2)
    plain = found.as_dict()
    assert plain["list"] == [{"query": "against", "smallest turn": 170.0, "nearest metres": 1.0}]
    assert facing_away(street(), "radius/25", heading=170).away.sum() == 0  # inclusive
    # A radius that reaches the others: one of them looks the same way.
    assert facing_away(street(), "radius/110").away.sum() == 0


def test_positives_that_share_nothing_by_the_labels():
    scene = street()
    matrix = np.zeros((6, 4))
    matrix[0, 0] = 0.4
    labels = Labels(
        sparse.csr_array(matrix),
        scene.queries.names,
        scene.database.names,
        rule="by hand",
        excluded=sparse.csr_array(np.eye(6, 4, k=-2) > 0),
    )
    found = facing_away(scene, "radius/25", labels=labels)
    assert found.nothing.tolist() == [False, True, True, True, False, True]
    excluded = np.zeros((6, 4), dtype=bool)
    excluded[2, 2] = True  # a pair that is none
    labels = Labels(
        sparse.csr_array(matrix), scene.queries.names, scene.database.names, rule="by hand", excluded=sparse.csr_array(excluded)
    )
    assert facing_away(scene, "radius/25", labels=labels).nothing.tolist() == [False, True, False, True, False, True]


def test_facing_by_poses_and_what_is_refused(town):
    scene = town[0]
    posed = Scene("s", "test", *(Images("r", images.names, xy=images.xy, pose=images.pose) for images in (scene.database, scene.queries)))
    by_heading, by_pose = (facing_away(one, "radius/25") for one in (scene, posed))
    np.testing.assert_allclose(by_pose.turn, by_heading.turn, atol=3)  # a camera may be pitched a little
    with pytest.raises(InvalidInputError, match=r"must have headings or poses"):
        facing_away(Scene("s", "test", *(Images("r", side.names, xy=side.xy) for side in (scene.database, scene.queries))))
    with pytest.raises(InvalidInputError, match=r"heading must be degrees"):
        facing_away(scene, heading=200)


@given(st.integers(0, 10_000), st.sampled_from([10.0, 25.0, 60.0]), st.sampled_from([40.0, 90.0]))
def test_facing_against_a_plain_loop(seed, radius, heading):
    random = np.random.default_rng(seed)
    sides = [
        Images("r", [f"{side}{i}" for i in range(n)], xy=random.uniform(0, 80, (n, 2)), heading=random.uniform(0, 359, n).round())
        for side, n in (("d", 12), ("q", 9))
    ]
    found = facing_away(Scene("s", "test", *sides), f"radius/{radius:g}", heading=heading)
    for q, (at, looks) in enumerate(zip(sides[1].xy, sides[1].heading, strict=True)):
        turns = []
        for there, other in zip(sides[0].xy, sides[0].heading, strict=True):
            if np.hypot(*(at - there)) <= radius:
                turns.append(min(abs(looks - other), 360 - abs(looks - other)))
        assert found.away[q] == (bool(turns) and min(turns) > heading)


def tampered(labels, **entries):
    matrix = labels.matrix.tolil()
    for (row, column), value in entries["values"].items():
        matrix[row, column] = value
    return Labels(
        matrix.tocsr(), labels.query_names, labels.database_names, rule=labels.rule, parameters=labels.parameters, excluded=labels.excluded
    )


def walk(n=60, *, seed=0):
    random = np.random.default_rng(seed)
    return Images("r", [f"{i:02d}" for i in range(n)], xy=random.uniform(0, 150, (n, 2)), heading=random.uniform(0, 359, n))


def test_sound_labels_show_nothing():
    images = walk()
    labels = label_by_view(images, images, max_heading_difference=90)
    found = label_sanity(labels, Scene("s", "train", images, images), near=1.0)
    assert {name: one["pairs"] for name, one in found.contradictions.items()} == {
        "high and far": 0,
        "high and opposite": 0,
        "nothing though near": 0,
        "asymmetric": 0,
    }
    assert (found.reference["rule"], found.reference["queries"], found.reference["different"]) == ("view", 60, 0)
    assert found.reference["parameters"]["max_heading_difference"] == 90
    assert sum(row["pairs"] for row in found.by_distance) == 60 * 59
    assert not found.values["only 0 and 1"]


def test_tampered_labels_are_found():
    images = walk()
    labels = label_by_view(images, images, max_heading_difference=90)
    apart = np.linalg.norm(images.xy[:, None] - images.xy[None], axis=2)
    far = np.unravel_index(apart.argmax(), apart.shape)
    turn = np.abs(images.heading[:, None] - images.heading[None])
    turn = np.minimum(turn, 360 - turn)
    high = np.argwhere((labels.matrix.toarray() >= 0.5) & (turn < 20))[0]
    found = label_sanity(
        tampered(labels, values={tuple(far): 0.9, tuple(high): 0.0}),
        Scene("s", "train", images, images),
        near=apart[tuple(high)] + 0.01,
    )
    (one,) = found.contradictions["high and far"]["list"]
    assert (one["query"], one["database"], one["similarity"]) == (images.names[far[0]], images.names[far[1]], 0.9)
    assert one["metres"] == pytest.approx(apart.max(), abs=1e-3)
    nothing = [(one["query"], one["database"]) for one in found.contradictions["nothing though near"]["list"]]
    assert (images.names[high[0]], images.names[high[1]]) in nothing
    assert found.contradictions["asymmetric"]["pairs"] == 2
    assert found.contradictions["asymmetric"]["largest"] == pytest.approx(0.9)
    assert found.reference["different"] == 2
    assert found.reference["largest difference"] == pytest.approx(0.9)
    assert {(one["query"], one["by the rule"]) for one in found.reference["list"]} >= {(images.names[far[0]], 0.0)}


def test_facing_pairs_contradict_and_only_zeros_and_ones_are_said():
    images = Images("r", ["a", "b"], xy=[[0, 0], [0, 40]], heading=[0, 180])
    found = label_sanity(label_by_distance(images, images, half=50, decay="step"), Scene("s", "train", images, images))
    assert found.contradictions["high and opposite"]["pairs"] == 2
    assert found.values["only 0 and 1"]
    assert found.by_turn[-1]["pairs"] == 2
    assert found.by_turn[-1]["positive"] == 1.0


def test_labels_whose_rule_is_not_known():
    images = walk(20)
    labels = label_by_view(images, images)
    foreign = Labels(labels.matrix, labels.query_names, labels.database_names, rule="gcl-h5", excluded=labels.excluded)
    scene = Scene("s", "train", images, images)
    assert "gcl-h5" in label_sanity(foreign, scene).reference["skipped"]
    assert label_sanity(foreign, scene, reference="view").reference["different"] == 0
    assert label_sanity(foreign, scene, reference="none").reference["skipped"] == "not asked for"
    with pytest.raises(InvalidInputError, match=r"reference must be auto, none"):
        label_sanity(foreign, scene, reference="sight")
    with pytest.raises(InvalidInputError, match=r"must be of the images of scene 's'"):
        label_sanity(foreign, Scene("s", "train", walk(19), walk(19)))


def test_sanity_without_places_or_headings():
    names = Images("r", ["a", "b", "c"])
    labels = Labels(sparse.csr_array(np.array([[0, 1.0, 0.2], [0.5, 0, 0], [0, 0, 0]])), names.names, names.names, rule="by hand")
    found = label_sanity(labels, Scene("s", "train", names, names))
    assert list(found.contradictions) == ["asymmetric"]
    assert (found.by_distance, found.by_turn) == ([], [])


@given(st.integers(0, 1000), st.integers(1, 200))
def test_quantiles_of_bins(seed, count):
    random = np.random.default_rng(seed)
    values, similarity = random.uniform(0, 30, count), np.where(random.random(count) < 0.5, 0, random.random(count))
    bins = Bins((0.0, 10.0, np.inf), 0.5)
    bins.add(values[: count // 2], similarity[: count // 2])
    bins.add(values[count // 2 :], similarity[count // 2 :])
    for row, chosen in zip(bins.rows(), (values <= 10, values > 10), strict=True):
        mine = similarity[chosen]
        assert row["pairs"] == len(mine)
        if len(mine):
            assert row["mean"] == pytest.approx(mine.mean(), abs=1e-6)
            assert row["positive"] == pytest.approx((mine >= 0.5).mean(), abs=1e-6)
            for name, q in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
                exact = np.quantile(mine, q, method="inverted_cdf")
                assert exact - 1e-9 <= row[name] <= exact + 1e-3 + 1e-9


class Network(nn.Module):
    """A convolution, BatchNorm and a mean; `stubborn`: its BatchNorm stays in training mode."""

    def __init__(self, *, stubborn=False, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.stubborn = stubborn
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = dropout

    def train(self, mode=True):
        return super().train(mode or self.stubborn)

    def forward(self, x):
        return nn.functional.dropout(self.layers(x), self.dropout, training=True)


def stubborn_network():
    return Network(stubborn=True)


SMALL = ModelSettings(height=24, width=32)


def photographs(count=12):
    return [picture(seed, size=(32, 24)) for seed in range(count)]


def test_batchnorm_in_eval_mode_passes(one_thread):
    found = batch_dependence(ForeignModel(Network(), name="n", settings=SMALL), photographs())
    assert not found.depends
    assert found.relative <= 1e-5
    assert found.verdict.startswith("equal to ")
    assert [way["batch"] for way in found.ways] == [1, 2, 2, 8, 8, 12, 12]


def test_batchnorm_in_training_mode_is_found_and_left_as_it_was(one_thread):
    model = ForeignModel(stubborn_network(), name="n", settings=SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = batch_dependence(model, photographs())
    assert found.depends
    assert found.verdict.startswith("depends on the batch")
    assert found.relative > 0.01
    assert found.ways[0]["relative"] == 0  # alone, and alone again
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_model_that_draws_is_not_repeatable(one_thread):
    torch.manual_seed(1)
    found = batch_dependence(ForeignModel(Network(dropout=0.5), name="n", settings=SMALL), photographs(4))
    assert found.verdict.startswith("not repeatable")


class Grey:
    """A describer that is no module: the mean colour, or what of it the batch has not got."""

    dim, digest, engine, height, width, resize = 3, "0" * 16, "onnx", 8, 8, "pil"

    def __init__(self, centred):
        self.centred = centred

    def describe_pixels(self, pixels):
        means = pixels.float().mean(dim=(2, 3)).numpy()
        return means - means.mean(axis=0) / 2 if self.centred else means


@pytest.mark.parametrize("centred", [False, True])
def test_any_describer(centred):
    found = batch_dependence(Grey(centred), photographs(6), sizes=(3,))
    assert found.depends == centred
    assert len(found.ways) == 3


def test_a_sample_of_one_is_refused():
    with pytest.raises(InvalidInputError, match=r"At least 2 images"):
        batch_dependence(Grey(False), photographs(1))
    with pytest.raises(InvalidInputError, match=r"batches of at least 2"):
        batch_dependence(Grey(False), photographs(3), sizes=(1,))


def test_a_sheet_of_suspects(sets, tmp_path):
    originals, changed = sets
    pairs = [(changed.path(row), originals.path(row), f"pair {row}") for row in range(4)]
    with Image.open(suspect_sheet(pairs, tmp_path / "sheet.png", width=80)) as sheet:
        assert sheet.width == 10 + 3 * 190
        assert np.asarray(sheet)[60:100, 20:80].std() > 10  # a picture is there
    with pytest.raises(CovisError, match=r"needs a pair"):
        suspect_sheet([], tmp_path / "none.png")
