"""torch.compile of what stands between the matrix products of a layer, kept only where it works and, if asked, pays.

Compiled are the linear layers after attention and of the feed-forward part with their activation, addition and norm,
the same code for every layer. Attention is left out: it takes the lengths of the packed row as Python numbers, so that
each batch would be compiled anew. Sizes are dynamic, because no two packed rows have the same number of tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from m3tune.config import TrainConfig
from m3tune.memory import clear_cache
from m3tune.model.encoder import Encoder
from m3tune.training.costs import probe, typical
from m3tune.training.objective import Objective
from m3tune.training.plan import Plan

_PARTS = ("intermediate", "output")  # of a layer and, the second, of its attention, in BERT and its children
_BACKEND = "inductor"
_WORTH_TRYING_S = 600.0  # compiling takes a minute or two
_WORTHWHILE_SPEEDUP = 1.05
_PROBES, _PROBE_TOKENS = 3, 2048


@contextlib.contextmanager
def compiled(
    encoder: Encoder, texts: Sequence[np.ndarray], plan: Plan, config: TrainConfig, dtype: torch.dtype
) -> Iterator[str | None]:
    """The encoder compiled as `train.compile` says, and again as it was at the end; yields what to say of it, if any.

    texts: of a batch. Results are the same to rounding. "auto" keeps it where passes over some of them are faster, and
    does not try for a training of less than ten minutes. Where it fails, the training goes on without it, under "on"
    too.
    """
    some = typical(texts, min(_PROBE_TOKENS, plan.budget.tokens))
    heads = Objective.of(config).heads(encoder.settings.heads)
    parts = [part for name, part in encoder.backbone.named_modules() if name.rsplit(".", 1)[-1] in _PARTS]

    def seconds(passes: int) -> float:
        return min(probe(encoder, some, heads, dtype).seconds for _ in range(passes))

    try:
        yield None if config.compile == "off" else _compile(parts, seconds, config.compile == "auto", plan.total_s)
    finally:
        _undo(parts)


def _compile(parts: Sequence[nn.Module], seconds: Callable[[int], float], measured: bool, total_s: float) -> str:
    """Compile the parts in place; undone where that fails or, if `measured`, is not faster. Says which and why."""
    if not parts:
        return "compile: off, for no layer of this encoder is known to compile"
    if measured and total_s < _WORTH_TRYING_S:
        return f"compile: off, for a training of about {total_s:.0f} s is over before it would pay"
    before = seconds(_PROBES) if measured else 0.0
    try:
        for part in parts:
            part.compile(backend=_BACKEND, dynamic=True)
        seconds(1)  # compiles
        after = seconds(_PROBES) if measured else 0.0
    except Exception as error:  # whatever the compiler or the C++ compiler behind it raises
        _undo(parts)
        inner = getattr(error, "inner_exception", error)  # torch's own only says which backend it was
        reason = str(inner).strip().split("\n", 1)[0]
        return f"compile: off, for it fails here ({type(inner).__name__}: {reason})"
    if measured and before < _WORTHWHILE_SPEEDUP * after:
        _undo(parts)
        return f"compile: off, for it does not pay here ({before / after:.2f} times as fast)"
    return "compile: on" + (f", {before / after:.2f} times as fast" if measured else "")


def _undo(parts: Sequence[nn.Module]) -> None:
    for part in parts:
        part._compiled_call_impl = None  # what `Module.compile` sets, and nothing public takes back
    clear_cache()
