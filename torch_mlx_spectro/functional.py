"""``stft`` and ``istft`` with torch's signatures: the entrance of every call.

Small transforms, which programs call most often and native computes, are answered here within a few
microseconds. :mod:`.dispatch.run` answers all others, and :mod:`.dispatch.compiled` those of
programs that are being compiled.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from .backends import registry
from .calls.kind import LEAST_FRAMED, Route
from .calls.operation import ISTFT, STFT, WINDOW, Operation
from .dispatch import choice as routing
from .dispatch.choice import Choice, current_choice, patched_choice
from .dispatch.decide import NATIVE_ASKED, TOO_SMALL, decide
from .dispatch.recording import Answer
from .dispatch.run import counters, dispatch
from .dispatch.snapshot import Stats
from .dispatch.statistics import REFUSED, Mark
from .errors import NotAccelerated
from .mlx import runtime
from .native import asking
from .native import functions as native
from .native import private_state as torch_state
from .version import __version__


def _make_compiled(op: Operation, patched: bool) -> Callable[..., torch.Tensor]:
    """Make what a compiler sees as it reads the program: an operator, or native's own code.

    Args:
        patched: the program calls torch's own name.
    """
    native_function, bind, name = op.native, op.bind, op.name
    integers = (int, torch.SymInt)

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if torch_state.is_exporting() and patched:
            # An exported program is a file to be run anywhere: it may name torch's functions only.
            return native_function(*args, **kwargs)
        try:
            bound = bind(*args, **kwargs)
        except TypeError:
            return native_function(*args, **kwargs)  # which raises its own
        tensor, window = bound["input"], bound["window"]
        # Of another kind of argument an operator would say something else than torch does.
        sizes = [bound.get(size) for size in ("hop_length", "win_length", "length")]
        if (
            isinstance(bound["n_fft"], integers)
            and all(size is None or isinstance(size, integers) for size in sizes)
            and _is_of_our_kind(tensor)
            and (window is None or _is_of_our_kind(window))
            and _shows_operator(name, tensor.device.type, patched)
            and not (
                _leaves_small(tensor.device.type, patched)
                and _count_framed(name, bound) < LEAST_FRAMED[name]
            )
        ):
            operator = getattr(torch.ops.torch_mlx_spectro, name)
            result: torch.Tensor = operator(*bound.values(), patched)
            return result
        return native_function(*args, **kwargs)

    return call


def _is_of_our_kind(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.dtype in torch_state.DTYPES


@torch_state.mark_constant
def _shows_operator(name: str, device_type: str, patched: bool) -> bool:
    """Whether programs that are being compiled call the operators on this device."""
    torch_state.show_compiler(((STFT.native, patched_stft), (ISTFT.native, patched_istft)))
    choice = patched_choice() if patched else current_choice()
    if not _is_shown(choice, device_type, routing.missing_reason):
        return False
    if patched and not torch_state.tags_compiled():
        if choice.strict:
            raise NotAccelerated(name, (torch_state.UNTAGGED,))
        return False
    from .dispatch import compiled as operators

    return bool(operators.OPERATORS)


@torch_state.mark_constant
def _leaves_small(device_type: str, patched: bool) -> bool:
    return _does_leave_small(patched_choice() if patched else current_choice(), device_type)


def _does_leave_small(choice: Choice, device_type: str) -> bool:
    """Whether small calls on this device are native's, as ``auto`` has it on the CPU."""
    return choice.backend == "auto" and device_type == torch_state.HOST and not choice.strict


def _count_framed(name: str, bound: dict[str, Any]) -> Any:
    """About as many samples as there are in all frames of a call; sizes may be symbols."""
    tensor, n_fft, hop = bound["input"], bound["n_fft"], bound["hop_length"]
    if name == "istft":
        return tensor.numel() * 2
    hop = n_fft // 4 if hop is None else hop
    return tensor.numel() * n_fft // hop if hop > 0 else 0


def _is_shown(
    choice: Choice, device_type: str, missing_reason: Callable[[str, str], str | None]
) -> bool:
    candidates = routing.find_candidates(choice, device_type)
    able = [name for name in candidates if device_type in routing.list_devices(name)]
    if not able or torch_state.is_transformed():
        return False  # operators have no rules for transforms that are compiled themselves
    # Strict: the operator raises when it runs.
    return choice.strict or any(missing_reason(device_type, name) is None for name in able)


def make_compiled_tag() -> str:
    """Return what tells programs that are compiled now from native's; ``""`` if nothing does.

    It names the device types that have operators in the place of native's code, and their backends.
    MLX is not loaded for it, since programs without a transform are compiled, too; before a program
    with a transform is kept, :func:`_shows_operator` has loaded it.
    """
    choice = patched_choice()

    def missing_reason(device_type: str, name: str) -> str | None:
        if registry.find(name).loads_library and not runtime.is_resolved():
            return None
        return routing.missing_reason(device_type, name)

    here = registry.list_present_devices()
    shown = [
        f"{name}large" if _does_leave_small(choice, name) else name
        for name in here
        if _is_shown(choice, name, missing_reason)
    ]
    return f"torch_mlx_spectro {__version__} for {','.join(shown)}" if shown else ""


