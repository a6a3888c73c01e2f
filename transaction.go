package smtpproxy

import (
	"iter"
	"slices"
	"strings"

	"github.com/seed3262c777/smtpproxy/internal/address"
	"github.com/seed3262c777/smtpproxy/internal/ascii"
)

// Transaction is a read-only view of the mail transaction (RFC 5321 section
// 3.3) at the moment the hook is called. It is a value: whatever a hook does
// to its copy changes nothing, and a copy that is kept stays as it was.
//
// It follows the server's replies, never the client's commands: a sender is
// there from the server's 250 to MAIL on, a recipient from its 250 or 251 to
// RCPT on, and all is cleared by the reply that ends the message, by RSET and
// by EHLO, HELO or LHLO. Who counts over transactions keeps the count with State.
type Transaction struct {
	// ID is a random UUID. It is there before MAIL and is replaced when the
	// transaction ends: by RSET, by EHLO and by the end of a message.
	ID string

	// Active tells that a MAIL command was accepted. It is needed beside
	// Sender, since the null reverse-path (RFC 5321 section 4.5.5) is an
	// empty Sender too.
	Active bool

	// Sender is the reverse-path as a mailbox, without angle brackets and
	// source route, ASCII letters in lower case, the local part quoted only
	// where it has to be (see Address.String). It is empty for the null
	// reverse-path, and where Unparsed is set.
	Sender string

	// SenderAddress holds the parts of Sender, letters as the client sent
	// them, the local part without quoting.
	SenderAddress Address

	// SenderParams are the parameters of the MAIL command. One with more
	// than 64 is answered 555, and the server doesn't get it.
	SenderParams Params

	// Unparsed is what follows the verb in the MAIL command, as sent, if
	// servers could read it in different ways: which mailbox this one took
	// can't be known, and Sender, SenderAddress and SenderParams are empty.
	// It is empty if all that accept the command read the same, and a single
	// blank if nothing follows the verb.
	//
	// Among such commands are "FROM:<a@b> FROM:<c@d>", in which some servers
	// find the second path, and all others with more angle brackets than a
	// path's own two, be it in a quoted local part or in a parameter such as
	// AUTH=<>. No client that follows RFC 5321 has to send any but the last.
	// A hook that decides by mailbox should refuse what has Unparsed set.
	Unparsed string

	// Recipients are the accepted recipients in the order of their RCPT
	// commands, duplicates included.
	Recipients Recipients
}

// Recipient is one accepted RCPT command.
type Recipient struct {
	// Recipient is the forward-path as a mailbox, like Transaction.Sender.
	// RCPT TO:<postmaster> gives "postmaster" (RFC 5321 section 4.1.1.3). It
	// is empty where Unparsed is set, and only there.
	Recipient string

	// Address holds the parts of Recipient, like Transaction.SenderAddress.
	Address Address

	// Params are the parameters of the RCPT command, 64 at most, like
	// Transaction.SenderParams.
	Params Params

	// Unparsed is what follows the verb in the RCPT command, as sent, if
	// servers could read it in different ways, like Transaction.Unparsed.
	// Recipient, Address and Params are empty then. It is empty if all that
	// accept the command read the same.
	Unparsed string

	// TransportID is what Proxy.TransportID returned for this recipient,
	// empty without it.
	TransportID string
}

// Address holds the parts of a mailbox (RFC 5321 section 4.1.2, RFC 6531
// section 3.3).
type Address struct {
	// Localpart is the meaning of the local part: a quoted string comes
	// without its quotes and backslashes. Its letters keep their case,
	// which only the receiving domain may ignore (RFC 5321 section 2.4).
	Localpart string

	// Domain is a domain name as sent, or an address literal with its
	// brackets. It is empty for <postmaster> and the null reverse-path.
	Domain string
}

// String returns the mailbox in the form that SMTP transports: the local part
// is quoted where it has to be.
func (a Address) String() string { return address.Join(a.Localpart, a.Domain) }

// Params are the parameters of a MAIL or RCPT command (RFC 5321 section
// 4.1.2, "esmtp-param"), in the order sent. The zero value has none. Params
// can't be changed.
type Params struct {
	list []address.Param
}

