"""The public surface, frozen; and what importing it costs."""

import importlib
import subprocess
import sys
import warnings

import pytest

import covis

PUBLIC = [
    "Comparison",
    "Descriptors",
    "Images",
    "Labels",
    "Pairs",
    "Poses",
    "Predictions",
    "Protocol",
"Rankings",
    "Scene",
    "Scores",
    "__version__",
    "attend",
    "build_town",
    "check",
    "check_submission",
    "compare",
    "describe_scenes",
    "distill",
    "evaluate",
    "export_model",
    "extract",
    "fit",
    "fit_whitening",
    "index",
    "join",
    "label_by_distance",
    "label_by_surface",
    "label_by_view",
    "load",
    "load_index",
    "localise",
    "open_model",
    "protocol",
    "published_results",
    "read",
    "read_vectors",
    "rerank",
    "retrieval_sheet",
    "run",
    "save",
    "score_poses",
    "search_scenes",
    "segment",
    "train",
    "write",
    "write_geojson",
    "write_submission",
    "write_town",
]  # fmt: skip
DATA_HALF = [
    "comparison", "config", "coordinates", "curves", "datasets", "datasets.checks", "datasets.drafts", "datasets.gcl", "datasets.gcl.h5",
    "datasets.msls", "datasets.photographs", "datasets.seven_scenes", "datasets.tables", "datasets.utm_names", "descriptors", "errors",
    "evaluation", "files", "geometry", "hits", "images", "intervals", "labelling", "labels", "localisation", "lookup", "metrics",
    "neighbours", "pairs", "predictions", "protocols", "published", "rankings", "rasters", "reports", "reports.geojson", "reports.lists",
    "reports.sheets", "reports.tables", "scores", "sectors", "sequences", "submissions", "surfaces", "town", "truths", "whitening",
]  # fmt: skip


def test_the_public_names_are_these():
    assert covis.__all__ == PUBLIC
    assert dir(covis) == PUBLIC


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_is_there_and_says_what_it_is(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries deprecate when they are first imported
        value = getattr(covis, name)
    assert value.__doc__
    assert value.__name__ == name
    assert not isinstance(value, type(covis)), f"covis.{name} must not be a module"


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match=r"no 'evaluat'.*evaluate"):
        _ = covis.evaluat
    assert not hasattr(covis, "anything")


def loaded_after(statement):
    """The modules that are loaded after a statement in a fresh interpreter."""
    command = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_covis_costs_nothing():
    assert not loaded_after("import covis") & {"numpy", "scipy", "polars", "PIL", "torch", "faiss", "typer"}


def test_the_data_half_needs_no_learning_library():
    loaded = loaded_after("import " + ", ".join(f"covis.{name}" for name in DATA_HALF))
    assert {f"covis.{name}" for name in DATA_HALF} <= loaded
    assert not loaded & {"torch", "matplotlib", "faiss", "lightning", "timm", "torchvision", "typer"}


def test_a_submodule_never_shadows_a_public_name():
    for name in PUBLIC:
        try:
            importlib.import_module(f"covis.{name}")
        except ImportError:
            continue
        pytest.fail(f"covis.{name} is a module and a public name")
