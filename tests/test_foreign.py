"""Modules of others as describers: what may come out, what may not, and what decides their digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from covis.errors import InvalidInputError
from covis.extraction import extract
from covis.images import Images
from covis.models.describers import describe
from covis.models.foreign import ForeignModel
from covis.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = ModelSettings(height=12, width=16, normalize=False)


class Gives(nn.Module):
    """Means over the image's halves, in the form asked for."""

    def __init__(self, form) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor):
        return self.form(torch.nn.functional.adaptive_avg_pool2d(x, (1, 2)).flatten(1))


def _opened(form, **settings) -> ForeignModel:
    return ForeignModel(Gives(form), name="mine", settings=ModelSettings(**{"height": 12, "width": 16, "normalize": False} | settings))


def _photos(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8) for i in range(count)]


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x[:, :, None, None],
        lambda x: (x, x.sum()),
        lambda x: [x[:, :, None, None]],
        lambda x: {"global_descriptor": x, "maps": None},
        lambda x: {"score": 1.0, "descriptor": x},
    ],
)
def test_every_form_that_is_taken_gives_the_same(form) -> None:
    expected = describe(_opened(lambda x: x), _photos(5))
    model = _opened(form)
    assert model.dim == 6
    np.testing.assert_array_equal(describe(model, _photos(5), batch=2), expected)


def test_the_values_are_those_of_a_plain_loop() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    found = describe(_opened(lambda x: x, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)), [image])[0]
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), strict=True)):
        for half in (0, 1):
            pixels = image[:, 8 * half : 8 * half + 8, channel] / 255
            assert found[2 * channel + half] == pytest.approx(((pixels - mean) / std).mean(), abs=1e-5)
    unit = describe(_opened(lambda x: x, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), normalize=True), [image])[0]
    np.testing.assert_allclose(unit, found / np.linalg.norm(found), atol=1e-6)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda x: x[:, :, None], r"float32 tensor \(1, 6, 1\)"),
        (lambda x: x[:, :, None, None].expand(-1, -1, 2, 3), r"\(1, 6, 2, 3\)"),
        (lambda x: {"pooler_output": x}, r"mapping of 'pooler_output': a float32 tensor \(1, 6\)"),
        (lambda x: (), r"a tuple of nothing"),
        (lambda x: (None, x), r"a tuple of a NoneType"),
        (lambda x: x.long(), r"int64 tensor"),
        (lambda x: x.numpy(), r"a ndarray"),
        (lambda x: x.repeat(2, 1), r"one row for one image; it gave 2"),
        (lambda x: x * float("nan"), r"finite"),
        (lambda x: x.reshape(7, -1), r"failed \(RuntimeError"),
    ],
)
def test_anything_else_is_said(form, said: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"mine must .*{said}"):
        _opened(form)


def test_a_module_that_gives_another_number_of_rows_or_dimensions_is_named() -> None:
    model = _opened(lambda x: x if len(x) == 1 else x[:1])
    with pytest.raises(InvalidInputError, match=r"mine must give \(3, 6\)"):
        describe(model, _photos(3))
    model = _opened(lambda x: x if len(x) == 1 else x[:, :4])
    with pytest.raises(InvalidInputError, match=r"gave \(3, 4\)"):
        describe(model, _photos(3))


def test_eval_mode_no_gradients_and_the_mode_restored() -> None:
    network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Dropout(0.9), nn.Linear(36, 5))
    model = ForeignModel(network, name="mine", settings=SETTINGS)
    model.train()
    first, again = describe(model, _photos(4)), describe(model, _photos(4))
    np.testing.assert_array_equal(first, again)
    assert network[2].training
    assert network[3].weight.grad is None
    np.testing.assert_allclose(describe(model, _photos(4), batch=1), first, atol=1e-6)


def test_a_module_that_views_its_maps_is_taken() -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.conv(x)
            return maps.view(len(x), 4, -1).mean(2)  # refuses tensors that lie channels last

    assert describe(ForeignModel(Views(), name="mine", settings=SETTINGS), _photos(3)).shape == (3, 4)


