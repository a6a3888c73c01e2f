package fronts

import (
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/hooks"
	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// fail2banFiles returns the filter and the jail that the docs have.
func fail2banFiles(t *testing.T) (filter, jail string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "fail2ban.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)\n```ini\n(.*?)\n```\n").FindAllSubmatch(text, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d files in the docs", len(blocks))
	}
	return string(blocks[0][1]) + "\n", string(blocks[1][1]) + "\n"
}

// traceLog plays with a server what clients do that are to be found, and others, and returns its
// log. Each client has an address of its own.
func traceLog(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "smtp.log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	trace := &hooks.Trace{Logger: slog.New(slog.NewTextHandler(file, nil))}
	ended := make(chan bool, 100)
	policy := smtpproxy.HookFunc(func(_ *smtpproxy.Context, cmd smtpproxy.Command, _ smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
		switch {
		case strings.Contains(cmd.Args(), "spam@"):
			return smtpproxy.Reply{Code: 550, Enhanced: smtpproxy.EnhancedCode{5, 7, 1}, Lines: []string{"No"}}, nil
		case strings.Contains(cmd.Args(), "full@"): // as a limit that all have together
			return smtpproxy.Reply{Code: 421}, nil
		case strings.Contains(cmd.Args(), "grey@"):
			return smtpproxy.Reply{Code: 450}, nil
		case strings.Contains(cmd.Args(), "fail@"):
			return nil, errors.New("no database")
		}
		return nil, nil
	})
	p := &smtpproxy.Proxy{
		Hook:      smtpproxy.Chain(&hooks.Networks{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.13/32")}}, policy),
		Observers: []smtpproxy.Observer{trace.Observer(), {Disconnected: func(*smtpproxy.Context, smtpproxy.Connection, smtpproxy.End) { ended <- true }}},
		Logger:    slog.New(slog.DiscardHandler),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &authSession{session{s: &server{told: make(map[string]mail)}, c: c}}, nil
	}))
	srv.AllowInsecureAuth = true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, p) }()
	defer func() { srv.Close(); <-served }()

	forged := `time=2026-01-01T00:00:00.000Z level=INFO msg="smtp: command" connection=x remote=198.51.100.66 code=535 by=server `
	for _, c := range []struct {
		ip    string
		lines []string
		codes []int
	}{
		{"127.0.0.11", []string{"", "EHLO x", "AUTH PLAIN AGFsaWNlAHdyb25n", "QUIT"}, []int{220, 250, 535, 221}},
		{"127.0.0.12", []string{"", "EHLO x", "AUTH PLAIN", "AGFsaWNlAHdyb25n", "QUIT"}, []int{220, 250, 334, 535, 221}},
		{"127.0.0.13", []string{""}, []int{554}},
		{"127.0.0.14", []string{"", "EHLO x", "MAIL FROM:<spam@example.com>", "QUIT"}, []int{220, 250, 550, 221}},
		{"127.0.0.15", append([]string{""}, slices.Repeat([]string{"\x01"}, 10)...), append([]int{220}, slices.Repeat([]int{500}, 10)...)},
		{"127.0.0.16", []string{"", "EHLO x", "MAIL FROM:<a@example.com>", "RCPT TO:<nobody@example.org>", "QUIT"}, []int{220, 250, 250, 550, 221}},
		{"127.0.0.21", []string{"", "EHLO x", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA", "x\r\n.", "QUIT"}, []int{220, 250, 250, 250, 354, 250, 221}},
		{"127.0.0.22", []string{"", "EHLO x", "MAIL FROM:<grey@example.com>", "QUIT"}, []int{220, 250, 450, 221}},
		{"127.0.0.23", []string{"", "EHLO x", authPlain(user), "QUIT"}, []int{220, 250, 235, 221}},
		{"127.0.0.24", []string{"", "EHLO x", forged, `NOOP " ` + forged, "NOOP \\\" " + forged, "MAIL FROM:<" + forged + ">", "EHLO \"" + forged, "HELO " + forged, "QUIT"},
			[]int{220, 250, 501, 250, 250, 501, 250, 250, 221}},
		{"127.0.0.25", []string{"", "EHLO x", "MAIL FROM:<fail@example.com>"}, []int{220, 250, 421}},
		{"127.0.0.27", []string{"", "EHLO x", "MAIL FROM:<full@example.com>"}, []int{220, 250, 421}},
		{"127.0.0.26", []string{"", "GET / HTTP/1.1"}, []int{220, 502}},
	} {
		k := dial(t, c.ip, l.Addr().String())
		for i, line := range c.lines {
			k.say(line, c.codes[i])
		}
		if c.ip == "127.0.0.15" {
			k.say("\x01", 421)
		}
		k.c.Close()
		select {
		case <-ended:
		case <-time.After(program.Patience):
			t.Fatalf("%s isn't gone", c.ip)
		}
	}

	// And one from afar.
	s := proxytest.ResumeSession(p, smtpproxy.Connection{RemoteIP: netip.MustParseAddr("2001:db8::7")}, smtpproxy.Transaction{})
	s.Answer("AUTH", 535)
	s.Send("EHLO x")
	s.Send("AUTH PLAIN AGFsaWNlAHdyb25n")
	s.Close()
	return path
}

// authSession refuses a password in the way that go-smtp makes a 535 of.
type authSession struct{ session }

func (u *authSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, name, pass string) error {
		if name != user || pass != password {
			return smtp.ErrAuthFailed
		}
		return nil
	}), nil
}

