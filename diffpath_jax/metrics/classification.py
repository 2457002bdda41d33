"""Predictions of a classifier over any number of images, and what they say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from diffpath_jax.codecs import PixelCodec
from diffpath_jax.networks.pure import PureNetwork
from diffpath_jax.shapes import Tree

BATCH = 256


@partial(jax.jit, static_argnums=0)
def _forward(network: PureNetwork, params: Tree, model_state: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    (logits, features), _ = network.apply(params, model_state, PixelCodec().encode(images), train=False)
    return logits, features


def predict(
    network: PureNetwork, params: Tree, model_state: Tree, images: UInt8[np.ndarray, "n h w 3"]
) -> tuple[Float[np.ndarray, "n classes"], Float[np.ndarray, "n features"]]:
    """Logits and pooled features of images, in batches of one size (the last is padded)."""
    logits, features = [], []
    for start in range(0, len(images), BATCH):
        block = images[start : start + BATCH]
        padded = np.concatenate([block, np.zeros((BATCH - len(block), *block.shape[1:]), np.uint8)])
        out = _forward(network, params, model_state, jnp.asarray(padded))
        logits.append(np.asarray(out[0])[: len(block)])
        features.append(np.asarray(out[1])[: len(block)])
    return np.concatenate(logits), np.concatenate(features)


def confusion_matrix(
    labels: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "true predicted"]:
    """Counts of (true class, predicted class)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarise(confusion: Int[np.ndarray, "true predicted"]) -> dict[str, float]:
    """Accuracy, and its mean over the classes that occur (which does not reward guessing the commonest)."""
    per_class = confusion.sum(axis=1)
    recall = np.diag(confusion)[per_class > 0] / per_class[per_class > 0]
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(recall.mean()),
    }
