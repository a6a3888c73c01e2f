package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
)

// This file holds what a hook would see against what the server's backend was
// told, after each command of a random dialogue. The backend is no second state
// machine: it notes its arguments.
//
// Where the two differ by design:
//   - go-smtp calls Reset not only for RSET but also after each message and for
//     a repeated EHLO, and that after it has written the reply. So the backend is
//     asked when the server waits for the next command; then each Reset, each new
//     session and each new connection stands for a new Transaction.ID. So does
//     a RSET before EHLO, when there is no session that could be told of it.
//   - go-smtp takes quotation marks away and keeps the case of letters, as
//     Address does; Sender and Recipient are quoted again where it is needed,
//     with ASCII letters in lower case.
//   - Of HELO's argument go-smtp keeps the first word.
//   - Behind a chunk that the library has refused, and a refused HELO, there is no
//     transaction to be seen any more, though the server still has it. Before the
//     next MAIL the library sends RSET, which stands for no new Transaction.ID.
//   - go-smtp takes for an address what is none (RFC 5321 section 4.1.2), and
//     what other servers would take for another. The library's view leaves it
//     unparsed then, though the transaction is open.

// witness is a backend that notes what it is told of the one client it has, and
// whose turn it is.
type witness struct {
	mu      sync.Mutex
	changed sync.Cond

	conn  net.Conn // that the server has
	conns int      // that it has had
	waits bool     // the server reads: it is the client's turn

	anew       int        // times that it was told to forget a transaction
	greeted    *smtp.Conn // nil before EHLO
	user       string
	active     bool
	sender     string
	recipients []string
}

func (w *witness) note(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.changed.Broadcast()
}

// await returns the server's nth connection when the server waits there for the
// client.
func (w *witness) await(n int) (net.Conn, error) {
	late := false
	t := time.AfterFunc(patience, func() { w.note(func() { late = true }) })
	defer t.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !late && (w.conns < n || !w.waits) {
		w.changed.Wait()
	}
	if late {
		return nil, errors.New("the server doesn't read on")
	}
	return w.conn, nil
}

// told returns what the backend was told, as shownNow writes it.
func (w *witness) told() (dialogue string, anew int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	host := ""
	if w.greeted != nil {
		host = w.greeted.Hostname()
	}
	var recipients []string
	for _, r := range w.recipients {
		recipients = append(recipients, mailbox(r))
	}
	return asSeen(host, w.user, w.active, mailbox(w.sender), recipients), w.anew
}

func (w *witness) NewSession(c *smtp.Conn) (smtp.Session, error) {
	if c.Hostname() == "refused.example" {
		return nil, errors.New("refused")
	}
	w.note(func() {
		w.anew++
		w.greeted = c
	})
	return w, nil
}

func (w *witness) AuthMechanisms() []string { return []string{sasl.Plain} }

func (w *witness) Auth(mechanism string) (sasl.Server, error) {
	if mechanism != sasl.Plain {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(_, username, password string) error {
		if password != "pass" {
			return smtp.ErrAuthFailed
		}
		w.note(func() { w.user = username })
		return nil
	}), nil
}

func (w *witness) Mail(from string, _ *smtp.MailOptions) error {
	if strings.HasPrefix(from, "no") {
		return errors.New("no")
	}
	w.note(func() { w.active, w.sender = true, from })
	return nil
}

func (w *witness) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "no") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no"}
	}
	w.note(func() { w.recipients = append(w.recipients, to) })
	return nil
}

// Data refuses some messages, one kind before it has read on.
func (w *witness) Data(r io.Reader) error {
	beginning := make([]byte, len("refuse"))
	io.ReadFull(r, beginning)
	if string(beginning) != "chunk!" {
		io.Copy(io.Discard, r)
	}
	if s := string(beginning); s == "refuse" || s == "chunk!" {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "refused"}
	}
	return nil
}

func (w *witness) Reset() {
	w.note(func() {
		w.anew++
		w.active, w.sender, w.recipients = false, "", nil
	})
}

func (w *witness) Logout() error {
	w.Reset()
	w.note(func() { w.greeted, w.user = nil, "" })
	return nil
}

// witnessedConn tells the witness whose turn it is.
type witnessedConn struct {
	net.Conn // from Proxy.Listener
	w        *witness
}

func (c *witnessedConn) NetConn() net.Conn { return c.Conn } // for SessionOf

