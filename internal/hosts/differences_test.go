package hosts

import (
	"slices"
	"strings"
	"testing"
)

// difference is one between a host and the same host behind the library that is
// meant to be.
type difference struct {
	name string
	why  string
	on   []string // the hosts where it occurs,
	or   []string // and where it may
	is   func(x exchange) bool

	relay bool // it is the relay's of this package alone
}

var everyHost = func() (names []string) {
	for _, h := range hosts {
		names = append(names, h.name)
	}
	return names
}()

var differences = []difference{
	{
		name: "RCPT or DATA without a transaction has another refusal",
		why:  "it is the library's own, 503",
		on:   everyHost,
		is: func(x exchange) bool {
			return (x.verb() == "RCPT" || x.verb() == "DATA") && x.front.code == 503 && negative(x.bare.code)
		},
	},
	{
		name: "RCPT, DATA or BDAT is refused though the host would go on with what it has kept",
		why:  "nobody but the host knows that it has kept it",
		on:   everyHost,
		is: func(x exchange) bool {
			refused := x.verb() == "RCPT" && x.front.code == 503 || x.verb() == "DATA" && (x.front.code == 503 || x.front.code == 502) ||
				x.verb() == "BDAT" && x.front.code == 502
			return refused && (positive(x.bare.code) || x.bare.code == 354)
		},
	},
	{
		name: "MAIL in a transaction is refused",
		why:  "RFC 5321 section 4.1.1.2; it is the library's own, 503",
		on:   everyHost,
		is:   func(x exchange) bool { return x.verb() == "MAIL" && x.front.code == 503 },
	},
	{
		name: "MAIL isn't refused for a transaction that the host has kept",
		why:  "the library has had it reset",
		on:   []string{bradfitzHost.name, chrjHost.name},
		or:   []string{goSMTPHost.name}, // amid chunks, behind EHLO that it has refused
		is: func(x exchange) bool {
			nested := strings.Contains(x.bare.text, "nested MAIL") || strings.Contains(x.bare.text, "Duplicate MAIL") ||
				strings.Contains(x.bare.text, "not allowed during message transfer")
			return x.verb() == "MAIL" && x.front.code != 503 && nested
		},
	},
	{
		name: "AUTH isn't refused for a transaction that the host has kept",
		why:  "the library has had it reset",
		on:   []string{mhaleHost.name},
		is: func(x exchange) bool {
			return x.verb() == "AUTH" && strings.Contains(x.bare.text, "not permitted during mail transaction")
		},
	},
	{
		name: "a line without a verb, or with a control character, is refused",
		why:  "some servers see a verb where the hook sees none; it is the library's own, 500",
		on:   everyHost,
		is: func(x exchange) bool {
			odd := x.line == "" || !isLetter(x.line[0]) || strings.ContainsRune(x.line, 0)
			return x.content == "" && odd && x.front.code == 500
		},
	},
	{
		name: "STARTTLS where the library has no TLS has another refusal",
		why:  "it is the library's own: behind the host's own the hook would be blind",
		on:   everyHost,
		is:   func(x exchange) bool { return strings.HasPrefix(x.line, "STARTTLS") && negative(x.front.code) },
	},
	{
		name: "BDAT without recipients has another refusal",
		why:  "it is the library's own, and go-smtp's, 502: the chunk has to be drained",
		on:   []string{mhaleHost.name, bradfitzHost.name, chrjHost.name},
		or:   []string{goLMTPHost.name, goLMTPEarlyHost.name, goSMTPHost.name}, // where it has kept some
		is: func(x exchange) bool {
			return x.verb() == "BDAT" && x.front.code == 502 && negative(x.bare.code)
		},
	},
	{
		name: "a last chunk that the host refuses once for all is refused for each recipient",
		why:  "RFC 2033 section 4.3",
		on:   []string{goLMTPHost.name, goLMTPEarlyHost.name},
		is: func(x exchange) bool {
			return x.host.lmtp && x.verb() == "BDAT" && x.bare.replies == 1 && negative(x.bare.code) && x.front.code == x.bare.code && x.front.replies > 1
		},
	},
	{
		name: "a chunk that the host refuses before it has read it closes the connection",
		why:  "nobody knows whether the chunk, or commands, are next; it comes to that only behind HELO, which tells no SIZE",
		or:   []string{goSMTPHost.name, goLMTPHost.name, goLMTPEarlyHost.name},
		is: func(x exchange) bool {
			return x.verb() == "BDAT" && x.front.code == x.bare.code && negative(x.front.code) && x.front.over
		},
	},
	{
		name: "a line that ends in LF alone is a command",
		why:  "the host is handed CRLF",
		on:   []string{bradfitzHost.name},
		is: func(x exchange) bool {
			return strings.HasSuffix(x.line, "\n") && strings.Contains(x.bare.text, "line doesn't end in")
		},
	},
	{
		name: "a refusal before the end of a message closes the connection",
		why:  "nobody knows what the host takes the rest for",
		on:   []string{mhaleHost.name, bradfitzHost.name},
		or:   []string{goLMTPHost.name, goLMTPEarlyHost.name}, // with refusals for all recipients, before the end
		is: func(x exchange) bool {
			return x.line == "" && x.content != "" && x.front.over && x.front.code == x.bare.code && negative(x.front.code)
		},
	},
	{
		name:  "a message in which a line may be the end is refused, where all statuses were told before",
		why:   "nobody knows what the host reads next, unless it reads while it writes: this relay doesn't look",
		on:    []string{goLMTPEarlyHost.name},
		relay: true,
		is: func(x exchange) bool {
			return x.host.early && x.content != "" && strings.HasPrefix(x.front.text, "421") && x.front.over
		},
	},
}

func (x exchange) verb() string { return verbOf(x.line) }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// enough is how many sessions it takes for each difference to occur.
const enough = 400

// compare plays some sessions on one host.
func compare(t *testing.T, h host, f front, relay bool, n int) {
	found, ex, messages := new(findings), make(map[string]int), 0
	for seed := range uint64(n) {
		problem, m := notice(t, seed, h, f, ex)
		found.add(seed, problem)
		messages += m
	}
	found.report(t, "with another transcript", n)
	if messages < n/4 {
		t.Errorf("only %d messages in %d sessions: the property says little", messages, n)
	}
	for _, d := range differences {
		times := ex[d.name]
		if times > 0 {
			t.Logf("%s (%s): %d times", d.name, d.why, times)
		}
		switch here := slices.Contains(d.on, h.name) && (relay || !d.relay); {
		case times > 0 && !here && !slices.Contains(d.or, h.name):
			t.Errorf("%s: that isn't listed for this host", d.name)
		case times == 0 && here && n >= enough:
			t.Errorf("%s: that is listed for this host, but has never occurred", d.name)
		}
	}
}

func TestNobodyNoticesTheLibraryInLockStep(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			compare(t, h, library(), false, sessions(enough))
		})
	}
}

func TestNobodyNoticesARelayThatObeysTheRulesInLockStep(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			compare(t, h, careful(rules{}), true, sessions(enough))
		})
	}
}
