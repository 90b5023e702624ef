"""The catalogue of benchmarks: every name in it exists, sizes are asserted only where they were counted, and `covis ls` prints it."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from covis.cli import app
from covis.config import parse_options
from covis.datasets import READERS
from covis.datasets.catalogue import DATASETS, Dataset, Size, check_sizes
from covis.datasets.utm_names import read_utm
from covis.errors import CovisWarning, InvalidInputError, UnknownNameError
from covis.evaluation import evaluate
from covis.localisation import POSE_PROTOCOLS
from covis.lookup import with_options
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.reports.lists import DATASET_COLUMNS, as_text, dataset_rows

ASKED = (
    *("17places", "7scenes", "amstertime", "crossseason", "essex3in1", "extended-cmu-seasons", "eynsham", "gardenspoint", "gsv-cities"),
    *("msls", "nordland", "pitts250k", "pitts30k", "robotcar-seasons-v2", "sf-xl", "sped", "st-lucia", "tb-places", "tokyo-tm", "tokyo247"),
)


def ran(*arguments):
    result = CliRunner().invoke(app, ["ls", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_fields_benchmarks_are_there():
    assert set(ASKED) <= set(DATASETS)
    assert list(DATASETS) == sorted(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_an_entry_names_what_exists(name):
    one = DATASETS[name]
    assert one.layout in READERS
    with_options(READERS[one.layout], parse_options([one.read] if one.read else []), what="reader")
    assert one.protocols
    for known in one.protocols:
        assert known in POSE_PROTOCOLS or protocol(known).name == known
    assert one.title
    assert one.licence
    assert re.match(r"(free|login|on request|W16)", one.obtain)
    assert "https://" in one.obtain or "http://" in one.obtain
    for size in one.sizes:
        assert size.split in ("train", "val", "test")
        assert size.source  # whoever asserts a number says where it is from
        assert not (size.queries is None and size.database is None)
        assert size.sure == ("field quotes" not in size.source and "third parties" not in size.source and "issue" not in size.source
                             and "not established" not in size.source)  # fmt: skip


SMALL = Dataset("x", "utm", "free", "none", (Size("test", 3, 4), Size("test", 3, 5, part="a", sure=False), Size("val", None, 7)))


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(DATASETS, "small", SMALL)


@pytest.mark.usefixtures("small")
def test_sizes_that_were_counted_stop_and_others_warn():
    check_sizes("small", split="test", queries=3, database=4)
    with pytest.raises(InvalidInputError, match=r"here: the test split of small must have 3 queries and 4 database images; found 3"):
        check_sizes("small", split="test", queries=3, database=5, where="here")
    with pytest.warns(CovisWarning, match="must have 3 queries and 4"):
        check_sizes("small", split="test", queries=2, database=4, policy="warn")
    with pytest.warns(CovisWarning, match=r"\(a\) must have 3 queries and 5"):
        check_sizes("small", split="test", queries=3, database=4, part="a")
    check_sizes("small", split="test", queries=9, database=9, policy="ignore")
    check_sizes("small", split="test", queries=9, database=9, part="unheard of")
    check_sizes("small", split="train", queries=9, database=9)
    check_sizes("nothing", split="test", queries=9, database=9)
    check_sizes("small", split="val", queries=1, database=7)
    with pytest.raises(InvalidInputError, match="must have 7 database images; found 1 queries and 8 database"):
        check_sizes("small", split="val", queries=1, database=8)
    with pytest.raises(InvalidInputError, match="sizes must be one of stop, warn, ignore; got 'no'"):
        check_sizes("small", split="test", queries=3, database=4, policy="no")


def test_the_counts_of_public_lists(covis_data):
    """What is asserted of Pittsburgh, Tokyo 24/7 and MSLS, counted again."""
    lists = covis_data / "metadata"
    sure = {(name, size.split, size.part): size for name, one in DATASETS.items() for size in one.sizes if size.sure}
    counted = {}
    for name, file in (("pitts30k", "pitts30k/pitts30k_test.npz"), ("tokyo247", "pitts30k/tokyo247.npz")):
        if (lists / file).is_file():
            arrays = np.load(lists / file)
            counted[name, "test", ""] = tuple(len(np.asarray(arrays[key]).reshape(-1, 2)) for key in ("utmQ", "utmDb"))
    asked = [str(name) for name in np.load(lists / "msls_lists" / "msls_val_qImages.npy")]
    for city in ("cph", "sf"):
        searched = (lists / "msls_lists" / f"mapillary{city}_imageNames_index.txt").read_text().split()
        counted["msls", "val", f"{city}, as asked"] = (sum(f"/{city}/" in name for name in asked), len(searched))
    assert ("pitts30k", "test", "") in counted
    for key, found in counted.items():
        assert (sure[key].queries, sure[key].database) == found, key


def test_it_is_printed():
    text = ran("datasets")
    assert all(re.search(rf"^{re.escape(name)} ", text, re.MULTILINE) for name in DATASETS)
    assert max(map(len, text.splitlines())) <= 200
    assert "…" not in text  # an address is broken where it must be, never cut short
    table = ran("datasets", "--markdown").splitlines()
    assert table[0].startswith("| name | layout | sizes | protocols |")
    assert len(table) == 2 + len(DATASETS)
    assert {line.count(" | ") for line in table if not line.startswith("|---")} == {6}
    records = json.loads(ran("datasets", "--json"))
    assert records["pitts30k"]["sizes"][0]["queries"] == 6816
    assert records.keys() == DATASETS.keys()


@pytest.mark.parametrize("what", ["layouts", "protocols", "pose-protocols", "poses", "metrics", "recipes", "rules", "studies", "worlds"])
def test_other_lists_print_in_three_forms(what):
    plain, named = ran(what), json.loads(ran(what, "--json"))
    assert named
    assert all(name in plain for name in named)
    assert len(ran(what, "--markdown").splitlines()) >= 2 + len(named)


def test_what_ls_refuses():
    with pytest.raises(UnknownNameError, match=r"no list called 'dataset'\. Did you mean 'datasets'"):
        ran("dataset")
    with pytest.raises(InvalidInputError, match="--json and --markdown"):
        ran("datasets", "--json", "--markdown")
    with pytest.raises(InvalidInputError, match="--dataset goes with covis ls results"):
        ran("layouts", "--dataset", "msls")


# The arrangements that the layout utm reads, and what VPR-methods-evaluation makes of them.


def arranged(root, places):
    """Empty files with these positions by side; returns the root."""
    for side, names in places.items():
        (root / side).mkdir(parents=True)
        for name in names:
            (root / side / name).touch()
    return root


def name_of(east, north, zone, note):
    return f"@{east:010.2f}@{north:010.2f}@{zone}@@@{note}@@@@@@@@.jpg"


@pytest.mark.parametrize(("name", "zone", "inside", "sides"), [
    ("st-lucia", "56@J", "images/test", ("database", "queries")),
    ("eynsham", "30@U", "images/test", ("database", "queries")),
    ("sf-xl", "10@S", "test", ("database", "queries_v1")),
])  # fmt: skip
def test_sets_of_positions_in_names(tmp_path, name, zone, inside, sides):
    """Worked by hand: q0 is 25 m from d0 (inclusive), q1 25.01 m from d1, which is a miss and counts; q2 is 3 m from d2.

    Ranked d1, d0, d2 by all: only q0 finds its image among the first two, q2 as third: recall@1 0, @5 2/3.
    """
    there = [name_of(500000, 6958000, zone, "a"), name_of(500100, 6958000, zone, "b"), name_of(500300, 6958000, zone, "c")]
    here = [name_of(500025, 6958000, zone, "d"), name_of(500125.01, 6958000, zone, "e"), name_of(500303, 6958000, zone, "f")]
    root = arranged(tmp_path / name / inside, {sides[0]: there, sides[1]: here, "queries_v2": there[:1]}) and tmp_path / name
    options = parse_options([DATASETS[name].read]) if DATASETS[name].read else {}
    if "dataset" in options:
        with pytest.raises(InvalidInputError, match="This is not the benchmark"):
            read_utm(root, **options)
    (scene,) = read_utm(root, **options, sizes="ignore")
    assert scene.queries.names == tuple(f"{sides[1]}/{file}" for file in here)
    assert scene.queries.crs == {"56@J": "EPSG:32756", "30@U": "EPSG:32630", "10@S": "EPSG:32610"}[zone]
    (known,) = DATASETS[name].protocols
    found = Rankings([[1, 0, 2]] * 3, [[0.1, 0.2, 0.3]] * 3, scene.queries.names, scene.database.names)
    scores = evaluate(found, scene, protocol=known, samples=10)
    assert scores.metrics["recall@1"].n == 3
    assert [scores.metrics[metric].value for metric in ("recall@1", "recall@5")] == [0, pytest.approx(2 / 3)]


def test_amstertime_as_it_is_arranged(tmp_path):
    """A pair shares a made-up position; neighbours are 1 km apart."""
    sides = {side: [f"@0@{i * 1000}@@@@@{i:04d}@@@@@@@@.jpg" for i in range(3)] for side in ("database", "queries")}
    arranged(tmp_path / "images" / "test", sides)
    (scene,) = read_utm(tmp_path)
    order = [[0, 1, 2], [0, 1, 2], [2, 0, 1]]
    found = Rankings(order, [[0.1, 0.2, 0.3]] * 3, scene.queries.names, scene.database.names)
    assert evaluate(found, scene, protocol="radius/25/all", samples=10).metrics["recall@1"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("width", [40, 80, 120, 200, 300])
def test_no_address_is_broken_at_any_width(width):
    """A table where there is room, else a block a benchmark; every word stays whole, so that an address can be copied."""
    rows = dataset_rows(DATASETS)
    text = as_text(DATASET_COLUMNS, rows, width=width)
    assert set(text.split()) >= {word for row in rows for cell in row for word in cell.split()}
    assert (max(map(len, text.splitlines())) <= width) or width < 120
    assert text.startswith("name" if width >= 200 else "17places\n  layout")
