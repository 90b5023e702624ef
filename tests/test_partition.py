"""Ranks counted exactly in blocks, held against a plain loop; and the partition of pairs by them, in memory and on disk."""

import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from covis.descriptors import Descriptors
from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.files import load_arrays, save_arrays
from covis.labels import Labels
from covis.structure.partition import GROUPS, Partition, grouped, partition
from covis.structure.ranks import RANKS, ranks

GRADED, BINARY = st.sampled_from([0.0, 0.0, 0.2, 0.5, 0.5 - 5e-10, 0.7, 0.7 + 5e-10, 1.0]), st.sampled_from([0.0, 1.0])


def labelled(matrix, excluded=None):
    matrix = np.asarray(matrix, dtype=float)
    queries, database = (tuple(f"{side}{i}" for i in range(n)) for side, n in zip("qd", matrix.shape, strict=True))
    mask = None if excluded is None else sparse.csr_array(np.asarray(excluded, dtype=bool))
    return Labels(sparse.csr_array(matrix), queries, database, rule="by hand", excluded=mask)


def squared(a, b):
    """The exact sum of squared differences, as a fraction."""
    return sum((Fraction(float(x)) - Fraction(float(y))) ** 2 for x, y in zip(a, b, strict=True))


def plain_ranks(labels, queries, database, rank, threshold=0.5):
    """Each definition as it reads, pair by pair, in exact arithmetic."""
    similarity, excluded = labels.matrix.toarray(), labels.excluded.toarray()
    found = []
    for q in range(len(queries)):
        others = [d for d in range(len(database)) if not excluded[q, d]]
        far = {d: squared(queries[q], database[d]) for d in others}
        positive = [d for d in others if similarity[q, d] >= threshold - 1e-9]

        def number(p, counted, far=far):
            return 1 + sum(far[d] < far[p] for d in counted)

        rest = [d for d in others if d not in positive]
        for p in positive:
            lower = [d for d in others if similarity[q, d] < similarity[q, p] - 1e-9]
            best = min(positive, key=lambda d, far=far: far[d])
            found.append({
                "non-positive": number(p, rest), "raw": number(p, [d for d in others if d != p]), "best-positive": number(best, rest),
                "graded": number(p, lower),
            }[rank])  # fmt: skip
    return found


@st.composite
def worlds(draw, elements=GRADED):
    """Labels, and descriptors that are often as far apart as others: small whole numbers, or halves of float16."""
    queries, database, dim = draw(st.integers(0, 5)), draw(st.integers(0, 9)), draw(st.integers(0, 3))
    matrix = draw(arrays.arrays(float, (queries, database), elements=elements))
    labels = labelled(matrix, draw(arrays.arrays(bool, (queries, database))))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    sides = [draw(arrays.arrays(dtype, (n, dim), elements=st.integers(-3, 3).map(lambda x: x / 2))) for n in (queries, database)]
    return labels, sides


@given(world=worlds(), rank=st.sampled_from(sorted(RANKS)), block=st.sampled_from([1, 2, 7, 30, 4_000_000]))
def test_ranks_are_those_of_a_plain_loop_whatever_the_block(world, rank, block):
    labels, (queries, database) = world
    found = ranks(labels, queries, database, rank=rank, block=block)
    assert found.dtype == np.int32
    assert found.tolist() == plain_ranks(labels, queries, database, rank)


@given(world=worlds(BINARY))
def test_on_labels_of_0_and_1_graded_is_non_positive(world):
    labels, sides = world
    np.testing.assert_array_equal(ranks(labels, *sides, rank="graded"), ranks(labels, *sides))


@given(world=worlds())
def test_ranks_are_ordered(world):
    labels, sides = world
    best, usual, raw, graded = (ranks(labels, *sides, rank=name) for name in ("best-positive", "non-positive", "raw", "graded"))
    assert (best >= 1).all()
    assert (best <= usual).all()
    assert (usual <= raw).all()
    assert (graded <= raw).all()


