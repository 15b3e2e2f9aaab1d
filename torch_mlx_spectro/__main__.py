"""``python -m torch_mlx_spectro`` and ``torch-mlx-spectro``: the same program."""

import sys


def main() -> int:
    """Run one command; 130 when it is interrupted. Here nothing is imported outside of the try."""
    try:
        from . import interrupts

        interrupts.end_at_once()
        from .cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
