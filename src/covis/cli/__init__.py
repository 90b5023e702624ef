"""The command line: one subcommand a verb; it parses, calls, prints.

Paths written go to stdout, talk and progress to stderr. Defaults are those of the functions; a test holds the two together.
`data` has the commands on data sets and labels, `splitting` covis split, `learning` those that train, `models` those that convert
or export a network, `describing` covis extract, `whitening` covis whiten, `indexing` covis index and search, `reranking` covis rerank,
`attention` covis attention, `auditing` covis audit, `localising` covis localise, `listing` covis ls, `gcl` and `truth` more of covis
convert, `scoring` what judges, `segmenting` covis segment, `studies` covis sweep and covis latent.
"""

from __future__ import annotations

import sys
import warnings

from covis.cli import (  # noqa: F401 - imported for the commands that they add
    attention,
    auditing,
    data,
    describing,
    gcl,
    indexing,
    learning,
    localising,
    models,
    reranking,
    scoring,
    segmenting,
    splitting,
    studies,
    truth,
    whitening,
)
from covis.cli.listing import ls
from covis.cli.shell import app, say
from covis.errors import CovisError, CovisWarning

__all__ = ["INTERRUPTED", "app", "ls", "main"]

INTERRUPTED = 130
"""The exit code of a process that was interrupted from the keyboard."""


def main() -> None:
    """The entry point: an error of ours is one line on stderr and exit code 1, never a traceback."""
    warnings.simplefilter("always", CovisWarning)
    warnings.showwarning = _show_warning
    try:
        app()
    except CovisError as error:
        print(f"covis: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            say(
                "covis: interrupted. world, label, segment, extract, evaluate, rerank --cache, audit --cache, train, distill, run, sweep "
                "and demo go on from here when they are started again."
            )
        raise


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, CovisWarning):
        say(f"warning: {message}")
