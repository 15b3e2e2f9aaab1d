"""Parts of wrong candidates: native torch with one thing done otherwise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from stft_parity.candidates import DEFAULTS, bound

Function = Callable[..., Any]
Arguments = dict[str, Any]

# Taken here, so that a candidate is not itself when somebody patches torch.
STFT, ISTFT = torch.stft, torch.istft


def changed(op: str, change: Callable[[Arguments], Arguments | None]) -> Function:
    """Native torch with arguments changed; all are passed by name, so they can be."""
    native = STFT if op == "stft" else ISTFT

    def call(*args: Any, **kwargs: Any) -> Any:
        given = DEFAULTS[op] | bound(op, args, kwargs)
        return native(**given | (change(given) or {}))

    return call


def after(change: Callable[[torch.Tensor], Any], op: str = "stft") -> Function:
    """Native torch with something done to its result."""
    native = STFT if op == "stft" else ISTFT
    return lambda *args, **kwargs: change(native(*args, **kwargs))


def with_window(change: Callable[[torch.Tensor], torch.Tensor], op: str = "stft") -> Function:
    return changed(op, lambda given: {"window": change(given["window"])})


def kept(order: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``values`` in the memory order of ``order``, so that nothing but they is wrong."""
    return torch.empty_strided(order.shape, order.stride(), dtype=values.dtype).copy_(values)


def edited(edit: Callable[[torch.Tensor], Any], op: str = "stft") -> Function:
    """A function that changes native's result in place."""

    def change(result: torch.Tensor) -> torch.Tensor:
        edit(result)
        return result

    return after(change, op)


def exchanged(result: torch.Tensor) -> torch.Tensor:
    return kept(result, torch.complex(result.imag, result.real))


def through_float16(result: torch.Tensor) -> torch.Tensor:
    return kept(result, torch.view_as_complex(torch.view_as_real(result).half().float()))


