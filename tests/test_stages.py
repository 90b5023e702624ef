"""Stages: what each branch and each stage of a recipe trains with, and what a recipe may not say."""

from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import pytest

from covis.config import from_table, load_recipe, to_table
from covis.errors import InvalidInputError, UnknownNameError
from covis.settings import AugmentSettings, EncodingSettings, ModelSettings, Recipe, StructureSettings, TrainSettings, ValidateSettings
from covis.structure.stages import check_dims, check_structure, student_training, teacher_model, teacher_training

AUGMENT = AugmentSettings(mirror=True, brightness=0.2, contrast=0.1, saturation=0.3, grey=0.1, noise=0.05, erase=0.5)
MODEL = ModelSettings(
    backbone="resnet10t", backbone_options={"stem_width": 8}, projection=32, height=48, width=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
)
TRAIN = TrainSettings(
    loss_options={"margin": 0.4},
    steps=700,
    freeze="layer1",
    seed=5,
    augment=AUGMENT,
    validate=ValidateSettings(protocol="graded/0.5", every=100),
)


def _recipe(**structure):
    return Recipe("mine", model=MODEL, train=TRAIN, structure=StructureSettings(**{"classes": "cityscapes-train", **structure}))


def _differing(a, b):
    return {one.name for one in fields(a) if getattr(a, one.name) != getattr(b, one.name)}


def test_the_teacher_differs_from_the_student_in_what_it_reads_alone() -> None:
    found = teacher_model(_recipe(clusters="none", weighted=False, weights={"sky": 3.0}))
    assert _differing(found, MODEL) == {"encoding", "mean", "std"}
    assert found.encoding == EncodingSettings("cityscapes-train", "none", weighted=False, weights={"sky": 3.0})
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


def test_a_teacher_may_have_a_network_of_its_own() -> None:
    own = {"backbone": "resnet18", "levels": [2, 3, 4], "pretrained": True, "projection": 16}
    found = teacher_model(_recipe(teacher={"model": own}))
    assert _differing(found, MODEL) == {"encoding", "mean", "std", "backbone", "backbone_options", "levels", "pretrained", "projection"}
    assert (found.backbone, found.levels, found.projection) == ("resnet18", (2, 3, 4), 16)
    assert found.backbone_options == {}  # they were the other network's


def test_a_teacher_of_no_classes_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"'mine' must say how label maps number their classes"):
        teacher_model(_recipe(classes=""))


@pytest.mark.parametrize("key", ["encoding", "mean", "std"])
def test_how_maps_are_read_is_said_once(key: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"\[structure\.teacher\.model\] of 'mine' must not set {key}"):
        teacher_model(_recipe(teacher={"model": {key: to_table(ModelSettings())[key]}}))


def test_the_teacher_learns_as_the_recipe_says_less_what_label_maps_do_not_allow() -> None:
    found = teacher_training(_recipe())
    assert _differing(found, TRAIN) == {"augment", "freeze", "validate"}
    assert found.augment == AugmentSettings(mirror=True)
    assert found.freeze == ""
    assert found.validate == ValidateSettings(protocol="", every=100)


def test_what_the_teacher_says_of_its_training_is_laid_over() -> None:
    train = {"steps": 50, "loss": "triplet", "sampler": "triplets", "freeze": "layer2", "validate": {"protocol": "radius/25"}}
    found = teacher_training(_recipe(teacher={"train": train}))
    assert (found.steps, found.loss, found.loss_options, found.sampler, found.freeze) == (50, "triplet", {}, "triplets", "layer2")
    assert found.validate == ValidateSettings(protocol="radius/25", every=100)
    assert teacher_training(_recipe(teacher={"train": {"augment": {"mirror": False}}})).augment == AugmentSettings()


def test_label_maps_are_not_made_darker() -> None:
    with pytest.raises(InvalidInputError, match=r"may only mirror: label maps hold class numbers"):
        teacher_training(_recipe(teacher={"train": {"augment": {"brightness": 0.1}}}))


def test_the_student_goes_on_as_the_recipe_says_and_mirrors_nothing() -> None:
    found = student_training(_recipe())
    assert _differing(found, TRAIN) == {"augment"}
    assert found.augment == replace(AUGMENT, mirror=False)
    own = student_training(_recipe(student={"train": {"learning_rate": 1e-5, "augment": {"noise": 0.0}}}))
    assert _differing(own, found) == {"learning_rate", "augment"}
    assert own.augment == replace(AUGMENT, mirror=False, noise=0.0)
    with pytest.raises(InvalidInputError, match=r"must not mirror: the teacher's descriptors are of images as they are"):
        student_training(_recipe(student={"train": {"augment": {"mirror": True}}}))


