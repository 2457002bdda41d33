"""The study of the demo: every row of the paper's study, at toy size, on one public slide.

Paper: all of it, in small. One slide is one patient, so blocks of it stand in for patients: the numbers show that every
row works, and nothing about generated images. Expected: every row is filled.
Cost: an hour of CPU time on 2 cores. Command: make study, or
    diffpath study --config diffpath:study_demo --workdir STUDY
Your own slide: --config.slides=SLIDE.svs --config.annotations=SLIDE.geojson
Variants: (none) the demo's study; :debug tiny networks and sets, for tests.
"""

from ml_collections import ConfigDict


def demo(debug: bool) -> ConfigDict:
    """The demo's study, or its ``debug`` variant."""
    variant = ":debug" if debug else ""
    steps = 2 if debug else 0
    many = "" if debug else "--batch_size 32"
    return ConfigDict(
        {
            "title": "Synthetic patches of one slide: the demo's study",
            "notes": (
                "One public slide (OpenSlide's CMU-1-Small-Region), small networks, minutes of training on a CPU: "
                "this page shows that every row works, and nothing about what such images are worth.",
            ),
            "slides": "diffpath:demo",
            "annotations": "",
            "seed": 0,
            "datasets": datasets(debug),
            "models": models(variant),
            "samplers": {**samplers(steps, many), **solvers(steps, many)},
            "measured": ("fov_48", "fov_64"),
            "compared": ("ddpm", "ddim", "eps_scaling"),
            "solvers": tuple(solvers(steps, many)),
            "patch_sizes": (16, 32, 48),
            "num_per_class": 4 if debug else 32,
            "features": ("classifier",),
            "resamples": 20 if debug else 100,
            "held_out": 300,
            "classifier": {
                "config": f"diffpath:demo_classifier{variant}",
                "options": "",
                "seeds": 2 if debug else 3,
            },
            "worth": worth(debug),
        }
    )


def datasets(debug: bool) -> dict[str, dict[str, object]]:
    """Two sizes of fields of one slide, as of the paper; and one of other fields, to test on."""
    return {
        "fov_48": {
            "title": "48 um",
            "prep": f"--stride_um {16 if debug else 4} --gap_um 24 --block_um 120",
            "fov_um": 48.0,
            "patch_px": 32,
            "models": ("ddpm",),
            "paper": "PKGH_224",
        },
        "fov_64": {
            "title": "64 um",
            "prep": "--stride_um 8 --gap_um 32 --block_um 120",
            "fov_um": 64.0,
            "patch_px": 64,
            "models": ("ldm",),
            "paper": "PKGH_336",
        },
        "coarse": {
            "title": "the same slide, fields of 72 um",
            "prep": "--stride_um 12 --gap_um 24 --block_um 120",
            "fov_um": 72.0,
            "patch_px": 32,
        },
    }


def models(variant: str) -> dict[str, dict[str, object]]:
    """A model of pixels and one of latents."""
    return {
        "ddpm": {"title": "DDPM", "config": f"diffpath:demo_ddpm{variant}", "paper": "DDPM"},
        "ldm": {
            "title": "LDM",
            "config": f"diffpath:demo_ldm{variant}",
            "first_stage": f"diffpath:demo_vqgan{variant}",
            "encode": "--augment hflip",
            "paper": "LDM",
        },
    }


def samplers(steps: int, many: str) -> dict[str, dict[str, object]]:
    """The samplers of the paper."""
    return {
        "ddpm": {
            "title": "DDPM",
            "options": f"--sampler ddpm --steps {steps or 40} --trajectory {many}",
            "paper": "DDPM",
        },
        "ddim": {"title": "DDIM", "options": f"--sampler ddim --steps {steps or 20} {many}", "paper": "DDIM"},
        "eps_scaling": {
            "title": "epsilon scaling 1.014",
            "options": f"--sampler ddpm --steps {steps or 40} --eps_scale 1.014 {many}",
            "paper": "Epsilon Scaling",
            "models": ("ddpm",),
        },
    }


def solvers(steps: int, many: str) -> dict[str, dict[str, object]]:
    """Few-step solvers, guidance, and the authors' sampler, in which epsilon scaling was measured."""
    return {
        "authors_eps": {
            "title": "the authors' DDPM formula, epsilon scaling 1.014",
            "options": f"--sampler ddpm_author_code --thresholding none --steps {steps or 40} --eps_scale 1.014 {many}",
        },
        "dpm_10": {
            "title": "DPM-Solver++ (2M), 10 steps",
            "options": f"--sampler dpmpp --steps {steps or 10} {many}",
        },
        "unipc_10": {"title": "UniPC, 10 steps", "options": f"--sampler unipc --steps {steps or 10} {many}"},
        "guided_1": {
            "title": "DDIM, guidance w = 1",
            "options": f"--sampler ddim --steps {steps or 20} --guidance 1 {many}",
        },
    }


def worth(debug: bool) -> dict[str, object]:
    """Arms of a few hundred images."""
    return {
        "sampler": "ddim",
        "real_per_class": 8 if debug else 150,
        "alone": (1.0,) if debug else (0.5, 1.0, 2.0),
        "added": (1.0,) if debug else (0.5, 1.0, 2.0),
        "patient_shares": (0.5,) if debug else (0.2, 0.5),
        "scarce_class": "epidermis",
        "scarce_shares": (0.5,) if debug else (0.25,),
        "few_options": "" if debug else "--config.train.num_steps=200",
        "confidence": 0.5 if debug else 0.9,
        "external": "coarse",
    }


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant."""
    if variant not in ("", "debug"):
        raise ValueError(f"unknown variant {variant!r}; known are debug and none")
    return demo(variant == "debug")
