package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what has been found out.
type report struct {
	o      *options
	ledger *ledger

	counts      map[string]int // the clients'
	complaints  complaints     // likewise
	logged      map[string]int // by the servers and the library
	unseen      int            // messages delivered whose client broke off
	unexplained int            // messages delivered that nobody accounts for

	looks     int // how often connected was looked at
	connected int // the sum of it
	fewest    int

	took, warm           time.Duration
	stall                time.Duration // of this process, the longest
	serverCPU, clientCPU time.Duration
	before, after        usage
	all, samples         []usage // samples are those after the warm-up
}

// check is one property: what it is, what was found, and whether it holds.
type check struct {
	name, found string
	holds       bool
}

// none is a check that nothing of the kind was found.
func none(name string, n int) check { return check{name, thousands(n), n == 0} }

// checks are all properties that are claimed.
func (r *report) checks() []check {
	l := r.ledger
	mean := 0
	if r.looks > 0 {
		mean = r.connected / r.looks
	}
	heap := trendOf(r.samples, func(u usage) float64 { return u.heap })
	return []check{
		{"messages were accepted", thousands(l.accepted), l.accepted > 0},
		none("accepted, but not delivered", l.missing),
		none("delivered twice", l.duplicates),
		none("delivered otherwise than sent", l.mismatched),
		none("refused, but delivered", l.contrary),
		none("delivered, and nobody knows why", r.unexplained),
		none("evil commands and messages", l.evil),
		{"replies were checked", thousands(r.counts["replies checked"]), r.counts["replies checked"] > 0},
		none("replies wrong or out of order", r.counts["replies wrong"]),
		none("connections lost", r.counts["connections lost"]),
		none("connections not made", r.counts["connections not made"]),
		none("panics, but for go-smtp's known one", r.panics()),
		{"kinds of attack", fmt.Sprintf("%d of %d", r.attacks(), r.attacksDue()), r.attacks() == r.attacksDue()},
		{"connected, mean and least", thousands(mean) + ", " + thousands(r.fewest), float64(mean) >= r.o.least*float64(r.o.conns)},
		{"heap grows by less than " + mebi(heap.allowed(r.o.room)), mebi(heap.growth()), heap.flat(r.o.room)},
		{"goroutines, before and after", fmt.Sprintf("%d, %d", r.before.goroutines, r.after.goroutines), r.after.goroutines <= r.before.goroutines},
		{"descriptors, before and after", fmt.Sprintf("%d, %d", r.before.descriptors, r.after.descriptors), r.after.descriptors <= r.before.descriptors},
	}
}

// panics counts those of the server but one: go-smtp has begun to call the backend
// for a chunk when it closes the connection, and finds no session any more.
func (r *report) panics() (n int) {
	for what, count := range r.logged {
		if strings.Contains(what, "panic") && !strings.HasPrefix(what, hookPanic) && !strings.HasSuffix(what, knownPanic) {
			n += count
		}
	}
	return n
}

const (
	hookPanic  = "smtpproxy: hook failed: smtpproxy: hook panicked: as asked for"
	knownPanic = "nil pointer dereference, in go-smtp.(*Conn).handleBdat.func1"
)

// attacks counts the kinds of attack that were made.
func (r *report) attacks() (n int) {
	for _, a := range attacks {
		if r.counts["sessions, hostile: "+a.name] > 0 {
			n++
		}
	}
	return n
}

func (r *report) attacksDue() (n int) {
	for _, a := range attacks {
		if r.o.tears || !a.tears {
			n++
		}
	}
	return n
}

// holds tells whether all properties hold.
func (r *report) holds() bool {
	return !slices.ContainsFunc(r.checks(), func(c check) bool { return !c.holds })
}

// print writes the report.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %s/%s, GOMAXPROCS %d\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	fmt.Fprintf(w, "-seed %d -conns %d -time %v -think %v; took %v\n\n",
		r.o.seed, r.o.conns, r.o.time, r.o.think, r.took.Round(time.Second))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer t.Flush()
	row := func(name string, found ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, strings.TrimSuffix(fmt.Sprintln(found...), "\n"))
	}
	for _, c := range r.checks() {
		verdict := "ok"
		if !c.holds {
			verdict = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.name, c.found, verdict)
	}

	l := r.ledger
	seconds := r.took.Seconds()
	fmt.Fprintln(t, "\nmessages\t")
	row("delivered", thousands(l.delivered), fmt.Sprintf("(%.0f a second)", float64(l.delivered)/seconds))
	row("told accepted", thousands(l.accepted))
	row("told refused", thousands(l.refused))
	row("broken off by the client", thousands(l.cut))
	row("of these, delivered all the same", thousands(r.unseen))
	row("a beginning delivered, by go-smtp", thousands(l.truncated))

	fmt.Fprintln(t, "\nthis process, the servers'\t")
	for _, f := range []struct {
		name   string
		figure func(usage) float64
	}{
		{"heap", func(u usage) float64 { return u.heap }},
		{"stacks", func(u usage) float64 { return u.stacks }},
		{"resident", func(u usage) float64 { return u.resident }},
	} {
		tr := trendOf(r.samples, f.figure)
		row(f.name, fmt.Sprintf("%s, slope %+.1f KiB/min (standard error %.1f), in %v %s, %+.2f %%", mebi(tr.mean),
			60*tr.slope/1024, 60*tr.spread/1024, tr.over.Round(time.Second), mebi(tr.growth()), 100*tr.growth()/tr.mean))
	}
	heap := trendOf(r.samples, func(u usage) float64 { return u.heap })
	row("a leak would show from", fmt.Sprintf("%.0f octets a session on", heap.allowed(r.o.room)/(float64(r.sessions())*heap.over.Seconds()/seconds)))
	row("goroutines, descriptors, at most", r.most(func(u usage) int { return u.goroutines }), r.most(func(u usage) int { return u.descriptors }))
	// Where the machine has no time for this process, timeouts pass without fault.
	row("longest stall", r.stall.Round(time.Millisecond))
	row("CPU", fmt.Sprintf("%.2f cores, the clients %.2f", r.serverCPU.Seconds()/seconds, r.clientCPU.Seconds()/seconds))

	for _, list := range []struct {
		name   string
		counts map[string]int
	}{{"clients", r.counts}, {"log", r.logged}} {
		fmt.Fprintf(t, "\n%s\t\n", list.name)
		for _, what := range slices.Sorted(maps.Keys(list.counts)) {
			row(what, thousands(list.counts[what]))
		}
	}
	for _, s := range slices.Concat(l.complaints, r.complaints) {
		fmt.Fprintf(t, "\n%s", s)
	}
	fmt.Fprintln(t)
}

// sessions counts all that were led.
func (r *report) sessions() (n int) {
	for what, count := range r.counts {
		if strings.HasPrefix(what, "sessions, ") {
			n += count
		}
	}
	return n
}

func (r *report) most(figure func(usage) int) (n int) {
	for _, u := range r.samples {
		n = max(n, figure(u))
	}
	return n
}

func mebi(octets float64) string {
	if math.IsNaN(octets) {
		return "unknown"
	}
	return fmt.Sprintf("%.2f MiB", octets/(1<<20))
}

// thousands prints a number as people do.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
