package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file proves that nobody notices the library: the same session, with it
// and without it.

func bare(l net.Listener, _ smtpproxy.Hook) net.Listener { return l }

// proper draws a session that keeps to the RFCs, to the end.
func (s *stream) proper() []byte {
	end := "\r\n"
	hello := "EHLO"
	if s.lmtp {
		hello = "LHLO"
	}
	add := func(format string, args ...any) { fmt.Fprintf(s, format+end, args...) }
	add("%s client.example", hello)
	if s.IntN(3) == 0 {
		add("%s", s.pick("AUTH PLAIN AHVzZXIAcGFzcw==", "AUTH PLAIN\r\nAHVzZXIAcGFzcw==", "AUTH PLAIN\r\n*", "AUTH PLAIN AHVzZXIAd3Jvbmc="))
	}
	for range 1 + s.IntN(4) {
		if s.IntN(3) == 0 {
			add("%s", s.pick("NOOP", "RSET", "VRFY someone", "HELP", "EXPN list", "noop", hello+" again.example"))
		}
		add("MAIL FROM:<%s>%s", s.pick("", "sender@example.com", "S.Ender@Example.COM"), s.pick("", " SIZE=100", " BODY=8BITMIME"))
		rcpts := s.IntN(6)
		for range rcpts {
			add("RCPT TO:<%s%d@example.org>", s.pick("r", "r", "r", "no"), s.number())
		}
		if s.IntN(4) == 0 {
			add("RCPT TO:<refused@late.example>")
		}
		add("RCPT TO:<last@example.org>")
		switch s.IntN(5) {
		case 0:
			add("%s", s.pick("RSET", hello+" anew.example"))
		case 1:
			s.chunks()
		default:
			add("DATA")
			s.Write(s.message())
			s.WriteString(".\r\n")
		}
	}
	add("QUIT")
	return s.Bytes()
}

// message draws clean content, dot-stuffed: lines of up to 998 octets.
func (s *stream) message() []byte {
	var b bytes.Buffer
	lines := s.IntN(20)
	if s.IntN(4) == 0 {
		lines = s.IntN(1500) // more than one buffer holds
	}
	for range lines {
		b.WriteString(s.pick("", "..", "..", "..dot", "text.", ". ", "text\x00\x01\xff", "RSET", "MAIL FROM:<evil@example.com>",
			strings.Repeat("x", s.IntN(200)), strings.Repeat("0123456789", s.IntN(10))))
		b.WriteString("\r\n")
	}
	// A line that starts with a dot is stuffed.
	return bytes.ReplaceAll(append([]byte("Subject: test\r\n"), b.Bytes()...), []byte("\n. \r"), []byte("\n.. \r"))
}

func (s *stream) chunks() {
	n := s.IntN(3)
	if s.gosmtp && s.lmtp {
		n = 0
	}
	for range n {
		chunk := s.message()
		fmt.Fprintf(s, "BDAT %d\r\n%s", len(chunk), chunk)
	}
	chunk := s.message()
	fmt.Fprintf(s, "BDAT %d LAST\r\n%s", len(chunk), chunk)
}

func TestTheClientAndTheServerDoNotNoticeTheLibrary(t *testing.T) {
	for _, d := range dialects {
		if d.refuses {
			continue
		}
		for name, listen := range transports {
			t.Run(d.name+" over "+name, func(t *testing.T) {
				t.Parallel()
				messages, resets := 0, 0
				for seed := range uint64(*sessions) {
					r := rand.New(rand.NewPCG(seed, 2))
					sent := (&stream{Rand: r, dialect: d}).proper()
					want, wantRecord := converse(t, r, d, listen, bare, nil, sent)
					got, gotRecord := converse(t, r, d, listen, library, &passLog{}, sent)
					if !bytes.Equal(got, want) {
						t.Fatalf("seed %d: sent %.3000q\ngot  %q\nwant %q", seed, sent, got, want)
					}
					all := len(gotRecord.Commands)
					gotRecord.Commands = withoutOwnResets(gotRecord.Commands, wantRecord.Commands)
					resets += all - len(gotRecord.Commands)
					if !reflect.DeepEqual(gotRecord, wantRecord) {
						t.Fatalf("seed %d: sent %.3000q\nthe server did   %.3000q\nwithout library %.3000q", seed, sent, gotRecord, wantRecord)
					}
					messages += len(gotRecord.Messages)
				}
				if messages < *sessions/2 {
					t.Errorf("only %d messages in %d sessions: the property says little", messages, *sessions)
				}
				if resets == 0 {
					t.Error("the library has never sent RSET")
				}
			})
		}
	}
}

// withoutOwnResets returns what the server executed behind the library without the
// RSET that the library sends before MAIL, where the transaction before didn't end
// for sure: that is the one difference.
func withoutOwnResets(got, want []string) (rest []string) {
	for i, c := range got {
		own := c == "RSET" && i+1 < len(got) && strings.HasPrefix(got[i+1], "MAIL")
		if own && (len(rest) >= len(want) || want[len(rest)] != "RSET") {
			continue
		}
		rest = append(rest, c)
	}
	return rest
}

// converse plays a session and returns what the client got and what the server
// did.
func converse(t *testing.T, r *rand.Rand, d dialect, listen func(*testing.T) transport, w wrap, h smtpproxy.Hook, sent []byte) ([]byte, servertest.Record) {
	t.Helper()
	tr := listen(t)
	server := d.start()
	served := make(chan error, 1)
	go func() { served <- server.Serve(w(tr, h)) }()
	got := play(t, r, tr, sent)
	server.Close()
	<-served
	return got, server.Record()
}
