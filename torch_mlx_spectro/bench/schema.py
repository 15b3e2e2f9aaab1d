"""The report as JSON: its types, and what checks that a file has them.

``VERSION`` grows when a file of before could not be read any more; new keys do not change it.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

SCHEMA = "torch-mlx-spectro-bench"
VERSION = 1


class Summary(TypedDict):
    """Of some numbers: the median, the quartiles, and how many there are."""

    median: float
    low: float
    high: float
    n: int


class CaseFacts(TypedDict):
    """A size, see :class:`.cases.Case`."""

    rows: int
    samples: int
    n_fft: int
    hop_length: int


class Timing(TypedDict):
    """One operation on one size by one backend.

    ``passes`` has seconds of a call, in the order in which they were taken; numbers at the same
    place of two backends were taken one after the other, and ``ratio`` is of those pairs: native's
    time over this backend's (null of native itself). ``computed_by``: the backends that the calls
    were counted for. ``batch``: calls between two looks at the clock.
    """

    table: str
    operation: str
    case: CaseFacts
    backend: str
    computed_by: list[str]
    batch: int
    passes: list[list[float]]
    seconds: Summary
    ratio: Summary | None


class Accuracy(TypedDict):
    """Largest absolute errors on one size by one backend, of noise of unit variance.

    ``round_trip`` is how far istft(stft(x)) is from x; ``stft`` and ``istft`` are against the same
    computation in float64.
    """

    case: CaseFacts
    backend: str
    round_trip: float
    stft: float
    istft: float


class Cost(TypedDict):
    """Something else that was measured: ``unit`` says what the value is."""

    what: str
    value: float
    unit: str
    native: float | None


class Failure(TypedDict):
    """What a backend did not do, or did wrong."""

    table: str
    operation: str
    case: CaseFacts
    backend: str
    reason: str


class Machine(TypedDict):
    """What the numbers were measured on; has no names of hosts, users or folders.

    ``load`` is how many processes wanted a CPU in the minute before, as the system counts them;
    null where it does not.
    """

    processor: str
    cpus: int
    threads: int
    device: str
    device_name: str
    system: str
    system_release: str
    load: float | None
    versions: dict[str, str]


class Settings(TypedDict):
    """How it was measured: see :class:`.running.Settings`."""

    backends: list[str]
    tables: list[str]
    passes: int
    samples: int
    warm_up: int
    seconds_per_case: float


class Report(TypedDict):
    """One run."""

    schema: str
    version: int
    package: str
    machine: Machine
    settings: Settings
    timings: list[Timing]
    accuracy: list[Accuracy]
    costs: list[Cost]
    failures: list[Failure]
    unavailable: dict[str, str]


class Invalid(ValueError):
    """A file is no report, or one of a version that is not known here."""


def to_json(value: Any) -> str:
    """JSON text, of finite numbers only."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_report(text: str) -> Report:
    """The report that a JSON text holds.

    Raises:
        Invalid: it is none.
    """
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise Invalid(f"no JSON: {error}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise Invalid(f"no report of bench: its schema is not {SCHEMA!r}")
    if found.get("version") != VERSION:
        raise Invalid(f"of version {found.get('version')!r}, and this program reads {VERSION}")
    check(found, Report, "report")
    report: Report = found  # type: ignore[assignment]  # checked
    return report


def check(value: Any, wanted: Any, where: str) -> None:
    """Check a JSON value against a type made of TypedDict, list, dict, unions and scalars.

    Raises:
        Invalid: naming the first place that does not fit.
    """
    if is_typeddict(wanted):
        hints = get_type_hints(wanted)
        if not isinstance(value, Mapping) or (missing := hints.keys() - value.keys()):
            lacks = (
                "" if not isinstance(value, Mapping) else f", lacks {', '.join(sorted(missing))}"
            )
            raise Invalid(f"{where}: no {wanted.__name__}{lacks}")
        for key, hint in hints.items():
            check(value[key], hint, f"{where}.{key}")
        return
    if wanted is Any:
        return
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return
        (wanted,) = (argument for argument in arguments if argument is not type(None))
        check(value, wanted, where)
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            check(item, arguments[0], f"{where}[{index}]")
    elif origin is dict and isinstance(value, dict):
        for key, item in value.items():
            check(item, arguments[1], f"{where}.{key}")
    elif not _is_scalar(value, origin or wanted):
        raise Invalid(f"{where}: {value!r} is no {wanted.__name__}")


def _is_scalar(value: Any, wanted: type) -> bool:
    if wanted is float:  # JSON does not tell 1.0 from 1
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
