"""The parameters of a run as a state dict of the authors' code, guided-diffusion."""

from pathlib import Path

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.adm import AdmConfig
from diffpath_jax.runs import run as runs
from diffpath_jax.weights.to_adm import GROUPS, adm_flags, to_adm, why_not_adm
from diffpath_jax.weights.torch_files import write_torch


def write_state_dict(run: runs.Run, trained: runs.Weights, path: Path) -> str:
    """Write a file of ``torch.save`` that guided-diffusion's scripts load.

    Returns:
        The flags that the scripts need with it.

    Raises:
        DiffpathError: the network is not one of theirs, or PyTorch is missing.
    """
    config = run.config.network_for(len(run.classes))
    why = why_not_adm(config)
    if not why and isinstance(config, AdmConfig) and config.groups != GROUPS:
        why = f"its norms have {config.groups} groups, and there all have {GROUPS}"
    if why or not isinstance(config, AdmConfig):
        fix = "export it as safetensors"
        raise DiffpathError("network", where=run.workdir, why=why, fix=fix)
    write_torch(path, to_adm(trained.params))
    return adm_flags(config)
