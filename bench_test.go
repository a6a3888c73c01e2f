package smtpproxy

import (
	"context"
	"io"
	"net"
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

// socketPair returns both ends of a TCP connection, the first as what accepts it returns it.
func socketPair(b *testing.B, wrap func(net.Listener) net.Listener) (server, client net.Conn) {
	b.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := wrap(inner)
	defer l.Close()
	if client, err = net.Dial("tcp", inner.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// BenchmarkInPlace takes a command from a client's socket to the server, and its reply back, on
// sixteen connections in turn, all on one goroutine: what a command costs where the kernel,
// on its way, has used the processor's caches for itself, but without the scheduler's share, which
// differs from run to run. What "bare" takes less than the others is the cost of the library.
func BenchmarkInPlace(b *testing.B) {
	line, ok := []byte("NOOP\r\n"), []byte("250 2.0.0 I have successfully done nothing\r\n")
	for _, row := range []struct {
		name string
		wrap func(net.Listener) net.Listener
	}{
		{"bare", func(l net.Listener) net.Listener { return l }},
		{"pass", (&Proxy{Hook: hookOf(nil)}).Listener},
	} {
		b.Run(row.name, func(b *testing.B) {
			const conns = 16
			var servers, clients [conns]net.Conn
			var bufs [conns][]byte
			for i := range conns {
				servers[i], clients[i] = socketPair(b, row.wrap)
				bufs[i] = make([]byte, 4096)
				io.WriteString(servers[i], "220 server.example\r\n")
				clients[i].Read(bufs[i])
			}
			i := 0
			for b.Loop() {
				i = (i + 1) % conns
				s, c, buf := servers[i], clients[i], bufs[i]
				if _, err := c.Write(line); err != nil {
					b.Fatal(err)
				}
				if n, err := s.Read(buf); n != len(line) || err != nil {
					b.Fatal(n, err)
				}
				if _, err := s.Write(ok); err != nil {
					b.Fatal(err)
				}
				if n, err := c.Read(buf); n != len(ok) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
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
