package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// This file holds docs/demand.md: that each row names tests that there are, or what is one of
// the README's limits.

// rowsOfDemand are the rows of the page's tables.
var rowsOfDemand = []int{25, 24}

var (
	demandThread = regexp.MustCompile(`^\[([\w.-]+/[\w.-]+)#(\d+)\]\(https://github\.com/([\w.-]+/[\w.-]+)/(?:issues|pull)/(\d+)\)$`)
	demandTest   = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*_test\.go)\)`)
	notOffered   = regexp.MustCompile(`not offered: (.*?) \(\[Limits\]\(\.\./README\.md#limits\)\)`)
)

// faultsOfDemand returns what is wrong with the page. tests returns the names of the tests in a
// file, a path from the root, nil if there is none; declared tells whether the library has a name.
func faultsOfDemand(page, readme string, tests func(file string) map[string]bool, declared func(name string) bool) (faults []string) {
	fault := func(row, format string, args ...any) {
		faults = append(faults, fmt.Sprintf(format, args...)+" in "+row)
	}
	_, limits, _ := strings.Cut(readme, "\n## Limits\n")
	limits, _, _ = strings.Cut(limits, "\n## ")
	limits = strings.Join(strings.Fields(limits), " ")

	var rows []int
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "|---"):
			rows = append(rows, 0)
			continue
		case !strings.HasPrefix(line, "|") || line == "| Asked at | What | Here | Shown by |":
			continue
		case len(rows) == 0:
			fault(line, "no table")
			continue
		}
		rows[len(rows)-1]++
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 4 || slices.Contains(cells, "") {
			fault(line, "not four cells")
			continue
		}
		for thread := range strings.SplitSeq(cells[0], ", ") {
			m := demandThread.FindStringSubmatch(thread)
			if m == nil || m[1] != m[3] || m[2] != m[4] {
				fault(line, "no link to a thread, %q,", thread)
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(cells[2], -1) {
			if identifier.MatchString(m[1]) && !declared(m[1]) {
				fault(line, "there is no `%s`", m[1])
			}
		}
		shown := demandTest.FindAllStringSubmatch(cells[3], -1)
		for _, m := range shown {
			switch names := tests(path.Join("docs", m[2])); {
			case names == nil:
				fault(line, "there is no %s", m[2])
			case !names[m[1]]:
				fault(line, "there is no %s in %s", m[1], m[2])
			}
		}
		refused := notOffered.FindAllStringSubmatch(cells[3], -1)
		for _, m := range refused {
			if !strings.Contains(limits, m[1]) {
				fault(line, "%q is none of the README's limits", m[1])
			}
		}
		if len(shown)+len(refused) == 0 || len(refused) != strings.Count(strings.ToLower(cells[3]), "not offered") {
			fault(line, "neither a test nor a limit")
		}
	}
	if !slices.Equal(rows, rowsOfDemand) {
		fault("the page", "%v rows, not %v,", rows, rowsOfDemand)
	}
	return faults
}

// testsOf returns the names of the tests in a file, a path from the root; nil if there is none.
func testsOf(file string) map[string]bool {
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(file)), nil, parser.SkipObjectResolution)
	if err != nil {
		return nil
	}
	names := make(map[string]bool)
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Test") {
			names[d.Name.Name] = true
		}
	}
	return names
}

// exportedNames returns what packages export, with the name of the package before it but for
// the root's, and of their types the fields and methods.
func exportedNames(t *testing.T, pkgs ...string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, pkg := range pkgs {
		prefix := ""
		if pkg != "." {
			prefix = pkg + "."
		}
		add := func(names map[string]bool, name ...string) {
			if ast.IsExported(name[len(name)-1]) {
				names[prefix+strings.Join(name, ".")] = true
			}
		}
		for _, file := range goFiles(t, pkg) {
			for _, d := range file.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil {
						add(names, d.Name.Name)
					}
				case *ast.GenDecl:
					for _, spec := range d.Specs {
						switch spec := spec.(type) {
						case *ast.ValueSpec:
							for _, id := range spec.Names {
								add(names, id.Name)
							}
						case *ast.TypeSpec:
							add(names, spec.Name.Name)
							if s, ok := spec.Type.(*ast.StructType); ok {
								for _, field := range s.Fields.List {
									for _, id := range field.Names {
										add(names, spec.Name.Name, id.Name)
									}
								}
							}
						}
					}
				}
			}
		}
	}
	return names
}

// demandPage returns docs/demand.md, the README, and whether the library has a name.
func demandPage(t *testing.T) (page, readme string, declared func(string) bool) {
	t.Helper()
	var texts []string
	for _, name := range []string{"docs/demand.md", "README.md"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	names := exportedNames(t, ".", "hooks", "gosmtp")
	// A field may stand there without its type: `hooks.Limits` with `OnBeyond`.
	fields := make(map[string]bool)
	for name := range names {
		fields[name[strings.LastIndex(name, ".")+1:]] = true
	}
	return texts[0], texts[1], func(name string) bool {
		return names[name] || !strings.Contains(name, ".") && fields[name]
	}
}

func TestEachRowOfTheDemandHasATestThatExistsOrALimit(t *testing.T) {
	page, readme, declared := demandPage(t)
	for _, fault := range faultsOfDemand(page, readme, testsOf, declared) {
		t.Error(fault)
	}
}

func TestAWrongRowOfTheDemandIsFound(t *testing.T) {
	page, readme, declared := demandPage(t)
	for _, row := range []struct{ why, old, new, want string }{
		{"a test that isn't there", "[TestHELPIsAnswered_gosmtp264]", "[TestHELPIsAnswered]", "there is no TestHELPIsAnswered in ../hooks/policy_server_test.go"},
		{"a file that isn't there", "(../hooks/policy_server_test.go)", "(../hooks/policies_test.go)", "there is no ../hooks/policies_test.go"},
		{"a test of another file", "(../internal/fronts/fail2ban_test.go)", "(../internal/fronts/nginx_test.go)", "there is no TestFail2banFindsThoseWhoAreToBeFoundInTheLogOfTrace in"},
		{"a limit that is none", "not offered: a front", "not offered: any front", "is none of the README's limits"},
		{"no pointer to the limits", "servers that can't be wrapped ([Limits](../README.md#limits))", "servers that can't be wrapped", "neither a test nor a limit"},
		{"a name that isn't there", "`hooks.Answers` |", "`hooks.Answer` |", "there is no `hooks.Answer`"},
		{"another thread", "go-smtp#264](", "go-smtp#265](", "no link to a thread"},
		{"no thread", "https://github.com/emersion/go-smtp/issues/264", "https://example.com/264", "no link to a thread"},
		{"a row too few", "\n| [emersion/go-smtp#264]", "\n[emersion/go-smtp#264]", "[24 24] rows"},
		{"a cell too few", "| `hooks.Answers` | ", "| ", "not four cells"},
	} {
		wrong := strings.Replace(page, row.old, row.new, 1)
		if wrong == page {
			t.Errorf("%s: the page doesn't have %q", row.why, row.old)
		}
		faults := faultsOfDemand(wrong, readme, testsOf, declared)
		if len(faults) != 1 || !strings.Contains(faults[0], row.want) {
			t.Errorf("%s: found %q", row.why, faults)
		}
	}
	if faults := faultsOfDemand(page, strings.Replace(readme, "\n## Limits\n", "\n## Bounds\n", 1), testsOf, declared); len(faults) == 0 {
		t.Error("without limits, nothing was found")
	}
}
