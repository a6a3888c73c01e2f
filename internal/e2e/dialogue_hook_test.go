package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is the hook of a dialogue.

// dialogueHook decides as the dialogue says, passes everything else, and remembers
// what it was told.
type dialogueHook struct {
	passLog
	masked  []string // the same lines, without credentials
	told    []string // of transactions
	answers map[string]decision
}

func newDialogueHook(t *testing.T, d dialogue, server string) *dialogueHook {
	t.Helper()
	h := &dialogueHook{answers: make(map[string]decision)}
	text, ok := d.file("answers", server)
	if !ok {
		return h
	}
	for _, line := range lines(text) {
		to, answer, _ := strings.Cut(line, " => ")
		var err error
		if h.answers[to], err = decisionOf(answer); err != nil {
			t.Fatalf("answer %q: %v", line, err)
		}
	}
	return h
}

// decisionOf returns what a dialogue writes as a hook's answer: "PASS NOOP" and
// "550 5.7.1 text".
func decisionOf(answer string) (decision, error) {
	if line, ok := strings.CutPrefix(answer, "PASS "); ok {
		return pass{Command: line}, nil
	}
	code, text, _ := strings.Cut(answer, " ")
	r := reply{Enhanced: smtpproxy.NoEnhancedCode}
	var err error
	if r.Code, err = strconv.Atoi(code); err != nil {
		return nil, err
	}
	var e enhanced
	if n, _ := fmt.Sscanf(text, "%d.%d.%d", &e[0], &e[1], &e[2]); n == 3 {
		r.Enhanced = e
		_, text, _ = strings.Cut(text, " ")
	}
	r.Lines = []string{text}
	return r, nil
}

func (h *dialogueHook) Command(ctx *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, txn smtpproxy.Transaction) (smtpproxy.Decision, error) {
	if verb := cmd.Verb(); verb == "DATA" || verb == "BDAT" {
		var to []string
		for _, r := range txn.Recipients.All() {
			to = append(to, r.Recipient)
		}
		h.told = append(h.told, envelope(txn.Sender, to...))
	}
	h.masked = append(h.masked, cmd.String())
	h.passLog.Command(ctx, cmd, conn, txn)
	return h.answers[cmd.Line], nil
}
