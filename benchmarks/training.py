"""Training pairs a second: covis against a plain PyTorch loop written the way the reference of GCL trains.

    python benchmarks/training.py --images /path/to/redkitchen

The plain loop decodes both images of each pair with Pillow in a DataLoader of four workers, passes the two sides one after
the other in micro-batches of two pairs, adds up the gradients of 32 pairs, and takes a step of SGD. covis decodes each image
once, passes both sides together, channels last, in micro-batches of --micro pairs. Both draw the same pairs from the same labels,
start from the same weights and keep BatchNorm's running statistics, so that they must end with the same weights: that is checked.
Times are by the clock, per step, the first steps left out; run it on a quiet machine. The processor's peak is that of a
2048 x 2048 matrix product; a step's operations are counted by torch, three times those of the forward pass.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import sparse
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from covis.images import Images, Scene
from covis.labels import Labels, self_pairs
from covis.models.place import PlaceModel
from covis.pairs import SAMPLERS, Pairs
from covis.settings import ModelSettings, TrainSettings
from covis.training.fitting import fit

GOAL = 2.0
MICRO = 2  # the reference's
MARGIN = 0.5
SUFFIXES = {".jpg", ".jpeg", ".png"}


class PairFiles(Dataset[tuple[torch.Tensor, torch.Tensor, float]]):
    """Both images of each pair, decoded and resized anew each time."""

    def __init__(self, images: Images, pairs: list[Pairs], settings: ModelSettings) -> None:
        self.images = images
        self.query, self.database = (np.concatenate([getattr(one, name) for one in pairs]) for name in ("query", "database"))
        self.similarity = np.concatenate([one.similarity for one in pairs])
        self.transform = transforms.Compose(
            [
                transforms.Resize((settings.height, settings.width)),
                transforms.ToTensor(),
                transforms.Normalize(settings.mean, settings.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.query)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, float]:
        first, second = (self._read(int(side[index])) for side in (self.query, self.database))
        return first, second, float(self.similarity[index])

    def _read(self, row: int) -> torch.Tensor:
        with Image.open(self.images.path(row)) as picture:
            return self.transform(picture.convert("RGB"))


def plain_loop(model: PlaceModel, images: Images, batches: list[Pairs], settings: TrainSettings) -> list[float]:
    """Train in place; the moment at the end of each step, after the moment of the start."""
    model.to(memory_format=torch.contiguous_format)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
    loader = DataLoader(PairFiles(images, batches, model.settings), batch_size=settings.batch, num_workers=4)
    moments = [time.perf_counter()]
    optimizer.zero_grad()
    for queries, database, similarity in loader:
        parts = settings.batch // MICRO
        for part in range(parts):
            rows = slice(part * MICRO, (part + 1) * MICRO)
            a, b = (F.normalize(model.aggregator(model.backbone(side[rows]))) for side in (queries, database))
            distance, psi = F.pairwise_distance(a, b), similarity[rows].float()
            loss = psi * 0.5 * distance.square() + (1 - psi) * 0.5 * (MARGIN - distance).clamp(min=0).square()
            (loss.mean() / parts).backward()
        optimizer.step()
        optimizer.zero_grad()
        moments.append(time.perf_counter())
    return moments


def training_set(folder: Path, count: int, seed: int) -> tuple[Scene, Labels]:
    """Real photographs under random graded labels: what is timed does not depend on what is similar."""
    names = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and "depth" not in path.name
    )
    if not names:
        raise SystemExit(f"{folder} holds no photographs.")
    images = Images(folder, names[:: max(1, len(names) // count)][:count])
    random = np.random.default_rng(seed)
    similarity = random.choice([0.0, 0.3, 0.8], (len(images), len(images)), p=[0.8, 0.1, 0.1])
    labels = Labels(sparse.csr_array(similarity), images.names, images.names, rule="at random", excluded=self_pairs(images, images))
    return Scene("photographs", "train", images, images), labels


def covis_seconds(
    model: PlaceModel, scene: Scene, labels: Labels, settings: Callable[[int], TrainSettings], warm: int, steps: int
) -> tuple[float, PlaceModel]:
    """Seconds a step, and the trained model: a long run less a short one, both from nothing."""
    seconds = []
    for total in (warm, warm + steps):
        with tempfile.TemporaryDirectory() as out:
            begun = time.perf_counter()
            trained = fit(model, [scene], [labels], settings(total), out=Path(out) / "run", progress=False)
            seconds.append(time.perf_counter() - begun)
    return (seconds[1] - seconds[0]) / steps, trained


def peak() -> float:
    """GFLOP/s of a 2048 x 2048 matrix product on the threads that torch uses."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    torch.mm(a, b)
    begun = time.perf_counter()
    for _ in range(5):
        torch.mm(a, b)
    return 5 * 2 * 2048**3 / (time.perf_counter() - begun) / 1e9


