"""First use: what auto takes is compared once, and never used if it was wrong, nor later."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cli_process import python
from needs import needs_emulator
from patched import NATIVE

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.calls import operation as operations
from torch_mlx_spectro.calls.timer import HostTimer
from torch_mlx_spectro.dispatch import checking
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import MAX_TRIALS, ROUTES, TRIALS, Trials
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store
from torch_mlx_spectro.verify import criterion
from torch_mlx_spectro.verify.ledger import MAX_INCONCLUSIVE, QUARANTINED, VERIFIED, Ledger

SIGNAL = torch.randn(3, 400, generator=torch.Generator().manual_seed(2))
WINDOW = torch.hann_window(16)
ARGUMENTS: dict[str, Any] = {"hop_length": 4, "window": WINDOW, "return_complex": True}
EXPECTED = NATIVE["stft"](SIGNAL, 16, **ARGUMENTS)
SPECS = {spec.name: spec for spec in registry.specs()}
#: The second of two neighbouring samples is multiplied by the first one's value of the window.
MUTATION = ("by_parts(frame.pair(j), window.pair(j))", "by_parts(frame.pair(j), window.pair(j).xx)")


@dataclass
class World:
    """Backends that are none, on a clock of their own: what each takes, and by how much it errs."""

    costs: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    refusals: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    #: Who has computed, native's part in comparisons apart.
    computed: list[str] = field(default_factory=list)
    compared: int = 0
    store: Store = field(default_factory=lambda: Store(None, versions={}))

    def __post_init__(self) -> None:
        self.op = replace(operations.STFT, native=self._native, small=0)

    def begin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process begins that knows nothing but what is in the store."""
        state = {
            "trials": Trials(lambda: self.now, lambda: self.store),
            "ledger": Ledger(lambda: self.store),
        }
        for name, value in state.items():
            monkeypatch.setattr(deciding, name, value)
        monkeypatch.setattr(dispatching, "trials", state["trials"])
        plans.clear()
        monkeypatch.setitem(verdicts._process, "store", self.store)
        monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
        names = tuple(name for name in self.costs if name != "native")
        specs, loaded = {}, {}
        for name in names:
            specs[name] = registry.Spec(name, ("cpu",), "")
            loaded[name] = SimpleNamespace(
                explain_absence=lambda device, name=name: self.missing.get(name),
                explain_refusal=lambda call, name=name: self.refusals.get(name),
                name_kernel=lambda call, name=name: f"{name} kernel",
                stft=lambda *_, name=name: self._compute(name),
                prepare=lambda *_: None,
                make_timer=lambda clock: HostTimer(clock, lambda: None),
            )
        monkeypatch.setattr(registry, "_specs", specs)
        monkeypatch.setattr(registry, "_loaded", loaded)
        self.computed.clear()
        self.compared = 0

    def _compute(self, name: str) -> torch.Tensor:
        self.computed.append(name)
        self.now += self.costs[name]
        return self.answer * (1 + self.errors.get(name, 0.0))

    def _native(self, input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if input.dtype == torch.float32:
            if self.computed and self._is_comparing():
                self.compared += 1
            else:
                self.computed.append("native")
            self.now += self.costs["native"]
        return NATIVE["stft"](input, *args, **kwargs)

    @staticmethod
    def _is_comparing() -> bool:
        frame = sys._getframe(2)
        return frame.f_code.co_name in ("_recompute", "_recompute_part", "answer_natively")

    def calls(
        self, number: int, choice: Choice | None = None, signal: torch.Tensor = SIGNAL
    ) -> list[torch.Tensor]:
        self.answer = NATIVE["stft"](signal, 16, **ARGUMENTS)
        frame = sys._getframe()
        chosen = choice or Choice("auto")
        return [
            dispatching.dispatch(self.op, chosen, (signal, 16), ARGUMENTS, frame)
            for _ in range(number)
        ]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Not the shapes that were settled."""
    yield
    plans.clear()


def test_the_fastest_right_one_is_compared_once_and_then_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.05, "two": 0.02})
    world.begin(monkeypatch)
    answers = world.calls(30)
    assert world.computed[: 3 * TRIALS] == [
        name for name in ("native", "one", "two") for _ in range(TRIALS)
    ]
    assert set(world.computed[3 * TRIALS :]) == {"two"}
    assert world.compared == 2  # each candidate's first call
    assert all(torch.equal(answer, EXPECTED) for answer in answers)
    assert (tms.stats().verified, tms.stats().mismatches) == (2, 0)


@pytest.mark.parametrize("warming", [[1.5, 0.0013], [1.5, 0.02, 0.0013], [1.5, 0.02, 0.02, 0.02]])
def test_a_small_call_settles_on_a_backend_whose_first_calls_warm_up(
    warming: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen on an H100's host: native was kept, though it took ten times as long."""

    class Warming(World):
        def _compute(self, name: str) -> torch.Tensor:
            warm_up = self.computed.count(name)
            self.now += warming[warm_up] if warm_up < len(warming) else 0.0
            return super()._compute(name)

    world = Warming({"native": 1e-4, "cuda": 1e-5})
    world.begin(monkeypatch)
    world.calls(2 * MAX_TRIALS + 20)
    assert set(world.computed[-20:]) == {"cuda"}


def test_a_later_process_neither_times_nor_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"native": 0.1, "one": 0.05, "two": 0.02})
    world.begin(monkeypatch)
    world.calls(30)
    world.begin(monkeypatch)
    world.calls(5)
    assert world.computed == ["two"] * 5
    assert world.compared == 0
    assert set(world.store.sections()) == {ROUTES, VERIFIED}