def _function(
    op: Operation, module: str, choose: Callable[[], Choice]
) -> Callable[..., torch.Tensor]:
    """Make the Python function of an operation, which pickles as a name of ``module``.

    ``choose`` returns what the program asks of it.
    """
    # Local names, and no function between: for a small call every microsecond counts.
    native_function, name, small = op.native, op.name, op.small
    natively, is_stft, may_warn = op.compute_natively, op is STFT, native.may_warn_of_istft
    is_compiling, overrides = torch_state.is_compiling, torch_state.overrides
    is_traced = torch_state.is_traced
    count, get_frame, plain = counters.count, sys._getframe, torch.Tensor
    asked = Answer(name, registry.NATIVE, (NATIVE_ASKED,), by_choice=True)
    too_small = Answer(name, registry.NATIVE, (TOO_SMALL,), by_choice=True)
    bump_asked, bump_small = counters.sites(asked).get, counters.sites(too_small).get

    compiled = _make_compiled(op, patched=choose is patched_choice)

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        if is_compiling():
            return compiled(*args, **kwargs)
        tensor = args[0] if args else kwargs.get("input")
        if overrides(tensor):
            return ask(args, kwargs, get_frame(1))
        choice = choose()
        is_asked = choice.backend == "native"
        if is_asked or (
            choice.backend == "auto"
            and type(tensor) is plain
            and tensor.numel() < small
            and tensor.is_cpu
            and not choice.strict
        ):
            caller = get_frame(1)
            result = (
                native_function(*args, **kwargs)
                if is_stft or not may_warn(args, kwargs)
                else natively(args, kwargs, caller)
            )
            site = (id(caller.f_code), caller.f_lasti)  # find_site, without its call
            bump = bump_asked(site) if is_asked else bump_small(site)
            if bump is None:
                count(asked if is_asked else too_small, caller)
            else:
                bump()
            return result
        if type(tensor) is not plain and is_traced():
            return compiled(*args, **kwargs)
        # A builtin looks at all of its tensors.
        if not is_stft and overrides(args[WINDOW] if len(args) > WINDOW else kwargs.get("window")):
            return ask(args, kwargs, get_frame(1))
        return dispatch(op, choice, args, kwargs, get_frame(1))

    def ask(args: Any, kwargs: Any, caller: FrameType) -> torch.Tensor:
        """Ask the modes and subclasses that want to see a call."""
        result, reason = asking.ask(native_function, call, args, kwargs)
        if reason is not None:
            if reason == asking.NO_MODES and choose().strict:
                count(Answer(name, REFUSED, (reason,)), caller)
                raise NotAccelerated(name, (reason,))
            count(Answer(name, registry.NATIVE, (reason,)), caller)
        return result

    call.__name__ = call.__qualname__ = op.name
    call.__module__ = module
    call.__doc__ = native_function.__doc__
    call.__signature__ = _SIGNATURES[op.name]  # type: ignore[attr-defined]
    return call


def _signature(op: Operation) -> inspect.Signature:
    """Return torch's own signature; torch.istft is a builtin without one, but its method has it."""
    if op is STFT:
        return inspect.signature(op.native)
    method = inspect.signature(torch.Tensor.istft)
    _, *rest = method.parameters.values()
    first = inspect.Parameter(
        "input", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=torch.Tensor
    )
    return inspect.Signature([first, *rest], return_annotation=torch.Tensor)


_SIGNATURES = {op.name: _signature(op) for op in (STFT, ISTFT)}

