package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/proxytest"
)

// notWhole are the dialogues of whose recording something can't be played, as it tells in a
// remark. They are names of files, perhaps with a server behind them, and "*" for anything.
var notWhole = []struct{ dialogues, why string }{
	{"a02-*too-long c04-long-line c04-line-at-the-limit/strict c04-line-at-the-limit/lenient c05-endless-line limit-sasl-line log-too-long",
		"The client's line is longer than the listener takes, and what it has of it is no line; a Session has no such limit."},
	{"c08-client-hello c08-client-hello-in-auth c08-client-hello-later c08-client-hello-one-octet log-tls-unasked",
		"The client sends the octets of a TLS handshake, which are no line."},
	{"log-too-slow log-sasl-given-up sasl-given-up",
		"The client's time is up, which isn't an act of its own."},
	{"c13-too-many-errors log-out-of-step r01-421-out-of-the-blue r01-two-replies refused-more-than-once-and-left part-cancel-answered",
		"The server says something that the client hasn't asked for, and a fake server speaks when it is spoken to."},
	{"log-not-accepted",
		"The server takes no connection behind STARTTLS, and a fake server always does."},
	{"lmtp-refused-amid-blanks lmtp-refused-for-the-first-alone lmtp-taken-at-an-ambiguous-end lmtp-taken-before-an-ambiguous-end/scripted lmtp-taken-before-an-end-that-never-comes content-refused-then-taken-after-a-failed-read",
		"The connection ends when some of the recipients have their status, and a fake server has one for each."},
	{"b03-blanks-lmtp b03-size-two-to-the-32 b08-cut-short/strict b08-cut-short/lenient chunk-given-up",
		"The connection ends within a chunk, and an observer isn't told of the command that no reply came to."},
	{"limit-ten-thousand-recipients/go-smtp p06-many-commands p06-never-reads",
		"There is more of it than the 1 MiB that is kept of a connection."},
}

// isWhole tells whether notWhole has nothing of a dialogue with a server. What it has, it
// deletes from unmatched.
func isWhole(t *testing.T, dialogue, server string, unmatched map[string]bool) bool {
	t.Helper()
	whole := true
	for _, row := range notWhole {
		for pattern := range strings.FieldsSeq(row.dialogues) {
			all, err := path.Match(pattern, dialogue)
			one, _ := path.Match(pattern, dialogue+"/"+server)
			if err != nil {
				t.Error(pattern, err)
			}
			if all || one {
				whole = false
				delete(unmatched, pattern)
			}
		}
	}
	return whole
}

// A Session does what the listener has done, in front of whatever server: it comes to the same
// decisions, replies and views, though the server behind it is a fake one that knows no more
// than what stands in the recording.
func TestEachDialogueThatIsRecordedPlaysOnASession(t *testing.T) {
	files, err := filepath.Glob("testdata/dialogues/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	unmatched := make(map[string]bool)
	for _, row := range notWhole {
		for pattern := range strings.FieldsSeq(row.dialogues) {
			unmatched[pattern] = true
		}
	}
	for _, file := range files {
		d, base := readDialogue(t, file), strings.TrimSuffix(filepath.Base(file), ".txtar")
		runs := 0
		for _, server := range d.servers {
			whole := isWhole(t, base, server, unmatched)
			for _, options := range d.proxies(server) {
				if testing.Short() && runs > 0 {
					continue // the other servers, and options, take a full run
				}
				transport := d.transports[runs%len(d.transports)] // they take turns
				runs++
				name := base + "/" + server + "/" + transport
				if len(d.proxies(server)) > 1 {
					name += "/" + options
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					d.playRecorded(t, server, options, transport, whole)
				})
			}
		}
	}
	for pattern := range unmatched {
		t.Errorf("no dialogue is %s", pattern)
	}
}

// playRecorded plays the dialogue against one server, and then its recording. whole tells
// whether all of that can be played.
func (d dialogue) playRecorded(t *testing.T, server, options, transport string, whole bool) {
	newProxy := func(t *testing.T, told *replies) (*smtpproxy.Proxy, *dialogueHook) {
		p := d.newProxy(t, server, options, transport)
		p.Observers = append(p.Observers, smtpproxy.Observer{Exchanged: told.add})
		return p, p.Hook.(*dialogueHook)
	}
	var listener, session replies
	recording := &recordingFile{closed: make(chan struct{})}
	p, before := newProxy(t, &listener)
	p.Observers = append(p.Observers, proxytest.Record(func(smtpproxy.Connection) io.WriteCloser { return recording }))
	d.play(t, server, transport, p, cuts["whole"](0))
	if t.Failed() {
		return
	}
	text := recording.text(t)
	defer func() {
		if t.Failed() {
			t.Log(text[:min(len(text), 10_000)])
		}
	}()

	file := filepath.Join(t.TempDir(), "recorded.txtar")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	var again *dialogueHook
	proxytest.Run(t, file, func(t *testing.T) *smtpproxy.Proxy {
		p, again = newProxy(t, &session)
		return p
	})
	if again == nil {
		t.Fatal("nothing is played")
	}

	remarks := remarksOf(text)
	if remarks.none() != whole {
		t.Errorf("that all of it is played is %v by notWhole; the recording tells of %+v", whole, remarks)
	}
	if left := strings.Join(session.isBehind(t, &listener), ", "); !remarks.isCut && left != remarks.last {
		t.Errorf("not played: %q\nthe recording tells of %q", left, remarks.last)
	}
	if n := len(again.masked); n > len(before.masked) || !slices.Equal(before.masked[:n], again.masked) {
		t.Errorf("the hook was shown %q\nthen %q", before.masked, again.masked)
	} else if left := verbsOf(before.masked[n:]); !remarks.isCut && left != remarks.unanswered {
		t.Errorf("not played: %q\nthe recording tells of %q", left, remarks.unanswered)
	}
	if n := len(again.told); n > len(before.told) || !slices.Equal(before.told[:n], again.told) || n < len(before.told) && whole {
		t.Errorf("the hook was told of %q\nthen of %q", before.told, again.told)
	}
}

