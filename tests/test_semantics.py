"""Numberings, clusterings and encodings: the benchmarks' lists, Cityscapes word by word, and what a user's files must hold."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from covis.semantics import CLUSTERINGS, NUMBERINGS, Clustering, Encoding, Numbering, clustered, clustering, encode, encoding, numbering
from covis.semantics.numberings import own_colour
from covis.settings import EncodingSettings

TRAIN = (
    "road sidewalk building wall fence pole|traffic light|traffic sign|vegetation terrain sky person rider car truck bus train motorcycle "
    "bicycle"
)
TRAIN_IDS = [name for part in TRAIN.split("|") for name in ([part] if part.startswith("traffic") else part.split())]
SIX = ("structure", "vegetation", "ground", "sky", "other", "dynamic")
COUNTS = {  # numbers with a name, those of them that mean something, void
    "cityscapes": (34, 27, {0, 1, 2, 3, 4, 5, 6, 255}),
    "cityscapes-train": (19, 19, {255}),
    "ade20k": (150, 150, {255}),
    "ade20k-annotations": (150, 150, {0, 255}),
    "vistas-1.2": (66, 63, {63, 64, 65, 255}),
    "vistas-2.0": (124, 118, {118, 119, 120, 121, 122, 123, 255}),
}


def six_of(name):
    numbers = numbering(name)
    channels, lookup = clustering("six").assign(numbers)
    assert channels == SIX
    return {text: channels[lookup[number]] for number, text in numbers.classes.items()}


def test_the_lists_have_the_published_sizes():
    assert list(NUMBERINGS) == list(COUNTS)
    for name, (named, meaning, void) in COUNTS.items():
        one = NUMBERINGS[name]
        assert (len(one.classes), len(one.meaningful), set(one.void)) == (named, meaning, void), name
        assert min(one.classes) == (1 if name == "ade20k-annotations" else 0)
        assert list(one.classes) == list(range(min(one.classes), min(one.classes) + named))
        assert one.source


def test_cityscapes_train_ids_are_the_nineteen_in_order():
    assert list(NUMBERINGS["cityscapes-train"].classes.values()) == TRAIN_IDS
    assert len(TRAIN_IDS) == 19


def test_train_ids_are_those_of_the_town():
    from covis.town.meshes import Label
    from covis.town.sheets import PALETTE

    train = NUMBERINGS["cityscapes-train"]
    assert {int(label): label.name.lower().replace("_", " ") for label in Label if label != Label.VOID} == train.classes
    assert all(tuple(train.palette[number]) == colour for number, colour in PALETTE.items())


def test_cityscapes_label_ids_by_hand():
    ids = NUMBERINGS["cityscapes"]
    hand = {0: "unlabeled", 7: "road", 8: "sidewalk", 11: "building", 17: "pole", 21: "vegetation", 23: "sky", 24: "person", 33: "bicycle"}
    assert {number: ids.classes[number] for number in hand} == hand
    kept = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]  # the ids that have a train id, in its order
    assert [ids.classes[number] for number in kept] == TRAIN_IDS
    np.testing.assert_array_equal(ids.palette[kept], NUMBERINGS["cityscapes-train"].palette[:19])


def test_ade20k_by_hand_and_its_files_count_from_one():
    networks, files = NUMBERINGS["ade20k"], NUMBERINGS["ade20k-annotations"]
    hand = {0: "wall", 1: "building", 2: "sky", 4: "tree", 6: "road", 12: "person", 20: "car", 136: "traffic light", 149: "flag"}
    assert {number: networks.classes[number] for number in hand} == hand
    assert {number + 1: name for number, name in networks.classes.items()} == files.classes
    np.testing.assert_array_equal(networks.palette[:150], files.palette[1:151])
    assert networks.palette[1].tolist() == [180, 120, 120]
    assert networks.palette[149].tolist() == [92, 0, 255]


def test_ade20k_names_are_the_first_words_of_the_towns_table():
    from covis.town import ADE20K

    assert {text.split(",")[0] for text in ADE20K.values()} <= set(NUMBERINGS["ade20k"].classes.values())


def test_vistas_by_hand():
    old, new = NUMBERINGS["vistas-1.2"], NUMBERINGS["vistas-2.0"]
    assert [old.classes[n] for n in (0, 2, 13, 17, 27, 30, 48, 55, 65)] == [
        "bird", "curb", "road", "building", "sky", "vegetation", "traffic light", "car", "unlabeled",
    ]  # fmt: skip
    assert [new.classes[n] for n in (0, 4, 21, 27, 61, 64, 90, 91, 94, 108, 123)] == [
        "bird", "curb", "road", "building", "sky", "vegetation", "traffic light - general (single)", "traffic light - pedestrians",
        "traffic light - cyclists", "car", "unlabeled",
    ]  # fmt: skip
    shared = set(old.classes.values()) & set(new.classes.values()) - {"lane marking - crosswalk"}  # whose colour changed
    assert len(shared) > 50
    for name in shared:
        a, b = (next(n for n, text in one.classes.items() if text == name) for one in (old, new))
        assert old.palette[a].tolist() == new.palette[b].tolist(), name


def test_cityscapes_six_word_by_word():
    assert six_of("cityscapes-train") == {
        "building": "structure", "wall": "structure", "fence": "structure", "pole": "structure", "traffic light": "structure",
        "traffic sign": "structure", "road": "ground", "sidewalk": "ground", "terrain": "ground", "vegetation": "vegetation", "sky": "sky",
        "person": "dynamic", "rider": "dynamic", "car": "dynamic", "truck": "dynamic", "bus": "dynamic", "train": "dynamic",
        "motorcycle": "dynamic", "bicycle": "dynamic",
    }  # fmt: skip
    assert six_of("cityscapes").items() >= six_of("cityscapes-train").items()
    channels, lookup = clustering("six").assign(numbering("cityscapes-train"))
    assert channels[lookup[255]] == "other"
    assert (lookup[19:255] == -1).all()


def test_a_few_of_the_others_by_hand():
    ade = six_of("ade20k")
    assert [ade[one] for one in ("house", "stairs", "signboard", "grass", "sand", "palm", "sofa", "van", "animal", "sky", "sea")] == [
        "structure", "structure", "structure", "ground", "ground", "vegetation", "other", "dynamic", "dynamic", "sky", "other",
    ]  # fmt: skip
    new = six_of("vistas-2.0")
    assert [new[one] for one in ("garage", "lane marking - text", "person group", "ego vehicle", "trash can", "traffic cone")] == [
        "structure", "ground", "dynamic", "other", "other", "other",
    ]  # fmt: skip


@pytest.mark.parametrize("name", list(COUNTS))
def test_every_class_stands_in_exactly_one_of_the_six(name):
    listed = [member for members in clustering("six").clusters.values() for member in members]
    assert len(listed) == len(set(listed))
    assert set(NUMBERINGS[name].classes.values()) <= set(listed)
    assert set(SIX) - {"other"} <= set(six_of(name).values()) <= set(SIX)


def test_the_six_list_no_class_that_is_in_no_numbering():
    known = {text for one in NUMBERINGS.values() for text in one.classes.values()}
    assert {member for members in clustering("six").clusters.values() for member in members} == known


@pytest.mark.parametrize("name", list(COUNTS))
def test_a_class_is_in_the_same_cluster_in_every_numbering(name):
    for other in COUNTS:
        mine, theirs = six_of(name), six_of(other)
        assert all(mine[one] == theirs[one] for one in set(mine) & set(theirs))


@pytest.mark.parametrize("name", list(COUNTS))
def test_none_gives_each_class_its_channel_and_void_none(name):
    one = encoding(EncodingSettings(name, clusters="none"))
    numbers = NUMBERINGS[name]
    assert one.channels == tuple(numbers.meaningful.values())
    assert [one.channels[one.lookup[number]] for number in numbers.meaningful] == list(one.channels)
    assert (one.lookup[list(numbers.void)] == -1).all()
    assert (one.weights == 1).all()


def test_default_weights_and_those_laid_over():
    six = encoding(EncodingSettings("cityscapes-train"))
    assert dict(zip(six.channels, six.weights.tolist(), strict=True)) == {
        "structure": 2.0, "vegetation": 1.0, "ground": 1.0, "sky": 1.0, "other": 0.5, "dynamic": 0.5,
    }  # fmt: skip
    laid = encoding(EncodingSettings("cityscapes-train", weights={"dynamic": 0.0, "sky": 3}))
    assert laid.weights.tolist() == [2.0, 1.0, 1.0, 3.0, 0.5, 0.0]
    plain = encoding(EncodingSettings("cityscapes-train", weighted=False, weights={"sky": 3.0}))
    assert plain.weights.tolist() == [1.0] * 6
    fine = encoding(EncodingSettings("cityscapes-train", clusters="none", weights={"building": 4.0}))
    assert fine.weights[2] == 4
    assert fine.weights.sum() == 18 + 4
    assert len({six.digest(), laid.digest(), plain.digest(), fine.digest()}) == 4
    assert six.digest() == encoding(EncodingSettings("cityscapes-train")).digest()


def plain_encode(ids, one):
    """What `encode` says, a pixel at a time."""
    out = np.zeros((len(one.channels), *ids.shape), dtype=np.float32)
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            channel = int(one.lookup[ids[row, column]])
            if channel >= 0:
                out[channel, row, column] = one.weights[channel]
    return out


@given(data=st.data(), name=st.sampled_from(list(COUNTS)), clusters=st.sampled_from(["six", "none"]), weighted=st.booleans())
def test_encode_equals_a_plain_loop(data, name, clusters, weighted):
    one = encoding(EncodingSettings(name, clusters=clusters, weighted=weighted))
    allowed = st.sampled_from(np.flatnonzero(one.known).tolist())
    ids = data.draw(arrays.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=allowed))
    found = encode(ids, one)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, plain_encode(ids, one))
    assert ((found > 0).sum(axis=0) <= 1).all()
    channel = clustered(ids, one)
    assert channel.dtype == np.uint8
    np.testing.assert_array_equal(channel == 255, ~(found > 0).any(axis=0))
    np.testing.assert_array_equal(found.argmax(axis=0)[channel != 255], channel[channel != 255])


def test_encode_is_what_the_network_does():
    torch = pytest.importorskip("torch")
    from covis.models.encoders import LabelEncoder

    one = encoding(EncodingSettings("cityscapes"))
    ids = np.random.default_rng(0).choice(np.flatnonzero(one.known), size=(7, 9)).astype(np.uint8)
    found = LabelEncoder(one)(torch.from_numpy(ids)[None, None])[0].numpy()
    np.testing.assert_array_equal(found, encode(ids, one))


def test_lists_say_what_each_is():
    assert str(NUMBERINGS["vistas-1.2"]).startswith("63 classes, 0 to 62; void: 63, 64, 65, 255. Mapillary Vistas 1.2: ")
    assert str(CLUSTERINGS["six"]) == "structure 2, vegetation 1, ground 1, sky 1, other 0.5, dynamic 0.5; void: other"
    assert str(CLUSTERINGS["none"]) == "each class a channel, 1; void: no channel"


def docs_rows(*names):
    """The rows of the docs' table of the six clusters."""
    there = {text for name in names for text in NUMBERINGS[name].classes.values()}
    six = clustering("six")
    return "\n".join(
        f"| {cluster} | {six.weights[cluster]:g} | {', '.join(one for one in members if one in there)} |"
        for cluster, members in six.clusters.items()
    )


