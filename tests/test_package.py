import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules_after(code):
    """Names in sys.modules after running code in a fresh interpreter that starts in the checkout."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


def test_import_zoo_and_the_light_commands_load_neither_torch_nor_lightning():
    loaded = modules_after("import zoo\nzoo.list_models()\nfrom zoo.__main__ import main\nmain(['list', '--json'])")
    assert not {"torch", "lightning", "transformers", "matplotlib", "numpy"} & loaded


@pytest.mark.parametrize("name", ["gpt2-mini.learned", "sae-gated.gpt2-mini", "dictionary.null", "toy.skip-bigrams"])
def test_loading_a_checkpoint_needs_torch_and_not_lightning(name):
    loaded = modules_after(f"import zoo\nzoo.load({name!r})")
    assert "torch" in loaded
    assert (
        not {"lightning", "pytorch_lightning", "jsonargparse", "numba", "scipy.stats", "matplotlib", "datasets"}
        & loaded
    )


@pytest.mark.parametrize("package", ["zoo", "zoo.models", "zoo.models.toy"])
def test_type_checkers_see_the_names_that_are_imported_when_asked_for(package):
    module = importlib.import_module(package)
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in block.body for alias in node.names}
    assert sorted(seen) == module.__all__
    assert all(getattr(module, name).__name__ == name for name in seen)


def test_models_datamodules_and_callbacks_are_imported_only_as_parts_of_zoo():
    loaded = modules_after("import zoo.cli, zoo.studies.embedding")
    assert {"zoo.models", "zoo.datamodules", "zoo.callbacks"} <= loaded
    assert not {"models", "datamodules", "callbacks"} & loaded


LAYERS = [  # modules import only from earlier layers and, in those that begin with a star, from their own
    ["described", "end_with_parent", "errors", "estimates", "lazy", "precision", "wording"],
    ["network", "protocols"],
    ["interventions"],
    ["*", "active_inputs", "catalog", "checkpoint_config", "checkpoints", "hugging_face", "metrics", "model_card"],
    ["models", "datamodules"],
    ["*", "dictionary_learning", "export", "gemma_scope", "hub", "matrices", "quiet_fit", "saelens"],
    ["analysis", "callbacks", "functions"],
    ["*", "cli", "config_files", "families_file", "rebuild", "report", "run_folder", "short_errors", "study"],
    ["running", "training_process"],
    ["shared_tasks"],
    ["studies", "study_command"],
]
LAYERS[0] += ["free_memory"]
LAYERS[3] += ["near_neighbours", "null_models", "paths", "source", "source_files", "sparsify", "token_texts"]
LAYERS[3] += ["local_learning", "perturbations", "row_choice", "untrained_rows"]
LAYERS[3] += ["gguf_files", "matrix_files", "quantised", "tensor_files"]
LAYERS[7] += ["training_text"]
LAYERS[7] += ["compare", "compare_runs", "compare_studies"]
LAYER_OF = {module: layer for layer, modules in enumerate(LAYERS) for module in modules if module != "*"}


def imported_modules(path):
    """Top-level modules and packages of the zoo that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "zoo":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("zoo."))


@pytest.mark.parametrize("module", LAYER_OF)
def test_modules_import_only_from_lower_layers_and_models_and_data_not_each_other(module):
    path = ROOT / "zoo" / f"{module}.py"
    files = [path] if path.exists() else sorted((ROOT / "zoo" / module).rglob("*.py"))
    assert files
    own = LAYER_OF[module]
    for file in files:
        for other in set(imported_modules(file)) & LAYER_OF.keys() - {module}:
            within = LAYER_OF[other] == own and "*" in LAYERS[own]
            assert LAYER_OF[other] < own or within, f"{file} imports {other}"
