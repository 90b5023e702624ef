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


def test_the_references_table_is_whole():
    """Ten models on six data sets; the five whitened ones are transductive, since they were whitened on the searched database."""
    rows = [row for row in published_results() if row.source.startswith("marialeyvallina/")]
    assert len(rows) == 60
    sets = ("msls-val", "msls-test", "pitts30k-test", "tokyo247", "robotcar-seasons-v2", "extended-cmu-seasons")
    assert {(row.dataset, sum(r.dataset == row.dataset for r in rows)) for row in rows} == {(name, 10) for name in sets}
    assert sum(row.transductive for row in rows) == 30

    def of(dataset, backbone, dimension, whitening="database"):
        (row,) = [r for r in rows if (r.dataset, r.backbone, r.dimension, r.whitening) == (dataset, backbone, dimension, whitening)]
        return list(row.values.values())

    assert of("msls-val", "ResNeXt101, GeM", 1024) == [80.9, 90.7, 92.6]
    assert of("msls-test", "ResNet50, GeM", 2048, "none") == [43.3, 59.1, 65.0]
    assert of("pitts30k-test", "ResNet152, GeM", 2048) == [80.7, 91.5, 93.9]
    assert of("tokyo247", "VGG16, GeM", 512, "none") == [34.0, 51.1, 61.3]
    assert of("robotcar-seasons-v2", "VGG16, GeM", 512) == [5.4, 21.9, 69.2]
    assert of("extended-cmu-seasons", "NetVLAD (backbone not stated)", 4096) == [3.1, 9.7, 52.4]
    assert list(rows[-1].values) in (["recall@1", "recall@5", "recall@10"], ["0.25m/2deg", "0.5m/5deg", "5m/10deg"])


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
    path.write_bytes(b"\xef\xbb\xbf".removeprefix(b"\xef\xbb\xbf") + GOOD.replace("\n", "\r\n").encode())
    assert len(read_results(path)) == 2


@pytest.mark.parametrize(("old", "new", "said"), [
    ('source = "ours, Table 2"', "", "must say its source"),
    ('source = "ours, Table 2"', 'source = " "', "must say its source"),
    ('read = "2026-11-21"', "", "must say its read"),
    ('read = "2026-11-21"', 'read = "yesterday"', "say when it was read"),
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
