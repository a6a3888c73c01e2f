package hosts

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// record is what happened on one connection, in order: what the hook was shown
// and decided, what the host was handed and what it did with it.
type record struct {
	mu     sync.Mutex
	events []event
}

// event is one thing that happened.
type event struct {
	what
	text string  // a line, an address, octets
	view view    // shown: as it was
	msg  message // delivered and refused
}

type what string

const (
	shown    what = "hook: shown"    // the client's line
	passed   what = "hook: passed"   // the line as the server is to get it
	answered what = "hook: answered" // the server is not to get it
	opened   what = "opened"         // a connection for the host
	handed   what = "handed"         // octets, by the host's Read
	unread   what = "unread"         // the host's Read failed
	wrote    what = "wrote"          // octets, by the host
	closed   what = "closed"         // by the host

	// What follows is the host's own word.
	command   what = "executed"      // a whole line
	saslLine  what = "SASL response" // likewise, but not as a command
	mail      what = "sender"        // the address in a MAIL command
	rcpt      what = "recipient"     // the address in a RCPT command
	client    what = "client"        // its address, at MAIL or RCPT
	begins    what = "begins"        // to take content, after DATA
	delivered what = "delivered"     // accepted by the handler
	refused   what = "refused"       // by the handler, when it had all
	midway    what = "refused midway"
	silent    what = "gives up" // a message, and doesn't say so
)

// message is what a host's handler was given.
type message struct {
	from    string
	to      []string // all that the host had
	told    []string // those of them that it accepted the message for
	content string   // with LF for line ends, since some hosts give no CRs
}

func newMessage(from string, to []string, content []byte) message {
	return message{from, slices.Clone(to), slices.Clone(to), plainEnds(string(content))}
}

func (m message) String() string {
	return fmt.Sprintf("from %q to %q for %q %.300q", m.from, m.to, m.told, m.content)
}

// plainEnds turns CRLF into LF: net/textproto does so, and chrj with it.
func plainEnds(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

func (r *record) note(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *record) noteText(w what, text string) { r.note(event{what: w, text: text}) }

// all returns what has happened so far.
func (r *record) all() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// has tells whether something has happened.
func has(events []event, w what) bool {
	return slices.ContainsFunc(events, func(e event) bool { return e.what == w })
}

// tale tells the end of what happened, for a person to read.
func tale(events []event) string {
	const most = 60
	var b bytes.Buffer
	if n := len(events) - most; n > 0 {
		fmt.Fprintf(&b, "  (%d before)\n", n)
		events = events[n:]
	}
	for i, e := range events {
		switch {
		case i > 0 && e.what == handed && events[i-1].what == handed:
			// Pieces of content come in great numbers.
			b.Truncate(b.Len() - 1)
			fmt.Fprintf(&b, " %.200q\n", e.text)
			continue
		}
		switch e.what {
		case shown:
			fmt.Fprintf(&b, "  %s %.200q, %v\n", e.what, e.text, e.view)
		case delivered, refused:
			fmt.Fprintf(&b, "  %s %v\n", e.what, e.msg)
		default:
			fmt.Fprintf(&b, "  %s %.200q\n", e.what, e.text)
		}
	}
	return b.String()
}
