"""The ``mps`` backend on host tensors, its kernels in the Metal emulator."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from needs import ONCE_ONLY, needs_emulator
from opinfo_samples import SAMPLES, check_sample
from patched import check_patched
from reference import istft_params, random_tensor, stft_params

import stft_parity
import torch_mlx_spectro as tms
from stft_parity.cases import Case
from stft_parity.cases.grid import quick
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends.mps import backend as mps_backend
from torch_mlx_spectro.backends.mps.backend import MPS
from torch_mlx_spectro.backends.mps.launcher import MpsKernels, MpsProblem, mps_kernels
from torch_mlx_spectro.calls.operation import Call
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.dispatch import compiled as operators
from torch_mlx_spectro.doctor import candidates as own
from torch_mlx_spectro.doctor.candidates import KNOWN_DIFFERENCES
from torch_mlx_spectro.kernels.chooser import Chooser
from torch_mlx_spectro.mlx.launcher import MetalKernels
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.settings import AutotuneSettings

pytestmark = ONCE_ONLY


@pytest.fixture
def machine(metal_cache: Path) -> Iterator[emulator.Machine]:
    """torch's functions patched, strict, and computed by the kernels as MPS tensors would be."""
    MPS.checks.forget()
    with metal.emulated(metal_cache, backend="mps") as used:
        yield used


def kernels_of(machine: emulator.Machine) -> set[str]:
    return {launch.kernel.removeprefix("spectro_") for launch in machine.launches}


def views() -> Iterator[Case]:
    """A valid call of each function for every layout of its tensors, as the parity suite has it."""
    seen = set()
    for case in quick():
        for argument in ("layout", "window layout", "dtype"):
            value = (case.op, argument, case.label(argument))
            if value not in seen and not case.fault and case.label("dtype") in SINGLE:
                seen.add(value)
                yield case


SINGLE = ("float32", "complex64")
VIEWS = list(dict.fromkeys(views()))


@needs_emulator
def test_the_quick_selection_is_natives_strictly(metal_cache: Path) -> None:
    """Invalid calls, too, each after valid ones that differ in one argument alone."""
    with metal.emulated(metal_cache, backend="mps", checked=False):
        report = stft_parity.run(
            candidate=own.make_strict("mps"), cases="quick", known=KNOWN_DIFFERENCES
        )
    assert not report.failures
    assert report.counts()["pass"] > 300


def test_views_are_many() -> None:
    labels = {(case.op, case.label("layout")) for case in VIEWS}
    assert {one for op, one in labels if op == "stft"} >= {"negated", "offset", "expanded samples"}
    assert {one for op, one in labels if op == "istft"} >= {"conjugated", "offset", "permuted"}


@needs_emulator
@pytest.mark.parametrize("case", VIEWS, ids=lambda case: f"{case.op}-{case.label('layout')}")
def test_views_are_read_as_they_look(machine: emulator.Machine, case: Case) -> None:
    if check_patched(case):
        assert set(tms.stats().calls) == {(case.op, "mps")}
        assert machine.launches


#: Some of torch's own samples: blocks and MLX's kernels have all of them.
FEW = SAMPLES[::6]


@needs_emulator
@pytest.mark.parametrize(("op", "tensor", "kwargs"), FEW)
def test_torchs_samples(
    machine: emulator.Machine, op: str, tensor: torch.Tensor, kwargs: dict[str, Any]
) -> None:
    check_sample(op, tensor, kwargs, "mps")
    assert sum(Counter(launch.kernel for launch in machine.launches).values()) >= 5


