"""Coming from GCL's reference: every command of docs/from-gcl.md is run, indexes of every data set come back, and files go both ways."""

from __future__ import annotations

import json
import shlex
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from covis.cli import app
from covis.datasets import write
from covis.datasets.gcl import read_gcl, write_gcl
from covis.descriptors import Descriptors
from covis.errors import CovisError, CovisWarning, DamagedFileError
from covis.images import Images, Scene
from covis.labels import Labels
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.scores import Scores, what_was_scored

PAGE = Path(__file__).parents[1] / "docs" / "from-gcl.md"
NOT_RUN = {"covis train gcl-msls": "52 caches of 10,000 queries on a GPU; tests/test_recipes.py reads the recipe"}
SMALL = {
    "--backbone resnet50": "--backbone resnet18 --height 48 --width 64",
    "--dim 2048 --dim 1024 --dim 512 --dim 256 --dim 128 --dim 64 --dim 32": "--dim 16 --dim 8",
    "white/1024": "white/16",
    "--whitened 1024": "--whitened 16",
    "--layout dbstruct": "--layout dbstruct --read sizes=ignore",
    "--fov 90 --reach 50": "--reach 50",
    "--half 25": "--half 8",
}
"""What the page says of whole benchmarks, and what is asked of a small town in their place."""


def commands() -> list[str]:
    """The lines of the page's blocks that call covis, in their order, those of several lines joined."""
    blocks = PAGE.read_text(encoding="utf-8").split("```")[1::2]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.startswith("covis ")]


def run(line: str | list[Any]) -> Any:
    arguments = shlex.split(line)[1:] if isinstance(line, str) else [str(part) for part in line]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{line}: {done.output}{done.exception!r}"
    return done


def refused(arguments: list[Any]) -> str:
    done = CliRunner().invoke(app, [str(part) for part in arguments])
    assert isinstance(done.exception, CovisError), done.output + repr(done.exception)
    return str(done.exception)


def renamed(images: Images, root: Path, before: str) -> Images:
    """The same photographs under names that begin otherwise, and go on with a time stamp."""
    names = [f"{before}{1_400_000_000_000_000 + row}{Path(name).suffix}" for row, name in enumerate(images.names)]
    for row, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images.path(row), root / name)
    return replace(images, root=root, names=tuple(names), depth=None, segmentation=None)