@pytest.mark.parametrize("names", [("cityscapes", "cityscapes-train"), ("ade20k", "ade20k-annotations"), ("vistas-1.2", "vistas-2.0")])
def test_the_docs_have_the_tables(names):
    page = (Path(__file__).parent.parent / "docs" / "semantics.md").read_text(encoding="utf-8")
    assert docs_rows(*names) in page
    for name in names:
        numbers = NUMBERINGS[name]
        assert f"| `{name}` | {len(numbers.meaningful)} | {min(numbers.meaningful)}–{max(numbers.meaningful)} | " in page


def test_encode_refuses_what_is_no_map_of_the_numbering():
    one = encoding(EncodingSettings("cityscapes-train"))
    with pytest.raises(InvalidInputError, match=r"found 19, 77, which it does not have"):
        encode(np.array([[0, 19, 77]], dtype=np.uint8), one)
    with pytest.raises(InvalidInputError, match=r"\(height, width\) uint8; got int64 \(1, 1\)"):
        clustered(np.array([[0]]), one)
    with pytest.raises(InvalidInputError, match=r"got uint8 \(1,\)"):
        encode(np.array([0], dtype=np.uint8), one)


MINE = '[classes]\n0 = "floor"\n1 = "shelf"\n2 = "person"\n7 = "nothing known"\n'


