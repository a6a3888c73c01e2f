package smtpproxy

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// Benchmarks of the parts. The whole, against a server without a hook, is
// measured in bench.

// hookOf makes a hook that decides the same each time.
func hookOf(d Decision) Hook {
	return HookFunc(func(*Context, Command, Connection, Transaction) (Decision, error) { return d, nil })
}

// Made once, so that what is measured is not what the hook does.
var (
	rewrite Decision = Pass{Command: "NOOP rewritten"}
	reply   Decision = Reply{Code: 250, Lines: []string{"not for the server"}}
)

func BenchmarkSessionCommand(b *testing.B) {
	for name, d := range map[string]Decision{"pass": nil, "rewrite": rewrite, "reply": reply} {
		b.Run(name, func(b *testing.B) {
			s := (&Proxy{Hook: hookOf(d)}).NewSession(Connection{})
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, passed := s.Command(ctx, "NOOP").(Pass); passed {
					s.Replied(250)
				}
			}
		})
	}
}

func BenchmarkSessionTransaction(b *testing.B) {
	s := (&Proxy{Hook: hookOf(nil)}).NewSession(Connection{})
	ctx := context.Background()
	lines := []string{"MAIL FROM:<alice@client.example> SIZE=1000", "RCPT TO:<bob@server.example>", "RSET"}
	b.ReportAllocs()
	for b.Loop() {
		for _, line := range lines {
			s.Command(ctx, line)
			s.Replied(250)
		}
	}
}

// memoryConn is a client in memory: each Read is its next octets, and what it
// gets is dropped.
type memoryConn struct {
	net.Conn
	next []byte
}

func (c *memoryConn) Read(p []byte) (int, error)       { return copy(p, c.next), nil }
func (c *memoryConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// memoryListener accepts one connection for ever.
type memoryListener struct {
	net.Listener
	conn net.Conn
}

func (l memoryListener) Accept() (net.Conn, error) { return l.conn, nil }

// benchmarkRelay lets a server read commands of what a client sends at once, and
// reply to each. With a timeout it sets deadlines, as go-smtp does.
func benchmarkRelay(b *testing.B, h Hook, sent string, commands int, timeout time.Duration) {
	client := &memoryConn{next: []byte(sent)}
	c, err := (&Proxy{Hook: h}).Listener(memoryListener{conn: client}).Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "220 server.example\r\n")
	ok := []byte("250 2.0.0 OK\r\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		for range commands {
			if timeout > 0 {
				c.SetReadDeadline(time.Now().Add(timeout))
			}
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
			if timeout > 0 {
				c.SetWriteDeadline(time.Now().Add(timeout))
			}
			if _, err := c.Write(ok); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	b.Run("pass", func(b *testing.B) { benchmarkRelay(b, hookOf(nil), "NOOP\r\n", 1, 0) })
	b.Run("rewrite", func(b *testing.B) { benchmarkRelay(b, hookOf(rewrite), "NOOP\r\n", 1, 0) })
	b.Run("deadlines", func(b *testing.B) { benchmarkRelay(b, hookOf(nil), "NOOP\r\n", 1, time.Minute) })
	b.Run("100 pipelined", func(b *testing.B) {
		benchmarkRelay(b, hookOf(nil), strings.Repeat("RSET\r\n", 100), 100, time.Minute)
	})
	b.Run("100 recipients", func(b *testing.B) {
		benchmarkRelay(b, hookOf(nil), "MAIL FROM:<sender@client.example>\r\n"+strings.Repeat("RCPT TO:<recipient@server.example>\r\n", 100)+"RSET\r\n", 102, time.Minute)
	})
	// The server gets each second command, and the client the hook's reply to
	// the others.
	b.Run("reply", func(b *testing.B) {
		answered := false
		benchmarkRelay(b, HookFunc(func(*Context, Command, Connection, Transaction) (Decision, error) {
			answered = !answered
			if answered {
				return reply, nil
			}
			return nil, nil
		}), "NOOP\r\n", 1, 0)
	})
}

// stamped is a socket that takes the time in which the server has called it, and hasn't been in a
// system call.
type stamped struct {
	net.Conn
	entered time.Time     // the server's code, or what is between it and the socket
	between time.Duration // in what is between
}

func (s *stamped) Read(p []byte) (n int, err error) {
	s.between += time.Since(s.entered)
	n, err = s.Conn.Read(p)
	s.entered = time.Now()
	return n, err
}

func (s *stamped) Write(p []byte) (n int, err error) {
	s.between += time.Since(s.entered)
	n, err = s.Conn.Write(p)
	s.entered = time.Now()
	return n, err
}

// call takes the time of a call of the server's.
func (s *stamped) call(f func()) {
	s.entered = time.Now()
	f()
	s.between += time.Since(s.entered)
}

type stampedListener struct {
	net.Listener
	accepted *stamped
}

func (l *stampedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.accepted = &stamped{Conn: c}
	return l.accepted, err
}

// place is a connection in BenchmarkInPlace.
type place struct {
	server, client net.Conn
	socket         *stamped
	buf            [4096]byte
}

func newPlace(b *testing.B, p *Proxy) *place {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer inner.Close()
	stamps := &stampedListener{Listener: inner}
	var l net.Listener = stamps
	if p != nil {
		l = p.Listener(stamps)
	}
	c := new(place)
	if c.client, err = net.Dial("tcp", inner.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if c.server, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.server.Close(); c.client.Close() })
	io.WriteString(c.server, "220 server.example\r\n")
	c.client.Read(c.buf[:])
	c.socket = stamps.accepted
	return c
}

