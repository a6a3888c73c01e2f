package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"sync"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/bench/internal/cert"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// kind is what a server is.
type kind string

const (
	bare       kind = "bare go-smtp"
	hooked     kind = "hooked go-smtp"
	chained    kind = "go-smtp behind a chain of 3 hooks"
	chained10  kind = "go-smtp behind a chain of 10 hooks"
	echoing    kind = "TCP echo of the same bytes"
	forwarding kind = "go-smtp forwarding to a second"
	tunneling  kind = "a TCP proxy before go-smtp"

	bareUntimed   kind = bare + untimed
	hookedUntimed kind = hooked + untimed

	observed    kind = "go-smtp with all that looks at it"
	bareWaiting kind = "bare go-smtp that waits 50 ms"
	waiting     kind = "hooks that wait 50 ms"
	delaying    kind = "hooks that delay by 50 ms"

	refusing     kind = "go-smtp behind a hook that refuses"
	bareRefusing kind = "a bare listener that refuses"
)

// untimed ends the names of servers that set no deadlines.
const untimed = " without timeouts"

// proxies are those of the servers that have the library.
var proxies = map[kind]*smtpproxy.Proxy{
	hooked:        {Hook: smtpproxy.HookFunc(pass)},
	hookedUntimed: {Hook: smtpproxy.HookFunc(pass)},
	chained:       {Hook: chainOf(3)},
	chained10:     {Hook: chainOf(10)},
	observed:      allOfIt,
	waiting:       {Hook: smtpproxy.HookFunc(waits)},
	delaying:      {Hook: smtpproxy.HookFunc(delays)},
	refusing:      {Hook: refuses{smtpproxy.HookFunc(pass)}},
}

// server is one that runs, in this process or another.
type server struct {
	kind     kind
	security security
	addr     string
	stop     func()
}

// start starts a server in this process.
func start(k kind, sec security) (*server, error) {
	config, err := tlsConfig()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{kind: k, security: sec, addr: l.Addr().String()}
	outer := l
	if sec == implicitTLS {
		outer = tls.NewListener(l, config)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return sink{}, nil }))
	srv.Domain = "server.example"
	srv.ReadTimeout, srv.WriteTimeout = patience, patience
	srv.MaxMessageBytes = 64 << 20
	srv.ErrorLog = log.New(io.Discard, "", 0)
	if sec == startTLS {
		srv.TLSConfig = config
	}
	s.stop = func() { srv.Close() }
	if strings.HasSuffix(string(k), untimed) {
		srv.ReadTimeout, srv.WriteTimeout = 0, 0
	}
	if p := proxies[k]; p != nil {
		go gosmtp.Serve(srv, outer, p)
		return s, nil
	}
	switch k {
	case bare, bareUntimed:
		go srv.Serve(outer)
	case bareWaiting:
		srv.Backend = smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return slowSink{}, nil })
		go srv.Serve(outer)
	case bareRefusing:
		s.stop = func() { l.Close() }
		go serve(l, func(c net.Conn) { io.WriteString(c, refusal) })
	case forwarding:
		second, err := start(bare, plain)
		if err != nil {
			l.Close()
			return nil, err
		}
		srv.Backend = forwarder(second.addr)
		s.stop = func() { srv.Close(); second.stop() }
		go srv.Serve(outer)
	case tunneling:
		second, err := start(bare, plain)
		if err != nil {
			l.Close()
			return nil, err
		}
		s.stop = func() { l.Close(); second.stop() }
		go serve(l, func(c net.Conn) { tunnel(c, second.addr) })
	case echoing:
		s.stop = func() { l.Close() }
		go serve(l, echo)
	default:
		l.Close()
		return nil, fmt.Errorf("no kind of server: %q", k)
	}
	return s, nil
}

// pass is the hook.
func pass(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
	return nil, nil
}

// sink is a session that takes every message and forgets it.
type sink struct{}

func (sink) Reset()                               {}
func (sink) Logout() error                        { return nil }
func (sink) Mail(string, *smtp.MailOptions) error { return nil }
func (sink) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (sink) Data(r io.Reader) error               { _, err := io.Copy(io.Discard, r); return err }

// forwarder is a backend that hands everything to another server: a proxy made
// of a server and a client.
func forwarder(addr string) smtp.Backend {
	return smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		client, err := smtp.Dial(addr)
		if err != nil {
			return nil, err
		}
		if err := client.Hello(c.Hostname()); err != nil {
			client.Close()
			return nil, err
		}
		return &forward{client: client}, nil
	})
}

type forward struct {
	client *smtp.Client
	open   bool // a transaction
}

func (f *forward) Reset() {
	if f.open {
		f.client.Reset()
	}
	f.open = false
}

func (f *forward) Logout() error { return f.client.Quit() }

func (f *forward) Mail(from string, opts *smtp.MailOptions) error {
	f.open = true
	return f.client.Mail(from, opts)
}

func (f *forward) Rcpt(to string, opts *smtp.RcptOptions) error { return f.client.Rcpt(to, opts) }

func (f *forward) Data(r io.Reader) error {
	w, err := f.client.Data()
	if err != nil {
		return err
	}
	f.open = false
	if _, err := io.Copy(w, r); err != nil {
		f.client.Close() // closing w would end the message where it broke off
		return err
	}
	return w.Close()
}

// serve is a server that does something with each connection.
func serve(l net.Listener, do func(c net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			do(c)
		}()
	}
}

// tunnel carries octets to another server and back: a proxy that looks at nothing.
func tunnel(c net.Conn, addr string) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, c)
		server.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(c, server)
}

// echo sends back what it gets, with the calls that a server needs for it.
func echo(c net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// tlsConfig is that of all servers: to make a certificate takes time.
var tlsConfig = sync.OnceValues(cert.Config)
