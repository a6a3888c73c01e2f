package dialogue

import (
	"slices"
	"strings"
	"testing"
)

// FuzzMachine makes a dialogue of octets: the first is how it begins, each other is an
// input, if that may come. The books of random dialogues are kept there, too.
func FuzzMachine(f *testing.F) {
	for _, s := range all {
		if way, ok := s.fromGreeting(); ok {
			f.Add(append([]byte{0}, octets(way)...))
			// And on, wherever it leads.
			for _, list := range []string{"read, reply 550, reply 250, hand end", "hand maybe, reply 250, read, time up", "reply 250, reply 550, drop rest"} {
				f.Add(append(append([]byte{0}, octets(way)...), octets(list)...))
			}
		}
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 || len(script) > 1000 {
			return
		}
		o := observe(New(policies[int(script[0]/4)%len(policies)], Start{Relay: script[0]&1 == 0, TLS: script[0]&2 != 0}))
		script = script[1:]
		happened, err := play(o, len(script), func(m *Machine) *input {
			for len(script) > 0 {
				in := &inputs[int(script[0])%len(inputs)]
				script = script[1:]
				if in.kind != asking && in.mayCome(m) {
					return in
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v, behind:\n%s", err, strings.Join(happened, "\n"))
		}
	})
}

// fromGreeting returns all that leads to a situation from the greeting of a server behind
// the library, if it begins there.
func (s *situation) fromGreeting() (way string, ok bool) {
	for s.from != "" {
		way = s.way + ", " + way
		from := all[s.from]
		s = &from
	}
	return strings.Trim(strings.ReplaceAll(way, ", , ", ", "), ", "), s.start == Start{Relay: true} && way != ""
}

// octets returns what FuzzMachine takes for these inputs.
func octets(list string) (b []byte) {
	for _, in := range named(list) {
		i := slices.IndexFunc(inputs, func(other input) bool { return other.name == in.name })
		b = append(b, byte(i))
	}
	return b
}

// An octet is enough for all inputs.
func TestTheFuzzerReachesEachInput(t *testing.T) {
	if len(inputs) > 256 {
		t.Errorf("%d inputs", len(inputs))
	}
}
