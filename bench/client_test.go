package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

func TestReplies(t *testing.T) {
	rows := []struct {
		text string
		ok   bool
	}{
		{"250 OK\r\n", true},
		{"250-Hello\r\n250-SIZE\r\n250 CHUNKING\r\n", true},
		{"354 go on\r\n", true},
		{"550 no\r\n", false},
		{"421-bye\r\n421 bye\r\n", false},
		{"250-Hello\r\n", false},
		{"", false},
		{"25\n", false},
	}
	for _, row := range rows {
		c := &client{r: bufio.NewReader(strings.NewReader(row.text))}
		if err := c.reply(); (err == nil) != row.ok {
			t.Errorf("%q: %v", row.text, err)
		}
	}
}

func TestContentEndsInADotOfItsOwnLine(t *testing.T) {
	content := text(small).send
	if len(content) > small+10 || len(content) < small-100 {
		t.Errorf("%d octets", len(content))
	}
	if !bytes.HasSuffix(content, []byte("\r\n.\r\n")) || bytes.Count(content, []byte(".")) != 1 {
		t.Errorf("%q", content)
	}
}

func TestChunksAreAsLongAsTheySay(t *testing.T) {
	steps := chunked(3, 100)
	var command bytes.Buffer
	for _, e := range steps[1:] {
		line, chunk, _ := bytes.Cut(e.send, []byte("\r\n"))
		command.Write(line)
		command.WriteString(";")
		if len(chunk) != 100 && !bytes.HasSuffix(line, []byte("LAST")) {
			t.Errorf("%s: %d octets", line, len(chunk))
		}
	}
	if got := command.String(); !strings.HasPrefix(got, "BDAT 100;BDAT 100;BDAT ") || !strings.HasSuffix(got, "LAST;") {
		t.Error(got)
	}
}