def test_a_numbering_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'void = [7, 255]\nsource = "our robot"\n{MINE}[colours]\n0 = [1, 2, 3]\n')
    mine = numbering(path)
    assert mine.meaningful == {0: "floor", 1: "shelf", 2: "person"}
    assert np.flatnonzero(mine.known).tolist() == [0, 1, 2, 7, 255]
    assert mine.source == "our robot"
    assert mine.palette[[0, 1, 7, 9]].tolist() == [[1, 2, 3], list(own_colour(1)), [0, 0, 0], [0, 0, 0]]
    assert encoding(EncodingSettings(str(path), clusters="none")).channels == ("floor", "shelf", "person")
    assert encoding(EncodingSettings(str(path))).lookup[[0, 1, 2, 7, 255]].tolist() == [2, 4, 5, 4, 4]  # by name; void is "other"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", InvalidInputError, r"must have a table \[classes\]"),
        ("[classes]\n", InvalidInputError, r"must have a table \[classes\]"),
        ("classes = 3", InvalidInputError, r"must have a table \[classes\]"),
        ("[classes\n", DamagedFileError, r"must be TOML"),
        ('[classes]\n0 = "a"\n0 = "b"', DamagedFileError, r"A key stands twice"),
        ('[classes]\n0 = "a"\n00 = "b"', InvalidInputError, r"without leading zeros; got '00'"),
        ('[classes]\n256 = "a"', InvalidInputError, r"0 to 255, without leading zeros; got '256'"),
        ('[classes]\n-1 = "a"', InvalidInputError, r"got '-1'"),
        ('[classes]\nroad = "a"', InvalidInputError, r"got 'road'"),
        ('[classes]\n"²" = "a"', InvalidInputError, r"got '²'"),
        ("[classes]\n0 = 3", InvalidInputError, r"name of class 0 must be a text of one line; got 3"),
        ('[classes]\n0 = ""', InvalidInputError, r"name of class 0 must be a text"),
        ('[classes]\n0 = "a"\n1 = "a"', InvalidInputError, r"0 and 1 are both 'a'"),
        ('void = [0]\n[classes]\n0 = "a"', InvalidInputError, r"at least one class that means something"),
        ('void = [256]\n[classes]\n0 = "a"', InvalidInputError, r"from 0 to 255; got 256"),
        ('void = [1, 1]\n[classes]\n0 = "a"', InvalidInputError, r"each once; got \[1, 1\]"),
        ('void = ["1"]\n[classes]\n0 = "a"', InvalidInputError, r"void must list whole numbers"),
        ('void = 255\n[classes]\n0 = "a"', InvalidInputError, r"void must be a list"),
        ('viod = [255]\n[classes]\n0 = "a"', InvalidInputError, r"no setting 'viod'. Did you mean 'void'"),
        ('[classes]\n0 = "a"\n[colours]\n0 = [1, 2]', InvalidInputError, r"colour of 0 must be three whole numbers"),
        ('[classes]\n0 = "a"\n[colours]\n0 = [1, 2, 300]', InvalidInputError, r"colour of 0 must be three whole numbers"),
    ],
)
def test_damaged_numberings_are_refused_in_words(tmp_path, text, kind, words):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(kind, match=words) as refused:
        numbering(path)
    assert "mine.toml" in str(refused.value)


