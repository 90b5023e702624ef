"""Training: it learns, it resumes to the bit, it refuses what would be wrong, and it leaves nothing switched."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
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
from scipy import sparse

from covis import training
from covis.errors import (
    DamagedFileError,
    InvalidInputError,
    MissingExtraError,
    OutputExistsError,
    SettingsDifferError,
    TrainingDivergedError,
    UnknownNameError,
)
from covis.files import read_json
from covis.images import Images, Scene
from covis.labels import Labels, self_pairs
from covis.losses import generalized_contrastive
from covis.models import checkpoints
from covis.models.place import PlaceModel
from covis.pairs import GradedSampler
from covis.settings import ModelSettings, TrainSettings
from covis.training import fit

MODEL = ModelSettings(
    backbone="resnet10t", backbone_options={"channels": (8, 8, 16, 16), "stem_width": 8, "zero_init_last": False}, height=24, width=32
)
SETTINGS = TrainSettings(steps=12, batch=8, learning_rate=3e-3, checkpoint_every=5)
PLACES, VIEWS = 8, 4


pytestmark = pytest.mark.usefixtures("one_thread")


def make_scene(root: Path, name: str = "street", seed: int = 0) -> tuple[Scene, Labels]:
    """Eight places of coarse random colours, four noisy views of each; the same place is similar by 0.9, the next one by 0.3."""
    rng = np.random.default_rng(seed)
    (root / name).mkdir(parents=True, exist_ok=True)
    coarse = rng.integers(0, 256, (PLACES, 3, 4, 3))
    for place in range(PLACES):
        for view in range(VIEWS):
            large = np.kron(coarse[place], np.ones((8, 8, 1)))
            noisy = np.clip(large * rng.uniform(0.6, 1.2) + rng.normal(0, 25, large.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(root / name / f"{place}-{view}.png")
    place_of = np.repeat(np.arange(PLACES), VIEWS)
    apart = np.abs(place_of[:, None] - place_of[None])
    similarity = np.where(apart == 0, 0.9, np.where(apart == 1, 0.3, 0.0))
    images = Images(root / name, [f"{place}-{view}.png" for place in range(PLACES) for view in range(VIEWS)])
    labels = Labels(
        sparse.csr_array(similarity), images.names, images.names, rule="by hand", parameters={"k": 1}, excluded=self_pairs(images, images)
    )
    return Scene(name, "train", images, images), labels


@pytest.fixture
def street(tmp_path: Path) -> tuple[Scene, Labels]:
    return make_scene(tmp_path)


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(MODEL, seed=0)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _run(model: PlaceModel, street: tuple[Scene, Labels], out: Path, settings: TrainSettings = SETTINGS) -> PlaceModel:
    return fit(model, [street[0]], [street[1]], settings, out=out, progress=False)


class StopError(Exception):
    """What a test stops a run with."""


def _stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = training._Siamese.training_step

    def stopping(self: training._Siamese, batch: object, index: int) -> torch.Tensor:
        if self.global_step == step:
            raise StopError
        return learn(self, batch, index)  # type: ignore[arg-type]

    monkeypatch.setattr(training._Siamese, "training_step", stopping)


# -- it learns --


def test_it_brings_the_views_of_a_place_together(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    scene, labels = street
    before = model.digest
    trained = _run(model, street, tmp_path / "run", dataclasses.replace(SETTINGS, steps=80, batch=16, checkpoint_every=1000))
    assert model.digest == before  # the argument is not trained
    gaps = []
    for one in (model, trained):
        vectors = one.describe([scene.queries.path(row) for row in range(len(scene.queries))])
        distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
        similarity = labels.matrix.toarray()
        gaps.append(distance[similarity == 0].mean() - distance[similarity > 0.5].mean())
    assert gaps[1] > gaps[0] + 0.1
    assert float(_rows(tmp_path / "run")[-1]["loss"]) < float(_rows(tmp_path / "run")[0]["loss"])


@pytest.mark.parametrize(("optimizer", "schedule", "clip"), [("sgd", "constant", 0.0), ("adam", "cosine", 0.05), ("adamw", "cosine", 0.0)])
def test_it_is_a_plain_torch_loop(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, optimizer: str, schedule: str, clip: float
) -> None:
    settings = dataclasses.replace(SETTINGS, steps=6, optimizer=optimizer, schedule=schedule, gradient_clip=clip, weight_decay=0.01)  # type: ignore[arg-type]
    scene, labels = street
    plain = PlaceModel(MODEL, seed=0).train()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    learner = kind(plain.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    sampler = GradedSampler([labels], batch=8, seed=0)
    for step in range(6):
        rate = 0.5 * (1 + np.cos(np.pi * step / 6)) if schedule == "cosine" else 1.0
        learner.param_groups[0]["lr"] = settings.learning_rate * rate
        pairs = next(sampler)
        names = [*pairs.query, *pairs.database]
        pixels = torch.stack([torch.from_numpy(np.array(Image.open(scene.queries.path(int(row)))).transpose(2, 0, 1)) for row in names])
        described = plain(pixels)
        loss = generalized_contrastive(described[:8], described[8:], torch.from_numpy(pairs.similarity)).mean()
        learner.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), clip)
        learner.step()
    trained = _run(model, street, tmp_path / "run", settings)
    for (name, mine), other in zip(trained.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert float(_rows(tmp_path / "run")[-1]["loss"]) == pytest.approx(loss.item(), rel=1e-3)


def test_batch_norm_keeps_its_statistics_where_asked(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in ("eval", "train"):
        after = _run(model, street, tmp_path / mode, dataclasses.replace(SETTINGS, bn_mode=mode)).state_dict()  # type: ignore[arg-type]
        still = [torch.equal(after[name], before[name]) for name in before if "running" in name]
        assert all(still) if mode == "eval" else not any(still)
        assert not torch.equal(after["backbone.network.bn1.weight"], before["backbone.network.bn1.weight"])


def test_the_history_says_how_it_was_trained(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    trained = _run(model, street, tmp_path / "run")
    assert trained.history["scenes"] == ["street"]
    assert trained.history["labels"] == [{"rule": "by hand", "parameters": {"k": 1}}]
    assert trained.history["from"]["digest"] == model.digest
    assert trained.history["settings"]["loss"] == "gcl"
    again = _run(trained, street, tmp_path / "more")
    assert again.history["from"]["from"]["digest"] == model.digest
    assert checkpoints.load(tmp_path / "more" / "model").digest == again.digest


def test_several_scenes_teach_together(model: PlaceModel, tmp_path: Path) -> None:
    scenes, labels = zip(*(make_scene(tmp_path, name, seed) for seed, name in enumerate("ab")), strict=True)
    assert fit(model, scenes, labels, SETTINGS, out=tmp_path / "run", progress=False).history["scenes"] == ["a", "b"]


# -- it resumes --


@pytest.mark.parametrize("stop", [3, 5, 7, 11])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    whole = _run(model, street, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _stop_at(stop, patch)
        with pytest.raises(StopError):
            _run(model, street, tmp_path / "cut")
    assert (tmp_path / "cut" / "last.ckpt").exists() == (stop >= 5)
    assert _run(model, street, tmp_path / "cut").digest == whole.digest
    logs = [[(row["step"], row["loss"], row["learning_rate"]) for row in _rows(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_dropout_draws_the_same_after_a_stop(street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**MODEL.backbone_options, "drop_path_rate": 0.5}
    model = PlaceModel(dataclasses.replace(MODEL, backbone_options=options), seed=0)
    whole = _run(model, street, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _stop_at(8, patch)
        with pytest.raises(StopError):
            _run(model, street, tmp_path / "cut")
    torch.rand(17)  # another global state than before
    assert _run(model, street, tmp_path / "cut").digest == whole.digest


def test_stopped_after_the_last_step_only_the_model_is_written(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(model, street, tmp_path / "whole")

    def full_disk(*_: object, **__: object) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full_disk)
        with pytest.raises(StopError):
            _run(model, street, tmp_path / "cut")
    assert _run(model, street, tmp_path / "cut").digest == whole.digest


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training import MODEL, SETTINGS, make_scene
import dataclasses
from covis.models.place import PlaceModel
from covis.training import fit
root = Path(sys.argv[1])
scene, labels = make_scene(root)
settings = dataclasses.replace(SETTINGS, steps=60, checkpoint_every=4)
print(fit(PlaceModel(MODEL, seed=0), [scene], [labels], settings, out=root / "run", progress=False).digest)
"""


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(tmp_path / "run.py"), str(tmp_path / name)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    for wait in (0.0, 0.13):
        process = start("cut")
        checkpoint, seen = tmp_path / "cut" / "run" / "last.ckpt", time.monotonic() + 120
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before) and process.poll() is None and time.monotonic() < seen:
            time.sleep(0.005)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "cut" / "run" / "model").exists(), "killed too late to test anything"
    digests = [start(name).communicate(timeout=300)[0].strip() for name in ("cut", "whole")]
    assert digests[0]
    assert digests[0] == digests[1]