if TYPE_CHECKING:  # torch's parameters, for editors; inspect.signature shows torch's own

    def stft(
        input: torch.Tensor,
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: torch.Tensor | None = None,
        center: bool = True,
        pad_mode: str = "reflect",
        normalized: bool = False,
        onesided: bool | None = None,
        return_complex: bool | None = None,
        align_to_window: bool | None = None,
    ) -> torch.Tensor:
        """Compute what ``torch.stft`` computes, by the backend that is chosen.

        Signature, results, warnings and exceptions are those of ``torch.stft``. Values differ from
        torch's by rounding.

        Args:
            input: the signal, in samples; float32 or float64, or complex.
            n_fft: samples of a frame, and points of its Fourier transform.
            hop_length: samples from one frame to the next; ``n_fft // 4`` where None.
            win_length: samples of the window, which zeros on both sides extend to ``n_fft``;
                ``n_fft`` where None.
            window: ``win_length`` values; ones where None, as in torch.
            center: pad the signal by ``n_fft // 2`` samples at both ends, so that frame ``t`` is
                centred at sample ``t * hop_length``.
            pad_mode: ``"reflect"``, ``"constant"``, ``"replicate"`` or ``"circular"``.
            normalized: multiply the spectrum by ``n_fft ** -0.5``.
            onesided: return ``n_fft // 2 + 1`` bins instead of ``n_fft``; True where None and
                signal and window are real.
            return_complex: return complex numbers; torch asks for True or False for real input.
            align_to_window: as in torch: with ``center=False``, place frames by the window.

        Shape:
            - input: ``(samples,)`` or ``(batch, samples)``
            - result: ``(bins, frames)`` or ``(batch, bins, frames)``, with the strides of
              ``torch.stft``. There are ``1 + samples // hop_length`` frames where ``center`` is
              True (and ``n_fft`` even).

        Returns:
            complex64 for float32, complex128 for float64. With ``return_complex=False`` the real
            and imaginary parts lie in one more dimension of size 2.

        Raises:
            NotAccelerated: strict mode, and torch would have to compute this call.
            RuntimeError: torch rejects the arguments; the exception is torch's own.
        """

    def istft(
        input: torch.Tensor,
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window: torch.Tensor | None = None,
        center: bool = True,
        normalized: bool = False,
        onesided: bool | None = None,
        length: int | None = None,
        return_complex: bool = False,
    ) -> torch.Tensor:
        """Compute what ``torch.istft`` computes, by the backend that is chosen.

        Signature, results, warnings and exceptions are those of ``torch.istft``. Values differ from
        torch's by rounding.

        Args:
            input: the spectrum; complex64 or complex128.
            n_fft: samples of a frame.
            hop_length: samples from one frame to the next; ``n_fft // 4`` where None.
            win_length: samples of the window; ``n_fft`` where None.
            window: ``win_length`` values; ones where None.
            center: the spectrum is of a centred stft: the padding is cut off.
            normalized: the spectrum is of an stft with ``normalized=True``.
            onesided: the spectrum has ``n_fft // 2 + 1`` bins instead of ``n_fft``; where None, its
                number of bins tells.
            length: samples of the result; None for what the frames cover.
            return_complex: return a complex signal, of a spectrum with all ``n_fft`` bins.

        Shape:
            - input: ``(bins, frames)`` or ``(batch, bins, frames)``
            - result: ``(length,)`` or ``(batch, length)``

        Returns:
            float32 for complex64, float64 for complex128; complex with ``return_complex=True``. The
            imaginary parts of DC and Nyquist are ignored, on every device.

        Raises:
            NotAccelerated: strict mode, and torch would have to compute this call.
            RuntimeError: torch rejects the arguments, or the envelope of the window is below 1e-11
                somewhere in the result; the exception is torch's own.

        Warns:
            UserWarning: ``length`` exceeds what the frames cover; zeros follow.
        """

else:
    stft = _function(STFT, __name__, current_choice)
    istft = _function(ISTFT, __name__, current_choice)
#: What ``patch`` puts in the place of torch's own: pickled by reference to torch's names, and
#: native wherever it is still held after ``unpatch``.
patched_stft = _function(STFT, "torch.functional", patched_choice)
patched_istft = _function(ISTFT, "torch.functional", patched_choice)


def explain(function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Route:
    """Explain who would compute ``function(*args, **kwargs)`` here and now, and why.

    Nothing is computed, timed or counted.

    Args:
        function: ``torch.stft``, ``torch.istft``, ours, or ``"stft"`` or ``"istft"``.
        args: the positional arguments of the call.
        kwargs: its keyword arguments.

    Returns:
        Backend, kernel and every reason.

    Raises:
        ValueError: ``function`` is none of these.
    """
    name = function if isinstance(function, str) else getattr(function, "__name__", "")
    for op in (STFT, ISTFT):
        if op.name == name:
            # As it is once those who are asked, if any, have called it on.
            with torch_state.unasked():
                return decide(op, current_choice(), args, kwargs).route
    raise ValueError(f"function must be stft or istft; got {function!r}")


def names_left() -> tuple[str, ...]:
    """Names in loaded modules, as ``module.name``, under which a patch leaves torch's functions."""
    return native.list_names_left(routing.is_patched())


def stats() -> Stats:
    """Return what was computed where since the start or :func:`reset_stats`, and why.

    Calls are counted. Their derivatives are computed where the call was, and not counted.

    Returns:
        A snapshot; ``print`` shows it as tables. Times are in seconds.
    """
    return stats_since(None)


def stats_since(before: Mark | None) -> Stats:
    """Return what :func:`stats` does, but of calls after a moment alone.

    Args:
        before: what ``counters.mark()`` returned then; None for the start.
    """
    left = names_left() if routing.is_patched() else ()
    return replace(counters.snapshot(before), left=left)


def reset_stats() -> None:
    """Set every counter of :func:`stats` to zero. What was measured or verified is kept."""
    counters.reset()
