package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file holds that the view has a transaction only while the server surely has
// the same one, and that the server is reset before the next where it may have kept
// something of the last one.

// ending is a way in which a transaction ends, or doesn't. It follows MAIL and RCPT,
// in LMTP twice.
type ending struct {
	why   string
	greet string           // "" is EHLO
	codes map[string][]int // of the server, for what is said
	hook  string           // "VERB CODE": it answers
	say   []string
	want  []int // the codes that the client gets

	open  bool // the transaction is there as before
	reset bool // before the next one, the server has to forget it
}

var endings = []ending{
	// Each end of a message.
	{why: "a message is taken", say: []string{"DATA", "."}, want: []int{354, 250}},
	{why: "a message is refused for good", codes: map[string][]int{".": {550}}, say: []string{"DATA", "."}, want: []int{354, 550}, reset: true},
	{why: "a message is refused for now", codes: map[string][]int{".": {451}}, say: []string{"DATA", "."}, want: []int{354, 451}, reset: true},
	{why: "LMTP, all take it", greet: "LHLO", say: []string{"DATA", "."}, want: []int{354, 250, 250}},
	{why: "LMTP, the first refuses", greet: "LHLO", codes: map[string][]int{".": {550}}, say: []string{"DATA", "."}, want: []int{354, 550, 250}, reset: true},
	{why: "LMTP, the second refuses", greet: "LHLO", codes: map[string][]int{".": {250, 451}}, say: []string{"DATA", "."}, want: []int{354, 250, 451}, reset: true},
	{why: "LMTP, all refuse", greet: "LHLO", codes: map[string][]int{".": {550, 550}}, say: []string{"DATA", "."}, want: []int{354, 550, 550}, reset: true},
	{why: "LMTP, the first has 421", greet: "LHLO", codes: map[string][]int{".": {421, 250}}, say: []string{"DATA", "."}, want: []int{354, 421, 250}, reset: true},
	{why: "LMTP, the second has 421", greet: "LHLO", codes: map[string][]int{".": {250, 421}}, say: []string{"DATA", "."}, want: []int{354, 250, 421}, reset: true},
	{why: "a message in chunks is taken", say: []string{"BDAT 3", "BDAT 3 LAST"}, want: []int{250, 250}},
	{why: "an empty last chunk is taken", say: []string{"BDAT 3", "BDAT 0 LAST"}, want: []int{250, 250}},
	{why: "LMTP, chunks, all take it", greet: "LHLO", say: []string{"BDAT 3", "BDAT 3 LAST"}, want: []int{250, 250, 250}},
	{why: "LMTP, chunks, one refuses", greet: "LHLO", codes: map[string][]int{"BDAT": {250, 250, 550}}, say: []string{"BDAT 3", "BDAT 3 LAST"}, want: []int{250, 250, 550}, reset: true},
	{why: "LMTP, chunks, one has 421", greet: "LHLO", codes: map[string][]int{"BDAT": {250, 421, 250}}, say: []string{"BDAT 3", "BDAT 3 LAST"}, want: []int{250, 421, 250}, reset: true},

	// A refused chunk.
	{why: "the server refuses a chunk", codes: map[string][]int{"BDAT": {552}}, say: []string{"BDAT 3"}, want: []int{552}, reset: true},
	{why: "the server refuses the last chunk", codes: map[string][]int{"BDAT": {451}}, say: []string{"BDAT 3 LAST"}, want: []int{451}, reset: true},
	{why: "the server refuses a later chunk", codes: map[string][]int{"BDAT": {250, 552}}, say: []string{"BDAT 3", "BDAT 3", "BDAT 3 LAST"}, want: []int{250, 552, 502}, reset: true},
	{why: "LMTP, the server refuses a chunk", greet: "LHLO", codes: map[string][]int{"BDAT": {552}}, say: []string{"BDAT 3", "BDAT 3", "BDAT 3 LAST"}, want: []int{552, 502, 502, 502}, reset: true},
	{why: "the hook refuses a chunk", hook: "BDAT 450", say: []string{"BDAT 3"}, want: []int{450}, reset: true},
	{why: "the hook refuses the last chunk", hook: "BDAT 550", say: []string{"BDAT 3 LAST"}, want: []int{550}, reset: true},
	{why: "LMTP, the hook refuses the last chunk", greet: "LHLO", hook: "BDAT 550", say: []string{"BDAT 3 LAST"}, want: []int{550, 550}, reset: true},
	{why: "LMTP, the hook refuses all chunks", greet: "LHLO", hook: "BDAT 550", say: []string{"BDAT 3", "BDAT 0", "BDAT 3 LAST"}, want: []int{550, 550, 550, 550}, reset: true},
	{why: "the hook takes a chunk itself", hook: "BDAT 250", say: []string{"BDAT 3"}, want: []int{250}, reset: true},
	{why: "the hook takes the last chunk itself", hook: "BDAT 250", say: []string{"BDAT 3 LAST"}, want: []int{250}, reset: true},
	{why: "the library refuses a chunk, which is too large", say: []string{"BDAT 1001"}, want: []int{552}, reset: true},
	{why: "the library refuses the last chunk, which is too large", say: []string{"BDAT 999", "BDAT 2 LAST"}, want: []int{250, 552}, reset: true},
	{why: "LMTP, the library refuses the last chunk", greet: "LHLO", say: []string{"BDAT 1001 LAST"}, want: []int{552, 552}, reset: true},
	{why: "LMTP, the library refuses a chunk, and those behind", greet: "LHLO", say: []string{"BDAT 1001", "BDAT 3", "BDAT 3 LAST"}, want: []int{552, 502, 502, 502}, reset: true},

	// HELO, EHLO and LHLO.
	{why: "EHLO is accepted", say: []string{"EHLO y"}, want: []int{250}, reset: true},
	{why: "HELO is accepted", say: []string{"HELO y"}, want: []int{250}, reset: true},
	{why: "LHLO is accepted", greet: "LHLO", say: []string{"LHLO y"}, want: []int{250}, reset: true},
	{why: "EHLO is refused", codes: map[string][]int{"EHLO": {550}}, say: []string{"EHLO y"}, want: []int{550}, reset: true},
	{why: "HELO is refused", codes: map[string][]int{"HELO": {501}}, say: []string{"HELO y"}, want: []int{501}, reset: true},
	{why: "LHLO is refused", codes: map[string][]int{"LHLO": {500}}, say: []string{"LHLO y"}, want: []int{500}, reset: true},
	{why: "EHLO twice", say: []string{"EHLO y", "EHLO z"}, want: []int{250, 250}, reset: true},
	{why: "EHLO, then RSET", say: []string{"EHLO y", "RSET"}, want: []int{250, 250}},
	{why: "EHLO, then RSET, which is refused", codes: map[string][]int{"RSET": {550}}, say: []string{"EHLO y", "RSET"}, want: []int{250, 550}, reset: true},
	{why: "the hook accepts EHLO itself", hook: "EHLO 250", say: []string{"EHLO y"}, want: []int{250}, reset: true},
	{why: "the hook accepts HELO itself", hook: "HELO 250", say: []string{"HELO y"}, want: []int{250}, reset: true},
	{why: "the hook accepts LHLO itself", hook: "LHLO 250", greet: "LHLO", say: []string{"LHLO y"}, want: []int{250}, reset: true},
	{why: "the hook refuses EHLO", hook: "EHLO 550", say: []string{"EHLO y"}, want: []int{550}, open: true},

	// RSET.
	{why: "RSET is accepted", say: []string{"RSET"}, want: []int{250}},
	{why: "RSET is refused", codes: map[string][]int{"RSET": {550}}, say: []string{"RSET"}, want: []int{550}, open: true},
	{why: "the hook accepts RSET itself", hook: "RSET 250", say: []string{"RSET"}, want: []int{250}, reset: true},
	{why: "the hook refuses RSET", hook: "RSET 550", say: []string{"RSET"}, want: []int{550}, open: true},
	{why: "a message is refused, then RSET is", codes: map[string][]int{".": {550}, "RSET": {550}}, say: []string{"DATA", ".", "RSET"}, want: []int{354, 550, 550}, reset: true},
	{why: "a message is refused, then RSET is accepted", codes: map[string][]int{".": {550}}, say: []string{"DATA", ".", "RSET"}, want: []int{354, 550, 250}},
	{why: "a message is refused, then the hook accepts RSET itself", codes: map[string][]int{".": {550}}, hook: "RSET 250", say: []string{"DATA", ".", "RSET"}, want: []int{354, 550, 250}, reset: true},

	// What changes nothing.
	{why: "the server refuses DATA", codes: map[string][]int{"DATA": {554}}, say: []string{"DATA"}, want: []int{554}, open: true},
	{why: "the server refuses DATA for now", codes: map[string][]int{"DATA": {451}}, say: []string{"DATA"}, want: []int{451}, open: true},
	{why: "the hook refuses DATA", hook: "DATA 554", say: []string{"DATA"}, want: []int{554}, open: true},
	{why: "the hook accepts DATA itself", hook: "DATA 250", say: []string{"DATA"}, want: []int{250}, open: true},
	{why: "the library refuses DATA", say: []string{"DATA\x01"}, want: []int{500}, open: true},
	{why: "the server refuses a recipient", codes: map[string][]int{"RCPT": {550}}, say: []string{"RCPT TO:<n@n>"}, want: []int{550}, open: true},
	{why: "the library refuses a nested MAIL", say: []string{"MAIL FROM:<n@n>"}, want: []int{503}, open: true},
	{why: "commands that are about something else", codes: map[string][]int{"VRFY": {550}}, say: []string{"NOOP", "VRFY x", "HELP"}, want: []int{250, 550, 250}, open: true},
}

