"""Every number that a verdict hangs on, in one versioned place.

Frozen before the test seeds of `benchmarks/guards` ran; docs/guards.md names the version its
rates were measured with. A user's own choices (alpha, margin, budget) are config, not here.
"""

from __future__ import annotations

VERSION = 1

# Two evaluations in a row must fail, unless the evidence is this overwhelming (t of the paired
# test).
OVERWHELMING_T = 8.0
# Signals that can alarm; the run's alpha is shared between them and the evaluations (Bonferroni).
NUM_ALARMS = 6
WATCH_LEVEL = 0.05  # uncorrected

# Overfitting
EFFECTIVE_SHARE_WATCH, EFFECTIVE_SHARE_ALARM = 0.8, 0.5  # exp(entropy of clusters) / rows
REPEATS_WATCH, REPEATS_ALARM = 4.0, 10.0  # visits of each distinct row
SMALL_DATA = 500  # distinct rows; many visits to more rows than these are watched only
MEMORISATION_WATCH, MEMORISATION_ALARM = 0.75, 0.9  # AUC
LARGEST_USEFUL_MDE = 0.10  # nats; a probe that cannot see this is insufficient

# Format collapse
OPENER_SHARE_WATCH, OPENER_SHARE_ALARM = 0.10, 0.25  # of one three-word opener in the answers
FIRST_TOKEN_MASS = 0.5
INFORMATION_LOST = 0.7  # share of the prompt-to-opener information of the base model
MASS_ABOVE_REFERENCE = 0.3
SHALLOW_KL_WATCH = 15.0
SHALLOW_KL_LEAST = 0.05  # nats; where openers hardly moved, their ratio means nothing
WRITTEN_P = 0.01  # sampled answers are few and only confirm: not shared between evaluations
REPEATS_IN_LOOP = 3  # times that the same four words stand in one answer
SURFACE_SHARE = 0.6

# Distribution mismatch
UNCOVERED_LEVEL = 0.10  # conformal p at or below which a prompt is uncovered
UNCOVERED_WATCH, UNCOVERED_ALARM, UNCOVERED_P = 0.15, 0.20, 0.01
CLASSIFIER_AUC_WATCH, CLASSIFIER_P = 0.65, 0.01
TRANSFER_RATIO = 0.25

# Forgetting
FORGETTING_WATCH_SHARE = 0.4  # of the budget

# Health
SPIKE_Z = 8.0  # robust z of loss and gradient norm

# Every guard
MIN_EXAMPLES = 8  # with fewer a verdict would rest on chance
# Attribution
EXPLAINED_SHARE = 0.5  # of an effect that its cause must account for, in nats
