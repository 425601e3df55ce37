#!/usr/bin/env bash
# What the tests and the demo need of the system: some way to a Kafka broker. Checked first; installed
# only as root on Debian, and said first; elsewhere the command to run is printed.
set -euo pipefail

install() { # what for, packages
    echo "installing ${*:2}, $1: apt-get install" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${@:2}"
}

may_install() { [ "$(id -u)" -eq 0 ] && [ -f /etc/debian_version ]; }

# What tests run beside a broker (`system.sh --tests`): kcat, one of the clients in examples/clients;
# libfaketime, for a clock that is stepped; promtool, which checks the alerts; Chromium, for the dashboard; a
# PostgreSQL of their own, whose programs Debian keeps out of
# the path (a Docker engine does as well). The tests say so where one is missing.
if [ "${1:-}" = --tests ]; then
    wanted=()
    command -v kcat >/dev/null || wanted+=(kcat)
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || wanted+=(libfaketime)
    if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then
        wanted+=(chromium)
    fi
    command -v promtool >/dev/null || wanted+=(prometheus)
    if ! command -v initdb >/dev/null &&
        ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null &&
        ! { command -v docker >/dev/null && docker version >/dev/null 2>&1; }; then
        wanted+=(postgresql)
    fi
    if [ ${#wanted[@]} -gt 0 ] && may_install; then install "which tests run" "${wanted[@]}"; fi
    # Helm is no package of Debian's; Go, which the clients need too, builds it into ~/go/bin.
    if ! command -v helm >/dev/null && [ ! -x "$HOME/go/bin/helm" ] && command -v go >/dev/null; then
        echo "building helm, which tests run: go install (minutes, once)" >&2
        GOBIN="$HOME/go/bin" go install helm.sh/helm/v3/cmd/helm@v3.22.0 ||
            echo "without helm, tests of the chart fail, and say so" >&2
    fi
    exit 0
fi

has_java() { command -v java >/dev/null || [ -x "${JAVA_HOME:-/nonexistent}/bin/java" ]; }

# What the cluster demo runs besides (`system.sh --cluster`): three Kafka nodes as processes, which a
# Docker engine or a given broker does not do, and a PostgreSQL.
if [ "${1:-}" = --cluster ]; then
    wanted=()
    has_java || wanted+=(default-jre-headless)
    if [ -z "${KAFKA_HOME:-}" ] && ! command -v mvn >/dev/null; then wanted+=(maven); fi
    if ! command -v initdb >/dev/null &&
        ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
        wanted+=(postgresql)
    fi
    if [ ${#wanted[@]} -eq 0 ]; then exit 0; fi
    if may_install; then
        install "for the cluster demo" "${wanted[@]}"
        exit 0
    fi
    echo "the cluster demo needs ${wanted[*]}: sudo apt-get install ${wanted[*]}" >&2
    exit 1
fi

if [ -n "${TASKMILL_BOOTSTRAP_SERVERS:-}${TASKMILL_TEST_BOOTSTRAP_SERVERS:-}" ]; then exit 0; fi
if command -v docker >/dev/null && docker version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    exit 0
fi

missing=()
if ! has_java; then
    missing+=(default-jre-headless)
fi
if [ -z "${KAFKA_HOME:-}" ] && ! command -v mvn >/dev/null; then
    missing+=(maven)
fi
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

if may_install; then
    install "to run Apache Kafka" "${missing[@]}"
    exit 0
fi

cat >&2 <<TEXT
To run Apache Kafka here, one of these is needed:
  - a broker that runs already:  export TASKMILL_BOOTSTRAP_SERVERS=host:port
  - a Docker engine
  - Java 17+ and Maven:          sudo apt-get install ${missing[*]}   (macOS: brew install openjdk maven)
  - Java 17+ and Kafka unpacked: export KAFKA_HOME=/where/it/is
TEXT
exit 1
