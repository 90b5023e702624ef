"""The whole chain: what it leaves, what it skips, what it refuses, and that a killed run ends like any other."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covis import chain
from covis.chain import check_no_leak, run, train
from covis.config import expected_numbers, load_recipe, recipe_names, to_toml
from covis.datasets import read
from covis.descriptors import Descriptors
from covis.errors import CovisError, CovisWarning, DamagedFileError, InvalidInputError, LeakError, MissingFileError, SettingsDifferError
from covis.evaluation import evaluate
from covis.images import Scene
from covis.labelling import label_by_surface
from covis.labels import Labels
from covis.models.checkpoints import load
from covis.protocols import Protocol
from covis.rankings import Rankings
from covis.scores import Scores
from covis.searching import search_scenes
from covis.settings import DataSettings, LabelSettings, Recipe

RESULTS = (
    "whitening.npz",
    "labels/*/*.npz",
    "rankings/*/*.npz",
    "scores/*/*.json",
    "table.txt",
    "train/model/*",
    "descriptors/*/*/*/vectors.npy",
)


def results(out: Path) -> dict[str, str]:
    """The hash of every result of a run; times and paths are in none of them."""
    files = sorted(path for pattern in RESULTS for path in out.glob(pattern))
    assert len(files) > 20
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


PLAIN = [arm for arm in chain.ARMS if arm not in ("rgb", "teacher")]
"""What is scored where a recipe has no structure."""


def test_what_a_run_leaves(tiny_run: Path, tiny_world: Path) -> None:
    scores = {arm: Scores.load(tiny_run / "scores" / arm / "graded-0.5.json") for arm in PLAIN}
    queries = sum(len(scene.queries) for scene in read("7scenes", tiny_world))
    for arm, one in scores.items():
        assert len(one.queries) == queries
        metric = one.metrics["recall@1"]
        assert 0 <= metric.low <= metric.value <= metric.high <= 1, arm
        assert {"recall@5", "AP"} <= one.metrics.keys()
    assert scores["whitened"].history["scenes"][0]["rankings"]["database"]["whitened"]["fitted_on"] == "database"
    table = (tiny_run / "table.txt").read_text()
    assert all(chain.ARMS[arm] in table for arm in PLAIN)
    assert not any(chain.ARMS[arm] in table for arm in ("rgb", "teacher"))
    assert "counted    queries with a positive" in table
    with Image.open(tiny_run / "picture.png") as picture:
        assert picture.width > 800
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 1000
    assert load_recipe(tiny_run / "recipe.toml").train.steps == 12


def test_a_joint_index_is_searched_where_a_protocol_asks_for_one(
    tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """One protocol of each scope: the scores are those of the run's own descriptors, searched and judged by hand."""
    joint = Protocol("one index", 0.5, scope="joint", ks=(1, 5))
    recipe = replace(
        tiny_recipe, evaluate=replace(tiny_recipe.evaluate, protocols=("graded/0.5", str(joint.write(tmp_path / "joint.toml"))))
    )
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    with pytest.warns(CovisWarning, match="AP"):
        chain.run(recipe, tiny_world, out=out, overwrite=True)
    scenes = [scene for scene in read("7scenes", tiny_world) if (out / "rankings" / "trained" / f"{scene.name}.npz").is_file()]
    folders = [out / "descriptors" / "trained" / scene.name for scene in scenes]
    described = [(Descriptors.load(folder / "queries"), Descriptors.load(folder / "database")) for folder in folders]
    labels = [Labels.load(next((out / "labels" / "test").glob(f"{scene.name}*"))) for scene in scenes]
    found = search_scenes(scenes, described, protocol=joint, labels=labels, k=recipe.evaluate.k)
    by_hand = evaluate(found, scenes, labels=labels, protocol=joint).metrics["recall@5"].value
    assert Scores.load(out / "scores" / "trained" / "one index.json").metrics["recall@5"].value == by_hand
    assert Rankings.load(out / "rankings" / "trained" / "joint" / "rankings.npz").history["scope"] == "joint"
    alone = Scores.load(tiny_run / "scores" / "trained" / "graded-0.5.json").metrics["recall@5"].value
    assert Scores.load(out / "scores" / "trained" / "graded-0.5.json").metrics["recall@5"].value == alone


