"""Experiment trackers that people already use, fed from the loop's events. Each is imported only when named."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from vectune.errors import MissingExtraError, UsageError
from vectune.progress import Progress
from vectune.runs import Json

LOGGED = {"train": ("loss", "rate", "pairs"), "dev": ("value",)}


class Tracker(Protocol):
    """What a tracker must do."""

    def log(self, values: dict[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class TrackedProgress(Progress):
    """Progress that sends losses and dev values on to trackers.

    Args:
        inner: where everything goes besides.
        names: of the trackers.
        out: what is tuned: runs are called by its name, and files go into ``tensorboard/NAME`` beside it.
        config: options, shown beside the curves.

    Raises:
        UsageError: there is no such tracker.
        MissingExtraError: its package is not installed.
    """

    def __init__(self, inner: Progress, names: tuple[str, ...], out: Path, config: Json) -> None:
        super().__init__(inner.events, inner.terminal)
        for name in names:
            if name not in TRACKERS:
                raise UsageError(f"There is no tracker '{name}'.", f"Choose from {', '.join(TRACKERS)}.")
        self._trackers = [TRACKERS[name](out, config) for name in names]
        self._step = self._before = 0

    def event(self, kind: str, **fields: Any) -> None:
        super().event(kind, **fields)
        values = {f"{kind}/{name}": float(fields[name]) for name in LOGGED.get(kind, ()) if name in fields}
        if not values:
            return
        step = self._onward(int(fields["step"]))
        for tracker in self._trackers:
            tracker.log(values, step)

    def _onward(self, step: int) -> int:
        """Steps of a second training follow the first's: some trackers drop what has a step that is past."""
        if step < self._step:
            self._before += self._step
        self._step = step
        return self._before + step

    def close(self) -> None:
        """Let the trackers write what they hold."""
        for tracker in self._trackers:
            tracker.close()


class _TensorBoard:
    def __init__(self, out: Path, config: Json) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "track", "--track tensorboard") from None
        self._writer: Any = SummaryWriter(str(out.parent / "tensorboard" / out.name))
        self._writer.add_text("options", "\n".join(f"    {key} = {value}" for key, value in config.items()))

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandbLike:
    """Weights & Biases and Trackio, which has the same interface."""

    def __init__(self, package: str, out: Path, config: Json) -> None:
        try:
            self._module: Any = import_module(package)
        except ImportError:
            raise MissingExtraError(package, "track", f"--track {package}") from None
        self._module.init(project="vectune", name=out.name, config=config)

    def log(self, values: dict[str, float], step: int) -> None:
        self._module.log(values, step=step)

    def close(self) -> None:
        self._module.finish()


class _MLflow:
    def __init__(self, out: Path, config: Json) -> None:
        try:
            self._module: Any = import_module("mlflow")
        except ImportError:
            raise MissingExtraError("mlflow", "track", "--track mlflow") from None
        self._module.start_run(run_name=out.name)
        self._module.log_params(config)

    def log(self, values: dict[str, float], step: int) -> None:
        self._module.log_metrics({name.replace("/", "."): value for name, value in values.items()}, step=step)

    def close(self) -> None:
        self._module.end_run()


TRACKERS: dict[str, Callable[[Path, Json], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": lambda out, config: _WandbLike("wandb", out, config),
    "mlflow": _MLflow,
    "trackio": lambda out, config: _WandbLike("trackio", out, config),
}
