"""``demo``: separate a recording natively and by MLX, compare, and show the result."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "separate a recording into harmonic and percussive parts, natively and by MLX"
DESCRIPTION = (
    "Separate a recording into its harmonic and percussive parts by a plain torch program, first"
    " natively, then with torch.stft and torch.istft computed by MLX; compare the results, and"
    " write both parts as WAV and a picture. Exit code 1 when they differ by more than rounding."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--input", type=Path, metavar="FILE.wav", help="a recording (default: a synthesised clip)"
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
    """Run the demo; return 0 when MLX and native torch agree to rounding, else 1.

    Raises:
        Problem: the input cannot be read, the output cannot be written, or MLX is not usable.
    """
    from . import session  # imports torch

    return session.run(options)