// NewParams makes Params out of parameters as a client sends them, such as
// "SIZE=1000" and "SMTPUTF8". It is meant for tests of hooks.
func NewParams(params ...string) Params {
	list := make([]address.Param, 0, len(params))
	for _, p := range params {
		key, value, _ := strings.Cut(p, "=")
		list = append(list, address.Param{Key: ascii.ToUpper(key), Value: value})
	}
	return Params{list}
}

// Len returns the number of parameters.
func (p Params) Len() int { return len(p.list) }

// At returns the parameter at index i: its keyword in upper case and its value
// as sent, still encoded (xtext, RFC 3461 section 4) and empty if the keyword
// stands alone. It panics if i is out of range.
func (p Params) At(i int) (key, value string) {
	return p.list[i].Key, p.list[i].Value
}

// Get returns the value of the first parameter with the given keyword, in
// whatever case, and whether there is one.
func (p Params) Get(key string) (value string, ok bool) {
	for _, q := range p.list {
		if ascii.EqualFold(q.Key, key) {
			return q.Value, true
		}
	}
	return "", false
}

// All returns an iterator over keywords and values, in the order sent.
func (p Params) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, q := range p.list {
			if !yield(q.Key, q.Value) {
				return
			}
		}
	}
}

// Recipients are the accepted recipients of a transaction. The zero value has
// none. Recipients can't be changed: a recipient accepted later appears only
// in the Transaction that the next hook call gets.
type Recipients struct {
	// list is shared with the session, which only ever appends behind the
	// length that was copied here.
	list []Recipient
}

// NewRecipients makes Recipients out of its arguments. It is meant for tests
// of hooks.
func NewRecipients(recipients ...Recipient) Recipients {
	return Recipients{slices.Clone(recipients)}
}

// Len returns the number of recipients.
func (r Recipients) Len() int { return len(r.list) }

// At returns the recipient at index i. It panics if i is out of range.
func (r Recipients) At(i int) Recipient { return r.list[i] }

// Get returns the first recipient with the given mailbox, compared as
// Recipient.Recipient is written, and whether there is one.
func (r Recipients) Get(recipient string) (Recipient, bool) {
	for i := range r.list {
		if r.list[i].Recipient == recipient {
			return r.list[i], true
		}
	}
	return Recipient{}, false
}

// All returns an iterator over indices and recipients, in order.
func (r Recipients) All() iter.Seq2[int, Recipient] {
	return func(yield func(int, Recipient) bool) {
		for i := range r.list {
			if !yield(i, r.list[i]) {
				return
			}
		}
	}
}

// transaction is what a session knows of its transaction. It has room for more than
// an ID only while there is a sender.
type transaction struct {
	id   string       // made when somebody looks: it costs an idle connection nothing
	mail *Transaction // but its ID; nil stands for the zero value
}

// known returns what a session knows that has txn for its view.
func (txn *Transaction) known() transaction {
	m := *txn
	m.Recipients.list = slices.Clip(m.Recipients.list) // another session may append there
	return transaction{txn.ID, &m}
}

// open notes an accepted MAIL command.
func (t *transaction) open(line string) {
	path, params, unparsed := address.Mail(line)
	t.mail = &Transaction{
		Active: true,
		Sender: path.Mailbox, SenderAddress: Address{path.Local, path.Domain},
		SenderParams: Params{params}, Unparsed: unparsed,
	}
}

// name gives the transaction its ID, if it has none yet.
func (t *transaction) name() {
	if t.id == "" {
		t.id = newID()
	}
}

// view makes txn, which must be zero, the Transaction, as a hook sees it.
func (t *transaction) view(txn *Transaction) {
	t.name()
	if t.mail != nil {
		*txn = *t.mail
	}
	txn.ID = t.id
}

// isBinary tells whether the message is declared to have no lines (RFC 3030
// section 3), and to be nothing else: which of two BODYs counts, servers differ
// in.
func (t *transaction) isBinary() bool {
	binary := false
	for key, value := range t.get().SenderParams.All() {
		if key == "BODY" {
			if ascii.ToUpper(value) != "BINARYMIME" {
				return false
			}
			binary = true
		}
	}
	return binary
}

var noMail Transaction

// get returns what must not be changed.
func (t *transaction) get() *Transaction {
	if t.mail == nil {
		return &noMail
	}
	return t.mail
}

// add notes an accepted RCPT command.
func (t *transaction) add(r *Recipient) {
	if t.mail == nil {
		t.mail = new(Transaction)
	}
	t.mail.Recipients.list = append(t.mail.Recipients.list, *r)
}
