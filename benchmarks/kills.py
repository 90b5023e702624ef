"""`kill -9` at random moments of extract, label, train and index --add; each is started again and must end with the same result.

    OMP_NUM_THREADS=1 python benchmarks/kills.py [--moments 50] [--seed 0] [--only extract,label,train,index] [--keep DIR]

A tiny town is written, and each command runs once undisturbed, in a process of its own: how long it takes, when it first writes
something, what comes out. Then it is started again and again, each time in an empty place, and killed with its whole process group
at a random moment: a quarter of the moments lie anywhere in its life, the others between its first byte on the disk, for which the
script waits, and its end.
After each kill what lies there must be readable, or be no more than a part that no reader takes for the whole; then the same
command runs to its end. Every file it leaves must have the bytes of the
undisturbed run's; columns of times in logs and the training's checkpoint are compared by their values.

In the table "amid" are the kills that hit when something was written and not all, "before" and "after" the others; "late" are moments
that the command did not live to see (drawn again, up to three times as many as asked for); "stages" counts how different what lay there
amid was; "identical" is of all that was started. The exit code is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COMMANDS = ("extract", "label", "train", "index")
ANYWHERE = 0.25
"""The share of the moments that lie anywhere in a command's life, its imports included."""
POLL = 0.005
"""Seconds between two looks."""
TIMES = ("items_per_second", "waiting", "mining", "seconds")
"""Columns of log.csv that are times."""
LIMIT = 600.0
"""Seconds that no command takes."""
SETS, ROWS, DIM = 20, 20_000, 64
"""What is added to the index: so many sets of so many vectors."""


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        name: what it is called here.
        arguments: of covis; OUT stands for where it writes.
        prepare: makes the place into which it writes, as it is before.
        check: reads what lies there, finished or not; raises where it cannot be read.
        finished: whether the whole result is there; such a command is not started again, since it refuses to do a thing twice.
            Absent: it is when all files are, and the command is started again all the same.
        loose: files that are compared by value: name -> a function that gives it.
    """

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda out: None
    check: Callable[[Path], None] = lambda out: None
    finished: Callable[[Path], bool] | None = None
    loose: dict[str, Callable[[Path], Any]] = field(default_factory=dict)


@dataclass
class Tally:
    """What came of the kills of a command.

    Attributes:
        first: seconds to its first byte on the disk, undisturbed.
        seconds: seconds to its end.
        span: seconds from the one to the other, the least that was seen; moments are drawn from it.
        before, amid, after: kills that hit when nothing, something, or all was written.
        late: moments that it did not live to see; they are drawn again, and its result is compared all the same.
        identical: how often the same came out.
        stages: hashes of what lay there amid.
        wrong: what differed, in words.
    """

    first: float
    seconds: float
    span: float
    started: int = 0
    before: int = 0
    amid: int = 0
    after: int = 0
    late: int = 0
    identical: int = 0
    stages: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many kills hit a process that was alive."""
        return self.before + self.amid + self.after


# What is described, labelled, trained and indexed.


