#!/usr/bin/env bash
# pgbench in all its protocol modes, with reconnects and with many clients; any failed transaction is a failure.
# Usage: pgbench_work.sh [HOST PORT USER DATABASE [SECONDS [CLIENTS]]]      (3 s each, 64 clients at most)
# CLIENTS is the most that are connected at once: in session mode the pool must be as large.
set -euo pipefail

export PGHOST=${1:-${PGHOST:-127.0.0.1}} PGPORT=${2:-${PGPORT:-5432}} PGUSER=${3:-${PGUSER:-postgres}}
export PGDATABASE=${4:-${PGDATABASE:-$PGUSER}} PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-20}
seconds=${5:-3}
most=${6:-64}
few=$((most < 8 ? most : 8))
output=$(mktemp)
summary=()

die() { printf 'FAILED pgbench: %s\n' "$*" >&2; exit 1; }

cleanup() {
    rm -f "$output"
    pgbench -i -q -I d >/dev/null 2>&1 || printf 'pgbench: could not drop its tables\n' >&2
}

# run NAME ARGUMENTS…: one run; counts what it did.
run() {
    local name=$1 done_count; shift
    pgbench -n "$@" >"$output" 2>&1 || { tail -n 15 "$output" >&2; die "$name ended with an error"; }
    if grep -Eiq 'error|aborted|terminated|fatal' "$output"; then
        grep -Ei 'error|aborted|terminated|fatal' "$output" | head -n 5 >&2
        die "$name told of errors"
    fi
    grep -Eq '^number of failed transactions: 0 ' "$output" || ! grep -q '^number of failed transactions' "$output" \
        || die "$name: $(grep '^number of failed transactions' "$output")"
    done_count=$(sed -n 's/^number of transactions actually processed: \([0-9]*\).*/\1/p' "$output")
    ((${done_count:-0} > 0)) || die "$name processed no transaction"
    summary+=("$name $done_count")
}

command -v pgbench >/dev/null || die 'pgbench is missing'
# Says "already exists" and such on the way; only the exit code counts.
pgbench -i -q -s 1 >"$output" 2>&1 || { tail -n 15 "$output" >&2; die 'the tables could not be made'; }
trap cleanup EXIT

for mode in simple extended prepared; do
    run "$mode" -M "$mode" -c "$few" -j 2 -T "$seconds"
    run "$mode/c$most" -M "$mode" -S -c "$most" -j 2 -T "$seconds"
    run "$mode/reconnecting" -M "$mode" -C -S -c "$few" -j "$few" -T "$seconds"
done

# Every transaction adds the same amount to an account, a teller, a branch and the history.
sums=$(psql -X -A -t -v ON_ERROR_STOP=1 -c "select (select sum(abalance) from pgbench_accounts) - (select coalesce(sum(delta), 0) from pgbench_history),
    (select sum(tbalance) from pgbench_tellers) - (select coalesce(sum(delta), 0) from pgbench_history),
    (select sum(bbalance) from pgbench_branches) - (select coalesce(sum(delta), 0) from pgbench_history)") || die 'the sums could not be read'
[[ $sums == '0|0|0' ]] || die "balances and history differ by $sums"

printf 'ok pgbench %s\n' "$(IFS=,; printf '%s' "${summary[*]}")"
