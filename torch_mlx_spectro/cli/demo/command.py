"""``demo``: separate a recording by torch alone and with ``patch()``, compare, show the result."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "separate a recording by torch alone and with patch(), and tell what it gains here"
DESCRIPTION = (
    "Separate a recording into its harmonic and percussive parts by a plain torch program, first"
    " as it is, then with patch(); tell who computed torch.stft and torch.istft, and how much"
    " faster that was on this machine; compare the results, and write both parts as WAV, and a"
    " picture of both sides. Exit code 1 when they differ by more than rounding."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE",
        help="a recording: WAV; with the package soundfile FLAC, OGG or MP3, too (default: a"
        " synthesised clip)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path("demo-output"),
        help="where to write the stems and the picture (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")


def command(options: argparse.Namespace) -> int:
    """Run the demo; return 0 when both results agree to rounding, else 1.

    Raises:
        Problem: the input cannot be read, or the output cannot be written.
    """
    from . import session  # imports torch

    return session.run(options)
