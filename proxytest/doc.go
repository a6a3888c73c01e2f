// Package proxytest tests hooks, and what stands behind and before them.
//
// A [Session] does it without a network: lines in, decisions out.
//
//	s := proxytest.NewSession(&smtpproxy.Proxy{Hook: hook})
//	s.Send("EHLO client.example")
//	s.Send("MAIL FROM:<alice@example.com>")
//	d := s.Send("RCPT TO:<bob@example.org>") // smtpproxy.Pass or smtpproxy.Reply
//
// Behind the hook stands a fake server. It says what a good server would say,
// unless the test has set its answer, so that Connection and Transaction are
// what they would be in a real dialogue. All else is the library itself.
//
// A [Server] is the same behind a real connection, for a client that is a real one: without TLS,
// with STARTTLS, with TLS from the first octet, and for LMTP on a unix socket.
//
//	s := proxytest.NewServer(&smtpproxy.Proxy{Hook: hook, TLSConfig: new(tls.Config)})
//	defer s.Close()
//	c, err := smtp.Dial(s.Addr)
//
// [TestHook] tests what every hook has to stand, whatever it is for: odd lines, commands out of
// order, clients that come at once and leave at any time.
//
//	func TestTheHookStandsWhateverComes(t *testing.T) {
//		proxytest.TestHook(t, func() smtpproxy.Hook { return newHook(config) })
//	}
//
// For those who write servers, [TestServer] finds out whether a server is safe behind the
// library, and what holds there.
//
// # Dialogues in files
//
// [Run] plays dialogues that stand in files, for people to read who know mail and no Go.
// [Record] writes down real sessions in the same form. Such a file looks like this:
//
//	Guests write to no more than two recipients at once.
//
//	-- a guest --
//	C: EHLO client.example
//	S: 250 server.example
//	C: MAIL FROM:<alice@example.com>
//	S: 250 2.1.0 Sender OK
//	A: RCPT 550 5.1.1 No such user
//	C: RCPT TO:<nobody@example.org>
//	S: 550 5.1.1 No such user
//	# The server has refused that one, so it doesn't count.
//	= Transaction.Recipients.Len 0
//
// Text that says what the file is about comes first. Behind a line "-- name --" stands a
// dialogue, each a test of its own with a connection of its own, as in a txtar archive. Its
// lines are:
//
//	C: RCPT TO:<bob@example.org>   the client sends a line. One in quotation marks is a Go
//	                               string: C: "NOOP \x00"
//	C: (connection)                it connects: a ConnectHook is asked, the server greets. Only
//	                               at the start, and only if that matters; what is behind it
//	                               are fields of smtpproxy.Connection, as a hook is to see them:
//	                               C: (connection) RemoteIP=192.0.2.7 RemotePTR=mx.example
//	C: (content)                   it sends the content of a message, after a 354
//	C: (TLS handshake)             it starts TLS, after a 220 to STARTTLS, with fields of
//	                               smtpproxy.TLS behind it: SNI=mx.example
//	C: (leaves) RSET               it sends a line, and is gone while the hook has it
//	C: (gone)                      it is gone
//	A: RCPT 550 5.1.1 No such user the server's answer to the next RCPT that it gets, so it
//	                               stands before the client's: see Session.Answer. The verb (connection) is for its greeting,
//	                               and a line 550-text goes on in the next
//	S: 250 2.0.0 OK                what comes of it, as Session.Transcript writes it: what the
//	H: 550 5.7.1 Not you           server, the hook, and the library reply, and what the hook
//	P: 503 5.5.1 No RCPT command   decides otherwise
//	= Connection.HELO.Host a.test  what a hook would see now: a field of smtpproxy.Connection
//	                               or Transaction; also Transaction.Recipients.Len,
//	                               Transaction.Recipients.0.Recipient, Transaction.SenderParams.SIZE
//	                               and Connection.TLS.PeerCert.Verified
//	# text                         a remark
//
// The lines S:, H: and P: need not be written by hand: with PROXYTEST_UPDATE=1 in the
// environment of "go test", Run writes them, and changes nothing else. Read what it has
// written; it is what the test holds the hook to from then on.
//
// The lines that tell of a pass, of a restart and of a Delay may be left out in a dialogue, all
// of them: a dialogue that has none of the first two tells what the client reads, and
// only that is compared, and written. A new one has them all.
//
// A password stands in the file as the client sends it, so it should be nobody's. In what Run
// prints it is masked.
package proxytest
