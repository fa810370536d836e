"""Runs over streams, from the cache and by workers end with the same bytes as any other."""

import shutil

import pytest

from sft.errors import CheckpointError
from trained import Trained, make_world, write_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = make_world(tmp_path_factory.mktemp("world"))
    write_rows(folder / "long.jsonl", 400, lambda q, _: f"It is {q.split()[0]}.", seed=7)
    return folder


def streamed(world, name="stream", **changes):
    return Trained(
        world,
        name,
        **{
            "data__train": [{"path": str(world / "long.jsonl"), "streaming": True}],
            "data__cache": str(world / "tokens"),
            "optim__max_steps": 8,
            "guards__enabled": False,
            **changes,
        },
    )


def test_a_run_over_a_stream_resumes_to_the_same_bytes(world):
    whole = streamed(world)
    assert whole.account["num_rows"] == whole.account["counts"]["used"] + 12 == 280
    assert "streaming: 280 rows were read for the 64 examples" in whole.shown
    shutil.rmtree(whole.path / "model")
    shutil.rmtree(whole.path / "checkpoints" / "step-000008")
    (whole.path / "summary.json").unlink()
    again = streamed(world)
    assert "cache hit, because data (1 file)" in again.shown
    assert "resuming after step 4" in again.shown
    assert again.digest == whole.digest and again.account == whole.account
    # The tokens are gone: the stream is read again, and is the same.
    shutil.rmtree(world / "tokens")
    (whole.path / "summary.json").unlink()
    assert streamed(world).digest == whole.digest


def test_another_stream_is_refused(world):
    streamed(world, "other", optim__max_steps=2)
    (world / "other" / "summary.json").unlink()
    path = world / "long.jsonl"
    text = path.read_text()
    try:
        path.write_text(text.replace("It is", "It was"))
        with pytest.raises(CheckpointError, match=r"train: was (.|\n)*long\.jsonl: was"):
            streamed(world, "other", optim__max_steps=2)
    finally:
        path.write_text(text)


def test_a_cached_run_is_the_same_run(world):
    plain = Trained(world, "plain", optim__max_steps=2)
    first = Trained(world, "first", optim__max_steps=2, data__cache=str(world / "kept"))
    second = Trained(world, "second", optim__max_steps=2, data__cache=str(world / "kept"))
    assert plain.digest == first.digest == second.digest
    assert plain.account == first.account == second.account
    assert "cache" not in plain.shown
    assert "cache miss" in first.shown and "cache hit" in second.shown
    # Who tokenises, and where tokens are kept, is no other run.
    again = Trained(world, "plain", optim__max_steps=2, data__workers=2, data__cache="off")
    assert "this run is finished" in again.shown


def test_temperature_shows_small_sources_more_often(world):
    few = write_rows(world / "few.jsonl", 10, lambda q, _: "yes", seed=2)
    run = Trained(
        world,
        "warm",
        data__train=[str(few), str(world / "rows.jsonl")],
        data__val_fraction=0,
        data__temperature=2,
        optim__max_steps=2,
    )
    shares = {source["source"]: source["share"] for source in run.account["sources"]}
    assert shares["few.jsonl"] == pytest.approx(10**0.5 / (10**0.5 + 60**0.5), abs=1e-6)
    assert "source few.jsonl: 10 examples" in run.shown and "29.0% of what is seen" in run.shown
