package dialogue

import (
	"slices"
	"testing"
)

// at returns a machine that is in one of the table's situations.
func at(situation string) Machine {
	s, ok := all[situation]
	if !ok {
		panic("there is no situation " + situation)
	}
	return s.machine()
}

// after returns a machine to which inputs have happened.
func after(situation, way string) Machine {
	m := at(situation)
	for _, in := range named(way) {
		apply(&m, &in)
	}
	return m
}

func TestADialogueBeginsAsItIsTold(t *testing.T) {
	for _, s := range []Start{
		{},
		{Relay: true},
		{LMTP: true, TLS: true, Auth: true},
		{Relay: true, Active: true, Recipients: 3},
	} {
		m := New(&limits, s)
		if m.State() != Greeting || m.IsRelay() != s.Relay || m.IsLMTP() != s.LMTP || m.InTLS() != s.TLS || m.auth != s.Auth ||
			m.msg.active != s.Active || int(m.msg.recipients) != s.Recipients || m.Reason() != NoReason || m.policy != &limits {
			t.Errorf("%+v: %+v", s, m)
		}
	}
}

func TestWhatAReplyIsNeededFor(t *testing.T) {
	for _, tt := range []struct {
		situation           string
		keywords, recipient bool
		why                 string
	}{
		{"Executing EHLO", true, false, "RFC 5321 section 4.1.1.1"},
		{"Executing LHLO", true, false, "RFC 2033 section 4.1"},
		{"Executing HELO", false, false, "HELO has none"},
		{"Executing RCPT", false, true, "RFC 5321 section 4.1.1.3"},
		{"Executing MAIL", false, false, "a sender is none"},
		{"Command, greeted", false, false, "no reply is due"},
		{"Command, with a recipient", false, false, "likewise"},
	} {
		m := at(tt.situation)
		if m.WantsKeywords() != tt.keywords || m.WantsRecipient() != tt.recipient {
			t.Errorf("%s: keywords %v, recipient %v (%s)", tt.situation, m.WantsKeywords(), m.WantsRecipient(), tt.why)
		}
	}
	for _, end := range []string{"hang up", "close"} {
		if m := after("Executing EHLO", end); m.WantsKeywords() {
			t.Errorf("%s: nobody gets the keywords", end)
		}
		if m := after("Executing RCPT", end); m.WantsRecipient() {
			t.Errorf("%s: nobody gets the recipient", end)
		}
	}
}

func TestWhichReplyIsOneToAMessage(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		want           bool
		why            string
	}{
		{"Executing DATA", "read", false, "354 is due, or a refusal of the command"},
		{"Content", "read", true, "the message is what it refuses"},
		{"End", "read", true, "it has the whole"},
		{"Content", "hand end, reply 250", false, "the reply was there"},
		{"Chunk", "read", false, "others follow, and it has one reply of its own (RFC 3030 section 2)"},
		{"Chunk", "read fails", false, "likewise"},
		{"Chunk, the last in LMTP", "read", true, "with it, the message ends"},
		{"Chunk, the last in LMTP", "hand chunk", true, "it has the whole"},
		{"DropChunk", "drop part", false, "the server doesn't get it"},
		{"Executing NOOP", "read", false, "another command"},
		{"Content", "close", false, "no reply is due any more"},
		{"Executing BDAT, no relay", "reply 250, pass BDAT 0 LAST, reply 334", false, "a server of one's own has begun an exchange"},
	} {
		if m := after(tt.situation, tt.way); m.IsMessage() != tt.want {
			t.Errorf("%s, %s: %v (%s)", tt.situation, tt.way, m.IsMessage(), tt.why)
		}
	}
}

func TestHowMuchOfAChunkIsLeft(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		left           int64
		last           bool
		why            string
	}{
		{"Chunk", "read", 5, false, "nothing has been read"},
		{"Chunk", "hand part of chunk", 3, false, "two octets have"},
		{"Chunk", "hand part of chunk, hand chunk", 0, false, "all has"},
		{"Chunk, the last in LMTP", "read", 5, true, "it's the last chunk"},
		{"DropChunk", "drop part", 3, false, "two octets have been dropped"},
	} {
		m := after(tt.situation, tt.way)
		if left, last := m.ChunkLeft(); left != tt.left || last != tt.last {
			t.Errorf("%s, %s: %d, %v (%s)", tt.situation, tt.way, left, last, tt.why)
		}
	}
}

