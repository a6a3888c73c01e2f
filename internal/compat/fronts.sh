#!/usr/bin/env bash
# Runs the tests that put real programs in front of the library, and those of XCLIENT
# and XFORWARD above all: nginx, Dovecot, Postfix, HAProxy and swaks. They are
# started by the tests, with a configuration of their own, and everything stays on
# loopback addresses. And fail2ban, which reads the log of a server and bans nobody.
#
#	internal/compat/fronts.sh
#
# Programs that aren't there are installed with apt-get, which needs root, as Dovecot
# and Postfix do. Debian would start them as services too, which is prevented.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need nginx-core command -v nginx
need libnginx-mod-mail test -e /usr/lib/nginx/modules/ngx_mail_module.so
need dovecot-submissiond test -e /usr/lib/dovecot/submission-login
need dovecot-lmtpd test -e /usr/lib/dovecot/lmtp
need postfix test -e /usr/lib/postfix/sbin/master
need haproxy command -v haproxy
need swaks command -v swaks
need fail2ban command -v fail2ban-regex

policy=/usr/sbin/policy-rc.d
if [ ${#missing[@]} != 0 ] && [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"; cleanup' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy" # no service is to be started
	chmod 755 "$policy"
fi
install_missing

cd "$root"
go test -count=1 ./internal/fronts -fronts=required
cd internal/proxyproto
go test -count=1 . -fronts=required