@pytest.mark.parametrize("rank", sorted(RANKS))
@pytest.mark.parametrize("block", [50, 3000, 4_000_000])
def test_ranks_of_many_random_images_in_single_precision(rank, block):
    random = np.random.default_rng(3)
    matrix = np.where(random.random((30, 200)) < 0.2, random.random((30, 200)), 0)
    labels = labelled(matrix, random.random(matrix.shape) < 0.1)
    queries, database = random.normal(size=(30, 24)).astype(np.float32), random.normal(size=(200, 24)).astype(np.float32)
    database[50:90] = database[:40]  # copies: ties
    found = ranks(labels, queries, database, rank=rank, block=block)
    far = np.square(queries[:, None].astype(float) - database[None]).sum(axis=2)
    expected = []
    for q, p in np.argwhere((labels.matrix.toarray() >= 0.5) & ~labels.excluded.toarray()):
        given, free = labels.matrix.toarray()[q], ~labels.excluded.toarray()[q]
        limit = far[q][given >= 0.5].min() if rank == "best-positive" else far[q, p]
        counted = {"raw": free, "graded": free & (given < given[p] - 1e-9)}.get(rank, free & (given < 0.5))
        expected.append(1 + int((far[q][counted] < limit).sum()))
    assert found.tolist() == expected
    assert len(expected) > 400


@given(seed=st.integers(0, 10**6), offset=st.sampled_from([0.0, 100.0, 3e4]), scale=st.sampled_from([1e-3, 1.0]))
def test_distances_far_below_the_rounding_of_a_product_are_told_apart(seed, offset, scale):
    """Far from the origin |a|² + |b|² - 2 ab loses what the differences keep."""
    random = np.random.default_rng(seed)
    queries, database = (random.normal(offset, scale, size=(n, 4)).astype(np.float32) for n in (3, 12))
    database[7:] = database[2:7]
    labels = labelled(np.where(random.random((3, 12)) < 0.4, 0.9, 0))
    assert ranks(labels, queries, database).tolist() == plain_ranks(labels, queries, database, "non-positive")


def test_a_product_alone_would_miscount():
    """Far from the origin it is the direct sums that make the counts right."""
    random = np.random.default_rng(0)
    queries, database = (random.normal(1e4, 1e-4, size=(n, 16)) for n in (20, 50))
    product = np.square(queries).sum(1)[:, None] + np.square(database).sum(1) - 2 * queries @ database.T
    direct = np.square(queries[:, None] - database[None]).sum(axis=2)
    assert ((product[:, :1] > product) != (direct[:, :1] > direct)).any()
    labels = labelled(np.eye(1, 50).repeat(20, axis=0))
    np.testing.assert_array_equal(ranks(labels, queries, database), 1 + (direct < direct[:, :1]).sum(axis=1))


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("block", [1, 300, 700, 4_000_000])
def test_equal_distances_are_not_closer_in_any_memory_order(count, block):
    """A lone row of a Fortran array would be added up in another order than rows together."""
    random = np.random.default_rng(1)
    queries, one = random.normal(size=(count, 300)), random.normal(size=300)
    database = np.asfortranarray(np.tile(one, (40, 1)))
    labels = labelled(np.eye(1, 40, 17).repeat(count, axis=0))
    for rank in RANKS:
        assert ranks(labels, np.asfortranarray(queries), database, rank=rank, block=block).tolist() == [1] * count


def test_all_descriptors_alike_give_rank_1():
    labels = labelled((np.arange(60).reshape(6, 10) % 3 == 0) * 0.8)
    for rank in RANKS:
        assert set(ranks(labels, np.full((6, 5), 0.3), np.full((10, 5), 0.3), rank=rank).tolist()) == {1}


