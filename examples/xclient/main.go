// Command xclient is a go-smtp server behind front ends that tell with XCLIENT whose
// connection it is, as nginx's mail proxy and Dovecot's submission proxy do.
//
//	go run ./examples/xclient -trust 192.0.2.25/32,2001:db8::25/128
//
// Nobody is trusted but who connects from the networks in -trust; by default, that is
// nobody. They have to be the front ends' alone: whoever may send XCLIENT may say to be
// anybody, and to have logged in as any user.
//
// It shows two sessions of a built-in front end, one that isn't trusted and one that is,
// each with a server of its own; then it serves others until it is interrupted. Of each
// message, it prints who it is from, as the server sees it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// client describes the client of a connection.
func client(c *smtp.Conn) string {
	conn := gosmtp.Session(c).Connection()
	s := fmt.Sprintf("by %s", conn.RemoteIP)
	if conn.RemoteIP != conn.Peer.Addr() {
		s += fmt.Sprintf(" through %s", conn.Peer.Addr()) // who is connected: nothing changes that
	}
	if conn.Auth.Mechanism != "" {
		s += fmt.Sprintf(", user %q", conn.Auth.Username)
	}
	return s
}

// session returns a front end's session for a client of its own. want is the reply
// to XCLIENT.
func session(want string) []demo.Step {
	return []demo.Step{
		{Send: "", Want: "220 "}, // the greeting comes by itself
		{Send: "EHLO front.example.org", Want: "250 "},
		{Send: "XCLIENT ADDR=192.0.2.7 PORT=40000 LOGIN=alice", Want: want},
		{Send: "EHLO client.example.org", Want: "250 "},
		{Send: "MAIL FROM:<sender@example.org>", Want: "250 "},
		{Send: "RCPT TO:<one@example.com>", Want: "250 "},
		{Send: "DATA", Want: "354 "},
		{Send: "Subject: xclient\n\nHello!\n.", Want: "250 "},
		{Send: "QUIT", Want: "221 "},
	}
}

func main() { demo.Main("xclient", run) }

func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("xclient", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:2528", "`address` to listen on; port 0 takes a free one")
	once := flags.Bool("once", false, "exit after the built-in front end's two sessions")
	var trust []netip.Prefix
	flags.Func("trust", "`networks` of the front ends, with commas between (default none)", func(list string) (err error) {
		trust, err = networks(list)
		return err
	})
	flags.Parse(args)
	out := log.New(stdout, "", 0) // one line at a time, from any goroutine

	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("%w (-addr takes another address)", err)
	}
	defer l.Close()
	out.Println("a front end that isn't trusted:")
	if err := show(ctx, nil, "550 ", out); err != nil {
		return err
	}
	out.Println("a front end that is:")
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if err := show(ctx, loopback, "220 ", out); err != nil || *once {
		return err
	}
	out.Println("listening on", l.Addr())
	return serve(ctx, l, trust, out, nil)
}

// show plays a session with a server of its own.
func show(ctx context.Context, trust []netip.Prefix, want string, out *log.Logger) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return serve(ctx, l, trust, out, session(want))
}

// serve serves l until ctx is done, or until a session with it has been played.
func serve(ctx context.Context, l net.Listener, trust []netip.Prefix, out *log.Logger, session []demo.Step) error {
	server := demo.Server(out, client)
	p := &smtpproxy.Proxy{Hook: &hooks.XCLIENT{Trust: trust}}
	return demo.Run(ctx, l, server,
		func() error { return gosmtp.Serve(server, l, p) },
		func() error {
			if session == nil {
				return nil
			}
			return demo.Play(ctx, l.Addr().String(), out, session...)
		}, session != nil)
}

// networks parses networks with commas between.
func networks(list string) (all []netip.Prefix, err error) {
	for s := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
