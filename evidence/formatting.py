"""Numbers and tables as the page has them: .664, +.052 [+.014, +.093], a true minus sign, Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

NOTHING = "–"


def number(value: float, digits: int = 3) -> str:
    """A number, without the nought before its point; a dash where there is none.

    >>> number(0.6641), number(1.0), number(-0.57), number(182.4), number(float("nan"))
    ('.664', '1.00', '−.570', '182', '–')
    """
    if not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 99.95:
        text = f"{size:,.0f}"
    elif size >= 9.995:
        text = f"{size:.1f}"
    elif round(size, digits) >= 1:
        text = f"{size:.2f}"
    else:
        text = f"{size:.{digits}f}".removeprefix("0")
    return f"−{text}" if value < 0 and text.strip(".0") else text


def signed(value: float, digits: int = 3) -> str:
    """A difference, always with its sign.

    >>> signed(0.052), signed(-0.0001), signed(-0.145)
    ('+.052', '+.000', '−.145')
    """
    text = number(value, digits)
    return text if text.startswith(("−", NOTHING)) else f"+{text}"


def seconds(value: float) -> str:
    """Seconds with two digits at least, however few they are.

    >>> seconds(0.00213), seconds(0.48), seconds(123.4)
    ('.0021', '.48', '123')
    """
    if not math.isfinite(value) or value >= 1:
        return number(value)
    return number(value, digits=2 if value <= 0 else max(2, 1 - math.floor(math.log10(value))))


def interval(low: float, high: float, *, sign: bool = False) -> str:
    """The ends of an interval in brackets; empty where they are not known.

    >>> interval(0.599, 0.727), interval(-0.059, 0.052, sign=True), interval(float("nan"), 1.0)
    ('[.599, .727]', '[−.059, +.052]', '')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    said = signed if sign else number
    return f"[{said(low)}, {said(high)}]"


def difference(value: float, low: float, high: float) -> str:
    """A difference and its interval.

    >>> difference(0.052, 0.014, 0.093), difference(0.052, float("nan"), float("nan"))
    ('+.052 [+.014, +.093]', '+.052')
    """
    return f"{signed(value)} {interval(low, high, sign=True)}".rstrip()


def mean(value: float, low: float, high: float) -> str:
    """A mean and its interval.

    >>> mean(0.664, 0.599, 0.727)
    '.664 [.599, .727]'
    """
    return f"{number(value)} {interval(low, high)}".rstrip()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table; bars within a cell are escaped, columns without any value left out (not the first).

    >>> print(table(["arm", "AP", "null"], [["GCL", ".28", ""], ["rgb|teacher", ".30", ""]]))
    | arm | AP |
    |---|---|
    | GCL | .28 |
    | rgb\|teacher | .30 |
    """
    lines = [list(row) for row in rows]
    kept = [0, *(at for at in range(1, len(heads)) if any(row[at] for row in lines))]
    cells = [[cell(row[at]) for at in kept] for row in [list(heads), *lines]]
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, f"|{'---|' * len(kept)}", *body])


def cell(text: str) -> str:
    r"""Text that can stand in a cell of a Markdown table.

    >>> cell("a|b\n  c")
    'a\\|b c'
    """
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts the numbers within names as numbers.

    >>> sorted(["GCL, 1000 steps", "CL", "GCL, 125 steps"], key=natural)
    ['CL', 'GCL, 125 steps', 'GCL, 1000 steps']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(1, float(part), "") if at % 2 else (0, 0.0, part) for at, part in enumerate(parts)]


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def several(count: int, what: str) -> str:
    """A count and its noun, given in the plural.

    >>> several(1, "seeds"), several(960, "queries"), several(1, "queries")
    ('1 seed', '960 queries', '1 query')
    """
    one = re.sub(r"^(\w+?)(ies|s)\b", lambda found: found[1] + ("y" if found[2] == "ies" else ""), what)
    return f"{count:,} {one if count == 1 else what}"
