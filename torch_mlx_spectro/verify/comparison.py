"""Shadow mode: some accelerated calls are computed natively, too, and the results compared.

Every Nth call of a route (a way of computing: operation, backend, kernel, sizes, layout, dtype) is
verified; under ``auto`` a route's first, too (:mod:`.verify.ledger`). Calls are counted by route,
or else those of a program that takes turns between two would be verified for one of them only. A
route that is wrong once is quarantined: native computes it from then on, in this process, and the
program is told once.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..calls.key import with_tensors
from ..native import private_state as torch_state
from ..store.fork import after_fork
from . import criterion as agreement
from .excerpt import Excerpt, excerpts_of

if TYPE_CHECKING:
    from ..calls.kind import Route
    from ..core.params import IstftParams, StftParams

#: Routes that are counted apart; the calls of further ones are counted together.
MAX_ROUTES = 4096
#: Of routes in quarantine. With more of them nothing of ours is to be trusted.
MAX_QUARANTINED = 64

ALL_QUARANTINED = (
    f"verification: {MAX_QUARANTINED} routes have given wrong results in this process; "
    "nothing is accelerated any more"
)

Step = Callable[[], int]
Native = Callable[..., torch.Tensor]


class RouteKey(NamedTuple):
    """A way of computing: calls of one key differ in lengths and values alone."""

    op: str
    backend: str
    kernel: str
    device: str
    n_fft: int
    hop_length: int
    dtype: torch.dtype
    window: torch.dtype | None
    contiguous: bool
    bins_innermost: bool
    flags: tuple[bool | str, ...]

    def __str__(self) -> str:
        return f"{self.op} of n_fft {self.n_fft}, hop {self.hop_length}, {self.dtype}"


def key_of(
    route: Route,
    params: StftParams | IstftParams,
    tensor: torch.Tensor,
    window: torch.Tensor | None,
) -> RouteKey:
    """The key of a decided call."""
    return RouteKey(
        op=route.op,
        backend=route.backend,
        kernel=route.kernel,
        device=tensor.device.type,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        dtype=tensor.dtype,
        window=None if window is None else window.dtype,
        contiguous=tensor.is_contiguous(),
        bins_innermost=tensor.dim() < 2 or tensor.stride(-2) <= tensor.stride(-1),
        flags=(
            params.onesided,
            params.return_complex,
            params.batched,
            params.scale != 1,
            getattr(params, "pad_mode", "") if getattr(params, "padded", False) else "",
        ),
    )


class Verifier:
    """What a process has verified: the calls of each route, and the routes that were wrong."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[tuple[int, RouteKey | None], Step] = {}
        #: Route to the reason for its calls to go native. Read without a lock.
        self.quarantined: dict[RouteKey, str] = {}
        after_fork(self.after_fork_in_child)

    def is_due(self, every: int, key: RouteKey) -> bool:
        """Count a call of a route, and tell whether it is to be verified.

        Args:
            every: the Nth, 2Nth, ... call is due.
        """
        step = self._steps.get((every, key)) or self._first(every, key)
        return step() % every == 0

    def _first(self, every: int, key: RouteKey) -> Step:
        counted = key if len(self._steps) < MAX_ROUTES else None
        # A step of itertools.count cannot be divided by another thread, nor can setdefault.
        return self._steps.setdefault((every, counted), itertools.count(1).__next__)

    def reason_against(self, key: RouteKey) -> str | None:
        """Why native has to compute calls of a route; None if it need not."""
        if len(self.quarantined) >= MAX_QUARANTINED:
            return ALL_QUARANTINED
        return self.quarantined.get(key)

    def quarantine(self, key: RouteKey, what: str) -> bool:
        """Let native compute a route from now on; tells whether it did not yet."""
        reason = f"verification: {key.backend} ({key.kernel}) was wrong for {key}: {what}"
        with self._lock:
            if key in self.quarantined or len(self.quarantined) >= MAX_QUARANTINED:
                return False
            self.quarantined[key] = reason
            return True

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._steps.clear()
            self.quarantined.clear()

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds; what its parent found holds there, too."""
        self._lock = threading.Lock()


class Check:
    """One call that is due: made before the call is computed, asked once it is.

    Args:
        native: torch's own function.
        key: of the call's route.
        bound: the call's arguments by name.
        args, kwargs: the same as they came.
        in_parts: compare some parts of the result alone (:mod:`.verify.excerpt`).

    Attributes:
        telling: once there is a verdict: whether wrong values would have shown.
    """

    def __init__(
        self,
        native: Native,
        key: RouteKey,
        bound: Mapping[str, Any],
        args: Any,
        kwargs: Any,
        in_parts: bool = False,
    ) -> None:
        self.native, self.key, self.bound = native, key, bound
        self._in_parts = in_parts
        self.telling = False
        self._args, self._kwargs = args, kwargs
        self._tensors = (bound["input"], bound["window"])
        self._versions = versions_of(*self._tensors)

    def verdict(self, params: StftParams | IstftParams, actual: torch.Tensor) -> tuple[bool, str]:
        """Compute the call natively and compare; of a large one, parts of it.

        Native's once-only warnings have been given by the call itself.

        Returns:
            Whether the two could be compared; in what ``actual`` is wrong, "" if in nothing.
        """
        tensor, window = self._tensors
        judged = agreement.Judged(
            recompute=self._recompute,
            tensor=tensor,
            window=window,
            n_fft=params.n_fft,
            batched=params.batched,
            pairs=self.key.op == "stft" and not params.return_complex,
            recorded=torch_state.is_differentiated(tensor, window),
            place=agreement.place_for(tensor),
        )
        compared, found = False, ""
        with torch.no_grad(), warned_already():
            try:
                if self._in_parts:
                    for excerpt in excerpts_of(params, self.bound):
                        compared, found = True, self._of_part(judged, excerpt, actual)
                        if found:
                            break
                else:
                    compared, found = True, self._of_whole(judged, actual)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return False, ""
        if versions_of(*self._tensors) != self._versions:
            return False, ""  # another thread has written to the input meanwhile
        return compared, found

    def _of_whole(self, judged: agreement.Judged, actual: torch.Tensor) -> str:
        def compute() -> torch.Tensor:
            return self.native(*self._args, **self._kwargs)

        return self._judge(judged, agreement.disagreement, compute, actual)

    def _of_part(self, judged: agreement.Judged, excerpt: Excerpt, actual: torch.Tensor) -> str:
        given = excerpt.given

        def compute(**changed: torch.Tensor) -> torch.Tensor:
            return excerpt.of_part(self.native(**given | changed))

        def recompute(tensor: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
            return compute(input=tensor, **({} if window is None else {"window": window}))

        def judge(
            part: agreement.Judged, expected: torch.Tensor, whole: torch.Tensor
        ) -> str | None:
            found = excerpt.of_whole(whole)
            if found is None or found.shape != expected.shape:
                return f"its shape is {tuple(whole.shape)}"
            return agreement.disagreement_of_values(part, expected, found)

        part = replace(judged, recompute=recompute, tensor=given["input"])
        return self._judge(part, judge, compute, actual, " for a part")

    def _judge(
        self,
        judged: agreement.Judged,
        judge: Callable[[agreement.Judged, torch.Tensor, torch.Tensor], str | None],
        compute: Callable[[], torch.Tensor],
        actual: torch.Tensor,
        where: str = "",
    ) -> str:
        """In what ``actual`` is wrong beside what native computes."""
        try:
            expected = compute()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"native torch raises {type(error).__name__}{where}: {error}"
        self.telling = self.telling or agreement.is_telling(expected)
        try:
            return judge(judged, expected, actual) or ""
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return "it is in doubt, and there is no memory to compute it in double precision"

    def answer(self) -> torch.Tensor:
        """Native's answer, known to autograd."""
        with warned_already():
            return self.native(*self._args, **self._kwargs)

    def _recompute(self, tensor: torch.Tensor, window: torch.Tensor | None) -> torch.Tensor:
        """Native's answer to this call with another input and window."""
        args, kwargs = with_tensors(self._args, self._kwargs, {"input": tensor, "window": window})
        return self.native(*args, **kwargs)


