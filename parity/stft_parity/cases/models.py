"""The calls that programs make: settings of separators, recognisers, vocoders and libraries.

Sizes, windows, padding and what is passed are the programs'; the lengths are short, as nothing in
a transform depends on the length beyond the first few frames.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

from stft_parity.cases import PARAMETERS, Case, signals
from stft_parity.cases.making import hop_label

#: Signals that each model is given.
HEARD = ("noise", "sine between bins", "full-scale square", "silence", "impulse")
#: Lengths in frames, and samples beyond a whole number of hops: (hops, part of a hop).
LENGTHS = ((6, 0.0), (9, 0.4))


@dataclass(frozen=True)
class Model:
    """How a program calls both transforms.

    Attributes:
        name: of the program.
        n_fft, hop: of its frames.
        window: expression of its window.
        win_length: None where it is not passed.
        stft: further arguments of ``torch.stft``, as expressions.
        istft: further arguments of ``torch.istft``; None for a program that only analyses.
        rows: of its batches; 0 for signals without one.
        padded: expression of the signal that is passed, of ``{x}``: what the program pads itself.
        gradient: whether it trains through the transform.
        cut: expression of the spectrum that is passed to istft, of ``{x}``.
    """

    name: str
    n_fft: int
    hop: int
    window: str
    win_length: int | None = None
    stft: dict[str, str] = field(default_factory=dict)
    istft: dict[str, str] | None = field(default_factory=dict)
    rows: tuple[int, ...] = (2,)
    padded: str = "{x}"
    gradient: bool = False
    cut: str = "{x}"


def _hann(length: int) -> str:
    return f"torch.hann_window({length})"


def _vocoder(name: str, n_fft: int, hop: int) -> Model:
    """HiFi-GAN and its kin pad by themselves, so that frames are aligned to hops."""
    pad = (n_fft - hop) // 2
    return Model(
        name, n_fft, hop, _hann(n_fft), n_fft,
        {"center": "False", "pad_mode": "'reflect'", "normalized": "False", "onesided": "True"},
        None, (1, 2),
        f"torch.nn.functional.pad({{x}}.unsqueeze(1), ({pad}, {pad}), mode='reflect').squeeze(1)",
        gradient=True,
    )  # fmt: skip


def _loss(n_fft: int, hop: int, win_length: int, rows: tuple[int, ...] = (2,)) -> Model:
    """One resolution of the multi-resolution losses of Parallel WaveGAN, auraloss and others."""
    return Model(
        f"STFT loss {n_fft}", n_fft, hop, _hann(win_length), win_length, {}, None, rows,
        gradient=True,
    )  # fmt: skip


_CENTRED = {"center": "True"}
_PLAIN = {"center": "True", "normalized": "False"}

MODELS = (
    Model("MDX 6144", 6144, 1024, _hann(6144), None, _CENTRED, _CENTRED, rows=(4,)),
    Model("MDX 7680", 7680, 1024, _hann(7680), None, _CENTRED, _CENTRED, rows=(4,)),
    Model("MDX23C", 8192, 1024, _hann(8192), None, _CENTRED, _CENTRED),
    Model("VR band 1", 320, 160, _hann(320)),
    Model("VR band 2", 512, 128, _hann(512)),
    Model("VR band 3", 640, 160, _hann(640)),
    Model("VR band 4", 960, 480, _hann(960)),
    Model(
        "Demucs", 4096, 1024, _hann(4096), 4096,
        {"normalized": "True", "center": "True", "pad_mode": "'reflect'"},
        {"normalized": "True", "center": "True", "length": "{samples}"},
        # Its own padding first, in whole hops; frames are dropped and put back around the net.
        padded="torch.nn.functional.pad({x}, (1536, 1536), mode='reflect')",
        cut="torch.nn.functional.pad({x}, (2, 2))",
    ),
    Model(
        "BS-Roformer", 2048, 512, _hann(2048), 2048, {"normalized": "False"},
        {"normalized": "False", "length": "{samples}"},
    ),
    Model(
        "Mel-Band Roformer", 2048, 441, _hann(2048), 2048, {"normalized": "False"},
        {"normalized": "False", "length": "{samples}"}, gradient=True,
    ),
    Model("Open-Unmix", 4096, 1024, _hann(4096), None, _PLAIN, {**_PLAIN, "length": "{samples}"}),
    Model("Spleeter", 4096, 1024, _hann(4096), 4096, {"pad_mode": "'constant'"}),
    Model("Whisper", 400, 160, _hann(400), None, {}, None, rows=(0, 2)),
    Model(
        "Kaldi", 512, 160, "torch.hann_window(400, periodic=False) ** 0.85", 400,
        {"center": "False", "normalized": "False", "onesided": "True"}, None,
    ),
    Model("NeMo", 512, 160, "torch.hann_window(400, periodic=False)", 400, _CENTRED, None),
    Model("SpeechBrain", 400, 160, "torch.hamming_window(400)", 400, {"pad_mode": "'constant'"}),
    Model("librosa", 2048, 512, _hann(2048), None, {"pad_mode": "'constant'"}, {}, rows=(0, 2)),
    Model("torchaudio", 400, 200, _hann(400), 400, {"normalized": "False"}, {}, rows=(1, 2)),
    Model("ESPnet", 512, 128, _hann(512), 512, {"onesided": "True"}, {"onesided": "True"}),
    Model("DeepFilterNet", 960, 480, f"torch.sqrt({_hann(960)})", None, {"normalized": "True"},
          {"normalized": "True"}),
    Model("Vocos", 1024, 256, _hann(1024), 1024, _CENTRED, _CENTRED, gradient=True),
    _vocoder("HiFi-GAN, VITS", 1024, 256),
    _vocoder("BigVGAN 44 kHz", 2048, 512),
    # A batch of training: more rows than a grid or a block is likely to be made for.
    _loss(512, 50, 240, rows=(2, 33)),
    _loss(1024, 120, 600),
    _loss(2048, 240, 1200),
)  # fmt: skip


def models() -> tuple[Case, ...]:
    """What every model calls, over a few signals and lengths."""
    cases = (case for model in MODELS for case in _of_model(model))
    return tuple(dict.fromkeys(cases))


def _of_model(model: Model) -> Iterable[Case]:
    for heard, rows, (hops, part) in product(HEARD, model.rows, LENGTHS):
        samples = max(hops * model.hop, model.n_fft) + int(part * model.hop)
        gradients: tuple[str, ...] = ("none", "both") if model.gradient else ("none",)
        for gradient in gradients:
            yield _analysis(model, heard, rows, samples, gradient)
            if model.istft is not None:
                yield _synthesis(model, heard, rows, samples, gradient)


def _analysis(model: Model, heard: str, rows: int, samples: int, gradient: str) -> Case:
    shape = (rows, samples) if rows else (samples,)
    tensor = signals.content(heard, shape, "float32", model.n_fft)
    more = {**model.stft, "return_complex": "True"}
    return _case(model, "stft", model.padded.format(x=tensor), more, heard, rows, gradient)


def _synthesis(model: Model, heard: str, rows: int, samples: int, gradient: str) -> Case:
    name = {"sine between bins": "of a sine", "full-scale square": "of a square"}.get(heard, heard)
    name = "one bin" if name == "impulse" else name
    bins, frames = model.n_fft // 2 + 1, 1 + samples // model.hop
    shape = (rows, bins, frames) if rows else (bins, frames)
    tensor = signals.spectrum(name, "native", shape, "complex64", model.n_fft)
    tensor = model.cut.format(x=tensor)
    more = {key: value.format(samples=samples) for key, value in (model.istft or {}).items()}
    return _case(model, "istft", tensor, more, name, rows, gradient)


def _case(
    model: Model,
    op: str,
    tensor: str,
    more: dict[str, str],
    signal: str,
    rows: int,
    gradient: str,
) -> Case:
    passed = {"input": "x", "n_fft": str(model.n_fft), "hop_length": str(model.hop)}
    if model.win_length is not None:
        passed["win_length"] = str(model.win_length)
    passed |= {"window": "w", **more}
    given = tuple((name, passed[name]) for name in ("input", *PARAMETERS[op]) if name in passed)
    labels = {
        "op": op,
        "model": model.name,
        "n_fft": str(model.n_fft),
        "hop": hop_label(model.hop, model.n_fft),
        "center": more.get("center", "default"),
        "pad_mode": more.get("pad_mode", "default").strip("'"),
        "normalized": more.get("normalized", "default"),
        "rows": str(rows) if rows else "no batch",
        "signal": signal,
        "gradient": gradient,
    }
    return Case(
        op,
        tensor,
        model.window,
        given,
        seed=zlib.crc32(repr((tensor, given)).encode()),
        differentiate=("x", "w") if gradient == "both" else (),
        labels=tuple(labels.items()),
    )
