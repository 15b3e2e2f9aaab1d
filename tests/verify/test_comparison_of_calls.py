"""Shadow mode: a wrong backend is found at the Nth call, answered natively, and told once."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python
from patched import NATIVE, verify_drawn
from small_calls import istft_case, stft_case

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from stft_parity.compare import tolerances
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.calls import operation as operations
from torch_mlx_spectro.calls.kind import Route
from torch_mlx_spectro.dispatch import checking
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import Trials
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.verify import comparison, criterion
from torch_mlx_spectro.verify.ledger import make_case

SIGNAL = torch.randn(3, 120, generator=torch.Generator().manual_seed(1))
WINDOW = torch.hann_window(16)
SPECTRUM = NATIVE["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True)

Wrong = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def _nothing_verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TORCH_MLX_SPECTRO_VERIFY", raising=False)
    deciding.ledger.clear()
    yield
    deciding.ledger.clear()


def stft(x: torch.Tensor = SIGNAL, n_fft: int = 16, **more: Any) -> torch.Tensor:
    window = torch.hann_window(n_fft)
    result: torch.Tensor = torch.stft(x, n_fft, 4, window=window, return_complex=True, **more)
    return result


def istft(z: torch.Tensor = SPECTRUM, **more: Any) -> torch.Tensor:
    return torch.istft(z, 16, 4, window=WINDOW, **more)


def spoil(monkeypatch: pytest.MonkeyPatch, op: str, wrong: Wrong) -> None:
    """Make MLX compute something else."""
    name = "analyse" if op == "stft" else "synthesise"
    right = getattr(MLX, name)
    monkeypatch.setattr(MLX, name, lambda *given: wrong(right(*given)))


def off_by_a_thousandth(result: torch.Tensor) -> torch.Tensor:
    return result.mul_(1.001)


def counts() -> tuple[int, int, int, int]:
    stats = tms.stats()
    return stats.accelerated, stats.native, stats.verified, stats.mismatches


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_wrong_backend_is_found_at_the_nth_call(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "stft", off_by_a_thousandth)
    expected = NATIVE["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True)
    with tms.patch("mlx", verify=every):
        for _ in range(every - 1):
            assert not torch.equal(stft(), expected)
        with pytest.warns(RuntimeWarning, match="stft computed by mlx") as told:
            assert torch.equal(stft(), expected)
        assert told[0].filename == __file__
        assert torch.equal(stft(), expected)  # without a warning
        route = tms.explain(torch.stft, SIGNAL, 16, 4, window=WINDOW, return_complex=True)
        assert istft().shape == (3, 120)
    assert route.backend == "native"
    (reason,) = route.reasons
    assert reason.startswith("verification: mlx (mlx cpu blocks) was wrong for stft of n_fft 16")
    assert tms.stats().fallbacks == {reason: 2}
    # The one istft is verified where every call is.
    assert counts() == (every, 2, 1 + (every == 1), 1)
    assert tms.stats().as_dict()["mismatches"] == 1


def test_without_verification_nothing_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "stft", off_by_a_thousandth)
    monkeypatch.setattr(checking, "Check", None)
    for verify in (0, None):
        with tms.patch("mlx", strict=True, verify=verify):
            stft()
    assert counts() == (2, 0, 0, 0)


def test_calls_that_take_turns_are_all_verified() -> None:
    with tms.patch("mlx", strict=True, verify=2):
        for _ in range(4):
            stft()
            istft()
    assert counts() == (8, 0, 4, 0)


def test_native_calls_are_not_verified() -> None:
    with tms.patch("native", verify=1):
        stft()
    with tms.patch("auto", verify=1):
        stft()  # small
    with tms.patch("mlx", verify=1):
        stft(SIGNAL.double())
    assert counts() == (0, 3, 0, 0)


def test_auto_verifies_what_it_gives_to_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trials, "pick", lambda self, signature, candidates: (candidates[0], True))
    right = CPU.analyse
    monkeypatch.setattr(CPU, "analyse", lambda *given: off_by_a_thousandth(right(*given)))
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    x, w = torch.randn(1, 1 << 18), torch.ones(1024)
    with tms.patch("auto", verify=1), pytest.warns(RuntimeWarning, match="computed by cpu"):
        z = torch.stft(x, 1024, 256, window=w, return_complex=True)
    assert torch.equal(z, NATIVE["stft"](x, 1024, 256, window=w, return_complex=True))
    with tms.patch("auto"):
        torch.stft(x, 1024, 256, window=w, return_complex=True)
    assert counts() == (0, 2, 1, 1)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_double_precision_is_compared_as_such(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """Single precision inside of it is wrong."""
    window = torch.hann_window(64, dtype=torch.float64) + 0.1
    signal = torch.randn(2, 2000, dtype=torch.float64)
    spectrum = NATIVE["stft"](signal, 64, window=window, return_complex=True)
    tensor, given = (spectrum, {}) if op == "istft" else (signal, {"return_complex": True})

    def call() -> torch.Tensor:
        result: torch.Tensor = getattr(torch, op)(tensor, 64, window=window, **given)
        return result

    with tms.patch("cpu", strict=True, verify=1):
        call()
    assert counts() == (1, 0, 1, 0)
    name = "analyse" if op == "stft" else "synthesise"
    right = getattr(CPU, name)
    single = torch.complex64 if op == "stft" else torch.float32

    def compute(*args: Any) -> torch.Tensor:
        result: torch.Tensor = right(*args)
        return result.copy_(result.to(single))

    plans.clear()
    monkeypatch.setattr(CPU, name, compute)
    with tms.patch("cpu", verify=1), pytest.warns(RuntimeWarning, match="computed by cpu"):
        call()
    assert counts() == (1, 1, 2, 1)


FAULTS: dict[str, tuple[str, Wrong]] = {
    "one sample of one row": ("stft", lambda z: z.index_put_((torch.tensor(1),), z[1] * 1.001)),
    "half precision": ("stft", lambda z: torch.view_as_complex(torch.view_as_real(z).half() + 0.0)),
    "conjugated": ("stft", lambda z: z.conj().resolve_conj()),
    "NaN": ("stft", lambda z: z.index_fill_(2, torch.tensor(4), float("nan"))),
    "contiguous": ("stft", lambda z: z.contiguous()),
    "shape": ("stft", lambda z: z[:, :, 1:]),
    "dtype": ("stft", lambda z: z.to(torch.complex128)),
    "scaled": ("istft", off_by_a_thousandth),
    "late by a sample": ("istft", lambda y: y.roll(1, 1)),
    "infinite": ("istft", lambda y: y.index_fill_(1, torch.tensor(0), float("inf"))),
    "requires grad": ("istft", lambda y: y.requires_grad_()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_difference_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, wrong = FAULTS[fault]
    spoil(monkeypatch, op, wrong)
    call = {"stft": stft, "istft": istft}[op]
    expected = call()
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match=f"{op} computed by"):
        answer = call()
    assert torch.equal(answer, expected)
    assert (answer.stride(), answer.dtype) == (expected.stride(), expected.dtype)
    assert counts()[2:] == (1, 1)


@pytest.mark.parametrize("at_once", [1, 2 * SPECTRUM[0].numel(), 1 << 22])
def test_the_last_row_is_compared_however_many_are_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criterion, "COMPARED_AT_ONCE", at_once)
    spoil(monkeypatch, "stft", lambda z: z.index_put_((torch.tensor(2),), z[2] * 1.01))
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="in row 2,"):
        stft()


def test_a_quiet_row_is_judged_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = SIGNAL * torch.tensor([[1.0], [1e-5], [1.0]])
    spoil(monkeypatch, "stft", lambda z: z.index_put_((torch.tensor(1),), z[1] * 1.01))
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="in row 1,"):
        stft(quiet)


def test_native_raises_what_ours_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("stft(): no")

    op = replace(operations.STFT, native=refuse, small=0)
    resolve = deciding._resolve
    monkeypatch.setattr(deciding, "_resolve", lambda _, bound: resolve(operations.STFT, bound))
    choice = routing.Choice("mlx", verify=1)
    given = {"hop_length": 4, "window": WINDOW, "return_complex": True}
    with (
        pytest.warns(RuntimeWarning, match=r"native torch raises RuntimeError: stft\(\): no"),
        pytest.raises(RuntimeError, match=r"^stft\(\): no$"),
    ):
        dispatching.dispatch(op, choice, (SIGNAL, 16), given, sys._getframe())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_to_verify_is_no_mismatch(error: Exception) -> None:
    bound = operations.STFT.bind(SIGNAL, 16, 4, window=WINDOW, return_complex=True)

    def exhausted(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise error

    params = deciding._resolve(operations.STFT, bound)
    case = make_case(Route("stft", "mlx", "a kernel"), params, SIGNAL, WINDOW)
    check = comparison.Check(exhausted, case, bound, (SIGNAL, 16), {})
    assert check.compare(params, SPECTRUM)[:2] == (False, "")


def test_where_a_device_has_no_memory_for_it_the_host_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices: list[str] = []
    compare = criterion._compare_values

    def compare_values(call: criterion.Comparison, *results: torch.Tensor) -> str | None:
        devices.append(str(call.device))
        if call.device != "cpu":
            raise torch.OutOfMemoryError("no memory")
        return compare(call, *results)

    monkeypatch.setattr(criterion, "_compare_values", compare_values)
    result = torch.randn(2, 9, 5)
    call = criterion.Comparison(
        recompute=lambda tensor, window: result.double(),
        tensor=result,
        window=None,
        n_fft=16,
        batched=True,
        pairs=False,
        recorded=False,
        device=torch.device("cuda", 0),
    )
    assert criterion.find_difference(call, result, result.clone()) is None
    assert "error against float64" in str(criterion.find_difference(call, result, result * 1.1))
    assert devices == ["cuda:0", "cpu"] * 2


def test_input_that_is_written_to_meanwhile_is_not_judged() -> None:
    x = SIGNAL.clone()
    bound = operations.STFT.bind(x, 16, 4, window=WINDOW, return_complex=True)
    params = deciding._resolve(operations.STFT, bound)
    given = {"hop_length": 4, "window": WINDOW, "return_complex": True}
    case = make_case(Route("stft", "mlx", "a kernel"), params, x, WINDOW)
    check = comparison.Check(NATIVE["stft"], case, bound, (x, 16), given)
    assert check.compare(params, SPECTRUM)[:2] == (True, "")
    x.mul_(2)
    assert check.compare(params, SPECTRUM)[:2] == (False, "")


def test_strict_mode_raises_instead_of_answering_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "istft", off_by_a_thousandth)
    with tms.patch("mlx", strict=True, verify=1):
        with (
            pytest.warns(RuntimeWarning, match="istft computed by mlx"),
            pytest.raises(tms.NotAccelerated) as first,
        ):
            istft()
        with pytest.raises(tms.NotAccelerated) as second:
            istft()
    assert first.value.reasons == second.value.reasons
    assert first.value.reasons[0].startswith("verification: mlx (mlx cpu blocks) was wrong")
    assert counts() == (0, 0, 1, 1)


def test_quarantine_outlives_the_patch_that_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as spoiled:
        spoil(spoiled, "stft", off_by_a_thousandth)
        with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="stft"):
            stft()
    tms.reset_stats()
    with tms.patch("mlx"):
        stft()
        assert counts() == (0, 1, 0, 0)
        stft(n_fft=20)  # another route
        stft(SIGNAL[0])
        assert counts() == (2, 1, 0, 0)


def test_a_differentiated_answer_keeps_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    x = SIGNAL.clone().requires_grad_()
    (expected,) = torch.autograd.grad(stft(x).abs().square().sum(), x)
    with tms.patch("mlx", strict=True, verify=1):
        z = stft(x)
        assert counts() == (1, 0, 1, 0)
        (ours,) = torch.autograd.grad(z.abs().square().sum(), x)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    spoil(monkeypatch, "stft", off_by_a_thousandth)
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="stft"):
        z = stft(x)
    (native,) = torch.autograd.grad(z.abs().square().sum(), x)
    assert torch.equal(native, expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context: Callable[[], Any]) -> None:
    x = SIGNAL.clone().requires_grad_()
    with tms.patch("mlx", strict=True, verify=1), context():
        istft(stft(x))
        istft(stft(x.detach().clone()))
    assert counts() == (4, 0, 4, 0)


def test_transformed_calls_are_computed_and_not_compared() -> None:
    with tms.patch("mlx", strict=True, verify=1):
        torch.func.vmap(lambda x: stft(x))(SIGNAL.reshape(3, 1, 120))
        torch.func.grad(lambda x: stft(x).abs().sum())(SIGNAL)
    assert counts() == (2, 0, 0, 0)


def test_a_compiled_program_is_verified_when_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(x: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, 16, 4, window=WINDOW, return_complex=True) * 2

    torch.compiler.reset()
    x = SIGNAL.clone().requires_grad_()
    (expected,) = torch.autograd.grad(program(x).abs().square().sum(), x)
    with tms.patch("mlx", verify=2):
        compiled = torch.compile(program, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            compiled(SIGNAL)
        assert counts() == (2, 0, 1, 0)
        spoil(monkeypatch, "stft", off_by_a_thousandth)
        compiled(x)
        with pytest.warns(RuntimeWarning, match="stft computed by mlx") as told:
            z = compiled(x)
        assert counts() == (3, 1, 2, 1)
        assert torch.equal(z, NATIVE["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True) * 2)
        (gradient,) = torch.autograd.grad(z.abs().square().sum(), x)
    torch.compiler.reset()
    assert len(told) == 1
    torch.testing.assert_close(gradient, expected)


def test_the_warnings_lines_reproduce_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "stft", off_by_a_thousandth)
    x = torch.randn(120, 3).t()[:, 5:].requires_grad_()
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="stft") as told:
        torch.stft(x, 16, hop_length=3, window=WINDOW, pad_mode="circular", return_complex=True)
    text = str(told[0].message)
    assert "torch-mlx-spectro doctor --json" in text
    program = text[text.index("import torch") :]
    deciding.ledger.clear()
    names: dict[str, Any] = {}
    with pytest.warns(RuntimeWarning, match="stft") as again:
        exec(program, names)
    assert names["x"].stride() == x.stride()
    assert names["x"].requires_grad
    text = str(again[0].message)
    assert text[text.index("import torch") :] == program


@pytest.mark.parametrize(
    "case",
    [
        istft_case("torch.randn((9, 20), dtype=torch.complex64, generator=g).conj()"),
        stft_case("torch.randn((3, 120), dtype=torch.complex64, generator=g)", None),
        stft_case("torch.randn(120, generator=g).expand(3, 120)", "torch.ones(16) + 0j"),
    ],
    ids=["conjugated", "complex", "expanded"],
)
def test_reproducers_of_other_layouts_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, case.op, off_by_a_thousandth)
    with tms.patch("mlx", verify=1), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        case.call(getattr(torch, case.op))
    (text,) = (str(given.message) for given in told if "computed by" in str(given.message))
    deciding.ledger.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        exec(text[text.index("import torch") :], {})
    assert any("computed by mlx" in str(given.message) for given in told)


def test_verification_gives_no_warnings_of_its_own() -> None:
    """Also where torch repeats its once-only ones: each is given once, by the call itself."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        told: dict[int, list[str]] = {}
        for verify in (0, 1):
            with (
                tms.patch("mlx", strict=True, verify=verify),
                warnings.catch_warnings(record=True) as caught,
            ):
                warnings.simplefilter("always")
                torch.stft(SIGNAL, 16, return_complex=False)
                torch.istft(SPECTRUM, 16, 4, length=1000)
            told[verify] = [str(given.message) for given in caught]
        assert told[0] == told[1]
        assert len(told[0]) >= 3
        assert torch.is_warn_always_enabled()
    finally:
        torch.set_warn_always(before)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_no_correct_call_is_found_wrong(op: str) -> None:
    verified = verify_drawn(op, 15, lambda case, function: case.call(function))
    assert counts() == (verified, 0, verified, 0)
    assert verified > 5


