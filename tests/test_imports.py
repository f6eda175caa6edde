import json
import subprocess
import sys

LIGHT = """config schema taxonomy sources flows exchange feature_table preprocess replica job scoring training
    reporting audit evaluation calibration tails reasons drift night_sources night_reader night_rows night_duty
    night_task night_scoring night_findings night_page night incidents allow_list severity pseudonyms ocsf ecs aliases
    network policy_file retention progress checkpoint rank_start model_store published forest replica_night
    split_scoring run_page comparison_page leakage_page"""
HEAVY = ("tensorflow", "keras", "horovod", "petastorm")
CODE = """
import importlib, json, sys
found = {}
for name in sys.argv[1].split():
    importlib.import_module("ids_spark." + name)
    found[name] = sorted({module.split(".")[0] for module in sys.modules} & set(sys.argv[2].split()))
print(json.dumps(found))
"""


def test_no_module_of_a_driver_loads_tensorflow_horovod_or_petastorm():
    done = subprocess.run(
        [sys.executable, "-c", CODE, LIGHT, " ".join(HEAVY)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in LIGHT.split()}
