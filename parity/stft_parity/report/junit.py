"""The report as JUnit XML, which CI servers read.

They show a list of tests that failed, follow each by its name from run to run, and are slow with
tens of thousands. So the names say what was called and never how often or in which order, and of a
long run each test is a group of cases: those of one function, dtype and octave of n_fft.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree

from stft_parity.report import tables
from stft_parity.results import FAILING, Report, Result

#: Up to so many cases each is a test of its own.
MOST_TESTS = 2000

#: Failing cases whose reproducers a group's text has.
TOLD = 5


def to_junit(
    report: Report, *, smaller: tables.Smaller | None = None, most_tests: int = MOST_TESTS
) -> str:
    """The report as XML text.

    Known differences count as passed, with their reason in the output of the test; unsupported
    cases are skipped; each problem of the list of known differences is an error of its own.

    Args:
        report: of a run.
        smaller: of failing cases, the smallest that fail alike, which are told in their place.
        most_tests: beyond so many cases a test is a group of cases.
    """
    tests = _tests(report, most_tests)
    root = ElementTree.Element("testsuites", name=f"parity of {tables.printable(report.candidate)}")
    for op in dict.fromkeys(result.case.op for result in report.results):
        mine = {name: found for (of, name), found in tests.items() if of == op}
        suite = ElementTree.SubElement(root, "testsuite", name=f"torch.{op}")
        _properties(suite, report)
        # No case is timed: the run's time is spread over the cases.
        each = report.seconds / len(report.results)
        for name, results in mine.items():
            test = _test(suite, f"stft_parity.{op}", name, results)
            test.set("time", f"{each * len(results):.4f}")
            failed = [(smaller or {}).get(r.case, r) for r in results if r.failed]
            if failed:
                _failure(test, failed, len(results), report.device)
        _count(suite)
    if report.problems:
        suite = ElementTree.SubElement(root, "testsuite", name="known differences")
        for problem in report.problems:
            test = _element(suite, "testcase", classname="stft_parity.known", name=problem)
            _element(test, "error", message=problem, type="stale")
        _count(suite)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    root.set("time", f"{report.seconds:.3f}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _tests(report: Report, most_tests: int) -> dict[tuple[str, str], list[Result]]:
    """Operation and name of a test -> its cases, each of which is in one test."""
    found: dict[tuple[str, str], list[Result]] = {}
    whole = len(report.results) > most_tests
    for result in report.results:
        name = _group_name(result) if whole else _name(result)
        found.setdefault((result.case.op, name), []).append(result)
    return found


def _name(result: Result) -> str:
    """What the call passes, on one line; the seed tells calls on other values apart."""
    case = result.case
    passed = ", ".join(f"{name}={value}" for name, value in case.arguments)
    tensors = f"x={case.x}" + (f"; w={case.w}" if case.w is not None else "")
    more = f"; gradient of {', '.join(case.differentiate)}" if case.differentiate else ""
    if case.positional:
        more += f"; {case.positional} by position"
    if case.use != "plain":
        more += f"; {case.use}"
    return f"{case.op}({passed}); {tensors}{more}; seed {case.seed}"


def _group_name(result: Result) -> str:
    labels = dict(result.case.labels)
    if "model" in labels:
        return f"model {labels['model']}"
    size = labels.get("n_fft", "")
    sizes = tables.octave(int(size)) if size.isdigit() else size or "any"
    return f"dtype {labels.get('dtype', 'any')}, n_fft {sizes}"


def _properties(suite: ElementTree.Element, report: Report) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    told = {
        "headline": tables.headline(report),
        "candidate": report.candidate,
        "reference": report.reference,
        "device": report.device,
        "cases": report.selection,
        "seed": str(report.seed),
        "machine": report.machine,
        **{f"version of {name}": version for name, version in report.versions.items()},
        **{f"computed by {route}": str(count) for route, count in report.routes().items()},
    }
    for name, value in told.items():
        _element(properties, "property", name=name, value=value)


def _test(
    suite: ElementTree.Element, classname: str, name: str, results: list[Result]
) -> ElementTree.Element:
    """A test of these cases, with what is said of those that are skipped or known."""
    test = _element(suite, "testcase", classname=classname, name=name)
    accepted = [result for result in results if result.verdict in ("known", "unsupported")]
    if all(result.verdict == "unsupported" for result in results):
        _element(test, "skipped", message=_reasons(results))
    elif accepted:
        output = ElementTree.SubElement(test, "system-out")
        output.text = tables.printable(f"{len(accepted)} of {len(results)}: {_reasons(accepted)}")
    return test


def _failure(test: ElementTree.Element, failed: list[Result], of: int, device: str) -> None:
    failed = sorted(failed, key=lambda result: FAILING.index(result.failing))
    first = tables.first_diagnosis(failed[0])
    message = f"{len(failed)} of {of} cases: {first}" if of > 1 else first
    failure = _element(test, "failure", message=message, type=failed[0].failing)
    text = "\n\n".join(_describe_failure(result, device) for result in failed[:TOLD])
    if len(failed) > TOLD:
        text += f"\n\nand {len(failed) - TOLD} more"
    failure.text = tables.printable(text)


def _describe_failure(result: Result, device: str) -> str:
    lines = [
        f"{found.aspect}: {found.diagnosis}\n  reference: {found.expected}\n"
        f"  candidate: {found.actual}"
        for found in result.differences
    ]
    return "\n".join([result.failing, *lines, "to reproduce:", result.reproducer(device)])


def _reasons(results: Iterable[Result]) -> str:
    return "; ".join(dict.fromkeys(f"{result.verdict}: {result.reason}" for result in results))


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    times = (float(test.get("time", "0")) for test in suite.findall("testcase"))
    suite.set("time", f"{sum(times):.3f}")


def _element(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    clean = {name: tables.printable(value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, clean)
