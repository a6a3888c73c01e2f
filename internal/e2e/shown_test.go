package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// This file plays dialogues in which somebody looks at replies: a hook, or an observer.

// shownExchange is what both are shown.
type shownExchange = smtpproxy.Exchange

// shownRow is a dialogue, and who gives which reply in it.
type shownRow struct {
	why     string
	server  endServer // nil is go-smtp's
	proxy   smtpproxy.Proxy
	connect func(ctx *hookContext, conn connection) (decision, error)
	command func(cmd command) (decision, error)
	kw      func(kw *smtpproxy.Keywords) error
	say     string // of the client: see caller
	want    string // see tell, separated by bars
	octets  string // that the client gets; "" where they are only compared
}

// tell tells of an exchange: the verb of the client's line, or what else it begins with, with
// ">" before what the server got if that was another line, and "!" if it got none; who has
// given the reply, and which hook; its code and enhanced status code, whose status it is, how
// many octets of content the server got, how many recipients the transaction has, if there is
// one, and whether it is the last reply.
func tell(x shownExchange) string {
	var b strings.Builder
	b.WriteString(cmp.Or(strings.ToUpper(strings.SplitN(x.Command.Line, " ", 2)[0]), "-"))
	if x.Command.SASL {
		b.Reset()
		b.WriteString("sasl")
	}
	switch x.Passed.Line {
	case x.Command.Line:
		if x.Command.SASL && !x.Passed.SASL {
			b.WriteString("!") // nobody is shown what such a line holds
		}
	case "":
		b.WriteString("!")
	default:
		b.WriteString(">" + x.Passed.Line)
	}
	fmt.Fprint(&b, " ", x.By)
	if x.Hook != "" {
		b.WriteString("/" + x.Hook)
	}
	fmt.Fprint(&b, " ", x.Reply.Code)
	if e := x.Reply.Enhanced.String(); e != "" {
		b.WriteString(" " + e)
	}
	if x.Recipient >= 0 {
		fmt.Fprintf(&b, " #%d", x.Recipient)
	}
	if x.Octets != 0 {
		fmt.Fprintf(&b, " %do", x.Octets)
	}
	if x.Transaction.Active {
		fmt.Fprintf(&b, " t%d", x.Transaction.Recipients.Len())
	}
	if x.Reply.Disconnect {
		b.WriteString(" last")
	}
	return b.String()
}

// album keeps what it is shown.
type album struct {
	mu   sync.Mutex
	list []shownExchange
}

func (a *album) add(x shownExchange) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, x)
}

func (a *album) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var told []string
	for _, x := range a.list {
		told = append(told, tell(x))
	}
	return strings.Join(told, "|")
}

// onlookers are who may look at the replies of a dialogue.
var onlookers = []string{"nobody", "a hook", "a hook that returns what it is shown", "an observer", "two hooks, and an observer"}

// play plays the row while somebody looks. It returns what each was shown, and what the client
// got.
func (row shownRow) play(t *testing.T, onlooker string) (albums []*album, octets string) {
	t.Helper()
	album1, p := new(album), row.proxy
	albums = append(albums, album1)
	looks := func(a *album) func(*hookContext, shownExchange) (decision, error) {
		return func(_ *hookContext, x shownExchange) (decision, error) {
			a.add(x)
			return nil, nil
		}
	}
	f := smtpproxy.Funcs{OnConnect: row.connect}
	if row.kw != nil {
		f.OnKeywords = func(_ *hookContext, _ connection, kw *smtpproxy.Keywords) error { return row.kw(kw) }
	}
	if row.command != nil {
		f.OnCommand = decide(row.command)
	}
	hooks := []smtpproxy.Hook{}
	observed := func(a *album) []smtpproxy.Observer {
		return []smtpproxy.Observer{{Exchanged: func(_ *hookContext, x shownExchange) { a.add(x) }}}
	}
	switch onlooker {
	case "a hook":
		f.OnReply = looks(album1)
	case "a hook that returns what it is shown":
		f.OnReply = func(_ *hookContext, x shownExchange) (decision, error) {
			album1.add(x)
			return x.Reply, nil
		}
		p.Observers = []smtpproxy.Observer{{Failed: func(_ *hookContext, f smtpproxy.Failure) {
			if errors.Is(f, smtpproxy.ErrInvalidDecision) {
				t.Error(f)
			}
		}}}
	case "an observer":
		p.Observers = observed(album1)
	case "two hooks, and an observer":
		f.OnReply = looks(album1)
		albums = append(albums, new(album), new(album))
		hooks = append(hooks, smtpproxy.Funcs{OnReply: looks(albums[1])})
		p.Observers = observed(albums[2])
	default:
		albums = nil
	}
	p.Hook = smtpproxy.Chain(append(hooks, smtpproxy.Named("h", f))...)
	server := row.server
	if server == nil {
		server = ofGoSMTP()
	}
	serve, stop := server(t, &p)
	tr, served := overCable(), make(chan struct{})
	go func() {
		defer close(served)
		serve(tr)
	}()
	c, err := tr.dial()
	if err != nil {
		t.Fatal(err)
	}
	k := newCaller(t, c)
	leave := sync.OnceFunc(func() {
		k.c.Close()
		c.Close()
		stop()
		tr.Close()
		<-served
	})
	t.Cleanup(leave)
	k.play(row.say, nil)
	leave()
	time.Sleep(time.Minute) // in a bubble: what else may come
	return albums, string(k.octets)
}

// ofScripts is a server that plays a script on each connection, one after the other.
func ofScripts(scripts ...string) endServer {
	return func(t *testing.T, p *smtpproxy.Proxy) (func(net.Listener) error, func() error) {
		serve := func(tr net.Listener) error {
			l := p.Listener(tr)
			for _, script := range scripts {
				s := &scripted{script: strings.Split(script, "|"), bubble: true}
				s.Serve(l)
				if s.err != nil {
					t.Error(s.err)
				}
			}
			return nil
		}
		return serve, func() error { return nil }
	}
}
