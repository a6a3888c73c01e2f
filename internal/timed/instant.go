package timed

import (
	"cmp"
	"time"
)

// Instant is a point in time, in nanoseconds since epoch by the monotonic clock; 0
// is none. A time.Time takes three times the room, and a Conn has five.
type Instant int64

var epoch = time.Now()

// past interrupts whatever waits for it.
const past Instant = -longTime

// longTime, 73 years, is so far off that nobody waits for it, and so near that
// sums of instants don't overflow. (In a test with a clock of its own, now may be
// some decades before epoch.)
const longTime = 1 << 61

func now() Instant { return Instant(time.Since(epoch)) }

// FromNow returns the instant that is d from now.
func FromNow(d time.Duration) Instant {
	return cmp.Or(now()+Instant(min(max(d, -longTime), longTime)), 1)
}

// Until returns the time until i, which isn't 0.
func (i Instant) Until() time.Duration { return time.Duration(i - now()) }

// instantOf returns the instant of a deadline, and how far off it is.
func instantOf(t time.Time) (at Instant, after time.Duration) {
	switch {
	case t.IsZero():
		return 0, 0
	case t == t.Round(0):
		// Without a reading of the monotonic clock, it counts from now.
		after = time.Until(t)
		return FromNow(after), after
	}
	at = cmp.Or(Instant(t.Sub(epoch)), 1)
	return at, at.Until()
}

// time returns i as a deadline of a net.Conn. It passes some nanoseconds later, never
// earlier, by the wall clock as it is now too: a net.Conn may go by that.
func (i Instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	until := i.Until()
	return time.Now().Add(until)
}
