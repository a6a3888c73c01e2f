package smtpproxy_test

import (
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

func TestGuestsMayWriteToTwoRecipients(t *testing.T) {
	proxytest.Run(t, "testdata/guests.txtar", func(*testing.T) *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(limitGuests)}
	})
}

func TestThereIsNoMailOutsideOfTLS(t *testing.T) {
	proxytest.Run(t, "testdata/onlyintls.txtar", func(*testing.T) *smtpproxy.Proxy {
		return &smtpproxy.Proxy{Hook: smtpproxy.HookFunc(onlyInTLS)}
	})
}

func TestTheDialogueInTheREADMEIsPlayed(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	played, err := os.ReadFile("testdata/guests.txtar")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)\n```text\n(.*?\n)```\n").FindAllSubmatch(readme, -1)
	if len(shown) != 1 || !strings.HasPrefix(string(played), string(shown[0][1])) {
		t.Errorf("testdata/guests.txtar doesn't begin with what the README shows: %s", shown)
	}
}

// What the README shows has to compile, so it has to be part of a Go file.
func TestTheGoCodeInTheREADMEIsCompiled(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	add := func(path string) {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, "\n"+string(source))
	}
	examples, err := filepath.Glob("example_*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(examples, "gosmtp/example_test.go") {
		add(path)
	}
	err = filepath.WalkDir("examples", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			add(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	snippets := regexp.MustCompile("(?s)\n```go(\n.*?\n)```\n").FindAllSubmatch(readme, -1)
	if len(snippets) == 0 {
		t.Fatal("no Go code in the README")
	}
	for _, m := range snippets {
		found := false
		for _, source := range sources {
			found = found || strings.Contains(source, string(m[1]))
		}
		if !found {
			t.Errorf("in no file that is compiled:%s", m[1])
		}
	}
}

// An example that uses what another file declares can't be copied, and isn't shown as
// a whole by godoc.
func TestEachExampleIsCompleteByItself(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"example_*_test.go", "*/example_test.go", "*/example_*_test.go"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, matches...)
	}
	examples := 0
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, example := range doc.Examples(file) {
			examples++
			if example.Play == nil {
				t.Errorf("%s: Example%s uses what isn't declared there", path, example.Name)
			}
		}
	}
	if examples < 12 {
		t.Errorf("only %d examples", examples)
	}
}

func TestTheFilesThatTheDocumentsLinkToExist(t *testing.T) {
	code := regexp.MustCompile("`[^`]*`")
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	for _, name := range []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "examples/README.md", "docs/demand.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(code.ReplaceAll(text, nil), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), string(m[1]))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestEachExampleIsInTheTableOfThem(t *testing.T) {
	table, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("examples/*/main.go")
	if err != nil || len(programs) == 0 {
		t.Fatal(programs, err)
	}
	for _, program := range programs {
		name := filepath.Base(filepath.Dir(program))
		if !strings.Contains(string(table), "| ["+name+"]("+name+") |") {
			t.Errorf("there is no %s", name)
		}
	}
}
