"""Lists of what there is, as rows that print as a text, as Markdown or as JSON: benchmarks, published results, names of things.

The tables in the docs are made of these (`covis ls datasets --markdown`), so that page and code cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from covis.datasets.catalogue import Dataset, Size
from covis.published import Result

DATASET_COLUMNS = ("name", "layout", "sizes", "protocols", "how to obtain it", "licence", "remark")
RESULT_COLUMNS = ("data set", "protocol", "method", "backbone", "dim", "whitening", "values in percent", "source", "remark")


def dataset_rows(datasets: Mapping[str, Dataset]) -> list[tuple[str, ...]]:
    """A row a benchmark, in the order of `DATASET_COLUMNS`.

    >>> from covis.datasets.catalogue import DATASETS
    >>> dataset_rows({"sped": DATASETS["sped"]})[0][:4]
    ('sped', 'aligned', 'test 607 × 607', 'sped/vpr-bench')
    """
    return [
        (
            name,
            one.layout + (f" --read {one.read}" if one.read else ""),
            "; ".join(_size(size) for size in one.sizes) or "none",
            ", ".join(one.protocols),
            f"{one.title}; {one.obtain}",
            one.licence,
            one.remark,
        )
        for name, one in sorted(datasets.items())
    ]


def dataset_records(datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    """Name -> all that is known of a benchmark, as plain values."""
    return {name: asdict(one) for name, one in sorted(datasets.items())}


def result_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row a result, in the order of `RESULT_COLUMNS`; whitening on the searched database is marked transductive.

    >>> from covis.published import published_results
    >>> result_rows(published_results("msls-val"))[0][4:7]
    ('12288', 'none', 'R@1 93.8, R@5 96.8, R@10 97.0, R@20 97.7')
    """
    return [
        (
            one.dataset,
            one.protocol,
            one.method,
            one.backbone,
            "not stated" if one.dimension is None else str(one.dimension),
            one.whitening + (" (transductive)" if one.transductive else ""),
            ", ".join(f"{name.replace('recall@', 'R@')} {value:.1f}" for name, value in one.values.items()),
            f"{one.source}, read {one.read}",
            one.remark,
        )
        for one in results
    ]


def as_text(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> str:
    """A table for a terminal of so many characters; cells are broken where they must be.

    >>> print(as_text(("name", "what"), [("a", "b c")], width=12))
    name   what
    a      b c
    """
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for column in columns:
        table.add_column(column, overflow="fold")  # an address that is cut short is none
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    out = StringIO()
    Console(file=out, width=width, no_color=True, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def as_markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table; a bar in a cell is escaped.

    >>> print(as_markdown(("name", "what"), [("a|b", "c")]))
    | name | what |
    |---|---|
    | a\|b | c |
    """
    lines = [columns, *rows]
    texts = ["| " + " | ".join(cell.replace("|", r"\|") or " " for cell in line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(columns), *texts[1:]])


def _size(size: Size) -> str:
    sides = " × ".join("?" if count is None else f"{count:,}" for count in (size.queries, size.database))
    return f"{size.split}{f' {size.part}' if size.part else ''} {sides}" + ("" if size.sure else " (only warned of)")
