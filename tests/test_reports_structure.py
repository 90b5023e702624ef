"""Pictures and tables of label maps and partitions: what is drawn is what was counted, and what is missing is said."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covis.errors import InvalidInputError, MissingExtraError, MissingFileError, UnknownNameError
from covis.files import digest
from covis.images import Images, Scene
from covis.rasters import read_image, write_image, write_label_map
from covis.reports.label_maps import (
    CLUSTER_COLOURS,
    EDGE,
    HEAD,
    channel_palette,
    map_palette,
    map_sheet,
    nearest,
    photograph_of,
    shortened,
    weight_palette,
)
from covis.reports.partitions import GROUP_COLOURS, group_sheet, mean_weights, partition_text
from covis.reports.plots import rank_plot
from covis.semantics.encodings import encoding
from covis.semantics.numberings import numbering
from covis.settings import EncodingSettings
from covis.structure.partition import Partition

SIX = EncodingSettings("cityscapes-train")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Three photographs of one grey; their maps are road below and sky above, the last with a pole and void too."""
    for number in range(3):
        write_image(tmp_path / f"{number}.png", np.full((60, 80, 3), 100, dtype=np.uint8))
        ids = np.full((30, 40), 10, dtype=np.uint8)
        ids[15:] = 0
        if number == 2:
            ids[:10, :10], ids[:10, 30:] = 5, 255
        write_label_map(tmp_path / f"{number}-map.png", ids)
    names = [f"{number}.png" for number in range(3)]
    return Images(tmp_path, names, segmentation=[f"{number}-map.png" for number in range(3)])


@pytest.fixture
def pairs() -> Partition:
    """Two scenes of towns: a pair of D1, two of D2, none of D3, one of D4."""
    return Partition(
        [[0, 0, 1], [3]], [[1, 2, 0], [4]], [[0.9, 0.5, 0.9], [0.8]], [[1, 12, 3], [2]], [[11, 1, 3], [2]], scenes=("miami", "athens")
    )


WEIGHTS = [np.array([2.0, 0.0, 0.5]), np.array([1.5])]


def has(sheet: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet == np.array(colour, dtype=np.uint8)).all(axis=2).sum())


def column(sheet: np.ndarray, number: int, *, width: int = 80) -> np.ndarray:
    """A tile of the first row."""
    left = EDGE + number * (width + 8)
    return sheet[HEAD : HEAD + 60, left : left + width]


def test_columns_hold_photograph_classes_channels_and_weights(images: Images, tmp_path: Path) -> None:
    sheet = read_image(map_sheet(images, SIX, out=tmp_path / "out.png", rows=3, width=80))
    photograph, classes, channels, weights = (column(sheet, number) for number in range(4))
    assert (photograph == 100).all()
    mixed = np.rint(0.34 * 100 + 0.66 * numbering("cityscapes-train").palette[[10, 0]])
    assert (classes[:30] == mixed[0]).all()
    assert (classes[30:] == mixed[1]).all()
    assert (channels[:30] == CLUSTER_COLOURS["sky"]).all()
    assert (channels[30:] == CLUSTER_COLOURS["ground"]).all()
    assert (weights == weight_palette(encoding(SIX))[2]).all()  # both weigh 1


def test_the_legend_names_what_is_drawn(images: Images, tmp_path: Path) -> None:
    colours = numbering("cityscapes-train").palette
    first = read_image(map_sheet(images.select([0]), SIX, out=tmp_path / "first.png", width=80))
    every = read_image(map_sheet(images, SIX, out=tmp_path / "every.png", width=80))
    shown = [[has(sheet, tuple(colours[number])) > 100 for number in (10, 0, 5, 2)] for sheet in (first, every)]
    assert shown == [[True, True, False, False], [True, True, True, False]]
    assert has(first, CLUSTER_COLOURS["dynamic"]) > 100  # of few channels all are named


def test_maps_are_never_mixed_in_resizing(images: Images, tmp_path: Path) -> None:
    sheet = read_image(map_sheet(images.select([2]), SIX, out=tmp_path / "out.png", width=97))
    tile = column(sheet, 2, width=97)
    allowed = {CLUSTER_COLOURS[name] for name in ("sky", "ground", "structure", "other")}
    assert {tuple(pixel) for pixel in tile.reshape(-1, 3).tolist()} == allowed


