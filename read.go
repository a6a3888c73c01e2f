package smtpproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"

	"github.com/seed3262c777/smtpproxy/internal/buffer"
	"github.com/seed3262c777/smtpproxy/internal/timed"
	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// This file is the way from the client to the server.

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
			// The hook has called runtime.Goexit, or a log handler or a
			// callback of the TLS configuration: this goroutine ends.
			c.respondIfOpen(failureReply)
			c.client.Close()
		}
	}()
	n, err = c.bring(p)
	if err != nil {
		c.readFailed()
		c.s.report()
	}
	returned = true
	return n, err
}

// readBegins notes that a Read has begun, and returns what Session.readBegins does.
// Its caller holds s.mu.
func (c *conn) readBegins() (missing, code int) {
	missing, code = c.s.readBegins()
	c.stir()
	return missing, code
}

// stir tells a Write that waits of what the server does. Its caller holds s.mu.
func (c *conn) stir() {
	if c.stirs == nil {
		return
	}
	select {
	case c.stirs <- struct{}{}:
	default:
	}
}

// readFailed notes that a Read has failed.
func (c *conn) readFailed() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.readFailed()
	c.stir()
}

// bring is Read, for one caller at a time.
func (c *conn) bring(p []byte) (n int, err error) {
	for begins := true; ; begins = false {
		if c.rest.Len() > 0 {
			return c.rest.Take(p), nil
		}
		if c.closed.Load() {
			return 0, net.ErrClosed
		}
		if err := c.begin(); err != nil {
			return 0, io.EOF
		}
		if c.unwanted != nil {
			if err := c.discard(); err != nil {
				return 0, err
			}
		}
		if c.rejected != reasonNone {
			return 0, c.reject()
		}
		if n, err = c.bringNext(p, begins); n > 0 {
			return n, nil
		}
		if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && c.isOver()) {
			return 0, err
		}
		// Else the deadline was lostStep's, which has interrupted the read:
		// the next look tells so.
	}
}

// bringNext does what the dialogue is at. It returns 0 and no error if there was
// nothing for the server. begins tells that a Read has just begun.
func (c *conn) bringNext(p []byte, begins bool) (n int, err error) {
	missing, code := 0, 0
	c.s.mu.Lock()
	if begins {
		missing, code = c.readBegins()
	}
	phase, handedOver := c.s.phase, c.next != nil
	c.s.mu.Unlock()
	for range missing {
		c.respond(Reply{Code: code}, false)
	}
	if handedOver {
		return 0, io.EOF
	}
	switch phase {
	case phaseCommand, phaseSASL, phaseOwn:
		line, ok, err := c.line(p, c.s.cfg.lineLimit(phase != phaseCommand))
		if ok {
			return c.bringCommand(p, line), nil
		}
		return 0, err
	case phaseSASLGivenUp:
		_, ok, err := c.line(p, c.s.cfg.lineLimit(true))
		if ok {
			// The server might take it for a command, which the hook
			// wasn't shown.
			c.hangUp(reasonSASLGivenUp, failureReply)
		}
		return 0, err
	case phasePostponed:
		return 0, c.bringPostponed(p)
	case phaseReset:
		if line, ok := c.s.behindReset(); ok {
			return c.hand(p, line), nil
		}
		return 0, nil // it was closed meanwhile
	case phaseContent, phaseReadOn, phaseSurplus:
		return c.bringContent(p)
	case phaseChunk:
		return c.bringChunk(p)
	case phaseUnwanted:
		c.linger(drainTime, maxDrain)
		return 0, io.ErrUnexpectedEOF
	case phaseGivenUp:
		return 0, io.ErrUnexpectedEOF
	case phaseOver:
		return 0, c.finish()
	}
	return 0, c.awaitReply()
}

// isOver tells whether the dialogue is.
func (c *conn) isOver() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.phase == phaseOver
}

// bringCommand takes the client's line to the hook, and to the server what the
// hook passes. It returns 0 if there was nothing for the server.
func (c *conn) bringCommand(p []byte, line string) int {
	c.client.Pause()
	var d decision
	c.s.decide(c.s.ctx, line, c.in.Len() > 0, &d)
	switch {
	case d.over:
		return 0
	case d.tls:
		c.startTLS()
		return 0
	case d.refused:
		return c.bringReply(p, line, &d)
	case c.endsBehindCR():
		return 0
	case d.reset:
		return c.hand(p, "RSET")
	case d.chunk:
		c.beginChunk()
	}
	return c.hand(p, d.pass.Command)
}

