package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/seed3262c777/smtpproxy"
)

// This file is about TLS session tickets. Microsoft's Outlook breaks off at those of a
// server written in Go, if it has started TLS with STARTTLS (golang/go#70232), so that
// its user can send no mail.

// ticketCount is a client's cache of sessions that counts what it gets.
type ticketCount struct {
	tls.ClientSessionCache
	mu   sync.Mutex
	puts int
}

func newTicketCount() *ticketCount {
	return &ticketCount{ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

func (c *ticketCount) Put(key string, s *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		c.puts++
	}
	c.ClientSessionCache.Put(key, s)
}

func (c *ticketCount) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.puts
}

// forClient makes a configuration that asks another for each client.
func forClient(cfg *tls.Config) *tls.Config {
	outer := serverTLS().Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return cfg, nil }
	return outer
}

// disabled returns a configuration without tickets.
func disabled() *tls.Config {
	cfg := serverTLS().Clone()
	cfg.SessionTicketsDisabled = true
	return cfg
}

func TestSessionTicketsAreSentBehindSTARTTLSOnlyIfTheyAreAskedFor(t *testing.T) {
	plain, own := serverTLS().Clone(), serverTLS().Clone()
	withKeys := serverTLS().Clone()
	withKeys.SetSessionTicketKeys([][32]byte{{1}})
	startTLS, fromTheStart := tlsDoors[:1], tlsDoors[1:]
	for _, row := range []struct {
		why     string
		doors   []string
		cfg     *tls.Config
		asked   bool // Proxy.SessionTickets
		tickets bool
	}{
		{"not by default", startTLS, plain, false, false},
		{"nor with keys for them", startTLS, withKeys, false, false},
		{"nor with a configuration for the client", startTLS, forClient(own), false, false},
		{"nor where there is none for this client", startTLS, forClient(nil), false, false},
		{"by request", startTLS, plain, true, true},
		{"by request, with keys", startTLS, withKeys, true, true},
		{"by request, with a configuration for the client", startTLS, forClient(own), true, true},
		{"by request, where there is none for this client", startTLS, forClient(nil), true, true},
		{"the configuration has the last word", startTLS, disabled(), true, false},
		{"the client's has", startTLS, forClient(disabled()), true, false},
		{"where TLS comes first, as the configuration says", fromTheStart, plain, false, true},
		{"likewise, with a configuration for the client", fromTheStart, forClient(own), false, true},
		{"likewise, without", fromTheStart, disabled(), false, false},
		{"likewise, without though they are asked for", fromTheStart, disabled(), true, false},
	} {
		for _, door := range row.doors {
			for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
				name := fmt.Sprintf("%s, %s, %s", row.why, door, tls.VersionName(version))
				cache := newTicketCount()
				client := &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example", ClientSessionCache: cache, MinVersion: version, MaxVersion: version}
				connect := openDoor(t, door, overTCP(t), row.cfg, smtpproxy.Proxy{SessionTickets: row.asked}, new(tlsBackend))
				resumed := false
				for range 2 {
					k := connect(t)
					state, err := k.greetInTLS(door, client)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					k.want("QUIT", "221")
					io.Copy(io.Discard, k.r) // a ticket may come late
					k.Close()
					resumed = state.DidResume
				}
				if got := cache.count() > 0; got != row.tickets || resumed != row.tickets {
					t.Errorf("%s: %d tickets, the second handshake resumes the first: %v", name, cache.count(), resumed)
				}
			}
		}
	}
	for _, cfg := range []*tls.Config{plain, own, withKeys} {
		if cfg.SessionTicketsDisabled || cfg.GetConfigForClient != nil || !slices.EqualFunc(cfg.Certificates, serverTLS().Certificates,
			func(a, b tls.Certificate) bool { return &a.Certificate[0][0] == &b.Certificate[0][0] }) {
			t.Error("a configuration of the user's was changed")
		}
	}
}

// What GetConfigForClient returns may be used for other servers, too, and an error of
// its fails the handshake.
func TestTheUsersTLSConfigurationsAreNotChanged(t *testing.T) {
	own := serverTLS().Clone()
	calls := 0
	cfg := serverTLS().Clone()
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == "refused.example" {
			return own, fmt.Errorf("no such server")
		}
		calls++
		return own, nil
	}
	before := fmt.Sprint(cfg.SessionTicketsDisabled, own.SessionTicketsDisabled)
	connect := openDoor(t, "STARTTLS", overTCP(t), cfg, smtpproxy.Proxy{}, new(tlsBackend))
	if _, err := connect(t).greetInTLS("STARTTLS", &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example"}); err != nil {
		t.Error(err)
	}
	if _, err := connect(t).greetInTLS("STARTTLS", &tls.Config{InsecureSkipVerify: true, ServerName: "refused.example"}); err == nil {
		t.Error("the handshake succeeded")
	}
	if after := fmt.Sprint(cfg.SessionTicketsDisabled, own.SessionTicketsDisabled); after != before {
		t.Errorf("tickets were disabled %s before, %s now", before, after)
	}
	if calls != 1 {
		t.Errorf("%d calls of GetConfigForClient", calls)
	}
	if got, err := cfg.GetConfigForClient(&tls.ClientHelloInfo{}); got != own || err != nil {
		t.Errorf("it returns %v, %v", got, err)
	}
}
