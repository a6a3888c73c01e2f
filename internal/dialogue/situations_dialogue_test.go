package dialogue

import "slices"

// dialogueSituations are rows of the table: SASL exchanges, and commands that the server has.
func dialogueSituations() []situation {
	return []situation{
		{
			name: "Response", from: "Command", way: "pass AUTH, reply 334",
			at: Response, kept: none,
			rows: slices.Concat(without("read fails, "+names(ofRestart...), usual), alone, inExchange, []row{
				{inputs: "begin", state: stays, returned: "ready, SASL", why: "it's the client's turn"},
				{inputs: names(slices.Concat(commands, answers)...), state: never, why: "a line of an exchange has no verb"},
				{inputs: "pass word", state: Executing, returned: "hand over", kept: "1 due", why: "RFC 4954 section 4"},
				{inputs: "answer word 235", state: Cancelling, returned: "send 1, cancel", kept: "1 due, then Command", why: "the client takes the exchange for completed, the server must not wait for more"},
				{inputs: "answer word 250, answer word 550", state: Cancelling, returned: "send 1, cancel", kept: "1 due, then Command, suspect", why: "likewise, but the next line may be the password"},
				{inputs: "answer word 334", state: Cancelling, returned: "send 1, cancel", kept: "1 due, then OwnResponse", why: "the hook goes on with an exchange of its own"},
				{inputs: "answer word 421", state: Closing, returned: "send 1, disconnect", kept: "suspect", why: "RFC 5321 section 3.8"},
				{inputs: "read fails", state: StrayResponse, kept: none, why: "go-smtp would take the response for a command"},
			}),
		},
		{
			name: "Response, no relay", like: "Response", from: "Command, no relay", way: "pass AUTH, reply 334",
			at: Response, kept: none,
			rows: slices.Concat(session, []row{
				{inputs: "answer word 235", state: Command, returned: "send 1", kept: none, why: "the server ends its exchange by itself"},
				{inputs: "answer word 250, answer word 550", state: Command, returned: "send 1", kept: "suspect", why: "likewise"},
				{inputs: "answer word 334", state: OwnResponse, returned: "send 1", kept: none, why: "likewise"},
			}),
		},
		{
			name: "OwnResponse", from: "Command", way: "answer AUTH 334",
			at: OwnResponse, kept: none,
			rows: slices.Concat(without(names(ofRestart...), usual), alone, inExchange, []row{
				{inputs: "begin", state: stays, returned: "ready, SASL, own", why: "it's the client's turn"},
				{inputs: names(slices.Concat(commands, answers)...), state: never, why: "a line of an exchange has no verb"},
				{inputs: "pass word", state: never, why: "it may be a password, and the server hasn't asked for it"},
				{inputs: "answer word 235", state: Command, returned: "send 1", kept: none, why: "the hook completes its exchange"},
				{inputs: "answer word 250, answer word 550", state: Command, returned: "send 1", kept: "suspect", why: "the next line may be the password"},
				{inputs: "answer word 334", state: stays, returned: "send 1", why: "the exchange goes on"},
				{inputs: "answer word 421", state: Closing, returned: "send 1, disconnect", kept: "suspect", why: "RFC 5321 section 3.8"},
			}),
		},
		{
			name: "OwnResponse, no relay", like: "OwnResponse", from: "Command, no relay", way: "answer AUTH 334",
			at: OwnResponse, kept: none,
			rows: slices.Concat(session),
		},
		{
			name: "StrayResponse", from: "Response", way: "read fails",
			at: StrayResponse, kept: none,
			rows: slices.Concat(noTurn, usual, alone),
		},
		{
			name: "Executing NOOP", from: "Command", way: "pass NOOP",
			at: Executing, kept: "1 due",
			rows: slices.Concat(noTurn, without("refuse content", usual), []row{
				{inputs: accepting + ", " + negativeBut421, state: Command, returned: "forward", kept: none, why: "one command, one reply"},
				{inputs: "reply 220", state: Closing, returned: "lose step", kept: "1 due, out of step", why: "it starts TLS, or greets"},
				{inputs: intermediate, state: Closing, returned: "lose step", kept: "1 due, out of step", why: "what the client sends next would go past the hook"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "1 due", why: "RFC 5321 section 3.8"},
				{inputs: "refuse content", state: never, why: "there is none"},
			}),
		},
		{
			name: "Executing FOO", like: "Executing NOOP", from: "Command", way: "pass FOO",
			at: Executing, kept: "1 due",
		},
		{
			name: "Executing NOOP, no relay", like: "Executing NOOP", from: "Command, no relay", way: "pass NOOP",
			at: Executing, kept: "1 due",
			rows: slices.Concat(session, []row{
				{inputs: "reply 334", state: Response, returned: "forward", kept: none, why: "the server knows what it does"},
				{inputs: "reply 354", state: End, returned: "forward, content begins", kept: "1 due", why: "likewise"},
				{inputs: "reply 399", state: Command, returned: "forward", kept: none, why: "likewise"},
			}),
		},
		{
			name: "Executing NOOP, more behind it", like: "Executing NOOP", from: "Command", way: "pass NOOP", more: true,
			at: Executing, kept: "1 due",
		},
		{
			name: "Executing HELO", like: "Executing NOOP", from: "Command", way: "pass HELO",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: "reply 250", state: Command, returned: "forward, greeted", kept: none, why: "RFC 5321 section 4.1.1.1"},
				{inputs: "reply 200, reply 221, reply 235, " + negativeBut421, state: Command, returned: "forward", kept: none, why: "no other code accepts it"},
			},
		},
		{
			name: "Executing EHLO", like: "Executing HELO", from: "Command", way: "pass EHLO",
			at: Executing, kept: "1 due",
		},
		{
			name: "Executing EHLO in a transaction", like: "Executing EHLO", from: "Command, with a recipient", way: "pass EHLO",
			at: Executing, kept: "active, 1 recipients, 1 due",
			rows: []row{
				{inputs: "reply 200, reply 221, reply 235, " + negativeBut421, state: Command, returned: "forward, cleared", kept: "doubtful", why: "chrj drops it all the same"},
				{inputs: "reply 250", state: Command, returned: "forward, greeted", kept: "doubtful", why: "bradfitz keeps it all the same"},
			},
		},
		{
			name: "Executing EHLO, doubtful", like: "Executing EHLO", from: "Command, doubtful", way: "pass EHLO",
			at: Executing, kept: "doubtful, 1 due",
			rows: []row{
				{inputs: "reply 250", state: Command, returned: "forward, greeted", kept: "doubtful", why: "likewise"},
			},
		},
		{
			name: "Executing LHLO", like: "Executing EHLO", from: "Command", way: "pass LHLO",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: "reply 250", state: Command, returned: "forward, greeted", kept: "LMTP", why: "RFC 2033 section 4.1"},
			},
		},
		{
			name: "Executing HELO in LMTP", like: "Executing HELO", from: "Command, in LMTP", way: "pass HELO",
			at: Executing, kept: "LMTP, 1 due",
			rows: []row{
				{inputs: "reply 250", state: Command, returned: "forward, greeted", kept: none, why: "it speaks SMTP now"},
			},
		},
		{
			name: "Executing MAIL", like: "Executing NOOP", from: "Command", way: "pass MAIL",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, opened", kept: "active", why: "RFC 5321 section 4.1.1.2"},
			},
		},
		{
			name: "Executing MAIL, more behind it", like: "Executing MAIL", from: "Command", way: "pass MAIL", more: true,
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, hold, opened", kept: "active", why: "RFC 2920 section 3.2 (5) and (6)"},
				{inputs: negativeBut421, state: Command, returned: "forward, hold", kept: none, why: "likewise"},
				{inputs: "reply 421", state: Over, returned: "forward, hold", kept: "1 due", why: "likewise"},
			},
		},
		{
			name: "Executing RCPT", like: "Executing NOOP", from: "Command, in a transaction", way: "pass RCPT",
			at: Executing, kept: "active, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, added", kept: "active, 1 recipients", why: "RFC 5321 section 4.1.1.3"},
			},
		},
		{
			name: "Executing RSET", like: "Executing NOOP", from: "Command, with a recipient", way: "pass RSET",
			at: Executing, kept: "active, 1 recipients, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: none, why: "RFC 5321 section 4.1.1.5"},
				{inputs: negativeBut421, state: Command, returned: "forward", kept: "active, 1 recipients", why: "the server knows nothing of RSET"},
			},
		},
		{
			name: "Executing RSET, doubtful", like: "Executing RSET", from: "Command, doubtful", way: "pass RSET",
			at: Executing, kept: "doubtful, 1 due",
			rows: []row{
				{inputs: accepting, state: Command, returned: "forward, cleared", kept: none, why: "the server is sure to have none now"},
			},
		},
		{
			name: "Executing QUIT", like: "Executing NOOP", from: "Command", way: "pass QUIT",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: accepting, state: Over, returned: "forward", kept: none, why: "RFC 5321 section 4.1.1.10: the server closes"},
			},
		},
		{
			name: "Executing AUTH", like: "Executing NOOP", from: "Command", way: "pass AUTH",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: "reply 235", state: Command, returned: "forward, authenticated", kept: "auth", why: "RFC 4954 section 6"},
				{inputs: "reply 334", state: Response, returned: "forward", kept: none, why: "RFC 4954 section 4"},
				{inputs: "reply 200, reply 221, reply 250, " + negativeBut421, state: Command, returned: "forward", kept: "suspect", why: "the next line may be the password"},
			},
		},
		{
			name: "Executing AUTHX", like: "Executing NOOP", from: "Command", way: "pass AUTHX",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: accepting + ", " + negativeBut421, state: Command, returned: "forward", kept: "suspect", why: "the client goes on as if it had been AUTH"},
			},
		},
		{
			name: "Executing STARTTLS, no relay", like: "Executing NOOP, no relay", from: "Command, no relay", way: "pass STARTTLS",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: "reply 220", state: Command, returned: "forward", kept: none, why: "the server shakes hands next"},
			},
		},
		{
			name: "Executing XCLIENT", like: "Executing NOOP", from: "Command", way: "pass XCLIENT",
			at: Executing, kept: "1 due",
			rows: []row{
				{inputs: "reply 220", state: Command, returned: "forward, anew", kept: none, why: "Postfix: it's a greeting"},
			},
		},
		{
			name: "Executing XCLIENT in a transaction, LMTP", like: "Executing XCLIENT", from: "Command, with two recipients in LMTP", way: "pass XCLIENT",
			at: Executing, kept: "LMTP, active, 2 recipients, 1 due",
			rows: []row{
				{inputs: "reply 220", state: Command, returned: "forward, anew", kept: "doubtful", why: "the client is to say LHLO again; what became of the transaction, nobody knows"},
			},
		},
		{
			name: "Cancelling", from: "Response", way: "answer word 235",
			at: Cancelling, kept: "1 due, then Command",
			rows: slices.Concat(noTurn, usual, []row{
				{inputs: "reply 220, " + accepting, state: Closing, returned: "lose step", kept: "1 due, then Command, out of step", why: "the client would be authenticated, and nobody would know"},
				{inputs: intermediate, state: Closing, returned: "lose step", kept: "1 due, then Command, out of step", why: "the exchange isn't cancelled"},
				{inputs: negativeBut421, state: Command, returned: "swallow", kept: "1 due, then Command", why: "the client has its answer"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "1 due, then Command", why: "RFC 5321 section 3.8"},
			}),
		},
		{
			name: "Cancelling, then OwnResponse", like: "Cancelling", from: "Response", way: "answer word 334",
			at: Cancelling, kept: "1 due, then OwnResponse",
			rows: []row{
				{inputs: negativeBut421, state: OwnResponse, returned: "swallow", kept: "1 due, then OwnResponse", why: "the hook's exchange follows"},
			},
		},
		{
			name: "Resetting", from: "Command, doubtful", way: "pass MAIL",
			at: Resetting, kept: "doubtful, 1 due",
			rows: slices.Concat(noTurn, usual, []row{
				{inputs: accepting, state: Reset, returned: "swallow", kept: "1 due", why: "the client doesn't know of it"},
				{inputs: "reply 220, " + intermediate + ", " + negativeBut421, state: Closing, returned: "lose step", kept: "doubtful, 1 due, out of step", why: "nobody knows what the server would add recipients to"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "doubtful, 1 due", why: "RFC 5321 section 3.8: the client has it for MAIL"},
			}),
		},
		{
			name: "Reset", from: "Resetting", way: "reply 250",
			at: Reset, kept: "1 due",
			rows: slices.Concat(noTurn, without("hand MAIL", usual), alone, []row{
				{inputs: "hand MAIL", state: Executing, returned: "true", kept: "1 due", why: "the command has waited for this"},
			}),
		},
	}
}
