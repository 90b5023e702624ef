"""The official example prediction files of MSLS, scored against a generated ground truth that knows their keys.

    python benchmarks/msls_predictions.py --data /path/to/mapillary_sls/files

The four files (image to image, sequence to image and so on) name images of Zurich whose positions are not in them. This
writes a city in the layout of MSLS that holds just those keys, in sequences as the files have them, at drawn positions
(seeded), and scores each file under its protocol: it shows that the files are read, not how good anything is.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
import time
import warnings
from pathlib import Path

import covis
from covis.errors import CovisWarning

TASKS = {"im2im": "", "seq2im": "/seq2im-3", "im2seq": "/im2seq-3", "seq2seq": "/seq2seq-3"}
TABLES = {
    "postprocessed.csv": ("key", "easting", "northing", "unique_cluster", "control_panel", "night", "view_direction"),
    "seq_info.csv": ("key", "sequence_key", "frame_number"),
    "subtask_index.csv": ("key", "all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with example_msls_*_prediction.csv")
    parser.add_argument("--seed", type=int, default=0, help="of the positions")
    arguments = parser.parse_args()
    print(f"{'task':<8} {'lines':>6} {'counted':>8} {'recall@1':>9} {'recall@5':>9} {'mAP@5':>7} {'seconds':>8}")
    for task, suffix in TASKS.items():
        file = arguments.data / f"example_msls_{task}_prediction.csv"
        with tempfile.TemporaryDirectory() as folder:
            write_city(Path(folder) / "train_val" / "zurich", file, random.Random(arguments.seed))
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CovisWarning)
                scenes = covis.read("msls", folder, split="val", cities="zurich", missing="ignore")
                predictions = covis.Predictions.read(file)
                scores = covis.evaluate(predictions, scenes, protocol=f"msls-val/official{suffix}")
            taken = time.perf_counter() - start
        one, five, mean = (scores.metrics[name] for name in ("recall@1", "recall@5", "mAP@5"))
        print(f"{task:<8} {len(predictions):>6} {one.n:>8} {one.value:>9.4f} {five.value:>9.4f} {mean.value:>7.4f} {taken:>8.2f}")


def write_city(folder: Path, file: Path, draw: random.Random) -> None:
    """A city that holds every key of a prediction file: the frames of a sequence follow one another, 3 m apart."""
    lines = [line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")]
    for side, words in {"query": [line[0] for line in lines], "database": [word for line in lines for word in line[1:]]}.items():
        frames: dict[str, tuple[int, int]] = {}
        for sequence, word in enumerate(dict.fromkeys(words)):
            for frame, key in enumerate(word.split(",")):
                frames.setdefault(key, (sequence, frame))
        starts = [(465_000 + 30 * draw.randrange(40), 5_247_000 + draw.random() * 20) for _ in words]
        (folder / side).mkdir(parents=True)
        rows = {
            "postprocessed.csv": [(starts[s][0] + 3 * f, starts[s][1], 0, False, False, "Forward") for s, f in frames.values()],
            "seq_info.csv": [(f"sequence-{s}", f) for s, f in frames.values()],
            "subtask_index.csv": [(True, *[False] * 6) for _ in frames],
        }
        for name, header in TABLES.items():
            with (folder / side / name).open("w", newline="") as stream:
                writer = csv.writer(stream)
                writer.writerow(["", *header])
                writer.writerows([row, key, *values] for row, (key, values) in enumerate(zip(frames, rows[name], strict=True)))


if __name__ == "__main__":
    main()
