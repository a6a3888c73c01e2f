package e2e

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/seed3262c777/smtpproxy"
)

// This file has random hooks of hooks, and a model of who is shown what. It walks the tree,
// where the library has taken it apart into a list.

// tree is a hook: one by itself (no), or made of others.
type tree struct {
	kind  treeKind
	name  string   // of one by itself
	kids  []*tree  // may hold nil where a hook may be nil
	verbs []string // of a Mux, for its kids; "" is Else
}

type treeKind int

const (
	single    treeKind = iota
	inert              // Funcs with nothing for commands
	inChain            // Chain
	inMux              // Mux
	inName             // Named
	inWrapper          // a hook of the user's that calls the one in it, and tells nobody
)

// grower makes trees.
type grower struct {
	*rand.Rand
	n int
}

func (g *grower) single() *tree {
	g.n++
	return &tree{kind: single, name: fmt.Sprint("h", g.n)}
}

// grow returns a tree of at most some levels.
func (g *grower) grow(levels int) *tree {
	if levels == 0 {
		return g.single()
	}
	switch g.IntN(10) {
	case 0, 1, 2:
		return g.single()
	case 3, 4, 5:
		return g.chain(g.IntN(4), levels)
	case 6, 7:
		t := &tree{kind: inMux}
		verbs := []string{"NOOP", "VRFY", "AUTH", "MAIL", "RCPT", "DATA", "HELP"}
		g.Shuffle(len(verbs), func(i, j int) { verbs[i], verbs[j] = verbs[j], verbs[i] })
		t.verbs = verbs[:1+g.IntN(3)]
		if g.IntN(2) == 0 {
			t.verbs = append(t.verbs, "")
		}
		for range t.verbs {
			t.kids = append(t.kids, g.grow(levels-1))
		}
		return t
	case 8:
		if g.IntN(4) == 0 {
			return &tree{kind: inert}
		}
		return &tree{kind: inName, kids: []*tree{g.grow(levels - 1)}}
	}
	return &tree{kind: inWrapper, kids: []*tree{g.chain(1+g.IntN(3), levels)}}
}

func (g *grower) chain(n, levels int) *tree {
	t := &tree{kind: inChain}
	for range n {
		t.kids = append(t.kids, g.grow(levels-1))
		if g.IntN(8) == 0 {
			t.kids = append(t.kids, nil)
		}
	}
	return t
}

// String writes the tree down, for whom a test fails.
func (t *tree) String() string {
	switch {
	case t == nil:
		return "nil"
	case t.kind == single:
		return t.name
	}
	var kids []string
	for i, k := range t.kids {
		text := k.String()
		if t.kind == inMux {
			text = t.verbs[i] + ":" + text
		}
		kids = append(kids, text)
	}
	return []string{"", "inert", "chain", "mux", "named", "wrapper"}[t.kind] + "(" + strings.Join(kids, " ") + ")"
}

// shown is what hooks by themselves have been shown, in order.
type shown struct {
	mu   sync.Mutex
	list []string
}

func (s *shown) add(name string, cmd command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, fmt.Sprintf("%s %q <- %q, SASL: %v", name, cmd.Line, cmd.Received, cmd.SASL))
}

// hook makes the tree the library's hook.
func (t *tree) hook(log *shown, seed uint64) smtpproxy.Hook {
	if t == nil {
		return nil
	}
	var kids []smtpproxy.Hook
	for _, k := range t.kids {
		kids = append(kids, k.hook(log, seed))
	}
	switch t.kind {
	case single:
		return decide(func(cmd command) (decision, error) {
			log.add(t.name, cmd)
			return t.decides(seed, cmd)
		})
	case inert:
		return smtpproxy.Funcs{}
	case inChain:
		return smtpproxy.Chain(kids...)
	case inName:
		return smtpproxy.Named("n", kids[0])
	case inWrapper:
		return wrapper{kids[0]}
	}
	m := make(byVerb)
	for i, verb := range t.verbs {
		m[verb] = kids[i]
	}
	return routes(m)
}

