package hosts

import (
	"errors"
	"log"
	"net"
	"strings"

	chrj "github.com/chrj/smtpd"
)

// chrjHost is github.com/chrj/smtpd, before its second version. It logs each line
// that it takes for a command. Its AUTH is for a *tls.Conn alone, which no server
// has behind the library. It reads ahead of itself within one Read, so that
// content which comes together with its DATA is lost: without a library that hands
// over a line at a time, it can't be pipelined with.
var chrjHost = host{
	name:    "chrj/smtpd",
	badMail: func(path string) string { return "MAIL FROM:<" + refusedName + path + ">" },
	serve:   serveChrj,
}

func serveChrj(l net.Listener, lim limits, rec *record) error {
	refuse := func(name string) error {
		if strings.HasPrefix(name, refusedName) {
			return chrj.Error{Code: 550, Message: "refused"}
		}
		return nil
	}
	srv := &chrj.Server{
		Hostname:       "chrj.example",
		ReadTimeout:    lim.timeout,
		WriteTimeout:   lim.timeout,
		DataTimeout:    lim.timeout,
		MaxMessageSize: lim.size,
		MaxRecipients:  lim.recipients,
		EnableXCLIENT:  true,
		ProtocolLogger: log.New(chrjLog{rec}, "", 0),
		HeloChecker:    func(_ chrj.Peer, name string) error { return refuse(name) },
		SenderChecker: func(p chrj.Peer, from string) error {
			rec.noteText(client, p.Addr.String())
			return refuse(from)
		},
		RecipientChecker:  func(_ chrj.Peer, to string) error { rec.noteText(rcpt, to); return refuse(to) },
		ConnectionChecker: func(chrj.Peer) error { return nil },
		Handler: func(_ chrj.Peer, env chrj.Envelope) error {
			m := newMessage(env.Sender, env.Recipients, env.Data)
			switch judge(env.Data) {
			case bad, badCustom:
				rec.note(event{what: refused, msg: m})
				return chrj.Error{Code: 550, Message: "refused"}
			case badPlain:
				rec.note(event{what: refused, msg: m})
				return errors.New("no code")
			}
			rec.note(event{what: delivered, msg: m})
			return nil
		},
	}
	err := srv.Serve(l)
	srv.Shutdown(true) // waits for its goroutines
	return err
}

// chrjLog takes what the host logs, a line for each Write.
type chrjLog struct{ rec *record }

// Write implements io.Writer.
func (l chrjLog) Write(p []byte) (int, error) {
	if line, ok := strings.CutPrefix(string(p), "received: "); ok {
		line = line[:strings.LastIndex(line, " [peer:")]
		l.rec.noteText(command, line)
	}
	return len(p), nil
}
