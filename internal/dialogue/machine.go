// Package dialogue is the state machine of one client's dialogue with a server, and
// of what the library does between the two. It knows verbs, codes, sizes and counts;
// it does no I/O, looks at no clock, takes no lock and calls no user code.
//
// Its inputs are methods that say what has happened, and return what to do. Those
// that only ask change nothing.
package dialogue

import "math"

// Policy is what a Machine goes by that is the same for all connections. It never
// changes.
type Policy struct {
	OffersTLS   bool // the library offers STARTTLS
	ProtectAUTH bool // AUTH is neither offered nor passed without TLS
	SmallChunks int  // at most, in a message
	Recipients  int  // at most
	Commands    int  // at most, in a session
	Errors      int  // at most, in a session: see Admission.Nonsense
}

// SmallChunk is the size from which on a BDAT chunk is worth its command.
const SmallChunk = 1 << 10

// Unlimited is a limit that is none. It leaves room to add a line end.
const Unlimited = math.MaxInt - 2

// PathOctets is how many octets the command of a recipient may take in the mean: the
// limit of recipients is one of memory, too.
const PathOctets = 256

// Machine is where a dialogue is at. It is a value: a copy is another dialogue.
type Machine struct {
	policy *Policy
	size   int64 // the server's SIZE (RFC 1870), 0 if unlimited or unknown
	msg    message
	has    pending

	commands count
	errors   count

	state   State
	after   State  // follows Cancelling, DropChunk and Handover
	reason  Reason // why the library has ended the connection
	refusal Reason // why it ends the connection behind Refusing
	relay   bool   // the library stands in front of the server; never changes
	lmtp    bool
	tls     bool
	auth    bool
	asked   bool // the hook has asked for the next line
	// suspect: behind a failed AUTH, a command that nobody knows may be a secret.
	suspect bool
	// statuses: there may be another reply to the message that has just ended.
	statuses bool
	// reading: a Read of the server's is under way, and has got nothing yet.
	reading bool
	// more: the client has sent another whole line.
	more bool
	// partly: the server hasn't got the end of the line that it has.
	partly bool
}

// pending is the command that the server owes replies for.
type pending struct {
	size int64 // of a BDAT chunk; of another command
	due  int32 // how many they are
	verb Verb
	last bool // with it, the message ends: of BDAT, and of DATA behind 354
}

// message is what there is of a transaction, and of the message in it.
type message struct {
	octets      int64 // of the message in chunks (RFC 3030) so far
	chunk       int64 // octets of a chunk that are still to be read
	paths       int64 // octets of the commands of all recipients
	recipients  int32 // accepted
	smallChunks int32
	kept        int32 // replies to the message that the client gets behind its end
	// owed is how many replies an LMTP client counts on for the last chunk of a
	// message of which a chunk was refused; 0 stands for one.
	owed int32
	// status is the last reply to the last chunk, 0 if another goroutine of the
	// server's was reading at that time.
	status  int16
	active  bool // a MAIL command was accepted
	refused bool // a reply to the message was not 2xx
	atStop  bool // behind what some take for the end, the server has replied
	// doubtful: there is no transaction, but a server may have kept something of
	// the one before.
	doubtful bool
}

// count counts up to maxCount, and stays there.
type count int32

// maxCount is Unlimited where an int has 32 bits.
const maxCount = math.MaxInt32 - 2

func (n *count) add() {
	if *n < maxCount {
		*n++
	}
}

func (n count) exceeds(limit int) bool { return int(n) > limit }

// Start is where a dialogue begins.
type Start struct {
	Relay      bool // the library stands in front of the server
	LMTP       bool // LHLO was accepted
	TLS        bool
	Auth       bool // AUTH was accepted
	Active     bool // MAIL was accepted
	Recipients int  // accepted
}

