package proxytest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// This file plays a dialogue of a file.

// play plays it. It returns where something else was said than the file has, and what is
// wrong otherwise; where the dialogue can't go on, that is the last.
func (d *dialogue) play(p *smtpproxy.Proxy) (differences, mistakes []error) {
	d.said = make(map[*act][]string)
	short := d.isShort()
	s := d.connect(p)
	defer s.Close()
	for _, a := range d.acts {
		if text := cannot(s, a.do); text != "" {
			return differences, append(mistakes, d.file.wrong(a.at, "%s", text))
		}
		before := len(s.Transcript())
		a.play(s)
		switch a.do {
		case prepares:
			continue
		case sees:
			// It has been found when the file was read, but for what isn't there.
			got, err := look(s.Connection(), s.Transaction(), a.text)
			if err != nil {
				mistakes = append(mistakes, d.file.wrong(a.at, "%v", err))
			} else if got != a.want {
				mistakes = append(mistakes, d.file.wrong(a.at, "%s is %s, not %s", a.text, orNothing(got), orNothing(a.want)))
			}
			continue
		}
		client, _, _ := strings.Cut(s.Transcript()[before:], "\n")
		said := heardIn(s.Transcript()[before:], short)
		if err := d.compare(a, client, said, short, s.Failure()); err != nil {
			d.said[a] = said
			differences = append(differences, err)
		}
	}
	if len(mistakes) == 0 {
		mistakes = d.unused(s) // an update must not hide it
	}
	return differences, mistakes
}

func orNothing(text string) string {
	if text == "" {
		return "empty"
	}
	return text
}

// connect returns a session for the client that the dialogue has.
func (d *dialogue) connect(p *smtpproxy.Proxy) *Session {
	for _, s := range d.acts {
		if s.do == connects {
			return ResumeSession(p, s.conn, smtpproxy.Transaction{})
		}
	}
	return NewSession(p)
}

// cannot tells why an action can't be, if it can't.
func cannot(s *Session, do action) string {
	switch {
	case do >= prepares:
		return ""
	case s.Closed():
		return "the connection is closed: the client can do nothing more"
	case do == leaves:
		return ""
	case s.server.content != (do == sendsContent):
		if s.server.content {
			return "the server waits for the content of a message: write C: (content) before this"
		}
		return "the server waits for no content: it has answered no 354 to DATA"
	case s.server.handshake != (do == startsTLS):
		if s.server.handshake {
			return "the server waits for a TLS handshake: write C: (TLS handshake) before this"
		}
		return "the server waits for no TLS handshake: it has answered no 220 to STARTTLS"
	}
	return ""
}

func (s *act) play(session *Session) {
	switch s.do {
	case sends:
		session.Send(s.text)
	case sendsAndLeaves:
		session.SendAndLeave(s.text)
	case connects:
		session.Connect()
	case sendsContent:
		session.SendContent()
	case startsTLS:
		session.StartTLS(s.tls)
	case leaves:
		session.Close()
	case prepares:
		session.Answer(s.text, s.code, s.lines...)
	}
}

// compare compares what was said after a step with what the file has. client is the line of
// the transcript about the step itself.
func (d *dialogue) compare(s *act, client string, said []string, short bool, failure error) error {
	var want []string
	for _, n := range s.heard {
		want = append(want, heardIn(d.file.line(n), short)...)
	}
	at := s.at
	for i, n := range s.heard {
		if i >= len(said) || i >= len(want) || said[i] != want[i] {
			at = n
			break
		}
	}
	if slices.Equal(said, want) {
		return nil
	}
	why := ""
	if slices.ContainsFunc(said, isFailed.MatchString) {
		why = fmt.Sprintf("\n\tthe hook's failure:\n\t\t%v", failure)
	}
	return d.file.wrong(at, "after %s\n\twas said:%s\n\tthe file has:%s%s", client, indented(said), indented(want), why)
}

func indented(lines []string) string {
	if len(lines) == 0 {
		return " nothing"
	}
	return "\n\t\t" + strings.Join(lines, "\n\t\t")
}

var (
	isFailed    = regexp.MustCompile(`^H[^:]*: failed$`)
	isDecided   = regexp.MustCompile(`^(H[^:]*|P): (pass|restart)( |$)`)
	delayBehind = regexp.MustCompile(` \(after [^ ()]+\)$`)
)

// heardIn returns the lines of a transcript that tell what came of what the client has done.
// In short they are without what the client doesn't read.
func heardIn(transcript string, short bool) (heard []string) {
	for line := range strings.SplitSeq(transcript, "\n") {
		line = strings.TrimRight(line, " \t\r") // as editors do
		switch {
		case line == "", strings.HasPrefix(line, "C:"), short && isDecided.MatchString(line):
			continue
		case short:
			line = delayBehind.ReplaceAllString(line, "")
		}
		heard = append(heard, line)
	}
	return heard
}

// isShort tells whether the dialogue in the file tells only what the client reads.
func (d *dialogue) isShort() bool {
	any := false
	for _, s := range d.acts {
		for _, n := range s.heard {
			any = true
			if isDecided.MatchString(d.file.line(n)) {
				return false
			}
		}
	}
	return any
}

// unused returns the answers that no command came for.
func (d *dialogue) unused(s *Session) (mistakes []error) {
	left := s.server.answers.left()
	for _, a := range slices.Backward(d.acts) {
		if a.do == prepares && left[a.text] > 0 {
			left[a.text]--
			mistakes = append(mistakes, d.file.wrong(a.at, "the server has got no %s to answer so behind this line: let the client send one there, or delete the line", a.text))
		}
	}
	slices.Reverse(mistakes)
	return mistakes
}
