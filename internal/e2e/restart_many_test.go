package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file lets servers start afresh at random, and many times, while connections end at
// random, too.

// wanderer is a dropper that lets the server start afresh at XCLIENT, and at times at Connect.
type wanderer struct {
	*dropper
	decided  atomic.Int64 // restarts
	accepted atomic.Int64 // connections of the server's
}

// goes returns who the client is now.
func (w *wanderer) goes() (decision, error) {
	w.decided.Add(1)
	o := smtpproxy.Origin{RemotePort: uint16(w.chance(1 << 16))}
	switch w.chance(4) {
	case 0:
		o.RemoteIP = netip.AddrFrom4([4]byte{192, 0, 2, byte(w.chance(256))})
	case 1:
		o.Auth = origin.Auth
	case 2:
		o.LocalPort = 587
	}
	return reply{Restart: &o}, nil
}

func (w *wanderer) Connect(ctx *hookContext, conn connection) (decision, error) {
	defer w.enter(conn, "Connect")()
	if w.chance(10) == 0 {
		return w.goes()
	}
	return w.whim(ctx)
}

func (w *wanderer) Command(ctx *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
	defer w.enter(conn, cmd.Verb())()
	if w.chance(4) == 0 { // else no client would get far
		if d, err := w.whim(ctx); d != nil || err != nil {
			return d, err
		}
	}
	if cmd.Verb() == "XCLIENT" {
		return w.goes()
	}
	return nil, nil
}

// tallyListener counts connections.
type tallyListener struct {
	net.Listener
	n *atomic.Int64
}

func (l tallyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// wanderRound serves some clients, and ends the server while some are anywhere.
func wanderRound(t *testing.T, seed uint64, clients int, w *wanderer, used *sync.Map) {
	r := rand.New(rand.NewPCG(seed, 6))
	p := &smtpproxy.Proxy{Hook: w, TLSConfig: serverTLS(), AllowInsecureAuth: true, ImplicitTLS: r.IntN(5) == 0}
	if w.givesUp {
		p.HookTimeout = 5 * time.Millisecond
	}
	srv := smtp.NewServer(new(tlsBackend))
	srv.ErrorLog = log.New(io.Discard, "", 0)
	srv.ReadTimeout, srv.AllowInsecureAuth = patience, true
	tr := overTCP(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(tallyListener{usedListener{p.Listener(tr), used}, &w.accepted})
	}()
	var all sync.WaitGroup
	var left atomic.Int32
	left.Store(int32(clients))
	half := make(chan struct{})
	for i := range clients {
		all.Go(func() {
			wander(rand.New(rand.NewPCG(seed, 100+uint64(i))), tr, p.ImplicitTLS)
			if left.Add(-1) == int32(clients/2) {
				close(half)
			}
		})
	}
	switch r.IntN(4) {
	case 0:
		<-half // the others are anywhere
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	case 1:
		<-half
		srv.Close()
	default:
		all.Wait()
		srv.Close()
	}
	all.Wait()
	<-served
}

// wander plays a session full of restarts, and leaves it anywhere.
func wander(r *rand.Rand, tr transport, implicit bool) {
	c, err := tr.dial()
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	conn, inTLS := c, implicit
	if implicit {
		conn = tlsClient(conn)
	}
	br := bufio.NewReader(conn)
	say := func(lines string, replies int) bool {
		if _, err := io.WriteString(conn, lines); err != nil {
			return false
		}
		for range replies {
			if readReply(br) != nil {
				return false
			}
		}
		return true
	}
	for ok, steps := say("", 1), r.IntN(30); ok && steps > 0; steps-- {
		switch r.IntN(12) {
		case 0:
			ok = say("EHLO a.example\r\nNOOP\r\n", 2)
		case 1:
			ok = say("EHLO a.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nXCLIENT\r\nMAIL FROM:<a@example.com>\r\n", 5)
		case 2:
			n := 1 + r.IntN(10)
			ok = say(strings.Repeat("XCLIENT\r\n", n)+"NOOP\r\n", n+1)
		case 3:
			if inTLS {
				continue
			}
			if inTLS, ok = true, say("STARTTLS\r\n", 1); ok {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
				br = bufio.NewReader(conn)
			}
		case 4:
			if r.IntN(10) == 0 { // leaves amid it
				io.WriteString(conn, "XCLIENT\r\nEHLO x\r\n")
				if r.IntN(2) == 0 {
					c.(*net.TCPConn).SetLinger(0)
				}
				return
			}
		default:
			ok = say("XCLIENT\r\n", 1)
		}
	}
	if r.IntN(2) == 0 {
		say("QUIT\r\n", 1)
	}
}

func TestTenThousandRestartsLeaveNothingAndEachClientIsToldOfOnce(t *testing.T) {
	restarts, clients := int64(10_000), 40
	if testing.Short() {
		restarts = 1000
	}
	base() // which stays open
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	ends := make(map[string]int)
	var decided, accepted int64
	used, connections := new(sync.Map), 0
	for seed := uint64(0); decided < restarts; seed++ {
		w := &wanderer{dropper: &dropper{givesUp: seed%4 == 0, rand: rand.New(rand.NewPCG(seed, 7)),
			begun: make(map[string]int), told: make(map[string]int), ends: ends}}
		used.Clear()
		wanderRound(t, seed, clients, w, used)
		w.await(used)
		leavesNothing(t, goroutines, descriptors)
		connections += w.check(t, seed, used)
		decided, accepted = decided+w.decided.Load(), accepted+w.accepted.Load()
		if t.Failed() {
			return
		}
	}
	if fresh := accepted - int64(connections); fresh < decided/2 {
		t.Errorf("of %d restarts, %d came to something", decided, fresh)
	}
	for _, want := range []string{"client: quit", "client: client gone", "hook: refused", "hook: hook failed", "server: server closed"} {
		if ends[want] == 0 && !testing.Short() {
			t.Errorf("nobody was told of %q: %v", want, ends)
		}
	}
}