// remarked is what a recording tells of what can't be played of it.
type remarked struct {
	last       string // replies that came of nothing
	unanswered string // the verb of a command without a reply
	isCut      bool   // there was more of it than is kept
}

func (r remarked) none() bool { return r == remarked{} }

func remarksOf(recording string) (r remarked) {
	var last []string
	says := func(replies string) { last = append(last, strings.NewReplacer("S: ", "", "P: ", "").Replace(replies)) }
	for line := range strings.Lines(recording) {
		text, isRemark := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# ")
		if !isRemark {
			continue
		}
		if verb, ok := strings.CutSuffix(text, " has got no reply"); ok {
			r.unanswered = verb
		} else if replies, ok := strings.CutPrefix(text, "the last word was "); ok {
			says(replies)
		} else if alone, ok := strings.CutSuffix(text, " alone"); ok {
			_, replies, _ := strings.Cut(alone, " has got ")
			says(replies)
		} else if strings.HasPrefix(text, "What came then is left out: ") {
			r.isCut = true
		}
	}
	r.last = strings.Join(last, ", ")
	return r
}

// replies are what an observer is told of a connection.
type replies struct {
	mu  sync.Mutex
	all []shownExchange
}

func (r *replies) add(_ *hookContext, x shownExchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

// isBehind checks that a Session has done the same as the listener, as far as it has come. It
// returns the listener's replies that are left.
func (r *replies) isBehind(t *testing.T, listener *replies) (rest []string) {
	left := listener.all
	for _, x := range r.all {
		if len(left) == 0 {
			t.Fatalf("a Session alone has replied %s", asTold(x, true))
		}
		// The listener answers in the place of the server what a Session leaves to that, such
		// as STARTTLS.
		isServers := left[0].By == smtpproxy.ByLibrary && x.By == smtpproxy.ByServer
		if got, want := asTold(x, !isServers), asTold(left[0], !isServers); got != want {
			t.Fatalf("a Session has replied\n%s\nthe listener\n%s", got, want)
		}
		forOne := left[0].Recipient == 0 && x.Recipient < 0 // a Session tells it once for all of them
		left = left[1:]
		for forOne && len(left) > 0 && left[0].Recipient > 0 {
			left = left[1:]
		}
	}
	for _, x := range left {
		rest = append(rest, strings.Split(x.Reply.String(), "\r\n")...)
	}
	return rest
}

// asTold returns what is the same in an Exchange of the listener's and of a Session's. byWhom
// tells whether it is the same, too, who has replied, and what to.
func asTold(x shownExchange, byWhom bool) string {
	var b strings.Builder
	conn := x.Connection
	conn.ID, conn.ServerID, conn.Peer = "", "", netip.AddrPort{}
	fmt.Fprintf(&b, "%v: %q, %+v, ", x.Command, x.Reply, conn)
	if txn := x.Transaction; txn.Active {
		fmt.Fprintf(&b, "<%s> %+v %v %q to %d", txn.Sender, txn.SenderAddress, txn.SenderParams, txn.Unparsed, txn.Recipients.Len())
		for i, r := range txn.Recipients.All() {
			if i == txn.Recipients.Len()-1 {
				fmt.Fprintf(&b, ", the last %+v", r)
			}
		}
	}
	if byWhom {
		fmt.Fprintf(&b, ", by the %v, %s, to %v", x.By, x.Hook, x.Passed)
	}
	return b.String()
}

// recordingFile is where a recording is written to.
type recordingFile struct {
	bytes.Buffer
	closed chan struct{}
}

func (f *recordingFile) Close() error {
	close(f.closed)
	return nil
}

// text returns the recording when it is there.
func (f *recordingFile) text(t *testing.T) string {
	t.Helper()
	select {
	case <-f.closed:
	case <-time.After(patience):
		t.Fatal("nothing is recorded")
	}
	return f.String()
}
