"""Protocols: the named ones frozen, the file, the card."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.protocols import PROTOCOLS, Protocol, protocol

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    one=st.builds(
        Protocol,
        name=TEXT,
        threshold=st.floats(0, 1, exclude_min=True),
        strict=st.booleans(),
        denominator=st.sampled_from(["all", "with-positive"]),
        ks=st.lists(st.integers(1, 99), min_size=1, unique=True).map(tuple),
        distances=st.sampled_from(["float16", "float32"]),
        source=TEXT,
    )
)
def test_a_protocol_comes_back(tmp_path_factory, one):
    path = one.write(tmp_path_factory.mktemp("p") / "mine.toml")
    assert Protocol.read(path) == one
    assert protocol(path) == one
    assert protocol(str(path)) == one


def test_damaged_protocols_are_refused(tmp_path, refuses_every_cut):
    path = protocol("7scenes/gcl").write(tmp_path / "a.toml")
    refuses_every_cut(path, lambda: Protocol.read(path), harmless=1, cuts=300)


@pytest.mark.parametrize(("text", "error", "said"), [
    ('format = "covis-protocol"\nversion = 2\nname = "x"\nthreshold = 0.5\n', DamagedFileError, "version 2"),
    ('format = "covis-scores"\nversion = 1\nname = "x"\nthreshold = 0.5\n', DamagedFileError, "covis-scores"),
    ('name = "x"\nthreshold = 0.5\n', DamagedFileError, "None"),
    ("[", DamagedFileError, "TOML"),
    ('format = "covis-protocol"\nversion = 1\nname = "x"\n', InvalidInputError, "threshold"),
    ('format = "covis-protocol"\nversion = 1\nname = "x"\nthreshold = 2\n', InvalidInputError, "threshold"),
    ('format = "covis-protocol"\nversion = 1\nname = "x"\nthreshold = 0.5\nstrickt = true\n', InvalidInputError, "'strict'"),
    ('format = "covis-protocol"\nversion = 1\nname = "x"\nthreshold = 0.5\ndenominator = "some"\n', InvalidInputError, "'some'"),
    ('format = "covis-protocol"\nversion = 1\nname = "x"\nthreshold = 0.5\nks = [1, "5"]\n', InvalidInputError, "ks"),
])  # fmt: skip
def test_foreign_and_wrong_files_are_refused(tmp_path, text, error, said):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(error, match=said):
        Protocol.read(tmp_path / "a.toml")


def test_a_user_may_leave_out_what_is_usual(tmp_path):
    (tmp_path / "a.toml").write_text('format = "covis-protocol"\nversion = 1\nname = "mine"\nthreshold = 0.3\n')
    assert Protocol.read(tmp_path / "a.toml") == Protocol("mine", 0.3)
    with pytest.raises(MissingFileError):
        Protocol.read(tmp_path / "none.toml")


def test_nothing_is_overwritten_unasked(tmp_path):
    path = Protocol("a", 0.5).write(tmp_path / "a.toml")
    with pytest.raises(OutputExistsError):
        Protocol("b", 0.5).write(path)
    assert Protocol.read(Protocol("b", 0.5).write(path, overwrite=True)).name == "b"


@pytest.mark.parametrize(("change", "said"), [
    ({"threshold": 0}, r"'x' must be a similarity in \(0, 1\]"),
    ({"threshold": 1.5}, "threshold"),
    ({"threshold": float("nan")}, "threshold"),
    ({"ks": ()}, "ks"),
    ({"ks": (0, 1)}, "ks"),
    ({"ks": (1, 1)}, "ks"),
    ({"denominator": "al"}, "denominator.*'all', 'with-positive'; got 'al'"),
    ({"scope": "city"}, "scope"),
    ({"distances": "float64"}, "distances"),
])  # fmt: skip
def test_every_field_is_checked(change, said):
    with pytest.raises(InvalidInputError, match=said):
        Protocol(**({"name": "x", "threshold": 0.5} | change))


def test_the_named_protocols_are_these():
    assert set(PROTOCOLS) == {"7scenes/gcl", "graded/T"}
    gcl = protocol("7scenes/gcl")
    assert (gcl.threshold, gcl.strict, gcl.denominator, gcl.distances) == (0.5, True, "all", "float16")
    assert gcl.ks == (1, 2, 3, 4, 5, 10, 15, 20, 25)
    graded = protocol("graded/0.25")
    assert (graded.name, graded.threshold, graded.strict, graded.denominator, graded.distances) == (
        "graded/0.25",
        0.25,
        False,
        "with-positive",
        "float32",
    )


@pytest.mark.parametrize(
    "name", ["graded/T", "graded/x", "graded/0", "graded/2", "graded/nan", "7scene/gcl", "7scenes/0.5", "", "graded", "/T"]
)
def test_unknown_protocols_are_named(name):
    with pytest.raises(UnknownNameError):
        protocol(name)
    with pytest.raises(UnknownNameError, match="Did you mean '7scenes/gcl'"):
        protocol("7scenes/glc")


def test_the_card_says_every_choice():
    """Two protocols that differ in a field that matters have different cards."""
    one = Protocol("x", 0.5)
    for change in ({"threshold": 0.4}, {"strict": True}, {"denominator": "all"}, {"distances": "float16"}, {"source": "y"}, {"name": "z"}):
        assert dataclasses.replace(one, **change).card() != one.card(), change
    assert "> 0.5" in protocol("7scenes/gcl").card()
    assert ">= 0.5" in one.card()
