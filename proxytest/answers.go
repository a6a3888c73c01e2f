package proxytest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/seed3262c777/smtpproxy"
)

// answers are what the test lets the fake server reply, by verb. They may be set and taken
// by several goroutines: a Server has the same for all its connections.
type answers struct {
	mu     sync.Mutex
	byVerb map[string][]smtpproxy.Reply
}

// take returns the next answer to a verb, if there is one; nil has none.
func (a *answers) take(verb string) (r smtpproxy.Reply, ok bool) {
	if a == nil {
		return r, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.byVerb[verb]
	if len(all) == 0 {
		return r, false
	}
	a.byVerb[verb] = all[1:]
	return all[0], true
}

// left returns how many answers are still to be taken, by verb.
func (a *answers) left() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := make(map[string]int)
	for verb, all := range a.byVerb {
		n[verb] = len(all)
	}
	return n
}

// add sets an answer. If it can't be one, it returns what is wrong with it.
func (a *answers) add(verb string, code int, lines []string) (mistake string) {
	if verb != connecting {
		verb = smtpproxy.Command{Line: verb}.Verb()
	}
	switch {
	case verb == "":
		return "Answer without a verb"
	case !mayAnswer(verb, code):
		return fmt.Sprintf("Answer to %s with code %d", verb, code)
	}
	if len(lines) == 0 {
		lines = []string{smtpproxy.Reply{Code: code}.String()[len("250 "):]}
	}
	for _, line := range lines {
		if strings.ContainsAny(line, "\r\n") {
			return "Answer with a line end in a line"
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byVerb == nil {
		a.byVerb = make(map[string][]smtpproxy.Reply)
	}
	a.byVerb[verb] = append(a.byVerb[verb], text(code, slices.Clone(lines)...))
	return ""
}

func mayAnswer(verb string, code int) bool {
	switch code / 100 {
	case 2, 4, 5:
		return verb != connecting || code/100 != 2 || code == 220
	}
	return verb == "AUTH" && code == 334 || verb == "DATA" && code == 354
}