// decides is what a hook by itself decides: the same each time that it is asked about what
// the client has sent.
func (t *tree) decides(seed uint64, cmd command) (decision, error) {
	sum := fnv.New64a()
	fmt.Fprint(sum, seed, t.name, cmd.Received, cmd.SASL)
	r := rand.New(rand.NewPCG(sum.Sum64(), 0))
	verb, n := verbIn(cmd.Received), r.IntN(100)
	if cmd.SASL {
		switch {
		case n < 30:
			return pass{}, nil
		case n < 45:
			return &pass{Next: true}, nil
		case n < 55:
			return pass{Command: cmd.Line + "AAAA"}, nil
		case n < 70:
			return reply{Code: 334}, nil
		case n < 96:
			return reply{Code: 535, Next: r.IntN(3) == 0}, nil
		}
		return nil, errBroken
	}
	free := slices.Contains([]string{"", "NOOP", "VRFY", "RSET", "HELP"}, verb)
	switch {
	case n < 50:
		return nil, nil
	case n < 68:
		return pass{Next: true}, nil
	case n < 78 && free:
		verbs := []string{"NOOP", "VRFY", "RSET", "HELP"}
		return pass{Command: fmt.Sprint(verbs[r.IntN(4)], " ", t.name, " ", r.IntN(1000)), Next: r.IntN(2) == 0}, nil
	case verb == "EHLO" || verb == "QUIT":
		return nil, nil
	case n < 82:
		return reply{Code: 550, Next: r.IntN(2) == 0}, nil
	case verb == "DATA" || verb == "BDAT":
		return nil, nil
	case n < 85:
		return &reply{Code: 250}, nil
	case n < 92:
		return reply{Code: 334}, nil
	case n == 99:
		return nil, errBroken
	}
	return pass{}, nil
}

// verbIn returns the verb of a line that this test makes.
func verbIn(line string) string {
	word, _, _ := strings.Cut(line, " ")
	if strings.HasPrefix(word, "?") {
		return ""
	}
	return strings.ToUpper(word)
}

// model tells who is shown what.
type model struct {
	top  *tree
	show func(t *tree, cmd command) (decision, error)
	// asked are those in a wrapper, or in none, that have asked for the next line.
	asked    map[*tree][]*tree
	commands []string // Proxy.Commands
	fault    string   // of a careless one
}

// walk is a line on its way through the hooks in a wrapper, or in none.
type walk struct {
	*model
	cmd     command
	passed  pass
	reply   *reply
	by      *tree // who has given it
	err     error
	own     bool    // an answer to a hook's own challenge
	only    bool    // nobody else gets it
	asked   []*tree // who has asked for it
	had     []*tree // who has had it before it was its turn
	askNext []*tree
}

// line takes a line of the client's through all hooks.
func (m *model) line(line string, sasl, own bool) *walk {
	w := m.through(nil, m.top, command{Line: line, Received: line, SASL: sasl}, own, true)
	return w
}

// through takes a line through the hooks in a wrapper. isNext tells that it is the line
// after the one at which they have asked.
func (m *model) through(in, top *tree, cmd command, own, isNext bool) *walk {
	w := &walk{model: m, cmd: cmd, own: own, only: cmd.SASL, asked: m.asked[in]}
	if !isNext {
		w.asked = nil
	}
	if in == nil {
		w.only = cmd.SASL || len(m.commands) > 0 && !slices.Contains(m.commands, verbIn(cmd.Line)) && !top.routes(verbIn(cmd.Line))
	}
	switch {
	case m.fault == "Next takes away" && len(w.asked) > 0:
		w.only = true
	case m.fault == "all see a secret" && w.cmd.SASL && !own:
		w.only = false
	case m.fault == "an asker is called twice" && !w.only:
		for _, t := range w.asked {
			if !w.call(t) {
				break
			}
		}
	}
	if w.only {
		for _, t := range w.asked {
			if !w.call(t) {
				break
			}
		}
	} else if w.reply == nil && w.err == nil {
		w.visit(top)
	}
	m.asked[in] = w.askNext
	w.passed.Next = len(w.askNext) > 0
	return w
}

