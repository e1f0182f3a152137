"""How many steps there will be, how fast each one learns, and when dev is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace

PROBE = 2  # steps that are timed before a run with a time limit is planned; the first of them warms up
CLOSING = 5  # looks at dev that the end takes: the best state again, the mean of the states, mixtures with the base


@dataclass(frozen=True)
class Schedule:
    """The plan of a run.

    Attributes:
        wanted: steps that the data ask for.
        steps: steps that will be done: fewer where time is limited.
        rate: the highest learning rate.
        warmup: share of the steps over which it rises.
        checks: looks at dev, evenly spread; the last is at the end.
    """

    wanted: int
    steps: int
    rate: float
    warmup: float
    checks: int

    def rate_at(self, step: int) -> float:
        """The rate of step ``step`` (from 0): a linear rise, then a linear fall to a hundredth."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.rate * (step + 1) / rise
        left = max(0, self.steps - step) / max(1, self.steps - rise)
        return self.rate * max(left, 0.01)

    def checks_after(self, step: int) -> bool:
        """Whether dev is looked at when ``step`` steps are done."""
        return step >= self.steps or step in {round(self.steps * (i + 1) / self.checks) for i in range(self.checks)}

    def refreshes_after(self, step: int, times: int) -> bool:
        """Whether negatives are mined anew when ``step`` steps are done: ``times`` times, evenly, never at the end."""
        return step < self.steps and step in {round(self.steps * (i + 1) / (times + 1)) for i in range(times)}

    def fitted(self, done: int, step_seconds: float, check_seconds: float, left: float) -> Schedule:
        """The plan for ``left`` further seconds: fewer steps and looks at dev, never more than ``wanted``.

        Looks at dev get at most a third of the time that is left. A plan that differs little is not changed.

        Args:
            done: steps behind us.
            step_seconds: what a step takes.
            check_seconds: what a look at dev takes.
            left: seconds that are left.
        """
        checks = self.checks
        while checks > 2 and (checks * (self.steps - done) / self.steps + CLOSING) * check_seconds > left / 3:
            checks -= 1
        looks = checks * (self.steps - done) / self.steps + CLOSING
        possible = done + int(max(0.0, left - looks * check_seconds) / max(step_seconds, 1e-9))
        steps = max(done + 1, min(self.wanted, possible))
        if abs(steps - self.steps) <= 0.1 * self.steps and steps < self.wanted:
            return self
        return replace(self, steps=steps, checks=max(1, min(checks, steps)))
