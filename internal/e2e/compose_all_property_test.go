package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// member is a hook of a chain that is drawn: what it does at connect, with the keywords and
// with commands. The model below reads the same fields.
type member struct {
	refuses bool
	deletes []string
	does    string // "passes", "rewrites", "replies", "asks", "owns" or "fails"
	shown   []string
}

func (m *member) Connect(*hookContext, connection) (decision, error) {
	if m.refuses {
		return reply{Code: 554, Lines: []string{m.does}}, nil
	}
	return nil, nil
}

func (m *member) Keywords(_ *hookContext, _ connection, kw *keywords) error {
	for _, name := range m.deletes {
		kw.Delete(name)
	}
	return nil
}

func (m *member) Command(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	m.shown = append(m.shown, cmd.Line)
	switch {
	case cmd.SASL:
		return reply{Code: 235}, nil
	case m.does == "rewrites" && cmd.Verb() == "NOOP":
		return pass{Command: cmd.Line + "+"}, nil
	case m.does == "replies" && cmd.Verb() == "HELP":
		return reply{Code: 214}, nil
	case m.does == "asks":
		return pass{Next: true}, nil
	case m.does == "owns" && cmd.Verb() == "XOWN":
		return reply{Code: 334}, nil
	case m.does == "fails" && cmd.Verb() == "XFAIL":
		return nil, errTest
	}
	return nil, nil
}

// A chain may do all of it on one connection: refuse the client, close what it deletes,
// rewrite, reply, ask for lines, lead an exchange of its own, fail. What is shown, executed and
// replied, a model of a few lines tells.
func TestWhateverAChainDoesFromConnectOnNothingSlipsPastAndNothingIsLost(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 60
	}
	met := make(map[string]int)
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 15))
			members, hooks := drawMembers(r)
			s := behindListener(&smtpproxy.Proxy{Hook: smtpproxy.Chain(hooks...)}, servertest.Strict())
			c := s.connect(t, overTCP(t))
			var executed []string
			shown := make([][]string, len(members))
			if i := slices.IndexFunc(members, func(m *member) bool { return m.refuses }); i >= 0 {
				met["refused"]++
				c.expect("554 5.0.0 " + members[i].does)
				c.expectEnd()
			} else {
				c.expect("220")
				executed = talkTo(c, r, members, shown, met)
			}
			if got := s.Record().Commands; !slices.Equal(got, executed) {
				t.Errorf("executed %q, want %q", got, executed)
			}
			for i, m := range members {
				if !slices.Equal(m.shown, shown[i]) {
					t.Errorf("hook %d: shown %q, want %q", i, m.shown, shown[i])
				}
			}
		})
	}
	for _, what := range []string{"refused", "rewritten", "replied", "withheld", "owned", "failed", "executed"} {
		if met[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
}

func drawMembers(r *rand.Rand) (members []*member, hooks []smtpproxy.Hook) {
	for range 1 + r.IntN(4) {
		m := &member{refuses: r.IntN(12) == 0}
		m.does = []string{"passes", "rewrites", "replies", "asks", "owns", "fails"}[r.IntN(6)]
		for _, name := range []string{"VRFY", "SIZE", "CHUNKING"} {
			if r.IntN(4) == 0 {
				m.deletes = append(m.deletes, name)
			}
		}
		members, hooks = append(members, m), append(hooks, m)
	}
	return members, hooks
}

// talkTo leads a dialogue, and returns what the server has to have executed. It notes in
// shown what each hook has to have seen.
func talkTo(c *peer, r *rand.Rand, members []*member, shown [][]string, met map[string]int) (executed []string) {
	lines := []string{"EHLO a.example"}
	for i := range 12 {
		n := fmt.Sprint(" ", i)
		lines = append(lines, []string{"NOOP" + n, "VRFY" + n, "HELP" + n, "MAIL FROM:<a@b> SIZE=5", "MAIL FROM:<a@b>",
			"BDAT 0", "RSET", "XOWN" + n, "XFAIL" + n}[r.IntN(9)])
	}
	active, doubtful := false, false
	for _, line := range append(lines, "QUIT") {
		c.send(line + "\r\n")
		got := c.reply()
		left, code, by := decided(members, shown, line)
		met[by]++
		switch by {
		case "failed":
			c.expectCode(got, code)
			c.expectEnd()
			return executed
		case "owned":
			c.expectCode(got, code)
			c.send("secret\r\n")
			c.expectCode(c.reply(), "235")
			continue
		case "replied":
			c.expectCode(got, code)
			continue
		}
		if code = refusedAs(members, left, active); code != "" {
			met["withheld"]++
			c.expectCode(got, code)
			if strings.HasPrefix(line, "BDAT") && active {
				active, doubtful = false, true // a refused chunk ends the transaction
			}
			continue
		}
		met["executed"]++
		verb := strings.Fields(left)[0]
		if verb == "MAIL" && doubtful {
			executed = append(executed, "RSET") // the library's own, which nobody is shown
		}
		executed = append(executed, left)
		if verb == "MAIL" || verb == "RSET" {
			active, doubtful = verb == "MAIL", false
		}
	}
	return executed
}

// decided walks the chain: what the line is when it leaves the last hook, or the code of the
// reply, and by what that came.
func decided(members []*member, shown [][]string, line string) (left, code, by string) {
	verb := strings.Fields(line)[0]
	by = "passed"
	for i, m := range members {
		shown[i] = append(shown[i], line)
		switch {
		case m.does == "rewrites" && verb == "NOOP":
			line, by = line+"+", "rewritten"
		case m.does == "replies" && verb == "HELP":
			return "", "214", "replied"
		case m.does == "owns" && verb == "XOWN":
			// The answer to its challenge is for it alone.
			shown[i] = append(shown[i], "secret")
			return "", "334", "owned"
		case m.does == "fails" && verb == "XFAIL":
			return "", "421", "failed"
		}
	}
	return line, "", by
}

// refusedAs returns the code with which the library refuses a line, "" if it doesn't.
func refusedAs(members []*member, line string, active bool) string {
	deleted := func(name string) bool {
		return slices.ContainsFunc(members, func(m *member) bool { return slices.Contains(m.deletes, name) })
	}
	switch verb := strings.Fields(line)[0]; {
	case verb == "VRFY" && deleted("VRFY"), verb == "BDAT":
		return "502" // without a recipient, there is no chunk either
	case strings.Contains(line, "SIZE=") && deleted("SIZE"):
		return "555"
	case verb == "MAIL" && active:
		return "503"
	}
	return ""
}

func (p *peer) expectCode(got, code string) {
	p.t.Helper()
	if !strings.HasPrefix(got, code) {
		p.t.Errorf("the client got %q, want %s", got, code)
	}
}
