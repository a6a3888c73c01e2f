package hosts

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file has the attacks that are known, one by one, against every host.

// victim is whom an attack is to reach. No client here writes to him.
const victim = "ceo@victim.example"

// toVictim are commands that would reach him. As content, its last line is the end.
const toVictim = "MAIL FROM:<evil@evil.example>\r\nRCPT TO:<" + victim + ">\r\nDATA\r\nx\r\n.\r\n"

// An attack is what a client sends behind MAIL and RCPT.
type attack struct {
	why    string
	on     func(h host) bool
	pieces []piece
	// smuggled: it has a bare CR or LF, so that some servers see the end of the
	// message. What is behind it are commands, unless Proxy.RejectBareNewlines is set.
	smuggled bool
}

const rejecting = "library that rejects bare newlines"

// late is longer than the hosts' patience, but not so long that it ends twice.
const late = 90 * time.Second

var attacks = []attack{
	{why: "the host refuses amid lines with dots, and the rest of the body follows", pieces: atOnce("DATA\r\n" + strings.Repeat(" .\r\n", 90) + toVictim)},
	{why: "the same with spaces that aren't ASCII", pieces: atOnce("DATA\r\n" + strings.Repeat(".\u00a0\r\n\u2003.\r\n", 90) + toVictim)},
	{why: "the same with lines of two dots", pieces: atOnce("DATA\r\n" + strings.Repeat("..\r\n", 90) + toVictim)},
	{why: "a line with a dot", pieces: atOnce("DATA\r\none\r\n .\r\n" + toVictim)},
	{why: "a line with a dot and a space that isn't ASCII", pieces: atOnce("DATA\r\none\r\n.\u00a0\r\n" + toVictim)},

	{why: "silence amid the message for longer than the host waits", pieces: withSilence("DATA\r\none\r\n", "RSET\r\n"+toVictim)},
	{why: "silence amid a line", pieces: withSilence("DATA\r\none", "\r\nRSET\r\n"+toVictim)},
	{why: "silence, and then another recipient", pieces: withSilence("DATA\r\none\r\n", "RCPT TO:<"+victim+">\r\nDATA\r\nx\r\n.\r\n")},
	{why: "silence behind a line with a dot", pieces: withSilence("DATA\r\n .\r\n", "RSET\r\n"+toVictim)},
	{why: "silence amid a chunk", on: onSMTPChunks, pieces: withSilence("BDAT 59 LAST\r\none\r\n", "RSET\r\n"+toVictim)},
	{why: "silence amid a SASL exchange", on: onAUTH, pieces: withSilence("RSET\r\nAUTH PLAIN\r\n", toVictim)},

	// As octal numbers, these are 30 and none.
	{why: "a chunk with a zero before its size", on: onChunks, pieces: atOnce("BDAT 036 LAST\r\nRSET\r\nRCPT TO:<" + victim + ">\r\n")},
	{why: "a chunk whose size is no octal number", on: onChunks, pieces: atOnce("BDAT 08 LAST\r\nRSET\r\n\r\n")},
	{why: "a chunk that the host doesn't know", on: func(h host) bool { return !h.chunks }, pieces: atOnce(fmt.Sprintf("BDAT %d LAST\r\n%s", len(toVictim), toVictim))},

	{why: "a message that the host refuses without reading it", on: onChunks, pieces: atOnce("DATA\r\n" + unreadWord + "\r\nRSET\r\n" + toVictim)},
	{why: "a chunk that the host refuses without reading it", on: onChunks, pieces: atOnce("BDAT 58 LAST\r\n" + unreadWord + "\r\nRCPT TO:<" + victim + ">")},

	{why: "LF . LF", pieces: atOnce("DATA\r\none\n.\n" + toVictim), smuggled: true},
	{why: "LF . CRLF", pieces: atOnce("DATA\r\none\n.\r\n" + toVictim), smuggled: true},
	{why: "CRLF . LF", pieces: atOnce("DATA\r\none\r\n.\n" + toVictim), smuggled: true},
	{why: "CR . CR", pieces: atOnce("DATA\r\none\r.\r" + toVictim), smuggled: true},
	{why: "CRLF . CR", pieces: atOnce("DATA\r\none\r\n.\r" + toVictim), smuggled: true},
	{why: "CRLF . CR CRLF", pieces: atOnce("DATA\r\none\r\n.\r\r\n" + toVictim), smuggled: true},
}

