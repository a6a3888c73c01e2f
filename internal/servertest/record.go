package servertest

import (
	"bytes"
	"slices"
	"sync"
)

// Record is what a server did, over all its connections.
type Record struct {
	// Commands are the command lines without their line end, in the order
	// of their execution, unknown and refused ones included. The content of
	// messages and the lines of a SASL exchange are not commands.
	Commands []string

	// SASL are the lines that were taken as responses in a SASL exchange.
	SASL []string

	// Messages are the messages the server took.
	Messages []Message

	// Sessions and Ended count the sessions that were begun and ended.
	Sessions, Ended int
}

// Message is one message that a server took.
type Message struct {
	From string   // the reverse-path without its angle brackets
	To   []string // the accepted forward-paths without their angle brackets
	Data []byte   // the content, without dot-stuffing
}

// recorder is a Record for concurrent use.
type recorder struct {
	mu  sync.Mutex
	rec Record
}

// Record returns a copy of the record as it is now.
func (r *recorder) Record() Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.rec
	rec.Commands = slices.Clone(rec.Commands)
	rec.SASL = slices.Clone(rec.SASL)
	rec.Messages = slices.Clone(rec.Messages)
	for i, m := range rec.Messages {
		rec.Messages[i] = Message{m.From, slices.Clone(m.To), bytes.Clone(m.Data)}
	}
	return rec
}

// Commands returns a copy of the commands executed so far.
func (r *recorder) Commands() []string { return r.Record().Commands }

// Messages returns a copy of the messages taken so far.
func (r *recorder) Messages() []Message { return r.Record().Messages }

func (r *recorder) note(f func(*Record)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.rec)
}

func (r *recorder) command(line string) {
	r.note(func(rec *Record) { rec.Commands = append(rec.Commands, line) })
}

func (r *recorder) sasl(line string) {
	r.note(func(rec *Record) { rec.SASL = append(rec.SASL, line) })
}

func (r *recorder) message(m Message) {
	m.To, m.Data = slices.Clone(m.To), bytes.Clone(m.Data)
	r.note(func(rec *Record) { rec.Messages = append(rec.Messages, m) })
}

func (r *recorder) begin() { r.note(func(rec *Record) { rec.Sessions++ }) }
func (r *recorder) end()   { r.note(func(rec *Record) { rec.Ended++ }) }
