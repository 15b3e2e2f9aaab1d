"""MLX's Metal text as a C++ program for clang, line for line, and what is wrong with it.

Only three things are changed in the text: the attributes of the explicit instantiation, which C++
has not at that place; threadgroup arrays, which C++ cannot have among a function's own variables;
and a function that calls the kernel with the machine's values is added at the end.
"""

from __future__ import annotations

import re

from .errors import Rejected

_INSTANTIATION = re.compile(
    r'^template \[\[host_name\("[^"]*"\)\]\] \[\[kernel\]\] decltype\((?P<function>.*)\) .*;$',
    re.MULTILINE,
)
_KERNEL = re.compile(
    r"(?:\[\[kernel\]\]|kernel) void (?P<name>\w+)\((?P<parameters>.*?)\) \{\n", re.DOTALL
)
_ATTRIBUTE = re.compile(r"^(?P<declaration>.*?)\s*\[\[(?P<attribute>[\w()]+)\]\]$", re.DOTALL)
_GROUP_ARRAY = re.compile(
    r"^(?P<indent>[ \t]*)threadgroup\s+(?P<type>\w+)\s+(?P<name>\w+)\s*(?P<extent>\[.*\]);",
    re.MULTILINE,
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

_TYPES = (
    r"(?:const\s+)?(?:void|bool|char|uchar|short|ushort|int|uint|long|ulong|half|float|u?int\d+_t"
    r"|(?:float|int|uint|half|short|ushort)[234]|complex64_t"
    r"|[A-Z]\w*<[^<>()]*(?:<[^<>()]*>)?[^<>()]*>)"
)
_BARE_PARAMETER = re.compile(rf"[(,]\s*(?P<parameter>{_TYPES}\s*(?:\(\s*)?[*&][^,)]*)[,)]")
_STATIC = re.compile(r"\bstatic\b(?!\s+(?:inline|constexpr|constant|const)\b)(?P<rest>[^;\n]*)")

#: By attribute of a kernel's parameter: its value, from a ``const Position* at``.
_POSITIONS = {
    "thread_position_in_grid": (
        "uint3{at->group[0] * SIZE(0) + at->in_group[0], at->group[1] * SIZE(1) + at->in_group[1],"
        " at->group[2] * SIZE(2) + at->in_group[2]}"
    ),
    "thread_position_in_threadgroup": "uint3{at->in_group[0], at->in_group[1], at->in_group[2]}",
    "threadgroup_position_in_grid": "uint3{at->group[0], at->group[1], at->group[2]}",
    "threads_per_threadgroup": "uint3{at->group_size[0], at->group_size[1], at->group_size[2]}",
    "threads_per_grid": "uint3{at->grid[0], at->grid[1], at->grid[2]}",
    "grid_size": "uint3{at->grid[0], at->grid[1], at->grid[2]}",
    "threadgroups_per_grid": "uint3{at->groups[0], at->groups[1], at->groups[2]}",
    "thread_index_in_threadgroup": "at->index",
    "thread_index_in_simdgroup": "at->lane",
    "simdgroup_index_in_threadgroup": "at->simd",
    "threads_per_simdgroup": "32u",
    "thread_execution_width": "32u",
    "simdgroups_per_threadgroup": (
        "(at->group_size[0] * at->group_size[1] * at->group_size[2] + 31) / 32"
    ),
}

_TRAMPOLINE = """\
#line 1 "trampoline"
#define EXPORTED extern "C" __attribute__((visibility("default")))
#define SIZE(axis) spectro_size[axis]
EXPORTED unsigned spectro_size[3];
__attribute__((section(".spectro_hooks"))) unsigned spectro_size[3] = {1, 1, 1};
EXPORTED SPECTRO_OWN void spectro_set_hooks(const Hooks* hooks) { spectro_hooks = hooks; }
EXPORTED SPECTRO_OWN void spectro_thread(void** b, const Position* at) {
  (void)b, (void)at;
  %s(%s);
}
"""


def lint(text: str) -> None:
    """Reject what clang would take and Metal's compiler would not.

    Raises:
        Rejected: naming the line of the text.
    """
    bare = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for pattern, message in (
        (_BARE_PARAMETER, "pointers and references need an address space"),
        (_STATIC, "functions have no static variables"),
    ):
        found = pattern.search(bare)
        if found is not None:
            line = bare.count("\n", 0, found.start(found.lastindex or 0)) + 1
            raise Rejected(f"line {line}: {message}: {found[0].strip(' (,)')}")
    kernel = _KERNEL.search(bare)
    for found in _GROUP_ARRAY.finditer(bare):
        if kernel is None or found.start() < kernel.start():
            line = bare.count("\n", 0, found.start()) + 1
            raise Rejected(f"line {line}: threadgroup variables belong into a kernel function")


def translate(text: str) -> str:
    """The C++ program of MLX's text.

    Raises:
        Rejected: the text is not of the form that MLX generates.
    """
    kernel = _KERNEL.search(text)
    if kernel is None:
        raise Rejected("the text has no kernel function")
    instantiation = _INSTANTIATION.search(text)
    function = kernel["name"] if instantiation is None else instantiation["function"]

    def instantiated(found: re.Match[str]) -> str:
        return f"template decltype({found['function']}) {found['function']};"

    def group_array(found: re.Match[str]) -> str:
        name = found["name"]
        return (
            f'{found["indent"]}static __attribute__((section(".spectro_group"))) threadgroup '
            f"{found['type']} {name}{found['extent']}; "
            f"spectro_group_memory((void*){name}, sizeof({name}));"
        )

    program = _GROUP_ARRAY.sub(group_array, _INSTANTIATION.sub(instantiated, text))
    called = _TRAMPOLINE % (function, ", ".join(_arguments(kernel["parameters"])))
    return f'#include "prelude.h"\n#line 1 "kernel.metal"\n{program}\n{called}'


def _arguments(parameters: str) -> list[str]:
    """C++ expressions for a kernel's parameters, from its buffers ``b`` and position ``at``."""
    arguments: list[str] = []
    buffers = 0
    for parameter in parameters.split(",\n"):
        found = _ATTRIBUTE.match(parameter.strip())
        if found is None:
            raise Rejected(f"parameter without an attribute: {parameter.strip()}")
        declaration, attribute = found["declaration"].strip(), found["attribute"]
        if attribute.startswith("buffer("):
            type_name = re.sub(r"\s*\w+$", "", declaration)
            if type_name.endswith("&"):
                arguments.append(f"*({type_name[:-1].strip()}*)b[{buffers}]")
            else:
                arguments.append(f"({type_name})b[{buffers}]")
            buffers += 1
        elif attribute in _POSITIONS:
            arguments.append(_POSITIONS[attribute])
        else:
            raise Rejected(f"attribute {attribute} is not known to the emulator")
    return arguments
