"""Rules about the curves of training: learning rate, warm-up, length, and numbers that are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from m3tune.diagnose.doctor.case import Case, curve
from m3tune.diagnose.wording import found
from m3tune.types import Finding

_SPREAD = 0.3  # standard deviation over queries of a metric's difference, as for few-queries
_FEWEST_LINES = 5
_ROSE = 1.1  # the last fifth of the loss over the first line; batches differ by some percent
_WAVERS = 0.05  # and of the loss at chance, by how much: a loss near zero doubles easily
_FAR, _NEAR, _HARDLY = 0.05, 0.01, 1e-3  # change of the weights over their size
_SAME, _ESTRANGED = 0.999, 0.7  # cosine of a query's vector before and after; 0.93 in a healthy run of SciFact
_AT_CHANCE = 0.9  # the loss over that of a model that cannot tell the passages of a batch apart
_SPIKE = 1.3  # the highest loss, of the first fifth or of all, over the first line
_SHORT_WARMUP = 0.05
_GAIN = 0.01  # of the development metric; less is no reason to train on
_STILL_RISING = 0.2  # share of the whole gain that the last of four intervals brought
_HALF = 0.5
_LARGEST_FLOAT16 = 65_504


def not_finite(case: Case) -> Iterator[Finding]:
    """Figures of the log that are no numbers, or too large for float16."""
    config = case.recipe.train
    bad = [(line, name) for line in case.log for name, value in line.items() if _is_bad(value)]
    if config.precision == "float16":
        largest = _LARGEST_FLOAT16 * config.temperature
        scores = [(line, name) for line in case.log for name in line if name.startswith("score_")]
        bad += [(line, name) for line, name in scores if abs(line[name]) > largest]
    if bad:
        line, name = bad[0]
        yield found(
            "not-finite",
            "error",
            f"train, step {line.get('step', 0)}",
            f"{name} is {line[name]:g} at {config.precision}: the numbers left the range of the format "
            f"({len(bad):,} such figures in the log)",
            case.again(
                "train.precision=float32"
                if config.precision != "float32"
                else f"train.learning_rate={_rate(case, 0.1):.1e}"
            ),
            count=len(bad),
            step=line.get("step", 0),
            figure=name,
        )


def high_learning_rate(case: Case) -> Iterator[Finding]:
    """What was known is destroyed: the loss rises, or the first evaluations lie well below the base for good."""
    loss, dev = curve(case.log, "loss"), _dev(case)
    signs = []
    estranged = _forgot(case) or _estranged(case, loss)
    if estranged:
        signs.append(estranged)
    if len(loss) >= _FEWEST_LINES:
        last, still = _last_fifth(loss), case.moved is not None and case.moved.weights < _NEAR
        if last > _ROSE * loss[0, 1] and last - loss[0, 1] > _WAVERS * _chance_loss(case) and not still:
            signs.append(f"the loss began at {loss[0, 1]:.2f} and ended at {last:.2f}")
        elif last >= _AT_CHANCE * _chance_loss(case) and case.moved is not None and case.moved.weights > _FAR:
            signs.append(f"the loss ended at {last:.2f}, where passages are told apart no better than by chance")
    base = case.selection.get("base")
    if base is not None and len(dev) and len(case.split.dev):
        noise = 2 * _SPREAD / np.sqrt(len(case.split.dev))
        if dev[0, 1] < base - noise and dev[:, 1].max() < base:
            signs.append(f"dev {case.metric} fell from {base:.3f} to {dev[0, 1]:.3f} at the first evaluation")
    if not signs:
        return
    if case.moved is not None:
        signs.append(f"the weights moved by {case.moved.weights:.1%} of their size")
    yield found(
        "high-learning-rate",
        "error" if estranged or (len(loss) and case.moved is not None and case.moved.weights > _FAR) else "warning",
        "train.learning_rate",
        f"{'; '.join(signs)}, at a peak rate of {_rate(case, 1):.1e}",
        case.again(f"train.learning_rate={_rate(case, 0.1):.1e}"),
        count=len(dev),
        peak=_rate(case, 1),
        weights_moved=None if case.moved is None else round(case.moved.weights, 5),
    )


def _forgot(case: Case) -> str:
    """Whatever was better was not delivered for what it had forgotten, and queries ended elsewhere; else empty."""
    if case.selection.get("why_base") != "forgets" or case.moved is None or case.moved.cosine >= _ESTRANGED:
        return ""
    return (
        "whatever was better on development data had lost too much of what the base could do, and a query's vector has "
        f"a cosine of {case.moved.cosine:.2f} with what it was"
    )


def _estranged(case: Case, loss: np.ndarray) -> str:
    """A loss that rises before it falls, and queries that ended elsewhere for no gain; empty where it is not so.

    What the last steps, at small rates, bring back of a loss says nothing of what was lost.
    """
    if len(loss) < _FEWEST_LINES or case.moved is None or case.moved.cosine >= _ESTRANGED:
        return ""
    highest = float(loss[:, 1].max())
    rose = highest > _SPIKE * loss[0, 1] and highest - loss[0, 1] > _WAVERS * _chance_loss(case)
    if not rose or case.verdict.get("verdict") == "better":
        return ""
    return (
        f"the loss rose from {loss[0, 1]:.2f} to {highest:.2f} before it fell, and a query's vector has a cosine of "
        f"{case.moved.cosine:.2f} with what it was"
    )


def short_warmup(case: Case) -> Iterator[Finding]:
    """The loss jumps in the first steps, with next to no warm-up, and comes down again."""
    loss, config = curve(case.log, "loss"), case.recipe.train
    if len(loss) < 2 * _FEWEST_LINES or config.warmup >= _SHORT_WARMUP:
        return
    first = max(2, len(loss) // 5)
    peak = float(loss[1:first, 1].max()) if first > 1 else 0.0
    if peak > _SPIKE * loss[0, 1] and _last_fifth(loss) <= loss[0, 1]:
        norms = curve(case.log, "grad_norm")
        spike = f", its gradient up to {norms[:first, 1].max():.1f}" if len(norms) else ""
        yield found(
            "short-warmup",
            case.hint,
            "train.warmup",
            f"the loss jumped from {loss[0, 1]:.2f} to {peak:.2f} within the first fifth of the steps{spike}, with a "
            f"warm-up over {config.warmup:.0%} of them",
            case.again("train.warmup=0.1"),
            count=first,
            peak_loss=round(peak, 4),
            warmup=config.warmup,
        )


def low_learning_rate(case: Case) -> Iterator[Finding]:
    """Weights that hardly moved and a loss that hardly fell."""
    loss = curve(case.log, "loss")
    if case.moved is None or case.verdict.get("verdict") == "better" or not len(loss):
        return
    if case.moved.weights < _HARDLY and case.moved.cosine > _SAME:
        yield found(
            "low-learning-rate",
            "warning",
            "train.learning_rate",
            f"the weights moved by {case.moved.weights:.2%} of their size (cosine of a query before and after: "
            f"{case.moved.cosine:.4f}), and the loss went from {loss[0, 1]:.3f} to {_last_fifth(loss):.3f}",
            case.again("train.learning_rate=auto"),
            count=int(loss[-1, 0]),
            weights_moved=case.moved.weights,
            cosine=round(case.moved.cosine, 6),
        )


def few_steps(case: Case) -> Iterator[Finding]:
    """The development metric still rises at the end."""
    dev, base = _dev(case), case.selection.get("base")
    if base is None or len(dev) < 3:
        return
    last, whole = dev[-1, 1] - dev[-2, 1], dev[-1, 1] - base
    if whole > 0 and dev[-1, 1] == dev[:, 1].max() and last >= max(_GAIN, _STILL_RISING * whole):
        yield found(
            "few-steps",
            case.hint,
            "train.epochs",
            f"the last {int(dev[-1, 0] - dev[-2, 0])} of {int(dev[-1, 0])} steps still raised dev {case.metric} by "
            f"{last:.3f}, to {dev[-1, 1]:.3f}",
            case.again(_length(case, 2)),
            count=int(dev[-1, 0]),
            last_gain=round(float(last), 5),
        )


def many_epochs(case: Case) -> Iterator[Finding]:
    """The development metric peaks in the first half and falls from there, after a gain."""
    dev, base = _dev(case), case.selection.get("base")
    if base is None or len(dev) < 3:
        return
    best = int(dev[:, 1].argmax())
    fell, noise = dev[best, 1] - dev[-1, 1], _SPREAD / np.sqrt(max(1, len(case.split.dev)))
    if dev[best, 1] > base and dev[best, 0] <= _HALF * dev[-1, 0] and fell > max(_GAIN, noise):
        yield found(
            "many-epochs",
            case.hint,
            "train.epochs",
            f"dev {case.metric} peaked at step {int(dev[best, 0])} of {int(dev[-1, 0])} with {dev[best, 1]:.3f} and "
            f"fell to {dev[-1, 1]:.3f}",
            case.again(_length(case, dev[best, 0] / dev[-1, 0]), "train.patience=2"),
            count=int(dev[-1, 0] - dev[best, 0]),
            best_step=int(dev[best, 0]),
            fell=round(float(fell), 5),
        )


def overfitting(case: Case) -> Iterator[Finding]:
    """The loss fell by half and the development metric never rose."""
    loss, dev, base = curve(case.log, "loss"), _dev(case), case.selection.get("base")
    if base is None or len(loss) < _FEWEST_LINES or not len(dev):
        return
    if _last_fifth(loss) < _HALF * loss[0, 1] and dev[:, 1].max() <= base:
        yield found(
            "overfitting",
            "warning",
            "train",
            f"the loss fell from {loss[0, 1]:.2f} to {_last_fifth(loss):.2f}, dev {case.metric} never rose above the "
            f"base's {base:.3f} (best {dev[:, 1].max():.3f})",
            "what is learned does not carry over: see the findings above first; else fewer passes over more queries: "
            + case.again("train.epochs=1", f"train.learning_rate={_rate(case, 0.5):.1e}"),
            count=len(dev),
            best_dev=round(float(dev[:, 1].max()), 5),
        )


def _chance_loss(case: Case) -> float:
    """The loss where all passages of a batch score the same: the log of how many a query is set against."""
    config = case.recipe.train
    hard = config.negatives_per_query if case.collection.negatives else 0
    queries = min(config.batch_queries, max(1, len(case.split.train))) if config.in_batch_negatives else 1
    return float(np.log(queries * (1 + hard)))


def _dev(case: Case) -> np.ndarray:
    return curve(case.log, f"eval_{case.metric}")


def _last_fifth(values: np.ndarray) -> float:
    """The mean of the last fifth of a curve, at least one line."""
    return float(values[-max(1, len(values) // 5) :, 1].mean())


def _rate(case: Case, factor: float) -> float:
    """The recipe's peak learning rate, or where that is automatic the highest in the log, times a factor."""
    wanted, rates = case.recipe.train.learning_rate, curve(case.log, "learning_rate")
    if wanted == "auto":
        return factor * float(rates[:, 1].max()) if len(rates) else 0.0
    return factor * wanted


def _length(case: Case, factor: float) -> str:
    """The setting that makes training so many times as long."""
    config = case.recipe.train
    if config.max_steps is not None:
        return f"train.max_steps={max(1, round(factor * config.max_steps))}"
    passes = curve(case.log, "epoch")[-1, 1] if config.epochs == "auto" else config.epochs
    return f"train.epochs={factor * passes:.2g}"


def _is_bad(value: object) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
