"""Cost of a study, before it runs: FLOP and disk of its trainings and of its sets of images."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.config import checks
from diffpath_jax.config import files as config_files
from diffpath_jax.config.sections import RunConfig
from diffpath_jax.data.manifest import MANIFEST, open_dataset
from diffpath_jax.io.files import sha256_json
from diffpath_jax.runs.cost import TRAIN_FORWARDS, Plan, plan
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps

# What is assumed of a data set that is not there yet.
ASSUMED_PX, ASSUMED_CLASSES = 128, 5
# Parameters, their average and two moments, in float32.
STATE_BYTES = 4 * 4
# Checkpoints that a run keeps: the newest, the one before, and the best.
KEPT_CHECKPOINTS = 3
# Network calls of a sampler whose options do not say it.
DEFAULT_CALLS = 1000


@dataclass(frozen=True)
class Cost:
    """Cost of a step.

    Attributes:
        flop: FLOP of its networks; none where that depends on data that are not there yet.
        bytes: what it leaves on disk; none as for ``flop``.
    """

    flop: float | None
    bytes: float | None


@dataclass(frozen=True)
class _Estimator:
    """Counts the cost of steps, whose models were counted before them."""

    study: StudySteps
    plans: dict[Path, Plan]
    # Arms differ in their images alone: what is counted of one is counted of all.
    counted: dict[str, Plan]

    def of(self, step: Step) -> Cost:
        """Returns the cost of a step; 0 for commands that are cheap beside training and sampling."""
        if not step.command:
            return Cost(0.0, 0.0)
        count = {"train": self._training, "sample": self._sampling}.get(step.command[0])
        return count(step) if count else Cost(0.0, 0.0)

    def _training(self, step: Step) -> Cost:
        config = step.command[step.command.index("--config") + 1]
        words = [word for word in step.command if word.startswith("--config.")]
        settings = checks.run_config(config_files.load(config, words, checks.with_defaults), where=config)
        image_px, classes = self._images(step)
        key = sha256_json([_size(settings), image_px, classes])
        if key not in self.counted:
            self.counted[key] = plan(settings, image_px=image_px, num_classes=classes, devices=1)
        cost = self.plans[step.out] = self.counted[key]
        return Cost(cost.steps * cost.step_flop, float(KEPT_CHECKPOINTS * STATE_BYTES * cost.parameters))

    def _sampling(self, step: Step) -> Cost:
        options = dict(zip(step.command, step.command[1:], strict=False))
        model, count = self.plans[Path(options["--workdir"])], options.get("--num_per_class")
        if count is None:
            return Cost(None, None)
        image_px, classes = self._images(step)
        side = int(options.get("--patch_px", image_px[0]))
        images, calls = int(count) * classes, int(options.get("--steps", DEFAULT_CALLS))
        scale = side**2 / image_px[0] ** 2
        guided = 2 if float(options.get("--guidance", 0)) else 1
        return Cost(images * calls * guided * scale * model.forward_flop, images * side**2 * 3.0)

    def _images(self, step: Step) -> tuple[tuple[int, int], int]:
        """Returns size and number of classes of the images that a step is about."""
        name = step.name.partition("/")[0]
        data = self.study.dataset(name).out
        if (data / MANIFEST).exists():
            schema = open_dataset(data, verify=False).schema
            return schema.image_px, len(schema.classes)
        side = self.study.config.datasets[name].patch_px or ASSUMED_PX
        return (side, side), ASSUMED_CLASSES


def _size(settings: RunConfig) -> dict[str, Any]:
    """Returns the settings on which the cost of a training depends: all but its images and its random seed."""
    content = settings.as_json()
    return {**content, "seed": 0, "data": {"batch_size": settings.data.batch_size}}


def costs(study: StudySteps, steps: Sequence[Step]) -> dict[str, Cost]:
    """Returns the cost of each step, by its name."""
    estimator = _Estimator(study, {}, {})
    return {step.name: estimator.of(step) for step in steps}


def lines(study: StudySteps, steps: Sequence[Step], *, peak: float) -> Iterator[str]:
    """Yields the plan of a study in words: every step, then hours and disk.

    Args:
        study: the study.
        steps: its steps, in their order.
        peak: FLOP a second that are reached.
    """
    each = costs(study, steps)
    for step in steps:
        cost = each[step.name]
        hours = "" if not cost.flop else f"  {cost.flop / peak / 3600:.2g} h"
        yield f"{step.name:50s} {step.command[0] if step.command else 'there already'}{hours}"
    kinds = Counter(step.command[0] for step in steps if step.command)
    yield f"{len(steps)} steps: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}"
    flop = sum(cost.flop or 0 for cost in each.values())
    disk = sum(cost.bytes or 0 for cost in each.values())
    yield f"{flop / peak / 3600:.3g} hours at {peak / 1e12:.4g} TFLOP/s, {disk / 1e9:.3g} GB of checkpoints and images"
    if unknown := [name for name, cost in each.items() if cost.flop is None]:
        yield f"not counted, as they depend on data that are not prepared yet: {', '.join(unknown)}"
    yield f"a training counts {TRAIN_FORWARDS} forward passes an image; reading images and tests are not counted"
