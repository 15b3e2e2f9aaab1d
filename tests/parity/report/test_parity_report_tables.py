from __future__ import annotations

from collections import Counter

import pytest
from reports import mixed, report, result, well

from stft_parity.report import tables


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (1, "1"),
        (2, "2-3"),
        (3, "2-3"),
        (4, "4-7"),
        (1023, "512-1023"),
        (1024, "1024-2047"),
    ],
)
def test_octaves_are_between_powers_of_two(number: int, expected: str) -> None:
    assert tables.octave(number) == expected


def test_few_values_keep_their_names_and_many_are_shown_by_octaves() -> None:
    few = tables.by_argument(mixed())["n_fft"]
    assert list(few) == ["1", "4", "5", "16", "64", "100", "512"]
    many = tables.by_argument(well())
    assert list(many["n_fft"]) == ["1", "2-3", "4-7", "8-15", "16-31", "32-63"]
    assert many["n_fft"]["32-63"] == Counter({"pass": 28})
    assert list(many["rows"]) == ["0", "1", "2"]


def test_no_case_is_lost_in_the_table() -> None:
    for made in (mixed(), well()):
        for argument, values in tables.by_argument(made).items():
            assert sum(sum(c.values()) for c in values.values()) == len(made.results), argument


def test_names_come_before_numbers() -> None:
    assert tables.in_order(["10", "default", "9", "4-7"]) == ["default", "4-7", "9", "10"]
    assert tables.in_order(["3d", "b", "1"]) == ["3d", "b", "1"]


def test_cases_with_the_same_cause_are_one_group_the_largest_first() -> None:
    cause = "scaled by {} (this case does not tell it from that (at all))"
    found = [
        result("differs", seed=n, diagnosis=cause.format(n / 8), window="hann", n_fft=str(n % 2))
        for n in range(3)
    ]
    found.append(result("differs", diagnosis="scaled", op="istft", window="hann"))
    found.append(result("raised", diagnosis="scaled by 3", window="hann"))
    found += [result(window="ones", n_fft="1", seed=n) for n in range(9)]
    groups = tables.groups(report(*found))
    assert [(g.op, g.verdict, len(g.results)) for g in groups] == [
        ("stft", "differs", 3),
        ("istft", "differs", 1),
        ("stft", "raised", 1),
    ]
    assert groups[0].diagnosis == cause.format(0.0)


def test_a_group_tells_what_its_cases_share_and_few_others_have() -> None:
    found = [result("differs", seed=n, pad_mode="replicate", center="True") for n in range(3)]
    found += [result(seed=n, pad_mode="replicate", center="True") for n in range(3, 4)]
    found += [result(seed=n, pad_mode="reflect", center="True") for n in range(10)]
    (group,) = tables.groups(report(*found))
    assert group.telling == (("pad_mode", "replicate", 0.75),)


def test_a_single_case_shares_nothing() -> None:
    found = [result("differs", pad_mode="replicate"), *(result(pad_mode="x") for _ in range(9))]
    (group,) = tables.groups(report(*found))
    assert group.telling == ()


def test_aspects_are_those_of_all_cases_of_the_group_in_their_order() -> None:
    found = [
        result("differs", aspects=["values", "repeatability"]),
        result("differs", aspects=["values", "gradient of input"], seed=1),
    ]
    (group,) = tables.groups(report(*found))
    assert group.aspects == ("values", "gradient of input", "repeatability")


def test_the_smallest_case_stands_in_for_the_one_it_was_made_of() -> None:
    failing = [result("differs", seed=n) for n in range(4)]
    small = result("differs", seed=99)
    (group,) = tables.groups(report(*failing))
    assert group.shown({failing[0].case: small}, 2) == (small, failing[1])


def test_a_value_is_telling_when_many_more_of_its_cases_fail() -> None:
    assert tables.is_distinctive(Counter({"pass": 4, "differs": 1}), 0.1)
    assert not tables.is_distinctive(Counter({"pass": 5, "differs": 1}), 0.1)
    assert not tables.is_distinctive(Counter({"pass": 1}), 0.0)


def test_reasons_are_counted() -> None:
    assert tables.reasons(mixed(), "unsupported") == Counter({"pad_mode='circular'": 1})
    assert tables.reasons(report(result("unsupported")), "unsupported") == {"no reason given": 1}


def test_what_is_unsupported_was_not_compared() -> None:
    assert not tables.is_compared(report())
    assert not tables.is_compared(report(result("unsupported")))
    assert tables.is_compared(report(result("unsupported"), result("raised")))


def test_failing_counts_the_failing_verdicts_alone() -> None:
    verdicts = ("pass", "known", "unsupported", "differs", "raised", "fell back")
    assert tables.count_failing(Counter(dict.fromkeys(verdicts, 1))) == 3


def test_what_neither_xml_nor_a_terminal_should_get_is_marked() -> None:
    assert (
        tables.printable("a\0b\x1bc\td\n\ud800\uffffü😀") == "a\ufffdb\ufffdc\td\n\ufffd\ufffdü😀"
    )
