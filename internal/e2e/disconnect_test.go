package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file has a row for each way in which a connection can end, and for what a hook
// is told of it.

// endServer is the server of a row, and how it is closed.
type endServer func(t *testing.T, p *smtpproxy.Proxy) (serve func(net.Listener) error, close func() error)

// ofGoSMTP is go-smtp's server.
func ofGoSMTP(opts ...servertest.Option) endServer {
	return func(_ *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
		f := behindGoSMTP(p, opts...)
		return f.serve, f.close
	}
}

// ofServer is one of those that are written by hand, or go-smtp's in LMTP mode.
func ofServer(start func(...servertest.Option) *servertest.Server, opts ...servertest.Option) endServer {
	return func(_ *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
		f := behindListener(p, start(opts...))
		return f.serve, f.close
	}
}

// ofScript is one that does what its script says: see scripted.
func ofScript(steps string) endServer {
	return func(t *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
		s := &scripted{script: strings.Split(steps, "|"), bubble: true}
		t.Cleanup(func() {
			if s.err != nil {
				t.Error(s.err)
			}
		})
		return func(l net.Listener) error { return s.Serve(p.Listener(l)) }, s.Close
	}
}

// endRow is a way to end.
type endRow struct {
	why    string
	server endServer // nil is go-smtp's
	hook   func(w *lifeHook)
	proxy  smtpproxy.Proxy
	say    string // of the client: see caller
	want   string // see short
	err    error  // what Err is; nil if it has to be none
	loose  bool   // who leaves while replies are on their way doesn't know how many octets it has sent and got
}

// errOther is any error but those by name.
var errOther = errors.New("another error")

const (
	hello  = "< 220|> EHLO client.example|< 250|"
	toRcpt = hello + "> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|"
)

// answers makes the hook give a verb a decision.
func answersVerb(verb string, d decision, err error) func(w *lifeHook) {
	return func(w *lifeHook) {
		w.command = func(_ *hookContext, cmd command) (decision, error) {
			if cmd.Verb() == verb {
				return d, err
			}
			return nil, nil
		}
	}
}

// actsAt makes the hook do something at a verb.
func actsAt(verb string, f func(ctx *hookContext)) func(w *lifeHook) {
	return func(w *lifeHook) {
		w.command = func(ctx *hookContext, cmd command) (decision, error) {
			if cmd.Verb() == verb {
				f(ctx)
			}
			return nil, nil
		}
	}
}

var limitIt = servertest.Configure(func(s *smtp.Server) { s.MaxMessageBytes = 1000 })

