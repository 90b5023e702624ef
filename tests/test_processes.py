"""Several processes train as one would; what goes wrong in one of them is said by the caller."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from teaching import MODEL, SETTINGS, TRIPLETS, make_asked, make_scene, rows, run

from covis.errors import CovisError, DamagedFileError, InvalidInputError
from covis.models.place import PlaceModel
from covis.settings import AugmentSettings, ValidateSettings
from covis.training.processes import in_processes

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

EXACT = dataclasses.replace(SETTINGS, bn_mode="eval", optimizer="sgd", learning_rate=0.3, devices=2, accelerator="cpu")


def _state(model: PlaceModel) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize("kind", ["pairs", "lists"])
def test_two_processes_learn_what_one_does(tmp_path: Path, kind: str) -> None:
    """With running statistics: micro-batches, augmentation, mining and validation included."""
    settings = dataclasses.replace(
        EXACT,
        micro_batch=2,
        augment=AugmentSettings(mirror=True, brightness=0.3, noise=0.05),
        validate=ValidateSettings("graded/0.5", metric="recall@1", every=5, k=10),
        **(TRIPLETS if kind == "lists" else {}),
    )
    model, street, asked = PlaceModel(MODEL, seed=0), make_scene(tmp_path), [make_asked(tmp_path)]
    one = run(model, street, tmp_path / "one", dataclasses.replace(settings, devices=1), validation=asked)
    two = run(model, street, tmp_path / "two", settings, validation=asked)
    assert two.digest != model.digest
    for name, value in _state(two).items():
        torch.testing.assert_close(value, _state(one)[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert two.history["validation"] == one.history["validation"]
    for mine, other in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for column in ("loss", "floor", "null", "spread", "gradient_norm", "validation"):
            assert float(mine[column] or 0) == pytest.approx(float(other[column] or 0), rel=5e-3, abs=1e-6), column


def test_batch_statistics_are_each_processes_own_and_the_first_ones_are_kept(tmp_path: Path) -> None:
    trained = run(PlaceModel(MODEL, seed=0), make_scene(tmp_path), tmp_path / "run", dataclasses.replace(EXACT, bn_mode="train"))
    assert all(torch.isfinite(value).all() for value in _state(trained).values())


def test_an_image_that_does_not_decode_is_said_by_the_caller(tmp_path: Path) -> None:
    street = make_scene(tmp_path)
    for row in range(32):
        street[0].queries.path(row).write_bytes(b"no image")
    with pytest.raises(DamagedFileError, match=r"street/\d-\d\.png"):
        run(PlaceModel(MODEL, seed=0), street, tmp_path / "run", EXACT)


def _refuses(what: str) -> None:
    if os.environ["LOCAL_RANK"] == "1":
        raise InvalidInputError(f"{what} is wrong.")


def _breaks(_what: str) -> None:
    raise KeyError("a bug")


def test_errors_of_ours_come_back_as_they_are_and_bugs_as_bugs() -> None:
    with pytest.raises(InvalidInputError, match=r"^this is wrong\.$"):
        in_processes(_refuses, "this", count=2)
    with pytest.raises(Exception, match=r"a bug") as raised:
        in_processes(_breaks, "this", count=2)
    assert not isinstance(raised.value, CovisError)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from teaching import MODEL, make_scene, run
from test_processes import EXACT
from covis.models.place import PlaceModel

def main():
    print("before")
    root = Path(sys.argv[1])
    print(len(run(PlaceModel(MODEL, seed=0), make_scene(root), root / "run", EXACT).digest))

if __name__ == "__main__":
    main()
"""


def test_what_comes_before_in_a_program_is_done_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(SCRIPT.format(tests=str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.stdout, done.stderr) == ("before\n16\n", "")
