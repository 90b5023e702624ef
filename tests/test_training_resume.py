"""A training run that was stopped or killed ends with the bits of one that was not; what is on the disk is held to it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from teaching import MODEL, SETTINGS, TRIPLETS, StopError, changed, make_asked, make_scene, rows, run, stop_at

from covis.errors import DamagedFileError, OutputExistsError, SettingsDifferError
from covis.files import read_json
from covis.images import Scene
from covis.labels import Labels
from covis.models import checkpoints
from covis.models.place import PlaceModel
from covis.settings import AugmentSettings, TrainSettings, ValidateSettings
from covis.training import fitting as training

pytestmark = pytest.mark.usefixtures("one_thread")

Street = tuple[Scene, Labels]

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "augmented": {"augment": AugmentSettings(mirror=True, brightness=0.3, noise=0.1, erase=0.3)},
    "accumulated": {"micro_batch": 2, "bn_mode": "paper"},
    "validated": {"validate": ValidateSettings("graded/0.5", metric="recall@1", every=3, k=10)},
    "mined": TRIPLETS,
    "momentum": {"optimizer": "sgd", "momentum": 0.9, "schedule": "step", "decay_every": 4, "warmup": 3},
    "everything": {
        **TRIPLETS,
        "micro_batch": 4,
        "augment": AugmentSettings(mirror=True, grey=0.5),
        "validate": ValidateSettings("graded/0.5", metric="nDCG@5", every=4, k=10),
        "freeze": "layer1",
        "precision": "bf16",
    },
}


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return make_scene(tmp_path)


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(MODEL, seed=0)


def stopped(
    model: PlaceModel, street: Street, out: Path, settings: TrainSettings, *, step: int, monkeypatch: pytest.MonkeyPatch, **options: object
) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, patch)
        with pytest.raises(StopError):
            run(model, street, out, settings, **options)


def bits(model: PlaceModel) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("step", [3, 5, 7, 11])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = run(model, street, tmp_path / "whole")
    stopped(model, street, tmp_path / "cut", SETTINGS, step=step, monkeypatch=monkeypatch)
    assert (tmp_path / "cut" / "last.ckpt").exists() == (step >= 5)
    assert bits(run(model, street, tmp_path / "cut")) == bits(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_whatever_the_settings_are(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    settings, asked = changed(**KINDS[kind]), {"validation": [make_asked(tmp_path)]}
    whole = run(model, street, tmp_path / "whole", settings, **asked)
    for step in (6, 9):  # stopped twice
        stopped(model, street, tmp_path / "cut", settings, step=step, monkeypatch=monkeypatch, **asked)
        torch.rand(17)  # another global state than before
    again = run(model, street, tmp_path / "cut", settings, **asked)
    assert bits(again) == bits(whole)
    assert again.history == whole.history
    timed = {"items_per_second", "waiting", "mined", "mining", "seconds"}
    logs = [[{name: row[name] for name in row.keys() - timed} for row in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_dropout_draws_the_same_after_a_stop(street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**MODEL.backbone_options, "drop_path_rate": 0.5}
    model = PlaceModel(dataclasses.replace(MODEL, backbone_options=options), seed=0)
    settings = changed(micro_batch=4)
    whole = run(model, street, tmp_path / "whole", settings)
    stopped(model, street, tmp_path / "cut", settings, step=8, monkeypatch=monkeypatch)
    torch.rand(17)
    assert bits(run(model, street, tmp_path / "cut", settings)) == bits(whole)


def test_stopped_after_the_last_step_only_the_model_is_written(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(model, street, tmp_path / "whole")

    def full_disk(*_: object, **__: object) -> None:
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", full_disk)
        with pytest.raises(StopError):
            run(model, street, tmp_path / "cut")
    monkeypatch.setattr(training, "_learn", None)
    assert bits(run(model, street, tmp_path / "cut")) == bits(whole)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from teaching import MODEL, SETTINGS, make_asked, make_scene, run
import dataclasses
from covis.models.place import PlaceModel
from covis.settings import AugmentSettings, ValidateSettings
root = Path(sys.argv[1])
settings = dataclasses.replace(
    SETTINGS, steps=60, checkpoint_every=4, augment=AugmentSettings(mirror=True),
    validate=ValidateSettings("graded/0.5", metric="recall@1", every=7, k=10),
)
print(run(PlaceModel(MODEL, seed=0), make_scene(root), root / "run", settings, validation=[make_asked(root)]).digest)
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
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = run(model, street, tmp_path / "run")
    monkeypatch.setattr(training, "_learn", None)
    assert run(model, street, tmp_path / "run").digest == trained.digest


def test_other_settings_model_or_labels_are_refused_with_the_difference(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(model, street, out)
    with pytest.raises(SettingsDifferError, match=r"learning_rate: 0\.003 there, 0\.5 now"):
        run(model, street, out, changed(learning_rate=0.5))
    with pytest.raises(SettingsDifferError, match=r"\(augment\.mirror: False there, True now\)"):
        run(model, street, out, changed(augment=AugmentSettings(mirror=True)))
    with pytest.raises(SettingsDifferError, match="model"):
        run(PlaceModel(MODEL, seed=1), street, out)
    scene, labels = street
    matrix = labels.matrix.copy()
    matrix.data[0] = 0.123
    with pytest.raises(SettingsDifferError, match="labels"):
        run(model, (scene, dataclasses.replace(labels, matrix=matrix)), out)
    assert read_json(out / "settings.json", kind="covis-training", version=1)["model"] == model.digest


def test_other_validation_scenes_are_refused(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    settings = changed(validate=ValidateSettings("graded/0.5", metric="recall@1", k=10))
    run(model, street, tmp_path / "run", settings, validation=[make_asked(tmp_path)])
    with pytest.raises(SettingsDifferError, match="validation"):
        run(model, street, tmp_path / "run", settings, validation=[make_asked(tmp_path, "other")])


@pytest.mark.parametrize("damage", ["cut", "text", "other", "code"])
def test_a_damaged_checkpoint_is_refused_by_name_and_runs_no_code(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    out = tmp_path / "run"
    stopped(model, street, out, SETTINGS, step=7, monkeypatch=monkeypatch)
    path = out / "last.ckpt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif damage == "text":
        path.write_text("no checkpoint")
    else:
        torch.save({"step": 5} if damage == "other" else _Harmful(tmp_path / "harm"), path)
    with pytest.raises(DamagedFileError, match=r"last\.ckpt.*Remove it to train from the start"):
        run(model, street, out)
    assert not (tmp_path / "harm").exists()


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_folder_with_somebody_elses_model_is_left_alone(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    checkpoints.save(model, tmp_path / "run" / "model")
    with pytest.raises(OutputExistsError, match="not overwritten"):
        run(model, street, tmp_path / "run")