def test_the_digest_is_of_the_weights_the_name_the_options_and_the_pixels() -> None:
    def made(value: float = 1.0, name: str = "mine", options=None, code: str = "", **settings) -> str:
        network = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(36, 5))
        nn.init.constant_(network[2].weight, value)
        nn.init.zeros_(network[2].bias)
        whole = ModelSettings(**{"height": 12, "width": 16} | settings)
        return ForeignModel(network, name=name, options=options, code=code, settings=whole).digest

    assert made() == made()
    others = [made(2.0), made(name="other"), made(options={"a": 1}), made(code="x"), made(mean=(0.5, 0.5, 0.5)), made(normalize=False)]
    assert len({made(), *others}) == 1 + len(others)
    assert _opened(lambda x: x).digest == _opened(lambda x: x).digest  # without a single weight


@pytest.mark.parametrize("how", ["buffer", "attribute", "array", "list", "mapping", "inner"])
def test_the_digest_is_of_weights_that_no_state_dict_holds(how: str) -> None:
    class Holds(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.inner = nn.Identity()
            held = torch.rand((3, 4), generator=torch.Generator().manual_seed(seed))
            if how == "buffer":
                self.register_buffer("held", held, persistent=False)
            elif how == "inner":
                self.inner.held = held
            else:
                self.held = {"attribute": held, "array": held.numpy(), "list": [held], "mapping": {"pca": held}}[how]
            self.seen = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = torch.zeros(len(x))  # what is kept of the images is no weight
            held = self.inner.held if how == "inner" else self.held
            held = held[0] if how == "list" else held["pca"] if how == "mapping" else torch.as_tensor(held)
            return x.mean((2, 3)) @ held

    first, again, other = (ForeignModel(Holds(seed), name="mine", settings=SETTINGS) for seed in (0, 0, 1))
    describe(first, _photos(3))
    assert first.digest == again.digest != other.digest
    assert len(first.network.state_dict()) == 0


def test_tensors_of_any_kind_have_a_digest() -> None:
    class Holds(Gives):
        def __init__(self, **held: torch.Tensor) -> None:
            super().__init__(lambda x: x)
            vars(self).update(held)

    eye = torch.eye(3)
    kinds = [eye, eye.to_sparse(), eye.bool(), eye.bfloat16(), eye[0, 0], eye[:0], eye.to(torch.complex64).conj()]
    digests = {ForeignModel(Holds(held=one), name="mine", settings=SETTINGS).digest for one in kinds}
    assert len(digests) == len(kinds) - 1  # a sparse one is what it holds
    assert ForeignModel(Holds(held=torch.eye(3, device="meta")), name="mine", settings=SETTINGS).digest == _opened(lambda x: x).digest


def test_what_a_module_adds_to_its_state_does_not_break_the_digest() -> None:
    class Extra(Gives):
        def get_extra_state(self):
            return {"version": 3}

        def set_extra_state(self, state) -> None: ...

    network = Extra(lambda x: x)
    assert ForeignModel(network, name="mine", settings=SETTINGS).digest == ForeignModel(network, name="mine", settings=SETTINGS).digest


@pytest.mark.parametrize("wrong", [{"height": 0}, {"std": (0.0, 1.0, 1.0)}, {"resize": "pil-crop"}])
def test_pixels_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(InvalidInputError):
        _opened(lambda x: x, **wrong)


def test_extraction_names_the_image_whose_descriptor_is_not_finite(tmp_path: Path) -> None:
    from PIL import Image

    for name, grey in (("a.png", 200), ("black.png", 0)):
        Image.fromarray(np.full((12, 16, 3), grey, dtype=np.uint8)).save(tmp_path / name)
    model = _opened(torch.log, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(InvalidInputError, match=r"black\.png"):
        extract(model, Images(tmp_path, ("a.png", "black.png")))
    np.testing.assert_allclose(extract(model, Images(tmp_path, ("a.png",))).vectors, np.log(200 / 255), atol=1e-6)
