"""Can a classifier tell usage prompts from training prompts?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.coverage import Space
from sft.curate.vectors import SEED

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MIN_ROWS = 8  # of each side; half of them are held out
MAX_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class TwoSample:
    """`auc` is 0.5 when the sides look alike and 1 when each prompt gives its side away.

    `p` is one-sided: the chance of such an AUC when they are alike. `words` are words and word
    pairs that mark usage, the strongest first.
    """

    auc: float
    p: float
    words: list[str]


def two_sample(prompts: Space, distinct_usage: Sequence[int]) -> TwoSample | None:
    """Classifier two-sample test (1610.06545) on one held-out half; None with too few prompts.

    A logistic regression learns on half of each side and ranks the other half; the p value is
    Mann-Whitney's. One half only, since the folds of a cross-validation share rows and their
    p value is too small. `distinct_usage` are the usage rows without near-duplicates: a prompt
    in both halves would be recognised, not told apart. (Those of training have none.)
    """
    from scipy.stats import mannwhitneyu

    usage = prompts.usage[list(distinct_usage)]
    if min(prompts.train.shape[0], usage.shape[0]) < MIN_ROWS:
        return None
    rng = np.random.default_rng(SEED)
    (learn_train, test_train), (learn_usage, test_usage) = (
        _halves(rows, rng) for rows in (prompts.train, usage)
    )
    model = _fit(learn_train, learn_usage)
    scores = [model.decision_function(rows) for rows in (test_usage, test_train)]
    u, p = mannwhitneyu(*scores, alternative="greater")
    auc = float(u) / (len(scores[0]) * len(scores[1]))
    return TwoSample(auc, float(p), _words(model.coef_[0], usage, prompts.terms))


def _halves(rows: csr_matrix, rng: np.random.Generator) -> tuple[csr_matrix, csr_matrix]:
    order = rng.permutation(rows.shape[0])[:MAX_ROWS]
    middle = len(order) // 2
    return rows[order[:middle]], rows[order[middle:]]


def _fit(train: csr_matrix, usage: csr_matrix) -> Any:
    """Logistic regression with usage as class 1; both classes weigh the same."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    sides = np.repeat([0, 1], [train.shape[0], usage.shape[0]])
    return model.fit(vstack([train, usage]).tocsr(), sides)


def _words(weights: NDArray[np.float64], usage: csr_matrix, terms: Sequence[str]) -> list[str]:
    """The ten largest weights above 0 of terms that two usage prompts have at least."""
    shared = np.asarray((usage > 0).sum(axis=0)).ravel() > 1
    order = [i for i in np.argsort(-weights, kind="stable")[:200] if weights[i] > 0 and shared[i]]
    return [str(terms[i]) for i in order[:10]]
