package main

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
)

// journal counts what the servers and the library log, by kind: with hostile
// clients that is a lot.
type journal struct {
	mu     sync.Mutex
	counts map[string]int
}

func newJournal() *journal { return &journal{counts: make(map[string]int)} }

func (j *journal) add(kind string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, known := j.counts[kind]; known || len(j.counts) < 100 {
		j.counts[kind]++
	}
}

func (j *journal) all() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make(map[string]int, len(j.counts))
	for k, n := range j.counts {
		all[k] = n
	}
	return all
}

var address = regexp.MustCompile(`127[.\d]+:\d+`)

// Printf implements smtp.Logger.
func (j *journal) Printf(format string, args ...any) {
	first, stack, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	first = "go-smtp: " + address.ReplaceAllString(first, "ADDRESS")
	if place := culprit.FindStringSubmatch(stack); place != nil {
		first += ", in " + place[1]
	}
	j.add(first)
}

// culprit is the function that panicked, in a stack that the runtime printed: the
// last call of panic there is followed by it.
var culprit = regexp.MustCompile(`(?s)\npanic\(.*?\n\t[^\n]*\n(?:runtime\.[^\n]*\n\t[^\n]*\n)*[^\n]*?([^/\n]+)\([^()\n]*\)\n`)

// Println implements smtp.Logger.
func (j *journal) Println(args ...any) { j.Printf("%s", fmt.Sprintln(args...)) }

// logger is the library's.
func (j *journal) logger() *slog.Logger { return slog.New(records{j}) }

// records takes log records into a journal.
type records struct{ j *journal }

// Enabled implements slog.Handler.
func (r records) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (r records) Handle(_ context.Context, rec slog.Record) error {
	text := rec.Message
	rec.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "error", "reason":
			text += ": " + address.ReplaceAllString(a.Value.String(), "ADDRESS")
		}
		return true
	})
	r.j.add(text)
	return nil
}

// WithAttrs implements slog.Handler.
func (r records) WithAttrs([]slog.Attr) slog.Handler { return r }

// WithGroup implements slog.Handler.
func (r records) WithGroup(string) slog.Handler { return r }
