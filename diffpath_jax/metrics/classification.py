"""Confusion matrix and accuracy of a classifier."""

import numpy as np
from jaxtyping import Float, Int


def confusion_matrix(
    labels: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "true predicted"]:
    """Returns counts of (true class, predicted class)."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def summarise(confusion: Int[np.ndarray, "true predicted"]) -> dict[str, float]:
    """Returns the accuracy, and its mean over the classes that occur (which does not reward guessing the commonest)."""
    per_class = confusion.sum(axis=1)
    recall = np.diag(confusion)[per_class > 0] / per_class[per_class > 0]
    return {
        "accuracy": float(np.trace(confusion) / confusion.sum()),
        "balanced_accuracy": float(recall.mean()),
    }


def right(labels: Int[np.ndarray, "n"], logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n"]:
    """Returns 1 for each image whose class is told, 0 for the others."""
    return (logits.argmax(axis=-1) == labels).astype(np.float64)