func (c *witnessedConn) Read(p []byte) (int, error) {
	c.w.note(func() { c.w.waits = true })
	return c.Conn.Read(p)
}

func (c *witnessedConn) Write(p []byte) (int, error) {
	c.w.note(func() { c.w.waits = false })
	return c.Conn.Write(p)
}

// asSeen writes a state of the dialogue, to be compared and read.
func asSeen(host, user string, active bool, sender string, recipients []string) string {
	return fmt.Sprintf("host %q, user %q, active %v, sender %s, recipients %s", host, user, active, sender, recipients)
}

// shownNow is what a hook would be shown.
func shownNow(conn connection, txn transaction) string {
	host, _, _ := strings.Cut(conn.HELO.Host, " ")
	written := func(a smtpproxy.Address, s, unparsed string) string {
		if unparsed != "" && a == (smtpproxy.Address{}) && s == "" {
			return "unparsed"
		}
		return fmt.Sprintf("<%s@%s, %s>%s", a.Localpart, a.Domain, s, unparsed)
	}
	var recipients []string
	for _, r := range txn.Recipients.All() {
		recipients = append(recipients, written(r.Address, r.Recipient, r.Unparsed))
	}
	return asSeen(host, conn.Auth.Username, txn.Active, written(txn.SenderAddress, txn.Sender, txn.Unparsed), recipients)
}

// mailbox writes an address of go-smtp's in the form of shownNow.
func mailbox(addr string) string {
	i := strings.LastIndexByte(addr, '@')
	switch {
	case i < 0: // null
		return "<@, >"
	case strings.Count(addr, "@") > 1, strings.ContainsAny(addr, "<>"):
		return "unparsed"
	}
	a := smtpproxy.Address{Localpart: addr[:i], Domain: addr[i+1:]}
	return fmt.Sprintf("<%s, %s>", addr, strings.Map(lowerASCII, a.String()))
}

func lowerASCII(r rune) rune {
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}

// distortion changes what is seen: how it was one command ago is given too.
type distortion func(conn *connection, txn *transaction, oldConn connection, oldTxn transaction)

// trial is one random dialogue, and where it stands.
type trial struct {
	*stream // draws
	k       *talker
	w       *witness
	distort distortion
	conns   int // that the client has made the server have
	strange int // commands that the server will count as errors

	conn    connection // as seen last
	txn     transaction
	anew    int
	sent    []string
	replies map[string]int // verbs and codes, counted
	problem string

	doubtful bool // the last transaction didn't end for sure
	owed     int  // replies that an LMTP client counts on for the last chunk
}

// say sends octets, waits until it is the client's turn again, and compares.
// each tells that in LMTP, success comes once for each recipient (RFC 2033
// section 4.2). It returns the code of the first reply.
func (m *trial) say(octets string, each bool) (code string) {
	if m.problem != "" {
		return ""
	}
	m.sent = append(m.sent, octets)
	m.w.mu.Lock()
	due, was, anew := len(m.w.recipients), m.w.active, m.w.anew
	m.w.mu.Unlock()
	io.WriteString(m.k, octets)
	reply, err := m.k.reply()
	if err != nil {
		m.problem = err.Error()
		return ""
	}
	code = reply[:3]
	line, _, _ := strings.Cut(octets, "\r")
	verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
	m.replies[verb+" "+code]++
	refused := verb == "BDAT" && code[0] == '5'
	if refused && !each {
		m.owed = max(m.owed, due) // for the last chunk, which will be refused too
	}
	if each && m.lmtp && (code == "250" || code == "554" || refused) {
		if refused {
			due, m.owed = max(due, m.owed), 0
		}
		for range due - 1 {
			m.k.reply()
		}
	}
	if verb == "MAIL" || verb == "RSET" {
		m.owed = 0
	}
	m.doubt(verb, code, strings.HasSuffix(octets, "\r\n.\r\n"), was, anew)
	if code == "220" { // STARTTLS
		tc := tls.Client(m.k.Conn, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			m.problem = err.Error()
			return ""
		}
		m.k.Conn, m.k.r = tc, bufio.NewReader(tc)
		m.conns++
		m.strange = 0
	}
	m.compare()
	return code
}

