"""How much of a separation model's time stft and istft take, before and after ``patch``.

The models are audio-separator's own classes, with random weights, since a transform's time does not
depend on weights. In one pass the calls of torch.stft and torch.istft are timed, with the device
idle before and after each. Other passes time the whole, without that.
"""

from __future__ import annotations

import importlib.util
import logging
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

import torch_mlx_spectro as tms

from .measuring import Clock, Side, make_clock, summarise, take_turns
from .running import AUTO, NATIVE, choose_backend

SCHEMA, VERSION = "torch-mlx-spectro-pipeline", 1
RATE = 44_100
#: Runs of a model after which ``auto`` has decided, unless its times are in doubt. Then the report
#: names several backends that computed.
AUTO_RUNS = 12
INSTALL = (
    "pip install -r tests/pipelines/requirements.txt",
    "pip install --no-deps -r tests/pipelines/requirements-no-deps.txt",
)
#: The packages that the models' modules import, by the names of imports.
NEEDED = (
    "audio_separator",
    "beartype",
    "einops",
    "julius",
    "ml_collections",
    "rotary_embedding_torch",
)

Model = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class Component:
    """A model of audio-separator.

    Attributes:
        name: the architecture's name.
        samples: samples of a segment.
        build: makes the model on a device.
    """

    name: str
    samples: int
    build: Callable[[str], Model]


def list_missing() -> list[str]:
    """List what has to be installed first, by the names of imports."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def list_components(small: bool) -> tuple[Component, ...]:
    """List the models, with published or with small sizes.

    Args:
        small: take the sizes with which tests/pipelines shows that results are the same.
    """
    roformer: dict[str, Any] = {
        "stereo": True,
        "time_transformer_depth": 1,
        "freq_transformer_depth": 1,
        "stft_n_fft": 2048,
        "stft_hop_length": 441,
        "stft_win_length": 2048,
    }
    tiny = {"dim": 16, "depth": 1, "dim_head": 8, "heads": 2, "mlp_expansion_factor": 1}
    bs = roformer | (tiny if small else {"dim": 512, "depth": 12})
    mel = roformer | {"num_bands": 60} | (tiny if small else {"dim": 384, "depth": 6})
    htdemucs = {"channels": 8, "t_layers": 1, "t_heads": 2} if small else {"bottom_channels": 512}
    hdemucs = {"channels": 4, "dconv_lstm": 6, "dconv_attn": 6} if small else {}
    segment = 43 * 1024 if small else 8 * RATE
    demucs = RATE if small else int(7.8 * RATE)
    return (
        Component("MDX-Net, transforms only", 1024 * (63 if small else 255), _mdx),
        Component("MDX23C", 1024 * (31 if small else 255), partial(_mdx23c, small)),
        Component("HTDemucs", demucs, partial(_demucs, "HTDemucs", samples=demucs, more=htdemucs)),
        Component("HDemucs", segment, partial(_demucs, "HDemucs", samples=segment, more=hdemucs)),
        Component(
            "BS-RoFormer", segment, partial(_roformer, "bs_roformer", "BSRoformer", sizes=bs)
        ),
        Component(
            "Mel-Band RoFormer",
            segment,
            partial(_roformer, "mel_band_roformer", "MelBandRoformer", sizes=mel),
        ),
    )


def _find_class(module: str, name: str) -> Any:
    """Find one of audio-separator's classes."""
    return pkgutil.resolve_name(f"audio_separator.separator.uvr_lib_v5.{module}:{name}")


def _move(module: Any, device: str) -> Model:
    """Move a model to a device, for inference."""
    return cast(Model, module.eval().to(device))


def _mdx(device: str) -> Model:
    logger = logging.getLogger(__name__)
    transform = _find_class("stft", "STFT")(logger, 6144, 1024, 3072, torch.device(device))
    return lambda mix: transform.inverse(transform(mix))


