"""Runs jobs on mutated inputs and checks how they end: `make fuzz N=200 SEED=1`.

    python -m tests.fuzz --count 200 --seed 1
    python -m tests.fuzz --seed 1 --only 37        # one input again; its folder is kept

Equal seeds give equal inputs. An input on which a check fails stays in `OUT/inputs/INDEX`, with `what.json` (what was
mutated, what failed) and `stderr.txt` (standard error). The inputs run in a child process that is started again if it
dies. The exit code is 0 if every check held.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.flows import ROOT


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--only", type=int, help="index of the only input, which is kept")
    parser.add_argument("--target", help="mutate only this; indices then give other inputs")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--trained", type=Path, help="folder of tests.support.nights.make_nights; default: made")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    given.out = given.out.absolute()
    if given.only is not None:
        given.first, given.count = given.only, 1
    return _child(given) if given.child else _parent(given)


def _child(given: argparse.Namespace) -> int:
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from tests.fuzz import runner  # imports Spark

    watched = runner.Watched(given.out / "stderr.log")
    spark = runner.session()
    base = runner.opened(given.out / "base")
    for index in range(given.first, given.first + given.count):
        _say({"started": index})
        _say(runner.run_one(watched, base, given.out, given.seed, index, given.target))
        if given.only is not None and (given.out / "inputs" / str(index)).exists():
            _say({"kept": str(given.out / "inputs" / str(index))})
    spark.stop()
    return 0


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, default=str) + "\n")
    sys.stdout.flush()


def _parent(given: argparse.Namespace) -> int:
    begin = time.monotonic()
    shutil.rmtree(given.out / "inputs", ignore_errors=True)
    if not (given.out / "base/checkpoint.npz").exists():
        _make_base(given)
    prepared = time.monotonic() - begin
    results: list[dict[str, Any]] = []
    first, end = given.first, given.first + given.count
    with open(given.out / "results.jsonl", "w") as stream:
        while first < end:
            for result in _results_of_child(given, first, end - first):
                results.append(result)
                stream.write(json.dumps(result) + "\n")
                stream.flush()
                if result["faults"]:
                    sys.stdout.write(f"{result['index']} {result['target']}: {'; '.join(result['faults'])[:300]}\n")
                    sys.stdout.flush()
                first = result["index"] + 1
    sys.stdout.write(summary(results, given.seed, prepared, time.monotonic() - begin))
    return 1 if any(result["faults"] for result in results) else 0


def _make_base(given: argparse.Namespace) -> None:
    shutil.rmtree(given.out / "base", ignore_errors=True)
    code = (
        "import sys; from pathlib import Path; from tests.fuzz import runner; from pyspark.sql import SparkSession;"
        "spark = SparkSession.builder.master('local[2]').getOrCreate();"
        "runner.make_base(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None); spark.stop()"
    )
    given.out.mkdir(parents=True, exist_ok=True)
    trained = [str(given.trained.absolute())] if given.trained else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    with open(given.out / "base.log", "w") as log:
        command = [sys.executable, "-c", code, str(given.out / "base"), *trained]
        subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=log, stderr=log)


def _results_of_child(given: argparse.Namespace, first: int, count: int) -> Iterator[dict[str, Any]]:
    options = ["--first", str(first), "--count", str(count), "--seed", str(given.seed), "--out", str(given.out)]
    if given.target:
        options += ["--target", given.target]
    command = [sys.executable, "-m", "tests.fuzz", "--child", *options]
    started = None
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            content = json.loads(line) if line.startswith("{") else {}
            if "started" in content:
                started = content["started"]
            elif "target" in content:
                started = None
                yield content
    if started is not None:
        yield {
            "index": started,
            "target": "?",
            "code": process.returncode,
            "seconds": 0.0,
            "faults": [f"the process ended with {process.returncode}"],
            "applied": [],
        }
    elif process.returncode:
        raise SystemExit(f"the child ended with {process.returncode}; see {given.out}/stderr.log")


def summary(results: list[dict[str, Any]], seed: int, prepared: float, seconds: float) -> str:
    """Return ends by target and the failed inputs, grouped by fault."""
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        ends[result["target"]][str(result["code"])] += 1
    codes = sorted({code for counts in ends.values() for code in counts})
    lines = [f"{'':18}" + "".join(f"{code:>7}" for code in codes) + f"{'s each':>9}"]
    for target, counts in sorted(ends.items()):
        took = [result["seconds"] for result in results if result["target"] == target]
        row = "".join(f"{counts[code]:7}" for code in codes)
        lines.append(f"{target:18}{row}{sum(took) / len(took):9.2f}")
    total: Counter[str] = sum(ends.values(), Counter())
    lines.append(f"{'all':18}" + "".join(f"{total[code]:7}" for code in codes))
    groups: dict[str, list[int]] = defaultdict(list)
    for result in results:
        for fault in result["faults"]:
            groups[fault].append(result["index"])
    for fault, where in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(where)} × {fault}: inputs {', '.join(map(str, where[:5]))}")
    failed = sum(1 for result in results if result["faults"])
    lines.append(
        f"{len(results)} inputs of seed {seed}, {failed} failed, {seconds:.0f} s of which {prepared:.0f} s to prepare"
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
