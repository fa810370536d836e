"""Size, names and forbidden calls: what keeps the source readable and safe to run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
DRAWERS = {"utils", "util", "helpers", "common", "misc"}
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen"}
UNSAFE_KEYWORDS = {"shell", "allow_pickle"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def size_problems(text: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines >= MAX_FILE_LINES:
        yield f"{lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length >= MAX_FUNCTION_LINES:
                yield f"{node.name}: {length} lines"


def silencing_problems(text: str) -> Iterator[str]:
    """A budget that can be switched off is none."""
    for number, line in enumerate(text.splitlines(), 1):
        _, noqa, codes = line.partition("# noqa")
        if noqa and "C901" in codes:
            yield f"line {number}: complexity is not checked"


def safety_problems(text: str) -> Iterator[str]:
    """Ways to run code out of a file or a string: pickle, eval, a shell, YAML tags."""
    tree = ast.parse(text)
    safe = SAFE_LOADERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(last_name(b) in SAFE_LOADERS for b in node.bases)
    }
    for node in ast.walk(tree):
        for problem in (*import_problems(node), *call_problems(node, safe)):
            yield f"line {node.lineno}: {problem}"


def import_problems(node: ast.AST) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        if name.partition(".")[0] in UNSAFE_MODULES or name in {*UNSAFE_CALLS, "yaml.load"}:
            yield f"imports {name}"


def call_problems(node: ast.AST, safe_loaders: set[str]) -> Iterator[str]:
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in UNSAFE_CALLS:
        yield f"calls {name}"
    for key in UNSAFE_KEYWORDS & keywords.keys():
        if ast.unparse(keywords[key]) != "False":
            yield f"{name} with {key}"
    if name in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or last_name(loader) not in safe_loaders:
            yield f"{name} without a safe loader"
    elif name.startswith(("yaml.unsafe_", "yaml.full_")):
        yield f"calls {name}"


def last_name(node: ast.AST) -> str:
    return ast.unparse(node).rpartition(".")[2]


@pytest.mark.parametrize("check", [size_problems, silencing_problems])
def test_budgets(check):
    found = {
        str(path.relative_to(ROOT)): problems
        for path in python_files("src", "tests", "benchmarks", "examples")
        if (problems := list(check(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_no_drawer_for_everything():
    named = python_files("src", "tests", "benchmarks")
    assert [
        path for path in named if DRAWERS & {*path.relative_to(ROOT).with_suffix("").parts}
    ] == []


def test_nothing_runs_code_out_of_data():
    found = {
        str(path.relative_to(ROOT)): problems
        for path in python_files("src")
        if (problems := list(safety_problems(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_every_package_has_an_init():
    folders = {path.parent for path in python_files("src/sft")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(path)",
        "from torch import load",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "numpy.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
    ],
)
def test_unsafe_code_is_caught(text):
    assert len(list(safety_problems(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "torch.utils.data",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "class Mine(yaml.SafeLoader):\n    pass\nyaml.load(text, Mine)",
        "subprocess.run(words, shell=False)",
    ],
)
def test_safe_code_passes(text):
    assert list(safety_problems(text)) == []


def test_an_oversized_file_and_function_are_caught():
    text = "def long():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert list(size_problems(text)) == ["long: 60 lines"]
    assert list(size_problems("\n" * MAX_FILE_LINES)) == ["400 lines"]
    assert list(size_problems("def short():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 2))) == []


def test_a_silenced_complexity_is_caught():
    line = "x = 1  # no" + "qa: E501, C901"
    assert list(silencing_problems(line)) == ["line 1: complexity is not checked"]
