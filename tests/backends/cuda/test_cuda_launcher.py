"""The CUDA launcher without a device: its text, its machine code on disk, its packed arguments."""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from checkout import METAL_SRC
from cuda_stand_in import Recorder, recording
from reference import istft_params, stft_params

from torch_mlx_spectro.backends.cuda import launcher
from torch_mlx_spectro.backends.cuda import nvrtc as cubins
from torch_mlx_spectro.backends.cuda.launcher import CudaDriver, CudaKernels, Prepared
from torch_mlx_spectro.backends.cuda.nvrtc import CudaProblem
from torch_mlx_spectro.kernels import describe, framing
from torch_mlx_spectro.kernels.arguments import INPUTS, OUTPUTS, Verdict
from torch_mlx_spectro.kernels.describe import Adjoint, Launch
from torch_mlx_spectro.kernels.texts import cuda as cuda_text


def _nvrtc() -> str:
    """Why nothing can be compiled here; empty where it can. NVRTC needs no device."""
    if importlib.util.find_spec("cuda") is None:
        return "the extra cuda is not installed"
    try:
        cubins.nvrtc_version()
    except CudaProblem as problem:
        return str(problem)
    return ""


needs_nvrtc = pytest.mark.skipif(bool(_nvrtc()), reason=_nvrtc())