@pytest.mark.parametrize("error", [1e-3, float("nan")])
def test_a_wrong_one_is_answered_natively_told_once_and_never_used_again(
    error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World({"native": 0.1, "one": 0.01, "two": 0.05}, {"one": error})
    world.begin(monkeypatch)
    world.calls(TRIALS)
    with pytest.warns(RuntimeWarning, match=r"stft computed by one \(one kernel\)") as told:
        (answer,) = world.calls(1)
    assert len(told) == 1
    assert torch.equal(answer, EXPECTED)
    answers = world.calls(30)  # without a warning, which would fail the test
    assert all(torch.equal(answer, EXPECTED) for answer in answers)
    assert world.computed.count("one") == 1
    assert world.computed[-1] == "two"
    assert (tms.stats().verified, tms.stats().mismatches) == (2, 1)
    ((way, reason),) = world.store.sections()[QUARANTINED].items()
    assert way.startswith("stft|one|one kernel|cpu|16|4|")
    # Nor in a later process, which says why.
    world.begin(monkeypatch)
    world.calls(30)
    assert set(world.computed) == {"two"}
    route = deciding.decide(world.op, Choice("auto"), (SIGNAL, 16), ARGUMENTS).route
    assert (route.backend, route.reasons[1:]) == ("two", (f"{reason} (in an earlier process)",))


def test_where_every_candidate_is_wrong_native_computes_and_it_is_a_fallback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01}, {"one": 0.1})
    world.begin(monkeypatch)
    with pytest.warns(RuntimeWarning, match="computed by one"):
        world.calls(20)
    assert world.computed.count("one") == 1
    world.begin(monkeypatch)
    tms.reset_stats()
    world.calls(TRIALS + 2)
    assert set(world.computed) == {"native"}
    ((reason, number),) = tms.stats().fallbacks.items()
    assert number == 2
    assert reason.endswith("(in an earlier process)")
    with pytest.raises(tms.NotAccelerated, match="in an earlier process"):
        world.calls(1, Choice("auto", strict=True))