def warning(key: RouteKey, what: str, lines: str, kept: Path | None) -> str:
    """What the program is told of a wrong result.

    Args:
        lines: of :func:`reproducer`.
        kept: the file in which later processes will find it.
    """
    later = "" if kept is None else f", and under auto in later ones, by {kept}"
    return (
        f"torch_mlx_spectro: {key.op} computed by {key.backend} "
        f"({key.kernel}) is not native torch's: {what}. Native torch computes such calls "
        f"from now on in this process{later}. Please report this to the authors of "
        "torch_mlx_spectro, with the output of `torch-mlx-spectro doctor --json` and these "
        "lines, which verify the same call; their values are random, so if they give no "
        "warning, the values of "
        f"your input matter:\n{lines}"
    )


def reproducer(key: RouteKey, bound: Mapping[str, Any]) -> str:
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
        f"x = {_random(tensor, 'randn')}",
        *([] if window is None else [f"w = {_random(window, 'rand', ' + 0.5')}"]),
        f"with tms.backend({key.backend!r}, verify=1):",
        f"    y = tms.{key.op}(x, {bound['n_fft']!r}{arguments})",
    ]
    if torch_state.is_differentiated(tensor, window):
        lines.append("    y.backward(torch.randn_like(y))")
    return "\n".join(lines)


def _random(tensor: torch.Tensor, function: str, more: str = "") -> str:
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


def is_out_of_memory(error: Exception) -> bool:
    """The second computation needs memory that the program's own may leave no room for."""
    known = (MemoryError, torch.OutOfMemoryError)
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, known) or any(text in str(error) for text in texts)


#: Nobody forks with it held but in a test of warnings.
_silence = threading.Lock()


@contextmanager
def warned_already() -> Iterator[None]:
    """Let native be silent where torch repeats its once-only warnings; elsewhere it is.

    ``warnings.catch_warnings`` is not for several threads; that mode is not for production.
    """
    if not torch.is_warn_always_enabled():
        yield
        return
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def versions_of(*tensors: torch.Tensor | None) -> list[int | None]:
    """What tells whether tensors were written to; None of those that count no versions."""
    return [
        None if tensor is None or tensor.is_inference() else tensor._version for tensor in tensors
    ]


def can_be_verified(tensor: torch.Tensor) -> bool:
    """Whether a call can be compared here: not inside of transforms, nor while CUDA is recorded."""
    if torch_state.is_transformed():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def warn(key: RouteKey, what: str, lines: str, kept: Path | None, stacklevel: int) -> None:
    """Tell the program, at the line that ``stacklevel`` counts from our caller."""
    warnings.warn(warning(key, what, lines, kept), RuntimeWarning, stacklevel=stacklevel + 1)
