package dialogue

import "slices"

// endSituations are rows of the table: ends: of a message that isn't taken as it should be, and of a dialogue.
func endSituations() []situation {
	return []situation{
		{
			name: "ReadOn, all refused", from: "Undecided, all refused", way: "read",
			at: ReadOn, kept: "LMTP, active, 2 recipients, refused, reading",
			rows: slices.Concat(noTurn, without("read fails, hand open, hand maybe, hand end, time up, refuse content", usual), []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, refused, reading, out of step", why: "all statuses have been given"},
				{inputs: negativeBut421, state: Unwanted, returned: "swallow", kept: "LMTP, active, 2 recipients, refused, reading, refused early", why: "one status too many, and the end"},
				{inputs: "reply 421", state: Unwanted, returned: "forward", kept: "LMTP, active, 2 recipients, refused, reading, refused early", why: "the last word of a server that closes"},
				{inputs: "read fails", state: GivenUp, kept: "LMTP, active, 2 recipients, refused", why: "it may have gone on to commands"},
				{inputs: "hand open", state: stays, returned: "hand over", why: "the end is not in sight"},
				{inputs: "hand maybe", state: ReadOn, returned: "hand over", kept: "LMTP, active, 2 recipients, refused, at a stop", why: "whether this was the end, its next Read tells"},
				{inputs: "hand end", state: Command, returned: "hand over, cleared", kept: "LMTP, doubtful", why: "all statuses have been given"},
				{inputs: "time up", state: Unwanted, returned: "true", kept: "LMTP, active, 2 recipients, refused, reading, refused early", why: "it doesn't read on"},
				{inputs: "refuse content", state: Refusing, kept: "LMTP, active, 2 recipients, refused, reading", why: "the library drops the rest"},
			}),
		},
		{
			name: "ReadOn, all accepted", like: "ReadOn, all refused", from: "Undecided, all accepted", way: "read",
			at: ReadOn, kept: "LMTP, active, 2 recipients, 2 held, reading",
			rows: []row{
				{inputs: negative, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, 2 held, reading, out of step", why: "all statuses have been given"},
				{inputs: "hand end", state: Command, returned: "hand over, tell, cleared", kept: "LMTP", why: "the message is all there, and accepted"},
				{inputs: "time up", state: Surplus, returned: "true", kept: "LMTP, active, 2 recipients, 2 held, reading", why: "the reader may be the same goroutine"},
			},
		},
		{
			name: "ReadOn, all accepted at what may be the end", like: "ReadOn, all accepted", from: "ReadOn, all accepted", way: "hand maybe",
			at: ReadOn, kept: "LMTP, active, 2 recipients, at a stop, 2 held",
			rows: []row{
				{inputs: "read", state: ReadOn, kept: "LMTP, active, 2 recipients, 2 held, reading", why: "it reads on, so this was not the end"},
				{inputs: "hand end", state: Command, returned: "hand over, tell, cleared", kept: "LMTP", why: "the message is all there, and accepted"},
				{inputs: "time up", state: Closing, returned: "false", kept: "LMTP, active, 2 recipients, at a stop, 2 held, ambiguous end", why: "its next Read won't tell whether that was the end"},
			},
		},
		{
			name: "Surplus", from: "Content", way: "reply 250",
			at: Surplus, kept: "active, 1 recipients, 1 held",
			rows: slices.Concat(noTurn, without("read fails, hand open, hand maybe, hand end, refuse content", usual), []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 held, out of step", why: "nothing is due"},
				{inputs: negative, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 held, out of step", why: "it has accepted the message"},
				{inputs: "read fails", state: GivenUp, kept: "active, 1 recipients, 1 held", why: "it may have gone on to commands"},
				{inputs: "hand open", state: stays, returned: "hand over", why: "the end is not in sight"},
				{inputs: "hand maybe", state: Closing, returned: "ambiguous", kept: "active, 1 recipients, 1 held, ambiguous end", why: "its Read doesn't tell whether it wants content or commands next"},
				{inputs: "hand end", state: Command, returned: "hand over, tell, cleared", kept: none, why: "the message is all there, and accepted"},
				{inputs: "refuse content", state: Refusing, kept: "active, 1 recipients, 1 held", why: "the library drops the rest"},
			}),
		},
		{
			name: "Surplus in LMTP", like: "Surplus", from: "Undecided, all accepted", way: "time up",
			at: Surplus, kept: "LMTP, active, 2 recipients, 2 held",
		},
		{
			name: "Refusing", from: "Content", way: "refuse content",
			at: Refusing, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(noTurn, without(names(ofChunk...)+", drop rest", usual), []row{
				{inputs: accepting, state: Refusing, returned: "keep", kept: "active, 1 recipients, 1 held", why: "the client gets the refusal in its place"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Refusing, returned: "forward", kept: "active, 1 recipients, refused", why: "the client needs no other"},
				{inputs: "drop rest", state: Closing, returned: "1", kept: "active, 1 recipients, 1 due, bare newline", why: "the client gets the refusal"},
				{inputs: "drop part, drop chunk", state: never, why: "content has no size"},
			}),
		},
		{
			name: "Refusing in LMTP", like: "Refusing", from: "Content in LMTP", way: "refuse content",
			at: Refusing, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: "drop rest", state: Closing, returned: "2", kept: "LMTP, active, 2 recipients, 2 due, bare newline", why: "RFC 2033 section 4.2: one for each recipient"},
			},
		},
		{
			name: "Refusing in LMTP, one status refused", like: "Refusing in LMTP", from: "Content in LMTP, one status refused", way: "refuse content",
			at: Refusing, kept: "LMTP, active, 2 recipients, refused, 1 due, reading",
			rows: []row{
				{inputs: "drop rest", state: Closing, returned: "1", kept: "LMTP, active, 2 recipients, refused, 1 due, reading, bare newline", why: "the client has had one"},
			},
		},
		{
			name: "Refusing in LMTP, one status accepted", like: "Refusing in LMTP", from: "Content in LMTP, one status accepted", way: "refuse content",
			at: Refusing, kept: "LMTP, active, 2 recipients, 1 due, 1 held",
			rows: []row{
				{inputs: negative, state: Refusing, returned: "keep", kept: "LMTP, active, 2 recipients, refused, 2 held", why: "statuses come in the order of recipients"},
				{inputs: "drop rest", state: Closing, returned: "2", kept: "LMTP, active, 2 recipients, 1 due, 1 held, bare newline", why: "the client has had none"},
			},
		},
		{
			name: "Refusing, all accepted", like: "Refusing", from: "Surplus", way: "refuse content",
			at: Refusing, kept: "active, 1 recipients, 1 held",
			rows: []row{
				{inputs: accepting, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 held, out of step", why: "nothing is due"},
				{inputs: negative, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 held, out of step", why: "it has accepted the message before"},
			},
		},
		{
			name: "Refusing a chunk", like: "Refusing", from: "Chunk", way: "refuse content",
			at: Refusing, kept: "active, 1 recipients, 5 to come, 1 due",
			rows: []row{
				{inputs: "drop part", state: Refusing, returned: "false", kept: "active, 1 recipients, 3 to come, 1 due", why: "the rest follows"},
				{inputs: "drop chunk", state: Refusing, returned: "false", kept: "active, 1 recipients, 1 due", why: "the refusal follows"},
			},
		},
		{
			name: "Unwanted", from: "Content", way: "reply 550",
			at: Unwanted, kept: "active, 1 recipients, refused, refused early",
			rows: slices.Concat(noTurn, usual, []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, refused, refused early", why: "it has refused the message"},
				{inputs: negativeBut421, state: stays, returned: "swallow", why: "the client would take it for the reply to its next command"},
				{inputs: "reply 421", state: stays, returned: "forward", why: "the last word of a server that closes"},
			}),
		},
		{
			name: "Unwanted in LMTP, statuses due", like: "Unwanted", from: "Undecided, one refused", way: "time up",
			at: Unwanted, kept: "LMTP, active, 2 recipients, refused, 1 due, refused early",
			rows: []row{
				{inputs: negative, state: Unwanted, returned: "forward", kept: "LMTP, active, 2 recipients, refused, refused early", why: "the status of another"},
			},
		},
		{
			name: "GivenUp", from: "Content", way: "read fails",
			at: GivenUp, kept: "active, 1 recipients, 1 due",
			rows: slices.Concat(noTurn, usual, []row{
				{inputs: accepting, state: Closing, returned: "lose step", kept: "active, 1 recipients, out of step", why: "it can't have got what it accepts"},
				{inputs: "reply 220, " + intermediate, state: Closing, returned: "lose step", kept: "active, 1 recipients, 1 due, out of step", why: "no reply to a message"},
				{inputs: negative, state: Unwanted, returned: "forward", kept: "active, 1 recipients, refused, refused early", why: "its refusal is the client's"},
			}),
		},
		{
			name: "GivenUp in a chunk", like: "GivenUp", from: "Chunk", way: "read fails",
			at: GivenUp, kept: "active, 1 recipients, 5 to come, 1 due",
		},
		{
			name: "GivenUp in LMTP", like: "GivenUp", from: "Content in LMTP", way: "read fails",
			at: GivenUp, kept: "LMTP, active, 2 recipients, 2 due",
			rows: []row{
				{inputs: negative, state: GivenUp, returned: "forward", kept: "LMTP, active, 2 recipients, refused, 1 due", why: "another status follows"},
			},
		},
		{
			name: "GivenUp in LMTP, one status accepted", like: "GivenUp", from: "Content in LMTP, one status accepted", way: "read fails",
			at: GivenUp, kept: "LMTP, active, 2 recipients, 1 due, 1 held",
			rows: []row{
				{inputs: negative, state: Closing, returned: "lose step", kept: "LMTP, active, 2 recipients, refused, 1 held, out of step", why: "it has accepted what it can't have got"},
			},
		},
		{
			name: "Handover", from: "Command", way: "pass STARTTLS",
			at: Handover, kept: "then Regreeting",
			rows: slices.Concat(noTurn, without(names(ofHandshake...), usual), []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate + ", " + negative, state: stays, returned: "swallow", why: "it would be sent in the middle of a handshake"},
				{inputs: "TLS starts", state: Regreeting, kept: "TLS, then Regreeting", why: "RFC 3207 section 4.2: the server starts anew"},
				{inputs: "TLS unavailable", state: Command, returned: "454", kept: "then Regreeting", why: "the client goes on without"},
			}),
		},
		{
			name: "Handover, for a restart", from: "Command", way: "restart",
			at: Handover, kept: "then Restarting",
			rows: slices.Concat(noTurn, without(names(ofRestart...), usual), []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate + ", " + negativeBut421, state: stays, returned: "swallow", why: "the client would take it for the greeting of the fresh connection"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "then Restarting", why: "RFC 5321 section 3.8: a server that closes won't greet"},
				{inputs: "restart", state: never, why: "no hook is asked before the server has greeted afresh"},
				{inputs: "restarted", state: Restarting, kept: "then Restarting", why: "the client's command is to be replied to"},
			}),
		},
		{
			name: "Handover, for a restart, no relay", like: "Handover, for a restart", from: "Command, no relay", way: "restart",
			at: Handover, kept: "then Restarting",
			rows: slices.Concat(session),
		},
		{
			name: "Handover, for a restart at the greeting", like: "Handover, for a restart", from: "Greeting", way: "restart",
			at: Handover, kept: none,
			rows: []row{
				{inputs: "restarted", state: Greeting, kept: none, why: "the client has sent no command yet, and waits for its greeting"},
			},
		},
		{
			name: "Handover, for a restart at the greeting, no relay", like: "Handover, for a restart at the greeting", from: "Greeting, no relay", way: "restart",
			at: Handover, kept: none,
			rows: slices.Concat(session),
		},
		{
			name: "Handover, for a restart in a transaction in LMTP", like: "Handover, for a restart", from: "Command, with two recipients in LMTP", way: "restart",
			at: Handover, kept: "then Restarting",
			rows: []row{
				{inputs: "restarted", state: Restarting, kept: "then Restarting", why: "nothing of the transaction is left, and the client has to say LHLO again"},
			},
		},
		{
			name: "Closing", from: "Command", way: "hang up",
			at: Closing, kept: "too long",
			rows: slices.Concat(noTurn, noMessage, []row{
				{inputs: "reply 220, " + accepting + ", " + intermediate + ", " + negative, state: stays, returned: "swallow", why: "the client has had the last reply"},
				{inputs: "drop part, drop chunk", state: stays, returned: "false", why: "what is under way may come to its end, and moves nothing"},
				{inputs: "TLS starts, restart, restarted, send postponed, write fails", state: stays, why: "likewise"},
				{inputs: "TLS unavailable", state: stays, returned: "454", why: "likewise"},
				{inputs: "hang up", state: stays, returned: "500", why: "likewise"},
				{inputs: "close", state: Over, kept: "too long", why: "no reply is on its way any more"},
				{inputs: "finish", state: Over, returned: "closes", kept: "too long", why: "the library has the last word"},
			}),
		},
		{
			name: "Over", like: "Closing", from: "Command", way: "close",
			at: Over, kept: none,
			rows: []row{
				{inputs: "answer word 421", state: stays, returned: "send 1, disconnect", why: "nobody gets it"},
				{inputs: "finish", state: stays, why: "the server has had the last word"},
			},
		},
		{
			name: "Over in a message", like: "Over", from: "Content", way: "close",
			at: Over, kept: "active, 1 recipients, 1 due",
			rows: []row{
				{inputs: "finish", state: stays, returned: "in message", why: "it must not take this for the end of the message"},
			},
		},
		{
			name: "Over in a chunk", like: "Over", from: "Chunk", way: "close",
			at: Over, kept: "active, 1 recipients, 5 to come, 1 due",
			rows: []row{
				{inputs: "drop part", state: Over, returned: "false", kept: "active, 1 recipients, 3 to come, 1 due", why: "what is under way may come to its end"},
				{inputs: "drop chunk", state: Over, returned: "false", kept: "active, 1 recipients, 1 due", why: "likewise"},
				{inputs: "finish", state: stays, returned: "in message", why: "it must not take this for the end of the chunk"},
			},
		},
	}
}
