package hooks_test

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Whoever wants another hook than these can write it the same way: there is nothing that
// only they can use.
func TestTheHooksAreMadeOfThePublicAPIAlone(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		checked++
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			if !mayImport(path) {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
	if checked == 0 {
		t.Error("no files")
	}
	for path, want := range map[string]bool{
		"net/netip": true, "golang.org/x/time/rate": true, "github.com/seed3262c777/smtpproxy": true,
		"github.com/seed3262c777/smtpproxy/internal/ascii": false, "github.com/seed3262c777/smtpproxy/gosmtp": false,
		"golang.org/x/sys/unix": false, "unsafe": false, "internal/abi": false,
	} {
		if mayImport(path) != want {
			t.Errorf("%s: %v", path, !want)
		}
	}
}

// mayImport tells whether the package may import another.
func mayImport(path string) bool {
	if slices.Contains([]string{"github.com/seed3262c777/smtpproxy", "golang.org/x/time/rate"}, path) {
		return true
	}
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && first != "unsafe" && first != "internal" // the standard library
}
