"""Published encoders of pathology images by name: where they are, what they see, and under which licence.

Numbers and options are those of the model cards. Each is a model of the library timm; CONCH and others, which need a
package of their own, are exported by that and named with ``ENCODER.json`` (see :mod:`.onnx`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffpath_jax.io.registry import Registry

Colour = tuple[float, float, float]
IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Of the slides that H-optimus was trained on, and of those of Lunit's networks.
H_OPTIMUS: tuple[Colour, Colour] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
LUNIT: tuple[Colour, Colour] = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
# Layers that are options of timm, as the names that they are imported by.
_SWIGLU = {"mlp_layer": "timm.layers.SwiGLUPacked", "act_layer": "torch.nn.SiLU"}
_NON_COMMERCIAL = "CC-BY-NC-ND-4.0"


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder.

    Attributes:
        name: as users say it.
        repository: on the Hugging Face hub, ``OWNER/NAME``.
        licence: of its weights; most are to be accepted there before they can be downloaded.
        width: numbers of its features.
        colours: mean and standard deviation of images in [0, 1], which it is shown standardised.
        options: of ``timm.create_model``.
        with_mean: features are the class token and the mean of the other tokens, not the class token alone.
        size: side of its images in px.
        mpp: um per px that it was trained at, or nearest to it.
    """

    name: str
    repository: str
    licence: str
    width: int
    colours: tuple[Colour, Colour] = IMAGENET
    options: Mapping[str, Any] = field(default_factory=dict)
    with_mean: bool = False
    size: int = 224
    mpp: float = 0.5


PUBLISHED: Registry[PublishedEncoder] = Registry(
    "published encoder",
    [
        PublishedEncoder(
            "uni",
            "MahmoodLab/UNI",
            _NON_COMMERCIAL,
            1024,
            options={"init_values": 1e-5, "dynamic_img_size": True, "num_classes": 0},
        ),
        PublishedEncoder(
            "uni2-h",
            "MahmoodLab/UNI2-h",
            _NON_COMMERCIAL,
            1536,
            options={
                "img_size": 224,
                "patch_size": 14,
                "depth": 24,
                "num_heads": 24,
                "init_values": 1e-5,
                "embed_dim": 1536,
                "mlp_ratio": 2.66667 * 2,
                "num_classes": 0,
                "no_embed_class": True,
                "reg_tokens": 8,
                "dynamic_img_size": True,
                **_SWIGLU,
            },
        ),
        PublishedEncoder("virchow", "paige-ai/Virchow", "Apache-2.0", 2560, options=_SWIGLU, with_mean=True),
        PublishedEncoder("virchow2", "paige-ai/Virchow2", _NON_COMMERCIAL, 2560, options=_SWIGLU, with_mean=True),
        PublishedEncoder(
            "h-optimus-0", "bioptimus/H-optimus-0", "Apache-2.0", 1536, H_OPTIMUS, options={"init_values": 1e-5}
        ),
        PublishedEncoder(
            "h-optimus-1", "bioptimus/H-optimus-1", _NON_COMMERCIAL, 1536, H_OPTIMUS, options={"init_values": 1e-5}
        ),
        PublishedEncoder("h0-mini", "bioptimus/H0-mini", _NON_COMMERCIAL, 768, H_OPTIMUS, options=_SWIGLU),
        PublishedEncoder("gigapath", "prov-gigapath/prov-gigapath", "Apache-2.0", 1536),
        PublishedEncoder("lunit-vits8", "1aurent/vit_small_patch8_224.lunit_dino", "non-commercial", 384, LUNIT),
        PublishedEncoder(
            "dinov2-l",
            "timm/vit_large_patch14_dinov2.lvd142m",
            "Apache-2.0",
            1024,
            options={"img_size": 224, "num_classes": 0},
        ),
    ],
)