def test_values_whose_squares_vanish_or_are_vast():
    labels = labelled([[1.0, 0, 0]])
    assert ranks(labels, [[0.0]], [[2e-150], [1e-150], [3e-150]]).tolist() == [2]
    assert ranks(labels, [[0.0]], [[2e149], [1e149], [3e149]]).tolist() == [2]
    # squares below the least float64 are all 0: a tie
    assert ranks(labels, [[0.0]], [[2e-200], [1e-200], [3e-200]]).tolist() == [1]


def test_one_image_and_no_positive():
    alone = labelled([[0.0]], [[True]])
    assert ranks(alone, [[1.0]], [[1.0]]).shape == (0,)
    assert ranks(labelled(np.zeros((0, 0))), np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)


def test_excluded_pairs_never_count():
    matrix, line = [[0, 0.8, 0, 0]], [[0.0], [2.0], [1.0], [1.5]]
    assert ranks(labelled(matrix), [[0.0]], line).tolist() == [4]
    assert ranks(labelled(matrix, [[True, False, False, True]]), [[0.0]], line).tolist() == [2]
    assert ranks(labelled(matrix, [[True, False, True, True]]), [[0.0]], line, rank="raw").tolist() == [1]


def test_memory_mapped_half_precision_gives_what_memory_gives(tmp_path):
    random = np.random.default_rng(2)
    vectors = random.normal(size=(40, 16)).astype(np.float16)
    names = tuple(f"{i}.jpg" for i in range(40))
    Descriptors(vectors, names, model="m").save(tmp_path / "d")
    mapped = Descriptors.load(tmp_path / "d")
    assert isinstance(mapped.vectors, np.memmap)
    matrix = np.where(random.random((40, 40)) < 0.2, 0.7, 0)
    labels = Labels(sparse.csr_array(matrix), names, names, rule="by hand", excluded=sparse.eye_array(40, format="csr"))
    found = ranks(labels, mapped, mapped, block=200)
    np.testing.assert_array_equal(found, ranks(labels, vectors.astype(np.float64), vectors.astype(np.float64)))


