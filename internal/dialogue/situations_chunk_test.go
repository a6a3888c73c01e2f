package dialogue

import "slices"

// messageSituations are rows of the table: DATA and BDAT, and chunks.
func messageSituations() []situation {
	return []situation{
		{
			name: "Executing DATA", like: "Executing NOOP", from: "Command, with a recipient", way: "pass DATA",
			at: Executing, kept: "active, 1 recipients, 1 due",
			rows: []row{
				{inputs: "reply 354", state: Content, returned: "forward, content begins", kept: "active, 1 recipients, 1 due", why: "RFC 5321 section 4.1.1.4"},
				{inputs: negativeBut421, state: Command, returned: "forward", kept: "active, 1 recipients", why: "a refused DATA changes nothing"},
			},
		},
		{
			name: "Executing DATA, no relay", like: "Executing DATA", from: "Command, with a recipient, no relay", way: "pass DATA",
			at: Executing, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(session, []row{
				{inputs: "reply 334", state: Response, returned: "forward", kept: "active, 1 recipients", why: "the server knows what it does"},
				{inputs: "reply 354", state: End, returned: "forward, content begins", kept: "active, 1 recipients, 1 due", why: "the server reads it without the session"},
				{inputs: "reply 399", state: Command, returned: "forward", kept: "active, 1 recipients", why: "the server knows what it does"},
			}),
		},
		{
			name: "Executing DATA in LMTP", like: "Executing DATA", from: "Command, with two recipients in LMTP", way: "pass DATA",
			at: Executing, kept: "LMTP, active, 2 recipients, 1 due",
			rows: []row{
				{inputs: "reply 354", state: Content, returned: "forward, content begins", kept: "LMTP, active, 2 recipients, 2 due", why: "RFC 2033 section 4.2: one for each recipient"},
			},
		},
		{
			name: "Executing BDAT", like: "Executing NOOP", from: "Command, with all recipients", way: "pass BDAT 5, hand chunk",
			at: Executing, kept: "active, 2 recipients, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward", kept: "active, 2 recipients, 5 octets", why: "the next chunk may come"},
				{inputs: negativeBut421, state: Command, returned: "forward, cleared", kept: "doubtful", why: "RFC 3030 section 2: further chunks have no place"},
			},
		},
		{
			name: "Executing BDAT, no relay", like: "Executing BDAT", from: "Command, with a recipient, no relay", way: "pass BDAT 5",
			at: Executing, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(session, []row{
				{inputs: "reply 334", state: Response, returned: "forward", kept: "active, 1 recipients", why: "the server knows what it does"},
				{inputs: "reply 354", state: End, returned: "forward, content begins", kept: "active, 1 recipients, 1 due", why: "likewise"},
				{inputs: "reply 399", state: Command, returned: "forward, cleared", kept: "doubtful", why: "it's no 2xx"},
			}),
		},
		{
			name: "Executing BDAT LAST", like: "Executing BDAT", from: "Command, with all recipients", way: "pass BDAT 5 LAST, hand chunk",
			at: Executing, kept: "active, 2 recipients, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: "statuses", why: "the message is accepted"},
				{inputs: negativeBut421, state: Command, returned: "forward, cleared", kept: "doubtful, statuses", why: "some servers keep the transaction of a refused message"},
			},
		},
		{
			name: "Executing BDAT LAST in LMTP", like: "Executing BDAT", from: "Command, with two recipients in LMTP", way: "pass BDAT 0 LAST",
			at: Executing, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: accepting, state: Executing, returned: "forward", kept: "LMTP, active, 2 recipients, 1 due", why: "another status follows"},
				{inputs: negative, state: Executing, returned: "forward", kept: "LMTP, active, 2 recipients, refused, 1 due", why: "likewise"},
			},
		},
		{
			name: "Executing BDAT LAST in LMTP, one status refused", like: "Executing BDAT", from: "Executing BDAT LAST in LMTP", way: "reply 550",
			at: Executing, kept: "LMTP, active, 2 recipients, refused, 1 due",
			rows: []row{
				{inputs: accepting + ", " + negative, state: Command, returned: "forward, cleared", kept: "LMTP, doubtful", why: "the last status"},
				{inputs: "read", state: Command, returned: "1 times 550, cleared", kept: "LMTP, doubtful, reading", why: "go-smtp answers once for all recipients, and goes on"},
			},
		},
		{
			name: "Executing BDAT LAST in LMTP, one status accepted", like: "Executing BDAT LAST", from: "Executing BDAT LAST in LMTP", way: "reply 250",
			at: Executing, kept: "LMTP, active, 2 recipients, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: "LMTP", why: "the message is accepted"},
				{inputs: negative, state: Command, returned: "forward, cleared", kept: "LMTP, doubtful", why: "a 421 is one of the statuses that are due"},
			},
		},
		{
			name: "Executing BDAT 0 LAST", like: "Executing BDAT LAST", from: "Command, behind a chunk", way: "pass BDAT 0 LAST",
			at: Executing, kept: "active, 1 recipients, 5 octets, 1 due",
			rows: []row{
				{inputs: "refuse content", state: Refusing, kept: "active, 1 recipients, 5 octets, 1 due", why: "a message may end in a bare CR"},
			},
		},
		{
			name: "Executing BDAT LAST in LMTP, one status of 421", like: "Executing BDAT LAST in LMTP, one status refused", from: "Executing BDAT LAST in LMTP", way: "reply 421",
			at: Executing, kept: "LMTP, active, 2 recipients, refused, 1 due",
			rows: []row{
				{inputs: "read", state: Command, returned: "1 times 451, cleared", kept: "LMTP, doubtful, reading", why: "likewise, and the connection goes on"},
			},
		},
		{
			name: "Executing BDAT LAST in LMTP, two statuses of three refused", like: "Executing BDAT LAST in LMTP, one status refused", way: "reply 220, pass BDAT 0 LAST, reply 550, reply 550", start: Start{Relay: true, LMTP: true, Active: true, Recipients: 3}, policy: &Policy{Commands: 100, Recipients: 3, SmallChunks: 1},
			at: Executing, kept: "LMTP, active, 3 recipients, refused, 1 due",
			rows: []row{
				{inputs: "read", state: stays, why: "a server that gives more than one status gives all"},
			},
		},
		{
			name: "Chunk", from: "Command, with a recipient", way: "pass BDAT 5",
			at: Chunk, kept: "active, 1 recipients, 5 to come, 1 due",
			rows: slices.Concat(noTurn, without("read fails, hand part of chunk, hand chunk, refuse content", usual), []row{
				{inputs: accepting, state: Closing, returned: "lose step", kept: "active, 1 recipients, 5 to come, out of step", why: "it can't have got what it accepts"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 5 to come, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Unwanted, returned: "forward", kept: "active, 1 recipients, 5 to come, refused, refused early", why: "it might take the rest for commands"},
				{inputs: "read fails", state: GivenUp, kept: "active, 1 recipients, 5 to come, 1 due", why: "it may have gone on to commands"},
				{inputs: "hand part of chunk", state: Chunk, returned: "true", kept: "active, 1 recipients, 3 to come, 1 due", why: "the rest follows"},
				{inputs: "hand chunk", state: Executing, returned: "true", kept: "active, 1 recipients, 1 due", why: "the reply to it is due"},
				{inputs: "refuse content", state: Refusing, kept: "active, 1 recipients, 5 to come, 1 due", why: "the library drops it"},
			}),
		},
		{
			name: "Chunk, the last in LMTP", like: "Chunk", from: "Command, with two recipients in LMTP", way: "pass BDAT 5 LAST",
			at: Chunk, kept: "LMTP, active, 2 recipients, 5 to come, 2 due",
			rows: []row{
				{inputs: negative, state: Unwanted, returned: "forward", kept: "LMTP, active, 2 recipients, 5 to come, refused, 1 due, refused early", why: "it might take the rest for commands"},
			},
		},
		{
			name: "DropChunk", from: "Command, with a recipient", way: "answer BDAT 5 550",
			at: DropChunk, kept: "doubtful, 5 to come, then Command",
			rows: slices.Concat(noTurn, alone, without(names(ofChunk...), usual), []row{
				{inputs: "drop part", state: DropChunk, returned: "false", kept: "doubtful, 3 to come, then Command", why: "the rest follows"},
				{inputs: "drop chunk", state: Command, returned: "true", kept: "doubtful, then Command", why: "the client has its turn"},
			}),
		},
		{
			name: "DropChunk, then OwnResponse", like: "DropChunk", from: "Command, with a recipient", way: "answer BDAT 5 334",
			at: DropChunk, kept: "doubtful, 5 to come, then OwnResponse",
			rows: []row{
				{inputs: "drop chunk", state: OwnResponse, returned: "true", kept: "doubtful, then OwnResponse", why: "the hook's exchange follows"},
			},
		},
	}
}
