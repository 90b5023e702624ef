"""The page: blocks of Markdown that are made from the records, each between `<!-- evidence: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from covis.errors import InvalidInputError, UnknownNameError
from covis.files import digest, read_text, write_text
from covis.lookup import suggest
from evidence import tables
from evidence.claims import load_claims
from evidence.formatting import NOTHING, difference, number, several, signed, table
from evidence.records import Record, Store
from evidence.summaries import STUDIES, studies
from evidence.verdicts import Estimate, Finding, Test, Verdict, judge

if TYPE_CHECKING:
    from evidence.plan import Plan
    from evidence.running import Places

MARKER = re.compile(r"<!-- evidence: ([^\n]*?) -->")
BLOCK = re.compile(MARKER.pattern + r"\n((?:(?!<!-- evidence: ).)*?)<!-- end -->", re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|images/)([^)#]+)")
"""A link to a file."""
QUICK = "**A quick run on a tiny town: its numbers mean nothing, and the words between them are those of the whole run.**"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "evidence.md"
IMAGES = "images/evidence"
"""Where figures lie, below the folder of the page."""
FIGURES = {
    "claims": "Paired differences of all main tests in recall@1, with 95 % intervals; dots: seeds",
    "claims-other": "Paired differences of the main tests in other metrics",
    "latent": "Mean distance of two descriptors against the similarity of their images",
    "budget": "recall@1 against the steps of a training",
    "dimensions": "recall@1 against the dimension that whitening leaves",
    "noise": "recall@1 against the error of the poses that labels were made from",
    "conditions": "recall@1 by the condition of the queries",
    "twostage": "recall@1 against the seconds that a query takes",
}
"""Figure -> what it shows."""
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "cannot be told apart", "not run")


def blocks(findings: Sequence[Finding], store: Store, plan_commands: Mapping[str, str]) -> dict[str, str]:
    """Make every block that a page can have.

    Args:
        findings: the claims with their numbers.
        store: the records.
        plan_commands: study -> the command that runs its missing cells; empty where none is missing.

    Returns:
        name -> Markdown. `claims`, `counts`, `papers`, `missing`, `machine`, `stand`, `dimensions`, `budget`, `noise`, `transfer`,
        `twostage`, `photographs`, and for each study `arms:STUDY` and `conditions:STUDY`. Figures have `figures`.
    """
    tested = [test.study for finding in findings for test in finding.claim.tests]
    known = sorted({*tested, *plan_commands, *studies(store), *(path.stem for path in STUDIES.glob("*.toml"))})
    return {
        "claims": claims_table(findings),
        "counts": counts_table(findings),
        "papers": papers_table(findings),
        "missing": missing_table(findings, plan_commands),
        "machine": machine_list(store),
        "stand": tables.stand_table(store),
        "dimensions": tables.dimensions_table(store),
        "budget": tables.budget_table(store),
        "noise": tables.noise_table(store),
        "transfer": tables.transfer_table(store),
        "twostage": tables.twostage_table(store),
        "photographs": tables.photographs_table(store),
        **{f"arms:{study}": tables.arms_table(study, store) for study in known},
        **{f"conditions:{study}": tables.conditions_table(study, store) for study in known},
    }


def renewed(text: str, blocks: Mapping[str, str]) -> str:
    r"""A page with its blocks as they are now; a block that it does not show is left out.

    Raises:
        UnknownNameError: the page names a block that there is not.
        InvalidInputError: a block of the page has no end.

    >>> renewed("<!-- evidence: counts -->\nold\n<!-- end -->", {"counts": "new"})
    '<!-- evidence: counts -->\n\nnew\n\n<!-- end -->'
    """
    closed = {found.start() for found in BLOCK.finditer(text)}
    for found in MARKER.finditer(text):
        if found.start() not in closed:
            raise InvalidInputError(f"{found[0]!r} must be a line of its own, with <!-- end --> below it before another block; it is not.")
        if (name := found[1]) not in blocks:
            raise UnknownNameError(f"The page names a block {name!r} that there is not. {suggest(name, blocks)}")
    return BLOCK.sub(lambda found: f"<!-- evidence: {found[1]} -->\n\n{blocks[found[1]]}\n\n<!-- end -->", text)


def figures(drawn: Iterable[Path]) -> dict[str, str]:
    """The blocks of the figures, `figure:NAME` each: a picture where it was drawn.

    >>> figures([Path("budget.png")])["figure:budget"]
    '![recall@1 against the steps of a training](images/evidence/budget.png)'
    """
    names = {path.stem for path in drawn}
    return {f"figure:{name}": f"![{says}]({IMAGES}/{name}.png)" if name in names else tables.NOT_RUN for name, says in FIGURES.items()}


def write(plan: Plan, places: Places, *, docs: Path, template: Path = PAGE) -> list[Path]:
    """Write the page and its figures anew from the records.

    Args:
        plan: what is to be run.
        places: where the records lie.
        docs: the folder of the page.
        template: the page whose words are taken, and whose blocks are made anew.

    Returns:
        The paths of the page and of its figures.

    Raises:
        CovisError: a record is damaged, or was made with other settings than the plan has; or the template has a block that is unknown.
    """
    from evidence.figures import draw  # matplotlib
    from evidence.running import open_cells

    store = Store(places.cells)
    findings = judge(load_claims(), store)
    alone = replace(places, data=None)  # what is missing is read off the records, whatever photographs lie here
    left = Counter(cell.study.name for cell in open_cells(plan, alone, plan.cells()))
    left.update(one.study for one in plan.experiments if one.measure and not (store.folder / one.study / "whole").exists())
    small = " --quick --out FOLDER" if plan.quick else ""
    commands = {study: f"python -m evidence --only {study}{small} # {several(count, 'cells')}" for study, count in left.items()}
    drawn = draw(findings, store, docs / IMAGES)
    made = blocks(findings, store, commands) | figures(drawn)
    text = relinked(read_text(template), template.parent, docs)
    if plan.quick:
        text = f"{QUICK}\n\n{text}"
    return [write_text(docs / "evidence.md", renewed(text, made)), *drawn]


def relinked(text: str, before: Path, now: Path) -> str:
    """A page that is written into another folder, with its links to files beside it as they are from there; figures lie below both.

    >>> relinked("[runs](runs.md#a) [below](#b)", Path("docs"), Path("docs/out"))
    '[runs](../runs.md#a) [below](#b)'
    """

    def anew(found: re.Match[str]) -> str:
        return f"]({Path(os.path.relpath(before.resolve() / found[1], now.resolve())).as_posix()}"

    return text if before.resolve() == now.resolve() else LINK.sub(anew, text)


def claims_table(findings: Sequence[Finding]) -> str:
    """One table over all claims: main tests first, then those beside, with an arrow."""
    heads = ["", "claim", "b against a", "a", "b", "b − a", "each seed", "seeds · queries · units", "verdict"]
    return table(heads, [row for finding in findings for row in _claim_rows(finding)])


def _claim_rows(finding: Finding) -> Iterator[list[str]]:
    claim = finding.claim
    tests = list(zip(claim.tests, finding.estimates, finding.verdicts, strict=True))
    main = [one for one in tests if one[0].main]
    head, verdict = f"**{claim.name}**", f"**{finding.verdict}**"
    if len(main) == 1 and not claim.fact:
        yield [head, claim.says, *_numbers(*main[0][:2]), verdict]
    else:
        by = f"a fact, not a measurement: {claim.fact}" if claim.fact else f"all {len(main)} below"
        yield [head, claim.says, by, "", "", "", "", "", verdict]
        for test, estimate, one in main:
            yield ["", f"= {test.says}" if test.says else "=", *_numbers(test, estimate), one]
    for test, estimate, one in tests:
        if not test.main:
            yield ["", f"→ {test.says}" if test.says else "→", *_numbers(test, estimate), one]


def _numbers(test: Test, estimate: Estimate | None) -> list[str]:
    """The cells of a comparison, from what is compared to how many were asked."""
    said = compared(test)
    if estimate is None:
        return [said, NOTHING, NOTHING, NOTHING, "", ""]
    seeds = " ".join(signed(value, 2) for _, value in sorted(estimate.by_seed.items()))
    asked = f"{len(estimate.by_seed)} · {estimate.queries:,} · {estimate.units:,}" if estimate.queries else f"{len(estimate.by_seed)}"
    return [said, number(estimate.a), number(estimate.b), difference(estimate.difference, estimate.low, estimate.high), seeds, asked]


def compared(test: Test) -> str:
    """What a test holds against what, in words.

    >>> compared(Test("graded", "GCL", "CL", metric="Spearman", expect="lower"))
    'GCL against CL: Spearman, lower'
    >>> compared(Test("graded", "GCL", scored="whitened", against_scored="trained"))
    'GCL, whitened against as trained: higher'
    >>> compared(Test("structure", "weighted", "nothing distilled", group="snow,rain", beyond="morning"))
    'weighted against nothing distilled, at snow, rain more than at morning: higher'
    """
    other = test.against_scored or test.scored
    arm = test.arm if test.scored == "trained" else f"{test.arm}, {_scored(test.scored)}"
    against = test.against if other == "trained" else f"{test.against}, {_scored(other)}".removeprefix(", ")
    group = ", ".join(part.strip() for part in test.group.split(","))
    where = f", at {group}" if group else ""
    more = f" more than at {', '.join(part.strip() for part in test.beyond.split(','))}" if test.beyond else ""
    metric = "" if test.metric == "recall@1" else f"{test.metric}, "
    least = "" if test.least == Test.least else f" by {number(test.least, 2)} or more"
    expected = "higher" if test.expect == "much higher" else test.expect
    than = f", beyond {' against '.join(test.over)}" if test.over else ""
    return f"{arm} against {against or 'as trained'}{where}{more}{than}: {metric}{expected}{least}"


def _scored(name: str) -> str:
    return name.replace("|", " or ")


def counts_table(findings: Sequence[Finding]) -> str:
    """How many claims hold, and which."""
    body = []
    for verdict in VERDICTS:
        names = [finding.claim.name for finding in findings if finding.verdict == verdict]
        body.append([verdict, str(len(names)), ", ".join(names)])
    return table(["verdict", f"of {several(len(findings), 'claims')}", "which"], body)


def papers_table(findings: Sequence[Finding]) -> str:
    """What the papers report, and where the test here is another."""
    return table(["", "reported", "here"], [[f"**{one.claim.name}**", one.claim.paper, one.claim.note] for one in findings])


def missing_table(findings: Sequence[Finding], plan_commands: Mapping[str, str]) -> str:
    """Studies with cells that are still to be run, the claims that wait for them, and the command."""
    waiting: dict[str, list[str]] = {study: [] for study in plan_commands}
    for finding in findings:
        for study in dict.fromkeys(
            t.study for t, verdict in zip(finding.claim.tests, finding.verdicts, strict=True) if verdict == "not run"
        ):
            waiting.setdefault(study, []).append(finding.claim.name)
    body = [[study, ", ".join(names), f"`{plan_commands[study]}`" if study in plan_commands else ""] for study, names in waiting.items()]
    return table(["study", "claims that wait for it", "command"], body) if body else "None: every cell has its record."


def machine_list(store: Store) -> str:
    """What the cells were run on, and how long their training took; a cell that several studies share counts once."""
    machines: dict[str, list[Record]] = {}
    every = [record for study in studies(store) for arm in store.records(study).values() for record in arm.values()]
    for record in {
        (digest(record.settings) if record.settings else (record.study, record.arm), record.seed): record for record in every
    }.values():
        machines.setdefault(record.machine or "not said", []).append(record)
    lines = []
    for name, ran in sorted(machines.items(), key=lambda one: -len(one[1])):
        hours = sum(record.training.get("seconds", 0.0) for record in ran) / 3600
        trained = f", {number(hours)} hours of training" if hours else ""
        lines.append(f"* {several(len(ran), 'cells')}{trained}: {name}.")
    return "\n".join(lines) or tables.NOT_RUN
