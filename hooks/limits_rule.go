package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file checks limits, and makes of them what a hook needs.

// limiter is what Limits comes to: it never changes.
type limiter struct {
	rules        []rule
	exempt       []netip.Prefix
	bits4, bits6 int
	store        Store
	onAway       func(ctx *smtpproxy.Context, err error) smtpproxy.Decision
	onBeyond     func(ctx *smtpproxy.Context, b Bucket)
}

// rule is a Limit, checked.
type rule struct {
	Limit
	beyond verdict
}

var errLimit = errors.New("smtpproxy/hooks: invalid limit")

func (l Limits) limiter() (*limiter, error) {
	h := &limiter{bits4: l.IPv4Bits, bits6: l.IPv6Bits, store: l.Store, onAway: l.OnAway, onBeyond: l.OnBeyond}
	if h.bits4 == 0 {
		h.bits4 = 32
	}
	if h.bits6 == 0 {
		h.bits6 = 64
	}
	if h.bits4 < 0 || h.bits4 > 32 || h.bits6 < 0 || h.bits6 > 128 {
		return nil, fmt.Errorf("%w: networks of %d and %d bits", errLimit, h.bits4, h.bits6)
	}
	for _, p := range l.Exempt {
		if !p.IsValid() {
			return nil, fmt.Errorf("%w: an exempt network that is none", errLimit)
		}
		h.exempt = append(h.exempt, p)
	}
	known := make(map[Bucket]bool)
	for _, limit := range l.Limits {
		r, err := limit.rule()
		if err == nil && known[r.bucket("")] {
			err = errors.New("the same twice")
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %v per %v: %w", errLimit, limit.What, limit.Per, err)
		}
		known[r.bucket("")] = true
		h.rules = append(h.rules, r)
	}
	switch s := l.Store.(type) {
	case nil:
		h.store = new(MemoryStore)
	case *MemoryStore:
	default:
		p := patient{s, l.Timeout}
		if p.limit <= 0 {
			p.limit = time.Second
		}
		if h.store = p; l.OnAway == nil {
			h.store = &reporting{Store: p}
		}
	}
	return h, nil
}

// rule checks a limit.
func (l Limit) rule() (rule, error) {
	r := rule{Limit: l}
	if err := makesSense(l.What, l.Per); err != nil {
		return r, err
	}
	switch {
	case l.Max < 1:
		return r, fmt.Errorf("a maximum of %d", l.Max)
	case l.Every < 0, l.Every > 0 && int64(l.Max) > int64(l.Every):
		return r, fmt.Errorf("%d every %v", l.Max, l.Every)
	case l.What == Time && int64(l.Max) > math.MaxInt64/int64(time.Second):
		return r, fmt.Errorf("%d seconds, which are too many", l.Max)
	case l.Every > 0 && l.What == Time:
		return r, errors.New("it isn't refilled")
	case l.Every == 0 && l.Per != PerConnection && l.What != Connections:
		return r, errors.New("it has to be refilled: Every is 0")
	}
	if l.Beyond == nil {
		l.Beyond = smtpproxy.Reply{Code: 421}
	}
	v, err := verdictOf(l.Beyond)
	if err == nil {
		err = v.fill(l.What)
	}
	r.beyond = v
	return r, err
}

// verdict is a decision, taken apart.
type verdict struct {
	refusal smtpproxy.Reply // unless it passes
	passes  bool
	delay   time.Duration
}

// closes tells whether it closes the connection.
func (v *verdict) closes() bool {
	return !v.passes && (v.refusal.Disconnect || v.refusal.Code == 421)
}

// verdictOf returns what a decision comes to that isn't nil, if it is one to refuse, or to
// pass as it is.
func verdictOf(d smtpproxy.Decision) (v verdict, err error) {
	switch d := d.(type) {
	case *smtpproxy.Reply:
		if d != nil {
			return verdictOf(*d)
		}
	case *smtpproxy.Pass:
		if d != nil {
			return verdictOf(*d)
		}
	case smtpproxy.Reply:
		if d.Code < 400 || d.Code > 599 || d.Next || d.Restart != nil {
			return v, fmt.Errorf("a reply of %d that doesn't refuse, or does more", d.Code)
		}
		return verdict{refusal: d, delay: d.Delay}, nil
	case smtpproxy.Pass:
		if d.Command != "" || d.Next {
			return v, errors.New("a Pass with more than a Delay")
		}
		return verdict{passes: true, delay: d.Delay}, nil
	}
	return v, fmt.Errorf("a decision that is a %T", d)
}

// fill fills in what a refusal because of too much of something leaves out, and tells whether it
// may be sent.
func (v *verdict) fill(c Counted) (err error) {
	if v.passes {
		return nil
	}
	r := &v.refusal
	if r.Enhanced == (smtpproxy.EnhancedCode{}) {
		r.Enhanced = smtpproxy.EnhancedCode{r.Code / 100, 7, 0}
	}
	if len(r.Lines) == 0 {
		r.Lines = []string{c.text()}
	}
	r.Lines = slices.Clone(r.Lines)
	// The library knows best what it sends.
	p := &smtpproxy.Proxy{
		Hook: smtpproxy.HookFunc(func(*smtpproxy.Context, smtpproxy.Command, smtpproxy.Connection, smtpproxy.Transaction) (smtpproxy.Decision, error) {
			return *r, nil
		}),
		OnFailure: func(_ *smtpproxy.Context, f smtpproxy.Failure) smtpproxy.Decision {
			err = f.Err
			return nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	s := p.NewSession(smtpproxy.Connection{})
	defer s.Close()
	s.Command(context.Background(), "NOOP")
	return err
}

// bucket names a bucket of the limit's.
func (r *rule) bucket(who string) Bucket {
	return Bucket{What: r.What, Per: r.Per, Max: r.Max, Every: r.Every, Who: who}
}

// atConnect tells whether it is known at connect whether the limit is exceeded.
func (r *rule) atConnect() bool { return r.What == Connections && r.Per != PerLogin }

// needsReplies tells whether the replies have to be seen for the limit.
func (r *rule) needsReplies() bool {
	switch r.What {
	case Errors, UnknownVerbs, WrongRecipients, FailedAUTH, Recipients, Messages, Octets:
		return true
	}
	return false
}

func (h *limiter) needs(something func(r *rule) bool) bool {
	for i := range h.rules {
		if something(&h.rules[i]) {
			return true
		}
	}
	return false
}
