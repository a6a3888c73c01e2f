#!/usr/bin/env bash
# Sends mail with swaks, curl, msmtp and Python's smtplib, each on its default
# way through SMTP: one message to examples/quickstart, which has to accept it,
# then a small and a 10 MiB one to the sink beside this script, which has to
# receive them octet for octet. Everything stays on 127.0.0.1.
#
#	internal/compat/clients.sh
#
# Clients that aren't there are installed with apt-get, which needs root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tmp=$(mktemp -d)
servers=()
cleanup() {
	for p in "${servers[@]}"; do
		kill -KILL "$p" || true
		wait "$p" || true
	done 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT

# Standard input is not for any of the commands; each gets what it needs.
exec </dev/null

missing=()
for c in swaks curl msmtp; do
	command -v "$c" >/dev/null || missing+=("$c")
done
# The interpreter alone may come without its library.
python3 -c 'import smtplib' 2>/dev/null || missing+=(python3)
if [ ${#missing[@]} != 0 ]; then
	echo "installing ${missing[*]}"
	{
		apt-get update
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
	} >"$tmp/apt.log" 2>&1 || { tail -n 20 "$tmp/apt.log"; exit 1; }
fi

passed=0 failed=0
# check CLIENT WHAT COMMAND...: one check, counted; output only if it fails.
check() {
	local name="$1 $2" status=0
	shift 2
	"$@" >"$tmp/check.log" 2>&1 || status=$?
	if [ "$status" = 0 ]; then
		passed=$((passed + 1))
		echo "ok $name"
	else
		failed=$((failed + 1))
		echo "FAILED $name (exit status $status)"
		# cut: a line of a transcript may be a whole message.
		tail -n 20 "$tmp/check.log" | cut -c 1-200 | sed 's/^/    /'
	fi
}

# --- messages ---------------------------------------------------------------

# Every header that a client would add is there, so none has a reason to. No
# client is given an option that makes it skip dot-stuffing: each gets the
# plain message and must stuff it, the server must undo it.
headers() {
	cat <<-END
		From: Sender <sender@example.org>
		To: Recipients <one@example.com>
		Date: Thu, 01 Jan 2026 00:00:00 +0000
		Message-ID: <$1@example.org>
		Subject: $1
		MIME-Version: 1.0
		Content-Type: text/plain; charset=us-ascii

	END
}

{
	headers small
	printf '%s\n' . .. ... .x ..x ' .' '' 'MAIL FROM:<not@a.command>' QUIT
	printf '%0998d\n' 0 # the longest line that RFC 5321 allows
	printf '.%0997d\n' 0 # and one that is longer once stuffed
	printf '%s\n' '' .. .
} >"$tmp/small.lf"
{
	headers big
	# 78 octets a line with its CRLF: the first count that fills 10 MiB.
	seq 1100000 | base64 -w 76 | sed -n 1,134433p
} >"$tmp/big.lf"
for m in small big; do
	sed 's/$/\r/' "$tmp/$m.lf" >"$tmp/$m"
done
[ "$(wc -c <"$tmp/big")" -ge $((10 << 20)) ] || { echo "big message too small"; exit 1; }

# One address in mixed case: the server is to get it as it was sent.
small_rcpts=(one@example.com Two@Example.COM three@example.net)
big_rcpts=(one@example.com)

# --- clients: send_CLIENT PORT MESSAGE RECIPIENT... ---------------------------

from=sender@example.org

# swaks takes one line "." from the end of its data and adds CRLF "." itself. So
# a message without that line would grow by a CRLF, and one that ends in a "." of
# its own would lose it; hence the line added here. The rest it sends as it is:
# the tokens it would replace (%NAME%, \n) and the "From " line it would strip
# don't occur. Its transcript holds the whole message, so only errors are printed.
send_swaks() {
	local port=$1 file=$2 to
	shift 2
	to=$(IFS=,; echo "$*")
	{ cat "$file"; printf '.\r\n'; } |
		swaks --config --server 127.0.0.1 --port "$port" --helo localhost \
			--from "$from" --to "$to" --data - --silent 2
}

# curl sends the file as it is. The path of the URL is the name for EHLO.
send_curl() {
	local port=$1 file=$2 rcpts=() r
	shift 2
	for r; do rcpts+=(--mail-rcpt "$r"); done
	curl --disable --silent --show-error --noproxy '*' --mail-from "$from" "${rcpts[@]}" \
		--upload-file "$file" "smtp://127.0.0.1:$port/localhost"
}

# msmtp reads a mail with LF line ends, as sendmail does, and sends CRLF; hence
# the .lf twin. It is told to leave the headers alone; --host makes it ignore
# configuration files.
send_msmtp() {
	local port=$1 file=$2
	shift 2
	msmtp --host=127.0.0.1 --port="$port" --domain=localhost --from="$from" \
		--tls=off --auth=off --set-from-header=off --set-date-header=off \
		--set-msgid-header=off --remove-bcc-headers=off --undisclosed-recipients=off \
		-- "$@" <"$file.lf"
}

# smtplib sends bytes as they are; only a str would have its line ends fixed.
send_smtplib() {
	python3 - "$from" "$@" <<-'END'
		import smtplib, sys
		sender, port, path, *rcpts = sys.argv[1:]
		with open(path, "rb") as f:
		    msg = f.read()
		with smtplib.SMTP("127.0.0.1", int(port), local_hostname="localhost", timeout=30) as s:
		    refused = s.sendmail(sender, rcpts, msg)
		sys.exit(f"refused: {refused}" if refused else 0)
	END
}

# send CLIENT PORT MESSAGE RECIPIENT...: a client that hangs has failed (124).
export from
export -f send_swaks send_curl send_msmtp send_smtplib
send() {
	timeout --kill-after=1 20 bash -euo pipefail -c '"send_$@"' send "$@"
}

# --- servers ------------------------------------------------------------------

cd "$root"
go build -o "$tmp/quickstart" ./examples/quickstart
go build -o "$tmp/sink" ./internal/compat/sink

# start NAME ARGS...: sets pid and port.
start() {
	local name=$1 i
	shift
	: >"$tmp/$name.log" # the loop below may look before the server's shell does
	"$tmp/$name" "$@" >>"$tmp/$name.log" 2>&1 &
	pid=$!
	servers+=("$pid")
	for ((i = 0; i < 100; i++)); do
		port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$tmp/$name.log" | head -n 1)
		[ -z "$port" ] || return 0
		sleep 0.1
	done
	echo "$name doesn't listen:"
	cat "$tmp/$name.log"
	exit 1
}

start quickstart -addr 127.0.0.1:0 -once=false
quickstart_pid=$pid quickstart_port=$port
mkdir "$tmp/mail"
start sink -dir "$tmp/mail"
sink_pid=$pid sink_port=$port

# --- checks -------------------------------------------------------------------

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
	# The sink's next number, whether or not all deliveries so far succeeded.
	n=$(($(find "$tmp/mail" -name '*.eml' | wc -l) + 1))
	: >"$tmp/mail/verbs"
	check "$client" "$msg message sent" send "$client" "$sink_port" "$tmp/$msg" "$@"
	check "$client" "$msg message received as sent" cmp "$tmp/$msg" "$tmp/mail/$n.eml"
	check "$client" "$msg message's recipients" diff <(printf '%s\n' "$@") "$tmp/mail/$n.rcpt"
	check "$client" "$msg message's commands seen by the hook" saw_verbs $#
}

sink_stops() { # on SIGTERM, soon, with exit status 0
	local i status=0
	kill -TERM "$sink_pid"
	for ((i = 0; i < 100; i++)); do
		kill -0 "$sink_pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$sink_pid" 2>/dev/null || true
	wait "$sink_pid" || status=$?
	cat "$tmp/sink.log"
	return "$status"
}

for client in swaks curl msmtp smtplib; do
	check "$client" "quickstart accepts its message" send "$client" "$quickstart_port" "$tmp/small" one@example.com
	deliver "$client" small "${small_rcpts[@]}"
	deliver "$client" big "${big_rcpts[@]}"
done
check sink "holds $deliveries messages" [ "$(find "$tmp/mail" -name '*.eml' | wc -l)" = "$deliveries" ]
check sink "ends cleanly" sink_stops
servers=("$quickstart_pid")

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
