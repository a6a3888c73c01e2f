#!/usr/bin/env bash
# Sends mail with swaks, curl, msmtp and Python's smtplib through TLS, with
# STARTTLS and from the first octet, to examples/submission: without
# authentication and with a wrong password, which have to be refused, then a
# small and a 10 MiB message, which have to arrive octet for octet. OpenSSL's
# s_client checks versions of TLS, client certificates and resumed sessions, which
# there are none of after STARTTLS. Each checks the server's certificate. Everything
# stays on 127.0.0.1.
#
#	internal/compat/tlsclients.sh
#
# Clients that aren't there are installed with apt-get, which needs root.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_clients
need libnet-ssleay-perl perl -MNet::SSLeay -e 1 # swaks doesn't depend on it
need openssl command -v openssl
install_missing

go -C "$root/examples/submission" build -o "$tmp/submission" .
mkdir "$tmp/mail"
cert=$tmp/cert.pem
start submission -addr 127.0.0.1:0 -tls-addr 127.0.0.1:0 -pass secret -cert-out "$cert" -dir "$tmp/mail"
submission_pid=$pid starttls_port=$port
implicit_port=$(listening submission ' (TLS)')
declare -A ports=([starttls]=$starttls_port [implicit]=$implicit_port)
log=$tmp/submission.log

# --- what the hook saw, since the log was emptied -------------------------------

# saw SEQUENCE: a regular expression for all commands. Each has before it what
# was known of the client: nothing, "tls:", or the SASL mechanism.
saw() {
	local got
	got=$(sed -n -e 's/^hook: plaintext: \([^ ]*\).*/\U\1/p' \
		-e 's/^hook: TLSv1\.[23]: \([^ ]*\).*/tls:\U\1/p' \
		-e 's/^hook: TLSv1\.[23], user "user" by \([^:]*\): \([^ ]*\).*/\1:\U\2/p' "$log" | tr '\n' ' ')
	cat "$log"
	echo "hook saw: $got"
	[[ $got =~ ^$1\ $ ]] && ! grep -q "$secrets" "$log"
}
secrets="secret\|$(printf '\0user\0secret' | base64)"

logged() { # logged PATTERN: a basic regular expression for a part of a line
	cat "$log"
	grep -q "$1" "$log"
}

# greets MODE: what a client sends before it is inside TLS and has greeted.
greets() {
	case $1 in
	starttls) echo 'EHLO STARTTLS tls:EHLO' ;;
	implicit) echo 'tls:EHLO' ;;
	esac
}

# --- mail clients -----------------------------------------------------------

# options CLIENT MODE MECHANISM PASSWORD: sets options; no MECHANISM, no AUTH. In
# PLAIN, curl sends an initial response only with --sasl-ir: so each way is taken.
options() {
	curl_scheme=smtp
	case $1-$2 in
	swaks-starttls) options=(--tls --tls-verify --tls-ca-path "$cert") ;;
	swaks-implicit) options=(--tls-on-connect --tls-verify --tls-ca-path "$cert") ;;
	curl-starttls) options=(--ssl-reqd --cacert "$cert" --sasl-ir) ;;
	curl-implicit) options=(--cacert "$cert") curl_scheme=smtps ;;
	msmtp-starttls) options=(--tls=on --tls-starttls=on --tls-trust-file="$cert") ;;
	msmtp-implicit) options=(--tls=on --tls-starttls=off --tls-trust-file="$cert") ;;
	smtplib-*) options=(tls="$2" cafile="$cert") ;;
	esac
	[ -n "$3" ] || return 0
	case $1 in
	swaks) options+=(--auth "$3" --auth-user user --auth-password "$4") ;;
	curl) options+=(--user "user:$4" --login-options "AUTH=$3") ;;
	msmtp) options+=(--auth="${3,,}" --user=user --passwordeval="echo $4") ;;
	smtplib) options+=(user=user password="$4") ;; # it takes the best that there is, PLAIN
	esac
}

refused() { # refused WHY COMMAND...: it fails, and prints what matches WHY
	local why=$1 out
	shift
	! out=$("$@" 2>&1) || { echo "accepted: $out"; return 1; }
	echo "$out"
	[[ $out =~ $why ]]
}

deliveries=0
deliver() { # deliver CLIENT MODE MECHANISM MESSAGE
	local client=$1 mode=$2 mechanism=$3 msg=$4 n
	deliveries=$((deliveries + 1))
	n=$(next_message)
	: >"$log"
	options "$client" "$mode" "$mechanism" secret
	check "$client" "$mode, $mechanism: $msg message sent" \
		send "$client" "${ports[$mode]}" "$tmp/$msg" one@example.com "${options[@]}"
	check "$client" "$mode, $mechanism: $msg message received as sent" cmp "$tmp/$msg" "$tmp/mail/$n.eml"
	check "$client" "$mode, $mechanism: $msg message's commands seen by the hook" \
		saw "$(greets "$mode") tls:AUTH $mechanism:MAIL $mechanism:RCPT $mechanism:(DATA|BDAT( $mechanism:BDAT)*) $mechanism:QUIT"
}

