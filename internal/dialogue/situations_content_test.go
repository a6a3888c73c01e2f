package dialogue

import "slices"

// contentSituations are rows of the table: content whose end the server hasn't got, or owes replies for.
func contentSituations() []situation {
	return []situation{
		{
			name: "Content", from: "Command, with a recipient", way: "pass DATA, reply 354",
			at: Content, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(noTurn, without("read fails, hand open, hand maybe, hand end, refuse content", usual), []row{
				{inputs: accepting, state: Surplus, returned: "keep", kept: "active, 1 recipients, 1 held", why: "it would tell of a message that may never come to be"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Unwanted, returned: "forward", kept: "active, 1 recipients, refused, refused early", why: "it might take the rest for commands"},
				{inputs: "read fails", state: GivenUp, kept: "active, 1 recipients, 1 due", why: "it may have gone on to commands"},
				{inputs: "hand open", state: stays, returned: "hand over", why: "the end is not in sight"},
				{inputs: "hand maybe", state: MaybeEnd, returned: "hand over", kept: "active, 1 recipients, 1 due", why: "some server takes this for the end"},
				{inputs: "hand end", state: End, returned: "hand over", kept: "active, 1 recipients, 1 due", why: "every server takes this for the end"},
				{inputs: "refuse content", state: Refusing, kept: "active, 1 recipients, 1 due", why: "the library drops the rest"},
			}),
		},
		{
			name: "Content in LMTP", like: "Content", from: "Command, with two recipients in LMTP", way: "pass DATA, reply 354",
			at: Content, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: accepting, state: Content, returned: "keep", kept: "LMTP, active, 2 recipients, 1 due, 1 held", why: "the message goes on for this recipient"},
				{inputs: negative, state: Undecided, returned: "forward", kept: "LMTP, active, 2 recipients, refused, 1 due", why: "the status of one; whether it reads on will show"},
			},
		},
		{
			name: "Content in LMTP, a Read waits", like: "Content in LMTP", from: "Content in LMTP", way: "read",
			at: Content, kept: "LMTP, active, 2 recipients, 2 due, reading",
			rows: []row{
				{inputs: negative, state: Content, returned: "forward", kept: "LMTP, active, 2 recipients, refused, 1 due, reading", why: "the status of one, and another goroutine reads on"},
			},
		},
		{
			name: "Content in LMTP, one status accepted", like: "Content in LMTP", from: "Content in LMTP", way: "reply 250",
			at: Content, kept: "LMTP, active, 2 recipients, 1 due, 1 held",
			rows: []row{
				{inputs: accepting, state: Undecided, returned: "keep", kept: "LMTP, active, 2 recipients, 2 held", why: "the last status; whether it reads on will show"},
				{inputs: negative, state: Undecided, returned: "keep", kept: "LMTP, active, 2 recipients, refused, 2 held", why: "likewise; statuses come in the order of recipients"},
				{inputs: "hand end", state: End, returned: "hand over, tell", kept: "LMTP, active, 2 recipients, 1 due, 1 held", why: "the client gets the first status"},
			},
		},
		{
			name: "Content in LMTP, one status refused", like: "Content in LMTP", from: "Content in LMTP, a Read waits", way: "reply 550",
			at: Content, kept: "LMTP, active, 2 recipients, refused, 1 due, reading",
			rows: []row{
				{inputs: accepting, state: ReadOn, returned: "keep", kept: "LMTP, active, 2 recipients, refused, 1 held, reading", why: "the last status, and another goroutine reads on"},
				{inputs: negative, state: ReadOn, returned: "forward", kept: "LMTP, active, 2 recipients, refused, reading", why: "likewise"},
			},
		},
		{
			name: "MaybeEnd", from: "Content", way: "hand maybe",
			at: MaybeEnd, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(noTurn, without("read", usual), []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: none, why: "its word that this was the end"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Unwanted, returned: "forward", kept: "active, 1 recipients, refused, at a stop, refused early", why: "it may have come within the message"},
				{inputs: "read", state: Content, kept: "active, 1 recipients, 1 due, reading", why: "it reads on, so this was not the end"},
			}),
		},
		{
			name: "MaybeEnd in LMTP", like: "MaybeEnd", from: "Content in LMTP", way: "hand maybe",
			at: MaybeEnd, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: accepting, state: MaybeEnd, returned: "keep", kept: "LMTP, active, 2 recipients, at a stop, 1 due, 1 held", why: "its backend may have accepted it before the end"},
				{inputs: negative, state: Undecided, returned: "forward", kept: "LMTP, active, 2 recipients, refused, at a stop, 1 due", why: "whether it reads on will show"},
			},
		},
		{
			name: "End", from: "Content", way: "hand end",
			at: End, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(noTurn, usual, []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: none, why: "the message is accepted"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 due, out of step", why: "no reply to a message"},
				{inputs: negativeBut421, state: Command, returned: "forward, cleared", kept: "doubtful", why: "some servers keep the transaction of a refused message"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "active, 1 recipients, refused", why: "RFC 5321 section 3.8"},
			}),
		},
		{
			name: "End, no relay", like: "End", from: "Executing DATA, no relay", way: "reply 354",
			at: End, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(session),
		},
		{
			name: "End in LMTP", like: "End", from: "Content in LMTP", way: "hand end",
			at: End, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: accepting, state: End, returned: "forward", kept: "LMTP, active, 2 recipients, 1 due", why: "another status follows"},
				{inputs: negative, state: End, returned: "forward", kept: "LMTP, active, 2 recipients, refused, 1 due", why: "likewise"},
			},
		},
		{
			name: "End in LMTP, one status refused", like: "End in LMTP", from: "End in LMTP", way: "reply 550",
			at: End, kept: "LMTP, active, 2 recipients, refused, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: "LMTP, doubtful", why: "one recipient has the message"},
				{inputs: negative, state: Command, returned: "forward, cleared", kept: "LMTP, doubtful", why: "a 421 is one of the statuses that are due"},
			},
		},
		{
			name: "Undecided, one refused", from: "Content in LMTP", way: "reply 550",
			at: Undecided, kept: "LMTP, active, 2 recipients, refused, 1 due",
			rows: slices.Concat(noTurn, without("read, time up", usual), []row{
				{inputs: accepting, state: Undecided, returned: "keep", kept: "LMTP, active, 2 recipients, refused, 1 held", why: "the message goes on for this recipient, if there is a reader"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, refused, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Undecided, returned: "forward", kept: "LMTP, active, 2 recipients, refused", why: "the status of the second"},
				{inputs: "read", state: Content, kept: "LMTP, active, 2 recipients, refused, 1 due, reading", why: "another goroutine reads on"},
				{inputs: "time up", state: Unwanted, returned: "true", kept: "LMTP, active, 2 recipients, refused, 1 due, refused early", why: "nobody does"},
			}),
		},
		{
			name: "Undecided, one refused at what may be the end", like: "Undecided, one refused", from: "MaybeEnd in LMTP", way: "reply 550",
			at: Undecided, kept: "LMTP, active, 2 recipients, refused, at a stop, 1 due",
		},
		{
			name: "Undecided, all refused", like: "Undecided, one refused", from: "Undecided, one refused", way: "reply 550",
			at: Undecided, kept: "LMTP, active, 2 recipients, refused",
			rows: []row{
				{inputs: negativeBut421, state: Unwanted, returned: "swallow", kept: "LMTP, active, 2 recipients, refused, refused early", why: "one status too many, and the end"},
				{inputs: "reply 421", state: Unwanted, returned: "forward", kept: "LMTP, active, 2 recipients, refused, refused early", why: "the last word of a server that closes"},
				{inputs: accepting, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, refused, out of step", why: "all statuses have been given"},
				{inputs: "read", state: ReadOn, kept: "LMTP, active, 2 recipients, refused, reading", why: "another goroutine reads on"},
			},
		},
		{
			name: "Undecided, all accepted", like: "Undecided, all refused", from: "Content in LMTP, one status accepted", way: "reply 250",
			at: Undecided, kept: "LMTP, active, 2 recipients, 2 held",
			rows: []row{
				{inputs: accepting, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, 2 held, out of step", why: "all statuses have been given"},
				{inputs: "read", state: ReadOn, kept: "LMTP, active, 2 recipients, 2 held, reading", why: "another goroutine reads on"},
				{inputs: "time up", state: Surplus, returned: "true", kept: "LMTP, active, 2 recipients, 2 held", why: "the reader may be the same goroutine"},
				{inputs: negative, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, 2 held, out of step", why: "all statuses have been given"},
			},
		},
		{
			name: "Undecided, all accepted at what may be the end", like: "Undecided, all accepted", from: "MaybeEnd in LMTP", way: "reply 250, reply 250",
			at: Undecided, kept: "LMTP, active, 2 recipients, at a stop, 2 held",
			rows: []row{
				{inputs: "read", state: ReadOn, kept: "LMTP, active, 2 recipients, 2 held, reading", why: "another goroutine reads on, so this was not the end"},
				{inputs: "time up", state: Closing, returned: "false", kept: "LMTP, active, 2 recipients, at a stop, 2 held, ambiguous end", why: "its next Read won't tell whether that was the end"},
			},
		},
	}
}
