"""The text of a launch for ``torch.mps.compile_shader``: the same headers and bodies, one kernel.

A generated function has the body's inputs as parameters, and as constants what it is compiled for.
Strides and integers of a launch are copied into its command, so they lie in constant memory, where
MLX, whose arrays they are, has them in the device's: the text says ``constant`` of them everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType

from ...store.caches import cached
from ...store.sources import source
from ..arguments import HEADERS, INPUTS, JUDGES, OUTPUTS, VANISHING
from ..launches import Launch, Template
from .metal import header

#: torch compiles in Metal's safe mode unless PYTORCH_MPS_FAST_MATH asks otherwise of its own
#: kernels; compilers older than the pragma (macOS 15) warn of it and go on.
_BEGIN = """\
#include <metal_stdlib>
#pragma METAL fp math_mode(safe)
using namespace metal;
"""

_INTEGERS = re.compile(r"\bconst device long\*")
#: What a body may ask about its thread.
_POSITIONS = (
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
)
_TYPES = MappingProxyType(
    {
        "strides": "constant long*",
        "parameters": "constant long*",
        "edge": "constant float&",
        VANISHING: "device atomic_uint*",
    }
)


@dataclass(frozen=True)
class Variant:
    """What is compiled: one kernel for one template."""

    kernel: str
    template: Template

    @property
    def name(self) -> str:
        """Of the generated function."""
        return f"spectro_{self.kernel}"


def make_variant(launch: Launch) -> Variant:
    """What has to be compiled for a launch."""
    return Variant(launch.kernel, launch.template)


@cached(16)
def list_arguments(kernel: str) -> tuple[str, ...]:
    """Names of a kernel's arguments, in the order in which they are bound.

    ``strides`` are those of its first input; what it writes comes last.
    """
    first, *others = INPUTS[kernel]
    strides = ["strides"] if f"{first}_strides" in source(f"{kernel}.metal") else []
    judged = [VANISHING] if kernel in JUDGES else []
    return (first, *strides, *others, *OUTPUTS[kernel], *judged)


@cached(64)
def write_text(variant: Variant) -> str:
    """The whole text of one variant."""
    body = source(f"{variant.kernel}.metal")
    types = _TYPES | dict.fromkeys(OUTPUTS[variant.kernel], "device float*")
    first, *others = list_arguments(variant.kernel)
    declared = [f"const device float* {first}"]
    for name in others:
        spelled = f"{first}_strides" if name == "strides" else name
        declared.append(f"{types.get(name, 'const device float*')} {spelled}")
    parameters = [f"{one} [[buffer({index})]]" for index, one in enumerate(declared)]
    parameters += [f"uint3 {name} [[{name}]]" for name in _POSITIONS if name in body]
    constants = "".join(
        f"  constexpr {'bool' if isinstance(value, bool) else 'int'} {name} = {int(value)};\n"
        for name, value in variant.template
    )
    text = "".join(
        [
            _BEGIN,
            header(*HEADERS[variant.kernel]),
            f"\n[[kernel]] void {variant.name}(\n    ",
            ",\n    ".join(parameters),
            ") {\n",
            constants,
            body,
            "}\n",
        ]
    )
    return _INTEGERS.sub("constant long*", text)