def test_memory_does_not_grow_with_queries_times_database():
    import tracemalloc

    count = 1000
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    near = sparse.diags_array([np.full(count - 1, 0.8)] * 2, offsets=[-1, 1], format="csr")
    names = tuple(map(str, range(count)))
    labels = Labels(near, names, names, rule="by hand", excluded=sparse.eye_array(count, format="csr"))
    tracemalloc.start()
    ranks(labels, vectors, vectors, block=40_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6  # a dense matrix takes 8 MB


@pytest.mark.parametrize(("queries", "database", "said"), [
    ([[1.0]], [[1.0]], r"one descriptor a database image.*got 1 for 2"),
    ([[1.0, 2.0]], [[1.0], [2.0]], r"one length; got 2 and 1"),
    ([[np.nan]], [[1.0], [2.0]], r"the query q0 is not"),
    ([[1.0]], [[1.0], [np.inf]], r"the database image d1 is not"),
    ([[1.0]], [[1.0], [1e200]], r"finite and shorter than 1e\+150.*database image d1"),
    ([1.0], [[1.0], [2.0]], r"query side must be an \(n, d\) array.*shape \(1,\)"),
    ([["x"]], [[1.0], [2.0]], r"query side must be an \(n, d\) array"),
    ([[1.0]], [[1.0], [2.0, 3.0]], r"database image side must be an \(n, d\) array"),
])  # fmt: skip
def test_descriptors_that_are_not_those_of_the_labels_are_refused(queries, database, said):
    with pytest.raises(InvalidInputError, match=said):
        ranks(labelled([[0.9, 0]]), queries, database)


def test_names_models_and_whitenings_must_fit():
    labels = labelled([[0.9, 0]])

    def described(names, model="m", **history):
        return Descriptors(np.eye(len(names), 2, dtype=np.float32), names, model=model, history=history)

    right = described(("d0", "d1"))
    assert ranks(labels, described(("q0",)), right).tolist() == [1]
    with pytest.raises(InvalidInputError, match=r"labels' queries, .*q0 has none"):
        ranks(labels, described(("other",)), right)
    with pytest.raises(InvalidInputError, match=r"at place 0 they have d1, the labels d0"):
        ranks(labels, described(("q0",)), described(("d1", "d0")))
    with pytest.raises(InvalidInputError, match=r"at place 2 they have more, the labels none"):
        ranks(labels, described(("q0",)), described(("d0", "d1", "more")))
    with pytest.raises(InvalidInputError, match=r"one model; the queries are of n, the database of m"):
        ranks(labels, described(("q0",), model="n"), right)
    with pytest.raises(InvalidInputError, match=r"whitened alike"):
        ranks(labels, described(("q0",), whitened={"dim": 2}), right)
    broken = Descriptors(np.array([[0, 1], [np.nan, 0]], dtype=np.float32), ("d0", "d1"), model="m")
    with pytest.raises(InvalidInputError, match=r"that of d1 is not"):
        ranks(labels, described(("q0",)), broken)


def test_an_unknown_rank_is_refused():
    with pytest.raises(UnknownNameError, match=r"no rank called 'graed'. Did you mean 'graded'"):
        ranks(labelled([[0.9]]), [[1.0]], [[1.0]], rank="graed")
    with pytest.raises(UnknownNameError, match=r"no rank called 'math:pi'"):
        ranks(labelled([[0.9]]), [[1.0]], [[1.0]], rank="math:pi")


# the partition


def made(**changes):
    given = {
        "query": [[0, 0, 1], [2]],
        "database": [[1, 2, 0], [0]],
        "similarity": [[0.9, 0.5, 0.9], [1.0]],
        "teacher": [[1, 12, 3], [4]],
        "student": [[11, 1, 2], [4]],
        "scenes": ("street", "square"),
    }
    return Partition(**given | changes)


def same(a, b):
    columns = ("query", "database", "similarity", "teacher", "student")
    alike = all(
        x.dtype == y.dtype and np.array_equal(x, y) for name in columns for x, y in zip(getattr(a, name), getattr(b, name), strict=True)
    )
    return alike and all(getattr(a, name) == getattr(b, name) for name in ("scenes", "threshold", "rank", "positive_threshold", "images"))


RANK = st.integers(1, 25)


@st.composite
def partitions(draw):
    sizes = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any))
    columns = {
        name: [draw(arrays.arrays(np.int64, n, elements=elements)) for n in sizes]
        for name, elements in (("query", st.integers(0, 4)), ("database", st.integers(0, 4)), ("teacher", RANK), ("student", RANK))
    }
    similarity = [draw(arrays.arrays(float, n, elements=st.floats(0, 1))) for n in sizes]
    scenes = tuple(draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=len(sizes), max_size=len(sizes))))
    return Partition(
        similarity=similarity, **columns, scenes=scenes, threshold=draw(st.integers(1, 12)), rank=draw(st.sampled_from(list(RANKS)))
    )


@given(x=RANK, y=RANK, threshold=st.integers(1, 12))
def test_each_pair_is_in_exactly_one_group(x, y, threshold):
    sets = [x <= threshold < y, x <= y <= threshold, y < x <= threshold, x > threshold]
    assert sum(sets) == 1
    assert grouped([x], [y], threshold).tolist() == [1 + sets.index(True)]


@given(found=partitions())
def test_the_shares_are_of_all_pairs(found):
    counts, shares = found.counts(), found.shares()
    assert list(counts) == list(shares) == list(GROUPS) == ["D1", "D2", "D3", "D4"]
    assert sum(counts.values()) == len(found) == sum(map(len, found.query))
    assert sum(Fraction(count, len(found)) for count in counts.values()) == 1
    assert shares == {name: count / len(found) for name, count in counts.items()}
    assert abs(sum(shares.values()) - 1) <= 2**-52
    assert [len(group) for group in found.groups()] == [len(rows) for rows in found.query]
    assert {group.dtype for group in found.groups()} == {np.dtype(np.uint8)}


