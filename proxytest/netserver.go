package proxytest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// Server is a server on the loopback interface, or on a unix socket, with a Proxy in front of
// it, for tests from the client's end: of a client, or of a hook whose client is a real one.
//
// It is the fake server of a [Session], which accepts all that is well-formed and in order,
// and offers the same extensions. It keeps the messages that it accepts. A Server has to be
// closed. Its methods may be called at any time by any goroutine.
type Server struct {
	// Addr is what clients dial, with [Server.Dial] or by themselves: "127.0.0.1:", and the
	// port, or the path of the unix socket.
	Addr string

	network  string // that Addr is of
	listener net.Listener
	dir      string      // of the unix socket
	tls      *tls.Config // nil without TLS
	implicit bool        // TLS comes first
	lmtp     bool        // and nothing else
	answers  answers

	mu       sync.Mutex
	ended    sync.Cond // a hook has been told of an end
	closed   bool
	conns    map[net.Conn]struct{} // that are served
	raw      []net.Conn            // what has been accepted beneath the Proxy
	open     int                   // connections of whose end the hook has still to be told
	messages []Message
	served   sync.WaitGroup
}

// Message is a message that a [Server] has accepted.
type Message struct {
	From    string   // the reverse-path as sent, without its angle brackets
	To      []string // the forward-paths likewise; with LMTP those alone whose status was positive
	Content []byte   // as sent, without what stuffs dots (RFC 5321 section 4.5.2)
}

// NewServer starts a server behind p, which is copied and not changed. It listens on a port of
// 127.0.0.1. What it speaks, p says, as it does for any server:
//
//   - without TLSConfig, there is no TLS;
//   - with a TLSConfig, it offers STARTTLS;
//   - with ImplicitTLS, it begins with TLS.
//
// A TLSConfig that has no certificate, as new(tls.Config), gets one, as does ImplicitTLS without
// a TLSConfig: see [Server.TLSClientConfig]. NewServer panics if it can't listen, and if p can't
// work (see [smtpproxy.Proxy.Validate]).
func NewServer(p *smtpproxy.Proxy) *Server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("proxytest: NewServer: " + err.Error())
	}
	return start(p, &Server{network: "tcp", listener: l})
}

// NewLMTPServer is NewServer for LMTP (RFC 2033) on a unix socket, which Close removes. It
// refuses HELO and EHLO.
func NewLMTPServer(p *smtpproxy.Proxy) *Server {
	dir, err := os.MkdirTemp("", "smtp") // the name of a socket must not be long
	if err == nil {
		var l net.Listener
		if l, err = net.Listen("unix", filepath.Join(dir, "lmtp")); err == nil {
			return start(p, &Server{network: "unix", listener: l, dir: dir, lmtp: true})
		}
		os.Remove(dir)
	}
	panic("proxytest: NewLMTPServer: " + err.Error())
}

func start(p *smtpproxy.Proxy, s *Server) *Server {
	cfg := *p
	if cfg.ImplicitTLS && cfg.TLSConfig == nil {
		cfg.TLSConfig = new(tls.Config)
	}
	cfg.TLSConfig = withCertificate(cfg.TLSConfig)
	if err := cfg.Validate(); err != nil {
		s.listener.Close()
		s.removeDir()
		panic("proxytest: " + err.Error())
	}
	cfg.Observers = append(slices.Clone(p.Observers), smtpproxy.Observer{
		Connected:    func(*smtpproxy.Context, smtpproxy.Connection) { s.count(1) },
		Disconnected: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { s.count(-1) },
	})
	s.Addr = s.listener.Addr().String()
	s.tls, s.implicit = cfg.TLSConfig, cfg.ImplicitTLS
	s.conns = make(map[net.Conn]struct{})
	s.ended.L = &s.mu
	s.listener = cfg.Listener(noting{s.listener, s})
	s.served.Go(s.accept)
	return s
}

// noting is a listener that notes what it accepts.
type noting struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener. The connection is handed on as it is, so that the Proxy finds
// out about it what it can.
func (n noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.s.mu.Lock()
		defer n.s.mu.Unlock()
		n.s.raw = append(n.s.raw, c)
	}
	return c, err
}

// count counts the connections that have begun, and of whose end the hook has still to be told.
func (s *Server) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
	s.ended.Broadcast()
}

// accept accepts connections until the server is closed.
func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			if err == nil {
				c.Close()
			}
			return
		case err == nil:
			s.conns[c] = struct{}{}
			s.served.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
		if err != nil {
			time.Sleep(5 * time.Millisecond) // there may be no descriptors left
		}
	}
}

// Close closes the server and the connections of its clients. It returns when nothing of them
// is left, and the hook has been told of the end of each; so it waits for a hook that has a line.
func (s *Server) Close() {
	slow := time.AfterFunc(5*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		log.Printf("proxytest: Server.Close waits for %d connections: does a hook block?", s.open)
	})
	defer slow.Stop()
	s.mu.Lock()
	s.closed = true
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	s.listener.Close()
	for _, c := range conns {
		c.Close()
	}
	s.served.Wait()
	s.mu.Lock()
	for s.open > 0 {
		s.ended.Wait()
	}
	raw := s.raw
	s.raw = nil
	s.mu.Unlock()
	for _, c := range raw {
		c.Close() // the Proxy may linger for a client that hasn't read its last reply
	}
	s.removeDir()
}

func (s *Server) removeDir() {
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}

// Dial connects to the server. Where TLS comes first, the connection is a *tls.Conn, and its
// handshake is done. The greeting is the first that is read from it.
func (s *Server) Dial() (net.Conn, error) {
	if s.implicit {
		return tls.Dial(s.network, s.Addr, s.TLSClientConfig())
	}
	return net.Dial(s.network, s.Addr)
}