var endRows = []endRow{
	{why: "QUIT, answered by the server",
		say: toRcpt + "> DATA|< 354|> hi\r\n.|< 250|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 5 commands, 1 messages, 1 recipients"},
	{why: "QUIT, answered by the hook", hook: answersVerb("QUIT", reply{Code: 221}, nil),
		say: hello + "> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 2 commands, 0 messages, 0 recipients"},
	{why: "QUIT at once",
		say: "< 220|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "refused by the hook in the place of the greeting",
		hook: func(w *lifeHook) {
			w.connect = func(*hookContext, connection) (decision, error) { return reply{Code: 554}, nil }
		},
		say: "< 554|END", want: "hook: refused,  554 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "421 of the hook's", hook: answersVerb("RCPT", reply{Code: 421}, nil),
		say: hello + "> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 421|END", want: "hook: refused, RCPT 421 closed, 2 commands, 0 messages, 0 recipients"},
	{why: "Disconnect of the hook's", hook: answersVerb("NOOP", reply{Code: 550, Disconnect: true}, nil),
		say: hello + "> NOOP|< 550|END", want: "hook: refused, NOOP 550 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "OnFailure decides that it ends", hook: answersVerb("NOOP", nil, errTest), proxy: smtpproxy.Proxy{
		OnFailure: func(*hookContext, smtpproxy.Failure) decision { return reply{Code: 451, Disconnect: true} }},
		say: hello + "> NOOP|< 451|END", want: "hook: refused, NOOP 451 closed, 1 commands, 0 messages, 0 recipients"},

	{why: "the hook has failed at a command", hook: answersVerb("NOOP", nil, errTest),
		say: hello + "> NOOP|< 421|END", want: "hook: hook failed, NOOP 421 closed, 1 commands, 0 messages, 0 recipients", err: errTest},
	{why: "the hook has panicked", hook: actsAt("NOOP", func(*hookContext) { panic("no") }),
		say: hello + "> NOOP|< 421|END", want: "hook: hook failed, NOOP 421 closed, 1 commands, 0 messages, 0 recipients", err: smtpproxy.ErrHookPanic},
	{why: "the hook has ended its goroutine", hook: actsAt("NOOP", func(*hookContext) { runtime.Goexit() }),
		say: hello + "> NOOP|< 421|END", want: "hook: hook failed, NOOP 421 closed, 1 commands, 0 messages, 0 recipients", err: smtpproxy.ErrHookExit},
	{why: "the hook has taken too long", hook: actsAt("NOOP", func(ctx *hookContext) { <-ctx.Done() }), proxy: smtpproxy.Proxy{HookTimeout: time.Second},
		say: hello + "> NOOP|< 421|END", want: "hook: hook failed, NOOP 421 closed, 1 commands, 0 messages, 0 recipients", err: smtpproxy.ErrHookTimeout},
	{why: "the hook has decided what can't be", hook: answersVerb("NOOP", reply{Code: 99}, nil),
		say: hello + "> NOOP|< 421|END", want: "hook: hook failed, NOOP 421 closed, 1 commands, 0 messages, 0 recipients", err: smtpproxy.ErrInvalidDecision},
	{why: "the hook has failed in the place of the greeting",
		hook: func(w *lifeHook) {
			w.connect = func(*hookContext, connection) (decision, error) { return nil, errTest }
		},
		say: "< 421|END", want: "hook: hook failed,  421 closed, 0 commands, 0 messages, 0 recipients", err: errTest},
	{why: "the hook has failed at the keywords", hook: func(w *lifeHook) { w.keywords = func(*smtpproxy.Keywords) error { return errTest } },
		say: "< 220|> EHLO x|< 421|END", want: "hook: hook failed, EHLO 421 closed, 0 commands, 0 messages, 0 recipients", err: errTest},
	{why: "the hook has ended its goroutine at the keywords", hook: func(w *lifeHook) {
		w.keywords = func(*smtpproxy.Keywords) error { runtime.Goexit(); return nil }
	},
		say: "< 220|> EHLO x|< 421|END", want: "hook: hook failed, EHLO 421 closed, 0 commands, 0 messages, 0 recipients", err: smtpproxy.ErrHookExit},

	{why: "the client closes between commands",
		say: toRcpt + "FIN", want: "client: client gone, RCPT 250, 3 commands, 0 messages, 1 recipients", err: io.EOF},
	{why: "the client closes in a command",
		say: hello + `. "NO"|FIN`, want: "client: client gone, EHLO 250, 1 commands, 0 messages, 0 recipients", err: io.EOF},
	{why: "the client resets the connection",
		say: hello + "RST", want: "client: client gone, EHLO 250, 1 commands, 0 messages, 0 recipients", err: errOther},
	{why: "the client closes in the content of a message", loose: true, server: ofServer(servertest.Strict),
		say: toRcpt + `> DATA|< 354|. "hi\r\n"|FIN`, want: "client: client gone, DATA 354, 4 commands, 0 messages, 1 recipients", err: io.ErrUnexpectedEOF},
	{why: "the client closes in a chunk", loose: true, server: ofServer(servertest.Strict),
		say: toRcpt + `. "BDAT 100\r\nhi"|FIN`, want: "client: client gone, BDAT 250, 3 commands, 0 messages, 1 recipients", err: io.ErrUnexpectedEOF},
	{why: "the client closes before it is greeted", server: ofScript("END"),
		say: "FIN", want: "client: client gone,  0, 0 commands, 0 messages, 0 recipients", err: io.EOF},

	{why: "no whole command in Proxy.CommandTimeout", proxy: smtpproxy.Proxy{CommandTimeout: time.Second},
		say: hello + `. "NO"|< 421 4.4.2|END`, want: "library: command timeout, EHLO 421 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "no command in the time of the server's",
		say: hello + "< 421|END", want: "server: command timeout, EHLO 421 closed, 1 commands, 0 messages, 0 recipients", err: os.ErrDeadlineExceeded},
	{why: "no command in the time of the server's, behind a message",
		say: toRcpt + "> DATA|< 354|> hi\r\n.|< 250|< 421|END", want: "server: command timeout, DATA 421 closed, 4 commands, 1 messages, 1 recipients", err: os.ErrDeadlineExceeded},
	{why: "no content in the time of the server's", server: ofServer(servertest.Strict, servertest.GiveUp()),
		say: toRcpt + `> DATA|< 354|. "hi\r\n"|END`, want: "server: data timeout, DATA 354, 4 commands, 0 messages, 1 recipients", err: os.ErrDeadlineExceeded},
	{why: "the client is late, and the server has gone on", server: ofScript("S: 220 x|SILENCE 10s|C: NOOP|S: 250 x"),
		say: "< 220|WAIT 11s|> NOOP|< 250|END", want: "server: server closed, NOOP 250, 1 commands, 0 messages, 0 recipients"},
	{why: "content that is too slow for Proxy.MinDataRate", proxy: smtpproxy.Proxy{MinDataRate: 1000},
		server: ofGoSMTP(servertest.ReadTimeout(time.Hour)),
		say:    toRcpt + `> DATA|< 354|. "hi\r\n"|< 421 4.4.2|END`, want: "library: data timeout, DATA 421 closed, 4 commands, 0 messages, 1 recipients"},

	{why: "no handshake where TLS comes first", proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true},
		say: "NOTLS", want: "client: TLS failed,  0, 0 commands, 0 messages, 0 recipients", err: errOther},
	{why: "no handshake behind STARTTLS", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		say: hello + "> STARTTLS|< 220|NOTLS", want: "client: TLS failed, STARTTLS 220, 1 commands, 0 messages, 0 recipients", err: errOther},

	{why: "too many commands", proxy: smtpproxy.Proxy{MaxCommands: 2},
		say: hello + "> NOOP|< 250|> NOOP|< 421|END", want: "library: too many, NOOP 421 closed, 2 commands, 0 messages, 0 recipients"},
	{why: "too many errors", proxy: smtpproxy.Proxy{MaxErrors: 1},
		say: hello + "> 1|< 500|> 2|< 421|END", want: "library: too many, EHLO 421 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "too many chunks", proxy: smtpproxy.Proxy{MaxSmallChunks: 1},
		say: toRcpt + "> BDAT 2\r\n|< 250|> BDAT 2\r\n|< 421|END", want: "library: too many, BDAT 421 closed, 4 commands, 0 messages, 1 recipients"},
	{why: "the server replies twice", server: ofScript("S: 220 x|C: NOOP|S> \"250 x\\r\\n250 x\\r\\n\"|END"),
		say: "< 220|> NOOP|< 250|< 421|END", want: "library: out of step, NOOP 421 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "the server writes what is no reply", server: ofScript("S: 220 x|C: NOOP|S: hello|END"),
		say: "< 220|> NOOP|< 421|END", want: "library: out of step, NOOP 421 closed, 0 commands, 0 messages, 0 recipients"},

	{why: "HTTP",
		say: "< 220|> GET / HTTP/1.1|< 502|END", want: "library: refused, GET 502 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "TLS without STARTTLS", loose: true,
		say: "< 220|. \"\\x16\\x03\\x01\"|< 554|END", want: "library: refused,  554 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "a bare newline in a message", proxy: smtpproxy.Proxy{RejectBareNewlines: true},
		say: toRcpt + `> DATA|< 354|. "a\nb\r\n.\r\n"|< 550|END`, want: "library: refused, DATA 550 closed, 4 commands, 0 messages, 1 recipients"},
	{why: "a line that is too long", proxy: smtpproxy.Proxy{MaxLineLength: 100},
		say: hello + `. "x" x*200|< 500|END`, want: "library: refused, EHLO 500 closed, 1 commands, 0 messages, 0 recipients"},

	{why: "the server refuses a message early", server: ofScript(scriptToData("S: 552 too much|BROKEN")), loose: true,
		say: toRcpt + `> DATA|< 354|. "hi\r\n"|< 552|FIN`, want: "server: refused, DATA 552 closed, 4 commands, 0 messages, 1 recipients"},
	{why: "the server says 421 to a command", server: ofScript("S: 220 x|C: NOOP|S: 421 x"),
		say: "< 220|> NOOP|< 421|END", want: "server: refused, NOOP 421 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "the server says 421 to nothing", server: ofScript("S: 220 x|C: NOOP|S: 250 x|WAIT 1s|S: 421 x"),
		say: "< 220|> NOOP|< 250|< 421|END", want: "server: refused, NOOP 421 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "the server greets with 421", server: ofScript("S: 421 x"),
		say: "< 421|END", want: "server: refused,  421 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "the server greets with 554, and closes", server: ofScript("S: 554 x"),
		say: "< 554|END", want: "server: refused,  554 closed, 0 commands, 0 messages, 0 recipients"},
	{why: "the server greets with 554, and the client quits", server: ofScript("S: 554 x|C: QUIT|S: 221 x"),
		say: "< 554|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 1 commands, 0 messages, 0 recipients"},
	{why: "the server closes without a word", server: ofScript("S: 220 x|C: NOOP"),
		say: "< 220|> NOOP|END", want: "server: server closed, NOOP 220, 0 commands, 0 messages, 0 recipients"},

	{why: "the server closes where a reply was held for others", server: ofScript("S: 220 x|C: RSET|S: 250 x"),
		say: `< 220|. "RSET\r\nNOOP\r\n"|< 250|END`, want: "server: server closed, RSET 250, 1 commands, 0 messages, 0 recipients"},

	{why: "two messages, one of them in chunks",
		say:  toRcpt + "> RCPT TO:<c@c>|< 250|. \"BDAT 2\\r\\nhi\"|< 250|. \"BDAT 2 LAST\\r\\nho\"|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> DATA|< 354|> .|< 250|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 10 commands, 2 messages, 3 recipients"},
	{why: "a message that the server refuses behind its end", server: ofGoSMTP(limitIt),
		say:  toRcpt + `> DATA|< 354|. "xxxxxxxx\r\n" x*200|. ".\r\n"|< 552|> QUIT|< 221|END`,
		want: "client: quit, QUIT 221 closed, 5 commands, 0 messages, 1 recipients"},
	{why: "commands that are refused",
		say: hello + "> MAIL FROM:<a@a>|< 250|> RCPT TO:<nobody@b>|< 550|> DATA|< 502|> XYZZY|< 501|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 3 commands, 0 messages, 0 recipients"},
	{why: "recipients and a message that the hook accepts itself", hook: func(w *lifeHook) {
		w.command = func(_ *hookContext, cmd command) (decision, error) {
			if cmd.Line == "RCPT TO:<trap@b>" || cmd.Verb() == "BDAT" {
				return reply{}, nil
			}
			return nil, nil
		}
	},
		say:  toRcpt + "> RCPT TO:<trap@b>|< 250|. \"BDAT 2\\r\\nhi\"|< 250|. \"BDAT 2 LAST\\r\\nho\"|< 250|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 7 commands, 1 messages, 2 recipients"},
	{why: "LMTP, with a status that is refused", server: ofServer(func(o ...servertest.Option) *servertest.Server { return servertest.GoSMTPLMTP(false, o...) }, servertest.Refuse("b@b")),
		say:  "< 220|> LHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> RCPT TO:<c@c>|< 250|> DATA|< 354|> hi\r\n.|< 550|< 250|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 6 commands, 1 messages, 2 recipients"},
	{why: "LMTP in chunks, with a status that is refused", server: ofServer(servertest.Strict, servertest.LMTP(), servertest.Refuse("b@b")),
		say:  "< 220|> LHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> RCPT TO:<c@c>|< 250|. \"BDAT 2 LAST\\r\\nhi\"|< 550|< 250|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 6 commands, 1 messages, 2 recipients"},
	{why: "LMTP, with all statuses refused", server: ofServer(servertest.Strict, servertest.LMTP(), servertest.Refuse("b@b")),
		say:  "< 220|> LHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|. \"BDAT 2 LAST\\r\\nhi\"|< 550|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 4 commands, 0 messages, 1 recipients"},
	{why: "an exchange of the server's", proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		say: hello + "> AUTH PLAIN|< 334|> AHVzZXIAcGFzcw==|< 235|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 3 commands, 0 messages, 0 recipients"},
	{why: "a password out of its place is no verb", proxy: smtpproxy.Proxy{AllowInsecureAuth: true},
		say: hello + "> AUTH PLAIN AHVzZXIAbm8=|< 535|> AHVzZXIAcGFzcw|< 5|FIN", want: "client: client gone, AUTH 501, 1 commands, 0 messages, 0 recipients", err: io.EOF},
	{why: "TLS from the start", proxy: smtpproxy.Proxy{TLSConfig: serverTLS(), ImplicitTLS: true},
		say: "TLS|" + hello + "> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 2 commands, 0 messages, 0 recipients"},
	{why: "STARTTLS between", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
		say:  hello + "> STARTTLS|< 220|TLS|> EHLO x|< 250|> MAIL FROM:<a@a>|< 250|> RCPT TO:<b@b>|< 250|> DATA|< 354|> hi\r\n.|< 250|> QUIT|< 221|END",
		want: "client: quit, QUIT 221 closed, 7 commands, 1 messages, 1 recipients"},
}

