"""What tests of compiled programs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch._dynamo.utils


@contextmanager
def fresh_compiler() -> Iterator[None]:
    """Nothing is compiled or counted before, and nothing stays."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()
