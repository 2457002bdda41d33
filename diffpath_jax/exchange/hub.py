"""Folders to where they are passed on: a folder, or a repository of the Hugging Face hub.

The hub's own client is asked for when it is needed (``pip install 'diffpath[hub]'``); it knows tokens and endpoints by
its own environment, and nothing of them is written anywhere.
"""

from pathlib import Path
from types import ModuleType
from typing import Literal

from diffpath_jax.io.errors import DiffpathError, ExitCode

PREFIX = "hf://"


def upload(folder: Path, repository: str, kind: Literal["model", "dataset"]) -> str:
    """Upload a folder in one commit, and make the repository if there is none; private until its owner says else.

    Args:
        folder: what is uploaded.
        repository: ``OWNER/NAME``.
        kind: of the repository.

    Returns:
        The address of what was uploaded.

    Raises:
        DiffpathError: the client is missing, or the hub refuses (exit code 7).
    """
    hub = _import_hub(repository)
    try:
        api = hub.HfApi()
        api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, repo_type=kind, folder_path=folder, commit_message="Published by diffpath"
        )
        return str(commit.commit_url)
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        fix = "check the name, the network, and that you are logged in (`hf auth login`)"
        raise DiffpathError("repository", where=repository, why=why, fix=fix, code=ExitCode.SYSTEM) from error


def _import_hub(repository: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        fix = "pip install 'diffpath[hub]', or name a folder"
        raise DiffpathError("repository", where=repository, why="huggingface_hub is not installed", fix=fix) from error
    return huggingface_hub