func scriptToData(behind string) string {
	return "S: 220 x|C: EHLO client.example|S: 250 x|C: MAIL FROM:<a@a>|S: 250 x|C: RCPT TO:<b@b>|S: 250 x|C: DATA|S: 354 x|C: hi|" + behind
}

// play plays the row, and returns what the hook was told.
func (row endRow) play(t *testing.T, tr transport, call func(close func() error)) (told farewellTold, k *caller, w *lifeHook) {
	t.Helper()
	w = newLifeHook()
	if row.hook != nil {
		row.hook(w)
	}
	p := row.proxy
	p.Hook = smtpproxy.Named("judge", w)
	if row.server == nil {
		row.server = ofGoSMTP()
	}
	serve, stop := row.server(t, &p)
	served := make(chan struct{})
	go func() {
		defer close(served) // it may be its own goroutine that ends
		serve(tr)
	}()
	var c net.Conn
	leave := sync.OnceFunc(func() {
		c.Close()
		stop()
		tr.Close()
		<-served
	})
	t.Cleanup(leave)
	var err error
	start := time.Now()
	if c, err = tr.dial(); err != nil {
		t.Fatal(err)
	}
	k = newCaller(t, c)
	k.play(row.say, func() { call(stop) })
	told = inTime(t, "Disconnect", w.ended)
	if d := told.end.Duration; d < 0 || d > time.Since(start) {
		t.Errorf("it took %v, of %v", d, time.Since(start))
	}
	leave()
	return told, k, w
}