def test_unknown_names_suggest_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no numbering of classes called 'cityscape'.*Did you mean 'cityscapes'"):
        numbering("cityscape")
    with pytest.raises(UnknownNameError, match=r"no clustering called 'sixx'.*Did you mean 'six'"):
        clustering("sixx")
    with pytest.raises(MissingFileError, match=r"gone\.toml"):
        numbering(tmp_path / "gone.toml")
    with pytest.raises(InvalidInputError, match=r"must say how the label maps number their classes"):
        encoding(EncodingSettings(""))
    with pytest.raises(InvalidInputError, match=r"'structures' is none. Did you mean 'structure'"):
        encoding(EncodingSettings("cityscapes", weights={"structures": 1.0}))
    with pytest.raises(InvalidInputError, match=r"weight of 'sky' must be a number >= 0; got -1"):
        encoding(EncodingSettings("cityscapes", weights={"sky": -1.0}))
    with pytest.raises(InvalidInputError, match=r"weight of 'sky' must be a number >= 0; got nan"):
        encoding(EncodingSettings("cityscapes", weighted=False, weights={"sky": float("nan")}))
    with pytest.raises(InvalidInputError, match=r"not all 0"):
        encoding(EncodingSettings("cityscapes", weights=dict.fromkeys(SIX, 0.0)))


