package gosmtp_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/gosmtp"
)

// This file holds that a Proxy that can't work is an error before anything is served.

// fault is a Proxy that can't work, and what its error tells.
type fault struct {
	why  string
	p    *smtpproxy.Proxy
	says string
}

var faults = []fault{
	{"none at all", nil, "nil"},
	{"two words are no verb", &smtpproxy.Proxy{Commands: []string{"MAIL FROM"}}, "MAIL FROM"},
	{"TLS needs a certificate", &smtpproxy.Proxy{TLSConfig: new(tls.Config)}, "certificate"},
	{"likewise from the start", &smtpproxy.Proxy{TLSConfig: new(tls.Config), ImplicitTLS: true}, "certificate"},
}

func TestServeReturnsWhatIsWrongAndClosesTheListener(t *testing.T) {
	for _, row := range append(slices.Clone(faults),
		fault{"neither the proxy nor the server has a TLSConfig", &smtpproxy.Proxy{ImplicitTLS: true}, "ImplicitTLS"}) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		srv := newServer()
		if err := gosmtp.Serve(srv, l, row.p); err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.why, err)
		}
		if srv.AllowInsecureAuth {
			t.Errorf("%s: the server is taken over", row.why)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener is open: %v", row.why, err)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
			t.Errorf("%s: a client can connect", row.why)
		}
		if err := srv.Close(); err != nil {
			t.Errorf("%s: Close: %v", row.why, err)
		}
	}
}

func TestNobodyListensWithWhatIsWrong(t *testing.T) {
	for name, serve := range map[string]func(*smtp.Server, *smtpproxy.Proxy) error{
		"ListenAndServe": gosmtp.ListenAndServe, "ListenAndServeTLS": gosmtp.ListenAndServeTLS,
	} {
		rows := slices.Clone(faults)
		if name == "ListenAndServeTLS" {
			rows = append(rows, fault{"neither the proxy nor the server has a TLSConfig", new(smtpproxy.Proxy), "ImplicitTLS"})
		}
		for _, row := range rows {
			socket := filepath.Join(socketDir(t), "s")
			srv := newServer()
			srv.Network, srv.Addr = "unix", socket
			if err := serve(srv, row.p); err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%s, %s: %v", name, row.why, err)
			}
			if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, %s: it has listened: %v", name, row.why, err)
			}
			if srv.AllowInsecureAuth {
				t.Errorf("%s, %s: the server is taken over", name, row.why)
			}
		}
	}
}

// What the server brings counts as the Proxy's own.
func TestTheServersTLSConfigIsLookedAtToo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer()
	srv.TLSConfig = new(tls.Config)
	if err := gosmtp.Serve(srv, l, new(smtpproxy.Proxy)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a TLSConfig without a certificate: %v", err)
	}

	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	srv = newServer()
	srv.TLSConfig = serverTLS()
	served := make(chan error, 1)
	go func() { served <- gosmtp.Serve(srv, l, &smtpproxy.Proxy{ImplicitTLS: true}) }()
	c := tls.Client(dialSoon(t, "tcp", l.Addr().String(), served), &tls.Config{InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Errorf("a TLSConfig with one: %v", err)
	}
	srv.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestServeReturnsThatAListenerIsWrappedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer()
	p := new(smtpproxy.Proxy)
	if err := gosmtp.Serve(srv, p.Listener(l), p); err == nil || !strings.Contains(err.Error(), "wrapped again") {
		t.Errorf("got %v", err)
	}
	srv.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the server is closed, its listener isn't: %v", err)
	}
}
