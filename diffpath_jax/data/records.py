"""One record of a dataset, real or generated: its fields, and its bytes as a ``tf.train.Example``.

The image travels as raw bytes: lossless, and 4 to 8 times faster to read than PNG. A dataset of latents holds what an
autoencoder's encoder says of each image instead. TFDS reads the same records through the feature description in
``diffpath_jax.data.writer``.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, UInt8
from tensorflow_datasets.proto import tf_example_generated_pb2

from diffpath_jax.data.columns import Column, Values

# um/px by which two sets of images may differ and still be of one scale, as a share.
MPP_TOLERANCE = 0.01


def same_scale(mpp: float, other: float) -> bool:
    """Returns whether two um/px agree."""
    return abs(mpp / other - 1) <= MPP_TOLERANCE


def known_to_differ(mpp: float | None, other: float | None) -> bool:
    """Returns whether two um/px disagree; one that is not known (none, or 0) disagrees with nothing."""
    if not mpp or not other:
        return False
    return not same_scale(mpp, other)


@dataclass(frozen=True)
class Schema:
    """Schema of the records of a data set.

    Attributes:
        image_px: (height, width) of the images.
        classes: class names; a label is an index into them.
        latent_shape: (height, width, channels) of the latents that stand for the images; none where images do.
        feature_width: numbers of an encoder's features of each image, which lie beside it; none where there are none.
        columns: of a user's table, whose values lie beside each image.
    """

    image_px: tuple[int, int]
    classes: tuple[str, ...]
    latent_shape: tuple[int, int, int] | None = None
    feature_width: int | None = None
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True)
class FieldOfView:
    """A field of view of a slide, read but not yet part of a data set.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        label: class, as the annotations name it in plain letters.
        box: left, top, width and height in level-0 pixels.
        mpp: um per pixel of ``image``.
        roi_share: share covered by the regions of its class.
        tissue_share: share of tissue.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: str
    box: tuple[float, float, float, float]
    mpp: float
    roi_share: float
    tissue_share: float


@dataclass(frozen=True)
class PatchRecord:
    """One image with its label and its scale.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        label: index into :attr:`Schema.classes`.
        slide: keyed hash of the slide, or the checkpoint's digest for a generated image.
        patient: keyed hash of the patient; empty for a generated image.
        mpp: um per pixel of ``image``.
        fov_um: width of the field of view in um.
        index: position of the field in its slide, or the image index of a sampling job.
        features: an encoder's, of ``image``; none where there are none.
        columns: values of :attr:`Schema.columns`, NaN for what is not known; none where there are none.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: int
    slide: str
    patient: str
    mpp: float
    fov_um: float
    index: int
    features: Float32[np.ndarray, "d"] | None = None
    columns: Values | None = None


@dataclass(frozen=True)
class LatentRecord:
    """Output of an encoder for one image, turned or flipped in one way.

    Attributes:
        latent: (height, width, channels); half precision, 2^-11 of each value, far below the least noise of diffusion.
        label: index into :attr:`Schema.classes`.
        slide: as that of the image.
        patient: as that of the image.
        mpp: um per pixel of the image.
        fov_um: width of the image's field of view in um.
        index: as that of the image.
        symmetry: which of the eight flips and quarter turns; 0 is the image as it is.
        features: an encoder's, of the image as it is; none where there are none.
        columns: as those of the image.
    """

    latent: Float16[np.ndarray, "h w c"]
    label: int
    slide: str
    patient: str
    mpp: float
    fov_um: float
    index: int
    symmetry: int
    features: Float32[np.ndarray, "d"] | None = None
    columns: Values | None = None


def encode(record: PatchRecord | LatentRecord) -> bytes:
    """Serialise a record; the same record always gives the same bytes."""
    example = tf_example_generated_pb2.Example()
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is None:
            continue
        feature = example.features.feature[field.name]
        if field.type is int:
            feature.int64_list.value.append(value)
        elif field.type is float:
            feature.float_list.value.append(value)
        else:
            feature.bytes_list.value.append(value.encode() if field.type is str else value.tobytes())
    return example.SerializeToString(deterministic=True)


def decode(data: bytes, schema: Schema) -> PatchRecord:
    """Parse an image's record as :func:`encode` wrote it.

    Raises:
        ValueError: the bytes are not such a record, or image or features have another size than the schema's.
    """
    feature = tf_example_generated_pb2.Example.FromString(data).features.feature
    image = np.frombuffer(feature["image"].bytes_list.value[0], np.uint8)
    return PatchRecord(image=image.reshape(*schema.image_px, 3), **_common(feature, schema))


def decode_latent(data: bytes, schema: Schema) -> LatentRecord:
    """Parse a latent's record as :func:`encode` wrote it.

    Raises:
        ValueError: the bytes are not such a record, or latent or features have another shape than the schema's.
    """
    feature = tf_example_generated_pb2.Example.FromString(data).features.feature
    latent = np.frombuffer(feature["latent"].bytes_list.value[0], np.float16)
    symmetry = feature["symmetry"].int64_list.value[0]
    return LatentRecord(latent=latent.reshape(schema.latent_shape), symmetry=symmetry, **_common(feature, schema))


def label(data: bytes) -> int:
    """The label of a record, of an image or of latents, without the rest of it."""
    return tf_example_generated_pb2.Example.FromString(data).features.feature["label"].int64_list.value[0]


def patient(data: bytes) -> str:
    """The patient of a record, likewise."""
    return tf_example_generated_pb2.Example.FromString(data).features.feature["patient"].bytes_list.value[0].decode()


def _common(feature: Any, schema: Schema) -> dict[str, Any]:
    """Common fields of an image and its latents."""
    beside = {"features": schema.feature_width or 0, "columns": len(schema.columns)}
    return {
        "label": feature["label"].int64_list.value[0],
        "slide": feature["slide"].bytes_list.value[0].decode(),
        "patient": feature["patient"].bytes_list.value[0].decode(),
        "mpp": feature["mpp"].float_list.value[0],
        "fov_um": feature["fov_um"].float_list.value[0],
        "index": feature["index"].int64_list.value[0],
        **{name: _numbers(feature[name], count) for name, count in beside.items() if count},
    }


def _numbers(feature: Any, count: int) -> Float32[np.ndarray, "d"]:
    return np.frombuffer(feature.bytes_list.value[0], np.float32).reshape(count)
