"""The grid: how many calls it has, that none comes twice, that every pair is in it."""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import combinations, product

import pytest
import torch

from stft_parity.cases import PARAMETERS, Case
from stft_parity.cases.choices import VALUES, complete_choice, plain
from stft_parity.cases.draws import draws
from stft_parity.cases.grid import grid, quick
from stft_parity.cases.making import make_call
from stft_parity.cases.models import MODELS, models
from stft_parity.compare.observing import observe

OPS = tuple(VALUES)


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    return grid()


def pairs_of(case: Case) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    return list(combinations(sorted(case.labels), 2))


def without_labels(case: Case) -> tuple[object, ...]:
    """What the call is, as it is printed, whatever equality of cases may be."""
    return (case.op, case.reproducer(), case.fault, case.use)


def test_there_are_many_and_none_comes_twice(cases: tuple[Case, ...]) -> None:
    assert len(cases) >= 20_000
    calls = Counter((case.op, case.x, case.w, case.arguments, case.positional, case.differentiate,
                     case.use) for case in cases)  # fmt: skip
    # Not by their seeds: the same call of other noise would be the same case.
    assert max(calls.values()) == 1
    counts = Counter(case.op for case in cases)
    assert min(counts.values()) >= 10_000
    assert len({without_labels(case) for case in cases}) == len(cases)


@pytest.mark.parametrize("op", OPS)
def test_every_pair_of_values_is_there(op: str, cases: tuple[Case, ...]) -> None:
    seen = {pair for case in cases if case.op == op for pair in pairs_of(case)}
    missing = []
    for (first, of_first), (second, of_second) in combinations(VALUES[op].items(), 2):
        # A fault replaces arguments: two of its pairs may be one call.
        if "fault" in (first, second):
            continue
        for value, other in product(of_first, of_second):
            forced = {first: value, second: other}
            choice = complete_choice(op, plain(op), forced)
            no_call = make_call(op, choice) is None
            # An empty batch is empty, whatever its content would be.
            alike = forced.get("rows") == "0" and "signal" in forced
            if not no_call and not alike and tuple(sorted(forced.items())) not in seen:
                missing.append(forced)
    assert missing == []


@pytest.mark.parametrize("op", OPS)
def test_few_pairs_are_no_call(op: str) -> None:
    """Where a layout does not go with a dtype and the like, and nowhere else."""
    none = Counter(
        (first, second)
        for (first, of_first), (second, of_second) in combinations(VALUES[op].items(), 2)
        for value, other in product(of_first, of_second)
        if make_call(op, complete_choice(op, plain(op), {first: value, second: other})) is None
    )
    expected = {
        ("window", "window layout"),
        ("window", "gradient"),
        ("rows", "layout"),
        ("dtype", "layout"),
    } | ({("gradient", "dtype")} if op == "stft" else set())
    of_uses = {pair: count for pair, count in none.items() if "use" in pair}
    assert set(none) - set(of_uses) == expected
    assert sum(none.values()) - sum(of_uses.values()) < 45
    # No gradient, no window, no batch, a tensor that cannot be changed.
    pairs = {(name, "use") for name in ("gradient", "window", "rows", "layout", "window layout")}
    assert set(of_uses) == pairs | ({("dtype", "use")} if op == "stft" else set())
    assert sum(of_uses.values()) <= 30


@pytest.mark.parametrize("op", OPS)
def test_every_argument_of_torchs_is_varied(op: str, cases: tuple[Case, ...]) -> None:
    passed = {name for case in cases if case.op == op and not case.fault
              for name, _ in case.arguments}  # fmt: skip
    assert passed == {"input", *PARAMETERS[op]}


@pytest.mark.parametrize("op", OPS)
def test_quick_has_every_value_and_every_derivative(op: str) -> None:
    chosen = [case for case in quick() if case.op == op]
    seen = {label for case in chosen for label in case.labels}
    for argument, values in VALUES[op].items():
        assert {value for name, value in seen if name == argument} == set(values), argument
    accepted = [case.differentiate for case in chosen if torch_accepts(case)]
    assert min(accepted.count(of) for of in (("x",), ("w",), ("x", "w"))) >= 10


def torch_accepts(case: Case) -> bool:
    args, kwargs = case.bind(case.tensors())
    return observe(getattr(torch, case.op), args, kwargs).error is None


def test_most_of_the_grid_is_accepted_and_much_is_not(cases: tuple[Case, ...]) -> None:
    """Both are worth comparing; a grid of rejected calls would show little."""
    sample = cases[::200]
    share = sum(map(torch_accepts, sample)) / len(sample)
    assert 0.5 < share < 0.8


def test_nothing_but_the_call_warns(cases: tuple[Case, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in cases[::31]:
            case.bind(case.tensors())


def test_the_grid_is_the_same_in_every_run(cases: tuple[Case, ...]) -> None:
    again = grid()
    assert again == cases
    assert [case.labels for case in again] == [case.labels for case in cases]
    assert quick() == quick()


def test_draws_follow_from_their_seed() -> None:
    first = draws(1, 300)
    assert first == draws(1, 300)
    assert len(set(first) & set(draws(2, 300))) < 10
    assert len(set(first)) == 300
    assert {case.op for case in first} == set(OPS)
    assert 20 < sum(bool(case.fault) for case in first) < 100
    assert len({case.label("n_fft") for case in first}) > 100


def test_models_are_called_as_they_call() -> None:
    found = models()
    named = {case.label("model") for case in found}
    assert named == {model.name for model in MODELS}
    for word in ("MDX", "VR", "Demucs", "Roformer", "Whisper", "Kaldi", "librosa", "HiFi-GAN"):
        assert any(word in name for name in named), word
    assert all(torch_accepts(case) for case in found[::17])
    sizes = {(case.label("n_fft"), dict(case.arguments)["hop_length"]) for case in found}
    assert sizes >= {("6144", "1024"), ("7680", "1024"), ("4096", "1024"), ("2048", "441"),
                     ("2048", "512"), ("400", "160"), ("1024", "256")}  # fmt: skip


def test_labels_do_not_make_another_case() -> None:
    plainest = make_call("stft", plain("stft"))
    labelled = make_call("stft", plain("stft"), more={"model": "none"})
    assert plainest == labelled
    assert plainest is not None
    assert labelled is not None
    assert labelled.label("model") == "none"
    assert plainest.label("model") == ""
