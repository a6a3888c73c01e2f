package proxytest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// loopback connects to the server over a socket, through what wrap makes of the server's
// end of it, and returns the client's.
func (h *hearing) loopback(wrap func(net.Conn) net.Conn) (net.Conn, bool) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, false
	}
	defer l.Close()
	client, err := net.DialTimeout("tcp", l.Addr().String(), h.Timeout)
	if err != nil {
		return nil, false
	}
	client.SetDeadline(time.Now().Add(h.Timeout))
	server, err := l.Accept()
	if err != nil {
		client.Close()
		return nil, false
	}
	if !h.l.connect(wrap(server), h.Timeout) {
		client.Close()
		server.Close()
		return nil, false
	}
	return client, true
}

// greetsTCP tells whether the server greets on a socket.
func (h *hearing) greetsTCP() bool {
	client, ok := h.loopback(func(c net.Conn) net.Conn { return c })
	if !ok {
		return false
	}
	defer client.Close()
	line, _ := bufio.NewReader(client).ReadString('\n')
	return strings.HasPrefix(line, "220")
}

// keywordsInTLS returns what the server announces where its connection is a *tls.Conn.
func (h *hearing) keywordsInTLS() map[string]string {
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	client, ok := h.loopback(func(c net.Conn) net.Conn { return tls.Server(c, config) })
	if !ok {
		return nil
	}
	defer client.Close()
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) // it is the trial's own
	r := bufio.NewReader(tc)
	if _, err := r.ReadString('\n'); err != nil {
		return nil
	}
	if _, err := fmt.Fprintf(tc, "%s %s\r\n", h.hello(), h.Host); err != nil {
		return nil
	}
	var text strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		text.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			return keywordsOf(text.String())
		}
	}
}
