package hooks

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Store keeps the buckets of a [Limits] that are not of one connection alone. [MemoryStore]
// keeps them in memory. One that several servers share, in Redis say, can take its place.
//
// Each method is one atomic step, whoever else takes from the same bucket at the same time.
// A bucket that nobody has taken from is full, so a full one needs no room. The methods are
// called concurrently. An error tells that the store is away: nobody knows how many tokens
// there are then, and [Limits].OnAway decides. ctx ends when Limits.Timeout is over, and not
// when the client leaves: a client must not get around a limit by leaving. A method that
// goes on when ctx is done holds up the connection.
//
// A bucket is as good as one number, which a script of Redis's, say, can keep under the key
// [Bucket].String, to expire when it is full: of one that is refilled, the time at which it
// will be full; of one that isn't, how many tokens are out.
type Store interface {
	// Take takes n tokens out of b, if it has as many, and tells whether it had: with less,
	// it takes none. n is not negative; 0 takes none, and tells whether there is any.
	Take(ctx context.Context, b Bucket, n int) (ok bool, err error)

	// Charge takes n tokens in any case: a bucket may be in debt, which is paid as it is
	// refilled. A negative n gives tokens back, up to a full bucket.
	Charge(ctx context.Context, b Bucket, n int) error
}

// Bucket names a bucket of tokens, of which one is taken for whatever is counted. Buckets
// that differ in any field are different ones.
//
// It has room for Max tokens. If Every is more than 0, it is refilled, steadily: Max tokens
// in that time. If Every is 0 it is not, and who has taken a token gives it back: so
// connections are counted that are there at once. A store that outlives its clients has to
// forget by itself what one of them has taken that didn't live to give it back.
type Bucket struct {
	What  Counted
	Per   Per
	Max   int
	Every time.Duration

	// Who is whose bucket it is: the client's network, such as "192.0.2.1/32", the sender, or
	// the login, all letters in lower case; the ID of the connection, which no Store gets to
	// see; empty where all clients have the same. It may hold anything that a client can send, control
	// characters excepted, and be as long as a line.
	Who string
}

// String returns the bucket as a text, such as "messages/network/100/1h0m0s/192.0.2.1/32".
// Different buckets have different texts, so that it may serve as a key.
func (b Bucket) String() string {
	return fmt.Sprintf("%v/%v/%s/%v/%s", b.What, b.Per, strconv.Itoa(b.Max), b.Every, b.Who)
}
