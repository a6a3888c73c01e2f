package hooks

import (
	"net/netip"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// RepairHELO gives a name to a client that greets without one, or with one that isn't a
// single word, as printers and scripts do: EHLO alone, or "EHLO my printer". Servers refuse
// that (RFC 5321 section 4.1.1.1). What it says then is Name, or, if that is empty, the
// client's address as a literal, such as [192.0.2.1] or [IPv6:2001:db8::1] (section 4.1.3).
//
// A greeting with a bad name is a sign of a bad client, too. Where such a sign counts, look at
// smtpproxy.Command.Received.
type RepairHELO struct {
	Name string
}

// Command implements smtpproxy.Hook.
func (h *RepairHELO) Command(_ *smtpproxy.Context, cmd smtpproxy.Command, conn smtpproxy.Connection, _ smtpproxy.Transaction) (smtpproxy.Decision, error) {
	verb := cmd.Verb()
	switch verb {
	case "HELO", "EHLO", "LHLO":
	default:
		return nil, nil
	}
	if name := strings.TrimRight(cmd.Args(), " \t"); name != "" && !strings.ContainsAny(name, " \t") {
		return nil, nil
	}
	name := h.Name
	if name == "" {
		name = literal(conn.RemoteIP)
	}
	return smtpproxy.Pass{Command: verb + " " + name}, nil
}

// literal returns an address literal (RFC 5321 section 4.1.3), or what stands for none.
func literal(ip netip.Addr) string {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid():
		return "localhost" // on a unix socket
	case ip.Is4():
		return "[" + ip.String() + "]"
	}
	return "[IPv6:" + ip.WithZone("").String() + "]"
}
