"""The command line: quick, frozen, in step with the functions, and free of tracebacks."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from covis import cli
from covis.datasets import read
from covis.descriptors import Descriptors
from covis.evaluation import evaluate
from covis.extraction import extract
from covis.images import Images
from covis.labelling import LABEL_RULES, label_by_surface
from covis.labels import Labels
from covis.scores import Scores
from covis.searching import describe_scenes, search_scenes
from covis.whitening import fit_whitening

COMMANDS = [
    "attention", "audit", "check", "compare", "convert", "demo", "distill", "evaluate", "export", "extract", "index", "label",
    "latent", "localise", "ls", "rerank", "run", "search", "segment", "split", "sweep", "train", "whiten", "world",
]  # fmt: skip


def covis(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; no traceback is ever right."""
    done = subprocess.run([sys.executable, "-m", "covis", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def test_commands_are_frozen() -> None:
    assert sorted(get_command(cli.app).commands) == COMMANDS


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["ls", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """What makes it quick; how quick it is, benchmarks/startup.py says."""
    code = (
        "import sys; from covis import cli; sys.argv = ['covis', *sys.argv[1:]]\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(*({'numpy', 'scipy', 'polars', 'PIL', 'torch', 'timm', 'lightning', 'faiss'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("command", "function"),
    [("extract", extract), ("whiten", fit_whitening), ("evaluate", evaluate), ("evaluate", describe_scenes), ("search", None)],
)
def test_defaults_are_those_of_the_functions(command: str, function: object) -> None:
    options = {p.name: p.default for p in get_command(cli.app).commands[command].params}
    if function is None:
        from covis.settings import EvaluateSettings

        assert options["k"] == EvaluateSettings().k
        return
    shared = 0
    for name, parameter in inspect.signature(function).parameters.items():
        if name in options and name != "out" and parameter.default is not inspect.Parameter.empty:
            given = options[name]
            if given is not None:  # a list that is not given leaves the function's default
                number = isinstance(given, str) and isinstance(parameter.default, float)
                assert (float(given) if number else given) == parameter.default, name
            shared += 1
    assert shared >= 2


def test_the_search_of_evaluate_has_the_defaults_of_its_function() -> None:
    options = {p.name: p.default for p in get_command(cli.app).commands["evaluate"].params}
    defaults = inspect.signature(search_scenes).parameters
    assert (options["k"], options["index"]) == (defaults["k"].default, defaults["kind"].default)


def test_label_says_the_defaults_of_its_rules() -> None:
    """Its options are None where they are not given, so that a rule's own default holds; the help must say that one."""
    options = {p.name: p for p in get_command(cli.app).commands["label"].params}
    said = 0
    for function in LABEL_RULES.values():
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name in options:
                assert options[name].default is None, name
                text = options[name].help
                if parameter.default is not None:
                    value = f"{parameter.default:g}" if isinstance(parameter.default, float) else str(parameter.default)
                    assert re.search(rf"default {re.escape(value)}(?![\w.]*\w)", text), name
                    said += 1
    assert said >= 14


def test_help_of_every_command_names_every_option() -> None:
    for name, command in get_command(cli.app).commands.items():
        shown = CliRunner().invoke(cli.app, [name, "--help"], terminal_width=200, env={"COLUMNS": "200"})
        assert shown.exit_code == 0
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in shown.stdout
                assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize(
    "what", ["aggregators", "conditions", "indexes", "layouts", "losses", "metrics", "protocols", "recipes", "rules", "samplers", "worlds"]
)
def test_ls_prints_a_line_an_entry(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.ls(what)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.split() for line in lines)


def test_unknown_names_are_one_line_with_a_suggestion() -> None:
    said = covis("ls", "protocol", code=1).stderr
    assert said.startswith("covis: ")
    assert "protocols" in said
    assert said.count("\n") == 1


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    said = covis("label", tmp_path / "nowhere", "--out", tmp_path / "l.npz", code=1).stderr
    assert "nowhere" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "l.npz").exists()


def test_every_verb_in_turn(tiny_world: Path, tiny_run: Path, tmp_path: Path) -> None:
    """label, extract, whiten, index, search, evaluate: each reads what the one before wrote."""
    scene = tiny_world / "cph"
    labels = tmp_path / "labels.npz"
    done = covis("label", scene, "--out", labels, "--reach", 60, "--relative-tolerance", 0.05, "--step", 2, "--json")
    said = json.loads(done.stdout)[str(labels)]
    assert said["queries"] == len(Labels.load(labels).query_names)
    assert said["parameters"]["reach"] == 60
    assert "queries without a positive" in done.stderr

    covis("extract", scene, "--model", tiny_run / "train" / "model", "--out", tmp_path / "d")
    covis("whiten", tmp_path / "d", "--dim", 4, "--out", tmp_path / "w")
    covis("index", tmp_path / "w" / "cph" / "database", "--out", tmp_path / "index")
    covis("search", tmp_path / "index", tmp_path / "w" / "cph" / "queries", "--out", tmp_path / "r.npz")
    covis("search", tmp_path / "index", tmp_path / "w" / "cph" / "queries", "--out", tmp_path / "r.txt")
    ways = {"--rankings": tmp_path / "r.npz", "--predictions": tmp_path / "r.txt", "--descriptors": tmp_path / "w"}
    values = set()
    for number, (option, path) in enumerate(ways.items()):
        out = tmp_path / f"s{number}.json"
        covis("evaluate", scene, "--labels", labels, option, path, "--out", out)
        values.add(Scores.load(out).metrics["recall@1"])
    assert len(values) == 1, "three ways to say the same ranking"
    assert "AP" in Scores.load(tmp_path / "s2.json").metrics

    covis(
        "evaluate",
        scene,
        "--labels",
        labels,
        "--model",
        tiny_run / "train" / "model",
        "--out",
        tmp_path / "m.json",
        "--protocol",
        "7scenes/gcl",
    )
    assert Scores.load(tmp_path / "m.json").protocol.name == "7scenes/gcl"
    assert "already there" in covis("label", scene, "--out", labels, code=1).stderr


def test_label_several_scenes_into_a_folder(tiny_world: Path, tmp_path: Path) -> None:
    done = covis("label", tiny_world, "--split", "train", "--out", tmp_path / "labels", "--reach", 30, "--step", 8)
    names = [scene.name for scene in read("7scenes", tiny_world, split="train")]
    assert done.stdout.split() == [str(tmp_path / "labels" / f"{name}.npz") for name in names]


def test_labelling_several_scenes_goes_on_where_it_was_stopped(tiny_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, made = tmp_path / "labels", []
    rule = LABEL_RULES["distance"]

    def stopped(queries: Images, database: Images, *, half: float = 25.0) -> Labels:
        made.append(queries.root)
        if len(made) == 2:
            raise KeyboardInterrupt
        return rule(queries, database, half=half)

    monkeypatch.setitem(LABEL_RULES, "distance", stopped)
    given = ["label", str(tiny_world), "--split", "train", "--rule", "distance", "--out", str(out)]
    assert CliRunner().invoke(cli.app, given).exit_code != 0
    one = {file.name: file.stat().st_mtime_ns for file in out.glob("*.npz")}
    assert len(one) == 1
    assert CliRunner().invoke(cli.app, [*given, "--half", "10"]).exit_code != 0  # other labels do not go on with these
    assert CliRunner().invoke(cli.app, given).exit_code == 0
    assert {name: (out / name).stat().st_mtime_ns for name in one} == one
    assert len(made) == len(list(out.glob("*.npz"))) + 1
    assert not list(out.glob(".*"))
    assert CliRunner().invoke(cli.app, given).exit_code != 0  # it is done, and nothing is overwritten


@pytest.mark.parametrize("given", [[], ["--rankings", "a.npz", "--descriptors", "d"]])
def test_evaluate_takes_exactly_one_source(tiny_world: Path, tmp_path: Path, given: list[str]) -> None:
    labels = tmp_path / "labels.npz"
    scene = read("7scenes", tiny_world / "cph")[0]
    label_by_surface(scene.queries, scene.database, reach=30).save(labels)
    assert (
        "Exactly one of" in covis("evaluate", tiny_world / "cph", "--labels", labels, "--out", tmp_path / "s.json", *given, code=1).stderr
    )


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """A table of one set against itself, without images, and descriptors of it that know the way."""
    n = 40
    lines = [f"i{row}.jpg,{500_000 + 10 * row},5000000,{90 if row % 5 else ''}" for row in range(n)]
    (tmp_path / "walk.csv").write_text("name,x,y,heading\n" + "\n".join(lines) + "\n")
    vectors = np.column_stack([np.arange(n), np.ones(n)]).astype(np.float32)
    Descriptors(vectors, tuple(f"i{row}.jpg" for row in range(n)), model="none").save(tmp_path / "d" / "walk" / "database")
    return tmp_path / "walk.csv"


def test_a_set_against_itself_is_scored_and_drawn_without_its_own_images(walk: Path, tmp_path: Path) -> None:
    read_as = ["--read", "missing=ignore", "--read", "crs=EPSG:32633"]
    covis(
        "evaluate", walk, *read_as, "--descriptors", tmp_path / "d", "--protocol", "radius/25",
        "--out", tmp_path / "s.json", "--geojson", tmp_path / "m.geojson",
    )  # fmt: skip
    assert Scores.load(tmp_path / "s.json").metrics["recall@1"].value == 1
    features = json.loads((tmp_path / "m.geojson").read_text())["features"]
    matches = [feature["properties"] for feature in features if feature["properties"]["side"] == "match"]
    assert len(matches) == 40
    assert all(match["found"] != match["name"] for match in matches)
    assert {match["metres"] for match in matches} == {10.0}

    labels = tmp_path / "l.npz"
    covis("label", walk, *read_as, "--rule", "view", "--without-heading", "exclude", "--out", labels)
    covis("evaluate", walk, *read_as, "--descriptors", tmp_path / "d", "--labels", labels, "--out", tmp_path / "g.json")
    assert Scores.load(tmp_path / "g.json").protocol.name == "graded/0.5"


def test_a_map_is_refused_before_anything_is_written(walk: Path, tmp_path: Path) -> None:
    without_frame = ["evaluate", walk, "--read", "missing=ignore", "--descriptors", tmp_path / "d", "--protocol", "radius/25"]
    said = covis(*without_frame, "--out", tmp_path / "s.json", "--geojson", tmp_path / "m.geojson", code=1).stderr
    assert "known frame" in said
    said = covis(*without_frame, "--out", tmp_path / "s.json", "--geojson", tmp_path / "s.json", code=1).stderr
    assert "two files" in said
    assert not (tmp_path / "s.json").exists()


def test_labels_go_to_files_of_known_kinds(walk: Path, tmp_path: Path) -> None:
    said = covis("label", walk, "--read", "missing=ignore", "--rule", "distance", "--out", tmp_path / "l.npy", code=1).stderr
    assert ".npz or .h5" in said
    done = covis("label", walk, "--read", "missing=ignore", "--rule", "distance", "--out", tmp_path / "l.h5")
    assert "plain zeros" in done.stderr
    assert (
        "half, decay"
        in covis("label", walk, "--read", "missing=ignore", "--rule", "distance", "--fov", 90, "--out", tmp_path / "m.npz", code=1).stderr
    )
    covis(
        "evaluate",
        walk,
        "--read",
        "missing=ignore",
        "--descriptors",
        tmp_path / "d",
        "--labels",
        tmp_path / "l.h5",
        "--out",
        tmp_path / "s.json",
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["msls", "utm", "7scenes", "table"])
def test_a_town_is_built_in_each_layout_checked_and_labelled(layout: str, tmp_path: Path) -> None:
    covis("world", tmp_path / "town", "--layout", layout, "--preset", "tiny", "--workers", 2)
    data = tmp_path / "town" if layout in ("msls", "7scenes") else tmp_path / "town" / "cph"
    split = "test" if layout == "7scenes" else "val"
    assert "no problem found" in covis("check", data, "--split", split).stdout
    options = ["--rule", "surface", "--reach", 30, "--relative-tolerance", 0.05] if layout == "7scenes" else ["--rule", "view"]
    done = covis("label", data, "--split", split, "--out", tmp_path / "labels", *options)
    files = [Path(line) for line in done.stdout.split()]
    assert "cph" in {file.stem for file in files}
    for file in files:
        assert Labels.load(file).matrix.nnz > 50


def test_a_demo_without_the_ray_caster_names_the_extra(tmp_path: Path) -> None:
    """Its processes are new ones, so that the library must be missing for them too."""
    (tmp_path / "embreex.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "covis", "demo", "--out", "d"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pip install covis[world]" in done.stderr.splitlines()[-1]


def test_a_town_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert "msls, utm" in covis("world", tmp_path / "t", "--layout", "kitti", code=1).stderr
    assert "Did you mean 'tiny'" in covis("world", tmp_path / "t", "--preset", "tinny", code=1).stderr
    assert not (tmp_path / "t").exists()
