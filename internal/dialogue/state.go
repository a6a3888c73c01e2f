package dialogue

// State says who may send what next. All that a Read, a line or a reply needs to
// know of what came before is in it, but for counts.
//
// RFC 5321 section 4.1.4 and RFC 4954 section 4 give the order of commands. The
// states of a message, from Chunk to GivenUp, are told of in content.go.
type State uint8

const (
	// Greeting: the server owes its greeting.
	Greeting State = iota
	// Regreeting: the server owes the greeting of a fresh connection. The client
	// has had one.
	Regreeting
	// Restarting: likewise, but it is the reply to the client's command.
	Restarting
	// Postponed: the greeting that the client was not to get was a refusal. It gets that for whatever it
	// sends next.
	Postponed

	// Command: the client may send a command.
	Command
	// Response: the client may send a line of the server's SASL exchange.
	Response
	// OwnResponse: the client may send a line of the hook's SASL exchange.
	OwnResponse
	// StrayResponse: as Response, but the server may have given up its exchange,
	// and would take the line for a command.
	StrayResponse

	// Executing: the server has a command, and owes the reply.
	Executing
	// Cancelling: the server has "*", which takes its SASL exchange back. The
	// client doesn't see the reply.
	Cancelling
	// Resetting: the server has RSET, which takes a transaction back. The client
	// doesn't see the reply.
	Resetting
	// Reset: the server has been reset, and gets the MAIL command that waits for it.
	Reset

	// Chunk: the server reads a chunk (RFC 3030).
	Chunk
	// DropChunk: a chunk is read and dropped, whose command the server didn't get.
	DropChunk

	// Content: the server reads content, after 354.
	Content
	// MaybeEnd: it has what it may take for the end of the content.
	MaybeEnd
	// End: it has the end, and owes replies.
	End
	// Undecided: it has replied before the end. Whether it reads on while its Write
	// doesn't return will show.
	Undecided
	// ReadOn: it has given all replies, and reads on while its Write doesn't return.
	ReadOn
	// Surplus: it has given all replies, one of them positive, and seems to want the
	// rest.
	Surplus
	// Refusing: the library refuses the message. Its rest is dropped, then comes the
	// refusal.
	Refusing
	// Unwanted: the server has refused the message. Its rest is dropped, then all is
	// over.
	Unwanted
	// GivenUp: the server may have given up reading the message without a word.
	GivenUp

	// Handover: the server is about to get a fresh connection of the client, which
	// shakes hands, or which a hook has found to be another's.
	Handover
	// Closing: the library has sent the last reply, and closes.
	Closing
	// Over: nothing more.
	Over

	states = iota
)

var stateNames = [states]string{
	"Greeting", "Regreeting", "Restarting", "Postponed",
	"Command", "Response", "OwnResponse", "StrayResponse",
	"Executing", "Cancelling", "Resetting", "Reset",
	"Chunk", "DropChunk",
	"Content", "MaybeEnd", "End", "Undecided", "ReadOn", "Surplus", "Refusing", "Unwanted", "GivenUp",
	"Handover", "Closing", "Over",
}

// String returns the state's name.
func (s State) String() string { return stateNames[s] }

// HasEnded tells whether the dialogue is: the server gets nothing more, and what it
// writes is dropped.
func (s State) HasEnded() bool { return s >= Closing }

// OwesReply tells whether it is the server's turn, and a reply is all that can come
// of it.
func (s State) OwesReply() bool {
	switch s {
	case Greeting, Regreeting, Restarting, Executing, Cancelling, Resetting, End:
		return true
	}
	return false
}

// AwaitsLine tells whether the client's next line is what comes next.
func (s State) AwaitsLine() bool { return s >= Postponed && s <= StrayResponse }

// IsRead tells whether what comes next is a line of the client's, or content after 354. Chunks, and
// what nobody wants, are read by who handles them.
func (s State) IsRead() bool { return s.AwaitsLine() || s.IsContent() }

// IsContent tells whether the server reads the content of a message, after 354.
func (s State) IsContent() bool { return s == Content || s == ReadOn || s == Surplus }

// IsSASL tells whether the client's next line is no command but one of a SASL
// exchange.
func (s State) IsSASL() bool { return s == Response || s == OwnResponse || s == StrayResponse }
