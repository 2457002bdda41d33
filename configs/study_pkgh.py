"""The study of the paper, on slides of one's own with the fields of PKGH_224 and PKGH_336.

Paper: Tables 2 to 5 and Figures 1 to 9, with patients held out, several seeds, intervals and controls.
Command: diffpath study --config diffpath:study_pkgh --workdir STUDY --config.slides=SLIDES
    --config.annotations=ANNOTATIONS, beside patients.csv (slide,patient) and classes.json; first, once:
    diffpath convert --from inception --file FILE --out weights/inception.safetensors
    diffpath convert --from resnet50 --file FILE --out weights/resnet50.safetensors
Rows: all; T5e where --config.worth.scarce_class names a class to cut.
Cost: --dry_run prints it for your data; `--snakemake FILE` writes the steps for a cluster.
Expected: not measured yet, the paper's slides are not public.
Variants: (none), paper: as published; small: networks for one GPU; debug: tiny networks.
"""

from ml_collections import ConfigDict

PREP = "--patients patients.csv --classes classes.json"
NOTES = (
    "PKGH_336 stands here for fields of 336 um at 192 px, the paper's constant 1.75 um/px; its text also says 128 px.",
    "The paper does not say how many steps its samplers take; here 1,000 (DDPM) and 50 (DDIM).",
)


def study(variant: str) -> ConfigDict:
    """The study with its models in a variant of their configs."""
    return ConfigDict(
        {
            "title": "Diffusion models of colorectal patches: the paper's study, with patients held out",
            "notes": NOTES,
            "slides": "",
            "annotations": "",
            "seed": 0,
            "datasets": {
                "pkgh_224": dataset("PKGH_224", 224.0, 128, ("ddpm_224", "ldm_224")),
                "pkgh_336": dataset("PKGH_336", 336.0, 192, ("ddpm_336", "ldm_336")),
            },
            "models": models(variant),
            "samplers": samplers(),
            "measured": ("pkgh_224", "pkgh_336"),
            "compared": ("ddpm", "ddim", "eps_scaling"),
            "solvers": tuple(solvers()),
            "patch_sizes": (64, 96, 128, 160, 192, 224),
            "num_per_class": 2000,
            "features": ("weights/inception.safetensors",),
            "resamples": 100,
            "held_out": 2000,
            "classifier": {
                "config": f"diffpath:resnet50_pkgh:{variant}",
                "options": "--config.train.init_from=weights/resnet50.safetensors",
                "seeds": 5,
            },
            # Every amount, share and control at its default.
            "worth": {"sampler": "ddim", "scarce_class": ""},
        }
    )


def dataset(name: str, fov_um: float, patch_px: int, models: tuple[str, ...]) -> dict[str, object]:
    """A data set of the paper: fields of ``fov_um``, stored in ``patch_px``."""
    return {"title": name, "prep": PREP, "fov_um": fov_um, "patch_px": patch_px, "models": models, "paper": name}


def models(variant: str) -> dict[str, dict[str, str]]:
    """DDPM and LDM of both data sets."""
    ddpm = {"title": "DDPM", "paper": "DDPM"}
    ldm = {"title": "LDM", "paper": "LDM", "first_stage": f"diffpath:vqgan_f4_pkgh:{variant}"}
    return {
        "ddpm_224": {**ddpm, "config": f"diffpath:ddpm_pkgh224:{variant}"},
        "ldm_224": {**ldm, "config": f"diffpath:ldm_pkgh224:{variant}"},
        "ddpm_336": {**ddpm, "config": f"diffpath:ddpm_pkgh336:{variant}"},
        "ldm_336": {**ldm, "config": f"diffpath:ldm_pkgh336:{variant}"},
    }


def samplers() -> dict[str, dict[str, object]]:
    """The paper's samplers, and those of :func:`solvers`."""
    pixels = ("ddpm_224", "ddpm_336")
    return {
        "ddpm": {"title": "DDPM", "options": "--sampler ddpm --steps 1000", "paper": "DDPM"},
        "ddim": {"title": "DDIM", "options": "--sampler ddim --steps 50", "paper": "DDIM"},
        "eps_scaling": {
            "title": "epsilon scaling 1.014",
            "options": "--sampler ddpm --steps 1000 --eps_scale 1.014",
            "paper": "Epsilon Scaling",
            "models": pixels,
        },
        **solvers(),
    }


def solvers() -> dict[str, dict[str, str]]:
    """The authors' formula, in which epsilon scaling was measured; few-step solvers; guidance."""
    authors = "--sampler ddpm_author_code --thresholding none --steps 1000"
    return {
        "authors": {"title": "the authors' DDPM formula", "options": authors},
        "authors_eps": {
            "title": "the authors' DDPM formula, epsilon scaling 1.014",
            "options": f"{authors} --eps_scale 1.014",
        },
        "dpm_20": {"title": "DPM-Solver++ (2M), 20 steps", "options": "--sampler dpmpp --steps 20"},
        "unipc_20": {"title": "UniPC, 20 steps", "options": "--sampler unipc --steps 20"},
        **{
            f"guided_{round(100 * weight)}": {
                "title": f"DDIM, guidance w = {weight:g}",
                "options": f"--sampler ddim --steps 50 --guidance {weight:g}",
            }
            for weight in (0.5, 1.0, 2.0)
        },
    }


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    if variant not in ("paper", "small", "debug"):
        raise ValueError(f"unknown variant {variant!r}; known are paper, small and debug")
    return study(variant)
