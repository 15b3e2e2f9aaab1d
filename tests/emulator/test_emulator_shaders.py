"""``torch.mps.compile_shader`` in the Metal emulator: torch's contract, and what it finds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.emulator import shader, shading

pytestmark = needs_emulator

#: The example of torch's documentation.
FULL = (
    "kernel void full(device float* out, constant float& val, "
    "uint idx [[thread_position_in_grid]]) { out[idx] = val; }"
)
ROTATE = """
#include <metal_stdlib>
using namespace metal;

// kernel void absent(device float* x) {}
constant float ONE = 1.0f;

inline float plus_one(float x) { return x + ONE; }

[[kernel]] void rotate(
    device float* y [[buffer(1)]],
    const device float* x [[buffer(0)]],
    uint i [[thread_position_in_grid]],
    uint t [[thread_position_in_threadgroup]]) {
  threadgroup float shared[64];
  shared[t] = x[i];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  y[i] = shared[(t + 1) % 64];
}

kernel void rise(const device float* x, device float* y, uint2 at [[thread_position_in_grid]],
                 uint3 all [[threads_per_grid]]) {
  threadgroup float own[1];
  own[0] = plus_one(x[at.y * all.x + at.x]);
  y[at.y * all.x + at.x] = own[0];
}
"""
NUMBERS = """
kernel void numbers(device long* y, constant long& n, constant float& x, constant long* many,
                    constant float* more, uint i [[thread_position_in_grid]]) {
  y[i] = n + long(4.0f * x) + many[i] + long(more[i]);
}
"""


@pytest.fixture(params=[False, True], ids=["plain", "checked"])
def machine(request: pytest.FixtureRequest, metal_cache: Path) -> emulator.Machine:
    return emulator.Machine(cache_dir=metal_cache, checked=request.param)


@pytest.fixture
def checked(metal_cache: Path) -> emulator.Machine:
    return emulator.Machine(cache_dir=metal_cache, checked=True)


def test_torchs_own_example(machine: emulator.Machine) -> None:
    before = getattr(torch.mps, "compile_shader", None)
    with machine.installed():
        assert torch.mps.compile_shader.emulated  # type: ignore[attr-defined]
        lib = torch.mps.compile_shader(FULL)
        x = torch.zeros(16)
        lib.full(x, 3.14)
        assert torch.equal(x, torch.full((16,), 3.14))
    assert getattr(torch.mps, "compile_shader", None) is before
    assert dir(lib) == ["full"]
    launch = machine.launches[-1]
    assert (launch.kernel, launch.grid, launch.threadgroup) == ("full", (16, 1, 1), (16, 1, 1))
    if machine.checked:
        assert (launch.device_written, launch.constant_read) == (64, 4)


def test_programs_without_torch_install_only_mlxs(
    machine: emulator.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.mps.compile_shader
    monkeypatch.delitem(sys.modules, "torch")
    with machine.installed():
        assert torch.mps.compile_shader is before


def test_a_library_of_several_kernels(machine: emulator.Machine) -> None:
    lib = machine.compile_shader(ROTATE)
    assert dir(lib) == ["rise", "rotate"]
    x, y = torch.arange(128.0), torch.empty(128)
    lib.rotate(x, y, threads=128, group_size=64)
    assert torch.equal(y, torch.arange(128.0).view(2, 64).roll(-1, 1).flatten())
    lib.rise(x, y, threads=(16, 8), group_size=[1, 1])
    assert torch.equal(y, x + 1)
    assert machine.launches[-1].grid == (16, 8, 1)
    with pytest.raises(RuntimeError, match="function state object for: absent"):
        lib.absent(x)


def test_what_does_not_compile_is_a_syntax_error(machine: emulator.Machine) -> None:
    for text in (
        FULL.replace("val;", ";"),
        FULL.replace("float* out", "double* out"),
        FULL.replace("device float* out", "float* out"),
        FULL.replace("[[thread_position_in_grid]]", "[[thread_position_in_nowhere]]"),
        FULL.replace("uint idx", "float idx"),
        FULL.replace("constant float& val", "device float& val [[buffer(0)]]").replace(
            "* out", "* out [[buffer(0)]]"
        ),
        FULL.replace("constant float& val", "constant float& val [[texture(0)]]"),
    ):
        assert text != FULL
        with pytest.raises(SyntaxError) as raised:
            machine.compile_shader(text)
        assert isinstance(raised.value, emulator.Rejected)


def test_numbers_are_bound_as_torch_binds_them(machine: emulator.Machine) -> None:
    numbers = machine.compile_shader(NUMBERS).numbers
    y = torch.empty(3, dtype=torch.int64)
    numbers(y, 1 << 40, 0.75, [1, 2, True], (0.0, 1, 2.5))
    assert y.tolist() == [(1 << 40) + 3 + 1 + 0, (1 << 40) + 3 + 2 + 1, (1 << 40) + 3 + 1 + 2]


CASTS = {"fp16": "half", "int32": "int", "int16": "short", "int8": "char", "uint8": "uchar"}


@pytest.mark.parametrize(("cast", "kind"), CASTS.items())
def test_casts(machine: emulator.Machine, cast: str, kind: str) -> None:
    text = f"""