// Certificate returns the server's certificate, nil without TLS, and where a callback of the
// TLSConfig chooses it.
func (s *Server) Certificate() *x509.Certificate { return leafOf(s.tls) }

// TLSClientConfig returns a configuration for clients that trusts the server's certificate; it
// is the caller's. It is nil without TLS.
func (s *Server) TLSClientConfig() *tls.Config {
	if s.tls == nil {
		return nil
	}
	c := &tls.Config{ServerName: serverName}
	if leaf := s.Certificate(); leaf != nil {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AddCert(leaf)
		if leaf.VerifyHostname(serverName) != nil && len(leaf.DNSNames) > 0 {
			c.ServerName = leaf.DNSNames[0]
		}
	}
	return c
}

// Answer sets what the server replies to the next command with the given verb that it gets on
// any of its connections, as [Session.Answer] does.
func (s *Server) Answer(verb string, code int, lines ...string) {
	if mistake := s.answers.add(verb, code, lines); mistake != "" {
		panic("proxytest: " + mistake)
	}
}

// Messages returns a copy of the messages that the server has accepted, in that order. A message
// is there before the client gets the reply to it.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Message, len(s.messages))
	for i, m := range s.messages {
		all[i] = Message{m.From, slices.Clone(m.To), bytes.Clone(m.Content)}
	}
	return all
}

// served is a connection that is served.
type served struct {
	server
	s *Server
	w io.Writer
	r *bufio.Reader

	from   string
	to     []string
	octets bytes.Buffer // of the content so far
	over   bool         // the last reply was the last one
}

// serve serves a connection until its end.
func (s *Server) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
	x := &served{s: s, w: c, r: bufio.NewReader(c), server: server{
		answers:  &s.answers,
		lmtpOnly: s.lmtp,
		tls:      true, // that is the Proxy's: the server itself doesn't offer it
	}}
	err := x.send(x.server.greet())
	for err == nil && !x.over {
		var line string
		if line, err = x.line(); err == nil {
			err = x.obey(strings.TrimSuffix(line, "\r\n"))
		}
	}
}

// line reads a line with its end.
func (x *served) line() (string, error) { return x.r.ReadString('\n') }

// obey executes a line, with the content that follows it.
func (x *served) obey(line string) error {
	cmd := smtpproxy.Command{Line: line, SASL: x.sasl}
	verb, args := cmd.Verb(), cmd.Args()
	var chunk []byte
	if verb == "BDAT" {
		size, _, _ := strings.Cut(args, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return fmt.Errorf("a chunk without a size: %w", err) // the Proxy lets none pass
		}
		if chunk, err = io.ReadAll(io.LimitReader(x.r, n)); int64(len(chunk)) < n {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
	}
	replies := x.execute(line)
	switch good := replies[0].Code/100 == 2; {
	case verb == "BDAT":
		x.octets.Write(chunk)
		if !x.chunking { // it was the last one, or is refused
			return x.accept(replies, strings.HasSuffix(strings.ToUpper(args), " LAST"))
		}
	case verb == "MAIL" && good:
		x.from = pathOf(args, "FROM:")
	case verb == "RCPT" && good:
		x.to = append(x.to, pathOf(args, "TO:"))
	case verb == "QUIT" && good:
		x.over = true
	case x.content:
		if err := x.send(replies...); err != nil {
			return err
		}
		if err := x.readContent(); err != nil {
			return err
		}
		return x.accept(x.message("DATA"), true)
	}
	if !x.mail {
		x.forget()
	}
	return x.send(replies...)
}

// readContent reads the content of a message, up to the line of a single dot (RFC 5321 section
// 4.1.1.4).
func (x *served) readContent() error {
	for begins := true; ; {
		line, err := x.line()
		if err != nil {
			return err
		}
		if begins && line == ".\r\n" {
			return nil
		}
		if begins {
			line = strings.TrimPrefix(line, ".")
		}
		x.octets.WriteString(line)
		begins = strings.HasSuffix(line, "\r\n")
	}
}

// accept keeps the message that the replies are to, for those recipients whose reply is
// positive, and sends them. isMessage tells whether it has come to its end.
func (x *served) accept(replies []smtpproxy.Reply, isMessage bool) error {
	m := Message{From: x.from, Content: bytes.Clone(x.octets.Bytes())}
	for i, to := range x.to {
		if replies[min(i, len(replies)-1)].Code/100 == 2 {
			m.To = append(m.To, to)
		}
	}
	if isMessage && len(m.To) > 0 {
		x.s.mu.Lock()
		x.s.messages = append(x.s.messages, m)
		x.s.mu.Unlock()
	}
	x.forget()
	return x.send(replies...)
}

// forget forgets what there is of a message.
func (x *served) forget() {
	x.from, x.to = "", nil
	x.octets.Reset()
}

// send sends replies to the client. Behind a 421, the Proxy lets nothing more come.
func (x *served) send(replies ...smtpproxy.Reply) error {
	for _, r := range replies {
		if _, err := r.WriteTo(x.w); err != nil {
			return err
		}
	}
	return nil
}

// pathOf returns the path behind a keyword, without its angle brackets.
func pathOf(args, keyword string) string {
	path := args[min(len(keyword), len(args)):]
	path, bracketed := strings.CutPrefix(strings.TrimLeft(path, " \t"), "<")
	end := byte(' ')
	if bracketed {
		end = '>'
	}
	quoted := false
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == end:
			return path[:i]
		}
	}
	return path
}
