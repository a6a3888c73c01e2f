package proxytest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// updates is the variable of the environment with which Run writes files. A flag would be
// one of every test that imports the package, among them those that have the same of their own.
const updates = "PROXYTEST_UPDATE"

// Run plays the dialogues in the files that pattern matches (see [filepath.Glob]), such as
// "testdata/*.txtar", each as a subtest on a fresh [Session]: "go test -run
// 'TestHook/limits/a_guest'" plays one of testdata/limits.txtar alone. newProxy returns the
// Proxy for one of them; t is that subtest's. The form of the files is told of at the package's
// beginning.
//
// With PROXYTEST_UPDATE=1 in the environment, Run writes what was said into the files, in the
// place of the lines S:, H: and P:, and changes nothing else in them.
func Run(t *testing.T, pattern string, newProxy func(t *testing.T) *smtpproxy.Proxy) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatalf("proxytest: pattern %q: %v", pattern, err)
	}
	if len(names) == 0 {
		t.Fatalf("proxytest: no file matches %q. A first one needs no more than this, and %s=1 go test:\n\n%s", pattern, updates, firstFile)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), func(t *testing.T) {
			t.Helper()
			runFile(t, name, newProxy)
		})
	}
}

const firstFile = `What it is about.

-- its name --
C: EHLO client.example
C: MAIL FROM:<alice@example.com>
`

// runFile plays the dialogues of a file.
func runFile(t *testing.T, name string, newProxy func(t *testing.T) *smtpproxy.Proxy) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, mistakes := readScript(filepath.ToSlash(name), data)
	for _, err := range mistakes {
		t.Error(err)
	}
	if len(mistakes) > 0 {
		return
	}
	writes := os.Getenv(updates) != "" && os.Getenv(updates) != "0"
	if writes {
		t.Cleanup(func() { // when those are through, too, that run in parallel
			text := f.updated()
			if text == string(data) {
				return
			}
			if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
				t.Error(err)
			}
			t.Logf("%s is updated: read what it says now", f.name)
		})
	}
	for _, d := range f.dialogues {
		t.Run(d.name, func(t *testing.T) {
			t.Helper()
			p := newProxy(t)
			if p == nil {
				t.Fatal("proxytest: newProxy has returned nil")
			}
			differences, mistakes := d.play(p)
			if writes {
				differences = nil
			}
			for _, err := range append(differences, mistakes...) {
				t.Error(err)
			}
			if len(differences) > 0 {
				t.Logf("If that is right, %s=1 go test writes it into %s.", updates, f.name)
			}
		})
	}
}
