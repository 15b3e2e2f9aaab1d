"""Seeded random calls: values drawn together that no grid would have put side by side."""

from __future__ import annotations

import random

from stft_parity.cases import Case
from stft_parity.cases.choices import VALUES, Choice, complete_choice
from stft_parity.cases.grid import background
from stft_parity.cases.making import make_call
from stft_parity.cases.uses import USES

#: How many calls there are unless told otherwise, of both functions together.
DRAWS = 5000
#: One drawn call in so many carries a fault.
FAULTY = 6
#: One in so many is used otherwise than plainly.
USED = 10
#: Sizes are drawn up to this one.
LARGEST = 300


def draws(seed: int, number: int = DRAWS) -> tuple[Case, ...]:
    """So many distinct cases; the same ones for the same seed."""
    # Uses have a generator of their own: most calls are what they were before there were any.
    generator, for_uses = random.Random(seed), random.Random(f"uses {seed}")
    found: dict[Case, None] = {}
    while len(found) < number:
        use = for_uses.choice(tuple(USES)[1:]) if for_uses.randrange(USED) == 0 else "plain"
        case = draw_call(generator, generator.choice(tuple(VALUES)), use)
        if case is not None:
            found[case] = None
    return tuple(found)


def draw_call(generator: random.Random, op: str, use: str = "plain") -> Case | None:
    """One drawn call; None where the values do not go together."""
    forced: Choice = {"n_fft": str(generator.randint(1, LARGEST)), "use": use}
    # Small sizes have more borders for their number of samples: half of the draws.
    if generator.random() < 0.5:
        forced["n_fft"] = str(generator.randint(1, 24))
    n_fft = int(forced["n_fft"])
    around = background(op, generator)
    around["signal"] = generator.choice(VALUES[op]["signal"])
    around["hop"] = str(generator.randint(1, n_fft if op == "stft" else max(1, n_fft // 2)))
    if generator.random() < 0.3:
        around["win_length"] = str(generator.randint(1, n_fft))
    if generator.randrange(FAULTY) == 0:
        forced["fault"] = generator.choice(VALUES[op]["fault"][1:])
    return make_call(op, complete_choice(op, around, forced))
