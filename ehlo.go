package smtpproxy

import (
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// This file is the keyword list in the reply to EHLO and LHLO (RFC 5321 section
// 4.1.1.1).

// offered returns the lines of an EHLO reply with the keywords that the client
// may use now, in the place of lines; nil if they are the same.
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