def test_a_clustering_of_ones_own(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text('rest = "other"\n[clusters]\nfixed = ["building", 3, "pole"]\nmoving = ["car", 11]\n[weights]\nfixed = 3\n')
    one = encoding(EncodingSettings("cityscapes-train", clusters=str(path)))
    assert one.channels == ("fixed", "moving", "other")
    assert one.weights.tolist() == [3, 1, 1]
    assert [number for number in range(19) if one.lookup[number] == 0] == [2, 3, 5]
    assert [number for number in range(19) if one.lookup[number] == 1] == [11, 13]
    assert one.lookup[255] == -1
    assert (one.lookup[:19] >= 0).all()


def test_what_means_nothing_may_be_listed_all_the_same(tmp_path):
    path = tmp_path / "static.toml"
    path.write_text('rest = "other"\nvoid = "other"\n[clusters]\nfixed = ["static", "building", 255]\n')
    one = encoding(EncodingSettings("cityscapes", clusters=str(path)))
    assert np.flatnonzero(one.lookup == 0).tolist() == [4, 11, 255]
    assert one.channels[one.lookup[5]] == "other"


def test_rest_each_keeps_the_other_classes_apart(tmp_path):
    path = tmp_path / "each.toml"
    path.write_text('rest = "*"\nvoid = "void"\n[clusters]\nmoving = ["car", "truck"]\n')
    one = encoding(EncodingSettings("cityscapes-train", clusters=str(path)))
    assert one.channels == ("moving", "void", *(name for name in TRAIN_IDS if name not in ("car", "truck")))
    assert one.channels[one.lookup[255]] == "void"


def test_without_rest_a_file_serves_several_numberings(tmp_path):
    lists = {name: list(members) for name, members in CLUSTERINGS["six"].clusters.items()}
    path = tmp_path / "mine.toml"
    path.write_text("[clusters]\n" + "\n".join(f"{name} = {members}" for name, members in lists.items()))
    for name in COUNTS:
        np.testing.assert_array_equal(
            encoding(EncodingSettings(name, clusters=str(path))).lookup[list(NUMBERINGS[name].classes)],
            encoding(EncodingSettings(name)).lookup[list(NUMBERINGS[name].classes)],
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"must have a table \[clusters\]"),
        ("clusters = 3", r"must have a table \[clusters\]"),
        ('[clusters]\na = "building"', r"cluster 'a' must be a list"),
        ("[clusters]\na = [1.5]", r"1.5 is neither"),
        ("[clusters]\na = [true]", r"True is neither"),
        ('[clusters]\na = ["buildin"]', r"'buildin' in cluster 'a' is no class of cityscapes-train. Did you mean 'building'"),
        ('rest = "b"\n[clusters]\na = ["tree"]', r"'tree' in cluster 'a' is no class .* one of another numbering"),
        ("[clusters]\na = [99]", r"99 in cluster 'a' is no number of cityscapes-train"),
        ("[clusters]\na = [-1]", r"-1 in cluster 'a' is no number"),
        ('[clusters]\na = ["car"]\nb = ["car"]', r"'car' stands in 'a' and 'b'"),
        ('[clusters]\na = ["car", "car"]', r"'car' stands in 'a' and 'a'"),
        ('[clusters]\na = ["car"]\nb = [13]', r"13 \('car'\) stands in 'a'"),
        ('[clusters]\na = ["car"]', r"18 of 19 do not, the first 'road', 'sidewalk', 'building'"),
        ('rest = 3\n[clusters]\na = ["car"]', r"rest and void must be the names of clusters; got 3"),
        ('void = "*"\n[clusters]\na = ["car"]', r"void must be one cluster"),
        ('[clusters]\n"*" = ["car"]', r"a cluster must have a name; got '\*'"),
        ('rest = "b"\n[clusters]\na = ["car"]\n[weights]\nc = 1', r"'c' is none.*Channels: a, b"),
        ('rest = "b"\n[clusters]\na = ["car"]\n[weights]\na = -1', r"weight of 'a' must be a number >= 0; got -1"),
        ('rest = "b"\n[clusters]\na = ["car"]\n[weights]\na = "x"', r"weight of 'a' must be a number >= 0; got 'x'"),
        ('weights = 3\nrest = "b"\n[clusters]\na = ["car"]', r"\[weights\] must be a table"),
        ('rest = "*"\n[clusters]\nroad = ["car"]', r"class 'road' of cityscapes-train stands in no cluster, and one is called like it"),
        ('wieghts = 3\n[clusters]\na = ["car"]', r"no setting 'wieghts'. Did you mean 'weights'"),
    ],
)
def test_damaged_clusterings_are_refused_in_words(tmp_path, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=words) as refused:
        encoding(EncodingSettings("cityscapes-train", clusters=str(path)))
    assert "mine.toml" in str(refused.value)


