"""``python -m torch_mlx_spectro`` is the same program as ``torch-mlx-spectro``."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
