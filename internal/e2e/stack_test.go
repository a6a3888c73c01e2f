//go:build !race

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file measures what an idle connection takes of the stack. (With the race
// detector, frames are larger.)

// stackEnv tells the process that measures what to measure.
const stackEnv = "SMTPPROXY_TEST_STACK"

// idleProxies are what a connection is behind, by name; nil is a server without the library.
var idleProxies = map[string]*smtpproxy.Proxy{
	"none":             nil,
	"a function":       {Hook: always(nil)},
	"a method":         {Hook: methodHook{}},
	"a chain of three": {Hook: smtpproxy.Chain(methodHook{}, smtpproxy.Named("x", methodHook{}), always(nil))},
	"a mux": {Hook: func() smtpproxy.Hook {
		m := &smtpproxy.Mux{Else: methodHook{}}
		m.Handle("NOOP", methodHook{})
		return m
	}()},
	"a hook at the beginning and the end": {Hook: smtpproxy.Funcs{
		OnConnect:    func(*hookContext, connection) (decision, error) { return nil, nil },
		OnDisconnect: func(*hookContext, connection, smtpproxy.End) {},
	}},
	"a hook for keywords":  {Hook: smtpproxy.Funcs{OnKeywords: func(*hookContext, connection, *smtpproxy.Keywords) error { return nil }}},
	"a hook for replies":   {Hook: smtpproxy.Funcs{OnReply: func(*hookContext, smtpproxy.Exchange) (decision, error) { return nil, nil }}},
	"a method for replies": {Hook: &replyHook{}},
	"an observer":          {Hook: always(nil), Observers: []smtpproxy.Observer{{Exchanged: func(*hookContext, smtpproxy.Exchange) {}}}},
	"all of it": {
		Hook: smtpproxy.Chain(&replyHook{}, smtpproxy.Funcs{
			OnConnect:    func(*hookContext, connection) (decision, error) { return nil, nil },
			OnKeywords:   func(*hookContext, connection, *smtpproxy.Keywords) error { return nil },
			OnDisconnect: func(*hookContext, connection, smtpproxy.End) {},
		}),
		Observers: []smtpproxy.Observer{{
			Connected:    func(*hookContext, connection) {},
			Exchanged:    func(*hookContext, smtpproxy.Exchange) {},
			Disconnected: func(*hookContext, connection, smtpproxy.End) {},
		}},
	},
	// This one needs more itself, so that the test could fail.
	"a deep one": {Hook: smtpproxy.HookFunc(func(_ *hookContext, _ command, c connection, _ transaction) (decision, error) {
		takesStack(10, c)
		return nil, nil
	})},
}

// replyHook looks at replies.
type replyHook struct{ methodHook }

func (*replyHook) Reply(*hookContext, smtpproxy.Exchange) (decision, error) { return nil, nil }

type methodHook struct{}

func (methodHook) Command(*hookContext, command, connection, transaction) (decision, error) {
	return nil, nil
}

//go:noinline
func takesStack(n int, conn connection) string {
	if n == 0 {
		return conn.ID
	}
	return takesStack(n-1, conn)
}

// A goroutine keeps the stack that its deepest call needed, and stacks come in powers
// of two: an idle connection takes 4 KiB with a hook as without the library, or twice
// as much for a few octets more.
func TestAnIdleConnectionThatHasCalledItsHookHasTheStackOfABareOne(t *testing.T) {
	if server, hook, ok := strings.Cut(os.Getenv(stackEnv), ", "); ok {
		fmt.Printf("stack %d\n", idleServers[server](t, idleProxies[hook]))
		return
	}
	for server := range idleServers {
		for hook := range idleProxies {
			// In a process of its own, where nothing else grows or shrinks stacks, and
			// new ones don't begin with what others needed.
			cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
			cmd.Env = append(os.Environ(), stackEnv+"="+server+", "+hook, "GODEBUG=adaptivestackstart=0")
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var octets int
			if _, err := fmt.Fscanf(bytes.NewReader(out), "stack %d", &octets); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if deep := hook == "a deep one"; deep != (octets > 5<<10) {
				t.Errorf("server: %s, hook: %s: %d octets of stack for a connection", server, hook, octets)
			}
		}
	}
}

// idleServers measure connections by the server's name.
var idleServers = map[string]func(t *testing.T, proxy *smtpproxy.Proxy) int{
	// Of all servers with a Read in the frames of textproto and bufio, go-smtp leaves
	// the hook the least, but what its backend's methods take of the stack is more. So
	// its clients come no further than to MAIL that is refused.
	"go-smtp": func(t *testing.T, proxy *smtpproxy.Proxy) int {
		srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return nil, nil }))
		defer srv.Close()
		return idleStack(t, proxy, []string{"EHLO x", "MAIL x", "NOOP"}, func(l net.Listener) { srv.Serve(l) })
	},
	"one with little stack": func(t *testing.T, proxy *smtpproxy.Proxy) int {
		return idleStack(t, proxy, []string{
			"EHLO x", "AUTH PLAIN AA==", "MAIL FROM:<a@a>", "RCPT TO:<b@b>", "DATA", "hi\r\n.", "MAIL FROM:<c@c>", "NOOP",
		}, func(l net.Listener) {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go replyToAll(c)
			}
		})
	},
}

// idleStack returns the octets of stack for each of many connections that are idle
// behind some commands.
func idleStack(t *testing.T, proxy *smtpproxy.Proxy, commands []string, serve func(net.Listener)) int {
	const n = 200
	debug.SetGCPercent(-1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := l
	if proxy != nil {
		served = proxy.Listener(l)
	}
	go serve(served)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		r := bufio.NewReader(client)
		for _, line := range append(commands, "") {
			if err := readReply(r); err != nil {
				t.Fatal(err)
			}
			if line != "" {
				io.WriteString(client, line+"\r\n")
			}
		}
	}
	runtime.ReadMemStats(&after)
	return int(after.StackInuse-before.StackInuse) / n
}

// replyToAll is a server with little stack, which refuses messages.
func replyToAll(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for reply := "220 x\r\n"; ; {
		io.WriteString(c, reply)
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return
		case string(line) == "DATA\r\n":
			reply = "354 x\r\n"
		case string(line) == "hi\r\n":
			r.ReadSlice('\n')
			reply = "550 x\r\n"
		default:
			reply = "250 x\r\n"
		}
	}
}
