from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from reports import mixed, report, result, well

from stft_parity.report import tables
from stft_parity.results import Difference, Result


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


def test_cases_with_the_same_cause_are_one_group_the_most_serious_first() -> None:
    cause = "scaled by {} (this case does not tell it from that (at all))"
    found = [
        result("differs", seed=n, diagnosis="contiguous", aspects=["strides"]) for n in range(9)
    ]
    found += [result("raised", diagnosis="scaled by 3", aspects=["exception"])]
    found += [
        result("differs", seed=n, diagnosis=cause.format(n / 8), window="hann", n_fft=str(n % 2))
        for n in range(3)
    ]
    found.append(result("differs", diagnosis="scaled", op="istft", window="hann"))
    found += [
        result("differs", diagnosis="kept", aspects=["arguments", "strides"], seed=n)
        for n in (4, 5)
    ]
    found += [result(window="ones", n_fft="1", seed=n) for n in range(9)]
    groups = tables.groups(report(*found))
    assert [(g.op, g.failing, len(g.results)) for g in groups] == [
        ("stft", "wrong values", 3),
        ("istft", "wrong values", 1),
        ("stft", "raised", 1),
        ("stft", "other conventions", 2),
        ("stft", "other conventions", 9),
    ]
    assert groups[0].diagnosis == "scaled by 0.0 to 0.25"
    assert groups[3].diagnosis == "kept"


def test_a_headline_is_what_is_said_of_all_cases() -> None:
    one = "the hop is 8 (n_fft) instead of 4, off by 1.5e-3"
    found = [
        result("differs", diagnosis=one),
        result("differs", diagnosis=one.replace("n_fft", "win").replace("1.5e-3", "2e-5"), seed=1),
    ]
    (group,) = tables.groups(report(*found))
    assert group.diagnosis == "the hop is 8 instead of 4, off by 2e-5 to 1.5e-3"
    assert tables.groups(report(found[0]))[0].diagnosis == one


def test_the_most_serious_difference_names_the_group() -> None:
    first = Difference("strides", "contiguous", "", "")
    wrong = Difference("values", "the spectrum is conjugated", "", "")
    (group,) = tables.groups(report(replace(result("differs"), differences=(first, wrong))))
    assert (group.failing, group.diagnosis) == ("wrong values", "the spectrum is conjugated")
    assert group.aspects == ("strides", "values")


def test_wrong_error_texts_are_one_row_whatever_they_are() -> None:
    def refused(op: str, n: int) -> Result:
        texts = Difference("exception", f"the text {chr(97 + n)}", "", "", "error texts")
        return replace(
            result("differs", op, seed=n, error=None), accepted=False, differences=(texts,)
        )

    found = [refused(op, n) for op in ("stft", "istft") for n in range(5)]
    (group,) = tables.groups(report(*found))
    assert group.op == "stft and istft"
    assert group.diagnosis == "the exception has another text, 5 different ones"
    assert "conventions: 10 differ (error texts 10)" in tables.headline(report(*found))


def test_a_group_tells_what_its_cases_share_and_few_others_have() -> None:
    found = [result("differs", seed=n, pad_mode="replicate", center="True") for n in range(3)]
    found += [result(seed=n, pad_mode="replicate", center="True") for n in range(3, 4)]
    found += [result(seed=n, pad_mode="reflect", center="True") for n in range(10)]
    (group,) = tables.groups(report(*found))
    assert group.telling == (("pad_mode", "replicate", 4),)
    assert group.list_telling() == ["pad_mode=replicate: 3 of 4 such cases"]


def test_a_value_that_separates_perfectly_is_said_however_frequent_it_is() -> None:
    found = [
        result("differs", seed=n, n_fft="16", diagnosis=f"cause {'ab'[n % 2]}") for n in range(30)
    ]
    found += [result(seed=n, n_fft="32") for n in range(3)]
    found += [result("unsupported", n_fft="16"), replace(result(n_fft="16"), accepted=False)]
    (said,) = tables.list_separators(report(*found))
    assert (
        said == "torch.stft: values are wrong in 30 of the 30 cases with n_fft=16, and in no other"
    )
    (group,) = tables.groups(
        report(*(replace(r, differences=found[0].differences) if r.failed else r for r in found))
    )
    assert group.list_telling() == ["n_fft=16: 30 of 30 such cases, and no other"]
    (said,) = tables.list_separators(report(*found, result(n_fft="16", seed=99)))
    assert "in 30 of the 31 cases with n_fft=16" in said
    assert tables.list_separators(report(*found, result("differs", n_fft="8"))) == []


def test_the_headline_answers_first_whether_values_are_right() -> None:
    strides = [result("differs", seed=n, aspects=["strides"]) for n in range(3)]
    odd = result("differs", aspects=["dtype"], error=None)  # its values could not be compared
    known = result("known", aspects=["values"])
    made = report(*strides, odd, known, result(), result("unsupported", error=None))
    assert tables.headline(made) == (
        "values: compared in 6 cases, wrong in 1 besides 1 known; conventions: 4 differ "
        "(strides 3, dtype 1); unsupported: 1 case"
    )
    assert tables.headline(report()) == "values: compared in no case"


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([result()], 0, "as the reference"),
        ([result(), result("differs")], 1, "NOT as the reference"),
        ([result(), result("raised", aspects=["exception"])], 1, "NOT as the reference"),
        ([result(), result("differs", aspects=["strides"])], 3,
         "the reference's values, NOT its conventions"),
        ([result("unsupported")], 4, "nothing was compared"),
        ([], 4, "nothing was compared"),
    ],
)  # fmt: skip
def test_exit_codes_tell_values_conventions_and_nothing_apart(
    found: list[Result], code: int, said: str
) -> None:
    assert report(*found).exit_code == code
    assert tables.conclude(report(*found)) == said
    assert report(result(), problems=("stale",)).exit_code == 1


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