// doubt follows whether the last transaction has ended for sure, and holds that the
// server gets RSET before the next MAIL if not, and else doesn't. It corrects what the
// witness was told. message tells that it is about a message's end, was that there was
// a transaction before.
func (m *trial) doubt(verb, code string, message, was bool, anew int) {
	verb, _, _ = strings.Cut(verb, "\t") // as the library does
	isHELO := strings.HasSuffix(verb, "HLO") || strings.HasSuffix(verb, "HELO")
	refused := code[0] == '4' || code[0] == '5'
	m.w.note(func() {
		switch {
		case verb == "RSET" && m.w.greeted == nil:
			m.w.anew++
		case verb == "MAIL" && code != "503":
			if reset := m.w.anew > anew; reset != (m.doubtful && m.w.greeted != nil) {
				m.problem = fmt.Sprintf("before MAIL, the server was reset: %v, but was it in doubt: %v", reset, m.doubtful)
			}
			m.w.anew = anew
		case m.w.active && refused && (verb == "BDAT" || isHELO):
			// It is no transaction any more, but the server doesn't know yet.
			m.w.active, m.w.sender, m.w.recipients = false, "", nil
			m.w.anew++
		}
	})
	switch {
	case verb == "RSET" && code == "250", verb == "MAIL" && code != "503", code == "220":
		m.doubtful = false
	case was && (isHELO || refused && (verb == "BDAT" || message)):
		m.doubtful = true
	}
}

func (m *trial) compare() {
	c, err := m.w.await(m.conns)
	if err != nil {
		m.problem = err.Error()
		return
	}
	session, ok := smtpproxy.SessionOf(c)
	if !ok {
		m.problem = "a connection without a session"
		return
	}
	conn, txn := session.Connection(), session.Transaction()
	if m.distort != nil {
		m.distort(&conn, &txn, m.conn, m.txn)
	}
	told, anew := m.w.told()
	switch got := shownNow(conn, txn); {
	case got != told:
		m.problem = fmt.Sprintf("a hook would see %s\nthe server was told %s", got, told)
	case m.txn.ID != "" && (txn.ID != m.txn.ID) != (anew != m.anew):
		m.problem = fmt.Sprintf("transaction ID %s, before %s; the server has begun anew %d times, before %d", txn.ID, m.txn.ID, anew, m.anew)
	}
	m.conn, m.txn, m.anew = session.Connection(), session.Transaction(), anew
}

func (m *trial) command() {
	switch m.IntN(17) {
	case 0:
		m.say(m.hello()+"\r\n", false)
	case 1, 2, 3:
		m.say("MAIL "+m.reversePath()+"\r\n", false)
	case 4, 5, 6, 7:
		m.say(m.pick("RCPT", "RCPT", "rcpt")+" "+m.forwardPath()+"\r\n", false)
	case 8, 9:
		if m.say(m.pick("DATA", "data", "DATA x")+"\r\n", false) == "354" {
			m.say(m.pick("refuse", "", "..", evil, "BDAT 3\r\nabc\r\n")+"\r\n.\r\n", true)
		}
	case 10:
		m.chunked()
	case 11:
		m.say(m.pick("RSET", "rset", "RSET", "NOOP", "VRFY someone", "HELP", "NOOP MAIL FROM:<a@b>")+"\r\n", false)
	case 12, 16:
		if m.say(m.pick("AUTH PLAIN", "AUTH PLAIN", "AUTH", "AUTH X-OTHER", "auth plain "+m.response(), "AUTH PLAIN "+m.response())+"\r\n", false) == "334" {
			m.say(m.response()+"\r\n", false)
		}
	case 13:
		m.say(m.pick("STARTTLS", "STARTTLS", "STARTTLS x")+"\r\n", false)
	case 14:
		if m.strange++; m.strange < 4 { // go-smtp closes at the fourth
			m.say(m.pick("XYZZY", "MAIL ", "EHLO\tx", "", "1NOOP", "XA@B")+"\r\n", false)
		}
	case 15:
		// A transaction as they mostly are.
		m.say("MAIL FROM:<s"+fmt.Sprint(m.number())+"@Example.com>\r\n", false)
		m.say("RCPT TO:<r"+fmt.Sprint(m.number())+"@Example.org>\r\n", false)
		if m.IntN(2) == 0 {
			m.chunked()
		}
	}
}

func (m *trial) hello() string {
	verb := m.pick("EHLO", "HELO", "ehlo", "EHLO", "XHELO")
	if m.lmtp {
		verb = m.pick("LHLO", "LHLO", "lhlo", "LHLO", "EHLO", "XHELO")
	}
	return verb + m.pick(" client.example", " Client.Example", " [192.0.2.1]", " two words", " refused.example", "")
}