@given(found=partitions(), k=st.integers(1, 12))
def test_the_union_is_at_least_each_branch(found, k):
    recall = found.union_recall(k)
    assert recall["both"] <= min(recall["teacher"], recall["student"])
    assert recall["either"] >= max(recall["teacher"], recall["student"])
    assert recall["either"] + recall["both"] == pytest.approx(recall["teacher"] + recall["student"])


@pytest.mark.parametrize("rank", sorted(RANKS))
@pytest.mark.parametrize("k", [1, 3])
def test_the_union_recall_is_the_recall_of_a_search(rank, k):
    random = np.random.default_rng(4)
    labels = labelled(np.where(random.random((60, 40)) < 0.1, random.random((60, 40)), 0), random.random((60, 40)) < 0.1)
    branches = [(random.normal(size=(60, 3)), random.normal(size=(40, 3))) for _ in range(2)]
    found = partition([labels], *[[sides] for sides in branches], rank=rank).union_recall(k)
    right = []
    for queries, database in branches:
        far = np.linalg.norm(queries[:, None] - database[None], axis=2)
        far[labels.excluded.toarray()] = np.inf
        first = np.argsort(far, axis=1)[:, :k]
        asked = (labels.matrix.toarray() >= 0.5).any(axis=1)
        right.append((np.take_along_axis(labels.matrix.toarray(), first, axis=1) >= 0.5).any(axis=1)[asked])
    expected = {"teacher": right[0], "student": right[1], "either": right[0] | right[1], "both": right[0] & right[1]}
    assert found == {name: pytest.approx(values.mean()) for name, values in expected.items()}
    assert 0 < found["both"] < found["either"] < 1


@pytest.mark.parametrize("rank", sorted(RANKS))
def test_several_scenes_are_ranked_each_alone(rank):
    random = np.random.default_rng(5)
    labels, teacher, student = [], [], []
    for count in (8, 1, 12):
        matrix = np.where(random.random((count, count)) < 0.3, random.random((count, count)), 0)
        labels.append(labelled(matrix, np.eye(count)))
        for branch in (teacher, student):
            vectors = random.normal(size=(count, 4)).astype(np.float32)
            branch.append((vectors, vectors))
    found = partition(labels, teacher, student, rank=rank, threshold=2, positive_threshold=0.4, scenes=("a", "alone", "b"))
    assert (found.scenes, found.rank, found.threshold, found.positive_threshold) == (("a", "alone", "b"), rank, 2, 0.4)
    assert len(found.query[1]) == 0
    for scene, one in enumerate(labels):
        positives = one.positives(0.4)
        query, database = positives.nonzero()
        np.testing.assert_array_equal(found.query[scene], query)
        np.testing.assert_array_equal(found.database[scene], database)
        np.testing.assert_array_equal(found.similarity[scene], one.matrix.toarray()[query, database])
        assert found.teacher[scene].tolist() == plain_ranks(one, *teacher[scene], rank, 0.4)
        assert found.student[scene].tolist() == plain_ranks(one, *student[scene], rank, 0.4)
    found.check_labels(labels)
    with pytest.raises(InvalidInputError, match=r"of 3 scenes, and 2 are given"):
        found.check_labels(labels[:2])
    with pytest.raises(InvalidInputError, match=r"scene a are others"):
        found.check_labels(labels[::-1])


def test_the_partition_of_the_other_way_round_mirrors_the_groups():
    """Teacher and student exchanged, where both are right: what the teacher did better the student now does."""
    random = np.random.default_rng(6)
    labels = labelled(np.where(random.random((30, 30)) < 0.2, 0.8, 0), np.eye(30))
    sides = [[(vectors, vectors)] for vectors in (random.normal(size=(30, 3)), random.normal(size=(30, 3)))]
    one, other = partition([labels], *sides, threshold=30), partition([labels], *sides[::-1], threshold=30)
    equal = int((one.teacher[0] == one.student[0]).sum())
    assert one.counts()["D3"] == other.counts()["D2"] - equal > 0
    assert (one.counts()["D1"], one.counts()["D4"]) == (0, 0)


