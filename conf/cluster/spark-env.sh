# Read by every Spark command before it starts: master, worker, spark-submit. See spark-defaults.conf.
_refuse() { printf 'spark-env.sh: %s\n' "$*" >&2; exit 2; }

_settings=$SPARK_CONF_DIR/spark-defaults.conf
_setting() { sed -nE "s/^[[:space:]]*$1[[:space:]=]+([^[:space:]]+)[[:space:]]*$/\1/p" "$_settings" | tail -n 1; }  # the last one wins
if [ "$(_setting 'spark\.authenticate')" = true ]; then
  case $(stat -L -c %a "$_settings") in
    600 | 400) ;;
    *) _refuse "$_settings has mode $(stat -L -c %a "$_settings"), so other users can read the secret; expected 600: chmod 600 $_settings, and create a new secret if others may have read this one" ;;
  esac
  [[ $(_setting 'spark\.authenticate\.secret') =~ ^[A-Za-z0-9+/=_-]{32,}$ ]] ||
    _refuse "$_settings holds no spark.authenticate.secret of at least 32 letters and digits; add a line with one: openssl rand -hex 32"
fi

# Address that the Spark processes of this machine listen on; on a cluster, its address in the network of the cluster.
SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
# Shuffle files and temporary files of executors; needs space for twice the flows of a night.
SPARK_LOCAL_DIRS=${SPARK_LOCAL_DIRS:-/tmp}
