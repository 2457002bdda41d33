"""The file that describes a run, as it lies on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.data.columns import Column
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_json
from diffpath_jax.io.sealed import read_sealed

RUN = "config.json"
_FIX = "name the directory of a `diffpath train` run"
# Keys of a network that make no difference to a trained one.
_ONLY_TRAINING = ("dropout", "remat")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The file as it is written; attributes are those of :class:`diffpath_jax.runs.run.Run`."""

    config: dict[str, Any]
    classes: tuple[str, ...]
    image_px: tuple[int, int]
    mpp: float
    data: tuple[str, ...]
    # Runs were described without this before there were latents.
    images: tuple[str, ...] | None = None
    latents: dict[str, Any] | None = None
    features: str | None = None
    columns: tuple[Column, ...] = ()


def read(workdir: Path) -> dict[str, Any]:
    """Returns the file, of which only this is sure: it is as it was written, and has a config."""
    content = read_sealed(workdir / RUN, dict, what="run", fix=_FIX)
    if not isinstance(content.get("config"), dict):
        raise damaged(workdir, "it holds no config")
    return content


def damaged(workdir: Path, why: str) -> DiffpathError:
    """Returns what is said of a file that is not as it was written."""
    return DiffpathError("run", where=workdir / RUN, why=why, fix=_FIX, code=ExitCode.DAMAGED)


def compatibility_digest(content: Mapping[str, Any]) -> str:
    """Returns that of what is stored; see :class:`diffpath_jax.runs.run.Run`."""
    config = content["config"]
    diffusion, latents = config.get("diffusion"), content.get("latents")
    return sha256_json(
        {
            "task": config["task"],
            "network": {key: value for key, value in config["network"].items() if key not in _ONLY_TRAINING},
            "noise": config.get("noise"),
            "prediction": diffusion["prediction"] if diffusion else None,
            "classes": content["classes"],
            "mpp": float(content["mpp"]),
            **({"latents": [latents["digest"], latents["scale"]]} if latents else {}),
            **{name: content[name] for name in ("features", "columns") if name in content},
        }
    )
