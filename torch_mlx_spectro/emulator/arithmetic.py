"""How Metal rounds: products and sums of one expression once, and denormal numbers to zero.

Apple's front end contracts ``a * b + c`` within an expression, also in the safe mode in which MLX
and torch compile (1.6.3 of the specification), and single precision may flush denormal numbers
(8.1): what MLX ships compiled says both. Half precision keeps its denormal numbers.
"""

from __future__ import annotations

import re

from ..settings import EmulatedArithmetic, emulated_arithmetic

_CONTRACT = re.compile(r"^([ \t]*#[ \t]*pragma[ \t]+)METAL([ \t]+fp[ \t]+contract\b)", re.MULTILINE)
_FUSED = re.compile(r"@llvm\.fmuladd\.")


AS_METAL = EmulatedArithmetic(contract=True, flush=True)


def list_flags(arithmetic: EmulatedArithmetic) -> tuple[str, ...]:
    """List the front end's flags."""
    denormals = ("-Xclang", "-fdenormal-fp-math-f32=preserve-sign,preserve-sign")
    contract = "on" if arithmetic.contract else "off"
    return (f"-ffp-contract={contract}", *(denormals if arithmetic.flush else ()))


def choose_arithmetic(contract: bool | None, denormals: str | None) -> EmulatedArithmetic:
    """Return what a machine asks for, and the environment where it asks for nothing.

    Args:
        denormals: "flush", "keep" or None.

    Raises:
        ValueError: an unknown value, given or in the environment.
    """
    default = emulated_arithmetic()
    if denormals not in (None, "flush", "keep"):
        raise ValueError(f"denormals are flush or keep; got {denormals!r}")
    return EmulatedArithmetic(
        default.contract if contract is None else contract,
        default.flush if denormals is None else denormals == "flush",
    )


def spell_pragmas(text: str) -> str:
    """Spell Metal's pragma about contraction for clang."""
    return _CONTRACT.sub(r"\1clang\2", text)


def fuse(ir: str) -> str:
    """Round once on every CPU; LLVM would round twice on one that has no such instruction."""
    lines = []
    declared = set()
    for line in _FUSED.sub("@llvm.fma.", ir).split("\n"):
        if line.startswith("declare ") and "@llvm.fma." in line:
            name = line[line.index("@") : line.index("(")]
            if name in declared:
                continue
            declared.add(name)
        lines.append(line)
    return "\n".join(lines)
