package smtpproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file is the way from the client to the server.

// turn is what Read has to do next.
type turn uint8

const (
	turnCommand   turn = iota // bring a command
	turnSASL                  // bring a line of a SASL exchange
	turnContent               // bring message content
	turnChunk                 // bring octets of a BDAT chunk
	turnWait                  // wait for the server's reply
	turnRefused               // nobody wants the rest of the content
	turnOver                  // nothing more
	turnPostponed             // the server has refused the client
	turnGone                  // the client goes on with another connection
)

// Read implements net.Conn. It returns at most one command, or a piece of
// message content that no server could read beyond its end.
func (c *conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	returned := false
	defer func() {
		if !returned {
			// The hook has called runtime.Goexit: this goroutine ends.
			c.respond(failureReply.filled(""), false)
			c.closeRaw()
		}
	}()
	n, err = c.bring(p)
	returned = true
	if err != nil {
		c.fail()
	}
	return n, err
}

// fail notes that a Read has failed. A server may give up what it was about then,
// and read commands next.
func (c *conn) fail() {
	c.givenUp.Store(true)
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.flowing && !c.refused {
		c.refuseContent()
	}
}

// bring is Read, for one caller at a time.
func (c *conn) bring(p []byte) (n int, err error) {
	for begins := true; ; begins = false {
		if c.rest.len() > 0 {
			return c.rest.take(p), nil
		}
		if c.closed.Load() {
			return 0, net.ErrClosed
		}
		if err := c.handshake(); err != nil {
			return 0, io.EOF
		}
		if c.unwanted != nil {
			if err := c.discard(); err != nil {
				return 0, err
			}
		}
		if c.rejected {
			return 0, c.reject()
		}
		switch t := c.turn(begins); t {
		case turnCommand, turnSASL:
			var line string
			var ok bool
			if line, ok, err = c.line(p, c.s.cfg.lineLimit(t == turnSASL)); ok {
				n = c.bringCommand(p, line)
			}
		case turnContent:
			n, err = c.bringContent(p)
		case turnChunk:
			n, err = c.bringChunk(p)
		case turnWait:
			err = c.awaitReply()
		case turnRefused:
			c.linger(drainTime, maxDrain)
			err = io.EOF
		case turnOver:
			err = c.finish()
		case turnPostponed:
			err = c.bringPostponed(p)
		case turnGone:
			err = io.EOF
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && c.turn(false) == turnOver {
			continue // that was lostStep
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// turn tells what is next. begins tells that a Read has just begun.
func (c *conn) turn(begins bool) turn {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins && s.phase == phaseReply {
		s.advance(&event{kind: readsOn})
	}
	if c.undecided != nil {
		close(c.undecided)
		c.undecided, c.flowing = nil, true
	}
	switch {
	case c.next != nil:
		return turnGone
	case c.postponed.len() > 0:
		return turnPostponed
	case c.refused:
		return turnRefused
	case c.flowing:
		return turnContent
	case s.phase == phaseOver:
		return turnOver
	case c.chunk > 0:
		return turnChunk
	case s.phase == phaseContent && !c.sure:
		c.ended = false // the server reads on, so what it has was not the end
		return turnContent
	case s.phase == phaseReply, s.phase == phaseContent, s.phase == phaseGreeting:
		return turnWait
	case s.phase == phaseSASL, s.phase == phaseOwn:
		return turnSASL
	}
	return turnCommand
}

// bringCommand takes the client's line to the hook, and to the server what the
// hook passes. It returns 0 if there was nothing for the server.
func (c *conn) bringCommand(p []byte, line string) int {
	if c.isDoubtful() {
		c.s.logLostStep("response in a SASL exchange that the server may have given up")
		c.hangUp(failureReply)
		return 0
	}
	c.pause()
	var d decision
	c.s.decide(c.s.ctx, line, c.in.len() > 0, &d)
	switch {
	case d.over:
		return 0
	case d.tls:
		c.startTLS()
		c.renewRead()
		return 0
	case d.refused:
		return c.bringReply(p, line, &d)
	case c.endsBehindCR(d.chunk):
		return 0
	}
	return c.hand(p, d.pass.Command, d.chunk)
}

// bringReply answers a line that the server doesn't get.
func (c *conn) bringReply(p []byte, line string, d *decision) int {
	c.renewRead()
	if octets := c.s.Discard(); octets > 0 {
		c.unwanted, c.slack = &unwanted{octets, d.reply}, dataSlack
		return 0
	}
	c.answer(d.reply, mayHold(verbOf(line)))
	if d.cancel && !d.reply.Disconnect {
		// RFC 4954 section 4: the client cancels an exchange with "*".
		return c.hand(p, "*", 0)
	}
	return 0
}

// isDoubtful tells whether the server may take a SASL response for a command,
// which the hook wasn't shown: go-smtp gives an exchange up without a reply if it
// can't read the response in time, and then reads commands.
func (c *conn) isDoubtful() bool {
	if !c.givenUp.Load() {
		return false
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.phase == phaseSASL
}

// answer sends the hook's or the library's reply to a command.
func (c *conn) answer(r Reply, hold bool) {
	if r.Disconnect {
		c.s.mu.Lock()
		c.drop = true
		c.s.mu.Unlock()
	}
	c.respond(r, hold)
}

// bringPostponed answers the client's next command with the greeting that the
// server had for it after STARTTLS.
func (c *conn) bringPostponed(p []byte) error {
	_, ok, err := c.line(p, c.s.cfg.line)
	if !ok {
		return err
	}
	c.s.mu.Lock()
	reply := c.postponed.move()
	c.drop = true
	c.s.advance(&event{kind: lost})
	c.s.mu.Unlock()
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.renewWrite()
	c.send(reply.held(), false)
	reply.release()
	return nil
}

// hand gives a line to the server. It ends in CRLF, whatever the client's did.
func (c *conn) hand(p []byte, line string, chunk int64) int {
	if chunk > 0 {
		c.s.mu.Lock()
		c.chunk = chunk
		if c.s.txn.get().octets == 0 {
			c.strict, c.slack = wire.Strict{}, dataSlack
		}
		c.s.mu.Unlock()
	}
	if len(line)+2 <= len(p) {
		n := copy(p, line)
		p[n], p[n+1] = '\r', '\n'
		return n + 2
	}
	c.rest.put([]byte(line + "\r\n"))
	return c.rest.take(p)
}

// line returns the client's next line without its line end, CRLF or LF, and
// whether there is one. With its line end, it has limit octets at most. It may
// use p to read into.
func (c *conn) line(p []byte, limit int) (line string, ok bool, err error) {
	held, inP := c.in.held(), false
	for {
		i := bytes.IndexByte(held, '\n')
		switch {
		case isClientHello(held):
			// It may have no LF, and be followed by silence.
			c.s.logLostStep("TLS without STARTTLS")
			c.hangUp(Reply{Code: 554, Enhanced: EnhancedCode{5, 7, 0}, Lines: []string{"TLS has not been started"}})
			return "", false, nil
		case i >= limit, i < 0 && len(held) >= limit:
			c.tooLong()
			return "", false, nil
		case i >= 0:
			line = string(bytes.TrimSuffix(held[:i], []byte("\r")))
			if inP {
				c.in.put(held[i+1:])
			} else {
				c.in.skip(i + 1)
			}
			if c.bound != 0 {
				c.allow(0)
			}
			c.lookAhead()
			return line, true, nil
		}
		if inP {
			c.in.put(held)
		}
		switch {
		case c.inErr == errTooSlow:
			c.tooSlow()
			return "", false, nil
		case c.inErr != nil:
			// An unfinished line is no command.
			return "", false, c.readError()
		case len(held) > 0 && c.bound == 0 && c.s.cfg.CommandTimeout > 0:
			c.allow(in(c.s.cfg.CommandTimeout))
		}
		held, inP = c.receive(p, min(len(held)+1, limit))
	}
}

// lookAhead notes whether the client has sent a whole line more.
func (c *conn) lookAhead() {
	if more := bytes.IndexByte(c.in.held(), '\n') >= 0; more != c.more.Load() {
		c.more.Store(more)
	}
}

// receive reads once from the client, and returns what there is then. While c.in
// is empty, the server's own slice serves to read into, so that nothing has to
// be kept for a client that is silent, and a line that comes alone isn't copied.
// Otherwise c.in has it, with room for at least size octets.
func (c *conn) receive(p []byte, size int) (held []byte, inP bool) {
	c.flush()
	if c.in.len() > 0 || len(p) < 512 {
		c.in.reserve(max(size, min(2*c.in.len(), smallBuffer), 512))
		c.inErr = c.in.fill((*fromClient)(c), max(size, c.s.cfg.readAhead))
		return c.in.held(), false
	}
	p = p[:min(len(p), c.s.cfg.readAhead)]
	var n int
	n, c.inErr = (*fromClient)(c).Read(p)
	return p[:n], true
}

// fill is receive for content, which comes in bulk.
func (c *conn) fill() {
	c.flush()
	c.in.reserve(min(largeBuffer, c.s.cfg.readAhead))
	c.inErr = c.in.fill((*contentFromClient)(c), c.s.cfg.readAhead)
}

// readError returns the error of the client's connection, when all that was
// read before it is used up. A passed deadline is forgotten, since the server
// may set another.
func (c *conn) readError() error {
	err := c.inErr
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.inErr = nil
	} else {
		c.in.release()
	}
	return err
}

// isClientHello tells whether b starts like a TLS handshake: with the type of
// its record, and the major version if that is there already (RFC 8446 section
// 5.1). No command and no SASL response does.
func isClientHello(b []byte) bool {
	return len(b) > 0 && b[0] == 0x16 && (len(b) == 1 || b[1] == 3)
}

// bringContent gives the server a piece of message content, up to the next
// place where it could see its end.
func (c *conn) bringContent(p []byte) (int, error) {
	for {
		held := c.in.held()
		n, stop := c.content.Next(held, len(p))
		if n > 0 && c.hasBareNewline(held, n, false) {
			c.in.skip(n)
			return 0, nil
		}
		if n > 0 {
			copy(p, held[:n])
			c.in.skip(n)
			if stop != wire.Open {
				c.lookAhead()
				c.stopContent(stop)
			}
			return n, nil
		}
		if c.inErr != nil {
			return 0, c.contentError()
		}
		c.fill()
	}
}

// stopContent notes that what the server gets now may end the content.
func (c *conn) stopContent(stop wire.Stop) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	switch {
	case !c.flowing:
		c.ended, c.sure = true, stop == wire.End
	case stop == wire.End:
		c.flowing = false
	default:
		c.ambiguousEnd()
	}
}

// ambiguousEnd ends the connection where the server has replied already, so
// that its next Read doesn't tell whether it wants content or commands. Its
// caller holds s.mu.
func (c *conn) ambiguousEnd() {
	c.s.logLostStep("ambiguous end of a message that is replied to")
	c.refused, c.drop = true, true
}

// contentError returns the error of a client that is gone, or has to go, in the
// middle of a message. io.EOF would tell some servers that the message is complete.
func (c *conn) contentError() error {
	err := c.readError()
	switch err {
	case io.EOF:
	case errTooSlow:
		c.tooSlow()
	default:
		return err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.advance(&event{kind: lost})
	c.flowing, c.chunk = false, 0
	return io.ErrUnexpectedEOF
}

// bringChunk gives the server octets of a BDAT chunk.
func (c *conn) bringChunk(p []byte) (n int, err error) {
	c.s.mu.Lock()
	p = p[:min(int64(len(p)), c.chunk)]
	c.s.mu.Unlock()
	switch held := c.in.held(); {
	case len(held) > 0:
		n = copy(p, held)
		c.in.skip(n)
	case c.inErr != nil:
		return 0, c.contentError()
	default:
		c.flush()
		n, c.inErr = (*contentFromClient)(c).Read(p)
	}
	c.lookAhead()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.chunk = max(0, c.chunk-int64(n))
	if !c.s.isBinary() && c.hasBareNewline(p[:n], n, c.chunk == 0 && c.s.pending.last) {
		return 0, nil
	}
	return n, nil
}

// discard reads and drops the chunk of a BDAT command that the server didn't
// get, and answers the command then (RFC 3030 section 2). What is left of it
// stays unwanted when a deadline passes meanwhile.
func (c *conn) discard() error {
	for c.unwanted.octets > 0 {
		held := c.in.held()
		switch {
		case len(held) > 0:
			k := min(int64(len(held)), c.unwanted.octets)
			c.in.skip(int(k))
			c.unwanted.octets -= k
		case c.inErr == errTooSlow:
			c.tooSlow()
			return nil
		case c.inErr != nil:
			return c.readError()
		default:
			c.fill()
		}
	}
	c.lookAhead()
	c.renewRead()
	reply := c.unwanted.reply
	c.unwanted = nil
	c.s.mu.Lock()
	left := c.s.phase == phaseOver && !reply.Disconnect
	c.s.mu.Unlock()
	if !left { // else the server has taken its leave meanwhile
		c.answer(reply, false)
	}
	return nil
}
