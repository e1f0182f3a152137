from __future__ import annotations

from vectune.training.schedule import Schedule

PLAN = Schedule(wanted=100, steps=100, rate=1.0, warmup=0.1, checks=4)


def test_the_rate_rises_and_falls() -> None:
    rates = [PLAN.rate_at(step) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_dev_is_looked_at_evenly_and_at_the_end() -> None:
    assert [step for step in range(1, 101) if PLAN.checks_after(step)] == [25, 50, 75, 100]


def test_a_time_limit_takes_steps_away_but_never_adds_any() -> None:
    short = PLAN.fitted(done=2, step_seconds=1.0, check_seconds=0.1, left=30.0)
    assert 25 <= short.steps <= 32
    assert short.fitted(done=2, step_seconds=0.001, check_seconds=0.0, left=1000.0).steps == 100
    assert PLAN.fitted(done=2, step_seconds=100.0, check_seconds=50.0, left=10.0).steps == 3


def test_a_plan_that_differs_little_stays() -> None:
    assert PLAN.fitted(done=2, step_seconds=1.0, check_seconds=0.0, left=95.0) is PLAN
