"""The chain by hand, in Python: read, label, describe, whiten, search, score.

covis world town --layout 7scenes --preset tiny
python examples/from_python.py town
"""

from __future__ import annotations

import sys

import covis
from covis.models.place import PlaceModel
from covis.settings import ModelSettings


def main(folder: str) -> None:
    scene, *_ = covis.read("7scenes", folder, split="test")
    labels = covis.label_by_surface(scene.queries, scene.database, reach=60.0, relative_tolerance=0.05, step=2)
    print(labels.summary())

    model = PlaceModel(ModelSettings(backbone="resnet18", height=48, width=64), seed=0)  # random weights; covis.load(...) for trained ones
    database, queries = covis.extract(model, scene.database), covis.extract(model, scene.queries)
    whiten = covis.fit_whitening(database, dim=8)
    found = covis.index(whiten(database)).search(whiten(queries), k=25)
    print(covis.evaluate(found, scene, labels=labels, protocol="graded/0.5", descriptors=[(whiten(queries), whiten(database))]))


if __name__ == "__main__":
    main(sys.argv[1])
