"""The script that kills commands: it says the truth about what it finds, and finds nothing wrong."""

from __future__ import annotations

import importlib.util
import random
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def kills() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "kills.py"
    spec = importlib.util.spec_from_file_location("kills", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_differing_byte_a_leftover_and_a_file_that_is_missing_are_said(kills: ModuleType, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.npy").write_bytes(b"123")
        (folder / "log.csv").write_text(f"step,seconds\n1,{len(str(folder))}\n")
    command = kills.Command("x", (), loose={"log.csv": kills.without_times})
    assert kills.difference(command, mine, theirs) == "", "seconds may differ"
    (mine / "sub" / "a.npy").write_bytes(b"124")
    assert kills.difference(command, mine, theirs) == "sub/a.npy differs"
    (mine / ".a.partial").write_bytes(b"1")
    assert ".a.partial" in kills.difference(command, mine, theirs)
    (mine / ".a.partial").unlink()
    (mine / "log.csv").unlink()
    assert "log.csv" in kills.difference(command, mine, theirs)


# A command of four lines in the place of covis: it writes two files, the first again from where it was.
STORY = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[-1]); out.mkdir(exist_ok=True); part = out / ".part"
for step in range(int(part.read_text() or 0) if part.exists() else 0, 10): {write}; time.sleep(0.02)
part.unlink(missing_ok=True); (out / "whole").write_text("20")
"""


@pytest.mark.parametrize(
    ("write", "right"),
    [
        ("t = out / '.t'; t.write_text(str(step)); t.replace(part)", True),
        ("part.open('a').write('1'); (out / f'left-{time.time()}').write_text('')", False),
    ],
)
def test_a_command_that_resumes_and_one_that_leaves_things(
    kills: ModuleType, write: str, right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "story.py"
    script.write_text(STORY.format(write=write))

    def start(command: object, out: Path, *, more: tuple[str, ...] = ()) -> object:
        return kills.subprocess.Popen([sys.executable, "-I", "-S", str(script), str(out)], start_new_session=True)

    monkeypatch.setattr(kills, "start", start)
    (tmp_path / "at").mkdir()
    tally = kills.torture(kills.Command("story", ()), tmp_path / "at", moments=2, rng=random.Random(1))
    assert tally.started == tally.killed + tally.late
    assert tally.killed == 2 or tally.started == 6
    assert bool(tally.wrong) is not right
    assert tally.identical == (tally.started if right else 0)
    assert re.search(rf"story .* {tally.identical}/{tally.started}$", kills.table({"story": tally}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["extract", "label", "train", "index"])
def test_killed_commands_end_with_the_same(name: str, kills: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = kills.main(["--moments", "3", "--only", name, "--keep", str(tmp_path / "kept")])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert re.search(rf"{name} .* (\d+)/\1$", said.out.strip())
