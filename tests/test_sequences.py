"""Windows of frames: against the benchmark's rule as plain loops, and what they are called."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import InvalidInputError
from covis.images import Images
from covis.sequences import window_names, windows


def images(sequence, frame, names=None):
    count = len(frame)
    return Images("r", names or [f"a/b{row}.jpg" for row in range(count)], sequence=list(sequence), frame=np.array(frame, dtype=np.int64))


def windows_oracle(sequence, frame, length):
    """The rule of MSLS's loader, step by step."""
    count, half, found = len(frame), length // 2, []
    for i in range(count):
        if i < half or i >= count - half:
            continue
        rows = list(range(i - half, i + half + 1))
        one_sequence = len({sequence[row] for row in rows}) == 1
        if one_sequence and all(frame[b] - frame[a] == 1 for a, b in itertools.pairwise(rows)):
            found.append(rows)
    return found


steps = st.lists(st.tuples(st.sampled_from("aaab"), st.sampled_from([1, 1, 1, 1, 0, 2, -1])), max_size=30)


@given(steps=steps, length=st.sampled_from([1, 3, 5, 7]))
def test_windows_are_those_of_the_rule(steps, length):
    sequence, frame = [letter for letter, _ in steps], np.cumsum([step for _, step in steps]).astype(np.int64)
    found = windows(images(sequence, frame), length)
    assert found.dtype == np.int64
    assert found.shape[1] == length
    assert found.tolist() == windows_oracle(sequence, frame.tolist(), length)


def test_the_order_of_the_table_counts():
    assert windows(images("aaa", [3, 2, 1]), 3).tolist() == []
    assert windows(images("aba", [1, 2, 3]), 3).tolist() == []
    assert windows(images("aaaabbb", [1, 2, 3, 4, 5, 6, 7]), 3).tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]
    assert windows(images("aaaaa", [1, 2, 3, 5, 6]), 5).tolist() == []


def test_a_difference_that_overflows_is_not_one():
    ends = np.iinfo(np.int64)
    assert windows(images("aaa", [ends.max - 1, ends.max, ends.min]), 3).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_give_no_window(count):
    assert windows(images("a" * count, list(range(count))), 3).shape == (0, 3)
    assert windows(images("a" * count, list(range(count))), 1).tolist() == [[row] for row in range(count)]


def test_windows_of_one_need_no_sequence():
    assert windows(Images("r", ["a.jpg", "b.jpg"]), 1).tolist() == [[0], [1]]
    with pytest.raises(InvalidInputError, match="must have sequence and frame"):
        windows(Images("r", ["a.jpg", "b.jpg", "c.jpg"]), 3)


@pytest.mark.parametrize("length", [0, -1, 2, 4, 3.0, True, "3", None])
def test_the_length_is_odd(length):
    with pytest.raises(InvalidInputError, match=r"odd number of frames.*got"):
        windows(images("aaa", [1, 2, 3]), length)


def test_names_are_joined():
    table = images("aaaa", [1, 2, 3, 4], ["x/k1.jpg", "x.y/k2.tar.jpg", "k3", "x/.jpg"])
    rows = windows(table, 3)
    assert window_names(table, rows) == ("x/k1.jpg,x.y/k2.tar.jpg,k3", "x.y/k2.tar.jpg,k3,x/.jpg")
    assert window_names(table, rows, keys=True) == ("k1,k2.tar,k3", "k2.tar,k3,.jpg")
    assert window_names(table, windows(table, 1), keys=True) == ("k1", "k2.tar", "k3", ".jpg")
    assert window_names(table, np.zeros((0, 3), dtype=np.int64)) == window_names(table, np.zeros((0, 1))) == ()


def test_names_with_commas_are_not_joined():
    table = images("aaa", [1, 2, 3], ["a,b.jpg", "c.jpg", "d.jpg"])
    assert window_names(table, [[0]]) == ("a,b.jpg",)
    with pytest.raises(InvalidInputError, match=r"must hold none; got 'a,b\.jpg,c\.jpg,d\.jpg'"):
        window_names(table, [[0, 1, 2]])


@pytest.mark.parametrize(("rows", "said"), [
    ([[3]], "rows 0 to 2; got 3 to 3"),
    ([[0, -1]], "got -1 to 0"),
    ([0, 1], r"shape \(m, length\)"),
    ([[0.0]], "whole numbers"),
    (np.zeros((2, 0), dtype=np.int64), r"shape \(2, 0\)"),
])  # fmt: skip
def test_rows_are_rows_of_the_table(rows, said):
    with pytest.raises(InvalidInputError, match=said):
        window_names(images("aaa", [1, 2, 3]), rows)
