"""StructVPR's stages in the chain: the branches, the partition, the student; in words, resumable, shared by the arms of a sweep."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import covis
from covis.config import from_table, load_recipe, overlaid, to_table
from covis.errors import CovisError, CovisWarning, InvalidInputError, SettingsDifferError
from covis.images import Images, LabelMaps
from covis.models.checkpoints import load
from covis.models.costs import cost
from covis.pixels import decode
from covis.rasters import read_label_map
from covis.settings import Recipe
from covis.structure.partition import Partition

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory, tiny_survey: Callable[..., Any]) -> Path:
    """Small towns as a folder of tables, label maps included: trondheim and london teach, miami is asked."""
    from covis.town import write_town

    folder = tmp_path_factory.mktemp("towns")
    write_town(folder, layout="table", preset=tiny_survey(train=2, test=1), seed=3)
    return folder


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Seconds long: it goes through every step."""
    tables = {
        "name": "tiny",
        "data": {"test": "miami"},
        "label": {"rule": "distance", "options": {"half": 4.0}},  # the towns are so small that all views meet
        "model": {"height": 24, "width": 32},
        "train": {"steps": 8, "batch": 4, "checkpoint_every": 4, "sampler_options": {"cache": 20, "pool": 20, "positives": 2}},
        "structure": {"student": {"train": {"steps": 6}}},
        "whiten": {"dim": 8},
        "evaluate": {"protocols": ["graded/0.5"], "samples": 50},
    }
    return from_table(Recipe, overlaid(to_table(load_recipe("structvpr-town")), tables), where="here")