def test_photographs_are_spread_evenly_over_all(images: Images, tmp_path: Path) -> None:
    write_image(images.path(1), np.full((60, 80, 3), (200, 0, 0), dtype=np.uint8))
    two = read_image(map_sheet(images, SIX, out=tmp_path / "two.png", rows=2, width=80))
    three = read_image(map_sheet(images, SIX, out=tmp_path / "three.png", rows=9, width=80))
    assert (has(two, (200, 0, 0)), has(three, (200, 0, 0))) == (0, 60 * 80)


def test_upright_photographs_keep_their_proportions(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((80, 40, 3), (0, 200, 0), dtype=np.uint8))
    assert photograph_of(tmp_path / "a.png", 100).shape == (100, 50, 3)
    assert nearest(np.array([[1, 2]], dtype=np.uint8), (4, 2)).tolist() == [[1, 1, 2, 2]] * 2


@pytest.mark.parametrize(
    ("settings", "colours"),
    [
        (SIX, CLUSTER_COLOURS["structure"]),
        (EncodingSettings("cityscapes-train", clusters="none"), (128, 64, 128)),  # the road's own
    ],
)
def test_channels_have_colours_of_their_own(settings: EncodingSettings, colours: tuple[int, int, int]) -> None:
    encoded = encoding(settings)
    palette = channel_palette(encoded, numbering(settings.classes))
    assert tuple(palette[0].tolist()) == colours
    assert len(np.unique(palette[[*range(len(encoded)), 255]], axis=0)) == len(encoded) + 1


@pytest.mark.parametrize("name", ["ade20k", "vistas-1.2", "vistas-2.0"])
def test_many_channels_are_told_apart(name: str, images: Images, tmp_path: Path) -> None:
    settings = EncodingSettings(name, clusters="none")
    encoded = encoding(settings)
    palette = channel_palette(encoded, numbering(name))
    assert len(np.unique(palette[: len(encoded)], axis=0)) == len(encoded)
    assert read_image(map_sheet(images, settings, out=tmp_path / "out.png", width=80)).shape[0] < 800


