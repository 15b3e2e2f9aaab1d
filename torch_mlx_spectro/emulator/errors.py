"""What the emulator raises. Everything is an :class:`EmulatorError`."""

from __future__ import annotations


class EmulatorError(RuntimeError):
    """A kernel would not compile, or would go wrong, on a Mac; or the emulator cannot run it."""


class Unavailable(EmulatorError):
    """The emulator cannot be used here."""


class Rejected(EmulatorError):
    """Metal's compiler would refuse the text."""


class OutOfBounds(EmulatorError):
    """An access outside of every buffer, array and stack of the launch, or a write to an input."""


class Misaligned(EmulatorError):
    """An access to a vector or number at an address that is no multiple of its size."""


class UninitialisedRead(EmulatorError):
    """A read of threadgroup memory or of an output that nobody has written."""


class Race(EmulatorError):
    """Two threads access the same memory, one of them writes, and nothing orders them."""


class BarrierDivergence(EmulatorError):
    """Threads of a group wait at different barriers, or some have returned before one."""


class InactiveLane(EmulatorError):
    """A value was asked from a lane of the SIMD group that does not take part."""


class KernelFault(EmulatorError):
    """The kernel faulted: a wild pointer, too deep a stack, or an integer division by zero."""


class OrderDependent(EmulatorError):
    """The result depends on the order in which the threads run."""


class Unwritten(EmulatorError):
    """Elements of an output that no thread has written."""
