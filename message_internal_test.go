package smtpproxy

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
)

// This file is about what a server does at the same moment on two goroutines.

// inLMTPContent returns a connection whose server has handed an LMTP message with two
// recipients to its backend, and what the client gets.
func inLMTPContent(t *testing.T, p phase, due int) (c *conn, client net.Conn) {
	raw, client := net.Pipe()
	c = newConn(raw, &listener{cfg: new(Proxy).config()})
	c.greeted = true
	c.s.lmtp = true
	c.s.pending, c.s.due, c.s.phase = command{verb: "DATA", line: "DATA"}, due, p
	m := c.s.txn.change()
	m.Active, m.Recipients = true, NewRecipients(Recipient{}, Recipient{})
	t.Cleanup(func() {
		c.Close()
		client.Close()
	})
	return c, client
}

// A Read that has handed over what may be the end is under way up to its last
// instruction. That doesn't mean that the server reads on.
func TestTheReadThatHasHandedOverWhatMayBeTheEndIsNotAServerThatReadsOn(t *testing.T) {
	for _, tt := range []struct {
		why     string
		at      phase
		due     int
		reading bool // a Read is under way
		want    phase
	}{
		{"a Read hands over what may be the end", phaseMaybeEnd, 2, true, phaseUndecided},
		{"no Read is under way behind that", phaseMaybeEnd, 2, false, phaseUndecided},
		{"a Read waits for content", phaseContent, 2, true, phaseContent},
		{"no Read waits for content", phaseContent, 2, false, phaseUndecided},
		// All that was due has come. Its Write waits to see who reads the rest.
		{"the last status, a Read hands over what may be the end", phaseMaybeEnd, 1, true, phaseUndecided},
		{"the last status, no Read is under way behind that", phaseMaybeEnd, 1, false, phaseUndecided},
		{"the last status, a Read waits for content", phaseContent, 1, true, phaseReadOn},
		{"the last status, no Read waits for content", phaseContent, 1, false, phaseUndecided},
	} {
		t.Run(tt.why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, client := inLMTPContent(t, tt.at, tt.due)
				go io.Copy(io.Discard, client)
				if tt.reading {
					c.readMu.Lock()
					defer c.readMu.Unlock()
				}
				written := make(chan struct{})
				go func() {
					defer close(written)
					io.WriteString(c, "550 5.7.1 not here\r\n")
				}()
				synctest.Wait()
				c.s.mu.Lock()
				got := c.s.phase
				c.s.mu.Unlock()
				if got != tt.want {
					t.Errorf("phase %d, want %d", got, tt.want)
				}
				c.Close() // the Write may wait for a Read that brings the end
				<-written
			})
		})
	}
}

func TestNothingIsKeptOfAMAILThatHasWaitedForRSET(t *testing.T) {
	s := newSession(new(Proxy).config(), facts{}, transaction{})
	s.relay, s.phase = true, phaseCommand
	s.txn.change().doubtful = true
	var d decision
	s.decide(t.Context(), "MAIL FROM:<a@b>", false, &d)
	if !d.reset {
		t.Fatal("the server isn't reset")
	}
	s.Replied(250)
	if line, ok := s.behindReset(); !ok || line != "MAIL FROM:<a@b>" {
		t.Fatalf("then it gets %q, %v", line, ok)
	}
	s.Replied(550)
	if m := s.txn.get(); m.behindReset != "" || m.doubtful {
		t.Errorf("kept: %q, doubtful: %v", m.behindReset, m.doubtful)
	}
}
