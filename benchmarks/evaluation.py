"""Scores of all 11,120 queries of MSLS val, 25 predictions each: covis against the official script's functions as plain loops.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py

Two generated cities of the real sizes, one prediction file, the protocol msls-val/official with every query asked. The loops
are the script's: Python over queries, k and ranks, names as text in numpy's arrays and in lists; the positives of a query by
brute force, numpy over the database. Its loops over the metrics are timed once more over Python's lists and sets, which suit
them better. Times are of the processor (`time.process_time`), the least of --runs runs. The script has no intervals; covis is
timed without them and with them. Both must give the same numbers.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.spatial import cKDTree

from covis.evaluation import evaluate
from covis.hits import hits
from covis.images import Images, Scene
from covis.metrics import METRICS
from covis.predictions import Predictions, Side, key
from covis.protocols import protocol
from covis.rankings import Rankings
from covis.scores import Scores
from covis.truths import Truth, truth

CITIES = (("cph", 6595, 12601, 45, (340_000.0, 6_170_000.0)), ("sf", 4525, 6315, 0, (550_000.0, 4_180_000.0)))
"""Name, queries, database images, panoramas among them, and the corner in UTM metres."""
STREET, STEP, APART = 200, 5.2, 100.0
"""Images in a street's drive, metres between two of them, metres between two streets: 25 m reach about ten images."""
PREDICTED = 25
HARD, HARD_BEHIND = 0.3, 9.0
"""The share of queries whose near images come late, and by how much: wrong ones are spread over 25."""
RULE = protocol("msls-val/official")
SAMPLES = 1000
GOAL_SECONDS, GOAL_RATIO = 1.0, 20
ROUNDING = 1e-14

T = TypeVar("T")


# The data.


def drive(count: int, *, length: int, streets: int, random: np.random.Generator) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Drives of so many images each along parallel streets: (n, 2) metres, sequences, frame numbers."""
    number, frame = np.divmod(np.arange(count), length)
    street = random.permutation(max(streets, number[-1] + 1)) % streets
    begin = random.integers(0, STREET - length + 1, size=number[-1] + 1)
    along = (begin[number] + frame) * STEP
    xy = np.column_stack([along, street[number] * APART]) + random.normal(0, 2, (count, 2))
    return xy, [f"drive{one}" for one in number], frame


def make_city(name: str, sizes: Sequence[int], corner: Sequence[float], random: np.random.Generator) -> Scene:
    """Database drives through every street, shorter drives of queries through the same ones."""
    queries, database, panoramas = sizes
    streets = -(-database // STREET)
    sides = []
    for side, count, length, round_views in (("database", database, STREET, panoramas), ("query", queries, 60, 0)):
        xy, sequence, frame = drive(count, length=length, streets=streets, random=random)
        names = [base64.urlsafe_b64encode(random.bytes(18))[:22].decode() for _ in range(count)]
        panorama = np.zeros(count, dtype=bool)
        panorama[random.choice(count, round_views, replace=False)] = True
        columns = {
            "xy": xy + corner,
            "sequence": sequence,
            "frame": frame,
            "flags": {"all": np.ones(count, dtype=bool), "panorama": panorama},
        }
        sides.append(Images("msls", [f"train_val/{name}/{side}/images/{one}.jpg" for one in names], **columns))
    return Scene(name, "val", *sides)


def predict(scenes: Sequence[Scene], path: Path, random: np.random.Generator) -> None:
    """A prediction text: near images mostly before far ones, no image twice in a line, lines in any order."""
    lines = []
    for scene in scenes:
        count = len(scene.queries)
        near = cKDTree(scene.database.xy).query(scene.queries.xy, k=10)[1]
        far = random.integers(len(scene.database), size=(count, 2 * PREDICTED))
        place = np.hstack([random.exponential(3, size=near.shape), random.exponential(25, size=far.shape)])
        place[random.random(count) < HARD, : near.shape[1]] += HARD_BEHIND
        ordered = np.take_along_axis(np.hstack([near, far]), np.argsort(place, axis=1), axis=1).tolist()
        keys = list(map(key, scene.database.names))
        for query, rows in zip(scene.queries.names, ordered, strict=True):
            lines.append(" ".join([key(query), *(keys[row] for row in list(dict.fromkeys(rows))[:PREDICTED])]))
    path.write_text("\n".join(lines[line] for line in random.permutation(len(lines))) + "\n", encoding="utf-8")


# The script, as the plain loops that it is.


def loop_read(path: Path) -> np.ndarray:
    return np.loadtxt(path, dtype=str, ndmin=2)


def loop_truth(scenes: Sequence[Scene]) -> tuple[list[str], list[list[str]]]:
    """The keys of the queries that have a positive, and the keys of each one's positives."""
    queries, positives = [], []
    for scene in scenes:
        kept = np.flatnonzero(~scene.database.flags["panorama"])
        there, names = scene.database.xy[kept], [key(scene.database.names[row]) for row in kept]
        for name, here in zip(scene.queries.names, scene.queries.xy, strict=True):
            near = np.flatnonzero(((there - here) ** 2).sum(axis=1) <= RULE.threshold**2)
            if near.size:
                queries.append(key(name))
                positives.append([names[row] for row in near])
    return queries, positives


