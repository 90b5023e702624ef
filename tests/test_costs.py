"""Costs: counted by hand on small networks; and that a distilled student costs what the plain network costs, to the last parameter."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from covis.extraction import extract
from covis.images import Images
from covis.models import checkpoints
from covis.models.costs import Cost, cost
from covis.models.place import PlaceModel
from covis.pairs import Pairs
from covis.settings import EncodingSettings, ModelSettings
from covis.structure.distillation import distillation
from covis.structure.partition import Partition

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ModelSettings(backbone="resnet10t", backbone_options={"channels": [8, 8, 8, 16], "stem_width": 8}, height=32, width=32)


def test_a_projection_costs_its_weights_and_two_operations_each() -> None:
    plain = cost(PlaceModel(SMALL))
    projected = cost(PlaceModel(ModelSettings(**{**vars(SMALL), "projection": 10})))
    assert projected.parameters - plain.parameters == 16 * 10 + 10
    assert projected.flops - plain.flops == 2 * 16 * 10
    assert (plain.dim, projected.dim) == (16, 10)
    assert plain != projected


def test_convolutions_are_counted_as_by_hand() -> None:
    model = PlaceModel(SMALL)
    counted = 0

    def watch(module, _inputs, output):
        nonlocal counted
        kernel = module.weight.shape[1] * module.weight.shape[2] * module.weight.shape[3]
        counted += 2 * kernel * output.numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(watch)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    by_hand = counted  # the hooks go on counting
    assert by_hand > 100_000
    assert cost(model).flops == by_hand


def test_twice_the_pixels_cost_twice_the_operations_and_no_parameter_more() -> None:
    small, large = cost(PlaceModel(SMALL)), cost(PlaceModel(ModelSettings(**{**vars(SMALL), "width": 64})))
    assert (large.parameters, large.flops, large.image) == (small.parameters, 2 * small.flops, (3, 32, 64))


def test_counting_changes_nothing() -> None:
    model = PlaceModel(SMALL).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert cost(model) == cost(model)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_it_says_itself_in_words() -> None:
    said = str(cost(PlaceModel(SMALL)))
    assert said.endswith("GFLOP an image of 3 x 32 x 32, 16-D, forward(pixels)")
    assert str(Cost(1_500_000, 2_000_000_000, 8, (3, 4, 5), "(pixels)")).startswith("1.500 million parameters, 2.000 GFLOP")


def test_a_teacher_reads_one_channel_and_a_student_three() -> None:
    teacher = PlaceModel(ModelSettings(**{**vars(SMALL), "encoding": EncodingSettings("cityscapes-train")}))
    assert cost(teacher).image == (1, 32, 32)
    assert cost(PlaceModel(SMALL)).image == (3, 32, 32)


def _distilled(settings):
    """A student after some steps towards a random teacher, in a plain loop."""
    random = np.random.default_rng(0)
    targets = random.random((6, 16)).astype(np.float32)  # as GeM gives them: nothing below 0
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    rows, ranks = np.arange(5), np.ones(5, dtype=np.int32)
    partition = Partition([rows], [rows + 1], [np.ones(5)], [ranks], student=[ranks], scenes=("street",))
    guide = distillation(partition, [np.ones(5)], [(targets, targets)])
    model = PlaceModel(settings).train()
    guide.attach(model)
    pixels = torch.from_numpy(random.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8))
    pairs = Pairs(np.zeros(5, dtype=np.int64), rows, rows + 1, np.ones(5), np.ones(5))
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=3e-3), []
    for _ in range(40):
        described = model(pixels)
        loss = guide.loss(pairs, described[rows], described[rows + 1]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]  # it did learn from the teacher
    return model.eval()


def test_a_distilled_student_costs_exactly_what_the_plain_network_costs(tmp_path) -> None:
    """V9: parameters, operations, names and shapes of the weights, arguments; and label maps are never asked for."""
    plain, distilled = PlaceModel(SMALL), _distilled(SMALL)
    student = checkpoints.load(checkpoints.save(distilled, tmp_path / "student"))
    assert cost(student) == cost(plain)
    shapes = [[(name, tuple(value.shape), value.dtype) for name, value in one.state_dict().items()] for one in (plain, student)]
    assert shapes[0] == shapes[1]
    assert [name for name, _ in student.named_modules()] == [name for name, _ in plain.named_modules()]
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), student.parameters(), strict=True))
    assert student.settings == plain.settings
    assert (student.encoder, student.resize) == (None, "pil")
    for name in ("forward", "describe", "describe_pixels"):
        taken = inspect.signature(getattr(student, name)).parameters
        assert taken == inspect.signature(getattr(plain, name)).parameters
        assert not [one for one in taken if "seg" in one or "label" in one or "map" in one]
    names = tuple(f"{row}.png" for row in range(3))
    for row, name in enumerate(names):
        Image.fromarray(np.random.default_rng(row).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / name)
    without, beside = Images(tmp_path, names), Images(tmp_path, names, segmentation=[f"lost/{name}" for name in names])
    np.testing.assert_array_equal(extract(student, without).vectors, extract(student, beside).vectors)  # maps that are not there
