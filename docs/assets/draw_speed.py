"""Draw the README's picture of speed-ups: from the table of a page, or from a report of ``bench``.

The picture that is here::

    python docs/assets/draw_speed.py docs/measured.md docs/assets/speed.svg

One of another machine::

    torch-mlx-spectro bench --device cpu --backends auto --table stft,istft --json report.json
    python docs/assets/draw_speed.py report.json speed.svg
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, ROW, TOP, LEFT = 480, 20, 54, 200
#: Colours by function: on a light page, and on a dark one.
COLOURS = {"stft": ("#0072b2", "#56b4e9"), "istft": ("#d55e00", "#e69f00")}

#: A row of the page's first table: rows, samples, n_fft, hop; then for each function ms and ratio.
CELLS = re.compile(
    r"^\| (\d+), (\d+), (\d+), \d+ \| [\d.]+, ([\d.]+)x \| [\d.]+, ([\d.]+)x \|$", re.MULTILINE
)
#: Whose machine and torch are named above that table.
FACTS = re.compile(r"^On (.+?), (torch [\d.]+) CPU", re.MULTILINE)

#: Function, size, and how many times as fast as torch.
Row = tuple[str, str, float]

STYLE = """
    :root { color-scheme: light dark; }
    text { fill: #1d2233; font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
    .title { font-weight: bold; }
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


def name_size(rows: object, samples: object, n_fft: object) -> str:
    """Name a size in a line."""
    return f"{rows} x {int(str(samples)):,}, n_fft {n_fft}"


def read_report(report: dict[str, Any]) -> tuple[list[Row], str]:
    """Read every measurement of ``auto`` from a report, and say where it was measured."""
    found = []
    for timing in report["timings"]:
        if timing["backend"] == "auto" and timing["operation"] in COLOURS and timing["ratio"]:
            case = timing["case"]
            size = name_size(case["rows"], case["samples"], case["n_fft"])
            found.append((timing["operation"], size, timing["ratio"]["median"]))
    machine = report["machine"]
    where = f"{machine['device_name']}, {machine['threads']} threads"
    return found, f"torch {machine['versions']['torch'].split('+')[0]}, {where}"


def read_page(text: str) -> tuple[list[Row], str]:
    """Read the first table of the page of measurements, and say where it was measured."""
    facts = FACTS.search(text)
    assert facts is not None
    table = text[facts.end() :].partition("\n## ")[0]
    found = []
    for rows, samples, n_fft, *ratios in CELLS.findall(table):
        for name, ratio in zip(COLOURS, ratios, strict=True):
            found.append((name, name_size(rows, samples, n_fft), float(ratio)))
    return found, f"{facts[2]}, {facts[1]}"


def draw(rows: list[Row], where: str) -> str:
    """Draw a bar for each measurement, those of one size below each other."""
    sizes = list(dict.fromkeys(size for _, size, _ in rows))
    most = max(ratio for *_, ratio in rows) * 1.2
    scale = (WIDTH - LEFT - 16) / most
    height = TOP + len(sizes) * (2 * ROW + 14) + 34
    title = "times as fast as torch alone"
    parts = [
        f'<rect class="page" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10"/>',
        f'<text x="20" y="28" class="title">{escape(title)}</text>',
        f'<rect class="stft" x="{WIDTH - 132}" y="17" width="12" height="12"/>',
        f'<text x="{WIDTH - 116}" y="28">stft</text>',
        f'<rect class="istft" x="{WIDTH - 72}" y="17" width="12" height="12"/>',
        f'<text x="{WIDTH - 56}" y="28">istft</text>',
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
    words = f"{title}: {where}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(words)}</title>\n<style>{style}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> None:
    """Read the numbers, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    text = given.source.read_text(encoding="utf-8")
    found = read_page(text) if given.source.suffix == ".md" else read_report(json.loads(text))
    given.picture.write_text(draw(*found), encoding="utf-8")


if __name__ == "__main__":
    main()
