"""Published results: every row is sound, the reference's table is whole, and a bad file is refused in words."""

import json

import pytest
from typer.testing import CliRunner

from covis.cli import app
from covis.datasets.catalogue import DATASETS
from covis.errors import DamagedFileError, MissingFileError, UnknownNameError
from covis.localisation import POSE_PROTOCOLS
from covis.protocols import protocol
from covis.published import NOT_STATED, WHITENINGS, published_results, read_results
from covis.reports.lists import RESULT_COLUMNS, as_notes, result_rows, sourced

GOOD = """
source = "ours, Table 2"
url = "https://example.org"
read = "2026-11-21"
metrics = ["recall@1", "recall@5"]
[protocols]
"msls-val" = "msls-val/official"
[[models]]
method = "ours"
backbone = "ResNet50, GeM"
dimension = 512
whitening = "train"
[models.scores]
"msls-val" = [70.1, 81]
"sped" = [50, 60.5]
"""


def test_every_row_is_sound():
    rows = published_results()
    assert len(rows) > 150
    for row in rows:
        assert row.dataset in DATASETS or row.dataset.rpartition("-")[0] in DATASETS
        assert row.protocol in (NOT_STATED, *POSE_PROTOCOLS) or protocol(row.protocol).name == row.protocol
        assert row.source
        assert row.url.startswith("https://")
        assert row.read.startswith("2026-")
        assert row.whitening in WHITENINGS
        assert all(0 <= value <= 100 for value in row.values.values())
    assert len({(r.dataset, r.method, r.backbone, r.dimension, r.whitening, r.remark, r.source) for r in rows}) == len(rows)


def test_a_protocol_is_one_of_its_data_set():
    """No row of MSLS val is under a protocol of Nordland."""
    for row in published_results():
        if row.protocol != NOT_STATED:
            home = row.dataset if row.dataset in DATASETS else row.dataset.rpartition("-")[0]
            assert row.protocol in DATASETS[home].protocols, row
    assert {row.protocol for row in published_results("msls-test")} == {"msls-test/official"}


SETS = ("msls-val", "msls-test", "pitts30k-test", "tokyo247", "robotcar-seasons-v2", "extended-cmu-seasons")
REFERENCE = {
    ("NetVLAD (backbone not stated)", 32768, "none"):
        "62.7/75.0/79.1  41.0/55.3/61.7  52.5/74.1/81.7  20.3/45.4/49.5  3.3/14.1/58.2  3.0/9.7/52.3",
    ("NetVLAD (backbone not stated)", 4096, "database"):
        "63.2/74.9/78.1  41.5/56.2/61.3  53.5/75.2/82.9  28.3/41.9/54.9  3.4/14.2/58.8  3.1/9.7/52.4",
    ("VGG16, GeM", 512, "none"):
        "65.9/77.8/81.4  41.7/55.7/60.6  61.6/80.0/86.0  34.0/51.1/61.3  3.7/15.8/59.7  3.6/11.2/55.8",
    ("VGG16, GeM", 512, "database"):
        "72.0/83.1/85.8  47.0/60.8/65.5  73.3/85.9/89.9  47.6/61.0/69.2  5.4/21.9/69.2  5.7/17.1/66.3",
    ("ResNet50, GeM", 2048, "none"):
        "66.2/78.9/81.9  43.3/59.1/65.0  72.3/87.2/91.3  44.1/61.0/66.7  2.9/14.0/58.8  3.8/11.8/61.6",
    ("ResNet50, GeM", 1024, "database"):
        "74.6/84.7/88.1  52.9/65.7/71.9  79.9/90.0/92.8  58.7/71.1/76.8  4.7/20.2/70.0  5.4/16.5/69.9",
    ("ResNet152, GeM", 2048, "none"):
        "70.3/82.0/84.9  45.7/62.3/67.9  72.6/87.9/91.6  34.0/51.8/60.6  2.9/13.1/63.5  3.6/11.3/63.1",
    ("ResNet152, GeM", 2048, "database"):
        "79.5/88.1/90.1  57.9/70.7/75.7  80.7/91.5/93.9  69.5/81.0/85.1  6.0/21.6/72.5  5.3/16.1/66.4",
    ("ResNeXt101, GeM", 2048, "none"):
        "75.5/86.1/88.5  56.0/70.8/75.1  64.0/81.2/86.6  37.8/53.6/62.9  2.7/13.4/65.2  3.5/10.5/58.8",
    ("ResNeXt101, GeM", 1024, "database"):
        "80.9/90.7/92.6  62.3/76.2/81.1  79.2/90.4/93.2  58.1/74.3/78.1  4.7/21.0/74.7  6.1/18.2/74.9",
}  # fmt: skip
"""Backbone, dimension, whitening -> percent on `SETS`: recall at 1/5/10, or within 0.25 m 2 deg/0.5 m 5 deg/5 m 10 deg.

From the README of marialeyvallina/generalized_contrastive_loss @ 3f02752.
"""


