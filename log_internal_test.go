package smtpproxy

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"
)

// This file holds that each reason for which the library ends a connection is shown.

func TestEachReasonIsShownInADialogue(t *testing.T) {
	files, err := filepath.Glob("internal/e2e/testdata/dialogues/log-*.txtar")
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
	for why := reasonNone + 1; why < reasonLogged; why++ {
		r := reasons[why]
		if r.text == "" || r.level != slog.LevelInfo && r.level != slog.LevelWarn {
			t.Errorf("reason %d is %q, %v", why, r.text, r.level)
		}
		// A server with a state machine of its own is at fault there.
		if why != reasonOutOfTurn && !slices.Contains(shown, r.level.String()+" "+r.text+"\n") {
			t.Errorf("no dialogue shows %v %s", r.level, r.text)
		}
	}
}
