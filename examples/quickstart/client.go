package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"strings"
	"time"
)

// dialogue is the built-in client's session: what it sends, and how the last
// line of the reply has to start.
var dialogue = []struct{ send, want string }{
	{"", "220 "}, // the greeting comes by itself
	{"EHLO client.example.org", "250 "},
	{"PING", "250 2.0.0 PONG"},
	{"MAIL FROM:<sender@example.org> XOORG=example.org", "250 "},
	{"RCPT TO:<one@example.com>", "250 "},
	{"DATA", "354 "},
	{"Subject: quickstart\n\nHello!\n.", "250 "},
	{"QUIT", "221 "},
}

var errDialogue = errors.New("the session did not go as it should")

// converse plays the dialogue with the server at addr and prints it.
func converse(ctx context.Context, addr string, out *log.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	replies := textproto.NewReader(bufio.NewReader(conn))
	for _, step := range dialogue {
		if err := send(conn, step.send, out); err != nil {
			return err
		}
		last, err := receive(replies, out)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(last, step.want) {
			return fmt.Errorf("%w: reply to %q: %q", errDialogue, step.send, last)
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
			return "", fmt.Errorf("%w: %w", errDialogue, err)
		}
		out.Printf("S:    %s", line)
		if len(line) < 4 || line[3] != '-' {
			return line, nil
		}
	}
}