@given(text=st.text(max_size=60))
def test_any_text_as_a_file_is_an_error_of_ours(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("t") / "mine.toml"
    path.write_text(text, encoding="utf-8")
    for read in (numbering, clustering):
        with pytest.raises(CovisError):
            read(path)


def test_a_noun_that_does_not_fit_is_refused():
    palette = np.zeros((256, 3), dtype=np.uint8)
    with pytest.raises(InvalidInputError, match=r"palette must be \(256, 3\) uint8"):
        Numbering("mine", {0: "a"}, frozenset(), palette[:10], "")
    with pytest.raises(InvalidInputError, match=r"from 0 to 255; got True"):
        Numbering("mine", {True: "a"}, frozenset(), palette, "")
    with pytest.raises(InvalidInputError, match=r"'a' stands in 'x' and 'y'"):
        Clustering("mine", {"x": ("a",), "y": ("a",)})
    known, lookup = np.ones(256, dtype=np.bool_), np.zeros(256, dtype=np.int16)
    one = np.ones(1, dtype=np.float32)
    for channels, table, weights, words in [
        ((), lookup, one[:0], r"1 to 255 channels"),
        (("a", "a"), lookup, np.ones(2, dtype=np.float32), r"each name once"),
        (("a",), lookup[:9], one, r"shape \(256,\)"),
        (("a",), lookup + np.int16(1), one, r"channels 0 to 0"),
        (("a",), lookup, -one, r">= 0"),
    ]:
        with pytest.raises(InvalidInputError, match=words):
            Encoding(tuple(channels), table, weights, known)
    with pytest.raises(InvalidInputError, match=r"-1 for unknown numbers"):
        Encoding(("a",), lookup, one, ~known)
