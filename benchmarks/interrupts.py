"""Interrupt the command line at random times, as Ctrl-C does, and see how it ends.

    python benchmarks/interrupts.py [--run 200] [--program 40] [--parity 40] [--startup 20]

========  =====================================================================================
run       ``torch-mlx-spectro run --stats PROGRAM``, within 3 s of its first line
program   the same, within 3 s of the program's first line
parity    ``torch-mlx-spectro parity --processes 2``: of every two runs one within 8 s of its
          first line, one within 8 s of its first child
startup   ``run`` within 0.3 s of the process's start
========  =====================================================================================

The signal goes to all processes of the group, as a terminal sends it. Right is exit code 130 within
30 s, with no process left over; ``run`` prints nothing, or the program's traceback and the
statistics, and ``parity`` nothing. Any other end makes the exit code 1.

Python's own start, ``site`` and the lines of the script in ``bin`` come before our first line. An
interrupt there ends as Python ends it, by signal 2 or "Fatal Python error": it is counted apart, is
not wrong, and outside of ``startup`` another one is made for it.

Takes about a quarter of an hour on two cores that do nothing else. Linux only.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HANGS_AFTER = 30.0
PYTHONS = "before our first line"
#: What pip writes into bin/torch-mlx-spectro, after a line that tells when Python is up.
SCRIPT = """\
import sys
if __name__ == "__main__" and {tells}:
    sys.stdout.write("up\\n")
    sys.stdout.flush()
from torch_mlx_spectro.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""
PROGRAM = """\
import time, torch
print("started", flush=True)
window, ends = torch.hann_window(512), time.monotonic() + 20
while time.monotonic() < ends:
    spectrum = torch.stft(torch.ones(2, 160000), 512, window=window, return_complex=True)
    torch.istft(spectrum, 512, window=window)
"""
#: How the interrupted program and its statistics look.
SHOWN = re.compile(
    r"Traceback \(most recent call last\):\n.*\nKeyboardInterrupt(: ?.*)?\n"
    r"torch_mlx_spectro: \d+ calls accelerated, \d+ native\n.*",
    re.DOTALL,
)


def has_child(process: subprocess.Popen[str]) -> bool:
    return bool(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


def interrupt(arguments: list[str], first: str, delay: float) -> tuple[str, str, bool]:
    """Start, interrupt, and return where it was, how it ended, and whether that is right.

    Args:
        arguments: of Python.
        first: what the delay begins with: ``"start"``, a line of its output, or ``"child"``.
        delay: in seconds.
    """
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    where = f"after {first}"
    for line in process.stdout if first != "start" else ():
        if line.strip() == first or (first == "child" and line.strip() == "up"):
            break
    while first == "child" and not has_child(process):
        time.sleep(0.02)
    time.sleep(delay)
    if process.poll() is not None:
        return where, f"ended before: {process.returncode}", process.returncode == 0
    if first != "start" and has_child(process):
        where = "with processes"
    os.killpg(process.pid, signal.SIGINT)
    started = time.monotonic()
    try:
        # Ends when no process has the streams any more, those of parity included.
        printed, told = process.communicate(timeout=HANGS_AFTER)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, told = process.communicate()
        return where, f"hangs: {told[-300:]!r}", False
    took = time.monotonic() - started
    if first == "started" or "started" in printed:
        where = "in the program"
    code = process.returncode
    quiet = told == "" or (where == "in the program" and SHOWN.fullmatch(told) is not None)
    if code == 130 and quiet:
        limit = next(limit for limit in (1, 5, HANGS_AFTER) if took <= limit)
        return where, f"130 within {limit} s", True
    if "torch_mlx_spectro/" not in told and "started" not in printed:
        return PYTHONS, f"{code}: {told.strip()[-60:]!r}", True
    return where, f"{code}: {told[-1500:]}", False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=int, default=200)
    parser.add_argument("--parity", type=int, default=40)
    parser.add_argument("--program", type=int, default=40)
    parser.add_argument("--startup", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto", help="of run")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        program, up, bare = (Path(folder, name) for name in ("program.py", "up", "bare"))
        program.write_text(PROGRAM)
        up.write_text(SCRIPT.format(tells=True))
        bare.write_text(SCRIPT.format(tells=False))
        run = ["run", "--backend", options.backend, "--stats", str(program)]
        parity = ["parity", "--backend", "native", "--processes", "2", "--cases", "grid"]
        for name, count, arguments, longest, firsts in (
            ("run", options.run, [str(up), *run], 3.0, ("up",)),
            ("program", options.program, [str(up), *run], 3.0, ("started",)),
            ("parity", options.parity, [str(up), *parity], 8.0, ("up", "child")),
            ("startup", options.startup, [str(bare), *run], 0.3, ("start",)),
        ):
            ends: collections.Counter[tuple[str, str]] = collections.Counter()
            number = 0
            while number < count:
                delay, first = draw.uniform(0, longest), firsts[number % len(firsts)]
                where, how, right = interrupt(arguments, first, delay)
                ends[where, how] += 1
                number += where != PYTHONS or name == "startup"
                if not right:
                    wrong += 1
                    print(f"WRONG: {name}, {delay:.3f} s after {first}: {how}", flush=True)
            print(f"{name}: {count} interrupts within {longest} s of {' or '.join(firsts)}")
            for (where, how), times in sorted(ends.items()):
                print(f"  {times:4d}  {where:21s}  {how.splitlines()[0][:100]}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