@pytest.fixture(scope="module")
def done(towns: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That recipe, run once."""
    out = tmp_path_factory.mktemp("structured") / "out"
    covis.run(recipe, towns, out=out)
    return out


def test_what_a_run_with_a_structure_leaves(done: Path) -> None:
    for part in ("rgb/model", "untrained-teacher", "teacher/model", "partition/partition.npz", "train/model"):
        assert (done / part).exists(), part
    table = (done / "table.txt").read_text()
    assert [row in table for row in ("stage I, photographs", "stage I, label maps", "trained, whitened")] == [True] * 3
    pairs = Partition.load(done / "partition" / "partition.npz")
    assert pairs.scenes == ("london", "trondheim")
    assert sum(pairs.counts().values()) == len(pairs) > 0
    log = (done / "train" / "log.csv").read_text().splitlines()
    assert log[0].endswith(",guided")
    assert float(log[-1].rpartition(",")[2]) > 0
    assert json.loads((done / "train" / "model" / "model.json").read_text())["history"]["guide"]


def test_the_student_is_the_plain_network(done: Path) -> None:
    """V9: the parameters, the operations, the arguments and the settings of the network that learnt from photographs alone."""
    plain, student, teacher = (load(done / part / "model") for part in ("rgb", "train", "teacher"))
    assert cost(plain) == cost(student)
    assert plain.settings == student.settings
    assert (student.encoder, student.resize, teacher.resize) == (None, "pil", "labels")
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in student.state_dict().items()
    }
    assert student.digest != plain.digest
    assert student.describe([np.zeros((30, 40, 3), dtype=np.uint8)]).shape == (1, 224)


def test_a_teacher_reads_label_maps(done: Path, towns: Path) -> None:
    teacher = load(done / "teacher" / "model")
    (scene,) = [one for one in covis.read("table", towns, split="test") if one.name == "miami"]
    described = covis.extract(teacher, scene.queries)
    maps = [read_label_map(LabelMaps(scene.queries).path(row)) for row in range(3)]
    assert described.names == scene.queries.names
    assert np.allclose(teacher.describe(maps), described.vectors[:3], atol=1e-6)
    mirrored = np.ascontiguousarray(maps[0][:, ::-1])
    assert not np.allclose(teacher.describe([mirrored]), described.vectors[:1], atol=1e-3)
    with pytest.raises(InvalidInputError, match=r"must have label maps \(the column segmentation\)"):
        covis.extract(teacher, Images(scene.queries.root, scene.queries.names))
    with pytest.raises(InvalidInputError, match=r"A label map must be a path, .* got uint8 \(30, 40, 3\)"):
        teacher.describe([np.zeros((30, 40, 3), dtype=np.uint8)])


def test_a_map_takes_the_nearest_number() -> None:
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert decode(numbers, height=2, width=3, resize="labels").tolist() == [[[7, 9, 11], [19, 21, 23]]]
    assert decode(numbers, height=4, width=6, resize="labels").tolist() == [numbers.tolist()]
    assert decode(np.array([[1, 2]], dtype=np.uint8), height=2, width=4, resize="labels").tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]


def test_distill_goes_on_and_tells_of_the_pairs(towns: Path, recipe: Recipe, done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = covis.distill(recipe, towns, out=out)
    assert result.model.digest == load(done / "train" / "model").digest  # the same steps as those of run, in another folder
    assert {path.name for path in result.files} >= {"table.txt", "maps.png", "pairs.png"}
    assert all(path.is_file() for path in result.files)
    assert "D4" in result.table
    shutil.rmtree(out / "train")
    said: list[str] = []
    again = covis.distill(recipe, towns, out=out, say=said.append)
    assert again.model.digest == result.model.digest
    assert [line for line in said if line.startswith(("train-teacher:", "partition:"))] == [
        "train-teacher: done before",
        "partition: done before",
    ]


def test_nothing_drawn_is_a_training_as_any_other(towns: Path, recipe: Recipe, done: Path, tmp_path: Path) -> None:
    """With strength 0 the student is what stage II without a guide gives."""
    from covis.structure.stages import student_training
    from covis.training.fitting import fit

    free = replace(recipe, structure=replace(recipe.structure, strength=0.0))
    drawn = covis.train(free, towns, out=tmp_path / "free")
    scenes = covis.read("table", towns, split="train")
    labels = [covis.Labels.load(done / "labels" / "train" / f"{scene.name}.npz") for scene in scenes]
    plain = fit(load(done / "rgb" / "model"), scenes, labels, student_training(recipe), out=tmp_path / "plain", progress=False)
    assert drawn.digest == plain.digest
    assert drawn.digest != load(done / "train" / "model").digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structure": {"classes": ""}}, "must have a \\[structure\\] that names classes"),
        ({"structure": {"classes": "ade20"}}, "ade20k"),
        ({"structure": {"rank": "mean"}}, "There is no rank called 'mean'"),
        ({"structure": {"weighting": "selct"}}, "Did you mean 'select'"),
        ({"structure": {"weighting_options": {"c": 1.0}}}, "c is none of"),
        ({"structure": {"loss": "label-features"}}, "is for networks with the aggregator of that name"),
        ({"structure": {"strength": -1.0}}, "strength of distillation must be"),
        ({"structure": {"corrupt": 1.5}}, "corrupt must be a share"),
        ({"structure": {"threshold": 0}}, "threshold N_t must be"),
        ({"structure": {"student": {"model": {}}}}, "may hold train alone"),
        ({"structure": {"student": {"train": {"loss": "gcl", "sampler": "triplets"}}}}, "do not go together|pairs"),
        ({"structure": {"teacher": {"model": {"levels": [4]}}}}, "must end in one dimension"),
        ({"structure": {"negatives": True, "student": {"train": {"loss": "gcl", "sampler": "graded"}}}}, "gives pairs"),
    ],
)
def test_what_cannot_be_distilled_is_said_before_it_begins(
    towns: Path, recipe: Recipe, tmp_path: Path, changes: dict[str, dict[str, object]], reason: str
) -> None:
    wrong = from_table(Recipe, overlaid(to_table(recipe), changes), where="here")
    with pytest.raises(CovisError, match=reason):
        covis.distill(wrong, towns, out=tmp_path / "out")
    assert not (tmp_path / "out" / "train" / "model").exists()


def test_maps_that_the_numbering_does_not_have_are_refused(towns: Path, recipe: Recipe, tmp_path: Path) -> None:
    other = replace(recipe, structure=replace(recipe.structure, classes="ade20k-annotations"))
    own = tmp_path / "own.toml"
    own.write_text('[classes]\n0 = "road"\n2 = "building"\n')
    with pytest.warns(CovisWarning, match=r"are they 'cityscapes-train'"):  # its numbers reach 18, which ADE20K has too
        covis.distill(other, towns, out=tmp_path / "fits", say=lambda _: None)
    with pytest.raises(InvalidInputError, match=r"number"):
        covis.distill(replace(recipe, structure=replace(recipe.structure, classes=str(own), clusters="none")), towns, out=tmp_path / "out")


def test_maps_of_a_folder_take_the_place_of_those_of_the_layout(towns: Path, recipe: Recipe, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    for scene in covis.read("table", towns, split="train"):
        for name, file in zip(scene.database.names, scene.database.segmentation or (), strict=True):
            target = (maps / (scene.database.root / name).relative_to(towns)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scene.database.root / file, target)
    said: list[str] = []
    result = covis.run(recipe, towns, out=tmp_path / "out", maps=maps, say=said.append)
    assert "teacher" not in result.scores  # what is asked has no map there
    assert [line for line in said if "asked without label maps" in line]
    with pytest.raises(SettingsDifferError, match=r"survey-maps|train-teacher|model-teacher"):
        covis.distill(recipe, towns, out=tmp_path / "out")  # the layout's own maps are others
    for file in (maps / "london").rglob("*.png"):  # named by the images alone, the maps of one town would be taken for both
        file.rename(maps / file.name)
    shutil.rmtree(maps / "trondheim")
    with pytest.raises(CovisError, match=r"would share|must have a label map"):
        covis.run(recipe, towns, out=tmp_path / "other", maps=maps)


@pytest.mark.slow
def test_arms_share_what_is_the_same(towns: Path, recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    covis.train(recipe, towns, out=tmp_path / "once")
    shutil.copy(tmp_path / "once" / "recipe.toml", file)
    study = tmp_path / "two.toml"
    study.write_text(
        """
        recipe = "tiny.toml"
        seeds = [0]
        scores = ["trained"]
        baseline = "free"
        [arms]
        free = { structure = { strength = 0.0 } }
        all = { structure = { weighting = "none" } }
        shuffled = { structure = { targets = "shuffled" } }
        random = { structure = { targets = "random" } }
        corrupted = { structure = { corrupt = 0.5 } }
        """
    )
    from covis.sweeps import sweep

    result = sweep(study, towns, out=tmp_path / "sweep")
    assert not result.failed
    kinds = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "sweep" / "shared").iterdir() if not path.name.startswith("."))
    assert kinds.count("rgb") == 1
    assert kinds.count("teacher") == kinds.count("partition") == 2  # that of the true labels, and that of the corrupted ones
    digests = [
        load(tmp_path / "sweep" / arm / "0" / "train" / "model").digest for arm in ("free", "all", "shuffled", "random", "corrupted")
    ]
    assert len(set(digests)) == 5
    moved = sweep(study, towns, out=tmp_path / "sweep")
    assert not moved.failed


@pytest.mark.slow
def test_a_sweep_knows_its_label_maps(towns: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from covis import stages
    from covis.config import to_toml
    from covis.sweeps import sweep

    (tmp_path / "tiny.toml").write_text(to_toml(recipe))
    study = tmp_path / "two.toml"
    study.write_text('recipe = "tiny.toml"\nseeds = [0]\nscores = ["trained"]\n[arms.one]\n[arms.two.structure]\nstrength = 0.5\n')
    for name, turn in (("as they are", 0), ("turned", 1)):
        for scene in covis.read("table", towns, split="train"):
            files = [scene.database.root / file for file in scene.database.segmentation or ()]
            for row, image in enumerate(scene.database.names):
                target = (tmp_path / name / (scene.database.root / image).relative_to(towns)).with_suffix(".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(files[(row + turn) % len(files)], target)
    sweep(study, towns, out=tmp_path / "out", maps=tmp_path / "as they are", only=["one"])
    with pytest.raises(SettingsDifferError, match=r"maps"):
        sweep(study, towns, out=tmp_path / "out", maps=tmp_path / "turned")
    shutil.copytree(tmp_path / "as they are", tmp_path / "a copy")
    assert not sweep(study, towns, out=tmp_path / "out", maps=tmp_path / "a copy", only=["one"]).failed
    fitted, fit = [], stages.fit

    def counted(*parts: Any, out: Path, **others: Any) -> object:
        fitted.extend([] if (Path(out) / "model").exists() else [Path(out).name.partition("-")[0]])
        return fit(*parts, out=out, **others)

    monkeypatch.setattr(stages, "fit", counted)
    sweep(study, towns, out=tmp_path / "out", maps=tmp_path / "turned", overwrite=True)
    assert sorted(fitted) == ["teacher", "train", "train"]  # the teacher once for both arms


def test_a_folder_of_towns_is_read_as_tables(towns: Path) -> None:
    from covis.datasets import guess_layout

    assert guess_layout(towns) == "table"
    assert [scene.name for scene in covis.read("auto", towns, split="train")] == ["london", "trondheim"]
