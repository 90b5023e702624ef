"""Protocols: the named ones frozen, the file, the card."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covis.errors import DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, UnknownNameError
from covis.protocols import PROTOCOLS, Protocol, protocol

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FLAGS = st.lists(st.sampled_from(["all", "night", "panorama", "d2n"]), unique=True).flatmap(
    lambda names: st.tuples(*(st.sampled_from([name, f"-{name}"]) for name in names))
)


@st.composite
def protocols(draw, text=TEXT):
    positive = draw(st.sampled_from(["similarity", "distance", "frames", "place"]))
    windows = (1, 1) if positive == "similarity" else draw(st.tuples(*[st.sampled_from([1, 3, 5])] * 2))
    thresholds = {
        "similarity": st.floats(0, 1, exclude_min=True),
        "distance": st.floats(0, 1e6, exclude_min=True),
        "frames": st.floats(0, 1e6),
        "place": st.just(0.0),
    }
    return Protocol(
        draw(text),
        draw(thresholds[positive]),
        positive=positive,
        strict=positive != "place" and draw(st.booleans()),
        heading=draw(st.none() | st.floats(0, 180)) if positive == "distance" else None,
        asked=draw(FLAGS),
        searched=draw(FLAGS),
        correct=draw(FLAGS),
        denominator=draw(st.sampled_from(["all", "with-positive"])),
        scope=draw(st.sampled_from(["scene", "joint"])),
        windows=windows,
        duplicates=draw(st.sampled_from(["keep", "place"])) if windows == (1, 1) else "keep",
        moments=draw(st.sampled_from(["any", "other"])) if windows == (1, 1) else "any",
        precision=draw(st.sampled_from(["msls", "relevant", "found"])),
        short=draw(st.sampled_from(["refuse", "use"])),
        ks=draw(st.lists(st.integers(1, 99), min_size=1, unique=True).map(tuple)),
        distances=draw(st.sampled_from(["float16", "float32"])),
        source=draw(text),
    )


@given(one=protocols())
def test_a_protocol_comes_back(tmp_path_factory, one):
    assert Protocol.from_dict(one.as_dict(), where="here") == one
    path = one.write(tmp_path_factory.mktemp("p") / "mine.toml")
    assert Protocol.read(path) == one
    assert protocol(path) == one
    assert protocol(str(path)) == one


def test_damaged_protocols_are_refused(tmp_path, refuses_every_cut):
    path = protocol("7scenes/gcl").write(tmp_path / "a.toml")
    refuses_every_cut(path, lambda: Protocol.read(path), harmless=1, cuts=300)


HEAD = 'format = "covis-protocol"\nversion = 2\nname = "x"\n'


@pytest.mark.parametrize(("text", "error", "said"), [
    ('format = "covis-protocol"\nversion = 4\nname = "x"\nthreshold = 0.5\n', DamagedFileError, "version 4"),
    ('format = "covis-scores"\nversion = 1\nname = "x"\nthreshold = 0.5\n', DamagedFileError, "covis-scores"),
    (f"{HEAD}threshold = 25\npositive = 'distance'\nheading = 'north'\n", InvalidInputError, "heading must be a number.*'north'"),
    (f"{HEAD}threshold = 25\npositive = 'distance'\nheading = true\n", InvalidInputError, "heading must be a number"),
    (f"{HEAD}threshold = 0.5\nheading = 40\n", InvalidInputError, "heading.*'distance'; got 40"),
    (f"{HEAD}threshold = 25\npositive = 'distance'\nwindows = [3]\n", InvalidInputError, "windows"),
    (f"{HEAD}threshold = 0.5\nasked = 'all'\n", InvalidInputError, "asked"),
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


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "all", "joint", "distance"]),
    st.lists(st.integers(), max_size=2), st.lists(st.sampled_from(["", "-", "all", "-all", 1, True]), max_size=2),
)  # fmt: skip


@given(table=st.dictionaries(st.sampled_from([field.name for field in dataclasses.fields(Protocol)]), VALUES, max_size=4))
def test_any_values_are_a_protocol_or_our_error(table):
    refused = ""
    try:
        found = Protocol.from_dict({"name": "mine", "threshold": 0.5, **table}, where="here")
    except InvalidInputError as error:
        refused = str(error)
    assert any(word in refused for word in (*table, "here")) or Protocol.from_dict(found.as_dict(), where="here") == found


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
    ({"positive": "places"}, "positive.*'similarity', 'distance', 'frames', 'place'"),
    ({"positive": "place"}, "threshold.*0 with positive = 'place'; got 0.5"),
    ({"positive": "place", "threshold": 0, "strict": True}, "strict.*of one place or not"),
    ({"moments": "same"}, "moments.*'any', 'other'"),
    ({"positive": "frames", "windows": (3, 1), "duplicates": "place"}, r"windows.*\(1, 1\) where duplicates"),
    ({"positive": "frames", "windows": (3, 1), "moments": "other"}, r"windows.*\(1, 1\) where duplicates"),
    ({"duplicates": "drop"}, "duplicates"),
    ({"precision": "trec"}, "precision.*'msls', 'relevant', 'found'"),
    ({"short": "pad"}, "short"),
    ({"positive": "distance", "threshold": 0}, r"metres in \(0, 1e8\]; got 0"),
    ({"ks": (1, 10**7)}, "ks.*from 1 to 1,000,000"),
    ({"positive": "frames", "windows": (1, 10**7 + 1)}, "windows"),
    ({"positive": "distance", "threshold": float("inf")}, "metres"),
    ({"positive": "frames", "threshold": -1}, "frames"),
    ({"positive": "frames", "threshold": 1e10}, "frames"),
    ({"heading": 40}, r"heading of protocol 'x' must be in \[0, 180\] degrees"),
    ({"positive": "distance", "threshold": 25, "heading": 181}, "heading"),
    ({"positive": "distance", "threshold": 25, "heading": float("nan")}, "heading"),
    ({"asked": "all"}, r"asked.*\['all', '-panorama'\]; got 'all'"),
    ({"searched": ("-",)}, "searched"),
    ({"correct": (1,)}, "correct"),
    ({"correct": ("all", "-all")}, "correct.*once"),
    ({"positive": "frames", "windows": (2, 2)}, "windows.*odd"),
    ({"positive": "frames", "windows": (1,)}, "windows"),
    ({"positive": "frames", "windows": (1, -1)}, "windows"),
    ({"windows": (3, 1)}, r"windows.*\(1, 1\).*labels are of single images"),
])  # fmt: skip
def test_every_field_is_checked(change, said):
    with pytest.raises(InvalidInputError, match=said):
        Protocol(**({"name": "x", "threshold": 0.5} | change))


def test_a_file_of_version_1_still_reads(tmp_path):
    """As the first covis wrote it."""
    (tmp_path / "old.toml").write_text(
        'name = "7scenes/gcl"\nthreshold = 0.5\nstrict = true\ndenominator = "all"\nscope = "scene"\n'
        "ks = [\n    1,\n    2,\n    3,\n    4,\n    5,\n    10,\n    15,\n    20,\n    25,\n]\n"
        'distances = "float16"\nsource = "GCL\'s evaluation of 7-Scenes and TB-Places (eval_recallatk.py, eval_AP.py of its 2021 '
        'revision), one scene a model"\nformat = "covis-protocol"\nversion = 1\n'
    )
    assert Protocol.read(tmp_path / "old.toml") == protocol("7scenes/gcl")


# Section by section what the benchmarks' matrix says; what is not named is the default.
USUAL = Protocol("x", 0.5)
MSLS = {"positive": "distance", "threshold": 25.0, "asked": ("all", "-panorama"), "ks": (1, 5, 10, 20), "short": "use"}
WITHIN = {"positive": "distance", "threshold": 25.0, "denominator": "all"}
MATRIX = {
    "7scenes/gcl": {"threshold": 0.5, "strict": True, "denominator": "all", "distances": "float16"},
    "graded/0.25": {"threshold": 0.25},
    "graded/0.5/all": {"threshold": 0.5, "denominator": "all"},
    "radius/25": {"positive": "distance", "threshold": 25.0},
    "radius/12.5/all": {"positive": "distance", "threshold": 12.5, "denominator": "all"},
    "radius/25/40": {"positive": "distance", "threshold": 25.0, "heading": 40.0},
    "radius/25/40/all": {"positive": "distance", "threshold": 25.0, "heading": 40.0, "denominator": "all"},
    "msls-val/official": MSLS | {"correct": ("all", "-panorama")},
    "msls-val/official/d2n": MSLS | {"asked": ("d2n", "-panorama"), "correct": ("d2n", "-panorama")},
    "msls-val/official/seq2im-5": MSLS | {"correct": ("all", "-panorama"), "windows": (5, 1)},
    "msls-val/official/im2seq-3": MSLS | {"correct": ("all", "-panorama"), "windows": (1, 3)},
    "msls-val/official/seq2seq-3/d2n": MSLS | {"asked": ("d2n", "-panorama"), "correct": ("d2n", "-panorama"), "windows": (3, 3)},
    "msls-val/gcl": MSLS | {"correct": ("all", "-panorama")},
    "msls-val/gsv": MSLS | {"searched": ("-panorama",), "scope": "joint", "short": "refuse", "ks": (1, 5, 10, 15, 20, 25)},
    "msls-val/gmberton": MSLS
    | {"asked": ("-panorama",), "searched": ("-panorama",), "scope": "joint", "short": "refuse", "denominator": "all"},
    "msls-test/official": MSLS | {"asked": ("all",), "correct": ("all",)},
    "nordland/pnv": {"positive": "frames", "threshold": 7.0, "denominator": "all"},
    "nordland/gmberton": {"positive": "frames", "threshold": 10.0, "denominator": "all"},
    "nordland/vpr-bench": {"positive": "frames", "threshold": 1.0, "denominator": "all"},
    "frames/1.5": {"positive": "frames", "threshold": 1.5, "denominator": "all"},
    "same-place": {"positive": "place", "threshold": 0.0},
    "same-place/all": {"positive": "place", "threshold": 0.0, "denominator": "all"},
    **{f"{name}/netvlad": WITHIN for name in ("pitts30k", "pitts250k")},
    **{
        f"{name}/gmberton": WITHIN | {"ks": (1, 5, 10, 20)}
        for name in ("eynsham", "pitts30k", "pitts250k", "sf-xl", "st-lucia", "tokyo247")
    },
    **{f"{name}/gcl": {"threshold": 0.5} for name in ("pitts30k", "pitts250k", "tokyo247")},
    "tokyo247/netvlad": WITHIN | {"duplicates": "place"},
    "tokyo-tm/netvlad": WITHIN | {"moments": "other"},
    "tokyo-tm/gcl": {"threshold": 0.5, "moments": "other"},
    **{f"tb-places/{name}": {"threshold": 0.5, "strict": True, "denominator": "all", "distances": "float16"} for name in ("gcl", "pairs")},
    **{f"{name}/vpr-bench": {"positive": "frames", "threshold": 0.0, "denominator": "all"} for name in ("amstertime", "essex3in1", "sped")},
    **{f"{name}/vpr-bench": {"positive": "frames", "threshold": 2.0, "denominator": "all"} for name in ("17places", "gardenspoint")},
}


def test_the_named_protocols_are_these():
    """Every one stands in the matrix, those that take a number or an option under one of their names."""
    assert {next(k for k in sorted(PROTOCOLS, key=len, reverse=True) if name.startswith(k.rstrip("TRN"))) for name in MATRIX} == set(
        PROTOCOLS
    )


def test_each_maker_says_what_it_is_in_a_line():
    """`covis ls protocols` prints it."""
    for name, make in PROTOCOLS.items():
        assert (make.__doc__ or "").splitlines()[0].endswith("."), name


@pytest.mark.parametrize("name", MATRIX)
def test_each_is_the_matrix_row(name):
    found = protocol(name)
    assert found == dataclasses.replace(USUAL, name=name, source=found.source, **MATRIX[name])
    assert found.source
    assert protocol(found.name) == found


@pytest.mark.parametrize(("name", "canonical"), [
    ("graded/0.50", "graded/0.5"),
    ("radius/25.0/040", "radius/25/40"),
    ("frames/07", "frames/7"),
    ("msls-val/official/im2im", "msls-val/official"),
    ("msls-val/official/im2im/all", "msls-val/official"),
    ("msls-val/official/all", "msls-val/official"),
    ("msls-val/official/im2im-1/s2w", "msls-val/official/s2w"),
    ("msls-val/official/seq2seq-03/all", "msls-val/official/seq2seq-3"),
])  # fmt: skip
def test_one_protocol_has_one_name(name, canonical):
    assert protocol(name) == protocol(canonical)
    assert protocol(name).name == canonical


@pytest.mark.parametrize(
    "name",
    ["graded/T", "graded/x", "graded/0", "graded/2", "graded/nan", "7scene/gcl", "7scenes/0.5", "", "graded", "/T", "graded/all",
     "graded/0.5/0.6",
     "radius/R", "radius/", "radius/0", "radius/-1", "radius/inf", "radius/25/200", "radius/25/40/10", "radius/all/25", "radius",
     "msls-val", "msls-val/official/", "msls-val/official/seq2seq", "msls-val/official/seq2seq-2", "msls-val/official/seq2seq-1",
     "msls-val/official/seq2seq--3", "msls-val/official/im2im-3", "msls-val/official/d2d", "msls-val/official/d2n/seq2seq-3",
     "msls-val/official/seq2seq-3/d2n/x", "msls-val/gcl/d2n", "nordland/7",
     "frames/N", "frames/-1", "frames/1/2", "frames/1/all", "frames",
     "same-place/", "same-place/some", "pitts/netvlad", "tokyo247/netvlad/all"]
)  # fmt: skip
def test_unknown_protocols_are_named(name):
    with pytest.raises(UnknownNameError):
        protocol(name)
    with pytest.raises(UnknownNameError, match="Did you mean '7scenes/gcl'"):
        protocol("7scenes/glc")
    for name, said in (
        ("radius/x", "metres for R"),
        ("graded/2", r"in \(0, 1\]"),
        ("msls-val/official/x", "seq2seq-3, then one of all, s2w"),
    ):
        with pytest.raises(UnknownNameError, match=said):
            protocol(name)
    with pytest.raises(UnknownNameError, match="Did you mean 'msls-val/gsv'"):
        protocol("msls-val/gvs")


def test_a_maker_of_ones_own_takes_a_number(monkeypatch):
    monkeypatch.setitem(PROTOCOLS, "office/N", lambda text: Protocol(f"office/{text}", float(text), positive="frames"))
    assert protocol("office/3").threshold == 3
    with pytest.raises(UnknownNameError, match="office/N takes a number"):
        protocol("office/x")


PLAIN = st.text(st.characters(categories=["L"]), min_size=1)


@given(st.lists(protocols(PLAIN), min_size=2, max_size=6))
def test_two_that_differ_have_different_cards(some):
    for a, b in itertools.combinations(some, 2):
        assert (a.card() == b.card()) == (a == b)


CHANGES = {
    "name": "z", "threshold": 24.5, "strict": True, "heading": 40.0, "asked": ("all",), "searched": ("-night",), "correct": ("-panorama",),
    "denominator": "all", "scope": "joint", "windows": (3, 1), "precision": "found", "short": "use", "ks": (1, 5), "distances": "float16",
    "source": "y", "positive": "frames", "duplicates": "place", "moments": "other",
}  # fmt: skip


def test_the_card_says_every_choice():
    one = Protocol("x", 25.0, positive="distance")
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Protocol)}
    for field, value in CHANGES.items():
        assert dataclasses.replace(one, **{field: value}).card() != one.card(), field


def test_the_card_in_words():
    assert (
        protocol("msls-val/official/seq2im-3/d2n").card()
        == """msls-val/official/seq2im-3/d2n
  asked      every query: those with 'd2n', without 'panorama'
  searched   each scene's database alone; an image with itself is no pair
  correct    at most 25 m from the query; only images with 'd2n', without 'panorama' (others keep their rank)
  counted    queries with a positive
  duplicates every image found keeps its rank
  windows    a query is 3 consecutive frames, a database entry one image; one pair of frames makes two of them correct
  mAP@k      divides by min(positives, k)
  AP         over all query x database pairs, by distance (float32)
  k          1, 5, 10, 20; a ranking too short for a k is used as far as it goes
  source     mapillary_sls, evaluate.py"""
    )
    assert "> 0.5" in protocol("7scenes/gcl").card()
    assert "duplicates of a place's images the best keeps its rank" in protocol("tokyo247/netvlad").card()
    assert "an image with itself is no pair, nor with one taken at the query's own time" in protocol("tokyo-tm/netvlad").card()
    assert "correct    the same frame number" in protocol("sped/vpr-bench").card()
    assert "correct    an image of the query's own place" in protocol("same-place").card()
    assert "headings at most 40 degrees apart" in protocol("radius/25/40").card()
    assert "one index over the databases of all scenes; only images without 'panorama'" in protocol("msls-val/gsv").card()
