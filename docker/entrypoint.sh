#!/usr/bin/env bash
# Entrypoint of the container; the first argument selects the role:
#
#   master | worker      master or worker of a Spark standalone cluster
#   executor             an executor on Kubernetes; Spark passes this argument and SPARK_… variables
#   anything else        a command: spark-submit …, python …
#
# If IDS_SPARK_MASTER is set (spark://… or k8s://…), every role authenticates with the secret in the file spark_auth,
# and encrypts network traffic and spilled data, with the settings of conf/cluster/security.conf. If it is not set,
# spark-submit runs in local mode and needs no secret.
#
#   IDS_SPARK_SECRETS   folder of secret files (default /run/secrets); each is copied to IDS_SPARK_PRIVATE, so that only
#                       its owner can read it, for any mode of the mounted volume
#   IDS_SPARK_PRIVATE   folder for the copies (default /tmp/ids_spark; should be in memory)
#   IDS_SPARK_ADDRESS   address at which other containers reach this one (default: its first address)
#   SPARK_CONF_DIR      Spark settings; the settings of the role are added to a copy
set -euo pipefail

role=${1:-}
master=${IDS_SPARK_MASTER:-}
secrets=${IDS_SPARK_SECRETS:-/run/secrets}
private=${IDS_SPARK_PRIVATE:-/tmp/ids_spark}
security=$(dirname "$0")/../conf/cluster/security.conf
umask 027  # files of the lake, of executors and of their Python processes

refuse() { printf 'entrypoint: %s\n' "$*" >&2; exit 2; }

take_secrets() {
  local file mode
  mkdir -p "$private/conf"  # a separate folder: Spark sends the configuration folder of a driver to its executors
  chmod 700 "$private" "$private/conf"
  for file in "$secrets"/*; do
    [ -f "$file" ] || continue
    [ -r "$file" ] || refuse "$file cannot be read by uid $(id -u); change its owner: chown $(id -u) FILE, mode 400"
    mode=$(stat -L -c %a "$file")
    [ "${mode: -1}" = 0 ] || refuse "$file has mode $mode, so every user can read it; expected 400 or 440: chmod o= FILE"
    install -m 400 -t "$private" "$file"
  done
}

require_secret() {
  [ -f "$private/spark_auth" ] ||
    refuse "no $secrets/spark_auth found; the cluster authenticates with the secret in that file: openssl rand -hex 32"
  [[ $(<"$private/spark_auth") =~ ^[A-Za-z0-9+/=_-]{32,}$ ]] ||
    refuse "$secrets/spark_auth is not one line of at least 32 letters and digits; write one: openssl rand -hex 32"
}

add_settings() {  # to a copy of SPARK_CONF_DIR; the last line of a setting wins
  find -L "$SPARK_CONF_DIR" -maxdepth 1 -type f -exec cp --no-preserve=mode -t "$private/conf" {} +
  {
    printf '\n'
    cat "$security"
    printf '%s=%s\n' spark.master "$master" spark.driver.host "$address" spark.driver.bindAddress "$address"
    case $master in
      # Spark reads the secret from a file only on Kubernetes; there a value would be part of every executor pod.
      k8s://*) printf '%s=%s\n' spark.authenticate.secret.file "$private/spark_auth" ;;
      *) printf '%s=%s\n' spark.authenticate.secret "$(<"$private/spark_auth")" ;;
    esac
  } >>"$private/conf/spark-defaults.conf"
  chmod 600 "$private/conf/spark-defaults.conf"
  export SPARK_CONF_DIR=$private/conf
}

executor() {
  local options=() name i
  for ((i = 0; ; i++)); do
    name=SPARK_JAVA_OPT_$i
    [ -n "${!name+set}" ] || break
    options+=("${!name}")
  done
  if [ -z "${_SPARK_AUTH_SECRET:-}" ]; then
    # Spark 3.5 reads the file in an executor only after the driver has sent the master's URL, for which the executor
    # must authenticate already; the variable is used from the start. Like the driver, it takes the content in base64.
    require_secret
    _SPARK_AUTH_SECRET=$(base64 --wrap 0 "$private/spark_auth")
    export _SPARK_AUTH_SECRET
  fi
  cd "$(mktemp -d -p "${SPARK_LOCAL_DIRS%%,*}")"  # executors unpack the files of a job in the working directory
  exec "$JAVA_HOME/bin/java" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
    -cp "$SPARK_CONF_DIR:$SPARK_HOME/jars/*" org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
    --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
}

[ -n "$role" ] || refuse "nothing to do; expected master, worker, or a command such as spark-submit"
id -un >/dev/null 2>&1 || refuse "user id $(id -u) has no entry in /etc/passwd, without which Java's login fails; run the container as uid 10001, or mount an /etc/passwd with a line for this id"
take_secrets
case $role in
  executor) executor ;;
  master | worker) [ -n "$master" ] || refuse "IDS_SPARK_MASTER is not set; expected spark://HOST:7077" ;;
esac
if [ -n "$master" ]; then
  require_secret
  address=${IDS_SPARK_ADDRESS:-$(hostname -i | cut -d ' ' -f 1)}
  add_settings
fi
case $role in
  master) exec spark-class org.apache.spark.deploy.master.Master --host "${SPARK_MASTER_HOST:-$(hostname)}" ;;
  worker) exec spark-class org.apache.spark.deploy.worker.Worker --host "$address" "$master" ;;
  *) exec "$@" ;;
esac
