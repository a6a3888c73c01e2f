package hooks_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// recorder is a backend of go-smtp's that keeps what it is told.
type recorder struct {
	conn *smtp.Conn
	got  []string
}

func (r *recorder) NewSession(c *smtp.Conn) (smtp.Session, error) {
	r.conn = c
	return r, nil
}

func (r *recorder) Mail(from string, opts *smtp.MailOptions) error {
	auth := "none"
	if opts.Auth != nil {
		auth = fmt.Sprintf("%q", *opts.Auth)
	}
	r.got = append(r.got, fmt.Sprintf("helo %s", r.conn.Hostname()), fmt.Sprintf("from %s size %d auth %s", from, opts.Size, auth))
	return nil
}

func (r *recorder) Rcpt(to string, opts *smtp.RcptOptions) error {
	r.got = append(r.got, fmt.Sprintf("to %s notify %v", to, opts.Notify))
	return nil
}

func (r *recorder) Data(body io.Reader) error {
	_, err := io.Copy(io.Discard, body)
	return err
}

func (r *recorder) Reset()        {}
func (r *recorder) Logout() error { return nil }

// playGoSMTP plays a dialogue, of which a line begins with the code of its reply, with
// go-smtp behind a hook, and returns what its backend was told.
func playGoSMTP(t *testing.T, hook smtpproxy.Hook, steps ...string) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var r recorder
	srv := smtp.NewServer(&r)
	srv.EnableDSN = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{Hook: hook}) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	c := textproto.NewConn(conn)
	if _, _, err := c.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		code, line, _ := strings.Cut(step, " ")
		c.PrintfLine("%s", line)
		if got, text, err := c.ReadResponse(0); fmt.Sprint(got) != code {
			t.Errorf("%q: %d %s, %v, want %s", line, got, text, err, code)
		}
	}
	c.Close()
	srv.Close()
	<-served
	return r.got
}

func TestGoSMTPTakesFromOddClientsWhatItWouldRefuse(t *testing.T) {
	dialogue := []string{
		"EHLO",
		"",
		"MAIL From:<vc@example.org> SIZE=1459 XOORG=example.org AUTH=<>",
		"RCPT TO:<'bob@example.org'> NOTIFY=SUCCESS",
		"DATA",
		".",
		"QUIT",
	}
	with := func(codes ...string) []string {
		steps := slices.Clone(dialogue)
		for i := range steps {
			steps[i] = codes[i] + " " + steps[i]
		}
		return steps
	}
	if got := playGoSMTP(t, nil, with("501", "500", "502", "503", "503", "500", "221")...); got != nil {
		t.Errorf("without a hook, go-smtp was told %q", got)
	}
	got := playGoSMTP(t, smtpproxy.Chain(
		&hooks.RepairHELO{},
		hooks.Rewrite{
			{Match: regexp.MustCompile(`^\s*$`), To: "NOOP"},
			{Verb: "RCPT", Match: regexp.MustCompile(`(?i)^(RCPT\s+TO:\s*<)'([^[:space:]]+)'>$`), To: "$1$2>"},
		},
		hooks.StripParameters("MAIL", "XOORG", "AUTH"),
		hooks.AddParameter("RCPT", "NOTIFY=NEVER"),
	), with("250", "250", "250", "250", "354", "250", "221")...)
	want := []string{"helo [127.0.0.1]", "from vc@example.org size 1459 auth none", "to bob@example.org notify [NEVER]"}
	if !slices.Equal(got, want) {
		t.Errorf("go-smtp was told %q, want %q", got, want)
	}
}