def test_the_references_table_is_whole():
    """Ten models on six data sets; the five whitened ones are transductive, since they were whitened on the searched database."""
    rows = [row for row in published_results() if row.source.startswith("marialeyvallina/")]
    expected = {
        (dataset, *model): [float(value) for value in cell.split("/")]
        for model, cells in REFERENCE.items()
        for dataset, cell in zip(SETS, cells.split(), strict=True)
    }
    assert len(rows) == len(expected) == 60
    assert {(row.dataset, row.backbone, row.dimension, row.whitening): list(row.values.values()) for row in rows} == expected
    assert sum(row.transductive for row in rows) == 30
    for row in rows:
        bins = row.dataset in SETS[4:]
        assert list(row.values) == (["0.25m/2deg", "0.5m/5deg", "5m/10deg"] if bins else ["recall@1", "recall@5", "recall@10"])


def test_the_benchmarks_own_baseline():
    (val,) = [r for r in published_results("msls-val") if r.method == "triplet loss" and r.source.startswith("mapillary/")]
    (test,) = [r for r in published_results("msls-test") if r.method == "triplet loss"]
    assert (val.values["recall@1"], test.values["recall@1"], val.protocol) == (62.3, 37.2, "msls-val/official")


def test_a_data_set_and_its_splits():
    whole = published_results("msls")
    assert {row.dataset for row in whole} == {"msls-val", "msls-test"}
    assert len(whole) == len(published_results("msls-val")) + len(published_results("msls-test"))
    firsts = [next(iter(row.values.values())) for row in published_results("msls-val")]
    assert firsts == sorted(firsts, reverse=True)
    with pytest.raises(UnknownNameError, match=r"no published results on 'msls-vall'\. Did you mean 'msls-val'"):
        published_results("msls-vall")