def loop_order(table: np.ndarray, queries: list[str]) -> np.ndarray:
    """The names found for each query: every query must have a line, lines of others are dropped, lines are put in order."""
    for query in queries:
        if query not in table[:, 0]:
            raise SystemExit(f"The file must have a line for {query}.")
    table = np.array([line for line in table if line[0] in queries])
    return table[[np.where(table[:, 0] == query)[0][0] for query in queries], 1:]


def loop_metrics(found: Any, positives: Sequence[Any], any_near: Callable[[Any, Any], bool]) -> dict[str, float]:
    """recall@k, then mAP@k: a pass over the queries for all k, then one for each k."""
    hit = np.zeros(len(RULE.ks))
    for names, near in zip(found, positives, strict=True):
        for place, k in enumerate(RULE.ks):
            if any_near(names[:k], near):
                hit[place:] += 1
                break
    recalls = {f"recall@{k}": hit[place] / len(found) for place, k in enumerate(RULE.ks)}
    return recalls | {
        f"mAP@{k}": np.mean([loop_precision(names, near, k) for names, near in zip(found, positives, strict=True)]) for k in RULE.ks
    }


def loop_precision(names: Any, near: Any, k: int) -> float:
    """AP@k of one query."""
    total, correct = 0.0, 0
    for rank, name in enumerate(names[:k]):
        if name in near and name not in names[:rank]:
            correct += 1
            total += correct / (rank + 1)
    return total / min(len(near), k)


def in_arrays(names: np.ndarray, near: list[str]) -> bool:
    return bool(np.isin(names, near).any())


def in_sets(names: list[str], near: set[str]) -> bool:
    return any(name in near for name in names)


# covis.


def covis_names(file: Predictions, truths: Sequence[Truth]) -> list[Rankings]:
    return file.by_scene([Side(one.query_names, one.database_names, one.answerable) for one in truths], unknown="strict_file")


def covis_metrics(ranked: Sequence[Rankings], truths: Sequence[Truth]) -> dict[str, float]:
    views = [
        hits(found, one.positives, excluded=one.excluded, searched=one.searched, short=RULE.short)
        for found, one in zip(ranked, truths, strict=True)
    ]
    return {
        f"{name}@{k}": float(np.nanmean(np.concatenate([METRICS[name](view, k=k) for view in views])))
        for name in ("recall", "mAP")
        for k in RULE.ks
    }


def least(work: Callable[[], T], runs: int) -> tuple[T, float]:
    """What it gives, and the least processor seconds of so many runs."""
    times = []
    for _ in range(runs):
        begun = time.process_time()
        made = work()
        times.append(time.process_time() - begun)
    return made, min(times)


def time_covis(scenes: Sequence[Scene], path: Path, runs: int) -> tuple[dict[str, float], Scores, list[dict[str, float]]]:
    """Seconds by part, the scores with intervals, and the numbers of every way to them."""
    seconds = {}
    file, seconds["read"] = least(lambda: Predictions.read(path), runs)
    truths, seconds["truth"] = least(lambda: [truth(scene, RULE) for scene in scenes], runs)
    ranked, seconds["names"] = least(lambda: covis_names(file, truths), runs)
    found, seconds["metrics"] = least(lambda: covis_metrics(ranked, truths), runs)
    plain, seconds["whole"] = least(lambda: evaluate(Predictions.read(path), scenes, protocol=RULE, samples=1), runs)
    scores, seconds["with intervals"] = least(lambda: evaluate(Predictions.read(path), scenes, protocol=RULE, samples=SAMPLES), runs)
    seconds["in sets"] = seconds["metrics"]
    return seconds, scores, [found, *({name: made.metrics[name].value for name in found} for made in (plain, scores))]


