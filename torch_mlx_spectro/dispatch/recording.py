"""Counts that other processes can read while this one counts, and after it has ended or crashed.

A process that is to be read writes two files: labels, a line of JSON for each count, and the counts
themselves, whole numbers of 64 bits at the places that the labels name. These lie in memory that is
the file's, so nothing has to be done when the process ends: pools end their workers by signals, and
an exit function would not run in them.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Took(NamedTuple):
    """Seconds that one call takes, as ``auto`` has measured for calls of its kind.

    Attributes:
        native: by native torch.
        here: by the backend that computes it.
    """

    native: float
    here: float


class Answer(NamedTuple):
    """What calls are counted by, besides their site.

    Attributes:
        backend: who computed them, or ``"refused"``.
        reasons: why they were not accelerated; empty where they were.
        by_choice: they were not to be.
        took: seconds of one of them; None where those were not measured.
    """

    op: str
    backend: str
    reasons: tuple[str, ...] = ()
    by_choice: bool = False
    took: Took | None = None


class Counted(NamedTuple):
    """A number of calls of one call site by one route."""

    answer: Answer
    site: str
    calls: int


@dataclass(frozen=True)
class Process:
    """What a process has counted.

    Attributes:
        name: what its program is called, or its part in it.
        pid: the system's number for it.
        counted: its calls.
        verified: those of them that were compared with native torch's.
        mismatches: those of these that were wrong.
    """

    name: str
    pid: int
    counted: tuple[Counted, ...]
    verified: int
    mismatches: int


#: Counts of a process that others can read; further ones they cannot.
PLACES = 2500
#: Places of the two counts that have no label.
VERIFIED, MISMATCHES = 0, 1
_LABELS, _COUNTS = ".labels", ".counts"


class Record:
    """The files of one process."""

    def __init__(self, folder: Path) -> None:
        """Make them.

        Raises:
            OSError: they cannot be made.
        """
        path = folder / uuid.uuid4().hex
        counts = path.with_suffix(_COUNTS)
        counts.write_bytes(bytes(8 * PLACES))
        with counts.open("r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")
        self._labels = path.with_suffix(_LABELS)
        self._used = 2
        self._write({"name": name_process(), "pid": os.getpid()})

    def add(self, answer: Answer, site: str, count: Callable[[], int]) -> Callable[[], int]:
        """Write a label, and return what counts one call under it.

        Args:
            count: counts it for this process, and returns how many there were before.
        """
        counts, place = self._counts, self._used
        if place == PLACES:
            return count
        self._used += 1
        self._write({"place": place, "answer": answer, "site": site})

        def count_for_all() -> int:
            before = count()
            counts[place] = before + 1
            return before

        return count_for_all

    def set_verified(self, verified: int, mismatches: int) -> None:
        """Write how many calls were compared, and how many of them were wrong."""
        self._counts[VERIFIED], self._counts[MISMATCHES] = verified, mismatches

    def remove(self) -> None:
        """Forget what was counted."""
        self._labels.unlink(missing_ok=True)

    def _write(self, label: dict[str, object]) -> None:
        with self._labels.open("a", encoding="utf-8") as file:
            file.write(json.dumps(label) + "\n")


def name_process() -> str:
    """Name this process for people, by its program or its part in it."""
    current = multiprocessing.current_process()
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    name = module.name if module is not None else program or "python"
    if current.name != "MainProcess":
        name = current.name
    rank = os.environ.get("RANK")
    return name if rank is None else f"{name}, rank {rank}"


def read(folder: Path) -> list[Process]:
    """Read what processes have counted into a folder, in the order of their names."""
    found = [_read_one(path) for path in folder.glob(f"*{_LABELS}")]
    return sorted(found, key=lambda process: (process.name, process.pid))


def _read_one(path: Path) -> Process:
    content = path.with_suffix(_COUNTS).read_bytes()
    counts = memoryview(content).cast("q")
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a line may be half written
    first, *rest = map(json.loads, whole.splitlines())
    return Process(
        **first,
        counted=tuple(_read_counted(rest, counts)),
        verified=counts[VERIFIED],
        mismatches=counts[MISMATCHES],
    )


def _read_counted(labels: Iterable[dict[str, Any]], counts: memoryview[int]) -> Iterable[Counted]:
    for label in labels:
        op, backend, reasons, by_choice, took = label["answer"]
        answer = Answer(op, backend, tuple(reasons), by_choice, took and Took(*took))
        yield Counted(answer, label["site"], counts[label["place"]])
