#!/usr/bin/env bash
# One night on a cluster: extract the flow logs from new captures if CAPTURES is set, score the last three days, adapt the
# model to the newest week every ADAPT_DAYS nights, then remove old nights. Exit code: that of the first job that fails
# (2: configuration or input was refused and nothing was written; 1: run it again), or 3 if captures were not extracted to
# their end, nights are missing or degraded, or a challenger was refused: everything else was done. 75: another run for
# this lake has not ended; nothing was done.
set -euo pipefail
umask 027
here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"  # night.yaml names policies relative to this folder
. .venv/env.sh
: "${LAKE:?the lake, for example hdfs://namenode/ids}" "${LOGS:?flow logs, folders event_date=YYYY-MM-DD below it}"

# The lock is in a folder of this user alone: in /tmp or /var/lock anybody could take it, or put a link there. Not in
# XDG_RUNTIME_DIR, which cron does not set: a run by hand and one by cron must find the same lock.
locks=${IDS_SPARK_LOCKS:-$HOME/.local/state/ids_spark}
refuse() { printf 'night.sh: %s\n' "$*" >&2; exit 2; }
command -v flock >/dev/null || refuse "flock was not found; install util-linux"
(umask 077 && mkdir -p "$locks") || refuse "the folder for locks, $locks, cannot be made; set IDS_SPARK_LOCKS"
[ -O "$locks" ] && [ ! -L "$locks" ] && [ "$(stat -c %a "$locks")" = 700 ] ||
  refuse "the folder for locks, $locks, is open to other users or belongs to one; expected a folder of $(id -un) with mode 700"
lock=$locks/night-$(printf %s "$LAKE" | sha256sum | cut -c 1-16).lock
exec 9>>"$lock"  # open as long as a job of this run lives, also if this script is killed
if ! flock -n 9; then
  printf 'night.sh: another run for %s has not ended (%s); nothing was done\n' "$LAKE" "$(cat "$lock")" >&2
  exit 75
fi
printf 'pid %s on %s since %s\n' $$ "$(hostname)" "$(date -u +%FT%TZ)" >"$lock"

submit() {
  spark-submit --master "${MASTER:-local[*]}" --py-files "$here/dist/ids_spark.zip" "$here/jobs/$1.py" \
    --config "${CONF:-$here/conf/nightly/night.yaml}" --set "lake=$LAKE" "${@:2}"
}
incomplete=0
done_or_incomplete() {
  local code=0
  submit "$@" || code=$?
  [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
  [ "$code" = 0 ] || incomplete=$code
}
[ -z "${CAPTURES:-}" ] || done_or_incomplete extract --set "extract.captures=$CAPTURES" --set "extract.target=$LOGS"
done_or_incomplete score --set "score.flow_logs=$LOGS" --set score.last_days=3
if [ "${ADAPT_DAYS:-0}" -gt 0 ] && [ $(($(date -u +%s) / 86400 % ADAPT_DAYS)) = 0 ]; then  # a person promotes the result
  done_or_incomplete adapt --config "$here/conf/site.yaml" --set "adapt.flow_logs=$LOGS"
fi
submit purge
exit "$incomplete"
