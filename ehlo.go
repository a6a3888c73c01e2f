package smtpproxy

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// This file is the keyword list in the reply to EHLO and LHLO (RFC 5321 section
// 4.1.1.1).

// listing is what the client is told in a reply to EHLO or LHLO.
type listing struct {
	size   int64    // the server's SIZE (RFC 1870), 0 if unlimited or unknown
	lines  []string // what the client gets in the place of the server's lines; nil if that
	failed bool     // a hook has, and the session has ended
}

// list makes of the server's lines in a reply to HELO, EHLO or LHLO what the client gets:
// the library has its say, and then the hook. It may use lines for it. Its caller holds s.mu,
// which it lets go while it calls the hook.
func (s *Session) list(code int, lines []string) (l listing) {
	if code != 250 || !s.m.Greets() {
		return l
	}
	if !s.m.WantsKeywords() {
		lines = nil // HELO
	}
	l.size = sizeKeyword(lines)
	if s.m.IsRelay() && len(lines) > 0 {
		if l.lines = s.offered(lines); l.lines != nil {
			lines = l.lines
		}
	}
	if hooks := s.links().keywords; len(hooks) > 0 {
		kw := keywordsOf(lines[min(1, len(lines)):])
		if l.failed = !s.askForKeywords(hooks, kw); !l.failed && kw.changed && len(lines) > 0 {
			l.lines = kw.lines(lines[0])
		}
	}
	return l
}

// askForKeywords lets the hooks change the list. It returns false if one fails: the session
// has ended then. Its caller holds s.mu, which it lets go meanwhile.
func (s *Session) askForKeywords(hooks []optional[KeywordHook], kw *Keywords) (ok bool) {
	var conn Connection
	s.view(&conn)
	s.mu.Unlock()
	defer s.mu.Lock() // after runtime.Goexit, too
	if !s.enter(untilEnded) {
		return true // it is over, and nobody gets the list
	}
	defer s.leave()
	ctx, cancel := context.Context(s.ctx), context.CancelFunc(func() {})
	if t := s.cfg.HookTimeout; t > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, t, ErrHookTimeout)
	}
	defer cancel()
	c := &Context{parent: ctx, state: &s.state}
	defer func() { c.end(s.endOf(ctx)) }()
	returned, name := false, ""
	defer func() {
		if !returned {
			s.exited(Failure{Err: ErrHookExit, Hook: name})
		}
	}()
	for i := range hooks {
		h := &hooks[i]
		name = h.name
		o := s.guard(ctx, func() (Decision, error) {
			if h.funcs != nil {
				return nil, h.funcs.OnKeywords(c, conn, kw)
			}
			return nil, h.hook.Keywords(c, conn, kw)
		})
		if o.failure == nil && kw.invalid != nil {
			o.failure = &Failure{Err: kw.invalid}
		}
		if o.failure != nil {
			s.keywordsFailed(name, o.failure)
			returned = true
			return false
		}
	}
	s.mu.Lock()
	if len(kw.deleted) > 0 || s.more != nil {
		s.extras().withheld = slices.Clone(kw.deleted) // the hook may have kept kw
	}
	s.mu.Unlock()
	returned = true
	return true
}

// keywordsFailed ends the session after the failure of a hook that was asked about the list.
//
//go:noinline
func (s *Session) keywordsFailed(hook string, f *Failure) {
	f.Hook = hook
	s.logFailure(*f)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links().failedProbe(f)
	s.watched().hookFailed(f)
	s.m.HangUp(dialogue.NoReason)
	s.moved(false)
}

// withheld are the keywords that a hook has deleted, in upper case.
type withheld []string

// refusal returns why a command isn't passed, nil if it is: it is what a deleted keyword
// stands for.
func (w withheld) refusal(v dialogue.Verb, line string) *dialogue.Refusal {
	if len(w) == 0 {
		return nil
	}
	verb := verbName(line)
	for _, keyword := range w {
		switch {
		case keyword == "PIPELINING", keyword == "ENHANCEDSTATUSCODES":
		case keyword == "CHUNKING" && v == dialogue.BDAT, keyword == verb:
			return &dialogue.NotOffered
		case v == dialogue.MAIL && stands(keyword, address.Mail, line), v == dialogue.RCPT && stands(keyword, address.Rcpt, line):
			return &dialogue.ParamNotOffered
		}
	}
	return nil
}

