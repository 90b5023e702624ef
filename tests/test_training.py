"""Training: it learns, as a plain loop does and as the reference does, it refuses what would be wrong, and it leaves nothing switched."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from teaching import MODEL, SETTINGS, TRIPLETS, changed, make_asked, make_scene, rows, run

from covis.errors import CovisWarning, MissingExtraError, TrainingDivergedError
from covis.images import Scene
from covis.labels import Labels
from covis.losses import generalized_contrastive, loss_floor
from covis.models import checkpoints
from covis.models.place import PlaceModel
from covis.pairs import GradedSampler
from covis.pixels import PixelStore
from covis.settings import AugmentSettings, TrainSettings
from covis.training import fitting as training
from covis.training.fitting import fit

pytestmark = pytest.mark.usefixtures("one_thread")

Street = tuple[Scene, Labels]


@pytest.fixture
def street(tmp_path: Path) -> Street:
    return make_scene(tmp_path)


@pytest.fixture
def model() -> PlaceModel:
    return PlaceModel(MODEL, seed=0)


def pixels_of(scene: Scene, chosen: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(Image.open(scene.queries.path(int(row)))).transpose(2, 0, 1)) for row in chosen])


def assert_same_state(mine: PlaceModel, other: PlaceModel, tolerance: float) -> None:
    for (name, value), expected in zip(mine.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


# -- it learns --


def test_it_brings_the_views_of_a_place_together(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    scene, labels = street
    before = model.digest
    trained = run(model, street, tmp_path / "run", dataclasses.replace(SETTINGS, steps=80, batch=16, checkpoint_every=1000))
    assert model.digest == before  # the argument is not trained
    gaps = []
    for one in (model, trained):
        vectors = one.describe([scene.queries.path(row) for row in range(len(scene.queries))])
        distance = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
        similarity = labels.matrix.toarray()
        gaps.append(distance[similarity == 0].mean() - distance[similarity > 0.5].mean())
    assert gaps[1] > gaps[0] + 0.1
    assert float(rows(tmp_path / "run")[-1]["loss"]) < float(rows(tmp_path / "run")[0]["loss"])


@pytest.mark.parametrize(
    "settings",
    [
        changed(optimizer="sgd", schedule="constant", momentum=0.9, warmup=4),
        changed(optimizer="adam", gradient_clip=0.05),
        changed(optimizer="adamw", schedule="step", decay=0.3, decay_every=2),
    ],
    ids=lambda settings: settings.optimizer,
)
def test_it_is_a_plain_torch_loop(model: PlaceModel, street: Street, tmp_path: Path, settings: TrainSettings) -> None:
    settings = dataclasses.replace(settings, steps=6, weight_decay=0.01)
    scene, labels = street
    plain = PlaceModel(MODEL, seed=0).train()
    kind = {
        "sgd": lambda *args, **kwargs: torch.optim.SGD(*args, momentum=0.9, **kwargs),
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }[settings.optimizer]
    learner = kind(plain.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    rates = {
        "sgd": [0.25, 0.5, 0.75, 1, 1, 1],
        "adam": [0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)],
        "adamw": [1, 1, 0.3, 0.3, 0.09, 0.09],
    }[settings.optimizer]
    sampler = GradedSampler([labels], batch=8, seed=0)
    for step in range(6):
        learner.param_groups[0]["lr"] = settings.learning_rate * rates[step]
        pairs = next(sampler)
        described = plain(pixels_of(scene, np.concatenate([pairs.query, pairs.database])))
        loss = generalized_contrastive(described[:8], described[8:], torch.from_numpy(pairs.similarity)).mean()
        learner.zero_grad()
        loss.backward()
        if settings.gradient_clip:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), settings.gradient_clip)
        learner.step()
    trained = run(model, street, tmp_path / "run", settings)
    for (name, mine), other in zip(trained.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert float(rows(tmp_path / "run")[-1]["loss"]) == pytest.approx(loss.item(), rel=1e-3)


def test_one_step_in_the_papers_mode_is_one_step_of_the_reference(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    """Micro-batches of two pairs, the sides one after the other, the mean over the number of micro-batches, SGD; BatchNorm learns
    statistics of every micro-batch, where the network is frozen too."""
    scene, labels = street
    settings = changed(
        steps=1,
        optimizer="sgd",
        schedule="constant",
        learning_rate=0.1,
        micro_batch=2,
        bn_mode="paper",
        freeze="layer2",
        checkpoint_every=9,
    )
    plain = copy.deepcopy(model).train()
    for name, parameter in plain.backbone.network.named_parameters():
        parameter.requires_grad_(name.startswith(("layer3", "layer4")))
    learner = torch.optim.SGD([parameter for parameter in plain.parameters() if parameter.requires_grad], lr=0.1)
    pairs = next(GradedSampler([labels], batch=8, seed=0))
    first, second = pixels_of(scene, pairs.query), pixels_of(scene, pairs.database)
    graded = torch.from_numpy(pairs.similarity).float()
    distance, micro = torch.nn.PairwiseDistance(p=2), 2
    for begin in range(0, 8, micro):
        end = begin + micro
        apart = distance(plain(first[begin:end]), plain(second[begin:end]))
        error = graded[begin:end] * 0.5 * apart**2 + (1 - graded[begin:end]) * 0.5 * torch.clamp(0.5 - apart, min=0.0) ** 2
        (error.mean() / (8 // micro)).backward()
    learner.step()
    trained = run(model, street, tmp_path / "run", settings)
    assert_same_state(trained, plain, 1e-6)
    moved = {name for name, value in trained.state_dict().items() if not torch.equal(value, model.state_dict()[name])}
    assert "backbone.network.layer1.0.bn1.running_mean" in moved
    assert "backbone.network.layer1.0.bn1.weight" not in moved
    assert "backbone.network.layer3.0.bn1.weight" in moved


@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("kind", [{}, TRIPLETS], ids=["pairs", "lists"])
def test_the_gradient_of_micro_batches_is_that_of_the_batch(
    model: PlaceModel, street: Street, tmp_path: Path, micro: int, kind: dict[str, object]
) -> None:
    """With running statistics, augmentation included."""
    all_of_it = AugmentSettings(mirror=True, brightness=0.3, contrast=0.3, saturation=0.3, grey=0.2, noise=0.1, erase=0.3)
    settings = changed(
        **kind, steps=1, optimizer="sgd", schedule="constant", learning_rate=1.0, bn_mode="eval", checkpoint_every=9, augment=all_of_it
    )
    whole = run(model, street, tmp_path / "whole", settings)
    parts = run(model, street, tmp_path / "parts", dataclasses.replace(settings, micro_batch=micro))
    assert whole.digest != model.digest
    assert_same_state(parts, whole, 1e-6)
    row, other = rows(tmp_path / "whole")[0], rows(tmp_path / "parts")[0]
    for name in ("loss", "floor", "null", "spread", "gradient_norm"):
        assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4, abs=1e-6)


def test_every_step_is_augmented_anew(model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, asked = training.draw, []

    def seen(*args: object, **values: int) -> object:
        asked.append(values)
        return drawn(*args, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "draw", seen)
    run(model, street, tmp_path / "run", changed(steps=3, micro_batch=4, seed=5, augment=AugmentSettings(mirror=True)))
    assert asked == [{"seed": 5, "step": step, "items": 8, "images": 2} for step in (0, 0, 1, 1, 2, 2)]


def test_lists_teach_with_negatives_of_the_network_as_it_is(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    trained = run(model, street, tmp_path / "run", changed(**TRIPLETS, steps=20))
    assert trained.digest != model.digest
    log = rows(tmp_path / "run")
    assert sum(int(row["mined"]) for row in log) > 40
    assert sum(float(row["mining"]) for row in log) > 0
    assert float(log[0]["floor"]) == 0


def test_frozen_stages_do_not_learn(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for stage, mode in (("layer2", "train"), ("all", "train")):
        after = run(model, street, tmp_path / stage, changed(freeze=stage, bn_mode=mode)).state_dict()
        moved = {name for name in before if not torch.equal(after[name], before[name])}
        assert "aggregator.p" in moved
        assert not any(name.startswith(("backbone.network.conv1", "backbone.network.layer1", "backbone.network.layer2")) for name in moved)
        assert any(name.startswith("backbone.network.layer4") for name in moved) == (stage == "layer2")
    assert all(parameter.requires_grad for parameter in model.parameters())  # the argument is not touched


def test_half_precision_learns_nearly_the_same_on_a_cpu(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    full = run(model, street, tmp_path / "full", changed(steps=1))
    half = run(model, street, tmp_path / "half", changed(steps=1, precision="bf16"))
    assert half.digest != full.digest
    assert all(value.dtype == full.state_dict()[name].dtype for name, value in half.state_dict().items())
    losses = [float(rows(tmp_path / name)[0]["loss"]) for name in ("full", "half")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_augmented_images_teach_something_else(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    plain = run(model, street, tmp_path / "plain")
    augmented = run(model, street, tmp_path / "augmented", changed(augment=AugmentSettings(mirror=True, grey=0.5, erase=0.5)))
    assert augmented.digest != plain.digest


def test_batch_norm_keeps_its_statistics_where_asked(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for mode in ("eval", "train"):
        after = run(model, street, tmp_path / mode, dataclasses.replace(SETTINGS, bn_mode=mode)).state_dict()  # type: ignore[arg-type]
        still = [torch.equal(after[name], before[name]) for name in before if "running" in name]
        assert all(still) if mode == "eval" else not any(still)
        assert not torch.equal(after["backbone.network.bn1.weight"], before["backbone.network.bn1.weight"])


def test_the_history_says_how_it_was_trained(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    trained = run(model, street, tmp_path / "run")
    assert trained.history["scenes"] == ["street"]
    assert trained.history["labels"] == [{"rule": "by hand", "parameters": {"k": 1}}]
    assert trained.history["from"]["digest"] == model.digest
    assert trained.history["settings"]["loss"] == "gcl"
    again = run(trained, street, tmp_path / "more")
    assert again.history["from"]["from"]["digest"] == model.digest
    assert checkpoints.load(tmp_path / "more" / "model").digest == again.digest


def test_several_scenes_teach_together(model: PlaceModel, tmp_path: Path) -> None:
    scenes, labels = zip(*(make_scene(tmp_path, name, seed) for seed, name in enumerate("ab")), strict=True)
    assert fit(model, scenes, labels, SETTINGS, out=tmp_path / "run", progress=False).history["scenes"] == ["a", "b"]


# -- it stops in words --


def loss_that_breaks(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor, *, after: int = 0) -> torch.Tensor:
    """A user's own loss, named as `module:function`; it gives NaN."""
    losses = generalized_contrastive(a, b, similarity)
    return torch.where(torch.arange(len(losses)) == 2, torch.nan, losses)


