package smtpproxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/timed"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// output is what the client gets: replies, cut out of what the server writes or given
// by hook and library, held together and sent once.
type output struct {
	writing sync.Mutex    // the token of who writes to the client; guards what follows
	reply   wire.Reply    // of the server's, as far as it is written
	partial buffer.Buffer // likewise
	held    buffer.Buffer // replies that wait for others, to leave together with them
	// kept are replies of the server's that the client gets later: those to a
	// message before its end, or a greeting that isn't 220 after STARTTLS.
	kept    buffer.Buffer
	timer   *time.Timer // sends what is held
	ticking bool        // timer runs
	failed  bool        // a reply couldn't be sent, or not as a whole
	lost    bool        // what the server writes is no dialogue any more

	holds atomic.Bool // there is something in held: for who hasn't the token
}

// next cuts the next reply off b, which begins with what is in partial. It returns
// nothing, and keeps b, if the reply isn't complete.
func (o *output) next(b []byte, limit int) (reply []byte, code int, err error) {
	n, code, err := o.reply.Next(b)
	switch {
	case err != nil, n > limit, n == 0 && len(b) > limit:
		return nil, 0, wire.ErrReply
	case n > 0:
		return b[:n], code, nil
	case o.partial.Len() > 0:
		o.partial.Skip(o.partial.Len() - len(b)) // b is its end
	default:
		o.partial.Put(b)
	}
	return nil, 0, nil
}

// add adds a reply, and returns what is to be written to the client now: it, and what was held
// before it, since the replies to a group of commands leave together. It returns nothing if the
// reply is held, too, and behind one that couldn't be written: the client would take the next one
// for it, or for its end. No reply is what is held alone. written follows the write.
func (o *output) add(reply []byte, hold bool) []byte {
	switch {
	case o.failed:
		return nil
	case hold && o.held.Len()+len(reply) <= maxHeld:
		o.held.Put(reply)
		o.holds.Store(true)
		return nil
	case o.held.Len() == 0:
		return reply
	}
	o.held.Put(reply)
	return o.held.Held()
}

// written notes that what add has returned was written, or couldn't be.
func (o *output) written(err error) {
	o.failed = err != nil
	if o.held.Len() > 0 {
		o.held.Release()
		o.holds.Store(false)
	}
}

// close sends the last word, if that takes no time to speak of: what is held, and, if
// the client hasn't had the greeting yet, that. Replies to a message that the server
// hasn't got are none.
func (o *output) close(client *timed.Conn, postponed bool) {
	if postponed {
		o.held.Put(o.kept.Held())
	}
	o.kept.Release()
	if o.held.Len() > 0 && !o.failed {
		client.LimitWrite(closeTime)
		client.Write(o.held.Held())
	}
	o.held.Release()
	if o.timer != nil {
		o.timer.Stop()
	}
}