def test_clusters_of_ones_own(images: Images, tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text('rest = "rest"\n[clusters]\nflat = ["road", "sidewalk"]\n[weights]\nflat = 3.0\n')
    settings = EncodingSettings("cityscapes-train", clusters=str(file))
    sheet = read_image(map_sheet(images.select([0]), settings, out=tmp_path / "out.png", width=80))
    flat = channel_palette(encoding(settings), numbering("cityscapes-train"))[0]
    assert (column(sheet, 2)[30:] == flat).all()
    assert (column(sheet, 3)[30:] == (24, 58, 104)).all()  # the heaviest


def test_what_cannot_be_drawn_is_refused(images: Images, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    bare = Images(images.root, images.names)
    with pytest.raises(InvalidInputError, match=r"must have label maps \(the column segmentation\)"):
        map_sheet(bare, SIX, out=out)
    with pytest.raises(InvalidInputError, match=r"needs an image; there is none"):
        map_sheet(images.select([]), SIX, out=out)
    with pytest.raises(InvalidInputError, match=r"at least 80 pixels wide; got width=20"):
        map_sheet(images, SIX, out=out, width=20)
    with pytest.raises(InvalidInputError, match=r"at least 1 of rows; got rows=0"):
        map_sheet(images, SIX, out=out, rows=0)
    with pytest.raises(UnknownNameError, match=r"cityscape"):
        map_sheet(images, EncodingSettings("cityscape"), out=out)
    write_label_map(tmp_path / "1-map.png", np.full((30, 40), 77, dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=rf"{re.escape(str(tmp_path / '1-map.png'))}: .* found 77"):
        map_sheet(images, SIX, out=out)
    (tmp_path / "1-map.png").unlink()
    with pytest.raises(MissingFileError, match=r"1-map\.png"):
        map_sheet(images, SIX, out=out)
    assert not out.exists()


def test_long_names_are_shortened_in_the_middle(images: Images, tmp_path: Path) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(12)
    name = "ride-" + "0" * 300 + "-end.jpg"
    said = shortened(name, 200, font)
    assert said.startswith("ride-")
    assert said.endswith("-end.jpg")
    assert font.getlength(said) <= 200
    assert shortened("short", 200, font) == "short"


def sheet_of(town: list[Scene], partition: Partition, out: Path, **options: object) -> np.ndarray:
    return read_image(group_sheet(town, partition, out=out, **({"width": 80} | options)))  # type: ignore[arg-type]


def test_each_group_has_its_headline_and_pairs(town: list[Scene], pairs: Partition, tmp_path: Path) -> None:
    sheet = sheet_of(town, pairs, tmp_path / "out.png", weights=WEIGHTS, settings=SIX)
    assert [has(sheet, colour) for colour in GROUP_COLOURS.values()] == [6 * 19] * 4  # the marks of the headlines
    photograph = photograph_of(town[0].queries.path(0), 80)  # of the only pair of D1
    found = np.lib.stride_tricks.sliding_window_view(sheet[:, EDGE : EDGE + 80], (60, 80, 3))
    assert (found == photograph).all(axis=(-1, -2, -3)).sum() == 2  # and of D4, whose query is the same


def test_a_group_without_pairs_takes_no_room_but_its_headline(town: list[Scene], pairs: Partition, tmp_path: Path) -> None:
    full = sheet_of(town, pairs, tmp_path / "full.png")
    alone = replace(pairs, student=([11, 11, 11], [11]), teacher=([1, 1, 1], [1]))  # D1 only
    assert alone.counts() == {"D1": 4, "D2": 0, "D3": 0, "D4": 0}
    pair = 2 * 60 + 4 + 5 + 3 * 17  # photographs, maps and three lines of text, at this width
    assert sheet_of(town, alone, tmp_path / "alone.png").shape[0] == full.shape[0] - 2 * (pair - 1)


def test_the_seed_draws(town: list[Scene], tmp_path: Path) -> None:
    many = np.arange(10)
    pairs = Partition(
        [many, []], [many + 1, []], [np.full(10, 0.9), []], [many * 0 + 1, []], [many * 0 + 1, []], scenes=("miami", "athens")
    )
    first, again, other = (sheet_of(town, pairs, tmp_path / f"{number}.png", seed=seed) for number, seed in enumerate((1, 1, 2)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert sheet_of(town, pairs, tmp_path / "all.png", pairs=50).shape[0] > first.shape[0]


def test_scenes_without_label_maps(town: list[Scene], pairs: Partition, tmp_path: Path) -> None:
    def bare(scene: Scene) -> Scene:
        return replace(scene, database=replace(scene.database, segmentation=None), queries=replace(scene.queries, segmentation=None))

    both, one, none = (
        sheet_of(scenes, pairs, tmp_path / f"{number}.png", settings=SIX)
        for number, scenes in enumerate((town, [bare(town[0]), town[1]], [bare(scene) for scene in town]))
    )
    assert none.shape[0] < one.shape[0] < both.shape[0]
    half = [replace(town[0], database=replace(town[0].database, segmentation=None)), town[1]]  # a query's map alone
    assert has(sheet_of(half, pairs, tmp_path / "half.png", settings=SIX), (234, 237, 240)) > 1000


def test_other_scenes_are_refused(town: list[Scene], pairs: Partition, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    with pytest.raises(InvalidInputError, match=r"must be the 2 of the partition, in its order; got 1"):
        group_sheet(town[:1], pairs, out=out)
    beyond = replace(pairs, query=([0, 0, 99], [3]))
    with pytest.raises(InvalidInputError, match=r"miami has other images than miami"):
        group_sheet(town, beyond, out=out)
    hashes = tuple(digest([scene.queries.names, scene.database.names]) for scene in town)
    group_sheet(town, replace(pairs, images=hashes), out=out, width=80)
    with pytest.raises(InvalidInputError, match=r"has other images"):
        group_sheet(town, replace(pairs, images=("0" * 16, hashes[1])), out=tmp_path / "other.png")
    with pytest.raises(InvalidInputError, match=r"at least 1 of pairs"):
        group_sheet(town, pairs, out=out, pairs=0)


def test_numbers_without_settings_have_colours_of_ours() -> None:
    assert len(np.unique(map_palette(None)[:40], axis=0)) == 40
    six = map_palette(SIX)
    assert six[[10, 0, 2, 8, 13]].tolist() == [
        list(CLUSTER_COLOURS[name]) for name in ("sky", "ground", "structure", "vegetation", "dynamic")
    ]
    assert six[77].tolist() == [234, 237, 240]  # no number of this numbering


def test_the_text_counts_and_says_how_the_branches_complement(pairs: Partition) -> None:
    text = partition_text(pairs, WEIGHTS)
    lines = text.splitlines()
    assert lines[0].startswith("4 positive pairs (>= 0.5) of 3 queries in 2 scenes")
    assert [line.split()[-1] for line in lines[1:5]] == ["2.000", "1.000", "-", "0.000"]
    assert [f"{share} %" in lines[place] for place, share in ((1, "25.00"), (2, "50.00"), (3, "0.00"), (4, "25.00"))] == [True] * 4
    assert "33.33 % of the queries under the teacher, for 33.33 % under the student" in text
    assert "mean weight" not in partition_text(pairs)


def test_the_branches_alone_and_together() -> None:
    pairs = Partition([[0, 1, 2, 3]], [[1, 1, 1, 1]], [[0.9] * 4], [[1, 1, 1, 9]], [[1, 9, 9, 1]], scenes=("street",))
    assert partition_text(pairs).endswith(
        "for 100.00 %, under both for 25.00 %: the teacher alone finds 50.00 %, the student alone 25.00 %."
    )


@pytest.mark.parametrize("bad", [WEIGHTS[:1], [WEIGHTS[0][:2], WEIGHTS[1]], [np.array([1.0, np.nan, 1.0]), WEIGHTS[1]]])
def test_weights_must_be_of_the_pairs(bad: list[np.ndarray], pairs: Partition, town: list[Scene], tmp_path: Path) -> None:
    for told in (
        lambda: partition_text(pairs, bad),
        lambda: mean_weights(pairs, bad),
        lambda: group_sheet(town, pairs, out=tmp_path / "a.png", weights=bad),
        lambda: rank_plot(pairs, out=tmp_path / "a.png", weights=bad),
    ):
        with pytest.raises(InvalidInputError, match=r"one a pair in one array a scene, \[3, 1\]"):
            told()
    assert not (tmp_path / "a.png").exists()


def test_the_plane_of_ranks(pairs: Partition, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bare = read_image(rank_plot(pairs, out=tmp_path / "bare.png"))
    weighed = read_image(rank_plot(pairs, out=tmp_path / "weighed.png", weights=WEIGHTS))
    assert weighed.shape[1] > bare.shape[1]
    bars = [has(bare, colour) for colour in GROUP_COLOURS.values()]  # a quarter, a half, none, a quarter
    assert bars[1] == pytest.approx(2 * bars[0], rel=0.1)
    assert bars[2] < 0.2 * bars[0]


def test_the_same_pairs_give_the_same_bytes(pairs: Partition, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, again = (rank_plot(pairs, out=tmp_path / f"{number}.png").read_bytes() for number in range(2))
    assert first == again


@pytest.mark.parametrize(("threshold", "rank"), [(1, 1), (1, 40_000), (500, 3), (10, 11)])
def test_planes_of_any_range(threshold: int, rank: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pairs = Partition([[0]], [[1]], [[0.9]], [[rank]], [[1]], scenes=("street",), threshold=threshold)
    assert rank_plot(pairs, out=tmp_path / "out.png", weights=[np.zeros(1)]).stat().st_size > 10_000


def test_without_matplotlib(pairs: Partition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'covis\[plots\]'"):
        rank_plot(pairs, out=tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_headlines_are_not_cut_off(town: list[Scene], pairs: Partition, tmp_path: Path) -> None:
    sheet = sheet_of(town, replace(pairs, rank="best-positive", threshold=12), tmp_path / "out.png", pairs=1, weights=WEIGHTS)
    assert (sheet[:, -EDGE + 1 :] == 255).all()
