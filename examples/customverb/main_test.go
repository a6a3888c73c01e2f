package main

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestOncePrintsTheWholeDialogueAndReturns(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := regexp.MustCompile(`(?s)^listening on 127\.0\.0\.1:[1-9][0-9]*
S:    220 .*
C:    HALLO client\.example\.org
S:    250-Hello client\.example\.org
.*
S:    250 XPING
C:    KLINGEL 1
S:    250 2\.0\.0 pong 1
C:    POST VON:<sender@example\.org>
S:    250 2\.0\.0 In Ordnung
C:    EMPFAENGER AN:<one@example\.com>
S:    250 2\.0\.0 In Ordnung
C:    INHALT
S:    354 [^\n]*
C:    Subject: customverb
C:
C:    Hallo!
C:    \.
mail: from "sender@example\.org" to \["one@example\.com"\], 31 octets, greeted as client\.example\.org
S:    250 2\.0\.0 In Ordnung
C:    TSCHUESS
S:    221 2\.0\.0 Auf Wiedersehen
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
}

// newSession returns a session, of which the library must have nothing to complain.
func newSession(t *testing.T) *proxytest.Session {
	var complaints bytes.Buffer
	t.Cleanup(func() {
		if complaints.Len() > 0 {
			t.Errorf("the log has\n%s", &complaints)
		}
	})
	var mux smtpproxy.Mux
	mux.Extend("XPING", "XPING", smtpproxy.HookFunc(ping))
	return proxytest.NewSession(&smtpproxy.Proxy{
		Hook:   smtpproxy.Chain(german{}, &mux),
		Logger: slog.New(slog.NewTextHandler(&complaints, nil)),
	})
}

func TestEachGermanCommandIsOneOfTheServers(t *testing.T) {
	s := newSession(t)
	for _, tt := range []struct{ line, want, reply string }{
		{"hallo client.example", "EHLO client.example", "250 XPING"},
		{"Post von: <a@example.org> SIZE=1", "MAIL FROM: <a@example.org> SIZE=1", "250 2.1.0 In Ordnung"},
		{"VERGISS", "RSET", "250 2.0.0 In Ordnung"},
		{"EMPFAENGER AN:<b@example.org>", "RCPT TO:<b@example.org>", "503 5.5.1 Falsche Reihenfolge"},
		{"POST VON:<a@example.org>", "MAIL FROM:<a@example.org>", "250 2.1.0 In Ordnung"},
		{"EMPFAENGER AN:<von:an:b@example.org>", "RCPT TO:<von:an:b@example.org>", "250 2.1.5 In Ordnung"},
		{"INHALT", "DATA", "354 Go ahead"},
	} {
		d := s.Send(tt.line)
		if pass, ok := d.(smtpproxy.Pass); ok && pass.Command != tt.want {
			t.Errorf("%q became %q, want %q", tt.line, pass.Command, tt.want)
		}
		if got := s.Reply().String(); !strings.HasSuffix(got, tt.reply) {
			t.Errorf("%q: %q, want %q", tt.line, got, tt.reply)
		}
	}
	s.SendContent()
	if got := s.Reply().String(); got != "250 2.0.0 In Ordnung" {
		t.Errorf("the message got %q", got)
	}
	s.Send("QUATSCH")
	if got := s.Reply().String(); got != "500 5.5.2 Unbekannter Befehl" {
		t.Errorf("an unknown command got %q", got)
	}
	s.Send("TSCHUESS")
	if got := s.Reply().String(); got != "221 2.0.0 Auf Wiedersehen" || !s.Closed() {
		t.Errorf("the end was %q", got)
	}
}

func TestClientsThatSpeakEnglishNoticeNothing(t *testing.T) {
	s := newSession(t)
	for _, tt := range []struct{ line, reply string }{
		{"EHLO client.example", "250 XPING"},
		{"XPING 1", "250 2.0.0 pong 1"},
		{"XPING", "250 2.0.0 pong"},
		{"MAIL FROM:<a@example.org>", "250 2.1.0 Sender OK"},
		{"RCPT TO:<von@example.org>", "250 2.1.5 Recipient OK"},
		{"QUATSCH", "500 5.5.2 Command not recognized"},
		{"QUIT", "221 2.0.0 Bye"},
	} {
		s.Send(tt.line)
		if got := s.Reply().String(); !strings.HasSuffix(got, tt.reply) {
			t.Errorf("%q: %q, want %q", tt.line, got, tt.reply)
		}
	}
}
