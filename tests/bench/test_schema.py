"""A report survives being a file, and what is none is told where it does not fit."""

from __future__ import annotations

import copy
import json

import pytest
from bench_reports import report

from torch_mlx_spectro.bench.schema import Invalid, read_report, to_json


def test_report_is_the_same_when_read_back():
    made = report(1)
    assert read_report(to_json(made)) == made


def test_keys_of_later_versions_are_read_past():
    made = report(1)
    made["machine"]["colour"] = "grey"
    assert read_report(to_json(made)) == made


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "of version 2, and this program reads 1"),
        (("schema",), "other", "no report of bench"),
        (("timings", 0, "passes"), [[1.0], ["x"]], r"timings\[0\]\.passes\[1\]\[0\]: 'x'"),
        (("timings", 0, "seconds"), {"median": 1.0}, r"seconds: no Summary, lacks high, low, n"),
        (("timings", 1, "ratio"), 3.0, r"ratio: no Summary"),
        (("machine", "cpus"), True, "machine.cpus: True is no int"),
        (("machine", "load"), "much", "machine.load: 'much' is no float"),
        (("machine", "versions"), {"torch": 2}, "versions.torch: 2 is no str"),
        (("failures",), {}, "failures"),
    ],
)
def test_what_does_not_fit_is_told(path, value, message):
    made = copy.deepcopy(report(1))
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Invalid, match=message):
        read_report(json.dumps(made))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_object_is_no_report(text):
    with pytest.raises(Invalid):
        read_report(text)


def test_numbers_that_json_does_not_have_are_not_written():
    made = report(1)
    made["accuracy"][0]["stft"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(made)


def test_load_may_be_unknown():
    made = report(1)
    made["machine"]["load"] = None
    assert read_report(to_json(made))["machine"]["load"] is None