def test_asked_for_by_name_it_computes_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what was wrong can be reproduced: the lines of the warning name the backend."""
    world = World({"native": 0.1, "one": 0.01}, {"one": 0.1})
    world.begin(monkeypatch)
    with pytest.warns(RuntimeWarning, match="computed by one"):
        world.calls(20)
    world.begin(monkeypatch)
    (answer,) = world.calls(1, Choice("one"))
    assert world.computed == ["one"]
    assert world.compared == 0
    assert not torch.equal(answer, EXPECTED)
    with pytest.warns(RuntimeWarning, match="computed by one"):
        world.calls(1, Choice("one", verify=1))


def test_strictly_a_wrong_first_use_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"native": 0.1, "one": 0.01}, {"one": 0.1})
    world.begin(monkeypatch)
    strict = Choice("auto", strict=True)
    world.calls(TRIALS, strict)
    with (
        pytest.warns(RuntimeWarning, match="computed by one"),
        pytest.raises(tms.NotAccelerated, match="verification: one"),
    ):
        world.calls(1, strict)
    with pytest.raises(tms.NotAccelerated, match="verification: one"):
        world.calls(1, strict)


def test_the_warning_says_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    world = World({"native": 0.1, "one": 0.01}, {"one": 0.1}, store=Store(path, versions={}))
    world.begin(monkeypatch)
    with pytest.warns(RuntimeWarning) as told:
        world.calls(20)
    assert f"and under auto in later ones, by {path}." in str(told[0].message)
    world.store = Store(path, versions={})
    world.begin(monkeypatch)
    world.calls(20)
    assert set(world.computed) == {"native"}
    # Other versions know nothing of it.
    world.store = Store(path, versions={"torch": "2"})
    world.begin(monkeypatch)
    with pytest.warns(RuntimeWarning, match="computed by one"):
        world.calls(20)


SILENT = {
    "zeros": torch.zeros(3, 400),
    "NaN": torch.full((3, 400), float("nan")),
    "a click": torch.nn.functional.pad(torch.ones(3, 1), (200, 199)),
}


@pytest.mark.parametrize("signal", SILENT.values(), ids=SILENT)
def test_of_what_tells_nothing_no_trust_comes(
    signal: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World({"native": 0.1, "one": 0.05})
    world.begin(monkeypatch)
    world.calls(2 * TRIALS + 1, signal=signal)
    assert world.compared == TRIALS + 1
    assert VERIFIED not in world.store.sections()
    world.errors["one"] = 0.1  # which a silent signal has not shown
    with pytest.warns(RuntimeWarning, match="computed by one"):
        (answer,) = world.calls(1)
    assert torch.equal(answer, EXPECTED)


def test_a_program_of_silence_is_not_compared_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"native": 0.1, "one": 0.05})
    world.begin(monkeypatch)
    world.calls(TRIALS + MAX_INCONCLUSIVE + 20, signal=SILENT["zeros"])
    assert world.compared == MAX_INCONCLUSIVE
    assert VERIFIED not in world.store.sections()


def test_of_calls_that_take_much_memory_rows_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    framed = 3 * 101 * 16
    for most, compared in ((framed, 1), (framed - 1, 3)):
        monkeypatch.setattr(checking, "MAX_COMPARED", most)
        world = World({"native": 0.1, "one": 0.05})
        world.begin(monkeypatch)
        world.calls(20)
        assert world.computed[-1] == "one"
        assert world.compared == compared


def test_noise_tells_and_half_silence_does() -> None:
    assert criterion.is_conclusive(EXPECTED)
    padded = torch.cat([SIGNAL, torch.zeros(3, 400)], 1)
    assert criterion.is_conclusive(NATIVE["stft"](padded, 16, **ARGUMENTS))
    assert not criterion.is_conclusive(torch.zeros(0))


def test_candidates_that_are_not_here_or_cannot_are_passed_over_with_reasons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01, "two": 0.01, "three": 0.05})
    world.missing["one"] = "it is not here"
    world.refusals["two"] = "it cannot"
    world.begin(monkeypatch)
    world.calls(20)
    assert set(world.computed) == {"native", "three"}
    assert world.computed[-1] == "three"
    route = deciding.decide(world.op, Choice("auto"), (SIGNAL, 16), ARGUMENTS).route
    assert route.reasons == ("auto: measured faster", "it is not here", "it cannot")
    assert tms.stats().fallbacks == {}


def test_where_none_can_native_computes_and_every_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01, "two": 0.01})
    world.missing["one"] = "it is not here"
    world.refusals["two"] = "it cannot"
    world.begin(monkeypatch)
    world.calls(TRIALS)
    with pytest.raises(tms.NotAccelerated) as refused:
        world.calls(1, Choice("auto", strict=True))
    assert refused.value.reasons == ("it is not here", "it cannot")


def test_other_sizes_are_compared_anew_but_what_was_wrong_is_wrong_at_every_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01})
    world.begin(monkeypatch)
    world.calls(2 * TRIALS)
    world.calls(2 * TRIALS, signal=SIGNAL.repeat(4, 1))
    assert world.compared == 2
    world.errors["one"] = 0.1
    longer = SIGNAL.repeat(16, 1)
    with pytest.warns(RuntimeWarning, match="computed by one"):
        world.calls(TRIALS + 1, signal=longer)
    world.computed.clear()
    world.calls(5)
    assert world.computed == ["native"] * 5


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_calls_that_cannot_be_timed_are_the_first_candidates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.2})
    world.begin(monkeypatch)
    routes = []

    def decide(signal: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            routes.append(deciding.decide(world.op, Choice("auto"), (signal, 16), ARGUMENTS).route)
        return signal

    torch.func.vmap(decide)(SIGNAL.reshape(3, 1, 400))
    assert {(route.backend, route.reasons) for route in routes} == {
        ("one", (deciding.NOT_MEASURED,))
    }
    assert world.store.sections() == {}


def test_nothing_is_timed_where_results_may_not_depend_on_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 9.0})
    world.begin(monkeypatch)
    world.calls(20)  # settled: native is the faster one
    assert world.computed[-1] == "native"
    world.computed.clear()
    torch.use_deterministic_algorithms(True)
    try:
        world.calls(5)
        route = deciding.decide(world.op, Choice("auto"), (SIGNAL, 16), ARGUMENTS).route
    finally:
        torch.use_deterministic_algorithms(False)
    assert world.computed == ["one"] * 5
    assert route.reasons == (deciding.DETERMINISTIC,)
    world.calls(1)
    assert world.computed[-1] == "native"


def test_nothing_is_timed_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_default", routing._Default())
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE", "0")
    world = World({"native": 0.1, "one": 9.0})
    world.begin(monkeypatch)
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 10_000, "istft": 10_000})
    world.calls(5)
    assert world.computed == ["native"] * 5  # 3 x 101 frames of 16 samples
    world.computed.clear()
    longer = SIGNAL.repeat(3, 1)
    world.calls(5, signal=longer)
    assert world.computed == ["one"] * 5
    assert world.compared == 1
    route = deciding.decide(world.op, Choice("auto"), (longer, 16), ARGUMENTS).route
    assert route.reasons == ("auto: nothing may be measured (SPEC_MLX_AUTOTUNE)",)
    assert set(world.store.sections()) == {VERIFIED}


def test_only_what_is_trusted_is_recalled_without_being_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(plans, "keep", lambda key, plan: kept.append(key[0]))
    world = World({"native": 0.1, "cuda": 0.01})
    world.begin(monkeypatch)
    world.calls(2 * TRIALS + 3, signal=SILENT["zeros"])
    assert kept == ["cuda"] * (TRIALS + 3)
    world.calls(2)
    assert world.compared == TRIALS + 4
    assert kept[-4:] == ["auto", "cuda"] * 2


def test_where_the_first_candidate_refuses_the_next_one_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01, "two": 0.02}, refusals={"one": "it is too odd"})
    world.begin(monkeypatch)
    world.calls(3 * MAX_TRIALS)
    assert world.computed[-1] == "two"
    assert "one" not in world.computed
    route = deciding.decide(world.op, Choice("auto"), (SIGNAL, 16), ARGUMENTS).route
    assert route.backend == "two"


@needs_emulator
def test_a_broken_metal_kernel_is_found_at_its_first_use(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: the kernel's text is mutated, auto takes its turn, the program is right."""
    world = World({"native": 0.0})
    world.begin(monkeypatch)  # for a store and a state of its own
    monkeypatch.setattr(registry, "_specs", {"mlx": replace(SPECS["mlx"], in_auto_on_host=True)})
    monkeypatch.setattr(registry, "_loaded", {})
    seen: list[str] = []

    def mutate(text: str) -> str:
        mutated = text.replace(*MUTATION)
        seen.append(text if mutated == text else "")
        return mutated

    x, w = torch.randn(2, 600), torch.hann_window(64)
    arguments: dict[str, Any] = {"hop_length": 16, "window": w, "return_complex": True}
    expected = NATIVE["stft"](x, 64, **arguments)
    machine = emulator.Machine(cache_dir=metal_cache, transform=mutate)
    frame = sys._getframe()
    with machine.installed(), pytest.warns(RuntimeWarning) as told:
        answers = [
            dispatching.dispatch(operations.STFT, Choice("auto"), (x, 64), arguments, frame)
            for _ in range(8)
        ]
    assert seen == [""]  # the text has what is mutated, and was compiled
    assert len(machine.launches) == 1
    assert [warning.category for warning in told] == [RuntimeWarning]
    assert "stft computed by mlx (metal analysis" in str(told[0].message)
    assert all(torch.equal(answer, expected) for answer in answers)


