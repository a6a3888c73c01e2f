package hosts

import (
	"bytes"
	"errors"
	"net"
	"strings"

	bradfitz "github.com/bradfitz/go-smtpd/smtpd"
)

// bradfitzHost is github.com/bradfitz/go-smtpd. It shows no lines, and all else by
// the calls of an Envelope. It keeps that over EHLO and after an SMTPError of the
// envelope's; an error of another kind at the end of a message, or at DATA, it
// doesn't answer at all. Its ReadTimeout is for the whole of a message.
var bradfitzHost = host{
	name:   "bradfitz/go-smtpd",
	midway: true,
	// bufio.Reader.ReadSlice fails when its buffer is full.
	givesUpAt: 4096,
	badMail:   func(path string) string { return "MAIL FROM:<" + refusedName + path + ">" },
	serve:     serveBradfitz,
}

func serveBradfitz(l net.Listener, lim limits, rec *record) error {
	srv := &bradfitz.Server{
		Hostname:     "bradfitz.example",
		ReadTimeout:  lim.timeout,
		WriteTimeout: lim.timeout,
		OnNewMail: func(c bradfitz.Connection, from bradfitz.MailAddress) (bradfitz.Envelope, error) {
			rec.noteText(mail, from.Email())
			rec.noteText(client, c.Addr().String())
			if strings.HasPrefix(from.Email(), refusedName) {
				return nil, errors.New("refused")
			}
			return &envelope{rec: rec, limits: lim, from: from.Email()}, nil
		},
	}
	return srv.Serve(l)
}

// envelope is a bradfitz.Envelope. The host goes on with one that has refused a
// message, so that it may begin again.
type envelope struct {
	limits
	rec     *record
	from    string
	to      []string
	content bytes.Buffer
}

// AddRecipient implements bradfitz.Envelope.
func (e *envelope) AddRecipient(to bradfitz.MailAddress) error {
	e.rec.noteText(rcpt, to.Email())
	switch {
	case strings.HasPrefix(to.Email(), refusedName):
		return bradfitz.SMTPError("550 5.1.1 no such user")
	case len(e.to) >= e.recipients:
		return errors.New("too many")
	}
	e.to = append(e.to, to.Email())
	return nil
}

// BeginData implements bradfitz.Envelope.
func (e *envelope) BeginData() error {
	switch {
	case len(e.to) == 0:
		return bradfitz.SMTPError("554 5.5.1 no recipients")
	case strings.HasPrefix(e.from, noDataName):
		return bradfitz.SMTPError("554 5.7.1 no data")
	case strings.HasPrefix(e.from, noAnswerName):
		e.rec.noteText(silent, "DATA")
		return errors.New("no code")
	}
	e.rec.noteText(begins, "")
	e.content.Reset()
	return nil
}

// Write implements bradfitz.Envelope.
func (e *envelope) Write(line []byte) error {
	switch {
	case bytes.Contains(line, []byte(lineWord)):
		e.rec.noteText(midway, "")
		return errors.New("this line")
	case e.size > 0 && e.content.Len()+len(line) > e.size:
		e.rec.noteText(midway, "")
		return bradfitz.SMTPError("552 5.3.4 too big")
	}
	e.content.Write(line)
	return nil
}

// Close implements bradfitz.Envelope.
func (e *envelope) Close() error {
	m := newMessage(e.from, e.to, e.content.Bytes())
	switch judge(e.content.Bytes()) {
	case bad, badCustom:
		e.rec.note(event{what: refused, msg: m})
		return bradfitz.SMTPError("550 5.7.1 refused")
	case badPlain:
		e.rec.note(event{what: refused, msg: m})
		e.rec.noteText(silent, "message")
		return errors.New("no code")
	}
	e.rec.note(event{what: delivered, msg: m})
	return nil
}