def _mdx23c(small: bool, device: str) -> Model:
    sizes = (
        {"num_scales": 2, "num_blocks_per_scale": 1, "num_channels": 8, "growth": 4}
        if small
        else {"num_scales": 5, "num_blocks_per_scale": 2, "num_channels": 128, "growth": 128}
    )
    config = {
        "audio": {"n_fft": 8192, "hop_length": 1024, "dim_f": 4096, "num_channels": 2},
        "model": sizes
        | {"act": "gelu", "norm": "InstanceNorm", "num_subbands": 4, "scale": [2, 2]}
        | {"bottleneck_factor": 4},
        "training": {"instruments": ["vocals", "other"], "target_instrument": None},
        "inference": {"dim_t": 256},
    }
    as_attributes = pkgutil.resolve_name("ml_collections:ConfigDict")
    made = _find_class("tfc_tdf_v3", "TFC_TDF_net")(as_attributes(config), torch.device(device))
    return _move(made, device)


def _demucs(name: str, device: str, samples: int, more: dict[str, Any]) -> Model:
    made = _find_class(f"demucs.{name.lower()}", name)
    sources = ["drums", "bass", "other", "vocals"]
    return _move(made(sources, segment=samples / RATE, **more), device)


def _roformer(module: str, name: str, device: str, sizes: dict[str, Any]) -> Model:
    return _move(_find_class(f"roformer.{module}", name)(**sizes), device)


@contextmanager
def record_calls(clock: Clock) -> Iterator[dict[str, list[float]]]:
    """Record the seconds of every call of torch.stft and torch.istft, whoever computes them."""
    taken: dict[str, list[float]] = {"stft": [], "istft": []}

    def call(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        seconds, result = clock.time(partial(function, *args, **kwargs))
        taken[name].append(seconds)
        return result

    with ExitStack() as stack:
        for name in taken:
            function = getattr(torch, name)
            stack.callback(setattr, torch, name, function)
            setattr(torch, name, partial(call, name, function))
        yield taken


def measure_component(
    component: Component,
    device: str,
    backends: Sequence[str],
    rounds: int,
    clock: Clock | None = None,
) -> list[dict[str, Any]]:
    """Time one model, natively and under ``patch`` of each backend, in turn.

    Args:
        component: the model.
        device: where it runs.
        backends: timed beside native; all but ``auto`` are strict.
        rounds: timed runs of each.
        clock: the clock; the device's own by default.
    """
    clock = clock or make_clock(device)
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn((1, 2, component.samples), generator=generator).mul_(0.1).to(device)
    with warnings.catch_warnings(), torch.random.fork_rng():
        # The models themselves make deprecated calls; tests/pipelines lists them.
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = component.build(device)

        @torch.no_grad()  # as audio-separator does
        def run(number: int) -> object:
            return model(mix)

        sides = [Side(name, choose_backend(name, tms.patch), run) for name in (NATIVE, *backends)]
        split, routes = {}, {}
        for side in sides:
            with side.context():
                for number in range(AUTO_RUNS if side.name == AUTO else 1):
                    run(number)
                tms.reset_stats()
                with record_calls(clock) as taken:
                    split[side.name] = clock.time(partial(run, 0))[0], taken
                routes[side.name] = sorted({name for _, name in tms.stats().calls}) or [NATIVE]
        seconds = take_turns(sides, clock, rounds, batch=1, settle=False)
    return [
        _describe_parts(component.name, name, seconds, split[name], routes[name])
        for name in seconds
    ]


def _describe_parts(
    model: str,
    backend: str,
    seconds: dict[str, list[float]],
    split: tuple[float, dict[str, list[float]]],
    routes: list[str],
) -> dict[str, Any]:
    """Describe one model by one backend, as reports have it.

    Returns:
        ``seconds``: those of the whole. ``timed``: those of the pass in which calls were timed;
        ``stft`` and ``istft``: those of all calls of each in it; ``share``: their part of it.
        ``ratio``: native's whole over this one's, taken in turns; None for native itself.
    """
    whole, taken = split
    stft, istft = sum(taken["stft"]), sum(taken["istft"])
    paired = [a / b for a, b in zip(seconds[NATIVE], seconds[backend], strict=True)]
    return {
        "model": model,
        "backend": backend,
        "seconds": summarise(seconds[backend]),
        "timed": whole,
        "stft": stft,
        "istft": istft,
        "calls": sum(map(len, taken.values())),
        "share": (stft + istft) / whole,
        "ratio": None if backend == NATIVE else summarise(paired)["median"],
        "computed_by": routes,
    }