@needs_emulator
def test_on_mps_both_ways_to_metal_are_compared_and_timed(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    World({"native": 0.0}).begin(monkeypatch)  # whose clock stands still: all tie
    # Candidates of the host's tensors, as of MPS tensors.
    specs = {
        "mps": replace(SPECS["mps"], device_types=("cpu",)),
        "mlx": replace(SPECS["mlx"], in_auto_on_host=True),
    }
    monkeypatch.setattr(registry, "_specs", specs)
    monkeypatch.setattr(registry, "_loaded", {})
    x, w = torch.randn(2, 600), torch.hann_window(64)
    arguments: dict[str, Any] = {"hop_length": 16, "window": w, "return_complex": True}
    expected = NATIVE["stft"](x, 64, **arguments)
    call, routes = (operations.STFT, Choice("auto"), (x, 64), arguments), []
    with emulator.Machine(cache_dir=metal_cache).installed():
        for _ in range(3 * MAX_TRIALS + 2):
            routes.append(deciding.decide(*call).route.backend)
            torch.testing.assert_close(dispatching.dispatch(*call, sys._getframe()), expected)
    assert routes[: TRIALS + 1] == ["native"] * TRIALS + ["mps"]
    assert Counter(routes) == {"native": MAX_TRIALS + 2, "mps": MAX_TRIALS, "mlx": MAX_TRIALS}
    assert routes[-2:] == ["native", "native"]
    assert tms.stats().verified == 2
    assert tms.stats().mismatches == 0


PROCESS = """\
import sys, torch, torch_mlx_spectro as tms
x, w = torch.randn(4, 263_000, generator=torch.Generator().manual_seed(0)), torch.hann_window(1024)
with tms.patch():
    for _ in range(int(sys.argv[1])):
        torch.stft(x, 1024, 256, window=w, return_complex=True)
    route = tms.explain(torch.stft, x, 1024, 256, window=w, return_complex=True)
print(route.backend, tms.stats().as_dict()["calls"], tms.stats().verified)
"""


def test_a_second_process_begins_where_the_first_ended(tmp_path: Path) -> None:
    variables = {"SPEC_MLX_AUTOTUNE_CACHE_PATH": str(tmp_path / "verdicts.json")}

    def process(calls: int) -> str:
        ended = python("-W", "error", "-c", PROCESS, str(calls), cwd=tmp_path, variables=variables)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    first = process(2 * MAX_TRIALS + 1)  # as many as may be timed, if times are in doubt
    winner = first.partition(" ")[0]
    assert first.endswith(" 1")
    assert winner in ("native", "cpu")
    assert process(1) == f"{winner} {{'stft/{winner}': 1}} 0"


def test_agreeing_comparisons_of_shadow_mode_vouch_for_auto(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World({"native": 0.1, "one": 0.01})
    world.begin(monkeypatch)
    world.calls(1, Choice("one", verify=1))
    assert world.compared == 1
    world.calls(20)
    assert world.compared == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        world.calls(1)
