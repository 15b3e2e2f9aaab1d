"""Does an STFT do what ``torch.stft`` and ``torch.istft`` do, case by case, in every respect?

    import stft_parity as parity

    report = parity.run(stft=my.stft, istft=my.istft, cases="grid")
    assert report.ok, report.failures

Import this package before anything that replaces torch's functions: they are what is right.
"""

from stft_parity.adapting import adapter
from stft_parity.candidates import (
    Candidate,
    FellBack,
    Unsupported,
    bound,
    from_mlx,
    from_numpy,
    load,
    native,
    with_arguments,
)
from stft_parity.cases import Case
from stft_parity.known import Known, Misstated
from stft_parity.minimise import minimise
from stft_parity.results import ASPECTS, VERDICTS, Difference, Report, Result
from stft_parity.running import SELECTIONS, Judge, run, select

__all__ = [
    "ASPECTS",
    "SELECTIONS",
    "VERDICTS",
    "Candidate",
    "Case",
    "Difference",
    "FellBack",
    "Judge",
    "Known",
    "Misstated",
    "Report",
    "Result",
    "Unsupported",
    "adapter",
    "bound",
    "from_mlx",
    "from_numpy",
    "load",
    "minimise",
    "native",
    "run",
    "select",
    "with_arguments",
]
