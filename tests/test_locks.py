"""Lock files: one process after the other, and none waits for a dead one."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covis.errors import OutputFailedError
from covis.files import locked

fcntl = pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from covis.files import locked
with locked(sys.argv[1], waiting=lambda: print("waits", flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).write_text("made")
"""

FORK = """
import os, sys
from covis.files import locked
gate, release = os.pipe()
with locked(sys.argv[1]):
    child = os.fork()
    if not child:
        os.close(release)
        os.read(gate, 1)
        os._exit(0)
with locked(sys.argv[1], waiting=lambda: (print("the child keeps it", flush=True), os.write(release, b"1"))):
    print("let go", flush=True)
    os.close(release)
os.waitpid(child, 0)
"""


def _holder(path: Path, made: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(made)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    lock, made = tmp_path / "deep" / ".towns.lock", tmp_path / "made.txt"
    with _holder(lock, made) as first:
        assert _said(first) == "holds"
        with _holder(lock, tmp_path / "again.txt") as second:
            assert _said(second) == "waits"
            assert not made.exists()
            first.communicate("\n", timeout=20)
            assert made.read_text() == "made"
            assert _said(second) == "holds"  # and no second "waits"
            second.communicate("\n", timeout=20)
    assert (tmp_path / "again.txt").exists()


def test_a_process_waits_for_another_and_says_so_once(tmp_path: Path) -> None:
    lock, made, said = tmp_path / ".lock", tmp_path / "made.txt", []
    with _holder(lock, made) as first:
        assert _said(first) == "holds"

        def waiting() -> None:
            said.append(made.exists())
            first.stdin.write("\n")
            first.stdin.flush()

        with locked(lock, waiting=waiting):
            assert said == [False]
            assert made.read_text() == "made"


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    lock, said = tmp_path / ".lock", []
    with _holder(lock, tmp_path / "made.txt") as first:
        assert _said(first) == "holds"
        os.kill(first.pid, signal.SIGKILL)
        first.wait(timeout=20)
        begun = time.monotonic()
        with locked(lock, waiting=lambda: said.append("waits")):
            assert time.monotonic() - begun < 1
    assert not said


def test_children_that_were_forked_meanwhile_do_not_keep_what_was_let_go(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FORK, str(tmp_path / ".lock")], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "let go\n", "")


def test_a_file_system_without_locks_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    reached = False
    with locked(tmp_path / ".lock", waiting=lambda: pytest.fail("there is nobody to wait for")):
        reached = True
    assert reached


def test_what_fails_inside_is_not_hidden_and_lets_go(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^inside$"), locked(tmp_path / ".lock"):
        raise OSError("inside")
    with locked(tmp_path / ".lock", waiting=lambda: pytest.fail("it was not let go")):
        pass


def test_a_lock_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFailedError, match=r"The lock .* could not be made"), locked(tmp_path / "file" / ".lock"):
        pass
