package hosts

import "github.com/seed3262c777/smtpproxy"

// unparsedSender is the argument of MAIL as sent, if the library doesn't claim to
// know the mailbox in it.
func unparsedSender(txn smtpproxy.Transaction) string { return txn.Unparsed }

// unparsedRecipient is the same for RCPT.
func unparsedRecipient(r smtpproxy.Recipient) string { return r.Unparsed }