// check holds what the hook was told against the row.
func (row endRow) check(t *testing.T, told farewellTold, k *caller, w *lifeHook) {
	t.Helper()
	e := told.end
	if got := short(e); got != row.want {
		t.Errorf("told: %s\nwant: %s", got, row.want)
	}
	var f smtpproxy.Failure
	switch {
	case row.err == errOther && (e.Err == nil || e.Err == io.EOF), row.err != errOther && !errors.Is(e.Err, row.err):
		t.Errorf("Err is %v, want %v", e.Err, row.err)
	case e.Reason == smtpproxy.ReasonHookFailed && (!errors.As(e.Err, &f) || f.Hook != "judge"):
		t.Errorf("Err is %#v", e.Err)
	}
	if !row.loose && (e.Received != k.sent || e.Sent != k.got) {
		t.Errorf("%d octets received, %d sent; the client has sent %d and got %d", e.Received, e.Sent, k.sent, k.got)
	}
	if e.Reply.Disconnect && !strings.HasSuffix(k.last, e.Reply.Lines[len(e.Reply.Lines)-1]+"\r\n") {
		t.Errorf("the last reply was %q, of %q", k.last, e.Reply.Lines)
	}
	calls := w.called(t)
	if n := len(calls); calls[n-1] != "disconnect" || strings.Count(strings.Join(calls, " "), "disconnect") != 1 || told.kept != n-1 || told.err != nil {
		t.Errorf("called: %q; %d calls are kept, the Context is done: %v", calls, told.kept, told.err)
	}
}

