#!/usr/bin/env bash
# fuzz.sh [TIME [PARALLEL]] runs every fuzz target of the root module, each for an
# equal share of TIME: 90s, 10m or 1h, which is the default. PARALLEL is the number
# of processes of one target, by default that of the CPUs. It goes on after a
# finding; then the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

total=${1:-1h}
case $total in
*[!0-9hms]* | *[hms]?* | "" | [hms]) echo "usage: fuzz.sh [TIME [PARALLEL]], TIME like 90s, 10m or 1h" >&2; exit 2 ;;
*h) seconds=$((${total%h} * 3600)) ;;
*m) seconds=$((${total%m} * 60)) ;;
*) seconds=${total%s} ;;
esac
parallel=${2:+-parallel=$2}

targets=()
for package in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		targets+=("$package $target")
	done
done
[ ${#targets[@]} -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }
share=$((seconds / ${#targets[@]}))
[ $share -gt 0 ] || share=1

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
table=$(printf '%-16s %12s %16s %9s' target executions "new interesting" findings)
for t in "${targets[@]}"; do
	read -r package target <<<"$t"
	# Go would spend up to a minute on making each interesting input smaller.
	findings=0
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${share}s" -fuzzminimizetime 1s $parallel "$package" 2>&1 |
		tee "$output" || findings=1
	# Go's fuzzer may fail when its time is up, without an input that does
	# (golang/go#72104).
	if grep -q 'context deadline exceeded' "$output" && ! grep -q 'Failing input' "$output"; then
		findings=0
	fi
	last=$(grep 'execs:' "$output" | tail -n 1 || true)
	execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' <<<"$last")
	new=$(sed -n 's/.*new interesting: \([0-9]*\).*/\1/p' <<<"$last")
	table+=$(printf '\n%-16s %12s %16s %9s' "$target" "${execs:--}" "${new:--}" "$findings")
	[ $findings = 0 ] || status=1
done
printf '\n%s\n' "$table"
exit $status
