package smtpproxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"go.uber.org/goleak"
)

// TestMain holds that nothing is left of a connection that ends.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what tests bring about is no news
	goleak.VerifyTestMain(m)
}

// This file shows the library's main job, from end to end: a go-smtp server as anybody
// would write it, a listener wrapped around its own, a client on TCP, and a hook that
// sees each command before the server does.

// postOffice is the server's side. It notes what go-smtp tells it.
type postOffice struct {
	mu    sync.Mutex
	notes []string
}

func (o *postOffice) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.notes = append(o.notes, fmt.Sprintf(format, args...))
}

func (o *postOffice) noted() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.notes)
}

func (o *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return &counter{o}, nil }

// counter is one client's session.
type counter struct{ office *postOffice }

func (c *counter) Mail(from string, _ *smtp.MailOptions) error {
	c.office.note("from %s", from)
	return nil
}

func (c *counter) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user"}
	}
	c.office.note("to %s", to)
	return nil
}

func (c *counter) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	c.office.note("message %q", content)
	return err
}

func (c *counter) Reset()        {}
func (c *counter) Logout() error { return nil }

// clerk is the hook. It notes what it is shown, and decides a little.
type clerk struct {
	mu    sync.Mutex
	shown []string
}

func (k *clerk) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	k.mu.Lock()
	k.shown = append(k.shown, fmt.Sprintf("%s | %s %s | %d", cmd.Line, conn.HELO.Host, txn.Sender, txn.Recipients.Len()))
	k.mu.Unlock()

	switch cmd.Verb() {
	case "WHOAMI": // a verb of its own: the server never sees it
		return smtpproxy.Reply{Lines: []string{"You are " + conn.RemoteIP.String()}}, nil
	case "MAIL": // a command that the server gets in another form
		return smtpproxy.Pass{Command: strings.ReplaceAll(cmd.Line, "@old.example", "@new.example")}, nil
	case "RCPT": // what is refused concerns this recipient alone
		if txn.Recipients.Len() == 2 {
			return smtpproxy.Reply{Code: 452, Enhanced: smtpproxy.EnhancedCode{4, 5, 3}, Lines: []string{"Two are enough"}}, nil
		}
	case "VRFY":
		return nil, errors.New("the directory is down")
	}
	return nil, nil // all else passes
}

func TestTheHookSeesEachCommandFirstAndTheServerWhatItPasses(t *testing.T) {
	office, hook := &postOffice{}, &clerk{}
	server := smtp.NewServer(office)
	server.Domain = "mx.example"

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &smtpproxy.Proxy{Hook: hook}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.Listener(l)) }() // instead of server.Serve(l)
	defer func() {
		server.Close()
		<-served
	}()

	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	replies := bufio.NewReader(client)

	// Each step is what the client sends, and the last lines of the replies.
	for _, step := range []struct {
		send string
		want []string
	}{
		{"", []string{"220 mx.example ESMTP Service Ready"}},
		{"EHLO client.example\r\n", []string{"250 SIZE"}},
		{"WHOAMI\r\n", []string{"250 2.0.0 You are 127.0.0.1"}},

		// A group of commands at once (RFC 2920) is taken apart for the hook. The
		// third recipient is one too many, the second the server doesn't know.
		{"MAIL FROM:<ann@old.example>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<nobody@example.org>\r\n" +
			"RCPT TO:<cat@example.org>\r\nRCPT TO:<dan@example.org>\r\nDATA\r\n", []string{
			"250 2.0.0 Roger, accepting mail from <ann@new.example>",
			"250 2.0.0 I'll make sure <bob@example.org> gets this",
			"550 5.1.1 No such user",
			"250 2.0.0 I'll make sure <cat@example.org> gets this",
			"452 4.5.3 Two are enough",
			"354 Go ahead. End your data with <CR><LF>.<CR><LF>",
		}},

		// Content is never a command, whatever it looks like.
		{"Subject: hello\r\n\r\nRSET\r\nMAIL FROM:<evil@example.net>\r\n.\r\n", []string{"250 2.0.0 OK: queued"}},

		// A hook that fails closes the door, and says no more than that.
		{"VRFY bob\r\nNOOP\r\n", []string{"421 4.3.0 Service not available, closing transmission channel"}},
	} {
		if _, err := io.WriteString(client, step.send); err != nil {
			t.Fatal(err)
		}
		for _, want := range step.want {
			if got := lastLine(replies); got != want {
				t.Fatalf("after %q the client got %q, want %q", step.send, got, want)
			}
		}
	}
	if rest, err := io.ReadAll(replies); err != nil || len(rest) > 0 {
		t.Errorf("behind the 421 came %q, %v", rest, err)
	}

	// What the hook was shown: the line, and whom the server had accepted by then.
	wantShown := []string{
		"EHLO client.example |   | 0",
		"WHOAMI | client.example  | 0",
		"MAIL FROM:<ann@old.example> | client.example  | 0",
		"RCPT TO:<bob@example.org> | client.example ann@new.example | 0",
		"RCPT TO:<nobody@example.org> | client.example ann@new.example | 1",
		"RCPT TO:<cat@example.org> | client.example ann@new.example | 1",
		"RCPT TO:<dan@example.org> | client.example ann@new.example | 2",
		"DATA | client.example ann@new.example | 2",
		"VRFY bob | client.example  | 0",
	}
	if !slices.Equal(hook.shown, wantShown) {
		t.Errorf("the hook was shown\n%s\nwant\n%s", strings.Join(hook.shown, "\n"), strings.Join(wantShown, "\n"))
	}
	wantNoted := []string{
		"from ann@new.example", "to bob@example.org", "to cat@example.org",
		`message "Subject: hello\r\n\r\nRSET\r\nMAIL FROM:<evil@example.net>\r\n"`,
	}
	if got := office.noted(); !slices.Equal(got, wantNoted) {
		t.Errorf("the server was told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(wantNoted, "\n"))
	}
}

// lastLine reads a reply and returns its last line (RFC 5321 section 4.2.1).
func lastLine(r *bufio.Reader) string {
	for {
		line, err := r.ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); err != nil || len(line) < 4 || line[3] != '-' {
			return line
		}
	}
}
