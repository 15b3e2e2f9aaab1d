"""Code blocks of Markdown, and a process that runs those of one page after another.

As a program it reads requests from standard input, one in a line of JSON, and answers each in a
line: what every block printed, or the traceback of the first that failed. It imports torch once,
and runs each page in a fork of its own, in an empty folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: In front of a block that cannot be run, with the reason; a reader of the page does not see it.
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*$")
FENCE = re.compile(r"^( *)```(\w*) *(.*)$")
TITLE = re.compile(r'title="([\w.-]+)"')
#: A block that is a file of the checkout: MkDocs puts the file there, and its own test runs it.
INCLUDED = re.compile(r'^--8<-- "([^":]+)(?::\w+)?"$')


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        language: the word behind the fence.
        text: what is in it, with an end of line.
        line: of its fence, from 1.
        reason: why it is not run; ``""`` if it is.
        file: the name under which its text is written, instead of being run; ``""`` for none.
    """

    language: str
    text: str
    line: int
    reason: str = ""
    file: str = ""

    @property
    def included(self) -> str:
        """The file of the checkout that the block shows, or ``""``."""
        found = INCLUDED.match(self.text.strip())
        return found[1] if found else ""


def find_blocks(markdown: str) -> Iterator[Block]:
    """Find the fenced blocks of a page."""
    lines = iter(enumerate(markdown.splitlines(), start=1))
    before = ""
    for number, line in lines:
        fence = FENCE.match(line)
        if fence is None:
            before = line if line.strip() else before
            continue
        indent, language, info = fence.groups()
        inside = []
        for _, each in lines:
            if each.strip() == "```":
                break
            inside.append(each.removeprefix(indent) + "\n")
        reason, title = NOT_RUN.search(before), TITLE.search(info)
        yield Block(
            language,
            "".join(inside),
            number,
            reason[1] if reason else "",
            title[1] if title else "",
        )
        before = ""


def split_console(text: str) -> tuple[str, str]:
    """Split a session into its commands, which have a prompt, and what they print."""
    lines = text.splitlines(keepends=True)
    commands = "".join(line[2:] for line in lines if line.startswith("$ "))
    return commands, "".join(line for line in lines if not line.startswith("$ "))


def _run_command(line: str) -> None:
    """Run a line of shell: a script, or a command of ours.

    Raises:
        ValueError: it is neither.
        CalledProcessError: the command ended with another code than 0.
    """
    program, *arguments = shlex.split(line, comments=True)
    if program not in ("python", "torch-mlx-spectro"):
        raise ValueError(f"only python and torch-mlx-spectro are run: {line}")
    module = () if program == "python" else ("-m", "torch_mlx_spectro")
    subprocess.run([sys.executable, *module, *arguments], check=True, stdin=subprocess.DEVNULL)


def _run_block(block: Block, names: dict[str, Any]) -> None:
    if block.file:
        Path(block.file).write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        code = "\n" * block.line + block.text
        exec(compile(code, "<page>", "exec"), names)
    else:
        commands = split_console(block.text)[0] if block.language == "console" else block.text
        for line in commands.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                _run_command(line)


def _run_page(blocks: list[Block], folder: Path) -> Iterator[dict[str, Any]]:
    """Run blocks in this process, whose output goes to a file; yield what each printed."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    printed = folder / ".printed"
    target = os.open(printed, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    names: dict[str, Any] = {"__name__": "__main__"}
    at = 0
    for block in blocks:
        error = ""
        try:
            _run_block(block, names)
        except BaseException:
            error = traceback.format_exc()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):
                stream.flush()
        text = printed.read_bytes()
        yield {"line": block.line, "printed": text[at:].decode(), "error": error}
        at = len(text)
        if error:
            return


def _serve() -> None:
    """Answer requests until standard input ends."""
    import torch  # noqa: F401  the forks have it, and no thread has begun

    import torch_mlx_spectro  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for request in sys.stdin:
        blocks = [Block(**block) for block in json.loads(request)]
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / ".results"
            child = os.fork()
            if child == 0:
                try:
                    found = list(_run_page(blocks, Path(folder)))
                    results.write_text(json.dumps(found), encoding="utf-8")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            found = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
        print(json.dumps(found), file=answers, flush=True)


def make_request(blocks: list[Block]) -> str:
    """Write a request in a line."""
    return json.dumps([asdict(block) for block in blocks]) + "\n"


if __name__ == "__main__":
    _serve()
