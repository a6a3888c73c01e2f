package hooks

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// The arithmetic of a bucket is that of a token bucket, as golang.org/x/time/rate has it.
func TestABucketHasTheTokensThatPackageRateSays(t *testing.T) {
	start := time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)
	taken, refused := 0, 0
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 0))
		b := &Bucket{Max: 1 + r.IntN(50)}
		per := time.Duration(1+r.IntN(1000)) * time.Microsecond
		b.Every = per * time.Duration(b.Max)
		other := rate.NewLimiter(rate.Every(per), b.Max)
		other.AllowN(start, 0)
		var l level
		now := int64(500)
		for range 200 {
			now += r.Int64N(int64(2 * per))
			if r.IntN(20) == 0 {
				now += int64(b.Every) * int64(r.IntN(3))
			}
			n := 1 + r.IntN(b.Max)
			if r.IntN(2) == 0 {
				n = 1
			}
			at := start.Add(time.Duration(now))
			had := other.TokensAt(at)
			if math.Abs(had-1) < 1e-6 || math.Abs(had-float64(n)) < 1e-6 {
				break // package rate rounds, and may be the one or the other
			}
			_, left := l.take(b, now, 0)
			if left != (had >= 1) {
				t.Fatalf("seed %d: %d every %v at %d: one is left: %v; package rate has %v", seed, b.Max, b.Every, now, left, had)
			}
			var ok bool
			if l, ok = l.take(b, now, n); ok != other.AllowN(at, n) {
				t.Fatalf("seed %d: %d every %v, %d at %d: %v; package rate has %v", seed, b.Max, b.Every, n, now, ok, had)
			}
			if ok {
				taken++
			} else {
				refused++
			}
		}
	}
	if taken < 10_000 || refused < 10_000 {
		t.Errorf("%d taken, %d refused: it says little", taken, refused)
	}
}

func TestWhatIsGivenBackIsThereAgainAndNoMore(t *testing.T) {
	for _, b := range []*Bucket{{Max: 3}, {Max: 3, Every: time.Hour}, {Max: 3, Every: 100}} {
		l, ok := level(0).take(b, 7, 3)
		if !ok {
			t.Fatalf("%+v: it isn't full at first", b)
		}
		if _, ok = l.take(b, 7, 1); ok {
			t.Errorf("%+v: there are four", b)
		}
		if l, ok = l.charge(b, 7, -1).take(b, 7, 1); !ok {
			t.Errorf("%+v: what was given back isn't there", b)
		}
		if l = l.charge(b, 7, -100); !l.fullAt(b, 7) {
			t.Errorf("%+v: it isn't full", b)
		}
		if _, ok = l.take(b, 7, 4); ok {
			t.Errorf("%+v: more than full", b)
		}
	}
}

func TestADebtIsPaidBeforeThereIsAnyTokenAgain(t *testing.T) {
	b := &Bucket{Max: 10, Every: 10 * time.Second}
	l := level(0).charge(b, 0, 25)
	for second := range int64(30) {
		_, left := l.take(b, second*1e9, 0)
		if want := second >= 16; left != want { // 15 of debt, and one
			t.Errorf("after %d s: %v", second, left)
		}
	}
	b.Every = 0
	l = level(0).charge(b, 0, 25)
	if _, left := l.charge(b, 0, -15).take(b, 0, 0); left {
		t.Error("10 of 10 are out, and there is one")
	}
	if _, left := l.charge(b, 0, -16).take(b, 0, 0); !left {
		t.Error("9 of 10 are out, and there is none")
	}
}

func TestNoNumberIsTooLarge(t *testing.T) {
	for _, b := range []*Bucket{
		{Max: 1}, {Max: math.MaxInt}, {Max: 1, Every: endless}, {Max: 1, Every: 1}, {Max: 7, Every: time.Hour},
	} {
		l := level(0)
		for range 100 {
			was := l
			if l = l.charge(b, 5, math.MaxInt); l < was {
				t.Fatalf("%+v: the debt of %d is one of %d", b, was, l)
			}
		}
		if _, ok := l.take(b, 5, 1); ok && b.Max < math.MaxInt/2 {
			t.Errorf("%+v: a token in spite of the debt", b)
		}
		for range 400 {
			l = l.charge(b, 5, -math.MaxInt)
		}
		if !l.fullAt(b, 5) {
			t.Errorf("%+v: all is given back, and %d is missing", b, l)
		}
	}
}

// As many as a bucket has room for are there at once, whatever the time of one is rounded to.
func TestABucketHasRoomForExactlyAsMuchAsItSays(t *testing.T) {
	for _, every := range []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour} {
		for _, m := range []int{1, 2, 3, 7, 10, 60, 97, 1000, 3333, 9999} {
			b := &Bucket{Max: m, Every: every}
			l, n := level(0), 0
			for ok := true; ok; n++ {
				l, ok = l.take(b, 11, 1)
			}
			if n-1 != m {
				t.Errorf("%d in %v: %d at once", m, every, n-1)
			}
		}
	}
}
