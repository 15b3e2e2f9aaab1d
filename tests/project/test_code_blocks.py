"""Every code block of the pages is run, and what a page says that it prints is what it prints."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from code_blocks import Block, find_blocks, make_request, split_console

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: What can be run.
RUN = ("python", "sh", "console")
#: Programs that are parts of others, or have gaps for the reader to fill.
MOST_LEFT = 8
#: ``...`` stands for numbers and times, and spaces for any spaces.
CHECKER, FLAGS = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read_blocks(page: Path) -> list[Block]:
    return list(find_blocks(page.read_text(encoding="utf-8")))


def is_run(block: Block) -> bool:
    return block.language in RUN and not block.reason and not block.included


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[subprocess.Popen[str]]:
    """A process that runs pages, and writes no measurements where the user has theirs."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "parity"))),
    }
    with subprocess.Popen(
        [sys.executable, ROOT / "tests" / "project" / "code_blocks.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process


def ask(server: subprocess.Popen[str], blocks: list[Block]) -> list[dict[str, str]]:
    """Have a page's blocks run; return what each printed."""
    to, back = server.stdin, server.stdout
    assert to is not None
    assert back is not None
    to.write(make_request(blocks))
    to.flush()
    answer = json.loads(back.readline())
    assert answer is not None, "the process ended"
    return answer


def find_differences(page: list[Block], found: list[dict[str, str]]) -> list[str]:
    """Say where a page shows something else than was printed."""
    printed = {int(result["line"]): result["printed"] for result in found}
    different = [
        f"line {result['line']}:\n{result['error']}" for result in found if result["error"]
    ]
    last = ""
    for block in page:
        wanted = None
        if block.language == "output":
            wanted = block.text
        elif block.line in printed:
            last = printed[block.line]
            if block.language == "console":
                wanted = split_console(block.text)[1]
        if wanted is not None and not CHECKER.check_output(wanted, last, FLAGS):
            different.append(f"line {block.line}: the page has\n{wanted}\nit printed\n{last}")
    return different


@pytest.mark.skipif(sys.platform != "linux", reason="the pages' processes are forks")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(is_run, read_blocks(page)))], ids=name_page
)
def test_blocks_run_and_print_what_the_page_shows(server, page: Path):
    blocks = read_blocks(page)
    found = ask(server, [block for block in blocks if is_run(block)])
    different = find_differences(blocks, found)
    assert not different, f"{name_page(page)}: " + "\n".join(different)


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_file_of_a_page_is_run(page: Path):
    blocks = read_blocks(page)
    for at, block in enumerate(blocks):
        if block.file:
            name = block.file.removesuffix(".py")
            later = [other for other in blocks[at + 1 :] if is_run(other) and name in other.text]
            assert later, f"{name_page(page)}:{block.line}"


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_every_block_is_run_or_says_why_not(page: Path):
    before: Block | None = None
    for block in read_blocks(page):
        where = f"{name_page(page)}:{block.line}"
        if block.included:
            assert (ROOT / block.included).exists(), where
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "output":
            assert before is not None, where
            assert is_run(before), where
        else:
            assert block.reason or block.language in RUN, (
                f"{where} is neither run nor compared: its language is one of {', '.join(RUN)}, "
                "output or toml, or a comment before it says why: <!-- not run: REASON -->"
            )
        before = block


def test_few_programs_are_not_run():
    # The gallery's commands are run smaller, and their outputs looked at, by test_gallery.py.
    pages = [page for page in PAGES if page.parent.name != "gallery"]
    left = [block for page in pages for block in read_blocks(page) if block.reason]
    # Commands take minutes, install or are for a Mac; test_docs.py reads their arguments.
    assert len([block for block in left if block.language not in ("sh", "text")]) <= MOST_LEFT
    texts = [block.reason for block in left if block.language == "text"]
    # What the parity suite prints is compared by test_parity_starting.py.
    assert not [why for why in texts if "picture" not in why and "takes half a minute" not in why]


PAGE = """\
Words.

```python
print("value", 1 / 3)
```

```output
value 0.3...
```

<!-- not run: it needs a Mac -->

```sh
rm -rf everything
```

```python title="own.py"
print(2)
```

```console
$ python own.py
2
```
"""


def test_blocks_are_found():
    first, output, left, file, session = find_blocks(PAGE)
    assert (first.language, first.text, first.line) == ("python", 'print("value", 1 / 3)\n', 3)
    assert (output.language, left.reason, file.file) == ("output", "it needs a Mac", "own.py")
    assert [is_run(block) for block in (first, left, file, session)] == [True, False, True, True]
    assert split_console(session.text) == ("python own.py\n", "2\n")


@pytest.mark.skipif(sys.platform != "linux", reason="the pages' processes are forks")
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("0.3...", "0.4...", "line 7: the page has"),
        ("$ python own.py\n2", "$ python own.py\n3", "line 21: the page has"),
        ("1 / 3", "1 / 0", "ZeroDivisionError"),
        ("$ python own.py", "$ python other.py", "CalledProcessError"),
        ("Words", "Words", None),
    ],
)
def test_what_differs_is_told(server, old: str, new: str, problem: str | None):
    blocks = list(find_blocks(PAGE.replace(old, new)))
    different = find_differences(blocks, ask(server, [block for block in blocks if is_run(block)]))
    assert bool(different) is (problem is not None)
    assert problem is None or problem in different[0]
