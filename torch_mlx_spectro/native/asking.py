"""Ask modes and subclasses that want to see a call, with torch's own function object.

When they call that function on, a mode of ours computes it. It lies below the mode that is asked
first, so torch asks it next, whoever calls torch's function, and however often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import private_state as torch_state

#: Why native computes calls that a mode or subclass is asked about.
NO_MODES = "this torch does not let its stack of function modes be changed"


class _CalledOn(torch.overrides.TorchFunctionMode):
    """Computes, by another function, the calls that modes and subclasses pass on.

    Args:
        function: torch's own.
        compute: takes its arguments.
        passes: let subclasses be asked first, since torch asks modes before them.
    """

    def __init__(
        self, function: Callable[..., Any], compute: Callable[..., Any], passes: bool
    ) -> None:
        super().__init__()
        self._function, self._compute, self._passes = function, compute, passes
        self.was_reached = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not self._function:
            return func(*args, **(kwargs or {}))
        if self._passes:
            self._passes = False
            return NotImplemented
        self.was_reached = True
        return self._compute(*args, **(kwargs or {}))

    def note(self, function: Callable[..., Any]) -> None:
        """Note that a mode or subclass calls a function by its name."""
        self.was_reached = self.was_reached or function is self._function


def ask(
    function: Callable[..., torch.Tensor], compute: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[torch.Tensor, str | None]:
    """Have torch ask the modes and subclasses that want to see a call; compute what they pass on.

    They are shown torch's own function. When they call it, ``compute`` is called with their
    arguments. It has to ask those who were not asked yet.

    Returns:
        The result; and the reason if ``compute`` did not compute it.
    """
    if None in (torch_state.push_mode, torch_state.pop_mode, torch_state.count_modes):
        return function(*args, **kwargs), NO_MODES
    first, outer = _pop_until(lambda mode: not isinstance(mode, _CalledOn))
    if outer:  # one of those who are asked calls the program's function, by its name
        for mode in outer:
            mode.note(function)
        if first is not None:
            torch_state.push_mode(first)
        try:
            return compute(*args, **kwargs), None
        finally:
            _push_back(outer)
    called_on = _CalledOn(function, compute, passes=first is None)
    torch_state.push_mode(called_on)
    if first is not None:
        torch_state.push_mode(first)
    try:
        result = function(*args, **kwargs)
    finally:
        # Modes and subclasses may have moved it in the stack.
        _push_back(_pop_until(lambda mode: mode is called_on)[1])
    if called_on.was_reached:
        return result, None
    who = "a subclass" if first is None else type(first).__name__
    return result, f"{who} was asked, and did not call torch's function on"


def _pop_until(is_wanted: Callable[[Any], bool]) -> tuple[Any, list[Any]]:
    """Pop modes until the first wanted one, counted from above; the last popped one comes first.

    Returns:
        The mode, None if there is none, and the others.
    """
    above: list[Any] = []
    while torch_state.count_modes():
        mode = torch_state.pop_mode()
        if is_wanted(mode):
            return mode, above
        above.append(mode)
    return None, above


def _push_back(above: list[Any]) -> None:
    while above:
        torch_state.push_mode(above.pop())
