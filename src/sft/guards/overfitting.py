"""Overfitting: held-out loss rises while training loss falls.

The verdict hangs on `paired_rise`; the other live signals are evidence. What was known about the
data before training is judged in `data_size.py`, and a leak between training and validation rows
decides too, because it blinds the curve. Methods and thresholds: docs/guards.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sft.guards import thresholds
from sft.guards.base import Finding, GuardSettings, Verdict
from sft.guards.data_size import TYPICAL_SD, data_size, leaked_rows, leaks
from sft.guards.history import Array, History, Table
from sft.guards.statistics import (
    Paired,
    auc,
    corrected_level,
    examples_needed,
    paired,
    theil_sen,
    welch,
)

_GUARD = "overfitting"
_UNIT = "nats per token"
_MIN_ROWS = 8
_MIN_LOSSES = 6  # training steps that a trend is read from
_PLATEAU_EVALS = 3

_RESTORE = "Hand back the weights of the best evaluation, as `checkpoint.choose: best` does"
_EPOCHS = "; next time train less (fewer `optim.epochs`), or on more rows"
_CONFIDENCE = (
    "; if only ranking matters, later weights are as good: lower the confidence with "
    "--set optim.epochs=1 or --set optim.dropout=0.1, more data will not"
)


def overfitting(history: History) -> list[Finding]:
    """The findings of this guard after the newest evaluation; `paired_rise` is the primary one.

    Needs `val`, better with `train_probe`; `preflight["rows"]` adds what the data look like.
    """
    rise = _Rise.of(history)
    if rise is None:
        return [_no_val(history), *data_size(history)]
    live = [_paired_rise(rise), _over_confidence(rise), _gap(rise), _memorisation(rise)]
    return [*live, _plateau(rise), *data_size(history)]


@dataclass(frozen=True, slots=True)
class _Rise:
    """The newest evaluation at val against the best earlier one: `now` and `best` are rows of
    `val`.
    """

    history: History
    val: Table
    now: int
    best: int
    level: float

    @classmethod
    def of(cls, history: History) -> _Rise | None:
        """None when val was never scored, or all of it leaked; leaked rows are left out."""
        val = history.table("val")
        if val is None or not np.isfinite(val.loss).any():
            return None
        leaked = leaked_rows(history)
        val = val.rows([i for i, name in enumerate(val.ids) if name not in leaked])
        if not val.ids:
            return None
        now = len(val.steps) - 1
        best = int(np.argmin(_means(val.loss)[:now])) if now else 0
        settings = history.settings
        evals = max(settings.num_evals, now)
        level = corrected_level(settings.alpha, evals, thresholds.NUM_ALARMS)
        return cls(history, val, now, best, level)

    @property
    def settings(self) -> GuardSettings:
        return self.history.settings

    @property
    def best_step(self) -> int:
        return self.val.steps[self.best]

    @property
    def judged(self) -> bool:
        """Whether there is an earlier evaluation, and the newest lies after warm-up."""
        return self.now > 0 and self.val.steps[self.now] > self.settings.warmup_steps

    def test(self, evaluation: int | None = None) -> Paired:
        """The rise at `evaluation` (the newest) above the best evaluation, against the margin."""
        loss = self.val.loss
        evaluation = self.now if evaluation is None else evaluation
        return paired(loss[evaluation] - loss[self.best], self.settings.margin, self.level)

    def surely_rose(self) -> bool:
        """Sure and large enough, in two evaluations in a row or beyond doubt."""
        test = self.test()
        if test.p >= self.level or test.mean <= self.settings.margin:
            return False
        if test.t > thresholds.OVERWHELMING_T:
            return True
        before = self.now - 1
        if self.val.steps[before] <= self.settings.warmup_steps:
            return False
        return self.test(before).p < self.level

    def maybe_rose(self) -> bool:
        """Above the margin at the uncorrected level."""
        return self.test().p < thresholds.WATCH_LEVEL


def _means(loss: Array) -> Array:
    """Mean of each evaluation `[num_evals]`; infinite where no row is finite."""
    finite = np.isfinite(loss)
    sums = np.where(finite, loss, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), sums / np.maximum(finite.sum(axis=1), 1), np.inf)


def _finding(
    history: History, signal: str, verdict: Verdict, message: str, test: Paired | None = None
) -> Finding:
    """Not primary; figures of `test` where they are finite."""
    step = history.eval_steps[-1] if history.eval_steps else history.step
    finding = Finding(_GUARD, signal, verdict, step, message, unit=_UNIT, primary=False)
    if test is None or test.n < 2:
        return finding if test is None else replace(finding, n=test.n)
    mde = test.mde if np.isfinite(test.mde) else None
    return replace(finding, statistic=test.mean, interval=test.interval, mde=mde, n=test.n)


def _no_val(history: History) -> Finding:
    finding = _finding(
        history,
        "paired_rise",
        "not_measured",
        "No validation row was scored that is not in training too: not measured.",
    )
    remedy = "Hold rows back: --set data.val_fraction=0.1, or give data.val."
    return replace(finding, primary=True, remedy=remedy)


def _paired_rise(rise: _Rise) -> Finding:
    history, settings, test = rise.history, rise.settings, rise.test()
    if not rise.judged:
        late = (
            f"steps up to {settings.warmup_steps} are warm-up"
            if rise.now
            else "no earlier evaluation"
        )
        message = f"Nothing to compare yet: {late}."
        finding = _finding(history, "paired_rise", "insufficient", message)
        return replace(finding, primary=True, threshold=settings.margin)
    verdict, message, remedy = _verdict(rise, test)
    num_leaks = leaks(history)
    if num_leaks:
        message = f"UNRELIABLE, {num_leaks} validation rows are in training too: {message}"
        verdict = "insufficient" if verdict == "pass" else verdict
    finding = _finding(history, "paired_rise", verdict, message, test)
    return replace(finding, primary=True, threshold=settings.margin, remedy=remedy)


def _verdict(rise: _Rise, test: Paired) -> tuple[Verdict, str, str]:
    """Verdict, message and remedy of `paired_rise`."""
    rose = (
        f"val loss is {test.mean:+.3f} {_UNIT} above its best evaluation (step {rise.best_step}; "
        f"95 % interval {test.interval[0]:+.3f} to {test.interval[1]:+.3f})"
    )
    if test.n >= _MIN_ROWS and rise.maybe_rose():
        cause = _other_cause(rise)
        if cause:
            return "watch", f"{rose}, but this is not overfitting: {cause}", ""
        if not rise.surely_rose():
            return "watch", f"{rose}; not yet sure or not yet twice in a row", _RESTORE
        if _accuracy(rise).mean >= 0:
            return (
                "alarm",
                f"Over-confidence: {rose} while training loss fell, yet the share of right tokens "
                "did not fall: the ranking is as good, the probabilities are too extreme",
                _RESTORE + _CONFIDENCE,
            )
        return "alarm", f"{rose} while training loss fell", _RESTORE + _EPOCHS
    return _no_rise(rise, test, rose)


def _no_rise(rise: _Rise, test: Paired, rose: str) -> tuple[Verdict, str, str]:
    blind = test.mde > thresholds.LARGEST_USEFUL_MDE and test.interval[1] > rise.settings.margin
    if test.n >= _MIN_ROWS and np.isfinite(test.mde) and not blind:
        seen = f"a rise of {test.mde:.3f} above the margin would be found 4 times in 5"
        return "pass", f"{rose.replace(' above', ' against')}; {seen}", ""
    sd = test.sd if test.n >= _MIN_ROWS else max(test.sd, TYPICAL_SD)
    n = max(_MIN_ROWS, examples_needed(sd, thresholds.LARGEST_USEFUL_MDE, rise.level))
    message = (
        f"{test.n} validation rows are too few to tell: about {n} would show a rise of "
        f"{thresholds.LARGEST_USEFUL_MDE:g} {_UNIT}"
    )
    return "insufficient", message, f"Hold {n} rows back (data.val_fraction or data.val)"


def _other_cause(rise: _Rise) -> str:
    """Why a rise of val is not overfitting; empty when it looks like overfitting."""
    fell = _train_fell(rise)
    if fell is None:
        return "training loss was not measured, so it cannot be told from other causes"
    if not fell:
        return (
            "training loss did not fall in the same time; forgetting, a changed format or a "
            "learning rate that is too high raise both"
        )
    if _only_first_token(rise):
        return "the rise is no larger than that of the answers' first token; see format_collapse"
    if _rows_still_new(rise):
        return (
            "no row has been trained on twice and the loss on new rows falls; validation rows "
            "seem to be of another kind than training rows"
        )
    return ""


def _train_fell(rise: _Rise) -> bool | None:
    """Whether training loss is lower now than at val's best evaluation; None when nothing tells.

    A loss already below half the base model's that stays within half the margin counts too:
    rows learned by heart have nowhere left to fall.
    """
    table = rise.history.table("train_probe")
    step = rise.best_step
    if table is None or step not in table.steps or table.steps[-1] <= step:
        return _new_loss_fell(rise)
    loss = table.loss
    test = paired(loss[table.steps.index(step)] - loss[-1])
    margin = rise.settings.margin
    if test.mean > 0 and (test.mean >= margin or test.p < thresholds.WATCH_LEVEL):
        return True
    means = _means(loss)
    return bool(test.mean > -margin / 2 and means[-1] < means[0] / 2)


def _new_loss_fell(rise: _Rise) -> bool | None:
    """Whether the steps' own loss falls since val's best evaluation: its slope's interval is below
    0.
    """
    steps, losses = rise.history.losses()
    after = (steps > rise.best_step) & np.isfinite(losses)
    if after.sum() < _MIN_LOSSES:
        return None
    _, _, high = theil_sen(steps[after], losses[after])
    return high < 0


def _only_first_token(rise: _Rise) -> bool:
    """Whether openers have collapsed and account for the rise.

    KL(base||now) at the first answer token is what that token costs more, in nats, if references
    open as the base model would. Without it, a rise above the margin must remain.
    """
    mass, info = (rise.val.column(name) for name in ("first_mass", "first_info"))
    kl, tokens = rise.val.column("kl_first"), rise.val.column("tokens")[rise.now]
    if not np.isfinite(kl[[rise.best, rise.now]]).any(axis=1).all():
        return False
    kept = 1 - thresholds.INFORMATION_LOST
    collapsed = (
        _means(mass)[rise.now] >= thresholds.FIRST_TOKEN_MASS
        and _means(info)[rise.now] <= kept * _means(info)[0]
    )
    loss = rise.val.loss
    without = loss[rise.now] - loss[rise.best] - (kl[rise.now] - kl[rise.best]) / tokens
    return bool(collapsed and paired(without, rise.settings.margin).p >= rise.level)


def _rows_still_new(rise: _Rise) -> bool:
    """Whether no row was trained on twice and the loss on rows never seen before falls."""
    rows = rise.history.preflight.get("rows") or {}
    epochs = [float(r["epoch"]) for r in rise.history.metrics if r.get("epoch") is not None]
    share = rows.get("effective", 0) / max(rows.get("train", 0), 1)
    distinct = share >= thresholds.EFFECTIVE_SHARE_WATCH
    return bool(distinct and epochs and epochs[-1] <= 1 and _new_loss_fell(rise))


def _accuracy(rise: _Rise) -> Paired:
    """Change of each row's share of right tokens since the best evaluation; needs `correct`."""
    accuracy = rise.val.column("correct") / rise.val.column("tokens")
    change = paired(accuracy[rise.now] - accuracy[rise.best])
    return change if change.n else replace(change, mean=-np.inf)