func TestTheHookIsToldOnceWhoHasEndedTheConnectionAndWhy(t *testing.T) {
	for _, row := range endRows {
		bubble(t, row.why, func(t *testing.T) {
			told, k, w := row.play(t, overCable(), nil)
			row.check(t, told, k, w)
		})
	}
}

func TestAServerThatClosesEndsTheConnection(t *testing.T) {
	const closed = "server: server closed, EHLO 250, 1 commands, 0 messages, 0 recipients"
	for _, row := range []endRow{
		{why: "between commands", say: hello + "CALL|END", want: closed},
		{why: "in a command of the client's", say: hello + `. "NO"|CALL|END`, want: closed},
		{why: "in a message", say: toRcpt + `> DATA|< 354|. "hi\r\n"|CALL`, loose: true,
			want: "server: server closed, DATA 354, 4 commands, 0 messages, 1 recipients"},
		{why: "inside TLS", proxy: smtpproxy.Proxy{TLSConfig: serverTLS()},
			say: hello + "> STARTTLS|< 220|TLS|> EHLO x|< 250|CALL|END", want: "server: server closed, EHLO 250, 3 commands, 0 messages, 0 recipients"},
	} {
		bubble(t, row.why, func(t *testing.T) {
			told, k, w := row.play(t, overCable(), func(stop func() error) { synctest.Wait(); stop() })
			row.check(t, told, k, w)
		})
	}
}

