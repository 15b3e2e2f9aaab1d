"""The report as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from stft_parity.report import tables
from stft_parity.results import Report


def to_json(report: Report, *, smaller: tables.Smaller | None = None) -> str:
    """The report as JSON text; numbers that JSON does not have are text.

    Args:
        report: of a run.
        smaller: of failing cases, the smallest that fail alike.
    """
    told = {"headline": tables.headline(report)} | report.as_dict()
    told["minimised"] = [
        {"of": case.reproducer(report.device), **result.as_dict()}
        for case, result in (smaller or {}).items()
    ]
    return json.dumps(_finite(told), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