func (m *trial) reversePath() string {
	n := m.number()
	return m.pick(
		fmt.Sprintf("FROM:<s%d@example.com>", n), fmt.Sprintf("FROM:<S.Ender%d@Example.COM>", n), "FROM:<>",
		fmt.Sprintf("from:<s%d@example.com> SIZE=%d body=8BITMIME", n, n), fmt.Sprintf("FROM: s%d@example.com", n),
		fmt.Sprintf(`FROM:<"s %d\" X"@example.com>`, n), fmt.Sprintf(`FROM:<"S%d"@[192.0.2.1]>`, n),
		fmt.Sprintf("FROM:<J\u00d6rg%d@B\u00dccher.example> SMTPUTF8", n), fmt.Sprintf("FROM:<@relay.example:s%d@example.com>", n),
		fmt.Sprintf("FROM:<s%d.@example.com.>SIZE=%d", n, n), "FROM:<no@example.com>",
		"FROM:", "TO:<a@b>", "FROM:<s@example.com", "FROM:<s@example.com> SIZE=x", "FROM:<s@example.com> X=1", fmt.Sprintf(`FROM:<"<evil%d>"@example.com>`, n))
}

func (m *trial) forwardPath() string {
	n := m.number()
	return m.pick(
		fmt.Sprintf("TO:<r%d@example.org>", n), fmt.Sprintf("to:<R.Cpt%d@Example.ORG>", n), "TO:<same@example.org>",
		fmt.Sprintf(`TO:<"r%d@evil.example"@example.org>`, n), fmt.Sprintf("TO:<\u00c4..%d@example.org>", n), fmt.Sprintf("TO:r%d@example.org", n),
		fmt.Sprintf("TO:<r%d@@example.org>", n), fmt.Sprintf("TO:<alias%d@example.org>", n),
		"TO:<no@example.org>", "TO:<hook@example.org>", "TO:<postmaster>", "TO:<>", "TO:", "TO:<r@example.org> X=1")
}

func (m *trial) response() string {
	return m.pick(b64("\x00user\x00pass"), b64("\x00User@Example.com\x00pass"), b64("other\x00J\u00f6rg\x00pass"),
		b64("\x00user\x00wrong"), b64("user"), "*", "=", "?")
}

// chunked says a message in chunks. Each ends with LAST, or go-smtp has data
// races of its own; commands between the chunks are those that it refuses.
func (m *trial) chunked() {
	for range m.IntN(3) {
		chunk := m.pick("", "text\r\n", evil, "\r\n.\r\n", "chunk! is refused before its end")
		m.say(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk), false)
		m.say(m.pick("NOOP", "MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "RCPT TO:<hook@example.org>")+"\r\n", false)
	}
	chunk := m.pick("", "refuse", evil, ".\r\n")
	m.say(fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk), true)
}

// editor is a hook that answers some commands and changes others: what it makes
// of them is what has to be seen.
func editor(lmtp bool) smtpproxy.Hook {
	return decide(func(cmd command) (decision, error) {
		switch {
		case strings.HasPrefix(cmd.Line, "XHELO") && lmtp:
			return pass{Command: "LHLO edited.example"}, nil
		case strings.HasPrefix(cmd.Line, "XHELO"):
			return pass{Command: "HELO edited.example"}, nil
		case strings.Contains(cmd.Line, "hook@"):
			return reply{Code: 550}, nil
		case cmd.Line == "XA@B":
			return reply{}, nil
		case strings.Contains(cmd.Line, "<alias"):
			return pass{Command: strings.Replace(cmd.Line, "<alias", "<Known", 1)}, nil
		}
		return nil, nil
	})
}

