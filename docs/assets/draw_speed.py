"""Draw the README's picture of speed-ups from a report of ``torch-mlx-spectro bench --json``.

torch-mlx-spectro bench --device cpu --backends auto --table stft,istft --json report.json
python docs/assets/draw_speed.py report.json docs/assets/speed.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, ROW, TOP, LEFT = 640, 22, 58, 230
#: Colours by function: on a light page, and on a dark one.
COLOURS = {"stft": ("#0072b2", "#56b4e9"), "istft": ("#d55e00", "#e69f00")}

STYLE = """
    :root { color-scheme: light dark; }
    text { fill: #1d2233; font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
    .page { fill: #ffffff; stroke: #d5d9e2; }
    .line { stroke: #c3c8d4; }
    .one { stroke: #1d2233; stroke-width: 1.5; }
    .stft { fill: %s; }
    .istft { fill: %s; }
    @media (prefers-color-scheme: dark) {
      text { fill: #eceef5; }
      .page { fill: #1e2129; stroke: #3a3f4d; }
      .line { stroke: #454b5b; }
      .one { stroke: #eceef5; }
      .stft { fill: %s; }
      .istft { fill: %s; }
    }
"""


def read_rows(report: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Read function, size and ratio of every measurement of ``auto``, in the report's order."""
    found = []
    for timing in report["timings"]:
        if timing["backend"] == "auto" and timing["operation"] in COLOURS and timing["ratio"]:
            case = timing["case"]
            size = f"{case['rows']} x {case['samples']:,}, n_fft {case['n_fft']}"
            found.append((timing["operation"], size, timing["ratio"]["median"]))
    return found


def draw(report: dict[str, Any]) -> str:
    """Draw a bar for each measurement, those of one size below each other."""
    rows = read_rows(report)
    sizes = list(dict.fromkeys(size for _, size, _ in rows))
    most = max(ratio for *_, ratio in rows) * 1.12
    scale = (WIDTH - LEFT - 40) / most
    height = TOP + len(sizes) * (2 * ROW + 14) + 34
    machine = report["machine"]
    title = f"times as fast as torch {machine['versions']['torch'].split('+')[0]} alone"
    parts = [
        f'<rect class="page" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10"/>',
        f'<text x="20" y="28" font-weight="bold">{escape(title)}</text>',
        f'<rect class="stft" x="{LEFT + 210}" y="17" width="12" height="12"/>',
        f'<text x="{LEFT + 228}" y="28">stft</text>',
        f'<rect class="istft" x="{LEFT + 280}" y="17" width="12" height="12"/>',
        f'<text x="{LEFT + 298}" y="28">istft</text>',
    ]
    for tick in range(int(most) + 1):
        x, kind = LEFT + tick * scale, "one" if tick == 1 else "line"
        parts.append(f'<path class="{kind}" d="M{x:.1f} {TOP - 12}V{height - 34}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 16}" text-anchor="middle">{tick}x</text>')
    for at, size in enumerate(sizes):
        top = TOP + at * (2 * ROW + 14)
        parts.append(f'<text x="20" y="{top + ROW + 4}">{escape(size)}</text>')
        for place, name in enumerate(COLOURS):
            ratios = [ratio for op, other, ratio in rows if (op, other) == (name, size)]
            for ratio in ratios:
                y, length = top + place * ROW, ratio * scale
                parts.append(
                    f'<rect class="{name}" x="{LEFT}" y="{y}" width="{length:.1f}" '
                    f'height="{ROW - 4}"><title>{name}, {escape(size)}: {ratio:.2f}x</title></rect>'
                    f'<text x="{LEFT + length + 6:.1f}" y="{y + 14}">{ratio:.2f}x</text>'
                )
    (stft, dark_stft), (istft, dark_istft) = COLOURS.values()
    style = STYLE % (stft, istft, dark_stft, dark_istft)
    words = f"{title}: {machine['device_name']}, {machine['threads']} threads"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(words)}</title>\n<style>{style}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Read the report, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    report = json.loads(given.report.read_text(encoding="utf-8"))
    given.picture.write_text(draw(report), encoding="utf-8")


if __name__ == "__main__":
    main()
