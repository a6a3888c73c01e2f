package hooks_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy/hooks"
)

func take(t testing.TB, s hooks.Store, b hooks.Bucket, n int) bool {
	t.Helper()
	ok, err := s.Take(context.Background(), b, n)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func charge(t testing.TB, s hooks.Store, b hooks.Bucket, n int) {
	t.Helper()
	if err := s.Charge(context.Background(), b, n); err != nil {
		t.Fatal(err)
	}
}

// bucketOf is a bucket of a client, among as many as one likes.
func bucketOf(client int) hooks.Bucket {
	return hooks.Bucket{What: hooks.Messages, Per: hooks.PerNetwork, Max: 2, Every: time.Hour, Who: fmt.Sprintf("2001:db8:%x:%x::/64", client>>16, client&0xffff)}
}

const million = 1_000_000

func TestABucketThatIsFullIsForgottenBeforeOneThatIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const few, many = 64 * 40, 64 * 100
		s := &hooks.MemoryStore{MaxBuckets: 2 * many}
		longer := func(client int) hooks.Bucket {
			b := bucketOf(client)
			b.Every = 100 * time.Hour
			return b
		}
		for i := range few {
			take(t, s, longer(i), 2)
		}
		for i := range many {
			take(t, s, bucketOf(i), 2)
		}
		time.Sleep(time.Hour) // these are full again
		for i := range many {
			take(t, s, bucketOf(many+i), 2)
		}
		forgotten := 0
		for i := range few {
			if take(t, s, longer(i), 0) {
				t.Errorf("client %d is forgotten", i)
			}
		}
		for i := range many {
			if take(t, s, bucketOf(many+i), 0) {
				forgotten++
			}
		}
		if forgotten > many/100 {
			t.Errorf("%d of %d are forgotten while there are others that are full", forgotten, many)
		}
	})
}

func TestWhoHasTakenLittleIsForgottenRatherThanWhoIsAtTheLimit(t *testing.T) {
	const n = 64 * 20
	s := &hooks.MemoryStore{MaxBuckets: 4 * n}
	limit := hooks.Bucket{What: hooks.Errors, Max: 100, Every: time.Hour}
	for i := range n {
		b := limit
		b.Who = fmt.Sprint("heavy ", i)
		charge(t, s, b, 200)
	}
	for i := range 100 * n { // a flood of clients with an error each
		b := limit
		b.Who = fmt.Sprint("light ", i)
		charge(t, s, b, 1)
	}
	forgotten := 0
	for i := range n {
		b := limit
		b.Who = fmt.Sprint("heavy ", i)
		if take(t, s, b, 0) {
			forgotten++
		}
	}
	if forgotten > n/100 {
		t.Errorf("of %d clients at the limit, a flood of others lets %d be forgotten", n, forgotten)
	}
}

func TestConnectionsThatAreThereAreNeverForgotten(t *testing.T) {
	s := &hooks.MemoryStore{MaxBuckets: 64}
	atOnce := func(i int) hooks.Bucket {
		return hooks.Bucket{What: hooks.Connections, Per: hooks.PerNetwork, Max: 1, Who: fmt.Sprint(i)}
	}
	const n = 10_000
	for i := range n {
		if !take(t, s, atOnce(i), 1) {
			t.Fatal("the first connection is refused")
		}
	}
	for i := range 10 * n {
		take(t, s, bucketOf(i), 1)
	}
	for i := range n {
		if take(t, s, atOnce(i), 1) {
			t.Fatalf("connection %d is forgotten", i)
		}
		charge(t, s, atOnce(i), -1)
		if !take(t, s, atOnce(i), 1) {
			t.Fatalf("connection %d is gone, and counted", i)
		}
	}
}

func TestBucketsThatDifferInAnythingAreDifferentOnes(t *testing.T) {
	first := hooks.Bucket{What: hooks.Errors, Per: hooks.PerNetwork, Max: 1, Every: time.Hour, Who: "a"}
	others := []hooks.Bucket{first, first, first, first, first, first}
	others[0].What, others[1].Per, others[2].Max, others[3].Every, others[4].Every, others[5].Who = hooks.Commands, hooks.PerLogin, 2, time.Minute, 0, "b"
	s := new(hooks.MemoryStore)
	charge(t, s, first, 5)
	texts := map[string]bool{first.String(): true}
	for _, b := range others {
		if !take(t, s, b, 1) {
			t.Errorf("%v is %v", b, first)
		}
		texts[b.String()] = true
	}
	if len(texts) != 7 {
		t.Errorf("some have the same text: %v", texts)
	}
}

func TestTokensAreTakenByOneAtATime(t *testing.T) {
	s := new(hooks.MemoryStore)
	const goroutines, limit = 100, 1000
	var got atomic.Int64
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range 100 {
				b := hooks.Bucket{What: hooks.Commands, Max: limit, Every: 1000 * time.Hour, Who: "all"}
				if take(t, s, b, 1) {
					got.Add(1)
				}
				take(t, s, bucketOf(g*100+i), 1)
			}
		})
	}
	wg.Wait()
	if got.Load() != limit {
		t.Errorf("%d of %d tokens were taken", got.Load(), limit)
	}
}

// BenchmarkMemoryStore asks for clients at random, of as many as are known.
func BenchmarkMemoryStore(b *testing.B) {
	for _, n := range []int{1, 1000, million} {
		b.Run(fmt.Sprintf("clients=%d", n), func(b *testing.B) {
			s := new(hooks.MemoryStore)
			who := make([]hooks.Bucket, n)
			for i := range who {
				who[i] = bucketOf(i)
				charge(b, s, who[i], 1)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				take(b, s, who[i], 0)
			}
		})
	}
}
