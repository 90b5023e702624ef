"""What a student costs that a teacher of label maps has taught: seconds an image against the plain network, and what a guided step adds.

    OMP_NUM_THREADS=1 python benchmarks/distillation.py

Both networks begin with the same weights and learn from the same random pixels and pairs, the one with the guide of
`covis.structure.distillation`, the other without. They learn, and then describe the same pixels, in turns, so that other work on
the machine meets both; a ratio is the median of those of the rounds. The cost that is counted (parameters, operations, arguments)
must be the same to the last digit: that is checked, and the weights of the two must have the same names and shapes.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from covis.models.costs import cost
from covis.models.place import PlaceModel
from covis.pairs import Pairs
from covis.settings import ModelSettings
from covis.structure.distillation import Distillation, distillation
from covis.structure.partition import Partition

GOAL = (0.95, 1.05)
IMAGES = 64


def made_guide(dim: int, random: np.random.Generator) -> tuple[Distillation, Pairs]:
    """A teacher of random unit vectors, and the pairs of each image with the next."""
    targets = random.random((IMAGES, dim)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    rows, ones = np.arange(IMAGES - 1), np.ones(IMAGES - 1)
    ranks = np.ones(IMAGES - 1, dtype=np.int32)
    partition = Partition([rows], [rows + 1], [ones], [ranks], student=[ranks], scenes=("made",))
    return distillation(partition, [ones], [(targets, targets)]), Pairs(np.zeros_like(rows), rows, rows + 1, ones, ones)


class Learner:
    """A network that takes a step on 8 pairs each time it is called."""

    def __init__(self, model: PlaceModel, pixels: torch.Tensor, pairs: Pairs, guide: Distillation | None) -> None:
        self.model, self.pixels, self.pairs, self.guide = model.train(), pixels, pairs, guide
        self.optimizer, self.step = torch.optim.SGD(model.parameters(), lr=1e-3), 0

    def __call__(self) -> None:
        """Take a step."""
        first = 8 * self.step % 56
        part, self.step = self.pairs[first : first + 8], self.step + 1
        a, b = self.model(torch.cat([self.pixels[part.query], self.pixels[part.database]])).tensor_split(2)
        losses = (a - b).square().sum(dim=1)
        if self.guide is not None:
            losses = losses + self.guide.loss(part, a, b)
        self.optimizer.zero_grad()
        losses.mean().backward()
        self.optimizer.step()


def in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round; who goes first changes from round to round."""
    seconds: list[list[float]] = [[] for _ in works]
    for one in works:
        one()
    for turn in range(rounds):
        for number in range(len(works)):
            which = (turn + number) % len(works)
            begun = time.perf_counter()
            works[which]()
            seconds[which].append(time.perf_counter() - begun)
    return seconds


def check_same(plain: PlaceModel, student: PlaceModel) -> None:
    """Hold that the two cost the same and differ in their weights alone."""
    shapes = [[(name, tuple(value.shape)) for name, value in one.state_dict().items()] for one in (plain, student)]
    if cost(plain) != cost(student) or shapes[0] != shapes[1]:
        raise SystemExit(f"The two must cost the same; the plain network: {cost(plain)}; the student: {cost(student)}.")
    if all(torch.equal(a, b) for a, b in zip(plain.parameters(), student.parameters(), strict=True)):
        raise SystemExit("The teacher must have changed the student; its weights are those of the plain network.")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--backbone", default="mobilenetv2_100")
    arguments.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    arguments.add_argument("--batch", type=int, default=8, help="images described at once")
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--steps", type=int, default=6, help="steps of training that are timed, after one that is not")
    given = arguments.parse_args()

    height, width = given.size
    random = np.random.default_rng(0)
    plain = PlaceModel(ModelSettings(backbone=given.backbone, height=height, width=width), seed=0)
    student = copy.deepcopy(plain)
    guide, pairs = made_guide(plain.dim, random)
    guide.attach(student)
    pixels = torch.from_numpy(random.integers(0, 256, (IMAGES, 3, height, width), dtype=np.uint8))
    alone, guided = in_turns([Learner(plain, pixels, pairs, None), Learner(student, pixels, pairs, guide)], given.steps)
    check_same(plain, student)

    asked = pixels[: given.batch]
    theirs, ours = in_turns([lambda: plain.describe_pixels(asked), lambda: student.describe_pixels(asked)], given.rounds)
    print(f"{given.backbone}, {height} x {width}, batches of {given.batch}, {torch.get_num_threads()} threads, {given.rounds} rounds")
    print(f"both: {cost(student)}")
    for name, seconds in (("plain", theirs), ("distilled", ours)):
        print(f"{name:<10} {1000 * float(np.median(seconds)) / given.batch:8.2f} ms an image")
    ratio, step = (float(np.median(np.divide(a, b))) for a, b in ((ours, theirs), (guided, alone)))
    print(f"ratio {ratio:.3f} (goal {GOAL[0]} to {GOAL[1]}); a guided step of training takes {step:.2f} of a plain one")


if __name__ == "__main__":
    main()
