package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file holds docs/architecture.md, and the rules in it, against the code.

const (
	module = "github.com/seed3262c777/smtpproxy"
	root   = "../.."
)

// goFiles returns the files of a package, a path from the root, without its tests.
func goFiles(t *testing.T, pkg string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = file
	}
	return files
}

// packages returns the packages of the root module, as paths from the root.
func packages(t *testing.T) (pkgs []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if name != root {
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil || d.Name() == "testdata" || d.Name()[0] == '.' {
				return fs.SkipDir
			}
		}
		rel, err := filepath.Rel(root, name)
		pkgs = append(pkgs, filepath.ToSlash(rel))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pkgs
}

func importsOf(file *ast.File) (imports []string) {
	for _, spec := range file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		imports = append(imports, name)
	}
	return imports
}

// floors are the packages that may be imported by those before them, and not by those
// behind; those of one line don't import each other.
var floors = [][]string{
	{"examples/ownserver", "examples/quickstart", "examples/chaos", "examples/customverb", "examples/guard", "examples/sasl", "examples/unixuid", "examples/xclient", "internal/compat/sink"},
	{"gosmtp", "hooks", "proxytest", "examples/internal/demo", "internal/servertest", "internal/fronts/program"},
	{"."},
	{"internal/secret", "internal/probe"},
	{"internal/dialogue"},
	{"internal/wire", "internal/address", "internal/timed", "internal/buffer", "internal/sasl",
		"internal/fcrdns", "internal/openssl", "internal/peek", "internal/peercred"},
	{"internal/ascii"},
}

func floorOf(pkg string) int {
	return slices.IndexFunc(floors, func(floor []string) bool { return slices.Contains(floor, pkg) })
}

func TestImportsGoOnlyDownwards(t *testing.T) {
	for _, pkg := range packages(t) {
		files := goFiles(t, pkg)
		if len(files) == 0 || pkg == "internal/e2e" || pkg == "internal/apitest" || pkg == "internal/fronts" {
			continue // no code
		}
		at := floorOf(pkg)
		if at < 0 {
			t.Errorf("%s is on no floor", pkg)
			continue
		}
		for name, file := range files {
			for _, imported := range importsOf(file) {
				rel, ours := strings.CutPrefix(imported, module)
				if !ours {
					continue
				}
				to := path.Join(".", strings.TrimPrefix(rel, "/"))
				if floor := floorOf(to); floor <= at {
					t.Errorf("%s in %s, floor %d, imports %s of floor %d", name, pkg, at, to, floor)
				}
			}
		}
	}
}

// What a machine must not know, it doesn't import.
func TestTheDialogueDoesNoIOAndKnowsNoTimeAndNoLock(t *testing.T) {
	allowed := []string{"math", "strconv", "strings", module + "/internal/ascii", module + "/internal/wire"}
	for name, file := range goFiles(t, "internal/dialogue") {
		for _, imported := range importsOf(file) {
			if !slices.Contains(allowed, imported) {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
}

// connFiles are those of conn, which knows I/O alone.
var connFiles = []string{"conn.go", "relay.go", "replies.go", "input.go", "output.go", "content.go", "waits.go", "handover.go", "listener.go"}

// A reply begins with a code; a verb is four or more capital letters.
var smtpLiteral = regexp.MustCompile(`^[2-5][0-9][0-9]\b|\b[A-Z]{4,}\b|^\*$`)

func TestTheFilesOfTheConnectionHaveNoReplyAndNoCommandOfTheirOwn(t *testing.T) {
	files := goFiles(t, ".")
	for _, name := range connFiles {
		if files[name] == nil {
			t.Errorf("there is no %s", name)
			continue
		}
		ast.Inspect(files[name], func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				text, err := strconv.Unquote(n.Value)
				// An error's text may name what it is about.
				if err == nil && !strings.HasPrefix(text, "smtpproxy: ") && smtpLiteral.MatchString(text) {
					t.Errorf("%s has %s", name, n.Value)
				}
			case *ast.KeyValueExpr:
				if isCode(n.Key) && isNumber(n.Value) {
					t.Errorf("%s has a reply's code", name)
				}
			case *ast.BinaryExpr:
				if isCode(n.X) && isNumber(n.Y) {
					t.Errorf("%s looks at a reply's code", name)
				}
			}
			return true
		})
	}
}

// isCode tells whether an expression is named as the code of a reply is.
func isCode(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(e.Name, "code")
	case *ast.SelectorExpr:
		return isCode(e.Sel)
	}
	return false
}

func isNumber(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.INT
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	identifier = regexp.MustCompile(`^[A-Za-z]\w*(\.[A-Za-z]\w*)?$`)
	fileName   = regexp.MustCompile(`\b[\w/]+\.go\b`)
)

func TestWhatTheArchitectureNamesExists(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := make(map[string]bool)
	for _, pkg := range packages(t) {
		for name, file := range goFiles(t, pkg) {
			declared[name], declared[path.Join(pkg, name)] = true, true
			declared[path.Join(strings.TrimPrefix(pkg, "internal/"), name)] = true
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					declared[n.Name.Name] = true
				case *ast.TypeSpec:
					declared[n.Name.Name] = true
				case *ast.ValueSpec:
					for _, id := range n.Names {
						declared[id.Name] = true
					}
				case *ast.Field:
					for _, id := range n.Names {
						declared[id.Name] = true
					}
				}
				return true
			})
		}
	}
	declared["smtpproxy"], declared["timed"], declared["dialogue"] = true, true, true
	names := 0
	for _, m := range codeSpan.FindAllStringSubmatch(string(page), -1) {
		if !identifier.MatchString(m[1]) {
			continue
		}
		names++
		for part := range strings.SplitSeq(m[1], ".") {
			if !declared[part] {
				t.Errorf("there is no %s, of `%s`", part, m[1])
			}
		}
	}
	for _, name := range fileName.FindAllString(string(page), -1) {
		names++
		if !declared[name] {
			t.Errorf("there is no %s", name)
		}
	}
	if names < 40 {
		t.Errorf("the page names only %d things", names)
	}
}