@pytest.fixture
def disk(town: list[Scene], room: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a researcher has: MSLS, a room of 7-Scenes, Pittsburgh, RobotCar's indexes, and a checkpoint."""
    from covis.models.gcl_checkpoints import write_gcl_checkpoint
    from covis.models.place import PlaceModel
    from covis.settings import ModelSettings

    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        write("msls", [replace(scene, name=name, split="val") for scene, name in zip(town, ("cph", "sf"), strict=True)], tmp_path / "MSLS")
        write("dbstruct", [replace(town[0], name="pitts30k")], tmp_path / "mat")
    (tmp_path / "mat" / "pitts30k").rename(tmp_path / "Pittsburgh")
    room("7scenes/redkitchen")
    car = [renamed(side, tmp_path / "car-images", f"{name}/rear/") for name, side in (("ref", town[0].database), ("dusk", town[0].queries))]
    write_gcl([Scene("RobotCar", "test", *car)], tmp_path, dataset="robotcar")
    settings = ModelSettings(backbone="resnet18", aggregator="gem", height=48, width=64, pretrained=False)
    write_gcl_checkpoint(PlaceModel(settings, seed=3), tmp_path / "MSLS_resnet50_GeM_480_GCL.pth")
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_every_command_of_the_page_runs(disk: Path) -> None:
    lines = commands()
    assert len(lines) >= 30
    for name in SMALL:
        assert any(name in line for line in lines), name
    for line in lines:
        if any(line.startswith(begin) for begin in NOT_RUN):
            continue
        small = line.replace("/path/to/", f"{disk}/")
        for theirs, ours in SMALL.items():
            small = small.replace(theirs, ours)
        run(small)
    _check_msls(disk)
    _check_pittsburgh(disk)
    _check_kitchen(disk)
    _check_submission(disk)


def _check_msls(disk: Path) -> None:
    results = disk / "results" / "MSLS" / "val"
    index = json.loads((disk / "MSLS" / "train_val" / "cph" / "query.json").read_text())
    assert [len(row) for row in index["loc"]] == [3] * len(index["im_paths"]) == [3] * 16
    name = "MSLS_resnet50_GeM_480_GCL"
    features = np.load(results / f"{name}_sf_mapfeats.npy")
    assert (features.dtype, features.shape) == (np.float64, (24, 512))
    assert np.load(results / f"{name}_sf_mapfeats_whiten_16.npy").shape == (24, 16)
    lines = [line.split() for line in (results / f"{name}_predictions.txt").read_text().splitlines()]
    assert [len(line) for line in lines] == [1 + 24] * 32  # 30, or as many as the database has
    assert lines[0][0] == Path(index["im_paths"][0]).stem
    mine, theirs, text = (Scores.load(disk / f"{one}.json").metrics for one in ("val", "theirs", "text"))
    for k in (1, 5, 10, 20):
        assert mine[f"recall@{k}"].value == theirs[f"recall@{k}"].value == text[f"recall@{k}"].value
    read = json.loads((disk / "their-scores.json").read_text())["metrics"]
    assert read["recall@1"] == pytest.approx(mine["recall@1"].value, abs=5e-4)
    assert read["mAP@5"] == pytest.approx(mine["mAP@5"].value, abs=5e-4)
    white = Descriptors.load(disk / "their-white" / "cph" / "queries")
    np.testing.assert_array_equal(white.vectors, Descriptors.load(disk / "white" / "16" / "cph" / "queries").vectors)
    assert white.history["whitened"]["dim"] == 16
    whitened = Scores.load(disk / "white.json")
    assert "whitened to 16 dimensions (power 1), fitted on the database (48 descriptors, transductive)" in what_was_scored(whitened.history)
    assert whitened.history["made"]["transductive"] is True
    assert "transductive" not in Scores.load(disk / "val.json").history["made"]
    with h5py.File(disk / "MSLS" / "train_val" / "sf_gt.h5") as file:
        assert file["fov"].shape == file["sim"].shape == (16, 24)
        np.testing.assert_array_equal(file["sim"][:], file["fov"][:] >= 0.5)


def _check_pittsburgh(disk: Path) -> None:
    """eval_pitts, on the files that were written: queries with a positive alone, percent with two decimals."""
    found = np.load(disk / "results" / "pitts30k" / "net_predictions.npy")
    with h5py.File(disk / "indexes" / "pitts30k" / "pitts30k_test_gt.h5") as file:
        truth = file["sim"][:]
    assert truth.shape == (16, 24)
    expected = ""
    for k in (1, 2, 3, 4, 5, 10, 15, 20, 25):
        asked = [query for query in range(16) if truth[query].any()]
        hits = sum(bool(truth[query, found[query, :k]].any()) for query in asked)
        expected += f"{k},{np.round(hits / len(asked) * 100, 2)}\n"
    assert (disk / "results" / "pitts30k" / "net_scores.txt").read_text() == expected
    np.testing.assert_array_equal(Rankings.load(disk / "rankings.npz").rows, found)


def _check_kitchen(disk: Path) -> None:
    from sklearn.metrics import average_precision_score

    distances = np.load(disk / "results" / "7scenes" / "net_distances.npy")
    with h5py.File(disk / "redkitchen_gt.h5") as file:
        truth = file["fov"][:] > 0.5
    assert distances.dtype == np.float16
    expected = average_precision_score(truth.flatten(), -distances.flatten().astype(float))
    scores = Scores.load(disk / "distances.json")
    assert scores.history["made"]["AP of the stored distances"] == pytest.approx(expected, abs=1e-12)
    assert Scores.load(disk / "room.json").metrics["AP"].value == pytest.approx(expected, abs=1e-12)
    nearest = distances.argsort(axis=1, kind="stable")[:, 0]
    assert scores.metrics["recall@1"].value == truth[np.arange(len(truth)), nearest].mean()
    assert (
        json.loads((disk / "recall.json").read_text())["metrics"]["recall@1"] == Scores.load(disk / "room.json").metrics["recall@1"].value
    )


def _check_submission(disk: Path) -> None:
    """Each line is the first image's pose turned round, as world_to_camera of their code does it."""
    index = {name: json.loads((disk / "RobotCar" / f"{name}.json").read_text()) for name in ("reference", "test")}
    sides = {side: Descriptors.load(disk / "car" / "RobotCar" / side).vectors.astype(float) for side in ("queries", "database")}
    lines = [line.split() for line in (disk / "poses.txt").read_text().splitlines()]
    assert len(lines) == len(index["test"]["im_paths"]) == 16
    assert "poses" not in index["test"]
    by_name = {line[0]: [float(value) for value in line[1:]] for line in lines}
    for row, name in enumerate(index["test"]["im_paths"]):
        first = int(np.argmin(((sides["database"] - sides["queries"][row]) ** 2).sum(axis=1)))
        qw, qx, qy, qz, *centre = index["reference"]["poses"][first]
        rotation = Rotation.from_quat([qx, qy, qz, qw]).as_matrix().T
        found = by_name[name[name.find("/rear") + 1 :]]
        quaternion = Rotation.from_matrix(rotation).as_quat(canonical=True)[[3, 0, 1, 2]]
        sign = np.sign(np.dot(found[:4], quaternion))
        np.testing.assert_allclose(np.array(found[:4]) * sign, quaternion, atol=1e-9)
        np.testing.assert_allclose(found[4:], -rotation @ centre, atol=1e-6)


# -- the indexes --


def alike(found: Scene, scene: Scene, *, poses: tuple[bool, bool], xy: bool) -> None:
    for (mine, theirs), posed in zip(((found.database, scene.database), (found.queries, scene.queries)), poses, strict=True):
        assert len(mine) == len(theirs)
        assert (mine.pose is not None) == posed
        assert (mine.xy is not None) == xy
        if mine.pose is not None:
            np.testing.assert_allclose(mine.pose, theirs.pose, atol=1e-9)
        if mine.xy is not None:
            np.testing.assert_array_equal(mine.xy, theirs.xy)
            np.testing.assert_array_equal(mine.heading, theirs.heading)


WAYS: dict[str, tuple[tuple[bool, bool], bool, dict[str, Any]]] = {
    "msls": ((False, False), True, {}),
    "7scenes": ((True, True), False, {}),
    "tb-places": ((True, True), False, {}),
    "robotcar": ((True, False), False, {}),
    "cmu": ((True, False), False, {"convention": "world-to-camera"}),
    "pitts": ((False, False), True, {}),
    "tokyo247": ((False, False), True, {}),
    "tokyotm": ((False, False), True, {"dataset": "pairs"}),
}


@pytest.mark.parametrize("files", ["copy", "link", "none"])
@pytest.mark.parametrize("dataset", WAYS)
def test_the_town_goes_through_the_index_of_each_data_set(town: list[Scene], tmp_path: Path, dataset: str, files: str) -> None:
    poses, xy, options = WAYS[dataset]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)  # of names that their code could not use
        written = write_gcl(town, tmp_path, dataset=dataset, files=files)  # type: ignore[arg-type] # one of the three
    for path, scene in zip(written, town, strict=True):
        (found,) = read_gcl(path, **{"dataset": dataset, "missing": "ignore" if files == "none" else "stop", **options})
        alike(found, scene, poses=poses, xy=xy)
        if files != "none":
            assert [found.queries.path(row).read_bytes() for row in range(3)] == [scene.queries.path(row).read_bytes() for row in range(3)]
    every = read_gcl(
        tmp_path, **{"dataset": dataset, "missing": "ignore", "cities": ["miami", "athens"] if dataset == "msls" else None, **options}
    )
    assert len(every) == 2