def test_a_loss_that_is_no_number_names_step_and_images(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    pairs = next(GradedSampler([street[1]], batch=8, seed=0))
    names = [street[0].queries.names[int(row)] for row in (pairs.query[2], pairs.database[2])]
    settings = dataclasses.replace(SETTINGS, loss=f"{__name__}:loss_that_breaks")
    with pytest.raises(TrainingDivergedError, match=f"step 1 .*{names[0]}, .*{names[1]}"):
        run(model, street, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("kind", [{}, TRIPLETS], ids=["pairs", "lists"])
def test_in_a_later_micro_batch_too(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, object]
) -> None:
    """The seventh item of eight is the third of the second part."""
    settings = changed(**kind, micro_batch=4)
    seen = []

    def breaking(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        seen.append(len(a))
        losses = (a * (b if b.ndim == 2 else b[:, 0])).sum(dim=1)
        return torch.where(torch.arange(len(losses)) == 2, torch.nan, losses) if len(seen) == 2 else losses

    monkeypatch.setattr(training.preflight, "check", lambda *_: None)
    monkeypatch.setattr(training.preflight, "make_loss", lambda _settings: breaking)
    with pytest.raises(TrainingDivergedError, match=r"step 1 the loss of the (pair|list) .*\.png.* is nan") as refused:
        run(model, street, tmp_path / "run", settings)
    assert seen == [4, 4]
    assert str(refused.value).count(".png") == (4 if kind else 2)


def loss_without_gradient(a: torch.Tensor, b: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
    """Finite, with a gradient that is not: the square root at 0."""
    return ((a - a.detach()) * b).sum(dim=1).abs().sqrt() * similarity.clamp(min=0.1)


def test_a_gradient_that_is_no_number_names_step_weights_and_images(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    pairs = next(GradedSampler([street[1]], batch=8, seed=0))
    name = street[0].queries.names[int(pairs.query[0])]
    settings = changed(loss=f"{__name__}:loss_without_gradient")
    with pytest.raises(TrainingDivergedError, match=rf"step 1 the losses are finite and the gradient is not, first in backbone.*{name}"):
        run(model, street, tmp_path / "run", settings)


def test_weights_that_are_no_numbers_are_never_kept(
    model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "learning_rate", lambda _settings, step: float("inf") if step == 4 else 1.0)
    with pytest.raises(TrainingDivergedError, match="step 5"):
        run(model, street, tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()


# -- what it writes down --


def test_the_log_says_what_the_batch_showed(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    scene, labels = street
    run(model, street, tmp_path / "run", changed(bn_mode="eval", loss_options={"margin": 0.3}))
    first, *_, last = rows(tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "10", "12"]
    pairs = next(GradedSampler([labels], batch=8, seed=0))
    with torch.no_grad():
        a, b = model.eval()(pixels_of(scene, np.concatenate([pairs.query, pairs.database]))).chunk(2)
    similarity = torch.from_numpy(pairs.similarity).float()
    losses = generalized_contrastive(a, b, similarity, margin=0.3)
    apart = torch.linalg.vector_norm(a - b, dim=1)[similarity == 0].mean()
    expected = {
        "loss": losses.mean(),
        "floor": loss_floor(similarity, margin=0.3).mean(),
        "null": (losses == 0).float().mean(),
        "spread": apart,
    }
    for name, value in expected.items():
        assert float(first[name]) == pytest.approx(float(value), rel=1e-4, abs=1e-7), name
    assert float(first["gradient_norm"]) > 0
    assert float(first["learning_rate"]) == pytest.approx(3e-3)
    for row in (first, last):
        assert float(row["items_per_second"]) > 0
        assert 0 <= float(row["waiting"]) <= 1
        assert (row["mined"], row["validation"]) == ("0", "")
    assert float(last["seconds"]) > float(first["seconds"]) > 0


@pytest.mark.slow
def test_descriptors_that_become_alike_are_warned_of_and_others_are_not(model: PlaceModel, street: Street, tmp_path: Path) -> None:
    settings = changed(steps=120, learning_rate=1e-2, schedule="constant", checkpoint_every=999)
    run(model, street, tmp_path / "healthy", settings)  # warnings are errors in the tests
    shrinking = dataclasses.replace(settings, weight_decay=10.0, bn_mode="eval")  # to weights that tell nothing apart
    with pytest.warns(CovisWarning, match=r"The descriptors are collapsing: at step \d+0 unrelated images"):
        run(model, street, tmp_path / "collapsed", shrinking)


def test_an_aggregator_that_starts_from_data_starts_from_the_training_images(street: Street, tmp_path: Path) -> None:
    settings = dataclasses.replace(MODEL, aggregator="netvlad", aggregator_options={"clusters": 4})
    model = PlaceModel(settings, seed=0)
    trained = run(model, street, tmp_path / "run", changed(steps=1, learning_rate=0.0))
    assert model.starts_from_data
    assert not trained.starts_from_data
    model.initialise([street[0].queries.path(row) for row in range(32)], seed=0)
    assert torch.equal(trained.aggregator.centroids, model.aggregator.centroids)


# -- it leaves nothing behind --


def test_nothing_is_printed_switched_or_warned(
    model: PlaceModel, street: Street, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    torch.manual_seed(1)
    before = [logger.level for logger in loggers], list(warnings.filters), torch.get_rng_state()
    run(model, street, tmp_path / "run")
    assert [logger.level for logger in loggers] == before[0]
    assert list(warnings.filters) == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert capfd.readouterr() == ("", "")
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == ["last.ckpt", "log.csv", "model", "settings.json"]


def test_the_bar_shows_step_and_loss_on_stderr(
    model: PlaceModel, street: Street, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(model, [street[0]], [street[1]], SETTINGS, out=tmp_path / "run")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "12/12 steps, loss 0." in shown.err
    assert " a second," in shown.err


def test_tensorboard_is_an_extra(model: PlaceModel, street: Street, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(SETTINGS, logger="tensorboard")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtraError, match=r"covis\[logs\]"):
            run(model, street, tmp_path / "without", settings)
    pytest.importorskip("tensorboard", reason="the extra `logs` is not installed")
    run(model, street, tmp_path / "with", settings)
    assert list((tmp_path / "with" / "tensorboard").glob("events*"))


# -- two sides --


@pytest.mark.parametrize("settings", [SETTINGS, changed(**TRIPLETS)], ids=["pairs", "mined lists"])
def test_a_scene_of_two_sides_teaches(model: PlaceModel, tmp_path: Path, settings: TrainSettings) -> None:
    """As a city of MSLS does: the queries are other images than the database."""
    scene, labels = make_asked(tmp_path)
    trained = run(model, (scene, labels), tmp_path / "run", dataclasses.replace(settings, steps=60, batch=16, micro_batch=8))
    gaps = []
    for one in (model, trained):
        queries, database = (one.describe([side.path(row) for row in range(len(side))]) for side in (scene.queries, scene.database))
        distance = np.linalg.norm(queries[:, None] - database[None], axis=2)
        similarity = labels.matrix.toarray()
        gaps.append(distance[similarity == 0].mean() - distance[similarity > 0.5].mean())
    assert gaps[1] > gaps[0] + 0.1


def test_sides_that_share_names_are_told_apart(model: PlaceModel, tmp_path: Path) -> None:
    """As where database/1.png and query/1.png show other things: mining describes each from its own folder."""
    first, second = make_scene(tmp_path / "a", "s", seed=1)[0].queries, make_scene(tmp_path / "b", "s", seed=1)[0].queries
    for row in range(len(second)):
        Image.fromarray(np.full((32, 32, 3), 7, dtype=np.uint8)).save(second.path(row))
    scene = Scene("s", "train", database=second, queries=first)
    labels = dataclasses.replace(make_scene(tmp_path / "c", "s", seed=1)[1], excluded=None)
    seen: list[float] = []
    described = training.describe_rows

    def watched(model: PlaceModel, store: PixelStore, number: int, rows: np.ndarray) -> np.ndarray:
        pixels = store.take(np.full(len(rows), number), rows)
        seen.extend((pixels == 7).all(dim=3).all(dim=2).all(dim=1).tolist())
        return described(model, store, number, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "describe_rows", watched)
        run(model, (scene, labels), tmp_path / "run", changed(**TRIPLETS, steps=2, batch=4))
    assert 0 < sum(seen) < len(seen)  # both folders were looked at
    assert seen[: len(seen) - sum(seen)] == [False] * (len(seen) - sum(seen))  # the queries first


def test_what_diverges_is_named_by_the_file_of_its_side(model: PlaceModel, tmp_path: Path) -> None:
    scene, labels = make_asked(tmp_path)
    whole = make_scene(tmp_path, "asked", 5)[0].queries
    assert {scene.database.names[0], scene.queries.names[0]} < set(whole.names)
    with pytest.raises(TrainingDivergedError) as caught:
        run(model, (scene, labels), tmp_path / "run", changed(learning_rate=1e12, optimizer="sgd", schedule="constant"))
    files = re.findall(r"(\d-\d\.png)", str(caught.value))
    assert files[0] in scene.queries.names
    assert files[1] in scene.database.names
