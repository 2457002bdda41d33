"""The FID Inception network from PyTorch: each BatchNorm folded into its convolution, every name used once."""

from collections.abc import Mapping

import numpy as np

from diffpath_jax.networks.inception import InceptionV3
from diffpath_jax.networks.pure import purify
from diffpath_jax.shapes import Tree
from diffpath_jax.weights import torch_files
from diffpath_jax.weights.downloads import PublishedFile
from diffpath_jax.weights.safetensors_file import Flat

KIND = "inception_fid"
# The weights of TensorFlow's graph of 2015-12-05, with torchvision's names.
PUBLISHED = PublishedFile(
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
EPSILON = 1e-3
NORM = ("weight", "bias", "running_mean", "running_var")
# What inference never reads: a counter in each norm, and a head that helped training.
IGNORED_ENDING, IGNORED_START = ".num_batches_tracked", "AuxLogits."


def from_inception(state: Flat, *, where: str) -> torch_files.Converted:
    """The network of FID from its arrays by torchvision's names.

    Raises:
        DiffpathError: names or shapes are others, or a number is not finite (exit code 5).
    """
    network = purify(lambda rngs: InceptionV3(rngs=rngs))
    like, _ = network.shapes
    with torch_files.expecting("the Inception network of FID", state, where=where, fix=f"give {PUBLISHED.name}"):
        params = torch_files.fill(like, inception_names(like), fold_norms(state))
    return torch_files.Converted(KIND, None, params)


def inception_names(like: Tree) -> dict[torch_files.Path, str]:
    """Path of each layer of ours -> its published name: the same words, the first with a capital."""
    names: dict[torch_files.Path, str] = {("fc",): "fc"}
    names |= {("stem", name): name.capitalize() for name in like["stem"]}
    for block, content in like["blocks"].items():
        for name in content["layers"]:
            names["blocks", block, "layers", name] = f"{block.capitalize()}.{name}"
    return names


def fold_norms(state: Mapping[str, np.ndarray]) -> Flat:
    """One kernel and one bias for each convolution and its norm, which at inference is linear too.

    ``(w * x - mean) / sqrt(var + eps) * gamma + beta``, so the kernel is ``w gamma / sqrt(var + eps)`` and the bias
    ``beta - mean gamma / sqrt(var + eps)``. Computed in float64, kept in float32.

    Raises:
        KeyError: a norm lacks an array.
        ValueError: one does not fit its convolution.
    """
    left = {
        name: array
        for name, array in state.items()
        if not name.endswith(IGNORED_ENDING) and not name.startswith(IGNORED_START)
    }
    folded: Flat = {}
    for name in [name for name in left if name.endswith(".conv.weight")]:
        layer = name.removesuffix(".conv.weight")
        gamma, beta, mean, variance = (left.pop(f"{layer}.bn.{kind}").astype(np.float64) for kind in NORM)
        kernel = left.pop(name)
        if {gamma.shape, beta.shape, mean.shape, variance.shape} != {kernel.shape[:1]} or variance.min() < 0:
            raise ValueError(f"{layer}.bn does not fit {name} {kernel.shape}")
        scale = gamma / np.sqrt(variance + EPSILON)
        folded[f"{layer}.weight"] = (kernel.T * scale).T.astype(np.float32)
        folded[f"{layer}.bias"] = (beta - mean * scale).astype(np.float32)
    return folded | left
