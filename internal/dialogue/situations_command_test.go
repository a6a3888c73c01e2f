package dialogue

import "slices"

// commandSituations are rows of the table: where a dialogue begins, and where the client may send a command.
func commandSituations() []situation {
	return []situation{
		{
			name: "Greeting", start: Start{Relay: true},
			at: Greeting, kept: none,
			rows: slices.Concat(noTurn, without(names(ofRestart...), usual), []row{
				{inputs: "reply 220, " + accepting + ", " + negativeBut421, state: Command, returned: "forward", kept: none, why: "RFC 5321 section 3.1: with 554, too, a dialogue follows"},
				{inputs: intermediate, state: Closing, returned: "lose step", kept: "out of step", why: "a client may take any 3xx for 354"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: none, why: "RFC 5321 section 3.8"},
				{inputs: "restart", state: Handover, kept: none, why: "the client waits for a greeting, whoever it is"},
				{inputs: "restarted", state: never, why: "the server has the connection that it had"},
			}),
		},
		{
			name: "Greeting, no relay",
			at:   Greeting, kept: none,
			rows: slices.Concat(session, noChunk, noHandshake, noRefusal, goesOn, []row{
				{inputs: "begin", state: stays, returned: "ready", why: "a session need not be told the greeting"},
				{inputs: "pass HELO, pass EHLO, pass LHLO, pass MAIL, pass RSET, pass NOOP, pass QUIT, pass AUTH, pass AUTHX, pass XCLIENT, pass FOO", state: Executing, returned: "hand over", kept: "1 due", why: "likewise"},
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: Executing, returned: "hand over", kept: "1 due", why: "the server shakes hands by itself"},
				{inputs: "pass MAIL with many parameters", state: stays, returned: "refuse 555", why: "a hook sees but some of them"},
				{inputs: "pass RCPT, pass DATA", state: stays, returned: "refuse 503", why: "there is no transaction"},
				{inputs: "pass BDAT 5, pass BDAT 5 LAST, pass BDAT 0 LAST", state: stays, returned: "refuse 502", why: "there is no recipient"},
				{inputs: "pass BDAT x, pass STARTTLS x", state: stays, returned: "refuse 501, nonsense", why: "no server would know what to do with it"},
				{inputs: "pass STARTTLSX, pass word", state: stays, returned: "refuse 500, nonsense", why: "some servers would take it for what it isn't"},
				{inputs: "answer NOOP 250, answer NOOP 550, answer nonsense 500, answer HELO 250, answer EHLO 250, answer EHLO 550, answer LHLO 250, answer MAIL 550, answer RCPT 550, answer DATA 550, answer RSET 250, answer RSET 550, answer XCLIENT 220, answer XCLIENT 250, answer XCLIENT 550, answer AUTH 235, answer BDAT 0 LAST 550, answer word 235, answer word 250, answer word 550", state: Command, returned: "send 1", kept: none, why: "the client has had its greeting"},
				{inputs: "answer NOOP 334, answer AUTH 334, answer word 334", state: OwnResponse, returned: "send 1", kept: none, why: "the hook begins an exchange"},
				{inputs: "answer NOOP 421, answer BDAT 5 421, answer BDAT 5 LAST 421, answer word 421", state: Closing, returned: "send 1, disconnect", kept: none, why: "RFC 5321 section 3.8"},
				{inputs: "answer AUTH 550, answer AUTHX 500", state: Command, returned: "send 1", kept: "suspect", why: "the next line may be the password"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550, answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: Command, returned: "send 1, discard 5", kept: "5 to come", why: "the server drops the chunk"},
				{inputs: "answer BDAT 5 334", state: OwnResponse, returned: "send 1, discard 5", kept: "5 to come", why: "likewise"},
				{inputs: "answer BDAT x 501", state: Closing, returned: "send 1, disconnect", kept: "chunk size", why: "nobody knows where the chunk ends"},
				{inputs: "reply 220, " + accepting + ", " + intermediate + ", " + negativeBut421, state: Command, returned: "forward", kept: none, why: "the server knows what it does"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: none, why: "RFC 5321 section 3.8"},
				{inputs: "restart", state: Handover, kept: none, why: "the client waits for a greeting, whoever it is"},
				{inputs: "restarted", state: never, why: "the server has the connection that it had"},
			}),
		},
		{
			name: "Greeting, restarted", like: "Greeting", from: "Handover, for a restart at the greeting", way: "restarted",
			at: Greeting, kept: none,
			rows: []row{
				{inputs: "restart", state: Handover, kept: none, why: "the hook may be told of another client behind it"},
			},
		},
		{
			name: "Greeting, restarted, no relay", like: "Greeting, no relay", from: "Handover, for a restart at the greeting, no relay", way: "restarted",
			at: Greeting, kept: none,
		},
		{
			name: "Regreeting", like: "Greeting", from: "Handover", way: "TLS starts",
			at: Regreeting, kept: "TLS, then Regreeting",
			rows: []row{
				{inputs: accepting + ", " + intermediate + ", " + negative, state: Postponed, returned: "postpone", kept: "TLS, then Regreeting", why: "RFC 3207 has no place for it"},
				{inputs: "reply 220", state: Command, returned: "swallow", kept: "TLS, then Regreeting", why: "the client has had a greeting"},
				{inputs: "restart", state: never, why: "no hook is asked between the handshake and the next command"},
			},
		},
		{
			name: "Restarting", like: "Greeting", from: "Handover, for a restart", way: "restarted",
			at: Restarting, kept: "then Restarting",
			rows: []row{
				{inputs: "reply 220, " + accepting + ", " + negativeBut421, state: Command, returned: "forward", kept: "then Restarting", why: "the client waits for a reply to its command, and takes the greeting for it"},
				{inputs: intermediate, state: Closing, returned: "lose step", kept: "then Restarting, out of step", why: "a client may take any 3xx for 354"},
				{inputs: "reply 421", state: Over, returned: "forward", kept: "then Restarting", why: "RFC 5321 section 3.8"},
				{inputs: "restart", state: never, why: "no hook is asked before the client has the reply"},
			},
		},
		{
			name: "Restarting, no relay", like: "Restarting", from: "Handover, for a restart, no relay", way: "restarted",
			at: Restarting, kept: "then Restarting",
			rows: slices.Concat(session, []row{
				{inputs: intermediate, state: Command, returned: "forward", kept: "then Restarting", why: "the server knows what it does"},
			}),
		},
		{
			name: "Restarting in TLS", like: "Restarting", from: "Command, TLS from the start", way: "restart, restarted",
			at: Restarting, kept: "TLS, then Restarting",
			rows: []row{
				{inputs: "reply 220, " + accepting + ", " + negativeBut421, state: Command, returned: "forward", kept: "TLS, then Restarting", why: "TLS ends in the library, which goes on with it"},
			},
		},
		{
			name: "Postponed", from: "Regreeting", way: "reply 554",
			at: Postponed, kept: "TLS, then Regreeting",
			rows: slices.Concat(noTurn, alone, without(ofPostponed.name, usual), []row{
				{inputs: "send postponed", state: Closing, kept: "TLS, then Regreeting", why: "the client has it now"},
			}),
		},
		{
			name: "Command", from: "Greeting", way: "reply 220",
			at: Command, kept: none,
			rows: slices.Concat(without(names(ofRestart...), usual), alone, []row{
				{inputs: "begin", state: stays, returned: "ready", why: "it's the client's turn"},
				{inputs: "pass HELO, pass EHLO, pass LHLO, pass MAIL, pass RSET, pass NOOP, pass QUIT, pass AUTH, pass AUTHX, pass XCLIENT, pass FOO", state: Executing, returned: "hand over", kept: "1 due", why: "what it makes of that, its reply tells"},
				{inputs: "pass MAIL with many parameters", state: stays, returned: "refuse 555", why: "a hook sees but some of them"},
				{inputs: "pass RCPT, pass DATA", state: stays, returned: "refuse 503", why: "the server may have a transaction that it has kept"},
				{inputs: "pass BDAT 5, pass BDAT 5 LAST, pass BDAT 0 LAST", state: stays, returned: "refuse 502", why: "it isn't certain that the server reads the chunk"},
				{inputs: "pass BDAT x", state: stays, returned: "refuse 501, nonsense", why: "nobody knows where the chunk ends"},
				{inputs: "pass STARTTLS", state: Handover, returned: "start TLS", kept: "then Regreeting", why: "TLS ends in the library"},
				{inputs: "pass STARTTLS and more", state: stays, returned: "refuse 503, behind STARTTLS", why: "RFC 3207 section 4: it would be executed inside TLS"},
				{inputs: "pass STARTTLS x", state: stays, returned: "refuse 501, nonsense", why: "RFC 3207 section 4: no parameters"},
				{inputs: "pass STARTTLSX, pass word", state: stays, returned: "refuse 500, nonsense", why: "some servers would take it for what it isn't"},
				{inputs: "answer NOOP 250, answer NOOP 550, answer HELO 250, answer EHLO 250, answer EHLO 550, answer LHLO 250, answer MAIL 550, answer RCPT 550, answer DATA 550, answer RSET 250, answer RSET 550, answer XCLIENT 220, answer XCLIENT 250, answer XCLIENT 550, answer AUTH 235, answer word 235, answer word 250, answer word 550", state: stays, returned: "send 1", why: "the server knows nothing of it"},
				{inputs: "answer BDAT 0 LAST 550", state: stays, returned: "send 1", why: "there is no chunk to drop"},
				{inputs: "answer NOOP 334, answer AUTH 334, answer word 334", state: OwnResponse, returned: "send 1", kept: none, why: "the hook begins an exchange"},
				{inputs: "answer NOOP 421, answer BDAT 5 421, answer BDAT 5 LAST 421, answer word 421", state: Closing, returned: "send 1, disconnect", kept: none, why: "RFC 5321 section 3.8"},
				{inputs: "answer nonsense 500", state: Command, returned: "send 1", kept: none, why: "an error is borne with"},
				{inputs: "answer AUTH 550, answer AUTHX 500", state: Command, returned: "send 1", kept: "suspect", why: "the next line may be the password"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550, answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: DropChunk, returned: "send 1, discard 5", kept: "5 to come, then Command", why: "RFC 3030 section 2: the chunk follows whatever the reply"},
				{inputs: "answer BDAT 5 334", state: DropChunk, returned: "send 1, discard 5", kept: "5 to come, then OwnResponse", why: "likewise, and then the hook's exchange"},
				{inputs: "answer BDAT x 501", state: Closing, returned: "send 1, disconnect", kept: "chunk size", why: "nobody knows where the chunk ends"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the client has sent a command, and the greeting of the fresh connection is its reply"},
				{inputs: "restarted", state: never, why: "the server has the connection that it had"},
			}),
		},
		{
			name: "Command, no relay", like: "Command", from: "Greeting, no relay", way: "reply 220",
			at: Command, kept: none,
			rows: slices.Concat(session, []row{
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: Executing, returned: "hand over", kept: "1 due", why: "the server shakes hands by itself"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550, answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: Command, returned: "send 1, discard 5", kept: "5 to come", why: "the server drops the chunk"},
				{inputs: "answer BDAT 5 334", state: OwnResponse, returned: "send 1, discard 5", kept: "5 to come", why: "likewise"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the server greets afresh by itself"},
			}),
		},
		{
			name: "Command, restarted", like: "Command", from: "Restarting", way: "reply 220",
			at: Command, kept: "then Restarting",
			rows: []row{
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "a front end may tell of one client behind another"},
			},
		},
		{
			name: "Command, restarted, no relay", like: "Command, no relay", from: "Restarting, no relay", way: "reply 220",
			at: Command, kept: "then Restarting",
		},
		{
			name: "Command, greeted", like: "Command", from: "Command", way: "pass EHLO, reply 250",
			at: Command, kept: none,
		},
		{
			name: "Command, in LMTP", like: "Command", from: "Command", way: "pass LHLO, reply 250",
			at: Command, kept: "LMTP",
			rows: []row{
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "LHLO was said to the server of before"},
			},
		},
		{
			name: "Command, more behind it", like: "Command", from: "Command", more: true,
			at: Command, kept: none,
			rows: []row{
				{inputs: "answer MAIL 550, answer RCPT 550, answer RSET 250, answer RSET 550", state: stays, returned: "send 1, hold", why: "RFC 2920 section 3.2 (5) and (6)"},
			},
		},
		{
			name: "Command, TLS from the start", like: "Command", way: "reply 220", start: Start{Relay: true, TLS: true},
			at: Command, kept: "TLS",
			rows: []row{
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: stays, returned: "refuse 503", why: "RFC 3207 section 4.2: once is enough"},
				{inputs: "restart", state: Handover, kept: "TLS, then Restarting", why: "whoever the client is, it stays inside TLS"},
			},
		},
		{
			name: "Command, TLS isn't offered", like: "Command", way: "reply 220", start: Start{Relay: true}, policy: &Policy{Commands: 100, Errors: 1},
			at: Command, kept: none,
			rows: []row{
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: stays, returned: "refuse 502", why: "the library can't shake hands"},
			},
		},
		{
			name: "Command, AUTH is held back", like: "Command", way: "reply 220", start: Start{Relay: true}, policy: &Policy{ProtectAUTH: true, OffersTLS: true, Commands: 100, Errors: 1},
			at: Command, kept: none,
			rows: []row{
				{inputs: "pass AUTH", state: stays, returned: "refuse 523", why: "RFC 4954 section 4: not without TLS"},
			},
		},
		{
			name: "Command, authenticated", like: "Command", from: "Command", way: "pass AUTH, reply 235",
			at: Command, kept: "auth",
			rows: []row{
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: stays, returned: "refuse 503", why: "what is known would be forgotten"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "whoever has authenticated was another"},
			},
		},
		{
			name: "Command, behind a failed AUTH", like: "Command", from: "Command", way: "pass AUTH, reply 550",
			at: Command, kept: "suspect",
			rows: []row{
				{inputs: "begin", state: stays, returned: "ready, secret", why: "an unknown verb may be the password"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "whoever has failed was another, and so is the secret"},
			},
		},
		{
			name: "Command, in a transaction", like: "Command", from: "Command", way: "pass MAIL, reply 250",
			at: Command, kept: "active",
			rows: []row{
				{inputs: "pass MAIL, pass MAIL with many parameters", state: stays, returned: "refuse 503", why: "RFC 5321 section 4.1.1.2; go-smtp would keep the recipients"},
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: stays, returned: "refuse 503", why: "what is known would be forgotten"},
				{inputs: "pass RCPT, pass DATA", state: Executing, returned: "hand over", kept: "active, 1 due", why: "there is a transaction"},
				{inputs: "answer HELO 250, answer EHLO 250, answer LHLO 250, answer RSET 250, answer XCLIENT 220", state: Command, returned: "send 1, cleared", kept: "doubtful", why: "the client counts on none, the server has it"},
				{inputs: "answer BDAT 0 LAST 550", state: Command, returned: "send 1, cleared", kept: "doubtful", why: "a message with a hole must not reach its end"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550, answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: DropChunk, returned: "send 1, discard 5, cleared", kept: "doubtful, 5 to come, then Command", why: "likewise, and the chunk follows"},
				{inputs: "answer BDAT 5 334", state: DropChunk, returned: "send 1, discard 5, cleared", kept: "doubtful, 5 to come, then OwnResponse", why: "likewise, and then the hook's exchange"},
				{inputs: "answer BDAT 5 421, answer BDAT 5 LAST 421", state: Closing, returned: "send 1, cleared, disconnect", kept: "doubtful", why: "RFC 5321 section 3.8"},
				{inputs: "answer BDAT x 501", state: Closing, returned: "send 1, cleared, disconnect", kept: "doubtful, chunk size", why: "nobody knows where the chunk ends"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the server has none on a fresh connection"},
			},
		},
		{
			name: "Command, with a recipient", like: "Command, in a transaction", from: "Command, in a transaction", way: "pass RCPT, reply 250",
			at: Command, kept: "active, 1 recipients",
			rows: []row{
				{inputs: "pass BDAT 5, pass BDAT 5 LAST", state: Chunk, returned: "hand over, begins", kept: "active, 1 recipients, 5 to come, 1 due", why: "the server reads the chunk"},
				{inputs: "pass BDAT 0 LAST", state: Executing, returned: "hand over, begins", kept: "active, 1 recipients, 1 due", why: "there is nothing to read"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the server has neither a transaction nor a recipient on a fresh connection"},
			},
		},
		{
			name: "Command, with all recipients", like: "Command, with a recipient", from: "Command, with a recipient", way: "pass RCPT, reply 250",
			at: Command, kept: "active, 2 recipients",
			rows: []row{
				{inputs: "pass RCPT", state: stays, returned: "refuse 452", why: "RFC 5321 section 4.5.3.1.10"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "likewise"},
			},
		},
		{
			name: "Command, with a recipient, no relay", like: "Command, with a recipient", from: "Command, no relay", way: "pass MAIL, reply 250, pass RCPT, reply 250",
			at: Command, kept: "active, 1 recipients",
			rows: slices.Concat(session, []row{
				{inputs: "pass BDAT 5, pass BDAT 5 LAST", state: Executing, returned: "hand over, begins", kept: "active, 1 recipients, 1 due", why: "the server reads the chunk without the session"},
				{inputs: "pass STARTTLS, pass STARTTLS and more", state: Executing, returned: "hand over", kept: "active, 1 recipients, 1 due", why: "the server knows what it does"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550, answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: Command, returned: "send 1, discard 5, cleared", kept: "doubtful, 5 to come", why: "the server drops the chunk"},
				{inputs: "answer BDAT 5 334", state: OwnResponse, returned: "send 1, discard 5, cleared", kept: "doubtful, 5 to come", why: "likewise"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "likewise"},
			}),
		},
		{
			name: "Command, with two recipients in LMTP", like: "Command, with all recipients", from: "Command, in LMTP", way: "pass MAIL, reply 250, pass RCPT, reply 250, pass RCPT, reply 250",
			at: Command, kept: "LMTP, active, 2 recipients",
			rows: []row{
				{inputs: "pass BDAT 5 LAST", state: Chunk, returned: "hand over, begins", kept: "LMTP, active, 2 recipients, 5 to come, 2 due", why: "RFC 2033 section 4.3: one for each recipient"},
				{inputs: "pass BDAT 0 LAST", state: Executing, returned: "hand over, begins", kept: "LMTP, active, 2 recipients, 2 due", why: "likewise"},
				{inputs: "answer BDAT 5 250, answer BDAT 5 550", state: DropChunk, returned: "send 1, discard 5, cleared", kept: "LMTP, doubtful, 2 owed, 5 to come, then Command", why: "the client counts on two behind the last chunk"},
				{inputs: "answer BDAT 5 334", state: DropChunk, returned: "send 1, discard 5, cleared", kept: "LMTP, doubtful, 2 owed, 5 to come, then OwnResponse", why: "likewise"},
				{inputs: "answer BDAT 0 LAST 550", state: Command, returned: "send 2, cleared", kept: "LMTP, doubtful", why: "RFC 2033 section 4.3: one for each recipient"},
				{inputs: "answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: DropChunk, returned: "send 2, discard 5, cleared", kept: "LMTP, doubtful, 5 to come, then Command", why: "likewise"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "likewise, and LHLO was said to the server of before"},
			},
		},
		{
			name: "Command, behind a chunk", like: "Command, with a recipient", from: "Command, with a recipient", way: "pass BDAT 5, hand chunk, reply 250",
			at: Command, kept: "active, 1 recipients, 5 octets",
			rows: []row{
				{inputs: "pass BDAT 0 LAST", state: Executing, returned: "hand over", kept: "active, 1 recipients, 5 octets, 1 due", why: "content has come before"},
				{inputs: "pass BDAT 5, pass BDAT 5 LAST", state: Chunk, returned: "hand over", kept: "active, 1 recipients, 5 octets, 5 to come, 1 due", why: "likewise"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the message of which the chunk is a part is gone"},
			},
		},
		{
			name: "Command, no more small chunks", like: "Command, behind a chunk", from: "Command, behind a chunk", way: "pass BDAT 5, hand chunk, reply 250",
			at: Command, kept: "active, 1 recipients, 10 octets",
			rows: []row{
				{inputs: "pass BDAT 5, pass BDAT 5 LAST, pass BDAT 0 LAST", state: stays, returned: "refuse 421, too many", why: "each costs the server a command"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "likewise"},
			},
		},
		{
			name: "Command, an error before", like: "Command", from: "Command", way: "answer nonsense 500",
			at: Command, kept: none,
			rows: []row{
				{inputs: "answer nonsense 500", state: Closing, returned: "421 instead, send 1, disconnect", kept: "too many", why: "one error too many"},
			},
		},
		{
			name: "Command, doubtful", like: "Command", from: "Command, with a recipient", way: "pass EHLO, reply 250",
			at: Command, kept: "doubtful",
			rows: []row{
				{inputs: "pass MAIL", state: Resetting, returned: "reset first", kept: "doubtful, 1 due", why: "the server may have a transaction still"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the server is sure to have no transaction on a fresh connection"},
			},
		},
		{
			name: "Command, doubtful, no relay", like: "Command, no relay", from: "Command, with a recipient, no relay", way: "pass EHLO, reply 250",
			at: Command, kept: "doubtful",
			rows: []row{
				{inputs: "pass MAIL", state: Executing, returned: "reset first", kept: "doubtful, 1 due", why: "the server forgets its transaction by itself"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "likewise"},
			},
		},
		{
			name: "Command, a chunk refused in LMTP", like: "Command, in LMTP", from: "Command, with two recipients in LMTP", way: "pass BDAT 5, hand chunk, reply 550",
			at: Command, kept: "LMTP, doubtful, 2 owed",
			rows: []row{
				{inputs: "pass MAIL", state: Resetting, returned: "reset first", kept: "LMTP, doubtful, 2 owed, 1 due", why: "some servers have recipients left"},
				{inputs: "answer HELO 250, answer EHLO 250, answer LHLO 250, answer RSET 250, answer XCLIENT 220", state: Command, returned: "send 1", kept: "LMTP, doubtful", why: "the client counts on nothing any more"},
				{inputs: "answer BDAT 0 LAST 550", state: Command, returned: "send 2", kept: "LMTP, doubtful", why: "RFC 2033 section 4.3: it counts on two still"},
				{inputs: "answer BDAT 5 LAST 250, answer BDAT 5 LAST 550", state: DropChunk, returned: "send 2, discard 5", kept: "LMTP, doubtful, 5 to come, then Command", why: "likewise, and the chunk follows"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the client counts on nothing any more"},
			},
		},
		{
			name: "Command, restarted in a transaction in LMTP", like: "Command", from: "Command, with two recipients in LMTP", way: "restart, restarted, reply 220",
			at: Command, kept: "then Restarting",
			rows: []row{
				{inputs: "pass MAIL", state: Executing, returned: "hand over", kept: "1 due, then Restarting", why: "there is nothing that the server would have to forget"},
			},
		},
		{
			name: "Command, restarted where a chunk was refused in LMTP", like: "Command", from: "Command, a chunk refused in LMTP", way: "restart, restarted, reply 220",
			at: Command, kept: "then Restarting",
			rows: []row{
				{inputs: "pass MAIL", state: Executing, returned: "hand over", kept: "1 due, then Restarting", why: "there is nothing that the server would have to forget"},
				{inputs: "answer BDAT 0 LAST 550", state: stays, returned: "send 1", kept: "then Restarting", why: "the client counts on one reply, as it hasn't said LHLO"},
			},
		},
		{
			name: "Command, restarted behind a failed AUTH", like: "Command", from: "Command, behind a failed AUTH", way: "restart, restarted, reply 220",
			at: Command, kept: "then Restarting",
		},
		{
			name: "Command, behind a message with two recipients", like: "Command", from: "Command, with all recipients", way: "pass DATA, reply 354, hand end, reply 250",
			at: Command, kept: "statuses",
			rows: []row{
				{inputs: "answer NOOP 250, answer NOOP 550, answer HELO 250, answer EHLO 250, answer EHLO 550, answer LHLO 250, answer MAIL 550, answer RCPT 550, answer DATA 550, answer RSET 250, answer RSET 550, answer XCLIENT 220, answer XCLIENT 250, answer XCLIENT 550, answer AUTH 235, answer BDAT 0 LAST 550, answer word 235, answer word 250, answer word 550", state: Command, returned: "send 1", kept: none, why: "the next command ends the message for good"},
				{inputs: "reply 220, " + accepting, state: Over, returned: "forward", kept: "statuses", why: "a server may speak LMTP without LHLO; no message ends with this"},
				{inputs: "restart", state: Handover, kept: "then Restarting", why: "the server has had no message on a fresh connection"},
			},
		},
	}
}