def launches(n_fft: int = 256, hop: int = 64, rows: int = 2, samples: int = 1000) -> list[Launch]:
    """Every kernel for a size, in every kind."""
    found: list[Launch] = []
    for is_complex in (False, True):
        kind = torch.complex64 if is_complex else torch.float32
        signal = torch.empty(rows, samples, dtype=kind)
        window = torch.empty(n_fft, dtype=kind)
        stft = stft_params(signal, window, n_fft=n_fft, hop_length=hop, return_complex=True)
        spectrum = torch.empty(rows, stft.bins, stft.frames, dtype=torch.complex64)
        istft = istft_params(
            spectrum, window, n_fft=n_fft, hop_length=hop, return_complex=is_complex
        )
        fold = Adjoint(n_fft // 2, "reflect", False)
        found += describe.list_analyses(stft, is_complex, is_complex)[:1]
        found += describe.list_analyses(stft, is_complex, is_complex, divisor=0.5)[:1]
        for frames_fastest in (False, True):
            for adjoint in (None, fold):
                some = describe.list_syntheses(istft, is_complex, frames_fastest, adjoint)
                kernels = {launch.kernel: launch for launch in reversed(some)}
                found += kernels.values()
        found.append(framing.cut_frames(stft, is_complex, is_complex))
        found += [framing.add_frames(istft, is_complex, adjoint) for adjoint in (None, fold)]
        strided = describe.list_analyses(stft, is_complex, is_complex, step=2)[:1]
        found += (
            strided + describe.list_syntheses(istft, is_complex, False, step=describe.NO_WINDOW)[:1]
        )
    return found


def test_every_kernel_is_among_the_launches() -> None:
    kernels = {launch.kernel for launch in launches()}
    assert kernels == {path.stem for path in _folder().glob("*.metal")}


def _folder() -> Path:
    return METAL_SRC


def test_a_text_is_whole_and_says_what_it_is_compiled_for() -> None:
    launch = launches()[0]
    text = cuda_text.write_text(cuda_text.make_variant(launch))
    assert "#include" not in text
    assert "constexpr int POINTS = 128;" in text
    assert "constexpr bool PACKED = 1;" in text
    assert f"__launch_bounds__({launch.threadgroup[0]})" in text
    assert "__shared__ __align__(128) float2 exchange[" in text
    assert text.count("__shared__") == 1 + cuda_text.header("cuda.h").count("__shared__")


def test_grids_of_many_rows_are_counted_by_one_dimension() -> None:
    few, many = (launches(n_fft=11, hop=4, rows=rows)[-1] for rows in (2, 70_000))
    assert many.kernel == "add_frames"
    assert cuda_text.find_grid(few)[1] == 2
    across = cuda_text.count_blocks(many)[0]
    assert cuda_text.find_grid(many) == (across * 70_000, 1, 1)
    assert cuda_text.make_variant(many).flat
    assert not cuda_text.make_variant(few).flat


def make_run(prepared: Prepared) -> Callable[[int, int, int, int], object]:
    """Make a function of the stream and the addresses of input, window and result."""

    def run(stream: int, *addresses: int) -> object:
        first, window, result = (
            cast("torch.Tensor", SimpleNamespace(data_ptr=partial(int, at))) for at in addresses
        )
        return prepared.bind(lambda device: stream, lambda: result)(first, window)

    return run


def test_a_launch_takes_no_memory_that_another_thread_is_packing() -> None:
    """The driver lets other threads of Python run while it launches."""
    driver, launch, read = Recorder(), launches()[0], list[Any]()
    run = make_run(recording(driver).prepare_launch(launch, 0, (1000, 1)))

    def look(*arguments: Any) -> None:
        pointers = struct.unpack("3Q", ctypes.string_at(arguments[4], 24))
        if len(driver.attributes) == 1:
            run(8, 44, 55, 66)
        read.append([struct.unpack("Q", ctypes.string_at(p, 8))[0] for p in pointers])

    driver.seen = look
    run(7, 11, 22, 33)
    run(7, 77, 88, 99)
    assert read == [[44, 55, 66], [11, 22, 33], [77, 88, 99]]


def test_arguments_are_laid_out_as_the_compiler_lays_them_out() -> None:
    driver, launch = Recorder(), launches()[0]
    prepared = recording(driver).prepare_launch(launch, 0, (1000, 1), edge=0.5)
    read: list[Any] = []

    def look(*arguments: Any) -> None:
        pointers = struct.unpack("4Q", ctypes.string_at(arguments[4], 32))
        read.append([struct.unpack("Q", ctypes.string_at(p, 8))[0] for p in pointers[:3]])
        layout = f"3q{len(launch.integers)}q3If"
        read.append(struct.unpack(layout, ctypes.string_at(pointers[3], struct.calcsize(layout))))
        read.append([p % 8 for p in pointers])

    driver.seen = look
    run = make_run(recording(driver).prepare_launch(launch, 0, (1000, 1), edge=0.5))
    gc.collect()  # what it packs is its own, whatever becomes of the launcher
    run(7, 11, 22, 33)
    assert read[0] == [11, 22, 33]
    assert read[1] == (1000, 1, 0, *launch.integers, *launch.grid, 0.5)
    assert read[2] == [0] * 4
    assert prepared is not None


@pytest.mark.parametrize(("architecture", "attributes"), [(90, [(6, 1)]), (80, []), (120, [])])
def test_launches_come_early_where_that_was_tried(
    architecture: int, attributes: list[tuple[int, int]]
) -> None:
    driver, launch = Recorder(), launches()[0]
    kernels = CudaKernels(driver, lambda device: architecture, None, lambda *given: b"code")
    prepared = kernels.prepare_launch(launch, 0, (1000, 1))
    run = make_run(prepared)
    for stream in (7, 8):  # what differs from run to run leaves them as they are
        run(stream, 11, 22, 33)
    assert driver.attributes == [attributes] * 2


def test_every_thread_waits_for_what_ran_before_it_touches_memory_or_leaves() -> None:
    for launch in launches():
        variant = cuda_text.make_variant(launch)
        _, _, function = cuda_text.write_text(variant).partition('extern "C" __global__')
        before, waits, after = function.partition("{")[2].partition("after_earlier_launches();")
        assert waits
        assert "__restrict__" not in function.partition("{")[0]  # might be read before
        assert "after_earlier_launches" not in after
        tensors = [*INPUTS[launch.kernel], *OUTPUTS[launch.kernel], "return"]
        used = [name for name in tensors if re.search(rf"\b{name}\b(?!_strides)", before)]
        # Where launches' arguments and the table lie is named before; nothing is read there.
        assert set(used) <= {"parameters", "table", "edge"}


def test_a_variant_is_compiled_and_loaded_once_for_an_architecture() -> None:
    driver, texts = Recorder(), []

    def compiled(text: str, architecture: int, folder: Path | None) -> bytes:
        texts.append((text, architecture))
        return b"code"

    kernels = CudaKernels(driver, lambda device: 90 + device // 2, None, compiled)
    one, two = launches(samples=1000)[0], launches(samples=1300)[0]
    assert not kernels.is_loaded(one, 0)
    first = kernels.prepare_launch(one, 0, (1000, 1))
    assert kernels.prepare_launch(one, 0, (1000, 1)) is first
    assert kernels.prepare_launch(one, 0, (2000, 2)) is not first
    kernels.prepare_launch(two, 1, (1300, 1))
    assert (len(texts), len(driver.loaded)) == (1, 1)
    assert kernels.is_loaded(two, 1)
    kernels.prepare_launch(two, 2, (1300, 1))
    assert [architecture for _, architecture in texts] == [90, 91]


class Counting:
    """Compiles nothing, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        monkeypatch.setattr(cubins, "compile_text", self.compile)
        monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 0))

    def compile(self, text: str, architecture: int) -> bytes:
        self.calls += 1
        return f"{text} for {architecture}".encode()


def test_machine_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, folder = Counting(monkeypatch), tmp_path / "new" / "cuda"
    code = cubins.load_code("text", 90, folder)
    assert code == cubins.load_code("text", 90, folder) == b"text for 90"
    assert counting.calls == 1
    assert cubins.load_code("text", 80, folder) == b"text for 80"
    assert cubins.load_code("other", 90, folder) == b"other for 90"
    monkeypatch.setattr(cubins, "nvrtc_version", lambda: (13, 1))
    cubins.load_code("text", 90, folder)
    assert counting.calls == 4
    assert len(list(folder.iterdir())) == 4
    cubins.load_code("text", 90, None)
    assert counting.calls == 5


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "a folder"])
def test_damaged_files_cost_a_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    counting = Counting(monkeypatch)
    cubins.load_code("text", 90, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"cut": whole[:-1], "changed": whole[:-1] + b"?", "empty": b""}[damage])
    told = pytest.warns(RuntimeWarning, match="it is a folder") if path.is_dir() else nullcontext()
    with told:
        assert cubins.load_code("text", 90, tmp_path) == b"text for 90"
    assert counting.calls == 2
    assert len(list(tmp_path.iterdir())) == 1, "something temporary was left"


def test_a_file_of_another_text_costs_a_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    for text in ("text", "other"):
        cubins.load_code(text, 90, tmp_path)
    one, other = tmp_path.iterdir()
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    for text in ("text", "other"):
        assert cubins.load_code(text, 90, tmp_path) == f"{text} for 90".encode()
    assert counting.calls == 4


needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no owners here")


@needs_owners
def test_a_folder_that_others_may_write_is_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    cubins.load_code("text", 90, tmp_path)
    tmp_path.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="every user may write it. Each process compiles anew"):
        assert cubins.load_code("text", 90, tmp_path) == b"text for 90"
    cubins.load_code("other", 90, tmp_path)  # without a warning, which would fail the test
    assert counting.calls == 3
    assert len(list(tmp_path.iterdir())) == 1


@needs_owners
def test_a_file_that_others_may_write_is_told_of_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    cubins.load_code("text", 90, tmp_path)
    (path,) = tmp_path.iterdir()
    path.chmod(0o666)
    with pytest.warns(RuntimeWarning, match="every user may write it. It compiles anew"):
        cubins.load_code("text", 90, tmp_path)
    cubins.load_code("text", 90, tmp_path)
    assert counting.calls == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(monkeypatch)
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        assert cubins.load_code("text", 90, tmp_path / "file" / "cuda") == b"text for 90"
    assert counting.calls == 2


def test_many_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Counting(monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        codes = pool.map(lambda _: cubins.load_code("text", 90, tmp_path), range(64))
    assert set(codes) == {b"text for 90"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(CudaProblem, match=r"pip install cuda-core"):
        cubins.nvrtc_version()


def test_nothing_of_cuda_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, torch, torch_mlx_spectro as tms\n"
        "from torch_mlx_spectro.backends.cuda import backend\n"
        "with tms.backend('cuda'):\n"
        "    tms.stft(torch.zeros(100), 16, window=torch.ones(16), return_complex=True)\n"
        "assert 'device cpu of input is not accelerated' in tms.stats().fallbacks\n"
        "assert 'cuda.core' not in sys.modules  # torch itself imports cuda.bindings\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


class FakeDriver:
    """``cuda.bindings.driver`` as far as the launcher uses it."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.called = list(errors), list[Any]()

    def launch(self, *arguments: Any) -> int:
        self.called.append("launch")
        return self.errors.pop(0)

    def cuDevicePrimaryCtxRetain(self, device: Any) -> tuple[int, str]:
        return 0, f"context of {device}"

    def cuCtxSetCurrent(self, context: Any) -> tuple[int]:
        self.called.append(context)
        return (0,)

    def CUdevice(self, index: int) -> int:
        return index

    def CUresult(self, error: int) -> int:
        return error


def run_on(fake: FakeDriver) -> None:
    """Launch something on device 1."""
    driver = CudaDriver.__new__(CudaDriver)
    driver._driver = driver._core = fake
    driver.launch = fake.launch
    launch = launches()[0]
    make_run(Prepared(driver, ctypes.c_void_p(5), launch, 1, (1,), 1.0))(7, 1, 2, 3)


def test_a_thread_without_a_context_gets_torchs() -> None:
    fake = FakeDriver(201, 0)
    run_on(fake)
    assert fake.called == ["launch", "context of 1", "launch"]


@pytest.mark.parametrize("errors", [(719,), (201, 719)])
def test_what_the_driver_refuses_is_raised(errors: tuple[int, ...]) -> None:
    with pytest.raises(CudaProblem, match="719"):
        run_on(FakeDriver(*errors))


RUNS = 600


class Telling:
    """A driver whose launch runs for some queries, and what it writes after how many of them.

    Args:
        answers: of queries and of the wait after them, in turn; the last of them again and again.
        writes: verdicts by how often it has been asked.
    """

    def __init__(self, *answers: int, **writes: Verdict) -> None:
        self._answers, self._writes = list(answers), writes
        self.flag = ctypes.c_int32(0)
        self.called: list[str] = []
        self._write(0)

    def _write(self, count: int) -> None:
        if f"after_{count}" in self._writes:
            self.flag.value = self._writes[f"after_{count}"]

    def _answer(self, name: str, stream: int) -> int:
        assert stream == 7
        self.called.append(name)
        self._write(len(self.called))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def query(self, stream: int) -> int:
        return self._answer("query", stream)

    def synchronize(self, stream: int) -> int:
        return self._answer("wait", stream)

    def hear(self, monkeypatch: pytest.MonkeyPatch, current: int = 0) -> int:
        """What is heard on device 0; torch's own wait raises after an error, as torch does."""

        class Stream:
            def synchronize(_) -> None:
                self.called.append("torch")
                self._write(len(self.called))
                if self._answers[-1] not in (0, RUNS):
                    raise RuntimeError("CUDA error: torch's own")

        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
        place = ctypes.addressof(self.flag)
        driver: Any = self
        kernels = CudaKernels(
            driver,
            lambda device: 90,
            current_device=lambda: current,
            stream_of=lambda device: 7 + device,
        )
        return kernels.wait_for_verdict(place, torch.device("cuda", 0))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "PATIENCE", 0.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "PATIENCE", 1e9)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("queries", [0, 1, 5])
def test_a_launch_that_calls_it_fine_is_heard_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    telling = Telling(RUNS, **{f"after_{queries}": Verdict.FINE})
    assert telling.hear(monkeypatch) == Verdict.FINE
    assert telling.called == ["query"] * queries
    assert telling.flag.value == Verdict.NOT_TOLD  # for the next call


@pytest.mark.usefixtures("patient")
def test_what_vanishes_is_heard_when_nobody_writes_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    telling = Telling(RUNS, RUNS, 0, after_1=Verdict.VANISHES)
    assert telling.hear(monkeypatch) == Verdict.VANISHES
    assert telling.called == ["query"] * 3
    assert telling.flag.value == Verdict.NOT_TOLD


@pytest.mark.usefixtures("patient")
def test_a_launch_that_tells_nothing_has_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Telling(RUNS, RUNS, 0)
    assert telling.hear(monkeypatch) == Verdict.NOT_TOLD
    assert telling.called == ["query"] * 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("verdict", [Verdict.NOT_TOLD, Verdict.VANISHES, Verdict.FINE])
def test_the_driver_waits_for_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    telling = Telling(RUNS, 0, after_2=verdict)
    assert telling.hear(monkeypatch) == verdict
    assert telling.called == ["query", "wait"]
    assert telling.flag.value == Verdict.NOT_TOLD


@pytest.mark.parametrize("where", ["query", "wait"])
def test_errors_of_what_ran_before_are_torchs_own(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(launcher, "PATIENCE", 1e9 if where == "query" else 0.0)
    telling = Telling(RUNS, 719)
    with pytest.raises(RuntimeError, match="torch's own"):
        telling.hear(monkeypatch)
    assert telling.called == ["query", where, "torch"]


def test_torch_waits_for_a_device_that_is_not_current(monkeypatch: pytest.MonkeyPatch) -> None:
    telling = Telling(0, after_1=Verdict.FINE)
    assert telling.hear(monkeypatch, current=1) == Verdict.FINE
    assert telling.called == ["torch"]


@needs_nvrtc
@pytest.mark.parametrize(("n_fft", "hop"), [(256, 64), (75, 20)])
def test_every_kernel_compiles(n_fft: int, hop: int) -> None:
    """For the H100's architecture, by NVRTC, which needs no device."""
    variants = dict.fromkeys(cuda_text.make_variant(launch) for launch in launches(n_fft, hop))
    texts = [cuda_text.write_text(variant) for variant in variants]
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda text: cubins.compile_text(text, 90), texts))
    for variant, code in zip(variants, codes, strict=True):
        assert code.startswith(b"\x7fELF")
        assert variant.name.encode() in code