// New returns a machine at its start.
func New(p *Policy, s Start) Machine {
	return Machine{
		policy: p, relay: s.Relay, lmtp: s.LMTP, tls: s.TLS, auth: s.Auth,
		msg: message{active: s.Active, recipients: int32(s.Recipients)},
	}
}

// State returns where the dialogue is at.
func (m *Machine) State() State { return m.state }

// IsRelay tells whether the library stands in front of the server.
func (m *Machine) IsRelay() bool { return m.relay }

// IsLMTP tells whether the client speaks LMTP (RFC 2033).
func (m *Machine) IsLMTP() bool { return m.lmtp }

// InTLS tells whether the client speaks inside TLS.
func (m *Machine) InTLS() bool { return m.tls }

// HoldsAUTH tells whether AUTH is neither offered nor passed, for want of TLS. Behind
// the library a server can't know, so the library keeps its policy.
func (m *Machine) HoldsAUTH() bool { return m.relay && !m.tls && m.policy.ProtectAUTH }

// WantsKeywords tells whether the reply that is due carries keywords.
func (m *Machine) WantsKeywords() bool {
	return m.state == Executing && (m.has.verb == EHLO || m.has.verb == LHLO)
}

// Greets tells whether the reply that is due is one to HELO, EHLO or LHLO.
func (m *Machine) Greets() bool { return m.state == Executing && m.has.verb.Greets() }

// IsMessage tells whether the reply that is due is one to a message: to the content behind
// 354, or to the last of its chunks. A chunk before that has one reply (RFC 3030 section 2),
// however many recipients there are.
func (m *Machine) IsMessage() bool { return m.has.last && m.state < Handover }

// InMessage tells whether the server has a message, or a chunk of one, or the command
// for it.
func (m *Machine) InMessage() bool { return m.has.verb == DATA || m.has.verb == BDAT }

// WantsRecipient tells whether a positive reply accepts a recipient.
func (m *Machine) WantsRecipient() bool { return m.state == Executing && m.has.verb == RCPT }

// ChunkLeft returns how many octets of a chunk are still to be read, or dropped, and
// whether it is the last one.
func (m *Machine) ChunkLeft() (left int64, last bool) { return m.msg.chunk, m.has.last }

// MayEndInChunk tells whether the command that the server would get next ends a
// message without more of its content: an empty last chunk.
func (m *Machine) MayEndInChunk() bool {
	return m.state == Executing && m.has.last && m.msg.octets > 0
}

// Secured notes that a connection begins inside TLS (RFC 8314).
func (m *Machine) Secured() { m.tls = true }

// SentAhead notes whether the client has sent another whole line.
func (m *Machine) SentAhead(more bool) { m.more = more }

// to moves the dialogue. There is no way back from its end.
func (m *Machine) to(s State) {
	if m.state < Closing || s == Over {
		m.state = s
	}
}

// end notes why the library ends the connection. The first reason counts.
func (m *Machine) end(r Reason) {
	if m.reason == NoReason {
		m.reason = r
	}
}

// Reason returns why the library has ended the connection.
func (m *Machine) Reason() Reason { return m.reason }

// HangUp notes that the library ends the connection, and returns its last reply.
func (m *Machine) HangUp(r Reason) Refusal {
	refusal := r.Refusal()
	if r == TooLong && m.state.IsSASL() {
		refusal = tooLongResponse
	}
	if !m.state.HasEnded() {
		m.end(r)
		m.to(Closing)
	}
	return refusal
}

// WriteFailed notes that a reply has not reached the client: it would take the next
// one for it, or for its end.
func (m *Machine) WriteFailed() { m.to(Closing) }

// Close notes that the connection is closed.
func (m *Machine) Close() { m.to(Over) }

// Finish notes that the server is told of the end. The client's connection is closed
// if the library ends it. inMessage tells that the server may wait for the end of a
// message, which it must not take this for.
func (m *Machine) Finish() (closes, inMessage bool) {
	closes = m.state == Closing
	m.to(Over)
	return closes, m.InMessage()
}
