"""Turn the runtime's reports into messages."""

from __future__ import annotations

from typing import Any

from .errors import (
    BarrierDivergence,
    EmulatorError,
    InactiveLane,
    KernelFault,
    Misaligned,
    OutOfBounds,
    Race,
    Rejected,
    UninitialisedRead,
    Unwritten,
)
from .library import LaunchData, Order
from .memory import OUTPUT, Argument

_DEVICE, _THREADGROUP = 1, 2


def failure(
    data: LaunchData,
    kernel: str,
    order: Order,
    arguments: list[Argument],
    arrays: tuple[str, ...],
) -> EmulatorError:
    """The exception for a launch that failed."""
    report = data.report
    who = f"{kernel}: thread {report.thread} of group {_group(data, report.group)}"
    end = f" (order {order})"
    access = "a write" if report.is_write else "a read"
    memory = f"{access} of {report.bytes} bytes at byte {report.offset} of "
    memory += _memory(data, arguments, arrays)
    kinds: dict[int, EmulatorError] = {
        1: OutOfBounds(f"{who}: {memory}{end}"),
        2: UninitialisedRead(f"{who}: {memory}, which nobody has written{end}"),
        3: Race(f"{who}: {memory}, which races with {_other(data)}{end}"),
        4: BarrierDivergence(
            f"{who} waits {_site(report.line, report.column)}, but thread {report.other_thread} "
            + (
                f"waits {_site(report.other_line, report.other_column)}"
                if report.other_line
                else "has returned"
            )
            + end
        ),
        5: KernelFault(
            f"{who}: fault at address {report.address:#x}: a wild pointer, or too deep a stack"
            f"{end}; a checked machine says more"
        ),
        6: KernelFault(f"{who}: division by zero, or an overflowing one{end}"),
        7: Rejected(
            f"{kernel}: threadgroup variables of {report.bytes} bytes up to line {report.line}; "
            f"Metal has {data.threadgroup_limit}"
        ),
        8: InactiveLane(
            f"{who}: asks {_site(report.line, report.column)} for a value of lane "
            f"{report.other_thread}, which takes no part{end}"
        ),
        9: EmulatorError(f"{kernel}: no memory for the launch"),
        10: Misaligned(
            f"{who}: {memory}, at address {report.address:#x}, no multiple of {report.bytes}{end}"
        ),
    }
    return kinds[report.failure]


def _site(line: int, column: int) -> str:
    return f"at line {line}, column {column}"


def _group(data: LaunchData, index: int) -> tuple[int, int, int]:
    groups = [-(-data.grid[d] // data.group[d]) for d in range(3)]
    return (index % groups[0], index // groups[0] % groups[1], index // groups[0] // groups[1])


def _memory(data: LaunchData, arguments: list[Argument], arrays: tuple[str, ...]) -> str:
    report = data.report
    if report.space == _DEVICE:
        argument = arguments[report.index]
        what = "output" if argument.kind == OUTPUT else "input"
        return f"{what} {argument.name!r} ({argument.memory.bytes} bytes)"
    if report.space == _THREADGROUP:
        name = arrays[report.index] if report.index < len(arrays) else str(report.index)
        return f"threadgroup variable {name!r}"
    return f"no memory of the launch (address {report.address:#x})"


def _other(data: LaunchData) -> str:
    report = data.report
    access = "a write" if report.other_write else "a read"
    where = ""
    if report.other_group != report.group:
        where = f" of group {_group(data, report.other_group)}"
    return f"{access} by thread {report.other_thread}{where}"


def check_written(kernel: str, arguments: list[Argument], buffers: Any) -> None:
    """Check that threads have written all of every output.

    Raises:
        Unwritten: they have not.
    """
    for argument, buffer in zip(arguments, buffers, strict=True):
        if buffer.first_unwritten >= 0:
            raise Unwritten(
                f"{kernel}: {buffer.unwritten} of {argument.memory.bytes} bytes of output "
                f"{argument.name!r} are written by no thread, first byte {buffer.first_unwritten}"
            )
