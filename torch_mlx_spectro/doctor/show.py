"""Shows what ``doctor`` found: as tables for a person, as Markdown for an issue, as commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from ..backends import registry
from ..terminal import make_console, table
from .anonymous import cut_paths


def print_tables(found: Mapping[str, Any], stream: TextIO) -> None:
    """Print the findings for a person."""
    console = make_console(stream)
    for title, header, rows in (*_list_installation(found), *_list_computation(found)):
        console.print(table(header, title=title, rows=rows))
    for finding in found["findings"]:
        console.print(_line(finding), soft_wrap=True)
    if found["ok"]:
        console.print(found["next"][-1], soft_wrap=True)
    elif any(finding["fix"] for finding in found["findings"]):
        console.print("`torch-mlx-spectro doctor --fix` lists the commands.", soft_wrap=True)


def print_commands(found: Mapping[str, Any], stream: TextIO) -> None:
    """Print the commands of every finding, as lines of a shell script; nothing is run."""
    lines = [
        line for finding in found["findings"] for line in (f"# {_line(finding)}", *finding["fix"])
    ]
    print(*(lines or ["# nothing to mend"]), sep="\n", file=stream)


def write_markdown(found: Mapping[str, Any]) -> str:
    """Write what an issue needs as Markdown, without paths and names of users."""
    state = "all is well" if found["ok"] else "not all is well"
    findings = [f"- {_cell(_line(finding))}" for finding in found["findings"]]
    lines = [f"### torch-mlx-spectro doctor: {state}", "", *(findings or ["- no findings"])]
    for title, header, rows in (*_list_versions(found), *_list_computation(found)):
        lines += ["", f"**{title}**", "", _row(header), _row(["---"] * len(header))]
        lines += [_row([_cell(value) for value in row]) for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return cut_paths(text).replace("|", "\\|").replace("\n", " ")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(finding: Mapping[str, Any]) -> str:
    threads = f" [{', '.join(finding['threads'])}]" if finding["threads"] else ""
    return f"{finding['level']}: {finding['text']}{threads}".replace("\n", " ")


Table = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


def _list_versions(found: Mapping[str, Any]) -> list[Table]:
    versions = {
        name: version or "not installed"
        for name, version in found["versions"].items()
        if version or name != "macos"
    } | {"platform": found["platform"], "CPUs": str(found["cpu_count"])}
    states = {
        name: "available" if backend["available"] else f"not available: {backend['reason']}"
        for name, backend in found["backends"].items()
    }
    values = {name: str(value) for name, value in found["settings"]["values"].items()}
    wrong = {"not in force": found["settings"]["error"]} if found["settings"]["error"] else {}
    return [
        ("Versions", ("", ""), tuple(versions.items())),
        ("Backends", ("", ""), tuple(states.items())),
        ("Settings in force", ("", ""), tuple((values | wrong).items())),
    ]


def _list_installation(found: Mapping[str, Any]) -> list[Table]:
    folders = [
        (folder["name"], f"{folder['files']} files, {folder['bytes'] / 1e6:.1f} MB", folder["path"])
        for folder in found["folders"]
    ]
    return [
        *_list_versions(found),
        ("Installed in", ("", ""), (("package", found["package"]),)),
        ("Environment variables", ("", ""), tuple(found["variables"].items())),
        ("Compiled kernels on disk", ("", "", ""), folders),
    ]


def _list_computation(found: Mapping[str, Any]) -> Iterator[Table]:
    """List the tables on who computes what, which an issue needs, too."""
    processes, verdicts = found["processes"], found["verdicts"]
    expected, seen = found["mps_storage"]["expected"], found["mps_storage"]["found"]
    usually = f"(expected of this torch: {expected})"
    counts = ", ".join(f"{n} of {name}" for name, n in verdicts["counts"].items())
    rows = [
        ("storage of MPS tensors", seen if expected == seen else f"{seen} {usually}"),
        ("forked", "yes: MLX cannot be used" if processes["forked"] else "no"),
        ("workers are started by", processes["start_method"]),
        ("threads", f"torch {processes['torch_threads']}, usable CPUs {processes['cpus']}"),
        ("verdicts kept", f"{counts or 'none'}; {verdicts['path'] or 'not on disk'}"),
        *(("left to torch", name) for name in found["left"]),
        *(("quarantined", f"{key}: {why}") for key, why in verdicts["quarantined"].items()),
    ]
    yield "State", ("", ""), rows
    columns = ("", "result", "time", "largest errors", "calls")
    yield "Self-check", columns, [_check(check) for check in found["self_checks"]]
    if found["bits"]:
        compared = ("", "agrees with the emulator", "probe by probe")
        yield "Bits of the kernels' results", compared, [_bits(one) for one in found["bits"]]
    if found["pipelines"]:
        allowed = ("kernel", "threads of a group", "allowed", "SIMD width", "compiled in")
        pipelines = [_pipeline(one) for one in found["pipelines"]]
        yield "Pipelines, as torch tells them", allowed, pipelines
    for device in found["devices"]:
        asked = ("auto", *registry.list_backends(device))
        header = ("call", *(f"backend {name}" for name in asked))
        title = f"Who computes {device} tensors"
        yield title, header, tuple(_matrix_rows(found["matrix"], device, asked))
    if found["absent"]:
        yield "Other devices", ("", ""), [(name, "absent") for name in found["absent"]]


def _bits(compared: Mapping[str, Any]) -> tuple[str, ...]:
    """Describe what came of a comparison with golden.json."""
    agrees = "; ".join(compared["agrees"]) or "in no mode with all of them"
    note = f" ({compared['note']})" if compared["note"] else ""
    probes = (f"{name}: {', '.join(m) or 'none'}" for name, m in compared["probes"].items())
    return str(compared["backend"]), agrees + note, "" if compared["agrees"] else "; ".join(probes)


def _pipeline(pipeline: Mapping[str, Any]) -> tuple[str, ...]:
    allowed = str(pipeline["allowed"])
    if pipeline["error"]:
        allowed = f"REFUSED: {pipeline['error']}"
    elif pipeline["allowed"] < pipeline["group"]:
        allowed += ", too few"
    width, seconds = str(pipeline["width"]), f"{pipeline['seconds']:.2f} s"
    return str(pipeline["name"]), str(pipeline["group"]), allowed, width, seconds


def _check(check: Mapping[str, Any]) -> tuple[str, ...]:
    errors = "; ".join(
        f"{name}: {', '.join(f'{who} {value:.1e}' for who, value in found.items())}"
        for name, found in check["max_error"].items()
    )
    result = "passed" if check["ok"] else f"FAILED: {check['error']}"
    seconds = f"{check['seconds']:.2f} s"
    calls = ", ".join(f"{n} {route}" for route, n in check["calls"].items())
    return f"{check['backend']} on {check['device']}", result, seconds, errors, calls


def _matrix_rows(
    cells: Sequence[Mapping[str, Any]], device: str, asked: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    calls: dict[str, dict[str, str]] = {}
    for cell in cells:
        if cell["device"] == device:
            row = calls.setdefault(f"{cell['op']}, {cell['kind']}", {})
            row[cell["asked"]] = _who(cell)
    for call, row in calls.items():
        yield call, *(row.get(name, row.get("any", "")) for name in asked)


def _who(cell: Mapping[str, Any]) -> str:
    backend, kernel, reasons = cell["backend"], cell["kernel"], "; ".join(cell["reasons"])
    if backend in (registry.NATIVE, "none"):
        return f"{backend}: {reasons}" if reasons else str(backend)
    return str(kernel) if kernel.startswith(backend) else f"{backend}: {kernel}"