def make_inputs(folder: Path, *, seed: int) -> None:
    """A tiny town, a network, a recipe, and sets of vectors with an index of the first."""
    from covis.config import load_recipe, to_toml
    from covis.descriptors import Descriptors
    from covis.files import write_text
    from covis.indexes import index
    from covis.models.checkpoints import save
    from covis.models.place import PlaceModel
    from covis.settings import ModelSettings
    from covis.town.writing import write_town

    write_town(folder / "town", layout="7scenes", preset="tiny", seed=seed)
    save(PlaceModel(ModelSettings(backbone="resnet10t", height=96, width=128), seed=seed), folder / "model")
    recipe = load_recipe("town")
    learn = dataclasses.replace(recipe.train, steps=60, batch=8, checkpoint_every=5)
    model = dataclasses.replace(recipe.model, height=24, width=32)
    write_text(folder / "recipe.toml", to_toml(dataclasses.replace(recipe, name="kills", train=learn, model=model)))
    draws = np.random.default_rng(seed)
    for number in range(SETS + 1):
        vectors = draws.standard_normal((ROWS, DIM)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        Descriptors(vectors, tuple(f"{number}/{row}.jpg" for row in range(ROWS)), model="kills").save(folder / "sets" / str(number))
    index(Descriptors.load(folder / "sets" / "0"), kind="exact").save(folder / "index")


def commands(inputs: Path) -> list[Command]:
    """The commands that are killed."""
    town, sets = str(inputs / "town"), inputs / "sets"

    def index_there(out: Path) -> None:
        shutil.copytree(inputs / "index", out)

    return [
        Command("extract", ("extract", town, "--model", str(inputs / "model"), "--out", "OUT", "--batch", "1"), check=read_descriptors),
        Command(
            "label",
            ("label", town, "--split", "train", "--rule", "surface", "--reach", "40", "--step", "1", "--out", "OUT"),
            check=read_labels,
            finished=lambda out: out.is_dir() and any(visible(out)) and not (out / ".labelling.json").exists(),
        ),
        Command(
            "train",
            ("train", str(inputs / "recipe.toml"), "--data", town, "--out", "OUT"),
            check=read_run,
            loose={"log.csv": without_times, "last.ckpt": weights_of_checkpoint},
        ),
        Command(
            "index",
            ("index", *(str(sets / str(number)) for number in range(1, SETS + 1)), "--out", "OUT", "--add"),
            prepare=index_there,
            check=read_index,
            finished=lambda out: rows_of(out) == ROWS * (SETS + 1),
        ),
    ]


# What must be readable at any moment.


def read_descriptors(out: Path) -> None:
    from covis.descriptors import Descriptors

    for scene in visible(out):
        for side in visible(scene):
            found = Descriptors.load(side)
            assert np.isfinite(found.vectors).all(), side


def read_labels(out: Path) -> None:
    from covis.labels import Labels

    for file in visible(out):
        Labels.load(file)


def read_run(out: Path) -> None:
    from covis.models.checkpoints import load

    if (model := out / "train" / "model").exists():
        load(model)


def read_index(out: Path) -> None:
    """The index as it was or as it will be, and it finds each of some vectors itself."""
    from covis.descriptors import Descriptors
    from covis.indexes import load_index

    index = load_index(out)
    assert len(index) in (ROWS, ROWS * (SETS + 1)), f"{len(index)} vectors"
    some = Descriptors(*pick(out.parent.parent / "inputs" / "sets" / "0"), model="kills")
    assert index.search(some, k=1).rows[:, 0].tolist() == list(range(len(some)))


def pick(folder: Path, *, count: int = 10) -> tuple[np.ndarray, tuple[str, ...]]:
    from covis.descriptors import Descriptors

    whole = Descriptors.load(folder)
    return np.asarray(whole.vectors[:count]), whole.names[:count]


def rows_of(out: Path) -> int:
    from covis.indexes import load_index

    return len(load_index(out))


def visible(folder: Path) -> list[Path]:
    """What is not hidden; what is being made has a hidden name."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


def without_times(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    kept = [number for number, name in enumerate(rows[0]) if name not in TIMES]
    return [[row[number] for number in kept] for row in rows]


def weights_of_checkpoint(path: Path) -> str:
    import torch

    found = torch.load(path, weights_only=True, map_location="cpu")
    return hashlib.sha256(repr(plain(found)).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Plain values; a tensor as a hash of its bytes."""
    import torch

    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), hashlib.sha256(value.contiguous().reshape(-1).view(torch.uint8).numpy()).hexdigest()
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


# Running and killing.


def start(command: Command, out: Path) -> subprocess.Popen[bytes]:
    """The command in a process group of its own; what it says goes to a file beside."""
    arguments = [str(out) if one == "OUT" else one for one in command.arguments]
    with (out.parent / "said.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "covis", *arguments], stdout=said, stderr=said, start_new_session=True, env=environment()
        )


def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": "1", **os.environ}


def undisturbed(command: Command, out: Path) -> Tally:
    """Seconds to its first byte on the disk, and to its end."""
    command.prepare(out)
    begun, before = time.perf_counter(), names(out)
    process = start(command, out)
    wait_for_first(process, out, before)
    first = time.perf_counter() - begun
    if process.wait():
        raise SystemExit(f"{command.name} failed undisturbed: {said(out)}")
    seconds = time.perf_counter() - begun
    return Tally(first, seconds, seconds - first)


def wait_for_first(process: subprocess.Popen[bytes], out: Path, before: set[str]) -> None:
    """Until something is written, or the process has ended."""
    while process.poll() is None and names(out) == before:
        time.sleep(POLL)