// hold plays one random dialogue. It tells where the views differ, and counts
// replies.
func hold(t *testing.T, seed uint64, listen func(*testing.T) transport, lmtp bool, replies map[string]int, d distortion) (problem string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 6))
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true // over a pipe, somebody would have to read them
	p := &smtpproxy.Proxy{Hook: editor(lmtp), TLSConfig: cfg, AllowInsecureAuth: r.IntN(4) > 0}

	w := new(witness)
	w.changed.L = &w.mu
	srv := smtp.NewServer(w)
	srv.LMTP, srv.AllowInsecureAuth, srv.EnableSMTPUTF8 = lmtp, true, true
	srv.ErrorLog = log.New(io.Discard, "", 0)
	tr := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- srv.Serve(wrappedListener{p.Listener(tr), func(c net.Conn) net.Conn {
			wc := &witnessedConn{c, w}
			w.note(func() {
				w.conn, w.waits = wc, false
				w.conns++
				w.anew++
			})
			return wc
		}})
	}()
	k := talk(t, tr)
	raw := k.Conn // closed without the alert of TLS, which nobody reads over a pipe
	m := &trial{k: k, stream: &stream{Rand: r, dialect: dialect{lmtp: lmtp}}, w: w, distort: d, conns: 1, replies: replies}
	m.compare()
	if r.IntN(4) > 0 {
		m.say(m.hello()+"\r\n", false)
	}
	for range 5 + r.IntN(30) {
		m.command()
	}
	if r.IntN(2) == 0 && m.problem == "" {
		k.want("QUIT", "221")
	}
	raw.Close()
	srv.Shutdown(t.Context())
	<-served
	if m.problem != "" {
		problem = fmt.Sprintf("seed %d: said %q\n%s", seed, m.sent, m.problem)
	}
	return problem
}

// What the dialogues must have come to, or the property says little.
var occurrences = []string{
	"RSET 250", "NOOP 250", "VRFY 252", "XYZZY 501", " 500", "1NOOP 500", "XA@B 250",
	"MAIL 250", "MAIL 451", "MAIL 500", "MAIL 501", "MAIL 502", "MAIL 503",
	"RCPT 250", "RCPT 550", "RCPT 500", "RCPT 501", "RCPT 502", "DATA 354", "DATA 501", "DATA 502", "DATA 503",
	"BDAT 250", "BDAT 502", "BDAT 554", "REFUSE 554",
	"AUTH 235", "AUTH 334", "AUTH 454", "AUTH 502", "AUTH 503", "AUTH 504", "AUTH 535", "* 501",
	"STARTTLS 501", "STARTTLS 503",
}

func TestAHookSeesWhatTheServerWasTold(t *testing.T) {
	for name, listen := range transports {
		for _, lmtp := range []bool{false, true} {
			t.Run(map[bool]string{false: "SMTP", true: "LMTP"}[lmtp]+" over "+name, func(t *testing.T) {
				t.Parallel()
				replies := make(map[string]int)
				for seed := range uint64(*sessions) {
					if problem := hold(t, seed, listen, lmtp, replies, nil); problem != "" {
						t.Fatal(problem)
					}
				}
				want := append(slices.Clone(occurrences), "EHLO 250", "EHLO 451", "EHLO 501", "HELO 250", "XHELO 250")
				if lmtp {
					want = append(slices.Clone(occurrences), "LHLO 250", "LHLO 451", "LHLO 501", "EHLO 500", "XHELO 250")
				}
				if name != "TLS" {
					want = append(want, "STARTTLS 220", "AUTH 523")
				}
				for _, o := range want {
					if replies[o] == 0 && *sessions >= 100 {
						t.Errorf("no %s in %d dialogues: the property says little", o, *sessions)
					}
				}
			})
		}
	}
}

// A view that is a reply behind in one thing, or ahead.
func TestAViewThatMissesAReplyIsFoundOut(t *testing.T) {
	for name, distort := range map[string]distortion{
		"HELO":   func(c *connection, _ *transaction, old connection, _ transaction) { c.HELO = old.HELO },
		"Auth":   func(c *connection, _ *transaction, old connection, _ transaction) { c.Auth = old.Auth },
		"Active": func(_ *connection, t *transaction, _ connection, old transaction) { t.Active = old.Active },
		"Sender": func(_ *connection, t *transaction, _ connection, old transaction) { t.Sender = old.Sender },
		"what is unparsed": func(_ *connection, t *transaction, _ connection, old transaction) {
			t.Unparsed = old.Unparsed
		},
		"its address": func(_ *connection, t *transaction, _ connection, old transaction) {
			t.SenderAddress = old.SenderAddress
		},
		"Recipients":             func(_ *connection, t *transaction, _ connection, old transaction) { t.Recipients = old.Recipients },
		"ID":                     func(_ *connection, t *transaction, _ connection, old transaction) { t.ID = old.ID },
		"an ID for each command": func(_ *connection, t *transaction, _ connection, old transaction) { t.ID = old.ID + "x" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(50) {
				if hold(t, seed, overTCP, false, make(map[string]int), distort) != "" {
					return
				}
			}
			t.Error("no difference in 50 dialogues")
		})
	}
}