func TestAnEmptyLastChunkEndsAMessage(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		want           bool
		why            string
	}{
		{"Command, behind a chunk", "pass BDAT 0 LAST", true, "content has come before"},
		{"Command, with a recipient", "pass BDAT 0 LAST", false, "none has"},
		{"Command, behind a chunk", "pass BDAT 5 LAST", false, "the rest comes in the chunk"},
		{"Command, behind a chunk", "pass BDAT 5, hand chunk", false, "it isn't the last"},
		{"Command, behind a chunk", "pass NOOP", false, "another command"},
		{"Command, behind a chunk", "pass BDAT 0 LAST, close", false, "all is over"},
	} {
		if m := after(tt.situation, tt.way); m.MayEndInChunk() != tt.want {
			t.Errorf("%s, %s: %v (%s)", tt.situation, tt.way, m.MayEndInChunk(), tt.why)
		}
	}
}

func TestAReadIsUnderWayUntilTheServerGetsSomething(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		want           bool
	}{
		{"Command", "reply 421", false},
		{"Command", "read", true},
		{"Command", "read, answer NOOP 250", true},
		{"Command", "read, pass NOOP", false},
		{"Command", "read, pass MAIL with many parameters", true},
		{"Command", "read, pass NOOP, reply 250", false},
		{"Command", "read, pass NOOP, read, reply 250", true},
		{"Command", "read, read fails", false},
		{"Command, doubtful", "read, pass MAIL", false},
		{"Command, doubtful", "read, pass MAIL, read, reply 250, hand MAIL", false},
		{"Response", "read, answer word 550", false},
		{"OwnResponse", "read, answer word 550", true},
		{"Command", "read, restart", false},
		{"Restarting", "read", true},
		{"Restarting", "read, reply 220, pass NOOP", false},
		{"Content", "read", true},
		{"Content", "read, hand open", false},
		{"Content", "read, hand maybe", false},
		{"Content", "read, hand end", false},
		{"Content", "hand end, read, hand open", true},
		{"Chunk", "read", true},
		{"Chunk", "read, hand part of chunk", false},
		{"Chunk", "read, hand chunk, hand chunk, read, hand chunk", true},
		{"ReadOn, all refused", "read, hand end", false},
	} {
		if m := after(tt.situation, tt.way); m.IsReading() != tt.want {
			t.Errorf("%s, %s: %v", tt.situation, tt.way, m.IsReading())
		}
	}
}

func TestAReplyAtAStopIsRememberedUntilTheServerReadsOn(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		want           bool
	}{
		{"MaybeEnd in LMTP", "time up", false},
		{"MaybeEnd in LMTP", "reply 250", true},
		{"MaybeEnd in LMTP", "reply 550", true},
		{"MaybeEnd in LMTP", "reply 250, read", false},
		{"MaybeEnd in LMTP", "reply 550, read", false},
		{"Content in LMTP", "reply 550", false},
		{"ReadOn, all accepted", "hand maybe", true},
		{"ReadOn, all accepted", "hand open", false},
		{"ReadOn, all accepted", "hand maybe, read", false},
	} {
		if m := after(tt.situation, tt.way); m.IsAtStop() != tt.want {
			t.Errorf("%s, %s: %v", tt.situation, tt.way, m.IsAtStop())
		}
	}
}

func TestTheNextLineIsTheHooksIfItHasAskedForIt(t *testing.T) {
	for _, tt := range []struct {
		why  string
		ask  func(m *Machine)
		want bool
	}{
		{"passed, and not asked for", func(m *Machine) { m.Passed(Line{Verb: NOOP}, false, false); m.Replied(Reply{Code: 250}) }, false},
		{"passed", func(m *Machine) { m.Passed(Line{Verb: NOOP}, true, false); m.Replied(Reply{Code: 250}) }, true},
		{"passed, and refused by the library", func(m *Machine) {
			m.Passed(Line{Verb: DATA}, true, false)
			m.Answered(Answer{Line: Line{Verb: DATA}, Code: 503})
		}, true},
		{"answered, and not asked for", func(m *Machine) { m.Answered(Answer{Code: 250}) }, false},
		{"answered", func(m *Machine) { m.Answered(Answer{Code: 250, Next: true}) }, true},
	} {
		m := commandTurn(&limits, Start{Relay: true})
		tt.ask(&m)
		if turn := m.Begin(NOOP); turn.Asked != tt.want {
			t.Errorf("%s: %v", tt.why, turn)
		}
		if turn := m.Begin(NOOP); turn.Asked {
			t.Errorf("%s: and the one behind it", tt.why)
		}
	}
}