def padded_by(pad: Callable[[torch.Tensor, int], torch.Tensor]) -> Function:
    """The signal is extended by ``pad`` and not by torch."""
    return changed(
        "stft",
        lambda given: {"input": pad(given["input"], given["n_fft"] // 2), "center": False},
    )


def mirrored_with_edge(signal: torch.Tensor, by: int) -> torch.Tensor:
    front, back = signal[..., :by].flip(-1), signal[..., -by:].flip(-1)
    return torch.cat((front, signal, back), -1)


def beginning_late(by: Callable[[Arguments], int]) -> Function:
    """Frames that begin too late, with zeros at the end."""

    def change(given: Arguments) -> Arguments:
        half = given["n_fft"] // 2
        signal = functional.pad(given["input"][None], (half, half), given["pad_mode"])[0]
        return {"input": functional.pad(signal[..., by(given) :], (0, by(given))), "center": False}

    return changed("stft", change)


def window_at_the_front(given: Arguments) -> Arguments:
    n_fft, win = given["n_fft"], given["win_length"]
    return {"window": functional.pad(given["window"], (0, n_fft - win)), "win_length": n_fft}


def in_format(dtype: torch.dtype) -> Function:
    """The discrete Fourier transform with all operands and products rounded."""

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_complex():
            return torch.complex(rounded(tensor.real), rounded(tensor.imag))
        return tensor.to(dtype).float()

    def call(signal: torch.Tensor, n_fft: int, **given: Any) -> torch.Tensor:
        result = STFT(rounded(signal), n_fft, **given | {"window": rounded(given["window"])})
        frames = functional.pad(signal[None], (n_fft // 2, n_fft // 2), "reflect")[0]
        cut = rounded(rounded(frames.unfold(-1, n_fft, given["hop_length"])) * given["window"])
        turn = torch.outer(torch.arange(n_fft), torch.arange(n_fft // 2 + 1)) % n_fft
        matrix = torch.polar(torch.ones(()), -2 * math.pi * turn / n_fft)
        summed = rounded(cut) @ rounded(matrix.real) + 1j * (rounded(cut) @ rounded(matrix.imag))
        return kept(result, summed.transpose(-1, -2))

    return call


def with_tf32() -> Function:
    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(tensor)
        return torch.ldexp(torch.round(mantissa * 2048) / 2048, exponent)

    return changed(
        "stft",
        lambda given: {"input": rounded(given["input"]), "window": rounded(given["window"])},
    )


def dividing_by(envelope_of: Callable[[torch.Tensor], torch.Tensor] | None) -> Function:
    """istft with another envelope, or with none."""

    def added(window: torch.Tensor, given: Arguments, samples: int) -> torch.Tensor:
        n_fft, hop, frames = given["n_fft"], given["hop_length"], given["input"].shape[-1]
        total = torch.zeros(n_fft + hop * (frames - 1), dtype=torch.float64)
        for frame in range(frames):
            total[frame * hop : frame * hop + n_fft] += window
        return total[n_fft // 2 :][:samples]

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        given = DEFAULTS["istft"] | bound("istft", args, kwargs)
        result, window = ISTFT(**given), given["window"].double()
        wrong = result * added(window**2, given, result.shape[-1])
        if envelope_of is not None:
            wrong = wrong / added(envelope_of(window), given, result.shape[-1])
        return wrong.float()

    return call


def cut_at_the_front(*args: Any, **kwargs: Any) -> torch.Tensor:
    length = kwargs.pop("length")
    return ISTFT(*args, **kwargs)[..., -length:].clone()


def zeros_at_the_front(*args: Any, **kwargs: Any) -> torch.Tensor:
    length = kwargs.pop("length")
    result = ISTFT(*args, **kwargs)
    return functional.pad(result, (length - result.shape[-1], 0))


def with_edges_imaginary(given: Arguments) -> Arguments:
    spectrum = given["input"].clone()
    spectrum[..., 0, :] += spectrum[..., 0, :].imag
    return {"input": spectrum}


def without_warning(*args: Any, **kwargs: Any) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return STFT(*args, **kwargs)


def with_a_warning(*args: Any, **kwargs: Any) -> torch.Tensor:
    warnings.warn("by the way", UserWarning, stacklevel=2)
    return STFT(*args, **kwargs)


def swallowing(*args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return STFT(*args, **kwargs)
    except RuntimeError:
        return STFT(*args, **kwargs | {"window": None})


def rewording(*args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return STFT(*args, **kwargs)
    except RuntimeError as error:
        raise RuntimeError("bad window") from error


def retyping(*args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return STFT(*args, **kwargs)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def refusing(*args: Any, **kwargs: Any) -> torch.Tensor:
    raise NotImplementedError("no such hop_length")


def in_its_input(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    result = STFT(signal, *args, **kwargs)
    return signal.as_strided(result.shape, result.stride())


def one_memory() -> Function:
    made: list[torch.Tensor] = []

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(STFT(*args, **kwargs))
        return made[0]

    return call


def wavering() -> Function:
    calls: list[None] = []

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(None)
        result = STFT(*args, **kwargs)
        result[..., 2] *= 1 + 1e-7 * len(calls)
        return result

    return call


def writing_to_its_input(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    result = STFT(signal, *args, **kwargs)
    signal[0, 0] += 1e-3
    return result


class _OtherGradient(torch.autograd.Function):
    """The same value; the gradient is changed on its way back."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, change: Any) -> torch.Tensor:
        ctx.change = change
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return ctx.change(gradient), None


class _OtherVmappedGradient(torch.autograd.Function):
    """As ``_OtherGradient``, for the transforms of ``torch.func``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: torch.Tensor, change: Any) -> torch.Tensor:
        return tensor.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.change = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return ctx.change(gradient), None


def with_gradient(
    name: str,
    change: Callable[[torch.Tensor], Any],
    op: str = "stft",
    *,
    vmapped: bool = False,
) -> Function:
    """A function whose gradient in one argument is changed."""
    other = _OtherVmappedGradient if vmapped else _OtherGradient
    return changed(op, lambda given: {name: other.apply(given[name], change)})


def with_detached(name: str) -> Function:
    return changed("stft", lambda given: {name: given[name].detach()})


class _Windowless(torch.autograd.Function):
    """stft with the gradient that it would have without a window."""

    @staticmethod
    def forward(ctx: Any, signal: torch.Tensor, given: Any) -> torch.Tensor:
        ctx.given, ctx.signal = given, signal.detach()
        return STFT(**given | {"input": signal})

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            signal = ctx.signal.requires_grad_()
            result = STFT(**ctx.given | {"input": signal, "window": None})
        return torch.autograd.grad(result, signal, cotangent)[0], None


def windowless_backward(*args: Any, **kwargs: Any) -> Any:
    given = DEFAULTS["stft"] | bound("stft", args, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Windowless.apply(given.pop("input"), given)


def taking_turns() -> Function:
    """Two buffers for the results, used in turn: the third call writes to the first result."""
    buffers: list[torch.Tensor] = []
    calls: list[None] = []

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        result = STFT(*args, **kwargs)
        calls.append(None)
        if len(buffers) < 2:
            buffers.append(result)
            return result
        return buffers[(len(calls) - 1) % 2].copy_(result)

    return call


def remembering() -> Function:
    """The result is kept by the input's identity, whatever becomes of its values."""
    kept_results: dict[int, torch.Tensor] = {}

    def call(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if id(signal) not in kept_results:
            kept_results[id(signal)] = STFT(signal, *args, **kwargs)
        return kept_results[id(signal)].clone(memory_format=torch.preserve_format)

    return call


def drawing(*args: Any, **kwargs: Any) -> torch.Tensor:
    torch.rand(1)
    return STFT(*args, **kwargs)


def stopping_gradients(*args: Any, **kwargs: Any) -> torch.Tensor:
    result = STFT(*args, **kwargs)
    torch.set_grad_enabled(False)
    return result


def leaving_a_gradient(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    result = STFT(signal, *args, **kwargs)
    signal.grad = torch.zeros_like(signal)
    return result


def with_gradients_always(*args: Any, **kwargs: Any) -> torch.Tensor:
    with torch.enable_grad():
        return STFT(*args, **kwargs)


class _BlindToBits(torch.autograd.Function):
    """The same value; the gradient is what lies in the cotangent's memory."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return gradient.conj() if gradient.is_conj() else gradient


class _Once(torch.autograd.Function):
    """The same value; what backward needs is gone after the first time."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.used = False
        return tensor.clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        if ctx.used:
            raise RuntimeError("nothing is left")
        ctx.used = True
        return gradient


def blind_to_bits(*args: Any, **kwargs: Any) -> Any:
    return _BlindToBits.apply(STFT(*args, **kwargs))


def backward_once(*args: Any, **kwargs: Any) -> Any:
    return _Once.apply(STFT(*args, **kwargs))


def in_memory_of_numpys(result: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(result.numpy())


class _SavingTheInput(torch.autograd.Function):
    """The window as it is; the input itself is saved for its gradient."""

    @staticmethod
    def forward(ctx: Any, window: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(signal)
        return window.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        assert len(ctx.saved_tensors) == 1
        return gradient, None


class _SeeingChanges(torch.autograd.Function):
    """The window as it is; its gradient is of the input as it is by then."""

    @staticmethod
    def forward(ctx: Any, window: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        ctx.signal, ctx.first = signal, signal.detach().clone()
        return window.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        return gradient * (ctx.signal.detach().norm() / ctx.first.norm()), None


def saving_its_input() -> Function:
    return changed("stft", lambda g: {"window": _SavingTheInput.apply(g["window"], g["input"])})


def seeing_changes() -> Function:
    return changed("stft", lambda g: {"window": _SeeingChanges.apply(g["window"], g["input"])})


class _SavingTheResult(torch.autograd.Function):
    """The same value, which is saved for the gradient."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        result = tensor.clone(memory_format=torch.preserve_format)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        assert len(ctx.saved_tensors) == 1
        return gradient


def saving_its_result(*args: Any, **kwargs: Any) -> Any:
    return _SavingTheResult.apply(STFT(*args, **kwargs))


def without_inference_tensors(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if signal.is_inference():
        raise RuntimeError("Inference tensors do not track version counter.")
    return STFT(signal, *args, **kwargs)


def leaving_inference_mode(*args: Any, **kwargs: Any) -> torch.Tensor:
    with torch.inference_mode(False):
        return STFT(*args, **kwargs)


def warning_of_its_own_line(*args: Any, **kwargs: Any) -> torch.Tensor:
    return ISTFT(*args, **kwargs)


def frames_outermost(result: torch.Tensor) -> torch.Tensor:
    """In native's own order, except where another dimension is outside of the call's."""
    return result.mT.contiguous().mT


def bins_innermost(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.mT.contiguous().mT