// bringReply answers a line that the server doesn't get. The client's time starts
// anew with what the hook has answered; what the library refuses renews nothing, or
// a server that limits the whole session by one deadline would never see its end.
func (c *conn) bringReply(p []byte, line string, d *decision) int {
	if !d.library {
		c.client.RenewRead()
	}
	if d.discard > 0 {
		c.unwanted = &unwanted{octets: d.discard, reply: d.reply, copies: int(d.copies), renews: !d.library}
		c.client.StartPace()
		return 0
	}
	c.answer(d.reply, int(d.copies), mayHold(verbOf(line)))
	if d.cancel && !d.reply.Disconnect {
		// RFC 4954 section 4: the client cancels an exchange with "*".
		return c.hand(p, "*")
	}
	return 0
}

// answer sends the hook's or the library's reply to a command.
func (c *conn) answer(r Reply, copies int, hold bool) {
	if r.Disconnect {
		c.s.mu.Lock()
		c.drop = true
		c.s.mu.Unlock()
	}
	for range copies {
		c.respond(r, hold)
	}
}

// bringPostponed answers the client's next command with the greeting that the
// server had for it after STARTTLS.
func (c *conn) bringPostponed(p []byte) error {
	_, ok, err := c.line(p, c.s.cfg.line)
	if !ok {
		return err
	}
	c.s.mu.Lock()
	c.drop = true
	c.s.setPhase(phaseOver)
	c.s.mu.Unlock()
	c.client.RenewWrite()
	c.sendKept()
	return nil
}

// hand gives a line to the server. It ends in CRLF, whatever the client's did.
func (c *conn) hand(p []byte, line string) int {
	if len(line)+2 <= len(p) {
		n := copy(p, line)
		p[n], p[n+1] = '\r', '\n'
		return n + 2
	}
	c.rest.Put([]byte(line + "\r\n"))
	return c.rest.Take(p)
}

// line returns the client's next line without its line end, CRLF or LF, and
// whether there is one. With its line end, it has limit octets at most. It may
// use p to read into.
func (c *conn) line(p []byte, limit int) (line string, ok bool, err error) {
	held, inP := c.in.Held(), false
	for {
		i := bytes.IndexByte(held, '\n')
		switch {
		case isClientHello(held):
			// It may have no LF, and be followed by silence.
			c.hangUp(reasonTLSUnasked, Reply{Code: 554, Enhanced: EnhancedCode{5, 7, 0}, Lines: []string{"TLS has not been started"}})
			return "", false, nil
		case i >= limit, i < 0 && len(held) >= limit:
			c.tooLong()
			return "", false, nil
		case i >= 0:
			line = string(bytes.TrimSuffix(held[:i], []byte("\r")))
			if inP {
				c.in.Put(held[i+1:])
			} else {
				c.in.Skip(i + 1)
			}
			if c.client.HasReadBound() {
				c.client.SetReadBound(0)
			}
			c.lookAhead()
			return line, true, nil
		}
		if inP {
			c.in.Put(held)
		}
		switch {
		case c.inErr == timed.ErrTooSlow:
			c.tooSlow()
			return "", false, nil
		case c.inErr != nil:
			// An unfinished line is no command.
			return "", false, c.readError()
		case len(held) > 0 && !c.client.HasReadBound() && c.s.cfg.CommandTimeout > 0:
			c.client.SetReadBound(timed.FromNow(c.s.cfg.CommandTimeout))
		}
		held, inP = c.receive(p, min(len(held)+1, limit))
	}
}

// lookAhead notes whether the client has sent a whole line more.
func (c *conn) lookAhead() {
	if more := bytes.IndexByte(c.in.Held(), '\n') >= 0; more != c.more.Load() {
		c.more.Store(more)
	}
}

// receive reads once from the client, and returns what there is then. While c.in
// is empty, the server's own slice serves to read into, so that nothing has to
// be kept for a client that is silent, and a line that comes alone isn't copied.
// Otherwise c.in has it, with room for at least size octets.
func (c *conn) receive(p []byte, size int) (held []byte, inP bool) {
	c.flush()
	if c.in.Len() > 0 || len(p) < 512 {
		c.in.Reserve(max(size, min(2*c.in.Len(), buffer.Small), 512))
		c.inErr = c.in.Fill(&c.client, max(size, c.s.cfg.readAhead))
		return c.in.Held(), false
	}
	p = p[:min(len(p), c.s.cfg.readAhead)]
	var n int
	n, c.inErr = c.client.Read(p)
	return p[:n], true
}

// fill is receive for content, which comes in bulk.
func (c *conn) fill() {
	c.flush()
	c.in.Reserve(min(buffer.Large, c.s.cfg.readAhead))
	c.inErr = c.in.Fill((*contentFromClient)(c), c.s.cfg.readAhead)
}