func TestFail2banFindsThoseWhoAreToBeFoundInTheLogOfTrace(t *testing.T) {
	path := program.Need(t, "fail2ban-regex")
	filter, _ := fail2banFiles(t)
	file := program.Write(t, filepath.Join(t.TempDir(), "smtpproxy.conf"), filter)
	log := traceLog(t)
	auth := []string{"127.0.0.11", "127.0.0.12", "2001:db8::7"}
	normal := append([]string{"127.0.0.13", "127.0.0.14", "127.0.0.15"}, auth...)
	aggressive := append([]string{"127.0.0.16", "127.0.0.24", "127.0.0.26"}, normal...) // who forges isn't understood
	for _, row := range []struct {
		mode string
		want []string
	}{{"auth", auth}, {"normal", normal}, {"", normal}, {"aggressive", aggressive}} {
		name := file
		if row.mode != "" {
			name += "[mode=" + row.mode + "]"
		}
		out, err := exec.CommandContext(t.Context(), path, "--usedns=no", "-o", "ip", log, name).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", row.mode, err, out)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		got = slices.Compact(got)
		slices.Sort(row.want)
		if !slices.Equal(got, row.want) {
			text, _ := os.ReadFile(log)
			t.Errorf("mode %q finds\n%s\nwant\n%s\nin\n%s", row.mode, strings.Join(got, "\n"), strings.Join(row.want, "\n"), text)
		}
	}
	// Each line has a date that it understands.
	out, err := exec.CommandContext(t.Context(), path, "--usedns=no", log, file).CombinedOutput()
	text, _ := os.ReadFile(log)
	lines := strings.Count(string(text), "\n")
	dates := regexp.MustCompile(`\[(\d+)\] \^time=`).FindStringSubmatch(string(out))
	if err != nil || len(dates) < 2 || dates[1] != strconv.Itoa(lines) {
		t.Errorf("%v, of %d lines %q have a date:\n%s", err, lines, dates, out)
	}
}

func TestFail2banTakesTheJail(t *testing.T) {
	path := program.Need(t, "fail2ban-client")
	program.NeedFile(t, "/etc/fail2ban/fail2ban.conf")
	filter, jail := fail2banFiles(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("/etc/fail2ban")); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(dir, "jail.d")) // those of this machine
	os.Remove(filepath.Join(dir, "jail.local"))
	if err := os.Mkdir(filepath.Join(dir, "jail.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	log := program.Write(t, filepath.Join(t.TempDir(), "smtp.log"), "")
	program.Write(t, filepath.Join(dir, "filter.d", "smtpproxy.conf"), filter)
	program.Write(t, filepath.Join(dir, "jail.d", "smtpproxy.conf"), strings.ReplaceAll(jail, "/var/log/smtp.log", log))
	out, err := exec.CommandContext(t.Context(), path, "-c", dir, "-d").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`'addlogpath', '` + log, `'maxretry', 5`, `'bantime', '1h'`, `'findtime', '10m'`, `code=5\\d\\d by=hook`, `['start', 'smtpproxy']`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s isn't in\n%s", want, out)
		}
	}
}
