"""Two-stage search: recall of a global descriptor alone and re-ranked by local features, and the seconds a query that it costs.

    OMP_NUM_THREADS=1 python benchmarks/reranking.py --data /path/to/campus --recipe gcl-campus --weights FILE --protocol radius/10

The global descriptor is the recipe's network with the given weights of its backbone, not trained. The search is exact. Seconds
are means of one thread; --workers 1 measures them without others beside. Features are computed once and used for all rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from covis.config import load_recipe, parse_options
from covis.datasets import guess_layout, read
from covis.datasets.label_files import load_labels
from covis.extraction import extract
from covis.images import Scene
from covis.indexes import index
from covis.models.place import PlaceModel
from covis.protocols import protocol
from covis.reranking import rerank
from covis.reranking.gains import gain, judge


def limited(scene: Scene, limit: int) -> Scene:
    """The scene with so many queries, evenly spread; 0: all."""
    if not 0 < limit < len(scene.queries):
        return scene
    rows = np.linspace(0, len(scene.queries) - 1, limit).round().astype(int)
    return dataclasses.replace(scene, queries=scene.queries.select(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set, as covis reads it")
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--split", default="test")
    parser.add_argument("--read", action="append", default=[], metavar="KEY=VALUE", help="an option of the reader")
    parser.add_argument("--recipe", default="gcl-campus", help="whose network is the global descriptor")
    parser.add_argument("--weights", type=Path, help="of its backbone; without, they are random")
    parser.add_argument("--matcher", default="rootsift")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="of the matcher and of the verification")
    parser.add_argument("--models", default="fundamental,homography", help="the geometries, a row each")
    parser.add_argument("--minimum", default="0", help="least inliers, a row each: 0,15")
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--limit", type=int, default=0, help="queries, evenly spread; 0: all")
    parser.add_argument("--labels", type=Path, help="graded labels, for a protocol by similarity; with all queries")
    parser.add_argument("--protocol", default="radius/25", help="one or more, by commas")
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    layout = guess_layout(given.data) if given.layout == "auto" else given.layout
    scenes = [limited(scene, given.limit) for scene in read(layout, given.data, split=given.split, **parse_options(given.read))]
    labels = None if given.labels is None else load_labels(given.labels, scenes)
    network = PlaceModel(load_recipe(given.recipe).model, weights=given.weights)
    begun = time.perf_counter()
    described = [(extract(network, scene.queries), extract(network, scene.database)) for scene in scenes]
    seconds = (time.perf_counter() - begun) / sum(len(scene.queries) + len(scene.database) for scene in scenes)
    found = [index(database).search(queries, k=min(max(given.top, 10), len(database))) for queries, database in described]
    print(f"{given.data.name}: {', '.join(map(repr, scenes))}; one image described in {seconds:.3f} s")
    with tempfile.TemporaryDirectory() as cache:
        for model in given.models.split(","):
            for minimum in map(int, given.minimum.split(",")):
                options = {**parse_options(given.option), "model": model, "minimum": minimum}
                after = [
                    rerank(
                        one, scene, matcher=given.matcher, top=given.top, options=options, cache=cache, workers=given.workers, progress=True
                    )
                    for one, scene in zip(found, scenes, strict=True)
                ]
                print(f"\n{given.matcher}, {model}, minimum {after[0].history['reranked']['ransac']['minimum'] or 'of the model'}")
                for name in given.protocol.split(","):
                    scores, rule = judge(found, scenes, protocol=protocol(name), labels=labels)
                    print(gain(scores, after, scenes, protocol=rule, labels=labels), flush=True)


if __name__ == "__main__":
    main()
