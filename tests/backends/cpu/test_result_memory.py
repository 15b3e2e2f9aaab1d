"""Memory of results is used again when, and only when, nobody else holds it."""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkout import ROOT
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cpu import memory as memories
from torch_mlx_spectro.backends.cpu.memory import MAX_IDLE, MAX_KINDS, MAX_STORAGES, ResultMemory

#: Bytes that a result which is kept has at least, in these tests.
MIN_BYTES = 1 << 20
VALUES = MIN_BYTES // 4
LIMIT = 16 * MIN_BYTES


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memories, "MIN_BYTES", MIN_BYTES)


class Clock:
    """Seconds that a test sets."""

    now = 1.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> ResultMemory:
    return ResultMemory(LIMIT, clock)


@pytest.fixture
def of_the_process() -> Iterator[ResultMemory]:
    """The memory of all results, empty, of a limit that holds for the test."""
    before = tms.set_result_memory(64 << 20)
    yield memories.memory
    tms.set_result_memory(before)


def make(memory: ResultMemory, values: int = VALUES) -> torch.Tensor:
    """Make a result, of which there was one like it before."""
    kind = (values,), (1,), torch.float32
    if kind not in memory._kinds:
        memory._kinds.append(kind)
    return memory.make(*kind)


def get_address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_what_a_program_has_let_go_of_is_used_again(memory: ResultMemory) -> None:
    address = get_address(make(memory))
    again = memory.make((2, VALUES // 4), (VALUES // 4, 1), torch.complex64)
    assert get_address(again) == address
    assert (again.shape, again.stride(), again.dtype) == (
        (2, VALUES // 4),
        (VALUES // 4, 1),
        torch.complex64,
    )
    assert get_address(make(memory)) != address
    del again
    assert get_address(make(memory)) in {
        address,
        *(get_address(one.holder) for one in memory._lent),
    }


def test_only_what_is_like_an_earlier_result_is_kept(memory: ResultMemory) -> None:
    """Results that all differ would never be used again."""
    for values in range(VALUES, VALUES + 40):
        memory.make((values,), (1,), torch.float32)
    assert memory.held() == 0
    addresses = {get_address(memory.make((VALUES,), (1,), torch.float32)) for _ in range(2)}
    assert len(addresses) == 1
    assert memory.held() == MIN_BYTES
    # As many bytes in another shape are another result, such as a gradient beside its result.
    kept = memory.make((2, VALUES // 2), (VALUES // 2, 1), torch.float32)
    assert memory.held() == MIN_BYTES
    del kept
    memory.clear()
    for values in [*range(VALUES, VALUES + MAX_KINDS + 1), VALUES]:  # it came long ago
        memory.make((values,), (1,), torch.float32)
    assert memory.held() == 0


def save_for_backward(tensor: torch.Tensor) -> Any:
    return torch.ones(1, requires_grad=True) * tensor


#: What holds a storage after its tensor is gone.
HOLDERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "the tensor": lambda tensor: tensor,
    "a view": lambda tensor: tensor[5:7],
    "another dtype": lambda tensor: tensor.view(torch.int32)[:1],
    "detached": lambda tensor: tensor.detach(),
    "data": lambda tensor: tensor.data,
    "numpy": lambda tensor: tensor.numpy(),
    "a view of numpy's": lambda tensor: tensor.numpy()[3:4],
    "memoryview": lambda tensor: memoryview(tensor.numpy())[1:2],
    "numpy by DLPack": lambda tensor: np.from_dlpack(tensor),
    "torch by DLPack": lambda tensor: torch.from_dlpack(tensor),
    "torch by numpy": lambda tensor: torch.from_numpy(tensor.numpy()),
    "a capsule": lambda tensor: tensor.__dlpack__(),
    "the storage": lambda tensor: tensor.untyped_storage(),
    "a weak reference to the storage": lambda tensor: weakref.ref(tensor.untyped_storage()),
    "autograd": save_for_backward,
    "a parameter": torch.nn.Parameter,
    "a sparse tensor's values": lambda tensor: torch.sparse_coo_tensor(
        torch.arange(VALUES)[None], tensor, check_invariants=False
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_somebody_holds_is_not_used_again(memory: ResultMemory, holder: str) -> None:
    tensor = make(memory)
    address = get_address(tensor)
    held = HOLDERS[holder](tensor)
    del tensor
    assert get_address(make(memory)) != address
    del held
    addresses = {get_address(kept) for kept in [make(memory) for _ in range(2)]}
    if "numpy" in holder or holder == "memoryview":
        # torch has made the storage one that cannot be resized, for good.
        assert all(one.holder.untyped_storage().resizable() for one in memory._lent)
    elif "weak" not in holder:  # its object may be gone, or not
        assert address in addresses


def resize(tensor: torch.Tensor) -> None:
    tensor.untyped_storage().resize_(2 * MIN_BYTES)


def empty(tensor: torch.Tensor) -> None:
    tensor.untyped_storage().resize_(0)


def share(tensor: torch.Tensor) -> None:
    tensor.share_memory_()


def resize_and_back(tensor: torch.Tensor) -> torch.Tensor:
    """Resize a storage; what is returned lies where it was before, so that it has to move."""
    tensor.untyped_storage().resize_(0)
    other = torch.empty(MIN_BYTES, dtype=torch.uint8)
    tensor.untyped_storage().resize_(MIN_BYTES)
    return other


#: What makes of a storage another thing than it was.
CHANGES: dict[str, Callable[[torch.Tensor], Any]] = {
    "made larger": resize,
    "emptied": empty,
    "emptied and filled": resize_and_back,
    "shared": share,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_not_used_again(memory: ResultMemory, change: str) -> None:
    tensor = make(memory)
    made_at = get_address(tensor)
    other = CHANGES[change](tensor)
    address = get_address(tensor)
    del tensor
    before = memory._lent[0].holder
    again = make(memory)
    assert len(memory._lent) == 1
    # If the allocator gives the same place back after all, nothing was changed.
    is_used_again = again.untyped_storage()._cdata == before.untyped_storage()._cdata
    assert is_used_again == (change == "emptied and filled" and address == made_at)
    del other
    if change == "shared":  # of the others the allocator may return the same address
        assert get_address(again) != address
    assert again.untyped_storage().nbytes() == MIN_BYTES
    again.fill_(1)


def test_a_result_is_like_natives_in_all_but_its_address(memory: ResultMemory) -> None:
    for _ in range(2):  # new, and used again
        tensor = make(memory, VALUES + 3)
        storage = tensor.untyped_storage()
        assert storage.nbytes() == 4 * (VALUES + 3)
        assert storage.resizable()
        assert not storage.is_shared()
        assert not tensor._is_view()
        file, native = io.BytesIO(), io.BytesIO()
        torch.save(tensor.zero_(), file)
        torch.save(torch.zeros(VALUES + 3), native)
        assert file.tell() == native.tell()
        tensor.resize_(2 * VALUES).fill_(3)
        tensor = make(memory, VALUES + 3)
        del storage


def test_small_results_are_torchs_alone(memory: ResultMemory) -> None:
    make(memory, VALUES - 1)
    assert memory.held() == 0


def test_no_more_is_kept_than_the_limit(memory: ResultMemory) -> None:
    kept = [make(memory) for _ in range(40)]
    assert memory.held() == LIMIT
    assert len({get_address(one) for one in kept}) == 40
    make(memory, 17 * VALUES)
    assert memory.held() == LIMIT  # larger than all that may be kept
    del kept
    make(memory, 15 * VALUES)
    assert memory.held() == LIMIT
    memory.limit = 0
    make(memory)
    assert memory.held() == 0


def test_many_storages_are_not_kept() -> None:
    memory = ResultMemory(1 << 40)
    kept = [make(memory) for _ in range(MAX_STORAGES + 5)]
    assert len(memory._lent) == MAX_STORAGES
    del kept


def test_what_the_program_uses_is_forgotten_after_what_it_does_not(memory: ResultMemory) -> None:
    used = make(memory, 2 * VALUES)
    make(memory, 3 * VALUES)
    make(memory, 12 * VALUES)  # there is room for one of the two
    assert memory.held() == 14 * MIN_BYTES
    del used


def test_what_is_not_used_is_forgotten_after_a_while(memory: ResultMemory, clock: Clock) -> None:
    used = make(memory)
    make(memory, 2 * VALUES)
    other = make(memory, 3 * VALUES)
    clock.now += MAX_IDLE + 1
    del other
    make(memory, 4 * VALUES)  # the one of two was seen idle when that of three was made
    assert memory.held() == (1 + 3 + 4) * MIN_BYTES
    clock.now += MAX_IDLE + 1
    make(memory, 4 * VALUES)
    assert memory.held() == (1 + 4) * MIN_BYTES
    del used


def test_clear_caches_forgets_all_and_takes_nothing_away(of_the_process: ResultMemory) -> None:
    used = make(of_the_process).fill_(5)
    make(of_the_process)
    assert of_the_process.held() == 2 * MIN_BYTES
    tms.clear_caches()
    assert of_the_process.held() == 0
    assert get_address(make(of_the_process).fill_(6)) != get_address(used)
    assert (used == 5).all()


def test_an_allocation_that_fails_is_tried_again_without_what_is_kept(
    memory: ResultMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(memory)
    allocate, asked = torch.empty_strided, []

    def refuse_once(*args: Any, **kwargs: Any) -> torch.Tensor:
        asked.append(memory.held())
        if len(asked) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return allocate(*args, **kwargs)

    monkeypatch.setattr(torch, "empty_strided", refuse_once)
    assert len(make(memory, 2 * VALUES)) == 2 * VALUES
    assert asked == [MIN_BYTES, 0]

    def refuse(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "empty_strided", refuse)
    with pytest.raises(RuntimeError, match="can't allocate"):
        make(memory, 3 * VALUES)


def interrupt_at(number: int, function: Callable[[], Any]) -> bool:
    """Call a function that is interrupted at the ``number``th point here; whether it was.

    Python handles signals where its functions begin, and after calls of functions in C.
    """
    left = number

    def profile(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if frame.f_code.co_filename == memories.__file__ and event in ("call", "c_return"):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(before)
    return False


def check_whole(memory: ResultMemory) -> None:
    """Whether results are apart from each other, and made of what is free."""
    assert not memory._lock.locked()
    assert len({get_address(one.holder) for one in memory._lent}) == len(memory._lent)
    assert memory.held() <= LIMIT
    results = [make(memory).fill_(value) for value in range(4)]
    assert len({get_address(one) for one in results}) == 4
    assert all(bool((one == value).all()) for value, one in enumerate(results))
    addresses = {get_address(one) for one in results}
    del results
    assert get_address(make(memory)) in addresses


def add_result(memory: ResultMemory, held: list[torch.Tensor]) -> None:
    held.append(make(memory).fill_(9))


@pytest.mark.parametrize("others", [0, 1], ids=["new memory", "used again"])
def test_an_interrupt_anywhere_loses_nothing(memory: ResultMemory, others: int) -> None:
    number = 0
    is_interrupted = True
    while is_interrupted:
        number += 1
        memory.clear()
        held = [make(memory).fill_(7)]
        for _ in range(others):
            make(memory)
        is_interrupted = interrupt_at(number, partial(add_result, memory, held))
        check_whole(memory)
        assert bool((held[0] == 7).all())
        assert len(held) == 1 or bool((held[1] == 9).all())
    assert number > 25


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_while_an_allocation_is_tried_again_loses_nothing(
    memory: ResultMemory, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    used = make(memory).fill_(7)
    make(memory)
    errors = iter([RuntimeError("can't allocate memory"), error("can't allocate memory")])

    def refuse(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise next(errors)

    with monkeypatch.context() as broken:
        broken.setattr(torch, "empty_strided", refuse)
        with pytest.raises(error, match="can't allocate"):
            make(memory, 2 * VALUES)
    assert next(errors, None) is None
    check_whole(memory)
    assert bool((used == 7).all())


def test_nobody_waits_for_another_thread(memory: ResultMemory) -> None:
    """Nor for himself: the handler of a signal may be one who asks."""
    with memory._lock:
        assert len(make(memory)) == VALUES
    assert memory.held() == 0


def test_where_torch_does_not_tell_who_holds_a_storage_nothing_is_kept(
    memory: ResultMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memories, "count_references", lambda address: 0)
    assert memories.measure_alone() is None
    make(memory)
    assert memory.held() == 0


def test_threads_do_not_share_results(memory: ResultMemory) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        kept: list[tuple[torch.Tensor, int]] = []
        for turn in range(60):
            value = 1000 * number + turn
            tensor = make(memory, VALUES + (turn % 3))
            tensor.fill_(value)
            kept.append((tensor if turn % 2 else tensor[::7], value))
            if len(kept) > 2:
                old, expected = kept.pop(0)
                if not bool((old == expected).all()):
                    wrong.append(f"{number}: {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.held() <= LIMIT


def transform(signal: torch.Tensor) -> list[torch.Tensor]:
    """Results and gradients, all large."""
    window = torch.hann_window(512)
    with tms.backend("cpu", strict=True):
        leaf = signal.clone().requires_grad_()
        spectrum = tms.stft(leaf, 512, window=window, return_complex=True)
        inner = spectrum.detach().clone().requires_grad_()
        back = tms.istft(inner, 512, window=window)
        spectrum.backward(torch.ones_like(spectrum))
        back.backward(torch.ones_like(back))
    assert leaf.grad is not None
    assert inner.grad is not None
    return [spectrum.detach(), back.detach(), leaf.grad, inner.grad]


def test_results_and_gradients_are_made_of_it(of_the_process: ResultMemory) -> None:
    signal = torch.sin(torch.arange(4 * VALUES / 3)).reshape(2, -1)
    transform(signal)
    first = transform(signal)
    sizes = {one.size for one in of_the_process._lent}
    assert sizes == {one.untyped_storage().nbytes() for one in first}
    copies = [one.clone() for one in first]
    addresses = {get_address(one) for one in first}
    transform(signal + 1)  # the first are still held
    assert all(torch.equal(one, copy) for one, copy in zip(first, copies, strict=True))
    del first
    again = transform(signal)
    assert addresses & {get_address(one) for one in again}
    assert all(torch.equal(one, copy) for one, copy in zip(again, copies, strict=True))


def test_results_under_inference_mode_and_without_it(of_the_process: ResultMemory) -> None:
    signal, window = torch.ones(2, VALUES), torch.ones(512)
    for is_inference in (True, False, True, False):
        with torch.inference_mode(is_inference), tms.backend("cpu", strict=True):
            found = tms.stft(signal, 512, window=window, return_complex=True)
            assert found.is_inference() == is_inference
            found.mul_(2)
        del found
    assert len(of_the_process._lent) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_begins_with_none(tmp_path: Path) -> None:
    program = (
        "import os, torch, torch_mlx_spectro as tms\n"
        "from torch_mlx_spectro.backends.cpu.memory import memory\n"
        "torch.set_num_threads(1)\n"
        "def compute():\n"
        "    with tms.backend('cpu', strict=True):\n"
        "        return tms.stft(torch.ones(2, 1 << 20), 512, window=torch.ones(512),\n"
        "                        return_complex=True)\n"
        "kept = [compute(), compute()][1]\n"
        "assert memory.held()\n"
        "memory._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert memory.held() == 0\n"
        "    again = [compute(), compute()][1]\n"
        "    assert memory.held() and torch.equal(again, kept)\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    finished = python("-W", "ignore", "-c", program, cwd=tmp_path)
    assert finished.stdout.strip() == "0", finished.stderr


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc tells what it has lent")
def test_calls_of_random_sizes_by_many_threads_leave_nothing(tmp_path: Path) -> None:
    """The whole of it, 10,000 calls, is benchmarks/cpu_memory.py itself."""
    given = ["--calls", "240", "--samples", "600000", "--torch-threads", "1", "--by", "cpu"]
    # One heap, as otherwise how much of each is left depends on how threads meet.
    variables = {"MALLOC_ARENA_MAX": "1", "TORCH_MLX_SPECTRO_RESULT_MEMORY": "64"}
    program = str(ROOT / "benchmarks" / "cpu_memory.py")
    finished = python(program, *given, cwd=tmp_path, variables=variables)
    assert finished.returncode == 0, finished.stderr
    left = json.loads(finished.stdout)
    assert left["lent"] < 96 << 20  # the limit, and what is kept of windows and in plans
    assert left["clear_caches"] < 32 << 20


def test_the_limit_is_the_environments_or_the_programs(
    monkeypatch: pytest.MonkeyPatch, of_the_process: ResultMemory
) -> None:
    monkeypatch.setenv("TORCH_MLX_SPECTRO_RESULT_MEMORY", "3")
    assert ResultMemory().limit == 3 << 20
    monkeypatch.setenv("TORCH_MLX_SPECTRO_RESULT_MEMORY", "")
    assert 0 < ResultMemory().limit <= 256 << 20
    monkeypatch.setattr(memories, "_physical_memory", lambda: 1 << 30)
    assert ResultMemory().limit == 32 << 20
    monkeypatch.setenv("TORCH_MLX_SPECTRO_RESULT_MEMORY", "much")
    with pytest.raises(ValueError, match="TORCH_MLX_SPECTRO_RESULT_MEMORY must be a number of MiB"):
        tms.patch()
    assert tms.set_result_memory(5) == 64 << 20
    assert tms.set_result_memory(64 << 20) == 5
    for wrong in (-1, 1.5, True, None):
        with pytest.raises(ValueError, match="number of bytes"):
            tms.set_result_memory(wrong)  # type: ignore[arg-type]
