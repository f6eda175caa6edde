import json
import subprocess
import sys
from pathlib import Path

import ids_spark

# Modules that only ranks or tasks import may load TensorFlow, Horovod or Petastorm; nothing else may.
MAY_BE_HEAVY = {"models.architectures", "models.layers"} | {
    f"train.{name}"
    for name in (
        *("data_loader", "horovod_ranks", "horovod_security", "optimizer", "steps", "warm_start", "worker"),
        "xgboost_ranks",
    )
}
PACKAGE = Path(ids_spark.__file__).parent
LIGHT = sorted(
    {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")} - MAY_BE_HEAVY
)
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
        [sys.executable, "-c", CODE, " ".join(LIGHT), " ".join(HEAVY)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: [] for name in LIGHT}
