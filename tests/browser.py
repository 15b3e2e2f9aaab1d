"""A real browser that shows a page of the disk, without a network, and what it had to say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
#: Set where a missing browser is a failure: there the tests do not skip.
REQUIRED = "PARITY_TESTS_NEED_BROWSER"

PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get(REQUIRED),
    reason=f"there is none of {', '.join(NAMES)}; {REQUIRED}=1 makes that a failure",
)


@dataclass(frozen=True)
class Visit:
    """What came of showing a page.

    Attributes:
        dom: the document as it was parsed.
        console: what was printed to the console.
        requests: addresses that the page asked for, beyond the disk.
    """

    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]


def _browse(page: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert PROGRAM is not None, f"{REQUIRED} is set, and there is none of {', '.join(NAMES)}"
    return subprocess.run(
        [
            PROGRAM, *QUIET, f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", *options, page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip


def visit(page: Path, folder: Path, *options: str) -> Visit:
    """Open a page and note what it does."""
    log = folder / "requests.json"
    told = ("--dump-dom", "--enable-logging=stderr", f"--log-net-log={log}")
    found = _browse(page, folder, *told, *options)
    console = tuple(line for line in found.stderr.splitlines() if ":CONSOLE:" in line)
    events = json.loads(log.read_text())["events"]
    told = [event["params"] for event in events if "initiator" in event.get("params", {})]
    # The browser's own requests, such as for updates, come of no page.
    asked = (params["url"] for params in told if params["initiator"] != "not an origin")
    return Visit(found.stdout, console, tuple(asked))


def screenshot(page: Path, folder: Path, *options: str, size: tuple[int, int]) -> Path:
    """A picture of the page in a window of this size."""
    picture = folder / "page.png"
    window = f"--window-size={size[0]},{size[1]}"
    _browse(page, folder, f"--screenshot={picture}", window, *options)
    return picture