@needs_emulator
@pytest.mark.parametrize("backend", ["mlx", "mps"])
def test_derivatives_are_of_the_backend_that_computed_the_call(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Both compute the same tensors: which one does is not in these."""
    launched: list[str] = []
    for name, kernels in (("mlx", MetalKernels), ("mps", MpsKernels)):
        original: Any = kernels.run

        def noting(*args: Any, _name: str = name, _original: Any = original, **more: Any) -> Any:
            launched.append(_name)
            return _original(*args, **more)

        monkeypatch.setattr(kernels, "run", noting)
    signal = random_tensor(0, 2, 100).requires_grad_()
    spectrum = random_tensor(0, 2, 9, 26, complex_values=True).requires_grad_()
    window = torch.hann_window(16)
    with metal.emulated(metal_cache, backend=backend):
        result = torch.stft(signal, 16, 4, window=window, return_complex=True)
        back = torch.istft(spectrum, 16, 4, window=window)
    # Elsewhere, as in a backward pass of a program that has unpatched, or in another thread.
    with emulator.Machine(cache_dir=metal_cache).installed():
        (first,) = torch.autograd.grad(result, signal, torch.ones_like(result))
        (second,) = torch.autograd.grad(back, spectrum, torch.ones_like(back))
    assert set(launched) == {backend}
    assert (first.shape, second.shape) == (signal.shape, spectrum.shape)


@needs_emulator
def test_operators_and_their_gradients(machine: emulator.Machine) -> None:
    signal, window = random_tensor(0, 2, 100).requires_grad_(), torch.hann_window(16)
    call = (16, 4, 16, window, True, "reflect", False, None, True, None, True)
    result = operators.OPERATORS["stft"][0](signal, *call)
    weight = random_tensor(2, 2, 9, 26, complex_values=True)
    (found,) = torch.autograd.grad(result, signal, weight)
    expected = native.stft(signal, 16, 4, window=window, return_complex=True)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, signal, weight)[0])
    assert tms.stats().calls == {("stft", "mps"): 1}
    assert kernels_of(machine) & {"synthesis", "synthesis_walk"}


@needs_emulator
def test_a_window_that_changes_is_seen(machine: emulator.Machine) -> None:
    signal, values = random_tensor(0, 300), random_tensor(1, 16).numpy().copy()
    window = torch.from_numpy(values)
    for change in (lambda: None, lambda: window.mul_(2), lambda: values.__imul__(3)):
        change()
        found = torch.stft(signal, 16, 4, window=window, return_complex=True)
        expected = native.stft(signal, 16, 4, window=window, return_complex=True)
        torch.testing.assert_close(found, expected)
        found = torch.istft(expected, 16, 4, window=window)
        torch.testing.assert_close(found, native.istft(expected, 16, 4, window=window))


@needs_emulator
def test_what_torch_rejects_torch_reports(machine: emulator.Machine) -> None:
    spectrum = random_tensor(0, 1, 9, 5, complex_values=True)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        torch.istft(spectrum, 16, 16, window=torch.hann_window(16))
    # The window was judged by the device, once the call itself was launched.
    assert kernels_of(machine)
    machine.launches.clear()
    with pytest.raises(tms.NotAccelerated, match=r"dtype torch\.float64 of input"):
        torch.stft(torch.zeros(100, dtype=torch.float64), 16, return_complex=True)
    assert not machine.launches


def test_sums_keep_their_digits() -> None:
    """Tens of thousands of frames, one by one, would lose half of them."""
    generator = torch.Generator().manual_seed(0)
    for count in (0, 1, 31, 32, 33, 70_001):
        products = torch.rand(1, count, 3, generator=generator)
        exact = products.double().sum((0, 1))
        found = MPS.sum_products(products)
        assert found.dtype == torch.float32
        assert (found - exact).abs().max() <= 2e-7 * max(float(exact.max()), 1.0) * 2
    values = torch.complex(torch.ones(2, 40, 3), torch.full((2, 40, 3), 0.5))
    assert torch.equal(MPS.sum_products(values), torch.full((3,), 80 + 40j))


@pytest.mark.parametrize("n_fft", [1, 2, 3, 22, 33, 1021])
def test_real_frames_come_from_a_transform_of_complex_values(
    monkeypatch: pytest.MonkeyPatch, n_fft: int
) -> None:
    half = torch.fft.rfft(random_tensor(0, 2, 3, n_fft))
    expected = torch.fft.irfft(half, n_fft)
    monkeypatch.setattr(torch.fft, "irfft", None)
    found = MPS.inverse_real(half, n_fft)
    torch.testing.assert_close(found, expected)


def test_what_computes_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str | None] = [None]
    kernels = MpsKernels(lambda text: None)
    monkeypatch.setattr(kernels, "refusal", lambda *of: reasons[0])
    monkeypatch.setattr(mps_backend, "mps_kernels", lambda: kernels)
    signal, window = torch.zeros(2, 100), torch.ones(16)

    def computation(*call: Any) -> tuple[str, str | None]:
        given = Call(*call)
        return MPS.name_kernel(given), MPS.explain_refusal(given)

    stft = stft_params(signal, window, n_fft=16, return_complex=True)
    prime = stft_params(signal, None, n_fft=11, return_complex=True)
    spectrum = torch.zeros(2, 9, 5, dtype=torch.complex64)
    istft = istft_params(spectrum, window, n_fft=16)
    odd = istft_params(torch.zeros(2, 6, 5, dtype=torch.complex64), None, n_fft=11)
    assert computation(stft, signal, window) == ("mps analysis", None)
    assert computation(prime, signal, None) == ("mps cut_frames + torch fft", None)
    assert computation(istft, spectrum, window)[0].startswith("mps synthesis")
    assert computation(odd, spectrum, None) == ("torch fft + mps add_frames", None)
    reasons[0] = "Metal refuses"
    assert computation(stft, signal, window) == ("mps analysis", "Metal refuses")
    hop = {"n_fft": 16, "hop_length": 16, "return_complex": True}
    many = stft_params(torch.zeros(1).expand(1 << 31, 16), window, **hop)
    assert "dimension" in computation(many, signal, window)[1]
    long = stft_params(torch.zeros(1).expand(1, (1 << 31) - 17), window, **{**hop, "hop_length": 1})
    assert "dimension" in computation(long, signal, window)[1]


def test_why_there_is_no_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = mps_backend.unavailable_reason
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    assert reason() == "this torch is built without MPS"
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert reason() == "torch finds no MPS device"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert reason() is None
    for asked, version, is_exempt in (
        ("1", "14.7", False),
        ("1", "15.0", True),
        ("0", "14.7", True),
    ):
        monkeypatch.setenv("PYTORCH_MPS_FAST_MATH", asked)
        monkeypatch.setattr(platform, "mac_ver", lambda version=version: (version, (), ""))
        assert (reason() is None) == is_exempt
    monkeypatch.delattr(torch.mps, "compile_shader")
    assert "torch.mps.compile_shader" in str(reason())


def test_host_tensors_are_mpss_only_while_it_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert routing.list_devices("mps") == ("mps",)
    monkeypatch.setattr(torch_state, "mps_is_emulated", lambda: True)
    assert routing.list_devices("mps") == ("mps", "cpu")
    assert routing.list_devices("cuda") == ("cuda",)
    assert mps_backend.unavailable_reason() is None


def test_without_mps_a_call_goes_native_with_the_reason() -> None:
    with tms.backend("mps"):
        signal = torch.zeros(100)
        route = tms.explain("stft", signal, 16, window=torch.ones(16), return_complex=True)
    assert (route.backend, route.reasons) == (
        "native",
        ("device cpu of input is not accelerated", "device cpu of window is not accelerated"),
    )


@contextmanager
def refusing(kernels: tuple[str, ...]) -> Iterator[None]:
    """Metal does not compile some kernels."""
    compile_shader = torch.mps.compile_shader

    def compiled(text: str) -> Any:
        for name in kernels:
            if f"[[kernel]] void spectro_{name}(" in text:
                raise SyntaxError(f"program_source:7:1: error: no {name} today")
        return compile_shader(text)

    shader: Any = compiled
    shader.emulated = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.mps, "compile_shader", shader)
        yield


REFUSED = [
    (("synthesis_walk", "synthesis"), "istft", {}),
    (("analysis",), "stft", {}),
    (("cut_frames",), "stft", {"n_fft": 22, "hop_length": 7}),
    (("synthesis_walk", "synthesis"), "stft", {"differentiated": "input"}),
    (("add_frames",), "stft", {"n_fft": 22, "hop_length": 7, "differentiated": "input"}),
    (("cut_frames",), "stft", {"differentiated": "window"}),
    (("analysis",), "istft", {"differentiated": "input"}),
]


@needs_emulator
@pytest.mark.parametrize(("kernels", "name", "arguments"), REFUSED, ids=str)
def test_what_metal_refuses_is_natives_with_the_reason(
    machine: emulator.Machine, kernels: tuple[str, ...], name: str, arguments: dict[str, Any]
) -> None:
    """Before anything is computed, so that no backward pass comes to nothing."""
    sizes = {"n_fft": 16, "hop_length": 5, **arguments}
    differentiated = sizes.pop("differentiated", None)
    window = random_tensor(1, sizes.get("win_length", sizes["n_fft"])).abs() + 0.1
    tensor = random_tensor(0, 3, 100)
    if name == "istft":
        tensor = torch.stft(tensor, window=window, return_complex=True, **sizes)
    else:
        sizes["return_complex"] = True
    for leaf in {"input": [tensor], "window": [window]}.get(differentiated, []):
        leaf.requires_grad_()
    function = getattr(torch, name)
    with refusing(kernels):
        with pytest.raises(tms.NotAccelerated, match=f"error: no {kernels[-1]} today"):
            function(tensor, window=window, **sizes)
        with tms.backend("mps"):
            tms.reset_stats()
            result = function(tensor, window=window, **sizes)
            assert dict(tms.stats().calls) == {(name, "native"): 1}
            (reason,) = tms.stats().fallbacks
            assert f"no {kernels[-1]} today" in reason
            if differentiated:
                result.abs().sum().backward()
    expected = getattr(native, name)(tensor, window=window, **sizes)
    torch.testing.assert_close(result, expected)


@needs_emulator
@pytest.mark.parametrize("name", ["stft", "istft"])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("n_fft", [256, 22])
def test_what_is_asked_for_is_what_runs(
    machine: emulator.Machine,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trained: bool,
    n_fft: int,
) -> None:
    """Derivatives included, on a GPU of few cores and by groups that the environment demands."""
    kernels = mps_kernels()
    demanded = {"analysis": 64, "cut_frames": 64, "add_frames": 32}
    monkeypatch.setattr(kernels, "cores", 2)
    settings = AutotuneSettings(False, False, None, demanded)
    monkeypatch.setattr(kernels, "chooser", Chooser(settings=settings))
    asked: dict[str, list[int]] = {"refusal": [], "run": []}
    for method, noted in asked.items():

        def noting(
            launches: Any, *given: Any, _noted: Any = noted, _as: Any = method, **more: Any
        ) -> Any:
            _noted.append(launches)
            return getattr(MpsKernels, _as)(kernels, launches, *given, **more)

        monkeypatch.setattr(kernels, method, noting)
    window = (random_tensor(1, n_fft).abs() + 0.1).requires_grad_(trained)
    sizes = {"n_fft": n_fft, "hop_length": n_fft // 4, "window": window}
    if name == "stft":
        tensor = random_tensor(0, 3, 2000).requires_grad_()
        result = torch.stft(tensor, return_complex=True, **sizes)
    else:
        tensor = random_tensor(0, 3, n_fft // 2 + 1, 30, complex_values=True).requires_grad_()
        result = torch.istft(tensor, **sizes)
    result.backward(torch.ones_like(result))
    first_of = {method: {id(launches[0]) for launches in found} for method, found in asked.items()}
    envelope = {id(asked["refusal"][0][0])} if name == "istft" and trained else set()
    assert len(asked["run"]) == (3 if trained else 2)
    assert first_of["refusal"] - envelope == first_of["run"]


@needs_emulator
def test_what_a_call_does_not_launch_is_not_asked_for(machine: emulator.Machine) -> None:
    with refusing(("prepare_window", "synthesis", "synthesis_walk")):
        torch.stft(random_tensor(0, 3, 100), 16, window=torch.ones(16), return_complex=True)
    assert kernels_of(machine) == {"analysis"}


@needs_emulator
def test_another_kernel_takes_the_place_of_one_that_metal_refuses(
    machine: emulator.Machine,
) -> None:
    window, sizes = torch.hann_window(256) + 0.1, {"n_fft": 256, "hop_length": 64}
    z = native.stft(random_tensor(0, 2, 2000), window=window, return_complex=True, **sizes)
    torch.istft(z, window=window, **sizes)
    assert kernels_of(machine) == {"synthesis_walk"}
    machine.launches.clear()
    with refusing(("synthesis_walk",)):
        found = torch.istft(z, window=window, **sizes)
    assert kernels_of(machine) == {"synthesis"}
    torch.testing.assert_close(found, native.istft(z, window=window, **sizes), atol=1e-5, rtol=1e-5)


@needs_emulator
def test_a_launch_that_fails_after_all_is_natives(
    machine: emulator.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **more: Any) -> Any:
        raise MpsProblem("not any more")

    monkeypatch.setattr(MpsKernels, "_launch", refuse)
    signal, given = random_tensor(0, 2, 100), {"window": torch.ones(16), "return_complex": True}
    with pytest.raises(tms.NotAccelerated, match="not any more"):
        torch.stft(signal, 16, **given)
    with tms.backend("mps"):
        tms.reset_stats()
        found = torch.stft(signal, 16, **given)
    assert dict(tms.stats().fallbacks) == {"not any more": 1}
    assert torch.equal(found, native.stft(signal, 16, **given))


@needs_emulator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_natives_with_the_reason(machine: emulator.Machine, dtype: Any) -> None:
    """Whatever native does with it: on MPS it computes float16 as complex32, the host refuses."""
    signal, window = random_tensor(0, 2, 2000).to(dtype), torch.ones(64, dtype=dtype)
    given = {"window": window, "return_complex": True}
    with tms.backend("mps"):
        route = tms.explain("stft", signal, 64, **given)
        with pytest.raises(RuntimeError) as ours:
            torch.stft(signal, 64, **given)
    assert route.backend == "native"
    assert any(str(dtype).removeprefix("torch.") in reason for reason in route.reasons)
    with pytest.raises(RuntimeError) as natives:
        native.stft(signal, 64, **given)
    assert str(ours.value) == str(natives.value)
    assert not machine.launches


@needs_emulator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_autocast_leaves_single_precision_to_the_kernels(
    machine: emulator.Machine, device: str, dtype: Any
) -> None:
    """Neither function is in MPS's list of autocast: its dtype is that of its input."""
    signal, window = random_tensor(0, 2, 2000), torch.hann_window(64)
    sizes = {"n_fft": 64, "window": window}
    spectrum = torch.stft(signal, return_complex=True, **sizes)
    back = torch.istft(spectrum, **sizes)
    with torch.autocast(device, dtype=dtype):
        found = torch.stft(signal, return_complex=True, **sizes)
        assert torch.equal(found, spectrum)
        assert torch.equal(torch.istft(found, **sizes), back)
    assert [launch.kernel for launch in machine.launches] == [
        "spectro_analysis",
        "spectro_synthesis",
        "spectro_analysis",
        "spectro_synthesis",
    ]