func TestBehindAFailedAUTHUnknownCommandsMayBeSecrets(t *testing.T) {
	for _, tt := range []struct {
		why   string
		verbs []Verb
		want  []bool
	}{
		{"an unknown verb", []Verb{Other}, []bool{true}},
		{"no verb", []Verb{NoVerb}, []bool{true}},
		{"a misspelt AUTH", []Verb{LikeAUTH}, []bool{true}},
		{"a known verb, and what is behind it", []Verb{NOOP, Other}, []bool{false, false}},
		{"two lines of what may be a password", []Verb{Other, NoVerb, Other}, []bool{true, true, true}},
		{"up to the next known verb", []Verb{Other, EHLO, Other}, []bool{true, false, false}},
	} {
		m := after("Command", "answer AUTH 550")
		var got []bool
		for _, v := range tt.verbs {
			got = append(got, m.Begin(v).Secret)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v", tt.why, got)
		}
	}
	// A line of the next exchange is shown for what it is.
	if m := after("Command", "answer AUTH 550, pass AUTH, reply 334"); m.Begin(NoVerb).Secret {
		t.Error("a line of an exchange")
	}
	for _, tt := range []struct{ situation, way string }{
		{"Handover", "TLS starts, reply 220"}, {"Executing XCLIENT", "reply 220"}, {"Command", "restart, restarted, reply 220"}, {"Command, no relay", "restart, restarted, reply 220"},
	} {
		m := at(tt.situation)
		m.suspect = true
		for _, in := range named(tt.way) {
			in.do(&m)
		}
		if m.Begin(Other).Secret {
			t.Errorf("%s: another dialogue has begun", tt.way)
		}
	}
}

func TestA235CompletesAnExchangeThatIsKnown(t *testing.T) {
	m := at("Executing AUTH")
	if step := m.Replied(Reply{Code: 235, NoMechanism: true}); step.News != NoNews || m.auth || !m.suspect {
		t.Errorf("%v: authenticated %v, suspect %v", step, m.auth, m.suspect)
	}
}

func TestTLSForgetsAllThatWasKnown(t *testing.T) {
	m := at("Handover")
	m.lmtp, m.auth, m.size, m.suspect, m.asked, m.msg.doubtful, m.more = true, true, 10, true, true, true, true
	want := New(&limits, Start{Relay: true, TLS: true})
	want.state, want.after = Regreeting, Regreeting
	if m.StartedTLS(); m != want {
		t.Errorf("%+v, want %+v", m, want)
	}
	// A server that shakes hands by itself goes on behind its greeting.
	m = at("Command, with a recipient, no relay")
	if m.StartedTLS(); m.state != Command || !m.tls || m.msg != (message{}) {
		t.Errorf("%+v", m)
	}
}

func TestARestartForgetsAllThatWasKnownButTLSTheCountsAndWhatIsSentAhead(t *testing.T) {
	for _, tt := range []struct {
		situation string
		answers   bool
		want      State
		why       string
	}{
		{"Greeting", false, Greeting, "the client waits for its greeting still"},
		{"Greeting, no relay", false, Greeting, "likewise"},
		{"Greeting, no relay", true, Restarting, "a session need not be told the greeting, and its client may have sent a command"},
		{"Command, with two recipients in LMTP", true, Restarting, "the client waits for a reply to its command"},
		{"Command, behind a chunk", true, Restarting, "likewise"},
		{"Command, with a recipient, no relay", true, Restarting, "likewise"},
	} {
		for _, tls := range []bool{false, true} {
			for _, more := range []bool{false, true} {
				m := at(tt.situation)
				m.lmtp, m.tls, m.auth, m.size, m.suspect, m.asked, m.statuses, m.reading, m.more = true, tls, true, 10, true, true, true, true, more
				m.msg.doubtful, m.msg.owed, m.msg.chunk, m.msg.smallChunks = !m.msg.active, 2, 5, 1
				m.commands, m.errors = 7, 1
				want := New(&limits, Start{Relay: m.relay, TLS: tls})
				want.state, want.after, want.more, want.commands, want.errors = Handover, tt.want, more, 7, 1
				if m.Restarts(tt.answers); m != want {
					t.Errorf("%s, TLS %v, more %v: %+v, want %+v (%s)", tt.situation, tls, more, m, want, tt.why)
				}
				want.state = tt.want
				if m.Restarted(); m != want {
					t.Errorf("%s, TLS %v, more %v: once restarted %+v, want %+v (%s)", tt.situation, tls, more, m, want, tt.why)
				}
			}
		}
	}
}

func TestARestartBehindTheEndChangesNothing(t *testing.T) {
	for _, s := range all {
		for _, end := range []string{"hang up", "write fails", "close"} {
			m := s.machine()
			for _, in := range named(end) {
				in.do(&m)
			}
			want := m
			for _, answers := range []bool{false, true} {
				m.Restarts(answers)
				m.Restarted()
				if m != want {
					t.Errorf("%s, %s, answers %v: %+v, want %+v", s.name, end, answers, m, want)
				}
			}
		}
	}
}

