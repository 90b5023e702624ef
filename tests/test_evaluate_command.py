"""covis evaluate: from a model or anyone's descriptors to scores; what is there is used again, and every choice is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from covis.cli import app
from covis.datasets import read, write
from covis.descriptors import Descriptors
from covis.errors import CovisWarning
from covis.evaluation import evaluate
from covis.extraction import extract
from covis.images import Scene
from covis.indexes import index
from covis.labelling import label_by_surface
from covis.labels import Labels
from covis.models.checkpoints import load, save
from covis.models.place import PlaceModel
from covis.protocols import Protocol
from covis.rankings import Rankings
from covis.scores import Scores
from covis.settings import ModelSettings
from covis.whitening import fit_whitening

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learnt nothing, which is as good for this."""
    folder = tmp_path_factory.mktemp("model") / "net"
    settings = ModelSettings(backbone="mobilenetv3_small_050", aggregator="gem", height=32, width=32, pretrained=False)
    save(PlaceModel(settings, seed=0), folder)
    return folder


@pytest.fixture(scope="module")
def labels(tiny_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = read("7scenes", tiny_world)[0]
    return label_by_surface(scene.queries, scene.database, reach=60, relative_tolerance=0.05, step=4).save(
        tmp_path_factory.mktemp("labels") / "cph.npz"
    )


def run(*arguments: object, code: int = 0) -> str:
    """The command's talk; it must end as said, without a traceback of anything but our errors."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if code:
        assert result.exception is not None
        return str(result.exception)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stderr


def same_numbers(a: Scores, b: Scores) -> bool:
    return a.metrics.keys() == b.metrics.keys() and all(
        np.array_equal([*vars(a.metrics[name]).values()], [*vars(b.metrics[name]).values()], equal_nan=True) for name in a.metrics
    )


def test_one_command_is_the_separate_steps(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    said = run(tiny_world, "--model", model, "--labels", labels, "--whiten", 6, "--samples", 20, "--out", tmp_path / "s.json")
    scores = Scores.load(tmp_path / "s.json")

    network, scene = load(model), read("7scenes", tiny_world)[0]
    queries, database = extract(network, scene.queries), extract(network, scene.database)
    whiten = fit_whitening(database, dim=6)
    queries, database = whiten(queries), whiten(database)
    found = index(database, kind="exact").search(queries, k=25)
    by_hand = evaluate(found, scene, labels=Labels.load(labels), descriptors=[(queries, database)], samples=20)
    assert same_numbers(scores, by_hand)
    assert "AP" in scores.metrics

    assert f"model {model} ({network.digest}): 288 dimensions, 32 x 32 pixels, torch" in said
    assert "16 images, described now" in said
    assert "whitened to 6 dimensions, fitted on the databases that are searched (transductive): 24 descriptors" in said
    assert "whitened to 6 dimensions (power 1), fitted on the database (24 descriptors, transductive); index exact" in " ".join(
        said.split()
    )


def test_a_second_call_describes_nothing_anew(
    tiny_world: Path, model: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_world, "--model", model, "--labels", labels, "--samples", 20, "--out", tmp_path / "a.json")
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "evaluate.work").rglob("*") if file.is_file()}
    assert len(made) == 4, "two folders of descriptors, and nothing unfinished"

    def never(*_: object) -> None:
        raise AssertionError("described anew")

    monkeypatch.setattr(PlaceModel, "describe_pixels", never)
    said = run(
        tiny_world, "--model", model, "--labels", labels, "--protocol", "7scenes/gcl", "--k", 30, "--whiten", 4, "--samples", 20,
        "--out", tmp_path / "b.json",
    )  # fmt: skip
    assert said.count("described before") == 2
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "evaluate.work").rglob("*") if file.is_file()} == made
    with pytest.raises(AssertionError, match=r"described anew"):
        raise run_failing(tiny_world, "--model", model, "--labels", labels, "--work", tmp_path / "w", "--out", tmp_path / "c.json")


def run_failing(*arguments: object) -> BaseException:
    found = CliRunner().invoke(app, ["evaluate", *map(str, arguments)]).exception
    assert found is not None
    return found


def test_every_choice_is_in_the_scores(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    Protocol("few", 0.5, ks=(1, 5)).write(tmp_path / "few.toml")
    out = tmp_path / "s.json"
    run(
        tiny_world / "cph", "--read", "intrinsics=[60, 60, 32, 24]",
        "--model", model, "--labels", labels, "--whiten", 6, "--k", 9, "--engine", "torch",
        "--protocol", tmp_path / "few.toml", "--samples", 20, "--work", tmp_path / "w", "--out", out,
    )  # fmt: skip
    history = json.loads(out.read_text())["history"]
    made, network = history["made"], load(model)
    where = {"path": str(tiny_world / "cph"), "layout": "7scenes", "split": "test", "scenes": "*"}
    assert made["data"] == {**where, "read": {"intrinsics": [60, 60, 32, 24]}}
    assert (made["source"], made["given"]) == ("model", str(model))
    expected = {"spec": str(model), "digest": network.digest, "engine": "torch", "dim": 288, "height": 32, "width": 32, "resize": "pil"}
    assert made["model"] == {**expected, "options": {}, "damaged": "stop"}
    assert (made["k"], made["depths"], made["index"]) == (9, [9], {"kind": "exact", "options": {}})
    whitening = made["whitening"]
    assert (whitening["fitted_on"], whitening["dim"], whitening["power"], whitening["count"]) == ("database", 6, 1.0, 24)
    assert {"covis", "numpy", "torch"} <= made["versions"].keys()
    for side, count in (("queries", 16), ("database", 24)):
        story = made["described"][0][side]
        assert (story["count"], story["dim"], story["dtype"], story["model"]) == (count, 288, "float32", network.digest)
        assert (story["extracted"]["height"], story["extracted"]["dtype"]) == (32, "float32")
    assert history["scenes"][0]["rankings"]["index"] == "exact"
    assert history["scenes"][0]["labels"]["rule"] == "surface"
    assert Scores.load(out).protocol.ks == (1, 5)


def test_images_that_cannot_be_read_stop_or_count_as_not_found(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    from shutil import copytree

    copytree(tiny_world / "cph", tmp_path / "cph")
    scene = read("7scenes", tmp_path / "cph")[0]
    for images, row in ((scene.queries, 3), (scene.database, 5)):
        images.path(row).write_bytes(images.path(row).read_bytes()[:90])
    command = [tmp_path / "cph", "--model", model, "--labels", labels, "--samples", 20, "--protocol", "7scenes/gcl"]
    assert scene.queries.names[3].rpartition("/")[2] in run(*command, "--out", tmp_path / "s.json", code=1)
    assert not (tmp_path / "s.json").exists()
    with pytest.warns(CovisWarning, match=r"1 of (16|24) images have no descriptor|AP: 2 images were skipped"):
        said = run(*command, "--damaged", "skip", "--out", tmp_path / "s.json")
    assert "1 queries and 1 database images have no descriptor" in " ".join(said.split())
    scores = Scores.load(tmp_path / "s.json")
    assert scores.metrics["recall@1"].n == 16, "it is asked all the same"
    assert scores.per_query["recall@20"][3] == 0
    described = scores.history["made"]["described"][0]
    assert [one["name"] for one in described["queries"]["extracted"]["skipped"]] == [scene.queries.names[3]]
    assert described["database"]["count"] == 23


def test_a_module_and_an_option(tiny_world: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(
        "import torch\n"
        "def tiny(channels=4):\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--model-option", "channels=7", "--model-option", "height=24", "--model-option", "width=32"]
    command = [tiny_world, "--model", "my_networks:tiny", *options, "--labels", labels, "--samples", 20]
    said = run(*command, "--out", tmp_path / "a.json")
    assert "7 dimensions, 24 x 32 pixels, torch" in said
    made = Scores.load(tmp_path / "a.json").history["made"]["model"]
    assert made["spec"] == "my_networks:tiny"
    assert made["options"] == {"channels": 7, "height": 24, "width": 32}
    assert "described before" in run(*command, "--out", tmp_path / "b.json")
    assert "described now" in run(*command, "--model-option", "normalize=false", "--out", tmp_path / "c.json"), (
        "other pixels, another model"
    )


def test_descriptors_of_another_program(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    """The numbers are those of the same vectors in a folder of covis."""
    scene, network = read("7scenes", tiny_world)[0], load(model)
    both = {"queries": extract(network, scene.queries), "database": extract(network, scene.database)}
    for side, described in both.items():
        described.save(tmp_path / "d" / scene.name / side)
    every = [(name, row) for one in both.values() for name, row in zip(one.names, np.asarray(one.vectors), strict=True)][::-1]
    np.save(tmp_path / "any.npy", np.array([row for _, row in every], dtype=np.float64))
    (tmp_path / "any.txt").write_text("\n".join(name for name, _ in every))
    command = [tiny_world, "--labels", labels, "--samples", 20, "--whiten", 5]
    run(*command, "--descriptors", tmp_path / "d", "--out", tmp_path / "a.json")
    said = run(*command, "--descriptors", tmp_path / "any.npy", "--out", tmp_path / "b.json")
    assert same_numbers(Scores.load(tmp_path / "a.json"), Scores.load(tmp_path / "b.json"))
    assert "any.npy: vectors by name, stored as float64" in said
    assert "model foreign:" in said
    assert not (tmp_path / "evaluate.work").exists()


def test_a_whitening_fitted_elsewhere(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    scene, network = read("7scenes", tiny_world)[0], load(model)
    queries, database = extract(network, scene.queries), extract(network, scene.database)
    fitted = fit_whitening(queries, dim=5, fitted_on="some queries")
    fitted.save(tmp_path / "w.npz")
    queries.save(tmp_path / "d" / scene.name / "queries")
    database.save(tmp_path / "d" / scene.name / "database")
    command = [tiny_world, "--descriptors", tmp_path / "d", "--labels", labels, "--samples", 20, "--whitening", tmp_path / "w.npz"]
    for dim, options in ((fitted.dim, []), (3, ["--whiten", 3])):
        out = tmp_path / f"{dim}.json"
        said = run(*command, *options, "--out", out)
        assert f"whitened to {dim} dimensions, fitted on the some queries of {tmp_path / 'w.npz'}: 16" in said
        whiten = fitted.at(dim)
        sides = [(whiten(queries), whiten(database))]
        found = index(sides[0][1], kind="exact").search(sides[0][0], k=25)
        assert same_numbers(Scores.load(out), evaluate(found, scene, labels=Labels.load(labels), descriptors=sides, samples=20))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rankings", "r.npz", "--whiten", "4"], "--whiten must come with what uses it; --rankings does not"),
        (["--predictions", "p.txt", "--index", "prefix", "--engine", "onnx"], "--engine and --index must come with what uses it"),
        (["--descriptors", "d", "--damaged", "skip", "--model-option", "a=1"], "--model-option and --damaged must come with"),
        (["--descriptors", "d", "--k", "5"], "--k must be at least 24, the largest k that the protocol graded/0.5 asks for; got 5"),
        (["--descriptors", "d", "--whitening", "nowhere.npz"], "nowhere.npz must exist"),
        (["--model", "nowhere"], "nowhere"),
        ([], "Exactly one of --rankings, --predictions, --descriptors and --model must be given; got none"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(tiny_world: Path, labels: Path, tmp_path: Path, options: list[str], said: str) -> None:
    assert said in run(tiny_world, "--labels", labels, "--out", tmp_path / "s.json", *options, code=1)
    assert list(tmp_path.iterdir()) == []


def test_other_photographs_under_the_same_names_are_refused(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    from shutil import copytree

    copytree(tiny_world / "cph", tmp_path / "cph")
    command = [tmp_path / "cph", "--model", model, "--labels", labels, "--samples", 20]
    run(*command, "--out", tmp_path / "a.json")
    queries = read("7scenes", tmp_path / "cph")[0].queries
    queries.path(0).write_bytes(queries.path(0).read_bytes() + b"another")
    assert "Choose another --work, or remove" in run(*command, "--out", tmp_path / "b.json", code=1)


def test_a_comparison_says_what_was_scored(tiny_world: Path, model: Path, labels: Path, tmp_path: Path) -> None:
    for name, options in (("a", []), ("b", ["--whiten", "6"])):
        run(tiny_world, "--model", model, "--labels", labels, "--samples", 20, *options, "--out", tmp_path / f"{name}.json")
    said = CliRunner().invoke(app, ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--samples", "50"]).stdout
    assert f"  a: model {model} (" in said
    assert "  b: model " in said.splitlines()[-1]
    ends = "whitened to 6 dimensions (power 1), fitted on the database (24 descriptors, transductive); index exact"
    assert said.splitlines()[-1].endswith(ends)


def test_a_map_shows_a_query_without_a_descriptor_as_not_found(tmp_path: Path) -> None:
    n = 12
    names = tuple(f"i{row}.jpg" for row in range(n))
    lines = [f"{name},{500_000 + 10 * row},5000000" for row, name in enumerate(names)]
    (tmp_path / "walk.csv").write_text("name,x,y\n" + "\n".join(lines) + "\n")
    skipped = {"extracted": {"skipped": [{"name": "i4.jpg", "reason": "truncated"}]}}
    vectors = np.delete(np.column_stack([np.arange(n), np.ones(n)]).astype(np.float32), 4, axis=0)
    kept = names[:4] + names[5:]
    Descriptors(vectors, kept, "m", skipped).save(tmp_path / "d" / "walk" / "database")
    with pytest.warns(CovisWarning, match=r"AP: 1 images were skipped"), pytest.warns(CovisWarning, match=r"error: 1 queries"):
        run(
            tmp_path / "walk.csv", "--read", "missing=ignore", "--read", "crs=EPSG:32633", "--descriptors", tmp_path / "d",
            "--protocol", "radius/25", "--samples", 20, "--out", tmp_path / "s.json", "--geojson", tmp_path / "m.geojson",
        )  # fmt: skip
    features = json.loads((tmp_path / "m.geojson").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["features"]
    matches = {one["properties"]["name"]: one["properties"] for one in features if one["properties"]["side"] == "match"}
    assert all(match["found"] != "i4.jpg" for match in matches.values())
    assert matches.get("i4.jpg", {"found": None})["found"] is None
    assert Scores.load(tmp_path / "s.json").per_query["recall@1"][4] == 0


def test_it_says_where_others_stand_under_the_same_protocol(town: list[Scene], tmp_path: Path) -> None:
    scene = town[0]
    (root,) = write("table", scene, tmp_path / "data", files="none")
    order = np.argsort(np.linalg.norm(scene.queries.xy[:, None] - scene.database.xy[None], axis=2), axis=1)
    found = Rankings(order, np.tile(np.arange(24.0), (16, 1)), scene.queries.names, scene.database.names)
    ranked = found.save(tmp_path / "found.npz")
    for protocol, hint in (("pitts30k/gmberton", "covis ls results --dataset pitts30k"), ("radius/25", "")):
        out = tmp_path / f"{protocol.replace('/', '-')}.json"
        said = run(root, "--read", "missing=ignore", "--rankings", ranked, "--protocol", protocol, "--out", out)
        assert ("covis ls results" in said) == bool(hint)
        assert hint in said
