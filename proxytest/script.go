package proxytest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/seed3262c777/smtpproxy"
)

// This file reads files of dialogues, and writes them. Their form is that of
// golang.org/x/tools/txtar, which is so simple that it isn't worth a dependency.

// script is a file of dialogues.
type script struct {
	name      string
	lines     []string // without their ends
	eol       string
	dialogues []*dialogue
}

// dialogue is one of them.
type dialogue struct {
	file *script
	name string
	at   int // the number of its first line, from 1
	acts []*act

	// Once it has been played: what was said after the acts where the file has
	// something else.
	said map[*act][]string
}

// act is a line of a dialogue that does something, or several for one answer.
type act struct {
	at   int // the number of its line, from 1
	do   action
	text string // what the client sends; the verb answered; the field looked at

	code      int // of an answer
	lines     []string
	separator string // behind the code in the last of them
	want      string // of a field
	conn      smtpproxy.Connection
	tls       smtpproxy.TLS

	heard []int // the numbers of the lines that tell what comes of it
}

// action is what an act does.
type action int

const (
	sends action = iota
	sendsAndLeaves
	connects
	sendsContent
	startsTLS
	leaves
	prepares // the server's answer
	sees     // of the test
)

// inParentheses are what a client does that isn't a line.
var inParentheses = map[string]action{
	"connection": connects, "content": sendsContent, "TLS handshake": startsTLS, "gone": leaves, "leaves": sendsAndLeaves,
}

// mistakeAt is something wrong at a line of a file.
type mistakeAt struct {
	file string
	line int
	text string
}

func (m *mistakeAt) Error() string { return fmt.Sprintf("%s:%d: %s", m.file, m.line, m.text) }

// wrong returns what is wrong at a line.
func (f *script) wrong(line int, format string, args ...any) error {
	return &mistakeAt{f.name, line, fmt.Sprintf(format, args...)}
}

// readScript reads a file. It returns all that is wrong with it.
func readScript(name string, data []byte) (f *script, mistakes []error) {
	f = &script{name: name, eol: "\n"}
	text := string(data)
	if strings.Contains(text, "\r\n") {
		f.eol = "\r\n"
	}
	f.lines = strings.Split(text, "\n")
	var d *dialogue
	for i, line := range f.lines {
		line = strings.TrimSuffix(line, "\r")
		var err error
		switch name, starts := marker(line); {
		case starts:
			if slices.ContainsFunc(f.dialogues, func(d *dialogue) bool { return d.name == name }) {
				err = f.wrong(i+1, "there is a dialogue %q above: give this one another name", name)
			}
			d = &dialogue{file: f, name: name, at: i + 1}
			f.dialogues = append(f.dialogues, d)
		case d != nil:
			err = d.read(i+1, line)
		case isLine.MatchString(line):
			err = f.wrong(i+1, "%q stands before the first dialogue: begin that with a line such as \"-- a guest --\"", line)
		}
		if err != nil {
			mistakes = append(mistakes, err)
		}
	}
	if len(f.dialogues) == 0 && len(mistakes) == 0 {
		mistakes = append(mistakes, f.wrong(len(f.lines), "there is no dialogue: begin one with a line such as \"-- a guest --\""))
	}
	for _, d := range f.dialogues {
		if len(mistakes) == 0 {
			mistakes = d.check()
		}
	}
	return f, mistakes
}

// line returns the line of a number, without blanks at its end, which editors take off.
func (f *script) line(n int) string { return strings.TrimRight(f.lines[n-1], " \t\r") }

// marker returns the name of the dialogue that a line begins, if it does.
func marker(line string) (name string, ok bool) {
	name, begins := strings.CutPrefix(line, "-- ")
	name, ends := strings.CutSuffix(name, " --")
	name = strings.TrimSpace(name)
	return name, begins && ends && name != ""
}

var (
	isLine  = regexp.MustCompile(`^([ACSPH]:|H [^:]*:)`)
	isHeard = regexp.MustCompile(`^([SPH]:|H [^:]*:)`)
)

// read reads a line.
func (d *dialogue) read(at int, line string) error {
	wrong := func(format string, args ...any) error { return d.file.wrong(at, format, args...) }
	client := d.lastOfClient()
	if s := d.last(); s.goesOn() && !strings.HasPrefix(line, "A:") {
		s.separator = ""
		return wrong("the answer to %s above has no last line: in that, a blank follows the code", s.text)
	}
	switch {
	case strings.TrimSpace(line) == "", strings.HasPrefix(line, "#"):
		return nil
	case isHeard.MatchString(line):
		if client == nil {
			return wrong("%q comes of nothing: the client has done nothing yet, in a line C: above", line)
		}
		client.heard = append(client.heard, at)
		return nil
	case strings.HasPrefix(line, "C:"):
		s := &act{at: at}
		d.acts = append(d.acts, s)
		return s.readClient(trimOne(line[len("C:"):]), client == nil, wrong)
	case strings.HasPrefix(line, "A:"):
		return d.readAnswer(at, trimOne(line[len("A:"):]), wrong)
	case strings.HasPrefix(line, "="):
		path, want, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
		if want == `""` {
			want = ""
		}
		d.acts = append(d.acts, &act{at: at, do: sees, text: path, want: want})
		if _, err := look(smtpproxy.Connection{}, smtpproxy.Transaction{}, path); err != nil {
			return wrong("%v", err)
		}
		return nil
	}
	return wrong("%q is no line of a dialogue: begin it with C:, A:, S:, H:, P:, = or #", line)
}