def test_poses_of_cmu_are_what_the_server_takes_not_centres(town: list[Scene], tmp_path: Path) -> None:
    """Their code copies seven numbers of reference.json into the submission; it wants x_camera = R x_world + t."""
    with pytest.warns(CovisWarning, match=r"test\.json: names for GCL's code must have a part that begins with img"):
        (written,) = write_gcl(town[:1], tmp_path, dataset="cmu", files="none")
    qw, qx, qy, qz, *t = json.loads((written / "reference.json").read_text())["poses"][5]
    pose = town[0].database.pose
    assert pose is not None
    point = np.array([3.0, -1.0, 2.0])  # before the camera; where it is in the world, and back by the numbers of the file
    world = pose[5, :3, :3] @ point + pose[5, :3, 3]
    np.testing.assert_allclose(Rotation.from_quat([qx, qy, qz, qw]).apply(world) + t, point, atol=1e-8)
    assert np.abs(np.array(t) - pose[5, :3, 3]).max() > 1
    assert list(json.loads((written / "test.json").read_text())) == ["im_prefix", "im_paths"]


def test_names_that_their_code_cannot_use_are_said(town: list[Scene], tmp_path: Path) -> None:
    for dataset, said in (("robotcar", r"must hold rear/"), ("tokyotm", r"fourth part, behind one letter .*; 24 do not")):
        with pytest.warns(CovisWarning, match=said):
            write_gcl(town[:1], tmp_path / dataset, dataset=dataset, files="none")