func atOnce(octets string) []piece { return []piece{{octets: octets}} }

func withSilence(before, after string) []piece {
	return []piece{{octets: before, pause: late}, {octets: after}}
}

func TestNoKnownAttackReachesItsVictim(t *testing.T) {
	for _, h := range hosts {
		for _, a := range attacks {
			if a.on != nil && !a.on(h) {
				continue
			}
			t.Run(h.name+", "+a.why, func(t *testing.T) {
				t.Parallel()
				for _, c := range []cut{whole, random, octets} {
					for name, f := range map[string]front{"library": library(), rejecting: library(rejectBareNewlines), "relay": careful(rules{})} {
						if a.smuggled && name != rejecting {
							continue
						}
						if problem := strike(t, h, a, c, f); problem != "" {
							t.Errorf("%s, cut %s: %s", name, c, problem)
						}
					}
				}
			})
		}
	}
}

// strike tells whether an attack succeeds.
func strike(t *testing.T, h host, a attack, c cut, f front) string {
	t.Helper()
	var events []event
	problem := memory.run(t, h.name+", "+a.why, func() string {
		s, err := raise(h, limits{size: 60, recipients: 5, timeout: time.Minute}, memory, f, true)
		if err != nil {
			return err.Error()
		}
		r := rand.New(rand.NewPCG(1, 4))
		// Apart from what follows: the library holds replies of a group for some
		// milliseconds, which don't pass while it holds a lock.
		begin := piece{fmt.Sprintf("%s x\r\nMAIL FROM:<s@example.com>\r\nRCPT TO:<r@example.org>\r\n", s.hello()), time.Second}
		for _, p := range append([]piece{begin}, a.pieces...) {
			if s.send(r, c, p.octets) != nil {
				break // the host has closed
			}
			time.Sleep(p.pause) // a bubble's: what was sent comes alone
		}
		time.Sleep(time.Second) // a bubble's: the host has read all
		_, problem := s.close()
		events = s.rec.all()
		return problem
	})
	for _, check := range []check{slipped, unlike} {
		if problem == "" {
			problem = check(h, events)
		}
	}
	for _, e := range events {
		if problem == "" && e.what == delivered && slices.Contains(e.msg.to, victim) {
			problem = fmt.Sprintf("delivered %v\n%s", e.msg, tale(events))
		}
	}
	return problem
}

// A host may give content up at a line that is too long for its buffer, without a
// word and without a read that fails, and take what is behind for commands. Nothing
// that the library sees tells it from a host that reads on. RFC 5321 section
// 4.5.3.1.6 has lines of 1,000 octets; no host here insists, but MaxTextLine does.
func TestAContentLineThatIsTooLongForAHostIsNoWayIn(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			came := 0
			for _, n := range []int{4000, 4094, 4096, 4097, 8192} {
				content := strings.Repeat("x", n) + "RCPT TO:<" + victim + ">\r\nDATA\r\nx\r\n.\r\n"
				for _, c := range []cut{whole, random, octets} {
					a := attack{pieces: atOnce("DATA\r\n" + content)}
					if problem := strike(t, h, a, c, library(limitTextLines)); problem != "" {
						t.Errorf("%d octets, cut %s, with MaxTextLine: %s", n, c, problem)
					}
					problem := strike(t, h, a, c, library())
					switch known := h.givesUpAt > 0 && n > h.givesUpAt-len("RCPT"); {
					case problem != "" && known:
						came++
					case problem != "":
						t.Errorf("%d octets, cut %s: %s", n, c, problem)
					}
				}
			}
			if h.givesUpAt > 0 && came == 0 {
				t.Errorf("the host is listed as one that gives up at a line of %d octets, but nothing came of it", h.givesUpAt)
			}
		})
	}
}
