"""Makes the tables in the docs anew, from the code: `python benchmarks/docs_tables.py [--check]`.

A table stands between `<!-- covis ls datasets --markdown -->` (the command that prints it) and `<!-- end -->`.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
TABLE = re.compile(r"(<!-- (covis ls [^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def printed(command: str) -> str:
    """What a command of covis prints."""
    from covis.cli import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app(shlex.split(command)[1:], standalone_mode=False)
    return out.getvalue()


def renewed(text: str) -> str:
    """A page with its tables as the code gives them now."""
    return TABLE.sub(lambda found: f"{found[1]}\n{printed(found[2])}\n{found[4]}", text)


def pages(folder: Path = DOCS) -> list[Path]:
    """The pages that have such tables."""
    return [path for path in sorted(folder.rglob("*.md")) if TABLE.search(path.read_text(encoding="utf-8"))]


def main() -> None:
    old = [path for path in pages() if renewed(path.read_text(encoding="utf-8")) != path.read_text(encoding="utf-8")]
    for path in old:
        print(path)
        if "--check" not in sys.argv:
            path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    if old and "--check" in sys.argv:
        sys.exit("These pages differ from the code; run benchmarks/docs_tables.py.")


if __name__ == "__main__":
    main()
