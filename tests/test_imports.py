"""Who may import whom: the floors of the house, read from the source."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [p for package in ("data_prep", "diffpath_jax") for p in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES if p.name != "__init__.py"}

# The lowest floor first. A folder (or a module that lies in none) imports from lower floors and from itself alone: of
# what stands beside it in a line it knows nothing.
FLOORS = {
    "diffpath_jax": """
        shapes  ranges  io
        devices  data  diffusion  networks  metrics
        render  diffusion.samplers  weights  training.tasks  metrics.memorization
        training
        config
        runs
        latents  sampling  evaluation.features
        evaluation
        exchange
        report  study  api  citations  reader
        study.rows
        cli
        commands
    """,
    # It stands on ranges and three folders of the other package, and nothing stands on it.
    "data_prep": """
        diffpath_jax.ranges  diffpath_jax.io  diffpath_jax.data  diffpath_jax.render
        tables
        slide.readers
        slide
        annotations  splits
        fields
        qa
        sources
        job
        places
        cli
    """,
}
# `python -m data_prep` is a command: it asks the command line.
DOOR = "data_prep.__main__"
# The library's face reads slides, and places of patches are exported: they ask the other package when that is wanted.
FACES = {("diffpath_jax.api", "data_prep.fields.read"), ("diffpath_jax.commands.export", "data_prep.places")}


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with each imported name as a possible module."""
    found = set()
    for node in nodes(path):
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


def own(package: str) -> list[str]:
    return [name for name in MODULES if name.startswith(f"{package}.") and name != DOOR]


def room(module: str) -> str:
    """The folder that a module lies in; itself where it lies in none."""
    folder = module.rpartition(".")[0]
    return folder if "." in folder else module


def floor_of_each_room(package: str) -> dict[str, int]:
    lines = enumerate(FLOORS[package].split("\n"))
    full = {name: floor for floor, line in lines for name in line.split()}
    return {name if name.startswith("diffpath_jax.") else f"{package}.{name}": floor for name, floor in full.items()}


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor(package):
    rooms = {name for name in floor_of_each_room(package) if name.startswith(f"{package}.")}
    assert rooms == {room(module) for module in own(package)}


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_from_lower_floors_alone(package):
    floors = floor_of_each_room(package)
    wrong = [
        f"{module} -> {other}"
        for module in own(package)
        for other in imports(MODULES[module]) & set(MODULES)
        if (module, other) not in FACES
        and room(other) != room(module)
        and floors.get(room(other), len(MODULES)) >= floors[room(module)]
    ]
    assert not wrong


def test_the_listing_in_contributing_names_every_folder_and_module():
    """And nothing that is not there."""
    listing = (ROOT / "CONTRIBUTING.md").read_text().split("```")[1]
    # `report api`: names before the words that explain them; folders end in a slash.
    words = set(re.findall(r"[a-z_]+", listing))
    modules = {name.rpartition(".")[2] for name in MODULES if name != DOOR and ".commands." not in name}
    folders = {path.parent.name for path in FILES}
    assert not (modules | folders) - words
    assert (
        not set(re.findall(r"([a-z_]+)/", listing))
        - folders
        - {"templates", "configs", "demo", "benchmarks", "deploy"}
        - {*("docs", "tests", "golden", "compatibility")}
    )


def test_no_module_imports_itself_through_others():
    graph = {name: imports(path) & set(MODULES) for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", ["jax", "flax", "optax", "orbax"])
def test_data_prep_never_imports(module):
    assert not users(module) & inside("data_prep")


def test_nothing_imports_data_prep():
    """The command line, the commands and the library's face may; they ask for it when it is wanted."""
    others = users("data_prep") - inside("data_prep")
    assert others <= {"diffpath_jax/cli.py", "diffpath_jax/api.py", *inside("diffpath_jax/commands")}


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
        ("openslide", {"data_prep/slide/readers/openslide_reader.py"}),
        ("defusedxml", {"data_prep/annotations/safe_xml.py"}),
        ("distributed", {"data_prep/job/scheduling.py"}),
        ("multiprocessing", {"data_prep/job/scheduling.py"}),
        # Grain starts its processes with flags.
        ("absl.flags", {"diffpath_jax/config/files.py", "diffpath_jax/data/pipeline.py"}),
        ("ml_collections", {"diffpath_jax/config/files.py"}),
        # It imports PyTorch, unless it is kept from it.
        ("tensorboardX", {"diffpath_jax/training/tensorboard_without_torch.py"}),
        # It imports TensorFlow, unless it is kept from it.
        ("clu.metric_writers", {"diffpath_jax/training/clu_without_tensorflow.py"}),
        ("clu.parameter_overview", {"diffpath_jax/runs/cost.py", "diffpath_jax/training/loop.py"}),
        ("clu.periodic_actions", {"diffpath_jax/training/clu_without_tensorflow.py"}),
        ("torch", {"diffpath_jax/weights/torch_files.py"}),
        ("safetensors", {"diffpath_jax/weights/safetensors_file.py"}),
        ("onnxruntime", {"diffpath_jax/evaluation/features/onnx.py"}),
        # Images, and the directories of TIFF.
        ("PIL", {"diffpath_jax/data/image_files.py", "data_prep/slide/readers/jpeg_tiles.py"}),
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


def test_only_cli_loads_commands():
    assert users("diffpath_jax.commands") <= inside("diffpath_jax/commands")


def test_init_files_import_nothing():
    assert not [p for p in FILES if p.name == "__init__.py" and imports(p)]


def functions() -> list[tuple[Path, ast.FunctionDef]]:
    return [(path, node) for path in FILES for node in nodes(path) if isinstance(node, ast.FunctionDef)]


def test_functions_and_files_are_short():
    """Nine functions of ten have up to 24 lines, docstrings included, and one of a hundred more than 40."""
    lengths = sorted(node.end_lineno - node.lineno + 1 for _, node in functions())
    assert lengths[len(lengths) * 9 // 10] <= 24
    assert sum(length > 40 for length in lengths) <= len(lengths) / 100
    assert not [p for p in FILES if len(p.read_text().splitlines()) > 400]


def test_every_argument_and_result_has_a_type():
    """`self` and `cls` apart; mypy asks it of functions that have one annotation, and this of all."""
    for path, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        bare = [each.arg for each in arguments if each and not each.annotation and each.arg not in ("self", "cls")]
        assert not bare and node.returns, f"{path}:{node.lineno}: {node.name}: {bare}"


def test_no_pmap_and_no_utils():
    assert not [p for p in FILES if "pmap(" in p.read_text()]
    assert not [p for p in FILES if p.stem in ("utils", "helpers", "common")]
