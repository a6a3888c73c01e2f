package hosts

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/seed3262c777/smtpproxy/proxytest"
)

// This file puts the hosts on trial, and docs/servers.md holds what was found. With
// -servers, the test writes that file.

var serversFlag = flag.Bool("servers", false, "write docs/servers.md")

const serversFile = "../../docs/servers.md"

// defendant is a host with what the trial has to know of it.
type defendant struct {
	host
	module string // whose version is told
	setup  string // what is told of how it was set up
	trial  proxytest.Trial
}

// goSMTPAsItIs is go-smtp without AllowInsecureAuth.
var goSMTPAsItIs = host{
	name: "go-smtp",
	serve: func(l net.Listener, lim limits, rec *record) error {
		srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &backend{rec: rec}, nil }))
		srv.Domain = "gosmtp.example"
		srv.ReadTimeout = lim.timeout
		srv.ErrorLog = log.New(io.Discard, "", 0)
		return srv.Serve(l)
	},
}

var defendants = []defendant{
	{goSMTPHost, "github.com/emersion/go-smtp", "`AllowInsecureAuth`, `MaxMessageBytes`, a backend that refuses some messages, some unread",
		proxytest.Trial{RefusedTexts: []string{refuseWord, unreadWord, plainWord}, RefusedHost: "nohost.example"}},
	{goLMTPHost, "github.com/emersion/go-smtp", "`LMTP`, the rest likewise",
		proxytest.Trial{LMTP: true, RefusedTexts: []string{refuseWord, unreadWord, plainWord}, RefusedHost: "nohost.example"}},
	{mhaleHost, "github.com/mhale/smtpd", "`MaxSize`, a handler that refuses some messages",
		proxytest.Trial{RefusedTexts: []string{refuseWord, plainWord}}},
	{bradfitzHost, "github.com/bradfitz/go-smtpd", "an Envelope that refuses some messages at their end, some at a line, some with an error of Go's",
		proxytest.Trial{RefusedTexts: []string{refuseWord, lineWord, plainWord}}},
	{chrjHost, "github.com/chrj/smtpd", "`MaxMessageSize`, a handler that refuses some messages",
		proxytest.Trial{RefusedTexts: []string{refuseWord, plainWord}, RefusedHost: "nohost.example"}},
}

// tryHost puts a host on trial.
func tryHost(d defendant) proxytest.Report {
	trial := d.trial
	trial.RefusedRecipient = refusedName + "body@example.org"
	if d.auth {
		trial.Username, trial.Password = "user", "pass"
	}
	lim := limits{size: 100_000, recipients: 100, timeout: time.Minute}
	return trial.Report(func(l net.Listener) error { return d.serve(l, lim, new(record)) })
}

// versionOf returns the version of a module in go.mod.
func versionOf(t *testing.T, module string) string {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatalf("no version of %s", module)
	}
	return string(m[1])
}

const serversPreface = `# Servers on trial

What [` + "`proxytest.TestServer`" + `](../proxytest/trial.go) has found about the servers of
[internal/hosts](../internal/hosts), as they are set up there. This file is written by
` + "`go -C internal/hosts test -run Servers -servers`" + `, and held against the servers by
the same test.

A **violation** is what keeps a promise of [SECURITY.md](../SECURITY.md) from holding behind the
listener, unless what is advised is done; a note is what the library makes up for. Which
promises hold for which server, tried with random clients, is the table there.

`

// describe writes docs/servers.md.
func describe(t *testing.T, reports []proxytest.Report) string {
	var b strings.Builder
	b.WriteString(serversPreface)
	b.WriteString("| Server | Version | Set up with | Violations | Notes |\n|---|---|---|---|---|\n")
	for i, d := range defendants {
		names := make(map[proxytest.Grade][]string)
		for _, f := range reports[i].Findings() {
			names[f.Grade] = append(names[f.Grade], "["+f.Name+"](#"+f.Name+")")
		}
		list := func(g proxytest.Grade) string {
			if len(names[g]) == 0 {
				return "none"
			}
			return strings.Join(names[g], ", ")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", d.name, versionOf(t, d.module), d.setup, list(proxytest.Violation), list(proxytest.Note))
	}
	b.WriteString("\n## What each does\n\n| Question |")
	for _, d := range defendants {
		fmt.Fprintf(&b, " %s |", d.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(defendants)) + "\n")
	for j, r := range reports[0].Results {
		fmt.Fprintf(&b, "| %s |", r.Question)
		for i := range defendants {
			fmt.Fprintf(&b, " %s |", cell(reports[i].Results[j].Answer))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## What the findings mean, and what to do\n")
	told := make(map[string]bool)
	for i, d := range defendants {
		for _, f := range reports[i].Findings() {
			if told[f.Name] {
				continue
			}
			told[f.Name] = true
			fmt.Fprintf(&b, "\n### %s\n\nA %s. %s %s\n\n", f.Name, f.Grade, f.Meaning, f.Remedy)
			fmt.Fprintf(&b, "%s: %s\n", d.name, f.What)
			if f.Dialogue != "" {
				fmt.Fprintf(&b, "\n```\n%s```\n", f.Dialogue)
			}
		}
	}
	return b.String()
}

// cell makes text fit for one of a table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(text)
}

func TestTheTableOfServersTellsWhatIsFoundAboutThem(t *testing.T) {
	var reports []proxytest.Report
	for _, d := range defendants {
		begin := time.Now()
		r := tryHost(d)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s: the trial took %v", d.name, took)
		}
		for _, f := range r.Findings() {
			if f.Grade == proxytest.Untried {
				t.Errorf("%s: %s", d.name, f)
			}
		}
		reports = append(reports, r)
	}
	got := describe(t, reports)
	if *serversFlag {
		if err := os.WriteFile(serversFile, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(serversFile)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i, line := range gotLines {
		if i >= len(wantLines) || line != wantLines[i] {
			t.Fatalf("docs/servers.md:%d isn't what is found now; write it anew with -servers, and look at what has changed:\n%s", i+1, line)
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Fatal("docs/servers.md is longer than what is found now; write it anew with -servers")
	}
}

func TestGoSMTPAsItIsIsToldToOfferAUTH(t *testing.T) {
	r := tryHost(defendant{host: goSMTPAsItIs})
	if f := r.Result("auth").Findings; len(f) != 1 || f[0].Name != "wants-tls-conn" || !strings.Contains(f[0].Remedy, "AllowInsecureAuth") {
		t.Errorf("found: %v", f)
	}
}
