package dialogue

import "testing"

func TestTheLastReplyTellsAClientWhatItCanKnow(t *testing.T) {
	const failed = "Service not available, closing transmission channel"
	for _, tt := range []struct {
		reason Reason
		want   Refusal
		why    string
	}{
		{AmbiguousEnd, Refusal{421, [3]int{4, 3, 0}, failed, true}, "it's the server's failure"},
		{MalformedReply, Failed, "likewise"},
		{OutOfStep, Failed, "likewise"},
		{SASLGivenUp, Failed, "likewise"},
		{OutOfTurn, Failed, "RFC 5321 section 3.8"},
		{NotAccepted, Refusal{421, [3]int{4, 3, 2}, failed, true}, "RFC 5321 section 3.8"},
		{TooSlow, Refusal{421, [3]int{4, 4, 2}, "Too slow, closing connection", true}, "RFC 5321 section 4.5.3.2"},
		{BareNewline, Refusal{550, [3]int{5, 6, 0}, "Message has a bare CR or LF", true}, "the message will never be accepted"},
		{LongLine, Refusal{550, [3]int{5, 6, 0}, "Message has a line that is too long", true}, "likewise"},
		{BehindSTARTTLS, Refusal{503, [3]int{5, 5, 1}, "Nothing may follow STARTTLS", true}, "RFC 3207 section 4"},
		{ChunkSize, Refusal{501, [3]int{5, 5, 4}, "Malformed BDAT command", true}, "RFC 3030 section 2"},
		{HTTPRequest, Refusal{502, [3]int{5, 5, 1}, "This is not an HTTP server", true}, "it never will be"},
		{TLSUnasked, Refusal{554, [3]int{5, 7, 0}, "TLS has not been started", true}, "RFC 5321 section 3.1"},
		{TooLong, Refusal{500, [3]int{5, 4, 0}, "Too long line, closing connection", true}, "RFC 5321 section 4.5.3.1"},
		// What these are told, they are told elsewhere.
		{NoReason, NoRefusal, "the connection goes on"},
		{RefusedEarly, NoRefusal, "the server has refused the message"},
		{TooMany, NoRefusal, "it is told of what there is too many"},
	} {
		if r := tt.reason.Refusal(); r != tt.want {
			t.Errorf("reason %d: %v, want %v (%s)", tt.reason, r, tt.want, tt.why)
		}
	}
	for got, want := range map[Refusal]Refusal{
		NoRefusal:        {},
		TooManyCommands:  {421, [3]int{4, 7, 0}, "Too many commands", true},
		ControlCharacter: {500, [3]int{5, 5, 2}, "Control character in command line", false},
		ReadyForTLS:      {220, [3]int{}, "Ready to start TLS", false}, // RFC 3207 section 4
	} {
		if got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// Where a client may try again or go on, the code says so.
func TestARefusedCommandTellsWhy(t *testing.T) {
	for _, tt := range []struct {
		situation, input string
		want             Refusal
	}{
		{"Command", "pass word", Refusal{500, [3]int{5, 5, 2}, "Syntax error, command unrecognized", false}},
		{"Command", "pass STARTTLSX", Refusal{500, [3]int{5, 5, 2}, "Syntax error, command unrecognized", false}},
		{"Command", "pass STARTTLS x", Refusal{501, [3]int{5, 5, 4}, "STARTTLS has no parameters", false}},
		{"Command, TLS from the start", "pass STARTTLS", Refusal{503, [3]int{5, 5, 1}, "Already running in TLS", false}},
		{"Command, TLS isn't offered", "pass STARTTLS", Refusal{502, [3]int{5, 5, 1}, "TLS not supported", false}},
		{"Command, authenticated", "pass STARTTLS", Refusal{503, [3]int{5, 5, 1}, "STARTTLS not allowed after MAIL or AUTH", false}},
		{"Command", "pass STARTTLS and more", BehindSTARTTLS.Refusal()},
		{"Command, in a transaction", "pass MAIL", Refusal{503, [3]int{5, 5, 1}, "Nested MAIL command", false}},
		{"Command", "pass MAIL with many parameters", Refusal{555, [3]int{5, 5, 4}, "Too many parameters", false}},
		{"Command", "pass RCPT", Refusal{503, [3]int{5, 5, 1}, "Missing MAIL command", false}},
		{"Command, with all recipients", "pass RCPT", Refusal{452, [3]int{4, 5, 3}, "Too many recipients", false}},
		{"Command", "pass DATA", Refusal{503, [3]int{5, 5, 1}, "Missing MAIL and RCPT commands", false}},
		{"Command", "pass BDAT x", ChunkSize.Refusal()},
		{"Command, in a transaction", "pass BDAT 5", Refusal{502, [3]int{5, 5, 1}, "Missing RCPT TO command.", false}},
		{"Command, no more small chunks", "pass BDAT 5", Refusal{421, [3]int{4, 7, 0}, "Too many chunks", true}},
		{"Command, AUTH is held back", "pass AUTH", Refusal{523, [3]int{5, 7, 10}, "TLS is required", false}},
	} {
		m := at(tt.situation)
		if a := named(tt.input)[0].do(&m).(Admission); a.Do != Refuse || *a.Refusal != tt.want {
			t.Errorf("%s, %s: %+v", tt.situation, tt.input, a)
		}
	}
	m := at("Command, an error before")
	want := Refusal{421, [3]int{4, 7, 0}, "Too many errors", true}
	if o := m.Answered(Answer{Code: 500, Nonsense: true}); o.Instead == nil || *o.Instead != want {
		t.Errorf("%+v", o)
	}
	m = at("Command, with a recipient")
	m.size = 4
	want = Refusal{552, [3]int{5, 3, 4}, "Max message size exceeded", false}
	if a := m.Passed(chunk5, false, false); a.Refusal == nil || *a.Refusal != want {
		t.Errorf("%+v", a)
	}
	m = at("Handover")
	want = Refusal{454, [3]int{4, 7, 0}, "TLS not available now", false}
	if r := m.TLSRefused(); r != want {
		t.Errorf("%+v", r)
	}
}

func TestTheFirstReasonCounts(t *testing.T) {
	m := at("Command")
	m.HangUp(TooSlow)
	m.HangUp(TooMany)
	if m.Reason() != TooSlow {
		t.Errorf("reason %d", m.Reason())
	}
}

func TestALineThatIsTooLongIsToldWhatItIs(t *testing.T) {
	for _, tt := range []struct {
		situation string
		enhanced  [3]int
		why       string
	}{
		{"Command", [3]int{5, 4, 0}, "go-smtp's"},
		{"Response", [3]int{5, 5, 6}, "RFC 4954 section 4"},
		{"OwnResponse", [3]int{5, 5, 6}, "RFC 4954 section 4"},
		{"StrayResponse", [3]int{5, 5, 6}, "RFC 4954 section 4"},
	} {
		m := at(tt.situation)
		if r, want := m.HangUp(TooLong), (Refusal{500, tt.enhanced, "Too long line, closing connection", true}); r != want || m.state != Closing {
			t.Errorf("%s: %v at %v (%s)", tt.situation, r, m.state, tt.why)
		}
	}
	m := at("Response")
	if r := m.HangUp(TooSlow); r != TooSlow.Refusal() {
		t.Errorf("too slow: %v", r)
	}
}

// A chunk without a size is the end whatever else there is too much of.
func TestWhyAConnectionEndsWithAnAnswer(t *testing.T) {
	for _, tt := range []struct {
		why     string
		policy  Policy
		answer  Answer
		reason  Reason
		instead int
	}{
		{"the hook ends it", Policy{Errors: 1}, Answer{Code: 550, Disconnect: true}, NoReason, 0},
		{"HTTP", Policy{Errors: 1}, Answer{Line: Line{Verb: HTTP}, Code: 502, Disconnect: true, Reason: HTTPRequest}, HTTPRequest, 0},
		{"one error too many", Policy{}, Answer{Code: 500, Nonsense: true}, TooMany, 421},
		{"the size of a chunk", Policy{Errors: 1}, Answer{Line: malformed, Code: 501, Nonsense: true}, ChunkSize, 0},
		{"the size of a chunk, and one error too many", Policy{}, Answer{Line: malformed, Code: 501, Nonsense: true}, ChunkSize, 421},
	} {
		m := commandTurn(&tt.policy, Start{Relay: true})
		if o := m.Answered(tt.answer); !o.Disconnect || codeOf(o.Instead) != tt.instead || o.Discard != 0 || m.Reason() != tt.reason || m.state != Closing {
			t.Errorf("%s: %+v, reason %d, at %v", tt.why, o, m.Reason(), m.state)
		}
	}
}

// In the middle of a message, an io.EOF would tell some servers that it is complete.
func TestAServerIsToldThatAMessageIsCutOff(t *testing.T) {
	for _, tt := range []struct {
		situation, way    string
		closes, inMessage bool
	}{
		{"Content", "hang up", true, true},
		{"Content", "close", false, true},
		{"Executing DATA", "reply 421", false, true},
		{"Chunk", "reply 250", true, true},
		{"Executing BDAT", "hang up", true, true},
		{"End", "reply 550, hang up", true, false},
		{"Executing QUIT", "reply 221", false, false},
		{"Executing MAIL", "hang up", true, false},
		{"Command", "close", false, false},
		{"Surplus", "hand maybe", true, true},
	} {
		m := after(tt.situation, tt.way)
		closes, inMessage := m.Finish()
		if closes != tt.closes || inMessage != tt.inMessage || m.state != Over {
			t.Errorf("%s, %s: closes %v, in message %v, at %v", tt.situation, tt.way, closes, inMessage, m.state)
		}
		if closes, _ := m.Finish(); closes {
			t.Errorf("%s, %s: closes twice", tt.situation, tt.way)
		}
	}
}
