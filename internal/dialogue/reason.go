package dialogue

// Refusal is a reply of the library's own.
type Refusal struct {
	Code     int
	Enhanced [3]int // RFC 3463
	Text     string
	// Disconnect: it is the last reply.
	Disconnect bool
}

// NoRefusal is that of a command which is not refused.
var NoRefusal Refusal

// Failed is the reply where the library, the hook or the server has failed. It tells
// a client nothing about the cause (RFC 5321 section 3.8).
var Failed = Refusal{421, [3]int{4, 3, 0}, "Service not available, closing transmission channel", true}

// Reason is why the library ends a connection.
type Reason uint8

const (
	NoReason Reason = iota
	AmbiguousEnd
	BareNewline
	BehindSTARTTLS
	ChunkSize
	HTTPRequest
	LongLine
	MalformedReply
	NotAccepted
	OutOfStep
	OutOfTurn
	RefusedEarly
	RefusedLine
	SASLGivenUp
	TLSUnasked
	TooLong
	TooMany
	TooSlow

	// Reasons is how many there are, NoReason included.
	Reasons = iota
)

var reasonTexts = [Reasons]string{
	AmbiguousEnd:   "ambiguous end of a message that is replied to",
	BareNewline:    "bare CR or LF in a message",
	BehindSTARTTLS: "input behind STARTTLS",
	ChunkSize:      "chunk of unknown size",
	HTTPRequest:    "HTTP",
	LongLine:       "line of a message too long",
	MalformedReply: "malformed reply from the server",
	NotAccepted:    "the server hasn't accepted the fresh connection",
	OutOfStep:      "reply that fits no command",
	OutOfTurn:      "command out of turn",
	RefusedEarly:   "message refused before its end",
	RefusedLine:    "line refused before its end",
	SASLGivenUp:    "response in a SASL exchange that the server may have given up",
	TLSUnasked:     "TLS without STARTTLS",
	TooLong:        "line too long",
	TooMany:        "too many commands, errors or chunks",
	TooSlow:        "client too slow",
}

// String returns the reason in words, for a log.
func (r Reason) String() string { return reasonTexts[r] }

// tooLongResponse is the reply to a line of a SASL exchange that is too long (RFC
// 4954 section 4).
var tooLongResponse = Refusal{500, [3]int{5, 5, 6}, "Too long line, closing connection", true}

// refusals are the last replies of connections that the library ends.
var refusals = [Reasons]Refusal{
	AmbiguousEnd:   Failed,
	BareNewline:    {550, [3]int{5, 6, 0}, "Message has a bare CR or LF", true},
	BehindSTARTTLS: {503, [3]int{5, 5, 1}, "Nothing may follow STARTTLS", true},
	ChunkSize:      {501, [3]int{5, 5, 4}, "Malformed BDAT command", true},
	HTTPRequest:    {502, [3]int{5, 5, 1}, "This is not an HTTP server", true},
	LongLine:       {550, [3]int{5, 6, 0}, "Message has a line that is too long", true},
	MalformedReply: Failed,
	NotAccepted:    {421, [3]int{4, 3, 2}, Failed.Text, true},
	OutOfStep:      Failed,
	OutOfTurn:      Failed,
	SASLGivenUp:    Failed,
	TLSUnasked:     {554, [3]int{5, 7, 0}, "TLS has not been started", true},
	TooLong:        {500, [3]int{5, 4, 0}, "Too long line, closing connection", true}, // go-smtp's
	// RFC 5321 section 4.5.3.2, RFC 3463 section 3.5.
	TooSlow: {421, [3]int{4, 4, 2}, "Too slow, closing connection", true},
}

// Refusal returns the last reply of a connection that ends for the reason.
func (r Reason) Refusal() Refusal { return refusals[r] }

// TLSRequired is the reply to a client that speaks SMTP where TLS comes first.
var TLSRequired = Refusal{554, [3]int{5, 7, 0}, "TLS required", true}

// Refusals of lines that the hook isn't asked about.
var (
	TooManyCommands  = tooMany("commands")
	ControlCharacter = refusal(500, 5, 5, 2, "Control character in command line")
)

// Refusals of what the client isn't offered, since a hook has deleted its keyword.
var (
	NotOffered      = refusal(502, 5, 5, 1, "Command not implemented")                     // RFC 5321 section 4.2.2
	ParamNotOffered = refusal(555, 5, 5, 4, "Parameter not recognized or not implemented") // RFC 5321 section 4.1.1.11
)

// Refusals of lines that the hook has passed. Codes and texts of those about BDAT are
// go-smtp's.
var (
	unrecognized       = refusal(500, 5, 5, 2, "Syntax error, command unrecognized")
	nestedMAIL         = refusal(503, 5, 5, 1, "Nested MAIL command")
	missingMAIL        = refusal(503, 5, 5, 1, "Missing MAIL command")
	missingTransaction = refusal(503, 5, 5, 1, "Missing MAIL and RCPT commands")
	missingRCPT        = refusal(502, 5, 5, 1, "Missing RCPT TO command.")
	tooManyParams      = refusal(555, 5, 5, 4, "Too many parameters")
	tooManyRecipients  = refusal(452, 4, 5, 3, "Too many recipients") // RFC 5321 section 4.5.3.1.10
	tooManyChunks      = tooMany("chunks")
	tooManyErrors      = tooMany("errors")
	tooLarge           = refusal(552, 5, 3, 4, "Max message size exceeded")
	missingTLS         = refusal(523, 5, 7, 10, "TLS is required") // RFC 5248 section 2.4
	paramOfSTARTTLS    = refusal(501, 5, 5, 4, "STARTTLS has no parameters")
	secondTLS          = refusal(503, 5, 5, 1, "Already running in TLS")
	noTLS              = refusal(502, 5, 5, 1, "TLS not supported")
	lateSTARTTLS       = refusal(503, 5, 5, 1, "STARTTLS not allowed after MAIL or AUTH")
	unavailableTLS     = refusal(454, 4, 7, 0, "TLS not available now") // RFC 3207 section 4
)

func refusal(code int, x, y, z int, text string) Refusal {
	return Refusal{code, [3]int{x, y, z}, text, false}
}

// tooMany returns the last reply to a client that has used up what it may.
func tooMany(what string) Refusal {
	return Refusal{421, [3]int{4, 7, 0}, "Too many " + what, true}
}