def test_nothing_to_partition_is_refused_in_words():
    labels, sides = labelled([[0.4, 0]]), ([[1.0]], [[1.0], [2.0]])
    with pytest.raises(InvalidInputError, match=r"no pair of 1 scenes has a similarity of 0.5 or more.*labels' summary"):
        partition([labels], [sides], [sides])
    with pytest.raises(InvalidInputError, match=r"no pair of 0 scenes"):
        partition([], [], [])
    assert len(partition([labels], [sides], [sides], positive_threshold=0.4)) == 1


def test_lists_that_do_not_fit_are_refused():
    labels, sides = labelled([[0.9, 0]]), ([[1.0]], [[1.0], [2.0]])
    with pytest.raises(InvalidInputError, match=r"of 1 scenes, the teacher's descriptors of 2 and the student's of 1\."):
        partition([labels], [sides, sides], [sides])
    with pytest.raises(InvalidInputError, match=r"one scene's, and not a list"):
        partition(labels, [sides], [sides])
    with pytest.raises(InvalidInputError, match=r"there are 2 names"):
        partition([labels], [sides], [sides], scenes=("a", "b"))
    with pytest.raises(InvalidInputError, match=r"Scene 0, student: .*got 1 for 2"):
        partition([labels], [sides], [([[1.0]], [[1.0]])])
    with pytest.raises(InvalidInputError, match=r"Scene 0, teacher: there must be \(queries, database\)"):
        partition([labels], [(sides[0],)], [sides])
    for threshold in (0, -1, 2.5, True, "10", 10**9 + 1):
        with pytest.raises(InvalidInputError, match=r"N_t must be a rank, a whole number from 1 to 1,000,000,000"):
            partition([labels], [sides], [sides], threshold=threshold)
    with pytest.raises(UnknownNameError, match=r"no rank called 'best'"):
        partition([labels], [sides], [sides], rank="best")


@pytest.mark.parametrize(("change", "said"), [
    ({"teacher": [[0, 12, 3], [4]]}, r"teacher of a partition must be at least 1; got 0 to 12"),
    ({"query": [[-1, 0, 1], [2]]}, r"query of a partition must be at least 0"),
    ({"student": [[1.5, 1, 2], [4]]}, r"student of a partition must be \(n,\) whole numbers"),
    ({"student": [[2**31, 1, 2], [4]]}, r"student of a partition"),
    ({"similarity": [[0.9, 1.5, 0.9], [1.0]]}, r"similarity .* in \[0, 1\]"),
    ({"similarity": [[0.9, np.nan, 0.9], [1.0]]}, r"similarity .* in \[0, 1\]"),
    ({"student": [[1, 2], [4]]}, r"one value a pair in each column"),
    ({"scenes": ("street",)}, r"a name a scene"),
    ({"scenes": (1, 2)}, r"named by text"),
    ({"images": ("x",)}, r"one hash a scene, or none"),
    ({"threshold": 0}, r"N_t"),
    ({"positive_threshold": 0}, r"in \(0, 1\]"),
    ({name: [[], []] for name in ("query", "database", "similarity", "teacher", "student")}, r"at least one pair"),
])  # fmt: skip
def test_what_is_no_partition_is_refused(change, said):
    with pytest.raises(InvalidInputError, match=said):
        made(**change)
    with pytest.raises(UnknownNameError):
        made(rank="no")


