"""Write the text of a launch for ``torch.mps.compile_shader``: the same headers and bodies.

A generated function has the body's inputs as parameters, and what it is compiled for as constants.
torch copies the strides and integers of a launch into its command, so they lie in constant memory;
MLX passes them as arrays in device memory. So this text says ``constant`` of them everywhere.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from ...store.caches import cached
from ...store.sources import source
from ..arguments import CHECKING_KERNELS, HEADERS, INPUTS, OUTPUTS, VANISHING
from ..launches import Template
from ..radices import SIMD_WIDTH
from .metal import header, strip_comments, write_constants

#: torch compiles in Metal's safe mode, unless PYTORCH_MPS_FAST_MATH asks for fast mathematics in
#: its own kernels. Compilers older than this pragma (before macOS 15) warn of it and go on.
_BEGIN = """\
#include <metal_stdlib>
#pragma METAL fp math_mode(safe)
using namespace metal;
"""

_INTEGERS = re.compile(r"\bconst device long\*")
#: The names that a body may use for its thread's position.
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


@cached(16)
def list_arguments(kernel: str) -> tuple[str, ...]:
    """List the names of a kernel's arguments, in the order in which they are bound.

    ``strides`` are those of its first input. The outputs come last.
    """
    first, *others = INPUTS[kernel]
    strides = ["strides"] if f"{first}_strides" in source(f"{kernel}.metal") else []
    verdict = [VANISHING] if kernel in CHECKING_KERNELS else []
    return (first, *strides, *others, *OUTPUTS[kernel], *verdict)


def write_text(kernel: str, template: Template) -> str:
    """Write the whole text of one kernel, compiled for one template."""
    body = source(f"{kernel}.metal")
    types = _TYPES | dict.fromkeys(OUTPUTS[kernel], "device float*")
    first, *others = list_arguments(kernel)
    declared = [f"const device float* {first}"]
    for name in others:
        spelled = f"{first}_strides" if name == "strides" else name
        declared.append(f"{types.get(name, 'const device float*')} {spelled}")
    parameters = [f"{one} [[buffer({index})]]" for index, one in enumerate(declared)]
    parameters += [f"uint3 {name} [[{name}]]" for name in _POSITIONS if name in body]
    bounds, values = "", dict(template)
    if "THREADS" in values:
        # Else the compiler may take so many registers that the GPU refuses the group.
        threads = -(-values["FRAMES"] * values["THREADS"] // SIMD_WIDTH) * SIMD_WIDTH
        bounds = f"[[max_total_threads_per_threadgroup({threads})]] "
    text = "".join(
        [
            _BEGIN,
            header(*HEADERS[kernel]),
            f"{bounds}[[kernel]] void spectro_{kernel}(\n    ",
            ",\n    ".join(parameters),
            ") {\n",
            write_constants(template),
            strip_comments(body),
            "}\n",
        ]
    )
    return _INTEGERS.sub("constant long*", text)
