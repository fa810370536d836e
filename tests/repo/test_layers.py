"""Who may import whom: read from the docstring of `sft`, checked on every import in the source."""

import ast
import graphlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "sft"

# Whoever runs on a laptop, or is tested in milliseconds, stays free of these.
TORCH_FREE = ("guards", "report", "dashboard", "trackers", "config", "runs", "terminal", "texts")
HEAVY = ("torch", "transformers", "peft")
# Beyond the layers: these two read the run folder and nothing else.
RUN_FOLDER_ONLY = {"report": ("model", "probes", "train"), "dashboard": ("model", "probes")}
TRACKER_LIBRARIES = ("wandb", "mlflow", "tensorboard", "trackio")
MOST_ENTRIES = 26
# The package itself and `python -m sft` stand above every layer.
ENTRY = ("__init__", "__main__")


@dataclass(frozen=True)
class Import:
    """One import statement, as found in the file of `module`."""

    module: str  # dotted, below the package: "data.packing"
    line: int
    target: str  # dotted in full: "sft.data.batches" or "torch.nn"
    only_for_types: bool

    @property
    def part(self) -> str:
        """The room; the command of a room belongs to the command line."""
        return "cli" if self.module.endswith(".command") else self.module.partition(".")[0]

    @property
    def ours(self) -> str | None:
        """The target below the package, or None for another library."""
        head, _, rest = self.target.partition(".")
        return rest if head == "sft" else None

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def read_layers(docstring: str) -> dict[str, int]:
    """`a > b, c` -> {"a": 0, "b": 1, "c": 1}; a larger number is further down."""
    drawing = next(part for part in docstring.split("\n\n") if " > " in part)
    ranks: dict[str, int] = {}
    for rank, layer in enumerate(" ".join(drawing.split()).split(" > ")):
        for name in layer.split(", "):
            assert name.isidentifier(), f"{name!r} is no module name"
            assert name not in ranks, f"{name} stands in two layers"
            ranks[name] = rank
    return ranks


def read_modules(source: Path) -> dict[str, Path]:
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)] = path
    return modules


