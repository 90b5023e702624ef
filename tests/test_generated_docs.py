"""The tables in the docs are what the code prints."""

import importlib.util
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "benchmarks" / "docs_tables.py")
docs_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(docs_tables)

PAGES = docs_tables.pages()


def test_the_pages_that_must_have_tables():
    assert {page.name for page in PAGES} == {"datasets.md", "localisation.md", "protocols.md", "published.md"}
    tables = [command for page in PAGES for _, command, _, _ in docs_tables.TABLE.findall(page.read_text(encoding="utf-8"))]
    assert sorted(shlex.split(command)[2] for command in tables) == ["datasets", "pose-protocols", "poses", "protocols", "results"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_what_the_code_prints(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- covis ls ") == text.count("<!-- end -->") == len(docs_tables.TABLE.findall(text))
    assert docs_tables.renewed(text) == text, f"run python benchmarks/docs_tables.py: {page.name} differs from the code"


def test_a_table_that_is_out_of_date_is_seen(tmp_path):
    old = "# Rules\n\n<!-- covis ls rules --markdown -->\n| name | what |\n<!-- end -->\n\nMore.\n"
    new = docs_tables.renewed(old)
    assert new != old
    assert "| view | " in new
    assert new.startswith("# Rules\n\n<!-- covis ls rules --markdown -->\n")
    assert new.endswith("<!-- end -->\n\nMore.\n")
    assert docs_tables.renewed(new) == new
    (tmp_path / "a.md").write_text(old)
    (tmp_path / "b.md").write_text("no table")
    assert docs_tables.pages(tmp_path) == [tmp_path / "a.md"]


def test_only_listings_are_run():
    """A page can run nothing but covis ls."""
    assert docs_tables.TABLE.search("<!-- covis world x -->\n<!-- end -->") is None
    for page in PAGES:
        for _, command, _, _ in docs_tables.TABLE.findall(page.read_text(encoding="utf-8")):
            assert shlex.split(command)[:2] == ["covis", "ls"]
            assert "--markdown" in command
