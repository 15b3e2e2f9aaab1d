"""Shows what ``doctor`` found: as tables for a person, as Markdown for an issue, as commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from ..backends import registry
from ..terminal import make_console, table
from .anonymous import cut_paths
from .findings import LEVELS, NEXT

#: Packages whose versions everybody wants to know.
_CHIEF = ("torch_mlx_spectro", "torch", "mlx", "python", "macos")
#: Who computes by default: the tables of ``--verbose`` show how it stands before any call.
AUTO = (
    "By default torch itself computes small calls on the CPU. The first of all other calls are"
    " timed, and the fastest backend computes those that follow."
)


def print_summary(found: Mapping[str, Any], stream: TextIO) -> None:
    """Print the verdict, what to do next, and which backends are here."""
    console = make_console(stream)
    findings = found["findings"]
    console.print(_judge(found), style="bold green" if found["ok"] else "bold red")
    for finding in findings:
        console.print(_line(finding))
        for command in finding["fix"] if finding["level"] != "note" else ():
            console.print(f"    {command}", soft_wrap=True)  # in one piece, to be copied
    if found["ok"]:
        console.print(f"Next: {NEXT}")
    if "backends" in found:
        rows = [
            (name, *_describe_backend(name, backend, found["self_checks"]))
            for name, backend in found["backends"].items()
            if name != registry.NATIVE
        ]
        console.print(table(("backend", "here", "self-check"), rows=rows))
        console.print(AUTO)
    versions = [
        f"{name} {found['versions'][name] or 'not installed'}"
        for name in _CHIEF
        if found["versions"][name] or name != "macos"
    ]
    console.print(", ".join(versions))
    if "backends" in found:
        console.print("`torch-mlx-spectro doctor --verbose` shows everything that was looked at.")


def _judge(found: Mapping[str, Any]) -> str:
    counts = Counter(finding["level"] for finding in found["findings"])
    listed = [f"{n} {level}{'s' * (n > 1)}" for level in LEVELS if (n := counts[level])]
    verdict = "All is well" if found["ok"] else "Not all is well"
    joined = ", with " if found["ok"] else ": "
    return f"{verdict}{joined if listed else ''}{', '.join(listed)}."


def _describe_backend(
    name: str, backend: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    """Say whether a backend is here, and how its self-checks ended."""
    ended = [
        f"{'passed' if check['ok'] else 'FAILED'} on {check['device']}"
        for check in checks
        if check["backend"] == name
    ]
    return "yes" if backend["available"] else f"no: {backend['reason']}", ", ".join(ended)


def print_tables(found: Mapping[str, Any], stream: TextIO) -> None:
    """Print everything that was looked at."""
    console = make_console(stream)
    for title, header, rows in (*_list_installation(found), *_list_computation(found)):
        console.print(table(header, title=title, rows=rows))


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
    examined = "backends" in found  # torch is here
    computation = _list_computation(found) if examined else ()
    for title, header, rows in (*_list_versions(found), *computation):
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
    if "backends" not in found:
        return [("Versions", ("", ""), tuple(versions.items()))]
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
        ("cpu", f"transforms by {processes['transforms']}; threads share {processes['sharing']}"),
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
    reasons = reasons.replace("auto: ", "")  # the column's heading says so
    if backend in (registry.NATIVE, "none"):
        return f"{backend}: {reasons}" if reasons else str(backend)
    return str(kernel) if kernel.startswith(backend) else f"{backend}: {kernel}"
