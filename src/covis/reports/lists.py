"""Lists of what there is, as rows that print as a text, as Markdown or as JSON: benchmarks, published results, names of things.

The tables in the docs are made of these (`covis ls datasets --markdown`), so that page and code cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from covis.datasets.catalogue import Dataset, Size
from covis.published import Result

DATASET_COLUMNS = ("name", "layout", "sizes", "protocols", "how to obtain it", "licence", "remark")
RESULT_COLUMNS = ("data set", "protocol", "method", "backbone", "dim", "whitening", "values in percent", "source", "url", "remark")


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
            one.url,
            one.remark,
        )
        for one in results
    ]


def sourced(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[tuple[str, ...]], dict[str, str]]:
    """The same table with a mark in place of each source and each remark, and what the marks stand for: sources with their address.

    Sources are numbered from 1, remarks from r1.

    >>> rows = [("a", "paper", "https://x", ""), ("b", "paper", "https://x", "half size"), ("c", "page", "https://y", "half size")]
    >>> sourced(("method", "source", "url", "remark"), rows)[1]
    [('a', '1', ''), ('b', '1', 'r1'), ('c', '2', 'r1')]
    >>> sourced(("method", "source", "url", "remark"), rows)[2]
    {'1': 'paper, https://x', '2': 'page, https://y', 'r1': 'half size'}
    """
    source, url, remark = (columns.index(name) for name in ("source", "url", "remark"))
    said = [f"{row[source]}, {row[url]}" for row in rows]
    numbers = {text: str(count) for count, text in enumerate(dict.fromkeys(said), start=1)}
    remarks = {text: f"r{count}" for count, text in enumerate(dict.fromkeys(row[remark] for row in rows if row[remark]), start=1)}
    kept = [column for column in range(len(columns)) if column != url]
    short = []
    for row, text in zip(rows, said, strict=True):
        marked = [*row]
        marked[source], marked[remark] = numbers[text], remarks.get(row[remark], "")
        short.append(tuple(marked[column] for column in kept))
    return tuple(columns[column] for column in kept), short, {mark: text for text, mark in (numbers | remarks).items()}


def linked(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    r"""The same table with each source as a link of Markdown to its address.

    >>> linked(("method", "source", "url"), [("a", "paper [2]", "https://x")])
    (('method', 'source'), [('a', '[paper \\[2\\]](https://x)')])
    """
    source, url = columns.index("source"), columns.index("url")
    kept = [column for column in range(len(columns)) if column != url]
    made = []
    for row in rows:
        cells = [*row]
        text = row[source].replace("[", r"\[").replace("]", r"\]")
        cells[source] = f"[{text}](<{row[url]}>)" if any(sign in row[url] for sign in "() ") else f"[{text}]({row[url]})"
        made.append(tuple(cells[column] for column in kept))
    return tuple(columns[column] for column in kept), made


def as_notes(notes: Mapping[str, str], *, width: int) -> str:
    """What marks stand for, one below the other; words, and so addresses, are never broken.

    >>> print(as_notes({"1": "a b"}, width=40))
    [1] a b
    """
    lines = []
    for mark, text in notes.items():
        start = f"[{mark}] "
        indent = " " * len(start)
        lines += wrap(text, max(width, 40), initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def as_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> str:
    """The rows one below the other, a line a column, for a terminal that is too narrow for a table; words are never broken.

    >>> print(as_blocks(("name", "what", "more"), [("a", "b c", "")], width=40))
    a
      what  b c
    """
    wide = max(map(len, columns))
    blocks = []
    for first, *rest in rows:
        lines = [first]
        for column, cell in zip(columns[1:], rest, strict=True):
            start = f"  {column:<{wide}}  "
            indent = " " * len(start)
            lines += wrap(
                cell, max(width, 40), initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def as_text(columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int) -> str:
    """A table for a terminal of so many characters, or blocks where it is too narrow; an address is never broken.

    >>> print(as_text(("name", "what"), [("a", "b c")], width=12))
    name   what
    a      b c
    """
    cells = [tuple(columns), *rows]
    least = [max(len(word) for row in cells for word in (row[place].split() or [""])) for place in range(len(columns))]
    if sum(least) + 3 * (len(columns) - 1) > width:
        return as_blocks(columns, rows, width=width)
    widths = _widths(least, [max(len(row[place]) for row in cells) for place in range(len(columns))], room=width - 3 * (len(columns) - 1))
    lines = []
    for row in cells:
        parts = [wrap(cell, wide, break_long_words=False, break_on_hyphens=False) for cell, wide in zip(row, widths, strict=True)]
        for line in zip_longest(*parts, fillvalue=""):
            lines.append("   ".join(f"{part:<{wide}}" for part, wide in zip(line, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _widths(least: Sequence[int], most: Sequence[int], *, room: int) -> list[int]:
    """The columns' widths: what each needs, and what is left over shared by how much more each could use.

    >>> _widths([2, 3], [2, 9], room=9)
    [2, 7]
    """
    spare, wanted = max(0, room - sum(least)), sum(most) - sum(least)
    return [low + (min(high - low, spare * (high - low) // wanted) if wanted else 0) for low, high in zip(least, most, strict=True)]


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
