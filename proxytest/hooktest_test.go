package proxytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
)

// The hook API, by names that fit into a line of a table.
type (
	hookContext = smtpproxy.Context
	command     = smtpproxy.Command
	connection  = smtpproxy.Connection
	transaction = smtpproxy.Transaction
	decision    = smtpproxy.Decision
	exchange    = smtpproxy.Exchange
	end         = smtpproxy.End
	keywords    = smtpproxy.Keywords
	funcs       = smtpproxy.Funcs
	reply       = smtpproxy.Reply
	pass        = smtpproxy.Pass
)

type hookFunc = func(ctx *hookContext, cmd command, conn connection, txn transaction) (decision, error)

// onCommand is a hook made of a function.
func onCommand(f hookFunc) smtpproxy.Hook { return smtpproxy.HookFunc(f) }

// onLine is a hook made of a function that looks at the line alone.
func onLine(f func(cmd command) (decision, error)) smtpproxy.Hook {
	return onCommand(func(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) { return f(cmd) })
}

// bad are hooks with a fault each.
var bad = []struct {
	why  string
	want string // is in the message
	test HookTest
	hook func(end <-chan struct{}) smtpproxy.Hook
}{
	{"it counts on arguments", "Command at MAIL: smtpproxy: hook panicked: runtime error: index out of range", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "MAIL" && strings.Fields(cmd.Line)[1] == "FROM:<spam@example.com>" {
					return reply{Code: 550}, nil
				}
				return nil, nil
			})
		}},
	{"it counts on a recipient at DATA", "Command at DATA x: smtpproxy: hook panicked: runtime error: index out of range [0]", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onCommand(func(_ *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
				if cmd.Verb() == "DATA" && txn.Recipients.At(0).Recipient == "root@example.com" {
					return reply{Code: 550}, nil
				}
				return nil, nil
			})
		}},
	{"it counts on UTF-8", "the hook has failed: no UTF-8", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if strings.ToValidUTF8(cmd.Line, "") != cmd.Line {
					return nil, errors.New("no UTF-8")
				}
				return nil, nil
			})
		}},
	{"it copies a long line into its reply", "invalid decision: a line of more than 512 octets", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "NOOP" {
					return reply{Lines: []string{"You said " + cmd.Args()}}, nil
				}
				return nil, nil
			})
		}},
	{"it passes on the answer to its own challenge", "Pass of an answer to the hook's own challenge", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "AUTH" {
					return reply{Code: 334}, nil
				}
				return nil, nil
			})
		}},
	{"it gives a code that is none, to a verb of its own", "code 600", HookTest{Lines: []string{"XPING"}},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "XPING" {
					return reply{Code: 600}, nil
				}
				return nil, nil
			})
		}},
	{"it accepts LMTP recipients itself", "a hook can't accept an LMTP recipient", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "RCPT" {
					return reply{Code: 250}, nil
				}
				return nil, nil
			})
		}},
	{"it ends its goroutine", "the hook has called runtime.Goexit", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "VRFY" {
					runtime.Goexit()
				}
				return nil, nil
			})
		}},
	{"it doesn't return", "RCPT TO:<bob@client0.example>: the hook has not returned within 50ms", HookTest{Patience: 50 * time.Millisecond},
		func(end <-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "RCPT" {
					<-end
				}
				return nil, nil
			})
		}},
	{"it waits for its client to leave", "RCPT TO:<bob@client0.example>: the hook has not returned within 50ms", HookTest{Patience: 50 * time.Millisecond},
		func(<-chan struct{}) smtpproxy.Hook {
			return onCommand(func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
				if cmd.Verb() == "RCPT" {
					<-ctx.Done() // TestMain finds out if that never comes
				}
				return nil, nil
			})
		}},
	{"it goes on when its client has left", "though its client is gone", HookTest{Patience: time.Minute, grace: 20 * time.Millisecond},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Line == "HELO client1.example" {
					time.Sleep(100 * time.Millisecond)
				}
				return nil, nil
			})
		}},
	{"it looks whether its client has left, but not while it works", "though its client is gone", HookTest{Patience: time.Minute, grace: 20 * time.Millisecond},
		func(<-chan struct{}) smtpproxy.Hook {
			return onCommand(func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
				if cmd.Line == "HELO client1.example" && ctx.Err() == nil {
					time.Sleep(100 * time.Millisecond)
				}
				return nil, nil
			})
		}},
	{"it doesn't return when the client connects", "(connection): the hook has not returned", HookTest{Patience: 50 * time.Millisecond},
		func(end <-chan struct{}) smtpproxy.Hook {
			return funcs{OnConnect: func(*hookContext, connection) (decision, error) {
				<-end
				return nil, nil
			}}
		}},
	{"it keeps what is a call's in itself", "if other clients talk at once", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			var sender atomic.Value
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() != "MAIL" {
					return nil, nil
				}
				sender.Store(strings.ToLower(cmd.Line[:min(len(cmd.Line), 60)]))
				time.Sleep(time.Millisecond) // looks it up
				return reply{Code: 450, Lines: []string{strings.ToValidUTF8(sender.Load().(string), "?")}}, nil
			})
		}},
	{"it takes what it knows of one connection for another's", "if other clients", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			rcpts := 0
			return onLine(func(cmd command) (decision, error) {
				mu.Lock()
				defer mu.Unlock()
				switch cmd.Verb() {
				case "MAIL":
					rcpts = 0
				case "RCPT":
					if rcpts++; rcpts > 2 {
						return reply{Code: 452}, nil
					}
				}
				return nil, nil
			})
		}},
	{"who has authenticated once has so for all", "if other clients have come before", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			var user string
			return onCommand(func(_ *hookContext, cmd command, conn connection, _ transaction) (decision, error) {
				mu.Lock()
				defer mu.Unlock()
				if conn.Auth.Username != "" {
					user = conn.Auth.Username
				}
				if cmd.Verb() == "RCPT" && user == "" {
					return reply{Code: 530}, nil
				}
				return nil, nil
			})
		}},
	{"one connection's line is in another's reply", "if other clients talk in between", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			var last sync.Map
			return onLine(func(cmd command) (decision, error) {
				if verb := cmd.Verb(); verb == "MAIL" {
					last.Store(verb, min(len(cmd.Line), 60))
				} else if verb == "RCPT" {
					n, _ := last.Load("MAIL")
					last.Delete("MAIL")
					return reply{Code: 450, Lines: []string{fmt.Sprint("after ", n)}}, nil
				}
				return nil, nil
			})
		}},
	{"it decides by chance", "the second time, though newHook has returned a fresh hook", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "RCPT" {
					return reply{Code: 450, Lines: []string{fmt.Sprint(rand.Int64())}}, nil
				}
				return nil, nil
			})
		}},
	{"it leaves a goroutine at each greeting", "connections have left 5 goroutines", HookTest{grace: 50 * time.Millisecond},
		func(end <-chan struct{}) smtpproxy.Hook {
			return onLine(func(cmd command) (decision, error) {
				if strings.HasSuffix(cmd.Line, "leaves.example") {
					go func() { <-end }()
				}
				return nil, nil
			})
		}},
	{"it leaves a goroutine at each greeting, and as many at the first ones that end", "connections have left 5 goroutines", HookTest{grace: 50 * time.Millisecond},
		func(end <-chan struct{}) smtpproxy.Hook {
			var calls atomic.Int32
			return onLine(func(cmd command) (decision, error) {
				if strings.HasSuffix(cmd.Line, "leaves.example") {
					go func() { <-end }()
					if calls.Add(1) <= 5 {
						go time.Sleep(25 * time.Millisecond) // it ends by itself, within the time that it has
					}
				}
				return nil, nil
			})
		}},
	{"it keeps the Context", "the hook holds the Context", HookTest{grace: 50 * time.Millisecond},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			var all []context.Context
			return onCommand(func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
				mu.Lock()
				defer mu.Unlock()
				if cmd.Verb() == "MAIL" {
					all = append(all, ctx)
				}
				return nil, nil
			})
		}},
	{"it keeps the Keywords", "the hook holds the Keywords", HookTest{grace: 50 * time.Millisecond},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			var last *keywords
			return funcs{OnKeywords: func(_ *hookContext, _ connection, kw *keywords) error {
				mu.Lock()
				defer mu.Unlock()
				last = kw
				_ = last
				return nil
			}}
		}},
	{"it changes the reply where it stands", "the hook has written to Exchange.Reply.Lines", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return smtpproxy.Named("polite", smtpproxy.Chain(funcs{OnReply: func(_ *hookContext, x exchange) (decision, error) {
				if x.Reply.Code >= 400 {
					x.Reply.Lines[0] += ", sorry"
				}
				return nil, nil
			}}))
		}},
	{"it changes the client's certificate", "the hook has written to the client's certificate", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return funcs{OnReply: func(_ *hookContext, x exchange) (decision, error) {
				if c := x.Connection.TLS.PeerCert.X509; c != nil {
					c.Subject.CommonName = "changed"
				}
				return nil, nil
			}}
		}},
	{"it returns the same Origin each time, changed", "the hook has changed the decision later", HookTest{Lines: []string{"XFRONT"}},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			var o smtpproxy.Origin
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "XFRONT" {
					mu.Lock()
					defer mu.Unlock()
					o.RemotePort++
					return reply{Restart: &o}, nil
				}
				return nil, nil
			})
		}},
	{"it returns the same lines each time, changed", "the hook has changed the decision later", HookTest{Varies: true},
		func(<-chan struct{}) smtpproxy.Hook {
			var mu sync.Mutex
			r, n := reply{Code: 250, Lines: []string{""}}, 0
			return onLine(func(cmd command) (decision, error) {
				if cmd.Verb() == "NOOP" {
					mu.Lock()
					defer mu.Unlock()
					n++
					r.Lines[0] = fmt.Sprint(n)
					return r, nil
				}
				return nil, nil
			})
		}},
	{"it panics where the server starts afresh", "Connect at XPROXYTEST", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return funcs{OnConnect: func(_ *hookContext, conn connection) (decision, error) {
				if conn.RemoteIP != conn.Peer.Addr() {
					panic("no room")
				}
				return nil, nil
			}}
		}},
	{"it greets the client itself", "in the place of a greeting", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return funcs{OnConnect: func(*hookContext, connection) (decision, error) { return reply{Code: 220}, nil }}
		}},
	{"it offers what is no keyword", "Keywords at EHLO client0.example", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return funcs{OnKeywords: func(_ *hookContext, conn connection, kw *keywords) error { kw.Set("X_PING", ""); return nil }}
		}},
	{"it makes a success of a refusal", "500 changed to 250", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			return funcs{OnReply: func(_ *hookContext, x exchange) (decision, error) {
				if x.Reply.Code == 554 || x.Reply.Code == 500 {
					return reply{Code: 250}, nil
				}
				return nil, nil
			}}
		}},
	{"it counts on Connect having been called in Disconnect", "Disconnect: the hook has panicked", HookTest{},
		func(<-chan struct{}) smtpproxy.Hook {
			type count struct{ of map[string]int }
			return funcs{
				OnCommand: func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
					if c := smtpproxy.State[count](ctx); cmd.Verb() == "MAIL" {
						c.of = make(map[string]int)
					}
					return nil, nil
				},
				OnDisconnect: func(ctx *hookContext, _ connection, _ end) { smtpproxy.State[count](ctx).of["end"]++ },
			}
		}},
	{"it doesn't return when the client is gone", "(gone): the hook has not returned", HookTest{Patience: 50 * time.Millisecond},
		func(end <-chan struct{}) smtpproxy.Hook {
			return funcs{OnDisconnect: func(_ *hookContext, _ connection, e smtpproxy.End) {
				if e.Reason == smtpproxy.ReasonClientGone {
					<-end
				}
			}}
		}},
	{"there is none", "newHook has returned nil", HookTest{}, func(<-chan struct{}) smtpproxy.Hook { return nil }},
}