for mode in starttls implicit; do
	port=${ports[$mode]}
	for client in swaks curl msmtp smtplib; do
		: >"$log"
		options "$client" "$mode" '' ''
		check "$client" "$mode: refused without AUTH" \
			refused 530 send "$client" "$port" "$tmp/small" one@example.com "${options[@]}"
		# Some don't wait for the reply to MAIL, or don't say QUIT.
		check "$client" "$mode: refused at MAIL" saw "$(greets "$mode") tls:MAIL( tls:RCPT)?( tls:DATA)?( tls:RSET)?( tls:QUIT)?"
		: >"$log"
		options "$client" "$mode" PLAIN wrong
		# curl doesn't show the code.
		check "$client" "$mode: refused with a wrong password" \
			refused '535|Login denied' send "$client" "$port" "$tmp/small" one@example.com "${options[@]}"
		check "$client" "$mode: refused at AUTH" saw "$(greets "$mode") tls:AUTH( tls:QUIT)?"
		deliver "$client" "$mode" PLAIN small
		deliver "$client" "$mode" PLAIN big
	done
	# It depends on msmtp's SASL library.
	if msmtp --version | grep -qw scram-sha-256; then
		deliver msmtp "$mode" SCRAM-SHA-256 small
		deliver msmtp "$mode" SCRAM-SHA-256 big
	fi
done

# --- AUTH without TLS -----------------------------------------------------------

# No client tries that of its own accord, as AUTH isn't offered. This one does.
insist() {
	python3 - "${ports[starttls]}" "$(printf '\0user\0secret' | base64)" <<-'END'
		import smtplib, sys
		s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), local_hostname="localhost", timeout=10)
		s.ehlo()
		reply = s.docmd("AUTH", "PLAIN " + sys.argv[2])
		print(reply)
		assert reply[0] == 523 and reply[1].startswith(b"5.7.10 ")
		try:
		    sys.exit(f"still connected: {s.noop()}")
		except smtplib.SMTPServerDisconnected:
		    pass
	END
}

: >"$log"
check swaks "no TLS: gives up, as AUTH is not offered" \
	refused 'did not advertise authentication' send swaks "${ports[starttls]}" "$tmp/small" one@example.com \
	--auth PLAIN --auth-user user --auth-password secret
check swaks "no TLS: sends no AUTH" saw 'EHLO QUIT'
: >"$log"
check smtplib "no TLS: hung up on for AUTH all the same" insist
check smtplib "no TLS: hung up on by the hook" saw 'EHLO AUTH'

# --- s_client: versions, client certificates, resumed sessions ------------------

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=client' \
	-keyout "$tmp/client.key" -out "$tmp/client.pem" 2>"$tmp/req.log" || { cat "$tmp/req.log"; exit 1; }

# session MODE OPTION...: a session whose replies have to be these.
session() {
	local mode=$1 starttls=() got
	shift
	[ "$mode" != starttls ] || starttls=(-starttls smtp -name localhost)
	printf '%s\n' 'EHLO localhost' "MAIL FROM:<$from>" "AUTH PLAIN $(printf '\0user\0secret' | base64)" \
		"MAIL FROM:<$from>" 'RCPT TO:<one@example.com>' QUIT |
		timeout --kill-after=1 20 openssl s_client -connect "127.0.0.1:${ports[$mode]}" "${starttls[@]}" \
			-ign_eof -crlf -CAfile "$cert" -verify_return_error -verify_hostname localhost \
			-servername localhost "$@" >"$tmp/session" 2>&1
	cat "$tmp/session"
	# The first is the greeting or, with STARTTLS, of the EHLO before.
	got=$(grep -o '^[0-9][0-9][0-9] ' "$tmp/session" | tr -d '\n')
	echo "replies: $got"
	case $mode in
	starttls) [ "$got" = '250 250 530 235 250 250 221 ' ] ;;
	implicit) [ "$got" = '220 250 530 235 250 250 221 ' ] ;;
	esac
}
commands='tls:EHLO tls:MAIL tls:AUTH PLAIN:MAIL PLAIN:RCPT PLAIN:QUIT'

# inspect WHAT MODE CIPHERS CERTIFICATE OPTION...: the last is what the hook knows.
inspect() {
	local what=$1 mode=$2 ciphers=$3 certificate=$4 before=
	shift 4
	[ "$mode" != starttls ] || before='EHLO STARTTLS '
	: >"$log"
	check s_client "$mode, $what: session" session "$mode" "$@"
	check s_client "$mode, $what: commands seen by the hook" saw "$before$commands"
	check s_client "$mode, $what: known to the hook" \
		logged "^hook: $ciphers, [0-9]* bits, SNI \"localhost\", $certificate"
}

own=(-cert "$tmp/client.pem" -key "$tmp/client.key")
self_signed='client certificate "CN=client", verify number 18 '
for mode in starttls implicit; do
	for version in 1_2 1_3; do
		# OpenSSL's names of what both may agree on.
		case $version in
		1_2) ciphers='ECDHE-ECDSA-[A-Z0-9-]*' ;;
		1_3) ciphers='TLS_[A-Z0-9_]*' ;;
		esac
		inspect "TLS $version, no certificate" "$mode" "$ciphers" 'no client certificate$' "-tls$version"
		inspect "TLS $version, own certificate" "$mode" "$ciphers" "$self_signed" "-tls$version" \
			"${own[@]}" -sess_out "$tmp/ticket"
		case $mode in
		# The library lets the server send no session ticket: see Proxy.SessionTickets.
		starttls) check s_client "$mode, TLS $version: nothing to resume" [ ! -e "$tmp/ticket" ] ;;
		implicit)
			# The certificate is not sent again.
			inspect "TLS $version, resumed session" "$mode" "$ciphers" "$self_signed" "-tls$version" \
				-sess_in "$tmp/ticket"
			check s_client "$mode, TLS $version, resumed session: it was one" grep '^Reused, ' "$tmp/session"
			;;
		esac
	done
done

check submission "holds $deliveries messages" [ "$(find "$tmp/mail" -name '*.eml' | wc -l)" = "$deliveries" ]
check submission "ends cleanly" ends submission "$submission_pid"
servers=()

summary
