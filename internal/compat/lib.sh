# What the scripts beside this one have in common: setting up, servers, messages,
# and how each client is called. To be sourced by bash.
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

# --- what has to be there -----------------------------------------------------

missing=()
need() { # need PACKAGE COMMAND...: PACKAGE is missing if COMMAND fails
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

need_clients() {
	local c
	for c in swaks curl msmtp; do
		need "$c" command -v "$c"
	done
	# The interpreter alone may come without its library.
	need python3 python3 -c 'import smtplib, ssl'
}

install_missing() {
	[ ${#missing[@]} != 0 ] || return 0
	echo "installing ${missing[*]}"
	{
		apt-get update
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
	} >"$tmp/apt.log" 2>&1 || { tail -n 20 "$tmp/apt.log"; exit 1; }
}

# --- checks -------------------------------------------------------------------

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

summary() {
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
}

# --- messages: $tmp/small and $tmp/big ----------------------------------------

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

# The number that a server will give its next message in $tmp/mail, whether or
# not all deliveries so far succeeded.
next_message() {
	echo $(($(find "$tmp/mail" -name '*.eml' | wc -l) + 1))
}

# --- clients: send_CLIENT PORT MESSAGE RECIPIENT[,RECIPIENT...] [OPTION...] ---

from=sender@example.org

# swaks takes one line "." from the end of its data and adds CRLF "." itself. So
# a message without that line would grow by a CRLF, and one that ends in a "." of
# its own would lose it; hence the line added here. The rest it sends as it is:
# the tokens it would replace (%NAME%, \n) and the "From " line it would strip
# don't occur. Its transcript holds the whole message, so only errors are printed.
send_swaks() {
	local port=$1 file=$2 to=$3
	shift 3
	{ cat "$file"; printf '.\r\n'; } |
		swaks --config --server 127.0.0.1 --port "$port" --helo localhost \
			--from "$from" --to "$to" --data - --silent 2 "$@"
}

# curl sends the file as it is. The path of the URL is the name for EHLO; its
# scheme is smtps for TLS from the start.
curl_scheme=smtp
send_curl() {
	local port=$1 file=$2 to rcpts=() r
	IFS=, read -ra to <<<"$3"
	shift 3
	for r in "${to[@]}"; do rcpts+=(--mail-rcpt "$r"); done
	curl --disable --silent --show-error --noproxy '*' --mail-from "$from" "${rcpts[@]}" \
		--upload-file "$file" "$@" "$curl_scheme://127.0.0.1:$port/localhost"
}

# msmtp reads a mail with LF line ends, as sendmail does, and sends CRLF; hence
# the .lf twin. It is told to leave the headers alone; --host makes it ignore
# configuration files.
send_msmtp() {
	local port=$1 file=$2 to
	IFS=, read -ra to <<<"$3"
	shift 3
	msmtp --host=127.0.0.1 --port="$port" --domain=localhost --from="$from" \
		--tls=off --auth=off --set-from-header=off --set-date-header=off \
		--set-msgid-header=off --remove-bcc-headers=off --undisclosed-recipients=off \
		"$@" -- "${to[@]}" <"$file.lf"
}

# smtplib sends bytes as they are; only a str would have its line ends fixed. Its
# options are tls=starttls or tls=implicit, with cafile=FILE, and user=USER with
# password=PASSWORD.
send_smtplib() {
	python3 - "$from" "$@" <<-'END'
		import smtplib, ssl, sys
		sender, port, path, rcpts, *options = sys.argv[1:]
		option = dict(o.split("=", 1) for o in options)
		with open(path, "rb") as f:
		    msg = f.read()
		tls = option.get("tls")
		context = ssl.create_default_context(cafile=option["cafile"]) if tls else None
		server = dict(host="127.0.0.1", port=int(port), local_hostname="localhost", timeout=30)
		with smtplib.SMTP_SSL(context=context, **server) if tls == "implicit" else smtplib.SMTP(**server) as s:
		    if tls == "starttls":
		        s.starttls(context=context)
		    if "user" in option:
		        s.login(option["user"], option["password"])
		    refused = s.sendmail(sender, rcpts.split(","), msg)
		sys.exit(f"refused: {refused}" if refused else 0)
	END
}

# send CLIENT PORT MESSAGE RECIPIENT[,RECIPIENT...] [OPTION...]: a client that
# hangs has failed (124).
export from curl_scheme
export -f send_swaks send_curl send_msmtp send_smtplib
send() {
	timeout --kill-after=1 20 bash -euo pipefail -c '"send_$@"' send "$@"
}

# --- servers ------------------------------------------------------------------

# start NAME ARGS...: starts $tmp/NAME, sets pid and port. Its log, $tmp/NAME.log,
# may be emptied at any time.
start() {
	local name=$1
	shift
	: >"$tmp/$name.log" # listening may look before the server's shell does
	"$tmp/$name" "$@" >>"$tmp/$name.log" 2>&1 &
	pid=$!
	servers+=("$pid")
	port=$(listening "$name" '')
}

# listening NAME SUFFIX: the port on the line of the log that ends in SUFFIX.
listening() {
	local port i
	for ((i = 0; i < 100; i++)); do
		port=$(sed -n "s/.*listening on 127\.0\.0\.1:\([0-9]*\)$2\$/\1/p" "$tmp/$1.log" | head -n 1)
		[ -z "$port" ] || { echo "$port"; return; }
		sleep 0.1
	done
	{ echo "$1 doesn't listen:"; cat "$tmp/$1.log"; } >&2
	exit 1
}

# ends NAME PID: on SIGTERM, soon, with exit status 0.
ends() {
	local i status=0
	kill -TERM "$2"
	for ((i = 0; i < 100; i++)); do
		kill -0 "$2" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$2" 2>/dev/null || true
	wait "$2" || status=$?
	cat "$tmp/$1.log"
	return "$status"
}
