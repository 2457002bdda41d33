"""Where a run's scalars are shown while it trains: TensorBoard, Weights & Biases, Trackio.

Each is a row by name (``train.loggers``), and a writer of ``clu``'s interface. The run's own ``metrics.jsonl`` is
always written, whatever is chosen: only that is read again.
"""

import importlib
import importlib.util
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import write_text
from diffpath_jax.io.registry import Registry
from diffpath_jax.training.clu_without_tensorflow import metric_writers
from diffpath_jax.training.tensorboard_without_torch import tensorboardX

# What TensorBoard and XProf open: events, and profiles.
TENSORBOARD = "tensorboard"
PROJECT = "diffpath"
# What Weights & Biases would send besides numbers: command lines and printed lines name patients' directories.
WITHHELD = {"console": "off", "disable_code": True, "disable_git": True, "x_disable_meta": True}
# By which a run goes on as the same one, wherever its directory lies then.
RUN_ID = "logger_id"


class ScalarWriter(metric_writers.MetricWriter):
    """A writer of scalars alone. NaN (as of a noise level that no image of the batch had) is left out."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError("the log of a run holds scalars alone")

    write_summaries = write_images = write_videos = write_audios = _refuse
    write_texts = write_histograms = write_hparams = _refuse


class TensorBoardWriter(ScalarWriter):
    """Writes TensorBoard events.

    Args:
        workdir: the run.
        resume_step: TensorBoard is told to forget what was written of later steps.
    """

    def __init__(self, workdir: Path, *, resume_step: int) -> None:
        self._events = tensorboardX.SummaryWriter(str(workdir / TENSORBOARD), purge_step=resume_step + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add an event for each scalar."""
        for name, value in finite(scalars).items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write out what tensorboardX's own thread has taken up."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._events.close()


@runtime_checkable
class TrackedRun(Protocol):
    """A run of Weights & Biases, or of a package with its interface."""

    def log(self, values: dict[str, float], step: int | None = None) -> object:
        """Takes the scalars of a step."""

    def finish(self) -> object:
        """Ends the run."""


class TrackingWriter(ScalarWriter):
    """Hands scalars to a run of Weights & Biases or Trackio.

    Both keep what they were given: steps that a resumed run takes again are passed on again.

    Args:
        run: what the package's ``init`` returned. Its methods, and not those of the package, know their run in every
            thread.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run = run

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the scalars of a step."""
        self._run.log(finite(scalars), step=step)

    def flush(self) -> None:
        """The package sends from a thread of its own."""

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


def finite(scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns the scalars that are numbers."""
    return {name: float(value) for name, value in scalars.items() if math.isfinite(value)}


@runtime_checkable
class OpenLogger(Protocol):
    """Opens a logger of a run."""

    def __call__(self, workdir: Path, *, resume_step: int) -> metric_writers.MetricWriter:
        """Returns its writer.

        Args:
            workdir: the run.
            resume_step: step that the run goes on after; 0 for a new one.
        """
        ...


@dataclass(frozen=True)
class LoggerKind:
    """A logger.

    Attributes:
        name: as ``train.loggers`` says it.
        open: opens it.
        package: that has to be installed, an extra of the same name; empty for none.
    """

    name: str
    open: OpenLogger
    package: str = ""


def _open_wandb(workdir: Path, *, resume_step: int) -> TrackingWriter:
    run = importlib.import_module("wandb").init(
        project=PROJECT,
        name=workdir.resolve().name,
        id=_run_id(workdir),
        resume="allow",
        dir=str(workdir),
        settings=WITHHELD,
    )
    return TrackingWriter(run)


def _open_trackio(workdir: Path, *, resume_step: int) -> TrackingWriter:
    # A run is known by its name alone.
    name = f"{workdir.resolve().name}-{_run_id(workdir)}"
    return TrackingWriter(importlib.import_module("trackio").init(project=PROJECT, name=name, resume="allow"))


def _run_id(workdir: Path) -> str:
    """Returns what the run is known by there, drawn once."""
    path = workdir / RUN_ID
    if not path.exists():
        write_text(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8").strip()


LOGGERS: Registry[LoggerKind] = Registry(
    "logger",
    (
        LoggerKind("tensorboard", TensorBoardWriter),
        LoggerKind("wandb", _open_wandb, package="wandb"),
        LoggerKind("trackio", _open_trackio, package="trackio"),
    ),
)


def check_installed(names: Sequence[str]) -> None:
    """Refuses a logger whose package is not there, before work begins.

    Raises:
        DiffpathError: naming what to install.
    """
    for kind in map(LOGGERS.__getitem__, names):
        if kind.package and importlib.util.find_spec(kind.package) is None:
            why, fix = f"{kind.package} is not installed", f"pip install 'diffpath[{kind.package}]', or leave it out"
            raise DiffpathError("key 'train.loggers'", where="the config", why=why, fix=fix)