def test_the_trained_model_answers_from_python(tiny_run: Path, tiny_world: Path) -> None:
    import covis

    model = covis.load(tiny_run / "train" / "model")
    images = read("7scenes", tiny_world)[0].queries
    paths = [images.path(row) for row in range(3)]
    by_path = model.describe(paths)
    assert by_path.shape == (3, model.dim)
    np.testing.assert_allclose(model.describe([np.asarray(Image.open(path).convert("RGB")) for path in paths]), by_path, atol=1e-6)
    np.testing.assert_allclose(model.describe([Image.open(path) for path in paths]), by_path, atol=1e-6)
    assert model.digest == Descriptors.load(next((tiny_run / "descriptors" / "trained").glob("*/queries"))).model


def test_a_finished_run_is_skipped_and_changes_nothing(tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe) -> None:
    before, said = results(tiny_run), list[str]()
    run(tiny_recipe, tiny_world, out=tiny_run, say=said.append)
    assert results(tiny_run) == before
    steps = [line for line in said if ": done before" in line or line.endswith(" s")]
    assert steps
    assert all(line.endswith("done before") for line in steps)


def test_other_settings_stop_and_are_shown(tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    before = results(out)
    other = replace(tiny_recipe, whiten=replace(tiny_recipe.whiten, dim=5))
    with pytest.raises(SettingsDifferError, match=r"whiten\.dim: 8 stored, 5 asked for"):
        run(other, tiny_world, out=out)
    assert results(out) == before
    run(other, tiny_world, out=out, overwrite=True)
    changed = {name for name, digest in results(out).items() if before[name] != digest}
    assert "whitening.npz" in changed
    assert all("whitened" in name or name in ("whitening.npz", "table.txt") for name in changed), "only what depends on it is done again"


def test_overwrite_trains_again(tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    other = replace(tiny_recipe, train=replace(tiny_recipe.train, steps=5))
    run(other, tiny_world, out=out, overwrite=True)
    assert load(out / "train" / "model").history["steps"] == 5
    assert load(out / "train" / "model").digest != load(tiny_run / "train" / "model").digest


def noise_queries(data: Path) -> None:
    """Replace the pixels of every image that is asked by noise; positions stay."""
    random = np.random.default_rng(5)
    for scene in read("7scenes", data):
        for row in range(len(scene.queries)):
            with Image.open(scene.queries.path(row)) as image:
                shape = (image.height, image.width, 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(scene.queries.path(row))


def test_no_evaluated_query_enters_training_or_whitening(tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """With all queries replaced by noise, the weights and the whitening are the same to the last bit."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_world, data)
    noise_queries(data)
    run(tiny_recipe, data, out=out)
    clean, noisy = results(tiny_run), results(out)
    for name in clean:
        if name.startswith(("train/model", "whitening.npz", "labels/train")):
            assert noisy[name] == clean[name], name
    changed = [name for name in clean if "queries" in name and noisy[name] != clean[name]]
    assert len(changed) >= 3, "the queries' descriptors must differ, or this test shows nothing"


def test_a_query_that_would_teach_is_refused(tiny_world: Path) -> None:
    (asked,) = read("7scenes", tiny_world)
    check_no_leak([Scene("t", "train", asked.database, asked.database)], [asked])
    with pytest.raises(LeakError, match="seq-02"):
        check_no_leak([Scene("t", "train", asked.queries, asked.queries)], [asked])


def test_the_chain_refuses_a_leak(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_world / "cph", data / "cph")
    (data / "cph" / "TrainSplit.txt").write_text("sequence1\nsequence2\n")
    recipe = replace(tiny_recipe, data=replace(tiny_recipe.data, train="cph"))
    with pytest.raises(LeakError, match="is asked in scene 'cph' and teaches"):
        run(recipe, data, out=tmp_path / "run")


def test_train_with_given_labels(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    scenes = [scene for scene in read("7scenes", tiny_world, split="train") if scene.name in ("london", "trondheim")]
    for scene in scenes:
        label_by_surface(scene.queries, scene.database, reach=20, step=4).save(tmp_path / "labels" / f"{scene.name}.npz")
    model = train(tiny_recipe, tiny_world, out=tmp_path / "run", labels=tmp_path / "labels")
    assert model.history["labels"][0]["parameters"]["reach"] == 20
    with pytest.raises(MissingFileError, match=r"london\.npz"):
        train(tiny_recipe, tiny_world, out=tmp_path / "other", labels=tmp_path)


# -- killed, and started again ------------------------------------------------------------------------------------


def start(recipe: Path, data: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "covis", "run", str(recipe), "--data", str(data), "--out", str(out)]
    with Path(f"{out}.log").open("wb") as said:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> bool:
    """Kill the process as soon as it is somewhere; False where it ended before."""
    ends = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < ends:
        if reached():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)
    return False


def finished(recipe: Path, data: Path, out: Path) -> dict[str, str]:
    assert start(recipe, data, out).wait(timeout=240) == 0, Path(f"{out}.log").read_text()
    return results(out)


@pytest.fixture(scope="module")
def undisturbed(tiny_world: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = folder / "tiny.toml"
    recipe.write_text(to_toml(tiny_recipe))
    return recipe, finished(recipe, tiny_world, folder / "run")


def test_killed_while_training_ends_the_same(undisturbed: tuple[Path, dict[str, str]], tiny_world: Path, tmp_path: Path) -> None:
    recipe, expected = undisturbed
    out = tmp_path / "run"
    assert kill_when(start(recipe, tiny_world, out), (out / "train" / "last.ckpt").exists)
    assert not (out / "table.txt").exists()
    assert finished(recipe, tiny_world, out) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "when",
    [
        "scenes/train",
        "labels/train",
        "labels/test",
        "untrained",
        "descriptors/tiny",
        "descriptors/trained",
        "whitening.npz",
        "scores/whitened",
    ],
)
def test_killed_anywhere_ends_the_same(undisturbed: tuple[Path, dict[str, str]], tiny_world: Path, tmp_path: Path, when: str) -> None:
    recipe, expected = undisturbed
    out = tmp_path / "run"
    kill_when(start(recipe, tiny_world, out), (out / when).exists)
    assert finished(recipe, tiny_world, out) == expected


def test_other_photographs_after_a_kill_are_not_resumed(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """A checkpoint that learnt from other images is refused, and with `overwrite` removed."""
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_world, data)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(replace(tiny_recipe, train=replace(tiny_recipe.train, steps=400))))
    assert kill_when(start(recipe, data, out), (out / "train" / "last.ckpt").exists)
    image = next(scene for scene in read("7scenes", data, split="train") if scene.name == "london").database.path(0)
    Image.new("RGB", (64, 48), (200, 10, 10)).save(image)
    with pytest.raises(SettingsDifferError, match="the data, or an earlier step, is another"):
        run(tiny_recipe, data, out=out)
    run(tiny_recipe, data, out=out, overwrite=True)
    run(tiny_recipe, data, out=tmp_path / "anew")
    assert results(out) == results(tmp_path / "anew")


def test_an_interrupt_is_said_and_resumed(undisturbed: tuple[Path, dict[str, str]], tiny_world: Path, tmp_path: Path) -> None:
    recipe, expected = undisturbed
    process = start(recipe, tiny_world, tmp_path / "run")
    while process.poll() is None and not (tmp_path / "run" / "train" / "last.ckpt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert "covis: interrupted." in (tmp_path / "run.log").read_text()
    assert finished(recipe, tiny_world, tmp_path / "run") == expected


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("evaluate", {"protocols": ("graded/x",)}, "graded/0.5"),
        ("evaluate", {"protocols": ()}, "must name a protocol"),
        ("evaluate", {"k": 3}, "k >= 25"),
        ("evaluate", {"seed": -1}, "seed"),
        ("whiten", {"dim": -1}, "dim must be >= 0"),
        ("data", {"test": ""}, "scenes that are asked"),
        ("label", {"options": {"reech": 3}}, "reech"),
        ("data", {"options": {"focal": 3}}, "focal"),
        ("data", {"layout": "os:system"}, "does not take"),
    ],
)
def test_what_a_recipe_asks_is_checked_before_training(
    tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path, section: str, change: dict[str, object], message: str
) -> None:
    recipe = replace(tiny_recipe, **{section: replace(getattr(tiny_recipe, section), **change)})
    with pytest.raises(CovisError, match=message):
        run(recipe, tiny_world, out=tmp_path / "run")
    assert not (tmp_path / "run" / "train").exists()


def test_the_stored_recipe_is_that_of_the_results(tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe) -> None:
    before = (tiny_run / "recipe.toml").read_text()
    with pytest.raises(SettingsDifferError):
        run(replace(tiny_recipe, name="other", whiten=replace(tiny_recipe.whiten, dim=4)), tiny_world, out=tiny_run)
    assert (tiny_run / "recipe.toml").read_text() == before


def test_a_file_as_out_is_refused(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CovisError, match="must be a folder"):
        run(tiny_recipe, tiny_world, out=tmp_path / "file")


# -- bad input ----------------------------------------------------------------------------------------------------


def broken(data: Path, what: str) -> str:
    """Spoil a data set; returns what the error must name."""
    frame = data / "london" / "seq-01" / "frame-000003"
    colour, depth, pose = (frame.with_name(f"{frame.name}.{kind}") for kind in ("color.jpg", "depth.png", "pose.txt"))
    if what == "missing image":
        colour.unlink()
        return "frame-000003"
    if what == "missing depth":
        depth.unlink()
        return "frame-000003"
    if what == "no rigid motion":
        pose.write_text(
            pose.read_text().replace("0.0000000000000000e+00\t0.0000000000000000e+00\t0.0000000000000000e+00\t1.0", "0\t0\t1\t1.0")
        )
        return "frame-000003"
    if what == "NaN":
        words = pose.read_text().split()
        pose.write_text(" ".join(["nan", *words[1:]]))
        return "frame-000003"
    if what in ("truncated image", "no image"):  # all of them: which ones a few steps draw, and so decode, is chance
        for image in colour.parent.glob("*.color.jpg"):
            image.write_bytes(image.read_bytes()[:400] if what == "truncated image" else b"this is no image")
        return r"london/seq-01/frame-0000\d\d\.color\.jpg"
    if what == "truncated depth":
        depth.write_bytes(depth.read_bytes()[:200])
        return depth.name
    assert what == "duplicate"
    shutil.copy(colour, colour.with_suffix(".png"))
    return "frame-000003"


@pytest.mark.parametrize(
    "what", ["missing image", "missing depth", "no rigid motion", "NaN", "truncated image", "truncated depth", "no image", "duplicate"]
)
def test_bad_input_is_one_error_of_ours(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path, what: str) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_world, data)
    name = broken(data, what)
    with pytest.raises(CovisError, match=name):
        run(tiny_recipe, data, out=out)
    assert not (out / "train" / "model").exists()
    assert not list(out.rglob("*.partial")), "nothing half-written"


@pytest.mark.parametrize(
    "file",
    [
        "labels/train/london.npz",
        "untrained/weights.safetensors",
        "train/model/model.json",
        "whitening.npz",
        "rankings/trained/cph.npz",
    ],
)
@pytest.mark.parametrize("how", ["truncated", "foreign"])
def test_a_damaged_file_of_the_run_is_named(
    tiny_run: Path, tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path, file: str, how: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(tiny_run, out)
    content = (out / file).read_bytes()
    (out / file).write_bytes(content[: len(content) // 2] if how == "truncated" else b"PK\x03\x04 something else")
    with pytest.raises(DamagedFileError, match=(out / file).name.replace(".", r"\.")):
        run(tiny_recipe, tiny_world, out=out)


def test_no_scene_fits_the_pattern(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="village-"):
        run(replace(tiny_recipe, data=replace(tiny_recipe.data, train="village-*")), tiny_world, out=tmp_path / "run")


# -- the shipped recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_reads_and_says_what_it_is(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    if numbers := expected_numbers(name):  # not every recipe's data can be had by everyone
        assert numbers["protocol"] == recipe.evaluate.protocols[0]
        assert set(numbers) == {"protocol", *PLAIN}


@pytest.mark.parametrize("name", ["gcl-7scenes", "town"])
def test_what_the_documents_show_is_recorded(name: str) -> None:
    assert expected_numbers(name)["trained"]["recall@1"][0] > expected_numbers(name)["untrained"]["recall@1"][0]


@pytest.mark.slow
def test_the_kitchen(covis_data: Path, tmp_path: Path) -> None:
    """The shipped recipe on real images, with real weights."""
    weights = covis_data / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    result = run("gcl-7scenes", covis_data / "7scenes" / "redkitchen", out=tmp_path / "run", weights=weights)
    trained, before = result.scores["trained"], result.scores["untrained"]
    assert trained.protocol.name == "7scenes/gcl"
    assert trained.metrics["recall@1"].n == 125
    assert trained.metrics["AP"].value > before.metrics["AP"].value
    for arm, one in result.scores.items():
        value, low, high = expected_numbers("gcl-7scenes")[arm]["AP"]
        assert low <= one.metrics["AP"].value <= high, f"{arm}: {one.metrics['AP']}, recorded {value}"
    assert trained.interval["unit"] == "blocks of 10 consecutive frames"


def test_the_kitchen_in_a_few_steps(covis_data: Path, tmp_path: Path) -> None:
    """The same chain on real images, cut short: every step on files that are not ours."""
    weights = covis_data / "weights" / "mobilenetv2_100_timm_same_fp16_statedict.pth"
    recipe = load_recipe("gcl-7scenes")
    short = replace(
        recipe,
        label=replace(recipe.label, options={**recipe.label.options, "step": 16}),
        train=replace(recipe.train, steps=3),
        model=replace(recipe.model, height=60, width=80),
        evaluate=replace(recipe.evaluate, samples=50),
    )
    result = run(short, covis_data / "7scenes" / "redkitchen", out=tmp_path / "run", weights=weights)
    assert result.scores["untrained"].metrics["recall@1"].n == 125
    assert load(tmp_path / "run" / "untrained").dim == 1280


def test_a_recipe_of_a_table_labelled_by_view(tiny_world: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    """Another layout, another rule, and pairs that are left out: the search goes deeper, so that every k is known."""
    rows = ["name,x,y,heading,split,side,flag_panorama"]
    for name, split in (("london", "train"), ("cph", "test")):
        (scene,) = [one for one in read("7scenes", tiny_world, split=split) if one.name == name]
        for side, images in (("database", scene.database), ("query", scene.queries)):
            if split == "train" and side == "query":
                continue
            for row, pose in enumerate(images.pose):
                heading = np.rad2deg(np.arctan2(pose[0, 2], pose[1, 2])) % 360
                panorama = str(side == "database" and row == 0).lower()
                rows.append(f"{name}/{images.names[row]},{pose[0, 3]},{pose[1, 3]},{heading:.4f},{split},{side},{panorama}")
    (tmp_path / "walk.csv").write_text("\n".join(rows) + "\n")
    recipe = replace(
        tiny_recipe,
        data=DataSettings(layout="table", options={"images": str(tiny_world)}),
        label=LabelSettings(rule="view", options={"reach": 20.0}),
        evaluate=replace(tiny_recipe.evaluate, protocols=("graded/0.5", "radius/5"), k=25),
    )
    result = run(recipe, tmp_path / "walk.csv", out=tmp_path / "run")
    assert result.scores["trained"].protocol.name == "graded/0.5"
    assert (tmp_path / "run" / "scores" / "trained" / "radius-5.json").is_file()
    assert Rankings.load(next((tmp_path / "run" / "rankings" / "trained").glob("*.npz"))).k <= 24
