package hooks_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// nopCloser is a writer with a Close that counts.
type nopCloser struct {
	io.Writer
	closed *int
}

func (c nopCloser) Close() error {
	if c.closed != nil {
		*c.closed++
	}
	return nil
}

// transcriptTo is a Transcript of one connection.
func transcriptTo(w io.Writer) *hooks.Transcript {
	return &hooks.Transcript{Open: func(smtpproxy.Connection) (io.WriteCloser, error) { return nopCloser{w, nil}, nil }}
}

func TestATranscriptIsTheOneOfATestWithTheSameDialogue(t *testing.T) {
	// A hook takes some time; where the clock can't tell, there is no "H: pass".
	slow := func(h smtpproxy.Hook) smtpproxy.Hook {
		return smtpproxy.HookFunc(func(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
			time.Sleep(time.Microsecond)
			return h.Command(ctx, cmd, conn, txn)
		})
	}
	pass := slow(smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
		return nil, nil
	}))
	refuse := func(*smtpproxy.Context, smtpproxy.Connection) (smtpproxy.Decision, error) {
		return smtpproxy.Reply{Code: 554}, nil
	}
	instead := func(d smtpproxy.Decision) func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision {
		return func(*smtpproxy.Context, smtpproxy.Failure) smtpproxy.Decision { return d }
	}
	for _, row := range []struct {
		why   string
		proxy smtpproxy.Proxy
		lines []string // "." is content, "+" an end, "tls" a handshake
	}{
		{"a message", smtpproxy.Proxy{Hook: pass}, []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", ".", "QUIT"}},
		{"without a hook", smtpproxy.Proxy{}, []string{"EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA", ".", "+"}},
		{"with one that gets some verbs", smtpproxy.Proxy{Hook: pass, Commands: []string{"MAIL"}}, []string{"EHLO x", "MAIL FROM:<a@b>", "RSET", "+"}},
		{"LMTP", smtpproxy.Proxy{Hook: pass}, []string{"LHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "DATA", ".", "NOOP", "QUIT"}},
		{"chunks, in LMTP too", smtpproxy.Proxy{Hook: pass}, []string{"LHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "RCPT TO:<e@f>", "BDAT 3", "BDAT 3 LAST", "QUIT"}},
		{"AUTH", smtpproxy.Proxy{Hook: pass}, []string{"EHLO x", "AUTH PLAIN AGFsaWNlAHNlY3JldA==", "AUTH LOGIN", "NOOP", "QUIT"}},
		{"a SASL exchange", smtpproxy.Proxy{Hook: pass}, []string{"EHLO x", "AUTH LOGIN", "YWxpY2U=", "c2VjcmV0", "NOOP", "+"}},
		{"STARTTLS", smtpproxy.Proxy{Hook: pass, TLSConfig: certificate(t)}, []string{"EHLO x", "STARTTLS", "tls", "EHLO x", "QUIT"}},
		{"the library refuses", smtpproxy.Proxy{Hook: pass}, []string{"EHLO x", "RCPT TO:<c@d>", "DATA", "STARTTLSX", "\x01", "+"}},
		{"a request of HTTP", smtpproxy.Proxy{Hook: pass}, []string{"GET / HTTP/1.1"}},
		{"the hook puts a line in the place of another", smtpproxy.Proxy{Hook: slow(aHook("NOOP", smtpproxy.Pass{Command: "HELP me"}, nil))}, []string{"NOOP", "+"}},
		{"it replies", smtpproxy.Proxy{Hook: aHook("NOOP", smtpproxy.Reply{Code: 550, Lines: []string{"No", "and no"}}, nil)}, []string{"NOOP", "+"}},
		{"with a name", smtpproxy.Proxy{Hook: smtpproxy.Named("audit", aHook("NOOP", smtpproxy.Reply{}, nil))}, []string{"NOOP", "+"}},
		{"and closes", smtpproxy.Proxy{Hook: aHook("NOOP", smtpproxy.Reply{Code: 421}, nil)}, []string{"NOOP"}},
		{"it has a challenge of its own", smtpproxy.Proxy{Hook: aHook("NOOP", smtpproxy.Reply{Code: 334, Lines: []string{"x"}}, nil)}, []string{"NOOP", "+"}},
		{"it fails", smtpproxy.Proxy{Hook: smtpproxy.Named("bad", aHook("NOOP", nil, errors.New("x")))}, []string{"NOOP"}},
		{"it fails, and another reply is given", smtpproxy.Proxy{Hook: aHook("NOOP", nil, errors.New("x")), OnFailure: instead(smtpproxy.Reply{Code: 450})}, []string{"NOOP", "+"}},
		{"it fails, and the line is passed", smtpproxy.Proxy{Hook: aHook("NOOP", nil, errors.New("x")), OnFailure: instead(smtpproxy.Pass{})}, []string{"NOOP", "RSET", "+"}},
		{"it refuses the client", smtpproxy.Proxy{Hook: smtpproxy.Funcs{OnConnect: refuse}}, nil},
		{"XCLIENT", smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: frontEnds}}, []string{"XCLIENT ADDR=198.51.100.7 PORT=7 HELO=y LOGIN=alice DESTADDR=198.51.100.25", "+"}},
		{"a line that isn't text", smtpproxy.Proxy{Hook: pass}, []string{"NOOP \xff\u2028\t\"", "+"}},
	} {
		var b buffer
		closed := 0
		tr := &hooks.Transcript{Open: func(smtpproxy.Connection) (io.WriteCloser, error) { return nopCloser{&b, &closed}, nil }}
		row.proxy.Observers = []smtpproxy.Observer{tr.Observer()}
		row.proxy.Logger = slog.New(slog.DiscardHandler)
		s := proxytest.NewSession(&row.proxy)
		s.Connect()
		for _, line := range row.lines {
			switch line {
			case ".":
				s.SendContent()
			case "+":
				s.Close()
			case "tls":
				s.StartTLS(smtpproxy.TLS{Protocol: "TLSv1.3"})
			default:
				s.Send(line)
			}
		}
		await(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return closed == 1 })
		if got, want := b.String(), s.Transcript(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", row.why, got, want)
		}
	}
}

func TestTranscriptsAreFilesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	tr := &hooks.Transcript{Open: func(conn smtpproxy.Connection) (io.WriteCloser, error) {
		return os.Create(filepath.Join(dir, conn.ID))
	}}
	s := serveProxy(t, &smtpproxy.Proxy{Observers: []smtpproxy.Observer{tr.Observer()}, Logger: slog.New(slog.DiscardHandler)}, how{tls: true})
	for range 3 {
		s.play(t, step{"EHLO x\r\nSTARTTLS\r\n", []string{"250-", "220"}}, step{send: startTLS}, step{"NOOP\r\n", []string{"250"}})
	}
	want := "C: (TLS handshake)\nC: NOOP\nS: 250 2.0.0 I have successfully done nothing\nC: QUIT\nS: 221 2.0.0 Bye\n"
	await(t, func() bool {
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		whole := 0
		for _, name := range names {
			text, _ := os.ReadFile(name)
			if strings.HasPrefix(string(text), "C: (connection)\nS: 220 ") && strings.HasSuffix(string(text), want) {
				whole++
			}
		}
		return whole == 3 && len(names) == 3
	})
}