def test_months_of_tokyo_time_machine(tmp_path: Path) -> None:
    def written(name: str, *stamps: str) -> None:
        paths = [f"03814/3814.1/{row}/{stamp}/x.jpg" for row, stamp in enumerate(stamps)]
        (tmp_path / f"val_{name}.json").write_text(json.dumps({"im_prefix": "", "im_paths": paths}))

    written("db", "d201107", "d201108", "d201107")
    written("q", "d201107")
    (scene,) = read_gcl(tmp_path, dataset="tokyotm", split="val", missing="ignore")
    assert scene.database.time is not None
    assert scene.queries.time is not None
    np.testing.assert_array_equal(scene.database.time == scene.queries.time[0], [True, False, True])
    assert scene.queries.time[0] == 1309478400  # 2011-07-01, UTC
    for stamp in ("201107", "d2011", "d201113", "dxx1107", ""):
        written("q", stamp)
        with pytest.raises(DamagedFileError, match=r"val_q\.json, row 0 .*year and month.*dataset=pairs"):
            read_gcl(tmp_path, dataset="tokyotm", split="val", missing="ignore")
    assert read_gcl(tmp_path, dataset="pairs", split="val", missing="ignore")[0].queries.time is None


# -- results, both ways --


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Indexes of two images that ask five, with descriptors, rankings, labels and scores of covis."""
    (tmp_path / "x").mkdir()
    for side, count in (("query", 2), ("database", 5)):
        names = [f"{side}/{side[0]}{row}.jpg" for row in range(count)]
        (tmp_path / "x" / f"{side}.json").write_text(json.dumps({"im_prefix": "", "im_paths": names}))
        values = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        Descriptors(values, tuple(names), "m").save(tmp_path / "d" / "x" / ("queries" if side == "query" else "database"))
    names_of = [tuple(json.loads((tmp_path / "x" / f"{side}.json").read_text())["im_paths"]) for side in ("query", "database")]
    Labels(sparse.csr_array([[1.0, 0, 0.4, 0, 0], [0, 0, 0, 0, 0.5]]), *names_of, rule="hand").save(tmp_path / "l.npz")
    return tmp_path


DATA = ["--layout", "gcl", "--read", "missing=ignore"]


def test_results_go_there_and_back(small: Path) -> None:
    name = small / "r" / "net"
    files = ["--descriptors", small / "d", "--distances", "--search", "--text", "--labels", small / "l.npz", "--key", "sim"]
    done = run(["convert", "to-gcl", small / "x", *DATA, *files, "--out", name])
    ends = ["queryfeats.npy", "mapfeats.npy", "distances.npy", "predictions.npy", "predictions.txt", "gt.h5"]
    assert done.stdout.split() == [f"{name}_{end}" for end in ends]
    queries, database = (Descriptors.load(small / "d" / "x" / side) for side in ("queries", "database"))
    for file, what in ((f"{name}_predictions.npy", "p.npz"), (f"{name}_distances.npy", "m.npz"), (f"{name}_gt.h5", "g.npz"), (name, "f")):
        run(["convert", "from-gcl", file, "--data", small / "x", "--read", "missing=ignore", "--out", small / what])
    nearest = [sorted(range(5), key=lambda row: float(np.linalg.norm(database.vectors[row] - one))) for one in queries.vectors]
    assert Rankings.load(small / "p.npz").rows.tolist() == Rankings.load(small / "m.npz").rows.tolist() == nearest
    assert (Labels.load(small / "g.npz").matrix != Labels.load(small / "l.npz").matrix).nnz == 0
    np.testing.assert_array_equal(Descriptors.load(small / "f" / "x" / "queries").vectors, queries.vectors)
    again = small / "again" / "net"
    run(["convert", "to-gcl", small / "x", *DATA, "--rankings", small / "p.npz", "--out", again])
    np.testing.assert_array_equal(np.load(f"{again}_predictions.npy"), np.load(f"{name}_predictions.npy"))
    for file, data in ((f"{name}_predictions.npy", "p.json"), (f"{name}_distances.npy", "m.json")):
        options = ["--labels", f"{name}_gt.h5", "--protocol", "graded/0.5", "--samples", 20, "--out", small / data]
        run(["evaluate", small / "x", *DATA, "--rankings", file, *options])
        correct = [row[0] == positive for row, positive in zip(nearest, (0, 4), strict=True)]  # 0.4 is none
        assert Scores.load(small / data).metrics["recall@1"].value == np.mean(correct)
    assert "already there" in refused(["convert", "to-gcl", small / "x", *DATA, "--rankings", small / "p.npz", "--out", again])


def scored_of(small: Path, descriptors: Path, name: str, *more: str) -> tuple[str, Any]:
    options = ["--descriptors", descriptors, "--labels", small / "l.npz", "--protocol", "graded/0.5", "--samples", 20]
    said = run(["evaluate", small / "x", *DATA, *options, *more, "--out", small / name]).stderr
    return " ".join(said.split()), Scores.load(small / name).history["made"].get("transductive")


def test_scores_of_whitened_descriptors_say_that_they_are_transductive(small: Path) -> None:
    run(["whiten", small / "d", "--dim", 2, "--out", small / "white"])
    run(["whiten", small / "d", "--dim", 2, "--fit", small / "d", "--out", small / "taught"])
    said, known = scored_of(small, small / "white", "a.json")
    assert "fitted on the database (5 descriptors, transductive)" in said
    assert known is True
    of_a_file, known = scored_of(small, small / "d", "c.json", "--whitening", str(small / "white" / "whitening.npz"))
    assert "(5 descriptors, transductive if" in of_a_file
    assert known is None
    taught, known = scored_of(small, small / "taught", "d.json")
    assert "transductive" not in taught
    assert known is False
    assert scored_of(small, small / "d", "e.json")[1] is None


def test_scores_of_what_apply_pca_whitened_say_it_too(small: Path) -> None:
    run(["whiten", small / "d", "--dim", 2, "--out", small / "white"])
    run(["convert", "to-gcl", small / "x", *DATA, "--descriptors", small / "white", "--out", small / "r" / "net"])
    back = [small / "r" / "net", "--data", small / "x", "--read", "missing=ignore", "--whitened", 2, "--out", small / "theirs"]
    run(["convert", "from-gcl", *back])
    theirs, known = scored_of(small, small / "theirs", "f.json")
    assert "whitened to 2 dimensions, fitted on the database, by GCL's apply_pca.py (transductive)" in theirs
    assert known is True


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.is_dir() else []


def damaged(small: Path, fault: str) -> tuple[list[Any], str]:
    """What is asked for besides the features, and why it cannot be written."""
    names = json.loads((small / "x" / "query.json").read_text())["im_paths"]
    if fault == "labels that are not there":
        return ["--labels", small / "none.npz"], "none.npz"
    if fault == "scores that are not there":
        return ["--labels", small / "l.npz", "--scores", small / "none.json"], "none.json"
    if fault == "labels that cannot be condensed":
        return ["--labels", small / "l.npz", "--condensed"], "must be of one set against itself"
    if fault == "scores without recall":
        scores = {"error": np.zeros(2)}
        Scores(protocol("graded/0.5"), {}, tuple(names), scores).save(small / "s.json")
        return ["--scores", small / "s.json"], "must have recall@k"
    (small / "r").mkdir()
    (small / "r" / "net_gt.h5").write_bytes(b"theirs")
    return ["--labels", small / "l.npz"], "net_gt.h5 is already there"


@pytest.mark.parametrize("fault", [
    "labels that are not there", "scores that are not there", "labels that cannot be condensed", "scores without recall",
    "a file that is there",
])  # fmt: skip
def test_to_gcl_writes_all_or_nothing(small: Path, fault: str) -> None:
    more, said = damaged(small, fault)
    before = left(small / "r")
    command = ["convert", "to-gcl", small / "x", *DATA, "--descriptors", small / "d", "--distances", "--search", *more]
    assert said in refused([*command, "--out", small / "r" / "net"])
    assert left(small / "r") == before


def test_what_to_gcl_writes_over_is_replaced_and_nothing_else_is_left(small: Path) -> None:
    command = ["convert", "to-gcl", small / "x", *DATA, "--labels", small / "l.npz", "--by-scene", "--out", small / "r"]
    run(command)
    (small / "r" / "x_gt.h5").write_bytes(b"")
    assert "x_gt.h5 is already there" in refused(command)
    run([*command, "--overwrite"])
    assert left(small / "r") == ["x_gt.h5"]
    assert h5py.is_hdf5(small / "r" / "x_gt.h5")
    assert not list(small.glob(".*"))
    assert "must be what the files' names begin with" in refused([*command[:-1], "."])
    (small / "file").write_bytes(b"")
    assert "could not be written" in refused([*command[:-1], small / "file" / "net"])


def test_from_gcl_looks_at_all_places_before_it_writes_one(small: Path) -> None:
    run(["convert", "to-gcl", small / "x", *DATA, "--descriptors", small / "d", "--out", small / "r" / "net"])
    (small / "f" / "x" / "database").mkdir(parents=True)
    options = ["--data", small / "x", "--read", "missing=ignore", "--out", small / "f"]
    assert "database is already there" in refused(["convert", "from-gcl", small / "r" / "net", *options])
    assert left(small / "f") == ["database", "x"]


@pytest.mark.parametrize(("arguments", "said"), [
    (["from-gcl", "r/net_predictions.npy", "--out", "o"], r"--data must be the data set that r/net_predictions.npy was made of"),
    (["from-gcl", "r/net_predictions.txt", "--out", "o"], "covis evaluate --predictions"),
    (["from-gcl", "r/net_scores.txt", "--whitened", "8", "--out", "o"], "taken to be scores; --whitened is of features"),
    (["from-gcl", "r/net_scores.txt", "--out", "o"], "must exist"),
    (["to-gcl", "x", "--out", "o"], "At least one of --descriptors, --rankings, --labels and --scores"),
    (["to-gcl", "x", "--labels", "l.npz", "--distances", "--out", "o"], "--distances must come with what is to be written"),
    (["to-gcl", "x", "--rankings", "p.npz", "--descriptors", "d", "--search", "--out", "o", *DATA],
     "from --rankings or from --search; got both"),
    (["to-gcl", "x", "--descriptors", "d", "--also-binary", "0.5", "--out", "o"], "--also-binary must come with"),
    (["from-gcl", "r/none_gt.h5", "--data", "x", "--read", "missing=ignore", "--out", "o.npz"], "there is no such file|must exist"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_sentence(small: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    import re

    monkeypatch.chdir(small)
    found = refused(["convert", *arguments])
    assert re.search(said, found), found
    assert not (small / "o").exists()


def test_rankings_of_other_data_are_not_written_without_names(small: Path) -> None:
    Rankings([[0], [1]], [[0.0], [0.0]], ("a", "b"), ("c", "d")).save(small / "p.npz")
    found = refused(["convert", "to-gcl", small / "x", *DATA, "--rankings", small / "p.npz", "--out", small / "o"])
    assert "must rank the images of scene 'x', all of them and in their order" in found


def test_a_joint_index_is_not_what_their_files_rank(small: Path) -> None:
    np.save(small / "net_predictions.npy", np.tile(np.arange(5), (2, 1)))
    options = ["--rankings", small / "net_predictions.npy", "--protocol", "msls-val/gsv", "--out", small / "s.json"]
    assert "searches one joint index" in refused(["evaluate", small / "x", *DATA, *options])
