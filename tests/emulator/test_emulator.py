"""The Metal emulator: capture, memory, dispatch, caching, installation."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.emulator import toolchain
from torch_mlx_spectro.settings import EmulatedArithmetic
from torch_mlx_spectro.store import files as disk

pytestmark = needs_emulator

mx = pytest.importorskip("mlx.core")

Outputs = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulator")


def run(
    machine: emulator.Machine,
    source: str,
    inputs: dict[str, Any] | None = None,
    *,
    outputs: dict[str, tuple[tuple[int, ...], Any]] | None = None,
    grid: tuple[int, int, int] = (8, 1, 1),
    threadgroup: tuple[int, int, int] = (8, 1, 1),
    header: str = "",
    contiguous: bool = True,
    atomic: bool = False,
    **call: Any,
) -> Outputs:
    """Make a kernel, launch it, and return its outputs as numpy arrays."""
    inputs = inputs or {}
    outputs = outputs or {"y": ((grid[0],), mx.float32)}
    kernel = machine.metal_kernel(
        name="tested",
        input_names=list(inputs),
        output_names=list(outputs),
        source=source,
        header=header,
        ensure_row_contiguous=contiguous,
        atomic_outputs=atomic,
    )
    results = kernel(
        inputs=list(inputs.values()),
        grid=grid,
        threadgroup=threadgroup,
        output_shapes=[shape for shape, _ in outputs.values()],
        output_dtypes=[dtype for _, dtype in outputs.values()],
        **call,
    )
    return [np.array(result) for result in results]


@pytest.fixture(params=[False, True], ids=["plain", "checked"])
def machine(request: pytest.FixtureRequest, cache: Path) -> emulator.Machine:
    return emulator.Machine(cache_dir=cache, checked=request.param)


ROTATE = """
    threadgroup float shared[64];
    uint i = thread_position_in_grid.x, t = thread_position_in_threadgroup.x;
    shared[t] = x[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    y[i] = shared[(t + 1) % 64];
"""


def rotated(groups: int) -> tuple[Any, np.ndarray[Any, Any]]:
    x = np.arange(64 * groups, dtype=np.float32)
    return mx.array(x), np.roll(x.reshape(groups, 64), -1, axis=1).reshape(-1)


def test_a_correct_kernel_gives_the_same_in_every_order(machine: emulator.Machine) -> None:
    x, expected = rotated(16)
    (y,) = run(machine, ROTATE, {"x": x}, grid=(1024, 1, 1), threadgroup=(64, 1, 1))
    np.testing.assert_array_equal(y, expected)
    (launch,) = machine.launches
    assert (launch.kernel, launch.threads, launch.threadgroup_bytes) == ("tested", 1024, 256)
    assert launch.grid == (1024, 1, 1)
    assert (launch.barriers, launch.simd_barriers) == (16, 0)  # one of each group


def test_barriers_are_counted(machine: emulator.Machine) -> None:
    source = """
        for (uint i = 0; i < 3; ++i) simdgroup_barrier(mem_flags::mem_threadgroup);
        threadgroup_barrier(mem_flags::mem_none);
        y[thread_position_in_grid.x] = 1.0f;
    """
    run(machine, source, grid=(256, 1, 1), threadgroup=(128, 1, 1))
    assert (machine.launches[-1].barriers, machine.launches[-1].simd_barriers) == (2, 3 * 8)


def test_a_removed_barrier_shows_as_a_dependence_on_order(cache: Path) -> None:
    def transform(text: str) -> str:
        return text.replace("threadgroup_barrier(mem_flags::mem_threadgroup);", "")

    machine = emulator.Machine(cache_dir=cache, transform=transform)
    x, _ = rotated(2)
    with pytest.raises(emulator.OrderDependent, match=r"tested: output 'y'.*index \(\d+,\)"):
        run(machine, ROTATE, {"x": x}, grid=(128, 1, 1), threadgroup=(64, 1, 1))


def test_many_barriers_of_many_groups(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache)
    source = """
        threadgroup float shared[64];
        uint i = thread_position_in_grid.x, t = thread_position_in_threadgroup.x;
        float value = x[i];
        for (int round = 0; round < 5; ++round) {
            shared[t] = value;
            threadgroup_barrier(mem_flags::mem_threadgroup);
            value = shared[(t + 1) % 64];
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        y[i] = value;
    """
    x, _ = rotated(64)
    (y,) = run(machine, source, {"x": x}, grid=(4096, 1, 1), threadgroup=(64, 1, 1))
    expected = np.roll(np.arange(4096, dtype=np.float32).reshape(64, 64), -5, axis=1)
    np.testing.assert_array_equal(y, expected.reshape(-1))


def test_templates_scalars_and_small_inputs(machine: emulator.Machine) -> None:
    source = (
        "uint i = thread_position_in_grid.x; y[i] = T(w) + T(p[i % 2]) + T(N) + T(FLAG ? 1 : 0);"
    )
    inputs = {"w": 1.5, "p": mx.array([10, 20])}
    for number, flag in ((3, True), (4, False)):
        template = [("T", mx.float32), ("N", number), ("FLAG", flag)]
        (y,) = run(machine, source, inputs, template=template)
        np.testing.assert_array_equal(y, [11.5 + number + flag, 21.5 + number + flag] * 4)


VIEWS = {
    "transposed": lambda x: mx.transpose(x),
    "sliced": lambda x: x[1:5:2, 2:7],
    "reversed": lambda x: x[::-1, ::-2],
    "broadcast": lambda x: mx.broadcast_to(x[:, :1], (6, 4)),
    "one row": lambda x: x[2:3],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("contiguous", [False, True])
def test_strided_inputs_come_with_mlx_strides(
    machine: emulator.Machine, view: str, contiguous: bool
) -> None:
    x = VIEWS[view](mx.arange(48.0).reshape(6, 8))
    rows, columns = x.shape
    source = """
        uint i = thread_position_in_grid.x, j = thread_position_in_grid.y;
        y[i * uint(x_shape[1]) + j] = x[long(i) * x_strides[0] + long(j) * x_strides[1]];
        if (i == 0 && j == 0) s[0] = x_strides[0], s[1] = x_strides[1], s[2] = x_ndim;
    """
    y, strides = run(
        machine,
        source,
        {"x": x},
        outputs={"y": ((rows, columns), mx.float32), "s": ((3,), mx.int64)},
        grid=(rows, columns, 1),
        threadgroup=(4, 4, 1),
        contiguous=contiguous,
    )
    np.testing.assert_array_equal(y, np.array(x))
    if contiguous and view != "one row":
        assert strides.tolist() == [columns, 1, 2]
    elif not contiguous:
        numpys = np.asarray(memoryview(x)).strides
        assert strides.tolist() == [numpys[0] // 4, numpys[1] // 4, 2]


def test_elements_are_passed_without_a_copy(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache, checked=True)
    whole = mx.arange(100.0)
    (y,) = run(machine, "y[thread_position_in_grid.x] = x[2 * thread_position_in_grid.x];",
               {"x": whole[3:50:2]}, contiguous=False)  # fmt: skip
    np.testing.assert_array_equal(y, np.arange(3.0, 19.0, 2.0))
    assert machine.launches[-1].traffic["x"] == emulator.Traffic(read=32, written=0)


def test_complex_elements(machine: emulator.Machine) -> None:
    z = np.arange(16, dtype=np.float32).view(np.complex64) + np.complex64(1j)
    source = """
        uint i = thread_position_in_grid.x;
        complex64_t a = z[i], b = few[1];
        const device float2* pairs = (const device float2*)z;
        y[i] = a * b + complex64_t(pairs[i].y, 0.0f);
        device float2* swapped = reinterpret_cast<device float2*>(w);
        swapped[i] = float2(a.imag, a.real).yx;
    """
    inputs = {"z": mx.array(z), "few": mx.array(z[:2])}
    outputs = {"y": ((8,), mx.complex64), "w": ((8,), mx.complex64)}
    y, w = run(machine, source, inputs, outputs=outputs)
    np.testing.assert_array_equal(y, z * z[1] + z.imag)
    np.testing.assert_array_equal(w, z)


def test_other_element_types(machine: emulator.Machine) -> None:
    source = """
        uint i = thread_position_in_grid.x;
        h[i] = half(x[i]) * 2.0h; b[i] = x[i] > 2.0f; u[i] = uchar(x[i]); l[i] = long(n[i]) << 32;
    """
    outputs = {
        "h": ((8,), mx.float16),
        "b": ((8,), mx.bool_),
        "u": ((8,), mx.uint8),
        "l": ((8,), mx.int64),
    }
    x = np.arange(8)
    inputs = {"x": mx.array(x.astype(np.float32)), "n": mx.array(x.astype(np.int16))}
    h, b, u, n = run(machine, source, inputs, outputs=outputs)
    np.testing.assert_array_equal(h, x * np.float16(2))
    np.testing.assert_array_equal(b, x > 2)
    np.testing.assert_array_equal(u, x)
    np.testing.assert_array_equal(n, x << 32)


def test_positions_in_a_grid_with_uneven_groups(machine: emulator.Machine) -> None:
    names = [
        *("thread_position_in_grid", "thread_position_in_threadgroup"),
        *("threadgroup_position_in_grid", "threads_per_threadgroup"),
        *("threadgroups_per_grid", "threads_per_grid", "dispatch_threads_per_threadgroup"),
    ]
    scalars = [
        *("thread_index_in_threadgroup", "thread_index_in_simdgroup"),
        *("simdgroup_index_in_threadgroup", "threads_per_simdgroup", "simdgroups_per_threadgroup"),
        *("thread_execution_width", "quadgroup_index_in_threadgroup", "thread_index_in_quadgroup"),
    ]
    width = 3 * len(names) + len(scalars)
    lines = [f"uint at = (thread_position_in_grid.y * 10 + thread_position_in_grid.x) * {width};"]
    for index, name in enumerate(names):
        lines += [f"y[at + {3 * index + d}] = {name}.{'xyz'[d]};" for d in range(3)]
    lines += [f"y[at + {3 * len(names) + i}] = {name};" for i, name in enumerate(scalars)]
    (y,) = run(
        machine,
        "\n".join(lines),
        outputs={"y": ((7, 10, width), mx.uint32)},
        grid=(10, 7, 1),
        threadgroup=(8, 5, 1),
    )
    for row in range(7):
        for column in range(10):
            group = (column // 8, row // 5, 0)
            size = (2 if group[0] else 8, 2 if group[1] else 5, 1)
            place = (column % 8, row % 5, 0)
            index = place[1] * size[0] + place[0]
            expected = [column, row, 0, *place, *group, *size, 2, 2, 1, 10, 7, 1, 8, 5, 1]
            simds = -(-size[0] * size[1] // 32)
            expected += [index, index % 32, index // 32, 32, simds, 32, index // 4, index % 4]
            assert y[row, column].tolist() == expected


def test_simd_groups(machine: emulator.Machine) -> None:
    source = """
        uint i = thread_position_in_grid.x, lane = thread_index_in_simdgroup;
        float v = x[i];
        y[i] = simd_sum(v) + 1000.0f * simd_max(v);
        y[64 + i] = simd_shuffle_xor(v, ushort(1)) + 100.0f * simd_broadcast(v, ushort(3));
        y[128 + i] = simd_shuffle(v, ushort((lane + 5) % 32)) + simd_shuffle_up(v, ushort(1));
        bool some = simd_any(lane == 3u) && !simd_all(lane == 3u);
        y[192 + i] = some ? simd_shuffle_down(v, 1) : -1.0f;
        y[256 + i] = simd_prefix_exclusive_sum(v);
        float2 pair = simd_shuffle_xor(float2(v, -v), ushort(16));
        y[320 + i] = pair.x - pair.y;
    """
    x = np.arange(64, dtype=np.float32)
    (y,) = run(machine, source, {"x": mx.array(x)}, outputs={"y": ((6, 64), mx.float32)},
               grid=(64, 1, 1), threadgroup=(64, 1, 1))  # fmt: skip
    g = x.reshape(2, 32)
    expected = [
        np.repeat(g.sum(1) + 1000 * g.max(1), 32),
        x.reshape(-1, 2)[:, ::-1].reshape(-1) + 100 * np.repeat(g[:, 3], 32),
        (np.roll(g, -5, 1) + np.concatenate([g[:, :1], g[:, :-1]], 1)).reshape(-1),
        np.concatenate([g[:, 1:], g[:, -1:]], 1).reshape(-1),
        (np.cumsum(g, 1) - g).reshape(-1),
        2 * np.roll(g, 16, 1).reshape(-1),
    ]
    np.testing.assert_array_equal(y, expected)


def test_functions_of_metal(machine: emulator.Machine) -> None:
    source = """
        float a = x[0], b = x[1];
        float v[] = {metal::precise::sqrt(a), fast::fabs(b), metal::floor(a), clamp(a, 0.0f, 1.0f),
                     min(a, b), max(a, b), select(a, b, true), dot(float2(a, b), float2(b, a)),
                     as_type<float>(as_type<uint>(a)), fma(a, b, 1.0), rsqrt(a), float(abs(-3)),
                     float(uint(7) / 2u), float(popcount(7u)), fract(a), float2(a).y};
        for (int i = 0; i < 16; ++i) y[i] = v[i];
    """
    (y,) = run(machine, source, {"x": mx.array([2.25, -1.5] * 8)}, grid=(1, 1, 1),
               outputs={"y": ((16,), mx.float32)})  # fmt: skip
    expected = [1.5, 1.5, 2, 1, -1.5, 2.25, -1.5, -6.75, 2.25, -2.375, 1 / 1.5, 3, 3, 3, 0.25, 2.25]
    np.testing.assert_allclose(y, expected, rtol=1e-7)


ROUNDING = np.float32(1 + 2**-12)
ONCE = np.float32(np.float64(ROUNDING) * np.float64(ROUNDING) - 1)
TWICE = ROUNDING * ROUNDING - np.float32(1)


@pytest.mark.parametrize(
    ("contract", "expected"), [(True, [ONCE, ONCE, TWICE, TWICE]), (False, [ONCE] + 3 * [TWICE])]
)
def test_products_and_sums_of_one_expression_are_rounded_once(
    cache: Path, contract: bool, expected: list[np.float32]
) -> None:
    machine = emulator.Machine(cache_dir=cache, contract=contract)
    header = """
inline float uncontracted(float a) {
#pragma METAL fp contract(off)
  return a * a + -1.0f;
}
"""
    source = """
        y[0] = fma(x[0], x[0], -1.0f);
        y[1] = x[0] * x[0] + -1.0f;
        float product = x[0] * x[0];
        y[2] = product + -1.0f;
        y[3] = uncontracted(x[0]);
    """
    inputs = {"x": mx.full((8,), float(ROUNDING))}
    outputs = {"y": ((4,), mx.float32)}
    (y,) = run(machine, source, inputs, grid=(1, 1, 1), outputs=outputs, header=header)
    assert ONCE != TWICE
    assert y.tolist() == expected


@pytest.mark.parametrize(("denormals", "is_zero"), [("flush", True), ("keep", False)])
def test_denormal_numbers(cache: Path, denormals: Any, is_zero: bool) -> None:
    """Operands, results, comparisons and what the compiler computes; moves and half keep them."""
    machine = emulator.Machine(cache_dir=cache, denormals=denormals)
    source = """
        y[0] = x[0] * 0.5f;
        y[1] = x[1] * 3.0f;
        y[2] = x[1] > 0.0f;
        y[3] = x[0] - 0.75f * x[0];
        y[4] = x[1];
        y[5] = float(half(3e-5f) * 0.5h);
    """
    smallest = np.float32(2.0**-126)
    inputs = {"x": mx.array(np.array([smallest] + 7 * [smallest / 4], np.float32))}
    (y,) = run(machine, source, inputs, grid=(1, 1, 1), outputs={"y": ((6,), mx.float32)})
    assert [value == 0 for value in y[:4].tolist()] == 4 * [is_zero]
    assert y[4] == smallest / 4
    assert y[5] == np.float32(np.float16(3e-5) * np.float16(0.5)) != 0
    assert np.float32(1e-38) * np.float32(0.5) != 0  # the process is as it was


def test_the_environment_says_how_to_compute(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metal = EmulatedArithmetic(contract=True, flush=True)
    separate = EmulatedArithmetic(contract=False, flush=False)
    assert emulator.Machine(cache_dir=cache).arithmetic == metal
    monkeypatch.setenv("TORCH_MLX_SPECTRO_EMULATED_DENORMALS", "keep")
    monkeypatch.setenv("TORCH_MLX_SPECTRO_EMULATED_CONTRACTION", "0")
    assert emulator.Machine(cache_dir=cache).arithmetic == separate
    given = emulator.Machine(cache_dir=cache, contract=True, denormals="flush")
    assert given.arithmetic == metal
    monkeypatch.setenv("TORCH_MLX_SPECTRO_EMULATED_DENORMALS", "some")
    with pytest.raises(ValueError, match="flush or keep"):
        emulator.Machine(cache_dir=cache)
    with pytest.raises(ValueError, match="flush or keep"):
        emulator.Machine(cache_dir=cache, denormals="some")  # type: ignore[arg-type]


def test_init_value_and_atomic_outputs(machine: emulator.Machine) -> None:
    source = (
        "atomic_fetch_add_explicit(&y[thread_position_in_grid.x % 2], 1, memory_order_relaxed);"
    )
    (y,) = run(machine, source, outputs={"y": ((3,), mx.int32)}, grid=(100, 1, 1), atomic=True,
               init_value=5)  # fmt: skip
    assert y.tolist() == [55, 55, 5]


def test_groups_that_are_too_large_are_refused_in_mlx_words(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache)
    source = "y[thread_position_in_grid.x] = 1;"
    with pytest.raises(ValueError, match=r"Thread group size \(1025\) is greater than .*\(1024\)"):
        run(machine, source, threadgroup=(1025, 1, 1))
    machine.max_threads = lambda name: {"tested": 4}[name]
    with pytest.raises(ValueError, match=r"\(4\)"):
        run(machine, source)
    machine.max_threads = 8
    assert run(machine, source)[0].tolist() == [1.0] * 8
    with pytest.raises(ValueError, match="cannot launch"):
        run(machine, source, threadgroup=(0, 1, 1))


def test_wrong_arguments_are_refused_as_by_mlx(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache)
    kernel = machine.metal_kernel("tested", ["x"], ["y"], "y[0] = x[0];")
    with pytest.raises(ValueError, match="inputs"):
        kernel(inputs=[], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)],
               output_dtypes=[mx.float32])  # fmt: skip
    with pytest.raises(ValueError, match="output"):
        machine.metal_kernel("tested", ["x"], [], "")


def test_an_array_captured_small_is_not_taken_for_a_large_one(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache, checked=True)
    kernel = machine.metal_kernel("tested", ["x"], ["y"], "y[0] = x[0] + x[1];")
    for x in (mx.arange(4.0), mx.arange(40.0), mx.arange(4), mx.arange(40), mx.ones((2, 2))):
        (y,) = kernel(inputs=[x], grid=(1, 1, 1), threadgroup=(1, 1, 1), output_shapes=[(1,)],
                      output_dtypes=[mx.float32])  # fmt: skip
        assert y.item() == (2.0 if x.ndim == 2 else 1.0)
        assert (machine.launches[-1].constant_read == 8) == (x.size < 8 and x.dtype != mx.int64)


def test_installed_is_undone_also_after_an_exception(cache: Path) -> None:
    machine, other = emulator.Machine(cache_dir=cache), emulator.Machine(cache_dir=cache)
    real = mx.fast.metal_kernel
    with machine.installed() as installed:
        assert installed is machine
        assert mx.fast.metal_kernel == machine.metal_kernel
        assert mx.fast.metal_kernel.emulated
        with other.installed():
            assert mx.fast.metal_kernel == other.metal_kernel
            nested = emulator.Machine(cache_dir=cache)  # captures by MLX, not by another machine
            assert run(nested, "y[thread_position_in_grid.x] = 1;")[0].tolist() == [1.0] * 8
            assert not machine.launches
        assert mx.fast.metal_kernel == machine.metal_kernel
    assert mx.fast.metal_kernel is real
    with pytest.raises(KeyError), machine.installed():
        raise KeyError
    assert mx.fast.metal_kernel is real


def test_a_text_is_compiled_once_and_then_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, expected = rotated(1)
    call = {"grid": (64, 1, 1), "threadgroup": (64, 1, 1)}
    first = emulator.Machine(cache_dir=tmp_path)
    for _ in range(2):
        run(first, ROTATE, {"x": x}, **call)
    assert first.compilations == 1

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("no compiler is needed here")

    monkeypatch.setattr(toolchain.subprocess, "run", refuse)
    second = emulator.Machine(cache_dir=tmp_path)
    np.testing.assert_array_equal(run(second, ROTATE, {"x": x}, **call)[0], expected)
    assert second.compilations == 0


def test_a_rejection_is_remembered(tmp_path: Path) -> None:
    for compilations in (1, 0):
        machine = emulator.Machine(cache_dir=tmp_path)
        with pytest.raises(emulator.Rejected, match="goto"):
            run(machine, "again: goto again;")
        assert machine.compilations == compilations


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this process."""
    folder = tmp_path / "private"
    monkeypatch.setattr(disk, "private_folder", lambda: folder)
    return folder


def compile_and_run(machine: emulator.Machine) -> None:
    x, expected = rotated(1)
    (y,) = run(machine, ROTATE, {"x": x}, grid=(64, 1, 1), threadgroup=(64, 1, 1))
    np.testing.assert_array_equal(y, expected)


def test_a_folder_that_others_may_write_is_neither_read_nor_written(
    tmp_path: Path, private: Path
) -> None:
    folder = tmp_path / "cache"
    compile_and_run(emulator.Machine(cache_dir=folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(folder.iterdir())
    for library in folder.glob("*.so"):
        library.unlink()  # of which this process has the first
        library.write_bytes(b"another's")
    folder.chmod(0o777)
    machine = emulator.Machine(cache_dir=folder)
    with pytest.warns(RuntimeWarning, match="every user may write it. Each process compiles anew"):
        compile_and_run(machine)
    compile_and_run(machine)
    assert machine.compilations == 1
    assert sorted(folder.iterdir()) == files
    assert len(list(private.glob("*.json"))) == 1
    compile_and_run(emulator.Machine(cache_dir=private))


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_files_that_others_may_write_are_told_of_and_replaced(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        compile_and_run(emulator.Machine(cache_dir=tmp_path))
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    for library in tmp_path.glob("*.so"):
        library.chmod(0o666)
    machine = emulator.Machine(cache_dir=tmp_path)
    with pytest.warns(RuntimeWarning, match="every user may write it. It compiles anew") as told:
        compile_and_run(machine)
    assert (machine.compilations, len(told)) == (1, 2)  # the runtime's library, too
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_without_a_home_or_its_folder_kernels_are_kept_by_the_process(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "cache_folder", lambda: None)
    machine = emulator.Machine()
    compile_and_run(machine)
    assert len(list(private.glob("*.json"))) == machine.compilations == 1
    (tmp_path / "file").touch()  # no folder can be made below it
    machine = emulator.Machine(cache_dir=tmp_path / "file" / "cache")
    compile_and_run(machine)
    assert machine.compilations == 0


def test_kernels_are_kept_in_the_folder_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "cache_folder", lambda: tmp_path)
    compile_and_run(emulator.Machine())
    assert len(list((tmp_path / "emulator").glob("*.json"))) == 1


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch_mlx_spectro.emulator.compiler.CACHE_FILES", 6)
    machine = emulator.Machine(cache_dir=tmp_path)
    for value in range(6):
        run(machine, f"y[thread_position_in_grid.x] = {value};")
    assert len(list(tmp_path.glob("*.json"))) == 3
    assert not list(tmp_path.glob("work-*"))


def _in_another_process(folder: str, results: Any) -> None:
    machine = emulator.Machine(cache_dir=folder)
    x, expected = rotated(2)
    (y,) = run(machine, ROTATE, {"x": x}, grid=(128, 1, 1), threadgroup=(64, 1, 1))
    results.put(bool(np.array_equal(y, expected)))


def test_processes_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_in_another_process, args=(str(tmp_path), results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert [results.get() for _ in processes] == [True] * 3
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_threads_may_share_a_machine(cache: Path) -> None:
    machine = emulator.Machine(cache_dir=cache)
    x, expected = rotated(4)
    right: list[bool] = []

    def work() -> None:
        for _ in range(5):
            (y,) = run(machine, ROTATE, {"x": x}, grid=(256, 1, 1), threadgroup=(64, 1, 1))
            right.append(bool(np.array_equal(y, expected)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 20


def test_verbose_prints_the_text(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    machine = emulator.Machine(cache_dir=cache)
    for _ in range(2):
        run(machine, "y[thread_position_in_grid.x] = 1;", verbose=True)
        assert "[[kernel]] void custom_kernel_tested" in capfd.readouterr().out


def test_orders_are_checked(cache: Path) -> None:
    with pytest.raises(ValueError, match="order"):
        emulator.Machine(orders=("sideways",), cache_dir=cache)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order"):
        emulator.Machine(orders=(), cache_dir=cache)


def test_without_ziglang_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _: None)
    assert "ziglang" in str(emulator.available())
    with pytest.raises(emulator.Unavailable, match="ziglang"):
        emulator.Machine()
