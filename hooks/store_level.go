package hooks

import (
	"math"
	"math/bits"
)

// This file is the arithmetic of buckets: how many tokens there are, in one number.

// level tells how full a bucket is. Of one that is refilled it is the time at which that
// will be full, in nanoseconds from a time that is the same for all: each token taken puts
// that off by the time in which one is refilled (the generic cell rate algorithm). Of one
// that isn't, it is how many tokens are out. Either way 0 is full, and less is no more than that.
type level int64

// fullAt tells whether a bucket is full now, so that nothing has to be known of it.
func (l level) fullAt(b *Bucket, now int64) bool {
	if b.Every > 0 {
		return int64(l) <= now
	}
	return l <= 0
}

// take takes n tokens if there are as many; 0 asks whether there is one.
func (l level) take(b *Bucket, now int64, n int) (level, bool) {
	after := l.charge(b, now, max(n, 1))
	out, room := int64(after), int64(b.Max)
	if b.Every > 0 {
		out, room = out-now, int64(b.Every)
	}
	switch {
	case out > room:
		return l, false
	case n <= 0:
		return l, true
	}
	return after, true
}

// charge takes n tokens, or gives back as many if n is negative.
func (l level) charge(b *Bucket, now int64, n int) level {
	if b.Every <= 0 {
		now = 0
	}
	from := max(int64(l), now)
	if n < 0 {
		return level(from - b.cost(-n))
	}
	return level(min(from, endless) + b.cost(n))
}

// endless is a debt that nobody lives to see paid: 73 years.
const endless = math.MaxInt64 / 4

// cost is what n tokens are in a level, to the nanosecond below.
func (b *Bucket) cost(n int) int64 {
	if b.Every <= 0 {
		return min(int64(n), endless)
	}
	high, low := bits.Mul64(uint64(n), uint64(b.Every))
	if high >= uint64(b.Max) {
		return endless
	}
	cost, _ := bits.Div64(high, low, uint64(b.Max))
	return int64(min(cost, endless))
}
