"""Checkpoints: state and data position together, checked by digest before use. The only user of Orbax.

Orbax commits a step atomically but does not notice changed bytes, so every committed step is *sealed*: the digests
of its files are written beside it. Only sealed steps whose files match are restored.
"""

import hashlib
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import read_json, sha256_file, write_json
from diffpath_jax.progress import console

DIRECTORY = "checkpoints"
_SEAL = "seal-{step}.json"


class Checkpoints:
    """The checkpoints of a run.

    Args:
        workdir: the run's directory.
        keep: newest checkpoints to keep; at least 2, so that a damaged one has a predecessor.
    """

    def __init__(self, workdir: Path, *, keep: int = 2) -> None:
        self._directory = (workdir / DIRECTORY).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=max(2, keep), cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._unsealed: int | None = None

    def save(self, step: int, state: Any, batches: grain.DatasetIterator) -> None:
        """Begin to write a checkpoint in the background; the one before it is sealed first."""
        self.seal()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), batches=grain.checkpoint.CheckpointSave(batches)
            ),
        )
        self._unsealed = step

    def seal(self) -> None:
        """Wait for the checkpoint being written, if any, and record the digests of its files."""
        if self._unsealed is None:
            return
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            write_json(self._seal_path(self._unsealed), self._file_digests(self._unsealed))
            kept = set(self._manager.all_steps())
            for path in self._directory.glob(_SEAL.format(step="*")):
                if int(path.stem.partition("-")[2]) not in kept:
                    path.unlink()
        self._unsealed = None

    def newest(self) -> int | None:
        """Newest step, sealed or still being written."""
        return self._manager.latest_step()

    def latest(self) -> int | None:
        """Newest step that is sealed and whose files match their digests; damaged ones are named in a warning."""
        damage = None
        for step in sorted(self._manager.all_steps(), reverse=True):
            why = self._damage(step)
            if why is None:
                return step
            damage = damage or why
            console.print(f"warning: checkpoint {step}: {why}; falling back to the one before", markup=False)
        if damage:
            raise DiffpathError(
                "checkpoints",
                where=self._directory,
                why=f"none is intact ({damage})",
                fix="restore the directory from a backup, or train in a new one",
                code=ExitCode.DAMAGED,
            )
        return None

    def discard_after(self, step: int) -> None:
        """Remove checkpoints newer than ``step`` (damaged or unsealed), so that they can be written again."""
        for newer in self._manager.all_steps():
            if newer > step:
                self._manager.delete(newer)
                self._seal_path(newer).unlink(missing_ok=True)

    def restore(self, step: int, like: Any, batches: grain.DatasetIterator) -> Any:
        """Read a step back, onto the devices of ``like``; ``batches`` is moved to where it was."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),
                batches=grain.checkpoint.CheckpointRestore(batches),
            ),
        )
        return restored["state"]

    def read(self, step: int) -> Any:
        """Read the state of a step as numpy arrays, without knowing its structure."""
        restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
        return jax.tree.map(np.asarray, restored["state"])

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
            sealed = read_json(seal, what="seal", fix="")
        except DiffpathError as error:
            return str(error)
        found = self._file_digests(step)
        changed = [name for name in {*sealed, *found} if sealed.get(name) != found.get(name)]
        return f"{sorted(changed)[0]} does not match its digest" if changed else None


def tree_digest(tree: Any) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays: the identity of a set of parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
