package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// This file is a log that tests can look into.

// logbook is a slog.Handler that keeps what it gets.
type logbook struct {
	mu      sync.Mutex
	entries []entry
}

// entry is a line of a log.
type entry struct {
	level slog.Level
	text  string
	attrs map[string]string
}

// String returns the whole line.
func (e entry) String() string { return fmt.Sprint(e.level, " ", e.text, " ", e.attrs) }

func (*logbook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	e := entry{r.Level, r.Message, make(map[string]string)}
	r.Attrs(func(a slog.Attr) bool {
		e.attrs[a.Key] = a.Value.Resolve().String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return nil
}

func (l *logbook) WithAttrs([]slog.Attr) slog.Handler { panic("no attributes are kept") }
func (l *logbook) WithGroup(string) slog.Handler      { panic("no groups are kept") }

// lines returns those entries that have the text somewhere.
func (l *logbook) lines(text string) (lines []entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if strings.Contains(e.String(), text) {
			lines = append(lines, e)
		}
	}
	return lines
}

// reasons returns the level of each line, and why a connection was ended, or what else
// the line tells.
func (l *logbook) reasons() (reasons []string) {
	for _, e := range l.lines("") {
		what := strings.TrimPrefix(e.text, "smtpproxy: ")
		if what == "connection ended" {
			what = e.attrs["reason"]
		}
		reasons = append(reasons, fmt.Sprint(e.level, " ", what))
	}
	return reasons
}

// checkAbout checks that each line about a connection is about one of these, and has
// the client's address, if it has one, and that none was ended twice.
func (l *logbook) checkAbout(t *testing.T, client string, ids []string) {
	t.Helper()
	ended := make(map[string]bool)
	for _, e := range l.lines("") {
		id, about := e.attrs["connection"]
		if _, ends := e.attrs["reason"]; ends && ended[id] {
			t.Errorf("logged once more: %v", e)
		} else if ends {
			ended[id] = true
		}
		switch {
		case e.level == slog.LevelWarn && !about && e.attrs["reason"] == "": // about the server
		case !slices.Contains(ids, id) || e.attrs["remote"] != client:
			t.Errorf("logged: %v; the client is %q, of %v", e, client, ids)
		}
	}
}

// logger returns a logger that writes to l.
func (l *logbook) logger() *slog.Logger { return slog.New(l) }

// byDefault makes l the log of those who have none of their own, until the test ends.
func (l *logbook) byDefault(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(l.logger())
	t.Cleanup(func() { slog.SetDefault(before) })
}
