"""A run directory: what was trained, on what, and the parameters it led to."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diffpath_jax.config import checks, sections
from diffpath_jax.config.files import differing_keys
from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.config.tasks import codec_of
from diffpath_jax.data import writer
from diffpath_jax.data.columns import Column
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.devices import processes
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_json
from diffpath_jax.io.names import check_names
from diffpath_jax.io.sealed import opened, write_sealed
from diffpath_jax.networks.codecs import Codec
from diffpath_jax.networks.conditions import COLUMNS, FEATURES
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.runs import averages, description
from diffpath_jax.runs.description import RUN
from diffpath_jax.shapes import Tree
from diffpath_jax.training import posthoc_ema
from diffpath_jax.training.checkpoint import Checkpoints, tree_digest
from diffpath_jax.training.tasks.task import NETWORK
from diffpath_jax.weights import safetensors_file

# The run's own copy of the autoencoder whose latents it works in.
FIRST_STAGE = "first_stage.safetensors"
# Where things lie and how the work is laid out: the results are the same. Which images follows from which data.
_MAY_CHANGE = {
    "images",
    *("config.data.train", "config.data.val", "config.data.workers", "config.codec.first_stage"),
    *("config.train.fsdp", "config.train.keep_checkpoints", "config.train.keep_every"),
}
# Keys of a start, by section. They are not stored: they change neither the run nor its digest.
_OF_ONE_START = {"train": ("profile_at", "loggers")}


@dataclass(frozen=True)
class Run:
    """A run as its directory describes it.

    Attributes:
        workdir: the directory.
        config: the resolved config.
        classes: class names of the training data.
        image_px: (height, width) of the training images.
        mpp: um per pixel of the training images.
        data: digest of each training data set.
        images: digest of each data set of the images that it saw, itself or as latents.
        digest: SHA-256 of config, data digests and latents.
        compatibility_digest: SHA-256 of what decides what the parameters mean: network, noise, prediction, classes,
            um/px, latents.
        latents: the autoencoder whose latents the model works in, without its parameters; none for pixels.
        features: digest of the encoder whose features a denoiser is told; none where it is told none.
        columns: of a user's table that a denoiser is told.
    """

    workdir: Path
    config: sections.RunConfig
    classes: tuple[str, ...]
    image_px: tuple[int, int]
    mpp: float
    data: tuple[str, ...]
    images: tuple[str, ...]
    digest: str
    compatibility_digest: str
    latents: FirstStage | None = None
    features: str | None = None
    columns: tuple[Column, ...] = ()

    @property
    def codec(self) -> Codec:
        """Between images and the space that the model works in."""
        return codec_of(self.latents, dtype=self.config.dtype)

    @property
    def network(self) -> PureNetwork:
        """The network that is trained."""
        return make_network(self.config.network_for(len(self.classes)), dtype=self.config.dtype)


@dataclass(frozen=True)
class DiffusionModelRun(Run):
    """A run of a diffusion model, which images can be drawn from."""

    config: sections.DiffusionRun


@dataclass(frozen=True)
class Weights:
    """Parameters ready to use, on the host.

    Attributes:
        params: parameters of the network; the moving average unless the run keeps none.
        model_state: model state of the network.
        step: when they were saved.
        digest: SHA-256 of ``params`` and ``model_state``.
        is_ema: true where ``params`` is the moving average.
        codec_params: parameters of the autoencoder whose latents the network works in; empty for pixels.
        ema_length: of the average that ``params`` is, where one was made afterwards; else none.
    """

    params: Tree
    model_state: Tree
    step: int
    digest: str
    is_ema: bool
    codec_params: Tree = field(default_factory=dict)
    ema_length: float | None = None


def create_or_resume(
    workdir: Path,
    config: sections.RunConfig,
    datasets: Sequence[Dataset],
    *,
    validation: Dataset | None = None,
    latents: FirstStage | None = None,
    allow_change: Sequence[str] = (),
) -> Run:
    """Describe a new run in its directory, or check that this is the run that is already there.

    Where the data lies may change between two starts; what it holds may not.

    Args:
        workdir: run directory.
        config: resolved config.
        datasets: opened training data.
        validation: the data set that ``data.val`` names; none where it names none.
        latents: autoencoder whose latents a diffusion model works in; none for pixels.
        allow_change: dotted keys (or sections) that may differ from before.

    Raises:
        DiffpathError: the directory holds a run with other settings or data (exit code 4); the keys are named.
    """
    path, content, before = workdir / RUN, _description(config, datasets, validation, latents), None
    if path.exists():
        before = description.read(workdir)
        content = _as_it_began(content, before, with_defaults={**before, **_described(open_run(workdir))})
        _refuse_changes(workdir, before, content, allow_change)
    source = config.train.init_from
    if source and not path.exists() and not Path(source).exists():
        fix = "check train.init_from"
        raise DiffpathError("parameters to start from", where=source, why="no such file or run", fix=fix)
    if processes.is_first():
        if latents and not (workdir / FIRST_STAGE).exists():
            flat = safetensors_file.flatten(latents.params)
            safetensors_file.write_parameters(workdir / FIRST_STAGE, flat, latents.as_json())
        if content != before:
            write_sealed(path, content)
    processes.wait_for_all("run is described")
    return open_run(workdir)


def _description(
    config: sections.RunConfig, datasets: Sequence[Dataset], validation: Dataset | None, latents: FirstStage | None
) -> dict[str, Any]:
    """Description of a run, as its directory holds it."""
    first, told = datasets[0], config.network.conditions
    return {
        "config": _stored_config(config),
        "classes": list(first.schema.classes),
        "image_px": list(first.schema.image_px),
        "mpp": first.details.mpp,
        "data": [dataset.digest for dataset in datasets],
        "images": [dataset.images for dataset in datasets],
        **({"validation": validation.digest} if validation else {}),
        **({"latents": latents.as_json()} if latents else {}),
        **({"features": first.details.encoder} if FEATURES.name in told else {}),
        **({"columns": [column.as_json() for column in first.schema.columns]} if COLUMNS.name in told else {}),
        "versions": writer.versions("jax", "flax", "optax"),
    }


def _described(run: Run) -> dict[str, Any]:
    """The parts of a run's description that have defaults, with every key of today's."""
    return {"config": _stored_config(run.config), **({"latents": run.latents.as_json()} if run.latents else {})}


def _as_it_began(now: Any, before: Any, *, with_defaults: Any) -> Any:
    """``now`` without the keys that came after ``before`` was stored and are at their defaults.

    So a run of an earlier version stays the run that it is, and its digest the same.
    """
    if not (isinstance(now, Mapping) and isinstance(before, Mapping)):
        return now
    return {
        key: _as_it_began(value, before[key], with_defaults=with_defaults.get(key)) if key in before else value
        for key, value in now.items()
        if key in before or value != with_defaults.get(key)
    }


def _stored_config(config: sections.RunConfig) -> dict[str, Any]:
    """Returns the config without the keys of a start."""
    content = config.as_json()
    for section, names in _OF_ONE_START.items():
        content[section] = {key: value for key, value in content[section].items() if key not in names}
    return content


def _refuse_changes(
    workdir: Path, before: Mapping[str, Any], content: Mapping[str, Any], allow_change: Sequence[str]
) -> None:
    changed = [
        key
        for key in differing_keys(before, content)
        if key not in _MAY_CHANGE
        and not key.startswith("versions")
        and not any(key == f"config.{name}" or key.startswith(f"config.{name}.") for name in allow_change)
    ]
    if changed:
        keys = [key.removeprefix("config.") for key in changed]
        # What is not of the config cannot be allowed.
        may_be = all(key.startswith("config.") for key in changed)
        allowed = f", or add {' '.join(f'--allow_change {key}' for key in keys)}" if may_be else ""
        raise DiffpathError(
            "run",
            where=workdir,
            why=f"it was begun with another {', '.join(keys)}",
            fix=f"name a new directory{allowed}",
            code=ExitCode.REFUSED,
        )


def open_run(workdir: Path) -> Run:
    """Read a run directory: a :class:`DiffusionModelRun` where it is one.

    Raises:
        DiffpathError: it is not one.
    """
    content, where = description.read(workdir), str(workdir / RUN)
    config = checks.run_config(content["config"], where=where)
    try:
        stored = opened(content, description.Stored)
        check_names(*stored.classes)
        described: Mapping[str, Any] = {
            "classes": stored.classes,
            "image_px": stored.image_px,
            "mpp": stored.mpp,
            "data": stored.data,
            "images": stored.images or stored.data,
            "latents": FirstStage.from_json(stored.latents, where=where) if stored.latents else None,
            "features": stored.features,
            "columns": stored.columns,
            "compatibility_digest": description.compatibility_digest(content),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise description.damaged(workdir, f"not a run: {error}") from error
    latents = {"latents": content["latents"]} if "latents" in content else {}
    digest = sha256_json({"config": content["config"], "data": content["data"], **latents})
    if isinstance(config, sections.DiffusionRun):
        return DiffusionModelRun(workdir=workdir, config=config, digest=digest, **described)
    return Run(workdir=workdir, config=config, digest=digest, **described)


def diffusion_model(run: Run, *, fix: str = "name one with --workdir") -> DiffusionModelRun:
    """Returns the run, which is that of a diffusion model.

    Raises:
        DiffpathError: it is one of another task.
    """
    if not isinstance(run, DiffusionModelRun):
        raise DiffpathError("run", where=run.workdir, why="not a diffusion model", fix=fix)
    return run


@contextlib.contextmanager
def _checkpoints(run: Run) -> Iterator[Checkpoints]:
    checkpoints = Checkpoints(
        run.workdir, keep_best=run.config.train.keep_best, compatibility_digest=run.compatibility_digest
    )
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def _chosen(run: Run, checkpoints: Checkpoints, step: int | Literal["latest", "best"]) -> int:
    """Returns the number of a checkpoint that is there and intact."""
    chosen = {"latest": checkpoints.latest, "best": checkpoints.best}[step]() if isinstance(step, str) else step
    if chosen is None:
        raise _none_saved(run, step)
    checkpoints.check(chosen)
    return chosen


def _none_saved(run: Run, step: int | str) -> DiffpathError:
    fix = "train with train.keep_best" if step == "best" else "run `diffpath train` first"
    return DiffpathError(f"checkpoint {step!r}", where=run.workdir, why="the run has saved none yet", fix=fix)


def find_steps(run: Run, checkpoints: Sequence[int | Literal["all", "latest", "best"]]) -> list[int]:
    """Returns the steps of some checkpoints in order, each once, after a look at their digests.

    Args:
        run: the run.
        checkpoints: numbers, or words for them: ``all`` are those that are intact.

    Raises:
        DiffpathError: one is not there (those that are, are named), or it is damaged (exit code 5).
    """
    steps: set[int] = set()
    with _checkpoints(run) as saved:
        for name in checkpoints:
            steps |= set(saved.intact()) if name == "all" else {_chosen(run, saved, name)}
    if not steps:
        raise _none_saved(run, "all")
    return sorted(steps)


def load_parameters(
    run: Run,
    *,
    use_ema: bool = True,
    step: int | Literal["latest", "best"] = "latest",
    ema_length: float | None = None,
) -> Weights:
    """Returns the parameters of a run.

    Args:
        run: the run.
        use_ema: take the moving average where the run keeps one.
        step: which checkpoint: the newest intact one, the one in which ``train.keep_best`` was best, or a number.
        ema_length: make the average of this length at that step, of those in the checkpoints up to it.

    Raises:
        DiffpathError: there is no such checkpoint, or it is damaged (exit code 5); or the average cannot be made.
    """
    with _checkpoints(run) as checkpoints:
        chosen = _chosen(run, checkpoints, step)
        state = checkpoints.read(chosen)
        if ema_length is not None:
            asked = posthoc_ema.Profile(chosen, ema_length)
            state["ema"] = averages.reconstruct(checkpoints, run.config.optim.ema_lengths, asked, where=run.workdir)
    source = "ema" if (use_ema or ema_length is not None) and state.get("ema") else "params"
    expected, expected_state = run.network.shapes
    params = _arrange(run, expected, state[source][NETWORK])
    model_state = _arrange(run, expected_state, (state.get("model_state") or {}).get(NETWORK) or {})
    digest = tree_digest({"params": params, "model_state": model_state})
    is_ema, codec_params = source == "ema", _codec_parameters(run)
    return Weights(params, model_state, chosen, digest, is_ema, codec_params=codec_params, ema_length=ema_length)


def _codec_parameters(run: Run) -> Tree:
    """Returns the parameters of the run's own copy of its autoencoder; none for a model of pixels.

    Raises:
        DiffpathError: the copy is missing, or not the one that the run began with (exit code 5).
    """
    if run.latents is None:
        return {}
    path = run.workdir / FIRST_STAGE
    network = make_network(run.latents.network, dtype="float32")
    expected, _ = network.shapes
    params = safetensors_file.arrange(safetensors_file.read_parameters(path)[0], expected, where=str(path))
    if tree_digest(params) != run.latents.digest:
        why, fix = "not the autoencoder that the run began with", "restore the file from a backup"
        raise DiffpathError("first stage", where=path, why=why, fix=fix, code=ExitCode.DAMAGED)
    return params


def _arrange(run: Run, expected: Any, stored: Any, name: str = "") -> Any:
    """Returns ``stored`` in the structure of ``expected``: Orbax reads list positions back as text.

    Raises:
        DiffpathError: a name or a shape differs from what the run's own config describes (exit code 5).
    """
    if isinstance(expected, Mapping):
        by_text = {str(key): key for key in expected}
        names = set(stored) if isinstance(stored, Mapping) else set()
        if set(by_text) == names:
            return {key: _arrange(run, expected[key], stored[text], f"{name}/{text}") for text, key in by_text.items()}
        why = f"{name or 'the top'} holds {sorted(names)} where the config asks for {sorted(by_text)}"
    elif getattr(stored, "shape", None) == expected.shape:
        return stored
    else:
        why = f"{name} has shape {getattr(stored, 'shape', None)} where the config asks for {expected.shape}"
    fix = "use the config that the run was trained with"
    raise DiffpathError("checkpoint", where=run.workdir, why=why, fix=fix, code=ExitCode.DAMAGED)