func TestABadHookIsFoundWithWhatToDoAboutIt(t *testing.T) {
	for _, tt := range bad {
		t.Run(tt.why, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			heard := &listener{TB: t}
			tt.test.Run(heard, func() smtpproxy.Hook { return tt.hook(release) })
			all := strings.Join(heard.errors, "\n\n")
			if !strings.Contains(all, tt.want) {
				t.Errorf("got %d errors\n%s\nwant %q", len(heard.errors), all, tt.want)
			}
			for _, e := range heard.errors {
				if !strings.Contains(e, "\n  -> ") || strings.Contains(e, "%!") {
					t.Errorf("this tells nothing to do: %s", e)
				}
			}
			if len(heard.errors) > fewFaults {
				t.Errorf("%d errors are too many for one fault:\n%s", len(heard.errors), all)
			}
			if strings.Contains(all, "H "+neighbour) {
				t.Errorf("this tells of a hook that isn't the test's:\n%s", all)
			}
			if strings.Contains(all, "panicked") && !strings.Contains(all, "/hooktest_test.go:") {
				t.Errorf("this tells no place:\n%s", all)
			}
			t.Log(all)
		})
	}
}

// listener hears what a test reports.
type listener struct {
	testing.TB
	errors []string
}

func (l *listener) Helper()           {}
func (l *listener) Error(args ...any) { l.errors = append(l.errors, fmt.Sprint(args...)) }