@needs_nvrtc
def test_what_does_not_compile_says_why() -> None:
    with pytest.raises(CudaProblem, match="undeclared_name"):
        cubins.compile_text('extern "C" __global__ void f() { undeclared_name(); }', 90)
    assert 90 in cubins.architectures()


def ptx_of(text: str) -> str:
    """By NVRTC itself: cuda.core would ask the driver."""
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"text.cu", 0, [], [])
    options = (
        *(b"--gpu-architecture=compute_90", b"--std=c++17"),
        b"--device-as-default-execution-space",
    )
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    assert int(error) == 0
    _, size = nvrtc.nvrtcGetPTXSize(program)
    code = bytes(size)
    nvrtc.nvrtcGetPTX(program, code)
    return code.decode()


@needs_nvrtc
def test_the_compiler_reads_no_memory_before_the_wait() -> None:
    for variant in dict.fromkeys(cuda_text.make_variant(launch) for launch in launches()):
        _, _, function = ptx_of(cuda_text.write_text(variant)).partition(".entry")
        before, waits, _ = function.partition("griddepcontrol.wait")
        assert waits
        assert not re.search(r"\b(ld|st|atom|red)\.global|\bret;", before)


def test_what_nvrtc_refuses_is_told_without_compiling_again() -> None:
    texts: list[str] = []

    def compiled(text: str, architecture: int, folder: Path | None) -> bytes:
        texts.append(text)
        raise CudaProblem("NVRTC does not compile: no")

    kernels = CudaKernels(Recorder(), lambda device: 90, None, compiled)
    for _ in range(2):
        with pytest.raises(CudaProblem, match="does not compile: no"):
            kernels.prepare_launch(launches()[0], 0, (1000, 1))
    assert len(texts) == 1


@pytest.mark.parametrize("text", ["no builtins\nthere", ""])
def test_exceptions_of_the_compiler_are_problems(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    def refuse(*given: Any) -> Any:
        raise LookupError(text)

    core = SimpleNamespace(ProgramOptions=lambda **options: None, Program=refuse)
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    said = "does not compile: no builtins$" if text else "does not compile: LookupError$"
    with pytest.raises(CudaProblem, match=said):
        cubins.compile_text("text", 90)
