"""Make the gallery's pictures and sounds, and the outputs on its pages, by running the examples.

    python examples/make_gallery.py [NAME ...]

Needs `pip install soundfile`: the sounds of the pages are FLAC, and three seconds long.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).parent
GALLERY = EXAMPLES.parent / "docs" / "gallery"
#: By example, the commands that its page shows, in turn.
COMMANDS = {
    "separation": ["python examples/separation.py"],
    "denoising": ["python examples/denoising.py"],
    "training_loss": ["python examples/training_loss.py"],
    "streaming": ["python examples/streaming.py"],
    "corpus": [
        "python examples/corpus.py",
        "torch-mlx-spectro run --children --stats examples/corpus.py",
    ],
}
SECONDS = 3


def run(command: str, folder: Path) -> str:
    """Run a command of a page; returns what it printed, without the names of files."""
    program, *arguments = command.split()
    start = [sys.executable, *(["-m", "torch_mlx_spectro"] if program != "python" else [])]
    found = subprocess.run(
        [*start, *arguments, "--output", str(folder)],
        cwd=EXAMPLES.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    lines = (line.rstrip() for line in found.stdout.splitlines())
    return "\n".join(line for line in lines if not line.startswith("wrote ")).strip()


def take_files(folder: Path) -> None:
    """Copy pictures to the page, and the first seconds of sounds."""
    import soundfile

    for picture in folder.glob("*.png"):
        shutil.copy(picture, GALLERY / picture.name)
    for sound in folder.glob("*.wav"):
        samples, rate = soundfile.read(sound, dtype="int16")
        soundfile.write(GALLERY / f"{sound.stem}.flac", samples[: SECONDS * rate], rate)


def show_output(page: Path, command: str, printed: str) -> None:
    """Replace the output of a command on its page."""
    text = page.read_text(encoding="utf-8")
    block = re.compile(rf"(?s)(^```console\n\$ {re.escape(command)}\n).*?(^```$)", re.MULTILINE)
    changed, count = block.subn(lambda match: f"{match[1]}{printed}\n{match[2]}", text)
    if count != 1:
        raise SystemExit(f"{page} has {count} blocks of the command {command}")
    page.write_text(changed, encoding="utf-8")


def main() -> None:
    """Make all, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMMANDS))
    for name in parser.parse_args().names or COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            for command in COMMANDS[name]:
                printed = run(command, Path(folder))
                show_output(GALLERY / f"{name.replace('_', '-')}.md", command, printed)
                print(f"$ {command}\n{printed}\n")
            take_files(Path(folder))


if __name__ == "__main__":
    main()
