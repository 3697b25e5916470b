#!/usr/bin/env bash
# Reads one topic with Kafka's own console consumer, read-committed, with its headers, and checks
# that EVENTS records came, each position once, growing in each partition.
#
# consume.sh LIBS HOST:PORT TOPIC EVENTS      LIBS: folder with the jars of Apache Kafka
set -euo pipefail
if [ $# -ne 4 ]; then
    echo "usage: consume.sh LIBS HOST:PORT TOPIC EVENTS" >&2
    exit 2
fi
libs=$1 brokers=$2 topic=$3 events=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# The canonical header is binary and may hold line feeds: a separator of our own ends a record.
# The consumer ends by itself once nothing has come for the time given.
java -Xmx128m -cp "$libs/*" org.apache.kafka.tools.consumer.ConsoleConsumer \
    --bootstrap-server "$brokers" --topic "$topic" --from-beginning \
    --isolation-level read_committed --timeout-ms 20000 \
    --command-property group.protocol=consumer \
    --formatter-property print.partition=true --formatter-property print.headers=true \
    --formatter-property print.value=false --formatter-property line.separator=$'<end>\n' \
    >"$folder/records" 2>"$folder/messages" || { cat "$folder/messages" >&2; exit 1; }

grep -aoE '^Partition:[0-9]+|,sovereign_position:[0-9]+' "$folder/records" |
    awk -F: -v events="$events" -v topic="$topic" '
        $1 == "Partition" { partition = $2; next }
        $2 + 0 <= last[partition] + 0 {
            print "position " $2 " came after " last[partition] " in partition " partition
            failed = 1
            exit 1
        }
        { last[partition] = $2; count++ }
        END {
            if (failed) exit 1
            if (count + 0 != events) {
                print topic ": " events " records expected, " count + 0 " came"
                exit 1
            }
            print "{\"topic\": \"" topic "\", \"events\": " count "}"
        }' || exit 1
