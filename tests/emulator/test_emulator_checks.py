"""The Metal emulator's checks while a kernel runs: memory, races, barriers, faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import needs_emulator
from test_emulator import ROTATE, mx, rotated, run

from torch_mlx_spectro import emulator

pytestmark = needs_emulator


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulator_checks")


@pytest.fixture
def checked(cache: Path) -> emulator.Machine:
    return emulator.Machine(cache_dir=cache, checked=True, orders=("ascending", ("random", 3)))


@pytest.fixture
def plain(cache: Path) -> emulator.Machine:
    return emulator.Machine(cache_dir=cache)


START = "uint i = thread_position_in_grid.x, t = thread_position_in_threadgroup.x;"
TWO_GROUPS: dict[str, Any] = {"grid": (128, 1, 1), "threadgroup": (64, 1, 1)}


def test_a_removed_barrier_is_a_race(checked: emulator.Machine) -> None:
    checked.transform = lambda text: text.replace(
        "threadgroup_barrier(mem_flags::mem_threadgroup);", ""
    )
    checked.orders = ("descending",)
    x, _ = rotated(2)
    message = r"tested: thread \d+ of group \(1, 0, 0\): .*'shared', which races with a \w+ by"
    with pytest.raises(emulator.Race, match=message):
        # The last thread is the first to run, and reads what is not written yet.
        run(checked, "if (thread_position_in_grid.x < 9999) {" + ROTATE.replace(
            "y[i] = ", "y[i] = t == 63 ? 0 : ") + "}", {"x": x}, **TWO_GROUPS)  # fmt: skip


def test_a_barrier_orders_only_the_memory_that_it_names(checked: emulator.Machine) -> None:
    x, expected = rotated(2)
    both = ROTATE.replace("mem_threadgroup);", "mem_threadgroup | mem_flags::mem_device);")
    np.testing.assert_array_equal(run(checked, both, {"x": x}, **TWO_GROUPS)[0], expected)
    for flags in ("mem_none", "mem_device"):
        wrong = ROTATE.replace("mem_threadgroup);", f"{flags});")
        with pytest.raises(emulator.Race, match="shared"):
            run(checked, wrong, {"x": x}, **TWO_GROUPS)


DEVICE = START + """
    y[i] = 1;
    threadgroup_barrier(mem_flags::FLAG);
    float other = y[i ^ 1];
    threadgroup_barrier(mem_flags::FLAG);
    y[i] = other + 1;
"""  # fmt: skip


def test_device_memory_within_a_group(checked: emulator.Machine) -> None:
    right = DEVICE.replace("FLAG", "mem_device")
    assert run(checked, right, **TWO_GROUPS)[0].tolist() == [2.0] * 128
    with pytest.raises(emulator.Race, match="output 'y'"):
        run(checked, DEVICE.replace("FLAG", "mem_threadgroup"), **TWO_GROUPS)


SIMD = START + """
    threadgroup float shared[64];
    shared[t] = t;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = shared[INDEX];
