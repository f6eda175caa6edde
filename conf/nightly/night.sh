#!/usr/bin/env bash
# One night on a cluster: extract the flow logs from new captures if CAPTURES is set; score the nights of the last 14 days
# that have no result for their present files, so that late logs and nights of an outage are included; adapt the model to
# the newest week every ADAPT_DAYS nights; then remove old nights. With RUNS_PER_NIGHT=24, run every hour: the date that
# has begun is scored too, and the last two steps follow once a day, after the first run of it that comes to them.
#
# Exit code: that of the first job that fails (2: configuration or input was refused and nothing was written; 1: run it
# again), or 3 if captures were not extracted to their end, nights are missing or degraded, or a challenger was refused:
# everything else was done. Old nights are removed all the same, unless extract or score was refused with 2: the lake or
# the configuration may be the wrong one. 75: another run for this lake has not ended; nothing was done.
set -euo pipefail
umask 027
. "$(dirname "$0")/common.sh"
[ -n "${LOGS:-}" ] || refuse "LOGS is not set; expected the flow logs, folders event_date=YYYY-MM-DD below it"
alone

today=$(date -u +%F) day=$(($(date -u +%s) / 86400))  # of this run, however long it takes

# The first failure is the result; what depends on it is left out.
result=0 incomplete=0
run() {
  local code=0
  [ "$result" = 0 ] || return 0
  submit "$@" || code=$?
  case $code in 0) ;; 3) incomplete=3 ;; *) result=$code ;; esac
}
# With several runs a day, a job that was done or refused today is left out; a file beside the lock has its last date.
daily() {
  local last="${lock%.lock}.$1"
  if [ "${RUNS_PER_NIGHT:-1}" = 1 ]; then
    run "$@"
  elif [ "$result" = 0 ] && [ "$(cat "$last" 2>/dev/null)" != "$today" ]; then
    run "$@"
    case $result in 0 | 2) printf '%s\n' "$today" >"$last" ;; esac
  fi
}
[ -z "${CAPTURES:-}" ] || run extract --set "extract.captures=$CAPTURES" --set "extract.target=$LOGS"
run score --set "score.flow_logs=$LOGS" --set score.last_days=14 --set score.pending_nights=true \
  ${RUNS_PER_NIGHT:+--set "score.runs_per_night=$RUNS_PER_NIGHT"}
not_scored=$result
if [ "${ADAPT_DAYS:-0}" -gt 0 ] && [ $((day % ADAPT_DAYS)) = 0 ]; then  # a person promotes it
  daily adapt --config "$here/conf/site.yaml" --set "adapt.flow_logs=$LOGS"
fi
failed=$result result=0
[ "$not_scored" = 2 ] || daily purge
[ "$failed" = 0 ] || result=$failed
[ "$result" = 0 ] || exit "$result"
exit "$incomplete"