def time_loops(scenes: Sequence[Scene], path: Path, runs: int) -> tuple[dict[str, float], list[int], list[dict[str, float]]]:
    """Seconds by part, how many positives each counted query has, and the numbers of both ways to them."""
    seconds = {}
    table, seconds["read"] = least(lambda: loop_read(path), runs)
    (queries, positives), seconds["truth"] = least(lambda: loop_truth(scenes), runs)
    found, seconds["names"] = least(lambda: loop_order(table, queries), runs)
    numbers, seconds["metrics"] = least(lambda: loop_metrics(found, positives, in_arrays), runs)
    seconds["whole"] = seconds["with intervals"] = sum(seconds.values())
    listed, sets = found.tolist(), list(map(set, positives))
    same, seconds["in sets"] = least(lambda: loop_metrics(listed, sets, in_sets), runs)
    return seconds, list(map(len, positives)), [numbers, same]


def report(ours: dict[str, float], theirs: dict[str, float], scores: Scores) -> None:
    """The table, and whether the goals are reached."""
    rows = {
        "read": "reading the file",
        "truth": f"truth: positives within {RULE.threshold:g} m",
        "names": "names: checked, dropped, put in order",
        "metrics": "metrics alone: recall@k, mAP@k",
        "in sets": "  the same, loops over lists and sets",
        "whole": "whole: file to scores, without intervals",
        "with intervals": f"whole, with intervals ({scores.interval['count']} {scores.interval['unit']})",
    }
    print(f"  {'':<44}{'covis':>8}{'loops':>9}{'ratio':>8}")
    for part, what in rows.items():
        print(f"  {what:<44}{ours[part]:8.3f}{theirs[part]:9.3f}{theirs[part] / ours[part]:8.1f}")
    print(f"  {'intervals alone':<44}{ours['with intervals'] - ours['whole']:8.3f}  {SAMPLES:,} samples; the script has none")
    quick = ours["with intervals"] < GOAL_SECONDS
    ratio = min(theirs[part] / ours[part] for part in ("metrics", "whole"))
    print(f"  goal: whole, with intervals, below {GOAL_SECONDS:g} s: {'reached' if quick else 'missed'}")
    print(f"  goal: metrics alone, and whole without intervals, {GOAL_RATIO} times: {'reached' if ratio >= GOAL_RATIO else 'missed'}")


def check(numbers: Sequence[dict[str, float]]) -> None:
    """The same text to the script's three decimals; recall to the last bit, mAP but for the order of a sum."""
    first, *others = numbers
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in first.items()))
    printed = all(f"{other[name]:.3f}" == f"{value:.3f}" for other in others for name, value in first.items())
    recall, precision = (
        max(abs(other[name] - value) for other in others for name, value in first.items() if name.startswith(metric))
        for metric in ("recall", "mAP")
    )
    print(f"  equal in every printed digit: {'yes' if printed else 'no'}; largest difference: recall {recall:g}, mAP {precision:.1e}")
    if not printed or recall or precision > ROUNDING:
        raise SystemExit("covis and the loops must give the same numbers; they do not.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each part; the least time counts")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    scenes = [make_city(name, sizes, corner, random) for name, *sizes, corner in CITIES]
    with tempfile.TemporaryDirectory() as folder:
        predict(scenes, Path(folder) / "predictions.txt", random)
        ours, scores, our_numbers = time_covis(scenes, Path(folder) / "predictions.txt", arguments.runs)
        theirs, positives, their_numbers = time_loops(scenes, Path(folder) / "predictions.txt", arguments.runs)
    counted = f"{len(positives):,} counted, on average {np.mean(positives):.1f} positives"
    print(f"{len(scores.queries):,} queries x {PREDICTED} predictions ({counted}); processor seconds")
    report(ours, theirs, scores)
    check([*their_numbers, *our_numbers])


if __name__ == "__main__":
    main()