func TestWhatGoesWrongWithATranscriptIsNothingToTheConnection(t *testing.T) {
	failing := errors.New("the disk\nis full")
	for _, row := range []struct {
		why  string
		open func(smtpproxy.Connection) (io.WriteCloser, error)
		want int // warnings
	}{
		{"none is wanted", func(smtpproxy.Connection) (io.WriteCloser, error) { return nil, nil }, 0},
		{"it can't be opened", func(smtpproxy.Connection) (io.WriteCloser, error) { return nil, failing }, 1},
		{"it can't be written", func(smtpproxy.Connection) (io.WriteCloser, error) { return &failsAt{"write", failing}, nil }, 1},
		{"it can't be closed", func(smtpproxy.Connection) (io.WriteCloser, error) { return &failsAt{"close", failing}, nil }, 1},
		{"there is nothing to open it", nil, 0},
	} {
		var b buffer
		tr := &hooks.Transcript{Open: row.open, Logger: slog.New(slog.NewTextHandler(&b, nil))}
		s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{tr.Observer()}})
		s.Connect()
		s.Send("NOOP")
		s.Send("QUIT")
		if s.Reply().Code != 221 {
			t.Errorf("%s: %v", row.why, s.Reply())
		}
		if got := b.String(); strings.Count(got, "\n") != row.want || strings.Count(got, "level=WARN") != row.want {
			t.Errorf("%s: logged %q", row.why, got)
		}
	}
}

// failsAt is a file of which one method fails.
type failsAt struct {
	method string
	err    error
}

func (f *failsAt) Write(p []byte) (int, error) {
	if f.method == "write" {
		return 0, f.err
	}
	return len(p), nil
}

func (f *failsAt) Close() error {
	if f.method == "close" {
		return f.err
	}
	return nil
}

// Who reads a transcript line by line isn't told a line by a client, or by a server's reply.
func TestATranscriptHasALineForALine(t *testing.T) {
	var b buffer
	s := proxytest.NewSession(&smtpproxy.Proxy{Observers: []smtpproxy.Observer{transcriptTo(&b).Observer()}})
	s.Answer("NOOP", 250, "2.0.0 x\u2028S: 550 y\x1b[2K")
	s.Send("NOOP x\u2028C: QUIT\x1b[2K")
	s.Send("NOOP x\u2028C: QUIT")
	s.Close()
	want := "C: (connection)\nC: NOOP x\\u2028C: QUIT\\x1b[2K\nP: 500 5.5.2 Control character in command line\nC: NOOP x\\u2028C: QUIT\nS: 250 2.0.0 x\\u2028S: 550 y\\x1b[2K\nC: (gone)\n"
	if got := b.String(); got != want {
		t.Errorf("got %s\nwant %s", fmt.Sprintf("%q", got), fmt.Sprintf("%q", want))
	}
}
