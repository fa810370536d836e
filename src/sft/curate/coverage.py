"""Which usage prompts training covers: conformal coverage, topics of what it does not, slices.

And whether a classifier can tell usage prompts from training prompts.

All on TF-IDF vectors of the prompts (`sft.curate.vectors`), in seconds and without a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sft.curate.vectors import SEED, is_telling, nearest, tfidf, topics
from sft.texts.near_duplicates import without_repeats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

UNCOVERED_LEVEL = 0.10
# More training prompts than these are sampled: one prompt more or less decides nothing there.
MAX_TRAIN, MAX_CALIBRATION = 20_000, 2_000
MAX_GROUPS, MIN_GROUP = 6, 5
_NUM_COMPONENTS = 50
MIN_ROWS = 8  # of each side of the classifier; half of them are held out
MAX_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Space:
    """Training and usage prompts in one vector space.

    `train` is `[num_train, num_terms]` without near-duplicates, `usage` `[num_usage, num_terms]`
    in the order given, both sparse with rows of length 1. `train_index` says which text each row
    of `train` is of.
    """

    train: csr_matrix
    usage: csr_matrix
    terms: list[str]
    train_index: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coverage:
    """For each usage prompt: conformal p value, cosine to the nearest training prompt, its index.

    All `[num_usage]`; `nearest` counts in the texts that the space was made of.
    """

    p_values: NDArray[np.float64]
    cosine: NDArray[np.float64]
    nearest: NDArray[np.int64]

    @property
    def uncovered(self) -> NDArray[np.int64]:
        """Indices of the uncovered prompts, the least covered first."""
        order = np.lexsort((self.cosine, self.p_values))
        return order[self.p_values[order] <= UNCOVERED_LEVEL]


def space(train: Sequence[str], usage: Sequence[str]) -> Space:
    """The space of these prompts; neither may be empty.

    Of near-duplicate training prompts one is kept: each would find the other, and everything
    else would seem far away in comparison.
    """
    index = without_repeats(train)
    if len(index) > MAX_TRAIN:
        by_hash = sorted(index, key=lambda i: _digest(train[i]))
        index = sorted(by_hash[:MAX_TRAIN])
    rows, terms = tfidf([train[i] for i in index], usage)
    return Space(rows[: len(index)], rows[len(index) :], terms, np.array(index))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def coverage(prompts: Space) -> Coverage:
    """Conformal p value of each usage prompt: how unusual is its distance to the training data?

    Its nearest-train cosine is ranked among those of the training prompts themselves, each
    without itself (leave one out): p = (1 + number as far away or further) / (1 + number). When
    usage is drawn like training, p <= 0.1 happens to one prompt in ten; more mean that
    there are prompts unlike anything trained on. (Conformal anomaly detection, Laxhammar &
    Falkman 2010.) With fewer than 9 different training prompts no p value can reach 0.1.
    """
    num_train = prompts.train.shape[0]
    sample = np.arange(num_train)
    if num_train > MAX_CALIBRATION:
        rng = np.random.default_rng(SEED)
        sample = np.sort(rng.choice(num_train, MAX_CALIBRATION, replace=False))
    index, cosine = nearest(prompts.usage, prompts.train)
    if num_train == 1:
        own = np.zeros(1)
    else:
        _, own = nearest(prompts.train[sample], prompts.train, skip=sample)
    # Rounding must not decide between equal texts, so ties count as equally far.
    further = np.searchsorted(np.sort(own), cosine + 1e-6, side="right")
    p_values = (1 + further) / (1 + len(sample))
    return Coverage(p_values, cosine, prompts.train_index[index])


def uncovered_groups(prompts: Space, covered: Coverage) -> dict[str, list[int]]:
    """The uncovered usage prompts by topic: top words -> indices, the largest group first."""
    index = covered.uncovered
    return _named(prompts.usage[index], index, prompts.train, prompts.terms)


def slices(prompts: Space) -> dict[str, list[int]]:
    """All usage prompts by topic, a few groups: top words -> indices, the largest first."""
    return _named(prompts.usage, np.arange(prompts.usage.shape[0]), None, prompts.terms)


def _named(
    rows: csr_matrix, index: NDArray[np.int64], against: csr_matrix | None, terms: Sequence[str]
) -> dict[str, list[int]]:
    """Groups of `rows` with the words that mark each against `against` or the other rows."""
    # By what they are about, not by how they are phrased; where that is unknown, by all words.
    telling = np.flatnonzero([is_telling(term) for term in terms])
    labels = group(rows[:, telling] if len(telling) else rows)
    # A word of a single prompt says nothing about its group.
    least = 2 if rows.shape[0] > MIN_GROUP else 1
    groups = topics(rows, labels, terms, against=against, min_texts=least)
    return {name: index[members].tolist() for name, members in groups.items()}


def group(rows: csr_matrix) -> NDArray[np.int64]:
    """Group number of each row: k-means in a latent space, with the k of the best silhouette.

    k is at most `MAX_GROUPS`, and small enough for groups of `MIN_GROUP` on average.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import normalize

    num_rows = rows.shape[0]
    labels = np.zeros(num_rows, dtype=np.int64)
    max_groups = min(MAX_GROUPS, num_rows // MIN_GROUP)
    if max_groups < 2:
        return labels
    components = min(_NUM_COMPONENTS, num_rows - 1, rows.shape[1] - 1)
    if components < 2:
        return labels
    latent = TruncatedSVD(components, random_state=SEED).fit_transform(rows)
    latent = normalize(latent)
    best = -1.0
    for k in range(2, max_groups + 1):
        tried = KMeans(k, n_init=5, random_state=SEED).fit_predict(latent)
        if len(set(tried.tolist())) < 2:
            continue
        score = silhouette_score(latent, tried, sample_size=min(num_rows, 1000), random_state=SEED)
        if score > best:
            best, labels = float(score), tried.astype(np.int64)
    return labels


# ------------------------------------------------------------------------ told apart


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
