"""The report as JSON: its types, and a check that a file has them.

``VERSION`` grows when earlier files can no longer be read; new keys do not change it.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from typing import Any, TypedDict, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

SCHEMA = "torch-mlx-spectro-bench"
VERSION = 1
#: A table by itself, whose report is another: nothing is measured (:mod:`.metal`).
METAL_TABLE = "metal"
SUBMISSION_SCHEMA, SUBMISSION_VERSION = "torch-mlx-spectro-submission", 1


class Summary(TypedDict):
    """The median and the quartiles of some numbers, and how many there are."""

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


class Location(TypedDict):
    """One operation on one size by one backend."""

    table: str
    operation: str
    case: CaseFacts
    backend: str


class Timing(Location):
    """The times of one operation on one size by one backend.

    ``passes`` has seconds of a call, in the order in which they were taken. Numbers at the same
    place for two backends were taken one after the other. ``ratio`` is of those pairs: native's
    time over this backend's (null for native itself). ``computed_by``: the backends that the calls
    were counted for. ``batch``: calls between two readings of the clock.
    """

    computed_by: list[str]
    batch: int
    passes: list[list[float]]
    seconds: Summary
    ratio: Summary | None


class Accuracy(TypedDict):
    """The largest absolute errors on one size by one backend, for noise of unit variance.

    ``round_trip`` is how far istft(stft(x)) is from x. ``stft`` and ``istft`` are compared with the
    same computation in float64.
    """

    case: CaseFacts
    backend: str
    round_trip: float
    stft: float
    istft: float


class Cost(TypedDict):
    """Another measured number; ``unit`` is its unit."""

    what: str
    value: float
    unit: str
    native: float | None


class Failure(Location):
    """An operation that a backend did not compute, or computed wrong."""

    reason: str


class Machine(TypedDict):
    """The machine of the measurements, without names of hosts, users or folders.

    ``load`` is how many processes wanted a CPU in the minute before; null where the system does not
    count them.
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
    """The settings of the measurements, see :class:`.running.Settings`."""

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


class ParityFacts(TypedDict):
    """The quick parity cases by one backend, strict; ``failures`` has each case that failed."""

    backend: str
    ok: bool
    counts: dict[str, int]
    routes: dict[str, int]
    problems: list[str]
    failures: list[dict[str, Any]]


class Submission(TypedDict):
    """What ``--submit-file`` writes; ``doctor`` is the object that ``doctor --json`` prints."""

    schema: str
    version: int
    bench: Report
    parity: list[ParityFacts]
    doctor: dict[str, Any]


class Invalid(ValueError):
    """A file is not a report, or is of a version that this package does not know."""


def to_json(value: Any) -> str:
    """Write a value as JSON text; its numbers have to be finite."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def read_report(text: str) -> Report:
    """Read the report in a JSON text.

    Raises:
        Invalid: the text is not a report.
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
    return cast(Report, found)


def check(value: Any, wanted: Any, where: str) -> None:
    """Check a JSON value against a type made of TypedDict, list, dict, unions and scalars.

    Raises:
        Invalid: it does not fit; names the first place that does not.
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    parts: list[tuple[Any, Any, str]] = []
    if origin in (Union, types.UnionType):
        others = [] if value is None and type(None) in arguments else arguments
        parts = [(value, argument, where) for argument in others if argument is not type(None)]
    elif is_typeddict(wanted):
        hints = get_type_hints(wanted)
        if not isinstance(value, Mapping):
            raise Invalid(f"{where}: no {wanted.__name__}")
        if missing := hints.keys() - value.keys():
            raise Invalid(f"{where}: no {wanted.__name__}, lacks {', '.join(sorted(missing))}")
        parts = [(value[key], hint, f"{where}.{key}") for key, hint in hints.items()]
    elif origin is list and isinstance(value, list):
        parts = [(item, arguments[0], f"{where}[{index}]") for index, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict):
        parts = [(item, arguments[1], f"{where}.{key}") for key, item in value.items()]
    elif wanted is not Any and not _is_scalar(value, origin or wanted):
        raise Invalid(f"{where}: {value!r} is no {wanted.__name__}")
    for part in parts:
        check(*part)


def _is_scalar(value: Any, wanted: type) -> bool:
    if wanted in (int, float) and isinstance(value, bool):
        return False
    if wanted is float:  # JSON does not distinguish 1.0 and 1
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, wanted)
