"""`sft curate` on a million rows: time, memory and rows a second; and others on fewer rows.

    python benchmarks/curate_million.py --rows 1000000 --work /tmp/curate --out results.json
    python benchmarks/curate_million.py --rows 100000 --work /tmp/curate --out results.json \\
        --tools sft,check,datasketch,text_dedup

Rows are made by a seeded generator: 60 to 90 words, 5 % of them an earlier row with one word
changed, a fifth with the same opener, 1 in 500 with a text of a benchmark. Each tool runs in a
process of its own, niced; its peak resident memory is that of the process and of the largest of
its children. Results are added to the JSON file as they come.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OPENER = "Sure! Here is"
SIZES = {"near": 0.05, "opener": 0.20, "benchmark": 0.002}


def vocabulary(rng: random.Random) -> tuple[list[str], list[float]]:
    """20,000 words of one to four syllables, and Zipf's weights, summed up."""
    syllables = ["".join(p) for p in itertools.product("bdfgklmnprstv", "aeiou", ["", "n", "r"])]
    words: dict[str, None] = {}
    while len(words) < 20_000:
        words["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 4))))] = None
    weights = [1 / (rank + 10) for rank in range(len(words))]
    return list(words), list(itertools.accumulate(weights))


def make(rows: int, path: Path, benchmark: Path) -> None:
    """Write the rows and the benchmark; nothing when they are there."""
    if path.exists():
        return
    rng = random.Random(0)
    words, weights = vocabulary(rng)

    def text(count: int) -> str:
        found = rng.choices(words, cum_weights=weights, k=count)
        for at in range(0, count, 12):
            found[at] = found[at].capitalize()
            found[min(at + 11, count - 1)] += "."
        return " ".join(found)

    questions = [text(25) for _ in range(200)]
    benchmark.write_text("\n".join(questions) + "\n", encoding="utf-8")
    recent: list[tuple[str, str]] = []
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            draw = rng.random()
            if recent and draw < SIZES["near"]:
                prompt, answer = rng.choice(recent)
                parts = answer.split(" ")
                parts[rng.randrange(3, len(parts))] = rng.choice(words)
                answer = " ".join(parts)
            else:
                prompt, answer = text(rng.randint(15, 25)), text(rng.randint(45, 65))
                if rng.random() < SIZES["opener"]:
                    answer = f"{OPENER} {answer}"
                if rng.random() < SIZES["benchmark"]:
                    prompt = f"{prompt} {rng.choice(questions)}"
                if len(recent) < 20_000:
                    recent.append((prompt, answer))
                else:
                    recent[rng.randrange(20_000)] = (prompt, answer)
            file.write(json.dumps({"instruction": prompt, "output": answer}) + "\n")
    new.rename(path)


def run_sft(rows: Path, work: Path, benchmark: Path, workers: int) -> dict[str, object]:
    from sft.curate.stream.options import load_curate_config
    from sft.curate.stream.run import curate

    out = work / f"curated-{rows.stem}-{workers}.jsonl"
    for name in (out, out.with_name(f"{out.stem}.summary.json")):
        name.unlink(missing_ok=True)
    config = load_curate_config(
        {
            "data": [str(rows)],
            "out": str(out),
            "dedupe": "near",
            "decontaminate": [str(benchmark)],
            "cap_openers": 0.05,
            "workers": workers,
        }
    )
    started = time.monotonic()
    stages: dict[str, float] = {}

    def progress(what: str, done: int, total: int) -> None:
        stages[what.split(":")[0]] = round(time.monotonic() - started, 1)

    record = curate(config, progress)
    return {
        "kept": record["rows_written"],
        "dropped": {step["step"]: step["dropped"] for step in record["steps"] if step["dropped"]},
        "finished_after_seconds": stages,
    }


def run_check(rows: Path, work: Path, benchmark: Path, workers: int) -> dict[str, object]:
    """All checks of `sft check` on the text of the rows, which it holds in memory."""
    from sft.config import SourceConfig
    from sft.curate.checks import run_checks
    from sft.curate.corpus import Corpus
    from sft.data.rows.read import read_conversations

    loaded = read_conversations([SourceConfig(path=str(rows))], "skip")
    texts = benchmark.read_text(encoding="utf-8").splitlines()
    found = run_checks(Corpus(loaded.conversations, benchmarks={"benchmark": texts}))
    return {"findings": {f.check: f.count for f in found}}


def run_datasketch(rows: Path, work: Path, benchmark: Path, workers: int) -> dict[str, object]:
    """`datasets.map` for the signatures, then datasketch's LSH, one row after the other.

    As its documentation does it: what the index holds is taken for a near-duplicate.
    """
    import datasets
    from datasketch import MinHash, MinHashLSH

    def sign(row: dict[str, str]) -> dict[str, object]:
        parts = f"{row['instruction']} {row['output']}".lower().split()
        sketch = MinHash(num_perm=128, seed=1, scheme="affine32")
        sketch.update_batch(
            [" ".join(parts[i : i + 5]).encode() for i in range(max(1, len(parts) - 4))]
        )
        return {"signature": sketch.hashvalues}

    data = datasets.load_dataset(
        "json", data_files=str(rows), split="train", cache_dir=str(work / "cache")
    )
    signed = data.map(sign, num_proc=workers if workers > 1 else None, load_from_cache_file=False)
    index = MinHashLSH(threshold=0.8, num_perm=128)
    kept = []
    for at, row in enumerate(signed.select_columns(["signature"]).with_format("numpy")):
        sketch = MinHash(num_perm=128, seed=1, scheme="affine32", hashvalues=row["signature"])
        if not index.query(sketch):
            index.insert(at, sketch)
            kept.append(at)
    data.select(kept).to_json(str(work / "datasketch.jsonl"))
    return {"kept": len(kept)}


def run_text_dedup(rows: Path, work: Path, benchmark: Path, workers: int) -> dict[str, object]:
    """text-dedup's MinHash: word 5-grams, 0.8, 256 permutations, on one joined column."""
    joined = work / "text_dedup_rows.jsonl"
    with rows.open(encoding="utf-8") as file, joined.open("w", encoding="utf-8") as target:
        for line in file:
            row = json.loads(line)
            text = f"{row['instruction']}\n{row['output']}"
            target.write(json.dumps({"text": text}) + "\n")
    command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json"]
    command += ["--data_files", str(joined), "--split", "train", "--column", "text"]
    command += ["--ngram", "5", "--threshold", "0.8", "--num_perm", "256"]
    command += ["--num_proc", str(workers), "--cache_dir", str(work / "cache_td")]
    command += ["--output", str(work / "text_dedup_out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    import datasets

    return {"kept": len(datasets.load_from_disk(str(work / "text_dedup_out")))}


TOOLS = {
    "sft": run_sft,
    "check": run_check,
    "datasketch": run_datasketch,
    "text_dedup": run_text_dedup,
}
PACKAGES = ("sft", "numpy", "datasets", "datasketch", "text-dedup", "ray")


def measure(tool: str, args: argparse.Namespace, rows: Path, benchmark: Path) -> dict[str, object]:
    """Run one tool here; called in a process of its own."""
    started = time.monotonic()
    before = os.times()
    result = TOOLS[tool](rows, args.work, benchmark, args.workers)
    seconds = time.monotonic() - started
    after = os.times()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "tool": tool,
        "rows": args.rows,
        "workers": args.workers,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(after[:4]) - sum(before[:4]), 1),
        "rows_per_second": round(args.rows / seconds),
        "peak_mb": round(usage[0].ru_maxrss / 1024),
        "peak_mb_of_a_child": round(usage[1].ru_maxrss / 1024),
        "load_average": os.getloadavg()[0],
        **result,
    }


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("curate_million.json"))
    parser.add_argument("--tools", default="sft")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows, benchmark = args.work / f"rows-{args.rows}.jsonl", args.work / "benchmark.txt"
    if args.only:
        print(json.dumps(measure(args.only, args, rows, benchmark)))
        return
    make(args.rows, rows, benchmark)
    for _, tool in itertools.product(range(args.rounds), args.tools.split(",")):
        command = [sys.executable, __file__, "--only", tool, "--rows", str(args.rows)]
        command += ["--work", str(args.work), "--workers", str(args.workers)]
        quiet = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=quiet,
        )
        if done.returncode:
            result: dict[str, object] = {"tool": tool, "rows": args.rows, "failed": True}
        else:
            result = json.loads(done.stdout.splitlines()[-1])
        found = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
        found = {"versions": versions(), "cores": os.cpu_count(), "runs": [*found["runs"], result]}
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
