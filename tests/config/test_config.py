import json
import math

import pytest
import yaml
from pydantic import BaseModel

from sft.config import (
    Config,
    SourceConfig,
    dump_yaml,
    load_config,
    parse_assignment,
    parse_yaml,
    read_config,
    read_run_options,
    with_values,
)
from sft.config.load import RENAMED
from sft.errors import ConfigError


def sections():
    return [field.annotation for field in Config.model_fields.values()]


def every_field():
    for section in [*sections(), SourceConfig]:
        for name, field in section.model_fields.items():
            yield f"{section.__name__}.{name}", field


# What people write, and what they mean by it: YAML 1.2, which PyYAML is not.
LITERALS = [
    ("1e-4", 1e-4),
    ("1E5", 1e5),
    ("-2.5e+3", -2500.0),
    (".5", 0.5),
    ("5.", 5.0),
    ("12", 12),
    ("+3", 3),
    ("010", 10),
    ("12:30", "12:30"),
    ("2026-11-22", "2026-11-22"),
    ("no", "no"),
    ("off", "off"),
    ("Yes", "Yes"),
    ("true", True),
    ("False", False),
    ("~", None),
    ("null", None),
    ("'1e-4'", "1e-4"),
    ('"12"', "12"),
    ("1e", "1e"),
    ("1.2.3", "1.2.3"),
    ("0x10", "0x10"),
    ("=", "="),
    ("<<", "<<"),
    (".inf", math.inf),
    ("[1, 2e-1, off]", [1, 0.2, "off"]),
    ("{a: no}", {"a": "no"}),
    ("a b", "a b"),
]


@pytest.mark.parametrize(("text", "value"), LITERALS)
def test_a_literal_is_what_it_evals_like(text, value):
    found = parse_yaml(f"key: {text}", "x")["key"]
    assert (found, type(found)) == (value, type(value))
    assert parse_assignment(f"a.b={text}") == ("a.b", found)


def test_nan_is_a_number():
    assert math.isnan(parse_yaml(".nan", "x"))


@pytest.mark.parametrize(
    "text", [text.strip("'\"") for text, _ in LITERALS] + ["", " x", "é\n", "#"]
)
def test_a_text_that_evals_like_something_else_survives_writing_and_reading(text):
    tree = {"a": text, "b": [text], text: 1}
    assert parse_yaml(dump_yaml(tree), "x") == tree
    assert yaml.safe_load(dump_yaml(tree)) == tree  # also for readers of YAML 1.1


