#!/bin/busybox sh
# Runs a test program of an emulated machine, and says in one line what became of it.
out=/tmp/$1.out
began=$(cut -d. -f1 /proc/uptime)
timeout -s KILL 400 "/programs/$1" --test-threads=1 >"$out" 2>&1
code=$?
took=$(($(cut -d. -f1 /proc/uptime) - began))
result=$(grep '^test result: ' "$out")
[ $code = 0 ] || mv "$out" "/tmp/$1.failed"
echo "== $1 ended with $code after $took s: $result"
# Else xargs would start no more of them after one that was killed.
exit 0