// begin greets, and opens a transaction.
func (e ending) begin(d door) {
	d.say(cmp.Or(e.greet, "EHLO") + " x")
	d.mail("MAIL FROM:<a@a>")
	d.say("RCPT TO:<b@b>")
	if e.greet == "LHLO" {
		d.say("RCPT TO:<c@c>")
	}
}

// answers is a hook that answers one verb, when it is armed, and keeps the
// transactions that it is told of.
type answers struct {
	verb  string
	code  int
	armed bool
	txns  []transaction
}

func (h *answers) Command(_ *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
	h.txns = append(h.txns, txn)
	if h.armed && cmd.Verb() == h.verb {
		return reply{Code: h.code}, nil
	}
	return nil, nil
}

func TestAViewHasATransactionOnlyWhileTheServerSurelyHasIt(t *testing.T) {
	for _, e := range endings {
		for name, open := range doors {
			t.Run(e.why+", "+name, func(t *testing.T) {
				hook := new(answers)
				fmt.Sscanf(e.hook, "%s %d", &hook.verb, &hook.code)
				pup := &puppet{}
				d := open(t, &smtpproxy.Proxy{Hook: hook}, pup)
				e.begin(d)
				before := d.session().Transaction()
				hook.armed, pup.codes = true, cloneCodes(e.codes)
				var got []int
				for _, line := range e.say {
					got = append(got, d.say(line)...)
				}
				hook.armed = false
				if !slices.Equal(got, e.want) {
					t.Fatalf("the client got %v, want %v", got, e.want)
				}
				after := d.session().Transaction()
				if after.Active != e.open || e.open && envelopeOf(after) != envelopeOf(before) || !e.open && envelopeOf(after) != "<>" {
					t.Errorf("the view has %v %s, before %s", after.Active, envelopeOf(after), envelopeOf(before))
				}
				if same := after.ID == before.ID; same != e.open {
					t.Errorf("the transaction's ID is that of before: %v", same)
				}
				if e.open {
					e.goOn(t, d, pup)
				} else {
					e.beginAnew(t, d, pup, hook)
				}
			})
		}
	}
}

