# Read by every Spark command before it starts: master, worker, spark-submit. See spark-defaults.conf.
_refuse() { printf 'spark-env.sh: %s\n' "$*" >&2; exit 2; }

_settings=$SPARK_CONF_DIR/spark-defaults.conf
_required=$SPARK_CONF_DIR/security.conf
_of_file() { sed -nE "s/^[[:space:]]*$1[[:space:]=]+([^[:space:]]+)[[:space:]]*$/\1/p" "$2" | tail -n 1; }  # the last one wins
_setting() { _of_file "${1//./\\.}" "$_settings"; }
# Who may write a folder replaces its files, whatever their modes.
_owned() {  # PATH MODES REMEDY
  [ -O "$1" ] || [ "$(stat -L -c %u "$1")" = 0 ] ||
    _refuse "$1 belongs to $(stat -L -c %U "$1"), who could change it; expected the user who runs Spark, $(id -un), or root"
  case " $2 " in
    *" $(stat -L -c %a "$1") "*) ;;
    *) _refuse "$1 has mode $(stat -L -c %a "$1"), so other users can $3" ;;
  esac
}
_owned "$SPARK_CONF_DIR" "700 500" "read or replace the settings; expected 700: chmod 700 $SPARK_CONF_DIR, and create a new secret if others may have read this one"
_owned "$_settings" "600 400" "read the secret; expected 600: chmod 600 $_settings, and create a new secret if others may have read this one"
[ -f "$_required" ] || _refuse "$_required is missing; copy it from conf/cluster, beside spark-defaults.conf"
while read -r _name _value; do
  case $_name in '' | '#'*) continue ;; esac
  [ "$(_setting "$_name")" = "$_value" ] ||
    _refuse "$_settings has '$(_setting "$_name")' as $_name; expected '$_value' as in security.conf: cat $_required >>$_settings"
done <"$_required"
[[ $(_setting spark.authenticate.secret) =~ ^[A-Za-z0-9+/=_-]{32,}$ ]] ||
  _refuse "$_settings holds no spark.authenticate.secret of at least 32 letters and digits; add a line with one: openssl rand -hex 32"

# Address that the Spark processes of this machine listen on; on a cluster, its address in the network of the cluster.
SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1}
# Shuffle files and temporary files of executors; needs space for twice the flows of a night.
if [ -z "${SPARK_LOCAL_DIRS:-}" ]; then
  SPARK_LOCAL_DIRS=${TMPDIR:-/tmp}/ids_spark-$(id -u)
  mkdir -m 700 "$SPARK_LOCAL_DIRS" 2>/dev/null || true
  [ ! -L "$SPARK_LOCAL_DIRS" ] && [ -d "$SPARK_LOCAL_DIRS" ] && [ -O "$SPARK_LOCAL_DIRS" ] && chmod 700 "$SPARK_LOCAL_DIRS" ||
    _refuse "$SPARK_LOCAL_DIRS, the folder for temporary files, is not a folder of $(id -un); remove it, or set SPARK_LOCAL_DIRS"
fi
# Files of executors, and of the jobs of their Python processes.
umask 027