// last returns the last a, nil if there is none.
func (d *dialogue) last() *act {
	if len(d.acts) == 0 {
		return nil
	}
	return d.acts[len(d.acts)-1]
}

// lastOfClient returns the last a of the client's, nil if there is none.
func (d *dialogue) lastOfClient() *act {
	for _, s := range slices.Backward(d.acts) {
		if s.do < prepares {
			return s
		}
	}
	return nil
}

// trimOne trims the blank that stands before the text of a line.
func trimOne(text string) string { return strings.TrimPrefix(text, " ") }

// readClient reads what the client does.
func (s *act) readClient(text string, first bool, wrong func(string, ...any) error) (err error) {
	if strings.HasPrefix(text, "(") {
		word, behind, closed := strings.Cut(text[1:], ")")
		do, known := inParentheses[word]
		if !closed || !known {
			return wrong("%q is nothing that a client does, which is (connection), (content), (TLS handshake), (leaves) with a line, or (gone); a line that begins so is written as a Go string, %s", text, strconv.Quote(text))
		}
		s.do, text = do, trimOne(behind)
		switch s.do {
		case connects:
			s.conn = defaultClient
			switch err = tell(&s.conn, text); {
			case !first:
				return wrong("(connection) is where a dialogue begins: the client is connected")
			case err != nil:
				return wrong("%v", err)
			}
			return nil
		case startsTLS:
			s.tls.Protocol = "TLSv1.3"
			if err = tell(&s.tls, text); err != nil {
				return wrong("%v", err)
			}
			return nil
		case sendsContent, leaves:
			if text != "" {
				return wrong("nothing may stand behind (%s)", word)
			}
			return nil
		}
	}
	switch {
	case strings.TrimSpace(text) == "":
		return wrong(`there is no line for the client to send: write C: "" for an empty one`)
	case strings.HasPrefix(text, `"`):
		if s.text, err = strconv.Unquote(text); err != nil {
			return wrong("%s is no Go string: begin and end it with a quotation mark, and write \\\" for one within", text)
		}
	default:
		s.text = text
	}
	return nil
}

// literal returns a line as readClient reads it.
func literal(line string) string {
	isOdd := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if line == "" || strings.TrimSpace(line) != line || line[0] == '(' || line[0] == '"' || strings.ContainsFunc(line, isOdd) {
		return strconv.Quote(line)
	}
	return line
}

// readAnswer reads an answer of the server's, or goes on with one.
func (d *dialogue) readAnswer(at int, text string, wrong func(string, ...any) error) error {
	verb, reply, _ := strings.Cut(text, " ")
	if verb != connecting {
		verb = smtpproxy.Command{Line: verb}.Verb()
	}
	reply = strings.TrimLeft(reply, " ")
	code, err := strconv.Atoi(reply[:min(len(reply), 3)])
	if rest := reply[min(len(reply), 3):]; err != nil || verb == "" || rest != "" && rest[0] != ' ' && rest[0] != '-' {
		return wrong("%q is no answer: write the command's verb and a reply, as in A: RCPT 550 5.1.1 No such user", text)
	}
	if !mayAnswer(verb, code) {
		return wrong("%d is no answer to %s: that begins with 2, 4 or 5, or is 334 to AUTH or 354 to DATA; a greeting is 220", code, verb)
	}
	s := d.last()
	if !s.goesOn() {
		s = &act{at: at, do: prepares, text: verb, code: code}
		d.acts = append(d.acts, s)
	} else if s.text != verb || s.code != code {
		s.separator = ""
		return wrong("the answer to %s above goes on, with %d in each of its lines and a blank behind it in the last", s.text, s.code)
	}
	if len(reply) == 3 && len(s.lines) == 0 {
		return nil // a standard text
	}
	s.separator = reply[3:min(len(reply), 4)]
	s.lines = append(s.lines, reply[min(len(reply), 4):])
	return nil
}

// goesOn tells whether it is an answer whose last line is to come.
func (s *act) goesOn() bool { return s != nil && s.separator == "-" }

// check returns what can only be seen to be wrong when all is read.
func (d *dialogue) check() (mistakes []error) {
	if s := d.last(); s.goesOn() {
		mistakes = append(mistakes, d.file.wrong(s.at, "the answer to %s has no last line: in that, a blank follows the code", s.text))
	}
	if d.lastOfClient() == nil {
		mistakes = append(mistakes, d.file.wrong(d.at, "nothing happens in the dialogue %q: write what the client sends, as in C: EHLO client.example", d.name))
	}
	return mistakes
}

// updated returns the file with what was said in the place of what it has.
func (f *script) updated() string {
	removed := make(map[int]bool)
	added := make(map[int][]string) // behind lines
	for _, d := range f.dialogues {
		for s, said := range d.said {
			at := s.at
			for _, n := range s.heard {
				removed[n] = true
			}
			if len(s.heard) > 0 {
				at = s.heard[0]
			}
			added[at] = said
		}
	}
	var b strings.Builder
	for i, line := range f.lines {
		n := i + 1
		if !removed[n] {
			b.WriteString(line)
			if n < len(f.lines) {
				b.WriteString("\n")
			} else if len(added[n]) > 0 {
				// The file may end in half a line end.
				b.WriteString(strings.TrimPrefix(f.eol, line[len(strings.TrimSuffix(line, "\r")):]))
			}
		}
		for _, line := range added[n] {
			b.WriteString(line + f.eol)
		}
	}
	return b.String()
}
