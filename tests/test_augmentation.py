"""Augmentation: what torchvision computes image by image, drawn by seed, step and place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from covis.errors import InvalidInputError
from covis.settings import AugmentSettings
from covis.training.augmentation import Draws, augment, draw

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = AugmentSettings(mirror=True, brightness=0.4, contrast=0.5, saturation=0.6, grey=0.3, noise=0.1, erase=0.4)


@pytest.fixture
def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 3, 20, 30), generator=generator, dtype=torch.uint8)


def _plain(count: int, **changed: object) -> Draws:
    """Nothing happens, but what is said."""
    one, zero = np.ones(count, np.float32), np.zeros(count, np.float32)
    values = {
        "mirror": zero > 0,
        "brightness": one,
        "contrast": one,
        "saturation": one,
        "grey": zero > 0,
        "noise": zero,
        "noise_seed": np.zeros(count, np.uint64),
        "erase": np.zeros((count, 4), np.float32),
    }
    return Draws(**values | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_colours_change_as_in_torchvision(pixels: torch.Tensor, kind: str) -> None:
    factors = np.linspace(0.3, 1.9, len(pixels)).astype(np.float32)
    mine = augment(pixels, _plain(len(pixels), **{kind: factors}))
    adjust = getattr(functional, f"adjust_{kind}")
    for image, result, factor in zip(pixels, mine, factors.tolist(), strict=True):
        expected = adjust(image.float() / 255, factor) * 255
        assert (result.float() - expected).abs().max() <= 0.5001  # rounding to whole levels


def test_grey_and_mirror_as_in_torchvision(pixels: torch.Tensor) -> None:
    chosen = np.arange(len(pixels)) % 3 == 0
    grey = augment(pixels, _plain(len(pixels), grey=chosen))
    mirrored = augment(pixels, _plain(len(pixels), mirror=chosen))
    for row, image in enumerate(pixels):
        expected = functional.rgb_to_grayscale(image.float() / 255, num_output_channels=3) * 255 if chosen[row] else image.float()
        assert (grey[row].float() - expected).abs().max() <= 0.5001
        assert torch.equal(mirrored[row], functional.horizontal_flip(image) if chosen[row] else image)


def test_all_in_order_is_one_after_the_other(pixels: torch.Tensor) -> None:
    drawn = draw(ALL, seed=3, step=7, items=6)
    values = pixels.float() / 255
    rows = []
    for row, image in enumerate(values):
        changed = functional.horizontal_flip(image) if drawn.mirror[row] else image
        changed = functional.adjust_brightness(changed, float(drawn.brightness[row]))
        changed = functional.adjust_contrast(changed, float(drawn.contrast[row]))
        changed = functional.adjust_saturation(changed, float(drawn.saturation[row]))
        changed = functional.rgb_to_grayscale(changed, num_output_channels=3) if drawn.grey[row] else changed
        generator = torch.Generator().manual_seed(int(drawn.noise_seed[row]))
        changed = (changed + torch.randn(image.shape, generator=generator) * float(drawn.noise[row])).clamp(0, 1)
        top, left, height, width = drawn.erase[row]
        for y in range(20):
            for x in range(30):
                if top <= (y + 0.5) / 20 < top + height and left <= (x + 0.5) / 30 < left + width:
                    changed[:, y, x] = 0.5
        rows.append(changed)
    assert (augment(pixels, drawn).float() - torch.stack(rows) * 255).abs().max() <= 0.51


def test_the_images_of_an_item_are_mirrored_together() -> None:
    drawn = draw(ALL, seed=0, step=0, items=200, images=3)
    together = drawn.mirror.reshape(200, 3)
    assert (together == together[:, :1]).all()
    assert 60 < together[:, 0].sum() < 140
    assert not draw(AugmentSettings(brightness=0.2), seed=0, step=0, items=200).mirror.any()


def test_draws_keep_to_their_ranges_and_shares() -> None:
    drawn = draw(ALL, seed=1, step=2, items=2000)
    for values, share in ((drawn.brightness, 0.4), (drawn.contrast, 0.5), (drawn.saturation, 0.6)):
        assert 1 - share <= values.min() < 1 - 0.98 * share
        assert 1 + 0.98 * share < values.max() <= 1 + share
    assert 0.27 < drawn.grey.mean() < 0.33
    assert 0 <= drawn.noise.min() < drawn.noise.max() <= 0.1
    chosen = drawn.erase[drawn.erase[:, 2] > 0]
    assert 0.36 < len(chosen) / 4000 < 0.44
    area = chosen[:, 2] * chosen[:, 3]
    assert 0.02 - 1e-6 <= area.min() < 0.03 < 0.19 < area.max() <= 0.2 + 1e-6
    assert (chosen[:, :2] + chosen[:, 2:] <= 1 + 1e-6).all()


def test_a_part_of_a_batch_gets_what_the_whole_batch_gives_it(pixels: torch.Tensor) -> None:
    """Six pairs at once, or two and four: queries first, then the database images, in each part."""
    drawn = draw(ALL, seed=4, step=1, items=6)
    whole = augment(pixels, drawn.part(0, 6, images=2))
    for first, items in ((0, 2), (2, 4)):
        rows = [*range(first, first + items), *range(6 + first, 6 + first + items)]
        assert torch.equal(augment(pixels[rows], drawn.part(first, items, images=2)), whole[rows])


def test_parts_of_lists_are_ordered_as_their_images_lie() -> None:
    drawn = draw(ALL, seed=4, step=1, items=3, images=4)
    part = drawn.part(1, 2, images=4)
    assert part.noise_seed.tolist() == drawn.noise_seed[[4, 8, 5, 6, 7, 9, 10, 11]].tolist()


def test_draws_depend_on_seed_and_step_alone_and_leave_the_random_state_alone(pixels: torch.Tensor) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = augment(pixels, draw(ALL, seed=0, step=3, items=6))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(augment(pixels, draw(ALL, seed=0, step=3, items=6)), first)
    for other in (draw(ALL, seed=0, step=4, items=6), draw(ALL, seed=1, step=3, items=6)):
        assert not torch.equal(augment(pixels, other), first)


def test_nothing_asked_is_nothing_done_and_the_argument_is_not_written_into(pixels: torch.Tensor) -> None:
    before = pixels.clone()
    assert augment(pixels, draw(AugmentSettings(), seed=0, step=0, items=6)) is pixels
    augment(pixels, draw(ALL, seed=0, step=0, items=6))
    assert torch.equal(pixels, before)
    with pytest.raises(InvalidInputError, match=r"one draw an image"):
        augment(pixels, draw(ALL, seed=0, step=0, items=5))