// good are hooks without a fault.
var good = []struct {
	why  string
	test HookTest
	hook func() smtpproxy.Hook
}{
	{"it passes all", HookTest{}, func() smtpproxy.Hook { return onLine(func(command) (decision, error) { return nil, nil }) }},
	{"it passes with pointers", HookTest{}, func() smtpproxy.Hook { return onLine(func(command) (decision, error) { return new(pass), nil }) }},
	{"it refuses all", HookTest{}, func() smtpproxy.Hook { return onLine(func(command) (decision, error) { return reply{Code: 550}, nil }) }},
	{"it closes at once", HookTest{}, func() smtpproxy.Hook { return onLine(func(command) (decision, error) { return reply{Code: 421}, nil }) }},
	{"it refuses the client", HookTest{}, func() smtpproxy.Hook {
		return funcs{OnConnect: func(*hookContext, connection) (decision, error) { return reply{Code: 554}, nil }}
	}},
	{"it asks for each line", HookTest{}, func() smtpproxy.Hook {
		return onLine(func(command) (decision, error) { return pass{Next: true}, nil })
	}},
	{"it has an exchange of its own, with a challenge by chance", HookTest{Lines: []string{"AUTH X-TOKEN", "secret"}}, func() smtpproxy.Hook {
		return onLine(func(cmd command) (decision, error) {
			switch {
			case cmd.SASL:
				return reply{Code: 535}, nil
			case cmd.Verb() == "AUTH":
				return reply{Code: 334, Lines: []string{fmt.Sprint(rand.Int64())}}, nil
			}
			return nil, nil
		})
	}},
	{"it counts with State", HookTest{}, func() smtpproxy.Hook {
		return onCommand(func(ctx *hookContext, cmd command, _ connection, txn transaction) (decision, error) {
			if v := smtpproxy.State[visits](ctx); cmd.Verb() == "RCPT" {
				v.n++
				return reply{Code: 450, Lines: []string{fmt.Sprint(v.n)}}, nil
			}
			return nil, nil
		})
	}},
	{"it tells the IDs", HookTest{}, func() smtpproxy.Hook {
		return onCommand(func(_ *hookContext, _ command, conn connection, txn transaction) (decision, error) {
			return reply{Code: 450, Lines: []string{conn.ID + " " + txn.ID}}, nil
		})
	}},
	{"it waits until the client has left, where that is allowed", HookTest{Patience: time.Minute}, func() smtpproxy.Hook {
		return onCommand(func(ctx *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(2 * time.Millisecond * time.Duration(min(1, strings.Count(cmd.Line, "HELO")))):
			}
			return nil, nil
		})
	}},
	{"it works on in a goroutine that ends", HookTest{}, func() smtpproxy.Hook {
		return onCommand(func(ctx *hookContext, _ command, _ connection, _ transaction) (decision, error) {
			done := make(chan bool)
			go func() { close(done) }()
			stop := ctx.AfterFunc(func() {})
			stop()
			<-done
			return nil, nil
		})
	}},
	{"it starts a worker for all connections", HookTest{}, func() smtpproxy.Hook {
		var once sync.Once
		return onLine(func(command) (decision, error) {
			once.Do(func() { go func() { time.Sleep(100 * time.Millisecond) }() })
			return nil, nil
		})
	}},
	{"it fails, and may", HookTest{MayFail: true}, func() smtpproxy.Hook {
		return onLine(func(command) (decision, error) { return nil, errors.New("no database") })
	}},
	{"it has a limit for all clients, and may", HookTest{Varies: true}, func() smtpproxy.Hook {
		var mu sync.Mutex
		n := 0
		return funcs{OnConnect: func(*hookContext, connection) (decision, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 2 {
				return reply{Code: 421}, nil
			}
			return nil, nil
		}}
	}},
	{"it answers all itself, where there is no LMTP", HookTest{NoLMTP: true}, func() smtpproxy.Hook {
		return onLine(func(command) (decision, error) { return reply{}, nil })
	}},
	{"it changes each refusal", HookTest{}, func() smtpproxy.Hook {
		return funcs{OnReply: func(_ *hookContext, x exchange) (decision, error) {
			if x.Reply.Code >= 400 {
				return reply{Lines: append(x.Reply.Lines[:len(x.Reply.Lines):len(x.Reply.Lines)], "Sorry")}, nil
			}
			return nil, nil
		}}
	}},
	{"it is a Mux in a Chain, all named", HookTest{Lines: []string{"XPING", "XPING x"}}, func() smtpproxy.Hook {
		m := new(smtpproxy.Mux)
		m.Extend("XPING", "XPING", onLine(func(command) (decision, error) { return reply{Lines: []string{"PONG"}}, nil }))
		return smtpproxy.Named("pings", smtpproxy.Chain(nil, new(logbook), m))
	}},
	{"it takes XCLIENT", HookTest{Lines: []string{"XCLIENT ADDR=192.0.2.99"}}, func() smtpproxy.Hook { return restarts(nil).Hook }},
}

func TestAGoodHookStandsTheTest(t *testing.T) {
	for _, tt := range good {
		t.Run(tt.why, func(t *testing.T) { tt.test.Run(t, tt.hook) })
	}
}

func TestTestHookIsAsStrictAsTheZeroHookTest(t *testing.T) {
	heard := &listener{TB: t}
	TestHook(heard, func() smtpproxy.Hook {
		return onLine(func(command) (decision, error) { return nil, errors.New("no database") })
	})
	if len(heard.errors) == 0 || !strings.Contains(heard.errors[0], "no database") {
		t.Errorf("got %q", heard.errors)
	}
}