def _over_confidence(rise: _Rise) -> Finding:
    change = _accuracy(rise)
    if not rise.judged or change.n < _MIN_ROWS:
        verdict: Verdict = "insufficient" if change.n else "not_measured"
        return _finding(rise.history, "over_confidence", verdict, "Too little measured to tell.")
    rose = rise.maybe_rose()
    text = f"share of right val tokens {change.mean:+.3f} since step {rise.best_step}"
    if rose and change.mean >= 0:
        verdict, message = "watch", f"Val loss rises but accuracy does not fall: {text}"
    else:
        verdict, message = "pass", f"No sign of mere over-confidence: {text}"
    finding = _finding(rise.history, "over_confidence", verdict, message, change)
    return replace(finding, unit="fraction of tokens", threshold=0.0)


def _drops(rise: _Rise) -> tuple[Array, Array] | None:
    """Fall of each row's loss since the first evaluation: training rows and val rows."""
    train = rise.history.table("train_probe")
    if train is None or len(train.steps) < 2 or rise.now == 0:
        return None
    seen, held = train.loss, rise.val.loss
    drops = seen[0] - seen[-1], held[0] - held[rise.now]
    enough = all(np.isfinite(drop).sum() >= _MIN_ROWS for drop in drops)
    return drops if enough else None


