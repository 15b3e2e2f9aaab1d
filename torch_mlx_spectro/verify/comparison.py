"""Compute some accelerated calls natively, too, and compare the results.

The ledger (:mod:`.verify.ledger`) says which calls these are, and keeps what follows. A program is
warned of a wrong result once, with lines that reproduce it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..calls.key import with_tensors
from ..native import private_state as torch_state
from . import criterion
from .criterion import Comparison
from .excerpt import Excerpt, cut_excerpts

if TYPE_CHECKING:
    from ..core.params import IstftParams, StftParams
    from .ledger import Case

Native = Callable[..., torch.Tensor]


class Outcome(NamedTuple):
    """The outcome of a comparison.

    Attributes:
        compared: the two could be compared.
        wrong: in what ours differs from native's; "" if in nothing.
        conclusive: wrong values would have shown.
    """

    compared: bool = False
    wrong: str = ""
    conclusive: bool = False


class Check:
    """The comparison of one call, prepared before the call is computed and run afterwards.

    Args:
        native: torch's own function.
        case: of the call.
        bound: the call's arguments by name.
        args, kwargs: the arguments as the program passed them.
        in_parts: compare only some parts of the result (:mod:`.verify.excerpt`).
    """

    def __init__(
        self,
        native: Native,
        case: Case,
        bound: Mapping[str, Any],
        args: Any,
        kwargs: Any,
        in_parts: bool = False,
    ) -> None:
        self.native, self.case, self.bound = native, case, bound
        self._in_parts = in_parts
        self._args, self._kwargs = args, kwargs
        self._tensors = (bound["input"], bound["window"])
        self._versions = read_versions(*self._tensors)

    def compare(self, params: StftParams | IstftParams, actual: torch.Tensor) -> Outcome:
        """Compute the call natively and compare; of a large one, parts of it.

        Native's once-only warnings have been given by the call itself.
        """
        tensor, window = self._tensors
        comparison = Comparison(
            recompute=self._recompute,
            tensor=tensor,
            window=window,
            n_fft=params.n_fft,
            batched=params.batched,
            pairs=self.case.op == "stft" and not params.return_complex,
            recorded=torch_state.is_differentiated(tensor, window),
            device=criterion.choose_device(tensor),
        )
        outcome = Outcome()
        excerpts = cut_excerpts(params, self.bound) if self._in_parts else (None,)
        with torch.no_grad(), silence_repeats(), stop_without_memory():
            for excerpt in excerpts:
                wrong, conclusive = self._find_wrong(comparison, excerpt, actual)
                outcome = Outcome(True, wrong, outcome.conclusive or conclusive)
                if wrong:
                    break
            # Else another thread has written to the input meanwhile.
            if read_versions(*self._tensors) == self._versions:
                return outcome
        return Outcome()

    def _find_wrong(
        self, comparison: Comparison, excerpt: Excerpt | None, actual: torch.Tensor
    ) -> tuple[str, bool]:
        """Find in what ``actual`` differs from native's result, and whether an error would show.

        Args:
            excerpt: the part that is compared; None for all of it.
        """
        if excerpt is not None:
            recompute = partial(self._recompute_part, excerpt)
            comparison = replace(comparison, recompute=recompute, tensor=excerpt.given["input"])
        try:
            expected = comparison.recompute(comparison.tensor, comparison.window)
        except Exception as error:
            if _is_out_of_memory(error):
                raise
            where = "" if excerpt is None else " for a part"
            return f"native torch raises {type(error).__name__}{where}: {error}", False
        conclusive = criterion.is_conclusive(expected)
        with stop_without_memory():
            if excerpt is None:
                return criterion.find_difference(comparison, expected, actual) or "", conclusive
            part = excerpt.cut_whole(actual)
            if part is None or part.shape != expected.shape:
                return f"its shape is {tuple(actual.shape)}", conclusive
            return criterion.find_value_difference(comparison, expected, part) or "", conclusive
        what = "it may be wrong, and there is no memory to compute it in double precision"
        return what, conclusive

    def answer_natively(self) -> torch.Tensor:
        """Native's answer, which autograd differentiates."""
        with silence_repeats():
            return self.native(*self._args, **self._kwargs)

    def _recompute(self, tensor: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
        """Native's answer to this call with another input and window."""
        args, kwargs = with_tensors(self._args, self._kwargs, {"input": tensor, "window": window})
        return self.native(*args, **kwargs)

    def _recompute_part(
        self, excerpt: Excerpt, tensor: torch.Tensor, window: torch.Tensor | None
    ) -> torch.Tensor:
        """Native's answer to a part of this call, with another input and window."""
        given = excerpt.given | {"input": tensor} | ({} if window is None else {"window": window})
        return excerpt.cut_part(self.native(**given))


def write_reproducer(case: Case, bound: Mapping[str, Any]) -> str:
    """A program that verifies a call with random values, and its gradients, if it has any.

    Args:
        bound: the call's arguments by name.
    """
    tensor, window = bound["input"], bound["window"]
    given = {
        name: "w" if name == "window" else repr(value)
        for name, value in bound.items()
        if name not in ("input", "n_fft") and value is not None
    }
    arguments = "".join(f", {name}={value}" for name, value in given.items())
    lines = [
        "import torch, torch_mlx_spectro as tms",
        "noise = torch.Generator().manual_seed(0)",
        f"x = {_write_random(tensor, 'randn')}",
        *([] if window is None else [f"w = {_write_random(window, 'rand', ' + 0.5')}"]),
        f"with tms.backend({case.backend!r}, verify=1):",
        f"    y = tms.{case.op}(x, {bound['n_fft']!r}{arguments})",
    ]
    if torch_state.is_differentiated(tensor, window):
        lines.append("    y.backward(torch.randn_like(y))")
    return "\n".join(lines)


def _write_random(tensor: torch.Tensor, function: str, more: str = "") -> str:
    """An expression for random values in a tensor's layout.

    Args:
        more: what is done to the values.
    """
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    size = 1 + sum((length - 1) * stride for length, stride in steps) if tensor.numel() else 0
    text = f"torch.{function}({size}, generator=noise, dtype={tensor.dtype})"
    text = f"({text}{more})" if more else text
    text += f".to({str(tensor.device)!r})" if tensor.device.type != torch_state.HOST else ""
    text += f".as_strided({tuple(tensor.shape)}, {tensor.stride()})"
    text += ".conj()" if tensor.is_conj() else ""
    return text + (".requires_grad_()" if tensor.requires_grad else "")


@contextmanager
def stop_without_memory() -> Iterator[None]:
    """End the context's work, and go on behind it, where there is not enough memory for it.

    The second computation needs memory that the program's own may have used up.
    """
    try:
        yield
    except Exception as error:
        if not _is_out_of_memory(error):
            raise


def _is_out_of_memory(error: Exception) -> bool:
    kinds = (MemoryError, torch.OutOfMemoryError)
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, kinds) or any(text in str(error) for text in texts)


