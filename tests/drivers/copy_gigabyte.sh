#!/usr/bin/env bash
# Copies SIZE MB out of a database and into it again with psql's \copy, and compares what arrived with what was sent.
# Usage: copy_gigabyte.sh [HOST PORT USER DATABASE [SIZE]]      (SIZE: 1024)
set -euo pipefail

export PGHOST=${1:-${PGHOST:-127.0.0.1}} PGPORT=${2:-${PGPORT:-5432}} PGUSER=${3:-${PGUSER:-postgres}}
export PGDATABASE=${4:-${PGDATABASE:-$PGUSER}} PGCONNECT_TIMEOUT=${PGCONNECT_TIMEOUT:-20}
size_mb=${5:-1024}
table=work_copy_$$
directory=$(mktemp -d)
file=$directory/copied

die() { printf 'FAILED copy: %s\n' "$*" >&2; exit 1; }
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$1"; }

cleanup() {
    rm -rf "$directory"
    psql -X -q -c "drop table if exists $table" >/dev/null 2>&1 || printf 'copy: could not drop %s\n' "$table" >&2
}

[[ $size_mb =~ ^[1-9][0-9]*$ ]] || die "SIZE is megabytes, not \"$size_mb\""
command -v psql >/dev/null || die 'psql is missing'
sql 'select 1' >/dev/null || die "no connection to $PGHOST:$PGPORT"
trap cleanup EXIT

# About 1,000 bytes a row, with everything in them that COPY has to quote.
rows=$((size_mb * 1000000 / 1000))
generator="select n, md5(n::text) || E'\\t\\\\ \\n ü 🐘 ' || repeat(md5((n * 7)::text), 30) as body from generate_series(1, $rows) as n"

started=$SECONDS
psql -X -q -v ON_ERROR_STOP=1 -c "\\copy ($generator) to '$file'" || die 'copy out ended with an error'
out_seconds=$((SECONDS - started))
bytes=$(stat -c %s "$file")
lines=$(wc -l <"$file")
((lines == rows)) || die "copy out: $lines rows of $rows arrived"
((bytes >= size_mb * 1000000)) || die "copy out: only $bytes bytes arrived"

sql "create unlogged table $table (n int, body text)" || die 'the table could not be made'
started=$SECONDS
psql -X -q -v ON_ERROR_STOP=1 -c "\\copy $table from '$file'" || die 'copy in ended with an error'
in_seconds=$((SECONDS - started))

# The server compares the table with what it generates anew: that holds both ways through, row by row.
wanted=$(sql "select count(*), sum(hashtextextended(body, n)) from ($generator) as g")
found=$(sql "select count(*), sum(hashtextextended(body, n)) from $table")
[[ $found == "$wanted" ]] || die "the table holds $found, it should be $wanted"
# And once more out, so that one pass was of rows that came from a table.
first=$(sha256sum <"$file")
second=$(psql -X -q -v ON_ERROR_STOP=1 -c "\\copy (select * from $table order by n) to stdout" | sha256sum) \
    || die 'the second copy out ended with an error'
[[ $first == "$second" ]] || die "the second copy out differs from the first: $second, not $first"

printf 'ok copy %s bytes out in %s s, in in %s s, the same on both sides\n' "$bytes" "$out_seconds" "$in_seconds"
