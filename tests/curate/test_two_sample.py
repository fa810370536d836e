"""The two-sample test: silent on the same source, sure of another, and it names the words."""

import numpy as np
import pytest

from sft.curate.coverage import space, two_sample
from sft.texts.near_duplicates import without_repeats


def told(train, usage):
    return two_sample(space(train, usage), without_repeats(usage))


def test_the_same_source_is_not_told_apart(topic):
    found = []
    for seed in range(16):
        prompts = topic("food", seed).prompts(140)
        found.append(told(prompts[:100], prompts[100:]))
    p_values = [test.p for test in found]
    assert sum(p < 0.01 for p in p_values) <= 1
    assert 0.25 < np.mean(p_values) < 0.75
    assert np.mean([test.auc for test in found]) == pytest.approx(0.5, abs=0.06)


def test_another_style_is_told_apart_and_named(topic):
    food = topic("food", 0)
    usage = [f"dear robot {prompt}" for prompt in food.prompts(60)]
    found = told(food.prompts(200), usage)
    assert found.auc > 0.95 and found.p < 1e-6
    assert {"dear", "robot", "dear robot"} <= set(found.words[:4])


def test_copies_of_a_usage_prompt_are_not_recognised(topic):
    """In both halves they would look like a difference where there is none."""
    prompts = topic("food", 3).prompts(120)
    usage = prompts[100:] * 10
    assert two_sample(space(prompts[:100], usage), range(len(usage))).p < 1e-4  # the mistake
    assert told(prompts[:100], usage).p > 0.01


def test_too_few_prompts_are_not_judged(topic):
    prompts = topic("food", 0).prompts(40)
    assert told(prompts[:7], prompts[7:]) is None
    assert told(prompts[7:], prompts[:7]) is None
    assert told(prompts[:8], prompts[8:]) is not None
