package hosts

import (
	"fmt"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file plays the random sessions of a property, and tells in which of them it
// doesn't hold.

// enoughClients is how many it takes to meet each quirk.
const enoughClients = 300

// forEachHost runs f for each host, each way to cut what is sent, and each
// transport, in parallel.
func forEachHost(t *testing.T, f func(t *testing.T, h host, c cut, tr transport, n int)) {
	for _, h := range hosts {
		for _, tr := range transports {
			for _, c := range []cut{whole, random, octets} {
				n := sessions(enoughClients)
				switch {
				case !tr.bubble && c != random:
					continue
				case !tr.bubble:
					n = sessions(5)
				case c == octets:
					n = sessions(80)
				}
				t.Run(fmt.Sprintf("%s, %s over %s", h.name, c, tr.name), func(t *testing.T) {
					t.Parallel()
					f(t, h, c, tr, n)
				})
			}
		}
	}
}

// findings are the sessions in which a property didn't hold.
type findings struct {
	seeds []uint64
	first string
}

func (f *findings) add(seed uint64, problem string) {
	if problem == "" {
		return
	}
	if f.seeds = append(f.seeds, seed); len(f.seeds) == 1 {
		f.first = problem
	}
}

func (f *findings) report(t *testing.T, which string, n int) {
	t.Helper()
	if len(f.seeds) > 0 {
		t.Errorf("%d of %d sessions %s, seeds %v; the first:\n%s", len(f.seeds), n, which, f.seeds[:min(10, len(f.seeds))], f.first)
	}
}

func settingsFor(tr transport, noBareNewlines bool) []func(*smtpproxy.Proxy) {
	var settings []func(*smtpproxy.Proxy)
	if tr.tls {
		settings = append(settings, implicitTLS)
	}
	if tr.starts {
		settings = append(settings, startTLS)
	}
	if noBareNewlines {
		settings = append(settings, rejectBareNewlines)
	}
	return settings
}