#: No program forks while it is held; only a test of warnings does.
_silence = threading.Lock()


@contextmanager
def silence_repeats() -> Iterator[None]:
    """Silence native where torch repeats its once-only warnings; elsewhere it gives none.

    ``warnings.catch_warnings`` is not safe in several threads, but neither is that mode for
    production.
    """
    if not torch.is_warn_always_enabled():
        yield
        return
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_versions(*tensors: torch.Tensor | None) -> list[int | None]:
    """Read what shows whether tensors were written to; None for tensors that count no versions."""
    return [
        None if tensor is None or tensor.is_inference() else tensor._version for tensor in tensors
    ]


def can_be_verified(tensor: torch.Tensor) -> bool:
    """Whether a call can be compared: not within transforms, nor while CUDA records a graph."""
    return not (torch_state.is_captured(tensor) or torch_state.is_transformed())


def warn(case: Case, what: str, lines: str, kept: Path | None, stacklevel: int) -> None:
    """Warn the program of a wrong result, at the line that ``stacklevel`` counts from our caller.

    Args:
        lines: as :func:`write_reproducer` writes them.
        kept: the file in which later processes will find it.
    """
    later = "" if kept is None else f", and under auto in later ones, by {kept}"
    text = (
        f"torch_mlx_spectro: {case.op} computed by {case.backend} "
        f"({case.kernel}) is not native torch's: {what}. Native torch computes such calls "
        f"from now on in this process{later}. Please report this to the authors of "
        "torch_mlx_spectro, with the output of `torch-mlx-spectro doctor --json` and these "
        "lines, which verify the same call; their values are random, so if they give no "
        f"warning, the values of your input matter:\n{lines}"
    )
    warnings.warn(text, RuntimeWarning, stacklevel=stacklevel + 1)
