"""The documentation names what exists: settings, metrics, commands, files."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from sft.cli import cli
from sft.config import Config, SourceConfig
from sft.runs import metrics

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def settings_table() -> str:
    """The table of docs/training.md, made from the config classes."""
    sections = {name: field.annotation for name, field in Config.model_fields.items()} | {
        "data.train[]": SourceConfig
    }
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for section, model in sections.items():
        for name, field in model.model_fields.items():
            default = field.get_default(call_default_factory=True)
            shown = "required" if field.is_required() else f"`{default}`"
            meaning = (field.description or "").replace("|", "\\|")
            lines.append(f"| `{section}.{name}` | {shown} | {meaning} |")
    return "\n".join(lines)


def test_every_setting_is_documented():
    table = settings_table()
    assert table in (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), table


def test_every_metric_is_documented():
    table = metrics.markdown()
    assert table in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"), table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_pages_exist_and_take_their_flags(page):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for words in re.findall(r"^\s*(?:\.venv/bin/)?sft ([a-z].*)$", text, flags=re.MULTILINE):
        name, *rest = words.split("#")[0].split()
        command = cli.commands.get(name)
        assert isinstance(command, click.Command), f"{page.name}: sft {name}"
        known = {option for parameter in command.params for option in parameter.opts}
        used = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert used <= known, f"{page.name}: sft {words}"
        for assignment in re.findall(r"--set (\w+)\.(\w+)=", words):
            section = Config.model_fields[assignment[0]].annotation
            assert assignment[1] in section.model_fields, f"{page.name}: {words}"


def test_the_tree_in_the_design_exists():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = page.split("## Tree")[1].split("## Layers")[0]
    names = re.findall(r"^      (\S+)", tree, flags=re.MULTILINE)
    assert len(names) > 15
    assert [name for name in names if not (ROOT / "src/sft" / name).exists()] == []
