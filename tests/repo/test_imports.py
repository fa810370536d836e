"""`import sft` and `sft --help` answer at once: neither loads torch or transformers."""

import subprocess
import sys

HEAVY = "sorted({'torch', 'transformers', 'datasets', 'pyarrow'} & {*sys.modules})"


def run(code: str) -> str:
    """The output of `code` in a fresh interpreter, where nothing of ours is loaded yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_sft_loads_nothing_heavy():
    assert run(f"import sft, sys; print({HEAVY})") == "[]\n"


def test_load_config_loads_nothing_heavy():
    code = "import sft, sys; assert sft.load_config({}).model.name == 'starter'; "
    assert run(code + f"print({HEAVY})") == "[]\n"


def test_help_loads_nothing_heavy():
    code = (
        "import sys, sft.cli\n"
        "sys.argv = ['sft', '--help']\n"
        "try:\n    sft.cli.main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print({HEAVY})"
    )
    *text, heavy = run(code).splitlines()
    assert "train" in "\n".join(text)
    assert heavy == "[]"


def test_the_public_names_are_there():
    code = "import sft\nfor name in sft.__all__: print(getattr(sft, name).__name__)"
    assert run(code).split() == ["Config", "RunSummary", "load_config", "train"]


def test_sft_train_stays_the_function_when_the_module_came_first():
    assert run("import sft.train, sft; print(sft.train.__name__)") == "train\n"


def test_an_unknown_name_is_an_attribute_error():
    code = "import sft\ntry: sft.nonsense\nexcept AttributeError as error: print(error)"
    assert run(code) == "module 'sft' has no attribute 'nonsense'\n"
