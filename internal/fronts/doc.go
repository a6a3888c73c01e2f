// Package fronts holds hooks.XCLIENT and hooks.XFORWARD against the programs that send these
// commands: nginx, Dovecot, Postfix and swaks, started by the tests on loopback addresses,
// with a go-smtp server behind them. And it holds the log of hooks.Trace against fail2ban, with
// the filter of docs/fail2ban.md. It has tests only; internal/proxyproto has HAProxy.
//
// A test whose program isn't installed is skipped, and the line before the last of
// "go test -v ./internal/fronts" tells which were; with -fronts=required it fails.
// internal/compat/fronts.sh installs them all.
package fronts
