# What night.sh and job.sh share; sourced by both: the environment of the jobs, one run at a time for a lake, one submission.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$here"  # night.yaml names policies relative to this folder
name=$(basename "$0")
refuse() { printf '%s: %s\n' "$name" "$*" >&2; exit 2; }
[ -n "${LAKE:-}" ] || refuse "LAKE is not set; expected the lake, for example hdfs://namenode/ids"
while [ "$LAKE" != / ] && [ "${LAKE%/}" != "$LAKE" ]; do LAKE=${LAKE%/}; done  # /lake/ and /lake have one lock
[ -r .venv/env.sh ] || refuse "$here/.venv/env.sh was not found; make it with docker/install.sh .venv run"
settings=${SPARK_CONF_DIR:-}  # of a cluster, see conf/cluster
. .venv/env.sh
export SPARK_CONF_DIR=${settings:-$here/conf/spark}

# Takes the lock of this lake, or ends with 75. It is in a folder of this user alone: in /tmp or /var/lock anybody could
# take it, or put a link there. Not in XDG_RUNTIME_DIR, which cron does not set: runs by hand, by cron and by a scheduler
# of the same user must find the same lock.
alone() {
  local locks=${IDS_SPARK_LOCKS:-$HOME/.local/state/ids_spark}
  command -v flock >/dev/null || refuse "flock was not found; install util-linux"
  (umask 077 && mkdir -p "$locks") || refuse "the folder for locks, $locks, cannot be made; set IDS_SPARK_LOCKS"
  [ -O "$locks" ] && [ ! -L "$locks" ] && [ "$(stat -c %a "$locks")" = 700 ] ||
    refuse "the folder for locks, $locks, is open to other users or belongs to one; expected a folder of $(id -un) with mode 700"
  lock=$locks/night-$(printf %s "$LAKE" | sha256sum | cut -c 1-16).lock
  exec 9>>"$lock"  # open as long as a job of this run lives, also if this script is killed
  if ! flock -n 9; then
    printf '%s: another run for %s has not ended (%s); nothing was done\n' "$name" "$LAKE" "$(cat "$lock")" >&2
    exit 75
  fi
  printf 'pid %s on %s since %s\n' $$ "$(hostname)" "$(date -u +%FT%TZ)" >"$lock"
}

submit() {  # submit JOB [OPTION...]
  spark-submit --master "${MASTER:-local[*]}" --py-files "$here/dist/ids_spark.zip" "$here/jobs/$1.py" \
    --config "${CONF:-$here/conf/nightly/night.yaml}" --set "lake=$LAKE" "${@:2}"
}
