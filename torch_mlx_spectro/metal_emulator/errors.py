"""What a launch in the emulator may fail with."""

from __future__ import annotations


class EmulatorError(RuntimeError):
    """A kernel does what it must not, or what would differ on a GPU."""


class Rejected(EmulatorError):
    """The text is not what Metal's compiler takes."""


class OrderDependent(EmulatorError):
    """The result depends on the order in which threads run: a barrier is missing."""


class BarrierDivergence(EmulatorError):
    """Threads of a group wait at a barrier that others never reach."""


class OutOfBounds(EmulatorError):
    """An access outside every buffer, or a write to an input."""


class UninitialisedRead(EmulatorError):
    """Memory was read before anything was written there."""


class Race(EmulatorError):
    """Two threads use the same memory, one of them writing, with no barrier between."""


class Unwritten(EmulatorError):
    """Elements of an output that no thread wrote."""
