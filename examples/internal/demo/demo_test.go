package demo

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// start returns what Run needs, of a server without a hook.
func start(t *testing.T) (l net.Listener, server *smtp.Server, serve func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server = Server(log.New(io.Discard, "", 0), func(*smtp.Conn) string { return "" })
	return l, server, func() error { return server.Serve(l) }
}

func TestASessionThatGoesWrongEndsTheExample(t *testing.T) {
	l, server, serve := start(t)
	steps := []Step{{"", "220 "}, {"PING", "250 "}}
	client := func() error { return Play(t.Context(), l.Addr().String(), log.New(io.Discard, "", 0), steps...) }
	if err := Run(t.Context(), l, server, serve, client, false); !errors.Is(err, ErrSession) {
		t.Errorf("got %v", err)
	}
}

func TestASessionThatIsCutShortIsAnError(t *testing.T) {
	l, server, serve := start(t)
	steps := []Step{{"", "220 "}, {"QUIT", "221 "}, {"NOOP", "250 "}}
	client := func() error { return Play(t.Context(), l.Addr().String(), log.New(io.Discard, "", 0), steps...) }
	if err := Run(t.Context(), l, server, serve, client, true); err == nil {
		t.Error("no error")
	}
}

func TestAnInterruptIsNoError(t *testing.T) {
	for _, tt := range []struct {
		why    string
		before bool
	}{
		{"before the session, and before the server serves", true},
		{"while it serves others", false},
	} {
		l, server, serve := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		client := func() error { return nil }
		if tt.before {
			cancel()
			client = func() error { return Play(ctx, l.Addr().String(), log.New(io.Discard, "", 0)) }
		} else {
			defer time.AfterFunc(10*time.Millisecond, cancel).Stop()
		}
		if err := Run(ctx, l, server, serve, client, false); err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
		cancel()
	}
}

func TestAServerThatFailsIsAnError(t *testing.T) {
	l, server, _ := start(t)
	want := errors.New("no server")
	err := Run(t.Context(), l, server, func() error { return want }, func() error { return nil }, false)
	if err != want {
		t.Errorf("got %v", err)
	}
}
