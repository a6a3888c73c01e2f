package proxytest

import (
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about what is kept of a session that is recorded, and how much.

// turns are what is kept of a session.
type turns struct {
	opening *turn           // the first: more of who has connected may come to light
	text    strings.Builder // those behind it of which all is known
	open    []*turn         // the others: that under way is the last one
	octets  int             // of them all
	full    bool            // there was more, which isn't kept
}

// maxRecording is how many octets are kept of a connection.
const maxRecording = 1 << 20

// turn is what the client does, and what comes of it.
type turn struct {
	client string        // its line as readClient reads it, or the beginning of it
	behind func() string // the rest, when that is known; may be nil

	verb    string                            // of what the server has got
	execute func(v *server) []smtpproxy.Reply // lets the fake server do the same
	answers []spoken                          // lines A:
	heard   []spoken                          // lines S:, H: and P:
	remarks []string
	octets  int
	over    bool
}

// spoken is a reply, or another line of what comes of a turn.
type spoken struct {
	who  string // what its lines begin with
	text string // without that
	code int
}

// gone is what a client does that does nothing more.
const gone = "(gone)"

// last returns the turn under way, nil if there is none.
func (ts *turns) last() *turn {
	if len(ts.open) == 0 {
		return nil
	}
	return ts.open[len(ts.open)-1]
}

// begin begins a turn.
func (ts *turns) begin(client string) *turn {
	t := &turn{client: client}
	if !ts.full {
		ts.open = append(ts.open, t)
		ts.grow(t, len("C: \n")+len(client))
	}
	return t
}

// grow counts octets that a turn has more. A turn with which it would be too much is
// dropped: half of one couldn't be played.
func (ts *turns) grow(t *turn, octets int) {
	if ts.full {
		return
	}
	ts.octets += octets
	if t.octets += octets; ts.octets > maxRecording {
		ts.drop()
		ts.full = true
	}
}

// drop forgets the turn under way.
func (ts *turns) drop() {
	ts.octets -= ts.last().octets
	ts.open[len(ts.open)-1] = nil
	ts.open = ts.open[:len(ts.open)-1]
}

// add adds what was spoken to a list of a turn's.
func (ts *turns) add(t *turn, list *[]spoken, s spoken) {
	ts.grow(t, len(s.text)+(strings.Count(s.text, "\r\n")+1)*len(s.who+"\n"))
	if !ts.full {
		*list = append(*list, s)
	}
}

// remark adds a remark to a turn.
func (ts *turns) remark(t *turn, text string) {
	if ts.grow(t, len("# \n")+len(text)); !ts.full {
		t.remarks = append(t.remarks, text)
	}
}

// settle writes down the turns, of which all is known now.
func (ts *turns) settle() {
	for i, t := range ts.open {
		ts.open[i] = nil
		if ts.opening == nil && ts.text.Len() == 0 {
			ts.opening = t
			continue
		}
		if t.behind != nil {
			if ts.octets += len(t.behind()); ts.octets > maxRecording {
				ts.full = true
				break
			}
		}
		t.writeTo(&ts.text)
	}
	ts.open = ts.open[:0]
}

// all returns what is kept, as lines of a file.
func (ts *turns) all() string {
	ts.settle()
	var b strings.Builder
	if ts.opening == nil {
		ts.opening = &turn{client: gone} // a file has something that happens
	}
	ts.opening.writeTo(&b)
	b.WriteString(ts.text.String())
	if ts.full {
		b.WriteString("# What came then is left out: with it, there would be more than 1 MiB.\n")
	}
	return b.String()
}

func (t *turn) writeTo(b *strings.Builder) {
	for _, s := range t.answers {
		s.writeTo(b)
	}
	b.WriteString("C: " + t.client)
	if t.behind != nil {
		b.WriteString(t.behind())
	}
	b.WriteString("\n")
	for _, text := range t.remarks {
		b.WriteString("# " + text + "\n")
	}
	for _, s := range t.heard {
		s.writeTo(b)
	}
}

func (s spoken) writeTo(b *strings.Builder) {
	for line := range strings.SplitSeq(s.text, "\r\n") {
		b.WriteString(s.who + line + "\n")
	}
}

// inOneLine returns what was spoken for a remark.
func inOneLine(all []spoken) string {
	var lines []string
	for _, s := range all {
		lines = append(lines, s.who+strings.ReplaceAll(s.text, "\r\n", ", "+s.who))
	}
	return strings.Join(lines, ", ")
}

// turn begins a turn, and ends the one before.
func (r *recording) turn(client string) *turn {
	r.endTurn()
	if !r.challenged { // else the user's name comes with the end of the exchange
		r.settle()
	}
	return r.begin(client)
}

// endTurn lets the fake server follow what the real one has replied, and notes what it has to
// be told to do the same.
func (r *recording) endTurn() {
	t := r.last()
	if t == nil || t.over {
		return
	}
	execute := t.execute
	t.over, t.execute = true, nil
	replies := slices.DeleteFunc(slices.Clone(t.heard), func(s spoken) bool { return s.who != byServer })
	if execute == nil || len(replies) == 0 {
		return
	}
	own := r.server
	switch good := execute(&own); {
	case slices.EqualFunc(good, replies, func(r smtpproxy.Reply, s spoken) bool { return r.String() == s.text }):
		r.server = own
	case len(good) > len(replies):
		// The connection has ended amid the statuses of an LMTP message. The fake server
		// has one for each recipient.
		r.server = own
		r.drop()
		r.remark(r.leave(), t.client+" has got "+inOneLine(replies)+" alone")
	default:
		var answered []smtpproxy.Reply
		for _, s := range replies {
			answered = append(answered, smtpproxy.Reply{Code: s.code})
			r.add(t, &t.answers, spoken{who: "A: " + t.verb + " ", text: s.text})
		}
		r.server.answers = &answers{byVerb: map[string][]smtpproxy.Reply{t.verb: answered}}
		execute(&r.server)
		r.server.answers = nil
	}
}

// isGone tells whether the client is gone in the turn under way.
func (r *recording) isGone() bool { return r.last() != nil && r.last().client == gone }

// leave returns the turn in which the client is gone, and begins it if there is none. It is the
// last one: what is behind it can't be played.
func (r *recording) leave() *turn {
	r.closed = true
	if r.isGone() {
		return r.last()
	}
	t := r.turn(gone)
	t.over = true
	return t
}

// lastWord remarks a reply that nothing had asked for.
func (r *recording) lastWord(x *smtpproxy.Exchange) {
	t := r.leave()
	r.remark(t, "the last word was "+inOneLine([]spoken{{who: r.by(x, "", ""), text: withoutSecrets(x)}}))
}