// routes tells whether a Mux has the verb, where the library can see that.
func (t *tree) routes(verb string) bool {
	return t != nil && t.kind != inWrapper && verb != "" &&
		(slices.Contains(t.verbs, verb) || slices.ContainsFunc(t.kids, func(k *tree) bool { return k.routes(verb) }))
}

// has tells whether a hook is in the tree, and in no wrapper in it.
func (t *tree) has(other *tree) bool {
	return t != nil && (t == other || t.kind != inWrapper && slices.ContainsFunc(t.kids, func(k *tree) bool { return k.has(other) }))
}

// visit takes the line through a tree. It returns false if it goes no further.
func (w *walk) visit(t *tree) bool {
	switch {
	case t == nil, t.kind == inert, slices.Contains(w.had, t):
		return true
	case t.kind == single, t.kind == inWrapper:
		return w.call(t)
	case t.kind == inMux:
		branch, ahead := t.branch(w)
		for ahead != nil {
			if w.had = append(w.had, ahead); !w.call(ahead) {
				return false
			}
			branch, ahead = t.branch(w)
		}
		return w.visit(branch)
	}
	for _, k := range t.kids {
		if !w.visit(k) {
			return false
		}
	}
	return true
}

// branch returns the hook of a Mux for the line as it is, and who is to get that before.
func (t *tree) branch(w *walk) (branch, ahead *tree) {
	i := slices.Index(t.verbs, verbIn(w.cmd.Line))
	if i < 0 {
		i = slices.Index(t.verbs, "")
	}
	if i >= 0 {
		branch = t.kids[i]
	}
	for _, asker := range w.asked {
		if t.has(asker) && !branch.has(asker) && !slices.Contains(w.had, asker) {
			return branch, asker
		}
	}
	return branch, nil
}

// call shows the line to a hook. It returns false if it goes no further.
func (w *walk) call(t *tree) bool {
	var d decision
	var err error
	if t.kind == inWrapper {
		in := w.through(t, t.kids[0], w.cmd, false, w.only || slices.Contains(w.asked, t))
		if d, err = in.passed, in.err; in.reply != nil {
			d = *in.reply
		}
	} else {
		d, err = w.show(t, w.cmd)
	}
	switch v := d.(type) {
	case *pass:
		d = *v
	case *reply:
		d = *v
	case nil:
		d = pass{}
	}
	switch d := d.(type) {
	case pass:
		if err == nil && w.own {
			err = errOwnPassed
		}
		if err != nil {
			break
		}
		if d.Next {
			w.askNext = append(w.askNext, t)
		}
		if d.Command != "" {
			w.cmd.Line, w.passed.Command = d.Command, d.Command
		}
		return true
	case reply:
		if d.Code == 334 {
			w.askNext = nil // the answer is for nobody else
		}
		if d.Next || d.Code == 334 {
			w.askNext = append(w.askNext, t)
		}
		w.reply, w.by = &d, t
	}
	w.err = err
	return false
}

var errOwnPassed = errors.New("the answer to a hook's own challenge is passed")

// carelessHook is a hook that walks through a tree itself, for one client.
type carelessHook struct{ model *model }

// Command implements Hook. It asks for each line, to show it as it sees fit.
func (c carelessHook) Command(_ *hookContext, cmd command, _ connection, _ transaction) (decision, error) {
	w := c.model.through(nil, c.model.top, cmd, false, true)
	switch {
	case w.err != nil:
		return nil, w.err
	case w.reply != nil:
		r := *w.reply
		r.Next = true
		return r, nil
	}
	return pass{Command: w.passed.Command, Next: true}, nil
}
