package hosts

import "github.com/seed3262c777/smtpproxy"

// unparsedSender is the argument of MAIL as sent, if the library doesn't claim to
// know the mailbox in it. The library doesn't tell yet.
func unparsedSender(smtpproxy.Transaction) string { return "" }

// unparsedRecipient is the same for RCPT.
func unparsedRecipient(smtpproxy.Recipient) string { return "" }
