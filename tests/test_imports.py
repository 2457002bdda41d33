"""Who may import whom: the layers of the design, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [p for package in ("data_prep", "diffpath_jax") for p in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with each imported name as a possible module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imports(path))


def users(module: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for p in FILES if uses(p, module)}


def inside(folder: str) -> set[str]:
    return {str(p.relative_to(ROOT)) for p in FILES if p.is_relative_to(ROOT / folder)}


@pytest.mark.parametrize(
    "module", ["jax", "flax", "optax", "orbax", "diffpath_jax.networks", "diffpath_jax.training.loop"]
)
def test_data_prep_never_imports(module):
    assert not users(module) & inside("data_prep")


def test_what_data_prep_imports_loads_no_jax():
    code = (
        "import sys, data_prep.cli, diffpath_jax.data.writer, diffpath_jax.data.manifest, diffpath_jax.cli;"
        "bad = {'jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("orbax", {"diffpath_jax/training/checkpoint.py"}),
        ("openslide", {"data_prep/slide/slides.py"}),
        ("defusedxml", {"data_prep/annotations/safe_xml.py"}),
        ("distributed", {"data_prep/job/scheduling.py"}),
        ("multiprocessing", {"data_prep/job/scheduling.py"}),
        # Grain starts its processes with flags.
        ("absl.flags", {"diffpath_jax/config/files.py", "diffpath_jax/data/pipeline.py"}),
        ("ml_collections", {"diffpath_jax/config/files.py"}),
        ("tensorboardX", {"diffpath_jax/training/metrics_log.py"}),
        ("torch", {"diffpath_jax/weights/torch_files.py"}),
        ("safetensors", {"diffpath_jax/weights/safetensors_file.py"}),
        ("onnxruntime", {"diffpath_jax/evaluation/features/onnx.py"}),
        # Images, and the directories of TIFF.
        ("PIL", {"diffpath_jax/data/image_files.py", "data_prep/slide/jpeg_tiles.py"}),
        ("jinja2", {"diffpath_jax/render/html.py"}),
        ("tensorflow", set()),
        ("pickle", set()),
    ],
)
def test_one_home_for(module, allowed):
    assert users(module) == allowed


def test_only_networks_import_nnx():
    assert users("flax") <= inside("diffpath_jax/networks")


def test_only_pipeline_reads_with_grain():
    assert users("grain") == {"diffpath_jax/data/pipeline.py"}


@pytest.mark.parametrize("module", ["diffusion", "samplers", "train", "task", "build", "data", "commands"])
def test_networks_know_nothing_of(module):
    assert not users(f"diffpath_jax.{module}") & inside("diffpath_jax/networks")


@pytest.mark.parametrize("module", ["networks", "codecs", "conditioning", "train", "data", "build"])
def test_diffusion_and_samplers_know_nothing_of(module):
    assert not users(f"diffpath_jax.{module}") & {
        "diffpath_jax/diffusion/schedule.py",
        *inside("diffpath_jax/samplers"),
    }


def test_shapes_imports_nothing_of_ours():
    assert not uses(ROOT / "diffpath_jax/shapes.py", "diffpath_jax")
    assert not uses(ROOT / "diffpath_jax/diffusion/schedule.py", "diffpath_jax.samplers")


def test_only_cli_loads_commands():
    assert users("diffpath_jax.commands") <= inside("diffpath_jax/commands")


def test_init_files_import_nothing():
    assert not [p for p in FILES if p.name == "__init__.py" and imports(p)]


def test_no_pmap_and_no_utils():
    assert not [p for p in FILES if "pmap(" in p.read_text()]
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common")]
