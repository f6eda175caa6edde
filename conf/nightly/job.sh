#!/usr/bin/env bash
# One job of a night on LAKE, for a scheduler: job.sh score --set score.flow_logs=LOGS --set score.date=DATE
# MASTER, CONF and SPARK_CONF_DIR as for night.sh. One run at a time for a lake, this script's and night.sh's together.
# Exit code: that of the job (0 done; 3 done, with warnings; 2 refused, running it again changes nothing; else run it
# again), 75: another run for this lake has not ended; nothing was done.
set -euo pipefail
umask 027
. "$(dirname "$0")/common.sh"
[ -f "jobs/${1:-}.py" ] || refuse "there is no job '${1:-}'; expected a name such as score, of $here/jobs"
alone
submit "$@"