"""  # fmt: skip


def test_a_simdgroup_barrier_orders_one_simd_group(checked: emulator.Machine) -> None:
    (y,) = run(checked, SIMD.replace("INDEX", "t ^ 31"), **TWO_GROUPS)
    assert y.tolist() == [t ^ 31 for t in range(64)] * 2
    with pytest.raises(emulator.Race, match=r"shared.* by thread \d+"):
        run(checked, SIMD.replace("INDEX", "(t / 32 ? t ^ 32 : t)"), **TWO_GROUPS)


def test_a_shuffle_orders_no_memory(checked: emulator.Machine) -> None:
    source = SIMD.replace("simdgroup_barrier(mem_flags::mem_threadgroup)", "simd_sum(1)")
    with pytest.raises(emulator.Race, match="shared"):
        run(checked, source.replace("INDEX", "t ^ 1"), **TWO_GROUPS)


def test_a_write_after_reads_by_others_is_a_race(cache: Path) -> None:
    source = START + """
        threadgroup float shared[64];
        shared[t] = 0;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = shared[t % 2];
        if (t == WRITER) shared[0] = 1;
    """  # fmt: skip
    # Thread 0 writes last where the order is descending, thread 40 in the midst of the readers.
    for writer, order in ((0, "descending"), (40, "ascending")):
        machine = emulator.Machine(cache_dir=cache, checked=True, orders=(order,))  # type: ignore[arg-type]
        with pytest.raises(emulator.Race, match=rf"thread {writer} of .*a write.* with a read"):
            run(machine, source.replace("WRITER", str(writer)), **TWO_GROUPS)


def test_groups_race_for_device_memory(checked: emulator.Machine) -> None:
    with pytest.raises(emulator.Race, match=r"output 'y'.*write by thread \d+ of group \("):
        run(checked, START + "y[t] = t;", outputs={"y": ((64,), mx.float32)}, **TWO_GROUPS)
    reads = START + "y[i] = 1; if (i == 64) y[i] = y[3];"
    with pytest.raises(emulator.EmulatorError, match="output 'y'"):
        run(checked, reads, **TWO_GROUPS)
    later = START + "if (i == 0) y[0] = 1; else y[i] = z[0]; z[i] = 1;"
    outputs = {"y": ((128,), mx.float32), "z": ((128,), mx.float32)}
    with pytest.raises(emulator.Race, match="output 'z'"):
        run(checked, later, outputs=outputs, init_value=0.0, **TWO_GROUPS)


def test_atomics_do_not_race_with_each_other(checked: emulator.Machine) -> None:
    source = START + """
        threadgroup atomic_uint total;
        if (t == 0) atomic_store_explicit(&total, 0u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        atomic_fetch_add_explicit(&total, 1u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = atomic_load_explicit(&total, memory_order_relaxed);
    """  # fmt: skip
    assert run(checked, source, **TWO_GROUPS)[0].tolist() == [64.0] * 128


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("y[i] = x[i + 1];", r"thread 127 .*|a read of 4 bytes at byte 512 of input 'x'"),
        ("y[i + 128] = 1;", r"a write of 4 bytes at byte 512 of output 'y' \(512 bytes\)"),
        ("y[i] = x[int(i) - 1];", r"byte -4 of input 'x'"),
        ("((device float*)x)[i] = 1;", r"a write of 4 bytes at byte 0 of input 'x'"),
        ("y[i] = x[1 << 28];", r"no memory of the launch"),
    ],
)
def test_out_of_bounds_in_device_memory(
    checked: emulator.Machine, access: str, message: str
) -> None:
    # The neighbours in memory of an array are unknown; those of half an array are its own.
    x = mx.zeros((128,))
    with pytest.raises(emulator.OutOfBounds, match=message):
        run(checked, START + access, {"x": x}, **TWO_GROUPS)


@pytest.mark.parametrize("index", ["t + 1", "int(t) - 1", "t + 64"])
def test_out_of_bounds_in_threadgroup_memory(checked: emulator.Machine, index: str) -> None:
    source = START + f"""
        threadgroup float before[64], shared[64], after[64];
        before[t] = 0; after[t] = 0;
        shared[{index}] = 1;
        y[i] = 1;
    """  # fmt: skip
    with pytest.raises(emulator.OutOfBounds, match=r"threadgroup variable '(shared|after|before)'"):
        run(checked, source, **TWO_GROUPS)


def test_stray_writes_show_without_checks(plain: emulator.Machine) -> None:
    with pytest.raises(emulator.OutOfBounds, match="output 'y', at byte 512 of 512"):
        run(plain, START + "y[i] = 1; if (i == 0) y[128] = 1;", **TWO_GROUPS)


def test_uninitialised_reads(checked: emulator.Machine) -> None:
    source = START + "threadgroup float shared[64]; if (GUARD) shared[t] = 1; y[i] = shared[t];"
    with pytest.raises(emulator.UninitialisedRead, match=r"thread 5 of group .*'shared'"):
        run(checked, source.replace("GUARD", "t != 5"), **TWO_GROUPS)
    # Threadgroup memory does not last from one group to the next.
    with pytest.raises(emulator.UninitialisedRead, match=r"of group \([01], 0, 0\).*'shared'"):
        run(checked, source.replace("GUARD", "i < 64"), **TWO_GROUPS)
    with pytest.raises(emulator.UninitialisedRead, match="output 'y'"):
        run(checked, START + "y[i] += 1;", **TWO_GROUPS)
    assert run(checked, START + "y[i] += 1;", init_value=2.0, **TWO_GROUPS)[0].tolist() == [3] * 128


def test_threadgroup_memory_is_garbage_at_the_start_of_a_group(plain: emulator.Machine) -> None:
    source = START + "threadgroup float shared[64]; if (i >= 64) shared[t] = 1; y[i] = shared[t];"
    plain.orders = ("descending",)
    (y,) = run(plain, source, **TWO_GROUPS)
    assert np.isnan(y[:64]).all()
    assert y[64:].tolist() == [1.0] * 64


def test_unwritten_elements(checked: emulator.Machine, plain: emulator.Machine) -> None:
    source = START + "if (i != 7) y[i] = 1;"
    with pytest.raises(emulator.Unwritten, match=r"4 of 512 bytes of output 'y'.*first byte 28"):
        run(checked, source, **TWO_GROUPS)
    (y,) = run(plain, source, **TWO_GROUPS)
    assert np.flatnonzero(np.isnan(y)).tolist() == [7]
    assert run(checked, source, init_value=3.0, **TWO_GROUPS)[0][7] == 3


DIVERGENT = {
    "some return": "if (t == 3) return; BARRIER",
    "different barriers": "if (t % 2) {\n BARRIER\n } else {\n BARRIER\n }",
    "another count": "for (uint k = 0; k < t; ++k) { BARRIER }",
}


@pytest.mark.parametrize("case", DIVERGENT)
@pytest.mark.parametrize("barrier", ["threadgroup_barrier", "simdgroup_barrier"])
def test_divergent_barriers(plain: emulator.Machine, case: str, barrier: str) -> None:
    body = DIVERGENT[case].replace("BARRIER", f"{barrier}(mem_flags::mem_threadgroup);")
    with pytest.raises(emulator.BarrierDivergence, match=r"waits at line \d+, column \d+, but"):
        run(plain, START + body + "y[i] = 1;", **TWO_GROUPS)


def test_the_line_of_a_barrier_is_that_of_mlx_text(cache: Path) -> None:
    texts: list[str] = []

    def transform(text: str) -> str:
        texts.append(text)
        return text

    machine = emulator.Machine(cache_dir=cache, transform=transform)
    source = START + "\nthreadgroup float\n  s[4];\ns[t % 4] = 1;\nif (t == 0)\n" \
        "  threadgroup_barrier(mem_flags::mem_none);\ny[i] = 1;"  # fmt: skip
    header = "#define UNUSED \\\n 1\n/* a\ncomment */\n"
    with pytest.raises(emulator.BarrierDivergence) as caught:
        run(machine, source, header=header, **TWO_GROUPS)
    lines = texts[0].splitlines()
    (line,) = (n for n, text in enumerate(lines, 1) if "threadgroup_barrier" in text)
    assert f"waits at line {line}, column 3, but thread" in str(caught.value)


def test_different_waits_in_one_simd_group(plain: emulator.Machine) -> None:
    source = START + """
        if (t % 2) simdgroup_barrier(mem_flags::mem_none); else y[i] = simd_sum(1.0f);
    """  # fmt: skip
    with pytest.raises(emulator.BarrierDivergence):
        run(plain, source, **TWO_GROUPS)


def test_lanes_that_have_returned_take_no_part(plain: emulator.Machine) -> None:
    source = "uint i = thread_position_in_grid.x; y[i] = 0; if (i >= 20) return; y[i] = VALUE;"
    call: dict[str, Any] = {"grid": (32, 1, 1), "threadgroup": (32, 1, 1)}
    (y,) = run(plain, source.replace("VALUE", "simd_sum(1.0f)"), **call)
    assert y.tolist() == [20.0] * 20 + [0.0] * 12
    with pytest.raises(emulator.InactiveLane, match="lane 31"):
        run(plain, source.replace("VALUE", "simd_broadcast(1.0f, ushort(31))"), **call)


def test_faults_are_exceptions(plain: emulator.Machine, checked: emulator.Machine) -> None:
    x = mx.zeros((8,), dtype=mx.int32)
    with pytest.raises(emulator.KernelFault, match="address"):
        run(plain, "y[0] = *(const device float*)(0x10 + x[0]);", {"x": x})
    for machine in (plain, checked):
        with pytest.raises(emulator.KernelFault, match="division"):
            run(machine, "y[thread_position_in_grid.x] = x[1] / x[0];", {"x": x})
    deep = "float v[100000]; for (int k = 0; k < 100000; ++k) v[k] = x[k % 8]; y[0] = v[x[1]];"
    for machine in (plain, checked):
        with pytest.raises(emulator.KernelFault, match="stack"):
            run(machine, deep, {"x": x})
    # And the next launch is as good as ever.
    assert run(plain, "y[thread_position_in_grid.x] = 1;")[0].tolist() == [1.0] * 8


def test_traffic_counts_a_byte_once_for_each_group(checked: emulator.Machine) -> None:
    source = START + """
        float sum = 0;
        for (uint k = 0; k < 64; ++k) sum += x[k] + x[k] * w + few[k % 2];
        y[i] = 2 * sum;
        threadgroup_barrier(mem_flags::mem_device);
        y[i] = sum + x_shape[0];
    """  # fmt: skip
    inputs = {"x": mx.ones((1000,)), "w": 1.0, "few": mx.array([1.0, 2.0])}
    run(checked, source, inputs, **TWO_GROUPS)
    (launch,) = checked.launches
    assert launch.traffic == {
        "x": emulator.Traffic(2 * 64 * 4, 0),
        "x_shape": emulator.Traffic(2 * 4, 0),
        "w": emulator.Traffic(2 * 4, 0),
        "few": emulator.Traffic(2 * 8, 0),
        "y": emulator.Traffic(0, 128 * 4),
    }
    assert launch.device_read == 512
    assert launch.device_written == 512
    assert launch.constant_read == 32


def test_a_checked_machine_sees_constants_and_stacks(checked: emulator.Machine) -> None:
    header = "constant float table[] = {1, 2, 3, 4, 5, 6, 7, 8};\n"
    source = "uint i = thread_position_in_grid.x; float v[8]; for (uint k = 0; k < 8; ++k) " \
             "v[(k * 3 + i) % 8] = table[(k + i) % 8]; y[i] = v[(5 * i) % 8];"  # fmt: skip
    (y,) = run(checked, source, header=header)
    table = [[0.0] * 8 for _ in range(8)]
    for i in range(8):
        for k in range(8):
            table[i][(k * 3 + i) % 8] = 1.0 + (k + i) % 8
    assert y.tolist() == [table[i][5 * i % 8] for i in range(8)]


VECTORS = {
    "float2": "float2 v = ((const device float2*)(x + OFFSET))[i]; y[i] = v.x + v.y;",
    "float4": "float4 v = ((const device float4*)(x + OFFSET))[i]; y[i] = dot(v, v);",
    "a vector of a struct": (
        "float2 v = ((const device Pair*)(x + OFFSET))[i].b; y[i] = v.x + v.y;"
    ),
    "long": "y[i] = float(((const device long*)(x + OFFSET))[i]);",
    "a write": "((device float2*)(y + OFFSET))[i / 2] = float2(x[i], x[i]);",
}
PACKED = {
    "packed_float2": "y[i] = ((const device packed_float2*)(x + OFFSET))[i].y;",
    "packed_float3": "y[i] = ((const device packed_float3*)(x + OFFSET))[i][1];",
    "packed_float4": "float4 v = ((const device packed_float4*)(x + OFFSET))[i]; y[i] = v.y;",
    "a packed vector of a struct": "y[i] = ((const device Loose*)(x + OFFSET))[i].b.y;",
    "complex64_t": "y[i] = ((const device complex64_t*)(x + OFFSET))[i].imag;",
}
STRUCTS = """
struct Pair { float a; float2 b; };
struct Loose { float a; packed_float2 b; };
static_assert(sizeof(Pair) == 16 && sizeof(Loose) == 12, "");
"""


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_lies_at_a_multiple_of_its_size(checked: emulator.Machine, case: str) -> None:
    """Section 2.5: the compiler assumes so. Beside an odd number of floats it does not."""
    kernel = START + VECTORS[case]
    arguments: dict[str, Any] = {"outputs": {"y": ((32,), mx.float32)}, "header": STRUCTS}
    arguments["init_value"] = 0.0
    inputs = {"x": mx.arange(64.0)}
    if case != "a write":
        run(checked, kernel.replace("OFFSET", "4"), inputs, **arguments)
    with pytest.raises(emulator.Misaligned, match=r"no multiple of (8|16)"):
        run(checked, kernel.replace("OFFSET", "1"), inputs, **arguments)


@pytest.mark.parametrize("case", PACKED)
def test_a_packed_vector_lies_anywhere(checked: emulator.Machine, case: str) -> None:
    kernel = START + PACKED[case]
    (y,) = run(checked, kernel.replace("OFFSET", "1"), {"x": mx.arange(64.0)}, header=STRUCTS)
    sizes = {"packed_float3": 3, "packed_float4": 4, "a packed vector of a struct": 3}
    step, first = sizes.get(case, 2), 3 if "struct" in case else 2
    assert y.tolist() == [step * i + first for i in range(8)]


def test_threadgroup_memory_is_aligned_as_its_type(checked: emulator.Machine) -> None:
    source = START + """
        threadgroup float one[1], shared[16];
        one[0] = 0;
        shared[2 * t] = 1, shared[2 * t + 1] = 2;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        y[i] = ((threadgroup float2*)(shared + OFFSET))[0].x + one[0];
    """  # fmt: skip
    source = source.replace("one[0] = 0;", "if (t == 0) one[0] = 0;")
    assert run(checked, source.replace("OFFSET", "2"))[0].tolist() == [1.0] * 8
    with pytest.raises(emulator.Misaligned, match="threadgroup variable 'shared'"):
        run(checked, source.replace("OFFSET", "1"))
