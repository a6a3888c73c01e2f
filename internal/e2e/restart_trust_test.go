package e2e

import (
	"bufio"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about whom a hook believes that the client is another's: the one connected, as
// a PROXY header tells of it, whatever was told since.

// trusting makes w a hook that takes XCLIENT from those alone, and refuses it else.
func trusting(w *warden, front ...netip.Addr) smtpproxy.Hook {
	return smtpproxy.Chain(smtpproxy.HookFunc(func(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
		if cmd.Verb() == "XCLIENT" && !slices.Contains(front, conn.Peer.Addr()) {
			return reply{Code: 550, Enhanced: enhanced{5, 7, 0}, Lines: []string{"Not from you"}}, nil
		}
		return nil, nil
	}), w)
}

func TestOnlyTheFrontItselfIsBelievedWhoeverComesThroughIt(t *testing.T) {
	front, other := netip.MustParseAddr("198.51.100.9"), smtpproxy.Origin{RemoteIP: netip.MustParseAddr("203.0.113.77"), RemotePort: 77}
	for _, row := range []struct {
		why     string
		trusted []netip.Addr
		o       []smtpproxy.Origin
		steps   string
	}{
		{"the client that a PROXY header tells of isn't the front", []netip.Addr{front}, []smtpproxy.Origin{other}, "XCLIENT|550|XCLIENT|550"},
		{"the one connected is", []netip.Addr{toldRemote.Addr()}, []smtpproxy.Origin{other}, "XCLIENT|220|EHLO x|250"},
		{"and stays so, whatever it has told", []netip.Addr{toldRemote.Addr()}, []smtpproxy.Origin{other}, "XCLIENT|220|XCLIENT|220|XCLIENT|220"},
		{"who is told to be the front isn't", []netip.Addr{toldRemote.Addr()}, []smtpproxy.Origin{{RemoteIP: front}, {RemoteIP: toldRemote.Addr()}, other}, "XCLIENT|220|XCLIENT|220|XCLIENT|220"},
		{"nobody is", nil, []smtpproxy.Origin{other}, "XCLIENT|550|NOOP|250"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			w := newWarden(row.o...)
			tr, newest := overUntold(false)
			servePuppet(t, (&smtpproxy.Proxy{Hook: trusting(w, row.trusted...)}).Listener(tr), new(puppet))
			c, err := tr.dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			synctest.Wait()
			close(newest().told)
			k := &talker{t, c, bufio.NewReader(c)}
			k.want("", "220")
			k.plays(row.steps + "|NOOP|250")
			if got := w.saw(t, "NOOP").conn; got.Peer != toldRemote {
				t.Errorf("connected is %v, want %v", got.Peer, toldRemote)
			}
		})
	}
}

// A restart asks the listener's connection nothing: who knows its addresses late may be slow
// with them once more.
func TestTheConnectionIsAskedForItsAddressesOnce(t *testing.T) {
	other := netip.MustParseAddr("203.0.113.77")
	for _, o := range []smtpproxy.Origin{{}, {RemoteIP: other, LocalIP: other}, {RemoteIP: other}, {LocalIP: other}, {RemotePort: 7}, {LocalPort: 8}} {
		for _, connects := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWarden(o)
				p := new(smtpproxy.Proxy)
				tr, newest := overUntold(false)
				d := restartDoor{atConnect: connects, noTLS: true}
				d.guard(p, w, tr)
				servePuppet(t, p.Listener(tr), new(puppet))
				c, err := tr.dial()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				close(newest().told)
				k := &talker{t, c, bufio.NewReader(c)}
				if !connects {
					k.want("", "220")
					io.WriteString(k, "XCLIENT\r\n")
				}
				k.plays("|220|NOOP|250|QUIT|221")
				if n := newest().asked.Load(); n != 1 {
					t.Errorf("%+v: it is asked %d times", o, n)
				}
				if got := w.saw(t, "NOOP").conn; got.Peer != toldRemote || o.RemoteIP.IsValid() != (got.RemoteIP != toldRemote.Addr()) {
					t.Errorf("%+v: the client is %+v", o, got)
				}
			})
		}
	}
}
