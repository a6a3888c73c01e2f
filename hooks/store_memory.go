package hooks

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

// MemoryStore is a Store in memory. It never fails.
//
// It takes 64 octets for a bucket at most, whatever a client calls itself: of a bucket's
// name it keeps a hash of 64 bits, with a seed of its own. So one with the default of
// MaxBuckets has a million distinct clients in less than 64 MiB. Two of those share
// a bucket by accident in one of forty million stores.
//
// Where there is no more room, a full bucket goes first, of which nothing is lost, and then
// the one of some that would be full soonest: so who has a million addresses can make the
// store forget who has taken little, rather than who is at the limit. What counts
// connections that are there is never forgotten, and takes room beside MaxBuckets: 64 octets
// for each of them at most.
//
// The zero value is ready to use. It must not be copied, and serves any number of Limits at
// the same time.
type MemoryStore struct {
	// MaxBuckets bounds how many buckets are known that are refilled, within two in a hundred. 0
	// is 1 << 20. It must not be changed when the store is in use.
	MaxBuckets int

	once   sync.Once
	start  time.Time
	seed   maphash.Seed
	room   int // of a shard
	shards [1 << shardBits]shard
}

const (
	shardBits         = 6
	defaultMaxBuckets = 1 << 20
	mostLooked        = 16 // how many buckets are looked at to find one to forget
)

// shard is a part of a store, with a lock of its own. Buckets are there by their hashes.
type shard struct {
	mu       sync.Mutex
	refilled map[uint64]level
	out      map[uint64]level
	_        [40]byte // no two share a line of the cache
}

// Take implements Store.
func (m *MemoryStore) Take(_ context.Context, b Bucket, n int) (ok bool, err error) {
	s, hash, now := m.find(&b)
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.level(&b, hash)
	l, ok := was.take(&b, now, n)
	if l != was {
		m.put(s, &b, hash, l, now)
	}
	return ok, nil
}

// Charge implements Store.
func (m *MemoryStore) Charge(_ context.Context, b Bucket, n int) error {
	s, hash, now := m.find(&b)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.put(s, &b, hash, s.level(&b, hash).charge(&b, now, n), now)
	return nil
}

// find returns where a bucket is, and the time.
func (m *MemoryStore) find(b *Bucket) (s *shard, hash uint64, now int64) {
	m.once.Do(m.begin)
	hash = maphash.String(m.seed, b.Who)
	for _, v := range [...]uint64{uint64(b.What)<<32 | uint64(b.Per), uint64(b.Max), uint64(b.Every)} {
		hash = (hash ^ v) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return &m.shards[hash>>(64-shardBits)], hash, int64(time.Since(m.start))
}

func (m *MemoryStore) begin() {
	m.start, m.seed = time.Now(), maphash.MakeSeed()
	n := m.MaxBuckets
	if n <= 0 {
		n = defaultMaxBuckets
	}
	m.room = max(1, n>>shardBits)
}

// level returns a bucket's. Its caller holds the lock.
func (s *shard) level(b *Bucket, hash uint64) level {
	if b.Every > 0 {
		return s.refilled[hash]
	}
	return s.out[hash]
}

// put keeps a bucket's level. Its caller holds the lock.
func (m *MemoryStore) put(s *shard, b *Bucket, hash uint64, l level, now int64) {
	levels := &s.out
	if b.Every > 0 {
		levels = &s.refilled
	}
	if l.fullAt(b, now) {
		delete(*levels, hash)
		return
	}
	if *levels == nil {
		*levels = make(map[uint64]level)
	}
	if _, known := s.refilled[hash]; !known && b.Every > 0 {
		s.makeRoom(m.room, now)
	}
	(*levels)[hash] = l
}

// makeRoom forgets a bucket or several, if there is no room for one more: of some that are
// met from anywhere on all that are full, or else the one that would be soonest.
func (s *shard) makeRoom(room int, now int64) {
	if len(s.refilled) < room {
		return
	}
	var first uint64
	soonest, looked := level(0), 0
	for hash, l := range s.refilled {
		if int64(l) <= now {
			delete(s.refilled, hash)
		} else if soonest == 0 || l < soonest {
			first, soonest = hash, l
		}
		if looked++; looked == mostLooked {
			break
		}
	}
	if len(s.refilled) >= room {
		delete(s.refilled, first)
	}
}
