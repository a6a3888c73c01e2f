package proxytest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file holds what is advised against the library: a server with a fault does harm
// behind it, and with what the finding advises it doesn't.

// noChunks is a KeywordHook that is advised.
type noChunks struct{ smtpproxy.Hook }

func (noChunks) Keywords(_ *smtpproxy.Context, _ smtpproxy.Connection, kw *smtpproxy.Keywords) error {
	kw.Delete("CHUNKING")
	return nil
}

// dialogueBehind lets a client say something to an odd server behind a proxy, and returns the
// commands that the hook was shown, those that the server has executed, and what the
// client got.
func dialogueBehind(t *testing.T, o *odd, p smtpproxy.Proxy, chunks bool, send ...string) (shown, executed []string, got string) {
	t.Helper()
	var mu sync.Mutex
	hook := smtpproxy.Hook(smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		mu.Lock()
		defer mu.Unlock()
		shown = append(shown, strings.ToUpper(cmd.Line))
		return nil, nil
	}))
	if !chunks {
		hook = noChunks{hook}
	}
	p.Hook, p.Logger = hook, slog.New(slog.DiscardHandler)
	o.behind = func(_ *oddSession, command string) {
		mu.Lock()
		defer mu.Unlock()
		executed = append(executed, command)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pl := p.Listener(l)
	defer o.Close()
	defer pl.Close()
	go o.Serve(pl)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	r, all := bufio.NewReader(c), new(strings.Builder)
	reply := func() {
		for {
			line, err := r.ReadString('\n')
			all.WriteString(line)
			if err != nil || len(line) > 3 && line[3] == ' ' {
				return
			}
		}
	}
	reply()
	for _, s := range send {
		io.WriteString(c, s)
		reply()
	}
	c.(*net.TCPConn).CloseWrite()
	io.Copy(all, r)
	mu.Lock()
	defer mu.Unlock()
	return shown, executed, all.String()
}

func TestWhatIsAdvisedHelps(t *testing.T) {
	toMail := []string{"EHLO client.example\r\n", "MAIL FROM:<a@example.com>\r\n", "RCPT TO:<b@example.org>\r\n"}
	toData := append(slices.Clone(toMail), "DATA\r\n")
	evil := "EVIL\r\n"
	for _, tt := range []struct {
		finding string
		server  func(o *odd)
		send    []string
		advice  smtpproxy.Proxy
		chunks  bool // may be sent with the advice
	}{
		{"gives-up-long-lines", func(o *odd) {
			o.content = func(x *oddSession) error {
				for {
					line, err := x.r.ReadSlice('\n')
					switch {
					case errors.Is(err, bufio.ErrBufferFull):
						return nil
					case err != nil:
						return err
					case string(line) == ".\r\n":
						x.statuses("250 2.0.0 taken")
						return nil
					}
				}
			}
		}, append(slices.Clone(toData), strings.Repeat("x", 4096)+evil+".\r\n"), smtpproxy.Proxy{MaxTextLine: 4096}, true},
		{"splits-long-commands", func(o *odd) {
			o.readLine = func(x *oddSession) (string, error) {
				var line []byte
				for len(line) < 512 {
					b, err := x.r.ReadByte()
					if line = append(line, b); err != nil || b == '\n' {
						return strings.TrimRight(string(line), "\r\n"), err
					}
				}
				return string(line), nil
			}
		}, append(slices.Clone(toMail), "NOOP "+strings.Repeat("x", 507)+evil), smtpproxy.Proxy{MaxLineLength: 512}, true},
		{"chunk-is-commands", func(o *odd) {
			o.chunk = func(x *oddSession, _ int, _ bool) {
				x.r.Peek(1) // so that it isn't out of step
				x.reply("550 5.7.1 no")
			}
		}, append(slices.Clone(toMail), "BDAT 6 LAST\r\n"+evil), smtpproxy.Proxy{}, false},
	} {
		slipped := func(shown, executed []string) bool {
			return slices.Contains(executed, "EVIL") && !slices.Contains(shown, "EVIL")
		}
		shown, executed, got := dialogueBehind(t, newOdd(tt.server), smtpproxy.Proxy{}, true, tt.send...)
		if !slipped(shown, executed) {
			t.Errorf("%s: without the advice, nothing slips past: shown %q, executed %q, the client got %q", tt.finding, shown, executed, got)
		}
		shown, executed, got = dialogueBehind(t, newOdd(tt.server), tt.advice, tt.chunks, tt.send...)
		if slipped(shown, executed) {
			t.Errorf("%s: with the advice, something slips past: shown %q, executed %q, the client got %q", tt.finding, shown, executed, got)
		}
	}
}

// TestAServerThatWaitsForEarlyTalkersGreetsBehindTheListener is why that is a note.
func TestAServerThatWaitsForEarlyTalkersGreetsBehindTheListener(t *testing.T) {
	_, executed, got := dialogueBehind(t, newOdd(func(o *odd) {
		o.setUp = func(x *oddSession) error {
			x.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := x.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("read: %v", err)
			}
			x.r.Reset(x.conn)
			return nil
		}
	}), smtpproxy.Proxy{}, true, "EHLO client.example\r\n")
	if !slices.Equal(executed, []string{"EHLO"}) {
		t.Errorf("executed %q, the client got %q", executed, got)
	}
}
