package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	machine "github.com/seed3262c777/smtpproxy/internal/dialogue"
	"golang.org/x/tools/txtar"
)

// This file holds that each reason for which the library ends a connection is shown.

func TestEachReasonIsShownInADialogue(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogues/log-*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			if f.Name == "log" {
				shown = append(shown, string(f.Data))
			}
		}
	}
	for why := machine.NoReason + 1; why < machine.Reasons; why++ {
		text := why.String()
		if text == "" {
			t.Errorf("reason %d has no words", why)
		}
		// A server with a state machine of its own is at fault there.
		if why != machine.OutOfTurn &&
			!slices.Contains(shown, "INFO "+text+"\n") && !slices.Contains(shown, "WARN "+text+"\n") {
			t.Errorf("no dialogue shows %s", text)
		}
	}
}