kernel void casts(device float* y, constant {kind}& n, constant {kind}* many,
                  uint i [[thread_position_in_grid]]) {{ y[i] = float(n) + float(many[i]); }}"""
    kernel, y = machine.compile_shader(text).casts, torch.empty(2)
    kernel(y, 100, [1, 2], arg_casts=cast)
    assert y.tolist() == [101, 102]
    kernel(y, 3.5, [4, 5], arg_casts={1: cast, 2: cast})
    assert y.tolist() == [4 + 3.5, 5 + 3.5] if cast == "fp16" else [7, 8]
    # A Mac would read other numbers: the halves of the first, and the bits of an integer.
    with pytest.raises(emulator.EmulatorError, match=f"{kind} 'many' is bound to int64"):
        kernel(y, 3, [4, 5], arg_casts={1: cast})
    if cast == "fp16":
        with pytest.raises(emulator.EmulatorError, match="half 'n' is bound to int64"):
            kernel(y, 3, [4, 5], arg_casts={2: cast})


@pytest.mark.parametrize(
    ("kind", "fits", "others"),
    [
        ("int", -(1 << 31), 1 << 31),
        ("uint", (1 << 32) - 1, -1),
        ("short", -5, 1 << 15),
        ("ushort", 65535, 65536),
        ("uchar", 255, 256),
        ("ulong", 1 << 40, -1),
        ("bool", True, 2),
    ],
)
def test_integers_of_64_bits_are_read_as_fewer(
    machine: emulator.Machine, kind: str, fits: int, others: int
) -> None:
    """A Mac reads the low bytes, which are the number where it fits."""
    text = f"kernel void low(device long* y, constant {kind}& n) {{ y[0] = long(n); }}"
    low, y = machine.compile_shader(text).low, torch.empty(1, dtype=torch.int64)
    low(y, fits)
    assert y.item() == fits
    with pytest.raises(emulator.EmulatorError, match=f"{kind} 'n' is bound to int64"):
        low(y, others)


@pytest.mark.parametrize(
    ("args", "more", "said"),
    [
        (("x",), {}, "Unsupported argument type"),
        ((None,), {}, "Unsupported argument type"),
        ((np.int64(3),), {}, "Unsupported argument type"),
        (([],), {}, "Empty list/tuple"),
        ((["x"],), {}, "Unexpected argument types"),
        (([1, 0.5],), {}, "Unable to cast"),
        (([0.5, "x"],), {}, "Unable to cast"),
        ((1 << 63,), {}, "Unable to cast"),
        ((1.0,), {"arg_casts": "float64"}, "Unsupported cast instruction float64"),
        ((1.0,), {"arg_casts": ["int8"]}, "Unexpected caster arg type list"),
        ((1.0,), {"threads": ()}, "one to three"),
        ((1.0,), {"threads": (1, 1, 1, 1)}, "one to three"),
        ((1.0,), {"threads": -1}, "one to three"),
        ((1.0,), {"threads": 2.5}, "one to three|not iterable"),
        ((1.0,), {"threads": (8, 1), "group_size": 8}, "as many sizes"),
    ],
    ids=str,
)
def test_what_torch_refuses(
    checked: emulator.Machine, args: tuple[Any, ...], more: dict[str, Any], said: str
) -> None:
    kernel, y = checked.compile_shader(FULL).full, torch.empty(8)
    with pytest.raises((RuntimeError, TypeError), match=said) as raised:
        kernel(y, *args, **more)
    assert not isinstance(raised.value, emulator.EmulatorError)
    assert not checked.launches


def test_groups_are_as_large_as_the_pipeline_allows(checked: emulator.Machine) -> None:
    full, y = checked.compile_shader(FULL).full, torch.empty(3000)
    assert full.thread_execution_width == 32
    full(y, 1.0)
    assert checked.launches[-1].threadgroup == (1024, 1, 1)
    checked.max_threads = 64
    assert full.max_threads_per_threadgroup == 64
    full(y, 1.0)
    assert checked.launches[-1].threadgroup == (64, 1, 1)
    with pytest.raises(ValueError, match="Threadgroup size exceeds 64 limit"):
        full(y, 1.0, group_size=65)
    with pytest.raises(ValueError, match="Threadgroup size exceeds"):
        full(y, 1.0, threads=(30, 10, 10), group_size=(8, 8, 2))
    with pytest.raises(RuntimeError, match="threads is undefined"):
        checked.compile_shader("kernel void none(constant float& x) {}").none(1.0)


def test_what_a_mac_would_take_and_get_wrong(checked: emulator.Machine) -> None:
    full, y = checked.compile_shader(FULL).full, torch.empty(8)
    error = emulator.EmulatorError
    for given, said in (
        ((y, 3), "float 'val' is bound to int64"),
        ((y,), r"1 arguments for buffers at \[0, 1\]"),
        ((y, 1.0, 2.0), "3 arguments"),
        (([1.0], 2.0), "numbers for 'out', which is written"),
        ((y, [torch.ones(1)]), "lists of tensors"),
        ((y, [0.5] * 1025), "copies 4096 bytes"),
    ):
        with pytest.raises(error, match=said):
            full(*given, threads=8)
    with pytest.raises(error, match="no grid"):
        full(torch.empty(0), 1.0)
    rise = checked.compile_shader(ROTATE).rise
    whole = torch.zeros(12)
    with pytest.raises(error, match="output 'y' shares memory with 'x'"):
        rise(whole[:8], whole[4:], threads=(8, 1), group_size=(1, 1))
    rise(whole[:6], whole[6:], threads=(6, 1), group_size=(1, 1))  # neighbours
    assert whole.tolist() == [0.0] * 6 + [1.0] * 6


def test_views_begin_where_they_are(checked: emulator.Machine) -> None:
    rise = checked.compile_shader(ROTATE).rise
    x, y = torch.arange(20.0), torch.full((20,), -1.0)
    four: dict[str, Any] = {"threads": (4, 1), "group_size": (1, 1)}
    rise(x[5:9], y[11:15], **four)
    assert y.tolist() == [-1.0] * 11 + [6.0, 7.0, 8.0, 9.0] + [-1.0] * 5
    with pytest.raises(emulator.OutOfBounds, match="input 'x'"):
        rise(x[5:8], y[11:15], **four)
    with pytest.raises(emulator.OutOfBounds, match="output 'y'"):
        rise(x[5:9], y[11:14], **four)
    assert y[14] == 9.0  # what fails writes nothing


def test_between_the_elements_of_an_output_nothing_is_stored(metal_cache: Path) -> None:
    text = """
