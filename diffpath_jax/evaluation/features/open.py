"""The kinds of feature extractors, and the way from a path to an extractor.

``EXTRACTORS.register(kind)`` adds one from outside the package.
"""

from pathlib import Path

from diffpath_jax.evaluation.features import classifier, inception, onnx
from diffpath_jax.evaluation.features.extractor import ExtractorKind, FeatureExtractor
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.registry import Registry

EXTRACTORS: Registry[ExtractorKind] = Registry("feature extractor", (classifier.KIND, inception.KIND, onnx.KIND))


def sources() -> str:
    """Returns what a user may name, in words."""
    return ", ".join(kind.source for kind in EXTRACTORS.values())


def open_extractor(path: Path, *, resize: str) -> FeatureExtractor:
    """Returns the extractor that lies at a path.

    Args:
        path: directory or file of one of the kinds.
        resize: how Inception's images are brought to its size.

    Raises:
        DiffpathError: nothing of the kind, or it is damaged.
    """
    kind = next((kind for kind in EXTRACTORS.values() if path.exists() and kind.recognise(path)), None)
    if kind is None:
        why = f"{path.suffix or 'it'} is no kind of extractor" if path.exists() else "no such directory or file"
        raise DiffpathError("features", where=path, why=why, fix=f"name one of: {sources()}")
    return kind.open(path, resize=resize)
