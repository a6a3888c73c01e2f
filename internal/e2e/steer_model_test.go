package e2e

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file has what hooks at random do with replies, and a model of what comes of it. It
// knows of replies what RFC 5321 section 4.2 and RFC 2034 tell, and nothing of the library.

// said is a reply: as it was first given, or as the hooks so far have left it.
type said struct {
	code     int
	enhanced string // the enhanced status code; "" if it has none
	texts    []string
	octets   string // as it was given; "" when it has been changed
	last     bool   // the connection is closed behind it
	hook     string // that has given it, or changed it last
}

// enhancedStart is an enhanced status code where a line of a reply begins (RFC 3463 section 2).
var enhancedStart = regexp.MustCompile(`^([245]\.(?:0|[1-9][0-9]{0,2})\.(?:0|[1-9][0-9]{0,2}))(?: |$)`)

// cutReply cuts the first reply off what was sent.
func cutReply(sent string) (s said, rest string, ok bool) {
	for {
		line, more, whole := strings.Cut(sent, "\r\n")
		if !whole || len(line) < 3 {
			return said{}, sent, false
		}
		s.octets += line + "\r\n"
		s.code, _ = strconv.Atoi(line[:3])
		s.texts = append(s.texts, line[min(4, len(line)):])
		sent = more
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	class := strconv.Itoa(s.code/100) + "."
	enhanced, texts := "", make([]string, len(s.texts))
	for i, text := range s.texts {
		m := enhancedStart.FindStringSubmatch(text)
		if m == nil || !strings.HasPrefix(m[1], class) || i > 0 && m[1] != enhanced {
			return s, sent, true
		}
		enhanced, texts[i] = m[1], text[len(m[0]):]
	}
	s.enhanced, s.texts = enhanced, texts
	return s, sent, true
}

// String returns the reply as it is sent.
func (s said) String() string {
	if s.octets != "" {
		return s.octets
	}
	var b strings.Builder
	for i, text := range s.texts {
		sep := "-"
		if i == len(s.texts)-1 {
			sep = " "
		}
		fmt.Fprint(&b, s.code, sep)
		if s.enhanced != "" {
			b.WriteString(s.enhanced + " ")
		}
		b.WriteString(text + "\r\n")
	}
	return b.String()
}

// saidBy returns the reply that a hook of these tests gives to a command.
func saidBy(r reply, hook string) said {
	s := said{code: r.Code, enhanced: fmt.Sprint(r.Code/100, ".0.0"), hook: hook}
	switch {
	case r.Code == 334:
		s.enhanced, s.texts = "", []string{""}
	case r.Code < 400:
		s.texts = []string{"OK"}
	default:
		s.texts = []string{"Requested action not taken"}
	}
	return s
}

// failedReply is what the client gets when a hook has failed.
func failedReply() said {
	return said{code: 421, enhanced: "4.3.0", texts: []string{"Service not available, closing transmission channel"}, last: true}
}

// whim is what a hook does with a reply.
type whim struct {
	what string
	// decides is what the hook returns for a reply with a code; it may panic.
	decides func(code int, hook string) (decision, error)
	// becomes changes the reply, as the model has it; nil leaves it as it is.
	becomes func(s *said, hook string)
	// of tells for which replies that is valid.
	of whimFor
}

type whimFor int

const (
	forNobody    whimFor = iota // it is invalid, or changes nothing
	forFree                     // those that may be changed: neither 3xx nor an accepted EHLO
	forNegative                 // 4xx and 5xx
	forEverybody                // all
)

// whimReturns is what a hook returns that doesn't look.
func whimReturns(d decision) func(int, string) (decision, error) {
	return func(int, string) (decision, error) { return d, nil }
}

// whims are what these hooks do. The first ones are what hooks do most of the time.
var whims = []whim{
	{what: "nothing", decides: whimReturns(nil)},
	{what: "nothing, by a Pass", decides: whimReturns(pass{})},
	{what: "a text", decides: func(_ int, hook string) (decision, error) {
		return reply{Lines: []string{"so says " + hook}}, nil
	}, of: forFree, becomes: func(s *said, hook string) { s.texts = []string{"so says " + hook} }},
	{what: "two lines and an enhanced status code", decides: func(code int, hook string) (decision, error) {
		return &reply{Enhanced: enhanced{code / 100, 7, 25}, Lines: []string{"so says", hook}}, nil
	}, of: forFree, becomes: func(s *said, hook string) {
		s.enhanced, s.texts = fmt.Sprint(s.code/100, ".7.25"), []string{"so says", hook}
	}},
	{what: "another code", decides: func(code int, _ string) (decision, error) {
		return reply{Code: otherNegative(code)}, nil
	}, of: forNegative, becomes: func(s *said, _ string) {
		s.code = otherNegative(s.code)
		if s.enhanced != "" {
			s.enhanced = strconv.Itoa(s.code/100) + s.enhanced[1:]
		}
	}},

	{what: "nothing, by a pointer", decides: whimReturns(&pass{})},
	{what: "a while", decides: whimReturns(pass{Delay: time.Millisecond})},
	{what: "a while, by a Reply", decides: whimReturns(reply{Delay: time.Millisecond})},
	{what: "a Reply with nothing set", decides: whimReturns(reply{})},
	{what: "the code that it has", decides: func(code int, _ string) (decision, error) { return reply{Code: code}, nil }},
	{what: "an enhanced status code alone", decides: func(code int, _ string) (decision, error) {
		return reply{Enhanced: enhanced{code / 100, 1, 999}}, nil
	}, of: forFree, becomes: func(s *said, _ string) { s.enhanced = fmt.Sprint(s.code/100, ".1.999") }},
	{what: "no enhanced status code", decides: whimReturns(reply{Enhanced: smtpproxy.NoEnhancedCode}), of: forFree, becomes: func(s *said, _ string) {
		s.enhanced = ""
	}},
	{what: "no lines", decides: whimReturns(reply{Lines: []string{}})},

	{what: "a negative code for a positive reply, and the other way round", decides: func(code int, _ string) (decision, error) {
		return reply{Code: map[bool]int{true: 550, false: 250}[code < 400]}, nil
	}, of: forNobody},
	{what: "another positive code", decides: func(code int, _ string) (decision, error) {
		return reply{Code: map[bool]int{true: 251, false: 250}[code == 250]}, nil
	}},
	{what: "354", decides: func(code int, _ string) (decision, error) {
		if code == 354 {
			return nil, nil
		}
		return reply{Code: 354}, nil
	}},
	{what: "a code that is none", decides: whimReturns(reply{Code: 600})},
	{what: "a class that isn't that of the code", decides: func(code int, _ string) (decision, error) {
		return reply{Enhanced: enhanced{9 - code/100, 0, 0}, Lines: []string{"never"}}, nil
	}},
	{what: "a line end in a line", decides: whimReturns(reply{Lines: []string{"x\r\n250 y"}})},
	{what: "a line too long", decides: whimReturns(reply{Lines: []string{strings.Repeat("x", 512)}})},
	{what: "another command", decides: whimReturns(pass{Command: "NOOP"})},
	{what: "Next", decides: whimReturns(pass{Next: true})},
	{what: "a nil pointer", decides: whimReturns((*reply)(nil))},
	{what: "an error", decides: func(int, string) (decision, error) { return nil, errBroken }},
	{what: "an error beside a decision", decides: func(int, string) (decision, error) { return reply{Lines: []string{"never"}}, errBroken }},
	{what: "a panic", decides: func(int, string) (decision, error) { panic("no") }},
}

// closers are the whims that end a connection, which would leave little of a dialogue if
// they were as frequent as the others.
var closers = []whim{
	{what: "the end", decides: whimReturns(reply{Disconnect: true}), of: forEverybody, becomes: func(s *said, _ string) { s.last = true }},
	{what: "421", decides: whimReturns(reply{Code: 421}), of: forNegative, becomes: func(s *said, _ string) {
		s.code, s.last = 421, true
		if s.enhanced != "" {
			s.enhanced = "4" + s.enhanced[1:]
		}
	}},
}

func otherNegative(code int) int {
	if code/100 == 4 {
		return 559
	}
	return 459
}

// whimOf returns what a hook does with a reply to a line: the same each time that it is
// asked.
func whimOf(seed uint64, hook, line string, code, recipient int) whim {
	sum := fnv.New64a()
	fmt.Fprint(sum, seed, hook, line, code, recipient)
	r := rand.New(rand.NewPCG(sum.Sum64(), 1))
	n := r.IntN(400)
	if recipient >= 0 {
		n = r.IntN(40)
	}
	switch {
	case n == 0:
		return closers[r.IntN(len(closers))]
	case n%2 == 0:
		return whims[r.IntN(5)]
	}
	return whims[r.IntN(len(whims))]
}

// amend is what comes of a reply behind a hook's whim.
func (w whim) amend(s said, line, hook string) said {
	may := false
	switch w.of {
	case forFree:
		may = s.code/100 != 3 && !(s.code == 250 && slices.Contains([]string{"EHLO", "LHLO", "HELO"}, verbIn(line)))
	case forNegative:
		may = s.code >= 400
	case forEverybody:
		may = true
	}
	if !may {
		return s
	}
	was := s
	if w.becomes(&s, hook); s.code == was.code && s.enhanced == was.enhanced && slices.Equal(s.texts, was.texts) {
		if s.last != was.last {
			s.hook = hook
		}
		return s
	}
	s.octets, s.hook = "", hook
	return s
}
