"""covis learns, uses and measures how much two photographs see of the same place.

The names below are imported when they are first used, so that `import covis` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Comparison": "covis.comparison",
    "Descriptors": "covis.descriptors",
    "Images": "covis.images",
    "Labels": "covis.labels",
    "Pairs": "covis.pairs",
    "Poses": "covis.localisation",
    "Predictions": "covis.predictions",
    "Protocol": "covis.protocols",
    "Rankings": "covis.rankings",
    "Scene": "covis.images",
    "Scores": "covis.scores",
    "attend": "covis.attention",
    "build_town": "covis.town",
    "check": "covis.datasets",
    "check_submission": "covis.submissions",
    "compare": "covis.comparison",
    "describe_scenes": "covis.searching",
    "distill": "covis.chain",
    "evaluate": "covis.evaluation",
    "export_model": "covis.models.export",
    "extract": "covis.extraction",
    "fit": "covis.training.fitting",
    "fit_whitening": "covis.whitening",
    "index": "covis.indexes",
    "join": "covis.truths",
    "label_by_distance": "covis.labelling",
    "label_by_surface": "covis.labelling",
    "label_by_view": "covis.labelling",
    "load": "covis.models.checkpoints",
    "load_index": "covis.indexes",
    "localise": "covis.localisation",
    "open_model": "covis.models.opening",
    "protocol": "covis.protocols",
    "published_results": "covis.published",
    "read": "covis.datasets",
    "read_vectors": "covis.vector_files",
    "rerank": "covis.reranking",
    "retrieval_sheet": "covis.reports.sheets",
    "run": "covis.chain",
    "save": "covis.models.checkpoints",
    "score_poses": "covis.localisation",
    "search_scenes": "covis.searching",
    "segment": "covis.segmentation",
    "train": "covis.chain",
    "write": "covis.datasets",
    "write_geojson": "covis.reports.geojson",
    "write_submission": "covis.submissions",
    "write_town": "covis.town",
}
"""The public names and where they live."""

__all__ = sorted([*_WHERE, "__version__"])  # noqa: PLE0605 - a list, made from the table above


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"covis has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
