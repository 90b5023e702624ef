"""Truth: every pair by a plain loop, and scenes that are joined."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from covis.errors import InvalidInputError, UnknownNameError
from covis.images import Images, Scene
from covis.labels import Labels
from covis.protocols import Protocol, protocol
from covis.truths import depth, join, joint_truth, truth


def city(seed, *, queries=30, database=40, name="town", root="msls", spread=60, **columns):
    """Two sides of sequences with holes, positions on a whole-metre grid (so that many pairs are at a radius), and flags."""
    random = np.random.default_rng(seed)

    def side(which, count):
        sequence = np.sort(random.integers(0, max(1, count // 8), count))
        frame = np.cumsum(1 + (random.random(count) < 0.15))
        flags = {flag: random.random(count) < share for flag, share in (("all", 0.7), ("d2n", 0.4), ("panorama", 0.2))}
        return Images(
            root,
            [f"{name}/{which}/images/{i:03d}.jpg" for i in range(count)],
            xy=random.integers(0, spread, size=(count, 2)) + np.array([500_000.0, 6_200_000.0]),
            heading=random.integers(0, 72, size=count) * 5.0,
            sequence=[f"{which}{one}" for one in sequence],
            frame=frame,
            flags=flags,
            crs="EPSG:32633",
            **columns,
        )

    return Scene(name, "test", side("database", database), side("query", queries))


def loops(scene, rule):
    """Names, who is asked and searched, and the positives, pair by pair and frame by frame."""

    def windows(images, length):
        rows = []
        for i in range(len(images)):
            row = list(range(i - length // 2, i + length // 2 + 1))
            if length == 1 or (
                row[0] >= 0
                and row[-1] < len(images)
                and len({images.sequence[r] for r in row}) == 1
                and all(images.frame[b] - images.frame[a] == 1 for a, b in itertools.pairwise(row))
            ):
                rows.append(row)
        return rows

    def has(images, row, flags):
        return all(images.flags[flag.removeprefix("-")][row[len(row) // 2]] != flag.startswith("-") for flag in flags)

    def near(q, d):
        if rule.positive == "frames":
            apart = abs(int(scene.queries.frame[q]) - int(scene.database.frame[d]))
            return apart < rule.threshold if rule.strict else apart <= rule.threshold
        east, north = scene.queries.xy[q] - scene.database.xy[d]
        metres = (east**2 + north**2) ** 0.5
        turn = abs(scene.queries.heading[q] - scene.database.heading[d]) % 360
        close = metres < rule.threshold if rule.strict else metres <= rule.threshold
        return close and (rule.heading is None or min(turn, 360 - turn) <= rule.heading)

    asking, found = windows(scene.queries, rule.windows[0]), windows(scene.database, rule.windows[1])
    asked = [has(scene.queries, row, rule.asked) for row in asking]
    searched = [has(scene.database, row, rule.searched) for row in found]
    correct = [has(scene.database, row, rule.searched + rule.correct) for row in found]
    positives = np.zeros((len(asking), len(found)), dtype=bool)
    for (q, query), (d, entry) in itertools.product(enumerate(asking), enumerate(found)):
        same = any(scene.queries.path(i) == scene.database.path(j) for i in query for j in entry)
        positives[q, d] = asked[q] and correct[d] and not same and any(near(i, j) for i in query for j in entry)
    names = [
        tuple(",".join(side.names[r] for r in row) for row in rows) for side, rows in ((scene.queries, asking), (scene.database, found))
    ]
    return names, asked, searched, correct, positives, [row[len(row) // 2] for row in asking]


@given(
    seed=st.integers(0, 999),
    training=st.booleans(),
    rule=st.builds(
        lambda metres, heading, windows, strict, asked, searched, correct: Protocol(
            "x",
            metres,
            positive="distance",
            heading=heading,
            windows=windows,
            strict=strict,
            asked=asked,
            searched=searched,
            correct=correct,
        ),
        metres=st.sampled_from([1.0, 5.0, 12.5, 25.0]),
        heading=st.sampled_from([None, 0.0, 40.0, 180.0]),
        windows=st.tuples(*[st.sampled_from([1, 3, 5])] * 2),
        strict=st.booleans(),
        asked=st.sampled_from([(), ("all", "-panorama"), ("d2n",)]),
        searched=st.sampled_from([(), ("-panorama",)]),
        correct=st.sampled_from([(), ("d2n", "-panorama")]),
    ),
)
def test_by_distance_it_is_the_loops(seed, training, rule):
    scene = city(seed)
    scene = dataclasses.replace(scene, queries=scene.database) if training else scene
    check(truth(scene, rule), scene, rule)


@given(
    seed=st.integers(0, 999),
    frames=st.sampled_from([0.0, 1.0, 2.5, 7.0]),
    strict=st.booleans(),
    windows=st.tuples(*[st.sampled_from([1, 3])] * 2),
)
def test_by_frames_it_is_the_loops(seed, frames, strict, windows):
    scene = city(seed)
    scene = Scene("s", "test", *(dataclasses.replace(side, sequence=["one"] * len(side)) for side in (scene.database, scene.queries)))
    rule = Protocol("x", frames, positive="frames", strict=strict, windows=windows, correct=("-panorama",))
    check(truth(scene, rule), scene, rule)


def check(found, scene, rule):
    (queries, database), asked, searched, correct, positives, middle = loops(scene, rule)
    assert (found.query_names, found.database_names) == (queries, database)
    assert (found.asked.tolist(), found.searched.tolist(), found.eligible.tolist()) == (asked, searched, correct)
    np.testing.assert_array_equal(found.positives.toarray(), positives)
    assert found.answerable.tolist() == positives.any(axis=1).tolist()
    assert found.query_rows.tolist() == middle
    np.testing.assert_array_equal(found.queries_xy, scene.queries.xy[middle])
    assert found.positives.dtype == found.excluded.dtype == bool
    assert found.positives.shape == found.excluded.shape == (len(queries), len(database))
    assert found.similarity is None
    if rule.windows == (1, 1):
        assert bool(found.excluded.nnz) == scene.training


def test_the_radius_itself_is_inside_and_utm_costs_nothing():
    """15² + 20² = 25²; a billionth of a metre more is outside, also where the coordinates are six million metres."""
    for east, north in ((0.0, 0.0), (500_000.0, 6_200_000.0)):
        there = Images("r", ["a", "b"], xy=[[east + 15, north + 20], [east + 15 + 1e-9, north + 20]])
        scene = Scene("s", "test", there, Images("r", ["q"], xy=[[east, north]]))
        assert truth(scene, "radius/25").positives.toarray().tolist() == [[True, False]]
        assert truth(scene, Protocol("x", 25.0, positive="distance", strict=True)).positives.nnz == 0
    assert truth(scene, "radius/25").database_xy.tolist() == there.xy.tolist()


def test_headings_turn_through_north():
    there = Images("r", ["a", "b", "c"], xy=np.zeros((3, 2)), heading=[350, 30.5, 40])
    scene = Scene("s", "test", there, Images("r", ["q"], xy=[[0, 0]], heading=[0.3]))
    assert truth(scene, "radius/25/30.2").positives.toarray().tolist() == [[True, True, False]]


def test_by_similarity_it_is_the_labels():
    queries, database = Images("r", ["p", "q"], flags={"night": [True, False]}), Images("r", ["a", "b", "c"])
    matrix = sparse.csr_array([[0.5, 0.4999, 0], [0.7, 0.5, 0.9]])
    out = sparse.csr_array(np.array([[False, False, True], [False, False, True]]))
    labels = Labels(matrix, queries.names, database.names, rule="x", excluded=out)
    scene = Scene("s", "test", database, queries)
    found = truth(scene, "graded/0.5", labels)
    assert found.positives.toarray().tolist() == [[True, False, False], [True, True, False]]
    assert found.excluded.toarray().tolist() == out.toarray().tolist()
    assert found.similarity.toarray().tolist() == [[0.5, 0.4999, 0], [0.7, 0.5, 0]]
    assert truth(scene, Protocol("x", 0.5, strict=True, asked=("-night",)), labels).positives.toarray().tolist() == [[0] * 3, [1, 0, 0]]
    assert repr(found) == "Truth(2 of 2 asked, 3 of 3 searched, 3 positives)"


def test_what_labels_leave_out_is_no_business_of_a_protocol_by_distance():
    """A rule leaves panoramas out; under msls-val/gcl they take ranks, whether labels are at hand or not."""
    scene = city(1)
    out = np.zeros((30, 40), dtype=bool)
    first = truth(scene, "radius/25").positives.tocoo().coords
    out[first[0][0], first[1][0]] = True
    labels = Labels(sparse.csr_array((30, 40)), scene.queries.names, scene.database.names, rule="x", excluded=sparse.csr_array(out))
    with_labels = truth(scene, "radius/25", labels)
    assert with_labels.positives.nnz == len(first[0])
    assert with_labels.excluded.nnz == 0
    assert with_labels.similarity.shape == (30, 40)
    assert truth(scene, Protocol("x", 25.0, positive="distance", windows=(3, 1)), labels).similarity is None


def test_an_image_with_itself_is_no_pair_however_it_is_named():
    queries = Images("r/town", ["1.jpg", "2.jpg"], xy=np.zeros((2, 2)))
    database = Images("r", ["town/2.jpg", "town/3.jpg"], xy=np.zeros((2, 2)))
    found = truth(Scene("s", "test", database, queries), "radius/1")
    assert found.excluded.toarray().tolist() == [[False, False], [True, False]]
    assert found.positives.toarray().tolist() == [[True, True], [False, True]]


def test_an_empty_side_has_no_positives():
    scene = city(1)
    for rule in (protocol("radius/25"), protocol("radius/25/40"), Protocol("x", 25.0, positive="distance", windows=(3, 3))):
        for empty in (
            dataclasses.replace(scene, queries=scene.queries.select([])),
            dataclasses.replace(scene, database=scene.database.select([])),
        ):
            found = truth(empty, rule)
            assert found.positives.nnz == 0
            assert found.positives.shape == (len(found.query_names), len(found.database_names))


PLAIN = Scene("s", "test", Images("there", ["a"]), Images("here", ["q"], flags={"night": [True]}))
PLACED = city(3)


def blind(side, rows):
    heading = side.heading.copy()
    heading[rows] = np.nan
    return dataclasses.replace(side, heading=heading)


@pytest.mark.parametrize(("scene", "rule", "said"), [
    (PLAIN, "graded/0.5", "protocol graded/0.5 looks at graded similarity, and scene 's' comes without labels.*covis label"),
    (PLAIN, "radius/25", "here must have xy"),
    (PLAIN, "nordland/pnv", "here must have frame"),
    (PLACED, "nordland/pnv", "frame numbers.*queries of scene 'town' are 3 sequences"),
    (PLAIN, "msls-val/official", "msls-val/official asks the queries of scene 's' for the flag 'all'; those images have night.*layout"),
    (PLAIN, Protocol("x", 25.0, positive="distance", searched=("day",)), "searches the database of scene 's' for the flag 'day'.*no flags"),
    (PLAIN, Protocol("x", 25.0, positive="distance", correct=("day",)), "scores the database"),
    (dataclasses.replace(PLACED, queries=dataclasses.replace(PLACED.queries, heading=None)), "radius/25/40", "must have heading"),
    (dataclasses.replace(PLACED, queries=blind(PLACED.queries, [4, 7]), database=blind(PLACED.database, [9])), "radius/25/40",
     "2 of 30 queries .the first is 'town/query/images/004.jpg'. and 1 of 40 database images"),
    (PLACED, "radius/x", "metres for R"),
])  # fmt: skip
def test_what_a_scene_lacks_is_said(scene, rule, said):
    with pytest.raises((InvalidInputError, UnknownNameError), match=said):
        truth(scene, rule)


def test_unknown_headings_of_images_that_do_not_count_do_not_matter():
    scene = dataclasses.replace(PLACED, queries=blind(PLACED.queries, np.flatnonzero(~PLACED.queries.flags["all"])))
    rule = dataclasses.replace(protocol("radius/25/40"), asked=("all",))
    assert truth(scene, rule).positives.nnz == truth(PLACED, rule).positives.nnz > 0
    with pytest.raises(InvalidInputError, match="queries"):
        truth(scene, "radius/25/40")


def test_labels_of_other_images_are_refused():
    scene = city(1)
    for names in ((scene.queries.names[::-1], scene.database.names), (scene.queries.names, scene.database.names[:-1])):
        labels = Labels(sparse.csr_array(tuple(map(len, names))), *names, rule="x")
        for rule in ("graded/0.5", "radius/25"):
            with pytest.raises(InvalidInputError, match="labels of scene 'town' must name its"):
                truth(scene, rule, labels)


# Several scenes.


def test_joined_scenes_keep_what_they_share(tmp_path):
    a, b = (city(seed, name=name, root=tmp_path / "msls") for seed, name in ((1, "cph"), (2, "sf")))
    joined = join([a, b])
    assert (joined.name, joined.split, joined.database.root) == ("cph+sf", "test", tmp_path / "msls")
    assert joined.queries.names == a.queries.names + b.queries.names
    assert joined.queries.crs == "EPSG:32633"
    assert joined.queries.sequence[0].startswith("cph/")
    for column in ("xy", "heading", "frame"):
        both = [getattr(side, column) for side in (a.database, b.database)]
        np.testing.assert_array_equal(getattr(joined.database, column), np.concatenate(both))
    assert joined.database.flags["d2n"].tolist() == [*a.database.flags["d2n"], *b.database.flags["d2n"]]
    assert join([a]) is a


def test_joined_names_are_relative_to_the_common_parent(tmp_path):
    parts = [
        Scene(name, "test", *(
            Images(tmp_path / name / folder, ["1.jpg", "2.jpg"], xy=np.zeros((2, 2)), pose=[np.eye(4)] * 2, place=[4, 4 + number],
                   depth=["1.png", "2.png"], segmentation=None if number else ["s1.png", "s2.png"], time=[1, np.nan], crs=crs,
                   flags={"night": [True, False], name: [True, True]})
            for folder in ("map", "ask")
        ))
        for number, (name, crs) in enumerate((("cph", "EPSG:32633"), ("sf", "EPSG:32610")))
    ]  # fmt: skip
    joined = join(parts)
    assert joined.database.root == tmp_path
    assert joined.database.names == ("cph/map/1.jpg", "cph/map/2.jpg", "sf/map/1.jpg", "sf/map/2.jpg")
    assert joined.queries.path(3) == parts[1].queries.path(1)
    assert joined.queries.depth == ("cph/ask/1.png", "cph/ask/2.png", "sf/ask/1.png", "sf/ask/2.png")
    assert joined.queries.place.tolist() == [0, 0, 1, 2]
    assert list(joined.queries.flags) == ["night"]
    for column in ("xy", "pose", "segmentation", "crs"):  # of two frames, or not everyone's
        assert getattr(joined.queries, column) is None, column
    assert joined.queries.time is not None


def test_what_cannot_be_joined():
    one = city(1)
    with pytest.raises(InvalidInputError, match="one or more"):
        join([])
    with pytest.raises(InvalidInputError, match=r"one split; got \['test', 'val'\]"):
        join([one, dataclasses.replace(one, split="val")])
    with pytest.raises(InvalidInputError, match="stands twice"):
        join([one, one])
    with pytest.raises(InvalidInputError, match=r"'town/query/images/000\.jpg' stands in two"):
        joint_truth([one, one], [truth(one, "radius/25")] * 2)


@pytest.mark.parametrize("windows", [(1, 1), (3, 1), (3, 3)])
@pytest.mark.parametrize("roots", [("msls", "msls"), ("data/cph", "data/sf")])
def test_a_joint_truth_is_the_blocks_of_its_scenes(windows, roots):
    """Positives never cross scenes, although all cities lie at the same place here; names are those of the joined scene."""
    scenes = [city(seed, name=name, root=root, spread=30) for seed, name, root in zip((1, 2), ("cph", "sf"), roots, strict=True)]
    rule = Protocol("x", 25.0, positive="distance", windows=windows, asked=("all",), searched=("-panorama",), correct=("d2n",))
    parts = [truth(scene, rule) for scene in scenes]
    joint, whole = joint_truth(scenes, parts), truth(join(scenes), rule)
    q, d = parts[0].positives.shape
    expected = whole.positives.toarray()
    expected[:q, d:] = expected[q:, :d] = False
    np.testing.assert_array_equal(joint.positives.toarray(), expected)
    assert expected.any()
    for name in ("query_names", "database_names"):
        assert getattr(joint, name) == getattr(whole, name)
    for name in ("asked", "searched", "eligible", "queries_xy", "database_xy"):
        np.testing.assert_array_equal(getattr(joint, name), getattr(whole, name))
    assert joint.excluded.shape == joint.positives.shape
    assert joint.windows == windows
    assert joint_truth(scenes[:1], parts[:1]) is parts[0]


def test_joint_labels_and_frames():
    scenes = [dataclasses.replace(city(seed, name=name)) for seed, name in ((1, "cph"), (2, "sf"))]
    labels = [
        Labels(sparse.random_array((30, 40), density=0.1, rng=np.random.default_rng(seed)), s.queries.names, s.database.names, rule="x")
        for seed, s in enumerate(scenes)
    ]
    parts = [truth(scene, "graded/0.5", label) for scene, label in zip(scenes, labels, strict=True)]
    joint = joint_truth(scenes, parts)
    assert joint.similarity.toarray()[30:, 40:].tolist() == labels[1].matrix.toarray().tolist()
    assert joint.similarity.nnz == sum(label.matrix.nnz for label in labels)
    assert joint_truth(scenes, [parts[0], dataclasses.replace(parts[1], similarity=None)]).similarity is None
    assert joint.queries_xy is not None
    apart = [
        Scene(s.name, s.split, *(dataclasses.replace(i, crs=crs) for i in (s.database, s.queries)))
        for s, crs in zip(scenes, ("EPSG:32633", "EPSG:32610"), strict=True)
    ]
    assert joint_truth(apart, parts).queries_xy is None


def test_every_query_of_pitts30k_has_a_positive(covis_data):
    """6,816 x 10,000: the farthest nearest database view is 24.45 m away."""
    with np.load(covis_data / "metadata" / "pitts30k" / "pitts30k_test.npz", allow_pickle=False) as stored:
        here, there = stored["utmQ"], stored["utmDb"]
    sides = [Images(Path(which), [f"{i}.jpg" for i in range(len(xy))], xy=xy) for which, xy in (("d", there), ("q", here))]
    scene = Scene("pitts30k", "test", *sides)
    found = truth(scene, "radius/25")
    assert found.positives.shape == (6816, 10000)
    assert found.answerable.all()
    rows, columns = found.positives.tocoo().coords
    gaps = np.hypot(*(here[rows] - there[columns]).T)
    nearest = np.minimum.reduceat(gaps, found.positives.indptr[:-1])
    assert round(float(nearest.max()), 2) == 24.45
    assert np.count_nonzero(~truth(scene, "radius/24.4").answerable) == np.count_nonzero(nearest > 24.4) > 0
    for query in (0, 3000, 6815):  # and a few rows by hand
        by_hand = [d for d in range(10000) if ((here[query] - there[d]) ** 2).sum() <= 625]
        assert found.positives.indices[found.positives.indptr[query] : found.positives.indptr[query + 1]].tolist() == by_hand


def test_the_depth_of_a_search_counts_what_takes_no_rank():
    xy = np.arange(12.0).reshape(6, 2)
    database = Images("r", [f"{n}.jpg" for n in range(6)], xy=xy, flags={"far": np.arange(6) < 2})
    queries = Images("r", ["1.jpg", "q.jpg"], xy=xy[:2])
    scene = Scene("s", "test", database, queries)
    assert depth(scene, "radius/5", k=3) == 4, "an image that is also in the database"
    assert depth(scene, Protocol("x", 5.0, positive="distance", searched=("far",)), k=3) == 3 + 4 + 1
    assert depth(scene, Protocol("x", 5.0, positive="distance", searched=("-far",)), k=3) == 3 + 2 + 1
    assert depth(Scene("s", "test", database, Images("r", ["q.jpg"], xy=[[0, 0]])), "radius/5", k=3) == 3


def placed(places, *, asked=(0,), times=None, there_times=None):
    """A database on a line, an image each metre, with places; queries at its beginning with these places."""
    there = Images(
        "r", [f"d{i}.jpg" for i in range(len(places))], xy=[[i, 0.0] for i in range(len(places))], place=places, time=there_times
    )
    names = [f"q{i}.jpg" for i in range(len(asked))]
    return Scene("line", "test", there, Images("r", names, xy=[[0.0, 0.0]] * len(names), place=asked, time=times))


def test_by_place_it_is_the_same_number():
    found = truth(placed([5, 7, 5, 9], asked=[5, 8, 9]), "same-place")
    assert found.positives.toarray().tolist() == [[True, False, True, False], [False] * 4, [False, False, False, True]]
    assert found.answerable.tolist() == [True, False, True]
    for side in ("queries", "database"):
        scene = placed([5, 7])
        with pytest.raises(InvalidInputError, match=rf"same-place looks at the places of images.*the {side} of scene 'line' have none"):
            truth(dataclasses.replace(scene, **{side: dataclasses.replace(getattr(scene, side), place=None)}), "same-place")


def test_images_of_the_querys_own_time_are_no_pairs():
    """As Tokyo Time Machine is judged: what was taken with the query is deleted from the list."""
    found = truth(placed([0, 1, 2], asked=[0, 0], times=[2009.5, 2013.25], there_times=[2009.5, 2013.25, 2009.5]), "tokyo-tm/netvlad")
    assert found.excluded.toarray().tolist() == [[True, False, True], [False, True, False]]
    assert found.positives.toarray().tolist() == [[False, True, False], [True, False, True]]
    assert depth(placed([0, 1, 2], times=[1.0], there_times=[1.0, 1.0, 2.0]), "tokyo-tm/netvlad", k=1) == 3
    lonely = truth(
        placed([0, 1], asked=[0, 0], times=[1.0, 2.0], there_times=[1.0, 1.0]),
        dataclasses.replace(protocol("tokyo-tm/netvlad"), denominator="with-positive"),
    )
    assert np.diff(lonely.positives.indptr).tolist() == [0, 2]
    assert lonely.answerable.tolist() == [True, True], "its only positives are of its own time: it counts, and is a miss"
    with pytest.raises(InvalidInputError, match="for 1 images"):
        truth(placed([0, 1], times=[np.nan], there_times=[1.0, 2.0]), "tokyo-tm/netvlad")
    with pytest.raises(InvalidInputError, match="time"):
        truth(placed([0, 1]), "tokyo-tm/netvlad")


def test_the_depth_counts_the_largest_places():
    """Three places of 4, 2 and 1 images: for two of them, at worst the four come first, then one more."""
    scene = placed([0, 0, 0, 0, 1, 1, 2])
    assert [depth(scene, "tokyo247/netvlad", k=k) for k in (1, 2, 3, 9)] == [1, 5, 7, 13]
    assert depth(scene, "tokyo247/gmberton", k=3) == 3
    assert truth(scene, "tokyo247/netvlad").groups.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert truth(scene, "tokyo247/gmberton").groups is None
    without = dataclasses.replace(scene, database=dataclasses.replace(scene.database, place=None))
    with pytest.raises(InvalidInputError, match=r"panorama of a cutout.*database of scene 'line'"):
        truth(without, "tokyo247/netvlad")


def test_places_of_joined_scenes_stay_apart():
    rule = dataclasses.replace(protocol("tokyo247/netvlad"), scope="joint")
    scenes = [dataclasses.replace(placed([0, 0, 1]), name=name) for name in ("a", "b")]
    scenes = [
        dataclasses.replace(
            s, database=dataclasses.replace(s.database, root=Path(s.name)), queries=dataclasses.replace(s.queries, root=Path(s.name))
        )
        for s in scenes
    ]
    assert joint_truth(scenes, [truth(scene, rule) for scene in scenes]).groups.tolist() == [0, 0, 1, 2, 2, 3]