def test_small_envelopes_and_flushed_numbers_are_right() -> None:
    """Native's error is large where the envelope is small, and nobody's fault."""
    window = torch.hann_window(64, periodic=False) + 3e-6
    z = torch.randn(2, 33, 20, dtype=torch.complex64)
    with tms.patch("mlx", strict=True, verify=1):
        torch.istft(z, 64, 16, window=window + 3e-5, center=False)
        stft(SIGNAL * 1e-38)
        stft(SIGNAL * 1e38)
        stft(torch.zeros(3, 120))
    assert counts() == (4, 0, 4, 0)


def test_threads_verify_every_nth_call_and_tell_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, calls = 6, 50
    told: list[Any] = []

    def work() -> None:
        for _ in range(calls):
            stft()

    def together() -> None:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with tms.patch("mlx", verify=10):
        together()
        assert counts() == (threads * calls, 0, threads * calls // 10, 0)
        spoil(monkeypatch, "stft", off_by_a_thousandth)
        monkeypatch.setattr(comparison, "warn", lambda *given: told.append(given))
        together()
    assert len(told) == 1
    assert counts()[0] + counts()[1] == 2 * threads * calls
    assert counts()[1] >= threads * calls - 10 * threads
    assert tms.stats().mismatches >= 1


FORKED = """\
import os, warnings, torch, torch_mlx_spectro as tms
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.dispatch import decide as deciding
warnings.simplefilter("ignore")
torch.set_num_threads(1)  # OpenMP, too, is lost in a fork
x, w = torch.randn(120), torch.hann_window(16)
right = MLX.analyse
MLX.analyse = lambda *given: right(*given).mul_(1.001)
tms.patch("mlx", verify=1)

def child_counts(*expected):
    deciding.ledger._lock.acquire()  # some thread of the parent holds it
    child = os.fork()
    if child == 0:
        torch.stft(x, 16, 4, window=w, return_complex=True)
        stats = tms.stats()
        told = (stats.accelerated, stats.native, stats.verified, stats.mismatches)
        os._exit(0 if told == expected else 1)
    deciding.ledger._lock.release()
    assert os.waitpid(child, 0)[1] == 0, expected

child_counts(0, 1, 1, 1)  # verifies by itself
torch.stft(x, 16, 4, window=w, return_complex=True)
child_counts(0, 1, 0, 0)  # what its parent found holds: nothing is computed to be compared
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forked_children_verify_or_keep_what_was_found(tmp_path: Path) -> None:
    ended = python("-c", FORKED, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_the_innermost_number_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_default", routing._Default())
    monkeypatch.setenv("TORCH_MLX_SPECTRO_VERIFY", "7")
    with tms.backend("mlx"):
        assert routing.current_choice().verify == 7
    assert routing.current_choice().verify == 7
    with tms.patch("mlx"):
        assert routing.patched_choice().verify == 7
    with tms.patch("mlx", verify=5):
        with tms.patch(verify=3):
            assert routing.patched_choice().verify == 3
        assert routing.patched_choice().verify == 5
        with tms.backend("mlx"):
            assert routing.patched_choice().verify == 5
            with tms.backend("mlx", verify=0):
                assert routing.patched_choice().verify == 0


def test_wrong_numbers_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^verify must be 0 "):
        tms.patch("mlx", verify=-1)
    with pytest.raises(ValueError, match=r"^verify must be 0 "), tms.backend("mlx", verify=1.5):  # type: ignore[arg-type]
        raise AssertionError
    monkeypatch.setenv("TORCH_MLX_SPECTRO_VERIFY", "often")
    with pytest.raises(ValueError, match=r"^TORCH_MLX_SPECTRO_VERIFY must be 0 .*'often'"):
        tms.patch("mlx")
    assert not tms.is_patched()


@pytest.mark.parametrize("name", ["OWN_ERROR", "SHARE_OF_PEAK", "ROUNDINGS"])
def test_verification_starts_from_what_the_parity_suite_admits(name: str) -> None:
    assert getattr(criterion, name) == getattr(tolerances, name)