// The hook is at work when the server closes: neither its answer nor its failure is what
// has ended the connection.
func TestAServerThatClosesDuringACallHasEndedTheConnection(t *testing.T) {
	refuses := func(ctx *hookContext) (decision, error) { <-ctx.Done(); return reply{Code: 554, Disconnect: true}, nil }
	fails := func(ctx *hookContext) (decision, error) { <-ctx.Done(); return nil, ctx.Err() }
	for why, decide := range map[string]func(ctx *hookContext) (decision, error){"it refuses": refuses, "it fails": fails} {
		for _, timeout := range []time.Duration{0, time.Hour} {
			bubble(t, why+" at a command", func(t *testing.T) {
				row := endRow{proxy: smtpproxy.Proxy{HookTimeout: timeout}, say: hello + "> NOOP|CALL|END",
					hook: func(w *lifeHook) {
						w.givenUp = timeout > 0
						w.command = func(ctx *hookContext, cmd command) (decision, error) {
							if cmd.Verb() != "NOOP" {
								return nil, nil
							}
							return decide(ctx)
						}
					},
					want: "server: server closed, NOOP 250, 1 commands, 0 messages, 0 recipients"}
				told, k, w := row.play(t, overCable(), func(stop func() error) { synctest.Wait(); stop() })
				row.check(t, told, k, w)
			})
			bubble(t, why+" in the place of the greeting", func(t *testing.T) {
				row := endRow{proxy: smtpproxy.Proxy{HookTimeout: timeout}, say: "CALL|END",
					hook: func(w *lifeHook) {
						w.givenUp = timeout > 0
						w.connect = func(ctx *hookContext, _ connection) (decision, error) { return decide(ctx) }
					},
					want: "server: server closed,  0, 0 commands, 0 messages, 0 recipients"}
				told, k, w := row.play(t, overCable(), func(stop func() error) { synctest.Wait(); stop() })
				row.check(t, told, k, w)
			})
		}
	}
}

func TestAServerThatShutsDownServesItsConnectionsToTheirEnd(t *testing.T) {
	var srv *smtp.Server
	row := endRow{server: func(_ *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
		servertest.GoSMTP(servertest.Configure(func(s *smtp.Server) { srv = s }))
		return func(l net.Listener) error { return gosmtp.Serve(srv, l, p) }, srv.Close
	}, say: hello + "CALL|> NOOP|< 250|> QUIT|< 221|END", want: "client: quit, QUIT 221 closed, 3 commands, 0 messages, 0 recipients"}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	told, k, w := row.play(t, overTCP(t), func(func() error) { srv.Shutdown(over) })
	row.check(t, told, k, w)
}
