"""Validation: the metric is what evaluate gives, the best model is kept, and nothing impossible is begun."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from teaching import MODEL, SETTINGS, make_asked, make_scene, rows, run

from covis.errors import InvalidInputError, LeakError, UnknownNameError
from covis.evaluation import evaluate
from covis.extraction import extract
from covis.images import Images, Scene
from covis.indexes import index
from covis.labels import Labels
from covis.models.place import PlaceModel
from covis.pixels import PixelStore
from covis.settings import ValidateSettings
from covis.training import fitting as training
from covis.training.descriptions import describe_rows
from covis.training.validation import Judge, check_validation

pytestmark = pytest.mark.usefixtures("one_thread")

RULE = ValidateSettings("graded/0.5", metric="recall@1", every=3, k=10)


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(MODEL, seed=0)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Scene, Labels]:
    return make_asked(tmp_path)


@pytest.mark.parametrize("metric", ["recall@1", "mAP@5", "graded-recall@3", "nDCG@10", "rank-correlation@5", "match-AP", "AP"])
def test_the_value_is_what_evaluate_gives(model: PlaceModel, asked: tuple[Scene, Labels], tmp_path: Path, metric: str) -> None:
    model.train()
    both = [asked, make_asked(tmp_path, "other", seed=6)]
    described = [(extract(model, scene.queries), extract(model, scene.database)) for scene, _ in both]
    rankings = [index(database).search(queries, k=16) for queries, database in described]
    scores = evaluate(
        rankings,
        [scene for scene, _ in both],
        labels=[labels for _, labels in both],
        protocol=dataclasses.replace(_rule(), ks=(1, 3, 5, 10)),
        descriptors=described,
        samples=5,
    )
    with Judge(both, dataclasses.replace(RULE, metric=metric), model.settings) as judge:
        value = judge.value(model)
    assert value == pytest.approx(scores.metrics[metric].value, abs=1e-6)
    assert all(module.training for module in model.modules())  # as before


def _rule() -> object:
    from covis.protocols import protocol

    return protocol("graded/0.5")


def test_one_index_over_all_scenes_where_the_protocol_is_joint(model: PlaceModel, tmp_path: Path) -> None:
    both = [make_asked(tmp_path, name, seed) for name, seed in (("one", 5), ("two", 6))]
    values = {}
    for scope in ("scene", "joint"):
        rule = dataclasses.replace(_rule(), name=f"own-{scope}", scope=scope)  # type: ignore[type-var]
        rule.write(tmp_path / f"{scope}.toml")  # type: ignore[attr-defined]
        settings = dataclasses.replace(RULE, protocol=str(tmp_path / f"{scope}.toml"))
        check_validation(both, settings, training=[])
        with Judge(both, settings, model.settings) as judge:
            values[scope] = judge.value(model)
    assert values["joint"] <= values["scene"]  # the other scene's images only distract


def test_each_image_is_described_once_in_eval_mode(model: PlaceModel, tmp_path: Path) -> None:
    images = make_scene(tmp_path)[0].queries
    seen = []
    model.train()
    model.backbone.register_forward_hook(lambda module, inputs, _: seen.append((len(inputs[0]), module.training)))
    torch.manual_seed(3)
    before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    chosen = np.array([5, 1, 5, 30, 1])
    with PixelStore([images], MODEL.height, MODEL.width) as store:
        described = describe_rows(model, store, 0, chosen)
        assert describe_rows(model, store, 0, np.zeros(0, dtype=np.int64)).shape == (0, model.dim)
    assert seen == [(3, False)]
    np.testing.assert_allclose(described, model.describe([images.path(int(row)) for row in chosen]), atol=1e-6)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in model.state_dict().items())


def _fit(model: PlaceModel, asked: tuple[Scene, Labels], root: Path, values: list[float], monkeypatch: pytest.MonkeyPatch) -> PlaceModel:
    """A run whose validations give these values, and which keeps the weights of each."""
    left = iter(values)

    def value(_self: Judge, network: PlaceModel) -> float:
        WEIGHTS.append({name: one.clone() for name, one in network.state_dict().items()})
        return next(left)

    WEIGHTS.clear()
    monkeypatch.setattr(Judge, "value", value)
    settings = dataclasses.replace(SETTINGS, steps=10, validate=RULE)
    return run(model, make_scene(root), root / "run", settings, validation=[asked])


WEIGHTS: list[dict[str, torch.Tensor]] = []


@pytest.mark.parametrize(
    ("values", "kept"),
    [([0.1, 0.4, 0.2, 0.3], 1), ([0.4, 0.2, 0.4, 0.4], 0), ([0.1, 0.2, 0.3, 0.4], 3), ([float("nan"), 0.0, float("nan"), 0.0], 1)],
)
def test_the_best_is_kept_and_of_equal_ones_the_earliest(
    model: PlaceModel, asked: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[float], kept: int
) -> None:
    trained = _fit(model, asked, tmp_path, values, monkeypatch)
    steps = [3, 6, 9, 10]  # the last is validated too
    told = trained.history["validation"]
    plain = [None if np.isnan(value) else value for value in values]
    assert (told["step"], told["value"]) == (steps[kept], values[kept])
    assert told["curve"] == [{"step": step, "value": value} for step, value in zip(steps, plain, strict=True)]
    assert (told["protocol"], told["metric"], told["scenes"]) == ("graded/0.5", "recall@1", ["asked"])
    for name, value in trained.state_dict().items():
        assert torch.equal(value, WEIGHTS[kept][name]), name
    shown = [(row["step"], row["validation"]) for row in rows(tmp_path / "run") if row["validation"]]
    assert shown == [(str(step), f"{value:.6g}") for step, value in zip(steps, values, strict=True) if not np.isnan(value)]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["last.ckpt", "log.csv", "model", "settings.json"]


def test_a_kill_between_the_best_model_and_the_checkpoint_loses_nothing(
    model: PlaceModel, asked: tuple[Scene, Labels], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second best is written, the checkpoint that would speak of it is not: the first one is still there, and counts."""
    save = training.RunFolder.save
    with monkeypatch.context() as patch:

        def breaking(self: training.RunFolder, checkpoint: training.Checkpoint) -> None:
            if checkpoint.step == 6:
                raise KeyError
            save(self, checkpoint)

        patch.setattr(training.RunFolder, "save", breaking)
        with pytest.raises(KeyError):
            _fit(model, asked, tmp_path, [0.1, 0.9, 0.0, 0.0], patch)
    assert sorted(path.name for path in (tmp_path / "run").glob("best-*")) == ["best-3.safetensors", "best-6.safetensors"]
    trained = _fit(model, asked, tmp_path, [0.05, 0.0, 0.0], monkeypatch)  # another GPU, say: now the sixth step is worse
    assert trained.history["validation"]["step"] == 3
    assert [point["value"] for point in trained.history["validation"]["curve"]] == [0.1, 0.05, 0.0, 0.0]


