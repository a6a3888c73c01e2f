package dialogue

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The drawing of the states is for people. This file holds it against the walk.

// drawing is where the states are drawn.
const drawing = "../../docs/states.md"

// arrow is a line of a state diagram in Mermaid that draws an edge.
var arrow = regexp.MustCompile(`^\s*(\[\*\]|\w+) --> (\w+)(?:: (.+))?$`)

// drawn returns the edges of the state diagram in a page, with their labels.
func drawn(page string) (edges map[string]string, err error) {
	_, rest, ok := strings.Cut(page, "```mermaid\nstateDiagram-v2\n")
	diagram, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		return nil, fmt.Errorf("no state diagram")
	}
	edges = map[string]string{}
	for line := range strings.Lines(diagram) {
		line = strings.TrimSpace(line)
		found := arrow.FindStringSubmatch(line)
		switch {
		case line == "", strings.HasPrefix(line, "%%"), strings.HasPrefix(line, "direction "):
			continue
		case found == nil:
			return nil, fmt.Errorf("what does %q draw?", line)
		}
		name := found[1] + " --> " + found[2]
		if _, ok := edges[name]; ok {
			return nil, fmt.Errorf("%s is drawn twice", name)
		}
		edges[name] = found[3]
	}
	return edges, nil
}

// expected returns the edges that have to be drawn, with their labels.
func expected(w *walked) map[string]string {
	edges := map[string]string{"[*] --> Greeting": ""}
	for e, classes := range w.edges {
		if e.from == e.to || e.to.HasEnded() {
			continue
		}
		edges[fmt.Sprintf("%v --> %v", e.from, e.to)] = label(classes)
	}
	return edges
}

// label returns the classes of the inputs that make an edge, in short.
func label(classes map[string]bool) string {
	all3xx := classes["334"] && classes["354"] && classes["399"]
	var words []string
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		general := class[strings.LastIndexByte(class, ' ')+1:]
		switch {
		case general != class && classes[general]: // as any other
		case class == "220" && classes["2xx"], class == "answered 334" && classes["answered"]:
		case all3xx && (class == "334" || class == "354"):
		case all3xx && class == "399":
			words = append(words, "3xx")
		default:
			words = append(words, class)
		}
	}
	return strings.Join(words, ", ")
}

// differences tells in what a drawing differs from what it should show.
func differences(drawn, expected map[string]string) (wrong []string) {
	for name, label := range expected {
		switch got, ok := drawn[name]; {
		case !ok:
			wrong = append(wrong, fmt.Sprintf("missing: %s: %s", name, label))
		case got != label:
			wrong = append(wrong, fmt.Sprintf("%s: the label is %q, want %q", name, got, label))
		}
	}
	for name := range drawn {
		if _, ok := expected[name]; !ok {
			wrong = append(wrong, "too many: "+name)
		}
	}
	return slices.Sorted(slices.Values(wrong))
}

func TestTheDrawingShowsTheChangesOfStateThatThereAre(t *testing.T) {
	page, err := os.ReadFile(drawing)
	if err != nil {
		t.Fatal(err)
	}
	got, err := drawn(string(page))
	if err != nil {
		t.Fatal(err)
	}
	want := expected(walk())
	for _, wrong := range differences(got, want) {
		t.Error(wrong)
	}
	if t.Failed() {
		for _, name := range slices.Sorted(maps.Keys(want)) {
			t.Logf("    %s: %s", name, want[name])
		}
	}
}

// A drawing with an edge too many, without one, or with another label is found out.
func TestAWrongDrawingIsFoundOut(t *testing.T) {
	right := expected(walk())
	if wrong := differences(right, right); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for name, label := range right {
		other := maps.Clone(right)
		delete(other, name)
		if wrong := differences(other, right); len(wrong) != 1 || !strings.HasPrefix(wrong[0], "missing: "+name) {
			t.Errorf("without %s: %q", name, wrong)
		}
		other[name] = label + " and more"
		if wrong := differences(other, right); len(wrong) != 1 || !strings.HasPrefix(wrong[0], name+": the label") {
			t.Errorf("%s with another label: %q", name, wrong)
		}
	}
	other := maps.Clone(right)
	other["Content --> Greeting"] = "2xx"
	if wrong := differences(other, right); len(wrong) != 1 || wrong[0] != "too many: Content --> Greeting" {
		t.Errorf("with one too many: %q", wrong)
	}
	for _, tt := range []struct{ why, page string }{
		{"no drawing", "# States\n"},
		{"a drawing without an end", "```mermaid\nstateDiagram-v2\n    A --> B\n"},
		{"a line that draws no edge", "```mermaid\nstateDiagram-v2\n    A -> B\n```\n"},
		{"an edge that is drawn twice", "```mermaid\nstateDiagram-v2\n    A --> B: x\n    A --> B: y\n```\n"},
	} {
		if edges, err := drawn(tt.page); err == nil {
			t.Errorf("%s: %v", tt.why, edges)
		}
	}
}
