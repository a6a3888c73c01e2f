#!/usr/bin/env bash
# Sends mail with swaks, curl, msmtp and Python's smtplib, each on its default
# way through SMTP: one message to examples/quickstart, which has to accept it,
# then a small and a 10 MiB one to the sink beside this script, which has to
# receive them octet for octet; and, with swaks, one to a server whose log a test
# of internal/e2e looks at. Everything stays on 127.0.0.1.
#
#	internal/compat/clients.sh
#
# Clients that aren't there are installed with apt-get, which needs root.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_clients
install_missing

cd "$root"
go build -o "$tmp/quickstart" ./examples/quickstart
go build -o "$tmp/sink" ./internal/compat/sink
start quickstart -addr 127.0.0.1:0 -once=false
quickstart_pid=$pid quickstart_port=$port
mkdir "$tmp/mail"
start sink -dir "$tmp/mail"
sink_pid=$pid sink_port=$port

saw_verbs() { # saw_verbs RECIPIENTS: since the file was emptied
	local rcpts got
	rcpts=$(printf ' RCPT%.0s' $(seq "$1"))
	got=$(tr '\n' ' ' <"$tmp/mail/verbs")
	echo "hook saw: $got"
	# All of the session, in order, nothing else. BDAT comes in as many as the
	# client likes.
	[[ $got =~ ^EHLO\ MAIL$rcpts\ (DATA|BDAT( BDAT)*)\ QUIT\ $ ]]
}

deliveries=0
deliver() { # deliver CLIENT MESSAGE RECIPIENT...
	local client=$1 msg=$2 n
	shift 2
	deliveries=$((deliveries + 1))
	n=$(next_message)
	: >"$tmp/mail/verbs"
	check "$client" "$msg message sent" send "$client" "$sink_port" "$tmp/$msg" "$(IFS=,; echo "$*")"
	check "$client" "$msg message received as sent" cmp "$tmp/$msg" "$tmp/mail/$n.eml"
	check "$client" "$msg message's recipients" diff <(printf '%s\n' "$@") "$tmp/mail/$n.rcpt"
	check "$client" "$msg message's commands seen by the hook" saw_verbs $#
}

for client in swaks curl msmtp smtplib; do
	check "$client" "quickstart accepts its message" send "$client" "$quickstart_port" "$tmp/small" one@example.com
	# One address in mixed case: the server is to get it as it was sent.
	deliver "$client" small one@example.com Two@Example.COM three@example.net
	deliver "$client" big one@example.com
done
log_of_a_session() { # with AUTH, which neither of the servers here has
	go test -count=1 -v -run '^TestTheLogOfASessionWithSwaks' ./internal/e2e >"$tmp/go.log" || { cat "$tmp/go.log"; return 1; }
	grep -q '^--- PASS' "$tmp/go.log" # and not SKIP
}
check swaks "session's log holds all, and no password" log_of_a_session
check sink "holds $deliveries messages" [ "$(find "$tmp/mail" -name '*.eml' | wc -l)" = "$deliveries" ]
check sink "ends cleanly" ends sink "$sink_pid"
servers=("$quickstart_pid")

summary
