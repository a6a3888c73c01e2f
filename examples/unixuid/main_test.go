package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// onLinux skips a test where the library doesn't know who is at a unix socket, and says so.
func onLinux(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who is at a unix socket is known on Linux") // see the comment
	}
}

func TestOnceShowsAsWhomAUserMaySend(t *testing.T) {
	onLinux(t)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", filepath.Join(t.TempDir(), "s")}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"C: RCPT TO:<bob@example.org>\nS: 550 5.7.1 You may not send as that\n",
		fmt.Sprintf("mail: 28 octets from me@unixuid.example, user %d\nS: 250 ", os.Getuid()),
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %s in\n%s", want, &out)
		}
	}
}

func TestTheSocketIsGoneBehindIt(t *testing.T) {
	onLinux(t)
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once"}, &out); err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	if _, err := os.Stat(filepath.Dir(strings.TrimPrefix(line, "listening on "))); err == nil {
		t.Error("the directory is still there")
	}
	if err := run(t.Context(), []string{"-addr", t.TempDir()}, io.Discard); err == nil || !strings.Contains(err.Error(), "-addr") {
		t.Error(err)
	}
}

func TestOnlyAUserOfTheTableSendsAndAsItSays(t *testing.T) {
	table := senders{1000: {"alice@example.com", "sales@example.com", ""}, 1001: {"bob@example.com"}, 0: {"root@example.com"}}
	known := func(id uint32) smtpproxy.UID { return smtpproxy.UID{ID: id, Valid: true} }
	for _, row := range []struct {
		why  string
		uid  smtpproxy.UID
		mail string
		want int
	}{
		{"its own", known(1000), "FROM:<alice@example.com>", 250},
		{"its other", known(1000), "FROM:<Sales@Example.com> SIZE=7", 250},
		{"another's", known(1001), "FROM:<alice@example.com>", 550},
		{"one of no table", known(1002), "FROM:<alice@example.com>", 550},
		{"root isn't everybody", known(0), "FROM:<alice@example.com>", 550},
		{"somebody who isn't known", smtpproxy.UID{ID: 1000}, "FROM:<alice@example.com>", 550},
		{"somebody who isn't known, whose number is root's", smtpproxy.UID{}, "FROM:<root@example.com>", 550},
		{"nobody's, which is the null sender", known(1000), "FROM:<>", 550},
		{"two at once", known(1001), "FROM:<bob@example.com> FROM:<alice@example.com>", 550},
	} {
		s := proxytest.ResumeSession(&smtpproxy.Proxy{Hook: table}, smtpproxy.Connection{RemoteUID: row.uid}, smtpproxy.Transaction{})
		s.Send("EHLO x")
		s.Send("MAIL " + row.mail)
		s.Send("RCPT TO:<x@y>")
		if got := s.Reply().Code; got != row.want {
			t.Errorf("%s: %d, want %d", row.why, got, row.want)
		}
	}
}
