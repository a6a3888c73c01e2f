package smtpproxy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/ascii"
	"github.com/seed3262c777/smtpproxy/internal/dialogue"
)

// Mux is a Hook that hands each command to the hook for its verb, as
// http.ServeMux does with requests. The zero value passes everything.
//
// A line without a verb goes to Else. In a [Chain], the verb is that of the line
// as the hooks before have left it. A hook that has asked for a line with Next
// gets it before the hook for its verb does.
//
// All hooks are registered before the Mux is put to use: a Proxy takes it apart
// then, and what is registered later has no effect on it.
type Mux struct {
	// Else is the hook for all other commands; nil passes them.
	Else Hook

	routes []muxRoute
	plain  plain
}

type muxRoute struct {
	verb string // in upper case
	hook Hook
	// keyword and params are what the client is told of the verb.
	keyword, params string
}

// Handle registers the hook for a verb, in any case. With Proxy.Commands set, the
// verb is one of them. Handle panics if the verb is none, or has a hook already,
// and if h is nil.
func (m *Mux) Handle(verb string, h Hook) { m.register(muxRoute{verb: verb, hook: h}) }

// HandleFunc is Handle for a function.
func (m *Mux) HandleFunc(verb string, f func(*Context, Command, Connection, Transaction) (Decision, error)) {
	if f == nil {
		panic("smtpproxy: Mux has no function for " + verb)
	}
	m.Handle(verb, HookFunc(f))
}

// Extend is Handle for a verb of an extension, which the client is told of in the reply
// to EHLO and LHLO: keyword is the line there, such as "XPING" or "XCLIENT NAME ADDR", often
// just the verb. It takes the
// place of what the server says of that keyword. Extend panics as Handle does, and if
// keyword is none.
func (m *Mux) Extend(keyword, verb string, h Hook) {
	var kw Keywords
	name, params, _ := strings.Cut(keyword, " ")
	if kw.Set(name, params); kw.invalid != nil || len(kw.list) == 0 {
		panic(fmt.Sprintf("smtpproxy: %q is no keyword for a Mux", keyword))
	}
	m.register(muxRoute{verb: verb, hook: h, keyword: name, params: params})
}

// Keywords implements KeywordHook: it announces what Extend has registered.
func (m *Mux) Keywords(_ *Context, _ Connection, kw *Keywords) error {
	for _, r := range m.routes {
		if r.keyword != "" {
			kw.Set(r.keyword, r.params)
		}
	}
	return nil
}

// extends tells whether there is something to announce.
func (m *Mux) extends() bool {
	return slices.ContainsFunc(m.routes, func(r muxRoute) bool { return r.keyword != "" })
}

func (m *Mux) register(r muxRoute) {
	name, _ := dialogue.VerbOf(r.verb)
	switch {
	case name == "" || name != ascii.ToUpper(r.verb):
		panic(fmt.Sprintf("smtpproxy: %q is no verb for a Mux", r.verb))
	case r.hook == nil:
		panic("smtpproxy: Mux has no hook for " + name)
	}
	for _, other := range m.routes {
		if other.verb == name {
			panic("smtpproxy: Mux has a hook for " + name + " already")
		}
	}
	r.verb = name
	m.routes = append(m.routes, r)
	m.plain.forget()
}

// Unwrap returns the hooks, in the order in which they were registered, and then
// Else.
func (m *Mux) Unwrap() []Hook {
	hooks := make([]Hook, 0, len(m.routes)+1)
	for _, r := range m.routes {
		hooks = append(hooks, r.hook)
	}
	if m.Else != nil {
		hooks = append(hooks, m.Else)
	}
	return hooks
}

// Command implements Hook for who calls it in the library's place.
func (m *Mux) Command(ctx *Context, cmd Command, conn Connection, txn Transaction) (Decision, error) {
	return m.plain.command(m, ctx, &cmd, &conn, &txn)
}
