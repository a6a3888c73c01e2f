package servertest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
)

// Each content goes on with "x CRLF . CRLF" and so ends for every server.
func TestADotIsWhatTheOptionsSay(t *testing.T) {
	const tail = "x\r\n.\r\n"
	all := map[string][]Option{
		"none":                {},
		"DotCRLF":             {DotCRLF()},
		"TrimDot":             {TrimDot()},
		"UnstuffDot":          {UnstuffDot()},
		"TrimDot, UnstuffDot": {TrimDot(), UnstuffDot()},
		"DotCRLF, UnstuffDot": {DotCRLF(), UnstuffDot()},
	}
	every := slices.Collect(maps.Keys(all))
	for _, test := range []struct {
		why     string
		content string
		ends    []string // with these options
	}{
		{"what RFC 5321 section 4.1.1.4 says", ".\r\n", every},
		{"only the dot's own line needs CRLF", "a\n.\r\n", every},
		{"a bare LF behind the dot", ".\n", []string{"none", "TrimDot", "UnstuffDot", "TrimDot, UnstuffDot"}},
		{"two CRs behind the dot", ".\r\r\n", []string{"none", "TrimDot", "UnstuffDot", "TrimDot, UnstuffDot"}},
		{"a blank behind the dot", ". \r\n", []string{"TrimDot", "TrimDot, UnstuffDot"}},
		{"a tab before it", "\t.\r\n", []string{"TrimDot", "TrimDot, UnstuffDot"}},
		{"U+00A0", "\u00a0.\u00a0\n", []string{"TrimDot", "TrimDot, UnstuffDot"}},
		{"U+0085", ".\u0085\r\n", []string{"TrimDot", "TrimDot, UnstuffDot"}},
		{"U+2028", "\u2028.\r\n", []string{"TrimDot", "TrimDot, UnstuffDot"}},
		{"the octet 0x85 is no U+0085", ".\x85\r\n", nil},
		{"nor is a NUL a space", ".\x00\r\n", nil},
		{"a blank between dots", ". .\r\n", nil},
		{"two dots", "..\r\n", []string{"UnstuffDot", "TrimDot, UnstuffDot", "DotCRLF, UnstuffDot"}},
		{"two dots and a bare LF", "..\n", []string{"UnstuffDot", "TrimDot, UnstuffDot"}},
		{"two dots and blanks", " .. \r\n", []string{"TrimDot, UnstuffDot"}},
		{"three dots are two then", "...\r\n", nil},
	} {
		for name, opts := range all {
			t.Run(fmt.Sprintf("%s, %s", test.why, name), func(t *testing.T) {
				s := Lenient(opts...)
				c := overTCP(t, s)
				c.startMessage()
				c.send(test.content + tail)
				if slices.Contains(test.ends, name) {
					c.expect("250", "500", "500")
					expectCommands(t, s, append(envelope, "x", ".")...)
				} else {
					c.expect("250")
					expectCommands(t, s, envelope...)
				}
				if got := s.Messages(); len(got) != 1 {
					t.Errorf("messages %q, want one", got)
				}
			})
		}
	}
}

func TestTheOptionsForTheDotAreForTheLinesOfEachServer(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk(TrimDot(), UnstuffDot())
		c := overTCP(t, s)
		c.startMessage()
		c.send("a\r\n.. \r\nRSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nb\r\n\u3000.\r\nNOOP\r\n")
		c.expect("250", "250", "250", "250", "354", "250", "250")
		expectMessages(t, s, message("a\r\n"), message("b\r\n"))
	})
}

func TestALimitOfLinesIsPassedByAWholeLine(t *testing.T) {
	forEach(t, func(t *testing.T, mk func(...Option) *Server) {
		s := mk(LimitLines(10))
		c := overPipe(t, s)
		c.startMessage()
		c.send("0123456789012345678")
		c.send("9")
		expectSilence(t, c)
		c.send("\r\n")
		c.expect("552")
		c.send("NOOP\r\n.\r\nDATA\r\n")
		c.expect("250", "500", "503")
		expectCommands(t, s, append(envelope, "NOOP", ".", "DATA")...)
		expectMessages(t, s)
	})
}

func TestALimitOfLinesCountsWhatALineAdds(t *testing.T) {
	for _, test := range []struct {
		why     string
		opts    []Option
		content string
		refused bool
	}{
		{"as long as the limit", nil, "12345678\r\n.\r\n", false},
		{"the stuffed dot isn't counted", nil, "..2345678\r\n.\r\n", false},
		{"nor is a dot that isn't stuffed", nil, ".12345678\r\n.\r\n", false},
		{"the end of each line is", nil, "123\r\n456\r\n\n", true},
		{"one octet more", nil, "123456789\r\n", true},
		{"a dot and a blank are no end, but as long as one", nil, "12345678\r\n. \r\n", true},
		{"a dot and LF are a line like others", []Option{DotCRLF()}, "12345678\r\n.\n", true},
		{"a dot and LF end the content", nil, "12345678\r\n.\n", false},
	} {
		t.Run(test.why, func(t *testing.T) {
			s := Lenient(append(test.opts, LimitLines(10))...)
			c := overPipe(t, s)
			c.startMessage()
			c.send(test.content)
			if test.refused {
				c.expect("552")
				expectMessages(t, s)
			} else {
				c.expect("250")
			}
			c.send("NOOP\r\n")
			c.expect("250")
			expectCommands(t, s, append(envelope, "NOOP")...)
		})
	}
}

func TestARefusalBeforeTheEndDropsWhatIsInTheBuffer(t *testing.T) {
	for _, test := range []struct {
		why      string
		opts     []Option
		codes    []string
		commands []string
	}{
		{"as a rule", nil, []string{"552", "252"}, []string{"VRFY"}},
		{"with KeepBuffer, it's commands", []Option{KeepBuffer()}, []string{"552", "250", "500", "252"}, []string{"NOOP", ".", "VRFY"}},
		{"with ReadOn, it's content", []Option{ReadOn()}, []string{"552", "252"}, []string{"VRFY"}},
		{"with both, nothing is left of it", []Option{ReadOn(), KeepBuffer()}, []string{"552", "252"}, []string{"VRFY"}},
	} {
		t.Run(test.why, func(t *testing.T) {
			forEach(t, func(t *testing.T, mk func(...Option) *Server) {
				s := mk(append(test.opts, LimitLines(3))...)
				c := overPipe(t, s)
				c.startMessage()
				c.send("1\r\n2\r\nNOOP\r\n.\r\n")
				c.expect(test.codes[:len(test.codes)-1]...)
				c.send("VRFY\r\n")
				c.expect("252")
				expectCommands(t, s, append(envelope, test.commands...)...)
				expectMessages(t, s)
			})
		})
	}
}

func TestAServerThatReadsOnTakesNoCommandsOutOfContent(t *testing.T) {
	for name, mk := range map[string]func(...Option) *Server{
		"octets": func(opts ...Option) *Server { return EarlyRefuser(10, opts...) },
		"lines":  func(opts ...Option) *Server { return RunAhead(append(opts, LimitLines(10))...) },
	} {
		t.Run(name, func(t *testing.T) {
			s := mk(ReadOn())
			c := overPipe(t, s)
			c.startMessage()
			c.send("0123456789\r\n")
			c.expect("552")
			c.send("NOOP\r\n\r\n..\r\n")
			expectSilence(t, c)
			c.send(".\r\nDATA\r\n")
			c.expect("503")
			expectCommands(t, s, append(envelope, "DATA")...)
			expectMessages(t, s)
		})
	}
}
