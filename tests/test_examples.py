"""Every example runs, and so does the quickstart, as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_example(name: str, tiny_world: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), str(tiny_world)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "recall@1" in done.stdout


@pytest.mark.slow
def test_the_quickstart_runs_as_written(tmp_path: Path) -> None:
    """Its commands, its recipe and its Python, in their order, but for what needs data of one's own; and what it shows is printed."""
    ran = []
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "docs" / "quickstart.md").read_text(), re.DOTALL | re.MULTILINE):
        if kind == "toml":
            (tmp_path / "my.toml").write_text(block)
        elif kind == "python":
            ran.append("python")
            said(tmp_path, "-c", block)
        else:
            lines = block.splitlines()
            for command in (line.removeprefix("$ ") for line in lines):
                if command.startswith("covis ") and "/path/to" not in command:
                    ran.append(command.split()[1])
                    printed = said(tmp_path, "-m", *command.split())
            if kind == "console":
                missing = [line for line in lines[1:] if line != "…" and line not in printed]
                assert not missing, printed
    assert ran.count("python") == 2
    assert {"world", "label", "run", "extract", "whiten", "index", "search", "evaluate"} <= set(ran)


def said(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "COLUMNS": "200"}
    )
    assert done.returncode == 0, f"{arguments}\n{done.stderr}"
    return done.stdout + done.stderr
