"""How many steps there will be, how fast each one learns, and when dev is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace

PROBE = 4  # steps that are timed before a run with a time limit is planned; the first of them warms up


@dataclass(frozen=True)
class Schedule:
    """The plan of a run.

    Attributes:
        steps: in all.
        rate: the highest learning rate.
        warmup: share of the steps over which it rises.
        checks: looks at dev, evenly spread; the last is at the end.
        timed: whether ``steps`` has been fitted to a time limit already.
    """

    steps: int
    rate: float
    warmup: float
    checks: int
    timed: bool = False

    def rate_at(self, step: int) -> float:
        """The rate of step ``step`` (from 0): a linear rise, then a linear fall to a hundredth."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.rate * (step + 1) / rise
        left = max(0, self.steps - step) / max(1, self.steps - rise)
        return self.rate * max(left, 0.01)

    def checks_after(self, step: int) -> bool:
        """Whether dev is looked at when ``step`` steps are done."""
        spots = {round(self.steps * (i + 1) / self.checks) for i in range(self.checks)}
        return step in spots or step == self.steps

    def fitted(self, step_seconds: float, check_seconds: float, left: float) -> Schedule:
        """The plan for ``left`` further seconds, ``PROBE`` steps being done: fewer steps, and fewer looks at dev.

        Args:
            step_seconds: what a step takes.
            check_seconds: what a look at dev takes; the end takes about four more.
            left: seconds that are left.
        """
        checks = self.checks
        while checks > 2 and (checks + 4) * check_seconds > left / 3:
            checks -= 1
        possible = PROBE + int(max(0.0, left - (checks + 4) * check_seconds) / max(step_seconds, 1e-9))
        steps = max(PROBE + 1, min(self.steps, possible))
        return replace(self, steps=steps, checks=min(checks, steps), timed=True)
