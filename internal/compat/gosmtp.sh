#!/usr/bin/env bash
# Runs go-smtp's own server tests with only the listener wrapped, under the
# race detector, through each way of wrapping it. A control run with nothing
# wrapped comes first: what fails there is not this library's doing.
#
#	internal/compat/gosmtp.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

cd "$root"
go mod download
gosmtp=$(go list -m -f '{{.Dir}}' github.com/emersion/go-smtp)
version=$(go list -m -f '{{.Version}}' github.com/emersion/go-smtp)
goversion=$(go list -m -f '{{.GoVersion}}')

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"

# The tests are of the external package smtp_test, so they compile in any
# module. Client and parser tests never see a listener; they stay behind.
files=(server_test.go lmtp_server_test.go)
for f in "${files[@]}"; do
	# No plain cp: the module cache is read-only, and so would be the copies.
	cat "$gosmtp/$f" >"$f"
	grep -q '^package smtp_test$' "$f" || die "$f is not of package smtp_test"
done
expected=$(cat "${files[@]}" | grep -c '^func Test')

# The one edit: who calls Serve. Should go-smtp's tests change shape, stop
# rather than test a bare listener.
sed -i -e 's/^\tgo s\.Serve(l)$/\tgo serve(s, l)/' \
	-e 's/^\t\tdone <- s\.Serve(l)$/\t\tdone <- serve(s, l)/' "${files[@]}"
rewritten=$(cat "${files[@]}" | grep -c '\<serve(s, l)' || true)
[ "$rewritten" = 2 ] || die "rewrote $rewritten calls of Serve, want 2"
! grep -Hn '\.\(Serve\|ListenAndServe\|ListenAndServeTLS\)(' "${files[@]}" || die "calls of Serve left over"

cat >wrap_test.go <<'EOT'
package smtp_test

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

var (
	door      = os.Getenv("SMTPPROXY_DOOR")
	hookCalls atomic.Int64
)

func pass(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	hookCalls.Add(1)
	return nil, nil
}

func serve(s *smtp.Server, l net.Listener) error {
	hook := smtpproxy.HookFunc(pass)
	switch door {
	case "bare":
		return s.Serve(l)
	case "gosmtp":
		return gosmtp.Serve(s, l, &smtpproxy.Proxy{Hook: hook})
	case "listener":
		// The limit is go-smtp's own, which one of its tests reaches.
		p := &smtpproxy.Proxy{Hook: hook, MaxLineLength: 2000}
		return s.Serve(p.Listener(l))
	}
	panic("unknown door " + door)
}

// TestMain fails a run whose tests pass because nothing was wrapped.
func TestMain(m *testing.M) {
	code := m.Run()
	n := hookCalls.Load()
	fmt.Println("hook calls:", n)
	if wrapped := door != "bare"; wrapped != (n > 0) {
		fmt.Println("FAIL: wrong number of hook calls for door", door)
		code = 1
	}
	os.Exit(code)
}
EOT

cat >go.mod <<EOT
module compat

go $goversion

require (
	github.com/emersion/go-smtp $version
	github.com/seed3262c777/smtpproxy v0.0.0
)

replace github.com/seed3262c777/smtpproxy => "$root"
EOT
cp "$root/go.sum" .
# Only from here on: in the repository these would edit its go.mod.
export GOWORK=off GOFLAGS=-mod=mod

run() { SMTPPROXY_DOOR=$1 go test -race -shuffle=on -timeout=2m -v "${@:2}" .; }

# excused tells whether what failed in the log fails with nothing wrapped too, now
# and then: then it tells nothing about the library. (TestServerAcceptErrorHandling
# of v0.25.1 does, where Close overtakes Serve. Behind the library it does so more
# often, since Accept hands on what another goroutine has got.)
known=" "
excused() {
	local test
	for test in $(sed -n 's/^--- FAIL: \([^ ]*\).*/\1/p' "$1"); do
		[[ "$known" != *" $test "* ]] || continue
		! run bare -count=1000 -run "^$test\$" >"$tmp/again.log" 2>&1 || return 1
		echo "go-smtp $version: $test fails bare too, now and then; it may try again"
		known+="$test "
	done
	grep -q '^--- FAIL: ' "$1"
}

failed=0
for door in bare gosmtp listener; do
	log=$tmp/$door.log
	for _ in {1..20}; do
		status=0
		run "$door" -count=1 >"$log" 2>&1 || status=$?
		[ "$status" != 0 ] && excused "$log" || break
	done
	passed=$(grep -c '^--- PASS: ' "$log" || true)
	# Skips count at every depth: a skipped subtest leaves its parent passed.
	skipped=$(grep -c '^ *--- SKIP: ' "$log" || true)
	calls=$(sed -n 's/^hook calls: //p' "$log")
	echo "go-smtp $version, $door: $passed of $expected tests passed, $skipped skipped, ${calls:-no} hook calls"
	if [ "$status" != 0 ] || [ "$passed" != "$expected" ] || [ "$skipped" != 0 ]; then
		failed=1
		echo "FAIL: $door, go test exit status $status"
		grep -E '^(-test\.shuffle| *--- (FAIL|SKIP))' "$log" || true
		grep -Ev '^ *(-test\.shuffle|=== (RUN|PAUSE|CONT|NAME)|--- PASS)' "$log" | tail -n 60 || true
	fi
done
exit "$failed"
