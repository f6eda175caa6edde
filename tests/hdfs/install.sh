#!/usr/bin/env bash
# Makes what the tests of HDFS need in one folder: the jars of a NameNode and a DataNode, and libhdfs.so, compiled.
#
#   tests/hdfs/install.sh FOLDER      with the environment of the project; 205 MB are downloaded, 45 MB stay
set -euo pipefail
folder=${1:?usage: tests/hdfs/install.sh FOLDER}
packages=$(cd "$(dirname "$0")" && pwd)/packages.txt
java=$(dirname "$(dirname "$(readlink -f "$(command -v javac || command -v java)")")")
if [ ! -f "$java/include/jni.h" ]; then
  echo "hdfs: $java has no include/jni.h; install a JDK 17: apt-get install openjdk-17-jdk-headless" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
  --require-hashes -r "$packages" -d "$work"
mkdir -p "$folder/jars" "$folder/lib"
jars=()
for name in hadoop- jetty- commons- guava-14 protobuf- log4j-1 slf4j- netty- htrace jackson-core-asl jackson-mapper-asl leveldb \
    javax.servlet jakarta.ws.rs jsp-api xml; do
  jars+=("*/deps/jars/$name*.jar")
done
tar -xzf "$work"/pyspark-*.tar.gz -C "$folder/jars" --strip-components 3 --wildcards "${jars[@]}"
tar -xzf "$work"/pydoop-*.tar.gz -C "$work" --strip-components 2 --wildcards '*/src/libhdfs/*'
cd "$work/libhdfs"
gcc -w -O2 -shared -fPIC -o "$folder/lib/libhdfs.so" -I. -Iinclude -Ios -Ios/posix -I"$java/include" -I"$java/include/linux" \
  exception.c hdfs.c jni_helper.c common/htable.c os/posix/*.c \
  -L"$java/lib/server" -ljvm -Wl,-rpath,"$java/lib/server" -lpthread
touch "$folder/.ready"
