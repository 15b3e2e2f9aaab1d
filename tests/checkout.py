"""Where this checkout is."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
METAL_SRC = ROOT / "metal_src"
EXAMPLES = ROOT / "examples"
