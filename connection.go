package smtpproxy

import (
	"crypto/x509"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/google/uuid"
	"github.com/seed3262c777/smtpproxy/internal/peercred"
)

// Connection is a read-only view of the client's connection at the moment the
// hook is called. It is a value: whatever a hook does to its copy changes
// nothing. The certificates are shared, as everywhere in Go; they must not be
// changed.
type Connection struct {
	// ID is a random UUID, the same for as long as the client is connected.
	ID string

	// RemoteIP and RemotePort are the client's address, the zero Addr and 0
	// on a unix socket. An IPv4 address is never in IPv6 form.
	RemoteIP   netip.Addr
	RemotePort uint16

	// Peer is who is connected: the address of the listener's connection, for which a
	// PROXY header counts that the listener beneath has read. RemoteIP and RemotePort are
	// the same, until a hook finds out that the client is another's (see Reply.Restart),
	// which never changes Peer. So whom to believe is judged by Peer; and by RemoteIP as
	// well, since many a front end hands on what its clients send once it has told of them.
	Peer netip.AddrPort

	// RemotePTR is the client's host name from the reverse DNS, in lower
	// case and confirmed by a lookup of its address; empty if unknown, and
	// without Proxy.LookupPTR.
	RemotePTR string

	// RemoteUID is the user at the other end of a unix socket, as it was
	// when the client connected. It is known on Linux.
	RemoteUID UID

	// LocalIP and LocalPort are the address that the client connected to.
	LocalIP   netip.Addr
	LocalPort uint16

	// ServerID is Proxy.ServerID.
	ServerID string

	// EarlyTalker tells that the client sent something before it was
	// greeted (RFC 5321 section 3.1), as many programs that send spam do.
	// It is known of sockets on unix systems, TLS from the start or not.
	EarlyTalker bool

	// HELO is the client's greeting, from the server's 250 on.
	HELO HELO

	// TLS describes the TLS connection; its Protocol is empty without TLS.
	TLS TLS

	// Auth tells who the client has authenticated as, from the server's 235
	// on (RFC 4954 section 6).
	Auth Auth
}

// UID is a user number of the operating system.
type UID struct {
	ID    uint32
	Valid bool // false if the user is unknown: 0 is a user too
}

// HELO is a HELO, EHLO or LHLO command that the server accepted (RFC 5321
// section 4.1.1.1, RFC 2033 section 4.1).
type HELO struct {
	Verb string // "HELO", "EHLO" or "LHLO"; empty before the first
	Host string // its argument as sent, which nobody has verified
}

// TLS describes a TLS connection.
type TLS struct {
	Protocol string   // such as "TLSv1.3"; empty without TLS
	Cipher   string   // OpenSSL's name, such as "ECDHE-RSA-AES256-GCM-SHA384"
	KeySize  int      // of the cipher, in bits
	SNI      string   // the server name that the client asked for (RFC 6066 section 3)
	PeerCert PeerCert // the client's certificate
}

// PeerCert is the certificate that a client presented, and what verifying it
// gave.
type PeerCert struct {
	// X509 is the client's certificate, nil if it sent none.
	X509 *x509.Certificate

	// Error is OpenSSL's number for the verification's result
	// (X509_V_ERR_...): 0 for a verified certificate, and for none (see
	// Verified). Where a tls.Listener beneath has taken a certificate without
	// verifying it, and the Proxy has no TLSConfig with its ClientCAs, it is
	// verified against the system's.
	Error int

	// Err is the verification's error, nil for a verified certificate, and for
	// none.
	Err error

	chain []*x509.Certificate
}

// NewPeerCert returns a PeerCert for a chain that starts with the client's
// certificate. It is meant for tests of hooks.
func NewPeerCert(number int, err error, chain ...*x509.Certificate) PeerCert {
	p := PeerCert{Error: number, Err: err, chain: slices.Clone(chain)}
	if len(chain) > 0 {
		p.X509 = chain[0]
	}
	return p
}

// Verified tells whether the client has sent a certificate, and verifying it found
// no fault. Error is 0, and Err nil, where there is none, too.
func (p PeerCert) Verified() bool { return p.X509 != nil && p.Error == 0 && p.Err == nil }

// Chain returns the certificates as the client sent them, its own first, in a
// slice that is the caller's.
func (p PeerCert) Chain() []*x509.Certificate { return slices.Clone(p.chain) }

// Auth is a successful SASL authentication.
type Auth struct {
	Mechanism string // in upper case, such as "PLAIN"; empty if not authenticated
	Username  string // empty for a mechanism that has none
}

// facts are what a session knows of its connection. It has room for TLS and AUTH
// only where they are: most connections are idle most of the time.
type facts struct {
	id string // never changes
	ends
	helo   HELO
	secure *secure // may be nil without TLS and AUTH
}

type secure struct {
	tls  TLS
	auth Auth
}

// facts returns those that have c for their view. An empty ID is replaced.
func (c *Connection) facts() facts {
	f := facts{
		id:     c.ID,
		ends:   ends{c.RemoteIP, c.LocalIP, c.RemotePort, c.LocalPort, c.RemoteUID, c.EarlyTalker},
		helo:   c.HELO,
		secure: &secure{c.TLS, c.Auth},
	}
	if f.id == "" {
		f.id = newID()
	}
	return f
}

// view makes c, which must be zero, the Connection, as a hook sees it, but for the server's
// ID and the client's host name.
func (f *facts) view(c *Connection) {
	c.ID = f.id
	c.Peer = f.peer()
	c.RemoteIP, c.RemotePort, c.LocalIP, c.LocalPort = f.remoteIP, f.remotePort, f.localIP, f.localPort
	c.RemoteUID, c.EarlyTalker, c.HELO = f.uid, f.earlyTalker, f.helo
	if f.secure != nil {
		c.TLS, c.Auth = f.secure.tls, f.secure.auth
	}
}

func (f *facts) inTLS() bool { return f.secure != nil && f.secure.tls.Protocol != "" }

func (f *facts) hasAuth() bool { return f.secure != nil && f.secure.auth != (Auth{}) }

// authenticate notes who the client is, or that it's nobody.
func (f *facts) authenticate(a Auth) {
	switch {
	case f.secure != nil:
		f.secure.auth = a
	case a != (Auth{}):
		f.secure = &secure{auth: a}
	}
}

// peer returns who is connected, unless something else was told.
func (e *ends) peer() netip.AddrPort { return netip.AddrPortFrom(e.remoteIP, e.remotePort) }

// ends are what a connection tells of both its ends.
type ends struct {
	remoteIP, localIP     netip.Addr
	remotePort, localPort uint16
	uid                   UID
	earlyTalker           bool
}

// endsOf asks an accepted connection. That may take as long as the client likes: a
// listener that reads a PROXY header does so when it's first asked for an address.
func endsOf(c net.Conn) (e ends) {
	e.remoteIP, e.remotePort = ipPort(c.RemoteAddr())
	e.localIP, e.localPort = ipPort(c.LocalAddr())
	e.uid.ID, e.uid.Valid = peercred.UID(c)
	return e
}

func ipPort(a net.Addr) (netip.Addr, uint16) {
	// *net.TCPAddr is one of these; a unix address is not.
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return ap.Addr().Unmap(), ap.Port()
	}
	return netip.Addr{}, 0
}

// newID returns a random UUID (RFC 9562 section 5.4). It names something and
// guards nothing, so it doesn't ask the kernel for randomness: each RSET makes
// one, and would take a tenth longer.
func newID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40 // version 4
	id[8] = id[8]&0x3f | 0x80 // its variant
	return id.String()
}