// goOn adds to the transaction, which is there.
func (e ending) goOn(t *testing.T, d door, pup *puppet) {
	pup.took()
	if codes := d.say("RCPT TO:<d@d>"); codes[0] != 250 {
		t.Errorf("RCPT: %v", codes)
	}
	if codes := d.say("DATA"); codes[0] != 354 {
		t.Errorf("DATA: %v", codes)
	}
	d.say(".")
	if got := pup.took(); !slices.Equal(got, []string{"RCPT TO:<d@d>", "DATA"}) {
		t.Errorf("the server got %q", got)
	}
}

// beginAnew finds no transaction, and begins one.
func (e ending) beginAnew(t *testing.T, d door, pup *puppet, hook *answers) {
	pup.took()
	for line, want := range map[string]int{"RCPT TO:<d@d>": 503, "DATA": 503, "BDAT 3": 502, "BDAT 3 LAST": 502, "BDAT 0 LAST": 502} {
		if codes := d.say(line); !slices.Equal(codes, []int{want}) {
			t.Errorf("%s: %v", line, codes)
		}
	}
	if got := pup.took(); len(got) > 0 {
		t.Errorf("the server got %q", got)
	}
	if codes, reset := d.mail("MAIL FROM:<d@d>"); reset != e.reset || codes[0] != 250 {
		t.Errorf("MAIL: %v, the server has to forget its transaction: %v", codes, reset)
	}
	txn := d.session().Transaction()
	if told := hook.txns[len(hook.txns)-1]; told.ID != txn.ID || told.Active {
		t.Errorf("the hook was told of transaction %s, which is %s then", told.ID, txn.ID)
	}
	d.say("RCPT TO:<f@f>")
	if got := envelopeOf(d.session().Transaction()); got != "<d@d> <f@f>" {
		t.Errorf("the view has %s", got)
	}
	d.say("DATA")
	d.say(".")
	if _, reset := d.mail("MAIL FROM:<g@g>"); reset {
		t.Error("behind a message that was taken, the server is reset")
	}
}

func cloneCodes(codes map[string][]int) map[string][]int {
	clone := make(map[string][]int)
	for verb, c := range codes {
		clone[verb] = slices.Clone(c)
	}
	return clone
}

func envelopeOf(txn transaction) string {
	var to []string
	for _, r := range txn.Recipients.All() {
		to = append(to, r.Recipient)
	}
	return strings.TrimSpace(envelope(txn.Sender, to...))
}
