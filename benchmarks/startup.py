"""How long `import covis` and `covis --help` take, over a bare interpreter: the least of several runs each.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 15


def least(*arguments: str) -> float:
    """The least wall time of a Python process, in seconds: what else runs on the machine only adds."""
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    bare = least("-c", "pass")
    print(f"bare interpreter  {bare:.3f} s")
    for what, arguments, goal in (("import covis", ("-c", "import covis"), 0.1), ("covis --help", ("-m", "covis", "--help"), 0.3)):
        print(f"{what:<16}  {least(*arguments) - bare:+.3f} s over it  (goal: less than {goal})")


if __name__ == "__main__":
    main()