def read_imports(module: str, path: Path, modules: Iterable[str]) -> Iterator[Import]:
    """Every import of a file, those inside functions too; `from sft import x` means `sft.x`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    above = 0 if path.name == "__init__.py" else 1
    package = ["sft", *module.removesuffix("__init__").split(".")]
    package = package[: len(package) - above]
    for node in ast.walk(tree):
        for target in import_targets(node, package, modules):
            yield Import(module, node.lineno, target, id(node) in typed)


def import_targets(node: ast.AST, package: list[str], modules: Iterable[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            is_module = full.removeprefix("sft.") in modules
            yield full if base == "sft" or is_module else base


def load_closure(start: str, graph: dict[str, list[Import]]) -> Iterator[Import]:
    """All imports reached from `start` through our own modules, their packages included."""
    todo, seen = [start], {start}
    while todo:
        module = todo.pop()
        for found in graph.get(module, ()):
            if found.only_for_types:
                continue
            yield found
            parts = found.ours.split(".") if found.ours else []
            for prefix in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
                if prefix not in seen:
                    seen.add(prefix)
                    todo.append(prefix)


def layer_problem(found: Import, ranks: dict[str, int]) -> str | None:
    """Why one import breaks the layers, or None."""
    if found.ours is None or found.part in ENTRY:
        return None
    to = "cli" if found.ours.endswith(".command") else found.ours.partition(".")[0]
    if to not in ranks:
        return f"{found}: import it from the module that defines it"
    if to == found.part:
        return None
    if to in ("cli", "train") and found.part != "cli":
        return f"{found}: nothing imports {to}"
    if ranks[to] == ranks[found.part]:
        return f"{found}: siblings of one layer"
    if ranks[to] < ranks[found.part]:
        return f"{found}: upwards"
    if to in RUN_FOLDER_ONLY.get(found.part, ()):
        return f"{found}: {found.part} reads the run folder only"
    return None


def tracker_problem(found: Import) -> str | None:
    library = next((name for name in found.target.split(".") if name in TRACKER_LIBRARIES), None)
    if library is None or found.ours is not None or found.module == f"trackers.{library}":
        return None
    return f"{found}: only trackers/{library}.py may"


def find_problems(source: Path) -> list[str]:
    """Every broken rule of the package in `source`; an empty list when all is well."""
    modules = read_modules(source)
    ranks = read_layers(ast.get_docstring(ast.parse(modules["__init__"].read_text())) or "")
    unknown = {module.partition(".")[0] for module in modules} - ranks.keys() - {*ENTRY}
    if unknown:
        return [f"{name}: in no layer; add it to the docstring of sft" for name in sorted(unknown)]
    graph = {name: list(read_imports(name, path, modules)) for name, path in modules.items()}
    problems = {}  # a dict keeps the order and drops repetitions
    for imports in graph.values():
        for found in imports:
            problems[layer_problem(found, ranks)] = None
            problems[tracker_problem(found)] = None
    for module in graph:
        if module.partition(".")[0] in TORCH_FREE and not module.endswith(".command"):
            for found in load_closure(module, graph):
                if found.target.partition(".")[0] in HEAVY:
                    problems[f"{module} must not load torch, but {found}"] = None
    return [problem for problem in problems if problem]


def find_circle(source: Path) -> list[str] | None:
    """Modules that import each other in a ring, imports inside functions included; None if none."""
    modules = read_modules(source)
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for found in read_imports(name, path, modules):
            if found.ours in modules and not found.only_for_types and found.ours != name:
                graph[name].add(found.ours)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def test_the_source_keeps_its_layers():
    assert find_problems(SOURCE) == []


def test_no_module_imports_itself_through_others():
    assert find_circle(SOURCE) is None


def test_the_package_can_be_taken_in_at_a_glance():
    entries = [path.name for path in SOURCE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


DOCSTRING = (
    '"""Stub.\n\n    cli > train > step\n    > model, guards, report, trackers > data > config"""\n'
)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"__init__.py": DOCSTRING, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_downward_imports_pass(tmp_path):
    source = write_tree(
        tmp_path,
        {
            "__main__.py": "from sft.cli import main\n",
            "cli.py": "def main():\n    from sft.train import train\n    import sft.config\n",
            "train.py": "from sft import step, config\n",
            "step.py": "import torch\nfrom sft.guards.base import run\n",
            "guards/__init__.py": "from sft.guards import base\nfrom .nonfinite import check\n",
            "guards/base.py": "from sft.data import record\n",
            "guards/nonfinite.py": "import math\n",
            "data/__init__.py": "",
            "data/record.py": "from sft.config import Config\n",
            "trackers/wandb.py": "import wandb\n",
            "config.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
        },
    )
    assert find_problems(source) == []


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("data.py", "from sft.model import load", "data:1 imports sft.model: upwards"),
        ("data.py", "def f():\n  import sft.step", "data:2 imports sft.step: upwards"),
        ("data/a.py", "from ..step import x", "data.a:1 imports sft.step: upwards"),
        ("data/__init__.py", "from .. import step", "data:1 imports sft.step: upwards"),
        ("model.py", "from sft import guards", "model:1 imports sft.guards: siblings of one layer"),
        ("step.py", "import sft.train", "step:1 imports sft.train: nothing imports train"),
        ("train.py", "from sft.cli import main", "train:1 imports sft.cli: nothing imports cli"),
        (
            "step.py",
            "from sft import load_config",
            "step:1 imports sft.load_config: import it from the module that defines it",
        ),
        ("oddities.py", "", "oddities: in no layer; add it to the docstring of sft"),
        (
            "guards/a.py",
            "def f():\n  from torch import nn",
            "guards.a must not load torch, but guards.a:2 imports torch",
        ),
        (
            "trackers/console.py",
            "import wandb",
            "trackers.console:1 imports wandb: only trackers/wandb.py may",
        ),
    ],
)
def test_a_planted_violation_is_caught(tmp_path, file, text, problem):
    stubs = dict.fromkeys(["cli.py", "train.py", "guards/__init__.py", "config.py"], "")
    assert find_problems(write_tree(tmp_path, {**stubs, file: text})) == [problem]


def test_a_circle_is_caught_also_inside_functions(tmp_path):
    files = {
        "step.py": "from sft.data import rows",
        "data/__init__.py": "",
        "data/rows.py": "def f():\n    import sft.model",
        "model.py": "from sft.step import train",
    }
    circle = find_circle(write_tree(tmp_path, files))
    assert circle is not None and {*circle} == {"step", "data.rows", "model"}
    files["model.py"] = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sft.step"
    assert find_circle(write_tree(tmp_path / "typed", files)) is None


def test_torch_is_found_through_other_modules_and_packages(tmp_path):
    source = write_tree(
        tmp_path,
        {
            "report.py": "from sft.data.rows import read",
            "data/__init__.py": "from sft.data import batches",
            "data/rows.py": "",
            "data/batches.py": "import torch.nn as nn",
        },
    )
    assert find_problems(source) == [
        "report must not load torch, but data.batches:1 imports torch.nn"
    ]


def test_the_report_reads_the_run_folder_only(tmp_path):
    docstring = DOCSTRING.replace("cli > train >", "cli > train, dashboard >")
    source = write_tree(tmp_path, {"dashboard.py": "from sft import model", "model.py": ""})
    (source / "__init__.py").write_text(docstring)
    assert find_problems(source) == [
        "dashboard:1 imports sft.model: dashboard reads the run folder only"
    ]
