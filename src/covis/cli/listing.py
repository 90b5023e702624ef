"""covis ls: what can be named, the benchmarks of the field, and the results that others published."""

from __future__ import annotations

import importlib
import shutil
import sys
from typing import Annotated, Any

import typer

from covis.cli.shell import AsJson, app, print_json
from covis.errors import InvalidInputError

_TABLES: dict[str, tuple[str, str]] = {
    "aggregators": ("covis.models.aggregators", "AGGREGATORS"),
    "backbones": ("covis.models.backbones", "BACKBONES"),
    "clusterings": ("covis.semantics.clusters", "CLUSTERINGS"),
    "conditions": ("covis.town", "CONDITIONS"),
    "datasets": ("covis.datasets.catalogue", "DATASETS"),
    "distillations": ("covis.structure.distillation", "DISTILLATIONS"),
    "indexes": ("covis.indexes", "INDEXES"),
    "layouts": ("covis.datasets", "READERS"),
    "losses": ("covis.losses", "LOSSES"),
    "matchers": ("covis.reranking", "MATCHERS"),
    "metrics": ("covis.metrics", "METRICS"),
    "numberings": ("covis.semantics.numberings", "NUMBERINGS"),
    "pose-protocols": ("covis.localisation", "POSE_PROTOCOLS"),
    "poses": ("covis.datasets.pose_orders", "FORMS"),
    "protocols": ("covis.protocols", "PROTOCOLS"),
    "ranks": ("covis.structure.ranks", "RANKS"),
    "recipes": ("covis.config", "recipe_names"),
    "results": ("covis.published", "published_results"),
    "rules": ("covis.labelling", "LABEL_RULES"),
    "samplers": ("covis.pairs", "SAMPLERS"),
    "studies": ("covis.studies", "study_names"),
    "weightings": ("covis.structure.weights", "WEIGHTINGS"),
    "worlds": ("covis.town", "SURVEYS"),
}
"""What can be listed -> where it is."""
_WIDE = 200
"""Characters of a line where the output is no terminal."""


@app.command()
def ls(
    what: Annotated[str, typer.Argument(help=", ".join(_TABLES) + ".", show_default=False)],
    dataset: Annotated[
        str | None, typer.Option(help="With results: one data set (msls), or one of its splits (msls-val).", show_default=False)
    ] = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """What can be named: recipes, protocols, layouts, rules and so on; benchmarks (datasets), published results (results)."""
    from covis.lookup import resolve
    from covis.reports.lists import as_markdown, as_notes, as_text, linked, sourced

    resolve(what, _TABLES, what="list")
    if as_json and markdown:
        raise InvalidInputError("A list is printed as JSON or as Markdown; got --json and --markdown. Leave one out.")
    if dataset is not None and what != "results":
        raise InvalidInputError(f"--dataset goes with covis ls results; got it with {what!r}.")
    columns, rows, records = _listed(what, dataset)
    if as_json:
        print_json(records)
    elif markdown:
        typer.echo(as_markdown(*(linked(columns, rows) if what == "results" else (columns, rows))))
    elif what in ("datasets", "results"):
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE
        columns, rows, notes = sourced(columns, rows) if what == "results" else (columns, rows, {})
        typer.echo(as_text(columns, rows, width=width))
        if notes:
            typer.echo(f"\n{as_notes(notes, width=width)}")
    else:
        width = max(16, *(len(row[0]) for row in rows))
        for name, *said in rows:
            typer.echo("\n".join(f"{'' if number else name:<{width}} {line}".rstrip() for number, line in enumerate(said[0].split("\n"))))


def _listed(what: str, dataset: str | None) -> tuple[tuple[str, ...], list[tuple[str, ...]], dict[str, Any]]:
    """The columns, the rows, and the same as plain values."""
    if what == "datasets":
        from covis.datasets.catalogue import DATASETS
        from covis.reports.lists import DATASET_COLUMNS, dataset_records, dataset_rows

        return DATASET_COLUMNS, dataset_rows(DATASETS), dataset_records(DATASETS)
    if what == "results":
        from covis.published import published_results
        from covis.reports.lists import RESULT_COLUMNS, result_rows

        results = published_results(dataset)
        return RESULT_COLUMNS, result_rows(results), {"results": [one.as_dict() for one in results]}
    named = _described(what)
    return ("name", "what"), list(named.items()), dict(named)


def _described(what: str) -> dict[str, str]:
    """Name -> a line on it (recipes: a second one where it was measured)."""
    if what == "recipes":
        from covis.config import expected_numbers, load_recipe, recipe_names

        recipes = {}
        for name in recipe_names():
            recipes[name] = load_recipe(name).description
            if numbers := expected_numbers(name):
                before, after = (numbers[arm]["recall@1"][0] for arm in ("untrained", "trained"))
                recipes[name] += f"\nmeasured: recall@1 {before} before training, {after} trained ({numbers['protocol']})"
        return recipes
    if what == "studies":
        from covis.studies import load_study, study_names

        return {name: load_study(name).description for name in study_names()}
    module, table = _TABLES[what]
    return {name: _first_line(value) for name, value in sorted(getattr(importlib.import_module(module), table).items())}


def _first_line(value: object) -> str:
    text = (value.__doc__ or "").strip().splitlines() if callable(value) else [str(value)]
    return text[0] if text else ""
