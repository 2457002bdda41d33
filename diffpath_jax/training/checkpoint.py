"""Checkpoints: the state of a run, checked by digest before use. The only user of Orbax.

The state holds the step, and the step is the position in the data.

Orbax commits a step atomically but does not notice changed bytes, so every committed step is *sealed*: the digests
of its files are written beside it. Only sealed steps whose files match are restored.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from diffpath_jax.devices import processes
from diffpath_jax.io.errors import DiffpathError, ExitCode, from_system
from diffpath_jax.io.files import sha256_file
from diffpath_jax.io.progress import console
from diffpath_jax.io.sealed import read_sealed, write_sealed

DIRECTORY = "checkpoints"
_SEAL = "seal-{step}.json"
# What the first process says instead of a step.
_NONE, _ALL_DAMAGED = -1, -2


@contextlib.contextmanager
def _refusals_named(directory: Path) -> Iterator[None]:
    """Raises what the machine refuses as an error that says where."""
    try:
        yield
    except Exception as error:
        refused = from_system(error, where=directory)
        if refused is None:
            raise
        raise refused from error


@dataclass(frozen=True)
class _Sealed:
    """Content of a seal: the meaning of its parameters, and the digests of its files."""

    meaning: str
    files: dict[str, str]


class Checkpoints:
    """The checkpoints of a run.

    Args:
        workdir: the run's directory.
        keep: newest checkpoints to keep; at least 2, so that a damaged one has a predecessor.
        keep_every: also keep every checkpoint whose step is a multiple of this; 0 for none.
        keep_best: also keep the one in which this metric was best; empty for none.
        compatibility_digest: digest of what decides what parameters of this run mean (network, noise, classes); empty
            for anything. Goes into the seals, so that a checkpoint is not read under another config.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 2,
        keep_every: int = 0,
        keep_best: str = "",
        compatibility_digest: str = "",
    ) -> None:
        self._directory = (workdir / DIRECTORY).absolute()
        self._compatibility_digest = compatibility_digest
        self._best = keep_best
        kept: list[policies.PreservationPolicy] = [policies.LatestN(n=max(2, keep))]
        if keep_every:
            kept.append(policies.EveryNSteps(interval_steps=keep_every))
        if keep_best:
            kept.append(policies.BestN(get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(kept),
            best_fn=self._score if keep_best else None,  # Orbax writes metrics only if there is one
            cleanup_tmp_directories=True,
        )
        handler = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=handler)
        self._unsealed: int | None = None

    def _score(self, metrics: Mapping[str, float]) -> float:
        return oriented(self._best, float(metrics[self._best]))

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Begin to write a checkpoint in the background; the one before it is sealed first.

        Args:
            step: steps taken.
            state: arrays.
            metrics: numbers measured at this very step, for ``keep_best``.
        """
        self.seal()
        known = dict(metrics) if metrics and self._best in metrics else None
        with _refusals_named(self._directory):
            self._manager.save(step, args=ocp.args.StandardSave(state), metrics=known)
        self._unsealed = step

    def best(self) -> int | None:
        """Returns the step in which the metric was best, of the checkpoints that are left."""
        scores = {}
        for step in self._manager.all_steps():
            metrics = self._manager.metrics(step)
            if metrics and self._best in metrics:
                scores[step] = self._score(metrics)
        return max(scores, key=lambda step: scores[step]) if scores else None

    def seal(self) -> None:
        """Wait for the checkpoint being written, if any, and record the digests of its files."""
        if self._unsealed is None:
            return
        with _refusals_named(self._directory):
            self._manager.wait_until_finished()
        if processes.is_first():
            content = {"meaning": self._compatibility_digest, "files": self._file_digests(self._unsealed)}
            write_sealed(self._seal_path(self._unsealed), content)
            kept = set(self._manager.all_steps())
            for path in self._directory.glob(_SEAL.format(step="*")):
                if int(path.stem.partition("-")[2]) not in kept:
                    path.unlink()
        self._unsealed = None

    def newest(self) -> int | None:
        """Returns the newest step, sealed or still being written."""
        return self._manager.latest_step()

    def latest(self) -> int | None:
        """Returns the newest step that is sealed and intact; damaged ones are named in a warning.

        The first process looks; the others take its word.

        Raises:
            DiffpathError: there are checkpoints and none is intact (exit code 5).
        """
        intact, damage = self._newest_intact() if processes.is_first() else (None, None)
        step = processes.agreed(intact if intact is not None else _ALL_DAMAGED if damage else _NONE)
        if step == _ALL_DAMAGED:
            raise DiffpathError(
                "checkpoints",
                where=self._directory,
                why=f"none is intact ({damage or 'the first process says which'})",
                fix="restore the directory from a backup, or train in a new one",
                code=ExitCode.DAMAGED,
            )
        return None if step == _NONE else step

    def check(self, step: int) -> None:
        """Refuse a step that is not there or not intact.

        Raises:
            DiffpathError: no such step, or its files do not match their digests (exit code 5).
        """
        steps = sorted(self._manager.all_steps())
        if step not in steps:
            known = ", ".join(str(known) for known in steps) or "none"
            why = f"not there; there are {known}"
            raise DiffpathError(f"checkpoint {step}", where=self._directory, why=why, fix="choose one of those")
        if damage := self._damage(step):
            raise DiffpathError(
                f"checkpoint {step}",
                where=self._directory,
                why=damage,
                fix="choose another, or restore it from a backup",
                code=ExitCode.DAMAGED,
            )

    def intact(self) -> list[int]:
        """Returns every step that is sealed and intact, in order; others are named in a warning."""
        damage = {step: self._damage(step) for step in sorted(self._manager.all_steps())}
        for step, why in damage.items():
            if why is not None:
                console.print(f"warning: checkpoint {step}: {why}; left out", markup=False, soft_wrap=True)
        return [step for step, why in damage.items() if why is None]

    def _newest_intact(self) -> tuple[int | None, str | None]:
        damage = None
        for step in sorted(self._manager.all_steps(), reverse=True):
            why = self._damage(step)
            if why is None:
                return step, None
            damage = damage or why
            console.print(
                f"warning: checkpoint {step}: {why}; falling back to the one before", markup=False, soft_wrap=True
            )
        return None, damage

    def discard_after(self, step: int) -> None:
        """Remove checkpoints newer than ``step`` (damaged or unsealed), so that they can be written again."""
        for newer in self._manager.all_steps():
            if newer > step:
                self._manager.delete(newer)
                if processes.is_first():
                    self._seal_path(newer).unlink(missing_ok=True)

    def restore(self, step: int, like: Any) -> Any:
        """Read a step back, onto the devices of ``like`` (arrays, or shapes with shardings)."""
        return self._manager.restore(step, args=ocp.args.StandardRestore(like))

    def read(self, step: int) -> Any:
        """Read the state of a step as numpy arrays, without knowing its structure."""
        # Onto one CPU device, whatever devices the arrays came from.
        place = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            self._manager.item_metadata(step),
        )
        return jax.tree.map(np.asarray, self.restore(step, like))

    def close(self) -> None:
        """Seal what is being written and let go."""
        self.seal()
        self._manager.close()

    def _seal_path(self, step: int) -> Path:
        return self._directory / _SEAL.format(step=step)

    def _file_digests(self, step: int) -> dict[str, str]:
        root = self._directory / str(step)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): sha256_file(path) for path in files}

    def _damage(self, step: int) -> str | None:
        seal = self._seal_path(step)
        if not seal.exists():
            return "its writing was interrupted"
        try:
            sealed = read_sealed(seal, _Sealed, what="seal", fix="")
        except DiffpathError as error:
            return error.why
        if self._compatibility_digest and sealed.meaning != self._compatibility_digest:
            return "it belongs to a run with another network, noise or list of classes than config.json says"
        digests = self._file_digests(step)
        changed = [name for name in {*sealed.files, *digests} if sealed.files.get(name) != digests.get(name)]
        return f"{sorted(changed)[0]} does not match its digest" if changed else None


def oriented(metric: str, value: float) -> float:
    """The value so that larger is better, as it is of accuracies and likenesses, and not of losses and distances."""
    return value if metric.endswith(("accuracy", "psnr", "ssim")) else -value


def tree_digest(tree: Any) -> str:
    """Returns the SHA-256 over names, types, shapes and bytes of all arrays: the identity of a set of parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
