"""`make bench`: this project compared with the usual ways to do the same work, on one machine, in one run.

    python -m tests.bench --part prep train --out runs/bench
    python -m tests.bench --quick

A part is a module (`prep`, `files`, `skew`, `train`, `score`, …) that lists its cases, checks that they did the same
work, and defines ratios of their figures. A case is a program run as a subprocess (`baseline_*`, or the jobs of this
project); `programs` starts them, `measure` measures them, `rounds` runs the cases in turn, `report` writes the tables,
bench.json and bench.md. `same_tables` compares two lakes.

A part module has `NAME`; `TITLE`, its heading in bench.md; `CASES`, those of them that run only `ON_DEMAND`, and
`QUICK_CASES`; `SCALES` and `QUICK_SCALES`; `MINUTES` at the usual scales on 2 cores: of its data and of the cases that
run once, and of a round; `scales` and `Part`, see `rounds.Part`.
"""