def operations(model: PlaceModel) -> float:
    """GFLOP of forward and backward of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros((1, 3, model.settings.height, model.settings.width), dtype=torch.uint8))
    return 3 * counter.get_total_flops() / 1e9


def drawn(labels: Labels, settings: TrainSettings) -> Iterator[Pairs]:
    """The batches that training draws."""
    return iter(SAMPLERS[settings.sampler]([labels], batch=settings.batch, seed=settings.seed, **settings.sampler_options))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default = Path(os.environ.get("COVIS_DATA", ".")) / "7scenes" / "redkitchen"
    arguments.add_argument("--images", type=Path, default=default, help="a folder of photographs")
    arguments.add_argument("--count", type=int, default=64, help="photographs")
    arguments.add_argument("--backbone", default="resnet18")
    arguments.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("HEIGHT", "WIDTH"))
    arguments.add_argument("--micro", type=int, default=8, help="pairs that covis passes at once")
    arguments.add_argument("--steps", type=int, default=4, help="steps that are timed")
    given = arguments.parse_args()

    scene, labels = training_set(given.images, given.count, seed=0)
    height, width = given.size
    model = PlaceModel(ModelSettings(backbone=given.backbone, height=height, width=width), seed=0)
    warm = 2

    def settings(steps: int) -> TrainSettings:
        return TrainSettings(
            steps=steps,
            batch=32,
            micro_batch=given.micro,
            optimizer="sgd",
            learning_rate=0.01,
            schedule="constant",
            bn_mode="eval",
            checkpoint_every=10_000,
            loss_options={"margin": MARGIN},
        )

    whole = settings(warm + given.steps)
    source = drawn(labels, whole)
    batches = [next(source) for _ in range(whole.steps)]
    plain = copy.deepcopy(model)
    moments = plain_loop(plain, scene.queries, batches, whole)
    theirs = (moments[-1] - moments[warm]) / given.steps
    ours, trained = covis_seconds(model, scene, labels, settings, warm, given.steps)

    states = plain.state_dict(), trained.state_dict()
    moved = max(float((states[0][name] - value).abs().max()) for name, value in model.state_dict().items() if value.is_floating_point())
    apart = max(float((states[0][name] - value).abs().max()) for name, value in states[1].items() if value.is_floating_point())
    if apart > 0.01 * moved:
        raise SystemExit(f"The two must learn the same; weights moved by {moved:.2e} and differ by {apart:.2e}.")
    most, cost = peak(), operations(model) * 2 * whole.batch
    print(
        f"{given.backbone}, {height} x {width}, GeM, batches of {whole.batch} pairs, {torch.get_num_threads()} threads, {given.steps} steps"
    )
    for name, seconds in (("plain loop", theirs), ("covis", ours)):
        print(f"{name:<12} {whole.batch / seconds:8.2f} pairs/s   {cost / seconds:7.0f} GFLOP/s   {cost / seconds / most:5.0%} of the peak")
    print(f"ratio {theirs / ours:.2f} (goal {GOAL}); weights moved by {moved:.1e}, differ by {apart:.1e}; peak {most:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
