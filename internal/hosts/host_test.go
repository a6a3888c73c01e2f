package hosts

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// host is a server of other people's, with handlers that refuse what says so.
type host struct {
	name   string
	lmtp   bool
	early  bool // LMTP: it tells the statuses of accepted recipients before it reads
	chunks bool // it knows BDAT
	auth   bool // it knows AUTH, where there is no *tls.Conn
	// midway: its handler refuses in the middle of a message, upon which it takes
	// for commands what it has already read of the rest.
	midway bool
	// givesUpAt is the length at which a line of content makes the host take what
	// is behind it for commands, 0 if none does. The library can't know.
	givesUpAt int
	// badMail makes a MAIL command that the host refuses, of one with this path.
	badMail func(path string) string
	serve   func(l net.Listener, lim limits, rec *record) error
}

var hosts = []host{mhaleHost, bradfitzHost, chrjHost, goSMTPHost, goLMTPHost, goLMTPEarlyHost}

// limits are those of a host, small, so that they are met often.
type limits struct {
	size       int // octets of a message; 0 is none
	recipients int // of a message
	timeout    time.Duration
}

// What the handlers of all hosts refuse: recipients and senders by how they begin,
// messages by what they contain.
const (
	refusedName  = "no"       // a sender or recipient that starts so is refused
	lateName     = "late"     // a recipient whose status is a refusal, in LMTP
	busyName     = "busy"     // a recipient whose status is 421, in LMTP
	noDataName   = "dataless" // a sender for whom DATA is refused, where the handler can
	noAnswerName = "gone"     // a sender for whom DATA isn't answered, where that happens
	refuseWord   = "refuse"
	customWord   = "refuse with a custom 250"     // where the handler can
	plainWord    = "refuse with a plain error"    // which some hosts don't answer
	lineWord     = "refuse at this line"          // where the handler gets lines
	unreadWord   = "refuse without reading it on" // where the handler reads
)

// verdict is what a handler makes of a message.
type verdict int

const (
	good verdict = iota
	bad
	badCustom
	badPlain
)

func judge(content []byte) verdict {
	switch {
	case bytes.Contains(content, []byte(customWord)):
		return badCustom
	case bytes.Contains(content, []byte(plainWord)):
		return badPlain
	case bytes.Contains(content, []byte(refuseWord)):
		return bad
	}
	return good
}

// tap stands between the host and what is in front of it. It records what the host
// is handed and what it writes, and knows when the host has ended.
type tap struct {
	net.Listener
	rec *record
	wg  sync.WaitGroup

	mu    sync.Mutex
	conns []*tapConn
}

type tapConn struct {
	net.Conn
	tap  *tap
	once sync.Once
}

// Accept implements net.Listener.
func (t *tap) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wg.Add(1)
	tc := &tapConn{Conn: c, tap: t}
	t.conns = append(t.conns, tc)
	t.rec.noteText(opened, "")
	return tc, nil
}

// cut closes all connections beneath the host.
func (t *tap) cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		c.Conn.Close()
	}
}

// NetConn lets smtpproxy.SessionOf find the session.
func (c *tapConn) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn.
func (c *tapConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.tap.rec.noteText(handed, string(p[:n]))
	}
	if err != nil {
		c.tap.rec.noteText(unread, err.Error())
	}
	return n, err
}

// Write implements net.Conn. What is written is noted before: the client may have
// it before this returns.
func (c *tapConn) Write(p []byte) (int, error) {
	c.tap.rec.noteText(wrote, string(p))
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *tapConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.tap.rec.noteText(closed, "")
		c.tap.wg.Done()
	})
	return err
}