// exchange takes octets of the client's to the server, and the reply back.
func (c *place) exchange(b *testing.B, sent, reply string) {
	io.WriteString(c.client, sent)
	for n := 0; n < len(sent); {
		var k int
		var err error
		if c.socket.call(func() { k, err = c.server.Read(c.buf[:]) }); err != nil {
			b.Fatal(err)
		}
		n += k
	}
	c.socket.call(func() { io.WriteString(c.server, reply) })
	if n, err := c.client.Read(c.buf[:]); n != len(reply) || err != nil {
		b.Fatal(n, err)
	}
}

// BenchmarkInPlace takes commands from a client's socket to the server, and their replies back, on
// sixteen connections in turn, all on one goroutine: what a command costs where the kernel,
// on its way, has used the processor's caches for itself, but without the scheduler's share, which
// differs from run to run. own-ns is the lower quartile of the time that the server's calls took
// without the system calls. What is measured of "bare" costs as much with the library.
func BenchmarkInPlace(b *testing.B) {
	content := strings.Repeat(strings.Repeat("Lorem+ipsum/dolor", 5)[:76]+"\r\n", 26) + ".\r\n"
	for _, row := range []struct {
		name  string
		pairs []string // what is sent, and the reply
	}{
		{"NOOP", []string{"NOOP\r\n", "250 2.0.0 I have successfully done nothing\r\n"}},
		{"message", []string{
			"MAIL FROM:<sender@client.example>\r\n", "250 2.0.0 Roger, accepting mail from <sender@client.example>\r\n",
			"RCPT TO:<recipient@server.example>\r\n", "250 2.0.0 I'll make sure <recipient@server.example> gets this\r\n",
			"DATA\r\n", "354 Go ahead. End your data with <CR><LF>.<CR><LF>\r\n",
			content, "250 2.0.0 OK: queued\r\n",
		}},
	} {
		for name, p := range map[string]*Proxy{"bare": nil, "pass": {Hook: hookOf(nil), BulkContent: true}} {
			b.Run(row.name+"/"+name, func(b *testing.B) {
				var places [16]*place
				for i := range places {
					places[i] = newPlace(b, p)
				}
				var own []time.Duration
				for i := 0; b.Loop(); i++ {
					c := places[i%len(places)]
					c.socket.between = 0
					for pair := range slices.Chunk(row.pairs, 2) {
						c.exchange(b, pair[0], pair[1])
					}
					own = append(own, c.socket.between)
				}
				slices.Sort(own)
				b.ReportMetric(float64(own[len(own)/4]), "own-ns/op")
			})
		}
	}
}

// What a relayed command costs in memory is its line, which the hook may keep, unless it has no
// arguments: there is one such line for all.
func TestRelayingACommandAllocatesItsLineAlone(t *testing.T) {
	for line, want := range map[string]int64{"NOOP for once": 1, "NOOP": 0} {
		if n := testing.Benchmark(func(b *testing.B) {
			benchmarkRelay(b, hookOf(nil), line+"\r\n", 1, time.Minute)
		}).AllocsPerOp(); n != want {
			t.Errorf("%s: %d allocations, want %d", line, n, want)
		}
	}
}

func BenchmarkContent(b *testing.B) {
	const size = 1 << 20
	contents := []struct{ name, line string }{
		{"text", "It is a truth universally acknowledged, e.g. that a man must want a wife.\r\n"},
		{"base64", strings.Repeat("TG9yZW0gaXBzdW0g", 5)[:76] + "\r\n"},
		{"dots", "..\r\n"},
	}
	for _, row := range contents {
		b.Run(row.name, func(b *testing.B) {
			content := []byte(strings.Repeat(row.line, size/len(row.line)+1)[:size])
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				var c wire.Content
				for rest := content; len(rest) > 0; {
					n, _ := c.Next(rest, 4096) // what go-smtp reads at once
					if n == 0 {
						break
					}
					rest = rest[n:]
				}
			}
		})
	}
}

func BenchmarkReply(b *testing.B) {
	texts := []struct{ name, text string }{
		{"one line", "250 2.0.0 OK: queued\r\n"},
		{"EHLO", "250-Hello client.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n" +
			"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-AUTH PLAIN\r\n250 SIZE 33554432\r\n"},
	}
	for _, row := range texts {
		b.Run(row.name, func(b *testing.B) {
			text := []byte(row.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				var r wire.Reply
				if _, code, err := r.Next(text); code != 250 || err != nil {
					b.Fatal(code, err)
				}
			}
		})
	}
}