def kill_once(command: Command, out: Path, *, anywhere: bool, rng: random.Random, reference: Path, tally: Tally) -> None:
    """Start, wait, kill, look, start again, compare."""
    command.prepare(out)
    before = names(out)
    process = start(command, out)
    if not anywhere:
        wait_for_first(process, out, before)
    moment, begun = rng.uniform(0, tally.seconds if anywhere else tally.span), time.perf_counter()
    try:
        process.wait(timeout=moment)
        tally.late += 1
        if not anywhere:
            tally.span = min(tally.span, time.perf_counter() - begun)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        stage = stage_of(command, out, before, reference)
        setattr(tally, stage, getattr(tally, stage) + 1)
        if stage == "amid":
            tally.stages.add(state(out))
    tally.started += 1
    if wrong := complaint(command, out) or finish(command, out) or difference(command, out, reference):
        when = f"{moment:.2f} s after its {'start' if anywhere else 'first byte'}"
        tally.wrong.append(f"{command.name}, killed {when}: {wrong}")
    else:
        tally.identical += 1


def stage_of(command: Command, out: Path, before: set[str], reference: Path) -> str:
    """How far it was: before, amid, after."""
    there = names(out)
    if there == before:
        return "before"
    finished = there == names(reference) if command.finished is None else command.finished(out)
    return "after" if finished else "amid"


def complaint(command: Command, out: Path) -> str:
    """What is unreadable of what lies there."""
    try:
        command.check(out)
    except Exception as error:  # anything that a reader stumbles over is what is looked for
        return f"what it left cannot be read ({type(error).__name__}: {error})"
    return ""


def finish(command: Command, out: Path) -> str:
    """Start it again, to its end."""
    if command.finished is not None and command.finished(out):
        return ""
    process = start(command, out)
    try:
        code = process.wait(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return f"started again, it hangs: {said(out)}"
    return f"started again, it fails: {said(out)}" if code else ""


def difference(command: Command, out: Path, reference: Path) -> str:
    """How the files differ from those of the undisturbed run; empty where they do not."""
    if names(out) != names(reference):
        return f"other files are there: {', '.join(sorted(names(out) ^ names(reference)))}"
    for name in sorted(names(out)):
        mine, theirs = out / name, reference / name
        value = command.loose.get(mine.name)
        same = value(mine) == value(theirs) if value else mine.read_bytes() == theirs.read_bytes()
        if not same:
            return f"{name} differs"
    return ""


def names(out: Path) -> set[str]:
    """The files below a folder, hidden ones too; those that vanish meanwhile do not count."""
    return {str(Path(folder, file).relative_to(out)) for folder, _, files in os.walk(out) for file in files}


def state(out: Path) -> str:
    """A hash of the files' names, and of what is in the small ones: how far it was."""
    found = hashlib.sha256()
    for name in sorted(names(out)):
        size = (out / name).stat().st_size
        found.update(f"{name} {size}\n".encode() + ((out / name).read_bytes() if size < 10_000 else b""))
    return found.hexdigest()


def said(out: Path) -> str:
    text = (out.parent / "said.txt").read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "it said nothing"


def torture(command: Command, folder: Path, *, moments: int, rng: random.Random) -> Tally:
    """A command undisturbed, and killed at every moment."""
    reference = folder / command.name / "undisturbed"
    reference.parent.mkdir(parents=True)
    tally = undisturbed(command, reference)
    while tally.killed < moments and tally.started < 3 * moments:
        out = folder / command.name / "killed"
        kill_once(command, out, anywhere=tally.killed < round(ANYWHERE * moments), rng=rng, reference=reference, tally=tally)
        shutil.rmtree(out, ignore_errors=True)
    return tally


def table(tallies: dict[str, Tally]) -> str:
    """One line a command."""
    head = ["command", "first byte", "end", "kills", "before", "amid", "after", "late", "stages", "identical"]
    lines = [head]
    for name, one in tallies.items():
        numbers = (one.killed, one.before, one.amid, one.after, one.late, len(one.stages))
        lines.append([name, f"{one.first:.1f} s", f"{one.seconds:.1f} s", *map(str, numbers), f"{one.identical}/{one.started}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--moments", type=int, default=50, help="kills of each command")
    parser.add_argument("--seed", type=int, default=0, help="of the town and of the moments")
    parser.add_argument("--only", default=",".join(COMMANDS), help=f"of {', '.join(COMMANDS)}, with commas")
    parser.add_argument("--keep", type=Path, help="a new folder for all files, which stay; default: a temporary one")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in COMMANDS]:
        parser.error(f"--only takes {', '.join(COMMANDS)}; got {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        make_inputs(folder / "inputs", seed=options.seed)
        rng, tallies = random.Random(options.seed), {}
        for command in commands(folder / "inputs"):
            if command.name in chosen:
                tallies[command.name] = torture(command, folder, moments=options.moments, rng=rng)
                for line in tallies[command.name].wrong:
                    print(line, file=sys.stderr, flush=True)
        print(table(tallies))
    return int(any(one.wrong for one in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
