// Package demo has what the examples share and what isn't their point: the server's side,
// and the session of the built-in client.
package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

// Main calls an example's run with a context that is done at an interrupt.
func Main(name string, run func(ctx context.Context, args []string, stdout io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Run serves, while client plays its session, and then until ctx is done unless once is
// set. It ends server, which serves l by then or not.
func Run(ctx context.Context, l net.Listener, server *smtp.Server, serve, client func() error, once bool) error {
	served := make(chan error, 1)
	go func() { served <- serve() }()
	err := client()
	if err == nil && !once {
		select {
		case <-ctx.Done():
		case err = <-served:
			return err
		}
	}
	l.Close()
	server.Close()
	<-served
	if ctx.Err() != nil {
		return nil // interrupted, as it should be
	}
	return err
}

// Step is what a client sends, a command or the lines of a message, and how the last line
// of the reply has to start.
type Step struct{ Send, Want string }

// ErrSession tells that a session did not go as it should.
var ErrSession = errors.New("the session did not go as it should")

// Play plays a session with the server at addr, and prints it. The greeting comes behind
// an empty Send.
func Play(ctx context.Context, addr string, out *log.Logger, steps ...Step) error {
	return PlayBehind(ctx, addr, nil, out, steps...)
}

// PlayBehind plays a session behind the header of a load balancer.
func PlayBehind(ctx context.Context, addr string, header []byte, out *log.Logger, steps ...Step) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(header); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	replies := textproto.NewReader(bufio.NewReader(conn))
	for _, step := range steps {
		if err := send(conn, step.Send, out); err != nil {
			return err
		}
		last, err := receive(replies, out)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(last, step.Want) {
			return fmt.Errorf("%w: reply to %q: %q", ErrSession, step.Send, last)
		}
	}
	return nil
}

// send sends lines, a command's one or a message's many.
func send(w io.Writer, lines string, out *log.Logger) error {
	if lines == "" {
		return nil
	}
	for line := range strings.SplitSeq(lines, "\n") {
		out.Println(strings.TrimSpace("C:    " + line))
	}
	_, err := io.WriteString(w, strings.ReplaceAll(lines, "\n", "\r\n")+"\r\n")
	return err
}

// receive reads a reply and returns its last line: the one that has no hyphen
// behind its code (RFC 5321 section 4.2.1).
func receive(r *textproto.Reader, out *log.Logger) (last string, err error) {
	for {
		line, err := r.ReadLine()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrSession, err)
		}
		out.Printf("S:    %s", line)
		if len(line) < 4 || line[3] != '-' {
			return line, nil
		}
	}
}