// stands tells whether a command has a parameter that a keyword stands for. Where servers
// may read the parameters in different ways, it has it if any of them could find it.
func stands(keyword string, parse func(string) (address.Path, []address.Param, string), line string) bool {
	_, params, unparsed := parse(line)
	for _, name := range paramsOf(keyword) {
		for _, p := range params {
			text := p.Key
			if p.Value != "" {
				text += "=" + p.Value
			}
			if mayFind(text, name, keyword) {
				return true
			}
		}
		if mayFind(unparsed, name, keyword) {
			return true
		}
	}
	return false
}

// mayFind tells whether a server could find a parameter that a keyword stands for in some
// text: by its name as a word, or, since some search for no more, by the name and '=' within
// one. Some fold letters beyond ASCII, and take U+017F for an S, or U+0131 for an I.
func mayFind(text, name, keyword string) bool {
	text = strings.ToUpper(strings.ToLower(text))
	for from := 0; ; {
		i := strings.Index(text[from:], name)
		if i < 0 {
			return false
		}
		before, behind := text[:from+i], text[from+i+len(name):]
		value, hasValue := strings.CutPrefix(behind, "=")
		if !hasValue {
			value = ""
		}
		inWord := before != "" && (goesOn(before[len(before)-1]) || strings.HasSuffix(before, "=")) || behind != "" && goesOn(behind[0])
		if (hasValue || !inWord) && standsFor(keyword, value) {
			return true
		}
		from += i + 1
	}
}

// goesOn tells whether a word goes on with an octet: with what may stand in a mailbox, but
// '=' (RFC 5321 section 4.1.2).
func goesOn(c byte) bool {
	return ascii.IsLetDig(rune(c)) || strings.IndexByte("!#$%&'*+-/?^_`{|}~.@\"", c) >= 0
}

// standsFor tells whether a keyword stands for its parameter with a value: two keywords
// share BODY.
func standsFor(keyword, value string) bool {
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		value = value[:i]
	}
	switch keyword {
	case "8BITMIME":
		return value != "BINARYMIME"
	case "BINARYMIME":
		return value != "8BITMIME" && value != "7BIT"
	}
	return true
}

// paramsOf returns the parameters of MAIL and RCPT that a keyword stands for.
func paramsOf(keyword string) []string {
	switch keyword {
	case "8BITMIME", "BINARYMIME": // RFC 6152, RFC 3030
		return []string{"BODY"}
	case "DSN": // RFC 3461
		return []string{"RET", "ENVID", "NOTIFY", "ORCPT"}
	case "DELIVERBY": // RFC 2852
		return []string{"BY"}
	case "FUTURERELEASE": // RFC 4865
		return []string{"HOLDFOR", "HOLDUNTIL"}
	}
	return []string{keyword}
}

// offered returns the lines of an EHLO reply with the keywords that the client
// may use now, in the place of lines; nil if they are the same.
//
//go:noinline
func (s *Session) offered(lines []string) []string {
	var more []string
	if s.m.InTLS() {
		more = s.cfg.TLSKeywords
	} else if s.cfg.TLSConfig != nil {
		more = []string{"STARTTLS"}
	}
	out := lines[:1]
	for _, line := range lines[1:] {
		keyword := keywordOf(line)
		switch {
		case keyword == "STARTTLS":
			// The server's own would blind the hook. The library's may
			// have its place.
			if s.m.InTLS() {
				continue
			}
			if len(more) == 0 {
				s.cfg.warn(warnSTARTTLS)
				continue
			}
			more = nil
		case s.m.HoldsAUTH() && (keyword == "AUTH" || strings.HasPrefix(keyword, "AUTH=")):
			continue
		}
		out = append(out, line)
	}
	if len(out) == len(lines) && len(more) == 0 {
		return nil
	}
	return append(out, more...)
}

// keywordOf returns the keyword of a line in an EHLO reply, in upper case (RFC
// 5321 section 4.1.1.1).
func keywordOf(line string) string {
	keyword, _, _ := strings.Cut(line, " ")
	return ascii.ToUpper(keyword)
}

// sizeKeyword returns the message size that an EHLO reply declares, 0 if there
// is no limit (RFC 1870 section 4).
func sizeKeyword(lines []string) int64 {
	for i, line := range lines {
		if i == 0 || keywordOf(line) != "SIZE" {
			continue
		}
		_, arg, _ := strings.Cut(line, " ")
		size, err := strconv.ParseInt(strings.TrimSpace(arg), 10, 64)
		if err != nil || size < 0 {
			return 0
		}
		return size
	}
	return 0
}