def test_it_is_told_in_words():
    assert str(made()) == (
        "4 positive pairs (>= 0.5) of 3 queries in 2 scenes; rank non-positive, right up to N_t = 10\n"
        "  D1  teacher right, student wrong               1 ( 25.00 %)\n"
        "  D2  both right, the teacher at least as good   1 ( 25.00 %)\n"
        "  D3  both right, the student better             1 ( 25.00 %)\n"
        "  D4  teacher wrong                              1 ( 25.00 %)\n"
        "  queries whose nearest image is positive: teacher 33.33 %, student 33.33 %, either 33.33 %, both 33.33 %"
    )
    assert repr(made()) == "Partition(4 pairs of 2 scenes, rank 'non-positive', N_t = 10)"
    with pytest.raises(InvalidInputError, match=r"k must be at least 1"):
        made().union_recall(0)


@given(found=partitions())
def test_a_partition_comes_back_and_gives_the_same_bytes(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("p")
    path = found.save(folder / "a.npz")
    loaded = Partition.load(path)
    assert same(found, loaded)
    assert loaded.digest == found.digest
    assert loaded.save(folder / "b.npz").read_bytes() == path.read_bytes()


def test_the_digest_changes_with_all_that_it_holds():
    changed = [
        made(), made(threshold=9), made(rank="raw"), made(positive_threshold=0.6), made(scenes=("a", "square")), made(images=("a", "b")),
        made(teacher=[[1, 12, 4], [4]]), made(similarity=[[0.9, 0.5, 0.8], [1.0]]), made(query=[[0, 0, 2], [2]]),
        made(query=[[0, 0], [1, 2]], database=[[1, 2], [0, 0]], similarity=[[0.9, 0.5], [0.9, 1.0]], teacher=[[1, 12], [3, 4]],
             student=[[11, 1], [2, 4]]),
    ]  # fmt: skip
    assert len({one.digest for one in changed}) == len(changed)
    assert made().digest == made().digest


def test_damaged_files_are_refused(tmp_path, refuses_every_cut, never_wrong):
    path = made().save(tmp_path / "p.npz")
    refuses_every_cut(path, lambda: Partition.load(path))
    never_wrong(path, lambda: Partition.load(path), lambda found: same(found, made()))
    with pytest.raises(OutputExistsError):
        made().save(path)
    made(threshold=3).save(path, overwrite=True)
    assert Partition.load(path).threshold == 3
    with pytest.raises(MissingFileError):
        Partition.load(tmp_path / "no.npz")
    with pytest.raises(DamagedFileError, match=r"kind 'covis-partition'"):
        Partition.load(labelled([[0.9]]).save(tmp_path / "l.npz"))


@pytest.mark.parametrize("change", [
    {"pairs": np.array([3, 2])},
    {"pairs": np.array([5, -1])},
    {"pairs": np.array([4])},
    {"pairs": np.array([[4]])},
    {"pairs": np.array([1.5, 2.5])},
    {"teacher": np.array([0, 1, 2, 3], dtype=np.int32)},
    {"teacher": np.ones((2, 2), dtype=np.int32)},
    {"student": np.array(["a", "b", "c", "d"])},
    {"similarity": np.array([2.0, 0, 0, 0])},
    {"similarity": np.array(["x", "b", "c", "d"])},
    {"header": {"threshold": "ten"}},
    {"header": {"rank": "unknown"}},
    {"header": {"scenes": 5}},
    {"header": {"scenes": [1, 2]}},
    {"header": {"images": None}},
    {"header": {"positive_threshold": "x"}},
    {"header": {"version": 9}},
])  # fmt: skip
def test_parts_that_do_not_fit_are_refused(tmp_path, change):
    path = made().save(tmp_path / "p.npz")
    header, stored = load_arrays(path, kind="covis-partition", version=1, names=())
    header |= change.pop("header", {})
    save_arrays(path, header, stored | change)
    with pytest.raises(DamagedFileError, match=r"p\.npz"):
        Partition.load(path)


def test_no_torch_is_needed():
    import subprocess

    code = "import sys, covis.structure.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
