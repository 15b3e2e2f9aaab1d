"""Read a text as Metal's compiler would: every pass that may refuse it, and none that makes code.

1. The text is ASCII (``words.py``), and is preprocessed by clang.
2. Its tokens have nothing that Metal refuses and clang takes (``words.py``, ``lint.py``).
3. clang reads it as strict C++14 with disjoint address spaces (``standard.py``).
4. clang reads it as C++ for OpenCL, and gives LLVM's text, which has no recursion and no variable
   that can change and outlives its function (``calls.py``).

Where it compares vectors, 3 and 4 read it once more, with Metal's meaning (``comparisons.py``).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..settings import EmulatedArithmetic
from . import arithmetic, calls, comparisons, lint, shader, standard, translate, words
from .arithmetic import AS_METAL
from .errors import Rejected
from .function_arguments import deduce_function_parameters
from .tokens import Token
from .toolchain import RUNTIME, Toolchain, toolchain

#: In the folder of a reading: the text as clang last read it, and what came of it.
_SOURCE, IR = "kernel.cpp", "kernel.ll"

# Where the library's own constants are: linker symbols.
_IMAGE = """
# 1 "image"
extern "C" {
extern __attribute__((visibility("hidden"))) const char __ehdr_start[];
extern __attribute__((visibility("hidden"))) const char _end[];
__attribute__((visibility("default"))) const void* mtl_image() {
  return (const void*)__ehdr_start;
}
__attribute__((visibility("default"))) const void* mtl_image_end() {
  return (const void*)_end;
}
}
"""


@dataclass(frozen=True)
class Request:
    """What to compile: the text (transformed or not), the kernel's name, and how.

    Attributes:
        is_shader: it is of ``torch.mps.compile_shader``, not MLX's.
        arithmetic: how its kernels round.
    """

    text: str
    name: str
    checked: bool
    is_shader: bool = False
    arithmetic: EmulatedArithmetic = AS_METAL

    def key(self, tools: Toolchain) -> str:
        how = (self.checked, self.is_shader, self.arithmetic)
        parts = (tools.identity, self.name, str(how), self.text)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Reading:
    """What was learnt of a kernel.

    Attributes:
        arrays: names of its threadgroup variables.
        buffers: of a shader: what its parameters say.
    """

    arrays: tuple[str, ...]
    buffers: tuple[shader.Buffer, ...]


def judge(text: str) -> tuple[str, ...]:
    """Read every kernel of a text of ``torch.mps.compile_shader``, and run none.

    Returns:
        The kernels' names.

    Raises:
        Rejected: Metal's compiler would refuse the text.
    """
    words.check_ascii(text)
    names = tuple(shader.kernels_of(text))
    request = Request(text, ", ".join(names[:3]), checked=False, is_shader=True)
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        work, tools = Path(folder), toolchain()
        tokens = translate.tokenize(_preprocess(tools, request, work))
        entries = [
            translate.entry(shader.signature(tokens, name)[0], f"mtl_entry_{index}")
            for index, name in enumerate(names)
        ]
        _read_tokens(tools, request, work, tokens, names, "".join(entries))
    return names


def judge_request(request: Request) -> None:
    """Read one kernel, as MLX generates it or of a shader.

    Raises:
        Rejected: Metal's compiler would refuse the text.
    """
    with tempfile.TemporaryDirectory(prefix="reading-") as work:
        read(toolchain(), request, Path(work))


def read(tools: Toolchain, request: Request, work: Path) -> Reading:
    """Read a kernel; ``work / IR`` is LLVM's text of it.

    Raises:
        Rejected: Metal's compiler would refuse the text.
    """
    words.check_ascii(request.text)
    buffers: list[shader.Buffer] = []
    if request.is_shader:
        tokens = translate.tokenize(_preprocess(tools, request, work))
        tokens = shader.without_others(tokens, request.name)
        signature, buffers = shader.signature(tokens, request.name)
    else:
        signature = translate.signature(request.text, request.name)
        tokens = translate.tokenize(_preprocess(tools, request, work))
    _read_tokens(tools, request, work, tokens, (request.name,), translate.entry(signature) + _IMAGE)
    return Reading(translate.array_names(tokens, request.name), tuple(buffers))


def _read_tokens(
    tools: Toolchain,
    request: Request,
    work: Path,
    tokens: list[Token],
    names: tuple[str, ...],
    end: str,
) -> None:
    """Read kernels from tokens; ``end`` comes after them, and calls them."""
    words.check(tokens)
    lint.check(tokens, request.name)
    spelt = (tokens, deduce_function_parameters(tokens))
    texts = tuple(translate.rewrite(one, *names) + end for one in spelt)
    ir = _read_comparing(tools, request, work, texts)
    calls.check(ir, request.name)
    (work / IR).write_text(arithmetic.fuse(ir), encoding="utf-8")


def call_clang(tools: Toolchain, request: Request, work: Path, *arguments: str) -> str:
    """Call clang in ``work``; returns what it printed.

    Raises:
        Rejected: it refuses the text.
    """
    done = tools.call("clang", *arguments, cwd=work)
    if done.returncode != 0:
        message = done.stderr.replace(str(RUNTIME) + os.sep, "")
        raise Rejected(f"{request.name}: {message.strip()}")
    return done.stdout


def _preprocess(tools: Toolchain, request: Request, work: Path) -> str:
    text = lint.without_standard_includes(translate.without_instantiation(request.text))
    (work / "metal").write_text(arithmetic.spell_pragmas(text), encoding="utf-8")
    return call_clang(
        tools,
        request,
        work,
        *("-x", "c++", "-E", "-undef", "-nostdinc", "-D__METAL__=1"),
        *("-D__METAL_VERSION__=310", "-D__HAVE_BFLOAT__=0", "metal"),
    )


def _read_comparing(tools: Toolchain, request: Request, work: Path, texts: tuple[str, ...]) -> str:
    """Let clang read a text, comparisons of vectors marked as far as it understands it."""
    while True:
        ir, refusal = "", None
        try:
            ir = _read_once(tools, request, work, *texts)
        except Rejected as error:
            refusal = error
        if refusal is None and not comparisons.has_vector_comparisons(ir):
            return ir
        changed = tuple(_mark_comparisons(tools, request, work, text) for text in texts)
        if changed == texts:
            if refusal is not None:
                raise refusal
            return ir
        texts = changed  # of which clang may now understand more


def _read_once(tools: Toolchain, request: Request, work: Path, strict: str, text: str) -> str:
    """Read a text as C++14, and its other spelling as C++ for OpenCL; returns LLVM's text."""
    (work / _SOURCE).write_text(strict, encoding="utf-8")
    done = tools.call("clang", *tools.standard, _SOURCE, cwd=work)
    errors = standard.list_errors(done.stderr)
    if errors:
        message = "\n".join(errors).replace(str(RUNTIME) + os.sep, "")
        raise Rejected(f"{request.name}: as C++14: {message}")
    (work / _SOURCE).write_text(text, encoding="utf-8")
    call_clang(
        tools,
        request,
        work,
        *(*tools.metal, *arithmetic.list_flags(request.arithmetic)),
        *(["-fsanitize=thread"] if request.checked else []),
        *("-Xclang", "-disable-llvm-passes", "-emit-llvm", "-S", _SOURCE, "-o", IR),
    )
    return (work / IR).read_text(encoding="utf-8")


def _mark_comparisons(tools: Toolchain, request: Request, work: Path, text: str) -> str:
    (work / _SOURCE).write_text(text, encoding="utf-8")
    flags = (*tools.metal, "-fsyntax-only", "-Xclang", "-ast-dump=json")
    done = tools.call("clang", *flags, _SOURCE, cwd=work)
    try:
        return comparisons.mark(text, done.stdout)
    except Rejected as error:
        raise Rejected(f"{request.name}: {error}") from error
