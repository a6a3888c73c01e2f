package hooks_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/hooks"
)

// BenchmarkLimits is a command behind limits. The bench directory has the same on a connection.
func BenchmarkLimits(b *testing.B) {
	const all = 1 << 30
	for _, test := range []struct {
		name   string
		limits []hooks.Limit
	}{
		{"none", nil},
		{"connection", []hooks.Limit{{What: hooks.Commands, Max: all}}},
		{"connection, three", []hooks.Limit{{What: hooks.Commands, Max: all}, {What: hooks.Unauthenticated, Max: all}, {What: hooks.Time, Max: all}}},
		{"network", []hooks.Limit{{What: hooks.Commands, Per: hooks.PerNetwork, Max: all, Every: time.Hour}}},
		{"a hook that sees replies", nil},
		{"replies", []hooks.Limit{{What: hooks.Errors, Max: all}}},
	} {
		b.Run(test.name, func(b *testing.B) {
			hook := hooks.Limits{Limits: test.limits}.Hook()
			if test.name == "a hook that sees replies" {
				hook = smtpproxy.Funcs{OnReply: func(*smtpproxy.Context, smtpproxy.Exchange) (smtpproxy.Decision, error) { return nil, nil }}
			}
			p := &smtpproxy.Proxy{Hook: hook}
			s := p.NewSession(smtpproxy.Connection{})
			defer s.Close()
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, passed := s.Command(ctx, "NOOP").(smtpproxy.Pass); !passed {
					b.Fatal("refused")
				}
				s.Replied(250)
			}
		})
	}
}
