"""The page of the evidence: its blocks from made-up records, its markers, its claims as data."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from covis.errors import CovisError, DamagedFileError, InvalidInputError, MissingFileError, UnknownNameError
from evidence.claims import CLAIMS, load_claims
from evidence.page import BLOCK, FIGURES, MARKER, PAGE, blocks, compared, figures, relinked, renewed, write
from evidence.plan import Experiment, Plan
from evidence.records import Asked, Record, Scored, Store
from evidence.running import Places
from evidence.summaries import STUDIES, arms, summary
from evidence.tables import NOT_RUN
from evidence.verdicts import Claim, Finding, Test, judge

UNITS = np.repeat(np.arange(8), 5)
QUERIES = len(UNITS)
NIGHT = np.arange(QUERIES) % 4 == 0


def hits(right: int, seed: int = 0) -> np.ndarray:
    """`right` of 40 queries found, others with each seed; as many of each unit as can be."""
    order = np.argsort((np.arange(QUERIES) * 8 + np.arange(QUERIES) // 5 + 3 * seed) % QUERIES, kind="stable")
    found = np.zeros(QUERIES)
    found[order[:right]] = 1.0
    return found


def scored(store: Store, right: int, seed: int = 0, **values: float) -> Scored:
    key = store.keep(Asked(tuple(f"{row}.jpg" for row in range(QUERIES)), UNITS, "rides", {"night": NIGHT, "day": ~NIGHT}))
    return Scored(key, {"recall@1": hits(right, seed)}, {"recall@5": 1.0, **values})


def save(store: Store, study: str, arm: str, rights: dict[str, int], seeds: int = 3, **training: float) -> None:
    for seed in range(seeds):
        found = {name: scored(store, right + seed, seed, AP=0.25) for name, right in rights.items()}
        store.save(
            Record(
                study, arm, seed, found, training or {"seconds": 90.0, "null": 0.125, "pairs": 32_000.0}, {"arm": [study, arm]}, "a machine"
            )
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cells")


def rows(block: str, first: str) -> list[list[str]]:
    """The cells of the rows that begin with a text."""
    lines = [line[2:-2].split(" | ") for line in block.splitlines() if line.startswith("| ")]
    return [cells for cells in lines if cells[0] == first]


def finding(claim: Claim, store: Store) -> Finding:
    return judge([claim], store)[0]


# --- the table of claims


def test_a_claim_is_one_row_with_its_numbers_and_a_bold_verdict(store):
    save(store, "graded", "GCL", {"trained": 30})
    save(store, "graded", "CL", {"trained": 10})
    claim = Claim("G1", "GCL is better", "+11", (Test("graded", "GCL", "CL"),))
    (row,) = rows(blocks([finding(claim, store)], store, {})["claims"], "**G1**")
    assert row[1:4] == ["GCL is better", "GCL against CL: higher", ".275"]  # (10 + 11 + 12) / 3 of 40
    assert row[4] == ".775"
    assert row[5].startswith("+.500 [+.")
    assert row[6:] == ["+.50 +.50 +.50", "3 · 40 · 8", "**holds**"]


def test_several_main_tests_stand_below_their_claim_and_others_after_them(store):
    save(store, "graded", "GCL", {"trained": 30, "whitened": 30})
    save(store, "graded", "CL", {"trained": 10})
    tests = (
        Test("graded", "GCL", scored="whitened", against_scored="trained", main=False, says="beside"),
        Test("graded", "GCL", "CL", says="first"),
        Test("tuned", "GCL", "CL", says="second"),
    )
    lines = blocks([finding(Claim("G1", "better", "", tests), store)], store, {})["claims"].splitlines()[2:]
    cells = [line[2:-2].split(" | ") for line in lines]
    assert [row[1] for row in cells] == ["better", "= first", "= second", "→ beside"]
    assert [row[-1] for row in cells] == ["**not run**", "holds", "not run", "does not hold"]
    assert cells[0][2] == "all 2 below"
    assert cells[2][3:6] == ["–", "–", "–"]
    assert cells[3][5] == "+.000 [+.000, +.000]"


def test_a_fact_says_which_test_decides(store):
    claim = Claim("V9", "no more cost", "by design", (), fact="counted in `tests/test_costs.py`")
    (row,) = rows(blocks([finding(claim, store)], store, {})["claims"], "**V9**")
    assert row[2] == "a fact, not a measurement: counted in `tests/test_costs.py`"
    assert row[-1] == "**holds**"


def test_pooled_metrics_have_seeds_and_no_queries(store):
    for seed, value in enumerate((-0.70, -0.72, -0.71)):
        for arm, more in (("GCL", 0.0), ("CL", 0.1 + 0.01 * seed)):
            one = scored(store, 10, Spearman=value + more)
            store.save(Record("graded", arm, seed, {"trained": one}))
    claim = Claim("G5", "closer", "", (Test("graded", "GCL", "CL", metric="Spearman", expect="lower"),))
    (row,) = rows(blocks([finding(claim, store)], store, {})["claims"], "**G5**")
    assert row[2:5] == ["GCL against CL: Spearman, lower", "−.600", "−.710"]
    assert row[5].startswith("−.110 [−.1")
    assert row[6:] == ["−.10 −.11 −.12", "3", "**holds**"]


def test_bars_in_names_do_not_break_the_table(store):
    save(store, "structure", "weighted", {"rgb": 10, "teacher": 30})
    claim = Claim("V10", "both|either", "", (Test("structure", "weighted", scored="rgb|teacher", against_scored="rgb", least=0.05),))
    table = blocks([finding(claim, store)], store, {})["claims"]
    assert "| both\\|either | weighted, rgb or teacher against rgb: higher by .05 or more |" in table
    assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_what_is_compared_is_said_with_its_conditions():
    test = Test("structure", "weighted", "nothing distilled", group="rain, snow", beyond="morning")
    assert compared(test) == "weighted against nothing distilled, at rain, snow more than at morning: higher"
    assert compared(Test("graded", "GCL", "CL", scored="on campus")) == "GCL, on campus against CL, on campus: higher"


# --- counts, what is missing, machines


def test_counts_and_what_is_missing(store):
    save(store, "graded", "GCL", {"trained": 30})
    save(store, "graded", "CL", {"trained": 10})
    claims = [Claim("G1", "", "", (Test("graded", "GCL", "CL"),)), Claim("N1", "", "", (Test("noise", "GCL, 5 m", "CL, 5 m"),))]
    made = blocks(judge(claims, store), store, {"noise": "python -m evidence --only noise"})
    assert rows(made["counts"], "holds") == [["holds", "1", "G1"]]
    assert rows(made["counts"], "not run") == [["not run", "1", "N1"]]
    assert made["missing"].splitlines()[2:] == ["| noise | N1 | `python -m evidence --only noise` |"]
    assert blocks(judge(claims[:1], store), store, {})["missing"] == "None: every cell has its record."


def test_a_cell_that_two_studies_share_counts_once(store):
    for study in ("graded", "budget"):
        store.save(Record(study, "GCL", 0, {"trained": scored(store, 10)}, {"seconds": 1800.0}, {"steps": 1000}, "one core"))
    store.save(Record("graded", "CL", 0, {"trained": scored(store, 10)}, {"seconds": 1800.0}, {"steps": 1001}, "one core"))
    assert blocks([], store, {})["machine"] == "* 2 cells, 1.00 hours of training: one core."


# --- the tables of studies


def test_arms_show_their_seeds_and_only_columns_that_exist(store):
    save(store, "graded", "GCL", {"trained": 30})
    save(store, "graded", "CL", {"trained": 10, "untrained": 2})
    block = blocks([], store, {})["arms:graded"]
    assert rows(block, "arm") == [
        ["arm", "recall@1", "less CL", "spread over seeds", "each seed", "recall@5", "AP", "null pairs at the end"]
    ]
    (row,) = rows(block, "GCL")
    assert row[1].startswith(".775 [.")
    assert row[2].startswith("+.500 [")
    assert row[3:] == [".025", ".750 .775 .800", "1.00", ".250", ".125"]
    (before,) = rows(block, "*untrained*")
    assert (before[2], before[-1]) == ("", "")
    assert rows(block, "CL")[0][2] == ""
    assert block.index("*untrained*") < block.index("| GCL") < block.index("| CL |")  # as in graded.toml
    assert block.endswith("\n\n3 seeds; 40 queries, 8 rides.")


def test_recall_by_condition_is_over_the_queries_of_the_condition(store):
    night = np.where(NIGHT, 1.0, 0.0)
    key = scored(store, 1).asked
    for seed in range(2):
        store.save(Record("structure", "weighted", seed, {"trained": Scored(key, {"recall@1": night})}))
    block = blocks([], store, {})["conditions:structure"]
    assert rows(block, "arm") == [["arm", "day (30)", "night (10)"]]
    assert rows(block, "weighted") == [["weighted", ".000", "1.00"]]


def test_an_interval_of_a_condition_is_that_of_its_queries_alone(store):
    save(store, "structure", "weighted", {"trained": 20})
    one = summary(arms("structure", store)["weighted"], "trained", store)
    low, high = one.interval(group="night")
    assert low < one.mean(group="night") < high
    assert one.mean(group="night") == pytest.approx(one.hits["recall@1"][:, NIGHT].mean())
    assert (high - low) > 1.2 * np.diff(one.interval())[0]


def test_dimensions_go_down_from_the_descriptor_as_it_is(store):
    save(store, "graded", "GCL", {"trained": 20, "whitened 8": 10, "whitened 64": 30})
    block = blocks([], store, {})["dimensions"]
    assert rows(block, "arm") == [["arm", "as it is", "64 dimensions", "8 dimensions"]]
    assert [cell[:4] for cell in rows(block, "GCL")[0][1:]] == [".525", ".775", ".275"]


def test_the_budget_says_when_gcl_reaches_what_cl_ends_with(store):
    for loss, steps, right in (("GCL", 125, 5), ("GCL", 500, 26), ("GCL", 1000, 30), ("CL", 500, 10), ("CL", 1000, 24)):
        save(store, "budget", f"{loss}, {steps} steps", {"trained": right})
    block = blocks([], store, {})["budget"]
    assert rows(block, "loss") == [["loss", "125 steps", "500 steps", "1,000 steps"]]
    assert rows(block, "CL")[0][1] == ""
    assert "CL ends with .625 after 1,000 steps; of the budgets run, 500 is the least with which GCL reaches it." in block


def test_noise_has_a_table_an_error_each_with_paired_differences(store):
    for loss, size, right in (("GCL", "0 m", 30), ("CL", "0 m", 20), ("GCL", "2.5 m", 20), ("CL", "2.5 m", 12), ("GCL", "40 degrees", 9)):
        save(store, "noise", f"{loss}, {size}", {"trained": right})
    position, heading, _ = blocks([], store, {})["noise"].split("\n\n")
    assert rows(position, "error of position") == [["error of position", "GCL", "CL", "GCL − CL"]]
    assert rows(position, "2.5 m")[0][3].startswith("+.200 [")
    assert [line.split(" | ")[0] for line in heading.splitlines()[2:]] == ["| 0 degrees", "| 40 degrees"]
    assert rows(heading, "0 degrees")[0][1].startswith(".775")


def test_what_is_never_reached_is_said(store):
    save(store, "budget", "GCL, 125 steps", {"trained": 5})
    save(store, "budget", "CL, 250 steps", {"trained": 9})
    assert "GCL does not reach it." in blocks([], store, {})["budget"]


def test_transfer_has_the_untrained_network_and_the_tiny_image_beside(store):
    save(store, "graded", "GCL", {"trained": 30, "on campus": 20})
    save(store, "start", "before training", {"on campus": 8, "tiny image on campus": 12, "untrained": 2})
    block = blocks([], store, {})["transfer"]
    assert [rows(block, name)[0][1][:4] for name in ("GCL", "*untrained*", "*tiny image*")] == [".525", ".225", ".325"]
    assert block.endswith("campus: 40 queries, 8 rides.")
    stand = blocks([], store, {})["stand"]
    assert rows(stand, "*untrained*")[0][1].startswith(".075")
    assert "CL above" not in stand


def test_the_stand_says_how_far_the_baseline_is_above_nothing(store):
    save(store, "start", "before training", {"untrained": 2})
    save(store, "graded", "CL", {"trained": 22})
    save(store, "graded", "GCL, rounded", {"trained": 30})
    block = blocks([], store, {})["stand"]
    assert "CL above the untrained network: +.500 [" in block
    assert "rounded" not in block


def test_two_stages_are_held_against_the_first_alone(store):
    for arm, right, cost in (("town, tiny, k = 0", 10, 0.0021), ("town, tiny, ORB, k = 5", 30, 1.25), ("town, k = 0", 2, 0.01)):
        store.save(
            Record(
                "two-stage",
                arm,
                0,
                {"trained": Scored(scored(store, 1).asked, {"recall@1": hits(right)}, {"seconds a query": cost, "recall@5": 0.9})},
            )
        )
    block = blocks([], store, {})["twostage"]
    (row,) = rows(block, "town, tiny, ORB, k = 5")
    assert row[2].startswith("+.500 [")
    assert row[4] == "1.25"
    assert [cell for cell in rows(block, "town, tiny, k = 0")[0] if cell == ".0021"]


def test_photographs_are_one_table_of_several_studies(store):
    save(store, "kitchen", "GCL", {"trained": 30, "untrained": 10, "whitened": 20})
    save(store, "campus-structure", "weighted", {"trained": 20})
    save(store, "graded", "GCL", {"trained": 20})
    block = blocks([], store, {})["photographs"]
    assert [line.split(" | ")[:2] for line in block.splitlines()[2:]] == [
        ["| campus-structure", "weighted"],
        ["| kitchen", "*untrained*"],
        ["| kitchen", "GCL"],
        ["| kitchen", "GCL, whitened"],
    ]


def test_seeds_that_were_asked_otherwise_are_refused(store):
    save(store, "graded", "GCL", {"trained": 30}, seeds=1)
    key = store.keep(Asked(tuple("ab"), np.arange(2), "rides"))
    store.save(Record("graded", "GCL", 1, {"trained": Scored(key, {"recall@1": np.ones(2)})}))
    with pytest.raises(InvalidInputError, match=r"All seeds of 'GCL' in 'graded' must be asked the same queries"):
        blocks([], store, {})


def test_an_empty_store_says_that_nothing_was_run(store):
    made = blocks(judge(load_claims(), store), store, {})
    assert {made[name] for name in ("stand", "budget", "noise", "transfer", "twostage", "photographs", "machine", "arms:graded")} == {
        NOT_RUN
    }


# --- markers


def test_every_block_of_the_page_is_known(store):
    text = PAGE.read_text(encoding="utf-8")
    made = blocks(judge(load_claims(), store), store, {}) | figures([])
    names = [found[1] for found in MARKER.finditer(text)]
    assert set(names) <= set(made)
    assert max(Counter(names).values()) == 1
    assert {"claims", "counts", "papers", "missing", "machine", "stand"} <= set(names)
    assert {f"figure:{name}" for name in FIGURES} <= set(names)
    assert len(BLOCK.findall(text)) == len(names) == text.count("<!-- end -->")
    once = renewed(text, made)
    assert renewed(once, made) == once
    assert NOT_RUN in once


def test_what_stands_between_markers_is_replaced_and_nothing_else():
    page = "# A\n\n<!-- evidence: a -->\nold\n<!-- end -->\n\nwords\n\n<!-- evidence: b -->\n<!-- end -->\n"
    new = renewed(page, {"a": "\\1 new", "b": "| x |", "c": "unused"})
    assert new == "# A\n\n<!-- evidence: a -->\n\n\\1 new\n\n<!-- end -->\n\nwords\n\n<!-- evidence: b -->\n\n| x |\n\n<!-- end -->\n"


@pytest.mark.parametrize(
    "page",
    ["<!-- evidence: a -->\nold\n", "<!-- evidence: a -->\n<!-- evidence: a -->\n<!-- end -->\n", "<!-- evidence: a --> x\n<!-- end -->"],
)
def test_a_block_without_an_end_is_refused(page):
    with pytest.raises(InvalidInputError, match=r"must be a line of its own, with <!-- end --> below it"):
        renewed(page, {"a": "new"})


def test_a_block_that_there_is_not_is_refused():
    with pytest.raises(UnknownNameError, match=r"'clams'.*Did you mean 'claims'"):
        renewed("<!-- evidence: clams -->\n<!-- end -->", {"claims": ""})


def test_figures_that_were_not_drawn_are_said():
    made = figures([Path("x/budget.png")])
    assert made["figure:budget"].endswith("(images/evidence/budget.png)")
    assert made["figure:noise"] == NOT_RUN


def test_the_page_is_written_from_its_template(tmp_path, store):
    save(store, "kitchen", "GCL", {"trained": 5}, seeds=2)
    template = tmp_path / "template.md"
    template.write_text("# A\n\n<!-- evidence: photographs -->\n<!-- end -->\n<!-- evidence: missing -->\n<!-- end -->\n")
    places = Places(store.folder, tmp_path / "work")
    (page,) = write(Plan({}, (Experiment("two-stage", measure="m:f"),)), places, docs=tmp_path / "docs", template=template)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "docs" / "evidence.md"
    assert "| kitchen | GCL | .138 [" in text
    assert "| two-stage | R1 | `python -m evidence --only two-stage # 1 cell` |" in text


# --- claims as data


def test_a_page_elsewhere_links_to_the_same_files(tmp_path):
    docs, out = tmp_path / "docs", tmp_path / "a" / "b"
    for folder in (docs, out):
        folder.mkdir(parents=True)
    text = "[runs](runs.md#one) [claims](../evidence/claims.toml) [below](#how) ![](images/evidence/a.png) [site](https://a.org/b.md)"
    again = relinked(text, docs, out)
    assert again.endswith("[below](#how) ![](images/evidence/a.png) [site](https://a.org/b.md)")
    first, second = (out / link.partition("#")[0] for link in re.findall(r"\]\(([^)]*)\)", again)[:2])
    assert (first.resolve(), second.resolve()) == (docs / "runs.md", tmp_path / "evidence" / "claims.toml")
    assert relinked(text, docs, docs) == text


def test_the_claims_are_those_of_the_issue():
    claims = load_claims()
    names = (
        [f"G{n}" for n in range(1, 11)]
        + [f"V{n}" for n in range(1, 12)]
        + [f"M{n}" for n in range(1, 5)]
        + ["R1", "N1", "N2", "P1", "P2", "P3"]
    )
    assert [claim.name for claim in claims] == names
    assert {test.study for test in claims[0].tests if test.main} == {"graded", "tuned"}
    assert [claim.name for claim in claims if claim.fact] == ["V9"]
    assert all(claim.paper for claim in claims)


def test_the_arms_that_claims_name_are_in_their_studies():
    for claim in load_claims():
        for test in claim.tests:
            named = [(test.study, test.arm), (test.against_study or test.study, test.against or test.arm)]
            for study, arm in [*named, *((test.study, arm) for arm in test.over)]:
                path = STUDIES / f"{study}.toml"
                if path.is_file():
                    assert arm in tomllib.loads(path.read_text(encoding="utf-8"))["arms"], f"{claim.name}: {study}: {arm}"


def test_the_arms_of_two_stages_are_those_that_are_measured():
    tree = ast.parse((STUDIES.parent / "twostage.py").read_text(encoding="utf-8"))  # importing it takes OpenCV and torch
    said = {
        ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target): node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
    }
    sets, matchers, ks = (ast.literal_eval(said[name]) for name in ("NETWORKS", "MATCHERS", "KS"))
    firsts = [f"{name}, ImageNet" if name == "town" else name for name in sets]
    known = {f"{first}, k = 0" for first in firsts} | {f"{first}, {name}, k = {k}" for first in firsts for name in matchers for k in ks}
    for claim in load_claims():
        assert {name for test in claim.tests if test.study == "two-stage" for name in (test.arm, test.against)} <= known


def test_the_fact_names_a_test_that_there_is():
    (fact,) = [claim.fact for claim in load_claims() if claim.fact]
    path = CLAIMS.parent.parent / fact.split("`")[1]
    assert "def test_a_distilled_student_costs_exactly_what_the_plain_network_costs" in path.read_text(encoding="utf-8")


TEST = '[[claims.tests]]\nstudy = "s"\narm = "a"\n'
BAD = {
    "stands twice": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}against = "b"\n' * 2,
    "must hold": 'claim = "A"\n',
    "has no setting 'agianst'": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}agianst = "b"\n',
    "must be one of": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}against = "b"\nexpect = "more"\n',
    "least must be above 0": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}against = "b"\nleast = 0.0\n',
    "compared with another arm": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}',
    "either main tests or a fact": f'[[claims]]\nname = "A"\nsays = ""\npaper = ""\n{TEST}against = "b"\nmain = false\n',
}


@pytest.mark.parametrize("said", BAD)
def test_claims_that_cannot_be_tested_are_refused(tmp_path, said):
    path = tmp_path / "claims.toml"
    path.write_text(BAD[said])
    with pytest.raises(InvalidInputError, match=rf"claims\.toml.*{said}"):
        load_claims(path)


@pytest.mark.parametrize(("text", "error"), [("[[claims", DamagedFileError), (None, MissingFileError)])
def test_files_that_are_none_are_refused(tmp_path, text, error):
    path = tmp_path / "claims.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error):
        load_claims(path)
    assert issubclass(error, CovisError)
