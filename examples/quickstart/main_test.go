package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// TestMain makes the test binary the program itself when a test starts it as
// such.
func TestMain(m *testing.M) {
	if os.Getenv("BE_QUICKSTART") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(t *testing.T, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "BE_QUICKSTART=1")
	return cmd
}

func TestOncePrintsTheWholeDialogueAndReturns(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	// Each step is the client's line, then the hook's, then the server's.
	want := regexp.MustCompile(`(?s)^listening on 127\.0\.0\.1:[1-9][0-9]*
S:    220 .*
C:    EHLO client\.example\.org
hook: EHLO client\.example\.org -> pass
S:    250-.*
C:    PING
hook: PING -> reply 250 2\.0\.0 PONG
S:    250 2\.0\.0 PONG
C:    MAIL FROM:<sender@example\.org> XOORG=example\.org
hook: MAIL FROM:<sender@example\.org> XOORG=example\.org -> pass MAIL FROM:<sender@example\.org>
S:    250 .*
C:    RCPT TO:<one@example\.com>
hook: RCPT TO:<one@example\.com> -> pass
S:    250 .*
C:    DATA
hook: DATA -> pass
S:    354 .*
C:    Subject: quickstart
C:
C:    Hello!
C:    \.
mail: from "sender@example\.org" to \["one@example\.com"\], 31 octets
S:    250 .*
C:    QUIT
hook: QUIT -> pass
S:    221 [^\n]*
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
}

func TestADialogueThatGoesWrongIsAnError(t *testing.T) {
	out := log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(out)
	defer server.Close()
	go gosmtp.Serve(server, l, &smtpproxy.Proxy{}) // no hook: PING gets 500
	err = demo.Play(t.Context(), l.Addr().String(), out, dialogue...)
	if err == nil || !strings.Contains(err.Error(), `"PING"`) {
		t.Errorf("error %v, want one about PING", err)
	}
}

func TestXOORGAloneIsTakenOut(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"MAIL FROM:<a@example.org> XOORG=b", "MAIL FROM:<a@example.org>"},
		{"mail from: <a@example.org> SIZE=1 xoorg=b BODY=7BIT", "mail from: <a@example.org> SIZE=1 BODY=7BIT"},
		{"MAIL FROM:<> XOORG=b SIZE=1", "MAIL FROM:<> SIZE=1"},
		{`MAIL FROM:<"a> XOORG=b"@example.org>`, `MAIL FROM:<"a> XOORG=b"@example.org>`},
		{`MAIL FROM:<"\"> XOORG=b"@example.org> XOORG=c`, `MAIL FROM:<"\"> XOORG=b"@example.org>`},
		{"MAIL FROM:<a@example.org> NOXOORG=b", "MAIL FROM:<a@example.org> NOXOORG=b"},
		{"MAIL FROM:<a@example.org>", "MAIL FROM:<a@example.org>"},
	} {
		if got := withoutXOORG(c.line); got != c.want {
			t.Errorf("%s: got %s, want %s", c.line, got, c.want)
		}
	}
}

func TestNoCredentialIsPrinted(t *testing.T) {
	ctx := smtpproxy.NewContext(t.Context())
	var out bytes.Buffer
	h := logged(smtpproxy.HookFunc(hook), log.New(&out, "", 0))
	h.Command(ctx, smtpproxy.Command{Line: "AUTH PLAIN c2VjcmV0"}, smtpproxy.Connection{}, smtpproxy.Transaction{})
	h.Command(ctx, smtpproxy.Command{Line: "c2VjcmV0", SASL: true}, smtpproxy.Connection{}, smtpproxy.Transaction{})
	if got, want := out.String(), "hook: AUTH PLAIN **** -> pass\nhook: **** -> pass\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestServesOtherClientsUntilTerminated(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM to send") // Windows has none
	}
	cmd := program(t, "-addr", "127.0.0.1:0")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	buf := make([]byte, 4096)
	readUntil := func(want string) {
		t.Helper()
		for !strings.Contains(out.String(), want) {
			n, err := stdout.Read(buf)
			out.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v before %q in\n%s", err, want, &out)
			}
		}
	}

	readUntil("until interrupted")
	addr := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`).FindStringSubmatch(out.String())[1]
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	io.WriteString(client, "NOOP another client\r\n")
	readUntil("hook: NOOP another client -> pass\n")

	// A client that is still connected keeps nothing from ending.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }).Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestAnInterruptBeforeTheDialogueIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, []string{"-addr", "127.0.0.1:0"}, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestAPortInUseIsOneLineAndExitStatus1(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()

	var stdout, stderr bytes.Buffer
	cmd := program(t, "-once", "-addr", addr)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit status %d, want 1", code)
	}
	if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, addr) {
		t.Errorf("stderr is %q, want one line with %s", got, addr)
	}
	if stdout.Len() > 0 {
		t.Errorf("stdout is %q, want nothing", &stdout)
	}
}

func TestTheHookStandsWhateverComes(t *testing.T) {
	proxytest.HookTest{Lines: []string{"PING", "MAIL FROM:<a@b> XOORG=c", "MAIL FROM:<\">\"@b> XOORG="}}.Run(t, func() smtpproxy.Hook {
		return logged(smtpproxy.HookFunc(hook), log.New(io.Discard, "", 0))
	})
}