def _gap(rise: _Rise) -> Finding:
    """Difference in differences: subtracting the first evaluation removes "val is simply
    harder".
    """
    drops = _drops(rise)
    if drops is None:
        message = f"The gap needs two evaluations at {_MIN_ROWS} rows of train_probe and of val."
        return _finding(rise.history, "gap", "not_measured", message)
    gap, low, high = welch(drops[0], drops[1])
    margin = rise.settings.margin
    text = f"training rows fell {gap:+.3f} {_UNIT} more than val rows ({low:+.3f} to {high:+.3f})"
    if low > margin and rise.test().mean > 0 and rise.judged:
        verdict: Verdict = "watch"
        message = f"The gap is open and val no longer improves: {text}"
    else:
        verdict, message = "pass", f"No harmful gap: {text}"
    finding = _finding(rise.history, "gap", verdict, message)
    n = min(map(len, drops))
    return replace(finding, statistic=gap, interval=(low, high), n=n, threshold=margin)


def _memorisation(rise: _Rise) -> Finding:
    drops = _drops(rise)
    if drops is None:
        message = (
            f"Memorisation needs two evaluations at {_MIN_ROWS} rows of train_probe and of val."
        )
        return replace(_finding(rise.history, "memorisation", "not_measured", message), unit="AUC")
    area, p = auc(*drops)
    verdict: Verdict = "pass"
    if area > thresholds.MEMORISATION_WATCH and p < thresholds.WATCH_LEVEL:
        verdict = "watch"
    if area > thresholds.MEMORISATION_ALARM and rise.judged and rise.surely_rose():
        verdict = "alarm"
    message = (
        f"How far a row's loss fell tells training rows from val rows with AUC {area:.2f} "
        "(.5: not at all; 1: learned by heart)"
    )
    finding = _finding(rise.history, "memorisation", verdict, message)
    n = min(map(len, drops))
    level = thresholds.MEMORISATION_WATCH
    return replace(finding, statistic=area, threshold=level, n=n, unit="AUC")


def _plateau(rise: _Rise) -> Finding:
    """Whether the last three evaluations brought nothing; never a fault, so never more than a
    pass.
    """
    first = rise.now - _PLATEAU_EVALS + 1
    if first < 1 or rise.val.steps[first] <= rise.settings.warmup_steps:
        message = f"A plateau needs {_PLATEAU_EVALS} evaluations after warm-up and one before."
        return _finding(rise.history, "plateau", "insufficient", message)
    loss = rise.val.loss
    means = _means(loss)
    before, recent = int(np.argmin(means[:first])), first + int(np.argmin(means[first:]))
    gain = paired(loss[before] - loss[recent])
    margin = rise.settings.margin
    text = f"the last {_PLATEAU_EVALS} evaluations improved val by {gain.mean:+.3f} {_UNIT}"
    if gain.mean > margin:
        message = f"Still improving: {text}"
    elif gain.mean < -margin:
        message = f"No plateau, val rises: {text}"
    else:
        message = f"On a plateau, which is not overfitting: {text}; stopping here costs nothing"
    return replace(_finding(rise.history, "plateau", "pass", message, gain), threshold=margin)
