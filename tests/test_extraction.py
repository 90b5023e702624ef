"""Extraction: the same vectors in memory, on disk, in one go or after a kill; and the tiny grey image."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from covis import files, progress
from covis.cli.describing import chosen_scenes
from covis.descriptors import Descriptors
from covis.errors import CovisWarning, DamagedFileError, InvalidInputError, MissingFileError, OutputExistsError, SettingsDifferError
from covis.extraction import _digest, extract, tiny_images
from covis.images import Images, Scene
from covis.models.place import PlaceModel
from covis.settings import ModelSettings

SETTINGS = ModelSettings(
    backbone="resnet10t", backbone_options={"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}, height=32, width=48
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> PlaceModel:
    return PlaceModel(SETTINGS, seed=3)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for number in range(11):
        Image.fromarray(rng.integers(0, 256, (36, 50, 3), dtype=np.uint8)).save(tmp_path / "set" / f"{number}.png")
    return Images(tmp_path / "set", [f"{number}.png" for number in range(11)])


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != "set")


def test_in_memory_it_is_describe(model: PlaceModel, images: Images) -> None:
    found = extract(model, images)
    np.testing.assert_allclose(found.vectors, model.describe([images.path(row) for row in range(11)]), atol=1e-6)
    assert (found.names, found.model) == (images.names, model.digest)


@pytest.mark.parametrize("batch", [1, 4, 50])
def test_the_folder_holds_what_memory_holds_whatever_the_batch(model: PlaceModel, images: Images, tmp_path: Path, batch: int) -> None:
    memory = extract(model, images)
    disk = extract(model, images, out=tmp_path / "d", batch=batch)
    np.testing.assert_allclose(disk.vectors, memory.vectors, atol=1e-6)
    assert (disk.names, disk.model, disk.history) == (memory.names, memory.model, memory.history)
    assert isinstance(disk.vectors, np.memmap)
    assert (Descriptors.load(tmp_path / "d").vectors == disk.vectors).all()
    assert _names(tmp_path) == ["d"]


def test_half_precision_is_near(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    half = extract(model, images, out=tmp_path / "d", dtype="float16")
    assert half.vectors.dtype == np.float16
    np.testing.assert_allclose(half.vectors, extract(model, images).vectors, atol=1e-3)
    with pytest.raises(InvalidInputError, match="float32"):
        extract(model, images, dtype="float64")  # type: ignore[arg-type]


def test_a_stopped_extraction_goes_on_where_it_was(
    model: PlaceModel, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(model, images)
    last = images.path(9)
    kept = last.read_bytes()
    last.write_bytes(b"x" * len(kept))  # the tenth file does not decode: rows before it are on the disk by then
    with pytest.raises(DamagedFileError, match=r"9\.png"):
        extract(model, images, out=tmp_path / "d", batch=2)
    assert not (tmp_path / "d").exists()
    last.write_bytes(kept)
    for row in range(8):
        images.path(row).write_bytes(b"x" * images.path(row).stat().st_size)  # described already, so not opened again
    resumed = extract(model, images, out=tmp_path / "d", batch=2)
    np.testing.assert_allclose(resumed.vectors, whole.vectors, atol=1e-6)


def test_a_finished_folder_is_returned_and_another_one_refused(
    model: PlaceModel, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d"
    extract(model, images, out=out)
    with monkeypatch.context() as patch:
        patch.setattr(PlaceModel, "describe_pixels", None)  # nothing is described a second time
        extract(model, images, out=out)
    other = PlaceModel(SETTINGS, seed=4)
    with pytest.raises(SettingsDifferError, match=f"model: '{model.digest}' there, '{other.digest}' now"):
        extract(other, images, out=out)
    with pytest.raises(SettingsDifferError, match="dtype"):
        extract(model, images, out=out, dtype="float16")
    with pytest.raises(SettingsDifferError, match="names: 11 images there, 3 now"):
        extract(model, images.select([0, 1, 2]), out=out)
    assert extract(other, images, out=out, overwrite=True).model == other.digest


def test_other_photographs_under_the_same_names_are_noticed(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    extract(model, images, out=tmp_path / "d")
    Image.fromarray(np.zeros((36, 50, 3), dtype=np.uint8)).save(images.path(4))
    with pytest.raises(SettingsDifferError, match="files"):
        extract(model, images, out=tmp_path / "d")


def test_a_missing_image_stops_before_the_first_is_described(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    images.path(10).unlink()
    images.path(4).unlink()
    for out in (None, tmp_path / "d"):
        with pytest.raises(MissingFileError, match=r"2 of 11 do not\. The first: .*4\.png.*--damaged skip"):
            extract(model, images, out=out)
    assert _names(tmp_path) == []


def test_a_descriptor_that_is_no_number_names_its_image(images: Images, tmp_path: Path) -> None:
    broken = PlaceModel(dataclasses.replace(SETTINGS), seed=3)
    with torch.no_grad():
        broken.aggregator.p.fill_(float("nan"))
    with pytest.raises(InvalidInputError, match=r"0\.png"):
        extract(broken, images, out=tmp_path / "d")


def test_no_images_give_no_descriptors(model: PlaceModel, images: Images) -> None:
    assert extract(model, images.select(np.arange(0))).vectors.shape == (0, model.dim)


def test_the_bar_is_on_stderr_and_only_where_asked_for(model: PlaceModel, images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    extract(model, images)
    assert capsys.readouterr() == ("", "")
    extract(model, images, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    first, last = shown.err.splitlines()  # no terminal: whole lines, no control characters
    assert first == "images (torch, cpu): 0/11, begun"
    assert re.fullmatch(r"images \(torch, cpu\): 11/11, \d+\.\d/s, 0:\d\d in all", last)


class Mean:
    """A describer without a network: the mean colour, and a scale."""

    def __init__(self, *, engine: str = "torch", scale: float = 1.0) -> None:
        self.dim, self.digest, self.height, self.width, self.resize = 3, f"mean-{scale}", 8, 8, "pil"
        self.engine, self.scale = engine, scale
        self.seen: list[int] = []

    def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
        self.seen.append(len(pixels))
        return self.scale * pixels.float().mean(dim=(2, 3)).numpy() / 255


# -- the same result --


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_resumed_extraction_has_the_same_bytes(model: PlaceModel, images: Images, tmp_path: Path, dtype: str) -> None:
    """Batches begin where they would have begun, so that not even the rounding differs."""
    extract(model, images, out=tmp_path / "whole", batch=4, dtype=dtype)  # type: ignore[arg-type]
    kept = images.path(6).read_bytes()
    images.path(6).write_bytes(kept[:50])
    with pytest.raises(DamagedFileError, match=r"6\.png"):
        extract(model, images, out=tmp_path / "d", batch=4, dtype=dtype)  # type: ignore[arg-type]
    images.path(6).write_bytes(kept)  # mended: it has another size than at the start
    extract(model, images, out=tmp_path / "d", batch=4, dtype=dtype)  # type: ignore[arg-type]
    for name in ("vectors.npy", "header.json"):
        assert (tmp_path / "d" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-6), ("float16", 5e-4)])
def test_the_batch_does_not_matter_even_where_the_network_was_left_in_training(
    model: PlaceModel, images: Images, dtype: str, apart: float
) -> None:
    model.train()
    one, four, all_at_once = [extract(model, images, batch=batch, dtype=dtype).vectors.astype(float) for batch in (1, 4, 50)]  # type: ignore[arg-type]
    model.eval()
    np.testing.assert_allclose(one, all_at_once, atol=apart)
    np.testing.assert_allclose(four, all_at_once, atol=apart)


def test_what_float16_cannot_hold_is_refused(images: Images, tmp_path: Path) -> None:
    large = Mean(scale=2e5)
    assert extract(large, images).vectors.max() > 65504
    for out in (None, tmp_path / "d"):
        with pytest.raises(InvalidInputError, match=r"at most 65504 to be stored as float16; the descriptor of \d+\.png has"):
            extract(large, images, out=out, dtype="float16")


def test_a_describer_that_gives_something_else_is_refused(images: Images) -> None:
    broken = Mean()
    broken.dim = 4
    with pytest.raises(InvalidInputError, match=r"must give \(11, 4\) for 11 images; it gave \(11, 3\)"):
        extract(broken, images)


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(model: PlaceModel, tmp_path: Path) -> None:
    """kill -9, again and again, until the extraction is through."""
    code = (
        "import sys, numpy as np\n"
        "from covis.images import Images\nfrom covis import unfinished\nfrom covis.extraction import extract\n"
        "from tests_mean import Mean\nunfinished._RECORD_EVERY = 0.0\n"
        "images = Images(sys.argv[1], [f'{n}.png' for n in range(400)])\nprint('begun', flush=True)\n"
        "extract(Mean(), images, out=sys.argv[2], batch=8)\n"
    )
    mean = "import numpy as np\nclass Mean:\n    dim, digest, height, width, resize, engine = 3, 'm', 8, 8, 'pil', 'torch'\n"
    mean += "    def describe_pixels(self, pixels): return pixels.float().mean(dim=(2, 3)).numpy()\n"
    (tmp_path / "tests_mean.py").write_text(mean)
    (tmp_path / "set").mkdir()
    random = np.random.default_rng(0)
    for number in range(400):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "set" / f"{number}.png")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def command(out: str) -> list[str]:
        return [sys.executable, "-c", code, str(tmp_path / "set"), str(tmp_path / out)]

    subprocess.run(command("whole"), env=environment, check=True, stdout=subprocess.DEVNULL)
    kills = 0
    for _ in range(6):
        with subprocess.Popen(command("killed"), env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(float(random.uniform(0, 0.4)))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        if (tmp_path / "killed").exists():
            break
    assert kills >= 2
    subprocess.run(command("killed"), env=environment, check=True, stdout=subprocess.DEVNULL)
    for name in ("vectors.npy", "header.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert _names(tmp_path) == ["killed", "tests_mean.py", "whole"]


# -- what is damaged --


def _damage(images: Images) -> None:
    images.path(0).unlink()
    images.path(5).write_bytes(b"")
    images.path(9).write_bytes(images.path(9).read_bytes()[:60])


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_what_is_damaged_is_skipped_named_and_counted(model: PlaceModel, images: Images, tmp_path: Path, batch: int) -> None:
    whole = extract(model, images)
    _damage(images)
    for out in (None, tmp_path / "d"):
        with pytest.warns(CovisWarning, match=r"3 of 11 images have no descriptor\. The first: The image 0\.png must exist"):
            found = extract(model, images, out=out, batch=batch, damaged="skip")
        rows = [1, 2, 3, 4, 6, 7, 8, 10]
        assert found.names == tuple(f"{row}.png" for row in rows)
        np.testing.assert_allclose(found.vectors, whole.vectors[rows], atol=1e-6)
        skipped = found.history["extracted"]["skipped"]
        assert [one["name"] for one in skipped] == ["0.png", "5.png", "9.png"]
        assert "5.png must decode as an image; it does not (it is empty)" in skipped[1]["reason"]
        assert not any(str(tmp_path) in one["reason"] for one in skipped)
    assert Descriptors.load(tmp_path / "d").history == found.history


def test_a_folder_with_gaps_is_found_again_and_not_taken_for_whole(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    kept = images.path(5).read_bytes()
    images.path(5).write_bytes(b"")
    with pytest.warns(CovisWarning, match="1 of 11"):
        first = extract(model, images, out=tmp_path / "d", damaged="skip")
    with pytest.warns(CovisWarning, match="1 of 11"):
        again = extract(model, images, out=tmp_path / "d", damaged="skip")
    assert (again.names, again.history) == (first.names, first.history)
    with pytest.raises(SettingsDifferError, match=r"damaged: 'skip' there, without 1 images, the first 5\.png; 'stop' now"):
        extract(model, images, out=tmp_path / "d")
    images.path(5).write_bytes(kept)
    with pytest.raises(SettingsDifferError, match="files"):
        extract(model, images, out=tmp_path / "d", damaged="skip")
    assert len(extract(model, images, out=tmp_path / "d", overwrite=True)) == 11


def test_an_interrupted_extraction_remembers_what_it_skipped(images: Images, tmp_path: Path) -> None:
    _damage(images)

    class Stopped(Mean):
        def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().describe_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        extract(Stopped(), images, out=tmp_path / "d", batch=2, damaged="skip")
    going_on = Mean()
    with pytest.warns(CovisWarning, match="3 of 11"):
        found = extract(going_on, images, out=tmp_path / "d", batch=2, damaged="skip")
    assert going_on.seen == [2, 1, 1]  # images 6 and 7, 8 without 9, and 10
    with pytest.warns(CovisWarning, match="3 of 11"):
        expected = extract(Mean(), images, batch=2, damaged="skip")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert (found.names, found.history) == (expected.names, expected.history)


def test_gaps_stay_gaps(images: Images, tmp_path: Path) -> None:
    images.path(0).write_bytes(b"")

    class Stopped(Mean):
        def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().describe_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        extract(Stopped(), images, out=tmp_path / "d", batch=2, damaged="skip")
    with pytest.raises(SettingsDifferError, match=r"damaged = 'skip', and 1 images were left out, the first 0\.png; now it is 'stop'"):
        extract(Mean(), images, out=tmp_path / "d", batch=2)


def test_a_disk_that_goes_away_damages_no_image(images: Images, tmp_path: Path) -> None:
    class Unmounting(Mean):
        def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
            if images.root.exists():
                images.root.rename(tmp_path / "gone")
            return super().describe_pixels(pixels)

    with pytest.raises(MissingFileError, match=r"\.png must exist"):
        extract(Unmounting(), images, out=tmp_path / "d", batch=1, damaged="skip")
    (tmp_path / "gone").rename(images.root)
    np.testing.assert_array_equal(extract(Mean(), images, out=tmp_path / "d", damaged="skip").vectors, extract(Mean(), images).vectors)


def test_photographs_of_the_same_size_that_are_newer_are_said(model: PlaceModel, images: Images, tmp_path: Path) -> None:
    first = extract(model, images, out=tmp_path / "d")
    later = time.time_ns() + 10**9
    os.utime(images.path(4), ns=(later, later))
    with pytest.warns(CovisWarning, match=r"1 of 11 images in .* were written since\. The first: 4\.png"):
        again = extract(model, images, out=tmp_path / "d")
    np.testing.assert_array_equal(again.vectors, first.vectors)


def test_what_would_become_nothing_in_float16_is_refused(images: Images) -> None:
    class Faint(Mean):
        def describe_pixels(self, pixels: torch.Tensor) -> np.ndarray:
            return super().describe_pixels(pixels) * np.float32(1e-12)

    assert extract(Faint(), images).vectors.any()
    with pytest.raises(InvalidInputError, match=r"must keep a value above 0 to be stored as float16; that of 0\.png has at most"):
        extract(Faint(), images, dtype="float16")


def test_where_nothing_decodes_there_is_no_result(images: Images, tmp_path: Path) -> None:
    for row in range(11):
        images.path(row).write_text("no image")
    for out in (None, tmp_path / "d"):
        with pytest.raises(DamagedFileError, match=r"none of the 11 in .* does\. The first: 0\.png must decode"):
            extract(Mean(), images, out=out, damaged="skip")
    assert _names(tmp_path) == []


def test_policies_and_sizes_that_are_none_are_refused_before_anything_is_written(images: Images, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="'stop' or 'skip'; got 'ignore'"):
        extract(Mean(), images, out=tmp_path / "d", damaged="ignore")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="at least 1 image"):
        extract(Mean(), images, out=tmp_path / "d", batch=0)
    (tmp_path / "file").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="is a file"):
            extract(Mean(), images, out=tmp_path / "file", overwrite=overwrite)
    assert _names(tmp_path) == ["file"]


# -- engines, and what is there --


def test_another_engine_is_accepted_and_named(images: Images, tmp_path: Path) -> None:
    first = extract(Mean(engine="torch"), images, out=tmp_path / "d")
    assert first.history["extracted"]["engine"] == ["torch"]
    assert extract(Mean(engine="onnx"), images, out=tmp_path / "d").history == first.history
    kept = images.path(9).read_bytes()
    images.path(9).write_bytes(b"x" * len(kept))
    with pytest.raises(DamagedFileError):
        extract(Mean(engine="torch"), images, out=tmp_path / "e", batch=3)
    images.path(9).write_bytes(kept)
    both = extract(Mean(engine="onnx"), images, out=tmp_path / "e", batch=3)
    assert both.history["extracted"]["engine"] == ["torch", "onnx"]
    folder = tmp_path / "d" / "header.json"
    older = files.read_json(folder)
    del older["history"]["extracted"]["engine"]  # written before there was a choice
    files.write_json(folder, older)
    assert len(extract(Mean(engine="onnx"), images, out=tmp_path / "d")) == 11


def test_an_unfinished_folder_of_another_model_gives_way_to_overwrite(images: Images, tmp_path: Path) -> None:
    images.path(9).write_bytes(b"x" * images.path(9).stat().st_size)
    with pytest.raises(DamagedFileError):
        extract(Mean(), images, out=tmp_path / "d", batch=3)
    for overwrite in (False, True):
        refused = SettingsDifferError if not overwrite else DamagedFileError
        with pytest.raises(refused, match=r"model: 'mean-1.0' there, 'mean-2.0' now" if not overwrite else r"9\.png"):
            extract(Mean(scale=2.0), images, out=tmp_path / "d", batch=3, overwrite=overwrite)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CovisWarning)
        assert extract(Mean(scale=2.0), images, out=tmp_path / "d", batch=3, damaged="skip").model == "mean-2.0"
    assert _names(tmp_path) == ["d"]


def test_an_empty_folder_is_no_obstacle(images: Images, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert len(extract(Mean(), images, out=tmp_path / "d")) == 11
    assert _names(tmp_path) == ["d"]


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 9000])
def test_the_hash_of_sizes_is_that_of_the_list(count: int) -> None:
    """So folders of before are known again."""
    sizes = np.random.default_rng(count).integers(0, 10**9, count)
    assert _digest(sizes) == files.digest(sizes.tolist())


# -- progress --


def test_progress_counts_from_where_it_was(images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = images.path(9).read_bytes()
    images.path(9).write_bytes(b"x" * len(kept))
    with pytest.raises(DamagedFileError):
        extract(Mean(), images, out=tmp_path / "d", batch=4, progress=True)
    assert capsys.readouterr().err.splitlines() == ["images (torch): 0/11, begun"]
    images.path(9).write_bytes(kept)
    extract(Mean(engine="onnx"), images, out=tmp_path / "d", batch=4, progress=True)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "images (onnx): 8/11, going on"
    assert last.startswith("images (onnx): 11/11, ")


def test_lines_come_now_and_then_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.showing(1000, done=200, what="images") as tell:
        for done in range(210, 1001, 10):
            now += 1.0
            tell(done)
    assert capsys.readouterr().err.splitlines() == [
        "images: 200/1000, going on",
        "images: 500/1000, 10.0/s, 0:50 left",
        "images: 800/1000, 10.0/s, 0:20 left",
        "images: 1000/1000, 10.0/s, 1:20 in all",
    ]


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.showing(40, done=30, what="images") as tell:
        tell(40)
    shown = capsys.readouterr().err
    assert "40/40" in shown
    assert "images" in shown


# -- the command --


def _command(*arguments: object) -> tuple[int, str]:
    from typer.testing import CliRunner

    from covis.cli import app

    done = CliRunner().invoke(app, ["extract", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def small_network(*, channels: int = 8) -> torch.nn.Module:
    """What --model tests.test_extraction:small_network would name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels)
        return torch.nn.Sequential(torch.nn.Conv2d(3, channels, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def test_a_folder_of_photographs_and_a_network_of_anyone(images: Images, tmp_path: Path) -> None:
    images.path(3).write_bytes(b"no image")
    model = ["--model", f"{__name__}:small_network", "--model-option", "channels=5", "--model-option", "height=16"]
    arguments = [tmp_path / "set", *model, "--out", tmp_path / "d", "--layout", "folder", "--engine", "torch", "--device", "cpu"]
    with pytest.raises(DamagedFileError, match=r"3\.png"):
        _command(*arguments)
    with pytest.warns(CovisWarning, match="1 of 11"):
        assert _command(*arguments, "--damaged", "skip") == (0, f"{tmp_path / 'd' / 'set' / 'database'}\n")
    found = Descriptors.load(tmp_path / "d" / "set" / "database")
    assert (len(found), found.dim, found.history["extracted"]["height"]) == (10, 5, 16)
    assert found.history["extracted"]["engine"] == ["torch"]


@pytest.mark.slow  # for what it imports
def test_scenes_are_chosen_by_pattern(images: Images, tmp_path: Path) -> None:
    scenes = [Scene(name, "test", images, images) for name in ("cph", "sf", "oslo")]
    assert [scene.name for scene in chosen_scenes(scenes, "*")] == ["cph", "sf", "oslo"]
    assert [scene.name for scene in chosen_scenes(scenes, "*, !s*")] == ["cph", "oslo"]
    with pytest.raises(InvalidInputError, match=r"must fit --scenes 'paris'; found cph, sf, oslo"):
        chosen_scenes(scenes, "paris")
    with pytest.raises(InvalidInputError, match=r"must fit --scenes '!set'; found set"):
        _command(tmp_path / "set", "--model", "none", "--out", tmp_path / "d", "--layout", "folder", "--scenes", "!set")


def test_a_device_that_is_not_there_or_not_used_is_said(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [tmp_path / "set", "--model", "none", "--out", tmp_path / "d", "--device", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="torch sees none"):
        _command(*arguments)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InvalidInputError, match="--engine onnx computes on the processor"):
        _command(*arguments, "--engine", "onnx")


# -- the tiny image --


def test_the_tiny_image_is_its_definition(images: Images) -> None:
    found = tiny_images(images)
    assert found.vectors.shape == (11, 192)
    assert found.model == "tiny/12x16"
    with Image.open(images.path(3)) as opened:
        grey = np.asarray(opened.convert("L").resize((16, 12), Image.Resampling.BILINEAR), dtype=float).ravel()
    expected = (grey - grey.mean()) / np.sqrt(((grey - grey.mean()) ** 2).sum())
    np.testing.assert_allclose(found.vectors[3], expected, atol=1e-6)
    np.testing.assert_allclose(found.vectors.sum(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)


def test_brightness_and_contrast_leave_the_tiny_image_nearly_as_it_is(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(60, 180, 48)[None, :, None], (36, 48, 3))
    for name, pixels in (("a.png", ramp), ("b.png", 0.5 * ramp + 100), ("flat.png", np.full_like(ramp, 90))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    a, b, flat = tiny_images(Images(tmp_path, ["a.png", "b.png", "flat.png"]), height=6, width=8).vectors
    assert a @ b > 0.999
    assert (flat == 0).all()


def test_a_tiny_image_of_nothing_is_refused(images: Images) -> None:
    with pytest.raises(InvalidInputError, match="at least 1 x 1"):
        tiny_images(images, height=0)