@pytest.mark.parametrize(("who", "stage"), [("teacher", teacher_training), ("student", student_training)])
def test_a_stage_has_the_seed_of_the_recipe(who, stage) -> None:
    assert stage(_recipe()).seed == 5
    with pytest.raises(InvalidInputError, match=rf"\[structure\.{who}\.train\] of 'mine' must not set the seed"):
        stage(_recipe(**{who: {"train": {"seed": 5}}}))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (
            {"teacher": {"model": {"backbon": "resnet18"}}},
            r"\[structure\.teacher\.model\] of 'mine' has no setting 'backbon'\. Did you mean",
        ),
        ({"teacher": {"train": {"step": 5}}}, r"\[structure\.teacher\.train\] of 'mine' has no setting 'step'"),
        ({"student": {"train": {"steps": "many"}}}, r"\[structure\.student\.train\] of 'mine': steps must be"),
        (
            {"student": {"model": {"projection": 8}}},
            r"\[structure\.student\] of 'mine' may hold train alone; .* network is that of \[model\]",
        ),
        ({"teacher": {"label": {}}}, r"\[structure\.teacher\] of 'mine' may hold model and train alone; got 'label'"),
        ({"teacher": {"train": 5}}, r"\[structure\.teacher\.train\] of 'mine' must be a table; got 5"),
        ({"threshold": 0}, r"\[structure\] threshold: .*whole number from 1 to 1,000,000,000; got 0"),
        ({"strength": -1.0}, r"\[structure\] strength: .*got -1\.0"),
        ({"strength": float("inf")}, r"\[structure\] strength: .*got inf"),
        ({"strength": float("nan")}, r"\[structure\] strength: .*got nan"),
        ({"corrupt": 1.1}, r"corrupt must be a share of the places, in \[0, 1\]; got 1\.1"),
        ({"corrupt": -0.1}, r"corrupt must be"),
        ({"weighting_options": {"c": 1}}, r"does not take the options"),
        ({"weighting_options": {"threshold": 5}}, r"threshold is not an option|does not take the options"),
        ({"teacher": {"model": {"normalize": False}}}, r"The teacher's descriptors must be unit vectors"),
        ({"negatives": True}, r"the sampler 'graded' gives pairs\. Take triplets"),
    ],
)
def test_what_a_recipe_may_not_say_is_refused_in_words(structure, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_structure(_recipe(**structure))


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({"rank": "non-positiv"}, r"There is no rank called 'non-positiv'\. Did you mean 'non-positive'"),
        ({"weighting": "functions"}, r"There is no weighting called 'functions'\. Did you mean 'function'"),
        ({"loss": "features"}, r"There is no distillation called 'features'\. Did you mean 'feature'"),
    ],
)
def test_names_are_looked_up(structure, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        check_structure(_recipe(**structure))


def test_what_holds_together_is_accepted() -> None:
    check_structure(_recipe())
    check_structure(_recipe(rank="raw", weighting="group", weighting_options={"D1": 3.0}, loss="relational", strength=0.0, corrupt=1.0))
    check_structure(_recipe(negatives=True, student={"train": {"loss": "triplet", "sampler": "triplets"}}))
    check_structure(_recipe(classes="", threshold=0))  # nothing is distilled
    long = replace(_recipe(), model=replace(MODEL, normalize=False))
    with pytest.raises(InvalidInputError, match=r"The student's descriptors must be unit vectors"):
        check_structure(replace(long, structure=replace(long.structure, teacher={"model": {"normalize": True}})))


def test_a_recipe_of_toml_tables_goes_the_same_way() -> None:
    table = {**to_table(load_recipe("town")), "structure": {"classes": "cityscapes-train", "teacher": {"train": {"steps": 9}}}}
    recipe = from_table(Recipe, table, where="here")
    assert teacher_training(recipe).steps == 9
    assert asdict(teacher_model(recipe)) | {"encoding": 0, "mean": 0, "std": 0} == asdict(recipe.model) | {
        "encoding": 0,
        "mean": 0,
        "std": 0,
    }


def test_dimensions_must_agree_for_features() -> None:
    teacher, student = SimpleNamespace(dim=448), SimpleNamespace(dim=512)
    check_dims(teacher, SimpleNamespace(dim=448), loss="feature")
    check_dims(teacher, student, loss="relational")
    with pytest.raises(InvalidInputError, match=r"the teacher has 448, the student 512"):
        check_dims(teacher, student, loss="feature")
