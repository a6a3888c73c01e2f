package timed

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestEveryDeadlineIsAnInstant(t *testing.T) {
	check := func(t *testing.T) {
		for _, c := range []struct {
			deadline time.Time
			until    time.Duration // 0: none
		}{
			{time.Time{}, 0},
			{time.Now().Add(time.Hour), time.Hour},
			{time.Now().Add(-time.Hour), -time.Hour},
			{time.Now().Add(time.Hour).Round(0), time.Hour}, // without the monotonic clock
			{time.Unix(1, 0), -20 * 365 * 24 * time.Hour},
			{time.Time{}.Add(1), -longTime}, // as long ago as can be
			{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), longTime},
		} {
			at, after := instantOf(c.deadline)
			switch got := at.time(); {
			case c.until == 0:
				if at != 0 || !got.IsZero() {
					t.Errorf("no deadline: %v", got)
				}
			case c.until < 0 && max(at.Until(), after, time.Until(got)) > c.until+time.Second,
				c.until > 0 && min(at.Until(), after, time.Until(got)) < c.until-time.Second:
				t.Errorf("%v: %v, in %v, after %v", c.deadline, got, at.Until(), after)
			}
		}
		if past.Until() > -time.Hour || !past.time().Before(time.Now()) {
			t.Errorf("the past is in %v", past.Until())
		}
	}
	t.Run("real clock", check)
	t.Run("test's clock", func(t *testing.T) { synctest.Test(t, check) })
}

func TestAnInstantIsAsFarFromNowAsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			why        string
			ask, until time.Duration
		}{
			{"in an hour", time.Hour, time.Hour},
			{"an hour ago", -time.Hour, -time.Hour},
			{"now", 0, 0},
			{"so far off that a sum could overflow", 1<<63 - 1, longTime},
			{"as long ago", -1 << 63, -longTime},
		} {
			i := FromNow(tt.ask)
			if got := i.Until(); got != tt.until {
				t.Errorf("%s: in %v, want %v", tt.why, got, tt.until)
			}
			time.Sleep(time.Minute) // a bubble's
			if got := i.Until(); got != tt.until-time.Minute {
				t.Errorf("%s: a minute later in %v, want %v", tt.why, got, tt.until-time.Minute)
			}
		}
	})
}

// 0 would be none.
func TestNoInstantIsZeroButThatOfNoDeadline(t *testing.T) {
	if i, _ := instantOf(epoch); i == 0 {
		t.Error("the epoch is no instant")
	}
	// In a bubble the clock stands still between the two calls of now.
	synctest.Test(t, func(t *testing.T) {
		if i := FromNow(time.Duration(-now())); i == 0 {
			t.Error("what is at the epoch is no instant")
		}
	})
}
