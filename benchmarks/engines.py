"""Images described a second: covis' engines against a plain PyTorch loop written the way the reference of GCL extracts.

    python benchmarks/engines.py --images /path/to/photographs --threads 2

The plain loop decodes each image with Pillow and torchvision's transforms to a float tensor, in a DataLoader of four workers, and
passes batches through the network as torch stores them by default (NCHW, contiguous). "torch" and "onnx" are covis' two engines:
uint8 pixels, channels last, and ONNX Runtime. Each is timed alone, on pixels that are decoded already, and whole, from JPEG files to
descriptors; the plain loop's workers are started in the round that warms up. The ways take turns, round by round, so that noise hits all of
them; a ratio is the median over rounds. All three must give the same descriptors. The processor's peak is that of a 2048 x 2048
matrix product by numpy; a network's operations are counted by torch. Run it on a quiet machine. The export is not in the times; it
is printed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from covis.models.describers import describe
from covis.models.export import export_model
from covis.models.onnx_models import load_onnx
from covis.models.place import PlaceModel
from covis.pixels import decode_ahead
from covis.settings import ModelSettings

GOALS = {"resnet50": 2.0, "mobilenetv3_large_100": 4.0}
SUFFIXES = {".jpg", ".jpeg"}
WORKERS = 4

Way = Callable[[], np.ndarray]


class Files(Dataset[torch.Tensor]):
    """Float tensors, decoded and normalised one by one."""

    def __init__(self, paths: list[Path], settings: ModelSettings) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize((settings.height, settings.width)),
                transforms.ToTensor(),
                transforms.Normalize(settings.mean, settings.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def plain_network(model: PlaceModel) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same network as torch stores it by default, for floats."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format).eval()

    def described(floats: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.nn.functional.normalize(plain.aggregator(plain.backbone(floats)))

    return described


def photographs(folder: Path | None, count: int, into: Path) -> list[Path]:
    """JPEG files of the folder, or generated ones of 640 x 480 pixels."""
    if folder is not None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not found:
            raise SystemExit(f"{folder} holds no JPEG files.")
        return [found[place % len(found)] for place in range(count)]
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
        grain = random.integers(-12, 13, (480, 640, 3))
        picture = Image.fromarray(np.clip(np.asarray(coarse, dtype=np.int64) + grain, 0, 255).astype(np.uint8))
        paths.append(into / f"{number:04d}.jpg")
        picture.save(paths[-1], quality=90)
    return paths


def ways(model: PlaceModel, engine: object, paths: list[Path], batch: int) -> tuple[dict[str, Way], dict[str, Way]]:
    """What is timed: the network alone on decoded pixels, and the whole from files."""
    settings = model.settings
    plain = plain_network(model)
    files = Files(paths, settings)
    pixels = list(decode_ahead(paths, height=settings.height, width=settings.width, batch=batch))
    floats = [torch.stack([files[row] for row in range(start, min(start + batch, len(paths)))]) for start in range(0, len(paths), batch)]

    loader: DataLoader[torch.Tensor] = DataLoader(files, batch_size=batch, num_workers=WORKERS, persistent_workers=True)

    alone = {
        "plain loop": lambda: np.concatenate([plain(one).numpy() for one in floats]),
        "covis, torch": lambda: np.concatenate([model.describe_pixels(one) for one in pixels]),
        "covis, onnx": lambda: np.concatenate([engine.describe_pixels(one) for one in pixels]),
    }
    whole = {
        "plain loop": lambda: np.concatenate([plain(one).numpy() for one in loader]),
        "covis, torch": lambda: describe(model, paths, batch=batch),
        "covis, onnx": lambda: describe(engine, paths, batch=batch),
    }
    return alone, whole


def timed(all_ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one that warms up; all must give the same descriptors."""
    seconds: dict[str, list[float]] = {name: [] for name in all_ways}
    found: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, way in all_ways.items():
            begun = time.perf_counter()
            found[name] = way()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    first, *others = found.values()
    apart = max(float(np.abs(one - first).max()) for one in others)
    if apart > 1e-4:
        raise SystemExit(f"All must give the same descriptors; they differ by {apart:.1e}.")
    return seconds


def peak() -> float:
    """GFLOP/s of a 2048 x 2048 matrix product by numpy, whose library is the faster one on many processors; the best of five."""
    a, b = np.random.default_rng(0).random((2, 2048, 2048), dtype=np.float32)
    a @ b
    best = min(_seconds(lambda: a @ b) for _ in range(5))
    return 2 * 2048**3 / best / 1e9


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def operations(model: PlaceModel) -> float:
    """GFLOP of one image: two a multiplication with its addition."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros((1, 3, model.height, model.width), dtype=torch.uint8))
    return counter.get_total_flops() / 1e9


def shown(title: str, seconds: dict[str, list[float]], count: int, each: float | None, most: float) -> float:
    """Print a line a way; the median ratio of the ONNX engine to the plain loop."""
    first = seconds["plain loop"]
    ratio = 1.0
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, times, strict=True))
        rate = count / statistics.median(times)
        share = "" if each is None else f" {each * rate:7.0f} GFLOP/s {each * rate / most:5.0%} of the peak"
        print(f"  {title:<6} {name:<13} {rate:8.2f} images/s {ratio:6.2f} times{share}")
    return ratio


def compare(name: str, given: argparse.Namespace, paths: list[Path], most: float, folder: Path) -> None:
    height, width = given.size
    model = PlaceModel(ModelSettings(backbone=name, aggregator="gem", height=height, width=width), seed=0).eval()
    begun = time.perf_counter()
    export_model(model, folder / f"{name}.onnx", fixed=True)
    exported = time.perf_counter() - begun
    engine = load_onnx(folder / f"{name}.onnx", threads=given.threads)
    each = operations(model)
    print(f"{name}, {height} x {width}, GeM, {each:.1f} GFLOP an image; exported in {exported:.0f} s")
    alone, whole = ways(model, engine, paths, given.batch)
    ratio = shown("alone", timed(alone, given.rounds), len(paths), each, most)
    shown("whole", timed(whole, given.rounds), len(paths), None, most)
    if name in GOALS:
        print(f"  the network alone: {ratio:.2f} times the plain loop (goal {GOALS[name]:g})")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--images", type=Path, help="a folder of JPEG files; absent: generated ones of 640 x 480")
    arguments.add_argument("--count", type=int, default=16, help="images a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    arguments.add_argument("--backbones", nargs="+", default=list(GOALS))
    given = arguments.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores, as the reference has them
    torch.set_num_threads(given.threads)
    most = peak()
    print(
        f"{given.threads} threads, batches of {given.batch}, {given.count} images a round, {given.rounds} rounds; peak {most:.0f} GFLOP/s"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(given.images, given.count, Path(folder))
        for name in given.backbones:
            compare(name, given, paths, most, Path(folder))


if __name__ == "__main__":
    main()