def test_your_own(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(GOOD)
    rows = {row.dataset: row for row in read_results(path)}
    assert rows["msls-val"].values == {"recall@1": 70.1, "recall@5": 81.0}
    assert (rows["msls-val"].protocol, rows["sped"].protocol) == ("msls-val/official", NOT_STATED)
    assert not rows["sped"].transductive
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert len(read_results(path)) == 2


@pytest.mark.parametrize(("old", "new", "said"), [
    ('source = "ours, Table 2"', "", "must say its source"),
    ('source = "ours, Table 2"', 'source = " "', "must say its source"),
    ('read = "2026-11-21"', "", "must say its read"),
    ('read = "2026-11-21"', 'read = "yesterday"', "say when it was read"),
    ('read = "2026-11-21"', 'read = "2026-99-99"', "say when it was read, .*found 2026-99-99"),
    ('read = "2026-11-21"', 'read = "2026-11-２1"', "say when it was read"),
    ('[protocols]\n"msls-val" = "msls-val/official"', "protocols = 3", "have its protocols as a table, data set by data set; found 3"),
    ("[protocols]", "metrics-of = [1]\n[protocols]", r"have its metrics-of as a table, data set by data set; found \[1\]"),
    ('method = "ours"', 'method = "ours"\nremark = 5', "must say its remark, in a text; found 5"),
    ('["recall@1", "recall@5"]', '["recall@10", "recall@5"]', "does not fall as k grows"),
    (GOOD, "a = " + "[" * 5000, "must be TOML"),
    ("https://example.org", "example.org", "begins with https://"),
    ("msls-val/official", "msls-val/offical", r"There is no protocol called 'msls-val/offical'\. Did you mean 'msls-val/official'"),
    ('"sped" =', '"spedd" =', r"data sets of the catalogue .*'spedd'\. Did you mean 'sped'"),
    ('"msls-val" = "msls', '"msls-test" = "msls', "only of data sets with scores; found msls-test"),
    ("70.1", "101", r"model 1, msls-val must have values in percent, from 0 to 100; found 101"),
    ("70.1", "-0.1", "from 0 to 100"),
    ("70.1", "nan", "from 0 to 100"),
    ("70.1", "true", "from 0 to 100"),
    ("70.1", '"70.1"', "from 0 to 100"),
    ("[70.1, 81]", "[70.1]", "a value for each of recall@1, recall@5"),
    ("[70.1, 81]", "[81, 70.1]", "does not fall as k grows"),
    ('"recall@5"]', '"precision@5"]', "metrics such as recall@1"),
    ('"recall@5"]', '"recall@1"]', "name each metric once"),
    ("dimension = 512", "dimension = 0", "whole number from 1"),
    ("dimension = 512", "dimension = 51.2", "whole number from 1"),
    ('whitening = "train"', 'whitening = "pca"', "whitening of none, train, database"),
    ('whitening = "train"', "", "must say its whitening"),
    ('method = "ours"', "", "must say its method"),
    ('method = "ours"', 'method = "ours"\nnote = 1', "no other keys than .*found note"),
    ("[models.scores]", "[models.values]", "no other keys"),
    ('"msls-val" = [70.1, 81]\n"sped" = [50, 60.5]', "", "must have scores"),
    ("[[models]]", "[models]", r"one at least of \[\[models\]\]"),
    (GOOD, "", "must say its source"),
    ("[[models]]", "[[models", "must be TOML"),
])  # fmt: skip
def test_bad_files_are_refused(tmp_path, old, new, said):
    path = tmp_path / "ours.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DamagedFileError, match=said) as refused:
        read_results(path)
    assert "ours.toml" in str(refused.value)
    assert ".." not in str(refused.value).replace(str(tmp_path), "")


def test_recall_grows_with_k_in_whatever_order(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(
        GOOD.replace('["recall@1", "recall@5"]', '["recall@10", "recall@5"]')
        .replace("[70.1, 81]", "[81, 70.1]")
        .replace("[50, 60.5]", "[9, 9]")
    )
    assert list(read_results(path)[0].values) == ["recall@10", "recall@5"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError):
        read_results(tmp_path / "nothing.toml")


def ran(*arguments):
    result = CliRunner().invoke(app, ["ls", "results", *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_the_command():
    table = ran("--dataset", "msls-val", "--markdown").splitlines()
    assert len(table) == 2 + len(published_results("msls-val"))
    (best,) = [line for line in table if "| GCL | ResNeXt101, GeM | 1024 |" in line]
    assert "msls-val/gcl" in best
    assert "database (transductive)" in best
    assert "R@1 80.9, R@5 90.7, R@10 92.6" in best
    records = json.loads(ran("--dataset", "msls-val", "--json"))["results"]
    assert records[0]["values"]["recall@1"] == 93.8
    assert {row["transductive"] for row in records} == {True, False}
    assert "transductive" in ran("--dataset", "tokyo247")


def test_every_source_has_its_address():
    """As a link in Markdown, in the notes below the table else: each source once, whatever is remarked of its rows."""
    rows = published_results("nordland")
    assert len({(row.source, row.remark) for row in rows}) > len({row.source for row in rows})
    table = ran("--dataset", "nordland", "--markdown")
    text = ran("--dataset", "nordland")
    notes = text.partition("\n\n[1] ")[2]
    for row in rows:
        assert f"| [{row.source}, read {row.read}]({row.url}) |" in table
        assert " ".join(notes.split()).count(f"{row.source}, read {row.read}, {row.url}") == 1
        assert not row.remark or " ".join(notes.split()).count(row.remark) == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_notes_are_wrapped_and_break_no_address(width):
    _, _, notes = sourced(RESULT_COLUMNS, result_rows(published_results()))
    text = as_notes(notes, width=width)
    assert {row.url for row in published_results()} <= set(text.split())
    assert all(len(line) <= width or len(line.split()) <= 2 for line in text.splitlines())