kernel void every(device float* y, constant long* strides, uint i [[thread_position_in_grid]]) {
  y[i * strides[0]] = float(i);
}"""
    machine = emulator.Machine(cache_dir=metal_cache, checked=True, updates=True)
    y = torch.full((9,), -1.0)
    machine.compile_shader(text).every(y[1::2], [2], threads=4)
    assert y.tolist() == [-1, 0, -1, 1, -1, 2, -1, 3, -1]
    with pytest.raises(emulator.Unwritten, match="'y'"):
        emulator.Machine(cache_dir=metal_cache, checked=True).compile_shader(text).every(
            y[1::2], [2], threads=4
        )


def test_outputs_hold_nothing_before_unless_they_are_updated(metal_cache: Path) -> None:
    text = "kernel void add(device float* y, uint i [[thread_position_in_grid]]) { y[i] += 1.0f; }"
    plain = emulator.Machine(cache_dir=metal_cache)
    y = torch.ones(4)
    plain.compile_shader(text).add(y)
    assert y.isnan().all()
    y = torch.ones(4)
    with pytest.raises(emulator.UninitialisedRead):
        emulator.Machine(cache_dir=metal_cache, checked=True).compile_shader(text).add(y)
    updates = emulator.Machine(cache_dir=metal_cache, checked=True, updates=True)
    updates.compile_shader(text).add(y)
    assert y.tolist() == [2.0] * 4  # once, though every order runs


def test_what_a_checked_machine_finds(checked: emulator.Machine) -> None:
    def run(text: str, *args: Any, **sizes: Any) -> None:
        checked.compile_shader(text).rotate(torch.arange(64.0), *args, **sizes)

    y = torch.empty(64)
    run(ROTATE, y, threads=64, group_size=64)
    with pytest.raises(emulator.UninitialisedRead):
        run(ROTATE.replace("shared[t] = x[i];", ""), y, threads=64, group_size=64)
    with pytest.raises(emulator.EmulatorError) as raised:
        run(
            ROTATE.replace("threadgroup_barrier(mem_flags::mem_threadgroup);", ""),
            y,
            threads=64,
            group_size=64,
        )
    assert isinstance(raised.value, emulator.Race | emulator.UninitialisedRead)
    with pytest.raises(emulator.Unwritten, match="of output 'y'"):
        run(ROTATE.replace("y[i] =", "if (i > 0) y[i] ="), y, threads=64, group_size=64)


def test_orders_have_to_agree(metal_cache: Path) -> None:
    machine = emulator.Machine(cache_dir=metal_cache)
    text = "kernel void last(device uint* y, uint i [[thread_position_in_grid]]) { y[0] = i; }"
    with pytest.raises(emulator.OrderDependent, match="output 'y' depends on"):
        machine.compile_shader(text).last(torch.empty(1, dtype=torch.int32), threads=8)


def test_the_text_is_transformed_and_compiled_once(metal_cache: Path) -> None:
    machine = emulator.Machine(
        cache_dir=metal_cache, transform=lambda text: text.replace("= val", "= 2.0f * val")
    )
    y = torch.empty(2)
    for _ in range(2):
        machine.compile_shader(FULL).full(y, 1.5)
    assert y.tolist() == [3.0, 3.0]
    compiled = machine.compilations
    machine.compile_shader(FULL).full(torch.empty(5), 1.5)
    assert machine.compilations == compiled


def test_every_kind_of_element_is_stored(checked: emulator.Machine) -> None:
    pairs = "kernel void pair(device float2* y, uint i [[thread_position_in_grid]]) "
    pairs += "{ y[i] = float2(float(i), -1.0f); }"
    z = torch.empty(2, 3, dtype=torch.complex64)
    checked.compile_shader(pairs).pair(z)
    assert torch.equal(z, torch.complex(torch.arange(6.0), torch.tensor(-1.0).expand(6)).view(2, 3))
    halves = "kernel void half_of(device half* y, uint i [[thread_position_in_grid]]) "
    halves += "{ y[i] = half(i) / 2.0h; }"
    for dtype in (torch.float16,):
        y = torch.empty(4, dtype=dtype)
        checked.compile_shader(halves).half_of(y)
        assert y.tolist() == [0, 0.5, 1, 1.5]


def test_what_kernels_a_text_has() -> None:
    assert shader.kernels_of(ROTATE) == ["rotate", "rise"]
    assert shader.kernels_of("/* kernel void a() */ [[ kernel ]] void b (int x) {}") == ["b"]
    bound = shading.bound_arguments([True, 2, 0.5], None)
    assert [str(one.values.dtype) for one in bound if one.values is not None] == [
        "int64",
        "int64",
        "float32",
    ]