// The client gets one greeting of a restarted server, as the reply to its command, and
// nothing of what the server says on the connection of before, but that it closes.
func TestTheGreetingOfARestartedServerIsTheReply(t *testing.T) {
	for _, tt := range []struct{ situation, way, want string }{
		{"Command", "restart, reply 250, reply 550, restarted, reply 220", "220"},
		{"Command", "restart, reply 250, reply 421, restarted, reply 220", "421"},
		{"Command", "restart, restarted, reply 554", "554"},
		{"Command, no relay", "restart, restarted, reply 220", "220"},
		{"Greeting", "restart, reply 220, restarted, reply 220", "220"},
		{"Command, TLS from the start", "restart, restarted, reply 220", "220"},
	} {
		m := at(tt.situation)
		var got words
		for _, in := range named(tt.way) {
			step, ok := in.do(&m).(Step)
			got.add(ok && step.Fate == Forward, "%d", in.code)
		}
		want := Command
		if tt.want == "421" {
			want = Over
		}
		if got.String() != tt.want || m.state != want {
			t.Errorf("%s, %s: the client gets %q, and the dialogue is at %v", tt.situation, tt.way, got, m.state)
		}
	}
}

func TestAUTHIsHeldBackWhereNobodyElseCanProtectIt(t *testing.T) {
	for _, tt := range []struct {
		why    string
		policy Policy
		start  Start
		tls    bool
		want   bool
	}{
		{"a server behind the library doesn't know of TLS", Policy{ProtectAUTH: true}, Start{Relay: true}, false, true},
		{"one that speaks for itself does", Policy{ProtectAUTH: true}, Start{}, false, false},
		{"inside TLS", Policy{ProtectAUTH: true}, Start{Relay: true, TLS: true}, false, false},
		{"inside TLS from the start", Policy{ProtectAUTH: true}, Start{Relay: true}, true, false},
		{"nobody wants it", Policy{}, Start{Relay: true}, false, false},
	} {
		m := New(&tt.policy, tt.start)
		if tt.tls {
			m.Secured()
		}
		if m.HoldsAUTH() != tt.want || m.InTLS() != (tt.tls || tt.start.TLS) {
			t.Errorf("%s: held back %v, in TLS %v", tt.why, m.HoldsAUTH(), m.InTLS())
		}
	}
}

func TestTheStatesHaveNamesAndKinds(t *testing.T) {
	owes := []State{Greeting, Regreeting, Restarting, Executing, Cancelling, Resetting, End}
	sasl := []State{Response, OwnResponse, StrayResponse}
	lines := []State{Postponed, Command, Response, OwnResponse, StrayResponse}
	content := []State{Content, ReadOn, Surplus} // after 354, and for the server
	seen := map[string]bool{}
	for s := range State(states) {
		if s.String() == "" || seen[s.String()] {
			t.Errorf("state %d is called %q", s, s)
		}
		seen[s.String()] = true
		if s.OwesReply() != slices.Contains(owes, s) || s.IsSASL() != slices.Contains(sasl, s) || s.HasEnded() != (s == Closing || s == Over) {
			t.Errorf("%v: owes a reply %v, SASL %v, over %v", s, s.OwesReply(), s.IsSASL(), s.HasEnded())
		}
		if s.AwaitsLine() != slices.Contains(lines, s) || s.IsContent() != slices.Contains(content, s) || s.IsRead() != (s.AwaitsLine() || s.IsContent()) {
			t.Errorf("%v: a line %v, content %v, either %v", s, s.AwaitsLine(), s.IsContent(), s.IsRead())
		}
	}
}

func TestBehindAPositiveAnswerTheClientCountsOnNoTransaction(t *testing.T) {
	for _, tt := range []struct {
		verbs []Verb
		codes []int
		gone  bool
		why   string
	}{
		{[]Verb{RSET, HELO, EHLO, LHLO}, []int{200, 250, 299}, true, "RFC 5321 sections 4.1.1.5 and 4.1.4"},
		{[]Verb{RSET, HELO, EHLO, LHLO}, []int{300, 334, 450, 500, 550}, false, "it is refused"},
		{[]Verb{XCLIENT}, []int{220}, true, "Postfix: it's a greeting"},
		{[]Verb{XCLIENT}, []int{200, 221, 250, 550}, false, "it is none"},
		{[]Verb{BDAT}, []int{200, 250, 334, 450, 550}, true, "the message has a hole"},
		{[]Verb{MAIL, RCPT, DATA, NOOP, VRFY, AUTH, XFORWARD, Other}, []int{200, 220, 250, 550}, false, "it doesn't matter to a transaction"},
	} {
		for _, v := range tt.verbs {
			for _, code := range tt.codes {
				m := at("Command, with a recipient")
				o := m.Answered(Answer{Line: Line{Verb: v}, Code: code})
				if o.Cleared != tt.gone || m.msg.active == tt.gone || m.msg.doubtful != tt.gone {
					t.Errorf("%d to verb %d: %+v, transaction %v, doubtful %v (%s)", code, v, o, m.msg.active, m.msg.doubtful, tt.why)
				}
			}
		}
	}
}
