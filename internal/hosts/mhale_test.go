package hosts

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync/atomic"

	mhale "github.com/mhale/smtpd"
)

// mhaleHost is github.com/mhale/smtpd. It shows each line that it reads as one,
// those of a SASL exchange too; what it replies tells them apart. It keeps sender
// and recipients when its handler, or its limit, has refused a message.
var mhaleHost = host{
	name: "mhale/smtpd",
	auth: true,
	badMail: func(path string) string {
		return "MAIL FROM:<" + path + "> SIZE=99999999"
	},
	serve: serveMhale,
}

func init() {
	// Without it LogRead isn't called. It is a variable of the package, read by
	// the goroutines of all servers.
	mhale.Debug = true
}

func serveMhale(l net.Listener, lim limits, rec *record) error {
	var inSASL atomic.Bool // of the one client that is served at a time
	srv := &mhale.Server{
		Appname:           "mhale",
		Hostname:          "mhale.example",
		DisableReverseDNS: true,
		MaxSize:           lim.size,
		MaxRecipients:     lim.recipients,
		Timeout:           lim.timeout,
		AuthMechs:         map[string]bool{"PLAIN": true, "LOGIN": true, "CRAM-MD5": false},
		AuthHandler: func(_ net.Addr, _ string, user, password, _ []byte) (bool, error) {
			return string(user) == "user" && string(password) == "pass", nil
		},
		HandlerRcpt: func(addr net.Addr, _ string, to string) bool {
			rec.noteText(rcpt, to)
			rec.noteText(client, addr.String())
			return !strings.HasPrefix(to, refusedName)
		},
		Handler: func(_ net.Addr, from string, to []string, data []byte) error {
			return handleMhale(rec, from, to, data)
		},
		LogRead: func(_, _, line string) {
			if inSASL.Load() {
				rec.noteText(saslLine, line)
			} else {
				rec.noteText(command, line)
			}
		},
		LogWrite: func(_, _, line string) { inSASL.Store(strings.HasPrefix(line, "334")) },
	}
	return srv.Serve(l)
}

func handleMhale(rec *record, from string, to []string, data []byte) error {
	for range 3 { // the lines of the Received field that the host has put before it
		_, data, _ = bytes.Cut(data, []byte("\r\n"))
	}
	m := newMessage(from, to, data)
	switch judge(data) {
	case bad:
		rec.note(event{what: refused, msg: m})
		return errors.New("550 5.7.1 refused")
	case badPlain:
		rec.note(event{what: refused, msg: m})
		return errors.New("no code")
	case badCustom:
		// The client is told that all is well, and so it has to be.
		rec.note(event{what: delivered, msg: m})
		return errors.New("250 2.0.0 custom text")
	}
	rec.note(event{what: delivered, msg: m})
	return nil
}
