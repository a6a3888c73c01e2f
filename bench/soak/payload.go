package main

// evilDomain is that of senders that must never come up in a command: they are
// in content, and behind what ends a connection. A server that takes a part of a
// message for its end, or reads what was meant for nobody, would execute them.
const evilDomain = "@evil.example"

// evil returns such commands. from is found again in the complaint.
func evil(from string) string {
	return "MAIL FROM:<" + from + evilDomain + ">\r\nRCPT TO:<user@soak.example>\r\nDATA\r\nhi"
}

// payload is content that some server takes for the end of the message, and
// what go-smtp makes of it: it drops a dot at the beginning of a line, and with
// it a CR that isn't followed by LF.
type payload struct {
	wire, kept string
	bare       bool // it has a bare CR or LF
}

// payloads are those of public lists, and "\r\r\n.\r\n", about which go-smtp and
// a search for CRLF.CRLF disagree.
var payloads = []payload{
	{"\n.\n", "\n.\n", true},
	{"\n.\r", "\n.\r", true},
	{"\r.\n", "\r.\n", true},
	{"\r.\r", "\r.\r", true},
	{"\n.\r\n", "\n.\r\n", true},
	{"\r.\r\n", "\r.\r\n", true},
	{"\r\n.\n", "\r\n\n", true},
	{"\r\n.\r", "\r\n", true},
	{"\r\n.\r\r\n", "\r\n\r\n", true},
	{"\r\r\n.\r\r\n", "\r\r\n.\r\r\n", true},
	{"\r\r\n.\r\n", "\r\r\n.\r\n", true},
	{"\r\n\x00.\r\n", "\r\n\x00.\r\n", false},
	{"\r\n.\x00\r\n", "\r\n\x00\r\n", false},
	{"\r\n..\r\n", "\r\n.\r\n", false},
	{"\r\n. \r\n", "\r\n \r\n", false},
}
