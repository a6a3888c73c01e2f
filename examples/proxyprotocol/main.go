// Command proxyprotocol is a go-smtp server behind a load balancer that tells with a PROXY
// header whose connection it is, in either of its versions
// (https://www.haproxy.org/download/3.4/doc/proxy-protocol.txt). HAProxy's configuration
// for it is
//
//	listen smtp
//	    mode tcp
//	    bind :25
//	    bind :465 ssl crt /etc/haproxy/mail.pem
//	    server mail 192.0.2.25:2530 check send-proxy-v2-ssl proxy-v2-options authority,cert-cn,ssl-cipher
//
// and the server is, with the networks of the load balancers in -trust,
//
//	go -C examples/proxyprotocol run . -addr 192.0.2.25:2530 -trust 192.0.2.24/32
//
// It shows two sessions of a built-in load balancer, with a server of their own; then it
// serves others until it is interrupted.
//
//   - The header is read by the listener beneath the proxy, on the connection's own
//     goroutine, when an address is first asked for. So who is silent holds up nobody,
//     and is gone after -header-timeout.
//   - Who isn't in -trust is hung up on, and so is who sends no header: a port is for a load
//     balancer or for clients, since whoever may send a header may say to be anybody.
//   - A header of LOCAL, as HAProxy's health checks have, is the load balancer's own connection.
//   - What the header tells of TLS, which has ended at the load balancer, is told and not seen:
//     it is kept apart from Connection.TLS, which stays empty. See tls.go.
//
// A Network Load Balancer of AWS's sends its header only with the first payload of the client,
// which waits for the greeting of a server that waits for the header. For SMTP, its target
// group needs the attribute proxy_protocol_v2.client_to_server.header_placement set from
// on_first_ack_with_payload to on_first_ack, which is done by AWS's support.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/pires/go-proxyproto"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

func main() { demo.Main("proxyprotocol", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("proxyprotocol", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2530", "`address` to listen on; port 0 takes a free one")
	trust := flags.String("trust", "127.0.0.0/8,::1/128", "`networks` of the load balancers, with commas between")
	timeout := flags.Duration("header-timeout", 5*time.Second, "time for the header; a lost segment takes 3s")
	once := flags.Bool("once", false, "exit after the built-in load balancer's two sessions")
	flags.Parse(args)

	tcp, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer tcp.Close()
	l, err := behindBalancers(tcp, strings.Split(*trust, ","), *timeout)
	if err != nil {
		return err
	}
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine
	if err := show(ctx, out); err != nil || *once {
		return err
	}
	out.Println("listening on", tcp.Addr())
	return serve(ctx, l, out, func() error { return nil }, false)
}

// behindBalancers returns a listener for load balancers from the networks in trust: they
// have to send a header, and nobody else may connect.
func behindBalancers(l net.Listener, trust []string, timeout time.Duration) (net.Listener, error) {
	policy, err := proxyproto.TrustProxyHeaderFromRanges(trust)
	return listener{&proxyproto.Listener{Listener: l, ConnPolicy: policy, ReadHeaderTimeout: timeout}}, err
}

// serve serves l, while client plays a session, and then until ctx is done unless once is set.
func serve(ctx context.Context, l net.Listener, out *log.Logger, client func() error, once bool) error {
	server := newServer(out)
	p := &smtpproxy.Proxy{Hook: guard{out}}
	return demo.Run(ctx, l, server, func() error { return gosmtp.Serve(server, l, p) }, client, once)
}

// newServer returns a go-smtp server that tells the hook, by way of State, what it finds
// at its connection.
func newServer(out *log.Logger) *smtp.Server {
	server := demo.Server(out, func(c *smtp.Conn) string {
		conn := gosmtp.Session(c).Connection()
		return fmt.Sprintf("by %s port %d, to %s port %d", conn.RemoteIP, conn.RemotePort, conn.LocalIP, conn.LocalPort)
	})
	inner := server.Backend
	server.Backend = smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		*smtpproxy.State[told](gosmtp.Session(c).Context()) = toldOf(c)
		return inner.NewSession(c)
	})
	return server
}

// guard is the hook: it takes mail only from clients of whom the load balancer tells that
// they use TLS.
type guard struct{ out *log.Logger }

// Command implements smtpproxy.Hook.
func (g guard) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if cmd.Verb() != "MAIL" {
		return nil, nil
	}
	told := smtpproxy.State[told](ctx)
	g.out.Printf("hook: %v by %s: TLS seen %q, told %v", cmd, conn.RemoteIP, conn.TLS.Protocol, told)
	if !told.inTLS {
		return smtpproxy.Reply{Code: 530, Enhanced: smtpproxy.EnhancedCode{5, 7, 0}, Lines: []string{"Use TLS, on port 465"}}, nil
	}
	return nil, nil
}