// contentFromClient reads message content: see Proxy.MinDataRate.
type contentFromClient conn

// Read implements io.Reader.
func (c *contentFromClient) Read(p []byte) (int, error) {
	return c.client.ReadPaced(p, c.s.cfg.MinDataRate)
}

// readError returns the error of the client's connection, when all that was
// read before it is used up. A passed deadline is forgotten, since the server
// may set another.
func (c *conn) readError() error {
	err := c.inErr
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.inErr = nil
	} else {
		c.in.Release()
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
		held := c.in.Held()
		n, stop := c.content.Next(held, c.piece(held, len(p)))
		if n > 0 {
			return c.handContent(p, held, n, stop), nil
		}
		if c.inErr != nil {
			return 0, c.contentError()
		}
		c.fill()
	}
}

// piece returns how much of held the server may get at once, at most. Some servers
// that refuse a message at one of its lines take those behind it, as far as they have
// read them, for commands: bradfitz/go-smtpd does. So it gets one line, whatever
// ends it.
func (c *conn) piece(held []byte, most int) int {
	held = held[:min(len(held), most)]
	if c.s.cfg.BulkContent && c.s.cfg.MaxTextLine <= 0 {
		return len(held)
	}
	if i := bytes.IndexByte(held, '\n'); i >= 0 {
		held = held[:i+1]
	}
	if i := bytes.IndexByte(held, '\r'); i >= 0 && i+1 < len(held) && held[i+1] != '\n' {
		held = held[:i+1]
	}
	return len(held)
}

// handContent gives the server held[:n], unless that must not be.
func (c *conn) handContent(p, held []byte, n int, stop wire.Stop) int {
	if c.isRejected(held, n, false) || c.isTooLong(held[:n]) {
		c.in.Skip(n)
		return 0
	}
	c.s.mu.Lock()
	do := c.s.handed(stop)
	c.stir()
	c.s.mu.Unlock()
	switch do {
	case withhold:
		return 0
	case hangUp:
		c.hangUp(reasonAmbiguousEnd, failureReply)
		return 0
	}
	copy(p, held[:n])
	c.in.Skip(n)
	if stop != wire.Open {
		c.lookAhead()
	}
	if do == handOverAndTell {
		c.sendKept()
	}
	return n
}

// contentError returns the error of a client that is gone, or has to go, in the
// middle of a message. io.EOF would tell some servers that the message is complete.
func (c *conn) contentError() error {
	err := c.readError()
	switch err {
	case io.EOF:
		return io.ErrUnexpectedEOF
	case timed.ErrTooSlow:
		c.tooSlow()
		return io.ErrUnexpectedEOF
	}
	return err
}

// bringChunk gives the server octets of a BDAT chunk.
func (c *conn) bringChunk(p []byte) (n int, err error) {
	left, last := c.chunk()
	p = p[:min(int64(len(p)), left)]
	switch held := c.in.Held(); {
	case len(held) > 0:
		n = copy(p, held)
		c.in.Skip(n)
	case c.inErr != nil:
		return 0, c.contentError()
	default:
		c.flush()
		n, c.inErr = c.client.ReadPaced(p, c.s.cfg.MinDataRate)
	}
	c.lookAhead()
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if !c.s.handedChunk(n) || !c.s.isBinary() && c.isRejected(p[:n], n, last && left == int64(n)) {
		return 0, nil
	}
	return n, nil
}

// beginChunk notes that the octets of a chunk come next, and perhaps a message
// with them.
func (c *conn) beginChunk() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.txn.get().octets == 0 {
		c.strict = wire.Strict{}
		c.client.StartPace()
	}
}

// chunk returns how many octets of a chunk the server hasn't got, and whether it
// is the last one.
func (c *conn) chunk() (left int64, last bool) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.txn.get().chunk, c.s.pending.last
}

// discard reads and drops the chunk of a BDAT command that the server didn't
// get, and answers the command then (RFC 3030 section 2). What is left of it
// stays unwanted when a deadline passes meanwhile.
func (c *conn) discard() error {
	for c.unwanted.octets > 0 {
		held := c.in.Held()
		switch {
		case len(held) > 0:
			k := min(int64(len(held)), c.unwanted.octets)
			c.in.Skip(int(k))
			c.unwanted.octets -= k
		case c.inErr == timed.ErrTooSlow:
			c.tooSlow()
			return nil
		case c.inErr != nil:
			return c.readError()
		default:
			c.fill()
		}
	}
	c.lookAhead()
	u := c.unwanted
	c.unwanted = nil
	if u.renews {
		c.client.RenewRead()
	}
	if !c.isOver() { // else the server has taken its leave meanwhile
		c.answer(u.reply, u.copies, false)
	}
	return nil
}