def test_a_finished_run_is_returned_without_training(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = _run(model, street, tmp_path / "run")
    monkeypatch.setattr(training, "_trainer", None)
    assert _run(model, street, tmp_path / "run").digest == trained.digest


def test_other_settings_model_or_labels_are_refused_with_the_difference(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    _run(model, street, out)
    with pytest.raises(SettingsDifferError, match=r"learning_rate: 0\.003 there, 0\.5 now"):
        _run(model, street, out, dataclasses.replace(SETTINGS, learning_rate=0.5))
    with pytest.raises(SettingsDifferError, match="model"):
        _run(PlaceModel(MODEL, seed=1), street, out)
    scene, labels = street
    changed = labels.matrix.copy()
    changed.data[0] = 0.123
    with pytest.raises(SettingsDifferError, match="labels"):
        _run(model, (scene, dataclasses.replace(labels, matrix=changed)), out)
    assert read_json(out / "settings.json", kind="covis-training", version=1)["model"] == model.digest


@pytest.mark.parametrize("damage", ["cut", "text", "other", "code"])
def test_a_damaged_checkpoint_is_refused_by_name_and_runs_no_code(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        _stop_at(7, patch)
        with pytest.raises(StopError):
            _run(model, street, out)
    path = out / "last.ckpt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "text":
        path.write_text("no checkpoint")
    else:
        torch.save({"global_step": 5} if damage == "other" else _Harmful(tmp_path / "harm"), path)
    with pytest.raises(DamagedFileError, match=r"last\.ckpt"):
        _run(model, street, out)
    assert not (tmp_path / "harm").exists()


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_folder_with_somebody_elses_model_is_left_alone(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    checkpoints.save(model, tmp_path / "run" / "model")
    with pytest.raises(OutputExistsError, match="not overwritten"):
        _run(model, street, tmp_path / "run")


# -- it refuses --


def test_only_training_scenes_teach(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    scene, labels = street
    asked = Scene("asked", "val", scene.database, scene.queries.select(np.arange(8)))
    with pytest.raises(InvalidInputError, match="same images on both sides"):
        fit(model, [asked], [labels], SETTINGS, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_must_be_of_the_scenes(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    scene, labels = street
    turned = dataclasses.replace(labels, query_names=labels.query_names[::-1])
    with pytest.raises(InvalidInputError, match="in their order"):
        _run(model, (scene, turned), tmp_path / "run")
    for scenes, several in (([], []), ([scene], []), ([scene], [labels, labels])):
        with pytest.raises(InvalidInputError, match="one Labels a scene"):
            fit(model, scenes, several, SETTINGS, out=tmp_path / "run")


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch": 0}, {"learning_rate": float("nan")}, {"gradient_clip": -1.0}, {"checkpoint_every": 0}, {"seed": -1}]
)
def test_settings_out_of_range_are_named(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, change: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(change))):
        _run(model, street, tmp_path / "run", dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]


def test_unknown_names_and_options_are_refused(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    for change, match in (({"loss": "gcll"}, "Did you mean 'gcl'"), ({"sampler": "gradd"}, "Did you mean 'graded'")):
        with pytest.raises(UnknownNameError, match=match):
            _run(model, street, tmp_path / "run", dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]
    for change in ({"loss_options": {"margn": 1}}, {"sampler_options": {"kind": 1}}):
        with pytest.raises(InvalidInputError, match="does not take the options"):
            _run(model, street, tmp_path / "run", dataclasses.replace(SETTINGS, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def loss_that_breaks(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor, *, after: int = 0) -> torch.Tensor:
    """A user's own loss, named as `module:function`; it gives NaN."""
    losses = generalized_contrastive(a, b, similarity)
    return torch.where(torch.arange(len(losses)) == 2, torch.nan, losses)


def test_a_loss_that_is_no_number_names_step_and_images(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path) -> None:
    pairs = next(GradedSampler([street[1]], batch=8, seed=0))
    names = [street[0].queries.names[int(row)] for row in (pairs.query[2], pairs.database[2])]
    settings = dataclasses.replace(SETTINGS, loss=f"{__name__}:loss_that_breaks")
    with pytest.raises(TrainingDivergedError, match=f"step 1 .*{names[0]}, .*{names[1]}"):
        _run(model, street, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "model").exists()


def test_weights_that_are_no_numbers_are_never_kept(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_rate", lambda _settings, step: float("inf") if step == 4 else 1.0)
    with pytest.raises(TrainingDivergedError, match="step 5"):
        _run(model, street, tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()


# -- it leaves nothing behind --


def test_nothing_is_printed_switched_or_warned(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    torch.manual_seed(1)
    before = [logger.level for logger in loggers], list(warnings.filters), torch.get_rng_state()
    _run(model, street, tmp_path / "run")
    assert [logger.level for logger in loggers] == before[0]
    assert list(warnings.filters) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert capfd.readouterr() == ("", "")
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["last.ckpt", "log.csv", "model", "settings.json"]


def test_the_bar_shows_step_and_loss_on_stderr(
    model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(model, [street[0]], [street[1]], SETTINGS, out=tmp_path / "run")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "12/12 steps, loss 0." in shown.err


def test_tensorboard_is_an_extra(model: PlaceModel, street: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(SETTINGS, logger="tensorboard")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtraError, match=r"covis\[logs\]"):
            _run(model, street, tmp_path / "without", settings)
    pytest.importorskip("tensorboard", reason="the extra `logs` is not installed")
    _run(model, street, tmp_path / "with", settings)
    assert list((tmp_path / "with" / "tensorboard").glob("events*"))
