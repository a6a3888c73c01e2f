package main

import (
	"context"
	"log"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/seed3262c777/smtpproxy/examples/internal/demo"
)

// session returns a client's session. want is the reply to MAIL.
func session(want string) []demo.Step {
	return []demo.Step{
		{Send: "", Want: "220 "}, // the greeting comes by itself
		{Send: "EHLO client.example.org", Want: "250 "},
		{Send: "MAIL FROM:<sender@example.org>", Want: want},
	}
}

// message is the rest of the session of a client whose MAIL was accepted.
var message = []demo.Step{
	{Send: "RCPT TO:<one@example.com>", Want: "250 "},
	{Send: "DATA", Want: "354 "},
	{Send: "Subject: proxyprotocol\n\nHello!\n.", Want: "250 "},
	{Send: "QUIT", Want: "221 "},
}

// show plays the sessions of the built-in load balancer.
func show(ctx context.Context, out *log.Logger) error {
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}
	plain, err := proxyproto.HeaderProxyFromAddrs(1, from, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 25}).Format()
	if err != nil {
		return err
	}
	withTLS, err := headerWithTLS(from, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 465})
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l, err := behindBalancers(tcp, []string{"127.0.0.1"}, 5*time.Second)
	if err != nil {
		return err
	}
	return serve(ctx, l, out, func() error {
		addr := tcp.Addr().String()
		out.Printf("a load balancer, with a header of version 1: %q", plain)
		if err := demo.PlayBehind(ctx, addr, plain, out, session("530 ")...); err != nil {
			return err
		}
		out.Println("a load balancer, with a header of version 2 that tells of TLS:")
		return demo.PlayBehind(ctx, addr, withTLS, out, append(session("250 "), message...)...)
	}, true)
}

// headerWithTLS returns a header as HAProxy's send-proxy-v2-ssl sends it, with all of
// its proxy-v2-options that toldOf looks at.
func headerWithTLS(from, to net.Addr) ([]byte, error) {
	sub := func(t proxyproto.PP2Type, value string) proxyproto.TLV {
		return proxyproto.TLV{Type: t, Value: []byte(value)}
	}
	ssl, err := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL | tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN,
		Verify: 0, // it is verified
		TLV: []proxyproto.TLV{
			sub(proxyproto.PP2_SUBTYPE_SSL_VERSION, "TLSv1.3"),
			sub(proxyproto.PP2_SUBTYPE_SSL_CIPHER, "TLS_AES_256_GCM_SHA384"),
			sub(proxyproto.PP2_SUBTYPE_SSL_CN, "client.example.org"),
		},
	}.Marshal()
	if err != nil {
		return nil, err
	}
	header := proxyproto.HeaderProxyFromAddrs(2, from, to)
	if err := header.SetTLVs([]proxyproto.TLV{sub(proxyproto.PP2_TYPE_AUTHORITY, "mail.example.com"), ssl}); err != nil {
		return nil, err
	}
	return header.Format()
}