def test_numbers_survive_writing_and_reading_to_the_last_digit():
    tree = {"floats": [1e-8, 1e300, 0.1 + 0.2, -5e-324, 1.0, 2e-5], "ints": [0, -7, 2**63]}
    assert repr(parse_yaml(dump_yaml(tree), "x")) == repr(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\nb: *x\n", "x.yaml:2: aliases (*name) are not read"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml:4: 'c' is given twice"),
        ("a:\n\tb: 1", "x.yaml:2: found character '\\t'"),
        ("a: [", "x.yaml:1: expected the node content"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "x.yaml:1: tags (!!python/object/apply:os.system) are not read",
        ),
        ("a: !!int x", "x.yaml:1: tags (!!int) are not read"),
        ("? [a]\n: 1", "x.yaml:1: found unhashable key"),
        ("[" * 3000, "x.yaml: not valid YAML"),
        ("a: 1\n---\nb: 2", "x.yaml:2: but found another document"),
        ("\x07", "x.yaml: not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert message in str(caught.value)


def test_a_bomb_of_aliases_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases"):
        parse_yaml("\n".join(lines), "bomb.yaml")


def test_every_field_is_documented():
    fields = dict(every_field())
    assert len(fields) > 50
    assert [name for name, field in fields.items() if not (field.description or "").strip()] == []
    assert [s.__name__ for s in [*sections(), SourceConfig] if not (s.__doc__ or "").strip()] == []


def test_every_default_is_valid_and_survives_the_run_folder():
    config = load_config({})
    text = dump_yaml(config.model_dump(mode="json"))
    assert load_config(parse_yaml(text, "config.yaml")) == config
    assert json.loads(config.model_dump_json())["optim"]["learning_rate"] == "auto"


def test_sections_are_frozen_and_closed():
    for section in [Config, *sections(), SourceConfig]:
        assert issubclass(section, BaseModel)
        assert (section.model_config["extra"], section.model_config["frozen"]) == ("forbid", True)


def problems(values, overrides=None):
    with pytest.raises(ConfigError) as caught:
        load_config(values, overrides)
    return str(caught.value).splitlines()


def test_all_problems_are_reported_at_once():
    found = problems(
        {
            "optim": {"lerning_rate": 1, "epochs": 0, "schedule": "cosin"},
            "data": {"train": [{"path": "a", "wieght": 2}], "max_seq_len": 1},
            "modle": {"name": "x"},
        }
    )
    assert len(found) == 6
    for start, inside in (
        ("optim.lerning_rate: unknown key.", "Did you mean 'learning_rate'?"),
        ("optim.epochs: Input should be greater than 0", "(found 0)"),
        ("optim.schedule: 'cosin' is not one of", "Did you mean 'cosine'?"),
        ("data.train.0.wieght: unknown key.", "Did you mean 'weight'?"),
        ("data.max_seq_len: must be at least 2, or `auto`", "(found 1)"),
        ("modle: unknown key.", "Did you mean 'model'?"),
    ):
        assert [line for line in found if line.startswith(start) and inside in line], start


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_key_gives_the_new_name(old, new):
    assert problems({old: {"every": 3, "budget": 0.2}}) == [
        f"{old}: {old} is called {new} now: {new}.every, {new}.budget"
    ]
    with pytest.raises(ConfigError, match="looks is called eval now"):
        load_config({}, {"looks.every": 3})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("eval.every", 1.5, "eval.every: Input should be a valid integer, got a number with a"),
        ("eval.every", "often", "eval.every: Input should be a valid integer, unable to parse"),
        ("eval.every", 0, "eval.every: must be at least 1, or `auto` (found 0)"),
        ("checkpoint.every", -1, "checkpoint.every: must be at least 1, or `auto`"),
        ("optim.learning_rate", "fast", "optim.learning_rate: Input should be a valid number"),
        ("optim.learning_rate", 0, "optim.learning_rate: must be above 0, or `auto`"),
        ("optim.learning_rate", math.inf, "optim.learning_rate: must be above 0, or `auto`"),
        ("optim.learning_rate", math.nan, "optim.learning_rate: must be above 0, or `auto`"),
        ("optim.warmup_steps", -1, "optim.warmup_steps: must be at least 0, or `auto`"),
        ("data.val_fraction", 1, "data.val_fraction: must be at least 0 and below 1, or `auto`"),
        ("data.prompt_weight", 2, "data.prompt_weight: Input should be less than or equal to 1"),
        ("data.train", None, "data.train.0: Input should be a valid dictionary"),
        ("method.target_modules", 3, "method.target_modules: Input should be a valid string"),
        ("method.kind", "frozen", "method.kind: frozen needs method.trainable"),
        ("method.trainable", ["x"], "method.trainable is read by method.kind: frozen only"),
        ("run.seed", -1, "run.seed: Input should be greater than or equal to 0 (found -1)"),
        ("optim", None, "optim: expected section.key, such as optim.learning_rate"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(key, value, message):
    (line,) = problems({}, {key: value})
    assert line.startswith(message)


def test_an_override_wins_and_the_later_one_of_two():
    values = {"optim": {"learning_rate": 1e-3, "epochs": 3}}
    config = load_config(values, {"optim.learning_rate": 1e-4, "run.seed": 7})
    assert (config.optim.learning_rate, config.optim.epochs, config.run.seed) == (1e-4, 3, 7)
    assert values == {"optim": {"learning_rate": 1e-3, "epochs": 3}}  # the caller's, untouched
    assert with_values(config, {"optim.epochs": 1}).optim.epochs == 1
    assert config.optim.epochs == 3


def test_an_override_into_what_is_no_section_is_refused():
    assert problems({"optim": 3}, {"optim.epochs": 1}) == ["optim: expected keys, found 3"]
    assert problems({}, {"optim.a.b": 1})[0].startswith("optim.a.b: unknown key.")


def test_a_path_is_a_source():
    data = load_config({"data": {"train": "a.jsonl", "val": [{"path": "b.csv"}]}}).data
    assert [source.path for source in (*data.train, *data.val)] == ["a.jsonl", "b.csv"]


def test_assignments():
    assert parse_assignment("optim.learning_rate = 1e-4") == ("optim.learning_rate", 1e-4)
    assert parse_assignment("model.name=a=b") == ("model.name", "a=b")
    assert parse_assignment("optim.max_steps=") == ("optim.max_steps", None)
    with pytest.raises(ConfigError, match=r"--set optim\.x: expected section\.key=value"):
        parse_assignment("optim.x")


def test_a_configuration_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("\ufeffmodel:\r\n  name: é\r\n".encode())
    assert read_config(path) == {"model": {"name": "é"}}
    path.write_text('{"optim": {"epochs": 1}}')
    assert read_config(path) == {"optim": {"epochs": 1}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "run.yaml: expected sections such as `model:`, found None"),
        (b"- a\n", "run.yaml: expected sections such as `model:`, found ['a']"),
        (b"a: \xff\n", "run.yaml: cannot be read as UTF-8 text"),
        (b"#" * 1_000_001, "run.yaml: larger than 1 MB"),
        (b"a: [\n", "run.yaml:2: expected the node content"),
    ],
)
def test_what_is_no_configuration_file_is_refused(tmp_path, data, message):
    path = tmp_path / "run.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert message in str(caught.value)


def test_a_file_of_one_megabyte_is_read(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"optim:\n  epochs: 1\n".ljust(1_000_000, b"#"))
    assert read_config(path)["optim"]["epochs"] == 1


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: no such file"):
        read_config(tmp_path / "no.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path)


def test_a_config_knows_where_its_values_come_from():
    values, flags = {"optim": {"epochs": 3, "name": "sgd"}}, {"optim.name": "adamw"}
    config = load_config(values, flags, origins=("file", "flag"))
    assert config.sources == {"optim.epochs": "file", "optim.name": "flag"}
    resolved = with_values(config, {"optim.learning_rate": 1e-4})
    assert resolved.sources == config.sources
    assert config == load_config({"optim": {"epochs": 3}})


def test_the_config_of_a_run_is_a_config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("config: {optim: {epochs: 3}}\nreasons: {}\nfingerprint: {}\n")
    assert read_run_options(path) == {"optim": {"epochs": 3}}
    path.write_text("config: {optim: {epochs: 3}}\n")
    with pytest.raises(ConfigError, match=r"config: unknown key"):
        load_config(read_run_options(path))
