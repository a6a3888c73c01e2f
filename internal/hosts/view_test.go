package hosts

import (
	"fmt"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// view is a transaction as a hook was shown it, by the library or by the relay of
// this package.
type view struct {
	id         string
	active     bool
	sender     mailbox
	recipients []mailbox
}

// mailbox is a sender or a recipient in a view.
type mailbox struct {
	local, domain string
	unparsed      string // the argument as sent, if it could mean more than one mailbox
}

func (m mailbox) String() string {
	if m.unparsed != "" {
		return fmt.Sprintf("unparsed %q", m.unparsed)
	}
	return fmt.Sprintf("%s@%s", m.local, m.domain)
}

func (v view) String() string {
	if !v.active {
		return "no transaction"
	}
	return fmt.Sprintf("%v to %v", v.sender, v.recipients)
}

func viewOf(txn smtpproxy.Transaction) view {
	v := view{id: txn.ID, active: txn.Active}
	v.sender = mailbox{txn.SenderAddress.Localpart, txn.SenderAddress.Domain, unparsedSender(txn)}
	for _, r := range txn.Recipients.All() {
		v.recipients = append(v.recipients, mailbox{r.Address.Localpart, r.Address.Domain, unparsedRecipient(r)})
	}
	return v
}

// is tells whether a host that has taken an address for sender or recipient has
// taken what the view says. Where the view claims no mailbox, it has the argument
// as sent instead, in which the host has found its own.
func (m mailbox) is(address string) bool {
	if m.unparsed != "" {
		return m.local == "" && m.domain == "" && strings.Contains(unquoted(m.unparsed), unquoted(address))
	}
	return mailboxOf(address) == m
}

// mailboxOf takes a host's address apart. It does no more than undo what hosts do
// differently: some keep a source route, which is to be ignored (RFC 5321 section
// 4.1.2), and some take the quotes of a local part away.
func mailboxOf(address string) mailbox {
	if strings.HasPrefix(address, "@") {
		if _, behind, ok := strings.Cut(address, ":"); ok {
			address = behind
		}
	}
	i := strings.LastIndexByte(address, '@')
	if i < 0 {
		return mailbox{local: address}
	}
	return mailbox{local: unquoted(address[:i]), domain: address[i+1:]}
}

// unquoted removes the quoting of a Quoted-string (RFC 5321 section 4.1.2),
// wherever it stands.
func unquoted(s string) string { return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `"`, "").Replace(s) }
