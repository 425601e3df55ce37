#!/bin/sh
# Enqueues tasks with kcat; `taskmill encode` makes the values.
#
#     enqueue.sh BOOTSTRAP TOPIC TASK_NAME ID ARGS [ID ARGS]…
#
# ARGS is a JSON object. PARTITIONER in the environment is one of librdkafka's, such as its default,
# consistent_random, to see what the wrong one costs.
set -eu

bootstrap=$1 topic=$2 name=$3
shift 3
value=$(mktemp)
trap 'rm -f "$value"' EXIT

while [ $# -gt 0 ]; do
    taskmill encode "$name" --id "$1" --args "$2" > "$value"
    # A value may hold any byte, a line's end too: kcat sends a file whole. The key decides the
    # partition by murmur2; librdkafka's default is CRC32.
    kcat -P -b "$bootstrap" -t "$topic" -k "$1" -H client=kcat \
        -X acks=all -X enable.idempotence=true \
        -X partitioner="${PARTITIONER:-murmur2_random}" "$value"
    shift 2
done
