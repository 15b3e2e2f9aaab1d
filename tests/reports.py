"""Reports made up for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from small_calls import istft_case, stft_case

from stft_parity import Case, Difference, Report, Result

#: What XML forbids, HTML would take for markup, and rich for its own.
AWKWARD = "wrong </td><script>alert(1)</script> [bold]& \"so\"\x00\x1b[31m ]]> 'on' ü"


def case(op: str = "stft", seed: int = 0, **labels: str) -> Case:
    """A small call with the given labels; an underscore stands for a space."""
    made = stft_case() if op == "stft" else istft_case()
    named = {"op": op, **{name.replace("_layout", " layout"): v for name, v in labels.items()}}
    return replace(made, seed=seed, labels=tuple(named.items()))


def result(
    verdict: str = "pass",
    op: str = "stft",
    *,
    seed: int = 0,
    diagnosis: str = "the spectrum is conjugated",
    aspects: Sequence[str] = ("values",),
    reason: str = "",
    error: float | None = 1.0,
    route: str = "",
    **labels: str,
) -> Result:
    """A result; one that did not pass has a difference in each aspect."""
    differences = tuple(
        Difference(aspect, diagnosis, f"expected {aspect}", f"actual {aspect}")
        for aspect in (aspects if verdict not in ("pass", "unsupported") else ())
    )
    made = case(op, seed, **labels)
    return Result(made, verdict, True, differences, reason, error, route)


def report(*results: Result, problems: tuple[str, ...] = ()) -> Report:
    """A report of these results."""
    return Report(
        candidate="package.module:stft",
        reference="torch",
        device="cpu",
        selection="quick",
        seed=7,
        results=results,
        seconds=2.5,
        versions={"torch": "2.13.0", "numpy": "2.4"},
        machine="Linux x86_64, CPU",
        problems=problems,
    )


def mixed() -> Report:
    """Every verdict, both functions, two causes, and sizes of several octaves."""
    found = [
        result(n_fft=str(n), pad_mode=mode, op=op, seed=n + m, error=0.5 + n / 500, route="blocks")
        for op in ("stft", "istft")
        for n in (1, 4, 16, 100, 512)
        for m, mode in enumerate(("reflect", "constant"))
    ]
    found += [
        result(
            "differs", n_fft=str(n), pad_mode="replicate", seed=1000 + 10 * n + m, error=10.0**n,
            diagnosis=AWKWARD, aspects=("values", "gradient of input"),
        )
        for n in (4, 5)
        for m in (0, 1)
    ]  # fmt: skip
    found += [
        result("raised", "istft", n_fft="16", pad_mode="reflect", aspects=["exception"], seed=2001,
               diagnosis="the candidate rejects what the reference accepts", error=None),
        result("fell back", n_fft="64", pad_mode="constant", aspects=["route"], seed=2002,
               error=1.2, diagnosis="dtype torch.float64 is not accelerated", reason="dtype"),
        result("known", n_fft="64", pad_mode="constant", aspects=["strides"], seed=2003,
               reason="contiguous is enough"),
        result("unsupported", n_fft="64", pad_mode="circular", seed=2004, error=None,
               reason="pad_mode='circular'"),
    ]  # fmt: skip
    return report(*found, problems=("known difference x: no values differs any more",))


def well() -> Report:
    """Nothing differs."""
    return report(*(result(n_fft=str(n), rows=str(n % 3), seed=n) for n in range(1, 60)))