def test_without_a_protocol_the_last_model_is_kept(model: PlaceModel, asked: tuple[Scene, Labels], tmp_path: Path) -> None:
    trained = run(model, make_scene(tmp_path), tmp_path / "run", dataclasses.replace(SETTINGS, steps=3), validation=[asked])
    assert "validation" not in trained.history


def test_what_cannot_be_validated_is_refused_before_anything_starts(model: PlaceModel, asked: tuple[Scene, Labels], tmp_path: Path) -> None:
    scene, labels = asked
    street = make_scene(tmp_path)

    def refused(error: type[Exception], match: str, validation: object = (asked,), **values: object) -> None:
        settings = dataclasses.replace(SETTINGS, validate=dataclasses.replace(RULE, **values))  # type: ignore[arg-type]
        with pytest.raises(error, match=match):
            run(model, street, tmp_path / "run", settings, validation=validation)
        assert not (tmp_path / "run").exists()

    refused(UnknownNameError, r"no protocol called 'graded'", protocol="graded")
    refused(UnknownNameError, r"got 'recal@1'. Did you mean 'recall@1'", metric="recal@1")
    refused(UnknownNameError, r"the greater the better; got 'error@50%'", metric="error@50%")
    refused(UnknownNameError, r"got 'recall@7'", metric="recall@7")
    refused(InvalidInputError, r"at least 25 for recall@25; got 10", metric="recall@25")
    refused(InvalidInputError, r"every and k must be at least 1", every=0)
    refused(InvalidInputError, r"must be scenes to validate on", validation=())
    refused(InvalidInputError, r"comes without labels", validation=[(scene, None)])
    refused(InvalidInputError, r"frames", protocol="msls-val/official/seq2seq-3")
    nothing = dataclasses.replace(labels, matrix=labels.matrix * 0.1)
    refused(InvalidInputError, r"No validation query has a positive", validation=[(scene, nothing)])
    refused(LeakError, r"No evaluated query may enter training; .*0-0\.png", validation=[street])


def test_graded_metrics_need_labels_and_distances_do_not(tmp_path: Path) -> None:
    here = Images(tmp_path, ["a.png", "b.png"], xy=np.array([[0.0, 0.0], [50.0, 0.0]]))
    there = Images(tmp_path, ["c.png"], xy=np.array([[1.0, 0.0]]))
    scene = Scene("s", "val", here, there)
    by_distance = dataclasses.replace(RULE, protocol="radius/25")
    check_validation([(scene, None)], by_distance, training=[])
    with pytest.raises(UnknownNameError, match=r"Those of graded similarity need labels"):
        check_validation([(scene, None)], dataclasses.replace(by_distance, metric="nDCG@5"), training=[])
